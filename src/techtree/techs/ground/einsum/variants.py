"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import itertools
import math
import re

import numpy as np

from techtree.techs import battery


def _equal(known, length):
    return known if known == length else None


def _parsed(spec, operands, settle=_equal):
    """Terms, result and lengths of a spec, with every check, so that only what follows is different."""
    spec = spec.replace(" ", "")
    if not re.fullmatch(r"[a-zA-Z,]*(->[a-zA-Z]*)?", spec):
        raise ValueError(f"malformed: {spec!r}")
    inputs, arrow, result = spec.partition("->")
    terms = inputs.split(",")
    letters = "".join(terms)
    if not arrow:
        result = "".join(sorted(n for n in letters if letters.count(n) == 1))
    if [len(term) for term in terms] != [np.ndim(x) for x in operands]:
        raise ValueError("terms and operands differ")
    if len(set(result)) < len(result) or not set(result) <= set(letters):
        raise ValueError("a letter repeats or is unknown in the result")
    lengths = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, length in zip(term, np.shape(x), strict=True):
            lengths[letter] = settle(lengths.get(letter, length), length)
            if lengths[letter] is None:
                raise ValueError(f"the axes '{letter}' differ in length")
    return terms, result, lengths


def _aligned(x, term, letters):
    """Take diagonals, and give an array one axis for each letter, of length 1 where its term has none."""
    x = np.asarray(x)
    while len(set(term)) < len(term):
        letter = next(n for n in term if term.count(n) > 1)
        first, second = [axis for axis, n in enumerate(term) if n == letter][:2]
        x = np.diagonal(x, axis1=first, axis2=second)
        term = "".join(n for axis, n in enumerate(term) if axis not in (first, second)) + letter
    x = x.transpose(sorted(range(len(term)), key=lambda axis: letters.index(term[axis])))
    return x.reshape([x.shape[sorted(term, key=letters.index).index(n)] if n in term else 1 for n in letters])


def _broadcast_einsum(spec, *operands, settle=_equal):
    """The definition with broadcasting: align all names, multiply, sum."""
    terms, result, lengths = _parsed(spec, operands, settle)
    letters = result + "".join(n for n in lengths if n not in result)
    product = functools.reduce(
        np.multiply, [_aligned(x, term, letters) for term, x in zip(terms, operands, strict=True)]
    )
    return product.sum(axis=tuple(range(len(result), len(letters))), dtype=product.dtype)


def _looping_einsum(spec, *operands):
    """The definition, one place of the result after the other."""
    terms, result, lengths = _parsed(spec, operands)
    arrays = [np.asarray(x) for x in operands]
    summed = [n for n in lengths if n not in result]
    out = np.zeros([lengths[n] for n in result], np.result_type(*arrays))
    for place in np.ndindex(out.shape):
        fixed = dict(zip(result, place, strict=True))
        for inner in itertools.product(*(range(lengths[n]) for n in summed)):
            at = fixed | dict(zip(summed, inner, strict=True))
            entry = out.dtype.type(1)
            for x, term in zip(arrays, terms, strict=True):
                entry = entry * x[tuple(at[n] for n in term)]
            out[place] += entry
    return out


def _first_entry_diagonal(x, term):
    """Take the first position along the second axis of the same letter."""
    while len(set(term)) < len(term):
        axis = next(axis for axis, letter in enumerate(term) if letter in term[:axis])
        x, term = x.take(0, axis), term[:axis] + term[axis + 1 :]
    return x, term


def _summed_diagonal(x, term):
    while len(set(term)) < len(term):
        axis = next(axis for axis, letter in enumerate(term) if letter in term[:axis])
        x, term = x.sum(axis), term[:axis] + term[axis + 1 :]
    return x, term


