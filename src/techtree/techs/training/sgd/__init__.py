"""Gradient descent with momentum, and the frame that every optimizer fills."""

from .sgd import SGD, Optimizer

__all__ = ["SGD", "Optimizer"]
