"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import itertools
import math
import operator

import numpy as np


def _column_major(shape, itemsize):
    return tuple(itemsize * math.prod(shape[:axis]) for axis in range(len(shape)))


def _numpy_1_dtype(*operands):
    """Until NumPy 2, everything without axes was weak beside arrays with axes."""
    arrays = [x.dtype for x in operands if np.ndim(x)]
    scalars = [np.asarray(x).dtype for x in operands if not np.ndim(x)]
    kinds = {dtype.kind for dtype in arrays}
    highest = max((dtype.kind for dtype in (arrays or scalars)), key="bif".index)
    above = [dtype for dtype in scalars if "bif".index(dtype.kind) > "bif".index(highest)]
    if above:
        return max(above, key=lambda dtype: ("bif".index(dtype.kind), dtype.itemsize))
    if {"i", "f"} <= kinds:
        return np.dtype(np.float64)
    return max((d for d in (arrays or scalars) if d.kind == highest), key=lambda dtype: dtype.itemsize)


def _last_operand_decides(*operands):
    return np.asarray(operands[-1]).dtype


def _zip_longest_shape(*shapes):
    """Align at the first axes instead of at the last."""
    result = []
    for lengths in itertools.zip_longest(*shapes, fillvalue=1):
        others = set(lengths) - {1}
        if len(others) > 1:
            raise ValueError(f"axis {len(result) - max(map(len, shapes))}: {others}")
        result.append(others.pop() if others else 1)
    return tuple(result)


def _first_two_shapes(*shapes):
    n_axes = max(map(len, shapes), default=0)
    padded = [(1,) * (n_axes - len(shape)) + tuple(shape) for shape in shapes]
    if len(padded) < 2:
        return padded[0] if padded else ()
    result = list(padded[0])
    for axis, length in enumerate(padded[1]):
        if length != 1 and result[axis] not in (1, length):
            raise ValueError(f"axis {axis - n_axes}: {result[axis]} and {length}")
        result[axis] = length if length != 1 else result[axis]
    return tuple(result)


_STRONG = "strong = {x.dtype for x in operands if isinstance(x, np.ndarray | np.generic)}"
_WEAK = "weak = {np.dtype(type(x)) for x in operands if not isinstance(x, np.ndarray | np.generic)}"
_OFFSET = "offset += stride * (positions.start if isinstance(positions, range) else positions)"
_LENGTHS = "lengths = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}"

