"""Oracles: what a program itself sees and can do, what the system shows of it, pipes filled by hand."""

import ctypes
import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from techtree.techs import aim

UNSHARE = ["unshare", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "true"]
PATIENCE_S = 20
"""Longer than anything here takes, also on a busy machine: what takes longer waits for what never comes."""


class HangsError(BaseException):
    """A version does not come back. (No Exception: it must not be swallowed.)"""


@contextmanager
def patience(seconds=PATIENCE_S, error=HangsError):
    """Break off what the block does when it takes too long."""

    def stop(signum, frame):
        raise error("it does not come back")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def descendants():
    """Return the processes that we started, and those that they started; nothing where /proc is missing."""
    parents = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                with open(f"/proc/{int(name)}/stat", encoding="latin-1") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents[int(name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def none_left(seconds=3.0):
    """Tell whether all that we started has ended; what has been killed may need a moment."""
    deadline = time.monotonic() + seconds
    while descendants() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not descendants()


@pytest.fixture(autouse=True)
def room(tmp_path, monkeypatch):
    """Give each test a folder for temporary files; end what a wrong version leaves running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            36, 1, 0, 0, 0
        )  # Whose parent has ended becomes our child (PR_SET_CHILD_SUBREAPER).
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    yield room
    for _ in range(50):
        left = descendants()
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            break
        time.sleep(0.01)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def ran(impl, source, **limits):
    """Return ending, exit code and output of a program."""
    with patience():
        found = impl.run(source, impl.Limits(**{"wall_seconds": 15.0, **limits}))
    assert type(found) is impl.Outcome
    assert type(found.output) is str
    assert (found.exit_code is None) == (found.ending != "exited")
    return found.ending, found.exit_code, found.output


def told(impl, source, **limits):
    """Return what a program prints as JSON."""
    ending, code, output = ran(impl, source, **limits)
    assert (ending, code) == ("exited", 0), output
    return json.loads(output)


def test_limits_and_outcomes_are_values(impl):
    assert dataclasses.astuple(impl.Limits())[:5] == (2.0, 5.0, 256 << 20, 10_000, 1 << 20)
    names = ["cpu_seconds", "wall_seconds", "memory_bytes", "output_bytes", "file_bytes"]
    assert [each.name for each in dataclasses.fields(impl.Limits)][:5] == names
    assert impl.Limits().processes == 16
    assert impl.Limits().folder_bytes == 16 << 20
    assert impl.Limits(1.0, 2.0, 3, 4, 5, processes=6, folder_bytes=7).file_bytes == 5
    assert impl.Outcome("exited", 0, "a") == impl.Outcome("exited", exit_code=0, output="a")
    for each, name in ((impl.Limits(), "cpu_seconds"), (impl.Outcome("time", None, ""), "ending")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(each, name, 1)


@contextmanager
def piped(*pieces, wait=0.0, stays_open=False):
    """Give a pipe into which somebody writes pieces, each after a moment."""
    reading, writing = os.pipe()

    def write():
        with suppress(BrokenPipeError):
            for piece in pieces:
                time.sleep(wait)
                while piece:
                    piece = piece[os.write(writing, piece) :]
        if not stays_open:
            os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)
        writer.join()
        if stays_open:
            os.close(writing)


def test_what_is_read_of_a_pipe(impl):
    """Sizes around the cap, in one piece and in many."""
    for n in aim.sizes(1, 2, 7, 1000, 65_535, 65_536, 65_537, 200_000, at_most=300_000):
        for size in sorted({0, 1, n - 1, n, n + 1, 2 * n + 70_000}):
            data = os.urandom(size)
            with piped(data) as fd, patience():
                found = impl.read_capped(fd, n, 15.0)
                os.fstat(fd)
            assert found == (data[:n], "output" if size > n else "end"), (n, size)
            assert type(found[0]) is bytes
    for n in (5, 9, 20):
        data = [b"abc", b"", b"d", b"efghi"]
        with piped(*data, wait=0.02) as fd, patience():
            found = impl.read_capped(fd, n, 15.0)
        assert found == (b"abcdefghi"[:n], "output" if n < 9 else "end")


def test_reading_ends_in_time(impl):
    """Whether nothing comes, something now and then, or what is more than enough."""
    for pieces, n, wait, expected in (
        ([], 10, 0, b""),
        ([b"abc"], 10, 0, b"abc"),
        ([b"abc"], 3, 0, b"abc"),
        ([b"a"] * 40, 1000, 0.05, None),
    ):
        started = time.monotonic()
        with piped(*pieces, wait=wait, stays_open=True) as fd, patience():
            found, why = impl.read_capped(fd, n, 0.25)
            took = time.monotonic() - started
        assert why == "time"
        assert found == expected or (expected is None and 0 < len(found) < 40 and not found.strip(b"a"))
        assert 0.24 <= took < 4
    with piped(b"abcd", stays_open=True) as fd, patience(5):
        assert impl.read_capped(fd, 3, 1e6) == (b"abc", "output")
    with open("/dev/zero", "rb", buffering=0) as endless, patience():
        if sys.platform != "linux":
            return
        reading, writing = os.pipe()
        flood = subprocess.Popen(["cat"], stdin=endless, stdout=writing)
        os.close(writing)
        try:
            assert impl.read_capped(reading, 1 << 60, 0.2)[1] == "time"
            assert impl.read_capped(reading, 5, 9.0) == (b"\0" * 5, "output")
        finally:
            os.close(reading)
            flood.kill()
            flood.wait()


def test_how_a_program_exits(impl):
    for code in sorted({0, 137, 255, *aim.whole(70, 255)[:1]}):
        assert ran(impl, f"import os\nos._exit({code})") == ("exited", code, "")
    assert ran(impl, "print('a')\nraise SystemExit(3)") == ("exited", 3, "a\n")
    assert ran(impl, "raise SystemExit('why')") == ("exited", 1, "why\n")
    assert ran(impl, "") == ("exited", 0, "")
    for source, error in (("1 / 0", "ZeroDivisionError"), ("exit()", "NameError")):
        ending, code, output = ran(impl, source)
        assert (ending, code) == ("exited", 1)
        assert error in output
        assert "program.py" in output


def test_what_a_signal_ends_is_killed(impl):
    for number in (signal.SIGKILL, signal.SIGTERM):
        source = f"import os\nprint('a', flush=True)\nos.kill(os.getpid(), {int(number)})\nprint('b')"
        assert ran(impl, source) == ("killed", None, "a\n")
    assert ran(impl, "import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)") == ("time", None, "")


def test_all_that_is_printed_up_to_the_cap(impl):
    for n in (1, 10_000, 70_000, *aim.whole(100, 9_000)[:1]):
        for size in (n, n + 1) if n > 9_000 else (n + 1,):
            expected = ("output", None) if size > n else ("exited", 5)
            source = f"print('x' * {size}, end='', flush=True)\nraise SystemExit(5)"
            assert ran(impl, source, output_bytes=n) == (*expected, "x" * n), (n, size)
    source = "import os\nos.write(1, b'ab')\nos.write(2, b'cd')\nos.write(1, b'ef')"
    assert ran(impl, source, output_bytes=6) == ("exited", 0, "abcdef")
    assert ran(impl, source, output_bytes=5) == ("output", None, "abcde")
    for last in ("os.kill(os.getpid(), 9)", "time.sleep(60)"):
        source = f"import os, time\nos.write(2, b'y' * 50)\n{last}"
        assert ran(impl, source, output_bytes=40, wall_seconds=9.0) == ("output", None, "y" * 40)
    endless = "import os\nwhile True:\n    os.write(1, b'abcdefgh' * 99)"
    assert ran(impl, endless, cpu_seconds=30) == ("output", None, ("abcdefgh" * 1250))


def test_output_is_text_whatever_it_is(impl):
    data = "\ufeffaé€😀".encode() + b"\r\nb\rc\0\x1b[1m \xffd \n\xc3"
    expected = "\ufeffaé€😀\r\nb\rc\0\x1b[1m \ufffdd \n\ufffd"
    assert ran(impl, f"import os\nos.write(1, {data!r})") == ("exited", 0, expected)
    assert ran(impl, "import os\nos.write(1, b' a \\r\\n ')") == ("exited", 0, " a \r\n ")
    assert ran(impl, "print('aé€', end='')", output_bytes=5) == ("output", None, "aé\ufffd")


def test_any_text_is_a_program(impl):
    assert ran(impl, "print(ascii('é€😀\u2028\ufeff\x7f'))") == (
        "exited",
        0,
        r"'\xe9\u20ac\U0001f600\u2028\ufeff\x7f'" + "\n",
    )
    assert ran(impl, "print(1)\r\nprint(2)\r\n") == ("exited", 0, "1\n2\n")
    assert ran(impl, f"#{'x' * 300_000}\nprint(1)") == ("exited", 0, "1\n")
    for source in ("'\ud800'", "\0", "é = "):
        ending, code, _ = ran(impl, source)
        assert (ending, code) == ("exited", 1)


SEEN = """
import json, os, sys
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
first = os.open(".", os.O_RDONLY)
print(json.dumps({
    "open": [fd for fd in range(3, 300) if is_open(fd) and fd != first],
    "files": os.listdir(), "here": os.getcwd(), "file": os.path.basename(__file__),
    "environment": dict(os.environ), "input": sys.stdin.read(), "argv": sys.argv[1:],
    "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.dont_write_bytecode],
    "python": [sys.version, sys.executable],
}))
"""


def test_what_a_program_finds(impl, monkeypatch, room, tmp_path):
    """Nothing of ours, wherever we are."""
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n", encoding="utf-8")
    inherited = [os.dup(0) for _ in range(4)]
    try:
        for fd in inherited:
            os.set_inheritable(fd, True)
        seen = told(impl, SEEN, wall_seconds=5.0)
    finally:
        for fd in inherited:
            os.close(fd)
    assert set(seen["environment"]) <= {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert seen["open"] == []
    assert seen["files"] == [seen["file"]] == ["program.py"]
    assert os.path.realpath(room) in os.path.realpath(seen["here"])
    assert (seen["input"], seen["argv"]) == ("", [])
    assert seen["flags"] == [1, 1, 1]
    assert seen["python"] == [sys.version, sys.executable]
    assert os.getcwd() == str(tmp_path)
    assert list(room.iterdir()) == []


def test_programs_share_nothing(impl):
    source = "import os\nprint(os.listdir())\nopen('left', 'w').write('x')\nprint(open('left').read())"
    for _ in range(2):
        assert ran(impl, source) == ("exited", 0, "['program.py']\nx\n")


def limit_of(name, asked):
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
    return asked if hard == resource.RLIM_INFINITY else min(asked, hard)


ASKED = """
import json, resource
names = ["CPU", "AS", "FSIZE", "NOFILE", "CORE", "NPROC"]
print(json.dumps({name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}))
"""


def test_the_systems_limits(impl):
    """Soft and hard, so that they stay."""
    sizes = [*aim.whole(7, 60)[:1], *aim.whole(61, 900)[:1]]
    for cpu, memory, file, processes in [
        (2.0, 256 << 20, 1 << 20, 16),
        (0.2, 300_000_001, 12_345, 1),
        (1.2, 1 << 33, 1 << 40, 200),
        *((n + 0.5, (n + 64) << 20, n, n) for n in sizes),
    ]:
        limits = {"cpu_seconds": cpu, "memory_bytes": memory, "file_bytes": file, "processes": processes}
        found = told(impl, ASKED, **limits)
        most = found.pop("NPROC")
        expected = {"CPU": math.ceil(cpu), "FSIZE": file, "NOFILE": 64, "CORE": 0, "AS": memory}
        if sys.platform == "darwin":
            del expected["AS"], found["AS"]
        hard = {**expected, "CPU": math.ceil(cpu) + 1}
        assert found == {
            name: [limit_of(name, n), limit_of(name, hard[name])] for name, n in expected.items()
        }
        assert most[0] == most[1]
        assert limit_of("NPROC", processes) <= most[0] <= processes + 4


REFUSED = """
import os, resource
def tried(what, call):
    try:
        call()
        print(what, "done")
    except (OSError, ValueError, MemoryError) as error:
        print(what, "refused")
tried("some memory", lambda: bytearray(20 << 20))
tried("more memory", lambda: bytearray(200 << 20))
tried("a file", lambda: open("a", "wb").write(b"x" * 5000))
tried("a larger file", lambda: open("b", "wb", buffering=0).write(b"x" * 5000) == 5000 and
      open("b", "ab", buffering=0).write(b"y"))
tried("a long file", lambda: open("c", "wb").truncate(5001))
tried("another limit", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)))
tried("another limit", lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)))
"""


def test_what_is_too_large_is_refused(impl):
    ending, code, output = ran(impl, REFUSED, memory_bytes=150 << 20, file_bytes=5000)
    assert (ending, code) == ("exited", 0), output
    lines = output.splitlines()
    if sys.platform == "darwin":
        lines = [each for each in lines if "memory" not in each]
    assert lines == [
        *(["some memory done", "more memory refused"] if sys.platform != "darwin" else []),
        "a file done",
        "a larger file refused",
        "a long file refused",
        "another limit refused",
        "another limit refused",
    ]


BUSY = """
import time
while time.process_time() < 0.2:
    pass
