"""Derivatives measured by central differences, and a check of gradients against them."""

from .gradcheck import check_gradient, directional_derivative, numerical_gradient

__all__ = ["check_gradient", "directional_derivative", "numerical_gradient"]
