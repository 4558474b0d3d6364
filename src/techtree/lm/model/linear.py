"""A matrix product with a weight that is kept in full precision."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """``input W^T``, computed in the precision of ``input``.

    A weight in float32 under activations in bfloat16 is rounded for this product only, and its
    gradient comes back in float32: that is all that mixed precision is here.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)

    def forward(self, input: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply."""
        return F.linear(input, self.weight.to(input.dtype))
