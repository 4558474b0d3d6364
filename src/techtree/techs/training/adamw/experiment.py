"""What each part of the rule is for: memory of squares, epsilon's place, correction, and decay's place."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.adamw import AdamW, decay_groups

BETAS = (0.9, 0.95, 0.98, 0.99, 0.999)
SCALES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
SIZES = np.geomspace(1e-12, 1, 25).tolist()
MOMENTS = sorted({round(n) for n in np.geomspace(1, 10_000, 60)})
"""The steps after a change that are kept."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure steps, in units of the rate, for gradients whose course is known.

    Parameters
    ----------
    rng
        Draws the noise of gradients.
    scale
        The share of the full number of weights and trials, in (0, 1].

    Returns
    -------
    dict
        For each beta2: the size of steps after gradients fall to a hundredth, the steps until they are half
        of the usual, the steps that one gradient of a hundredfold length costs, and the drift when the mean
        comes from rare gradients. Steps by the size of the gradient, for epsilon outside and inside the root.
        First steps with and without correction. What decay leaves of a weight, by the size of its gradients,
        and what it does to an offset.
    """
    n = max(200, round(1000 * scale))
    falls = {str(beta): _after_a_fall(rng, beta, n // 5) for beta in BETAS}
    return {
        "betas": list(BETAS),
        "steps": MOMENTS,
        "fall": {beta: [sizes[m - 1] for m in MOMENTS if m <= len(sizes)] for beta, sizes in falls.items()},
        "steps to half": {beta: _first(sizes, 0.5) for beta, sizes in falls.items()},
        "steps lost by one outlier": [_lost_by_an_outlier(beta) for beta in BETAS],
        "drift": [_drift(rng, beta, n) for beta in BETAS],
        "sizes": SIZES,
        "epsilon outside": [_settled_step(size) for size in SIZES],
        "epsilon inside": [size / math.sqrt(size**2 + 1e-8) for size in SIZES],
        "first steps": {
            f"{kind}, beta2 {beta2}": _first_steps(beta2, kind == "corrected")
            for kind in ("corrected", "not corrected")
            for beta2 in (0.95, 0.999)
        },
        "noise alone": _noise_alone(rng, 20 * n),
        "scales": list(SCALES),
        "left, decoupled": [_left(rng, size, n, True) for size in SCALES],
        "left, in the gradient": [_left(rng, size, n, False) for size in SCALES],
        "offset": {name: _offset(rng, name == "matrices only") for name in ("everything", "matrices only")},
    }


def _steps(gradients, **options):
    """Give the steps, in units of the rate, that follow a course of gradients."""
    w = Parameter(np.zeros_like(gradients[0]))
    optimizer = AdamW([w], lr=1.0, **{"weight_decay": 0.0, **options})
    for gradient in gradients:
        before = w.data.copy()
        w.grad = gradient
        optimizer.step()
        yield before - w.data


def _size(step: np.ndarray) -> float:
    return float(np.sqrt(np.mean(step**2)))


def _after_a_fall(rng, beta2: float, n: int) -> list[float]:
    """Return the sizes of steps, in units of the usual, after noise of size 100 has become one of 1."""
    n_before, n_after = round(5 / (1 - beta2)), round(10 / (1 - beta2))
    noise = [rng.normal(size=n) * (100 if step < n_before else 1) for step in range(n_before + n_after)]
    sizes = [_size(step) for step in _steps(noise, betas=(0.9, beta2))]
    usual = float(np.mean(sizes[n_before // 2 : n_before]))
    return [size / usual for size in sizes[n_before:]]


def _first(sizes: list[float], level: float) -> int:
    """Return after how many steps the size has come back, that is, when it is last below the level."""
    return max((n + 1 for n, size in enumerate(sizes) if size < level and n > 0), default=0)


def _lost_by_an_outlier(beta2: float) -> float:
    """Add up by how much steps are too short after one gradient that is a hundred times too long."""
    n = round(12 / (1 - beta2))
    course = [np.ones(1)] * n + [np.full(1, 100.0)] + [np.ones(1)] * n
    steps = [float(step[0]) for step in _steps(course, betas=(0.0, beta2))]
    return float(sum(1 - step for step in steps[n + 1 :]))


def _drift(rng, beta2: float, n: int) -> float:
    """Measure the mean step for gradients of -1 that are 150 in one of a hundred steps: their mean is 0.51.

    Descent should go down, so a right step is negative; what is returned is its size in the right direction.
    """
    n_steps = 6000
    w = Parameter(np.zeros(n))
    optimizer = AdamW([w], lr=1.0, betas=(0.9, beta2), weight_decay=0.0)
    start = w.data
    for step in range(n_steps):
        if step == n_steps // 2:
            start = w.data.copy()
        w.grad = np.where(rng.random(n) < 0.01, 150.0, -1.0)
        optimizer.step()
    return float(np.mean(start - w.data) / (n_steps - n_steps // 2))


def _settled_step(size: float) -> float:
    *_, last = _steps([np.full(1, size)] * 200, betas=(0.9, 0.95))
    return float(last[0])


def _first_steps(beta2: float, is_corrected: bool) -> list[float]:
    """Return the first 1,000 steps for a constant gradient."""
    corrected = [float(step[0]) for step in _steps([np.ones(1)] * 1000, betas=(0.9, beta2))]
    if is_corrected:
        return corrected
    mean = square = 0.0
    plain = []
    for _ in range(1000):
        mean, square = 0.9 * mean + 0.1, beta2 * square + (1 - beta2)
        plain.append(mean / math.sqrt(square))
    return plain


def _noise_alone(rng, n: int) -> list[float]:
    """Return the sizes of the first 100 steps when gradients are noise."""
    return [_size(step) for step in _steps([rng.normal(size=n) for _ in range(100)])]


def _left(rng, size: float, n: int, is_decoupled: bool) -> float:
    """Return what is left of a weight of 1 after 1,000 steps under noise of a size and decay."""
    rate, decay = 0.002, 0.2
    w = Parameter(np.ones(n))
    optimizer = AdamW([w], lr=rate, weight_decay=decay if is_decoupled else 0.0)
    for _ in range(1000):
        gradient = rng.normal(size=n) * size
        w.grad = gradient if is_decoupled else gradient + decay * w.data
        optimizer.step()
    return float(np.mean(w.data))


def _offset(rng, is_grouped: bool) -> float:
    """Fit y = x w + 20, and return the offset that is found when decay is 0.1."""
    w, b = Parameter(np.zeros((4, 1))), Parameter(np.zeros(1))
    groups = decay_groups([w, b], 0.1) if is_grouped else [{"parameters": [w, b], "weight_decay": 0.1}]
    optimizer = AdamW(groups, lr=0.02)
    for _ in range(3000):
        x = rng.normal(size=(16, 4))
        error = (
            x @ (w.data - np.array([[1.0], [2.0], [-1.0], [0.0]])) + b.data - 20 + rng.normal(size=(16, 1))
        )
        w.grad, b.grad = x.T @ error / 16, error.mean(axis=0)
        optimizer.step()
    return float(b.data[0])


def plot(numbers: dict):
    """Draw steps after a fall, steps by the size of the gradient, first steps, and what decay leaves."""
    import matplotlib.pyplot as plt

    figure, ((first, second), (third, fourth)) = plt.subplots(2, 2, figsize=(9, 6.2))
    for beta, colour in zip(map(str, BETAS), ("C4", "C0", "C8", "C2", "C1"), strict=True):
        sizes = numbers["fall"][beta]
        first.plot(numbers["steps"][: len(sizes)], sizes, colour, label=f"beta2 {beta}")
    first.set(
        xscale="log",
        xlabel="steps since gradients fell to a hundredth",
        ylabel="step / usual step",
        ylim=(0, 1.3),
        xlim=(1, 10_000),
    )
    first.legend(loc="upper center", ncol=3, fontsize=8)
    second.plot(numbers["sizes"], numbers["epsilon outside"], "C0", label="epsilon outside the root")
    second.plot(numbers["sizes"], numbers["epsilon inside"], "C1", label="epsilon inside the root")
    second.set(
        xscale="log", xlabel="size of the gradient, epsilon 1e-8", ylabel="step / rate", xlim=(1e-12, 1)
    )
    second.legend(loc="lower right")
    n = np.arange(1, 101)
    for name, style, label in (
        ("not corrected, beta2 0.999", "C1", "constant gradient, not corrected, beta2 0.999"),
        ("not corrected, beta2 0.95", "C2", "constant gradient, not corrected, beta2 0.95"),
        ("corrected, beta2 0.999", "C0", "constant gradient, corrected"),
    ):
        third.plot(n, numbers["first steps"][name][:100], style, label=label)
    third.plot(n, numbers["noise alone"], "C0--", label="noise alone, corrected (beta2 0.999)")
    third.set(xlabel="step", ylabel="step / rate", xlim=(1, 100), ylim=(0, 9))
    third.legend(loc="upper right", fontsize=8)
    fourth.plot(numbers["scales"], numbers["left, decoupled"], "C0o-", label="decay beside the step")
    fourth.plot(numbers["scales"], numbers["left, in the gradient"], "C1o-", label="decay in the gradient")
    fourth.set(xscale="log", xlabel="size of the gradients", ylabel="left of a weight of 1", ylim=(0, 1.05))
    fourth.legend(loc="upper left", bbox_to_anchor=(0.0, 0.92))
    return figure


def claim(numbers: dict) -> None:
    """README.md: memory of squares, epsilon outside, correction of first steps, decay beside the step."""
    at = {beta: n for n, beta in enumerate(numbers["betas"])}
    for beta, steps in numbers["steps to half"].items():
        assert 6.5 < steps * (1 - float(beta)) < 9.5
    assert 130 < numbers["steps to half"]["0.95"] < 180
    assert 7500 < numbers["steps to half"]["0.999"] < 9300
    lost, drift = numbers["steps lost by one outlier"], numbers["drift"]
    assert 90 < lost[at[0.95]] < 100
    assert 1450 < lost[at[0.999]] < 1600
    assert -0.35 < drift[at[0.95]] < -0.25
    assert -0.03 < drift[at[0.99]] < 0
    assert 0.02 < drift[at[0.999]] < 0.04
    for size, outside, inside in zip(
        numbers["sizes"], numbers["epsilon outside"], numbers["epsilon inside"], strict=True
    ):
        assert abs(outside - size / (size + 1e-8)) < 1e-6
        if 0.9e-6 < size < 1.1e-6:
            assert outside > 0.98
            assert 0.009 < inside < 0.011
    first = numbers["first steps"]
    for beta in ("0.95", "0.999"):
        assert all(abs(step - 1) < 1e-6 for step in first[f"corrected, beta2 {beta}"])
    slow, fast = first["not corrected, beta2 0.999"], first["not corrected, beta2 0.95"]
    assert abs(slow[0] - 3.162) < 0.001
    assert 6.5 < max(slow) < 6.6
    assert 3.2 < slow[99] < 3.3
    assert abs(fast[0] - 0.447) < 0.001
    assert 460 < sum(slow[:100]) < 470
    noise = numbers["noise alone"]
    assert abs(noise[0] - 1) < 1e-3
    assert 0.3 < noise[9] < 0.36
    assert 0.2 < noise[99] < 0.26
    assert all(0.63 < left < 0.71 for left in numbers["left, decoupled"])
    left = numbers["left, in the gradient"]
    assert left[0] < 0.1
    assert left[-1] > 0.95
    assert numbers["offset"]["everything"] < 10.1
    assert abs(numbers["offset"]["matrices only"] - 20) < 0.2
