"""The layer that holds most of a network's weights, and the size that these must have at the start.

Claim: a sum of ``n_in`` products grows with the root of ``n_in``. Weights of variance ``1 / n_in`` undo that,
so that numbers keep their size through a hundred layers, forwards and backwards; half or twice that
variance makes them vanish or explode.

Legend: ``x`` (..., n_in) the inputs; ``W`` (n_out, n_in) the weight, a row for each unit; ``b`` (n_out,) the
bias; ``gain`` a factor on the weight, which makes up for what the curve after the layer takes away.

Left out: sharing a weight between layers (`embedding`), and the residual paths that make deep networks
forgive a wrong size.

Paper: He, Zhang, Ren, Sun (2015), https://arxiv.org/abs/1502.01852
"""

import math
from collections.abc import Callable

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad


class Linear(Module):
    """An affine map of the last axis: ``y = x @ W.T + b``.

    Parameters
    ----------
    n_in, n_out
        How many numbers come in and go out, at least 1 each; ``ValueError`` otherwise.
    rng
        Draws the weight, as `fan_in_normal` does; the only source of randomness.
    has_bias
        Whether there is a bias. It starts at 0.
    gain
        As for `fan_in_normal`; 0 makes a layer that starts as the constant 0.
    dtype
        Of weight and bias.

    Attributes
    ----------
    weight
        `Parameter` of shape (n_out, n_in), the layer's first.
    bias
        `Parameter` of shape (n_out,), or None.

    Examples
    --------
    >>> layer = Linear(2, 1, np.random.default_rng(0))
    >>> layer.load_state_dict({"weight": np.array([[3.0, 4.0]]), "bias": np.array([5.0])})
    >>> layer(Tensor([[1.0, 10.0], [2.0, 0.0]])).data.tolist()
    [[48.0], [11.0]]
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        rng: np.random.Generator,
        has_bias: bool = True,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        self.weight = Parameter(fan_in_normal(n_in, n_out, rng, gain).astype(dtype))
        self.bias = Parameter(np.zeros(n_out, dtype)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., n_out) for an ``x`` of (..., n_in) with any leading axes or none.

        Weight and bias are read anew at each call: they may have been changed in place, or exchanged for
        parameters of the same shape. Gradients flow to them and to x. ``ValueError`` if the last axis of x
        is not ``n_in`` long, or x has no axis.
        """
        n_in = self.weight.shape[1]
        if x.ndim == 0 or x.shape[-1] != n_in:
            raise ValueError(f"x must have a last axis of {n_in}; got the shape {x.shape}")
        y = x @ self.weight.swapaxes(0, 1)
        return y if self.bias is None else y + self.bias


def fan_in_normal(n_in: int, n_out: int, rng: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """Draw a weight that keeps the mean square of what comes in.

    Parameters
    ----------
    n_in, n_out
        At least 1 each; ``ValueError`` otherwise.
    rng
        The only source of randomness: the next draw from it gives another weight.
    gain
        The factor on the standard deviation, at least 0.

    Returns
    -------
    np.ndarray
        (n_out, n_in), float64: independent normal numbers of mean 0 and standard deviation
        ``gain / sqrt(n_in)``.
    """
    _check_widths(n_in, n_out)
    return rng.normal(size=(n_out, n_in)) * (gain / math.sqrt(n_in))


def fan_average_uniform(n_in: int, n_out: int, rng: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """Draw a weight between what keeps the size of the inputs and what keeps that of their gradients.

    Parameters and shape as for `fan_in_normal`. The numbers are independent and uniform between
    ``-gain * sqrt(6 / (n_in + n_out))`` and the same above 0: a variance of ``gain**2 * 2 / (n_in + n_out)``.
    """
    _check_widths(n_in, n_out)
    return gain * math.sqrt(6 / (n_in + n_out)) * rng.uniform(-1, 1, size=(n_out, n_in))


def orthogonal(n_in: int, n_out: int, rng: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """Draw a weight that keeps lengths exactly: all its singular values are ``gain``.

    Parameters and shape as for `fan_in_normal`. The shorter of rows and columns are orthogonal to each other
    and of length ``gain``. All directions are equally likely: rotating the result in space, or turning its
    sign, changes nothing about its distribution.
    """
    _check_widths(n_in, n_out)
    q, r = np.linalg.qr(rng.normal(size=(max(n_in, n_out), min(n_in, n_out))))
    q *= np.where(np.diagonal(r) < 0, -1, 1)  # QR prefers some signs; the normal numbers did not
    return gain * (q if n_out >= n_in else q.T)


def gain_of(f: Callable[[Tensor], Tensor]) -> float:
    """Return the gain that makes up for a curve: ``1 / sqrt(E[f(z)**2])``, z normal of mean 0, variance 1.

    Parameters
    ----------
    f
        A function of each entry, from a tensor to a tensor, not 0 everywhere.

    Returns
    -------
    float
        To three digits at least.

    Examples
    --------
    >>> round(gain_of(lambda x: x), 3), round(gain_of(Tensor.tanh), 3)
    (1.0, 1.593)
    """
    z = np.linspace(-10, 10, 20001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    with no_grad():
        mean_square = (f(Tensor(z)).data ** 2 * density).sum() * (z[1] - z[0])
    return 1 / math.sqrt(mean_square)


def _check_widths(n_in: int, n_out: int) -> None:
    if n_in < 1 or n_out < 1:
        raise ValueError(f"n_in and n_out must be at least 1; got n_in={n_in}, n_out={n_out}")
