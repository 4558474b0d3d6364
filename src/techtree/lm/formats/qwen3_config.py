"""Between our names for a model's shape and those of a Qwen3 `config.json`."""

from collections.abc import Mapping
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "d_ff",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}

_DEFAULTS = {
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
"""What transformers assumes where a file says nothing."""

_REQUIRED_VALUES = {
    "attention_bias": (False, None),
    "hidden_act": ("silu", None),
    "quantization_config": (None,),
    "use_sliding_window": (False, None),
}
"""Options of the format that this model does not have; None is for a file without the key."""


def to_qwen3(config: ModelConfig, end_of_text_id: int, dtype: str) -> dict[str, Any]:
    """Return the contents of `config.json`.

    Version 5 of transformers has moved two keys; both versions get theirs.

    Parameters
    ----------
    config
        The model's shape.
    end_of_text_id
        The token before and after every document.
    dtype
        How the weights are stored: "float32" or "bfloat16".
    """
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **{theirs: getattr(config, ours) for theirs, ours in _NAMES.items()},
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "dtype": dtype,
        "torch_dtype": dtype,
        "bos_token_id": end_of_text_id,
        "eos_token_id": end_of_text_id,
        # No pad_token_id: transformers gives that token's embedding no gradient, and this one needs it.
    }


def from_qwen3(values: Mapping[str, Any]) -> ModelConfig:
    """Return the shape that the contents of a `config.json` describe.

    Raises
    ------
    InputError
        When the model is not a Qwen3, or uses an option that this program does not have.
    """
    if values.get("model_type") != "qwen3":
        raise InputError(
            f"the model must have model_type 'qwen3'; got {values.get('model_type')!r}: "
            "use a dense Qwen3 model, or one that techtree made"
        )
    for key, allowed in _REQUIRED_VALUES.items():
        if values.get(key) not in allowed:
            raise InputError(
                f"{key} must be {allowed[0]!r} or absent; got {values[key]!r}: use another model"
            )
    if set(values.get("layer_types") or ["full_attention"]) != {"full_attention"}:
        raise InputError(f"all layer_types must be 'full_attention'; got {values['layer_types']}")
    values = _DEFAULTS | dict(values)
    for key in _NAMES:
        if key not in values:
            raise InputError(f"a Qwen3 config.json must have {key!r}, which is missing")
    shape = {ours: values[theirs] for theirs, ours in _NAMES.items()}
    return ModelConfig.from_dict(shape | {"rope_base": _rope_base(values)})


def _rope_base(values: Mapping[str, Any]) -> float:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    if not isinstance(rope, dict) or kind != "default":
        raise InputError(f"the rope_type must be 'default'; got {kind!r}: use a model without scaled RoPE")
    return rope.get("rope_theta", values.get("rope_theta", 10_000.0))
