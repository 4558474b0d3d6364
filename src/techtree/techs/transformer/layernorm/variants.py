"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record

_WIDE = "wide = x.data.astype(np.result_type(x.dtype, np.float32))"
_AWAY = "away = wide - wide.mean(axis=-1, keepdims=True)"
_INVERSE = "inverse = 1 / np.sqrt((away * away).mean(axis=-1, keepdims=True) + self.eps)"
_VARIANCE = "(away * away).mean(axis=-1, keepdims=True)"
_BACK = "return inverse * (h - h.mean(axis=-1, keepdims=True) - y * (h * y).mean(axis=-1, keepdims=True))"
_H = "h = g * weight.data.astype(wide.dtype)"
_OF_WEIGHT = "(weight, lambda g: (g * y).sum(axis=rows))"
_OF_BIAS = "edges.append((bias, lambda g: g.sum(axis=rows, dtype=wide.dtype)))"
_ADDED = "value = value + bias.data"
_SHAPE = "if x.ndim == 0 or x.shape[-1] != width:"
_END = "return record(value.astype(x.dtype), *edges)"
_ONES = "self.weight = Parameter(np.ones(width, dtype))"
_ZEROS = "self.bias = Parameter(np.zeros(width, dtype)) if has_bias else None"
_EPS = "if not eps > 0:"


def _norm(**methods):
    """Make a LayerNorm with some methods in the place of the right ones."""

    class LayerNorm(Module):
        def __init__(self, width, eps=1e-5, has_bias=True, dtype=np.float64):
            if width < 1 or not eps > 0:
                raise ValueError("the width must be at least 1, eps above 0")
            self.weight = Parameter(np.full(width, 1, dtype))
            self.bias = Parameter(np.full(width, 0, dtype)) if has_bias else None
            self.epsilon = float(eps)

        def check(self, x):
            if x.ndim < 1 or x.shape[-1] != len(self.weight.data):
                raise ValueError("x must be as wide as the weight")

    for name, method in methods.items():
        setattr(LayerNorm, name, method)
    return LayerNorm


def _cast(x, dtype):
    """Change the dtype on the tape."""
    return record(x.data.astype(dtype), (x, lambda g: g))


def _on_the_tape(self, x):
    """Operations of tensors only, in float64; the tape finds the three terms itself."""
    self.check(x)
    wide = _cast(x, np.float64)
    away = wide - wide.mean(axis=-1, keepdims=True)
    y = away / ((away * away).mean(axis=-1, keepdims=True) + self.epsilon).sqrt()
    y = y * _cast(self.weight, np.float64)
    if self.bias is not None:
        y = y + _cast(self.bias, np.float64)
    return _cast(y, x.dtype)


def _matrices(self, x):
    """The matrix of derivatives of each row, written out."""
    self.check(x)
    weight, bias = self.weight, self.bias
    n = len(weight.data)
    rows = x.data.astype(np.float64).reshape(-1, n) if x.data.size else np.zeros((0, n))
    away = rows - rows.mean(axis=1)[:, None]
    inverse = ((away**2).sum(axis=1) / n + self.epsilon) ** -0.5
    y = away * inverse[:, None]
    value = y * weight.data + (0 if bias is None else bias.data)

    def of_x(g):
        found = np.zeros_like(rows)
        for r, arriving in enumerate(g.reshape(len(rows), n)):
            h = arriving * weight.data.astype(np.float64)
            found[r] = inverse[r] * (h - h.sum() / n - y[r] * (y[r] @ h) / n)
        return found.reshape(x.shape)

    edges = [(x, of_x), (weight, lambda g: np.einsum("rn,rn->n", g.reshape(len(rows), n).astype(float), y))]
    if bias is not None:
        edges.append((bias, lambda g: g.reshape(len(rows), n).astype(float).sum(axis=0)))
    return record(value.astype(x.dtype).reshape(x.shape), *edges)


