"""Oracles: expressions evaluated as Python, all pairs compared, hashes one by one in whole numbers."""

import hashlib
import itertools
import math
from fractions import Fraction
from functools import cache

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.text.pretokenize import split as split_words

# Licences.

PHRASES = {
    "AGPL": ["gnu affero general public license"],
    "LGPL": ["gnu lesser general public license"],
    "GPL": ["gnu general public license"],
    "MPL": ["mozilla public license"],
    "Apache-2.0": ["licensed under the apache license version 2 0"],
    "BSD-3-Clause": ["redistribution and use in source and binary forms", "endorse or promote products"],
    "BSD-2-Clause": ["redistribution and use in source and binary forms"],
    "MIT": ["permission is hereby granted free of charge to any person"],
    "ISC": ["permission to use copy modify and or distribute this software for any purpose"],
    "Unlicense": ["this is free and unencumbered software"],
    "PSF-2.0": ["licensed to psf under a contributor agreement"],
}
MARK = "SPDX-License-Identifier:"
REAL = {
    "MIT": "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software",
    "Apache-2.0": '# Licensed under the Apache License, Version 2.0 (the "License");\n# you may not',
    "BSD-2-Clause": "Redistribution and use in source and binary forms, with or without\nmodification, are",
    "ISC": "Permission to use, copy, modify, and/or distribute this software for any\npurpose with",
    "GPL": " * it under the terms of the GNU General\n * Public License as published by the Free",
    "LGPL": "// GNU Lesser General Public License for more details",
    "AGPL": "the GNU Affero General Public License, version 3",
    "MPL": "This Source Code Form is subject to the terms of the Mozilla Public\n# License, v. 2.0.",
    "Unlicense": "This is free and unencumbered software released into the public domain.",
    "PSF-2.0": "#! /usr/bin/env python\n# Licensed to PSF under a Contributor Agreement.",
}


def slow_licence(text):
    for line in text.split("\n"):
        place = line.find(MARK)
        if place >= 0:
            found = line[place + len(MARK) :].strip()
            for sign in ("*/", "-->"):
                if found.endswith(sign):
                    found = found[: -len(sign)]
                    break
            if found.strip():
                return found.strip()
    words, word = [], ""
    for character in text.lower() + " ":
        if character in "abcdefghijklmnopqrstuvwxyz0123456789":
            word += character
        elif word:
            words.append(word)
            word = ""
    text = f" {' '.join(words)} "
    for name, phrases in PHRASES.items():
        if all(f" {phrase} " in text for phrase in phrases):
            return name
    return None


