"""Pieces hold each document's text once, and say what is to be learned."""

import copy
from collections import Counter

import numpy as np
import pytest

from techtree.lm.data.corpus import Document
from techtree.lm.data.pieces import MAX_PASSES, MIN_EXAMPLE_TOKENS, Cutter

FLAG = 0x8000


@pytest.fixture
def documents(tiny_texts) -> list[Document]:
    return [Document(f"{i}.py", text) for i, text in enumerate(tiny_texts)]


def cutter(tokenizer, fim_rate, row_length=257, seed=0) -> Cutter:
    return Cutter(tokenizer, row_length, fim_rate, np.random.default_rng(seed))


def example_texts(piece, tokenizer) -> tuple[str, str, str]:
    """Return prefix, middle and suffix; of an SPM example with the prefix as a part of the middle."""
    ids = (piece & ~np.uint16(FLAG)).tolist()
    suf, mid = ids.index(tokenizer.fim_suffix_id), ids.index(tokenizer.fim_middle_id)
    assert ids[0] == tokenizer.fim_prefix_id
    assert ids[-1] == tokenizer.end_of_text_id
    return (
        tokenizer.decode(ids[1:suf]),
        tokenizer.decode(ids[mid + 1 : -1]),
        tokenizer.decode(ids[suf + 1 : mid]),
    )


def test_plain_pieces_teach_every_token_once(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=0)
    sequences = c.encode(documents, float("inf"))
    assert sorted(map(len, sequences)) == sorted(len(tiny_tokenizer.encode(d.text)) + 2 for d in documents)
    pieces = list(c.pieces(sequences, None))
    learned = np.concatenate([piece[piece < FLAG] for piece in pieces])
    assert Counter(learned.tolist()) == Counter(np.concatenate([s[1:] for s in sequences]).tolist())
    assert all(piece[0] >= FLAG and (piece[1:] < FLAG).all() for piece in pieces)
    assert max(map(len, pieces)) == 257


def test_plain_pieces_follow_on_each_other(tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=0, row_length=17)
    sequence = np.arange(5, 105, dtype=np.int32)
    pieces = sorted(((piece & ~np.uint16(FLAG)).tolist() for piece in c.pieces([sequence], None)), key=min)
    assert [piece[0] for piece in pieces[1:]] == [piece[-1] for piece in pieces[:-1]]
    assert [pieces[0][0]] + [i for piece in pieces for i in piece[1:]] == sequence.tolist()


def test_examples_hold_each_documents_text_once(documents, tiny_tokenizer):
    for document in documents:
        if not document.text.isascii():
            continue  # see test_characters_of_several_bytes_are_never_torn
        c = cutter(tiny_tokenizer, fim_rate=1)
        pieces = list(c.pieces(c.encode([document], float("inf")), None))
        texts = ["".join(example_texts(piece, tiny_tokenizer)) for piece in pieces]
        assert sum(map(len, texts)) == len(document.text)
        assert all(text in document.text for text in texts)
        assert max(map(len, pieces)) <= 257


def test_examples_do_not_teach_the_marks_of_a_prompt(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=1)
    marks = [tiny_tokenizer.fim_prefix_id, tiny_tokenizer.fim_suffix_id, tiny_tokenizer.fim_middle_id]
    for piece in c.pieces(c.encode(documents, float("inf")), None):
        is_context = piece >= FLAG
        assert sorted((piece[is_context] & ~np.uint16(FLAG)).tolist()) == sorted(marks)
        assert piece[-1] == tiny_tokenizer.end_of_text_id


def test_lengths_of_examples_vary(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=1, row_length=1025)
    lengths = [len(piece) for piece in c.pieces(c.encode(documents, float("inf")), None)]
    assert min(lengths) < 2 * MIN_EXAMPLE_TOKENS
    assert max(lengths) > 800


def test_half_of_the_windows_become_examples(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=0.5, row_length=65)
    pieces = list(c.pieces(c.encode(documents, float("inf")), None))
    is_example = [tiny_tokenizer.fim_middle_id | FLAG in piece.tolist() for piece in pieces]
    share = sum(len(p) for p, yes in zip(pieces, is_example, strict=True) if yes) / sum(map(len, pieces))
    assert 0.4 < share < 0.6  # of some 500 windows: standard error 0.02, and the marks add 4 of 65 tokens


def test_characters_of_several_bytes_are_never_torn(tiny_tokenizer):
    text = "é✓🙂" * 400
    c = cutter(tiny_tokenizer, fim_rate=1, row_length=65)
    pieces = list(c.pieces(c.encode([Document("a.py", text)], float("inf")), None))
    joined = "".join("".join(example_texts(piece, tiny_tokenizer)) for piece in pieces)
    assert set(joined) == set(text)
    assert len(joined) > 0.9 * len(text)


def test_tiny_documents(tiny_tokenizer):
    documents = [Document("a.py", "x"), Document("b.py", "")]
    for fim_rate in (0, 1):
        c = cutter(tiny_tokenizer, fim_rate)
        pieces = list(c.pieces(c.encode(documents, float("inf")), None))
        assert len(pieces) == 2 - fim_rate  # an empty text gives no example


def test_enough_is_enough(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=0.5)
    few = c.encode(documents, max_tokens=1)
    assert len(few) == 1
    pieces = list(c.pieces(c.encode(documents, float("inf")), 1000))
    assert 1000 <= sum(map(len, pieces)) < 1000 + 2 * 257
    n_windows = len(list(cutter(tiny_tokenizer, 0).pieces(few, None)))
    assert len(list(cutter(tiny_tokenizer, 0).pieces(few, 10**9))) == MAX_PASSES * n_windows


def test_passes_are_cut_differently(documents, tiny_tokenizer):
    c = cutter(tiny_tokenizer, fim_rate=1)
    pieces = [piece.tobytes() for piece in c.pieces(c.encode(documents[:1], float("inf")), 10**9)]
    assert len(set(pieces)) > 0.95 * len(pieces)


def test_large_vocabularies_take_32_bits(documents, tiny_tokenizer):
    large = copy.copy(tiny_tokenizer)
    large.__dict__["vocab_size"] = (1 << 15) + 1
    c = cutter(large, fim_rate=0.5)
    for piece in c.pieces(c.encode(documents[:1], float("inf")), None):
        assert piece.dtype == np.uint32
        assert piece[0] >= 1 << 31 > piece[-1]
