"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
import threading
import time

from techtree.tree.answers import told

_WHILE = "while len(found) <= n_bytes:"
_LATE = 'return bytes(found), "time"'
_END = 'return bytes(found), "end"'
_GROW = "found += piece"
_FULL = 'return bytes(found[:n_bytes]), "output"'
_SIZES = "    cpu_seconds: float = 2.0\n    wall_seconds: float = 5.0\n"
_NULL = '    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)\n'
_CLOSE = "    os.close(report)\n"
_WANTED = '{"CPU": cpu, "FSIZE": file, "NOFILE": 64, "CORE": 0, "NPROC": processes + 3, "AS": memory}'
_SET = 'resource.setrlimit(kind, (min(most, hard), min(most + (name == "CPU"), hard)))'
_EXEC = '"-I", "-S", "-B", "program.py"'
_SECONDS = "seconds = max(1, math.ceil(limits.cpu_seconds))"
_SOURCE = 'source.encode("utf-8", "surrogatepass")'
_ENVIRONMENT = "env={},"
_TEXT = 'text = output.decode("utf-8", "replace")'
_ENDING = 'ending = "exited" if code >= 0 else "time" if code == -signal.SIGXCPU else "killed"'
_CODE = "return Outcome(ending, code if code >= 0 else None, text)"
_LAST = 'return Outcome("time" if why == "time" else "killed", None, text)'
_FOLDER = "with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:"
_STOP = "                _end(process, is_apart)\n"
_MEANS = "is_apart = found =="
_RUN = "return _run(source, limits, bool(means()))"
_ARGUMENTS = '("--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child")'
_ROOM = 'room = f"size={folder + len(program) + 8192},nr_inodes=4096,mode=700"'
_READ_ONLY = 'attributes(b"/", True, 1 | 2 | 4, 0)'
_PROC = 'must(libc.mount(b"proc", b"/proc", b"proc", 0, None) and libc.mount(b"none", b"/proc", b"tmpfs", 0, None))'
_POPEN = """                process = subprocess.Popen(
                    [str(shutil.which("unshare")), *_APART, *command] if is_apart else command,
                    stdin=subprocess.PIPE,  # which tells the warden that we are still there
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={},
                    pass_fds=[writing],
                    start_new_session=True,
                )
"""

MISTAKES = {
    "read_capped: the clock starts anew with each piece": [
        (_GROW, f"{_GROW}\n            deadline = time.monotonic() + seconds")
    ],
    "read_capped: as much as may be is too much": [(_WHILE, "while len(found) < n_bytes:")],
    "read_capped: all that came is given, also beyond the cap": [(_FULL, 'return bytes(found), "output"')],
    "read_capped: what came is lost when time is up": [(_LATE, 'return b"", "time"')],
    "read_capped: the end of the first piece is the end": [(_GROW, f"{_GROW}\n            {_END}")],
    "read_capped: the cap cuts, and reading goes on to the end": [
        (_WHILE, "while True:"),
        (_LATE, 'return bytes(found[:n_bytes]), "time"'),
        (_END, 'return bytes(found[:n_bytes]), "output" if len(found) > n_bytes else "end"'),
    ],
    "Limits: the clock and the processor have the same": [
        (_SIZES, _SIZES.replace("5.0", "2.0")),
    ],
    "run: the environment is ours": [(_ENVIRONMENT, "env=None,")],
    "run: standard input is there, and nothing comes": [(_NULL, "")],
    "run: a file of ours stays open in the program": [(_CLOSE, "")],
    "run: memory has no limit": [(_WANTED, _WANTED.replace(', "AS": memory', ""))],
    "run: files have no limit": [(_WANTED, _WANTED.replace('"FSIZE": file, ', ""))],
    "run: processes have no limit": [(_WANTED, _WANTED.replace(', "NPROC": processes + 3', ""))],
    "run: limits are soft, and the program may raise them": [
        (_SET, "resource.setrlimit(kind, (min(most, hard), resource.getrlimit(kind)[1]))")
    ],
    "run: who is deaf to the signal has no limit of CPU time": [
        (_SET, f'resource.setrlimit(kind, (most, resource.getrlimit(kind)[1])) if name == "CPU" else {_SET}')
    ],
    "run: seconds of CPU are rounded down": [(_SECONDS, "seconds = max(1, int(limits.cpu_seconds))")],
    "run: what is installed beside the interpreter is there": [(_EXEC, _EXEC.replace(', "-S"', ""))],
    "run: the program's folder is where imports are looked for first": [(_EXEC, _EXEC.replace('"-I", ', ""))],
    "run: a lone half of a character is an error of the caller": [(_SOURCE, "source.encode()")],
    "run: bytes that are no character are left out": [(_TEXT, _TEXT.replace("replace", "ignore"))],
    "run: the output is stripped": [(_TEXT, f"{_TEXT}.strip()")],
    "run: a signal is an exit code above 128, as in a shell": [
        (_CODE, 'return Outcome("exited", code if code >= 0 else 128 - code, text)')
    ],
    "run: who has used up the CPU time was killed": [
        (_ENDING, 'ending = "exited" if code >= 0 else "killed"')
    ],
    "run: who sleeps too long was killed": [(_LAST, 'return Outcome("killed", None, text)')],
    "run: the folder stays": [(_FOLDER, "for folder in [tempfile.mkdtemp()]:")],
    "run: the folder has another file": [
        (_FOLDER, f'{_FOLDER}\n        Path(folder, "limits.txt").write_text(str(limits))'),
        (
            '    with open("program.py", "wb") as opened:\n        opened.write(program)\n',
            '    with open("program.py", "wb") as opened:\n        opened.write(program)\n    open("limits.txt", "w").close()\n',
        ),
    ],
}

