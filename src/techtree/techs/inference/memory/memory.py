"""A memory of exact text: what followed where the last tokens stood before is mixed into the model's guess.

Claim: a model cannot know the names in the file at hand, nor in the files beside it. But it need not learn
them: whoever finds the last tokens there, and looks what came next, is right more often the longer the match.

Idea: sort all places of the texts by what comes from there on (a *suffix array*). The places that begin with
a pattern then lie side by side, and bisection finds them. A text that still grows is no array to sort anew
with each token: there, a dictionary from every short run of tokens to what followed it does. Both tell what
followed, and how often. How far to believe that depends on how long the match is, and on whether its places
agree; the weights are fitted on text that is neither remembered nor measured on.

Legend: ``T`` tokens of all texts, boundaries included; ``V`` tokens in the vocabulary; ``L`` the longest
match that is looked for; ``N`` tokens of held-out text. *Counts* are a dictionary from a token to how often
it followed.

Left out: matches that nearly agree (`nearest neighbours`), cursors within tokens, files that change.

Papers: Manber and Myers (1993), https://doi.org/10.1137/0222058; Grave et al. (2016),
https://arxiv.org/abs/1612.04426; Khandelwal et al. (2019), https://arxiv.org/abs/1911.00172; Liu et al.
(2024), https://arxiv.org/abs/2401.17377
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

BOUNDARY = -1
"""Stands at the end of each text; no token has this number, so no match crosses it."""

N_AGREEMENTS = 3


class SuffixIndex:
    """Texts that stay as they are, sorted for looking up.

    Parameters
    ----------
    texts
        The tokens of each: a list or an integer array, of any length. Not changed, and not kept: what its
        owner does with a text later changes nothing.

    Raises
    ------
    ValueError
        When a token is negative.

    Attributes
    ----------
    tokens
        (T,), int64: all texts in order, and a *boundary*, -1, after each.
    places
        (T,): each place of `tokens` once, ordered by the tokens from there to the end, compared like Python's
        lists: by the first token that differs, and what ends first comes first.

    Notes
    -----
    A text that is one token again and again takes no more than a few times as long as any other: where the
    order by n tokens is known, so is that by 2 n. Sorting the suffixes as lists would be quadratic there.

    Examples
    --------
    >>> index = SuffixIndex([[5, 6, 5, 7], [5, 6]])
    >>> index.tokens.tolist()
    [5, 6, 5, 7, -1, 5, 6, -1]
    >>> index.places.tolist()  # -1, then -1 5 6 -1, 5 6 -1, 5 6 5 7 ..., 5 7 ..., 6 -1, 6 5 7 ..., 7 ...
    [7, 4, 5, 0, 2, 6, 1, 3]
    """

    def __init__(self, texts: Iterable[Sequence[int]]):
        tokens: list[int] = []
        for text in texts:
            own = [int(token) for token in text]
            _require_tokens(own)
            tokens += [*own, BOUNDARY]
        self.tokens = np.array(tokens, np.int64)
        self.places = _sorted_suffixes(self.tokens)

    def interval(self, pattern: Sequence[int]) -> tuple[int, int]:
        """Find the places from which a pattern stands.

        Parameters
        ----------
        pattern
            A list or an integer array, of any length; from everywhere, an empty one stands.

        Returns
        -------
        tuple of int
            low and high, two plain ``int``: the pattern stands from ``places[low:high]``, and from nowhere
            else. low is the number of places that come before it in the order, also if low == high.

        Raises
        ------
        ValueError
            When a token is negative: a boundary is in no pattern.

        Notes
        -----
        It looks at some 2 log2(T) places. Twice the text takes one or two looks more, not twice the time.

        Examples
        --------
        >>> SuffixIndex([[5, 6, 5, 7], [5, 6]]).interval([5, 6])  # places[2:4] are 5 and 0
        (2, 4)
        """
        wanted = [int(token) for token in pattern]
        _require_tokens(wanted)

        def run_from(place: int) -> list[int]:
            return self.tokens[place : place + len(wanted)].tolist()

        low = bisect_left(self.places, wanted, key=run_from)
        return low, bisect_right(self.places, wanted, lo=low, key=run_from)

    def followers(self, pattern: Sequence[int]) -> dict[int, int]:
        """Count what follows a pattern.

        Parameters
        ----------
        pattern
            As for `interval`.

        Returns
        -------
        dict
            From each token (plain ``int``) that follows the pattern somewhere to how often it does; in any
            order. The end of a text is no token. After the empty pattern come all tokens.

        Raises
        ------
        ValueError
            As `interval` does.

        Examples
        --------
        >>> SuffixIndex([[5, 6, 5, 7], [5, 6]]).followers([5])
        {6: 2, 7: 1}
        """
        low, high = self.interval(pattern)
        found = self.tokens[self.places[low:high] + len(pattern)]
        tokens, counts = np.unique(found[found != BOUNDARY], return_counts=True)
        return dict(zip(tokens.tolist(), counts.tolist(), strict=True))


class GrowingIndex:
    """One text that grows by a token at a time, and what followed each of its short runs.

    Parameters
    ----------
    max_length
        The longest run that is noted, at least 1.

    Raises
    ------
    ValueError
        When max_length is below 1.

    Examples
    --------
    >>> index = GrowingIndex()
    >>> for token in [5, 6, 5, 7, 5]:
    ...     index.append(token)
    >>> index.followers([5]), index.followers([7])  # after the last 5 stands nothing yet
    ({6: 1, 7: 1}, {5: 1})
    """

    def __init__(self, max_length: int = 8):
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1; got {max_length}")
        self._max_length = max_length
        self._recent: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], dict[int, int]] = {}

    def append(self, token: int) -> None:
        """Go on with a token.

        Parameters
        ----------
        token
            At least 0; one of NumPy's integers counts as the ``int`` that it equals.

        Raises
        ------
        ValueError
            When it is negative; then nothing is noted.
        """
        token = int(token)
        _require_tokens([token])
        for start in range(len(self._recent) + 1):
            counts = self._followers.setdefault(self._recent[start:], {})
            counts[token] = counts.get(token, 0) + 1
        self._recent = (*self._recent, token)[-self._max_length :]

    def followers(self, pattern: Sequence[int]) -> dict[int, int]:
        """Count what followed a pattern in the text so far.

        Parameters
        ----------
        pattern
            A list or an integer array of at most max_length tokens.

        Returns
        -------
        dict
            What `SuffixIndex.followers` would say of an index of this one text; the caller's own.

        Raises
        ------
        ValueError
            When a token is negative, or there are more than max_length.
        """
        wanted = tuple(int(token) for token in pattern)
        _require_tokens(wanted)
        if len(wanted) > self._max_length:
            raise ValueError(f"a pattern has at most {self._max_length} tokens here; got {len(wanted)}")
        return dict(self._followers.get(wanted, {}))


def longest_match(
    index: SuffixIndex | GrowingIndex, context: Sequence[int], max_length: int = 8
) -> tuple[int, dict[int, int]]:
    """Find the longest end of a text that stood before, and what followed there.

    Parameters
    ----------
    index
        Anything with `followers`. It is asked for patterns of at most max_length tokens; a `GrowingIndex`
        refuses longer ones than it notes.
    context
        The text so far, a list or an integer array, of any length. Not changed.
    max_length
        How many last tokens are compared at most, at least 1.

    Returns
    -------
    tuple
        The largest n, at most max_length, for which something followed the last n tokens, and their
        `followers`. 0 and no counts if nothing ever followed the last token, or there is none.

    Raises
    ------
    ValueError
        When max_length is below 1.

    Examples
    --------
    >>> longest_match(SuffixIndex([[5, 6, 5, 7], [5, 6]]), [9, 6, 5])
    (2, {7: 1})
    >>> longest_match(SuffixIndex([[5, 6, 5, 7]]), [5, 6, 5, 7])  # 7 is the end of its text
    (0, {})
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1; got {max_length}")
    for start in range(max(0, len(context) - max_length), len(context)):
        counts = index.followers(context[start:])
        if counts:
            return len(context) - start, counts
    return 0, {}


