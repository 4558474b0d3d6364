"""Oracles: the definition in loops with `math.fsum`, its gradient p - onehot, values worked out by hand."""

import gc
import itertools
import math
import tracemalloc

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case

REDUCTIONS = ("mean", "sum", "none")


def slow_softmax(row):
    exponentials = [math.exp(max(each - max(row), -745.2)) for each in row]
    total = math.fsum(exponentials)
    return np.array(exponentials) / total, math.log(total)


def slow_losses(x, targets, ignore_index):
    losses = np.zeros(targets.shape)
    for at in np.ndindex(targets.shape):
        if targets[at] != ignore_index:
            row = x[at].tolist()
            losses[at] = (max(row) - row[int(targets[at])]) + slow_softmax(row)[1]
    return losses


def slow_cross_entropy(x, targets, ignore_index=-100, reduction="mean"):
    losses = slow_losses(x, targets, ignore_index)
    if reduction == "none":
        return losses
    total = math.fsum(losses.ravel())
    n = int((targets != ignore_index).sum())
    return np.array(total / max(n, 1) if reduction == "mean" else total)


def slow_gradient(g, x, targets, ignore_index=-100, reduction="mean"):
    gradient = np.zeros(x.shape)
    n = int((targets != ignore_index).sum()) if reduction == "mean" else 1
    for at in np.ndindex(targets.shape):
        if targets[at] != ignore_index:
            p, _ = slow_softmax(x[at].tolist())
            p[int(targets[at])] -= 1
            gradient[at] = p * (g[at] if reduction == "none" else g) / n
    return [gradient]


def size_of_error(x, targets, ignore_index=-100, reduction="mean"):
    """Rounding units of the largest logit, for each token that is added up."""
    counted = x[targets != ignore_index]
    n = len(counted) if reduction == "sum" else 1
    return n * (1 + np.abs(counted).max(initial=0))


def function_of_arrays(impl):
    def function(x, targets, **options):
        result = impl.cross_entropy(Tensor(x), targets, **options)
        assert isinstance(result, Tensor)
        return result

    return function


def leaf(x):
    return Tensor(np.array(x), requires_grad=True)


def value_and_gradient(impl, x, targets, g=None, **options):
    logits = leaf(x)
    loss = impl.cross_entropy(logits, np.array(targets), **options)
    loss.backward(np.ones(loss.shape) if g is None else g)
    return loss.data, logits.grad


def close(got, expected, tolerance=1e-12):
    assert np.shape(got) == np.shape(expected)
    assert np.isfinite(got).all()
    assert np.abs(np.asarray(got) - expected).max(initial=0.0) <= tolerance


def test_by_hand(impl):
    """Odds of 1, 2, 5: the third has 5/8, and costs log(8/5). Odds of 1, 1, 2: the first costs log(4)."""
    x = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]])
    losses = np.array([math.log(8 / 5), math.log(4)])
    p_minus_onehot = np.array([[1 / 8, 2 / 8, 5 / 8 - 1], [1 / 4 - 1, 1 / 4, 2 / 4]])
    value, gradient = value_and_gradient(impl, x, [2, 0])
    close(value, losses.mean())
    close(gradient, p_minus_onehot / 2)
    value, gradient = value_and_gradient(impl, x, [2, 0], reduction="sum")
    close(value, losses.sum())
    close(gradient, p_minus_onehot)
    value, gradient = value_and_gradient(impl, x, [2, 0], [3.0, -2.0], reduction="none")
    close(value, losses)
    close(gradient, p_minus_onehot * [[3.0], [-2.0]])


def test_the_gradient_is_multiplied_by_what_arrives(impl):
    x = np.log([[1.0, 3.0], [1.0, 1.0]])
    for (reduction, n), g in itertools.product([("mean", 2), ("sum", 1)], (-3.0, 0.0, 1e-9)):
        _, gradient = value_and_gradient(impl, x, [0, 1], np.array(g), reduction=reduction)
        close(gradient, g * np.array([[-3 / 4, 3 / 4], [1 / 2, -1 / 2]]) / n, 1e-15)
    _, gradient = value_and_gradient(impl, x, [0, 1], np.array([0.0, 2.0]), reduction="none")
    close(gradient, [[0, 0], [1, -1]])


