"""Oracles: all suffixes as lists, all places of all texts, weights by a sum of slopes; a closed form."""

import itertools
import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere

WEIGHT_ULPS = 1e-5 / 2**-52
"""What a fitted weight may be off, as the docstring says."""


def check(got, expected, what, *facts):
    if got != expected:
        raise battery.MismatchError(
            f"{what}: {battery.drawn(expected)} expected, got {battery.drawn(got)}", facts
        )


def slow_followers(texts, pattern):
    found: dict = {}
    for text in texts:
        text, n = [int(each) for each in text], len(pattern)
        for place in range(n, len(text)):
            if text[place - n : place] == list(pattern):
                found[text[place]] = found.get(text[place], 0) + 1
    return found


class Slow:
    """Stands in for an index: looks at all places of all texts, and notes what it was asked."""

    def __init__(self, *texts):
        self.texts, self.longest = [[int(each) for each in text] for text in texts], 0

    def followers(self, pattern):
        pattern = [int(each) for each in pattern]
        self.longest = max(self.longest, len(pattern))
        return slow_followers(self.texts, pattern)


def plain_counts(counts):
    assert isinstance(counts, dict)
    for each in (*counts, *counts.values()):
        assert type(each) is int, f"tokens and counts are plain int; {each!r} is {type(each).__name__}"
    return counts


# How places agree ----------------------------------------------------------------------------------------


def test_agreement(impl):
    for counts, expected in [
        ({}, 0),
        ({6: 2, 7: 1}, 0),
        ({6: 1, 7: 1}, 0),
        ({6: 300, 0: 1}, 0),
        ({1: 1, 2: 1, 3: 1}, 0),
        ({6: 1}, 1),
        ({0: 1}, 1),
        ({2**40: 1}, 1),
        ({6: 2}, 2),
        ({0: 2}, 2),
        ({1: 3}, 2),
        *(({6: n + 1}, 2) for n in aim.whole(1, 10**9)),
        *(({n: 1}, 1) for n in aim.whole(1, 10**9)),
        *((dict.fromkeys(range(n), 1), 0) for n in aim.sizes(at_most=1000) if n > 1),
    ]:
        kept = dict(counts)
        check(impl.agreement(counts), expected, "agreement", f"counts: {kept}")
        assert counts == kept
    assert isinstance(impl.agreement({6: 1}), int)


# The mixture ---------------------------------------------------------------------------------------------


def slow_mix(p, counts, weight):
    if not counts:
        return np.array(p)
    total = sum(counts.values())
    return np.array([(1 - weight) * x + weight * counts.get(i, 0) / total for i, x in enumerate(p)])


# The text at hand ----------------------------------------------------------------------------------------


def growing(impl, text, max_length=8):
    index = impl.GrowingIndex(max_length)
    for token in text:
        index.append(token)
    return index


def test_what_a_growing_text_refuses(impl):
    for bad in (0, -1, -8):
        battery.refuses(impl.GrowingIndex, bad)
    index = growing(impl, [1, 2], 2)
    for pattern in ([-1], [1, -1], [1, 2, 1], [0, 0, 0]):
        battery.refuses(index.followers, pattern)
    for bad in (-1, np.int64(-5)):
        battery.refuses(index.append, bad)
    check(index.followers([2]), {}, "followers after an error")
    check(index.followers([]), {1: 1, 2: 1}, "followers after an error")
    index.append(3)
    check((index.followers([1, 2]), index.followers([2])), ({3: 1}, {3: 1}), "followers after an error")
    long = growing(impl, [1, 2] * 400, 2)
    check(long.followers([2, 1]), {2: 399}, "followers in a text of 800")


# The sorted texts ----------------------------------------------------------------------------------------


