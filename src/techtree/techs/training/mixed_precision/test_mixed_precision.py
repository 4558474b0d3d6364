"""Oracles: exact fractions rounded by Python, NumPy's own float16, values worked out by hand.

Rounding is exact, so nothing here has a tolerance but the gradients of a product.
"""

import itertools
import math
import types
from fractions import Fraction

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.sgd import SGD, Optimizer

BFLOAT16, FLOAT16, FLOAT32 = (8, 7), (5, 10), (8, 23)
FORMATS = [BFLOAT16, FLOAT16, (5, 2), (4, 3), (2, 1), (3, 23), (8, 1), (6, 9), FLOAT32]


def slow_round(x, n_exponent, n_mantissa):
    """The definition for one number: Python rounds a fraction to the nearest integer, halves to even."""
    x = float(np.float32(x))
    if not math.isfinite(x) or x == 0:
        return x
    lowest = 2 - 2 ** (n_exponent - 1)
    exponent = max(math.frexp(x)[1] - 1, lowest)
    spacing = Fraction(2) ** (exponent - n_mantissa)
    rounded = round(Fraction(x) / spacing) * spacing
    beyond = abs(rounded) >= Fraction(2) ** 2 ** (n_exponent - 1)
    return math.copysign(math.inf if beyond else abs(float(rounded)), x)


def slow(x, n_exponent, n_mantissa):
    flat = [slow_round(each, n_exponent, n_mantissa) for each in np.ravel(x)]
    return np.array(flat, np.float32).reshape(np.shape(x))


def same_bits(got, expected):
    assert got.dtype == np.float32
    assert got.shape == np.shape(expected)
    is_nan = np.isnan(expected)
    assert np.array_equal(np.isnan(got), is_nan)
    different = (got.view(np.uint32) != np.asarray(expected, np.float32).view(np.uint32)) & ~is_nan
    assert not different.any(), (got[different][:4], expected[different][:4])


def neighbours(x):
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore"):
        return np.concatenate([np.nextafter(x, np.float32(-np.inf)), x, np.nextafter(x, np.float32(np.inf))])


def hard_cases(rng, n_exponent, n_mantissa):
    """Numbers of the format, points halfway between two, and what lies next to these, of both signs."""
    reach = 2 ** (n_exponent - 1)
    exponents = np.unique(np.clip(rng.integers(2 - reach, reach, size=12), -125, 126))
    exponents = np.concatenate([exponents, [2 - reach, 3 - reach, reach - 1]])
    mantissas = 1 + rng.integers(2**n_mantissa, size=len(exponents)) / 2**n_mantissa
    mantissas[-3:] = [1, 1, 2 - 2.0**-n_mantissa]  # at both ends of the range
    halves = mantissas + 2.0 ** -(n_mantissa + 1)
    small = 2.0 ** (2 - reach - n_mantissa) * np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3.5])
    end = np.concatenate(
        [1 - 2.0 ** -np.arange(1, 25.0), 1 + 2.0 ** -np.arange(0, 24.0), rng.uniform(0.99, 1.01, 9)]
    )
    with np.errstate(over="ignore"):
        sizes = [np.ldexp(mantissas, exponents), np.ldexp(halves, exponents), small, np.ldexp(end, reach)]
        sizes = np.concatenate(sizes)
        sizes = neighbours(sizes.astype(np.float32))
    sizes = sizes[~np.isnan(sizes)]
    return np.concatenate([sizes, -sizes]).astype(np.float32)


def test_rounding_by_hand(impl):
    """bfloat16 has 256, 258, 260 and 1, 1 + 2**-7; float16 has 2048, 2050, 2052 and ends at 65504."""
    x = np.array([257, 258, 259, 1 + 2**-8, 1 + 2**-8 + 2**-20, -257, 1 / 3, 0.1], np.float32)
    expected = [256, 258, 260, 1, 1 + 2**-7, -256, 171 / 512, 205 / 2048]
    same_bits(impl.round_to(x, *BFLOAT16), np.array(expected, np.float32))
    x = np.array([2049, 2050, 2051, 65519, 65520, -65520, 2.0**-24, 2.0**-25, 3 * 2.0**-26], np.float32)
    expected = [2048, 2050, 2052, 65504, np.inf, -np.inf, 2.0**-24, 0, 2.0**-24]
    same_bits(impl.round_to(x, *FLOAT16), np.array(expected, np.float32))
    x = np.array([1.25, 1.75, 2.5, 3.5, 3.49, 0.25, 0.26, 0.75], np.float32)  # has 0, 0.5, 1, 1.5, 2, 3
    same_bits(impl.round_to(x, 2, 1), np.array([1, 2, 2, np.inf, 3, 0, 0.5, 1], np.float32))


def test_zeros_infinities_and_nan(impl):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    for form in FORMATS:
        same_bits(impl.round_to(x, *form), x)
        for number in (np.float32(-1.5), np.array(-1.5, np.float32), -1.5, np.inf, [[2.0]]):
            got = impl.round_to(number, *form)
            assert isinstance(got, np.ndarray)
            assert got.shape == np.shape(number)
            same_bits(got, np.array(number, np.float32))
    # What is rounded down to 0 keeps its sign, too.
    got = impl.round_to(np.array([1e-9, -1e-9], np.float32), *FLOAT16)
    assert np.signbit(got).tolist() == [False, True]
    assert (got == 0).all()


def test_every_nan_stays_nan(impl):
    """Adding to the bits of a NaN can carry it into the sign, cutting its bits can leave infinity."""
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001, 0x7FC00000, 0x7F80FFFF], np.uint32)
    for form in FORMATS:
        assert np.isnan(impl.round_to(bits.view(np.float32), *form)).all()


def test_float32_is_left_as_it_is(impl, rng):
    bits = rng.integers(2**32, size=2000, dtype=np.uint32).view(np.float32)
    bits[:500] *= np.float32(1e-38)  # subnormal numbers, too
    same_bits(impl.round_to(bits, *FLOAT32), bits)


