"""The lesson's norm is PyTorch's and the product's, gradients too, and loads their parameters by name."""

import numpy as np
import pytest
import torch
from torch import nn

from techtree.lm.model.layernorm import LayerNorm as Product
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.layernorm import LayerNorm


def loaded(theirs, width, **options):
    ours = LayerNorm(width, **options)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.named_parameters()})
    return ours


def compare(ours, theirs, x, tolerance):
    leaf, torch_leaf = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, torch_y = ours(leaf), theirs(torch_leaf)
    g = np.random.default_rng(3).normal(size=x.shape).astype(x.dtype)
    y.backward(g)
    torch_y.backward(torch.from_numpy(g))
    pairs = [(y.data, torch_y), (leaf.grad, torch_leaf.grad)]
    pairs += [(each.grad, getattr(theirs, name).grad) for name, each in ours.named_parameters()]
    for got, expected in pairs:
        assert got.dtype == x.dtype
        assert np.abs(got - expected.detach().numpy()).max(initial=0) < tolerance


def drawn(theirs):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in theirs.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return theirs


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 4, 5), (0, 5)])
def test_the_norm_is_torchs(shape, has_bias):
    theirs = drawn(nn.LayerNorm(5, eps=1e-3, bias=has_bias, dtype=torch.float64))
    ours = loaded(theirs, 5, eps=1e-3, has_bias=has_bias)
    compare(ours, theirs, np.random.default_rng(0).normal(size=shape), 1e-13)


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_the_norm_is_the_products(size):
    theirs = drawn(Product(16, 1e-5))
    x = (np.random.default_rng(1).normal(size=(2, 7, 16)) * size).astype(np.float32)
    compare(loaded(theirs, 16, dtype=np.float32), theirs, x, 2e-6 * max(1, 4 / size))
