"""Keys and values of the text are kept, so that the next token costs one token, and not the whole text again.

Claim: a token of a causal model sees only what stands before it, so nothing that comes later changes what
was computed for it. Of all that, later tokens look at keys and values alone. Whoever keeps these gets the
same logits for one token's work; what grows with the text is memory, and what has to be read of it.

Idea: one array of keys and one of values for each layer, with room for a whole text. New tokens go through
the layers alone; in each, their keys, rotated by their positions, and values are written behind the old ones,
and their queries look at all of them. One new token or a thousand: the same function reads a prompt at once
(*prefill*) and continues it token by token (*decode*).

Legend: ``T`` new tokens, ``S`` all tokens so far, the new ones too; ``H`` heads of queries, ``K`` of keys and
values, each of width ``D``.

Left out: several texts at once (`batching`), forgetting what has left a window, keys in fewer bits.

Papers: Shazeer (2019), https://arxiv.org/abs/1911.02150; Pope et al. (2022), https://arxiv.org/abs/2211.05102
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling, distribution, draw
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.llama_block import Llama, LlamaAttention, LlamaConfig
from techtree.techs.transformer.mha import merge_heads, split_heads
from techtree.techs.transformer.rope import rotate, rotation


class KVCache:
    """Room for the keys and values of one text, in all layers of a model.

    Parameters
    ----------
    config
        The shape of the model.
    max_len
        How many tokens fit, a whole number (``int``, no boolean) of at least 1; ``ValueError`` otherwise.
    dtype
        In which keys and values are kept.

    Attributes
    ----------
    config, max_len
        As given.
    length
        How many tokens it holds; 0 at first.
    keys, values
        (n_layers, K, max_len, D), each an array of its own, of the dtype, made once: they stay the same
        objects. What stands at places from `length` on means nothing. These two and `length` are all that
        is kept of a text: whoever copies them to another cache can go on with the text there.

    Examples
    --------
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=3, n_heads=4, n_kv_heads=2)
    >>> cache = KVCache(config, max_len=100)
    >>> cache.length, cache.keys.shape
    (0, (3, 2, 100, 2))
    """

    def __init__(self, config: LlamaConfig, max_len: int, dtype: type = np.float64):
        if type(max_len) is not int or max_len < 1:
            raise ValueError(f"max_len must be a whole number of at least 1; got {max_len!r}")
        assert config.head_width is not None
        shape = (config.n_layers, config.n_kv_heads, max_len, config.head_width)
        self.config, self.max_len, self.length = config, max_len, 0
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``: from 0 to what it holds, ``ValueError`` otherwise."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        self.length = length


def extend(model: Llama, cache: KVCache, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Read more tokens of a text, and keep their keys and values.

    Parameters
    ----------
    model
        Its parts are used as they are; the feed-forward part of a block may be any module. Each is asked
        once, for the T new tokens and no others.
    cache
        Of a text; made for ``model.config``. Its tokens are the ones before `ids`, and stay as they are; the
        new ones go to the places from ``cache.length`` on, which grows by T.
    ids
        T tokens, T at least 1: a list, or an array of any integer dtype. Not changed.

    Returns
    -------
    np.ndarray
        (T, n_tokens), a new plain array of the dtype of the model's parameters: the logits that ``model``
        gives for the whole text, at the places of the new tokens. However a text is cut into calls, the
        logits are the same up to rounding. Nothing is recorded for gradients.

    Raises
    ------
    ValueError
        When ids are empty, have not one axis, are no integers, or one is negative or not below n_tokens; when
        fewer than T places are free; when the cache was made for another config. Then, as after any other
        error, the cache's length and tokens are as they were.

    Notes
    -----
    Keys and values are kept in the dtype of the cache, keys after their norm, if there is one, and their
    rotation, one for each of the K heads. Attention reads them all from there, those of the new tokens too,
    so what a narrow dtype rounds away does not depend on the cuts; it computes in the model's dtype.

    Examples
    --------
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=1, n_heads=2, n_kv_heads=1)
    >>> model, cache = Llama(config, np.random.default_rng(0)), KVCache(config, max_len=9)
    >>> prefill, decode = extend(model, cache, [3, 1, 4, 1]), extend(model, cache, [5])
    >>> prefill.shape, decode.shape, cache.length
    ((4, 11), (1, 11), 5)
    >>> bool(np.allclose(decode, model(np.array([3, 1, 4, 1, 5])).data[-1:]))
    True
    """
    new = np.asarray(ids)
    if new.ndim != 1 or not new.size:
        raise ValueError(f"ids must have the shape (T,), T at least 1; got {new.shape}")
    if cache.config != model.config:
        raise ValueError(f"the cache must be made for {model.config}; it was made for {cache.config}")
    end = cache.length + len(new)
    if end > cache.max_len:
        raise ValueError(
            f"a cache of max_len={cache.max_len} that holds {cache.length} tokens has no room for {len(new)} "
            "more: make a longer one, or truncate it"
        )
    mask = causal_mask(len(new), end)  # (T, S)
    if model.config.window is not None:
        mask &= ~np.tri(len(new), end, end - len(new) - model.config.window, dtype=bool)
    with no_grad():
        x = model.token_embedding(new)
        for layer, block in enumerate(model.blocks):
            x = x + _attend(block.attention, block.attention_norm(x), mask, cache, layer)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        x = model.norm(x)
        logits = model.token_embedding.unembed(x) if model.head is None else model.head(x)
    cache.length = end  # only now: an error before this line leaves the text as it was
    return logits.data


