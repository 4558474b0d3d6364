"""Oracles: grammars followed as sets of places, JSON read by its library, tables walked state by state."""

import copy
import functools
import itertools
import json
import re
import zlib
from collections import deque

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.sampling import Sampling, distribution, draw

# Grammars.


def ends(grammar, text, starts):
    """Return all places at which a text of the grammar can end that begins at one of the starts."""
    kind, *parts = (grammar,) if isinstance(grammar, bytes) else grammar
    if isinstance(kind, bytes):
        return {at + len(kind) for at in starts if text.startswith(kind, at)}
    if kind == "range":
        return {at + 1 for at in starts if at < len(text) and parts[0] <= text[at] <= parts[1]}
    if kind == "choice":
        return {at for part in parts for at in ends(part, text, starts)}
    if kind == "sequence":
        for part in parts:
            starts = ends(part, text, starts)
        return starts
    part, least, most = parts
    found = set()
    for n_times in itertools.count():
        if n_times >= least:
            if starts <= found:
                return found
            found |= starts
        if n_times == most or not starts:
            return found
        starts = ends(part, text, starts)
    raise AssertionError


@functools.cache
def is_text_of(grammar, text):
    return len(text) in ends(grammar, text, {0})


def drawn_text(grammar, rng):
    """Draw a text of a grammar."""
    kind, *parts = (grammar,) if isinstance(grammar, bytes) else grammar
    if isinstance(kind, bytes):
        return kind
    if kind == "range":
        return bytes([rng.integers(parts[0], parts[1], endpoint=True)])
    if kind == "choice":
        return drawn_text(parts[rng.integers(len(parts))], rng)
    if kind == "repeat":
        part, least, most = parts
        most = least + 3 if most is None else most
        parts = [part] * int(rng.choice([least, most, rng.integers(least, most, endpoint=True)]))
    return b"".join(drawn_text(part, rng) for part in parts)


def drawn_grammar(rng, depth):
    kind = rng.integers(8) if depth else rng.integers(3)
    if kind == 0:
        return bytes(rng.choice(list(b"abc\x00\xff"), size=rng.integers(4)).tolist())
    if kind <= 2:
        low, high = sorted(rng.choice([0, 9, 97, 98, 99, 127, 128, 254, 255], size=2).tolist())
        return ("range", low, high)
    if kind <= 4:
        return ("sequence", *(drawn_grammar(rng, depth - 1) for _ in range(rng.integers(4))))
    if kind <= 6:
        return ("choice", *(drawn_grammar(rng, depth - 1) for _ in range(rng.integers(1, 4))))
    least = int(rng.integers(4))
    most = None if rng.integers(2) else least + int(rng.integers(3))
    return ("repeat", drawn_grammar(rng, depth - 1), least, most)


A_OR_B = ("choice", b"a", b"b")
STAR = ("repeat", b"ab", 0, None)
BY_HAND = {
    "one byte": b"a",
    "nothing but the empty text": b"",
    "a sequence of none": ("sequence",),
    "bytes": b"abc",
    "unusual bytes": b"\x00\xff\x80\n",
    "a range": ("range", 97, 99),
    "a range of one": ("range", 0, 0),
    "a range of all": ("range", 0, 255),
    "a choice": ("choice", b"ab", b"cd"),
    "a choice of one": ("choice", b"ab"),
    "a choice with the empty text": ("choice", b"", b"ab"),
    "a choice that begins alike": ("choice", b"ab", b"ac", b"a"),
    "a choice in which one is a part of another": ("choice", b"a", b"aa", b"aaa"),
    "ranges that overlap": ("choice", ("sequence", ("range", 97, 99), b"x"), ("range", 98, 120)),
    "any number of times": STAR,
    "at least once": ("repeat", b"ab", 1, None),
    "at least twice": ("repeat", b"a", 2, None),
    "at most once": ("repeat", b"ab", 0, 1),
    "at most twice": ("repeat", b"a", 0, 2),
    "once": ("repeat", b"ab", 1, 1),
    "no times": ("repeat", b"ab", 0, 0),
    "twice to three times": ("repeat", ("choice", b"a", b"bc"), 2, 3),
    "many times the empty text": ("repeat", b"", 3, None),
    "any number of perhaps": ("repeat", ("repeat", b"a", 0, 1), 0, None),
    "any number of any number": ("repeat", ("repeat", b"a", 0, None), 0, None),
    "twice any number": ("repeat", ("repeat", b"a", 0, None), 2, 2),
    "any number of twice": ("repeat", ("repeat", b"a", 2, 2), 0, None),
    "any number of twice or three times": ("repeat", ("repeat", b"a", 2, 3), 0, None),
    "stars side by side": ("sequence", ("repeat", b"a", 0, None), ("repeat", b"b", 0, None)),
    "a star in a choice": ("choice", ("repeat", b"a", 0, None), b"b"),
    "stars in a choice": ("choice", ("repeat", b"a", 1, None), ("repeat", b"b", 1, None)),
    "a star of a choice of stars": ("repeat", ("choice", STAR, ("repeat", b"c", 1, None)), 0, None),
    "before and after a star": ("sequence", b"x", STAR, b"y"),
    "two that need two machines": ("sequence", ("repeat", A_OR_B, 0, None), b"a", A_OR_B, A_OR_B),
    "joined though written apart": ("choice", b"ax", b"bx", ("sequence", b"c", ("range", 120, 120))),
    "joined at the end of the bytes": ("choice", b"\xfea", b"\xffa"),
    "e acute": "\u00e9".encode(),
    "nested": ("repeat", ("sequence", b"(", ("repeat", b"()", 0, 2), b")"), 1, 2),
}


def check_automaton(form, grammar, rng):
    """Compare an automaton with a grammar, from every state by every way on."""
    table, is_end = form.transitions, form.is_accepting
    assert table.shape == (len(is_end), 256)
    assert (table.dtype.kind, is_end.dtype) == ("i", np.bool_)
    assert table.min() >= -1
    assert table.max() < len(is_end)
    way_to, way_out = words_to(table), words_out(table, is_end)
    assert len(way_to) == len(is_end), "a state is reached by no bytes"
    assert len(way_out) == len(is_end), "from a state no text can be ended"
    tails = sorted({*way_out.values(), b"", *told_apart(table, is_end)}, key=len)[:8]
    states = rng.permutation(len(is_end))[:12].tolist()
    for state, word in ((state, way_to[state]) for state in states):
        for after in np.unique(table[state]).tolist():
            for byte in rng.choice(np.flatnonzero(table[state] == after), size=2).tolist():
                for tail in tails:
                    text = word + bytes([byte]) + tail
                    assert form.matches(text) == is_text_of(grammar, text), text
    for text in (drawn_text(grammar, rng) for _ in range(10)):
        assert form.matches(text), text


