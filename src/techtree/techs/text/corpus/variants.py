"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import hashlib
import itertools
import re

import numpy as np

from techtree.techs.text.pretokenize import split as split_words

_LINES = 'for line in text.split("\\n"):'
_FOUND = 'found = re.sub(r"(\\*/|-->)$", "", behind.strip()).strip()'
_IF_FOUND = "if mark and found:"
_MARK = 'line.partition("SPDX-License-Identifier:")'
_WORDS = "words = f\" {re.sub('[^a-z0-9]+', ' ', text.lower())} \""
_ALL = 'if all(f" {phrase} " in words for phrase in phrases):'
_NONE = "    if licence is None:\n        return False\n"
_KNOWN = "known = {name.lower() for name in allowed}"
_IN = "return word.lower() in known"
_OR = 'return any(joined("OR", lambda: all(joined("AND", operand))))'
_LEFT = '    if words:\n        raise ValueError(f"a licence expression must end where it is complete; got {licence!r}")\n'
_CLOSED = 'if not words or words.pop() != ")":'
_PIECES = "words = [word for piece in split_words(text) if (word := piece.strip())]"
_RUNS = "starts = range(max(1, len(words) - n_words + 1)) if words else ()"
_JOINED = 'frozenset(" ".join(words[start : start + n_words]) for start in starts)'
_FACTORS = 'factors = [[_number(f"{seed} {i} factor") | 1] for i in range(n_hashes)]'
_OFFSETS = 'offsets = [[_number(f"{seed} {i} offset")] for i in range(n_hashes)]'
_MIN = "return (factors * numbers + offsets).min(axis=1, initial=2**64 - 1)"
_DIGEST = 'digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()'
_LITTLE = 'return int.from_bytes(digest, "little")'
_THRESHOLD = "_jaccard(sets[a], sets[b]) >= threshold"
_BANDS = "enumerate(_signature(each, *functions).reshape(n_bands, n_rows))"
_KEY = "meetings.setdefault((band, rows.tobytes()), []).append(number)"
_GROUPED = "return groups.lists()"
_SIDE = 'sides[_number(f"{seed} {least}") < share * 2**64].extend(group)'
_LEAST = "least = min(names[member] for member in group)"
_SORTED = "return sorted(sides[0]), sorted(sides[1])"
_JOIN = "together.join(members[0], member)"


def _split_exactly(names, groups=(), share=0.1, seed=0):
    """Hold out the first of the sorted hashes until the share is reached."""
    if len(set(names)) < len(names) or not 0 <= share <= 1:
        raise ValueError("no split")
    owner = list(range(len(names)))
    for group in map(list, groups):
        if any(not 0 <= member < len(names) for member in group):
            raise ValueError("no text")
        found = {owner[member] for member in group}
        owner = [min(found) if each in found else each for each in owner]

    def number(text):
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    order = sorted(set(owner), key=lambda each: number(f"{seed} {names[each]}"))
    held_out = []
    for each in order:
        if len(held_out) < round(share * len(names)):
            held_out += [i for i, one in enumerate(owner) if one == each]
    return [i for i in range(len(names)) if i not in held_out], sorted(held_out)


