"""Oracles: the model on the whole text, also with keys and values rounded; tokens drawn without a cache."""

import itertools
import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.sampling import Sampling, generate
from techtree.techs.transformer.gpt import greedy
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.mha import merge_heads, split_heads
from techtree.techs.transformer.rope import RopeScaling, rotate, rotation

SMALL = {"n_tokens": 11, "width": 6, "hidden": 5, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1}
"""Heads of width 4 take 8 of 6 numbers: nothing is as wide as anything else."""
SMALL |= {"head_width": 4}
SHAPES = {
    "the plainest": {},
    "one head, untied": {"n_heads": 1, "is_tied": False},
    "as many heads of keys": {"n_kv_heads": 2},
    "six heads, three of keys, norms": {"n_heads": 6, "n_kv_heads": 3, "has_head_norms": True},
    "the head width left out": {"width": 8, "head_width": None},
    "biases": {"has_qkv_bias": True},
    "norms of heads, a large eps": {"has_head_norms": True, "eps": 0.5},
    "biases and norms of heads": {"has_qkv_bias": True, "has_head_norms": True, "n_kv_heads": 2},
    "a window of one": {"window": 1, "is_tied": False},
    "a window of two": {"window": 2, "n_layers": 3},
    "a window of four": {"window": 4, "n_heads": 4, "n_kv_heads": 2},
    "a wide window": {"window": 100},
    "a small base": {"base": 3.0, "head_width": 6},
    "scaled linearly": {"scaling": RopeScaling("linear", 4.0)},
    "scaled like Llama 3": {
        "scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 16),
        "head_width": 8,
        "base": 20.0,
    },
    "five layers": {"n_layers": 5, "width": 3, "hidden": 2, "head_width": 2},
    "one token": {"n_tokens": 1},
}


def model_of(rng, dtype=np.float64, make_feed_forward=None, sharp=1.0, **changes):
    """A model whose parameters are all of their size, norms and biases too."""
    model = Llama(LlamaConfig(**(SMALL | changes)), rng, make_feed_forward, dtype)
    state = {}
    for name, each in model.named_parameters():
        spread = 1 if each.ndim == 1 else 1 / math.sqrt(each.shape[-1])
        spread *= sharp if ".query.weight" in name else 1
        state[name] = (spread * rng.normal(size=each.shape) + (0.5 if "norm" in name else 0)).astype(dtype)
    model.load_state_dict(state)
    return model


def slow(model, ids, dtype=np.float64):
    """Read a whole text; return logits, keys and values, both rounded to the dtype before they are used."""
    config, n = model.config, len(ids)
    apart = np.arange(n)[:, None] - np.arange(n)
    mask = (apart >= 0) & (apart < (config.window or n + 1))
    keys, values = [], []
    with no_grad():
        x = model.token_embedding(np.asarray(ids))
        for block in model.blocks:
            part, y = block.attention, block.attention_norm(x)
            q = split_heads(part.query(y), config.n_heads)
            k, v = (split_heads(each(y), config.n_kv_heads) for each in (part.key, part.value))
            if config.has_head_norms:
                q, k = part.query_norm(q), part.key_norm(k)
            turn = rotation(np.arange(n), config.head_width, config.base, config.scaling)
            keys.append(rotate(k, *turn).data.astype(dtype))
            values.append(v.data.astype(dtype))
            kept = [Tensor(each[-1].astype(x.dtype)) for each in (keys, values)]
            x = x + part.output(merge_heads(grouped_attention(rotate(q, *turn), *kept, mask)))
            x = x + block.feed_forward(block.feed_forward_norm(x))
        x = model.norm(x)
        logits = model.token_embedding.unembed(x) if model.head is None else model.head(x)
    return logits.data, np.array(keys), np.array(values)


def close(got, expected, label, unit=None):
    """Rounding in some hundred operations on numbers of about the largest one's size."""
    size = 1 + 4 * np.abs(expected.astype(np.float64)).max(initial=0)
    ulps = 200 if unit is None else 200 * max(1.0, unit / np.finfo(expected.dtype).eps)
    battery.check_equal(got, expected, ulps, size, expected.dtype, label)


def spoil(cache):
    """What stands behind the text means nothing."""
    for each, value in ((cache.keys, math.nan), (cache.values, math.inf)):
        each[:, :, cache.length :] = value


