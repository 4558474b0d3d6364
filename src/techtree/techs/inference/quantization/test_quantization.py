"""Oracles: block by block with the struct module, exact products in float64, bytes and names by hand.

The bytes of a block are specified down to each rounding, so nothing about them has a tolerance.
"""

import copy
import gc
import itertools
import math
import struct
import weakref

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.safetensors import load_file, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.battery import Case, MismatchError
from techtree.techs.elsewhere import elsewhere
from techtree.techs.training.linear import Linear

KINDS = ("q8_0", "q4_0")
N_BYTES = {"q8_0": 34, "q4_0": 18}
STEPS = {"q8_0": 127, "q4_0": 8}
F32 = np.float32


def remembered(definition):
    """A function of arrays that works out each of its answers once: every subject is asked the same."""
    known = {}

    def look_up(*arguments):
        arrays = [each for each in arguments if isinstance(each, np.ndarray)]
        key = (arguments[-1], *((each.tobytes(), each.shape, each.dtype.str) for each in arrays))
        if key not in known:
            known[key] = definition(*arguments)
        return known[key]

    return look_up


def slow_block(block, kind):
    """The bytes of 32 float32 numbers, entry by entry."""
    m = max(block.tolist(), key=abs)  # the first of the largest
    with np.errstate(all="ignore"):
        d = F32(abs(m)) / F32(127) if kind == "q8_0" else F32(m) / F32(-8)
        inverse = F32(1) / d
        s = (block * (inverse if np.isfinite(inverse) else F32(0))).tolist()
    if kind == "q8_0":
        q = [int(math.copysign(math.floor(abs(each) + 0.5), each)) for each in s]  # in float64: exact
        return struct.pack("<e32b", d, *q)
    q = [min(math.floor(F32(each) + F32(8.5)), 15) for each in s]
    return struct.pack("<e16B", d, *(low + 16 * high for low, high in zip(q[:16], q[16:], strict=True)))


