"""The gated feed-forward layer.

B batch, T tokens, D d_model.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.linear import Linear


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, config.d_ff, config.mlp_bias)
        self.up_proj = Linear(config.d_model, config.d_ff, config.mlp_bias)
        self.down_proj = Linear(config.d_ff, config.d_model, config.mlp_bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Apply to every token alone."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
