"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, einsum, record, where


def _softmax(scores, axis=-1):
    """A right softmax, so that only what is done before and after it is wrong."""
    exponentials = (scores - scores.data.max(axis=axis, keepdims=True)).exp()
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def _scores(q, k, mask=None):
    if mask is not None and mask.dtype != bool:
        raise ValueError("a mask must be boolean")
    return q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]))


def _masked_after_softmax(q, k, mask=None):
    weights = _softmax(_scores(q, k, mask))
    return weights if mask is None else where(mask, weights, 0.0)


def _masked_after_softmax_and_divided_again(q, k, mask=None):
    weights = _masked_after_softmax(q, k, mask)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / where(total.data > 0, total, 1.0)


def _bias(size):
    def attention_weights(q, k, mask=None):
        scores = _scores(q, k, mask)
        return _softmax(scores if mask is None else scores + np.where(mask, 0.0, size).astype(q.dtype))

    return attention_weights


def _put_in(score):
    def attention_weights(q, k, mask=None):
        scores = _scores(q, k, mask)
        return _softmax(scores if mask is None else where(mask, scores, score))

    return attention_weights


def _one_maximum(q, k, mask=None):
    scores = _scores(q, k, mask)
    scores = scores if mask is None else where(mask, scores, -math.inf)
    exponentials = (scores - max(float(scores.data.max(initial=-math.inf)), -1e300)).exp()
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / where(total.data > 0, total, 1.0)


def _without_gradient(q, k, mask=None):
    return _right_weights(q.detach(), k.detach(), mask)