def words_to(table):
    """State -> a shortest text from state 0."""
    found, todo = {0: b""}, deque([0])
    while todo:
        state = todo.popleft()
        for after, byte in dict(zip(table[state].tolist(), range(256), strict=True)).items():
            if after >= 0 and after not in found:
                found[after] = found[state] + bytes([byte])
                todo.append(after)
    return found


def words_out(table, is_end):
    """State -> a shortest text that is accepted from it, as far as there is one."""
    far = len(is_end) + 1
    n_left, before = np.where(is_end, 0, far), None
    while before is None or not np.array_equal(before, n_left):
        before, after = n_left, np.append(n_left, far)[table]
        n_left = np.minimum(n_left, after.min(axis=1) + 1)
    found = {}
    for state in np.argsort(n_left, kind="stable").tolist():
        if n_left[state] == 0:
            found[state] = b""
        elif n_left[state] < far:
            byte = int(after[state].argmin())
            found[state] = bytes([byte]) + found[int(table[state, byte])]
    return found


def told_apart(table, is_end):
    """A text for each pair of states of which one accepts it, as far as short ones do."""
    found = []
    for one, other in itertools.islice(itertools.combinations(range(len(is_end)), 2), 20):
        word = difference(table, is_end, one, other)
        found += [word] if word is not None else []
    return found


def difference(table, is_end, one, other):
    """Return a shortest text that is accepted from one state and not from the other; None without one."""
    accepts, rows = [*is_end.tolist(), False], np.vstack([table, np.full((1, 256), -1)])
    seen, todo = {(one, other)}, deque([(one, other, b"")])
    while todo:
        one, other, word = todo.popleft()
        if accepts[one] != accepts[other]:
            return word
        pairs = dict(zip(zip(rows[one].tolist(), rows[other].tolist(), strict=True), range(256), strict=True))
        for pair, byte in pairs.items():
            if pair not in seen:
                seen.add(pair)
                todo.append((*pair, word + bytes([byte])))
    return None


def test_automata_are_read_as_they_are(impl, rng):
    table = rng.integers(-1, 5, size=(5, 256))
    form = impl.Automaton(table, np.array([True, False, False, True, False]))
    for state in range(5):
        assert form.step(state, b"") == state
        for n in (1, 2, 3, 7):
            data = bytes(rng.integers(256, size=n).tolist())
            expected = state
            for byte in data:
                expected = int(table[expected, byte]) if expected >= 0 else -1
            assert form.step(state, data) == expected
            assert type(form.step(state, data)) is int
            if state == 0:
                assert form.matches(data) is (expected in (0, 3))
    assert form.step(-1, b"") == -1
    assert form.step(-1, b"a") == -1
    assert form.matches(b"") is True
    assert impl.Automaton(table, np.zeros(5, bool)).matches(b"") is False


def test_what_is_no_grammar(impl):
    wrong = ["a", 3, None, (), ("rang", 1, 2), ("range", 1), ("range", 1, 2, 3)]
    wrong += [("range", -1, 3), ("range", 3, 256), ("range", 4, 3), ("range", "a", "z"), ("range", 97.0, 98)]
    wrong += [
        ("range", b"a", b"z"),
        ("range", 256, 256),
        ("range", -2, -1),
        ("repeat", b"a"),
        ("repeat", b"a", 1),
    ]
    wrong += [
        ("repeat", b"a", -1, 2),
        ("repeat", b"a", 2, 1),
        ("repeat", b"a", None, 2),
        ("repeat", b"a", 1, -1),
    ]
    wrong += [
        ("repeat", b"a", -1, None),
        ("repeat", b"a", 0.0, 1),
        ("repeat", b"a", 0, 1.5),
        ("repeat", 0, 1),
    ]
    wrong += [
        [b"a"],
        ["range", 97, 98],
        ("choice",),
        ("choice", ("choice",)),
        ("sequence", b"a", ["range", 1, 2]),
    ]
    wrong += [("repeat", each, 0, 0) for each in ("a", ("range", 2, 1), ("choice",), [b"a"])]
    wrong += [("choice", ("range", 97, 98), ("range", 97.0, 98.0)), ("choice", b"a", bytearray(b"a"))]
    wrong += [("repeat", b"a", -2, -1), ("repeat", b"a", 1, "2"), ("repeat", b"a", 1, 2, 3), (b"a", b"b")]
    wrong += [("repeat", b"a", 0, 2.0), ("repeat", b"a", 2.0, None), ("repeat", ("sequence", "a"), 0, 0)]
    wrong += [("repeat", ("choice", ("sequence", b"a", ("range", 3, 2))), 0, 0), ({}, b"a"), ([], b"a"), (1,)]
    for good in (
        ("range", 0, 1),
        ("repeat", b"a", 0, 1),
    ):  # Kept by equality, these would be 0.0 and 1.0, too.
        impl.compile_grammar(good)
        wrong += [(*good[:-1], 1.0)]
    for each in wrong:
        for around in (each, ("sequence", b"a", each), ("choice", b"a", each), ("repeat", each, 1, 2)):
            battery.refuses(impl.compile_grammar, around)


def test_automata_are_new_each_time(impl, rng):
    for grammar in (b"ab", STAR, ("range", 0, 255), ("repeat", b"a", 1, 2)):
        first = impl.compile_grammar(grammar)
        first.transitions[:], first.is_accepting[:] = -1, False
        check_automaton(impl.compile_grammar(grammar), grammar, rng)


# JSON.

CHARACTER = r'(?:[^"\\\x00-\x1f\ud800-\udfff]|\\["\\/bfnrt])'
SCALARS = {
    "integer": r"-?(?:0|[1-9][0-9]{0,14})",
    "boolean": "(?:true|false)",
    "null": "null",
    "string": f'"{CHARACTER}*"',
}


