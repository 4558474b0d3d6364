"""A language model that counts what followed the same tokens before.

Claim: mixing the counts of long and short contexts by one rule, without a single tuned number, gives a model
that every neural model must first beat; and bits per byte is the scale on which all models can be compared.

Legend: ``N`` the order, the longest run of tokens that is counted; ``h`` a history, the tokens before the one
that is predicted, at most N - 1 of them; ``c(h w)`` how often token w followed h; ``c(h)`` the sum of that
over w; ``T(h)`` how many different tokens followed h; ``V`` the size of the vocabulary; ``T`` (of arrays)
tokens of a text.

Left out: Kneser-Ney smoothing, which is a little better on words and needs more care; pruning; files.

Papers: Witten and Bell (1991), https://doi.org/10.1109/18.87000; Chen and Goodman (1998)
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


class NgramLM:
    """The interpolated n-gram model of Witten and Bell, over integer tokens.

    Parameters
    ----------
    order
        The largest n, at least 1: a prediction looks at n - 1 tokens.
    vocab_size
        How many different tokens there are: 0 to ``vocab_size - 1``.
    start
        The token that stands, as often as needed, before each text. It is context only, and may occur in
        texts too.

    Raises
    ------
    ValueError
        When ``order`` or ``vocab_size`` is below 1, or ``start`` is no token.

    Notes
    -----
    ``P(w | h) = (c(h w) + T(h) P(w | h')) / (c(h) + T(h))``, where h' is h without its first token. Where h
    was never followed by anything, ``P(w | h) = P(w | h')``. Below the empty history stands 1 / V.

    Examples
    --------
    >>> model = NgramLM(order=2, vocab_size=4, start=3)
    >>> model.count([0, 1, 0])
    >>> model.prob([0], 1)  # P(1) = (1 + 2/4) / (3 + 2) = 0.3; P(1 | 0) = (1 + 1 * 0.3) / (1 + 1)
    0.65
    """

    def __init__(self, order: int, vocab_size: int, start: int = 0):
        if order < 1 or vocab_size < 1:
            raise ValueError(f"order and vocab_size must be 1 or more; got {order} and {vocab_size}")
        self.order, self.vocab_size, self.start = order, vocab_size, start
        self._followers: dict[tuple[int, ...], Counter[int]] = {}
        self._padded([start])

    def count(self, tokens: Sequence[int]) -> None:
        """Add one text to the counts.

        Parameters
        ----------
        tokens
            The whole text; a list or an array. If its end is to be predicted, the last token says so.

        Raises
        ------
        ValueError
            When a token is outside the vocabulary; then nothing is counted.
        """
        padded = self._padded(tokens)
        for at in range(self.order - 1, len(padded)):
            for n in range(self.order):
                followers = self._followers.setdefault(padded[at - n : at], Counter())
                followers[padded[at]] += 1

    def prob(self, context: Sequence[int], token: int) -> float:
        """Return the probability that a token comes next.

        Parameters
        ----------
        context
            The text so far, from its beginning. Only the last N - 1 tokens matter, and only they need be
            checked; where there are fewer, start tokens stand before them.
        token
            The one that may come next.

        Returns
        -------
        float
            More than 0. Over all tokens they sum to 1.

        Raises
        ------
        ValueError
            When a token is outside the vocabulary.
        """
        return self._estimates(self._history(context), self._padded([token])[-1])[-1]

    def log_probs(self, context: Sequence[int]) -> np.ndarray:
        """Return the natural logarithm of the probability of every token.

        Parameters
        ----------
        context
            As for `prob`.

        Returns
        -------
        np.ndarray
            Shape (V,), float64, a new array; all finite.

        Raises
        ------
        ValueError
            When a token is outside the vocabulary.
        """
        history = self._history(context)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for n in range(self.order):
            followers = self._followers.get(history[len(history) - n :])
            if followers:
                p *= len(followers)
                p[list(followers)] += list(followers.values())
                p /= followers.total() + len(followers)
        return np.log(p)

    def score(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the natural logarithm of the probability of each token of a text, for all orders up to N.

        Parameters
        ----------
        tokens
            The whole text; it is not counted.

        Returns
        -------
        np.ndarray
            Shape (N, T), float64. Row n - 1 holds what a model of order n gives after the same counting: each
            token after all tokens before it.

        Raises
        ------
        ValueError
            When a token is outside the vocabulary.
        """
        padded = self._padded(tokens)
        first = self.order - 1
        rows = [self._estimates(padded[at - first : at], padded[at]) for at in range(first, len(padded))]
        return np.log(np.array(rows, dtype=np.float64).reshape(-1, self.order).T)

    def _estimates(self, history: tuple[int, ...], token: int) -> list[float]:
        """Return the probability of a token by each order from 1; ``history`` has N - 1 tokens or more."""
        p, estimates = 1 / self.vocab_size, []
        for n in range(self.order):
            followers = self._followers.get(history[len(history) - n :])
            if followers:
                p = (followers[token] + len(followers) * p) / (followers.total() + len(followers))
            estimates.append(p)
        return estimates

    def _history(self, context: Sequence[int]) -> tuple[int, ...]:
        """Return the last N - 1 tokens, start tokens where there are fewer."""
        recent = context[max(0, len(context) - self.order + 1) :]
        return self._padded(recent)[len(recent) :]

    def _padded(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Put N - 1 start tokens before the tokens of a text, checked, as Python's integers."""
        checked = tuple(int(token) for token in tokens)
        if checked and (min(checked) < 0 or max(checked) >= self.vocab_size):
            raise ValueError(f"tokens must be 0 to {self.vocab_size - 1}; got {min(checked)}, {max(checked)}")
        return (self.start,) * (self.order - 1) + checked


def perplexity(log_probs: np.ndarray) -> float:
    """Return among how many equally likely tokens the model hesitates, on average.

    Parameters
    ----------
    log_probs
        Natural logarithms of the probabilities that a model gave to the tokens that came; any shape, not
        empty. They are added in float64.

    Returns
    -------
    float
        ``exp(-mean(log_probs))``: 1 for a model that always knew, V for one that never knew anything.

    Raises
    ------
    ValueError
        When there is nothing to average.

    Examples
    --------
    >>> round(perplexity(np.log([0.5, 0.125])), 9)  # the geometric mean of 2 and 8
    4.0
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    if not log_probs.size:
        raise ValueError("a perplexity needs at least one token; got none")
    return float(np.exp(-log_probs.mean()))


def bits_per_byte(log_probs: np.ndarray, text: str) -> float:
    """Return what a text costs under a model, in bits, divided by its length in UTF-8.

    Parameters
    ----------
    log_probs
        Natural logarithms of the probabilities of all tokens of the text, whatever the tokens are; any shape.
        The token for the end of the text may be among them. They are added in float64.
    text
        The text, not empty.

    Returns
    -------
    float
        ``-sum(log_probs) / ln 2 / bytes``. A model of bytes that knows nothing has 8.

    Raises
    ------
    ValueError
        When the text is empty.

    Examples
    --------
    >>> bits_per_byte(np.log([0.5, 0.125]), "né")  # 1 + 3 bits, 3 bytes
    1.3333333333333333
    """
    n_bytes = len(text.encode("utf-8"))
    if not n_bytes:
        raise ValueError("bits per byte need a text of at least one byte; got none")
    return float(-np.sum(np.asarray(log_probs, dtype=np.float64)) / math.log(2) / n_bytes)
