"""Rows of mean 0 and variance 1, whatever came in."""

from .layernorm import LayerNorm

__all__ = ["LayerNorm"]
