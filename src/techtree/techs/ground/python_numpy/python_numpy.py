"""What an array is: bytes, and a rule for finding an entry in them.

Claim: slicing, transposing and broadcasting copy nothing. They change the rule and leave the bytes alone.

Idea: entry (i, j) of an array begins at byte ``offset + i * strides[0] + j * strides[1]`` of its buffer. A
transpose exchanges strides, a step multiplies one, a reversal negates one; stride 0 repeats the array.

Legend: ``shape`` the length of each axis; ``strides`` how many bytes apart two neighbours along each axis
lie; ``offset`` the byte at which the first entry begins. Shapes and strides are tuples of int.

Left out: indexing with lists and masks. It copies, because no strides fit an arbitrary choice of entries.

Paper: van der Walt, Colbert, Varoquaux (2011), https://doi.org/10.1109/MCSE.2011.37
"""

import math

import numpy as np


def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a new array: entries one after the other, the last axis running fastest.

    Parameters
    ----------
    shape
        The length of each axis; where one is 0, strides mean nothing.
    itemsize
        The bytes of one entry: 4 for float32.

    Examples
    --------
    >>> c_strides((2, 3, 5), itemsize=4)  # a row of five is 20 bytes, a plane of three rows 60
    (60, 20, 4)
    """
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def slice_view(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, index: tuple[int | slice, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Find the entries of ``array[index]`` in the buffer of the array.

    Parameters
    ----------
    shape, strides, offset
        Of the array. It is computed with, not built: it may be larger than the memory.
    index
        Integers and slices, with the meaning they have for a list: one for each of the first axes; the other
        axes are kept whole.

    Returns
    -------
    tuple
        Shape, strides and offset of the result. An integer removes its axis, a slice keeps it. In a result
        without entries, strides and offset mean nothing.

    Raises
    ------
    IndexError
        When there are more indices than axes, or an integer lies outside its axis; then the message says
        which axis, as in ``axis 1``.
    ValueError
        When the step of a slice is 0.

    Examples
    --------
    >>> slice_view((3, 4), (16, 4), 0, (slice(None, None, -1), 2))  # a[::-1, 2] begins in the last row
    ((3,), (-16,), 40)
    """
    if len(index) > len(shape):
        raise IndexError(f"there must be at most one index for each of {len(shape)} axes; got {len(index)}")
    kept = []
    whole = (slice(None),) * (len(shape) - len(index))
    for axis, (length, stride, at) in enumerate(zip(shape, strides, (*index, *whole), strict=True)):
        try:
            positions = range(length)[at]  # a number, or another range with a start and a step
        except IndexError:
            raise IndexError(f"axis {axis} has length {length}; it has no position {at}") from None
        if isinstance(positions, range):
            kept.append((len(positions), stride * positions.step))
        offset += stride * (positions.start if isinstance(positions, range) else positions)
    return tuple(length for length, _ in kept), tuple(stride for _, stride in kept), offset


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the result when arrays of these shapes are added.

    Shapes are aligned at their last axes; a missing axis counts as length 1. Along each axis, all lengths
    other than 1 must agree. They are the result's length, also if that is 0.

    Raises
    ------
    ValueError
        When lengths disagree. The message gives them and the axis, counted from the end: ``axis -1`` is the
        last.

    Examples
    --------
    >>> broadcast_shape((8, 1, 6), (7, 1))
    (8, 7, 6)
    """
    result = []
    for axis in range(-max(map(len, shapes), default=0), 0):
        lengths = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(lengths) > 1:
            found, given = " and ".join(map(str, lengths)), ", ".join(map(str, shapes))
            raise ValueError(f"lengths must agree or be 1; got {found} on axis {axis} of the shapes {given}")
        result.append(lengths.pop() if lengths else 1)
    return tuple(result)


def broadcast_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], to_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the strides with which an array, uncopied, reads as one of a larger shape.

    Returns
    -------
    tuple[int, ...]
        One stride for each axis of ``to_shape``: 0 where the array is repeated, its own elsewhere.
        (Where ``to_shape`` has length 1, any stride will do; where it has length 0, strides mean nothing.)

    Raises
    ------
    ValueError
        When the array does not broadcast to exactly ``to_shape``.

    Examples
    --------
    >>> broadcast_strides((3, 1), (4, 4), to_shape=(2, 3, 5))
    (0, 4, 0)
    """
    if broadcast_shape(shape, to_shape) != tuple(to_shape):
        raise ValueError(f"the shape {shape} must broadcast to {to_shape}; it does not")
    own = tuple(0 if length == 1 else stride for length, stride in zip(shape, strides, strict=True))
    return (0,) * (len(to_shape) - len(shape)) + own


def result_dtype(*operands: np.ndarray | np.generic | bool | int | float) -> np.dtype:
    """Return the dtype in which NumPy 2 computes with all these operands at once.

    Parameters
    ----------
    operands
        At least one. *Strong* are those with a dtype: arrays, also without axes, and NumPy's scalars such as
        ``np.float32(3)``, of dtype bool, int64, float16, float32 or float64. *Weak* are Python's own bool,
        int and float. (``np.float64`` is a subclass of ``float``, and yet strong.)

    Returns
    -------
    np.dtype
        The kinds are bool < integer < float. If a weak operand is of a higher kind than every strong one, or
        all are weak: bool, int64 or float64, after the highest kind. Otherwise the strong ones decide: int64
        with any float makes float64, since narrower ones cannot count that far; else the widest dtype of
        their highest kind. Values never matter.

    Examples
    --------
    >>> x = np.ones(3, dtype=np.float32)
    >>> result_dtype(x, 2.0), result_dtype(x, np.float64(2))
    (dtype('float32'), dtype('float64'))
    """
    strong = {x.dtype for x in operands if isinstance(x, np.ndarray | np.generic)}
    weak = {np.dtype(type(x)) for x in operands if not isinstance(x, np.ndarray | np.generic)}
    kinds = {dtype.kind for dtype in strong}
    highest = max((dtype.kind for dtype in strong | weak), key="bif".index)
    if highest not in kinds or {"i", "f"} <= kinds:
        return np.dtype({"b": bool, "i": np.int64, "f": np.float64}[highest])
    return max((dtype for dtype in strong if dtype.kind == highest), key=lambda dtype: dtype.itemsize)
