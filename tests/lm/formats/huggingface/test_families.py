"""Configs as they are published, and what a family can and cannot say."""

import contextlib
import dataclasses
import re

import pytest

from lm.families import FAMILIES as SHAPES
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, RopeScaling
from techtree.lm.formats.huggingface.families import FAMILIES, family_of, read_config, write_config
from techtree.lm.formats.huggingface.layouts import meta_model

LLAMA_3_2_1B = {
    "model_type": "llama",
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
LLAMA_2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
QWEN2_5_CODER_05B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_06B = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL_7B = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
OLMOE_1B_7B = {
    "model_type": "olmoe",
    "clip_qkv": None,
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "vocab_size": 50304,
}
GPT2 = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "layer_norm_epsilon": 1e-05,
    "vocab_size": 50257,
}
PUBLISHED = [
    # As their model cards count them: the parameters of the safetensors files.
    (LLAMA_3_2_1B, 1_235_814_400),
    (LLAMA_2_7B, 6_738_415_616),
    (SMOLLM2_135M, 134_515_008),
    (QWEN2_5_CODER_05B, 494_032_768),
    (QWEN3_06B, 596_049_920),
    (MISTRAL_7B, 7_241_732_096),
    (QWEN3_30B_A3B, 30_532_122_624),
    (OLMOE_1B_7B, 6_919_161_856),
    (GPT2, 124_439_808),
]


@pytest.mark.parametrize(("values", "n_parameters"), PUBLISHED)
def test_published_models_have_their_size(values, n_parameters):
    family, config = read_config(values)
    assert config.n_parameters == n_parameters
    assert family is FAMILIES[values["model_type"]]


def test_published_models_have_their_shape():
    llama = read_config(LLAMA_3_2_1B)[1]
    assert llama.rope_scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    assert (llama.rope_base, llama.max_seq_len, llama.norm_eps) == (5e5, 131072, 1e-5)
    assert read_config(LLAMA_2_7B)[1].rope_base == 10_000
    assert read_config(MISTRAL_7B)[1].sliding_window == 4096
    assert read_config(QWEN2_5_CODER_05B)[1].sliding_window is None
    olmoe = read_config(OLMOE_1B_7B)[1]
    assert (olmoe.qk_norm, olmoe.norm_eps) == ("full", 1e-5)  # the file says neither
    assert olmoe.experts == ExpertsConfig(64, 8, 1024, normalize_weights=False, balance_coef=0.01)
    assert read_config(QWEN3_30B_A3B)[1].n_active_parameters == pytest.approx(3.3e9, rel=0.02)  # "A3B"


@pytest.mark.parametrize(("values", "_"), PUBLISHED)
def test_what_was_read_is_written_and_read_again(values, _):
    config = read_config(values)[1]
    family, written = write_config(config, end_of_text_id=7, dtype="bfloat16")
    assert read_config(written) == (family, config)
    assert written["model_type"] == values["model_type"]
    assert (written["dtype"], written["torch_dtype"], written["eos_token_id"]) == ("bfloat16", "bfloat16", 7)


@pytest.mark.parametrize("name", ["rope_parameters", "rope_theta and rope_scaling"])
@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_either_versions_keys_are_enough(shape, name):
    _, written = write_config(SHAPES[shape], 0, "float32")
    for key in name.split(" and "):
        del written[key]
    assert read_config(written)[1] == SHAPES[shape]


def test_transformers_knows_how_many_experts_by_two_names():
    values = {key: value for key, value in QWEN3_30B_A3B.items() if key != "num_experts"}
    assert read_config(values | {"num_local_experts": 32})[1].experts.n_experts == 32


CHANGES = [
    ("llama", {"attention_bias": "all", "mlp_bias": True}, "llama"),
    ("llama", {"head_dim": 16}, "llama"),
    ("llama", {"n_heads": 7, "n_kv_heads": 7}, "mistral"),  # llama wants n_heads to divide d_model
    ("llama", {"sliding_window": 9}, "mistral"),
    ("qwen2", {"sliding_window": 9}, "qwen2"),
    ("qwen3", {"attention_bias": "all", "sliding_window": 9}, "qwen3"),
    ("mistral", {"sliding_window": None}, "llama"),  # which computes the same
    ("qwen3_moe", {"sliding_window": 9, "attention_bias": "all"}, "qwen3_moe"),
    ("olmoe", {"clip_qkv": None, "attention_bias": "all"}, "olmoe"),
    ("gpt2", {"tie_embeddings": False}, "gpt2"),
]


