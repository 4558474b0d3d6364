"""The header of a safetensors file, read with the suspicion that a file from anybody deserves.

Every number is held against the file's size before anything is allocated or mapped for it, so that a
damaged file costs one message and no memory.
"""

import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""The format's names, from the narrowest to the widest: the reverse is the order of tensors in a file, which
keeps all of them aligned."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own library."""

METADATA = "__metadata__"
_MAX_AXES = 64


class DamagedFileError(Exception):
    """Why a file is refused."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies; the offset counts from the beginning of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the metadata, and where each tensor lies, in that order.

    Raises
    ------
    DamagedFileError
        When the file is not a whole safetensors file.
    """
    n_bytes = file.seek(0, 2)
    header, data_begin = _read_json(file, n_bytes)
    return _metadata(header), _entries(header, data_begin, n_bytes)


def _read_json(file: BinaryIO, n_bytes: int) -> tuple[dict[str, Any], int]:
    """Return the header, and where the data begins."""
    file.seek(0)
    start = file.read(9)
    if (foreign := _foreign_format(start)) is not None:
        raise DamagedFileError(foreign)
    if len(start) < 9:
        raise DamagedFileError(
            f"it must begin with the header's length and the header; it has {n_bytes} bytes"
        )
    length = int.from_bytes(start[:8], "little")
    if length > min(n_bytes - 8, MAX_HEADER_BYTES):
        raise DamagedFileError(
            f"the header must fit the file and be at most {MAX_HEADER_BYTES:,} bytes long; the file has "
            f"{n_bytes:,} bytes, and its header is said to have {length:,}"
        )
    file.seek(8)
    text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DamagedFileError(f"the header must be JSON ({error})") from error
    except MemoryError as error:
        raise DamagedFileError(f"its header of {length:,} bytes does not fit into the memory") from error
    if not isinstance(header, dict):
        raise DamagedFileError(f"the header must be a JSON object; got {type(header).__name__}")
    return header, 8 + length


def _foreign_format(start: bytes) -> str | None:
    """Say what a file is that is often found under the name of another."""
    if start[8:] == b"{":
        return None
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")):
        return (
            "it is a pickle, which can run any program when it is opened, and so is never opened here; "
            "ask for the model as safetensors"
        )
    if start[:8] == b"version ":
        return "it is a pointer of Git LFS, and the file itself was not fetched (git lfs pull)"
    return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise DamagedFileError(f"the header holds {reprlib.repr(twice)} twice")
    return values


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.pop(METADATA, None)
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DamagedFileError(f"{METADATA} must map texts to texts")
    return metadata


def _entries(header: dict[str, Any], data_begin: int, n_bytes: int) -> dict[str, Entry]:
    """Return where each tensor lies, in that order; together they fill the data exactly."""
    found = {name: _entry(name, value, data_begin) for name, value in header.items()}
    found = dict(sorted(found.items(), key=lambda item: (item[1].offset, item[1].n_bytes)))
    end = data_begin
    for name, entry in found.items():
        if entry.offset != end:
            raise DamagedFileError(
                f"tensors must follow each other without holes or overlaps; {reprlib.repr(name)} begins at "
                f"byte {_short(entry.offset - data_begin)} of the data, and the one before it ends at "
                f"{end - data_begin}"
            )
        end += entry.n_bytes
        if end > n_bytes:
            raise DamagedFileError(
                f"{reprlib.repr(name)} ends at byte {_short(end)}, and the file has {n_bytes}: it was cut off"
            )
    if end != n_bytes:
        raise DamagedFileError(f"the tensors end at byte {end}, and the file has {n_bytes}")
    return found


def _entry(name: str, value: Any, data_begin: int) -> Entry:
    shown = reprlib.repr(name)
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise DamagedFileError(f"{shown} must have dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise DamagedFileError(
            f"the dtype of {shown} must be one of {', '.join(DTYPES)}; got {reprlib.repr(code)}"
        )
    if not _are_counts(shape) or len(shape) > _MAX_AXES:
        raise DamagedFileError(
            f"the shape of {shown} must be at most {_MAX_AXES} whole numbers; got {reprlib.repr(shape)}"
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise DamagedFileError(
            f"the data_offsets of {shown} must be two whole numbers; got {reprlib.repr(offsets)}"
        )
    dtype = DTYPES[code]
    if math.prod(max(1, length) for length in shape) >= 1 << 63:
        raise DamagedFileError(
            f"the shape of {shown} must have fewer than 2^63 elements; got {reprlib.repr(shape)}"
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != n_bytes:
        raise DamagedFileError(
            f"{shown} needs {n_bytes} bytes for its shape {reprlib.repr(shape)} and dtype {code}; "
            f"its data_offsets {reprlib.repr(offsets)} span {_short(offsets[1] - offsets[0])}"
        )
    return Entry(dtype, tuple(shape), data_begin + offsets[0], n_bytes)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _short(number: int) -> str:
    """Return a number that a damaged header may have made thousands of digits long."""
    return reprlib.repr(number)
