"""The layer that most of a network's weights belong to, and how large they are at the start."""

from .linear import Linear, fan_average_uniform, fan_in_normal, gain_of, orthogonal

__all__ = ["Linear", "fan_average_uniform", "fan_in_normal", "gain_of", "orthogonal"]
