"""The one exception that a user's input can cause."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message says what must hold, what was given and what to do. The command line prints it
    without a traceback and exits with code 2.
    """


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the known name nearest to the given one, or an empty string.

    >>> did_you_mean("atention", ["attention", "bpe"])
    '; did you mean attention?'
    >>> did_you_mean("zzz", ["attention", "bpe"])
    ''
    """
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
