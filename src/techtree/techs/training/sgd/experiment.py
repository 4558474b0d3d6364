"""What momentum adds up, which rates it endures, how much faster it is; what it does to noise and decay."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.sgd import SGD

MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure on quadratics ``loss = curvature * w**2 / 2``, whose gradient is ``curvature * w``.

    Parameters
    ----------
    rng
        Draws the noise of gradients.
    scale
        The share of the full number of steps and of the largest condition number, in (0, 1].

    Returns
    -------
    dict
        For a constant gradient of 1, the steps in three conventions, as shares of the last one. For each
        momentum: the largest stable rate, the share of the velocity that the last 1 / (1 - momentum)
        gradients make up, and the steps until decay alone halves a weight. For each condition number: the
        steps until the error is a thousandth. The variance of a weight under noise.
    """
    conditions = [10**n for n in np.linspace(0.5, 4 if scale == 1 else 2.5, 8)]
    return {
        "conventions": _conventions(0.9, 60),
        "momenta": list(MOMENTA),
        "recent_share": [_recent_share(momentum) for momentum in MOMENTA],
        "largest_stable_rate": [_largest_stable_rate(momentum) for momentum in MOMENTA],
        "half_life": [_half_life(momentum) for momentum in MOMENTA],
        "conditions": conditions,
        "steps_without_momentum": [_steps(condition, 0.0) for condition in conditions],
        "best_momenta": [_best_momentum(condition) for condition in conditions],
        "steps_with_momentum": [_steps(condition, _best_momentum(condition)) for condition in conditions],
        "steps_with_0.9": [_steps(condition, 0.9) for condition in conditions],
        "variance": {
            "rate 0.01, no momentum": _variance(rng, 0.01, 0.0, scale),
            "rate 0.01, momentum 0.9": _variance(rng, 0.01, 0.9, scale),
            "rate 0.1, no momentum": _variance(rng, 0.1, 0.0, scale),
        },
    }


def _steps_of(gradients: list[float], momentum: float) -> list[float]:
    """Return the steps that our optimizer takes at a rate of 1."""
    w = Parameter(0.0)
    optimizer = SGD([w], lr=1.0, momentum=momentum)
    places = [0.0]
    for gradient in gradients:
        w.grad = np.array(gradient)
        optimizer.step()
        places.append(float(w.data))
    return (-np.diff(places)).tolist()


def _conventions(momentum: float, n_steps: int) -> dict[str, list[float]]:
    """Return the steps for a constant gradient, and those for one gradient and nothing after it."""
    constant, single = [1.0] * n_steps, [1.0] + [0.0] * (n_steps - 1)
    found = {}
    for kind, gradients in (("constant", constant), ("first gradient alone", single)):
        average, from_first = 0.0, gradients[0]
        averages, averages_from_first = [], []
        for number, gradient in enumerate(gradients):
            average = momentum * average + (1 - momentum) * gradient
            if number:
                from_first = momentum * from_first + (1 - momentum) * gradient
            averages.append(average)
            averages_from_first.append(from_first)
        # In units of what a gradient of 1 that stays leads to in the end.
        found[f"sum from 0, {kind}"] = [step * (1 - momentum) for step in _steps_of(gradients, momentum)]
        found[f"average from 0, {kind}"] = averages
        found[f"average from the first, {kind}"] = averages_from_first
    return found


def _recent_share(momentum: float) -> float:
    """Return how much of the velocity the last 1 / (1 - momentum) gradients make up."""
    ages = np.array(_steps_of([1.0] + [0.0] * 4000, momentum))  # the weight of a gradient at each age
    return float(ages[: round(1 / (1 - momentum))].sum() / ages.sum())


def _largest_stable_rate(momentum: float) -> float:
    """Find by bisection the rate above which a weight of curvature 1 grows."""
    low, high = 0.0, 10.0
    for _ in range(12):
        rate = (low + high) / 2
        w = Parameter(1.0)
        optimizer = SGD([w], lr=rate, momentum=momentum)
        for _ in range(1500):
            w.grad = w.data.copy()
            optimizer.step()
            if abs(w.data) > 1e6:
                break
        low, high = (low, rate) if abs(w.data) > 10 else (rate, high)
    return low


def _half_life(momentum: float) -> int:
    """Count the steps until decay alone, no gradient, has halved a weight."""
    w = Parameter(1.0)
    optimizer = SGD([w], lr=0.01, momentum=momentum, weight_decay=0.01)
    w.grad = np.array(0.0)
    for step in range(1, 20_000):
        optimizer.step()
        if w.data <= 0.5:
            return step
    return 20_000


def _best_momentum(condition: float) -> float:
    root = math.sqrt(condition)
    return ((root - 1) / (root + 1)) ** 2