def _reshape_only(x, pattern, /, **lengths):
    """A head split without a transpose: right shape, wrong places."""
    _, after = pattern.split("->")
    names = after.replace("(", " ( ").replace(")", " ) ").split()
    known = dict(lengths)
    before = re.findall(r"\(([^()]*)\)|(\S+)", pattern.split("->")[0])
    for (inside, single), length in zip(before, x.shape, strict=True):
        group = [single] if single else inside.split()
        given = math.prod(known.get(n, 1) for n in group)
        known |= {n: length // given for n in group if n not in known}
    shape, inside = [], None
    for name in names:
        if name == "(":
            inside = 1
        elif name == ")":
            shape.append(inside)
            inside = None
        elif inside is None:
            shape.append(known[name])
        else:
            inside *= known[name]
    return x.reshape(tuple(shape))


_TRANSPOSED = "parts.transpose(tuple(names[0].index(name) for name in names[1]))"
_KEPT = "[kept.index(letter) for letter in letters]"
_WANTED = 'result + "".join(term for _, term in factors)'
_PARTS = "parts = x.reshape(tuple(lengths[name] for name in names[0]))"

MISTAKES = {
    "einsum without an arrow orders the result by first appearance, not by the alphabet": [
        ("for letter in sorted(letters) if", "for letter in letters if")
    ],
    "einsum without an arrow keeps every letter, and sums nothing": [
        ("for letter in sorted(letters) if letters.count(letter) == 1", "for letter in sorted({*letters})")
    ],
    "einsum without an arrow keeps the letters that repeat, and sums the others": [
        (
            "for letter in sorted(letters) if letters.count(letter) == 1",
            "for letter in sorted({*letters}) if letters.count(letter) > 1",
        )
    ],
    "einsum treats an arrow with nothing behind it as no arrow": [("if not arrow:", "if not result:")],
    "einsum sums a letter as soon as two operands share it, though a third one needs it": [
        (_WANTED, "result")
    ],
    "einsum sums every letter that two operands share, as tensordot does": [
        (
            "batch = ",
            'wanted = "".join(n for n in wanted if n not in b_term or n not in a_term)\n    batch = ',
        )
    ],
    "einsum gives the result the order of the operands' letters": [(_KEPT, "range(len(kept))")],
    "einsum takes the inverse of the permutation": [(_KEPT, "[letters.index(letter) for letter in kept]")],
    "einsum takes the first entry where a letter repeats in a term, not the diagonal": {
        "_diagonal": _first_entry_diagonal
    },
    "einsum sums where a letter repeats in a term instead of taking the diagonal": {
        "_diagonal": _summed_diagonal
    },
    "einsum takes the diagonal of two axes, though three have the letter": [
        (
            'letters = "".join(dict.fromkeys(term))\n    if',
            "if len(term) > len({*term}) + 1:\n        x, term = x.take(0, -1), term[:-1]\n"
            '    letters = "".join(dict.fromkeys(term))\n    if',
        )
    ],
    "einsum lets an axis of length 1 run together with a longer one": {
        "einsum": functools.partial(
            _broadcast_einsum, settle=lambda a, b: a if b in (a, 1) else b if a == 1 else None
        )
    },
    "einsum cuts axes of one letter to the shortest": [
        ("if lengths.setdefault(letter, length) != length", "if length < lengths.setdefault(letter, length)"),
        (
            'raise ValueError(f"the axes {letter!r} must be equally long; got {lengths[letter]} and {length}")',
            "lengths[letter] = length",
        ),
        (
            "    factors = [_diagonal(x, term) for",
            "    arrays = [x[tuple(slice(lengths[n]) for n in t)] for x, t in zip(arrays, terms, strict=True)]\n"
            "    factors = [_diagonal(x, term) for",
        ),
    ],
    "einsum ignores operands without a term": [
        ("    n_axes = [", "    arrays = arrays[: len(terms)]\n    n_axes = ["),
    ],
    "einsum lets the result repeat a letter": [
        ("if len({*result}) < len(result) or not", 'result = "".join(dict.fromkeys(result))\n    if not')
    ],
    "einsum drops a letter of the result that no operand has": [
        (
            "if len({*result}) < len(result) or not {*result} <= {*letters}:",
            'result = "".join(n for n in result if n in letters)\n    if len({*result}) < len(result):',
        )
    ],
    "einsum cannot read spaces": [('    spec = spec.replace(" ", "")\n', "")],
    "einsum computes in float64 whatever it is given": [
        ("[np.asarray(x) for x in operands]", "[np.asarray(x, dtype=np.float64) for x in operands]")
    ],
    "einsum averages what it should sum": [
        ("total = x.sum(axis=others, dtype=x.dtype)", "total = x.mean(axis=others, dtype=x.dtype)")
    ],
    "einsum holds the product over all letters in memory before it sums": {"einsum": _broadcast_einsum},
    "einsum contracts its operands as they stand, however many multiplications that takes": [
        ("min(combinations(factors, 2), key=_cost)", "factors[:2]"),
    ],
    "einsum lets letters that one operand has alone meet the other before they are summed": [
        (
            "if n not in b_term and n in wanted)\n    columns",
            "if n not in b_term)\n    columns",
        ),
        (
            'columns = "".join(n for n in b_term if n not in a_term and n in wanted)',
            'columns = "".join(n for n in b_term if n not in a_term)',
        ),
    ],
    "rearrange reshapes without a transpose, and mixes heads with positions": {"rearrange": _reshape_only},
    "rearrange takes the inverse of the permutation": [
        (_TRANSPOSED, "parts.transpose(tuple(names[1].index(name) for name in names[0]))")
    ],
    "rearrange splits an axis with the first part running fastest": [
        (_PARTS, "names[0] = [name for group in sides[0] for name in group[::-1]]\n    " + _PARTS)
    ],
    "rearrange merges axes with the first part running fastest": [
        (_PARTS, "names[1] = [name for group in sides[1] for name in group[::-1]]\n    " + _PARTS)
    ],
    "rearrange turns its input into an array, and loses what was more than one": [
        (_PARTS, _PARTS.replace("x.reshape(", "np.asarray(getattr(x, '_data', x)).reshape("))
    ],
    "rearrange ignores lengths of unknown names": [(" or not lengths.keys() <= {*names[0]}:", ":")],
    "rearrange can only compute the last part of an axis": [
        (
            "missing = [name for name in group if name not in lengths]",
            "missing = [name for name in group[-1:] if name not in lengths]",
        )
    ],
    "rearrange knows axes by single letters only": [
        ("[single] if single else inside.split()", "[*single] if single else [*inside.replace(' ', '')]")
    ],
    "rearrange overlooks axes of length 1, written ()": [
        (
            "    if not all(name.isid",
            "    groups = [group for group in groups if group]\n    if not all(name.isid",
        )
    ],
    "rearrange remembers the lengths of the last call with the same pattern": [
        (
            "    sides = [_groups",
            "    _SEEN.setdefault(pattern, lengths)\n    lengths = _SEEN[pattern]\n    sides = [_groups",
        ),
        ("Factor = tuple", "_SEEN = {}\nFactor = tuple"),
    ],
}


def _by_adding(spec, *operands):
    """Contract the cheapest two until one is left, adding up one position of the summed letters at a time."""
    terms, result, lengths = _parsed(spec, operands)
    factors = [(np.asarray(x), term) for x, term in zip(operands, terms, strict=True)]

    def cost(pair):
        return math.prod(lengths[letter] for letter in {*factors[pair[0]][1], *factors[pair[1]][1]})

    while len(factors) > 1:
        pair = min(itertools.combinations(range(len(factors)), 2), key=cost)
        (a, a_term), (b, b_term) = (factors.pop(place) for place in reversed(pair))
        wanted = {*result}.union(*(term for _, term in factors))
        kept = sorted({*a_term, *b_term} & wanted)
        a = _broadcast_einsum(f"{a_term}->{_only(a_term, {*wanted, *b_term})}", a)
        b = _broadcast_einsum(f"{b_term}->{_only(b_term, {*wanted, *a_term})}", b)
        a_term, b_term = _only(a_term, {*wanted, *b_term}), _only(b_term, {*wanted, *a_term})
        summed = [letter for letter in a_term if letter not in wanted]
        a, b = _aligned(a, a_term, summed + kept), _aligned(b, b_term, summed + kept)
        total = np.zeros([lengths[letter] for letter in kept], np.result_type(a, b))
        for place in np.ndindex(a.shape[: len(summed)]):
            total += a[place] * b[place]
        factors.append((total, "".join(kept)))
    return _broadcast_einsum(f"{factors[0][1]}->{result}", factors[0][0])


def _only(term, letters):
    return "".join(letter for letter in dict.fromkeys(term) if letter in letters)


def _moving_rearrange(x, pattern, /, **lengths):
    """Split all axes, then move one after the other to the back, in the order wanted."""
    left, arrow, right = pattern.partition("->")
    if not arrow or "->" in right:
        raise ValueError("one arrow, please")
    sides = []
    for side in (left, right):
        groups, group = [], None
        for token in side.replace("(", " ( ").replace(")", " ) ").split():
            if token == "(" and group is None:
                group = []
            elif token == ")" and group is not None:
                groups.append(group)
                group = None
            elif token.isidentifier() and group is None:
                groups.append([token])
            elif token.isidentifier():
                group.append(token)
            else:
                raise ValueError(f"cannot read {token}")
        if group is not None:
            raise ValueError("( is not closed")
        sides.append(groups)
    names, wanted = ([name for group in side for name in group] for side in sides)
    if sorted(names) != sorted(wanted) or len(set(names)) != len(names) or set(lengths) - set(names):
        raise ValueError("names differ")
    if len(sides[0]) != len(x.shape) or any(length < 1 for length in lengths.values()):
        raise ValueError("axes differ")
    for group, length in zip(sides[0], x.shape, strict=True):
        for name in group:
            rest = [other for other in group if other != name]
            if name not in lengths and all(other in lengths for other in rest):
                lengths[name] = length // math.prod(lengths[other] for other in rest)
        if not all(name in lengths for name in group) or math.prod(lengths[n] for n in group) != length:
            raise ValueError("lengths do not fit")
    x = x.reshape(tuple(lengths[name] for name in names))
    for name in wanted:
        axis = names.index(name)
        order = [*range(axis), *range(axis + 1, len(names)), axis]
        x, names = x.transpose(tuple(order)), [names[i] for i in order]
    return x.reshape(tuple(math.prod(lengths[name] for name in group) for group in sides[1]))


def _gathering_entries(x, pattern, /, **lengths):
    """Through the flat positions: rearrange an array of addresses, and take the entries there."""
    if not isinstance(x, np.ndarray):
        return _moving_rearrange(x, pattern, **lengths)
    places = _moving_rearrange(np.arange(x.size).reshape(x.shape), pattern, **lengths)
    return np.ravel(x)[places]


EQUIVALENTS = {
    "einsum that adds up one position of the summed letters at a time": {"einsum": _by_adding},
    "einsum that multiplies matrices in chunks of 64 summed positions": [
        (
            "product = a.reshape(shape(rows, summed)) @ b.reshape(shape(summed, columns))",
            "a, b = a.reshape(shape(rows, summed)), b.reshape(shape(summed, columns))\n"
            "    product = sum(a[..., i : i + 64] @ b[..., i : i + 64, :]"
            " for i in range(0, a.shape[-1] or 1, 64))",
        )
    ],
    "einsum with the second operand as the first": [
        ("_contract(left, right, result", "_contract(right, left, result")
    ],
    "rearrange by moving one axis at a time": {"rearrange": _moving_rearrange},
    "rearrange by gathering entries at rearranged addresses": {"rearrange": _gathering_entries},
}


class _Shaped:
    """What `rearrange` may ask for, and nothing else."""

    def __init__(self, data):
        self._data, self.shape = data, data.shape

    def reshape(self, shape):
        return _Shaped(self._data.reshape(shape))

    def transpose(self, order):
        return _Shaped(self._data.transpose(order))


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    a, b, c = rng.normal(size=(2, 3)), rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    cube, square = rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3))
    x = np.arange(24.0).reshape(2, 12)

    def einsum(spec, *operands):
        return lambda impl: impl.einsum(spec, *operands)

    def rearrange(x, pattern, **lengths):
        return lambda impl: impl.rearrange(x, pattern, **lengths)

    def memory(spec, *operands):
        def much(impl):
            impl.einsum(spec, *operands)
            return "much" if battery.peak_bytes(lambda: impl.einsum(spec, *operands)) > 100_000 else "little"

        return much

    scores, wide = rng.normal(size=(40, 40)), rng.normal(size=(2, 200))

    def twice(impl):
        impl.rearrange(x[0], "(p q) -> p q", p=2)
        return impl.rearrange(x[0], "(p q) -> p q", p=3)

    return {
        "a matrix product": einsum("ij,jk->ik", a, b),
        "a transposed product": einsum("ij,jk->ki", a, b),
        "a product without an arrow": einsum("jk,ij", b, a),
        "a transpose without an arrow": einsum("ba", a),
        "a sum": einsum("ij->j", a),
        "a sum of everything": einsum("ij->", a),
        "three axes in another order": einsum("ijk->kij", cube),
        "a batch": einsum("bij,bjk->bik", cube, cube[::-1]),
        "three operands": einsum("ij,jk,kj->ij", a, b, b.T),
        "a letter for three operands": einsum("ij,jk,kl->il", a, b, c),
        "a diagonal": einsum("ii->i", square),
        "a diagonal of three": einsum("iii->i", cube),
        "spaces": einsum("i j -> j i", a),
        "lengths 1 and 3": einsum("ij,jk->ik", a[:, :1], b),
        "lengths 2 and 3": einsum("ij,jk->ik", a[:, :2], b),
        "an operand too many": einsum("ij->j", a, b),
        "a repetition in the result": einsum("ij->jj", a),
        "an unknown letter in the result": einsum("ij->jk", a),
        "memory of a matrix product": memory("ij,jk->ik", scores, scores),
        "memory of letters that are summed alone": memory("ij,kl->", wide, wide),
        "memory of three operands": memory("ij,jk,k->i", wide.T, wide, wide[0]),
        "the dtype": lambda impl: str(
            np.asarray(impl.einsum("ij,jk->ik", a.astype("f4"), b.astype("f4"))).dtype
        ),
        "heads split": rearrange(x, "t (h d) -> h t d", h=3),
        "heads split by width": rearrange(x, "t (h d) -> h t d", d=4),
        "heads merged": rearrange(x.reshape(2, 3, 4), "t h d -> h (t d)"),
        "three names in another order": rearrange(x.reshape(2, 3, 4), "i j k -> k i j"),
        "long names": rearrange(x, "time (head width) -> head time width", head=3),
        "axes of length 1": rearrange(x, "t d -> t () d"),
        "an unknown length": rearrange(x, "t d -> d t", h=3),
        "no array": lambda impl: type(impl.rearrange(_Shaped(x), "t d -> d t")).__name__,
        "another length for the same pattern": twice,
    }