def written(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_regex(schema):
    """The definition, as an expression for the library's engine."""
    if "enum" in schema:
        return f"(?:{'|'.join(re.escape(written(each)) for each in schema['enum'])})"
    if schema["type"] == "object":
        parts = schema["properties"].items()
        return rf"\{{{','.join(re.escape(written(key)) + ':' + as_regex(each) for key, each in parts)}\}}"
    if schema["type"] == "array":
        item, most = as_regex(schema["items"]), schema.get("maxItems")
        return rf"\[(?:{item}(?:,{item}){{0,{'' if most is None else most - 1}}})?\]"
    return SCALARS[schema["type"]]


def holds(schema, value):
    """Tell whether a value is what a schema says, as the specification of JSON schema has it."""
    if "enum" in schema:
        return any(written(each) == written(value) for each in schema["enum"])
    match schema["type"], value:
        case "object", dict():
            parts = schema["properties"]
            return [*value] == [*parts] and all(holds(parts[key], value[key]) for key in parts)
        case "array", list():
            is_short = len(value) <= schema.get("maxItems", len(value))
            return is_short and all(holds(schema["items"], each) for each in value)
    kinds = {"string": str, "boolean": bool, "integer": int, "null": type(None)}
    return type(value) is kinds.get(schema["type"])


def closed(**properties):
    return {"type": "object", "properties": properties, "required": [*properties]}


def several(item, **limits):
    return {"type": "array", "items": item, **limits}


TEXT, WHOLE, FLAG, NULL = ({"type": t} for t in ("string", "integer", "boolean", "null"))
SCHEMAS = {
    "integer": WHOLE,
    "boolean": FLAG,
    "null": NULL,
    "string": TEXT,
    "constants of every kind": {
        "enum": [
            1,
            1.5,
            2.0,
            1e22,
            True,
            False,
            None,
            "",
            "a.b*",
            'he said "\u00e9\n"',
            [],
            {},
            {"b": 1, "a": 2},
            [1, {"a b": "c, d: e"}],
        ]
    },
    "constants that begin alike": {"enum": ["a", "ab", "abc", 1, 12, -1]},
    "one constant": {"enum": ["x"]},
    "no key": closed(),
    "a key": closed(a=WHOLE),
    "two keys": closed(b=FLAG, a=NULL),
    "required in another order": {**closed(c=FLAG, b=NULL, a=FLAG), "required": ["a", "c", "b"]},
    "keys with signs": closed(
        **{'"': NULL, "\\": NULL, "\u00e9": NULL, "": NULL, "{": FLAG, "a b": NULL, "\n": NULL}
    ),
    "objects in objects": closed(a=closed(b=closed(c=FLAG)), d=closed()),
    "keys named as keywords": closed(type=FLAG, enum=NULL, items=FLAG, properties=closed(required=FLAG)),
    "booleans": several(FLAG),
    "at most one": several(NULL, maxItems=1),
    "at most three": several(NULL, maxItems=3),
    "arrays of arrays": several(several(WHOLE, maxItems=2)),
    "arrays of objects": several(closed(a=TEXT, b=WHOLE)),
}
# Texts of JSON, good and bad, by blanks; and those with blanks in them.
_HARD = r"""
0 -0 1 9 10 -1 --1 -0- 00 01 -01 - +1 1. .5 1.0 1e5 0x1 -12 123456789012345 1234567890123456 -123456789012345
-1234567890123456 Infinity NaN true false null True None nul truee tru "" "a" "aa" "\u0041" 'a' a" "a"b"
"\" "\\" "\/" "\b" "\f" "\n" "\r" "\t" "\a" "\v" "\0" "\x41" "\" "a\" "\\\" "\\\\" "\"
[] [true] [true,false] [true,] [,true] [null] [null,null] [null,null,null] [null,null,null,null]
[[]] [[1],[2,3]] [[1,2,3]] [[[]]] [1,[2]] {} {{}} [1][2] [,] [[,]]
{"a":1} {"a":1,} {,"a":1} {"b":true,"a":null} {"a":null,"b":true} {"a":{"b":1}} {a:1} {"a"} {"a":}
{"a":1,"a":1} [{"a":"","b":0},{"a":"x","b":-1}] {"a":{"b":{"c":true}},"d":{}}
"""
_BLANKS = [
    "",
    " 1",
    "1 ",
    "\n1",
    "1 2",
    "[true false]",
    "[ ]",
    "{ }",
    "[true, false]",
    '{"a": 1}',
    '{ "a":1}',
]
_SIGNS = ["\n", "\t", "\x1f", "\0", "\x7f", "\x80", "\u2028", "\ufeff", "\u00e9", "\u20ac", "\U0001f600", " "]
HARD = [*_HARD.split(), *_BLANKS, *(f'"{sign}"' for sign in _SIGNS)]


def grammar_of(impl, schema):
    """Return the grammar of a schema; the schema must stay as it was."""
    kept = copy.deepcopy(schema)
    grammar = impl.json_grammar(schema)
    assert repr(schema) == repr(kept)
    return grammar


def values_of(schema, rng):
    """Draw a value for which a schema holds."""
    if "enum" in schema:
        return copy.deepcopy(schema["enum"][rng.integers(len(schema["enum"]))])
    kind = schema["type"]
    if kind == "object":
        return {key: values_of(each, rng) for key, each in schema["properties"].items()}
    if kind == "array":
        n = int(rng.integers(schema.get("maxItems", 3), endpoint=True))
        return [values_of(schema["items"], rng) for _ in range(n)]
    if kind == "string":
        signs = 'ab"\\/\n\x7f\u00e9\u20ac\U0001f600\ud7ff\ue000 :,{}[]'
        return "".join(signs[i] for i in rng.integers(len(signs), size=rng.integers(7)))
    if kind == "integer":
        return int(rng.integers(-(10 ** int(rng.integers(1, 16))) + 1, 10 ** int(rng.integers(1, 16))))
    return bool(rng.integers(2)) if kind == "boolean" else None


def edited(text, rng):
    """Change, leave out, double or insert a character."""
    at = int(rng.integers(len(text) + 1))
    new = rng.choice(list('0123456789.eE+-"\\{}[],: \n\tnulltruefalsea\u00e9\x00\x1fu\x7fd'))
    left_out, put_in = text[:at] + text[at + 1 :], text[:at] + new + text[at:]
    return rng.choice([left_out, text[:at] + new + text[at + 1 :], put_in])


def walked(form, rng, n_bytes, way_out):
    """Draw a text that an automaton accepts: by any way for some bytes, and then by the shortest."""
    text, state = b"", 0
    for _ in range(n_bytes):
        ways = np.unique(form.transitions[state])
        ways = ways[ways >= 0]
        if not len(ways) or (form.is_accepting[state] and rng.integers(4) == 0):
            break
        after = rng.choice(ways)
        text += bytes([rng.choice(np.flatnonzero(form.transitions[state] == after))])
        state = int(after)
    return text + way_out[state]


# Bytes that are no characters, in hexadecimal: surrogates, too long, too large, cut off, out of place.
_BAD = """
eda080 edbfbf c080 c1bf e09fbf f08fbfbf f4908080 f5808080 c2 e282 f09f98 80 c241 e28241 e24182 ff fe
f888808080 bf c2c2 f1808041 ef80
"""


def test_what_is_no_schema(impl):
    wrong = [
        None,
        True,
        3,
        "string",
        [],
        [TEXT],
        {},
        {"type": "any"},
        {"type": ["string", "null"]},
        {"type": ["string"]},
        {"type": "object"},
    ]
    wrong += [{"type": None}, {"type": "number"}, {"const": 1}, {"anyOf": [TEXT]}, {"$ref": "#"}]
    wrong += [
        {"enum": []},
        {"enum": "abc"},
        {"enum": {"a": 1}},
        {"enum": 3},
        {"enum": [1], "type": "integer"},
    ]
    wrong += [{"enum": [float("nan")]}, {"enum": [1, float("inf")]}, {"enum": [[float("-inf")]]}]
    wrong += [{"enum": [{1}]}, {"enum": [1, b"a"]}, {"enum": [[object()]]}, {"enum": [{"\ud800": 1}]}]
    wrong += [
        {**each, key: 3} for each in (TEXT, WHOLE, FLAG, NULL) for key in ("maxItems", "items", "required")
    ]
    wrong += [{"enum": [b"a"]}, {"enum": [1, object()]}, {"enum": [{1, 2}]}, {"enum": ["a\udfff"]}]
    wrong += [closed(**{"\ud800": NULL}), {"type": "object", "properties": {}}, {"properties": {}}]
    wrong += [{"type": "object", "properties": [], "required": []}, {"type": "object", "required": []}]
    wrong += [
        {**closed(a=TEXT, b=TEXT), "required": each} for each in (["a"], [], "ab", None, ["a", "b", "c"])
    ]
    wrong += [{**closed(a=TEXT, b=TEXT), "required": each} for each in (["a", "b", "b"], ["a", "b", 1])]
    wrong += [
        {**closed(a=TEXT, b=TEXT), "required": each} for each in ([["a"], "b"], [{}, "a"], [["a", "b"]])
    ]
    wrong += [{"type": "object", "properties": {key: NULL}, "required": [key]} for key in (1, None, True)]
    wrong += [{**closed(a=TEXT), "required": ["b"]}, {**closed(), "required": ["a"]}, {**closed(), "x": 1}]
    wrong += [{**closed(a=TEXT), "additionalProperties": each} for each in (True, False, None)]
    wrong += [
        closed(a=True),
        closed(a=None),
        closed(a=TEXT, b={"type": "x"}),
        {**closed(a=TEXT), "title": "t"},
    ]
    wrong += [{"type": "array"}, several([TEXT]), several(True), {"items": TEXT}, several(TEXT, minItems=1)]
    wrong += [several(NULL, maxItems=bad) for bad in (0, -1, 1.5, 2.0, "1", None, True, [1])]
    wrong += [{**each, "maxLength": 3} for each in (TEXT, WHOLE, FLAG, NULL, several(TEXT))]
    wrong += [{**each, "enum": [1]} for each in (TEXT, WHOLE, FLAG, NULL)]
    for schema in wrong:
        for around in (schema, closed(a=schema), several(schema)):
            battery.refuses(impl.json_grammar, around)


# Tables.


def slow_table(table, is_end, vocabulary):
    """Walk each token from each state; then count back from the ends."""
    n_states = len(is_end)
    leads = [[-1] * len(vocabulary) for _ in range(n_states)]
    for state, row in enumerate(leads):
        for token, data in enumerate(vocabulary):
            after = state
            for byte in data:
                after = int(table[after][byte]) if after >= 0 else -1
            row[token] = after if data else -1
    n_left = [0 if each else -1 for each in is_end]
    for n in range(1, n_states + 1):
        for state in range(n_states):
            if n_left[state] < 0 and any(after >= 0 and n_left[after] == n - 1 for after in leads[state]):
                n_left[state] = n
    leads = [[after if after >= 0 and n_left[after] >= 0 else -1 for after in row] for row in leads]
    return np.array(leads).reshape(n_states, len(vocabulary)), np.array(n_left)


def check_table(impl, form, vocabulary):
    kept, given = (form.transitions.copy(), form.is_accepting.copy()), list(vocabulary)
    leads, n_left = slow_table(form.transitions.tolist(), form.is_accepting.tolist(), vocabulary)
    if n_left[0] < 0:
        battery.refuses(impl.token_masks, form, vocabulary)
        return None
    found = impl.token_masks(form, vocabulary)
    assert (found.next_state.dtype.kind, found.n_left.dtype.kind) == ("i", "i")
    assert found.next_state.shape == leads.shape
    assert np.array_equal(found.next_state, leads)
    assert np.array_equal(found.n_left, n_left)
    assert np.array_equal(form.transitions, kept[0])
    assert np.array_equal(form.is_accepting, kept[1])
    assert list(vocabulary) == given
    found.next_state[:], found.n_left[:] = -7, -7
    again = impl.token_masks(form, vocabulary)
    assert np.array_equal(again.next_state, leads)
    assert np.array_equal(again.n_left, n_left)
    return again


PIECES = [
    b"a",
    b"ab",
    b"abc",
    b"b",
    b"c",
    b"",
    b"ca",
    b"bca",
    b"\xc3",
    b"\xa9",
    b"\xa9a",
    b"\xc3\xa9",
    b"aa",
    b"z",
]
FORMS = {
    "a byte": b"a",
    "any number": ("repeat", b"abc", 0, None),
    "accents": ("repeat", ("choice", "\u00e9".encode(), b"a"), 1, None),
    "accents or letters": ("choice", ("sequence", "\u00e9".encode(), b"c"), ("repeat", A_OR_B, 3, 5)),
    "an end that no token reaches": ("choice", b"ab", b"cd", b"bcabd"),
    "an end far away": ("repeat", b"abc", 4, 4),
    "only the empty text": b"",
}


def check_tables(impl, rng, form):
    for vocabulary in (
        PIECES,
        PIECES[::-1],
        tuple(PIECES),
        [*PIECES, *PIECES],
        [b"a", b"b", b"c", b"d"],
        [b"", b"a"],
        [],
    ):
        check_table(impl, form, vocabulary)
    for _ in range(6):
        check_table(impl, form, [PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(1, 9))])