MISTAKES = {
    "c_strides lets the first axis run fastest, as Fortran does": {"c_strides": _column_major},
    "c_strides counts entries instead of bytes": [("itemsize * math.prod", "math.prod")],
    "c_strides multiplies by the axis's own length too": [("shape[axis + 1 :]", "shape[axis:]")],
    "c_strides gives each axis the length of the next axis alone, not the product of all behind it": [
        ("math.prod(shape[axis + 1 :])", "math.prod(shape[axis + 1 : axis + 2])")
    ],
    "slice_view forgets the offset that the array has already": [
        ("    kept = []\n", "    kept, offset = [], 0\n")
    ],
    "slice_view does not move the offset to where a slice starts": [
        (_OFFSET, "offset += stride * (0 if isinstance(positions, range) else positions)")
    ],
    "slice_view moves the offset by the start in entries, not in bytes": [
        (
            _OFFSET,
            "offset += positions.start if isinstance(positions, range) else stride * positions",
        )
    ],
    "slice_view moves the offset by the stride after it was multiplied by the step": [
        (
            _OFFSET,
            _OFFSET.replace("positions.start if", "positions.start * positions.step if"),
        )
    ],
    "slice_view keeps the stride when the slice has a step": [
        ("(len(positions), stride * positions.step)", "(len(positions), stride)")
    ],
    "slice_view loses the sign of a negative step": [
        ("stride * positions.step", "stride * abs(positions.step)")
    ],
    "slice_view starts a reversed slice at the first entry instead of at the last": [
        (_OFFSET, _OFFSET.replace("positions.start if", "min(positions.start, positions.stop + 1) if"))
    ],
    "slice_view rounds the number of entries down when the step does not divide it": [
        ("(len(positions), stride", "(abs(positions.stop - positions.start) // abs(positions.step), stride")
    ],
    "slice_view leaves an axis of length 1 where the index was an integer": [
        (
            "        offset += stride * (positions.start",
            "        else:\n            kept.append((1, stride))\n"
            "        offset += stride * (positions.start",
        )
    ],
    "slice_view drops the axes that have no index": [
        ("whole = (slice(None),) * (len(shape) - len(index))", "shape, whole = shape[: len(index)], ()"),
        ("zip(shape, strides, (*index, *whole), strict=True)", "zip(shape, strides, index)"),
    ],
    "slice_view wraps a position outside of the axis around instead of refusing it": [
        ("positions = range(length)[at]", "positions = range(length)[at % length if type(at) is int else at]")
    ],
    "slice_view refuses negative positions": [
        ("        try:\n", "        try:\n            if type(at) is int and at < 0: raise IndexError\n")
    ],
    "broadcast_shape aligns the first axes instead of the last": {"broadcast_shape": _zip_longest_shape},
    "broadcast_shape takes the larger length, so that 0 against 1 gives 1": [
        ("result.append(lengths.pop() if lengths else 1)", "result.append(max({1, *lengths}))")
    ],
    "broadcast_shape repeats lengths that divide the other, 2 against 4": [
        (
            "if len(lengths) > 1:",
            "lengths = {n for n in lengths if not any(m > n and n and m % n == 0 for m in lengths)}\n"
            "        if len(lengths) > 1:",
        )
    ],
    "broadcast_shape looks at the first two shapes only": {"broadcast_shape": _first_two_shapes},
    "broadcast_shape counts the axis in its message from the front": [
        ("on axis {axis} of", "on axis {axis + max(map(len, shapes))} of")
    ],
    "broadcast_shape wants shapes of equally many axes": [
        (_LENGTHS, "lengths = {shape[axis] for shape in shapes} - {1}")
    ],
    "broadcast_strides keeps the stride of a repeated axis, and reads what lies behind it": [
        ("tuple(0 if length == 1 else stride for", "tuple(stride for")
    ],
    "broadcast_strides puts new axes last": [
        (
            "return (0,) * (len(to_shape) - len(shape)) + own",
            "return own + (0,) * (len(to_shape) - len(shape))",
        )
    ],
    "broadcast_strides computes the strides of a copy": [
        (
            "return (0,) * (len(to_shape) - len(shape)) + own",
            "return c_strides(to_shape, min(strides or (4,)))",
        )
    ],
    "broadcast_strides lets an array shrink to length 1": [
        (
            "if broadcast_shape(shape, to_shape) != tuple(to_shape):",
            "if not broadcast_shape(shape, to_shape):",
        )
    ],
    "result_dtype takes np.float64 for a Python float, because it is one by inheritance": [
        (
            _STRONG,
            _STRONG.replace("isinstance(x, np", "not isinstance(x, bool | int | float) and isinstance(x, np"),
        ),
        (_WEAK, "weak = {np.dtype(t) for t in (bool, int, float) for x in operands if isinstance(x, t)}"),
    ],
    "result_dtype counts Python numbers as strong, so that 2.0 turns float32 into float64": [
        ("    kinds = {", "    strong |= weak\n    kinds = {")
    ],
    "result_dtype takes everything without axes for weak, as NumPy 1 did": {"result_dtype": _numpy_1_dtype},
    "result_dtype lets Python numbers never matter, so that integers plus 0.5 stay integers": [
        (
            "if highest not in kinds or",
            "highest = max(kinds or highest, key='bif'.index)\n    if not kinds or",
        )
    ],
    "result_dtype keeps float32 when int64 is added": [('or {"i", "f"} <= kinds', "")],
    "result_dtype goes by width alone, so that int64 beats float32": [
        (
            '    if highest not in kinds or {"i", "f"} <= kinds:',
            "    if strong and max(strong, key=lambda d: d.itemsize).kind == 'i':\n"
            "        return np.dtype(np.int64)\n    if highest not in kinds:",
        )
    ],
    "result_dtype takes the narrowest float": [
        ("return max((dtype for dtype", "return min((dtype for dtype")
    ],
    "result_dtype takes a Python float's kind as float32": [('"f": np.float64}', '"f": np.float32}')],
    "result_dtype lets the last operand decide": {"result_dtype": _last_operand_decides},
}


