"""Texts of random tokens under a constraint: whatever is drawn satisfies the schema, as `satisfies` says."""

import json
import math
import re
import threading
import time

import numpy as np
import pytest

pytest.importorskip("torch")

from techtree.errors import InputError
from techtree.lm.infer import constraint as module
from techtree.lm.infer.constraint import (
    MAX_BYTES,
    MAX_COMPILED,
    MAX_DEPTH,
    MAX_REFERENCES,
    Grammars,
)
from techtree.lm.infer.gbnf import MAX_RULES
from techtree.lm.tokenizer import SPECIAL_TOKENS

N_SEEDS = 100
N_MOST = 150


@pytest.fixture(scope="module")
def grammars(tiny_tokenizer):
    return Grammars(tiny_tokenizer)


@pytest.fixture(scope="module")
def token_bytes(tiny_tokenizer):
    return [tiny_tokenizer.decode_bytes([i]) for i in range(tiny_tokenizer.vocab_size)]


def written(grammars, tokens, kind, text, seed, ends=50.0):
    """Return a text of random tokens, and whether it has ended.

    What ends a string or an array is drawn more often, and blanks less often.
    """
    constraint = grammars.constraint(kind, text)
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=len(tokens)) ** 3
    weights[[token[:1] in b'"}],' for token in tokens]] *= ends
    weights[[not token.strip() for token in tokens]] *= 0.1
    ids = []
    for _ in range(N_MOST):
        allowed = constraint.allowed(len(tokens)) * weights
        sums = allowed.cumsum()
        token = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
        if token < len(SPECIAL_TOKENS):
            return b"".join(ids), True
        ids.append(tokens[token])
        if constraint.ends_after(token):
            return b"".join(ids), True
    return b"".join(ids), False


