"""Oracles: the same function of NumPy arrays and its central differences, closed forms, gradients by hand."""

import contextlib
import gc
import math
import threading
import weakref

import numpy as np
import pytest

from techtree.techs.ground.einsum import rearrange
from techtree.techs.ground.gradcheck import check_gradient, directional_derivative

# Values are compared with NumPy's own result for the same arrays; another order of summation may change the
# last bits of the few terms that are summed here.
VALUE = {"rtol": 1e-12, "atol": 1e-12}


def check(impl, rng, of_tensors, of_arrays, *arrays):
    """Compare value and gradients with those of a function of arrays, for a random gradient of the result."""
    tensors = [impl.Tensor(x, requires_grad=True) for x in arrays]
    inputs = f"inputs of shapes {[np.shape(x) for x in arrays]}"
    result = of_tensors(*tensors)
    assert isinstance(result, impl.Tensor), inputs
    expected = np.asarray(of_arrays(*arrays))
    assert result.shape == expected.shape, inputs
    assert np.allclose(result.data, expected, **VALUE), inputs
    assert result.requires_grad
    gradient = rng.normal(size=expected.shape)
    result.backward(gradient)
    for n, (tensor, x) in enumerate(zip(tensors, arrays, strict=True)):

        def f(v, n=n):
            return float((of_arrays(*arrays[:n], v, *arrays[n + 1 :]) * gradient).sum())

        assert isinstance(tensor.grad, np.ndarray), inputs
        assert tensor.grad.shape == np.shape(x), inputs
        assert tensor.grad.dtype == np.float64, inputs
        # Sums of tens of terms of size 1: differences are off by 1e-9, and wrong formulas by more than 1e-5.
        check_gradient(f, tensor.grad, x)


SHAPES = [
    ((), ()),
    ((3,), ()),
    ((), (2, 3)),
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((2, 3), (2, 1)),
    ((1,), (3,)),
    ((1, 1), (3,)),
    ((4, 1, 3), (2, 1)),
    ((1, 3), (2, 4, 3)),
    ((2, 2), (1, 2)),
    ((0, 3), (3,)),
    ((1,), (0,)),
]

BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}


@pytest.mark.parametrize("sign", BINARY)
def test_operators_with_broadcasting(impl, rng, sign):
    for left, right in SHAPES:
        a, b = rng.uniform(0.5, 2, size=left), rng.uniform(0.5, 2, size=right)
        check(impl, rng, BINARY[sign], BINARY[sign], a, b)


@pytest.mark.parametrize("sign", BINARY)
def test_operators_with_constants_on_either_side(impl, rng, sign):
    x = rng.uniform(0.5, 2, size=(2, 3))
    operation = BINARY[sign]
    for constant in (3, 2.5, np.float64(2.5), np.int64(3), np.array(1.5), np.array([1.5, 2, 3])):
        check(impl, rng, lambda t, c=constant: operation(t, c), lambda v, c=constant: operation(v, c), x)
        check(impl, rng, lambda t, c=constant: operation(c, t), lambda v, c=constant: operation(c, v), x)


def test_a_bias_by_hand(impl):
    """Six entries of one gradient each; the bias of three was repeated twice."""
    x = impl.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    bias = impl.Tensor([10.0, 20.0, 30.0], requires_grad=True)
    scale = impl.Tensor([[2.0], [5.0]], requires_grad=True)
    loss = ((x + bias) * scale).sum()
    assert float(loss.data) == 2 * 63 + 5 * 72
    loss.backward()
    assert x.grad.tolist() == [[2, 2, 2], [5, 5, 5]]
    assert bias.grad.tolist() == [7, 7, 7]
    assert scale.grad.tolist() == [[63], [72]]


def test_what_a_tensor_holds(impl):
    array = np.arange(6.0).reshape(2, 3).T
    x = impl.Tensor(array)
    assert isinstance(x.data, np.ndarray)
    assert np.shares_memory(x.data, array)
    assert (x.shape, x.ndim, x.dtype) == ((3, 2), 2, np.float64)
    assert x.grad is None
    assert not x.requires_grad
    assert impl.Tensor(array, requires_grad=True).requires_grad
    assert impl.Tensor(array, True).requires_grad
    for dtype in (np.float16, np.float32, np.float64):
        assert impl.Tensor(np.ones(2, dtype)).dtype == dtype
    for data in (3, True, [1, 2], np.array([1, 2], np.int32), np.array([True])):
        x = impl.Tensor(data)
        assert x.dtype == np.float64
        assert x.shape == np.shape(data)
        assert np.array_equal(x.data, data)
    assert impl.Tensor([[1.5, 2.5]]).shape == (1, 2)
    for data in ("ab", [None], np.array([1j]), [object()], np.array(["a"])):
        with pytest.raises(TypeError):
            impl.Tensor(data)


