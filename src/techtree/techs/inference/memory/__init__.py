"""A memory of exact text beside a language model: what followed where the last tokens stood before."""

from techtree.techs.inference.memory.memory import (
    GrowingIndex,
    SuffixIndex,
    agreement,
    fit_weights,
    longest_match,
    mix,
    propose,
)

__all__ = ["GrowingIndex", "SuffixIndex", "agreement", "fit_weights", "longest_match", "mix", "propose"]