def licensed_texts(rng):
    for label, text in battery.texts().items():
        yield label, text
        yield f"{label}, after the mark", f"{MARK} {text}"
        yield f"{label}, around a phrase", f"{text} GNU General Public License {text}"
    for name, text in REAL.items():
        yield f"a header of {name}", text
        yield f"a header of {name}, and code", f"import os\n{text}\n\n\ndef f(x):\n    return x\n"
    for name, phrases in PHRASES.items():
        for sign in (" ", "\n# ", "\r\n", ", ", "\t*\t", "\u00a0", "/", "__", "\u2014"):
            words = [sign.join(phrase.split()) for phrase in phrases]
            yield f"{name} with {sign!r}", f"x {' y '.join(words)} z"
            yield f"{name} with {sign!r}, turned", " y ".join(words[::-1]).upper()
        for phrase in phrases:
            yield f"one phrase of {name}", phrase
            yield f"{name}, a word longer", f"{phrase}s"
            yield f"{name}, within a word", f"re{phrase}"
            yield f"{name} with a number", f"{phrase}3"
            yield f"{name} with an underscore", f"_{phrase}_"
            yield f"{name} with an accent", f"\u00e9{phrase}\u00e9"
            for letter in "\u212a\u0130":  # in small letters a k and an i, which belong to the word
                yield f"{name} behind {letter!r}", f"{letter}{phrase}"
                yield f"{name} before {letter!r}", f"{phrase}{letter}"
            for word in phrase.split():
                yield f"{name} without {word}", phrase.replace(word, "", 1)
            yield f"{name} without blanks", phrase.replace(" ", "")
    for letter, other in (
        ("ss", "\u00df"),
        ("s", "\u017f"),
        ("k", "\u212a"),
        ("fi", "\ufb01"),
        ("i", "\u0130"),
    ):
        for phrases in PHRASES.values():
            yield f"{other!r} for {letter}", " ".join(phrases).upper().replace(letter.upper(), other)
    for length in aim.sizes(1000, 30_000, at_most=100_000):
        yield f"a phrase after {length} letters", "x " * (length // 2) + PHRASES["MIT"][0]
    for one, other in itertools.permutations(PHRASES, 2):
        yield f"{one} and {other}", " . ".join([*PHRASES[one], *PHRASES[other]])
    marked = ["MIT", "  MIT  ", "MIT */", "MIT*/", "MIT -->", "(MIT OR X) AND Y"]
    marked += [
        "",
        "   ",
        "*/",
        "-->",
        "--> */",
        "mit",
        "MIT # and more",
        "\tMIT\r",
        "*/ MIT",
        "MIT */ -->",
        "MIT --> */",
        "MIT */ */",
        "MIT-->-->",
        "MIT */-->",
        "MIT */ x",
        '"MIT"',
    ]
    marked += [
        f"A {MARK} B",
        "MIT\u00a0",
        "MIT\x0b",
        "MIT -- >",
        "MIT\\n",
        ": MIT",
        "none",
        "None",
        "MIT * /",
    ]
    for each in marked:
        for line in (f"# {MARK} {each}", f"{MARK}{each}", f"/* {MARK} {each}", f"x = '{MARK} {each}"):
            yield f"marked {each!r}", line
            yield f"marked {each!r}, and a second", f"{line}\n# {MARK} Zlib\n"
            yield f"marked {each!r}, and a phrase before", f"{REAL['GPL']}\n{line}\r\n{REAL['MIT']}"
            yield f"marked {each!r}, ends of lines", f"{line}\rx\x0by\x0cz\u2028w"
    for wrong in (
        "spdx-license-identifier: MIT",
        "SPDX-License-Identifier MIT",
        "SPDX-License-Identifier : MIT",
    ):
        yield wrong, wrong
        yield f"{wrong} and GPL", f"{wrong}\n{REAL['GPL']}"
    for n in aim.sizes(100, at_most=20_000):
        yield f"the mark on line {n}", "\n" * n + f"# {MARK} MIT"
        yield f"the mark on line {n} without a name", f"{MARK}\n" * n + f"# {MARK} MIT"


def test_licences_by_hand(impl):
    for name, text in REAL.items():
        assert impl.licence_of(text) == name
    assert impl.licence_of(f"# {MARK} MIT OR Apache-2.0\n{REAL['GPL']}") == "MIT OR Apache-2.0"
    assert impl.licence_of(f"<!-- {MARK} MIT -->") == "MIT"
    assert impl.licence_of(f"/* {MARK} BSD-3-Clause */\nint x;") == "BSD-3-Clause"
    assert impl.licence_of("print('hello')") is None
    assert impl.licence_of("") is None


def test_licences_are_found_everywhere(impl, rng):
    texts = {text: label for label, text in licensed_texts(rng)}
    cases = [Case(label, (text,)) for text, label in sorted(texts.items(), key=lambda item: len(item[0]))]
    battery.sweep_plain(impl.licence_of, slow_licence, cases)


def expressions(rng, depth):
    """Return a random expression, and the same as Python over the truths in ``t``."""
    kind = rng.integers(5) if depth else rng.integers(2)
    if kind < 2:
        name = rng.choice(
            ["MIT", "isc", "GPL-3.0-only", "X-1", "LicenseRef-a", "Apache-2.0", "or", "nothing"]
        )
        behind = " WITH Y-exception" if kind else ""
        return f"{name}{behind}", f"t[{str(name).lower()!r}]"
    one, other = expressions(rng, depth - 1), expressions(rng, depth - 1)
    if kind == 2:
        blank = rng.choice(["", " ", "\n"])
        return f"({blank}{one[0]}{blank})", f"({one[1]})"
    word = "AND" if kind == 3 else "OR"
    return f"{one[0]} {word} {other[0]}", f"{one[1]} {word.lower()} {other[1]}"


def test_expressions_by_hand(impl):
    expected = {
        "MIT": True, "mit": True, "GPL-3.0-only": False, "GPL": False, "MIT-0": False, "MI": False,
        "MIT OR GPL-3.0-only": True, "GPL-3.0-only OR MIT": True, "MIT AND GPL-3.0-only": False,
        "MIT AND ISC": True, "X OR MIT AND Y": False, "MIT AND Y OR ISC": True, "MIT OR X AND Y": True,
        "(X OR MIT) AND ISC": True, "(X OR MIT) AND Y": False, "MIT AND (X OR Y)": False,
        "Apache-2.0 WITH LLVM-exception": True, "GPL-2.0-only WITH Classpath-exception-2.0": False,
        "X WITH MIT": False, "MIT WITH x AND ISC": True, "((MIT))": True, " MIT ": True, "(MIT)OR(X)": True,
        "0BSD": True, "BSD-2-Clause": True, "BSD-3-Clause": True, "PSF-2.0": True, "Unlicense": True,
        "zlib": True, "ISC": True, "AGPL": False, "LGPL": False, "MPL": False, "or": False, "and": False,
        "MIT-only": False, "MIT+": False, "MIT-or-later": False, "MIT-": False, "-MIT": False,
        "CC0-1.0": False, "MIT-0 ": False, "BSL-1.0": False, "CC-BY-4.0": False, "MPL-2.0": False,
        "EPL-2.0": False, "WTFPL": False, "BSD-4-Clause": False, "Python-2.0": False, "Artistic-2.0": False,
        "[MIT]": False, "{MIT}": False,
        "BSD": False, "BSD-3": False, "Apache": False, "PSF": False, "Apache-2.0-only": False,
    }  # fmt: skip
    for expression, is_permitted in expected.items():
        assert impl.is_permitted(expression) is is_permitted, expression
    assert impl.is_permitted(None) is False
    assert impl.is_permitted(None, []) is False
    assert impl.is_permitted(None, ["None"]) is False
    assert impl.is_permitted("MIT", []) is False
    assert impl.is_permitted("X", ["x"]) is True
    assert impl.is_permitted("MIT", {"GPL"}) is False
    assert impl.is_permitted(licence="gpl", allowed=("GPL",)) is True


def test_expressions_are_their_logic(impl, rng):
    for n in range(600):
        expression, python = expressions(rng, n % 6)
        allowed = [
            each for each in ("Mit", "ISC", "gpl-3.0-only", "OR", "x-1", "nothing") if rng.random() < 0.5
        ]
        truths = dict.fromkeys(
            ["mit", "isc", "gpl-3.0-only", "x-1", "licenseref-a", "apache-2.0", "or"], False
        )
        truths |= {"nothing": False} | {each.lower(): True for each in allowed}
        kept = allowed.copy()
        got = impl.is_permitted(expression, allowed)
        assert got is eval(python.replace("\n", " "), {"t": truths}), (expression, allowed)
        assert allowed == kept
    for n in aim.sizes(60, at_most=200):
        assert impl.is_permitted(" OR ".join(["X"] * n + ["MIT"])) is True
        assert impl.is_permitted(" AND ".join(["MIT"] * n + ["X"])) is False
        assert impl.is_permitted("X" * n, ["x" * n]) is True
    for n in aim.sizes(30, at_most=100):  # brackets in brackets
        for expression, expected in (("MIT", True), ("X OR MIT", True), ("MIT AND X", False)):
            assert impl.is_permitted("(" * n + expression + ")" * n) is expected, f"{n} brackets"
        battery.refuses(impl.is_permitted, "(" * n + "MIT" + ")" * (n - 1))
    words = [each for each in aim.TEXTS if each.isascii() and each.replace("-", "").isalnum()]
    for name in (each for each in words if each.upper() not in ("AND", "OR", "WITH")):
        assert impl.is_permitted(f"MIT WITH {name} AND ISC") is True, name
        assert impl.is_permitted(f"X WITH {name} OR Y", ["Z"]) is False, name
        assert impl.is_permitted(name, [f"{name}-x"]) is False, name
        assert impl.is_permitted(name.swapcase(), ["X", name]) is True, name


def test_what_is_no_expression(impl):
    wrong = ["", " ", "\n", "MIT OR", "OR MIT", "MIT AND", "AND", "OR", "WITH", "MIT OR OR ISC", "MIT ISC"]
    wrong += ["MIT (ISC)", "(MIT) ISC", "(MIT", "MIT)", "()", "MIT AND ()", "(MIT OR) ISC", ")MIT(", "((MIT)"]
    wrong += ["MIT WITH", "WITH x", "MIT WITH AND ISC", "MIT WITH (x)", "(MIT) WITH x", "MIT WITH x WITH y"]
    wrong += ["X OR", "X AND", "MIT OR X Y", "MIT OR (X", "X AND Y)", "MIT or ISC", "MIT and X", "MIT with x"]
    wrong += ["(", ")", "MIT AND OR ISC", "MIT AND WITH x", "MIT WITH x y", "X WITH OR", "MIT OR )"]
    for expression in wrong:
        battery.refuses(impl.is_permitted, expression)
        battery.refuses(impl.is_permitted, expression, [])
        battery.refuses(
            impl.is_permitted, f"ISC OR {expression}" if expression.strip() else "ISC OR", ["ISC"]
        )


# Shingles and signatures.


def slow_shingles(text, n_words=5):
    words = [piece.strip() for piece in split_words(text)]
    words = [word for word in words if word != ""]
    if not words:
        return frozenset()
    if len(words) <= n_words:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + n_words]) for i in range(len(words) - n_words + 1))


