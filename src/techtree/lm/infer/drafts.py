"""Guesses of the next tokens from the text at hand, for a model that checks several at once.

Code repeats itself: a name that is renamed, a row of arguments, a line that differs in one word. Where the
last tokens stood before, what followed then is a good guess now (prompt lookup decoding: Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). A decoder reads its weights once for a few tokens or
for one, so that checking costs little, and what it checks is what it would have written: nothing changes but
the time. The lesson is `techs/inference/speculative`.
"""

from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.index import BOUNDARY

N_DRAFT = 7
"""With the token before them 8, which share one reading of the weights."""
SHORTEST_MATCH = 3
"""Tokens that must have stood before; after a guess that was all wrong, twice as many, up to a limit."""
LONGEST_MATCH = 24


class Drafts:
    """Guesses from a text, and how good they were.

    Parameters
    ----------
    text
        The prompt, to which every token is added that is certain.
    """

    def __init__(self, text: GrowingText):
        self._text = text
        self._wanted = SHORTEST_MATCH

    def propose(self, n_most: int = N_DRAFT) -> list[int]:
        """Return up to so many guesses: what followed the latest place where the most last tokens stood."""
        n_tokens, places = self._text.places()
        if n_tokens < self._wanted:
            return []
        guesses = self._text.ids[places[0] : places[0] + max(0, n_most)]
        return guesses[: guesses.index(BOUNDARY)] if BOUNDARY in guesses else guesses

    def judge(self, n_drafted: int, n_right: int) -> None:
        """Learn how good a guess was."""
        if n_drafted:
            self._wanted = SHORTEST_MATCH if n_right else min(2 * self._wanted, LONGEST_MATCH)
