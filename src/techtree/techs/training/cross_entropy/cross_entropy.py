"""The loss of a model that predicts one of many: the surprise at what came.

Claim: softmax, logarithm, choice and average are each easy and together fragile. As one operation they have a
value that never overflows and the simplest gradient there is: what was predicted minus what came.

Idea: subtract the largest logit, take the logarithm of the sum of exponentials, and never that of a
probability. The backward pass computes the probabilities anew, so that nothing large is kept for it.

Legend: ``n_classes`` the number of classes, for a language model its vocabulary; a *token* is one row of
logits with its target; ``p`` the softmax of a row; a token *counts* if its target is not ``ignore_index``.

Left out: weights of classes, smoothed or uncertain targets, and logits that are never all in memory.

Paper: Bridle (1990), https://doi.org/10.1007/978-3-642-76153-9_28
"""

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record


def cross_entropy(
    logits: Tensor, targets: np.ndarray, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Compute ``-log(softmax(logits)[target])`` for each token, in nats, and reduce it.

    Parameters
    ----------
    logits
        (..., n_classes), with any leading axes or none, and at least one class; in float16 at most 10,000.
        Finite, also of size 1e4 and far apart: nothing overflows, and no probability is too small. Not
        changed.
    targets
        (...): an integer for each token, of any integer dtype; a class from 0 to n_classes - 1, or
        ``ignore_index``. Not changed.
    ignore_index
        Any integer, also one that is a class. A token with this target does not count: it has the loss 0
        and the gradient 0 whatever its logits are, even infinite or NaN.
    reduction
        ``"mean"``: the sum over the tokens that count, divided by *their* number; 0 if none counts. It is
        right for float16, too, where the sum is beyond that dtype.
        ``"sum"``: that sum. ``"none"``: the loss of each token.

    Returns
    -------
    Tensor
        Of the dtype of ``logits``; of shape ``()``, or that of ``targets`` for ``"none"``.

    Raises
    ------
    ValueError
        When ``logits`` has no axis or no class, the shape of ``targets`` is not that of ``logits`` without
        the last axis, its dtype is not one of integers (booleans are none), a target is neither a class nor
        ``ignore_index`` (-1 is not the last class), or ``reduction`` is another word.

    Notes
    -----
    The gradient of a token's loss is ``p - onehot(target)``, divided by the number of tokens that count for
    ``"mean"``. Between the two passes at most two arrays of the size of ``logits`` are kept, besides
    ``logits.data`` itself.

    Examples
    --------
    >>> logits = Tensor(np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]), requires_grad=True)
    >>> loss = cross_entropy(logits, np.array([2, 0]))  # log(8 / 5) and log(4), of which the mean is
    >>> loss.backward()
    >>> round(float(loss.data), 6), logits.grad.round(6).tolist()  # predicted minus what came, over 2
    (0.928149, [[0.0625, 0.125, -0.1875], [-0.375, 0.125, 0.25]])
    """
    x, targets = logits.data, np.asarray(targets)
    _check(x, targets, ignore_index, reduction)
    counts = targets != ignore_index
    chosen = np.where(counts, targets, 0).astype(np.intp)[..., None]
    n = max(int(counts.sum()), 1) if reduction == "mean" else 1

    def shifted() -> (
        np.ndarray
    ):  # the logits minus the largest of their row; 0 where the token does not count
        rows = np.where(counts[..., None], x, 0)
        return rows - rows.max(axis=-1, keepdims=True)

    z = shifted()
    log_sum = np.log(np.exp(z).sum(axis=-1, keepdims=True))
    losses = (log_sum - np.take_along_axis(z, chosen, axis=-1))[..., 0] * counts
    value = losses if reduction == "none" else losses.sum(dtype=np.float64) / n

    def pull_back(g: np.ndarray) -> np.ndarray:
        p = shifted()
        p -= log_sum
        np.exp(p, out=p)
        np.put_along_axis(p, chosen, np.take_along_axis(p, chosen, axis=-1) - 1, axis=-1)
        p *= (np.asarray(g, np.float64) * counts / n)[..., None]
        return p

    return record(np.asarray(value, x.dtype), (logits, pull_back))


def _check(x: np.ndarray, targets: np.ndarray, ignore_index: int, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"logits must have a last axis of at least one class; got the shape {x.shape}")
    if targets.shape != x.shape[:-1]:
        raise ValueError(
            f"targets must have the shape {x.shape[:-1]}, one for each row of logits; got {targets.shape}"
        )
    if targets.dtype.kind not in "iu":
        raise ValueError(f"targets must be integers, the numbers of classes; got dtype {targets.dtype}")
    is_wrong = (targets != ignore_index) & ((targets < 0) | (targets >= x.shape[-1]))
    if is_wrong.any():
        raise ValueError(
            f"each target must be a class from 0 to {x.shape[-1] - 1}, or ignore_index={ignore_index}; "
            f"got {targets[is_wrong][0]}"
        )
