"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, no_grad, record, where

SCALE = "(1 / math.sqrt(q.shape[-1]))"
SCORES = f"    scores = q @ k.swapaxes(-1, -2) * {SCALE}\n"
CHECK = "if mask.dtype != bool:"
HIDE = "scores = where(mask, scores, -math.inf)"
LARGEST = "scores.data.max(axis=-1, keepdims=True)"
FINITE = "np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)"
EXP = f"    exponentials = (scores - {FINITE}).exp()\n"
TOTAL = "exponentials.sum(axis=-1, keepdims=True)"
WEIGHTS = "return exponentials / where(total.data > 0, total, 1.0)"
CAUSAL = "return np.arange(n_keys) <= np.arange(n_keys - n_queries, n_keys)[:, None]"
OUTPUT = "return attention_weights(q, k, mask) @ v"


def _then(line):
    """Exchange the last line of `attention_weights`: the right weights are there as ``weights``."""
    return [(WEIGHTS, f"weights = exponentials / where(total.data > 0, total, 1.0)\n    {line}")]


def _before(line):
    """Put a line before the scores are computed."""
    return [(SCORES, f"    {line}\n{SCORES}")]


def _hidden(line, weights="return exponentials / total"):
    """Hide keys in another way, where nothing is done about queries that see no key."""
    return [(HIDE, line), (FINITE, "largest.astype(scores.dtype)"), (WEIGHTS, weights)]


def _cast(dtype):
    def attention_weights(q, k, mask=None):
        q, k = (record(x.data.astype(dtype(q)), (x, lambda g: g)) for x in (q, k))
        return _logarithms(q, k, mask)

    return attention_weights


