"""Files that are either the old version or the new one, never half of one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends without an exception.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and are renamed
    over ``path`` in one step. A kill at any moment, a full disk or an exception in the block leaves
    the old file as it was.

    Raises
    ------
    OSError
        When ``path``, which it names, is a folder or a device, its folder cannot be written, or the disk is
        full; ``path`` is untouched.
    """
    try:
        with _replacing(path) as file:
            yield file
    except OSError as error:
        if error.filename is not None and os.path.dirname(os.fsdecode(error.filename)) == str(path.parent):
            error.filename, error.filename2 = str(path), None  # and not the temporary file
        raise


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # a device or a pipe, which a file must not replace
        raise FileExistsError(errno.EEXIST, "Not a regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; a user's umask decides here.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_writer(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with the line ends that it has.

    Of a file's name that is not UTF-8, the codes are written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def cache_folder() -> Path:
    """Return the folder of what can be made again, the user's; it need not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(home or Path.home() / ".cache") / "techtree"
    except RuntimeError:  # there is no home
        return Path(tempfile.gettempdir()) / "techtree"
