"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, where
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import attention

_REPEATED = (
    "return record(np.repeat(x.data, n_shared, axis=-3), (x, lambda g: g.reshape(groups).sum(axis=-3)))"
)
_BELOW = "below = q.reshape(*leading, n_kv_heads, n_shared * n_queries, width)"
_ANSWER = "answer = attention(below, k, v, mask)"
_END = "return answer.reshape(*answer.shape[:-3], n_heads, n_queries, v.shape[-1])"
_MASK = "mask = np.concatenate([np.broadcast_to(mask, shape)] * n_shared, axis=-2)[..., None, :, :]"
_GIVEN = "if mask is not None:"
_ARRAY = "mask = np.asarray(mask)"
_FITS = "if shape[-2:] != (n_queries, n_keys):"
_SAME = "if v.shape[-3] != n_kv_heads:"
_VALUES = "_n_shared(v, n_heads)\n"
_AXES = "if q.ndim < 3:"
_AXES_K = "if x.ndim < 3:"
_HEADS = "if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:"
_CHECKED = "_check_heads(n_heads, n_kv_heads)\n        if"
_DIVIDES = "if width % n_heads:"
_DEFAULT = "head_width = width // n_heads"
_NARROW = "if head_width < 1:"
_QUERY = "self.query = Linear(width, n_heads * head_width, rng, has_bias, dtype=dtype)"
_KEY, _VALUE = (
    f"self.{name} = Linear(width, n_kv_heads * head_width, rng, has_bias, dtype=dtype)"
    for name in ("key", "value")
)
_OUTPUT = "self.output = Linear(n_heads * head_width, width, rng, has_bias, gain, dtype)"
_COUNTS = "self.n_heads, self.n_kv_heads = n_heads, n_kv_heads"
_Q = "q = split_heads(self.query(x), self.n_heads)"
_KV = "k, v = (split_heads(layer(x), self.n_kv_heads) for layer in (self.key, self.value))"
_OUT = "return self.output(merge_heads(grouped_attention(q, k, v, mask)))"

_EACH_COPY = [
    (_BELOW, "below = q"),
    (_ANSWER, "answer = attention(below, repeat_heads(k, n_heads), repeat_heads(v, n_heads), mask)"),
    (_MASK, "mask = np.broadcast_to(mask, shape)[..., None, :, :]"),
    (_END, "return answer"),
]


def _of_queries(*lines):
    """Put lines before the queries of a group are put below each other."""
    return [(_BELOW, "\n    ".join((*lines, _BELOW)))]


def _of_forward(*lines):
    """Put lines after those that make queries, keys and values in the module."""
    return [(_KV, "\n        ".join((_KV, *lines)))]


