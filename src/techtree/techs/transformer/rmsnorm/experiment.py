"""What the mean buys: layer normalization against RMSNorm in training; and where eps stands."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.activations import gelu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.rmsnorm import RMSNorm

N_BLOCKS, WIDTH, N_HIDDEN = 8, 32, 64
NORMS = ("none", "LayerNorm", "RMSNorm")
EPSILONS = (1e-5, 1e-6)
N_LAYERS_OF_MODEL = 24


class Residual(Module):
    """Blocks that read a normalized stream and add to it, as those of a transformer do."""

    def __init__(self, rng: np.random.Generator, name: str):
        self.first, self.last = Linear(4, WIDTH, rng), Linear(WIDTH, 1, rng)
        self.up = [Linear(WIDTH, N_HIDDEN, rng, gain=1.5) for _ in range(N_BLOCKS)]
        self.down = [Linear(N_HIDDEN, WIDTH, rng, gain=1.5) for _ in range(N_BLOCKS)]
        make = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}.get(name)
        self.norms = [make(WIDTH) for _ in range(N_BLOCKS + 1)] if make else None
        self.means: list[float] = []

    def normalized(self, n: int, h: Tensor) -> Tensor:
        """Apply the norm before block ``n``, or the last; note the share of the mean in the size."""
        self.means.append(float((h.data.mean(axis=-1) ** 2).mean() / (h.data**2).mean()))
        return self.norms[n](h) if self.norms else h

    def forward(self, x: np.ndarray) -> Tensor:
        """Return a number for each row."""
        h = self.first(Tensor(x))
        self.means = []
        for n in range(N_BLOCKS):
            h = h + self.down[n](gelu(self.up[n](self.normalized(n, h))))
        return self.last(self.normalized(N_BLOCKS, h))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train the same networks with each norm, and normalize small rows with eps in both places.

    Parameters
    ----------
    rng
        Draws targets, weights and rows.
    scale
        The share of seeds and steps, in (0, 1].

    Returns
    -------
    dict
        Errors by step as means over seeds, and each seed's last; shares of the mean; sizes after the norm.
    """
    n_steps, n_seeds = (400, 6) if scale == 1 else (100, 1)
    seeds = [int(seed) for seed in rng.integers(2**32, size=n_seeds)]
    found = {name: [_train(seed, name, n_steps) for seed in seeds] for name in NORMS}
    sizes = np.geomspace(1e-8, 1, 33)
    return {
        "errors": {name: np.mean([each[0] for each in found[name]], axis=0).tolist() for name in NORMS},
        "last": {name: [float(np.mean(each[0][-10:])) for each in found[name]] for name in NORMS},
        "shares": {name: float(np.mean([each[1] for each in found[name]])) for name in NORMS},
        "sizes": sizes.tolist(),
        "inside": {str(eps): [_inside(size, eps) for size in sizes] for eps in EPSILONS},
        "outside": {str(eps): [size / (size + eps) for size in sizes] for eps in EPSILONS},
        "drift": {str(size): _drift(seeds[0], size) for size in (1.0, 1e-1, 1e-2, 1e-3)},
        "slopes": {place: _largest_slope(place) for place in ("inside", "outside")},
    }


def _train(seed: int, name: str, n_steps: int) -> tuple[list[float], float]:
    """Return the error, of the targets' spread, at each step on new rows, and the last share of the mean."""
    rng = np.random.default_rng(seed)
    mixing, model = rng.normal(size=(4, 4)), Residual(rng, name)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    errors = []
    for step in range(n_steps):
        x = rng.normal(size=(64, 4))
        y = np.sin(x @ mixing).sum(axis=1, keepdims=True)
        error = ((model(x) - y) ** 2).mean() / 2  # each of four sines has a mean square of about a half
        errors.append(float(error.data))
        error.backward()
        optimizer.groups[0]["lr"] = 3e-3 * (1 - step / n_steps)
        optimizer.step()
        optimizer.zero_grad()
    return errors, float(np.mean(model.means))


def _inside(size: float, eps: float) -> float:
    with no_grad():
        return float(RMSNorm(1, eps)(Tensor([size])).data[0])


def _drift(seed: int, size: float) -> float:
    """Return by how much a stack of blocks answers otherwise with eps outside, at a size of the stream."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(32, WIDTH)) * size
    streams = {"inside": h, "outside": h}
    for _ in range(N_LAYERS_OF_MODEL):
        w = rng.normal(size=(WIDTH, WIDTH)) / math.sqrt(WIDTH) * size * 0.2
        for place, stream in streams.items():
            rms = np.sqrt((stream**2).mean(axis=1, keepdims=True))
            y = stream / (np.sqrt(rms**2 + 1e-6) if place == "inside" else rms + 1e-6)
            streams[place] = stream + y @ w
    a, b = streams["inside"], streams["outside"]
    return float(math.sqrt(((a - b) ** 2).mean() / (a**2).mean()))


def _largest_slope(place: str, eps: float = 1e-6) -> float:
    """Return the largest factor by which a gradient grows on its way through the norm."""
    sizes = np.geomspace(1e-12, 1, 200)
    return float((1 / (np.sqrt(sizes**2 + eps) if place == "inside" else sizes + eps)).max())


def plot(numbers: dict):
    """Draw errors in training, and the size of what comes out by the size of what goes in."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    for name, style in zip(NORMS, ("C7-", "C1-", "C0--"), strict=True):
        errors = np.array(numbers["errors"][name])
        smooth = [errors[max(0, n - 9) : n + 1].mean() for n in range(len(errors))]
        left.plot(smooth, style, label={"none": "no norm"}.get(name, name))
    left.set(xlabel="step", ylabel="error", yscale="log")
    left.legend(loc="upper right")
    for eps, colour in zip(EPSILONS, ("C3", "C0"), strict=True):
        right.plot(numbers["sizes"], numbers["inside"][str(eps)], colour, label=f"eps {eps:g}, inside")
        right.plot(
            numbers["sizes"], numbers["outside"][str(eps)], f"{colour}--", label=f"eps {eps:g}, outside"
        )
    right.set(xscale="log", xlabel="root mean square of a row", ylabel="after the norm", ylim=(0, 1.3))
    right.legend(loc="upper center", fontsize=8, ncols=2)
    return figure


def claim(numbers: dict) -> None:
    """README.md: both norms train alike; eps outside the root is another function for rows near its size."""
    last = {name: float(np.mean(errors)) for name, errors in numbers["last"].items()}
    assert 0.8 < last["RMSNorm"] / last["LayerNorm"] < 1.2
    assert last["none"] > 5 * last["LayerNorm"]
    assert all(0.015 < share < 0.06 for share in numbers["shares"].values())  # 1 / 32 is 0.031
    sizes = np.array(numbers["sizes"])
    inside, outside = (np.array(numbers[place]["1e-06"]) for place in ("inside", "outside"))
    at = int(np.abs(sizes - 1e-3).argmin())
    assert abs(inside[at] - 0.7071) < 1e-3
    assert abs(outside[at] - 0.999) < 1e-3
    assert np.abs(inside - outside)[sizes > 0.05].max() < 3e-4
    assert numbers["drift"]["1.0"] < 1e-5
    assert numbers["drift"]["0.01"] < 0.01
    assert numbers["drift"]["0.001"] > 0.15
    assert abs(numbers["slopes"]["inside"] - 1000) < 1
    assert numbers["slopes"]["outside"] > 9e5
