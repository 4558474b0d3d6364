"""A folder that a command fills in stages: one process at a time, always with the settings it began with."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from techtree import atomic
from techtree.errors import InputError
from techtree.file_lock import take
from techtree.lm.pipeline.stages import read_json

_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))

LOCK = ".lock"
"""The file that whoever fills the folder has locked. What a killed process left of it locks nobody out."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from filling a folder while the block runs.

    The lock is the operating system's and ends with the process, however that ends. On a file system without
    locks there is none.

    Raises
    ------
    InputError
        When another process fills the folder, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder; {folder} is a file: choose another one")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock_file(folder) as file:
            try:
                yield
            finally:
                # Unlinked while it is held; whoever opened it before sees that it is another one by then.
                with contextlib.suppress(OSError):
                    (folder / LOCK).unlink()
                file.close()
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was put into it
        raise


@contextlib.contextmanager
def _lock_file(folder: Path) -> Iterator[IO[str]]:
    path = folder / LOCK
    while True:
        with path.open("a+", encoding="ascii", errors="replace") as file:
            if not take(file):
                raise InputError(
                    f"{folder} is being filled by another process{_number(file)}: wait until it has ended, "
                    "or choose another --out"
                )
            if not _is_same(file, path):
                continue  # The one that held it has taken it away.
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield file
            return


def _number(file: IO[str]) -> str:
    """Return the number that the lock's holder wrote, where it can be read."""
    with contextlib.suppress(OSError):  # Windows locks the bytes, too.
        file.seek(0)
        number = file.read(20).strip()
        return f" (number {number})" if number.isdecimal() else ""
    return ""


def _is_same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def check_settings(path: Path, settings: Mapping[str, Any], positional: Collection[str] = ()) -> None:
    """Refuse to go on in a folder with other settings than those that a file of it keeps.

    Parameters
    ----------
    path
        The file; without it, or for what it does not keep, nothing is refused.
    settings
        By the name of the option.
    positional
        Those that are given without a name.

    Raises
    ------
    InputError
        When one is another; the message names the option and both values.
    """
    before = read_json(path) if path.exists() else {}
    if not isinstance(before, dict):
        raise InputError(f"{path} must be as an earlier run wrote it: use another --out")
    check_same(path.parent, before, settings, positional)


def check_same(
    folder: Path, before: Mapping[str, Any], settings: Mapping[str, Any], positional: Collection[str] = ()
) -> None:
    """Refuse settings that differ from those before, as far as there are any; see `check_settings`."""
    for name, now in settings.items():
        old = before.get(name, now)
        if now != old:
            option = name if name in positional else f"--{name.replace('_', '-')}"
            raise InputError(
                f"{folder} was begun with {option} {_shown(old)}, now it is {_shown(now)}: give the "
                f"same {option}, or another --out"
            )


def record_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Keep settings in a file, beside what it keeps already, just before the first thing made with them."""
    before = read_json(path) if path.exists() else {}
    if not settings.items() <= before.items():
        atomic.write_text(path, json.dumps({**before, **settings}, indent=1) + "\n")


@contextlib.contextmanager
def forgotten_if_refused(
    folder: Path, names: Collection[str], is_begun: Callable[[], bool]
) -> Iterator[None]:
    """Remove what the block has put into a folder when its inputs turn out to be unusable.

    A corpus that was mistyped has made nothing that is worth keeping, and the corrected command is welcome in
    the same folder. What an earlier call has left stays, and so does all when the training has begun; after
    Ctrl-C, a kill or a full disk, nothing is removed.

    Parameters
    ----------
    folder
        The run's.
    names
        Of the files and folders in it that the block makes.
    is_begun
        Tells whether there is something to keep.
    """
    is_first_call = not any((folder / name).exists() for name in names)
    try:
        yield
    except (InputError, MemoryError, RuntimeError) as error:
        if is_first_call and not _is_of_the_disk(error) and not is_begun():
            for path in [folder / name for name in names]:
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an error comes of a disk that is full or fails, of which the inputs know nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            return True
        error = error.__context__
    return False


def _shown(value: Any) -> str:
    if value is None:
        return "left out"
    return ", ".join(value) if isinstance(value, list) else str(value)