def test_choices_by_trying_all_texts(impl):
    """Every row of at most four tokens is tried: which tokens begin one that is a text of the form?"""
    vocabulary = [b"a", b"ab", b"", b"b", b"ba"]
    for label in (
        "bytes",
        "a choice that begins alike",
        "any number of times",
        "a star in a choice",
        "at most twice",
    ):
        grammar = BY_HAND[label]
        fewest = {}  # (the tokens before, a token) -> how few tokens end a text from there, this one included
        for n in range(1, 5):
            for row in itertools.product((0, 1, 3, 4), repeat=n):
                if is_text_of(grammar, b"".join(vocabulary[token] for token in row)):
                    for at in range(n):
                        place = row[:at], row[at]
                        fewest[place] = min(fewest.get(place, n), n - at)
        if not fewest:
            battery.refuses(impl.token_masks, impl.compile_grammar(grammar), vocabulary)
            continue
        table = impl.token_masks(impl.compile_grammar(grammar), vocabulary)
        for before in {before for before, _ in fewest}:
            state = 0
            for token in before:
                state = int(table.next_state[state, token])
            for n_new in range(5 - len(before)):
                expected = [t for t in range(5) if fewest.get((before, t), 9) <= n_new]
                assert table.choices(state, n_new).tolist() == expected, (label, before, n_new)


