"""The lesson's tiles give what PyTorch's flash kernel and the product's blocks give, gradients too."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from techtree.lm.model.causal_attention import attention_in_blocks
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.flash_attention import flash_attention

TILES = ((64, 64), (7, 20), (200, 3))


def pytorch(q, k, v):
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def not_causal(q, k, v):
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("theirs", [pytorch, not_causal, attention_in_blocks], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_answers_and_gradients(theirs, dtype):
    rng = np.random.default_rng(0)
    for n_tokens, width in itertools.product((1, 5, 150), (4, 16)):
        q, k, v, g = rng.normal(size=(4, 2, 3, n_tokens, width)).astype(dtype)
        torch_leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
        expected = theirs(*torch_leaves)
        expected.backward(torch.tensor(g))
        for tile_q, tile_k in TILES:
            leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
            out = flash_attention(*leaves, theirs is not not_causal, None, tile_q, tile_k)
            out.backward(g)
            pairs = [
                (out.data, expected),
                *((a.grad, b.grad) for a, b in zip(leaves, torch_leaves, strict=True)),
            ]
            for got, wanted in pairs:
                assert got is not None
                assert wanted is not None
                assert got.dtype == dtype
                tolerance = 1e-5 if dtype is np.float32 else 1e-12
                assert np.abs(got - wanted.detach().numpy()).max() < tolerance
