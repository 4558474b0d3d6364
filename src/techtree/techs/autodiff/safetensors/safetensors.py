"""Weight files that hold names, shapes and numbers, and nothing that could run.

Claim: a file that says where everything lies can be checked before a byte of it is believed, and mapped into
memory instead of read: what is not used is never loaded.

The format: eight bytes, the length of the header as a little-endian integer; the header, a JSON object in
UTF-8; the data. The header gives for each name ``{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}``: the
data of this tensor are the bytes from 0 to 24, counted from the end of the header, row by row, little-endian.
All tensors together fill the data, without holes or overlaps. ``"__metadata__"`` is no tensor but an object
of texts. The header begins with ``{`` and may end with spaces.

Legend: the types are ``U64 I64 F64 F32 U32 I32 BF16 F16 U16 I16 I8 U8 BOOL``: unsigned and signed integers
and floats of so many bits. BF16 is the upper half of a float32. BOOL takes a byte.

Left out: types that NumPy lacks (8-bit floats); a model in several files.

Source: https://huggingface.co/docs/safetensors
"""

import json
import math
import mmap
import os
import reprlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

_DTYPES = {
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "F32": "<f4",
    "U32": "<u4",
    "I32": "<i4",
    "BF16": "<u2",
    "F16": "<f2",
    "U16": "<u2",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "|b1",
}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items() if code != "BF16"}
_METADATA = "__metadata__"
_MAX_HEADER_BYTES = 100_000_000
_MAX_AXES = 64  # of a NumPy array


