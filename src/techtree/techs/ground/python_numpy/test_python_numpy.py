"""Oracles: NumPy itself, which is given, and addresses worked out by hand.

Strides are judged by the entries that they lead to: where an axis has fewer than two, they are free.
"""

import itertools

import numpy as np
import pytest

from techtree.techs import aim, battery

HUGE = 10**6  # an array with three such axes would take 8 million terabytes: only arithmetic deals with it


def entries(buffer, shape, strides, offset):
    """Read an array out of a buffer with NumPy's own constructor, which refuses bytes outside of it."""
    return np.ndarray(shape, buffer.dtype, buffer.data, offset, strides)


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


def test_a_view_by_hand(impl):
    """Three rows of four float32: a row is 16 bytes, so entry (2, 1) begins at byte 36."""
    shape, strides = (3, 4), (16, 4)
    whole = slice(None)
    assert impl.slice_view(shape, strides, 0, (2, 1)) == ((), (), 36)
    assert impl.slice_view(shape, strides, 0, (-1, -4)) == ((), (), 32)
    assert impl.slice_view(shape, strides, 0, (1,)) == ((4,), (4,), 16)
    assert impl.slice_view(shape, strides, 0, (whole, 1)) == ((3,), (16,), 4)
    assert impl.slice_view(shape, strides, 0, ()) == (shape, strides, 0)
    backwards = slice(None, None, -1)
    assert impl.slice_view(shape, strides, 0, (backwards, slice(1, None, 2))) == ((3, 2), (-16, 8), 36)
    assert impl.slice_view(shape, strides, 0, (slice(1, 99), slice(-3, -1))) == ((2, 2), (16, 4), 20)


def test_a_view_begins_where_the_array_does(impl):
    """The offset of the array counts, whatever its strides: transposed, negative, zero."""
    assert impl.slice_view((4, 3), (4, 16), 100, (1, 2)) == ((), (), 136)
    assert impl.slice_view((3,), (-8,), 16, (slice(1, None),)) == ((2,), (-8,), 8)
    assert impl.slice_view((3,), (-8,), 16, (slice(None, None, -1),)) == ((3,), (8,), 0)
    assert impl.slice_view((5, 2), (0, 8), 24, (slice(2, 4), 1)) == ((2,), (0,), 32)


def random_index(rng, shape):
    def bound(length):
        return None if rng.random() < 0.3 else int(rng.integers(-length - 2, length + 3))

    def one(length):
        if rng.random() < 0.3 and length:
            return int(rng.integers(-length, length))
        step = None if rng.random() < 0.3 else int(rng.choice([-3, -2, -1, 1, 2, 3]))
        return slice(bound(length), bound(length), step)

    return tuple(one(length) for length in shape[: rng.integers(0, len(shape) + 1)])


def test_views_of_views_are_those_of_numpy(impl, rng):
    """Three slicings after one another: each finds the strides and the offset that the last one left."""
    buffer = np.arange(4 * 5 * 6, dtype=np.float32)
    n_compared = 0
    for _ in range(400):
        view = buffer.reshape(4, 5, 6).transpose(rng.permutation(3))
        shape, strides, offset = view.shape, view.strides, 0
        for _ in range(3):
            index = random_index(rng, shape)
            view = view[index]
            shape, strides, offset = impl.slice_view(shape, strides, offset, index)
            assert shape == view.shape
            assert len(strides) == len(shape)
            if not view.size:
                break  # strides and offset mean nothing now
            n_compared += 1
            assert np.array_equal(entries(buffer, shape, strides, offset), view)
    assert n_compared > 400


def test_every_slice_of_a_short_axis(impl):
    bounds = [None, *range(-5, 6)]
    x = np.arange(4, dtype=np.int8)
    for start, stop, step in itertools.product(bounds, bounds, [None, -5, -2, -1, 1, 2, 5]):
        index = slice(start, stop, step)
        shape, strides, offset = impl.slice_view((4,), (1,), 0, (index,))
        assert shape == x[index].shape, index
        if x[index].size:
            assert entries(x, shape, strides, offset).tolist() == x[index].tolist(), index


def test_a_view_of_nothing(impl):
    backwards = slice(None, None, -1)
    assert impl.slice_view((0, 3), (24, 8), 0, (backwards,))[0] == (0, 3)
    assert impl.slice_view((3, 3), (24, 8), 0, (slice(2, 1), 0))[0] == (0,)
    assert impl.slice_view((3, 3), (24, 8), 0, (slice(3, None), slice(None)))[0] == (0, 3)