def test_tokens_that_do_not_count_by_hand(impl):
    """Three of four count: 3 is the divisor. The row in between gets a gradient of exactly 0."""
    x = np.log([[1.0, 3.0], [1.0, 1.0], [5.0, 1.0], [3.0, 1.0]])
    targets = np.array([0, 1, -100, 0])
    value, gradient = value_and_gradient(impl, x, targets)
    close(value, (math.log(4) + math.log(2) + math.log(4 / 3)) / 3)
    close(gradient, np.array([[-3 / 4, 3 / 4], [1 / 2, -1 / 2], [0, 0], [-1 / 4, 1 / 4]]) / 3)
    assert (gradient[2] == 0).all()
    value, gradient = value_and_gradient(impl, x, targets, reduction="none")
    close(value, [math.log(4), math.log(2), 0, math.log(4 / 3)])
    assert value[2] == 0
    assert (gradient[2] == 0).all()
    value, _ = value_and_gradient(impl, x, targets, reduction="sum")
    close(value, math.log(4) + math.log(2) + math.log(4 / 3))


def test_the_mean_is_over_tokens_not_over_sequences(impl):
    """Losses log 2 thrice in one sequence, log 4 once in the other: all four count the same."""
    x = np.log([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[1.0, 3.0], [9.0, 1.0], [1.0, 9.0]]])
    targets = np.array([[0, 1, 0], [0, -100, -100]])
    value, gradient = value_and_gradient(impl, x, targets)
    close(value, (3 * math.log(2) + math.log(4)) / 4)
    close(np.abs(gradient).sum(axis=-1), np.array([[1, 1, 1], [1.5, 0, 0]]) / 4)


def test_any_number_may_be_the_ignored_target(impl):
    """Also a class, which then never counts; -100 is refused when another is."""
    x = np.log([[1.0, 3.0, 4.0], [1.0, 1.0, 2.0], [2.0, 1.0, 1.0]])
    for ignored in (0, 2, 3, -1, 10**6):
        targets = np.array([1, ignored, 1])
        value, gradient = value_and_gradient(impl, x, targets, ignore_index=ignored)
        close(value, (math.log(8 / 3) + math.log(4)) / 2)
        assert (gradient[1] == 0).all()
        assert (gradient[[0, 2]] != 0).all()
    battery.refuses(impl.cross_entropy, Tensor(x), np.array([1, -100, 1]), ignore_index=0)


