"""Oracles: sums in float64, one worker with the whole batch, and a network that notes each message.

A sum of N numbers in a dtype is off by at most N roundings of the sum of their sizes.
"""

import itertools
from collections import Counter, defaultdict, deque

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.mlp import MLP
from techtree.techs.training.sgd import SGD
from techtree.techs.training.train_loop import accumulate


class Ring:
    """A network that carries messages to the right neighbour only, and notes their sizes."""

    def __init__(self, n_workers):
        self.n_workers = n_workers
        self.sent_bytes = [0] * n_workers
        self.n_messages = Counter()
        self.waiting = defaultdict(deque)

    def send(self, array, source, target):
        assert target == (source + 1) % self.n_workers, f"worker {source} sends to {target}"
        assert source != target
        self.waiting[source, target].append(np.array(array))
        self.sent_bytes[source] += np.asarray(array).nbytes
        self.n_messages[source] += 1

    def receive(self, source, target):
        assert self.waiting[source, target], f"worker {target} waits for {source}"
        return self.waiting[source, target].popleft()

    def require_quiet(self, n_messages):
        """All that was sent was received, and each worker sent so many messages."""
        assert not any(self.waiting.values())
        assert [self.n_messages[rank] for rank in range(self.n_workers)] == [n_messages] * self.n_workers


def slow_shards(size, n):
    """The definition: deal the places out one after the other."""
    lengths = [sum(1 for place in range(size) if place % n == rank) for rank in range(n)]
    return [(sum(lengths[:rank]), sum(lengths[: rank + 1])) for rank in range(n)]


