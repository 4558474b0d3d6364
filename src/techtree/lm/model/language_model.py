"""The language model: token ids in, the logits of each next token out.

The modules and their parameters have the names of transformers' `Qwen3ForCausalLM`, so that most
families' state dicts go from one to the other as they are; `lm/formats` translates the others.

B batch, T tokens, D d_model.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.model.attention import Attention
from techtree.lm.model.cache import KVCache
from techtree.lm.model.cross_entropy import cross_entropy
from techtree.lm.model.experts import MixtureOfExperts
from techtree.lm.model.feed_forward import FeedForward
from techtree.lm.model.layernorm import make_norm
from techtree.lm.model.linear import Linear
from techtree.lm.model.ngrams import NGramEmbedding
from techtree.lm.model.rope import Rotation, rotation
from techtree.lm.model.swiglu import SwiGLU


class LanguageModel(nn.Module):
    """A decoder. Its matrices are zero until `initialize` or a file sets them.

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
        """Return the mean cross-entropy of the targets, in nats per token; a target of `IGNORED` is left out.

        In training, the routers' auxiliary losses, averaged over the layers that have one, add to the
        gradient. The value stays the cross-entropy, which can be compared with that of other models.
        """
        loss = cross_entropy(self.hidden(ids).flatten(0, 1), self.head, targets.flatten())
        extra = [layer.take_auxiliary_loss() for layer in self._mixtures]
        extra = [one for one in extra if one is not None]
        if extra:
            mean = torch.stack(extra).mean()
            loss = loss + (mean - mean.detach())
        return loss

    def update_selection_bias(self, reduce: Callable[[Tensor], None] = lambda counts: None) -> None:
        """Balance the experts of a model whose routers have a bias, after a step of the optimizer.

        Parameters
        ----------
        reduce
            Adds up a tensor over all ranks, in place.
        """
        for layer in self._mixtures:
            if layer.config.has_bias:
                layer.gate.update_bias(reduce)

    @property
    def _mixtures(self) -> list[MixtureOfExperts]:
        return [module for module in self.modules() if isinstance(module, MixtureOfExperts)]


class Decoder(nn.Module):
    """Everything but the head: embedding, layers, last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.zeros(config.vocab_size, config.d_model)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        if config.positions == "learned":
            table = torch.zeros(config.max_seq_len, config.d_model)
            self.embed_positions = nn.Embedding.from_pretrained(table, freeze=False)
        if config.speedrun is not None:
            self.embed_ngrams = NGramEmbedding(config.vocab_size, config.d_model, config.speedrun)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.n_layers))
        self.norm = make_norm(config)

    def forward(
        self, ids: Int[Tensor, "B T"], dtype: torch.dtype, cache: KVCache | None
    ) -> Float[Tensor, "B T D"]:
        """Return the activations after the last norm."""
        n_tokens = ids.shape[1]
        first = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(n_tokens)
        x = self.embed_tokens(ids)  # (B, T, D)
        if self.config.speedrun is not None:
            x = x + self.embed_ngrams(ids if cache is None else cache.write_ids(ids), n_tokens)
        x = x.to(dtype)
        positions = None
        if self.config.positions == "rope":
            positions = self._rotation(first, n_tokens, dtype, ids.device)
        else:
            x = x + self._learned_positions(first, n_tokens).to(dtype)
        for layer in self.layers:
            x = layer(x, positions, cache)
        if cache is not None:
            cache.length += n_tokens
        return self.norm(x)

    def _rotation(self, first: int, n_tokens: int, dtype: torch.dtype, device: torch.device) -> Rotation:
        config = self.config
        return rotation(
            first, n_tokens, config.head_dim, config.rope_base, dtype, device, config.rope_scaling
        )

    def _learned_positions(self, first: int, n_tokens: int) -> Float[Tensor, "T D"]:
        if first + n_tokens > self.config.max_seq_len:
            raise InputError(
                f"a model with learned positions sees at most max_seq_len={self.config.max_seq_len} tokens; "
                f"got {first + n_tokens}: shorten the text"
            )
        return self.embed_positions.weight[first : first + n_tokens]


class Layer(nn.Module):
    """Attention and a feed-forward part, each reading a normalized stream and adding to it."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = make_norm(config)
        if config.experts is not None and config.has_experts(index):
            self.mlp = MixtureOfExperts(config.d_model, config.experts)
        else:
            self.mlp = SwiGLU(config) if config.mlp == "swiglu" else FeedForward(config)

    def forward(
        self, x: Float[Tensor, "B T D"], positions: Rotation | None, cache: KVCache | None
    ) -> Float[Tensor, "B T D"]:
        """Apply both."""
        x = x + self.self_attn(self.input_layernorm(x), positions, cache)
        return x + self.mlp(self.post_attention_layernorm(x))
