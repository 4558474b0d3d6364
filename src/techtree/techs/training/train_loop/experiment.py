"""What a large batch buys, what a mean of means costs, and where a run ends that forgot some of its state."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.mlp import MLP
from techtree.techs.training.mlp.experiment import digits
from techtree.techs.training.schedule_clip import warmup_cosine
from techtree.techs.training.train_loop import accumulate, train

BATCH_SIZES = (4, 16, 64, 256, 1024)
N_PORTIONS = (2, 4, 8, 16)
MAX_COUNT = 63
"""Portions hold 1 to so many examples, as sequences hold more or fewer tokens that count."""

N_STEPS = 400
KILLED_AT = 200
EVERY = 10
FORGOTTEN = ("optimizer", "stream", "step", "nothing")


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure gradients of digits in batches and portions, and kill a run.

    Parameters
    ----------
    rng
        Draws weights, batches and portions.
    scale
        The share of the repetitions, in (0, 1].

    Returns
    -------
    dict
        The noise of the gradient by batch size; the error of a mean of means and of the right mean by number
        of portions; how far runs that resume with a part of their state come from one that was not killed.
    """
    data = digits()

    def batch_loss(model, batch):
        images, labels = data
        logits = model(Tensor(images[batch]))
        return cross_entropy(logits, labels[batch], reduction="sum"), len(batch)

    seed = int(rng.integers(2**31))
    n_repeats = max(12, round(40 * scale))
    model = _Run(seed).model
    stream = BatchStream(DataLoader(len(data[0]), 64, seed))
    train(model, batch_loss, AdamW(model.parameters(), 2e-3), stream, 28)  # one epoch
    every = np.arange(len(data[0]))
    whole = _gradient(model, batch_loss, np.array_split(every, 30))
    noise = [
        _mean([_distance(_drawn(model, batch_loss, rng, size), whole) for _ in range(n_repeats)])
        for size in BATCH_SIZES
    ]
    errors = [_portioned(model, batch_loss, rng, n, n_repeats) for n in N_PORTIONS]
    return {
        "batch_sizes": list(BATCH_SIZES),
        "noise": noise,
        "n_portions": list(N_PORTIONS),
        "mean_of_means": [wrong for wrong, _ in errors],
        "mean_of_all": [right for _, right in errors],
        **_killed(seed, batch_loss),
    }


class _Run:
    """The objects of one run, the same for the same seed."""

    def __init__(self, seed: int):
        self.model = MLP([64, 64, 10], np.random.default_rng(seed), dtype=np.float32)
        self.optimizer = AdamW(self.model.parameters(), lr=5e-3)
        self.stream = BatchStream(DataLoader(1797, 64, seed))

    def train(self, batch_loss, n_steps: int, **options) -> list[float]:
        return train(self.model, batch_loss, self.optimizer, self.stream, n_steps, **options)

    def weights(self) -> np.ndarray:
        return np.concatenate([each.data.ravel() for each in self.model.parameters()]).astype(np.float64)


def _gradient(model, batch_loss, batches) -> np.ndarray:
    accumulate(model, batch_loss, batches)
    return np.concatenate([each.grad.ravel() for each in model.parameters()]).astype(np.float64)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _mean(numbers: list[float]) -> float:
    return float(np.mean(numbers))