def close(got, expected, n, sizes, dtype):
    """Within n roundings of the sum of the sizes."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    allowed = 2 * n * np.finfo(dtype).eps * sizes + 1e-30
    assert (np.abs(got.astype(np.float64) - expected) <= allowed).all()


SHAPES = [(12,), (0,), (1,), (2,), (3,), (7,), (33,), (130,), (3, 5), (2, 3, 4), ()]


def test_a_network_by_hand(impl):
    network = impl.Network(3)
    assert network.n_workers == 3
    assert network.sent_bytes == [0, 0, 0]
    first = np.array([1.0, 2.0])
    network.send(first, 0, 1)
    network.send(np.array([[3.0]], np.float32), source=0, target=1)
    network.send(np.array(4, np.int16), 1, 0)
    network.send(np.arange(6.0)[::2], 2, 1)
    first[:] = 0  # what was sent does not change
    assert network.sent_bytes == [20, 2, 24]
    got = network.receive(0, 1)
    assert (got.tolist(), got.dtype, got.shape) == ([1.0, 2.0], np.float64, (2,))
    got = network.receive(source=0, target=1)
    assert (got.tolist(), got.dtype, got.shape) == ([[3.0]], np.float32, (1, 1))
    got = network.receive(1, 0)
    assert (int(got), np.asarray(got).dtype, np.shape(got)) == (4, np.int16, ())
    assert network.receive(2, 1).tolist() == [0.0, 2.0, 4.0]
    network.send(np.zeros((0, 2), np.float32), 2, 1)  # nothing is a message, too
    assert network.receive(2, 1).shape == (0, 2)
    assert network.sent_bytes == [20, 2, 24]
    assert isinstance(network.sent_bytes, list)
    assert impl.Network(2).sent_bytes == [0, 0]


def test_what_a_network_refuses(impl):
    network = impl.Network(3)
    ways = [
        (0, 3),
        (3, 0),
        (-1, 0),
        (0, -1),
        (-1, 1),
        (-3, 1),
        (1, 1),
        (2, 2),
        (7, 7),
        (3, 3),
        (-1, -1),
        (0, 0),
    ]
    for source, target in ways:
        battery.refuses(network.send, np.ones(2), source, target)
        battery.refuses(network.receive, source, target)
    assert network.sent_bytes == [0, 0, 0]
    network.send(np.ones(2), 0, 1)
    network.send(np.ones(2), 2, 0)
    for source, target in [(1, 0), (0, 2), (2, 1), *ways]:
        battery.refuses(network.receive, source, target)
    network.receive(0, 1)
    battery.refuses(network.receive, 0, 1)  # once only
    network.receive(2, 0)
    battery.refuses(network.receive, 2, 0)
    for n_workers in (1, 2, 300):
        network = impl.Network(n_workers)
        for source, target in ((n_workers, 0), (0, n_workers), (n_workers - 1, n_workers - 1), (-1, 0)):
            battery.refuses(network.send, np.ones(2), source, target)
        assert network.sent_bytes == [0] * n_workers


def test_a_network_is_its_definition(impl, rng):
    """Messages in any order, a queue for each way; also beside the numbers that the source names."""
    n_messages = max(aim.sizes(60, at_most=3000))
    for n in (2, 3, *(size for size in aim.sizes(9, at_most=1100) if size > 3)):
        network, queues, sent = impl.Network(n_workers=n), defaultdict(deque), [0] * n
        ranks = [0, 1, n - 1, n - 2]
        for number in range(n_messages):
            source, target = (int(each) for each in rng.choice(ranks, size=2))
            if rng.random() < 0.6 and source != target:
                array = rng.normal(size=(number % 3, 2)).astype((np.float64, np.float32)[number % 2])
                network.send(array=array, source=source, target=target)
                queues[source, target].append(array.copy())
                sent[source] += array.nbytes
                array[...] = 9
            elif queues[source, target]:
                got, wanted = network.receive(source=source, target=target), queues[source, target].popleft()
                assert (got.dtype, got.shape, got.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
                got += 1
            else:
                battery.refuses(network.receive, source, target)
            assert network.sent_bytes == sent
            assert network.n_workers == n


def test_many_messages_and_large_ones(impl):
    """All on one way, before the first is received; also beside the numbers that the source names."""
    for number in aim.sizes(300, at_most=40_000):
        network = impl.Network(2)
        for n in range(number):
            network.send(np.array([n], np.float32), 1, 0)
        assert network.sent_bytes == [0, 4 * number]
        assert [int(network.receive(1, 0)[0]) for _ in range(number)] == list(range(number))
        battery.refuses(network.receive, 1, 0)
    for size in aim.sizes(300, at_most=140_000):
        network, array = impl.Network(2), np.arange(float(size))
        network.send(array, 0, 1)
        assert network.sent_bytes == [8 * size, 0]
        assert np.array_equal(network.receive(0, 1), array)


def test_a_network_carries_any_array(impl, rng):
    """Layouts, byte orders and dtypes; what arrives is as it was sent, and writable."""
    arrays = [lay_out(rng.normal(size=(3, 4))) for lay_out in battery.LAYOUTS.values()]
    arrays += [
        np.ones((2, 3)).astype(kind) for kind in (*battery.INTEGERS, *battery.FLOATS, complex, ">f4", "U3")
    ]
    arrays += [np.zeros((0, 3)), np.array(2.5), np.full((2, 1, 1, 1, 2), np.nan), np.array([np.inf, -0.0])]
    network, total = impl.Network(2), 0
    for array in arrays:
        network.send(array, 0, 1)
        total += array.nbytes
        assert network.sent_bytes == [total, 0]
    for array in arrays:
        got = network.receive(0, 1)
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert got.tolist() == array.tolist() or np.array_equal(got, array, equal_nan=True)
        assert got.flags.writeable
        assert not np.shares_memory(got, array)


def test_what_is_received_belongs_to_the_receiver(impl):
    network, array = impl.Network(2), np.ones(3)
    array.flags.writeable = False
    network.send(array, 0, 1)
    network.send(array, 0, 1)
    first = network.receive(0, 1)
    first += 1
    assert network.receive(0, 1).tolist() == [1.0, 1.0, 1.0]
    other = impl.Network(2)
    network.send(array, 0, 1)
    battery.refuses(other.receive, 0, 1)  # another network


def test_shards_are_their_definition(impl):
    for n in range(1, 10):
        for size in (*range(25), 130, 1000):
            got = impl.shards(size, n)
            assert [(each.start, each.stop) for each in got] == slow_shards(size, n), f"shards({size}, {n})"
            assert all(isinstance(each, slice) and each.step in (None, 1) for each in got)
    assert np.arange(7)[impl.shards(7, 3)[1]].tolist() == [3, 4]
    pairs = [(1001, n) for n in aim.sizes(13, 300, at_most=3000)]
    pairs += [(size, n) for size in aim.sizes(4097, 100_000, at_most=1_000_000) for n in (2, 3, 7, 64)]
    for size, n in pairs:
        got = impl.shards(size=size, n_workers=n)
        lengths = [each.stop - each.start for each in got]
        starts = (
            [sum(lengths[:rank]) for rank in range(n)] if n < 400 else np.cumsum([0, *lengths[:-1]]).tolist()
        )
        asked = f"shards({size}, {n})"
        assert (len(got), sum(lengths)) == (n, size), asked
        assert lengths == sorted(lengths, reverse=True), asked
        assert lengths[0] - lengths[-1] <= 1, asked
        assert [each.start for each in got] == starts, asked
        got.clear()
    assert len(impl.shards(1001, 13)) == 13


def test_reduce_scatter_is_its_definition(impl, rng):
    for n in range(1, 8):
        for shape in SHAPES:
            for dtype in (np.float64,) if shape != (12,) else (np.float64, np.float32, np.float16):
                arrays = [rng.normal(size=shape).astype(dtype) for _ in range(n)]
                kept = [each.copy() for each in arrays]
                ring = Ring(n)
                got = impl.reduce_scatter(arrays, ring)
                assert len(got) == n
                wide = np.array([each.astype(np.float64).reshape(-1) for each in arrays])
                for (start, stop), part in zip(slow_shards(wide.shape[1], n), got, strict=True):
                    sizes = np.abs(wide).sum(axis=0)[start:stop]
                    close(part, wide.sum(axis=0)[start:stop], n, sizes, dtype)
                assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
                size, item = wide.shape[1], np.dtype(dtype).itemsize
                own = [stop - start for start, stop in slow_shards(size, n)]
                assert ring.sent_bytes == ([item * (size - each) for each in own] if n > 1 else [0])
                ring.require_quiet(n - 1)


def test_results_are_new(impl, rng):
    for n in (1, 2, 3):
        for function, shape in (
            (impl.reduce_scatter, (2, 3)),
            (impl.all_gather, (4,)),
            (impl.all_reduce, (2, 3)),
        ):
            arrays = [rng.normal(size=shape) for _ in range(n)]
            got = function(arrays, Ring(n))
            everything = [*arrays, *got, *function(arrays, Ring(n))]
            for i, a in enumerate(everything[n:], n):
                assert not any(np.shares_memory(a, b) for b in everything[:i])
                a += 1  # writable


def test_any_layout_of_memory(impl, rng):
    for lay_out in battery.LAYOUTS.values():
        arrays = [lay_out(rng.normal(size=(4, 5))) for _ in range(3)]
        total = sum(arrays)
        got = impl.reduce_scatter(arrays, Ring(3))
        np.testing.assert_allclose(np.concatenate(got), total.reshape(-1), atol=1e-14)
        for each in impl.all_reduce(arrays, Ring(3)):
            np.testing.assert_allclose(each, total, atol=1e-14)
        parts = [lay_out(rng.normal(size=6)) for _ in range(3)]
        for each in impl.all_gather(parts, Ring(3)):
            assert np.array_equal(each, np.concatenate(parts))


def test_all_gather_is_its_definition(impl, rng):
    for lengths in ([3], [2, 2], [4, 1, 2], [0, 5, 0, 1], [1] * 6, [7, 0, 130, 2, 33], [0, 0, 0]):
        n = len(lengths)
        for dtype in (np.float64, np.float32, np.int64):
            parts = [rng.normal(size=length).astype(dtype) for length in lengths]
            kept = [each.copy() for each in parts]
            ring = Ring(n)
            got = impl.all_gather(parts, ring)
            assert len(got) == n
            for each in got:
                assert each.dtype == dtype
                assert np.array_equal(each, np.concatenate(parts))
            assert all(np.array_equal(a, b) for a, b in zip(parts, kept, strict=True))
            total, item = sum(lengths), np.dtype(dtype).itemsize
            expected = [item * (total - lengths[(rank + 1) % n]) for rank in range(n)]
            assert ring.sent_bytes == (expected if n > 1 else [0])
            ring.require_quiet(n - 1)


def test_all_reduce_is_its_definition(impl, rng):
    for n in range(1, 8):
        for shape in SHAPES:
            for dtype in (np.float32,) if shape != (12,) else (np.float64, np.float32, np.float16):
                arrays = [rng.normal(size=shape).astype(dtype) for _ in range(n)]
                kept = [each.copy() for each in arrays]
                ring = Ring(n)
                got = impl.all_reduce(tuple(arrays), ring)
                assert isinstance(got, list)
                wide = np.array([each.astype(np.float64) for each in arrays])
                for each in got:
                    close(each, wide.sum(axis=0), n, np.abs(wide).sum(axis=0), dtype)
                    assert each.tobytes() == got[0].tobytes()  # equal to the last bit
                assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
                size = int(np.prod(shape))
                own = [stop - start for start, stop in slow_shards(size, n)]
                item = np.dtype(dtype).itemsize
                expected = [item * (2 * size - own[rank] - own[(rank + 1) % n]) for rank in range(n)]
                assert ring.sent_bytes == (expected if n > 1 else [0])
                ring.require_quiet(2 * (n - 1))


def test_a_worker_sends_less_than_two_arrays(impl, rng):
    """2 (N - 1) / N times its bytes, up to the rounding of slices."""
    for n in (2, 5, 24):
        network = impl.Network(n)
        impl.all_reduce([np.ones(1000, np.float32)] * n, network)
        for sent in network.sent_bytes:
            assert abs(sent - 4000 * 2 * (n - 1) / n) <= 8


def test_values_of_any_size(impl, rng):
    """Large, tiny and whole numbers; sums of whole numbers are exact."""
    for size in (1.0, 1e6, 1e-30, 1e30, 1e300, 1e-310, *(each for each in aim.NUMBERS if each < 1e300)):
        arrays = [rng.integers(-9, 10, size=(4, 3)) * np.float64(size) for _ in range(4)]
        expected = sum(each / size for each in arrays) * size
        for each in impl.all_reduce(arrays, Ring(4)):
            np.testing.assert_allclose(each, expected, rtol=1e-12, atol=size * 1e-12)
        flat = np.concatenate(impl.reduce_scatter(arrays, Ring(4)))
        np.testing.assert_allclose(flat, expected.reshape(-1), rtol=1e-12, atol=size * 1e-12)
        for each in impl.all_gather([array[0] for array in arrays], Ring(4)):
            assert np.array_equal(each, np.concatenate([array[0] for array in arrays]))


def test_what_is_not_finite_spreads(impl):
    """A sum with NaN is NaN: an overflow on one worker must not be hidden from the others."""
    arrays = [np.array([1.0, np.nan, np.inf, np.inf]), np.array([1.0, 1.0, 1.0, -np.inf])]
    with np.errstate(invalid="ignore"):
        for each in impl.all_reduce(arrays, Ring(2)):
            assert np.array_equal(each, [2.0, np.nan, np.inf, np.nan], equal_nan=True)
        flat = np.concatenate(impl.reduce_scatter(arrays, Ring(2)))
        assert np.array_equal(flat, [2.0, np.nan, np.inf, np.nan], equal_nan=True)
        replicas = [[Parameter(np.zeros(4))] for _ in arrays]
        for (parameter,), each in zip(replicas, arrays, strict=True):
            parameter.grad = each.copy()
        impl.average_gradients(replicas, [1, 1], Ring(2))
    for (parameter,) in replicas:
        assert np.array_equal(parameter.grad, [1.0, np.nan, np.inf, np.nan], equal_nan=True)


def test_a_second_call_and_another_order_of_calls(impl, rng):
    """One network serves many calls, and remembers nothing of them but the bytes."""
    network = impl.Network(3)
    arrays = [rng.normal(size=7) for _ in range(3)]
    first = impl.all_reduce(arrays, network)
    sent = list(network.sent_bytes)
    impl.all_gather([np.ones(2)] * 3, network)
    impl.reduce_scatter([np.ones((5, 2))] * 3, network)
    before = list(network.sent_bytes)
    again = impl.all_reduce(arrays, network)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert [b - a for a, b in zip(before, network.sent_bytes, strict=True)] == sent


def test_one_network_serves_arrays_of_one_shape_again_and_again(impl, rng):
    """The sums are those of the arrays of now, the same arrays changed in place or others."""
    network, arrays = impl.Network(3), [np.zeros((2, 4)) for _ in range(3)]
    for call in range(4):
        arrays = [np.zeros((2, 4)) for _ in range(3)] if call == 2 else arrays
        for each in arrays:
            each[...] = rng.normal(size=(2, 4))
        for got in impl.all_reduce(arrays=arrays, network=network):
            np.testing.assert_allclose(got, sum(arrays), atol=1e-14)
        flat = np.concatenate(impl.reduce_scatter(arrays=arrays, network=network))
        np.testing.assert_allclose(flat, sum(arrays).reshape(-1), atol=1e-14)
        for got in impl.all_gather(parts=[each[0] for each in arrays], network=network):
            assert np.array_equal(got, np.concatenate([each[0] for each in arrays]))


def test_any_number_of_workers_and_entries(impl, rng):
    """Also beside the numbers that the source names."""
    plans = [(n, 7, np.float64) for n in aim.sizes(at_most=150)]
    plans += [
        (3, size, dtype) for size in aim.sizes(300, at_most=140_000) for dtype in (np.float32, np.float64)
    ]
    for n, size, dtype in plans:
        arrays = [rng.normal(size=size).astype(dtype) for _ in range(n)]
        wide, ring, asked = np.array(arrays, np.float64), Ring(n), f"{n} workers, {size} entries"
        for got in impl.all_reduce(arrays, ring):
            assert got.shape == (size,), asked
            close(got, wide.sum(axis=0), n, np.abs(wide).sum(axis=0), dtype)
        ring.require_quiet(2 * (n - 1))
        replicas = [[Parameter(each), Parameter(each[:1])] for each in arrays]
        for replica, each in zip(replicas, arrays, strict=True):
            replica[0].grad, replica[1].grad = each.copy(), each[-1:].copy()
        counts = list(range(1, n + 1))
        expected = weighted_means(replicas, counts)
        impl.average_gradients(replicas, counts, Ring(n))
        for replica in replicas:
            for parameter, mean in zip(replica, expected, strict=True):
                assert np.abs(parameter.grad - mean).max() < (1e-12 if dtype == np.float64 else 1e-5), asked


def test_any_number_of_parameters_and_of_steps(impl, rng):
    """Also beside the numbers that the source names."""
    for number in aim.sizes(12, at_most=700):
        replicas = replicas_of(rng, 2, shapes=[(2,)] * number)
        expected = weighted_means(replicas, [1, number])
        impl.average_gradients(replicas, [1, number], Ring(2))
        for replica in replicas:
            for parameter, mean in zip(replica, expected, strict=True):
                assert np.abs(parameter.grad - mean).max() < 1e-13, f"{number} parameters"
        replicas = replicas_of(rng, 2, shapes=[(2,)] * 3)
        whole = [Parameter(each.data) for each in replicas[0]]
        sharded = impl.ShardedOptimizer(replicas=replicas, make_optimizer=momentum, network=Ring(2))
        optimizer, means = momentum(whole), weighted_means(replicas, [1, 3])
        for _ in range(number):
            for parameter, mean in zip(whole, means, strict=True):
                parameter.grad = np.asarray(mean)
            optimizer.step()
            sharded.step(n_examples=[1, 3])
        for replica in replicas:
            for got, wanted in zip(replica, whole, strict=True):
                np.testing.assert_allclose(got.data, wanted.data, rtol=1e-10, err_msg=f"{number} steps")


def test_what_collectives_refuse(impl):
    ones, narrow = np.ones(3), np.ones(3, np.float32)
    lists = [
        (2, [ones]),
        (2, [ones] * 3),
        (2, []),
        (1, []),
        (1, [ones, ones]),
        (2, [ones, np.ones(4)]),
        (2, [np.ones((2, 3)), np.ones((3, 2))]),
        (2, [np.ones(6), np.ones((2, 3))]),
        (2, [ones, np.ones(1)]),
        (2, [np.ones(1), np.array(1.0)]),
        (2, [np.ones((0, 2)), np.ones((0, 3))]),
        (2, [ones, narrow]),
        (2, [np.zeros(0), np.zeros(0, np.float32)]),
        (2, [narrow, narrow.astype(np.float16)]),
        (3, [ones, np.ones(4), ones]),
        (3, [np.ones(4), ones, ones]),
        (12, [ones] * 11 + [np.ones((1, 3))]),
        (12, [ones] * 11 + [narrow]),
        (12, [ones] * 11),
        (12, [ones] * 13),
    ]
    for function in (impl.reduce_scatter, impl.all_reduce):
        for n, arrays in lists:
            ring = Ring(n)
            battery.refuses(function, arrays, ring)
            assert ring.sent_bytes == [0] * n
    for n, parts in ((2, [ones]), (2, [ones] * 3), (2, []), (1, []), (1, [ones] * 2), (12, [ones] * 11)):
        ring = Ring(n)
        battery.refuses(impl.all_gather, parts, ring)
        assert ring.sent_bytes == [0] * n


class Silent(Ring):
    """Delivers zeros in place of what was sent."""

    def receive(self, source, target):
        return super().receive(source, target) * 0


def test_what_workers_know_of_others_came_through_the_network(impl, rng):
    """Where only zeros arrive, each has its own numbers and nothing else."""
    for n in (2, 3, 5):
        arrays = [rng.normal(size=13) for _ in range(n)]
        places = [slice(*each) for each in slow_shards(13, n)]
        for got, array, place in zip(impl.reduce_scatter(arrays, Silent(n)), arrays, places, strict=True):
            np.testing.assert_allclose(got, array[place], rtol=1e-12)
        parts = [rng.normal(size=3) for _ in range(n)]
        for rank, got in enumerate(impl.all_gather(parts, Silent(n))):
            expected = [part * (other == rank) for other, part in enumerate(parts)]
            assert np.array_equal(got, np.concatenate(expected))


class Noting(Ring):
    """Keeps all that each worker sends."""

    def __init__(self, n_workers):
        super().__init__(n_workers)
        self.sent = [[] for _ in range(n_workers)]

    def send(self, array, source, target):
        super().send(array, source, target)
        self.sent[source].append(np.array(array))


def test_new_weights_are_what_a_step_gathers(impl, rng):
    for n in (2, 3, 5):
        replicas, network = replicas_of(rng, n), Noting(n)
        impl.ShardedOptimizer(replicas, momentum, network).step([1] * n)
        flat = np.concatenate([each.data.reshape(-1) for each in replicas[0]])
        new = {flat[start:stop].tobytes() for start, stop in slow_shards(15, n)}
        for messages in network.sent:
            assert {each.tobytes() for each in messages[n - 1 :]} <= new, (
                "others than new weights are gathered"
            )


def test_means_of_float16_need_no_sum_beyond_its_range(impl):
    for dtype in (np.float16, np.float32):
        replicas = [[Parameter(np.zeros(3, dtype))] for _ in range(3)]
        for rank, (parameter,) in enumerate(replicas):
            parameter.grad = np.array([1000.0, -2000.0, 30_000.0], dtype) * dtype(1 + rank % 2)
        impl.average_gradients(replicas, [300, 100, 200], Ring(3))
        for (parameter,) in replicas:
            expected = np.array([1000.0, -2000.0, 30_000.0]) * (7 / 6)
            np.testing.assert_allclose(parameter.grad.astype(float), expected, rtol=3e-3)


SHAPES_OF_PARAMETERS = [(2, 3), (4,), (), (1, 2, 2)]


def replicas_of(rng, n, dtype=np.float64, shapes=SHAPES_OF_PARAMETERS, has_gradients=True):
    """Copies of the same weights, with a gradient of each worker's own."""
    weights = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    replicas = [[Parameter(each) for each in weights] for _ in range(n)]
    for parameter in (each for replica in replicas for each in replica):
        if has_gradients:
            parameter.grad = rng.normal(size=parameter.shape).astype(dtype)
    return replicas


