"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, einsum, record


def _check_widths(n_in, n_out):
    if n_in < 1 or n_out < 1:
        raise ValueError("widths must be at least 1")


def _drawing(numbers, size):
    """Make a function that draws a weight: numbers of a shape, times a factor that depends on the widths."""

    def draw(n_in, n_out, rng, gain=1.0):
        _check_widths(n_in, n_out)
        return numbers(rng, (n_out, n_in)) * (gain * size(n_in, n_out))

    return draw


def _normal(rng, shape):
    return rng.normal(size=shape)


def _uniform(rng, shape):
    return rng.uniform(-1, 1, size=shape)


def _cut_normal(rng, shape):
    """Normal numbers, drawn again where they are beyond 2."""
    z = rng.normal(size=shape)
    while (far := np.abs(z) > 2).any():
        z[far] = rng.normal(size=int(far.sum()))
    return z


def _one_row(rng, shape):
    return np.repeat(rng.normal(size=(1, shape[1])), shape[0], axis=0)


def _inverse_root(n_in, n_out):
    return 1 / math.sqrt(n_in)


def _average(n_in, n_out):
    return math.sqrt(6 / (n_in + n_out))


def _svd_orthogonal(n_in, n_out, rng, gain=1.0):
    """The orthogonal factor of a normal matrix that is nearest to it."""
    _check_widths(n_in, n_out)
    u, _, v = np.linalg.svd(rng.normal(size=(n_out, n_in)), full_matrices=False)
    return gain * (u @ v)


def _gram_schmidt(n_in, n_out, rng, gain=1.0):
    """One direction after the other, each without its part along those before, twice for the digits."""
    _check_widths(n_in, n_out)
    z = rng.normal(size=(min(n_in, n_out), max(n_in, n_out)))
    for k in range(len(z)):
        for _ in range(2):
            z[k] -= z[:k].T @ (z[:k] @ z[k])
            z[k] /= math.sqrt(z[k] @ z[k])
    return gain * (z if n_out <= n_in else z.T)


def _rotation(n_in, n_out, rng, gain=1.0):
    w = _svd_orthogonal(n_in, n_out, rng)
    if n_in == n_out and np.linalg.det(w) < 0:
        w[0] *= -1
    return gain * w


def _permutation(n_in, n_out, rng, gain=1.0):
    _check_widths(n_in, n_out)
    n = max(n_in, n_out)
    return gain * (np.eye(n)[rng.permutation(n)] * rng.choice([-1, 1], n))[:n_out, :n_in]


def _normalized_rows(n_in, n_out, rng, gain=1.0):
    _check_widths(n_in, n_out)
    w = rng.normal(size=(n_out, n_in))
    return gain * w / np.sqrt((w**2).sum(axis=1, keepdims=True))


def _gain_from(value):
    """Make a version of gain_of from the values f(z) and slopes f'(z) on a grid, and the weights of z."""

    def gain_of(f):
        z = np.linspace(-10, 10, 20001)
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        leaf = Tensor(z, requires_grad=True)
        y = f(leaf)
        if y.requires_grad:
            y.sum().backward()
        slope = np.zeros_like(z) if leaf.grad is None else leaf.grad
        return float(value(y.data, slope, density))

    return gain_of


def _uniform_gain(f):
    z = np.linspace(-1, 1, 20001)
    return float(1 / math.sqrt((f(Tensor(z)).data ** 2).mean()))


def _few_samples_gain(f):
    z = np.random.default_rng(0).normal(size=1000)
    return float(1 / math.sqrt((f(Tensor(z)).data ** 2).mean()))


def _table_gain(f):
    """A table of names, and 1 for the rest."""
    return {"relu": math.sqrt(2), "tanh": 5 / 3}.get(getattr(f, "__name__", ""), 1.0)