def _steps(condition: float, momentum: float) -> int:
    """Count the steps until all of 20 weights, curvatures from 1 / condition to 1, are below a thousandth."""
    curvature = np.geomspace(1 / condition, 1, 20)
    if momentum:  # Polyak's rate for the momentum that he proves best, and the largest safe one for others
        rate = min((1 + math.sqrt(momentum)) ** 2, 4 / (1 + math.sqrt(1 / condition)) ** 2)
    else:
        rate = 2 / (1 + 1 / condition)
    w = Parameter(np.ones(20))
    optimizer = SGD([w], lr=rate, momentum=momentum)
    for step in range(1, 100_000):
        w.grad = curvature * w.data
        optimizer.step()
        if np.abs(w.data).max() < 1e-3:
            return step
    return 100_000


def _variance(rng: np.random.Generator, rate: float, momentum: float, scale: float) -> float:
    """Measure how far noise of variance 1 on the gradient keeps 1,000 weights of curvature 1 from 0."""
    w = Parameter(np.zeros(1000))
    optimizer = SGD([w], lr=rate, momentum=momentum)
    found = []
    for step in range(max(1200, round(4000 * scale))):
        w.grad = w.data + rng.normal(size=1000)
        optimizer.step()
        if step >= 800 and step % 100 == 0:
            found.append(np.mean(w.data**2))
    return float(np.mean(found))


def plot(numbers: dict):
    """Draw the three conventions, the largest stable rate, and the steps against the condition number."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    for name, style in (("sum from 0", "C0"), ("average from 0", "C1--"), ("average from the first", "C2")):
        left.plot(range(1, 61), numbers["conventions"][f"{name}, constant"], style, label=name)
    left.set(xlabel="step", ylabel="step / final step, constant gradient", xlim=(1, 60), ylim=(0, 1.05))
    left.legend(loc="lower right", title="momentum 0.9")
    momenta = np.linspace(0, 1, 50)
    middle.plot(momenta, 2 * (1 + momenta), "C0", alpha=0.5, label="2 (1 + momentum) / L")
    middle.plot(numbers["momenta"], numbers["largest_stable_rate"], "C0o", label="measured")
    middle.set(xlabel="momentum", ylabel="largest stable rate, for L = 1", ylim=(0, 4.4), xlim=(0, 1.02))
    middle.legend(loc="lower right")
    right.plot(numbers["conditions"], numbers["steps_without_momentum"], "C1o-", label="no momentum")
    right.plot(numbers["conditions"], numbers["steps_with_0.9"], "C2o-", label="momentum 0.9")
    right.plot(numbers["conditions"], numbers["steps_with_momentum"], "C0o-", label="best momentum")
    right.set(xscale="log", yscale="log", xlabel="condition number", ylabel="steps to a thousandth")
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: sums grow to 1 / (1 - momentum); rates up to 2 (1 + momentum) / L; the root of the steps."""
    conventions = numbers["conventions"]
    ours, average = conventions["sum from 0, constant"], conventions["average from 0, constant"]
    assert np.allclose(ours, average)  # one convention is the other, at ten times the rate
    assert abs(ours[0] - 0.1) < 1e-9
    assert 0.6 < ours[9] < 0.7
    assert ours[-1] > 0.99
    assert min(conventions["average from the first, constant"]) > 0.999
    assert 0.34 < conventions["average from the first, first gradient alone"][10] < 0.36
    assert 0.03 < conventions["sum from 0, first gradient alone"][10] < 0.04
    for momentum, share, rate, half_life in zip(
        numbers["momenta"],
        numbers["recent_share"],
        numbers["largest_stable_rate"],
        numbers["half_life"],
        strict=True,
    ):
        assert 0.63 < share <= 1
        assert abs(rate / (2 * (1 + momentum)) - 1) < 0.01
        if momentum <= 0.9:
            assert abs(half_life / (6932 * (1 - momentum)) - 1) < 0.01
    plain, fixed, best = (
        numbers[f"steps_{name}"] for name in ("without_momentum", "with_0.9", "with_momentum")
    )
    for condition, a, b, c in zip(numbers["conditions"], plain, fixed, best, strict=True):
        assert 3.3 < a / condition < 3.6
        assert 4 < c / condition**0.5 < 9.5
        if condition <= 1000:
            assert 130 < b < 160
        if condition > 9999:
            assert a > 40 * c
    spread = numbers["variance"]
    small, large = spread["rate 0.01, no momentum"], spread["rate 0.1, no momentum"]
    assert abs(small / 0.005 - 1) < 0.1
    assert abs(spread["rate 0.01, momentum 0.9"] / large - 1) < 0.15
    assert 9 < large / small < 12
