"""Models as objects whose attributes hold parameters, found, named, saved and loaded by a walk."""

from .modules import Module, Parameter

__all__ = ["Module", "Parameter"]
