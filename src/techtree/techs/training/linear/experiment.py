"""What the first weights do: the size of numbers and gradients through fifty layers; four ways to start."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record, where
from techtree.techs.training.linear import Linear, gain_of, orthogonal

DEPTH, WIDTH, N_ROWS = 50, 128, 16


def relu(x: Tensor) -> Tensor:
    """Return the larger of x and 0."""
    return where(x.data > 0, x, 0.0)


def silu(x: Tensor) -> Tensor:
    """Return x times the sigmoid of x, by tanh."""
    return x * ((x * 0.5).tanh() + 1) * 0.5


def gelu(x: Tensor) -> Tensor:
    """Return the tanh form of GELU."""
    return x * ((math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh() + 1) * 0.5


CURVES = {"none": lambda x: x, "tanh": Tensor.tanh, "ReLU": relu, "GELU": gelu, "SiLU": silu}
GAINS = {"1": 1.0, "sqrt(2)": math.sqrt(2), "2": 2.0}
STARTS = ("all zero", "all equal", "output zero", "normal")


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure mean squares through deep stacks of layers, and train a small network from four starts.

    Parameters
    ----------
    rng
        Draws weights, inputs and gradients.
    scale
        The share of the full number of networks, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Mean squares by layer are geometric means over networks.
    """
    n_networks = max(2, round(12 * scale))
    seeds = rng.integers(2**32, size=n_networks)
    deep = {
        name: [_through_layers(np.random.default_rng(s), relu, gain, True) for s in seeds]
        for name, gain in GAINS.items()
    }
    own = {
        name: [_through_layers(np.random.default_rng(s), f, gain_of(f), False)[0] for s in seeds]
        for name, f in CURVES.items()
    }
    plain = {
        name: [_through_layers(np.random.default_rng(s), f, 1.0, False)[0] for s in seeds]
        for name, f in CURVES.items()
    }
    trained = {start: [_train(np.random.default_rng(s), start) for s in seeds[:3]] for start in STARTS}
    n_orthogonal = n_networks if scale > 0.5 else 1  # all are alike, and dear
    return {
        "forward": {name: _mean([each[0] for each in found]) for name, found in deep.items()},
        "backward": {name: _mean([each[1] for each in found]) for name, found in deep.items()},
        "gains": {name: gain_of(f) for name, f in CURVES.items()},
        "own_gain": {name: _mean(found) for name, found in own.items()},
        "distance_with_own_gain": {name: _distance(found) for name, found in own.items()},
        "gain_1": {name: _mean(found) for name, found in plain.items()},
        "orthogonal": _mean([_through_orthogonal(np.random.default_rng(s)) for s in seeds[:n_orthogonal]]),
        "losses": {
            start: np.mean([losses for losses, _ in found], axis=0).tolist()
            for start, found in trained.items()
        },
        "different_units": {start: [units for _, units in found] for start, found in trained.items()},
        "rows_without_scale": [_spread_of_sums(rng, n) for n in (16, 64, 256, 1024)],
    }


def _mean(squares: list) -> list[float]:
    return np.exp(np.log(np.array(squares)).mean(axis=0)).tolist()


def _distance(squares: list) -> list[float]:
    """Return by which factor mean squares are away from 1, up or down."""
    return np.exp(np.abs(np.log(np.array(squares))).mean(axis=0)).tolist()


def _through_layers(rng: np.random.Generator, f, gain: float, with_gradients: bool) -> tuple[list, list]:
    """Return the mean squares of what comes out of each layer, and of its gradient."""
    forward: list[float] = []
    backward: list[float] = []

    def look(h: Tensor) -> Tensor:
        forward.append(float((h.data**2).mean()))
        return record(h.data, (h, lambda g: backward.append(float((g**2).mean())) or g))

    x = Tensor(rng.normal(size=(N_ROWS, WIDTH)), requires_grad=with_gradients)
    layers = [Linear(WIDTH, WIDTH, rng, has_bias=False, gain=gain if n else 1.0) for n in range(DEPTH)]
    if not with_gradients:
        with no_grad():
            for layer in layers:
                x = look(layer(f(x) if forward else x))
        return forward, backward
    for layer in layers:
        x = look(layer(f(x) if forward else x))
    x.backward(rng.normal(size=x.shape))
    return forward, backward[::-1]


def _through_orthogonal(rng: np.random.Generator) -> list[float]:
    x = rng.normal(size=(N_ROWS, WIDTH))
    found = []
    for _ in range(DEPTH):
        x = x @ orthogonal(WIDTH, WIDTH, rng).T
        found.append(float((x**2).mean()))
    return found


def _spread_of_sums(rng: np.random.Generator, n: int) -> float:
    """Return the standard deviation of sums of n products of independent normal numbers, over sqrt(n)."""
    return float((rng.normal(size=(4000, n)) * rng.normal(size=(4000, n))).sum(axis=1).std() / math.sqrt(n))