def _drawn(model, batch_loss, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the gradient of a random batch, computed in portions of at most 64."""
    chosen = rng.integers(1797, size=size)
    return _gradient(model, batch_loss, np.array_split(chosen, -(-size // 64)))


def _portioned(model, batch_loss, rng, n: int, n_repeats: int) -> tuple[float, float]:
    """Return the errors of a mean of means and of `accumulate`, against one batch in float64."""
    wrong, right = [], []
    exact_model = MLP([64, 64, 10], np.random.default_rng(0))
    exact_model.load_state_dict(model.state_dict())
    for _ in range(n_repeats):
        portions = [rng.integers(1797, size=size) for size in rng.integers(1, MAX_COUNT + 1, size=n)]
        exact = _gradient(exact_model, batch_loss, [np.concatenate(portions)])
        means = [_gradient(model, batch_loss, [portion]) for portion in portions]
        wrong.append(_distance(np.mean(means, axis=0), exact))
        right.append(_distance(_gradient(model, batch_loss, portions), exact))
    return _mean(wrong), _mean(right)


def _schedule(step: int) -> float:
    return warmup_cosine(step, N_STEPS, 20)


class KilledError(Exception):
    """Ends a run from inside."""


def _killed(seed: int, batch_loss) -> dict:
    """Kill a run in its middle, and let it go on with all of its state, or without a part."""
    calls = []

    def killing(model, batch):
        calls.append(batch)
        if len(calls) > KILLED_AT + 17:
            raise KilledError
        return batch_loss(model, batch)

    whole, resumed = _Run(seed), _Run(seed)
    losses = whole.train(batch_loss, N_STEPS, schedule=_schedule)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        with contextlib.suppress(KilledError):
            _Run(seed).train(killing, N_STEPS, schedule=_schedule, path=path, save_every=50)
        rest = resumed.train(batch_loss, N_STEPS, schedule=_schedule, path=path)
    return {
        "is_same_to_the_bit": bool((resumed.weights() == whole.weights()).all())
        and rest == losses[KILLED_AT:],
        "n_done_again": len(rest) - (N_STEPS - KILLED_AT - 17),
        "distances": _distances(seed, batch_loss),
        "loss": losses[-1],
    }


def _distances(seed: int, batch_loss) -> dict[str, list[float]]:
    """Let runs go on that forgot a part; return their distance from one that did not, every `EVERY` steps."""
    whole = _Run(seed)
    whole.train(batch_loss, KILLED_AT, schedule=_schedule)
    parts = {"model": whole.model, "optimizer": whole.optimizer, "stream": whole.stream}
    runs, found = {name: _Run(seed) for name in FORGOTTEN}, {name: [] for name in FORGOTTEN}
    for name, run in runs.items():
        for part, source in parts.items():
            if part != name:
                getattr(run, part).load_state_dict(source.state_dict())
    for done in range(0, N_STEPS - KILLED_AT, EVERY):
        first = KILLED_AT + done
        whole.train(batch_loss, EVERY, schedule=lambda step, first=first: _schedule(first + step))
        for name, run in runs.items():
            first = done if name == "step" else KILLED_AT + done
            run.train(batch_loss, EVERY, schedule=lambda step, first=first: _schedule(first + step))
            found[name].append(_distance(run.weights(), whole.weights()))
    return found


def plot(numbers: dict):
    """Draw the noise by batch size, the errors by portions, and the distances after the kill."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4))
    sizes = np.array(numbers["batch_sizes"])
    left.loglog(sizes, numbers["noise"], "C0o-", label="measured")
    left.loglog(sizes, numbers["noise"][0] * np.sqrt(sizes[0] / sizes), "k:", label="1 / sqrt(batch size)")
    left.set(xlabel="examples in the batch", ylabel="error of the gradient", yticks=[0.3, 1, 3])
    left.set_yticklabels(["0.3", "1", "3"])
    left.minorticks_off()
    left.legend()
    middle.semilogy(numbers["n_portions"], numbers["mean_of_means"], "C1o-", label="mean of means")
    middle.semilogy(numbers["n_portions"], numbers["mean_of_all"], "C0o-", label="mean of all examples")
    middle.set(
        xlabel="portions", ylabel="error of the gradient", ylim=(1e-8, 1), xticks=numbers["n_portions"]
    )
    middle.legend(loc="center right")
    for name, colour in zip(FORGOTTEN, ("C3", "C4", "C2", "C0"), strict=True):
        distances = numbers["distances"][name]
        label = f"without the {name}" if name != "nothing" else "with everything"
        right.plot(KILLED_AT + EVERY * np.arange(1, len(distances) + 1), distances, colour, label=label)
    right.set(xlabel="step", ylabel="distance from a run that was not killed")
    right.legend()
    return figure


def claim(numbers: dict) -> None:
    """README.md: noise falls with the root of the batch; one mean is exact, the other is not; resuming is."""
    sizes, noise = numbers["batch_sizes"], numbers["noise"]
    for n, size in enumerate(sizes):
        expected = noise[0] * (sizes[0] / size) ** 0.5
        assert abs(noise[n] / expected - 1) < 0.35
    assert noise[0] > 3
    assert noise[-1] < 0.4
    assert min(numbers["mean_of_means"]) > 0.1
    assert max(numbers["mean_of_all"]) < 1e-6
    assert numbers["is_same_to_the_bit"]
    assert numbers["n_done_again"] == 17
    end = {name: distances[-1] for name, distances in numbers["distances"].items()}
    assert max(numbers["distances"]["nothing"]) == 0
    assert 0.003 < end["stream"] < 0.03
    assert 0.02 < end["optimizer"] < 0.15
    assert 0.08 < end["step"] < 0.3