def check_index(impl, texts, patterns):
    given = [each.copy() for each in texts]
    index = impl.SuffixIndex(given)
    for one, other in zip(given, texts, strict=True):
        assert np.array_equal(one, other), "a text was changed"
    for each in given:
        each[:] = each[::-1]  # what happens to them later does not matter
    tokens = [token for text in texts for token in (*(int(each) for each in text), -1)]
    facts = [f"texts: {battery.drawn([[*map(int, text)] for text in texts])}"]
    check(index.tokens.tolist(), tokens, "tokens", *facts)
    assert index.tokens.dtype == np.int64
    assert index.places.dtype.kind in "iu"
    suffixes = sorted(tokens[at:] for at in range(len(tokens)))
    places = [len(tokens) - len(each) for each in suffixes]
    check(index.places.tolist(), places, "places", *facts)
    for pattern in patterns:
        told, n = [*facts, f"pattern: {pattern}"], len(pattern)
        low = sum(each < pattern for each in suffixes)
        n_found = sum(each[:n] == pattern for each in suffixes)
        for form in (pattern, tuple(pattern), np.array(pattern, np.int64)):
            check(tuple(index.interval(form)), (low, low + n_found), "interval", *told)
            got = plain_counts(index.followers(form))
            check(got, slow_followers(texts, pattern), "followers", *told)
            got.clear()
    return index


def patterns_of(rng, texts, n_letters):
    """Some that stand somewhere, some that do not, and some that would if texts were one."""
    joined = [int(token) for text in texts for token in text]
    found = [[], [0], [n_letters], [n_letters + 3, 0]]
    for n in (1, 2, 3, 5):
        for at in rng.integers(max(1, len(joined)), size=3):
            found += [joined[at : at + n], [*joined[at : at + n], n_letters]]
        found.append(rng.integers(n_letters, size=n).tolist())
    return found


def test_indexes_by_hand(impl):
    index = impl.SuffixIndex([[5, 6, 5, 7], [5, 6]])
    check(index.tokens.tolist(), [5, 6, 5, 7, -1, 5, 6, -1], "tokens")
    check(index.places.tolist(), [7, 4, 5, 0, 2, 6, 1, 3], "places")
    check(tuple(index.interval([5, 6])), (2, 4), "interval")
    check(tuple(index.interval([6, 6])), (7, 7), "interval")
    check(tuple(index.interval([])), (0, 8), "interval")
    check(index.followers([5]), {6: 2, 7: 1}, "followers")
    check(index.followers([]), {5: 3, 6: 2, 7: 1}, "followers")
    check(index.followers([7]), {}, "followers")
    check(index.followers([7, 5]), {}, "followers")  # in two texts
    for pattern in ([-1], [5, -1], [-1, 5], [7, -1, 5], [-2]):
        battery.refuses(index.interval, pattern)
        battery.refuses(index.followers, pattern)
    for texts in ([[-1]], [[1, 2], [3, -1, 4]], [[], np.array([-7])]):
        battery.refuses(impl.SuffixIndex, texts)
    other = impl.SuffixIndex([[5, 9]])
    assert (index.followers([5]), other.followers([5])) == ({6: 2, 7: 1}, {9: 1})
    once = impl.SuffixIndex(iter([(1, 2), (1, 3)]))
    assert once.followers([1]) == {2: 1, 3: 1}


# The longest match ---------------------------------------------------------------------------------------


def slow_match(texts, context, max_length):
    for n in range(min(max_length, len(context)), 0, -1):
        counts = slow_followers(texts, context[len(context) - n :])
        if counts:
            return n, counts
    return 0, {}


def check_match(impl, texts, context, max_length, form=list):
    index, given = Slow(*texts), form(context)
    got = impl.longest_match(index, given, max_length)
    facts = [f"texts: {battery.drawn(texts)}", f"context: {context}", f"max_length: {max_length}"]
    check(tuple(got), slow_match(texts, context, max_length), "longest match", *facts)
    assert isinstance(got[0], int)
    assert index.longest <= max_length, "a pattern was longer than max_length"
    assert list(given) == context
    return got


