"""Guesses of the next tokens from the text at hand, for a model that checks several at once.

Code repeats itself: a name that is renamed, a row of arguments, a line that differs in one word. Where the
last tokens stood before, what followed then is a good guess now (prompt lookup decoding: Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). A decoder reads its weights once for a few tokens or
for one, so that checking costs little, and what it checks is what it would have written: nothing changes but
the time. The lesson is `techs/inference/speculative`.
"""

from collections.abc import Sequence

N_DRAFT = 7
"""With the token before them 8, which share one reading of the weights."""
SHORTEST_MATCH = 3
"""Tokens that must have stood before; after a guess that was all wrong, twice as many, up to a limit."""
LONGEST_MATCH = 24


class Drafts:
    """The text so far, and where each pair of tokens in it was last.

    Parameters
    ----------
    ids
        The prompt.
    """

    def __init__(self, ids: Sequence[int]):
        self._ids: list[int] = []
        self._places: dict[tuple[int, int], list[int]] = {}
        self._wanted = SHORTEST_MATCH
        for token in ids:
            self.append(token)

    def append(self, token: int) -> None:
        """Go on with a token that is certain."""
        self._ids.append(token)
        if len(self._ids) > 1:
            self._places.setdefault((self._ids[-2], token), []).append(len(self._ids))

    def propose(self, n_most: int = N_DRAFT) -> list[int]:
        """Return up to so many guesses: what followed the latest place where the most last tokens stood."""
        ids = self._ids
        best, after = 0, 0
        places = self._places.get((ids[-2], ids[-1]), []) if len(ids) > 1 else []
        for place in places[-2:-10:-1]:  # the last one is the end itself
            n = 2
            while n < LONGEST_MATCH and n < place and ids[place - 1 - n] == ids[-1 - n]:
                n += 1
            if n > best:
                best, after = n, place
        return ids[after : after + max(0, n_most)] if best >= self._wanted else []

    def judge(self, n_drafted: int, n_right: int) -> None:
        """Learn how good a guess was."""
        if n_drafted:
            self._wanted = SHORTEST_MATCH if n_right else min(2 * self._wanted, LONGEST_MATCH)