@cache
def number(text):
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return sum(byte * 256**place for place, byte in enumerate(digest))


def slow_minhash(text, n_hashes=64, seed=0):
    """In whole numbers of any size."""
    return list(_slow_minhash(text, n_hashes, seed))


@cache
def _slow_minhash(text, n_hashes, seed):
    numbers = [number(each) for each in slow_shingles(text)]
    values = []
    for i in range(n_hashes):
        a, b = number(f"{seed} {i} factor"), number(f"{seed} {i} offset")
        a += a % 2 == 0
        values.append(min(((a * x + b) % 2**64 for x in numbers), default=2**64 - 1))
    return values


def jaccard(a, b):
    return Fraction(len(a & b), len(a | b)) if a | b else Fraction(1)


CODE = "def f(x, y):\n    return x * y + f(y, x - 1)  # one\n\n\nclass A:\n    z = {'a': [1, 2.5]}\n"


def hostile():
    for label, text in battery.texts(2000).items():
        yield label, text
        yield f"{label}, six times", f" {text} " * 6
    yield "code", CODE
    yield "code, again", CODE * 3
    yield "code, other blanks", CODE.replace(" ", "\n  ")
    yield "halves of surrogate pairs", "a b \ud800 c \udfff d e f"
    for n in range(12):
        yield f"{n} words", " ".join("abcdefghijkl"[:n])
        yield f"{n} equal words", "a " * n
    yield "separators that are no whitespace for a regular expression", "a\x1cb \x1f c\x1d d e f\x1e"


