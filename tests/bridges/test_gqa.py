"""The lesson's grouped attention is the product's, weights, values and gradients."""

import numpy as np
import pytest
import torch

from techtree.lm.config import ModelConfig
from techtree.lm.model.attention import Attention
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.gqa import GroupedQueryAttention

NAMES = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_width"), [(4, 4, 8), (4, 2, 8), (4, 1, 8), (6, 3, 4), (9, 3, 6)]
)
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_layer_is_the_products(n_heads, n_kv_heads, head_width, has_bias):
    """Without rotation and norms, which are other technologies'."""
    config = ModelConfig(
        vocab_size=8,
        d_model=24,
        n_layers=1,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_width,
        d_ff=8,
        max_seq_len=16,
        qk_norm="none",
        attention_bias="all" if has_bias else "none",
    )
    theirs = Attention(config, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in theirs.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) / 4)
    ours = GroupedQueryAttention(
        24, n_heads, n_kv_heads, np.random.default_rng(0), head_width, has_bias, dtype=np.float32
    )
    state = theirs.state_dict()
    ours.load_state_dict(
        {
            name: state[NAMES[name.split(".")[0]] + "." + name.split(".")[1]].numpy()
            for name in ours.state_dict()
        }
    )
    x, g = np.random.default_rng(1).normal(size=(2, 2, 7, 24)).astype(np.float32)
    torch_x, leaf = torch.tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
    torch_y, y = theirs(torch_x, None), ours(leaf, causal_mask(7, 7))
    torch_y.backward(torch.tensor(g))
    y.backward(g)
    assert np.abs(y.data - torch_y.detach().numpy()).max() < 1e-5
    assert leaf.grad is not None
    assert torch_x.grad is not None
    assert np.abs(leaf.grad - torch_x.grad.numpy()).max() < 1e-4
    expected = dict(theirs.named_parameters())
    for name, each in ours.named_parameters():
        layer, part = name.split(".")
        other = expected[f"{NAMES[layer]}.{part}"].grad
        assert each.grad is not None
        assert other is not None
        assert np.abs(each.grad - other.numpy()).max() < 1e-4