def check_text(impl, model, ids, cuts, label, dtype=np.float64, cache=None, known=None, unit=None):
    """Read a text in pieces; compare logits, and what is kept, with the whole text; return the cache."""
    cache = cache or impl.KVCache(model.config, len(ids) + len(cuts) % 2, dtype)
    expected, keys, values = known or slow(model, ids, cache.keys.dtype)
    told = f"{label}, cut into {np.diff(cuts).tolist()} after {cuts[0]}"
    for start, end in itertools.pairwise(cuts):
        spoil(cache)
        got = impl.extend(model, cache, ids[start:end])
        assert isinstance(got, np.ndarray), told
        close(got, expected[start:end], told, unit)
        assert cache.length == end, told
    n = cuts[-1]
    close(cache.keys[:, :, :n], keys[:, :, :n], f"{told}: keys", unit)
    close(cache.values[:, :, :n], values[:, :, :n], f"{told}: values", unit)
    return cache


def is_recorded():
    return (Tensor([1.0], requires_grad=True) * 2).requires_grad


class Part(Module):
    """A feed-forward part that remembers what it was asked, and fails when it is told to."""

    def __init__(self, factor=0.25):
        self.factor, self.asked, self.fails = factor, [], False

    def forward(self, x):
        if self.fails:
            raise ArithmeticError("told to fail")
        self.asked.append((x.shape, is_recorded()))
        return x * self.factor


# The cache -----------------------------------------------------------------------------------------------


def test_a_cache_holds_what_it_should(impl, rng):
    for changes, shape in [({}, (2, 1, 4)), ({"n_layers": 3, "n_heads": 4, "n_kv_heads": 2}, (3, 2, 4))]:
        config = LlamaConfig(**(SMALL | changes))
        for n in (1, 7, 300):
            for dtype in (None, *battery.FLOATS):
                given = (config, n) if dtype is None else (config, n, dtype)
                cache = impl.KVCache(*given)
                for each in (cache.keys, cache.values):
                    assert each.shape == (*shape[:2], n, shape[2])
                    assert each.dtype == (dtype or np.float64)
                assert (cache.config, cache.max_len, cache.length) == (config, n, 0)
                assert not np.shares_memory(cache.keys, cache.values)
    one, other = (impl.KVCache(config=config, max_len=5, dtype=np.float32) for _ in range(2))
    assert not np.shares_memory(one.keys, other.keys)
    for bad in (0, -1, -7, 1.0, 2.5, "3", None, True, False):
        battery.refuses(impl.KVCache, config, bad)


def test_tokens_are_forgotten(impl, rng):
    model = model_of(rng)
    ids = rng.integers(11, size=9)
    cache = impl.KVCache(model.config, 9)
    held = cache.keys, cache.values
    for bad in (-1, 1, 9):
        battery.refuses(cache.truncate, bad)
    cache.truncate(0)
    check_text(impl, model, ids, [0, 6], "before", cache=cache)
    for bad in (-1, -6, 7, 9, 10):
        battery.refuses(cache.truncate, bad)
        assert cache.length == 6
    check_text(impl, model, ids, [6, 8], "after errors", cache=cache)
    for length in (8, 5, 5, 3):
        cache.truncate(length)
        assert cache.length == length
        close(cache.keys[:, :, :length], slow(model, ids)[1][:, :, :length], "what is left")
        other = np.concatenate([ids[:length], (ids[length:] + 3) % 11])
        check_text(impl, model, other, sorted({length, 8, 9}), "another", cache=cache)
        cache.truncate(length)
        check_text(impl, model, ids, [length, 9], f"the first text after {length}", cache=cache)
    cache.truncate(0)
    check_text(impl, model, ids[::-1].copy(), [0, 2, 9], "from the beginning", cache=cache)
    assert cache.keys is held[0]
    assert cache.values is held[1]


# More tokens ---------------------------------------------------------------------------------------------


def test_texts_beside_each_other(impl, rng):
    models = [model_of(rng), model_of(rng, n_kv_heads=2, window=2)]
    texts = [(model, rng.integers(11, size=8)) for model in models for _ in range(2)]
    caches = [impl.KVCache(model.config, 8) for model, _ in texts]
    for start, end in [(0, 3), (3, 4), (4, 8)]:
        for (model, ids), cache in zip(texts, caches, strict=True):
            check_text(impl, model, ids, [start, end], "four texts in turn", cache=cache)
    # Of two models with one shape, each reads its own weights, those of now.
    model, ids = texts[0]
    for number in range(3):
        for each in model.parameters():
            each.data += 0.1 * rng.normal(size=each.shape)
        check_text(impl, model, ids, [0, 5, 8], f"weights changed {number} times")