MISTAKES = {
    "attention_weights leaves out the factor 1/sqrt(head_dim)": [(f" * {SCALE}", "")],
    "attention_weights divides by head_dim instead of by its root": [(SCALE, "(1 / q.shape[-1])")],
    "attention_weights multiplies by the root of head_dim": [(SCALE, "math.sqrt(q.shape[-1])")],
    "attention_weights divides by the root of the number of keys": [(SCALE, "(1 / math.sqrt(k.shape[-2]))")],
    "attention_weights divides by the root of the width of all heads together": [
        (SCALE, "(1 / math.sqrt(q.shape[-1] * (q.shape[-3] if q.ndim > 2 else 1)))")
    ],
    "attention_weights has 1/8 for its factor, which is right for head_dim 64": [(SCALE, "0.125")],
    "attention_weights scales the weights, not the scores": [
        (f" * {SCALE}", ""),
        *_then(f"return weights * {SCALE}"),
    ],
    "attention_weights has no exponential: the scores are divided by their sum": [
        (EXP, "    exponentials = scores if mask is None else where(mask, scores, 0.0)\n")
    ],
    "attention_weights sums to 1 over the queries instead of over the keys": [
        (LARGEST, LARGEST.replace("-1, k", "-2, k")),
        (TOTAL, TOTAL.replace("-1, k", "-2, k")),
    ],
    "attention_weights sums to 1 over queries and keys together": [
        (LARGEST, LARGEST.replace("-1, k", "(-2, -1), k")),
        (TOTAL, TOTAL.replace("-1, k", "(-2, -1), k")),
    ],
    "attention_weights adds 1e-6 to the sum, so that rows do not sum to 1": [
        (WEIGHTS, "return exponentials / (total + 1e-6)")
    ],
    "attention_weights does not subtract the largest score, and overflows": [(LARGEST, "np.zeros((1,))")],
    "attention_weights keeps scores within 50, and equal above": [
        (EXP, EXP.replace("scores -", "where(scores.data < 50, scores, 50.0) -"))
    ],
    "attention_weights subtracts the largest score of all rows, so that rows of small scores vanish": [
        (LARGEST, "scores.data.max(axis=(-2, -1), keepdims=True, initial=-math.inf)")
    ],
    "attention_weights subtracts the largest score before it hides keys; a hidden one drowns the others": [
        (HIDE, "everything, scores = scores, where(mask, scores, -math.inf)"),
        (LARGEST, "(scores if mask is None else everything).data.max(axis=-1, keepdims=True)"),
    ],
    "attention_weights hides keys after the softmax, so that the rows no longer sum to 1": [
        (HIDE, "pass"),
        *_then("return weights if mask is None else where(mask, weights, 0.0)"),
    ],
    "attention_weights hides keys after the exponential: huge hidden scores make its gradient NaN": [
        (HIDE, "everything, scores = scores, where(mask, scores, -math.inf)"),
        (
            EXP,
            EXP.replace("(scores -", "((scores if mask is None else everything) -")
            + "    exponentials = exponentials if mask is None else where(mask, exponentials, 0.0)\n",
        ),
    ],
    "attention_weights adds -10 to the scores of hidden keys, which leaks": _hidden(
        "scores = scores + np.where(mask, 0, -10).astype(scores.dtype)"
    ),
    "attention_weights adds -1e9 to hidden scores, so that without a key to see all are seen": _hidden(
        "scores = scores + np.where(mask, 0, -1e9).astype(scores.dtype)"
    ),
    "attention_weights adds -inf to hidden scores, so that a query that sees nothing becomes NaN": _hidden(
        "scores = scores + np.where(mask, 0, -math.inf).astype(scores.dtype)"
    ),
    "attention_weights sets hidden scores to -1e9, so that a query that sees nothing averages everything": (
        _hidden("scores = where(mask, scores, -1e9)")
    ),
    "attention_weights sets hidden scores to -1e9, above real scores that are lower": _hidden(
        "scores = where(mask, scores, -1e9)",
        "weights = exponentials / total\n    return weights if mask is None else where(mask, weights, 0.0)",
    ),
    "attention_weights sets hidden scores to -1e4, above real scores that are not rare": _hidden(
        "scores = where(mask, scores, -1e4)",
        "weights = exponentials / total\n    return weights if mask is None else where(mask, weights, 0.0)",
    ),
    "attention_weights sets hidden scores to the lowest number that is finite, which a score may be": _hidden(
        "scores = where(mask, scores, float(np.finfo(scores.dtype).min))",
        "weights = exponentials / total\n"
        "    return weights if mask is None else weights * mask.any(axis=-1)[..., None]",
    ),
    "attention_weights sets hidden scores to 0, which is an average score": _hidden(
        "scores = where(mask, scores, 0.0)"
    ),
    "attention_weights lets a query that sees nothing look at the first key": [
        (
            HIDE,
            "shape = np.broadcast_shapes(mask.shape, scores.shape)\n"
            "        mask = np.broadcast_to(mask, shape) | ~mask.any(axis=-1)[..., None] & "
            "(np.arange(shape[-1]) == 0) if mask.ndim else mask\n"
            f"        {HIDE}",
        )
    ],
    "attention_weights hides the keys that may be seen (True for hidden)": [
        (HIDE, "scores = where(~mask, scores, -math.inf)")
    ],
    "attention_weights transposes the mask": [
        (HIDE, "scores = where(mask.swapaxes(-1, -2) if mask.ndim > 1 else mask, scores, -math.inf)")
    ],
    "attention_weights takes a mask of one axis for one of queries": [
        (HIDE, "scores = where(mask[:, None] if mask.ndim == 1 else mask, scores, -math.inf)")
    ],
    "attention_weights takes the mask of the first sample for all": [
        (HIDE, "scores = where(mask[(0,) * (mask.ndim - 2)], scores, -math.inf)")
    ],
    "attention_weights refuses a mask with more axes than the scores": [
        (CHECK, "if mask.dtype != bool or mask.ndim > scores.ndim:")
    ],
    "attention_weights takes 0 and -inf, to be added, for a mask, and hides the opposite": [
        (CHECK, "if mask.dtype.kind in 'iu':")
    ],
    "attention_weights takes integers for a mask": [(CHECK, "if mask.dtype.kind == 'f':")],
    "attention_weights lets a mask of many keys stretch the scores of one": [
        ("if np.broadcast_shapes(mask.shape, scores.shape)[-2:] != scores.shape[-2:]:", "if False:")
    ],
    "attention_weights lines up a mask of samples with the samples, not with the heads": [
        (CHECK, f"if mask.ndim == 3 and scores.ndim == 4:\n            mask = mask[:, None]\n        {CHECK}")
    ],
    "attention_weights repeats key heads where the queries have a multiple of them": [
        (
            SCORES,
            "    if k.ndim > 2 and q.ndim == k.ndim and 1 < k.shape[-3] < q.shape[-3]:\n"
            "        k = k[..., np.arange(q.shape[-3]) * k.shape[-3] // q.shape[-3], :, :]\n" + SCORES,
        )
    ],
    "attention_weights subtracts the largest score only where it is positive; far below 0 all is 0": [
        (EXP, EXP.replace("np.isfinite(largest)", "largest > 0"))
    ],
    "attention_weights takes bytes for a mask": [
        (CHECK, "if mask.dtype.itemsize > 1:"),
        (HIDE, HIDE.replace("mask,", "mask.astype(bool),")),
    ],
    "attention_weights checks a mask only where it meets its shape for the first time": [
        ("def attention_weights(", "known = set()\n\n\ndef attention_weights("),
        (CHECK, CHECK.replace(":", " and mask.shape not in known:")),
        (HIDE, f"known.add(mask.shape)\n        {HIDE.replace('mask,', 'mask.astype(bool),')}"),
    ],
    "attention_weights refuses a mask of numbers with a TypeError": [
        ('raise ValueError(f"a mask must be boolean', 'raise TypeError(f"a mask must be boolean')
    ],
    "attention_weights multiplies with broadcasting, and takes keys of width 1 for any width": [
        (
            SCORES,
            "    few, many = (*q.shape[:-1], 1, q.shape[-1]), (*k.shape[:-2], 1, *k.shape[-2:])\n"
            f"    scores = (q.reshape(few) * k.reshape(many)).sum(-1) * {SCALE}\n",
        )
    ],
    "attention_weights leaves the autodiff, so that queries and keys get no gradient": _before(
        "q, k = q.detach(), k.detach()"
    ),
    "attention_weights passes no gradient to the keys": _before("k = k.detach()"),
    "attention_weights takes the sum for a constant, and its gradient is not that of a softmax": [
        (TOTAL, f"{TOTAL}.detach()")
    ],
    "attention_weights turns float32 into float64": [(f" * {SCALE}", f" * np.array([{SCALE}])")],
    "attention_weights turns float32 into float64 where there is a mask": [
        (HIDE, "scores = where(mask, scores, np.full(scores.shape, -math.inf))")
    ],
    "attention_weights computes in float32, whatever it is given": {
        "attention_weights": _cast(lambda q: np.float32)
    },
    "attention_weights takes its dtype from the queries alone": {
        "attention_weights": _cast(lambda q: q.dtype)
    },
    "attention_weights changes the mask in place": [(HIDE, f"mask[..., 0] = True\n        {HIDE}")],
    "attention_weights scales the queries in place": _before(
        f"q.data *= {SCALE}\n    k = k * math.sqrt(q.shape[-1])"
    ),
    "attention_weights remembers its results by shape": [
        ("def attention_weights(", "known = {}\n\n\ndef attention_weights("),
        *_then("return known.setdefault((q.shape, k.shape, q.dtype, getattr(mask, 'shape', None)), weights)"),
    ],
    "causal_mask aligns the queries with the first keys instead of the last": [
        (CAUSAL, "return np.arange(n_keys) <= np.arange(n_queries)[:, None]")
    ],
    "causal_mask hides a token from itself": [(CAUSAL, CAUSAL.replace("<=", "<"))],
    "causal_mask lets a token see the next one": [(CAUSAL, CAUSAL.replace("<= ", "<= 1 + "))],
    "causal_mask shows the future and hides the past": [(CAUSAL, CAUSAL.replace("<=", ">="))],
    "causal_mask is the other way round: queries along the columns": [(CAUSAL, f"{CAUSAL}.T")],
    "causal_mask has numbers, 0 and -inf, not booleans": [
        (CAUSAL, CAUSAL.replace("return ", "return np.where(") + ", 0.0, -np.inf)")
    ],
    "causal_mask has integers, 0 and 1, not booleans": [
        (CAUSAL, CAUSAL.replace("return ", "return 1 * (") + ")")
    ],
    "causal_mask allows more queries than keys, whose first rows see nothing": [
        ("if n_queries > n_keys:", "if False:")
    ],
    "causal_mask refuses as many queries as keys": [
        ("if n_queries > n_keys:", "if n_queries >= n_keys > 0:")
    ],
    "causal_mask hands out one array again and again": [
        ("def causal_mask(", "@__import__('functools').cache\ndef causal_mask(")
    ],
    "attention forgets the mask": [(OUTPUT, OUTPUT.replace(", mask", ""))],
    "attention averages the keys instead of the values": [(OUTPUT, OUTPUT.replace("@ v", "@ k"))],
    "attention passes no gradient to the values": [(OUTPUT, OUTPUT.replace("@ v", "@ v.detach()"))],
    "attention averages over the heads": [
        (
            OUTPUT,
            "out = attention_weights(q, k, mask) @ v\n"
            "    return out if out.ndim < 3 else out * 0 + out.mean(axis=-3, keepdims=True)",
        )
    ],
    "attention is causal, though no mask was given": [
        (
            OUTPUT,
            "if mask is None and q.shape[-2] <= k.shape[-2]:\n"
            f"        mask = causal_mask(q.shape[-2], k.shape[-2])\n    {OUTPUT}",
        )
    ],
    "attention multiplies with broadcasting, and takes one value for all keys": [
        (
            OUTPUT,
            "weights = attention_weights(q, k, mask)\n"
            "    many = (*v.shape[:-2], 1, *v.shape[-2:])\n"
            "    return (weights.reshape(*weights.shape, 1) * v.reshape(many)).sum(-2)",
        )
    ],
    "attention leaves out the keys for which there are no values": [
        (
            OUTPUT,
            "n = min(k.shape[-2], v.shape[-2])\n"
            "    return attention_weights(q, k, mask)[..., :n] @ v[..., :n, :]",
        )
    ],
    "attention wants the same leading axes in queries and keys": [
        (OUTPUT, f"if q.shape[:-2] != k.shape[:-2]:\n        raise ValueError\n    {OUTPUT}")
    ],
    "attention hands back the values themselves where there is one key": [
        (OUTPUT, f"if mask is None and q.shape[-2] == len(k.data) == 1:\n        return v\n    {OUTPUT}")
    ],
}


