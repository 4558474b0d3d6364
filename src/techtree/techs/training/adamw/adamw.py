"""Divide each coordinate's step by the size that its gradients usually have, and keep decay out of that.

Claim: one learning rate cannot suit an embedding that is hit once in a thousand steps and a gain that is hit
in each. Divided by its own usual size, every coordinate moves about one rate in a step, whatever the scale
of its gradients.

Idea: two running averages for each coordinate, of the gradient and of its square. The step is the first,
divided by the root of the second. Both start at 0 and are corrected for it. Decay acts on the weights
directly; as part of the gradient it would be divided as well.

Legend: as in `sgd`; ``mean`` and ``square`` the averages of the gradient and of its square.

Left out: AMSGrad's maximum; low-precision states.

Paper: Kingma and Ba (2014), https://arxiv.org/abs/1412.6980; Loshchilov and Hutter (2017),
https://arxiv.org/abs/1711.05101
"""

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.sgd import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    Parameters
    ----------
    parameters
        As for `Optimizer`.
    lr
        The learning rate, at least 0: about how far each coordinate moves in a step.
    betas
        The shares of the old averages in the new ones, of the gradient and of its square; each at least 0
        and less than 1.
    eps
        Added to the root of the average square, at least 0: gradients well below it count as 0.
    weight_decay
        The share of the weights, times ``lr``, that each step takes off, at least 0.

    Notes
    -----
    In step n of a parameter, counted from 1 and without the steps in which it had no gradient:

    - ``mean = beta1 * mean + (1 - beta1) * gradient``
    - ``square = beta2 * square + (1 - beta2) * gradient**2``
    - ``weights -= lr * weight_decay * weights``
    - ``weights -= lr * (mean / (1 - beta1**n)) / (sqrt(square / (1 - beta2**n)) + eps)``

    Both averages start at 0. What is remembered: ``"mean"`` and ``"square"``, of the dtype of the weights,
    and ``"n_steps"``, an integer. Weights are float32 or float64: in float16 small squares would vanish.

    Examples
    --------
    >>> w = Parameter([1.0, 1.0, 1.0])
    >>> optimizer = AdamW([w], lr=0.25, weight_decay=0.0)
    >>> w.grad = np.array([1e-3, -1.0, 1e3])
    >>> optimizer.step()  # the first step has the size of the rate, whatever the gradient
    >>> w.data.round(4).tolist()
    [0.75, 1.25, 0.75]
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "lr": (0.0, math.inf),
        "betas": (0.0, 1.0),
        "eps": (0.0, math.inf),
        "weight_decay": (0.0, math.inf),
    }

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def start(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return averages of 0, and a count of 0."""
        return {
            "mean": np.zeros_like(weights),
            "square": np.zeros_like(weights),
            "n_steps": np.zeros((), np.int64),
        }

    def update(self, weights: np.ndarray, gradient: np.ndarray, state: dict, options: Mapping) -> None:
        """Renew both averages, shrink the weights, and move them."""
        mean, square, lr = state["mean"], state["square"], options["lr"]
        beta1, beta2 = options["betas"]
        state["n_steps"] += 1
        n = int(state["n_steps"])
        mean *= beta1
        mean += (1 - beta1) * gradient
        square *= beta2
        square += (1 - beta2) * gradient * gradient
        # The weights of all gradients so far add up to 1 - beta**n.
        size = np.sqrt(square / (1 - beta2**n)) + options["eps"]
        weights *= 1 - lr * options["weight_decay"]
        weights -= lr / (1 - beta1**n) * mean / size


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict]:
    """Make groups in which matrices decay and vectors do not.

    Parameters
    ----------
    parameters
        Any iterable, walked once.
    weight_decay
        For parameters with two axes or more. For those with one or none (biases, gains of norms) it is 0.

    Returns
    -------
    list[dict]
        The groups for an `Optimizer`, those that decay first; each with ``"parameters"``, a list in the order
        given, and ``"weight_decay"``. A group without parameters is left out.

    Examples
    --------
    >>> matrix, bias = Parameter([[1.0, 2.0]]), Parameter([0.0])
    >>> [(len(group["parameters"]), group["weight_decay"]) for group in decay_groups([bias, matrix], 0.1)]
    [(1, 0.1), (1, 0.0)]
    """
    parameters = list(parameters)
    groups = [
        {"parameters": [each for each in parameters if each.ndim >= 2], "weight_decay": weight_decay},
        {"parameters": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["parameters"]]