def test_shingles_by_hand(impl):
    assert impl.shingles("if x:\n    y = x", 3) == {"if x :", "x : y", ": y =", "y = x"}
    assert impl.shingles("a b c d e f") == {"a b c d e", "b c d e f"}
    assert impl.shingles("a b") == {"a b"}
    assert impl.shingles("a b", n_words=1) == {"a", "b"}
    assert impl.shingles("  \n\t ") == frozenset()
    assert impl.shingles("A a\ta  A", 2) == {"A a", "a a", "a A"}
    assert isinstance(impl.shingles("a"), frozenset)


def test_shingles_are_their_definition_everywhere(impl):
    cases = [Case(label, (text,)) for label, text in hostile()]
    cases += [Case(f"{n} in {label}", (text, n)) for label, text in hostile() for n in (1, 2, 7)]
    cases += [Case(f"{n} words", (" ".join(map(str, range(n + 3))), n)) for n in aim.sizes(33, at_most=2000)]
    cases += [Case(f"a text of {n} words", ("a b c d " * (n // 4),)) for n in aim.sizes(130, at_most=9000)]
    battery.sweep_plain(impl.shingles, slow_shingles, cases)
    for n_words in (0, -1, -5):
        for text in ("", "a b c", CODE):
            battery.refuses(impl.shingles, text, n_words)


def test_signatures_by_hand(impl):
    signature = impl.minhash("a b c d e", n_hashes=2)
    x = number("a b c d e")
    for i in range(2):
        a, b = number(f"0 {i} factor") | 1, number(f"0 {i} offset")
        assert int(signature[i]) == (a * x + b) % 2**64
    assert signature.dtype == np.uint64
    assert impl.minhash("", 3).tolist() == [2**64 - 1] * 3


def signed(impl):
    def function(*arguments, **options):
        signature = impl.minhash(*arguments, **options)
        assert type(signature) is np.ndarray
        assert signature.dtype == np.uint64
        assert signature.flags.writeable
        values = signature.tolist()
        signature[...] = 0
        return values

    return function


def test_signatures_of_long_texts(impl):
    for n in aim.sizes(2000, at_most=30_000):
        text = " ".join(f"w{i}" for i in range(n))
        assert impl.minhash(text, 2).tolist() == slow_minhash(text, 2), f"{n} words"


def test_signatures_are_their_definition_everywhere(impl):
    cases = [Case(label, (text, 3)) for label, text in hostile() if len(text) < 300]
    cases += [Case(f"seed {seed}", (CODE, 5), {"seed": seed}) for seed in (0, 1, -1, 12, 2**64, 10**30)]
    cases += [
        Case(f"{n} functions", ("a b c d e f", n, 1)) for n in aim.sizes(1, 2, 7, 65, 130, at_most=2000)
    ]
    cases += [Case("as it comes", (CODE,)), Case("by name", (CODE,), {"seed": 3, "n_hashes": 4})]
    cases += [Case(f"{n} words", (" ".join(map(str, range(n))), 2)) for n in aim.sizes(33, 300, at_most=5000)]
    battery.sweep_plain(signed(impl), slow_minhash, cases)
    for n_hashes in (0, -1, -64):
        for text in ("", "a b c", CODE):
            battery.refuses(impl.minhash, text, n_hashes)


# Groups.


def slow_groups(texts, threshold=0.7, n_bands=16, n_rows=4):
    """Every pair, then chains."""
    sets = [slow_shingles(text) for text in texts]
    signatures = [slow_minhash(text, n_bands * n_rows) for text in texts]
    group = list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):
        firsts = range(0, n_bands * n_rows, n_rows)
        has_met = any(signatures[i][k : k + n_rows] == signatures[j][k : k + n_rows] for k in firsts)
        if has_met and jaccard(sets[i], sets[j]) >= Fraction(threshold):
            group = [group[i] if each == group[j] else each for each in group]
    return [[i for i, each in enumerate(group) if each == g] for g in dict.fromkeys(group)]


def words_of(rng, n):
    return [f"w{each}" for each in rng.integers(1000, size=n)]


def edited(rng, words, n):
    words = words.copy()
    for place in rng.integers(len(words), size=n):
        words[place] = f"v{rng.integers(1000)}"
    return words


def families(rng, n_families=3, n_members=4, n_words=30, n_edits=2):
    """Texts and edits of edits of them, shuffled."""
    found = []
    for _ in range(n_families):
        words = words_of(rng, n_words)
        for member in range(n_members):
            found.append(" ".join(words))
            words = edited(rng, words, member and n_edits)
    return [found[i] for i in rng.permutation(len(found))]


def grouped_cases(rng):
    a, b = "a b c d e f g h i j", "k l m n o p q r s t"
    for texts in (
        [],
        ["a"],
        ["a", "a"],
        ["a", "b"],
        ["", ""],
        ["", " ", "a"],
        [a, b, a],
        [a, b, b, a],
        [b, a, a],
    ):
        for threshold in (0.5, 1.0, 1):
            yield Case(f"{texts}, {threshold}", (texts, threshold))
    yield Case("other blanks, other letters", ([a, a.replace(" ", "\n  "), a.upper(), f"{a} ", f"{a}k"],))
    # 9 of 12 shingles are the same: exactly 0.75. 8 of 16: 0.5.
    alike = " ".join("abcdefghijklmn")
    for n, threshold in ((1, 0.75), (2, 0.5), (1, 0.8), (1, 0.7), (2, 0.6)):
        other = " ".join([*"abcdefghijklmn"[: -n - 1], *"xyz"[: n + 1]])
        for bands in ((16, 4), (60, 1)):
            yield Case(f"{n + 1} words differ, {threshold}", ([alike, other], threshold, *bands))
    for threshold in (0.3, 0.5, 0.7, 1.0):
        yield Case(f"families at {threshold}", (families(rng), threshold))
    for bands in ((1, 1), (1, 8), (2, 3), (8, 1), (5, 2), (3, 12)):
        yield Case(f"bands {bands}", (families(rng, 2, 4), 0.4, *bands))
        texts = families(rng, 1, 6, 25, 3)
        yield Case(
            f"bands {bands} by name", (texts,), {"n_rows": bands[1], "n_bands": bands[0], "threshold": 0.2}
        )
    words = ["".join("abcdefghij"[int(digit)] for digit in str(i)) for i in range(1000, 1203)]
    texts = [" ".join(words[:178]), " ".join([*words[:153], *words[178:]])]
    for threshold in (0.75, 0.7475):  # J is 149 / 199, 0.7487
        yield Case(f"just beside {threshold}", (texts, threshold))
    texts = [" ".join("abcdefghijklmn"), " ".join("abcdefghijklxy")]  # 8 of 12
    for threshold in (8 / 12 - 1e-12, 8 / 12 + 1e-12):
        yield Case(f"hardly beside two thirds, {threshold}", (texts, threshold, 60, 1))
    for n, exact in ((1, 9 / 11), (3, 7 / 13), (4, 6 / 14)):
        texts = [" ".join("abcdefghijklmn"), " ".join(["abcdefghijklmn"[:-n], *"xyzw"[:n]])]
        yield Case(f"{exact}", (texts, exact + 1e-12, 60, 1))
    for n in aim.sizes(30, at_most=250):  # they meet in large crowds
        words = words_of(rng, 30)
        crowd = [" ".join([*words[:i], f"v{i}", *words[i:], *words[: i % 5]]) for i in range(n)]
        yield Case(f"a crowd of {n}", (crowd, 0.6, 12, 1))
    # Common words between texts that are unlike: they meet, and the comparison parts them.
    stem = words_of(rng, 12)
    texts = [" ".join([*stem, *words_of(rng, 12)]) for _ in range(8)]
    for threshold in (0.05, 0.3, 0.45):
        yield Case(f"a common beginning, {threshold}", (texts, threshold, 30, 1))
    words = words_of(rng, 60)
    chain = [words]
    for _ in range(5):
        chain.append(edited(rng, chain[-1], 2))
    for order in (slice(None), slice(None, None, -1)):
        yield Case("a chain", ([" ".join(each) for each in chain][order], 0.6))
    yield Case("a chain, shuffled", ([" ".join(chain[i]) for i in rng.permutation(6)], 0.7))
    yield Case("code", ([CODE, "x = 1", CODE.replace("one", "two"), f"{CODE}\n", CODE[::-1], "x  =  1"], 0.6))
    yield Case("halves of surrogate pairs", (["a b \ud800 c d e", "a b \ud800 c d e", "a b \udc00 c d e"],))
    for n in aim.sizes(at_most=40):
        yield Case(f"{n} texts", (families(rng, 1, n, 10, 1), 0.3, 4, 1))
    for label, text in [each for each in hostile() if len(each[1]) < 200][::9]:
        yield Case(label, ([text, "a", f"{text} b", text, " "], 0.5, 8, 2))


def test_groups_by_hand(impl):
    texts = ["a b c d e f g h i j", "x = 1", "a b c d e f g h i  J", "x=1", "x\n=\n1"]
    assert impl.near_duplicates(texts, threshold=0.6) == [[0, 2], [1, 3, 4]]
    assert impl.near_duplicates(texts) == [[0, 2], [1, 3, 4]]
    assert impl.near_duplicates(texts, 0.9) == [[0], [1, 3, 4], [2]]
    assert impl.near_duplicates([]) == []
    assert impl.near_duplicates(["", "a", " "]) == [[0, 2], [1]]


def test_the_threshold_if_nothing_is_said(impl):
    """Of 25 shingles each, two texts share 19, 20, 21 and 22: J is 19/31, 20/30, 21/29 and 22/28."""
    n_apart, n_together = 0, 0
    for k in range(24):
        n_same = 23 + k % 4
        words = [f"k{k}w{j}" for j in range(29)]
        texts = [" ".join(words), " ".join([*words[:n_same], *(f"{k}v{j}" for j in range(29 - n_same))])]
        assert impl.near_duplicates(texts) == slow_groups(texts), texts
        n_apart += slow_groups(texts) != slow_groups(texts, 0.6)
        n_together += slow_groups(texts) == [[0, 1]]
    assert n_apart > 3
    assert n_together > 3


def pair(k):
    """Two texts of 20 words, of which the first 12 are the same: J is 8 / 24."""
    words = [f"k{k}w{j}" for j in range(20)]
    return [" ".join(words), " ".join([*words[:12], *(f"{k}v{j}" for j in range(8))])]


def test_how_many_bands_there_are_if_nothing_is_said(impl):
    """Pairs found by trying: 22 meets in the last of 16 bands, 3 only in a 17th; 0 not in rows of 5."""
    for k, has_met in ((22, True), (3, False), (0, True), (1, False)):
        assert impl.near_duplicates(pair(k), 0.3) == ([[0, 1]] if has_met else [[0], [1]])
    assert impl.near_duplicates(pair(3), 0.3, n_bands=17) == [[0, 1]]
    assert impl.near_duplicates(pair(1), 0.3, n_rows=3) == [[0, 1]]
    assert impl.near_duplicates(pair(22), 0.3, n_bands=15) == [[0], [1]]
    assert impl.near_duplicates(pair(0), 0.3, n_rows=5) == [[0], [1]]


def test_what_groups_refuse(impl):
    for threshold in (0, 0.0, -0.5, 1.0001, 2, float("nan"), float("inf")):
        for texts in ([], ["a", "b"]):
            battery.refuses(impl.near_duplicates, texts, threshold)
    for n_bands, n_rows in ((0, 4), (16, 0), (-1, 4), (4, -1), (0, 0), (-2, -2)):
        for texts in ([], ["a", "a"]):
            battery.refuses(impl.near_duplicates, texts, 0.7, n_bands, n_rows)


# Splits.


def slow_split(names, groups=(), share=0.1, seed=0):
    group = list(range(len(names)))
    for members in groups:
        found = {group[member] for member in members}
        group = [min(found) if each in found else each for each in group]
    train, held_out = [], []
    for i, each in enumerate(group):
        least = sorted(names[j] for j in range(len(names)) if group[j] == each)[0]
        (held_out if number(f"{seed} {least}") < Fraction(share) * 2**64 else train).append(i)
    return train, held_out


def split_cases(rng):
    some = [f"lib/{each}.py" for each in "zyxwabcdefgh"]
    for names in (
        [],
        ["a"],
        ["a", "b"],
        some,
        some[::-1],
        tuple(some),
        ["", " ", "a", "A", "\u00e9", "e\u0301", "\U0001f600"],
    ):
        for share in (0, 0.0, 0.1, 0.25, 0.5, 0.9, 1, 1.0):
            yield Case(f"{len(names)} names, {share}", (names,), {"share": share})
    for name in some[:4]:
        near = number(f"0 {name}") / 2**64
        for share in (math.nextafter(near, 0), math.nextafter(near, 1)):
            yield Case(f"a share hardly beside {name}", (some,), {"share": share})
    for seed in (0, 1, 2, -1, 7, 2**70):
        yield Case(f"seed {seed}", (some, [[0, 5], [3, 4]], 0.5, seed))
    for groups in (
        [[]], [[0]], [[0, 1]], [[1, 0]], [[0, 1], [1, 2]], [[0, 1], [2, 3], [1, 3]], [[3, 1], [5, 3], [8, 5]],
        [[11, 0]], [[4, 4]], [list(range(12))], [[0], [1], [0, 2]], ((2, 4), (4, 6)), [(9, 1), [], (1, 9)],
        [[10, 11], [8, 9], [9, 10], [0, 8]], [[5, 6, 7], [2, 3], [7, 2]],
    ):  # fmt: skip
        for share in (0.3, 0.6):
            yield Case(f"groups {groups}", (some, groups, share, 5))
            yield Case(f"groups {groups}, the names turned", (some[::-1], groups, share, 6))
    for n in aim.sizes(130, at_most=1000):
        names = [f"{each}.py" for each in rng.permutation(n)]
        pairs = rng.integers(n, size=(n // 3, 2)).tolist()
        yield Case(f"{n} names", (names, pairs, 0.4))
        yield Case(f"{n} names, as it comes", (names,))
        yield Case(f"a group of {n}", (names, [list(range(n))], 0.5, n))
    for seed in range(6):
        yield Case(
            "small and capital letters",
            (["B", "a", "C", "b", "Z", "\u00e9"], [[0, 1], [2, 3], [4, 5]], 0.5, seed),
        )
        beyond = [
            "\U0001f600",
            "\uff21",
            "\ue000",
            "\U00010348",
            "e\u0301",
            "\u00e9",
        ]  # UTF-16 sorts otherwise
        yield Case("letters of every plane", (beyond, [[0, 1], [2, 3], [4, 5]], 0.5, seed))
    for label, text in battery.HOSTILE_TEXTS.items():
        yield Case(label, ([f"{text}a", f"b{text}", "c"], [[0, 1]], 0.5))
    yield Case("halves of surrogate pairs", (["\udcff", "a\ud800", "b"], [[1, 0]], 0.5))


def plain_split(impl):
    def function(*arguments, **options):
        train, held_out = impl.split(*arguments, **options)
        assert all(type(each) is list for each in (train, held_out))
        return ([*map(int, train)], [*map(int, held_out)])

    return function


def test_splits_by_hand(impl):
    names = ["a.py", "b.py", "c.py", "d.py"]
    assert impl.split(names, share=0) == ([0, 1, 2, 3], [])
    assert impl.split(names, share=1) == ([], [0, 1, 2, 3])
    is_held = [number(f"3 {name}") < 2**63 for name in names]
    train, held_out = impl.split(names, share=0.5, seed=3)
    assert held_out == [i for i in range(4) if is_held[i]]
    assert train == [i for i in range(4) if not is_held[i]]


def test_long_chains_of_groups(impl, rng):
    """Deeper than Python calls nest, link by link in any order."""
    n = 5000
    names, links = [f"t{i:05}" for i in range(n)], [[i, i + 1] for i in range(n - 1)]
    mixed = [links[i] for i in rng.permutation(n - 1)]
    turned = [each[::-1] for each in links]
    for groups in (links, links[::-1], turned, turned[::-1], mixed, [*links[::2], *links[1::2]]):
        for seed in (0, 1):
            expected = [[*range(n)], []] if number(f"{seed} t00000") >= 2**63 else [[], [*range(n)]]
            assert [*impl.split(names, groups, 0.5, seed)] == expected


def test_splits_are_their_definition_everywhere(impl, rng):
    battery.sweep_plain(plain_split(impl), slow_split, split_cases(rng))


def test_groups_of_every_kind(impl, rng):
    names = [f"{each}.py" for each in range(9)]
    expected = slow_split(names, [[0, 4], [4, 8], [2, 3]], 0.5, 1)
    for groups in (
        np.array([[0, 4], [4, 8], [2, 3]]),
        ({0, 4}, {8, 4}, frozenset([2, 3])),
        (iter(each) for each in ([0, 4], [4, 8], [2, 3])),
        [[0, 4], range(4, 9, 4), np.array([2, 3], np.uint8)],
        iter([[4, 0], [8, 4], [3, 2], []]),
    ):
        assert plain_split(impl)(names, groups, 0.5, 1) == expected


def test_a_text_stays_where_it_is(impl, rng):
    """Others come, go and change places."""
    names = [f"{each}.py" for each in range(40)]
    groups = [[0, 1], [7, 9, 11]]
    sides = dict.fromkeys(names, "train") | {names[i]: "held out" for i in impl.split(names, groups, 0.3)[1]}
    for _ in range(10):
        order = rng.permutation(60)
        more = [f"{each}.py" for each in order]
        place = {int(each): i for i, each in enumerate(order)}
        moved = [[place[each] for each in group] for group in groups]
        train, held_out = impl.split(more, [*moved, [place[50], place[51]]], 0.3)
        for name, side in sides.items():
            assert more.index(name) in (train if side == "train" else held_out)
    train, held_out = impl.split([f"{each}" for each in range(3000)], share=0.3)
    assert abs(len(held_out) - 900) < 150  # six standard deviations


def test_what_splits_refuse(impl):
    for names in (["a", "a"], ["a", "b", "a"], ["", ""], [*map(str, range(500)), "7"]):
        battery.refuses(impl.split, names)
        battery.refuses(impl.split, names, [[0, 1]], 0.5)
    for groups in ([[2]], [[-1]], [[0, 1], [1, 2]], [[0, -1]], [[-2, 1]], [[], [5]], [[0], [1, 99]]):
        battery.refuses(impl.split, ["a", "b"], groups)
    battery.refuses(impl.split, [], [[0]])
    for share in (-0.1, 1.1, -1, 2, float("nan"), float("inf"), -1e-9):
        battery.refuses(impl.split, ["a", "b"], (), share)
        battery.refuses(impl.split, [], (), share)


def test_everything_is_the_same_elsewhere(impl):
    texts, names = [CODE, CODE.replace("one", "two"), "x"], ["a", "b", "c"]

    def everything():
        return (
            impl.licence_of(REAL["MIT"]),
            sorted(impl.shingles(CODE)),
            impl.minhash(CODE).tolist(),
            impl.near_duplicates(texts),
            impl.split(names, [[0, 2]], 0.5),
        )

    here = everything()
    with elsewhere(impl):
        assert everything() == here
    np.random.seed(1)  # noqa: NPY002
    assert everything() == here


# What takes longest.


def test_groups_are_their_definition_everywhere(impl, rng):
    battery.sweep_plain(impl.near_duplicates, slow_groups, grouped_cases(rng))


def test_groups_of_many_texts(impl, rng):
    """Comparing all pairs of those that are equal, or unlike, would take more than a test may take."""
    unlike = [" ".join(map(str, range(9 * i, 9 * i + 6))) for i in range(1200)]
    equal = [f"a b{' ' * (i % 5)} c d e f" for i in range(9000)]
    expected = [[i] for i in range(1200)] + [list(range(1200, 10_200))]
    assert impl.near_duplicates([*unlike, *equal], n_bands=2, n_rows=2) == expected