def test_nothing_leaks_from_tokens_that_do_not_count(impl):
    """Padding may hold anything, and 0 times NaN is NaN."""
    x = np.log([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    x[1], x[2], x[4] = np.nan, [np.inf, 0.0], [1e300, -np.inf]
    targets = np.array([0, -100, -100, 0, -100])
    for reduction, n in (("mean", 2), ("sum", 1), ("none", 1)):
        value, gradient = value_and_gradient(impl, x, targets, reduction=reduction)
        close(value.sum() * n, math.log(4) + math.log(3 / 2))
        close(gradient * n, [[-3 / 4, 3 / 4], [0, 0], [0, 0], [-1 / 3, 1 / 3], [0, 0]])
        assert (gradient[[1, 2, 4]] == 0).all()


def test_when_nothing_counts(impl):
    """A batch of padding alone must not turn every weight into NaN."""
    for shape in [(3, 4), (1, 1), (2, 3, 2), (0, 4), (2, 0, 3), (5,)]:
        targets = np.full(shape[:-1], -100)
        for reduction in REDUCTIONS:
            value, gradient = value_and_gradient(impl, np.ones(shape), targets, reduction=reduction)
            assert value.shape == (targets.shape if reduction == "none" else ())
            assert (value == 0).all()
            assert gradient is None or (gradient.shape == shape and (gradient == 0).all())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_large_logits(impl, dtype):
    """Whole numbers, whose differences are exact: a loss of 20,000 is one, and not minus log of 0."""
    x = np.array([[1e4, -1e4, 0], [-1e4, 1e4, -1e4], [500, 396, 500], [1e4, 9e3, 1e4]], dtype)
    targets = np.array([1, 1, 1, 0])
    value, gradient = value_and_gradient(impl, x, targets, reduction="none")
    unit = float(np.finfo(dtype).eps)
    # logsumexp of logits of size 1e4 is off by rounding units of 1e4, and so are loss and probabilities.
    close(value, [2e4, 0, 104 + math.log(2), math.log(2)], 1e4 * unit)
    close(gradient, [[1, -1, 0], [0, 0, 0], [0.5, -1, 0.5], [-0.5, 0, 0.5]], 1e4 * unit)
    # The same, moved by -1e4 where that is exact.
    moved, _ = value_and_gradient(impl, np.array([[-9500, -9604, -9500]], dtype), [1])
    close(moved, 104 + math.log(2), 1e4 * unit)


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 300), (np.float32, 30)])
def test_no_probability_is_too_small(impl, dtype, most):
    """A class without the target has its probability as gradient, which is precise however small it is."""
    unit = float(np.finfo(dtype).eps)
    for exponent in range(1, most):
        x = np.array([[0.0, -exponent * math.log(10)]], dtype)
        p = math.exp(x[0, 1])
        value, gradient = value_and_gradient(impl, x, [0])
        close(value, math.log1p(p), 4 * unit)
        assert gradient[0, 1] == pytest.approx(p / (1 + p), rel=float(16 * unit * (1 + abs(x[0, 1]))))
        value, gradient = value_and_gradient(impl, x, [1])
        close(value, -x[0, 1] + math.log1p(p), 4 * unit * (1 + abs(x[0, 1])))
        close(gradient, [[1, -1]] / np.array(1 + p), 16 * unit * (1 + abs(x[0, 1])))


def test_rows_far_apart_do_not_disturb_each_other(impl):
    x = np.array([[2000.0, 2000.0 + math.log(3)], [-2000.0, -2000.0 + math.log(7)]])
    value, gradient = value_and_gradient(impl, x, [0, 1], reduction="none")
    close(value, [math.log(4), math.log(8 / 7)], 1e-11)
    close(gradient, [[-3 / 4, 3 / 4], [1 / 8, -1 / 8]], 1e-11)


def test_what_is_refused(impl):
    x, f = Tensor(np.zeros((2, 3))), impl.cross_entropy
    for wrong in ([0, 3], [-1, 0], [0, -3], [-101, 1], [0, 100], [2**40, 0]):
        for reduction in REDUCTIONS:
            battery.refuses(f, x, np.array(wrong), reduction=reduction)
        with no_grad():
            battery.refuses(f, x, np.array(wrong))
    for shape in [(3,), (2, 1), (1, 2), (2, 3), (), (1,), (0,)]:
        battery.refuses(f, x, np.zeros(shape, int))
    for wrong in ([0.0, 1.0], [True, False], [0.5, 1.0]):
        battery.refuses(f, x, np.array(wrong))
    for wrong in ("average", "Mean", "", "nothing", "batchmean"):
        for targets in ([0, 1], [-100, -100]):  # also when nothing counts
            battery.refuses(f, x, np.array(targets), reduction=wrong)
    for wrong in (np.full(3, -100), np.full((2, 3), -100), np.full(2, -100.0)):
        battery.refuses(f, x, wrong)
    for shape in [(), (2, 0), (0,), (0, 0)]:
        battery.refuses(f, Tensor(np.zeros(shape)), np.full(shape[:-1], -100))


def tokens(rng, leading, n_classes, ignored="some", dtype=np.float64, of_targets=np.int64, ignore_index=-100):
    """Draw logits and targets; of the targets some, none or all are ignored."""
    x = (rng.normal(size=(*leading, n_classes)) * 2).astype(dtype)
    targets = rng.integers(n_classes, size=leading)
    share = {"none": 0.0, "some": 0.3, "all": 1.0}[ignored]
    targets = np.where(rng.random(leading) < share, ignore_index, targets)
    return x, targets.astype(of_targets)


