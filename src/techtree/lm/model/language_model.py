"""The language model: token ids in, the logits of each next token out.

The modules and their parameters have the names of transformers' `Qwen3ForCausalLM`, so that a state
dict goes from one to the other as it is.

B batch, T tokens, D d_model.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.attention import Attention
from techtree.lm.model.cache import KVCache
from techtree.lm.model.cross_entropy import cross_entropy
from techtree.lm.model.linear import Linear
from techtree.lm.model.rmsnorm import RMSNorm
from techtree.lm.model.rope import Rotation, rotation
from techtree.lm.model.swiglu import SwiGLU


class LanguageModel(nn.Module):
    """A decoder of the `qwen3` shape. Its matrices are zero until `initialize` or a file sets them.

    Parameters
    ----------
    config
        The shape.
    compute_dtype
        The precision of the activations and of the matrix products; None for that of the weights.
        The norms' statistics, the softmaxes and the logits are computed in float32 in any case.
    """

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self.model = Decoder(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.d_model, config.vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the activations, and so of a `KVCache`."""
        return self.compute_dtype or self.model.embed_tokens.weight.dtype

    @property
    def head(self) -> Float[Tensor, "vocab D"]:
        """The output matrix: the embedding table, or one of its own."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    def forward(self, ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T vocab"]:
        """Return the logits of the token after each of ``ids``, in float32.

        With a cache, ``ids`` follow the tokens that it holds, and join them.
        """
        return self.logits(self.hidden(ids, cache))

    def hidden(self, ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T D"]:
        """Return the activations that `logits` takes, so that who needs one token's logits pays for one."""
        return self.model(ids, self.dtype, cache)

    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T vocab"]:
        """Return the logits of `hidden`'s activations, in float32."""
        return F.linear(hidden, self.head.to(hidden.dtype)).float()

    def loss(self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the targets, in nats per token; a target of -100 is left out."""
        return cross_entropy(self.hidden(ids).flatten(0, 1), self.head, targets.flatten())


class Decoder(nn.Module):
    """Everything but the head: embedding, layers, last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.zeros(config.vocab_size, config.d_model)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)

    def forward(
        self, ids: Int[Tensor, "B T"], dtype: torch.dtype, cache: KVCache | None
    ) -> Float[Tensor, "B T D"]:
        """Return the activations after the last norm."""
        n_tokens = ids.shape[1]
        first = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(n_tokens)
        positions = rotation(first, n_tokens, self.config.head_dim, self.config.rope_base, dtype, ids.device)
        x = self.embed_tokens(ids).to(dtype)  # (B, T, D)
        for layer in self.layers:
            x = layer(x, positions, cache)
        if cache is not None:
            cache.length += n_tokens
        return self.norm(x)


class Layer(nn.Module):
    """Attention and SwiGLU, each reading a normalized stream and adding to it."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Rotation, cache: KVCache | None
    ) -> Float[Tensor, "B T D"]:
        """Apply both."""
        x = x + self.self_attn(self.input_layernorm(x), positions, cache)
        return x + self.mlp(self.post_attention_layernorm(x))