def test_rounding_twice_is_rounding_once(impl, rng):
    x = rng.normal(size=400).astype(np.float32) * np.float32(10.0) ** rng.integers(-12, 6, size=400)
    for form in FORMATS:
        once = impl.round_to(x, *form)
        same_bits(impl.round_to(once, *form), once)


def test_what_is_already_representable_is_copied(impl):
    x = np.array([1.0, 2.0], np.float32)
    got = impl.round_to(x, *FLOAT32)
    got[0] = 7
    assert x.tolist() == [1.0, 2.0]


def test_other_dtypes_are_turned_into_float32_first(impl):
    """1 + 2**-8 + 2**-40 is float32's 1 + 2**-8, which is halfway, and goes to 1."""
    x = np.array([1 + 2**-8 + 2**-40, 1e300, 1e-300, 3.0])
    same_bits(impl.round_to(x, *BFLOAT16), np.array([1, np.inf, 0, 3], np.float32))
    same_bits(impl.round_to(np.array([257, -259, 0]), *BFLOAT16), np.array([256, -260, 0], np.float32))
    same_bits(impl.round_to(np.array([True, False]), *BFLOAT16), np.array([1, 0], np.float32))
    same_bits(impl.round_to(np.array([0.1], np.float16), *BFLOAT16), np.array([205 / 2048], np.float32))
    halves = np.array([1 / 3, 1000, -65504, 6e-8, 0, -np.inf, 17], np.float16)
    for form in [*FORMATS, (4, 10), (2, 23), (6, 2)]:
        same_bits(impl.round_to(halves, *form), slow(halves, *form))


def test_what_becomes_a_half_in_float32_is_rounded_twice(impl, rng):
    """Halfway points of a format and a little more, which float32 does not hold: from every wider dtype."""
    for kind in (np.int32, np.uint32, np.int64, np.uint64, np.float64, np.longdouble):
        for n_mantissa in (1, 3, 7, 10):
            halves = 2 * rng.integers(2**n_mantissa, 2 ** (n_mantissa + 1), size=20) + 1
            more = halves * 2 ** (29 - n_mantissa) + rng.choice([-1, 1], size=20)  # below 2**31
            x = more.astype(kind)
            signs = [1] if x.dtype.kind == "u" else [1, -1]
            for sign in signs:
                same_bits(impl.round_to(x * kind(sign), 8, n_mantissa), slow(x * kind(sign), 8, n_mantissa))


def test_any_layout_of_memory(impl, rng):
    for dtype in (np.float32, np.float64, np.float16):
        for lay_out in battery.LAYOUTS.values():
            for shape in ((3, 4), (2, 3, 4), (5,), (2, 0, 3), (1, 0)):
                x = lay_out(rng.normal(size=shape).astype(dtype))
                kept = x.copy()
                same_bits(impl.round_to(x, *BFLOAT16), slow(x, *BFLOAT16))
                assert np.array_equal(x, kept)


def test_every_dtype_and_byte_order(impl):
    """All are turned into float32; what comes out is float32 of this machine's byte order."""
    kinds = [
        *battery.INTEGERS[:-1],
        np.float16,
        np.float32,
        np.float64,
        np.longdouble,
        ">f4",
        ">f2",
        ">f8",
        ">i4",
    ]
    numbers = np.array([0, 1, 2, 3, 7, 100, 127])
    for kind in kinds:
        x = numbers.astype(kind)
        for form in (BFLOAT16, (4, 3), FLOAT32):
            same_bits(impl.round_to(x, *form), slow(numbers, *form))
            same_bits(impl.round_to(x[::-2], *form), slow(numbers[::-2], *form))
    large = np.array([2**63 + 2**50, 2**63, 2**40 + 2**33, 2**24], np.uint64)
    same_bits(
        impl.round_to(large, *BFLOAT16), np.array([2.0**63, 2.0**63, 2.0**40 + 2.0**33, 2.0**24], np.float32)
    )
    same_bits(
        impl.round_to(-(large[2:].astype(np.int64)), 8, 3), np.array([-(2.0**40), -(2.0**24)], np.float32)
    )
    wide = np.array([1 / 3, -0.1, 300.7, 1e-7, -1e-45, 1e39], np.longdouble)
    with np.errstate(over="ignore"):
        same_bits(impl.round_to(wide, *BFLOAT16), slow(wide.astype(np.float32), *BFLOAT16))


def test_formats_that_there_are_not(impl):
    wrong = [
        (1, 7),
        (9, 7),
        (8, 0),
        (8, 24),
        (0, 0),
        (-1, 5),
        (5, -1),
        (11, 52),
        (2, 0),
        (2, 24),
        (1, 1),
        (9, 23),
    ]
    wrong += [(-8, 7), (8, -7), (10**9, 7), (8, 10**9), (np.int64(9), 7), (8, np.int64(24))]
    for form in wrong:
        for x in (np.ones(2, np.float32), np.ones(0, np.float32), np.array(np.nan), np.zeros((2, 3))):
            battery.refuses(impl.round_to, x, *form)
        battery.refuses(impl.cast, Tensor(np.ones(2)), *form)
        battery.refuses(impl.MasterWeights, weights_of(np.ones(2, np.float32)), *form)


def test_numbers_of_bits_may_be_those_of_numpy(impl, rng):
    x = rng.normal(size=20).astype(np.float32)
    for kind in (np.int64, np.intp):
        same_bits(impl.round_to(x=x, n_exponent=kind(5), n_mantissa=kind(10)), slow(x, *FLOAT16))
        same_bits(impl.round_to(x, kind(8), kind(7)), slow(x, *BFLOAT16))


def test_rounding_leaves_numpy_as_it_is(impl):
    before = np.geterr()
    with np.errstate(all="ignore"):
        inside = np.geterr()
        impl.round_to(np.array([1e300, np.nan, 1e-300]), *FLOAT16)
        assert np.geterr() == inside
    assert np.geterr() == before


