"""The loss of a classifier and of a language model: how surprised it is by what came."""

from .cross_entropy import cross_entropy

__all__ = ["cross_entropy"]
