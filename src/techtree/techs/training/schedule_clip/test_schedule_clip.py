"""Oracles: schedules as fractions, norms summed exactly with `math.fsum`, values worked out by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Parameter

TOLERANCE = 1e-13
"""Factors lie between 0 and 1 and take about ten roundings of 1e-16."""


def with_gradients(*gradients):
    found = []
    for gradient in gradients:
        parameter = Parameter(np.ones(np.shape(gradient) if gradient is not None else 2))
        parameter.grad = None if gradient is None else np.asarray(gradient)
        found.append(parameter)
    return found


def test_schedules_by_hand(impl):
    cosine = [impl.warmup_cosine(step, 6, 2) for step in range(6)]
    half = math.sqrt(0.5)
    assert np.abs(np.array(cosine) - [0.5, 1, 1, (1 + half) / 2, 0.5, (1 - half) / 2]).max() < TOLERANCE
    assert [impl.warmup_linear(step, 6, 2) for step in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]
    stable = [impl.warmup_stable_decay(step, 8, 2, 4) for step in range(8)]
    assert stable == [0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert [impl.warmup_linear(step, 6, 2, 0.5) for step in range(6)] == [0.5, 1, 1, 0.875, 0.75, 0.625]


def lengths():
    """Runs, with warm-ups and decays that are empty, short, long, and all there is."""
    for n_steps in (1, 2, 3, 4, 7, 10, 131):
        for n_warmup in sorted({0, 1, 2, 3, n_steps // 2, n_steps - 1, n_steps}):
            if n_warmup <= n_steps:
                yield n_steps, n_warmup


FINALS = (0.0, 0.1, 0.5, 1.0)


def slow_line(step, n_steps, n_warmup, n_decay, final):
    """All in fractions, so that nothing is rounded."""
    if step < n_warmup:
        return float(Fraction(step + 1, n_warmup))
    first = n_steps - n_decay
    if step < first:
        return 1.0
    behind = Fraction(step - first, n_decay)
    return float(Fraction(final) + (1 - Fraction(final)) * (1 - behind))


@pytest.mark.parametrize("final", FINALS)
def test_lines_are_fractions_at_every_step(impl, final):
    for n_steps, n_warmup in lengths():
        rest = n_steps - n_warmup
        for step in range(n_steps):
            got = impl.warmup_linear(step, n_steps, n_warmup, final)
            assert isinstance(got, float | int)
            assert abs(got - slow_line(step, n_steps, n_warmup, rest, final)) < TOLERANCE
            for n_decay in sorted({0, 1, 2, rest // 2, rest - 1, rest} & set(range(rest + 1))):
                got = impl.warmup_stable_decay(step, n_steps, n_warmup, n_decay, final)
                assert abs(got - slow_line(step, n_steps, n_warmup, n_decay, final)) < TOLERANCE


@pytest.mark.parametrize("final", FINALS)
def test_the_cosine_at_every_step(impl, final):
    """The fall is the line's, bent: where that is 1 - t, this is the square of cos(pi t / 2)."""
    for n_steps, n_warmup in lengths():
        for step in range(n_steps):
            line = slow_line(step, n_steps, n_warmup, n_steps - n_warmup, 0.0)
            expected = line if step < n_warmup else final + (1 - final) * math.sin(math.pi * line / 2) ** 2
            got = impl.warmup_cosine(step, n_steps, n_warmup, final)
            assert isinstance(got, float | int)
            assert abs(got - expected) < TOLERANCE