MISTAKES = {
    "the mark may be written in small letters": [
        (_MARK, '(line if "SPDX" in line else line.replace("spdx-license-identifier:", "SPDX-License-Identifier:")).partition("SPDX-License-Identifier:")')
    ],
    "the last line with a mark counts": [(_LINES, _LINES.replace(":", "[::-1]:"))],
    "comment signs behind the licence stay": [(_FOUND, "found = behind.strip()")],
    "only the first word behind the mark counts": [(_FOUND, _FOUND + '.partition(" ")[0]')],
    "a mark with nothing behind it is a licence without a name": [(_IF_FOUND, "if mark:")],
    "a mark with nothing behind it says that there is none": [
        (_IF_FOUND, "if mark and not found:\n            return None\n        " + _IF_FOUND)
    ],
    "lines end where splitlines cuts": [(_LINES, "for line in text.splitlines():")],
    "phrases must stand on one line": [
        (_WORDS, 'words = " " + re.sub("[^a-z0-9" + chr(10) + "]+", " ", text.lower()) + " "')
    ],
    "letters of other scripts are letters": [
        (_WORDS, 'words = " " + re.sub(r"[\\W_]+", " ", text.lower()) + " "')
    ],
    "underscores are letters": [(_WORDS, "words = f\" {re.sub('[^a-z0-9_]+', ' ', text.lower())} \"")],
    "digits are no words": [(_WORDS, "words = f\" {re.sub('[^a-z]+', ' ', text.lower())} \"")],
    "capital letters hide a phrase": [(_WORDS, _WORDS.replace("a-z0-9", "a-zA-Z0-9").replace("text.lower()", "text"))],
    "phrases may stand inside words": [(_ALL, "if all(phrase in words for phrase in phrases):")],
    "one phrase of two is enough": [(_ALL, _ALL.replace("all(", "any("))],
    "only the beginning of a file is read": [(_WORDS, _WORDS.replace("text.lower()", "text[:2000].lower()"))],
    "the last of the known licences counts": [("in _PHRASES:", "in _PHRASES[::-1]:")],
    "an unknown licence is permitted": [(_NONE, _NONE.replace("False", "True"))],
    "an unknown licence is an error": [(_NONE, _NONE.replace("return False", 'raise ValueError("no licence")'))],
    "letters of names must be the same": [(_KNOWN, "known = set(allowed)"), (_IN, "return word in known")],
    "the allowed names are taken as they are": [(_KNOWN, "known = set(allowed)")],
    "a part of a name is enough": [(_IN, "return any(word.lower() in name for name in known)")],
    "OR binds closer than AND": [
        (_OR, 'return all(joined("AND", lambda: any(joined("OR", operand))))')
    ],
    "OR needs both sides": [(_OR, _OR.replace("any(", "all("))],
    "operators stand from left to right": [
        (_OR, 'found = operand()\n        while words and words[-1] in ("AND", "OR"):\n            is_and = words.pop() == "AND"\n            other = operand()\n            found = found and other if is_and else found or other\n        return found')
    ],
    "what follows a decided side is not read": [
        (_LEFT, ""),
    ],
    "a bracket may stay open": [(_CLOSED, 'if words and words.pop() != ")":')],
    "operators may be written in small letters": [
        (r'words = re.findall(r"[()]|[^\s()]+", licence)[::-1]', r'words = [w.upper() if w in ("and", "or", "with") else w for w in re.findall(r"[()]|[^\s()]+", licence)][::-1]')
    ],
    "an exception needs no name": [("if not words or words.pop() in _NO_NAMES:", "if words and words.pop() in _NO_NAMES:")],
    "a licence with an exception is not permitted": [(_IN, "return word.lower() in known and not has_exception"), ('if words and words[-1] == "WITH":', 'has_exception = bool(words) and words[-1] == "WITH"\n        if has_exception:')],
    "words are cut at whitespace": [(_PIECES, "words = text.split()")],
    "blanks are words": [(_PIECES, "words = list(split_words(text))")],
    "capital letters are small ones": [(_PIECES, _PIECES.replace("split_words(text)", "split_words(text.lower())"))],
    "a short text has no shingles": [(_RUNS, "starts = range(max(0, len(words) - n_words + 1))")],
    "a text without words has an empty shingle": [(_RUNS, _RUNS.replace(" if words else ()", ""))],
    "the last run is left out": [(_RUNS, _RUNS.replace("- n_words + 1", "- n_words"))],
    "runs do not overlap": [(_RUNS, _RUNS.replace("+ 1))", "+ 1), n_words)").replace("range(", "range(0, "))],
    "runs are of characters": [(_PIECES, 'words = [c for c in text if not c.isspace()]')],
    "the words of a run are joined without blanks": [(_JOINED, _JOINED.replace('" ".', '"".'))],
    "runs of no words are possible": [("    if n_words < 1:\n", "    if n_words < 0:\n")],
    "Python hashes the shingles": [(_DIGEST, 'digest = (hash(text) % 2**64).to_bytes(8, "little")')],
    "the highest byte comes first": [(_LITTLE, _LITTLE.replace("little", "big"))],
    "digests are of 16 bytes": [(_DIGEST, _DIGEST.replace("digest_size=8", "digest_size=16")), (_LITTLE, _LITTLE.replace("digest,", "digest[:8],"))],
    "factors may be even": [(_FACTORS, _FACTORS.replace(" | 1", ""))],
    "all functions have one factor": [(_FACTORS, _FACTORS.replace("{i} ", "0 "))],
    "all functions have one offset": [(_OFFSETS, _OFFSETS.replace("{i} ", "0 "))],
    "the seed is ignored": [(_FACTORS, _FACTORS.replace("{seed}", "0")), (_OFFSETS, _OFFSETS.replace("{seed}", "0"))],
    "signatures are the largest values": [(_MIN, "return (factors * numbers + offsets).max(axis=1, initial=0)")],
    "without shingles the signature is 0": [(_MIN, "return (factors * numbers + offsets).min(axis=1) if numbers.size else np.zeros(len(factors), np.uint64)")],
    "signatures are signed": [(_MIN, _MIN + ".astype(np.int64)")],
    "values are products of floats": [(_MIN, "return ((factors * numbers.astype(np.float64) + offsets) % 2.0**64).min(axis=1, initial=2.0**64 - 2048).astype(np.uint64)")],
    "a similarity must be above the threshold": [(_THRESHOLD, "_jaccard(sets[a], sets[b]) > threshold")],
    "the similarity is the share of the smaller set": [
        (_THRESHOLD, "len(sets[a] & sets[b]) >= threshold * max(1, min(len(sets[a]), len(sets[b])))")
    ],
    "the similarity is estimated from signatures": [
        (_THRESHOLD, "np.mean(_signature(sets[a], *functions) == _signature(sets[b], *functions)) >= threshold")
    ],
    "whoever meets is a near duplicate": [(_THRESHOLD, "True")],
    "only the first band counts": [(_BANDS, _BANDS.replace("n_rows))", "n_rows)[:1])"))],
    "bands are taken across the signature": [(_BANDS, _BANDS.replace("reshape(n_bands, n_rows)", "reshape(n_rows, n_bands).T"))],
    "bands have two rows more": [(_BANDS, "[(0, _signature(each, *functions)[first : first + n_rows + 2]) for first in range(0, n_bands * n_rows, n_rows)]")],
    "texts alone are left out": [(_GROUPED, "return [each for each in groups.lists() if len(each) > 1]")],
    "large groups come first": [(_GROUPED, "return sorted(groups.lists(), key=len, reverse=True)")],
    "a text joins only those that are like the first of a group": [
        (_THRESHOLD, "_jaccard(sets[groups.of(a)], sets[b]) >= threshold")
    ],
    "texts without words are all different": [
        ("groups.join(first.setdefault(each, number), number)", "groups.join(first.setdefault(each, number) if each else number, number)")
    ],
    "a threshold of 0 is possible": [("if not 0 < threshold <= 1 or", "if not 0 <= threshold <= 1 or")],
    "a threshold above 1 is possible": [("if not 0 < threshold <= 1 or", "if not 0 < threshold or")],
    "exactly the share is held out": {"split": _split_exactly},
    "the side hangs on the place of a text": [(_LEAST, "least = group[0]")],
    "the side hangs on the first member's name": [(_LEAST, "least = names[group[0]]")],
    "the side hangs on the greatest name": [(_LEAST, _LEAST.replace("min(", "max("))],
    "the side hangs on all names of a group": [(_LEAST, "least = ' '.join(sorted(names[member] for member in group))")],
    "every text is held out by itself": [
        (_LEAST, "pass"),
        (_SIDE, 'for member in group:\n            sides[_number(f"{seed} {names[member]}") < share * 2**64].append(member)'),
    ],
    "groups that share a text are not joined": [
        (_JOIN, "together._above[member] = members[0]")
    ],
    "the seed is no part of the choice": [(_SIDE, _SIDE.replace("{seed}", "0"))],
    "large numbers are held out": [(_SIDE, 'sides[_number(f"{seed} {least}") >= (1 - share) * 2**64].extend(group)')],
    "the sides are turned": [(_SORTED, "return sorted(sides[1]), sorted(sides[0])")],
    "numbers are in the order of their groups": [(_SORTED, "return sides")],
    "names come back in place of numbers": [(_SORTED, "return tuple([names[i] for i in sorted(side)] for side in sides)")],
    "equal names are possible": [("if len(set(names)) < len(names) or not", "if not")],
    "numbers may count from the end": [("any(not 0 <= member <", "any(not -len(names) <= member <")],
    "a share above 1 is possible": [("or not 0 <= share <= 1:", "or not 0 <= share:")],
}  # fmt: skip


