"""The split has no leak, holds out what it should, and stays as it is."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.near_duplicates import jaccard, shingles, without_near_duplicates
from techtree.lm.data.split import MAX_MOVE_CHARS, split_at_end, split_by_file

DOCUMENTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=40
).map(lambda texts: [Document(f"{i}.py", text) for i, text in enumerate(texts)])


def corpus(n: int, seed: int = 0, mean_words: int = 300) -> list[Document]:
    rng = np.random.default_rng(seed)
    sizes = rng.exponential(mean_words, n).astype(int) + 10
    return [
        Document(f"{seed}-{i}.py", " ".join(map(str, rng.integers(0, 999, size))))
        for i, size in enumerate(sizes)
    ]


def n_bytes(documents) -> int:
    return sum(document.n_bytes for document in documents)


@settings(deadline=None)
@given(DOCUMENTS, st.floats(0.01, 0.5))
def test_partition_without_leak(documents, fraction):
    assume(len({document.text for document in documents}) > 1)
    train, held_out = split_by_file(documents, fraction)
    assert train
    assert held_out
    assert sorted(train + held_out, key=documents.index) == documents
    assert not {d.text for d in train} & {d.text for d in held_out}
    assert [train, held_out] == [sorted(side, key=documents.index) for side in (train, held_out)]


@pytest.mark.parametrize("fraction", [0.04, 0.2, 0.5])
def test_holds_out_the_fraction_of_bytes(fraction):
    documents = corpus(400)
    _, held_out = split_by_file(documents, fraction)
    # It stops after the document that reaches the fraction; the longest one has under 2 % of all bytes.
    assert fraction <= n_bytes(held_out) / n_bytes(documents) < fraction + 0.02


def test_does_not_depend_on_order_or_names():
    documents = corpus(60)
    renamed = [Document(f"moved/{i}.py", d.text) for i, d in enumerate(reversed(documents))]
    assert {d.text for d in split_by_file(documents)[1]} == {d.text for d in split_by_file(renamed)[1]}


@pytest.mark.parametrize("n_added", [1, 20, 200])
def test_added_files_change_sides_at_the_end_of_the_order_only(n_added):
    documents = corpus(200)
    before = {d.text for d in split_by_file(documents)[1]}
    after = {d.text for d in split_by_file(documents + corpus(n_added, seed=1))[1]}
    old = {d.text for d in documents}
    # Both are the first of one order, so that one holds the other; few documents differ.
    assert before <= after & old or after & old <= before
    assert len(before ^ (after & old)) <= 0.05 * len(documents)


def test_large_file_trains():
    documents = [*corpus(30), Document("large.py", "large " * 20_000)]
    train, held_out = split_by_file(documents)
    assert documents[-1] in train
    assert held_out


def test_two_files_are_enough():
    documents = [Document("a.py", "a = 1\n" * 9), Document("b.py", "b = 2\n")]
    assert split_by_file(documents) == (documents[:1], documents[1:])


@pytest.mark.parametrize("texts", [[], ["x"], ["x", "x"]])
def test_fewer_than_two_different_files_are_refused(texts):
    with pytest.raises(InputError, match=f"at least two different files.*got {len(set(texts))}: add files"):
        split_by_file([Document(f"{i}.py", text) for i, text in enumerate(texts)])


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, 1, float("nan")])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="held_out_fraction must lie in"):
        split_by_file(corpus(10), fraction)


def greatest_similarity(train: list[Document], held_out: list[Document]) -> float:
    learned, measured = ([shingles(document.text) for document in side] for side in (train, held_out))
    return max(jaccard(a, b) for a in learned for b in measured)


def test_no_near_duplicate_crosses_the_split():
    rng = np.random.default_rng(3)
    documents = corpus(40)
    copies = [Document(f"copy-{d.path}", d.text + f" {rng.integers(1000)}") for d in documents]
    # The copies would cross it, if they were kept: the test would see them.
    assert greatest_similarity(*split_by_file(documents + copies, 0.2)) > 0.9
    assert greatest_similarity(*split_by_file(without_near_duplicates(documents + copies), 0.2)) < 0.7


# ---- one text


@given(st.lists(st.text("ab\n", min_size=1, max_size=30), min_size=1), st.floats(0.01, 0.5))
def test_the_end_of_a_text_is_held_out(texts, fraction):
    parts = [Document(f"text#{i}", text) for i, text in enumerate(texts)]
    whole = "".join(texts)
    assume(len(whole) > 1)
    train, held_out = split_at_end(parts, fraction)
    before, after = ("".join(document.text for document in side) for side in (train, held_out))
    assert before + after == whole
    assert before
    assert len(after) >= fraction * len(whole) - 1e-9  # the fraction's own rounding
    assert all(document.text for document in train + held_out)
    assert train[:-1] == parts[: len(train) - 1]
    assert len(held_out) == 1 or held_out[1:] == parts[-len(held_out) + 1 :]


def test_the_border_moves_to_a_line_that_is_near():
    line = "x" * 99 + "\n"
    train, held_out = split_at_end([Document("a.txt", line * 100)], 0.0951)
    assert (train[0].text, held_out[0].text) == (line * 90, line * 10)
    one_line = "x" * 50 + "\n" + "x" * (MAX_MOVE_CHARS + 1949)
    train, held_out = split_at_end([Document("a.txt", one_line)], 0.1)
    assert len(train[0].text) == 2700


@pytest.mark.parametrize("text", ["", "x"])
def test_a_text_without_an_end_is_refused(text):
    with pytest.raises(InputError, match="must have an end to hold out"):
        split_at_end([Document("a.txt", text)])


def test_a_fraction_out_of_range_is_refused_for_a_text_too():
    with pytest.raises(InputError, match="held_out_fraction must lie in"):
        split_at_end([Document("a.txt", "abc")], 0.6)