def test_long_runs(impl):
    """Of many steps, and longer than the numbers of the source under test."""
    for n_steps in aim.sizes(20_000, at_most=10**6):
        n_warmup, n_decay = n_steps // 10, n_steps // 4
        for step in (0, n_warmup, n_steps // 2, n_steps - n_decay // 2, n_steps - 1):
            line = slow_line(step, n_steps, n_warmup, n_steps - n_warmup, 0.0)
            bent = line if step < n_warmup else math.sin(math.pi * line / 2) ** 2
            level = slow_line(step, n_steps, n_warmup, n_decay, 0.0)
            assert impl.warmup_linear(step, n_steps, n_warmup) == pytest.approx(line, rel=1e-9)
            assert impl.warmup_cosine(step, n_steps, n_warmup) == pytest.approx(bent, abs=TOLERANCE)
            got = impl.warmup_stable_decay(step, n_steps, n_warmup, n_decay)
            assert got == pytest.approx(level, rel=1e-9), f"step {step} of {n_steps}"


def test_every_step_moves(impl):
    for n_steps, n_warmup in lengths():
        for step in range(n_steps):
            assert impl.warmup_cosine(step, n_steps, n_warmup) > 0
            assert impl.warmup_linear(step, n_steps, n_warmup) > 0
            assert impl.warmup_stable_decay(step, n_steps, n_warmup, n_steps - n_warmup) > 0


def test_final_is_zero_unless_it_is_given(impl):
    for step in range(9):
        assert impl.warmup_cosine(step, 9, 2) == impl.warmup_cosine(step, 9, 2, final=0.0)
        assert impl.warmup_linear(step, 9, 2) == impl.warmup_linear(step, 9, 2, final=0.0)
        assert impl.warmup_stable_decay(step, 9, 2, 5) == impl.warmup_stable_decay(step, 9, 2, 5, final=0.0)


def test_the_arguments_have_names(impl):
    """Other calls in between, and another order: there is nothing that a schedule remembers."""
    for step in (3, 8, 0, 3):
        assert impl.warmup_cosine(step=step, n_steps=9, n_warmup=3, final=0.5) == impl.warmup_cosine(
            step, 9, 3, 0.5
        )
        assert impl.warmup_linear(step=step, n_steps=9, n_warmup=3, final=0.5) == impl.warmup_linear(
            step, 9, 3, 0.5
        )
        assert impl.warmup_stable_decay(
            step=step, n_steps=9, n_warmup=3, n_decay=4, final=0.5
        ) == impl.warmup_stable_decay(step, 9, 3, 4, 0.5)


@pytest.mark.parametrize(
    ("step", "n_steps", "n_warmup", "n_decay", "final"),
    [
        (-1, 10, 2, 4, 0.0),
        (-1, 10, 0, 4, 0.0),
        (10, 10, 2, 4, 0.0),
        (11, 10, 2, 0, 0.0),
        (1000, 10, 2, 4, 1.0),
        (0, 0, 0, 0, 0.0),
        (0, 10, -1, 4, 0.0),
        (9, 10, -1, 4, 0.0),
        (0, 10, 11, 0, 0.0),
        (0, 10, 1000, 0, 0.0),
        (0, 10, 2, 4, -0.1),
        (0, 10, 2, 4, 1.1),
        (9, 10, 2, 4, -1e-9),
        (5, 10, 2, 4, 1 + 1e-9),
        (9, 10, 2, 4, math.nan),
    ],
)
def test_arguments_outside_their_range(impl, step, n_steps, n_warmup, n_decay, final):
    for schedule in (impl.warmup_cosine, impl.warmup_linear):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            schedule(step, n_steps, n_warmup, final)
    with pytest.raises(ValueError):  # noqa: PT011
        impl.warmup_stable_decay(step, n_steps, n_warmup, n_decay, final)


@pytest.mark.parametrize("n_decay", [-1, 9, 10, 11, 1000])
def test_a_decay_that_does_not_fit(impl, n_decay):
    for step in (0, 1, 5, 9):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.warmup_stable_decay(step, 10, 2, n_decay)


def test_a_norm_by_hand(impl):
    a, b = with_gradients([3.0], [[4.0]])
    assert impl.clip_grad_norm([a, b], 2.5) == 5.0
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.5], [[2.0]])
    a, b = with_gradients([3.0], [[4.0]])
    assert impl.clip_grad_norm(parameters=[a, b], max_norm=1.25) == 5.0
    assert (a.grad.tolist(), b.grad.tolist()) == ([0.75], [[1.0]])
    a, b = with_gradients([-3.0], [[-4.0]])
    assert impl.clip_grad_norm([a, b], 2.5) == 5.0
    assert (a.grad.tolist(), b.grad.tolist()) == ([-1.5], [[-2.0]])


@pytest.mark.parametrize("max_norm", [5.0, 5, 5.5, 1e9, math.inf])
def test_what_is_short_enough_is_not_touched(impl, max_norm):
    a, b = with_gradients([3.0, 0.0], [[-4.0]])
    arrays = a.grad, b.grad
    assert impl.clip_grad_norm([a, b], max_norm) == 5.0
    assert a.grad is arrays[0]
    assert b.grad is arrays[1]
    assert (a.grad.tolist(), b.grad.tolist()) == ([3.0, 0.0], [[-4.0]])


def clip(impl):
    """Clipping as a function of arrays; the norm takes their dtype, and with it its precision."""

    def clipped(*gradients, max_norm):
        members = with_gradients(*(gradient.copy(order="K") for gradient in gradients))
        held = [each.grad for each in members]
        norm = impl.clip_grad_norm(iter(members), max_norm)
        assert isinstance(norm, float | int)
        for each, array, gradient in zip(members, held, gradients, strict=True):
            assert each.grad is array
            assert array.dtype == gradient.dtype
            assert (each.data == 1).all()
        return np.array(norm, gradients[0].dtype), *held

    return clipped