print("a", flush=True)
while time.process_time() < 2.5:
    pass
print("b")
"""


def test_time_of_the_processor(impl):
    """Of this test alone the time is long: the system counts in seconds."""
    assert ran(impl, BUSY, cpu_seconds=0.7) == ("time", None, "a\n")


DEAF = """
import os, signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
print("a", flush=True)
MORE
while True:
    time.sleep(10)
"""


def test_time_of_the_clock(impl):
    """Whether it sleeps, closes what it writes to, or is deaf to signals."""
    for more in ("", "os.close(0); os.close(1); os.close(2)", "os.setpgid(0, 0)"):
        for seconds in (0.4, 2.0, 6.0):  # A busy machine may need more until the first line is printed.
            found = ran(impl, DEAF.replace("MORE", more), wall_seconds=seconds)
            assert found[:2] == ("time", None)
            if found[2]:
                break
        assert found[2] == "a\n"
        assert none_left()


def test_a_program_that_closes_its_output_goes_on(impl):
    source = "import os, time\nos.write(1, b'a')\nos.close(1)\nos.close(2)\ntime.sleep(0.3)\nos._exit(7)"
    assert ran(impl, source) == ("exited", 7, "a")


def test_a_signal_to_its_group_stays_there(impl):
    caught = []
    before = signal.signal(signal.SIGURG, lambda *_: caught.append(1))
    try:
        assert ran(impl, "import os, signal\nos.kill(0, signal.SIGURG)\nprint(1)") == ("exited", 0, "1\n")
    finally:
        signal.signal(signal.SIGURG, before)
    assert caught == []


CHILD = """
import os, signal, time
def start(*deeds):
    try:
        if os.fork():
            return
    except OSError:
        return  # the limit of processes
    for deed in deeds:
        deed()
    while True:
        time.sleep(60)