def agreement(counts: dict[int, int]) -> int:
    """Say how the places of a match agree on what follows.

    Parameters
    ----------
    counts
        From `longest_match`.

    Returns
    -------
    int
        0 if different tokens followed, or none; 1 if there is one place alone; 2 if the same token followed
        at several.

    Examples
    --------
    >>> agreement({6: 2, 7: 1}), agreement({6: 1}), agreement({6: 2})
    (0, 1, 2)
    """
    if len(counts) != 1:
        return 0
    return 1 if sum(counts.values()) == 1 else 2


def mix(p: np.ndarray | Sequence[float], counts: dict[int, int], weight: float) -> np.ndarray:
    """Mix what a memory says into a model's distribution.

    Parameters
    ----------
    p
        (V,): the model's probabilities; a list is fine. Not changed.
    counts
        Of the match. Not changed.
    weight
        How far the memory is believed, from 0 to 1.

    Returns
    -------
    np.ndarray
        (V,), float64, a new array: each token has 1 - weight of the model's probability and weight of its
        share of the counts. The model's own probabilities if there are no counts, whatever the weight.

    Raises
    ------
    ValueError
        When the weight is not from 0 to 1, or a token of the counts is not in the vocabulary.

    Examples
    --------
    >>> mix([0.5, 0.25, 0.25], {2: 3, 0: 1}, 0.5).tolist()
    [0.375, 0.125, 0.5]
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be from 0 to 1; got {weight}")
    mixed = np.array(p, np.float64)
    if not counts:
        return mixed
    if min(counts) < 0 or max(counts) >= len(mixed):
        raise ValueError(f"tokens must be from 0 to {len(mixed) - 1}; got {min(counts)} to {max(counts)}")
    mixed *= 1 - weight
    mixed[list(counts)] += weight * np.array(list(counts.values())) / sum(counts.values())
    return mixed


def fit_weights(
    lengths: Sequence[int] | np.ndarray,
    agreements: Sequence[int] | np.ndarray,
    p_model: Sequence[float] | np.ndarray,
    p_memory: Sequence[float] | np.ndarray,
    max_length: int = 8,
) -> np.ndarray:
    """Find how far each kind of match should be believed: the weights with the fewest bits on held-out text.

    Parameters
    ----------
    lengths, agreements
        (N,): of each token's match, before the token was known; lengths are 0 to max_length, agreements 0
        to 2. N may be 0.
    p_model, p_memory
        (N,): the probability that each gave to the token that came. The model's is above 0 and at most 1,
        the memory's from 0 to 1.
    max_length
        L, at least 1.

    Returns
    -------
    np.ndarray
        (L + 1, 3), float64, by length and agreement, each from 0 to less than 1. For the tokens of its kind,
        a weight w makes the sum of ``log((1 - w) p_model + w p_memory)`` as large as can be, with one more
        term for one more token that the memory did not know, ``log(1 - w)``. It is off by less than 1e-5. A
        kind that never came has 0.

    Raises
    ------
    ValueError
        When the four are not of the same length, or something is out of its range.

    Notes
    -----
    Each term is concave in w, so the sum has one maximum, and its slope falls: bisection of the slope cannot
    miss it. (EM has the same fixed point, and comes near it slowly.) The one more token keeps each weight
    below 1: a memory that was always right on 5 tokens can still be wrong on the next, and with w = 1 that
    token would be impossible.

    Examples
    --------
    >>> weights = fit_weights([2, 2, 2], [1, 1, 1], [0.1, 0.1, 0.1], [1.0, 1.0, 0.0], max_length=2)
    >>> round(weights[2, 1].item(), 3)  # the slope: 2 * 0.9 / (0.1 + 0.9 w) = 2 / (1 - w)
    0.444
    """
    rows, kinds = np.asarray(lengths), np.asarray(agreements)
    a, b = np.asarray(p_model, np.float64), np.asarray(p_memory, np.float64)
    if not rows.shape == kinds.shape == a.shape == b.shape:
        raise ValueError(f"all must be (N,); got {rows.shape}, {kinds.shape}, {a.shape}, {b.shape}")
    is_right = (rows >= 0) & (rows <= max_length) & (kinds >= 0) & (kinds < N_AGREEMENTS)
    is_right &= (a > 0) & (a <= 1) & (b >= 0) & (b <= 1)
    if max_length < 1 or not is_right.all():
        raise ValueError(
            "max_length must be at least 1, lengths 0 to that, agreements 0 to 2, probabilities 0 to 1, "
            f"the model's above 0; got max_length={max_length}, and {np.sum(~is_right)} tokens out of it"
        )
    n_cells = (max_length + 1) * N_AGREEMENTS
    cells = rows.astype(np.int64) * N_AGREEMENTS + kinds.astype(np.int64)
    low, high = np.zeros(n_cells), np.ones(n_cells)
    for _ in range(30):
        w = (low + high) / 2
        slope = np.bincount(cells, (b - a) / ((1 - w[cells]) * a + w[cells] * b), n_cells) - 1 / (1 - w)
        low, high = np.where(slope > 0, w, low), np.where(slope > 0, high, w)
    return low.reshape(max_length + 1, N_AGREEMENTS)


def propose(
    index: SuffixIndex | GrowingIndex,
    context: Sequence[int],
    n_most: int,
    weights: np.ndarray,
    at_least: float = 0.5,
) -> list[int]:
    """Draft how a text goes on, as far as the memory is to be believed.

    Parameters
    ----------
    index
        As for `longest_match`. The drafted tokens do not go into it.
    context
        The text so far, a list or an integer array. Not changed.
    n_most
        How many tokens to propose at most, at least 0.
    weights
        (L + 1, 3), from `fit_weights`; the matches are of at most L tokens.
    at_least
        How probable a proposed token must be, by the memory alone.

    Returns
    -------
    list of int
        Plain ``int``. Each is the most frequent follower of the longest match of the text and what was
        proposed before, the smallest of equally frequent ones. It is proposed if its share of the counts,
        times the weight for length and agreement, is `at_least` or more; the first that is not, or a text
        without a match, ends the draft.

    Raises
    ------
    ValueError
        When n_most is negative.

    Examples
    --------
    >>> weights = np.array([[0.0, 0.0, 0.0], [0.2, 0.4, 0.6], [0.3, 0.6, 0.8]])
    >>> propose(SuffixIndex([[5, 6, 5, 7, 8]]), [9, 6], 5, weights, at_least=0.4)  # from 5 on, two tokens
    [5, 7, 8]
    """
    if n_most < 0:
        raise ValueError(f"n_most must be at least 0; got {n_most}")
    text, n_known = [int(token) for token in context], len(context)
    while len(text) < n_known + n_most:
        length, counts = longest_match(index, text, len(weights) - 1)
        if not counts:
            break
        token = min(counts, key=lambda each: (-counts[each], each))
        share = counts[token] / sum(counts.values())
        if share * weights[length, agreement(counts)] < at_least:
            break
        text.append(token)
    return text[n_known:]


def _sorted_suffixes(tokens: np.ndarray) -> np.ndarray:
    """Return all places in the order of the tokens from there on.

    Ranks by n tokens make ranks by 2 n: of a place's first n tokens, then of the n that follow them.
    """
    ranks, n = np.unique(tokens, return_inverse=True)[1], 1
    while ranks.max(initial=-1) < len(ranks) - 1:  # some places still have the same rank
        after = np.zeros_like(ranks)  # beyond the end: before everything
        after[: max(0, len(ranks) - n)] = ranks[n:] + 1
        keys = ranks * (len(ranks) + 1) + after
        ranks, n = np.unique(keys, return_inverse=True)[1], 2 * n
    return np.argsort(ranks)


def _require_tokens(tokens: Sequence[int]) -> None:
    if any(token < 0 for token in tokens):
        raise ValueError(f"tokens must be at least 0; got {min(tokens)}")
