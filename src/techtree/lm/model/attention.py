"""Grouped-query attention with QK-norm and rotary positions.

B batch, T tokens, D d_model, H query heads, G key and value heads, d head_dim.
"""

from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.cache import KVCache
from techtree.lm.model.causal_attention import causal_attention
from techtree.lm.model.linear import Linear
from techtree.lm.model.rmsnorm import RMSNorm
from techtree.lm.model.rope import Rotation, rotate


class Attention(nn.Module):
    """One layer's attention; ``layer`` is its place in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.q_proj = Linear(config.d_model, config.n_heads * config.head_dim)
        self.k_proj = Linear(config.d_model, config.n_kv_heads * config.head_dim)
        self.v_proj = Linear(config.d_model, config.n_kv_heads * config.head_dim)
        self.o_proj = Linear(config.n_heads * config.head_dim, config.d_model)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Rotation, cache: KVCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Let every token gather from the tokens before it, those in the cache included."""
        n_batch, n_tokens, _ = x.shape
        heads = (n_batch, n_tokens, -1, self.head_dim)
        queries = rotate(self.q_norm(self.q_proj(x).view(heads)), positions).transpose(1, 2)  # (B, H, T, d)
        keys = rotate(self.k_norm(self.k_proj(x).view(heads)), positions).transpose(1, 2)  # (B, G, T, d)
        values = self.v_proj(x).view(heads).transpose(1, 2)  # (B, G, T, d)
        if cache is not None:
            keys, values = cache.write(self.layer, keys, values)
        gathered = causal_attention(queries, keys, values)
        return self.o_proj(gathered.transpose(1, 2).reshape(n_batch, n_tokens, -1))
