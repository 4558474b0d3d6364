"""Oracles: the formulas with `math` for one number at a time (`math.erfc`, `math.exp`), values by hand."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad

FLOATS = (np.float64, np.float32, np.float16)


def _s(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -745.0)) / (1 + math.exp(max(x, -745.0)))


def _below(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def _tanh_gate(x):
    near = min(max(x, -20.0), 20.0)
    u = math.sqrt(2 / math.pi) * (near + 0.044715 * near**3)
    rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
    return (1 + math.tanh(u)) / 2, near * rise / (2 * math.cosh(min(abs(u), 300.0)) ** 2)


def _density(x):
    return math.exp(-(min(abs(x), 50.0) ** 2) / 2) / math.sqrt(2 * math.pi)


# Name -> value and slope at one number.
ONE_NUMBER = {
    "sigmoid": (_s, lambda x: _s(x) * _s(-x)),
    "relu": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "gelu": (lambda x: x * _below(x), lambda x: _below(x) + max(min(x, 50.0), -50.0) * _density(x)),
    "gelu_tanh": (lambda x: x * _tanh_gate(x)[0], lambda x: sum(_tanh_gate(x))),
    "silu": (lambda x: x * _s(x), lambda x: _s(x) * (1 + min(x, 1e3) * _s(-x))),
}
CURVES = list(ONE_NUMBER)


def definition(name, which=0):
    f = ONE_NUMBER[name][which]
    return lambda x: np.array([f(each) for each in x.ravel().tolist()]).reshape(x.shape)


def size_of_error(name):
    """Values are off by rounding units of x; those of sigmoid, and of relu, by units of the result."""
    return 0.0 if name in ("sigmoid", "relu") else np.abs


def value_and_slope(function, x):
    leaf = Tensor(np.array(x), requires_grad=True)
    y = function(leaf)
    y.backward(np.ones(y.shape))
    return y.data, leaf.grad


def close(got, expected, tolerance=1e-12):
    assert np.shape(got) == np.shape(expected)
    assert np.isfinite(got).all()
    assert np.abs(np.asarray(got) - expected).max(initial=0.0) <= tolerance


def test_sigmoid_by_hand(impl):
    """At log 3 the odds are 3 to 1: 3/4, with the slope 3/4 * 1/4."""
    value, slope = value_and_slope(impl.sigmoid, [-math.log(3), 0.0, math.log(3)])
    close(value, [0.25, 0.5, 0.75])
    close(slope, [3 / 16, 1 / 4, 3 / 16])


def test_silu_by_hand(impl):
    log_3 = math.log(3)
    value, slope = value_and_slope(impl.silu, [-log_3, 0.0, log_3])
    close(value, [-log_3 / 4, 0, 3 * log_3 / 4])
    close(slope, [1 / 4 - log_3 * 3 / 16, 1 / 2, 3 / 4 + log_3 * 3 / 16])


def test_relu_by_hand(impl):
    value, slope = value_and_slope(impl.relu, [-2.0, -1e-300, -0.0, 0.0, 1e-300, 3.0, 7.0])
    assert value.tolist() == [0, 0, 0, 0, 1e-300, 3, 7]
    assert slope.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_gelu_by_hand(impl):
    """A normal number is below 1 with probability 0.84134..., and has the density 0.24197... there."""
    value, slope = value_and_slope(impl.gelu, [-1.0, 0.0, 1.0])
    close(value, [-0.15865525393145707, 0, 0.8413447460685429])
    close(slope, [0.15865525393145707 - 0.24197072451914337, 0.5, 0.8413447460685429 + 0.24197072451914337])


def test_gelu_tanh_by_hand(impl):
    """At 1: u = sqrt(2 / pi) * 1.044715 = 0.833562..., tanh(u) = 0.682383..."""
    value, slope = value_and_slope(impl.gelu_tanh, [-1.0, 0.0, 1.0])
    t = math.tanh(math.sqrt(2 / math.pi) * 1.044715)
    rise = math.sqrt(2 / math.pi) * 1.134145
    close(value, [-(1 - t) / 2, 0, (1 + t) / 2])
    close(value[2], 0.8411919906082768)
    close(slope, [(1 - t) / 2 - (1 - t * t) * rise / 2, 0.5, (1 + t) / 2 + (1 - t * t) * rise / 2])


def test_the_two_forms_of_gelu_are_apart(impl):
    """By up to 4.73e-4, at 2.7: a tolerance of 1e-3 would not see which is which."""
    x = np.linspace(-5, 5, 1001)
    apart = impl.gelu_tanh(Tensor(x)).data - impl.gelu(Tensor(x)).data
    assert 4.732e-4 < np.abs(apart).max() < 4.733e-4
    assert abs(x[np.abs(apart).argmax()]) == pytest.approx(2.7)
    close(apart, definition("gelu_tanh")(x) - definition("gelu")(x), 1e-14)


def test_erf_by_hand(impl):
    close(impl.erf(np.array([0.0, 0.5, -1.0, 2.0, 3.0])), [math.erf(x) for x in (0, 0.5, -1, 2, 3)], 1e-15)
    assert impl.erf(np.array([-np.inf, -1e4, -7.0, 7.0, 1e300, np.inf])).tolist() == [-1, -1, -1, 1, 1, 1]


def test_erf_is_right_in_every_digit(impl, rng):
    """Near 0, where it is 1.128 x, around the places where expansions change, and in the flat part."""
    sizes = np.concatenate(
        [np.geomspace(1e-300, 1e-3, 60), np.linspace(0.001, 6.5, 400), rng.uniform(0, 6, 200)]
    )
    x = np.concatenate([-sizes, sizes])
    battery.check_equal(impl.erf(x), np.array([math.erf(each) for each in x]), ulps=8)
    x = np.concatenate([-sizes[55:], sizes[55:]])
    for dtype in (np.float32, np.float16):
        rounded = x.astype(dtype)
        expected = np.array([math.erf(each) for each in rounded.tolist()])
        battery.check_equal(impl.erf(rounded), expected, ulps=8, dtype=dtype)


def test_erf_everywhere(impl, rng):
    values = {
        "zeros of both signs": lambda shape: np.where(np.arange(math.prod(shape)) % 2, 0.0, -0.0).reshape(
            shape
        ),
        "equal entries": lambda shape: np.full(shape, 1.5),
        "huge entries": lambda shape: rng.normal(size=shape) * 1e30,
        "tiny entries": lambda shape: rng.normal(size=shape) * 1e-30,
    }
    dtypes = (*battery.FLOATS, *battery.INTEGERS)
    found = battery.cases(rng, "... n m", values=values, dtypes=dtypes, largest=1e300)
    found += battery.cases(rng, "", dtypes=battery.FLOATS, layouts=())
    for dtype in FLOATS:
        tiny = np.finfo(dtype).smallest_subnormal * np.array([1.0, -1, 5, 40, -500, 1e3])
        found.append(battery.Case(f"the smallest {np.dtype(dtype)}", (tiny.astype(dtype),)))
        near = np.geomspace(np.finfo(dtype).tiny, 2, 300)
        found.append(battery.Case(f"all sizes of {np.dtype(dtype)}", (near.astype(dtype),)))
        found.append(battery.Case(f"no entries of {np.dtype(dtype)}", (np.zeros((0, 2), dtype),)))
        found.append(
            battery.Case(f"9,000 entries of {np.dtype(dtype)}", (rng.normal(size=9000).astype(dtype),))
        )
    found.append(battery.Case("no integers", (np.zeros(0, np.int64),)))
    for kind in battery.INTEGERS[:-2]:
        ends = np.array([np.iinfo(kind).min, -1 if np.iinfo(kind).min else 1, np.iinfo(kind).max], kind)
        found.append(battery.Case(f"the ends of {np.dtype(kind)}", (ends,)))
    battery.sweep(impl.erf, lambda x: np.vectorize(math.erf, otypes=[float])(x), found, ulps=8)


# Where exponentials and cubes overflow or become 0, up to the largest size that is promised.
ENDS = {
    np.float64: [709.0, 710.0, 745.0, 1e3, 1e4, 1e103, 1e120, 1e150],
    np.float32: [87.0, 88.5, 104.0, 1e3, 1e4, 1e13, 1e16, 1e18],
    np.float16: [11.0, 12.0, 17.0, 40.0, 45.0, 256.0, 1e3, 1e4],
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_overflows(impl, name, dtype):
    x = np.array(ENDS[dtype], dtype)
    for end in (x, -x):
        value, slope = value_and_slope(getattr(impl, name), end)
        plain, limits = end.astype(np.float64), np.finfo(dtype)
        size = np.abs(plain)
        if name in ("sigmoid", "relu"):  # below the smallest normal number 0 will do
            size = float(limits.smallest_normal) / float(limits.eps)
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()
        battery.check_equal(value, definition(name)(plain), ulps=8, magnitude=size, dtype=dtype)
        battery.check_equal(slope, definition(name, 1)(plain), ulps=64, magnitude=1, dtype=dtype)


@pytest.mark.parametrize("name", CURVES)
def test_values_between_the_ends(impl, name, rng):
    """Where gates close: the differences 1 + erf, 1 + tanh and 1 - sigmoid cancel here."""
    for dtype in FLOATS:
        wide = np.linspace(-40, 40, 401), np.linspace(-12, 12, 481), rng.normal(size=100) * 3
        x = np.concatenate(wide).astype(dtype)
        value, slope = value_and_slope(getattr(impl, name), x)
        plain = x.astype(np.float64)
        size = 0.0 if name in ("sigmoid", "relu") else np.abs(plain)
        battery.check_equal(value, definition(name)(plain), ulps=8, magnitude=size, dtype=dtype)
        battery.check_equal(slope, definition(name, 1)(plain), ulps=64, magnitude=1, dtype=dtype)


def test_sigmoid_is_exact_far_to_the_left(impl):
    """A form that subtracts from 1 gives 0 there, whose logarithm is minus infinity."""
    for dtype, ends in (
        (np.float64, [-708.0, -706.0, -704.0, -702.0, -700.0, -300.0, -100.0, -40.0, -37.0]),
        (np.float32, [-87.0, -86.0, -85.0, -50.0, -17.0]),
        (np.float16, [-9.6, -9.3, -9.0]),
    ):
        x = np.array(ends, dtype)
        got = impl.sigmoid(Tensor(x)).data
        battery.check_equal(got, np.exp(x.astype(np.float64)), ulps=8, dtype=dtype)


EXTREME = (1e-320, 1e-310, -1e-310, 1e-150, -1e-20, 1e99, -1e99, 1e149, -1e149)


@pytest.mark.parametrize("name", CURVES)
def test_slopes_of_tiny_numbers(impl, name):
    """Above 0 ReLU is open, however little above."""
    for dtype in FLOATS:
        least = np.finfo(dtype).smallest_subnormal
        x = np.array([least, 3 * least, np.finfo(dtype).tiny, -least, -np.finfo(dtype).tiny], dtype)
        value, slope = value_and_slope(getattr(impl, name), x)
        battery.check_equal(
            value, definition(name)(x.astype(np.float64)), ulps=8, dtype=dtype, magnitude=np.abs(x)
        )
        battery.check_equal(
            slope, definition(name, 1)(x.astype(np.float64)), ulps=64, magnitude=1, dtype=dtype
        )


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_everywhere(impl, name, rng):
    function = getattr(impl, name)
    values = {
        "zeros of both signs": lambda shape: np.where(np.arange(math.prod(shape)) % 2, 0.0, -0.0).reshape(
            shape
        ),
        "equal entries": lambda shape: np.full(shape, -0.75),
        "huge entries": lambda shape: rng.normal(size=shape) * 1e110,
        "tiny entries": lambda shape: rng.normal(size=shape) * 1e-30,
        "entries of 1e4 beside small ones": lambda shape: (
            rng.normal(size=shape) * rng.choice([1e-4, 1, 1e4], shape)
        ),
    }
    values |= {f"entries of {size:g}": lambda shape, size=size: np.full(shape, size) for size in EXTREME}
    # Beyond 1e4 some right forms would need their own tolerance in float16: `test_nothing_overflows`.
    found = battery.cases(rng, "... n m", values=values, largest=1e4)
    found += battery.cases(rng, "", layouts=())
    found.append(battery.Case("9,000 entries", (rng.normal(size=9000) * 3,)))

    def of_array(x):
        result = function(Tensor(x))
        assert isinstance(result, Tensor)
        return result

    battery.sweep(of_array, definition(name), found, ulps=8, magnitude=size_of_error(name))
    battery.sweep_gradients(
        function,
        lambda g, x: [g * definition(name, 1)(x)],
        found,
        tensor=lambda x: Tensor(x, requires_grad=True),
        rng=rng,
        magnitude=4,  # the gradient that arrives; the slope is of size 1
    )


def test_erf_of_the_largest_integers(impl):
    huge = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    battery.check_equal(
        impl.erf(huge), [0, math.erf(1), 1, 1], ulps=8, dtype=np.float64, label=f"erf({huge})"
    )


def test_erf_gives_new_arrays(impl):
    """Of no entries, too."""
    for x in (np.zeros(0), np.zeros((2, 0), np.float32), np.zeros(0, np.int64), np.ones(3)):
        got = impl.erf(x)
        assert isinstance(got, np.ndarray), f"erf({x!r}) must be an array; got {type(got).__name__}"
        assert got.flags.owndata or got.base is not x, f"erf({x!r}) must be a new array; it is a view"
        assert got is not x


@pytest.mark.parametrize("name", CURVES)
def test_gradients_flow_where_they_are_wanted(impl, name, rng):
    function = getattr(impl, name)
    x = rng.normal(size=(3, 4))
    assert not function(Tensor(x)).requires_grad
    leaf = Tensor(x, requires_grad=True)
    with no_grad():
        assert not function(leaf).requires_grad
    y = function(leaf * 2)
    assert y.requires_grad
    # Two uses of one tensor, and two backward passes: gradients add up.
    g = rng.normal(size=(3, 4))
    (y + function(leaf * 2)).backward(g)
    expected = 4 * g * definition(name, 1)(2 * x)
    close(leaf.grad, expected, 1e-12)
    y.backward(g)
    close(leaf.grad, 1.5 * expected, 1e-12)


@pytest.mark.parametrize("name", CURVES)
def test_gradients_pass_whatever_their_sign_and_size(impl, name):
    """What arrives is multiplied, not looked at."""
    g = [-3.0, 2e5, -1e-5, 4.0, -1.0, 1e100, -1e30, 1e-200]
    g += [sign * number for number in aim.NUMBERS for sign in (1.1, -1.1) if number < 1e100]
    g, x = np.array(g), np.resize([-1.5, -1.5, 1.5, 1.5, 0.25], len(g))
    leaf = Tensor(x, requires_grad=True)
    y = getattr(impl, name)(leaf)
    y.backward(g)
    expected = g * definition(name, 1)(x)
    battery.check_equal(leaf.grad, expected, ulps=64, magnitude=np.abs(g))
    leaf.grad = None
    y.backward(-2 * g)  # each pass has its own
    battery.check_equal(leaf.grad, -2 * expected, ulps=64, magnitude=2 * np.abs(g))
    leaf = Tensor(np.full(4, 1.5), requires_grad=True)
    g = np.array([math.inf, -math.inf, math.nan, 1.0])
    getattr(impl, name)(leaf).backward(g)
    battery.check_equal(leaf.grad, g * definition(name, 1)(leaf.data), ulps=64, magnitude=1)
