import dataclasses

import pytest
import torch

from techtree.lm.config import ExpertsConfig, ModelConfig
from techtree.lm.model import LanguageModel
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.optimization import groups_of, optimizers
from techtree.lm.train.ranks import Ranks
from techtree.lm.train.replicated import Replicated
from techtree.lm.train.scaling import scaled_rates

SHAPE = ModelConfig(
    vocab_size=16, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=8, max_seq_len=6
)


def named(model, group):
    return sorted(name for name, its in groups_of(model).items() if its == group)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_every_parameter_has_one_optimizer(tie_embeddings):
    model = LanguageModel(dataclasses.replace(SHAPE, tie_embeddings=tie_embeddings))
    rates = scaled_rates(TrainConfig(n_steps=1, scale_rates=False), 8, 1)
    made = optimizers(Replicated(model, Ranks()), rates, torch.float32)
    names = [name for optimizer in made.values() for name in optimizer.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(made["embedding"].parameters) == ["model.embed_tokens.weight"]
    heads = [] if tie_embeddings else ["lm_head.weight"]
    assert [name for group in made if group == "head" for name in made[group].parameters] == heads
    assert all(name.endswith("norm.weight") for name in made["gains"].parameters)
    assert len(made["muon"].parameters) == 2 * 7
    assert {name: optimizer.lr for name, optimizer in made.items() if name != "head"} == {
        "muon": 0.01,
        "embedding": 0.1,
        "gains": 0.03,
    }


def test_the_parts_of_other_families():
    gpt2 = dataclasses.replace(
        SHAPE, norm="layernorm", positions="learned", attention_bias="all", mlp="gelu", mlp_bias=True
    )
    model = LanguageModel(gpt2)
    assert named(model, "embedding") == ["model.embed_positions.weight", "model.embed_tokens.weight"]
    assert {p.ndim for name, p in model.named_parameters() if name in named(model, "gains")} == {1}
    assert all("proj.weight" in name for name in named(model, "muon"))


def test_experts_are_matrices_and_the_router_is_a_head():
    model = LanguageModel(dataclasses.replace(SHAPE, experts=ExpertsConfig(3, 2, 4)))
    assert named(model, "head") == [f"model.layers.{i}.mlp.gate.weight" for i in range(2)]
    experts = [name for name in named(model, "muon") if "experts" in name]
    assert len(experts) == 2 * 3
    assert all(model.get_parameter(name).ndim == 3 for name in experts)


def test_the_largest_come_first():
    model = LanguageModel(SHAPE)
    sizes = [model.get_parameter(name).numel() for name in groups_of(model)]
    assert sizes == sorted(sizes, reverse=True)
