"""Attention tile by tile: the same answer and gradients, and no array with an entry for each pair of tokens.

Claim: the average of the values with softmax weights can be computed from parts of the keys, one after the
other, without knowing the largest score or the sum in advance. The result is exact, not an approximation.

Idea: keep, for each query, the largest score so far, the sum of exp(score - largest), and the sum of the
values with these weights. When a larger score comes, what was summed before is multiplied by
exp(old largest - new largest), and goes on as if that score had been known from the start. The backward pass
does not remember the weights either: it computes the scores again, tile by tile, and needs one number for
each query, the logarithm of the sum of the exponentials of its scores.

Legend: ``q`` queries (..., Q, D); ``k`` keys (..., K, D); ``v`` values (..., K, E); a *tile* is what
``tile_q`` neighbouring queries see of ``tile_k`` neighbouring keys. The leading axes broadcast.

Left out: dropout on the weights; tiles for the fast memory of a GPU, whose sizes come from there.

Paper: Dao et al. (2022), https://arxiv.org/abs/2205.14135
"""

import math
from collections.abc import Iterator

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record


def tiles(
    n_queries: int, n_keys: int, is_causal: bool = False, tile_q: int = 64, tile_k: int = 64
) -> Iterator[tuple[slice, slice]]:
    """Name the tiles that have to be computed.

    Parameters
    ----------
    n_queries, n_keys
        How many there are; both may be 0.
    is_causal
        Whether a query sees only the keys up to its own position. The queries are those of the *last*
        positions, as in `causal_mask`: the last query sees all keys, the one before it all but the last.
    tile_q, tile_k
        How many queries and keys a tile has, at least 1. Tiles begin at query 0, ``tile_q``, 2 ``tile_q`` and
        so on, and at key 0, ``tile_k``, ...; the last ones are smaller where the numbers do not fit.

    Returns
    -------
    Iterator[tuple[slice, slice]]
        The queries and the keys of each tile, as ``slice(start, stop)`` with stops of at most ``n_queries``
        and ``n_keys``: for the first queries all tiles of keys in ascending order, then for the next ones.
        With ``is_causal``, tiles in which no query sees any key are left out.

    Raises
    ------
    ValueError
        At the call: when a tile's size is less than 1; with ``is_causal``, when there are more queries than
        keys.

    Examples
    --------
    >>> [(q.start, q.stop, k.start, k.stop) for q, k in tiles(3, 3, is_causal=True, tile_q=2, tile_k=2)]
    [(0, 2, 0, 2), (2, 3, 0, 2), (2, 3, 2, 3)]
    """
    if tile_q < 1 or tile_k < 1:
        raise ValueError(f"a tile needs at least one query and one key; got {tile_q} and {tile_k}")
    if is_causal and n_queries > n_keys:
        raise ValueError(
            f"each query must be at the position of a key; got {n_queries} queries, {n_keys} keys"
        )
    ahead = n_keys - n_queries  # what even the first query has before it
    return (
        (slice(first, last), slice(start, min(start + tile_k, n_keys)))
        for first in range(0, n_queries, tile_q)
        for last in [min(first + tile_q, n_queries)]
        for start in range(0, last + ahead if is_causal else n_keys, tile_k)
    )


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    is_causal: bool = False,
    mask: np.ndarray | None = None,
    tile_q: int = 64,
    tile_k: int = 64,
) -> Tensor:
    """Average the values, for each query with its own weights, as `attention` does, one of `tiles` at a time.

    Parameters
    ----------
    q, k, v
        (..., Q, D), (..., K, D) and (..., K, E), finite; K and D are at least 1. Scores may be of any size,
        as long as the products ``q @ k^T`` are finite: 1e4 must not overflow.
    is_causal
        Whether query i, of the last Q positions, sees only keys up to i + K - Q.
    mask
        A boolean array, True where a key may be seen, that broadcasts to (..., Q, K); it may have more
        leading axes than q and k. None if every key may be seen. With ``is_causal`` both must allow a key.
    tile_q, tile_k
        As for `tiles`. They change the result by rounding only.

    Returns
    -------
    Tensor
        (..., Q, E): what ``attention(q, k, v, mask)`` gives, up to rounding, with all leading axes broadcast,
        of the dtype of the arguments: of the most precise one, where these differ. A query that may see no
        key gets 0. Gradients flow to q, k and v, where these require them; from where nothing may be seen
        comes exactly none. The result is new, the arguments stay unchanged.

    Raises
    ------
    ValueError
        When the mask is not boolean, also if all of it is 0 or 1; when the widths of q and k differ, or the
        numbers of keys and values, also if one is 1; when leading axes do not broadcast, or the mask
        does not, also if there is one query or one key and the mask has more; and as for `tiles`.

    Notes
    -----
    Tiles that `tiles` leaves out are not looked at, forward and backward: there a key, a value, a query, or
    the gradient of a result may even be NaN, and harms nothing that depends on other tiles alone.

    Memory, in numbers of float64: beyond the arguments, result and gradients included, forward and backward
    each hold at most 12 times as many as one each of q, k, v and the result has with all leading axes, and 12
    tiles (..., tile_q, tile_k). From the forward to the backward pass at most two numbers are kept for each
    query, besides the arguments and the result.

    Examples
    --------
    >>> x = Tensor(np.array([[0.0, 0], [0, 0], [0, 0]]))  # equal scores: plain averages of what may be seen
    >>> flash_attention(x, x, Tensor([[6.0], [2], [1]]), is_causal=True, tile_q=2, tile_k=1).data.tolist()
    [[6.0], [4.0], [3.0]]
    """
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    every = n_queries, n_keys, is_causal, tile_q, tile_k
    tiles(*every)  # raises here if the sizes are no good
    if mask is not None and mask.dtype != bool:
        raise ValueError(f"a mask must be boolean, True where a key may be seen; got {mask.dtype}")
    if q.shape[-1] != k.shape[-1] or v.shape[-2] != n_keys:
        raise ValueError(f"widths, or keys and values, do not fit: {q.shape}, {k.shape}, {v.shape}")
    mask_shape = () if mask is None else mask.shape
    scored = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], mask_shape[:-2])  # leading axes of the scores
    leading = np.broadcast_shapes(scored, v.shape[:-2])
    if np.broadcast_shapes(mask_shape[-2:], (n_queries, n_keys)) != (n_queries, n_keys):
        raise ValueError(f"a mask must broadcast to {(n_queries, n_keys)}; got {mask_shape}")
    seen = None if mask is None else np.broadcast_to(mask, (*mask_shape[:-2], n_queries, n_keys))
    dtype = np.result_type(q.dtype, k.dtype, v.dtype)
    work = np.result_type(dtype, np.float32)  # sums in float16 would lose digits with each tile
    factor = 1 / math.sqrt(q.shape[-1])

    def part(x: np.ndarray, rows: slice) -> np.ndarray:
        return x[..., rows, :].astype(work, copy=False)

    def scores(rows: slice, columns: slice) -> np.ndarray:
        s = part(q.data, rows) @ part(k.data, columns).swapaxes(-1, -2) * factor
        if is_causal:
            position = np.arange(rows.start, rows.stop)[:, None] + n_keys - n_queries
            s = np.where(np.arange(columns.start, columns.stop) <= position, s, -math.inf)
        return s if seen is None else np.where(seen[..., rows, columns], s, -math.inf)

    largest = np.full((*scored, n_queries, 1), -math.inf, work)
    total = np.zeros((*scored, n_queries, 1), work)
    out = np.zeros((*leading, n_queries, v.shape[-1]), work)
    for rows, columns in tiles(*every):
        s = scores(rows, columns)
        old = largest[..., rows, :]
        new = np.maximum(old, s.max(axis=-1, keepdims=True))
        known = np.where(new == -math.inf, 0, new)  # nothing seen so far: any finite number will do
        e, shrink = np.exp(s - known), np.exp(old - known)
        total[..., rows, :] = total[..., rows, :] * shrink + e.sum(axis=-1, keepdims=True)
        out[..., rows, :] = out[..., rows, :] * shrink + e @ part(v.data, columns)
        largest[..., rows, :] = new
    is_blind = total == 0
    total[is_blind] = 1
    out /= total
    out = out.astype(dtype, copy=False)
    largest[is_blind] = math.inf  # exp(score - inf) is 0
    log_sum = largest + np.log(total)
    del largest, total

    def weights(rows: slice, columns: slice) -> np.ndarray:
        return np.exp(scores(rows, columns) - log_sum[..., rows, :])

    def of_scores(g: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the gradient of a tile of scores, before their factor: p * (dp - sum(p * dp))."""
        g_rows = part(g, rows)
        average = (g_rows * out[..., rows, :]).sum(axis=-1, keepdims=True)  # the sum over all tiles of p * dp
        return weights(rows, columns) * (g_rows @ part(v.data, columns).swapaxes(-1, -2) - average) * factor

    def to_q(g: np.ndarray) -> np.ndarray:
        found = np.zeros((*leading, *q.shape[-2:]), work)
        for rows, columns in tiles(*every):
            found[..., rows, :] += of_scores(g, rows, columns) @ part(k.data, columns)
        return found

    def to_k(g: np.ndarray) -> np.ndarray:
        found = np.zeros((*leading, *k.shape[-2:]), work)
        for rows, columns in tiles(*every):
            found[..., columns, :] += of_scores(g, rows, columns).swapaxes(-1, -2) @ part(q.data, rows)
        return found

    def to_v(g: np.ndarray) -> np.ndarray:
        found = np.zeros((*leading, *v.shape[-2:]), work)
        for rows, columns in tiles(*every):
            found[..., columns, :] += weights(rows, columns).swapaxes(-1, -2) @ part(g, rows)
        return found

    return record(out, (q, to_q), (k, to_k), (v, to_v))
