"""What a model is reminded of while it writes: the text at hand, and the repository around it.

A cursor stands anywhere, also within what would be one token of a whole text: while ``x = `` waits for
``second``, its last token is a blank, where the texts of a repository have the token `` second``. So the
memory reads words, not the tokens that the model happens to read and write. What may still become another
word is encoded anew with each token; and while the word at the cursor is not at its end, a place fits if its
text begins with what there is of it.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int32
from torch import Tensor

from techtree.lm.memory.gate import mixed
from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.index import BOUNDARY, LONGEST_MATCH, Continues
from techtree.lm.memory.repository import Repository
from techtree.lm.tokenizer import ASCII_WORD, LINE_START, Tokenizer

MAX_CHARS = 200_000
"""Of the text before the cursor, and of that after it, so many are looked at, those nearest to it."""

PIECE_CHARS = 2000
"""Text is encoded in such pieces, which stay as they are while somebody types at the end."""

MAX_WORD_CHARS = 64
"""A word that is longer is data."""


class Memory:
    """Texts that a model's scores are mixed with.

    Parameters
    ----------
    tokenizer
        The model's.
    repository
        The files around the one that is edited; none when left out.

    Attributes
    ----------
    text
        The text at hand, as it would be encoded in whole.
    """

    def __init__(self, tokenizer: Tokenizer, repository: Repository | None = None):
        self.text = GrowingText()
        self.repository = repository
        self._tokenizer = tokenizer
        self._encode = functools.lru_cache(maxsize=4096)(lambda piece: tuple(tokenizer.encode(piece)))
        self._end = ""
        """The end of the text that may become other words, and how many tokens stand before it."""
        self._n_sure = 0
        self._is_at_cursor = False
        """Whether the word there is not at its end."""

    def begin(self, prefix: str, suffix: str = "", others: Sequence[str] = ()) -> None:
        """Look at the text around a cursor, and at others that an editor sent along."""
        prefix, self._end = _split(prefix[-MAX_CHARS:])
        parts = [*others, suffix[:MAX_CHARS], prefix]
        ids = [[token for piece in self._pieces(part) for token in self._encode(piece)] for part in parts]
        self.text.become([token for part in ids for token in (BOUNDARY, *part)])
        self._n_sure = len(self.text.ids)
        self._is_at_cursor = True
        if self.repository is not None:
            self.repository.edit_like([ids[-1], ids[-2]])

    def append(self, token: int) -> None:
        """Go on with a token that the model wrote."""
        self.text.truncate(self._n_sure)
        written = self._end.encode() + self._tokenizer.decode_bytes([token])
        text = written.decode("ascii", "replace")
        if "\ufffd" in text:  # words of other letters are taken as they come
            ids, self._end = [*self._encode(self._end), token], ""
        else:
            sure, self._end = _split(text)
            ids = self._encode(sure)
        for each in ids:
            self.text.append(each)
        self._n_sure = len(self.text.ids)
        self._is_at_cursor &= not ids
        if not self._is_at_cursor:
            for each in self._encode(self._end):
                self.text.append(each)

    def mixed(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Return the scores of the next token, the memory's share among them."""
        context = self.text.ids[-LONGEST_MATCH:]
        continues = self._continues(self._end) if self._is_at_cursor and self._end else None
        repository = self.repository.match(context, continues) if self.repository is not None else None
        return mixed(logits, self.text.match(continues), repository)

    def _continues(self, begun: str) -> Continues:
        """Return what tells how a place goes on, if its text begins with what stands at the cursor."""

        def continues(following: Int32[np.ndarray, " n"]) -> int | None:
            ids = following.tolist()
            ids = ids[: ids.index(BOUNDARY)] if BOUNDARY in ids else ids
            text = self._tokenizer.decode(ids)
            rest = self._encode(text[len(begun) :]) if text.startswith(begun) else ()
            return rest[0] if rest else None

        return continues

    def _pieces(self, text: str) -> Iterator[str]:
        """Cut a text before lines, where the tokenizer lets it be."""
        start = 0
        if self._tokenizer.splits_at_lines:
            for match in LINE_START.finditer(text):
                if match.start() - start >= PIECE_CHARS:
                    yield text[start : match.start()]
                    start = match.start()
        yield text[start:]


def _split(text: str) -> tuple[str, str]:
    r"""Cut off the words at a text's end that may become others: the last one, and blanks before it.

    >>> _split("x = sec"), _split("f(x):\n    "), _split("x é")
    (('x =', ' sec'), ('f(x):\n', '    '), ('x é', ''))
    """
    tail = text[-MAX_WORD_CHARS:]
    words = ASCII_WORD.findall(tail) if tail.isascii() else []
    is_after_blanks = len(words) > 1 and words[-2].isspace() and not words[-2].endswith("\n")
    end = "".join(words[-2:] if is_after_blanks else words[-1:])
    if len(end) == MAX_WORD_CHARS:
        return text, ""
    return text[: len(text) - len(end)], end
