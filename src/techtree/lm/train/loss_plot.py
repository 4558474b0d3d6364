"""The picture of a training's loss."""

import io
from collections.abc import Sequence

import numpy as np

MAX_POINTS = 4000
"""More cannot be told apart, and make the file large."""


def loss_plot(losses: Sequence[float], held_out_bits_per_token: float | None = None) -> bytes:
    """Draw the loss of every step, and its average over the last steps, in bits per token.

    Parameters
    ----------
    losses
        In nats per token, from the first step on.
    held_out_bits_per_token
        The loss at the end on text that was held out, where it was measured.

    Returns
    -------
    bytes
        An SVG file.
    """
    # Not pyplot, which keeps figures and asks for a display.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    bits = np.asarray(losses) / np.log(2)
    window = max(1, len(bits) // 30)
    sums = np.cumsum(np.concatenate(([0.0], bits)))
    smooth = (sums[window:] - sums[:-window]) / window
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    steps = np.arange(1, len(bits) + 1)
    every = -(-len(bits) // MAX_POINTS) or 1
    axes.plot(steps[::every], bits[::every], color="C0", alpha=0.3, linewidth=0.8, label="each step")
    axes.plot(steps[window - 1 :: every], smooth[::every], color="C0", label=f"mean of {window} steps")
    if held_out_bits_per_token is not None:
        axes.axhline(held_out_bits_per_token, color="C1", linestyle="--", label="held-out files, at the end")
    axes.set(xlabel="step", ylabel="bits per token")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None})
    return image.getvalue()
