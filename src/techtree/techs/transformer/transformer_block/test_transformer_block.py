"""Oracles: the block in plain NumPy, gradients of its definition, numerical ones, values by hand."""

import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.training.activations import gelu_tanh, relu
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.mha import MultiHeadAttention

ATTENTION = ("query", "key", "value", "output")
ACTIVATIONS = {
    "relu": (relu, lambda x: np.maximum(x, 0)),
    "tanh": (Tensor.tanh, np.tanh),
    "its square": (lambda x: x * x, lambda x: x * x),
    "itself": (lambda x: x, lambda x: x),
}


def slow_gelu(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def linear_shapes(name, n_in, n_out, has_bias):
    return [(f"{name}.weight", (n_out, n_in)), *([(f"{name}.bias", (n_out,))] if has_bias else [])]


def of_feed_forward(width, hidden, has_bias=True, before=""):
    return [
        *linear_shapes(f"{before}up", width, hidden, has_bias),
        *linear_shapes(f"{before}down", hidden, width, has_bias),
    ]


def of_block(width, hidden=None, has_bias=True):
    """Names and shapes of a block's parameters, in order."""

    def norm(name):
        return [(f"{name}.{part}", (width,)) for part in (("weight", "bias") if has_bias else ("weight",))]

    found = norm("attention_norm")
    for name in ATTENTION:
        found += linear_shapes(f"attention.{name}", width, width, has_bias)
    hidden = 4 * width if hidden is None else hidden
    return found + norm("feed_forward_norm") + of_feed_forward(width, hidden, has_bias, "feed_forward.")


def cut(theta, shapes):
    """Take an array or tensor of all parameters apart."""
    found, start = {}, 0
    for name, shape in shapes:
        end = start + math.prod(shape)
        found[name], start = theta[start:end].reshape(*shape), end
    return found


def draw(rng, shapes, dtype=np.float64):
    """Norms' weights around 1, matrices that keep sizes."""
    parts = []
    for name, shape in shapes:
        values = rng.normal(size=shape)
        if len(shape) == 2:
            values /= math.sqrt(shape[1])
        parts.append((values + (name.endswith("norm.weight"))).ravel())
    return np.concatenate(parts).astype(dtype)


def place(module, values):
    """Put tensors where the parameters are."""
    for name, value in values.items():
        *path, last = name.split(".")
        owner = module
        for each in path:
            owner = getattr(owner, each)
        setattr(owner, last, value)
    return module


def slow_feed_forward(x, values, before="", f=slow_gelu):
    h = f(x @ values[f"{before}up.weight"].T + values.get(f"{before}up.bias", 0))
    return h @ values[f"{before}down.weight"].T + values.get(f"{before}down.bias", 0)


def slow_norm(x, values, name, eps):
    away = x - x.mean(axis=-1, keepdims=True)
    y = away / np.sqrt((away**2).mean(axis=-1, keepdims=True) + eps)
    return y * values[f"{name}.weight"] + values.get(f"{name}.bias", 0)


def slow_attention(x, values, mask, n_heads):
    """Head by head, row by row."""
    q, k, v = (
        x @ values[f"attention.{name}.weight"].T + values.get(f"attention.{name}.bias", 0)
        for name in ATTENTION[:3]
    )
    n, width = x.shape[-2:]
    seen = np.ones((n, n), bool) if mask is None else mask
    leading = np.broadcast_shapes(x.shape[:-2], seen.shape[:-2])
    answer = np.zeros((*leading, n, width))
    for head in range(n_heads):
        part = slice(head * width // n_heads, (head + 1) * width // n_heads)
        scores = q[..., part] @ k[..., part].swapaxes(-1, -2) / math.sqrt(width // n_heads)
        scores = np.where(seen, scores, -np.inf)
        most = scores.max(axis=-1, keepdims=True)
        e = np.exp(scores - np.where(np.isfinite(most), most, 0))
        total = e.sum(axis=-1, keepdims=True)
        answer[..., part] = e / np.where(total > 0, total, 1) @ v[..., part]
    return answer @ values["attention.output.weight"].T + values.get("attention.output.bias", 0)


def slow(x, theta, mask=None, *, n_heads=1, hidden=None, has_bias=True, eps=1e-5):
    values = cut(theta, of_block(x.shape[-1], hidden, has_bias))
    y = x + slow_attention(slow_norm(x, values, "attention_norm", eps), values, mask, n_heads)
    return y + slow_feed_forward(slow_norm(y, values, "feed_forward_norm", eps), values, "feed_forward.")


def as_defined(x, theta, mask=None, *, n_heads=1, hidden=None, has_bias=True, eps=1e-5):
    """Write the definition with the technologies that the block is made of, for its gradients."""
    width, rng = x.shape[-1], np.random.default_rng(0)
    values = cut(theta, of_block(width, hidden, has_bias))

    def module(name, made):
        own = [each for each in values if each.startswith(f"{name}.")]
        return place(made, {each.removeprefix(f"{name}."): values[each] for each in own})

    first = module("attention_norm", LayerNorm(width, eps, has_bias))
    attention = module("attention", MultiHeadAttention(width, n_heads, rng, has_bias))
    second = module("feed_forward_norm", LayerNorm(width, eps, has_bias))
    hidden = 4 * width if hidden is None else hidden
    up = module("feed_forward.up", Linear(width, hidden, rng, has_bias))
    down = module("feed_forward.down", Linear(hidden, width, rng, has_bias))
    y = x + attention(first(x), mask)
    return y + down(gelu_tanh(up(second(y))))


def slow_gradients(g, x, theta, mask=None, **options):
    leaves = [Parameter(x), Parameter(theta)]
    as_defined(*leaves, mask, **options).backward(g)
    return [each.grad for each in leaves]


def size_of(x, theta, mask=None, *, n_heads=1, hidden=None, has_bias=True, eps=1e-5):
    """The size of the terms added; rounding before a norm counts by how much the norm enlarges it."""
    values = cut(theta, of_block(x.shape[-1], hidden, has_bias))

    def largest(name):
        bias = np.abs(values.get(f"{name}.bias", np.zeros(1))).max()
        return np.abs(values[f"{name}.weight"]).sum(axis=-1).max(), bias

    def through(size, name):
        factor, bias = largest(name)
        return size * factor + bias

    def enlarged(rows):
        return 1 / math.sqrt(rows.var(axis=-1).min(initial=1) + eps)

    most = np.abs(x).max(initial=0)
    read = math.sqrt(x.shape[-1]) * np.abs(theta).max()
    q, k, v = (through(read, f"attention.{name}") for name in ATTENTION[:3])
    scores = q * k / math.sqrt(x.shape[-1] // n_heads)
    added = through(v, "attention.output") * (1 + min(scores, 1e3)) * (1 + most * enlarged(x))
    attended = slow_attention(slow_norm(x, values, "attention_norm", eps), values, mask, n_heads)
    inner = through(through(read, "feed_forward.up"), "feed_forward.down")
    return most + added + inner * (1 + (most + added) * enlarged(x + attended))


def gradients_size(x, theta, mask=None, **options):
    return (1 + size_of(x, theta, mask, **options)) ** 2


def random_mask(rng, shape):
    return rng.random(shape) < 2 / 3


def block_case(rng, label, n=3, width=4, leading=(), mask=None, dtype=np.float64, **options):
    shapes = of_block(width, options.get("hidden"), options.get("has_bias", True))
    x = rng.normal(size=(*leading, n, width)).astype(dtype)
    arguments = (x, draw(rng, shapes, dtype), *(() if mask is None else (mask,)))
    return Case(label, arguments, options)


def shape_cases(rng):
    """Widths, heads, hidden units, options, tokens, leading axes, masks; one thing is special in each."""
    yield block_case(rng, "one token of one number", 1, 1)
    yield block_case(rng, "one token", 1, 4, n_heads=2)
    yield block_case(rng, "ordinary", 3, 4, n_heads=2)
    for width, n_heads in [(1, 1), (2, 2), (3, 1), (6, 3), (12, 4), (132, 12)]:
        yield block_case(rng, f"{n_heads} heads of {width}", 2, width, n_heads=n_heads, hidden=5)
    for hidden in (1, 2, 4, 7, 16, 17, 130):
        for has_bias in (True, False):
            told = f"{hidden} hidden units, has_bias={has_bias}"
            yield block_case(rng, told, hidden=hidden, has_bias=has_bias, n_heads=4)
    for eps in (1e-12, 1e-6, 1e-3, 0.5, 4.0):
        yield block_case(rng, f"eps {eps}", eps=eps, n_heads=2)
        mask = random_mask(rng, (3, 3))
        yield block_case(rng, f"eps {eps}, all options", eps=eps, has_bias=False, hidden=3, mask=mask)
    for leading in [(1,), (2,), (0,), (1, 2), (2, 1), (2, 3), (3, 2, 1)]:
        yield block_case(rng, f"leading axes {leading}", leading=leading, n_heads=2)
        own = random_mask(rng, (*leading, 3, 3))
        yield block_case(rng, f"leading axes {leading}, masks", leading=leading, mask=own, n_heads=2)
    for shape in [(3, 3), (1, 3, 3), (2, 1, 3, 3), (4, 2, 3, 3)]:
        mask = random_mask(rng, shape)
        yield block_case(rng, f"a mask of {shape}", leading=(2,), mask=mask, n_heads=2)
    masks = {"all": np.ones((4, 4), bool), "none": np.zeros((4, 4), bool), "earlier": np.tri(4, dtype=bool)}
    masks |= {"later": np.tri(4, dtype=bool).T, "all but itself": ~np.eye(4, dtype=bool)}
    for name, mask in masks.items():
        yield block_case(rng, f"each sees {name}", 4, 6, mask=mask, n_heads=3)


def large_cases(rng):
    for n in aim.sizes(33, 130, at_most=600):
        yield block_case(rng, f"{n} tokens", n, 2, hidden=3, mask=np.tri(n, dtype=bool))
    for n in aim.sizes(at_most=300):
        yield block_case(rng, f"width {n}", 2, n, hidden=3)
        yield block_case(rng, f"{n} hidden units", 2, 2, hidden=n)
        yield block_case(rng, f"{n} samples", 2, 2, (n,), hidden=3)
    for n in aim.sizes(at_most=20_000):
        yield block_case(rng, f"leading axes {n} and 2", 1, 2, (n, 2), hidden=1)


def value_cases(rng):
    for dtype in battery.FLOATS:
        name = np.dtype(dtype).name
        yield block_case(rng, name, 5, 6, (2,), dtype=dtype, n_heads=2)
        mask = random_mask(rng, (5, 5))
        told = f"{name}, options"
        yield block_case(rng, told, 5, 6, mask=mask, dtype=dtype, n_heads=3, hidden=7, has_bias=False)
    for layout, lay in battery.LAYOUTS.items():
        x, theta = block_case(rng, "", 4, 4, (2,)).arguments
        mask = random_mask(rng, (2, 4, 4))
        yield Case(f"x {layout}", (lay(x), theta, mask), {"n_heads": 2})
        yield Case(f"mask {layout}", (x, theta, lay(mask)), {"n_heads": 2})
    for size in (0.0, 1e-9, 1e-3, 30.0, 1e3, 1e6):
        x, theta = block_case(rng, "").arguments
        yield Case(f"x times {size:g}", (size * x, theta), {"n_heads": 2})
        x, theta = block_case(rng, "", has_bias=False).arguments
        yield Case(f"x times {size:g}, no biases", (size * x, theta), {"n_heads": 2, "has_bias": False})
        if size:
            x, theta = block_case(rng, "").arguments
            yield Case(f"weights times {size**0.2:g}", (x, size**0.2 * theta), {"n_heads": 2})
    x, theta = block_case(rng, "", 1).arguments
    yield Case("equal tokens", (x.repeat(4, axis=0), theta, np.tri(4, dtype=bool)), {"n_heads": 2})
    yield Case("tokens of equal numbers", (np.repeat(x.T[:3], 4, axis=1), theta), {"n_heads": 2})


def made(impl, theta, width, *, n_heads=1, hidden=None, has_bias=True, eps=1e-5):
    options = {} if hidden is None else {"hidden": hidden}
    options |= {} if eps == 1e-5 else {"eps": eps}
    options |= {} if has_bias else {"has_bias": False}
    block = impl.TransformerBlock(width, n_heads, np.random.default_rng(0), **options, dtype=theta.dtype.type)
    values = cut(theta, of_block(width, hidden, has_bias))
    if isinstance(theta, Tensor):
        return place(block, values)
    block.load_state_dict(values)
    return block


def with_arrays(impl):
    def function(x, theta, mask=None, **options):
        return made(impl, theta, x.shape[-1], **options)(Tensor(x), mask)

    return function


def test_feed_forward_by_hand(impl):
    part = impl.FeedForward(1, 2, np.random.default_rng(0), activation=lambda x: x * x)
    state = {"up.weight": [[1.0], [2.0]], "up.bias": [0.0, 1.0], "down.weight": [[10.0, 1.0]]}
    part.load_state_dict(state | {"down.bias": [0.5]})
    assert part(Tensor([[3.0]])).data.tolist() == [[139.5]]
    assert part(Tensor([-1.0])).data.tolist() == [11.5]


def test_block_by_hand(impl):
    """Tokens [1, 7] and [7, 1]: normalized [-3, 3] / sqrt(9 + 7), and the negative; plain averages."""
    block = impl.TransformerBlock(2, 1, np.random.default_rng(0), hidden=1, has_bias=False, eps=7.0)
    one, none = np.eye(2), np.zeros((2, 2))
    state = {"attention_norm.weight": [4.0, 8.0], "attention.query.weight": none, "attention.key.weight": one}
    state |= {"attention.value.weight": one, "attention.output.weight": [[1.0, 0.0], [0.0, 2.0]]}
    state |= {"feed_forward_norm.weight": [1.0, 1.0]}
    state |= {"feed_forward.up.weight": [[0.0, 0.0]], "feed_forward.down.weight": [[1.0], [1.0]]}
    block.load_state_dict(state)
    x = Tensor([[1.0, 7.0], [7.0, 1.0]])
    assert block(x).data.tolist() == x.data.tolist()  # the average of both is 0
    alone = block(x, np.eye(2, dtype=bool)).data.tolist()
    assert alone == [[-2.0, 19.0], [10.0, -11.0]]  # [1, 7] + [-3, 2 * 6]
    state["feed_forward.up.weight"] = [[0.0, 1e6]]
    block.load_state_dict(state)
    got = block(x).data  # gelu(1e6 * 3/4) is 750,000, and of the negative 0
    assert got.tolist() == [[750_001.0, 750_007.0], [7.0, 1.0]]


def test_what_a_block_holds(impl, rng):
    for has_bias in (True, False):
        block = impl.TransformerBlock(6, 3, rng, has_bias=has_bias)
        held = [(name, each.shape) for name, each in block.named_parameters()]
        assert held == of_block(6, None, has_bias)
        part = impl.FeedForward(6, 5, rng, has_bias=has_bias)
        assert [(name, each.shape) for name, each in part.named_parameters()] == of_feed_forward(
            6, 5, has_bias
        )
        assert part.activation is gelu_tanh

    class Steep(Module):
        def __init__(self):
            self.slope = Parameter(np.ones(1))

        def forward(self, x):
            return x * self.slope

    steep = impl.FeedForward(6, 5, rng, activation=Steep())
    names = [name for name, _ in steep.named_parameters()]
    assert names == [*(name for name, _ in of_feed_forward(6, 5)), "activation.slope"]
    parts = ("attention_norm", "attention", "feed_forward_norm", "feed_forward")
    kinds = (LayerNorm, MultiHeadAttention, LayerNorm, impl.FeedForward)
    for name, kind in zip(parts, kinds, strict=True):
        assert isinstance(getattr(block, name), kind), name
    assert isinstance(block, Module)
    assert isinstance(part, Module)
    assert isinstance(part.up, Linear)
    assert isinstance(part.down, Linear)
    assert block.attention.n_heads == 3
    for hidden in (1, 5, 24, 25, 300):
        block = impl.TransformerBlock(6, 2, rng, hidden=hidden)
        assert [(name, each.shape) for name, each in block.named_parameters()] == of_block(6, hidden)
    for width in [1, 2, 3, 65, *aim.whole(3, 300)]:
        block = impl.TransformerBlock(width, 1, rng)
        assert block.feed_forward.up.weight.shape == (4 * width, width)
    for dtype in battery.FLOATS:
        for module in (
            impl.TransformerBlock(6, 2, rng, dtype=dtype),
            impl.FeedForward(6, 2, rng, dtype=dtype),
        ):
            assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
            assert module(Tensor(np.ones((2, 6), dtype))).dtype == dtype
    assert impl.TransformerBlock(2, 1, rng).attention.query.weight.dtype == np.float64


def test_what_is_drawn(impl):
    """The attention's weights, then up, then down; the gain is that of the two layers that write."""
    for width, n_heads, hidden, gain in [(1, 1, 1, 1.0), (6, 2, None, 0.25), (4, 4, 9, 3.0), (6, 3, 2, 0)]:
        for has_bias in (True, False):
            options = {} if gain == 1 else {"gain": gain}
            options |= {} if hidden is None else {"hidden": hidden}
            rng, twin = np.random.default_rng(5), np.random.default_rng(5)
            block = impl.TransformerBlock(width, n_heads, rng, has_bias=has_bias, **options)
            attention = MultiHeadAttention(width, n_heads, twin, gain=gain)
            up = Linear(width, hidden or 4 * width, twin)
            down = Linear(hidden or 4 * width, width, twin, gain=gain)
            found = [getattr(block.attention, name) for name in ATTENTION]
            wanted = [getattr(attention, name) for name in ATTENTION]
            for mine, theirs in zip(
                [*found, block.feed_forward.up, block.feed_forward.down], [*wanted, up, down], strict=True
            ):
                assert np.array_equal(mine.weight.data, theirs.weight.data)
                assert mine.bias is None if not has_bias else (mine.bias.data == 0).all()
            for norm in (block.attention_norm, block.feed_forward_norm):
                assert (norm.weight.data == 1).all()
                assert norm.bias is None if not has_bias else (norm.bias.data == 0).all()
            assert rng.random() == twin.random()
            rng, twin = np.random.default_rng(6), np.random.default_rng(6)
            options.pop("hidden", None)
            part = impl.FeedForward(width, 5, rng, has_bias=has_bias, **options)
            assert np.array_equal(part.up.weight.data, Linear(width, 5, twin).weight.data)
            assert np.array_equal(part.down.weight.data, Linear(5, width, twin, gain=gain).weight.data)
            assert rng.random() == twin.random()


def test_modules_share_nothing_and_depend_on_their_generator_alone(impl):
    def blocks():
        return [impl.TransformerBlock(4, 2, np.random.default_rng(0)) for _ in range(2)]

    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, other = blocks()
    start = one.state_dict()
    with elsewhere(impl):
        third = blocks()[0]
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    for name, each in third.state_dict().items():
        assert np.array_equal(each, start[name])
    for each in one.parameters():
        each.data += 1
    for name, each in other.state_dict().items():
        assert np.array_equal(each, start[name])
    rng = np.random.default_rng(0)
    first, second = (impl.FeedForward(3, 3, rng) for _ in range(2))
    assert not np.array_equal(first.up.weight.data, second.up.weight.data)
    pair = impl.FeedForward(3, 3, rng, activation=relu), impl.FeedForward(3, 3, rng, activation=Tensor.tanh)
    assert [each.activation for each in pair] == [relu, Tensor.tanh]


def test_gain_0_is_the_identity(impl, rng):
    x = rng.normal(size=(2, 3, 4))
    for has_bias in (True, False):
        block = impl.TransformerBlock(4, 2, rng, has_bias=has_bias, gain=0)
        y = block(Tensor(x))
        assert np.array_equal(y.data, x)
        assert not np.shares_memory(y.data, x)


def test_the_parts_are_used_as_they_are(impl, rng):
    """Other modules in their places, with sums that tell which one read what."""
    x = rng.normal(size=(3, 2))
    asked = []

    class Part(Module):
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x, mask=None):
            asked.append((self.factor, x.data.copy(), mask))
            return x * self.factor

    for mask in (None, np.tri(3, dtype=bool)):
        asked.clear()
        block = impl.TransformerBlock(2, 1, rng)
        block.attention_norm, block.attention = Part(3.0), Part(5.0)
        block.feed_forward_norm, block.feed_forward = Part(7.0), Part(11.0)
        battery.check_equal(block(Tensor(x), mask), 16 * x * 78)
        assert [factor for factor, _, _ in asked] == [3.0, 5.0, 7.0, 11.0]
        assert [each is None for _, _, each in asked] == [True, mask is None, True, True]
    assert np.array_equal(asked[1][2], mask)
    block.feed_forward = Part(0.0)
    battery.check_equal(block(Tensor(x)), 16 * x)
    part = impl.FeedForward(2, 3, rng)
    part.up, part.down, part.activation = Part(2.0), Part(3.0), lambda x: x + 1
    battery.check_equal(part(Tensor(x)), 3 * (2 * x + 1))


def test_calls_with_the_same_objects_are_computed_anew(impl, rng):
    """The same tensor, and masks of the same shape; what changed in between counts."""
    block, x = impl.TransformerBlock(4, 2, rng), Tensor(rng.normal(size=(3, 4)))
    masks = [None, np.tri(3, dtype=bool), np.eye(3, dtype=bool), np.tri(3, k=1, dtype=bool)]
    weight = block.feed_forward.up.weight
    for change in (0.0, 0.5, 0.5):
        weight.data += change
        x.data[0] += change
        fresh = Tensor(x.data.copy())
        same = block.feed_forward(x).data
        assert np.array_equal(same, block.feed_forward(fresh).data), "an answer of an earlier call comes back"
        for mask in masks:
            theta = np.concatenate([each.data.ravel() for each in block.parameters()])
            expected = slow(fresh.data, theta, mask, n_heads=2)
            battery.check_equal(block(x, mask).data, expected, 256, 20, label="the same x, another mask")
        block.feed_forward(x)


def test_what_is_refused(impl, rng):
    for width, n_heads in [(4, 3), (4, 0), (4, -1), (4, -2), (4, 8), (0, 1), (0, 0), (-4, 2), (10_001, 2)]:
        battery.refuses(impl.TransformerBlock, width, n_heads, rng, hidden=4)
        battery.refuses(impl.TransformerBlock, width, n_heads, rng)
    for hidden in (0, -1, -16):
        battery.refuses(impl.TransformerBlock, 4, 2, rng, hidden=hidden)
        battery.refuses(impl.FeedForward, 4, hidden, rng)
    for width in (0, -1, -4):
        battery.refuses(impl.FeedForward, width, 4, rng)
    for eps in (0, 0.0, -1e-5, -1.0, math.nan):
        battery.refuses(impl.TransformerBlock, 4, 2, rng, eps=eps)
    block, part = impl.TransformerBlock(4, 2, rng), impl.FeedForward(4, 6, rng)
    for shape in [(), (4,), (0,), (3, 3), (4, 1), (2, 4, 8), (3, 0), (3, 2), (4, 6)]:
        battery.refuses(block, Tensor(np.ones(shape)))
        if shape != (4,):
            battery.refuses(part, Tensor(np.ones(shape)))
    battery.refuses(impl.FeedForward(1, 3, rng), Tensor(1.0))
    one = impl.TransformerBlock(1, 1, rng)
    for shape in [(), (1,), (3, 2)]:
        battery.refuses(one, Tensor(np.ones(shape)))
    x = Tensor(rng.normal(size=(2, 3, 4)))
    for mask in (np.ones((3, 3)), np.zeros((3, 3)), np.ones((3, 3), int)):
        battery.refuses(block, x, mask)
    for shape in [(2, 2), (3, 4), (4, 4), (3, 3, 3), (2, 2, 2), (2, 3, 4)]:
        battery.refuses(block, x, np.ones(shape, bool))


def test_what_is_hidden_changes_nothing(impl, rng):
    block = impl.TransformerBlock(6, 3, rng)
    x = rng.normal(size=(2, 5, 6))
    mask = np.tri(5, dtype=bool)
    before = block(Tensor(x), mask).data.copy()
    assert np.array_equal(block.eval()(Tensor(x), mask).data, before)
    assert np.array_equal(block.train()(Tensor(x), mask=mask).data, before)
    for some in (x[0], x[:1], x[None], x[None, None]):
        for seen in (None, mask):
            trained = block.train()(Tensor(some), seen).data
            assert np.array_equal(block.eval()(Tensor(some), seen).data, trained), some.shape
    with no_grad():
        assert not block(Tensor(x, requires_grad=True), mask).requires_grad
    x[:, 3:] = 1e6
    assert np.array_equal(block(Tensor(x), mask).data[:, :3], before[:, :3])


def feed_forward_cases(rng):
    for width, hidden in [(1, 1), (1, 3), (3, 1), (2, 5), (5, 2), (4, 16), (7, 33), (130, 3), (3, 130)]:
        for has_bias in (True, False):
            yield width, hidden, (2,), {"has_bias": has_bias}
    for leading in [(), (1,), (0,), (1, 3), (2, 1), (1, 1), (2, 3), (1, 3, 2), (3, 1, 2), (130,)]:
        yield 3, 4, leading, {}
    for activation in ACTIVATIONS:
        for has_bias in (True, False):
            yield 3, 5, (2, 2), {"activation": activation, "has_bias": has_bias}
    for n in aim.sizes(at_most=600):
        yield 2, n, (2,), {}
        yield n, 2, (2,), {}
        yield 2, 2, (n,), {}


def test_feed_forward_is_its_definition_everywhere(impl, rng):
    def shaped(x, hidden, has_bias):
        return of_feed_forward(x.shape[-1], hidden, has_bias)

    def function(x, theta, hidden, has_bias=True, activation=None):
        options = {} if activation is None else {"activation": ACTIVATIONS[activation][0]}
        options |= {} if has_bias else {"has_bias": False}
        rng, dtype = np.random.default_rng(0), theta.dtype.type
        part = impl.FeedForward(x.shape[-1], hidden, rng, **options, dtype=dtype)
        values = cut(theta, shaped(x, hidden, has_bias))
        if isinstance(x, Tensor):
            return place(part, values)(x)
        part.load_state_dict(values)
        return part(Tensor(x))

    def definition(x, theta, hidden, has_bias=True, activation=None):
        f = slow_gelu if activation is None else ACTIVATIONS[activation][1]
        return slow_feed_forward(x, cut(theta, shaped(x, hidden, has_bias)), f=f)

    def gradients(g, x, theta, hidden, has_bias=True, activation=None):
        f = gelu_tanh if activation is None else ACTIVATIONS[activation][0]
        leaves = [Parameter(x), Parameter(theta)]
        values = cut(leaves[1], shaped(x, hidden, has_bias))
        h = f(leaves[0] @ values["up.weight"].swapaxes(0, 1) + values.get("up.bias", 0))
        (h @ values["down.weight"].swapaxes(0, 1) + values.get("down.bias", 0)).backward(g)
        return [each.grad for each in leaves]

    def size(x, theta, hidden, **options):
        inner = 1 + np.abs(x).max(initial=0) * (x.shape[-1] + 1)
        return inner**2 * (1 + np.abs(theta).max()) ** 2 * (1 + hidden) ** 0.5

    cases = []
    for width, hidden, leading, options in feed_forward_cases(rng):
        theta = draw(rng, of_feed_forward(width, hidden, options.get("has_bias", True)))
        x = rng.normal(size=(*leading, width))
        cases.append(Case(f"{width} to {hidden}, {leading}", (x, theta), {"hidden": hidden} | options))
    theta = draw(rng, of_feed_forward(4, 6))
    for dtype in battery.FLOATS:
        x = rng.normal(size=(3, 4)).astype(dtype)
        cases.append(Case(np.dtype(dtype).name, (x, theta.astype(dtype)), {"hidden": 6}))
    for layout, lay in battery.LAYOUTS.items():
        cases.append(Case(layout, (lay(rng.normal(size=(3, 4))), theta), {"hidden": 6}))
    for factor in (0.0, 1e-6, 30.0, 1e4):
        cases.append(Case(f"x times {factor:g}", (factor * rng.normal(size=(3, 4)), theta), {"hidden": 6}))
    battery.sweep(function, definition, cases, ulps=32, magnitude=size)
    few = [each for each in cases if each.arguments[0].size and np.abs(each.arguments[0]).max() < 100]
    tensors = {"tensor": Parameter, "rng": rng}
    battery.sweep_gradients(
        function, gradients, few, **tensors, ulps=64, magnitude=lambda *a, **k: size(*a, **k) ** 2
    )


def test_every_shape_is_its_definition(impl, rng):
    battery.sweep(with_arrays(impl), slow, shape_cases(rng), ulps=32, magnitude=size_of)


def test_every_value_is_its_definition(impl, rng):
    cases = [*value_cases(rng), *large_cases(rng)]
    battery.sweep(with_arrays(impl), slow, cases, ulps=32, magnitude=size_of)


def test_gradients_are_their_definition_everywhere(impl, rng):
    def function(x, theta, mask=None, **options):
        return made(impl, theta, x.shape[-1], **options)(x, mask)

    cases = [each for each in (*shape_cases(rng), *value_cases(rng)) if 0 < each.arguments[0].size < 200]
    cases = [each for each in cases if 1e-2 < np.abs(each.arguments[0]).max() < 20]
    tensors = {"tensor": Parameter, "rng": rng}
    battery.sweep_gradients(function, slow_gradients, cases, **tensors, ulps=64, magnitude=gradients_size)


def test_gradients_are_slopes(impl, rng):
    """Independent of every technology: differences of the block itself."""
    x, theta, mask = block_case(rng, "", 2, 2, mask=np.tri(2, dtype=bool), hidden=2).arguments
    weights = rng.normal(size=x.shape)

    def end(x, theta):
        return (with_arrays(impl)(x, theta, mask, hidden=2).data * weights).sum()

    leaves = [Parameter(x), Parameter(theta)]
    made(impl, leaves[1], 2, hidden=2)(leaves[0], mask).backward(weights)
    for leaf, slope in zip(leaves, battery.numerical_gradients(end, x, theta), strict=True):
        assert np.abs(leaf.grad - slope).max() < 1e-6 * (1 + np.abs(slope).max())