# Right versions.


def _licence_by_regex(text):
    for found in re.findall(r"^[^\n]*?SPDX-License-Identifier:([^\n]*)$", text, flags=re.MULTILINE):
        name = found.strip()
        name = (name[:-2] if name[-2:] == "*/" else name.removesuffix("-->")).strip()
        if name:
            return name
    known = """AGPL:gnu affero general public license;LGPL:gnu lesser general public license
    GPL:gnu general public license;MPL:mozilla public license
    Apache-2.0:licensed under the apache license version 2 0
    BSD-3-Clause:redistribution and use in source and binary forms:endorse or promote products
    BSD-2-Clause:redistribution and use in source and binary forms
    MIT:permission is hereby granted free of charge to any person
    ISC:permission to use copy modify and or distribute this software for any purpose
    Unlicense:this is free and unencumbered software;PSF-2.0:licensed to psf under a contributor agreement"""
    lowered = text.lower()
    for line in known.replace(";", "\n").split("\n"):
        name, *phrases = line.strip().split(":")
        patterns = [r"[^a-z0-9]+".join(phrase.split()) for phrase in phrases]
        if all(re.search(rf"(?<![a-z0-9]){each}(?![a-z0-9])", lowered) for each in patterns):
            return name
    return None


def _permitted_by_python(
    licence,
    allowed=(
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0", "Unlicense", "Zlib",
    ),
):  # fmt: skip
    """Each name becomes T or F; then brackets and pairs are replaced until one letter is left."""
    if licence is None:
        return False
    names = {each.casefold() for each in allowed}
    words = licence.replace("(", " ( ").replace(")", " ) ").split()
    signs = {"AND": "&", "OR": "|", "WITH": "w", "(": "(", ")": ")"}
    kept, previous = "", ""
    for word in words:
        if previous == "w" and word not in signs:
            kept, previous = kept[:-1], ""
            if kept[-1:] not in ("T", "F"):
                raise ValueError("an exception of nothing")
            kept = kept[:-1] + kept[-1].lower()
            continue
        previous = signs.get(word) or ("T" if word.casefold() in names else "F")
        kept += previous
    # a small letter is a licence with an exception, which can have no other
    if "w" in kept or re.search(r"[TFtf)][TFtf(]", kept):
        raise ValueError("two names beside each other, or an exception without")
    kept, before = kept.upper(), None
    while kept != before:
        before = kept
        kept = re.sub(r"\(([TF])\)", r"\1", kept)
        kept = re.sub(r"([TF])&([TF])", lambda m: "T" if m[1] == m[2] == "T" else "F", kept, count=1)
        if not re.search(r"[TF]&[TF]", kept):
            kept = re.sub(
                r"(?<![&TF])([TF])\|([TF])(?!&)", lambda m: "T" if "T" in m.groups() else "F", kept, count=1
            )
    if kept not in ("T", "F"):
        raise ValueError("no expression")
    return kept == "T"


