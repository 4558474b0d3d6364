"""AdamW: steps of equal size in every coordinate, with decoupled weight decay.

Kingma and Ba, "Adam", 2014; Loshchilov and Hutter, "Decoupled weight decay regularization", 2017.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class AdamW:
    """The optimizer of embedding, head and the norms' gains.

    Parameters
    ----------
    parameters
        Tensors by name; each may be some rows of a larger one.
    lr
        About how far a coordinate moves in a step.
    betas
        The shares of the old average in the new one, for the gradient and for its square.
    eps
        Added to the root of the square's average: gradients well below it count as zero.
    weight_decay
        The share of a weight, times ``lr``, that each step takes off.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.8, 0.95),
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = parameters
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.state = {
            moment: {name: torch.zeros_like(p) for name, p in parameters.items()}
            for moment in ("mean", "square")
        }
        """What a checkpoint has to keep: moment -> parameter's name -> tensor."""

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor], step: int, scale: float) -> None:
        """Apply the gradients. ``step`` counts from 1; ``scale`` multiplies the learning rate."""
        lr = self.lr * scale
        beta_mean, beta_square = self.betas
        # Both averages start at zero; dividing by the sum of their weights so far makes up for it.
        weight_mean, weight_square = 1 - beta_mean**step, 1 - beta_square**step
        for name, parameter in self.parameters.items():
            gradient = gradients[name]
            mean, square = self.state["mean"][name], self.state["square"][name]
            mean.lerp_(gradient, 1 - beta_mean)
            square.mul_(beta_square).addcmul_(gradient, gradient, value=1 - beta_square)
            root = (square / weight_square).sqrt_().add_(self.eps)
            parameter.mul_(1 - lr * self.weight_decay)
            parameter.addcdiv_(mean, root, value=-lr / weight_mean)
