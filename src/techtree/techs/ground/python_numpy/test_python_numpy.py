"""Oracles: NumPy itself, which is given, addresses worked out by hand, and the definitions in slow loops.

Strides are judged by the entries that they lead to: where an axis has fewer than two, they are free.
"""

import itertools
import re

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.battery import Case, MismatchError

HUGE = 10**6  # an array with three such axes would take 8 million terabytes: only arithmetic deals with it
LENGTHS = (1, 2, 3, 7, 34, 130, 300, 5000, 2**31, 2**32 + 1, 2**53 + 1, 2**63, 2**70)
WHOLE, BACKWARDS = slice(None), slice(None, None, -1)


def numbers(*ordinary, at_most=2**200):
    """Numbers to try: ordinary ones, those of `LENGTHS`, and those beside what the source names."""
    return aim.sizes(*ordinary, *(n for n in LENGTHS if n <= at_most), at_most=at_most)


def drawn_shape(rng, n_axes, low=1, high=9):
    return tuple(int(each) for each in rng.integers(low, high, size=n_axes))


def entries(buffer, shape, strides, offset):
    """Read an array out of a buffer with NumPy's own constructor, which refuses bytes outside of it."""
    return np.ndarray(shape, buffer.dtype, buffer.data, offset, strides)


# c_strides -------------------------------------------------------------------------------------------------