def _check(mask, q, k):
    shape = q.shape[-2], k.shape[-2]
    if mask is not None and (mask.dtype != bool or np.broadcast_shapes(mask.shape, shape)[-2:] != shape):
        raise ValueError("a mask must be boolean, and broadcast to queries and keys")


def _scores(q, k, mask=None):
    _check(mask, q, k)
    return q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])


def _finite_stand_in(q, k, mask=None):
    """Put the lowest of all scores in place of the hidden ones, and set their exponentials to 0."""
    scores = _scores(q, k, mask)
    mask = np.ones(scores.shape, bool) if mask is None else mask
    scores = where(mask, scores, float(scores.data.min(initial=0.0)))
    exponentials = where(mask, (scores - scores.data.max(axis=-1, keepdims=True)).exp(), 0.0)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / (total + (total.data == 0).astype(total.dtype))


def _logarithms(q, k, mask=None):
    """exp(scores - logsumexp(scores)), written with the logarithm of the sum."""
    scores = _scores(q, k, mask)
    scores = scores if mask is None else where(mask, scores, -math.inf)
    largest = scores.data.max(axis=-1, keepdims=True)
    shifted = scores - np.where(largest == -math.inf, 0, largest).astype(scores.dtype)
    total = shifted.exp().sum(axis=-1, keepdims=True)
    return (shifted - where(total.data > 0, total, 1.0).log()).exp()