def _linear(**changed):
    """Make a Linear class with some methods in the place of the right ones."""

    class Linear(Module):
        def __init__(self, n_in, n_out, rng, has_bias=True, gain=1.0, dtype=np.float64):
            _check_widths(n_in, n_out)
            self.weight = Parameter((rng.normal(size=(n_out, n_in)) * (gain / math.sqrt(n_in))).astype(dtype))
            self.bias = Parameter(np.zeros(n_out, dtype)) if has_bias else None

        def forward(self, x):
            if x.ndim == 0 or x.shape[-1] != self.weight.shape[1]:
                raise ValueError("the last axis of x must be n_in")
            y = x @ self.weight.transpose()
            return y if self.bias is None else y + self.bias

    for name, method in changed.items():
        setattr(Linear, name, method)
    return Linear


def _einsum_forward(self, x):
    if x.ndim == 0 or x.shape[-1] != self.weight.shape[1]:
        raise ValueError("the last axis of x must be n_in")
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = einsum("ni,oi->no", flat, self.weight).reshape(*x.shape[:-1], self.weight.shape[0])
    return y if self.bias is None else y + self.bias


def _one_operation_forward(self, x):
    """Value and three gradients by hand."""
    weight, bias = self.weight, self.bias
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError("the last axis of x must be n_in")
    rows = x.data.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = rows @ weight.data.T
    y = (y if bias is None else y + bias.data).reshape(*x.shape[:-1], len(weight.data))

    def flat(g):
        return g.reshape(len(rows), len(weight.data))

    edges = [(x, lambda g: (flat(g) @ weight.data).reshape(x.shape)), (weight, lambda g: flat(g).T @ rows)]
    if bias is not None:
        edges.append((bias, lambda g: flat(g).sum(axis=0)))
    return record(y, *edges)


def _unit_by_unit_forward(self, x):
    """A sum of columns: input by input."""
    n_in = self.weight.shape[1]
    if x.ndim == 0 or x.shape[-1] != n_in:
        raise ValueError("the last axis of x must be n_in")
    y = x[..., :1] * self.weight[:, 0]
    for k in range(1, n_in):
        y = y + x[..., k : k + 1] * self.weight[:, k]
    return y if self.bias is None else y + self.bias


_BIASES: dict = {}


def _shared_bias(self, n_in, n_out, rng, has_bias=True, gain=1.0, dtype=np.float64):
    _check_widths(n_in, n_out)
    self.weight = Parameter((rng.normal(size=(n_out, n_in)) * (gain / math.sqrt(n_in))).astype(dtype))
    key = (n_out, np.dtype(dtype).name)
    self.bias = _BIASES.setdefault(key, Parameter(np.zeros(n_out, dtype))) if has_bias else None


def _transposed_once(self, n_in, n_out, rng, has_bias=True, gain=1.0, dtype=np.float64):
    _check_widths(n_in, n_out)
    drawn = (rng.normal(size=(n_out, n_in)) * (gain / math.sqrt(n_in))).astype(dtype)
    self.weight = Parameter(drawn)
    self.columns = self.weight.swapaxes(0, 1)
    self.bias = Parameter(np.zeros(n_out, dtype)) if has_bias else None


def _forward_of_columns(self, x):
    if x.ndim == 0 or x.shape[-1] != self.columns.shape[0]:
        raise ValueError("the last axis of x must be n_in")
    y = x @ self.columns
    return y if self.bias is None else y + self.bias


_WEIGHT = "self.weight = Parameter(fan_in_normal(n_in, n_out, rng, gain).astype(dtype))"
_BIAS = "self.bias = Parameter(np.zeros(n_out, dtype)) if has_bias else None"
_PRODUCT = "y = x @ self.weight.swapaxes(0, 1)"
_ADDED = "return y if self.bias is None else y + self.bias"
_NORMAL = "rng.normal(size=(n_out, n_in)) * (gain / math.sqrt(n_in))"
_CHECK = "if n_in < 1 or n_out < 1:"
_SIGNS = "    q *= np.where(np.diagonal(r) < 0, -1, 1)  # QR prefers some signs; the normal numbers did not\n"

