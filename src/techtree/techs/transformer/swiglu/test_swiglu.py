"""Oracles: values by hand, the formula in matrices with gradients in closed form, fractions for the width."""

import math
from fractions import Fraction

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.training.linear import Linear

LAYERS = ("gate", "up", "down")


def empty(impl, parameters):
    """Return a layer for these parameters: three weights, or each of them followed by a bias."""
    has_bias = len(parameters) == 6
    hidden, width = parameters[0].shape
    dtype = parameters[0].dtype.type
    return impl.SwiGLU(width, hidden, np.random.default_rng(0), has_bias=has_bias, dtype=dtype)


def names_of(parameters):
    parts = ("weight", "bias") if len(parameters) == 6 else ("weight",)
    return [(layer, part) for layer in LAYERS for part in parts]


def made(impl, *parameters):
    module = empty(impl, parameters)
    state = {
        f"{layer}.{part}": each for (layer, part), each in zip(names_of(parameters), parameters, strict=True)
    }
    module.load_state_dict(state)
    return module


def parts(x, *parameters):
    """Return the three weights and biases, what the gate and the up layer give, and the gate's sigmoid."""
    weights, biases = (parameters[::2], parameters[1::2]) if len(parameters) == 6 else (parameters, (0, 0, 0))
    gate, up = (x @ w.T + b for w, b in zip(weights[:2], biases[:2], strict=True))
    sigmoid = np.exp(-np.logaddexp(0, -gate))
    return weights, biases, gate, up, sigmoid


def slow(x, *parameters):
    weights, biases, gate, up, sigmoid = parts(x, *parameters)
    return (gate * sigmoid * up) @ weights[2].T + biases[2]


def slow_gradients(g, x, *parameters):
    weights, _, gate, up, sigmoid = parts(x, *parameters)
    rows = tuple(range(x.ndim - 1))
    inner = g @ weights[2]
    of_gate = inner * up * sigmoid * (1 + gate * (1 - sigmoid))
    of_up = inner * gate * sigmoid
    arriving, entering = (of_gate, of_up, g), (x, x, gate * sigmoid * up)
    found = [of_gate @ weights[0] + of_up @ weights[1]]
    for a, e in zip(arriving, entering, strict=True):
        found.append(a.reshape(-1, a.shape[-1]).T @ e.reshape(-1, e.shape[-1]))
        if len(parameters) == 6:
            found.append(a.sum(axis=rows))
    return found


def test_the_oracles_gradients_are_those_of_its_values():
    rng = np.random.default_rng(5)
    shapes = [(2, 3), (4, 3), (4,), (4, 3), (4,), (3, 4), (3,)]
    arrays, g = [rng.normal(size=shape) for shape in shapes], rng.normal(size=(2, 3))
    expected = battery.numerical_gradients(lambda *a: float((g * slow(*a)).sum()), *arrays)
    for got, wanted in zip(slow_gradients(g, *arrays), expected, strict=True):
        assert np.abs(got - wanted).max() < 1e-7


def size(x, *parameters):
    """Return the size of all terms that are added."""
    weights, biases, *_ = parts(x, *parameters)
    gate, up = (np.abs(x) @ np.abs(w).T + np.abs(b) for w, b in zip(weights[:2], biases[:2], strict=True))
    return (gate * up) @ np.abs(weights[2]).T + np.abs(biases[2])


def gradients_size(x, *parameters):
    weights, biases, *_ = parts(x, *parameters)
    gate, up = (
        (np.abs(x) @ np.abs(w).T + np.abs(b)).max(initial=0)
        for w, b in zip(weights[:2], biases[:2], strict=True)
    )
    most = [np.abs(w).sum(axis=0).max() for w in weights]
    inner = most[2] * (1 + gate) * (1 + up)
    return (
        4
        * (1 + inner * (most[0] + most[1]) + (inner + gate * up) * (1 + np.abs(x).max(initial=0)))
        * (math.sqrt(1 + x.size / x.shape[-1]))
    )


PLAIN, WITH_BIASES = "... w, h w, h w, w h", "... w, h w, h, h w, h, w h, w"
SIZES = {"w": (1, 2, 7, 33, 130), "h": (1, 2, 3, 7, 33, 130)}
LEADING = [(1,), (0,), (2, 3), (3, 2), (2, 1, 3, 1), (2, 1, 2, 1, 1, 2), (140,)]