def cases(rng):
    found = []

    def add(label, *arguments, **options):
        for reduction in REDUCTIONS:
            drawn = tokens(rng, *arguments[:2], **arguments[2])
            found.append(Case(label, drawn, {**options, "reduction": reduction}))

    for leading in [(), (1,), (2,), (7,), (130,), (2, 3), (3, 1), (0,), (2, 0), (2, 1, 4), (1, 140)]:
        for ignored in ("some", "none"):
            add(f"leading axes {leading}, {ignored} ignored", leading, 4, {"ignored": ignored})
    for n_classes in (1, 2, 3, 33, 130, 300):
        add(f"{n_classes} classes", (5,), n_classes, {})
    add("all ignored", (2, 3), 4, {"ignored": "all"})
    for index in (0, 3, -1, 4, 77):
        add(f"ignore_index {index}", (3, 5), 4, {"ignore_index": index}, ignore_index=index)
    for dtype in battery.FLOATS:
        for leading in ((3,), (2, 70)):
            add(f"logits of {np.dtype(dtype).name}", leading, 5, {"dtype": dtype})
    for kind in battery.INTEGERS[:-1]:
        ignored = "some" if np.dtype(kind).kind == "i" else "none"
        add(f"targets of {np.dtype(kind).name}", (3, 4), 5, {"of_targets": kind, "ignored": ignored})
    for layout, change in battery.LAYOUTS.items():
        x, targets = tokens(rng, (4, 3), 5)
        found.append(Case(f"logits {layout}", (change(x), targets), {}))
        change = change if layout != "strided" else lambda t: np.repeat(t, 2, axis=-1)[..., ::2]
        found.append(Case(f"targets {layout}", (x, change(targets)), {"reduction": "none"}))
    special = {
        "all logits equal": lambda shape: np.full(shape, 3.0),
        "zeros of both signs": lambda shape: np.where(np.arange(math.prod(shape)) % 2, 0.0, -0.0).reshape(
            shape
        ),
        "tiny logits": lambda shape: rng.normal(size=shape) * 1e-300,
        "large logits": lambda shape: rng.normal(size=shape) * 1e4,
        "logits far below 0": lambda shape: rng.normal(size=shape) - 1e4,
        "logits far above 0": lambda shape: rng.normal(size=shape) + 1e4,
    }
    for name, make in special.items():
        for dtype in (np.float64, np.float32):
            _, targets = tokens(rng, (3, 5), 6)
            found += [
                Case(name, (make((3, 5, 6)).astype(dtype), targets), {"reduction": r}) for r in REDUCTIONS
            ]
    for number in aim.NUMBERS:
        for dtype in battery.FLOATS:
            if number <= 1e4:
                near = number * np.array([0.0, 0.99, 1.01, -0.99, -1.01, 0.0, 1.1])
                x = np.stack([np.roll(near, k)[:5] for k in range(7)]).astype(dtype)
                found.append(
                    Case(f"logits near {number:g}", (x, np.arange(7) % 5), {"reduction": REDUCTIONS[2]})
                )
    for n_classes in aim.sizes(1100, at_most=70_000):
        add(f"{n_classes} classes", (2,), n_classes, {"ignored": "none"})
        x, _ = tokens(rng, (2,), n_classes)
        last = np.array([n_classes - 1, 0])
        found.append(Case(f"{n_classes} classes, the last", (x, last), {"reduction": "none"}))
    for n_tokens in aim.sizes(1100, at_most=5000):
        add(f"{n_tokens} tokens", (n_tokens,), 2, {})
    return sorted(found, key=lambda case: case.arguments[0].size)


def test_the_loss_is_its_definition_everywhere(impl, rng):
    battery.sweep(function_of_arrays(impl), slow_cross_entropy, cases(rng), ulps=32, magnitude=size_of_error)