HAS_NAMESPACES = (
    bool(shutil.which("unshare"))
    and not subprocess.run(
        ["unshare", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "true"],
        capture_output=True,
        check=False,
    ).returncode
)

if HAS_NAMESPACES:  # What is missing is missed only there.
    MISTAKES |= {
        "means: limits are all that there is": [(_MEANS, "is_apart = not found ==")],
        "means: what is named is not used": [(_RUN, "return _run(source, limits, False)")],
        "run: the network is there": [(_ARGUMENTS, _ARGUMENTS.replace('"--net", ', ""))],
        "run: files elsewhere can be written": [(_READ_ONLY, "pass")],
        "run: the folder has room without end": [(_ROOM, 'room = "mode=700"')],
        "run: the folder has as much room as a file": [(_ROOM, _ROOM.replace("{folder +", "{file +"))],
        "run: processes of others are seen": [(_PROC, "pass")],
    }

_FORKED = """                process = _Forked(
                    [str(shutil.which("unshare")), *_APART, *command] if is_apart else command, folder, writing
                )
"""

_FORKED_CLASS = '''class _Forked:
    """A process that is started by hand."""

    def __init__(self, command, folder, kept):
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                os.chdir(folder)
                os.dup2(theirs_in, 0)
                os.dup2(theirs_out, 1)
                os.dup2(theirs_out, 2)
                for fd in range(3, 300):
                    try:
                        os.set_inheritable(fd, fd == kept)
                    except OSError:
                        pass
                os.execve(command[0], command, {})
            finally:
                os._exit(99)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = open(ours_in, "wb", buffering=0), open(ours_out, "rb", buffering=0)

    def wait(self):
        os.waitpid(self.pid, 0)


def _end('''


def by_one_byte_more(fd, n_bytes, seconds):
    """Never take more than is needed to know that it is too much."""
    found, deadline = b"", time.monotonic() + seconds
    with selectors.SelectSelector() as ready:
        ready.register(fd, selectors.EVENT_READ)
        while ready.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(fd, min(n_bytes + 1 - len(found), 1 << 20))
            found += piece
            if not piece:
                return found, "end"
            if len(found) > n_bytes:
                return found[:-1], "output"
            if time.monotonic() > deadline:
                break
    return found, "time"


def by_asking_again(fd, n_bytes, seconds):
    """Ask without waiting, and sleep a little between."""
    deadline, pieces, size = time.monotonic() + seconds, [], 0
    os.set_blocking(fd, False)
    try:
        while True:
            if time.monotonic() >= deadline:
                return b"".join(pieces), "time"
            try:
                piece = os.read(fd, 4096)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if not piece:
                return b"".join(pieces), "end"
            pieces.append(piece)
            size += len(piece)
            if size > n_bytes:
                return b"".join(pieces)[:n_bytes], "output"
    finally:
        os.set_blocking(fd, True)


EQUIVALENTS = {
    "reads one byte more than may be, by select": {"read_capped": by_one_byte_more},
    "asks again and again": {"read_capped": by_asking_again},
    "forks by hand": [
        (_POPEN, _FORKED),
        ("def _end(", _FORKED_CLASS),
    ],
    "the warden is a file, the folder is removed by hand": [
        (
            _FOLDER,
            "for folder in [tempfile.mkdtemp()]:\n"
            '        warden = Path(tempfile.mkdtemp(), "warden.py")\n'
            "        warden.write_text(_WARDEN)",
        ),
        ('"-c", _WARDEN,', "str(warden),"),
        (
            _STOP,
            f"{_STOP}                shutil.rmtree(warden.parent)\n"
            "                for place, _, _ in os.walk(folder):\n"
            "                    os.chmod(place, 0o700)\n"
            "                shutil.rmtree(folder)\n",
        ),
    ],
}

