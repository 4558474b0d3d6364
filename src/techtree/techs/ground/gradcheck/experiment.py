"""How good is a measured derivative? The error against the step, and against the size of the argument."""

import math

import numpy as np

from techtree.techs.ground.gradcheck import numerical_gradient


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure derivatives of sin with many steps, and of log at many sizes of the argument.

    Parameters
    ----------
    rng
        Draws the points.
    scale
        The share of the full number of points, in (0, 1].

    Returns
    -------
    dict
        Lists, ready for JSON; None where the step is lost in rounding.
    """
    steps = np.logspace(-14, 0, max(29, round(141 * scale)))
    points = rng.uniform(0.5, 1.0, size=max(30, round(100 * scale)))
    sizes = np.logspace(-4, 14, max(37, round(181 * scale)))
    one_sided = [np.median([_one_sided_error(x, h) for x in points]) for h in steps]
    central = [np.median([_error(math.sin, math.cos(x), x, h) for x in points]) for h in steps]
    return {
        "steps": steps.tolist(),
        "one_sided_error": [float(error) for error in one_sided],
        "central_error": [float(error) for error in central],
        "sizes": sizes.tolist(),
        "fixed_step_error": [_median_around(rng, size, 6e-6) for size in sizes],
        "scaled_step_error": [_median_around(rng, size, None) for size in sizes],
    }


def _one_sided_error(x: float, h: float) -> float:
    slope = (math.sin(x + h) - math.sin(x)) / ((x + h) - x)
    return abs(slope / math.cos(x) - 1)


def _error(f, slope: float, x: float, step: float | None) -> float:
    return abs(float(numerical_gradient(lambda v: f(v[0]), np.array([x]), step)[0]) / slope - 1)


def _median_around(rng: np.random.Generator, size: float, step: float | None) -> float | None:
    points = size * rng.uniform(0.9, 1.1, size=15)
    try:
        return float(np.median([_error(math.log, 1 / x, x, step) for x in points]))
    except ValueError:  # the step is lost in rounding
        return None


def plot(numbers: dict):
    """Draw both errors."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    left.loglog(numbers["steps"], numbers["one_sided_error"], color="C1", label="one-sided")
    left.loglog(numbers["steps"], numbers["central_error"], color="C0", label="central")
    left.set(xlabel="step h", ylabel="relative error of the derivative", ylim=(1e-13, 3))
    left.legend(loc="lower left")
    fixed = [math.nan if error is None else error for error in numbers["fixed_step_error"]]
    right.loglog(numbers["sizes"], fixed, color="C1", label="h = 6e-6")
    right.loglog(numbers["sizes"], numbers["scaled_step_error"], color="C0", label="h = 6e-6 max(1, |x|)")
    right.set(xlabel="x, for the derivative of log(x)")
    right.legend(loc="lower right")
    return figure


def claim(numbers: dict) -> None:
    """README.md: where the minima lie and how deep they are, the slopes, and what a fixed step loses."""
    steps = np.array(numbers["steps"])
    one_sided, central = np.array(numbers["one_sided_error"]), np.array(numbers["central_error"])
    assert 2e-9 < steps[one_sided.argmin()] < 5e-8
    assert 1e-6 < steps[central.argmin()] < 2.5e-5
    assert 1.7e-9 < one_sided.min() < 1.5e-8
    assert 1.7e-12 < central.min() < 1.5e-11
    # To the right of the minimum a tenth of the step gives a tenth, and a hundredth, of the error.
    assert abs(_power(steps, one_sided) - 1) < 0.05
    assert abs(_power(steps, central) - 2) < 0.05
    # To the left both grow alike.
    at = np.abs(np.log(steps / 1e-12)).argmin()
    assert 1e-5 < central[at] < one_sided[at] < 1e-4
    for size, fixed, scaled in zip(
        numbers["sizes"], numbers["fixed_step_error"], numbers["scaled_step_error"], strict=True
    ):
        assert size > 5e10 or fixed is not None
        assert size < 1.5e11 or fixed is None
        assert fixed is None or size < 1e6 or fixed > 1e-6
        assert fixed is None or size < 1e9 or fixed > 1e-2
        assert size < 0.5 or scaled < 2e-10
        assert size > 1.1e-4 or scaled > 5e-4


def _power(steps: np.ndarray, errors: np.ndarray) -> float:
    chosen = (steps > 1e-3) & (steps < 1e-1)
    return float(np.polyfit(np.log(steps[chosen]), np.log(errors[chosen]), 1)[0])