MISTAKES = {
    "Linear keeps its weight as (n_in, n_out)": [
        (_WEIGHT, _WEIGHT.replace("gain).astype", "gain).T.astype")),
        (_PRODUCT, "y = x @ self.weight"),
        ("n_in = self.weight.shape[1]", "n_in = self.weight.shape[0]"),
    ],
    "Linear multiplies by the weight as it is, which only fits when it is square": [
        (_PRODUCT, "y = x @ self.weight")
    ],
    "Linear forgets its bias": [(_ADDED, "return y")],
    "Linear subtracts its bias": [(_ADDED, "return y if self.bias is None else y - self.bias")],
    "Linear has a bias always": [(" if has_bias else None", "")],
    "Linear has no bias unless it is asked for": [("has_bias: bool = True", "has_bias: bool = False")],
    "Linear draws its bias at random": [("np.zeros(n_out, dtype)", "rng.normal(size=n_out).astype(dtype)")],
    "Linear starts its bias at 1": [("np.zeros(n_out, dtype)", "np.ones(n_out, dtype)")],
    "Linear has a bias of shape (1, n_out)": [("np.zeros(n_out, dtype)", "np.zeros((1, n_out), dtype)")],
    "Linear has one bias for all its units": [("np.zeros(n_out, dtype)", "np.zeros(1, dtype)")],
    "Linear ignores its gain": [("rng, gain).astype", "rng).astype")],
    "Linear takes a gain of 0 for none given": [("rng, gain).astype", "rng, gain or 1.0).astype")],
    "Linear has the gain of ReLU unless another is given": [
        (
            "has_bias: bool = True,\n        gain: float = 1.0",
            "has_bias: bool = True,\n        gain: float = 2**0.5",
        )
    ],
    "Linear ignores dtype, so that a float32 network computes in float64": [
        ("gain).astype(dtype))", "gain))"),
        ("np.zeros(n_out, dtype)", "np.zeros(n_out)"),
    ],
    "Linear gives the dtype to its weight only": [("np.zeros(n_out, dtype)", "np.zeros(n_out)")],
    "Linear draws from a generator of its own, so that all layers are alike": [
        (
            "fan_in_normal(n_in, n_out, rng, gain).astype",
            "fan_in_normal(n_in, n_out, np.random.default_rng(0), gain).astype",
        )
    ],
    "Linear has a weight that is a plain tensor, and is neither trained nor saved": [
        ("self.weight = Parameter(", "self.weight = Tensor(")
    ],
    "Linear names its weight differently": [
        ("self.weight = Parameter(", "self.w = self.kept = Parameter("),
        ("n_in = self.weight.shape[1]", "n_in = self.w.shape[1]"),
        (_PRODUCT, "y = x @ self.w.swapaxes(0, 1)"),
    ],
    "Linear assigns the bias before the weight": [
        (f"{_WEIGHT}\n        {_BIAS}", f"{_BIAS}\n        {_WEIGHT}")
    ],
    "Linear starts with all weights equal": [
        (
            "fan_in_normal(n_in, n_out, rng, gain).astype",
            "(fan_in_normal(n_in, n_out, rng, gain) * 0 + gain / n_in).astype",
        )
    ],
    "Linear starts with weights of 0": [("rng, gain).astype(dtype)", "rng, gain).astype(dtype) * 0")],
    "Linear lets no gradient through to its weight": [
        (_PRODUCT, "y = x @ self.weight.detach().swapaxes(0, 1)")
    ],
    "Linear lets no gradient through to what comes in": [
        (_PRODUCT, "y = x.detach() @ self.weight.swapaxes(0, 1)")
    ],
    "Linear hands its weight the gradient transposed, which shows when it is square": [
        (
            _PRODUCT,
            "bare = self.weight\n"
            "        back = (bare, lambda g: g if g.shape == bare.shape else g.T)\n"
            "        y = x @ record(bare.data.T, back)",
        ),
        ("import Tensor, no_grad", "import Tensor, no_grad, record"),
    ],
    "Linear transposes its weight once for all, and does not see it exchanged": {
        "Linear": _linear(__init__=_transposed_once, forward=_forward_of_columns)
    },
    "Linear shares its bias with every layer of the same width": {"Linear": _linear(__init__=_shared_bias)},
    "Linear multiplies and adds up, so that a last axis of 1 is repeated": [
        ("if x.ndim == 0 or x.shape[-1] != n_in:", "if x.ndim == 0 or x.shape[-1] not in (1, n_in):"),
        (_PRODUCT, "y = (x.reshape(*x.shape[:-1], 1, x.shape[-1]) * self.weight).sum(axis=-1)"),
    ],
    "Linear joins all axes of x but the first": [
        (
            "if x.ndim == 0 or x.shape[-1] != n_in:",
            "x = x.reshape(x.shape[0], -1) if x.ndim > 2 and x.shape[0] else x\n"
            "        if x.ndim == 0 or x.shape[-1] != n_in:",
        )
    ],
    "Linear cuts what is too long off": [
        (
            "if x.ndim == 0 or x.shape[-1] != n_in:",
            "x = x[..., :n_in] if x.ndim else x\n        if x.ndim == 0 or x.shape[-1] != n_in:",
        )
    ],
    "fan_in_normal takes 1 / n_in for the standard deviation": [
        (_NORMAL, _NORMAL.replace("math.sqrt(n_in)", "n_in"))
    ],
    "fan_in_normal takes the number of outputs": [(_NORMAL, _NORMAL.replace("sqrt(n_in)", "sqrt(n_out)"))],
    "fan_in_normal takes the average of both widths": [
        (_NORMAL, _NORMAL.replace("sqrt(n_in)", "sqrt((n_in + n_out) / 2)"))
    ],
    "fan_in_normal doubles the variance by itself": [
        (_NORMAL, _NORMAL.replace("(gain /", "(gain * math.sqrt(2) /"))
    ],
    "fan_in_normal is always 0.02": [(_NORMAL, _NORMAL.replace("gain / math.sqrt(n_in)", "gain * 0.02"))],
    "fan_in_normal takes the gain for a factor on the variance": [
        (_NORMAL, _NORMAL.replace("(gain /", "(math.sqrt(gain) /"))
    ],
    "fan_in_normal is uniform, of the right variance": {
        "fan_in_normal": _drawing(_uniform, lambda n_in, n_out: math.sqrt(3 / n_in))
    },
    "fan_in_normal is uniform up to 1 / sqrt(n_in), a third of the variance": {
        "fan_in_normal": _drawing(_uniform, _inverse_root)
    },
    "fan_in_normal cuts the distribution off at two standard deviations": {
        "fan_in_normal": _drawing(_cut_normal, _inverse_root)
    },
    "fan_in_normal repeats one row for all units": {"fan_in_normal": _drawing(_one_row, _inverse_root)},
    "fan_in_normal draws from NumPy's global generator": {
        "fan_in_normal": _drawing(lambda rng, shape: np.random.normal(size=shape), _inverse_root)  # noqa: NPY002
    },
    "fan_in_normal has a mean above 0": {
        "fan_in_normal": _drawing(lambda rng, shape: np.abs(rng.normal(size=shape)), _inverse_root)
    },
    "fan_average_uniform is normal, of the right variance": {
        "fan_average_uniform": _drawing(_normal, lambda n_in, n_out: math.sqrt(2 / (n_in + n_out)))
    },
    "fan_average_uniform has the root of 2 / (n_in + n_out), its standard deviation, for a bound": {
        "fan_average_uniform": _drawing(_uniform, lambda n_in, n_out: math.sqrt(2 / (n_in + n_out)))
    },
    "fan_average_uniform takes the number of inputs only": {
        "fan_average_uniform": _drawing(_uniform, lambda n_in, n_out: math.sqrt(3 / n_in))
    },
    "fan_average_uniform is never below 0": {
        "fan_average_uniform": _drawing(lambda rng, shape: rng.uniform(0, 1, shape), _average)
    },
    "fan_average_uniform forgets the root": {
        "fan_average_uniform": _drawing(_uniform, lambda n_in, n_out: 6 / (n_in + n_out))
    },
    "orthogonal takes the signs that QR prefers": [(_SIGNS, "")],
    "orthogonal never mirrors": {"orthogonal": _rotation},
    "orthogonal exchanges coordinates and turns signs, and nothing between": {"orthogonal": _permutation},
    "orthogonal normalizes its rows, which are not at right angles": {"orthogonal": _normalized_rows},
    "orthogonal returns the weight transposed": [
        ("(q if n_out >= n_in else q.T)", "(q.T if n_out >= n_in else q)")
    ],
    "orthogonal ignores its gain": [("return gain * (q if", "return 1.0 * (q if")],
    "orthogonal takes the square of the gain": [("return gain * (q if", "return gain**2 * (q if")],
    "gain_of returns the root of the mean square, not 1 over it": {
        "gain_of": _gain_from(lambda y, slope, p: math.sqrt((y * y * p).sum()))
    },
    "gain_of returns 1 over the mean square, without the root": {
        "gain_of": _gain_from(lambda y, slope, p: 1 / (y * y * p).sum())
    },
    "gain_of takes the standard deviation, without the mean": {
        "gain_of": _gain_from(
            lambda y, slope, p: 1 / math.sqrt(max((y * y * p).sum() - (y * p).sum() ** 2, 1e-20))
        )
    },
    "gain_of takes the mean of the sizes": {
        "gain_of": _gain_from(lambda y, slope, p: 1 / (np.abs(y) * p).sum())
    },
    "gain_of takes the mean square of the slope": {
        "gain_of": _gain_from(lambda y, slope, p: 1 / math.sqrt(max((slope * slope * p).sum(), 1e-20)))
    },
    "gain_of averages over [-1, 1] instead of a normal number": {"gain_of": _uniform_gain},
    "gain_of averages over a thousand random numbers, good to two digits": {"gain_of": _few_samples_gain},
    "gain_of looks names up, and returns 1 for what it does not know": {"gain_of": _table_gain},
    "a width of 0 is accepted": [
        (_CHECK, "if n_in < 0 or n_out < 0:"),
        ("gain / math.sqrt(n_in)", "gain / math.sqrt(max(n_in, 1))"),
        ("math.sqrt(6 / (n_in + n_out)) * rng", "math.sqrt(6 / max(n_in + n_out, 1)) * rng"),
    ],
}