def found_cases(rng, spec):
    more = [((2, 1) * n)[:n] for n in aim.whole(3, 16)] + [(n,) for n in aim.sizes(at_most=3000)]
    values = {
        "zeros": np.zeros,
        "zeros of both signs": lambda shape: np.where(np.arange(math.prod(shape)) % 2, 0.0, -0.0).reshape(
            shape
        ),
        "ones": np.ones,
        "large": lambda shape: 30 * rng.normal(size=shape),
        "very large": lambda shape: 2000 * rng.normal(size=shape),
        "tiny": lambda shape: 1e-5 * rng.normal(size=shape),
        "one far out": lambda shape: np.concatenate([np.full(math.prod(shape) - 1, 0.5), [100]]).reshape(
            shape
        ),
        "above 0": lambda shape: np.abs(rng.normal(size=shape)),
        "below 0": lambda shape: -np.abs(rng.normal(size=shape)),
    }
    return battery.cases(
        rng, spec, sizes={**SIZES, "...": [*LEADING, *more]}, values=values, at_most=3000, largest=1e6
    )


def test_by_hand(impl):
    """Gates of 0 and log 3: silu is 0 and 3/4 log 3; the other layer gives 4 times the token, less 1."""
    parameters = ([[1.0]], [0.0], [[4.0]], [-1.0], [[8.0]], [2.0])
    module = made(impl, *map(np.array, parameters))
    log = math.log(3)
    x = Tensor([[0.0], [log]], requires_grad=True)
    y = module(x)
    battery.check_equal(y, [[2.0], [2 + 6 * log * (4 * log - 1)]])
    y.backward(np.array([[1.0], [0.0]]))
    # At 0 the slope of silu is 1/2, so the product changes by 1/2 times -1, and 8 times that comes out.
    battery.check_equal(x.grad, [[-4.0], [0.0]])
    assert module.down.bias.grad.tolist() == [1.0]
    assert module.down.weight.grad.tolist() == [[0.0]]


def test_gates_far_out(impl):
    """Open gates let all pass, shut ones nothing; nothing overflows."""
    module = made(impl, np.array([[1.0]]), np.array([[1.0]]), np.array([[1.0]]))
    for far in (40.0, 100.0, 600.0, 800.0, 1e4, 1e10):
        x = Tensor([[far], [-far]], requires_grad=True)
        y = module(x)
        battery.check_equal(y, [[far * far], [far * far * math.exp(-far)]], ulps=64, label=f"x = {far}")
        y.backward(np.ones((2, 1)))
        battery.check_equal(x.grad, [[2 * far], [0.0]], ulps=8, magnitude=100, label=f"x = {far}")
    for low, sigmoid in [(-5.0, 1 / (1 + math.exp(5))), (-20.0, 1 / (1 + math.exp(20)))]:
        battery.check_equal(module(Tensor([[low]])), [[low * low * sigmoid]], label=f"x = {low}")


def test_what_a_layer_holds(impl, rng):
    module = impl.SwiGLU(3, 5, rng)
    assert isinstance(module, Module)
    expected = [("gate.weight", (5, 3)), ("up.weight", (5, 3)), ("down.weight", (3, 5))]
    assert [(name, each.shape) for name, each in module.named_parameters()] == expected
    for name in LAYERS:
        assert isinstance(getattr(module, name), Linear)
        assert getattr(module, name).bias is None
    module = impl.SwiGLU(3, 5, rng, has_bias=True)
    expected = [f"{name}.{part}" for name in LAYERS for part in ("weight", "bias")]
    assert [name for name, _ in module.named_parameters()] == expected
    assert [each.shape for each in module.parameters()] == [(5, 3), (5,), (5, 3), (5,), (3, 5), (3,)]
    assert all((getattr(module, name).bias.data == 0).all() for name in LAYERS)
    for has_bias in (True, False):
        for dtype in battery.FLOATS:
            module = impl.SwiGLU(3, 5, rng, has_bias=has_bias, dtype=dtype)
            assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
            assert module(Tensor(np.ones((2, 3), dtype))).dtype == dtype
    assert {each.dtype for each in impl.SwiGLU(3, 5, rng).parameters()} == {np.dtype(float)}


SHAPES = [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (6, 6), (24, 64), (65, 130), (130, 7)]


