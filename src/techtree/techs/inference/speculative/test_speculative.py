"""Oracles: the model on the whole text for each round; the sampling rules in plain words; generate_cached."""

import itertools
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.kv_cache import generate_cached
from techtree.techs.inference.sampling import Sampling, distribution, draw
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

N_TOKENS = 7
LAST = 1 - 2.0**-53
"""The largest number that a generator gives."""


class ByHand:
    """Stands in for a generator: gives the numbers it was made with, one at a call, and nothing else."""

    def __init__(self, *numbers):
        self.numbers, self.n_calls = list(numbers), 0

    def random(self):
        self.n_calls += 1
        return self.numbers.pop(0)


# Prompt lookup -------------------------------------------------------------------------------------------


def slow_lookup(ids, n_most, rng=None, shortest=3, longest=24):
    text = [int(each) for each in ids]
    for n in range(min(longest, len(text)), shortest - 1, -1):
        places = [each for each in range(n, len(text)) if text[each - n : each] == text[len(text) - n :]]
        if places:
            return text[places[-1] : places[-1] + n_most], None
    return [], None


def lookup_cases(rng):
    yield Case("nothing", ([], 3))
    for n in range(8):
        for text in itertools.product((0, 1), repeat=n):
            options = {"shortest": 1 + sum(text) % 3, "longest": 3 + n % 4}
            yield Case("two letters", (list(text), 1 + n % 5), options)
    for shortest, longest, n_most in [(1, 1, 2), (1, 9, 0), (2, 2, 3), (3, 5, 1), (2, 40, 100), (4, 4, 6)]:
        for size in (1, 2, 30):
            text = [int(each) for each in rng.integers(3, size=size)]
            yield Case("three letters", (text, n_most), {"shortest": shortest, "longest": longest})
    large = [70_000, 3, 2**40, 5, 1, 70_000, 3, 2**40]
    yield Case("large tokens", (large, 2))
    for n in (2, 3, 23, 24, 25, 40, *aim.sizes(at_most=300)):
        key = [5 + each % 5 + each // 5 for each in range(n)]
        # The earlier place has more in common with the end; the later one n tokens.
        for more in ([], [1], [1, 2]):
            text = [*more, *key, 100, 101, 0, *key, 102, 103, *([3] * (not more)), *more, *key]
            yield Case(f"{n} tokens, and {len(more)} more earlier", (text, 2))
            yield Case(f"{n} tokens, up to {n}", (text, n + 5), {"longest": max(3, n)})
            yield Case(f"{n} tokens, from {n}", (text, 9), {"shortest": n, "longest": n + 7})
    for n in aim.whole(1, 3000):
        yield Case(f"{n} tokens follow", ([1, 2, 3, *range(4, n + 8), 1, 2, 3], n + 2))
        yield Case(f"{n} tokens long", ([*range(n), 1, 2, 3, *range(n)][: 2 * n], 4), {"shortest": 1})


def test_lookups_by_hand(impl):
    for ids in ([1, 2, 3, 4, 5, 9, 1, 2, 3], (1, 2, 3, 4, 5, 9, 1, 2, 3)):
        assert impl.prompt_lookup(ids, 2) == ([4, 5], None)
        assert impl.prompt_lookup(ids, n_most=0) == ([], None)
        assert impl.prompt_lookup(ids, 90) == ([4, 5, 9, 1, 2, 3], None)
        assert impl.prompt_lookup(ids, 2, np.random.default_rng(0), 4) == ([], None)
    assert impl.prompt_lookup([7, 7, 7, 7], 5) == ([7], None)
    assert impl.prompt_lookup([7, 7, 7], 5) == ([], None)
    assert impl.prompt_lookup([1, 2, 9, 1, 3, 9, 1], 1, None, 1, 24) == ([3], None)
    for other in ([11, 2, 3], [1, 2, 31], [1, 23], [257, 2, 3], [2**16 + 1, 2, 3], [2**32 + 1, 2, 3]):
        assert impl.prompt_lookup([*other, 9, 1, 2, 3], 2) == ([], None)  # none of them is 1, 2, 3
    assert impl.prompt_lookup([1, 2, 3, 4, *range(5, 2000), 1, 2, 3], 2) == ([4, 5], None)
    for kind in battery.INTEGERS[:-1]:
        ids = np.array([100, 2, 3, 4, 100, 2, 3], kind)
        kept = ids.copy()
        got, q = impl.prompt_lookup(ids, 2)
        assert (got, q) == ([4, 100], None)
        assert all(type(each) is int for each in got)
        assert np.array_equal(ids, kept)
    for bad in [(-1,), (-5, None, 1, 2), (2, None, 0), (2, None, -1, 4), (2, None, 5, 4), (2, None, 3, 0)]:
        for ids in ([], [1, 2, 1]):
            battery.refuses(impl.prompt_lookup, ids, *bad)


# Verifying -----------------------------------------------------------------------------------------------


def slow_verify(drafted, p, rng, q=None):
    found = []
    for place, token in enumerate(drafted):
        if q is None:
            found.append(draw(p[place], rng))
            if found[-1] != token:
                return found
        elif rng.random() * q[place][token] < p[place][token]:
            found.append(int(token))
        else:
            rest = [max(float(a) - float(b), 0.0) for a, b in zip(p[place], q[place], strict=True)]
            return [*found, draw(rest if any(rest) else p[place], rng)]
    return [*found, draw(p[-1], rng)]


def distributions(rng, *shape):
    """Some of their entries are 0, some nearly 1."""
    weights = rng.random(size=shape) ** rng.choice([0.3, 3, 9]) * (rng.random(size=shape) < 0.8)
    weights[..., 0] += 0.05
    return weights / weights.sum(axis=-1, keepdims=True)


def check_verify(impl, drafted, p, us, q=None):
    one, other = ByHand(*us), ByHand(*us)
    expected = slow_verify(drafted, p, other, q)
    given = [np.array(each) if isinstance(each, np.ndarray) else each for each in (drafted, p, q)]
    got = impl.verify(*given[:2], one) if q is None else impl.verify(*given[:2], one, given[2])
    if got != expected or not isinstance(got, list) or one.n_calls != other.n_calls:
        what = f"{expected} expected with {other.n_calls} numbers, got {got} with {one.n_calls}"
        facts = [f"drafted: {list(drafted)}", f"numbers: {us}", *battery.describe(Case("", (np.array(p),)))]
        raise battery.MismatchError(what, facts)
    assert all(type(each) is int for each in got)
    for held, before in zip(given, (drafted, p, q), strict=True):
        assert np.array_equal(held, before) if isinstance(held, np.ndarray) else held == before


def test_verifying_by_hand(impl):
    half = [[0.5, 0.5], [1.0, 0.0]]
    check_verify(impl, [1], half, [0.637, 0.27], [[0.0, 1.0]])
    check_verify(impl, [1], half, [0.4, 0.27], [[0.0, 1.0]])
    check_verify(impl, [1], half, [0.5, 0.27], [[0.0, 1.0]])  # 0.5 is not below 0.5
    check_verify(impl, [0], half, [0.041, 0.2])
    check_verify(impl, [1], half, [0.041, 0.2])
    for u in (0.0, 0.3, LAST):
        check_verify(impl, [], [[0.2, 0.8]], [u])
        check_verify(impl, [], [[0.2, 0.8]], [u], np.zeros((0, 2)))
        # What the model never says is refused, whatever u is; what it says as often as the draft is kept.
        check_verify(impl, [0], [[0.0, 1.0], [1.0, 0.0]], [u, 0.5], [[1.0, 0.0]])
        check_verify(impl, [0], [[0.25, 0.75], [1.0, 0.0]], [u, 0.5], [[0.25, 0.75]])
        check_verify(impl, [1], [[0.25, 0.75], [1.0, 0.0]], [u, 0.5], [[0.75, 0.25]])
    # However little the model has more of, it may come.
    check_verify(impl, [0], [[0.4, 0.6 - 1e-7, 1e-7], [1.0, 0.0, 0.0]], [0.9, LAST], [[0.5, 0.5, 0.0]])
    # Rounding: nowhere is p above q, and the token is refused.
    p = np.array([[0.5 - 1e-16, 0.5 - 1e-16], [0.0, 1.0]])
    check_verify(impl, [0], p / 2, [0.75, 0.1], [[0.5, 0.5]])
    check_verify(impl, [0], p / 2, [0.75, 0.9], [[0.5, 0.5]])


def test_verified_tokens_have_exactly_the_models_distribution(impl):
    """All numbers on grids that hold every bound: shares of them are exact probabilities."""
    fourths, twelfths = (np.arange(4) + 0.5) / 4, (np.arange(12) + 0.5) / 12
    ends = [[0.25, 0.5, 0.25], [0.5, 0.0, 0.5], [0.25, 0.25, 0.5]]
    for p, q in itertools.product(np.array(ends), repeat=2):
        found = np.zeros(3)
        for token, u, v in itertools.product(np.flatnonzero(q), fourths, twelfths):
            found[impl.verify([token], [p, p], ByHand(u, v), [q])[0]] += q[token] / 48
        battery.check_equal(found, p, 64, 1.0, np.float64, f"p = {p}, q = {q}")
        found = np.zeros(3)
        for token, u in itertools.product(np.flatnonzero(q), fourths):
            found[impl.verify([token], [p, p], ByHand(u, 0.5))[0]] += q[token] / 4
        battery.check_equal(found, p, 64, 1.0, np.float64, f"p = {p}, no q")


def test_verifying_is_its_definition(impl, rng):
    for n_tokens, k in itertools.product((1, 2, 5, 40), (0, 1, 2, 3, 7)):
        for number in range(5):
            p, q = distributions(rng, k + 1, n_tokens), distributions(rng, k, n_tokens)
            if number:  # near each other, so that several are kept
                q = (p[:k] + 0.3 * q) / 1.3
            drafted = [int(rng.choice(n_tokens, p=each)) for each in q]
            us = rng.random(size=k + 2).tolist()
            given = np.array(drafted, int) if number == 1 else drafted
            check_verify(impl, given, p, us, q)
            rows = (p, q) if number < 3 or not k else (p.tolist(), q.tolist())
            check_verify(impl, given, rows[0], us, rows[1])
            likely = [draw(row, ByHand(u)) for row, u in zip(p[:k], us, strict=False)]
            right = likely[: int(rng.integers(k + 1))]
            check_verify(impl, right + drafted[len(right) :], p, us)
    for n in (150, *aim.sizes(at_most=300)):
        p = distributions(rng, n + 1, 4)
        drafted = [draw(row, ByHand(0.4)) for row in p[:n]]
        check_verify(impl, drafted, p, [0.4] * (n + 1))
        check_verify(impl, drafted, p, [0.4] * (n + 1), p[:n])
        p, q = distributions(rng, 2, n), distributions(rng, 1, n)
        check_verify(impl, [int(q[0].argmax())], p, [0.9, 0.7], q)
        check_verify(impl, [int(p[0].argmax())], p, [0.9, 0.7])
    for kind in (np.float32, np.float64):
        for lay in battery.LAYOUTS.values():
            p, q = (lay(distributions(rng, n, 9).astype(kind)) for n in (4, 3))
            drafted = [int(each.argmax()) for each in q]
            check_verify(impl, drafted, p, [0.7, 0.8, 0.9, 0.3], q)
            check_verify(impl, drafted, p, [0.1, 0.2, 0.3, 0.3], q)
    p = np.array([[1.0, 1e-9], [0.0, 1.0]])
    for u in (0.5e-9, 1.5e-9):  # no probability is too small
        check_verify(impl, [1], p, [u, 0.5], [[0.0, 1.0]])


def test_what_verifying_refuses(impl):
    good = [[0.5, 0.5], [0.5, 0.5]]
    for drafted, p, q in [
        ([], good, None),
        ([0, 1], good, None),
        ([0], [0.5, 0.5], None),
        ([0], [good, good], None),
        ([0], good, good),
        ([0], good, [[0.5, 0.25, 0.25]]),
        ([0], good, [0.5, 0.5]),
        ([0], good, np.zeros((0, 2))),
        ([], good[:1], [[0.5, 0.5]]),
    ]:
        rng = ByHand(0.5, 0.5, 0.5)
        battery.refuses(impl.verify, drafted, p, rng, q)
        assert rng.n_calls == 0


def test_lookups_are_their_definition(impl, rng):
    battery.sweep_plain(impl.prompt_lookup, slow_lookup, lookup_cases(rng))


# Drafts by a model ---------------------------------------------------------------------------------------


class Part(Module):
    """A feed-forward part that notes how many tokens were read at once."""

    def __init__(self):
        self.reads = []

    def forward(self, x):
        self.reads.append(x.shape[-2])
        return x * 0.5


def model_of(seed, dtype=np.float64, sharp=2.0, **changes):
    """Return a model with distributions that are neither flat nor sure, and what notes its reads."""
    shape = {"n_tokens": N_TOKENS, "width": 6, "hidden": 5, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1}
    rng, part = np.random.default_rng(seed), Part()
    model = Llama(LlamaConfig(**(shape | {"head_width": 4} | changes)), rng, lambda layer: part, dtype)
    for each in model.parameters():
        spread = sharp if each.ndim == 2 and each.shape[0] == N_TOKENS else 1.0
        each.data[...] = (spread * rng.normal(size=each.shape) / math.sqrt(each.shape[-1])).astype(dtype)
    model.norm.weight.data[...] = 1.0
    return model, part


def rows_of(model, text, drafted, settings):
    """The distributions after a text and after each drafted token, by reading all of it."""
    logits = model(np.array([*text, *drafted])).data[len(text) - 1 :]
    return [distribution(row, [*text, *drafted[:n]], settings) for n, row in enumerate(logits)]


def slow_draft(model, text, n_most, rng, settings):
    tokens, rows = [], []
    for _ in range(n_most):
        rows.append(rows_of(model, text, tokens, settings)[-1])
        tokens.append(draw(rows[-1], rng))
    return tokens, np.reshape(rows, (n_most, N_TOKENS))


class Known:
    """How many tokens a draft should read, by what it has read."""

    def __init__(self):
        self.read = []

    def reads(self, ids, tokens):
        if not tokens:
            return []
        pairs = zip(self.read, ids[:-1], strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.read = [*ids, *tokens[:-1]]
        return [len(ids) - common, *[1] * (len(tokens) - 1)]


WAYS = (
    Sampling(1.0, 0, 1.0, 0.0),
    Sampling(temperature=0.0),
    Sampling(1.3, 4, 1.0, 0.0, presence=0.8, frequency=0.3),
    Sampling(0.9, 0, 0.9, 0.05, repetition=1.5),
)


def check_draft(impl, model, part, draft, ids, n_most, rng, settings, known):
    numbers = rng.random(size=n_most).tolist()
    expected, rows = slow_draft(model, ids, n_most, ByHand(*numbers), settings)
    by_hand, given = ByHand(*numbers), list(ids)
    part.reads.clear()
    tokens, q = draft(given, n_most, by_hand)
    assert (tokens, given, by_hand.n_calls) == (expected, list(ids), n_most)
    assert all(type(each) is int for each in tokens)
    assert isinstance(q, np.ndarray)
    battery.check_equal(q, rows, 1000, 1.0, np.float64, f"q after {ids}")
    assert part.reads == known.reads(ids, tokens), "how many tokens were read in each call"
    q[...] = math.nan  # it is the caller's
    return tokens


def test_drafts_do_not_know_of_each_other(impl, rng):
    made = []
    for number in (0, 0, 1):
        model, part = model_of(number)
        made.append((model, part, impl.ModelDraft(model, WAYS[number], 20), WAYS[number], Known()))
    for ids in ([1, 2, 3], [1, 2, 4], [2], [1, 2, 3, 4]):
        for model, part, draft, settings, known in made:
            check_draft(impl, model, part, draft, ids, 2, rng, settings, known)
    narrow, _ = model_of(2, np.float32)
    tokens, q = impl.ModelDraft(narrow, WAYS[0], 20)([1, 2], 3, ByHand(0.2, 0.5, 0.8))
    expected, rows = slow_draft(narrow, [1, 2], 3, ByHand(0.2, 0.5, 0.8), WAYS[0])
    assert tokens == expected
    battery.check_equal(q, rows, 1000 * 2**29, 1.0, np.float64)


def test_what_drafts_refuse(impl, rng):
    model, part = model_of(0)
    draft, known = impl.ModelDraft(model, WAYS[0], 6), Known()
    check_draft(impl, model, part, draft, [1, 2, 3], 2, rng, WAYS[0], known)
    for ids, n_most in [([], 2), ([], 0), ([1], -1), ([1, 2, 3], -3)]:
        battery.refuses(draft, ids, n_most, ByHand(0.5, 0.5, 0.5))
    for ids in ([1, 2, 6, 0, 0, 0, 0], [4] * 9, [1, 2, N_TOKENS], [-1]):
        battery.refuses(draft, ids, 2, ByHand(0.5, 0.5, 0.5))
        # Afterwards it still knows what it has read, and what not.
        for text in ([*(abs(each) % N_TOKENS for each in ids[:4]), 1], [1, 2, 3, 4]):
            tokens, _ = draft(text, 1, ByHand(0.4))
            assert tokens == slow_draft(model, text, 1, ByHand(0.4), WAYS[0])[0]
    check = impl.ModelDraft(model, WAYS[0], 5)
    battery.refuses(check, [1, 2, 3], 4, ByHand(*[0.5] * 9))  # the fourth has no room
    tokens, _ = check([1, 2, 4], 2, ByHand(0.4, 0.6))
    assert tokens == slow_draft(model, [1, 2, 4], 2, ByHand(0.4, 0.6), WAYS[0])[0]


# Whole texts ---------------------------------------------------------------------------------------------


class Scripted:
    """A draft that is right about as often as not: it hangs on nothing but text and kind."""

    def __init__(self, kind):
        self.kind, self.asked = kind, []

    def __call__(self, ids, n_most, rng):
        ids = [int(each) for each in ids]
        assert n_most >= 0
        if n_most:
            self.asked.append((ids, n_most))
        own = np.random.default_rng([len(ids), *ids[-3:]])
        k = n_most if own.random() < 0.6 else int(own.integers(n_most + 1))
        if self.kind == "drawn":
            q = distributions(own, k, N_TOKENS)
            return [draw(row, rng) for row in q], q
        wanted = [int(each) for each in own.integers(N_TOKENS, size=k)]
        if self.kind == "right" and k:
            wanted = slow_draft(self.model, ids, k, ByHand(*[0.5] * k), Sampling(0.0))[0]
        return wanted, None


def slow_text(model, ids, n_new, settings, rng, draft, n_draft, stop):
    """Return the tokens, and of each round how many tokens were read and how many are new."""
    text, unread, rounds = list(ids), len(ids), []
    while len(text) < len(ids) + n_new:
        n_most = min(n_draft, len(ids) + n_new - len(text) - 1)
        drafted, q = draft(text, n_most, rng)
        tokens = slow_verify(drafted, rows_of(model, text, drafted, settings), rng, q)
        rounds.append((unread + len(drafted), len(tokens)))
        unread = 1
        for token in tokens:
            if token in stop:
                return text[len(ids) :], rounds
            text.append(token)
    return text[len(ids) :], rounds


def check_text(impl, made, ids, n_new, settings, us, kind, n_draft, stop=()):
    model, part = made
    one, other, drafts = ByHand(*us), ByHand(*us), [Scripted(kind), Scripted(kind)]
    for each in drafts:
        each.model = model
    expected, rounds = slow_text(model, ids, n_new, settings, other, drafts[1], n_draft, stop)
    part.reads.clear()
    drafts[0].model = model_of_same(model)
    got = list(impl.generate_speculative(model, ids, n_new, settings, one, drafts[0], n_draft, stop))
    if got != expected:
        facts = [f"ids: {list(ids)}, n_new {n_new}, n_draft {n_draft}, stop {stop}", f"{settings}", kind]
        raise battery.MismatchError(f"{expected} expected, got {got}", facts)
    assert all(type(each) is int for each in got)
    assert part.reads == [n_read for n_read, _ in rounds], "how many tokens were read in each call"
    assert drafts[0].asked == drafts[1].asked, "what the draft was asked"
    assert one.n_calls == other.n_calls, "how many random numbers were used"
    return got


def model_of_same(model):
    """A copy of a model, so that what a draft reads is not counted."""
    part = Part()
    copy = Llama(model.config, np.random.default_rng(0), lambda layer: part)
    copy.load_state_dict(model.state_dict())
    return copy


def test_texts_with_a_lookup_are_the_same(impl, rng):
    model, part = model_of(4, sharp=4.0)
    n_saved = 0
    for settings, n_draft in zip(WAYS, (2, 7, 7, 3), strict=True):
        for ids in ([2], [1, 2, 1, 2, 1, 2, 1]):
            us = rng.random(size=20).tolist()
            one, other = ByHand(*us), ByHand(*us)
            expected = list(generate_cached(model, ids, 12, settings, other, {6}))
            part.reads.clear()
            got = list(
                impl.generate_speculative(
                    model, ids, 12, settings, one, impl.prompt_lookup, n_draft=n_draft, stop={6}
                )
            )
            assert got == expected
            assert one.n_calls == other.n_calls or len(got) < 12
            n_saved += len(expected) - len(part.reads)
    assert n_saved > 0


def test_texts_with_a_small_model(impl, rng):
    (model, part), (small, _) = model_of(4), model_of(5)
    for settings in WAYS[::2]:
        us = rng.random(size=90).tolist()

        def slow(ids, n_most, rng, settings=settings):
            return slow_draft(small, list(ids), n_most, rng, settings)

        expected, rounds = slow_text(model, [1, 2], 12, settings, ByHand(*us), slow, 3, ())
        part.reads.clear()
        draft = impl.ModelDraft(small, settings, 40)
        by_hand = ByHand(*us)
        assert list(impl.generate_speculative(model, [1, 2], 12, settings, by_hand, draft, 3)) == expected
        assert part.reads == [n_read for n_read, _ in rounds]
    same = impl.ModelDraft(model_of(4)[0], WAYS[0], 40)
    part.reads.clear()
    text = impl.generate_speculative(model, [1, 2], 12, WAYS[0], np.random.default_rng(0), same, 3)
    assert len(list(text)) == 12
    assert len(part.reads) == 3  # the same model is always right: three times four
    part.reads.clear()
    us = ByHand(*[1 - 1e-10] * 30)
    assert len(list(impl.generate_speculative(model, [1, 2], 12, WAYS[0], us, same, 3))) == 12
    assert len(part.reads) == 3  # so near are p and q, in float64


def test_tokens_come_when_they_are_asked_for(impl, rng):
    model, part = model_of(4)
    wanted = list(generate_cached(model, [1, 2], 9, WAYS[1], ByHand(*[0.5] * 9)))
    drafted = []

    def right(ids, n_most, rng):
        drafted.append(len(ids))
        return wanted[len(ids) - 2 :][:n_most], None

    ids, by_hand = [1, 2], ByHand(*[0.5] * 20)
    part.reads.clear()
    tokens = iter(impl.generate_speculative(model, ids, 9, WAYS[1], by_hand, right, 2))
    assert (part.reads, drafted, by_hand.n_calls) == ([], [], 0)
    got = [next(tokens)]
    assert part.reads == [4]
    assert drafted == [2]
    ids[:] = [0, 0, 0, 0]
    got += [next(tokens), next(tokens)]
    assert (part.reads, by_hand.n_calls) == ([4], 3)
    got.append(next(tokens))
    assert (part.reads, drafted, by_hand.n_calls) == ([4, 3], [2, 5], 6)
    assert [*got, *tokens] == wanted
    part.reads.clear()
    next(impl.generate_speculative(model, [1, 2], 9, WAYS[1], ByHand(*[0.5] * 20), right))
    assert part.reads == [2 + 7]  # n_draft is 7 when left out
    # Wherever a token stops, within a draft too, nothing is given from there on.
    us = rng.random(size=9).tolist()
    wanted[:] = generate_cached(model, [1, 2], 9, WAYS[2], ByHand(*us))
    for stop in set(wanted):
        text = impl.generate_speculative(model, [1, 2], 9, WAYS[2], ByHand(*us), right, 8, [stop])
        assert list(text) == wanted[: wanted.index(stop)]
    # Several in turn.
    starts = ([1], [4, 4])
    us = [rng.random(size=40).tolist() for _ in starts]
    texts = []
    for ids, numbers in zip(starts, us, strict=True):
        text = impl.generate_speculative(
            model, ids, 6, WAYS[2], ByHand(*numbers), impl.prompt_lookup, n_draft=3
        )
        texts.append(iter(text))
    pairs = [[next(each) for each in texts] for _ in range(6)]
    for number, ids in enumerate(starts):
        expected = list(generate_cached(model, ids, 6, WAYS[2], ByHand(*us[number])))
        assert [each[number] for each in pairs] == expected


def test_what_texts_refuse(impl):
    model, _ = model_of(4)

    def text(ids, n_new, n_draft=2):
        rng = ByHand(*[0.5] * 9)
        return list(impl.generate_speculative(model, ids, n_new, WAYS[0], rng, nothing, n_draft=n_draft))

    def nothing(ids, n_most, rng):
        return [], None

    for ids, n_new, n_draft in [([], 3, 2), ([], 0, 2), ((), 0, 0), ([1], -1, 2), ([1], 3, -1), ([1], 0, -2)]:
        battery.refuses(text, ids, n_new, n_draft)
    battery.refuses(text, [1, 2, 3], -1)
    for ids in ([N_TOKENS], [1, -1]):
        battery.refuses(text, ids, 3)
    assert text([1], 0) == []


# How many ------------------------------------------------------------------------------------------------


def test_how_often_a_draft_is_kept(impl, rng):
    assert float(impl.acceptance([0.5, 0.5], [0.25, 0.75])) == 0.75
    assert float(impl.acceptance(np.array([1.0, 0.0]), np.array([0.0, 1.0]))) == 0
    cases = []
    for shape in [
        (1,),
        (2,),
        (9,),
        (300,),
        (3, 4),
        (2, 1, 5),
        (0, 3),
        (1, 1),
        *((n,) for n in aim.sizes(2, at_most=300)),
    ]:
        p, q = distributions(rng, *shape), distributions(rng, *shape)
        cases += [Case(f"shape {shape}", (p, q)), Case(f"equal, shape {shape}", (p, p.copy()))]
    for lay in battery.LAYOUTS.values():
        p, q = distributions(rng, 3, 4), distributions(rng, 3, 4)
        cases += [Case("layouts", (lay(p), q)), Case("layouts", (p, lay(q)))]

    def definition(p, q):
        rows = zip(p.reshape(-1, p.shape[-1]), q.reshape(-1, p.shape[-1]), strict=True)
        found = [math.fsum(min(a, b) for a, b in zip(*pair, strict=True)) for pair in rows]
        return np.array(found).reshape(p.shape[:-1])

    battery.sweep(impl.acceptance, definition, cases, ulps=64, magnitude=1.0, dtype=np.float64, is_new=False)
    p, q = (distributions(rng, 3, 9).astype(np.float32) for _ in range(2))
    battery.check_equal(
        impl.acceptance(p, q), definition(p.astype(float), q.astype(float)), 2**32, 1.0, np.float64
    )
    for p, q in [([0.5, 0.5], [1.0]), ([1.0], [[1.0]]), (1.0, 1.0), (np.ones((2, 3)), np.ones((1, 3)))]:
        battery.refuses(impl.acceptance, p, q)


def test_how_many_tokens_a_call_gives(impl):
    numbers = [0, 0.0, 0.25, 0.5, 0.9, 1 - 1e-9, 1e-9, 1, 1.0]
    numbers += [each for each in aim.NUMBERS if each <= 1] + [1 - each for each in aim.NUMBERS if each <= 1]
    for rate in numbers:
        for k in (0, 1, 2, 7, 30, 300, *aim.sizes(at_most=2000)):
            got = impl.tokens_per_call(rate, k)
            assert isinstance(got, float)
            expected = math.fsum(rate**n for n in range(k + 1))
            assert abs(got - expected) < 1e-6 * expected, (rate, k)
    for rate, k in [(-0.1, 2), (1.1, 2), (math.nan, 2), (0.5, -1), (2, 0), (-1, 3)]:
        battery.refuses(impl.tokens_per_call, rate, k)


# Many inputs --------------------------------------------------------------------------------------------


def test_drafts_of_a_model(impl, rng):
    for number, settings in enumerate(WAYS):
        model, part = model_of(number)
        draft, known = impl.ModelDraft(model, settings, 40), Known()
        text = [3, 1]
        for n_most in (3, 0, 1, 4):
            tokens = check_draft(impl, model, part, draft, text, n_most, rng, settings, known)
            # Some are kept, then comes another one.
            text += [*tokens[: int(rng.integers(n_most + 1))], int(rng.integers(N_TOKENS))]
        for other in ([3, 1, 5], [5, 5, 5], [5, 5], [5, 5], text, text[:-1], [3]):
            check_draft(impl, model, part, draft, other, 2, rng, settings, known)
        for given in ((3, 1, 2), np.array([3, 1, 2], np.uint8)):
            tokens, _ = draft(given, 2, ByHand(0.3, 0.6))
            assert tokens == slow_draft(model, [3, 1, 2], 2, ByHand(0.3, 0.6), settings)[0]
    for n in aim.sizes(at_most=60):
        model, part = model_of(7)
        draft, known = impl.ModelDraft(model, WAYS[0], n + 4), Known()
        ids = rng.integers(N_TOKENS, size=n).tolist()
        check_draft(impl, model, part, draft, ids, 4, rng, WAYS[0], known)
        few = impl.ModelDraft(model, WAYS[0], n + 2)
        if n < 12:
            check_draft(impl, model, part, few, [1], n, rng, WAYS[0], Known())


def test_texts_are_their_definition(impl, rng):
    made = [model_of(seed) for seed in range(3)]
    plans = [(9, 3, 3), (1, 3, 1), (2, 1, 2), (7, 9, 5), (3, 0, 2), (0, 4, 2), (9, 2, 1)]
    for number, (n_new, n_draft, n_ids) in enumerate(plans):
        ways = WAYS[number % 2 :: 2]
        for settings, kind in itertools.product(ways, ("random", "right", "drawn")):
            ids = rng.integers(N_TOKENS, size=n_ids).tolist()
            us = rng.random(size=120).tolist()
            check_text(impl, made[number % 3], ids, n_new, settings, us, kind, n_draft)
    for stop in ({2, 3}, [0], {0, 1, 2, 4, 5}, (6,), range(3), {99: 1}):
        for kind, n_draft in itertools.product(("right", "drawn"), (1, 4)):
            us = rng.random(size=120).tolist()
            check_text(impl, made[0], [3, 1, 4], 9, WAYS[0], us, kind, n_draft, stop)


def test_texts_of_all_kinds(impl, rng):
    model, part = model_of(4)
    for kind in battery.INTEGERS[:-1]:
        us = rng.random(size=9).tolist()
        expected = list(generate_cached(model, [1, 2, 1], 5, WAYS[0], ByHand(*us)))
        ids = np.array([1, 2, 1], kind)
        got = impl.generate_speculative(model, ids, 5, WAYS[0], ByHand(*us), impl.prompt_lookup)
        assert list(got) == expected
        assert ids.tolist() == [1, 2, 1]
    narrow, _ = model_of(5, np.float32, n_layers=2, window=3)
    us = rng.random(size=30).tolist()
    expected = list(generate_cached(narrow, (1, 2, 1), 30, WAYS[0], ByHand(*us)))
    got = impl.generate_speculative(narrow, (1, 2, 1), 30, WAYS[0], ByHand(*us), impl.prompt_lookup)
    assert list(got) == expected
    for n in aim.sizes(at_most=100):
        us = rng.random(size=n + 1).tolist()
        wanted = list(generate_cached(model, [1], n + 1, WAYS[2], ByHand(*us)))

        def right(ids, n_most, rng, wanted=wanted):
            return wanted[len(ids) - 1 :][:n_most], None

        part.reads.clear()
        for n_draft in (n, n - 1, n + 1):
            part.reads.clear()
            text = impl.generate_speculative(model, [1], n + 1, WAYS[2], ByHand(*us), right, max(n_draft, 0))
            assert list(text) == wanted
            assert part.reads[0] == 1 + min(max(n_draft, 0), n)
        long = impl.generate_speculative(
            model, [1] * n or [1], 3, WAYS[2], ByHand(*us, 0.5, 0.5), impl.prompt_lookup
        )
        assert list(long) == list(generate_cached(model, [1] * n or [1], 3, WAYS[2], ByHand(*us, 0.5, 0.5)))


def test_another_machine_and_day_change_nothing(impl):
    model, _ = model_of(4)

    def everything():
        rng = np.random.default_rng(3)
        draft = impl.ModelDraft(model_of(5)[0], WAYS[2], 40)
        return list(impl.generate_speculative(model, [1, 2], 12, WAYS[2], rng, draft, 3))

    before = everything()
    with elsewhere(impl):
        assert everything() == before


def small_draft(impl):
    model = Llama(LlamaConfig(N_TOKENS, 8, 8, 1, 2, 1), np.random.default_rng(0))
    return model, impl.ModelDraft(model, Sampling(), 20)


def test_lengths_are_checked_when_nothing_is_asked_for(impl):
    for lengths in ({"shortest": 0}, {"shortest": 5, "longest": 4}):
        battery.refuses(impl.prompt_lookup, [1], 0, **lengths)


def test_distributions_of_one_call_are_not_changed_by_the_next(impl):
    _, draft = small_draft(impl)
    rng = np.random.default_rng(0)
    _, first = draft([3], 2, rng)
    before = np.array(first)
    _, second = draft([5], 2, rng)
    assert np.array_equal(first, before)
    assert not np.shares_memory(first, second)


def test_a_draft_goes_on_after_an_error_of_its_model(impl):
    model, draft = small_draft(impl)
    feed_forward = model.blocks[0].feed_forward

    def fails(x):
        raise RuntimeError("once")

    model.blocks[0].feed_forward = fails
    with pytest.raises(RuntimeError):
        draft([3, 1], 1, np.random.default_rng(0))
    model.blocks[0].feed_forward = feed_forward
    _, fresh = small_draft(impl)
    found, expected = (each([3, 1, 4], 1, np.random.default_rng(0)) for each in (draft, fresh))
    assert found[0] == expected[0]
    assert np.allclose(found[1], expected[1], rtol=0, atol=1e-12)