def test_longest_matches(impl, rng):
    texts = [[5, 6, 5, 7], [5, 6]]
    for context in ([9, 6, 5], [5, 6, 5, 7], [], [5], [9], [6, 6], [5, 6, 9], [7, 5, 6, 5]):
        for max_length in (1, 2, 3, 8):
            for form in (list, tuple, np.array):
                check_match(impl, texts, context, max_length, form)
    for n in (2, 8, 9, *aim.sizes(at_most=60)):
        key = [*range(10, 10 + n)]
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n)
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n + 1)
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n - 1)
    for _ in range(12):
        found = [rng.integers(3, size=rng.integers(30)).tolist() for _ in range(2)]
        check_match(impl, found, rng.integers(3, size=rng.integers(9)).tolist(), int(rng.integers(1, 7)))
    check_match(impl, [[300, 7, 44, 8, 2**40, 9]], [5, 300], 2)
    check_match(impl, [[300, 7, 44, 8, 2**40, 9]], [2**40], 2)
    for n in (65, 300):
        check_match(impl, [[n - 2, n - 1, 1]], [*range(n)], 3)
    ten = [*range(20, 30)]
    index = Slow([*ten, 1], [*ten[1:], 2], [*ten[2:], 3], [*ten[3:], 4])
    check(tuple(impl.longest_match(index, ten)), (8, {1: 1, 2: 1, 3: 1}), "up to 8 when left out")
    assert index.longest == 8
    for bad in (0, -1):
        battery.refuses(impl.longest_match, Slow([1, 2]), [1], bad)
        battery.refuses(impl.longest_match, Slow([1, 2]), [], bad)


def test_matches_in_both_indexes(impl, rng):
    text = rng.integers(3, size=60).tolist()
    sorted_texts, hashed = impl.SuffixIndex([text]), growing(impl, text, 5)
    for end in range(0, 60, 7):
        context = text[:end]
        expected = slow_match([text], context, 5)
        for index in (sorted_texts, hashed):
            check(tuple(impl.longest_match(index, context, 5)), expected, "match", f"context: {context}")


# Weights -------------------------------------------------------------------------------------------------


def slow_weights(lengths, agreements, p_model, p_memory, max_length=8):
    found = np.zeros((max_length + 1, 3))
    kinds: dict = {}
    for length, agree, a, b in zip(lengths, agreements, p_model, p_memory, strict=True):
        kinds.setdefault((int(length), int(agree)), []).append((float(a), float(b)))
    for kind, pairs in kinds.items():
        (a, b), low, high = np.array(pairs).T, 0.0, 1.0
        while high - low > 1e-6:
            w = (low + high) / 2
            slope = math.fsum((b - a) / ((1 - w) * a + w * b)) - 1 / (1 - w)
            low, high = (w, high) if slope > 0 else (low, w)
        found[kind] = (low + high) / 2 if low else 0.0
    return found


def held_out(rng, n, max_length, n_right=0.5):
    """What a memory gives: often all, often nothing, or a share."""
    b = np.where(rng.random(size=n) < n_right, rng.choice([1.0, 0.5, 0.25, 0.9], size=n), 0.0)
    a = rng.choice([1e-6, 0.01, 0.1, 0.5, 0.95], size=n) * rng.uniform(0.5, 1, size=n)
    return rng.integers(max_length + 1, size=n), rng.integers(3, size=n), a, b


def test_weights_by_hand(impl):
    # k right and m wrong: a closed form, from the slope k (1 - a) / (a + (1 - a) w) = (m + 1) / (1 - w).
    for k, m, a in [
        (2, 1, 0.1),
        (5, 0, 0.1),
        (1, 0, 0.01),
        (300, 2, 0.5),
        (1, 5, 0.4),
        (0, 3, 0.1),
        (1, 0, 0.6),
        (1, 300, 1e-3),
        (300, 0, 0.01),
    ]:
        n = k + m
        got = impl.fit_weights([2] * n, [1] * n, [a] * n, [1.0] * k + [0.0] * m, 2)
        expected = np.zeros((3, 3))
        expected[2, 1] = max(0.0, (k * (1 - a) - (m + 1) * a) / ((1 - a) * (n + 1)))
        battery.check_equal(got, expected, WEIGHT_ULPS, 1.0, np.float64, f"{k} right, {m} wrong, p_model {a}")
        assert got.max() < 1
    got = impl.fit_weights([], [], [], [])
    battery.check_equal(got, np.zeros((9, 3)), 0, 0.0, np.float64, "no tokens")


