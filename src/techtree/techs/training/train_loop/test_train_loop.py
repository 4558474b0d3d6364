"""Oracles: regressions whose gradients are written out in NumPy, and runs that nobody interrupted."""

import gc
import json
import math
import types
import weakref

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.safetensors import load_file, read_metadata, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.schedule_clip import warmup_cosine
from techtree.techs.training.sgd import SGD


class Affine(Module):
    """y = x @ w + b, with another number that nothing depends on; notes the modes in which it is called."""

    def __init__(self, n=3, dtype=np.float64):
        self.w = Parameter(np.linspace(-1, 1, n).astype(dtype))
        self.b = Parameter(np.array(0.5, dtype))
        self.unused = Parameter(np.zeros(2, dtype))
        self.inner = [Module()]
        self.modes, self.is_recorded = [], []

    def forward(self, x):
        self.modes.append((self.is_training, self.inner[0].is_training))
        y = x @ self.w + self.b
        self.is_recorded.append(y.requires_grad)
        return y


def squares(model, batch):
    """The sum of squared errors over the rows whose target is a number."""
    x, y = batch
    counts = ~np.isnan(y)
    if not counts.any():
        return Tensor(np.array(np.nan)), 0
    error = model(Tensor(x[counts])) - y[counts]
    return (error * error).sum(), int(counts.sum())


def slow_mean(w, b, batches):
    """Mean squared error and its gradients, over all rows together."""
    x = np.concatenate([x for x, _ in batches]).astype(float)
    y = np.concatenate([y for _, y in batches]).astype(float)
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    error = x @ w + b - y
    return (error**2).mean(), 2 * error @ x / len(y), 2 * error.mean()


def portions(rng, sizes, n=3, holes=True):
    """Batches of these sizes, with some targets that do not count."""
    found = []
    for size in sizes:
        x, y = rng.normal(size=(size, n)), rng.normal(size=size) * 3
        if holes:
            y[rng.random(size) < 0.3] = np.nan
        found.append((x, y))
    return found


def test_accumulating_by_hand(impl):
    """w = 1: errors -1, -2, and 3 in the other batch. Mean square 14/3, slope 2 (-1 - 2 * 2 + 3) / 3."""
    model = Affine(1)
    model.w.data[:], model.b.data[...] = 1, 0
    first = (np.array([[1.0], [2.0]]), np.array([2.0, 4.0]))
    second = (np.array([[1.0]]), np.array([-2.0]))
    assert impl.accumulate(model, squares, [first, second]) == pytest.approx(14 / 3, rel=1e-12)
    np.testing.assert_allclose(model.w.grad, [-4 / 3], rtol=1e-12)
    assert float(model.b.grad) == pytest.approx(0.0, abs=1e-12)
    assert model.unused.grad is None


def test_portions_are_one_batch(impl, rng):
    """Each example counts once, however they are cut; 1e-12 is far above the rounding of sums this short."""
    plans = [(1,), (7,), (3, 3), (1, 5), (4, 1, 2), (40, 1), (1, 200)]
    require_one_batch(impl, rng, plans)


def require_one_batch(impl, rng, plans):
    for sizes in plans:
        batches = [(np.ones((1, 3)), np.ones(1)), *portions(rng, sizes)]
        model = Affine()
        kept = [each.data.copy() for each in model.parameters()]
        inputs = [(x.copy(), y.copy()) for x, y in batches]
        for mode in (model.train, model.eval):
            mode()
            loss = impl.accumulate(model, squares, batches)
            expected, dw, db = slow_mean(model.w.data, model.b.data, batches)
            assert isinstance(loss, float)
            asked = f"{len(sizes)} batches of {sizes[:5]} examples"
            assert loss == pytest.approx(expected, rel=1e-11), asked
            np.testing.assert_allclose(model.w.grad, dw, rtol=1e-10, atol=1e-11, err_msg=asked)
            np.testing.assert_allclose(model.b.grad, db, rtol=1e-10, atol=1e-11, err_msg=asked)
            assert type(model.b.grad) is np.ndarray
            assert impl.evaluate(model, squares, batches) == pytest.approx(expected, rel=1e-11), asked
            assert model.w.grad.shape == (3,)
            assert model.b.grad.shape == ()
            assert model.is_training is (mode == model.train)
        assert all(np.array_equal(a.data, b) for a, b in zip(model.parameters(), kept, strict=True))
        for (x, y), (x_kept, y_kept) in zip(batches, inputs, strict=True):
            assert np.array_equal(x, x_kept)
            assert np.array_equal(y, y_kept, equal_nan=True)


def test_batches_of_any_kind(impl, rng):
    """A batch is what `batch_loss` understands: here arrays of all shapes, layouts and sizes of values."""

    def distances(model, batch):
        error = (model.b - batch.astype(np.float64)).reshape(batch.size)
        return (error * error).sum(), batch.size

    def opposite(model, batch):
        loss, n = distances(model, batch)
        return -loss, n

    lists = [
        [rng.normal(size=shape) for shape in shapes]
        for shapes in ([(3,), (2,)], [(3,), (2,)], [(2, 3, 2), (1, 1)])
    ]
    lists += [
        [rng.normal(size=(0,)), rng.normal(size=(140,))],
        [np.ones((2, 0)), rng.normal(size=(3,)) * 1e5],
    ]
    lists += [[lay_out(rng.normal(size=(3, 4)))] for lay_out in battery.LAYOUTS.values()]
    lists += [[rng.normal(size=(5,)).astype(np.float32)], [np.arange(6)], [np.array(3.0)]]
    for batches in [*lists, *lists[:2]]:
        kept = [each.copy() for each in batches]
        entries = np.concatenate([each.astype(np.float64).ravel() for each in batches])
        model = Affine()
        expected = ((0.5 - entries) ** 2).mean()
        assert impl.evaluate(model, distances, batches) == pytest.approx(expected, rel=1e-12)
        assert model.b.grad is None
        assert impl.accumulate(model, distances, batches) == pytest.approx(expected, rel=1e-12)
        assert float(model.b.grad) == pytest.approx(2 * (0.5 - entries).mean(), rel=1e-10, abs=1e-10)
        # The logarithm of a density may be of either sign.
        assert impl.accumulate(model, opposite, batches) == pytest.approx(-expected, rel=1e-12)
        assert impl.evaluate(model, opposite, batches * 20) == pytest.approx(-expected, rel=1e-12)
        assert all(np.array_equal(a, b) for a, b in zip(batches, kept, strict=True))
    for batch in (0, 0.0, None, "", [], (), {}, False, np.array([]), 7, "text", range(3), object()):
        seen = []

        def noting(model, given, seen=seen):
            seen.append(given)
            return model.b * 4, 1

        for function in (impl.accumulate, impl.evaluate):
            assert function(Affine(), noting, iter([batch, batch])) == 2  # the bias is 1/2
        assert [each is batch for each in seen] == [True] * 4


