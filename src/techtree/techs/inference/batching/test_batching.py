"""Oracles: each text alone with its own cache, each request alone without one, and a count of blocks."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.kv_cache import KVCache, extend
from techtree.techs.inference.sampling import Sampling, generate
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.rope import RopeScaling

SMALL = {"n_tokens": 11, "width": 6, "hidden": 5, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1}
"""Heads of width 4 take 8 of 6 numbers: nothing is as wide as anything else."""
SMALL |= {"head_width": 4}
SHAPES = (
    {},
    {"n_heads": 6, "n_kv_heads": 3, "has_head_norms": True},
    {"has_qkv_bias": True, "n_kv_heads": 2, "is_tied": False},
    {"window": 1},
    {"window": 3, "n_heads": 4, "n_kv_heads": 2, "n_layers": 3},
    {"scaling": RopeScaling("linear", 4.0), "base": 3.0, "n_layers": 1},
)


class Part(Module):
    """A feed-forward part that remembers what it was asked, and fails when it is told to."""

    def __init__(self, factor=0.25):
        self.factor, self.asked, self.fails = factor, [], False

    def forward(self, x):
        if self.fails:
            raise ArithmeticError("told to fail")
        self.asked.append(x.data.reshape(-1, x.shape[-1]).copy())
        assert not is_recorded()
        return x * self.factor

    def n_asked(self):
        """Return how many tokens came in each call, and forget it."""
        found = [len(each) for each in self.asked]
        self.asked.clear()
        return found


def is_recorded():
    return (Tensor([1.0], requires_grad=True) * 2).requires_grad


def model_of(rng, dtype=np.float64, part=None, **changes):
    """A model whose parameters are all of their size, norms and biases too."""
    model = Llama(LlamaConfig(**(SMALL | changes)), rng, part and (lambda layer: part), dtype)
    state = {}
    for name, each in model.named_parameters():
        spread = 1 if each.ndim == 1 else 1 / math.sqrt(each.shape[-1])
        state[name] = (spread * rng.normal(size=each.shape) + (0.5 if "norm" in name else 0)).astype(dtype)
    model.load_state_dict(state)
    return model


def close(got, expected, label="", unit=None):
    """Rounding in some hundred operations on numbers of about the largest one's size."""
    size = 1 + 4 * np.abs(expected.astype(np.float64)).max(initial=0)
    ulps = 200 if unit is None else 200 * max(1.0, unit / np.finfo(expected.dtype).eps)
    battery.check_equal(got, expected, ulps, size, expected.dtype, label)