def test_a_token_may_hold_a_piece_of_a_character(impl):
    form = impl.compile_grammar(impl.json_grammar(TEXT))
    vocabulary = [bytes([byte]) for byte in range(256)] + [
        b'"\xf0',
        b"\x9f\x98",
        b'\x80"',
        b"\xe2\x82",
        b"\xac\xe2",
        b"",
    ]
    table = check_table(impl, form, vocabulary)
    state = 0
    for token in (256, 257, 258):
        assert token in table.choices(state, 9)
        state = int(table.next_state[state, token])
    assert table.n_left[state] == 0
    within = int(table.next_state[0, 256])
    assert table.choices(within, 9).tolist() == [*range(0x90, 0xC0), 257]
    assert ord('"') not in table.choices(within, 9)
    beside = int(table.next_state[int(table.next_state[0, ord('"')]), 259])
    assert 260 in table.choices(beside, 9)


# Generation.


class Scores:
    """A model whose logits hang on the whole text; it remembers what it was asked."""

    def __init__(self, n_tokens, size=2.0):
        self.n_tokens, self.size = n_tokens, size
        self.texts, self.recorded = [], []

    def row(self, text):
        seed = zlib.crc32(np.asarray(text, np.int64).tobytes()) % 997
        return self.size * 1.5 * np.sin((seed + 1) * (1 + np.arange(self.n_tokens)) * 0.7)

    def __call__(self, ids):
        assert isinstance(ids, np.ndarray)
        assert ids.dtype.kind in "iu"
        self.texts.append(ids.tolist())
        self.recorded.append((Tensor([1.0], requires_grad=True) * 2).requires_grad)
        logits = np.full((len(ids), self.n_tokens), 9.0)
        logits[:, ::2] = -9
        logits[-1] = self.row(ids)
        return Tensor(logits)


def slow_generate(model, ids, n_new, table, end, settings, rng):
    """As the docstring says; also which texts the model is asked about."""
    leads, n_left = table.next_state.tolist(), table.n_left.tolist()
    text, state, asked = [int(each) for each in ids], 0, []
    start = len(text)
    while len(text) - start < n_new:
        budget = n_new - (len(text) - start)
        choices = [t for t, after in enumerate(leads[state]) if after >= 0 and n_left[after] < budget]
        choices = sorted([*choices, end] if n_left[state] == 0 else choices)
        token = choices[0]
        if len(choices) > 1:
            asked.append(list(text))
            logits = np.array([x if t in choices else -np.inf for t, x in enumerate(model.row(text))])
            token = draw(distribution(logits, text, settings), rng)
        if token == end:
            break
        text.append(token)
        state = leads[state][token]
    return text[start:], asked


PLAIN = Sampling(1.0, 0, 1.0, 0.0)
SETTINGS = {
    "greedy": Sampling(temperature=0.0),
    "as the model says": PLAIN,
    "by default": Sampling(),
    "hot": Sampling(3.0, 0, 1.0, 0.0),
    "of the best two": Sampling(1.0, 2, 1.0, 0.0),
    "of the best one": Sampling(1.0, 1, 1.0, 0.0),
    "nucleus": Sampling(1.0, 0, 0.6, 0.0),
    "not much less likely": Sampling(1.0, 0, 1.0, 0.3),
    "repetition": Sampling(1.0, 0, 1.0, 0.0, repetition=3.0),
    "presence and frequency": Sampling(0.0, presence=1.5, frequency=-0.5),
    "all at once": Sampling(1.7, 3, 0.9, 0.05, 1.2, 0.3, 0.4),
}
VOCABULARY = [
    *(bytes([byte]) for byte in b'{}[]",:0123456789.-eE\\truefalsn'),
    b'{"a":',
    b"true",
    b'"',
    b',"b":',
]
VOCABULARY = [*dict.fromkeys([*VOCABULARY, b"alse", b"\xc3", b"\xa9", b'\xa9"', b"[[", b"],", b""])]
END = len(VOCABULARY) - 1
TASKS = {
    "an object": closed(a=FLAG, b={"type": "array", "items": WHOLE}),
    "a string": TEXT,
    "a constant": {"enum": [{"a": [True, "e"]}]},
    "one of three": {"enum": ["e", "true", True]},
}


def check_generate(impl, model_size, table, end, n_new, settings, seed, ids=(1, 2)):
    model, rng, theirs = (
        Scores(table.next_state.shape[1], model_size),
        *map(np.random.default_rng, (seed, seed)),
    )
    expected, asked = slow_generate(model, ids, n_new, table, end, settings, theirs)
    found = impl.constrained_generate(model, ids, n_new, table, end, settings, rng)
    assert found == expected
    assert all(type(each) is int for each in found)
    assert model.texts == asked
    assert not any(model.recorded)
    assert (Tensor([1.0], requires_grad=True) * 2).requires_grad
    assert rng.random() == theirs.random(), "as much was drawn as the definition draws"
    return found


def test_a_single_choice_needs_no_model(impl):
    table = impl.token_masks(impl.compile_grammar(("choice", b"abc", b"abd")), [b"a", b"b", b"c", b"d", b""])
    model = Scores(5)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = impl.constrained_generate(model, [4], 9, table, 4, PLAIN, rng)
        assert found[:2] == [0, 1]
    assert model.texts == [[4, 0, 1]] * 4
    table = impl.token_masks(impl.compile_grammar(("repeat", b"a", 2, 3)), [b"a", b"aa", b"", b"aaa"])
    for seed in range(6):
        check_generate(impl, 1.0, table, 2, 9, PLAIN, seed)
        for n_new in (1, 2, 3):
            check_generate(impl, 1.0, table, 2, n_new, PLAIN, seed)
    table = impl.token_masks(impl.compile_grammar(b""), [b"a", b""])
    for n_new in (0, 1, 5):
        assert check_generate(impl, 1.0, table, 1, n_new, PLAIN, 0) == []
    battery.refuses(impl.constrained_generate, Scores(2), [0], -1, table, 1, PLAIN, np.random.default_rng(0))


def test_what_generation_refuses(impl, rng):
    table = impl.token_masks(impl.compile_grammar(("repeat", b"a", 3, None)), [b"a", b"b", b"", b"aa"])
    model = Scores(4)
    forced = impl.token_masks(impl.compile_grammar(b"ab"), [b"a", b"b", b"", b"aa"])
    empty = impl.token_masks(impl.compile_grammar(b""), [b"a", b"b", b"", b"aa"])
    for ids in ([], (), np.zeros(0, int)):
        battery.refuses(impl.constrained_generate, model, ids, 5, table, 2, PLAIN, rng)
        battery.refuses(impl.constrained_generate, model, ids, 5, forced, 2, PLAIN, rng)
        for n_new in (0, 1):
            battery.refuses(impl.constrained_generate, model, ids, n_new, empty, 2, PLAIN, rng)
    for n_new in (-1, 0, 1):
        battery.refuses(impl.constrained_generate, model, [0], n_new, table, 2, PLAIN, rng)
    for end in (0, 3):
        battery.refuses(impl.constrained_generate, model, [0], 5, table, end, PLAIN, rng)
    loop = impl.token_masks(impl.compile_grammar(("repeat", b"a", 0, None)), [b"a", b"aa", b"", b"b"])
    battery.refuses(impl.constrained_generate, model, [0], 5, loop, 0, PLAIN, rng)
    assert model.texts == []
    assert sum((1, 0, 0, 2)[each] for each in check_generate(impl, 1.0, table, 1, 4, PLAIN, 0)) >= 3
    assert len(check_generate(impl, 1.0, table, 2, 2, PLAIN, 0)) == 2
    late = impl.token_masks(
        impl.compile_grammar(("sequence", b"a", ("repeat", b"b", 0, 1))), [b"a", b"b", b""]
    )
    battery.refuses(impl.constrained_generate, model, [0], 5, late, 1, PLAIN, rng)
    late = impl.token_masks(
        impl.compile_grammar(("sequence", ("choice", b"a", b"c"), ("repeat", b"b", 0, 1))),
        [b"a", b"b", b"", b"c"],
    )
    model = Scores(4)  # It would be asked whether a or c.
    battery.refuses(impl.constrained_generate, model, [0], 5, late, 1, PLAIN, rng)
    assert model.texts == []