def satisfies(schema, value):
    """Return whether a value satisfies a schema, in the keywords that the tests use."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if "const" in schema:
        return value == schema["const"] and type(value) is type(schema["const"])
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    if "anyOf" in schema:
        return any(satisfies(one, value) for one in schema["anyOf"])
    if "oneOf" in schema:
        return sum(satisfies(one, value) for one in schema["oneOf"]) == 1
    kind = schema.get("type")
    if kind in ("integer", "number"):
        is_one = isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return is_one and low <= value <= high
    if kind and not isinstance(value, kinds[kind]):
        return False
    if kind == "string":
        n_least, n_most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        return n_least <= len(value) <= n_most and bool(re.search(schema.get("pattern", ""), value))
    if kind == "array":
        n_least, n_most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        return n_least <= len(value) <= n_most and all(
            satisfies(schema.get("items", {}), one) for one in value
        )
    if kind == "object":
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            satisfies(known[name], one) if name in known else rest is not False and satisfies(rest, one)
            for name, one in value.items()
        )
    return True


SCHEMAS = {
    "nested arrays": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
            "maxItems": 2,
        },
    },
    "enum": {"enum": ["red", "green", 3, None, True, "é😀"]},
    "const": {"const": {"a": [1, {"b": None}], "é": "x"}},
    "pattern": {"type": "string", "pattern": "^(a|bc){2,4}-[0-9]{3}$"},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 6},
    "integer": {"type": "integer", "minimum": -12, "maximum": 345},
    "number": {"type": "number", "minimum": 0.5, "maximum": 2.25},
    "anyOf": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}]},
    "oneOf": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"k": {"const": "a"}},
                "required": ["k"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"k": {"const": "b"}},
                "required": ["k"],
                "additionalProperties": False,
            },
            {"type": "boolean"},
        ]
    },
    "object": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
        },
        "required": ["name", "tags"],
        "additionalProperties": False,
    },
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
                "required": ["left"],
                "additionalProperties": False,
            }
        },
    },
    "any object": {"type": "object"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_is_drawn_satisfies_the_schema(grammars, token_bytes, name):
    schema = SCHEMAS[name] if name != "tree" else SCHEMAS[name]["$defs"]["node"]
    values, n_open = [], 0
    for seed in range(N_SEEDS):
        data, has_ended = written(grammars, token_bytes, "json_schema", json.dumps(SCHEMAS[name]), seed)
        if not has_ended:
            n_open += 1
            continue
        value = json.loads(data.decode("utf-8"))
        if name == "tree":  # `satisfies` knows no references
            while value["left"] is not None:
                assert value.keys() == {"left"}
                value = value["left"]
        else:
            assert satisfies(schema, value), data
        values.append(data)
    assert n_open < N_SEEDS * 0.7  # of an object with anything in it, some do not end
    assert len(set(values)) > 1 or name == "const"


def test_whatever_is_drawn_fits_the_grammar(grammars, token_bytes):
    grammar = 'root ::= line{1,3}\nline ::= [a-cé]{1,4} ("," [0-9]+)? "\\n"'
    for seed in range(N_SEEDS):
        data, has_ended = written(grammars, token_bytes, "gbnf", grammar, seed, ends=1)
        assert not has_ended or re.fullmatch("([a-cé]{1,4}(,[0-9]+)?\n){1,3}", data.decode("utf-8")), data


def test_any_json(grammars, token_bytes):
    """`true` is a schema that everything satisfies."""
    for seed in range(N_SEEDS):
        data, has_ended = written(grammars, token_bytes, "json_schema", "true", seed)
        if has_ended:
            json.loads(data)


def test_characters_of_several_tokens_come_whole(grammars, tiny_tokenizer, token_bytes):
    text = json.dumps({"const": "é😀𐍈"})
    assert written(grammars, token_bytes, "json_schema", text, 0)[0].decode() == '"é😀𐍈"'
    assert len(tiny_tokenizer.encode("😀")) > 1
    strings = {"type": "string", "pattern": "^[^\\x00-\\x7f]{5}$"}
    for seed in range(N_SEEDS):
        data, has_ended = written(grammars, token_bytes, "json_schema", json.dumps(strings), seed)
        assert has_ended
        assert len(json.loads(data.decode("utf-8"))) == 5


def test_blanks_do_not_go_on_for_ever(grammars, tiny_tokenizer):
    constraint = grammars.constraint("json_schema", '{"type": "object"}')
    [brace], [blank] = tiny_tokenizer.encode("{"), tiny_tokenizer.encode(" ")
    constraint.ends_after(brace)
    n_blanks = 0
    while constraint.allowed(512)[blank]:
        constraint.ends_after(blank)
        n_blanks += 1
    assert n_blanks == 64


def test_the_end_is_allowed_exactly_where_the_text_may_end(grammars, tiny_tokenizer):
    constraint = grammars.constraint("gbnf", 'root ::= "ab"? "c"?')
    ends = sorted(tiny_tokenizer.stop_ids)
    a, b, c = (tiny_tokenizer.encode(letter)[0] for letter in "abc")
    told = []
    for token in (a, b, c):
        allowed = constraint.allowed(600)
        assert not allowed[512:].any()  # the model may know more tokens than the tokenizer
        told.append(set(allowed[ends].tolist()))
        assert constraint.ends_after(token) == (token == c)
    assert told == [{True}, {False}, {True}]


def test_guesses_are_cut_before_what_may_not_come(grammars, tiny_tokenizer):
    constraint = grammars.constraint("gbnf", 'root ::= "a" [0-9]+ "b"')
    a, b, one = (tiny_tokenizer.encode(letter)[0] for letter in "ab1")
    end = tiny_tokenizer.end_of_text_id
    assert constraint.accepted([a, one, one, b]) == [a, one, one, b]
    assert constraint.accepted([a, one, a, one]) == [a, one]
    assert constraint.accepted([a, one, b, end]) == [a, one, b]
    assert constraint.accepted([end]) == constraint.accepted([b]) == constraint.accepted([]) == []
    assert not constraint.ends_after(a)  # to ask has changed nothing
    assert constraint.accepted([a]) == []


def test_constraints_of_one_grammar_do_not_know_of_each_other(grammars, tiny_tokenizer):
    first = grammars.constraint("gbnf", 'root ::= "ab"')
    second = grammars.constraint("gbnf", 'root ::= "ab"')
    a, b = (tiny_tokenizer.encode(letter)[0] for letter in "ab")
    assert not first.ends_after(a)
    assert first.allowed(512)[b]
    assert second.allowed(512)[a]
    assert not second.allowed(512)[b]


def test_a_grammar_is_compiled_once_and_few_are_kept(tiny_tokenizer, monkeypatch):
    tried = []
    monkeypatch.setattr(module, "complaint", lambda grammar: tried.append(grammar) or "")
    grammars = Grammars(tiny_tokenizer)
    for i in (*range(MAX_COMPILED), 0, 0, 1, MAX_COMPILED, 0):
        grammars.constraint("json_schema", json.dumps({"const": i}))
    assert len(tried) == MAX_COMPILED + 1
    grammars.constraint("json_schema", json.dumps({"const": 2}))  # the oldest, forgotten
    assert len(tried) == MAX_COMPILED + 2


def chain(n):
    """A schema whose definitions refer each to the next: so many references."""
    links = {
        f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(n - 1)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{n - 1}": {"type": "null"}}}


def nested(depth):
    schema = {"type": "null"}
    for _ in range((depth - 1) // 2):
        schema = {"anyOf": [schema]}
    return schema if depth % 2 else {"anyOf": [schema]}


def rules(n):
    lines = [f'r{i} ::= "a" r{i + 1} "b"?' for i in range(n - 2)]
    return "\n".join(["root ::= r0", *lines, f'r{n - 2} ::= "c"'])


@pytest.mark.parametrize(
    ("kind", "just", "beyond", "says"),
    [
        (
            "json_schema",
            json.dumps(chain(MAX_REFERENCES)),
            json.dumps(chain(MAX_REFERENCES + 1)),
            "refer to 300",
        ),
        ("json_schema", json.dumps(nested(MAX_DEPTH - 1)), json.dumps(nested(MAX_DEPTH + 1)), "100 deep"),
        ("gbnf", rules(MAX_RULES), rules(MAX_RULES + 1), "200 rules or fewer"),
        (
            "gbnf",
            'root ::= "a"' + " " * (MAX_BYTES - 12),
            'root ::= "a"' + " " * (MAX_BYTES - 11),
            "64000 bytes",
        ),
        (
            "json_schema",
            json.dumps({"enum": ["x" * (MAX_BYTES - 14)]}),
            json.dumps({"enum": ["x" * (MAX_BYTES - 13)]}),
            "64000 bytes",
        ),
    ],
    ids=["references", "depth", "rules", "bytes of a grammar", "bytes of a schema"],
)
def test_just_within_a_bound_and_just_beyond(grammars, kind, just, beyond, says):
    assert grammars.constraint(kind, just).allowed(512).any()
    with pytest.raises(InputError, match=says):
        grammars.constraint(kind, beyond)


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "string", "pattern": f".*a{i}.*"} for i in range(20)]},  # hours
        {"type": "integer", "multipleOf": 1000003},
        {"type": "integer", "multipleOf": 1000000007},
    ],
    ids=["patterns", "seconds", "fuel"],
)
def test_what_would_take_too_long_is_refused(grammars, schema):
    start = time.monotonic()
    with pytest.raises(InputError, match="a JSON schema must be one that can be kept to"):
        grammars.constraint("json_schema", json.dumps(schema))
    assert time.monotonic() - start < 15


def test_a_machine_that_is_too_busy(grammars, monkeypatch):
    monkeypatch.setattr("techtree.lm.infer.grammar_trial.TIMEOUT_S", 0.001)
    with pytest.raises(InputError, match="takes too long to compile"):
        grammars.constraint("json_schema", '{"const": "late"}')


def test_what_would_crash_is_refused(tiny_tokenizer, monkeypatch):
    """Beyond the bounds, that of references switched off: the stack of the trial's process overflows."""
    monkeypatch.setattr(module, "MAX_REFERENCES", 10_000)
    monkeypatch.setattr(module, "MAX_BYTES", 10**6)
    with pytest.raises(InputError, match="time, memory or depth"):
        Grammars(tiny_tokenizer).constraint("json_schema", json.dumps(chain(5000)))


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"v{i}" for i in range(6000)]},
        {"type": "object", "properties": {f"p{i}": {"enum": [1]} for i in range(2000)}},
        {"type": "string", "maxLength": 10**6},
        {"type": "array", "minItems": 10**6, "items": {"type": "null"}},
        {"type": "string", "pattern": "(a{1000}){1000}"},
    ],
    ids=["enum", "properties", "maxLength", "minItems", "pattern"],
)
def test_what_is_large_is_fast(grammars, schema):
    start = time.process_time()
    constraint = grammars.constraint("json_schema", json.dumps(schema))
    assert constraint.allowed(512).any()
    assert time.process_time() - start < 1.5