UNARY = {
    "negative": (lambda t: -t, lambda v: -v),
    "exp": (lambda t: t.exp(), np.exp),
    "log": (lambda t: t.log(), np.log),
    "sqrt": (lambda t: t.sqrt(), np.sqrt),
    "tanh": (lambda t: t.tanh(), np.tanh),
    "square": (lambda t: t**2, lambda v: v**2),
    "cube, as float": (lambda t: t**3.0, lambda v: v**3),
    "inverse": (lambda t: t**-1, lambda v: 1 / v),
    "root": (lambda t: t**0.5, np.sqrt),
    "power of 2": (lambda t: 2**t, lambda v: 2**v),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_each_entry(impl, rng, name):
    for shape in [(), (1,), (2, 3), (0, 2)]:
        check(impl, rng, *UNARY[name], rng.uniform(0.3, 3, size=shape))


def test_functions_of_negative_and_large_entries(impl):
    x = impl.Tensor([-1000.0, -2.0, 0.0, 2.0, 1000.0], requires_grad=True)
    x.tanh().backward(np.ones(5))
    slope = 1 - math.tanh(2) ** 2
    assert np.allclose(x.grad, [0, slope, 1, slope, 0], rtol=1e-13, atol=0)
    x = impl.Tensor([-800.0, -2.0], requires_grad=True)
    x.exp().backward(np.ones(2))
    assert np.allclose(x.grad, [0, math.exp(-2)], rtol=1e-14, atol=0)


@pytest.mark.parametrize("exponent", [2, 2.0, np.float64(2), np.array([2.0]), np.array([2, 2, 2])])
def test_a_constant_exponent_takes_negative_bases(impl, exponent):
    """Its own gradient would need the log of the base."""
    x = impl.Tensor([-3.0, 0.0, 2.0], requires_grad=True)
    y = x**exponent
    y.backward(np.ones(3))
    assert y.data.tolist() == [9, 0, 4]
    assert x.grad.tolist() == [-6, 0, 4]


@pytest.mark.parametrize("as_constant", [int, float, np.array, lambda p: np.full(3, p)])
def test_low_powers_of_0(impl, as_constant):
    for exponent, expected in [(0, [0.0, 0, 0]), (1, [1, 1, 1]), (3, [27, 0, 12])]:
        x = impl.Tensor([-3.0, 0.0, 2.0], requires_grad=True)
        y = x ** as_constant(exponent)
        y.backward(np.ones(3))
        assert np.array_equal(x.grad, expected)
    a, b = impl.Tensor([2.0, 3.0], requires_grad=True), impl.Tensor([0.0, 2.0], requires_grad=True)
    (a**b).backward(np.ones(2))
    assert a.grad.tolist() == [0, 6]
    assert np.allclose(b.grad, [math.log(2), 9 * math.log(3)], rtol=1e-14)


def test_float32_stays_float32(impl, rng):
    array = rng.uniform(0.5, 2, size=(2, 3)).astype(np.float32)
    constants = [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5), np.array([1, 2, 3])]
    constants += [np.array([True, True, True]), np.ones((2, 3), np.float32)]
    x = impl.Tensor(array, requires_grad=True)
    results = [operation(x, constant) for operation in BINARY.values() for constant in constants]
    results += [operation(constant, x) for operation in BINARY.values() for constant in constants]
    results += [f(x) for f, _ in UNARY.values()]
    results += [x.sum(), x.sum(0), x.mean(), x.mean(1, keepdims=True), x.max(), x.max(0), x[0], x[[0, 0]]]
    results += [x.reshape(6), x.transpose(), x.swapaxes(0, 1), x @ np.ones((3, 2), int), np.ones(2, int) @ x]
    results += [impl.where(array > 1, x, 0.0), impl.where(array > 1, -math.inf, x), x.detach()]
    results += [impl.concatenate([x, x]), impl.concatenate([np.ones((1, 3), int), x]), x @ x.swapaxes(0, 1)]
    results += [impl.einsum("ij,kj->ik", x, x), impl.einsum("ij,j->", x, np.array([1, 2, 3]))]
    for result in results:
        assert isinstance(result, impl.Tensor)
        assert result.dtype == np.float32
        assert result.data.dtype == np.float32
        if result.requires_grad:
            x.grad = None
            result.backward(np.ones(result.shape))  # of float64
            assert x.grad.dtype == np.float32
            assert x.grad.shape == x.shape


def test_dtypes_mix_as_in_numpy_and_gradients_return_to_their_own(impl):
    x = impl.Tensor(np.float32([1, 2]), requires_grad=True)
    y = impl.Tensor(np.float64([3, 4]), requires_grad=True)
    for result in (
        x * y,
        x * np.float64([3, 4]),
        impl.where(np.array([True, False]), x, y),
        impl.concatenate([x, y]),
    ):
        assert result.dtype == np.float64
        x.grad = y.grad = None
        result.backward(np.ones(result.shape))
        assert x.grad.dtype == np.float32
        assert y.grad is None or y.grad.dtype == np.float64
    # A gradient of float64 that passes through float32 and back loses digits only in float32.
    x.grad = None
    ((x + 0) * np.float64([1 / 3, 1 / 3])).backward([1.0, 1.0])
    assert x.grad.dtype == np.float32
    assert np.allclose(x.grad, 1 / 3, rtol=1e-7)


PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((1, 3), (3, 1)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((1, 4, 2, 3), (2, 1, 3, 2)),
    ((2, 4, 2, 3), (3, 5)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 0, 3), (3, 4)),
    ((4, 2, 0), (0, 3)),
    ((0,), (0,)),
]


