"""Oracles: fractions by hand; the definition as a recursion over counts taken anew each time."""

import math
from fractions import Fraction

import numpy as np
import pytest

from techtree.techs.ground.numerics import logsumexp, relative_error

# A probability is made in at most 6 steps of 4 roundings here, a logarithm adds one; 1e-12 leaves room for
# any order of them and is far below every difference between a right and a wrong rule.
TOLERANCE = 1e-12


def slow_prob(texts, order, vocab_size, start, context, token) -> Fraction:
    """P(w | h), exactly: the counts of each history are looked up in the texts again."""
    history = ([start] * (order - 1) + [int(t) for t in context])[len(context) :]
    p = Fraction(1, vocab_size)
    for n in range(order):
        h = history[len(history) - n :]
        followers = []
        for text in texts:
            padded = [start] * (order - 1) + [int(t) for t in text]
            followers += [padded[i] for i in range(order - 1, len(padded)) if padded[i - n : i] == h]
        if followers:
            kinds = len(set(followers))
            p = (followers.count(token) + kinds * p) / (len(followers) + kinds)
    return p


def trained(impl, texts, order, vocab_size, start=0):
    model = impl.NgramLM(order, vocab_size, start)
    for text in texts:
        model.count(text)
    return model


def random_texts(rng, vocab_size, n_texts=4, max_length=30):
    """Few kinds of tokens, so that most short histories come again and most long ones do not."""
    return [rng.integers(vocab_size, size=rng.integers(0, max_length)).tolist() for _ in range(n_texts)]


def test_by_hand(impl):
    """The text 0 1 0 of a vocabulary of 4: every probability of orders 1 and 2."""
    one = trained(impl, [[0, 1, 0]], 1, 4, start=3)
    expected = [Fraction(2, 1) + Fraction(1, 2), Fraction(1) + Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)]
    expected = [p / 5 for p in expected]  # c = 3, T = 2
    assert [one.prob([], w) for w in range(4)] == pytest.approx([float(p) for p in expected], rel=TOLERANCE)
    assert [one.prob([1], w) for w in range(4)] == pytest.approx([float(p) for p in expected], rel=TOLERANCE)

    two = trained(impl, [[0, 1, 0]], 2, 4, start=3)
    # After 0 came 1, once: (c(0 w) + 1 P(w)) / 2. After 1 came 0; after the start came 0.
    assert two.prob([0], 1) == pytest.approx(0.65, rel=TOLERANCE)
    assert two.prob([0], 0) == pytest.approx(0.25, rel=TOLERANCE)
    assert two.prob([0], 2) == pytest.approx(0.05, rel=TOLERANCE)
    assert two.prob([1], 0) == pytest.approx(0.75, rel=TOLERANCE)
    assert two.prob([], 0) == pytest.approx(0.75, rel=TOLERANCE)
    # Nothing came after 2: the shorter history decides.
    assert [two.prob([2], w) for w in range(4)] == pytest.approx([float(p) for p in expected], rel=TOLERANCE)


