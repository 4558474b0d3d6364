"""Oracles: definitions summed exactly with `math.fsum`, values worked out by hand, exact identities.

How far may a right version be off? A sum of n terms costs up to n roundings, but the usual sums are far
better: 32 of them, for up to 130 terms. What is rounded besides is a logit or a logarithm as large as the
logits, and an error of that size in an exponent is the same error, relative, in the result.
"""

import hashlib
import itertools
import math
import random
import unicodedata
import zlib

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere

ULPS = 32
ALL_DTYPES = (*battery.FLOATS, *battery.INTEGERS)


KNOWN: dict[tuple, np.ndarray] = {}
"""What the definition gave; the tests ask again for each version."""


def log_of_sum(row):
    largest = row.max()
    if largest == -math.inf:
        return -math.inf
    return float(largest) + math.log(math.fsum(np.exp(row - largest).tolist()))


def slow_logsumexp(x, axis=-1):
    x = np.moveaxis(np.asarray(x, float), axis, -1)
    key = x.shape, x.tobytes()
    if key not in KNOWN:
        KNOWN[key] = np.zeros(x.shape[:-1])
        for place in np.ndindex(x.shape[:-1]):
            KNOWN[key][place] = log_of_sum(x[place])
    return KNOWN[key]


def slow_softmax(x, axis=-1):
    return np.exp(slow_log_softmax(x, axis))


def slow_log_softmax(x, axis=-1):
    return np.asarray(x, float) - np.expand_dims(slow_logsumexp(x, axis), axis)


def size_of_logits(x, axis=-1):
    """The largest finite logit of all, in absolute value, and the logarithm of the number of terms."""
    x = np.asarray(x, float)
    return np.abs(x[np.isfinite(x)]).max(initial=0.0) + math.log(max(x.size, 1)) + 1


def size_of_probabilities(x, axis=-1):
    return slow_softmax(x, axis) * size_of_logits(x, axis)


LEVELS = {
    np.float16: (8, 9, 10, 11, 12, 15, 16, 17),
    np.float32: (20, 40, 60, 80, 83, 86, 87, 88, 89, 95, 100, 103),
    np.float64: (30, 88, 100, 300, 500, 700, 703, 706, 709, 710, 730, 745),
}
"""Where exp becomes so large that a few overflow together, infinite, subnormal, 0."""

N_EQUAL = {np.float16: 100, np.float32: 300, np.float64: 300}


def logits(rng):
    """All sizes, dtypes, layouts, axes; logits far apart, far away, equal, -inf, tiny, signed zeros."""

    def with_minus_infinity(shape):
        x = rng.normal(size=shape)
        x.flat[0] = -np.inf
        return x

    values = {
        "moved far up": lambda shape: rng.normal(size=shape) + 1e4,
        "moved far down": lambda shape: rng.normal(size=shape) - 1e4,
        "far apart": lambda shape: rng.normal(size=shape) * 1e3,
        "beyond the range of exp": lambda shape: np.linspace(-800.0, 800.0, math.prod(shape)).reshape(shape),
        "equal": lambda shape: np.full(shape, 0.3),
        "tiny": lambda shape: rng.normal(size=shape) * 1e-300,
        "signed zeros": lambda shape: np.zeros(shape) * rng.choice([-1.0, 1.0], size=shape),
        "with -inf": with_minus_infinity,
    }
    sizes = {"n": (1, 2, 7, 33, 130)}
    large = {"at_most": 300_000, "largest": 1e300}
    yield from battery.cases(rng, "... n", sizes=sizes, dtypes=ALL_DTYPES, values=values, **large)
    sizes = {"m": (1, 2, 130), "n": (1, 3, 130), "k": (0, 1, 130)}
    axes = [{"axis": axis} for axis in (0, 1, 2, -1, -2, -3)]
    yield from battery.cases(rng, "m n k", sizes=sizes, options=axes, values=values)
    for dtype, (name, make) in itertools.product(battery.FLOATS[:2], values.items()):
        label = f"{name}, {np.dtype(dtype).name}"
        yield Case(label, (make((4, 6)).astype(dtype),))
        yield Case(label, (make((6, 4)).astype(dtype),), {"axis": 0})
    for n_axes in aim.sizes(1, 2, 4, 5, 6, at_most=12):
        shape = ((2, 3, 1, 2, 1, 2) * n_axes)[:n_axes]
        for axis in range(-n_axes, n_axes):
            yield Case(f"axis {axis} of {n_axes}", (rng.normal(size=shape),), {"axis": axis})
    for shape, (layout, lay) in itertools.product([(4, 4), (3, 3, 3)], battery.LAYOUTS.items()):
        for axis in (0, 1, -1):
            yield Case(f"{layout}, axis {axis}", (lay(rng.normal(size=shape)),), {"axis": axis})
    for dtype, (shape, axis) in itertools.product(ALL_DTYPES, [((0, 3), 1), ((3, 0), 0), ((2, 3, 0), -2)]):
        yield Case(f"{np.dtype(dtype).name}, shape {shape}", (np.zeros(shape, dtype),), {"axis": axis})
    for dtype in battery.FLOATS:
        x = rng.normal(size=100).astype(dtype)
        yield Case(f"100 of {np.dtype(dtype).name}", (x,))
        yield Case(f"100 of {np.dtype(dtype).name}", (np.stack([x, -x], axis=-1),), {"axis": 0})
        yield from levels(dtype)
    x = rng.normal(size=(1500, 2))
    yield Case("1500 rows", (x,), {"axis": 0}, 4.0)
    yield Case("1500 entries of float32", (x[:, 0].astype(np.float32),), {}, 4.0)


