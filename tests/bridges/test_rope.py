"""The lesson's rotation is the product's and that of transformers, scalings and gradients too."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from techtree.lm.config import RopeScaling as ProductScaling
from techtree.lm.model import rope as product
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.rope import RopeScaling, frequencies, rotate, rotation

SCALINGS = [
    None,
    ("linear", 4.0),
    ("linear", 2.5, 1.0, 2.0, 7),
    ("llama3", 8.0),
    ("llama3", 32.0, 1.0, 4.0, 8192),
    ("llama3", 4.0, 0.5, 3.0, 64),
]


def made(kind, scaling):
    return None if scaling is None else kind(*scaling)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("width", "base"), [(2, 1e4), (64, 1e4), (80, 5e5), (128, 1e6)])
def test_frequencies_are_the_products(width, base, scaling):
    theirs = product.frequencies(width, base, made(ProductScaling, scaling)).numpy()
    assert np.abs(frequencies(width, base, made(RopeScaling, scaling)) / theirs - 1).max() < 1e-5


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("first", [0, 5, 1000])
def test_rotation_and_gradient_are_the_products(scaling, first):
    """The product has float32 angles: at position 1000 they are off by 1e-4."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 2, 7, 3, 8)).astype(np.float32)  # samples, tokens, heads, width
    by = product.rotation(first, 7, 8, 1e4, torch.float32, torch.device("cpu"), made(ProductScaling, scaling))
    torch_x = torch.tensor(x, requires_grad=True)
    theirs = product.rotate(torch_x, by)
    theirs.backward(torch.tensor(g))
    leaf = Tensor(x.swapaxes(1, 2), requires_grad=True)  # (samples, heads, tokens, width)
    ours = rotate(leaf, *rotation(np.arange(first, first + 7), 8, 1e4, made(RopeScaling, scaling)))
    ours.backward(np.ascontiguousarray(g.swapaxes(1, 2)))
    tolerance = 1e-6 * (5 + first)
    assert ours.dtype == np.float32
    assert np.abs(ours.data.swapaxes(1, 2) - theirs.detach().numpy()).max() < tolerance
    assert leaf.grad is not None
    assert np.abs(leaf.grad.swapaxes(1, 2) - torch_x.grad.numpy()).max() < tolerance


@pytest.mark.parametrize("scaling", SCALINGS)
def test_frequencies_are_those_of_transformers(scaling):
    for width, base in [(64, 1e4), (128, 5e5)]:
        parameters = {"rope_type": "default", "rope_theta": base}
        if scaling is not None:
            filled = RopeScaling(*scaling)
            parameters |= {"rope_type": filled.kind, "factor": filled.factor}
            if filled.kind == "llama3":
                parameters |= {
                    "low_freq_factor": filled.low_freq_factor,
                    "high_freq_factor": filled.high_freq_factor,
                    "original_max_position_embeddings": filled.original_max_seq_len,
                }
        config = LlamaConfig(
            hidden_size=width, num_attention_heads=1, head_dim=width, rope_parameters=parameters
        )
        theirs = LlamaRotaryEmbedding(config).inv_freq.numpy()
        assert np.abs(frequencies(width, base, made(RopeScaling, scaling)) / theirs - 1).max() < 1e-5