def weighted_means(replicas, counts):
    gradients = zip(
        *([each.grad.astype(np.float64) for each in replica] for replica in replicas), strict=True
    )
    pairs = [[(g, n) for g, n in zip(each, counts, strict=True) if n] for each in gradients]
    return [sum(g * n for g, n in each) / sum(counts) for each in pairs]


def test_gradients_are_weighted_by_examples(impl, rng):
    for counts in ([5], [1, 1], [1, 3], [2, 0, 7], [10, 1, 1, 1], [0, 0, 4], [1000, 1], [3, 3, 3, 3, 3]):
        for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
            replicas = replicas_of(rng, len(counts), dtype)
            weights = [[each.data.copy() for each in replica] for replica in replicas]
            arrays = [each.data for replica in replicas for each in replica]
            expected = weighted_means(replicas, counts)
            ring = Ring(len(counts))
            assert impl.average_gradients(replicas, counts, ring) is None
            for replica, kept in zip(replicas, weights, strict=True):
                for parameter, mean, weight, first in zip(replica, expected, kept, replicas[0], strict=True):
                    assert isinstance(parameter.grad, np.ndarray)
                    assert parameter.grad.dtype == dtype
                    assert parameter.grad.shape == parameter.shape
                    assert np.abs(parameter.grad - mean).max() < tolerance
                    assert parameter.grad.tobytes() == first.grad.tobytes()
                    assert np.array_equal(parameter.data, weight)
            members = [each for replica in replicas for each in replica]
            assert all(each.data is array for each, array in zip(members, arrays, strict=True))
            ring.require_quiet(2 * (len(counts) - 1))
            own = [stop - start for start, stop in slow_shards(15, len(counts))]
            item = np.dtype(dtype).itemsize
            if len(counts) > 1:
                assert ring.sent_bytes == [
                    item * (30 - own[rank] - own[(rank + 1) % len(counts)]) for rank in range(len(counts))
                ]