class Pair:
    """A paged text, and the same text in a cache of its own."""

    def __init__(self, impl, model, pool, max_len=99):
        self.model, self.pool = model, pool
        self.text = impl.PagedText(pool)
        self.alone = KVCache(model.config, max_len, pool.keys.dtype.type)

    def check(self, label=""):
        """Compare what is held, and how many blocks there are for it."""
        n, size = self.alone.length, self.pool.block_size
        assert self.text.length == n, label
        assert len(self.text.blocks) == math.ceil(n / size), label
        for mine, other in ((self.pool.keys, self.alone.keys), (self.pool.values, self.alone.values)):
            got = np.moveaxis(mine[self.places()], 0, 2)
            close(got, other[:, :, :n], f"{label}: what is held")

    def places(self):
        """Where the tokens lie in the pool: an index that gives (tokens, n_layers, K, D)."""
        p = np.arange(self.alone.length)
        blocks = np.array(self.text.blocks, int)
        return np.s_[:, blocks[p // self.pool.block_size], :, p % self.pool.block_size]

    def truncate(self, length):
        self.text.truncate(length)
        self.alone.truncate(length)


def spoil(pool, pairs):
    """What no text holds means nothing."""
    kept = []
    for pair in pairs:
        place = pair.places()
        kept.append((place, pool.keys[place], pool.values[place]))
    pool.keys[...], pool.values[...] = math.nan, math.inf
    for place, keys, values in kept:
        pool.keys[place], pool.values[place] = keys, values


def together(impl, model, pairs, counts, rng, others=(), unit=None):
    """Read so many new tokens of each text, and compare with each alone."""
    pool = pairs[0].pool
    ids = [rng.integers(model.config.n_tokens, size=n) for n in counts]
    spoil(pool, [*pairs, *others])
    got = impl.extend_batch(model, [pair.text for pair in pairs], ids)
    told = f"{counts} new tokens after {[pair.alone.length for pair in pairs]}, blocks of {pool.block_size}"
    assert isinstance(got, list), told
    assert len(got) == len(pairs), told
    for pair, row, each in zip(pairs, ids, got, strict=True):
        assert type(each) is np.ndarray, told
        close(each, extend(model, pair.alone, row), told, unit)
    for pair in [*pairs, *others]:
        if unit is None:
            pair.check(told)
    owned = [block for pair in [*pairs, *others] for block in pair.text.blocks]
    assert len(set(owned)) == len(owned), told
    assert pool.n_free == pool.n_blocks - len(owned), told


# The pool and its texts ----------------------------------------------------------------------------------


def test_a_pool_hands_out_blocks(impl, rng):
    for changes, shape in [({}, (2, 1, 4)), ({"n_layers": 3, "n_heads": 4, "n_kv_heads": 2}, (3, 2, 4))]:
        config = LlamaConfig(**(SMALL | changes))
        for n, size in ((1, 1), (5, 7), (300, 2)):
            for dtype in (None, *battery.FLOATS):
                given = (config, n, size) if dtype is None else (config, n, size, dtype)
                pool = impl.BlockPool(*given)
                assert (pool.config, pool.n_blocks, pool.block_size, pool.n_free) == (config, n, size, n)
                for each in (pool.keys, pool.values):
                    assert each.shape == (shape[0], n, shape[1], size, shape[2])
                    assert each.dtype == (dtype or np.float64)
                assert not np.shares_memory(pool.keys, pool.values)
    one, other = (impl.BlockPool(config=config, n_blocks=5, block_size=2, dtype=np.float32) for _ in range(2))
    assert not np.shares_memory(one.keys, other.keys)
    for bad in (0, -1, 1.0, 2.5, "3", None, True, False):
        battery.refuses(impl.BlockPool, config, bad, 4)
        battery.refuses(impl.BlockPool, config, 4, bad)
    for n in aim.sizes(7, at_most=3000):
        pool = impl.BlockPool(config, n, 1)
        held = pool.keys, pool.values
        first = pool.take(n)
        assert sorted(first) == list(range(n))
        assert all(type(each) is int for each in first)
        assert pool.n_free == 0
        assert pool.take(0) == []
        battery.refuses(pool.take, 1)
        back = first[::2]
        kept = list(back)
        pool.give_back(back)
        assert back == kept
        assert pool.n_free == len(back)
        battery.refuses(pool.take, len(back) + 1)
        battery.refuses(pool.give_back, [first[0]])
        battery.refuses(pool.give_back, first)
        assert pool.n_free == len(back)
        assert set(pool.take(len(back))) == set(back)
        assert pool.n_free == 0
        assert one.n_free == 5
        assert pool.keys is held[0]
        assert pool.values is held[1]
    for bad in ([n], [-1], [first[0], n], [first[0], first[0]], [first[-1], -n]):
        battery.refuses(pool.give_back, bad)
        assert pool.n_free == 0
    pool.give_back(set(first))
    pool.give_back(())
    assert pool.n_free == n


def test_a_text_takes_what_it_lacks(impl, rng):
    config = LlamaConfig(**SMALL)
    for size in (1, 2, 3, 16):
        pool = impl.BlockPool(config, 6, size)
        one, other = impl.PagedText(pool), impl.PagedText(pool)
        assert (one.pool, one.blocks, one.length) == (pool, [], 0)
        for n in range(6 * size + 3):
            assert one.n_missing(n) == math.ceil(n / size)
        for n in (0, 1, size, size, size + 1, 2 * size, 1):
            before = list(one.blocks)
            wanted = max(len(before), math.ceil(n / size))
            one.reserve(n)
            assert len(one.blocks) == wanted
            assert one.blocks[: len(before)] == before
            assert one.length == 0
            assert pool.n_free == 6 - wanted
            assert [one.n_missing(each) for each in range(wanted * size)] == [0] * wanted * size
        n_more = one.n_missing(4 * size + 1)
        assert n_more == 5 - len(one.blocks)
        other.reserve(2 * size)
        before = list(one.blocks)
        battery.refuses(one.reserve, (6 - 2) * size + 1)
        assert (one.blocks, pool.n_free) == (before, 4 - len(before))
        assert not set(one.blocks) & set(other.blocks)
        for bad in (-1, 1):
            battery.refuses(one.truncate, bad)
            assert one.blocks == before
        one.truncate(0)
        assert (one.blocks, one.length, pool.n_free) == ([], 0, 4)
        assert len(other.blocks) == 2


# More tokens ---------------------------------------------------------------------------------------------


def test_each_text_as_alone(impl, rng):
    for size in (1, 3, 4):
        model = model_of(rng, n_kv_heads=2)
        pool = impl.BlockPool(model.config, 30, size)
        pairs = [Pair(impl, model, pool) for _ in range(4)]
        a, b, c, d = pairs
        together(impl, model, [a], [3], rng, [b, c, d])
        together(impl, model, [b, a], [5, 1], rng, [c, d])
        together(impl, model, [c, b, a], [1, 1, 1], rng, [d])
        together(impl, model, [a, d, c, b], [4, 1, 2, 1], rng)
        for pair, length in ((a, 4), (b, 0), (c, 3), (d, 1)):
            pair.truncate(length)
            pair.check("cut")
        together(impl, model, [d, b], [6, 2], rng, [a, c])
        together(impl, model, [b, c, d, a], [1, 1, 1, 3], rng)


def test_parts_are_asked_once(impl, rng):
    part, alone = Part(), Part()
    model = model_of(rng, part=part, n_layers=1)
    pool = impl.BlockPool(model.config, 9, 4)
    texts = [impl.PagedText(pool) for _ in range(3)]
    caches = [KVCache(model.config, 20) for _ in texts]
    for counts in ([2, 5, 1], [1, 1, 1], [1, 3, 2]):
        ids = [rng.integers(11, size=n) for n in counts]
        impl.extend_batch(model, texts, ids)
        asked = list(part.asked)
        assert part.n_asked() == [sum(counts)]
        model.blocks[0].feed_forward = alone
        for cache, row in zip(caches, ids, strict=True):
            extend(model, cache, row)
        close(asked[0], np.concatenate(alone.asked), "what the part was asked")
        alone.asked.clear()
        model.blocks[0].feed_forward = part
    assert is_recorded()
    assert all(each.grad is None for each in model.parameters())
    with no_grad():
        impl.extend_batch(model, texts[:1], [[1]])
        assert not is_recorded()


def test_answers_are_new_and_ids_stay(impl, rng):
    model = model_of(rng, n_tokens=300)
    pool = impl.BlockPool(model.config, 9, 4)
    texts = [impl.PagedText(pool) for _ in range(2)]
    caches = [KVCache(model.config, 20) for _ in texts]
    ids = [[255, 3], np.array([130, 7, 0], np.uint8)]
    first = impl.extend_batch(model, texts, ids)
    kept = [each.copy() for each in first]
    assert ids[0] == [255, 3]
    assert ids[1].tolist() == [130, 7, 0]
    second = impl.extend_batch(model, tuple(texts), tuple(ids))
    for each, before in zip(first, kept, strict=True):
        assert np.array_equal(each, before)
    for one, other in itertools.combinations([*first, *second], 2):
        assert not np.shares_memory(one, other)
    for each in [*first, *second]:
        each[...] = 0
    for _ in range(2):
        expected = [extend(model, cache, row) for cache, row in zip(caches, ids, strict=True)]
    for got, wanted in zip(kept, expected, strict=True):
        assert got.shape == wanted.shape
    third = impl.extend_batch(model, texts, [[5], [6]])
    for got, cache, row in zip(third, caches, ([5], [6]), strict=True):
        close(got, extend(model, cache, row), "after answers that were changed")
    for kind in battery.INTEGERS[:-1]:
        text, cache = impl.PagedText(pool), KVCache(model.config, 5)
        row = np.array([3, 100, 7]).astype(kind)
        close(impl.extend_batch(model, [text], [row])[0], extend(model, cache, row), f"{kind}")
        text.truncate(0)
    for name, lay in battery.LAYOUTS.items():
        text, cache, row = impl.PagedText(pool), KVCache(model.config, 5), lay(np.array([3, 100, 7]))
        close(impl.extend_batch(model, [text], [row])[0], extend(model, cache, row), name)
        text.truncate(0)


def test_dtypes(impl, rng):
    for dtype, kept in itertools.product(battery.FLOATS, battery.FLOATS):
        model = model_of(rng, dtype, has_qkv_bias=True, n_kv_heads=2)
        pool = impl.BlockPool(model.config, 9, 3, kept)
        pairs = [Pair(impl, model, pool) for _ in range(2)]
        # Where both round, a number in the middle may go either way: the coarser one's rounding is free.
        unit = max(np.finfo(each).eps for each in (dtype, kept)) / (100 if dtype == np.float32 else 1)
        unit = max(unit, np.finfo(dtype).eps) if dtype != np.float64 else None
        together(impl, model, pairs, [5, 2], rng, unit=unit)
        together(impl, model, pairs, [1, 1], rng, unit=unit)


def test_errors_change_nothing(impl, rng):
    part = Part()
    model = model_of(rng, part=part)
    pool, elsewhere_ = (impl.BlockPool(model.config, 5, 2) for _ in range(2))
    a, b = Pair(impl, model, pool), Pair(impl, model, pool)
    stranger = impl.PagedText(elsewhere_)
    together(impl, model, [a, b], [3, 1], rng)

    def check(texts, ids, error=ValueError):
        before = list(a.text.blocks), list(b.text.blocks), pool.n_free
        battery.refuses(impl.extend_batch, model, texts, ids, error=error)
        if error is ValueError:
            assert (a.text.blocks, b.text.blocks, pool.n_free) == before
            a.check("after an error")
            b.check("after an error")
        assert (a.text.length, b.text.length, stranger.length) == (3, 1, 0)
        assert is_recorded()

    both = [a.text, b.text]
    check([], [])
    check(both, [[1]])
    check(both, [[1], [1], [1]])
    check([a.text, a.text], [[1], [1]])
    check([a.text, b.text, a.text], [[1], [1], [1]])
    check([a.text, stranger], [[1], [1]])
    none, rows = np.zeros(0, int), np.zeros((1, 1), int)
    for bad in ([], none, 3, [[1, 2]], rows, [11], [-1], [1, 11], [2**40], [1.0], [True]):
        check(both, [[1], bad])
        check(both, [bad, [1]])
    check(both, [[1] * 6, [1]])  # 9 tokens: 5 blocks for the first alone
    check(both, [[1] * 3, [1] * 4])  # 3 and 3
    check(both, [[1] * 2, [1] * 6])
    for bad in (-1, -3, 4, 6):
        battery.refuses(a.text.truncate, bad)
        a.check("not cut")
    part.fails = True
    check(both, [[1], [1]], ArithmeticError)
    check(both, [[1] * 4, [1]], ArithmeticError)
    part.fails = False
    for pair in (a, b):
        pair.truncate(pair.alone.length)
    another = {"n_layers": 3, "n_kv_heads": 2, "head_width": 2, "base": 9.0, "window": 3, "eps": 0.1}
    for name, value in another.items():
        text = impl.PagedText(impl.BlockPool(LlamaConfig(**(SMALL | {name: value})), 5, 2))
        check([text], [[1]])
        assert (text.length, text.blocks) == (0, [])
    together(impl, model, [a, b], [3, 2], rng)
    assert pool.n_free == 0
    together(impl, model, [b], [1], rng, [a])  # the last places
    battery.refuses(impl.extend_batch, model, [a.text], [[1]])


# The scheduler -------------------------------------------------------------------------------------------


@dataclass
class Alone:
    """A request's tokens when nobody else is there; ``None`` at the end for one that stops."""

    n_ids: int
    tokens: list
    n_known: int = 0
    n_read: int = 0
    given: list = field(default_factory=list)


class Counted:
    """The same rules as the scheduler's, on numbers alone, counted anew each time."""

    def __init__(self, n_blocks, block_size, max_running):
        self.n_blocks, self.block_size, self.max_running = n_blocks, block_size, max_running
        self.requests, self.waiting, self.running, self.n_evicted = [], [], [], 0

    def n_free(self, wanted=()):
        wanted = dict(wanted)
        held = (max(self.requests[r].n_read, wanted.get(r, 0)) for r in self.running)
        return self.n_blocks - sum(math.ceil(each / self.block_size) for each in held)

    def step(self):
        """Return what is given, and how many tokens are read."""
        wanted = {}
        for r in sorted(self.running):
            if r not in self.running:
                continue
            wanted[r] = self.requests[r].n_known
            while r in self.running and self.n_free(wanted) < 0:
                last = max(self.running)
                self.running.remove(last)
                self.waiting = sorted([*self.waiting, last])
                self.requests[last].n_read = 0
                self.n_evicted += 1
        while self.waiting and len(self.running) < self.max_running:
            r = min(self.waiting)
            self.running.append(r)
            wanted[r] = self.requests[r].n_known
            if self.n_free(wanted) < 0:
                self.running.remove(r)
                break
            self.waiting.remove(r)
        given, n_read = {}, 0
        for r in list(self.running):
            each = self.requests[r]
            n_read += each.n_known - each.n_read
            each.n_read = each.n_known
            token = each.tokens[each.n_known - each.n_ids]
            if token is not None:
                given[r] = token
                each.n_known += 1
            if token is None or each.n_known - each.n_ids == len(each.tokens):
                self.running.remove(r)
        return given, n_read


SETTINGS = (
    Sampling(temperature=1.5, min_p=0.0),
    Sampling(temperature=0.0),
    Sampling(temperature=1.0, top_k=4, repetition=1.3, presence=0.5, frequency=0.25),
)


class Run:
    """A scheduler and its oracle, step by step."""

    def __init__(self, impl, rng, n_blocks, block_size, max_running, dtype=np.float64, **changes):
        self.impl, self.rng, self.part = impl, rng, Part()
        self.model = model_of(rng, dtype, self.part, **changes)
        self.pool = impl.BlockPool(self.model.config, n_blocks, block_size, dtype)
        self.scheduler = impl.Scheduler(self.model, self.pool, max_running)
        self.counted = Counted(n_blocks, block_size, max_running)
        self.rngs = []

    def submit(self, n_ids, n_new, stop=(), settings=None):
        number = len(self.rngs)
        settings = settings or SETTINGS[number % 3]
        ids = self.rng.integers(11, size=n_ids)
        mine, other = np.random.default_rng(number), np.random.default_rng(number)
        tokens: list = list(generate(self.model, ids, n_new, settings, other, stop))
        tokens += [None] * (len(tokens) < n_new)
        self.part.asked.clear()
        given = ids.tolist() if number % 2 else ids
        got = self.scheduler.submit(self.impl.Request(given, n_new, settings, mine, stop))
        assert got == number
        given[:] = [0] * n_ids if number % 2 else 0
        self.counted.requests.append(Alone(n_ids, tokens, n_ids))
        self.counted.waiting.append(number)
        self.rngs.append((mine, other))
        self.check()

    def check(self):
        mine, other = self.scheduler, self.counted
        told = f"waiting and running must be {other.waiting} and {other.running}"
        assert (list(mine.waiting), list(mine.running)) == (other.waiting, other.running), told
        assert mine.n_evicted == other.n_evicted
        assert self.pool.n_free == other.n_free(), f"free blocks must be {other.n_free()}"

    def step(self):
        expected, n_read = self.counted.step()
        got = self.scheduler.step()
        assert got == expected, f"a step must give {expected}; it gave {got}"
        assert all(type(each) is int for pair in got.items() for each in pair)
        asked = self.part.n_asked()
        assert asked == [n_read] * (2 if n_read else 0), f"tokens read must be {n_read}; got {asked}"
        assert is_recorded()
        self.check()
        return got

    def cancel(self, number):
        self.scheduler.cancel(number)
        for each in (self.counted.waiting, self.counted.running):
            if number in each:
                each.remove(number)
        self.counted.requests[number].n_read = 0
        self.check()

    def finish(self):
        for _ in range(400):
            if not self.counted.waiting and not self.counted.running:
                break
            self.step()
        assert self.step() == {}
        assert self.pool.n_free == self.pool.n_blocks
        for mine, other in self.rngs:
            assert mine.random() == other.random(), "as many numbers must be used as alone"


def test_requests_are_served_as_alone(impl, rng):
    run = Run(impl, rng, 20, 4, 3)
    assert run.step() == {}
    for n_ids, n_new in [(3, 4), (1, 1), (9, 2), (2, 6), (4, 4), (1, 9)]:
        run.submit(n_ids, n_new)
    run.finish()
    run.submit(2, 3)  # after a rest
    run.step()
    run.submit(5, 3, {2, 5, 7})
    run.submit(1, 9, [0, 1, 2, 3, 4])
    run.finish()


def test_what_a_scheduler_refuses(impl, rng):
    run = Run(impl, rng, 3, 2, 2)
    for bad in (0, -1, 1.0, "2", None, True):
        battery.refuses(impl.Scheduler, run.model, run.pool, bad)

    def submit(ids, n_new):
        return run.scheduler.submit(impl.Request(ids, n_new, Sampling(), np.random.default_rng(0)))

    for ids in ([], 3, [[1, 2]], [11], [-1], [3, 2**40], [1.0], np.zeros((1, 2), int)):
        battery.refuses(submit, ids, 1)
    for bad in (0, -1, 1.5, None, True):
        battery.refuses(submit, [1, 2], bad)
    for n_ids, n_new in [(7, 1), (1, 7), (4, 4), (2, 100), (100, 1)]:
        battery.refuses(submit, [1] * n_ids, n_new)
    run.check()
    for n_ids, n_new in [(6, 1), (1, 6), (4, 3)]:
        run.submit(n_ids, n_new)
    run.finish()


def test_requests_come_and_go(impl, rng):
    for number in range(6):
        run = Run(impl, rng, 6, 2, 3, window=3 if number % 2 else None)
        gone = set()
        for _ in range(14):
            action = rng.integers(4)
            if action == 0:
                n_ids = int(rng.integers(1, 7))
                run.submit(n_ids, int(rng.integers(1, 13 - n_ids + 1)), {3, 4} if rng.random() < 0.5 else ())
            elif action == 1 and (run.counted.waiting or run.counted.running) and rng.random() < 0.5:
                chosen = int(rng.choice([*run.counted.waiting, *run.counted.running]))
                run.cancel(chosen)
                gone.add(chosen)
            else:
                run.step()
        for each in range(len(run.rngs)):
            if each in gone:  # it drew fewer
                run.rngs[each] = (np.random.default_rng(0), np.random.default_rng(0))
        run.finish()
        for each in [*range(len(run.rngs)), len(run.rngs), -1, 99]:
            battery.refuses(run.scheduler.cancel, each)


def test_schedulers_do_not_know_of_each_other(impl, rng):
    runs = [Run(impl, rng, 5, 2, 2), Run(impl, rng, 5, 2, 2)]
    for n_ids, n_new in [(3, 4), (1, 5), (2, 2)]:
        for run in runs:
            run.submit(n_ids, n_new)
    for _ in range(4):
        for run in runs:
            run.step()
    for run in runs:
        run.finish()


def test_a_model_that_fails_may_be_asked_again(impl, rng):
    run = Run(impl, rng, 4, 2, 2)
    for n_ids, n_new in [(3, 3), (1, 5), (2, 2)]:
        run.submit(n_ids, n_new)
    for _ in range(12):
        run.part.fails = True
        if run.counted.waiting or run.counted.running:
            with pytest.raises(ArithmeticError):
                run.scheduler.step()
        run.part.fails = False
        assert is_recorded()
        run.step()
    run.finish()


def test_requests_in_float32_and_many(impl, rng):
    run = Run(impl, rng, 9, 2, 4, np.float32)
    for n_ids, n_new in [(3, 4), (1, 5), (6, 2), (2, 2)]:
        run.submit(n_ids, n_new, settings=SETTINGS[0])
    run.finish()
    for n in aim.sizes(at_most=70):
        run = Run(impl, rng, 2 * n, 2, n, **{"n_layers": 2, "width": 2, "head_width": 2, "hidden": 1})
        for _ in range(n + 1):
            run.submit(1, 2)
        run.finish()
        run = Run(impl, rng, 2 * n, 1, 2, **{"n_layers": 2, "width": 2, "head_width": 2, "hidden": 1})
        run.submit(n, 3)
        run.submit(2, n)
        run.finish()


# All of it, at last: these take longest ------------------------------------------------------------------


def test_few_blocks(impl, rng):
    """Texts wait for room, and give it back."""
    n_evicted = 0
    for n_blocks, size, n_running in [(4, 3, 3), (5, 2, 9), (8, 1, 4), (2, 6, 2), (3, 4, 1), (6, 2, 3)]:
        run = Run(impl, rng, n_blocks, size, n_running, n_kv_heads=1 + size % 2)
        for _ in range(6):
            n_ids = int(rng.integers(1, n_blocks * size // 2 + 1))
            run.submit(n_ids, int(rng.integers(1, n_blocks * size - n_ids + 2)))
        run.finish()
        n_evicted += run.counted.n_evicted
    assert n_evicted > 5


def test_every_shape(impl, rng):
    for changes in SHAPES:
        model = model_of(rng, **changes)
        pool = impl.BlockPool(model.config, 20, 3)
        pairs = [Pair(impl, model, pool) for _ in range(3)]
        for counts in ([4, 1, 7], [1, 1, 1], [1, 4, 2]):
            together(impl, model, pairs, counts, rng)


def test_many_and_long_texts(impl, rng):
    small = {"width": 2, "hidden": 1, "n_heads": 1, "head_width": 2, "n_layers": 1}
    model = model_of(rng, window=2, **small)
    for n in aim.sizes(70, at_most=300):
        pool = impl.BlockPool(model.config, 2 * n, 2)
        pairs = [Pair(impl, model, pool, 4) for _ in range(n)]
        together(impl, model, pairs, [1 + number % 2 for number in range(n)], rng)
        together(impl, model, pairs, [1] * n, rng)
        together(impl, model, pairs, [1] * n, rng)
    for n in aim.sizes(300, at_most=700):
        for window in (None, n // 3):
            model = model_of(rng, window=window, **small)
            pool = impl.BlockPool(model.config, n, 7)
            pairs = [Pair(impl, model, pool, n + 3) for _ in range(2)]
            together(impl, model, pairs, [n // 2, n], rng)
            together(impl, model, pairs, [1, 3], rng)


def test_another_machine_and_day_change_nothing(impl, rng):
    model = model_of(rng)

    def everything():
        pool = impl.BlockPool(model.config, 6, 2)
        scheduler = impl.Scheduler(model, pool, 2)
        for ids in ([3, 1], [4], [1, 5, 2]):
            scheduler.submit(impl.Request(ids, 5, Sampling(1.5), np.random.default_rng(3)))
        return [scheduler.step() for _ in range(20)]

    before = everything()
    with elsewhere(impl):
        assert everything() == before


def test_blocks_are_numbers_and_the_list_of_them_is_not_changed(impl):
    pool = impl.BlockPool(LlamaConfig(**SMALL), 4, 2)
    blocks = sorted(pool.take(3), reverse=True)
    for wrong in ([blocks[0] + 0.5], ["0"], [None]):
        battery.refuses(pool.give_back, wrong)
        assert pool.n_free == 1
    given = list(blocks)
    pool.give_back(given)
    assert (given, pool.n_free) == (blocks, 4)
