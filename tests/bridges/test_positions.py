"""The lesson's waves are those of other libraries, its table is the product's and GPT-2's."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from techtree.lm.config import ModelConfig
from techtree.lm.model.cache import KVCache
from techtree.lm.model.language_model import LanguageModel
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.positions import LearnedPositions, sinusoidal


@pytest.mark.parametrize(("n_positions", "width"), [(1, 2), (7, 6), (130, 64), (600, 512)])
def test_marian_has_the_same_waves_with_all_sines_first(n_positions, width):
    theirs = MarianSinusoidalPositionalEmbedding(n_positions, width).create_weight().detach().numpy()
    ours = sinusoidal(n_positions, width)
    assert np.abs(np.concatenate([ours[:, 0::2], ours[:, 1::2]], axis=1) - theirs).max() < 1e-6


def product_with(tokens, positions):
    """Return the product's model whose layers add nothing: what is left is a norm of the sum."""
    shape = {"n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 4, "d_ff": 4}
    config = ModelConfig(vocab_size=11, d_model=4, max_seq_len=9, positions="learned", **shape)
    model = LanguageModel(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(tokens.weight.data))
        model.model.embed_positions.weight.copy_(torch.from_numpy(positions.weight.data))
    return model


def test_the_products_table_is_the_lessons_gradients_too():
    rng = np.random.default_rng(0)
    tokens = Embedding(11, 4, rng, std=1.0, dtype=np.float32)
    positions = LearnedPositions(9, 4, rng, std=1.0, dtype=np.float32)
    ids = rng.integers(11, size=(3, 6))
    product = product_with(tokens, positions)
    x = tokens(ids) + positions(6)
    y = x / ((x * x).mean(axis=-1, keepdims=True) + product.config.norm_eps).sqrt()
    theirs = product.hidden(torch.from_numpy(ids))
    assert np.abs(y.data - theirs.detach().numpy()).max() < 1e-5
    g = rng.normal(size=y.shape).astype(np.float32)
    y.backward(g)
    theirs.backward(torch.from_numpy(g))
    found = product.model.embed_positions.weight.grad.numpy()
    assert np.abs(positions.weight.grad - found).max() < 1e-4
    assert (found[6:] == 0).all()


def test_after_what_a_cache_holds_the_product_goes_on_at_first():
    rng = np.random.default_rng(1)
    tokens = Embedding(11, 4, rng, std=1.0, dtype=np.float32)
    positions = LearnedPositions(9, 4, rng, std=1.0, dtype=np.float32)
    product, ids = product_with(tokens, positions), rng.integers(11, size=(1, 7))
    cache = KVCache(product.config, batch_size=1, max_len=7)
    with torch.no_grad():
        product.hidden(torch.from_numpy(ids[:, :4]), cache)
        theirs = product.hidden(torch.from_numpy(ids[:, 4:]), cache).numpy()
    x = (tokens(ids[:, 4:]) + positions(3, first=4)).data
    expected = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + product.config.norm_eps)
    assert np.abs(theirs - expected).max() < 1e-5


def test_gpt2s_table_loads_and_is_added():
    """`wpe.weight`; beyond its last row there is nothing, there as here."""
    torch.manual_seed(0)
    theirs = GPT2Model(GPT2Config(vocab_size=13, n_positions=8, n_embd=4, n_layer=1, n_head=1)).eval()
    ours = LearnedPositions(8, 4, np.random.default_rng(0), dtype=np.float32)
    ours.load_state_dict({"weight": theirs.wpe.weight.detach().numpy()})
    tokens = Embedding(13, 4, np.random.default_rng(0), dtype=np.float32)
    tokens.load_state_dict({"weight": theirs.wte.weight.detach().numpy()})
    ids = np.array([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        first = theirs(torch.from_numpy(ids), output_hidden_states=True).hidden_states[0].numpy()
    assert np.array_equal((tokens(ids) + ours(5)).data, first)
    with pytest.raises(ValueError, match="8 positions"):
        ours(9)
    with pytest.raises(IndexError):
        theirs.wpe(torch.arange(9))