def test_many_workers_many_parameters_and_counts_of_any_kind(impl, rng):
    shapes = [(), (1,), (0,), (2, 3), (3, 2), (1, 1, 4), (40, 5)] * 4
    for counts in ([np.int64(3), np.int32(1)], np.arange(12), [10**9, 1, 5], (2,) * 17):
        replicas = [tuple(each) for each in replicas_of(rng, len(counts), shapes=shapes)]
        expected = weighted_means(replicas, [int(n) for n in counts])
        impl.average_gradients(tuple(replicas), counts, Ring(len(counts)))
        for replica in replicas:
            for parameter, mean in zip(replica, expected, strict=True):
                assert parameter.grad.dtype == np.float64
                assert parameter.grad.shape == parameter.shape
                assert np.abs(parameter.grad - mean).max(initial=0) < 1e-12


def test_counts_of_any_dtype_and_size_leave_the_dtype_of_the_gradients(impl, rng):
    """Their sum may be more than their dtype holds, and each more than that of the gradients."""
    counted = [(kind, [np.iinfo(kind).max, 1, np.iinfo(kind).max]) for kind in battery.INTEGERS[:-1]]
    counted += [(int, [2**70, 3, 2**69]), (int, [70_000, 70_000, 1]), (np.int64, [10**6, 0, 2 * 10**6])]
    for kind, values in counted:
        whole = [int(value) for value in values]
        for counts in (
            [kind(value) for value in values],
            np.array(values, kind if kind is not int else object),
        ):
            for dtype, tolerance in ((np.float16, 1e-2), (np.float32, 1e-5), (np.float64, 1e-13)):
                replicas = replicas_of(rng, 3, dtype)
                wide = [Parameter(each.data.astype(np.float64)) for each in replicas[0]]
                for parameter, places in zip(wide, zip(*replicas, strict=True), strict=True):
                    parts = [(each.grad.astype(np.float64), n) for each, n in zip(places, whole, strict=True)]
                    parameter.grad = np.asarray(sum(grad * (n / sum(whole)) for grad, n in parts))
                SGD(wide, 0.1).step()
                impl.ShardedOptimizer(replicas, lambda each: SGD(each, 0.1), Ring(3)).step(counts)
                impl.average_gradients(replicas, counts, Ring(3))
                for replica in replicas:
                    for parameter, expected in zip(replica, wide, strict=True):
                        assert parameter.grad.dtype == parameter.data.dtype == dtype
                        assert np.abs(parameter.grad - expected.grad).max() < tolerance
                        assert np.abs(parameter.data - expected.data).max() < tolerance


