import dataclasses

import pytest

pytest.importorskip("torch")

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.model import LanguageModel

SHAPE = {
    "vocab_size": 50,
    "d_model": 24,
    "n_layers": 3,
    "n_heads": 6,
    "n_kv_heads": 2,
    "head_dim": 10,
    "d_ff": 40,
}


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_n_parameters_is_the_count_of_the_model(tie_embeddings):
    config = ModelConfig(**SHAPE, tie_embeddings=tie_embeddings)
    assert config.n_parameters == sum(p.numel() for p in LanguageModel(config).parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_kv_heads": 4}, r"n_kv_heads must divide n_heads.*use one of \[1, 2, 3, 6\]"),
        ({"head_dim": 9}, "head_dim must be even.*use 10"),
        ({"d_model": 0}, "d_model must be above 0; got 0"),
        ({"d_model": 24.0}, "d_model must be a whole number"),
        ({"n_layers": True}, "n_layers must be a whole number"),
        ({"vocab_size": "50"}, "vocab_size must be a whole number"),
        ({"rope_base": None}, "rope_base must be a number; got None"),
        ({"rope_base": float("nan")}, "rope_base must be above 0"),
        ({"norm_eps": float("inf")}, "norm_eps must be above 0"),
        ({"tie_embeddings": "false"}, "tie_embeddings must be true or false"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ModelConfig.from_dict(SHAPE | change)


def test_a_config_survives_its_dict():
    config = ModelConfig(**SHAPE, rope_base=1e6)
    assert ModelConfig.from_dict(dataclasses.asdict(config)) == config


def test_unknown_and_missing_fields_are_refused():
    with pytest.raises(InputError, match="no field 'n_head'; did you mean n_heads"):
        ModelConfig.from_dict(SHAPE | {"n_head": 2})
    with pytest.raises(InputError, match="needs the field 'd_ff'"):
        ModelConfig.from_dict({name: n for name, n in SHAPE.items() if name != "d_ff"})
