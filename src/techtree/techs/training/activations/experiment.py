"""How far apart are the two forms of GELU, and which units die: too large a step, or a start far from 0."""

import itertools
import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import erf, gelu, gelu_tanh, relu, silu

CURVES = {"ReLU": relu, "GELU": gelu, "SiLU": silu}
WIDTH, N_INPUTS, N_EXAMPLES, N_STEPS, BATCH = 64, 8, 256, 200, 32
DEAD = 1e-3
"""A unit is dead if its slope is below this, in size, on every example."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Compare both forms of GELU and the error of `erf`; train small networks and count their dead units.

    Parameters
    ----------
    rng
        Draws data, weights and batches.
    scale
        The share of the full number of points and of networks, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. For each curve and each rate, or each bias of the first layer at the start: the share
        of dead hidden units after training, and the remaining error relative to the spread of the targets.
    """
    x = np.linspace(-6, 6, max(1201, round(12001 * scale)))
    difference = gelu_tanh(Tensor(x)).data - gelu(Tensor(x)).data
    exact = np.array([math.erf(each) for each in x])
    n_networks = max(2, round(8 * scale))
    rates = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07] if scale > 0.5 else [0.01, 0.07]
    biases = [0.0, -2.0, -4.0, -6.0, -8.0, -10.0] if scale > 0.5 else [0.0, -4.0, -8.0]
    seeds = rng.integers(2**32, size=n_networks)
    return {
        "x": x[:: len(x) // 400].tolist(),
        "difference": difference[:: len(x) // 400].tolist(),
        "largest_difference": float(np.abs(difference).max()),
        "largest_difference_at": abs(float(x[np.abs(difference).argmax()])),
        "best_cubic_coefficient": _best_coefficient(),
        "erf_error_in_units": float(
            (np.abs(erf(x) - exact) / np.maximum(np.abs(exact), 1e-300)).max() * 2**52
        ),
        "first_nan_of_the_plain_slope": _first_nan(),
        "rates": rates,
        "by_rate": {name: _averages(f, seeds, [(rate, 0.0) for rate in rates]) for name, f in CURVES.items()},
        "biases": biases,
        "by_bias": {
            name: _averages(f, seeds, [(0.03, bias) for bias in biases]) for name, f in CURVES.items()
        },
    }


def _best_coefficient() -> float:
    """Return the factor on the cube for which the largest error of the tanh gate is least."""
    x = np.linspace(0, 6, 2001)
    exact = (1 + erf(x / math.sqrt(2))) / 2
    candidates = np.linspace(0.044, 0.0455, 301)

    def largest_error(c: float) -> float:
        return float(np.abs((1 + np.tanh(math.sqrt(2 / math.pi) * (x + c * x**3))) / 2 - exact).max())

    return float(min(candidates, key=largest_error))


def _first_nan() -> int:
    """Return the first whole number n for which `1 / (1 + exp(-x))` has the slope NaN at x = -n."""
    x = Tensor(-np.arange(1.0, 1000), requires_grad=True)
    with np.errstate(all="ignore"):
        (1 / (1 + (-x).exp())).sum().backward()
    assert x.grad is not None
    return 1 + int(np.isnan(x.grad).argmax())


def _averages(f, seeds, settings: list[tuple[float, float]]) -> dict:
    found = np.array([[_train(f, np.random.default_rng(s), *each) for s in seeds] for each in settings])
    dead, error = found.mean(axis=1).T
    return {"dead": dead.tolist(), "error": error.tolist()}


def _train(f, rng: np.random.Generator, rate: float, bias: float) -> tuple[float, float]:
    """Train two hidden layers on a smooth function of eight numbers, by plain gradient descent."""
    x = rng.normal(size=(N_EXAMPLES, N_INPUTS))
    y = np.sin(2 * x @ rng.normal(size=(N_INPUTS, 4)) / math.sqrt(N_INPUTS)).sum(axis=1, keepdims=True)
    widths = [N_INPUTS, WIDTH, WIDTH, 1]
    w = [Tensor(rng.normal(size=s) * math.sqrt(2 / s[0]), True) for s in itertools.pairwise(widths)]
    b = [Tensor(np.full(n, start), True) for n, start in zip(widths[1:], (bias, 0.0, 0.0), strict=True)]

    def outputs(chosen):
        sums = [Tensor(x[chosen]) @ w[0] + b[0]]
        for n in (1, 2):
            sums.append(f(sums[-1]) @ w[n] + b[n])
        return sums

    for _ in range(N_STEPS):
        chosen = rng.integers(N_EXAMPLES, size=BATCH)
        ((outputs(chosen)[-1] - y[chosen]) ** 2).mean().backward()
        for each in (*w, *b):
            assert each.grad is not None
            each.data -= rate * each.grad
            each.grad = None
    *hidden, out = outputs(slice(None))
    dead = np.mean([_is_dead(f, each.data) for each in hidden])
    return float(dead), float(((out.data - y) ** 2).mean() / y.var())


def _is_dead(f, sums: np.ndarray) -> np.ndarray:
    leaf = Tensor(sums, requires_grad=True)
    f(leaf).sum().backward()
    assert leaf.grad is not None
    return np.abs(leaf.grad).max(axis=0) < DEAD


def plot(numbers: dict):
    """Draw the difference of the two GELUs, and the dead units by rate and by bias."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    left.plot(numbers["x"], np.array(numbers["difference"]) * 1e4, color="C4")
    left.set(xlabel="x", ylabel="gelu_tanh(x) - gelu(x), in 1/10,000", xlim=(-6, 6))
    for name, style in zip(CURVES, ("C1o-", "C0o-", "C2o--"), strict=True):
        dead = np.array(numbers["by_rate"][name]["dead"]) * 100
        middle.plot(numbers["rates"], dead, style, markersize=3, label=name)
        dead = np.array(numbers["by_bias"][name]["dead"]) * 100
        right.plot(numbers["biases"], dead, style, markersize=3, label=name)
    middle.set(xlabel="learning rate", ylabel="dead units after training, %", xlim=(0, 0.075), ylim=(-1, 40))
    middle.legend(loc="upper left")
    right.set(
        xlabel="biases of the first layer at the start", ylabel="dead units after training, %", ylim=(-2, 102)
    )
    right.invert_xaxis()
    return figure


def claim(numbers: dict) -> None:
    """README.md: the forms of GELU differ by 4.73e-4 at 2.7; ReLU's units die first, SiLU's last."""
    assert 4.732e-4 < numbers["largest_difference"] < 4.733e-4
    assert 2.69 < numbers["largest_difference_at"] < 2.71
    assert abs(numbers["best_cubic_coefficient"] - 0.044715) < 1.1e-5
    assert numbers["erf_error_in_units"] < 3
    assert numbers["first_nan_of_the_plain_slope"] == 710
    rates = dict(zip(numbers["rates"], range(len(numbers["rates"])), strict=True))
    dead, error = (
        {name: found[key] for name, found in numbers["by_rate"].items()} for key in ("dead", "error")
    )
    assert dead["ReLU"][rates[0.01]] < 0.02
    assert dead["ReLU"][rates[0.07]] > 0.15
    assert max(*dead["GELU"], *dead["SiLU"]) < 0.01
    for other in ("GELU", "SiLU"):
        assert error[other] == sorted(error[other], reverse=True)  # the larger the rate, the better
    assert error["ReLU"][rates[0.07]] > 1.5 * error["GELU"][rates[0.07]]
    if 0.05 in rates:
        assert error["ReLU"][rates[0.05]] < error["ReLU"][rates[0.07]]
    biases = dict(zip(numbers["biases"], range(len(numbers["biases"])), strict=True))
    dead, error = (
        {name: found[key] for name, found in numbers["by_bias"].items()} for key in ("dead", "error")
    )
    assert 0.15 < dead["ReLU"][biases[-4]] < 0.5
    assert dead["ReLU"][biases[-8]] > 0.85
    assert dead["GELU"][biases[-4]] < 0.02
    assert 0.1 < dead["GELU"][biases[-8]] < 0.6
    assert max(dead["SiLU"]) < 0.01
    assert error["SiLU"][biases[-4]] < 0.85 < 0.9 < min(error["ReLU"][biases[-4]], error["GELU"][biases[-4]])
