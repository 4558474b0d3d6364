import subprocess
import sys
import textwrap

import pytest

from techtree.tree.import_rule import ImportRule

PACKAGE = "techtree.techs.ground.second"
RULE = ImportRule(frozenset({PACKAGE, "techtree.techs.ground.first"}), frozenset({"numpy.einsum"}))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from numpy.lib import stride_tricks",
        "import math, zlib, collections.abc",
        "from techtree.techs.ground.first import double",
        "from techtree.techs.ground.first.first import double",
        "from .second import double",
        "from . import second",
        "from __future__ import annotations",
        "np.matmul(1, 2)",
    ],
)
def test_what_a_lesson_may_do(source):
    assert RULE.violations(source, PACKAGE) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import torch", "imports torch"),
        ("import numpy, torch.nn as nn", "imports torch.nn"),
        ("def f():\n    from scipy.special import softmax", "line 2: imports scipy.special"),
        ("from techtree.techs.ground.third import double", "imports techtree.techs.ground.third"),
        ("from techtree.techs.ground.firsts import double", "imports techtree.techs.ground.firsts"),
        ("from techtree.lm import model", "imports techtree.lm"),
        ("from ..third import double", "imports techtree.techs.ground.third"),
        ("from techtree.techs.ground.first.variants import MISTAKES", "variants"),
        ("from .variants import MISTAKES", "variants"),
        ("import importlib", "imports importlib"),
        ("__import__('torch')", "__import__ can import anything"),
        ("exec('import torch')", "exec can import anything"),
        ("f = eval", "eval can import anything"),
        ("import numpy as np\nnp.einsum('ij->i', x)", "line 2: uses numpy.einsum"),
        ("from numpy import einsum", "uses numpy.einsum"),
        ("from numpy import zeros, einsum", "uses numpy.einsum"),
        ("import numpy as xp\nxp.einsum('ij->i', x)", "line 2: uses numpy.einsum"),
        ("def f(:", "not valid Python"),
    ],
)
def test_what_a_lesson_may_not_do(source, why):
    problems = RULE.violations(source, PACKAGE)
    assert len(problems) == 1
    assert why in problems[0]


def run_watched(body: str) -> subprocess.CompletedProcess:
    """Run ``body`` as a watched file, in a process of its own: watching cannot be undone."""
    script = textwrap.dedent(f"""
        import sys
        from techtree.tree.import_rule import ImportRule, watch_calls, watch_imports
        rule = ImportRule(frozenset(), frozenset({{"numpy.einsum"}}))
        watch_imports({{"lesson.py": rule}}.get, lambda problem: None)
        watch_calls(rule.replaces, lambda file: file == "lesson.py")
        import numpy as np
        assert np.einsum("i,i->", [1, 2], [3, 4]) == 11  # other files may
        exec(compile({body!r}, "lesson.py", "exec"), {{"__file__": "lesson.py", "__name__": "lesson"}})
    """)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize(
    "body",
    [
        "import pytest",
        "def f():\n    import tyro\nf()",
        "import sys\ngetattr(sys.modules['builtins'], '__imp' + 'ort__')('rich', {'__file__': 'lesson.py'})",
        "import sys\nsys.modules['importlib'].import_module('rich')",
        "import numpy as np\ngetattr(np, 'ein' + 'sum')('i->', [1, 2])",
        "import numpy as np\ngetattr(np, '_co' + 're').einsumfunc.einsum('i->', [1, 2])",
    ],
)
def test_imports_and_calls_are_refused_while_the_code_runs(body):
    run = run_watched(body)
    assert run.returncode == 1
    assert "ForbiddenImportError" in run.stderr


def test_allowed_imports_pass_while_the_code_runs():
    run = run_watched("import math, json\nimport numpy.fft\nassert numpy.fft.fft([1]).real == 1")
    assert run.stderr == ""
