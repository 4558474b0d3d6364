"""What a `config.json` says in more than one key, or in a key that depends on others."""

from collections.abc import Mapping
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.family import MAX_EXPERTS, Aspect, count, flag
from techtree.lm.formats.huggingface.rope import read_rope, write_rope

ROPE = Aspect(read_rope, write_rope)


def _read_heads(values: Mapping[str, Any]) -> dict[str, Any]:
    n_heads = count(values, "num_attention_heads")
    head_dim, n_kv_heads = values.get("head_dim"), values.get("num_key_value_heads")
    return {
        "head_dim": count(values, "hidden_size") // n_heads if head_dim is None else head_dim,
        "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads,
    }


HEADS = Aspect(
    _read_heads, lambda config: {"head_dim": config.head_dim, "num_key_value_heads": config.n_kv_heads}
)
BIAS_SWITCH = Aspect(
    lambda values: {"attention_bias": "all" if flag(values, "attention_bias") else "none"},
    lambda config: {"attention_bias": config.attention_bias == "all"},
)
MLP_BIAS_SWITCH = Aspect(
    lambda values: {"mlp_bias": flag(values, "mlp_bias")}, lambda config: {"mlp_bias": config.mlp_bias}
)


# Which layers see how far --------------------------------------------------------------------------------


def _window(kinds: set[str], window: Any) -> dict[str, Any]:
    """Return the window that all layers have, given the set of the layers' kinds."""
    if kinds == {"full_attention"}:
        return {"sliding_window": None}
    if kinds == {"sliding_attention"} and window is not None:
        return {"sliding_window": window}
    raise InputError(
        f"all layers must have the same attention; got layer_types {sorted(map(str, kinds))} with a "
        f"sliding_window of {window!r}: use another model"
    )


def _layer_types(values: Mapping[str, Any]) -> set[str] | None:
    given = values.get("layer_types")
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(kind, str) for kind in given):
        raise InputError(f"layer_types must be a list of names; got {given!r}")
    return set(given)


def _read_uniform_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    return _window(_layer_types(values) or {"full_attention"}, None)


def _read_mistral_window(values: Mapping[str, Any]) -> dict[str, Any]:
    window = values.get("sliding_window", 4096)
    kind = "full_attention" if window is None else "sliding_attention"
    kinds = _layer_types(values) or {kind}
    if kinds != {kind}:  # transformers goes by the window, other programs by the types
        raise InputError(f"layer_types must all be {kind!r}; got {sorted(kinds)}: use another model")
    return {"sliding_window": window}


def _read_qwen_window(values: Mapping[str, Any]) -> dict[str, Any]:
    """Layers from `max_window_layers` on have the window, where the types of layers are not listed."""
    window = values.get("sliding_window", 4096) if flag(values, "use_sliding_window") else None
    kinds = _layer_types(values)
    if kinds is None:
        n_full = count(values, "max_window_layers", default=28, at_least=0)
        n_layers = count(values, "num_hidden_layers")
        n_full = n_layers if window is None else min(n_full, n_layers)
        kinds = {"full_attention"} if n_full else set()
        kinds |= {"sliding_attention"} if n_full < n_layers else set()
    return _window(kinds, window)


def _write_qwen_window(config: ModelConfig) -> dict[str, Any]:
    if config.sliding_window is None:
        return {"use_sliding_window": False}
    return {
        "use_sliding_window": True,
        "sliding_window": config.sliding_window,
        "max_window_layers": 0,
        "layer_types": ["sliding_attention"] * config.n_layers,
    }


def _read_qwen3_moe_window(values: Mapping[str, Any]) -> dict[str, Any]:
    """Newer versions of transformers give all layers the window, older ones those from a number on."""
    if not flag(values, "use_sliding_window"):
        return _read_uniform_layers(values)
    if values.get("max_window_layers", 0) != 0:
        raise InputError(
            f"max_window_layers must be 0 or absent; got {values['max_window_layers']!r}: use another model"
        )
    kinds = _layer_types(values) or {"sliding_attention"}
    return _window(kinds, values.get("sliding_window", 4096))


