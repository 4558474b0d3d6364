"""Axes with names: multiply, sum and rearrange arrays by writing down which axis is which.

Claim: matrix products, outer products, sums, traces, diagonals and transposes are one operation. Name every axis;
axes of the same name run together; what the result does not name is summed.

Idea: two arrays are contracted by one matrix product, once their axes are sorted into four groups: in both and
kept, in the left only, in the right only, in both and summed. The product over all names at once, which is the
definition, is never in memory.

Legend: a *term* is the list of names of one array's axes. Names are letters; those of the axes behind ``...`` are
the numbers -1, -2 and so on, counted from the last, as broadcasting aligns them.

Left out: a search for the best order of contraction. The cheapest pair comes next, which is not always best.

Paper: Rogozhnikov (2022), https://openreview.net/forum?id=oapKSVM2bcj
"""

import math
import re
from collections.abc import Collection
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import as_strided


def einsum(spec: str, *operands: np.ndarray) -> np.ndarray:
    """Multiply arrays along axes of the same name, and sum over the names that the result does not have.

    Parameters
    ----------
    spec
        One term for each operand, separated by commas: a letter for each axis. A letter twice in a term takes the
        diagonal. After ``->`` the term of the result, in which letters do not repeat. Without ``->`` the result
        has the letters that occur once in all, in the order of the alphabet (capitals first). Once in a term,
        ``...`` stands for any number of axes, also none. They broadcast as NumPy's do and are kept: where the
        result's term has ``...``, or in front when there is no ``->``. Spaces mean nothing.
    operands
        Arrays of numbers, at least one. Not changed.

    Returns
    -------
    np.ndarray
        Of the dtype of the product. May share memory with an operand if nothing is multiplied or summed.

    Raises
    ------
    ValueError
        When there are more or fewer terms than operands; a term does not fit the number of its operand's axes;
        axes of one letter differ in length, also 1 and 3 (the message names the letter); the result's term repeats
        a letter, or has one that no operand has; ``...`` cannot broadcast, or only the result's term lacks it;
        there is any other character.

    Notes
    -----
    For ``"ij,jk->ik"``: ``result[i, k] = sum over j of a[i, j] * b[j, k]``.

    Examples
    --------
    >>> a, b = np.array([[1, 2], [3, 4]]), np.array([10, 1])
    >>> einsum("ij,j->i", a, b).tolist(), einsum("ii->", a).tolist(), einsum("i,j->ij", b, b).tolist()
    ([12, 34], 5, [[100, 10], [10, 1]])
    """
    arrays = [np.asarray(x) for x in operands]
    terms, result = _parse(spec, [x.ndim for x in arrays])
    _check_lengths(terms, arrays)
    factors = [_diagonal(x, term) for x, term in zip(arrays, terms, strict=True)]
    while len(factors) > 1:
        pair = min(combinations(factors, 2), key=_multiplications)
        others = [factor for factor in factors if factor is not pair[0] and factor is not pair[1]]
        kept = {*result}.union(*(term for _, term in others))
        factors = [*others, _contract(*pair, kept)]
    return _arrange(*factors[0], result)