def test_weights_and_gradients_of_any_layout_of_memory(impl, rng):
    """What is put end to end are the entries in the order of their indices, not in that of memory."""
    for of_weights, of_gradients in itertools.product(battery.LAYOUTS, repeat=2):
        replicas = replicas_of(rng, 2, shapes=[(3, 4), (2, 2, 3), (5,)])
        for parameter in (each for replica in replicas for each in replica):
            gradient, weight = (
                battery.LAYOUTS[of_gradients](parameter.grad),
                battery.LAYOUTS[of_weights](parameter.data),
            )
            parameter.grad = gradient if gradient.flags.writeable else parameter.grad
            parameter.data = weight if weight.flags.writeable else parameter.data
        expected, start = weighted_means(replicas, [1, 2]), [each.data.copy() for each in replicas[0]]
        flat = np.concatenate([each.reshape(-1) for each in start])
        sharded = impl.ShardedOptimizer(replicas, lambda each: SGD(each, 0.5), Ring(2))
        slices = [each.groups[0]["parameters"][0].data for each in sharded.optimizers]
        assert np.array_equal(np.concatenate(slices), flat)
        sharded.step([1, 2])
        impl.average_gradients(replicas, [1, 2], Ring(2))
        for replica in replicas:
            for parameter, mean, weight in zip(replica, expected, start, strict=True):
                np.testing.assert_allclose(parameter.grad, mean, atol=1e-13)
                np.testing.assert_allclose(parameter.data, weight - 0.5 * mean, atol=1e-13)