def test_cast_rounds_both_ways(impl):
    """1/3 in bfloat16 is 171/512. In float16 a gradient of 1e-8 is 0, and one of 1e5 infinite."""
    x = Tensor(np.array([1 / 3, 2.0, -5.0, 7.0], np.float32), requires_grad=True)
    y = impl.cast(x, *BFLOAT16)
    assert isinstance(y, Tensor)
    same_bits(y.data, np.array([171 / 512, 2, -5, 7], np.float32))
    y.backward(np.array([1 / 3, 257, 259, -1e-30], np.float32))
    same_bits(x.grad, impl.round_to(np.array([1 / 3, 257, 259, -1e-30]), *BFLOAT16))
    same_bits(x.grad[:3], np.array([171 / 512, 256, 260], np.float32))
    x = Tensor(np.array([1.0, 1e-9, 65520.0], np.float32), requires_grad=True)
    y = impl.cast(x, *FLOAT16)
    same_bits(y.data, np.array([1, 0, np.inf], np.float32))
    y.backward(np.array([1e-8, 1e5, 3e-8], np.float32))  # 3e-8 is more than half of 2**-24
    same_bits(x.grad, np.array([0, np.inf, 2.0**-24], np.float32))


def test_cast_gives_new_data(impl):
    """Also where nothing is rounded."""
    x = Tensor(np.array([1.0, 0.5], np.float32), requires_grad=True)
    for form in (FLOAT32, BFLOAT16):
        y = impl.cast(x, *form)
        assert y is not x
        assert not np.shares_memory(y.data, x.data)
        assert y.requires_grad


def test_cast_inside_of_a_computation(impl, rng):
    """Loss = sum(w * cast(cast(x) * cast(y))): the chain rule, with each rounding where it stands."""
    x, y, w = (rng.normal(size=(3, 1)), rng.normal(size=4), rng.normal(size=(3, 4)))
    for form in (BFLOAT16, FLOAT16):
        tx, ty = Tensor(x.astype(np.float32), requires_grad=True), Tensor(y, requires_grad=True)
        product = impl.cast(impl.cast(tx, *form) * impl.cast(ty, *form), *form)
        assert product.dtype == np.float32
        (product * w.astype(np.float32)).sum().backward()
        rx, ry = slow(x, *form), slow(y, *form)
        same_bits(product.data, slow(rx * ry, *form))
        g = slow(w, *form)
        assert tx.grad.dtype == np.float32
        assert ty.grad.dtype == np.float64  # the gradient of a float64 tensor
        # Adding up four float32 products costs a few units in the last place, which may turn a rounding over.
        spacing = 2.0 ** -form[1]
        assert np.abs(tx.grad - (g * ry).sum(axis=1, keepdims=True)).max() < 8 * spacing
        assert np.abs(tx.grad - slow(tx.grad, *form)).max() == 0
        assert np.abs(ty.grad - (g * rx).sum(axis=0)).max() < 8 * spacing
        assert np.abs(ty.grad - slow(ty.grad, *form)).max() == 0


def test_cast_of_a_constant_is_a_constant(impl):
    x = Tensor(np.array([1 / 3]))
    assert not impl.cast(x, *BFLOAT16).requires_grad
    with no_grad():
        assert not impl.cast(Tensor(x.data, requires_grad=True), *BFLOAT16).requires_grad
    assert x.data[0] == 1 / 3
    assert impl.cast(x, *BFLOAT16).dtype == np.float32


def weights_of(*arrays):
    return [Parameter(np.asarray(each)) for each in arrays]


def test_making_master_weights_rounds_the_models_in_place(impl):
    model = weights_of(np.array([[257.0, 1 / 3]], np.float32), np.array([0.1, 1e-42], np.float64))
    arrays = [each.data for each in model]
    weights = impl.MasterWeights(iter(model), *BFLOAT16)
    assert all(each.data is array for each, array in zip(model, arrays, strict=True))
    assert model[0].data.tolist() == [[256.0, 171 / 512]]
    assert model[1].data.tolist() == [205 / 2048, 0.0]
    assert model[1].dtype == np.float64
    assert isinstance(weights.masters, list)
    assert [type(each) for each in weights.masters] == [Parameter, Parameter]
    assert [each.shape for each in weights.masters] == [(1, 2), (2,)]
    same_bits(weights.masters[0].data, np.array([[257, 1 / 3]], np.float32))
    same_bits(weights.masters[1].data, np.array([0.1, 1e-42], np.float32))


def test_the_format_is_the_one_that_was_asked_for(impl):
    for form in (BFLOAT16, FLOAT16, (4, 3)):
        model = weights_of(np.array([1.1, 300.0, 1e-7], np.float32))
        weights = impl.MasterWeights(model, *form)
        same_bits(model[0].data, slow(weights.masters[0].data, *form))
        weights.masters[0].data *= np.float32(1.7)
        weights.publish()
        same_bits(model[0].data, slow(weights.masters[0].data, *form))
        model[0].grad = np.array([1.1, 1e-7, 300.0], np.float32)
        weights.take_gradients()
        same_bits(weights.masters[0].grad, slow([1.1, 1e-7, 300.0], *form))


def test_weights_of_one_shape_are_kept_apart(impl):
    model = weights_of(*(np.full(2, value, np.float32) for value in (1, 2, 3)), np.full(2, 2, np.float32))
    weights = impl.MasterWeights(model, *BFLOAT16)
    assert [each.data.tolist() for each in weights.masters] == [[1, 1], [2, 2], [3, 3], [2, 2]]
    for value, each in enumerate(model):
        each.grad = np.full(2, value, np.float32)
    weights.take_gradients()
    assert [each.grad.tolist() for each in weights.masters] == [[0, 0], [1, 1], [2, 2], [3, 3]]
    weights.masters[3].data[:] = 7
    weights.publish()
    assert [each.data.tolist() for each in model] == [[1, 1], [2, 2], [3, 3], [7, 7]]


def test_gradients_that_are_not_finite_move_as_they_are(impl):
    model = weights_of(np.zeros(3, np.float32))
    weights = impl.MasterWeights(model, *BFLOAT16)
    model[0].grad = np.array([np.nan, np.inf, -np.inf], np.float32)
    weights.take_gradients()
    same_bits(weights.masters[0].grad, np.array([np.nan, np.inf, -np.inf], np.float32))


