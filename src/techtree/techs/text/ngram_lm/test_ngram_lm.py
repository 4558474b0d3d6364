"""Oracles: fractions by hand; the definition in exact fractions."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from techtree.techs import aim, battery

TOLERANCE = 1e-12
"""Relative. A probability is made in some steps of 4 roundings here, a logarithm adds one: this leaves room
for any order of them, also in logarithms, and is far below what a wrong rule changes."""


class Slow:
    """The definition in exact fractions."""

    def __init__(self, order: int, vocab_size: int, start: int = 0):
        self.order, self.uniform, self.before = order, Fraction(1, vocab_size), [start] * (order - 1)
        self.followers: dict[tuple[int, ...], Counter[int]] = {}

    def count(self, text: Iterable[int]) -> None:
        padded = [*self.before, *map(int, text)]
        for at in range(self.order - 1, len(padded)):
            for n in range(self.order):
                self.followers.setdefault(tuple(padded[at - n : at]), Counter())[padded[at]] += 1

    def estimates(self, context: Iterable[int], token: int) -> list[Fraction]:
        """P(token | context) by each order from 1."""
        history, p, found = [*self.before, *map(int, context)], self.uniform, []
        for n in range(self.order):
            after = self.followers.get(tuple(history[len(history) - n :]))
            if after:
                p = (after[int(token)] + len(after) * p) / (after.total() + len(after))
            found.append(p)
        return found


class Twins:
    """A model under test and its definition. Both are told the same; then their answers are compared."""

    def __init__(self, impl: ModuleType, order: int, vocab_size: int, *start: int):
        self.model, self.slow = impl.NgramLM(order, vocab_size, *start), Slow(order, vocab_size, *start)
        self.order, self.vocab_size = order, vocab_size
        self.told = [f"NgramLM{(order, vocab_size, *start)}"]
        self.tolerance = TOLERANCE * (1 if order < 20 else 10)

    def count(self, *texts: Sequence[int]) -> None:
        for text in texts:
            self.slow.count(text)
            returned = self.model.count(text)
            self._require(returned is None, None, returned, "count", text)
            self.told.append(f"count({battery.drawn(text)})")

    def prob(self, context: Sequence[int], *tokens: int) -> None:
        """Compare the probabilities of some tokens, of all if none is named."""
        for token in tokens or range(self.vocab_size):
            expected = float(self.slow.estimates(context, token)[-1])
            got = self.model.prob(context, token)
            self._require(isinstance(got, float), "a float", type(got).__name__, "prob", context, token)
            is_near = abs(got - expected) <= self.tolerance * expected
            self._require(is_near, expected, got, "prob", context, token)

    def log_probs(self, context: Sequence[int]) -> None:
        expected = [math.log(self.slow.estimates(context, token)[-1]) for token in range(self.vocab_size)]
        self._compare(self.model.log_probs(context), np.array(expected), "log_probs", context)

    def score(self, text: Sequence[int]) -> None:
        tokens = [int(token) for token in text]
        rows = [self.slow.estimates(tokens[:at], token) for at, token in enumerate(tokens)]
        expected = np.array([[math.log(p) for p in row] for row in rows]).reshape(-1, self.order).T
        self._compare(self.model.score(text), expected, "score", text)

    def ask(self, *contexts: Sequence[int]) -> None:
        """Compare all that can be asked after some contexts."""
        for context in contexts:
            self.prob(context)
            self.log_probs(context)
            self.score(context)

    def _compare(self, got: object, expected: np.ndarray, *asked: object) -> None:
        self._require(type(got) is np.ndarray, "an array", type(got).__name__, *asked)
        assert isinstance(got, np.ndarray)
        kinds = [f"{each.dtype} {each.shape}" for each in (expected, got)]
        self._require(kinds[0] == kinds[1], *kinds, *asked)
        self._require(got.flags.writeable, "a new array", "one that is read-only", *asked)
        off = ~(np.abs(got - expected) <= self.tolerance * (1 + np.abs(expected)))
        if off.any():
            place = tuple(np.argwhere(off)[0].tolist())
            self._require(False, f"{expected[place]} at {place}", got[place], *asked)

    def _require(self, holds: bool, expected: object, got: object, name: object, *given: object) -> None:
        if not holds:
            told = self.told if len(self.told) < 6 else [*self.told[:4], f"... {len(self.told)} calls"]
            asked = f"asked: {name}({', '.join(map(battery.drawn, given))})"
            raise battery.MismatchError(
                f"wrong {name}", [*told, asked, f"expected: {expected}", f"yours:    {got}"]
            )


def random_texts(rng, vocab_size, n_texts=4, max_length=30) -> list[list[int]]:
    """Few kinds of tokens, so that most short histories come again and most long ones do not."""
    return [rng.integers(vocab_size, size=rng.integers(0, max_length)).tolist() for _ in range(n_texts)]


def answers(model, contexts: Iterable[Sequence[int]], n_tokens: int) -> list[float]:
    return [model.prob(context, token) for context in contexts for token in range(n_tokens)]


def near(*numbers: Fraction | float):
    """A number, or a list of them, up to rounding."""
    found = [float(each) for each in numbers]
    return pytest.approx(found if len(found) > 1 else found[0], rel=TOLERANCE)


# What a line or two decides comes first.


def test_by_hand(impl):
    """The text 0 1 0 of a vocabulary of 4: every probability of orders 1 and 2."""
    one = impl.NgramLM(1, 4, start=3)
    one.count([0, 1, 0])
    of_1 = [Fraction(5, 2) / 5, Fraction(3, 2) / 5, Fraction(1, 2) / 5, Fraction(1, 2) / 5]  # c = 3, T = 2
    assert [one.prob([], w) for w in range(4)] == near(*of_1)
    assert [one.prob([1], w) for w in range(4)] == near(*of_1)
    two = impl.NgramLM(order=2, vocab_size=4, start=3)
    two.count(tokens=[0, 1, 0])
    # After 0 came 1, once: (c(0 w) + 1 P(w)) / 2. After 1 came 0; after the start came 0.
    assert [two.prob(context=[0], token=w) for w in range(4)] == near(0.25, 0.65, 0.05, 0.05)
    assert [two.prob([context], 0) for context in (1, 3)] == near(0.75, 0.75)
    assert two.prob([], 0) == near(0.75)
    # Nothing came after 2: the shorter history decides.
    assert [two.prob([2], w) for w in range(4)] == near(*of_1)
    assert np.exp(two.log_probs(context=[0])).tolist() == near(0.25, 0.65, 0.05, 0.05)
    assert np.exp(two.score(tokens=[0, 1])).ravel().tolist() == near(0.5, 0.3, 0.75, 0.65)


def test_what_follows_in_many_kinds_is_trusted_less(impl):
    """History 0 was followed 4 times by 4 different tokens, history 1 by the same one: T is 4 and 1."""
    model = impl.NgramLM(2, 6, 5)
    model.count([0, 2, 0, 3, 0, 4, 0, 5])
    model.count([1, 2, 1, 2, 1, 2, 1, 2])
    p = [(n + Fraction(6, 6)) / (16 + 6) for n in (4, 4, 5, 1, 1, 1)]
    expected = [(1 + 4 * p[2]) / 8, (4 + 1 * p[2]) / 5, 4 * p[1] / 8, p[1] / 5]
    asked = [([0], 2), ([1], 2), ([0], 1), ([1], 1)]
    assert [model.prob(*each) for each in asked] == near(*expected)


def test_what_was_counted_stays(impl):
    """Whoever writes into a text, or a context, later on changes no count and no answer."""
    for text, context in (([1, 2, 1, 0], [1]), (np.array([1, 2, 1, 0]), np.array([1]))):
        twins = Twins(impl, 3, 3)
        twins.count(text)
        twins.prob(context)
        text[1], context[0] = 0, 2
        twins.prob(context)
        twins.ask([], [1], [2], [1, 2])
        twins.count(text)
        text[0] = 2
        twins.ask([], [1], [2], [1, 0])


def test_impossible_models_are_refused(impl):
    for arguments in (
        *[(0, 4), (-1, 4), (-300, 4), (2, 0), (2, -3), (0, 0), (1, 0), (2, 4, 4), (2, 4, -1), (1, 4, 9)],
        *[(1, 4, 4), (1, 4, -4), (3, 300, 300), (2, 4, 256), (2, 4, 2**32), (2, 4, 2**62), (1, 1, 1)],
    ):
        battery.refuses(impl.NgramLM, *arguments)
    battery.refuses(impl.NgramLM, order=0, vocab_size=3, start=0)
    battery.refuses(impl.NgramLM, order=2, vocab_size=3, start=3)


def test_tokens_outside_the_vocabulary_are_refused(impl):
    for v, order in ((4, 3), (300, 2), (1, 2), (4, 2)):
        twins = Twins(impl, order, v)
        for counted in ([], [0] * 3, [v - 1, 0]):
            twins.count(counted)
            before = answers(twins.model, ([], [0]), min(v, 9)), twins.model.score([0, v - 1]).tolist()
            for bad in (-1, v, v + 1, -v, 2 * v + 255, 2**31, 2**32, 2**62, -(2**62)):
                for tokens in ([bad], [0, bad], [bad, 0], [0, 0, bad, 0], [0] * 300 + [bad], (bad,)):
                    battery.refuses(twins.model.count, tokens)
                    battery.refuses(twins.model.score, tokens)
                for context in ([bad], [0, bad], [0] * 300 + [bad]):
                    battery.refuses(twins.model.prob, context, 0)
                    battery.refuses(twins.model.log_probs, context)
                for context in ([], [0], [v - 1], [0, 0, v - 1]):
                    battery.refuses(twins.model.prob, context, bad)
            battery.refuses(twins.model.count, np.array([0, -1]))
            battery.refuses(twins.model.score, np.array([0, v]))
            battery.refuses(twins.model.prob, np.array([v]), 0)
            battery.refuses(twins.model.prob, [0], np.int64(-1))
            # Nothing of a refused text was counted.
            assert answers(twins.model, ([], [0]), min(v, 9)) == before[0]
            assert twins.model.score([0, v - 1]).tolist() == before[1]
        battery.refuses(twins.model.count, [0] * 5000 + [v])
        twins.prob([], 0)
        twins.prob([0, 0, 0], 0)
    battery.refuses(impl.NgramLM(4, 5).prob, [7, 0, 0], 0)
    battery.refuses(impl.NgramLM(4, 5).log_probs, [1, 2, 7, 0])


def test_a_model_that_counted_nothing_is_uniform(impl):
    for order in (1, 3):
        twins = Twins(impl, order, 5)
        twins.ask([], [1], [1, 2, 3])
        twins.count([], [])
        twins.ask([], [4], [1, 2, 3])


def test_a_text_begins_after_start_tokens(impl):
    """The history of the first token is start, start, ..., and not what another text ended with."""
    twins = Twins(impl, 3, 6, 5)
    twins.count([1, 2], [3, 4])
    twins.ask([], [5], [5, 5], [2, 5, 5], [1], [5, 1], [2], [1, 2], [2, 3], [5, 5, 5, 5, 5])
    # What is not predicted is not counted: the start token has the smallest probability of all.
    twins = Twins(impl, 3, 3, 2)
    twins.count([1], [1], [1])
    twins.ask([], [1], [2])
    assert twins.model.prob([1], 2) == near(1 / 3 / 4)
    # It may occur in texts, too.
    twins = Twins(impl, 3, 2, 0)
    twins.count([0, 0, 1], [1, 0, 0], [0])
    twins.ask([], [0], [0, 0], [1, 0], [0, 1])
    # It is 0 when left out.
    for twins in (Twins(impl, 2, 3), Twins(impl, 4, 3)):
        twins.count([1, 2])
        twins.ask([], [0], [1])


def test_unseen_histories_and_tokens(impl, rng):
    texts = random_texts(rng, 5)
    for order in (1, 2, 3, 5):
        twins = Twins(impl, order, 9, 8)  # tokens 5 to 8 never occur
        twins.count(*texts)
        twins.ask(
            [], [0], [8], [7] * 6, texts[0], [0, 1, 2, 3, 4, 0, 1], [8, 8, 0], [6, 1], [1, 6], [2, 6, 1, 1]
        )
        for context in ([], [8], [7, 3]):
            assert sum(twins.model.prob(context, token) for token in range(9)) == near(1)


def test_only_the_last_tokens_of_the_context_matter(impl, rng):
    texts = random_texts(rng, 3)
    for order in (1, 2, 4):
        twins = Twins(impl, order, 3)
        twins.count(*texts)
        recent = [2, 0, 1][: order - 1] if order < 4 else [2, 0, 1]
        for older in ([], [0], [2], [1, 2, 0, 0, 1], [1] * 300, [2] * 5000):
            twins.prob([*older, *recent])
            twins.log_probs([*older, *recent])


def test_counts_add_up_in_any_order(impl, rng):
    texts = random_texts(rng, 4, n_texts=6)
    for given in (texts, texts[::-1], texts + texts, [texts[0]] * 3):
        twins = Twins(impl, 3, 4)
        twins.count(*given)
        twins.ask([], [1], [2, 3], [0, 0])


def test_models_share_nothing(impl):
    models = [Twins(impl, 2, 3), Twins(impl, 2, 3), Twins(impl, 3, 3), Twins(impl, 2, 3, 1)]
    for n, twins in enumerate(models):
        twins.count([1, 1, n % 3, 2], [n % 2])
    for twins in models:
        twins.ask([], [1], [2], [1, 0])
    for n in range(30):  # each may lie in the memory of one that is gone
        twins = Twins(impl, 2, 3)
        twins.prob([1])
        twins.count([1, n % 3, n % 2])
        twins.prob([1])
        twins.prob([])


def test_asking_changes_nothing(impl, rng):
    """Looking up an unseen history must not make it a seen one, nor may an old answer be given again."""
    for order in (2, 3):
        twins = Twins(impl, order, 5)
        twins.count(*random_texts(rng, 3))
        contexts = [[], [4], [4, 4], [3, 4], [1, 2], [0, 4], [2, 2, 1, 1]]
        before = answers(twins.model, contexts, 5)
        for context in contexts:
            twins.model.log_probs(context)[:] = 7
            twins.model.score([*context, 4, 3])[...] = 7
            assert np.array_equal(twins.model.score(context), twins.model.score(context))
        assert answers(twins.model, contexts, 5) == before
        twins.ask(*contexts)
        for _ in range(3):
            twins.count([4, 4, 1, 2])
            twins.ask(*contexts)
        kept, scores = twins.model.log_probs([4]), twins.model.score([4, 4])
        copies = kept.copy(), scores.copy()
        twins.ask([4], [3], [4, 4], [3, 3])
        assert np.array_equal(kept, copies[0])
        assert np.array_equal(scores, copies[1])


def test_histories_are_told_apart(impl):
    """Histories that become one number, one text or one set in careless hands."""
    for base in (10, 100, 128, 256, 1000, 1024, 4096, 10_000, 2**15, 2**16, *aim.whole(3, 400_000)):
        v = 2 * base + 20
        alike = [(3, 5), (2, base + 5), (base + 3, 4), (3, base + 5), (base + 3, 5), (5, 3), (4, 4), (2, 4)]
        twins = Twins(impl, 3, v, v - 1)
        for n, history in enumerate(alike):
            twins.count([*history, 8 + n])
        for n, history in enumerate(alike[:5]):
            twins.prob(list(history), 8 + n, 8)
    # 1 2 3 and 12 3 and 1 23 are three histories; so are 0, 0 0 and 0 0 0, and 1 1 2 and 1 2 2.
    for texts in (
        [[1, 23, 5], [12, 3, 6], [1, 2, 3, 7], [31, 2, 8], [3, 12, 9]],
        [[1, 0, 0, 0, 5], [2, 0, 0, 6], [3, 0, 7], [0, 8]],
        [[1, 1, 2, 5], [1, 2, 2, 6], [2, 1, 1, 7], [2, 2, 1, 8], [1, 2, 1, 9]],
    ):
        twins = Twins(impl, 4, 100, 99)
        twins.count(*texts)
        for text in texts:
            twins.prob(text[:-1], *(other[-1] for other in texts))
            twins.prob(text[1:-1], *(other[-1] for other in texts))


def test_histories_are_told_apart_in_a_large_vocabulary(impl):
    """65,536 to the fifth does not fit in 64 bits: the token five places back must count all the same."""
    for v in (2**16, 1_200_000):
        tokens = [9, 8, v - 1, 0, 7, 1, 3, 8, v - 1, 0, 7, 2]
        twins = Twins(impl, 6, v, v - 1)
        twins.count(tokens)
        for context in ([9, 8, v - 1, 0, 7], [3, 8, v - 1, 0, 7]):
            twins.prob(context, 1, 2)


# Measures.


class _Negative:
    """Draws what logarithms of probabilities may be: nothing above 0."""

    def __init__(self, rng):
        self.rng = rng

    def normal(self, size):
        return -np.abs(self.rng.normal(size=size)) * 3

    def integers(self, low, high, size):
        return -self.rng.integers(0, 6, size=size)


def measured(rng) -> list[battery.Case]:
    """Logarithms of every shape, size, type and layout."""
    drawn = _Negative(rng)
    types = (np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64)
    values: Mapping[str, Callable] = {
        "zeros": np.zeros,
        "all alike": lambda shape: np.full(shape, -0.7),
        "tiny": lambda shape: np.full(shape, -1e-30),
        "large": lambda shape: np.resize([-600.0, -400.0], shape),
        "of very different size": lambda shape: np.resize([-1e-9, -500.0, 0.0], shape),
        "-0.0": lambda shape: np.resize([-0.0, -1.0], shape),
        "one that is impossible": lambda shape: np.resize([-1.0, -np.inf], shape),
        "one that is unknown": lambda shape: np.resize([-1.0, np.nan], shape),
    }
    for number in aim.NUMBERS:
        if number <= 650:
            values |= {
                f"values near -{number:.6g}": lambda shape, c=number: np.resize([-c * 0.99, -c * 1.01], shape)
            }
    found = battery.cases(
        drawn, "n", sizes={"n": (1, 2, 7, 130, 5000, 66_000)}, dtypes=types, values=values, at_most=300_000
    )
    for shape in ((), (1, 1), (2, 3), (3, 1, 2), (2, 3, 2, 2), (1,) * 9, (4, 5)):
        found.append(battery.Case(f"shape {shape}", (drawn.normal(shape),)))
    # A mean of -1.5, so that a perplexity can show it.
    found.append(battery.Case("one of -20,000 among 20,000", (np.where(np.arange(20_000) == 7, -2e4, -0.5),)))
    found += battery.cases(
        drawn, "... m n", sizes={"m": (1, 2), "n": (1, 3, 40), "...": ((), (2,), (2, 1, 3))}
    )
    return [each for each in found if each.arguments[0].size]


def test_perplexity(impl, rng):
    assert impl.perplexity(np.log([0.5, 0.125])) == near(4)
    assert impl.perplexity(log_probs=np.log([[1 / 2, 1 / 4], [1 / 8, 1 / 16]])) == near(2**2.5)
    assert impl.perplexity(np.zeros(3)) == 1
    assert impl.perplexity([-1.0, -3.0]) == near(math.exp(2))
    assert impl.perplexity([[-1, -3], [-2, -2]]) == near(math.exp(2))
    assert impl.perplexity((-2,)) == near(math.exp(2))
    assert isinstance(impl.perplexity(np.log([0.5])), float)
    assert isinstance(impl.perplexity(np.float32([-1, -2])), float)

    def mean(x: np.ndarray) -> float:
        return math.fsum(np.ravel(x).astype(float)) / np.size(x)

    def definition(x: np.ndarray) -> float:
        return math.exp(-mean(x))

    # An error in the mean becomes a relative one; a plain sum has some of its size.
    battery.sweep(
        impl.perplexity, definition, measured(rng), ulps=64,
        magnitude=lambda x: definition(x) * abs(mean(x)) if math.isfinite(mean(x)) else 0.0,
        dtype=np.float64, is_new=False,
    )  # fmt: skip


def test_bits_per_byte(impl, rng):
    by_hand = {
        "ab": 2,
        "abcd": 1,
        "n\u00e9": 4 / 3,
        "\u6771": 4 / 3,
        "\U0001f44d\n": 4 / 5,
        "a": 4,
        "\0": 4,
        " ": 4,
    }
    log_probs = np.log([0.5, 0.125])
    assert [impl.bits_per_byte(log_probs, text) for text in by_hand] == near(*by_hand.values())
    assert impl.bits_per_byte(log_probs=[math.log(0.5)] * 3, text="a") == near(3)
    assert impl.bits_per_byte([[-1], [-2]], "abc") == near(1 / math.log(2))
    assert impl.bits_per_byte(np.zeros(0), "ab") == 0
    assert impl.bits_per_byte([], "a") == 0
    assert isinstance(impl.bits_per_byte(log_probs, "ab"), float)
    assert isinstance(impl.bits_per_byte(np.float32([-1, -2]), "ab"), float)

    def definition(x: np.ndarray, text: str) -> float:
        return -math.fsum(np.ravel(x).astype(float)) / math.log(2) / len(text.encode())

    for text in ("a", "n\u00e9\r\n"):
        cases = [
            battery.Case(each.label, (*each.arguments, text), slack=each.slack) for each in measured(rng)
        ]
        battery.sweep(impl.bits_per_byte, definition, cases, ulps=64, dtype=np.float64, is_new=False)
    texts = [battery.Case(label, (log_probs, text)) for label, text in battery.texts(100_000).items() if text]
    for n in (256, 65_536, 66_000, 1_000_003):
        texts += [
            battery.Case(f"{n} characters", (log_probs, letter * n)) for letter in ("x", "\u00e9", "\u6771")
        ]
    battery.sweep(impl.bits_per_byte, definition, texts, dtype=np.float64, is_new=False)


def test_nothing_to_measure(impl):
    for nothing in ([], (), np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 0, 1), np.float32)):
        battery.refuses(impl.perplexity, nothing)
        battery.refuses(impl.bits_per_byte, nothing, "")
    for log_probs in (np.log([0.5]), [-1.0, -2.0], np.zeros((2, 2)), np.zeros(3), [0.0]):
        battery.refuses(impl.bits_per_byte, log_probs, "")


def test_bits_of_bytes(impl):
    """A model of bytes that has counted nothing pays 8 bits for each, and less once it has."""
    text = "for x in range(10):\n    print(x)\n" * 4
    model = impl.NgramLM(3, 256)
    assert impl.bits_per_byte(model.score(text.encode())[-1], text) == near(8)
    model.count(text.encode())
    one, two, three = (impl.bits_per_byte(row, text) for row in model.score(text.encode()))
    assert 8 > one > two > three > 0


# The model, everywhere: this takes the longest, and comes last.


def test_everything_is_its_definition(impl, rng):
    """Small vocabularies and orders, every short context, after each text that is counted."""
    for order, vocab_size in itertools.product((1, 2, 3, 4, 6), (1, 2, 3, 7)):
        for start in {0, vocab_size - 1}:
            twins = Twins(impl, order, vocab_size, start)
            texts = random_texts(rng, vocab_size)
            for text in texts:
                twins.count(text)
                twins.prob(text[:3])
            twins.ask([], [start], *random_texts(rng, vocab_size, 3, order + 3), texts[0][:9])
    for order, vocab_size in ((3, 2), (3, 3), (4, 2)):
        twins = Twins(impl, order, vocab_size)
        twins.count(*random_texts(rng, vocab_size, 3, 12))
        for length in range(order + 1):
            for context in itertools.product(range(vocab_size), repeat=length):
                twins.prob(list(context))


def test_texts_and_contexts_of_every_type(impl):
    kinds: list[Callable] = [tuple, bytes, bytearray, np.array, lambda t: np.array(t)[::-1].copy()[::-1]]
    names = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">i8")
    kinds += [lambda t, name=name: np.array(t, dtype=name) for name in names]
    kinds += [lambda t: np.repeat(t, 2)[::2], lambda t: np.array([t, t], dtype=np.uint8).T[:, 0]]
    kinds += [lambda t: [np.int64(each) for each in t], battery.LAYOUTS["read-only"], np.asfortranarray]
    for kind in kinds:
        tokens = kind(
            np.array([100, 120, 100, 90, 2])
            if kind is battery.LAYOUTS["read-only"]
            else [100, 120, 100, 90, 2]
        )
        twins = Twins(impl, 3, 121, 120)
        twins.count(tokens)
        assert list(tokens) == [100, 120, 100, 90, 2]
        twins.prob(tokens[:2], 100, 90, 2)
        twins.prob(tokens[:1], 100, 120)
        twins.prob([100, 120], *tokens)
        twins.log_probs(tokens[1:3])
        twins.score(tokens[::-1] if kind is not bytearray else tokens)
    twins = Twins(impl, 2, 9)
    twins.count(range(9))
    twins.ask(range(3), range(0))


def test_vocabularies_of_any_size(impl, rng):
    for v in aim.sizes(2, 255, 256, 257, 1000, 5003, at_most=70_000):
        twins = Twins(impl, 3, v, v - 1)
        some = [0, v - 1, v // 2, max(0, v - 2), v - 1, 0, min(1, v - 1)]
        twins.count(some, some[::-1], [v - 1])
        twins.prob([], *some)
        twins.prob([v - 1], *some)
        twins.prob([0, v - 1], *some)
        twins.score(some)
        got = twins.model.log_probs([v - 1])
        assert got.shape == (v,)
        for token in some:
            assert got[token] == pytest.approx(
                math.log(twins.slow.estimates([v - 1], token)[-1]), rel=TOLERANCE
            )
        assert np.exp(got).sum() == near(1)


def test_orders_of_any_size(impl, rng):
    for order in aim.sizes(9, 40, at_most=400):
        twins = Twins(impl, order, 3, 2)
        text = rng.integers(2, size=order + 3).tolist()
        twins.count(text, text[: order // 2], text[-order:], [*text[: order - 1], 1 - text[order - 1]])
        twins.score(text)
        twins.prob(text[:-1])
        twins.prob(text[1 : order - 1])
        other = [1 - text[0], *text[1 : order - 1]]  # unlike in the oldest token that counts
        twins.prob(other)
        twins.prob([0, *text[: order - 1]])
        twins.log_probs(text[:order])


def test_probabilities_may_be_tiny(impl):
    """Each longer history that was followed 400 times by one token leaves 1/401 of the rest to the others."""
    for order in (3, 8, 60):
        twins = Twins(impl, order, 3)
        twins.count([0] * 400)
        twins.prob([0] * order)
        twins.log_probs([0] * order)
        twins.score([0] * order + [1, 0, 2])
        twins.count([0] * 5 + [1])
        twins.prob([0] * order)


def test_large_counts(impl, rng):
    """How often a token came, how many kinds came, how many texts there were."""
    for n in aim.sizes(300, 66_000, at_most=100_000):
        twins = Twins(impl, 1, 3)
        twins.count([1] * n + [2])
        twins.prob([], 1, 2, 0)
    for n in aim.sizes(300, 1100, at_most=20_000):
        twins = Twins(impl, 2, n + 1)
        twins.count([each for kind in range(n) for each in (n, kind)], [n, 3])
        twins.prob([n], 3, n - 1, n)
        twins.prob([], 3, n - 1, n)
        twins.prob([n - 1], 3, n)
        got = np.exp(twins.model.log_probs([n]))
        some = [0, 3, n // 2, n - 1, n]
        assert got[some].tolist() == near(*(twins.slow.estimates([n], token)[-1] for token in some))
        assert got.sum() == near(1)
    for n in aim.sizes(270, at_most=20_000):
        twins = Twins(impl, 2, 5)
        twins.count(*([n % 2, 2] for n in range(n)), [3], [3, 4])
        twins.told = [f"{n + 2} texts"]
        twins.prob([], 0, 2, 3)
        twins.prob([3], 4, 2)


def test_texts_of_any_length(impl, rng):
    """5,000 tokens at order 4 take no time, if histories are looked up and not searched for."""
    for n in aim.sizes(5000, at_most=40_000):
        often = np.where(rng.random(n) < 0.7, rng.integers(4, size=n), rng.integers(20, size=n))
        seldom = rng.integers(3000, size=n)  # nearly every history is another one
        for text, v in (often, 20), (seldom, 3000):
            slow, model = _Floats(4, v), impl.NgramLM(4, v)
            slow.count(text.tolist())
            model.count(text)
            scores = model.score(text)
            assert scores.shape == (4, n)
            assert np.abs(scores - slow.score(text.tolist())).max() < 1e-11
            last = text[-3:].tolist()
            assert model.prob(text, 3) == near(slow.estimates(tuple(last), 3)[-1])
            assert model.prob(last, 19) == near(slow.estimates(tuple(last), 19)[-1])


class _Floats:
    """The definition for long texts, in floats: counts in dictionaries of whole n-grams."""

    def __init__(self, order: int, vocab_size: int):
        self.order, self.uniform = order, 1 / vocab_size
        self.counts: dict[tuple[int, ...], int] = {}
        self.totals: dict[tuple[int, ...], tuple[int, int]] = {}

    def count(self, text: list[int]) -> None:
        padded = (0,) * (self.order - 1) + tuple(text)
        for end, n in itertools.product(range(self.order, len(padded) + 1), range(1, self.order + 1)):
            run = padded[end - n : end]
            total, kinds = self.totals.get(run[:-1], (0, 0))
            self.totals[run[:-1]] = total + 1, kinds + (run not in self.counts)
            self.counts[run] = self.counts.get(run, 0) + 1

    def estimates(self, history: tuple[int, ...], token: int) -> list[float]:
        p, found = self.uniform, []
        for n in range(self.order):
            h = history[len(history) - n :]
            total, kinds = self.totals.get(h, (0, 0))
            if total:
                p = (self.counts.get((*h, token), 0) + kinds * p) / (total + kinds)
            found.append(p)
        return found

    def score(self, text: list[int]) -> np.ndarray:
        padded = (0,) * (self.order - 1) + tuple(text)
        rows = [self.estimates(padded[at : at + self.order - 1], token) for at, token in enumerate(text)]
        return np.log(np.array(rows)).T