def test_any_of_the_workers_may_have_no_examples(impl, rng):
    """All get the gradient and the weights, whoever has a say."""
    for counts in itertools.product((0, 1, 3), repeat=3):
        if not any(counts):
            continue
        replicas = replicas_of(rng, 3)
        for parameter in (
            each for replica, n in zip(replicas, counts, strict=True) if not n for each in replica
        ):
            parameter.grad[...] = np.nan
        expected, start = weighted_means(replicas, counts), [each.data.copy() for each in replicas[0]]
        impl.ShardedOptimizer(replicas, lambda each: SGD(each, 0.5), Ring(3)).step(counts)
        impl.average_gradients(replicas, counts, Ring(3))
        for replica in replicas:
            for parameter, mean, weight in zip(replica, expected, start, strict=True):
                np.testing.assert_allclose(parameter.grad, mean, atol=1e-13, err_msg=f"{counts}")
                np.testing.assert_allclose(
                    parameter.data, weight - 0.5 * mean, atol=1e-13, err_msg=f"{counts}"
                )


def test_gradients_of_replicas_share_no_memory(impl, rng):
    for n in (1, 3):
        replicas = replicas_of(rng, n)
        impl.average_gradients(replicas, [2] * n, Ring(n))
        gradients = [each.grad for replica in replicas for each in replica]
        for i, a in enumerate(gradients):
            assert not any(np.shares_memory(a, b) for b in gradients[:i])
            a += 1  # writable


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_worker_without_examples_has_no_say(impl, rng, value):
    replicas = replicas_of(rng, 3)
    for parameter in replicas[1]:
        parameter.grad[...] = value  # a mean over nothing
    expected = weighted_means(replicas, [2, 0, 3])
    impl.average_gradients(replicas, [2, 0, 3], Ring(3))
    for replica in replicas:
        for parameter, mean in zip(replica, expected, strict=True):
            assert np.abs(parameter.grad - mean).max() < 1e-13


