"""Documents, cut into the pieces of text that rows are packed from.

A document's tokens are cut into windows of a row's length. A window stays as it is, or (with probability
`fim_rate`) becomes several fill-in-the-middle examples, of shorter texts too, since a cursor may stand
anywhere in a file. Windows overlap by one token, so that every token is learned once.

A token whose number has the highest bit set is seen, but not learned: the first token of each piece,
which nothing before it explains, and the special tokens that mark the parts of a prompt. So the model never
learns to write these.

Arrays: `P` tokens of a piece.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32, UInt

from techtree.lm.data import fill_in_the_middle
from techtree.lm.data.corpus import Document
from techtree.lm.data.token_sequence import token_sequence
from techtree.lm.tokenizer import Tokenizer

MIN_EXAMPLE_TOKENS = 128
"""Of the text in a fill-in-the-middle example: about a dozen lines; less is little to go by. In rows of less
than four times as much, examples start at a quarter of a row.
"""

RECUT_TOKENS = 8
"""Room for the tokens that appear when a text is cut within words and its parts are encoded apart."""

MAX_PASSES = 4
"""Over the documents, each with cuts of its own. Repeating data up to four times is nearly as good as new
data (Muennighoff et al. 2023); a longer run draws the same rows again, in another order."""

OVERSAMPLING = 4
"""Where few tokens are needed, so many times as many are encoded, to draw windows from many files."""


class Cutter:
    """Cuts documents into pieces.

    Parameters
    ----------
    tokenizer
        Of the model.
    row_length
        The largest length of a piece, in tokens.
    fim_rate
        The share of windows that become fill-in-the-middle examples.
    rng
        Of all choices.
    """

    def __init__(self, tokenizer: Tokenizer, row_length: int, fim_rate: float, rng: np.random.Generator):
        self.tokenizer = tokenizer
        self.row_length = row_length
        self.fim_rate = fim_rate
        self.rng = rng
        self.dtype = token_dtype(tokenizer.vocab_size)

    def encode(self, documents: Sequence[Document], max_tokens: float) -> list[Int32[np.ndarray, " T"]]:
        """Return the token sequences of the documents, in a random order, until there are enough tokens."""
        sequences = []
        n_tokens = 0
        for i in self.rng.permutation(len(documents)):
            if n_tokens >= max_tokens:
                break
            sequences.append(token_sequence(documents[i].text, self.tokenizer))
            n_tokens += len(sequences[-1])
        return sequences

    def pieces(
        self, sequences: Sequence[Int32[np.ndarray, " T"]], n_tokens: int | None
    ) -> Iterator[UInt[np.ndarray, " P"]]:
        """Yield the pieces of all windows in a random order.

        Parameters
        ----------
        sequences
            Of the documents' tokens.
        n_tokens
            Stop when the pieces have so many tokens, or after some passes; by default, after one pass.
        """
        stride = self.row_length - 1
        windows = [(s, start) for s in sequences for start in range(0, len(s) - 1, stride)]
        n_yielded = 0
        for _ in range(1 if n_tokens is None else MAX_PASSES):
            for i in self.rng.permutation(len(windows)):
                if n_tokens is not None and n_yielded >= n_tokens:
                    return
                sequence, start = windows[i]
                for piece in self._window_pieces(sequence[start : start + self.row_length]):
                    n_yielded += len(piece)
                    yield piece

    def _window_pieces(self, window: Int32[np.ndarray, " T"]) -> Iterator[UInt[np.ndarray, " P"]]:
        """Yield a window as it is, or the examples that it becomes."""
        if self.rng.random() >= self.fim_rate:
            yield self._flagged(window, prompt_marks=[])
            return
        end = self.tokenizer.end_of_text_id
        # Asked for here only: a foreign tokenizer without them serves for plain text.
        prompt_marks = [
            self.tokenizer.fim_prefix_id,
            self.tokenizer.fim_suffix_id,
            self.tokenizer.fim_middle_id,
        ]
        text_ids = window[1:]  # the first is the window before's last, or <|endoftext|>
        text_ids = text_ids[: len(text_ids) - (text_ids[-1] == end)]
        while len(text_ids):
            n = self._example_length()
            # A token may hold a part of a character; such a part at either end is left out.
            text = self.tokenizer.decode_bytes(text_ids[:n]).decode("utf-8", errors="ignore")
            text_ids = text_ids[n:]
            example = fill_in_the_middle.example(text, self.tokenizer, self.row_length, self.rng)
            yield self._flagged(np.array(example), prompt_marks)

    def _example_length(self) -> int:
        """Return the length of an example's text in tokens: as often 128 to 256 as 256 to 512."""
        longest = self.row_length - fill_in_the_middle.N_SENTINELS - RECUT_TOKENS
        shortest = max(1, min(MIN_EXAMPLE_TOKENS, longest // 4))
        return int(math.exp(self.rng.uniform(math.log(shortest), math.log(longest))))

    def _flagged(self, ids: np.ndarray, prompt_marks: list[int]) -> UInt[np.ndarray, " P"]:
        """Return the ids of a piece, those that are not to be learned with the highest bit."""
        is_context = np.isin(ids, prompt_marks)
        is_context[0] = True
        return np.where(is_context, ids.astype(np.int64) | highest_bit(self.dtype), ids).astype(self.dtype)


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type that holds every token and has its highest bit free.

    >>> token_dtype(32768), token_dtype(32769)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint16 if vocab_size <= 1 << 15 else np.uint32)


def highest_bit(dtype: np.dtype) -> int:
    """Return the number whose only bit is the highest one of a type.

    >>> highest_bit(np.dtype(np.uint16))
    32768
    """
    return 1 << (8 * dtype.itemsize - 1)
