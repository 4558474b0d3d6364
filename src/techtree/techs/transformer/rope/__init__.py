"""Positions as rotations of queries and keys: scores depend on distances only."""

from techtree.techs.transformer.rope.rope import RopeScaling, frequencies, rotate, rotation, to_half_split

__all__ = ["RopeScaling", "frequencies", "rotate", "rotation", "to_half_split"]
