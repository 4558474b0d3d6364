"""The lesson's sandbox and the product's see programs end alike."""

import pytest

from techtree import sandbox
from techtree.techs.assistant import sandbox as lesson

if sandbox.why_not_confined() or not lesson.means():
    pytest.skip("needs namespaces", allow_module_level=True)

PROGRAMS = [
    "print(6 * 7)",
    "import sys; sys.exit(3)",
    "import sys; sys.exit(255)",
    "raise ValueError",
    "import os; os.kill(os.getpid(), 9)",
    "import ctypes; ctypes.string_at(0)",
    "print('x' * 5000)",
    "import os; os.write(1, b'\\xff')",
    "import os; print(os.getuid(), sorted(set(os.environ) - {'LC_CTYPE'}))",
    "import sys; print(repr(sys.stdin.read()))",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(99)\nprint('gone')",
    "open('/etc/made', 'w')",
    "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "x = bytearray(10 ** 11)",
    "open('a', 'wb').write(bytes(10 ** 7))",
]


SLEEPING = [
    "import time; time.sleep(99)",
    "import os; os.close(1); os.close(2); import time; time.sleep(99)",
]


@pytest.mark.parametrize("source", PROGRAMS + SLEEPING)
def test_programs_end_alike(source):
    wall_seconds = 1.0 if source in SLEEPING else 20.0
    ours = sandbox.run(source, sandbox.Limits(wall_seconds=wall_seconds, output_bytes=1000))
    theirs = lesson.run(source, lesson.Limits(wall_seconds=wall_seconds, output_bytes=1000))
    assert (ours.ending, ours.exit_code) == (theirs.ending, theirs.exit_code)
    last = [each.output.rstrip().rpartition("\n")[2] for each in (ours, theirs)]
    assert last[0] == last[1]  # tracebacks differ in the names of files