def _shingles_by_zip(text, n_words=5):
    if not n_words > 0:
        raise ValueError("no words")
    words = [each for each in (piece.strip() for piece in split_words(text)) if each]
    if len(words) < n_words:
        return frozenset({" ".join(words)} if words else ())
    return frozenset(map(" ".join, zip(*(words[i:] for i in range(n_words)), strict=False)))


def _hash(text):
    hashed = hashlib.blake2b(digest_size=8)
    hashed.update(text.encode("utf-8", errors="surrogatepass"))
    return int(np.frombuffer(hashed.digest(), "<u8")[0])


def _minhash_one_by_one(text, n_hashes=64, seed=0):
    if n_hashes <= 0:
        raise ValueError("no function")
    numbers = [*map(_hash, _shingles_by_zip(text))]
    found = np.full(n_hashes, ~np.uint64(0))
    for i in range(n_hashes):
        a = _hash(f"{seed} {i} factor")
        a, b = a + 1 - a % 2, _hash(f"{seed} {i} offset")
        for x in numbers:
            found[i] = min(int(found[i]), (a * x + b) % 2**64)
    return found


def _groups_by_search(texts, threshold=0.7, n_bands=16, n_rows=4):
    """Neighbours in lists; groups by walking through them."""
    if n_bands < 1 or n_rows < 1 or not (threshold > 0 and threshold <= 1):
        raise ValueError("out of range")
    sets = [_shingles_by_zip(text) for text in texts]
    distinct = list(dict.fromkeys(sets))
    a, b = (
        np.array([_hash(f"0 {i} {what}") for i in range(n_bands * n_rows)], np.uint64)
        for what in ("factor", "offset")
    )
    a |= np.uint64(1)
    rows = []
    for each in distinct:
        values = np.multiply.outer(np.array([_hash(one) for one in each], np.uint64), a) + b
        rows.append(values.min(axis=0, initial=2**64 - 1).reshape(n_bands, n_rows))
    near = {i: set() for i in range(len(distinct))}
    for band in range(n_bands):
        met = {}
        for i, each in enumerate(rows):
            met.setdefault(tuple(each[band].tolist()), []).append(i)
        for i, j in itertools.chain.from_iterable(itertools.combinations(m, 2) for m in met.values()):
            both = len(distinct[i] & distinct[j])
            if j not in near[i] and both / max(1, len(distinct[i]) + len(distinct[j]) - both) >= threshold:
                near[i].add(j)
                near[j].add(i)
    label = {}
    for start in near:
        waiting = [] if start in label else [start]
        while waiting:
            one = waiting.pop()
            if one not in label:
                label[one] = start
                waiting += near[one]
    place = {each: label[i] for i, each in enumerate(distinct)}
    found = {}
    for i, each in enumerate(sets):
        found.setdefault(place[each], []).append(i)
    return [*found.values()]


