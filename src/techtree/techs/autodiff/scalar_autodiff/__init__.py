"""Derivatives of a whole program, one number at a time."""

from .scalar_autodiff import Value, topological_order

__all__ = ["Value", "topological_order"]
