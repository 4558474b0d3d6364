"""The curves between two layers, with slopes that neither overflow nor vanish by rounding."""

from .activations import erf, gelu, gelu_tanh, relu, sigmoid, silu

__all__ = ["erf", "gelu", "gelu_tanh", "relu", "sigmoid", "silu"]
