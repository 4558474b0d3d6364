"""What orthogonalization does to an update, how many iterations are enough, and what it gains in training."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import relu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.linear import Linear
from techtree.techs.training.muon import Muon, orthogonalize
from techtree.techs.training.sgd import SGD

CUBIC = (1.5, -0.5, 0.0)
ITERATIONS = list(range(13))
RATES = {"Muon": [2.0**n for n in range(-9, -2)], "AdamW": [2.0**n for n in range(-10, -3)]}
RATES["SGD"] = [2.0**n for n in range(-6, 1)]


class Network(Module):
    """Three layers."""

    def __init__(self, widths: list[int], rng: np.random.Generator):
        gains = [math.sqrt(2)] * (len(widths) - 2) + [1.0]
        shapes = zip(widths, widths[1:], gains, strict=False)
        self.layers = [Linear(a, b, rng, gain=gain, has_bias=False) for a, b, gain in shapes]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure spectra, iterations and training.

    Parameters
    ----------
    rng
        Draws data, weights and batches.
    scale
        The share of the full number of steps and rates, in (0, 1].

    Returns
    -------
    dict
        Numbers, ready for JSON.
    """
    gradient = _a_gradient(rng)
    start = np.linalg.svd(gradient, compute_uv=False)
    spectra = {n: np.linalg.svd(orthogonalize(gradient, n), compute_uv=False).tolist() for n in (0, 1, 3, 5)}
    return {
        "rank": list(range(1, len(start) + 1)),
        "spectra": {str(n): values for n, values in spectra.items()},
        "iterations": ITERATIONS,
        "smallest": {
            "quintic": [_smallest(n, None) for n in ITERATIONS],
            "cubic": [_smallest(n, CUBIC) for n in ITERATIONS],
        },
        "range_after_5": _range_after(5),
        **_training(rng, max(150, round(300 * scale))),
    }


