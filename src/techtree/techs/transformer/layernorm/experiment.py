"""Sizes and training through depth, with and without a norm; what eps and a shortened gradient do."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record
from techtree.techs.training.activations import gelu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm

DEPTH, WIDTH, N_ROWS = 40, 64, 16
GAINS = (0.8, 1.5, 3.0)
OFFSETS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
EPSILONS = (1e-12, 1e-8, 1e-5, 1e-2)
TERMS = ("all three", "without the variance's", "the first only")
N_LAYERS, N_UNITS = 16, 32


class Shortened(LayerNorm):
    """A norm whose backward pass takes variance, or both mean and variance, for constants."""

    n_terms = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, without weight and bias."""
        away = x.data - x.data.mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt((away * away).mean(axis=-1, keepdims=True) + self.eps)

        def pull_back(g: np.ndarray) -> np.ndarray:
            return inverse * (g - (g.mean(axis=-1, keepdims=True) if self.n_terms == 2 else 0))

        return record(away * inverse, (x, pull_back))


class Deep(Module):
    """Layers one after the other, a norm before the curve of each or none."""

    def __init__(self, rng: np.random.Generator, gain: float, terms: str | None):
        self.layers = [Linear(N_UNITS, N_UNITS, rng, gain=gain) for _ in range(N_LAYERS)]
        self.first, self.last = Linear(4, N_UNITS, rng), Linear(N_UNITS, 1, rng)
        self.norms = [_norm(terms) for _ in self.layers] if terms else None

    def forward(self, x: np.ndarray) -> Tensor:
        """Return a number for each row."""
        h = self.first(Tensor(x))
        for n, layer in enumerate(self.layers):
            h = layer(h)
            h = gelu(self.norms[n](h) if self.norms else h)
        return self.last(h)


def _norm(terms: str) -> LayerNorm:
    if terms == TERMS[0]:
        return LayerNorm(N_UNITS)
    norm = Shortened(N_UNITS)
    norm.n_terms = 2 if terms == TERMS[1] else 1
    return norm


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure sizes through depth, train deep networks, and look at rows that are almost constant.

    Parameters
    ----------
    rng
        Draws weights, inputs and gradients.
    scale
        The share of networks and steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Mean squares by layer are geometric means over networks.
    """
    n_networks = max(2, round(6 * scale))
    n_steps, n_seeds = (200, 3) if scale == 1 else (80, 1)
    seeds = [int(seed) for seed in rng.integers(2**32, size=n_networks)]
    sizes = {
        name: {str(gain): _through_layers(seeds, gain, has_norm) for gain in GAINS}
        for name, has_norm in (("plain", False), ("normalized", True))
    }
    trained = {
        name: {
            str(gain): [_train(seed, gain, terms, n_steps) for seed in seeds[:n_seeds]]
            for gain in (GAINS if scale == 1 else GAINS[-1:])
        }
        for name, terms in (("no norm", None), *((each, each) for each in TERMS))
        if scale == 1 or terms != TERMS[1]
    }
    spreads = np.geomspace(1e-6, 1, 25)
    return {
        "sizes": sizes,
        "trained": trained,
        "cosines": {terms: _cosines(seeds, terms) for terms in TERMS[1:]},
        "spreads": spreads.tolist(),
        "after": {
            str(eps): [float(np.abs(LayerNorm(2, eps)(Tensor([-s, s])).data).max()) for s in spreads]
            for eps in EPSILONS
        },
        "noise": {str(eps): [_noise(rng, offset, eps) for offset in OFFSETS] for eps in EPSILONS},
    }


def _through_layers(seeds: list[int], gain: float, has_norm: bool) -> dict:
    """Return mean squares of what enters each curve, and of its gradient, from first to last layer."""
    found = [_one_stack(np.random.default_rng(seed), gain, has_norm) for seed in seeds]
    forward, backward = (np.exp(np.log([each[n] for each in found]).mean(axis=0)).tolist() for n in (0, 1))
    return {"forward": forward, "backward": backward[::-1]}


def _one_stack(rng: np.random.Generator, gain: float, has_norm: bool) -> tuple[list, list]:
    forward: list[float] = []
    backward: list[float] = []

    def look(h: Tensor) -> Tensor:
        forward.append(float((h.data**2).mean()))
        return record(h.data, (h, lambda g: backward.append(float((g**2).mean())) or g))

    x = Tensor(rng.normal(size=(N_ROWS, WIDTH)), requires_grad=True)
    for _ in range(DEPTH):
        x = Linear(WIDTH, WIDTH, rng, has_bias=False, gain=gain)(x)
        x = gelu(look(LayerNorm(WIDTH)(x) if has_norm else x))
    x.backward(rng.normal(size=x.shape))
    return forward, backward


def _train(seed: int, gain: float, terms: str | None, n_steps: int) -> float:
    """Train a deep network on a smooth function of four numbers; return the error, of the targets' spread."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(128, 4))
    y = np.sin(x @ rng.normal(size=(4, 4))).sum(axis=1, keepdims=True)
    model = Deep(rng, gain, terms)
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    errors = []
    for step in range(n_steps):
        error = ((model(x) - y) ** 2).mean() / float(y.var())
        errors.append(min(float(error.data), 1e6))
        error.backward()
        optimizer.groups[0]["lr"] = 3e-3 * (1 - step / n_steps)
        optimizer.step()
        optimizer.zero_grad()
    return float(np.mean(errors[-10:]))


