"""Where the last tokens of a growing text stood before, in that same text.

A text at hand grows by a token at a time, and is short: each pair of its tokens is noted, and the latest
places where the last pair stood are compared token by token. Many texts that stay are sorted (`TokenIndex`).
"""

from collections.abc import Sequence

import numpy as np

from techtree.lm.memory.index import BOUNDARY, LONGEST_MATCH, N_NEXT, Continues, Match, match_of

N_LATEST = 16
"""Of the places where the last two tokens stood, so many are compared, the latest ones."""


class GrowingText:
    """A text so far, and where each pair of its tokens stood.

    Parameters
    ----------
    ids
        Its beginning.

    Attributes
    ----------
    ids
        All of it.
    """

    def __init__(self, ids: Sequence[int] = ()):
        self.ids: list[int] = []
        self._places: dict[tuple[int, int], list[int]] = {}
        for token in ids:
            self.append(token)

    def append(self, token: int) -> None:
        """Go on with a token."""
        self.ids.append(token)
        if len(self.ids) > 1:
            self._places.setdefault((self.ids[-2], token), []).append(len(self.ids))

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first."""
        while len(self.ids) > length:
            if len(self.ids) > 1:
                self._places[self.ids[-2], self.ids[-1]].pop()
            self.ids.pop()

    def become(self, ids: Sequence[int]) -> None:
        """Become another text; what both begin with costs nothing."""
        n_common = 0
        for known, wanted in zip(self.ids, ids, strict=False):
            if known != wanted:
                break
            n_common += 1
        self.truncate(n_common)
        for token in ids[n_common:]:
            self.append(token)

    def places(self) -> tuple[int, list[int]]:
        """Return how many last tokens stood before, and after which places, the latest first.

        Two tokens at least, `LONGEST_MATCH` at most; with none, no places.
        """
        ids = self.ids
        known = self._places.get((ids[-2], ids[-1]), []) if len(ids) > 1 else []
        best, found = 0, []
        for place in known[-2 : -2 - N_LATEST : -1]:  # the last one is the end itself
            n = 2
            while n < LONGEST_MATCH and n < place and ids[place - 1 - n] == ids[-1 - n]:
                n += 1
            if n > best:
                best, found = n, []
            if n == best:
                found.append(place)
        return best, found

    def match(self, continues: Continues | None = None) -> Match | None:
        """Return what followed where the most last tokens stood before; None where nothing did.

        Parameters
        ----------
        continues
            What follows at a place, where that is not simply the next token.
        """
        n_tokens, places = self.places()
        followers = [token for place in places if (token := self.ids[place]) != BOUNDARY]
        if continues is not None:
            found = [continues(np.array(self.ids[place : place + N_NEXT], np.int32)) for place in places]
            followers = [token for token in found if token is not None]
        return match_of(n_tokens, len(followers), np.array(followers)) if followers else None
