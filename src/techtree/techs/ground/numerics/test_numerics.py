"""Oracles: definitions summed exactly with `math.fsum`, values worked out by hand, exact identities."""

import math

import numpy as np
import pytest

# Rounding in a sum of n terms costs at most about n units in the last place. The tests sum up to 64
# terms, so 64 of them, with a factor of 4 for exp and log.
ULPS = 256
TOLERANCE = {np.float64: ULPS * 2.0**-52, np.float32: ULPS * 2.0**-23}


def slow_logsumexp(values) -> float:
    """The definition, summed exactly: only for values that exp can take."""
    return math.log(math.fsum(math.exp(float(v)) for v in values))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_logsumexp_is_its_definition_along_every_axis(impl, rng, axis):
    x = rng.normal(size=(3, 4, 5)) * 5
    got = impl.logsumexp(x, axis=axis)
    rows = np.moveaxis(x, axis, -1)
    expected = [[slow_logsumexp(row) for row in plane] for plane in rows]
    assert np.shape(got) == np.shape(expected)
    assert np.abs(got - expected).max() < TOLERANCE[np.float64] * 10


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_is_its_definition_along_every_axis(impl, rng, axis):
    x = rng.normal(size=(4, 6)) * 5
    got = np.moveaxis(impl.softmax(x, axis=axis), axis, -1)
    rows = np.moveaxis(x, axis, -1)
    expected = [[math.exp(v - slow_logsumexp(row)) for v in row] for row in rows]
    assert got.shape == rows.shape
    assert np.abs(got - expected).max() < TOLERANCE[np.float64]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_softmax_is_its_definition_along_every_axis(impl, rng, axis):
    x = rng.normal(size=(4, 6)) * 5
    got = np.moveaxis(impl.log_softmax(x, axis=axis), axis, -1)
    rows = np.moveaxis(x, axis, -1)
    expected = [[v - slow_logsumexp(row) for v in row] for row in rows]
    assert got.shape == rows.shape
    assert np.abs(got - expected).max() < TOLERANCE[np.float64] * 30  # values reach about 30


def test_the_last_axis_is_the_default(impl, rng):
    x = rng.normal(size=(3, 4))
    assert np.array_equal(impl.logsumexp(x), impl.logsumexp(x, axis=1))
    assert np.array_equal(impl.softmax(x), impl.softmax(x, axis=1))
    assert np.array_equal(impl.log_softmax(x), impl.log_softmax(x, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1e4, -1e4, 800.0, -800.0])
def test_a_common_offset_moves_logsumexp_and_leaves_softmax(impl, rng, dtype, offset):
    """Powers of two as logits: adding the offset is exact, so nothing but the function can err."""
    x = rng.choice([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0], size=(5, 64)).astype(dtype)
    moved = x + dtype(offset)
    ulp = TOLERANCE[dtype]
    assert np.abs(impl.softmax(moved) - impl.softmax(x)).max() < ulp
    assert np.abs(impl.log_softmax(moved) - impl.log_softmax(x)).max() < 10 * ulp
    difference = impl.logsumexp(moved).astype(np.float64) - impl.logsumexp(x).astype(np.float64)
    assert np.abs(difference - offset).max() < ulp * abs(offset)


def test_nothing_overflows_at_the_extremes(impl):
    x = np.array([[1e4, -1e4, 0.0], [700.0, 710.0, 720.0]])
    assert np.abs(impl.softmax(x) - [[1, 0, 0], [math.exp(-20), math.exp(-10), 1]]).max() < 1e-4
    assert np.abs(impl.log_softmax(x) - [[0, -2e4, -1e4], [-20, -10, 0]]).max() < 1e-4
    assert np.abs(impl.logsumexp(x) - [1e4, 720]).max() < 1e-4


def test_rows_of_very_different_size_do_not_disturb_each_other(impl):
    """One maximum for the whole array makes the small row underflow."""
    x = np.array([[1000.0, 1001.0], [-1000.0, -999.0]])
    expected = [1 / (1 + math.e), math.e / (1 + math.e)]
    assert np.abs(impl.softmax(x) - expected).max() < TOLERANCE[np.float64]
    expected = [1001 + math.log1p(math.exp(-1)), -999 + math.log1p(math.exp(-1))]
    assert np.abs(impl.logsumexp(x) - expected).max() < 1000 * TOLERANCE[np.float64]
    assert np.abs(impl.log_softmax(x)[1] - (x[1] - expected[1])).max() < 1000 * TOLERANCE[np.float64]


def test_log_softmax_survives_where_the_probability_underflows(impl):
    for dtype in (np.float32, np.float64):
        got = impl.log_softmax(np.array([0.0, -2000.0, -5000.0], dtype=dtype))
        assert np.array_equal(got, [0.0, -2000.0, -5000.0])


def test_minus_infinity_is_probability_zero(impl):
    x = np.array([-np.inf, 0.0, math.log(3.0)])
    assert np.abs(impl.softmax(x) - [0.0, 0.25, 0.75]).max() < TOLERANCE[np.float64]
    assert impl.softmax(x)[0] == 0.0
    assert impl.log_softmax(x)[0] == -np.inf
    assert abs(impl.logsumexp(x) - math.log(4.0)) < TOLERANCE[np.float64]


def test_logsumexp_of_nothing_but_minus_infinity(impl):
    x = np.array([[-np.inf, -np.inf], [0.0, 0.0]])
    got = impl.logsumexp(x)
    assert got[0] == -np.inf
    assert abs(got[1] - math.log(2.0)) < TOLERANCE[np.float64]