def test_views_need_no_memory(impl):
    strides = (8 * HUGE**2, 8 * HUGE, 8)
    shape, strides, offset = impl.slice_view((HUGE, HUGE, HUGE), strides, 0, (-1, slice(None, None, -2), 5))
    assert shape == (HUGE // 2,)
    assert strides == (-16 * HUGE,)
    assert offset == 8 * HUGE**2 * (HUGE - 1) + 8 * HUGE * (HUGE - 1) + 40


def test_a_position_outside_of_its_axis(impl):
    whole = slice(None)
    for position in (4, -5, 100):
        with pytest.raises(IndexError, match=r"axis 1\b"):
            impl.slice_view((3, 4, 9), (144, 36, 4), 0, (whole, position))
    for position in (3, -4):
        with pytest.raises(IndexError, match=r"axis 0\b"):
            impl.slice_view((3, 4), (16, 4), 0, (position, 0))
    with pytest.raises(IndexError):
        impl.slice_view((3, 0), (0, 4), 0, (0, 0))


def test_more_indices_than_axes(impl):
    with pytest.raises(IndexError):
        impl.slice_view((3, 4), (16, 4), 0, (0, 0, 0))
    with pytest.raises(IndexError):
        impl.slice_view((), (), 0, (slice(None),))


def test_a_step_of_zero(impl):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is Python's
        impl.slice_view((3,), (4,), 0, (slice(None, None, 0),))


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
        with pytest.raises(ValueError, match=r"axis -1\b"):
            impl.broadcast_shape((0,), (other,))


def test_broadcasting_is_that_of_numpy(impl):
    few = [shape for n in range(3) for shape in itertools.product((0, 1, 2, 4), repeat=n)]
    more = [(), (3,), (3, 1), (1, 3), *itertools.product((1, 2, 3), repeat=3)]
    for a, b in [*itertools.product(few, few), *itertools.product(more, more)]:
        try:
            expected = np.broadcast_shapes(a, b)
        except ValueError:
            with pytest.raises(ValueError, match=r"axis -\d"):
                impl.broadcast_shape(a, b)
        else:
            assert impl.broadcast_shape(a, b) == expected, (a, b)


def test_the_message_names_the_axis_and_both_lengths(impl):
    """The axis is counted from the end, since that is how shapes are aligned."""
    for shapes, axis, lengths in [
        (((7, 3, 1), (4, 5)), -2, "34"),
        (((6, 2, 2), (8, 1, 2)), -3, "68"),
        (((9,), (4, 2, 7)), -1, "79"),
        (((3, 1), (1, 1), (4, 1)), -2, "34"),
        (((2, 1), (5,), (6,)), -1, "56"),
    ]:
        with pytest.raises(ValueError, match=rf"axis {axis}\b") as error:
            impl.broadcast_shape(*shapes)
        assert all(length in str(error.value) for length in lengths)


def test_every_shape_has_a_say(impl):
    """The third shape may disagree with the first, though the second agrees with both."""
    assert impl.broadcast_shape((1,), (1,), (1,), (6,)) == (6,)
    assert impl.broadcast_shape((6, 1), (1,), (1, 1, 1)) == (1, 6, 1)
    with pytest.raises(ValueError, match=r"axis -1\b"):
        impl.broadcast_shape((3,), (1,), (4,))


def test_a_repeated_axis_has_stride_0(impl):
    assert impl.broadcast_strides((3, 1), (4, 4), (2, 3, 5)) == (0, 4, 0)
    assert impl.broadcast_strides((3,), (4,), (2, 3)) == (0, 4)
    assert impl.broadcast_strides((1, 3), (12, 4), (2, 3)) == (0, 4)
    assert impl.broadcast_strides((), (), (2, 3)) == (0, 0)
    assert impl.broadcast_strides((2, 3), (4, -8), (2, 3)) == (4, -8)
    assert impl.broadcast_strides((1,), (8,), (HUGE, HUGE, HUGE)) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1), (1, 3), (2, 3), (2, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("to_shape", [(3,), (3, 3), (2, 3), (2, 2, 3), (4, 2, 3, 3), (4, 2, 2, 3)])
def test_broadcast_strides_read_what_numpy_repeats(impl, shape, to_shape):
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32)
    own = x.reshape(shape).strides
    try:
        expected = np.broadcast_to(x.reshape(shape), to_shape)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.broadcast_strides(shape, own, to_shape)
    else:
        strides = impl.broadcast_strides(shape, own, to_shape)
        assert len(strides) == len(to_shape)
        assert np.array_equal(entries(x, to_shape, strides, 0), expected)