HARMLESS: dict[str, str] = {}

_LOOK = """
import os, resource, sys
names = ["CPU", "AS", "FSIZE", "NOFILE", "NPROC"]
def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False
first = os.open(".", os.O_RDONLY)
limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names]
print(limits, sorted(os.listdir()), [fd for fd in range(3, 99) if is_open(fd) and fd != first])
print("PATH" in os.environ, "TECHTREE_PROBE" in os.environ, sys.flags.isolated, sys.flags.no_site)
sys.stdin.read()
"""

_TRY = """
import os, socket
def tried(what, call):
    try:
        call()
        print(what)
    except OSError:
        pass
tried("writes", lambda: open("PLACE", "w").close())
tried("talks", lambda: socket.create_connection(("127.0.0.1", PORT), 5))
tried("looks", lambda: open("/proc/PID/cmdline").close())
def fill(size, n):
    for i in range(n):
        open(str(i), "wb").write(bytes(size))
tried("fills", lambda: fill(1 << 17, 40))
tried("fills some", lambda: fill(1 << 17, 10))
"""


def probes(rng):
    """Return pipes and programs that tell the versions apart."""

    def piped(*pieces, n=5, seconds=0.3, is_closed=True):
        def probe(impl):
            reading, writing = os.pipe()
            for piece in pieces:
                os.write(writing, piece)
            if is_closed:
                os.close(writing)
            try:
                return impl.read_capped(reading, n, seconds)
            finally:
                os.close(reading)
                if not is_closed:
                    os.close(writing)

        return told(probe)

    def trickled(impl):
        """Read what is written bit by bit."""
        reading, writing = os.pipe()

        def write():
            with contextlib.suppress(BrokenPipeError), open(writing, "wb", buffering=0) as file:
                for _ in range(20):
                    file.write(b"a")
                    time.sleep(0.05)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return impl.read_capped(reading, 99, 0.4)[1]
        finally:
            os.close(reading)
            writer.join()

    def ran(source, is_shown=True, **limits):
        def probe(impl):
            os.environ["TECHTREE_PROBE"] = "1"
            try:
                found = impl.run(source, impl.Limits(**{"wall_seconds": 9.0, **limits}))
            finally:
                del os.environ["TECHTREE_PROBE"]
            return found.ending, found.exit_code, found.output * is_shown

        return told(probe)

    def kept(impl):
        """Tell whether folders stay, and what a program reaches."""
        import socket

        before, found = tempfile.tempdir, []
        with tempfile.TemporaryDirectory() as room, socket.create_server(("127.0.0.1", 0)) as server:
            outside = os.path.join(room, "outside")
            source = _TRY.replace("PLACE", outside).replace("PID", str(os.getpid()))
            tempfile.tempdir = room
            try:
                source = source.replace("PORT", str(server.getsockname()[1]))
                for each, seconds in ((source, 9.0), ("import time\ntime.sleep(9)", 0.4)):
                    limits = impl.Limits(wall_seconds=seconds, folder_bytes=3 << 20, file_bytes=1 << 18)
                    ended = impl.run(each, limits)
                    found.append((ended.ending, ended.exit_code, ended.output))
                    found.append(len(set(os.listdir(room)) - {"outside"}))
            finally:
                tempfile.tempdir = before
        return found, sorted(impl.means())

    return {
        "as much as may be": piped(b"abcde"),
        "too much": piped(b"abcdef"),
        "too much, and no end": piped(b"abcdef", is_closed=False),
        "late": piped(b"ab", is_closed=False),
        "long": piped(b"a" * 60_000, b"b" * 5000, n=70_000),
        "longer than a piece": piped(b"ab", b"c" * 65_534, n=99_999),
        "trickling": told(trickled),
        "defaults": lambda impl: repr(impl.Limits()),
        "what it sees": ran(_LOOK, cpu_seconds=1.5, wall_seconds=4.0, processes=7),
        "what it prints": ran(
            "import os\nos.write(1, b' a\\r\\n\\xff')\nos.write(2, b'b ')\nos._exit(3)", output_bytes=7
        ),
        "half a character": ran("'\ud800'", is_shown=False),
        "too long": ran("print('x' * 9)", output_bytes=8),
        "a high exit code": ran("raise SystemExit(137)"),
        "a signal": ran("import os\nos.kill(os.getpid(), 15)"),
        "the signal of CPU time": ran("import os, signal\nos.kill(os.getpid(), signal.SIGXCPU)"),
        "what it reaches, what stays": told(kept),
    }
