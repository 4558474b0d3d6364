"""Oracles: the map in loops with `math.fsum`, its gradients in closed form, moments of known distributions.

A test of a distribution allows six standard errors, which a right version exceeds once in 500 million times.
"""

import copy
import functools
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, where
from techtree.techs.battery import MismatchError, refuses
from techtree.techs.elsewhere import elsewhere


def made(impl, weight, bias=None, dtype=np.float64):
    """Return a layer with these numbers."""
    weight = np.asarray(weight, dtype)
    n_out, n_in = weight.shape
    layer = impl.Linear(n_in, n_out, np.random.default_rng(0), has_bias=bias is not None, dtype=dtype)
    state = {"weight": weight} | ({} if bias is None else {"bias": np.asarray(bias, dtype)})
    layer.load_state_dict(state)
    return layer


def close(got, expected, tolerance=1e-12):
    assert np.shape(got) == np.shape(expected)
    assert np.isfinite(got).all()
    assert np.abs(np.asarray(got) - expected).max(initial=0.0) <= tolerance


def test_by_hand(impl):
    """Two units of three inputs: a row for each unit."""
    layer = made(impl, [[1.0, 2.0, 3.0], [10.0, 0.0, -10.0]], [0.5, -0.5])
    x = Tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0]], requires_grad=True)
    y = layer(x)
    assert y.data.tolist() == [[6.5, -0.5], [7.5, -10.5]]
    y.backward([[1.0, 0.0], [2.0, 1.0]])
    assert layer.weight.grad.tolist() == [[3.0, 1.0, 5.0], [1.0, 0.0, 2.0]]
    assert layer.bias.grad.tolist() == [3.0, 1.0]
    assert x.grad.tolist() == [[1.0, 2.0, 3.0], [12.0, 4.0, -4.0]]


def test_without_bias(impl):
    layer = made(impl, [[1.0, 2.0], [3.0, 4.0]])  # square, so that a transposed weight would fit
    assert layer.bias is None
    assert layer(Tensor([1.0, 10.0])).data.tolist() == [21.0, 43.0]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_what_a_layer_holds(impl, rng):
    layer = impl.Linear(3, 5, rng)
    assert isinstance(layer, Module)
    assert [(name, each.shape) for name, each in layer.named_parameters()] == [
        ("weight", (5, 3)),
        ("bias", (5,)),
    ]
    for each in (layer.weight, layer.bias):
        assert isinstance(each, Parameter)
        assert each.requires_grad
        assert each.dtype == np.float64
    assert (layer.bias.data == 0).all()
    assert len(set(layer.weight.data.ravel().tolist())) == 15
    for dtype in (np.float16, np.float32):
        layer = impl.Linear(3, 5, rng, dtype=dtype)
        assert layer.weight.dtype == dtype
        assert layer.bias.dtype == dtype
        assert layer(Tensor(np.ones((2, 3), dtype))).dtype == dtype
    with no_grad():
        layer = impl.Linear(3, 5, rng)
    assert layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_every_option_alone_and_together(impl):
    """By name and by place."""
    for has_bias in (True, False):
        for gain in (1.0, 0, 2.5, 1e-3):
            for dtype in battery.FLOATS:
                options = {"has_bias": has_bias, "gain": gain, "dtype": dtype}
                plain = impl.Linear(4, 3, np.random.default_rng(3), has_bias=has_bias, dtype=dtype)
                expected = plain.weight.data.astype(np.float64) * gain
                layers = [
                    impl.Linear(4, 3, np.random.default_rng(3), **options),
                    impl.Linear(4, 3, np.random.default_rng(3), has_bias, gain, dtype),
                    impl.Linear(n_out=3, rng=np.random.default_rng(3), n_in=4, **options),
                ]
                for layer in layers:
                    label = f"Linear(4, 3, rng, {options})"
                    battery.check_equal(layer.weight.data, expected, 8, dtype=dtype, label=label)
                    assert (layer.bias is not None) == has_bias, label
                    if has_bias:
                        battery.check_equal(layer.bias.data, np.zeros(3), 0, dtype=dtype, label=label)
                    assert layer(Tensor(np.ones((2, 4), dtype))).dtype == dtype, label