def test_what_weights_refuse(impl):
    good = ([1, 2], [0, 2], [0.5, 1.0], [0.0, 1.0])
    impl.fit_weights(*good, 2)
    for place, bad in [
        (0, [1]),
        (1, [0, 2, 1]),
        (2, [0.5]),
        (3, [0.0, 1.0, 1.0]),
        (0, [1, 3]),
        (0, [-1, 1]),
        (1, [0, 3]),
        (1, [0, -1]),
        (2, [0.0, 0.5]),
        (2, [-0.1, 0.5]),
        (2, [0.5, 1.1]),
        (2, [math.nan, 0.5]),
        (3, [-0.1, 0.5]),
        (3, [1.1, 0.5]),
        (3, [0.5, math.nan]),
    ]:
        battery.refuses(impl.fit_weights, *good[:place], bad, *good[place + 1 :], 2)
    battery.refuses(impl.fit_weights, *([each] for each in good), 2)
    battery.refuses(impl.fit_weights, [], [], [], [], 0)
    battery.refuses(impl.fit_weights, [0], [0], [0.5], [0.5], -1)


# Drafts --------------------------------------------------------------------------------------------------


def slow_draft(texts, context, n_most, weights, at_least):
    """Return the draft; None where rounding would decide."""
    text = list(context)
    for _ in range(n_most):
        n, counts = slow_match(texts, text, len(weights) - 1)
        if not n:
            break
        best = max(counts.values())
        kind = (len(counts) == 1) + (len(counts) == 1 and best > 1)
        share = best / sum(counts.values()) * weights[n][kind]
        if abs(share - at_least) < 1e-9 and share != at_least:
            return None
        if share < at_least:
            break
        text.append(min(token for token in counts if counts[token] == best))
    return text[len(context) :]


def check_draft(impl, texts, context, n_most, weights, at_least=0.5, form=list):
    expected = slow_draft(texts, context, n_most, weights, at_least)
    given, held = form(context), np.array(weights)
    if expected is None:
        return
    index = Slow(*texts)
    got = impl.propose(index, given, n_most, held, at_least)
    facts = [
        f"texts: {battery.drawn(texts)}",
        f"context: {context}",
        f"at_least: {at_least}",
        f"{n_most} at most",
    ]
    check(got, expected, "draft", *facts, f"weights: {battery.drawn(held)}")
    assert isinstance(got, list)
    assert all(type(each) is int for each in got)
    assert list(given) == context
    assert np.array_equal(held, weights)
    assert index.longest < len(weights), "a match was longer than the weights go"


def test_drafts_by_hand(impl):
    weights = np.array([[0.0, 0.0, 0.0], [0.25, 0.5, 0.625], [0.375, 0.75, 0.875]])
    text = [[5, 6, 5, 7, 8]]
    for at_least in (0.0, 0.125, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75, 0.8, 0.875, 1.0):
        for context in ([9, 6], [5], [5, 6]):
            check_draft(impl, text, context, 9, weights, at_least)
    for context in ([7], [8], [9], [], [6, 5], [9, 6]):
        for n_most in (0, 1, 2, 9):
            check_draft(impl, text, context, n_most, weights)
    assert impl.propose(Slow([1, 2]), [1], 3, np.array([[0, 0, 0], [0.1, 0.5, 0.9]])) == [
        2
    ]  # 0.5 when left out
    assert impl.propose(Slow([1, 2]), [1], 3, np.array([[0, 0, 0], [0.9, 0.4999, 0.9]])) == []
    tied = [[1, 9, 0, 1, 4, 0, 1, 7, 0, 1, 9, 2, 1, 4]]  # after 1: 9 and 4 twice, 7 once
    check_draft(impl, tied, [3, 1], 1, np.ones((3, 3)), 0.4)
    check_draft(impl, tied, [3, 1], 1, np.ones((3, 3)), 0.41)
    check_draft(
        impl, [[1, 9, 1, 9, 1, 4]], [1], 1, np.ones((3, 3)), 0.5
    )  # the most frequent is not the smallest
    check_draft(impl, [[1, 4, 1, 9, 1, 9]], [1], 1, np.ones((3, 3)), 0.5)
    check_draft(impl, [[1, 2, 3, 1]], [1], 30, np.ones((3, 3)), 0.5)  # round and round
    for index in (impl.SuffixIndex(text), growing(impl, text[0])):
        assert impl.propose(index, [9, 6], 9, weights, 0.5) == [5, 7, 8]
        assert index.followers([8]) == {}
        assert index.followers([9]) == {}
        assert impl.propose(index, [9, 6], 9, weights, 0.5) == [5, 7, 8]
        for context in ([9, 6], []):
            battery.refuses(impl.propose, index, context, -1, weights)


