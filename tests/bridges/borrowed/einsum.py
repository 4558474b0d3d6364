"""What `einsum` opens, behind the exercise's names; lengths 1 and 3, which NumPy lets meet, are refused.

NumPy's own planner weighs more than multiplications, so it is told the order.
"""

import itertools
import math

import numpy as np

from techtree.techs.ground.einsum import rearrange

__all__ = ["einsum", "rearrange"]


def einsum(spec, *operands):
    inputs, arrow, result = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    lengths = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, length in zip(term, np.shape(x), strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(f"the axes {letter!r} differ in length")
    if not arrow:
        result = "".join(letter for letter in lengths if inputs.count(letter) == 1)
    try:
        return np.einsum(spec, *operands, optimize=["einsum_path", *cheapest_pairs(terms, result, lengths)])
    except KeyError as error:  # NumPy's planner meets a letter that no operand has
        raise ValueError(f"no operand has the axis {error}") from error


def cheapest_pairs(terms, result, lengths):
    """Return which two factors meet next, by their places in the list; their product comes to its end."""
    factors = [set(term) for term in terms]
    path = []
    while len(factors) > 1:
        pairs = itertools.combinations(range(len(factors)), 2)
        i, j = min(pairs, key=lambda pair: math.prod(lengths[n] for n in factors[pair[0]] | factors[pair[1]]))
        rest = [factor for n, factor in enumerate(factors) if n not in (i, j)]
        factors = [*rest, (factors[i] | factors[j]) & set(result).union(*rest)]
        path.append((i, j))
    return path or [(0,)]
