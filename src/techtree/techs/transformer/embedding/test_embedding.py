"""Oracles: values by hand, and the table written out as a product with vectors that are 1 at the id."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad

FLOATS = (np.float64, np.float32, np.float16)
SIZES = (0.0, 1e-30, 1e-3, 1e3, 1e9, 1e30)


def made(impl, weight):
    """Return an embedding with a given table."""
    weight = np.asarray(weight)
    table = impl.Embedding(*weight.shape, np.random.default_rng(0), dtype=weight.dtype.type)
    table.load_state_dict({"weight": weight})
    return table


def same(got, expected, what):
    got = np.asarray(got)
    if not np.array_equal(got, expected):
        raise battery.MismatchError(
            f"wrong: {what}", [f"expected: {battery.drawn(expected)}", f"yours: {got}"]
        )


def test_by_hand(impl):
    """Row 2 is used twice and gets 1 + 10 and 1 + 20; row 1 never."""
    table = made(impl, [[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    x = table(np.array([2, 0, 2]))
    assert x.data.tolist() == [[0.0, 3.0], [1.0, 0.0], [0.0, 3.0]]
    x.backward(np.array([[1.0, 1.0], [5.0, 5.0], [10.0, 20.0]]))
    assert table.weight.grad.tolist() == [[5.0, 5.0], [0.0, 0.0], [11.0, 21.0]]


def test_unembed_by_hand(impl):
    """The scores of [10, 1] are 10, 20 and 3; a square table, so that a transposed one would fit too."""
    table = made(impl, [[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    x = Tensor([10.0, 1.0], requires_grad=True)
    y = table.unembed(x)
    assert y.data.tolist() == [10.0, 20.0, 3.0]
    y.backward(np.array([1.0, 0.0, 100.0]))
    assert table.weight.grad.tolist() == [[10.0, 1.0], [0.0, 0.0], [1000.0, 100.0]]
    assert x.grad.tolist() == [1.0, 300.0]
    assert made(impl, [[1.0, 2.0], [3.0, 4.0]]).unembed(Tensor([[1.0, 10.0]])).data.tolist() == [[21.0, 43.0]]


def test_one_table_for_both_ends_gets_both_gradients(impl):
    """Scores of row 0 against all: w w0. Row 0 gets w0 for its score, and all rows for the look-up."""
    table = made(impl, [[1.0, 2.0], [3.0, 5.0]])
    table.unembed(table(np.array([0]))).backward(np.array([[1.0, 10.0]]))
    # As a head: g * w0 = [1, 2] and [10, 20]. Looked up: 1 * w0 + 10 * w1 = [31, 52].
    assert table.weight.grad.tolist() == [[1.0 + 31.0, 2.0 + 52.0], [10.0, 20.0]]
    table.unembed(Tensor([1.0, 1.0])).backward(np.array([0.0, 1.0]))
    assert table.weight.grad.tolist() == [[32.0, 54.0], [11.0, 21.0]]
    table(np.array([1, 1])).backward(np.array([[1.0, 0.0], [2.0, 0.0]]))
    assert table.weight.grad.tolist() == [[32.0, 54.0], [14.0, 21.0]]


def test_what_a_table_holds(impl, rng):
    table = impl.Embedding(4, 3, rng)
    assert isinstance(table, Module)
    assert [(name, each.shape) for name, each in table.named_parameters()] == [("weight", (4, 3))]
    assert isinstance(table.weight, Parameter)
    assert table.weight.requires_grad
    assert table.weight.dtype == np.float64
    assert table.weight.data.flags.writeable
    for dtype in FLOATS:
        table = impl.Embedding(4, 3, rng, dtype=dtype)
        assert table.weight.dtype == dtype
        assert table(np.array([1, 2])).dtype == dtype
        for leading in ((), (2,), (2, 2), (1, 2, 1)):
            assert table.unembed(Tensor(np.ones((*leading, 3), dtype))).dtype == dtype
            assert table(np.ones(leading, int)).dtype == dtype
    with no_grad():
        assert impl.Embedding(4, 3, rng).weight.requires_grad


def test_every_dtype_of_ids(impl):
    weight = np.arange(200 * 2.0).reshape(200, 2)
    table = made(impl, weight)
    for dtype in (
        np.int8,
        np.uint8,
        np.int16,
        np.uint16,
        np.int32,
        np.uint32,
        np.int64,
        np.uint64,
        ">i4",
        ">u8",
    ):
        ids = np.array([[3, 0, 120], [3, 99, 3]], dtype)
        table.weight.grad = None
        x = table(ids)
        same(x.data, weight[ids.astype(int)], f"rows of ids of dtype {np.dtype(dtype)}")
        x.backward(np.ones((2, 3, 2)))
        expected = np.zeros((200, 2))
        expected[[0, 99, 120]], expected[3] = 1, 3
        same(table.weight.grad, expected, f"the gradient for ids of dtype {np.dtype(dtype)}")


def test_what_is_refused(impl):
    for n_tokens in (1, 5, 200, 300):
        table = made(impl, np.ones((n_tokens, 2)))
        last = n_tokens - 1
        assert table(np.array([0, last])).shape == (2, 2)
        for wrong in (-1, n_tokens, -n_tokens, n_tokens + 1, 2**31, -(2**31), 2**40, 2**62, -(2**63)):
            for ids in (
                wrong,
                [wrong],
                [0, wrong],
                [wrong, 0],
                [[0, 0], [0, wrong]],
                [0, wrong, 0],
                [0] * 3000 + [wrong, 0],
            ):
                battery.refuses(table, np.array(ids))
        for wrong in (n_tokens, 2**63, 2**64 - 1, 2**64 - n_tokens):
            battery.refuses(table, np.array([0, wrong], np.uint64))
        for dtype in (np.int8, np.int16, np.int32):
            battery.refuses(table, np.array([0, -1], dtype))
        for mask in (np.ones(n_tokens, bool), np.arange(n_tokens) == last, np.ones((n_tokens, 2), bool)):
            battery.refuses(table, mask)
    table = made(impl, np.ones((300, 2)))
    for dtype in (np.int16, np.uint16, np.int32):
        battery.refuses(table, np.array([300], dtype))
    for ids in ([0.0, 1.0], [True, False], [1.5], ["a"], [1 + 0j], []):
        battery.refuses(table, np.array(ids))
    battery.refuses(table, np.array([1, 2], np.float32))
    battery.refuses(table, np.array(1.0))
    battery.refuses(table, np.zeros((2, 0), bool))
    for n_tokens, width in [(0, 3), (3, 0), (0, 0), (-1, 3), (3, -2)]:
        battery.refuses(impl.Embedding, n_tokens, width, np.random.default_rng(0))


def test_what_unembed_refuses(impl):
    for width in (1, 3, 4):
        table = made(impl, np.ones((4, width)))
        for shape in [
            (),
            (1,),
            (2,),
            (3,),
            (4,),
            (4, 2),
            (2, 4),
            (3, 1),
            (4, 4),
            (5, 0),
            (0,),
            (0, 2),
            (3, 3, 6),
        ]:
            if shape[-1:] != (width,):
                battery.refuses(table.unembed, Tensor(np.ones(shape)))


def test_the_table_may_be_changed_and_exchanged(impl):
    """An optimizer changes it in place; another one may take its place, of another shape too."""
    table, other = made(impl, [[1.0, 2.0], [3.0, 4.0]]), made(impl, [[1.0, 0.0, 5.0]] * 4)
    ids, x = np.array([1, 0]), Tensor([1.0, 1.0])
    assert table(ids).data.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert table.unembed(x).data.tolist() == [3.0, 7.0]
    table.weight.data *= 10
    assert table(ids).data.tolist() == [[30.0, 40.0], [10.0, 20.0]]
    assert table.unembed(x).data.tolist() == [30.0, 70.0]
    table.weight.data = np.array([[7.0, 7.0], [8.0, 8.0]])
    assert table(ids).data.tolist() == [[8.0, 8.0], [7.0, 7.0]]
    earlier, before, x_before = table(ids), table.weight, Tensor([1.0, 1.0])
    scores = table.unembed(x_before)
    table.weight = other.weight
    (earlier.sum() + scores.sum()).backward()  # belongs to the table of its call
    assert before.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert other.weight.grad is None
    y = table(np.array([3]))
    assert y.data.tolist() == [[1.0, 0.0, 5.0]]
    y.backward(np.ones((1, 3)))
    assert other.weight.grad.tolist() == [[0.0] * 3] * 3 + [[1.0] * 3]
    assert table.unembed(Tensor([1.0, 1.0, 1.0])).data.tolist() == [6.0] * 4
    battery.refuses(table, np.array([4]))
    battery.refuses(table.unembed, x)
    rows = table(np.array([0, 1]))
    rows.data += 1
    assert other.weight.data.tolist() == [[1.0, 0.0, 5.0]] * 4
    in_order = table(np.arange(4))
    in_order.data += 1
    assert other.weight.data.tolist() == [[1.0, 0.0, 5.0]] * 4
    row = table(np.array(2))  # An index without axes is a view in NumPy.
    row.data += 1
    assert other.weight.data.tolist() == [[1.0, 0.0, 5.0]] * 4


def test_tables_share_nothing(impl):
    first, second = (impl.Embedding(3, 3, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(first.weight.data, second.weight.data)
    first.weight.data += 1
    assert not np.array_equal(first.weight.data, second.weight.data)
    first(np.array([0])).backward(np.ones((1, 3)))
    assert second.weight.grad is None


def test_gradients_flow_where_they_are_wanted(impl):
    table = made(impl, np.eye(3))
    x = Tensor([[1.0, 2.0, 3.0]])
    assert table(np.array([1])).requires_grad
    assert table.unembed(x).requires_grad
    with no_grad():
        assert not table(np.array([1])).requires_grad
        assert not table.unembed(x).requires_grad
    table.unembed(table(np.array([[1, 1], [0, 1]])).sum(axis=0)).sum().backward()
    # Sums of rows: [1, 1, 0] and [0, 2, 0], which are the gradient of each row as a head: [1, 3, 0].
    # What comes back to each row that was looked up is the sum of all rows, [1, 1, 1].
    assert table.weight.grad.tolist() == [[2.0, 4.0, 1.0], [4.0, 6.0, 3.0], [1.0, 3.0, 0.0]]
    table.weight.requires_grad = False
    assert not table(np.array([1])).requires_grad


def test_order_of_backward_passes(impl, rng):
    """Two look-ups, of which the later is asked first; the gradient of each place goes to its own row."""
    table = made(impl, rng.normal(size=(5, 2)))
    first, second = np.array([4, 0, 4]), np.array([[1, 1], [4, 2]])
    one, two = table(first), table(second)
    g, h = rng.normal(size=(3, 2)), rng.normal(size=(2, 2, 2))
    two.backward(h)
    one.backward(g)
    expected = slow_gradient(5, 2, first, g) + slow_gradient(5, 2, second, h)
    battery.check_equal(table.weight.grad, expected, ulps=8, magnitude=4)
    table.weight.grad = None
    one, two = table(first), table(first[::-1].copy() // 2)
    two.backward(g)
    one.backward(h[0, 0] * g)
    expected = slow_gradient(5, 2, first // 2, g[::-1]) + slow_gradient(5, 2, first, h[0, 0] * g)
    battery.check_equal(table.weight.grad, expected, ulps=8, magnitude=4, label="ids of one shape")


def slow_gradient(n_tokens, width, ids, g):
    whole = [[[] for _ in range(width)] for _ in range(n_tokens)]
    for each, row in zip(ids.ravel().tolist(), g.reshape(ids.size, width).tolist(), strict=True):
        for place, number in zip(whole[each], row, strict=True):
            place.append(number)
    return np.array([[math.fsum(place) for place in row] for row in whole])


def shapes(rng):
    """Shapes of ids, and sizes of the table."""
    plain = [(), (1,), (0,), (7,), (300,), (2, 3), (3, 2), (9, 4), (2, 0), (4, 1, 3), (2, 1, 2, 1, 2)]
    found = [(shape, 5, 3) for shape in plain]
    found += [((6,), n, w) for n, w in [(1, 1), (1, 4), (2, 2), (4, 1), (130, 3), (3, 130), (6, 6), (300, 2)]]
    for size in aim.sizes(at_most=5000):
        found += [((size,), 3, 2), ((size, 2), 3, 2), ((2, size), 3, 2)]
        found += [((3,), size, 2), ((3,), 2, size), ((size,), size, 1)]
    return found + [(((2, 1) * n_axes)[:n_axes], 3, 2) for n_axes in aim.whole(3, 16)]


def test_rows_and_their_gradients_everywhere(impl, rng):
    for shape, n_tokens, width in shapes(rng):
        ids = rng.integers(n_tokens, size=shape)
        if ids.size:
            ids.flat[-1] = n_tokens - 1
        for dtype in FLOATS:
            weight = rng.normal(size=(n_tokens, width)).astype(dtype)
            table, kept = made(impl, weight), ids.copy()
            x = table(ids)
            told = f"{shape} ids, {n_tokens} x {width} {np.dtype(dtype)}"
            assert isinstance(x, Tensor)
            assert x.dtype == dtype
            same(x.data, weight[ids], told)
            g = rng.normal(size=x.shape).astype(dtype)
            x.backward(g)
            expected = slow_gradient(n_tokens, width, ids, g.astype(float))
            size = slow_gradient(n_tokens, width, ids, np.abs(g.astype(float)))
            battery.check_equal(table.weight.grad, expected, ulps=8, magnitude=size, dtype=dtype, label=told)
            same(ids, kept, f"ids were changed: {told}")
            same(table.weight.data, weight, f"the table was changed: {told}")
            same(table(ids).data, weight[ids], f"at a second call: {told}")


def test_ids_in_any_layout(impl, rng):
    weight = rng.normal(size=(9, 2))
    base = rng.integers(9, size=(4, 6))
    for name, layout in battery.LAYOUTS.items():
        ids = layout(base)
        table = made(impl, weight)
        x = table(ids)
        same(x.data, weight[np.ascontiguousarray(ids)], f"ids {name}")
        g = rng.normal(size=x.shape)
        x.backward(g)
        battery.check_equal(table.weight.grad, slow_gradient(9, 2, ids, g), ulps=16, magnitude=10, label=name)
        table.weight.grad = None
        x = table(base)
        x.backward(layout(g.transpose(1, 0, 2)).transpose(1, 0, 2))
        assert table.weight.grad.shape == (9, 2)


def test_a_row_that_is_used_a_thousand_times(impl, rng):
    """In float16 sums stop growing at 2048: adding 1 changes nothing there."""
    for n, dtype in [(5000, np.float16), (70_000, np.float16), (70_000, np.float32)]:
        table = impl.Embedding(3, 1, rng, dtype=dtype)
        step = 1 if n < 10_000 else 0.875  # 61,250 in all, not far from what float16 holds
        table(np.full(n, 1)).backward(np.full((n, 1), step, dtype))
        battery.check_equal(table.weight.grad, [[0.0], [n * step], [0.0]], ulps=4, dtype=dtype)


def test_a_large_vocabulary(impl):
    """More rows than 16 bits can count."""
    n_tokens = 100_000
    table = made(impl, np.arange(float(n_tokens))[:, None])
    ids = np.array([0, 255, 256, 32767, 32768, 65535, 65536, n_tokens - 1, 65536])
    x = table(ids)
    assert x.data[:, 0].tolist() == ids.tolist()
    x.backward(np.ones((len(ids), 1)))
    assert np.flatnonzero(table.weight.grad).tolist() == sorted({*ids.tolist()})
    assert table.weight.grad[65536].tolist() == [2.0]
    battery.refuses(table, np.array([0, n_tokens]))


def test_values_of_any_size(impl):
    """Rows are copied, also what is infinite or NaN, and what stands in other rows does not enter."""
    weight = np.array([[1e308, 5e-324], [np.inf, -0.0], [np.nan, 1.0], [1e-300, -np.inf]])
    x = made(impl, weight)(np.array([0, 3, 1]))
    assert repr(x.data.tolist()) == repr(weight[[0, 3, 1]].tolist())
    table = made(impl, np.ones((3, 2)))
    table(np.array([0, 2, 0])).backward(np.array([[1e308, 1e300], [1e-300, -1e200], [-1e308, 1.0]]))
    assert table.weight.grad.tolist() == [[0.0, 1e300], [0.0, 0.0], [1e-300, -1e200]]
    table.weight.grad = None
    table(np.array([2, 2])).backward(np.array([[np.nan, np.inf], [1.0, 1.0]]))
    assert repr(table.weight.grad[2].tolist()) == repr([np.nan, np.inf])


def slow_scores(x, weight):
    flat = x.reshape(-1, x.shape[-1])
    scores = [[math.fsum(row * token) for token in weight] for row in flat]
    return np.array(scores).reshape(*x.shape[:-1], len(weight))


def slow_score_gradients(g, x, weight):
    rows, flat = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    of_x = np.array([[math.fsum(row * column) for column in weight.T] for row in rows]).reshape(x.shape)
    return [of_x, np.array([[math.fsum(a * b) for b in flat.T] for a in rows.T])]


def score_cases(rng):
    leading = [(1,), (0,), (2, 3), (6, 2), (9,), (2, 1, 3), (5, 4, 1), (140,)]
    leading += [each for n in aim.sizes(at_most=2000) for each in ((n,), (n, 1), (2, n))]
    leading += [((2, 1) * n_axes)[:n_axes] for n_axes in aim.whole(3, 16)]
    sizes = {"w": (1, 2, 7, 33, 130), "v": (1, 2, 7, 33, 130), "...": leading}
    values = {f"of size {size:g}": lambda shape, size=size: size * rng.normal(size=shape) for size in SIZES}
    options = {"sizes": sizes, "values": values, "at_most": 2000, "largest": 1e15}
    found = battery.cases(rng, "... w, v w", **options)
    return found + battery.cases(rng, "... w, w w", **options)  # square tables


def test_scores_everywhere(impl, rng):
    def size(x, weight):
        return np.abs(x).max(initial=0) * np.abs(weight).max(initial=0) * math.sqrt(x.shape[-1])

    # Products are added in any order: a few units of their typical sum.
    battery.sweep(
        lambda x, weight: made(impl, weight).unembed(Tensor(x)),
        slow_scores,
        score_cases(rng),
        ulps=32,
        magnitude=size,
    )


def test_gradients_of_scores_everywhere(impl, rng):
    def function(x, weight):
        table = impl.Embedding(*weight.shape, np.random.default_rng(0), dtype=weight.dtype.type)
        table.weight = weight
        return table.unembed(x)

    def size(x, weight):
        return (
            4 * (np.abs(x).max(initial=0) + np.abs(weight).max(initial=0)) * math.sqrt(x.size + weight.size)
        )

    battery.sweep_gradients(
        function, slow_score_gradients, score_cases(rng), tensor=Parameter, rng=rng, ulps=16, magnitude=size
    )


@pytest.mark.parametrize(("n_tokens", "width"), [(200, 150), (3000, 8), (1, 20_000), (20_000, 1)])
def test_the_table_at_the_start(impl, rng, n_tokens, width):
    """The moments of a normal number are 0, 1, 3, of variance 1, 2, 96."""
    for options, std in (({}, 0.02), ({"std": 0.5}, 0.5), ({"std": 3.0, "dtype": np.float32}, 3.0)):
        w = impl.Embedding(n_tokens, width, rng, **options).weight.data.astype(float) / std
        n, square = w.size, (w**2).mean()
        assert abs(w.mean()) < 6 / math.sqrt(n)
        assert abs(square - 1) < 6 * math.sqrt(2 / n)
        assert abs((w**4).mean() / square**2 - 3) < 6 * math.sqrt(24 / n)
        assert 3 < np.abs(w).max() < 7
        if "dtype" not in options:
            assert len(np.unique(w)) == n
        for a in (w, w.T):
            if len(a) > 1:
                assert abs((a[:-1] * a[1:]).mean()) < 6 / math.sqrt((len(a) - 1) * a.shape[1])
                sums = (a.sum(axis=1) ** 2 / a.shape[1]).mean()
                assert abs(sums - 1) < 6 * math.sqrt(2 / len(a)) + 6 / math.sqrt(n)


def test_where_randomness_comes_from(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    for seed in (0, 1, 2**40):
        w = impl.Embedding(5, 4, np.random.default_rng(seed)).weight.data
        assert np.array_equal(w, impl.Embedding(5, 4, np.random.default_rng(seed)).weight.data)
        assert not np.allclose(w, impl.Embedding(5, 4, np.random.default_rng(seed + 1)).weight.data)
    rng, twin = np.random.default_rng(1), np.random.default_rng(1)
    first = impl.Embedding(5, 4, rng).weight.data.copy()
    assert not np.allclose(first, impl.Embedding(5, 4, rng).weight.data)
    assert rng.random() != twin.random()
    half = impl.Embedding(5, 4, np.random.default_rng(1), std=0.01).weight.data
    assert np.allclose(half * 2, first, rtol=1e-12, atol=0)
    assert (impl.Embedding(5, 4, rng, std=0.0).weight.data == 0).all()
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
