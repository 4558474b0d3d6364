"""Oracles: NumPy itself, which is given, and addresses worked out by hand.

Strides are judged by the entries that they lead to: where an axis has fewer than two, they are free.
"""

import itertools

import numpy as np
import pytest

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