def test_what_averaging_refuses(impl, rng):
    def changed(without=(), counts=(1, 2, 3)):
        replicas, ring = replicas_of(rng, 3), Ring(3)
        for rank, place in without:
            replicas[rank][place].grad = None
        kept = [[None if each.grad is None else each.grad.copy() for each in replica] for replica in replicas]
        weights = [[each.data.copy() for each in replica] for replica in replicas]
        battery.refuses(impl.average_gradients, replicas, counts, ring)
        sharded = impl.ShardedOptimizer(replicas, lambda each: SGD(each, 0.1, momentum=0.9), ring)
        battery.refuses(sharded.step, counts)
        assert ring.sent_bytes == [0, 0, 0]
        for replica, gradients, data in zip(replicas, kept, weights, strict=True):
            for parameter, gradient, weight in zip(replica, gradients, data, strict=True):
                assert (parameter.grad is None) == (gradient is None)
                assert gradient is None or np.array_equal(parameter.grad, gradient)
                assert np.array_equal(parameter.data, weight)
        states = [each for optimizer in sharded.optimizers for each in optimizer.state_dict().values()]
        assert all((each == 0).all() for each in states)
        for parameter in (each for replica in replicas for each in replica):
            parameter.grad = np.zeros(parameter.shape)
        sharded.step((1, 1, 1))  # and goes on as if nothing had been: no push, no move but the decay
        for replica, data in zip(replicas, weights, strict=True):
            for parameter, weight in zip(replica, data, strict=True):
                np.testing.assert_allclose(parameter.data, weight, rtol=1e-12)

    for rank in range(3):
        for place in range(4):
            changed(without=[(rank, place)])
    changed(without=[(0, 1), (1, 1), (2, 1)])
    changed(without=[(rank, place) for rank in range(3) for place in range(4)])
    changed(without=[(1, 2)], counts=(1, 0, 2))  # also on a worker that has no say
    changed(without=[(2, place) for place in range(4)], counts=(1, 2, 0))
    changed(counts=(0, 0, 0))
    changed(counts=np.zeros(3, int))


def losses_of(model, batch):
    x, y = batch
    return cross_entropy(model(Tensor(x)), y, reduction="sum"), int((y >= 0).sum())


def test_n_workers_are_one_worker_with_the_joined_batch(impl, rng):
    """Parts of different sizes, with targets that do not count: the gradient is that of all together."""
    for sizes in ([8], [4, 4], [1, 9, 3], [2, 2, 2, 2], [30, 1, 1, 1, 1]):
        x, y = rng.normal(size=(sum(sizes), 4)), rng.integers(3, size=sum(sizes))
        y[::4] = -100
        y[1] = 2
        models = [MLP([4, 5, 3], np.random.default_rng(7)) for _ in range(len(sizes) + 1)]
        accumulate(models[0], losses_of, [(x, y)])
        ends = np.cumsum(sizes)
        counts = []
        for model, end, size in zip(models[1:], ends, sizes, strict=True):
            part = (x[end - size : end], y[end - size : end])
            counts.append(int((part[1] >= 0).sum()))
            if counts[-1]:
                accumulate(model, losses_of, [part])
            else:
                for parameter in model.parameters():
                    parameter.grad = np.full(parameter.shape, np.nan)
        replicas = [list(model.parameters()) for model in models[1:]]
        impl.average_gradients(replicas, counts, impl.Network(len(sizes)))
        for replica in replicas:
            for got, expected in zip(replica, models[0].parameters(), strict=True):
                np.testing.assert_allclose(got.grad, expected.grad, atol=1e-13)


def adamw(parameters):
    return AdamW(parameters, 0.05, weight_decay=0.1)


def momentum(parameters):
    return SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("make_optimizer", [adamw, momentum])
def test_a_sharded_optimizer_does_what_a_whole_one_does(impl, rng, make_optimizer):
    for counts in ([3], [1, 4], [2, 0, 5], [1] * 4, [2] * 20):
        n = len(counts)
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-5)):
            replicas = replicas_of(rng, n, dtype)
            whole = [Parameter(each.data) for each in replicas[0]]
            optimizer, ring = make_optimizer(whole), Ring(n)
            sharded = impl.ShardedOptimizer(replicas, make_optimizer, ring)
            assert ring.sent_bytes == [0] * n
            arrays = [[each.data for each in replica] for replica in replicas]
            for step in range(4):
                for parameter in (each for replica in replicas for each in replica):
                    # In the third step nothing pushes, and the optimizer coasts on.
                    parameter.grad = (rng.normal(size=parameter.shape) * (step != 2)).astype(dtype)
                gradients = [[each.grad.copy() for each in replica] for replica in replicas]
                means = weighted_means(replicas, counts)
                for parameter, mean in zip(whole, means, strict=True):
                    parameter.grad = np.asarray(mean, dtype)
                optimizer.step()
                assert sharded.step(counts) is None
                for replica, own, before in zip(replicas, arrays, gradients, strict=True):
                    for got, expected, array, gradient in zip(replica, whole, own, before, strict=True):
                        assert got.data is array
                        assert got.dtype == dtype
                        assert np.abs(got.data - expected.data).max() < tolerance
                        assert np.array_equal(got.grad, gradient)
                ring.require_quiet(2 * (n - 1) * (step + 1))
            own = [stop - start for start, stop in slow_shards(15, n)]
            expected = [np.dtype(dtype).itemsize * 4 * (30 - own[r] - own[(r + 1) % n]) for r in range(n)]
            assert ring.sent_bytes == (expected if n > 1 else [0])
            for replica in replicas:
                assert all(
                    a.data.tobytes() == b.data.tobytes() for a, b in zip(replica, replicas[0], strict=True)
                )


