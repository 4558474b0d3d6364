"""Measure what a tied weight that is counted twice, a forgotten layer and dropout left on do to training."""

from collections.abc import Iterable

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad

RATES = tuple(0.01 * 2 ** (n / 2) for n in range(19))
"""Learning rates, from 0.01 to 5.12; every second one is twice another."""

DROPOUT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
N_PASSES = 50
"""How often the test set is passed through a network that is left in training mode."""


class Tied(Module):
    """Compress and expand with one matrix, found under two names: x W W^T."""

    def __init__(self, n: int, n_hidden: int, rng: np.random.Generator):
        self.encoder = Parameter(0.3 * rng.normal(size=(n, n_hidden)))
        self.decoder = self.encoder

    def forward(self, x):
        """Compute x W W^T."""
        return x @ self.encoder @ self.decoder.swapaxes(0, 1)


class Dropout(Module):
    """Forget entries at random, in training only."""

    def __init__(self, rate: float, rng: np.random.Generator):
        self.rate, self.rng = rate, rng

    def forward(self, x):
        """Set a share of the entries to 0 and scale the others up; in use return x."""
        if not self.is_training or not self.rate:
            return x
        return x * ((self.rng.random(x.shape) >= self.rate) / (1 - self.rate))


class Affine(Module):
    """A layer without anything around it."""

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator):
        self.weight = Parameter(rng.normal(size=(n_in, n_out)) / np.sqrt(n_in))
        self.bias = Parameter(np.zeros(n_out))

    def forward(self, x):
        """Compute x W + b."""
        return x @ self.weight + self.bias


