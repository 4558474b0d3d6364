"""Q8_0, Q4_0 and Q4_1: 32 weights in a row share a scale, and GGUF files hold them byte by byte like this.

    Q8_0    scale (half precision), 32 signed bytes                  weight = scale * q            34 bytes
    Q4_0    scale, 16 bytes of two halves                            weight = scale * (q - 8)      18 bytes
    Q4_1    scale, least (half precision), 16 bytes of two halves    weight = scale * q + least    20 bytes

The low halves of the 16 bytes hold the weights 0 to 15 of the block, the high ones 16 to 31. Q4_0 has one
step more below zero than above it, so the scale's sign is such that the weight of largest size gets it: -8.
The lesson is `techs/inference/quantization`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from techtree.errors import InputError

Kind = Literal["q8_0", "q4_0", "q4_1"]
BLOCK = 32
BLOCK_BYTES: dict[Kind, int] = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
LARGEST_HALF = 65504.0
_ROWS_AT_ONCE = 1 << 20
"""Numbers that are turned at once."""


@dataclass(frozen=True)
class Blocks:
    """A matrix of quantized weights."""

    kind: Kind
    data: UInt8[Tensor, "rows row_bytes"]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix that it stands for."""
        n_rows, row_bytes = self.data.shape
        return n_rows, row_bytes // BLOCK_BYTES[self.kind] * BLOCK

    def floats(self) -> Float[Tensor, "rows columns"]:
        """Return the weights, in float32."""
        result = torch.empty(self.shape)
        n_at_once = max(1, _ROWS_AT_ONCE // max(1, self.shape[1]))
        for rows, data in zip(result.split(n_at_once), self.data.split(n_at_once), strict=True):
            rows.copy_(_dequantized(self.kind, data))
        return result

    def scales(self) -> Float[Tensor, "rows n"]:
        """Return what is in half precision in the blocks: the scales, and for Q4_1 the least values."""
        n_bytes = 4 if self.kind == "q4_1" else 2
        blocks = self.data.view(len(self.data), -1, BLOCK_BYTES[self.kind])[..., :n_bytes]
        return blocks.contiguous().view(torch.float16).flatten(1)


def quantize(weights: Float[Tensor, "rows columns"], kind: Literal["q8_0", "q4_0"]) -> Blocks:
    """Round a matrix to blocks: the same bytes as llama.cpp's reference gives.

    Parameters
    ----------
    weights
        The number of columns must be a multiple of 32.
    kind
        What to make.

    Raises
    ------
    InputError
        When the columns do not fill blocks, or a weight is too large for a scale, or no number.
    """
    n_rows, n_columns = weights.shape
    if n_columns % BLOCK:
        raise InputError(f"the rows of a quantized matrix are blocks of {BLOCK}; got {n_columns} columns")
    data = torch.empty(n_rows, n_columns // BLOCK * BLOCK_BYTES[kind], dtype=torch.uint8)
    n_at_once = max(1, _ROWS_AT_ONCE // max(1, n_columns))
    for rows, out in zip(weights.detach().split(n_at_once), data.split(n_at_once), strict=True):
        blocks = rows.to("cpu", torch.float32).reshape(-1, BLOCK)
        scale, q = steps(blocks, kind)
        if not scale.isfinite().all() or (scale.abs() > LARGEST_HALF).any():
            raise InputError(
                "weights must be numbers whose scale a half-precision number holds; got "
                f"{blocks.abs().max():g}: check the training"
            )
        out.copy_(_joined(scale, q, kind).view(len(rows), -1))
    return Blocks(kind, data)


def steps(
    blocks: Float[Tensor, "*n 32"], kind: Literal["q8_0", "q4_0"]
) -> tuple[Float[Tensor, "*n 1"], Float[Tensor, "*n 32"]]:
    """Return each block's scale, not yet rounded to half precision, and how many of it each weight takes.

    Q8_0 counts from -127 to 127, Q4_0 from 0 to 15, of which 8 stands for zero.
    """
    if kind == "q8_0":
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        exact = blocks * _inverse(scale)
        size, whole = exact.abs(), exact.abs().floor()
        # Half a step goes away from zero.
        return scale, exact.sign() * (whole + (2 * (size - whole)).floor())
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    return scale, (blocks * _inverse(scale) + 8.5).floor().clamp(0, 15)


def grid(blocks: Float[Tensor, "*n 32"], kind: Literal["q8_0", "q4_0"]) -> Float[Tensor, "*n 32"]:
    """Return the weights that a file would give back if `quantize` had stored these."""
    scale, q = steps(blocks, kind)
    return scale.half().to(blocks.dtype) * (q if kind == "q8_0" else q - 8)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def _joined(scale: Tensor, q: Tensor, kind: Kind) -> Tensor:
    scales = scale.half().view(torch.uint8)
    if kind == "q8_0":
        return torch.cat((scales, q.to(torch.int8).view(torch.uint8)), dim=-1)
    low, high = q.to(torch.uint8).split(BLOCK // 2, dim=-1)
    return torch.cat((scales, low | high << 4), dim=-1)


def _dequantized(kind: Kind, data: Tensor) -> Tensor:
    blocks = data.reshape(-1, BLOCK_BYTES[kind])
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    if kind == "q8_0":
        return (scale * blocks[:, 2:].contiguous().view(torch.int8)).view(len(data), -1)
    halves = blocks[:, -BLOCK // 2 :]
    q = torch.cat((halves & 15, halves >> 4), dim=-1).float()
    if kind == "q4_0":
        return (scale * (q - 8)).view(len(data), -1)
    least = blocks[:, 2:4].contiguous().view(torch.float16).float()
    return (scale * q + least).view(len(data), -1)
