"""Weight files in the safetensors format: tensors by name, and nothing that could be executed.

A file is eight bytes that say how long the header is (little-endian), the header, and the data:

    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}

The offsets count from the end of the header. The tensors fill the data without holes, in row-major order and
little-endian. (https://huggingface.co/docs/safetensors)
"""

import json
import math
import mmap
import reprlib
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from techtree.atomic import atomic_writer
from techtree.errors import InputError
from techtree.lm.formats.safetensors_header import DTYPES, METADATA, DamagedFileError, Entry, read_header
from techtree.reading import open_regular

_PIECE_BYTES = 1 << 20
"""How much is read before it is converted; it should fit a processor's cache."""


class SafetensorsFile:
    """A file, open for as long as this object or a tensor of it lives.

    Another file that is renamed over this one leaves what was opened as it was.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        When it is not a whole safetensors file.
    """

    metadata: dict[str, str]
    """What its writer noted; empty when it noted nothing."""
    names: tuple[str, ...]
    """The tensors' names, in the order of their data."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file = open_regular(self.path, advice="give a complete folder")
        weakref.finalize(self, self._file.close)
        self._map: mmap.mmap | None = None
        try:
            self.metadata, self._entries = read_header(self._file)
        except (OSError, DamagedFileError) as error:
            raise self._damaged(str(error)) from error
        self.names = tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._entry_of(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a tensor's numbers."""
        return self._entry_of(name).dtype

    def tensor(self, name: str) -> Tensor:
        """Return a tensor whose memory is the file's, read when it is used.

        Writing to it changes the tensor alone: the touched pages are copied, the file stays.
        """
        entry = self._entry_of(name)
        if entry.n_bytes == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        if self._map is None:
            try:
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            except OSError as error:
                raise InputError(f"{self.path} cannot be mapped into memory ({error.strerror})") from error
        memory = torch.frombuffer(self._map, dtype=torch.uint8, offset=entry.offset, count=entry.n_bytes)
        if entry.offset % entry.dtype.itemsize:
            memory = memory.clone()  # a processor may refuse numbers at odd addresses
        return memory.view(entry.dtype).view(entry.shape)

    def read_into(self, name: str, out: Tensor, rows: slice | None = None) -> None:
        """Read a tensor into memory that is there, converting to the type of that memory.

        Nothing is mapped, and no more than a megabyte is held beside ``out``.

        Parameters
        ----------
        name
            Which tensor.
        out
            Where to; it has the tensor's shape.
        rows
            Read only these rows, where a row has the shape of a row of ``out`` (``out.shape[1:]``): of a
            stored (E, F, D) tensor, an ``out`` of (n, D) takes n of E F rows.

        Raises
        ------
        InputError
            When the file has become shorter since it was opened.
        ValueError
            When the shapes do not fit.
        """
        entry = self._entry_of(name)
        first = 0
        if rows is not None:
            width = max(1, math.prod(out.shape[1:]))
            begin_row, end_row, step = rows.indices(math.prod(entry.shape) // width)
            fits = (end_row - begin_row, step) == (len(out), 1) and math.prod(entry.shape) % width == 0
            first = begin_row * width
        else:
            fits = entry.shape == tuple(out.shape)
        if not fits:
            raise ValueError(f"{rows or 'all'} of {name} {entry.shape} does not fit {tuple(out.shape)}")
        begin = entry.offset + first * entry.dtype.itemsize
        try:
            if entry.dtype == out.dtype and out.is_contiguous() and out.device.type == "cpu":
                self._read_bytes(begin, _bytes_of(out))
            else:
                self._read_converted(begin, entry.dtype, out)
        except (OSError, DamagedFileError) as error:
            raise self._damaged(str(error)) from error

    @cached_property
    def _piece(self) -> Tensor:
        """Memory that is used again and again: a C library may not reuse what it got back piece by piece."""
        return torch.empty(max(8, _PIECE_BYTES), dtype=torch.uint8)

    def _read_converted(self, begin: int, dtype: torch.dtype, out: Tensor) -> None:
        if out.numel() == 0:
            return
        out = out.detach()
        out = out[None] if out.ndim == 0 else out
        width = out[0].numel()
        if width * dtype.itemsize > _PIECE_BYTES and out.ndim > 1:  # a single row is too much
            for i, row in enumerate(out):
                self._read_converted(begin + i * width * dtype.itemsize, dtype, row)
            return
        n_rows = max(1, _PIECE_BYTES // (width * dtype.itemsize))
        for start in range(0, len(out), n_rows):
            rows = out[start : start + n_rows]
            piece = self._piece[: rows.numel() * dtype.itemsize].view(dtype)
            self._read_bytes(begin + start * width * dtype.itemsize, _bytes_of(piece))
            rows.copy_(piece.view(rows.shape))

    def _read_bytes(self, begin: int, memory: memoryview) -> None:
        """Fill the memory with the bytes from ``begin`` on; one read gives 2 GB at most."""
        self._file.seek(begin)
        while memory:
            n_read = self._file.readinto(memory)  # pyright: ignore[reportAttributeAccessIssue]
            if not n_read:
                raise DamagedFileError("it has become shorter since it was opened")
            memory = memory[n_read:]

    def _entry_of(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise InputError(f"{self.path} has no tensor {reprlib.repr(name)}") from None

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.path} is not a whole safetensors file: {why}. Copy or download it again")


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
) -> None:
    """Write tensors to a file, atomically.

    One tensor after the other is written from where it is; only one that is not contiguous, of another type,
    or not in the processor's memory, is copied for that moment.

    Parameters
    ----------
    path
        The file; its folder is made where it is missing.
    tensors
        By name. A lazy mapping is asked for each tensor twice: for its shape, then for its numbers.
    metadata
        Any texts; readers of PyTorch's tensors expect ``{"format": "pt"}``.
    dtype
        The type that tensors of floating point get in the file; None for their own.

    Raises
    ------
    OSError
        When the file cannot be written; an old one is intact.
    """
    header = _header(tensors, dtype)
    first = {METADATA: dict(metadata)} if metadata else {}
    text = json.dumps(first | header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with atomic_writer(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            tensor = tensors[name].detach()
            file.write(_bytes_of(tensor.to("cpu", _stored_dtype(tensor, dtype)).contiguous()))


def _header(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Any]:
    """Return what the header says of the tensors, in the order of their data."""
    ranks = {kind: (-rank, code) for rank, (code, kind) in enumerate(DTYPES.items())}
    described = []
    for name, tensor in tensors.items():
        kind = _stored_dtype(tensor, dtype)
        if kind not in ranks:
            raise ValueError(f"{name} must be of a type that safetensors has; got {kind}")
        described.append((*ranks[kind], name, list(tensor.shape), tensor.numel() * kind.itemsize))
    header, end = {}, 0
    for _, code, name, shape, n_bytes in sorted(described):
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    return header


def _stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    if tensor.numel() == 0:
        return memoryview(b"")
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
