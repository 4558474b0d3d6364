"""Guess a few tokens, let the model check them all in one call, and keep what it would have written itself.

Claim: decoding waits for memory: a call that reads eight tokens takes hardly longer than one that reads one.
So a guess of seven, even a poor one, is worth a try, if it is cheap. The text is not another one than the
model would have written, or, where tokens are drawn, has the same distribution.

Idea: a *draft* proposes tokens: what followed where the last tokens stood before (prompt lookup), or what
a small model draws. The model reads them in one call, which gives its distribution after each. From left to
right a token is kept or not; at the first that is not, the model's own takes its place, and the cache forgets
the rest. So each call gives at least one token, as without a draft.

Legend: ``k`` drafted tokens; ``V`` tokens in the vocabulary; ``p`` (k + 1, V) the model's probabilities at
each place, ``q`` (k, V) those with which the draft was drawn; ``u`` a uniform number.

Left out: a draft whose length adapts, trees of drafts, drafts from the model's own layers.

Papers: Leviathan et al. (2022), https://arxiv.org/abs/2211.17192; Chen et al. (2023),
https://arxiv.org/abs/2302.01318
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from techtree.techs.inference.kv_cache import KVCache, extend
from techtree.techs.inference.sampling import Sampling, distribution, draw
from techtree.techs.transformer.llama_block import Llama


def prompt_lookup(
    ids: Sequence[int],
    n_most: int,
    rng: np.random.Generator | None = None,
    shortest: int = 3,
    longest: int = 24,
) -> tuple[list[int], None]:
    """Propose what followed where the last tokens of a text stood before.

    Parameters
    ----------
    ids
        The text, a list or an integer array, of any length. Not changed.
    n_most
        How many tokens to propose at most, at least 0.
    rng
        Not used; it is there because every draft is given one.
    shortest, longest
        How many last tokens must have stood before, and how many are compared at most; 1 <= shortest <=
        longest.

    Returns
    -------
    tuple
        A list of plain ``int``, and None, since nothing was drawn. An *earlier place* is one before the end
        of the text whose preceding tokens are the last n of the text (they may overlap with these). For the
        largest n, at most `longest`, for which there is one, what follows at the latest of them: as many
        tokens as the text has there, at most `n_most`. An empty list if that n is below `shortest`.

    Raises
    ------
    ValueError
        When n_most is negative or ``1 <= shortest <= longest`` does not hold.

    Examples
    --------
    >>> prompt_lookup([1, 2, 3, 4, 5, 9, 1, 2, 3], n_most=2)
    ([4, 5], None)
    >>> prompt_lookup([7, 7, 7, 7], n_most=5)  # the latest place has one token to its right
    ([7], None)
    """
    if n_most < 0 or not 1 <= shortest <= longest:
        raise ValueError(
            f"n_most must be at least 0, and 1 <= shortest <= longest; got {n_most}, {shortest}, {longest}"
        )
    text = [int(each) for each in ids]
    best, found = shortest - 1, len(text)
    for place in range(len(text) - 1, 0, -1):  # the latest first
        n, most = 0, min(longest, place)
        while n < most and text[place - 1 - n] == text[-1 - n]:
            n += 1
        if n > best:
            best, found = n, place
    return text[found : found + n_most], None


def verify(
    drafted: Sequence[int], p: np.ndarray, rng: np.random.Generator, q: np.ndarray | None = None
) -> list[int]:
    """Keep the drafted tokens up to the first that is refused, and add one of the model's own.

    Parameters
    ----------
    drafted
        k tokens, k at least 0. Not changed.
    p
        (k + 1, V): row i is the model's distribution of the token at place i, if the drafted ones before it
        are right. A list of rows is fine. Not changed.
    rng
        For one number, ``rng.random()``, at a time, and nothing else.
    q
        None for tokens that were not drawn; otherwise (k, V), likewise: the distributions from which they
        were drawn, one after the other. Each drafted token has a probability above 0 there.

    Returns
    -------
    list of int
        1 to k + 1 plain ``int``. The tokens have exactly the distribution p, place by place.

        Without q: at each place, from left to right, a token is drawn from p with `draw`. It goes to the
        result; the first that is not the drafted one ends it. So does the one at place k.

        With q: at each place, from left to right, u is ``rng.random()``, and the drafted token is kept if
        u q < p, for its probabilities q and p there. The first that is not kept is replaced by a token that
        `draw` takes from the positive parts of p - q (from p, if rounding leaves no positive part), and ends
        the result. If all are kept, one more is drawn from the last row of p.

    Raises
    ------
    ValueError
        When p is not (k + 1, V), or q is neither None nor (k, V). Then `rng` is not called.

    Examples
    --------
    >>> rng = np.random.default_rng(0)  # its first numbers: 0.637, 0.270, 0.041
    >>> verify([1], [[0.5, 0.5], [1.0, 0.0]], rng, q=[[0.0, 1.0]])  # 0.637 * 1 is not below 0.5
    [0]
    >>> verify([0], [[0.5, 0.5], [1.0, 0.0]], rng)  # 0.041 draws 0: the drafted one
    [0, 0]
    """
    p = np.asarray(p, np.float64)
    if p.ndim != 2 or len(p) != len(drafted) + 1:
        raise ValueError(f"p must be (k + 1, V) for k = {len(drafted)} drafted tokens; got {p.shape}")
    if q is not None and np.shape(q) != (len(drafted), p.shape[1]):
        raise ValueError(f"q must have the shape {(len(drafted), p.shape[1])}; got {np.shape(q)}")
    tokens: list[int] = []
    for place, token in enumerate(drafted):
        if q is None:
            found = draw(p[place], rng)
            is_kept = found == token
        elif is_kept := bool(rng.random() * q[place][token] < p[place, token]):
            found = token
        else:
            rest = np.maximum(p[place] - q[place], 0)
            found = draw(rest if rest.any() else p[place], rng)
        tokens.append(int(found))
        if not is_kept:
            return tokens
    return [*tokens, draw(p[-1], rng)]


class ModelDraft:
    """A draft that a small model writes, token by token, with a cache of its own.

    Parameters
    ----------
    model
        A `Llama` with the vocabulary of the large model.
    settings
        How it draws. Those of the large model are best, but any are right.
    max_len
        How many tokens its texts may have, the drafted ones too.

    Examples
    --------
    >>> from techtree.techs.transformer.llama_block import LlamaConfig
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=1, n_heads=2, n_kv_heads=1)
    >>> draft = ModelDraft(Llama(config, np.random.default_rng(0)), Sampling(), max_len=20)
    >>> tokens, q = draft([3, 1, 4], 5, np.random.default_rng(0))
    >>> len(tokens), q.shape
    (5, (5, 11))
    """

    def __init__(self, model: Llama, settings: Sampling, max_len: int):
        self._model, self._settings = model, settings
        self._cache = KVCache(model.config, max_len, model.token_embedding.weight.dtype.type)
        self._read: list[int] = []

    def __call__(
        self, ids: Sequence[int], n_most: int, rng: np.random.Generator
    ) -> tuple[list[int], np.ndarray]:
        """Draw tokens that may follow a text.

        Parameters
        ----------
        ids
            The text, at least one token; any one, whatever the earlier ones were. Not changed.
        n_most
            How many tokens to draw, at least 0.
        rng
            For `draw`: one number for each token.

        Returns
        -------
        tuple
            The tokens, plain ``int``, each drawn from the model's `distribution` of all before it, those of
            `ids` too, by the settings; and these distributions, a new array (n_most, V) of float64.

        Raises
        ------
        ValueError
            When ids are empty or n_most is negative; as `extend` does. Later calls are right nevertheless.

        Notes
        -----
        What this text has in common with the last one, from the beginning, its drafted tokens too, is not
        read again, but for the last token of `ids`, which must be; the rest of `ids` is read in one
        `extend`, and each drafted token in one, but for the last of them. With n_most 0 nothing is read.
        """
        if not len(ids) or n_most < 0:
            raise ValueError(
                f"ids must not be empty, n_most not negative; got {len(ids)} ids, n_most={n_most}"
            )
        text, rows = [int(each) for each in ids], []
        for _ in range(n_most):
            rows.append(distribution(self._next_logits(text), text, self._settings))
            text.append(draw(rows[-1], rng))
        return text[len(ids) :], np.reshape(rows, (n_most, self._model.config.n_tokens))

    def _next_logits(self, text: list[int]) -> np.ndarray:
        """Read what is new in a text; return the logits after it."""
        n_common = 0
        while n_common < min(len(self._read), len(text) - 1) and self._read[n_common] == text[n_common]:
            n_common += 1
        self._cache.truncate(n_common)
        self._read = []  # should an error come
        logits = extend(self._model, self._cache, text[n_common:])
        self._read = text[:]
        return logits[-1]


def generate_speculative(
    model: Llama,
    ids: Sequence[int],
    n_new: int,
    settings: Sampling,
    rng: np.random.Generator,
    draft: Callable[[Sequence[int], int, np.random.Generator], tuple[list[int], np.ndarray | None]],
    n_draft: int = 7,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Continue a text as `generate_cached` does, but let a draft propose, and the model verify.

    Parameters
    ----------
    model, ids, n_new, settings, rng, stop
        As for `generate_cached`.
    draft
        ``draft(text, n_most, rng)`` is asked in each round with all tokens so far, as a list or array, and
        the same `rng`. It returns at most n_most tokens, and q as `verify` takes it: None, or (k, V).
    n_draft
        How many tokens to draft at most, at least 0.

    Returns
    -------
    Iterator[int]
        The new tokens alone, plain ``int``. They have the distribution of those of `generate_cached`. With
        drafts that give no q and leave `rng` alone they are the same tokens, for an `rng` in the same
        state; and as many numbers of it are used, if no token stops.

    Raises
    ------
    ValueError
        As `generate_cached` does; when n_draft is negative. At the latest when the first token is asked for.

    Notes
    -----
    A round is asked for when the token is that follows those of the last one. n_most is `n_draft`, or less
    by what remains: the tokens still to give, less 1. The model reads in one `extend` all tokens that it has
    not read yet (in the first round all of `ids`) and the drafted ones; p are the `distribution` after each,
    for the text with the drafted tokens before it. The result of `verify` is given token by token; the cache
    forgets what was refused. A token in `stop` ends the text: it is not given, nor is anything after it. In a
    draft it is verified like any other.
    """
    if not len(ids) or n_new < 0 or n_draft < 0:
        raise ValueError(
            "ids must not be empty, n_new and n_draft not negative; "
            f"got {len(ids)} ids, n_new={n_new}, n_draft={n_draft}"
        )
    text = [int(each) for each in ids]
    end = len(text) + n_new
    cache = KVCache(model.config, end, model.token_embedding.weight.dtype.type)
    while len(text) < end:
        drafted, q = draft(text, min(n_draft, end - len(text) - 1), rng)
        logits = extend(model, cache, [*text[cache.length :], *drafted])[-1 - len(drafted) :]
        p = [distribution(row, [*text, *drafted[:n]], settings) for n, row in enumerate(logits)]
        tokens = verify(drafted, np.array(p), rng, q)
        cache.truncate(len(text) + len(tokens) - 1)
        for token in tokens:
            if token in stop:
                return
            text.append(token)
            yield token