def _accumulated_strides(shape, itemsize):
    products = itertools.accumulate(reversed(shape[1:]), operator.mul, initial=itemsize)
    return tuple(products)[::-1] if shape else ()


def _view_by_indices(shape, strides, offset, index):
    """With slice.indices instead of a range, and axes removed from behind."""
    if len(index) > len(shape):
        raise IndexError("too many indices")
    shape, strides = list(shape), list(strides)
    for axis in reversed(range(len(index))):
        at, length = index[axis], shape[axis]
        if isinstance(at, slice):
            start, stop, step = at.indices(length)
            offset += start * strides[axis]
            shape[axis] = max(0, math.ceil((stop - start) / step))
            strides[axis] *= step
        elif -length <= at < length:
            offset += at % length * strides[axis]
            del shape[axis], strides[axis]
        else:
            raise IndexError(f"{at} lies outside of axis {axis}")
    return tuple(shape), tuple(strides), offset


def _view_by_addresses(shape, strides, offset, index):
    """The address of the first entry, and the distances to its neighbours."""
    if len(index) > len(shape):
        raise IndexError("too many indices")
    for axis, (at, length) in enumerate(zip(index, shape, strict=False)):
        if not isinstance(at, slice) and at not in range(-length, length):
            raise IndexError(f"axis {axis}: {at}")
    whole = [slice(None)] * (len(shape) - len(index))
    axes = [range(n)[at] for n, at in zip(shape, [*index, *whole], strict=True)]
    kept = [(p, s) for p, s in zip(axes, strides, strict=True) if isinstance(p, range)]
    if any(len(positions) == 0 for positions, _ in kept):
        return tuple(len(positions) for positions, _ in kept), (0,) * len(kept), 0
    first = [p[0] if isinstance(p, range) else p for p in axes]
    offset += sum(map(operator.mul, first, strides))
    steps = tuple((p[1] - p[0]) * s if len(p) > 1 else 0 for p, s in kept)
    return tuple(len(positions) for positions, _ in kept), steps, offset


def _pairwise_shape(*shapes):
    """Two at a time; the axes from behind."""
    result = ()
    for shape in shapes:
        pairs = list(itertools.zip_longest(reversed(result), reversed(shape), fillvalue=1))
        for axis, (a, b) in enumerate(pairs, start=1):
            if 1 not in (a, b) and a != b:
                raise ValueError(f"cannot broadcast {a} with {b}, axis -{axis}")
        result = tuple(b if a == 1 else a for a, b in reversed(pairs))
    return result


def _strides_in_a_loop(shape, strides, to_shape):
    result = [0] * len(to_shape)
    for back in range(1, len(shape) + 1):
        if back > len(to_shape) or shape[-back] not in (1, to_shape[-back]):
            raise ValueError(f"{shape} does not broadcast to {to_shape}")
        if shape[-back] == to_shape[-back]:
            result[-back] = strides[-back]
    return tuple(result)


def _dtype_by_adding(*operands):
    """Add empty arrays for the strong operands, then Python's own numbers for the weak ones."""
    strong = [np.zeros(0, x.dtype) for x in operands if isinstance(x, np.ndarray | np.generic)]
    weak = [type(x)(0) for x in operands if not isinstance(x, np.ndarray | np.generic)]
    highest = max(weak, key=lambda x: (bool, int, float).index(type(x)), default=False)
    if not strong:
        return np.asarray(highest).dtype
    return (sum(strong[1:], strong[0]) + highest).dtype


