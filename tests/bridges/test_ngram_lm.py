"""`ngram_lm` and the product's arrays give every token of every text the same probability."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techtree.lm.eval.ngram import NgramModel
from techtree.techs.text.ngram_lm import NgramLM

# Both make each probability from the same few integers in the same number of float64 operations.
TOLERANCE = 1e-12


def assert_same(training: list[list[int]], unseen: list[list[int]], vocab_size: int, order: int, start: int):
    """Compare on texts that begin with the start token in the product, and after it in the lesson."""
    ours = NgramLM(order, vocab_size, start)
    for tokens in training:
        ours.count(tokens)
    sequences = [np.array([start, *tokens], dtype=np.int32) for tokens in training]
    theirs = NgramModel(sequences, vocab_size, order)
    got = theirs.probabilities([np.array([start, *tokens], dtype=np.int32) for tokens in unseen])
    expected = np.exp(np.concatenate([ours.score(tokens) for tokens in unseen], axis=1))
    np.testing.assert_allclose(np.array(got), expected, rtol=TOLERANCE)


TEXTS = st.lists(st.lists(st.integers(0, 4), max_size=25), min_size=1, max_size=4)


@given(TEXTS, TEXTS, st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_random_texts(training, unseen, order, start):
    """Tokens 0 to 4 of a vocabulary of 6: one or more of them never occur."""
    if any(training) and any(unseen):
        assert_same(training, unseen, 6, order, start)


@pytest.mark.parametrize("order", [2, 5])
def test_source_code_in_bytes(order):
    library = Path(sysconfig.get_path("stdlib"))
    texts = [
        [*(library / name).read_bytes()[:20_000], 256]
        for name in ("ast.py", "enum.py", "heapq.py", "typing.py")
    ]
    assert_same(texts[:3], [texts[3][:3000]], 257, order, 256)


def test_a_vocabulary_whose_powers_do_not_fit_in_64_bits():
    rng = np.random.default_rng(0)
    kinds = rng.integers(50_000, size=8).tolist()
    texts = [rng.choice(kinds, size=200).tolist() for _ in range(3)]
    assert_same(texts[:2], texts[2:], 50_000, 5, 0)