# Many inputs --------------------------------------------------------------------------------------------


def test_mixtures(impl, rng):
    got = impl.mix([0.5, 0.25, 0.25], {2: 3, 0: 1}, 0.5)
    check(got.tolist(), [0.375, 0.125, 0.5], "mixture")
    cases = []
    for n in (1, 2, 9, 300, *aim.sizes(at_most=2000)):
        p = rng.dirichlet(np.ones(n))
        some = {int(each): int(rng.integers(1, 9)) for each in rng.integers(n, size=4)}
        for weight in (0, 0.3, 1.0) if n < 10 else (0.3,):
            cases += [Case(f"{n} tokens", (p, counts, weight)) for counts in (some, {}, {n - 1: 1}, {0: 7})]
    for weight in (0.0, 1, *(each for each in aim.NUMBERS if each <= 1)):
        cases += [Case("", (rng.dirichlet(np.ones(4)), counts, weight)) for counts in ({3: 2, 1: 1}, {})]
    cases.append(Case("all tokens", (rng.dirichlet(np.ones(9)), {8 - n: n + 1 for n in range(9)}, 0.9)))
    cases.append(Case("many counts", (rng.dirichlet(np.ones(3)), {0: 10**12, 1: 1}, 0.5)))
    for kind in battery.FLOATS:
        cases.append(
            Case(f"{np.dtype(kind).name}", (rng.dirichlet(np.ones(5)).astype(kind), {1: 3, 4: 1}, 0.7))
        )
    for label, lay in battery.LAYOUTS.items():
        cases.append(Case(label, (lay(rng.dirichlet(np.ones(5))), {1: 3, 4: 1}, 0.7)))
    for number in aim.whole(3, 10**6):
        cases.append(Case(f"{number} times", (np.full(4, 0.25), {1: number + 1, 2: 1}, 0.5)))
    battery.sweep(impl.mix, slow_mix, cases, dtype=np.float64)
    counts = {1: 3, 0: 1}
    impl.mix([0.5, 0.5], counts, 0.25)
    assert counts == {1: 3, 0: 1}
    for p, counts, weight in [
        ([0.5, 0.5], {0: 1}, -0.1),
        ([0.5, 0.5], {0: 1}, 1.1),
        ([0.5, 0.5], {0: 1}, math.nan),
        ([0.5, 0.5], {}, 2.0),
        ([0.5, 0.5], {}, -1),
        ([0.5, 0.5], {2: 1}, 0.5),
        ([0.5, 0.5], {0: 1, 5: 1}, 0.0),
        ([0.5, 0.5], {-1: 1}, 0.5),
        ([0.5, 0.5], {1: 4, -2: 1}, 0.5),
    ]:
        battery.refuses(impl.mix, p, counts, weight)


