"""The lesson's gated layer is the product's and that of published models, gradients too."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from techtree.lm.config import ModelConfig
from techtree.lm.model.swiglu import SwiGLU as Product
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.swiglu import SwiGLU, hidden_width


def product(width: int, hidden: int, has_bias: bool) -> Any:
    shape = {"vocab_size": 8, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 4}
    return Product(ModelConfig(**shape, d_model=width, d_ff=hidden, mlp_bias=has_bias))


def llama(width: int, hidden: int, has_bias: bool) -> Any:
    return LlamaMLP(
        LlamaConfig(hidden_size=width, intermediate_size=hidden, mlp_bias=has_bias, num_attention_heads=1)
    )


def qwen(width: int, hidden: int, has_bias: bool) -> Any:
    return Qwen3MLP(Qwen3Config(hidden_size=width, intermediate_size=hidden))


def drawn(theirs: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in theirs.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) / each.shape[-1] ** 0.5)
    return theirs


@pytest.mark.parametrize(
    ("make", "has_bias"), [(product, False), (product, True), (llama, False), (llama, True), (qwen, False)]
)
@pytest.mark.parametrize(("width", "hidden"), [(8, 8), (12, 32), (16, 5)])
def test_the_layer_is_the_products_and_that_of_published_models(make, has_bias, width, hidden):
    """Gate and up have the same shape: exchanged, all would run, and the numbers would be others."""
    theirs = drawn(make(width, hidden, has_bias))
    ours = SwiGLU(width, hidden, np.random.default_rng(1), has_bias=has_bias, dtype=np.float32)
    ours.load_state_dict(
        {name.replace("_proj", ""): each.detach().numpy() for name, each in theirs.named_parameters()}
    )
    x = np.random.default_rng(2).normal(size=(2, 7, width)).astype(np.float32)
    g = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    leaf, torch_leaf = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, torch_y = ours(leaf), theirs(torch_leaf)
    y.backward(g)
    torch_y.backward(torch.from_numpy(g))
    named = dict(ours.named_parameters())
    pairs = [(y.data, torch_y), (leaf.grad, torch_leaf.grad)]
    pairs += [(named[name.replace("_proj", "")].grad, each.grad) for name, each in theirs.named_parameters()]
    for got, expected in pairs:
        assert got is not None
        assert got.dtype == np.float32
        assert np.abs(got - expected.detach().numpy()).max() < 1e-5


def test_the_width_is_that_of_the_library_s_first_llama():
    config = LlamaConfig()
    assert config.intermediate_size == hidden_width(config.hidden_size, 256)
