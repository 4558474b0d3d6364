"""`corpus` finds the near copies that the product's corpus leaves out, by the same similarity."""

import numpy as np
import pytest

from techtree.lm.data.corpus import Document
from techtree.lm.data.near_duplicates import jaccard, without_near_duplicates
from techtree.lm.data.near_duplicates import shingles as hashed_shingles
from techtree.techs.text.corpus import near_duplicates, shingles


def words_of(rng: np.random.Generator, n: int) -> list[str]:
    """Words of letters alone, which both cut alike."""
    return ["".join(rng.choice(list("abcdefgh"), size=4)) for _ in range(n)]


def edited(rng: np.random.Generator, words: list[str], n: int) -> list[str]:
    words = words.copy()
    for place in rng.choice(len(words), size=n, replace=False):
        words[place] = f"other{'x' * int(rng.integers(1, 9))}"
    return words


@pytest.mark.parametrize("n_edits", [0, 1, 3, 10, 40])
def test_similarities_are_equal(n_edits):
    rng = np.random.default_rng(n_edits)
    for n_words in (2, 5, 60):
        words = words_of(rng, n_words)
        one, other = " ".join(words), "\n".join(edited(rng, words, min(n_edits, n_words)))
        a, b = shingles(one), shingles(other)
        ours = len(a & b) / len(a | b)
        assert ours == pytest.approx(jaccard(hashed_shingles(one), hashed_shingles(other)))


@pytest.mark.parametrize("seed", range(5))
def test_the_first_of_each_group_stays(seed):
    """Copies with one word in 80 changed have a similarity of 0.87 or more: one in a million is missed."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(6):
        words = words_of(rng, 80)
        texts += [" ".join(words), *(" ".join(edited(rng, words, 1)) for _ in range(2))]
    texts += [" ".join(words_of(rng, 80)) for _ in range(6)]
    texts = [texts[i] for i in rng.permutation(len(texts))]
    kept = without_near_duplicates([Document(str(i), text) for i, text in enumerate(texts)])
    ours = [group[0] for group in near_duplicates(texts)]
    assert len(ours) == 12
    assert [int(each.path) for each in kept] == ours
