"""Attention in which several heads share the same keys and values.

Claim: while a text is continued, the keys and values of all earlier tokens must be kept and read for each new
one. Heads that share them need a fraction of that memory, and lose little, since they still ask different
questions.

Idea: H query heads and K heads of keys and values, H a multiple of K. Neighbouring query heads form a group:
heads 0 to H / K - 1 use key head 0, and so on. As an axis of queries knows nothing of heads, the queries of a
group can stand one below the other, and the key head is used where it lies. K = H is multi-head attention,
K = 1 multi-query attention.

Legend: ``x`` (..., T, W) tokens; ``q`` queries (..., H, T, D); ``k`` keys (..., K, S, D); ``v`` values
(..., K, S, E); ``T`` and ``S`` numbers of tokens, ``D`` the width of a head. The leading axes are samples.

Left out: keeping the keys (`kv_cache`), positions (`rope`), making few key heads from many after training.

Papers: Shazeer (2019), https://arxiv.org/abs/1911.02150; Ainslie et al. (2023), https://arxiv.org/abs/2305.13245
"""

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import attention
from techtree.techs.transformer.mha import merge_heads, split_heads


def repeat_heads(x: Tensor, n_heads: int) -> Tensor:
    """Give each query head its own copy of the key (or value) head that it uses: the slow, obvious way.

    Parameters
    ----------
    x
        (..., K, T, D), K at least 1, with any leading axes or none.
    n_heads
        H, at least 1, a multiple of K.

    Returns
    -------
    Tensor
        (..., H, T, D), new, of x's dtype: key head 0 for the first H / K query heads, key head 1 for the
        next, and so on. Gradients flow to x.

    Raises
    ------
    ValueError
        When x has fewer than three axes, or K or H is less than 1, or H is not a multiple of K.

    Examples
    --------
    >>> repeat_heads(Tensor([[[1.0]], [[2.0]]]), 4).data.tolist()
    [[[1.0]], [[1.0]], [[2.0]], [[2.0]]]
    """
    n_shared = _n_shared(x, n_heads)
    *leading, n_kv_heads, n_tokens, width = x.shape
    groups = (*leading, n_kv_heads, n_shared, n_tokens, width)
    return record(np.repeat(x.data, n_shared, axis=-3), (x, lambda g: g.reshape(groups).sum(axis=-3)))


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: np.ndarray | None = None) -> Tensor:
    """Let each query head attend to the key head of its group, without copying keys or values.

    Parameters
    ----------
    q
        (..., H, T, D), finite; T may be 0.
    k, v
        (..., K, S, D) and (..., K, S, E), finite; S is at least 1, K at least 1 and a divisor of H.
    mask
        Boolean, True where the query may see the key: it broadcasts to (..., T, S), whose leading axes are
        those before the heads; it may have more of them than q. It is the same for all heads. None if
        every query sees all keys.

    Returns
    -------
    Tensor
        (..., H, T, E), with all leading axes broadcast, new, of the dtype of the arguments: what `attention`
        gives for q and the keys and values of `repeat_heads`. A query that may see no key gets 0. The
        forward pass holds no array as large as repeated keys or values. Gradients flow to q, k and v.

    Raises
    ------
    ValueError
        When q, k or v has fewer than three axes, or no head; when k and v differ in K, also if one is 1, or
        H is no multiple of it; and as `attention` does: widths of q and k that differ, not as many values as
        keys, a mask that is not boolean or does not fit, also if it is longer than one query or one key,
        leading axes that do not broadcast.

    Examples
    --------
    >>> q, k = Tensor(np.zeros((2, 1, 1))), Tensor(np.zeros((1, 2, 1)))  # 2 query heads, 1 key head, 2 keys
    >>> grouped_attention(q, k, Tensor([[[3.0], [5.0]]])).data.tolist()
    [[[4.0]], [[4.0]]]
    """
    if q.ndim < 3:
        raise ValueError(f"q must have the shape (..., H, T, D); got {q.shape}")
    *leading, n_heads, n_queries, width = q.shape
    n_shared = _n_shared(k, n_heads)
    _n_shared(v, n_heads)
    n_kv_heads, n_keys = k.shape[-3:-1]
    if v.shape[-3] != n_kv_heads:
        raise ValueError(f"k and v must have the same number of heads; got {n_kv_heads} and {v.shape[-3]}")
    if mask is not None:
        mask = np.asarray(mask)
        shape = np.broadcast_shapes(mask.shape, (n_queries, n_keys))
        if shape[-2:] != (n_queries, n_keys):
            raise ValueError(f"a mask must broadcast to {(n_queries, n_keys)}; got {mask.shape}")
        # For the queries of a group, which stand one below the other; one axis for the key heads.
        mask = np.concatenate([np.broadcast_to(mask, shape)] * n_shared, axis=-2)[..., None, :, :]
    below = q.reshape(*leading, n_kv_heads, n_shared * n_queries, width)
    answer = attention(below, k, v, mask)  # (..., K, H / K * T, E)
    return answer.reshape(*answer.shape[:-3], n_heads, n_queries, v.shape[-1])