def slow_clip(*gradients, max_norm):
    entries = [float(x) for gradient in gradients for x in gradient.ravel()]
    norm = math.sqrt(math.fsum(x * x for x in entries))
    factor = max_norm / norm if norm > max_norm else 1.0
    return np.array(norm), *(gradient * factor for gradient in gradients)


def test_one_factor_for_all_everywhere(impl, rng):
    """A sum of n squares in the gradients' dtype is off by up to n roundings, a root by half of that."""
    calls = battery.cases(
        rng,
        "... a b, c, a",
        sizes={"a": (0, 1, 2, 130), "b": (0, 1, 130), "c": (0, 1, 2, 130)},
        options=[{"max_norm": m} for m in (0.5, 2.0, 4.0, 100.0)],
        values={
            "equal": np.ones,
            "negative zeros": lambda shape: np.full(shape, -0.0),
            "larger": lambda shape: np.full(shape, 1e6),
            "smaller": lambda shape: np.full(shape, -1e-6),
        },
    )
    battery.sweep(clip(impl), slow_clip, calls, ulps=256, dtype=None)
    no_axes = [battery.Case("no axes", (np.array(3.0), np.array(-4.0)), {"max_norm": 2.0})]
    battery.sweep(clip(impl), slow_clip, no_axes, dtype=None)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (np.float64, 1e200),
        (np.float64, 1e300),
        (np.float64, 1e-200),
        (np.float64, 1e-300),
        (np.float32, 1e30),
        (np.float32, 1e-30),
        (np.float16, 3e4),
        (np.float16, 1e-4),
    ],
)
def test_entries_of_any_size(impl, dtype, size):
    """Squares of 1e200 overflow, those of 1e-200 vanish; of float32, 1e30 and 1e-30 do."""
    tolerance = 64 * float(np.finfo(dtype).eps)
    for threes, fours in (([[3.0]], [4.0]), ([[0.0]], [3.0, 4.0]), ([[4.0]], [-3.0])):
        arrays = [np.array(x, dtype) * dtype(size / 10) for x in (threes, fours)]
        before = [x.astype(float) for x in arrays]
        a, b = with_gradients(*arrays)
        norm = impl.clip_grad_norm([a, b], size / 4)
        assert abs(norm / (size / 2) - 1) < tolerance
        for each, old in zip((a, b), before, strict=True):
            assert each.grad.dtype == dtype
            assert np.abs(each.grad.astype(float) - old / 2).max() <= tolerance * size


def test_one_large_gradient_among_small_ones(impl):
    a, b, c = with_gradients([1e-200, 1e150], [1.0], np.array([1e10], np.float32))
    assert impl.clip_grad_norm([a, b, c], 1e140) == pytest.approx(1e150, rel=1e-12)
    assert a.grad[1] == pytest.approx(1e140, rel=1e-12)
    assert a.grad[0] == pytest.approx(1e-210, rel=1e-12)
    assert b.grad[0] == pytest.approx(1e-10, rel=1e-12)
    assert c.grad[0] == pytest.approx(1.0, rel=1e-6)


def test_the_norm_of_many_entries_in_float16(impl):
    """Their squares are beyond what float16 can add up; and the factor may be too small for it."""
    for n, size in ((100_000, 1.0), (9, 2e4), (4, 6e4)):
        (a,) = with_gradients(np.full(n, size, np.float16))
        expected = float(a.grad[0]) * math.sqrt(n)
        for max_norm in (expected / 2, 1e-3 * math.sqrt(n)):
            a.grad = np.full(n, size, np.float16)
            assert impl.clip_grad_norm([a], max_norm) == pytest.approx(expected, rel=1e-3)
            share = max_norm / math.sqrt(n)
            assert a.grad.dtype == np.float16
            off = np.abs(a.grad.astype(float) / share - 1).max()
            assert off < 2e-3, f"{n} times {size}, to {max_norm}: off by a share of {off}"


def test_the_direction_stays(impl, rng):
    """Clipped tensor by tensor, the larger one would lose more."""
    large, small = rng.normal(size=(3, 4)) * 100, rng.normal(size=5)
    a, b = with_gradients(large.copy(), small.copy())
    norm = impl.clip_grad_norm([a, b], 1.0)
    assert np.abs(a.grad * norm - large).max() < 1e-11
    assert np.abs(b.grad * norm - small).max() < 1e-13
    assert abs(math.sqrt((a.grad**2).sum() + (b.grad**2).sum()) - 1.0) < 1e-13


