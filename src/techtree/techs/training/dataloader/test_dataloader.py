"""Oracles: every example once, counted; all orders equally often, by chi-square; the order itself is free."""

import copy
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.elsewhere import elsewhere

SHAPES = [(1, 1), (2, 1), (7, 1), (7, 2), (7, 3), (8, 4), (7, 7), (10, 9), (130, 33), (300, 128)]
"""Numbers of examples, and sizes of batches."""

LIMIT = {5: 50.8, 9: 62, 23: 94.2, 35: 116.3, 121: 235}
"""Degrees of freedom -> what chi-square exceeds once in 10^9 samples."""


def orders(loader, numbers) -> list[tuple[int, ...]]:
    """The order of the examples in some epochs; with ``keep_last`` all of them are in it."""
    return [tuple(np.concatenate(list(loader.epoch(number))).tolist()) for number in numbers]


def take(stream, n: int) -> list[list[int]]:
    return [stream.next_batch().tolist() for _ in range(n)]


def require(holds: object, what: str, *facts: str) -> None:
    if not holds:
        raise battery.MismatchError(what, facts)


def check_epoch(impl, n: int, size: int, seed: int, number: int, keep_last: bool) -> None:
    """Require the right number of new batches of the right kind and sizes, and no example twice."""
    asked = f"asked: DataLoader({n}, {size}, {seed}, {keep_last}).epoch({number})"
    loader = impl.DataLoader(n, size, seed, keep_last)
    batches = list(loader.epoch(number))
    wanted = [size] * (n // size) + [n % size] * (keep_last and n % size > 0)
    require(
        loader.n_batches == len(wanted), f"n_batches must be {len(wanted)}; got {loader.n_batches}", asked
    )
    for place, batch in enumerate(batches):
        kind = type(batch).__name__, str(getattr(batch, "dtype", "")), np.ndim(batch)
        require(
            kind == ("ndarray", "int64", 1), f"batch {place} must be an array of int64; got {kind}", asked
        )
        require(batch.flags.writeable, f"batch {place} is read-only; it must be a new array", asked)
    sizes = [len(batch) for batch in batches]
    require(sizes == wanted, f"sizes expected {battery.drawn(wanted)}; got {battery.drawn(sizes)}", asked)
    found = Counter(np.concatenate(batches).tolist())
    twice = [example for example, times in found.items() if times > 1]
    require(not twice, f"example {twice[:1]} comes more than once", asked)
    strangers = [example for example in found if not 0 <= example < n]
    require(not strangers, f"example {strangers[:1]} does not exist", asked)


def all_different(found: Mapping[object, object], what: str) -> None:
    """Require that no two answers are alike, and name those that are."""
    known: dict[object, object] = {}
    for label, answer in found.items():
        if answer in known:
            raise battery.MismatchError(what, [f"asked: {known[answer]} and {label}"])
        known[answer] = label


def chi_square(found: Iterable, n_kinds: int) -> float:
    """How far counts are from equal ones: about ``n_kinds - 1``, give or take ``sqrt(2 n_kinds)``."""
    counts = Counter(found)
    expected = counts.total() / n_kinds
    seen = sum((count - expected) ** 2 for count in counts.values()) / expected
    return seen + (n_kinds - len(counts)) * expected


def check_mixed(found: list, asked: str) -> None:
    """Each quarter of some orders has its share of each quarter of the numbers; places are left to chance."""
    n = len(found[0])
    quarter = np.minimum(np.arange(n) * 4 // n, 3)
    table = np.zeros((4, 4))
    for order in found:
        np.add.at(table, (quarter, quarter[np.asarray(order)]), 1)
    share = np.bincount(quarter, minlength=4) / n
    expected = np.outer(share, share) * n * len(found)
    off = ((table - expected) ** 2 / expected).sum()
    require(off < LIMIT[9], f"not mixed: quarters go to quarters unevenly, chi-square {off:.0f}", asked)
    steps = np.diff(np.array(found), axis=1)
    spread = math.sqrt(12 * steps.size)
    up = (steps > 0).mean()
    require(abs(up - 0.5) < 6 / spread, f"not mixed: {up:.3f} of the steps go up, about 0.5 expected", asked)
    stay = sum(int((np.asarray(order) == np.arange(n)).sum()) for order in found)
    limit = len(found) + 6 * math.sqrt(len(found)) + 6
    require(stay < limit, f"{stay} numbers stay in their places, about {len(found)} expected", asked)
    near = (np.abs(steps) <= 2).sum() / len(found)
    require(near < 4 + 25, f"not mixed: {near:.0f} neighbours stay neighbours, about 4 expected", asked)
    for name, place in (("first", 0), ("last", -1)):
        times = sum(int(order[place] == np.arange(n)[place]) for order in found)
        some = max(6, len(found) // 2)
        require(times < some, f"the {name} stays in its place {times} times of {len(found)}", asked)


# Batches of an epoch.


def test_an_epoch_has_every_example_once(impl):
    for (n, size), keep_last in itertools.product(SHAPES, (True, False)):
        for number in (0, 1, 5):
            check_epoch(impl, n, size, 3, number, keep_last)
    for n in aim.sizes(1000, at_most=70_000):
        for size in {n, n // 2 + 1, min(n, 300), 1 if n < 9000 else n}:
            check_epoch(impl, n, size, 3, 2, True)
            check_epoch(impl, n, size, 3, 2, False)
    for size in aim.sizes(10, at_most=70_000):
        check_epoch(impl, 9, size, 1, 0, True)


def test_what_is_left_over_is_left_out(impl):
    loader = impl.DataLoader(7, 3, 0, False)
    left_out = {*range(7)}.difference
    assert len({tuple(left_out(*map(list, loader.epoch(number)))) for number in range(150)}) == 7


def test_attributes_are_as_given(impl):
    loader = impl.DataLoader(7, 3, 11, True)
    assert (loader.n_examples, loader.batch_size, loader.seed, loader.keep_last) == (7, 3, 11, True)
    loader = impl.DataLoader(n_examples=7, batch_size=3, seed=11)
    assert (loader.n_examples, loader.batch_size, loader.seed, loader.keep_last) == (7, 3, 11, False)
    assert [len(batch) for batch in loader.epoch(number=0)] == [3, 3]
    loader = impl.DataLoader(n_examples=7, batch_size=30, seed=2**63 - 1, keep_last=True)
    assert (loader.n_examples, loader.batch_size, loader.seed, loader.keep_last) == (7, 30, 2**63 - 1, True)
    list(loader.epoch(2))
    assert (loader.n_batches, loader.seed, loader.batch_size) == (1, 2**63 - 1, 30)
    assert iter(loader.epoch(1)) is not iter(loader.epoch(1))


def test_numbers_out_of_range(impl):
    wrong = [
        *[(n, 1, 0) for n in (0, -1, -5, -(2**40))],
        *[(5, size, 0) for size in (0, -1, -5, -(2**40))],
        *[(5, 1, seed) for seed in (-1, -2, -(2**31), -(2**63), 2**63, 2**63 + 1, 2**64, 2**64 + 7, 2**70)],
        *[(0, 0, 0), (-3, -2, 0), (0, 1, -1), (0, 7, 0), (-6, 3, 0)],
    ]
    for arguments in wrong:
        battery.refuses(impl.DataLoader, *arguments)
        battery.refuses(impl.DataLoader, *arguments, keep_last=True)
    for n, size in ((5, 6), (1, 2), (5, 10), (5, 2**20), (1000, 1001)):
        battery.refuses(impl.DataLoader, n, size, 0)
        battery.refuses(impl.DataLoader, n_examples=n, batch_size=size, seed=1, keep_last=False)
        check_epoch(impl, n, size, 0, 3, True)
    for seed in (0, 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1):
        check_epoch(impl, 5, 5, seed, 0, False)
    for loader in (impl.DataLoader(5, 2, 0), impl.DataLoader(1, 1, 0, True)):

        def epoch(number: int, loader=loader) -> list:
            return list(loader.epoch(number))

        for number in (-1, -2, -(10**9), -(2**63)):
            battery.refuses(epoch, number)
        assert len(epoch(0)) == loader.n_batches


def test_batches_are_new_arrays(impl):
    loader = impl.DataLoader(7, 3, 1, True)
    expected = [batch.tolist() for batch in loader.epoch(4)]
    for batch in loader.epoch(4):
        batch[...] = -1
    batches, others = list(loader.epoch(4)), list(loader.epoch(4))
    assert [batch.tolist() for batch in batches] == expected
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations([*batches, *others], 2))
    batches[0][...] = -1
    assert [batch.tolist() for batch in batches[1:]] == expected[1:]
    for whole in (impl.DataLoader(4, 4, 0), impl.DataLoader(4, 1, 0), impl.DataLoader(3, 9, 0, True)):
        first = [batch.tolist() for batch in whole.epoch(1)]
        for batch in whole.epoch(1):
            batch[...] = 7
        assert [batch.tolist() for batch in whole.epoch(1)] == first


# The stream.


def test_a_stream_goes_through_the_epochs(impl):
    for n, size in SHAPES[:8]:
        for keep_last in (False, True):
            loader = impl.DataLoader(n, size, 3, keep_last)
            stream = impl.BatchStream(loader)
            expected = [batch.tolist() for number in range(4) for batch in loader.epoch(number)]
            found = take(stream, len(expected))
            asked = f"asked: {len(expected)} batches of BatchStream(DataLoader({n}, {size}, 3, {keep_last}))"
            require(found == expected, "the batches are not those of epochs 0 to 3", asked)


def test_batches_of_a_stream_are_new_arrays(impl):
    for n, size, keep_last in ((6, 2, False), (5, 5, False), (3, 9, True), (3, 1, True)):
        loader = impl.DataLoader(n, size, 3, keep_last)
        stream, other = impl.BatchStream(loader), impl.BatchStream(loader=loader)
        expected = take(other, 7)
        for batch in expected:
            got = stream.next_batch()
            assert (type(got), got.dtype, got.shape) == (np.ndarray, np.int64, (len(batch),))
            assert got.tolist() == batch
            got[...] = -1
        assert [batch.tolist() for batch in loader.epoch(0)] == expected[: loader.n_batches]
        again = impl.BatchStream(loader)
        kept = [again.next_batch() for _ in expected]
        assert [batch.tolist() for batch in kept] == expected
        again.load_state_dict(impl.BatchStream(loader).state_dict())
        assert take(again, 7) == expected


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
    # Two that begin with one state go each its own way.
    state = one.state_dict()
    first, second = impl.BatchStream(loader), impl.BatchStream(impl.DataLoader(7, 2, 3))
    first.load_state_dict(state)
    second.load_state_dict(state)
    ahead = take(first, 5)
    assert take(second, 5) == ahead == take(one, 5)


def test_a_stream_goes_on_where_another_stood(impl):
    """At every place: before the first batch, inside epochs, at their ends."""
    for n, size, keep_last in [
        *[
            (7, 2, False),
            (7, 2, True),
            (6, 2, False),
            (5, 5, False),
            (3, 9, True),
            (4, 1, True),
            (1, 1, False),
        ],
    ]:
        loader = impl.DataLoader(n, size, 8, keep_last)
        stream = impl.BatchStream(loader)
        n_all = 3 * loader.n_batches + 2
        expected = take(stream, n_all + 4)
        first = impl.BatchStream(loader)
        wanderer = impl.BatchStream(loader)
        for place in range(n_all):
            asked = f"asked: to go on after {place} batches of DataLoader({n}, {size}, 8, {keep_last})"
            state = first.state_dict()
            fresh = impl.BatchStream(impl.DataLoader(n, size, 8, keep_last))
            fresh.load_state_dict(state)
            again = impl.BatchStream(impl.DataLoader(n, size, 8, keep_last))
            again.load_state_dict(fresh.state_dict())
            require(take(fresh, 4) == expected[place : place + 4], "other batches come", asked)
            require(
                take(again, 4) == expected[place : place + 4], "other batches come the second time", asked
            )
            take(wanderer, place % 3)
            wanderer.load_state_dict(state)
            require(take(wanderer, 4) == expected[place : place + 4], "other batches come", asked)
            require(take(first, 1) == expected[place : place + 1], "saving has moved the stream", asked)


def test_a_stream_goes_back(impl):
    stream = impl.BatchStream(impl.DataLoader(7, 2, 3))
    start = stream.state_dict()
    expected = take(stream, 5)
    inside = stream.state_dict()
    further = take(stream, 9)
    for _ in range(2):
        stream.load_state_dict(inside)
        assert take(stream, 9) == further
        stream.load_state_dict(start)
        stream.load_state_dict(start)
        assert take(stream, 5) == expected


def test_a_state_is_a_few_integers_that_stay(impl):
    settings = [
        (4, 2, 3, 0),
        (4, 2, 3, 7),
        (4000, 2, 3, 0),
        (4000, 2, 3, 3),
        (4, 4, 2**63 - 1, 300),
        (1, 1, 0, 5),
    ]
    states = []
    for n, size, seed, n_taken in settings:
        stream = impl.BatchStream(impl.DataLoader(n, size, seed, n > 10))
        take(stream, n_taken)
        states.append(stream.state_dict())
    for state in states:
        assert type(state) is dict
        assert all(type(name) is str for name in state)
        assert all(type(each) is np.ndarray and each.dtype.kind in "iu" for each in state.values())
        sizes = {name: each.nbytes for name, each in state.items()}
        assert sizes == {name: each.nbytes for name, each in states[0].items()}
    loader = impl.DataLoader(4, 2, 3)
    small = impl.BatchStream(loader)
    take(small, 7)
    state = small.state_dict()
    kept = {name: each.copy() for name, each in state.items()}
    expected = take(small, 4)
    small.state_dict()
    small.load_state_dict(impl.BatchStream(loader).state_dict())
    assert all(np.array_equal(state[name], each) for name, each in kept.items())
    resumed = impl.BatchStream(impl.DataLoader(4, 2, 3))
    for each in state.values():
        each.flags.writeable = False  # as they come from a mapped file
    for given in (state, dict(reversed(state.items())), MappingProxyType(state), copy.deepcopy(state)):
        resumed.load_state_dict(given)
        assert take(resumed, 4) == expected
    assert all(np.array_equal(state[name], each) for name, each in kept.items())
    resumed.load_state_dict(state=kept)
    for each in kept.values():
        each[...] = 0
    assert take(resumed, 4) == expected
    resumed.load_state_dict(state)
    for each in resumed.state_dict().values():
        each[...] = 0
    assert take(resumed, 4) == expected


def test_a_state_of_another_loader_is_refused(impl):
    own = {"n_examples": 20, "batch_size": 4, "seed": 3, "keep_last": True}
    changes = {
        "n_examples": [21, 19, 40, 4, 20 + 256, 20 + 2**16],
        "batch_size": [5, 2, 8, 20, 3, 4 + 256, 4 + 2**16],
        "seed": [4, 0, 2, 3 + 2**8, 3 + 2**16, 3 + 2**31, 3 + 2**32, 3 + 2**53, 3 + 2**62],
        "keep_last": [False],
    }
    for number in aim.whole(3, 2**62):
        changes["seed"].append(3 + number)
        changes["n_examples"] += [20 + number] * (number < 70_000)
    expected = take(impl.BatchStream(impl.DataLoader(**own)), 21)
    for name, values in changes.items():
        for n, value in enumerate(values):
            other = impl.BatchStream(impl.DataLoader(**own | {name: value}))
            stream = impl.BatchStream(impl.DataLoader(**own))
            place = (3, 0, 5, 12)[n % 4]
            take(stream, place)
            take(other, n % 5)
            before = {key: each.tolist() for key, each in stream.state_dict().items()}
            battery.refuses(stream.load_state_dict, other.state_dict(), says=[name])
            asked = f"asked: to load a state with {name}={value} in place of {own[name]}"
            after = {key: each.tolist() for key, each in stream.state_dict().items()}
            require(after == before, "the refused state has changed what state_dict gives", asked)
            found = take(stream, 9)
            require(found == expected[place : place + 9], "the refused state has moved the stream", asked)
    # More than one may differ.
    for names in itertools.combinations(changes, 2):
        other = impl.BatchStream(impl.DataLoader(**own | {name: changes[name][0] for name in names}))
        stream = impl.BatchStream(impl.DataLoader(**own))
        told = str(battery.refuses(stream.load_state_dict, other.state_dict()))
        assert any(name in told for name in names)
        assert take(stream, 2) == expected[:2]
    same = impl.BatchStream(impl.DataLoader(**own))
    same.load_state_dict(impl.BatchStream(impl.DataLoader(**own)).state_dict())
    assert take(same, 9) == expected[:9]


def test_a_large_seed_is_kept_to_the_last_digit(impl):
    for seed in (2**53 + 1, 2**62 + 1, 2**63 - 1):
        stream, other = (impl.BatchStream(impl.DataLoader(20, 4, each)) for each in (seed, seed - 1))
        take(stream, 3)
        resumed = impl.BatchStream(impl.DataLoader(20, 4, seed))
        resumed.load_state_dict(stream.state_dict())
        assert take(resumed, 4) == take(stream, 4)
        battery.refuses(stream.load_state_dict, other.state_dict(), says=["seed"])


def test_a_stream_of_many_batches(impl):
    """Epochs and positions beyond a byte, and beyond the source's own numbers."""
    narrow = {number for number in aim.NUMBERS if number in aim.LIMITS.values()}
    for n_epochs in aim.sizes(300, at_most=40_000):
        loader = impl.DataLoader(2, 2, 5)
        check_far(impl, loader, n_epochs, [next(loader.epoch(n_epochs + n)).tolist() for n in range(3)])
    for place in sorted({290, *aim.sizes(at_most=1000), *(int(number) + 1 for number in narrow)}):
        loader = impl.DataLoader(2 * (place + 5), 2, 5)
        check_far(impl, loader, place, [batch.tolist() for batch in loader.epoch(0)][place : place + 3])


def check_far(impl, loader, n_batches: int, expected: list) -> None:
    stream = impl.BatchStream(loader)
    for _ in range(n_batches):
        stream.next_batch()
    state = stream.state_dict()
    settings = f"{loader.n_examples}, {loader.batch_size}, {loader.seed}"
    asked = f"asked: DataLoader({settings}), after {n_batches} batches"
    require(take(stream, 3) == expected, "other batches come than those of the epochs", asked)
    resumed = impl.BatchStream(loader)
    resumed.load_state_dict(state)
    require(take(resumed, 3) == expected, "a resumed stream goes on with other batches", asked)
    require(take(resumed, 2) == take(stream, 2), "a resumed stream goes on with other batches", asked)


# The order.


def test_the_order_depends_on_examples_seed_and_number_alone(impl):
    expected = orders(impl.DataLoader(60, 60, 5), [3])[0]
    for size, keep_last in itertools.product([1, 7, 30, 59, 60], [True, False]):
        loader = impl.DataLoader(60, size, 5, keep_last)
        for _ in range(2):
            found = orders(loader, [3])[0]
            asked = f"asked: epoch 3 of DataLoader(60, {size}, 5, {keep_last}) and of DataLoader(60, 60, 5)"
            require(found == expected[: 60 if keep_last else 60 // size * size], "another order", asked)
        list(loader.epoch(0))
        next(iter(loader.epoch(9)))
        assert orders(loader, [3])[0][:size] == expected[:size]
    loader = impl.DataLoader(60, 7, 5, True)
    for one, other, third in zip(loader.epoch(3), loader.epoch(3), loader.epoch(4), strict=True):
        assert np.array_equal(one, other)
        assert len(third) == len(one)
    assert orders(loader, [3, 4, 3])[::2] == [expected, expected]
    assert orders(impl.DataLoader(60, 60, np.int64(5)), [np.int64(3)])[0] == expected
    list(impl.DataLoader(60, 60, 6).epoch(3))
    list(impl.DataLoader(61, 60, 5).epoch(3))
    assert orders(impl.DataLoader(60, 60, 5), [3])[0] == expected


def test_the_order_does_not_depend_on_the_process(impl):
    """Nor on the machine, the day, or what others draw from the generators of NumPy and Python."""
    before = orders(impl.DataLoader(20, 4, 3), [2, 0]), impl.shuffled(20, np.random.default_rng(3)).tolist()
    with elsewhere(impl):
        after = (
            orders(impl.DataLoader(20, 4, 3), [2, 0]),
            impl.shuffled(20, np.random.default_rng(3)).tolist(),
        )
        assert after == before
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    states = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert orders(impl.DataLoader(20, 4, 3), [2, 0]) == before[0]
    assert impl.shuffled(20, np.random.default_rng(3)).tolist() == before[1]
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states  # noqa: NPY002


def test_a_later_epoch_costs_no_more_than_the_first(impl):
    """CPU time, the least of several: whoever goes through the earlier ones takes 1,000 times as long."""

    def cost(number):
        loader = impl.DataLoader(100, 100, 0)
        least = math.inf
        for _ in range(5):
            start = time.thread_time()
            list(loader.epoch(number))
            least = min(least, time.thread_time() - start)
        return max(least, 2e-5)

    first = cost(0)
    assert cost(1000) < 30 * first
    assert len(list(impl.DataLoader(5, 2, 0).epoch(10**12))) == 2


def test_each_number_and_each_seed_has_an_order_of_its_own(impl):
    """Seeds and numbers that careless mixing confuses: equal sums and products, digits that run together."""
    seeds = [0, 1, 2, 3, 10, 11, 12, 101, 110, 2**31, 2**32, 2**62]
    asked = set(itertools.product(seeds, [*range(13), 101, 110, 1010]))
    steps = [2**k for k in range(4, 63)] + [10**k for k in range(2, 18)] + aim.whole(3, 2**61)
    for step in steps:
        asked |= {(0, step), (step, 0), (1, step), (step, 1), (2, step + 1), (step + 1, 2), (step, step)}
    found = {pair: orders(impl.DataLoader(40, 8, pair[0]), pair[1:])[0] for pair in sorted(asked)}
    all_different(found, "two pairs of seed and number of the epoch have the same order")
    turned = {pair: (*np.roll(each, -each.index(0)).tolist(),) for pair, each in found.items()}
    all_different(turned, "the order of one pair of seed and number is that of another, turned")
    moved = {pair: (*(np.diff(each) % 40).tolist(),) for pair, each in found.items()}
    all_different(moved, "the order of one pair of seed and number is that of another plus a number")
    for what, change in (("reversed", lambda each: each[::-1]), ("inverted", lambda each: np.argsort(each))):
        known = {each: pair for pair, each in found.items()}
        for pair, each in found.items():
            other = known.get(tuple(np.asarray(change(each)).tolist()))
            require(
                other is None,
                f"the order of one pair of seed and number is another's, {what}",
                f"{pair}, {other}",
            )


def test_many_examples_are_mixed_thoroughly(impl):
    for n in sorted({2000, *aim.sizes(130, at_most=5000)}):
        if n >= 100:
            found = [order for seed in range(4) for order in orders(impl.DataLoader(n, n, seed), range(3))]
            check_mixed(found, f"asked: epochs 0 to 2 of DataLoader({n}, {n}, seed) for seeds 0 to 3")


# The shuffle.


def test_a_shuffle_has_each_number_once(impl):
    for n in aim.sizes(0, 1, 2, 3, 7, 33, 130, 300, 5000, 70_000, at_most=150_000):
        order, asked = impl.shuffled(n, np.random.default_rng(1)), f"asked: shuffled({n}, rng)"
        kind = type(order).__name__, str(getattr(order, "dtype", "")), np.shape(order)
        require(kind == ("ndarray", "int64", (n,)), f"({n},) of int64 expected; got {kind}", asked)
        require(order.flags.writeable, "the order is read-only; it must be a new array", asked)
        require(np.array_equal(np.sort(order), np.arange(n)), "each number must come once", asked)
        if n >= 100:
            check_mixed([order], asked)
    one, other = (impl.shuffled(n=5, rng=np.random.default_rng(1)) for _ in range(2))
    one[...] = 7
    assert (
        sorted(other.tolist()) == sorted(impl.shuffled(5, np.random.default_rng(1)).tolist()) == [*range(5)]
    )


KINDS = (np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64, np.random.PCG64DXSM)
"""Generators of bits; those of MT19937 come in 32."""


def test_the_randomness_of_a_shuffle_is_that_of_its_generator(impl):
    for kind, seed, n in itertools.product(KINDS, (7, 8), (5, 30, 1000)):
        rng = np.random.Generator(kind(seed))
        rng.integers(9, dtype=np.uint32)  # half of the bits of a draw may be kept for the next
        same = copy.deepcopy(rng)
        found = [tuple(impl.shuffled(n, rng).tolist()) for _ in range(3)]
        asked = f"asked: shuffled({n}, Generator({kind.__name__}({seed})))"
        again = [tuple(impl.shuffled(n, same).tolist()) for _ in range(3)]
        require(again == found, "generators in the same state give other orders", asked)
        if n > 5:
            require(len(set(found)) == 3, "the generator is not advanced: an order comes again", asked)
            other = tuple(impl.shuffled(n, np.random.Generator(kind(seed + 2))).tolist())
            require(other not in found, "another generator gives the same order", asked)
    for n in (2, 30):
        rng = np.random.default_rng(7)
        impl.shuffled(n, rng)
        assert rng.bit_generator.state != np.random.default_rng(7).bit_generator.state


def test_shuffles_of_generators_of_all_kinds_are_mixed(impl):
    for kind in KINDS:
        rng = np.random.Generator(kind(3))
        check_mixed([impl.shuffled(300, rng) for _ in range(12)], f"asked: shuffled(300, {kind.__name__})")
        threes = chi_square((tuple(impl.shuffled(3, rng).tolist()) for _ in range(1200)), 6)
        require(threes < LIMIT[5], f"orders of 3 are not equally likely: {threes:.0f}", kind.__name__)


def test_shuffles_of_many_are_mixed(impl, rng):
    for n in sorted({200, 1100, *aim.sizes(at_most=5000)}):
        if n >= 100:
            check_mixed([impl.shuffled(n, rng) for _ in range(40)], f"asked: shuffled({n}, rng), 40 times")
    found = np.array([impl.shuffled(200, rng) for _ in range(400)])
    # The mean of each place over the shuffles: 99.5 with a spread of 200 / sqrt(12 * 400).
    assert np.abs(found.mean(axis=0) - 99.5).max() < 6 * 200 / math.sqrt(12 * 400)


# Statistics of many: they take the longest, and come last.


def test_all_orders_are_equally_likely_and_say_nothing_of_the_next(impl):
    """Pairs of orders of three examples: of an epoch and the next, and of a seed and the next."""
    table = [orders(impl.DataLoader(3, 3, seed), range(40)) for seed in range(100, 200)]
    assert chi_square((each for row in table for each in row), 6) < LIMIT[5]
    assert chi_square(((a, b) for row in table for a, b in itertools.pairwise(row)), 36) < LIMIT[35]
    seeds = ((a, b) for one, other in itertools.pairwise(table) for a, b in zip(one, other, strict=True))
    assert chi_square(seeds, 36) < LIMIT[35]
    fours = (each for seed in range(60) for each in orders(impl.DataLoader(4, 2, seed), range(40)))
    assert chi_square(fours, 24) < LIMIT[23]
    many = {(s, n): orders(impl.DataLoader(16, 16, s), [n])[0] for s in range(70) for n in range(40)}
    all_different(many, "two of 2,800 pairs of seed and number have the same order of 16 examples")


def test_all_shuffles_are_equally_likely(impl, rng):
    """Swapping each place with any, instead of one that is still open, gives 5/27 where 1/6 is right."""
    assert abs(sum(int(impl.shuffled(2, rng)[0]) for _ in range(2000)) - 1000) < 6 * math.sqrt(500)
    threes = [tuple(impl.shuffled(3, rng).tolist()) for _ in range(20_000)]
    assert chi_square(threes, 6) < LIMIT[5]
    assert chi_square(zip(threes[::2], threes[1::2], strict=True), 36) < LIMIT[35]
    assert chi_square((tuple(impl.shuffled(4, rng).tolist()) for _ in range(20_000)), 24) < LIMIT[23]
    twelves = [impl.shuffled(12, rng).tolist() for _ in range(2000)]
    cells = ((place, number) for order in twelves for place, number in enumerate(order))
    assert chi_square(cells, 144) < LIMIT[121]
    longer = {n: tuple(impl.shuffled(20, rng).tolist()) for n in range(2500)}
    all_different(longer, "two of 2,500 shuffles of 20 are the same")
