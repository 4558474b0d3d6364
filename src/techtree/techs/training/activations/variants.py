"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record, where


def _s(x):
    """A right sigmoid of an array, so that only what is done with it is wrong."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def _below(x):
    return (1 + _erf(x / math.sqrt(2))) / 2


def _density(x):
    near = np.clip(x, -40, 40)
    return np.exp(-near * near / 2) / math.sqrt(2 * math.pi)


def _curve(value, slope):
    """Make a function of tensors from two functions of arrays."""

    def function(x):
        return record(value(x.data), (x, lambda g: g * slope(x.data)))

    return function


def _gelu_slope(x):
    return _below(x) + np.clip(x, -40, 40) * _density(x)


def _silu_slope(x):
    return _s(x) * (1 + x * (1 - _s(x)))


def _plain_sigmoid(x):
    return 1 / (1 + (-x).exp())


def _other_sigmoid(x):
    return x.exp() / (1 + x.exp())


def _sigmoid_of_both_branches(x):
    return where(x.data >= 0, 1 / (1 + (-x).exp()), x.exp() / (1 + x.exp()))


def _clipped_sigmoid(x):
    return _curve(lambda a: _s(np.clip(a, -30, 30)), lambda a: _s(a) * (1 - _s(a)))(x)


def _tanh_sigmoid(x):
    return (x * 0.5).tanh() * 0.5 + 0.5


def _relu_by_halves(x):
    """(x + |x|) / 2 with the slope sign(x), which is 1/2 at 0."""
    return _curve(lambda a: np.maximum(a, 0), lambda a: (1 + np.sign(a)) / 2)(x)


def _relu_in_place(x):
    x.data[x.data < 0] = 0
    return record(x.data.copy(), (x, lambda g: g * (x.data > 0)))


def _relu_that_is_its_input(x):
    return x if (x.data > 0).all() else _curve(lambda a: np.maximum(a, 0), lambda a: a > 0)(x)


def _guided_relu(x):
    return record(np.maximum(x.data, 0), (x, lambda g: np.where(x.data > 0, np.maximum(g, 0), 0)))


def _abramowitz_erf(x):
    """Formula 7.1.26 of Abramowitz and Stegun: an error of up to 1.5e-7."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    t = 1 / (1 + 0.3275911 * np.abs(x))
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    near = np.minimum(np.abs(x), 9)
    return np.copysign(1 - p * np.exp(-near * near), x).astype(x.dtype)


def _erf_from_one(x):
    """1 - erfc: right to 1e-16, but near 0 that is all there is."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    return (1 - np.vectorize(math.erfc, otypes=[np.float64])(x)).astype(x.dtype)


def _taylor_erf(x):
    """The alternating series, whose terms grow to exp(x**2) before they cancel."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    near = np.clip(x, -5, 5).astype(np.float64)
    term, total = near.copy(), near.copy()
    for n in range(1, 120):
        term = term * (-near * near / n)
        total = total + term / (2 * n + 1)
    value = np.where(np.abs(x) >= 5, np.sign(x), 2 / math.sqrt(math.pi) * total)
    return value.astype(x.dtype)


def _tanh_gelu_from_powers(x):
    """As the formula stands, on the tape: the cube overflows, and its slope becomes 0 times infinity."""
    return x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()) / 2


def _silu_from_exponentials(x):
    return x * x.exp() / (1 + x.exp())


def _silu_with_the_slope_of_a_constant_gate(x):
    return x * _s(x.data)


_ERF = "(1 + erf(x.data / math.sqrt(2))) / 2"
_CUBE = "near + 0.044715 * near * near * near)"
_RISE = "rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)"