def test_a_single_long_tensor_and_many_short_ones(impl):
    """400 tensors of norm 0.1 are together of norm 2."""
    members = with_gradients(*(np.full(1, 0.1 * (-1) ** n) for n in range(400)))
    assert impl.clip_grad_norm(members, 1.0) == pytest.approx(2.0, rel=1e-12)
    assert all(abs(each.grad[0]) == pytest.approx(0.05, rel=1e-12) for each in members)
    (one,) = with_gradients(np.full((300, 300), 0.1))
    assert impl.clip_grad_norm([one], 1.0) == pytest.approx(30.0, rel=1e-10)
    assert np.abs(one.grad - 1 / 300).max() < 1e-12


def test_parameters_without_a_gradient_do_not_count(impl):
    a, b, c = with_gradients([6.0], None, [8.0])
    c.requires_grad = False  # what counts is that there is a gradient
    assert impl.clip_grad_norm([a, b, c], 5.0) == 10.0
    assert b.grad is None
    assert (a.grad.tolist(), c.grad.tolist()) == ([3.0], [4.0])


@pytest.mark.parametrize("max_norm", [1e-300, 1.0, math.inf])
def test_nothing_to_measure(impl, max_norm):
    assert impl.clip_grad_norm([], max_norm) == 0.0
    assert impl.clip_grad_norm(iter(with_gradients(None, None)), max_norm) == 0.0
    empty, zero = with_gradients(np.zeros((0, 3)), np.zeros(2))
    assert impl.clip_grad_norm([empty], max_norm) == 0.0
    assert impl.clip_grad_norm([empty, zero], max_norm) == 0.0
    assert zero.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [1.0, 1e9, math.inf])
def test_a_norm_that_is_not_finite_is_told_and_changes_nothing(impl, wrong, max_norm):
    for place in range(3):
        arrays = [np.array([3.0, 4.0]), np.array([[5.0]], np.float32), np.array([6.0, 7.0, 8.0])]
        arrays[place].flat[-1] = wrong
        before = [x.copy() for x in arrays]
        members = with_gradients(*arrays)
        norm = impl.clip_grad_norm(members, max_norm)
        assert not math.isfinite(norm)
        for each, array, old in zip(members, arrays, before, strict=True):
            assert each.grad is array
            assert array.tobytes() == old.tobytes()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_nothing_else_beside_an_entry_that_is_not_finite(impl, wrong):
    for arrays in ([[wrong]], [[0.0], [wrong]], [[wrong], [0.0]], [[0.0, wrong, 0.0]], [wrong]):
        members = with_gradients(*arrays)
        before = [each.grad.tobytes() for each in members]
        assert not math.isfinite(impl.clip_grad_norm(members, 1.0))
        assert [each.grad.tobytes() for each in members] == before


def test_a_norm_beyond_the_range_changes_nothing(impl):
    """Four entries of 1e308 are together of norm 2e308, which no float64 holds."""
    (a,) = with_gradients(np.full(4, 1e308))
    assert impl.clip_grad_norm([a], 1.0) == math.inf
    assert a.grad.tolist() == [1e308] * 4


def test_gradients_of_any_layout_are_changed_in_place(impl):
    whole = np.ones((4, 6))
    members = with_gradients(whole[::2, ::-2], whole[1::2, 1::2].T)
    views = [each.grad for each in members]
    assert impl.clip_grad_norm(members, 1.0) == pytest.approx(math.sqrt(12), rel=1e-12)
    assert all(each.grad is view for each, view in zip(members, views, strict=True))
    factor = 1 / math.sqrt(12)
    assert np.abs(whole[::2, 1::2] - factor).max() < 1e-15
    assert np.abs(whole[1::2, 1::2] - factor).max() < 1e-15
    assert (whole[:, ::2] == 1).all()


@pytest.mark.parametrize("max_norm", [0.0, 0, -0.0, -1.0, -math.inf, math.nan])
def test_a_largest_norm_that_makes_no_sense(impl, max_norm):
    for gradient in ([3.0, 4.0], [0.0], None):
        members = with_gradients(gradient)
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.clip_grad_norm(members, max_norm)


def test_calls_do_not_remember(impl):
    a, b = with_gradients([3.0, 4.0], [5.0])
    assert impl.clip_grad_norm([a], 10.0) == 5.0
    a.grad, b.grad = np.array([6.0, 8.0]), np.array([0.0])
    assert impl.clip_grad_norm([a, b], 5.0) == 10.0
    assert a.grad.tolist() == [3.0, 4.0]
    assert impl.clip_grad_norm([a, b], 5.0) == 5.0
    assert impl.clip_grad_norm([b], 5.0) == 0.0
