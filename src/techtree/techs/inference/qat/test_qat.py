"""Oracles: quantize and dequantize of the ancestor, gradients in closed form, identity of objects.

Rounding and its gradient are exact; what has a tolerance is sums of products.
"""

import copy
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.quantization import QuantizedLinear, dequantize, quantize
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.linear import Linear
from techtree.techs.training.sgd import SGD
from techtree.techs.training.train_loop import train

KINDS = ("q8_0", "q4_0")
STEPS = {"q8_0": 127, "q4_0": 8}
FLOATS = (np.float32, np.float64)


def worth(x, kind):
    """What the blocks of an array are worth, in float64."""
    return dequantize(quantize(x, kind), kind).astype(np.float64)


def fake_cases(rng, kind):
    """Arrays of many shapes, sizes and layouts; entries that are cut, that tie, and that are lost."""
    yield Case("one block", (rng.normal(size=32),))
    both = rng.integers(-3, 4, size=(4, 32)).astype(float)
    both[0, :2], both[1, :2], both[2], both[3, 5:7] = (8, -8), (-8, 8), 2.5, (4.0, -3.9)
    yield Case("the largest with both signs", (both,))
    yield Case("zeros", (np.zeros((2, 32)) * [[1], [-1]],))
    halves = np.arange(32) - 15.5
    halves[0] = -STEPS[kind]
    yield Case("half way between two steps", (halves.clip(-8, 6.5) if kind == "q4_0" else halves,))
    for size in (1e-44, 1e-30, 1e-8, 3e-7, 1e-6, 1e-5, 1e-3, 30.0, 1e5):
        yield Case(f"numbers of {size:g}", (size * rng.normal(size=(2, 32)).clip(-5, 5),))
    yield Case("heavy tails", (rng.normal(size=(3, 32)) ** 5,))
    for shape in [(0,), (0, 32), (3, 0), (1, 32), (3, 64), (2, 3, 96), (2, 1, 2, 1, 1, 2, 32), (130, 32)]:
        yield Case(f"shape {shape}", (rng.normal(size=shape),))
    for dtype in FLOATS:
        yield Case(f"dtype {np.dtype(dtype).name}", (rng.normal(size=(2, 64)).astype(dtype),))
    for layout, lay in battery.LAYOUTS.items():
        yield Case(layout, (lay(rng.normal(size=(3, 64)).astype(np.float32)),))
    for n in aim.sizes(at_most=1500):
        yield Case(f"{n} blocks in a row", (rng.normal(size=n * 32),))
        yield Case(f"{n} rows", (rng.normal(size=(n, 32)),))
    for number in (each for each in aim.NUMBERS if each < 5e5):
        for times in (1, 4):
            x = rng.uniform(-1.1, 1.1, size=(2, 32)) * number * times
            yield Case(f"values near {number:g}", (x,))


def layer_of(weight, bias=None):
    n_out, n_in = weight.shape
    linear = Linear(n_in, n_out, np.random.default_rng(0), bias is not None, dtype=weight.dtype.type)
    linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return linear


def drawn_layer(rng, n_in=32, n_out=3, has_bias=True, dtype=np.float64):
    return layer_of(
        rng.normal(size=(n_out, n_in)).astype(dtype),
        rng.normal(size=n_out).astype(dtype) if has_bias else None,
    )


class Part(Module):
    """A module with the given attributes."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        for each in vars(self).values():
            x = each(x) if isinstance(each, Module) else x
        return x


class OwnLinear(Linear):
    """A layer of somebody's own."""


def test_by_hand(impl):
    """The scale is 1: 7.9 would be 8 steps, and is cut; the gradient is the one that arrives."""
    w = np.zeros(32)
    w[:4] = [-8.0, 3.4, 7.9, 0.3]
    x = Tensor(w, requires_grad=True)
    y = impl.fake_quantize(x, "q4_0")
    assert y.data[:5].tolist() == [-8.0, 3.0, 7.0, 0.0, 0.0]
    g = np.arange(32) - 3.5
    y.backward(g)
    assert x.grad.tolist() == g.tolist()
    assert x.data.tolist() == w.tolist()
    x = Tensor(w * 127 / 8, requires_grad=True)
    impl.fake_quantize(x=x, kind="q8_0").backward(g)
    assert x.grad.tolist() == g.tolist()
    battery.check_equal(impl.fake_quantize(x, "q8_0").data[:3], [-127.0, 54.0, 125.0], 0)