@pytest.mark.parametrize(("shape", "change", "family"), CHANGES)
def test_the_family_follows_from_the_config(shape, change, family):
    config = dataclasses.replace(SHAPES[shape], **change)
    assert family_of(config) == family
    assert read_config(write_config(config, 0, "float32")[1])[1] == config


def test_every_family_is_the_family_of_its_shape():
    assert {name: family_of(config) for name, config in SHAPES.items()} == {name: name for name in FAMILIES}


BIASED_WINDOW = {"attention_bias": "all", "sliding_window": 9}
BIASED = ExpertsConfig(5, 2, 24, has_bias=True)

MISFITS = [
    ("qwen3", {"mlp": "relu2"}, "qwen3 would need mlp='swiglu' (got 'relu2'): change that"),
    ("qwen3_moe", {"experts": BIASED}, "qwen3_moe would need experts.has_bias=False (got True)"),
    ("qwen3_moe", {"experts": BIASED}, "qwen3 would need experts=None (got some)"),
    ("qwen3", {"clip_qkv": 2.0}, "qwen3 would need clip_qkv=None (got 2.0)"),
    ("qwen2", BIASED_WINDOW, "llama would need sliding_window=None (got 9); "),
    ("qwen2", BIASED_WINDOW, "qwen2 would need attention_bias='qkv' (got 'all')"),
    ("qwen2", {"mlp_bias": True}, "qwen2 would need mlp_bias=False (got True)"),
    ("gpt2", {"n_kv_heads": 2}, "gpt2 would need n_kv_heads = n_heads (got 2 and 6)"),
    ("gpt2", {"head_dim": 12}, "gpt2 would need n_heads * head_dim = d_model (got 6 * 12, 48)"),
    ("gpt2", {"mlp": "relu2", "mlp_bias": False}, "need mlp='gelu' (got 'relu2'), mlp_bias=True (got False)"),
    ("olmoe", {"head_dim": 16}, "olmoe would need n_heads * head_dim = d_model (got 6 * 16, 48)"),
    ("olmoe", {"sliding_window": 9}, "olmoe would need sliding_window=None (got 9)"),
    ("olmoe", {"experts": ExpertsConfig(5, 2, 24, dense_layers=(0,))}, "experts.dense_layers=() (got (0,))"),
    ("olmoe", {"experts": None}, "olmoe would need experts (got none)"),
]


@pytest.mark.parametrize(("shape", "change", "message"), MISFITS)
def test_what_no_family_can_say_is_refused(shape, change, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        family_of(dataclasses.replace(SHAPES[shape], **change))
    assert str(raised.value).startswith("no family of transformers can carry this model. ")
    with pytest.raises(InputError):
        write_config(dataclasses.replace(SHAPES[shape], **change), 0, "float32")


# Each of these would silently compute something else.
OTHER_OPTIONS = [
    ("llama", {"hidden_act": "gelu"}, "hidden_act must be 'silu' or absent; got 'gelu'"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config must be None or absent"),
    ("llama", {"attention_bias": "yes"}, "attention_bias must be true or false; got 'yes'"),
    ("llama", {"attention_bias": None}, "attention_bias must be true or false; got None"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1"),
    ("llama", {"rope_scaling": {"type": "linear", "partial_rotary_factor": 0.5}}, "must be 1"),
    (
        "llama",
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "must be default, linear or llama3",
    ),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "got 'yarn'"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "'linear' must come with 'factor'"),
    ("llama", {"rope_scaling": {"type": "llama3", "factor": 2.0}}, "must come with 'low_freq_factor'"),
    ("llama", {"rope_scaling": {"full_attention": {"rope_type": "default"}}}, "one set of rope_parameters"),
    ("llama", {"rope_scaling": "linear"}, "one set of rope_parameters; got 'linear'"),
    ("llama", {"rope_scaling": {"type": ["linear"]}}, "the rope_type must be"),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "must have the same attention"),
    ("llama", {"layer_types": "full"}, "layer_types must be a list"),
    ("llama", {"num_attention_heads": 0}, "num_attention_heads must be a whole number from 1 on; got 0"),
    ("llama", {"num_hidden_layers": "2"}, "n_layers must be a whole number; got '2'"),
    ("llama", {"num_hidden_layers": 10**9}, "at most 10000 layers; got 1000000000"),
    ("llama", {"vocab_size": True}, "vocab_size must be a whole number; got True"),
    ("llama", {"head_dim": 15}, "head_dim must be even"),
    ("llama", {"num_key_value_heads": 3}, "n_kv_heads must divide n_heads"),
    ("mistral", {"layer_types": ["full_attention"] * 32}, "layer_types must all be 'sliding_attention'"),
    ("mistral", {"sliding_window": "no"}, "sliding_window must be a whole number; got 'no'"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 5}, "must have the same attention"),
    (
        "qwen2",
        {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]},
        "the same",
    ),
    ("qwen3", {"layer_types": ["sliding_attention"] * 28}, "the same attention; .* sliding_window of None"),
    (
        "qwen3_moe",
        {"use_sliding_window": True, "sliding_window": 9},
        "max_window_layers must be 0 or absent; got 48",
    ),
    ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step must be a whole number from 1 on"),
    ("qwen3_moe", {"mlp_only_layers": 3}, "mlp_only_layers must be a list"),
    ("qwen3_moe", {"num_experts": 0}, "num_experts must be a whole number from 1 on; got 0"),
    ("qwen3_moe", {"num_experts": 10**9}, "at most 10000 experts"),
    ("qwen3_moe", {"num_experts_per_tok": 129}, "n_active must be at most n_experts"),
    ("qwen3_moe", {"norm_topk_prob": 1}, "norm_topk_prob must be true or false; got 1"),
    ("olmoe", {"sliding_window": 9}, "sliding_window must be None or absent; got 9"),
    ("olmoe", {"clip_qkv": "5"}, "clip_qkv must be a number"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function must be 'gelu_new' or absent; got 'gelu'"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be False"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights must be True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention must be False"),
    ("gpt2", {"n_head": 7}, "n_head must divide n_embd; got 7 and 768"),
    ("gpt2", {"n_inner": 0}, "d_ff must be above 0"),
]
BY_TYPE = {values["model_type"]: values for values, _ in reversed(PUBLISHED)}


