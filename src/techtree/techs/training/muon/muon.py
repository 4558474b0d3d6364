"""Give every direction of a matrix's update the same length, by a polynomial in place of a decomposition.

Claim: the gradient of a weight matrix is nearly of low rank: a few directions are large, and the rare ones,
which a step could use as well, are lost beside them. Orthogonalized, all of them move alike.

Idea: an odd polynomial of a matrix, ``a X + b X X^T X + c X X^T X X^T X``, is the polynomial of its singular
values, and leaves the singular vectors. One that pulls every number between 0 and 1 towards 1, applied
a few times, does what a singular value decomposition would be needed for, with products of matrices alone.

Legend: ``X`` the matrix, (rows, columns); ``s`` a singular value; ``a, b, c`` the coefficients.

Left out: coefficients that change from one iteration to the next; sharing the work among machines.

Paper: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.training.sgd import Optimizer


def orthogonalize(
    matrix: np.ndarray,
    n_iterations: int = 5,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
) -> np.ndarray:
    """Bring the singular values of a matrix near 1, and keep its singular vectors.

    Parameters
    ----------
    matrix
        (..., rows, columns), of floating-point numbers that are finite, of any size; not changed. Each
        matrix of a stack is treated by itself.
    n_iterations
        How often the polynomial is applied, at least 0.
    coefficients
        ``a, b, c`` of the polynomial ``f(s) = a s + b s**3 + c s**5``.

    Returns
    -------
    np.ndarray
        A new array of the same shape and dtype: ``U diag(f(...f(s / norm))) V^T``, where ``U diag(s) V^T`` is
        the singular value decomposition of the matrix and ``norm`` its Frobenius norm, the root of the sum
        of the squares of its entries. A matrix of zeros stays 0. float16 is computed in float32.

    Raises
    ------
    ValueError
        When the matrix has fewer than two axes, or ``n_iterations`` is negative.
    TypeError
        When the entries are not of a floating dtype.

    Examples
    --------
    >>> orthogonalize(np.array([[3.0, 0.0], [0.0, 4.0]]), n_iterations=0).tolist()
    [[0.6, 0.0], [0.0, 0.8]]
    >>> orthogonalize(np.array([[3.0, 0.0], [0.0, 4.0]]), 10, (1.5, -0.5, 0.0)).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    matrix = np.asarray(matrix)
    if matrix.dtype.kind != "f":
        raise TypeError(f"a matrix to be orthogonalized must be of a floating dtype; got {matrix.dtype}")
    if matrix.ndim < 2:
        raise ValueError(f"a matrix has two axes or more; got the shape {matrix.shape}")
    if n_iterations < 0:
        raise ValueError(f"n_iterations must be at least 0; got {n_iterations}")
    x = matrix.astype(np.float32 if matrix.dtype == np.float16 else matrix.dtype)
    # Divided by the largest entry first, so that no square overflows or vanishes.
    for size in (_largest, _frobenius):
        norm = size(x)
        x = x / np.where(norm > 0, norm, 1)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.swapaxes(-1, -2) if is_tall else x  # The square of a wide matrix is the smaller one.
    a, b, c = coefficients
    for _ in range(n_iterations):
        square = x @ x.swapaxes(-1, -2)
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x.swapaxes(-1, -2) if is_tall else x).astype(matrix.dtype)


def _largest(x: np.ndarray) -> np.ndarray:
    return np.abs(x).max(axis=(-1, -2), keepdims=True, initial=0)


def _frobenius(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x * x).sum(axis=(-1, -2), keepdims=True))


class Muon(Optimizer):
    """Momentum, orthogonalized: an optimizer for the matrices inside a network.

    Parameters
    ----------
    parameters
        As for `Optimizer`. Each has two axes or more; of more, the last two are the matrix.
    lr
        The learning rate, at least 0: about the length by which each direction of a square matrix moves.
    momentum
        The share of the old average in the new one, at least 0 and less than 1.
    weight_decay
        The share of the weights, times ``lr``, that each step takes off, at least 0.
    n_iterations
        As for `orthogonalize`.

    Raises
    ------
    ValueError
        As for `Optimizer`, and when a parameter has fewer than two axes.

    Notes
    -----
    - ``average = momentum * average + (1 - momentum) * gradient``, from 0 on; remembered as ``"momentum"``
    - ``ahead = momentum * average + (1 - momentum) * gradient``: Nesterov's look ahead, with the new average
    - ``weights -= lr * weight_decay * weights``
    - ``weights -= lr * sqrt(max(1, rows / columns)) * orthogonalize(ahead, n_iterations)``

    Weights and average keep the dtype of the weights.

    Examples
    --------
    >>> w = Parameter([[1.0, 0.0], [0.0, 1.0]])
    >>> optimizer = Muon([w], lr=0.1)
    >>> w.grad = np.array([[100.0, 0.0], [0.0, 1.0]])
    >>> optimizer.step()
    >>> w.data.round(1).tolist()  # one direction of the gradient is 100 times as large; both move alike
    [[0.9, 0.0], [0.0, 0.9]]
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "lr": (0.0, math.inf),
        "momentum": (0.0, 1.0),
        "weight_decay": (0.0, math.inf),
        "n_iterations": (0, math.inf),
    }

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        n_iterations: int = 5,
    ):
        super().__init__(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, n_iterations=n_iterations
        )

    def start(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return an average of 0."""
        if weights.ndim < 2:
            raise ValueError(
                f"Muon takes two axes or more; got a parameter of shape {weights.shape}: leave it to AdamW"
            )
        return {"momentum": np.zeros_like(weights)}

    def update(self, weights: np.ndarray, gradient: np.ndarray, state: dict, options: Mapping) -> None:
        """Renew the average, look ahead, orthogonalize, and move."""
        average, momentum, lr = state["momentum"], options["momentum"], options["lr"]
        average += (1 - momentum) * (gradient - average)
        ahead = momentum * average + (1 - momentum) * gradient
        rows, columns = weights.shape[-2:]
        scale = math.sqrt(max(1.0, rows / max(columns, 1)))
        weights *= 1 - lr * options["weight_decay"]
        weights -= (lr * scale) * orthogonalize(ahead, int(options["n_iterations"]))


def split_parameters(
    model: Module, others: Collection[str] = ("embedding", "token_embedding", "position_embedding", "head")
) -> tuple[list[Parameter], list[Parameter]]:
    """Tell the matrices that Muon is for from what is left to AdamW.

    Parameters
    ----------
    model
        Its parameters and their names are taken from ``named_parameters``.
    others
        Names of parts whose matrices are left to AdamW: those that look tokens up and that predict them. A
        part counts wherever it stands among the words between the dots of a parameter's name, and only as a
        whole word: ``"head"`` is in ``"head.weight"`` and ``"lm.head.0"``, not in ``"heads.weight"``.

    Returns
    -------
    tuple[list[Parameter], list[Parameter]]
        The matrices (two axes or more) that are in none of the ``others``; and the rest. Each in the order of
        ``named_parameters``, and each parameter in exactly one of the lists.
    """
    matrices: list[Parameter] = []
    rest: list[Parameter] = []
    for name, parameter in model.named_parameters():
        is_hidden = parameter.ndim >= 2 and not set(others).intersection(name.split("."))
        (matrices if is_hidden else rest).append(parameter)
    return matrices, rest