def test_a_copy_goes_on(impl, rng):
    for changes in ({"window": 3, "n_kv_heads": 2}, {"has_head_norms": True}):
        model, ids = model_of(rng, **changes), rng.integers(11, size=9)
        expected = slow(model, ids)[0]
        cache = check_text(impl, model, ids, [0, 4, 6], "what is copied")
        for length, room in [(6, 9), (3, 20), (0, 9)]:
            copy = impl.KVCache(model.config, room)
            spoil(copy)
            for each, held in [(copy.keys, cache.keys), (copy.values, cache.values)]:
                each[:, :, :length] = held[:, :, :length]
            copy.length = length
            for start, end in [(length, 7), (7, 9)]:
                close(impl.extend(model, copy, ids[start:end]), expected[start:end], f"a copy of {length}")
        assert cache.length == 6
    # And nothing else is: with the keys and values of another text, a cache holds that one.
    other = check_text(impl, model, ids[::-1].copy(), [0, 6], "another text")
    cache.keys[:, :, :6], cache.values[:, :, :6] = other.keys[:, :, :6], other.values[:, :, :6]
    cache.truncate(4)
    check_text(impl, model, ids[::-1].copy(), [4, 6], "exchanged", cache=cache)


def test_answers_are_new(impl, rng):
    model, ids = model_of(rng), rng.integers(11, size=4)
    cache = impl.KVCache(model.config, 9)
    first = impl.extend(model, cache, ids)
    kept = first.copy()
    second = impl.extend(model, cache, ids)
    assert np.array_equal(first, kept)
    first[...] = second[...] = 0
    assert first.flags.writeable
    assert not any(np.shares_memory(each, p.data) for each in (first, second) for p in model.parameters())
    got = impl.extend(model, cache, ids[:1])
    close(got, model(np.array([*ids, *ids, ids[0]])).data[-1:], "answers that were changed")


def test_ids_of_all_kinds(impl, rng):
    model = model_of(rng, n_tokens=300)
    ids = np.array([255, 3, 130, 127, 0])
    expected = model(ids).data
    given = [ids.tolist(), tuple(ids.tolist()), *(lay(ids) for lay in battery.LAYOUTS.values())]
    given += [ids.astype(kind) for kind in battery.INTEGERS[:-1] if np.array_equal(ids.astype(kind), ids)]
    for each in given:
        cache, kept = impl.KVCache(model.config, 5), np.array(each)
        want = expected if np.array_equal(kept, ids) else model(kept).data
        close(impl.extend(model, cache, each[:2]), want[:2], f"{type(each)} {kept.dtype}")
        close(impl.extend(model, cache, each[2:]), want[2:], f"{type(each)} {kept.dtype}")
        assert np.array_equal(each, kept)


def test_a_large_vocabulary(impl, rng):
    model = model_of(rng, n_tokens=70_001, width=2, n_layers=1)
    ids = np.array([70_000, 40_000, 3])
    check_text(impl, model, ids, [0, 1, 3], "ids beyond 16 bits")
    battery.refuses(impl.extend, model, impl.KVCache(model.config, 3), [3, 70_001])


def test_dtypes(impl, rng):
    for dtype, kept in itertools.product(battery.FLOATS, battery.FLOATS):
        model = model_of(rng, dtype, has_qkv_bias=True, n_kv_heads=2)
        ids = rng.integers(11, size=6)
        label = f"a model of {np.dtype(dtype).name}, a cache of {np.dtype(kept).name}"
        # Where both round, a number in the middle may go either way: the coarser one's rounding is free.
        unit = max(np.finfo(each).eps for each in (dtype, kept)) / (100 if dtype == np.float32 else 1)
        unit = max(unit, np.finfo(dtype).eps) if dtype != np.float64 else None
        for cuts in ([0, 6], [0, 4, 5, 6]):
            check_text(impl, model, ids, cuts, label, kept, unit=unit)


def test_feed_forward_parts_of_any_kind(impl, rng):
    parts = [Part(0.5), Part(-0.25)]
    model = model_of(rng, make_feed_forward=parts.__getitem__)
    ids = rng.integers(11, size=8)
    expected = model(ids).data
    for part in parts:
        part.asked.clear()
    cache = impl.KVCache(model.config, 8)
    for start, end in [(0, 4), (4, 5), (5, 8)]:
        close(impl.extend(model, cache, ids[start:end]), expected[start:end], "parts of another kind")
        for part in parts:
            assert [int(np.prod(shape[:-1])) for shape, _ in part.asked] == [end - start]
            assert not any(recorded for _, recorded in part.asked)
            part.asked.clear()
    assert is_recorded()
    with no_grad():
        cache.truncate(7)
        impl.extend(model, cache, ids[7:])
        assert not is_recorded()
    assert all(each.grad is None for each in model.parameters())


