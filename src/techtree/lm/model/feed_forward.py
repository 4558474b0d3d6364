"""The feed-forward layer of two matrices.

B batch, T tokens, D d_model.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.linear import Linear


class FeedForward(nn.Module):
    """``down(f(up(x)))``, where f is GELU in its tanh form (GPT-2) or the square of ReLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.d_model, config.d_ff, config.mlp_bias)
        self.down_proj = Linear(config.d_ff, config.d_model, config.mlp_bias)
        self.activation = {"gelu": gelu, "relu2": squared_relu}[config.mlp]

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply to every token alone."""
        return self.down_proj(self.activation(self.up_proj(x)))


def gelu(x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Return x times about the chance that a normal variable lies below it (Hendrycks and Gimpel 2016)."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


def squared_relu(x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Return ``max(x, 0)^2`` (So et al. 2021)."""
    return x.relu().square()
