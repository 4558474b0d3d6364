"""Run a program that nobody has read, so that it cannot hurt.

A language model writes a program, and the only way to know what it does is to run it. It may loop for ever,
fill memory or disk, start processes, read secrets. Nothing within Python keeps it from that: whatever is
taken out of a module can be fetched again. What the *system* refuses stays refused, and a system refuses by
process. So the program gets one of its own, which gives up its rights before the first line runs.

A *warden* stands between the program and us: a small process that takes rights away from itself, starts the
program, and tells how it ended. On Linux it is the first process of a *namespace*, a part of the system with
processes, network and file system of its own; with the first process all others of a namespace end.

Left out: a disk that shows the interpreter only, filters of system calls, a machine of its own. A program can
still read what we can read, and attack the kernel. There are no POSIX limits on Windows, where `run` refuses.

Saltzer and Schroeder (1975): every program should have the least rights that it needs.
"""

import contextlib
import functools
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """How much a program may use; all positive.

    ``cpu_seconds``, ``memory_bytes`` (of addresses) and ``file_bytes`` (the largest file) hold for each of
    its processes, ``wall_seconds`` and ``output_bytes`` for all together. So do ``processes``, how many there
    may be at a time, threads included, and ``folder_bytes``, what all files may take, as far as `run` says.
    """

    cpu_seconds: float = 2.0
    wall_seconds: float = 5.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 10_000
    file_bytes: int = 1 << 20
    processes: int = 16
    folder_bytes: int = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """How a program ended: ``ending`` is "exited", "time", "output" or "killed".

    ``exit_code`` is what it exited with, and None for the other endings. ``output`` is what it printed,
    standard output and standard error together: UTF-8, where bytes that are no character become U+FFFD.
    """

    ending: str
    exit_code: int | None
    output: str


def read_capped(fd: int, n_bytes: int, seconds: float) -> tuple[bytes, str]:
    """Read a pipe until it ends, until it has given more than ``n_bytes``, or until time is up.

    Returns
    -------
    tuple[bytes, str]
        What was read, at most the first ``n_bytes``; and which came first: "end", "output" or "time".

    Notes
    -----
    Nobody waits longer than ``seconds``, whether nothing arrives or too much. What arrives is taken at once,
    so that no writer waits. The file descriptor stays open.

    Examples
    --------
    >>> reading, writing = os.pipe()
    >>> os.write(writing, b"abcd")
    4
    >>> read_capped(reading, 3, 1.0)
    (b'abc', 'output')
    """
    found, deadline = bytearray(), time.monotonic() + seconds
    with selectors.DefaultSelector() as ready:
        ready.register(fd, selectors.EVENT_READ)
        while len(found) <= n_bytes:
            left = deadline - time.monotonic()
            if left <= 0 or not ready.select(left):
                return bytes(found), "time"
            piece = os.read(fd, 1 << 16)
            if not piece:
                return bytes(found), "end"
            found += piece
    return bytes(found[:n_bytes]), "output"


# Runs in a process of its own, before the program, and waits for it there.
_WARDEN = """
import ctypes, os, resource, sys, _thread

report, is_apart, cpu, memory, file, processes, folder = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)


def must(result):
    if result:
        raise OSError(ctypes.get_errno(), "the system does not let us")


def attributes(place, is_all, added, removed):
    numbers = (ctypes.c_uint64 * 4)(added, removed, 0, 0)
    must(libc.syscall(442, -100, place, 0x8000 if is_all else 0, numbers, 32))  # mount_setattr


if is_apart:  # We are process 1 of a namespace.
    with open("program.py", "rb") as opened:
        program = opened.read()
    must(libc.mount(b"proc", b"/proc", b"proc", 0, None) and libc.mount(b"none", b"/proc", b"tmpfs", 0, None))
    if os.path.isdir("/run"):  # Services listen in there.
        must(libc.mount(b"none", b"/run", b"tmpfs", 0, None))
    must(libc.mount(b"/dev/null", b"/dev/null", None, 4096, None))  # bound to itself, as the only device
    try:
        with open("/proc/sys/kernel/pid_max", "w") as most:  # since Linux 6.14 for each namespace
            most.write("301")  # the least that it takes
    except OSError:
        pass  # Older ones count for all namespaces, and do not let us.
    attributes(b"/", True, 1 | 2 | 4, 0)  # read only, without set-uid programs and devices
    attributes(b"/dev/null", False, 0, 1 | 4)
    room = f"size={folder + len(program) + 8192},nr_inodes=4096,mode=700"
    must(libc.mount(b"none", os.getcwdb(), b"tmpfs", 2 | 4, room.encode()))
    os.chdir(os.getcwd())  # onto what is mounted there now
    with open("program.py", "wb") as opened:
        opened.write(program)

child = os.fork()
if not child:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.close(report)
    if sys.platform == "linux":
        must(libc.prctl(28, 3, 0, 0, 0) and os.getuid() == 0)  # root is a user like others,
        must(libc.prctl(38, 1, 0, 0, 0))  # and no program gives more rights;
        must(libc.prctl(1, 9, 0, 0, 0))  # it ends with the warden, whatever group it has gone to.
    wanted = {"CPU": cpu, "FSIZE": file, "NOFILE": 64, "CORE": 0, "NPROC": processes + 3, "AS": memory}
    for name, most in wanted.items():
        if name == "AS" and sys.platform == "darwin":
            continue  # which does not know how
        kind = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(kind)[1]
        hard = float("inf") if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(kind, (min(most, hard), min(most + (name == "CPU"), hard)))
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", "program.py"])


def end_all():
    if is_apart:
        os._exit(0)  # and with process 1 all others end
    os.kill(0, 9)


def wait_for_caller():
    os.read(0, 1)  # It never writes: it closes, or it is gone.
    end_all()


_thread.start_new_thread(wait_for_caller, ())
ended = 0
while ended != child:
    ended, status = os.wait()
os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
end_all()
"""

