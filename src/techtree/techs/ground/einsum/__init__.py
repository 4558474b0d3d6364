"""Axes with names: multiply, sum and rearrange arrays by writing down which axis is which."""

from .einsum import einsum, rearrange

__all__ = ["einsum", "rearrange"]
