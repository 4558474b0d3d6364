"""Running a Python program that nobody has read, such as one that a model wrote.

It gets namespaces of its own, which only Linux has: it sees no network and no process but its own, can write
in one small folder in memory only, and whatever it has started ends with it. It gets limits of time, memory
and output, an empty environment and no input. It can read the files that its user can read; what it found can
only go into its output.
"""

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from techtree.errors import InputError

_PROGRAM = Path(__file__).with_name("inside.py")
_CHUNK_BYTES = 1 << 16

Ending = Literal["exited", "killed", "time", "output"]
"""It ended by itself; a limit of the system or a signal ended it; the time was up; it wrote too much."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    cpu_seconds: int = 5
    """Of computing, for each of its processes."""
    wall_seconds: float = 10.0
    """From its start, the start included."""
    memory_bytes: int = 1 << 29
    """Of address space, for each of its processes."""
    output_bytes: int = 1 << 16
    """Of what it writes to its output and its error output together."""
    file_bytes: int = 1 << 23
    """Of each file, and of all in its folder together."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise InputError(f"{name} must be positive; got {value}")


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it wrote."""

    ending: Ending
    exit_code: int | None
    """None unless it exited."""
    output: str
    """What it wrote, at most `output_bytes` of it; what is not UTF-8 is replaced."""


def run(source: str, limits: Limits = Limits()) -> Outcome:
    """Run a program and wait for its end; nothing of it stays.

    Parameters
    ----------
    source
        A Python program; it can import Python's own library only.
    limits
        What it may use.

    Raises
    ------
    InputError
        When the system cannot confine it.
    """
    if problem := why_not_confined():
        raise InputError(f"running a program that nobody has read needs {problem}")
    with subprocess.Popen(
        _command(limits),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + limits.wall_seconds
        written, ending = bytearray(), "exited"
        try:
            for piece in _talk(process, source.encode("utf-8", "surrogatepass"), deadline):
                written += piece
                if len(written) > limits.output_bytes:
                    ending = "output"
                    break
            process.wait(max(0.0, deadline - time.monotonic()) if ending == "exited" else 0)
        except (subprocess.TimeoutExpired, TimeoutError):
            ending = "time" if ending == "exited" else ending
        finally:
            _end(process)
    output = bytes(written[: limits.output_bytes]).decode("utf-8", "replace")
    if ending == "exited" and process.returncode < 0:
        ending = "killed"
    return Outcome(ending, process.returncode if ending == "exited" else None, output)


@functools.cache
def why_not_confined() -> str:
    """Return what is missing to confine a program on this machine; an empty string when nothing is."""
    if not sys.platform.startswith("linux"):
        return "namespaces, which Linux has"
    tried = subprocess.run(
        _command(Limits()),
        input=b"print('here')",
        capture_output=True,
        env={},
        cwd="/",
        check=False,
    )
    if tried.stdout.strip() == b"here":
        return ""
    told = tried.stderr.decode("utf-8", "replace").strip().splitlines() or ["it gave no reason"]
    return f"namespaces of users, networks, processes and mounts; this system refused them ({told[-1]})"


def _command(limits: Limits) -> list[str]:
    numbers = (limits.cpu_seconds, limits.memory_bytes, limits.file_bytes)
    return [sys.executable, "-I", "-S", "-B", str(_PROGRAM), *map(str, numbers)]


def _talk(process: subprocess.Popen[bytes], source: bytes, deadline: float) -> Iterator[bytes]:
    """Write the program to the process and yield what comes, until its output is closed; or TimeoutError."""
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdin, selectors.EVENT_WRITE)
        ready.register(process.stdout, selectors.EVENT_READ)
        while ready.get_map():
            found = ready.select(max(0.0, deadline - time.monotonic()))
            if not found:
                raise TimeoutError
            for key, _ in found:
                if key.fileobj is process.stdout:
                    piece = os.read(key.fd, _CHUNK_BYTES)
                    if not piece:
                        return
                    yield piece
                    continue
                try:
                    source = source[os.write(key.fd, source) :]
                except BrokenPipeError:
                    source = b""
                if not source:
                    ready.unregister(process.stdin)
                    process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group; with it ends whatever is in its namespace."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