def scaled_sum(value):
    """A loss whose gradient is known: the bias times the sum of the entries of a batch, and a factor."""

    def loss(model, batch):
        return (model.b * np.asarray(batch) * value).sum(), len(batch)

    return loss


def test_losses_and_gradients_of_any_size(impl):
    """Nothing is clamped, rounded or left out; what is not finite shows."""
    sizes = [0.0, 1e-300, 1e-30, 1e-9, 1.0, 1e5, 1e30, 1e300, *(2 * c for c in aim.NUMBERS if c < 1e290)]
    for size in sizes:
        for sign in (1, -1):
            model = Affine()
            batches = [[1.0, 2.0], [0.5], [4.0]]
            got = impl.accumulate(model, scaled_sum(sign * size), batches)
            np.testing.assert_allclose(got, 0.5 * sign * size * 7.5 / 4, rtol=1e-12)
            np.testing.assert_allclose(model.b.grad, sign * size * 7.5 / 4, rtol=1e-12)
            got = impl.evaluate(model, scaled_sum(sign * size), batches)
            np.testing.assert_allclose(got, 0.5 * sign * size * 7.5 / 4, rtol=1e-12)
    for value in (np.inf, -np.inf, np.nan):
        model = Affine()
        for batches in ([[1.0], [2.0, value]], [[value], [2.0, 1.0]]):
            for got in (
                impl.accumulate(model, scaled_sum(1.0), batches),
                impl.evaluate(model, scaled_sum(1.0), batches),
                float(model.b.grad),
            ):
                assert not math.isfinite(got), f"the batches {batches}"


def test_numbers_of_examples_of_any_kind(impl):
    """Integers of NumPy whose sum would overflow, and large ones."""
    for count in (np.uint8(200), np.int8(100), np.int32(2**31 - 1), np.int64(2**40), 10**15, 2**53 - 1):

        def loss(model, batch, count=count):
            return (model.b * 3.0).sum(), count

        model, n = Affine(), int(count)
        assert impl.accumulate(model, loss, range(3)) == pytest.approx(1.5 / n, rel=1e-12)
        assert float(model.b.grad) == pytest.approx(3 / n, rel=1e-12)
        got = impl.evaluate(model, loss, range(3))
        assert isinstance(got, float)
        assert got == pytest.approx(1.5 / n, rel=1e-12)


def test_parameters_that_some_batches_use(impl):
    """One that only a batch without examples would use has no gradient; one in the last batch has."""

    def loss(model, batch):
        name, n = batch
        total = (getattr(model, name) * 2.0).sum()
        return total, n

    for order in ([("w", 2), ("b", 3), ("unused", 0)], [("unused", 0), ("b", 1), ("b", 2), ("w", 2)]):
        model = Affine()
        model.w.grad = held = np.ones(3)
        impl.accumulate(model, loss, order)
        n = sum(count for _, count in order)
        np.testing.assert_allclose(model.w.grad, [2 / n] * 3, rtol=1e-12)
        assert float(model.b.grad) == pytest.approx(2 * sum(name == "b" for name, _ in order) / n, rel=1e-12)
        assert model.unused.grad is None
        assert held.tolist() == [1, 1, 1]  # dropped, not overwritten: somebody may hold it
        first = [model.w.grad, model.b.grad]
        impl.accumulate(model, loss, order)
        assert not any(np.shares_memory(a, b) for a in first for b in (model.w.grad, model.b.grad))


def test_earlier_gradients_are_dropped(impl, rng):
    batches = portions(rng, (3, 5), holes=False)
    model = Affine()
    for parameter in model.parameters():
        parameter.grad = np.full(parameter.shape, 1e3)
    impl.accumulate(model, squares, batches)
    _, dw, _ = slow_mean(model.w.data, model.b.data, batches)
    np.testing.assert_allclose(model.w.grad, dw, rtol=1e-11)
    assert model.unused.grad is None
    impl.accumulate(model, squares, batches)
    np.testing.assert_allclose(model.w.grad, dw, rtol=1e-11)


def test_gradients_keep_their_dtype(impl, rng):
    """Also when the numbers of examples are NumPy's integers, which would turn float32 into float64."""
    for dtype, off in ((np.float32, 1e-5), (np.float16, 2e-2)):
        model = Affine(dtype=dtype)
        batches = [(x.astype(dtype), y.astype(dtype)) for x, y in portions(rng, (3, 4), holes=False)]

        def with_numpy_count(model, batch):
            loss, n = squares(model, batch)
            return loss, np.int64(n)

        loss = impl.accumulate(model, with_numpy_count, batches)
        assert type(loss) is float
        assert model.w.grad.dtype == model.b.grad.dtype == dtype
        expected, dw, _ = slow_mean(model.w.data.astype(float), float(model.b.data), batches)
        assert loss == pytest.approx(expected, rel=off)
        np.testing.assert_allclose(model.w.grad, dw, rtol=off, atol=off * 10)
        loss = impl.evaluate(model, with_numpy_count, batches)
        assert type(loss) is float
        assert loss == pytest.approx(expected, rel=off)


def test_sums_of_float32_losses_are_wide(impl):
    """A thousand small losses after one of 2**24: each alone would vanish beside it in float32."""

    def loss(model, batch):
        return Tensor(np.array(batch, np.float32)) + model.b.sum() * np.float32(0), 1

    batches = [2.0**24] + [0.5] * 1000
    for function in (impl.accumulate, impl.evaluate):
        got = function(Affine(dtype=np.float32), loss, batches)
        assert got == pytest.approx((2.0**24 + 500) / 1001, rel=1e-12)


