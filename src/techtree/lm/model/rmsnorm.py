"""Root-mean-square normalization, with a backward pass of few sweeps over memory.

On a CPU an elementwise operation is as slow as memory is, so what counts is how often the
activations are read. PyTorch's own backward of `F.rms_norm` reads them a dozen times there: 5.6 ms
for (4096, 256) in bfloat16 on one Zen 4 core, and 1.8 ms here. A matrix product of that size with a
256 x 256 weight takes 7.5 ms, forward and backward.

N rows, D their width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """``x / rms(x) * gain`` over the last axis; the gain starts at one."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalize each row."""
        if torch.is_grad_enabled() and x.device.type == "cpu":
            return _FewSweeps.apply(x, self.weight, self.eps)  # pyright: ignore[reportReturnType]
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class _FewSweeps(torch.autograd.Function):
    """With ``y = x / rms(x)`` and ``h = dL/d(y * gain) * gain``: ``dL/dx = (h - y mean(h y)) / rms(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(
            x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)
        )
        inverse_rms = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        y = x * inverse_rms
        ctx.gain_dtype = gain.dtype
        gain = gain.to(x.dtype)
        ctx.save_for_backward(y, inverse_rms, gain)
        return y * gain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, inverse_rms, gain = ctx.saved_tensors
        grad_y = grad * y
        d_gain = grad_y.flatten(0, -2).sum(0, dtype=ctx.gain_dtype)
        mean = (grad_y @ gain[:, None]).div_(y.shape[-1])
        return torch.addcmul(grad * gain, y, mean, value=-1).mul_(inverse_rms), d_gain, None
