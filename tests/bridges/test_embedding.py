"""The lesson's table is PyTorch's, and the product's embedding and tied head."""

import numpy as np
import pytest
import torch
from torch import nn

from techtree.lm.config import ModelConfig
from techtree.lm.model.language_model import LanguageModel
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.embedding import Embedding


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 40), (2, 3, 4)])
def test_rows_scores_and_gradients_are_torchs(shape):
    """One table at both ends, so that its gradient is the sum of two."""
    rng = np.random.default_rng(0)
    ours = Embedding(11, 6, rng)
    theirs = nn.Embedding(11, 6, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(ours.weight.data))
    ids, bend = rng.integers(11, size=shape), rng.normal(size=(*shape, 6))
    x = ours(ids)
    y = ours.unembed(x * bend)
    torch_x = theirs(torch.from_numpy(np.asarray(ids)))
    torch_y = nn.functional.linear(torch_x * torch.from_numpy(bend), theirs.weight)
    assert np.array_equal(x.data, torch_x.detach().numpy())
    assert np.abs(y.data - torch_y.detach().numpy()).max(initial=0) < 1e-15
    g = rng.normal(size=y.shape)
    y.backward(g)
    torch_y.backward(torch.from_numpy(g))
    assert np.abs(ours.weight.grad - theirs.weight.grad.numpy()).max() < 1e-14


def test_a_models_table_loads_under_its_name():
    """GPT-2 calls it `wte.weight`, Llama `embed_tokens.weight`: (vocabulary, width) in both."""
    theirs = nn.Embedding(5, 3)
    ours = Embedding(5, 3, np.random.default_rng(0), dtype=np.float32)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert np.array_equal(ours(np.array([4])).data, theirs(torch.tensor([4])).detach().numpy())
    assert ours.unembed(Tensor(np.ones(3, np.float32))).dtype == np.float32


def test_the_products_table_is_read_at_both_ends():
    """Its logits are our scores; the gradient of its one table is ours, summed over both ends."""
    shape = {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 2, "d_ff": 4}
    product = LanguageModel(ModelConfig(vocab_size=7, d_model=4, **shape))
    rng = np.random.default_rng(0)
    ours = Embedding(7, 4, rng, std=1.0, dtype=np.float32)
    with torch.no_grad():
        product.model.embed_tokens.weight.copy_(torch.from_numpy(ours.weight.data))
    ids, bend = rng.integers(7, size=(2, 5)), rng.normal(size=(2, 5, 4)).astype(np.float32)
    scores = ours.unembed(ours(ids) * bend)
    logits = product.logits(product.model.embed_tokens(torch.from_numpy(ids)) * torch.from_numpy(bend))
    assert np.abs(scores.data - logits.detach().numpy()).max() < 1e-5
    g = rng.normal(size=scores.shape).astype(np.float32)
    scores.backward(g)
    logits.backward(torch.from_numpy(g))
    assert np.abs(ours.weight.grad - product.head.grad.numpy()).max() < 1e-4
