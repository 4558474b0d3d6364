"""The operating system's lock on an open file, which dies with its last holder."""

import errno
import os
from typing import IO


def take(file: IO[str]) -> bool:
    """Try to lock an open file.

    Returns
    -------
    bool
        Whether this process may go on: it holds the lock, or the file system has no locks.
    """
    file.seek(0)  # Windows locks the byte where the file stands.
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
