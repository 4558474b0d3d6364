"""What `einsum` opens, behind the exercise's names; lengths 1 and 3, which NumPy lets meet, are refused."""

import numpy as np

from techtree.techs.ground.einsum import rearrange

__all__ = ["einsum", "rearrange"]


def einsum(spec, *operands):
    terms = spec.replace(" ", "").partition("->")[0].split(",")
    lengths = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, length in zip(term, np.shape(x), strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(f"the axes {letter!r} differ in length")
    try:
        return np.einsum(spec, *operands, optimize="greedy")
    except KeyError as error:  # NumPy's planner meets a letter that no operand has
        raise ValueError(f"no operand has the axis {error}") from error
