"""`watch`: grade a file whenever it is saved, and take one-key commands meanwhile."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

INTERVAL_S = 0.3


def saves(files: Callable[[], list[Path]], read_key: Callable[[float], str]) -> Iterator[Path | str]:
    """Give each file that was saved since the last look, and each key that was pressed.

    Parameters
    ----------
    files
        Gives the files to look at, which may change.
    read_key
        Waits some seconds for a key and returns it, or an empty string.
    """
    seen = {path: _stamp(path) for path in files()}
    while True:
        key = read_key(INTERVAL_S)
        if key:
            yield key
        for path in files():
            stamp = _stamp(path)
            if seen.get(path) != stamp:
                seen[path] = stamp
                yield path


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


@contextlib.contextmanager
def keyboard() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for one key; where no one can press any, it only waits."""
    if not sys.stdin.isatty():
        yield _no_key
    elif os.name == "nt":
        yield _windows_key
    else:
        import select
        import termios
        import tty

        def unix_key(seconds: float) -> str:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            return os.read(sys.stdin.fileno(), 1).decode("ascii", "ignore") if ready else ""

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield unix_key
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _windows_key(seconds: float) -> str:
    import msvcrt

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if msvcrt.kbhit():  # pyright: ignore[reportAttributeAccessIssue]
            return msvcrt.getwch()  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.05)
    return ""
