"""Each token takes a weighted average of the tokens before it, and chooses the weights itself.

Claim: looking something up can be made soft, and then it can be trained. A query is compared with every key,
the comparisons become weights that sum to 1, and the answer is the average of the values with these weights.

Idea: a dot product measures how well a query and a key agree. Divided by the square root of their width, its
spread does not depend on the width; softmax turns a row of such scores into weights. A key that may not be
seen gets the score -inf, and so exactly no weight and no gradient.

Legend: ``q`` queries (..., Q, D); ``k`` keys (..., K, D); ``v`` values (..., K, E); ``Q`` the number of
queries, ``K`` that of keys and values, ``D`` and ``E`` widths. The leading axes (samples, heads) broadcast.

Left out: dropout on the weights, and never holding all Q x K of them in memory (`flash_attention`).

Paper: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762
"""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, where


def causal_mask(n_queries: int, n_keys: int) -> np.ndarray:
    """Mark the keys that each query may see: those up to its own position.

    Parameters
    ----------
    n_queries
        The queries are those of the *last* positions: all of them in training, one new token when the keys
        and values of earlier ones are remembered.
    n_keys
        The number of positions. Both numbers may be 0.

    Returns
    -------
    np.ndarray
        Boolean, (n_queries, n_keys), new in each call; True where the key may be seen. The last query sees
        all keys, the one before it all but the last, and so on.

    Raises
    ------
    ValueError
        When there are more queries than keys.

    Examples
    --------
    >>> causal_mask(2, 4).astype(int).tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    if n_queries > n_keys:
        raise ValueError(
            f"each query must be at the position of a key; got {n_queries} queries, {n_keys} keys"
        )
    return np.arange(n_keys) <= np.arange(n_keys - n_queries, n_keys)[:, None]


def attention_weights(q: Tensor, k: Tensor, mask: np.ndarray | None = None) -> Tensor:
    """Compute how much of each value each query takes: the softmax of the scaled scores, over the keys.

    Parameters
    ----------
    q, k
        (..., Q, D) and (..., K, D), finite; K and D are at least 1. Scores may be of any size, as long as the
        products ``q @ k^T`` are finite: 1e4 must not overflow.
    mask
        A boolean array, True where a key may be seen, that broadcasts to (..., Q, K); it may have more
        leading axes than q and k. None if every key may be seen.

    Returns
    -------
    Tensor
        (..., Q, K), with all leading axes broadcast, of the dtype of q and k: of the more precise one, where
        these differ. A key that may not be seen has weight 0, exactly, whatever its score, and no gradient
        comes from there. The others of its row sum to 1. A row in which no key may be seen is all 0.
        Gradients flow to q and k, where these require them. The result is new, the arguments stay unchanged.

    Raises
    ------
    ValueError
        When the mask is not boolean, also if all of it is 0 or 1 (0 and -inf to be added is another
        convention); when the widths of q and k differ, also if one is 1; when leading axes do not broadcast,
        or the mask does not, also if there is one query or one key and the mask has more.

    Notes
    -----
    ``softmax(q @ k^T / sqrt(D))``, equation 1 of the paper.

    Examples
    --------
    >>> q, k = Tensor(np.array([[2.0, 0, 0, 0]])), Tensor(np.array([[math.log(3), 0, 0, 0], [0, 5, 0, 0]]))
    >>> attention_weights(q, k).data.round(3).tolist()  # scores 2 * log(3) / sqrt(4) and 0: 3 to 1
    [[0.75, 0.25]]
    """
    scores = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        if mask.dtype != bool:
            raise ValueError(f"a mask must be boolean, True where a key may be seen; got {mask.dtype}")
        if np.broadcast_shapes(mask.shape, scores.shape)[-2:] != scores.shape[-2:]:
            raise ValueError(f"a mask must broadcast to the scores, {scores.shape}; got {mask.shape}")
        scores = where(mask, scores, -math.inf)
    largest = scores.data.max(axis=-1, keepdims=True)
    # Constants: the weights do not depend on what is subtracted, so no gradient flows through it.
    exponentials = (scores - np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)).exp()
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / where(total.data > 0, total, 1.0)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: np.ndarray | None = None) -> Tensor:
    """Average the values, for each query with its own weights.

    Parameters
    ----------
    q, k, mask
        As for `attention_weights`.
    v
        (..., K, E): one value for each key, finite.

    Returns
    -------
    Tensor
        (..., Q, E), with all leading axes broadcast, of the dtype of the arguments: of the most precise one,
        where these differ. A query that may see no key gets 0. Gradients flow to q, k and v, where these
        require them. The result is new, the arguments stay unchanged.

    Raises
    ------
    ValueError
        As for `attention_weights`, and when there are not as many values as keys, also if one is 1.

    Examples
    --------
    >>> x = Tensor(np.array([[0.0, 0], [0, 0], [0, 0]]))  # equal scores: plain averages of what may be seen
    >>> attention(x, x, Tensor(np.array([[6.0], [2], [1]])), causal_mask(3, 3)).data.tolist()
    [[6.0], [4.0], [3.0]]
    """
    return attention_weights(q, k, mask) @ v