def test_errors_change_nothing(impl, rng):
    parts = [Part(), Part()]
    model = model_of(rng, make_feed_forward=parts.__getitem__)
    ids = rng.integers(11, size=9)
    cache = check_text(impl, model, ids, [0, 4], "before", cache=impl.KVCache(model.config, 9))
    more = impl.KVCache(LlamaConfig(**(SMALL | {"window": 3})), 9)

    def check(call, *arguments, error=ValueError):
        kept = cache.keys[:, :, :4].copy(), cache.values[:, :, :4].copy()
        battery.refuses(call, model, *arguments, error=error)
        assert cache.length == 4
        assert np.array_equal(cache.keys[:, :, :4], kept[0])
        assert np.array_equal(cache.values[:, :, :4], kept[1])
        assert is_recorded()

    for bad in (
        [],
        (),
        np.zeros(0, int),
        3,
        np.array(3),
        [[1, 2]],
        np.zeros((1, 1), int),
        np.zeros((0, 2), int),
    ):
        check(impl.extend, cache, bad)
    for bad in ([11], [-1], [1, 2, 11], [-11, 0], [2**40], [1.0], [0.5], np.array([2.0, 3.0]), [True]):
        check(impl.extend, cache, bad)
    for n in (6, 7, 100):
        check(impl.extend, cache, [1] * n)
    for part in reversed(parts):
        part.fails = True
        check(impl.extend, cache, ids[4:6], error=ArithmeticError)
        part.fails = False
    another = {"n_tokens": 12, "width": 8, "hidden": 6, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2}
    another |= {"head_width": 2, "base": 9.0, "scaling": RopeScaling("linear", 2.0), "eps": 0.1}
    another |= {"is_tied": False, "has_qkv_bias": True, "has_head_norms": True, "window": 3}
    for changes in ({name: value} for name, value in another.items()):
        other = impl.KVCache(LlamaConfig(**(SMALL | changes)), 9)
        check(impl.extend, other, ids[:2])
        assert other.length == 0
    assert more.length == 0
    check_text(impl, model, ids, [4, 6, 9], "after errors", cache=cache)
    battery.refuses(impl.extend, model, cache, [1])
    equal = impl.KVCache(LlamaConfig(**SMALL), 9)  # another object, the same shape
    check_text(impl, model, ids, [0, 9], "an equal config", cache=equal)


def test_scores_of_any_size(impl, rng):
    for sharp, unit in [(1e3, 1e-12), (1e12, 1e-12), *((10 * each, 1e-12) for each in aim.NUMBERS)]:
        if sharp < 1e100:
            model = model_of(rng, sharp=sharp, n_layers=1)
            ids = rng.integers(11, size=9)
            check_text(impl, model, ids, [0, 4, 5, 9], f"scores of about {sharp:g}", unit=unit)


def test_far_positions(impl, rng):
    """After tokens that nobody read: their keys and values are as good as any."""
    model = model_of(rng, n_heads=1, head_width=2, n_layers=1, is_tied=False)
    part, ids = model.blocks[0].attention, [3, 7]
    for n in aim.sizes(2100, 33_000, 66_000, at_most=150_000):
        cache = impl.KVCache(model.config, n + 2)
        for each in (cache.keys, cache.values):
            each[...] = rng.normal(size=each.shape)
        cache.length = n
        held = cache.keys[0, 0].copy(), cache.values[0, 0].copy()
        got = impl.extend(model, cache, ids)
        x = model.token_embedding(np.array(ids))
        y = model.blocks[0].attention_norm(x)
        turn = rotation(np.array([n, n + 1]), 2)
        q, k = (rotate(each(y), *turn).data for each in (part.query, part.key))
        held[0][n:], held[1][n:] = k, part.value(y).data
        scores = q @ held[0].T / math.sqrt(2)
        scores[0, -1] = -math.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed = weights / weights.sum(axis=1, keepdims=True) @ held[1]
        x = x + part.output(Tensor(mixed))
        x = x + model.blocks[0].feed_forward(model.blocks[0].feed_forward_norm(x))
        close(got, model.head(model.norm(x)).data, f"after {n} tokens", unit=1e-13)
        close(cache.keys[0, 0, n:], k, f"the keys after {n} tokens")