def nothing():
    pass
def close():
    os.closerange(0, 3)
def fork_again():
    if os.fork():
        os._exit(0)
"""


def test_nothing_is_left_running(impl, room):
    """However a program ends, with children that hold its output, close it, or are nobody's children."""
    children = ["start()", "start(close)", "start(fork_again)"]
    if "processes" in impl.means():
        children += ["start(os.setsid)", "start(os.setsid, fork_again, close)"]
    for last, ending in (
        ("print('a', flush=True)", "exited"),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("print('x' * 9999, flush=True)", "output"),
        ("time.sleep(60)", "time"),
    ):
        source = CHILD + "\n".join([*children, last])
        started = time.monotonic()
        found = ran(impl, source, wall_seconds=0.8 if ending == "time" else 15.0, output_bytes=50)
        assert found[0] == ending
        assert time.monotonic() - started < 10
        assert none_left()
        assert list(room.iterdir()) == []
    with patience(0.6, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        impl.run(CHILD + "\n".join([*children, "time.sleep(60)"]), impl.Limits(wall_seconds=15.0))
    assert none_left()
    assert list(room.iterdir()) == []


def test_the_folder_is_gone_whatever_is_in_it(impl, room):
    source = "import os\nos.makedirs('a/b/c')\nopen('a/b/d', 'w').close()\nos.symlink('/', 'a/root')\n"
    source += "os.chmod('a/b/d', 0)\nos.chmod('a/b', 0)\nos.chmod('a', 0)\nos.chmod('.', 0)\n"
    assert ran(impl, source)[:2] == ("exited", 0)
    assert list(room.iterdir()) == []


def test_no_file_stays_open(impl):
    def n_open():
        found = 0
        for fd in range(256):
            with suppress(OSError):
                os.fstat(fd)
                found += 1
        return found

    impl.means()
    before = n_open()
    for source, limits in (
        ("print(1)", {}),
        ("print('x' * 99)", {"output_bytes": 9}),
    ):
        ran(impl, source, **limits)
        assert n_open() == before


def test_several_at_once(impl):
    """From threads, each with its own limits."""
    found, impl_means = {}, impl.means()

    def one(n):
        source = (
            f"import time\ntime.sleep(0.2)\nprint({n}, end='', flush=True)\ntime.sleep({60 if n == 3 else 0})"
        )
        found[n] = impl.run(source, impl.Limits(wall_seconds=1.0 if n == 3 else 15.0))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(5)]
    with patience():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found.pop(3).ending == "time"
    assert found == {n: impl.Outcome("exited", 0, str(n)) for n in (0, 1, 2, 4)}
    assert impl.means() == impl_means