def _split_by_labels(names, groups=(), share=0.1, seed=0):
    n = len(names)
    if not (share >= 0 and share <= 1) or any(names[i] in names[:i] for i in range(n) if n < 50):
        raise ValueError("no split")
    if len({*names}) != n:
        raise ValueError("equal names")
    label = np.arange(n)
    for group in groups:
        members = np.array(list(group), dtype=np.int64)
        if members.size:
            if members.min() < 0 or members.max() >= n:
                raise ValueError("no text")
            label[np.isin(label, label[members])] = label[members[0]]
    least = {}
    for i in sorted(range(n), key=lambda i: names[i]):
        least.setdefault(int(label[i]), names[i])
    held = {each: _hash(f"{seed} {name}") / 2**64 < share for each, name in least.items()}
    sides = [held[int(each)] for each in label]
    return [i for i in range(n) if not sides[i]], [i for i in range(n) if sides[i]]


EQUIVALENTS = {
    "licences by regular expressions": {"licence_of": _licence_by_regex},
    "expressions by replacing": {"is_permitted": _permitted_by_python},
    "shingles by zip": {"shingles": _shingles_by_zip},
    "signatures one value at a time": {"minhash": _minhash_one_by_one},
    "groups by a walk": {"near_duplicates": _groups_by_search},
    "splits by labels": {"split": _split_by_labels},
}