def test_masters_and_model_share_nothing(impl):
    """Also where the format is that of float32, in which nothing is rounded."""
    model = weights_of(np.array([1 / 3, 2.0], np.float32), np.array(3.0, np.float32))
    weights = impl.MasterWeights(parameters=model, n_exponent=8, n_mantissa=23)
    held = model[0].grad = np.array([0.1, 0.2], np.float32)
    weights.take_gradients()
    weights.masters[0].grad *= 2
    assert held.tolist() == np.array([0.1, 0.2], np.float32).tolist()
    weights.masters[0].data += 1
    assert model[0].data.tolist() == [float(np.float32(1 / 3)), 2.0]
    weights.publish()
    assert not np.shares_memory(model[0].data, weights.masters[0].data)
    model[0].data *= 0
    assert weights.masters[0].data[1] == 3.0
    assert all(each.requires_grad for each in weights.masters)


def test_publishing_and_taking_read_what_is_there_now(impl):
    """Arrays may have been exchanged, and the model's weights changed, since the call before."""
    model = weights_of(np.ones(2, np.float32), np.full((1, 2), 2.0))
    weights = impl.MasterWeights(model, *BFLOAT16)
    model[0].data += 5
    weights.publish()
    assert model[0].data.tolist() == [1, 1]  # written again, though the masters are the same
    model[0].data = other = np.zeros(2, np.float32)
    weights.publish()
    assert model[0].data is other
    assert other.tolist() == [1, 1]
    weights.masters[1].data = exchanged = np.full((1, 2), 257.0, np.float32)
    weights.publish()
    assert model[1].data.tolist() == [[256, 256]]
    assert weights.state_dict()["1"].tolist() == [[257, 257]]
    weights.load_state_dict({"0": np.zeros(2), "1": np.full((1, 2), 259.0)})
    assert exchanged.tolist() == [[259, 259]]
    assert model[1].data.tolist() == [[260, 260]]
    for gradient in (np.array([[1.0, 2.0]]), np.array([[3.0, 257.0]])):
        model[1].grad = gradient
        weights.take_gradients()
        assert weights.masters[1].grad.tolist() == [[gradient[0, 0], min(gradient[0, 1], 256)]]
        assert weights.masters[0].grad is None
    assert weights.masters[1].grad.dtype == np.float32
    weights.publish()
    assert weights.masters[1].grad.tolist() == [[3, 256]]  # publishing is about weights only


def test_small_updates_add_up_in_the_masters(impl):
    """Sixteen steps of 2**-11: in bfloat16 each of them alone is lost beside 1."""
    model = weights_of(np.ones(3, np.float32))
    weights = impl.MasterWeights(model, *BFLOAT16)
    optimizer, seen = SGD(weights.masters, lr=1.0), []
    for _ in range(16):
        model[0].grad = np.full(3, -(2.0**-11), np.float32)
        weights.take_gradients()
        optimizer.step()
        weights.publish()
        seen.append(float(model[0].data[0]))
    assert weights.masters[0].data.tolist() == [1 + 2**-7] * 3
    assert seen == [1.0] * 8 + [1 + 2**-7] * 8  # the halfway point itself goes to 1, which is even
    assert impl.round_to(np.array([1 + 2**-11], np.float32), *BFLOAT16).tolist() == [1.0]


def test_publish_writes_into_the_models_arrays(impl):
    model = weights_of(np.zeros(2, np.float32), np.zeros((2, 2), np.float64), np.array(0.0, np.float32))
    arrays = [each.data for each in model]
    weights = impl.MasterWeights(model, *FLOAT16)
    for value, master in enumerate(weights.masters, 1):
        master.data[...] = value + 1e-5
    assert all((array == 0).all() for array in arrays)  # nothing arrives before it is published
    weights.publish()
    assert all((array == value).all() for value, array in enumerate(arrays, 1))
    assert [each.data.dtype for each in model] == [np.float32, np.float64, np.float32]
    assert float(weights.masters[0].data[0]) == float(np.float32(1 + 1e-5))  # the masters are not rounded
    assert all(each.data is array for each, array in zip(model, arrays, strict=True))


def test_publishing_leaves_every_master_as_it_is(impl, rng):
    """Also one that is infinite, 0 or a half in the format of the model."""
    for form in (BFLOAT16, FLOAT16, (4, 3)):
        x = np.concatenate([hard_cases(rng, *form), np.array([np.inf, -np.inf, np.nan, 0, -0.0], np.float32)])
        model = weights_of(np.zeros_like(x))
        weights = impl.MasterWeights(model, *form)
        weights.masters[0].data[:] = x
        for _ in range(2):
            weights.publish()
            same_bits(weights.masters[0].data, x)
            same_bits(model[0].data, slow(x, *form))
        same_bits(weights.state_dict()["0"], x)
        weights.load_state_dict({"0": x[::-1]})
        same_bits(weights.masters[0].data, x[::-1])
        same_bits(model[0].data, slow(x[::-1], *form))


def test_gradients_move_to_the_masters(impl):
    model = weights_of(np.zeros(3, np.float32), np.zeros((1, 2), np.float64), np.zeros(1, np.float32))
    weights = impl.MasterWeights(model, *FLOAT16)
    for each in weights.masters:
        each.grad = np.full(each.shape, 5, np.float32)
    model[0].grad = np.array([1 / 3, 1e-8, 7e4], np.float32)
    model[1].grad = np.array([[2.0, -3.0]])
    weights.take_gradients()
    same_bits(weights.masters[0].grad, np.array([1365 / 4096, 0, np.inf], np.float32))
    same_bits(weights.masters[1].grad, np.array([[2, -3]], np.float32))
    assert weights.masters[2].grad is None
    assert [each.grad for each in model] == [None] * 3
    weights.take_gradients()
    assert [each.grad for each in weights.masters] == [None] * 3
    assert (model[0].data == 0).all()  # gradients change no weights
    assert (weights.masters[0].data == 0).all()