def _cosines(seeds: list[int], terms: str) -> list[float]:
    """Return the cosine of the first layer's gradient with the right one, by number of layers above it."""
    found = []
    for seed in seeds:
        gradients = []
        for each in (TERMS[0], terms):
            rng = np.random.default_rng(seed)
            model, x = Deep(rng, 1.5, each), rng.normal(size=(32, 4))
            model(x).sum().backward()
            gradients.append([_gradient(layer.weight) for layer in model.layers])
        found.append([float(a @ b / math.sqrt((a @ a) * (b @ b))) for a, b in zip(*gradients, strict=True)])
    return np.mean(found, axis=0)[::-1].tolist()


def _gradient(parameter: Tensor) -> np.ndarray:
    assert parameter.grad is not None
    return parameter.grad.ravel()


def _noise(rng: np.random.Generator, offset: float, eps: float) -> float:
    """Return the size of what comes out of rows that are constant up to the last digit of float32."""
    x = offset * (1 + 6e-8 * rng.integers(-1, 2, size=(64, WIDTH)))
    with no_grad():
        y = LayerNorm(WIDTH, eps, dtype=np.float32)(Tensor(x.astype(np.float32))).data
    return float(np.sqrt((y.astype(float) ** 2).mean()))


def plot(numbers: dict):
    """Draw sizes through depth, errors after training, and what eps does to small rows."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.6, 3.5))
    layers = np.arange(1, DEPTH + 1)
    for gain, colour in zip(GAINS, ("C1", "C0", "C3"), strict=True):
        plain = numbers["sizes"]["plain"][str(gain)]
        left.plot(layers, plain["forward"], colour, label=f"no norm, gain {gain:g}")
        left.plot(layers, plain["backward"], colour, linestyle=":")
    normalized = numbers["sizes"]["normalized"][str(GAINS[1])]
    left.plot(layers, normalized["forward"], "k", label="normalized, any gain")
    left.plot(layers, normalized["backward"], "k:")
    left.plot([], [], "0.5", linestyle=":", label="gradients")
    left.set(xlabel="layer", ylabel="mean square", yscale="log", ylim=(1e-35, 1e75))
    left.legend(loc="upper left", fontsize=7.5)
    for n, (name, by_gain) in enumerate(numbers["trained"].items()):
        for place, errors in enumerate(by_gain.values()):
            shown = np.minimum(errors, 10)
            at = np.full(len(errors), place + 0.2 * n - 0.3)
            middle.plot(at, shown, f"C{n}o", ms=4, label=None if place else name)
    n_gains = len(numbers["trained"]["no norm"])
    middle.set_xticks(range(n_gains), [*numbers["trained"]["no norm"]])
    middle.axhline(1, color="0.7", ls=":", zorder=0)
    middle.text(n_gains - 0.5, 1.15, "the mean of the targets", color="0.5", ha="right", fontsize=7.5)
    middle.set(xlabel="gain of the weights at the start", ylabel="error after training", yscale="log")
    failed = min(numbers["trained"]["no norm"][str(GAINS[-1])])
    middle.annotate(f"{failed:,.0f} and more", (n_gains - 1.3, 14), fontsize=7.5, ha="center")
    middle.set(ylim=(1e-5, 3e3), xlim=(-0.5, n_gains - 0.5))
    middle.legend(loc="upper left", fontsize=7.5, title="terms of the gradient", title_fontsize=7.5)
    for eps, style in zip(EPSILONS, ("C7-", "C4-", "C0-", "C3-"), strict=True):
        right.plot(numbers["spreads"], numbers["after"][str(eps)], style, label=f"eps {eps:g}")
    right.set(
        xlabel="size of a row around its mean", ylabel="size after the norm", xscale="log", ylim=(0, 1.4)
    )
    right.legend(loc="upper left", fontsize=7.5, ncols=2)
    return figure


def claim(numbers: dict) -> None:
    """README.md: with a norm sizes depend on neither depth nor weights; each term of the gradient counts."""
    plain, normalized = numbers["sizes"]["plain"], numbers["sizes"]["normalized"]
    low, middle, high = (str(gain) for gain in GAINS)
    assert plain[low]["forward"][-1] < 1e-25
    assert plain[low]["backward"][0] < 1e-25
    assert plain[high]["forward"][-1] > 1e20
    assert plain[high]["backward"][0] > 1e20
    for gain in GAINS:
        assert all(0.99 < size < 1.01 for size in normalized[str(gain)]["forward"])
        ends = normalized[str(gain)]["backward"]
        assert ends[0] / ends[-1] < 100
        assert abs(ends[0] / normalized[middle]["backward"][0] - 1) < 0.01
    trained = {
        name: {gain: np.array(errors) for gain, errors in each.items()}
        for name, each in numbers["trained"].items()
    }
    right, short = trained[TERMS[0]], trained[TERMS[2]]
    assert (trained["no norm"][high] > 1).all()
    for gain, errors in right.items():
        assert (short[gain] > 5 * errors).all()
    if low in right:
        for gain, errors in right.items():
            assert (errors < 0.01).all()
            assert trained[TERMS[1]][gain].mean() > 5 * errors.mean()
            assert short[gain].mean() > 0.04
        assert (trained["no norm"][middle] < 0.0025).all()
        assert (trained["no norm"][high] > 1000).all()
    for cosines in numbers["cosines"].values():
        assert cosines[0] > 0.9
        assert cosines[-1] < 0.65
    spreads = np.array(numbers["spreads"])
    for eps, after in numbers["after"].items():
        expected = spreads / np.sqrt(spreads**2 + float(eps))
        assert np.abs(after - expected).max() < 1e-9
    for offset, without, usual in zip(
        OFFSETS, numbers["noise"]["1e-12"], numbers["noise"]["1e-05"], strict=True
    ):
        assert usual < without
        if offset == 1000:
            assert without > 0.99
            assert usual < 0.02