def test_batches_without_examples_add_nothing(impl, rng):
    """Their loss is NaN here, as a mean over nothing would be."""
    nothing = (np.ones((2, 3)), np.full(2, np.nan))
    batches = portions(rng, (3, 5), holes=False)
    model = Affine()
    loss = impl.accumulate(model, squares, [nothing, batches[0], nothing, batches[1], nothing])
    expected, dw, _ = slow_mean(model.w.data, model.b.data, batches)
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.w.grad, dw, rtol=1e-11)
    assert impl.evaluate(model, squares, [nothing, *batches, nothing]) == pytest.approx(expected, rel=1e-12)

    def infinite(model, batch):
        loss, n = squares(model, batch)
        return (loss, n) if n else ((model(Tensor(np.ones((1, 3)))) * np.inf).sum(), 0)

    assert impl.accumulate(model, infinite, [nothing, *batches]) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(model.w.grad, dw, rtol=1e-11)


def test_no_example_at_all(impl):
    nothing = (np.ones((2, 3)), np.full(2, np.nan))
    for function in (impl.accumulate, impl.evaluate):
        for batches in ([], [nothing], [nothing, nothing], iter([]), [nothing] * 20):
            for model in (Affine().train(), Affine().eval()):
                is_training = model.is_training
                battery.refuses(function, model, squares, batches)
                assert model.is_training is is_training
                assert model.inner[0].is_training is is_training


def test_batches_are_walked_once_and_in_order(impl, rng):
    batches, seen = portions(rng, (2, 3, 1), holes=False), []

    def noting(model, batch):
        seen.append(len(batch[1]))
        return squares(model, batch)

    for function in (impl.accumulate, impl.evaluate):
        seen.clear()
        function(Affine(), noting, (batch for batch in batches))
        assert seen == [2, 3, 1]


def test_memory_does_not_grow_with_the_number_of_batches(impl, rng):
    """When a loss is computed, at most the one before it is still alive."""
    alive, most = [], []

    def watched(model, batch):
        if sum(each() is not None for each in alive) > 1:
            gc.collect()  # cycles may keep it a little longer
        most.append(sum(each() is not None for each in alive))
        loss, n = squares(model, batch)
        alive.append(weakref.ref(loss))
        return loss, n

    for function in (impl.accumulate, impl.evaluate):
        alive.clear()
        function(Affine(), watched, portions(rng, (3,) * 6, holes=False))
    assert max(most) <= 1


def test_batches_are_drawn_when_it_is_their_turn(impl, rng):
    """All at once they need the memory that portions are there to save."""
    n_computed, batches = 0, portions(rng, (3,) * 6, holes=False)

    def counting(model, batch):
        nonlocal n_computed
        n_computed += 1
        return squares(model, batch)

    def drawn():
        for n, batch in enumerate(batches):
            assert n_computed >= n - 1, f"batch {n} is drawn when {n_computed} have been computed"
            yield batch

    for function in (impl.accumulate, impl.evaluate):
        n_computed = 0
        function(Affine(), counting, drawn())
        assert n_computed == 6


def test_evaluation_leaves_no_trace(impl, rng):
    for is_training in (True, False):
        model = Affine()
        model = model.train() if is_training else model.eval()
        gradient = model.w.grad = np.array([1.0, 2.0, 3.0])
        kept = model.state_dict()
        batches = portions(rng, (3, 5, 1))
        for _ in range(2):
            got = impl.evaluate(model, squares, batches)
            assert isinstance(got, float)
            assert got == pytest.approx(slow_mean(model.w.data, model.b.data, batches)[0], rel=1e-12)
        assert set(model.modes) == {(False, False)}
        assert not any(model.is_recorded)
        assert model.is_training is is_training
        assert model.inner[0].is_training is is_training
        assert model.w.grad is gradient
        assert gradient.tolist() == [1.0, 2.0, 3.0]
        assert model.b.grad is None
        assert all(np.array_equal(value, kept[name]) for name, value in model.state_dict().items())


def test_evaluation_puts_the_mode_back_after_an_error(impl):
    """An error of the loss at any batch, or of the batches themselves; it passes through."""

    def failing(model, batch):
        if isinstance(batch, Exception):
            raise batch
        return squares(model, batch)

    def broken(batches, error):
        yield from batches
        raise error

    good = (np.ones((2, 3)), np.ones(2))
    for is_training in (True, False):
        for error in (ArithmeticError("a"), ValueError("b"), KeyError("c"), RuntimeError("d")):
            for batches in ([error], [good, good, error, good], broken([good], error)):
                model = Affine().train() if is_training else Affine().eval()
                raised = battery.refuses(impl.evaluate, model, failing, batches, error=type(error))
                assert raised is error
                assert model.is_training is is_training
                assert model.inner[0].is_training is is_training
                assert (model.w * 2).requires_grad  # recording goes on
            assert (
                battery.refuses(impl.accumulate, Affine(), failing, [good, error], error=type(error)) is error
            )


def test_evaluation_keeps_what_is_frozen_and_whether_it_records(impl, rng):
    model, batches = Affine(), portions(rng, (3, 2), holes=False)
    model.w.requires_grad = False
    impl.evaluate(model, squares, batches)
    assert [each.requires_grad for each in model.parameters()] == [False, True, True]
    with no_grad():
        impl.evaluate(model, squares, batches)
        assert not (model.b * 2).requires_grad
    assert (model.b * 2).requires_grad


def test_evaluation_is_that_of_now(impl, rng):
    """Weights and batches may have been changed since the call before."""
    model, batches = Affine(), portions(rng, (3, 2), holes=False)
    for function in (impl.evaluate, impl.accumulate):
        for _ in range(2):
            model.w.data *= -2
            batches[1][0][...] = rng.normal(size=batches[1][0].shape)
            expected = slow_mean(model.w.data, model.b.data, batches)[0]
            assert function(model=model, batch_loss=squares, batches=batches) == pytest.approx(expected)


class Part:
    """Holds arrays for a checkpoint, and counts what is done with it."""

    def __init__(self, **arrays):
        arrays = {name.replace("_", "."): np.array(x) for name, x in arrays.items()}
        self.arrays, self.n_loads = arrays, 0

    def state_dict(self):
        return dict(self.arrays)

    def load_state_dict(self, state):
        self.arrays, self.n_loads = {name: np.array(x) for name, x in state.items()}, self.n_loads + 1