ROOT = """
import os
for deed in (lambda: os.setuid(12345), lambda: os.chroot("."), lambda: open("closed"), lambda: os.nice(-5),
             lambda: os.chown("closed", 12345, 12345), lambda: os.mknod("disk", 0o60600, os.makedev(8, 0))):
    try:
        open("closed", "a").close() or os.chmod("closed", 0) if not os.path.exists("closed") else None
        deed()
        print("done")
    except OSError:
        print("refused")
"""


def test_no_rights_of_root(impl):
    assert ran(impl, ROOT) == ("exited", 0, "refused\n" * 6)


def test_means_are_some_of_three(impl):
    found = impl.means()
    assert type(found) is frozenset
    assert found <= {"network", "files", "processes"}
    assert found == impl.means()
    if shutil.which("unshare") and not subprocess.run(UNSHARE, capture_output=True, check=False).returncode:
        assert found >= {"network", "processes"}


def test_no_network_if_it_is_said_so(impl):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = (
            "import socket\ntry:\n    socket.create_connection(('127.0.0.1', PORT), 5)\n    print('done')\n"
        )
        source += "except OSError:\n    print('refused')"
        found = ran(impl, source.replace("PORT", str(port)))
    assert found == ("exited", 0, "refused\n") or "network" not in impl.means()


