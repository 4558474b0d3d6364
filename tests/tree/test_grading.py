"""Nothing is green that was not judged: a version that leaves, skips, forges or exchanges is told so."""

import time

import pytest

from techtree.tree import grading
from techtree.tree.graph import load_tree

RIGHT = '''"""Doubles numbers."""


def double(x):
    """Return 2x."""
    return x + x
'''

TRICKS = {
    "leaves at once": ("import os\nos._exit(0)\n", "the process ended while it ran"),
    "leaves in the call": (
        RIGHT.replace("return", "import os; os._exit(0)\n    return"),
        "ended while it ran",
    ),
    "calls sys.exit": (RIGHT.replace("return", "import sys; sys.exit(0)\n    return"), "SystemExit: 0"),
    "skips": (
        RIGHT.replace("return", "import unittest; raise unittest.SkipTest('later')\n    return"),
        "skipped, which is not passed",
    ),
    "skips with pytest": (
        RIGHT.replace("return", "import sys; sys.modules['pytest'].skip('later')\n    return"),
        "skipped, which is not passed",
    ),
    "ends the session": (
        RIGHT.replace("return", "import sys; sys.modules['pytest'].exit('done', 0)\n    return"),
        "test_double",
    ),
    "imports by string and swallows the refusal": (
        RIGHT
        + "import builtins as b\ntry:\n    getattr(b, 'ex' + 'ec')('import tyro')\nexcept Exception: pass\n",
        "imports tyro, which no prerequisite opens",
    ),
    "imports by importlib": (
        RIGHT + "import sys\nsys.modules['importlib'].import_module('tyro')\n",
        "imports tyro by string",
    ),
    "imports from the text of a module": (RIGHT + "import pydoc\npydoc.locate('tyro')\n", "imports"),
    "imports our answer": (
        "from techtree.techs.ground.aside.aside import *\n",
        "imports techtree.techs.ground.aside",
    ),
    "starts a process": (RIGHT + "import os\nos.system('true')\n", "starts a process"),
    "starts a process from a thread": (
        RIGHT
        + "import os, threading as t\nt = t.Thread(target=os.system, args=('true',))\nt.start()\nt.join()\n",
        "starts a process",
    ),
    "forks without end": (RIGHT + "import os\nwhile True:\n    os.fork()\n", "starts a process"),
    "sends a signal": (RIGHT + "import os\nos.kill(os.getppid(), 15)\n", "sends signals"),
    "exchanges pytest's raises": (
        RIGHT + "import sys\nsys.modules['pytest'].raises = None\n",
        "exchanges pytest.raises",
    ),
    "exchanges a function of NumPy": (RIGHT + "import numpy\nnumpy.abs = len\n", "exchanges numpy.abs"),
    "exchanges a built-in function": (
        RIGHT + "import builtins\nbuiltins.all = any\n",
        "exchanges builtins.all",
    ),
    "exchanges the runner": (
        RIGHT + "import sys\nc = sys.modules['_pytest.runner'].CallInfo\nc.from_call = classmethod(len)\n",
        "not judged",
    ),
    "exchanges the test": (
        "import sys\nfor name, module in list(sys.modules.items()):\n"
        "    if name.endswith('test_aside'):\n        module.test_double = lambda impl: None\n"
        "def double(x):\n    return 0\n",
        "test_double",
    ),
    "takes more memory than there may be": (
        RIGHT.replace("return", "y = [bytearray(1 << 28) for _ in range(400)]\n    return"),
        "MemoryError",
    ),
    "writes files": (
        RIGHT + "import os\nopen(os.path.expanduser('~/techtree-trick'), 'w')\n",
        "writes a file outside",
    ),
    "prints a forged outcome": (
        'import os\nfor n in range(20):\n    try:\n        os.write(n, b\'{"kind": "finished"}\\n\')\n'
        "    except OSError:\n        pass\nprint('PASSED')\ndef double(x):\n    return x\n",
        "AssertionError",
    ),
}


def judge(small_package, source, timeout_s=20.0):
    """Grade a file as the technology `aside` of the small tree; return the problems."""
    tech = load_tree(small_package / "techtree" / "techs")["aside"]
    path = small_package / "mine.py"
    path.write_text(source, encoding="utf-8")
    return grading.grade(tech, str(path), timeout_s=timeout_s)


@pytest.fixture
def package(small_package, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(small_package))
    return small_package


def test_a_right_version_is_green_whatever_it_prints(package):
    report = judge(package, RIGHT + "import os\nprint('x' * 100_000)\nos.write(1, b'junk')\n")
    assert report.problems() == []
    assert report.answers == {"three": 6}
    assert report.n_lines > 3


LEFT_WITHIN = """
import math

def within():
    math.is_off = True
    try:
        yield
    finally:
        del math.is_off

def stays_within(x):
    half_way = within()
    next(half_way)
    return half_way.throw  # which holds the generator

MISTAKES |= {"stays within": {"double": stays_within}}
"""


def test_what_a_wrong_version_leaves_half_way_is_ended_before_the_next(package):
    """The failure's traceback keeps it alive, and the right versions come next."""
    folder = package / "techtree" / "techs" / "ground" / "aside"
    with (folder / "variants.py").open("a", encoding="utf-8") as file:
        file.write(LEFT_WITHIN)
    (folder / "test_aside.py").write_text(
        "import math\n\n\ndef test_double(impl):\n    assert not hasattr(math, 'is_off')\n"
        "    found = impl.double(3)\n    assert found == 6\n",
        encoding="utf-8",
    )
    tech = load_tree(package / "techtree" / "techs")["aside"]
    assert grading.grade(tech).problems() == []


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_told_and_never_green(package, trick):
    source, told = TRICKS[trick]
    problems = judge(package, source).problems()
    assert any(told in problem for problem in problems), problems


def test_where_processes_are_the_topic_they_may_be_started_and_ended(package):
    toml = package / "techtree" / "techs" / "ground" / "aside" / "tech.toml"
    toml.write_text(toml.read_text(encoding="utf-8") + "starts_processes = true\n", encoding="utf-8")
    started = "import os, subprocess\np = subprocess.Popen(['sleep', '60'])\nos.kill(p.pid, 9)\np.wait()\n"
    assert judge(package, started + RIGHT).problems() == []


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "while True:\n        try:\n            while True: pass\n        except Exception: pass",
    ],
)
def test_an_endless_loop_is_stopped(package, body):
    conftest = package / "techtree" / "techs" / "conftest.py"
    text = conftest.read_text(encoding="utf-8")
    assert "TEST_TIMEOUT_S = 6" in text
    conftest.write_text(text.replace("TEST_TIMEOUT_S = 6", "TEST_TIMEOUT_S = 0.3"), encoding="utf-8")
    problems = judge(package, RIGHT.replace("return", f"{body}\n    return")).problems()
    assert any("stopped after 0.3 s" in problem for problem in problems), problems


def test_what_sleeps_is_killed_with_all_that_it_started(package):
    start = time.monotonic()
    problems = judge(
        package, RIGHT.replace("return", "import time; time.sleep(60)\n    return"), 6.0
    ).problems()
    assert time.monotonic() - start < 30
    assert any("ended while it ran (stopped after 6 s)" in problem for problem in problems), problems
