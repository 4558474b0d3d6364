"""What `mha` opens, behind the exercise's names: PyTorch's multi-head attention as one operation."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.mha import merge_heads, split_heads

__all__ = ["MultiHeadAttention", "merge_heads", "split_heads"]

_NAMES = ("query", "key", "value", "output")


class MultiHeadAttention(Module):
    def __init__(self, width, n_heads, rng, has_bias=True, gain=1.0, dtype=np.float64):
        if n_heads < 1 or width % n_heads:
            raise ValueError("the heads must divide the width")
        for name in _NAMES:
            layer = Linear(width, width, rng, has_bias, gain if name == "output" else 1.0, dtype)
            setattr(self, name, layer)
        self.n_heads = n_heads

    def forward(self, x, mask=None):
        layers = [getattr(self, name) for name in _NAMES]
        if x.ndim < 2 or (mask is not None and mask.dtype != bool):
            raise ValueError("x must have two axes, and a mask must be boolean")
        inputs = [x, *(each.weight for each in layers)]
        inputs += [] if layers[0].bias is None else [each.bias for each in layers]
        leaves = [torch.tensor(each.data.copy(), requires_grad=True) for each in inputs]
        try:
            y = _answer(leaves, mask, self.n_heads)
        except (RuntimeError, AssertionError) as error:  # PyTorch's errors for shapes that do not fit
            raise ValueError(str(error)) from error

        def pull_back(leaf):
            return lambda g: torch.autograd.grad(y, leaf, torch.tensor(g.copy()), retain_graph=True)[
                0
            ].numpy()

        return record(y.detach().numpy(), *zip(inputs, map(pull_back, leaves), strict=True))


def _answer(leaves, mask, n_heads):
    """PyTorch takes one axis of samples, and has no number for a token that sees nothing."""
    x, weights, biases = leaves[0], leaves[1:5], leaves[5:]
    *leading, n, width = x.shape
    seen = torch.ones(n, n, dtype=torch.bool) if mask is None else torch.tensor(mask.copy())
    leading = torch.broadcast_shapes(leading, seen.shape[:-2])
    seen = seen.expand(*leading, n, n).reshape(-1, n, n).repeat_interleave(n_heads, dim=0)
    is_blind = ~seen.any(dim=-1, keepdim=True)
    samples = x.expand(*leading, n, width).reshape(-1, n, width).transpose(0, 1)
    if not samples.shape[1]:
        return F.linear(x.expand(*leading, n, width), weights[3])
    eye = torch.eye(width, dtype=x.dtype)
    answer, _ = F.multi_head_attention_forward(
        *(samples, samples, samples, width, n_heads, torch.cat(weights[:3])),
        *(torch.cat(biases[:3]) if biases else None, None, None, False, 0.0, eye, None),
        attn_mask=~(seen | is_blind),
        need_weights=False,
    )
    blind = is_blind.reshape(-1, n_heads, n, 1).permute(2, 0, 1, 3)
    of_heads = answer.reshape(n, -1, n_heads, width // n_heads)
    answer = torch.where(blind, torch.zeros((), dtype=x.dtype), of_heads).reshape(answer.shape)
    answer = answer.transpose(0, 1).reshape(*leading, n, width)
    return F.linear(answer, weights[3], biases[3] if biases else None)
