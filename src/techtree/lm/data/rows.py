"""Documents, made into rows of tokens that training reads.

Arrays: `N` rows, `L` = seq_len + 1 tokens of a row.

A token whose number has the highest bit set is seen, but not learned (`pieces` says which); so is the
padding at a row's end, which is `<|endoftext|>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.packing import best_fit
from techtree.lm.data.pieces import OVERSAMPLING, Cutter, highest_bit
from techtree.lm.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowsConfig:
    """How rows are made."""

    seq_len: int = 512
    """Tokens that the model sees at once."""
    fim_rate: float = 0.5
    """The share of windows that become fill-in-the-middle examples."""
    n_rows: int | None = None
    """How many rows to make of a group of documents at most; by default as many as one pass gives."""
    seed: int = 0
    """Of all random choices."""

    def __post_init__(self):
        if self.seq_len < 16:
            raise InputError(f"seq_len must be at least 16; got {self.seq_len}: use 256 or 512")
        if not 0 <= self.fim_rate <= 1:
            raise InputError(f"fim_rate must lie in [0, 1]; got {self.fim_rate}: use 0.5")
        if self.n_rows is not None and self.n_rows < 1:
            raise InputError(f"n_rows must be at least 1; got {self.n_rows}: leave it out for one pass")

    @property
    def row_length(self) -> int:
        """Tokens of a row: the last one is only a target."""
        return self.seq_len + 1


def build_rows(
    documents: Sequence[Document], tokenizer: Tokenizer, config: RowsConfig, rng: np.random.Generator
) -> UInt[np.ndarray, "N L"]:
    """Make rows of tokens from a group of documents.

    Returns
    -------
    array
        16 bits a token where the vocabulary leaves the highest one free, else 32.

    Raises
    ------
    InputError
        When the documents do not fill a single row.
    """
    row_length = config.row_length
    n_tokens = None if config.n_rows is None else config.n_rows * row_length
    cutter = Cutter(tokenizer, row_length, config.fim_rate, rng)
    sequences = cutter.encode(documents, OVERSAMPLING * n_tokens if n_tokens else float("inf"))
    if sum(map(len, sequences)) < row_length:
        raise InputError(
            f"the files to train on must fill at least one row of seq_len + 1 = {row_length} tokens; got "
            f"{sum(map(len, sequences))} tokens in {len(sequences)} files: add files, or lower seq_len"
        )
    pieces = list(cutter.pieces(sequences, n_tokens))
    packed = best_fit([len(piece) for piece in pieces], row_length)
    # Best fit puts the longest pieces into the first rows; a part of the rows must be a fair sample.
    chosen = rng.permutation(len(packed))[: config.n_rows]
    padding = tokenizer.end_of_text_id | highest_bit(cutter.dtype)
    rows = np.full((len(chosen), row_length), padding, cutter.dtype)
    for row, members in zip(rows, (packed[i] for i in chosen), strict=True):
        filled = np.concatenate([pieces[i] for i in members])
        row[: len(filled)] = filled
    return rows
