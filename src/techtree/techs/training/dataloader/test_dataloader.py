"""Oracles: every example once, counted; all orders equally often, by chi-square; the order itself is free."""

import itertools
import math
import time

import numpy as np
import pytest

SHAPES = [(1, 1), (2, 1), (7, 1), (7, 2), (7, 3), (8, 4), (7, 7), (10, 9), (130, 33), (300, 128)]
"""Numbers of examples, and sizes of batches."""


def orders(loader, numbers):
    """The order of the examples in some epochs, as tuples; with ``keep_last`` all of them are in it."""
    return [tuple(np.concatenate(list(loader.epoch(number))).tolist()) for number in numbers]


def take(stream, n):
    return [stream.next_batch().tolist() for _ in range(n)]


def chi_square(counts, n_kinds):
    """How far counts are from equal ones: about ``n_kinds - 1``, give or take ``sqrt(2 n_kinds)``."""
    n = sum(counts.values())
    expected = n / n_kinds
    return (
        sum((count - expected) ** 2 for count in counts.values()) / expected
        + (n_kinds - len(counts)) * expected
    )


def count(things):
    found = {}
    for each in things:
        found[each] = found.get(each, 0) + 1
    return found


# Chi-square with k degrees of freedom exceeds these once in 10^9 samples.
LIMIT = {5: 50.8, 23: 94.2, 35: 116.3}


# Batches of an epoch.


