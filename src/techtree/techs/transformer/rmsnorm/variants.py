"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record

_WIDE = "wide = x.data.astype(np.result_type(x.dtype, np.float32))"
_SQUARE = "(wide * wide).mean(axis=-1, keepdims=True)"
_INVERSE = f"inverse = 1 / np.sqrt({_SQUARE} + self.eps)"
_Y = "y = wide * inverse"
_BACK = "return inverse * (h - y * (h * y).mean(axis=-1, keepdims=True))"
_H = "h = g * weight.data.astype(wide.dtype)"
_OF_WEIGHT = "(weight, lambda g: (g * y).sum(axis=rows))"
_SHAPE = "if x.ndim == 0 or x.shape[-1] != width:"
_VALUE = "value = (y * weight.data).astype(x.dtype)"
_ONES = "self.weight = Parameter(np.ones(width, dtype))"
_EPS = "if not eps > 0:"


def _norm(**methods):
    """Make an RMSNorm with some methods in the place of the right ones."""

    class RMSNorm(Module):
        def __init__(self, width, eps=1e-6, dtype=np.float64):
            if width < 1 or not eps > 0:
                raise ValueError("the width must be at least 1, eps above 0")
            self.weight = Parameter(np.full(width, 1, dtype))
            self.epsilon = float(eps)

        def check(self, x):
            if x.ndim < 1 or x.shape[-1] != len(self.weight.data):
                raise ValueError("x must be as wide as the weight")

    for name, method in methods.items():
        setattr(RMSNorm, name, method)
    return RMSNorm


def _cast(x, dtype):
    """Change the dtype on the tape."""
    return record(x.data.astype(dtype), (x, lambda g: g))


def _on_the_tape(self, x):
    """Operations of tensors only, in float64; the tape finds both terms itself."""
    self.check(x)
    wide = _cast(x, np.float64)
    y = wide / ((wide * wide).mean(axis=-1, keepdims=True) + self.epsilon).sqrt()
    return _cast(y * _cast(self.weight, np.float64), x.dtype)