MISTAKES = {
    "sigmoid is 1 / (1 + exp(-x)) as it stands: exp overflows, and the slope is NaN far to the left": {
        "sigmoid": _plain_sigmoid
    },
    "sigmoid is exp(x) / (1 + exp(x)): NaN far to the right": {"sigmoid": _other_sigmoid},
    "sigmoid chooses with where between two forms, and the one not taken makes the slope NaN at both ends": {
        "sigmoid": _sigmoid_of_both_branches
    },
    "sigmoid is (1 + tanh(x / 2)) / 2, which is rounded to 0 far to the left": {"sigmoid": _tanh_sigmoid},
    "sigmoid clips x to 30, so that it never goes below 1e-13": {"sigmoid": _clipped_sigmoid},
    "sigmoid has the slope s * (1 + s)": [("g * s * (1 - s)", "g * s * (1 + s)")],
    "sigmoid takes its slope at the value instead of at x": [
        ("lambda g: g * s * (1 - s)", "lambda g: g * _sigmoid(s) * (1 - _sigmoid(s))")
    ],
    "sigmoid is a hard one: x / 6 + 1/2, cut off at 0 and 1": {
        "sigmoid": _curve(lambda a: np.clip(a / 6 + 0.5, 0, 1), lambda a: (np.abs(a) < 3) / 6)
    },
    "sigmoid leaves the tape, so that nothing before it learns": {"sigmoid": lambda x: Tensor(_s(x.data))},
    "sigmoid turns float32 into float64": {
        "sigmoid": _curve(lambda a: _s(a.astype(np.float64)), lambda a: _s(a) * (1 - _s(a)))
    },
    "relu has the slope 1 at 0": [("x.data > 0, g", "x.data >= 0, g")],
    "relu has the slope 1/2 at 0, as the mean of both sides": {"relu": _relu_by_halves},
    "relu passes every gradient, also where it is shut": [("np.where(x.data > 0, g, 0)", "g")],
    "relu passes gradients by their own sign instead of that of x": [("x.data > 0, g", "g > 0, g")],
    "relu passes positive gradients only": {"relu": _guided_relu},
    "relu lets a hundredth of negative entries through (leaky)": {
        "relu": _curve(lambda a: np.where(a > 0, a, a * 0.01), lambda a: np.where(a > 0, 1, 0.01))
    },
    "relu stops at 6": {"relu": _curve(lambda a: np.clip(a, 0, 6), lambda a: (a > 0) & (a < 6))},
    "relu changes its input in place": {"relu": _relu_in_place},
    "relu returns its input itself where nothing is negative": {"relu": _relu_that_is_its_input},
    "relu is the absolute value": {"relu": _curve(np.abs, np.sign)},
    "erf is a short formula from a handbook, wrong by 1e-7": {"erf": _abramowitz_erf},
    "erf is 1 - erfc, without digits near 0": {"erf": _erf_from_one},
    "erf adds up an alternating series, which cancels beyond 3": {"erf": _taylor_erf},
    "erf lacks the factor 2 / sqrt(pi)": [
        ("value[is_near] = 2 / math.sqrt(math.pi) * near", "value[is_near] = near")
    ],
    "erf is the probability to be below x, of a normal number of variance 1": [
        ("return np.copysign(value, x).astype(x.dtype)", "return ((1 + _erf_of(x)) / 2).astype(x.dtype)"),
        (
            "def sigmoid(",
            "def _erf_of(x):\n"
            "    return np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))\n\n\ndef sigmoid(",
        ),
        (_ERF, "(1 + _erf_of(x.data / math.sqrt(2)) * math.sqrt(1)) / 2"),
    ],
    "erf loses the sign": [("np.copysign(value, x)", "value")],
    "erf turns float32 into float64": [
        ("np.copysign(value, x).astype(x.dtype)", "np.copysign(value, x) * np.ones(1)[0]")
    ],
    "gelu is the form with tanh": {
        "gelu": lambda x: _curve(lambda a: a * (1 + np.tanh(_u(a))) / 2, _tanh_slope)(x)
    },
    "gelu is x * sigmoid(1.702 x)": {
        "gelu": _curve(
            lambda a: a * _s(1.702 * a), lambda a: _s(1.702 * a) * (1 + 1.702 * a * (1 - _s(1.702 * a)))
        )
    },
    "gelu takes erf(x) instead of erf(x / sqrt(2))": {
        "gelu": _curve(
            lambda a: a * (1 + _erf(a)) / 2,
            lambda a: (
                (1 + _erf(a)) / 2
                + np.clip(a, -40, 40) * np.exp(-(np.clip(a, -40, 40) ** 2)) / math.sqrt(math.pi)
            ),
        )
    },
    "gelu takes erf(x) instead of erf(x / sqrt(2)), but the slope's density for variance 1": [
        (_ERF, "(1 + erf(x.data)) / 2")
    ],
    "gelu forgets to halve 1 + erf": {
        "gelu": _curve(lambda a: 2 * a * _below(a), lambda a: 2 * _gelu_slope(a))
    },
    "gelu forgets to halve 1 + erf, but has the density right in the slope": [
        (_ERF, "1 + erf(x.data / math.sqrt(2))")
    ],
    "gelu has the slope of a gate that does not move": [
        (" + near * np.exp(-near * near / 2) / math.sqrt(2 * math.pi))", ")")
    ],
    "gelu has a density without its factor 1 / sqrt(2 pi) in the slope": [
        ("np.exp(-near * near / 2) / math.sqrt(2 * math.pi)", "np.exp(-near * near / 2)")
    ],
    "gelu has the density of variance 1/2 in the slope": [
        ("np.exp(-near * near / 2) / math.sqrt(2 * math.pi)", "np.exp(-near * near) / math.sqrt(math.pi)")
    ],
    "gelu has the slope of gelu_tanh": {
        "gelu": lambda x: record(x.data * _below(x.data), (x, lambda g: g * _tanh_slope(x.data)))
    },
    "gelu_tanh is the exact form with erf": {"gelu_tanh": _curve(lambda a: a * _below(a), _gelu_slope)},
    "gelu_tanh has the slope of gelu": {
        "gelu_tanh": _curve(lambda a: a * (1 + np.tanh(_u(a))) / 2, _gelu_slope)
    },
    "gelu_tanh has 0.44715 in place of 0.044715": [
        (_CUBE, _CUBE.replace("0.0", "0.")),
        (_RISE, _RISE.replace("0.0", "0.")),
    ],
    "gelu_tanh squares x instead of cubing it": [
        (_CUBE, _CUBE.replace(" * near * near * near", " * near * near")),
        (_RISE, _RISE.replace("3 * 0.044715 * near * near", "2 * 0.044715 * near")),
    ],
    "gelu_tanh has sqrt(2 pi) in place of sqrt(2 / pi)": [
        ("np.tanh(math.sqrt(2 / math.pi)", "np.tanh(math.sqrt(2 * math.pi)"),
        (_RISE, _RISE.replace("2 / ", "2 * ")),
    ],
    "gelu_tanh lacks the factor of the inner slope": [(_RISE, "rise = 1")],
    "gelu_tanh cubes x in the inner slope without the factor 3": [(_RISE, _RISE.replace("3 * ", ""))],
    "gelu_tanh computes powers of large entries, which overflow in float16, and whose slope is NaN": {
        "gelu_tanh": _tanh_gelu_from_powers
    },
    "silu is the sigmoid": {"silu": _curve(_s, lambda a: _s(a) * (1 - _s(a)))},
    "silu is x * exp(x) / (1 + exp(x)): NaN far to the right": {"silu": _silu_from_exponentials},
    "silu has the slope of a gate that does not move": {"silu": _silu_with_the_slope_of_a_constant_gate},
    "silu has the slope s + x * (1 - s)": [
        ("g * (s * (1 + x.data * (1 - s)))", "g * (s + x.data * (1 - s))")
    ],
    "silu has a gate twice as steep": {
        "silu": _curve(lambda a: a * _s(2 * a), lambda a: _s(2 * a) * (1 + 2 * a * (1 - _s(2 * a))))
    },
    "silu is x * tanh(log(1 + exp(x))), another smooth curve": {"silu": lambda x: x * _softplus(x).tanh()},
}


