"""The vectorised n-grams against a dictionary of counts, a case worked by hand, and what must sum to one."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techtree.lm.data.corpus import Document
from techtree.lm.data.token_sequence import token_sequence
from techtree.lm.eval.ngram import ORDERS, NgramModel, ngram_scores

VOCAB_SIZE = 6


class SlowNgrams:
    """Witten-Bell by its definition, one token at a time."""

    def __init__(self, sequences, vocab_size: int, order: int):
        self.vocab_size, self.order = vocab_size, order
        self.following: dict[tuple, Counter] = defaultdict(Counter)
        for history, token in self.events(sequences):
            for n in range(order):
                self.following[history[len(history) - n :]][token] += 1

    def events(self, sequences):
        for sequence in sequences:
            padded = [sequence[0]] * (self.order - 2) + list(sequence)
            for i in range(max(1, self.order - 1), len(padded)):
                yield tuple(padded[i - self.order + 1 : i]), padded[i]

    def probability(self, token: int, history: tuple) -> float:
        below = self.probability(token, history[1:]) if history else 1 / self.vocab_size
        seen = self.following.get(history)
        if not seen:
            return below
        return (seen[token] + len(seen) * below) / (seen.total() + len(seen))

    def probabilities(self, sequences, n: int) -> list[float]:
        return [
            self.probability(token, history[len(history) - n + 1 :])
            for history, token in self.events(sequences)
        ]


def texts(*bodies) -> list[np.ndarray]:
    return [np.array([0, *body, 0], dtype=np.int32) for body in bodies]


BODIES = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=12), min_size=1, max_size=5)


@settings(deadline=None)
@given(BODIES, BODIES, st.integers(1, 5))
def test_equals_the_definition(train, held_out, order):
    fast = NgramModel(texts(*train), VOCAB_SIZE, order)
    slow = SlowNgrams(texts(*train), VOCAB_SIZE, order)
    estimates = fast.probabilities(texts(*held_out))
    assert len(estimates) == order
    for n in range(1, order + 1):
        # Sums of a few products of float64: far below 1e-12 of error.
        np.testing.assert_allclose(estimates[n - 1], slow.probabilities(texts(*held_out), n), rtol=1e-12)


@pytest.mark.parametrize("vocab_size", [300, 60_000, 10_000_000])
def test_numbers_do_not_overflow(vocab_size):
    # 60,000^5 and 10^7^3 do not fit in 64 bits.
    rng = np.random.default_rng(0)
    draw = [rng.integers(0, vocab_size, 12, endpoint=False) for _ in range(3)]
    top = vocab_size - 1
    train = texts(*(rng.choice(row, 150) for row in draw), [top] * 20, [top, 1, top, 0, top])
    held_out = texts(rng.choice(draw[0], 100), [top] * 9, rng.choice(draw[1], 100), [1, top, 0])
    estimates = NgramModel(train, vocab_size, 5).probabilities(held_out)
    slow = SlowNgrams(train, vocab_size, 5)
    for n in range(1, 6):
        np.testing.assert_allclose(estimates[n - 1], slow.probabilities(held_out, n), rtol=1e-12)


@pytest.mark.parametrize("history", [[], [1], [1, 2], [1, 2, 3, 4], [5], [5, 5, 5, 5, 5], [2, 1, 2, 1]])
def test_probabilities_sum_to_one(history):
    model = NgramModel(texts([1, 2, 3, 4, 1, 2], [1, 2, 1, 2, 1], [4]), VOCAB_SIZE, 5)
    whole = [np.array([0, *history, token], dtype=np.int32) for token in range(VOCAB_SIZE)]
    each_last = np.cumsum([len(history) + 1] * VOCAB_SIZE) - 1
    for estimate in model.probabilities(whole):
        assert estimate[each_last].sum() == pytest.approx(1, abs=1e-12)
        assert (estimate > 0).all()


def test_worked_by_hand():
    # The text is a b a b, with tokens a=1, b=2 and the end 0; five predicted tokens, three of them different.
    model = NgramModel(texts([1, 2, 1, 2]), vocab_size=4, order=2)
    unigram, bigram = model.probabilities(texts([1, 2]))
    p_a, p_b, p_end = (2 + 3 / 4) / 8, (2 + 3 / 4) / 8, (1 + 3 / 4) / 8
    np.testing.assert_allclose(unigram, [p_a, p_b, p_end], rtol=1e-14)
    # After the start: a once. After a: b twice. After b: a once, the end once.
    np.testing.assert_allclose(bigram, [(1 + p_a) / 2, (2 + p_b) / 3, (1 + 2 * p_end) / 4], rtol=1e-14)


def test_documents_do_not_know_each_other():
    model = NgramModel(texts([1, 2, 3], [4, 5, 1]), VOCAB_SIZE, 3)
    alone = [model.probabilities([sequence]) for sequence in texts([1, 2], [4, 5])]
    together = model.probabilities(texts([1, 2], [4, 5]))
    for n in range(3):
        np.testing.assert_array_equal(together[n], np.concatenate([alone[0][n], alone[1][n]]))


def test_scores_of_documents(tiny_texts, tiny_tokenizer):
    documents = [Document(f"{i}.py", text) for i, text in enumerate(tiny_texts)]
    train, held_out = documents[1:], documents[:1]
    scores = ngram_scores(train, held_out, tiny_tokenizer)
    assert tuple(scores) == ORDERS
    slow = SlowNgrams([token_sequence(d.text, tiny_tokenizer).tolist() for d in train], 512, 5)
    ids = token_sequence(held_out[0].text, tiny_tokenizer).tolist()
    for n, score in scores.items():
        assert score.n_tokens == len(ids) - 1
        assert score.n_bytes == len(held_out[0].text.encode())
        bits = -sum(map(math.log2, slow.probabilities([ids], n)))
        assert score.bits == pytest.approx(bits, rel=1e-10)  # sums of thousands of terms


def test_learned_text_costs_little(tiny_texts, tiny_tokenizer):
    documents = [Document("a.py", tiny_texts[0])]
    scores = ngram_scores(documents, documents, tiny_tokenizer)
    assert scores[5].bits_per_byte < scores[3].bits_per_byte < scores[2].bits_per_byte
    assert scores[5].bits_per_byte < 0.5