_APART = ("--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child")


@functools.cache
def means() -> frozenset[str]:
    """Return what this system takes from a program that `run` runs, beside what `Limits` says.

    Returns
    -------
    frozenset[str]
        Some of: "network", it can talk to nobody outside, not even to servers of this machine at 127.0.0.1;
        "files", it can write nowhere but in its folder, and there ``folder_bytes`` in all, a few percent more
        or less; "processes", it sees none but its own, and all of them end with it, also those in a session
        of their own. None of these is named that does not hold. "network" and "processes" are there at least
        where the command ``unshare --map-root-user --mount --net --ipc --pid --fork true`` succeeds.

    Notes
    -----
    What holds is found out by trying, once.
    """
    if shutil.which("unshare") is None:
        return frozenset()
    found = _run("print('apart')", Limits(wall_seconds=30.0), True)
    is_apart = found == Outcome("exited", 0, "apart\n")
    return frozenset({"network", "files", "processes"} if is_apart else ())


def run(source: str, limits: Limits = Limits()) -> Outcome:
    r"""Run a Python program, and return how it ended.

    Parameters
    ----------
    source
        The program, of any characters.
    limits
        What it may use.

    Returns
    -------
    Outcome
        "output" if it printed more than ``output_bytes``: these are in ``output``, and it was ended.
        Otherwise "time" if it ran for more than ``wall_seconds``, or if SIGXCPU ended it, which the system
        sends when the CPU time is used up; "killed" if another signal ended it; "exited" if it ended by
        itself. What it printed before is in ``output`` in any case.

    Raises
    ------
    OSError
        On a system without POSIX limits (Windows).

    Notes
    -----
    The program is ``program.py`` in a new folder that has nothing else, which is its working folder. It is
    run by this interpreter with the options ``-I -S -B``. Of the caller it gets nothing: its environment is
    empty (but for LC_CTYPE, which the interpreter adds), its standard input is at its end, no other file is
    open. It is in a session of its own, so that a signal to its process group does not reach the caller, and
    has no rights beyond those of a user, also where that is root.

    The system's limits, soft and hard: RLIMIT_CPU is ``cpu_seconds``, rounded up to whole ones, and hard one
    more, for programs that are deaf to SIGXCPU; RLIMIT_AS ``memory_bytes``; RLIMIT_FSIZE ``file_bytes``;
    RLIMIT_NOFILE 64; RLIMIT_CORE 0; RLIMIT_NPROC ``processes``, and up to 4 more for processes that watch
    over it. (Root is exempt from the last.) Where the caller's own hard limit is lower, that.

    The run is over when the first process of the program is, also if others still hold its output. When `run`
    returns or raises, whatever ended it, its folder is gone, and so are its processes: the first, all in the
    process group that it began with, and if "processes" is among the `means`, all. No file stays open.
    Several threads may run programs at once.

    Examples
    --------
    >>> run("print(6 * 7)")
    Outcome(ending='exited', exit_code=0, output='42\n')
    >>> run("while True: print('no end')", Limits(output_bytes=11))
    Outcome(ending='output', exit_code=None, output='no end\nno e')
    """
    if os.name != "posix":
        raise OSError(f"a sandbox needs the limits of POSIX; this is {sys.platform}: use Linux, or WSL")
    return _run(source, limits, bool(means()))


def _run(source: str, limits: Limits, is_apart: bool) -> Outcome:
    """Run a program, in namespaces or without."""
    seconds = max(1, math.ceil(limits.cpu_seconds))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_bytes(source.encode("utf-8", "surrogatepass"))
        reading, writing = os.pipe()
        numbers = [writing, int(is_apart), seconds, limits.memory_bytes, limits.file_bytes]
        numbers += [limits.processes, limits.folder_bytes]
        command = [sys.executable, "-I", "-S", "-B", "-c", _WARDEN, *map(str, numbers)]
        with open(reading, "rb", buffering=0) as report:
            try:
                process = subprocess.Popen(
                    [str(shutil.which("unshare")), *_APART, *command] if is_apart else command,
                    stdin=subprocess.PIPE,  # which tells the warden that we are still there
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={},
                    pass_fds=[writing],
                    start_new_session=True,
                )
            finally:
                os.close(writing)
            try:
                assert process.stdout is not None
                output, why = read_capped(process.stdout.fileno(), limits.output_bytes, limits.wall_seconds)
            finally:
                _end(process, is_apart)
            told = report.read(20)
    text = output.decode("utf-8", "replace")
    if why == "output":
        return Outcome("output", None, text)
    if told:
        code = int(told)
        ending = "exited" if code >= 0 else "time" if code == -signal.SIGXCPU else "killed"
        return Outcome(ending, code if code >= 0 else None, text)
    return Outcome("time" if why == "time" else "killed", None, text)


def _end(process: subprocess.Popen, is_apart: bool) -> None:
    """End a process and all that it started."""
    process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
    if is_apart:  # The warden ends now, and is gone when all others of its namespace are.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # which macOS raises if it has ended
        os.killpg(process.pid, signal.SIGKILL)  # Not waited for yet, so the number is still this group's.
    process.wait()
    process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]
