"""One small model of each family, for the tests of every format.

`FAMILIES` maps the `model_type` of transformers to a shape. The vocabulary is larger than that of the
tests' tokenizer, as padding makes it.
"""

import torch

from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling
from techtree.lm.model.language_model import LanguageModel

_SHAPE = {
    "vocab_size": 525,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 6,
    "n_kv_heads": 2,
    "head_dim": 8,
    "d_ff": 56,
}
_LLAMA3 = RopeScaling("llama3", factor=8.0, original_max_seq_len=16)

FAMILIES: dict[str, ModelConfig] = {
    "gpt2": ModelConfig(
        **_SHAPE | {"n_kv_heads": 6},
        max_seq_len=64,
        norm_eps=1e-5,
        norm="layernorm",
        positions="learned",
        qk_norm="none",
        attention_bias="all",
        mlp="gelu",
        mlp_bias=True,
    ),
    "llama": ModelConfig(
        **_SHAPE, max_seq_len=128, qk_norm="none", rope_base=5e5, norm_eps=1e-5, rope_scaling=_LLAMA3
    ),
    "qwen2": ModelConfig(**_SHAPE, max_seq_len=64, qk_norm="none", attention_bias="qkv", rope_base=1e6),
    "qwen3": ModelConfig(**_SHAPE | {"head_dim": 10}, max_seq_len=64, rope_base=1e6),
    "mistral": ModelConfig(
        **_SHAPE, max_seq_len=64, qk_norm="none", norm_eps=1e-5, tie_embeddings=False, sliding_window=7
    ),
    "qwen3_moe": ModelConfig(
        **_SHAPE | {"n_layers": 3},
        max_seq_len=64,
        rope_base=1e6,
        tie_embeddings=False,
        experts=ExpertsConfig(n_experts=5, n_active=2, d_expert=24, dense_layers=(1,)),
    ),
    "olmoe": ModelConfig(
        **_SHAPE | {"d_ff": 24},
        max_seq_len=64,
        norm_eps=1e-5,
        tie_embeddings=False,
        qk_norm="full",
        clip_qkv=1.5,
        experts=ExpertsConfig(
            n_experts=5, n_active=2, d_expert=24, normalize_weights=False, balance_coef=0.01
        ),
    ),
}


def random_model(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Every weight random, none zero or one: a tensor in the wrong place shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    model = LanguageModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 2, generator=generator)
            else:
                std = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
                parameter.normal_(std=std, generator=generator)
    return model.eval()