def test_every_gradient_passes(impl, rng):
    """Of any size, also infinite or NaN."""
    sizes = [1e300, -1e6, 1e-300, 0.0, math.inf, -math.inf, math.nan, 5000.0]
    for dtype in FLOATS:
        with np.errstate(over="ignore"):
            g = np.array(sizes * 8, dtype).reshape(2, 32)
        for kind in KINDS:
            for x in (rng.normal(size=(2, 32)), np.zeros((2, 32)), np.full((2, 32), 1e-9)):
                x = Tensor(x.astype(dtype), requires_grad=True)
                impl.fake_quantize(x, kind).backward(g)
                assert np.array_equal(x.grad, g, equal_nan=True)
                assert x.grad.dtype == dtype


def test_a_loss_of_the_rounded_numbers(impl):
    """Its gradient is that of what was rounded, at the rounded place."""
    w = np.zeros((1, 32))
    w[0, :3] = [-8.0, 3.4, 7.9]
    x = Tensor(w, requires_grad=True)
    y = impl.fake_quantize(x, "q4_0")
    (y * y + 3.0 * x).sum().backward()
    assert x.grad[0, :4].tolist() == [-13.0, 9.0, 17.0, 3.0]


def test_no_gradient_where_none_is_wanted(impl, rng):
    x = rng.normal(size=(2, 32))
    for kind in KINDS:
        assert not impl.fake_quantize(Tensor(x), kind).requires_grad
        with no_grad():
            y = impl.fake_quantize(Tensor(x, requires_grad=True), kind)
        assert not y.requires_grad
        assert np.array_equal(y.data, worth(x, kind))
        assert impl.fake_quantize(Tensor(x, requires_grad=True), kind).requires_grad
        for wants in (True, False):  # new, also where nothing is rounded, and where there is nothing
            for again in (Tensor(y.data, requires_grad=wants), Tensor(y.data[:0], requires_grad=wants)):
                assert impl.fake_quantize(again, kind) is not again


def test_what_is_refused(impl, rng):
    for kind in KINDS:
        for shape in ((), (1,), (31,), (2, 33), (32, 16), (0, 5)):
            battery.refuses(impl.fake_quantize, Tensor(np.zeros(shape)), kind)
        for bad in (math.nan, math.inf, -math.inf, 1e39, 65_520.0 * STEPS[kind]):
            x = rng.normal(size=(2, 64))
            x[1, 40] = bad
            battery.refuses(impl.fake_quantize, Tensor(x), kind)
        for n_in in (1, 31, 48):
            battery.refuses(impl.QATLinear, drawn_layer(rng, n_in), kind)
        layer = impl.QATLinear(drawn_layer(rng, 64), kind)
        for shape in ((), (32,), (2, 96), (2, 63), (64, 2), (2, 0), (64, 1)):
            battery.refuses(layer, Tensor(rng.normal(size=shape)))
        battery.refuses(layer, Tensor(np.full(64, np.nan)))
        layer.weight.data[1, 2] = np.inf
        battery.refuses(layer, Tensor(np.ones(64)))
    for kind in ("", "q8", "Q4_0", "q4_1", "keep", "float32", None):
        battery.refuses(impl.fake_quantize, Tensor(np.zeros(32)), kind)
        battery.refuses(impl.QATLinear, drawn_layer(rng), kind)
        if kind != "keep":
            battery.refuses(impl.prepare, Part(first=drawn_layer(rng)), {"": kind})


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_has_the_parameters_of_the_other(impl, rng, kind):
    linear = drawn_layer(rng)
    before = linear.weight.data.copy(), linear.bias.data.copy()
    layer = impl.QATLinear(linear, kind)
    assert isinstance(layer, Linear)
    assert (layer.weight is linear.weight, layer.bias is linear.bias) == (True, True)
    assert layer.kind == kind
    assert type(linear) is Linear
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    layer(Tensor(rng.normal(size=(2, 32))))
    for bad in (0, 1, 2):  # what matters is what the weight is when it is used
        unfinished = drawn_layer(rng)
        unfinished.weight.data[bad] = np.nan
        assert impl.QATLinear(unfinished, kind).weight is unfinished.weight
        assert type(impl.prepare(Part(a=unfinished), {"": kind}).a) is impl.QATLinear
    assert np.array_equal(linear.weight.data, before[0])
    assert np.array_equal(linear.bias.data, before[1])
    assert linear.weight.grad is None
    plain = impl.QATLinear(kind=kind, linear=drawn_layer(rng, has_bias=False))
    assert plain.bias is None
    assert [name for name, _ in plain.named_parameters()] == ["weight"]


