"""Reading a GGUF file: its metadata, and its tensors as floats whatever they are stored as.

The layout is that of `gguf_file`; other types of numbers, arrays of them and blocks of quantized weights
occur besides. Blocks are turned into floats by the `gguf` package of llama.cpp's authors, which knows the
kinds.

A file may come from anybody: every length is compared with what is left of the file before anything is made
of it.
"""

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.native.blocks import to_q8_0
from techtree.lm.native.library import NoCompilerError
from techtree.lm.quant.blocks import Blocks, Kind, quantize
from techtree.reading import open_regular

_NUMBERS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 10: "<Q", 11: "<q", 12: "<d"}
"""Type of a metadatum -> how `struct` reads it."""
_BOOL, _STRING, _ARRAY = 7, 8, 9

_VERSIONS = (2, 3)
"""Version 1 had other lengths, and nobody has such files any more."""
_ALIGNMENT = "general.alignment"
_PLAIN = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_BFLOAT16 = 30
_MAX_AXES = 4
_BLOCK_KINDS: dict[int, Kind] = {2: "q4_0", 3: "q4_1", 8: "q8_0"}
_ADVICE = "copy or download it again"
_NUMBERS_AT_ONCE = 1 << 22
"""How many are turned into floats."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    shape: tuple[int, ...]
    """The slowest axis first."""
    kind: int
    """Its number among llama.cpp's types (`ggml_type`)."""
    offset: int
    """Where it begins in the file."""
    n_bytes: int

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of its numbers; None where they are blocks of quantized weights."""
        return {0: torch.float32, 1: torch.float16, _BFLOAT16: torch.bfloat16}.get(self.kind)


class GgufFile:
    """The contents of a GGUF file, which stays open as a map of its bytes.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    metadata
        By name: numbers, switches, texts, and lists of these.
    tensors
        By name, in the file's order.

    Raises
    ------
    InputError
        When it is missing, of another kind, or damaged.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        with open_regular(self.path, advice=_ADVICE) as file:
            self._bytes: np.ndarray = (
                np.memmap(file, np.uint8, "r") if file.seek(0, 2) else np.zeros(0, np.uint8)
            )
        self._view = memoryview(self._bytes)  # pyright: ignore[reportArgumentType]
        self._at = 0
        try:
            self._check_kind()
            n_tensors, n_metadata = self._number("<Q"), self._number("<Q")
            self.metadata = self._read_metadata(n_metadata)
            described = self._read_descriptions(n_tensors)
        except UnicodeDecodeError as error:
            raise self._damaged(f"a text in it is no UTF-8: {error.reason}") from error
        self.tensors = self._placed(described)

    def floats(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return a tensor as floats.

        Parameters
        ----------
        name
            One of `tensors`.
        dtype
            The type that its numbers get; None for their own, float32 where they are quantized.

        Raises
        ------
        InputError
            When its kind is unknown to the `gguf` package, or that is not installed.
        """
        stored = self.tensors[name]
        wanted = dtype or stored.dtype or torch.float32
        result = torch.empty(stored.shape, dtype=wanted)
        rows = result.view(-1, stored.shape[-1]) if result.numel() else result.view(0, 1)
        if not len(rows):
            return result
        data = self._bytes[stored.offset : stored.offset + stored.n_bytes].reshape(len(rows), -1)
        n_at_once = max(1, _NUMBERS_AT_ONCE // stored.shape[-1])
        for start in range(0, len(rows), n_at_once):
            rows[start : start + n_at_once].copy_(self._decoded(name, data[start : start + n_at_once]))
        return result

    def blocks(self, name: str) -> Blocks | None:
        """Return a quantized matrix in one of our kinds of blocks; None for a tensor that is not quantized.

        Those kinds are kept as they are; others become Q8_0, whose rounding is finer than theirs.

        Raises
        ------
        InputError
            When a weight is not finite, or as `floats` says of kinds.
        """
        stored = self.tensors[name]
        if stored.dtype is not None or len(stored.shape) != 2:
            return None
        rows = self._bytes[stored.offset : stored.offset + stored.n_bytes].reshape(stored.shape[0], -1)
        with warnings.catch_warnings():
            # PyTorch warns that the file's map cannot be written; nobody does.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            data = torch.from_numpy(rows)
        kind = _BLOCK_KINDS.get(stored.kind)
        try:
            blocks = to_q8_0(stored.kind, data, stored.shape[1]) if kind is None else Blocks(kind, data)
        except NoCompilerError:
            blocks = None
        except ValueError as error:
            raise self._damaged(f"{error}, in {name}") from error
        blocks = blocks or quantize(self.floats(name), "q8_0")
        if not blocks.scales().isfinite().all():
            raise self._damaged(f"a scale of {name} is not finite")
        return blocks

    def _decoded(self, name: str, data: np.ndarray) -> Tensor:
        kind = self.tensors[name].kind
        if kind == _BFLOAT16:
            return torch.from_numpy(data.view("<i2").astype(np.int16)).view(torch.bfloat16)
        if kind in _PLAIN:
            return torch.from_numpy(data.view(_PLAIN[kind]).astype(_PLAIN[kind].newbyteorder("=")))
        package = _package(f"{name} in {self.path}")
        try:
            return torch.from_numpy(package.dequantize(data, package.GGMLQuantizationType(kind)))
        except NotImplementedError as error:
            called = package.GGMLQuantizationType(kind).name
            raise InputError(
                f"{name} in {self.path} must be of a kind that the gguf package turns into floats; got "
                f"{called}: use a file of another quantization"
            ) from error

    # The header ------------------------------------------------------------------------------------------

    def _check_kind(self) -> None:
        if bytes(self._view[:4]) != b"GGUF":
            raise InputError(f"{self.path} must begin with GGUF, as every such file does: {_ADVICE}")
        self._at = 4
        version = self._number("<I")
        if version not in _VERSIONS:
            known = " or ".join(map(str, _VERSIONS))
            raise InputError(f"{self.path} must be GGUF of version {known}; got {version}: convert it anew")

    def _read_metadata(self, n: int) -> dict[str, Any]:
        self._check_left(n, 13, "metadata")
        found: dict[str, Any] = {}
        for _ in range(n):
            name = self._text()
            if name in found:
                raise self._damaged(f"its metadata name {name!r} twice")
            found[name] = self._value(self._number("<I"), is_inner=False)
        return found

    def _read_descriptions(self, n: int) -> dict[str, tuple[tuple[int, ...], int, int]]:
        self._check_left(n, 24, "tensors")
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(n):
            name, n_axes = self._text(), self._number("<I")
            if name in found or not 1 <= n_axes <= _MAX_AXES:
                raise self._damaged(f"the tensor {name!r} comes twice, or has {n_axes} axes")
            lengths = tuple(self._number("<Q") for _ in range(n_axes))
            found[name] = (lengths[::-1], self._number("<I"), self._number("<Q"))
        return found

    def _placed(self, described: Mapping[str, tuple[tuple[int, ...], int, int]]) -> dict[str, StoredTensor]:
        alignment = self.metadata.get(_ALIGNMENT, 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise self._damaged(f"{_ALIGNMENT} is {alignment!r}")
        begin = self._at + -self._at % alignment
        tensors = {}
        for name, (shape, kind, offset) in described.items():
            n_bytes = self._size(name, shape, kind)
            if begin + offset + n_bytes > len(self._bytes):
                raise self._damaged(f"{name} ends behind the end of the file")
            tensors[name] = StoredTensor(shape, kind, begin + offset, n_bytes)
        return tensors

    def _size(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        """Return how many bytes a tensor takes."""
        n_numbers = 1
        for length in shape:
            n_numbers *= length
        if kind == _BFLOAT16:
            return 2 * n_numbers
        if kind in _PLAIN:
            return _PLAIN[kind].itemsize * n_numbers
        package = _package(f"{name} in {self.path}")
        try:
            in_block, block_bytes = package.GGML_QUANT_SIZES[package.GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{name} in {self.path} must be of a kind that the gguf package knows; got {kind}: "
                f"{_ADVICE}, or install a newer gguf"
            ) from error
        if shape[-1] % in_block:
            raise self._damaged(f"the rows of {name} have {shape[-1]} numbers, in blocks of {in_block}")
        return n_numbers // in_block * block_bytes

    def _value(self, kind: int, *, is_inner: bool) -> Any:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _BOOL:
            return bool(self._number("B"))
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY or is_inner:
            raise self._damaged(f"a value in it is of the unknown type {kind}")
        inner, n = self._number("<I"), self._number("<Q")
        if inner == _STRING:
            return self._texts(n)
        if inner not in _NUMBERS:
            self._check_left(n, 1 if inner == _BOOL else 8, "values of a list")
            return [self._value(inner, is_inner=True) for _ in range(n)]
        form = np.dtype(_NUMBERS[inner].replace("B", "u1").replace("b", "i1"))
        return np.frombuffer(self._take(n * form.itemsize), form).tolist()

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return number

    def _text(self) -> str:
        return str(self._take(self._number("<Q")), "utf-8")

    def _texts(self, n: int) -> list[str]:
        """Return texts one after the other: a vocabulary has hundreds of thousands."""
        self._check_left(n, 8, "values of a list")
        view, at, end = self._view, self._at, len(self._bytes)
        texts = []
        for _ in range(n):
            begin = at + 8
            at = begin + int.from_bytes(view[at:begin], "little")
            if at > end or begin > end:
                raise self._damaged("its header ends too early")
            texts.append(str(view[begin:at], "utf-8"))
        self._at = at
        return texts

    def _take(self, n_bytes: int) -> memoryview:
        end = self._at + n_bytes
        if end > len(self._bytes):
            raise self._damaged("its header ends too early")
        taken = self._view[self._at : end]
        self._at = end
        return taken

    def _check_left(self, n: int, least_bytes: int, what: str) -> None:
        if n * least_bytes > len(self._bytes) - self._at:
            raise self._damaged(f"it claims to have {n:,} {what}, for which there is no room")

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.path} is damaged ({why}): {_ADVICE}")


def _package(what: str) -> Any:
    """Return the `gguf` package's part that turns blocks into floats."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise InputError(
            f"{what} is quantized, and the gguf package turns that into floats: pip install 'techtree[gguf]'"
        ) from error
    return gguf.quants
