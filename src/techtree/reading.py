"""Files that others made, opened through one door.

A model's folder may come from anybody. A named pipe in it would be waited for without end, a device never
ends, and a file of gigabytes costs the machine's memory before anybody sees that it is no configuration. So
a file is looked at before it is opened, and its size before it is read.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from techtree.errors import InputError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path, max_bytes: int | None = None, advice: str = "copy it again") -> BinaryIO:
    """Open a regular file for reading, without a buffer.

    Parameters
    ----------
    path
        The file, or a link to one.
    max_bytes
        The size that it may have at most; None for any.
    advice
        What to do about a file that is refused, for the end of the message.

    Raises
    ------
    InputError
        When there is none, it is of another kind, too large, or cannot be opened.
    """
    check_regular(path, max_bytes, advice)
    try:
        file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115 (for the caller)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, advice) from error
    try:
        _check(path, os.fstat(file.fileno()), max_bytes, advice)  # another one may have come in between
    except InputError:
        file.close()
        raise
    return file


def check_regular(path: Path, max_bytes: int | None = None, advice: str = "copy it again") -> None:
    """Check that a path is a regular file of at most so many bytes, as `open_regular` does."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: {advice}") from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise _unreadable(path, error, advice) from error
    _check(path, status, max_bytes, advice)


def read_regular(path: Path, max_bytes: int, advice: str = "copy it again") -> bytes:
    """Return the bytes of a regular file, which must be at most so many.

    Raises
    ------
    InputError
        As `open_regular`; also when the file grows meanwhile, or memory is short.
    """
    with open_regular(path, max_bytes, advice) as file:
        parts, n_left = [], max_bytes + 1
        try:
            # Some files of the system claim a size of 0: what counts is what comes.
            while n_left and (part := file.read(min(n_left, 1 << 24))):
                parts.append(part)
                n_left -= len(part)
            data = b"".join(parts)
        except (OSError, MemoryError) as error:
            raise _unreadable(path, error, advice) from error
    if n_left == 0:
        raise InputError(f"{path} must have at most {max_bytes:,} bytes; it has more: {advice}")
    return data


def read_text(path: Path, max_bytes: int, advice: str = "copy it again") -> str:
    """Return the text of a regular file, which must be UTF-8 and at most so many bytes long.

    Raises
    ------
    InputError
        When it is not.
    """
    data = read_regular(path, max_bytes, advice)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged (byte {error.start} is no UTF-8): {advice}") from error
    except MemoryError as error:
        raise _unreadable(path, error, advice) from error


def read_json(path: Path, max_bytes: int, advice: str = "copy it again") -> Any:
    """Return the JSON value in a regular file of at most so many bytes.

    Raises
    ------
    InputError
        When there is none, also when it is nested so deeply that nobody meant it.
    """
    text = read_text(path, max_bytes, advice)
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{path} is damaged ({reason}): {advice}") from error
    except MemoryError as error:
        raise _unreadable(path, error, advice) from error


def read_object(path: Path, max_bytes: int, advice: str = "copy it again") -> dict[str, Any]:
    """Return the JSON object in a regular file of at most so many bytes.

    Raises
    ------
    InputError
        When there is none.
    """
    values = read_json(path, max_bytes, advice)
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged (it must hold a JSON object): {advice}")
    return values


def is_missing(path: Path) -> bool:
    """Whether there is nothing of this name, not even a link to nowhere."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # who reads it will hear why
        return False
    return False


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe; for a regular file the flag means nothing."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(path: Path, status: os.stat_result, max_bytes: int | None, advice: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise InputError(f"{path} must be a regular file; it is {kind}: {advice}")
    if max_bytes is not None and status.st_size > max_bytes:
        raise InputError(f"{path} must have at most {max_bytes:,} bytes; it has {status.st_size:,}: {advice}")


def _unreadable(path: Path, error: Exception, advice: str) -> InputError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "memory is short"
    return InputError(f"{path} cannot be read ({reason}): {advice}")