def test_an_epoch_has_every_example_once(impl):
    for n, size in SHAPES:
        loader = impl.DataLoader(n, size, 3, keep_last=True)
        for number in (0, 1, 5):
            batches = list(loader.epoch(number))
            assert [len(batch) for batch in batches] == [size] * (n // size) + [n % size] * (n % size > 0)
            assert sorted(np.concatenate(batches).tolist()) == list(range(n))
            assert loader.n_batches == len(batches)


def test_a_later_epoch_costs_no_more_than_the_first(impl):
    """CPU time, the least of several: whoever goes through the earlier ones takes 1,000 times as long."""

    def cost(number):
        loader = impl.DataLoader(100, 100, 0)
        least = math.inf
        for _ in range(5):
            start = time.process_time()
            list(loader.epoch(number))
            least = min(least, time.process_time() - start)
        return max(least, 2e-5)

    assert cost(1000) < 30 * cost(0)
    assert len(list(impl.DataLoader(5, 2, 0).epoch(10**12))) == 2


def test_what_is_left_over_is_left_out(impl):
    for n, size in SHAPES:
        loader = impl.DataLoader(n, size, 3)
        batches = list(loader.epoch(2))
        assert [len(batch) for batch in batches] == [size] * (n // size)
        assert loader.n_batches == n // size
        found = np.concatenate(batches).tolist()
        assert len(set(found)) == len(found)
        assert set(found) <= set(range(n))
    loader = impl.DataLoader(7, 3, 0, False)
    left_out = {*range(7)}.difference
    assert len({tuple(left_out(*map(list, loader.epoch(number)))) for number in range(150)}) == 7


def test_batches_are_new_arrays_of_int64(impl):
    loader = impl.DataLoader(7, 3, 1, True)
    expected = [batch.tolist() for batch in loader.epoch(4)]
    for batch in loader.epoch(4):
        assert type(batch) is np.ndarray
        assert (batch.dtype, batch.ndim) == (np.int64, 1)
        batch[...] = -1
    batches = list(loader.epoch(4))
    assert [batch.tolist() for batch in batches] == expected
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(batches, 2))
    batches[0][...] = -1
    assert [batch.tolist() for batch in batches[1:]] == expected[1:]
    assert [batch.tolist() for batch in loader.epoch(4)] == expected


def test_attributes_are_as_given(impl):
    loader = impl.DataLoader(7, 3, 11, True)
    assert (loader.n_examples, loader.batch_size, loader.seed, loader.keep_last) == (7, 3, 11, True)
    loader = impl.DataLoader(n_examples=7, batch_size=3, seed=11)
    assert (loader.n_examples, loader.batch_size, loader.seed, loader.keep_last) == (7, 3, 11, False)
    assert [len(batch) for batch in loader.epoch(number=0)] == [3, 3]


def test_numbers_out_of_range(impl):
    wrong = [(0, 1, 0), (-1, 1, 0), (5, 0, 0), (5, -1, 0), (5, 1, -1), (5, 1, 2**63), (5, 6, 0), (0, 0, 0)]
    for arguments in wrong:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.DataLoader(*arguments)
    for arguments in [*wrong[:-2], (0, 1, 0), (0, 7, 0)]:
        with pytest.raises(ValueError):  # noqa: PT011
            impl.DataLoader(*arguments, keep_last=True)
    assert [batch.tolist() for batch in impl.DataLoader(1, 9, 0, keep_last=True).epoch(0)] == [[0]]
    assert len(list(impl.DataLoader(5, 5, 2**63 - 1).epoch(0))) == 1
    assert len(list(impl.DataLoader(5, 6, 0, keep_last=True).epoch(3))) == 1
    for number in (-1, -(10**9)):
        with pytest.raises(ValueError):  # noqa: PT011
            list(impl.DataLoader(5, 2, 0).epoch(number))


# The order.


def test_the_order_depends_on_examples_seed_and_number_alone(impl):
    expected = orders(impl.DataLoader(60, 60, 5), [3])[0]
    for size, keep_last in itertools.product([1, 7, 30, 59, 60], [True, False]):
        loader = impl.DataLoader(60, size, 5, keep_last)
        for _ in range(2):
            assert orders(loader, [3])[0] == expected[: 60 if keep_last else 60 // size * size]
        list(loader.epoch(0))
        next(iter(loader.epoch(9)))
        assert orders(loader, [3])[0][:size] == expected[:size]
    one, other = loader.epoch(3), loader.epoch(3)
    first = next(one)
    assert np.array_equal(first, next(other))
    assert orders(impl.DataLoader(60, 60, np.int64(5)), [np.int64(3)])[0] == expected


def test_each_number_and_each_seed_has_an_order_of_its_own(impl):
    """Seeds and numbers that careless mixing confuses: equal sums and products, digits that run together."""
    seeds, numbers = (
        [0, 1, 2, 3, 10, 11, 12, 101, 110, 2**31, 2**32, 2**62],
        [*range(13), 101, 110, 1010],
    )
    found = [orders(impl.DataLoader(40, 8, seed), numbers) for seed in seeds]
    assert len({each for one in found for each in one}) == len(seeds) * len(numbers)
    turned = {tuple(np.roll(each, -each.index(0)).tolist()) for one in found for each in one}
    assert len(turned) == len(seeds) * len(numbers)


def test_many_examples_are_mixed_thoroughly(impl):
    n = 2000
    places = np.arange(n)
    for seed in range(3):
        for order in orders(impl.DataLoader(n, n, seed), range(3)):
            assert abs(np.corrcoef(places, order)[0, 1]) < 6 / math.sqrt(n)
            steps = np.diff(order)
            assert (np.abs(steps) <= 2).sum() < 25  # neighbours that stay so: about 4
            assert abs((steps > 0).mean() - 0.5) < 6 / math.sqrt(12 * n)


def test_the_order_does_not_depend_on_the_process(impl, monkeypatch):
    """Python salts `hash` of a string anew in each process, and `id` is an address."""
    before = orders(impl.DataLoader(20, 4, 3), [2])
    for name in ("hash", "id"):
        for function in (impl.DataLoader.epoch, impl.DataLoader.__init__, impl.shuffled):
            monkeypatch.setitem(function.__globals__, name, lambda _: 12345)
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert orders(impl.DataLoader(20, 4, 3), [2]) == before
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


# The shuffle.


def test_a_shuffle_has_each_number_once(impl):
    for n in (0, 1, 2, 3, 7, 33, 130, 300, 70_000):
        order = impl.shuffled(n, np.random.default_rng(1))
        assert type(order) is np.ndarray
        assert (order.dtype, order.shape) == (np.int64, (n,))
        assert np.array_equal(np.sort(order), np.arange(n))
        if (
            n > 100
        ):  # half of the steps go up; more do where keys of few bits are sorted, and ties stay in order
            assert abs((np.diff(order) > 0).mean() - 0.5) < 6 / math.sqrt(12 * n)


def test_a_shuffle_of_many_leaves_about_one_in_its_place(impl, rng):
    """The number that stay is near 1 on average for every n, with a spread of 1."""
    n, n_times = 200, 400
    stay = [int((impl.shuffled(n, rng) == np.arange(n)).sum()) for _ in range(n_times)]
    assert abs(np.mean(stay) - 1) < 6 / math.sqrt(n_times)
    found = np.array([impl.shuffled(n, rng) for _ in range(n_times)])
    # The mean of each place over the shuffles: (n - 1) / 2 with a spread of n / sqrt(12 n_times).
    assert np.abs(found.mean(axis=0) - (n - 1) / 2).max() < 6 * n / math.sqrt(12 * n_times)
    halves = (found[:, : n // 2] < n // 2).sum(axis=1)
    assert abs(halves.mean() - n / 4) < 6 * math.sqrt(n / 16 / n_times)


def test_the_randomness_of_a_shuffle_is_that_of_its_generator(impl):
    def shuffles(make):
        rng = make()
        return [impl.shuffled(30, rng).tolist() for _ in range(3)]

    for make in (
        lambda: np.random.default_rng(7),
        lambda: np.random.Generator(np.random.Philox(7)),
        lambda: np.random.default_rng(8),
    ):
        first = shuffles(make)
        assert shuffles(make) == first
        assert len({tuple(each) for each in first}) == 3
    assert shuffles(lambda: np.random.default_rng(7)) != shuffles(lambda: np.random.default_rng(8))
    rng = np.random.default_rng(7)
    impl.shuffled(30, rng)
    assert rng.bit_generator.state != np.random.default_rng(7).bit_generator.state
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    impl.shuffled(30, rng)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


# The stream.


def test_a_stream_goes_through_the_epochs(impl):
    for n, size in SHAPES[2:8]:
        for keep_last in (False, True):
            loader = impl.DataLoader(n, size, 3, keep_last)
            stream = impl.BatchStream(loader)
            expected = [batch.tolist() for number in range(4) for batch in loader.epoch(number)]
            assert take(stream, len(expected)) == expected


def test_batches_of_a_stream_are_new_arrays(impl):
    loader = impl.DataLoader(6, 2, 3)
    stream, other = impl.BatchStream(loader), impl.BatchStream(loader)
    expected = take(other, 7)
    for batch in expected:
        got = stream.next_batch()
        assert (type(got), got.dtype, got.shape) == (np.ndarray, np.int64, (2,))
        assert got.tolist() == batch
        got[...] = -1
    assert [batch.tolist() for batch in loader.epoch(0)] == expected[:3]
    again = impl.BatchStream(loader)
    kept = [again.next_batch() for _ in expected]
    assert [batch.tolist() for batch in kept] == expected


def test_streams_do_not_disturb_each_other(impl):
    loader = impl.DataLoader(7, 2, 3)
    alone = take(impl.BatchStream(loader), 8)
    one, other = impl.BatchStream(loader), impl.BatchStream(loader)
    found = []
    for n in range(8):
        found += take(one, 1)
        list(loader.epoch(n))
        take(other, 2)
        other.load_state_dict(one.state_dict() if n % 2 else other.state_dict())
        impl.BatchStream(impl.DataLoader(7, 2, n))
    assert found == alone


def test_a_stream_goes_on_where_another_stood(impl):
    """At every place: before the first batch, inside epochs, at their ends."""
    for n, size, keep_last in [
        (7, 2, False),
        (7, 2, True),
        (6, 2, False),
        (5, 5, False),
        (3, 9, True),
        (4, 1, True),
    ]:
        loader = impl.DataLoader(n, size, 8, keep_last)
        stream = impl.BatchStream(loader)
        n_all = 3 * loader.n_batches + 2
        expected = take(stream, n_all + 4)
        first = impl.BatchStream(loader)
        wanderer = impl.BatchStream(loader)
        for place in range(n_all):
            state = first.state_dict()
            fresh = impl.BatchStream(impl.DataLoader(n, size, 8, keep_last))
            fresh.load_state_dict(state)
            assert take(fresh, 4) == expected[place : place + 4]
            take(wanderer, place % 3)
            wanderer.load_state_dict(state)
            assert take(wanderer, 4) == expected[place : place + 4]
            assert take(first, 1) == expected[place : place + 1]


def test_a_stream_goes_back(impl):
    stream = impl.BatchStream(impl.DataLoader(7, 2, 3))
    start = stream.state_dict()
    expected = take(stream, 5)
    inside = stream.state_dict()
    further = take(stream, 9)
    stream.load_state_dict(inside)
    assert take(stream, 9) == further
    stream.load_state_dict(start)
    assert take(stream, 5) == expected


def test_a_state_is_a_few_integers_that_stay(impl):
    small, large = (impl.BatchStream(impl.DataLoader(n, 2, 3)) for n in (4, 4000))
    states = []
    for stream, n in [(small, 0), (small, 7), (large, 0), (large, 3)]:
        take(stream, n)
        states.append(stream.state_dict())
    for state in states:
        assert type(state) is dict
        assert all(type(name) is str for name in state)
        assert all(type(each) is np.ndarray and each.dtype.kind in "iu" for each in state.values())
        sizes = {name: each.nbytes for name, each in state.items()}
        assert sizes == {name: each.nbytes for name, each in states[0].items()}
    kept = {name: each.copy() for name, each in states[1].items()}
    expected = take(small, 4)
    assert all(np.array_equal(states[1][name], each) for name, each in kept.items())
    resumed = impl.BatchStream(impl.DataLoader(4, 2, 3))
    for each in states[1].values():
        each.flags.writeable = False  # as they come from a mapped file
    resumed.load_state_dict(states[1])
    assert take(resumed, 4) == expected
    assert all(np.array_equal(states[1][name], each) for name, each in kept.items())
    resumed.load_state_dict(kept)
    for each in kept.values():
        each[...] = 0
    assert take(resumed, 4) == expected
    for each in resumed.state_dict().values():
        each[...] = 0
    assert take(resumed, 2) == take(small, 2)


def test_a_state_of_another_loader_is_refused(impl):
    own = {"n_examples": 20, "batch_size": 4, "seed": 3, "keep_last": True}
    changes = {
        "n_examples": [21, 19, 40],
        "batch_size": [5, 2, 8],
        "seed": [4, 0, 3 + 2**32],
        "keep_last": [False],
    }
    expected = take(impl.BatchStream(impl.DataLoader(**own)), 12)
    for name, values in changes.items():
        for value in values:
            stream, other = (
                impl.BatchStream(impl.DataLoader(**own)),
                impl.BatchStream(impl.DataLoader(**own | {name: value})),
            )
            take(stream, 3)
            take(other, 7)
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - the name is looked for
                stream.load_state_dict(other.state_dict())
            assert name in str(caught.value)
            assert take(stream, 9) == expected[3:]


def test_a_large_seed_is_kept_to_the_last_digit(impl):
    for seed in (2**62 + 1, 2**63 - 1):
        stream, other = (impl.BatchStream(impl.DataLoader(20, 4, each)) for each in (seed, seed - 1))
        take(stream, 3)
        resumed = impl.BatchStream(impl.DataLoader(20, 4, seed))
        resumed.load_state_dict(stream.state_dict())
        assert take(resumed, 4) == take(stream, 4)
        with pytest.raises(ValueError, match="seed"):
            stream.load_state_dict(other.state_dict())


# Statistics of many: they take the longest, and come last.


def test_all_orders_are_equally_likely_and_say_nothing_of_the_next(impl):
    """Pairs of orders of three examples: of an epoch and the next, and of a seed and the next."""
    table = [orders(impl.DataLoader(3, 3, seed), range(40)) for seed in range(100, 200)]
    assert chi_square(count(each for row in table for each in row), 6) < LIMIT[5]
    epochs = ((a, b) for row in table for a, b in itertools.pairwise(row))
    assert chi_square(count(epochs), 36) < LIMIT[35]
    seeds = ((a, b) for one, other in itertools.pairwise(table) for a, b in zip(one, other, strict=True))
    assert chi_square(count(seeds), 36) < LIMIT[35]


def test_all_shuffles_are_equally_likely(impl, rng):
    """Swapping each place with any, instead of one that is still open, gives 5/27 where 1/6 is right."""
    threes = count(tuple(impl.shuffled(3, rng).tolist()) for _ in range(20_000))
    assert chi_square(threes, 6) < LIMIT[5]
    fours = count(tuple(impl.shuffled(4, rng).tolist()) for _ in range(20_000))
    assert chi_square(fours, 24) < LIMIT[23]
