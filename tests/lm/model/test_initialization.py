import pytest
import torch

from techtree.lm.config import ModelConfig
from techtree.lm.model import LanguageModel
from techtree.lm.model.initialization import initialize

CONFIG = ModelConfig(
    vocab_size=300,
    d_model=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    d_ff=160,
    tie_embeddings=False,
)


def test_scales():
    model = LanguageModel(CONFIG)
    initialize(model, torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())
    layer = "model.layers.1."
    assert not weights[layer + "self_attn.o_proj.weight"].any()
    assert not weights[layer + "mlp.down_proj.weight"].any()
    assert (weights[layer + "self_attn.k_norm.weight"] == 1).all()
    assert (weights["model.norm.weight"] == 1).all()
    # The standard deviation of 2,000 draws is right to 5 %.
    assert weights[layer + "self_attn.k_proj.weight"].std().item() == pytest.approx(1 / 8, rel=0.05)
    assert weights[layer + "mlp.up_proj.weight"].std().item() == pytest.approx(1 / 8, rel=0.05)
    assert weights["lm_head.weight"].std().item() == pytest.approx(0.02, rel=0.05)


def test_the_seed_decides():
    models = [LanguageModel(CONFIG) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        initialize(model, torch.Generator().manual_seed(seed))
    first, same, other = (m.model.embed_tokens.weight for m in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