def test_the_gradient_is_its_definition_everywhere(impl, rng):
    def size(x, targets, ignore_index=-100, reduction="mean"):
        n = max(int((targets != ignore_index).sum()), 1) if reduction == "mean" else 1
        return 4 * size_of_error(x, targets, ignore_index, "mean") / n

    battery.sweep_gradients(
        impl.cross_entropy, slow_gradient, cases(rng), tensor=leaf, rng=rng, ulps=32, magnitude=size
    )


@pytest.mark.parametrize("kind", [*battery.INTEGERS[:-1], ">i2", ">u2", ">i4", ">i8", ">u8"])
def test_targets_of_every_integer_dtype(impl, kind, rng):
    """What is ignored is a number; it does not take on the dtype of the targets."""
    kind = np.dtype(kind)
    limits = np.iinfo(kind)
    numbers = (-100, 5, 127, 155, 156, 255, 2**70, -(2**70), limits.max)
    for ignored, reduction in zip(numbers, itertools.cycle(REDUCTIONS), strict=False):
        n_classes, counting = (200, [0, 6, 156, 199]) if ignored in (-100, 156) else (7, [0, 3, 6])
        targets = [each for each in counting if each != ignored and each <= limits.max]
        targets += [ignored, targets[0]] if limits.min <= ignored <= limits.max else []
        targets, options = np.array(targets, kind), {"ignore_index": ignored, "reduction": reduction}
        x = rng.normal(size=(len(targets), n_classes))
        label = f"targets {targets.tolist()} of {kind}, {options}"
        value, gradient = value_and_gradient(impl, x, targets, **options)
        plain = np.array(targets.tolist(), object)
        battery.check_equal(value, slow_cross_entropy(x, plain, **options), 64, len(x), label=label)
        g = np.ones(value.shape)
        battery.check_equal(gradient, slow_gradient(g, x, plain, **options)[0], 64, 1, label=label)