def _right_weights(q, k, mask=None):
    scores = _scores(q, k, mask)
    mask = np.ones(scores.shape, bool) if mask is None else mask
    # A finite stand-in for the hidden scores, below all others; their exponentials are then set to 0.
    lowest = scores.data.min(initial=0.0)
    scores = where(mask, scores, float(lowest))
    exponentials = where(mask, (scores - scores.data.max(axis=-1, keepdims=True)).exp(), 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / (total + (total.data == 0).astype(total.dtype))


def _average_of_heads(q, k, v, mask=None):
    out = _right_weights(q, k, mask) @ v
    return out if out.ndim < 3 else out * 0 + out.mean(axis=-3, keepdims=True)


_SCALE = "(1 / math.sqrt(q.shape[-1]))"
_SEEN = "scores = where(mask, scores, -math.inf)"
_LARGEST = "scores.data.max(axis=-1, keepdims=True, initial=-math.inf)"
_TOTAL = "exponentials.sum(axis=-1, keepdims=True)"
_MASK = "return np.arange(n_keys) <= np.arange(n_keys - n_queries, n_keys)[:, None]"
_CHECK = "if mask.dtype != bool:"

MISTAKES = {
    "attention_weights leaves out the factor 1/sqrt(head_dim)": [(f" * {_SCALE}", "")],
    "attention_weights divides by head_dim instead of by its root": [(_SCALE, "(1 / q.shape[-1])")],
    "attention_weights multiplies by the root of head_dim": [(_SCALE, "math.sqrt(q.shape[-1])")],
    "attention_weights divides by the root of the number of keys": [(_SCALE, "(1 / math.sqrt(k.shape[-2]))")],
    "attention_weights divides by the root of the width of all heads together": [
        (_SCALE, "(1 / math.sqrt(q.shape[-1] * (q.shape[-3] if q.ndim > 2 else 1)))")
    ],
    "attention_weights scales the weights, not the scores": [
        (f" * {_SCALE}", ""),
        (
            "return exponentials / where(total.data > 0, total, 1.0)",
            f"return exponentials / where(total.data > 0, total, 1.0) * {_SCALE}",
        ),
    ],
    "attention_weights sums to 1 over the queries instead of over the keys": [
        (_LARGEST, _LARGEST.replace("-1, k", "-2, k")),
        (_TOTAL, _TOTAL.replace("-1, k", "-2, k")),
    ],
    "attention_weights sums to 1 over queries and keys together": [
        (_LARGEST, _LARGEST.replace("-1, k", "(-2, -1), k")),
        (_TOTAL, _TOTAL.replace("-1, k", "(-2, -1), k")),
    ],
    "attention_weights does not subtract the largest score, and overflows": [(_LARGEST, "np.zeros((1,))")],
    "attention_weights subtracts the largest score of all rows, so that rows of small scores vanish": {
        "attention_weights": _one_maximum
    },
    "attention_weights subtracts the largest score before it hides keys; a hidden one drowns the others": {
        "attention_weights": _masked_after_softmax_and_divided_again
    },
    "attention_weights hides keys after the softmax, so that the rows no longer sum to 1": {
        "attention_weights": _masked_after_softmax
    },
    "attention_weights adds -10 to the scores of hidden keys, which leaks": {
        "attention_weights": _bias(-10.0)
    },
    "attention_weights adds -1e9 to hidden scores, so that a query that sees nothing averages everything": {
        "attention_weights": _bias(-1e9)
    },
    "attention_weights adds -inf to hidden scores, so that a query that sees nothing becomes NaN": {
        "attention_weights": _bias(-math.inf)
    },
    "attention_weights sets hidden scores to -1e4, above real scores that are lower": {
        "attention_weights": _put_in(-1e4)
    },
    "attention_weights sets hidden scores to 0, which is an average score": {
        "attention_weights": _put_in(0.0)
    },
    "attention_weights hides the keys that may be seen (True for hidden)": [
        (_SEEN, "scores = where(~mask, scores, -math.inf)")
    ],
    "attention_weights transposes the mask": [
        (_SEEN, "scores = where(mask.swapaxes(-1, -2) if mask.ndim > 1 else mask, scores, -math.inf)")
    ],
    "attention_weights takes 0 and -inf, to be added, for a mask, and hides the opposite": [
        (_CHECK, "if False:")
    ],
    "attention_weights leaves the autodiff, so that queries and keys get no gradient": {
        "attention_weights": _without_gradient
    },
    "attention_weights turns float32 into float64": [
        (f" * {_SCALE}", f" * np.array([{_SCALE}])"),
    ],
    "attention_weights changes the mask in place": [
        (_SEEN, "mask[..., 0] = True\n        " + _SEEN),
    ],
    "causal_mask aligns the queries with the first keys instead of the last": [
        (_MASK, "return np.arange(n_keys) <= np.arange(n_queries)[:, None]")
    ],
    "causal_mask hides a token from itself": [(_MASK, _MASK.replace("<=", "<"))],
    "causal_mask lets a token see the next one": [(_MASK, _MASK.replace("<= ", "<= 1 + "))],
    "causal_mask shows the future and hides the past": [(_MASK, _MASK.replace("<=", ">="))],
    "causal_mask is the other way round: queries along the columns": [(_MASK, f"{_MASK}.T")],
    "causal_mask has numbers, 0 and -inf, not booleans": [
        (_MASK, _MASK.replace("return ", "return np.where(") + ", 0.0, -np.inf)")
    ],
    "causal_mask allows more queries than keys, whose first rows see nothing": [
        ("if n_queries > n_keys:", "if False:")
    ],
    "attention forgets the mask": [("attention_weights(q, k, mask) @ v", "attention_weights(q, k) @ v")],
    "attention averages the keys instead of the values": [("(q, k, mask) @ v", "(q, k, mask) @ k")],
    "attention averages over the heads": {"attention": _average_of_heads},
    "attention is causal, though no mask was given": [
        (
            "return attention_weights(q, k, mask) @ v",
            "if mask is None and q.shape[-2] <= k.shape[-2]:\n"
            "        mask = causal_mask(q.shape[-2], k.shape[-2])\n"
            "    return attention_weights(q, k, mask) @ v",
        )
    ],
}


def _tri_mask(n_queries, n_keys):
    if n_queries > n_keys:
        raise ValueError("more queries than keys")
    return np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool)


def _einsum_attention(q, k, v, mask=None):
    """Flatten the leading axes to one, and name the others."""
    weights = _right_weights(q, k, mask)
    leading = np.broadcast_shapes(weights.shape[:-2], v.shape[:-2])

    def flat(x):
        repeated = x + np.zeros((*leading, *x.shape[-2:]), x.dtype)
        return repeated.reshape(-1, *x.shape[-2:])

    out = einsum("nqk,nke->nqe", flat(weights), flat(v))
    return out.reshape(*leading, *out.shape[-2:])


