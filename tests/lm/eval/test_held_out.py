"""Which documents are measured, and the arithmetic of a score."""

import pytest

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.eval.held_out import Score, evaluated

DOCUMENTS = [Document(f"{i:02}.py", f"é{i} " * (i + 1)) for i in range(40)]


def test_all_without_a_limit():
    assert evaluated(DOCUMENTS, None) == DOCUMENTS


@pytest.mark.parametrize("max_bytes", [20, 100, 1000, 3000])
def test_whole_documents_as_many_as_fit(max_bytes):
    chosen = evaluated(DOCUMENTS, max_bytes)
    left = max_bytes - sum(d.n_bytes for d in chosen)
    assert 0 <= left < min((d.n_bytes for d in DOCUMENTS if d not in chosen), default=1)
    assert len(set(chosen)) == len(chosen)


def test_choice_does_not_depend_on_order_or_paths():
    moved = [Document(f"moved/{d.path}", d.text) for d in reversed(DOCUMENTS)]
    assert [d.text for d in evaluated(moved, 1000)] == [d.text for d in evaluated(DOCUMENTS, 1000)]


def test_choice_is_not_the_first_by_path():
    assert evaluated(DOCUMENTS, 1000) != sorted(evaluated(DOCUMENTS, 1000), key=lambda d: d.path)


def test_at_least_one_document():
    assert evaluated(DOCUMENTS, 1) == DOCUMENTS[:1]


def test_nothing_to_measure_on_is_refused():
    with pytest.raises(InputError, match="needs held-out documents; got none"):
        evaluated([], 1000)


def test_score():
    score = Score(bits=300.0, n_tokens=100, n_bytes=200)
    assert (score.bits_per_byte, score.bits_per_token) == (1.5, 3.0)
