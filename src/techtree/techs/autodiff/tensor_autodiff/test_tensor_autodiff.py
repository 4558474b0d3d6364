"""Oracles: NumPy's own functions, gradients in closed form, those of linear maps entry by entry, by hand."""

import contextlib
import gc
import itertools
import math
import operator
import threading
import types
import weakref

import numpy as np
import pytest

from techtree.techs import battery
from techtree.techs.battery import Case
from techtree.techs.ground.einsum import rearrange
from techtree.techs.ground.gradcheck import directional_derivative

BINARY = {
    operator.add: lambda a, b: (1.0, 1.0),
    operator.sub: lambda a, b: (1.0, -1.0),
    operator.mul: lambda a, b: (b, a),
    operator.truediv: lambda a, b: (1 / b, -(a / b) / b),
    operator.pow: lambda a, b: (b * a ** (b - 1), a**b * np.log(a)),
}
"""Operation -> its derivatives by both operands, entry by entry."""

UNARY = {
    "-": (lambda x: -x, lambda x: -x, lambda x: -1.0),
    "exp": (lambda x: x.exp(), np.exp, np.exp),
    "log": (lambda x: x.log(), np.log, lambda x: 1 / x),
    "sqrt": (lambda x: x.sqrt(), np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "tanh": (lambda x: x.tanh(), np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "** 2": (lambda x: x**2, lambda x: x**2, lambda x: 2 * x),
    "** 3.0": (lambda x: x**3.0, lambda x: x**3, lambda x: 3 * x**2),
    "** -1": (lambda x: x**-1, lambda x: 1 / x, lambda x: -1 / x**2),
    "** 0.5": (lambda x: x**0.5, np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "2 **": (lambda x: 2**x, lambda x: 2.0**x, lambda x: 2.0**x * math.log(2)),
}
"""Name -> function of a tensor, the same of an array, its derivative."""


def check(impl, rng, cases, of_tensors, of_arrays, gradients):
    """Compare values and gradients with their definitions, on every case."""
    cases = list(cases)

    def of_constants(*arguments, **options):
        inputs = [
            impl.Tensor(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in arguments
        ]
        result = of_tensors(*inputs, **options)
        assert isinstance(result, impl.Tensor)
        assert not result.requires_grad
        return result

    def of_leaves(*arguments, **options):
        result = of_tensors(*arguments, **options)
        assert result.requires_grad
        return result

    def off(*arrays, **options):
        """As many terms as the result has entries, each of the size of all factors, may be added up."""
        sizes = [np.abs(x).max(initial=1.0) for x in arrays if isinstance(x, np.ndarray) and x.dtype == float]
        return math.prod(sizes) * max(np.size(of_arrays(*arrays, **options)), 1)

    battery.sweep(of_constants, of_arrays, cases, magnitude=off, is_new=False)
    battery.sweep_gradients(
        of_leaves, gradients, cases, tensor=lambda x: impl.Tensor(x, True), rng=rng, magnitude=off
    )


def check_linear(impl, rng, cases, of_tensors, of_arrays=None):
    """Check a function that is linear in each of its arrays."""
    of_arrays = of_arrays or of_tensors
    check(impl, rng, cases, of_tensors, of_arrays, transposed(of_arrays))


def transposed(f):
    """Give the gradients of a function that is linear in each array: what one entry alone does, times g."""

    def gradients(g, *arrays, **options):
        found = []
        for n, x in enumerate(arrays):
            if isinstance(x, np.ndarray) and x.dtype == float:
                one, total = np.zeros(x.shape), np.zeros(x.shape)
                nothing = np.array(f(*arrays[:n], one, *arrays[n + 1 :], **options))
                for place in np.ndindex(x.shape):
                    one[place] = 1.0
                    total[place] = ((f(*arrays[:n], one, *arrays[n + 1 :], **options) - nothing) * g).sum()
                    one[place] = 0.0
                found.append(total)
        return found

    return gradients


def fold(gradient, shape):
    """Add up the copies that broadcasting made."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length != gradient.shape[axis])
    return gradient.sum(axis=repeated, keepdims=True)


def positive(rng):
    """Draw from 1/2 to 2, where all operations are defined, in place of normal numbers."""
    return types.SimpleNamespace(normal=lambda size: rng.uniform(0.5, 2, size=size), integers=rng.integers)


def shaped(rng, *shapes, dtype=np.float64):
    label = f"shapes {', '.join(map(str, shapes))}, {np.dtype(dtype).name}"
    return Case(label, tuple(rng.uniform(0.5, 2, size=shape).astype(dtype) for shape in shapes))


def binary(operation):
    """Give the gradients of an operation with broadcasting."""

    def gradients(g, a, b):
        return [fold(g * slope, x.shape) for slope, x in zip(BINARY[operation](a, b), (a, b), strict=True)]

    return gradients


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


def test_a_matrix_product_by_hand(impl):
    a = impl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    b = impl.Tensor([[5.0, 6.0], [7.0, 8.0]], requires_grad=True)
    y = a @ b
    assert y.data.tolist() == [[19, 22], [43, 50]]
    y.backward([[1.0, 0.0], [0.0, 10.0]])
    assert a.grad.tolist() == [[5, 7], [60, 80]]
    assert b.grad.tolist() == [[1, 30], [2, 40]]


def test_what_a_tensor_holds(impl):
    x = impl.Tensor(np.arange(6.0).reshape(2, 3).T)
    assert (x.shape, x.ndim, x.dtype) == ((3, 2), 2, np.float64)
    assert x.grad is None
    assert not x.requires_grad
    for dtype in battery.FLOATS:
        for layout, lay in battery.LAYOUTS.items():
            array = lay(np.ones((2, 3), dtype))
            x = impl.Tensor(array)
            assert isinstance(x.data, np.ndarray)
            assert (x.dtype, x.data.dtype) == (dtype, dtype)
            assert np.shares_memory(x.data, array), layout
            assert x.data.strides == array.strides
    integers = [np.arange(3).astype(dtype) for dtype in battery.INTEGERS]
    for data in (3, True, [1, 2], [[True], [False]], 2.5, [[1.5, 2]], *integers, np.array(7), []):
        for requires_grad in (False, True):
            x = impl.Tensor(data, requires_grad)
            assert (x.dtype, x.shape, x.requires_grad) == (np.float64, np.shape(data), requires_grad)
            assert np.array_equal(x.data, np.asarray(data, float))
    assert impl.Tensor([1.0], requires_grad=True).requires_grad


def test_what_a_tensor_does_not_hold(impl):
    objects = np.array([1.0, 2.0], object)
    for data in ("ab", "1.5", None, [None], np.array([1j]), object(), objects, np.array(["a"]), b"ab"):
        with pytest.raises(TypeError):
            impl.Tensor(data)


def test_dtypes_mix_as_in_numpy_and_gradients_return_to_their_own(impl, rng):
    shape = (2, 2)
    mask = np.array([[True, False], [False, True]])
    functions = [*BINARY, operator.matmul, lambda a, b: impl.where(mask, a, b)]
    functions += [lambda a, b: impl.concatenate([a, b]), lambda a, b: impl.einsum("ij,jk->ik", a, b)]
    for function, (left, right) in itertools.product(functions, itertools.product(battery.FLOATS, repeat=2)):
        a, b = rng.uniform(0.5, 2, size=shape).astype(left), rng.uniform(0.5, 2, size=shape).astype(right)
        s, t = impl.Tensor(a, True), impl.Tensor(b, True)
        for result in (function(s, t), function(s, b), function(a, t)):
            if isinstance(result, impl.Tensor):
                assert result.dtype == result.data.dtype == np.result_type(left, right)
                s.grad = t.grad = None
                result.backward(np.ones(result.shape))
                assert s.grad is None or s.grad.dtype == left
                assert t.grad is None or t.grad.dtype == right
        assert isinstance(function(s, b), impl.Tensor)
    x = impl.Tensor(np.float32([1, 2]), requires_grad=True)
    for gradient in ([1 / 3, 1 / 3], np.float64([1 / 3, 1 / 3])):
        x.grad = None
        x.backward(gradient)
        assert x.grad.dtype == np.float32


SIZES = [0.3, 1.0, 2.0, 1e-10, 1e10, 1e-100, 1e100]
SIGNED = [0.0, *SIZES, *(-size for size in SIZES)]
POINTS = {
    "-": SIGNED,
    "exp": [-1e300, -800.0, -700.0, -1.5, 0.0, 1e-10, 2.0, 90.0, 300.0, 600.0, 709.7],
    "log": [1e-300, *SIZES, 1e300],
    "sqrt": [1e-300, *SIZES, 1e300],
    "tanh": [-1e300, -1000.0, -3.0, -0.3, -1e-20, 0.0, 1e-300, 1e-20, 1e-8, 1e-3, 2.0, 9.0, 800.0, 1e300],
    "** 2": SIGNED,
    "2 **": [-1000.0, -0.3, 0.0, 1e-10, 2.0, 100.0, 1000.0],
}
"""Entries of every size and sign, for functions that are defined there."""


def near(got, expected, floor=0.0):
    """Within a few roundings, entry by entry, however small."""
    return np.allclose(got, expected, rtol=1e-14, atol=floor)


def test_entries_of_every_size(impl):
    for name, points in POINTS.items():
        of_tensor, of_array, slope = UNARY[name]
        x = impl.Tensor(points, requires_grad=True)
        y = of_tensor(x)
        with np.errstate(all="ignore"):
            assert near(y.data, of_array(np.array(points))), name
            y.backward(np.ones(len(points)))
            # 1 - tanh**2 cancels, so that its error is that of 1.
            assert near(x.grad, slope(np.array(points)) * np.ones(len(points)), 1e-15 * (name == "tanh")), (
                name
            )
    for operation, slopes in BINARY.items():
        points = [0.1, 0.3, 1.0, 2.0, 30.0] if operation is operator.pow else [*SIZES, *(-x for x in SIZES)]
        pairs = list(itertools.product(points, [1e-5, 1e-10] if operation is operator.pow else points))
        pairs += [(1e-30, 2.0), (1e30, -3.0), (1e-8, 0.5)] if operation is operator.pow else [(0.0, 2.0)]
        left, right = np.array(pairs).T
        a, b = impl.Tensor(left, requires_grad=True), impl.Tensor(right, requires_grad=True)
        y = operation(a, b)
        y.backward(np.ones(len(pairs)))
        assert near(y.data, operation(left, right))
        for tensor, expected in zip((a, b), slopes(left, right), strict=True):
            assert near(tensor.grad, expected * np.ones(len(pairs))), operation.__name__


def test_gradients_of_every_size(impl):
    """Nothing is clipped, dropped or replaced on the way; infinities and NaN neither."""
    for g in ([1e300, -1e300, 1e-300], [math.inf, 1.0, -math.inf], [0.0, 0.0, 0.0], [math.nan, 1.0, 0.0]):
        x = impl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        ((x + 0) * 1).backward(g)
        assert np.array_equal(x.grad, g, equal_nan=True)


def test_constant_exponents(impl):
    """Of negative bases and 0: the gradient of the exponent, which needs a logarithm, is not wanted."""
    for as_constant, (exponent, value, slope) in itertools.product(
        [int, float, np.float64, np.array, lambda p: np.full(3, p)],
        [
            (0, [1, 1, 1], [0, 0, 0]),
            (1, [-3, 0, 2], [1, 1, 1]),
            (2, [9, 0, 4], [-6, 0, 4]),
            (3, [-27, 0, 8], [27, 0, 12]),
        ],
    ):
        x = impl.Tensor([-3.0, 0.0, 2.0], requires_grad=True)
        y = x ** as_constant(exponent)
        y.backward(np.ones(3))
        assert y.data.tolist() == value
        assert x.grad.tolist() == slope


def test_exponents_that_are_tensors(impl):
    a, b = impl.Tensor([2.0, 3.0, 0.0], requires_grad=True), impl.Tensor([0.0, 2.0, 0.0], requires_grad=True)
    with np.errstate(all="ignore"):
        (a**b).backward(np.ones(3))
    assert a.grad.tolist() == [0, 6, 0]
    assert near(b.grad[:2], [math.log(2), 9 * math.log(3)])


def test_ties_share_the_gradient_of_a_maximum(impl):
    x = impl.Tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [5.0, 4.0, 5.0]], requires_grad=True)
    x.max(axis=1).backward([12.0, 6.0, 2.0])
    assert x.grad.tolist() == [[0, 6, 6], [2, 2, 2], [1, 0, 1]]
    x.grad = None
    x.max().backward(8.0)
    assert x.grad.tolist() == [[0, 0, 0], [0, 0, 0], [4, 0, 4]]
    x = impl.Tensor([1.0, 1.0 + 1e-15, -math.inf, -1e300], requires_grad=True)  # near is not equal
    x.max().backward()
    assert x.grad.tolist() == [0, 1, 0, 0]


def test_a_repeated_index_receives_every_gradient(impl):
    table = impl.Tensor(np.arange(8.0).reshape(4, 2), requires_grad=True)
    rows = table[np.array([[3, 0], [3, 3]])]
    assert rows.data.tolist() == [[[6, 7], [0, 1]], [[6, 7], [6, 7]]]
    rows.backward(np.array([[[1.0, 2], [3, 4]], [[10, 20], [100, 200]]]))
    assert table.grad.tolist() == [[3, 4], [0, 0], [0, 0], [111, 222]]


def test_where_lets_nothing_through_where_it_did_not_take(impl):
    """0 times infinity is NaN: a mask that multiplies the gradient would let it pass."""
    a, b = impl.Tensor([math.nan, 2.0], True), impl.Tensor([3.0, math.inf], True)
    impl.where(np.array([False, True]), a, b).backward([math.inf, 1.0])
    assert (a.grad.tolist(), b.grad.tolist()) == ([0, 1], [math.inf, 0])
    a.grad = b.grad = None
    impl.where(np.array([False, True]), a, b).backward([1.0, math.nan])
    assert (str(a.grad.tolist()), b.grad.tolist()) == ("[0.0, nan]", [1, 0])


def test_softmax_with_a_mask(impl):
    """The masked score is -inf: its weight and its gradient are exactly 0, and nothing is NaN."""
    scores = impl.Tensor([0.0, math.log(3.0), 50.0], True)
    masked = impl.where(np.array([True, True, False]), scores, -math.inf)
    exponentials = (masked - masked.max().detach()).exp()
    weights = exponentials / exponentials.sum()
    assert near(weights.data, [0.25, 0.75, 0])
    weights.backward([1.0, 0.0, 0.0])
    assert near(scores.grad, [3 / 16, -3 / 16, 0])


def test_einsum_of_a_tensor_with_itself(impl, rng):
    x = rng.normal(size=(3, 3))
    tensor = impl.Tensor(x, requires_grad=True)
    for spec in ("ij,ik->jk", "ij,jk->ik", "ij,ji->"):
        tensor.grad = None
        y = impl.einsum(spec, tensor, tensor)
        g = rng.normal(size=y.shape)
        y.backward(g)
        expected = sum(transposed(lambda *x, s=spec: np.einsum(s, *x))(g, x, x))
        battery.check_equal(tensor.grad, expected, 64, 10)


def test_einsum_refuses(impl):
    x = impl.Tensor(np.ones((2, 2)), requires_grad=True)
    for spec, *operands in [
        *[("ii->i", x), ("ij,jk", x, x), ("ij,jk->ik", x), ("ij->k", x), ("ijk->i", x), ("ij,jj->i", x, x)],
        *[
            ("ij,jk->ik", x, np.ones((3, 2))),
            ("ij,jk->ik", x, np.ones((1, 2))),
            ("ij->ii", x),
            ("ij->i", x, x),
        ],
        *[("i1->i", x), ("ij->i->j", x), ("...j->j", x), ("ij,->ij", x), ("ij", x)],
    ]:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.einsum(spec, *operands)


def test_shapes_and_axes_that_do_not_fit(impl):
    x = impl.Tensor(np.ones((2, 3)), requires_grad=True)
    reductions = [getattr(x, name) for name in ("sum", "mean", "max")]
    calls = [
        lambda f=f, axis=a: f(axis) for f in reductions for a in (2, -3, (0, 2), (0, 0), (0, -2), (1, 1, 0))
    ]
    calls += [
        lambda f=f, y=y: f(x, y) for f in BINARY for y in (np.ones(2), np.ones((3, 3)), np.ones((4, 3)))
    ]
    for call in [
        *calls,
        *(
            lambda: x @ np.ones((2, 3)),
            lambda: x @ np.ones((1, 3)),
            lambda: np.ones((2, 3)) @ x,
            lambda: x @ 3.0,
        ),
        *(lambda: 3.0 @ x, lambda: x @ impl.Tensor(2.0), lambda: x @ np.ones(2), lambda: np.ones(3) @ x),
        *(
            lambda: x + np.ones(2),
            lambda: np.ones((3, 3)) - x,
            lambda: x.reshape(4),
            lambda: x.reshape(-1, 4),
        ),
        *(
            lambda: x.transpose(0),
            lambda: x.transpose(0, 0),
            lambda: x.transpose(0, 2),
            lambda: x.transpose(0, -2),
        ),
        *(lambda: x.swapaxes(0, 2), lambda: x.swapaxes(-3, 0), lambda: impl.where(np.ones(2, bool), x, 0.0)),
        *(lambda: impl.concatenate([x, np.ones((2, 2))]), lambda: impl.concatenate([x, x], 2)),
        *(lambda: impl.concatenate([x, x], -3), lambda: impl.concatenate([x, np.ones(3)])),
        *(lambda n=n: impl.concatenate([impl.Tensor(1.0, requires_grad=True)] * n) for n in (1, 2)),
    ]:
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are NumPy's
            call()
    for index in (2, -3, (0, 3), [0, 2], np.array([5]), (0, 0, 0)):
        with pytest.raises(IndexError):
            x[index]


def test_a_tensor_that_is_used_more_than_once(impl):
    for operation, slope in [
        (lambda x: x + x, 2.0),
        (lambda x: x - x, 0.0),
        (lambda x: x * x, 6.0),
        (lambda x: x / x, 0.0),
        (lambda x: x**x, 27 * (1 + math.log(3))),
        (lambda x: x * x * x, 27.0),
        (lambda x: (x + x) * (x + x), 24.0),
        (lambda x: (x * 2) * (x * 2 + 1), 26.0),
    ]:
        for shape in ((), (2, 2)):
            x = impl.Tensor(np.full(shape, 3.0), requires_grad=True)
            operation(x).backward(np.ones(shape))
            assert np.allclose(x.grad, slope, rtol=1e-13, atol=1e-13)
    x = impl.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (x @ x.transpose()).backward([[1.0, 0.0], [0.0, 0.0]])  # the first row times itself
    assert x.grad.tolist() == [[2, 4], [0, 0]]


def test_short_and_long_paths_meet(impl):
    """The inner node must wait for the long path: c = a + 5 a**2 with a = 2 x, so dc/dx = 2 (1 + 10 a)."""
    for swapped in (False, True):
        x = impl.Tensor([0.5, 1.0], requires_grad=True)
        a = x * 2
        b = (a * a) * 5
        c = b + a if swapped else a + b
        c.sum().backward()
        assert x.grad.tolist() == [22, 42]


def test_tensors_of_equal_data_are_different(impl):
    array = np.array([2.0])
    x, y = impl.Tensor(array, True), impl.Tensor(array, True)
    (x * y + x).backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([3], [2])


def test_backward_again_adds_the_same_again(impl):
    x = impl.Tensor([3.0, 1.0], requires_grad=True)
    h = x * x
    y = (h * 4 + h - x * 100).sum()
    for times in (1, 2, 3):
        y.backward()
        assert x.grad.tolist() == [-70.0 * times, -90.0 * times]
    x.grad = None
    y.backward(np.array(2.0))
    assert x.grad.tolist() == [-140, -180]
    x.grad = np.array([7.0, -7.0])  # whatever stands there is added to
    y.backward(np.array(2.0))
    assert x.grad.tolist() == [-133, -187]


def test_two_ends_that_share_inner_nodes(impl):
    x = impl.Tensor(3.0, requires_grad=True)
    h = x * x
    a, b = h * 2, h * 10
    for end, expected in ((a, 12), (b, 72), (h, 78), (a, 90)):
        end.backward()
        assert float(x.grad) == expected
    (h * 3).backward()  # the graph grows after a pass
    assert float(x.grad) == 108


def test_only_given_tensors_keep_a_gradient(impl):
    x, aside = impl.Tensor([1.0, 2.0], requires_grad=True), impl.Tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    y = h.sum()
    y.backward()
    assert x.grad.tolist() == [2, 2]
    assert (h.grad, y.grad, aside.grad) == (None, None, None)
    assert (h.requires_grad, y.requires_grad) == (True, True)
    h.backward([1.0, 1.0])
    assert x.grad.tolist() == [4, 4]
    assert h.grad is None


def test_a_gradient_of_zeros_is_a_gradient(impl):
    x, y = impl.Tensor([1.0, 2.0], requires_grad=True), impl.Tensor(np.ones((0, 2)), requires_grad=True)
    ((x * 0).sum() + y.sum()).backward()
    assert x.grad.tolist() == [0, 0]
    assert y.grad.shape == (0, 2)
    x.grad = None
    (x + x).backward([0.0, 0.0])
    assert x.grad.tolist() == [0, 0]


def test_constants_get_none_and_pass_nothing_on(impl):
    x, constant = impl.Tensor([1.0, 2.0], requires_grad=True), impl.Tensor([3.0, 4.0])
    y = x * constant + (constant * constant).sum() + constant.exp() * 0
    assert not (constant * constant).requires_grad
    y.backward(np.ones(2))
    assert x.grad.tolist() == [3, 4]
    assert constant.grad is None
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
    assert x.detach() is not x
    assert x.requires_grad


def test_gradients_that_are_given(impl):
    """Arrays, nested lists and numbers, of any dtype; at a tensor that was not computed, too."""
    numbers = [[1, 0], [2, 3]]
    arrays = [np.array(numbers).astype(dtype) for dtype in (*battery.FLOATS, np.int64, np.uint8, bool)]
    for dtype, given in itertools.product(battery.FLOATS, [numbers, [[0.5, 0.0], [2.0, 3.0]], *arrays]):
        for operation in (lambda x: x, lambda x: x * 3 + x):
            x = impl.Tensor(np.ones((2, 2), dtype), requires_grad=True)
            for times in (1, 2):
                operation(x).backward(given)
                factor = float(operation(np.array(1.0))) * times
                battery.check_equal(x.grad, np.asarray(given, float) * factor, dtype=dtype)
    for given in (2, 2.0, np.float32(2), np.array(2)):
        x = impl.Tensor(5.0, requires_grad=True)
        (x * 3).backward(given)
        assert float(x.grad) == 6
    x = impl.Tensor(5.0, requires_grad=True)
    x.backward(gradient=4.0)
    assert float(x.grad) == 4


def test_the_default_gradient_is_for_one_entry(impl):
    for shape in [(), (1,), (1, 1)]:
        x = impl.Tensor(np.full(shape, 2.0), requires_grad=True)
        (x * 3).backward()
        assert x.grad.tolist() == np.full(shape, 3.0).tolist()
    for shape in [(2,), (1, 2), (0,), (0, 3)]:
        x = impl.Tensor(np.ones(shape), requires_grad=True)
        with pytest.raises(ValueError):  # noqa: PT011
            (x * 3).backward()
        assert x.grad is None


def test_the_gradient_must_have_the_shape_of_the_tensor(impl):
    shapes = [(), (1,), (3,), (1, 3), (3, 1), (2, 3), (3, 2), (6,), (1, 1), (0,)]
    for shape, given in itertools.permutations(shapes, 2):
        x = impl.Tensor(np.ones(shape), requires_grad=True)
        for y in (x, x * 3):
            with pytest.raises(ValueError):  # noqa: PT011
                y.backward(np.ones(given))
        assert x.grad is None


def test_backward_needs_something_to_differentiate(impl):
    for tensor in (impl.Tensor(1.0), impl.Tensor(1.0) * 2, impl.Tensor(1.0, True).detach()):
        for gradient in (None, 1.0):
            with pytest.raises(ValueError):  # noqa: PT011
                tensor.backward(gradient)


SAME_SHAPE = {
    "itself": lambda x, impl: x,
    **{f"{f.__name__} 1": lambda x, impl, f=f: f(x, 1) for f in BINARY},
    **{f"1 {f.__name__}": lambda x, impl, f=f: f(1, x) for f in BINARY},
    "+ 0": lambda x, impl: x + 0,
    "0 +": lambda x, impl: 0 + x,
    "- 0": lambda x, impl: x - 0,
    "+ x": lambda x, impl: x + x,
    **{name: lambda x, impl, f=f: f(x) for name, (f, _, _) in UNARY.items()},
    "reshape": lambda x, impl: x.reshape(x.shape),
    "transpose": lambda x, impl: x.transpose(*range(x.ndim)),
    "...": lambda x, impl: x[...],
    "()": lambda x, impl: x[()],
    "sum(())": lambda x, impl: x.sum(()),
    "mean(())": lambda x, impl: x.mean(()),
    "max(())": lambda x, impl: x.max((), True),
    "where": lambda x, impl: impl.where(np.ones(x.shape, bool), x, 0.0),
    "record": lambda x, impl: impl.record(x.data, (x, lambda g: g)),
    "record, the same again": lambda x, impl: impl.record(x.data, (x, lambda g: g), (x, lambda g: g)),
}
"""Operations that give back the shape that they were given, so that gradients could be handed through."""

SQUARES = {
    "swapaxes(0, 1)": lambda x, impl: x.swapaxes(0, 1),
    "swapaxes(0, 0)": lambda x, impl: x.swapaxes(0, 0),
    "transpose()": lambda x, impl: x.transpose(),
    "concatenate": lambda x, impl: impl.concatenate([x]),
    "concatenate, axis 1": lambda x, impl: impl.concatenate([x], axis=1),
    "einsum": lambda x, impl: impl.einsum("ij->ij", x),
    "@ 1": lambda x, impl: x @ np.eye(2),
    "[:]": lambda x, impl: x[:],
}
"""The same for matrices."""


def test_every_operation_gives_a_new_tensor_and_every_gradient_an_array_of_its_own(impl):
    """Also at shape (), where NumPy gives numbers; after a second backward; when clipped in place."""
    for shape, operations in [((), SAME_SHAPE), ((2, 2), SAME_SHAPE | SQUARES)]:
        for name, operation in operations.items():
            x = impl.Tensor(np.ones(shape), requires_grad=True)
            y = operation(x, impl)
            assert isinstance(y, impl.Tensor)
            assert y is x or name != "itself"
            assert y is not x or name == "itself", name
            assert isinstance(y.data, np.ndarray), name
            gradient = np.ones(shape)
            for _ in range(3):
                y.backward(gradient)
                assert isinstance(x.grad, np.ndarray), name
                assert (x.grad.shape, x.grad.dtype) == (shape, np.float64)
                assert x.grad.flags.writeable
                assert not any(np.shares_memory(x.grad, each) for each in (gradient, x.data, y.data)), name
                assert (gradient == 1).all()
                assert y.grad is None or y is x
            before = x.grad.copy()
            gradient[...] = 100.0
            assert np.array_equal(x.grad, before)
            x.grad *= 0  # as an optimizer's clipping does
            assert (gradient == 100).all()
            assert (x.data == 1).all()


def test_no_gradient_shares_memory_with_another(impl):
    arrays = [np.ones((2, 2)) for _ in range(4)]
    tensors = [impl.Tensor(x, requires_grad=True) for x in arrays]
    a, b, c, d = tensors
    for y in (
        a + b - c - d,
        impl.concatenate([a + b, c.reshape(2, 2) - d, (a * b).transpose(), c.sum(0, True)]),
        impl.concatenate(tensors),
        impl.record(a.data, *((each, lambda g: g) for each in tensors)),
    ):
        for tensor in tensors:
            tensor.grad = None
        y.backward(np.ones(y.shape))
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
    for operate in (
        operator.iadd,
        operator.isub,
        operator.imul,
        operator.itruediv,
        operator.ipow,
        operator.matmul,
    ):
        result = operate(a, b)
        assert result is not a
        assert np.array_equal(arrays, before)
        result.backward(np.ones((3, 3)))
        assert np.array_equal(arrays, before)
    total = a.exp() @ b.log() + a.max(0) + a[0] / b[:, 1] ** 2 + impl.where(before[0] > 1.5, a, b.sqrt())
    total.backward(np.ones((3, 3)))
    assert np.array_equal(arrays, before)


def test_more_paths_than_could_be_walked(impl):
    """100 results with two edges to the one before have 2**100 paths; each function is called once."""
    n_calls = 0

    def halve(g):
        nonlocal n_calls
        n_calls += 1
        assert n_calls <= 200, "one edge is walked again and again"
        return g * 0.5

    x = y = impl.Tensor([3.0], requires_grad=True)
    for _ in range(100):
        y = impl.record(y.data, (y, halve), (y, halve))
    y.backward()
    assert (float(y.data[0]), float(x.grad[0]), n_calls) == (3, 1, 200)


def test_the_gradients_of_results_are_dropped_on_the_way(impl):
    """Forty results, whose gradients all at once would be forty arrays."""
    x = impl.Tensor(np.ones(20_000), requires_grad=True)
    y = x
    for _ in range(40):
        y = y.reshape(100, 200).reshape(20_000) + 1.0
        y = impl.record(y.data, (y, lambda g: g * 0.5))
    g = np.ones(20_000)
    peak = battery.peak_bytes(lambda: y.backward(g))
    assert peak < 8 * g.nbytes, f"{peak / g.nbytes:.0f} gradients at once"


def test_record_by_hand(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    y = impl.record(x.data**3, (x, lambda g: g * 3 * x.data**2))
    assert isinstance(y, impl.Tensor)
    assert y.data.tolist() == [1, 8]
    assert y.requires_grad
    assert y.grad is None
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


def test_record_takes_an_input_twice_and_sums_what_was_repeated(impl, rng):
    x = impl.Tensor([[1.0], [2.0]], requires_grad=True)
    value = np.broadcast_to(x.data, (5, 2, 3)) * 2
    y = impl.record(value, (x, lambda g: g), (x, lambda g: g[0]))
    y.backward(np.ones((5, 2, 3)))
    assert x.grad.tolist() == [[18], [18]]
    for shape, repeated in SHAPES:
        whole = np.broadcast_shapes(shape, repeated)
        x = impl.Tensor(np.ones(shape), requires_grad=True)
        given = rng.normal(size=whole)
        impl.record(np.array(1.0), (x, lambda g, given=given: given)).backward()
        battery.check_equal(x.grad, fold(given, shape), 64, given.size, dtype=np.float64)


def test_record_takes_any_dtype_and_leaves_what_the_functions_give(impl):
    """What they return may be an array that they keep, a list, a view, or read-only."""
    kept = np.ones((2, 3))
    read_only = np.broadcast_to(np.float16(2), (2, 3))
    x = impl.Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    functions = [
        lambda g: kept,
        lambda g: [[1, 2, 3]] * 2,
        lambda g: read_only,
        lambda g: kept,
        lambda g: np.eye(3, dtype=int)[:2],
        lambda g: g[0, 0] * kept,
    ]
    y = impl.record(x.data * 2, *((x, function) for function in functions))
    for times in (1, 2):
        (y + y * 2).backward(np.ones((2, 3)))
        assert x.grad.dtype == np.float32
        assert x.grad.tolist() == (times * np.array([[9.0, 9, 10], [8, 10, 10]])).tolist()
        assert (kept == 1).all()


def test_record_hands_over_the_gradient_in_shape_and_dtype_of_the_result(impl):
    seen = []
    x = impl.Tensor(np.ones((2, 3), np.float32), requires_grad=True)

    def pull_back(g):
        seen.append((type(g), g.shape, g.dtype))
        return np.broadcast_to(g, (2, 3)).astype(np.float64)

    for axis, shape in [(0, (3,)), (None, ())]:
        y = impl.record(x.data.sum(axis), (x, pull_back))
        for end in (y, (y * np.ones((4, *shape))).sum(), y + y):
            end.backward(np.ones(end.shape))
            assert seen.pop() == (np.ndarray, shape, np.float32)
    assert x.grad.dtype == np.float32
    for value, dtype in ((np.float16([1]), np.float16), ([1, 2], np.float64), (np.float32(3), np.float32)):
        assert impl.record(value, (x, lambda g: g)).dtype == dtype


def test_no_grad(impl):
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    with impl.no_grad():
        y = (x * 2).sum()
        inside = impl.Tensor([1.0], requires_grad=True)
        for each in (inside * 2, x @ x, x[0], impl.where(np.ones(2, bool), x, 0), impl.concatenate([x, x])):
            assert not each.requires_grad
        assert not impl.einsum("i->", x).requires_grad
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
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), impl.no_grad():
            raise error
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


def test_operators(impl, rng):
    for operation in BINARY:
        cases = [*battery.cases(positive(rng), "... a b, ... a b"), shaped(rng, (3000,), (3000,))]
        check(impl, rng, cases, operation, operation, binary(operation))


SHAPES = [
    *[((), ()), ((3,), ()), ((), (2, 3)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((2, 3), (2, 1))],
    *[((1,), (3,)), ((1, 1), (3,)), ((4, 1, 3), (2, 1)), ((1, 3), (2, 4, 3)), ((2, 2), (1, 2))],
    *[((0, 3), (3,)), ((1,), (0,)), ((130, 3), (3,)), ((2, 130), (2, 1)), ((1, 140), (7, 1))],
    *[
        ((80, 70), (70,)),
        ((2, 1, 2, 1, 3, 2), (2,)),
        ((1,), (1, 1, 1, 1, 1)),
        ((1, 1), ()),
        ((3, 1), (1, 130)),
        ((1, 1), (2, 3, 2)),
        ((1, 2, 1), (2, 3, 2, 2)),
    ],
]


def test_operators_with_broadcasting(impl, rng):
    """Also with a constant on either side, which takes no part in the gradient."""
    for operation in BINARY:
        cases = [shaped(rng, left, right) for left, right in SHAPES]
        cases += [shaped(rng, (2, 1, 3), (4, 1), dtype=dtype) for dtype in battery.FLOATS]
        check(impl, rng, cases, operation, operation, binary(operation))
        for case in cases:
            for n in range(2):
                check_beside_a_constant(impl, rng, case, n, operation, operation, binary(operation))


def check_beside_a_constant(impl, rng, case, n, of_tensors, of_arrays, gradients):
    """Check a function with respect to its argument n, the others being arrays."""
    before, after = case.arguments[:n], case.arguments[n + 1 :]
    plain = [x.astype(float) for x in before], [x.astype(float) for x in after]
    check(
        *(impl, rng, [Case(f"{case.label}, all constants but {n + 1}", case.arguments[n : n + 1])]),
        lambda x: of_tensors(*before, x, *after),
        lambda x: of_arrays(*plain[0], x, *plain[1]),
        lambda g, x: gradients(g, *plain[0], x, *plain[1])[n : n + 1],
    )


def test_numbers_integers_and_booleans_take_the_dtype_of_the_tensor(impl, rng):
    constants = [3, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(3), np.array(2.5), np.array(2)]
    constants += [np.array([1, 2, 3]).astype(dtype) for dtype in battery.INTEGERS]
    for operation, constant, dtype in itertools.product(BINARY, constants, battery.FLOATS):
        if operation is operator.pow and np.asarray(constant).dtype == bool:
            continue  # NumPy has no powers of booleans
        x = rng.uniform(0.5, 2, size=(2, 3)).astype(dtype)
        value = np.asarray(constant, np.float64)
        tensor = impl.Tensor(x, requires_grad=True)
        for is_right, result in enumerate((operation(tensor, constant), operation(constant, tensor))):
            pair = (value, x.astype(float)) if is_right else (x.astype(float), value)
            assert isinstance(result, impl.Tensor)
            label = f"{operation.__name__} with {constant!r}"
            battery.check_equal(result, operation(*pair), ulps=16, dtype=dtype, label=label)
            tensor.grad = None
            result.backward(np.ones((2, 3)))  # of float64
            expected = np.broadcast_to(BINARY[operation](*pair)[is_right], (2, 3))
            battery.check_equal(tensor.grad, expected, ulps=16, dtype=dtype, label=label)


def test_tensors_without_axes_mix_as_any_other(impl):
    """Beside them only numbers have no say: not tensors, nor arrays with axes."""
    for left, right in itertools.product(battery.FLOATS, repeat=2):
        for requires_grad, operation in itertools.product((False, True), BINARY):
            x = impl.Tensor(left(2), requires_grad)
            for number in (2, 2.5, np.array(3), right(2)):
                assert operation(x, number).dtype == operation(number, x).dtype == left
            for other in (impl.Tensor(right([1, 2])), impl.Tensor(right(2)), right([1, 2])):
                assert operation(x, other).dtype == operation(other, x).dtype == np.result_type(left, right)
        assert impl.where(np.array([True, False]), impl.Tensor(left(2)), 0.0).dtype == left


def test_functions_of_each_entry(impl, rng):
    for of_tensor, of_array, slope in UNARY.values():
        cases = [*battery.cases(positive(rng), "... a b"), shaped(rng, ()), shaped(rng, (2, 3000))]
        check(impl, rng, cases, of_tensor, of_array, lambda g, x, f=slope: [g * f(x)])


PRODUCTS = [
    *[((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((1, 3), (3, 1)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4))],
    *[((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4))],
    *[((2, 1, 2, 3), (3, 3, 2)), ((1, 4, 2, 3), (2, 1, 3, 2)), ((2, 4, 2, 3), (3, 5)), ((0, 3), (3, 2))],
    *[((2, 0), (0, 3)), ((2, 0, 3), (3, 4)), ((4, 2, 0), (0, 3)), ((0,), (0,)), ((2, 130), (130,))],
    *[((1, 1, 1, 2), (2, 2)), ((130,), (130, 2)), ((2, 3, 1, 2), (2, 1)), ((3, 2, 2), (3, 2, 1))],
    *[
        ((2, 3, 2, 4), (4,)),
        ((4,), (2, 3, 4, 2)),
        ((3, 3), (3, 3)),
        ((2, 2, 2), (2, 2, 2)),
        ((2, 2, 2), (2,)),
    ],
]


def test_matrix_products(impl, rng):
    cases = [
        Case(f"{left} @ {right}", (rng.normal(size=left), rng.normal(size=right))) for left, right in PRODUCTS
    ]
    for spec in ("i j, j k", "... i j, ... j k", "... i j, j k"):
        cases += battery.cases(rng, spec, sizes={"...": [(), (2, 3), (0,)]})
    check_linear(impl, rng, cases, operator.matmul)
    for case, n in itertools.product(cases[: len(PRODUCTS)], range(2)):
        check_beside_a_constant(impl, rng, case, n, *[operator.matmul] * 2, transposed(operator.matmul))


AXES = [None, 0, 1, 2, -1, -3, (0, 2), (1,), (-1, 0), (2, 0), (0, 1, 2), ()]
REDUCTIONS = [{"axis": axis, "keepdims": keepdims} for axis in AXES for keepdims in (False, True)]


def reduction(name):
    return lambda x, axis=None, keepdims=False: getattr(x, name)(axis=axis, keepdims=keepdims)


def gradients_of_max(g, x, axis=None, keepdims=False):
    """For each group of entries: those equal to the largest share."""
    largest = x.max(axis=axis, keepdims=True)
    g, n_largest = g.reshape(largest.shape), (x == largest).sum(axis=axis, keepdims=True)
    return [np.where(x == largest, g / np.maximum(n_largest, 1), 0)]


def test_reductions(impl, rng):
    for name in ("sum", "mean", "max"):
        cases = battery.cases(rng, "a b c", sizes=dict.fromkeys("abc", (1, 2, 130)), options=[{"axis": 1}])
        for options, dtype in zip(REDUCTIONS, itertools.cycle(battery.FLOATS), strict=False):
            cases.append(Case("", shaped(rng, (2, 3, 4)).arguments, options))
            cases.append(Case("", shaped(rng, (3, 1, 2), dtype=dtype).arguments, options))
            if not options["keepdims"]:
                cases.append(Case("axes of one length", shaped(rng, (2, 2, 2)).arguments, options))
            cases.append(Case("ties", (rng.integers(0, 2, size=(3, 4, 2)) * 1.0,), options))
        cases.append(Case("many ties", (rng.integers(0, 2, size=(3, 130, 1)) * 1.0,), {"axis": 1}))
        gradients = gradients_of_max if name == "max" else transposed(reduction(name))
        check(impl, rng, cases, reduction(name), reduction(name), gradients)


def test_the_arguments_of_reductions(impl, rng):
    """By position, and of arrays without axes or without entries."""
    for name in ("sum", "mean", "max"):
        x = rng.normal(size=(2, 3))
        tensor = impl.Tensor(x)
        assert near(getattr(tensor, name)().data, getattr(x, name)())
        assert near(getattr(tensor, name)(1).data, getattr(x, name)(1))
        assert near(getattr(tensor, name)(0, True).data, getattr(x, name)(0, keepdims=True))
        check_linear(impl, rng, [Case("no axes", (np.array(1.5),))], reduction(name))
        beside = [{"axis": 0}, {"axis": 0, "keepdims": True}]
        cases = [Case("an axis beside an empty one", (np.ones((3, 0)),), options) for options in beside]
        check_linear(impl, rng, cases, reduction(name))
    cases = [Case(f"sum of shape {shape}", (np.ones(shape),)) for shape in [(0,), (0, 3), (2, 0)]]
    check_linear(impl, rng, cases, reduction("sum"))


RESHAPES = {
    "reshape(3, 8)": lambda x: x.reshape(3, 8),
    "reshape((4, 6))": lambda x: x.reshape((4, 6)),
    "reshape([2, -1])": lambda x: x.reshape([2, -1]),
    "reshape(-1)": lambda x: x.reshape(-1),
    "reshape(24)": lambda x: x.reshape(24),
    "reshape(2, -1, 2)": lambda x: x.reshape(2, -1, 2),
    "reshape to the same": lambda x: x.reshape(2, 3, 4),
    "reshape after transpose": lambda x: x.transpose(2, 0, 1).reshape(8, 3),
    "transpose()": lambda x: x.transpose(),
    "transpose(1, 2, 0)": lambda x: x.transpose(1, 2, 0),
    "transpose((2, 0, 1))": lambda x: x.transpose((2, 0, 1)),
    "transpose([2, 0, 1])": lambda x: x.transpose([2, 0, 1]),
    "transpose((0, 2, 1))": lambda x: x.transpose((0, 2, 1)),
    "transpose(0, 1, 2)": lambda x: x.transpose(0, 1, 2),
    "transpose(-1, 0, -2)": lambda x: x.transpose(-1, 0, -2),
    "swapaxes(0, 2)": lambda x: x.swapaxes(0, 2),
    "swapaxes(-1, -2)": lambda x: x.swapaxes(-1, -2),
    "swapaxes(-3, -1)": lambda x: x.swapaxes(-3, -1),
    "swapaxes(1, 1)": lambda x: x.swapaxes(1, 1),
    "rearrange": lambda x: rearrange(x, "a b (c d) -> c (b a) d", c=2),
}

INDICES = {
    "0": 0,
    "-1": -1,
    "1, 0": (1, 0),
    "a whole place": (1, 0, -1),
    "1:": slice(1, None),
    "::-1": slice(None, None, -1),
    ":, ::2": (slice(None), slice(None, None, 2)),
    "2:2": slice(2, 2),
    "...": ...,
    "..., 1": (..., 1),
    "None": None,
    "1, None, ..., None": (1, None, ..., None),
    "()": (),
    "True": True,
    "False": False,
    "a list": [0, 2],
    "a list with repeats": [0, 2, 0, 0],
    "ids": np.array([[0, 1, 1], [2, 1, 0]]),
    "negative ids": np.array([-1, 2, 0, -1]),
    "the same in two ways": np.array([2, -1]),
    "small ids": np.array([1, 1], np.uint8),
    "no ids": np.array([], dtype=int),
    "an array without axes": np.array(1),
    "pairs": (np.array([0, 0, 2]), np.array([1, 1, 0])),
    "pairs far apart": (np.array([0, 0, 2]), slice(None), np.array([1, 1, 0])),
    "triples": (np.array([0, 0, 2]), np.array([1, 1, 0]), np.array([3, 3, 0])),
    "a slice and ids": (slice(1, None), np.array([1, 1])),
    "open mesh": (np.array([[0], [0]]), np.array([1, 1, 0])),
    "mask": np.arange(24).reshape(3, 2, 4) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "mask and slice": (np.array([True, False, True]), slice(0, 1)),
}


def test_new_shapes(impl, rng):
    for name, f in RESHAPES.items():
        cases = [shaped(rng, (2, 3, 4), dtype=dtype) for dtype in battery.FLOATS]
        for layout, lay in battery.LAYOUTS.items():
            cases.append(Case(f"{name}, {layout}", (lay(rng.normal(size=(2, 3, 4))),)))
        if not name.startswith("reshape"):
            cases.append(shaped(rng, (2, 2, 2)))  # a wrong order of axes fits as well
        check_linear(impl, rng, cases, f)
    for f, x in (
        (lambda x: x.transpose(), np.array(2.0)),
        (lambda x: x.reshape(1, 1), np.array(2.0)),
        (lambda x: x.reshape(()), np.array([[2.0]])),
        (lambda x: x.reshape(0, 5), np.ones((3, 0))),
        (lambda x: x.transpose(), np.ones((3, 0, 2))),
        (lambda x: x.transpose(1, 0), rng.normal(size=(2, 130))),
        (lambda x: x.transpose(3, 1, 0, 2), rng.normal(size=(2, 1, 3, 2))),
        (lambda x: x.reshape(2, 70), rng.normal(size=(140,))),
    ):
        check_linear(impl, rng, [Case("", (x,))], f)


def test_selections(impl, rng):
    for name, index in INDICES.items():
        x = rng.normal(size=(3, 2, 4))
        cases = [Case(f"[{name}]", (x,)), Case(f"[{name}], float32", (x.astype(np.float32),))]
        cases += [Case(f"[{name}], {layout}", (lay(x),)) for layout, lay in battery.LAYOUTS.items()]
        check_linear(impl, rng, cases, lambda x, index=index: x[index])
    for dtype in set(battery.INTEGERS) - {np.bool_}:
        ids = np.array([[2, 0, 0], [1, 2, 2]]).astype(dtype)
        case = Case(f"ids of {np.dtype(dtype).name}", (rng.normal(size=(3, 2)),))
        check_linear(impl, rng, [case], lambda x, ids=ids: x[ids])
        check_linear(impl, rng, [case], lambda x, ids=ids: x[ids, ids // 2])
    many = rng.integers(0, 9, size=(20, 30))
    check_linear(impl, rng, [Case("many ids", (rng.normal(size=(9, 2)),))], lambda x: x[many])
    check_linear(impl, rng, [Case("ids of 200", (rng.normal(size=200),))], lambda x: x[many[0] * 20 + 3])


def test_where(impl, rng):
    def taking(mask):
        return lambda a, b: impl.where(mask, a, b), lambda a, b: np.where(mask, a, b)

    def of_all(a, b, mask):
        return impl.where(mask, a, b)

    cases = []
    for case in battery.cases(rng, "... a b, ... a b"):
        shape = case.arguments[0].shape
        masks = {"random": rng.random(shape) < 0.5, "of a row": rng.random(shape[-1:]) < 0.5}
        masks |= {"all False": np.zeros(shape, bool), "all True": np.ones(shape, bool)}
        cases += [Case(f"{case.label}, mask {name}", (*case.arguments, mask)) for name, mask in masks.items()]
    cases += [
        Case(f"mask {layout}", (*cases[-4].arguments[:2], lay(cases[-4].arguments[2])))
        for layout, lay in battery.LAYOUTS.items()
    ]
    a, b, mask = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.random((2, 3)) < 0.5
    cases += [Case(f"entries times {size:g}", (a * size, b * size, mask)) for size in (1e-300, 1e5, 1e300)]
    check_linear(impl, rng, cases, of_all, lambda a, b, mask: np.where(mask, a, b))
    for shape, left, right in [
        *[((2, 3), (2, 3), (2, 3)), ((3,), (2, 3), (2, 1)), ((2, 1), (3,), ()), ((), (2, 3), (3,))],
        *[((4, 1, 1), (2, 1), (3,)), ((2, 3), (), ()), ((130, 1), (1, 3), (3,))],
    ]:
        functions = taking(rng.random(size=shape) < 0.5)
        cases = [shaped(rng, left, right, dtype=dtype) for dtype in battery.FLOATS]
        check_linear(impl, rng, cases, *functions)
        for n in range(2):
            check_beside_a_constant(impl, rng, cases[-1], n, *functions, transposed(functions[1]))
    constant = impl.where(np.array([True, False]), 1.0, 0)
    assert isinstance(constant, impl.Tensor)
    assert (constant.data.tolist(), constant.requires_grad, constant.dtype) == ([1, 0], False, np.float64)
    x = impl.Tensor(np.float32([1, 2]))
    assert impl.where(np.array([True, False]), x, -math.inf).data.tolist() == [1, -math.inf]
    assert impl.where(np.array([True, False]), x, -math.inf).dtype == np.float32
    assert impl.where(np.array([True, False]), -math.inf, x).dtype == np.float32


PARTS = [
    *[([(2,), (3,)], 0), ([(2, 3), (1, 3), (4, 3)], 0), ([(2, 3), (2, 1)], 1), ([(2, 3), (2, 2)], -1)],
    *[([(2, 1, 3), (2, 4, 3)], -2), ([(2, 2, 3), (1, 2, 3)], -3), ([(3, 2)], 0), ([(0, 2), (3, 2)], 0)],
    *[([(2, 2), (2, 2), (2, 2)], 1), ([(2, 130), (2, 3)], 1), ([(1,)] * 12, 0), ([(2, 1, 1, 2)] * 2, 2)],
]


def test_concatenate(impl, rng):
    for shapes, axis in PARTS:

        def joined(*parts, axis=axis):
            return impl.concatenate(parts, axis)

        def expected(*parts, axis=axis):
            return np.concatenate(parts, axis)

        cases = [shaped(rng, *shapes, dtype=dtype) for dtype in battery.FLOATS]
        check_linear(impl, rng, cases, joined, expected)
        for n in {0, len(shapes) - 1}:
            check_beside_a_constant(impl, rng, cases[-1], n, joined, expected, transposed(expected))
    pairs = [(x := rng.normal(size=(2, 3)), lay(x)) for lay in battery.LAYOUTS.values()]
    cases = [Case(layout, pair) for layout, pair in zip(battery.LAYOUTS, pairs, strict=True)]
    check_linear(impl, rng, cases, lambda *x: impl.concatenate(x, 1), lambda *x: np.concatenate(x, 1))
    x = impl.Tensor([1.0, 2.0], requires_grad=True)
    y = impl.concatenate([x, x * 10, x])
    assert y.data.tolist() == [1, 2, 10, 20, 1, 2]
    y.backward([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert x.grad.tolist() == [36, 48]
    for constant in (
        impl.concatenate([np.float32([1]), np.float32([2, 3])]),
        impl.where(np.array([True, False, False]), np.float32([1, 0, 0]), np.float32([0, 2, 3])),
        impl.einsum("i,ij->j", np.float32([1, 1]), np.float32([[1, 1, 1], [0, 1, 2]])),
    ):
        assert isinstance(constant, impl.Tensor)
        assert (constant.data.tolist(), constant.requires_grad, constant.dtype) == (
            [1, 2, 3],
            False,
            np.float32,
        )
    y = impl.concatenate([np.array([True, False]), impl.Tensor(np.float32([2])), np.array([7])], axis=0)
    assert (y.dtype, y.data.tolist()) == (np.float32, [1, 0, 2, 7])


SPECS = [
    *["i j, j k -> i k", "i j, k j -> i k", "b q h d, b k h d -> b h q k", "b h q k, b k h d -> b q h d"],
    *["i j -> j i", "i j k -> k i j", "i j -> i", "i j ->", "i j -> i j", "i, j -> i j", "i, j -> j i"],
    *["i, j ->", "i, i ->", "i, i -> i", "i j, j ->", "a b c -> b", "a b c, c -> b a", ", i -> i", ", ->"],
    *["b i j, j k, k -> b i", "i, i, i -> i", "a B c, c B -> B a", "a b, b c, c d, d e -> a e", "i j, k ->"],
    *["a, b, c, b -> c a", "a, A -> A a"],
]


def test_einsum(impl, rng):
    for spec in SPECS:
        inputs = spec.partition("->")[0]
        letters = sorted(set(inputs) - {" ", ","})
        cases = []
        for lengths, dtype in [
            *[((2, 3, 1, 4, 2), float), ((1,) * 5, float), ((3, 2, 2, 1, 3), np.float32), ((2,) * 5, float)],
            *[((2, 1, 2, 3, 1), np.float16), ((0, 2, 1, 2, 1), float), ((2, 0, 3, 1, 2), float)],
        ]:
            length = dict(zip(letters, lengths, strict=False))
            shapes = [tuple(length[letter] for letter in term.split()) for term in inputs.split(",")]
            cases.append(shaped(rng, *shapes, dtype=dtype))
        check_linear(
            *(impl, rng, cases),
            lambda *x, spec=spec: impl.einsum(spec, *x),
            lambda *x, spec=spec: np.einsum(spec.replace(" ", ""), *x),
        )
    cases = battery.cases(rng, "i j, j k", sizes={"i": (1, 130), "j": (1, 130), "k": (1, 33)})
    check_linear(impl, rng, cases, lambda *x: impl.einsum("ij,jk->ik", *x), operator.matmul)
    for n in range(2):
        check_beside_a_constant(
            *(impl, rng, cases[-1], n, lambda *x: impl.einsum("ij,jk->ik", *x)),
            *(operator.matmul, transposed(operator.matmul)),
        )
    long = f"i j{300 * ' '}-> i"  # spaces mean nothing
    check_linear(
        *(impl, rng, [shaped(rng, (2, 3))]), lambda x: impl.einsum(long, x), lambda x: np.einsum("ij->i", x)
    )
    ids = np.array([[1, 0], [0, 1], [1, 1]])
    assert impl.einsum("ij,jk->ik", impl.Tensor(np.ones((2, 3), np.float32)), ids).dtype == np.float32


def test_sizes_in_the_thousands(impl, rng):
    n = 3000
    x, y, table = rng.normal(size=n), rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    ids, mask = rng.integers(0, n // 2, size=n), rng.random(n) < 0.5

    def scattered(g, t):
        return [np.stack([np.bincount(ids, column, minlength=n) for column in g.T], axis=1)]

    def first_nine(g, a, b):
        return [g @ b[:9], np.pad(g.T @ a, ((0, n - 9), (0, 0)))]

    def einsum(a, b):
        function = impl.einsum if isinstance(a, impl.Tensor) else np.einsum
        return function("ni,nj->ij", a, b)

    for arrays, of_tensors, of_arrays, gradients in [
        ((x,), lambda a: a.sum(), lambda a: a.sum(), lambda g, a: [np.full(n, g)]),
        ((y,), lambda a: a.mean(0), lambda a: a.mean(0), lambda g, a: [np.tile(g / n, (n, 1))]),
        ((y,), lambda a: a.max(1), lambda a: a.max(1), lambda g, a: gradients_of_max(g, a, 1)),
        ((y, table), *[lambda a, b: a.transpose() @ b] * 2, lambda g, a, b: [b @ g.T, a @ g]),
        ((y, table), *[lambda a, b: a @ b[:9].swapaxes(0, 1)] * 2, first_nine),
        ((y, table), einsum, einsum, lambda g, a, b: [b @ g.T, a @ g]),
        ((table,), *[lambda a: a[ids]] * 2, scattered),
        ((table,), *[lambda a: a.reshape(2, n).transpose()] * 2, lambda g, a: [g.T.reshape(n, 2)]),
        (
            (y, table),
            lambda a, b: impl.concatenate([a, b]),
            lambda a, b: np.concatenate([a, b]),
            lambda g, a, b: [g[:n], g[n:]],
        ),
        (
            (x, x + 1),
            lambda a, b: impl.where(mask, a, b),
            lambda a, b: np.where(mask, a, b),
            lambda g, a, b: [g * mask, g * ~mask],
        ),
    ]:
        check(impl, rng, [Case("thousands of entries", arrays)], of_tensors, of_arrays, gradients)


def test_a_chain_of_twenty_thousand_operations(impl):
    for n in (1_000, 20_000):
        x = y = impl.Tensor([1.0], requires_grad=True)
        for _ in range(n):
            y = -y
        y.backward()
        assert (float(y.data[0]), float(x.grad[0])) == (1, 1)


def test_nothing_remembers_what_nobody_needs(impl):
    """Gradients, results and inputs are freed when the caller lets them go."""
    seen, x = [], impl.Tensor(np.ones(5), requires_grad=True)

    def pull_back(g):
        seen.append(weakref.ref(passed := g * 2.0))
        return passed

    y = impl.record(x.data * 2, (x, pull_back)) * 3.0
    results = [weakref.ref(y.data), weakref.ref(x.data)]
    y.sum().backward()
    assert x.grad.tolist() == [6] * 5
    gc.collect()
    assert seen[0]() is None
    del x, y
    gc.collect()
    assert [each() for each in results] == [None, None]


def test_without_recording_nothing_is_kept(impl):
    """Neither the tensor that was given nor a result in between stays alive through what came of it."""
    for requires_grad, is_recording in [(True, False), (False, False), (False, True)]:
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
    for _ in range(400):
        w.grad = b.grad = None
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        w.data -= 0.1 * w.grad
        b.data[...] -= 0.1 * b.grad
    assert np.allclose([w.data.item(), b.data.item()], [3, -1], atol=1e-3)