def _own_gradient(q, k, mask=None):
    """One operation on the tape, in float64 inside, with the closed form of its derivative."""
    _check(mask, q, k)
    a, b = q.data.astype(np.float64) / math.sqrt(q.shape[-1]), k.data.astype(np.float64)
    scores = a @ b.swapaxes(-1, -2)
    scores = np.where(True if mask is None else mask, scores, -math.inf)
    largest = scores.max(axis=-1, keepdims=True)
    e = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
    p = e / np.maximum(e.sum(axis=-1, keepdims=True), 1)  # the largest adds 1 to the sum

    def pull_back(g):
        return p * (g - (p * g).sum(axis=-1, keepdims=True))

    return record(
        p.astype(np.result_type(q.dtype, k.dtype)),
        (q, lambda g: pull_back(g) @ b / math.sqrt(q.shape[-1])),
        (k, lambda g: pull_back(g).swapaxes(-1, -2) @ a),
    )


def _in_loops(q, k, v, mask=None):
    """Every query by itself; what it averages is divided by the sum at the end."""
    rows = []
    _check(mask, q, k)
    if mask is not None:
        mask = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, (q.shape[-2], k.shape[-2])))
    for n in range(q.shape[-2]):
        scores = _scores(q[..., n : n + 1, :], k)
        scores = scores if mask is None else where(mask[..., n : n + 1, :], scores, -math.inf)
        largest = scores.data.max(axis=-1, keepdims=True)
        exponentials = (scores - np.where(np.isneginf(largest), 0, largest).astype(scores.dtype)).exp()
        total = exponentials.sum(axis=-1, keepdims=True)
        rows.append(exponentials @ v / where(total.data > 0, total, 1.0))
    return concatenate(rows, axis=-2) if rows else _einsum(q, k, v, mask)