def _attend(part: LlamaAttention, x: Tensor, mask: np.ndarray, cache: KVCache, layer: int) -> Tensor:
    """Compute what `LlamaAttention` does, for new tokens (T, W) that also see those in the cache."""
    config, (n_new, n_all) = part.config, mask.shape
    q = split_heads(part.query(x), config.n_heads)
    k, v = (split_heads(each(x), config.n_kv_heads) for each in (part.key, part.value))
    if part.query_norm is not None and part.key_norm is not None:
        q, k = part.query_norm(q), part.key_norm(k)
    turn = rotation(np.arange(n_all - n_new, n_all), q.shape[-1], config.base, config.scaling)
    place = np.s_[layer, :, n_all - n_new : n_all]
    cache.keys[place], cache.values[place] = rotate(k, *turn).data, v.data
    # No copy is made where the dtypes agree: reading all of it is dear enough.
    k, v = (Tensor(np.asarray(each[layer, :, :n_all], x.dtype)) for each in (cache.keys, cache.values))
    return part.output(merge_heads(grouped_attention(rotate(q, *turn), k, v, mask)))


def generate_cached(
    model: Llama,
    ids: Sequence[int],
    n_new: int,
    settings: Sampling,
    rng: np.random.Generator,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """Continue a text as `sampling.generate` does, with the same tokens, but read each token once.

    Parameters
    ----------
    model, ids, n_new, settings, rng, stop
        As for `sampling.generate`. The model reads `ids` in one `extend`, when the first token is asked for,
        then each new token in one, when the next one is asked for; the last one, or one that stops, is
        not read.

    Returns
    -------
    Iterator[int]
        The new tokens alone, those of `sampling.generate` for an `rng` in the same state, of which as many
        numbers are used. The cache is of the dtype of the model's parameters.

    Raises
    ------
    ValueError
        As `sampling.generate` and `extend` do.
    """
    if not len(ids) or n_new < 0:
        raise ValueError(f"ids must not be empty, n_new not negative; got {len(ids)} ids, n_new={n_new}")
    text = [int(each) for each in ids]
    cache = KVCache(model.config, len(text) + n_new, model.token_embedding.weight.dtype.type)
    unread = text
    for _ in range(n_new):
        logits = extend(model, cache, unread)[-1]
        token = draw(distribution(logits, text, settings), rng)
        if token in stop:
            return
        text.append(token)
        unread = [token]
        yield token
