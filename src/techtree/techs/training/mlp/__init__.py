"""A network of linear layers with a bend between them, trained and measured."""

from .mlp import MLP, accuracy, fit

__all__ = ["MLP", "accuracy", "fit"]
