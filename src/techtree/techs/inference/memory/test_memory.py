"""Oracles: all suffixes as lists, all places of all texts, weights by a sum of slopes; a closed form."""

import itertools
import math
import time
from collections import Counter

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


class Ends:
    """Stands in for an index in which every end of a text was followed by 3, and nothing else was."""

    def __init__(self, text):
        self.text, self.longest = [int(each) for each in text], 0

    def followers(self, pattern):
        pattern = [int(each) for each in pattern]
        self.longest = max(self.longest, len(pattern))
        return {3: 1} if self.text[len(self.text) - len(pattern) :] == pattern else {}


class Slow:
    """Stands in for an index: looks at all places of all texts, and notes what it was asked."""

    def __init__(self, *texts):
        self.texts, self.longest = [[int(each) for each in text] for text in texts], 0

    def followers(self, pattern):
        pattern = [int(each) for each in pattern]
        self.longest = max(self.longest, len(pattern))
        return slow_followers(self.texts, pattern)


def negative_somewhere(at_most):
    """Lists with one negative token: at the beginning, in the middle, at the end; the longest last."""
    for n in (1, 2, 9, 150):
        for place in sorted({0, n // 2, n - 1}):
            for bad in (-1, -2, -300):
                yield [*range(place), bad, *range(place, n - 1)]
    for n in aim.sizes(at_most=at_most):
        yield [*range(n - 1), -1]


def counted(pairs):
    """What follows each first token of pairs."""
    found: dict = {}
    for one, other in pairs:
        found.setdefault(one, Counter())[other] += 1
    return found


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
        *(({6: 10**n, 0: 1}, 0) for n in range(12)),
        *(({6: n + 1}, 2) for n in aim.whole(1, 10**9)),
        *(({0: n, 7: 1}, 0) for n in aim.whole(1, 10**9)),
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
    for index in (impl.GrowingIndex(2), growing(impl, [1, 2], 2)):  # without a text, too
        for pattern in ([-1], [1, -1], [1, 2, 1], [0, 0, 0]):
            battery.refuses(index.followers, pattern)
    for pattern in negative_somewhere(300):
        battery.refuses(growing(impl, [1, 2], 1000).followers, pattern)
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
        for form in (pattern, np.array(pattern, np.int64)):
            interval = index.interval(form)
            check(interval, (low, low + n_found), "interval", *told)
            assert all(type(each) is int for each in interval), "an interval is two plain int"
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
    end = joined[-6:]  # patterns that differ in one token
    for place, other in itertools.product(range(len(end)), range(min(3, n_letters))):
        found.append([*end[:place], other, *end[place + 1 :]])
    return found


def test_indexes_by_hand(impl):
    index = impl.SuffixIndex([[5, 6, 5, 7], [5, 6]])
    check(index.tokens.tolist(), [5, 6, 5, 7, -1, 5, 6, -1], "tokens")
    check(index.places.tolist(), [7, 4, 5, 0, 2, 6, 1, 3], "places")
    check(index.interval([5, 6]), (2, 4), "interval")
    check(index.interval([6, 6]), (7, 7), "interval")
    check(index.interval([]), (0, 8), "interval")
    check(index.followers([5]), {6: 2, 7: 1}, "followers")
    check(index.followers([]), {5: 3, 6: 2, 7: 1}, "followers")
    check(index.followers([7]), {}, "followers")
    check(index.followers([7, 5]), {}, "followers")  # in two texts
    for pattern in ([-1], [5, -1], [-1, 5], [7, -1, 5], [-2]):
        battery.refuses(index.interval, pattern)
        battery.refuses(index.followers, pattern)
    for texts in ([[-1]], [[1, 2], [3, -1, 4]], [[], np.array([-7])], [[1, -1], [2]]):
        battery.refuses(impl.SuffixIndex, texts)
    for bad in negative_somewhere(30_000):
        for texts in ([bad], [np.array(bad)], [[1], bad, [2]]):
            battery.refuses(impl.SuffixIndex, texts)
    for one in (index, impl.SuffixIndex([]), impl.SuffixIndex([[]])):
        for pattern in negative_somewhere(300):
            battery.refuses(one.interval, pattern)
            battery.refuses(one.followers, np.array(pattern))
    index, other = impl.SuffixIndex([[5, 6, 5, 7], [5, 6]]), impl.SuffixIndex([[5, 9]])
    assert (index.followers([5]), other.followers([5])) == ({6: 2, 7: 1}, {9: 1})
    once = impl.SuffixIndex(iter([[1, 2], [1, 3]]))
    assert once.followers([1]) == {2: 1, 3: 1}


def is_sorted(tokens, places):
    """Whether suffixes are in order: each by its token, and by where what follows it stands."""
    rank = np.full(len(tokens) + 1, -1)  # behind the end comes what is smallest
    rank[places] = np.arange(len(tokens))
    keys = np.stack([tokens[places], rank[places + 1]])
    step = np.diff(keys)
    is_all = np.array_equal(np.sort(places), np.arange(len(tokens)))
    return is_all and bool(((step[0] > 0) | ((step[0] == 0) & (step[1] > 0))).all())


def check_long_texts(impl, made):
    """Compare indexes of texts that are too long for sorting their suffixes as lists."""
    for what, texts in made.items():
        index = impl.SuffixIndex(texts)
        parts = [part for text in texts for part in (text, [-1])]
        tokens = np.concatenate(parts).astype(np.int64)
        battery.check_equal(index.tokens, tokens, 0, 0.0, np.int64, f"tokens of {what}")
        assert is_sorted(tokens, np.asarray(index.places)), f"{what}: places are not in order"
        expected = counted((one, other) for one, other in itertools.pairwise(tokens.tolist()) if other >= 0)
        for token in {*tokens[:2].tolist(), *tokens[-3:].tolist()} - {-1}:
            check(index.followers([token]), expected.get(token, {}), f"followers of {token}, {what}")


def test_long_texts(impl, rng):
    sizes = aim.sizes(6000, at_most=70_000)[-4:]  # what goes wrong beyond a size is wrong at the largest
    check_long_texts(impl, {f"{n} tokens": [rng.integers(50, size=n)] for n in sizes})


def test_many_texts(impl):
    sizes = aim.sizes(150, at_most=5000)[-4:]
    check_long_texts(impl, {f"{n} texts": [[n, 150, k % 7] for k in range(n)] for n in sizes})


def test_long_repetitions(impl, rng):
    run = rng.integers(9, size=3000).tolist()
    made = {
        "one token": [[7] * 5000],
        "the same twice": [[1, *run, 2, *run, 0]],
        "the same in two texts": [[1, *run], run, [4, *run[1:]]],
        "five tokens in turn": [[1, 1, 2, 1, 3] * 900],
    }
    sizes = aim.sizes(at_most=9000)[-3:]
    check_long_texts(impl, made | {f"{n} tokens twice": [[*range(n), 0, *range(n), 1]] for n in sizes})


def test_long_patterns(impl):
    for n in (65, 400, *aim.sizes(at_most=2000)):  # they differ at their end
        text = [1, *range(5, 5 + n), 2, *range(5, 5 + n), 3]
        index = impl.SuffixIndex([text])
        low = text.index(2)
        for pattern, at in [(text[1:low], 2), ([*text[1:low], 3], 1), ([*text[1:low], 4], 0)]:
            low_at, high_at = index.interval(pattern)
            check(high_at - low_at, at, f"places of a pattern of {len(pattern)}")


def test_many_followers(impl):
    for n in aim.sizes(300, 1500, at_most=20_000)[-5:]:  # 0 n times and each other one once, behind 1
        text = [token for k in range(n) for token in (1, k, 1, 0)]
        expected = counted(itertools.pairwise(text))
        whole, index = impl.SuffixIndex([text]), growing(impl, text, 1)
        for one in (whole, index):
            check(one.followers([1]), expected[1], f"followers of 1, which stands {2 * n} times")
            check(one.followers([0]), expected[0], f"followers of 0, which stands {n + 1} times")
            check(one.followers([]), Counter(text), f"all of {len(text)} tokens")


def test_integers_of_all_kinds(impl):
    for kind in battery.INTEGERS:
        if kind is np.bool_:
            continue
        most = min(np.iinfo(kind).max, 2**40)
        text, few = [most, 3, most - 1, 3, most, 100], {most: 1, most - 1: 1}
        given, pattern, context = (np.array(each, kind) for each in (text, [3], [9, 3]))
        weights = np.full((3, 3), 0.9)
        for index in (impl.SuffixIndex([given]), growing(impl, given, 2)):
            told = [f"dtype {np.dtype(kind).name}", f"text: {text}"]
            check(plain_counts(index.followers(pattern)), few, "followers", *told)
            check(plain_counts(index.followers(given[:2])), {most - 1: 1}, "followers", *told)
            check(plain_counts(index.followers(given[3:5])), {100: 1}, "followers", *told)
            check(tuple(impl.longest_match(index, context, 2)), (1, few), "longest match", *told)
            check(impl.propose(index, given[:4], 2, weights), [most, 100], "draft", *told)
        index = Slow([1, 2**40, 70_000, 300, 5])  # what is drafted may be larger than a context's dtype holds
        check(
            impl.propose(index, np.array([0, 1], kind), 4, weights), [2**40, 70_000, 300, 5], "draft", *told
        )


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
            for form in (list, np.array):
                check_match(impl, texts, context, max_length, form)
    for n in (2, 8, 9, *aim.sizes(at_most=60)):
        key = [*range(10, 10 + n)]
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n)
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n + 1)
        check_match(impl, [[1, *key, 2], [*key[1:], 3]], [1, *key], n - 1)
    for _ in range(12):
        found = [rng.integers(3, size=rng.integers(30)).tolist() for _ in range(2)]
        check_match(impl, found, rng.integers(3, size=rng.integers(9)).tolist(), int(rng.integers(1, 7)))
    for n in (3, 5, 9):  # one token again and again
        check_match(impl, [[4] * 6, [1, 4, 4]], [1] + [4] * n, 8)
        check_match(impl, [[4] * 4 + [5]], [4] * n, n)
    check_match(impl, [[300, 7, 44, 8, 2**40, 9]], [5, 300], 2)
    check_match(impl, [[300, 7, 44, 8, 2**40, 9]], [2**40], 2)
    for n in (65, 300, 3000, *aim.sizes(at_most=20_000)):
        check_match(impl, [[n - 2, n - 1, 1]], [*range(n)], 3)
    for n in (33, 130, 400, *aim.sizes(at_most=3000)):
        for form in (list, np.array):
            for max_length in (n - 1, n, n + 1):
                index = Ends(range(5, 5 + n))
                got = impl.longest_match(index, form([1, *range(5, 5 + n)]), max_length)
                check(tuple(got), (min(n, max_length), {3: 1}), f"match of {n} tokens, up to {max_length}")
                assert index.longest <= max_length, "a pattern was longer than max_length"
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
    for n in range(1, 7):  # what stands at the end of a text has no follower
        key = [*range(5, 5 + n)]
        texts = [[90, *key], key, [key[-1], 3]]
        check(
            tuple(impl.longest_match(impl.SuffixIndex(texts), key)), (1, {3: 1}), "match", f"texts: {texts}"
        )
        text = [key[-1], 3, *key]
        check(tuple(impl.longest_match(growing(impl, text), key)), (1, {3: 1}), "match", f"text: {text}")
    index, text = impl.GrowingIndex(3), []
    for token in [1, 2, 1, 2, 3, 1, 2, 3, 1, 2]:  # asked again and again, of the text as it is
        index.append(token)
        text.append(token)
        for context in ([1], [1, 2], [2, 3, 1]):
            expected = slow_match([text], context, 3)
            check(tuple(impl.longest_match(index, context, 3)), expected, "match", f"text: {text}")
            weights = np.full((4, 3), 0.9)
            expected = slow_draft([text], context, 3, weights, 0.4)
            check(impl.propose(index, context, 3, weights, 0.4), expected, "draft", f"text: {text}")


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
        (40_000, 0, 0.01),
        (1, 999, 5e-4),
        (1, 9999, 5e-5),
        *((n, 0, 0.3) for n in aim.sizes(at_most=30_000)),
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
    for n in (1, 2, 9, 150):  # one wrong entry, somewhere
        fine = ([1] * n, [2] * n, [0.5] * n, [1.0] * n)
        out = [(0, 3), (0, -1), (1, 3), (1, -1), (2, 0.0), (2, -0.1), (2, 1 + 1e-9), (2, math.nan)]
        for column, bad in [*out, (3, -1e-9), (3, 1 + 1e-9), (3, math.nan), (3, math.inf)]:
            for at in {0, n // 2, n - 1}:
                spoilt = [list(each) for each in fine]
                spoilt[column][at] = bad
                battery.refuses(impl.fit_weights, *spoilt, 2)
        for column, form in itertools.product(range(4), (list, np.array)):
            for other in {0, 1, n - 1, n + 1, 2 * n} - {n}:
                changed = [form(each) for each in fine]
                changed[column] = form(fine[column][:1] * other)
                battery.refuses(impl.fit_weights, *changed, 2)
    for n in aim.sizes(at_most=30_000):
        for column, bad in enumerate((3, -1, 0.0, math.nan)):
            fine = ([1] * n, [2] * n, [0.5] * n, [1.0] * n)
            fine[column][-1] = bad
            battery.refuses(impl.fit_weights, *fine, 2)
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
    for n in (30, 300, *aim.sizes(at_most=2000)):
        check_draft(impl, [[1, 2, 3, 1]], [1], n, np.ones((3, 3)), 0.5)  # round and round
        check_draft(impl, [[4] * 6], [4], n, np.ones((3, 3)), 0.5)
    for n in (3, 4, 9, 40, *aim.sizes(at_most=400)):  # many followers, one of which came twice
        texts = [[1, k] for k in [*range(2, 2 + n), n]]
        check_draft(impl, texts, [1], 1, np.ones((2, 3)), 0.0)
        check_draft(impl, texts[:-1], [1], 1, np.ones((2, 3)), 0.0)
        often, kinds = [[1, 2]] * n + [[1, 3]], np.array([[0.0] * 3, [0.25, 0.5, 0.75]])
        for at_least in (0.1, 0.25, 0.3, 0.6):  # nearly all agree
            check_draft(impl, often, [1], 1, kinds, at_least)
    for lay in battery.LAYOUTS.values():
        given, held = lay(np.array([9, 6])), lay(weights)
        expected = slow_draft(text, given.tolist(), 9, held.tolist(), 0.4)
        check(impl.propose(Slow(*text), given, 9, held, 0.4), expected, "draft")
    check_draft(impl, text, [9] * 200 + [5], 9, weights, 0.4, np.array)
    check_draft(impl, text, [9, 5], 9, np.full((150, 3), 0.9), 0.4)
    check(impl.propose(Slow(*text), np.array([], int), 9, weights), [], "draft of an empty array")
    check(tuple(impl.longest_match(Slow(*text), np.array([], int))), (0, {}), "match of an empty array")
    check_draft(impl, text, [9, 6], 9, np.zeros((3, 3)), 0.0)  # nothing is enough
    check_draft(impl, text, [9, 6], 9, np.full((3, 3), 1e-9), 0.0)
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
    cases.append(Case("tiny", (np.array([1e-300, 1e-40, 1.0]), {2: 3, 0: 1}, 1e-9)))
    cases.append(Case("many counts", (rng.dirichlet(np.ones(3)), {0: 10**12, 1: 1}, 0.5)))
    for kind in battery.FLOATS:
        cases.append(
            Case(f"{np.dtype(kind).name}", (rng.dirichlet(np.ones(5)).astype(kind), {1: 3, 4: 1}, 0.7))
        )
    for label, lay in battery.LAYOUTS.items():
        cases.append(Case(label, (lay(rng.dirichlet(np.ones(5))), {1: 3, 4: 1}, 0.7)))
    for number in aim.whole(3, 10**6):
        cases.append(Case(f"{number} times", (np.full(4, 0.25), {1: number + 1, 2: 1}, 0.5)))
    for n in (20, 300, *aim.sizes(at_most=2000)):  # many followers
        counts = {each: each % 4 + 1 for each in range(0, n, 2)}
        cases.append(Case(f"{n // 2} followers", (rng.dirichlet(np.ones(n)), counts, 0.6)))
    battery.sweep(impl.mix, slow_mix, cases, dtype=np.float64)
    for n in (2, 20, 300):
        p = [0] * (n - 1) + [1]
        for form in (p, [float(each) for each in p], np.array(p)):
            for counts in ({0: 3, 1: 1}, {}):
                got = impl.mix(form, counts, 0.25)
                assert isinstance(got, np.ndarray)
                battery.check_equal(got, slow_mix(p, counts, 0.25), 4, 0.0, np.float64, f"{n} tokens, whole")
                assert list(form) == p
    counts = {1: 3, 0: 1}
    impl.mix([0.5, 0.5], counts, 0.25)
    assert counts == {1: 3, 0: 1}
    for p, counts, weight in [
        ([0.5, 0.5], {0: 1}, -0.1),
        ([0.5, 0.5], {0: 1}, -1e-9),
        ([0.5, 0.5], {0: 1}, 1 + 1e-9),
        ([0.5, 0.5], {}, math.nan),
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
        (8, rng.integers(2, size=19).tolist()),
        (100, [*range(100), 50, *range(100)]),
        *((n, [*range(n), n // 2, *range(n)]) for n in aim.sizes(at_most=300)),
    ]:
        index, other = impl.GrowingIndex(max_length), impl.GrowingIndex(max_length=3)
        for end in range(len(text) + 1):
            is_long, is_whole = len(text) > 20, end == len(text)
            starts = range(end + 1) if is_whole and not is_long else [end] if is_whole or not is_long else []
            lengths = range(min(end, max_length) + 1)
            runs = {tuple(text[max(0, at - n) : at]) for n in lengths for at in starts}
            for run in runs:
                for pattern in (list(run), np.array(run, np.int64))[: 2 if len(text) < 9 else 1]:
                    got = plain_counts(index.followers(pattern))
                    expected = slow_followers([text[:end]], run)
                    check(got, expected, "followers", f"text: {text[:end]}", f"pattern: {list(run)}")
                    got[99] = 1  # it is the caller's
                    check(index.followers(pattern), expected, "followers after the caller's change")
            nothing = index.followers([999, 0][:max_length])
            check(nothing, {}, "followers of what never came")
            nothing[5] = 1
            check(index.followers([999, 1][:max_length]), {}, "followers of what never came")
            if is_whole and max_length > 2:  # runs that stand somewhere, in another order
                for run in sorted(runs)[:: len(runs) // 40 + 1]:
                    for other in (run[::-1], run[1:] + run[:1], (*run[:-2], *run[:-3:-1])):
                        got = index.followers(list(other))
                        check(got, slow_followers([text], other), "followers", f"pattern: {list(other)}")
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
    for n in (6, 60):
        a, b = 10.0 ** -rng.uniform(0, 12, size=(2, n))
        cases.append(Case("of all sizes", ([1] * n, [0] * n, a, b), {"max_length": 1}))
    n = 10_000  # flat at the top, where EM is slow
    spread = np.full(n, 0.3), 0.3 * np.where(np.arange(n) % 2, 1.1, 0.905)
    for label, (a, b) in {"hardly better": spread, "equal, many": (spread[0], spread[0])}.items():
        cases.append(Case(label, (np.ones(n, int), np.ones(n, int), a, b), {"max_length": 1}))
    for number in aim.sizes(at_most=30_000):
        right = np.arange(number) * 2 >= number
        cases.append(
            Case(
                f"{number} tokens, the later ones right",
                (np.ones(number, int), np.zeros(number, int), np.full(number, 0.1), right * 1.0),
                {"max_length": 1},
            )
        )
    cases.append(
        Case(
            "lists of whole numbers", ([1] * 4, [0] * 4, [0.1, 0.2, 0.1, 1], [1, 1, 0, 1]), {"max_length": 1}
        )
    )
    for kind in battery.INTEGERS[:-1]:  # rows beyond what a narrow dtype holds three times
        rows = np.array([100, 120, 127, 127, 3], kind)
        kinds = np.array([2, 1, 0, 2, 1], kind)
        case = (rows, kinds, np.full(5, 0.1), np.ones(5))
        cases.append(Case(f"up to 127, {np.dtype(kind).name}", case, {"max_length": 127}))
    cases.append(
        Case("equal", (np.ones(4, int), np.ones(4, int), np.full(4, 0.3), np.full(4, 0.3)), {"max_length": 1})
    )
    battery.sweep(impl.fit_weights, slow_weights, cases, ulps=WEIGHT_ULPS, magnitude=1.0, dtype=np.float64)


def test_drafts_are_their_definition(impl, rng):
    for number in range(9):
        texts = [rng.integers(3, size=rng.integers(25)).tolist() for _ in range(2)]
        weights = np.round(rng.random(size=(int(rng.integers(2, 6)), 3)), 3)
        context = rng.integers(3, size=rng.integers(6)).tolist()
        form = (list, np.array)[number % 2] if context else list
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


# Memory and time ----------------------------------------------------------------------------------------


def test_the_runs_that_are_noted(impl):
    """Four times the text has some four times the short runs, and sixteen times the runs of any length."""
    few, many = (battery.peak_bytes(lambda n=n: growing(impl, range(n), 3)) for n in (60, 240))
    assert many < 9 * few, f"of four times the text {many / few:.0f} times the memory is kept"


def test_the_time_of_indexes(impl):
    """Two places for the noise: bisection in twice the text is 1.1 times as long, a scan twice."""
    repeated = battery.growth(lambda text: impl.SuffixIndex([text]), lambda n: [7] * n, 300, 5)
    assert repeated < 3.2, f"twice as many equal tokens take {repeated:.1f} times as long to sort"
    # 12 doublings instead of 2: some 5 times as long. One token more each time: a hundred times.
    other, equal = np.random.default_rng(0).integers(1000, size=4000), np.full(4000, 7)
    least = []
    for text in (other, equal):
        times = []
        for _ in range(3):
            start = time.thread_time()
            impl.SuffixIndex([text])
            times.append(time.thread_time() - start)
        least.append(min(times))
    longer = least[1] / least[0]
    assert longer < 15, f"equal tokens take {longer:.0f} times as long to sort as others"

    def look_up(index):
        for pattern in ([3, 17, 40], [600, 5, 5], [1000], []):
            index.interval(pattern)

    def made(n):
        text = np.random.default_rng(0).integers(1000, size=n)
        text[::4] = 1000  # a pattern that stands in many places
        return impl.SuffixIndex([text])

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
