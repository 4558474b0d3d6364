"""Rows hold each token once, nearly without waste, and as many as were asked for."""

import numpy as np
import pytest

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.pieces import MAX_PASSES
from techtree.lm.data.rows import RowsConfig, build_rows

CONFIG = RowsConfig(seq_len=64)


@pytest.fixture
def documents(tiny_texts) -> list[Document]:
    return [Document(f"{i}.py", text[:8000]) for i, text in enumerate(tiny_texts[:2])]


def rows_of(documents, tokenizer, config=CONFIG, seed=0) -> np.ndarray:
    return build_rows(documents, tokenizer, config, np.random.default_rng(seed))


def test_rows_hold_each_token_once(documents, tiny_tokenizer):
    rows = rows_of(documents, tiny_tokenizer, RowsConfig(seq_len=64, fim_rate=0))
    learned = np.sort(rows[rows < 0x8000])
    ids = tiny_tokenizer.encode_batch([d.text for d in documents])
    expected = np.sort(np.concatenate([*ids, [tiny_tokenizer.end_of_text_id] * len(documents)]))
    assert rows.dtype == np.uint16
    assert rows.shape[1] == 65
    np.testing.assert_array_equal(learned, expected)


def test_rows_are_nearly_full(documents, tiny_tokenizer):
    is_padding = rows_of(documents, tiny_tokenizer) == tiny_tokenizer.end_of_text_id | 0x8000
    assert is_padding.mean() < 0.05


def test_the_marks_of_a_prompt_are_seen_and_not_learned(documents, tiny_tokenizer):
    rows = rows_of(documents, tiny_tokenizer)
    t = tiny_tokenizer
    for mark in (t.fim_prefix_id, t.fim_suffix_id, t.fim_middle_id):
        assert mark not in rows
        assert mark | 0x8000 in rows
    # Rows of 64 have a piece's start and three marks, and some padding.
    assert (rows < 0x8000).mean() > 0.8


def test_same_generator_same_rows(documents, tiny_tokenizer):
    rows = rows_of(documents, tiny_tokenizer)
    np.testing.assert_array_equal(rows_of(documents, tiny_tokenizer), rows)
    other = rows_of(documents, tiny_tokenizer, seed=1)
    assert other.shape != rows.shape or (other != rows).any()


def test_as_many_rows_as_asked_for(documents, tiny_tokenizer):
    n = len(rows_of(documents, tiny_tokenizer))
    for n_rows in (1, 20, 2 * n):
        assert len(rows_of(documents, tiny_tokenizer, RowsConfig(seq_len=64, n_rows=n_rows))) == n_rows
    most = rows_of(documents, tiny_tokenizer, RowsConfig(seq_len=64, n_rows=100 * n))
    assert len(most) == pytest.approx(MAX_PASSES * n, rel=0.05)
    assert len(np.unique(most, axis=0)) > 0.6 * len(most)  # plain windows repeat, examples are cut anew


def test_too_little_text_is_refused(tiny_tokenizer):
    documents = [Document("a.py", "x = 1\n"), Document("b.py", "y = 2\n")]
    with pytest.raises(InputError, match=r"seq_len \+ 1 = 65 tokens; got 1\d tokens in 2 files: add files"):
        rows_of(documents, tiny_tokenizer)


@pytest.mark.parametrize("wrong", [{"seq_len": 15}, {"fim_rate": 1.1}, {"fim_rate": -0.1}, {"n_rows": 0}])
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must"):
        RowsConfig(**wrong)