def _by_projection(self, x):
    """The gradient without the parts along ones and along y; the norm of a row in place of its variance."""
    self.check(x)
    weight, bias = self.weight, self.bias
    n = len(weight.data)
    kind = np.promote_types(x.dtype, np.float32)
    wide = np.ascontiguousarray(x.data, dtype=kind).reshape(x.shape)
    centred = wide - np.add.reduce(wide, axis=-1, keepdims=True) / n
    size = np.sqrt(np.square(centred).sum(axis=-1, keepdims=True) / n + self.epsilon)
    y = centred / size
    value = y * weight.data.astype(kind)
    if bias is not None:
        value += bias.data.astype(kind)

    def of_x(g):
        h = g.astype(kind) * weight.data.astype(kind)
        h = h - (h * y).sum(axis=-1, keepdims=True) / n * y
        return (h - h.mean(axis=-1, keepdims=True)) / size

    def summed(g):
        return g.astype(np.float64).reshape(-1, n).sum(axis=0)

    edges = [(x, of_x), (weight, lambda g: summed(g * y))]
    return record(value.astype(x.dtype), *edges, *([] if bias is None else [(bias, summed)]))


def _welford(self, x):
    """Mean and squared distances entry by entry, in float64."""
    self.check(x)
    weight, bias = self.weight, self.bias
    n = len(weight.data)
    wide = x.data.astype(np.float64)
    mean, squares = np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1])
    for k in range(n):
        step = wide[..., k] - mean
        mean = mean + step / (k + 1)
        squares = squares + step * (wide[..., k] - mean)
    inverse = 1 / np.sqrt(squares / n + self.epsilon)
    y = (wide - mean[..., None]) * inverse[..., None]
    value = y * weight.data + (np.zeros(n) if bias is None else bias.data)

    def of_x(g):
        h = g.astype(np.float64) * weight.data
        total, along = h.sum(axis=-1, keepdims=True), (h * y).sum(axis=-1, keepdims=True)
        return (n * h - total - y * along) * inverse[..., None] / n

    def summed(g):
        return g.astype(np.float64).reshape(-1, n).sum(axis=0)

    edges = [(x, of_x), (weight, lambda g: summed(g.astype(np.float64) * y))]
    return record(value.astype(x.dtype), *edges, *([] if bias is None else [(bias, summed)]))


_KNOWN: dict = {}


def _shared_init(self, width, eps=1e-5, has_bias=True, dtype=np.float64):
    if width < 1 or not eps > 0:
        raise ValueError("the width must be at least 1, eps above 0")
    key = (width, np.dtype(dtype).name)
    made = _KNOWN.setdefault(key, (Parameter(np.ones(width, dtype)), Parameter(np.zeros(width, dtype))))
    self.weight, self.bias = made[0], made[1] if has_bias else None
    self.epsilon = float(eps)


def _kept_init(self, width, eps=1e-5, has_bias=True, dtype=np.float64):
    if width < 1 or not eps > 0:
        raise ValueError("the width must be at least 1, eps above 0")
    self.weight = Parameter(np.ones(width, dtype))
    self.bias = Parameter(np.zeros(width, dtype)) if has_bias else None
    self.epsilon, self.kept = float(eps), (self.weight, self.bias)


def _kept_forward(self, x):
    now = self.weight, self.bias
    self.weight, self.bias = self.kept
    y = _on_the_tape(self, x)
    self.weight, self.bias = now
    return y


