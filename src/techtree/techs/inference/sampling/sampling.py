"""From scores to the next token: cut the tail off, sharpen what is left, draw one; and know where to stop.

Claim: always taking the likeliest token gives one text, and often a poor one; drawing from all tokens falls
into the tail sooner or later, where many wrong tokens share a few per cent. A few numbers choose a point
between the two. All of them act on one row of probabilities, and one uniform number then picks the token.

Idea: sort the tokens by probability. top-k keeps so many of them, top-p the fewest that hold so much of the
probability, min-p those that come near enough to the first. Only then the temperature is applied, so what
may be drawn does not depend on it. The cumulated sums of what is left cut the line from 0 to 1 into pieces.

Legend: ``V`` tokens in the vocabulary; ``logits`` (V,) scores of the next token; ``u`` a uniform number.

Left out: several texts at a time (`batching`), keys that are kept (`kv_cache`), masks by a grammar
(`constrained`), searching for the likeliest text (beams).

Papers: Holtzman et al. (2020), https://arxiv.org/abs/1904.09751; Nguyen et al. (2024),
https://arxiv.org/abs/2407.01082
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.ground.numerics import softmax


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; ``ValueError`` if a number is out of its range.

    Attributes
    ----------
    temperature
        Finite, at least 0. 0 takes the likeliest token; 1 leaves the proportions as the model has them.
    top_k
        A whole number (``int``, no boolean) of at least 0: so many tokens may be drawn; 0 for all.
    top_p
        From 0 to 1: the fewest likeliest tokens may be drawn that have this probability together.
    min_p
        From 0 to 1: tokens may be drawn that have at least this fraction of the likeliest one's probability.
    repetition
        Finite, above 0: the factor by which tokens that stand in the text already lose; 1 for none.
    presence, frequency
        Finite: what is taken from a token's logit if it stands in the text; and for each time that it does.

    Examples
    --------
    >>> Sampling()  # what many programs begin with
    Sampling(temperature=0.8, top_k=0, top_p=0.95, min_p=0.05, repetition=1.0, presence=0.0, frequency=0.0)
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.05
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    def __post_init__(self):
        if type(self.top_k) is not int or self.top_k < 0:
            raise ValueError(f"top_k must be a whole number of at least 0 (all tokens); got {self.top_k!r}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and at least 0; got {self.temperature}")
        if not 0 < self.repetition < math.inf:
            raise ValueError(f"repetition must be finite and above 0 (1 for none); got {self.repetition}")
        for name in ("top_p", "min_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1; got {getattr(self, name)}")
        for name in ("presence", "frequency"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite; got {getattr(self, name)}")


def probabilities(
    logits: np.ndarray, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> np.ndarray:
    """Compute with which probability each token is drawn.

    Parameters
    ----------
    logits
        (V,), V at least 1: an array or list of any real dtype, finite or ``-inf``, at least one finite. Not
        changed.
    temperature, top_k, top_p, min_p
        As in `Sampling`.

    Returns
    -------
    np.ndarray
        (V,), float64, new, computed in float64 from the logits as they are; it sums to 1.

        With temperature 0: 1 for the token with the largest logit, of several such for that with the smallest
        id, and 0 for all others, whatever the other numbers.

        Otherwise three steps choose tokens, in this order, by the softmax of the logits as they are. Tokens
        are sorted by it; of equal ones the smaller id comes first. (1) The first ``top_k`` stay. Their
        probabilities are divided by their sum. (2) A token stays if those before it have less than ``top_p``
        together; all stay if it is 1, and the first one always. (3) A token stays if it has at least
        ``min_p`` times the probability of the first; all stay if it is 0. Where that sum or fraction equals
        the bound up to rounding, the token may stay or not. The others get exactly 0. The logits of those
        that stay are divided by the temperature, however small, and the softmax of that is the result. A
        logit of ``-inf`` gives exactly 0.

    Raises
    ------
    ValueError
        When logits have not one axis, or no entry; when one is NaN or ``inf``, or all are ``-inf``; and as
        `Sampling` does.

    Examples
    --------
    >>> logits = np.log([0.5, 0.25, 0.15, 0.1])
    >>> probabilities(logits, top_k=2).round(3).tolist()
    [0.667, 0.333, 0.0, 0.0]
    >>> probabilities(logits, temperature=0.5, top_p=0.7).round(3).tolist()  # 0.5**2 and 0.25**2: 4 to 1
    [0.8, 0.2, 0.0, 0.0]
    """
    Sampling(temperature, top_k, top_p, min_p)  # refuses what is out of range
    logits = _checked(logits)
    order = np.argsort(-logits, kind="stable")
    if temperature == 0:
        order = order[:1]
    if top_k:
        order = order[:top_k]
    p = softmax(logits[order])
    stays = p >= min_p * p[0]
    if top_p < 1:
        stays &= np.cumsum(p) - p < top_p
    stays[0] = True
    order = order[stays]
    result = np.zeros(logits.shape)
    # The largest is taken away first: a tiny temperature must not overflow.
    with np.errstate(over="ignore"):
        result[order] = softmax((logits[order] - logits[order[0]]) / (temperature or 1.0))
    return result


def penalize(
    logits: np.ndarray,
    ids: Sequence[int],
    repetition: float = 1.0,
    presence: float = 0.0,
    frequency: float = 0.0,
) -> np.ndarray:
    """Lower the logits of tokens that stand in a text already.

    Parameters
    ----------
    logits
        As for `probabilities`. Not changed.
    ids
        The text, whole numbers from 0 to V - 1, in any order; may be empty. Not changed.
    repetition, presence, frequency
        As in `Sampling`.

    Returns
    -------
    np.ndarray
        (V,), float64, new. The logit of a token that stands in the text n times, n at least 1, is divided by
        ``repetition`` if it is above 0, and multiplied by it otherwise, once, whatever n; then ``presence``
        and ``n * frequency`` are subtracted. The other logits are as they were.

    Raises
    ------
    ValueError
        As `probabilities` does; when an id is negative or not below V, or no whole number.

    Examples
    --------
    >>> penalize([2.0, -2.0, 2.0], [0, 1, 1], repetition=2.0, presence=0.5, frequency=0.25).tolist()
    [0.25, -5.0, 2.0]
    """
    Sampling(repetition=repetition, presence=presence, frequency=frequency)
    logits = _checked(logits)
    text = np.asarray(ids)
    if text.size and (text.dtype.kind not in "iu" or text.min() < 0 or text.max() >= len(logits)):
        raise ValueError(f"ids must be whole numbers from 0 to {len(logits) - 1}; got {ids}")
    count = np.zeros(len(logits))
    np.add.at(count, text.astype(np.intp), 1)
    scaled = np.where(logits > 0, logits / repetition, logits * repetition)
    return np.where(count > 0, scaled - presence - count * frequency, logits)


def distribution(logits: np.ndarray, ids: Sequence[int], settings: Sampling) -> np.ndarray:
    """Return the `probabilities` of the next token of a text, by all the numbers of the settings.

    Parameters
    ----------
    logits
        As for `probabilities`.
    ids
        The whole text before the token, as for `penalize`, which comes first.
    settings
        The numbers of both.
    """
    lowered = penalize(logits, ids, settings.repetition, settings.presence, settings.frequency)
    return probabilities(lowered, settings.temperature, settings.top_k, settings.top_p, settings.min_p)


def draw(probabilities: np.ndarray, rng: np.random.Generator) -> int:
    """Draw a token: the first whose probability, added to that of all tokens before it, is above u.

    Parameters
    ----------
    probabilities
        (V,), V at least 1: an array or list, none negative, their sum finite and not 0. It may be off 1, by
        little or much; it takes the place of 1, so that u is multiplied by it. Not changed.
    rng
        u is ``rng.random()``, at least 0 and below 1. It is called once, without arguments, whatever the
        probabilities, and nothing else of it is used.

    Returns
    -------
    int
        The id, in the order of the ids, a plain ``int``. Its probability is not 0.

    Raises
    ------
    ValueError
        When probabilities have not one axis, or no entry; when one is negative, NaN or infinite, or all are
        0. Then `rng` is not called.

    Examples
    --------
    >>> rng = np.random.default_rng(0)  # its first numbers: 0.637, 0.270, 0.041
    >>> [draw([0.25, 0.25, 0.5], rng) for _ in range(3)]
    [2, 1, 0]
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or not p.any():
        raise ValueError(f"probabilities must be (V,), finite, not negative, not all 0; got {p}")
    ends = np.cumsum(p)
    return int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))