def test_matrix_products(impl, rng):
    for left, right in PRODUCTS:
        a, b = rng.normal(size=left), rng.normal(size=right)
        check(impl, rng, lambda s, t: s @ t, lambda u, v: u @ v, a, b)
        check(impl, rng, lambda s, b=b: s @ b, lambda u, b=b: u @ b, a)
        check(impl, rng, lambda t, a=a: a @ t, lambda v, a=a: a @ v, b)


def test_a_matrix_product_by_hand(impl):
    a = impl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    b = impl.Tensor([[5.0, 6.0], [7.0, 8.0]], requires_grad=True)
    y = a @ b
    assert y.data.tolist() == [[19, 22], [43, 50]]
    y.backward([[1.0, 0.0], [0.0, 10.0]])
    assert a.grad.tolist() == [[5, 7], [60, 80]]
    assert b.grad.tolist() == [[1, 30], [2, 40]]


def test_products_of_views(impl, rng):
    """Transposed and strided operands, as attention has them."""
    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(8, 6))[::2, ::-3]
    check(
        impl,
        rng,
        lambda s, t: s.transpose(1, 0, 2) @ t @ t.swapaxes(0, 1),
        lambda u, v: u.transpose(1, 0, 2) @ v @ v.T,
        a,
        b,
    )


def test_shapes_that_do_not_fit(impl):
    x = impl.Tensor(np.ones((2, 3)), requires_grad=True)
    for call in (
        lambda: x @ np.ones((2, 3)),
        lambda: x + np.ones(2),
        lambda: x @ 3.0,
        lambda: x.reshape(4),
        lambda: impl.concatenate([x, np.ones((2, 2))]),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            call()


AXES = [None, 0, 1, 2, -1, -3, (0, 2), (1,), (-1, 0), (0, 1, 2), ()]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reductions(impl, rng, name, keepdims):
    for axis in AXES:

        def reduce(x, axis=axis):
            return getattr(x, name)(axis=axis, keepdims=keepdims)

        check(impl, rng, reduce, reduce, rng.normal(size=(2, 3, 4)))
        check(impl, rng, reduce, reduce, rng.normal(size=(3, 1, 2)))


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_the_arguments_of_reductions(impl, rng, name):
    x = rng.normal(size=(2, 3))
    check(impl, rng, lambda t: getattr(t, name)(), lambda v: getattr(v, name)(), x)
    check(impl, rng, lambda t: getattr(t, name)(1), lambda v: getattr(v, name)(1), x)
    check(impl, rng, lambda t: getattr(t, name)(0, True), lambda v: getattr(v, name)(0, keepdims=True), x)
    check(impl, rng, lambda t: getattr(t, name)(), lambda v: getattr(v, name)(), np.array(1.5))


@pytest.mark.parametrize(("shape", "axis"), [((0,), None), ((0, 3), 0), ((2, 0), 1), ((2, 0), None)])
def test_sums_of_nothing(impl, shape, axis):
    x = impl.Tensor(np.ones(shape), requires_grad=True)
    y = x.sum(axis)
    assert np.array_equal(y.data, np.ones(shape).sum(axis))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == shape


def test_reductions_along_an_axis_beside_an_empty_one(impl):
    x = impl.Tensor(np.ones((3, 0)), requires_grad=True)
    for y in (x.sum(0), x.mean(0), x.max(0)):
        assert y.shape == (0,)
        y.backward(np.ones(0))
    assert x.grad.shape == (3, 0)


def test_ties_share_the_gradient_of_a_maximum(impl):
    x = impl.Tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [5.0, 4.0, 5.0]], requires_grad=True)
    x.max(axis=1).backward([12.0, 6.0, 2.0])
    assert x.grad.tolist() == [[0, 6, 6], [2, 2, 2], [1, 0, 1]]
    x.grad = None
    x.max(axis=0, keepdims=True).backward([[1.0, 1.0, 1.0]])
    assert x.grad.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    x.grad = None
    x.max().backward(8.0)
    assert x.grad.tolist() == [[0, 0, 0], [0, 0, 0], [4, 0, 4]]


