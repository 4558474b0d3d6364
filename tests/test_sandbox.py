"""A program that nobody has read is run, and can do no harm."""

import os
import secrets
import socket
import sys
import time
from pathlib import Path

import pytest

from techtree.errors import InputError
from techtree.sandbox import Limits, Outcome, run, why_not_confined

pytestmark = pytest.mark.skipif(bool(why_not_confined()), reason=f"needs {why_not_confined()}")

SHORT = Limits(cpu_seconds=1, wall_seconds=20.0)
"""A busy machine takes long to give a second."""


def living(word: str) -> list[int]:
    """Return the processes that have a word in their names."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if word.encode() in (folder / "comm").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("code", [0, 1, 3, 127, 128, 137, 255])
def test_a_program_that_ends(code):
    outcome = run(
        f"import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.flush()\nsys.exit({code})"
    )
    assert (outcome.ending, outcome.exit_code) == ("exited", code)
    assert sorted(outcome.output.split()) == ["err", "out"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("x = '\0'", "null bytes"),
        ("import numpy", "ModuleNotFoundError"),
    ],
)
def test_a_program_that_fails(source, told):
    outcome = run(source)
    assert (outcome.ending, outcome.exit_code) == ("exited", 1)
    assert told in outcome.output


def test_it_is_the_main_module_and_gets_nothing():
    outcome = run(
        "import os, sys\n"
        "print(__name__, sys.argv, sys.stdin.read() == '')\n"
        "print(sorted(set(os.environ) - {'LC_CTYPE'}), os.listdir())"
    )
    assert outcome == Outcome("exited", 0, "__main__ ['program'] True\n[] []\n")


@pytest.mark.parametrize("signal", [6, 9, 11, 15])
def test_a_program_that_a_signal_ends(signal):
    assert run(f"import os; os.kill(os.getpid(), {signal})") == Outcome("killed", None, "")


def test_an_endless_loop_has_its_seconds():
    begin = time.process_time_ns()
    outcome = run("print('begun', flush=True)\nwhile True: pass", SHORT)
    assert outcome == Outcome("killed", None, "begun\n")
    assert time.process_time_ns() - begin < 1e9  # the waiting costs nothing


def test_one_that_sleeps_has_its_time():
    assert run("import time; time.sleep(99)", Limits(wall_seconds=0.5)) == Outcome("time", None, "")


def test_one_that_closes_its_output_has_its_time():
    source = "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(99)"
    assert run(source, Limits(wall_seconds=0.5)) == Outcome("time", None, "")


@pytest.mark.parametrize("n", [1, 99, 100, 101, 100_000])
def test_output_up_to_the_limit(n):
    outcome = run(f"print('x' * {n}, end='')", Limits(output_bytes=100))
    assert outcome.output == "x" * min(n, 100)
    assert outcome.ending == ("exited" if n <= 100 else "output")


def test_endless_output_is_cut():
    outcome = run("while True: print('x' * 1000)", SHORT)
    assert (outcome.ending, len(outcome.output)) == ("output", SHORT.output_bytes)


def test_output_that_is_no_text():
    assert run("import os; os.write(1, b'a\\xff\\xc3')").output == "a\ufffd\ufffd"


def test_memory_has_a_limit():
    assert "MemoryError" in run("x = bytearray(10 ** 11)").output
    assert run("x = bytearray(10 ** 8); print(len(x))").output == "100000000\n"


def test_it_writes_in_its_folder_only_and_little():
    assert run("open('a', 'w').write('text'); print(open('a').read())").output == "text\n"
    assert "OSError" in run("open('a', 'wb').write(bytes(10 ** 8))").output
    many = "for i in range(99):\n    open(str(i), 'wb').write(bytes(10 ** 6))"
    assert "No space left" in run(many).output
    assert run("import os; print(os.listdir('.'), os.listdir('/tmp'))").output == "[] []\n"


def test_nothing_outside_changes(tmp_path):
    (tmp_path / "kept").write_text("kept")
    here = Path(__file__).parent
    for place in (here, Path.home(), Path("/dev/shm"), Path("/")):
        made = place / secrets.token_hex(8)
        assert "Error" in run(f"open({str(made)!r}, 'w').write('x')").output
        assert not made.exists()
    for source in ("import shutil; shutil.rmtree({!r})", "import os; os.remove({!r} + '/kept')"):
        assert "Error" in run(source.format(str(tmp_path))).output
    assert (tmp_path / "kept").read_text() == "kept"


WRITABLE = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None)
print(libc.syscall(442, -100, b"/", 0, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32))  # mount_setattr
print(libc.mount(b"none", b"/", None, 32, None))  # remount
try: open({place!r}, "w").write("x"); print("written")
except OSError: print("refused")
"""


@pytest.mark.parametrize("way", ["itself", "a new program", "a new namespace"])
def test_no_right_is_had_again(way, tmp_path):
    source = WRITABLE.format(place=str(tmp_path / "made"))
    if way == "a new program":
        python = os.path.realpath(sys.executable)  # a virtual environment may lie in /tmp, which is hidden
        source = f"import subprocess\nsubprocess.run([{python!r}, '-I', '-S', '-c', {source!r}])"
    if way == "a new namespace":
        source = (
            "import ctypes, os\nuser = os.getuid()\n"
            "assert ctypes.CDLL(None).unshare(0x10020000) == 0\n"  # of users and of mounts
            "open('/proc/self/uid_map', 'w').write(f'0 {user} 1')\n" + source
        )
    outcome = run(source)
    assert outcome.output == "-1\n-1\nrefused\n"
    assert not (tmp_path / "made").exists()


def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert "Network is unreachable" in outcome.output


def test_it_sees_no_other_process():
    outcome = run("import os; print([int(name) for name in os.listdir('/proc') if name.isdigit()])")
    assert outcome.output == "[1, 2]\n"
    assert "ProcessLookupError" in run(f"import os; os.kill({os.getpid()}, 0)").output


NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, b'{}')\n"
"""A process that calls itself so."""


@pytest.mark.parametrize(
    "source",
    [
        "import os, time\nif os.fork() == 0: time.sleep(99)",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(99)",
        "import os\nfor _ in range(50):\n    try: os.fork()\n    except OSError: pass\nprint('x' * 10 ** 6)",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    ],
    ids=["child", "daemon", "many", "bomb"],
)
def test_nothing_stays(source):
    name = "s" + secrets.token_hex(6)
    outcome = run(NAMED.format(name) + source, Limits(cpu_seconds=1, wall_seconds=1.5))
    assert outcome.ending in ("exited", "time", "output")
    deadline = time.monotonic() + 20
    while living(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living(name) == []


def test_a_long_program():
    assert run("x = 1\n" * 100_000 + "print(x)").output == "1\n"


def test_a_program_that_does_not_read_to_its_end():
    assert run("#" * 10**7 + "\nprint(2)", SHORT).output == "2\n"


@pytest.mark.parametrize(
    "name", ["cpu_seconds", "wall_seconds", "memory_bytes", "output_bytes", "file_bytes"]
)
def test_limits_are_positive(name):
    with pytest.raises(InputError, match=f"{name} must be positive; got 0"):
        Limits(**{name: 0})
