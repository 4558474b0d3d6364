"""Rotary position embedding, half-split: dimension i pairs with dimension i + head_dim / 2.

B batch, T tokens, H heads, d head_dim.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from techtree.lm.config import RopeScaling


class Rotation(NamedTuple):
    """The cosine and sine of every position's angles, to be broadcast over the heads."""

    cos: Float[Tensor, "T 1 d"]
    sin: Float[Tensor, "T 1 half_d"]


def rotation(
    first: int,
    n_tokens: int,
    head_dim: int,
    base: float,
    dtype: torch.dtype,
    device: torch.device,
    scaling: RopeScaling | None = None,
) -> Rotation:
    """Return the rotation of the positions ``first, ..., first + n_tokens - 1``.

    The angle of pair i at position t is ``t * base^(-2i / head_dim)``, where no scaling slows it down. It is
    computed in float32 and rounded once: in bfloat16, position 257 would be 256.
    """
    positions = torch.arange(first, first + n_tokens, dtype=torch.float32, device=device)
    angles = positions[:, None, None] * frequencies(head_dim, base, scaling, device)  # (T, 1, d/2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return Rotation(torch.cat((cos, cos), dim=-1), sin)


def frequencies(
    head_dim: int, base: float, scaling: RopeScaling | None, device: torch.device | str = "cpu"
) -> Float[Tensor, " half_d"]:
    """Return by how much the angle of each pair grows from one token to the next.

    With Llama 3's scaling, a pair that turns more than ``high_freq_factor`` times within the original context
    keeps its frequency, since it tells near tokens apart; one that turns less than ``low_freq_factor`` times
    is slowed by the factor, as it never saw larger angles; in between, both mix linearly.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = 1.0 / base**exponents
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    turns = scaling.original_max_seq_len * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / scaling.factor


def rotate(x: Float[Tensor, "B T H d"], by: Rotation) -> Float[Tensor, "B T H d"]:
    """Rotate every pair of every head by its position's angle."""
    return _Rotate.apply(x, by.cos, by.sin)  # pyright: ignore[reportReturnType]


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back: nothing of ``x`` needs to be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], sin, value=-1)
    y[..., half:].addcmul_(x[..., :half], sin)
    return y