def _train(rng: np.random.Generator, start: str, n_steps: int = 600) -> tuple[list[float], int]:
    """Train two hidden layers of 32 units; return the error at each step, and how many units differ."""
    x = rng.normal(size=(128, 4))
    y = np.sin(2 * x @ rng.normal(size=(4, 4)) / 2).sum(axis=1, keepdims=True)
    layers = [
        Linear(4, 32, rng),
        Linear(32, 32, rng),
        Linear(32, 1, rng, gain=0.0 if start == "output zero" else 1.0),
    ]
    for layer in layers:
        if start == "all zero":
            layer.weight.data[...] = 0
        elif start == "all equal":
            layer.weight.data[...] = 1 / layer.weight.shape[1]
    losses = []
    for _ in range(n_steps):
        error = ((layers[2](layers[1](layers[0](Tensor(x)).tanh()).tanh()) - y) ** 2).mean() / y.var()
        losses.append(float(error.data))
        error.backward()
        for layer in layers:
            for each in layer.parameters():
                if each.grad is not None:
                    each.data -= 0.04 * each.grad
                each.grad = None
    return losses, len(np.unique(layers[0].weight.data.round(9), axis=0))


def plot(numbers: dict):
    """Draw sizes through layers of ReLU by gain and of each curve with its own, and the four starts."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    layers = np.arange(1, DEPTH + 1)
    for name, colour in zip(GAINS, ("C1", "C0", "C3"), strict=True):
        left.plot(layers, numbers["forward"][name], colour, label=f"gain {name}")
        left.plot(layers, numbers["backward"][name], f"{colour}--")
    left.plot([], [], "k--", label="gradients")
    left.set(xlabel="layer, with ReLU between two", ylabel="mean square", yscale="log", ylim=(1e-16, 1e23))
    left.legend(loc="upper left", ncols=2)
    for name, colour in zip(CURVES, ("C7", "C4", "C0", "C2", "C1"), strict=True):
        middle.plot(layers, numbers["own_gain"][name], colour, label=name)
    middle.set(xlabel="layer, each curve with its gain", yscale="log", ylim=(1e-2, 1e7))
    middle.legend(loc="upper left")
    for start, style in zip(STARTS, ("C3", "C1", "C2--", "C0"), strict=True):
        right.plot(numbers["losses"][start], style, label=start)
    right.set(xlabel="step", ylabel="error / spread of the targets", ylim=(0, 1.5))
    right.legend(loc="upper right", bbox_to_anchor=(1, 0.97))
    return figure


def claim(numbers: dict) -> None:
    """README.md: each layer of ReLU halves; smooth gates' gains hold at size 1 only; equal units stay so."""
    at_20, at_50 = 19, 49
    for key, last in (("forward", at_50), ("backward", 0)):
        sizes = {name: found[last] for name, found in numbers[key].items()}
        assert 1e-17 < sizes["1"] < 1e-13  # 2**-49 is 1.8e-15
        assert 0.05 < sizes["sqrt(2)"] < 20
        assert 1e13 < sizes["2"] < 1e17
    assert 1e-7 < numbers["forward"]["1"][at_20] < 2e-5  # 2**-19 is 1.9e-6
    assert 1 / 8 < numbers["forward"]["sqrt(2)"][at_20] < 8
    assert 5e4 < numbers["forward"]["2"][at_20] < 5e6
    gains = {"none": 1, "tanh": 1.593, "ReLU": math.sqrt(2), "GELU": 1.534, "SiLU": 1.677}
    assert all(abs(numbers["gains"][name] - gain) < 1e-3 for name, gain in gains.items())
    away = {name: found[at_50] for name, found in numbers["distance_with_own_gain"].items()}
    assert away["tanh"] < 1.3
    assert away["none"] < 4
    assert away["ReLU"] < 30
    assert away["GELU"] > 10
    assert away["SiLU"] > 1000
    plain = {name: found[at_20] for name, found in numbers["gain_1"].items()}
    assert 0.01 < plain["tanh"] < 0.06
    assert max(plain["GELU"], plain["SiLU"]) < 1e-9
    exact = np.array(numbers["orthogonal"])
    assert np.abs(exact / exact[0] - 1).max() < 1e-12
    assert all(abs(spread - 1) < 0.1 for spread in numbers["rows_without_scale"])
    for start, units in numbers["different_units"].items():
        assert set(units) == ({1} if start in ("all zero", "all equal") else {32})
    last = {start: losses[-1] for start, losses in numbers["losses"].items()}
    assert last["all zero"] > 0.99
    assert last["all equal"] > 0.4
    assert max(last["output zero"], last["normal"]) < 0.15
    assert last["output zero"] < 2 * last["normal"]
