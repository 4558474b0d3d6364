"""A feed-forward layer in which one half decides how much of the other half passes."""

from techtree.techs.transformer.swiglu.swiglu import SwiGLU, hidden_width

__all__ = ["SwiGLU", "hidden_width"]