def _einsum(q, k, v, mask=None):
    """Flatten the leading axes to one, and name the others."""
    weights = _finite_stand_in(q, k, mask)
    leading = np.broadcast_shapes(weights.shape[:-2], v.shape[:-2])

    def flat(x):
        repeated = x + np.zeros((*leading, *x.shape[-2:]), x.dtype)
        return repeated.reshape(math.prod(leading), *x.shape[-2:])

    out = einsum("nqk,nke->nqe", flat(weights), flat(v))
    return out.reshape(*leading, *out.shape[-2:])


def _tri(n_queries, n_keys):
    if n_queries > n_keys:
        raise ValueError("more queries than keys")
    return np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool)


def _row_by_row(n_queries, n_keys):
    if n_queries > n_keys:
        raise ValueError("more queries than keys")
    mask = np.ones((n_keys, n_queries), bool)
    for n in range(n_queries):
        mask[n_keys - n_queries + n + 1 :, n] = False
    return mask.T


EQUIVALENTS = {
    "causal_mask by np.tri": {"causal_mask": _tri},
    "causal_mask row by row, transposed in memory": {"causal_mask": _row_by_row},
    "attention_weights with a finite stand-in, set to 0 after the exponential": {
        "attention_weights": _finite_stand_in
    },
    "attention_weights by logarithms": {"attention_weights": _logarithms},
    "attention_weights as one operation with its own gradient, in float64": {
        "attention_weights": _own_gradient
    },
    "attention_weights with half of the factor on either side": [
        (
            SCORES,
            "    half = q.shape[-1] ** -0.25\n    scores = (q * half) @ (k * half).swapaxes(-1, -2)\n",
        )
    ],
    "attention_weights divides a row of zeros by itself, and puts 0 in place of NaN": [
        (FINITE, "largest.astype(scores.dtype)"),
        (WEIGHTS, "weights = exponentials / total\n    return where(total.data > 0, weights, 0.0)"),
    ],
    "attention by einsum over flattened leading axes": {"attention": _einsum},
    "attention query by query, divided at the end": {"attention": _in_loops},
}