RESHAPES = {
    "reshape(3, 8)": lambda x: x.reshape(3, 8),
    "reshape((4, 6))": lambda x: x.reshape((4, 6)),
    "reshape(-1)": lambda x: x.reshape(-1),
    "reshape(2, -1, 2)": lambda x: x.reshape(2, -1, 2),
    "reshape after transpose": lambda x: x.transpose(2, 0, 1).reshape(8, 3),
    "transpose()": lambda x: x.transpose(),
    "transpose(1, 2, 0)": lambda x: x.transpose(1, 2, 0),
    "transpose((2, 0, 1))": lambda x: x.transpose((2, 0, 1)),
    "transpose((0, 2, 1))": lambda x: x.transpose((0, 2, 1)),
    "transpose(-1, 0, -2)": lambda x: x.transpose(-1, 0, -2),
    "swapaxes(0, 2)": lambda x: x.swapaxes(0, 2),
    "swapaxes(-1, -2)": lambda x: x.swapaxes(-1, -2),
    "swapaxes(1, 1)": lambda x: x.swapaxes(1, 1),
    "rearrange": lambda x: rearrange(x, "a b (c d) -> c (b a) d", c=2),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_new_shapes(impl, rng, name):
    check(impl, rng, RESHAPES[name], RESHAPES[name], rng.normal(size=(2, 3, 4)))


def test_shapes_without_entries_or_axes(impl, rng):
    check(impl, rng, lambda x: x.transpose(), lambda x: x.transpose(), np.array(2.0))
    check(impl, rng, lambda x: x.reshape(1, 1), lambda x: x.reshape(1, 1), np.array(2.0))
    check(impl, rng, lambda x: x.reshape(()), lambda x: x.reshape(()), np.array([[2.0]]))
    check(impl, rng, lambda x: x.reshape(0, 5), lambda x: x.reshape(0, 5), np.ones((3, 0)))
    check(impl, rng, lambda x: x.transpose(), lambda x: x.T, np.ones((3, 0, 2)))


INDICES = {
    "0": 0,
    "-1": -1,
    "1, 0": (1, 0),
    "all four": (2, 1, 0, 3),
    "1:": slice(1, None),
    "::-1": slice(None, None, -1),
    ":, ::2": (slice(None), slice(None, None, 2)),
    "2:2": slice(2, 2),
    "...": ...,
    "..., 1": (..., 1),
    "None": None,
    "1, None, ..., None": (1, None, ..., None),
    "()": (),
    "a list": [0, 2],
    "a list with repeats": [0, 2, 0, 0],
    "ids": np.array([[0, 1, 1], [2, 1, 0]]),
    "negative ids": np.array([-1, 2, 0, -1]),
    "no ids": np.array([], dtype=int),
    "an array without axes": np.array(1),
    "pairs": (np.array([0, 0, 2]), np.array([1, 1, 0])),
    "pairs far apart": (np.array([0, 0, 2]), slice(None), np.array([1, 1, 0])),
    "a slice and ids": (slice(1, None), np.array([1, 1])),
    "open mesh": (np.array([[0], [0]]), np.array([1, 1, 0])),
    "mask": np.arange(24).reshape(3, 2, 4) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "mask and slice": (np.array([True, False, True]), slice(0, 1)),
}


@pytest.mark.parametrize("name", INDICES)
def test_selections(impl, rng, name):
    index = INDICES[name]
    x = rng.normal(size=(3, 2, 4, 5))[..., :4] if name == "all four" else rng.normal(size=(3, 2, 4))
    check(impl, rng, lambda t: t[index], lambda v: v[index], x)
    check(impl, rng, lambda t: t[index], lambda v: v[index], np.asfortranarray(x)[::-1])


def test_a_repeated_index_receives_every_gradient(impl):
    table = impl.Tensor(np.arange(8.0).reshape(4, 2), requires_grad=True)
    rows = table[np.array([[3, 0], [3, 3]])]
    assert rows.data.tolist() == [[[6, 7], [0, 1]], [[6, 7], [6, 7]]]
    rows.backward(np.array([[[1.0, 2], [3, 4]], [[10, 20], [100, 200]]]))
    assert table.grad.tolist() == [[3, 4], [0, 0], [0, 0], [111, 222]]


def test_selecting_from_a_repeated_array(impl, rng):
    """The data of a broadcast constant is read-only, with strides of 0; a tensor may hold such an array."""
    x = np.broadcast_to(rng.normal(size=(1, 3)), (4, 3))
    check(impl, rng, lambda t: t[1:, [0, 0]], lambda v: v[1:, [0, 0]], x)
    check(impl, rng, lambda t: t[1:3], lambda v: v[1:3], x)


@pytest.mark.parametrize(
    ("mask", "a", "b"),
    [
        ((2, 3), (2, 3), (2, 3)),
        ((3,), (2, 3), (2, 1)),
        ((2, 1), (3,), ()),
        ((), (2, 3), (3,)),
        ((4, 1, 1), (2, 1), (3,)),
    ],
)
def test_where_broadcasts_all_three(impl, rng, mask, a, b):
    mask = rng.random(size=mask) < 0.5
    a, b = rng.normal(size=a), rng.normal(size=b)
    check(impl, rng, lambda s, t: impl.where(mask, s, t), lambda u, v: np.where(mask, u, v), a, b)
    check(impl, rng, lambda s: impl.where(mask, s, 7), lambda u: np.where(mask, u, 7), a)
    check(impl, rng, lambda t: impl.where(mask, a, t), lambda v: np.where(mask, a, v), b)


def test_where_by_hand(impl):
    a, b = impl.Tensor([1.0, 2.0, 3.0], True), impl.Tensor([10.0, 20.0, 30.0], True)
    y = impl.where(np.array([True, False, True]), a, b)
    assert y.data.tolist() == [1, 20, 3]
    y.backward([5.0, 6.0, 7.0])
    assert (a.grad.tolist(), b.grad.tolist()) == ([5, 0, 7], [0, 6, 0])
    constant = impl.where(np.array([True, False]), 1.0, 0)
    assert isinstance(constant, impl.Tensor)
    assert constant.data.tolist() == [1, 0]
    assert not constant.requires_grad


def test_where_lets_nothing_through_where_it_did_not_take(impl):
    """0 times infinity is NaN: a mask that multiplies the gradient would let it pass."""
    a, b = impl.Tensor([math.nan, 2.0], True), impl.Tensor([3.0, math.inf], True)
    impl.where(np.array([False, True]), a, b).backward([math.inf, 1.0])
    assert (a.grad.tolist(), b.grad.tolist()) == ([0, 1], [math.inf, 0])
    a.grad = b.grad = None
    impl.where(np.array([False, True]), a, b).backward([1.0, math.inf])
    assert (a.grad.tolist(), b.grad.tolist()) == ([0, math.inf], [1, 0])


def test_softmax_with_a_mask(impl):
    """The masked score is -inf: its weight and its gradient are exactly 0, and nothing is NaN."""
    scores = impl.Tensor([0.0, math.log(3.0), 50.0], True)
    masked = impl.where(np.array([True, True, False]), scores, -math.inf)
    exponentials = (masked - masked.max().detach()).exp()
    weights = exponentials / exponentials.sum()
    assert np.allclose(weights.data, [0.25, 0.75, 0], rtol=1e-14)
    weights.backward([1.0, 0.0, 0.0])
    assert np.allclose(scores.grad, [3 / 16, -3 / 16, 0], rtol=1e-13)


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(2,), (3,)], 0),
        ([(2, 3), (1, 3), (4, 3)], 0),
        ([(2, 3), (2, 1)], 1),
        ([(2, 3), (2, 2)], -1),
        ([(2, 1, 3), (2, 4, 3)], -2),
        ([(3, 2)], 0),
        ([(0, 2), (3, 2)], 0),
        ([(2, 2), (2, 2), (2, 2)], 1),
    ],
)
def test_concatenate(impl, rng, shapes, axis):
    arrays = [rng.normal(size=shape) for shape in shapes]
    check(impl, rng, lambda *s: impl.concatenate(s, axis), lambda *v: np.concatenate(v, axis), *arrays)
    check(
        impl,
        rng,
        lambda t: impl.concatenate([*arrays[1:], t], axis=axis),
        lambda v: np.concatenate([*arrays[1:], v], axis=axis),
        arrays[0],
    )