def test_a_checkpoint_is_one_plain_file(impl, tmp_path):
    path = tmp_path / "run.safetensors"
    parts = {"model": Part(a_b=[1.0, 2.0], c=[3]), "stream": Part(a_b=7), "nothing": Part()}
    assert impl.save_checkpoint(path, 12, parts) is None
    assert [each.name for each in tmp_path.iterdir()] == ["run.safetensors"]
    metadata = read_metadata(path)
    assert metadata["step"] == "12"
    assert json.loads(metadata["parts"]) == ["model", "stream", "nothing"]
    tensors = load_file(path)
    assert sorted(tensors) == ["model.a.b", "model.c", "stream.a.b"]
    assert tensors["model.a.b"].tolist() == [1.0, 2.0]
    assert (tensors["stream.a.b"].tolist(), tensors["stream.a.b"].shape) == (7, ())
    assert tensors["model.c"].dtype == np.array([3]).dtype


def test_what_was_saved_is_loaded(impl, tmp_path):
    for path in (tmp_path / "a", str(tmp_path / "b")):
        parts = {
            "x": Part(_a_b_=[[1.5, -2.0]], c=np.zeros((0, 3), np.float32)),
            "y": Part(),
            "z": Part(a=[True]),
        }
        impl.save_checkpoint(path, 0, parts)
        others = {"z": Part(q=[5]), "y": Part(), "x": Part()}
        step = impl.load_checkpoint(path, others)
        assert step == 0
        assert isinstance(step, int)
        for name, part in parts.items():
            got = others[name].arrays
            assert sorted(got) == sorted(part.arrays)
            for key, value in part.arrays.items():
                assert np.array_equal(got[key], value)
                assert got[key].dtype == value.dtype
                assert got[key].shape == value.shape
            assert others[name].n_loads == 1
            assert part.n_loads == 0
        for step in (10**12, 2**24 + 1, 2**70 + 1, 3):  # an earlier step replaces a later one, too
            parts["z"].arrays["a"] = np.array([step % 7])
            impl.save_checkpoint(path, step, parts)
            got = impl.load_checkpoint(path, others)
            assert (got, type(got)) == (step, int)
            assert others["z"].arrays["a"].tolist() == [step % 7]  # what is there now


def test_arrays_of_any_layout_are_saved(impl, tmp_path, rng):
    part = Part()
    part.arrays = {name: lay_out(rng.normal(size=(3, 4))) for name, lay_out in battery.LAYOUTS.items()}

    class Read:
        def state_dict(self):
            return types.MappingProxyType(part.arrays)

    kept = {name: value.copy() for name, value in part.arrays.items()}
    impl.save_checkpoint(tmp_path / "run", 1, {"x": Read()})
    other = Part()
    impl.load_checkpoint(tmp_path / "run", {"x": other})
    for name, value in kept.items():
        assert np.array_equal(other.arrays[name], value), name
        assert np.array_equal(part.arrays[name], value), name


def test_an_old_checkpoint_is_replaced_whole(impl, tmp_path):
    """A second name of the old file must still lead to the old content: nothing was written into it."""
    path, other = tmp_path / "run", tmp_path / "other"
    impl.save_checkpoint(path, 1, {"model": Part(a=np.ones(100))})
    content = path.read_bytes()
    other.hardlink_to(path)
    impl.save_checkpoint(path, 2, {"model": Part(a=np.zeros(100))})
    assert other.read_bytes() == content
    assert impl.load_checkpoint(path, {"model": Part()}) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "run"]

    class Broken(Part):
        def state_dict(self):
            raise ArithmeticError("as it should")

    parts = {"model": Part(a=np.zeros(1)), "stream": Broken()}
    battery.refuses(impl.save_checkpoint, path, 3, parts, error=ArithmeticError)
    battery.refuses(impl.save_checkpoint, path, 3, {"model": Part(a=np.zeros(1), b=1j)})  # no file holds it
    assert impl.load_checkpoint(path, {"model": Part()}) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "run"]


def test_other_parts_than_were_saved(impl, tmp_path):
    path = tmp_path / "run"
    lists = [
        (["model", "stream"], ["model"]),
        (["model", "stream"], ["stream"]),
        (["model", "stream"], ["model", "stream", "more"]),
        (["model", "stream"], ["model", "streams"]),
        (["model", "stream"], ["Model", "stream"]),
        (["model", "stream"], ["model ", "stream"]),
        (["model", "stream"], ["modelstream"]),
        (["model", "stream"], ["model", ""]),
        (["model", "stream"], []),
        ([], ["model"]),
        (["1", "2"], ["1", "3"]),
        ([f"p{n}" for n in range(30)], [f"p{n}" for n in range(1, 31)]),
    ]
    for saved, names in lists:
        impl.save_checkpoint(path, 5, {name: Part(a=[1]) if len(name) < 6 else Part() for name in saved})
        parts = {name: Part(a=[0]) for name in names}
        battery.refuses(impl.load_checkpoint, path, parts)
        assert all(part.n_loads == 0 for part in parts.values())


def test_names_with_dots(impl, tmp_path):
    for name in ("a.b", ".", "a.", ".a", "a..b", "a" * 200 + ".b"):
        for others in (["x"], [], ["x", "y", "z"] + [f"p{n}" for n in range(20)]):
            parts = {other: Part() for other in others}
            for given in (parts | {name: Part(a=[1])}, {name: Part()} | parts):
                battery.refuses(impl.save_checkpoint, tmp_path / "run", 1, given)
    assert list(tmp_path.iterdir()) == []
    impl.save_checkpoint(tmp_path / "run", 1, {"x": Part(a=[1])})
    battery.refuses(impl.save_checkpoint, tmp_path / "run", 2, {"x": Part(a=[2]), "y.z": Part()})
    assert read_metadata(tmp_path / "run")["step"] == "1"