def slow_strides(shape, itemsize):
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def test_strides_by_hand(impl):
    assert impl.c_strides((2, 3, 5), 4) == (60, 20, 4)
    assert impl.c_strides((2, 3, 5), 1) == (15, 5, 1)
    assert impl.c_strides((7,), 8) == (8,)
    assert impl.c_strides((), 8) == ()
    assert impl.c_strides((HUGE, HUGE, HUGE), itemsize=8) == (8 * HUGE**2, 8 * HUGE, 8)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 3, 5), (5, 1, 2), (1, 1), (2, 2, 2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_strides_reach_every_entry_in_order(impl, shape, dtype):
    x = np.arange(np.prod(shape), dtype=dtype)
    strides = impl.c_strides(shape, x.itemsize)
    assert len(strides) == len(shape)
    assert np.array_equal(entries(x, shape, strides, 0), x.reshape(shape))


def test_strides_where_a_length_is_0_mean_nothing_but_are_there(impl):
    for shape in [(0,), (3, 0), (0, 3), (2, 0, 5), (0, 0), (0,) * 9]:
        strides = impl.c_strides(shape, 4)
        asked = f"c_strides({shape}, 4)"
        assert isinstance(strides, tuple), f"{asked} must be a tuple; got {strides!r}"
        assert [type(each) for each in strides] == [int] * len(shape), f"{asked} gives {strides!r}"


# slice_view ------------------------------------------------------------------------------------------------


def slow_view(shape, strides, offset, index):
    """One axis after the other, by Python's own ranges."""
    new_shape, new_strides = [], []
    for axis, length in enumerate(shape):
        at = index[axis] if axis < len(index) else WHOLE
        positions = range(length)[at]
        if isinstance(positions, int):
            offset += strides[axis] * positions
            continue
        new_shape.append(max(0, -(-(positions.stop - positions.start) // positions.step)))
        new_strides.append(strides[axis] * positions.step)
        offset += strides[axis] * positions.start
    return tuple(new_shape), tuple(new_strides), offset


def settled(view):
    """Put 0 where the answer is free; types stay as they are."""
    shape, strides, offset = view
    if len(strides) != len(shape):
        raise MismatchError(f"a stride is needed for each axis; got {len(strides)} for the shape {shape}")
    counts = 0 not in shape
    own = [stride * (counts and n > 1) for n, stride in zip(shape, strides, strict=True)]
    return shape, type(strides)(own), offset * counts


def sweep_views(impl, cases):
    def ours(*arguments):
        return settled(impl.slice_view(*arguments))

    battery.sweep_plain(ours, lambda *arguments: settled(slow_view(*arguments)), cases)


def test_a_view_by_hand(impl):
    """Three rows of four float32: a row is 16 bytes, so entry (2, 1) begins at byte 36."""
    shape, strides = (3, 4), (16, 4)
    assert impl.slice_view(shape, strides, 0, (2, 1)) == ((), (), 36)
    assert impl.slice_view(shape, strides, 0, (-1, -4)) == ((), (), 32)
    assert impl.slice_view(shape, strides, 0, (1,)) == ((4,), (4,), 16)
    assert impl.slice_view(shape, strides, 0, (WHOLE, 1)) == ((3,), (16,), 4)
    assert impl.slice_view(shape, strides, 0, ()) == (shape, strides, 0)
    assert impl.slice_view(shape, strides, 0, (BACKWARDS, slice(1, None, 2))) == ((3, 2), (-16, 8), 36)
    assert impl.slice_view(shape, strides, 0, (slice(1, 99), slice(-3, -1))) == ((2, 2), (16, 4), 20)


def test_a_view_begins_where_the_array_does(impl):
    """The offset of the array counts, whatever its strides: transposed, negative, zero."""
    assert impl.slice_view((4, 3), (4, 16), 100, (1, 2)) == ((), (), 136)
    assert impl.slice_view((3,), (-8,), 16, (slice(1, None),)) == ((2,), (-8,), 8)
    assert impl.slice_view((3,), (-8,), 16, (BACKWARDS,)) == ((3,), (8,), 0)
    assert impl.slice_view((5, 2), (0, 8), 24, (slice(2, 4), 1)) == ((2,), (0,), 32)


def random_index(rng, shape):
    def bound(length):
        return None if rng.random() < 0.3 else int(rng.integers(-length - 2, length + 3))

    def one(length):
        if rng.random() < 0.3 and length:
            return int(rng.integers(-length, length))
        step = None if rng.random() < 0.3 else int(rng.choice([-3, -2, -1, 1, 2, 3, 7, -7]))
        return slice(bound(length), bound(length), step)

    return tuple(one(length) for length in shape[: rng.integers(0, len(shape) + 1)])


def test_positions_of_numpys_integers(impl):
    """`i` in `a[i]` often comes out of an array."""
    for kind in (np.int64, np.int32, np.uint8, np.intp):
        got = impl.slice_view((4, 5), (20, 4), 0, (kind(2), slice(kind(1), kind(4))))
        assert got == ((3,), (4,), 44), f"of (4, 5), [2, 1:4] in {kind.__name__}: {got}"


def test_a_view_of_nothing(impl):
    assert impl.slice_view((0, 3), (24, 8), 0, (BACKWARDS,))[0] == (0, 3)
    assert impl.slice_view((3, 3), (24, 8), 0, (slice(2, 1), 0))[0] == (0,)
    assert impl.slice_view((3, 3), (24, 8), 0, (slice(3, None), WHOLE))[0] == (0, 3)
    assert impl.slice_view((3, 0), (24, 8), 0, (1,))[0] == (0,)


def test_views_need_no_memory(impl):
    strides = (8 * HUGE**2, 8 * HUGE, 8)
    shape, strides, offset = impl.slice_view((HUGE, HUGE, HUGE), strides, 0, (-1, slice(None, None, -2), 5))
    assert shape == (HUGE // 2,)
    assert strides == (-16 * HUGE,)
    assert offset == 8 * HUGE**2 * (HUGE - 1) + 8 * HUGE * (HUGE - 1) + 40


def test_more_indices_than_axes(impl):
    for n_axes in aim.sizes(*range(6), 12, at_most=60):
        shape = (3,) * n_axes
        for extra, at in itertools.product((1, 2, 9), (0, WHOLE, slice(2, 1))):
            index = (at,) * (n_axes + extra)
            battery.refuses(impl.slice_view, shape, slow_strides(shape, 4), 0, index, error=IndexError)
    battery.refuses(impl.slice_view, (3, 3), (12, 4), 0, (slice(2, 1), 0, 0), error=IndexError)
    battery.refuses(impl.slice_view, (0,), (4,), 0, (WHOLE, WHOLE), error=IndexError)


def test_a_step_of_zero(impl):
    for index in [(slice(None, None, 0),), (0, slice(1, 2, 0)), (slice(2, 1), slice(2, 1, 0))]:
        battery.refuses(impl.slice_view, (3, 3), (12, 4), 0, index)
    battery.refuses(impl.slice_view, (0,), (4,), 0, (slice(None, None, 0),))


# broadcast_shape -------------------------------------------------------------------------------------------


def slow_broadcast(*shapes):
    """The lengths other than 1 that meet on each axis, the first axis first."""
    n_axes = max(map(len, shapes), default=0)
    met = ([shape[axis] for shape in shapes if len(shape) >= -axis] for axis in range(-n_axes, 0))
    return [sorted({length for length in found if length != 1}) for found in met]


def sweep_shapes(impl, drawn):
    cases = []
    for shapes in drawn:
        met = slow_broadcast(*shapes)
        wrong = {axis - len(met): found for axis, found in enumerate(met) if len(found) > 1}
        if wrong:
            message = str(battery.refuses(impl.broadcast_shape, *shapes))
            named = {int(each) for each in re.findall(r"axis (-\d+)", message)} & {*wrong}
            told = {int(each) for each in re.findall(r"\d+", message)}
            if not any(len(told & {*wrong[axis]}) > 1 for axis in named):
                what = (
                    f"the message must name axis {[*wrong][-1]}, or another that disagrees, and its lengths"
                )
                raise MismatchError(f"{what}; it is {message!r}", [f"asked: broadcast_shape{tuple(shapes)}"])
        else:
            cases.append(Case("", tuple(shapes)))
    battery.sweep_plain(
        impl.broadcast_shape,
        lambda *shapes: tuple(found[0] if found else 1 for found in slow_broadcast(*shapes)),
        cases,
    )


def test_broadcasting_by_hand(impl):
    assert impl.broadcast_shape((8, 1, 6), (7, 1)) == (8, 7, 6)
    assert impl.broadcast_shape((3,), (3, 1)) == (3, 3)  # the classic surprise: a row against a column
    assert impl.broadcast_shape((2, 3), ()) == (2, 3)
    assert impl.broadcast_shape((1, 1), (1,)) == (1, 1)
    assert impl.broadcast_shape((4,)) == (4,)
    assert impl.broadcast_shape() == ()
    assert impl.broadcast_shape((5, 1, 1), (1, 4, 1), (1, 1, 3)) == (5, 4, 3)
    assert impl.broadcast_shape((HUGE, 1, 1), (1, HUGE, 1), (HUGE,)) == (HUGE, HUGE, HUGE)


def test_length_0_broadcasts_with_1_and_with_itself(impl):
    assert impl.broadcast_shape((0,), (1,)) == (0,)
    assert impl.broadcast_shape((1, 3), (0, 1)) == (0, 3)
    assert impl.broadcast_shape((0,), (0,), ()) == (0,)
    for other in (2, 5):
        battery.refuses(impl.broadcast_shape, (0,), (other,), says=["axis -1"])


def test_broadcasting_is_that_of_numpy(impl):
    few = [shape for n in range(3) for shape in itertools.product((0, 1, 2, 4), repeat=n)]
    for a, b in itertools.product(few, few):
        try:
            expected = np.broadcast_shapes(a, b)
        except ValueError:
            battery.refuses(impl.broadcast_shape, a, b)
        else:
            got = impl.broadcast_shape(a, b)
            assert got == expected, f"broadcast_shape({a}, {b}) must be {expected}; got {got}"


def test_the_message_names_the_axis_and_both_lengths(impl):
    """The axis is counted from the end, since that is how shapes are aligned."""
    for shapes, axis, lengths in [
        (((7, 3, 1), (4, 5)), -2, "34"),
        (((6, 2, 2), (8, 1, 2)), -3, "68"),
        (((9,), (4, 2, 7)), -1, "79"),
        (((3, 1), (1, 1), (4, 1)), -2, "34"),
        (((2, 1), (5,), (6,)), -1, "56"),
    ]:
        battery.refuses(impl.broadcast_shape, *shapes, says=[f"axis {axis}", *lengths])


# broadcast_strides -----------------------------------------------------------------------------------------


def slow_repetition(shape, strides, to_shape):
    """The strides, None where they are free; None for all if the shape does not broadcast."""
    n_new = len(to_shape) - len(shape)
    shape, strides = (1,) * n_new + shape, (0,) * n_new + strides
    if n_new < 0 or any(length not in (1, target) for length, target in zip(shape, to_shape, strict=True)):
        return None
    found = []
    for length, stride, target in zip(shape, strides, to_shape, strict=True):
        is_free = target == 1 or 0 in to_shape
        found.append(None if is_free else 0 if length == 1 else stride)
    return tuple(found)


def test_a_repeated_axis_has_stride_0(impl):
    assert impl.broadcast_strides((3, 1), (4, 4), (2, 3, 5)) == (0, 4, 0)
    assert impl.broadcast_strides((3,), (4,), (2, 3)) == (0, 4)
    assert impl.broadcast_strides((1, 3), (12, 4), (2, 3)) == (0, 4)
    assert impl.broadcast_strides((), (), (2, 3)) == (0, 0)
    assert impl.broadcast_strides((2, 3), (4, -8), (2, 3)) == (4, -8)
    assert impl.broadcast_strides((1,), (8,), (HUGE, HUGE, HUGE)) == (0, 0, 0)


@pytest.mark.parametrize("to_shape", [(3,), (3, 3), (2, 3), (2, 2, 3), (4, 2, 3, 3), (4, 2, 2, 3)])
def test_broadcast_strides_read_what_numpy_repeats(impl, to_shape):
    for shape in [(), (1,), (3,), (3, 1), (1, 3), (2, 3), (2, 1, 3), (1, 1, 1)]:
        x = np.arange(np.prod(shape, dtype=int), dtype=np.float32)
        own, asked = x.reshape(shape).strides, f"an array of shape {shape} as {to_shape}"
        try:
            expected = np.broadcast_to(x.reshape(shape), to_shape)
        except ValueError:
            battery.refuses(impl.broadcast_strides, shape, own, to_shape)
        else:
            strides = impl.broadcast_strides(shape, own, to_shape)
            assert len(strides) == len(to_shape), f"{asked} needs a stride for each axis; got {strides}"
            assert np.array_equal(entries(x, to_shape, strides, 0), expected), f"{asked}: got {strides}"


def test_an_array_is_repeated_never_shrunk(impl):
    for shape, to_shape in [((3,), (1,)), ((2, 3), (3,)), ((1, 3), (3,)), ((2,), ()), ((3,), (2, 1))]:
        battery.refuses(impl.broadcast_strides, shape, slow_strides(shape, 4), to_shape)


# result_dtype ----------------------------------------------------------------------------------------------


def require_dtype(impl, *operands):
    """`np.result_type` follows the rules of NumPy 2; values are hidden from it, since they never matter."""
    plain = [x.dtype if isinstance(x, np.ndarray | np.generic) else type(x)(0) for x in operands]
    expected, got = np.result_type(*{str(x): x for x in plain}.values()), impl.result_dtype(*operands)
    if got == expected and isinstance(got, np.dtype):
        return
    shown = [battery.drawn(x) if isinstance(x, np.ndarray | np.generic) else repr(x) for x in operands[:6]]
    asked = f"asked: result_dtype of {len(operands)} operands: {', '.join(shown)}"
    raise MismatchError(f"the dtype must be {expected!r}; got {got!r}", [asked])


def test_dtypes_by_hand(impl):
    """float32 must survive a Python number: a float64 would double the memory of every model."""
    x, ids = np.ones(2, np.float32), np.arange(2, dtype=np.int64)
    assert impl.result_dtype(x) == np.float32
    for weak in (True, 2, 2.0, 1e300, 2**62):
        assert impl.result_dtype(x, weak) == np.float32
        assert impl.result_dtype(weak, x) == np.float32
    assert impl.result_dtype(x, np.float64(2)) == np.float64  # the result of np.sqrt(4), for instance
    assert impl.result_dtype(x, np.array(2.0)) == np.float64
    assert impl.result_dtype(x, np.float32(2)) == np.float32
    assert impl.result_dtype(x, ids) == np.float64  # float32 cannot tell 2**24 + 1 from 2**24
    assert impl.result_dtype(ids, 0.5) == np.float64
    assert impl.result_dtype(ids, True) == np.int64
    assert impl.result_dtype(ids > 0, 1) == np.int64
    assert impl.result_dtype(ids > 0, x) == np.float32
    assert impl.result_dtype(True, 2) == np.int64
    assert impl.result_dtype(True) == np.bool_
    assert impl.result_dtype(1, 2.0) == np.float64


def test_dtypes_are_those_of_numpy(impl):
    """Up to three operands, in every order."""
    arrays = [np.ones(2, dtype) for dtype in (bool, np.int64, np.float16, np.float32, np.float64)]
    few = [*arrays, np.float64(0.1), False, 1, 0.1]
    more = [*few, np.float32(1), np.float16(1), np.int64(1), np.bool_(True), np.array(1.0), 2**40, 1e300]
    for operands, n in [(more, 1), (more, 2), (few, 3)]:
        for chosen in itertools.product(operands, repeat=n):
            require_dtype(impl, *chosen)


# All of them, at any size ---------------------------------------------------------------------------------


def test_dtypes_of_many_operands(impl):
    """One operand among many others counts wherever it stands."""
    half, ids, mask = np.zeros(2, np.float16), np.zeros(3, np.int64), np.ones((2, 2), bool)
    single = np.zeros((4, 1), np.float32)
    for n in aim.sizes(3, 4, 9, 17, 33, 100, at_most=2000):
        for many, one in [
            *[(half, single), (half, np.float64(1)), (half, 1.5), (half, ids), (mask, ids), (mask, 1)],
            *[(ids, 0.5), (ids, half), (True, 1), (1, 1.0), (1.0, half), (single, half), (mask, np.int64(1))],
        ]:
            for place in (0, n // 2, n):
                require_dtype(impl, *[many] * place, one, *[many] * (n - place))


def test_values_and_shapes_never_matter(impl):
    """Neither what a number is, nor whether an array holds anything, could be added, or is small."""
    kinds = (bool, np.int64, np.float16, np.float32, np.float64)
    strong = [np.zeros(shape, kind) for kind in kinds for shape in [(0,), (2, 3), (), (5,), (1, 1, 1)]]
    strong += [np.dtype(kind).type(1) for kind in kinds] + [np.float64("nan"), np.float32("inf")]
    weak = [True, 0, -1, 2**53 + 1, 2**63, 2**64, 2**70, -(2**70), 10**400]
    weak += [0.0, 1.0, 65504.0, 1e308, float("inf"), float("nan"), 1e-320, *aim.whole(3, 2**200)]
    weak += [float(n) for n in aim.NUMBERS if abs(n) < 2**200]
    for each in weak:
        require_dtype(impl, each)
    for array, number in itertools.product(strong, weak):
        for operands in ((array, number), (number, array), (number, array, number)):
            require_dtype(impl, *operands)
    for a, b in itertools.product(strong, strong):
        require_dtype(impl, a, b)


def test_strides_of_any_repetition(impl, rng):
    """Lengths and strides of any size, many axes, arrays without entries; in Python's own integers."""
    pairs = [((0,), (1,)), ((1,), (0,)), ((3,), (0,)), ((0,), (3,)), ((0, 3), (1, 3)), ((2, 1), (2, 0))]
    pairs += [((17,), (34,)), ((34,), (17,)), ((2,), (3,)), ((2,), (4,)), ((4, 3), (4, 6)), ((), ())]
    pairs += [((1, 3), (3,)), ((1, 1), (1,)), ((1,), ()), ((0,), (0,)), ((3, 0), (3, 0)), ((0,), (2, 0))]
    for n in numbers(0, 4, 5):
        pairs += [((n,), (n,)), ((n, 1), (n, 4)), ((1,), (n,)), ((1, n), (3, n)), ((n,), (2, n))]
        pairs += [((n,), (n, 1)), ((n,), (n + 1,)), ((n,), (2**32 + n,)), ((n,), (2 * n,)), ((n, n), (n,))]
        pairs += [((n, n), (n, n)), ((n, n), (2, n, n)), ((n,), (n, n)), ((n, 1), (n, n)), ((n, n), (n, 1))]
    for n in aim.sizes(5, 9, 33, 70, at_most=300):
        ones = (1,) * (n - 1)
        pairs += [
            ((1,) * n, (2,) * n),
            ((3,) * n, (3,) * n),
            ((2, *ones), (2, *ones[1:], 7)),
            ((3,), (3,) * n),
        ]
        pairs += [((2, *ones), (3, *ones)), ((1, *ones), ones), ((*ones, 2), (*ones, 4)), (ones, (5, *ones))]
    for _ in range(300):
        to_shape = drawn_shape(rng, rng.integers(0, 7), 1, 4)
        kept = to_shape[int(rng.integers(0, len(to_shape) + 1)) :]
        pairs.append((tuple(1 if rng.random() < 0.4 else each for each in kept), to_shape))
    strides = [-12, 4, 8, 2**40, 2**66, 3, *numbers()]
    for shape, to_shape in pairs:
        own = tuple(strides[int(each)] for each in rng.integers(len(strides), size=len(shape)))
        expected = slow_repetition(shape, own, to_shape)
        if expected is None:
            battery.refuses(impl.broadcast_strides, shape, own, to_shape)
            continue
        got = impl.broadcast_strides(shape, own, to_shape)
        asked = f"broadcast_strides({shape}, {own}, {to_shape}) must be {expected}, None where it is free"
        assert isinstance(got, tuple), f"{asked}; got {got!r}"
        assert [type(each) for each in got] == [int] * len(to_shape), f"{asked}; got {got!r}"
        assert all(wanted in (None, each) for wanted, each in zip(expected, got, strict=True)), (
            f"{asked}; got {got}"
        )


def test_strides_of_any_shape(impl, rng):
    """Any number of axes, lengths and sizes of entries, in Python's own integers: NumPy's overflow."""
    shapes = [(2,) * n for n in aim.sizes(*range(20), at_most=300)]
    shapes += [drawn_shape(rng, n) for n in range(1, 13)]
    shapes += [*itertools.product(numbers(), repeat=2), (3, 1, 1), (1, 5), (5, 5), (4, 4, 4), (HUGE,) * 12]
    itemsizes = (1, 2, 3, 4, 8, 16, 20, 100)
    cases = [Case("", (shape, itemsizes[i % 8])) for i, shape in enumerate(shapes)]
    cases += [Case("", ((2, 1, 3), itemsize)) for itemsize in numbers(*itemsizes)]
    battery.sweep_plain(impl.c_strides, slow_strides, cases)


def test_broadcasting_of_many_axes_and_of_many_shapes(impl):
    """Every shape and every axis has a say: the last may disagree with the first alone."""
    drawn = []
    for n in aim.sizes(2, 3, 4, 5, 9, 33, 65, 70, at_most=300):
        ones, steps = (1,) * (n - 1), [(1,) * i + (2,) + (1,) * (n - i) for i in range(n)]
        drawn += [[(2,) * n, (1,) * n, (2,)], [(*ones, 5), (7, *ones)], [(1,) * n, (3,)], [(1,) * n]]
        drawn += [[(2, *ones), (5, *ones)], [(2, *[3] * (n - 1)), (5, *[3] * (n - 1))], [(*ones, 2), (3,)]]
        drawn += [[(1,)] * n + [(4,)], [(4,)] + [(1,)] * n, [(3,)] * n, [(3,)] * n + [(4,)]]
        drawn += [[(3,)] + [(1,)] * n + [(4,)], [()] * n + [(4, 1), (2,)], [(4,)] + [(3,)] * n]
        drawn += [steps, [*steps, (1,) * n + (3,)], [(1,) * i for i in range(n)] + [(3,) * n, (3, 4)]]
    sweep_shapes(impl, drawn)


def test_broadcasting_of_any_shapes(impl, rng):
    """One to five shapes, ones among them, lengths of any size, multiples of each other."""
    drawn = []
    for _ in range(300):
        pool = [1, *rng.choice([1, 1, 1, 0, 2, 3, 4, 6, 17, 34], size=2)]
        sizes = rng.integers(0, 4, size=rng.integers(1, 6))
        drawn.append([tuple(int(each) for each in rng.choice(pool, size=n)) for n in sizes])
    some = numbers(0)
    for i, (a, b) in enumerate(itertools.product(some, some)):
        drawn.append(([(a,), (b,)], [(1,), (2, a), (b,)], [(1, 1), (a, b), ()])[i % 3])
    for a in some:
        drawn += [[(a, 1), (1,), (b, 3)] for b in (a, 1, a + 1, 2 * a, 2**32 + a)]
        drawn += [[(a,), (1, a + 3)], [(a + 3, a), (1,), (a,)]]
    sweep_shapes(impl, drawn)


def test_views_of_views_are_those_of_numpy(impl, rng):
    """Three slicings after one another: each finds the strides and the offset that the last one left."""
    buffer = np.arange(4 * 5 * 6, dtype=np.float32)
    n_compared = 0
    for _ in range(300):
        view = buffer.reshape(4, 5, 6).transpose(rng.permutation(3))
        shape, strides, offset = view.shape, view.strides, 0
        for _ in range(3):
            index = random_index(rng, shape)
            asked = f"slice_view({shape}, {strides}, {offset}, {index})"
            view = view[index]
            shape, strides, offset = impl.slice_view(shape, strides, offset, index)
            assert shape == view.shape, f"{asked}: the shape must be {view.shape}; got {shape}"
            assert len(strides) == len(shape), f"{asked}: {len(strides)} strides for the shape {shape}"
            if not view.size:
                break  # strides and offset mean nothing now
            n_compared += 1
            assert np.array_equal(entries(buffer, shape, strides, offset), view), asked
    assert n_compared > 300


def test_views_of_many_axes(impl, rng):
    choices = [0, -1, 1, WHOLE, BACKWARDS, slice(1, None), slice(1, 2), slice(0, 1), slice(-1, None)]
    choices += [slice(None, None, 100), slice(None, None, -100), slice(1, None, 9), slice(-9, 9, 2)]
    cases = []
    for n_axes in aim.sizes(1, 2, 3, 4, 5, 9, 17, 40, at_most=300):
        for _ in range(25):
            shape = drawn_shape(rng, n_axes, 2, 6)
            n = int(rng.integers(0, n_axes + 1))
            index = tuple(choices[int(each)] for each in rng.integers(len(choices), size=n))
            cases.append(Case("", (shape, slow_strides(shape, 4), 8, index)))
    sweep_views(impl, cases)


def test_every_slice_of_a_short_axis(impl):
    bounds = [None, *range(-5, 6)]
    slices = [slice(*each) for each in itertools.product(bounds, bounds, [None, -5, -2, -1, 1, 2, 5])]
    for each in slices:
        got, expected = settled(impl.slice_view((4,), (1,), 0, (each,))), slow_view((4,), (1,), 0, (each,))
        assert got == settled(expected), f"slice_view((4,), (1,), 0, ({each},)) must be {expected}; got {got}"


def test_every_integer_is_compared_with_its_axis(impl):
    """Also behind other integers and behind a slice that leaves nothing; the axis is that of the array."""

    def refused(shape, index, axis):
        error = battery.refuses(impl.slice_view, shape, (4,) * len(shape), 0, index, error=IndexError)
        if not re.search(rf"\baxis {axis}\b", str(error)):
            asked = f"asked: slice_view({shape}, ..., {index})"
            raise MismatchError(f"the message must say 'axis {axis}'; it is {str(error)!r}", [asked])

    for n_axes in aim.sizes(1, 2, 3, 4, 7, 12, at_most=60):
        for axis in {*range(min(n_axes, 7)), n_axes - 1}:
            for before, at in itertools.product((0, -1, WHOLE, slice(2, 1)), (3, -4, 1000, -1000, 2**64)):
                refused((3,) * n_axes, (*([before] * axis), at), axis)
    for length in numbers():
        for at in (length, -length - 1, 2 * length, -2 * length - 1):
            refused((2, length), (1, at), 1)
    for at in (0, -1, 1):
        refused((3, 0), (0, at), 1)
        refused((0, 3), (at, 0), 0)


def test_views_of_any_size(impl):
    """Lengths, strides, offsets, bounds and steps beyond all integers of NumPy, as far as ``len`` counts."""
    cases = []
    steps = [step * sign for step in aim.sizes(5, 1001, 2**65, at_most=2**200) for sign in (1, -1)]
    for length in numbers(at_most=2**50):  # beyond, a right version may divide floats
        shape, strides = (3, length), (-8, 24)
        ends = [None, 0, 1, -1, length // 2, length - 1, -length, length, length + 5, -length - 5, 2**80]
        for i, (start, stop) in enumerate(itertools.product(ends, ends)):
            cases.append(Case("", (shape, strides, 2**66, (1, slice(start, stop, (1, -1)[i % 2])))))
        cases += [Case("", (shape, strides, 7, (WHOLE, slice(None, None, step)))) for step in steps]
        cases += [Case("", (shape, strides, 5, (2, at))) for at in (0, -1, length // 2, length - 1, -length)]
    for number in numbers():
        cases += [Case("", ((number, 5), (12, 4), 5, (at, 2))) for at in (0, -1, number // 2, -number)]
        cases += [Case("", ((2, 5), (number, -number), 3, (-1, BACKWARDS)))]
        cases += [Case("", ((2, 5), (-4, 8), offset, (1, slice(1, 9, 3)))) for offset in (number, -number)]
    sweep_views(impl, cases)
