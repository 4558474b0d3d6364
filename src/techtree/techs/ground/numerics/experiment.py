"""How wrong are the obvious formulas in float32? The error of each against float64, as the logits move."""

import numpy as np

from techtree.techs.ground.numerics import log_softmax, logsumexp


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure logsumexp under an offset, and log_softmax over a gap, in float32.

    Parameters
    ----------
    rng
        Draws the logits.
    scale
        The share of the full number of points, in (0, 1].

    Returns
    -------
    dict
        Lists of the same length, ready for JSON; None where a formula gave infinity or NaN.
    """
    largest = np.linspace(-200, 200, max(9, round(201 * scale)))
    logits = rng.normal(size=64)
    logits -= logits.max()
    gaps = np.linspace(0, 200, max(11, round(101 * scale)))
    with np.errstate(all="ignore"):
        moved = [_offset_errors(logits + offset) for offset in largest]
        apart = [_gap_errors(gap) for gap in gaps]
    return {
        "largest": largest.tolist(),
        "naive_logsumexp_error": [naive for naive, _ in moved],
        "logsumexp_error": [stable for _, stable in moved],
        "gaps": gaps.tolist(),
        "log_of_softmax_error": [naive for naive, _ in apart],
        "log_softmax_error": [stable for _, stable in apart],
    }


def _offset_errors(logits: np.ndarray) -> tuple[float | None, float | None]:
    exact = float(logsumexp(logits))
    x = logits.astype(np.float32)
    return _error(np.log(np.exp(x).sum()), exact), _error(logsumexp(x), exact)


def _gap_errors(gap: float) -> tuple[float | None, float | None]:
    x = np.array([0.0, -gap])
    exact = float(log_softmax(x)[1])
    e = np.exp(x.astype(np.float32))
    return _error(np.log(e / e.sum())[1], exact), _error(log_softmax(x.astype(np.float32))[1], exact)


def _error(got, exact: float) -> float | None:
    error = abs(float(got) - exact) / max(1.0, abs(exact))
    return error if np.isfinite(error) else None


def plot(numbers: dict):
    """Draw both errors; the shade marks where the obvious formula gives infinity or NaN."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    _panel(left, numbers["largest"], numbers["naive_logsumexp_error"], numbers["logsumexp_error"])
    left.set(xlabel="largest of 64 logits", ylabel="relative error in float32")
    left.legend(["log(sum(exp(x)))", "logsumexp(x)"], loc="upper center")
    _panel(right, numbers["gaps"], numbers["log_of_softmax_error"], numbers["log_softmax_error"])
    right.set(xlabel="gap between two logits")
    right.legend(["log(softmax(x))", "log_softmax(x)"], loc="upper left")
    return figure


def _panel(axes, x: list, obvious: list, stable: list) -> None:
    for errors, colour in ((obvious, "C1"), (stable, "C0")):
        # An error of exactly 0 has no place on a logarithmic axis: it is drawn at the bottom.
        heights = [np.nan if error is None else max(error, 1e-9) for error in errors]
        axes.plot(x, heights, color=colour)
    axes.set(yscale="log", ylim=(1e-9, 1), xlim=(x[0], x[-1]))
    infinite = [error is None for error in obvious]
    axes.fill_between(x, 1e-9, 1, where=infinite, color="C1", alpha=0.15, linewidth=0)


def claim(numbers: dict) -> None:
    """README.md: the obvious forms are lost beyond 88 and 104, the stable ones stay within 2e-7."""
    for largest, error in zip(numbers["largest"], numbers["naive_logsumexp_error"], strict=True):
        if -103 < largest < 85:
            assert error is not None
        if largest < -104 or largest > 88.8:
            assert error is None
    for gap, error in zip(numbers["gaps"], numbers["log_of_softmax_error"], strict=True):
        assert (error is None) == (gap >= 104)
    stable = numbers["logsumexp_error"] + numbers["log_softmax_error"]
    assert all(error is not None and error < 2e-7 for error in stable)
    obvious = numbers["naive_logsumexp_error"] + numbers["log_of_softmax_error"]
    assert max(error for error in obvious if error is not None) > 1e-4
