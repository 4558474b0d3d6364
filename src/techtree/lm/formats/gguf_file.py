"""Weight files in the GGUF format, which llama.cpp reads: metadata and tensors in one file.

All numbers are little-endian, and a text is its length in bytes (u64) and its UTF-8.

    "GGUF"  version 3 (u32)  number of tensors (u64)  number of metadata (u64)
    metadata    name, type (u32), value                                       (so many times)
    tensors     name, number of axes (u32), lengths (u64 each), type (u32), offset (u64)      (so many)
    zeros up to a multiple of 32
    data        each tensor, followed by zeros up to a multiple of 32

The lengths of a tensor's axes stand in reverse, the fastest first: a matrix of 3 rows and 2 columns has the
lengths 2, 3. Its numbers lie row by row all the same. The offset of a tensor counts from the beginning of the
data. (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from techtree.atomic import atomic_writer
from techtree.errors import InputError
from techtree.lm.quant.blocks import BLOCK, BLOCK_BYTES, quantize

Value = bool | int | float | str | Sequence[str] | Sequence[int]
"""A metadatum. Whole numbers are stored as u32, in a sequence as i32; others as f32."""

ALIGNMENT = 32
TensorType = torch.dtype | Literal["q8_0", "q4_0"]
TENSOR_TYPES: dict[TensorType, int] = {
    torch.float32: 0,
    torch.float16: 1,
    "q4_0": 2,
    "q8_0": 8,
    torch.bfloat16: 30,
}
"""The number of each type of tensor (`ggml_type`)."""

_MAGIC, _VERSION = b"GGUF", 3
_I32, _STRING, _ARRAY = 5, 8, 9
_FLOAT32 = torch.finfo(torch.float32)
_PIECE_NUMBERS = 1 << 20
"""How many numbers are converted at once."""


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written."""

    shape: tuple[int, ...]
    dtype: TensorType
    """The type that its numbers get in the file. Blocks need a last axis that they fill."""
    read: Callable[[], Tensor]
    """Asked once, when its turn comes."""

    @property
    def n_bytes(self) -> int:
        """Its size in the file, without what fills it up."""
        n_numbers = torch.Size(self.shape).numel()
        if isinstance(self.dtype, str):
            return n_numbers // BLOCK * BLOCK_BYTES[self.dtype]
        return n_numbers * self.dtype.itemsize


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, TensorSource]) -> None:
    """Write a file, atomically.

    One tensor after the other is asked for and converted in pieces of a few megabytes.

    Parameters
    ----------
    path
        The file; its folder is made where it is missing.
    metadata
        By name, in the order of the file; `general.architecture` comes first by custom.
    tensors
        By name, in the order of the file.

    Raises
    ------
    InputError
        When a metadatum or a weight is not finite, or too large for the type it gets; an old file is intact.
    OSError
        When the file cannot be written; an old one is intact.
    """
    header = _header(metadata, tensors)
    with atomic_writer(path) as file:
        file.write(header + _padding(len(header)))
        for name, source in tensors.items():
            for piece in _pieces(name, source):
                file.write(memoryview(piece.reshape(-1).view(torch.uint8).numpy()))  # pyright: ignore[reportArgumentType]
            file.write(_padding(source.n_bytes))


def _header(metadata: Mapping[str, Value], tensors: Mapping[str, TensorSource]) -> bytes:
    """Return all that stands before the data."""
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for name, value in metadata.items():
        parts += [_text(name), _typed(name, value)]
    offset = 0
    for name, source in tensors.items():
        lengths = source.shape[::-1]
        parts += [_text(name), struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)]
        parts += [struct.pack("<IQ", TENSOR_TYPES[source.dtype], offset)]
        offset += source.n_bytes + len(_padding(source.n_bytes))
    return b"".join(parts)


def _pieces(name: str, source: TensorSource) -> Iterator[Tensor]:
    """Yield the rows of a tensor, converted, a few at a time."""
    tensor = source.read().detach()
    assert tuple(tensor.shape) == source.shape, f"{name}: {tuple(tensor.shape)} is not {source.shape}"
    n_rows = max(1, _PIECE_NUMBERS // max(1, tensor[0].numel()))
    for rows in tensor.split(n_rows):
        if isinstance(source.dtype, str):
            yield _quantized(name, rows, source.dtype)
            continue
        piece = rows.to("cpu", source.dtype).contiguous()
        if not piece.isfinite().all():
            limit = torch.finfo(source.dtype).max
            raise InputError(
                f"{name} must be numbers up to {limit:.5g}, as {source.dtype} holds no others; "
                f"got {rows.abs().max().item():.5g}: choose a wider type, or check the training"
            )
        yield piece


def _quantized(name: str, rows: Tensor, kind: Literal["q8_0", "q4_0"]) -> Tensor:
    try:
        return quantize(rows.flatten(0, -2), kind).data
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_fits(name: str, value: Value) -> None:
    """Refuse a number that its type in the file does not hold."""
    if isinstance(value, float) and not _float32_holds(value):
        raise InputError(f"{name} must be a number that float32 holds, as in every GGUF file; got {value}")
    if isinstance(value, int) and not 0 <= value < 1 << 32:
        raise InputError(f"{name} must be below 2^32, as GGUF has it in 32 bits; got {value}")
    for item in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
        if isinstance(item, int) and not -(1 << 31) <= item < 1 << 31:
            raise InputError(f"{name} must hold numbers below 2^31, as GGUF has them in 32 bits; got {item}")


def _float32_holds(value: float) -> bool:
    """Return whether float32 has the number to its full precision, or exactly."""
    if not abs(value) <= _FLOAT32.max:  # Also NaN.
        return False
    return abs(value) >= _FLOAT32.tiny or struct.unpack("<f", struct.pack("<f", value))[0] == value


def _padding(n_bytes: int) -> bytes:
    return b"\0" * (-n_bytes % ALIGNMENT)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(name: str, value: Value) -> bytes:
    """Return a metadatum's type and value; True is an int as well, so that bool comes first."""
    _check_fits(name, value)
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
    if all(isinstance(item, str) for item in value):
        items, kind = [_text(str(item)) for item in value], _STRING
    else:
        items, kind = [struct.pack("<i", item) for item in value], _I32
    return struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)
