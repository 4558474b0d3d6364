"""What `attention` opens, behind the exercise's names: PyTorch's attention as one operation on our tape."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.transformer.attention import causal_mask

__all__ = ["attention", "attention_weights", "causal_mask"]


def attention_weights(q, k, mask=None):
    return attention(q, k, Tensor(np.eye(k.shape[-2], dtype=k.dtype)), mask)  # each value names its key


def attention(q, k, v, mask=None):
    if mask is not None and mask.dtype != bool:
        raise ValueError("PyTorch would add this mask to the scores")
    if k.shape[-2:-1] != v.shape[-2:-1]:
        raise ValueError("PyTorch looks at neither where one of them is empty")
    leaves = [torch.tensor(x.data.copy(), requires_grad=True) for x in (q, k, v)]
    try:
        out = _attention(*leaves, mask)
    except RuntimeError as error:  # PyTorch's error for shapes that do not fit
        raise ValueError(str(error)) from error

    def pull_back(leaf):
        return lambda g: torch.autograd.grad(out, leaf, torch.tensor(g.copy()), retain_graph=True)[0].numpy()

    return record(out.detach().numpy(), *zip((q, k, v), map(pull_back, leaves), strict=True))


def _attention(q, k, v, mask):
    """PyTorch does not mix dtypes nor broadcast leading axes itself."""
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    seen = torch.tensor(True if mask is None else mask.copy())
    leading = torch.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, seen)))
    q, k, v = (x.expand(*leading, *x.shape[-2:]) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, seen.expand(*leading, q.shape[-2], k.shape[-2]))