HARMLESS = {
    **{
        f"{EXP.strip()} => {EXP.strip().replace('largest, 0)', f'largest, {number})')}": (
            "exp(-inf - 1) is 0 as well"
        )
        for number in (1, -1)
    },
    f"{WEIGHTS} => {WEIGHTS.replace('1.0', '2.0')}": "the row is 0, whatever divides it",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    q, k, v = (rng.normal(size=(2, 4, width)) for width in (3, 3, 3))
    g = rng.normal(size=(2, 4, 3))
    mask = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1]], dtype=bool)
    one, line = np.ones((1, 1)), np.array([[0.0], [60.0], [-60.0], [61.0]])

    def weights(q, k, mask=None):
        return lambda impl: impl.attention_weights(Tensor(q), Tensor(k), mask).data

    def output(*arrays, mask=None):
        return lambda impl: impl.attention(*map(Tensor, arrays), mask).data

    def gradients(*arrays, mask=None):
        def probe(impl):
            leaves = [Tensor(x, requires_grad=True) for x in arrays]
            out = impl.attention(*leaves, mask)
            if out.requires_grad:
                out.backward(g[:1, : out.shape[-2], : out.shape[-1]].reshape(out.shape))
            return np.array([0.0 if x.grad is None else np.cos(x.grad).sum() for x in leaves])

        return probe

    def dtype(mask=None, dtypes=(np.float32, np.float32)):
        def probe(impl):
            return str(impl.attention_weights(*map(Tensor, map(q.astype, dtypes)), mask).dtype)

        return probe

    def unchanged(impl):
        a, b, given = q.copy(), k.copy(), mask.copy()
        impl.attention_weights(Tensor(a), Tensor(b), given)
        return [float(np.abs(a - q).max()), float(np.abs(b - k).max()), float((given != mask).sum())]

    def twice(impl):
        impl.attention_weights(Tensor(q), Tensor(k))
        return impl.attention_weights(Tensor(k), Tensor(q)).data

    def after_a_good_one(impl):
        impl.attention_weights(Tensor(q), Tensor(k), mask)
        return impl.attention_weights(Tensor(q), Tensor(k), mask.astype(int)).data

    def shares(impl):
        value = Tensor(v[:1, :1])
        return np.shares_memory(impl.attention(Tensor(q[:1, :1]), Tensor(k[:1, :1]), value).data, value.data)

    def masks_apart(impl):
        impl.causal_mask(2, 3)[...] = False
        return impl.causal_mask(2, 3)

    with no_grad():
        widths = [np.concatenate([q, k[:, :, :1] * n], axis=-1) for n in (1, 0)]
    return {
        "weights": weights(q, k),
        "weights of one head": weights(q[0], k[0]),
        "weights of width 4": weights(*widths),
        "weights of two queries": weights(q[:, :2], k),
        "weights under a mask": weights(q, k, mask),
        "weights under a mask for each sample": weights(q, k, np.array([mask, ~mask])),
        "weights under a mask with one more axis": weights(q[0], k[0], np.array([mask, ~mask])),
        "weights under a mask of one axis": weights(q, k, mask[0]),
        "weights where nothing may be seen": weights(q, k, mask & (np.arange(4) != 1)[:, None]),
        "weights of scores up to 61": weights(one, line),
        "weights of scores up to 1000": weights(one, line - 1000 * (line == 60) + 939 * (line == 61)),
        "weights of rows far apart": weights(np.array([[2000.0], [-2000.0]]), np.array([[10.0], [11.0]])),
        "weights beside a hidden score of 2e4": weights(one, np.array([[3.0], [4], [2e4]]), np.arange(3) < 2),
        "weights of -2e4 beside a hidden one": weights(
            one, np.array([[-2e4], [-2e4], [0]]), np.arange(3) < 2
        ),
        "weights of -2e9 beside a hidden one": weights(
            one, np.array([[-2e9], [-2e9], [0]]), np.arange(3) < 2
        ),
        "weights of the lowest score beside a hidden one": weights(
            one, np.array([[np.finfo(float).min], [0], [0]]), np.arange(3) < 1
        ),
        "weights under a mask of integers, after one of booleans": after_a_good_one,
        "weights under an additive mask": weights(q, k, np.where(mask, 0, -np.inf)),
        "weights of -2000": weights(one, np.array([[-2000.0], [-2001], [-2002]])),
        "weights of one key under a mask of three": weights(q, k[:, :1], np.ones((1, 3), bool)),
        "weights of samples and heads": weights(
            np.array([q, k]), np.array([k, q]), np.array([mask, ~mask | mask])
        ),
        "weights of 4 heads and 2": weights(np.concatenate([q, k]), k),
        "weights under a mask of bytes": weights(q, k, mask.astype(np.uint8)),
        "weights under a mask of integers": weights(q, k, mask.astype(int)),
        "weights of queries wider than keys": weights(q, k[..., :1]),
        "dtype of the weights": dtype(),
        "dtype under a mask": dtype(mask),
        "dtype of float64": dtype(dtypes=(np.float64, np.float64)),
        "dtype of float32 and float64": dtype(dtypes=(np.float32, np.float64)),
        "the arguments afterwards": unchanged,
        "weights again": twice,
        "causal mask, 4 of 4": lambda impl: impl.causal_mask(4, 4),
        "causal mask, 2 of 5": lambda impl: impl.causal_mask(2, 5),
        "causal mask, 3 of 2": lambda impl: impl.causal_mask(3, 2),
        "dtype of the causal mask": lambda impl: str(np.asarray(impl.causal_mask(2, 3)).dtype),
        "causal mask, again": masks_apart,
        "output": output(q, k, v),
        "output for one head": output(q[0], k[0], v[0]),
        "output under a mask": output(q, k, v, mask=mask),
        "output of keys for all samples": output(q, k[0], v),
        "output of one value": output(q, k, v[:, :1]),
        "output of too few values": output(q, k, v[:, :3]),
        "output shares memory": shares,
        "gradients": gradients(q[0], k[0], v[0]),
        "gradients under a mask": gradients(q[0], k[0], v[0], mask=mask),
        "gradients beside a hidden score of 2e4": gradients(
            one, np.array([[3.0], [4], [2e4]]), np.array([[1.0], [3], [7]]), mask=np.arange(3) < 2
        ),
    }
