"""What `python_numpy` opens, behind the exercise's names; `c_strides` has no counterpart without memory."""

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from techtree.techs.ground.python_numpy import broadcast_shape as own_broadcast_shape
from techtree.techs.ground.python_numpy import broadcast_strides as own_broadcast_strides
from techtree.techs.ground.python_numpy import c_strides
from techtree.techs.ground.python_numpy import slice_view as own_slice_view

__all__ = ["broadcast_shape", "broadcast_strides", "c_strides", "result_dtype", "slice_view"]


def _is_moderate(*tuples):
    """NumPy counts bytes in 64 bits, and axes up to 64."""
    return all(len(each) < 30 and all(abs(number) < 2**31 for number in each) for each in tuples)


def slice_view(shape, strides, offset, index):
    ends = [part for at in index if isinstance(at, slice) for part in (at.start, at.stop, at.step)]
    numbers = [int(at) for at in index if not isinstance(at, slice)] + [
        int(end) for end in ends if end is not None
    ]
    is_large = max(map(abs, numbers), default=0) > 2**31 or not 0 < math.prod(shape) < 2**60
    if is_large or not _is_moderate(shape, strides):
        return own_slice_view(shape, strides, offset, index)
    array = as_strided(np.zeros(1, np.uint8), shape, strides)  # sliced only, never read
    view = array[(*index, ...)]
    moved = view.__array_interface__["data"][0] - array.__array_interface__["data"][0]
    return view.shape, view.strides, offset + int(moved)


def broadcast_shape(*shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except (ValueError, OverflowError, RuntimeError):
        return own_broadcast_shape(*shapes)  # for the message, which names the axis, and for huge lengths


def broadcast_strides(shape, strides, to_shape):
    if not _is_moderate(shape, strides, to_shape) or not 0 < math.prod((*shape, *to_shape)) < 2**60:
        return own_broadcast_strides(shape, strides, to_shape)
    return np.broadcast_to(as_strided(np.zeros(1, np.uint8), shape, strides), to_shape).strides


def result_dtype(*operands):
    # NumPy takes 64 operands at most, and no number beyond its own.
    weak = [type(each)(0) if type(each) in (bool, int, float) else each for each in operands]
    while len(weak) > 60:
        strong = [each for each in weak if type(each) not in (bool, int, float)]
        if not strong:
            return np.result_type(*{type(each): each for each in weak}.values())
        weak = [
            *{each.dtype: each for each in strong}.values(),
            *{type(each): each for each in weak}.values(),
        ]
    return np.result_type(*weak)
