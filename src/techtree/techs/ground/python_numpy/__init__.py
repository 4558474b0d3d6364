"""What an array is: bytes, and a rule for finding an entry in them."""

from .python_numpy import broadcast_shape, broadcast_strides, c_strides, result_dtype, slice_view

__all__ = ["broadcast_shape", "broadcast_strides", "c_strides", "result_dtype", "slice_view"]
