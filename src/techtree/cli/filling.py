"""How a command ends that fills a folder in stages, when something comes between."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from techtree.errors import InputError


class StoppedError(KeyboardInterrupt):
    """A Ctrl-C after which the same command goes on; the message says so."""


@contextlib.contextmanager
def filling(folder: Path, *, speaks: bool = True) -> Iterator[None]:
    """Say what Ctrl-C, a full disk or a folder that cannot be used means for what was done so far.

    Parameters
    ----------
    folder
        What the block fills.
    speaks
        Whether this process tells the user; of several that train together, one does.

    Raises
    ------
    StoppedError
        After Ctrl-C.
    InputError
        Where the operating system refused something.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if not speaks:
            raise SystemExit(130) from error
        raise StoppedError("stopped; the same command goes on from here") from error
    except OSError as error:
        raise InputError(
            f"{folder} must be a folder that can be read and written ({error.strerror or error}): make room, "
            "or choose another --out; what was done so far is kept"
        ) from error
