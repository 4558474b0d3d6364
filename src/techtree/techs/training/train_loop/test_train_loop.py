"""Oracles: regressions whose gradients are written out in NumPy, and runs that nobody interrupted."""

import gc
import json
import math
import weakref

import numpy as np
import pytest

from techtree.techs import battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.safetensors import load_file, read_metadata, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor
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
    for sizes in [(1,), (7,), (3, 3, 3), (1, 5), (4, 1, 2, 6), (2,) * 40, (40, 1), (1, 40), (200, 131)]:
        batches = [(np.ones((1, 3)), np.ones(1)), *portions(rng, sizes)]
        model = Affine()
        kept = [each.data.copy() for each in model.parameters()]
        inputs = [(x.copy(), y.copy()) for x, y in batches]
        for mode in (model.train, model.eval):
            mode()
            loss = impl.accumulate(model, squares, batches)
            expected, dw, db = slow_mean(model.w.data, model.b.data, batches)
            assert isinstance(loss, float)
            assert loss == pytest.approx(expected, rel=1e-12)
            np.testing.assert_allclose(model.w.grad, dw, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(model.b.grad, db, rtol=1e-11, atol=1e-12)
            assert impl.evaluate(model, squares, batches) == pytest.approx(expected, rel=1e-12)
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
    model = Affine(dtype=np.float32)
    batches = [(x.astype(np.float32), y.astype(np.float32)) for x, y in portions(rng, (3, 4), holes=False)]

    def with_numpy_count(model, batch):
        loss, n = squares(model, batch)
        return loss, np.int64(n)

    loss = impl.accumulate(model, with_numpy_count, batches)
    assert isinstance(loss, float)
    assert model.w.grad.dtype == model.b.grad.dtype == np.float32
    expected, dw, _ = slow_mean(model.w.data.astype(float), float(model.b.data), batches)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(model.w.grad, dw, rtol=1e-4, atol=1e-5)


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
        for batches in ([], [nothing], [nothing, nothing], iter([])):
            with pytest.raises(ValueError):  # noqa: PT011 - the message is free
                function(Affine(), squares, batches)


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
    for is_training in (True, False):

        def failing(model, batch):
            raise ArithmeticError("as it should")

        model = Affine().train() if is_training else Affine().eval()
        with pytest.raises(ArithmeticError):
            impl.evaluate(model, failing, [1])
        assert model.is_training is is_training
        assert (model.w * 2).requires_grad  # recording goes on


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
        for step in (10**12, 2**24 + 1, 3):  # an earlier step replaces a later one, too
            impl.save_checkpoint(path, step, parts)
            assert impl.load_checkpoint(path, others) == step


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

    with pytest.raises(ArithmeticError):
        impl.save_checkpoint(path, 3, {"model": Part(a=np.zeros(1)), "stream": Broken()})
    assert impl.load_checkpoint(path, {"model": Part()}) == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "run"]


def test_other_parts_than_were_saved(impl, tmp_path):
    for names in (["model"], ["model", "stream", "more"], ["model", "streams"], [], ["Model", "stream"]):
        path = tmp_path / "run"
        impl.save_checkpoint(path, 5, {"model": Part(a=[1]), "stream": Part()})
        parts = {name: Part(a=[0]) for name in names}
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.load_checkpoint(path, parts)
        assert all(part.n_loads == 0 for part in parts.values())


def test_names_with_dots(impl, tmp_path):
    for name in ("a.b", ".", "a."):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.save_checkpoint(tmp_path / "run", 1, {"x": Part(), name: Part(a=[1])})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_checkpoint(impl, tmp_path):
    for metadata in (None, {"step": "3"}, {"parts": '["model"]'}):
        save_file({"model.a": np.zeros(2)}, tmp_path / "weights", metadata)
        part = Part(a=[1])
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.load_checkpoint(tmp_path / "weights", {"model": part})
        assert part.n_loads == 0


def test_errors_of_a_part_pass_through(impl, tmp_path):
    class Proud(Part):
        def load_state_dict(self, state):
            raise ArithmeticError("not mine")

    impl.save_checkpoint(tmp_path / "run", 1, {"model": Part(a=[1])})
    with pytest.raises(ArithmeticError):
        impl.load_checkpoint(tmp_path / "run", {"model": Proud()})


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


@pytest.mark.parametrize("options", [{"save_every": 1}, {"save_every": 2, "n_accumulate": 2}])
def test_a_run_that_is_killed_ends_as_if_it_was_not(impl, tmp_path, options):
    """Killed in one call of the loss after the other, then made anew: all is equal to the bit."""
    options = options | {"schedule": cosine, "max_norm": 2.0}
    whole = Run()
    losses = whole.train(impl, 5, **options)
    n_calls = 5 * options.get("n_accumulate", 1)
    for at in range(1, n_calls + 1, options.get("n_accumulate", 1) * 2 - 1):
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


def test_many_portions_in_any_container(impl, rng):
    batches = portions(rng, [1, 3, 2, 40, 5] * 30)
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


def test_the_file_is_saved_every_hundred_steps(impl, tmp_path):
    path, found = tmp_path / "run", []

    def noting(model, batch):
        found.append(path.exists())
        return regression(model, batch)

    Run("sgd", loss=noting).train(impl, 101, path=path)
    assert found == [False] * 100 + [True]


def test_a_longer_run_is_its_definition(impl):
    run, options = Run("sgd"), {"schedule": lambda step: 1 / (1 + step), "max_norm": 1.0}
    losses = run.train(impl, 105, **options)
    expected, w, _ = slow_training(105, **options)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(run.model.w.data, w, atol=1e-10)
