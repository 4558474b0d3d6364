"""Grouped heads as PyTorch's fused attention has them (`enable_gqa`), behind the exercise's names."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.mha import merge_heads, split_heads

__all__ = ["GroupedQueryAttention", "grouped_attention", "repeat_heads"]


def _recorded(y, leaves, tensors):
    def pull_back(leaf):
        return lambda g: torch.autograd.grad(y, leaf, torch.tensor(g.copy()), retain_graph=True)[0].numpy()

    return record(y.detach().numpy(), *zip(tensors, map(pull_back, leaves), strict=True))


def _leaf(tensor):
    return torch.tensor(tensor.data.copy(), requires_grad=True)


def _check_heads(n_heads, n_kv_heads):
    if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
        raise ValueError("n_kv_heads must divide n_heads")


def repeat_heads(x, n_heads):
    if x.ndim < 3:
        raise ValueError("x must have heads")
    _check_heads(n_heads, x.shape[-3])
    leaf = _leaf(x)
    return _recorded(leaf.repeat_interleave(n_heads // x.shape[-3], dim=-3), [leaf], [x])


def grouped_attention(q, k, v, mask=None):
    """PyTorch has no number for a query that sees nothing, and wants the same samples everywhere."""
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise ValueError("q, k and v must have heads")
    _check_heads(q.shape[-3], k.shape[-3])
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if k.shape[-3] != v.shape[-3] or n_keys != v.shape[-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError("heads, numbers or widths differ")
    seen = np.ones((n_queries, n_keys), bool) if mask is None else mask
    shape = np.broadcast_shapes(seen.shape, (n_queries, n_keys))
    if seen.dtype != bool or shape[-2:] != (n_queries, n_keys):
        raise ValueError("a mask must be boolean and fit")
    leading = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3], shape[:-2])
    leaves = [_leaf(each) for each in (q, k, v)]
    n = int(np.prod(leading))
    dtype = torch.promote_types(torch.promote_types(leaves[0].dtype, leaves[1].dtype), leaves[2].dtype)
    wide = [each.expand(*leading, *each.shape[-3:]).reshape(n, *each.shape[-3:]).to(dtype) for each in leaves]
    seen = np.broadcast_to(seen, (*leading, n_queries, n_keys)).reshape(n, 1, n_queries, n_keys)
    seen = torch.tensor(seen.copy())
    is_blind = ~seen.any(dim=-1, keepdim=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        y = F.scaled_dot_product_attention(*wide, attn_mask=seen | is_blind, enable_gqa=True)
    y = torch.where(is_blind, torch.zeros((), dtype=y.dtype), y)
    return _recorded(y.reshape(*leading, *q.shape[-3:-1], v.shape[-1]), leaves, [q, k, v])


class GroupedQueryAttention(Module):
    def __init__(
        self, width, n_heads, n_kv_heads, rng, head_width=None, has_bias=False, gain=1.0, dtype=np.float64
    ):
        _check_heads(n_heads, n_kv_heads)
        if head_width is None and width % n_heads:
            raise ValueError("n_heads must divide the width")
        d = width // n_heads if head_width is None else head_width
        self.query = Linear(width, n_heads * d, rng, has_bias, dtype=dtype)
        self.key, self.value = (Linear(width, n_kv_heads * d, rng, has_bias, dtype=dtype) for _ in range(2))
        self.output = Linear(n_heads * d, width, rng, has_bias, gain, dtype)
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads

    def forward(self, x, mask=None):
        q = split_heads(self.query(x), self.n_heads)
        k, v = split_heads(self.key(x), self.n_kv_heads), split_heads(self.value(x), self.n_kv_heads)
        return self.output(merge_heads(grouped_attention(q, k, v, mask)))