_ROOT = "any member may stand for a group"
HARMLESS = {
    "if not 0 < threshold <= 1 or n_bands < 1 or n_rows < 1:"
    " => if not 0 < threshold <= 1 or n_bands < 0 or n_rows < 1:": "a signature of nothing is refused anyway",
    "if not 0 < threshold <= 1 or n_bands < 1 or n_rows < 1:"
    " => if not 0 < threshold <= 1 or n_bands < 1 or n_rows < 0:": "a signature of nothing is refused anyway",
    "if n_hashes < 1: => if False:": "NumPy refuses the axis that is missing, with a ValueError",
    "if n_hashes < 1: => if n_hashes < 0:": "NumPy refuses the axis that is missing, with a ValueError",
    "raise ValueError(f'a signature needs at least one hash function; got n_hashes={n_hashes}') => pass": (
        "NumPy refuses the axis that is missing, with a ValueError"
    ),
    "groups.join(first.setdefault(each, number), number)"
    " => groups.join(number, first.setdefault(each, number))": _ROOT,
    "if first[each] == number: => if True:": "equal texts meet and are found in one group already",
    "sides[_number(f'{seed} {least}') < share * 2 ** 64].extend(group)"
    " => sides[_number(f'{seed} {least}') <= share * 2 ** 64].extend(group)": "no hash is just the limit",
    "if groups.of(a) != groups.of(b) and _jaccard(sets[a], sets[b]) >= threshold:"
    " => if groups.of(a) != groups.of(b) and _jaccard(sets[b], sets[a]) >= threshold:": "J is symmetric",
    "together.join(members[0], member) => together.join(member, members[0])": _ROOT,
    "together.join(members[0], member) => together.join(members[-1], member)": _ROOT,
    "groups.join(a, b) => groups.join(b, a)": _ROOT,
    "licence_of: wrong for empty text": "None stays None",
    **{
        f"shingles: {what}": "what is spoiled is no frozenset"
        for what in (
            "wrong for text with a byte order mark", "wrong for text with NUL", "wrong for text with CRLF",
            "wrong for text beyond 255 characters", "wrong for empty text", "right at the first call only",
        )
    },
    "minhash: float32 becomes float64": "there are no floats",
}  # fmt: skip


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    mark = "SPDX-License-Identifier:"
    licences = {
        "two marks": f"# {mark} MIT\n# {mark} ISC",
        "a comment that ends": f"/* {mark} MIT */",
        "two words": f"{mark} MIT OR ISC",
        "an empty mark": f"{mark}\nMozilla Public License",
        "a small mark": f"{mark.lower()} MIT",
        "a form feed": f"{mark} MIT\x0cx",
        "two lines": "Mozilla\n# Public License",
        "an accent": "Mozilla\u00e9Public License",
        "underscores": "_Mozilla_ Public License",
        "digits": "Licensed under the Apache License, Version 3.1",
        "digits between": "Mozilla 2 Public License",
        "inside a word": "Mozilla Public Licenses",
        "half of BSD": "redistribution and use in source and binary forms",
        "far below": "x " * 2000 + "Mozilla Public License",
        "two licences": "GNU General Public License. Mozilla Public License.",
    }
    expressions = [
        "MIT",
        "mit",
        "MI",
        "X",
        "MIT AND ISC OR X",
        "X AND X OR MIT",
        "MIT OR X AND X",
        "MIT OR X",
    ]
    expressions += [
        "MIT X",
        "X AND MIT X",
        "(MIT",
        "MIT or ISC",
        "MIT WITH",
        "MIT WITH x",
        "",
        "MIT OR ISC AND X",
    ]
    texts = ["if x:\n  y.z(1)", "a b c d e f g", "", " \n", "A b", "a b c", "caf\u00e9 ol\u00e9 a b c"]
    words = [f"w{each}" for each in rng.integers(1000, size=40)]

    def edit(some, *places):
        return [f"v{i}" if i in places else word for i, word in enumerate(some)]

    chain = [words, edit(words, 3, 9), edit(words, 3, 9, 20, 30)]
    chain = [" ".join(each) for each in [*chain, edit(chain[-1], 35, 36)]]
    short = ["a b c d e f g h i j k l", "a b c d e f g h i j k z", "a b c d e", "", " ", "Q R S", "q r s"]
    mixed = [chain[3], *short, *chain[:3], " ".join(words[:20])]
    names = ["d", "b", "a", "c", "f", "e", "h", "g", "i", "j"]

    def refused(call):
        def probe(impl):
            try:
                return str(call(impl))
            except Exception as error:
                return type(error).__name__

        return probe

    def groups(texts, *more):
        return refused(lambda impl: impl.near_duplicates(texts, *more))

    def split(*more, given=names):
        return refused(lambda impl: [[*each] for each in impl.split(given, *more)])

    found = {
        label: refused(lambda impl, text=text: impl.licence_of(text)) for label, text in licences.items()
    }
    found |= {
        f"permission of {each!r}": refused(lambda impl, each=each: impl.is_permitted(each))
        for each in expressions
    }
    found |= {
        f"shingles of {each!r}": refused(lambda impl, each=each: sorted(impl.shingles(each)))
        for each in texts
    }
    return found | {
        "permission of nothing": refused(lambda impl: impl.is_permitted(None)),
        "names in capitals": refused(lambda impl: impl.is_permitted("mit", ["MIT"])),
        "shingles of no words": refused(lambda impl: sorted(impl.shingles("a b", 0))),
        "shingles of two": refused(lambda impl: sorted(impl.shingles("a b c d", 2))),
        "a signature": refused(lambda impl: impl.minhash("a b c d e f g", 4).tolist()),
        "a signature with a seed": refused(lambda impl: impl.minhash("a b c d e f", 4, 7).tolist()),
        "a signature of nothing": refused(lambda impl: impl.minhash("", 2).tolist()),
        "groups": groups(mixed),
        "groups at 0.8": groups(mixed, 0.8),
        "groups at 0.4": groups(mixed, 0.4),
        "groups at 0.8, one row": groups(short[:2], 7 / 9, 40, 1),
        "groups at 0.95, one row": groups(short[:2], 0.95, 40, 1),
        "pairs by bands of two": refused(
            lambda impl: [
                len(impl.near_duplicates([chain[0], " ".join(edit(words, *range(n)))], 0.05, 3, 2))
                for n in range(2, 34)
            ]
        ),
        "groups by one band": groups(mixed, 0.3, 1, 6),
        "groups by two bands": groups(mixed, 0.3, 2, 3),
        "groups by eight bands of one": groups(mixed, 0.1, 8, 1),
        "groups of parts": groups([" ".join(words), " ".join(words[:20]), " ".join(words[5:])], 0.5, 30, 1),
        "groups at 0": groups(["a"], 0),
        "groups at 2": groups(["a"], 2),
        "a split": split((), 0.4),
        "a split with groups": split([[0, 2], [5, 3], [8, 1, 9]], 0.4),
        "a split with joined groups": split([[0, 5], [5, 3], [3, 8], [1, 9], [9, 0]], 0.5, 3),
        "a split with a seed": split((), 0.5, 9),
        "a split of names alike": split((), 0.5, given=["a", "a"]),
        "a split with numbers from the end": split([[-1, 0]], 0.5),
        "a split at 2": split((), 2),
    }