UNIFORM_LAYERS = Aspect(_read_uniform_layers, lambda config: {})
MISTRAL_WINDOW = Aspect(_read_mistral_window, lambda config: {"sliding_window": config.sliding_window})
QWEN_WINDOW = Aspect(_read_qwen_window, _write_qwen_window)
QWEN3_MOE_WINDOW = Aspect(_read_qwen3_moe_window, _write_qwen_window)


# Experts -------------------------------------------------------------------------------------------------


def _read_experts(values: Mapping[str, Any], balance_coef: float, n_experts: int) -> dict[str, Any]:
    """Return what both families of experts say in the same words; the last two are their defaults."""
    # Version 5 of transformers knows the first key of both by the second as well.
    n_experts = count(values, "num_experts", values.get("num_local_experts", n_experts))
    if n_experts > MAX_EXPERTS:
        raise InputError(f"a layer must have at most {MAX_EXPERTS} experts; got {n_experts}")
    return {
        "n_experts": n_experts,
        "n_active": count(values, "num_experts_per_tok", 8),
        "normalize_weights": flag(values, "norm_topk_prob"),
        "balance_coef": values.get("router_aux_loss_coef", balance_coef),
    }


def _write_experts(config: ModelConfig) -> dict[str, Any]:
    assert config.experts is not None
    return {
        "num_experts": config.experts.n_experts,
        "num_experts_per_tok": config.experts.n_active,
        "norm_topk_prob": config.experts.normalize_weights,
        "router_aux_loss_coef": float(config.experts.balance_coef),
    }


def _read_qwen3_moe_experts(values: Mapping[str, Any]) -> dict[str, Any]:
    step = count(values, "decoder_sparse_step", 1)
    dense = values.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise InputError(f"mlp_only_layers must be a list of layers; got {dense!r}")
    n_layers = count(values, "num_hidden_layers")
    dense_layers = tuple(i for i in range(n_layers) if i in dense or (i + 1) % step)
    experts = _read_experts(values, balance_coef=0.001, n_experts=128)
    experts |= {"d_expert": count(values, "moe_intermediate_size", 768), "dense_layers": dense_layers}
    return {"experts": experts}


def _write_qwen3_moe_experts(config: ModelConfig) -> dict[str, Any]:
    assert config.experts is not None
    return _write_experts(config) | {
        "moe_intermediate_size": config.experts.d_expert,
        "mlp_only_layers": sorted(config.experts.dense_layers),
        "decoder_sparse_step": 1,
    }


def _read_olmoe_experts(values: Mapping[str, Any]) -> dict[str, Any]:
    d_expert = count(values, "intermediate_size")
    experts = _read_experts(values, balance_coef=0.01, n_experts=64) | {"d_expert": d_expert}
    return {"experts": experts, "d_ff": d_expert}


def _write_olmoe_experts(config: ModelConfig) -> dict[str, Any]:
    assert config.experts is not None
    return _write_experts(config) | {"intermediate_size": config.experts.d_expert}


QWEN3_MOE_EXPERTS = Aspect(_read_qwen3_moe_experts, _write_qwen3_moe_experts)
OLMOE_EXPERTS = Aspect(_read_olmoe_experts, _write_olmoe_experts)
OLMOE_CLIP = Aspect(
    lambda values: {"clip_qkv": values.get("clip_qkv")}, lambda config: {"clip_qkv": config.clip_qkv}
)


# GPT-2 ---------------------------------------------------------------------------------------------------


def _read_gpt2_shape(values: Mapping[str, Any]) -> dict[str, Any]:
    d_model, n_heads, d_ff = count(values, "n_embd"), count(values, "n_head"), values.get("n_inner")
    if d_model % n_heads:
        raise InputError(f"n_head must divide n_embd; got {n_heads} and {d_model}: use another model")
    return {
        "n_kv_heads": n_heads,
        "head_dim": d_model // n_heads,
        "d_ff": 4 * d_model if d_ff is None else d_ff,
    }


GPT2_SHAPE = Aspect(_read_gpt2_shape, lambda config: {"n_inner": config.d_ff})
