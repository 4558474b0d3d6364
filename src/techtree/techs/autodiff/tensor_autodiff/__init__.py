"""Arrays that remember how they were computed, and gradients for all of them in one backward pass."""

from .tensor_autodiff import Tensor, concatenate, einsum, no_grad, record, where

__all__ = ["Tensor", "concatenate", "einsum", "no_grad", "record", "where"]