def test_what_follows_in_many_kinds_is_trusted_less(impl):
    """History 0 was followed 4 times by 4 different tokens, history 1 by the same one: T is 4 and 1."""
    model = trained(impl, [[0, 2, 0, 3, 0, 4, 0, 5], [1, 2, 1, 2, 1, 2, 1, 2]], 2, 6, start=5)
    p = [(n + Fraction(6, 6)) / (16 + 6) for n in (4, 4, 5, 1, 1, 1)]
    assert model.prob([0], 2) == pytest.approx(float((1 + 4 * p[2]) / 8), rel=TOLERANCE)
    assert model.prob([1], 2) == pytest.approx(float((4 + 1 * p[2]) / 5), rel=TOLERANCE)
    assert model.prob([0], 1) == pytest.approx(float(4 * p[1] / 8), rel=TOLERANCE)
    assert model.prob([1], 1) == pytest.approx(float(p[1] / 5), rel=TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("vocab_size", [1, 2, 3, 7])
def test_prob_is_its_definition(impl, rng, order, vocab_size):
    for start in {0, vocab_size - 1}:
        texts = random_texts(rng, vocab_size)
        model = trained(impl, texts, order, vocab_size, start)
        contexts = [[], [start], *random_texts(rng, vocab_size, 4, order + 3), texts[0], texts[0][:2]]
        for context in contexts:
            for token in range(vocab_size):
                expected = float(slow_prob(texts, order, vocab_size, start, context, token))
                assert model.prob(context, token) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one(impl, rng, order):
    texts = random_texts(rng, 5)
    model = trained(impl, texts, order, 9, start=8)  # tokens 5 to 8 never occur
    for context in ([], [0], [8], [7, 7, 7, 7], texts[0], [0, 1, 2, 3, 4, 0, 1], [8, 8, 0]):
        assert sum(model.prob(context, token) for token in range(9)) == pytest.approx(1, rel=TOLERANCE)
        assert abs(logsumexp(model.log_probs(context))) < TOLERANCE


def test_a_model_that_counted_nothing_is_uniform(impl):
    for order in (1, 3):
        model = impl.NgramLM(order, 5)
        assert model.prob([], 3) == pytest.approx(0.2, rel=TOLERANCE)
        assert model.prob([1, 2, 3], 0) == pytest.approx(0.2, rel=TOLERANCE)
        assert relative_error(model.log_probs([1]), np.log(np.full(5, 0.2))) < TOLERANCE
        model.count([])
        assert model.prob([], 3) == pytest.approx(0.2, rel=TOLERANCE)


def test_an_unseen_history_leaves_it_to_the_shorter_one(impl, rng):
    texts = [rng.integers(4, size=40).tolist()]
    three, two, one = (trained(impl, texts, order, 6, start=5) for order in (3, 2, 1))
    for token in range(6):
        assert three.prob([4, 2], token) == pytest.approx(two.prob([2], token), rel=TOLERANCE)
        assert three.prob([2, 4], token) == pytest.approx(one.prob([], token), rel=TOLERANCE)


def test_only_the_last_tokens_of_the_context_matter(impl, rng):
    texts = random_texts(rng, 3)
    for order in (1, 2, 4):
        model = trained(impl, texts, order, 3)
        recent = [2, 0, 1][: order - 1]
        for token in range(3):
            p = model.prob(recent, token) if order == 4 else model.prob([1, 1, *recent], token)
            for older in ([0], [2], [1, 2, 0, 0, 1]):
                assert model.prob([*older, *recent], token) == pytest.approx(p, rel=TOLERANCE)


def test_a_text_begins_after_start_tokens(impl):
    """The history of the first token is start, start, ..., and not what another text ended with."""
    model = trained(impl, [[1, 2], [3, 4]], 3, 6, start=5)
    for token in range(6):
        first = model.prob([], token)
        assert first == pytest.approx(model.prob([5], token), rel=TOLERANCE)
        assert first == pytest.approx(model.prob([5, 5], token), rel=TOLERANCE)
        assert first == pytest.approx(model.prob([2, 5, 5], token), rel=TOLERANCE)
        assert model.prob([1], token) == pytest.approx(model.prob([5, 1], token), rel=TOLERANCE)
    texts = [[1, 2], [3, 4]]
    for context in ([], [5], [5, 5], [1], [2], [1, 2], [2, 3]):
        for token in range(6):
            expected = float(slow_prob(texts, 3, 6, 5, context, token))
            assert model.prob(context, token) == pytest.approx(expected, rel=TOLERANCE)
    # After 2 nothing came: no text goes on with 3.
    assert model.prob([1, 2], 3) == pytest.approx(model.prob([4], 3), rel=TOLERANCE)


def test_start_tokens_are_context_only(impl):
    """What is not predicted is not counted: the start token has the smallest probability of all."""
    model = trained(impl, [[1], [1], [1]], 3, 3, start=2)
    assert model.prob([], 2) == pytest.approx(model.prob([], 0), rel=TOLERANCE)
    assert model.prob([1], 2) == pytest.approx(1 / 3 / 4, rel=TOLERANCE)


def test_the_start_token_may_occur_in_texts(impl):
    texts = [[0, 0, 1], [1, 0, 0]]
    model = trained(impl, texts, 3, 2, start=0)
    for context in ([], [0], [0, 0], [1, 0], [0, 1]):
        expected = float(slow_prob(texts, 3, 2, 0, context, 1))
        assert model.prob(context, 1) == pytest.approx(expected, rel=TOLERANCE)


def test_start_is_zero_when_left_out(impl):
    one, other = impl.NgramLM(2, 3), impl.NgramLM(order=2, vocab_size=3, start=0)
    for model in (one, other):
        model.count([1, 2])
    assert one.prob([], 1) == pytest.approx(other.prob([], 1), rel=TOLERANCE)
    assert one.prob([], 1) == pytest.approx(one.prob([0], 1), rel=TOLERANCE)
    assert one.prob([], 1) > one.prob([], 2)


def test_counts_add_up_in_any_order(impl, rng):
    texts = random_texts(rng, 4, n_texts=6)
    model, turned = trained(impl, texts, 3, 4), trained(impl, texts[::-1], 3, 4)
    twice = trained(impl, texts + texts, 3, 4)
    for context in ([], [1], [2, 3], [0, 0]):
        for token in range(4):
            assert turned.prob(context, token) == pytest.approx(model.prob(context, token), rel=TOLERANCE)
            expected = float(slow_prob(texts + texts, 3, 4, 0, context, token))
            assert twice.prob(context, token) == pytest.approx(expected, rel=TOLERANCE)


def test_models_share_nothing(impl):
    first = trained(impl, [[1, 1, 1]], 2, 3)
    before = first.prob([1], 1)
    trained(impl, [[2, 2, 2]], 2, 3)
    assert first.prob([1], 1) == before
    assert impl.NgramLM(2, 3).prob([1], 1) == pytest.approx(1 / 3, rel=TOLERANCE)


def test_asking_changes_nothing(impl, rng):
    """Looking up an unseen history must not make it a seen one."""
    texts = random_texts(rng, 3)
    model = trained(impl, texts, 3, 5)
    questions = [[], [4], [4, 4], [3, 4], [1, 2], [0, 4]]
    before = [model.prob(context, token) for context in questions for token in range(5)]
    for context in questions:
        model.log_probs(context)[:] = 7
        model.score([*context, 4, 3])
    assert [model.prob(context, token) for context in questions for token in range(5)] == before
    assert before[:5] == pytest.approx(
        [float(slow_prob(texts, 3, 5, 0, [], w)) for w in range(5)], rel=TOLERANCE
    )
    assert np.exp(model.log_probs([4])).sum() == pytest.approx(1, rel=TOLERANCE)
    # Nor may an answer from before be given again once more has been counted.
    model.count([4, 4])
    assert relative_error(np.exp(model.log_probs([4])[4]), model.prob([4], 4)) < TOLERANCE
    expected = float(slow_prob([*texts, [4, 4]], 3, 5, 0, [4], 4))
    assert model.prob([4], 4) == pytest.approx(expected, rel=TOLERANCE)


def test_log_probs(impl, rng):
    texts = random_texts(rng, 4)
    for order in (1, 2, 4):
        model = trained(impl, texts, order, 6, start=4)
        for context in ([], [4], [5], [0, 1], [1, 2, 3, 0], [5, 5, 5, 5]):
            got = model.log_probs(context)
            assert isinstance(got, np.ndarray)
            assert got.shape == (6,)
            assert got.dtype == np.float64
            expected = [math.log(slow_prob(texts, order, 6, 4, context, token)) for token in range(6)]
            assert relative_error(got, np.array(expected)) < TOLERANCE


def test_score_of_every_order(impl, rng):
    texts = random_texts(rng, 4)
    text = [3, 0, 1, 1, 5, 0, 2, 4, 4, 0, 1]
    for order in (1, 2, 4):
        got = trained(impl, texts, order, 6, start=4).score(text)
        assert got.shape == (order, len(text))
        assert got.dtype == np.float64
        for n in range(1, order + 1):
            expected = [
                math.log(slow_prob(texts, n, 6, 4, text[:at], token)) for at, token in enumerate(text)
            ]
            assert relative_error(got[n - 1], np.array(expected)) < TOLERANCE


def test_score_of_a_training_text_and_of_nothing(impl):
    model = trained(impl, [[1, 2, 3]], 3, 4)
    assert model.score([]).shape == (3, 0)
    assert model.score([1]).shape == (3, 1)
    scores = model.score([1, 2, 3])
    assert (np.diff(scores, axis=0) > 0).all()  # the longer the history, the surer: it was seen
    assert np.array_equal(model.score([1, 2, 3]), scores)  # a score does not count


def test_texts_of_every_type(impl):
    expected = trained(impl, [[1, 2, 1, 0]], 3, 3)
    for kind in (
        tuple,
        bytes,
        bytearray,
        np.array,
        lambda t: np.array(t, dtype=np.uint8),
        lambda t: np.array(t)[::-1][::-1],
    ):
        model = impl.NgramLM(3, 3)
        tokens = kind([1, 2, 1, 0])
        model.count(tokens)
        assert list(tokens) == [1, 2, 1, 0]
        p = expected.prob([1, 2], 1)
        assert model.prob(kind([1, 2]), 1) == pytest.approx(p, rel=TOLERANCE)
        assert model.prob(kind([1, 2]), np.int64(1)) == pytest.approx(p, rel=TOLERANCE)
        assert relative_error(model.score(kind([2, 1])), expected.score([2, 1])) < TOLERANCE
        assert relative_error(model.log_probs(kind([2])), expected.log_probs([2])) < TOLERANCE


def test_histories_are_told_apart_in_a_large_vocabulary(impl):
    """65,536 to the fifth does not fit in 64 bits: the token five places back must count all the same."""
    v = 2**16
    tokens = [9, 8, v - 1, 0, 7, 1, 3, 8, v - 1, 0, 7, 2]
    model = trained(impl, [tokens], 6, v, start=v - 1)
    for context, token in (([9, 8, v - 1, 0, 7], 1), ([9, 8, v - 1, 0, 7], 2), ([3, 8, v - 1, 0, 7], 2)):
        expected = float(slow_prob([tokens], 6, v, v - 1, context, token))
        assert model.prob(context, token) == pytest.approx(expected, rel=TOLERANCE)
    # 1 2 3 and 12 3 and 1 23 are three histories.
    model = trained(impl, [[1, 23, 5], [12, 3, 6], [1, 2, 3, 7]], 3, 100)
    for context, token in (([1, 23], 5), ([12, 3], 5), ([12, 3], 6), ([2, 3], 6), ([2, 3], 7)):
        expected = float(slow_prob([[1, 23, 5], [12, 3, 6], [1, 2, 3, 7]], 3, 100, 0, context, token))
        assert model.prob(context, token) == pytest.approx(expected, rel=TOLERANCE)


def test_a_text_of_some_length(impl, rng):
    """5,000 tokens at order 5 take no time, if histories are looked up and not searched for."""
    text = np.where(rng.random(5000) < 0.8, 0, rng.integers(20, size=5000))
    model = trained(impl, [text], 5, 20)
    scores = model.score(text)
    assert scores.shape == (5, 5000)
    counts = np.bincount(text, minlength=20)
    kinds = np.count_nonzero(counts)
    of_order_1 = (counts + kinds / 20) / (5000 + kinds)
    assert relative_error(scores[0], np.log(of_order_1[text])) < TOLERANCE
    after_0 = np.bincount(text[1:][text[:-1] == 0], minlength=20)
    after_0[text[0]] += 1  # the start token is 0, too
    kinds = np.count_nonzero(after_0)
    expected = np.log((after_0 + kinds * of_order_1) / (after_0.sum() + kinds))
    assert relative_error(trained(impl, [text], 2, 20).log_probs([0]), expected) < TOLERANCE
    assert model.prob(text, 3) == pytest.approx(model.prob(text[-4:], 3), rel=TOLERANCE)


@pytest.mark.parametrize("token", [-1, 4, 300, -4])
def test_tokens_outside_the_vocabulary_are_refused(impl, token):
    model = trained(impl, [[1, 2, 3]], 3, 4)
    before = model.score([1, 2, 3])
    for tokens in ([token], [1, token], [token, 1], [1, 2, token, 3]):
        for function in (model.count, model.score):
            with pytest.raises(ValueError):  # noqa: PT011, the message is the writer's
                function(tokens)
    for context in ([token], [1, token], [token, 1]):
        for function in (lambda c: model.prob(c, 1), model.log_probs):
            with pytest.raises(ValueError):  # noqa: PT011
                function(context)
    with pytest.raises(ValueError):  # noqa: PT011
        model.prob([1], token)
    assert np.array_equal(model.score([1, 2, 3]), before)  # nothing of a refused text was counted


@pytest.mark.parametrize("arguments", [(0, 4), (-1, 4), (2, 0), (2, -3), (2, 4, 4), (2, 4, -1), (1, 4, 9)])
def test_impossible_models_are_refused(impl, arguments):
    with pytest.raises(ValueError):  # noqa: PT011
        impl.NgramLM(*arguments)


def test_perplexity_by_hand(impl):
    assert impl.perplexity(np.log([0.5, 0.125])) == pytest.approx(4, rel=TOLERANCE)
    assert impl.perplexity(np.log([0.25])) == pytest.approx(4, rel=TOLERANCE)
    assert impl.perplexity(np.zeros(3)) == 1
    assert impl.perplexity(np.full((4, 5), math.log(1 / 50))) == pytest.approx(50, rel=TOLERANCE)
    assert impl.perplexity([-1.0, -3.0]) == pytest.approx(math.exp(2), rel=TOLERANCE)
    assert impl.perplexity(np.log([[1 / 2, 1 / 4], [1 / 8, 1 / 16]])) == pytest.approx(2**2.5, rel=TOLERANCE)
    assert isinstance(impl.perplexity(np.log([0.5])), float)


def test_perplexity_of_a_long_text_in_float32(impl):
    """The probability of the text, exp of the sum, is 0 in floating point; float32 sums lose digits."""
    log_probs = np.full(100_000, -0.1, dtype=np.float32)
    assert impl.perplexity(log_probs) == pytest.approx(math.exp(0.1), rel=1e-7)
    assert impl.bits_per_byte(log_probs, "a" * 100_000) == pytest.approx(0.1 / math.log(2), rel=1e-7)
    assert impl.perplexity(np.full(5000, -2.0)) == pytest.approx(math.exp(2), rel=TOLERANCE)


def test_bits_per_byte_by_hand(impl):
    log_probs = np.log([0.5, 0.125])
    assert impl.bits_per_byte(log_probs, "ab") == pytest.approx(2, rel=TOLERANCE)
    assert impl.bits_per_byte(log_probs, "abcd") == pytest.approx(1, rel=TOLERANCE)  # two bytes a token
    assert impl.bits_per_byte(log_probs, "né") == pytest.approx(4 / 3, rel=TOLERANCE)  # é is two bytes
    assert impl.bits_per_byte(log_probs, "東") == pytest.approx(4 / 3, rel=TOLERANCE)
    assert impl.bits_per_byte(log_probs, "👍\n") == pytest.approx(4 / 5, rel=TOLERANCE)
    assert impl.bits_per_byte([math.log(0.5)] * 3, "a") == pytest.approx(3, rel=TOLERANCE)
    assert impl.bits_per_byte(np.log([[0.5], [0.125]]), "ab") == pytest.approx(2, rel=TOLERANCE)
    assert impl.bits_per_byte(np.zeros(0), "ab") == 0
    assert isinstance(impl.bits_per_byte(log_probs, "ab"), float)


def test_the_inputs_are_not_changed(impl):
    log_probs = np.log([0.5, 0.125])
    impl.perplexity(log_probs)
    impl.bits_per_byte(log_probs, "ab")
    assert np.array_equal(log_probs, np.log([0.5, 0.125]))
    text, context = [1, 2, 3], [1]
    model = trained(impl, [text], 3, 4)
    model.prob(context, 1)
    model.score(text)
    model.log_probs(context)
    assert (text, context) == ([1, 2, 3], [1])


def test_nothing_has_no_perplexity(impl):
    for nothing in ([], np.zeros((0, 3))):
        with pytest.raises(ValueError):  # noqa: PT011
            impl.perplexity(nothing)
    with pytest.raises(ValueError):  # noqa: PT011
        impl.bits_per_byte(np.log([0.5]), "")


def test_bits_of_bytes(impl):
    """A model of bytes that has counted nothing pays 8 bits for each, and less once it has."""
    text = "for x in range(10):\n    print(x)\n" * 4
    model = impl.NgramLM(3, 256)
    assert impl.bits_per_byte(model.score(text.encode())[-1], text) == pytest.approx(8, rel=TOLERANCE)
    model.count(text.encode())
    one, two, three = (impl.bits_per_byte(row, text) for row in model.score(text.encode()))
    assert 8 > one > two > three > 0
