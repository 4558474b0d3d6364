"""Work on blocks of quantized weights that PyTorch would do ten times slower: in C, by decoder.c.

All of it raises `NoCompilerError` where there is no compiler, and nothing compiled.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from techtree.lm.native.library import library
from techtree.lm.quant.blocks import BLOCK, BLOCK_BYTES, Blocks

MIN_ROWS = 256
"""Fewer are not worth a thread."""
KINDS = {"q8_0": 2, "q4_0": 3, "q4_1": 4}
"""Their numbers in decoder.c."""


def to_q8_0(kind: int, data: UInt8[Tensor, "rows row_bytes"], n_columns: int) -> Blocks | None:
    """Return a matrix of another of GGUF's quantized kinds in blocks of 8 bits; None for an unknown kind.

    Parameters
    ----------
    kind
        Its number among llama.cpp's types.
    data, n_columns
        The rows, and how many weights each has.

    Raises
    ------
    ValueError
        When a weight is not finite.
    """
    data = data.contiguous()
    blocks = torch.empty(len(data), n_columns // BLOCK * BLOCK_BYTES["q8_0"], dtype=torch.uint8)

    def convert(start: int, end: int) -> int:
        return library().techtree_to_q8_0(
            *(kind, ctypes.c_int64((end - start) * n_columns)),
            *(ctypes.c_void_p(data[start:].data_ptr()), ctypes.c_void_p(blocks[start:].data_ptr())),
        )

    told = in_parts(len(data), convert)
    if 1 in told:
        raise ValueError("a weight is not finite")
    return None if any(told) else Blocks("q8_0", blocks)


def in_parts(n_rows: int, work: Callable[[int, int], int]) -> list[int]:
    """Do a work on rows ``start, ..., end - 1``: a part for each thread, from a multiple of 16 on."""
    n_threads = torch.get_num_threads()
    size = max(MIN_ROWS, -(-n_rows // (16 * n_threads)) * 16)
    starts = range(0, n_rows, size)
    if len(starts) == 1:
        return [work(0, n_rows)]
    with ThreadPoolExecutor(n_threads) as threads:
        return list(threads.map(lambda start: work(start, min(start + size, n_rows)), starts))


def rounded(weights: Float[Tensor, "*n d"], kind: Literal["q8_0", "q4_0"]) -> Float[Tensor, "*n d"]:
    """Return float32 weights as blocks give them back; d must be a multiple of 32."""
    weights = weights.contiguous()
    result = torch.empty_like(weights)
    library().techtree_round(
        *(KINDS[kind], ctypes.c_int64(weights.numel() // BLOCK)),
        *(ctypes.c_void_p(weights.data_ptr()), ctypes.c_void_p(result.data_ptr())),
    )
    return result