def save_file(
    tensors: Mapping[str, np.ndarray], path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    r"""Write tensors to a file, the same bytes for the same content.

    Tensors lie in the order of their types, as the legend lists them, and of their names within a type (by
    code point), whatever the order of ``tensors``. The header lists them in the order of their data, each
    with dtype, shape and data_offsets in this order; in front of them ``"__metadata__"`` with its keys in
    order, if there is metadata. It is JSON without blanks, and without ``\u`` escapes for what is not ASCII.
    As few spaces as make its length a multiple of 8 follow, so that the data begins at a multiple of 8.

    The file takes the place of an old one in a single step, when it is complete: who has the old one open,
    or mapped, keeps the old one. After an error the old one is there, and no other file is left.

    Parameters
    ----------
    tensors
        Arrays of any shape, layout and byte order. Not changed.
    path
        The file, in a folder that exists.
    metadata
        Texts under any names. None and an empty mapping leave ``"__metadata__"`` out.

    Raises
    ------
    ValueError
        When a dtype is not among the types, a name is no text or is ``"__metadata__"``, metadata holds
        something else than texts, or a text is not one that UTF-8 can hold (half a surrogate pair).

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
    >>> save_file({"w": np.array([[1.0, 2.0]], np.float32), "n": np.array(7)}, path, {"by": "hand"})
    >>> load_file(path)["w"].tolist(), read_metadata(path)
    ([[1.0, 2.0]], {'by': 'hand'})
    >>> path.read_bytes()[8:46]
    b'{"__metadata__":{"by":"hand"},"n":{"dt'
    """
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    for name, array in arrays.items():
        if not isinstance(name, str) or name == _METADATA:
            raise ValueError(f"a tensor's name must be a text other than {_METADATA!r}; got {name!r}")
        if array.dtype.newbyteorder("<") not in _CODES:
            raise ValueError(f"{name!r} must be of a type that the format has; got {array.dtype}: convert it")
    metadata = dict(metadata or {})
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise ValueError(f"metadata must map texts to texts; got {metadata!r}")

    rank = {code: place for place, code in enumerate(_DTYPES)}
    codes = {name: _CODES[array.dtype.newbyteorder("<")] for name, array in arrays.items()}
    header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    order = sorted(arrays, key=lambda name: (rank[codes[name]], name))
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        shape = list(arrays[name].shape)
        header[name] = {"dtype": codes[name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)

    path = Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    file = part.open("xb")
    try:
        with file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                file.write(arrays[name].astype(_DTYPES[codes[name]]).tobytes())
            file.flush()
            os.fsync(file.fileno())  # or a power failure may leave the new name without its data
        os.replace(part, path)
    except BaseException:
        part.unlink()
        raise


def load_file(path: str | Path) -> dict[str, np.ndarray]:
    """Map a file into memory and return its tensors.

    Nothing but the header is read: the system brings a page of the file when an entry on it is used. The
    arrays stay good when the file is replaced or deleted.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict[str, np.ndarray]
        By name; read-only. BF16 becomes float32, which holds each of its values, and is copied; the others
        have the type in the file. A tensor that does not begin at a multiple of its type's size in the file
        is copied to where it does, so that all are aligned.

    Raises
    ------
    ValueError
        When the file is not exactly as the format says, or cannot be mapped into arrays; the message says
        why. Refused are:
        a file that is shorter than 8 bytes, or than its header's length says;
        a header above 100,000,000 bytes, before it is read;
        one that does not begin with ``{``, or is not a JSON object in UTF-8;
        a key that comes twice in an object;
        metadata that is not an object of texts;
        an entry without dtype, shape or data_offsets;
        a dtype that is not among the types;
        a shape that is not a list of integers of at least 0, or too large for an array;
        data_offsets that are not two such integers, or do not span the bytes that dtype and shape need;
        tensors that overlap, leave holes, or do not end where the file ends: in the order of their offsets
        each, also one without entries, begins where the one before it ends.
    """
    with Path(path).open("rb") as file:
        _, entries, begin = _read_header(file)
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    return {
        name: _array(mapped[begin:][slice(*ends)], code, shape)
        for name, (code, shape, ends) in entries.items()
    }


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a file, without its tensors; empty if it has none.

    Raises
    ------
    ValueError
        As `load_file`.
    """
    with Path(path).open("rb") as file:
        return _read_header(file)[0]


Entry = tuple[str, list[int], list[int]]
"""Of a tensor: type, shape, and where its data begin and end."""


def _array(data: np.ndarray, code: str, shape: list[int]) -> np.ndarray:
    """Read bytes as numbers; where they stand if that is possible."""
    numbers = data.view(_DTYPES[code])
    if not numbers.flags.aligned:
        numbers = numbers.copy()
    if code == "BF16":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    numbers.flags.writeable = False
    return numbers.reshape(shape)


def _read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry], int]:
    """Return the metadata, the tensors in the order of their data, and where the data begin."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        n_data = size - 8 - length
        if n_data < 0 or length > _MAX_HEADER_BYTES:
            raise ValueError(f"its {size} bytes, and {_MAX_HEADER_BYTES}, must hold a header of {length}")
        text = file.read(length)
        if not text.startswith(b"{"):
            raise ValueError("its header must begin with {")
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
        metadata = header.pop(_METADATA, {})
        if not _is_object_of_texts(metadata):
            raise ValueError(f"{_METADATA} must map texts to texts")
        entries = {name: _entry(name, value) for name, value in header.items()}
        entries = dict(sorted(entries.items(), key=lambda item: item[1][2]))
        _require_filled(entries, n_data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is not a safetensors file: {error}") from error
    return metadata, entries, 8 + length


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"a key comes twice among {reprlib.repr(names)}")
    return dict(pairs)


def _is_object_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _entry(name: str, value: object) -> Entry:
    """Check what a header says of one tensor, as far as it concerns this tensor alone."""
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise ValueError(f"{name!r} must have dtype, shape and data_offsets")
    code, shape, ends = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"the dtype of {name!r} must be one of {', '.join(_DTYPES)}; got {code!r}")
    for numbers in (shape, ends):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"shape and data_offsets of {name!r} must be lists of integers of at least 0")
    item = np.dtype(_DTYPES[code]).itemsize
    if len(shape) > _MAX_AXES or item * math.prod(max(n, 1) for n in shape) >= 2**63:
        raise ValueError(f"the shape of {name!r} must be one that an array can have")
    if len(ends) != 2 or ends[1] - ends[0] != item * math.prod(shape):
        raise ValueError(f"the data_offsets of {name!r} must span what {code} and {shape} need; got {ends}")
    return code, shape, ends


def _require_filled(entries: Mapping[str, Entry], n_bytes: int) -> None:
    """Require that tensors in the order of their data follow each other, and end where the data end."""
    end = 0
    for name, (_, _, (begin, next_end)) in entries.items():
        if begin != end:
            raise ValueError(f"{name!r} must begin where the tensor before it ends, at {end}; got {begin}")
        end = next_end
    if end != n_bytes:
        raise ValueError(f"the tensors must fill the {n_bytes} bytes of data; they end at {end}")