def test_master_weights_are_saved_before_rounding(impl, rng):
    start = [rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)]
    model = weights_of(*start)
    weights = impl.MasterWeights(model, *BFLOAT16)
    state = weights.state_dict()
    assert list(state) == ["0", "1"]
    assert all(np.array_equal(state[str(n)], start[n]) for n in (0, 1))
    state["0"][:] = 0  # a copy
    assert np.array_equal(weights.masters[0].data, start[0])
    state = weights.state_dict()
    other = weights_of(np.zeros((2, 3), np.float32), np.zeros(4, np.float32))
    arrays = [each.data for each in other]
    copy = impl.MasterWeights(other, *BFLOAT16)
    masters = [each.data for each in copy.masters]
    for each in state.values():
        each.flags.writeable = False
    kept = copy.masters[0].grad = np.ones((2, 3), np.float32)
    copy.load_state_dict(state)
    assert copy.masters[0].grad is kept
    for n in (0, 1):
        same_bits(masters[n], start[n])
        same_bits(arrays[n], slow(start[n], *BFLOAT16))
        assert copy.masters[n].data is masters[n]
    masters[0][:] = 3
    assert np.array_equal(state["0"], start[0])


def test_a_state_that_does_not_fit_changes_nothing(impl):
    model = weights_of(np.ones((2, 3), np.float32), np.ones(4, np.float32))
    weights = impl.MasterWeights(model, *BFLOAT16)
    zeros = {"0": np.zeros((2, 3), np.float32), "1": np.zeros(4, np.float32)}
    wrong = [
        {},
        {"0": zeros["0"]},
        {"1": zeros["1"]},
        zeros | {"2": np.zeros(1, np.float32)},
        zeros | {"1": np.zeros(3, np.float32)},
        zeros | {"1": np.zeros((), np.float32)},
        {"0": zeros["0"].reshape(3, 2), "1": zeros["1"]},
        {"0": zeros["0"], "b": zeros["1"]},
        {"0": zeros["0"], "01": zeros["1"]},
        {"1": zeros["0"], "2": zeros["1"]},
        {0: zeros["0"], 1: zeros["1"]},
        {"0": zeros["1"], "1": zeros["0"]},
        zeros | {"0": np.zeros((2, 1), np.float32)},
        zeros | {"0": np.zeros((1, 2, 3), np.float32)},
        zeros | {"1": np.zeros((1, 4), np.float32)},
        zeros | {"": np.zeros(0, np.float32)},
    ]
    for state in wrong:
        battery.refuses(weights.load_state_dict, state)
        assert all((each.data == 1).all() for each in (*model, *weights.masters))
    weights.load_state_dict(types.MappingProxyType(zeros))
    assert all((each.data == 0).all() for each in (*model, *weights.masters))


def test_two_sets_of_master_weights_share_nothing(impl):
    first, second = (impl.MasterWeights(weights_of(np.ones(2, np.float32)), *BFLOAT16) for _ in range(2))
    first.masters[0].data += 1
    assert second.masters[0].data.tolist() == [1, 1]
    assert len(second.masters) == 1