def test_a_file_that_is_no_checkpoint(impl, tmp_path):
    good = {"step": "3", "parts": '["model"]'}
    wrong = [None, {"step": "3"}, {"parts": '["model"]'}]
    wrong += [good | each for each in ({"step": "three"}, {"step": ""}, {"parts": "model"})]
    for metadata in wrong:
        save_file({"model.a": np.zeros(2)}, tmp_path / "weights", metadata)
        part = Part(a=[1])
        battery.refuses(impl.load_checkpoint, tmp_path / "weights", {"model": part})
        assert part.n_loads == 0
    (tmp_path / "text").write_text("step 3")
    battery.refuses(impl.load_checkpoint, tmp_path / "text", {"model": part})


def test_errors_of_a_part_pass_through(impl, tmp_path):
    class Proud(Part):
        def load_state_dict(self, state=None):
            raise self.error

        state_dict = load_state_dict

    impl.save_checkpoint(tmp_path / "run", 1, {"model": Part(a=[1]), "more": Part()})
    for error in (ArithmeticError("x"), ValueError("x"), KeyError("x"), TypeError("x")):
        part = Proud()
        part.error = error
        for parts in ({"model": part, "more": Part()}, {"model": Part(), "more": part}):
            call = impl.load_checkpoint, tmp_path / "run", parts
            assert battery.refuses(*call, error=type(error)) is error
            assert (
                battery.refuses(impl.save_checkpoint, tmp_path / "new", 1, parts, error=type(error)) is error
            )
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


N = 12
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.where(np.arange(N) == 4, np.nan, X @ np.array([1.0, -2.0, 0.5]) + 1)


def regression(model, batch):
    return squares(model, (X[batch].astype(model.w.dtype), Y[batch]))


def cosine(step):
    return warmup_cosine(step, 50, 4)


class Run:
    """The objects of one run, made the same each time."""

    def __init__(self, optimizer="adamw", batch_size=5, loss=regression):
        self.model = Affine()
        if optimizer == "adamw":
            groups = [{"parameters": [self.model.w], "lr": 0.1}, {"parameters": [self.model.b]}]
            self.optimizer = AdamW(groups, lr=0.02, weight_decay=0.1)
        else:
            self.optimizer = SGD(self.model.parameters(), lr=0.05, momentum=0.5)
        self.stream = BatchStream(DataLoader(N, batch_size, seed=4, keep_last=True))
        self.loss = loss

    def train(self, impl, n_steps, **options):
        return impl.train(self.model, self.loss, self.optimizer, self.stream, n_steps, **options)

    def state(self):
        parts = {"model": self.model, "optimizer": self.optimizer, "stream": self.stream}
        return {
            f"{name}.{key}": value.tobytes()
            for name, part in parts.items()
            for key, value in part.state_dict().items()
        }


def slow_training(n_steps, n_accumulate=1, schedule=lambda step: 1.0, max_norm=math.inf, batch_size=5):
    """SGD with momentum 0.5 and a rate of 0.05, in NumPy."""
    w, b = np.linspace(-1, 1, 3), 0.5
    vw, vb, losses = np.zeros(3), 0.0, []
    stream = BatchStream(DataLoader(N, batch_size, seed=4, keep_last=True))
    for step in range(n_steps):
        batch = np.concatenate([stream.next_batch() for _ in range(n_accumulate)])
        loss, dw, db = slow_mean(w, b, [(X[batch], Y[batch])])
        norm = math.sqrt(dw @ dw + db * db)
        shrink = max_norm / norm if norm > max_norm else 1.0
        vw, vb = 0.5 * vw + shrink * dw, 0.5 * vb + shrink * db
        w, b = w - 0.05 * schedule(step) * vw, b - 0.05 * schedule(step) * vb
        losses.append(loss)
    return losses, w, b


@pytest.mark.parametrize(
    ("n_steps", "options"),
    [
        (1, {}),
        (7, {}),
        (6, {"n_accumulate": 3}),
        (9, {"schedule": cosine}),
        (6, {"max_norm": 0.5}),
        (6, {"max_norm": 3.0, "schedule": cosine, "n_accumulate": 2}),
        (0, {}),
        (3, {"n_accumulate": 17}),
    ],
)
def test_training_is_its_definition(impl, n_steps, options):
    run = Run("sgd")
    for parameter in run.model.parameters():
        parameter.grad = np.full(parameter.shape, 1e3)  # from before: it does not matter
    losses = run.train(impl, n_steps, **options)
    expected, w, b = slow_training(n_steps, **options)
    assert isinstance(losses, list)
    assert all(isinstance(each, float) for each in losses)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(run.model.w.data, w, atol=1e-10)
    np.testing.assert_allclose(run.model.b.data, b, atol=1e-10)
    stream = BatchStream(run.stream.loader)
    for _ in range(n_steps * options.get("n_accumulate", 1)):
        stream.next_batch()
    assert run.stream.next_batch().tolist() == stream.next_batch().tolist()  # none was taken in advance
    assert run.model.is_training


class Noting(SGD):
    """Notes the learning rates, the gradients' norm and the mode of the model at each step."""

    def __init__(self, model, *arguments, **options):
        super().__init__(*arguments, **options)
        self.model, self.rates, self.norms, self.modes = model, [], [], []

    def step(self):
        self.rates.append([group["lr"] for group in self.groups])
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        self.norms.append(math.sqrt(sum(float((g * g).sum()) for g in gradients)))
        self.modes.append(self.model.is_training)
        super().step()


def noting_run():
    run = Run()
    groups = [{"parameters": [run.model.w]}, {"parameters": [run.model.b], "lr": 0.02}]
    run.optimizer = Noting(run.model, groups, lr=0.1)
    return run


def test_each_group_has_its_own_rate_times_the_factor(impl):
    run = noting_run()
    for _ in range(2):
        run.optimizer.rates.clear()
        run.train(impl, 5, schedule=lambda step: (step + 1) / 4)
        expected = [[0.1 * factor, 0.02 * factor] for factor in (0.25, 0.5, 0.75, 1.0, 1.25)]
        np.testing.assert_allclose(run.optimizer.rates, expected, rtol=1e-12)
        assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02]  # its own again


