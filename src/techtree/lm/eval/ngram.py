"""The baseline that a language model must beat: interpolated n-grams of its own tokens.

The probability of a token w after a history h of n-1 tokens mixes what followed h with the same
estimate for the history without its first token (Witten and Bell 1991, in the recursive form of Chen
and Goodman 1998):

    P(w | h) = (c(h w) + T(h) P(w | h')) / (c(h) + T(h))

c counts, T(h) is the number of different tokens that followed h, and h' drops h's first token. The
more different tokens followed, the less the counts are trusted. A history never seen leaves it all to
h'. Below the empty history stands the uniform distribution, 1 / vocab_size.

Each different run of n tokens gets a number, its place among all sorted ones. A run is then the number
of its history and its last token: that fits in 64 bits at any order, where vocab_size^5 may not, and a
binary search in a sorted array replaces a table.

Arrays: `T` tokens of a text, `R` different runs of n tokens, `H` different histories, `E` tokens
of several texts, joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from techtree.lm.data.corpus import Document
from techtree.lm.data.token_sequence import measured_sequence, token_sequence
from techtree.lm.eval.held_out import Score
from techtree.lm.tokenizer import Tokenizer

ORDERS = (2, 3, 4, 5)


class NgramModel:
    """The interpolated distributions of all orders up to one.

    Parameters
    ----------
    sequences
        The texts to learn from, each from `token_sequence`: its first token is context only.
    vocab_size
        How many different tokens there may be.
    order
        The largest n; a history has up to n-1 tokens.
    """

    def __init__(self, sequences: Sequence[Int32[np.ndarray, " T"]], vocab_size: int, order: int):
        self.vocab_size = vocab_size
        self.order = order
        self._runs: list[_Runs] = []
        tokens, is_predicted = _joined(sequences, order)
        histories, n_histories = np.zeros(len(tokens), np.int64), 1
        for _ in range(order):
            keys, numbers = np.unique(histories * vocab_size + tokens, return_inverse=True)
            counts = np.bincount(numbers[is_predicted], minlength=len(keys))
            self._runs.append(_Runs.tally(keys, counts, keys // vocab_size, n_histories))
            histories, n_histories = _shifted(numbers), len(keys)

    def probabilities(self, sequences: Sequence[Int32[np.ndarray, " T"]]) -> list[Float64[np.ndarray, " E"]]:
        """Return, for each order from 1, the probability of each token of some texts but their first ones."""
        tokens, is_predicted = _joined(sequences, self.order)
        estimate = np.full(len(tokens), 1 / self.vocab_size)
        histories = np.zeros(len(tokens), np.int64)
        estimates = []
        for runs in self._runs:
            numbers = runs.number(np.where(histories < 0, -1, histories * self.vocab_size + tokens))
            counts = np.where(numbers < 0, 0, runs.counts[numbers])
            totals = np.where(histories < 0, 0, runs.history_counts[histories])
            types = np.where(histories < 0, 0, runs.history_types[histories])
            mixed = (counts + types * estimate) / np.maximum(totals + types, 1)
            estimate = np.where(totals > 0, mixed, estimate)
            estimates.append(estimate[is_predicted])
            histories = _shifted(numbers)
        return estimates


def ngram_scores(
    train: Sequence[Document],
    held_out: Sequence[Document],
    tokenizer: Tokenizer,
    orders: Sequence[int] = ORDERS,
) -> dict[int, Score]:
    """Measure n-gram models of several orders on held-out documents.

    Parameters
    ----------
    train
        What to count.
    held_out
        What to measure on, all of it (see `techtree.lm.eval.held_out.evaluated`).
    tokenizer
        The one of the model that is compared.
    orders
        The values of n, from 1.
    """
    sequences = [token_sequence(document.text, tokenizer) for document in train]
    model = NgramModel(sequences, tokenizer.vocab_size, max(orders))
    estimates = model.probabilities([measured_sequence(document, tokenizer) for document in held_out])
    n_bytes = sum(document.n_bytes for document in held_out)
    return {n: Score(float(-np.log2(estimates[n - 1]).sum()), len(estimates[n - 1]), n_bytes) for n in orders}


@dataclass(frozen=True)
class _Runs:
    """The different runs of n tokens in a text, and what followed each of their histories."""

    keys: Int64[np.ndarray, " R"]
    """Number of the history * vocab_size + last token, sorted; a run's number is its place."""
    counts: Int64[np.ndarray, " R"]
    history_counts: Int64[np.ndarray, " H"]
    """c(h), by the number of the history."""
    history_types: Int64[np.ndarray, " H"]
    """T(h), by the number of the history."""

    @classmethod
    def tally(
        cls,
        keys: Int64[np.ndarray, " R"],
        counts: Int64[np.ndarray, " R"],
        histories: Int64[np.ndarray, " R"],
        n_histories: int,
    ) -> "_Runs":
        # Runs that end in context only (a text's first token) have a number, but count as not seen.
        history_counts = np.bincount(histories, counts, minlength=n_histories).astype(np.int64)
        history_types = np.bincount(histories[counts > 0], minlength=n_histories)
        return cls(keys, counts, history_counts, history_types)

    def number(self, keys: Int64[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
        """Return the number of each run, -1 for those that the text does not have."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


def _joined(
    sequences: Sequence[Int32[np.ndarray, " T"]], order: int
) -> tuple[Int64[np.ndarray, " E"], Bool[np.ndarray, " E"]]:
    """Return all texts in one, and which tokens are to be predicted.

    The first token of each is repeated, so that every predicted token has a history of full length
    within its own text.
    """
    n_context = max(1, order - 1)
    parts = [part for sequence in sequences for part in (np.repeat(sequence[:1], n_context), sequence[1:])]
    is_predicted = np.repeat(np.arange(len(parts)) % 2 == 1, [len(part) for part in parts])
    return np.concatenate(parts).astype(np.int64), is_predicted


def _shifted(numbers: Int64[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
    """Return the number of the run that ends before each token; none is asked for before the first."""
    return np.concatenate([np.zeros(1, np.int64), numbers[:-1]])