MISTAKES = {
    "repeat_heads takes turns: heads 0, 1, 0, 1": [
        (
            _REPEATED,
            "turns = (*leading, n_shared, n_kv_heads, n_tokens, width)\n    "
            "return record(np.concatenate([x.data] * n_shared, axis=-3), "
            "(x, lambda g: g.reshape(turns).sum(axis=-4)))",
        )
    ],
    "repeat_heads repeats the tokens": [
        (
            _REPEATED,
            "return Tensor(np.repeat(x.data, n_shared, axis=-2).reshape(*leading, n_heads, n_tokens, width))",
        )
    ],
    "repeat_heads gives all query heads the first key head": [
        (
            _REPEATED,
            _REPEATED.replace("np.repeat(x.data, n_shared", "np.repeat(x.data[..., :1, :, :], n_heads"),
        )
    ],
    "repeat_heads leaves the tape: no gradient reaches x": [
        (_REPEATED, "return Tensor(np.repeat(x.data, n_shared, axis=-3))")
    ],
    "repeat_heads averages the gradients of a group": [(_REPEATED, _REPEATED.replace(".sum(", ".mean("))],
    "repeat_heads keeps the gradient of the first of a group": [
        (_REPEATED, _REPEATED.replace("g.reshape(groups).sum(axis=-3)", "g.reshape(groups)[..., 0, :, :]"))
    ],
    "repeat_heads adds up gradients as if heads took turns": [
        (
            _REPEATED,
            "turns = (*leading, n_shared, n_kv_heads, n_tokens, width)\n    "
            + _REPEATED.replace("groups).sum(axis=-3)", "turns).sum(axis=-4)"),
        )
    ],
    "repeat_heads takes the number of copies for that of heads": [
        (
            "n_shared = _n_shared(x, n_heads)\n    *leading, n_kv_heads, n_tokens, width = x.shape",
            "_n_shared(x, n_heads)\n    n_shared = n_heads\n    *leading, n_kv_heads, n_tokens, width = x.shape",
        )
    ],
    "repeat_heads hands x on where nothing is repeated": [
        (_REPEATED, "if n_shared == 1:\n        return x\n    " + _REPEATED)
    ],
    "repeat_heads takes a matrix for a single head": [
        (
            "n_shared = _n_shared(x, n_heads)\n    *",
            "if x.ndim == 2:\n        x = x.reshape(1, *x.shape)\n    n_shared = _n_shared(x, n_heads)\n    *",
        )
    ],
    "grouped_attention lets query heads take turns at the key heads": [
        (
            _BELOW,
            "below = q.reshape(*leading, n_shared, n_kv_heads, n_queries, width).swapaxes(-4, -3)\n    "
            "below = below.reshape(*leading, n_kv_heads, n_shared * n_queries, width)",
        ),
        (
            _END,
            "answer = answer.reshape(*answer.shape[:-3], n_kv_heads, n_shared, n_queries, v.shape[-1])\n    "
            "answer = answer.swapaxes(-4, -3)\n    "
            "return answer.reshape(*answer.shape[:-4], n_heads, n_queries, v.shape[-1])",
        ),
    ],
    "grouped_attention gives every query head the first key head": [
        (_ANSWER, "k, v = (each[..., :1, :, :] + 0 * each for each in (k, v))\n    " + _ANSWER)
    ],
    "grouped_attention averages the queries of a group": _of_queries(
        "q = q.reshape(*leading, n_kv_heads, n_shared, n_queries, width)",
        "q = q.mean(axis=-3, keepdims=True) + 0 * q",
    ),
    "grouped_attention divides the scores by the root of the number of query heads, too": _of_queries(
        "q = q * n_shared**-0.5"
    ),
    "grouped_attention does not divide the scores": _of_queries("q = q * width**0.5"),
    "grouped_attention ignores the mask": [(_GIVEN, "mask = None\n    " + _GIVEN)],
    "grouped_attention: the mask says what may not be seen": [
        (_ARRAY, "mask = np.asarray(mask)\n        mask = ~mask if mask.dtype == bool else mask")
    ],
    "grouped_attention puts the rows of the mask in another order than the queries": [
        (
            _MASK,
            _MASK.replace(
                "np.concatenate([np.broadcast_to(mask, shape)] * n_shared, axis=-2)",
                "np.repeat(np.broadcast_to(mask, shape), n_shared, axis=-2)",
            ),
        )
    ],
    "grouped_attention masks the first query head of each group only": [
        (
            _MASK,
            _MASK.replace(
                "[np.broadcast_to(mask, shape)] * n_shared",
                "[np.broadcast_to(mask, shape), *[np.ones_like(np.broadcast_to(mask, shape))] * (n_shared - 1)]",
            ),
        )
    ],
    "grouped_attention takes the samples of a mask for key heads": [
        (_MASK, _MASK.replace("[..., None, :, :]", ""))
    ],
    "grouped_attention: of several masks the first counts for all samples": [
        (
            _ARRAY,
            "mask = np.asarray(mask)\n        mask = mask.reshape(-1, *mask.shape[-2:])[0] if mask.ndim > 2 and mask.size else mask",
        )
    ],
    "grouped_attention: numbers as a mask count as true where they are not 0": [
        (_ARRAY, "mask = np.asarray(mask, bool)")
    ],
    "grouped_attention takes a mask that is longer than one query": [
        (
            _ARRAY,
            "mask = np.asarray(mask)\n        mask = mask[..., :n_queries, :] if mask.ndim > 1 else mask",
        )
    ],
    "grouped_attention takes a mask that is longer than the keys": [
        (_ARRAY, "mask = np.asarray(mask)\n        mask = mask[..., :n_keys] if mask.ndim > 1 else mask")
    ],
    "grouped_attention hides later keys where no mask is given": [
        (
            _GIVEN,
            "if mask is None:\n        mask = np.tri(n_queries, n_keys, max(n_keys - n_queries, 0), dtype=bool)\n    "
            + _GIVEN,
        )
    ],
    "grouped_attention repeats keys and values in memory": _EACH_COPY,
    "grouped_attention cuts the gradient of the keys": _of_queries("k = Tensor(k.data)"),
    "grouped_attention cuts the gradient of the values": _of_queries("v = Tensor(v.data)"),
    "grouped_attention cuts the gradient of the queries": _of_queries("q = Tensor(q.data)"),
    "grouped_attention divides the gradient of the values by the size of a group": _of_queries(
        "v = record(v.data, (v, lambda g: g / n_shared))"
    ),
    "grouped_attention lets one head of values serve all keys": [
        (_SAME, "if v.shape[-3] not in (1, n_kv_heads):")
    ],
    "grouped_attention lets one head of keys serve all values": [
        (
            _SAME,
            "if n_kv_heads == 1:\n        k = repeat_heads(k, v.shape[-3])\n        n_kv_heads, n_shared = v.shape[-3], _n_shared(v, n_heads)\n    "
            + _SAME,
        )
    ],
    "grouped_attention takes a matrix of queries for a single head": [
        (_AXES, "if q.ndim == 2:\n        q = q.reshape(1, *q.shape)\n    " + _AXES)
    ],
    "grouped_attention computes in float32": [
        (
            _END,
            _END.replace(
                "return answer",
                "answer = record(answer.data.astype(np.float32), (answer, lambda g: g.astype(answer.dtype)))\n    return answer",
                1,
            ),
        )
    ],
    "more key heads than query heads are no error": [
        (_HEADS, "if n_heads < 1 or n_kv_heads < 1 or (n_heads % n_kv_heads and n_kv_heads % n_heads):")
    ],
    "heads that the key heads do not divide are no error": [
        (_HEADS, "if n_heads < n_kv_heads or n_kv_heads < 1:")
    ],
    "no key heads are another error than ValueError": [(_HEADS, "if n_heads < 1 or n_heads % n_kv_heads:")],
    "a width that the heads do not divide is cut": [(_DIVIDES, "if False:")],
    "a head width of 0 is no error of its own": [
        (_NARROW, "head_width = head_width or width // n_heads\n        if head_width < 1:")
    ],
    "head_width is ignored": [(_NARROW, "head_width = width // n_heads or 1\n        if head_width < 1:")],
    "head_width is that of all heads together": [
        (
            _NARROW,
            "head_width = head_width // n_heads if head_width > n_heads and head_width % n_heads == 0 else head_width\n        "
            + _NARROW,
        )
    ],
    "keys and values have as many heads as queries": [
        (_KEY, _KEY.replace("n_kv_heads", "n_heads")),
        (_VALUE, _VALUE.replace("n_kv_heads", "n_heads")),
        (_COUNTS, "self.n_heads, self.n_kv_heads = n_heads, n_heads"),
    ],
    "values have as many heads as queries, and the first are used": [
        (_VALUE, _VALUE.replace("n_kv_heads", "n_heads")),
        (_KV, _KV + "\n        v = split_heads(self.value(x), self.n_heads)[..., : self.n_kv_heads, :, :]"),
    ],
    "the module forgets the mask": [(_OUT, _OUT.replace(", mask", ""))],
    "keys serve as values": [(_KV, _KV.replace("self.value", "self.key"))],
    "keys and values are exchanged": [(_KV, _KV.replace("k, v", "v, k"))],
    "the output layer is left out": [(_OUT, "return merge_heads(grouped_attention(q, k, v, mask))")],
    "the heads' answers are joined without bringing the tokens to the front": [
        (
            _OUT,
            "y = grouped_attention(q, k, v, mask)\n        return self.output(y.reshape(*y.shape[:-3], y.shape[-2], -1))",
        )
    ],
    "queries are cut into heads along the tokens": [
        (_Q, "q = self.query(x)\n        q = q.reshape(*q.shape[:-2], self.n_heads, q.shape[-2], -1)")
    ],
    "the gradients of a module stop at its keys": _of_forward("k = Tensor(k.data)"),
    "has_bias is True if left out": [("has_bias: bool = False", "has_bias: bool = True")],
    "has_bias counts for queries, keys and values only": [(_OUTPUT, _OUTPUT.replace("has_bias", "False"))],
    "has_bias is ignored": [
        (each, each.replace("has_bias", "False")) for each in (_QUERY, _KEY, _VALUE, _OUTPUT)
    ],
    "the gain is ignored": [(_OUTPUT, _OUTPUT.replace("gain", "1.0"))],
    "the gain counts for the values, too": [(_VALUE, _VALUE.replace("has_bias,", "has_bias, gain,"))],
    "the dtype is ignored": [
        *((each, each.replace(", dtype=dtype", "")) for each in (_QUERY, _KEY, _VALUE)),
        (_OUTPUT, _OUTPUT.replace(", dtype)", ")")),
    ],
    "keys and values share a layer": [(_VALUE, "self.value = self.key")],
    "the keys are drawn and named before the queries": [
        (_QUERY, f"{_KEY}\n        {_QUERY}"),
        (f"{_KEY}\n        {_VALUE}", _VALUE),
    ],
    "the layers of the start are kept, whatever takes their place": [
        (
            _COUNTS,
            _COUNTS
            + "\n        self._start = (lambda *each: lambda: each)(self.query, self.key, self.value)",
        ),
        (_Q, _Q.replace("self.query", "self._start()[0]")),
        (_KV, _KV.replace("(self.key, self.value)", "self._start()[1:]")),
    ],
}