def _row_by_row(self, x):
    """One row after the other."""
    self.check(x)
    weight, n = self.weight, len(self.weight.data)
    rows = [row.astype(np.float64) for row in x.data.reshape(x.data.size // n, n)]
    sizes = [math.sqrt(row @ row / n + self.epsilon) for row in rows]
    value = np.zeros((len(rows), n))
    for r, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        value[r] = row / size * weight.data

    def of_x(g):
        found = np.zeros((len(rows), n))
        for r, arriving in enumerate(g.reshape(len(rows), n)):
            h = arriving * weight.data.astype(np.float64)
            found[r] = h / sizes[r] - rows[r] / sizes[r] * (rows[r] / sizes[r] @ h) / sizes[r] / n
        return found.reshape(x.shape)

    def of_weight(g):
        total = np.zeros(n)
        for row, size, arriving in zip(rows, sizes, g.reshape(len(rows), n), strict=True):
            total += row / size * arriving
        return total

    return record(value.reshape(x.shape).astype(x.dtype), (x, of_x), (weight, of_weight))


def _by_norm(self, x):
    """`np.linalg.norm` of each row, and the weight applied to what was rounded."""
    self.check(x)
    weight, n = self.weight, len(self.weight.data)
    kind = np.promote_types(x.dtype, np.float32)
    wide = x.data.astype(kind)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    size = np.sqrt(length**2 / n + kind.type(self.epsilon))
    y = wide / size
    value = y.astype(x.dtype) * weight.data.astype(x.dtype)

    def of_x(g):
        h = g.astype(kind) * weight.data.astype(kind)
        return (h - (h * y).sum(axis=-1, keepdims=True) / n * y) / size

    def of_weight(g):
        return (g.astype(np.float64) * y).reshape(x.data.size // n, n).sum(axis=0)

    return record(value, (x, of_x), (weight, of_weight))


def _by_powers(self, x):
    """A power of -1/2, sums by einsum, sizes of two rows put together."""
    self.check(x)
    weight, n = self.weight, len(self.weight.data)
    wide = np.array(x.data, np.float64)
    scale = (np.einsum("...n,...n->...", wide, wide) / n + self.epsilon) ** -0.5
    y = wide * scale[..., None]

    def of_x(g):
        h = g * weight.data.astype(np.float64)
        along = np.einsum("...n,...n->...", h, y) / n
        return h * scale[..., None] - y * (along * scale)[..., None]

    def of_weight(g):
        return np.einsum("rn,rn->n", g.reshape(-1, n).astype(np.float64), y.reshape(-1, n))

    return record((y * weight.data).astype(x.dtype), (x, of_x), (weight, of_weight))


_KNOWN: dict = {}


def _shared_init(self, width, eps=1e-6, dtype=np.float64):
    if width < 1 or not eps > 0:
        raise ValueError("the width must be at least 1, eps above 0")
    self.weight = _KNOWN.setdefault((width, np.dtype(dtype).name), Parameter(np.ones(width, dtype)))
    self.epsilon = float(eps)


def _kept_init(self, width, eps=1e-6, dtype=np.float64):
    if width < 1 or not eps > 0:
        raise ValueError("the width must be at least 1, eps above 0")
    self.weight = Parameter(np.ones(width, dtype))
    self.epsilon, self.kept = float(eps), self.weight


def _kept_forward(self, x):
    now, self.weight = self.weight, self.kept
    y = _on_the_tape(self, x)
    self.weight = now
    return y


MISTAKES = {
    "the mean is subtracted, as in layer normalization": [
        (_Y, "y = (wide - wide.mean(axis=-1, keepdims=True)) * inverse")
    ],
    "the size is taken around the mean": [
        (_SQUARE, "wide.var(axis=-1, keepdims=True)"),
    ],
    "the mean square is divided by width - 1": [
        (_SQUARE, "((wide * wide).sum(axis=-1, keepdims=True) / max(width - 1, 1))")
    ],
    "the row gets the length 1: a sum of squares, not their mean": [
        (_SQUARE, "(wide * wide).sum(axis=-1, keepdims=True)")
    ],
    "the row is divided by its mean square": [(_INVERSE, f"inverse = 1 / ({_SQUARE} + self.eps)")],
    "the row is divided by the mean of its sizes": [
        (_INVERSE, "inverse = 1 / (np.abs(wide).mean(axis=-1, keepdims=True) + self.eps)")
    ],
    "the row is divided by its largest entry": [
        (_INVERSE, "inverse = 1 / (np.abs(wide).max(axis=-1, keepdims=True) + self.eps)")
    ],
    "eps is added outside of the root": [(_INVERSE, f"inverse = 1 / (np.sqrt({_SQUARE}) + self.eps)")],
    "eps is added under the root, squared": [(_INVERSE, f"inverse = 1 / np.sqrt({_SQUARE} + self.eps**2)")],
    "eps is left out": [(_INVERSE, f"inverse = 1 / np.sqrt(np.maximum({_SQUARE}, 1e-300))")],
    "eps is the least that the mean square may be": [
        (_INVERSE, f"inverse = 1 / np.sqrt(np.maximum({_SQUARE}, self.eps))")
    ],
    "eps is always 1e-6": [("self.eps = eps", "self.eps = 1e-6")],
    "eps is 1e-5 unless another is given, as in layer normalization": [
        ("eps: float = 1e-6", "eps: float = 1e-5")
    ],
    "eps of 0 is accepted": [(_EPS, "if eps < 0 or eps != eps:")],
    "a negative eps is accepted": [(_EPS, "if eps == 0 or eps != eps:")],
    "an eps that is no number is accepted": [(_EPS, "if eps <= 0:")],
    "the mean square is taken over all axes": [(_SQUARE, "(wide * wide).mean(keepdims=True)")],
    "the mean square is taken over the axis before the last": [
        (_SQUARE, "(wide * wide).mean(axis=max(x.ndim - 2, 0), keepdims=True)")
    ],
    "squares are in the dtype of x, so that float16 overflows": [(_WIDE, "wide = x.data.copy()")],
    "a float64 row is computed in float32": [(_WIDE, "wide = x.data.astype(np.float32)")],
    "the result of a narrow x is wide": [(_VALUE, "value = y * weight.data")],
    "the result takes the dtype of the weight": [(_VALUE, "value = (y * weight.data).astype(weight.dtype)")],
    "the gradient has the first term only: the size is a constant": [(_BACK, "return inverse * h")],
    "the gradient loses its mean, as in layer normalization": [
        (_BACK, _BACK.replace("(h - y", "(h - h.mean(axis=-1, keepdims=True) - y"))
    ],
    "the gradient takes a sum in place of the mean": [(_BACK, _BACK.replace("mean(", "sum("))],
    "the gradient adds the second term": [(_BACK, _BACK.replace("- y", "+ y"))],
    "the gradient's second term has x in place of the normalized row": [
        (_BACK, _BACK.replace("h - y *", "h - wide *"))
    ],
    "the gradient is not divided by the size of the row": [(_BACK, _BACK.replace("inverse * ", ""))],
    "the gradient is divided twice": [(_BACK, _BACK.replace("inverse * ", "inverse**2 * "))],
    "the gradient forgets the weight": [(_H, "h = g.astype(wide.dtype)")],
    "the gradient takes the weight after the mean": [
        (_H, "h = g.astype(wide.dtype)"),
        (_BACK, _BACK.replace("inverse *", "weight.data * inverse *")),
    ],
    "the weight's gradient takes x in place of the normalized row": [
        (_OF_WEIGHT, "(weight, lambda g: (g * wide).sum(axis=rows))")
    ],
    "the weight's gradient is the average over rows": [
        (_OF_WEIGHT, "(weight, lambda g: (g * y).sum(axis=rows) / max(y.size // width, 1))")
    ],
    "the weight's gradient is added up in the dtype of x": [
        (
            _OF_WEIGHT,
            "(weight, lambda g: np.add.reduce((g * y).astype(x.dtype).reshape(-1, width), axis=0,"
            " dtype=x.dtype))",
        )
    ],
    "the weight has no gradient": [("(x, pull_back), " + _OF_WEIGHT, "(x, pull_back)")],
    "x has no gradient": [("(x, pull_back), " + _OF_WEIGHT, _OF_WEIGHT)],
    "the weight is not applied": [(_VALUE, "value = y.astype(x.dtype)")],
    "the weight is applied as 1 + weight": [(_VALUE, "value = (y * (1 + weight.data)).astype(x.dtype)")],
    "the weight starts at 0": [(_ONES, "self.weight = Parameter(np.zeros(width, dtype))")],
    "there is a bias": [(_ONES, _ONES + "\n        self.bias = Parameter(np.zeros(width, dtype))")],
    "there is one weight for the whole row": [
        (_ONES, "self.weight = Parameter(np.ones(1, dtype))"),
        ("self.weight, self.weight.shape[0]", "self.weight, self.n"),
        ("self.eps = eps", "self.eps, self.n = eps, width"),
    ],
    "the weight has another name": [
        (_ONES, "self.scale = Parameter(np.ones(width, dtype))"),
        ("self.weight, self.weight.shape[0]", "self.scale, self.scale.shape[0]"),
    ],
    "the weight is a plain tensor, neither trained nor saved": [
        (_ONES, "self.weight = Tensor(np.ones(width, dtype))")
    ],
    "dtype is ignored": [(_ONES, "self.weight = Parameter(np.ones(width))")],
    "all norms of one width share their weight": {
        "RMSNorm": _norm(__init__=_shared_init, forward=_on_the_tape)
    },
    "the weight of the start is used, whatever takes its place": {
        "RMSNorm": _norm(__init__=_kept_init, forward=_kept_forward)
    },
    "a last axis of 1 is repeated": [(_SHAPE, "if x.ndim == 0 or x.shape[-1] not in (1, width):")],
    "any width is taken when the weight has one entry": [
        (_SHAPE, "if x.ndim == 0 or (x.shape[-1] != width and width != 1):")
    ],
    "a row without leading axes is refused": [(_SHAPE, "if x.ndim < 2 or x.shape[-1] != width:")],
    "width 0 is accepted": [("if width < 1:", "if width < 0:")],
}

EQUIVALENTS = {
    "operations of tensors only, in float64": {"RMSNorm": _norm(forward=_on_the_tape)},
    "row by row, in float64": {"RMSNorm": _norm(forward=_row_by_row)},
    "the length of a row, and the weight after rounding": {"RMSNorm": _norm(forward=_by_norm)},
    "a power of -1/2 and einsum": {"RMSNorm": _norm(forward=_by_powers)},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x, weight = rng.normal(size=(2, 3, 4)), 1.5 + rng.normal(size=4)
    g = rng.normal(size=(2, 3, 4))

    def norm(impl, dtype=np.float64, **options):
        found = impl.RMSNorm(4, dtype=dtype, **options)
        found.load_state_dict({"weight": weight})
        return found

    def value(rows, **options):
        return lambda impl: norm(impl, **options)(Tensor(rows)).data

    def gradients(rows):
        def probe(impl):
            one, leaf = norm(impl), Tensor(rows.copy(), requires_grad=True)
            one(leaf).backward(g[: len(rows)])
            return [np.zeros(1) if each is None else each for each in (leaf.grad, one.weight.grad)]

        return probe

    def names(impl):
        found = impl.RMSNorm(2, dtype=np.float32).named_parameters()
        return str([(name, each.shape, str(each.dtype), each.data.tolist()) for name, each in found])

    def exchanged(impl):
        one = norm(impl)
        one.weight = Parameter(weight + 1)
        return one(Tensor(x)).data

    def shared(impl):
        one, two = impl.RMSNorm(6), impl.RMSNorm(6)
        one.weight.data += 1
        return two.weight.data[:1].tolist()

    def refused(*arguments, **options):
        return lambda impl: type(impl.RMSNorm(*arguments, **options)).__name__

    def shape_of(shape, width=4):
        return lambda impl: impl.RMSNorm(width)(Tensor(np.ones(shape))).shape

    def many(impl):
        one = impl.RMSNorm(2, dtype=np.float16)
        one(Tensor(np.ones((6000, 2), np.float16))).backward(np.ones((6000, 2)))
        return one.weight.grad.astype(np.float64)

    def wants_gradient(impl):
        one = norm(impl)
        with no_grad():
            outside = one(Tensor(x, requires_grad=True)).requires_grad
        return [outside, one(Tensor(x)).requires_grad]

    return {
        "rows": value(x),
        "one row": value(x[0, 0]),
        "rows with eps 0.3": value(x, eps=0.3),
        "small rows": value(x * 1e-3),
        "small rows with eps 1e-5": value(x * 1e-3, eps=1e-5),
        "default eps": lambda impl: impl.RMSNorm(2)(Tensor([-1e-3, 1e-3])).data,
        "zeros": value(np.zeros((1, 4))),
        "around 1": value(x + 1),
        "large float16": lambda impl: norm(impl, np.float16)(Tensor((x * 3000).astype(np.float16))).data,
        "dtype": lambda impl: norm(impl, np.float32)(Tensor(x.astype(np.float16))).dtype.name,
        "gradients": gradients(x),
        "gradients of one row": lambda impl: gradients(x[:1])(impl)[0],
        "many rows of float16": many,
        "names": names,
        "exchanged": exchanged,
        "shared": shared,
        "eps 0": refused(3, eps=0.0),
        "eps -1": refused(3, eps=-1.0),
        "eps NaN": refused(3, eps=math.nan),
        "width 0": refused(0),
        "a last axis of 1": shape_of((2, 1)),
        "a norm of width 1": shape_of((2, 3), 1),
        "no leading axes": shape_of((4,)),
        "wants a gradient": wants_gradient,
    }


HARMLESS = {
    "weight, width = (self.weight, self.weight.shape[0]) => weight, width = (self.weight, self.weight.shape[-1])": (
        "the weight has one axis: the first is the last"
    ),
    "wide = x.data.astype(np.result_type(x.dtype, np.float32)) => wide = x.data.astype(np.result_type(np.float32, x.dtype))": (
        "the wider of two dtypes is the same in either order"
    ),
}