def test_an_array_is_repeated_never_shrunk(impl):
    for shape, to_shape in [((3,), (1,)), ((2, 3), (3,)), ((1, 3), (3,)), ((2,), ()), ((3,), (2, 1))]:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.broadcast_strides(shape, impl.c_strides(shape, 4), to_shape)


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
    """Up to three operands, in every order. `np.result_type` follows the rules of NumPy 2."""
    arrays = [np.ones(2, dtype) for dtype in (bool, np.int64, np.float16, np.float32, np.float64)]
    few = [*arrays, np.float64(0.1), False, 1, 0.1]
    more = [*few, np.float32(1), np.float16(1), np.int64(1), np.bool_(True), np.array(1.0), 2**40, 1e300]
    for operands, n in [(more, 1), (more, 2), (few, 3)]:
        for chosen in itertools.product(operands, repeat=n):
            got = impl.result_dtype(*chosen)
            assert got == np.result_type(*chosen), chosen
            assert isinstance(got, np.dtype)


# Against slow definitions, with numbers of any size --------------------------------------------------------

LENGTHS = (0, 1, 2, 3, 7, 34, 130, 5000, 2**31, 2**32 + 1, 2**53 + 1, 2**63, 2**70)
WHOLE = slice(None)


def lengths():
    return [*LENGTHS, *aim.sizes(at_most=2**200)]


def exact(got, expected, asked):
    """The same numbers, and Python's own: those of NumPy overflow."""
    parts = [each for part in got for each in (part if isinstance(part, tuple) else (part,))]
    wrong = [each for each in parts if type(each) is not int]
    assert not wrong, f"{asked} must be of Python's own integers; got {type(wrong[0]).__name__}"
    assert got == expected, f"{asked} must be {expected}; got {got}"


def slow_strides(shape, itemsize):
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def test_strides_of_any_shape(impl, rng):
    shapes = [(2,) * n for n in aim.sizes(*range(20), at_most=60)]
    shapes += [tuple(int(each) for each in rng.integers(1, 9, size=n)) for n in range(1, 13)]
    shapes += [(a, b) for a, b in itertools.product(lengths(), repeat=2) if a and b]
    shapes += [(3, 1, 1), (1, 5), (5, 5), (4, 4, 4), (HUGE,) * 12]
    for shape, itemsize in itertools.product(shapes, (1, 2, 3, 4, 8, 16, 20, 100)):
        if min(shape, default=1) > 0:
            exact(
                impl.c_strides(shape, itemsize),
                slow_strides(shape, itemsize),
                f"c_strides({shape}, {itemsize})",
            )
    exact(impl.c_strides((), 3), (), "c_strides((), 3)")