def test_a_single_logit(impl):
    x = np.array([[-3.5], [1e4]])
    assert np.array_equal(impl.softmax(x), [[1.0], [1.0]])
    assert np.array_equal(impl.log_softmax(x), [[0.0], [0.0]])
    assert np.array_equal(impl.logsumexp(x), [-3.5, 1e4])


def test_dtypes(impl):
    """float32 stays float32: a float64 here would double the memory of every model."""
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64)):
        x = np.array([[1, 2, 3]], dtype=dtype)
        assert impl.softmax(x).dtype == expected
        assert impl.log_softmax(x).dtype == expected
        assert np.asarray(impl.logsumexp(x)).dtype == expected
    assert np.abs(impl.softmax(np.array([0, 0])) - 0.5).max() == 0


def test_the_input_is_not_changed(impl, rng):
    for function in (impl.softmax, impl.log_softmax, impl.logsumexp):
        x = rng.normal(size=(3, 4))
        before = x.copy()
        function(x)
        assert np.array_equal(x, before)


def test_relative_error_by_hand(impl):
    assert impl.relative_error(np.array([100.0, 2.0]), np.array([101.0, 2.0])) == pytest.approx(
        1 / 101, rel=1e-12
    )
    assert impl.relative_error(np.array([101.0]), np.array([100.0])) == pytest.approx(1 / 101, rel=1e-12)
    assert impl.relative_error(np.array([-1.0]), np.array([1.0])) == pytest.approx(2.0, rel=1e-12)
    assert impl.relative_error(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.0
    assert impl.relative_error(np.zeros(3), np.zeros(3)) == 0.0
    assert isinstance(impl.relative_error(np.ones(2), np.ones(2)), float)


def test_relative_error_takes_the_largest_not_the_mean_or_the_last(impl):
    actual, expected = np.ones((10, 10)), np.ones((10, 10))
    actual[3, 4] = 0.5
    assert impl.relative_error(actual, expected) == pytest.approx(0.5, rel=1e-12)
    # The largest relative error is not where the largest difference is.
    assert impl.relative_error(np.array([1010.0, 2.0]), np.array([1000.0, 1.0])) == pytest.approx(
        0.5, rel=1e-12
    )


def test_relative_error_has_a_floor(impl):
    assert impl.relative_error(np.array([1e-12]), np.array([0.0])) == pytest.approx(1e-4, rel=1e-9)
    assert impl.relative_error(np.array([1e-12]), np.array([0.0]), floor=1e-12) == pytest.approx(
        1.0, rel=1e-9
    )
    # Above the floor it has no say.
    assert impl.relative_error(np.array([3.0]), np.array([4.0]), floor=1.0) == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_relative_error_fails_on_what_is_not_a_number(impl, value):
    """NaN compares as neither larger nor smaller: a careless maximum or comparison lets it pass."""
    good, bad = np.ones(4), np.array([1.0, value, 1.0, 1.0])
    assert impl.relative_error(bad, good) == np.inf
    assert impl.relative_error(good, bad) == np.inf
    if not np.isnan(value):
        assert impl.relative_error(bad, bad) == 0.0
        assert impl.relative_error(bad, -bad) == np.inf
    else:
        assert impl.relative_error(bad, bad) == np.inf


def test_relative_error_does_not_broadcast(impl):
    for a, b in [((3,), (3, 1)), ((1,), (5,)), ((), (2,)), ((2, 3), (3, 2))]:
        with pytest.raises(ValueError, match="shape"):
            impl.relative_error(np.ones(a), np.ones(b))


def test_relative_error_takes_lists_integers_scalars_and_nothing(impl):
    assert impl.relative_error([1, 2], [1, 4]) == pytest.approx(0.5)
    assert impl.relative_error(3.0, 3.0) == 0.0
    assert impl.relative_error(np.ones((0, 3)), np.ones((0, 3))) == 0.0
    assert impl.relative_error(np.float32(1) / np.float32(3), 1 / 3) < 2.0**-23


def draws(impl, seed, name):
    return impl.random_stream(seed, name).integers(0, 2**63, size=8).tolist()


def test_a_stream_repeats_and_is_new_each_time(impl):
    assert draws(impl, 7, "weights") == draws(impl, 7, "weights")
    first = impl.random_stream(7, "weights")
    first.random(100)  # what one user draws must not move another's numbers
    assert draws(impl, 7, "weights") == draws(impl, 7, "weights")


def test_streams_of_different_names_and_seeds_have_nothing_in_common(impl):
    """Names that careless mixing confuses: anagrams, prefixes, digits that run into the seed."""
    names = ["", "a", "b", "ab", "ba", "aab", "abb", "1", "11", "é", "e", "dropout", "dropout ", "a" * 300]
    names += [f"layer {i}" for i in range(20)]
    seen = [
        number for seed in (0, 1, 2, 10, 11, 12345) for name in names for number in draws(impl, seed, name)
    ]
    assert len(set(seen)) == len(seen)


def test_streams_look_random_across_seeds(impl):
    """The first draws of 4,096 neighbouring streams are uniform: mean 0.5 within 5 standard errors."""
    first = np.array([impl.random_stream(seed, "x").random() for seed in range(4096)])
    assert abs(first.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 4096)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / math.sqrt(4096)


def test_a_stream_does_not_depend_on_the_process(impl, monkeypatch):
    """Python salts `hash` of a string anew in each process, and `id` is an address."""
    before = draws(impl, 3, "data")
    for name in ("hash", "id"):
        monkeypatch.setitem(impl.random_stream.__globals__, name, lambda _: 12345)
    assert draws(impl, 3, "data") == before


def test_a_stream_leaves_the_global_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    draws(impl, 3, "data")
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