def _u(x):
    near = np.clip(x, -20, 20)
    return math.sqrt(2 / math.pi) * (near + 0.044715 * near**3)


def _tanh_slope(x):
    near = np.clip(x, -20, 20)
    t = np.tanh(_u(x))
    return (1 + t) / 2 + near * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near**2) / 2


def _softplus(x):
    return record(np.logaddexp(x.data, x.data.dtype.type(0)), (x, lambda g: g * _s(x.data)))


def _looping(value, slope):
    """A curve of one number at a time, in float64."""

    def of_array(f):
        return lambda a: np.vectorize(f, otypes=[np.float64])(a.astype(np.float64)).astype(a.dtype)

    return _curve(of_array(value), of_array(slope))


def _s_of_number(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(max(x, -745.2))


def _tape_silu(x):
    return x * _curve(_s, lambda a: _s(a) * _s(-a))(x)


def _tape_gelu(x):
    """Two factors, of which the gate knows its density; the product rule does the rest."""
    return x * _curve(_below, _density)(x)


def _tape_gelu_tanh(x):
    """As the formula stands, but of entries that are cut off where the gate is fully open or shut."""
    gate = where(np.abs(x.data) < 12, x, np.clip(x.data, -12, 12))
    return x * ((math.sqrt(2 / math.pi) * (gate + 0.044715 * gate * gate * gate)).tanh() * 0.5 + 0.5)


def _selecting_relu(x):
    """By a selection: only the entries above 0 are written, and only they hand gradients back."""
    chosen = x.data > 0
    value = np.zeros_like(x.data)
    value[chosen] = x.data[chosen]

    def pull_back(g):
        back = np.zeros_like(g)
        back[chosen] = g[chosen]
        return back

    return record(value, (x, pull_back))


def _masked_sigmoid(x):
    """Each side of 0 with the form that is safe there."""
    s = np.empty_like(x.data)
    right = x.data >= 0
    s[right] = 1 / (1 + np.exp(-x.data[right]))
    e = np.exp(x.data[~right])
    s[~right] = e / (1 + e)
    return record(s, (x, lambda g: g * (s - s * s)))


def _double_erf(x):
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    return np.array([math.erf(float(each)) for each in x.ravel()], x.dtype).reshape(x.shape)


def _erf_by_two_loops(x):
    """Series and continued fraction as in a handbook: term after term, one number at a time."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    value = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        size = min(abs(float(x[place])), 7.0)
        if size < 3:
            terms, n = [2 / math.sqrt(math.pi) * size * math.exp(-size * size)], 1
            while terms[-1] > 1e-17 * terms[0]:
                terms.append(terms[-1] * 2 * size * size / (2 * n + 1))
                n += 1
            value[place] = math.fsum(terms)
        else:
            fraction = size
            for n in range(60, 0, -1):
                fraction = size + n / 2 / fraction
            value[place] = 1 - math.exp(-size * size) / (math.sqrt(math.pi) * fraction)
    return np.copysign(value, x).astype(x.dtype)


EQUIVALENTS = {
    "erf from the standard library, number by number": {"erf": _double_erf},
    "erf by series and continued fraction, number by number": {"erf": _erf_by_two_loops},
    "sigmoid by masks": {"sigmoid": _masked_sigmoid},
    "sigmoid number by number": {
        "sigmoid": _looping(_s_of_number, lambda x: _s_of_number(x) * _s_of_number(-x))
    },
    "relu by a selection": {"relu": _selecting_relu},
    "relu as a product with booleans": {"relu": lambda x: x * (x.data > 0)},
    "relu by where": {"relu": lambda x: where(x.data > 0, x, 0.0)},
    "gelu by the product rule of the tape": {"gelu": _tape_gelu},
    "gelu by erfc, number by number": {
        "gelu": _looping(
            lambda x: x * (math.erfc(-x / math.sqrt(2)) / 2),
            lambda x: (
                math.erfc(-x / math.sqrt(2)) / 2 + x * math.exp(-min(x * x, 1e4) / 2) / math.sqrt(2 * math.pi)
            ),
        )
    },
    "gelu_tanh on the tape, cut off": {"gelu_tanh": _tape_gelu_tanh},
    "gelu_tanh as x * sigmoid(2 u)": {"gelu_tanh": _curve(lambda a: a * _s(2 * _u(a)), _tanh_slope)},
    "silu by the product rule of the tape": {"silu": _tape_silu},
    "silu as x / 2 * (1 + tanh(x / 2))": {"silu": lambda x: x * 0.5 * (1 + (x * 0.5).tanh())},
}


def _harmless(before, *pairs):
    """Name the mutants of a statement: the text before and after, each with the reason."""
    return {f"{before} => {before.replace(old, new)}": why for old, new, why in pairs}


HARMLESS = {
    **_harmless(
        "N_SERIES, N_FRACTION = (34, 40)",
        *(("34, 40", each, "a term more or less, below the last digit") for each in ("35, 40", "33, 40")),
        *(("34, 40", each, "a term more or less, below the last digit") for each in ("34, 41", "34, 39")),
    ),
    **_harmless(
        "size = np.minimum(np.abs(x.astype(np.result_type(x, np.float32))), 6)",
        ("x, np.float32", "np.float32, x", "the order of two dtypes"),
        ("6)", "7)", "erf is 1 from 6 on"),
    ),
    **_harmless(
        "value, is_near = (np.empty_like(size), size < 2)", ("<", "<=", "both expansions are right at 2")
    ),
    **_harmless(
        "for n in range(2 * N_SERIES + 1, 1, -2):",
        ("S + 1", "S - 1", "a term less, below the last digit"),
        ("2 * N", "3 * N", "more terms"),
        ("1, 1,", "1, 2,", "n is odd: it ends at 3 either way"),
    ),
    **_harmless(
        "near = np.clip(x.data, -40, 40)",
        ("x.data, -40", "-40, x.data", "the larger of the two, whichever is first"),
        *(("-40", each, "the density is 0 there") for each in ("-41", "-39")),
        *((" 40", each, "the density is 0 there") for each in (" 41", " 39")),
    ),
    **_harmless(
        "near = np.clip(x.data, -10, 10)",
        *(("-10", each, "tanh(u) is -1 there") for each in ("-11", "-9")),
        *((" 10", each, "tanh(u) is 1 there") for each in (" 11", " 9")),
    ),
    "return np.where(x >= 0, 1, e) / (1 + e) => return np.where(x > 0, 1, e) / (1 + e)": "e is 1 at 0",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = np.array([-2.6, -1.3, -0.4, 0.2, 0.7, 1.9, 7.5])
    g = np.array([1.0, -2.0, 0.5, 3.0, -1.5, 2.5, -0.7])

    def value(name, x=x):
        return lambda impl: getattr(impl, name)(Tensor(np.array(x))).data

    def slope(name, x=x, g=g):
        def probe(impl):
            leaf = Tensor(np.array(x), requires_grad=True)
            result = getattr(impl, name)(leaf)
            if not result.requires_grad:
                return "no gradient"
            result.backward(np.array(g[: len(x)]))
            return leaf.grad

        return probe

    def far(name, x):
        # Rounded: whether a slope is 0 or 1e-156 says nothing.
        return lambda impl: np.round(slope(name, x, np.ones(2))(impl), 6) + 0.0

    def dtype(name):
        return lambda impl: str(getattr(impl, name)(Tensor(x.astype(np.float32))).dtype)

    def in_float16(impl):
        leaf = Tensor(np.array([-1e4, 1e4], np.float16), requires_grad=True)
        impl.gelu_tanh(leaf).backward(np.ones(2))
        return leaf.grad

    def kept(impl):
        given = Tensor(x.copy())
        impl.relu(given)
        return given.data

    def is_new(impl):
        given = Tensor(np.ones(2))
        return float(np.shares_memory(impl.relu(given).data, given.data))

    found = {}
    for name in ("sigmoid", "relu", "gelu", "gelu_tanh", "silu"):
        found[f"{name}: values"] = value(name)
        found[f"{name}: slopes"] = slope(name)
        found[f"{name}: slopes far to the left"] = far(name, [-1e4, -1e140])
        found[f"{name}: slopes far to the right"] = far(name, [1e4, 1e140])
        found[f"{name}: dtype"] = dtype(name)
    return found | {
        "relu: slope at 0": slope("relu", [0.0, -0.0], np.ones(2)),
        "sigmoid: logarithm far to the left": lambda impl: np.log(impl.sigmoid(Tensor([-40.0, -100.0])).data),
        "gelu_tanh: slopes in float16": in_float16,
        "relu: the input afterwards": kept,
        "relu: whether the result is new": is_new,
        "erf: values": lambda impl: impl.erf(np.array([-1.5, 0.3, 0.9, 2.2, 2.9])),
        "erf: values beyond 3": lambda impl: 1e9 * (1 - impl.erf(np.array([3.0, 4.0, 4.5]))),
        "erf: relative to x near 0": lambda impl: impl.erf(np.array([1e-9, 1e-20])) / np.array([1e-9, 1e-20]),
        "erf: dtype": lambda impl: str(impl.erf(np.ones(2, np.float32)).dtype),
    }