def test_layers_share_nothing(impl):
    first, second = (impl.Linear(3, 3, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(first.weight.data, second.weight.data)
    first.weight.data += 1
    first.bias.data += 1
    assert (second.bias.data == 0).all()
    assert not np.array_equal(first.weight.data, second.weight.data)
    assert (impl.Linear(3, 3, np.random.default_rng(0)).bias.data == 0).all()


def test_parameters_may_be_changed_and_exchanged(impl, rng):
    """An optimizer changes them in place; a layer may take another one's weight for its own."""
    layer, other = made(impl, [[1.0, 2.0]], [3.0]), made(impl, [[5.0, 7.0]], [0.5])
    x = Tensor([[1.0, 1.0]])
    assert layer(x).data.tolist() == [[6.0]]
    layer.weight.data *= 10
    layer.bias.data -= 1
    assert layer(x).data.tolist() == [[32.0]]
    layer.weight, layer.bias = other.weight, other.bias
    y = layer(x)
    assert y.data.tolist() == [[12.5]]
    y.backward(np.ones((1, 1)))
    assert other.weight.grad.tolist() == [[1.0, 1.0]]
    assert other.bias.grad.tolist() == [1.0]


def test_a_layer_in_use(impl, rng):
    """First without the tape, in training or not; its numbers are replaced, it is copied, saved, loaded."""
    layer = made(impl, [[1.0, 2.0], [3.0, 4.0]], [0.5, -0.5])
    x = Tensor([[1.0, 10.0]])
    with no_grad():
        assert layer(x).data.tolist() == [[21.5, 42.5]]
    for switch in (layer.train, layer.eval, layer.train):
        switch()
        layer.weight.grad = layer.bias.grad = None
        y = layer(x)
        assert y.data.tolist() == [[21.5, 42.5]]
        y.backward(np.array([[1.0, 2.0]]))
        assert layer.weight.grad.tolist() == [[1.0, 10.0], [2.0, 20.0]]
        assert layer.bias.grad.tolist() == [1.0, 2.0]
    layer.weight.data, layer.bias.data = np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([1.0, 0.0])
    assert layer(x).data.tolist() == [[12.0, 20.0]]
    twin = copy.deepcopy(layer)
    twin.weight.data += 1
    assert layer(x).data.tolist() == [[12.0, 20.0]]
    assert twin(x).data.tolist() == [[23.0, 31.0]]
    layer.load_state_dict(twin.state_dict())
    assert layer(x).data.tolist() == [[23.0, 31.0]]
    for still, moving in ((layer.weight, layer.bias), (layer.bias, layer.weight)):
        still.requires_grad, still.grad, moving.grad = False, None, None
        layer(x).sum().backward()
        assert still.grad is None
        assert moving.grad is not None
        still.requires_grad = True
    for each in (layer.weight, layer.bias):
        each.requires_grad = False
    assert not layer(x).requires_grad
    leaf = Tensor([[1.0, 10.0]], requires_grad=True)
    layer(leaf).sum().backward()
    assert leaf.grad.tolist() == [[3.0, 5.0]]


def test_layers_are_classes_like_others(impl, rng):
    class Doubled(impl.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    class Pair(Module):
        def __init__(self):
            self.first, self.second = impl.Linear(2, 3, rng), Doubled(3, 1, rng, has_bias=False)

        def forward(self, x):
            return self.second(self.first(x))

    pair = Pair()
    names = [name for name, _ in pair.named_parameters()]
    assert names == ["first.weight", "first.bias", "second.weight"]
    w, v, x = pair.first.weight.data, pair.second.weight.data, rng.normal(size=(4, 2))
    close(pair(Tensor(x)).data, 2 * (x @ w.T) @ v.T)


def test_what_is_not_finite_stays_in_its_row(impl):
    layer = made(impl, [[1.0, 2.0], [3.0, 4.0]], [0.5, 0.25])
    with np.errstate(all="ignore"):
        y = layer(Tensor([[np.nan, 1.0], [1.0, 1.0], [np.inf, 1.0], [-1e200, 0.0]])).data
    assert np.isnan(y[0]).all()
    assert y[1:].tolist() == [[3.5, 7.25], [np.inf, np.inf], [-1e200, -3e200]]


def test_the_hundredth_call_is_like_the_first(impl, rng):
    layer, x = impl.Linear(3, 2, rng), Tensor(rng.normal(size=(2, 3)))
    first = layer(x).data.tolist()
    for number in range(2, 2 + max(aim.sizes(100, at_most=3000))):
        assert layer(x).data.tolist() == first, f"call {number} gives something else"
    found = [impl.Linear(2, 1, rng) for _ in range(max(aim.sizes(100, at_most=1000)))]
    for number, each in enumerate(found):
        assert each(Tensor([1.0, 2.0])).data[0] == pytest.approx(each.weight.data @ [1.0, 2.0]), number
    assert len({each.weight.data[0, 0] for each in found}) == len(found)


def test_gradients_add_up_over_uses(impl):
    """Outside, [1, 1] meets [3, 6], what came from inside; inside, [2, 1], sums of columns, meet [1, 5]."""
    layer = made(impl, [[2.0, 0.0], [0.0, 1.0]], [1.0, 1.0])
    x = Tensor([1.0, 5.0])
    layer(layer(x)).sum().backward()
    assert layer.weight.grad.tolist() == [[3.0 + 2.0, 6.0 + 10.0], [3.0 + 1.0, 6.0 + 5.0]]
    assert layer.bias.grad.tolist() == [1.0 + 2.0, 1.0 + 1.0]
    with no_grad():
        assert not layer(x).requires_grad
    assert layer(x).requires_grad


def slow(x, weight, bias=None):
    flat = x.reshape(-1, x.shape[-1])
    y = [[math.fsum(row * unit) for unit in weight] for row in flat]
    y = np.array(y).reshape(*x.shape[:-1], len(weight))
    return y if bias is None else y + bias


def slow_gradients(g, x, weight, bias=None):
    rows, flat = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    of_x = np.array([[math.fsum(row * column) for column in weight.T] for row in rows]).reshape(x.shape)
    of_weight = np.array([[math.fsum(a * b) for b in flat.T] for a in rows.T])
    return [of_x, of_weight] + ([] if bias is None else [np.array([math.fsum(a) for a in rows.T])])


def many_rows(rng, spec):
    """Thousands of rows, and as many as the source under test names."""
    shapes = {"i": (2,), "o": (3,), "...": [(n,) for n in aim.sizes(1100, at_most=10_000)]}
    found = battery.cases(rng, spec, sizes=shapes, layouts=(), dtypes=())
    return [case for case in found if "axes" in case.label]


def test_the_map_is_its_definition_everywhere(impl, rng):
    def function(x, weight, *bias):
        return made(impl, weight, *bias, dtype=x.dtype.type)(Tensor(x))

    sizes = {"i": (1, 2, 7, 33, 130), "o": (1, 2, 7, 33, 130), "...": [(1,), (0,), (2, 3), (2, 1, 3), (140,)]}
    special = {
        "large": lambda shape: rng.normal(size=shape) * 1e4,
        "tiny": lambda shape: rng.normal(size=shape) * 1e-4,
        "equal": np.ones,
        "zeros": np.zeros,
    }

    def size(x, weight, *bias):
        bound = np.abs(x).max(initial=0) * np.abs(weight).max(initial=0) * math.sqrt(x.shape[-1])
        return bound + sum(np.abs(each).max(initial=0) for each in bias)

    for spec in ("... i, o i, o", "... i, o i"):
        found = battery.cases(rng, spec, sizes=sizes, values=special, at_most=20_000, largest=1e3)
        found += battery.cases(rng, spec.replace("o", "i"), sizes=sizes, at_most=5000)  # square weights
        found += many_rows(rng, spec)
        # Products are added in any order: a few units of their typical sum.
        battery.sweep(function, slow, found, ulps=32, magnitude=size)


def test_gradients_are_their_definition_everywhere(impl, rng):
    def function(x, weight, bias):
        layer = impl.Linear(weight.shape[1], weight.shape[0], np.random.default_rng(0), dtype=x.dtype.type)
        layer.weight, layer.bias = weight, bias
        return layer(x)

    def tensor(x):
        return Parameter(x)

    def size(x, weight, bias):
        return (
            4
            * (np.abs(x).max(initial=0) + np.abs(weight).max(initial=0) + 1)
            * math.sqrt(x.size + weight.size)
        )

    sizes = {"i": (1, 2, 7, 130), "o": (1, 2, 7, 130), "...": [(1,), (0,), (2, 3), (2, 1, 3), (140,)]}
    found = battery.cases(rng, "... i, o i, o", sizes=sizes, at_most=20_000, largest=1e3)
    found += many_rows(rng, "... i, o i, o")
    found += battery.cases(rng, "... i, i i, i", sizes=sizes, at_most=5000)  # square weights
    battery.sweep_gradients(function, slow_gradients, found, tensor=tensor, rng=rng, ulps=16, magnitude=size)


def test_what_is_refused(impl, rng):
    layers = [impl.Linear(3, 4, rng), impl.Linear(3, 4, rng, has_bias=False), impl.Linear(1, 4, rng)]
    for layer in layers:
        wrong = [(), (2,), (4,), (6,), (2, 4), (3, 2), (3, 4), (1, 6), (5, 0), (0,), (0, 4), (0, 0)]
        wrong += [(n,) for n in aim.sizes(5000, at_most=20_000) if n > 3]
        for shape in [*wrong, (3, 3, 5), (2, 3, 1, 2)]:
            refuses(layer, Tensor(np.ones(shape)))
        with no_grad():
            refuses(layer, Tensor(np.ones((2, 4))))
    for shape in [(1,), (2, 1), (3, 1), (0, 1)]:
        refuses(layers[0], Tensor(np.ones(shape)))
    layers[0].bias = layers[2].bias
    refuses(layers[0], Tensor(np.ones((2, 1))))
    least = [(0, 3), (3, 0), (0, 0), (-1, 3), (3, -2), (-2, -3), (1, 0), (0, 1), (-1, 1), (1, -1)]
    for n_in, n_out in [*least, (-5000, 2), (2, -5000), (-(2**40), 1)]:
        for make in (impl.Linear, impl.fan_in_normal, impl.fan_average_uniform, impl.orthogonal):
            refuses(make, n_in, n_out, rng)
            refuses(make, n_in, n_out, rng, gain=0.0)
        refuses(impl.Linear, n_in, n_out, rng, has_bias=False)


def draw_of_layer(impl):
    return lambda n_in, n_out, rng, **options: impl.Linear(n_in, n_out, rng, **options).weight.data


def draws(impl):
    return {
        "fan_in_normal": impl.fan_in_normal,
        "Linear": draw_of_layer(impl),
        "fan_average_uniform": impl.fan_average_uniform,
        "orthogonal": impl.orthogonal,
    }


def test_shapes_and_where_randomness_comes_from(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    for draw in draws(impl).values():
        for n_in, n_out in [(1, 1), (1, 6), (6, 1), (4, 7), (7, 4), (5, 5)]:
            w = draw(n_in, n_out, np.random.default_rng(1))
            assert isinstance(w, np.ndarray)
            assert w.shape == (n_out, n_in)
            assert w.dtype == np.float64
            assert w.flags.writeable
            assert np.array_equal(w, draw(n_in, n_out, np.random.default_rng(1)))
            if n_in * n_out > 1:
                assert not np.allclose(w, draw(n_in, n_out, np.random.default_rng(2)))
        rng = np.random.default_rng(1)
        assert not np.allclose(draw(4, 7, rng), draw(4, 7, rng))
        # A generator that has been used gives other numbers, and is left further on.
        rng, twin = np.random.default_rng(1), np.random.default_rng(1)
        draw(4, 7, rng)
        assert rng.random() != twin.random()
        # Any generator, anywhere.
        for kind in (np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM):
            one, other = (np.random.Generator(kind(5)) for _ in range(2))
            w = draw(4, 7, one)
            with elsewhere(impl):
                assert np.array_equal(draw(4, 7, other), w)
            assert not np.allclose(draw(4, 7, one), w)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_no_draw_comes_twice(impl):
    """What reseeds a generator of its own by a number of a few bits repeats itself."""
    for name, draw in draws(impl).items():
        if name != "orthogonal":
            n, rng = max(aim.sizes(2500, at_most=6000)), np.random.default_rng(7)
            first = [float(draw(1, 1, rng)[0, 0]) for _ in range(n)]
            first += [float(draw(1, 1, np.random.default_rng(seed))[0, 0]) for seed in range(100, 400)]
            assert len(set(first)) == len(first), f"{name}: {len(first) - len(set(first))} numbers come twice"
            continue
        rng = np.random.default_rng(7)
        angles = np.array([float(draw(2, 2, rng)[0, 0]) for _ in range(3000)])
        assert len(set(angles)) == len(angles), f"{name}: {len(angles) - len(set(angles))} come twice"
        fourfold = (8 * angles**4 - 8 * angles**2 + 1).mean()  # of the cosine of four times the angle
        near(fourfold, 0, 6 / math.sqrt(2 * len(angles)), f"{name}(2, 2, rng): diagonals against axes")


@pytest.mark.parametrize("name", ["fan_in_normal", "Linear", "fan_average_uniform"])
def test_small_draws_vary_in_every_way(impl, name):
    """Nothing makes the sum of a draw, of a row or of a column 0, or its length a fixed one."""
    n, shape = 500, (3, 4)
    deviation = math.sqrt(2 / 7 if name == "fan_average_uniform" else 1 / 4)
    rng = np.random.default_rng(11)
    z = np.array([draws(impl)[name](4, 3, rng) for _ in range(n)]) / deviation
    assert z.shape == (n, *shape)
    # The square has the variance 2 for normal numbers, 4/5 for uniform ones.
    spread = math.sqrt(0.8 if name == "fan_average_uniform" else 2)
    for axes, count in (((1, 2), 12), ((1,), 3), ((2,), 4)):
        for each, what in ((z, "sum"), ((z * z - 1) / spread, "sum of squares")):
            sums = each.sum(axis=axes) / math.sqrt(count)
            # Of variance 1; squares of sums of squares have a variance of at most 2 + 12 / count.
            got, allowed = (sums**2).mean(), 6 * math.sqrt(6 / sums.size)
            near(got, 1, allowed, f"{name}(4, 3, rng), {n} times: the {what} over axes {axes} varies by")
    products = np.einsum("nij,nkl->ijkl", z, z).reshape(12, 12) / n
    near(products[np.triu_indices(12, 1)], 0, 6 / math.sqrt(n), f"{name}(4, 3, rng): products of two entries")
    for size in aim.sizes(72, 300, at_most=3000):
        deviation = math.sqrt(2 / (1 + size) if name == "fan_average_uniform" else 1)
        z = np.array([draws(impl)[name](1, size, rng) for _ in range(n)]).reshape(n, size) / deviation
        for each, what in ((z, "sum"), ((z * z - 1) / spread, "sum of squares")):
            got, allowed = (each.sum(axis=1) ** 2 / size).mean(), 6 * math.sqrt(6 / n)
            near(got, 1, allowed, f"{name}(1, {size}, rng), {n} times: the {what} varies by")


def near(got, expected, allowed, what):
    """Require numbers to be as near as chance allows."""
    got = np.atleast_1d(got)
    off = np.abs(got - expected)
    if not (off <= allowed).all():
        worst = float(got.ravel()[np.nanargmax(np.where(np.isnan(off), np.inf, off))])
        facts = [f"expected {expected:.6g} within {allowed:.3g}", f"yours    {worst:.6g}"]
        raise MismatchError(what, facts)


@pytest.mark.parametrize("name", ["fan_in_normal", "Linear", "fan_average_uniform"])
def test_weights_of_every_size(impl, name):
    """The size of the numbers, of both halves along each axis; and no number twice."""
    rng = np.random.default_rng(13)
    for size in aim.sizes(1, 2, 3, 33, 300, 1100, 5000, at_most=50_000):
        other = max(2, 1500 // size)
        for n_in, n_out in ((size, other), (other, size)):
            what = f"{name}({n_in}, {n_out}, rng)"
            w = draws(impl)[name](n_in, n_out, rng)
            is_uniform = name == "fan_average_uniform"
            variance, fourth = (2 / (n_in + n_out), 9 / 5) if is_uniform else (1 / n_in, 3.0)
            z = w / math.sqrt(variance)
            if is_uniform:
                near(np.abs(z).max(), 0, math.sqrt(3) * (1 + 1e-12), f"{what}: the largest number")
            near((z**4).mean(), fourth, 6 * math.sqrt(96 / z.size), f"{what}: the mean fourth power")
            assert len(np.unique(np.abs(z))) == z.size, f"{what}: a number comes twice"
            for axis in (0, 1):
                half = z.shape[axis] // 2
                one, two = (np.take(z, places, axis) for places in (range(half), range(half, 2 * half)))
                parts = {"all": z, "the first half": one, "the second half": two}
                for part, of in parts.items():
                    if of.size:
                        where_ = f"{what}, {part} along axis {axis}"
                        near((of**2).mean(), 1, 6 * math.sqrt(2 / of.size), f"{where_}: the mean square")
                        near(of.mean(), 0, 6 / math.sqrt(of.size), f"{where_}: the mean")
                for turned in (two, np.flip(two, axis), np.flip(two)):
                    allowed = 6 / math.sqrt(max(one.size, 1))
                    near((one * turned).mean() if one.size else 0, 0, allowed, f"{what}: halves, axis {axis}")


@pytest.mark.parametrize("name", ["fan_in_normal", "Linear"])
def test_normal_numbers_have_no_limit(impl, name):
    """Of a million, 63 are beyond four deviations."""
    w = draws(impl)[name](1000, 1000, np.random.default_rng(17)) * math.sqrt(1000)
    n_far = int((np.abs(w) > 4).sum())
    what = f"{name}(1000, 1000, rng)"
    near(n_far, 63.3, 6 * math.sqrt(63.3), f"{what}: numbers beyond four deviations")
    near(w.mean(), 0, 6 / 1000, f"{what}: the mean, over the deviation")
    near((w**2).mean(), 1, 6 * math.sqrt(2) / 1000, f"{what}: the mean square, over the variance")


def test_gain_is_a_factor(impl):
    gains = [0.0, 0, 0.5, 3.0, 7, 1e-6, 1e6, np.float64(1.25)]
    gains += [each * number for number in aim.NUMBERS for each in (0.9, 1.1) if number <= 1e6]
    for draw in draws(impl).values():
        w = draw(4, 7, np.random.default_rng(1))
        for gain in gains:
            close(draw(4, 7, np.random.default_rng(1), gain=gain), w * gain, 1e-14 * gain)
    for draw in (impl.fan_in_normal, impl.fan_average_uniform, impl.orthogonal):
        got = draw(4, 7, np.random.default_rng(1), 2.5)
        close(got, draw(4, 7, np.random.default_rng(1), gain=2.5))
        assert got.dtype == np.float64
    layer = impl.Linear(4, 7, np.random.default_rng(0), gain=0)
    assert (layer(Tensor(np.ones((2, 4)))).data == 0).all()


def moments(w):
    """Mean, mean square, and mean fourth power relative to it, of all entries."""
    square = (w**2).mean()
    return w.mean(), square, (w**4).mean() / square**2


@pytest.mark.parametrize("name", ["fan_in_normal", "Linear"])
@pytest.mark.parametrize(("n_in", "n_out", "gain"), [(400, 60, 1.0), (3, 4000, 1.0), (300, 80, 2.0)])
def test_normal_weights(impl, rng, name, n_in, n_out, gain):
    options = {} if gain == 1 else {"gain": gain}  # 1 is the default
    w = draws(impl)[name](n_in, n_out, rng, **options) * (math.sqrt(n_in) / gain)
    mean, square, fourth = moments(w)
    n = w.size  # the moments of a normal number are 0, 1, 3, of variance 1, 2, 96
    assert abs(mean) < 6 / math.sqrt(n)
    assert abs(square - 1) < 6 * math.sqrt(2 / n)
    assert abs(fourth - 3) < 6 * math.sqrt(24 / n)
    assert 3 < np.abs(w).max() < 7  # nothing is cut off
    assert len(np.unique(w)) == n
    # Rows and columns are independent: products of two have the mean 0 and the variance 1.
    for a in (w, w.T):
        product = (a[:-1] * a[1:]).mean()
        assert abs(product) < 6 / math.sqrt(n)
        sums = (a.sum(axis=1) ** 2 / a.shape[1]).mean()
        assert abs(sums - 1) < 6 * math.sqrt(2 / len(a)) + 6 / math.sqrt(n)
    gram = w[:20] @ w[:20].T / n_in
    off = gram[np.triu_indices(20, 1)] * math.sqrt(n_in)
    assert abs((off**2).mean() - 1) < 6 * math.sqrt(2.5 / len(off)) + 6 / math.sqrt(n_in)


@pytest.mark.parametrize(("n_in", "n_out", "gain"), [(400, 60, 1.0), (25, 960, 1.0), (300, 80, 2.0)])
def test_uniform_weights(impl, rng, n_in, n_out, gain):
    w = impl.fan_average_uniform(n_in, n_out, rng, gain=gain) / (gain * math.sqrt(6 / (n_in + n_out)))
    mean, square, fourth = moments(w)
    n = w.size  # uniform in [-1, 1]: mean square 1/3, fourth power 1/5, of variance 4/45 and 16/225
    assert np.abs(w).max() <= 1 + 1e-12
    assert w.max() > 0.999
    assert w.min() < -0.999
    assert abs(mean) < 6 * math.sqrt(1 / 3 / n)
    assert abs(square - 1 / 3) < 6 * math.sqrt(4 / 45 / n)
    assert abs(fourth - 9 / 5) < 6 * math.sqrt(2 / n)
    assert len(np.unique(w)) == n
    for a in (w, w.T):
        assert abs((a[:-1] * a[1:]).mean()) < 6 / 3 / math.sqrt(n)


def test_orthogonal_weights_keep_lengths(impl, rng):
    sizes = [(1, 1), (5, 5), (3, 8), (8, 3), (1, 4), (4, 1), (130, 40), (60, 140), (2, 3000), (3000, 2)]
    for size in aim.sizes(at_most=5000):
        sizes += [(size, 2), (2, size)] + ([(size, size)] if size <= 300 else [])
    for n_in, n_out in sizes:
        for gain in (1.0, 2.5):
            w = impl.orthogonal(n_in, n_out, rng, gain=gain) / gain
            assert w.shape == (n_out, n_in)
            gram = w @ w.T if n_out <= n_in else w.T @ w
            close(gram, np.eye(min(n_in, n_out)), 1e-13 * max(n_in, n_out))


def test_large_orthogonal_weights_prefer_no_direction(impl):
    sizes = [(1, 30), (30, 1), (20, 20), (20, 7), (7, 20), (9, 8), (2, 200)]
    for size in aim.sizes(at_most=130):
        sizes += [(size, size), (2, size), (size, 2)]
    rng = np.random.default_rng(19)
    for n_in, n_out in sizes:
        n, length, what = 120, max(n_in, n_out), f"orthogonal({n_in}, {n_out}, rng)"
        drawn = np.array([impl.orthogonal(n_in, n_out, rng) for _ in range(n)]) * math.sqrt(length)
        near(drawn.mean(axis=0), 0, 6 / math.sqrt(n), f"{what}, {n} times: the mean of an entry")
        near((drawn**2).mean(axis=0), 1, 6 * math.sqrt(2 / n), f"{what}, {n} times: an entry's mean square")
        fourth = (drawn**4).mean()
        expected = 3 * length / (length + 2)
        # Entries of one draw are hardly correlated; a permutation would have the length itself.
        allowed = 6 * math.sqrt(96 / (n * min(n_in, n_out))) + 1e-12
        near(fourth, expected, allowed, f"{what}, {n} times: the mean fourth power")
        corners = drawn[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        if min(n_in, n_out) > 1:
            products = np.einsum("na,nb->ab", corners, corners)[np.triu_indices(4, 1)] / n
            near(products, 0, 9 / math.sqrt(n), f"{what}, {n} times: products of corners")


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (2, 2), (3, 3), (2, 4), (4, 2)])
def test_orthogonal_weights_prefer_no_direction(impl, rng, n_in, n_out):
    """QR as it comes prefers negative diagonals; a rotation alone never mirrors."""
    n, length = 600, max(n_in, n_out)
    drawn = np.array([impl.orthogonal(n_in, n_out, rng) for _ in range(n)])
    mean, square, fourth = (np.mean(drawn**power, axis=0) for power in (1, 2, 4))
    # An entry has the variance 1 / length; its square, in this many dimensions, less than 1 / length.
    assert np.abs(mean).max() < 6 * math.sqrt(1 / length / n)
    assert np.abs(square - 1 / length).max() < 6 * math.sqrt(1 / length / n)
    # On a sphere fourth powers average 3 / (n (n + 2)), eighth ones 105 / (n (n + 2) (n + 4) (n + 6)).
    of_fourth = 3 / (length * (length + 2))
    of_eighth = 35 * of_fourth / ((length + 4) * (length + 6))
    assert np.abs(fourth - of_fourth).max() <= 6 * math.sqrt((of_eighth - of_fourth**2) / n) + 1e-12
    if n_in == n_out:
        assert abs(np.linalg.det(drawn).mean()) < 6 / math.sqrt(n)
    if length > 1:  # two entries of a row or column are not correlated
        first, second = drawn[:, 0, 0], drawn[:, 0, -1] if n_in > 1 else drawn[:, -1, 0]
        assert abs((first * second).mean()) < 6 / length / math.sqrt(n) * 2
        flat = drawn.reshape(n, -1)
        products = (flat.T @ flat / n)[np.triu_indices(n_in * n_out, 1)]
        near(products, 0, 9 / length / math.sqrt(n), f"orthogonal({n_in}, {n_out}, rng): products of entries")


def relu(x):
    return where(x.data > 0, x, 0.0)


GAINS = {
    "identity": (lambda x: x, 1.0),
    "three times": (lambda x: x * 3, 1 / 3),
    "a tenth, negative": (lambda x: x * -0.1, 10.0),
    "relu": (relu, math.sqrt(2)),
    "relu of -x": (lambda x: relu(-x), math.sqrt(2)),
    "leaky relu": (lambda x: where(x.data > 0, x, x * 0.1), math.sqrt(2 / 1.01)),
    "absolute value": (lambda x: where(x.data > 0, x, -x), 1.0),
    "square": (lambda x: x * x, 1 / math.sqrt(3)),
    "plus 1": (lambda x: x + 1, 1 / math.sqrt(2)),
    "constant": (lambda x: x * 0 + 2, 0.5),
    "cube": (lambda x: x * x * x, 1 / math.sqrt(15)),
    "fourth power": (lambda x: x**4, 1 / math.sqrt(105)),
    "a million times": (lambda x: x * 1e6, 1e-6),
    "a millionth": (lambda x: x * 1e-6, 1e6),
    "exponential": (Tensor.exp, math.exp(-1)),
    "step": (lambda x: where(x.data > 0, 1.0, x * 0), math.sqrt(2)),
    "sign": (lambda x: x * 0 + np.sign(x.data), 1.0),
    # E[(z - 1)**2, z > 1] = 2 P(z > 1) - density(1)
    "relu of x - 1": (lambda x: relu(x - 1), (math.erfc(math.sqrt(0.5)) - 0.24197072451914337) ** -0.5),
    "wave": (lambda x: x * 0 + np.sin(3 * x.data), math.sqrt(2 / (1 - math.exp(-18)))),
    # E[tanh(z)**2] and E[silu(z)**2]: sums over z = np.linspace(-12, 12, 2_000_001).
    "tanh": (Tensor.tanh, 0.39429449039**-0.5),
    "silu": (lambda x: x * ((x * 0.5).tanh() + 1) * 0.5, 0.35577551981**-0.5),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains(impl, name):
    f, expected = GAINS[name]
    got = impl.gain_of(f)
    assert isinstance(got, float)
    assert impl.gain_of(f) == pytest.approx(got, rel=1e-3)
    assert got == pytest.approx(expected, rel=1e-3)


class Multiple:
    """Equal to all of its kind, and in no set: a function that changes."""

    __hash__ = None

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        return True

    def __call__(self, x):
        assert isinstance(x, Tensor)
        return x * self.factor


def test_gains_of_any_callable(impl):
    """Functions of one name, objects, parts of functions: the gain is that of what is called now."""
    for factor in (2.0, 4.0, 0.5):

        def curve(x, factor=factor):
            return x * factor

        for f in (curve, functools.partial(curve), functools.partial(lambda k, x: x * k, factor)):
            assert impl.gain_of(f) == pytest.approx(1 / factor, rel=1e-3)
        assert impl.gain_of(Multiple(factor)) == pytest.approx(1 / factor, rel=1e-3)
    changing = Multiple(2.0)
    for factor in (2.0, 5.0):
        changing.factor = factor
        assert impl.gain_of(changing) == pytest.approx(1 / factor, rel=1e-3)


def test_gains_leave_the_tape_as_it_was(impl):
    def fails(x):
        raise KeyError("a function that fails")

    leaf = Tensor([1.0], requires_grad=True)
    impl.gain_of(lambda x: x * leaf)
    refuses(impl.gain_of, fails, error=KeyError)
    assert (leaf * 2).requires_grad
    assert leaf.grad is None
    with no_grad():
        impl.gain_of(Tensor.tanh)
        assert not (leaf * 2).requires_grad


def test_gains_keep_the_mean_square(impl, rng):
    """Through ten layers; without the gain each layer of ReLU halves it, ten leave 1/1024."""
    gain = impl.gain_of(relu)
    x = Tensor(rng.normal(size=(20, 150)))
    with no_grad():
        for _ in range(10):
            x = impl.Linear(150, 150, rng, gain=gain)(relu(x))
    # A layer's mean square varies by about sqrt(5 / 150) of itself, ten layers' by 58 %.
    assert 0.1 < (x.data**2).mean() < 10
