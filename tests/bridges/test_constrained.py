"""The lesson's masks are those of llguidance, and lead transformers to the same text."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.constrained import (
    compile_grammar,
    constrained_generate,
    json_grammar,
    token_masks,
)
from techtree.techs.inference.sampling import Sampling

llguidance = pytest.importorskip("llguidance")

PIECES = [b'{"', b'":', b'",', b"true", b'e,"', b"],", b"ab", b"abc", b"\xc3\xa9", b"\xa9", b'\xa9"', b"12"]
VOCABULARY = [*(bytes([byte]) for byte in range(256)), *PIECES, b""]
END = len(VOCABULARY) - 1
ANY_LIMIT = 10**6

A_OR_B = ("choice", b"a", b"b")
GRAMMARS = {
    "a(b|c)*": ("sequence", b"a", ("repeat", ("choice", b"b", b"c"), 0, None)),
    "(ab|abc|c){2,3}": ("repeat", ("choice", b"ab", b"abc", b"c"), 2, 3),
    "[ab]*a[ab]{2}": ("sequence", ("repeat", A_OR_B, 0, None), b"a", ("repeat", A_OR_B, 2, 2)),
    "(\u00e9|a\u00e9|b)+": ("repeat", ("choice", "\u00e9".encode(), "a\u00e9".encode(), b"b"), 1, None),
    "(1?2)*3?": (
        "sequence",
        ("repeat", ("sequence", ("repeat", b"1", 0, 1), b"2"), 0, None),
        ("repeat", b"3", 0, 1),
    ),
}
FLAG = {"type": "boolean"}
ROW = {"type": "array", "items": {"enum": ["ab", "\u00e9", 12, None]}, "maxItems": 3}
SCHEMAS = {
    "an object": {"type": "object", "properties": {"ab": FLAG, "\u00e9": ROW}, "required": ["ab", "\u00e9"]},
    "flags": {"type": "array", "items": FLAG},
    "rows": {"type": "array", "items": ROW, "maxItems": 2},
}
COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


@pytest.fixture(scope="module")
def tokenizer():
    theirs = SimpleNamespace(eos_token_id=END, bos_token_id=None, tokens=[*VOCABULARY[:END], b"<end>"])
    theirs.special_token_ids = [END]

    class Greedy(SimpleNamespace):
        def __call__(self, text):
            return list(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Greedy(**vars(theirs))))


def theirs_allow(matcher) -> set[int]:
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    return set(np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist())


def walk_both(tokenizer, grammar: str, form, rng) -> int:
    """Draw texts token by token and compare the masks before each; return the number of masks."""
    table, n_compared = token_masks(form, VOCABULARY), 0
    for _ in range(12):
        matcher, state = llguidance.LLMatcher(tokenizer, grammar), 0
        for _ in range(40):
            ours = set(table.choices(state, ANY_LIMIT).tolist())
            is_end = bool(table.n_left[state] == 0)
            assert matcher.is_accepting() == is_end
            if not ours:
                break
            theirs = theirs_allow(matcher)
            if matcher.compute_ff_bytes():  # Where bytes are forced, it asks its tokenizer how to cut them.
                assert theirs
                assert theirs <= ours
            else:
                assert theirs == ours | ({END} if is_end else set())
                n_compared += 1
            long = [token for token in ours if token >= 256]
            token = int(rng.choice(long if long and rng.integers(2) else sorted(ours)))
            assert matcher.consume_token(token)
            state = int(table.next_state[state, token])
    return n_compared


@pytest.mark.parametrize("expression", GRAMMARS)
def test_masks_of_an_expression(tokenizer, expression):
    grammar = llguidance.LLMatcher.grammar_from_regex(expression)
    form = compile_grammar(GRAMMARS[expression])
    assert walk_both(tokenizer, grammar, form, np.random.default_rng(0)) > 20


@pytest.mark.parametrize("name", SCHEMAS)
def test_masks_of_a_schema(tokenizer, name):
    closed = json.loads(json.dumps(SCHEMAS[name]))
    if closed["type"] == "object":  # Theirs lets other keys through, if it is not told.
        closed["additionalProperties"] = False
    grammar = llguidance.LLMatcher.grammar_from_json_schema(closed, defaults=COMPACT)
    form = compile_grammar(json_grammar(SCHEMAS[name]))
    assert walk_both(tokenizer, grammar, form, np.random.default_rng(1)) > 20


def test_transformers_write_the_same_text():
    """Greedily: its processor takes the tokens that may come, from a function of the text."""
    import torch
    from transformers import PrefixConstrainedLogitsProcessor

    table = token_masks(compile_grammar(json_grammar(SCHEMAS["rows"])), VOCABULARY)
    n_new, start = 40, [3, 5]

    def may_come(batch: int, ids) -> list[int]:
        state = 0
        for token in ids[len(start) :].tolist():
            state = table.next_state[state, token]
        left = n_new - (len(ids) - len(start))
        return table.choices(state, left).tolist() + [END] * int(table.n_left[state] == 0)

    processor = PrefixConstrainedLogitsProcessor(may_come, num_beams=1)
    for seed in range(4):
        weights = np.random.default_rng(seed).normal(size=(len(VOCABULARY), len(VOCABULARY))) * 3
        ours = constrained_generate(
            lambda ids, weights=weights: Tensor(weights[ids]),
            start,
            n_new,
            table,
            END,
            Sampling(temperature=0.0),
            np.random.default_rng(0),
        )
        ids = torch.tensor([start])
        while ids.shape[1] < len(start) + n_new:
            scores = processor(ids, torch.tensor(weights[ids[0, -1]])[None])
            token = int(scores.argmax())
            if token == END:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        assert ids[0, len(start) :].tolist() == ours