class GroupedQueryAttention(Module):
    """Self-attention whose query heads share heads of keys and values.

    Parameters
    ----------
    width
        W, of the tokens that come in and go out.
    n_heads
        H, of the queries, at least 1.
    n_kv_heads
        K, of keys and of values, at least 1, a divisor of H.
    rng
        Draws the four weights, in the order of the attributes; the only source of randomness.
    head_width
        D, at least 1. None: W / H, which must then be a whole number.
    has_bias
        Whether the four layers have biases.
    gain
        Of the output layer's weight, as for `Linear`; 0 makes a module that starts as the constant 0.
    dtype
        Of all parameters.

    Attributes
    ----------
    query, key, value, output
        `Linear` layers from W to H D, from W to K D, from W to K D, from H D to W; the module's first, in
        this order.
    n_heads, n_kv_heads
        H and K.

    Raises
    ------
    ValueError
        When H, K or D is less than 1, H is not a multiple of K, or D is left out and H does not divide W.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        n_kv_heads: int,
        rng: np.random.Generator,
        head_width: int | None = None,
        has_bias: bool = False,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        _check_heads(n_heads, n_kv_heads)
        if head_width is None:
            if width % n_heads:
                raise ValueError(f"n_heads must divide the width; got {n_heads} heads of {width}")
            head_width = width // n_heads
        if head_width < 1:
            raise ValueError(f"head_width must be at least 1; got {head_width}")
        self.query = Linear(width, n_heads * head_width, rng, has_bias, dtype=dtype)
        self.key = Linear(width, n_kv_heads * head_width, rng, has_bias, dtype=dtype)
        self.value = Linear(width, n_kv_heads * head_width, rng, has_bias, dtype=dtype)
        self.output = Linear(n_heads * head_width, width, rng, has_bias, gain, dtype)
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads

    def forward(self, x: Tensor, mask: np.ndarray | None = None) -> Tensor:
        """Let every token look at the tokens that it may see.

        Parameters
        ----------
        x
            (..., T, W), with any leading axes or none; T is at least 1.
        mask
            Boolean, True where the token of the row may see that of the column: (T, T), or (..., T, T) with
            leading axes that broadcast against those of x. It is the same for all heads. None if every
            token sees all.

        Returns
        -------
        Tensor
            (..., T, W): the heads of the query layer, through `grouped_attention` with those of the key and
            value layers, beside each other through the output layer. A token that may see none gets the
            output layer's bias. Gradients flow to x and the parameters.

        Raises
        ------
        ValueError
            As `Linear` and `attention` do: a last axis that is not W, a mask that is not boolean or does not
            fit; also when x has fewer than two axes.
        """
        q = split_heads(self.query(x), self.n_heads)
        k, v = (split_heads(layer(x), self.n_kv_heads) for layer in (self.key, self.value))
        return self.output(merge_heads(grouped_attention(q, k, v, mask)))


def _n_shared(x: Tensor, n_heads: int) -> int:
    """Return how many query heads share a head of keys or values."""
    if x.ndim < 3:
        raise ValueError(f"keys and values must have the shape (..., K, T, D); got {x.shape}")
    _check_heads(n_heads, x.shape[-3])
    return n_heads // x.shape[-3]


def _check_heads(n_heads: int, n_kv_heads: int) -> None:
    if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
        raise ValueError(
            f"heads must be a multiple of key and value heads, at least 1; got {n_heads} and {n_kv_heads}"
        )
