"""The bend between two layers: without it, a hundred layers are one matrix.

Claim: each activation is a number multiplied by a gate. ReLU's gate is open or shut; those of GELU and SiLU
open gradually, so that a unit that is shut still feels which way to move.

Idea: one entry, one formula, one slope. What takes care is the far ends, where ``exp`` overflows and
differences cancel.

Legend: ``x`` a tensor of any shape, with entries of any size up to 1e4 in float16, 1e18 in float32, 1e150 in
float64; ``g`` the gradient that arrives.

For all five functions of tensors: the result is a new tensor with the shape and dtype of ``x``, which is not
changed. `backward` gives x the gradient ``g * slope``. Values are off by at most 8 rounding units (``eps`` of
the dtype) of x, those of `sigmoid` even of the result, as long as that is a normal number; slopes by at most
64 of 1. Nothing is NaN or infinite.

Left out: the curves of older networks (tanh is a method of `Tensor`), and slopes of slopes.

Paper: Hendrycks, Gimpel (2016), https://arxiv.org/abs/1606.08415
"""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record

N_SERIES, N_FRACTION = 34, 40
"""Enough terms for float64 at 2, where both expansions of `erf` are at their slowest."""


def erf(x: np.ndarray) -> np.ndarray:
    """Compute the error function: the probability that a normal number of variance 1/2 lies in [-x, x].

    Parameters
    ----------
    x
        An array of any shape. float16, float32 and float64 are kept, integers count as float64. Infinite
        entries give 1 and -1. Not changed.

    Returns
    -------
    np.ndarray
        A new one, or a NumPy scalar for no axes: ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0
        to x; off by at most 8 rounding units of the result, also where that is near 0.

    Notes
    -----
    Up to 2 a series without cancellation, ``2 x exp(-x**2) / sqrt(pi) * (1 + w/3 * (1 + w/5 * (1 + ...)))``
    with ``w = 2 x**2``; beyond, ``1 - exp(-x**2) / (sqrt(pi) * (x + (1/2) / (x + (2/2) / (x + ...))))``.
    `math.erf` gives the same for one number at a time.

    Examples
    --------
    >>> erf(np.array([0.0, 1.0, -1.0, 30.0])).round(6).tolist()
    [0.0, 0.842701, -0.842701, 1.0]
    """
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    size = np.minimum(np.abs(x.astype(np.result_type(x, np.float32))), 6)  # erf(6) is 1 in float64
    value, is_near = np.empty_like(size), size < 2
    near, far = size[is_near], size[~is_near]
    nested, w = np.ones_like(near), 2 * near * near
    for n in range(2 * N_SERIES + 1, 1, -2):
        nested = 1 + w / n * nested
    value[is_near] = 2 / math.sqrt(math.pi) * near * np.exp(-near * near) * nested
    fraction = far
    for n in range(N_FRACTION, 0, -1):
        fraction = far + n / 2 / fraction
    value[~is_near] = 1 - np.exp(-far * far) / (math.sqrt(math.pi) * fraction)
    return np.copysign(value, x).astype(x.dtype)


def sigmoid(x: Tensor) -> Tensor:
    """Return ``1 / (1 + exp(-x))`` of each entry: a step from 0 to 1 that takes its time.

    The slope is ``s * (1 - s)``, s being the value. Far to the left the value is small but exact:
    sigmoid(-100) is 3.7e-44 and not 0.

    Examples
    --------
    >>> sigmoid(Tensor([-1e4, -math.log(3), 0, 1e4])).data.round(6).tolist()
    [0.0, 0.25, 0.5, 1.0]
    """
    s = _sigmoid(x.data)
    return record(s, (x, lambda g: g * s * (1 - s)))


def relu(x: Tensor) -> Tensor:
    """Return the larger of each entry and 0.

    The slope is 1 above 0, and 0 elsewhere, at 0 too.

    Examples
    --------
    >>> x = Tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> relu(x).sum().backward()
    >>> relu(x).data.tolist(), x.grad.tolist()
    ([0.0, 0.0, 3.0], [0.0, 0.0, 1.0])
    """
    return record(np.maximum(x.data, 0), (x, lambda g: np.where(x.data > 0, g, 0)))


def gelu(x: Tensor) -> Tensor:
    """Return x times the probability P that a normal number (mean 0, variance 1) is below it.

    ``P = (1 + erf(x / sqrt(2))) / 2``, exactly, not by an approximation of that curve. The slope is
    ``P + x * exp(-x**2 / 2) / sqrt(2 * pi)``.

    Examples
    --------
    >>> gelu(Tensor([-1.0, 0.0, 1.0])).data.round(6).tolist()
    [-0.158655, 0.0, 0.841345]
    """
    below = (1 + erf(x.data / math.sqrt(2))) / 2
    near = np.clip(x.data, -40, 40)  # beyond, the density is 0
    return record(
        x.data * below,
        (x, lambda g: g * (below + near * np.exp(-near * near / 2) / math.sqrt(2 * math.pi))),
    )


def gelu_tanh(x: Tensor) -> Tensor:
    """Return ``x * (1 + tanh(u)) / 2`` with ``u = sqrt(2 / pi) * (x + 0.044715 * x**3)``, for each entry.

    The form of `gelu` that GPT-2 was trained with. The slope is that of this formula, not that of `gelu`.

    Examples
    --------
    >>> gelu_tanh(Tensor([-1.0, 0.0, 1.0])).data.round(6).tolist()
    [-0.158808, 0.0, 0.841192]
    """
    near = np.clip(x.data, -10, 10)  # beyond, tanh(u) is -1 or 1 in float64, and a cube may overflow
    t = np.tanh(math.sqrt(2 / math.pi) * (near + 0.044715 * near * near * near))

    def pull_back(g):
        rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
        return g * ((1 + t) / 2 + near * (1 - t * t) * rise / 2)

    return record(x.data * ((1 + t) / 2), (x, pull_back))


def silu(x: Tensor) -> Tensor:
    """Return ``x * sigmoid(x)`` of each entry, also called swish.

    The slope is ``s * (1 + x * (1 - s))``, s being ``sigmoid(x)``.

    Examples
    --------
    >>> silu(Tensor([-1e4, 0.0, math.log(3)])).data.round(6).tolist()  # 3/4 of log(3) = 1.098612
    [-0.0, 0.0, 0.823959]
    """
    s = _sigmoid(x.data)
    return record(x.data * s, (x, lambda g: g * (s * (1 + x.data * (1 - s)))))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Take the exponential of negative numbers only: it cannot overflow, and its small values stay exact."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