def rearrange(x: np.ndarray, pattern: str, /, **lengths: int) -> np.ndarray:
    """Reorder, split and merge axes by name: ``rearrange(x, "b t (h d) -> b h t d", h=4)``.

    Parameters
    ----------
    x
        An array, or anything with a ``shape`` and methods ``reshape(shape)`` and ``transpose(order)``, called with
        one tuple each: nothing else is used.
    pattern
        Names of the axes before and after, separated by spaces. In parentheses stand the names of the parts of one
        axis, the last running fastest; ``()`` is an axis of length 1. Each name stands once on each side.
    lengths
        Of axes or parts, at least 1. Of the parts of one axis, one may be left to be computed.

    Returns
    -------
    np.ndarray
        The same entries, or a view of them, as ``reshape`` and ``transpose`` give them.

    Raises
    ------
    ValueError
        When the pattern is malformed, the sides have different names, a name repeats, the axes are not as many as
        those of ``x``, lengths do not multiply to that of their axis or are not determined, or a length is
        given for an unknown name.

    Examples
    --------
    >>> rearrange(np.arange(6), "(row column) -> column row", row=2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    sides = [_groups(side) for side in pattern.split("->")]
    names = [[name for group in side for name in group] for side in sides]
    if len(sides) != 2 or sorted(names[0]) != sorted(names[1]) or len({*names[0]}) < len(names[0]):
        raise ValueError(f"a pattern must have the same names, once each, on both sides of ->; got {pattern!r}")
    if len(sides[0]) != len(x.shape):
        raise ValueError(f"{pattern!r} must begin with as many axes as the shape {x.shape} has")
    if unknown := lengths.keys() - {*names[0]}:
        raise ValueError(f"lengths must be of names in {pattern!r}; got {', '.join(unknown)}")
    for group, length in zip(sides[0], x.shape, strict=True):
        missing = [name for name in group if name not in lengths]
        given = math.prod(lengths[name] for name in group if name in lengths)
        if len(missing) > 1 or given < 1 or length % given or (not missing and length != given):
            raise ValueError(f"the parts {group} must multiply to {length}; got {lengths}")
        lengths |= dict.fromkeys(missing, length // given)
    parts = x.reshape(tuple(lengths[name] for name in names[0]))
    reordered = parts.transpose(tuple(names[0].index(name) for name in names[1]))
    return reordered.reshape(tuple(math.prod(lengths[name] for name in group) for group in sides[1]))


def _parse(spec: str, n_axes: list[int]) -> tuple[list[list], list]:
    """Return the names of each operand's axes, and of the result's."""
    inputs, arrow, output = spec.replace(" ", "").partition("->")
    texts = inputs.split(",")
    if not all(re.fullmatch(r"[a-zA-Z]*(\.\.\.)?[a-zA-Z]*", text) for text in [*texts, output]):
        raise ValueError(f"a term must be letters and at most one '...'; got {spec!r}")
    if len(texts) != len(n_axes):
        raise ValueError(f"{spec!r} must have one term for each of {len(n_axes)} operands")
    terms = []
    for text, n in zip(texts, n_axes, strict=True):
        n_more = n - len(text.replace("...", ""))
        if n_more < 0 or (n_more > 0 and "..." not in text):
            raise ValueError(f"the term {text!r} must fit an operand of {n} axes")
        terms.append(_names(text, n_more))
    known = [name for term in terms for name in term]
    if not arrow:
        output = "..." + "".join(sorted(n for n in known if isinstance(n, str) and known.count(n) == 1))
    result = _names(output, -min((n for n in known if isinstance(n, int)), default=0))
    if len({*result}) < len(result) or {*result} - {*known} or ("..." in inputs and "..." not in output):
        raise ValueError(f"a result must have names of the operands, once each, and their '...'; got {spec!r}")
    return terms, result


def _names(text: str, n_more: int) -> list:
    before, dots, after = text.partition("...")
    return [*before, *(range(-n_more, 0) if dots else ()), *after]


def _check_lengths(terms: list[list], arrays: list[np.ndarray]) -> None:
    """Raise unless axes of one letter have one length, and those of one number broadcast."""
    found = {}
    for name, length in [axis for term, x in zip(terms, arrays, strict=True) for axis in zip(term, x.shape)]:
        known = found.setdefault(name, length)
        if known != length and (isinstance(name, str) or 1 not in (known, length)):
            raise ValueError(f"the axes {name!r} must have one length; got {known} and {length}")
        found[name] = length if known == 1 else known


def _diagonal(x: np.ndarray, term: list) -> tuple[np.ndarray, list]:
    """Make one axis of all axes of the same name: a step along it is a step along each of them."""
    names = list(dict.fromkeys(term))
    strides = [sum(s for n, s in zip(term, x.strides, strict=True) if n == name) for name in names]
    return as_strided(x, [x.shape[term.index(name)] for name in names], strides), names


def _multiplications(pair: tuple) -> int:
    """Count the entries of the product of two factors, before any sum."""
    sizes = [dict(zip(term, x.shape, strict=True)) for x, term in pair]
    return math.prod(max(size.get(name, 1) for size in sizes) for name in sizes[0] | sizes[1])


def _contract(left: tuple, right: tuple, kept: Collection) -> tuple[np.ndarray, list]:
    """Multiply two factors, and sum over the names that are not kept."""
    (a, a_term), (b, b_term) = left, right
    both = [name for name in a_term if name in b_term]
    batch, summed = [n for n in both if n in kept], [n for n in both if n not in kept]
    a_only = [name for name in a_term if name in kept and name not in both]
    b_only = [name for name in b_term if name in kept and name not in both]
    a, b = _arrange(a, a_term, batch + a_only + summed), _arrange(b, b_term, batch + summed + b_only)
    n, n_rows, n_summed = len(batch), len(batch + a_only), len(batch + summed)
    rows, columns = a.shape[n:n_rows], b.shape[n_summed:]
    inner = math.prod(a.shape[n_rows:])
    product = a.reshape(*a.shape[:n], math.prod(rows), inner) @ b.reshape(*b.shape[:n], inner, math.prod(columns))
    return product.reshape(product.shape[:-2] + rows + columns), batch + a_only + b_only


def _arrange(x: np.ndarray, term: list, names: list) -> tuple[np.ndarray, list]:
    """Sum over all axes but those named, and put these in order."""
    dropped = tuple(axis for axis, name in enumerate(term) if name not in names)
    remaining = [name for name in term if name in names]
    total = x.sum(axis=dropped, dtype=x.dtype) if dropped else x
    return total.transpose([remaining.index(name) for name in names])
