"""Oracles: each wave by `math.sin`, the rotation that a shift must be, rows and gradients by hand."""

import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.transformer.embedding import Embedding


def slow_waves(n_positions, width, base=10_000.0):
    found = np.zeros((n_positions, width))
    for p in range(n_positions):
        for i in range(width // 2):
            angle = p / float(base) ** (2 * i / width)
            found[p, 2 * i], found[p, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return found


def angles(n_positions, width, base=10_000.0):
    """A wave is off by the rounding of its angle."""
    i = np.arange(width) // 2
    return 1 + np.arange(n_positions)[:, None] / float(base) ** (2 * i / width)


def test_waves_by_hand(impl):
    """With base 100 and width 4 the second hand turns ten times more slowly."""
    got = impl.sinusoidal(3, 4, base=100.0)
    expected = [
        [0, 1, 0, 1],
        [0.8414709848078965, 0.5403023058681398, 0.09983341664682815, 0.9950041652780258],
        [0.9092974268256817, -0.4161468365471424, 0.19866933079506122, 0.9800665778412416],
    ]
    battery.check_equal(got, expected, ulps=16, magnitude=1, dtype=np.float64)
    assert impl.sinusoidal(1, 2).tolist() == [[0.0, 1.0]]
    # 10,000 ** (2 / 4) = 100: after 100 steps the second hand of width 4 has turned by 1.
    battery.check_equal(impl.sinusoidal(101, 4)[100, 2:], [math.sin(1), math.cos(1)], ulps=64)


def wave_cases():
    for n_positions, width in [
        (1, 2),
        (2, 2),
        (1, 8),
        (3, 4),
        (4, 4),
        (7, 6),
        (6, 7 * 2),
        (33, 10),
        (10, 34),
    ]:
        yield Case(f"{n_positions} x {width}", (n_positions, width))
    for base in (1, 1.0, 0.5, 0.01, 2.0, 10, 100.5, 1000, 10_000, 500_000.0, 1e6, 1e12):
        for n_positions, width in [(9, 6), (2, 12), (40, 2), (300, 4)]:
            yield Case(f"{n_positions} x {width}, base {base:g}", (n_positions, width), {"base": base})
    for n_positions, width in [(130, 4), (3, 130), (2, 514), (2, 1026), (129, 64), (5000, 2), (2500, 4)]:
        yield Case(f"{n_positions} x {width}", (n_positions, width))
    # Hands that hardly move: an error that grows from row to row is not excused by their angles.
    yield Case("2500 x 8, base 1e8", (2500, 8), {"base": 1e8})
    for n in aim.sizes(at_most=12_000):
        yield Case(f"{n} positions", (n, 2))
        yield Case(f"{n} positions, base 10", (n, 4), {"base": 10.0})
        yield Case(f"width {2 * n}", (2, 2 * n))
        yield Case(f"width {n + n % 2}, base 50", (3, n + n % 2), {"base": 50.0})
    for number in aim.NUMBERS:
        for base in (0.99 * number, number, 1.01 * number):
            if 1e-3 < base < 1e12:
                yield Case(f"base {base:g}", (9, 6), {"base": base})


def test_waves_everywhere(impl):
    battery.sweep(impl.sinusoidal, slow_waves, wave_cases(), ulps=64, magnitude=angles)


def test_waves_of_very_many_positions(impl):
    """Width 2: the first hand alone, whose angle is the position."""
    for n in aim.sizes(70_000, at_most=300_000):
        p = np.arange(float(n))
        expected = np.stack([np.sin(p), np.cos(p)], axis=1)
        battery.check_equal(impl.sinusoidal(n, 2), expected, ulps=64, magnitude=1 + p[:, None])


def test_a_shift_is_a_rotation(impl):
    """The row k places later is the same linear function of the row, whatever the row."""
    for width, base, k in [(2, 10_000.0, 1), (8, 10_000.0, 5), (16, 100.0, 40)]:
        rows = impl.sinusoidal(200, width, base)
        shift = np.zeros((width, width))
        for i in range(width // 2):
            angle = k / base ** (2 * i / width)
            c, s = math.cos(angle), math.sin(angle)
            shift[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
        battery.check_equal(rows[:-k] @ shift.T, rows[k:], ulps=64, magnitude=200)
        battery.check_equal((rows**2).sum(axis=1), np.full(200, width / 2), ulps=64, magnitude=width)


def test_what_waves_refuse(impl):
    for n_positions in (0, -1, -7):
        battery.refuses(impl.sinusoidal, n_positions, 4)
    for width in (0, 1, 3, 5, 33, 1001, -1, -2, -4):
        battery.refuses(impl.sinusoidal, 3, width)
    for base in (0, 0.0, -0.0, -1.0, -10_000.0, math.inf, -math.inf, math.nan):
        battery.refuses(impl.sinusoidal, 3, 4, base)
        battery.refuses(impl.sinusoidal, 1, 2, base=base)


def made(impl, weight):
    """Return learned positions with a given table."""
    weight = np.asarray(weight)
    table = impl.LearnedPositions(*weight.shape, np.random.default_rng(0), dtype=weight.dtype.type)
    table.load_state_dict({"weight": weight})
    return table


def test_rows_by_hand(impl):
    table = made(impl, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    assert table(2).data.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert table(2, first=1).data.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert table(1, 3).data.tolist() == [[6.0, 7.0]]
    assert table(n_tokens=4, first=0).data.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    for first in range(5):
        assert table(0, first).shape == (0, 2)
    assert table(1).data.tolist() == [[0.0, 1.0]]  # No call begins where another one ended.


def test_gradients_by_hand(impl):
    """Two texts of three tokens: each row gets the sum over texts; what other calls asked for is added."""
    table = made(impl, np.zeros((5, 2)))
    x = Tensor(np.ones((2, 3, 2)), requires_grad=True)
    y = x + table(3, first=1)
    g = np.arange(12.0).reshape(2, 3, 2)
    y.backward(g)
    assert table.weight.grad.tolist() == [[0.0, 0.0], [6.0, 8.0], [10.0, 12.0], [14.0, 16.0], [0.0, 0.0]]
    assert x.grad.tolist() == g.tolist()
    table(2).backward(np.array([[100.0, 200.0], [300.0, 400.0]]))
    expected = [[100.0, 200.0], [306.0, 408.0], [10.0, 12.0], [14.0, 16.0], [0.0, 0.0]]
    assert table.weight.grad.tolist() == expected
    early, late = table(2, first=3), table(2, first=2)
    table.weight.grad = None
    late.backward(np.ones((2, 2)))
    early.backward(np.full((2, 2), 5.0))
    assert table.weight.grad.tolist() == [[0.0] * 2, [0.0] * 2, [1.0] * 2, [6.0] * 2, [5.0] * 2]
    with no_grad():
        assert not table(2).requires_grad
    assert table(2).requires_grad
    table.weight.requires_grad = False
    assert not table(2).requires_grad


def row_cases():
    """How many rows, how wide, how many are asked for, from where."""
    for n, width in [(1, 1), (2, 3), (3, 3), (5, 2), (8, 1), (33, 4), (130, 2), (3, 130)]:
        for first in sorted({0, 1, n // 2, n - 1}):
            for n_tokens in sorted({1, (n - first) // 2, n - first}):
                if first + n_tokens <= n:
                    yield n, width, n_tokens, first
    for n in aim.sizes(1030, 2060, at_most=9000):
        yield from [(n, 2, n, 0), (n, 1, 2, n - 2), (n, 2, n - 3, 2), (n, 1, 1, n // 2), (2 * n, 1, n, n)]
        yield from [(3, n, 2, 1), (3, n, 3, 0)]


def test_rows_and_gradients_everywhere(impl, rng):
    for n, width, n_tokens, first in row_cases():
        for dtype in battery.FLOATS if n * width < 1000 else (np.float64,):
            weight = rng.normal(size=(n, width)).astype(dtype)
            table, told = (
                made(impl, weight),
                f"{n_tokens} rows from {first} of {n} x {width} {dtype.__name__}",
            )
            rows, again = table(n_tokens, first), table(n_tokens, first)
            for each in (rows, again):
                assert isinstance(each, Tensor)
                battery.check_equal(each, weight[first : first + n_tokens], ulps=0, dtype=dtype, label=told)
            g = rng.normal(size=rows.shape).astype(dtype)
            kept = g.copy()
            rows.backward(g)
            expected = np.zeros((n, width))
            expected[first : first + n_tokens] = g
            battery.check_equal(table.weight.grad, expected, ulps=0, dtype=dtype, label=told)
            assert np.array_equal(g, kept)
            rows.data[...] = 7
            assert np.array_equal(table.weight.data, weight), f"the result is not new: {told}"
            assert np.array_equal(again.data, weight[first : first + n_tokens])
            if not first:
                battery.check_equal(table(n_tokens), weight[:n_tokens], ulps=0, label=told)


def test_rows_of_any_number(impl):
    weight = np.array([[1e308, 5e-324], [np.inf, -0.0], [np.nan, 1.0], [1e-300, -np.inf]])
    assert repr(made(impl, weight)(4).data.tolist()) == repr(weight.tolist())
    table = made(impl, np.zeros((3, 2)))
    g = [[np.nan, 1e300], [np.inf, -1e-300]]
    table(2, 1).backward(np.array(g))
    assert repr(table.weight.grad.tolist()) == repr([[0.0, 0.0], *g])


def test_integers_of_any_dtype(impl):
    table = made(impl, np.arange(400.0)[:, None])
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        rows = table(dtype(100), first=dtype(100))
        assert rows.data[:, 0].tolist() == list(range(100, 200))
        assert table(dtype(3)).data[:, 0].tolist() == [0.0, 1.0, 2.0]
        assert table(2, dtype(120)).data[:, 0].tolist() == [120.0, 121.0]
        battery.refuses(made(impl, np.ones((150, 1))), dtype(120), first=dtype(120))
        if np.iinfo(dtype).min < 0:
            battery.refuses(table, dtype(-1))
            battery.refuses(table, dtype(2), dtype(-1))
    assert table(np.uint8(200), np.uint8(200)).shape == (200, 1)


def test_what_is_refused(impl, rng):
    for n in (1, 4, 130, 1030):
        table = made(impl, np.ones((n, 2)))
        wrong = [(n + 1, 0), (n, 1), (1, n), (0, n + 1), (2 * n, 0), (1, 2 * n), (2, n - 1), (10**6, 0)]
        wrong += [(1, 10**6), (1, 2**63), (2**63, 1), (2**64, 0), (2, 2**64 - 2)]
        wrong += [
            (-1, 0),
            (-1, 1),
            (-1, n),
            (1, -1),
            (n, -1),
            (n + 1, -1),
            (0, -1),
            (n, -n),
            (-n, n),
            (-2, -2),
        ]
        wrong += [(1, -n), (n, -(2**63)), (-(2**63), n)]
        for n_tokens, first in wrong:
            battery.refuses(table, n_tokens, first)
        assert table(n).shape == (n, 2)
        assert table(0, n).shape == (0, 2)
    for n_positions, width in [(0, 3), (3, 0), (0, 0), (-1, 3), (3, -2)]:
        battery.refuses(impl.LearnedPositions, n_positions, width, rng)


def test_what_a_table_holds(impl, rng):
    for dtype in battery.FLOATS:
        table = impl.LearnedPositions(4, 3, rng, dtype=dtype)
        assert isinstance(table, Module)
        assert isinstance(table.weight, Parameter)
        assert [(name, each.shape) for name, each in table.named_parameters()] == [("weight", (4, 3))]
        assert table.weight.dtype == table(2).dtype == dtype
        assert table.weight.requires_grad
        assert table.weight.data.flags.writeable
    assert impl.LearnedPositions(4, 3, rng).weight.dtype == np.float64


def test_a_table_starts_as_an_embeddings(impl):
    sizes = [(1, 1), (5, 4), (4, 5), (130, 3), (3, 130)]
    for n, width in sizes + [(n, 2) for n in aim.sizes(1030, at_most=3000)]:
        for options in (
            {},
            {"std": 0.5},
            {"std": 2.0, "dtype": np.float32},
            {"std": 0.0},
            {"dtype": np.float16},
        ):
            rng, twin = np.random.default_rng(n), np.random.default_rng(n)
            for _ in range(2):
                got = impl.LearnedPositions(n, width, rng, **options).weight
                expected = Embedding(n, width, twin, **options).weight
                assert got.dtype == expected.dtype
                assert np.array_equal(got.data, expected.data), f"{n} x {width}, {options}"
            assert rng.random() == twin.random()
    by_place = impl.LearnedPositions(5, 4, np.random.default_rng(1), 0.3, np.float32).weight
    assert np.array_equal(
        by_place.data, Embedding(5, 4, np.random.default_rng(1), 0.3, np.float32).weight.data
    )


def test_the_table_may_be_changed_and_exchanged(impl):
    """An optimizer changes it in place; another one may take its place, of another shape too."""
    table, other = made(impl, [[1.0, 2.0], [3.0, 4.0]]), made(impl, [[1.0, 0.0, 5.0]] * 4)
    assert table(1, 1).data.tolist() == [[3.0, 4.0]]
    table.weight.data *= 10
    assert table(1, 1).data.tolist() == [[30.0, 40.0]]
    table.weight.data = np.array([[7.0, 7.0], [8.0, 8.0], [9.0, 9.0]])
    assert table(2, 1).data.tolist() == [[8.0, 8.0], [9.0, 9.0]]
    table.weight = other.weight
    rows = table(2, 2)
    assert rows.data.tolist() == [[1.0, 0.0, 5.0]] * 2
    rows.backward(np.ones((2, 3)))
    assert other.weight.grad.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    battery.refuses(table, 5)
    table.weight = Parameter(np.ones((1, 2)))
    battery.refuses(table, 2)


def works(table):
    """Rows, dtype, gradients and end are those of the table that is there now."""
    weight = table.weight
    values, n = weight.data.copy(), len(weight.data)
    for n_tokens, first in [(n, 0), (1, n - 1), (n - 1, 1), (0, n)]:
        weight.grad = None
        rows = table(n_tokens, first)
        battery.check_equal(rows, values[first : first + n_tokens], ulps=0, dtype=values.dtype)
        rows.backward(np.ones(rows.shape))
        expected = np.zeros(values.shape)
        expected[first : first + n_tokens] = 1
        battery.check_equal(weight.grad, expected, ulps=0, dtype=values.dtype)
    battery.refuses(table, n + 1)


def test_every_table_that_takes_the_place_is_read(impl, rng):
    """In the same or another shape and dtype, as a parameter or as its array, in training and in use."""
    table = made(impl, rng.normal(size=(4, 3)))
    works(table)
    for shape in [(4, 3), (4, 3), (6, 3), (2, 3), (2, 5)]:
        for dtype in battery.FLOATS:
            table.weight.data = rng.normal(size=shape).astype(dtype)
            works(table)
            table.weight = Parameter(rng.normal(size=shape).astype(dtype))
            works(table)
        works(table.eval())
        works(table.train())


def test_a_gradient_goes_to_the_table_that_was_read(impl):
    """Also when another one has taken its place since."""
    for shape in [(4, 3), (6, 3), (2, 3), (4, 1)]:
        table = made(impl, np.ones((4, 3)))
        read, rows = table.weight, table(2, 1)
        table.weight = Parameter(np.ones(shape))
        rows.backward(np.full((2, 3), 5.0))
        assert read.grad.tolist() == [[0.0] * 3, [5.0] * 3, [5.0] * 3, [0.0] * 3]
        assert table.weight.grad is None


def test_tables_share_nothing_and_depend_on_their_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, two = (impl.LearnedPositions(3, 2, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(one.weight.data, two.weight.data)
    one.weight.data += 1
    assert not np.array_equal(one.weight.data, two.weight.data)
    one(2).backward(np.ones((2, 2)))
    assert two.weight.grad is None
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    waves = impl.sinusoidal(4, 6)
    with elsewhere(impl):
        assert np.array_equal(impl.sinusoidal(4, 6), waves)
        drawn = impl.LearnedPositions(3, 2, np.random.default_rng(0))
        assert np.array_equal(drawn.weight.data, two.weight.data)
