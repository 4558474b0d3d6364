"""Reading a model without holding a second copy of it.

A tensor that is stored as the model wants it stays in the file, which is mapped into memory: the system
reads a page when it is used, and a page that training changes becomes the process's own. Everything else, a
bfloat16 file for a float32 model above all, is read and converted piece by piece into the parameter's memory.

Who replaces a file by renaming a new one over it, as this program does, leaves alone the models that are
loaded from the old one. Who writes into the file itself changes them.
"""

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.finite import are_finite, not_finite
from techtree.lm.formats.huggingface.family import Family
from techtree.lm.formats.huggingface.folder import read_folder_config, weight_paths
from techtree.lm.formats.huggingface.layouts import EMBEDDING, HEAD, is_weight, meta_model
from techtree.lm.formats.huggingface.stored import Stored
from techtree.lm.formats.safetensors_file import SafetensorsFile
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MAPS_FILES = os.name == "posix"
"""Windows lets nobody replace a file that is mapped; there everything is read."""
_BYTES_TURNED = 1 << 18
"""Transposing 4 million float32 took 4 ms in pieces of this size, 20 ms at once."""
_NUMBERS_COMPARED = 1 << 18


def load_model(folder: Path, dtype: torch.dtype | None = torch.float32) -> LanguageModel:
    """Read a model from a folder, whatever its tokenizer.

    Parameters
    ----------
    folder
        What `save_pretrained` wrote, or a model of others: see `families` for which.
    dtype
        The precision that the weights get; None for that of the file.

    Raises
    ------
    InputError
        When a file is missing or damaged, or the model is of another kind.
    """
    folder = Path(folder)
    family, config = read_folder_config(folder)
    return _load(folder, family, config, dtype)


def load_pretrained(
    folder: Path, dtype: torch.dtype | None = torch.float32
) -> tuple[LanguageModel, Tokenizer]:
    """Read a model and its tokenizer from a folder.

    Parameters
    ----------
    folder
        What `save_pretrained` wrote, or a model of others whose tokenizer is byte-level BPE.
    dtype
        The precision that the weights get; None for that of the file.

    Raises
    ------
    InputError
        When a file is missing or damaged, or the model is of another kind.
    """
    folder = Path(folder)
    family, config = read_folder_config(folder)
    tokenizer = load_tokenizer(folder, config)
    return _load(folder, family, config, dtype), tokenizer


def load_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """Read the tokenizer beside a model.

    Raises
    ------
    InputError
        When it is missing or damaged, of another kind, or of another model.
    """
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the model in {folder} has a vocabulary of {config.vocab_size}, and its tokenizer has ids up to "
            f"{tokenizer.vocab_size - 1}: they do not belong together"
        )
    return tokenizer


def _load(folder: Path, family: Family, config: ModelConfig, dtype: torch.dtype | None) -> LanguageModel:
    files = _open_weights(folder)
    if config.n_layers > len(files):  # before a model of that many layers is made
        raise InputError(f"{folder} must hold {config.n_layers} layers; it has {len(files)} tensors in all")
    model = meta_model(config)
    meta = model.state_dict()
    layout = family.layout(config, meta.keys(), files.keys())
    _check_names(folder, layout, files, config.tie_embeddings)
    _check_tensors(folder, {name: stored.shape(meta) for name, stored in layout.items()}, files)
    parameters = _read(files, layout, meta, dtype)
    _check_finite(folder, layout, parameters)
    model.load_state_dict(parameters, assign=True)
    return model.eval()


def _open_weights(folder: Path) -> dict[str, SafetensorsFile]:
    """Return the file of each tensor."""
    files: dict[str, SafetensorsFile] = {}
    for path in weight_paths(folder):
        file = SafetensorsFile(path)
        for name in file.names:
            if name in files:
                raise InputError(f"{name!r} must be in one file; it is in {files[name].path} and {path}")
            files[name] = file
    return files


def _check_names(
    folder: Path, layout: Mapping[str, Stored], files: Mapping[str, SafetensorsFile], is_tied: bool
) -> None:
    surplus = {name for name in files if name not in layout and is_weight(name)}
    # Some publish a tied head all the same; it says nothing new if it is the embedding.
    if HEAD in surplus and is_tied:
        embedding = next(name for name, stored in layout.items() if stored.ours == (EMBEDDING,))
        if embedding in files and _are_equal(files, HEAD, embedding):
            surplus.remove(HEAD)
    for problem, names in (("lacks", layout.keys() - files.keys()), ("has the unknown", surplus)):
        if names:
            shown = reprlib.repr(min(names))
            raise InputError(f"the model in {folder} {problem} tensor {shown} ({len(names)} in all)")