MISTAKES = {
    "the mean is not subtracted": [(_AWAY, "away = wide")],
    "the mean is subtracted, and then the mean square of the row itself is taken": [
        (_VARIANCE, "(wide * wide).mean(axis=-1, keepdims=True)")
    ],
    "the variance is divided by width - 1": [
        (_VARIANCE, "((away * away).sum(axis=-1, keepdims=True) / max(width - 1, 1))")
    ],
    "the variance is the sum of squares, not their mean": [
        (_VARIANCE, "(away * away).sum(axis=-1, keepdims=True)")
    ],
    "the variance is the mean of the squares minus the square of the mean, which cancels": [
        (
            _VARIANCE,
            "np.maximum((wide * wide).mean(axis=-1, keepdims=True)"
            " - wide.mean(axis=-1, keepdims=True) ** 2, 0)",
        )
    ],
    "the row is divided by its variance": [(_INVERSE, f"inverse = 1 / ({_VARIANCE} + self.eps)")],
    "the row is divided by its mean distance from the mean": [
        (_INVERSE, "inverse = 1 / (np.abs(away).mean(axis=-1, keepdims=True) + self.eps)")
    ],
    "eps is added outside of the root": [(_INVERSE, f"inverse = 1 / (np.sqrt({_VARIANCE}) + self.eps)")],
    "eps is added to the root, squared": [(_INVERSE, f"inverse = 1 / np.sqrt({_VARIANCE} + self.eps**2)")],
    "eps is left out": [(_INVERSE, f"inverse = 1 / np.sqrt(np.maximum({_VARIANCE}, 1e-300))")],
    "eps is the least that the variance may be": [
        (_INVERSE, f"inverse = 1 / np.sqrt(np.maximum({_VARIANCE}, self.eps))")
    ],
    "eps is always 1e-5": [("self.eps = eps", "self.eps = 1e-5")],
    "eps is 1e-6 unless another is given": [("eps: float = 1e-5", "eps: float = 1e-6")],
    "eps of 0 is accepted": [(_EPS, "if eps < 0 or eps != eps:")],
    "a negative eps is accepted": [(_EPS, "if eps == 0 or eps != eps:")],
    "an eps that is no number is accepted": [(_EPS, "if eps <= 0:")],
    "statistics are taken over all axes": [
        (_AWAY, "away = wide - wide.mean(keepdims=True)"),
        (_VARIANCE, "(away * away).mean(keepdims=True)"),
    ],
    "statistics are taken over the axis before the last, as for samples": [
        (_AWAY, "away = wide - wide.mean(axis=max(x.ndim - 2, 0), keepdims=True)"),
        (_VARIANCE, "(away * away).mean(axis=max(x.ndim - 2, 0), keepdims=True)"),
    ],
    "statistics are in the dtype of x, so that float16 overflows": [(_WIDE, "wide = x.data.copy()")],
    "a float64 row is computed in float32": [(_WIDE, "wide = x.data.astype(np.float32)")],
    "the result of a narrow x is wide": [(_END, "return record(value, *edges)")],
    "the gradient has the first term only: mean and variance are constants": [(_BACK, "return inverse * h")],
    "the gradient lacks the term that comes through the variance": [
        (_BACK, "return inverse * (h - h.mean(axis=-1, keepdims=True))")
    ],
    "the gradient lacks the term that comes through the mean": [
        (_BACK, "return inverse * (h - y * (h * y).mean(axis=-1, keepdims=True))")
    ],
    "the gradient takes sums in place of means": [(_BACK, _BACK.replace("mean(", "sum("))],
    "the gradient adds the term that comes through the variance": [(_BACK, _BACK.replace("- y", "+ y"))],
    "the gradient is not divided by the size of the row": [(_BACK, _BACK.replace("inverse * ", ""))],
    "the gradient is divided twice": [(_BACK, _BACK.replace("inverse * ", "inverse**2 * "))],
    "the gradient forgets the weight": [(_H, "h = g.astype(wide.dtype)")],
    "the gradient takes the weight after the means": [
        (_H, "h = g.astype(wide.dtype)"),
        (_BACK, _BACK.replace("inverse *", "weight.data * inverse *")),
    ],
    "the weight's gradient takes x in place of the normalized row": [
        (_OF_WEIGHT, "(weight, lambda g: (g * wide).sum(axis=rows))")
    ],
    "the weight's gradient is the average over rows": [
        (_OF_WEIGHT, "(weight, lambda g: (g * y).sum(axis=rows) / max(y.size // width, 1))")
    ],
    "the weight's gradient is that of the bias": [
        (_OF_WEIGHT, "(weight, lambda g: g.sum(axis=rows, dtype=wide.dtype))")
    ],
    "the bias's gradient is the average over rows": [
        (
            _OF_BIAS,
            "edges.append((bias, lambda g: g.sum(axis=rows, dtype=wide.dtype) / max(y.size // width, 1)))",
        )
    ],
    "the bias's gradient is added up in the dtype of x": [
        (
            _OF_BIAS,
            "edges.append((bias, lambda g: np.add.reduce(g.reshape(-1, width), axis=0, dtype=g.dtype)))",
        )
    ],
    "the weight has no gradient": [
        ("edges = [(x, pull_back), " + _OF_WEIGHT + "]", "edges = [(x, pull_back)]")
    ],
    "the bias has no gradient": [(_OF_BIAS, "pass")],
    "x has no gradient": [("edges = [(x, pull_back), " + _OF_WEIGHT + "]", f"edges = [{_OF_WEIGHT}]")],
    "the weight is not applied": [("value = y * weight.data", "value = y * 1.0")],
    "the weight is applied as 1 + weight": [("value = y * weight.data", "value = y * (1 + weight.data)")],
    "the bias is added before the weight": [
        (
            "value = y * weight.data\n",
            "value = y * weight.data if bias is None else (y + bias.data) * weight.data\n",
        ),
        (_ADDED, "value = value * 1.0"),
    ],
    "the bias is subtracted": [(_ADDED, "value = value - bias.data")],
    "the weight starts at 0": [(_ONES, "self.weight = Parameter(np.zeros(width, dtype))")],
    "the bias starts at 1": [(_ZEROS, _ZEROS.replace("np.zeros", "np.ones"))],
    "there is always a bias": [(_ZEROS, "self.bias = Parameter(np.zeros(width, dtype))")],
    "there is no bias unless it is asked for": [("has_bias: bool = True", "has_bias: bool = False")],
    "there is one weight for the whole row": [
        (_ONES, "self.weight = Parameter(np.ones(1, dtype))"),
        ("self.weight, self.bias, self.weight.shape[0]", "self.weight, self.bias, self.n"),
        ("self.eps = eps", "self.eps, self.n = eps, width"),
    ],
    "the bias comes before the weight": [
        (f"{_ONES}\n        {_ZEROS}", f"{_ZEROS}\n        {_ONES}"),
    ],
    "weight and bias are plain tensors, neither trained nor saved": [
        (_ONES, "self.weight = Tensor(np.ones(width, dtype))"),
        (_ZEROS, "self.bias = Tensor(np.zeros(width, dtype)) if has_bias else None"),
    ],
    "dtype is ignored": [
        (_ONES, "self.weight = Parameter(np.ones(width))"),
        (_ZEROS, "self.bias = Parameter(np.zeros(width)) if has_bias else None"),
    ],
    "all norms of one width share their parameters": {
        "LayerNorm": _norm(__init__=_shared_init, forward=_on_the_tape)
    },
    "the parameters of the start are used, whatever takes their place": {
        "LayerNorm": _norm(__init__=_kept_init, forward=_kept_forward)
    },
    "a last axis of 1 is repeated": [
        (_SHAPE, "if x.ndim == 0 or x.shape[-1] not in (1, width):"),
    ],
    "any width is taken when weight and bias have one entry": [
        (_SHAPE, "if x.ndim == 0 or (x.shape[-1] != width and width != 1):"),
    ],
    "a row without leading axes is refused": [(_SHAPE, "if x.ndim < 2 or x.shape[-1] != width:")],
    "width 0 is accepted": [("if width < 1:", "if width < 0:")],
}

