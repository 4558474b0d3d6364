"""Rows of mean square 1: the norm of most models of today."""

from .rmsnorm import RMSNorm

__all__ = ["RMSNorm"]
