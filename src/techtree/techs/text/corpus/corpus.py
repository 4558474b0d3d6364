"""What a model may learn from, each text once, and nothing of it among the texts that measure the model.

Claim: a measurement on held-out files is worth as much as the wall between them and the training files. Code
is copied more than any other text, so a wall between *files* has holes; one between *groups* of near copies
has none.

Idea: two texts are as alike as the share of word runs that they have in common. The smallest of the hashed
runs of each is the same with just that probability (MinHash); a few such numbers together are a key under
which near copies meet in a dictionary, without comparing all pairs (locality-sensitive hashing).

Legend: a *shingle* is a run of neighbouring words; the *number* of a text is the BLAKE2b hash of its UTF-8
with a digest of 8 bytes (``hashlib.blake2b(..., digest_size=8)``), read as an integer, the lowest byte first.
A halved surrogate pair counts as the bytes that ``"surrogatepass"`` gives. ``J`` is the Jaccard similarity of
two sets: the size of their intersection over that of their union, and 1 for two empty sets.

Left out: fetching, files that are not text, generated code, secrets.

Paper: Broder (1997), https://doi.org/10.1109/SEQUEN.1997.666900
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations

import numpy as np

from techtree.techs.text.pretokenize import split as split_words

_PHRASES = (
    ("AGPL", ("gnu affero general public license",)),
    ("LGPL", ("gnu lesser general public license",)),
    ("GPL", ("gnu general public license",)),
    ("MPL", ("mozilla public license",)),
    ("Apache-2.0", ("licensed under the apache license version 2 0",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "endorse or promote products")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("MIT", ("permission is hereby granted free of charge to any person",)),
    ("ISC", ("permission to use copy modify and or distribute this software for any purpose",)),
    ("Unlicense", ("this is free and unencumbered software",)),
    ("PSF-2.0", ("licensed to psf under a contributor agreement",)),
)

_NO_NAMES = ("", "AND", "OR", "WITH", "(", ")")


def licence_of(text: str) -> str | None:
    """Find out under which licence a file says that it stands.

    Parameters
    ----------
    text
        Of a source file or of a licence.

    Returns
    -------
    str or None
        What the first line with ``SPDX-License-Identifier:`` has behind the colon, without one ``*/`` or
        ``-->`` at its end, and without blanks (`str.strip`) at both; lines end at a line feed. Where that
        leaves nothing, the line does not count.

        Without such a line, the first of these whose phrases, one or both, are in the text:

        - AGPL: "gnu affero general public license"
        - LGPL: "gnu lesser general public license"
        - GPL: "gnu general public license"
        - MPL: "mozilla public license"
        - Apache-2.0: "licensed under the apache license version 2 0"
        - BSD-3-Clause: "redistribution and use in source and binary forms", "endorse or promote products"
        - BSD-2-Clause: "redistribution and use in source and binary forms"
        - MIT: "permission is hereby granted free of charge to any person"
        - ISC: "permission to use copy modify and or distribute this software for any purpose"
        - Unlicense: "this is free and unencumbered software"
        - PSF-2.0: "licensed to psf under a contributor agreement"

        None without any: nobody has allowed anything. Phrases are looked for as whole words in the text in
        small letters (`str.lower`), with a blank for each run of characters other than a to z and 0 to 9, so
        that line ends and comment signs do not hide them.

    Examples
    --------
    >>> licence_of("# SPDX-License-Identifier: MIT OR Apache-2.0")
    'MIT OR Apache-2.0'
    >>> licence_of('''# Licensed under the Apache License,
    ... # Version 2.0 (the "License")''')
    'Apache-2.0'
    """
    for line in text.split("\n"):
        _, mark, behind = line.partition("SPDX-License-Identifier:")
        found = re.sub(r"(\*/|-->)$", "", behind.strip()).strip()
        if mark and found:
            return found
    words = f" {re.sub('[^a-z0-9]+', ' ', text.lower())} "
    for name, phrases in _PHRASES:
        if all(f" {phrase} " in words for phrase in phrases):
            return name
    return None


def is_permitted(
    licence: str | None,
    allowed: Collection[str] = (
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0", "Unlicense", "Zlib",
    ),
) -> bool:  # fmt: skip
    """Decide whether a licence lets a model learn from a file.

    Parameters
    ----------
    licence
        An SPDX expression: names of licences, ``AND``, ``OR``, ``WITH`` and an exception's name behind a
        licence, and round brackets. ``AND`` binds closer than ``OR``. Between words there are blanks; at
        brackets there may be. None is an unknown licence.
    allowed
        Names of licences.

    Returns
    -------
    bool
        A name is permitted if it is among the allowed, whether letters are small or capital; ``AND`` if both
        sides are, ``OR`` if one is; an exception changes nothing. None is not.

    Raises
    ------
    ValueError
        When the expression is none: empty, a bracket or a side is missing, names stand beside each other.

    Examples
    --------
    >>> [is_permitted(each) for each in ("mit", "GPL-3.0-only", "GPL-3.0-only OR MIT", None)]
    [True, False, True, False]
    """
    if licence is None:
        return False
    known = {name.lower() for name in allowed}
    words = re.findall(r"[()]|[^\s()]+", licence)[::-1]

    def operand() -> bool:
        word = words.pop() if words else ""
        if word == "(":
            found = alternatives()
            if not words or words.pop() != ")":
                raise ValueError(f"each bracket of a licence expression must be closed; got {licence!r}")
            return found
        if word in _NO_NAMES:
            raise ValueError(f"a licence must stand on each side of AND and OR; got {licence!r}")
        if words and words[-1] == "WITH":
            words.pop()
            if not words or words.pop() in _NO_NAMES:
                raise ValueError(f"an exception must have a name; got {licence!r}")
        return word.lower() in known

    def joined(operator: str, side: Callable[[], bool]) -> list[bool]:
        sides = [side()]
        while words and words[-1] == operator:
            words.pop()
            sides.append(side())
        return sides

    def alternatives() -> bool:
        return any(joined("OR", lambda: all(joined("AND", operand))))

    found = alternatives()
    if words:
        raise ValueError(f"a licence expression must end where it is complete; got {licence!r}")
    return found


def shingles(text: str, n_words: int = 5) -> frozenset[str]:
    r"""Return all runs of neighbouring words of a text.

    Parameters
    ----------
    text
        Its words are the pieces of `pretokenize.split`, without blanks (`str.strip`) at their ends; pieces of
        nothing but blanks are no words.
    n_words
        In a run, at least 1.

    Returns
    -------
    frozenset[str]
        The words of each run, joined by single blanks. Of a text with fewer words the only run is all of
        them; of one without words there is none.

    Raises
    ------
    ValueError
        When ``n_words`` is less than 1.

    Examples
    --------
    >>> sorted(shingles("y =  x + 1", 3))
    ['= x +', 'x + 1', 'y = x']
    """
    if n_words < 1:
        raise ValueError(f"a shingle has at least one word; got n_words={n_words}")
    words = [word for piece in split_words(text) if (word := piece.strip())]
    starts = range(max(1, len(words) - n_words + 1)) if words else ()
    return frozenset(" ".join(words[start : start + n_words]) for start in starts)


def minhash(text: str, n_hashes: int = 64, seed: int = 0) -> np.ndarray:
    """Return a signature: the smallest value that each of several hash functions has on the shingles.

    Parameters
    ----------
    text
        Of its `shingles`, of five words.
    n_hashes
        How many functions, at least 1.
    seed
        Any integer; each has functions of its own.

    Returns
    -------
    np.ndarray
        (n_hashes,), uint64. Function i has at a shingle the value ``(a * x + b) mod 2**64``: x is the number
        of the shingle, a the number of the text ``f"{seed} {i} factor"``, plus 1 if that is even, and b that
        of ``f"{seed} {i} offset"``. Without shingles all values are ``2**64 - 1``. Two texts have equal
        values with the probability J of their shingles, nearly independently from place to place.

    Raises
    ------
    ValueError
        When ``n_hashes`` is less than 1.

    Examples
    --------
    >>> a, b = minhash("a b c d e f g h i", 1000), minhash("a b c d e f g h X", 1000)
    >>> float(np.mean(a == b)), 4 / 6  # of five shingles each, four are the same
    (0.662, 0.6666666666666666)
    """
    return _signature(shingles(text), *_functions(n_hashes, seed))


def near_duplicates(
    texts: Sequence[str], threshold: float = 0.7, n_bands: int = 16, n_rows: int = 4
) -> list[list[int]]:
    """Put texts that are nearly the same into groups.

    Parameters
    ----------
    texts
        Any number of them.
    threshold
        The least J of the shingles (of five words) of two near duplicates; more than 0, at most 1.
    n_bands, n_rows
        Only texts are compared whose signatures (`minhash`, seed 0, ``n_bands * n_rows`` functions) agree in
        all rows of at least one band: band 0 is the first ``n_rows`` values, band 1 the next, and so on.
        Both are at least 1.

    Returns
    -------
    list[list[int]]
        The numbers of the texts, each in one group, also if it is alone there. Two texts are in one group if
        they were compared and have a J of at least the threshold, or a chain of such pairs leads from one to
        the other. Ascending in each group; groups in the order of their first numbers. The time must not grow
        with the square of the number of texts that are unlike, nor of those that are equal.

    Raises
    ------
    ValueError
        When threshold, n_bands or n_rows is not in its range.

    Examples
    --------
    >>> near_duplicates(["a b c d e f g h i j", "x = 1", "a b c d e f g h i  J"], threshold=0.6)
    [[0, 2], [1]]
    """
    if not 0 < threshold <= 1 or n_bands < 1 or n_rows < 1:
        raise ValueError(
            f"threshold must be more than 0 and at most 1, n_bands and n_rows at least 1; got {threshold}, "
            f"{n_bands} and {n_rows}"
        )
    functions = _functions(n_bands * n_rows)
    sets = [shingles(text) for text in texts]
    meetings: dict[tuple[int, bytes], list[int]] = {}
    first: dict[frozenset[str], int] = {}
    groups = _Groups(len(sets))
    for number, each in enumerate(sets):
        groups.join(first.setdefault(each, number), number)
        if first[each] == number:  # of equal ones, the first speaks for all
            for band, rows in enumerate(_signature(each, *functions).reshape(n_bands, n_rows)):
                meetings.setdefault((band, rows.tobytes()), []).append(number)
    for numbers in meetings.values():
        for a, b in combinations(numbers, 2):
            if groups.of(a) != groups.of(b) and _jaccard(sets[a], sets[b]) >= threshold:
                groups.join(a, b)
    return groups.lists()


def split(
    names: Sequence[str], groups: Iterable[Iterable[int]] = (), share: float = 0.1, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Say which texts a model learns from and which measure it.

    Parameters
    ----------
    names
        One for each text, all different.
    groups
        Numbers of texts (places in ``names``) that must stay on one side: near duplicates, or all files of a
        repository. A number may be in several groups, or in none: two texts stay together if a chain of
        groups leads from one to the other.
    share
        Of the texts to hold out, from 0 to 1.
    seed
        Any integer; each makes a choice of its own.

    Returns
    -------
    train, held_out : list[int]
        The numbers of the texts, ascending, each in one of the lists. Texts that stay together are held out
        if the number (of the legend) of ``f"{seed} {name}"`` is below ``share * 2**64``, for the least of
        their names, by Python's order. So a text changes sides only if it joins others: none does because
        texts that are unlike it come or go, or stand in another order.

    Raises
    ------
    ValueError
        When two names are equal, a group holds a number that is none of a text, or the share is not in its
        range.

    Examples
    --------
    >>> split(["a.py", "b.py", "c.py", "d.py"], groups=[[0, 2]], share=0.5)
    ([1, 3], [0, 2])
    """
    if len(set(names)) < len(names) or not 0 <= share <= 1:
        raise ValueError(f"names must differ and the share must be from 0 to 1; got {share} of {names[:5]}")
    together = _Groups(len(names))
    for group in groups:
        members = list(group)
        if any(not 0 <= member < len(names) for member in members):
            raise ValueError(f"groups must hold numbers from 0 to {len(names) - 1}; got {members}")
        for member in members:
            together.join(members[0], member)
    sides: tuple[list[int], list[int]] = [], []
    for group in together.lists():
        least = min(names[member] for member in group)
        sides[_number(f"{seed} {least}") < share * 2**64].extend(group)
    return sorted(sides[0]), sorted(sides[1])


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _functions(n_hashes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors and the offsets of hash functions, as columns."""
    if n_hashes < 1:
        raise ValueError(f"a signature needs at least one hash function; got n_hashes={n_hashes}")
    factors = [[_number(f"{seed} {i} factor") | 1] for i in range(n_hashes)]
    offsets = [[_number(f"{seed} {i} offset")] for i in range(n_hashes)]
    return np.array(factors, np.uint64), np.array(offsets, np.uint64)


def _signature(runs: frozenset[str], factors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    numbers = np.array([_number(run) for run in runs], np.uint64)
    # The remainder modulo 2**64 is what is left where a product overflows.
    return (factors * numbers + offsets).min(axis=1, initial=2**64 - 1)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return J of two sets that are not both empty."""
    n_common = len(a & b)
    return n_common / (len(a) + len(b) - n_common)


class _Groups:
    """Numbers from 0 to n - 1, alone at first, that are joined: a forest whose roots stand for groups."""

    def __init__(self, n: int):
        self._above = list(range(n))

    def of(self, number: int) -> int:
        while self._above[number] != number:
            self._above[number] = self._above[self._above[number]]
            number = self._above[number]
        return number

    def join(self, a: int, b: int) -> None:
        self._above[self.of(b)] = self.of(a)

    def lists(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for number in range(len(self._above)):
            found.setdefault(self.of(number), []).append(number)
        return list(found.values())