def layer_cases(rng):
    for shape in [(32,), (1, 32), (2, 64), (0, 64), (2, 3, 32), (2, 1, 2, 1, 1, 2, 32), (130, 32)]:
        yield Case(
            f"x {shape}", (rng.normal(size=shape), rng.normal(size=(3, shape[-1])), rng.normal(size=3))
        )
    for n_out in (1, 2, 33, 130):
        yield Case(
            f"{n_out} outputs",
            (rng.normal(size=(2, 32)), rng.normal(size=(n_out, 32)), rng.normal(size=n_out)),
        )
    yield Case("without a bias", (rng.normal(size=(2, 64)), rng.normal(size=(3, 64)), None))
    for dtype in FLOATS:
        arrays = (rng.normal(size=shape).astype(dtype) for shape in ((2, 5, 64), (3, 64), (3,)))
        yield Case(f"dtype {np.dtype(dtype).name}", tuple(arrays))
    x = rng.normal(size=(3, 64)) * np.exp(rng.normal(size=(3, 64)))
    yield Case("weights of many sizes", (x, rng.normal(size=(4, 64)) ** 3, 10 * rng.normal(size=4)))
    for n in aim.sizes(at_most=300):
        yield Case(f"{n} outputs", (rng.normal(size=(2, 32)), rng.normal(size=(n, 32)), rng.normal(size=n)))
        yield Case(f"{n} rows", (rng.normal(size=(n, 32)), rng.normal(size=(2, 32)), rng.normal(size=2)))
    for layout, lay in battery.LAYOUTS.items():
        x = lay(rng.normal(size=(3, 64)))
        yield Case(f"x {layout}", (x, rng.normal(size=(2, 64)), rng.normal(size=2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_definition(impl, rng, kind):
    """Both sides rounded, forwards; backwards each gradient meets the other side as it was rounded."""
    for case in sorted(layer_cases(rng), key=lambda case: case.arguments[0].size + case.arguments[1].size):
        x, weight, bias = case.arguments
        layer = impl.QATLinear(layer_of(weight, bias), kind)
        x_worth, w_worth = worth(x, "q8_0"), worth(weight, kind)
        expected = x_worth @ w_worth.T + (0 if bias is None else bias.astype(float))
        size = np.abs(x_worth) @ np.abs(w_worth).T + 10
        for switch in (layer.train, layer.eval):
            switch()
            kept, leaf = x.copy(), Tensor(x, requires_grad=True)
            layer.weight.grad = None
            if layer.bias is not None:
                layer.bias.grad = None
            y = layer(leaf)
            battery.check_equal(y, expected, 16, size, x.dtype, label=case.label)
            g = rng.normal(size=y.shape).astype(x.dtype)
            y.backward(g)
            flat, rows = g.reshape(-1, len(weight)).astype(float), x_worth.reshape(-1, x.shape[-1])
            found = [(leaf.grad, g.astype(float) @ w_worth, np.abs(g) @ np.abs(w_worth))]
            found += [(layer.weight.grad, flat.T @ rows, np.abs(flat).T @ np.abs(rows) + 1)]
            if bias is not None:
                found += [(layer.bias.grad, flat.sum(axis=0), np.abs(flat).sum(axis=0) + 1)]
            for number, (got, wanted, off) in enumerate(found):
                label = f"{case.label}: gradient number {number + 1} of x, weight, bias"
                battery.check_equal(got, wanted, 16, off, x.dtype, label=label)
            assert np.array_equal(x, kept)
            assert np.array_equal(layer.weight.data, weight)


def test_layers_read_what_they_hold_now(impl, rng):
    layer, x = impl.QATLinear(drawn_layer(rng), "q8_0"), rng.normal(size=(2, 32))

    def answers(kind):
        expected = worth(x, "q8_0") @ worth(layer.weight.data, kind).T
        expected += 0 if layer.bias is None else layer.bias.data
        battery.check_equal(layer(Tensor(x)), expected, 64, 10)

    answers("q8_0")
    layer.weight.data += rng.normal(size=(3, 32))
    layer.bias.data *= 2
    answers("q8_0")
    layer.kind = "q4_0"
    answers("q4_0")
    twin = copy.deepcopy(layer)
    twin.weight.data += 1
    answers("q4_0")
    layer.weight, layer.bias = Parameter(rng.normal(size=(3, 32))), None
    answers("q4_0")
    layer.load_state_dict({"weight": twin.weight.data})
    answers("q4_0")
    with no_grad():
        assert not layer(Tensor(x)).requires_grad
        answers("q4_0")
    loss = layer(Tensor(x)).sum() + layer(Tensor(2 * x)).sum()  # used twice: the gradients add up
    loss.backward()
    row = (worth(x, "q8_0") + worth(2 * x, "q8_0")).sum(axis=0)
    battery.check_equal(layer.weight.grad, np.tile(row, (3, 1)), 64, 10)


def model_of(rng):
    shared = drawn_layer(rng, 64)
    model = Part(
        table=Parameter(rng.normal(size=(5, 32))),
        first=drawn_layer(rng, has_bias=False),
        layers=[drawn_layer(rng), Part(inner=drawn_layer(rng, 64, 2), own=OwnLinear(32, 2, rng))],
        pair=(drawn_layer(rng), [shared, {"deep": (drawn_layer(rng),)}]),
        named={"a": drawn_layer(rng), 3: drawn_layer(rng, 33)},
        again=shared,
        number=7,
        nothing=None,
    )
    model.layers.append(model)  # a module may hold one that holds it
    return model


LAYERS = {
    "first": lambda m: m.first,
    "layers.0": lambda m: m.layers[0],
    "layers.1.inner": lambda m: m.layers[1].inner,
    "layers.1.own": lambda m: m.layers[1].own,
    "pair.0": lambda m: m.pair[0],
    "pair.1.0": lambda m: m.pair[1][0],
    "pair.1.1.deep.0": lambda m: m.pair[1][1]["deep"][0],
    "named.a": lambda m: m.named["a"],
    "named.3": lambda m: m.named[3],
}
ALL = {"first", "layers.0", "layers.1.inner", "pair.0", "pair.1.0", "pair.1.1.deep.0", "named.a"}
CHOICES = [
    ({}, {}),
    ({"": "q4_0"}, dict.fromkeys(ALL, "q4_0")),
    ({"": "q8_0", "layers": "keep"}, dict.fromkeys(ALL - {"layers.0", "layers.1.inner"}, "q8_0")),
    ({"first": "q8_0"}, {"first": "q8_0"}),
    ({"pair.1.0.weight": "q4_0", "named": "q8_0"}, {"pair.1.0": "q4_0", "named.a": "q8_0"}),
    (
        {"layers": "q8_0", "layers.1": "q4_0", "pair.1.1": "q8_0", "table": "q4_0"},
        {"layers.0": "q8_0", "layers.1.inner": "q4_0", "pair.1.1.deep.0": "q8_0"},
    ),
    ({"layers.1.own": "q4_0", "first.weight": "keep"}, {}),
]


@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_which_layers_are_prepared(impl, rng, number):
    kinds, chosen = CHOICES[number]
    model = model_of(rng)
    before = list(model.named_parameters())
    values = model.state_dict()
    for place, (_, each) in enumerate(before):
        each.grad, each.requires_grad = np.full(each.shape, place), place % 3 != number % 3
    is_training = model.eval().is_training if number % 2 else True
    given = dict(kinds)
    assert impl.prepare(model, given) is model
    assert given == kinds
    for place, (_, each) in enumerate(before):
        assert (each.grad == place).all()
        assert each.requires_grad == (place % 3 != number % 3)
    for each in (model, model.layers[1], model.layers[1].own, model.named[3]):
        assert each.is_training == is_training
    for name, find in LAYERS.items():
        layer = find(model)
        expected = impl.QATLinear if name in chosen else OwnLinear if name.endswith("own") else Linear
        assert (name, type(layer)) == (name, expected)
        if name in chosen:
            assert (name, layer.kind) == (name, chosen[name])
    assert model.again is model.pair[1][0]
    assert [type(each) for each in (model.layers, model.pair, model.named)] == [list, tuple, dict]
    assert list(model.named) == ["a", 3]
    assert model.layers[2] is model
    after = list(model.named_parameters())
    assert [name for name, _ in after] == [name for name, _ in before]
    assert all(one is other for (_, one), (_, other) in zip(before, after, strict=True))
    assert all(np.array_equal(values[name], each.data) for name, each in after)
    assert (model.number, model.nothing) == (7, None)


def test_preparing_step_by_step(impl, rng):
    """What is prepared stays; two models, and two layers of one weight, do not disturb each other."""
    model, other = Part(a=drawn_layer(rng), b=drawn_layer(rng)), Part(a=drawn_layer(rng))
    impl.prepare(model, {"a": "q8_0"})
    impl.prepare(model, {"": "q4_0"})
    assert (model.a.kind, model.b.kind) == ("q8_0", "q4_0")
    assert type(other.a) is Linear

    class Own(impl.QATLinear):
        pass

    other.own, kinds = Own(drawn_layer(rng), "q8_0"), {"": "q4_0"}
    impl.prepare(other, kinds)
    assert (type(other.own), other.own.kind, kinds) == (Own, "q8_0", {"": "q4_0"})
    tied = Part(table=Parameter(rng.normal(size=(3, 32))), a=drawn_layer(rng), b=drawn_layer(rng))
    tied.a.weight = tied.b.weight = tied.table
    impl.prepare(tied, {"table": "q8_0"})  # the first name of the weight
    assert (tied.a.kind, tied.b.kind) == ("q8_0", "q8_0")
    assert tied.a.weight is tied.b.weight is tied.table
    kept = tied.table.data.copy()
    impl.convert(tied)
    assert [name for name, _ in tied.named_parameters()] == ["table"]
    assert np.array_equal(tied.table.data, kept)
    empty = Part()
    assert impl.convert(impl.prepare(empty, {"": "q4_0"})) is empty


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_alone_is_a_model(impl, rng, kind):
    linear = drawn_layer(rng)
    weight, bias, x = linear.weight, linear.bias, Tensor(rng.normal(size=(2, 32)))
    layer = impl.prepare(linear, {"weight": kind})
    assert type(layer) is impl.QATLinear
    assert (layer.kind, layer.weight is weight, layer.bias is bias) == (kind, True, True)
    before = layer(x).data
    converted = impl.convert(layer)
    assert type(converted) is QuantizedLinear
    battery.check_equal(converted(x), before, 32, 10, np.float32)


def test_nothing_is_changed_by_what_is_refused(impl, rng):
    model = Part(a=drawn_layer(rng), inner=Part(b=drawn_layer(rng)))
    for kinds in (
        {"": "q4_0", "c": "q8_0"},
        {"a": "q4_0", "inner.c": "keep"},
        {"a": "q4_0", "inner": "q5_0"},
    ):
        battery.refuses(impl.prepare, model, kinds)
        assert (type(model.a), type(model.inner.b)) == (Linear, Linear)
    impl.prepare(model, {"": "q4_0"})
    for bad in (model.inner.b, model.a):
        kept = bad.weight.data.copy()
        bad.weight.data[2, 3] = np.nan
        battery.refuses(impl.convert, model)
        assert (type(model.a), type(model.inner.b)) == (impl.QATLinear, impl.QATLinear)
        assert len(list(model.parameters())) == 4
        bad.weight.data[...] = kept
    impl.convert(model)
    assert type(model.inner.b) is QuantizedLinear


@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_what_converting_gives(impl, rng, number):
    kinds, chosen = CHOICES[number]
    model = impl.prepare(model_of(rng), kinds)
    for each in model.parameters():
        each.data *= 1.1  # trained
    layers = {name: find(model) for name, find in LAYERS.items()}
    state = {name: (each.weight.data.copy(), each.bias) for name, each in layers.items()}
    state = {name: (w, None if b is None else b.data.copy()) for name, (w, b) in state.items()}
    left = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in chosen]
    x = {name: rng.normal(size=(2, each.weight.shape[1])) for name, each in layers.items()}
    before = {name: each(Tensor(x[name])).data for name, each in layers.items()}
    is_training = model.eval().is_training if number % 2 else True
    model.table.grad = np.ones(model.table.shape)
    assert impl.convert(model) is model
    assert (model.table.grad == 1).all()
    assert model.table.requires_grad
    for each in (model, model.layers[1], model.layers[1].own, model.named[3]):
        assert each.is_training == is_training
    for name, find in LAYERS.items():
        layer, (weight, bias) = find(model), state[name]
        if name in chosen:
            assert (name, type(layer), layer.kind) == (name, QuantizedLinear, chosen[name])
            assert np.array_equal(layer.blocks, quantize(weight, chosen[name]))
            assert (layer.bias is None) == (bias is None)
            if bias is not None:
                battery.check_equal(layer.bias, bias, 1, dtype=np.float32)
            got = layer(Tensor(x[name]))
            off = np.abs(worth(x[name], "q8_0")) @ np.abs(worth(weight, chosen[name])).T + 10
            battery.check_equal(got, before[name], 16, off, np.float32, label=f"{name} answers as before")
            assert list(layer.parameters()) == []
        else:
            assert type(layer) is (OwnLinear if name.endswith("own") else Linear)
            assert np.array_equal(layer(Tensor(x[name])).data, before[name])
    assert model.again is model.pair[1][0]
    assert model.layers[2] is model
    assert [name for name, _ in model.named_parameters()] == left


def test_what_converting_leaves(impl, rng):
    """Plain layers, layers of other classes, and what was converted before."""

    class Own(impl.QATLinear):
        pass

    bias = drawn_layer(rng)
    model = Part(a=drawn_layer(rng), own=Own(drawn_layer(rng), "q4_0"), b=impl.QATLinear(bias, "q8_0"))
    impl.convert(model)
    assert [type(each) for each in (model.a, model.own, model.b)] == [Linear, Own, QuantizedLinear]
    model.b.bias += 1
    assert not np.array_equal(bias.bias.data, model.b.bias)
    narrow = impl.QATLinear(drawn_layer(rng, dtype=np.float32), "q4_0")
    held, kept = narrow.bias, narrow.bias.data.copy()
    impl.convert(narrow).bias += 1
    assert np.array_equal(held.data, kept)
    converted = model.b
    impl.convert(impl.prepare(model, {"": "q4_0"}))
    assert model.b is converted
    assert model.b.kind == "q8_0"
    assert type(model.a) is QuantizedLinear


def test_states_go_from_one_to_the_other(impl, rng):
    model = Part(a=drawn_layer(rng), inner=Part(b=drawn_layer(rng, has_bias=False)))
    plain = model.state_dict()
    impl.prepare(model, {"": "q4_0"})
    assert list(model.state_dict()) == list(plain) == ["a.weight", "a.bias", "inner.b.weight"]
    other = Part(a=drawn_layer(rng), inner=Part(b=drawn_layer(rng, has_bias=False)))
    other.load_state_dict(model.state_dict())
    model.load_state_dict({name: 2 * each for name, each in plain.items()})
    for name, each in model.state_dict().items():
        assert np.array_equal(each, 2 * plain[name])
        assert np.array_equal(other.state_dict()[name], plain[name])


def squares(model, batch):
    x, y = batch
    error = model(Tensor(x)) - y
    return (error * error).sum(), y.size


class Batches:
    """The same examples for ever."""

    def __init__(self, rng):
        self.x = rng.normal(size=(40, 32))
        self.y = self.x @ rng.normal(size=(32, 2))

    def next_batch(self):
        return self.x, self.y

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_run_goes_on_through_the_rounding(impl, rng):
    """Float, prepared, trained on by the same optimizer, converted: weights move, the loss is kept."""
    batches = Batches(rng)
    model = Part(only=drawn_layer(rng, n_out=2))
    optimizer = AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
    train(model, squares, optimizer, batches, 5)
    impl.prepare(model, {"": "q4_0"})
    kept = model.state_dict()
    losses = train(model, squares, optimizer, batches, 20)
    assert losses[-1] < losses[0]
    assert min(np.abs(each - kept[name]).min() for name, each in model.state_dict().items()) > 0
    with no_grad():
        before = float(squares(model, batches.next_batch())[0].data)
        after = float(squares(impl.convert(model), batches.next_batch())[0].data)
    assert abs(after - before) < 1e-4 * before


def test_what_a_rounded_away_update_adds_up_to(impl):
    """Updates far below a step are kept, and change the rounded weight once they cross its threshold."""
    w = np.zeros((1, 32))
    w[0, :2] = [-8.0, 3.0]
    layer, x = impl.QATLinear(layer_of(w), "q4_0"), np.zeros((1, 32))
    x[0, 1] = 127.0
    optimizer = SGD([layer.weight], lr=0.1 / 127)
    found = []
    for _ in range(8):
        optimizer.zero_grad()
        y = layer(Tensor(x))
        found.append(float(y.data[0, 0]) / 127)
        y.backward(-np.ones((1, 1)))
        optimizer.step()
    assert found == [3.0] * 5 + [4.0] * 3 or found == [3.0] * 6 + [4.0] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_its_definition(impl, rng, kind):
    cases = sorted(fake_cases(rng, kind), key=lambda case: case.arguments[0].size)
    battery.sweep(lambda x: impl.fake_quantize(Tensor(x), kind), lambda x: worth(x, kind), cases, ulps=0)
    battery.sweep_gradients(
        lambda x: impl.fake_quantize(x, kind),
        lambda g, x: [g],
        cases,
        tensor=lambda x: Tensor(x, requires_grad=True),
        rng=rng,
        ulps=0,
    )


def test_another_machine_and_day_change_nothing(impl, rng):
    x, weights = rng.normal(size=(2, 32)), rng.normal(size=(3, 32))

    def everything():
        model = impl.prepare(Part(a=layer_of(weights)), {"a": "q4_0"})
        found = [impl.fake_quantize(Tensor(x), kind).data for kind in KINDS] + [model(Tensor(x)).data]
        return [*found, impl.convert(model)(Tensor(x)).data]

    before = everything()
    with elsewhere(impl):
        for one, other in zip(before, everything(), strict=True):
            assert np.array_equal(one, other)


def test_a_weight_that_is_nan_alone_is_refused(impl):
    layer = impl.QATLinear(Linear(32, 1, np.random.default_rng(0)), "q8_0")
    for bad in (math.nan, math.inf, -math.inf):
        layer.weight.data[0, 0] = bad
        battery.refuses(layer, Tensor(np.zeros(32)))


def test_weights_are_read_anew_also_when_their_sum_stays(impl):
    linear = Linear(32, 1, np.random.default_rng(0), has_bias=False)
    linear.weight.data[:] = 0
    linear.weight.data[0, :2] = -8, 3
    layer, x = impl.QATLinear(linear, "q4_0"), Tensor(np.eye(32)[0])
    first = float(layer(x).data[0])
    layer.weight.data[0, :2] = 3, -8
    assert np.allclose([first, float(layer(x).data[0])], [-8, 3], atol=0.01)  # the scale is a float16


def test_a_model_may_be_a_layer_and_hold_a_list_twice(impl):
    alone = Linear(32, 1, np.random.default_rng(0))
    assert impl.prepare(alone, {}) is alone

    class Twice(Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = [Linear(32, 1, np.random.default_rng(0))]

    model = Twice()
    assert impl.prepare(model, {"": "q8_0"}) is model
    assert isinstance(model.a[0], impl.QATLinear)
    assert model.b[0] is model.a[0]
