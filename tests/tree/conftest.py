"""The small tree, for all tests of the tree's engine."""

from small_tree import small_package, small_tree

__all__ = ["small_package", "small_tree"]
