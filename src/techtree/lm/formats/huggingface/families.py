"""The families, from the plainest on: `family_of` takes the first that can carry a config."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from techtree.errors import InputError, did_you_mean
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.aspects import (
    BIAS_SWITCH,
    GPT2_SHAPE,
    HEADS,
    MISTRAL_WINDOW,
    MLP_BIAS_SWITCH,
    OLMOE_CLIP,
    OLMOE_EXPERTS,
    QWEN3_MOE_EXPERTS,
    QWEN3_MOE_WINDOW,
    QWEN_WINDOW,
    ROPE,
    UNIFORM_LAYERS,
)
from techtree.lm.formats.huggingface.family import Aspect, Family, check_n_layers
from techtree.lm.formats.huggingface.layouts import gpt2_layout, llama_layout, own_layout
from techtree.lm.formats.misfits import heads_as_wide_as_the_model

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}
_D_FF = {"intermediate_size": "d_ff"}
_GPT2_NAMES = {
    "vocab_size": "vocab_size",
    "n_embd": "d_model",
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "n_positions": "max_seq_len",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}

_DEFAULTS = {"max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
_REQUIRED = {"hidden_act": ("silu", "swish"), "quantization_config": (None,)}

_ALLOWS = {
    "norm": ("rmsnorm",),
    "positions": ("rope",),
    "qk_norm": ("none",),
    "attention_bias": ("none",),
    "mlp": ("swiglu",),
    "mlp_bias": (False,),
    "clip_qkv": (None,),
}
"""What Llama is, and most are but for a choice or two."""
_DENSE = {"experts": (None,)}
_NO_WINDOW = {"sliding_window": (None,)}
_SWITCHED_BIAS = {"attention_bias": ("none", "all")}


def _heads_that_divide(config: ModelConfig) -> Iterator[str]:
    if config.d_model % config.n_heads:
        yield f"n_heads to divide d_model (got {config.n_heads} and {config.d_model})"


def _as_many_keys_as_queries(config: ModelConfig) -> Iterator[str]:
    yield from heads_as_wide_as_the_model(config)
    if config.n_kv_heads != config.n_heads:
        yield f"n_kv_heads = n_heads (got {config.n_kv_heads} and {config.n_heads})"


def _experts_without_bias(config: ModelConfig) -> Iterator[str]:
    if config.experts is None:
        yield "experts (got none)"
    elif config.experts.has_bias:
        yield "experts.has_bias=False (got True), as no file here has a place for that bias"


def _olmoe_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _experts_without_bias(config)
    yield from heads_as_wide_as_the_model(config)
    if config.experts is not None and config.experts.dense_layers:
        yield f"experts.dense_layers=() (got {config.experts.dense_layers})"


def _nothing_else(config: ModelConfig) -> Iterator[str]:
    yield from ()


def _read_own(values: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(values.get(OWN), dict):
        raise InputError(f"the file must have {OWN!r}, the fields of the model's config; it is missing")
    check_n_layers(values[OWN])
    return values[OWN]


FAMILIES: dict[str, Family] = {
    "llama": Family(
        architecture="LlamaForCausalLM",
        names=_NAMES | _D_FF,
        defaults=_DEFAULTS | {"max_position_embeddings": 2048},
        required=_REQUIRED,
        allows=_ALLOWS | _DENSE | _NO_WINDOW | _SWITCHED_BIAS | {"mlp_bias": (False, True)},
        aspects=(HEADS, ROPE, BIAS_SWITCH, MLP_BIAS_SWITCH, UNIFORM_LAYERS),
        misfits=_heads_that_divide,
        layout=llama_layout,
    ),
    "mistral": Family(
        architecture="MistralForCausalLM",
        names=_NAMES | _D_FF,
        defaults=_DEFAULTS | {"max_position_embeddings": 131_072, "num_key_value_heads": 8},
        required=_REQUIRED,
        allows=_ALLOWS | _DENSE,
        aspects=(HEADS, ROPE, MISTRAL_WINDOW),
        misfits=_nothing_else,
        layout=llama_layout,
    ),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        names=_NAMES | _D_FF,
        defaults=_DEFAULTS | {"num_key_value_heads": 32},
        required=_REQUIRED,
        allows=_ALLOWS | _DENSE | {"attention_bias": ("qkv",)},
        aspects=(HEADS, ROPE, QWEN_WINDOW),
        misfits=_nothing_else,
        layout=llama_layout,
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        names=_NAMES | _D_FF,
        defaults=_DEFAULTS | {"num_key_value_heads": 32, "head_dim": 128},
        required=_REQUIRED,
        allows=_ALLOWS | _DENSE | _SWITCHED_BIAS | {"qk_norm": ("head",)},
        aspects=(HEADS, ROPE, BIAS_SWITCH, QWEN_WINDOW),
        misfits=_nothing_else,
        layout=llama_layout,
    ),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        names=_NAMES | _D_FF,
        defaults=_DEFAULTS | {"num_key_value_heads": 4},
        required=_REQUIRED,
        allows=_ALLOWS | _SWITCHED_BIAS | {"qk_norm": ("head",)},
        aspects=(HEADS, ROPE, BIAS_SWITCH, QWEN3_MOE_WINDOW, QWEN3_MOE_EXPERTS),
        misfits=_experts_without_bias,
        layout=llama_layout,
    ),
    "olmoe": Family(
        architecture="OlmoeForCausalLM",
        names=_NAMES,
        defaults=_DEFAULTS | {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        required=_REQUIRED | {"sliding_window": (None,)},
        allows={
            field: values
            for field, values in (_ALLOWS | _NO_WINDOW | _SWITCHED_BIAS | {"qk_norm": ("full",)}).items()
            if field != "clip_qkv"
        },
        aspects=(HEADS, ROPE, BIAS_SWITCH, UNIFORM_LAYERS, OLMOE_CLIP, OLMOE_EXPERTS),
        misfits=_olmoe_misfits,
        layout=llama_layout,
    ),
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        names=_GPT2_NAMES,
        defaults={"n_positions": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
        required={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # all are the tanh form
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
            "quantization_config": (None,),
        },
        allows={
            "norm": ("layernorm",),
            "positions": ("learned",),
            "qk_norm": ("none",),
            "attention_bias": ("all",),
            "mlp": ("gelu",),
            "mlp_bias": (True,),
            "clip_qkv": (None,),
            **_DENSE,
            **_NO_WINDOW,
        },
        aspects=(GPT2_SHAPE,),
        misfits=_as_many_keys_as_queries,
        layout=gpt2_layout,
    ),
}
"""By `model_type`."""


OWN = "techtree"
"""The `model_type` of a model that no other program can compute."""

_OWN_FAMILY = Family(
    architecture="",
    names={},
    defaults={},
    required={},
    allows={},
    aspects=(Aspect(_read_own, lambda config: {OWN: dataclasses.asdict(config)}),),
    misfits=_nothing_else,
    layout=own_layout,
)


def family_of(config: ModelConfig) -> str:
    """Return the `model_type` of the first family that can carry a config.

    Raises
    ------
    InputError
        When none can; the message says what the nearest ones would need.
    """
    problems = {name: family.problems(config) for name, family in FAMILIES.items()}
    fewest = min(map(len, problems.values()))
    nearest = {name: found for name, found in problems.items() if len(found) == fewest}
    if fewest:
        needs = "; ".join(f"{name} would need {', '.join(found)}" for name, found in nearest.items())
        raise InputError(
            f"no family of transformers can carry this model. {needs}: change that, or keep the checkpoint"
        )
    return next(iter(nearest))


def read_config(values: Mapping[str, Any]) -> tuple[Family, ModelConfig]:
    """Return the family and the shape that the contents of a `config.json` describe.

    Raises
    ------
    InputError
        When the family is unknown, or the model uses an option that this program does not have.
    """
    name = values.get("model_type")
    if name == OWN:
        return _OWN_FAMILY, _OWN_FAMILY.read(values)
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            f"model_type must be one of {', '.join(FAMILIES)}; got {name!r}"
            f"{did_you_mean(str(name), FAMILIES)}: use a model of such a family"
        )
    return FAMILIES[name], FAMILIES[name].read(values)


def write_config(
    config: ModelConfig,
    end_of_text_id: int,
    dtype: str,
    *,
    for_others: bool = True,
    end_ids: Sequence[int] = (),
) -> tuple[Family, dict[str, Any]]:
    """Return the family that carries a shape, and the contents of its `config.json`.

    Parameters
    ----------
    config
        The shape.
    end_of_text_id
        The token before and after every document.
    dtype
        How the weights are stored, such as "float32".
    for_others
        Whether other programs must be able to read it.
    end_ids
        All tokens that end what the model says, where there are more.

    Raises
    ------
    InputError
        When they must, and no family of theirs can carry it.
    """
    try:
        name = family_of(config)
    except InputError:
        if for_others:
            raise
        return _OWN_FAMILY, {"model_type": OWN, "dtype": dtype, **_OWN_FAMILY.write(config)}
    family = FAMILIES[name]
    return family, {
        "architectures": [family.architecture],
        "model_type": name,
        **{key: allowed[0] for key, allowed in family.required.items() if allowed[0] is not None},
        **family.write(config),
        "dtype": dtype,
        "torch_dtype": dtype,  # how version 4 of transformers calls it
        "bos_token_id": end_of_text_id,
        "eos_token_id": one_or_all(end_ids or (end_of_text_id,)),
        # transformers gives a padding token's embedding no gradient, and every token here needs one.
        "pad_token_id": None,
    }


def one_or_all(ids: Sequence[int]) -> int | list[int]:
    """Return ids as their files have them: a single one by itself."""
    return ids[0] if len(ids) == 1 else list(ids)