def test_each_worker_keeps_the_state_of_its_slice(impl, rng):
    for n in (1, 2, 4, 20):
        replicas, made = replicas_of(rng, n), []

        def make(parameters, made=made):
            assert type(parameters) is list
            made.append(list(parameters))
            return AdamW(parameters, 0.05)

        flat = np.concatenate([each.data.reshape(-1) for each in replicas[0]])
        sharded = impl.ShardedOptimizer(replicas, make, Ring(n))
        assert len(sharded.optimizers) == n
        assert [len(parameters) for parameters in made] == [1] * n
        for optimizer, (parameter,), (start, stop) in zip(
            sharded.optimizers, made, slow_shards(15, n), strict=True
        ):
            assert isinstance(parameter, Parameter)
            assert np.array_equal(parameter.data, flat[start:stop])
            assert optimizer.groups[0]["parameters"][0] is parameter
        sharded.step([1] * n)
        flat = np.concatenate([each.data.reshape(-1) for each in replicas[0]])
        for optimizer, (parameter,), (start, stop) in zip(
            sharded.optimizers, made, slow_shards(15, n), strict=True
        ):
            assert optimizer.state_dict()["0.mean"].size == stop - start
            assert np.array_equal(parameter.data, flat[start:stop])


def test_the_rate_may_be_changed_between_steps(impl, rng):
    replicas = replicas_of(rng, 2)
    whole = [Parameter(each.data) for each in replicas[0]]
    optimizer, sharded = (
        SGD(whole, 0.1),
        impl.ShardedOptimizer(replicas, lambda each: SGD(each, 0.1), Ring(2)),
    )
    for rate in (0.1, 0.4, 0.0):
        for parameter, mean in zip(whole, weighted_means(replicas, [1, 3]), strict=True):
            parameter.grad = np.asarray(mean)
        for each in (optimizer, *sharded.optimizers):
            each.groups[0]["lr"] = rate
        optimizer.step()
        sharded.step([1, 3])
        for got, expected in zip(replicas[1], whole, strict=True):
            assert np.abs(got.data - expected.data).max() < 1e-13


def test_arrays_of_replicas_may_be_exchanged(impl, rng):
    """A step writes into the arrays that the parameters have then; gradients stay the same arrays."""
    replicas = replicas_of(rng, 2)
    sharded = impl.ShardedOptimizer(replicas, momentum, Ring(2))
    before = [each.data.copy() for each in replicas[0]]
    held = [[each.data for each in replica] for replica in replicas]
    for parameter in (each for replica in replicas for each in replica):
        parameter.data = parameter.data.copy()
        parameter.grad = np.ones(parameter.shape)
    arrays = [[(each.data, each.grad) for each in replica] for replica in replicas]
    sharded.step([1, 1])
    for replica, own, old in zip(replicas, arrays, held, strict=True):
        for parameter, (data, grad), array, start in zip(replica, own, old, before, strict=True):
            assert parameter.data is data
            assert parameter.grad is grad
            assert np.array_equal(array, start)
            np.testing.assert_allclose(data, start - 0.1 * (1 + 0.01 * start), rtol=1e-12)


def test_two_sharded_optimizers_share_nothing(impl, rng):
    replicas, others = replicas_of(rng, 2), replicas_of(rng, 2)
    first = impl.ShardedOptimizer(replicas, adamw, Ring(2))
    second = impl.ShardedOptimizer(others, adamw, Ring(2))
    before = [each.data.copy() for each in others[0]]
    first.step([1, 1])
    assert all(np.array_equal(a.data, b) for a, b in zip(others[0], before, strict=True))
    assert int(second.optimizers[0].state_dict()["0.n_steps"]) == 0


def test_many_workers_and_thousands_of_entries(impl, rng):
    for n, size in ((8, 2050), (13, 1000), (16, 16), (20, 3), (33, 100), (3, 20_000)):
        arrays = [rng.normal(size=size).astype(np.float32) for _ in range(n)]
        wide = np.array(arrays, np.float64)
        ring = Ring(n)
        for each in impl.all_reduce(arrays, ring):
            close(each, wide.sum(axis=0), n, np.abs(wide).sum(axis=0), np.float32)
        ring.require_quiet(2 * (n - 1))
        sums = impl.reduce_scatter(arrays, Ring(n))
        assert [len(each) for each in sums] == [stop - start for start, stop in slow_shards(size, n)]
        close(np.concatenate(sums), wide.sum(axis=0), n, np.abs(wide).sum(axis=0), np.float32)
        for each in impl.all_gather(sums, Ring(n)):
            assert np.array_equal(each, np.concatenate(sums))