def test_nobody_waits_while_a_grammar_compiles(grammars):
    grammars.constraint("json_schema", "true")
    slow = json.dumps({"type": "integer", "multipleOf": 1000033})

    def compile_slowly():
        with pytest.raises(InputError):
            grammars.constraint("json_schema", slow)

    thread = threading.Thread(target=compile_slowly)
    thread.start()
    n_others, longest = 0, 0.0
    while thread.is_alive():
        start = time.monotonic()
        assert grammars.constraint("json_schema", "true").allowed(512).any()
        longest, n_others = max(longest, time.monotonic() - start), n_others + 1
    thread.join()
    assert n_others > 50
    assert longest < 1


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("json_schema", "{", "must be JSON"),
        ("json_schema", "[1]", "must be an object, or true"),
        ("json_schema", "false", "something satisfies"),
        ("json_schema", '{"type": "strin"}', "strin"),
        ("json_schema", '{"type": "string", "pattern": "(a"}', "unclosed group"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("json_schema", '{"not": {"type": "string"}}', "not"),
        ("json_schema", '{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "may overlap: use anyOf"),
        ("json_schema", '{"type": "string", "format": "zzz"}', "Unknown format: zzz"),
        ("json_schema", '{"$ref": "#/nothing"}', "nothing"),
        ("json_schema", '{"$ref": "http://localhost:1/x.json"}', "does not fetch"),
        ("json_schema", '{"const": "\\ud800"}', "must be one that can be kept to"),
        ("json_schema", '{"maximum": 1e999, "type": "number"}', "must be one that can be kept to"),
        ("gbnf", 'x ::= "a"', "a rule root"),
        ("gbnf", 'root ::= "a"{0}', "must be one that can be kept to"),
        ("gbnf", "root ::= root", "must be one that can be kept to"),
    ],
)
def test_what_is_refused(grammars, kind, text, says):
    with pytest.raises(InputError, match=says):
        grammars.constraint(kind, text)


def test_a_vocabulary_that_cannot_write_it(grammars):
    """A model with fewer tokens than its tokenizer: none of those that it has begins the text."""
    constraint = grammars.constraint("gbnf", 'root ::= "a"')
    with pytest.raises(InputError, match="must allow a token of the model's vocabulary"):
        constraint.allowed(6)
