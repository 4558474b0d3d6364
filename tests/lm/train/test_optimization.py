import pytest
import torch

from techtree.lm.config import ModelConfig
from techtree.lm.model import LanguageModel
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.optimization import optimizers


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_every_parameter_has_one_optimizer(tie_embeddings):
    config = ModelConfig(
        vocab_size=16,
        d_model=8,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        head_dim=4,
        d_ff=8,
        tie_embeddings=tie_embeddings,
    )
    model = LanguageModel(config)
    groups = optimizers(model, TrainConfig(n_steps=1), torch.float32)
    names = [name for optimizer in groups.values() for name in optimizer.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(groups["embedding"].parameters) == ["model.embed_tokens.weight"]
    heads = [] if tie_embeddings else ["lm_head.weight"]
    assert [name for group in groups if group == "head" for name in groups[group].parameters] == heads
    assert all(name.endswith("norm.weight") for name in groups["gains"].parameters)
    assert len(groups["muon"].parameters) == 2 * 7
