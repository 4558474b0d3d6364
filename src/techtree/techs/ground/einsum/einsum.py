"""Axes with names: multiply, sum and rearrange arrays by writing down which axis is which.

Claim: matrix products, outer products, sums, traces, diagonals and transposes are one operation. Name every
axis; axes of the same name run together; what the result does not name is summed.

Idea: two arrays are contracted by one matrix product, once their axes are sorted into four groups: in both
and kept, in the left only, in the right only, in both and summed. The product over all names at once, which
is the definition, is never in memory.

Legend: a *term* names the axes of one array, ``"bqd"``. A *factor* is an array together with its term.

Left out: ``...`` for axes without a name, and a search for the best order of contraction (the cheapest pair
comes next, which is not always best).

Paper: Rogozhnikov (2022), https://openreview.net/forum?id=oapKSVM2bcj
"""

import math
import re
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import as_strided

Factor = tuple[np.ndarray, str]


def einsum(spec: str, *operands: np.ndarray) -> np.ndarray:
    """Multiply arrays along axes of the same name, and sum over the names that the result does not have.

    Parameters
    ----------
    spec
        One term for each operand, separated by commas: a letter (``a`` to ``z``, ``A`` to ``Z``) for each
        axis. An array without axes has an empty term. A letter twice in a term takes the diagonal. After
        ``->`` the term of the result, which repeats no letter. Without ``->`` the result has the letters that
        occur once in all terms together, sorted, capitals first. Spaces mean nothing.
    operands
        Arrays of numbers, at least one. Not changed.

    Returns
    -------
    np.ndarray
        Of the dtype of the product. May share memory with an operand if nothing is multiplied or summed.

    Raises
    ------
    ValueError
        When there are more or fewer terms than operands; a term has more or fewer letters than its operand
        axes; axes of one letter differ in length, also 1 and 3 (the message names the letter in quotes); the
        result repeats a letter, or has one that no operand has; or there is any other character.

    Notes
    -----
    For ``"ij,jk->ik"``: ``result[i, k] = sum over j of a[i, j] * b[j, k]``. No product over all letters of
    two operands is in memory before it is summed: beside them and their result there may be copies of these.
    More operands are contracted two at a time, next those two that need the fewest multiplications, one for
    each combination of positions of their letters.

    Examples
    --------
    >>> a, b = np.array([[1, 2], [3, 4]]), np.array([10, 1])
    >>> einsum("ij,j->i", a, b).tolist(), einsum("ii->", a).tolist(), einsum("i,j->ij", b, b).tolist()
    ([12, 34], 5, [[100, 10], [10, 1]])
    """
    arrays = [np.asarray(x) for x in operands]
    terms, result = _parse(spec)
    n_axes = [x.ndim for x in arrays]
    if [len(term) for term in terms] != n_axes:
        raise ValueError(f"the terms {terms} must name each axis of operands with {n_axes} axes")
    lengths = {}
    for letter, length in zip("".join(terms), [n for x in arrays for n in x.shape], strict=True):
        if lengths.setdefault(letter, length) != length:
            raise ValueError(f"the axes {letter!r} must be equally long; got {lengths[letter]} and {length}")
    factors = [_diagonal(x, term) for x, term in zip(arrays, terms, strict=True)]
    while len(factors) > 1:
        left, right = min(combinations(factors, 2), key=_cost)
        factors = [factor for factor in factors if factor is not left and factor is not right]
        factors.append(_contract(left, right, result + "".join(term for _, term in factors)))
    ((product, term),) = factors
    return _arrange(product, term, result)