def test_long_texts(impl, rng):
    small = {"width": 2, "hidden": 1, "n_heads": 1, "head_width": 2, "n_layers": 1}
    for n in aim.sizes(33, 300, at_most=700):
        for window in (None, n // 3):
            model = model_of(rng, window=window, **small)
            ids = rng.integers(11, size=n)
            cuts, told = [0, n // 2, n // 2 + 1, n - 1, n], f"{n} tokens, window {window}"
            cache = check_text(impl, model, ids.astype(np.int8), cuts, told)
            for _ in range(cache.max_len - n):
                impl.extend(model, cache, [1])
            battery.refuses(impl.extend, model, cache, [1])
    for n in aim.sizes(at_most=24):
        model = model_of(rng, **(small | {"n_layers": n}))
        check_text(impl, model, rng.integers(11, size=4), [0, 3, 4], f"{n} layers")
        model = model_of(rng, **(small | {"n_heads": 2 * n, "n_kv_heads": n}))
        check_text(impl, model, rng.integers(11, size=4), [0, 3, 4], f"{n} key heads")
    for n in aim.sizes(at_most=3000):
        cache = impl.KVCache(LlamaConfig(**(SMALL | small)), n)
        assert (cache.max_len, cache.keys.shape[2]) == (n, n)


# A text --------------------------------------------------------------------------------------------------


SETTINGS = (
    Sampling(),
    Sampling(temperature=0.0),
    Sampling(temperature=2.0, top_p=1.0, min_p=0.0),
    Sampling(temperature=1.5, top_k=4, repetition=1.3, presence=0.5, frequency=0.25),
    Sampling(temperature=0.0, frequency=2.0),
)


def test_the_same_tokens_as_without_a_cache(impl, rng):
    shapes = ({}, {"window": 2}, {"has_head_norms": True, "n_kv_heads": 2}, {"n_layers": 1}, {"base": 3.0})
    for number, (settings, changes) in enumerate(zip(SETTINGS, shapes, strict=True)):
        model = model_of(rng, **changes)
        ids = rng.integers(11, size=(1, 4, 9)[number % 3])
        given = ids.tolist() if number % 2 else ids
        for n_new, stop in [(1, ()), (6, ()), (9, {2, 5, 7})]:
            one, other = np.random.default_rng(number), np.random.default_rng(number)
            expected = list(generate(model, ids, n_new, settings, one, stop))
            got = list(impl.generate_cached(model, given, n_new, settings, other, stop))
            assert got == expected, f"{settings}, {changes}, ids {ids.tolist()}, stop {stop}"
            assert all(type(each) is int for each in got)
            assert one.random() == other.random(), "as many numbers must be used"
            assert np.array_equal(given, ids)


def test_each_token_is_read_once(impl, rng):
    parts = [Part(), Part()]
    model = model_of(rng, make_feed_forward=parts.__getitem__)

    def asked():
        found = [[int(np.prod(shape[:-1])) for shape, _ in each.asked] for each in parts]
        assert found[0] == found[1]
        assert not any(recorded for each in parts for _, recorded in each.asked)
        return found[0]

    ids = [3, 1, 4, 1]
    hot = Sampling(temperature=2.0, top_p=1.0, min_p=0.0, presence=1.0)
    expected = list(generate(model, ids, 5, hot, np.random.default_rng(2)))
    for each in parts:
        each.asked.clear()
    tokens = iter(impl.generate_cached(model, ids, 5, hot, np.random.default_rng(2)))
    try:
        assert asked() == []
        got = [next(tokens)]
        assert asked() == [4]
        assert is_recorded()
        ids[:] = [0, 0]
        got += [next(tokens), next(tokens)]
        assert asked() == [4, 1, 1]
        with no_grad():
            got.append(next(tokens))
            assert not is_recorded()
        assert is_recorded()
        got += list(tokens)
    finally:  # One that left gradients off must not leave them off for others.
        getattr(tokens, "close", list)()
    assert got == expected
    assert asked() == [4, 1, 1, 1, 1]
    for each in parts:
        each.asked.clear()
    again = list(impl.generate_cached(model, [3, 1, 4, 1], 5, hot, np.random.default_rng(2), {expected[2]}))
    first = expected.index(expected[2])
    assert again == expected[:first]
    assert asked() == [4, *[1] * first]
    for each in parts:
        each.asked.clear()
    assert list(impl.generate_cached(model, [3], 0, hot, np.random.default_rng(2))) == []
    assert asked() == []
    for n in aim.sizes(33, at_most=1100):
        for each in parts:
            each.asked.clear()
        next(iter(impl.generate_cached(model, rng.integers(11, size=n), 1, hot, np.random.default_rng(2))))
        assert asked() == [n]


def test_texts_do_not_know_of_each_other(impl, rng):
    model, settings = model_of(rng), Sampling(temperature=1.5)
    starts = [3, 1], [4, 1, 5]
    expected = [list(generate(model, ids, 6, settings, np.random.default_rng(7))) for ids in starts]
    tokens = [iter(impl.generate_cached(model, ids, 6, settings, np.random.default_rng(7))) for ids in starts]
    got = [[next(each) for each in tokens] for _ in range(6)]
    assert [list(each) for each in zip(*got, strict=True)] == expected


def test_cold_texts_of_every_dtype(impl, rng):
    for dtype in battery.FLOATS[1:]:
        model = model_of(rng, dtype)
        for n_ids in (1, 5):
            ids = rng.integers(11, size=n_ids)
            got = impl.generate_cached(model, ids, 5, Sampling(0.0), rng)
            assert list(got) == greedy(model, ids, 5)
    model = model_of(rng, np.float16)
    assert len(list(impl.generate_cached(model, [1], 3, Sampling(), rng))) == 3
    for n in aim.sizes(33, at_most=200):
        model = model_of(rng, n_layers=1)
        ids, one, other = rng.integers(11, size=n), np.random.default_rng(n), np.random.default_rng(n)
        counted = Sampling(2.0, min_p=0.0, frequency=0.3)
        got = list(impl.generate_cached(model, ids, 9, counted, one))
        assert got == list(generate(model, ids, 9, counted, other))
        got = list(impl.generate_cached(model, [4], n, Sampling(1.2), one))
        assert got == list(generate(model, [4], n, Sampling(1.2), other))


def test_the_cache_of_a_text_is_no_wider_than_the_model(impl, rng):
    n_new = 20_000
    for dtype in battery.FLOATS[:2]:
        model = model_of(rng, dtype, n_layers=3, n_kv_heads=2)
        tokens = iter(impl.generate_cached(model, [3, 1], n_new, Sampling(0.0), rng))
        needed = 2 * 3 * 2 * 4 * n_new * np.dtype(dtype).itemsize
        assert battery.peak_bytes(lambda tokens=tokens: next(tokens)) < 1.5 * needed


def test_what_texts_refuse(impl, rng):
    model = model_of(rng)

    def text(ids, n_new):
        return list(impl.generate_cached(model, ids, n_new, Sampling(), np.random.default_rng(0)))

    for ids in ([], (), np.zeros(0, int)):
        for n in (0, 3):
            battery.refuses(text, ids, n)
    for n in (-1, -5):
        battery.refuses(text, [1], n)
        battery.refuses(text, [1] * 7, n)
    for ids in ([11], [3, -1]):
        battery.refuses(text, ids, 2)
    assert is_recorded()


# All of it, at last: these take longest ------------------------------------------------------------------


def test_every_shape_in_every_piece(impl, rng):
    for label, changes in SHAPES.items():
        model = model_of(rng, **changes)
        ids = rng.integers(model.config.n_tokens, size=7)
        whole, known = model(ids).data, slow(model, ids)
        close(known[0], whole, "the definition here")
        for cuts in ([0, 7], range(8), [0, 3, 4, 7]):
            cache = check_text(impl, model, ids, list(cuts), label, known=known)
        cache.truncate(2)
        close(impl.extend(model, cache, ids[2:]), whole[2:], label)


def test_all_cuts_of_a_text(impl, rng):
    for changes in ({"window": 3, "n_kv_heads": 2}, {"has_head_norms": True}):
        model = model_of(rng, **changes)
        ids = rng.integers(11, size=5)
        known = slow(model, ids)
        for n in range(5):
            for inner in itertools.combinations(range(1, 5), n):
                check_text(impl, model, ids, [0, *inner, 5], f"{changes}", known=known)


def test_another_machine_and_day_change_nothing(impl, rng):
    model = model_of(rng)

    def everything():
        cache = impl.KVCache(model.config, 9)
        logits = [impl.extend(model, cache, ids).tolist() for ids in ([3, 1, 4], [1])]
        return logits, list(impl.generate_cached(model, [2], 5, Sampling(), np.random.default_rng(0)))

    before = everything()
    with elsewhere(impl):
        assert everything() == before