def test_many_groups_and_factors_of_any_kind(impl):
    """The schedule is asked with the number of the step, an integer; it may answer 0, and NumPy's numbers."""

    class Many(Module):
        def __init__(self):
            self.weights = [Parameter(np.full(2, float(n))) for n in range(12)]

    def loss(model, batch):
        return sum((each.sum() for each in model.weights), Tensor(np.zeros(()))), 1

    asked = []
    factors = [0, 0.0, np.float64(0.5), 2, np.float32(0.25), 1e-9, 1e6, 1]

    def schedule(step):
        asked.append(step)
        return factors[step]

    run, model = noting_run(), Many()
    rates = [0.0, *(2.0**-n for n in range(11))]
    groups = [{"parameters": [p], "lr": rate} for p, rate in zip(model.weights, rates, strict=True)]
    optimizer = Noting(model, groups, lr=0.1)
    impl.train(model, loss, optimizer, run.stream, len(factors), schedule=schedule)
    assert sorted(set(asked)) == list(range(len(factors)))
    assert all(type(step) is int for step in asked)
    expected = [[rate * float(factor) for rate in rates] for factor in factors]
    np.testing.assert_allclose(optimizer.rates, expected, rtol=1e-12)
    assert [group["lr"] for group in optimizer.groups] == rates
    total = sum(map(float, factors))
    for n, (each, rate) in enumerate(zip(model.weights, rates, strict=True)):
        np.testing.assert_allclose(each.data, n - total * rate, rtol=1e-12)


def test_the_norm_is_that_of_all_gradients_of_the_model(impl):
    """Also of those that the optimizer does not move; and not of what is no part of the model."""
    run = Run("sgd")
    other = Parameter(np.zeros(1))
    other.grad = np.array([1e6])
    run.optimizer = SGD([run.model.b, other], lr=0.05)
    w, b, stream = run.model.w.data.copy(), 0.5, BatchStream(run.stream.loader)
    for _ in range(3):
        batch = stream.next_batch()
        _, dw, db = slow_mean(w, b, [(X[batch], Y[batch])])
        b -= 0.05 * 0.5 / math.sqrt(dw @ dw + db * db) * db
    run.train(impl, 3, max_norm=0.5)
    assert float(run.model.b.data) == pytest.approx(b, rel=1e-12)
    assert np.array_equal(run.model.w.data, w)


def test_what_is_not_finite_counts_in_gradients_only(impl):
    """Of any parameter of the model, moved or not; a loss of infinity alone stops nothing."""

    def broken(model, batch):
        loss, n = regression(model, batch)
        return loss + (model.unused * np.inf).sum(), n

    def large(model, batch):
        loss, n = regression(model, batch)
        return loss + np.inf, n

    for loss, moves in ((broken, False), (large, True)):
        for max_norm in (math.inf, 1.0):
            run = Run("sgd", loss=loss)
            run.optimizer = SGD([run.model.b, run.model.w], lr=0.05)
            with np.errstate(invalid="ignore"):
                losses = run.train(impl, 2, max_norm=max_norm)
            assert not np.isfinite(losses).any()
            assert (float(run.model.b.data) != 0.5) is moves


def test_long_gradients_are_not_clipped_unless_told(impl):
    run = noting_run()

    def steep(model, batch):
        loss, n = regression(model, batch)
        return loss * 1e9, n

    run.loss = steep
    run.train(impl, 1, schedule=lambda step: 1e-12)
    assert run.optimizer.norms[0] > 1e8


def test_the_batches_of_a_step_come_in_the_order_of_the_stream(impl):
    run, seen = noting_run(), []

    def noting(model, batch):
        seen.append(batch.tolist())
        return regression(model, batch)

    run.loss = noting
    run.train(impl, 4, n_accumulate=3)
    stream = BatchStream(run.stream.loader)
    assert seen == [stream.next_batch().tolist() for _ in range(12)]


def test_errors_of_the_loss_pass_through(impl):
    for error in (ArithmeticError, ValueError, KeyboardInterrupt):

        def failing(model, batch, error=error):
            raise error

        run = noting_run()
        run.loss = failing
        with pytest.raises(error):
            run.train(impl, 3)
        assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02]


def test_errors_of_all_parts_pass_through_and_rates_are_put_back(impl, tmp_path):
    """Of the schedule, the stream, the optimizer, and of saving, at the third time they are asked."""

    def third_time(ask, error):
        calls = []

        def asked(*arguments):
            calls.append(arguments)
            if len(calls) == 3:
                raise error
            return ask(*arguments)

        return asked

    for error in (ArithmeticError("x"), ValueError("x"), StopIteration("x"), OSError("x")):
        for owner, name in (
            ("stream", "next_batch"),
            ("optimizer", "step"),
            ("stream", "state_dict"),
            ("", ""),
        ):
            if isinstance(error, StopIteration) and name != "step":
                continue  # iterators make something else of it
            run = noting_run()

            def schedule(step, fails=not owner, error=error):
                if fails and step == 2:
                    raise error
                return 0.5 + step

            if owner:
                part = getattr(run, owner)
                setattr(part, name, third_time(getattr(part, name), error))
            path = tmp_path / f"{type(error).__name__} {name}"
            with pytest.raises(type(error)) as raised:
                run.train(impl, 5, schedule=schedule, path=path, save_every=1)
            assert raised.value is error
            assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02], f"{name} of {owner} fails"
            assert read_metadata(path)["step"] == "2"


def test_rates_are_put_back_after_an_error(impl):
    run = noting_run()
    run.loss = failing_at(3)
    with pytest.raises(Killed):
        run.train(impl, 5, schedule=lambda step: 0.5)
    assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02]


def test_training_happens_in_the_mode_of_training(impl):
    run = noting_run()
    run.model.eval()
    run.train(impl, 3)
    assert set(run.model.modes) == {(True, True)}
    assert run.optimizer.modes == [True] * 3
    assert run.model.is_training
    assert run.model.inner[0].is_training