def test_where_a_text_may_end_at_once(impl):
    table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, 0, None)), [b"a", b"b", b""])
    lengths = {len(check_generate(impl, 0.2, table, 2, 9, PLAIN, seed)) for seed in range(12)}
    assert 0 in lengths
    assert len(lengths) > 2
    table = impl.token_masks(impl.compile_grammar(A_OR_B), [b"a", b"b", b""])
    for n_new in (1, 7, 40, 300):
        assert len(check_generate(impl, 1.0, table, 2, n_new, PLAIN, n_new)) == 1


def test_a_model_that_never_ends_is_ended_at_any_limit(impl):
    table = impl.token_masks(
        impl.compile_grammar(("sequence", ("repeat", b"a", 0, None), b"b")), [b"a", b"b", b""]
    )

    def model(ids):
        return Tensor(np.tile([9.0, 0.0, 9.0], (len(ids), 1)))

    for n_new in (1, 2, 130, 260):
        found = impl.constrained_generate(
            model, [0], n_new, table, 2, SETTINGS["greedy"], np.random.default_rng(0)
        )
        assert found == [0] * (n_new - 1) + [1]


def test_the_models_answers_are_kept_and_are_no_numbers_only_where_none_may_come(impl, rng):
    table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, 3, 3)), [b"a", b"b", b"", b"c"])
    for dtype in (np.float32, np.float64):
        logits = Tensor(np.array([[0.0, 1.0, 2.0, np.nan]], dtype))
        kept = logits.data.copy()
        found = impl.constrained_generate(lambda ids: logits, [0], 3, table, 2, SETTINGS["greedy"], rng)  # noqa: B023
        assert found == [1, 1, 1]
        assert np.array_equal(logits.data, kept, equal_nan=True)
    for wrong in ([np.nan, 1.0, 2.0, 0.0], [-np.inf, -np.inf, 2.0, 0.0]):
        battery.refuses(
            impl.constrained_generate,
            lambda ids: Tensor(np.array([wrong])),  # noqa: B023
            [0],
            3,
            table,
            2,
            PLAIN,
            rng,
        )


def test_another_machine_and_day_change_nothing(impl):
    def everything():
        form = impl.compile_grammar(impl.json_grammar(TASKS["an object"]))
        table = impl.token_masks(form, VOCABULARY)
        found = impl.constrained_generate(
            Scores(len(VOCABULARY)), [1], 20, table, END, PLAIN, np.random.default_rng(1)
        )
        return form.matches(b'{"a":true,"b":[]}'), form.transitions.shape, table.n_left[0], found

    before = everything()
    with elsewhere(impl):
        assert everything() == before


# What takes longer, and so comes after what most wrong versions fail.


def test_grammars_on_words(impl, rng):
    words = [drawn_text(grammar, rng) for grammar in BY_HAND.values()]
    for grammar in BY_HAND.values():
        form = impl.compile_grammar(grammar)
        for word in [*words[::3], drawn_text(grammar, rng), b"aab", b"ab", b"abab"]:
            assert form.matches(word) == is_text_of(grammar, word), (grammar, word)


def test_schemas_on_texts(impl, rng):
    for schema in list(SCHEMAS.values())[::-1]:
        form, expected = impl.compile_grammar(grammar_of(impl, schema)), re.compile(as_regex(schema))
        constants = map(written, schema.get("enum", []))
        for text in [*constants, *HARD, *(written(values_of(schema, rng)) for _ in range(2))]:
            assert form.matches(text.encode()) == bool(expected.fullmatch(text)), (schema, text)


def test_every_output_parses(impl):
    """Whatever the model, the settings and the limit."""
    for schema in TASKS.values():
        table = impl.token_masks(impl.compile_grammar(impl.json_grammar(schema)), VOCABULARY)
        fewest = int(table.n_left[0])
        for number, (name, settings) in enumerate(SETTINGS.items()):
            n_new = fewest + (0, 1, 4, 12, 30)[number % 5]
            found = check_generate(impl, (2.0, 0.0, 30.0)[number % 3], table, END, n_new, settings, number)
            assert len(found) <= n_new
            text = b"".join(VOCABULARY[token] for token in found).decode()
            assert re.fullmatch(as_regex(schema), text), (name, text)
            assert holds(schema, json.loads(text))


def test_choices_leave_a_way_to_the_end(impl, rng):
    for n_states in (1, 4, 9):
        for n_tokens in aim.sizes(1, 3, 50, at_most=400):
            next_state = rng.integers(-1, n_states, size=(n_states, n_tokens))
            n_left = rng.integers(6, size=n_states)
            table = impl.TokenTable(next_state, n_left)
            for state in range(n_states):
                for n_new in (0, 1, 2, 3, 5, 6, 100):
                    expected = [
                        token
                        for token, after in enumerate(next_state[state].tolist())
                        if after >= 0 and n_left[after] + 1 <= n_new
                    ]
                    found = table.choices(state, n_new)
                    assert found.tolist() == expected
                    assert found.dtype.kind == "i"
                    found[:] = 0
                    assert table.choices(state, n_new).tolist() == expected
    for n in aim.sizes(60, at_most=5000):
        table = impl.TokenTable(np.array([[0, 1, 2, 3, -1]] * 4), np.array([n - 2, n - 1, n, n + 1]))
        assert table.choices(0, n).tolist() == [0, 1]
        assert table.choices(0, 2 * n).tolist() == [0, 1, 2, 3]