class Recorder(Optimizer):
    """Notes the gradients that it is given, and steps against them."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1.0)
        self.seen = []

    def step(self):
        members = [each for group in self.groups for each in group["parameters"]]
        self.seen.append([None if each.grad is None else each.grad.copy() for each in members])


def with_gradients(*arrays):
    parameters = weights_of(*(np.zeros(np.shape(each), np.asarray(each).dtype) for each in arrays))
    for parameter, each in zip(parameters, arrays, strict=True):
        parameter.grad = np.array(each)
    return parameters


def test_gradients_are_divided_by_the_scale(impl):
    parameters = with_gradients(
        np.array([[8.0, -4.0]], np.float32), np.array([2.0]), np.array(6.0, np.float32)
    )
    parameters += weights_of(np.zeros(2))  # has no gradient
    optimizer = Recorder([{"parameters": parameters[:2]}, {"parameters": parameters[2:]}])
    scaler = impl.LossScaler(scale=4.0)
    assert scaler.step(optimizer) is True
    ((first, second, third, none),) = optimizer.seen
    assert first.tolist() == [[2.0, -1.0]]
    assert (first.dtype, second.dtype, third.dtype) == (np.float32, np.float64, np.float32)
    assert (second.tolist(), third.tolist(), none) == ([0.5], 1.5, None)
    assert third.shape == ()
    assert parameters[0].grad.tolist() == [[2.0, -1.0]]
    assert parameters[3].grad is None
    for scale in (0.5, 0.75, 2.5, 1e-3, 2.0**40):
        optimizer = Recorder(with_gradients(np.array([3.0])))
        assert impl.LossScaler(scale=scale).step(optimizer) is True
        assert optimizer.seen[0][0].tolist() == [pytest.approx(3.0 / scale, rel=1e-15)]


def test_division_happens_in_the_dtype_of_the_gradient(impl):
    """2**-30 is no number of float16, but one of float32."""
    (parameter,) = with_gradients(np.array([2.0**-14], np.float32))
    optimizer = Recorder([parameter])
    impl.LossScaler(scale=2.0**16).step(optimizer)
    assert optimizer.seen[0][0].tolist() == [2.0**-30]


@pytest.mark.parametrize("scale", [65536.0, 2.0**18, 3.0e5, 1.0, 0.25])
def test_gradients_of_float16_are_divided_by_what_float16_does_not_hold(impl, scale):
    """65536, where scalers begin, is infinity there. What is finite before the division makes a step."""
    for dtype, values in ((np.float16, (6e4, 1000.0, -3.0, 0.5, 6e-5)), (np.float32, (3e38, -1e-30))):
        gradient = np.array(values, dtype)
        with np.errstate(over="ignore"):
            expected = (gradient.astype(np.float64) / scale).astype(dtype)
            optimizer = Recorder(with_gradients(gradient.copy()))
            assert impl.LossScaler(scale).step(optimizer) is True
        (got,) = optimizer.seen[0]
        assert got.dtype == dtype
        assert np.isclose(got.astype(float), expected.astype(float), rtol=2e-3, atol=6e-8).all()


def test_what_is_not_finite_skips_the_step_and_halves_the_scale(impl):
    for value, place in itertools.product([np.inf, -np.inf, np.nan], range(3)):
        arrays = [np.ones((2, 3), np.float32), np.ones(5), np.array(1.0, np.float32)]
        arrays[place].reshape(-1)[-1] = value
        optimizer = Recorder([{"parameters": [each]} for each in with_gradients(*arrays)])
        scaler = impl.LossScaler(scale=1024.0)
        assert scaler.step(optimizer) is False
        assert optimizer.seen == []
        for group, array in zip(optimizer.groups, arrays, strict=True):
            same = group["parameters"][0].grad
            assert np.array_equal(same, array, equal_nan=True), "a gradient was divided in a step left out"
        assert scaler.scale == 512.0
        assert isinstance(scaler.scale, float)


def test_gradients_of_any_layout_and_size(impl, rng):
    for lay_out in battery.LAYOUTS.values():
        gradient = lay_out(rng.normal(size=(3, 4)))
        (parameter,) = weights_of(np.zeros((3, 4)))
        parameter.grad = np.array(gradient) if not gradient.flags.writeable else gradient
        expected = gradient / 8
        optimizer = Recorder([parameter])
        assert impl.LossScaler(8.0).step(optimizer) is True
        np.testing.assert_allclose(optimizer.seen[0][0], expected, rtol=1e-15)
    sizes = [0.0, -0.0, 1e-300, 1e-40, 1e-8, 65504.0, 7e4, 1e30, 3e38, 1e300, *aim.NUMBERS]
    for size in [each for each in sizes if each < 1e305]:
        for sign in (1, -1):
            optimizer = Recorder(
                with_gradients(np.array([sign * 1.5 * size]), np.zeros(0), np.array(-float(size)))
            )
            assert impl.LossScaler(2.0).step(optimizer) is True, f"gradients of size {size}"
            first, none, last = optimizer.seen[0]
            assert (first.tolist(), none.shape, last.tolist()) == ([sign * 0.75 * size], (0,), -size / 2)


def test_infinities_that_cancel_are_found(impl):
    (parameter,) = with_gradients(np.array([np.inf, 1.0, -np.inf], np.float32))
    assert impl.LossScaler().step(Recorder([parameter])) is False


def test_large_finite_gradients_are_no_overflow(impl):
    """Their sum, or the sum of their squares, is one."""
    (parameter,) = with_gradients(np.full(4, 3e38, np.float32))
    optimizer = Recorder([parameter])
    assert impl.LossScaler(scale=2.0).step(optimizer) is True
    assert optimizer.seen[0][0].tolist() == [float(np.float32(3e38)) / 2] * 4
    optimizer = Recorder(with_gradients(np.full(4, 1e300)))
    assert impl.LossScaler(scale=2.0).step(optimizer) is True
    assert optimizer.seen[0][0].tolist() == [5e299] * 4


def scales(scaler, outcomes):
    """The scale after each step; True for a step without overflow."""
    found = []
    for is_good in outcomes:
        optimizer = Recorder(with_gradients(np.array([1.0 if is_good else np.inf], np.float32)))
        before = scaler.scale
        assert scaler.step(optimizer) is is_good
        if is_good:
            assert optimizer.seen[0][0].tolist() == [pytest.approx(1 / before, rel=1e-6)]
        found.append(scaler.scale)
    return found


def test_the_scale_grows_after_enough_good_steps_in_a_row(impl):
    assert scales(impl.LossScaler(8.0, 3), [True] * 9) == [8, 8, 16, 16, 16, 32, 32, 32, 64]
    assert scales(impl.LossScaler(8.0, 1), [True] * 3) == [16, 32, 64]
    # An overflow starts the count anew, and so does growing.
    assert scales(impl.LossScaler(8.0, 3), [True, True, False, True, True, True, True]) == [
        8,
        8,
        4,
        4,
        4,
        8,
        8,
    ]
    assert scales(impl.LossScaler(8.0, 2), [False, False, True, False, True, True]) == [4, 2, 2, 1, 1, 2]
    assert scales(impl.LossScaler(8.0, 2), [True, True, False, True, True]) == [8, 16, 8, 8, 16]
    assert scales(impl.LossScaler(1.0, 2), [False, False, True]) == [0.5, 0.25, 0.25]
    # No scale is too large or too small.
    assert scales(impl.LossScaler(2.0**100, 1), [True] * 20) == [2.0 ** (101 + n) for n in range(20)]
    assert scales(impl.LossScaler(2.0**-60, 1), [False] * 20) == [2.0 ** (-61 - n) for n in range(20)]


def test_scales_of_any_size_and_kind(impl):
    """Below, at and beyond the numbers that the source names, none is a bound."""
    for number in [each for each in aim.NUMBERS if each < 1e30]:
        for start in (number / 4, number / 2, number, number * 2):
            assert scales(impl.LossScaler(start, 1), [True] * 4) == [start * 2.0**n for n in range(1, 5)]
            assert scales(impl.LossScaler(start, 9), [False] * 4) == [start / 2.0**n for n in range(1, 5)]
    for scale in (4, np.float32(4), np.int64(4), np.array(4.0)):
        scaler = impl.LossScaler(scale=scale, n_growth=np.int64(2))
        assert type(scaler.scale) is float
        assert scales(scaler, [True, True, False]) == [4, 8, 4]
        assert type(scaler.scale) is float


def test_many_weights_of_all_shapes(impl, rng):
    shapes = [(), (1,), (0,), (3, 0), (2, 3, 4), (1, 1), (200, 7), (7, 200), (1500,)] * 3
    start = [rng.normal(size=shape).astype(rng.choice([np.float32, np.float64])) for shape in shapes]
    for form in (BFLOAT16, FLOAT16):
        model = weights_of(*start)
        weights = impl.MasterWeights(tuple(model), *form)
        assert len(weights.masters) == len(model)
        for parameter in model:
            parameter.grad = np.asarray(rng.normal(size=parameter.shape).astype(parameter.dtype))
        gradients = [each.grad.copy() for each in model]
        weights.take_gradients()
        for parameter, master, each, gradient in zip(model, weights.masters, start, gradients, strict=True):
            same_bits(master.data, each.astype(np.float32))
            same_bits(master.grad, impl.round_to(gradient, *form))
            assert np.array_equal(parameter.data, impl.round_to(each, *form))
            assert parameter.dtype == each.dtype
            assert parameter.grad is None
        assert sorted(weights.state_dict()) == sorted(map(str, range(len(shapes))))


def test_a_step_without_any_gradient_is_a_good_one(impl):
    scaler, optimizer = impl.LossScaler(8.0, 2), Recorder(weights_of(np.zeros(2)))
    assert scaler.step(optimizer) is True
    assert scaler.step(optimizer) is True
    assert scaler.scale == 16.0
    assert optimizer.seen == [[None], [None]]


def test_a_scaler_goes_on_from_its_state(impl):
    outcomes = [True, True, False, True, True, True, True, True, False, True, True, True]
    for at, scale in itertools.product(range(len(outcomes)), (64.0, 0.7)):
        whole = scales(impl.LossScaler(scale, 3), outcomes)
        first = impl.LossScaler(scale, 3)
        scales(first, outcomes[:at])
        assert all(isinstance(each, np.ndarray) for each in first.state_dict().values())
        state = first.state_dict()
        for each in state.values():
            assert each.dtype.kind in "fiu"
        scales(first, [True, False, True])  # what it does afterwards does not change the state
        first.state_dict()
        for each in state.values():
            each.flags.writeable = False
        second = impl.LossScaler(1.0, 3)
        second.load_state_dict(state)
        assert isinstance(second.scale, float)
        assert scales(second, outcomes[at:]) == whole[at:]


def test_two_scalers_share_nothing(impl):
    first, second = impl.LossScaler(8.0, 2), impl.LossScaler(8.0, 2)
    scales(first, [True])
    assert scales(second, [True, True]) == [8, 16]


def test_training_with_all_of_it(impl, rng):
    """A regression in float16 whose gradients, below 1e-8, are nothing without the scale."""
    x = rng.normal(size=(64, 3)).astype(np.float32)
    target = x @ np.array([1.0, -2.0, 0.5], np.float32)
    ends = {}
    for scale in (1.0, 2.0**20):
        (weight,) = weights_of(np.zeros(3, np.float32))
        weights, scaler = impl.MasterWeights([weight], *FLOAT16), impl.LossScaler(scale)
        optimizer = SGD(weights.masters, lr=2e8)
        for _ in range(40):
            error = impl.cast(Tensor(x), *FLOAT16) @ weight - target
            loss = (error * error).mean() * 1e-9
            (loss * scaler.scale).backward()
            weights.take_gradients()
            scaler.step(optimizer)
            weights.publish()
        ends[scale] = weights.masters[0].data.tolist()
    assert ends[1.0] == [0.0, 0.0, 0.0]
    # Rounded inputs and weights: the error is a few times float16's 2**-11.
    assert np.abs(np.array(ends[2.0**20]) - [1.0, -2.0, 0.5]).max() < 0.01


def test_rounding_is_its_definition(impl, rng):
    """Hard cases, and numbers of any bits."""
    for form in FORMATS:
        bits = rng.integers(2**32, size=60, dtype=np.uint32).view(np.float32)
        x = np.concatenate([hard_cases(rng, *form), bits])
        same_bits(impl.round_to(x, *form), slow(x, *form))


def test_float16_is_that_of_numpy(impl, rng):
    """Numbers of the format, points halfway to the next, and what lies beside these."""
    bits = np.concatenate([rng.integers(0x7C00 - 1, size=300), [0, 1, 2, 0x3FF, 0x400, 0x7BFE]])
    values = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    above = (bits + 1).astype(np.uint16).view(np.float16).astype(np.float32)
    x = neighbours(np.concatenate([values, (values + above) / 2, [65504, 65520, 1e6]]))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    same_bits(impl.round_to(x, *FLOAT16), expected)
    same_bits(impl.round_to(-x, *FLOAT16), -expected)


def test_every_format_there_is(impl, rng):
    for n_exponent, n_mantissa in itertools.product(range(2, 9), range(1, 24)):
        reach = 2 ** (n_exponent - 1)
        sizes = 2.0 ** rng.uniform(max(-148, 1 - reach - n_mantissa), min(reach + 0.2, 127.9), size=10)
        halves = 1 + (rng.integers(2**n_mantissa, size=4) + 0.5) / 2**n_mantissa
        x = np.concatenate([sizes, -sizes, halves, [2.0 ** min(reach - 1, 127)]]).astype(np.float32)
        same_bits(impl.round_to(x, n_exponent, n_mantissa), slow(x, n_exponent, n_mantissa))


def test_thousands_of_numbers(impl, rng):
    x = rng.normal(size=(3, 40, 1100)).astype(np.float32)
    for form in (BFLOAT16, FLOAT16):
        got = impl.round_to(x, *form)
        assert got.shape == x.shape
        chosen = rng.integers(x.size, size=200)
        same_bits(got.reshape(-1)[chosen], slow(x.reshape(-1)[chosen], *form))
        assert np.abs(got - x).max() <= np.abs(x).max() * 2.0 ** -(form[1] + 1)


def test_gradients_of_all_kinds_are_rounded(impl, rng):
    """Hard cases, zeros of both signs, what is not finite, and a tensor that enters twice."""
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e38], np.float32)
    for form in FORMATS:
        g = np.concatenate([hard_cases(rng, *form), special])
        for dtype in (np.float32, np.float64):
            x = Tensor(np.ones(g.shape, dtype), requires_grad=True)
            kept = g.copy()
            y = impl.cast(x, *form)
            y.backward(g)
            same_bits(g, kept)
            assert x.grad.dtype == dtype
            same_bits(x.grad.astype(np.float32), slow(g, *form))
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    (impl.cast(x=x, n_exponent=8, n_mantissa=7) * 257.0 + impl.cast(x, *BFLOAT16) * 259.0).sum().backward()
    assert x.grad.tolist() == [516, 516]  # 256 and 260


def test_one_entry_of_many_is_found(impl, rng):
    """The first, the last, and any; also beside the sizes and numbers that the source names."""
    plans = [(size, 2) for size in (1, *aim.sizes(300, at_most=140_000)[-3:])]
    plans += [(2, number) for number in aim.sizes(12, at_most=1500)[-2:]]
    for size, number in plans:
        for place in {0, size * number - 1, int(rng.integers(size * number))}:
            gradients = np.ones((number, size), np.float32)
            gradients.reshape(-1)[place] = (np.inf, -np.inf, np.nan)[place % 3]
            parameters = with_gradients(*gradients)
            asked = f"{number} gradients of {size} entries, of which entry {place} is not finite"
            for groups in (parameters, [{"parameters": [each]} for each in parameters]):
                optimizer = Recorder(groups)
                assert impl.LossScaler(4.0).step(optimizer) is False, asked
                assert optimizer.seen == [], asked
        optimizer = Recorder(with_gradients(*np.full((number, size), 3.0, np.float32)))
        assert impl.LossScaler(4.0).step(optimizer) is True
        assert all((each == 0.75).all() for each in optimizer.seen[0])


def test_weights_of_any_number_and_size(impl, rng):
    """Also beside the numbers that the source names: parameters, and entries of one."""
    plans = [[3] * number for number in (1, aim.sizes(12, at_most=300)[-1])]
    plans += [[2, size] for size in aim.sizes(700, at_most=140_000)[-2:]]
    for sizes in plans:
        start = [rng.normal(size=size).astype(np.float32) for size in sizes]
        model = weights_of(*start)
        weights = impl.MasterWeights(model, *FLOAT16)
        gradients = [rng.normal(size=size).astype(np.float32) for size in sizes]
        for each, gradient in zip(model, gradients, strict=True):
            each.grad = gradient.copy()
        weights.take_gradients()
        for each, master, value, gradient in zip(model, weights.masters, start, gradients, strict=True):
            same_bits(master.data, value)
            same_bits(each.data, value.astype(np.float16).astype(np.float32))
            same_bits(master.grad, gradient.astype(np.float16).astype(np.float32))
            assert each.grad is None
            master.data *= 0
        state = {str(n): value for n, value in enumerate(start)}
        assert list(weights.state_dict()) == list(state)
        weights.load_state_dict(dict(reversed(state.items())))
        for each, master, value in zip(model, weights.masters, start, strict=True):
            same_bits(master.data, value)
            same_bits(each.data, value.astype(np.float16).astype(np.float32))
        del state[str(len(sizes) - 1)]
        battery.refuses(weights.load_state_dict, state)


def test_any_number_of_steps_until_it_grows(impl):
    for n_growth in aim.sizes(1, 2, 5, 7, 33, at_most=700):
        expected = [2.0 ** (3 + (n + 1) // n_growth) for n in range(3 * n_growth)]
        assert scales(impl.LossScaler(8.0, n_growth), [True] * (3 * n_growth)) == expected
        # An overflow one step before it would have grown.
        outcomes = [True] * (n_growth - 1) + [False] + [True] * n_growth
        assert scales(impl.LossScaler(8.0, n_growth), outcomes)[-1] == 8.0


def test_the_defaults(impl):
    scaler, optimizer = impl.LossScaler(), Recorder(weights_of(np.zeros(1)))
    assert scaler.scale == 65536.0
    for _ in range(1999):
        scaler.step(optimizer)
    assert scaler.scale == 65536.0
    assert scales(scaler, [True]) == [131072.0]


def test_states_of_any_size(impl):
    """Counts beyond what a byte holds, and scales beyond float32; also beside the source's numbers."""
    for count in aim.sizes(1, 300, at_most=40_000):
        first, optimizer = impl.LossScaler(0.7, count + 1), Recorder(weights_of(np.zeros(1)))
        for _ in range(count):
            first.step(optimizer)
        second = impl.LossScaler(1.0, count + 1)
        second.load_state_dict(types.MappingProxyType(first.state_dict()))
        assert second.scale == 0.7
        second.step(optimizer)
        assert second.scale == 1.4, f"after {count} steps without overflow"
    for scale in (2.0**200, 2.0**-200, 1e10 + 0.1):
        second = impl.LossScaler(1.0, 5)
        second.load_state_dict(impl.LossScaler(scale, 5).state_dict())
        assert second.scale == scale