def levels(dtype):
    """Many equal logits, and a few with -inf among them."""
    largest, n = float(np.finfo(dtype).max), N_EQUAL[dtype]
    for level in LEVELS[dtype]:
        yield from (Case(f"{n} times {each}", (np.full(n, each, dtype),)) for each in (level, -level))
    for far in (1e3, 6e4, 1e6, 1e8, 1e10, 1e20, 1e30, 1e38, 1e100, 1e300):
        if far < largest:
            for row in ([-far, -np.inf], [-np.inf, -far, -np.inf, -far], [-np.inf, far], [far, far, far]):
                yield Case("", (np.array(row, dtype),))
    for number in aim.NUMBERS:
        for level in (0.98 * number, 1.01 * number):
            if level < largest / 4:
                yield Case(f"100 times {level}", (np.full(100, level, dtype),))
                yield Case(f"100 times {-level}", (np.full(100, -level, dtype),))
                yield Case("", (np.array([-np.inf, -level, -2 * level], dtype),))


def test_softmax_is_its_definition(impl, rng):
    battery.sweep(impl.softmax, slow_softmax, logits(rng), ulps=ULPS, magnitude=size_of_probabilities)


def test_log_softmax_is_its_definition(impl, rng):
    battery.sweep(impl.log_softmax, slow_log_softmax, logits(rng), ulps=ULPS, magnitude=size_of_logits)


def test_logsumexp_is_its_definition(impl, rng):
    battery.sweep(impl.logsumexp, slow_logsumexp, logits(rng), ulps=ULPS, magnitude=size_of_logits)


@pytest.mark.parametrize(("dtype", "offset"), [(np.float64, 1e4), (np.float64, -1e4), (np.float32, 1e4)])
def test_an_offset_changes_no_probability(impl, rng, dtype, offset):
    """Sums of small integers and offsets below 2**24 are exact: what remains is the version's own error."""
    x = rng.choice([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], size=(5, 64)).astype(dtype)
    allowed = 16 * float(np.finfo(dtype).eps) * abs(offset)
    assert np.abs(impl.softmax(x + dtype(offset)) - impl.softmax(x)).max() < allowed
    assert np.abs(impl.log_softmax(x + dtype(offset)) - impl.log_softmax(x)).max() < allowed


@pytest.mark.parametrize("dtype", battery.FLOATS)
def test_the_log_survives_where_the_probability_underflows(impl, dtype):
    assert np.array_equal(impl.log_softmax(np.array([0.0, -2000.0, -5000.0], dtype)), [0.0, -2000.0, -5000.0])


def gaps(dtype):
    """From 1 to beyond the range of exp, in steps that are exact in every dtype."""
    beyond = {np.float16: 18, np.float32: 110, np.float64: 760}[dtype]
    more = {np.float16: (4, 6, 7), np.float32: (8, 11, 14, 15, 102.5), np.float64: (20, 24, 28, 31, 34)}[
        dtype
    ]
    yield from sorted({*np.linspace(1, beyond, 25).astype(np.float16).astype(float), *more, beyond - 1.5})