@pytest.mark.parametrize("has_bias", [True, False])
def test_weights_are_drawn_in_order_and_the_gain_is_downs(impl, has_bias):
    extra = [(n, 3) for n in aim.sizes(at_most=2000)] + [(3, n) for n in aim.sizes(at_most=2000)]
    for place, (width, hidden) in enumerate(SHAPES + extra):
        gain = (1.0, 0.25, 3.0, 0.0)[place % 4]
        rng, twin = np.random.default_rng(3), np.random.default_rng(3)
        options = {} if gain == 1 else {"gain": gain}  # 1 is the default
        module = impl.SwiGLU(width, hidden, rng, has_bias=has_bias, **options)
        for name, n_in, n_out in [("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)]:
            layer = Linear(n_in, n_out, twin, gain=gain if name == "down" else 1.0)
            told = (name, width, hidden, gain)
            battery.check_equal(getattr(module, name).weight.data, layer.weight.data, ulps=4, label=str(told))
        assert rng.random() == twin.random()
        if gain == 0:
            assert (module(Tensor(np.ones((2, width)))).data == 0).all()


def test_layers_share_nothing_and_depend_on_their_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    x = Tensor(np.ones((2, 4)))
    one, other = (impl.SwiGLU(4, 6, np.random.default_rng(0), has_bias=True) for _ in range(2))
    with elsewhere(impl):
        third = impl.SwiGLU(4, 6, np.random.default_rng(0), has_bias=True)
        answer = third(x).data
    assert np.array_equal(answer, one(x).data)
    for mine, theirs, there in zip(one.parameters(), other.parameters(), third.parameters(), strict=True):
        assert np.array_equal(mine.data, theirs.data)
        assert np.array_equal(mine.data, there.data)
        mine.data += 1
        assert not np.array_equal(mine.data, theirs.data)
    rng = np.random.default_rng(0)
    first = impl.SwiGLU(4, 6, rng)
    state = rng.bit_generator.state
    for _ in range(2):
        first.train()(x)
        first.eval()(x)
    assert rng.bit_generator.state == state
    assert not np.array_equal(first.gate.weight.data, impl.SwiGLU(4, 6, rng).gate.weight.data)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("has_bias", [True, False])
def test_layers_may_be_changed_and_exchanged(impl, rng, has_bias):
    module = impl.SwiGLU(4, 4, rng, has_bias=has_bias)
    x = rng.normal(size=(3, 4))

    def check(told):
        expected = slow(x, *(each.data for each in module.parameters()))
        battery.check_equal(module(Tensor(x)), expected, 64, 100, label=told)

    check("at the start")
    for name in LAYERS:
        layer = getattr(module, name)
        layer.weight.data *= 2
        check(f"{name} changed in place")
        layer.weight.data = layer.weight.data - 1.0
        check(f"{name}'s array exchanged")
        layer.weight = Parameter(rng.normal(size=(4, 4)))
        if has_bias:
            layer.bias = Parameter(rng.normal(size=4))
        check(f"{name}'s parameters exchanged")
        setattr(module, name, Linear(4, 4, rng, has_bias=has_bias))
        check(f"{name} exchanged")
    before = module(Tensor(x)).data.copy()
    assert np.array_equal(module.eval()(Tensor(x)).data, before)
    assert np.array_equal(module.train()(Tensor(x)).data, before)


def test_gradients_flow_where_they_are_wanted(impl, rng):
    module, x = impl.SwiGLU(3, 5, rng, has_bias=True), rng.normal(size=(2, 3))
    g, leaf = rng.normal(size=(2, 3)), Tensor(x, requires_grad=True)
    (module(leaf) + module(leaf)).backward(g)
    parameters = [each.data for each in module.parameters()]
    expected = slow_gradients(2 * g, x, *parameters)
    for got, wanted in zip([leaf, *module.parameters()], expected, strict=True):
        battery.check_equal(got.grad, wanted, 64, 10)
    with no_grad():
        assert not module(leaf).requires_grad
    assert module(Tensor(x)).requires_grad
    for chosen in module.parameters():
        for each in module.parameters():
            each.grad, each.requires_grad = None, each is chosen
        module(Tensor(x)).backward(g)
        assert [each.grad is not None for each in module.parameters()] == [
            each is chosen for each in module.parameters()
        ]
    for each in module.parameters():
        each.requires_grad = False
    assert not module(Tensor(x)).requires_grad
    assert module(leaf).requires_grad


def test_the_backward_pass_belongs_to_its_own_call(impl, rng):
    """Two calls, the earlier one is asked last, with the same array."""
    module, g = impl.SwiGLU(3, 5, rng), rng.normal(size=(2, 3))
    leaves = [Tensor(rng.normal(size=(2, 3)), requires_grad=True) for _ in range(2)]
    results = [module(leaf) for leaf in leaves]
    for result in reversed(results):
        result.backward(g)
    parameters = [each.data for each in module.parameters()]
    for leaf in leaves:
        battery.check_equal(leaf.grad, slow_gradients(g, leaf.data, *parameters)[0], 64, 10)


def test_one_token_does_not_touch_another(impl, rng):
    x = rng.normal(size=(4, 3, 6))
    module = impl.SwiGLU(6, 8, rng)
    expected = module(Tensor(x)).data
    spoilt = x.copy()
    spoilt[1, 2] = np.nan
    with np.errstate(all="ignore"):
        got = module(Tensor(spoilt)).data
    others = np.ones((4, 3), bool)
    others[1, 2] = False
    battery.check_equal(got[others], expected[others], ulps=16, magnitude=10)
    for sample in range(4):
        battery.check_equal(module(Tensor(x[sample])), expected[sample], ulps=16, magnitude=10)
        battery.check_equal(module(Tensor(x[sample, 1])), expected[sample, 1], ulps=16, magnitude=10)


def test_what_is_refused(impl):
    for width, hidden in [(0, 4), (-1, 4), (4, 0), (4, -1), (0, 0), (-3, -3)]:
        for options in ({}, {"has_bias": True}, {"gain": 0.0}, {"dtype": np.float32}):
            rng = np.random.default_rng(0)
            battery.refuses(impl.SwiGLU, width, hidden, rng, **options)
    for width, hidden in [(1, 1), (1, 3), (3, 1), (3, 5), (4, 4)]:
        for has_bias in (True, False):
            module = impl.SwiGLU(width, hidden, np.random.default_rng(0), has_bias=has_bias)
            kept = module.state_dict()
            for shape in [
                (),
                (0,),
                (1,),
                (2,),
                (3,),
                (4,),
                (5,),
                (3, 1),
                (1, 2),
                (4, 5),
                (5, 0),
                (3, 4, 6),
                (1, 3),
            ]:
                if shape[-1:] != (width,):
                    battery.refuses(module, Tensor(np.ones(shape)))
            assert all(np.array_equal(kept[name], each) for name, each in module.state_dict().items())


def exact_width(width, multiple_of=64):
    """Count up in fractions: no multiple below is wide enough."""
    return math.ceil(Fraction(8, 3) * width / multiple_of) * multiple_of


def test_the_width_of_published_models(impl):
    """SmolLM2-135M and LLaMA 7B, 13B and 65B, whose widths are multiples of 256."""
    assert impl.hidden_width(576) == 1536
    assert impl.hidden_width(4096, multiple_of=256) == 11008
    assert impl.hidden_width(5120, 256) == 13824
    assert impl.hidden_width(8192, 256) == 22016


def test_the_width_everywhere(impl):
    found = [Case(f"{width}", (width,)) for width in range(1, 400)]
    for multiple_of in (1, 2, 3, 5, 8, 16, 32, 63, 64, 100, 128, 256, 1000, 4096):
        found += [
            Case("", (width,), {"multiple_of": multiple_of}) for width in (*range(1, 60), 96, 768, 1536)
        ]
    for number in (
        10**6,
        2**24,
        2**31,
        2**53,
        2**62,
        10**18,
        10**30,
        *(int(n) for n in aim.NUMBERS if n > 2),
    ):
        for width in (number - 1, number, number + 1, number + 2, 3 * number, 3 * number + 1):
            found += [Case("", (width, multiple)) for multiple in (1, 7, 64, 256)]
            found += [Case("", (width,)), Case("", (7, width))]
    battery.sweep_plain(impl.hidden_width, exact_width, found)


def test_widths_that_are_refused(impl):
    for width, multiple_of in [(0, 64), (-1, 64), (-64, 1), (64, 0), (64, -1), (1, -64), (0, 0), (-3, -1)]:
        battery.refuses(impl.hidden_width, width, multiple_of)
        battery.refuses(impl.hidden_width, width, multiple_of=multiple_of)
    battery.refuses(impl.hidden_width, 0)
    battery.refuses(impl.hidden_width, -100)


@pytest.mark.parametrize("spec", [PLAIN, WITH_BIASES])
def test_every_token_is_its_definition(impl, rng, spec):
    def function(x, *parameters):
        return made(impl, *parameters)(Tensor(x))

    battery.sweep(function, slow, found_cases(rng, spec), ulps=32, magnitude=size)


@pytest.mark.parametrize("spec", [PLAIN, WITH_BIASES])
def test_gradients_are_their_definition(impl, rng, spec):
    def function(x, *parameters):
        module = empty(impl, parameters)
        for (layer, part), each in zip(names_of(parameters), parameters, strict=True):
            setattr(getattr(module, layer), part, each)
        return module(x)

    found = [each for each in found_cases(rng, spec) if each.arguments[0].dtype != np.float16]
    battery.sweep_gradients(
        function, slow_gradients, found, tensor=Parameter, rng=rng, ulps=32, magnitude=gradients_size
    )