ELSEWHERE = """
import os
for place in PLACES:
    for deed in (lambda: open(place, "w").close(), lambda: os.remove(place)):
        try:
            deed()
            print(place)
        except OSError:
            pass
open("here", "w").write("x")
os.remove("here")
print(open(os.devnull).read() == "")
"""


def test_no_file_elsewhere_if_it_is_said_so(impl, tmp_path, room):
    (tmp_path / "kept").write_text("kept", encoding="utf-8")
    (room / "kept").write_text("kept", encoding="utf-8")
    places = [f"{tmp_path}/kept", f"{tmp_path}/new", f"{room}/kept", f"{room}/new", "/dev/shm/techtree-new"]
    places += ["../new", os.path.expanduser("~/techtree-new")]
    found = ran(impl, ELSEWHERE.replace("PLACES", repr(places)))
    if "files" not in impl.means():
        return
    assert found == ("exited", 0, "True\n")
    assert sorted(path.name for path in room.iterdir()) == ["kept"]
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "kept"


FILL = """
n = 0
try:
    while n < 8 << 20:
        open(str(n), "wb").write(b"x" * SIZE)
        n += SIZE
except OSError:
    print(n)
"""


def test_all_files_together_if_it_is_said_so(impl):
    if "files" not in impl.means():
        return
    for n in (1 << 20, 3 << 20):
        ending, code, output = ran(impl, FILL.replace("SIZE", str(n >> 5)), folder_bytes=n)
        assert (ending, code) == ("exited", 0)
        assert 0.9 * n <= int(output) <= 1.02 * n + (n >> 5), n


LOOK = """
import os
for pid in os.listdir("/proc") if os.path.isdir("/proc") else []:
    for name in ("cmdline", "environ"):
        try:
            text = open(f"/proc/{pid}/{name}", "rb").read()
        except OSError:
            continue
        if b"secret" + b"-of-ours" in text:
            print(name)
try:
    os.kill(PID, 0)
    print("found")
except OSError:
    pass
"""


def test_no_process_of_others_is_seen_if_it_is_said_so(impl):
    """Nor its environment, which lies beside it."""
    command = [sys.executable, "-I", "-S", "-c", "input()", "secret-of-ours"]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"KEY": "secret-of-ours"}
    )
    try:
        found = ran(impl, LOOK.replace("PID", str(max(other.pid, 1000))))
    finally:
        other.communicate()
    assert found == ("exited", 0, "") or "processes" not in impl.means()


BOMB = """
import os, time
n = 1
try:
    while n < 100:
        if not os.fork():
            time.sleep(60)
        n += 1
except OSError:
    pass
print(n)
"""


def test_a_bomb_of_processes(impl):
    """As many as are allowed, if not less. The system exempts root."""
    found = told(impl, BOMB, processes=5)
    assert found <= 5 + 4 or os.getuid() == 0
    assert none_left()