def test_rounding_everywhere(impl, rng):
    """All shapes, dtypes and layouts; a result is float32, and new."""
    cases = battery.cases(rng, "... n", options=[{"n_exponent": 8, "n_mantissa": 7}], largest=1e38)
    cases += battery.cases(rng, "n m", options=[{"n_exponent": 4, "n_mantissa": 3}], layouts=[], at_most=300)
    cases.append(battery.Case("no axes", (np.array(0.1, np.float32),), {"n_exponent": 5, "n_mantissa": 10}))
    battery.sweep(impl.round_to, slow, cases, ulps=0, dtype=np.float32)


def test_cast_everywhere(impl, rng):
    forms = [{"n_exponent": 5, "n_mantissa": 10}, {"n_exponent": 8, "n_mantissa": 23}]
    cases = battery.cases(rng, "... n", options=forms, at_most=3000)
    given = np.array([1 / 3, 1e5, -1e-8, 2049.0], np.float32)
    wanted = {10: np.array([1365 / 4096, np.inf, -0.0, 2048.0], np.float32), 23: given}

    def rounded(x, **form):
        tensor = Tensor(x, requires_grad=True)
        result = impl.cast(tensor, **form)
        with np.errstate(over="ignore"):
            result.backward(np.resize(given, x.shape))
        assert tensor.grad.shape == x.shape
        if x.dtype != np.float16:  # whose gradients are rounded once more
            same_bits(tensor.grad.astype(np.float32), np.resize(wanted[form["n_mantissa"]], x.shape))
        return result.data

    battery.sweep(rounded, slow, cases, ulps=0, dtype=np.float32)