@pytest.mark.parametrize("dtype", battery.FLOATS)
def test_two_logits_at_any_distance(impl, dtype):
    """Nothing is lost on the way to where a probability underflows: 8 roundings of the distance, no more."""
    for gap in gaps(dtype):
        for place in (0, 1):
            x = np.roll(np.array([-gap, 0.0], dtype), place)
            small = math.exp(-gap) / (1 + math.exp(-gap))
            expected = np.roll([-gap - math.log1p(math.exp(-gap)), -math.log1p(math.exp(-gap))], place)
            label = f"logits 0 and {-gap}"
            size = np.roll([8 * gap + 8, 8], place)
            battery.check_equal(impl.log_softmax(x), expected, 1, size, dtype, label)
            expected, size = np.roll([small, 1 - small], place), np.roll([small, 1.0], place) * (8 * gap + 8)
            battery.check_equal(impl.softmax(x), expected, 1, size, dtype, label)
        both = np.array([-gap, -gap - 0.5], dtype)
        expected = -gap + math.log1p(math.exp(float(both[1] - both[0])))
        battery.check_equal(impl.logsumexp(both), expected, 1, 8 * gap + 8, dtype, f"logits {both}")


@pytest.mark.parametrize(("dtype", "n"), [(np.float16, 100), (np.float32, 1000), (np.float64, 1500)])
def test_many_small_terms_count(impl, dtype, n):
    """Far below the largest logit, but many. One after the other, each addition costs half a rounding."""
    for gap in {np.float16: (3, 5, 6), np.float32: (5, 8, 10, 13), np.float64: (10, 15, 20, 25, 30, 34)}[
        dtype
    ]:
        for place in (0, n // 2, n):
            x = np.insert(np.full(n, -gap, dtype), place, 0)
            more = math.log1p(n * math.exp(-gap))
            label = f"{n} logits {-gap} and one 0"
            battery.check_equal(impl.logsumexp(x), more, 1, n / 2 + 64, dtype, label)
            battery.check_equal(impl.log_softmax(x), x.astype(float) - more, 1, n / 2 + 64, dtype, label)
            expected = np.exp(x.astype(float) - more)
            battery.check_equal(impl.softmax(x), expected, n / 2 + 64 + 8 * gap, 0, dtype, label)


@pytest.mark.parametrize("dtype", battery.FLOATS)
def test_minus_infinity_is_a_probability_of_exactly_zero(impl, dtype):
    x = np.array([[-np.inf, 0.0, math.log(3.0)], [1.0, -np.inf, -np.inf], [-5.0, -np.inf, -5.0]], dtype)
    for axis, each in ((-1, x), (0, x.T.copy())):
        p, logs = impl.softmax(each, axis=axis), impl.log_softmax(each, axis=axis)
        hidden = np.isneginf(each)
        battery.check_equal(p, slow_softmax(each, axis), 8, 0, dtype)
        battery.check_equal(
            p[hidden], np.zeros(4), 0, label=f"probabilities of -inf in {battery.drawn(each)}"
        )
        battery.check_equal(logs[hidden], np.full(4, -np.inf), label="log-probabilities of -inf")
        battery.check_equal(
            impl.logsumexp(each, axis=axis), [math.log(4.0), 1.0, -5 + math.log(2)], dtype=dtype
        )


def test_logsumexp_of_nothing_but_minus_infinity(impl):
    x = np.array([[-np.inf, -np.inf], [0.0, 0.0]])
    for dtype in battery.FLOATS:
        battery.check_equal(impl.logsumexp(x.astype(dtype)), [-np.inf, math.log(2.0)], dtype=dtype)
        battery.check_equal(impl.logsumexp(x.T.astype(dtype), axis=0), [-np.inf, math.log(2.0)], dtype=dtype)
        for n in aim.sizes(1, 2, 3, 50, at_most=3000):
            nothing = np.full(n, -np.inf, dtype)
            battery.check_equal(impl.logsumexp(nothing), -np.inf, dtype=dtype, label=f"{n} times -inf")
        nothing = np.full((2, 3, 2), -np.inf, dtype)
        for axis in (0, 1, 2):
            shape = nothing.any(axis).shape
            battery.check_equal(impl.logsumexp(nothing, axis), np.full(shape, -np.inf), label="all is -inf")


def test_integers_of_any_size_count_as_float64(impl):
    for dtype in battery.INTEGERS[:-1]:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        rows = [[low, high], [high, high - 1, low, 0], [high, high], [low, low + 1, low + 3], [0, 3, 100]]
        rows += [[2**24, 2**24 + 1, 2**24 - 3], [1 - 2**24, -(2**24)], [2049, 2051], [2**53, 0, 2**53 - 2]]
        for row in rows:
            if low <= min(row) and max(row) <= high:
                x, plain = np.array(row, dtype), np.array([float(each) for each in row])
                for function, definition in (
                    (impl.softmax, slow_softmax),
                    (impl.log_softmax, slow_log_softmax),
                    (impl.logsumexp, slow_logsumexp),
                ):
                    size = size_of_probabilities if function is impl.softmax else size_of_logits
                    expected, label = definition(plain), f"{row} of {np.dtype(dtype).name}"
                    battery.check_equal(function(x), expected, ULPS, size(plain), np.float64, label)


def test_long_floats_keep_their_dtype_and_foreign_order_of_bytes_is_read(impl, rng):
    for dtype in (np.longdouble, ">f4", ">f8", "<f4"):
        x = rng.normal(size=(3, 4)).astype(dtype)
        for function, definition in (
            (impl.softmax, slow_softmax),
            (impl.log_softmax, slow_log_softmax),
            (impl.logsumexp, slow_logsumexp),
        ):
            got, expected = np.asarray(function(x)), definition(x)
            label = f"{battery.drawn(x)}"
            assert got.dtype.newbyteorder("=") == x.dtype.newbyteorder("="), f"{label} gives {got.dtype}"
            near = np.float32 if x.dtype.itemsize == 4 else np.float64
            battery.check_equal(got.astype(near), expected, ULPS, 4, label=label)


def error_of(impl):
    """The version's relative_error, which must return a float of Python."""

    def relative_error(actual, expected, **options):
        got = impl.relative_error(actual, expected, **options)
        if type(got) is not float:
            given = battery.describe(Case("", (actual, expected), options))
            raise battery.MismatchError(f"a float was expected; {type(got).__name__} came", given)
        return got

    return relative_error


def slow_error(actual, expected, floor=1e-8):
    worst = 0.0
    for a, e in zip(*(np.ravel(x).astype(float).tolist() for x in (actual, expected)), strict=True):
        if a != e:
            size = max(abs(a), abs(e), floor)
            worst = max(worst, abs(a - e) / size if math.isfinite(a) and math.isfinite(e) else math.inf)
    return worst


def pairs(rng):
    def at_one_place(value):
        return lambda shape: np.where(np.arange(math.prod(shape)).reshape(shape) == 1, value, 1.0)

    values = {
        "huge": lambda shape: rng.normal(size=shape) * 1e200,
        "tiny": lambda shape: rng.normal(size=shape) * 1e-9,
        "with NaN": at_one_place(np.nan),
        "with infinity": at_one_place(np.inf),
        "zeros": np.zeros,
        "large": lambda shape: rng.normal(size=shape) * 1e5,
    }
    floors = [1.0, 1e-3, 1e-12, 1e-30, 3, 1e3, 1e9, 1e100]
    floors += [factor * number for number in aim.NUMBERS for factor in (0.1, 10) if number < 1e200]
    options = [{}, *({"floor": floor} for floor in floors[:3])]
    for spec in ("a, a", "a b c, a b c"):
        large = {"at_most": 300_000, "largest": 1e290}
        yield from battery.cases(rng, spec, dtypes=ALL_DTYPES, values=values, options=options, **large)
    for floor, size in itertools.product(floors, (1e-12, 1.0, 1e6)):
        yield Case("", tuple(size * rng.normal(size=(2, 4))), {"floor": floor})
    for a, e in (
        *((0.0, -0.0), ([0.0, 1.0], [-0.0, 1.0]), (0, 0), (True, False), ([True, True], [True, True])),
        *(([[1, 2], [3, 4]], np.array([[1.0, 2.5], [3, 4]])), ((1, 2), [1, 3]), (np.float32(3), 4)),
        *((1e300, -1e300), ([1e300, 1.0], [1e300, 1.5]), (1e300, 1e299), (1e-300, 0.0), (5e-324, -5e-324)),
        *(([np.nan], [np.nan]), (np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf), (-np.inf, -np.inf)),
        *(([np.inf, 1.0], [np.inf, 1.25]), ([-np.inf, np.nan], [-np.inf, 1]), (-np.inf, np.inf)),
        *((np.zeros(0), np.zeros(0)), ([], []), (np.zeros((3, 0, 2)), np.zeros((3, 0, 2)))),
        *((np.float16(np.inf), 1e6), (np.array([1, 2]), [1, np.nan]), (1, 1)),
        *((np.array([1.0, 2.0], ">f8"), np.array([1.0, 3.0], ">f4")), (np.array([3, 5], ">i2"), [3, 4])),
        *((np.array([1, 2], object), [1, 4]), ([1e-9, 2e-9], [2e-9, 1e-9]), ([-2.0, -3.0], [-2.0, -4.0])),
    ):
        yield Case("", (a, e))
    special = (0.0, -0.0, 1.0, -1.0, 1e-9, 1e300, -1e300, np.nan, np.inf, -np.inf)
    for a, e in itertools.product(special, special):
        yield Case("", (a, e))
        yield Case("", (np.array([[a], [2.0]]), np.array([[e], [2.5]])))
    for dtype, value in itertools.product(battery.FLOATS, (np.nan, np.inf, -np.inf)):
        bad = np.array([1, 2, value], dtype)
        yield from (
            Case("", each) for each in ((bad, np.ones(3, dtype)), (np.ones(3, dtype), bad), (bad, bad))
        )


def test_relative_error_is_its_definition(impl, rng):
    battery.sweep(error_of(impl), slow_error, pairs(rng), dtype=None)


def test_one_wrong_entry_is_enough_wherever_it_is(impl):
    for n in aim.sizes(1, 2, 200, 5000, 70_000, at_most=2_000_000):
        for place in {0, n // 4, n // 2, n - 1}:
            actual, expected = np.ones(n), np.ones(n)
            for wrong, error in ((0.5, 0.5), (math.nan, math.inf), (-math.inf, math.inf)):
                actual[place] = wrong
                for shape in {(n,), (2, n // 2), (1, n), (n, 1)} if n % 2 == 0 else {(n,)}:
                    got = error_of(impl)(actual.reshape(shape), expected.reshape(shape))
                    what = f"ones of shape {shape} against the same but {wrong} at place {place}"
                    battery.check_equal(got, error, label=what)


def test_relative_error_by_hand(impl):
    got = impl.relative_error(np.array([100.0, 2.0]), np.array([101.0, 2.0]))
    assert got == pytest.approx(1 / 101, rel=1e-12)
    assert type(got) is float
    assert impl.relative_error(np.array([-1.0]), np.array([1.0])) == pytest.approx(2.0, rel=1e-12)
    # The largest relative error is not where the largest difference is.
    assert impl.relative_error([1010.0, 2.0], [1000.0, 1.0]) == pytest.approx(0.5, rel=1e-12)
    assert impl.relative_error([1e-12], [0.0]) == pytest.approx(1e-4, rel=1e-9)
    assert impl.relative_error([1e-12], [0.0], floor=1e-12) == pytest.approx(1.0, rel=1e-9)
    assert impl.relative_error([1e-12], [0.0], 1e-10) == pytest.approx(1e-2, rel=1e-9)
    assert impl.relative_error([1.0], [2.0], floor=1000.0) == pytest.approx(1e-3, rel=1e-9)
    assert impl.relative_error(3.0, 3.0) == 0.0
    # The difference is taken in float64, whatever came.
    assert impl.relative_error(np.float32(1) / np.float32(3), 1 / 3) == pytest.approx(2.9802322e-8, rel=1e-6)
    assert impl.relative_error(np.array([200], np.uint8), np.array([100], np.int64)) == pytest.approx(0.5)
    low, high = (np.array([bound], np.int64) for bound in (-(2**63), 2**63 - 1))
    assert impl.relative_error(low, high) == pytest.approx(2.0)
    assert impl.relative_error(np.array([2**64 - 1], np.uint64), np.array([2**63], np.uint64)) == 0.5
    assert impl.relative_error(np.array([2**24 + 1]), np.array([2**24])) == pytest.approx(1 / (2**24 + 1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_fails_every_comparison(impl, value):
    """NaN compares as neither larger nor smaller: a careless maximum or comparison lets it pass."""
    good, bad = np.ones(4), np.array([1.0, value, 1.0, 1.0])
    assert impl.relative_error(bad, good) == np.inf
    assert impl.relative_error(good, bad) == np.inf
    assert impl.relative_error(bad, bad) == (np.inf if np.isnan(value) else 0.0)
    assert impl.relative_error(bad, -bad) == np.inf
    # A larger error elsewhere does not hide it, nor does a second one.
    assert impl.relative_error([1.0, value, value], [5.0, 1.0, 2.0]) == np.inf


def test_relative_error_does_not_broadcast(impl):
    shapes = [((3,), (3, 1)), ((1,), (5,)), ((), (2,)), ((2, 3), (3, 2)), ((0,), (0, 1)), ((1,), ())]
    shapes += [((0,), (1,)), ((0,), (2,)), ((0, 3), (0, 4)), ((0, 3), (3, 0)), ((2, 0), (0,)), ((0,), ())]
    shapes += [
        ((1, 1), (1,)),
        ((2, 3), (6,)),
        ((4, 4), (16,)),
        ((1, 3), (3,)),
        ((1, 3), (3, 1)),
        ((3,), (3, 3)),
    ]
    shapes += [((2, 3, 4), (4, 3, 2)), ((2, 3, 4), (2, 4, 3)), ((17,), (34,)), ((3,), (2,)), ((1, 1, 1), ())]
    shapes += [
        ((2, 3, 4), (3, 4)),
        ((2, 3), (2, 1)),
        ((2, 1, 3), (2, 3)),
        ((1, 0), (0, 1)),
        ((2, 2, 2), (2, 4)),
    ]
    shapes += [((n,), (n + 1,)) for n in aim.sizes(99, 4096, at_most=300_000)]
    shapes += [((1,) * n, (1,) * (n + 1)) for n in aim.sizes(3, 4, at_most=20)]
    for one, other in shapes:
        for value in (1.0, np.nan):
            for a, b in ((one, other), (other, one)):
                battery.refuses(impl.relative_error, np.full(a, value), np.full(b, value))
    for a, b in [([1.0], 1.0), (1.0, [[1.0]]), ([1.0, 2.0], [[1.0, 2.0]]), ([], 0.0), ([], [0.0]), (0.0, [])]:
        battery.refuses(impl.relative_error, a, b)


def draws(impl, seed, name, n=4):
    return tuple(impl.random_stream(seed, name).integers(0, 2**63, size=n).tolist())


NAMES = [
    *("", "a", "b", "ab", "ba", "aa", "aab", "abb", "bb", "ac", "A", "1", "11", "a1", "1a", "a11", "0", "00"),
    *(
        "é",
        "e\u0301",
        "e",
        "a\0",
        "a\0\0",
        "\0a",
        "\0",
        "\0\0",
        " a",
        "a ",
        " ",
        "\n",
        "a\n",
        "a\r\n",
        "\x01",
    ),
    *("plumless", "buckeroo", "codding", "gnu", "exhibiters", "schlager"),  # the same CRC-32, pair by pair
    *("Aa", "BB", "AaAa", "BBBB"),  # the same sum in base 31
    *("costarring", "liquid", "declinate", "macallums", "creamwove", "quists"),  # the same FNV hash
    *("hetairas", "mentioner", "heliotropes", "neurospora"),  # the same sum in base 33
    *(f"layer {i}" for i in range(12)),
    *("layer 01", "layer 1 ", "layer1", "layer_1", "layer-1", "layer.1", "layer/1", "Layer 1", "layer  1"),
    *("shuffle, epoch 3", "shuffle, epoch 30", "epoch 3, shuffle", "\U0001f600", "\U0001f601", "dropout"),
    *("initial weights", "weights initial", "None", "0.0", "1.0", "01", "+1", "-1", "True", "\ufeffa"),
]
SEEDS = [0, 1, 2, 10, 11, 97, 98, 12345, 2**31, 2**32, 2**32 + 1, 2**63, 2**64, 2**64 + 1, 2**100]


def large_seeds():
    powers = [
        *range(2, 34),
        40,
        48,
        53,
        60,
        63,
        64,
        65,
        96,
        127,
        128,
        129,
        160,
        192,
        255,
        256,
        257,
        512,
        1000,
    ]
    found = {2**power + more for power in [*powers, 1024, 2000, 4096, 5000] for more in (0, 1)}
    found |= {10**power + more for power in (9, 18, 19, 20, 38, 50, 100, 300) for more in (0, 7)}
    for number in aim.whole(2, 2**5001):
        found |= {
            number - 1,
            number,
            number + 1,
            number + 5,
            2 * number,
            2 * number + 5,
        }
        found |= {10**number, 10**number + 1} if number < 1000 else set()
    return sorted(found | set(range(20)))


def running_together(names):
    """Seeds that look like a seed with a name behind or before it, in words of 32 or 8 bits."""
    for name in names:
        letters = name.encode()
        for rest in ([*letters], [len(letters), *letters], [*letters, len(letters)]):
            for seed, bits in itertools.product((0, 1, 5), (8, 32)):
                yield sum(word << bits * place for place, word in enumerate([seed, *rest]))
                yield sum(word << bits * place for place, word in enumerate([*rest, seed]))


def numbers_of(name):
    """What people make of a name: checksums, its letters or a digest of them, whole or cut."""
    letters = name.encode()
    yield from (sum(letters), zlib.crc32(letters), zlib.adler32(letters))
    for code in (
        letters,
        *(hashlib.new(kind, letters).digest() for kind in ("md5", "sha1", "sha256", "blake2b")),
    ):
        for part in (code, code[:4], code[-4:], code[:8], code[-8:]):
            yield from (int.from_bytes(part, order) for order in ("little", "big"))


def other_spellings(text):
    """Names that careless reading takes for the same."""
    yield from (text, text.strip(), text.rstrip("\n"), text.lower(), text.upper(), text.casefold())
    yield from (text.title(), text + "\n", text + " ", text + "\0", " ".join(text.split()), text[::-1])
    yield from (unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD"))
    yield from (text.encode(code, "ignore").decode(code) for code in ("ascii", "latin-1"))
    yield from (text.replace("\r\n", "\n"), text.replace("\0", ""), text.replace(" ", "_"))
    for bits in (7, 8, 16):
        yield "".join(chr(ord(each) % 2**bits) for each in text).encode("utf-8", "ignore").decode()
    yield bytes(each % 128 for each in text.encode()).decode("ascii")


def long_names():
    lengths = (8, 16, 31, 32, 33, 50, 64, 65, 100, 128, 129, 200, 255, 256, 257, 300, 512, 1000)
    for n in [*lengths, *aim.sizes(at_most=10_000)]:
        text = "ab" * (n // 2) + "a" * (n % 2)
        yield from (text, text + "x", "x" + text, text[: n // 2] + "x" + text[n // 2 + 1 :])
    yield from (text := "ab" * 1000, text + "x", text[:-1] + "x", "x" + text[1:])


def require_unrelated(impl, streams):
    """All numbers of all streams must be different; name the first two streams that share one."""
    owner: dict[int, tuple] = {}
    for seed, name in dict.fromkeys(streams):
        for number in draws(impl, seed, name):
            other = owner.setdefault(number, (seed, name))
            if other != (seed, name):
                raise battery.MismatchError(
                    "two streams share numbers; they must be unrelated",
                    [
                        f"random_stream({battery.drawn(s)}, {battery.drawn(n)})"
                        for s, n in (other, (seed, name))
                    ],
                )


def require_equal_draws(impl, seed, name, expected, when):
    got = draws(impl, seed, name)
    if got != expected:
        asked = f"asked: random_stream({battery.drawn(seed)}, {battery.drawn(name)})"
        raise battery.MismatchError(f"other numbers {when}", [asked, f"first: {expected}", f"now:   {got}"])


def test_a_stream_repeats_and_is_new_each_time(impl):
    expected = {name: draws(impl, 7, name) for name in NAMES}
    assert isinstance(impl.random_stream(7, "weights"), np.random.Generator)
    one, other = impl.random_stream(7, "weights"), impl.random_stream(7, "weights")
    assert one is not other
    assert one.bit_generator is not other.bit_generator
    first = one.random(100)  # what one user draws must not move another's numbers
    assert other.random(100).tolist() == first.tolist()
    np.random.default_rng(7).random(10)
    for name in reversed(NAMES):
        require_equal_draws(impl, 7, name, expected[name], "at a second call")
    for _ in range(max(aim.sizes(30, at_most=3000))):
        require_equal_draws(impl, 7, "ab", expected["ab"], "after many calls")


def test_streams_of_different_names_and_seeds_have_nothing_in_common(impl):
    """Names and seeds that careless mixing confuses: anagrams, prefixes, case, long ones, colliding sums."""
    require_unrelated(impl, itertools.product(SEEDS, NAMES))


def test_streams_of_names_that_careless_reading_confuses_are_unrelated(impl):
    names = dict.fromkeys(
        each
        for text in [*battery.texts(at_most=0).values(), *NAMES[::4], *aim.TEXTS]
        for each in other_spellings(text[:100])
    )
    require_unrelated(impl, [(3, name) for name in [*names, *long_names()]])
    inside = [f"a{text}b" for text in aim.TEXTS if text] + [f"{text}{text}" for text in aim.TEXTS if text]
    require_unrelated(
        impl, [(seed, name) for seed in (0, 1) for name in dict.fromkeys([*inside, "ab", *NAMES])]
    )


def test_streams_of_large_seeds_are_unrelated(impl):
    require_unrelated(impl, itertools.product(large_seeds(), ("", "a")))
    names = ["", "a", "b", "\0", "\0\0", "\x01"]
    require_unrelated(impl, itertools.product([*range(12), *running_together(names)], names))
    names = ["abcd", "a" * 8, "ab" * 8, "ab" * 128]
    streams = [*itertools.product((0, 1, 5), names), *((seed, "") for seed in running_together(names))]
    require_unrelated(impl, streams)


def test_streams_whose_seed_makes_up_for_the_name_are_unrelated(impl):
    """Who adds the seed to a number of the name gives two names one stream, at some distance of seeds."""
    for one, other in itertools.pairwise(["weights", "dropout", "b", "a", "c"]):
        streams = {(5, one): None, (5, other): None}
        for a, b in zip(numbers_of(one), numbers_of(other), strict=True):
            streams |= {
                (max(b - a, 0) + 5, one): None,
                (max(a - b, 0) + 5, other): None,
                (a ^ b ^ 5, one): None,
            }
        require_unrelated(impl, streams)


def test_streams_do_not_run_into_each_other(impl):
    """Not even after the first few numbers: no stream is a later part of another one."""
    owner: dict[int, tuple] = {}
    for stream in itertools.product((0, 1, 2), ("", "a", "b", "c", "abc", "abcd", "weights")):
        for number in draws(impl, *stream, n=400):
            assert owner.setdefault(number, stream) == stream, f"{stream} runs into {owner[number]}"


def test_a_seed_may_be_a_numpy_integer(impl):
    assert draws(impl, np.int64(5), "a") == draws(impl, 5, "a")
    assert draws(impl, np.int64(2**62), "a") == draws(impl, 2**62, "a")


@pytest.mark.parametrize("along", ["seeds", "names"])
def test_streams_look_random_across_seeds_and_names(impl, along):
    """The first draws of 600 neighbouring streams are uniform: all tails of 5 standard errors or less."""
    n = 600
    streams = ((seed, "x") if along == "seeds" else (1, f"x{seed}") for seed in range(n))
    first = np.array([impl.random_stream(*stream).random() for stream in streams])
    assert abs(first.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(n)
    # Kolmogorov and Smirnov: beyond 3.2 / sqrt(n) is as rare.
    assert np.abs(np.sort(first) - (np.arange(n) + 0.5) / n).max() < 3.2 / math.sqrt(n)


def test_a_stream_does_not_depend_on_the_process(impl, monkeypatch):
    """Python salts `hash` of a string anew in each process, and `id` is an address."""
    streams = [(3, "data"), (0, ""), (2**70, "é"), (1, "a" * 100)]
    before = [draws(impl, *stream) for stream in streams]
    with elsewhere(impl):
        for stream, expected in zip(streams, before, strict=True):
            require_equal_draws(impl, *stream, expected, "in another process, on another day or machine")
    for name in ("hash", "id"):
        monkeypatch.setitem(impl.random_stream.__globals__, name, lambda _: 12345)
    for stream, expected in zip(streams, before, strict=True):
        require_equal_draws(impl, *stream, expected, "in another process, where hash and id are others")


def test_a_stream_and_the_global_generators_do_not_meet(impl):
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    expected = draws(impl, 3, "data")
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    require_equal_draws(impl, 3, "data", expected, "when the global generators have another state")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
