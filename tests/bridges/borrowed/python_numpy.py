"""What `python_numpy` opens, behind the exercise's names; `c_strides` has no counterpart without memory."""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from techtree.techs.ground.python_numpy import broadcast_shape as own_broadcast_shape
from techtree.techs.ground.python_numpy import c_strides

__all__ = ["broadcast_shape", "broadcast_strides", "c_strides", "result_dtype", "slice_view"]


def slice_view(shape, strides, offset, index):
    array = as_strided(np.zeros(1, np.uint8), shape, strides)  # sliced only, never read
    view = array[(*index, ...)]
    moved = view.__array_interface__["data"][0] - array.__array_interface__["data"][0]
    return view.shape, view.strides, offset + moved


def broadcast_shape(*shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return own_broadcast_shape(*shapes)  # for the message, which names the axis


def broadcast_strides(shape, strides, to_shape):
    return np.broadcast_to(as_strided(np.zeros(1, np.uint8), shape, strides), to_shape).strides


def result_dtype(*operands):
    return np.result_type(*operands)