def test_a_text_that_grows(impl, rng):
    for max_length, text in [
        (1, [1, 1, 0, 1]),
        (2, [0, 1, 0, 1, 1, 0, 1, 0]),
        (3, [7] * 7),
        (4, rng.integers(2, size=14).tolist()),
        (9, [3, 2**40, 70_000, 3, 2**40, 5, 300, 44]),
        (2, [65_537, 7, 1, 8, 2**32 + 1, 9, 1, 5]),
        *((n, [*range(n), n // 2, *range(n)]) for n in aim.whole(3, 40)),
    ]:
        index, other = impl.GrowingIndex(max_length), impl.GrowingIndex(max_length=3)
        for end in range(len(text) + 1):
            is_long, is_whole = len(text) > 20, end == len(text)
            starts = range(end + 1) if is_whole and not is_long else [end] if is_whole or not is_long else []
            lengths = range(min(end, max_length) + 1)
            runs = {tuple(text[max(0, at - n) : at]) for n in lengths for at in starts}
            for run in runs:
                for pattern in (list(run), run, np.array(run, np.int64))[: 3 if len(text) < 9 else 1]:
                    got = plain_counts(index.followers(pattern))
                    expected = slow_followers([text[:end]], run)
                    check(got, expected, "followers", f"text: {text[:end]}", f"pattern: {list(run)}")
                    got[99] = 1  # it is the caller's
                    got.clear()
            assert index.followers([99, 0][:max_length]) == {}
            if end < len(text):
                index.append(text[end] if end % 2 else np.int64(text[end]))
                other.append(5)
    assert growing(impl, np.array([200, 100, 200, 100, 200], np.uint8)).followers([200]) == {100: 2}
    index = impl.GrowingIndex()
    for n in range(40):
        index.append(n % 10)
    assert index.followers([2, 3, 4, 5, 6, 7, 8, 9]) == {0: 3}  # up to 8 when left out
    battery.refuses(index.followers, [1, 2, 3, 4, 5, 6, 7, 8, 9])


def test_all_texts_of_two_letters(impl):
    for n in range(1, 4):
        for text in itertools.product((0, 1), repeat=n):
            patterns = [[], [0], [1], [0, 0], [0, 1], [1, 0], [1, 1, 0], list(text), [*text, 0], [2]]
            check_index(impl, [list(text)], patterns)


def test_random_texts(impl, rng):
    check_index(impl, [], [[], [0], [1, 2]])
    check_index(impl, [[]], [[], [0]])
    check_index(impl, [[], [3], [], []], [[], [3], [3, 3]])
    check_index(
        impl, [[1, 2], [1, 2], [1, 2]], [[1, 2], [2], [2, 1]]
    )  # the same again: the later one is shorter
    check_index(impl, [[0] * 40, [0] * 39], [[0] * 38, [0] * 40, [0] * 41, [0]])
    large = [[2**40, 70_000, 2**40, 5, 2**62], [300, 44, 2**32 + 5]]
    check_index(impl, large, [[2**40], [70_000, 2**40], [44], [5], [2**62]])
    check_index(impl, [np.array([200, 3, 200, 100], np.uint8), np.array([3, 1], np.int16)], [[200], [3, 200]])
    for n_letters, n_texts, length in [(1, 3, 9), (2, 4, 12), (3, 2, 40), (1000, 2, 30)]:
        texts = [rng.integers(n_letters, size=rng.integers(length + 1)).tolist() for _ in range(n_texts)]
        check_index(impl, texts, patterns_of(rng, texts, n_letters))
    for n in aim.sizes(at_most=300):
        text = [*range(n), 0, *range(n), 1]
        check_index(impl, [text], [[*range(n)], [0], [*range(n), 0]])
        check_index(impl, [[n, n + 1, 2 * n]] * min(n, 40), [[n], [n + 1, 2 * n]])


def test_weights_are_their_definition(impl, rng):
    cases = []
    for n, longest, right in [
        (0, 1, 0.5),
        (1, 1, 1.0),
        (3, 2, 0.6),
        (30, 1, 0.5),
        (40, 2, 0.9),
        (132, 1, 0.7),
    ]:
        made = held_out(rng, n, longest, right)
        cases.append(Case(f"{n} tokens", made, {"max_length": longest}))
        flat = (np.full_like(made[0], longest), np.full_like(made[1], n % 3), *made[2:])
        cases.append(Case(f"{n} tokens of one kind", flat, {"max_length": longest}))
    cases.append(Case("max_length left out", held_out(rng, 30, 8)))
    lengths, agreements, a, b = held_out(rng, 15, 2)
    for kind in (np.int8, np.uint8, np.int32, np.uint64):
        cases.append(
            Case(f"{kind.__name__}", (lengths.astype(kind), agreements.astype(kind), a, b), {"max_length": 2})
        )
    cases.append(
        Case("float32", (lengths, agreements, a.astype(np.float32), b.astype(np.float32)), {"max_length": 2})
    )
    for label, lay in battery.LAYOUTS.items():
        cases.append(Case(label, tuple(lay(each) for each in (lengths, agreements, a, b)), {"max_length": 2}))
    for n in aim.sizes(at_most=200):
        cases.append(Case(f"{n} tokens", held_out(rng, n, 1), {"max_length": 1}))
    for n in aim.whole(3, 60):
        cases.append(Case(f"up to {n}", held_out(rng, 10, n), {"max_length": n}))
    small = np.array([1e-300, 1e-12, 1.0])
    cases.append(Case("tiny and whole", ([1, 1, 1], [0, 0, 0], small, [1.0, 0.0, 1.0]), {"max_length": 1}))
    cases.append(
        Case("equal", (np.ones(4, int), np.ones(4, int), np.full(4, 0.3), np.full(4, 0.3)), {"max_length": 1})
    )
    battery.sweep(impl.fit_weights, slow_weights, cases, ulps=WEIGHT_ULPS, magnitude=1.0, dtype=np.float64)


def test_drafts_are_their_definition(impl, rng):
    for number in range(9):
        texts = [rng.integers(3, size=rng.integers(25)).tolist() for _ in range(2)]
        weights = np.round(rng.random(size=(int(rng.integers(2, 6)), 3)), 3)
        context = rng.integers(3, size=rng.integers(6)).tolist()
        form = (list, tuple, np.array)[number % 3] if context else list
        check_draft(impl, texts, context, int(rng.integers(6)), weights, [0.1, 0.3, 0.6][number % 3], form)
    for n in (9, *aim.sizes(at_most=40)):
        key = [*range(10, 10 + n)]
        texts, weights = [[1, *key, 2], [*key[1:], 3]], np.full((n + 1, 3), 0.9)
        check_draft(impl, texts, [1, *key], 2, weights)
        check_draft(impl, texts, [10], n + 2, weights)
        check_draft(impl, texts, [1, *key], 2, weights[:-1], 0.3)
    for number in [each for each in aim.NUMBERS if each < 1]:
        for near in (number - 1e-3, number + 1e-3):
            check_draft(impl, [[1, 2]], [1], 1, np.full((2, 3), near), number)
            check_draft(impl, [[1, 2]], [1], 1, np.full((2, 3), number), near)
    weights = np.full((2, 3), 0.9)
    for change in (0.2, 0.9):  # of the present values
        weights[:] = change
        check_draft(impl, [[1, 2]], [1], 1, weights)


# Time ----------------------------------------------------------------------------------------------------


def test_the_time_of_indexes(impl):
    """Two places for the noise: bisection in twice the text is 1.1 times as long, a scan twice."""
    repeated = battery.growth(lambda text: impl.SuffixIndex([text]), lambda n: [7] * n, 300, 5)
    assert repeated < 3.2, f"twice as many equal tokens take {repeated:.1f} times as long to sort"

    def look_up(index):
        for pattern in ([3, 17, 40], [600, 5, 5]):
            index.interval(pattern)

    def made(n):
        index = impl.SuffixIndex([np.random.default_rng(0).integers(1000, size=n)])
        pairs = 2000 * index.tokens[index.places] + np.append(index.tokens, -1)[index.places + 1]
        assert (np.diff(pairs) >= 0).all(), f"{n} tokens are not sorted"
        return index

    longer = battery.growth(look_up, made, 30_000, 5)
    assert longer < 1.5, f"in a text twice as long a pattern is found in {longer:.1f} times the time"


def test_another_machine_and_day_change_nothing(impl):
    def everything():
        texts = [[1, 2, 3, 1, 2], [2, 3, 1, 2, 4]]
        index, weights = impl.SuffixIndex(texts), impl.fit_weights([1, 1], [2, 2], [0.1, 0.2], [1.0, 0.5], 2)
        hashed = growing(impl, texts[0])
        draft = impl.propose(index, [1, 2], 4, np.full((3, 3), 0.9), 0.3)
        mixed = impl.mix(np.full(5, 0.2), index.followers([2]), 0.3).tolist()
        return index.places.tolist(), hashed.followers([1]), weights.tolist(), draft, mixed

    before = everything()
    with elsewhere(impl):
        assert everything() == before
