"""Oracles: definitions summed exactly with `math.fsum`, values worked out by hand, exact identities.

How far may a right version be off? A sum of n terms costs up to n roundings, but the usual sums are far
better: 32 of them, for up to 130 terms. What is rounded besides is a logit or a logarithm as large as the
logits, and an error of that size in an exponent is the same error, relative, in the result.
"""

import math

import numpy as np
import pytest

from techtree.techs import battery

ULPS = 32
ALL_DTYPES = (*battery.FLOATS, *battery.INTEGERS)


def log_of_sum(row):
    largest = max(row)
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(math.fsum(math.exp(x - largest) for x in row))


def slow_logsumexp(x, axis=-1):
    x = np.moveaxis(np.asarray(x, float), axis, -1)
    result = np.zeros(x.shape[:-1])
    for place in np.ndindex(result.shape):
        result[place] = log_of_sum(x[place].tolist())
    return result


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


def logits(rng, spec="... n"):
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
    found = battery.cases(rng, spec, sizes=sizes, dtypes=ALL_DTYPES, values=values)
    sizes = {"m": (1, 2, 130), "n": (1, 3, 130), "k": (0, 1, 130)}
    axes = [{"axis": axis} for axis in (0, 1, 2, -1, -2, -3)]
    return found + battery.cases(rng, "m n k", sizes=sizes, options=axes, values=values)


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


def test_minus_infinity_is_a_probability_of_exactly_zero(impl):
    x = np.array([[-np.inf, 0.0, math.log(3.0)], [1.0, -np.inf, -np.inf]])
    battery.check_equal(impl.softmax(x), [[0, 0.25, 0.75], [1, 0, 0]])
    assert impl.softmax(x)[0, 0] == 0.0
    assert impl.log_softmax(x)[0, 0] == -np.inf
    battery.check_equal(impl.logsumexp(x), [math.log(4.0), 1.0])


def test_logsumexp_of_nothing_but_minus_infinity(impl):
    x = np.array([[-np.inf, -np.inf], [0.0, 0.0]])
    for dtype in battery.FLOATS:
        battery.check_equal(impl.logsumexp(x.astype(dtype)), [-np.inf, math.log(2.0)], dtype=dtype)
        battery.check_equal(impl.logsumexp(x.T.astype(dtype), axis=0), [-np.inf, math.log(2.0)], dtype=dtype)


def slow_error(actual, expected, floor=1e-8):
    worst = 0.0
    for a, e in zip(np.ravel(actual).tolist(), np.ravel(expected).tolist(), strict=True):
        if a != e:
            size = max(abs(a), abs(e), floor)
            worst = max(worst, abs(a - e) / size if math.isfinite(a) and math.isfinite(e) else math.inf)
    return worst


def test_relative_error_is_its_definition(impl, rng):
    values = {
        "huge": lambda shape: rng.normal(size=shape) * 1e200,
        "tiny": lambda shape: rng.normal(size=shape) * 1e-9,
        "with NaN": lambda shape: np.where(np.arange(math.prod(shape)).reshape(shape) == 1, np.nan, 1.0),
        "with infinity": lambda shape: np.where(np.arange(math.prod(shape)).reshape(shape) == 1, np.inf, 1.0),
        "zeros": np.zeros,
        "large": lambda shape: rng.normal(size=shape) * 1e5,
    }
    options = [{}, {"floor": 1.0}, {"floor": 1e-3}]
    for spec in ("a, a", "a b c, a b c"):
        cases = battery.cases(rng, spec, dtypes=ALL_DTYPES, values=values, options=options)
        battery.sweep(impl.relative_error, slow_error, cases, dtype=None)


@pytest.mark.parametrize("place", [0, 57, 129, 199])
def test_one_wrong_entry_is_enough_wherever_it_is(impl, place):
    actual, expected = np.ones((2, 100)), np.ones((2, 100))
    actual.flat[place] = 0.5
    assert impl.relative_error(actual, expected) == pytest.approx(0.5, rel=1e-12)


def test_relative_error_by_hand(impl):
    got = impl.relative_error(np.array([100.0, 2.0]), np.array([101.0, 2.0]))
    assert got == pytest.approx(1 / 101, rel=1e-12)
    assert type(got) is float
    assert impl.relative_error(np.array([-1.0]), np.array([1.0])) == pytest.approx(2.0, rel=1e-12)
    # The largest relative error is not where the largest difference is.
    assert impl.relative_error([1010.0, 2.0], [1000.0, 1.0]) == pytest.approx(0.5, rel=1e-12)
    assert impl.relative_error([1e-12], [0.0]) == pytest.approx(1e-4, rel=1e-9)
    assert impl.relative_error([1e-12], [0.0], floor=1e-12) == pytest.approx(1.0, rel=1e-9)
    assert impl.relative_error(3.0, 3.0) == 0.0
    # The difference is taken in float64, whatever came.
    assert impl.relative_error(np.float32(1) / np.float32(3), 1 / 3) == pytest.approx(2.9802322e-8, rel=1e-6)
    assert impl.relative_error(np.array([200], np.uint8), np.array([100], np.int64)) == pytest.approx(0.5)


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
    for a, b in [((3,), (3, 1)), ((1,), (5,)), ((), (2,)), ((2, 3), (3, 2)), ((0,), (0, 1)), ((1,), ())]:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.relative_error(np.ones(a), np.ones(b))


def draws(impl, seed, name):
    return tuple(impl.random_stream(seed, name).integers(0, 2**63, size=4).tolist())


NAMES = [
    *(
        "",
        "a",
        "b",
        "ab",
        "ba",
        "aab",
        "abb",
        "A",
        "1",
        "11",
        "é",
        "e\u0301",
        "e",
        "a\0",
        "\0a",
        "\0",
        " a",
        "a ",
    ),
    *("plumless", "buckeroo", "codding", "gnu", "exhibiters", "schlager"),  # the same CRC-32, pair by pair
    *("a" * 64, "a" * 65, "a" * 300, "a" * 299 + "b", "x" * 255 + "1", "x" * 255 + "2", "x" * 256),
    *(f"layer {i}" for i in range(20)),
    *("shuffle, epoch 3", "shuffle, epoch 30", "epoch 3, shuffle", "\U0001f600", "\U0001f601", "dropout"),
]
SEEDS = (0, 1, 2, 10, 11, 12345, 2**31, 2**32, 2**32 + 1, 2**63, 2**64, 2**64 + 1, 2**100)


def test_a_stream_repeats_and_is_new_each_time(impl):
    expected = {name: draws(impl, 7, name) for name in NAMES}
    assert isinstance(impl.random_stream(7, "weights"), np.random.Generator)
    first = impl.random_stream(7, "weights")
    first.random(100)  # what one user draws must not move another's numbers
    np.random.default_rng(7).random(10)
    assert {name: draws(impl, 7, name) for name in reversed(NAMES)} == expected


def test_streams_of_different_names_and_seeds_have_nothing_in_common(impl):
    """Names and seeds that careless mixing confuses: anagrams, prefixes, case, long ones, colliding sums."""
    seen = [number for seed in SEEDS for name in NAMES for number in draws(impl, seed, name)]
    assert len(set(seen)) == len(seen)


def test_a_seed_may_be_a_numpy_integer(impl):
    assert draws(impl, np.int64(5), "a") == draws(impl, 5, "a")


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