def test_gradients_are_clipped_before_each_step(impl):
    run, free = noting_run(), noting_run()
    run.train(impl, 5, max_norm=0.75)
    assert max(run.optimizer.norms) <= 0.75 * (1 + 1e-12)
    free.train(impl, 5)
    assert free.optimizer.norms[0] > 0.8


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("max_norm", [math.inf, 1.0])
def test_a_gradient_that_is_not_finite_updates_nothing(impl, value, max_norm):
    """The step counts all the same: the next one has the next batch and the next rate."""
    run = noting_run()
    calls = []

    def sometimes_broken(model, batch):
        loss, n = regression(model, batch)
        calls.append(model.w.data.copy())
        return (loss * value if len(calls) == 2 else loss), n

    run.loss = sometimes_broken
    with np.errstate(invalid="ignore"):
        losses = run.train(impl, 4, schedule=lambda step: step + 1.0, max_norm=max_norm)
    assert len(losses) == 4
    assert not math.isfinite(losses[1])
    np.testing.assert_allclose(run.optimizer.rates, [[0.1, 0.02], [0.3, 0.06], [0.4, 0.08]])
    assert np.array_equal(calls[1], calls[2])
    assert not np.array_equal(calls[0], calls[1])
    assert np.isfinite(run.model.w.data).all()


class Killed(BaseException):
    """What a kill looks like from inside: nothing that follows is executed. (Not an Exception.)"""


def failing_at(n):
    """A loss that is killed at its n-th call."""
    calls = []

    def loss(model, batch):
        calls.append(batch)
        if len(calls) == n:
            raise Killed
        return regression(model, batch)

    return loss


@pytest.mark.parametrize(
    ("save_every", "n_steps", "expected"),
    [(2, 5, [0, 0, 2, 2, 4, 5]), (1, 3, [0, 1, 2, 3]), (9, 3, [0, 0, 0, 3])],
)
def test_when_the_file_is_saved(impl, tmp_path, save_every, n_steps, expected):
    path, found = tmp_path / "run", []

    def saved_step():
        return int(read_metadata(path)["step"]) if path.exists() else 0

    def noting(model, batch):
        found.append(saved_step())
        return regression(model, batch)

    run = Run(loss=noting)
    run.train(impl, n_steps, path=path, save_every=save_every)
    assert [*found, saved_step()] == expected
    assert json.loads(read_metadata(path)["parts"]) == ["model", "optimizer", "stream"]
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_saving_counts_the_steps_of_the_whole_run(impl, tmp_path):
    """After a resume at step 3, the next multiple of 2 is step 4."""
    path, found = tmp_path / "run", []
    Run().train(impl, 3, path=path, save_every=2)

    def noting(model, batch):
        found.append(read_metadata(path)["step"])
        return regression(model, batch)

    Run(loss=noting).train(impl, 7, path=str(path), save_every=2)
    assert found == ["3", "4", "4", "6"]


def test_a_step_without_an_update_is_saved_too(impl, tmp_path):
    for at, n_steps, save_every in ((2, 4, 2), (3, 3, 2), (1, 1, 5)):
        path, calls = tmp_path / f"{at}", []

        def broken(model, batch, calls=calls, at=at):
            loss, n = regression(model, batch)
            calls.append(1)
            return (loss * np.inf if len(calls) == at else loss), n

        run = Run(loss=broken)
        with np.errstate(invalid="ignore"):
            run.train(impl, n_steps, path=path, save_every=save_every)
        assert read_metadata(path)["step"] == str(n_steps)
        assert {name: value.tobytes() for name, value in load_file(path).items()} == run.state()
        again = Run()
        assert again.train(impl, n_steps, path=path) == []
        assert again.state() == run.state()
        assert len(again.train(impl, n_steps + 1, path=path)) == 1


def test_a_file_that_does_not_fit_is_left_alone(impl, tmp_path):
    """Nor are the objects changed. So with a file whose run is longer than what is asked for."""
    path = tmp_path / "run"
    for content in (b"", b"a text", None):
        if content is None:
            save_file({"model.w": np.zeros(3)}, path)
        else:
            path.write_bytes(content)
        kept, run = path.read_bytes(), Run()
        before = run.state()
        battery.refuses(run.train, impl, 3, path=path)
        assert run.state() == before
        assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02]
        assert path.read_bytes() == kept
    path.unlink()
    Run().train(impl, 3, path=path)
    kept = path.read_bytes()
    for n_steps in (3, 2, 1, 0):
        run = Run()
        run.model.eval()
        assert run.train(impl, n_steps, path=path, save_every=1) == []
        assert run.model.is_training
        assert run.model.inner[0].is_training
        assert path.read_bytes() == kept
        assert int(run.optimizer.state_dict()["0.n_steps"]) == 3
    run = Run()
    run.model.eval()
    assert run.train(impl, 0) == []
    assert run.model.is_training


def test_a_run_goes_on_in_a_second_call(impl, tmp_path):
    whole, path = Run(), tmp_path / "run"
    losses = whole.train(impl, 7, schedule=cosine)
    run = Run()
    found = run.train(impl, 3, schedule=cosine, path=path)
    assert found == losses[:3]
    assert run.train(impl, 7, schedule=cosine, path=path) == losses[3:]
    assert run.state() == whole.state()
    assert run.train(impl, 7, schedule=cosine, path=path) == []
    assert run.train(impl, 4, schedule=cosine, path=path) == []
    assert run.state() == whole.state()
    assert read_metadata(path)["step"] == "7"
    assert [group["lr"] for group in run.optimizer.groups] == [0.1, 0.02]