@remembered
def slow_quantize(x, kind):
    with np.errstate(all="ignore"):
        blocks = x.astype(F32).reshape(-1, 32)
    data = b"".join(slow_block(each, kind) for each in blocks)
    found = np.frombuffer(data, np.uint8)
    return found.reshape(*x.shape[:-1], x.shape[-1] // 32 * N_BYTES[kind])


def slow_parts(blocks, kind):
    """Scales and whole numbers, in float64, by arithmetic on the bytes."""
    leading, n_blocks = blocks.shape[:-1], blocks.shape[-1] // N_BYTES[kind]
    rows = np.asarray(blocks, np.int64).reshape(*leading, n_blocks, N_BYTES[kind])
    d = np.frombuffer(rows[..., :2].astype(np.uint8).tobytes(), "<f2").astype(np.float64)
    q = rows[..., 2:]
    q = q - 256 * (q > 127) if kind == "q8_0" else np.concatenate([q % 16, q // 16], axis=-1) - 8
    return d.reshape(*leading, n_blocks), q


def slow_dequantize(blocks, kind):
    d, q = slow_parts(blocks, kind)
    with np.errstate(all="ignore"):
        return (d[..., None] * q).reshape(*blocks.shape[:-1], d.shape[-1] * 32)


@remembered
def products(x, blocks, kind):
    """One for each pair of rows and each block; exact up to the two scales."""
    (d_x, q_x), (d_w, q_w) = slow_parts(slow_quantize(x, "q8_0"), "q8_0"), slow_parts(blocks, kind)
    dots = np.einsum("...bi,obi->...ob", q_x, q_w)
    return dots * d_x[..., None, :] * d_w


def slow_matmul(x, blocks, kind):
    return products(x, blocks, kind).sum(axis=-1)


def matmul_off(x, blocks, kind):
    """Only the sum over blocks is rounded, not what cancels inside of a block."""
    return np.abs(products(x, blocks, kind)).sum(axis=-1)


def near_halves(rng, kind, n_blocks):
    """Entries half a step between two numbers, and the float32 numbers beside these; any scale."""
    most = STEPS[kind]
    d = np.exp(rng.uniform(-9, 9, size=(n_blocks, 1)))
    x = (d * (rng.integers(-most, most, size=(n_blocks, 32)) + 0.5)).astype(F32)
    x = np.nextafter(x, (x * rng.choice([0.5, 1, 2], size=x.shape)).astype(F32))
    x[np.arange(n_blocks), rng.integers(32, size=n_blocks)] = most * d[:, 0] * rng.choice([-1, 1], n_blocks)
    return x


def exact_halves(rng, kind):
    """Scales that are powers of two: exactly half a step between two numbers, of both signs."""
    most = STEPS[kind]
    x = rng.integers(-most, most, size=(3, 32)) + 0.5
    x[:, :8] = [0.5, -0.5, 1.5, -1.5, 2.5, -2.5, most - 0.5, 0.5 - most]
    x[:, 8] = [most, -most, most]
    return x * np.array([[1.0], [0.25], [2.0**-12]])


def signs(rng):
    """The largest magnitude several times, with both signs; zeros of both signs, alone and first."""
    x = rng.integers(-3, 4, size=(6, 32)).astype(float)
    x[0, [3, 7]], x[1, [3, 7]], x[2, [0, 31]], x[3, [31, 0]] = [5, -5], [-5, 5], [6, -6], [6, -6]
    x[4], x[5] = 2.0, -2.0
    zeros = np.zeros((5, 32))
    zeros[1], zeros[2, 0], zeros[3, 1:], zeros[4, 5] = -0.0, -0.0, -0.0, -1.0
    return np.concatenate([x, zeros])


def value_cases(rng, kind):
    yield Case("one block", (rng.normal(size=32),))
    yield Case("signs and zeros", (signs(rng),))
    yield Case("exactly half a step", (exact_halves(rng, kind),))
    yield Case("nearly half a step", (near_halves(rng, kind, 60),))
    for size in (1e-45, 1e-42, 3e-39, 1e-38, 1e-30, 1e-10, 1e-8, 3e-7, 3e-6, 1e-4, 1.0, 300.0, 1e5):
        x = size * rng.normal(size=(3, 32)).clip(-5, 5)
        x[2, 5] = size
        yield Case(f"numbers of {size:g}", (x,))
    # Where float16 changes from subnormal to normal numbers, and where it ends; and where 1 / d does.
    for d in (
        2.0**-25,
        2.0**-24,
        1.5 * 2**-24,
        2.0**-14,
        65_504.0,
        65_519.0,
        2.0**-128,
        2.0**-127,
        2.0**-126,
    ):
        for step in (1 - 2.0**-20, 1, 1 + 2.0**-20):
            x = np.append(rng.uniform(-1, 1, size=31), rng.choice([-1, 1])) * STEPS[kind] * d * step
            yield Case(f"a scale near {d:g}", (x,))
    x = rng.normal(size=(4, 32)) ** 5
    yield Case("heavy tails", (x,))
    yield Case("one entry among zeros", (np.where(np.arange(32) == 17, -0.3, 0.0),))
    for number in (each for each in aim.NUMBERS if each < 5e5):
        x = rng.uniform(-1.1, 1.1, size=(2, 32)) * number
        yield Case(f"values near {number:g}", (x,))


def shape_cases(rng):
    for shape in [(0,), (2, 0), (0, 32), (64,), (1, 32), (3, 96), (2, 3, 32), (3, 1, 64), (130, 32)]:
        yield Case(f"shape {shape}", (rng.normal(size=shape),))
    yield Case("six leading axes", (rng.normal(size=(2, 1, 2, 1, 1, 2, 32)),))
    for n in aim.sizes(at_most=4000):
        yield Case(f"{n} blocks in a row", (rng.normal(size=n * 32),))
        yield Case(f"{n} rows", (rng.normal(size=(n, 32)),))
    for dtype in (*battery.FLOATS, *battery.INTEGERS, ">f4", ">f8", np.longdouble):
        kind = np.dtype(dtype).kind
        most = 2 if kind == "b" else min(np.iinfo(dtype).max, 400_000) if kind in "iu" else 0
        x = (
            rng.integers(-most if kind == "i" else 0, most, size=(2, 64))
            if most
            else rng.normal(size=(2, 64))
        )
        yield Case(f"dtype {np.dtype(dtype).name}", (x.astype(dtype),))
    for layout, lay in battery.LAYOUTS.items():
        yield Case(layout, (lay(rng.normal(size=(3, 64)).astype(F32)),))


def drawn_blocks(rng, kind, *shape):
    """Blocks of any bytes, with scales of size one, for an array of this shape."""
    n = int(np.prod(shape)) // 32
    found = rng.integers(256, size=(n, N_BYTES[kind])).astype(np.uint8)
    found[:, :2] = rng.normal(size=(n, 1)).astype("<f2").view(np.uint8)
    return found.reshape(*shape[:-1], shape[-1] // 32 * N_BYTES[kind])


def block_cases(rng, kind):
    n = N_BYTES[kind]
    every = np.zeros((256, n), np.uint8)
    every[:, 1], every[:, 2:] = 60, np.arange(256)[:, None]
    yield Case("every byte", (every,))
    for scale in (1.0, -1.0, 0.0, -0.0, 1e-7, 6e-8, 65_504.0, -0.1, math.inf, -math.inf, math.nan):
        row = rng.integers(256, size=n).astype(np.uint8)
        row[:2] = np.frombuffer(struct.pack("<e", scale), np.uint8)
        yield Case(f"the scale {scale}", (row,))
    for shape in [(n,), (0,), (3, 0), (0, n), (1, n), (2, 5 * n), (2, 3, n), (2, 1, 2, 1, 1, 2, n), (130, n)]:
        yield Case(f"random bytes, shape {shape}", (rng.integers(256, size=shape).astype(np.uint8),))
    for size in aim.sizes(at_most=2000):
        yield Case(f"{size} blocks in a row", (drawn_blocks(rng, kind, size * 32),))
        yield Case(f"{size} rows", (drawn_blocks(rng, kind, size, 32),))
    for layout, lay in battery.LAYOUTS.items():
        yield Case(layout, (lay(drawn_blocks(rng, kind, 3, 64)),))


def canceling(rng, kind):
    """Two rows whose products of whole numbers add up to 0 and whose floats do not."""
    while True:
        q_x, q_w = (rng.integers(-5, 6, size=32) for _ in range(2))
        q_x[0], q_w[0], q_x[1], q_w[1], q_w[31] = 127, 0, 0, -STEPS[kind], 1
        q_x[31] = -(q_x[:31] * q_w[:31]).sum()
        if abs(q_x[31]) <= 127:
            d_x, d_w = rng.uniform(0.01, 1, size=2).astype(np.float16).astype(float)
            return d_x * q_x, d_w * q_w


def matmul_cases(rng, kind):
    def case(label, shape, n_out, dtype=np.float64, lay=lambda x: x):
        x = lay(rng.normal(size=shape).astype(dtype))
        return Case(label, (x, drawn_blocks(rng, kind, n_out, shape[-1])), slack=1 + shape[-1] / 320)

    yield case("one block", (32,), 1)
    for shape, n_out in [((0,), 2), ((3, 0), 2), ((32,), 0), ((0, 32), 3), ((2, 64), 3), ((3, 96), 130)]:
        yield case(f"{shape} by {n_out} rows", shape, n_out)
    for shape in [(1, 32), (2, 3, 64), (2, 1, 2, 1, 1, 2, 32), (130, 32), (2, 160)]:
        yield case(f"{shape}", shape, 2)
    for dtype in (*battery.FLOATS, np.int64, np.uint8):
        yield case(f"x of {np.dtype(dtype).name}", (2, 64), 3, dtype)
    for layout, lay in battery.LAYOUTS.items():
        yield case(f"x {layout}", (3, 64), 2, F32, lay)
        yield Case(f"blocks {layout}", (rng.normal(size=(2, 64)), lay(drawn_blocks(rng, kind, 3, 64))))
    for size in aim.sizes(at_most=1500):
        yield case(f"{size} blocks in a row", (2, size * 32), 2)
        yield case(f"{size} rows of x", (size, 32), 2)
        yield case(f"{size} rows of blocks", (2, 32), size)
    for signs_of_x, signs_of_w in itertools.product((1, -1), repeat=2):
        x, w = np.full((2, 96), signs_of_x * 3.0), np.full((2, 96), signs_of_w * 0.7)
        yield Case("all entries alike", (x, slow_quantize(w, kind)))
    for x, w in (canceling(rng, kind) for _ in range(8)):
        yield Case("what cancels inside of a block", (x, slow_quantize(w[None], kind)))
    for size in (1e-6, 1e-3, 1e4):
        x, w = rng.normal(size=(2, 64)) * size, rng.normal(size=(3, 64)) * np.array([[1e-3], [1], [1e3]])
        yield Case(f"x of {size:g}", (x, slow_quantize(w, kind)))
    mixed = rng.normal(size=(2, 4, 32)) * np.array([[1e-3], [1], [30], [0]])
    yield Case("blocks of several sizes", (mixed.reshape(2, 128), drawn_blocks(rng, kind, 3, 128)))
    least = np.full((1, N_BYTES[kind]), 0x80 if kind == "q8_0" else 0, np.uint8)
    least[0, :2] = 0, 60
    yield Case("-128 in q8_0, -8 in q4_0, everywhere", (np.full(32, -1.0), least))


def by_kind(function, kind):
    return lambda *arguments: function(*arguments, kind)


def layer_of(weight, bias=None):
    n_out, n_in = weight.shape
    linear = Linear(n_in, n_out, np.random.default_rng(0), bias is not None, dtype=weight.dtype.type)
    linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return linear


def test_q8_0_by_hand(impl):
    """The scale is 1: 254 is twice 127. 2.5 goes to 3 and -2.5 to -3."""
    x = np.zeros(32)
    x[:6] = [127.0, -127.0, 2.5, -2.5, 0.4, 63.0]
    got = impl.quantize(x, "q8_0")
    assert got.dtype == np.uint8
    assert got.tolist() == [0, 60, 127, 129, 3, 253, 0, 63, *[0] * 26]
    assert impl.dequantize(got, "q8_0")[:6].tolist() == [127.0, -127.0, 3.0, -3.0, 0.0, 63.0]


def test_q4_0_by_hand(impl):
    """The scale is -1 or 1, against the sign of the largest; halves go up on the scale's side."""
    x = np.zeros(32)
    x[[0, 1, 2, 16, 17, 31]] = [8.0, -8.0, 2.5, 1.0, -2.5, -3.0]
    got = impl.quantize(x, "q4_0")
    # d = -1: the numbers are -8, 8 (which there is not: 7), -2 (-2.5 goes up), and -1, 3 (2.5 goes up), 3.
    assert got.tolist() == [0, 188, 0x70, 0xBF, 0x86, *[0x88] * 12, 0xB8]
    assert impl.dequantize(got, "q4_0")[[0, 1, 2, 16, 17, 31]].tolist() == [8.0, -7.0, 2.0, 1.0, -3.0, -3.0]
    got = impl.quantize(-x, "q4_0")
    assert got[:5].tolist() == [0, 60, 0x70, 0xBF, 0x86]
    assert impl.dequantize(got, kind="q4_0")[:3].tolist() == [-8.0, 7.0, -2.0]


def test_products_by_hand(impl):
    w, x = np.zeros((2, 32)), np.zeros((1, 32))
    w[0, :2], w[1, :2], x[0, :2] = [-8.0, 3.0], [4.0, 8.0], [127.0, -5.0]
    assert impl.quantized_matmul(x, impl.quantize(w, "q4_0"), "q4_0").tolist() == [[-1031.0, 468.0]]
    w[0, 2] = 127.0
    got = impl.quantized_matmul(x=x, blocks=impl.quantize(x=w, kind="q8_0"), kind="q8_0")
    assert got[0, 0] == -1031.0
    assert got.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_what_quantize_refuses(impl, rng, kind):
    for x in (np.array(1.0), np.zeros(1), np.zeros(31), np.zeros(33), np.zeros((32, 16)), np.zeros((0, 5))):
        battery.refuses(impl.quantize, x, kind)
        battery.refuses(impl.quantized_matmul, x, drawn_blocks(rng, kind, 2, 32), kind)
    for bad in (math.nan, math.inf, -math.inf, 1e39, -1e300):
        for place in (0, 1, 31, 32, 63, 95):
            x = rng.normal(size=(2, 96))
            x[1, place] = bad
            battery.refuses(impl.quantize, x, kind)
            battery.refuses(impl.quantized_matmul, x, drawn_blocks(rng, kind, 2, 96), kind)
    for scale in (65_520.0, 7e4, 1e30):
        for sign in (1, -1):
            x = rng.normal(size=(2, 64))
            x[0, 40] = sign * scale * STEPS[kind]
            battery.refuses(impl.quantize, x, kind)
            x[0, 40] = 65_519.0 * sign * STEPS[kind]
            assert np.isfinite(impl.dequantize(impl.quantize(x, kind), kind)).all()
    for everything in (np.full(32, np.inf, np.float16), np.full(32, 2**64 - 1, np.uint64)):
        battery.refuses(impl.quantize, everything, kind)


def test_kinds_that_there_are_not(impl, rng):
    x, blocks = rng.normal(size=(2, 32)), drawn_blocks(rng, "q8_0", 2, 32)
    for kind in ("", "q8", "Q8_0", "q4_1", "q4_0 ", "keep", "float32", None, 8):
        battery.refuses(impl.quantize, x, kind)
        battery.refuses(impl.quantize, x[:0], kind)
        battery.refuses(impl.dequantize, blocks, kind)
        battery.refuses(impl.dequantize, blocks[:0], kind)
        battery.refuses(impl.quantized_matmul, x, blocks, kind)
        battery.refuses(impl.QuantizedLinear, layer_of(x), kind)
        if kind != "keep":
            for call in (impl.choose_kinds, impl.quantize_state):
                battery.refuses(call, {"w": x}, {"": kind})
                battery.refuses(call, {"w": x}, {"": kind, "w": "q8_0"})
                battery.refuses(call, {}, {"": kind})


@pytest.mark.parametrize("kind", KINDS)
def test_what_dequantize_refuses(impl, rng, kind):
    blocks = drawn_blocks(rng, kind, 2, 64)
    x = rng.normal(size=(3, 64))
    bad = [np.array(3, np.uint8), blocks[:, :-1], blocks[:, 2:], np.zeros(32, np.uint8), blocks[:0, :-1]]
    bad += [blocks.astype(dtype) for dtype in (np.int8, np.int64, np.float32, np.uint16)]
    for each in bad:
        battery.refuses(impl.dequantize, each, kind)
        battery.refuses(impl.quantized_matmul, x, each, kind)
    other = KINDS[kind == "q8_0"]
    battery.refuses(impl.dequantize, drawn_blocks(rng, other, 32), kind)
    for each in (blocks[0], blocks[None], drawn_blocks(rng, kind, 2, 32), drawn_blocks(rng, kind, 2, 96)):
        battery.refuses(impl.quantized_matmul, x, each, kind)
        battery.refuses(impl.quantized_matmul, x[0], each, kind)
    battery.refuses(impl.quantized_matmul, x[:0], drawn_blocks(rng, kind, 2, 32), kind)
    battery.refuses(impl.quantized_matmul, x, drawn_blocks(rng, kind, 0, 32), kind)
    battery.refuses(impl.quantized_matmul, x, blocks[:, : N_BYTES[kind]], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_on_blocks(impl, rng, kind):
    weight, bias = rng.normal(size=(3, 64)).astype(F32), rng.normal(size=3).astype(F32)
    linear = layer_of(weight, bias)
    layer = impl.QuantizedLinear(linear, kind)
    assert np.array_equal(linear.weight.data, weight)
    assert np.array_equal(linear.bias.data, bias)
    assert isinstance(layer, Module)
    assert layer.kind == kind
    assert layer.blocks.dtype == np.uint8
    assert np.array_equal(layer.blocks, slow_quantize(weight, kind))
    assert type(layer.bias) is np.ndarray
    assert layer.bias.dtype == np.float32
    assert list(layer.named_parameters()) == []
    # What happens to the other layer later does not matter, and the other way round.
    expected = layer.bias.tolist(), layer.blocks.tolist()
    linear.weight.data += 1
    linear.bias.data += 1
    assert (layer.bias.tolist(), layer.blocks.tolist()) == expected
    layer.bias *= 0
    assert linear.bias.data.tolist() == (bias + 1).tolist()
    second = impl.QuantizedLinear(kind=kind, linear=layer_of(weight))
    assert second.bias is None
    assert not np.shares_memory(second.blocks, layer.blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_layer_on_blocks_answers(impl, rng, kind):
    for dtype in battery.FLOATS:
        weight, bias = rng.normal(size=(5, 64)).astype(dtype), rng.normal(size=5).astype(dtype)
        layer = impl.QuantizedLinear(layer_of(weight, bias), kind)
        plain = impl.QuantizedLinear(layer_of(weight), kind)
        assert layer.bias.dtype == np.float32
        blocks = slow_quantize(weight, kind)
        for shape in [(64,), (2, 64), (0, 64), (2, 3, 64)]:
            x = rng.normal(size=shape).astype(dtype)
            kept, asked = x.copy(), Tensor(x, requires_grad=True)
            for of, shift in ((layer, bias.astype(float)), (plain, np.zeros(5))):
                expected = slow_matmul(x, blocks, kind) + shift
                for _ in range(2):
                    y = of(asked)
                    assert isinstance(y, Tensor)
                    assert not y.requires_grad
                    battery.check_equal(y, expected, 16, matmul_off(x, blocks, kind) + abs(shift), F32)
            assert np.array_equal(x, kept)
            assert asked.grad is None


def test_a_layer_reads_what_it_holds_now(impl, rng):
    """Blocks, kind and bias may be exchanged or changed; a copy is a layer of its own."""
    w = [rng.normal(size=(3, 32)) for _ in range(2)]
    layer, x = impl.QuantizedLinear(layer_of(w[0], np.ones(3)), "q8_0"), rng.normal(size=(2, 32))

    def answers(weight, kind, shift):
        blocks = slow_quantize(weight, kind)
        off = matmul_off(x, blocks, kind) + 3
        battery.check_equal(layer(Tensor(x)), slow_matmul(x, blocks, kind) + shift, 16, off, F32)

    answers(w[0], "q8_0", 1)
    layer.bias += 1
    answers(w[0], "q8_0", 2)
    twin = copy.deepcopy(layer)
    twin.blocks[...] = slow_quantize(w[1], "q8_0")
    answers(w[0], "q8_0", 2)
    layer.blocks[...] = slow_quantize(w[1], "q8_0")
    answers(w[1], "q8_0", 2)
    layer.blocks, layer.kind, layer.bias = slow_quantize(w[0], "q4_0"), "q4_0", None
    answers(w[0], "q4_0", 0)
    layer.bias = np.full(3, 3.0, F32)
    for switch in (layer.eval, layer.train):
        switch()
        answers(w[0], "q4_0", 3)


def test_what_layers_refuse(impl, rng):
    for kind in KINDS:
        for n_in in (1, 31, 33, 48):
            battery.refuses(impl.QuantizedLinear, layer_of(rng.normal(size=(2, n_in))), kind)
        battery.refuses(impl.QuantizedLinear, layer_of(np.full((2, 32), np.nan)), kind)
        layer = impl.QuantizedLinear(layer_of(rng.normal(size=(2, 64))), kind)
        for shape in ((), (32,), (2, 96), (2, 63), (64, 2), (2, 0)):
            battery.refuses(layer, Tensor(rng.normal(size=shape)))
        battery.refuses(layer, Tensor(np.full(64, np.inf)))


def model_state(rng):
    shapes = {
        "embedding.weight": (5, 32),
        "layers.1.weight": (2, 64),
        "layers.1.bias": (64,),
        "layers.10.weight": (3, 32),
        "layers.2.inner.weight": (1, 96),
        "narrow": (4, 31),
        "norm": (32,),
        "stack": (2, 2, 32),
        "layers": (2, 32),
        "single": (),
        "wide": (3, 48),
        "norm_bias.weight": (2, 32),
        "head.weight": (2, 32),
    }
    return {name: rng.normal(size=shape).astype(F32) for name, shape in shapes.items()}


CHOICES = [
    ({}, {}),
    ({"": "keep"}, {}),
    (
        {"": "q4_0"},
        dict.fromkeys(
            [
                "embedding.weight",
                "layers.1.weight",
                "layers.10.weight",
                "layers.2.inner.weight",
                "layers",
                "norm_bias.weight",
                "head.weight",
            ],
            "q4_0",
        ),
    ),
    ({"head": "q8_0"}, {"head.weight": "q8_0"}),
    ({"head.weight": "q4_0"}, {"head.weight": "q4_0"}),
    ({"layers.1": "q8_0"}, {"layers.1.weight": "q8_0"}),
    (
        {"layers": "q8_0", "layers.2": "q4_0", "layers.10": "keep"},
        {"layers.1.weight": "q8_0", "layers.2.inner.weight": "q4_0", "layers": "q8_0"},
    ),
    (
        {"layers.2.inner": "keep", "layers.2": "q4_0", "layers": "q8_0"},
        {"layers.1.weight": "q8_0", "layers.10.weight": "q8_0", "layers": "q8_0"},
    ),
    (
        {"head": "keep", "": "q8_0", "layers": "keep", "layers.10.weight": "q4_0"},
        {"embedding.weight": "q8_0", "layers.10.weight": "q4_0", "norm_bias.weight": "q8_0"},
    ),
    ({"norm": "q4_0", "narrow": "q8_0", "stack": "q4_0", "single": "q8_0", "wide": "q4_0"}, {}),
]


def test_choices_by_hand(impl, rng):
    def definition(kinds):
        for each, expected in CHOICES:
            if each == kinds:
                return expected
        raise AssertionError(kinds)

    state = model_state(rng)
    cases = [Case("", (kinds,)) for kinds, _ in CHOICES]
    battery.sweep_plain(lambda kinds: impl.choose_kinds(state, kinds), definition, cases)
    for kinds, expected in CHOICES:
        got = impl.choose_kinds(kinds=kinds, state=state)
        # The order is that of the state.
        assert list(got.items()) == [(name, expected[name]) for name in state if name in expected]
    assert impl.choose_kinds({}, {"": "q4_0"}) == {}
    assert impl.choose_kinds({"w": np.zeros((0, 32))}, {"": "q4_0"}) == {"w": "q4_0"}
    numbers = {name: np.zeros((2, 32), name) for name in ("int64", "uint8", "bool", "float64", "float16")}
    assert list(impl.choose_kinds(numbers, {"": "q8_0"})) == ["float64", "float16"]


def test_keys_that_speak_for_nothing(impl, rng):
    state = model_state(rng)
    for key in (
        "haed",
        "layer",
        "layers.",
        "layers.3",
        "layers.1.w",
        "weight",
        "head.weight.x",
        ".",
        "norm.",
    ):
        for kind in (*KINDS, "keep"):
            for call in (impl.choose_kinds, impl.quantize_state):
                battery.refuses(call, state, {key: kind}, says=[key])
                battery.refuses(call, state, {"": "q4_0", key: kind, "head": "q8_0"}, says=[key])
    battery.refuses(impl.choose_kinds, {}, {"w": "q4_0"})


def test_states(impl, rng):
    state = model_state(rng) | {"table": np.arange(64).reshape(2, 32), "wide64": rng.normal(size=(2, 64))}
    kept = {name: each.copy() for name, each in state.items()}
    for kinds, chosen in [*CHOICES, ({"wide64": "q4_0", "table": "q8_0"}, {"wide64": "q4_0"})]:
        if "" in kinds and kinds[""] != "keep":
            chosen = chosen | {"wide64": kinds[""]}
        got = impl.quantize_state(state, kinds)
        names = [f"{name}.{chosen[name]}" if name in chosen else name for name in state]
        assert list(got) == names
        for (name, before), after in zip(state.items(), got.values(), strict=True):
            wanted = slow_quantize(before, chosen[name]) if name in chosen else before
            battery.check_equal(after, wanted, 0, dtype=wanted.dtype, label=name)
            if np.shares_memory(before, after):
                raise MismatchError(f"{name} must be copied")
        back = impl.dequantize_state(got)
        assert list(back) == list(state)
        for name, after in back.items():
            is_chosen = name in chosen
            wanted = (
                slow_dequantize(slow_quantize(state[name], chosen[name]), chosen[name])
                if is_chosen
                else state[name]
            )
            battery.check_equal(after, wanted, 0, dtype=F32 if is_chosen else wanted.dtype, label=name)
            given = got[f"{name}.{chosen[name]}" if is_chosen else name]
            if np.shares_memory(after, given) or not after.flags.writeable:
                raise MismatchError(f"{name} must be a new array")
        assert list(got) == names
    assert {name: each.tobytes() for name, each in state.items()} == {n: e.tobytes() for n, e in kept.items()}


def test_states_that_are_refused(impl, rng):
    w = rng.normal(size=(2, 32))
    for name in ("w.q8_0", "w.q4_0", "a.b.q4_0"):
        for kinds in ({}, {"": "q4_0"}, {"": "keep"}):
            battery.refuses(impl.quantize_state, {"v": w, name: w}, kinds)
            battery.refuses(impl.quantize_state, {name: np.ones(3, np.uint8)}, kinds)
    for name in ("q8_0", "xq4_0", "q4_0.w", "w.q4_1", "w.keep"):
        assert list(impl.quantize_state({name: w}, {})) == [name]
        assert list(impl.dequantize_state({name: w})) == [name]
    battery.refuses(impl.quantize_state, {"w": w * np.nan}, {"": "q4_0"})
    battery.refuses(impl.dequantize_state, {"w.q8_0": w})
    battery.refuses(impl.dequantize_state, {"w.q8_0": slow_quantize(w, "q4_0")})


def test_only_the_last_ending_is_cut(impl, rng):
    """A part of a model may be called like a kind."""
    state = {"q4_0.q8_0.w": rng.normal(size=(2, 32)), "q8_0.b": np.ones(3)}
    got = impl.quantize_state(state, {"q4_0": "q4_0"})
    assert list(got) == ["q4_0.q8_0.w.q4_0", "q8_0.b"]
    assert list(impl.dequantize_state(got)) == list(state)


def test_a_model_goes_through_a_weight_file(impl, rng, tmp_path):
    """Mapped arrays are read-only and need not be aligned; vectors come back to the bit."""

    class Model(Module):
        def __init__(self):
            self.first, self.head = Linear(32, 3, rng, dtype=F32), Linear(64, 2, rng, dtype=F32)
            self.gain = Parameter(rng.normal(size=5).astype(F32))

    model = Model()
    before = model.state_dict()
    save_file(impl.quantize_state(before, {"": "q4_0", "head": "q8_0"}), tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert sorted(found) == ["first.bias", "first.weight.q4_0", "gain", "head.bias", "head.weight.q8_0"]
    model.load_state_dict(impl.dequantize_state(found))
    for name, kind in (("first.weight", "q4_0"), ("head.weight", "q8_0")):
        expected = slow_dequantize(slow_quantize(before[name], kind), kind)
        battery.check_equal(model.state_dict()[name], expected, 0)
        x = rng.normal(size=(2, before[name].shape[1]))
        got = impl.quantized_matmul(x, found[f"{name}.{kind}"], kind)
        blocks = slow_quantize(before[name], kind)
        battery.check_equal(got, slow_matmul(x, blocks, kind), 16, matmul_off(x, blocks, kind), F32)
    for name in ("first.bias", "head.bias", "gain"):
        assert np.array_equal(model.state_dict()[name], before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_is_larger_than_half_a_step(impl, rng, kind):
    """But for the entry of q4_0 that would need an 8, and the rounding of the scale itself (2**-11)."""
    x = (rng.normal(size=(50, 64)) ** 3).astype(F32)
    blocks = x.reshape(-1, 32).astype(float)
    step = np.abs(blocks).max(axis=1, keepdims=True) / STEPS[kind]
    off = np.abs(impl.dequantize(impl.quantize(x, kind), kind).reshape(-1, 32) - blocks) / step
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    beyond = -blocks * np.sign(largest) / step > 7.5 if kind == "q4_0" else np.zeros(blocks.shape, bool)
    slack = STEPS[kind] * 2.0**-11 + 1e-5
    assert (off[~beyond] <= 0.5 + slack).all()
    assert (off[beyond] <= 1 + slack).all()
    assert off.max() > 0.45


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_their_definition(impl, rng, kind):
    cases = [*value_cases(rng, kind), *shape_cases(rng)]
    cases.sort(key=lambda case: case.arguments[0].size)
    battery.sweep(by_kind(impl.quantize, kind), by_kind(slow_quantize, kind), cases, ulps=0, dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_worth_is_its_definition(impl, rng, kind):
    cases = sorted(block_cases(rng, kind), key=lambda case: case.arguments[0].size)
    with np.errstate(all="ignore"):  # infinity times 0
        battery.sweep(
            by_kind(impl.dequantize, kind), by_kind(slow_dequantize, kind), cases, ulps=0, dtype=F32
        )


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_their_definition(impl, rng, kind):
    cases = sorted(matmul_cases(rng, kind), key=lambda case: sum(each.size for each in case.arguments))
    battery.sweep(
        by_kind(impl.quantized_matmul, kind),
        by_kind(slow_matmul, kind),
        cases,
        ulps=16,
        magnitude=by_kind(matmul_off, kind),
        dtype=F32,
    )


def test_another_machine_and_day_change_nothing(impl, rng):
    x, state = rng.normal(size=(2, 64)), model_state(rng)

    def everything():
        found = [impl.quantize(x, kind) for kind in KINDS]
        found += [impl.quantized_matmul(x, each, kind) for each, kind in zip(found, KINDS, strict=True)]
        return [*found, *impl.quantize_state(state, {"": "q4_0", "head": "q8_0"}).values()]

    before = everything()
    with elsewhere(impl):
        for one, other in zip(before, everything(), strict=True):
            assert np.array_equal(one, other)


def test_rows_are_those_of_the_array_whatever_its_order_in_memory(impl):
    x = np.arange(256.0).reshape(2, 2, 64)
    for kind in KINDS:
        expected = impl.quantize(x, kind)
        for other in (np.asfortranarray(x), x.transpose(1, 0, 2).copy().transpose(1, 0, 2)):
            assert np.array_equal(impl.quantize(other, kind), expected)


def test_blocks_of_a_state_are_bytes(impl):
    battery.refuses(impl.dequantize_state, {"w.q8_0": np.zeros((1, 34))})


def test_names_that_end_like_a_kind_come_back(impl):
    state = {"w.": np.ones((1, 32)), "q8": np.ones((1, 32)), "a.0": np.ones((1, 32))}
    assert impl.dequantize_state(impl.quantize_state(state, {"": "q8_0"})).keys() == state.keys()


def test_a_layer_of_blocks_keeps_nothing_of_the_floats(impl):
    linear = Linear(32, 1, np.random.default_rng(0))
    layer, weights = weakref.ref(linear), weakref.ref(linear.weight)
    kept = impl.QuantizedLinear(linear, "q8_0")
    del linear
    gc.collect()
    assert (kept(Tensor(np.ones((1, 32)))).shape, layer(), weights()) == ((1, 1), None, None)
