"""Oracles: the map in loops with `math.fsum`, its gradients in closed form, moments of known distributions.

A test of a distribution allows six standard errors, which a right version exceeds once in 500 million times.
"""

import math

import numpy as np
import pytest

from techtree.techs import battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, where


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
        assert impl.Linear(3, 5, rng).weight.requires_grad


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
        found = battery.cases(rng, spec, sizes=sizes, values=special, at_most=5000)
        found += battery.cases(rng, spec.replace("o", "i"), sizes=sizes, at_most=5000)  # square weights
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
    found = battery.cases(rng, "... i, o i, o", sizes=sizes, at_most=5000)
    found += battery.cases(rng, "... i, i i, i", sizes=sizes, at_most=5000)  # square weights
    battery.sweep_gradients(function, slow_gradients, found, tensor=tensor, rng=rng, ulps=16, magnitude=size)


def test_what_is_refused(impl, rng):
    layers = [impl.Linear(3, 4, rng), impl.Linear(3, 4, rng, has_bias=False), impl.Linear(1, 4, rng)]
    for layer in layers:
        for shape in [(), (2,), (4,), (2, 4), (3, 2), (3, 4), (5, 0), (0,), (3, 3, 5)]:
            with pytest.raises(ValueError):  # noqa: PT011 - the message is free
                layer(Tensor(np.ones(shape)))
    for shape in [(1,), (2, 1)]:
        with pytest.raises(ValueError):  # noqa: PT011
            layers[0](Tensor(np.ones(shape)))
    for widths in [(0, 3), (3, 0), (0, 0), (-1, 3), (3, -2)]:
        for make in (impl.Linear, impl.fan_in_normal, impl.fan_average_uniform, impl.orthogonal):
            with pytest.raises(ValueError):  # noqa: PT011
                make(*widths, rng)


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
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_gain_is_a_factor(impl):
    for draw in draws(impl).values():
        w = draw(4, 7, np.random.default_rng(1))
        for gain in (0.0, 0.5, 3.0, 1e-6):
            close(draw(4, 7, np.random.default_rng(1), gain=gain), w * gain, 1e-14 * gain)
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
    for n_in, n_out in [(1, 1), (5, 5), (3, 8), (8, 3), (1, 4), (4, 1), (130, 40), (60, 140)]:
        for gain in (1.0, 2.5):
            w = impl.orthogonal(n_in, n_out, rng, gain=gain) / gain
            gram = w @ w.T if n_out <= n_in else w.T @ w
            close(gram, np.eye(min(n_in, n_out)), 1e-13 * max(n_in, n_out))


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
    # E[tanh(z)**2] and E[silu(z)**2]: sums over z = np.linspace(-12, 12, 2_000_001).
    "tanh": (Tensor.tanh, 0.39429449039**-0.5),
    "silu": (lambda x: x * ((x * 0.5).tanh() + 1) * 0.5, 0.35577551981**-0.5),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains(impl, name):
    f, expected = GAINS[name]
    got = impl.gain_of(f)
    assert isinstance(got, float)
    assert got == pytest.approx(expected, rel=1e-3)


def test_gains_keep_the_mean_square(impl, rng):
    """Through ten layers; without the gain each layer of ReLU halves it, ten leave 1/1024."""
    gain = impl.gain_of(relu)
    x = Tensor(rng.normal(size=(20, 150)))
    with no_grad():
        for _ in range(10):
            x = impl.Linear(150, 150, rng, gain=gain)(relu(x))
    # A layer's mean square varies by about sqrt(5 / 150) of itself, ten layers' by 58 %.
    assert 0.1 < (x.data**2).mean() < 10