def rearrange(x: np.ndarray, pattern: str, /, **lengths: int) -> np.ndarray:
    """Reorder, split and merge axes by name: ``rearrange(x, "b t (h d) -> b h t d", h=4)``.

    Parameters
    ----------
    x
        An array, or anything with a ``shape`` and methods ``reshape(shape)`` and ``transpose(order)`` that
        take one tuple: nothing else is used.
    pattern
        Names of the axes before and after, separated by spaces. Parentheses enclose the parts of one axis,
        the last running fastest; ``()`` is an axis of length 1. Each name stands once on each side.
    lengths
        Of axes or parts, at least 1. Among the parts of one axis, one may be left to be computed.

    Returns
    -------
    np.ndarray
        The same entries, or a view of them, as ``reshape`` and ``transpose`` give them.

    Raises
    ------
    ValueError
        When the pattern is malformed, the sides have different names, a name repeats, the axes are not as
        many as those of ``x``, lengths do not multiply to that of their axis or do not determine each part,
        or a length is given for an unknown name.

    Examples
    --------
    >>> rearrange(np.arange(6), "(row column) -> column row", row=2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    sides = [_groups(side) for side in pattern.split("->")]
    names = [[name for group in side for name in group] for side in sides]
    if len(sides) != 2 or sorted(names[0]) != sorted(names[1]) or len({*names[0]}) < len(names[0]):
        raise ValueError(f"a pattern must have the same names, once each, beside one ->; got {pattern!r}")
    if len(sides[0]) != len(x.shape) or not lengths.keys() <= {*names[0]}:
        raise ValueError(f"{pattern!r} must name each axis of the shape {x.shape}, and all of {[*lengths]}")
    for group, length in zip(sides[0], x.shape, strict=True):
        missing = [name for name in group if name not in lengths]
        given = math.prod(lengths[name] for name in group if name in lengths)
        if len(missing) > 1 or given < 1 or length % given or (not missing and length != given):
            raise ValueError(f"the lengths of {group} must multiply to {length}; given are {lengths}")
        for name in missing:
            lengths[name] = length // given
    parts = x.reshape(tuple(lengths[name] for name in names[0]))
    reordered = parts.transpose(tuple(names[0].index(name) for name in names[1]))
    return reordered.reshape(tuple(math.prod(lengths[name] for name in group) for group in sides[1]))


def _parse(spec: str) -> tuple[list[str], str]:
    """Return the terms of the operands, and that of the result."""
    spec = spec.replace(" ", "")
    if not re.fullmatch(r"[a-zA-Z,]*(->[a-zA-Z]*)?", spec):
        raise ValueError(f"a spec must be letters, commas and at most one '->'; got {spec!r}")
    inputs, arrow, result = spec.partition("->")
    letters = inputs.replace(",", "")
    if not arrow:
        result = "".join(letter for letter in sorted(letters) if letters.count(letter) == 1)
    if len({*result}) < len(result) or not {*result} <= {*letters}:
        raise ValueError(f"the result must have letters of the operands, once each; got {spec!r}")
    return inputs.split(","), result


def _diagonal(x: np.ndarray, term: str) -> Factor:
    """Make one axis of those that share a letter: a step along it is a step along each of them."""
    letters = "".join(dict.fromkeys(term))
    if letters == term:
        return x, term
    strides = [sum(s for n, s in zip(term, x.strides, strict=True) if n == letter) for letter in letters]
    return as_strided(x, [x.shape[term.index(letter)] for letter in letters], strides), letters


def _cost(pair: tuple[Factor, Factor]) -> int:
    """Count the multiplications when two factors are contracted: one for each combination of positions."""
    lengths = [dict(zip(term, x.shape, strict=True)) for x, term in pair]
    return math.prod((lengths[0] | lengths[1]).values())


def _contract(left: Factor, right: Factor, wanted: str) -> Factor:
    """Multiply two factors, and sum over the letters that nobody wants any more."""
    (a, a_term), (b, b_term) = left, right
    batch = "".join(n for n in a_term if n in b_term and n in wanted)
    summed = "".join(n for n in a_term if n in b_term and n not in wanted)
    rows = "".join(n for n in a_term if n not in b_term and n in wanted)
    columns = "".join(n for n in b_term if n not in a_term and n in wanted)
    lengths = dict(zip(a_term + b_term, a.shape + b.shape, strict=True))

    def shape(*groups: str) -> list[int]:
        return [lengths[n] for n in batch] + [math.prod(lengths[n] for n in group) for group in groups]

    a, b = _arrange(a, a_term, batch + rows + summed), _arrange(b, b_term, batch + summed + columns)
    product = a.reshape(shape(rows, summed)) @ b.reshape(shape(summed, columns))
    return product.reshape(shape(*rows, *columns)), batch + rows + columns


def _arrange(x: np.ndarray, term: str, letters: str) -> np.ndarray:
    """Sum over all axes but those of the letters, and put these in order."""
    others = tuple(axis for axis, letter in enumerate(term) if letter not in letters)
    kept = [letter for letter in term if letter in letters]
    total = x.sum(axis=others, dtype=x.dtype) if others else x
    return np.transpose(total, [kept.index(letter) for letter in letters])


def _groups(side: str) -> list[list[str]]:
    """Return the names of the parts of each axis: ``[["t"], ["h", "d"]]`` for ``"t (h d)"``."""
    found = re.findall(r"\(([^()]*)\)|([^\s()]+|[()])", side)
    groups = [[single] if single else inside.split() for inside, single in found]
    if not all(name.isidentifier() for group in groups for name in group):
        raise ValueError(f"axes must be names, or names in parentheses; got {side!r}")
    return groups
