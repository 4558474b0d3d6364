"""Cuts reconstruct their text, lie where they should, and are laid out as documented."""

import inspect
import json.decoder

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techtree.lm.data.fill_in_the_middle import (
    MAX_BLOCK_LINES,
    Cut,
    block_span,
    cut,
    encode_cut,
    example,
    line_span,
)

CODE = inspect.getsource(json.decoder)
SEEDS = st.integers(0, 2**32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \n\tab:é")
MARKS = 4


@given(TEXTS, SEEDS)
def test_parts_joined_are_the_text(text, seed):
    parts = cut(text, np.random.default_rng(seed))
    assert parts.prefix + parts.middle + parts.suffix == text


@given(TEXTS, SEEDS)
def test_line_span_stays_in_the_code_of_a_line(text, seed):
    start, end = line_span(text, np.random.default_rng(seed))
    assert 0 <= start <= end <= len(text)
    assert "\n" not in text[start:end]
    line_start = text.rfind("\n", 0, start) + 1
    line = text[line_start:].split("\n")[0]
    assert start - line_start >= len(line) - len(line.lstrip())
    assert line.strip() or not text.strip()


@given(TEXTS, SEEDS)
def test_block_span_is_a_run_of_lines_not_less_indented_than_its_first(text, seed):
    start, end = block_span(text, np.random.default_rng(seed))
    assert 0 <= start <= end <= len(text)
    line_start = text.rfind("\n", 0, start) + 1
    assert not text[line_start:start].strip()
    assert end == len(text) or text[end] == "\n" or text[end - 1] == "\n"
    block = text[line_start:end].removesuffix("\n") if end > line_start else ""
    lines = [line for line in block.split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    assert all(indent >= indents[0] for indent in indents)
    assert len(block.split("\n")) <= MAX_BLOCK_LINES


def test_block_of_a_function_ends_with_it():
    text = "def f():\n    a = 1\n\n    return a\n\nx = 2\n"
    spans = {block_span(text, np.random.default_rng(seed)) for seed in range(300)}
    middles = {text[start:end] for start, end in spans}
    assert "    a = 1\n\n    return a\n" in middles  # whole lines, within the function
    assert "a = 1\n\n    return a" in middles  # after the indentation that an editor wrote
    assert "def f():\n    a = 1\n\n    return a\n\nx = 2\n" in middles  # at the level of the module
    assert not any(middle.startswith(" ") and "x = 2" in middle for middle in middles)


def test_kinds_of_cuts_come_as_often_as_documented():
    rng = np.random.default_rng(0)
    n = 1000
    cuts = [cut(CODE[:500], rng) for _ in range(n)]
    within_line = sum("\n" not in parts.middle for parts in cuts) / n
    # Half are parts of lines; of the 30 % blocks, those of one line that begin after the indentation
    # count too: between none and half of them. Random cuts of this text rarely fall into one line.
    assert 0.5 - 0.05 < within_line < 0.5 + 0.15 + 0.05  # three standard errors
    empty = sum(not parts.middle for parts in cuts) / n
    assert 0.005 < empty < 0.1  # there is not always something to add


def test_orders(tiny_tokenizer):
    t = tiny_tokenizer
    a, b, c = t.encode_batch(["x = ", "f(", ")\n"])
    parts = Cut("x = ", "f(", ")\n")
    pre, mid, suf, end = t.fim_prefix_id, t.fim_middle_id, t.fim_suffix_id, t.end_of_text_id
    assert encode_cut(parts, t, 100, is_spm=False) == [pre, *a, suf, *c, mid, *b, end]
    assert encode_cut(parts, t, 100, is_spm=True) == [pre, suf, *c, mid, *a, *b, end]


def test_prompt_of_either_order_is_the_same_without_a_prefix(tiny_tokenizer):
    parts = Cut("", "f(", ")\n")
    assert encode_cut(parts, tiny_tokenizer, 100, True) == encode_cut(parts, tiny_tokenizer, 100, False)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=3), st.integers(MARKS + 1, 80), st.booleans())
def test_what_is_farthest_from_the_middle_is_left_out(tiny_tokenizer, lengths, max_tokens, is_spm):
    t = tiny_tokenizer
    prefix, middle, suffix = (digit * n for digit, n in zip("123", lengths, strict=True))  # one token a digit
    ids = encode_cut(Cut(prefix, middle, suffix), t, max_tokens, is_spm)
    assert len(ids) == min(max_tokens, sum(lengths) + MARKS)
    assert ids[-1] == t.end_of_text_id
    n_left = [ids.count(t.encode(digit)[0]) for digit in "123"]
    n_lost = [n - left for n, left in zip(lengths, n_left, strict=True)]
    if n_lost[1]:
        assert n_left[0] == n_left[2] == 0
    if n_lost[0] and n_lost[2]:
        assert abs(n_left[0] - n_left[2]) <= 1


def test_the_parts_nearest_to_the_middle_stay(tiny_tokenizer):
    t = tiny_tokenizer
    ids = encode_cut(Cut("12345", "6", "7890"), t, MARKS + 5, is_spm=False)
    assert t.decode(ids) == "<fim_prefix>45<fim_suffix>78<fim_middle>6<|endoftext|>"
    ids = encode_cut(Cut("12345", "678", "90"), t, MARKS + 2, is_spm=False)
    assert t.decode(ids) == "<fim_prefix><fim_suffix><fim_middle>78<|endoftext|>"


def test_examples_have_either_order_and_their_text(tiny_tokenizer):
    t = tiny_tokenizer
    rng = np.random.default_rng(0)
    text = CODE[:500]
    n_spm = 0
    for _ in range(200):
        ids = example(text, t, 400, rng)
        before, after = ids[1 : ids.index(t.fim_middle_id)], ids[ids.index(t.fim_middle_id) + 1 : -1]
        assert ids[0] == t.fim_prefix_id
        prefix, suffix = before[: before.index(t.fim_suffix_id)], before[before.index(t.fim_suffix_id) + 1 :]
        # In SPM, prefix and middle follow on each other behind the suffix.
        assert t.decode(prefix) + t.decode(after) + t.decode(suffix) == text
        n_spm += not prefix
    assert 80 < n_spm < 140  # half of 200 and some PSM examples without a prefix; standard deviation 7


@pytest.mark.parametrize("text", ["", "\n", "  \n \n"])
def test_blank_texts(tiny_tokenizer, text):
    for seed in range(20):
        ids = example(text, tiny_tokenizer, 20, np.random.default_rng(seed))
        assert ids[-1] == tiny_tokenizer.end_of_text_id