EQUIVALENTS = {
    "operations of tensors only, in float64": {"LayerNorm": _norm(forward=_on_the_tape)},
    "row by row, in float64": {"LayerNorm": _norm(forward=_matrices)},
    "one projection after the other": {"LayerNorm": _norm(forward=_by_projection)},
    "entry by entry, as numbers arrive": {"LayerNorm": _norm(forward=_welford)},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x, weight, bias = rng.normal(size=(2, 3, 4)), 1.5 + rng.normal(size=4), rng.normal(size=4)
    g = rng.normal(size=(2, 3, 4))

    def norm(impl, dtype=np.float64, **options):
        found = impl.LayerNorm(4, dtype=dtype, **options)
        found.load_state_dict({"weight": weight, "bias": bias})
        return found

    def value(rows, **options):
        return lambda impl: norm(impl, **options)(Tensor(rows)).data

    def gradients(rows):
        def probe(impl):
            one, leaf = norm(impl), Tensor(rows.copy(), requires_grad=True)
            one(leaf).backward(g[: len(rows)])
            parts = [leaf.grad, one.weight.grad, one.bias.grad]
            return [np.zeros(1) if each is None else each for each in parts]

        return probe

    def half(size):
        def probe(impl):
            leaf = Tensor((x * size).astype(np.float16))
            return norm(impl, np.float16)(leaf).data

        return probe

    def names(has_bias):
        return lambda impl: str(
            [
                (name, each.shape, str(each.dtype), each.data.tolist())
                for name, each in impl.LayerNorm(2, has_bias=has_bias, dtype=np.float32).named_parameters()
            ]
        )

    def default_names(impl):
        return str([name for name, _ in impl.LayerNorm(2).named_parameters()])

    def exchanged(impl):
        one = norm(impl)
        one.weight = Parameter(weight + 1)
        return one(Tensor(x)).data

    def shared(impl):
        one, two = impl.LayerNorm(6), impl.LayerNorm(6)
        one.weight.data += 1
        return two.weight.data[:1].tolist()

    def refused(*arguments, **options):
        return lambda impl: type(impl.LayerNorm(*arguments, **options)).__name__

    def shape_of(shape, width=4):
        return lambda impl: impl.LayerNorm(width)(Tensor(np.ones(shape))).shape

    def many(impl):
        one = impl.LayerNorm(2, dtype=np.float16)
        one(Tensor(np.tile(np.array([1.0, 7.0], np.float16), (4000, 1)))).backward(np.ones((4000, 2)))
        return [each.grad.astype(np.float64) for each in (one.weight, one.bias)]

    def wants_gradient(impl):
        one = norm(impl)
        with no_grad():
            outside = one(Tensor(x, requires_grad=True)).requires_grad
        return [outside, one(Tensor(x)).requires_grad]

    def default_eps(impl):
        return impl.LayerNorm(2)(Tensor([-3e-3, 3e-3])).data

    def steps(impl):
        return norm(impl)(Tensor(1e4 + np.round(x * 4).astype(np.float32))).data.round(2)

    return {
        "rows": value(x),
        "one row": value(x[0, 0]),
        "rows with eps 0.3": value(x, eps=0.3),
        "small rows": value(x * 3e-3),
        "small rows with eps 1e-6": value(x * 3e-3, eps=1e-6),
        "default eps": default_eps,
        "equal entries": value(np.full((1, 4), 0.5)),
        "around 1e4 in float32": steps,
        "around 1e8": lambda impl: norm(impl)(Tensor(1e8 + np.round(x * 4))).data.round(2),
        "large float16": half(3000),
        "dtype": lambda impl: norm(impl, np.float32)(Tensor(x.astype(np.float16))).dtype.name,
        "gradients": gradients(x),
        "gradients of one row": lambda impl: gradients(x[:1])(impl)[0],
        "many rows of float16": many,
        "names": names(True),
        "names without bias": names(False),
        "default names": default_names,
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
    "weight, bias, width = (self.weight, self.bias, self.weight.shape[0]) => weight, bias, width = (self.weight, self.bias, self.weight.shape[-1])": (
        "the weight has one axis: the first is the last"
    ),
    "wide = x.data.astype(np.result_type(x.dtype, np.float32)) => wide = x.data.astype(np.result_type(np.float32, x.dtype))": (
        "the wider of two dtypes is the same in either order"
    ),
}
