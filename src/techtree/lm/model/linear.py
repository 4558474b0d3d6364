"""A matrix product with a weight that is kept in full precision."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Module):
    """``x W^T + b``, computed in the precision of ``x``. Both are zero until somebody sets them.

    A weight in float32 under activations in bfloat16 is rounded for this product only, and its
    gradient comes back in float32: that is all that mixed precision is here.
    """

    def __init__(self, d_in: int, d_out: int, has_bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out)) if has_bias else None

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply, and add the bias."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)