def _data(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs whose directions differ much in strength, and what a random network says to them."""
    width = 32
    strengths = np.arange(1, width + 1) ** -1.0
    teacher = Network([width, 64, 8], np.random.default_rng(5))
    x = rng.normal(size=(n, width)) * strengths * math.sqrt(width / (strengths**2).sum())
    y = teacher(Tensor(x)).data
    return x, y / y.std()


def _a_gradient(rng: np.random.Generator) -> np.ndarray:
    """Return the gradient of a hidden layer's weight at the start of a training."""
    x, y = _data(rng, 256)
    model = Network([32, 64, 64, 8], rng)
    error = model(Tensor(x)) - y
    (error * error).mean().backward()
    gradient = model.layers[1].weight.grad
    assert gradient is not None
    return gradient


def _polynomial(s: np.ndarray, n: int, coefficients: tuple[float, float, float] | None) -> np.ndarray:
    """Apply the polynomial to singular values: those of a diagonal matrix are its entries."""
    options = {} if coefficients is None else {"coefficients": coefficients}
    found = np.empty_like(s)
    for index, value in enumerate(s):
        pair = np.diag([value, math.sqrt(1 - value * value)])  # of norm 1
        found[index] = orthogonalize(pair, n, **options)[0, 0]
    return found


def _smallest(n: int, coefficients: tuple[float, float, float] | None) -> float:
    """Return the least share of the norm that ``n`` iterations bring above 0.65."""
    grid = np.geomspace(1e-4, 0.7, 400)
    values = _polynomial(grid, n, coefficients)
    low = values < 0.65
    return float(grid[np.flatnonzero(low)[-1]]) if low.any() else float(grid[0])


def _range_after(n: int) -> list[float]:
    values = _polynomial(np.geomspace(0.003, 0.999, 2000), n, None)
    return [float(values.min()), float(values.max())]


def _training(rng: np.random.Generator, n_steps: int) -> dict:
    """Train the same network by each optimizer and rate, at equal steps; the rate falls linearly to 0."""
    x, y = _data(rng, 2048)
    seed = int(rng.integers(2**31))
    losses = {}
    for name, rates in RATES.items():
        losses[name] = [_final_loss(name, rate, x, y, seed, n_steps) for rate in rates]
    return {"n_steps": n_steps, "rates": RATES, "losses": losses}


def _final_loss(
    name: str, rate: float, x: np.ndarray, y: np.ndarray, seed: int, n_steps: int
) -> float | None:
    rng = np.random.default_rng(seed)
    model = Network([x.shape[1], 64, 64, y.shape[1]], rng)
    optimizer = _optimizer(name, list(model.parameters()), rate)
    for step in range(n_steps):
        chosen = rng.integers(len(x), size=64)
        error = model(Tensor(x[chosen])) - y[chosen]
        optimizer.zero_grad()
        loss = (error * error).mean()
        if not loss.data < 1e6:
            return None
        loss.backward()
        optimizer.groups[0]["lr"] = rate * (1 - step / n_steps)
        optimizer.step()
    error = model(Tensor(x)).data - y
    return float((error * error).mean())


def _optimizer(name: str, parameters: list[Parameter], rate: float):
    if name == "Muon":
        return Muon(parameters, lr=rate)
    if name == "AdamW":
        return AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    return SGD(parameters, lr=rate, momentum=0.9)


def plot(numbers: dict):
    """Draw spectra, what the iterations reach, and losses against rates."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for n, values in numbers["spectra"].items():
        label = "gradient / norm" if n == "0" else f"{n} iteration{'s' if n != '1' else ''}"
        left.plot(numbers["rank"], np.maximum(values, 1e-4), label=label)
    left.set(yscale="log", xlabel="singular value, by size", ylabel="its size", ylim=(1e-4, 2))
    left.legend(fontsize="small")
    for name, colour in (("quintic", "C0"), ("cubic", "C1")):
        middle.plot(
            numbers["iterations"], numbers["smallest"][name], "o-", color=colour, label=name, markersize=3
        )
    middle.set(
        yscale="log", xlabel="iterations", ylabel="smallest share of the norm\nthat is brought above 0.65"
    )
    middle.legend(fontsize="small")
    for name, losses in numbers["losses"].items():
        heights = [np.nan if loss is None else loss for loss in losses]
        right.plot(numbers["rates"][name], heights, "o-", label=name, markersize=3)
    right.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss after equal steps")
    right.legend(fontsize="small")
    return figure


def best(numbers: dict) -> dict[str, float]:
    """Return each optimizer's least loss over its rates."""
    return {
        name: min(loss for loss in losses if loss is not None) for name, losses in numbers["losses"].items()
    }


def claim(numbers: dict) -> None:
    """README.md: what the spectra are, what the iterations reach, who trains best at equal steps."""
    before, after = numbers["spectra"]["0"], numbers["spectra"]["5"]
    # Two of 64 directions hold nearly all of the gradient.
    assert sum(x * x for x in before[:2]) > 0.95
    assert sum(x * x for x in before[:4]) > 0.99
    assert sum(x > 0.65 for x in before) <= 2
    # After five iterations more than a third of them are of one size, and none is larger than 1.21.
    assert sum(x > 0.65 for x in numbers["spectra"]["3"]) < 16
    assert sum(x > 0.65 for x in after) >= 24
    assert max(after) < 1.21
    assert 0.0010 < numbers["smallest"]["quintic"][5] < 0.0018
    assert 0.08 < numbers["smallest"]["cubic"][5] < 0.12
    assert numbers["smallest"]["cubic"][12] > numbers["smallest"]["quintic"][4]
    low, high = numbers["range_after_5"]
    assert low > 0.65
    assert high < 1.21
    least = best(numbers)
    assert least["Muon"] < least["AdamW"] < least["SGD"]
    if numbers["n_steps"] == 300:
        assert least["Muon"] < 0.9 * least["AdamW"]
        assert least["AdamW"] < 0.5 * least["SGD"]
    for name in ("Muon", "AdamW"):  # The best rate is not at an end of those that were tried.
        losses = [float("inf") if loss is None else loss for loss in numbers["losses"][name]]
        assert 0 < losses.index(min(losses)) < len(losses) - 1