class StopStrings:
    r"""A filter for a text that arrives in pieces: lets it pass up to the first stop string.

    The text ends where a stop string is complete for the first time: at the first character of all that is
    the last one of an occurrence. What is shown are the characters before that occurrence; if several end
    there, before the longest of them. How the text is cut into pieces does not matter.

    Parameters
    ----------
    strings
        Any collection of strings; ``ValueError`` for a single string, and when one of them is empty. Without
        strings everything passes. A later change of the collection does not matter.

    Attributes
    ----------
    is_stopped
        Whether a stop string was complete.

    Examples
    --------
    >>> filter = StopStrings(["</s>", "\n\n"])
    >>> [filter.feed(piece) for piece in ("a = 1", "\nb < 2", " <", "/", "s> c")], filter.is_stopped
    (['a = 1', '\nb < 2', ' ', '', ''], True)
    """

    def __init__(self, strings: Collection[str]):
        self._strings = sorted(strings, key=len, reverse=True)
        if isinstance(strings, str) or "" in self._strings:
            raise ValueError(f"stop strings must be a list of strings that are not empty; got {strings!r}")
        self._held = ""
        self.is_stopped = False

    def feed(self, text: str) -> str:
        """Take the next piece, of any length, also empty; return what can be shown now.

        That is all that was not shown yet, but for the longest end of the text that is the beginning of a
        stop string: exactly this is held back, since it may become one. After the text has ended: nothing.
        """
        if self.is_stopped:
            return ""
        shown = ""
        for character in text:
            self._held += character
            for each in self._strings:
                if self._held.endswith(each):
                    shown += self._held[: -len(each)]
                    self._held, self.is_stopped = "", True
                    return shown
            start = self._first_that_may_stop()
            shown, self._held = shown + self._held[:start], self._held[start:]
        return shown

    def finish(self) -> str:
        """Say that no more will come, and return what is still held back: nothing if the text has ended."""
        held, self._held = self._held, ""
        return held

    def _first_that_may_stop(self) -> int:
        """Return where the longest end of what is held that is the beginning of a stop string begins."""
        for start in range(len(self._held)):
            if any(each.startswith(self._held[start:]) for each in self._strings):
                return start
        return len(self._held)