def _check(q, k, v):
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise ValueError("q, k and v must have heads")
    n_heads, n_kv_heads = q.shape[-3], k.shape[-3]
    if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads or v.shape[-3] != n_kv_heads:
        raise ValueError("the heads of keys and values must divide those of queries")
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError("widths or numbers of keys differ")
    return n_heads, n_kv_heads


def _seen(mask, q, k):
    mask = np.ones((q.shape[-2], k.shape[-2]), bool) if mask is None else mask
    if mask.dtype != bool:
        raise ValueError("a mask must be boolean")
    shape = np.broadcast_shapes(mask.shape, (q.shape[-2], k.shape[-2]))
    if shape[-2:] != (q.shape[-2], k.shape[-2]):
        raise ValueError("the mask must fit")
    return np.broadcast_to(mask, shape)


def _head_by_head(q, k, v, mask=None):
    """A loop over the query heads."""
    n_heads, n_kv_heads = _check(q, k, v)
    seen = _seen(mask, q, k)
    found = []
    for head in range(n_heads):
        of_keys = head * n_kv_heads // n_heads
        parts = q[..., head, :, :], k[..., of_keys, :, :], v[..., of_keys, :, :]
        answer = attention(*parts, seen)
        found.append(answer.reshape(*answer.shape[:-2], 1, *answer.shape[-2:]))
    return concatenate(found, axis=-3)


