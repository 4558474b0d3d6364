"""What does a gradient cost? Multiplications of the backward pass, and memory of the recorded graph."""

import tracemalloc
from collections import Counter

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record

N_SAMPLES, WIDTH = 64, 64
ARRAY_BYTES = N_SAMPLES * WIDTH * 8


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count multiplications, and measure peaks of memory, for networks of more and more layers.

    Parameters
    ----------
    rng
        Draws inputs and weights.
    scale
        The share of the largest depth, in (0, 1].

    Returns
    -------
    dict
        Lists over the depths, ready for JSON; memory in arrays of one layer's size.
    """
    depths = list(range(1, max(8, round(40 * scale)) + 1))
    x, w = rng.normal(size=(N_SAMPLES, WIDTH)), rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    counts = [[_multiplications(x, w, depth, needs) for needs in (False, True)] for depth in depths]
    return {
        "depths": depths,
        "ratio_constant_input": [constant for constant, _ in counts],
        "ratio": [needed for _, needed in counts],
        "without_recording": [_peak(_forward_only, x, w, depth) for depth in depths],
        "with_gradients": [_peak(_forward_and_backward, x, w, depth) for depth in depths],
        "all_gradients_kept": [_peak(_all_gradients_kept, x, w, depth) for depth in depths],
    }


def _multiplications(x: np.ndarray, w: np.ndarray, depth: int, input_requires_grad: bool) -> float:
    """Return the number of multiplications of the backward pass over that of the forward pass."""
    n = Counter()

    def product(a: np.ndarray, b: np.ndarray, when: str) -> np.ndarray:
        n[when] += a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    y = Tensor(x, input_requires_grad)
    for _ in range(depth):
        a, b = y, Tensor(w, requires_grad=True)
        y = record(
            product(a.data, b.data, "forward"),
            (a, lambda g, b=b: product(g, b.data.T, "backward")),
            (b, lambda g, a=a: product(a.data.T, g, "backward")),
        )
    y.sum().backward()
    return n["backward"] / n["forward"]


def _peak(compute, x: np.ndarray, w: np.ndarray, depth: int) -> float:
    """Return the most memory that a computation holds at once, in arrays of one layer's size."""
    tensor = Tensor(w, requires_grad=True)
    tracemalloc.start()
    try:
        compute(Tensor(x), tensor, depth)
        return tracemalloc.get_traced_memory()[1] / ARRAY_BYTES
    finally:
        tracemalloc.stop()


def _forward_only(y: Tensor, w: Tensor, depth: int) -> None:
    with no_grad():
        for _ in range(depth):
            y = (y @ w).tanh()


def _forward_and_backward(y: Tensor, w: Tensor, depth: int) -> None:
    for _ in range(depth):
        y = (y @ w).tanh()
    y.sum().backward()


def _all_gradients_kept(y: Tensor, w: Tensor, depth: int) -> None:
    kept = []
    for _ in range(depth):
        y = (y @ w).tanh()
        y = record(y.data, (y, lambda g: kept.append(g) or g))
    y.sum().backward()


def plot(numbers: dict):
    """Draw both costs against the number of layers."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    depths = numbers["depths"]
    left.plot(depths, numbers["ratio"], color="C1", label="input needs a gradient")
    left.plot(depths, numbers["ratio_constant_input"], color="C0", label="input is a constant")
    left.set(xlabel="layers", ylabel="multiplications, backward / forward", ylim=(0, 2.5))
    left.legend(loc="lower right")
    right.plot(depths, numbers["all_gradients_kept"], color="C1", label="if every result kept its gradient")
    right.plot(depths, numbers["with_gradients"], color="C0", label="forward and backward")
    right.plot(depths, numbers["without_recording"], color="C7", label="forward with no_grad")
    right.set(xlabel="layers", ylabel="peak memory, arrays", ylim=(0, None))
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: 2 and 2 - 1 / layers; a layer costs 2 arrays, 3 with all gradients; 3 in all in no_grad."""
    depths = np.array(numbers["depths"])
    assert np.allclose(numbers["ratio"], 2.0)
    assert np.allclose(numbers["ratio_constant_input"], 2 - 1 / depths)
    assert max(numbers["without_recording"]) < 3.5
    for name, slope in (("with_gradients", 2), ("all_gradients_kept", 3)):
        grown = np.diff(numbers[name])[3:]  # the first layers' memory is still being used for other things
        assert abs(grown.mean() - slope) < 0.2
    assert (np.array(numbers["with_gradients"]) < 2 * depths + 8).all()