class Network(Module):
    """Two hidden layers, dropout behind each, and an output."""

    def __init__(self, n_in: int, width: int, rate: float, rng: np.random.Generator):
        self.layers = [Affine(n_in, width, rng), Affine(width, width, rng), Affine(width, 1, rng)]
        self.dropout = Dropout(rate, rng)

    def forward(self, x):
        """Apply the layers, with tanh between them."""
        for layer in self.layers[:-1]:
            x = self.dropout(layer(x).tanh())
        return self.layers[-1](x)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train small networks by plain gradient descent over lists of parameters, right ones and wrong ones.

    Parameters
    ----------
    rng
        Draws data, weights and dropout.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        The size of the first step, and the loss after training, of a tied weight that is listed once or
        twice, for each learning rate (None where it diverged); the loss by step of a network with all layers
        or only the last one in the list; the loss before and after more training by an optimizer that holds
        arrays, when a state was copied into these or replaced them; the test error in both modes by rate of
        dropout.
    """
    n_steps = max(300, round(600 * scale))
    seed = int(rng.integers(2**32))
    once, twice = ([_train_tied(np.random.default_rng(seed), rate, k) for rate in RATES] for k in (1, 2))
    first_steps = [_first_step(np.random.default_rng(seed), k) for k in (1, 2)]
    x, y = _task(rng, 256)
    whole, by_hand = (Network(8, 32, 0.0, np.random.default_rng(seed)) for _ in range(2))
    found = _descend(whole, x, y, n_steps, list(whole.parameters()), 0.1)
    forgotten = _descend(by_hand, x, y, n_steps, list(by_hand.layers[-1].parameters()), 0.1)
    test = _task(np.random.default_rng(seed), 256)
    loaded = {way: _after_loading(way, np.random.default_rng(seed), x, y) for way in ("copied", "replaced")}
    errors = [_both_modes(rng, (x, y), test, rate, n_steps) for rate in DROPOUT]
    return {
        "rates": list(RATES),
        "first_steps": first_steps,
        "listed_once": once,
        "listed_twice": twice,
        "loss_found": found,
        "loss_forgotten": forgotten,
        "loss_after_loading": loaded,
        "dropout": list(DROPOUT),
        "error_in_use": [use for use, _ in errors],
        "error_left_in_training": [training for _, training in errors],
    }


def _first_step(rng: np.random.Generator, n_times: int) -> float:
    """Return how far the tied weight moves in one update over a list that has it so many times."""
    model, x = Tied(8, 3, rng), rng.normal(size=(64, 8))
    before = model.encoder.data.copy()
    _update(model, x, x, [*model.parameters()] * n_times, 0.1)
    return float(np.linalg.norm(model.encoder.data - before))


def _train_tied(rng: np.random.Generator, rate: float, n_times: int) -> float | None:
    model, x = Tied(8, 3, rng), rng.normal(size=(64, 8))
    parameters = [*model.parameters()] * n_times
    with np.errstate(all="ignore"):
        losses = [_update(model, x, x, parameters, rate) for _ in range(60)]
    return losses[-1] if losses[-1] < losses[0] else None  # NaN is not smaller


def _task(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, 8))
    return x, np.tanh(x[:, :1] + x[:, 1:2]) + np.abs(x[:, 2:3])


def _update(model: Module, x, y, parameters: Iterable[Parameter], rate: float) -> float:
    """Take one step of gradient descent; return the loss before it."""
    for parameter in parameters:
        parameter.grad = None
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    for parameter in parameters:
        parameter.data -= rate * np.asarray(parameter.grad)
    return float(loss.data)


def _descend(model: Module, x, y, n_steps: int, parameters: list[Parameter], rate: float) -> list[float]:
    return [_update(model, x, y, parameters, rate) for _ in range(n_steps)]


def _both_modes(rng: np.random.Generator, train, test, rate: float, n_steps: int) -> tuple[float, float]:
    """Train with dropout; return the test error in use, and the mean of many passes left in training mode."""
    model, (x, y) = Network(8, 32, rate, rng), train
    _descend(model, x, y, n_steps, list(model.parameters()), 0.2)

    def error() -> float:
        with no_grad():
            return float(((model(Tensor(test[0])) - test[1]) ** 2).mean().data)

    left = float(np.mean([error() for _ in range(N_PASSES)]))
    model.eval()
    return error(), left


def _after_loading(way: str, rng: np.random.Generator, x, y) -> list[float]:
    """Load a state, then train with the arrays that were there before; return the first and last loss."""
    model = Network(8, 32, 0.0, rng)
    held = [(parameter, parameter.data) for parameter in model.parameters()]
    state = model.state_dict()
    if way == "copied":
        model.load_state_dict(state)
    else:
        for name, parameter in model.named_parameters():
            parameter.data = state[name]
    losses = []
    for _ in range(100):
        losses.append(_update(model, x, y, list(model.parameters()), 0.0))
        for parameter, array in held:
            array -= 0.1 * np.asarray(parameter.grad)
    return [losses[0], losses[-1]]


def plot(numbers: dict):
    """Draw the loss by learning rate, the loss by step, and the test error by rate of dropout."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    for key, label, colour in (("listed_once", "once", "C0"), ("listed_twice", "twice", "C1")):
        losses = [np.nan if loss is None else loss for loss in numbers[key]]
        left.plot(numbers["rates"], losses, marker=".", color=colour, label=f"in the list {label}")
    left.set(xscale="log", xlabel="learning rate", ylabel="loss of a tied weight after 60 steps")
    left.legend(loc="upper right")
    for key, label, colour in (
        ("loss_found", "all layers", "C0"),
        ("loss_forgotten", "last layer only", "C1"),
    ):
        middle.plot(numbers[key], color=colour, label=f"{label} in the list")
    middle.set(yscale="log", xlabel="step", ylabel="training loss", xlim=(0, len(numbers["loss_found"])))
    middle.legend(loc="upper right")
    for key, label, colour in (
        ("error_left_in_training", "left in training mode", "C1"),
        ("error_in_use", "after eval()", "C0"),
    ):
        right.plot(numbers["dropout"], numbers[key], marker=".", color=colour, label=label)
    right.set(xlabel="rate of dropout", ylabel="test error", xlim=(0, 0.5), ylim=(0, None))
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: twice the step, half the largest rate; ten times the loss; about twice the error."""
    once, twice = numbers["first_steps"]
    assert abs(twice / once - 2) < 1e-6
    rates = np.array(numbers["rates"])
    limits = [
        max(rate for rate, loss in zip(rates, numbers[key], strict=True) if loss is not None)
        for key in ("listed_once", "listed_twice")
    ]
    assert abs(limits[0] / limits[1] - 2) < 1e-6
    calm = (slice(2, 12), slice(0, 10))  # the same products of rate and count
    assert np.allclose(numbers["listed_once"][calm[0]], numbers["listed_twice"][calm[1]], rtol=1e-6)
    assert numbers["loss_forgotten"][-1] > 10 * numbers["loss_found"][-1]
    assert numbers["loss_forgotten"][-1] < 0.5 * numbers["loss_forgotten"][0]
    first, last = numbers["loss_after_loading"]["replaced"]
    assert first == last
    assert numbers["loss_after_loading"]["copied"][1] < 0.5 * first
    use, left = np.array(numbers["error_in_use"]), np.array(numbers["error_left_in_training"])
    assert abs(left[0] - use[0]) < 1e-12
    assert (left[1:] > use[1:]).all()
    assert 1.6 < left[1] / use[1] < 3
