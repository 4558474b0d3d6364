"""Oracles: derivatives worked out by hand, functions whose differences are exact, the points that f gets."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery

# The step that the docstring names, and what it leaves of float64's digits: with h = 6e-6 the cut-off
# series costs h**2 / 6 = 6e-12 for a third derivative of 1, rounding eps / h = 4e-11 for values of 1. The
# functions below have values and third derivatives up to about 20. A one-sided difference would err by h
# / 2 = 3e-6.
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
TOLERANCE = 1e-8


def recorder(f):
    """Return f and the list of the points that it is called with, as they were at the call."""
    points = []

    def recording(x):
        points.append(np.array(x))
        return f(x)

    return recording, points


def test_a_polynomial_by_hand(impl):
    got = impl.numerical_gradient(lambda x: x[0] ** 2 * x[1] - 4 * x[2], np.array([3.0, 5.0, 7.0]))
    assert np.abs(got - [30.0, 9.0, -4.0]).max() < 1e-7  # values of 45


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (3, 2), (2, 1, 3), (1, 1)])
def test_every_entry_of_every_shape(impl, rng, shape):
    weights, x = rng.normal(size=shape), rng.normal(size=shape)
    got = impl.numerical_gradient(lambda v: (weights * np.sin(v)).sum(), x)
    assert isinstance(got, np.ndarray)
    assert got.shape == shape
    assert got.dtype == np.float64
    assert np.abs(got - weights * np.cos(x)).max() < TOLERANCE


def test_entries_that_act_together(impl, rng):
    """The gradient of x' A x is (A + A') x; an entry moved along with another would show."""
    a, x = rng.normal(size=(4, 4)), rng.normal(size=4)
    got = impl.numerical_gradient(lambda v: v @ a @ v, x)
    assert np.abs(got - (a + a.T) @ x).max() < TOLERANCE


@pytest.mark.parametrize("view", ["fortran", "transposed", "reversed", "strided", "broadcast", "read-only"])
def test_any_memory_layout(impl, rng, view):
    whole = rng.normal(size=(6, 8))
    x = {
        "fortran": np.asfortranarray(whole),
        "transposed": whole.T,
        "reversed": whole[::-1, ::-1],
        "strided": whole[::2, 1::3],
        "broadcast": np.broadcast_to(whole[0], (3, 8)),
        "read-only": whole[:3, :3].copy(),
    }[view]
    x.flags.writeable = view not in ("broadcast", "read-only")
    before, weights = np.array(x), rng.normal(size=x.shape)
    got = impl.numerical_gradient(lambda v: (weights * v * v).sum(), x)
    assert np.abs(got - 2 * weights * before).max() < 1e-7  # sums of 48 squares
    assert np.array_equal(x, before)


@pytest.mark.parametrize("x", [0.0, 1 / 3, -7.1, 1e6 / 3, -1e12 / 7, 1e-9])
@pytest.mark.parametrize("step", [None, 1e-3, 0.3])
def test_the_identity_has_slope_exactly_1(impl, x, step):
    """Holds only if the divisor is the distance of the rounded points: the rounding of x + h cancels."""
    got = impl.numerical_gradient(lambda v: v[0], np.array([x]), step)
    assert got[0] == 1.0


def test_the_identity_has_slope_exactly_1_with_a_tiny_step(impl):
    assert impl.numerical_gradient(lambda v: v[0], np.array([1 / 3]), 1e-13)[0] == 1.0
    assert impl.numerical_gradient(lambda v: v[0], np.array([0.1]), step=1e-14)[0] == 1.0
    for x in (1.0, -1.5, 3.0, 1e6):  # the next numbers to either side
        assert impl.numerical_gradient(lambda v: v[0], np.array([x]), step=1.5 * np.spacing(abs(x)))[0] == 1.0


def test_the_step_is_the_distance_to_either_side(impl):
    """(2.5**3 - 1.5**3) / 1 = 12.25, all of it exact in binary."""
    assert impl.numerical_gradient(lambda v: v**3, np.array(2.0), step=0.5) == 12.25
    assert np.array_equal(
        impl.numerical_gradient(lambda v: (v**3).sum(), np.array([2.0, 8.0]), step=0.5), [12.25, 192.25]
    )


@pytest.mark.parametrize("step", [0.3, 1e-3, 7e-5, 1.7, 1e4 / 3])
def test_a_given_step_is_taken_as_it_is(impl, step):
    x = np.array([0.0, 0.7, -12.0])
    f, points = recorder(lambda v: 0.0)
    impl.numerical_gradient(f, x, step)
    assert np.abs(np.array(points) - x).max(axis=1) == pytest.approx([step] * 6, rel=1e-9)
    f, points = recorder(lambda v: 0.0)
    impl.directional_derivative(f, x, [1, -2, 0], step)
    assert np.abs(np.array(points) - x) == pytest.approx(np.array([[step, 2 * step, 0]] * 2), rel=1e-9)


def test_large_arrays(impl, rng):
    """Every entry of many counts, and mistakes that cancel in a sum are found."""
    shapes = [(3, 130), (260,), *((n,) for n in aim.sizes(at_most=1000))]
    for shape in shapes:
        weights, x, direction = (rng.normal(size=shape) for _ in range(3))

        def f(v, weights=weights):
            return float((weights * v).sum())

        assert np.abs(impl.numerical_gradient(f, x) - weights).max() < 1e-6, shape
        along = impl.directional_derivative(f, x, direction)
        assert along == pytest.approx((weights * direction).sum(), abs=1e-5), shape
        wrong = np.sign(weights) + weights
        assert impl.check_gradient(lambda v, w=wrong: float((w * v).sum()), wrong, x) < 1e-6
        wrong.flat[0] += 0.5
        wrong.flat[-1] -= 0.5
        with pytest.raises(AssertionError):
            impl.check_gradient(lambda v, w=weights: float(((np.sign(w) + w) * v).sum()), wrong, x)


def test_the_step_grows_with_the_entry(impl):
    x = np.array([0.0, 1e-7, 0.5, -1.0, 8.0, -1e6, 1e12])
    f, points = recorder(lambda v: 0.0)
    impl.numerical_gradient(f, x)
    moved = np.abs(np.array(points) - x)
    expected = STEP * np.maximum(1.0, np.abs(x))
    for i in range(len(x)):
        steps = moved[:, i][moved[:, i] > 0]
        assert len(steps) == 2
        assert np.abs(steps / expected[i] - 1).max() < 1e-3


def test_large_and_small_arguments(impl):
    x = np.array([1e-6, 1e-2, 1.0, 1e3, 1e6, 1e9])
    for i in range(len(x)):  # one at a time: a sum would drown the small ones
        got = impl.numerical_gradient(lambda v: v[0] ** 3, x[i : i + 1])
        assert abs(got[0] - 3 * x[i] ** 2) < 1e-9 * max(1.0, 3 * x[i] ** 2)


def test_two_calls_for_each_entry_and_nothing_else_moves(impl, rng):
    """Adding and subtracting the step in place leaves rounding behind in entries that were moved before."""
    x = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-8, 8, size=(3, 4))
    f, points = recorder(lambda v: v.sum())
    impl.numerical_gradient(f, x)
    assert len(points) == 2 * x.size
    for one in (np.array(0.5), np.array([0.5]), np.array([[-3.0]])):
        f_one, points_of_one = recorder(lambda v: float(v.sum()))
        impl.numerical_gradient(f_one, one)
        assert len(points_of_one) == 2
    directions = []
    for point in points:
        assert point.shape == x.shape
        changed = np.argwhere(point != x)
        assert len(changed) == 1
        where = tuple(changed[0].tolist())
        directions.append((where, bool(point[where] > x[where])))
    assert len(set(directions)) == 2 * x.size


def test_f_may_change_and_keep_what_it_gets(impl):
    kept = []

    def rude(v):
        result = float((v**2).sum())
        kept.append(v)
        v[...] = 1e3
        return result

    x = np.array([1.0, 2.0, 3.0])
    for step in (0.5, None):
        got = impl.numerical_gradient(rude, x, step)
        assert np.abs(got - [2.0, 4.0, 6.0]).max() < TOLERANCE
    along = impl.directional_derivative(rude, x, np.array([1.0, 1.0, 1.0]))
    assert abs(along - 12.0) < 1e-7
    assert np.array_equal(x, [1.0, 2.0, 3.0])
    assert all(np.array_equal(v, [1e3] * 3) for v in kept)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i])
    kept.clear()  # without axes, too, f gets arrays
    assert abs(impl.numerical_gradient(rude, 3.0) - 6.0) < TOLERANCE
    assert abs(impl.directional_derivative(rude, 3.0, 2.0) - 12.0) < TOLERANCE
    assert all(isinstance(v, np.ndarray) and v.shape == () and v.dtype == np.float64 for v in kept)


@pytest.mark.parametrize("x", [[3, 5], (3, 5), np.array([3, 5]), np.array([3, 5], np.float32)])
def test_other_numbers_become_float64(impl, x):
    f, points = recorder(lambda v: v[0] * v[1])
    got = impl.numerical_gradient(f, x)
    assert got.dtype == np.float64
    assert np.abs(got - [5.0, 3.0]).max() < TOLERANCE
    assert all(point.dtype == np.float64 for point in points)
    assert abs(impl.directional_derivative(f, x, [1, 1]) - 8) < TOLERANCE
    assert all(point.dtype == np.float64 for point in points)


def test_what_f_may_give(impl):
    x = np.array([1.0, 2.0])
    for number in (float, np.float64, np.array, lambda v: v):
        got = impl.numerical_gradient(lambda v, number=number: number(v.sum()), x)
        assert np.abs(got - 1).max() < TOLERANCE
    assert np.array_equal(impl.numerical_gradient(lambda v: 3, x), [0.0, 0.0])
    for f in (lambda v: v * 2, lambda v: v[:1], lambda v: v[None]):
        with pytest.raises(ValueError):  # noqa: PT011
            impl.numerical_gradient(f, x)
        with pytest.raises(ValueError):  # noqa: PT011
            impl.directional_derivative(f, x, x)


@pytest.mark.parametrize("name", ["numerical_gradient", "directional_derivative"])
def test_each_value_of_f_counts(impl, name):
    """One of them has axes, or is NaN; whichever it is."""
    x = np.array([1.0, 2.0])
    arguments = (x,) if name == "numerical_gradient" else (x, np.ones(2))
    for place in range(4 if name == "numerical_gradient" else 2):
        for odd in (np.ones(1), np.ones((1, 1)), math.nan):
            n_calls = 0

            def f(v, place=place, odd=odd):
                nonlocal n_calls
                n_calls += 1
                return odd if n_calls == place + 1 else float(v.sum())

            if isinstance(odd, float):
                assert np.isnan(getattr(impl, name)(f, *arguments)).any()
            else:
                battery.refuses(getattr(impl, name), f, *arguments)


@pytest.mark.parametrize("step", [0.0, -1e-3, math.nan])
def test_a_step_must_be_above_0(impl, step):
    for call in (
        lambda: impl.numerical_gradient(np.sum, np.ones((0, 2)), step),
        lambda: impl.directional_derivative(np.sum, np.ones(0), np.ones(0), step),
        lambda: impl.numerical_gradient(np.sum, np.ones(2), step),
        lambda: impl.directional_derivative(np.sum, np.ones(2), np.ones(2), step),
        lambda: impl.check_gradient(np.sum, np.ones(2), np.ones(2), step=step),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            call()


def test_a_step_lost_in_rounding_is_refused(impl):
    with pytest.raises(ValueError):  # noqa: PT011
        impl.numerical_gradient(np.sum, np.array([1.0, 1e10]), step=1e-8)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
def test_no_entries(impl, shape):
    f, points = recorder(np.sum)
    assert impl.numerical_gradient(f, np.empty(shape)).shape == shape
    assert impl.directional_derivative(f, np.empty(shape), np.empty(shape)) == 0.0
    assert impl.check_gradient(f, np.empty(shape), np.empty(shape)) == 0.0
    assert points == []


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (2, 3, 2)])
def test_the_directional_derivative_is_the_gradient_times_the_direction(impl, rng, shape):
    weights, x, direction = (rng.normal(size=shape) for _ in range(3))
    got = impl.directional_derivative(lambda v: (weights * np.sin(v)).sum(), x, direction)
    assert isinstance(got, float)
    assert abs(got - (weights * np.cos(x) * direction).sum()) < 1e-7


@pytest.mark.parametrize("length", [1e-200, 1e-30, 1e-9, 1e-3, 2.0, 1e4, 1e9, 1e200])
def test_a_longer_direction_gives_a_larger_derivative(impl, rng, length):
    """The step must shrink as the direction grows, or sin is sampled across many of its waves."""
    x, direction = rng.normal(size=5), rng.normal(size=5)
    got = impl.directional_derivative(lambda v: np.sin(v).sum(), x, length * direction)
    assert abs(got / length - (np.cos(x) * direction).sum()) < 1e-7


def test_the_directional_derivative_in_two_calls(impl):
    x, direction = np.array([1.0, -1e6, 0.0]), np.array([1.0, 1.0, -0.5])
    f, points = recorder(lambda v: v.sum())
    assert impl.directional_derivative(f, x, direction) == pytest.approx(1.5, abs=1e-3)  # values of 1e6
    assert len(points) == 2
    # No entry moves by more than its own step; the first and the tightest moves by exactly that.
    assert np.abs(np.array(points)[:, 0] - 1.0) == pytest.approx([STEP, STEP], rel=1e-6)
    assert np.abs(np.array(points)[:, 2]) == pytest.approx([STEP / 2, STEP / 2], rel=1e-6)
    assert np.abs(np.array(points).sum(axis=0) - 2 * x).max() < 1e-9


@pytest.mark.parametrize(
    ("x", "direction", "moved"),
    [
        ([1e6, 0.5], [1.0, 1000.0], [STEP / 1000, STEP]),
        ([1e3, -1e6], [1.0, 500.0], [STEP * 1e3, STEP * 5e5]),
        ([1e3, -1e6], [1.0, -2000.0], [STEP * 500, STEP * 1e6]),
        ([0.5, 0.0], [1.0, -4.0], [STEP / 4, STEP]),
    ],
)
def test_the_entry_with_the_tightest_step_decides(impl, x, direction, moved):
    f, points = recorder(lambda v: 0.0)
    impl.directional_derivative(f, np.array(x), np.array(direction))
    for point in points:
        slack = 1e-6 * np.array(moved) + np.spacing(np.abs(x))  # x + h is a rounded number, too
        assert (np.abs(np.abs(point - x) - moved) <= slack).all()


def test_the_step_along_a_direction(impl):
    """(2.5**3 - 1.5**3) / (2 * 0.25) = 24.5: the step is a factor on the direction."""
    assert impl.directional_derivative(lambda v: v[0] ** 3, [2.0], [2.0], step=0.25) == 24.5
    assert impl.directional_derivative(lambda v: v[0] ** 3, [2.0], [1.0], 0.5) == 12.25
    assert impl.directional_derivative(lambda v: v[0] ** 3, [2.0], [-1.0], 0.5) == -12.25
    for direction in ([2], np.array([2]), np.array([2], np.int8), np.array([2], np.float16)):
        assert impl.directional_derivative(lambda v: v[0] ** 3, [2], direction, 0.25) == 24.5
    got = impl.directional_derivative(lambda v: v[0], [0.0], [1 / 3], 0.5)
    assert got == pytest.approx(1 / 3, rel=1e-14)


def test_the_zero_direction(impl):
    f, points = recorder(lambda v: (1 / v).sum())
    for zeros in (np.zeros(3), [0, 0, 0], np.array([-0.0, 0.0, 0.0])):
        got = impl.directional_derivative(f, np.ones(3), zeros)
        assert isinstance(got, float)
        assert got == 0.0
        assert impl.directional_derivative(lambda v: math.nan, np.ones(3), zeros) == 0.0
    assert len(points) in (0, 6)  # twice in each call, or not at all
    got = impl.directional_derivative(f, np.ones(2), np.array([0.0, 1.0]))
    assert abs(got + 1.0) < TOLERANCE


def test_the_direction_has_the_shape_of_x_and_is_not_changed(impl):
    for shape in [(3, 1), (1,), (), (2,)]:
        with pytest.raises(ValueError):  # noqa: PT011
            impl.directional_derivative(np.sum, np.ones(3), np.ones(shape))
    for one, other in (((0,), (3, 0)), ((0, 2), (2, 0)), ((0,), ())):
        battery.refuses(impl.directional_derivative, np.sum, np.ones(one), np.ones(other))
    x, direction = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    impl.directional_derivative(np.sum, x, direction)
    assert x.tolist() == [1.0, 2.0]
    assert direction.tolist() == [3.0, 4.0]


def smooth(x):
    return float((np.sin(x) + 2 * x).sum())  # its gradient, cos(x) + 2, lies between 1 and 3


@pytest.mark.parametrize("shape", [(), (1,), (6,), (3, 4)])
def test_a_true_gradient_passes(impl, rng, shape):
    x = rng.normal(size=shape)
    error = impl.check_gradient(smooth, np.cos(x) + 2, x)
    assert isinstance(error, float)
    assert 0.0 <= error < TOLERANCE


@pytest.mark.parametrize("index", [(0, 0), (1, 2), (2, 3), (2, 0)])
@pytest.mark.parametrize("factor", [1.01, 0.99, -1.0, 0.0, 1e6, 1.0001])
def test_one_wrong_entry_is_found_and_named(impl, rng, index, factor):
    x = rng.normal(size=(3, 4))
    gradient = np.cos(x) + 2
    gradient[index] *= factor
    with pytest.raises(AssertionError) as raised:
        impl.check_gradient(smooth, gradient, x)
    assert str(index) in str(raised.value)


@pytest.mark.parametrize(("x", "name"), [(np.array(0.5), "()"), (np.array([0.5]), "(0,)")])
def test_the_index_is_a_tuple_for_every_number_of_axes(impl, x, name):
    with pytest.raises(AssertionError) as raised:
        impl.check_gradient(smooth, np.zeros(x.shape), x)
    assert name in str(raised.value)


def test_the_message_shows_both_values(impl):
    with pytest.raises(AssertionError) as raised:
        impl.check_gradient(lambda v: 4 * v.sum(), [4.0, 8.0, 4.0], [1.0, 1.0, 1.0])
    message = str(raised.value)
    assert "(1,)" in message
    assert "8" in message
    assert "4" in message or "3.99999" in message


def test_the_worst_entry_is_the_relatively_worst(impl):
    """Off by 10 of 1000 is 1 %, off by 0.5 of 1 is 50 %."""
    weights = np.array([1000.0, 1.0, 1.0])
    with pytest.raises(AssertionError) as raised:
        impl.check_gradient(lambda v: (weights * v).sum(), [1010.0, 1.0, 1.5], np.zeros(3))
    assert "(2,)" in str(raised.value)
    error = impl.check_gradient(lambda v: (weights * v).sum(), [1010.0, 1.0, 1.5], np.zeros(3), tolerance=0.4)
    assert error == pytest.approx(0.5 / 1.5, rel=1e-6)


def test_the_tolerance_decides(impl):
    """Claimed 1.01 for 1: off by 0.01 / 1.01."""
    x = np.array([0.3, 0.4])
    error = impl.check_gradient(np.sum, np.array([1.0, 1.01]), x, tolerance=0.01)
    assert error == pytest.approx(0.01 / 1.01, rel=1e-6)
    assert impl.check_gradient(np.sum, np.array([1.0, 1.01]), x, 0.01) == error
    # The larger of the two sides is what it is measured against, and the worst entry is what comes back.
    error = impl.check_gradient(np.sum, np.array([0.5, 1.01]), x, tolerance=0.6)
    assert error == pytest.approx(0.5, rel=1e-6)
    with pytest.raises(AssertionError):
        impl.check_gradient(np.sum, np.array([1.0, 1.01]), x, tolerance=0.0098)
    # What is as large as the tolerance passes.
    assert impl.check_gradient(lambda v: 0.0, [0.25, 0.0], np.ones(2), tolerance=1.0) == 1.0
    assert impl.check_gradient(lambda v: 0.0, [0.0, 0.0], np.ones(2), tolerance=0.0) == 0.0
    # The default: 2e-5 is too much, 5e-6 is not.
    with pytest.raises(AssertionError):
        impl.check_gradient(np.sum, np.array([1.0, 1.00002]), x)
    assert impl.check_gradient(np.sum, np.array([1.0, 1.000005]), x) == pytest.approx(5e-6, rel=1e-3)


def test_small_entries_are_measured_against_the_floor(impl):
    """f is 0, so that the measured gradient is exactly 0."""

    def zero(v):
        return 0.0

    assert impl.check_gradient(zero, [0.0, 9e-8], np.ones(2)) == pytest.approx(9e-6, rel=1e-6)
    with pytest.raises(AssertionError):
        impl.check_gradient(zero, [0.0, 1.1e-7], np.ones(2))
    with pytest.raises(AssertionError):
        impl.check_gradient(zero, [0.0, 9e-8], np.ones(2), floor=1e-3)
    assert impl.check_gradient(zero, [0.0, 0.3], np.ones(2), tolerance=0.5, floor=1.0) == pytest.approx(0.3)
    assert impl.check_gradient(zero, [0.0, 0.3], np.ones(2), 0.5, 1.0) == pytest.approx(0.3)


def test_the_step_is_passed_on(impl):
    assert impl.check_gradient(lambda v: v[0] ** 3, [12.25], [2.0], step=0.5) == 0.0
    with pytest.raises(AssertionError):
        impl.check_gradient(lambda v: v[0] ** 3, [12.0], [2.0], step=0.5)
    assert impl.check_gradient(lambda v: v[0] ** 3, [12.0], [2.0]) < TOLERANCE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_does_not_pass(impl, bad):
    x = np.array([0.5, 1.5, 2.5])
    gradient = np.ones(3)
    gradient[1] = bad
    with pytest.raises(AssertionError) as raised:
        impl.check_gradient(np.sum, gradient, x)
    assert "(1,)" in str(raised.value)
    with pytest.raises(AssertionError):
        impl.check_gradient(lambda v: v.sum() + (bad if v[1] > 1.5 else 0.0), np.ones(3), x)
    if np.isnan(bad):  # on one side or on both
        for claimed in (np.ones(3), gradient):
            with pytest.raises(AssertionError):
                impl.check_gradient(
                    lambda v: v.sum() + (bad if v[1] > 1.5 else 0.0), claimed, x, tolerance=1e9
                )
    with pytest.raises(AssertionError):
        impl.check_gradient(np.sum, gradient, x, tolerance=1e9)


def test_the_gradient_has_the_shape_of_x(impl):
    for shape in [(3, 1), (1, 3), (1,), (), (4,)]:
        with pytest.raises(ValueError):  # noqa: PT011
            impl.check_gradient(np.sum, np.ones(shape), np.zeros(3))


def test_a_transposed_gradient_of_a_square_array_is_found(impl, rng):
    a, x = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    assert impl.check_gradient(lambda v: (a * v).sum(), a, x) < 1e-6
    with pytest.raises(AssertionError):
        impl.check_gradient(lambda v: (a * v).sum(), a.T, x)


def test_the_check_changes_nothing_and_remembers_nothing(impl):
    gradient, x = np.array([2.0, 4.0]), np.array([1.0, 2.0])
    first = impl.check_gradient(lambda v: (v**2).sum(), gradient, x)
    assert gradient.tolist() == [2.0, 4.0]
    assert x.tolist() == [1.0, 2.0]
    with pytest.raises(AssertionError):
        impl.check_gradient(lambda v: (v**3).sum(), gradient, x)
    assert impl.check_gradient(lambda v: (v**2).sum(), gradient, x) == first
