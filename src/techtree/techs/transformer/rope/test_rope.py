"""Oracles: pair by pair with the math module's sines, complex numbers, distances, values by hand."""

import cmath
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.transformer.attention import attention_weights, causal_mask

BASES = (10_000.0, 10_000, 0.3, 1.0, 2.0, 25.0, 100, 5e5, 1_000_000.0, 1e9)
SCALINGS = [
    None,
    ("linear", 4.0),
    ("linear", 1),
    ("linear", 0.5),
    ("linear", 3.7, 2.0, 3.0, 7),
    ("llama3", 8.0),
    ("llama3", 32.0, 1.0, 4.0, 8192),
    ("llama3", 4, 1, 4, 64),
    ("llama3", 8.0, 0.5, 3.0, 2048),
    ("llama3", 2.5, 2.0, 16.0, 300),
    ("llama3", 0.5, 1.0, 2.0, 100),
    ("llama3", 16.0, 1.0, 64.0, 131_072),
    ("llama3", 16.0, 5.0, 6.0, 1),
]


def slow_frequencies(width, base=10_000.0, scaling=None):
    """Pair by pair; the wavelength is that of the unscaled frequency."""
    found = []
    for i in range(width // 2):
        f = base ** (-2 * i / width)
        if scaling is not None and scaling[0] == "linear":
            f /= scaling[1]
        elif scaling is not None:
            _, factor, low, high, length = (*scaling, *(1.0, 4.0, 8192)[len(scaling) - 2 :])
            n_turns = length / (2 * math.pi / f)
            share = min(max((n_turns - low) / (high - low), 0.0), 1.0)
            f = share * f + (1 - share) * f / factor
        found.append(f)
    return np.array(found)


def slow_rotation(positions, width, base=10_000.0, scaling=None):
    found = [np.zeros((*positions.shape, width // 2)) for _ in range(2)]
    for i, f in enumerate(slow_frequencies(width, base, scaling)):
        found[0][..., i], found[1][..., i] = np.cos(positions * f), np.sin(positions * f)
    return tuple(found)


def rotation_off(positions, width, base=10_000.0, scaling=None):
    """An angle is off by its rounding, and by that of the frequency: the larger the base, the more."""
    f = slow_frequencies(width, base, scaling)
    steep = 1.0
    if scaling is not None and len(scaling) > 3:
        steep += scaling[3] / (scaling[3] - scaling[2])
    return 1 + np.abs(positions[..., None]) * f * (1 + abs(math.log(base))) * steep


def pairs(width, is_interleaved):
    half = width // 2
    return [(2 * i, 2 * i + 1) if is_interleaved else (i, i + half) for i in range(half)]


def slow_rotate(x, cos, sin, is_interleaved=False):
    y = np.zeros(x.shape)
    cos, sin = (np.broadcast_to(each, (*x.shape[:-1], x.shape[-1] // 2)) for each in (cos, sin))
    for i, (first, second) in enumerate(pairs(x.shape[-1], is_interleaved)):
        c, s = (each[..., i].astype(np.float64) for each in (cos, sin))
        y[..., first] = x[..., first] * c - x[..., second] * s
        y[..., second] = x[..., first] * s + x[..., second] * c
    return y


def slow_gradient(g, x, cos, sin, is_interleaved=False):
    return [slow_rotate(g, cos, -np.asarray(sin), is_interleaved)]


def rotate_off(x, cos, sin, is_interleaved=False):
    """Both terms of a sum, which may cancel."""
    return slow_rotate(np.abs(x), np.abs(cos), -np.abs(sin), is_interleaved) + slow_rotate(
        np.abs(x), np.abs(cos), np.abs(sin), is_interleaved
    )


def scaled(impl, scaling):
    return None if scaling is None else impl.RopeScaling(*scaling)


def frequency_cases():
    for width in aim.sizes(2, 4, 6, 10, 16, 34, 64, 128, 130, 256, 1024, at_most=6000):
        yield Case(f"width {width}", (width + width % 2,))
        yield Case(f"width {width}, base 1e6", (width + width % 2, 1e6))
    for base in (*BASES, *[each for each in aim.NUMBERS if 0 < each < 1e12]):
        for width in (2, 6, 32):
            yield Case(f"base {base:g}", (width,), {"base": base})
    for scaling in SCALINGS:
        for width, base in [(2, 10_000.0), (8, 100.0), (64, 10_000.0), (128, 500_000.0), (256, 1e6)]:
            yield Case(f"width {width}, {scaling}", (width, base), {"scaling": scaling})
        yield Case(f"the base left out, {scaling}", (32,), {"scaling": scaling})
    for number in (each for each in aim.NUMBERS if 1 <= each <= 1e9):
        for near in (0.9 * number, 1.1 * number):
            scaling = ("llama3", 8.0, 1.0, 4.0, int(near) + 1)
            yield Case(f"a context of {int(near) + 1}", (64,), {"scaling": scaling})
            yield Case(f"a factor of {near}", (16,), {"scaling": ("linear", near)})
            yield Case(f"a factor of {near}", (16,), {"scaling": ("llama3", near, 1.0, 4.0, 100)})


def frequencies_off(width, base=10_000.0, scaling=None):
    steep = scaling[3] / (scaling[3] - scaling[2]) if scaling is not None and len(scaling) > 3 else 1.0
    return slow_frequencies(width, base, scaling) * (1 + abs(math.log(base))) * steep


def function_of(impl, name):
    def call(*arguments, scaling=None, **options):
        chosen = {} if scaling is None else {"scaling": scaled(impl, scaling)}
        return getattr(impl, name)(*arguments, **options, **chosen)

    return call


def rotation_cases(rng):
    some = np.array([0, 1, 2, 3, 10, 31, 32, 257, 1000])
    for width in aim.sizes(2, 6, 16, 64, 130, at_most=2000):
        yield Case(f"width {width}", (some, width + width % 2))
    for base in BASES:
        yield Case(f"base {base:g}", (some, 8), {"base": base})
    for scaling in SCALINGS:
        yield Case(f"{scaling}", (some, 16), {"scaling": scaling})
        yield Case(f"base 100, {scaling}", (some, 8, 100.0), {"scaling": scaling})
    for dtype in battery.INTEGERS[:-1]:
        limits = np.iinfo(dtype)
        for largest in (7, 100, limits.max // 2, limits.max // 2 + 1, limits.max):
            given = np.array([0, 1, 3, min(largest, 2**40), max(limits.min, -(2**40))], dtype)
            yield Case(f"positions of {np.dtype(dtype).name}, up to {given[3]}", (given, 8))
    for dtype in battery.FLOATS:
        for given in ([0, 1, 2, 100], [0.5, 1.25, 2.75, 1000.5]):
            yield Case(f"positions of {np.dtype(dtype).name}", (np.array(given, dtype), 10))
    for n in aim.sizes(0, 1, 2, 130, at_most=30_000):
        yield Case(f"{n} tokens", (np.arange(n), 4))
        yield Case(f"{n} tokens, from 5 on", (np.arange(5, n + 5), 4))
    for number in (0.0, 65_536.0, 1e6, 1e7, *[each for each in aim.NUMBERS if each < 1e9]):
        yield Case(f"positions near {number:g}", (np.array([number, number + 1, -number, 2 * number]), 6))
        yield Case(f"position {number:g} alone", (np.array([number]), 4))
    yield Case("backwards", (np.arange(20)[::-1], 6))
    yield Case("again from 0", (np.array([0, 1, 2, 0, 1, 0, 0, 1]), 6))
    yield Case("in any order", (rng.permutation(50), 6))
    yield Case("before the first", (np.array([-3, -2, -1, 0, 1]), 6))
    for shape in [(2, 3), (1, 4), (3, 1), (0, 3), (2, 0), (2, 3, 5), (2, 1, 2, 1, 1, 2)]:
        yield Case(f"positions {shape}", (rng.integers(50, size=shape), 6))
    for layout, lay in battery.LAYOUTS.items():
        yield Case(f"positions {layout}", (lay(rng.integers(50, size=(4, 6))), 6))
        yield Case(f"positions {layout}", (lay(rng.normal(size=(4, 6))), 6))


def drawn_angles(rng, *shape):
    angles = rng.uniform(-4, 4, size=shape)
    return np.cos(angles), np.sin(angles)


def case_of(label, x, cos, sin, **options):
    return Case(label, (x,), {"cos": cos, "sin": sin, **options})


def rotate_cases(rng):
    """The same angles for all texts, or each its own; the smallest first."""
    for flag in ({}, {"is_interleaved": True}):
        told = f", {flag}" if flag else ""
        for width in (2, 4, 6, 8, 34, 64, 130):
            for n_tokens in (1, 0, 2, 3, width // 2, width):
                x = rng.normal(size=(n_tokens, width))
                angles = drawn_angles(rng, n_tokens, width // 2)
                yield case_of(f"{n_tokens} tokens of {width}{told}", x, *angles, **flag)
        leadings = [(1,), (2,), (3,), (0,), (2, 3), (3, 2), (2, 1, 2, 1, 1, 2)]
        for leading in leadings:
            x = rng.normal(size=(*leading, 3, 4))
            yield case_of(f"leading axes {leading}{told}", x, *drawn_angles(rng, 3, 2), **flag)
            own = drawn_angles(rng, *leading, 3, 2)
            yield case_of(f"leading axes {leading}, their own angles{told}", x, *own, **flag)
        for lead in [(3,), (1,), (2, 1), (1, 3), (1, 1), (2, 3)]:
            x = rng.normal(size=(2, 3, 3, 6))
            angles = drawn_angles(rng, *lead, 3, 3)
            yield case_of(f"2 texts with 3 heads, angles {angles[0].shape}{told}", x, *angles, **flag)
        for dtype in battery.FLOATS:
            for other in (np.float64, *battery.FLOATS):
                cos, sin = (each.astype(other) for each in drawn_angles(rng, 5, 3))
                x = rng.normal(size=(2, 5, 6)).astype(dtype)
                label = f"x of {np.dtype(dtype).name}, angles of {np.dtype(other).name}{told}"
                yield case_of(label, x, cos, sin, **flag)
        for layout, lay in battery.LAYOUTS.items():
            x, (cos, sin) = rng.normal(size=(2, 4, 6)), drawn_angles(rng, 4, 3)
            yield case_of(f"x {layout}{told}", lay(x), cos, sin, **flag)
            yield case_of(f"angles {layout}{told}", x, lay(cos), lay(sin), **flag)
        for size in (0.0, -0.0, 1e-300, 1e-9, 1e6, 1e150, 1e300):
            x = size * rng.normal(size=(3, 4))
            yield case_of(f"numbers of {size:g}{told}", x, *drawn_angles(rng, 3, 2), **flag)
        for c, s in [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (0.6, 0.8)]:
            x, cos, sin = rng.normal(size=(3, 4)), np.full((3, 2), c), np.full((3, 2), s)
            yield case_of(f"all angles equal{told}", x, cos, sin, **flag)
        for number in [each for each in aim.NUMBERS if each < 1e30]:
            for sign in (1, -1):
                x = sign * number * rng.uniform(0.5, 2, size=(2, 4))
                yield case_of(f"numbers near {sign * number:g}{told}", x, *drawn_angles(rng, 2, 2), **flag)
        for n in aim.sizes(at_most=4000):
            m = 2 * n
            yield case_of(f"{n} tokens{told}", rng.normal(size=(n, 2)), *drawn_angles(rng, n, 1), **flag)
            yield case_of(f"width {m}{told}", rng.normal(size=(2, m)), *drawn_angles(rng, 2, n), **flag)
            yield case_of(f"{n} texts{told}", rng.normal(size=(n, 1, 2)), *drawn_angles(rng, 1, 1), **flag)


def order_cases():
    for width in aim.sizes(2, 4, 6, 8, 10, 64, 128, 130, 1000, at_most=10_000):
        yield Case(f"width {width}", (width + width % 2,))


def test_frequencies_by_hand(impl):
    assert impl.frequencies(2).tolist() == [1.0]
    battery.check_equal(impl.frequencies(4), [1.0, 0.01], 4)
    battery.check_equal(impl.frequencies(4, 25.0), [1.0, 0.2], 4)
    battery.check_equal(impl.frequencies(8, base=16.0), [1.0, 0.5, 0.25, 0.125], 4)
    battery.check_equal(impl.frequencies(4, scaling=impl.RopeScaling("linear", 2.0)), [0.5, 0.005], 4)
    # 40 pi positions: the pairs turn 20, 5, 1.25 and 0.3125 times. The ramp from 1 to 4 turns: 1, 1, 1/12, 0.
    length = 40 * math.pi
    scaling = impl.RopeScaling("llama3", 4.0, 1.0, 4.0, length)
    expected = [1.0, 0.25, 0.0625 / 12 + 11 / 12 * 0.0625 / 4, 1 / 256]
    battery.check_equal(impl.frequencies(8, 256.0, scaling), expected, 16)


def test_angles_by_hand(impl):
    cos, sin = impl.rotation([0, 1, 100], 4)
    battery.check_equal(cos, [[1, 1], [math.cos(1), math.cos(0.01)], [math.cos(100), math.cos(1)]], 512)
    battery.check_equal(sin, [[0, 0], [math.sin(1), math.sin(0.01)], [math.sin(100), math.sin(1)]], 512)
    cos, sin = impl.rotation([[2.0]], 2, base=7.0, scaling=impl.RopeScaling("linear", 4.0))
    battery.check_equal(cos, [[[math.cos(0.5)]]], 4)
    battery.check_equal(sin, [[[math.sin(0.5)]]], 4)
    for given in ([3, 5], (3, 5), range(3, 7, 2)):
        battery.check_equal(impl.rotation(given, 4)[1], slow_rotation(np.array([3.0, 5.0]), 4)[1], 16)


def test_turning_by_hand(impl):
    """The first pair by a right angle, the second one not."""
    x, cos, sin = Tensor([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    assert impl.rotate(x, cos, sin).data.tolist() == [[-3.0, 2.0, 1.0, 4.0]]
    assert impl.rotate(x, cos, sin, False).data.tolist() == [[-3.0, 2.0, 1.0, 4.0]]
    assert impl.rotate(x, cos, sin, is_interleaved=True).data.tolist() == [[-2.0, 1.0, 3.0, 4.0]]
    assert impl.rotate(x, sin, cos, True).data.tolist() == [[1.0, 2.0, -4.0, 3.0]]
    assert impl.rotate(x=x, cos=cos, sin=sin).data.tolist() == [[-3.0, 2.0, 1.0, 4.0]]


def test_a_scaling_holds_what_it_was_given(impl):
    plain = impl.RopeScaling("linear", 2.0)
    assert (plain.kind, plain.factor) == ("linear", 2.0)
    assert (plain.low_freq_factor, plain.high_freq_factor, plain.original_max_seq_len) == (1.0, 4.0, 8192)
    full = impl.RopeScaling(
        kind="llama3", factor=8, low_freq_factor=0.5, high_freq_factor=3.0, original_max_seq_len=64
    )
    assert (full.kind, full.factor, full.low_freq_factor) == ("llama3", 8, 0.5)
    assert (full.high_freq_factor, full.original_max_seq_len) == (3.0, 64)
    assert impl.RopeScaling("llama3", 1e-6, 1e-3, 1e-2, 1).factor == 1e-6
    assert impl.RopeScaling("linear", 1e6, 4.0, 4.001, 10**7).high_freq_factor == 4.001


def test_a_scaling_is_a_value(impl):
    one, same = impl.RopeScaling("llama3", 8.0), impl.RopeScaling("llama3", 8, 1, 4, 8192)
    assert one == same
    assert hash(one) == hash(same)
    assert one != impl.RopeScaling("llama3", 8.0, 1.0, 4.0, 8191)
    for name in ("kind", "factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"):
        battery.refuses(setattr, one, name, getattr(one, name), error=AttributeError)


def test_what_a_scaling_refuses(impl):
    for kind in ("", "Linear", "llama", "llama3 ", "yarn", "dynamic", "LLAMA3", "default", None):
        battery.refuses(impl.RopeScaling, kind, 2.0)
    for bad in (0, 0.0, -1.0, -1e-9, math.inf, -math.inf, math.nan):
        for kind in ("linear", "llama3"):
            battery.refuses(impl.RopeScaling, kind, bad)
            battery.refuses(impl.RopeScaling, kind, 2.0, bad)
            battery.refuses(impl.RopeScaling, kind, 2.0, 1.0, bad)
            battery.refuses(impl.RopeScaling, kind, 2.0, 1.0, 4.0, bad)
    for kind in ("linear", "llama3"):
        for low, high in [(4.0, 4.0), (1.0, 1.0), (5.0, 4.0), (1.0, 0.5), (100, 99), (4.001, 4.0)]:
            battery.refuses(impl.RopeScaling, kind, 2.0, low, high)
        battery.refuses(impl.RopeScaling, kind, 2.0, low_freq_factor=4.0)
        battery.refuses(impl.RopeScaling, kind, 2.0, high_freq_factor=1.0)
        for length in (-1, -8192, 0.5, 0.999):
            battery.refuses(impl.RopeScaling, kind, 2.0, original_max_seq_len=length)


def test_what_frequencies_and_angles_refuse(impl):
    linear = impl.RopeScaling("linear", 2.0)
    llama3 = impl.RopeScaling("llama3", 2.0)
    for scaling in (None, linear, llama3):
        for width in (0, 1, 3, 5, 7, -1, -2, -4, 129, 10_001):
            battery.refuses(impl.frequencies, width, scaling=scaling)
            for positions in ([0, 1], []):
                battery.refuses(impl.rotation, positions, width, 100.0, scaling)
        for base in (0, 0.0, -1.0, -10_000.0, math.inf, -math.inf, math.nan):
            for width in (2, 8):
                battery.refuses(impl.frequencies, width, base, scaling)
                battery.refuses(impl.rotation, [0, 1], width, base, scaling)
                battery.refuses(impl.rotation, np.zeros(0), width, base=base)
    for positions in (0, 3, 2.5, np.array(1), np.float64(7)):
        battery.refuses(impl.rotation, positions, 4)
    for width in (0, 1, 3, 5, -1, -2, 129):
        battery.refuses(impl.to_half_split, width)


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_what_turning_refuses(impl, rng, is_interleaved):
    def refused(shape, of_cos, of_sin=None):
        x = Tensor(rng.normal(size=shape))
        cos, sin = np.ones(of_cos), np.zeros(of_cos if of_sin is None else of_sin)
        battery.refuses(impl.rotate, x, cos, sin, is_interleaved)

    for shape, angles in [((), (1, 1)), ((4,), (1, 2)), ((4,), (2,)), ((2,), (1, 1)), ((0,), (0, 1))]:
        refused(shape, angles)
    for width in (0, 1, 3, 5):
        for of_angles in {width // 2, (width + 1) // 2, width}:
            refused((3, width), (3, of_angles))
            refused((2, 3, width), (3, of_angles))
    # Rows or columns that are missing, too many, or one for all.
    for angles in [(1, 2), (2, 2), (4, 2), (0, 2), (3, 1), (3, 4), (3, 3), (3, 0), (2,), (3,), (), (1, 1)]:
        refused((3, 4), angles)
        refused((2, 3, 4), angles)
    refused((1, 4), (2,))
    refused((1, 2), (1,))
    refused((1, 4), (3, 2))
    refused((1, 4), (1, 1))
    refused((0, 4), (1, 2))
    # cos and sin that differ.
    for other in [(1, 2), (3, 1), (2, 2), (2,), (3, 3), (1, 3, 2), (), (3, 4)]:
        refused((3, 4), (3, 2), other)
        refused((3, 4), other, (3, 2))
        refused((2, 3, 4), other, (2, 3, 2))
    refused((2, 3, 4), (1, 3, 2), (2, 3, 2))
    refused((2, 3, 4), (3, 2), (2, 3, 2))
    # Leading axes that x does not have, or has in another length.
    for leading in [(1,), (2,), (0,), (2, 3)]:
        refused((3, 4), (*leading, 3, 2))
    for leading in [(2,), (0,), (1, 1), (2, 1), (1, 2)]:
        refused((1, 3, 4), (*leading, 3, 2))
    for leading in [(2, 1), (1, 3), (2,), (4,), (3, 2), (1, 2, 3)]:
        refused((2, 1, 3, 4) if leading in [(1, 3), (2,), (4,)] else (3, 3, 4), (*leading, 3, 2))


def test_order_is_its_definition(impl):
    def definition(width):
        return np.array([each for start in (0, 1) for each in range(start, width, 2)])

    assert np.asarray(impl.to_half_split(6)).tolist() == [0, 2, 4, 1, 3, 5]
    battery.sweep(impl.to_half_split, definition, order_cases(), ulps=0, dtype=None)
    assert impl.to_half_split(8).dtype.kind in "iu"


def test_no_gradient_where_none_is_wanted(impl, rng):
    cos, sin = drawn_angles(rng, 3, 2)
    x = rng.normal(size=(3, 4))
    for given, by in [(x, (cos, sin)), (x, (cos * 0 + 1, sin * 0)), (x[:0], (cos[:0], sin[:0]))]:
        one = Tensor(given)
        for flag in (False, True):
            assert impl.rotate(one, *by, is_interleaved=flag) is not one
    assert not impl.rotate(Tensor(x), cos, sin).requires_grad
    with no_grad():
        assert not impl.rotate(Tensor(x, requires_grad=True), cos, sin).requires_grad
    leaf = Tensor(x, requires_grad=True)  # used twice: the gradients add up
    g = rng.normal(size=(3, 4))
    (impl.rotate(leaf, cos, sin) + impl.rotate(leaf * 2.0, cos, sin, is_interleaved=True)).backward(g)
    expected = slow_rotate(g, cos, -sin) + 2 * slow_rotate(g, cos, -sin, True)
    battery.check_equal(leaf.grad, expected, 16, 6.0)


def test_frequencies_are_their_definition(impl):
    battery.sweep(
        function_of(impl, "frequencies"),
        slow_frequencies,
        frequency_cases(),
        ulps=16,
        magnitude=frequencies_off,
        dtype=np.float64,
    )


def test_angles_are_their_definition(impl, rng):
    battery.sweep(
        function_of(impl, "rotation"),
        slow_rotation,
        rotation_cases(rng),
        ulps=16,
        magnitude=rotation_off,
        dtype=np.float64,
    )


def test_turning_is_its_definition(impl, rng):
    def turn(x, cos, sin, **flag):
        return impl.rotate(Tensor(x), cos, sin, **flag)

    battery.sweep(turn, slow_rotate, rotate_cases(rng), ulps=8, magnitude=rotate_off)


def test_gradients_are_turned_back(impl, rng):
    cases = [each for each in rotate_cases(rng) if each.arguments[0].size < 1200]
    battery.sweep_gradients(
        impl.rotate,
        slow_gradient,
        [each for each in cases if np.abs(each.arguments[0].astype(np.float64)).max(initial=0) < 1e9],
        tensor=lambda x: Tensor(x, requires_grad=True),
        rng=rng,
        ulps=8,
        magnitude=6.0,
    )


def test_angles_may_change_between_calls(impl, rng):
    """A table that is filled anew is read anew."""
    cos, sin = drawn_angles(rng, 3, 2)
    x = rng.normal(size=(3, 4))
    for is_interleaved in (False, True):
        for _ in range(2):
            cos[...], sin[...] = drawn_angles(rng, 3, 2)
            got = impl.rotate(Tensor(x), cos, sin, is_interleaved)
            battery.check_equal(got, slow_rotate(x, cos, sin, is_interleaved), 8, 6.0)
    positions = np.arange(3)
    impl.rotation(positions, 4)
    positions += 7
    battery.check_equal(impl.rotation(positions, 4)[0], slow_rotation(positions, 4)[0], 16, 200)


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_scores_depend_on_distances_only(impl, rng, is_interleaved):
    q, k = rng.normal(size=(2, 9, 8))
    found = []
    for first in (0, 1, 50, 1000):
        turned = []
        for each in (q, k):
            by = impl.rotation(np.arange(first, first + 9), 8, 100.0)
            turned.append(impl.rotate(Tensor(each), *by, is_interleaved=is_interleaved))
        found.append(attention_weights(*turned, causal_mask(9, 9)).data)
    for each in found[1:]:
        battery.check_equal(each, found[0], 1, 1e5)  # angles of 1000 radians are off by 1e-13
    swapped = attention_weights(Tensor(q), Tensor(k), causal_mask(9, 9)).data
    assert np.abs(found[0] - swapped).max() > 0.01  # and on the distances they do depend


def test_lengths_stay(impl, rng):
    x = rng.normal(size=(2, 6, 10))
    for is_interleaved in (False, True):
        y = impl.rotate(Tensor(x), *impl.rotation(np.arange(6) * 37, 10), is_interleaved).data
        battery.check_equal((y**2).sum(axis=-1), (x**2).sum(axis=-1), 32)
        for place, (first, second) in enumerate(pairs(10, is_interleaved)):
            was, now = (each[..., first] + 1j * each[..., second] for each in (x, y))
            turn = np.array([cmath.exp(1j * p * 37 * 10_000 ** (-2 * place / 10)) for p in range(6)])
            assert np.abs(now - was * turn).max() < 1e-12


@pytest.mark.parametrize("width", [2, 4, 6, 10, 64])
def test_both_pairings_are_the_same_in_another_order(impl, rng, width):
    order = impl.to_half_split(width)
    x = rng.normal(size=(2, 5, width))
    by = impl.rotation(rng.permutation(5), width, 50.0)
    interleaved = impl.rotate(Tensor(x), *by, is_interleaved=True).data[..., order]
    battery.check_equal(impl.rotate(Tensor(x[..., order]), *by), interleaved, 8, 6.0)


def test_another_machine_and_day_change_nothing(impl, rng):
    x = rng.normal(size=(3, 6))

    def everything():
        by = impl.rotation([0, 5, 9], 6, 77.0, impl.RopeScaling("llama3", 2.0, 1.0, 3.0, 50))
        return [*by, impl.rotate(Tensor(x), *by).data, impl.to_half_split(6)]

    before = everything()
    with elsewhere(impl):
        for one, other in zip(before, everything(), strict=True):
            assert np.array_equal(one, other)
