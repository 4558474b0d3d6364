"""A file of rows: NumPy's format, with a header of our own making, so that every byte of it is known.

A file is read only if it is what the manifest says, header and size; so nothing in it is parsed, and a
damaged one cannot ask for memory or pass for another shape.

Arrays: `N` rows, `L` tokens of a row.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt

from techtree.atomic import atomic_writer
from techtree.errors import InputError
from techtree.reading import open_regular


def shard_path(folder: Path, number: int) -> Path:
    """Return where a shard lies."""
    return folder / f"rows-{number:05}.npy"


def write_shard(path: Path, rows: UInt[np.ndarray, "N L"]) -> None:
    """Write rows atomically."""
    with atomic_writer(path) as file:
        file.write(_header(rows.dtype.itemsize, *rows.shape))
        file.write(np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).data)


def open_shard(path: Path, dtype: np.dtype, n_rows: int, row_length: int) -> UInt[np.ndarray, "N L"]:
    """Map a file of rows into memory.

    Parameters
    ----------
    path
        Of the file.
    dtype, n_rows, row_length
        What it must hold.

    Raises
    ------
    InputError
        When it is missing, or is anything but that.
    """
    again = f"delete {path.parent} and make it again"
    header = _header(dtype.itemsize, n_rows, row_length)
    n_bytes = len(header) + n_rows * row_length * dtype.itemsize
    try:
        with open_regular(path, advice=again) as file:
            if file.read(len(header)) != header:
                raise InputError(
                    f"{path} is damaged: it does not begin as a file of {n_rows} rows does: {again}"
                )
            if (got := file.seek(0, 2)) != n_bytes:
                raise InputError(f"{path} must have {n_bytes:,} bytes; got {got:,}: {again}")
            shape = (n_rows, row_length)
            return np.memmap(file, dtype.newbyteorder("<"), "r", offset=len(header), shape=shape)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _header(itemsize: int, n_rows: int, row_length: int) -> bytes:
    """Return the header of version 1.0 of the format, with the rows at a multiple of 64 bytes.

    NumPy's own differs between its versions in the padding, and reads any.
    """
    about = f"{{'descr': '<u{itemsize}', 'fortran_order': False, 'shape': ({n_rows}, {row_length}), }}"
    start = b"\x93NUMPY\x01\x00"
    length = -(-(len(start) + 2 + len(about) + 1) // 64) * 64 - len(start) - 2
    return start + length.to_bytes(2, "little") + about.ljust(length - 1).encode("ascii") + b"\n"