def slow_view(shape, strides, offset, index):
    """One axis after the other, by Python's own ranges."""
    new_shape, new_strides = [], []
    for axis, length in enumerate(shape):
        at = index[axis] if axis < len(index) else WHOLE
        positions = range(length)[at]
        if isinstance(positions, int):
            offset += strides[axis] * positions
            continue
        n = max(0, -(-(positions.stop - positions.start) // positions.step))
        new_shape.append(n)
        new_strides.append(strides[axis] * positions.step)
        offset += strides[axis] * positions.start
    return tuple(new_shape), tuple(new_strides), offset


def exact_view(got, expected, asked):
    """The strides of axes with one entry are free."""
    assert len(got[1]) == len(got[0]), f"{asked} must have a stride for each axis; got {got}"
    free = tuple(
        own if n == 1 else stride for n, stride, own in zip(got[0], got[1], expected[1], strict=False)
    )
    exact((got[0], free, got[2]), expected, asked)


def test_views_of_any_size(impl):
    """Lengths, offsets and steps beyond all integers of NumPy."""
    steps = (1, 2, 3, 999, 1001, 5000, 2**40, 2**65, *aim.sizes(at_most=2**100))
    for length in lengths():
        if not 0 < length < 2**50:  # beyond, a right version may divide floats
            continue
        ends = {None, 0, 1, -1, length // 2, length - 1, -length, length, length + 5, -length - 5}
        for start, stop in itertools.product(ends, ends):
            for step in (1, -1, *(steps if start is None and stop is None else ())):
                index = (slice(start, stop, step),)
                expected = slow_view((length,), (4,), 2**66, index)
                if expected[0] != (0,):
                    exact_view(
                        impl.slice_view((length,), (4,), 2**66, index), expected, f"{length} entries, {index}"
                    )
        for step in steps:
            index = (WHOLE, slice(None, None, -step))
            expected = slow_view((3, length), (-8, 24), 0, index)
            exact_view(impl.slice_view((3, length), (-8, 24), 0, index), expected, f"(3, {length}), {index}")
        for at in {0, -1, length // 2, length - 1, -length}:
            exact_view(
                impl.slice_view((length,), (12,), 5, (at,)), slow_view((length,), (12,), 5, (at,)), f"[{at}]"
            )


@pytest.mark.parametrize("n_axes", [1, 2, 3, 4, 5, 9, 17, 40])
def test_views_of_many_axes(impl, rng, n_axes):
    shape = tuple(int(each) for each in rng.integers(2, 6, size=n_axes))
    strides = slow_strides(shape, 4)
    choices = (0, -1, 1, WHOLE, slice(None, None, -1), slice(1, None), slice(1, 2), slice(0, 1))
    for _ in range(40):
        n = int(rng.integers(0, n_axes + 1))
        index = tuple(choices[int(each)] for each in rng.integers(len(choices), size=n))
        exact_view(
            impl.slice_view(shape, strides, 8, index),
            slow_view(shape, strides, 8, index),
            f"{shape}[{index}]",
        )


def test_positions_of_numpys_integers(impl):
    """`i` in `a[i]` often comes out of an array."""
    for kind in (np.int64, np.int32, np.uint8, np.intp):
        got = impl.slice_view((4, 5), (20, 4), 0, (kind(2), slice(kind(1), kind(4))))
        assert got == ((3,), (4,), 44), f"{kind.__name__}: {got}"


def test_every_integer_is_compared_with_its_axis(impl):
    """Also behind other integers and behind a slice that leaves nothing; the axis is that of the array."""
    for n_axes in (1, 2, 3, 4, 7):
        shape, strides = (3,) * n_axes, slow_strides((3,) * n_axes, 4)
        for axis in range(n_axes):
            for before, position in itertools.product(
                (0, -1, WHOLE, slice(2, 1)), (3, -4, 1000, -1000, 2**64)
            ):
                index = (*([before] * axis), position)
                battery.refuses(
                    impl.slice_view, shape, strides, 0, index, error=IndexError, says=[f"axis {axis}"]
                )
    for too_many in ((0,) * 3, (WHOLE,) * 3, (slice(2, 1), 0, 0)):
        battery.refuses(impl.slice_view, (3, 3), (12, 4), 0, too_many, error=IndexError)
    for index in ((slice(None, None, 0),), (0, slice(1, 2, 0)), (slice(2, 1), slice(2, 1, 0))):
        battery.refuses(impl.slice_view, (3, 3), (12, 4), 0, index)


def slow_broadcast(*shapes):
    """The shape, or the axis and the lengths that disagree."""
    n_axes = max(map(len, shapes), default=0)
    result = []
    for axis in range(-1, -n_axes - 1, -1):
        found = [shape[axis] for shape in shapes if len(shape) >= -axis]
        others = sorted({each for each in found if each != 1})
        if len(others) > 1:
            return axis, others
        result.append(others[0] if others else 1)
    return tuple(reversed(result))


def test_broadcasting_of_any_shapes(impl, rng):
    """Three to ten shapes, ones among them, many axes, lengths of any size, multiples of each other."""
    drawn = []
    for _ in range(600):
        pool = rng.choice([1, 1, 1, 0, 2, 3, 4, 6, 17, 34], size=2)
        drawn.append(
            [
                tuple(int(each) for each in rng.choice([1, *pool], size=rng.integers(0, 4)))
                for _ in range(rng.integers(1, 6))
            ]
        )
    for a, b in itertools.product(lengths(), repeat=2):
        drawn += [[(a,), (b,)], [(a, 1), (1,), (b, 3)], [(1,), (2, a), (b,)], [(1, 1), (a, b), ()]]
    for n in aim.sizes(3, 5, 9, 33, 65, 70, at_most=300):
        drawn += [
            [(2,) * n, (1,) * n, (2,)],
            [(1,) * (n - 1) + (5,), (7,) + (1,) * (n - 1)],
            [(1,)] * n + [(4,)],
        ]
        drawn += [[(1,) * n, (3,)], [(3,)] * n, [(2,) + (3,) * (n - 1), (5,) + (3,) * (n - 1)]]
        drawn += [[(3,)] + [(1,)] * n + [(4,)], [(3,)] * n + [(4,)]]
    for shapes in drawn:
        expected = slow_broadcast(*shapes)
        if isinstance(expected, tuple) and len(expected) == 2 and isinstance(expected[1], list):
            axis, found = expected
            if len({axis for axis in range(-9, 0) if _disagree(shapes, axis)}) > 1:
                battery.refuses(impl.broadcast_shape, *shapes, says=["axis -"])
            else:
                battery.refuses(impl.broadcast_shape, *shapes, says=[f"axis {axis}", *map(str, found)])
        else:
            exact(impl.broadcast_shape(*shapes), expected, f"broadcast_shape{tuple(shapes)}")


def _disagree(shapes, axis):
    return len({shape[axis] for shape in shapes if len(shape) >= -axis} - {1}) > 1


def test_strides_of_any_repetition(impl, rng):
    pairs = [
        *[((0,), (1,)), ((1,), (0,)), ((3,), (0,)), ((0,), (3,)), ((0, 3), (1, 3)), ((2, 1), (2, 0))],
        *[((17,), (34,)), ((34,), (17,)), ((2,), (3,)), ((1,), (2**70,)), ((2**70,), (2**70,)), ((), ())],
        *[((1, 3), (3,)), ((1, 1), (1,)), ((1,) * 5, (2,) * 5), ((2, 1, 2, 1, 2), (2, 3, 2, 3, 2))],
    ]
    for n in lengths():
        pairs += [
            ((n,), (n,)),
            ((n, 1), (n, 4)),
            ((1,), (n,)),
            ((1, n), (3, n)),
            ((n,), (2, n)),
            ((n,), (n, 1)),
        ]
    for _ in range(300):
        to_shape = tuple(int(each) for each in rng.integers(1, 4, size=rng.integers(0, 7)))
        kept = to_shape[int(rng.integers(0, len(to_shape) + 1)) :]
        pairs.append((tuple(1 if rng.random() < 0.4 else each for each in kept), to_shape))
    for shape, to_shape in pairs:
        strides = tuple(int(each) for each in rng.choice([-12, 4, 8, 2**40, 2**66, 3], size=len(shape)))
        asked = f"broadcast_strides({shape}, {strides}, {to_shape})"
        padded = (1,) * (len(to_shape) - len(shape)) + shape
        if len(shape) > len(to_shape) or any(a not in (1, b) for a, b in zip(padded, to_shape, strict=True)):
            battery.refuses(impl.broadcast_strides, shape, strides, to_shape)
            continue
        got = impl.broadcast_strides(shape, strides, to_shape)
        assert len(got) == len(to_shape), f"{asked} must have a stride for each axis; got {got}"
        own = (0,) * (len(to_shape) - len(shape)) + strides
        for axis, (length, target) in enumerate(zip(padded, to_shape, strict=True)):
            if target > 1 and 0 not in to_shape:
                wanted = own[axis] if length == target else 0
                assert got[axis] == wanted, f"{asked}: the stride of axis {axis} must be {wanted}; got {got}"


def test_dtypes_of_many_operands(impl):
    """Values never matter, nor how many there are, nor whether arrays hold anything or can be added."""
    kinds = (bool, np.int64, np.float16, np.float32, np.float64)
    arrays = [np.zeros(shape, kind) for kind in kinds for shape in [(0,), (2, 3), (), (5,)]]
    scalars = [np.dtype(kind).type(1) for kind in kinds]
    weak = [
        True,
        0,
        -1,
        2**53 + 1,
        2**63,
        2**64,
        2**70,
        -(2**70),
        0.0,
        1e308,
        float("inf"),
        float("nan"),
        1e-320,
    ]
    for strong, other in itertools.product([*arrays, *scalars], weak):
        kind = np.result_type(strong.dtype, type(other)(0))
        for operands in ((strong, other), (other, strong), (other, strong, other)):
            got = impl.result_dtype(*operands)
            assert got == kind, f"result_dtype{operands} must be {kind}; got {got}"
    for n in aim.sizes(4, 9, 17, 100, at_most=2000):
        for last, expected in (
            (np.zeros(2, np.float32), np.float32),
            (1.5, np.float16),
            (np.float64(1), np.float64),
        ):
            got = impl.result_dtype(*[np.zeros(2, np.float16)] * n, last)
            assert got == expected, f"after {n} arrays of float16, {last!r}: {np.dtype(expected)}; got {got}"
        assert impl.result_dtype(*[True] * n, 1) == np.int64
    for other in weak:
        assert impl.result_dtype(other) == np.result_type(type(other)(0)), f"result_dtype({other!r})"
