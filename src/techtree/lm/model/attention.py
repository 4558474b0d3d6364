"""Grouped-query attention with QK-norm and rotary positions, where the family has them.

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
        self.config = config
        self.layer = layer
        d_queries, d_keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        qkv_bias, o_bias = config.attention_bias != "none", config.attention_bias == "all"
        self.q_proj = Linear(config.d_model, d_queries, qkv_bias)
        self.k_proj = Linear(config.d_model, d_keys, qkv_bias)
        self.v_proj = Linear(config.d_model, d_keys, qkv_bias)
        self.o_proj = Linear(d_queries, config.d_model, o_bias)
        if config.qk_norm != "none":
            is_full = config.qk_norm == "full"
            self.q_norm = RMSNorm(d_queries if is_full else config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(d_keys if is_full else config.head_dim, config.norm_eps)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Rotation | None, cache: KVCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Let every token gather from the tokens before it, those in the cache included."""
        n_batch, n_tokens, _ = x.shape
        queries, keys, values = self._heads(x)
        if positions is not None:
            queries, keys = rotate(queries, positions), rotate(keys, positions)
        queries, keys, values = (y.transpose(1, 2) for y in (queries, keys, values))  # (B, H or G, T, d)
        if cache is not None:
            keys, values = cache.write(self.layer, keys, values)
        gathered = causal_attention(queries, keys, values, self.config.sliding_window)
        return self.o_proj(gathered.transpose(1, 2).reshape(n_batch, n_tokens, -1))

    def _heads(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H d"], Float[Tensor, "B T G d"], Float[Tensor, "B T G d"]]:
        """Return queries, keys and values, all but rotated."""
        heads = (*x.shape[:2], -1, self.config.head_dim)
        queries, keys, values = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.config.qk_norm == "full":
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        if (limit := self.config.clip_qkv) is not None:
            queries, keys, values = (y.clamp(-limit, limit) for y in (queries, keys, values))
        queries, keys, values = (y.view(heads) for y in (queries, keys, values))
        if self.config.qk_norm == "head":
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        return queries, keys, values
