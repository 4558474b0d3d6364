"""The lesson's norm is PyTorch's, the product's and that of published models, gradients too."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from techtree.lm.model.rmsnorm import RMSNorm as Product
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.rmsnorm import RMSNorm


def drawn(theirs):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        theirs.weight.copy_(torch.randn(theirs.weight.shape, generator=generator))
    return theirs


def compare(theirs, x, eps, tolerance):
    ours = RMSNorm(x.shape[-1], eps, x.dtype.type)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.named_parameters()})
    leaf, torch_leaf = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, torch_y = ours(leaf), theirs(torch_leaf)
    g = np.random.default_rng(3).normal(size=x.shape).astype(x.dtype)
    y.backward(g)
    torch_y.backward(torch.from_numpy(g))
    assert ours.weight.grad is not None
    assert leaf.grad is not None
    pairs = [(y.data, torch_y), (leaf.grad, torch_leaf.grad), (ours.weight.grad, theirs.weight.grad)]
    for got, expected in pairs:
        assert got.dtype == x.dtype
        expected = expected.detach().numpy()
        assert np.abs(got - expected).max(initial=0) <= tolerance * (1 + np.abs(expected).max(initial=0))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 4, 5), (0, 5)])
@pytest.mark.parametrize("eps", [1e-3, 1e-6])
def test_the_norm_is_torchs(shape, eps):
    theirs = drawn(nn.RMSNorm(5, eps=eps, dtype=torch.float64))
    compare(theirs, np.random.default_rng(0).normal(size=shape), eps, 1e-13)


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize("size", [1e-4, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("make", [Product, lambda width, eps: LlamaRMSNorm(width, eps=eps)])
def test_the_norm_is_the_products_and_that_of_llama(make, size, eps):
    """Rows of the size of eps's root, too: another place of eps, or another eps, would be seen."""
    x = (np.random.default_rng(1).normal(size=(2, 7, 16)) * size).astype(np.float32)
    compare(drawn(make(16, eps)), x, eps, 3e-6)