def generate(
    model: Callable[[np.ndarray], Tensor],
    ids: Sequence[int],
    n_new: int,
    settings: Sampling,
    rng: np.random.Generator,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Continue a text token by token, each drawn from the `distribution` of the whole text before it.

    Parameters
    ----------
    model
        Maps ids (T,) to logits (T, n_tokens), like `GPT`. Called once for each token, with the whole text so
        far, when that token is asked for, and without recording gradients. Between two tokens the
        caller's own operations are recorded as they were before.
    ids
        At least one. Not changed; when the first token is there, a change of them does not matter any more.
    n_new
        How many tokens to add at most; may be 0.
    settings
        How each is chosen. Penalties are for all tokens of the text, those of `ids` too.
    rng
        For `draw`: one number for each token, also with temperature 0, and for one that stops.
    stop
        Tokens at which the text ends: where the next one would be among them, it is not given.

    Returns
    -------
    Iterator[int]
        The new tokens alone, plain ``int``. Several such iterators may be asked in turn, and share one `rng`.

    Raises
    ------
    ValueError
        When ids is empty or n_new negative, at the latest when the first token is asked for; and what the
        model or `distribution` raises.

    Examples
    --------
    >>> def count_on(ids):  # the likeliest token is the last one plus 1
    ...     return Tensor(np.eye(9)[(ids + 1) % 9])
    >>> list(generate(count_on, [5, 2], 3, Sampling(temperature=0.0), np.random.default_rng(0)))
    [3, 4, 5]
    """
    if not len(ids) or n_new < 0:
        raise ValueError(f"ids must not be empty, n_new not negative; got {len(ids)} ids, n_new={n_new}")
    text = [int(each) for each in ids]
    for _ in range(n_new):
        with no_grad():  # left before the token is given: the caller may be training
            logits = model(np.array(text)).data[-1]
        token = draw(distribution(logits, text, settings), rng)
        if token in stop:
            return
        text.append(token)
        yield token


def _checked(logits: np.ndarray) -> np.ndarray:
    """Return logits as float64, or refuse them."""
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 1 or not logits.size:
        raise ValueError(f"logits must have the shape (V,), V at least 1; got {logits.shape}")
    if not np.isfinite(logits.max()):  # NaN if any is
        raise ValueError("logits must be finite or -inf, and not all -inf: is the model's output sound?")
    return logits
