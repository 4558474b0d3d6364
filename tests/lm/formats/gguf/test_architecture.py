"""Which architecture carries which shape, and the settings that none carries."""

import dataclasses

import pytest

from lm.families import FAMILIES
from lm.gguf_models import SHAPES
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling, Speedrun
from techtree.lm.formats.gguf.architecture import _CARRIED, _JUDGED, ARCHITECTURES, architecture_of

QWEN3, QWEN3MOE, OLMOE = SHAPES["qwen3"][1], SHAPES["qwen3moe"][1], SHAPES["olmoe"][1]
LLAMA, GPT2, MISTRAL = SHAPES["llama"][1], SHAPES["gpt2"][1], FAMILIES["mistral"]
LLAMA3 = RopeScaling("llama3", 8.0)
EXPERTS = QWEN3MOE.experts


def experts(**changes):
    return {"experts": dataclasses.replace(EXPERTS, **changes)}


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_has_its_architecture(name):
    architecture, config = SHAPES[name]
    assert architecture_of(config) == architecture


def test_every_architecture_is_tried():
    assert {architecture for architecture, _ in SHAPES.values()} == set(ARCHITECTURES)


REFUSED = {
    "the ReLU squared of a speedrun": (QWEN3, {"mlp": "relu2"}, "mlp='swiglu' (got 'relu2')"),
    "the n-grams of a speedrun": (
        QWEN3,
        {"speedrun": Speedrun(ngram_rows=11)},
        "speedrun=None (got Speedrun(",
    ),
    "GELU in a qwen3": (QWEN3, {"mlp": "gelu"}, "mlp='swiglu' (got 'gelu')"),
    "layer norms in a qwen3": (QWEN3, {"norm": "layernorm"}, "norm='rmsnorm' (got 'layernorm')"),
    "a bias of the output in a qwen3": (
        QWEN3,
        {"attention_bias": "all"},
        "attention_bias='none' or 'qkv' (got 'all')",
    ),
    "biases of the feed-forward layer in a qwen3": (QWEN3, {"mlp_bias": True}, "mlp_bias=False (got True)"),
    "Llama 3's scaling in a qwen3": (QWEN3, {"rope_scaling": LLAMA3}, "rope_scaling that is linear or None"),
    "norms over all heads without experts": (LLAMA, {"qk_norm": "full"}, "qk_norm='none' (got 'full')"),
    "clamped queries": (LLAMA, {"clip_qkv": 2.0}, "clip_qkv=None (got 2.0)"),
    "clamped queries in an olmoe": (OLMOE, {"clip_qkv": 2.0}, "clip_qkv=None (got 2.0)"),
    "a window that closes": (MISTRAL, {"sliding_window": 63}, "at least max_seq_len=64 (got 63)"),
    "dense layers among experts": (
        QWEN3MOE,
        experts(dense_layers=(1,)),
        "experts.dense_layers=() (got (1,))",
    ),
    "a bias that chooses experts": (QWEN3MOE, experts(has_bias=True), "experts.has_bias=False (got True)"),
    "weights as they are in a qwen3moe": (
        QWEN3MOE,
        experts(normalize_weights=False),
        "experts.normalize_weights=True (got False)",
    ),
    "normalized weights in an olmoe": (
        OLMOE,
        experts(normalize_weights=True),
        "experts.normalize_weights=False (got True)",
    ),
    "shared key heads in an olmoe": (OLMOE, {"n_kv_heads": 3}, "n_kv_heads = n_heads (got 3 and 6)"),
    "wide heads in an olmoe": (OLMOE, {"head_dim": 12}, "n_heads * head_dim = d_model (got 6 * 12, 48)"),
    "wide heads in a gpt2": (GPT2, {"head_dim": 12}, "n_heads * head_dim = d_model (got 6 * 12, 48)"),
    "a gpt2 without biases": (GPT2, {"mlp_bias": False}, "mlp_bias=True (got False)"),
    "rotated positions in a gpt2": (GPT2, {"positions": "rope"}, "positions='learned' (got 'rope')"),
    "more layers than llama.cpp has room for": (QWEN3, {"n_layers": 513}, "at most 512 (got 513)"),
    "more experts than llama.cpp has room for": (
        QWEN3MOE,
        experts(n_experts=1025),
        "at most 1024 (got 1025)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_computes_is_refused_by_name(name):
    config, changes, message = REFUSED[name]
    architecture_of(config if config is not MISTRAL else SHAPES["mistral, a window that never closes"][1])
    with pytest.raises(InputError, match=r"no architecture of llama\.cpp can carry this model") as caught:
        architecture_of(dataclasses.replace(config, **changes))
    assert message in str(caught.value)


def test_a_new_field_is_refused_until_somebody_judges_it():
    @dataclasses.dataclass(frozen=True)
    class Later(ModelConfig):
        soft_cap: float | None = None

    config = Later(**{field.name: getattr(QWEN3, field.name) for field in dataclasses.fields(QWEN3)})
    assert architecture_of(config) == "qwen3"
    with pytest.raises(InputError, match=r"soft_cap=None \(got 15.0\)"):
        architecture_of(dataclasses.replace(config, soft_cap=15.0))


def test_every_name_in_the_tables_is_a_field():
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    assert {*_CARRIED, *_JUDGED} <= fields
    assert all(fields >= architecture.allows.keys() for architecture in ARCHITECTURES.values())


def test_training_does_not_matter():
    config = dataclasses.replace(
        QWEN3MOE, experts=ExpertsConfig(n_experts=5, n_active=2, d_expert=24, balance_coef=0.5, z_coef=0.1)
    )
    assert architecture_of(config) == "qwen3moe"