def acceptance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Compute with which probability `verify` keeps a token that was drawn from q.

    Parameters
    ----------
    p, q
        (..., V): distributions of the same shape.

    Returns
    -------
    np.ndarray
        (...), float64: the sum of the smaller ones of p and q; 1 if they are equal, 0 if no token can come
        from both.

    Raises
    ------
    ValueError
        When the shapes differ, or have no axis.

    Examples
    --------
    >>> float(acceptance(np.array([0.5, 0.5]), np.array([0.25, 0.75])))
    0.75
    """
    if np.shape(p) != np.shape(q) or not np.ndim(p):
        raise ValueError(f"p and q must both have the shape (..., V); got {np.shape(p)} and {np.shape(q)}")
    return np.minimum(p, q).sum(axis=-1, dtype=np.float64)


def tokens_per_call(rate: float, n_draft: int) -> float:
    """Compute how many tokens a call of the model gives on average.

    Parameters
    ----------
    rate
        With which probability each drafted token is kept if those before it were, from 0 to 1.
    n_draft
        k, how many are drafted, at least 0.

    Returns
    -------
    float
        1 + rate + rate**2 + ... + rate**k: the model's own token, and each drafted one if it and all before
        it are kept.

    Raises
    ------
    ValueError
        When rate is not from 0 to 1, or n_draft is negative.

    Examples
    --------
    >>> tokens_per_call(0.5, 2), tokens_per_call(1.0, 7)
    (1.75, 8.0)
    """
    if not 0 <= rate <= 1 or n_draft < 0:
        raise ValueError(f"rate must be from 0 to 1, n_draft at least 0; got {rate} and {n_draft}")
    return float(sum(rate**n for n in range(n_draft + 1)))