def _box_muller(rng, shape):
    """Two uniform numbers make a normal one."""
    return np.sqrt(-2 * np.log(1 - rng.random(shape))) * np.cos(2 * math.pi * rng.random(shape))


def _row_by_row(rng, shape):
    return np.array([rng.standard_normal(shape[1]) for _ in range(shape[0])])


def _hermite_gain(f):
    """Simpson's rule on a fine grid."""
    z = np.linspace(-12, 12, 60001)
    values = np.asarray(f(Tensor(z)).data) ** 2 * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    weights = np.where(np.arange(len(z)) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1
    return float((values * weights).sum() * (z[1] - z[0]) / 3) ** -0.5


EQUIVALENTS = {
    "Linear as one operation with gradients by hand": {"Linear": _linear(forward=_one_operation_forward)},
    "Linear by einsum": {"Linear": _linear(forward=_einsum_forward)},
    "Linear as a sum over the inputs": {"Linear": _linear(forward=_unit_by_unit_forward)},
    "fan_in_normal from uniform numbers": {"fan_in_normal": _drawing(_box_muller, _inverse_root)},
    "fan_in_normal row by row": {"fan_in_normal": _drawing(_row_by_row, _inverse_root)},
    "fan_in_normal with the standard deviation in the draw, transposed": {
        "fan_in_normal": _drawing(
            lambda rng, shape: rng.normal(0, 1, size=shape[::-1]).T.copy(), _inverse_root
        )
    },
    "fan_average_uniform from random()": {
        "fan_average_uniform": _drawing(lambda rng, shape: 2 * rng.random(shape) - 1, _average)
    },
    "orthogonal by singular values": {"orthogonal": _svd_orthogonal},
    "orthogonal by Gram and Schmidt": {"orthogonal": _gram_schmidt},
    "gain_of by Simpson's rule": {"gain_of": _hermite_gain},
}


def _harmless(before, *pairs):
    """Name the mutants of a statement: the text before and after, each with the reason."""
    return {f"{before} => {before.replace(old, new)}": why for old, new, why in pairs}


HARMLESS = {
    **{
        f"_check_widths(n_in, n_out) => _check_widths(n_out, n_in){number}": "both are checked alike"
        for number in ("", " #2", " #3")
    },
    **_harmless(
        "q *= np.where(np.diagonal(r) < 0, -1, 1)",
        ("<", "<=", "a diagonal of 0 has no chance"),
        ("<", ">=", "all signs turned are as likely"),
    ),
    **_harmless(
        "return gain * (q if n_out >= n_in else q.T)", (">=", ">", "a transposed square is as likely")
    ),
    **_harmless(
        "z = np.linspace(-10, 10, 20001)",
        *(("-10", each, "the density is 0 there") for each in ("-11", "-9")),
        *((" 10", each, "the density is 0 there") for each in (" 11", " 9")),
        *(("20001", each, "a point more or less") for each in ("20002", "20000")),
    ),
    "if x.ndim == 0 or x.shape[-1] != n_in: => if False:": "the product refuses the same, in other words",
    "raise ValueError(f'x must have a last axis of {n_in}; got the shape {x.shape}') => pass": "the same",
    **{
        f"{name}: float32 becomes float64": "weights are drawn in float64"
        for name in ("fan_in_normal", "fan_average_uniform", "orthogonal")
    },
    **{
        f"gain_of: {what}": "takes a function, no array"
        for what in (
            "wrong beyond 128 on an axis",
            "wrong for an axis of length 1",
            "refuses arrays without entries",
            "wrong for more than two axes",
            "wrong for arrays that are not contiguous",
            "wrong for float32",
            "wrong for values beyond 1e4",
            "changes an argument",
            "remembers results by the shape of the arguments",
        )
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(2, 3, 3))
    weight, bias = rng.normal(size=(3, 3)), rng.normal(size=3)

    def layer(impl):
        found = impl.Linear(3, 3, np.random.default_rng(0))
        found.load_state_dict({"weight": weight, "bias": bias})
        return found

    def gradients(impl):
        one, leaf = layer(impl), Tensor(x.copy(), requires_grad=True)
        one(leaf).backward(np.cos(np.arange(18.0)).reshape(2, 3, 3))
        parts = [one.weight.grad, one.bias.grad, leaf.grad]
        return [
            float(np.nan if each is None else np.cos(each).ravel() @ np.arange(each.size)) for each in parts
        ]

    def names(has_bias):
        return lambda impl: str(
            [
                (name, each.shape)
                for name, each in impl.Linear(
                    2, 5, np.random.default_rng(0), has_bias=has_bias
                ).named_parameters()
            ]
        )

    def default_names(impl):
        return str([name for name, _ in impl.Linear(2, 5, np.random.default_rng(0)).named_parameters()])

    def dtypes(impl):
        found = impl.Linear(2, 5, np.random.default_rng(0), dtype=np.float32)
        return str([str(each.dtype) for each in found.parameters()])

    def exchanged(impl):
        one = layer(impl)
        one.weight = Parameter(weight + 1)
        return one(Tensor(x)).data

    def shared(impl):
        one, two = (impl.Linear(2, 3, np.random.default_rng(0)) for _ in range(2))
        one.bias.data += 1
        return two.bias.data.ravel()

    def start_of_bias(impl):
        return float(np.round(np.abs(impl.Linear(2, 300, np.random.default_rng(0)).bias.data).mean() * 2))

    def sizes(draw, n_in, n_out, **options):
        """Moments of a large weight, rounded to what random numbers do not move."""

        def probe(impl):
            w = draw(impl)(n_in, n_out, np.random.default_rng(0), **options)
            w = np.asarray(getattr(getattr(w, "weight", w), "data", w))
            square = max(float((w**2).mean()), 1e-30)
            scale = math.sqrt(square * n_in)
            kurtosis = float((w**4).mean()) / square**2
            beyond = float(np.abs(w).max() / math.sqrt(square) > 2.7)
            answers = [
                round(8 * scale) / 8,
                round(float(w.mean()) / math.sqrt(square), 1) + 0.0,
                round(2 * kurtosis),
            ]
            return [*answers, beyond, float(len(np.unique(w)) > w.size // 2)]

        return probe

    def of(name):
        return lambda impl: getattr(impl, name)

    def first_signs(impl):
        """How often the first entry and the determinant are above 0, of eighty: never, sometimes, always."""
        drawn = np.array([impl.orthogonal(3, 3, np.random.default_rng(seed)) for seed in range(80)])
        shares = [(drawn[:, 0, 0] > 0).mean(), (drawn[:, 1, 1] > 0).mean(), (np.linalg.det(drawn) > 0).mean()]
        return [*(float(round(2 * share)) for share in shares), float(len(np.unique(np.abs(drawn))) > 2)]

    def repeats(name):
        def probe(impl):
            draw = getattr(impl, name)
            np.random.seed(1)  # noqa: NPY002
            a = draw(3, 3, np.random.default_rng(1), **({"has_bias": False} if name == "Linear" else {}))
            b = draw(3, 3, np.random.default_rng(1), **({"has_bias": False} if name == "Linear" else {}))
            c = draw(3, 3, np.random.default_rng(2), **({"has_bias": False} if name == "Linear" else {}))
            a, b, c = (np.asarray(getattr(getattr(w, "weight", w), "data", w)) for w in (a, b, c))
            return [float(np.array_equal(a, b)), float(np.array_equal(a, c))]

        return probe

    def gram(n_in, n_out):
        def probe(impl):
            w = impl.orthogonal(n_in, n_out, np.random.default_rng(0), gain=3.0)
            return [*map(float, w.shape), *np.round(np.linalg.svd(w)[1], 6).tolist()]

        return probe

    def gain(f):
        # Rounded: a right version is good to three digits only.
        return lambda impl: float(f"{impl.gain_of(f):.2g}")

    def call(width):
        return lambda impl: (
            impl.Linear(3, 2, np.random.default_rng(0))(Tensor(np.ones((2, width)))).shape[0] * 1.0
        )

    return {
        "the map": lambda impl: layer(impl)(Tensor(x)).data,
        "gradients": gradients,
        "parameters": names(True),
        "parameters without a bias": names(False),
        "parameters by default": default_names,
        "dtypes": dtypes,
        "after the weight is exchanged": exchanged,
        "another layer's bias": shared,
        "the bias at the start": start_of_bias,
        "sizes of a layer's weights": sizes(of("Linear"), 100, 900),
        "sizes of a layer's weights, gain 4": sizes(of("Linear"), 100, 900, gain=4.0),
        "sizes of a layer's weights, gain 0": sizes(of("Linear"), 100, 900, gain=0.0),
        "sizes of normal weights": sizes(of("fan_in_normal"), 100, 900),
        "sizes of normal weights, gain 4": sizes(of("fan_in_normal"), 100, 900, gain=4.0),
        "sizes of uniform weights": sizes(of("fan_average_uniform"), 100, 900),
        "repeats": repeats("Linear"),
        "repeats of normal weights": repeats("fan_in_normal"),
        "signs of orthogonal weights": first_signs,
        "singular values": gram(4, 4),
        "singular values, more inputs": gram(5, 3),
        "gain of the identity": gain(lambda x: x),
        "gain of the identity, whether to three digits": lambda impl: (
            abs(impl.gain_of(lambda x: x) - 1) < 2e-3
        ),
        "gain of a tenth": gain(lambda x: x * 0.1),
        "gain of the square plus 1": gain(lambda x: x * x + 1),
        "gain of tanh": gain(Tensor.tanh),
        "gain of x + 2": gain(lambda x: x + 2),
        "an input of width 1": call(1),
        "an input of width 4": call(4),
        "three axes": lambda impl: str(layer(impl)(Tensor(np.ones((2, 1, 3)))).shape),
        "three axes that fit when joined": lambda impl: str(
            impl.Linear(4, 2, np.random.default_rng(0))(Tensor(np.ones((3, 2, 2)))).shape
        ),
        "a width of 0": lambda impl: impl.fan_in_normal(0, 3, np.random.default_rng(0)).size * 1.0,
    }