@pytest.mark.parametrize(("model_type", "change", "message"), OTHER_OPTIONS)
def test_options_that_this_program_does_not_have_are_refused(model_type, change, message):
    with pytest.raises(InputError, match=message):
        read_config(BY_TYPE[model_type] | change)


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("llama", {"hidden_act": "swish"}),
        ("llama", {"rope_scaling": {"type": "default"}}),
        (
            "llama",
            {"rope_scaling": None, "rope_parameters": LLAMA_3_2_1B["rope_scaling"] | {"rope_theta": 5e5}},
        ),
        ("llama", {"partial_rotary_factor": 1.0, "layer_types": ["full_attention"] * 16}),
        ("mistral", {"layer_types": ["sliding_attention"] * 32}),
        ("qwen2", {"use_sliding_window": True}),  # from layer 24 of 24 on
        (
            "gpt2",
            {"activation_function": "gelu_pytorch_tanh", "reorder_and_upcast_attn": True, "n_inner": None},
        ),
    ],
)
def test_other_words_for_the_same_are_fine(model_type, change):
    found, expected = (
        read_config(values)[1] for values in (BY_TYPE[model_type] | change, BY_TYPE[model_type])
    )
    if change.get("rope_scaling"):
        expected = dataclasses.replace(expected, rope_scaling=None)
    assert found == expected


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
def test_sizes_must_be_given(key):
    values = {name: value for name, value in LLAMA_3_2_1B.items() if name != key}
    with pytest.raises(InputError, match=f"the file must have '{key}', which is missing"):
        read_config(values)


@pytest.mark.parametrize("given", [None, "gemma", "qwen", 3, ["llama"]])
def test_other_families_are_refused(given):
    with pytest.raises(InputError, match="model_type must be one of llama, mistral, qwen2"):
        read_config({"model_type": given})


NUMBERS = (-1, 0, 1, 2.5, 1e999, 2**61, 10**30, 10**400)
ODD = (*NUMBERS, None, True, "", "x", [], [1], ["x"], {}, {"a": 1}, {"rope_type": "linear"})
OPTIONAL = {"layer_types", "max_window_layers", "rope_parameters", "partial_rotary_factor"}


@pytest.mark.parametrize("model_type", BY_TYPE)
def test_whatever_stands_in_a_config_is_read_or_refused(model_type):
    family, given = FAMILIES[model_type], BY_TYPE[model_type]
    for key in {*given, *family.write(SHAPES[model_type]), *family.required, *OPTIONAL}:
        for value in ODD:
            with contextlib.suppress(InputError):
                _, config = read_config(given | {key: value})
                one = {"n_layers": 1}
                if config.experts:
                    one["experts"] = dataclasses.replace(config.experts, dense_layers=())
                meta_model(dataclasses.replace(config, **one))  # it can be made, where it fits the memory
