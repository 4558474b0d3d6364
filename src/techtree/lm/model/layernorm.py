"""Layer normalization, which GPT-2 has where later families have RMSNorm.

N rows, D their width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.rmsnorm import RMSNorm


class LayerNorm(nn.Module):
    """``(x - mean) / sqrt(variance + eps) * gain + bias`` over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalize each row; the statistics are in float32 at least."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=-1, keepdim=True, correction=0)
        y = ((wide - mean) * (variance + self.eps).rsqrt()).to(x.dtype)
        return y * self.weight.to(x.dtype) + self.bias.to(x.dtype)


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """Return a norm of the residual stream, of the config's kind."""
    kind = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}[config.norm]
    return kind(config.d_model, config.norm_eps)