def test_concatenate_a_tensor_with_itself(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    y = impl.concatenate([x, x * 10, x])
    assert y.data.tolist() == [1, 2, 10, 20, 1, 2]
    y.backward([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert x.grad.tolist() == [36, 48]


SPECS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,kj->ik", (2, 3), (4, 3)),
    ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 2, 2, 4)),
    ("bhqk,bkhd->bqhd", (2, 2, 3, 2), (2, 2, 2, 3)),
    ("ij->ji", (2, 3)),
    ("ijk->kij", (2, 3, 4)),
    ("ij->i", (2, 3)),
    ("ij->", (2, 3)),
    ("ij->ij", (2, 3)),
    ("i,j->ij", (2,), (3,)),
    ("i,j->ji", (2,), (3,)),
    ("i,j->", (2,), (3,)),
    ("i,i->", (3,), (3,)),
    ("i,i->i", (3,), (3,)),
    (",i->i", (), (3,)),
    (",->", (), ()),
    ("ij,j->", (2, 3), (3,)),
    ("abc->b", (2, 3, 4)),
    ("abc,c->ba", (2, 3, 4), (4,)),
    ("bij,jk,k->bi", (2, 3, 2), (2, 4), (4,)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("aBc , cB -> Ba", (2, 3, 4), (4, 3)),
    ("ij,jk->ik", (0, 3), (3, 2)),
    ("ij,jk->ik", (2, 0), (0, 3)),
]


@pytest.mark.parametrize(("spec", "shapes"), [(spec, shapes) for spec, *shapes in SPECS])
def test_einsum(impl, rng, spec, shapes):
    arrays = [rng.normal(size=shape) for shape in shapes]
    check(impl, rng, lambda *t: impl.einsum(spec, *t), lambda *v: np.einsum(spec, *v), *arrays)
    check(
        impl,
        rng,
        lambda t: impl.einsum(spec, t, *arrays[1:]),
        lambda v: np.einsum(spec, v, *arrays[1:]),
        arrays[0],
    )


def test_einsum_of_a_tensor_with_itself(impl, rng):
    x = rng.normal(size=(3, 3))
    for spec in ("ij,ik->jk", "ij,jk->ik", "ij,ji->"):
        check(impl, rng, lambda t, s=spec: impl.einsum(s, t, t), lambda v, s=spec: np.einsum(s, v, v), x)


def test_einsum_refuses(impl):
    x = impl.Tensor(np.ones((2, 2)), requires_grad=True)
    for spec, *operands in [
        ("ii->i", x),
        ("ij,jk", x, x),
        ("ij,jk->ik", x),
        ("ij->k", x),
        ("ijk->i", x),
        ("ij,jj->i", x, x),
        ("ij,jk->ik", x, np.ones((3, 2))),
    ]:
        with pytest.raises(ValueError):  # noqa: PT011
            impl.einsum(spec, *operands)


@pytest.mark.parametrize(
    ("operation", "slope"),
    [
        (lambda x: x + x, 2.0),
        (lambda x: x - x, 0.0),
        (lambda x: x * x, 6.0),
        (lambda x: x / x, 0.0),
        (lambda x: x**x, 27 * (1 + math.log(3))),
        (lambda x: x * x * x, 27.0),
        (lambda x: (x + x) * (x + x), 24.0),
        (lambda x: (x * 2) * (x * 2 + 1), 26.0),
    ],
)
def test_a_tensor_that_is_used_more_than_once(impl, operation, slope):
    for shape in ((), (2, 2)):
        x = impl.Tensor(np.full(shape, 3.0), requires_grad=True)
        operation(x).backward(np.ones(shape))
        assert np.allclose(x.grad, slope, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("swapped", [False, True])
def test_short_and_long_paths_meet(impl, swapped):
    """The inner node must wait for the long path: c = a + 5 a**2 with a = 2 x, so dc/dx = 2 (1 + 10 a)."""
    x = impl.Tensor([0.5, 1.0], requires_grad=True)
    a = x * 2
    b = (a * a) * 5
    c = b + a if swapped else a + b
    c.sum().backward()
    assert x.grad.tolist() == [22, 42]


def test_x_times_its_own_transpose(impl):
    x = impl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (x @ x.transpose()).backward([[1.0, 0.0], [0.0, 0.0]])  # the first row times itself
    assert x.grad.tolist() == [[2, 4], [0, 0]]


def test_tensors_of_equal_data_are_different(impl):
    array = np.array([2.0])
    x, y = impl.Tensor(array, True), impl.Tensor(array, True)
    (x * y + x).backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([3], [2])


def test_backward_again_adds_the_same_again(impl):
    x = impl.Tensor([3.0, 1.0], requires_grad=True)
    h = x * x
    y = (h * 4 + h).sum()
    for times in (1, 2, 3):
        y.backward()
        assert x.grad.tolist() == [30.0 * times, 10.0 * times]
    x.grad = None
    y.backward(np.array(2.0))
    assert x.grad.tolist() == [60, 20]


def test_two_ends_that_share_inner_nodes(impl):
    x = impl.Tensor(3.0, requires_grad=True)
    h = x * x
    a, b = h * 2, h * 10
    a.backward()
    assert float(x.grad) == 12
    b.backward()
    assert float(x.grad) == 72
    h.backward()
    assert float(x.grad) == 78


def test_only_given_tensors_keep_a_gradient(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    y = h.sum()
    y.backward()
    assert x.grad.tolist() == [2, 2]
    assert h.grad is None
    assert y.grad is None
    assert (h.requires_grad, y.requires_grad) == (True, True)


def test_constants_get_none_and_pass_nothing_on(impl):
    x, constant = impl.Tensor([1.0, 2.0], requires_grad=True), impl.Tensor([3.0, 4.0])
    aside = impl.Tensor([5.0, 6.0], requires_grad=True)
    y = x * constant + (constant * constant).sum() + constant.exp() * 0
    assert not (constant * constant).requires_grad
    y.backward(np.ones(2))
    assert x.grad.tolist() == [3, 4]
    assert constant.grad is None
    assert aside.grad is None
    assert not constant.requires_grad


def test_detach(impl):
    x = impl.Tensor([2.0, 3.0], requires_grad=True)
    h = x * x
    constant = h.detach()
    assert np.shares_memory(constant.data, h.data)
    assert not constant.requires_grad
    assert h.requires_grad
    (constant * x).sum().backward()
    assert x.grad.tolist() == [4, 9]
    assert constant.grad is None
    assert x.detach().grad is None


def test_backward_of_a_given_tensor(impl):
    x = impl.Tensor(5.0, requires_grad=True)
    x.backward()
    assert x.grad.shape == ()
    assert float(x.grad) == 1
    x = impl.Tensor([5.0, 6.0], requires_grad=True)
    x.backward([1.0, 2.0])
    x.backward([10.0, 20.0])
    assert x.grad.tolist() == [11, 22]


def test_the_default_gradient_is_for_one_entry(impl):
    for shape in [(), (1,), (1, 1)]:
        x = impl.Tensor(np.full(shape, 2.0), requires_grad=True)
        (x * 3).backward()
        assert x.grad.tolist() == np.full(shape, 3.0).tolist()
    for shape in [(2,), (1, 2), (0,)]:
        x = impl.Tensor(np.ones(shape), requires_grad=True)
        with pytest.raises(ValueError):  # noqa: PT011
            (x * 3).backward()
        assert x.grad is None


def test_the_gradient_must_have_the_shape_of_the_tensor(impl):
    for shape, given in [((2, 3), (3,)), ((2, 3), ()), ((3,), (1, 3)), ((), (1,)), ((1,), ()), ((2,), (3,))]:
        x = impl.Tensor(np.ones(shape), requires_grad=True)
        with pytest.raises(ValueError):  # noqa: PT011
            (x * 3).backward(np.ones(given))
        assert x.grad is None


def test_backward_needs_something_to_differentiate(impl):
    for tensor in (impl.Tensor(1.0), impl.Tensor(1.0) * 2, impl.Tensor(1.0, True).detach()):
        with pytest.raises(ValueError):  # noqa: PT011
            tensor.backward()


LINEAR = {
    "itself": lambda x: x,
    "+": lambda x: x + 1,
    "-": lambda x: x - 1,
    "reshape": lambda x: x.reshape(4),
    "transpose": lambda x: x.transpose(),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "slice": lambda x: x[:],
    "keepdims": lambda x: x.sum((), True),
    "reshape of a sum": lambda x: (x + 1).reshape(4),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_given_gradient_stays_as_it_is_and_is_not_shared(impl, name):
    x = impl.Tensor(np.ones((2, 2)), requires_grad=True)
    y = LINEAR[name](x)
    gradient = np.arange(1.0, 5).reshape(y.shape)
    for _ in range(3):
        y.backward(gradient)
        assert np.array_equal(gradient.ravel(), [1, 2, 3, 4])
        assert not np.shares_memory(x.grad, gradient)
    gradient[...] = 100.0
    assert sorted(x.grad.ravel().tolist()) == [3, 6, 9, 12]
    x.grad *= 0  # as an optimizer's clipping does
    assert np.array_equal(gradient.ravel(), [100] * 4)


def test_no_gradient_shares_memory(impl):
    arrays = [np.ones((2, 2)) for _ in range(4)]
    a, b, c, d = tensors = [impl.Tensor(x, requires_grad=True) for x in arrays]
    y = impl.concatenate([a + b, c.reshape(2, 2) - d, (a * b).transpose(), c.sum(0, True)])
    y.sum().backward()
    for n, tensor in enumerate(tensors):
        assert tensor.grad.flags.writeable
        assert not any(np.shares_memory(tensor.grad, x) for x in arrays)
        assert not any(np.shares_memory(tensor.grad, other.grad) for other in tensors[:n])
    before = b.grad.copy()
    a.grad += 7
    assert np.array_equal(b.grad, before)
    x = impl.Tensor(np.ones(3), requires_grad=True)
    x.sum().backward()
    x.grad[0] = 5.0
    assert x.grad.tolist() == [5, 1, 1]


def test_operations_leave_their_operands_alone(impl, rng):
    arrays = rng.uniform(1, 2, size=(2, 3, 3))
    before = arrays.copy()
    a, b = (impl.Tensor(x, requires_grad=True) for x in arrays)
    total = a
    total += b
    total *= 2
    total -= a.exp() @ b.log() + a.max(0) + a[0] / b[:, 1] ** 2 + impl.where(before[0] > 1.5, a, b.sqrt())
    total.backward(np.ones((3, 3)))
    assert np.array_equal(arrays, before)
    assert total is not a


def test_a_chain_of_twenty_thousand_operations(impl):
    x = impl.Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(10_000):
        y = y * 1.0 + 1.0
    y.backward()
    assert (float(y.data[0]), float(x.grad[0])) == (10_001, 1)


def test_more_paths_than_could_be_walked(impl):
    """y + y has two paths; 100 of these have 2**100. The halves keep the derivative at 1."""
    x = impl.Tensor([3.0], requires_grad=True)
    y = x
    for _ in range(100):
        y = (y + y) * 0.5
    y.backward()
    assert (float(y.data[0]), float(x.grad[0])) == (3, 1)


def test_record_by_hand(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    y = impl.record(x.data**3, (x, lambda g: g * 3 * x.data**2))
    assert isinstance(y, impl.Tensor)
    assert y.data.tolist() == [1, 8]
    assert y.requires_grad
    (y * 10).sum().backward()
    assert x.grad.tolist() == [30, 120]


def test_record_calls_each_function_once_when_the_gradient_is_complete(impl):
    calls = []
    x = impl.Tensor([1.0, 2.0], requires_grad=True)

    def pull_back(g):
        calls.append(np.array(g))
        return g * 2

    y = impl.record(x.data * 2, (x, pull_back))
    z = y * 3 + y * 4 + (y * y).sum()
    assert calls == []
    z.backward([1.0, 1.0])
    assert [call.tolist() for call in calls] == [[7 + 2 * 2 * 2, 7 + 2 * 2 * 4]]
    assert x.grad.tolist() == [30, 46]


def test_record_never_calls_the_function_of_a_constant(impl):
    def never(g):
        raise AssertionError("asked for the gradient of a constant")

    x, constant = impl.Tensor([1.0, 2.0], requires_grad=True), impl.Tensor([3.0, 4.0])
    y = impl.record(x.data * constant.data, (constant, never), (x, lambda g: g * constant.data))
    y.sum().backward()
    assert x.grad.tolist() == [3, 4]
    assert not impl.record(np.ones(2), (constant, never)).requires_grad
    assert not impl.record(np.ones(2)).requires_grad
    with impl.no_grad():
        assert not impl.record(np.ones(2), (x, never)).requires_grad


def test_record_takes_an_input_twice_and_sums_what_was_repeated(impl):
    x = impl.Tensor([[1.0], [2.0]], requires_grad=True)
    value = np.broadcast_to(x.data, (5, 2, 3)) * 2
    y = impl.record(value, (x, lambda g: g), (x, lambda g: g[0]))
    y.backward(np.ones((5, 2, 3)))
    assert x.grad.tolist() == [[18], [18]]


def test_record_hands_over_the_gradient_in_shape_and_dtype_of_the_result(impl):
    seen = []
    x = impl.Tensor(np.ones((2, 3), np.float32), requires_grad=True)

    def pull_back(g):
        seen.append((type(g), g.shape, g.dtype))
        return np.broadcast_to(g, (2, 3)).astype(np.float64)

    for axis, shape in [(0, (3,)), (None, ())]:
        y = impl.record(x.data.sum(axis), (x, pull_back))
        (y * np.ones((4, *shape))).sum().backward()
        assert seen.pop() == (np.ndarray, shape, np.float32)
    assert x.grad.dtype == np.float32


def test_no_grad(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    with impl.no_grad():
        y = (x * 2).sum()
        inside = impl.Tensor([1.0], requires_grad=True)
        assert not (inside * 2).requires_grad
    assert y.data == 6
    assert not y.requires_grad
    assert x.requires_grad
    assert inside.requires_grad
    with pytest.raises(ValueError):  # noqa: PT011
        y.backward()
    z = (x * 2 + y).sum()
    z.backward()
    assert x.grad.tolist() == [2, 2]
    (inside * 2).backward()
    assert inside.grad.tolist() == [2]


def test_no_grad_nested_repeated_and_left_by_an_error(impl):
    x = impl.Tensor(1.0, requires_grad=True)
    for _ in range(2):
        with impl.no_grad():
            with impl.no_grad():
                assert not (x * 2).requires_grad
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), impl.no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad
    with impl.no_grad():
        try:
            with impl.no_grad():
                raise KeyError
        except KeyError:
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_is_a_matter_of_one_thread(impl):
    """Blocks of two threads that overlap must not end one another, or switch recording off for good."""
    x = impl.Tensor(1.0, requires_grad=True)
    entered, leave, recorded = threading.Event(), threading.Event(), []

    def other():
        recorded.append((x * 2).requires_grad)
        with impl.no_grad():
            entered.set()
            leave.wait(5)
            recorded.append((x * 2).requires_grad)
        recorded.append((x * 2).requires_grad)

    thread = threading.Thread(target=other)
    with impl.no_grad():
        thread.start()
        entered.wait(5)
    after = (x * 2).requires_grad
    leave.set()
    thread.join()
    assert recorded == [True, False, True]
    assert after
    assert (x * 2).requires_grad


@pytest.mark.parametrize(("requires_grad", "is_recording"), [(True, False), (False, False), (False, True)])
def test_without_recording_nothing_is_kept(impl, requires_grad, is_recording):
    """Neither the tensor that was given nor a result in between stays alive through what came of it."""
    array = np.ones(3)
    tensors, references = [impl.Tensor(array, requires_grad)], [weakref.ref(array)]
    del array
    with contextlib.nullcontext() if is_recording else impl.no_grad():
        tensors.append(tensors[-1] * 2)
        references.append(weakref.ref(tensors[-1].data))
        tensors.append(tensors[-1].exp() + tensors[0])
    last = tensors.pop()
    tensors.clear()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert not last.requires_grad


def test_a_network_against_its_twin_of_arrays(impl, rng):
    """Embedding, normalisation, attention with a mask, a residual, a gate, and cross-entropy in one graph."""
    ids, targets = rng.integers(0, 5, size=(2, 4)), rng.integers(0, 5, size=(2, 4))
    mask = np.tril(np.ones((4, 4), bool))
    shapes = {
        "table": (5, 6),
        "scale": (6,),
        "qkv": (6, 18),
        "out": (6, 6),
        "gate": (6, 3),
        "up": (6, 3),
        "down": (3, 6),
    }
    weights = {name: rng.normal(size=shape) * 0.6 for name, shape in shapes.items()}

    def network(w, where, concatenate, exp, log, tanh):
        x = w["table"][ids]
        normal = (x - x.mean(-1, keepdims=True)) / ((x * x).mean(-1, keepdims=True) + 0.1) ** 0.5 * w["scale"]
        q, k, v = (
            (normal @ w["qkv"])[..., 6 * n : 6 * n + 6].reshape(2, 4, 2, 3).transpose(0, 2, 1, 3)
            for n in range(3)
        )
        scores = where(mask, q @ k.swapaxes(-1, -2) / 3**0.5, -1e9)
        scores = exp(scores - scores.max(-1, keepdims=True))
        heads = scores / scores.sum(-1, keepdims=True) @ v
        x = x + heads.transpose(0, 2, 1, 3).reshape(2, 4, 6) @ w["out"]
        x = concatenate(
            [x[:, :1], x[:, 1:] + tanh(x @ w["gate"])[:, :-1] * (x @ w["up"])[:, 1:] @ w["down"]], 1
        )
        logits = x @ w["table"].transpose()
        shifted = logits - logits.max(-1, keepdims=True)
        log_p = shifted - log(exp(shifted).sum(-1, keepdims=True))
        return -log_p[np.arange(2)[:, None], np.arange(4), targets].mean()

    def plain(w):
        return float(network(w, np.where, np.concatenate, np.exp, np.log, np.tanh))

    tensors = {name: impl.Tensor(w, requires_grad=True) for name, w in weights.items()}
    kind = impl.Tensor
    loss = network(tensors, impl.where, impl.concatenate, kind.exp, kind.log, kind.tanh)
    assert float(loss.data) == pytest.approx(plain(weights), rel=1e-12)
    loss.backward()
    for name, w in weights.items():
        direction = rng.normal(size=w.shape)
        measured = directional_derivative(lambda v, n=name: plain(weights | {n: v}), w, direction)
        assert (tensors[name].grad * direction).sum() == pytest.approx(measured, rel=1e-6, abs=1e-8)


def test_gradient_descent_finds_a_line(impl):
    """y = 3 x - 1 at three points; the steps are small enough for the steepest direction, 2 * 14 / 3."""
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [5.0], [8.0]])
    w, b = impl.Tensor(np.zeros((1, 1)), True), impl.Tensor(np.zeros(1), True)
    for _ in range(800):
        w.grad = b.grad = None
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        w.data -= 0.1 * w.grad
        b.data -= 0.1 * b.grad
    assert np.allclose([w.data.item(), b.data.item()], [3, -1], atol=1e-6)