def test_the_text_before_is_any(impl, rng):
    table = impl.token_masks(impl.compile_grammar(impl.json_grammar(TASKS["an object"])), VOCABULARY)
    for n in aim.sizes(1, 2, 40, at_most=150):
        ids = rng.integers(len(VOCABULARY), size=n)
        for given in (ids, ids.tolist(), tuple(ids.tolist()), ids.astype(np.uint8))[:: 1 if n == 2 else 3]:
            kept = list(given)
            check_generate(impl, 2.0, table, END, 12, PLAIN, n, given)
            assert list(given) == kept
    for token in table.choices(0, 99).tolist():
        for n in (1, *aim.sizes(3, at_most=150)[-2:]):
            check_generate(impl, 2.0, table, END, 12, PLAIN, n, [token] * n)
    for n in (2, 150):
        wide = rng.integers(len(VOCABULARY), size=(n, 2))
        for ids in (wide[:, 0], wide[:, 1], wide[::-1, 0]):
            kept = ids.copy()
            check_generate(impl, 2.0, table, END, 12, PLAIN, 3, ids)
            assert np.array_equal(ids, kept)
    ids = [END, 0, END]
    check_generate(impl, 2.0, table, END, 25, PLAIN, 1, ids)
    assert ids == [END, 0, END]


def test_only_the_choices_count(impl):
    """Logits of what may not come, however high, change neither the temperature's nor top-p's work."""
    table = impl.token_masks(
        impl.compile_grammar(("repeat", ("range", 97, 99), 3, 3)), [b"a", b"z", b"b", b"c", b""]
    )
    as_hot_as_can_be = Sampling(1e308, 0, 1.0, 0.0)
    for high, low in ((0.0, -1e12), (0.0, -1e300), (-1e9, 0.0), (0.0, 0.0), (50.0, 0.0), (1e9, 0.0)):

        def model(ids, high=high, low=low):
            return Tensor(np.tile([0.0, high, 1.0, 0.5, high], (len(ids), 1)) + low)

        for name, settings in {**SETTINGS, "as hot as can be": as_hot_as_can_be}.items():
            rng, theirs = np.random.default_rng(3), np.random.default_rng(3)
            found, expected = impl.constrained_generate(model, [0], 3, table, 4, settings, rng), []
            for _ in range(3):
                logits = np.array([0.0, -np.inf, 1.0, 0.5, -np.inf]) + low
                expected.append(draw(distribution(logits, [0, *expected], settings), theirs))
            assert found == expected, name
    assert impl.constrained_generate(model, [0], 3, table, 4, Sampling(temperature=0.0), rng) == [2, 2, 2]

    def nearly_alike(ids):
        return Tensor(np.tile([5000.0, 0.0, 5000.0 + 1e-6, 5000.0, 0.0], (len(ids), 1)))

    greedy = Sampling(temperature=0.0)
    assert impl.constrained_generate(nearly_alike, [0], 3, table, 4, greedy, rng) == [2, 2, 2]


def test_every_character_of_a_string(impl):
    form = impl.compile_grammar(impl.json_grammar(TEXT))
    inside = form.step(0, b'"')
    points = {*range(0x900), *range(0xD7F0, 0xE010), *range(0x800, 0x10FFFF, 1511)}
    points |= {*range(0xFFF6, 0x1000A), *range(0x10FFF6, 0x110000)}
    for point in points - {*range(0xD800, 0xE000)}:
        is_in = point >= 32 and chr(point) not in '"\\'
        assert (
            form.step(inside, chr(point).encode()) == inside or form.matches(f'"{chr(point)}"'.encode())
        ) == is_in
    bad = [*battery.HOSTILE_BYTES.values(), *map(bytes.fromhex, _BAD.split())]
    for data in bad:
        assert form.step(inside, data + b'"') == -1, data
    for byte in range(256):
        assert form.matches(b'"\\' + bytes([byte]) + b'"') is (byte in b'"\\/bfnrt'), byte


def test_tables_by_hand(impl, rng):
    for grammar in FORMS.values():
        check_tables(impl, rng, impl.compile_grammar(grammar))


def test_schemas(impl, rng):
    for schema in SCHEMAS.values():
        form = impl.compile_grammar(grammar_of(impl, schema))
        expected = re.compile(as_regex(schema))
        texts = [written(values_of(schema, rng)) for _ in range(4)]
        for text in texts:
            assert form.matches(text.encode()), (schema, text)
        for text in [
            *HARD,
            *(edited(each, rng) for each in texts * 5),
            *(json.dumps(each) for each in texts),
        ]:
            assert form.matches(text.encode()) == bool(expected.fullmatch(text)), (schema, text)
        way_out = words_out(form.transitions, form.is_accepting)
        for n_bytes in (0, 5, 40):
            text = walked(form, rng, n_bytes, way_out).decode()
            assert expected.fullmatch(text), (schema, text)
            assert holds(schema, json.loads(text)), (schema, text)


def test_grammars_by_hand(impl, rng):
    for label, grammar in BY_HAND.items():
        kept = copy.deepcopy(grammar)
        check_automaton(impl.compile_grammar(grammar), grammar, rng)
        assert grammar == kept, label


def test_random_grammars(impl, rng):
    for _ in range(14):
        grammar = drawn_grammar(rng, 3)
        form = impl.compile_grammar(grammar)
        if len(form.transitions) < 40:
            check_automaton(form, grammar, rng)