def _with_an_axis(q, k, v, mask=None):
    """An axis for the groups, along which keys and values are broadcast."""
    n_heads, n_kv_heads = _check(q, k, v)
    seen = _seen(mask, q, k)
    groups = q.reshape(*q.shape[:-3], n_kv_heads, n_heads // n_kv_heads, *q.shape[-2:])
    keys, values = (each.reshape(*each.shape[:-2], 1, *each.shape[-2:]) for each in (k, v))
    answer = attention(groups, keys, values, seen[..., None, None, :, :])
    return answer.reshape(*answer.shape[:-4], n_heads, *answer.shape[-2:])


def _by_einsum(q, k, v, mask=None):
    """Letters for samples, key heads and the place in a group; softmax by hand."""
    n_heads, n_kv_heads = _check(q, k, v)
    seen = _seen(mask, q, k)
    leading = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3], seen.shape[:-2])
    n = math.prod(leading)

    def flat(x):
        spread = x + Tensor(np.zeros((*leading, 1, 1, 1), x.dtype))
        return spread.reshape(n, *x.shape[-3:])

    q, k, v = map(flat, (q, k, v))
    q = q.reshape(n, n_kv_heads, n_heads // n_kv_heads, *q.shape[-2:])
    seen = np.broadcast_to(seen, (*leading, *seen.shape[-2:])).reshape(n, 1, 1, *seen.shape[-2:])
    scores = where(seen, einsum("nkgtd,nksd->nkgts", q, k) * (1 / math.sqrt(q.shape[-1])), -math.inf)
    largest = scores.data.max(axis=-1, keepdims=True)
    e = (scores - np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)).exp()
    total = e.sum(axis=-1, keepdims=True)
    answer = einsum("nkgts,nkse->nkgte", e / where(total.data > 0, total, 1.0), v)
    return answer.reshape(*leading, n_heads, *answer.shape[-2:])