def _weights_by_logarithms(q, k, mask=None):
    """exp(scores - logsumexp(scores)), written with the logarithm of the sum."""
    scores = _scores(q, k, mask)
    if mask is not None:
        scores = where(mask, scores, -math.inf)
    largest = scores.data.max(axis=-1, keepdims=True)
    shifted = scores - np.where(largest == -math.inf, 0, largest).astype(scores.dtype)
    total = shifted.exp().sum(axis=-1, keepdims=True)
    return (shifted - where(total.data > 0, total, 1.0).log()).exp()


def _weights_with_their_own_gradient(q, k, mask=None):
    """One operation on the tape, with the closed form of the softmax's derivative."""
    scores = _scores(q, k, mask)
    seen = np.ones(scores.shape, bool) if mask is None else mask
    s = np.where(seen, scores.data, -math.inf)
    largest = s.max(axis=-1, keepdims=True)
    e = np.exp(s - np.where(np.isneginf(largest), 0, largest))
    total = e.sum(axis=-1, keepdims=True)
    p = (e / np.where(total == 0, 1, total)).astype(q.dtype)
    return record(p, (scores, lambda g: p * (g - (p * g).sum(axis=-1, keepdims=True))))


EQUIVALENTS = {
    "causal_mask by np.tri": {"causal_mask": _tri_mask},
    "attention_weights with a finite stand-in, set to 0 after the exponential": {
        "attention_weights": _right_weights
    },
    "attention_weights by logarithms": {"attention_weights": _weights_by_logarithms},
    "attention_weights as one operation with its own gradient": {
        "attention_weights": _weights_with_their_own_gradient
    },
    "attention_weights with the factor on the queries": [
        (f"q @ k.swapaxes(-1, -2) * {_SCALE}", f"(q * {_SCALE}) @ k.swapaxes(-1, -2)")
    ],
    "attention by einsum over flattened leading axes": {"attention": _einsum_attention},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    q, k, v = (rng.normal(size=(2, 4, width)) for width in (3, 3, 3))
    g = rng.normal(size=(2, 4, 3))
    mask = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1]], dtype=bool)
    apart = np.array([[2000.0], [-2000.0]]), np.array([[10.0], [11.0]])
    one, low = np.ones((1, 1)), np.array([[-2e4], [-3e4], [2e4]])

    def weights(q, k, mask=None):
        return lambda impl: impl.attention_weights(Tensor(q), Tensor(k), mask).data

    def output(mask=None):
        return lambda impl: impl.attention(Tensor(q), Tensor(k), Tensor(v), mask).data

    def gradients(impl):
        leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
        impl.attention(*leaves, mask).backward(g)
        return np.array([np.zeros(3) if x.grad is None else x.grad.sum(axis=(0, 1)) for x in leaves])

    def dtype(impl):
        return str(impl.attention_weights(Tensor(q.astype(np.float32)), Tensor(k.astype(np.float32))).dtype)

    def kept_mask(impl):
        given = ~np.eye(4, dtype=bool)
        impl.attention_weights(Tensor(q), Tensor(k), given)
        return given

    return {
        "weights": weights(q, k),
        "weights under a mask": weights(q, k, mask),
        "weights of one head": weights(q[0], k[0]),
        "weights where nothing may be seen": weights(
            q, k, mask & np.array([[True], [False], [True], [True]])
        ),
        "weights of large scores": weights(1e3 * q, k),
        "weights of rows far apart": weights(*apart),
        "weights beside a hidden key with a large score": weights(one, low, np.array([True, True, False])),
        "weights under an additive mask": weights(q, k, np.where(mask, 0, -np.inf)),
        "dtype of the weights": dtype,
        "the mask afterwards": kept_mask,
        "causal mask, 4 of 4": lambda impl: impl.causal_mask(4, 4),
        "causal mask, 2 of 5": lambda impl: impl.causal_mask(2, 5),
        "causal mask, 3 of 2": lambda impl: impl.causal_mask(3, 2),
        "dtype of the causal mask": lambda impl: str(impl.causal_mask(2, 2).dtype),
        "output": output(),
        "output under a mask": output(mask),
        "gradients": gradients,
    }