EQUIVALENTS = {
    "c_strides as running products from the back": {"c_strides": _accumulated_strides},
    "slice_view with slice.indices": {"slice_view": _view_by_indices},
    "slice_view from the addresses of the first entries": {"slice_view": _view_by_addresses},
    "broadcast_shape two shapes at a time": {"broadcast_shape": _pairwise_shape},
    "broadcast_strides in a loop from the back": {"broadcast_strides": _strides_in_a_loop},
    "result_dtype by adding arrays without entries": {"result_dtype": _dtype_by_adding},
}


HARMLESS = {
    "for axis in range(-max(map(len, shapes), default=0), 0): => "
    "for axis in range(-max(map(len, shapes), default=-1), 0):": "both ranges are empty",
    "if broadcast_shape(shape, to_shape) != tuple(to_shape): => "
    "if broadcast_shape(to_shape, shape) != tuple(to_shape):": "broadcasting is symmetric",
    "return max((dtype for dtype in strong if dtype.kind == highest), key=lambda dtype: dtype.itemsize) => "
    "return max((dtype for dtype in strong if dtype.kind == highest))": "of one kind, NumPy orders dtypes so",
}
"""Mutants that are right versions."""


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    ids, x = np.arange(2), np.ones(2, np.float32)
    whole, backwards = slice(None), slice(None, None, -1)

    def view(*index, shape=(3, 4, 5), strides=(80, 20, 4), offset=1000):
        return lambda impl: [*impl.slice_view(shape, strides, offset, index)]

    def message(impl):
        try:
            return impl.broadcast_shape((7, 3, 1), (4, 5))
        except ValueError as error:
            return "axis -2" if "axis -2" in str(error) else "another axis"

    def dtype(*operands):
        return lambda impl: str(impl.result_dtype(*operands))

    return {
        "strides of (2, 3, 5)": lambda impl: impl.c_strides((2, 3, 5), 4),
        "a[1, 2, 3]": view(1, 2, 3),
        "a[-1]": view(-1),
        "a[3]": view(3),
        "a[1:]": view(slice(1, None)),
        "a[:, 1::2]": view(whole, slice(1, None, 2)),
        "a[:, :, ::-1]": view(whole, whole, backwards),
        "a[:, 3:0:-2]": view(whole, slice(3, 0, -2)),
        "a[::2, ::3, ::3]": view(slice(None, None, 2), slice(None, None, 3), slice(None, None, 3)),
        "shape of (8, 1, 6) and (7, 1)": lambda impl: impl.broadcast_shape((8, 1, 6), (7, 1)),
        "shape of (3,) and (3, 2)": lambda impl: impl.broadcast_shape((3,), (3, 2)),
        "shape of (0,) and (1,)": lambda impl: impl.broadcast_shape((0,), (1,)),
        "shape of (2,) and (4,)": lambda impl: impl.broadcast_shape((2,), (4,)),
        "shape of three": lambda impl: impl.broadcast_shape((2, 1), (1, 1), (1, 3)),
        "the message for a wrong axis": message,
        "strides of (3, 1) as (2, 3, 5)": lambda impl: impl.broadcast_strides((3, 1), (4, 4), (2, 3, 5)),
        "strides of (3,) as (1,)": lambda impl: impl.broadcast_strides((3,), (4,), (1,)),
        "float32 and 2.0": dtype(x, 2.0),
        "float32 and np.float64(2)": dtype(x, np.float64(2)),
        "float32 and a float64 array": dtype(np.ones(2), x),
        "float32 and a float64 array without axes": dtype(x, np.array(2.0)),
        "float32 and int64": dtype(x, ids),
        "int64 and 0.5": dtype(ids, 0.5),
        "int64 and True": dtype(ids, True),
    }