def _by_indexing(x, n_heads):
    """The number of the key head of each query head, as an index."""
    if x.ndim < 3 or n_heads < 1 or x.shape[-3] < 1 or n_heads % x.shape[-3]:
        raise ValueError("heads must be a multiple of key heads")
    return x[..., np.arange(n_heads) // (n_heads // x.shape[-3]), :, :]


class _OneProjection(Module):
    """Slices of the projections, head by head; each head's answer goes through its columns of the output."""

    def __init__(
        self, width, n_heads, n_kv_heads, rng, head_width=None, has_bias=False, gain=1.0, dtype=np.float64
    ):
        if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError("n_kv_heads must divide n_heads")
        if head_width is None and width % n_heads:
            raise ValueError("n_heads must divide the width")
        d = width // n_heads if head_width is None else head_width
        if d < 1:
            raise ValueError("head_width must be at least 1")
        self.query = Linear(width, n_heads * d, rng, has_bias, dtype=dtype)
        self.key, self.value = (Linear(width, n_kv_heads * d, rng, has_bias, dtype=dtype) for _ in range(2))
        self.output = Linear(n_heads * d, width, rng, has_bias, gain, dtype)
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads

    def forward(self, x, mask=None):
        if x.ndim < 2:
            raise ValueError("x must have two axes")
        q, k, v = self.query(x), self.key(x), self.value(x)
        seen = _seen(mask, q, k)
        d = q.shape[-1] // self.n_heads
        total = None
        for head in range(self.n_heads):
            mine = slice(head * d, (head + 1) * d)
            place = head // (self.n_heads // self.n_kv_heads)
            shared = slice(place * d, (place + 1) * d)
            answer = attention(q[..., mine], k[..., shared], v[..., shared], seen)
            part = answer @ self.output.weight[:, mine].swapaxes(0, 1)
            total = part if total is None else total + part
        return total if self.output.bias is None else total + self.output.bias


EQUIVALENTS = {
    "one query head after the other": {"grouped_attention": _head_by_head},
    "an axis for the groups": {"grouped_attention": _with_an_axis},
    "einsum, and softmax by hand": {"grouped_attention": _by_einsum},
    "repeat_heads by an index": {"repeat_heads": _by_indexing},
    "the module by slices of its projections": {"GroupedQueryAttention": _OneProjection},
}

_UNPACKED = "taking the shape apart refuses the same, in other words"
_ATTENTION = "attention, or broadcasting, refuses the same"
_LINEAR = "Linear refuses the same"
HARMLESS = {
    f"{_AXES} => if False:": _UNPACKED,
    f"{_AXES} => if q.ndim < 2:": _UNPACKED,
    "raise ValueError(f'q must have the shape (..., H, T, D); got {q.shape}') => pass": _UNPACKED,
    "shape = np.broadcast_shapes(mask.shape, (n_queries, n_keys)) => "
    "shape = np.broadcast_shapes((n_queries, n_keys), mask.shape)": "the order does not count",
    f"{_FITS} => if False:": _ATTENTION,
    "raise ValueError(f'a mask must broadcast to {(n_queries, n_keys)}; got {mask.shape}') => pass": _ATTENTION,
    f"{_NARROW} => if False:": _LINEAR,
    f"{_NARROW} => if head_width < 0:": _LINEAR,
    "raise ValueError(f'head_width must be at least 1; got {head_width}') => pass": _LINEAR,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    q, k, v = (rng.normal(size=(2, n, t, 2)) for n, t in ((4, 3), (2, 5), (2, 5)))
    x = rng.normal(size=(2, 3, 5))
    masks = {
        "one mask": rng.random((3, 5)) < 0.6,
        "two masks": rng.random((2, 3, 5)) < 0.6,
        "numbers": (rng.random((3, 5)) < 0.6) * 2.0,
    }
    square = np.array([[True, False, True], [True, True, False], [False, False, True]])

    def attended(mask=None, q=q, k=k, v=v):
        return lambda impl: impl.grouped_attention(Tensor(q), Tensor(k), Tensor(v), masks.get(mask)).data

    def gradients(impl):
        leaves = [Tensor(each.copy(), requires_grad=True) for each in (q, k, v)]
        impl.grouped_attention(*leaves, masks["one mask"]).backward(
            np.cos(np.arange(48.0)).reshape(2, 4, 3, 2)
        )
        return ["none" if each.grad is None else each.grad.round(9).tolist() for each in leaves]

    def gradient_of_repeated(impl):
        leaf = Tensor(np.ones((2, 3, 1)), requires_grad=True)
        impl.repeat_heads(leaf, 4).backward(np.arange(12.0).reshape(4, 3, 1))
        return "none" if leaf.grad is None else leaf.grad

    def module(impl, *arguments, **options):
        return impl.GroupedQueryAttention(*arguments, np.random.default_rng(0), **options)

    def answer(mask=None, has_bias=False):
        def probe(impl):
            found = module(impl, 5, 4, 2, head_width=3, has_bias=has_bias)
            for place, (_, each) in enumerate(found.named_parameters()):
                each.data += 0.1 * np.sin(np.arange(each.data.size) + place).reshape(each.shape)
            return found(Tensor(x), mask).data

        return probe

    def of_module(impl):
        found, leaf = module(impl, 5, 4, 2, head_width=3), Tensor(x.copy(), requires_grad=True)
        found(leaf, square).backward(np.cos(np.arange(30.0)).reshape(2, 3, 5))
        grads = [leaf.grad, *(each.grad for each in found.parameters())]
        return [float("nan") if each is None else float(np.abs(each).sum()) for each in grads]

    def exchanged(impl):
        found, other = module(impl, 4, 4, 2), module(impl, 4, 4, 2)
        for each in other.parameters():
            each.data *= 0.5
        found.query, found.key, found.value = other.query, other.key, other.value
        return found(Tensor(x[..., :4])).data

    def made(look, *arguments, **options):
        return lambda impl: look(module(impl, *arguments, **options))

    def shapes(found):
        return [(name, list(each.shape)) for name, each in found.named_parameters()]

    def draws(found):
        return [
            float(np.abs(getattr(found, name).weight.data).sum())
            for name in ("query", "key", "value", "output")
        ]

    def refused(call):
        def probe(impl):
            try:
                call(impl)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return "nothing"

        return probe

    def of_heads(n_heads, n_kv_heads):
        return refused(lambda impl: module(impl, 12, n_heads, n_kv_heads))

    def of_shapes(*shapes, mask=None):
        tensors = [Tensor(np.ones(shape)) for shape in shapes]
        return refused(lambda impl: impl.grouped_attention(*tensors, mask))

    def is_x(impl):
        one = Tensor(np.ones((2, 3, 1)))
        return impl.repeat_heads(one, 2) is one

    def memory(impl):
        many = Tensor(np.zeros((1, 1000, 32)))
        import tracemalloc

        tracemalloc.start()
        impl.grouped_attention(Tensor(np.zeros((16, 1, 32))), many, many)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak < 2_000_000

    return {
        "repeated": lambda impl: impl.repeat_heads(Tensor(k), 4).data,
        "repeated heads": lambda impl: impl.repeat_heads(Tensor(k[0]), 6).data,
        "gradient of repeated": gradient_of_repeated,
        "repeated once": is_x,
        "attended": attended(),
        **{name: refused(lambda impl, name=name: attended(name)(impl)) for name in ("numbers",)},
        "attended by one mask": attended("one mask"),
        "attended by two masks": refused(attended("two masks")),
        "values by two masks": lambda impl: _or_error(lambda: attended("two masks")(impl)),
        "gradients": gradients,
        "dtype": lambda impl: str(attended()(impl).dtype),
        "memory": memory,
        "answer": answer(),
        "answer with biases": answer(square, True),
        "gradients of a module": of_module,
        "exchanged": exchanged,
        "shapes": made(shapes, 12, 6, 2),
        "shapes with biases": made(shapes, 12, 6, 2, has_bias=True),
        "shapes with a width": made(shapes, 5, 4, 2, head_width=8),
        "draws": made(draws, 4, 4, 2),
        "draws with a gain": made(draws, 4, 4, 2, gain=0.25),
        "dtypes": made(
            lambda found: sorted({str(e.dtype) for e in found.parameters()}), 4, 2, 1, dtype=np.float32
        ),
        **{
            f"{h} heads, {n} of keys": of_heads(h, n)
            for h, n in [(4, 3), (2, 4), (4, 0), (-4, -2), (6, 4), (5, 1)]
        },
        "a head width of 0": refused(lambda impl: module(impl, 4, 2, 1, head_width=0)),
        "a matrix repeated": refused(lambda impl: impl.repeat_heads(Tensor(np.ones((2, 2))), 2)),
        "a matrix of queries": of_shapes((3, 2), (1, 5, 2), (1, 5, 2)),
        "one head of values": of_shapes((4, 3, 2), (2, 5, 2), (1, 5, 2)),
        "one head of keys": of_shapes((4, 3, 2), (1, 5, 2), (2, 5, 2)),
        "a mask of more queries": of_shapes((4, 1, 2), (2, 5, 2), (2, 5, 2), mask=np.ones((3, 5), bool)),
        "a mask of more keys": of_shapes((4, 1, 2), (2, 1, 2), (2, 1, 2), mask=np.ones((1, 5), bool)),
    }


def _or_error(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__