def test_without_a_path_nothing_is_written(impl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run("sgd")
    first = run.train(impl, 3)
    second = run.train(impl, 3)  # from step 0 again, with the weights and the stream as they are
    assert len(first) == len(second) == 3
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(first + second, slow_training(6)[0], rtol=1e-9)


def test_the_state_in_the_file_is_that_after_the_step(impl, tmp_path):
    run = Run()
    run.train(impl, 4, path=tmp_path / "run", save_every=4)
    tensors = load_file(tmp_path / "run")
    assert {name: value.tobytes() for name, value in tensors.items()} == run.state()


def test_parts_of_any_names_and_numbers_of_any_dtype(impl, tmp_path, rng):
    kinds = [np.float16, np.float32, np.float64, *battery.INTEGERS]
    arrays = {
        f"layers.{n}.x": np.asarray(rng.integers(2, size=(n, 3)).astype(kind)) for n, kind in enumerate(kinds)
    }
    arrays |= {
        "": np.array(1.5),
        "ß 1/2": np.array([np.nan, np.inf, -0.0]),
        "big": rng.normal(size=(300, 70)),
    }
    parts = {}
    for name in ("model", "Ä b", "0", "model2", "step", "parts", "__metadata__x"):
        parts[name] = Part()
        parts[name].arrays = arrays
    impl.save_checkpoint(tmp_path / "run", 99, parts)
    others = {name: Part() for name in parts}
    assert impl.load_checkpoint(tmp_path / "run", others) == 99
    for part in others.values():
        assert sorted(part.arrays) == sorted(arrays)
        for key, value in arrays.items():
            got = part.arrays[key]
            assert (got.dtype, got.shape, got.tobytes()) == (value.dtype, value.shape, value.tobytes())


def test_portions_in_any_container(impl, rng):
    batches = portions(rng, [1, 3, 2, 40, 5])
    expected, dw, db = slow_mean(np.linspace(-1, 1, 3), 0.5, batches)
    for make in (
        list,
        tuple,
        iter,
        lambda each: (batch for batch in each),
        lambda each: dict(enumerate(each)).values(),
    ):
        model = Affine()
        assert impl.accumulate(model, squares, make(batches)) == pytest.approx(expected, rel=1e-11)
        np.testing.assert_allclose(model.w.grad, dw, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(model.b.grad, db, rtol=1e-10, atol=1e-11)
        assert impl.evaluate(model, squares, make(batches)) == pytest.approx(expected, rel=1e-11)


def test_a_run_that_is_killed_twice_and_while_it_saves(impl, tmp_path):
    whole = Run("sgd")
    whole.train(impl, 6)
    path = tmp_path / "run"
    for at in (3, 2):
        run = Run("sgd", loss=failing_at(at))
        with pytest.raises(Killed):
            run.train(impl, 6, path=path, save_every=1)

    class KilledStream(BatchStream):
        def state_dict(self):
            raise Killed

    run = Run("sgd")
    run.stream = KilledStream(run.stream.loader)
    with pytest.raises(Killed):
        run.train(impl, 6, path=path, save_every=1)
    last = Run("sgd")
    assert len(last.train(impl, 6, path=path, save_every=1)) == 3
    assert last.state() == whole.state()


@pytest.mark.parametrize("options", [{"save_every": 1}, {"save_every": 2, "n_accumulate": 2}])
def test_a_run_that_is_killed_ends_as_if_it_was_not(impl, tmp_path, options):
    """Killed in one call of the loss after the other, then made anew: all is equal to the bit."""
    options = options | {"schedule": cosine, "max_norm": 2.0}
    whole = Run()
    losses = whole.train(impl, 5, **options)
    for at in (1, 4, 5) if "n_accumulate" not in options else (2, 5, 10):
        path = tmp_path / f"run-{at}"
        first = Run(loss=failing_at(at))
        with pytest.raises(Killed):
            first.train(impl, 5, path=path, **options)
        second = Run()
        rest = second.train(impl, 5, path=path, **options)
        assert second.state() == whole.state(), f"killed at call {at}"
        assert rest == losses[len(losses) - len(rest) :]
        done = (at - 1) // options.get("n_accumulate", 1)  # whole steps before the kill
        assert len(rest) == 5 - done // options["save_every"] * options["save_every"]


def test_steps_and_parts_of_any_number(impl, tmp_path):
    """Also beside the numbers that the source names: steps, parts, entries of a state, and their sizes."""
    path = tmp_path / "run"
    for number in aim.sizes(2, 12, at_most=70_000):
        parts = {"p": Part(a=np.arange(number))}
        if number <= 300:
            parts = {f"p{n}": Part(a=[n]) for n in range(number)}
            parts["last"] = Part()
            parts["last"].arrays = {f"{n}": np.array(n) for n in range(number)}
        impl.save_checkpoint(path=path, step=number, parts=types.MappingProxyType(parts))
        others = {name: Part() for name in reversed(parts)}
        got = impl.load_checkpoint(path=path, parts=types.MappingProxyType(others))
        assert got == number
        for name, part in parts.items():
            same = {key: value.tolist() for key, value in others[name].arrays.items()}
            assert same == {key: value.tolist() for key, value in part.arrays.items()}, f"{number} of them"
        assert json.loads(read_metadata(path)["parts"]) == list(parts)


def test_the_file_is_saved_every_hundred_steps(impl, tmp_path):
    path, found = tmp_path / "run", []

    def noting(model, batch):
        found.append(path.exists())
        return scaled_sum(1.0)(model, batch)

    Run("sgd", loss=noting).train(impl, 101, path=path)
    assert found == [False] * 100 + [True]


def test_portions_of_any_number_and_size(impl, rng):
    """Also beside the numbers that the source names."""
    number, size = aim.sizes(150, at_most=3000)[-1], aim.sizes(130, at_most=140_000)[-1]
    require_one_batch(impl, rng, [(2, 1) * number, (1, size, 2), (2,) * 40])


def test_any_number_of_steps_and_of_batches_in_a_step(impl):
    """Also beside the numbers that the source names."""
    number = aim.sizes(105, at_most=1500)[-1]
    plans = [(number, {"schedule": lambda step: 1 / (1 + step)}), (2, {"n_accumulate": number})]
    for n_steps, options in plans:
        run = Run("sgd")
        losses = impl.train(
            model=run.model,
            batch_loss=regression,
            optimizer=run.optimizer,
            stream=run.stream,
            n_steps=n_steps,
            max_norm=3.0,
            **options,
        )
        expected, w, _ = slow_training(n_steps, max_norm=3.0, **options)
        asked = f"{n_steps} steps with {options}"
        np.testing.assert_allclose(losses, expected, rtol=1e-9, err_msg=asked)
        np.testing.assert_allclose(run.model.w.data, w, atol=1e-10, err_msg=asked)


def test_saving_after_any_number_of_steps(impl, tmp_path):
    """Also beside the numbers that the source names."""
    for number in (3, aim.sizes(130, at_most=700)[-1]):
        path, found = tmp_path / f"{number}", []

        def noting(model, batch, path=path, found=found):
            found.append(path.exists())
            return scaled_sum(1.0)(model, batch)

        Run("sgd", loss=noting).train(impl, number + 1, path=path, save_every=number)
        assert found == [False] * number + [True], f"save_every={number}"
        assert read_metadata(path)["step"] == str(number + 1)