def test_tables_of_any_automaton(impl, rng):
    for n_states in (1, 2, 3, 9):
        for density in (0.05, 0.4, 1.0):
            is_there = rng.random(size=(n_states, 256)) < density
            table = np.where(is_there, rng.integers(n_states, size=(n_states, 256)), -1)
            for is_end in (
                rng.random(n_states) < 0.3,
                np.arange(n_states) == n_states - 1,
                np.ones(n_states, bool),
            ):
                vocabulary = [bytes(rng.integers(256, size=n).tolist()) for n in rng.integers(4, size=20)]
                for n_tokens in (1, 4, 20):
                    check_table(impl, impl.Automaton(table, is_end), vocabulary[:n_tokens])
    from_5_to_250 = impl.compile_grammar(("repeat", ("range", 5, 250), 1, None))
    for order in (1, -1):  # As many tokens as bytes: the table is as large as the automaton.
        check_table(impl, from_5_to_250, [bytes([byte]) for byte in range(256)[::order]])
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        table = rng.integers(-1, 3, size=(3, 256)).astype(dtype)
        check_table(impl, impl.Automaton(table, np.array([False, False, True])), [b"ab", b"x", b"yz", b""])
    for n in aim.sizes(60, 130, at_most=300):
        chain = np.full((n + 1, 256), -1)
        chain[np.arange(n), 97] = np.arange(1, n + 1)
        form = impl.Automaton(chain, np.arange(n + 1) == n)
        table = check_table(impl, form, [b"a"])
        assert table.n_left.tolist() == [*range(n, -1, -1)]
        assert table.next_state[:, 0].tolist() == [*range(1, n + 1), -1]
        check_table(impl, form, [b"a" * n, b"aaa", b"a", b"", b"a" * (n + 1)])
    for n in aim.sizes(300, at_most=2000):
        many = [bytes([each % 256, 5 + each // 256]) for each in range(n)]
        table = check_table(impl, from_5_to_250, many)
        if table is not None:
            assert (table.next_state[0] >= 0).tolist() == [5 <= one <= 250 for one, _ in many]


def test_long_outputs_and_wide_vocabularies(impl, rng):
    table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, 20, None)), [b"a", b"b", b"", b"ab"])
    check_generate(impl, 0.3, table, 2, 40, Sampling(1.0, 2, 1.0, 0.0), 0)
    for n in aim.sizes(20, at_most=150):
        table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, n, n)), [b"a", b"b", b""])
        assert len(check_generate(impl, 1.0, table, 2, n, PLAIN, 1)) == n
        wide = [*(bytes([97 + i % 2, 97 + i // 2 % 2]) for i in range(n)), b"", b"a"]
        table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, 3, 9)), wide)
        check_generate(impl, 1.0, table, n, 9, PLAIN, 5)
    # The end may be any token.
    for end in range(4):
        vocabulary = [b"a", b"b", b"ab"]
        vocabulary.insert(end, b"")
        table = impl.token_masks(impl.compile_grammar(("repeat", A_OR_B, 1, None)), vocabulary)
        lengths = {len(check_generate(impl, 1.0, table, end, 9, PLAIN, seed)) for seed in range(8)}
        assert len(lengths) > 2
        for name in ("greedy", "of the best one"):
            check_generate(impl, 0.0, table, end, 6, SETTINGS[name], 0)


def test_grammars_of_any_size(impl, rng):
    for n in aim.sizes(1, 2, 40, at_most=150):
        word = bytes(rng.integers(256, size=n).tolist())
        for grammar in (word, ("sequence", *(bytes([each]) for each in word))):
            form = impl.compile_grammar(grammar)
            assert (form.matches(word), form.matches(word[:-1]), form.matches(word + b"x")) == (
                True,
                False,
                False,
            )
        several = [bytes([byte % 256, byte // 256]) for byte in range(2 * n)]
        alike = [word[::-1] for word in several]  # Many at a time may be to be read after the first byte.
        for words in (several, alike):
            form = impl.compile_grammar(("choice", *words))
            assert all(map(form.matches, words))
        assert not form.matches(bytes([2 * n // 256, 2 * n % 256]))
        for least, most in ((n, n), (0, n), (n, None)):
            form = impl.compile_grammar(("repeat", b"x", least, most))
            for times in {0, abs(least - 1), least, n - 1, n, n + 1, 2 * n + 2}:
                assert form.matches(b"x" * times) == (least <= times and (most is None or times <= most))
        assert form.matches(b"x" * 9 * n)
    for n in range(240, 262):
        word = bytes([97 + n % 3]) * n
        form = impl.compile_grammar(word)
        assert form.matches(word)
        assert not any(map(form.matches, (word[1:], word + word[:1], word[1:] + b"z", b"z" + word[1:])))
        assert (form.transitions[:, ord("z")] == -1).all()
    for least in (200, 256, 300):
        form = impl.compile_grammar(("repeat", b"x", least, None))
        assert [form.matches(b"x" * n) for n in (0, least - 1, least, 2 * least)] == [
            False,
            False,
            True,
            True,
        ]
    body = b"ab"
    for one, other in (((3, 5), (0, 5)), ((1, 3), (1, 4)), ((2, None), (0, None)), ((0, 2), (0, None))):
        form = impl.compile_grammar(
            ("choice", ("repeat", body, *one), ("sequence", b"z", ("repeat", body, *other)))
        )
        for start, (least, most) in ((b"", one), (b"z", other)):
            for n in range(8):
                is_in = least <= n <= (n if most is None else most)
                assert form.matches(start + body * n) == is_in
    form = impl.compile_grammar(("repeat", b"x", 0, 300))
    assert [form.matches(b"x" * n) for n in (254, 255, 256, 257, 300, 301)] == [True] * 5 + [False]
    for grammar in (b"", b"a", ("repeat", b"a", 0, None), ("range", 0, 255)):
        first = impl.compile_grammar(grammar)
        kept = first.transitions.copy(), first.is_accepting.copy()
        first.transitions[:], first.is_accepting[:] = 0, False
        second = impl.compile_grammar(grammar)
        assert np.array_equal(second.transitions, kept[0])
        assert np.array_equal(second.is_accepting, kept[1])
    form = impl.compile_grammar(("repeat", A_OR_B, 0, None))
    for n in (5000, 70_000):
        assert form.matches(b"ab" * n)
        assert not form.matches(b"ab" * n + b"c")
    deep = b"a"
    for _ in range(max(aim.sizes(30, at_most=60))):
        deep = ("choice", ("sequence", deep))
    assert impl.compile_grammar(deep).matches(b"a")


def test_schemas_of_any_size(impl, rng):
    def accepts(schema, text):
        return is_text_of(grammar_of(impl, schema), text.encode())

    for n in aim.sizes(3, 14, 15, 16, 17, 40, at_most=130):
        digits = "".join(rng.choice(list("123456789"), size=n))
        assert accepts(WHOLE, digits) == accepts(WHOLE, f"-{digits}") == (n <= 15)
        assert not accepts(WHOLE, f"0{digits}")
    for n in (*aim.sizes(3, 20, at_most=120), 300):
        names = {f"k{i}": {"enum": [i % 10]} for i in range(n)}
        text = written({key: each["enum"][0] for key, each in names.items()})
        assert accepts(closed(**names), text)
        assert not accepts(closed(**names), text.replace('"k1":', '"k0":'))
    for n in aim.sizes(3, 20, at_most=120):
        values = [f"{i}v" for i in range(n)]
        assert all(accepts({"enum": values}, written(each)) for each in (*values[:2], *values[-2:]))
        assert not accepts({"enum": values}, f'"{n}v"')
        assert accepts({"enum": ["\u00e9" * n]}, written("\u00e9" * n))
        assert accepts(TEXT, written("\u00e9" * n))
        for limits in ({}, {"maxItems": n}):
            for times in {0, 1, n - 1, n, n + 1, 2 * n + 3}:
                is_in = times <= limits.get("maxItems", times)
                assert accepts(several({"enum": [7]}, **limits), written([7] * times)) == is_in
    for value in (-0.0, 12345678901234567890, -(2**63) - 1, 1e300, 0.1, [-0.0, 2**53 + 1]):
        assert accepts({"enum": [value]}, written(value))
        assert not accepts({"enum": [value]}, written(value) + "0")
    assert not accepts({"enum": [-0.0]}, "0.0")
    assert not accepts({"enum": [2**60 + 1]}, str(2**60))
    deep = NULL
    for n in range(max(aim.sizes(12, at_most=30))):
        deep = closed(a=deep) if n % 2 else several(deep, maxItems=1)
    assert accepts(deep, written(values_of(deep, rng)))
    for text in battery.texts(300).values():
        schema = closed(**{text: {"enum": [text, [text]]}})
        assert accepts(schema, written({text: text}))
        assert accepts(schema, written({text: [text]}))
        assert not accepts(schema, written({text: text + "x"}))