def _check_tensors(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], files: Mapping[str, SafetensorsFile]
) -> None:
    for name, expected in shapes.items():
        shape, dtype = files[name].shape(name), files[name].dtype(name)
        if shape != expected:
            raise InputError(
                f"{name} in {folder} must have the shape {expected}, as its config says; got {shape}"
            )
        if dtype not in _DTYPES:
            raise InputError(f"{name} in {folder} must be {', '.join(map(str, _DTYPES))}; got {dtype}")


def _check_finite(folder: Path, layout: Mapping[str, Stored], parameters: Mapping[str, Tensor]) -> None:
    """Refuse a NaN, an infinity, or a number that the wanted type does not hold, by the name in the file."""
    damaged = {name for name, parameter in parameters.items() if not are_finite(parameter)}
    for name, stored in layout.items() if damaged else ():
        for part in stored.parts(parameters) if damaged.intersection(stored.ours) else ():
            if not are_finite(part):
                raise not_finite(f"{name} in {folder}", part, part.dtype, "copy or download it again")


def _are_equal(files: Mapping[str, SafetensorsFile], a: str, b: str) -> bool:
    """Compare two stored matrices, a few rows at a time."""
    shape, dtype = files[a].shape(a), files[a].dtype(a)
    if (shape, dtype) != (files[b].shape(b), files[b].dtype(b)) or len(shape) != 2 or dtype not in _DTYPES:
        return False
    n_rows, width = shape
    n_at_once = max(1, _NUMBERS_COMPARED // max(1, width))
    pair = torch.empty(2, min(n_at_once, n_rows), width, dtype=dtype)
    for start in range(0, n_rows, n_at_once):
        rows = slice(start, min(start + n_at_once, n_rows))
        for file, name, out in ((files[a], a, pair[0]), (files[b], b, pair[1])):
            file.read_into(name, out[: rows.stop - start], rows)
        if not torch.equal(*pair[:, : rows.stop - start]):
            return False
    return True


def _read(
    files: Mapping[str, SafetensorsFile],
    layout: Mapping[str, Stored],
    wanted: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Return the parameters, given tensors of their shapes."""
    parameters: dict[str, Tensor] = {}
    turning = torch.empty(_BYTES_TURNED, dtype=torch.uint8)
    for name, stored in layout.items():
        file = files[name]
        given = dtype or file.dtype(name)
        if stored.is_whole and given == file.dtype(name) and _MAPS_FILES:
            parameters[stored.ours[0]] = file.tensor(name)
            continue
        for ours in stored.ours:
            if ours not in parameters:
                parameters[ours] = torch.empty(wanted[ours].shape, dtype=given)
        if stored.is_transposed:
            _read_transposed(file, name, stored.parts(parameters), turning)
        else:
            _read_parts(file, name, stored.parts(parameters), stored.axis)
    return parameters


def _read_parts(file: SafetensorsFile, name: str, parts: list[Tensor], axis: int) -> None:
    """Read what follows each other along an axis."""
    end = 0
    for outer in range(file.shape(name)[0]) if axis else (...,):
        for part in parts:
            begin, end = end, end + part.shape[axis]
            file.read_into(name, part[outer], slice(begin, end))


def _read_transposed(file: SafetensorsFile, name: str, parts: list[Tensor], memory: Tensor) -> None:
    """Read transposed matrices, as many rows at a time as fit a memory that a processor's cache holds."""
    n_rows, width = file.shape(name)
    dtype = parts[0].dtype
    row_bytes = width * dtype.itemsize
    memory = memory if len(memory) >= row_bytes else torch.empty(row_bytes, dtype=torch.uint8)
    n_at_once = len(memory) // row_bytes
    for start in range(0, n_rows, n_at_once):
        rows = slice(start, min(start + n_at_once, n_rows))
        read = memory[: (rows.stop - start) * row_bytes].view(dtype).view(-1, width)
        file.read_into(name, read, rows)
        for part, columns in zip(parts, read.split([part.shape[1] for part in parts], dim=1), strict=True):
            part[rows].copy_(columns)