def test_every_target_is_looked_at(impl, rng):
    """The first, the last, and one in the middle of thousands; in the wrong shape, of a wrong kind."""
    for n in aim.sizes(1, 2, 1100, 5000, at_most=40_000):
        x = Tensor(np.zeros((n, 3)))
        for place, wrong in itertools.product({0, n // 2, n - 1}, (3, -1, -99, -101, 2**40)):
            targets = np.full(n, -100)
            targets[place] = wrong
            battery.refuses(impl.cross_entropy, x, targets)
    x = Tensor(np.zeros((2, 3, 4)))
    for wrong in (
        *(np.zeros(shape, int) for shape in [(3, 2), (6,), (6, 1), (2, 3, 1), (1, 2, 3), (2, 1), (1, 3)]),
        *(np.zeros((2, 3), kind) for kind in ("f2", "f4", "f8", bool, object, "M8[s]", complex, "S1", "U1")),
        np.full((2, 3), np.nan),
        np.full((2, 3), -100.0),
    ):
        battery.refuses(impl.cross_entropy, x, wrong)
    for kind in ("f2", "f8", bool, object, complex):
        battery.refuses(impl.cross_entropy, Tensor(np.zeros((0, 4))), np.zeros(0, kind))
    battery.refuses(impl.cross_entropy, Tensor(np.zeros((1, 300))), np.array([2**64 - 100], np.uint64))


def test_every_token_of_very_many_counts(impl, rng):
    """Seven rows again and again, and a last one that stands out."""
    rows, row_targets = tokens(rng, (7,), 3, "none")
    row_targets[3] = -100
    losses = slow_losses(rows, row_targets, -100)
    slopes = slow_gradient(np.ones(7), rows, row_targets, reduction="none")[0]
    for n in aim.sizes(20_000, at_most=300_000):
        order = np.arange(n) % 7
        order[-1] = int(losses.argmax())
        x, targets = rows[order], row_targets[order]
        n_counting = int((targets != -100).sum())
        total = losses[order].sum()
        expected = {"none": losses[order], "sum": total, "mean": total / n_counting}
        for reduction in REDUCTIONS:
            label = f"{n} tokens, {reduction}"
            value, gradient = value_and_gradient(impl, x, targets, reduction=reduction)
            battery.check_equal(value, expected[reduction], 256, label=label)
            share = n_counting if reduction == "mean" else 1
            battery.check_equal(gradient, slopes[order] / share, 64, 1 / share, label=label)


def test_reductions_are_three_words(impl):
    x = Tensor(np.zeros((2, 3)))
    for wrong in (None, 0, 1, True, False, "", "None", "MEAN", "sum ", b"mean", "avg"):
        for targets in ([0, 1], [0, -100], [-100, -100]):
            battery.refuses(impl.cross_entropy, x, np.array(targets), reduction=wrong)
        battery.refuses(impl.cross_entropy, Tensor(np.zeros((0, 3))), np.zeros(0, int), reduction=wrong)


def test_sums_beyond_float16(impl):
    """The sum is beyond what float16 could add up term by term; of 30,000 losses, beyond its range."""
    for n_tokens, reductions in ((9000, ("mean", "sum")), (30_000, ("mean",))):
        x = np.tile(np.array([[3.0, 0.0]], np.float16), (n_tokens, 1))
        for reduction in reductions:
            value, _ = value_and_gradient(impl, x, np.ones(n_tokens, int), reduction=reduction)
            expected = (3 + math.log1p(math.exp(-3))) * (1 if reduction == "mean" else n_tokens)
            label = f"logits [3, 0], {n_tokens} times, of float16; the target is the second; {reduction}"
            battery.check_equal(value, expected, 8, dtype=np.float16, label=label)
    label = "one token, 4,000 equal logits of float16"
    value, gradient = value_and_gradient(impl, np.zeros((1, 4000), np.float16), [7])
    battery.check_equal(value, math.log(4000), 4, dtype=np.float16, label=label)
    # Their logarithm, of size 8, may have been rounded before the exponential.
    battery.check_equal(gradient[0, 8:], np.full(3992, 1 / 4000), 16, dtype=np.float16, label=label)


def test_targets_may_be_lists_and_numbers(impl):
    x = np.log([[1.0, 3.0], [1.0, 1.0]])
    close(impl.cross_entropy(Tensor(x), [0, 1]).data, (math.log(4) + math.log(2)) / 2)
    for target in (0, np.int32(0), np.array(0)):
        loss = impl.cross_entropy(Tensor(x[0]), target, reduction="none")
        assert loss.shape == ()
        close(loss.data, math.log(4))


def test_gradients_flow_on_and_add_up(impl, rng):
    x, targets = tokens(rng, (6,), 4)
    targets[0] = 2
    w = leaf(x)
    assert not impl.cross_entropy(Tensor(x), targets).requires_grad
    with no_grad():
        assert not impl.cross_entropy(w, targets).requires_grad
    loss = impl.cross_entropy(w * 2, targets)
    expected = 2 * slow_gradient(1.0, 2 * x, targets)[0]
    (loss * 3 + impl.cross_entropy(w * 2, targets)).backward()
    close(w.grad, 4 * expected)
    loss.backward()
    close(w.grad, 5 * expected)


def test_losses_do_not_share_state(impl, rng):
    """Two batches of one shape are under way at once."""
    (a, s), (b, t) = tokens(rng, (3,), 4, "none"), tokens(rng, (3,), 4, "none")
    first, second = leaf(a), leaf(b)
    one, two = impl.cross_entropy(first, s), impl.cross_entropy(second, t)
    one.backward()
    two.backward()
    close(first.grad, slow_gradient(1.0, a, s)[0])
    close(second.grad, slow_gradient(1.0, b, t)[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_between_the_passes(impl, rng, dtype):
    """At most two arrays of the size of the logits; one operation after the other on the tape keeps five."""
    logits, targets = leaf(rng.normal(size=(96, 500)).astype(dtype)), rng.integers(500, size=96)
    impl.cross_entropy(logits, targets)
    gc.collect()
    for reduction in REDUCTIONS:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            loss = impl.cross_entropy(logits, targets, reduction=reduction)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert loss.requires_grad
        assert after - before < 2.5 * logits.data.nbytes, reduction
