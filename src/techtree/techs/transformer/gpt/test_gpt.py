"""Oracles: rows, blocks and scores put together; a model that is a table; folders written here."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.positions import LearnedPositions
from techtree.techs.transformer.transformer_block import TransformerBlock

DEFAULTS = {"n_tokens": 7, "n_positions": 5, "width": 4, "n_layers": 2, "n_heads": 2}
OTHERS = {"hidden": None, "has_bias": True, "is_tied": True, "eps": 1e-5}


def twin(n_tokens, n_positions, width, n_layers, n_heads, hidden, has_bias, is_tied, eps, rng):
    """Return the parts of a model, in the order in which they are drawn and named."""
    parts = {
        "token_embedding": Embedding(n_tokens, width, rng),
        "position_embedding": LearnedPositions(n_positions, width, rng),
    }
    gain = 1 / math.sqrt(2 * n_layers)
    for number in range(n_layers):
        parts[f"blocks.{number}"] = TransformerBlock(width, n_heads, rng, hidden, has_bias, gain, eps)
    parts["norm"] = LayerNorm(width, eps, has_bias)
    if not is_tied:
        parts["head"] = Linear(width, n_tokens, rng, has_bias=False, gain=0.02 * math.sqrt(width))
    return parts


def parts_of(options, rng=None):
    rng = np.random.default_rng(0) if rng is None else rng
    return twin(**(DEFAULTS | OTHERS | options), rng=rng)


def named(parts):
    return {f"{name}.{path}": each for name, part in parts.items() for path, each in part.named_parameters()}


@functools.cache
def shapes(*options):
    return {name: each.shape for name, each in named(parts_of(dict(options))).items()}


def cut(theta, options):
    """Take an array or tensor of all parameters apart."""
    found, start = {}, 0
    for name, shape in shapes(*options.items()).items():
        end = start + math.prod(shape)
        found[name], start = theta[start:end].reshape(*shape), end
    return found


def place(owner, values):
    for name, value in values.items():
        *path, last = name.split(".")
        found = owner
        for each in path:
            found = found[int(each)] if each.isdigit() else getattr(found, each)
        setattr(found, last, value)
    return owner


def model_of(impl, options, dtype=np.float64, rng=None):
    config = impl.GPTConfig(**(DEFAULTS | options))
    return impl.GPT(config, np.random.default_rng(0) if rng is None else rng, dtype=dtype)


def draw(rng, options, dtype=np.float64):
    parts = []
    for name, shape in shapes(*options.items()).items():
        size = 1 / math.sqrt(shape[1]) if len(shape) == 2 and "embedding" not in name else 1
        parts.append((size * rng.normal(size=shape) + name.endswith("norm.weight")).ravel())
    return np.concatenate(parts).astype(dtype)


def as_defined(ids, theta, **options):
    """Put the ancestors together: for values, and for gradients where theta is a tensor."""
    values = cut(theta, options)
    n = ids.shape[-1]
    x = values["token_embedding.weight"][ids] + values["position_embedding.weight"][:n]
    if not isinstance(x, Tensor):
        x = Tensor(x)
    for name, part in parts_of(options).items():
        if name.startswith(("blocks", "norm")):
            own = {each: value for each, value in values.items() if each.startswith(f"{name}.")}
            place(part, {each.removeprefix(f"{name}."): _tensor(value) for each, value in own.items()})
            x = part(x) if name == "norm" else part(x, np.tri(n, dtype=bool))
    table = _tensor(values.get("head.weight", values["token_embedding.weight"]))
    return x @ table.swapaxes(0, 1)


def _tensor(value):
    return value if isinstance(value, Tensor) else Tensor(value)


def slow(ids, theta, **options):
    return as_defined(ids, theta, **options).data


def slow_gradients(g, ids, theta, **options):
    leaf = Parameter(theta)
    as_defined(ids, leaf, **options).backward(g)
    return [leaf.grad]


def size_of(ids, theta, **options):
    """Rounding is small beside the largest products, and grows with the layers."""
    full = DEFAULTS | options
    most = np.abs(theta).max()
    return (1 + most) ** 2 * full["width"] * 8**0.5 * (1 + full["n_layers"]) ** 2 * 4


def gradients_size(ids, theta, **options):
    return size_of(ids, theta, **options) ** 2 / 10 * (1 + ids.size)


def case(rng, label, shape=(3,), dtype=np.float64, kind=np.int64, **options):
    n_tokens = (DEFAULTS | options)["n_tokens"]
    ids = rng.integers(n_tokens, size=shape).astype(kind)
    return Case(label, (ids, draw(rng, options, dtype)), options)


def cases(rng):
    yield case(rng, "one token", (1,))
    yield case(rng, "the smallest", (1,), n_tokens=1, n_positions=1, width=1, n_layers=1, n_heads=1)
    for n in (2, 3, 5):
        yield case(rng, f"{n} tokens", (n,))
        yield case(rng, f"{n} tokens, untied", (n,), is_tied=False)
    for shape in [(1, 3), (2, 5), (0, 3), (2, 3, 1), (3, 1, 4), (2, 1, 1, 2)]:
        yield case(rng, f"ids of shape {shape}", shape, n_layers=1)
    for n_layers in (1, 3):
        yield case(rng, f"{n_layers} layers", n_layers=n_layers, is_tied=n_layers == 3)
    for width, n_heads in [(1, 1), (2, 2), (6, 3), (6, 1), (12, 4)]:
        yield case(rng, f"{n_heads} heads of {width}", width=width, n_heads=n_heads, n_layers=1)
    for n_tokens in (1, 4, 300):
        for is_tied in (True, False):
            told = f"{n_tokens} in the vocabulary, is_tied={is_tied}"
            yield case(rng, told, n_tokens=n_tokens, is_tied=is_tied, n_layers=1)
    for eps in (1e-12, 1e-3, 2.0):
        for has_bias in (True, False):
            yield case(
                rng, f"eps {eps}, has_bias={has_bias}", eps=eps, has_bias=has_bias, hidden=3, n_layers=1
            )
    for hidden in (1, 4, 17):
        yield case(rng, f"{hidden} hidden units", hidden=hidden, n_layers=1, is_tied=False)
    for dtype in battery.FLOATS:
        name = np.dtype(dtype).name
        yield case(rng, f"weights of {name}", (2, 3), dtype)
        yield case(rng, f"weights of {name}, untied", (3,), dtype, is_tied=False, has_bias=False)
    for kind in (np.int8, np.uint8, np.uint16, np.int32, np.uint64):
        yield case(rng, f"ids of {np.dtype(kind).name}", (2, 3), kind=kind, n_layers=1)
    for kind in (np.uint8, np.int16, np.uint64):
        told = f"large ids of {np.dtype(kind).name}"
        ids, theta = case(rng, "", (2, 3), n_tokens=300, n_layers=1).arguments
        ids = ids % 256 if kind is np.uint8 else ids
        ids[:, 0] = 130, 255
        yield Case(told, (ids.astype(kind), theta), {"n_tokens": 300, "n_layers": 1})
    for layout, lay in battery.LAYOUTS.items():
        ids, theta = case(rng, "", (2, 3), n_layers=1).arguments
        yield Case(f"ids {layout}", (lay(ids), theta), {"n_layers": 1})


def large_cases(rng):
    few = {"n_layers": 1, "hidden": 2}
    for n in aim.sizes(33, 130, at_most=300):
        yield case(rng, f"{n} tokens", (n,), n_positions=n, width=2, n_heads=1, **few)
        yield case(rng, f"7 tokens of {n}", (7,), n_positions=n + 7, width=2, n_heads=1, **few)
    for n in aim.sizes(at_most=300):
        yield case(rng, f"width {n}", width=n, n_heads=1, **few)
        yield case(rng, f"{n} samples", (n, 2), **few)
    for n in aim.sizes(at_most=140_000):
        found = case(rng, f"{n} in the vocabulary", n_tokens=n, width=2, n_heads=1, **few)
        found.arguments[0][-1] = n - 1
        yield found
    for factor in (1e-3, 30.0, 1e3, 1e6, *aim.NUMBERS):
        found = case(rng, f"weights of the size {factor:g}", is_tied=factor > 1, **few)
        theta = found.arguments[1]
        n_table = 7 * 4
        theta[:n_table] *= min(factor, 1e12)  # the table; in a tied model the head, too
        yield found
    for n in aim.whole(3, 24):
        yield case(rng, f"{n} layers", (2,), n_layers=n, width=2, n_heads=1, hidden=2)


def test_config(impl):
    config = impl.GPTConfig(7, 5, 4, 2, 2)
    assert dataclasses.asdict(config) == DEFAULTS | OTHERS
    assert config == impl.GPTConfig(**DEFAULTS)
    full = impl.GPTConfig(8, 6, 9, 1, 3, 10, False, False, 0.5)
    others = {"hidden": 10, "has_bias": False, "is_tied": False, "eps": 0.5}
    sizes = {"n_tokens": 8, "n_positions": 6, "width": 9, "n_layers": 1, "n_heads": 3}
    assert dataclasses.asdict(full) == sizes | others
    with pytest.raises(AttributeError):
        config.width = 8
    for name in (*DEFAULTS, "hidden"):
        for value in (0, -1, -2, -4):
            battery.refuses(impl.GPTConfig, **(DEFAULTS | {name: value}))
    for width, n_heads in [(4, 3), (4, 8), (1, 2), (6, 4), (9, 2)]:
        battery.refuses(impl.GPTConfig, **(DEFAULTS | {"width": width, "n_heads": n_heads}))
    for eps in (0, 0.0, -1e-5, -1.0, math.nan):
        battery.refuses(impl.GPTConfig, **DEFAULTS, eps=eps)


SOME = [
    {},
    {"is_tied": False},
    {"has_bias": False, "hidden": 3},
    {"n_layers": 1, "width": 6, "n_heads": 3, "eps": 0.1, "is_tied": False, "has_bias": False},
    {"n_layers": 8, "n_tokens": 40, "n_positions": 1},
]


def test_what_a_model_holds(impl, rng):
    for options in SOME:
        model = model_of(impl, options)
        held = [(name, each.shape) for name, each in model.named_parameters()]
        assert held == [(name, each.shape) for name, each in named(parts_of(options)).items()]
        assert model.config == impl.GPTConfig(**(DEFAULTS | options))
        assert isinstance(model, Module)
        assert isinstance(model.token_embedding, Embedding)
        assert isinstance(model.position_embedding, LearnedPositions)
        assert isinstance(model.blocks, list)
        assert all(isinstance(each, TransformerBlock) for each in model.blocks)
        assert isinstance(model.norm, LayerNorm)
        if options.get("is_tied", True):
            assert model.head is None
        else:
            assert isinstance(model.head, Linear)
            assert model.head.bias is None
        assert {each.dtype for each in model.parameters()} == {np.dtype(np.float64)}
        for dtype in battery.FLOATS:
            model = model_of(impl, options, dtype)
            assert {each.dtype for each in model.parameters()} == {np.dtype(dtype)}
            assert model(np.zeros(1, int)).dtype == dtype


def test_what_is_drawn(impl):
    for options in SOME:
        rng, other = np.random.default_rng(4), np.random.default_rng(4)
        model = model_of(impl, options, rng=rng)
        for name, each in named(parts_of(options, other)).items():
            found = dict(model.named_parameters())[name].data
            assert np.allclose(found, each.data, rtol=1e-12, atol=0), name  # a factor may come in two steps
        assert rng.random() == other.random()
    large = model_of(impl, {"n_tokens": 400, "n_positions": 300, "width": 64, "is_tied": False})
    for part in (large.token_embedding, large.position_embedding, large.head):
        assert 0.0195 < part.weight.data.std() < 0.0205  # of 19,200 at least: off by half a percent


def test_models_share_nothing_and_depend_on_their_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, other = (model_of(impl, {"is_tied": False}) for _ in range(2))
    start = one.state_dict()
    with elsewhere(impl):
        third = model_of(impl, {"is_tied": False})
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    for each in one.parameters():
        each.data += 1
    for model in (other, third):
        for name, each in model.state_dict().items():
            assert np.array_equal(each, start[name])
    arrays = [each.data for each in one.parameters()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    rng = np.random.default_rng(0)
    first, second = (model_of(impl, {}, rng=rng).token_embedding.weight.data for _ in range(2))
    assert not np.array_equal(first, second)


def test_by_hand(impl):
    """Blocks that add nothing: the logits are the normalized sum of two rows, through the table."""
    model = model_of(impl, {"n_tokens": 3, "width": 2, "n_heads": 1, "has_bias": False, "eps": 7.0})
    for block in model.blocks:
        block.attention.output.weight.data[...] = 0
        block.feed_forward.down.weight.data[...] = 0
    model.token_embedding.weight.data[...] = [[1.0, 0.0], [0.0, 1.0], [1.0, 5.0]]
    model.position_embedding.weight.data[:2] = [[0.0, 2.0], [6.0, -4.0]]
    # [1, 5] + [0, 2] = [1, 7] has mean 4 and variance 9: [-3, 3] / 4. Then [1, 5] + [6, -4] = [7, 1].
    assert model(np.array([2, 2])).data.tolist() == [[-0.75, 0.75, 3.0], [0.75, -0.75, -3.0]]


def with_arrays(impl):
    def function(ids, theta, **options):
        model = model_of(impl, options, theta.dtype.type)
        model.load_state_dict(cut(theta, options))
        return model(ids)

    return function


def test_each_place_sees_what_is_before_it(impl, rng):
    for options in ({}, {"is_tied": False}):
        model = model_of(impl, options | {"n_tokens": 9, "width": 6, "n_heads": 3})
        for each in model.parameters():
            each.data += rng.normal(size=each.shape)
        ids = rng.integers(9, size=(2, 5))
        before = model(ids).data.copy()
        for changed in range(5):
            other = ids.copy()
            other[:, changed] = (other[:, changed] + 1) % 9
            same = (model(other).data == before).all(axis=-1)
            assert same[:, :changed].all()
            assert not same[:, changed:].any()
        assert np.array_equal(model.eval()(ids).data, before)
        assert np.array_equal(model.train()(ids).data, before)
        for n in range(1, 5):
            battery.check_equal(model(ids[:, :n]).data, before[:, :n], 64, 100)
        with no_grad():
            assert not model(ids).requires_grad


def test_the_parts_are_used_as_they_are(impl, rng):
    asked = []

    class Part(Module):
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x, mask=None):
            asked.append((self.factor, mask))
            return x * self.factor

    model = model_of(impl, {"is_tied": False})
    model.token_embedding, model.position_embedding = Embedding(11, 3, rng), LearnedPositions(6, 3, rng)
    model.blocks, model.norm = [Part(2.0), Part(3.0), Part(5.0)], Part(7.0)
    model.head = Linear(3, 4, rng)
    ids = np.array([10, 0, 10, 9, 3, 3])
    x = 210 * (model.token_embedding.weight.data[ids] + model.position_embedding.weight.data)
    battery.check_equal(model(ids), x @ model.head.weight.data.T, 64, 10)
    assert [factor for factor, _ in asked] == [2.0, 3.0, 5.0, 7.0]
    for _, mask in asked[:3]:
        assert mask.dtype == bool
        assert np.array_equal(np.broadcast_to(mask, (6, 6)), np.tri(6, dtype=bool))
    model.head = None
    battery.check_equal(model(ids), x @ model.token_embedding.weight.data.T, 64, 10)
    model.blocks.pop()
    battery.check_equal(model(ids), x @ model.token_embedding.weight.data.T / 5, 64, 10)
    model.token_embedding.weight.data *= 2
    model.position_embedding.weight.data *= 2
    battery.check_equal(model(ids), 4 * x @ model.token_embedding.weight.data.T / 10, 64, 10)
    for mode in (model.eval, model.train, model.eval):
        mode()
        for change in (1.0, 0.5, 2.0):  # the same ids, other weights
            model.token_embedding.weight.data *= change
            y = 6 * (model.token_embedding.weight.data[ids] + model.position_embedding.weight.data) * 7
            for shape in ((6,), (1, 6), (1, 1, 6)):
                expected = (y @ model.token_embedding.weight.data.T).reshape(*shape, -1)
                battery.check_equal(model(ids.reshape(shape)), expected, 64, 10)


def test_what_a_model_refuses(impl):
    for options in SOME:
        model = model_of(impl, options)
        n_tokens, n_positions = model.config.n_tokens, model.config.n_positions
        model(np.full(n_positions, n_tokens - 1))
        for wrong in (n_tokens, n_tokens + 1, -1, -n_tokens, 10**6):
            for index in {0, n_positions - 1}:
                ids = np.zeros(n_positions, int)
                ids[index] = wrong
                battery.refuses(model, ids)
        for shape in [(), (0,), (2, 0), (0, 0), (n_positions + 1,), (2, n_positions + 1), (2 * n_positions,)]:
            battery.refuses(model, np.zeros(shape, int))
        for dtype in (float, np.float32, bool):
            battery.refuses(model, np.zeros(1, dtype))


class Table:
    """A model whose logits depend on the last token alone; it remembers what it was asked."""

    def __init__(self, logits):
        self.logits, self.texts, self.recorded = np.array(logits, float), [], []

    def __call__(self, ids):
        assert isinstance(ids, np.ndarray)
        assert ids.dtype.kind in "iu"
        assert ids.ndim == 1
        self.texts.append(ids.tolist())
        self.recorded.append((Tensor([1.0], requires_grad=True) * 2).requires_grad)
        return Tensor(self.logits[ids])


STEPS = [[0, 1, 0, 0], [0, 0, 5, 0], [-9, -8, -9, -7], [3, 3, 3, 2]]
"""0 -> 1 -> 2 -> 3 -> 0, where 3 has three equal ones."""
STEPS_AS_ARRAY = np.array(STEPS, float)


def test_greedy_takes_the_likeliest(impl):
    model = Table(STEPS)
    assert impl.greedy(model, [0], 6) == [1, 2, 3, 0, 1, 2]
    assert model.texts == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 0], [0, 1, 2, 3, 0, 1]]
    assert not any(model.recorded)
    assert (Tensor([1.0], requires_grad=True) * 2).requires_grad
    for ids in ([1, 1, 3], (1, 1, 3), np.array([1, 1, 3]), np.array([1, 1, 3], np.uint8)):
        model = Table(STEPS)
        found = impl.greedy(model, ids, 2)
        assert found == [0, 1]
        assert all(type(each) is int for each in found)
        assert list(ids) == [1, 1, 3]
        assert model.texts == [[1, 1, 3], [1, 1, 3, 0]]
    model = Table(STEPS)
    assert impl.greedy(model, [2], 0) == []
    assert model.texts == []
    upwards = Table(np.eye(300)[np.arange(1, 301) % 300])
    assert impl.greedy(upwards, np.array([254], np.uint8), 3) == [255, 256, 257]
    wide = np.full((400, 400), -1e6)
    wide[:, 333] = wide[:, 334] = -1e5
    assert impl.greedy(Table(wide), [399], 2) == [333, 333]
    assert impl.greedy(Table(np.zeros((5, 5))), [4], 2) == [0, 0]
    close = np.ones((3, 3))
    close[:, 1] += 1e-15
    assert impl.greedy(Table(close), [0], 2) == [1, 1]
    assert impl.greedy(Table(1e-300 * STEPS_AS_ARRAY), [0], 3) == [1, 2, 3]
    assert impl.greedy(Table(-(1e300 ** (close - 1)) - close), [0], 2) == [0, 0]


class Sum:
    """A model whose next token is the sum of all ids before it and their number, modulo n."""

    def __init__(self, n):
        self.n = n

    def __call__(self, ids):
        logits = np.zeros((len(ids), self.n))
        best = (np.cumsum(ids.astype(np.int64)) + np.arange(len(ids)) + 1) % self.n
        logits[np.arange(len(ids)), best] = 1
        return Tensor(logits)

    def continued(self, ids, n_new):
        text = [int(each) for each in ids]
        for _ in range(n_new):
            text.append((sum(text) + len(text)) % self.n)
        return text[len(ids) :]


def test_greedy_reads_any_text_of_any_length(impl, rng):
    model = Sum(11)
    for n in aim.sizes(1, 2, 33, 130, at_most=2500):
        for ids in (rng.integers(11, size=n), rng.integers(11, size=n)):
            assert impl.greedy(model, ids, 3) == model.continued(ids, 3)
            assert impl.greedy(model, ids.tolist(), 3) == model.continued(ids, 3)
        assert impl.greedy(model, [5], n) == model.continued([5], n)
    for kind in battery.INTEGERS[:-1]:
        ids = rng.integers(11, size=5).astype(kind)
        assert impl.greedy(model, ids, 4) == model.continued(ids, 4)
    for lay in battery.LAYOUTS.values():
        ids = lay(rng.integers(11, size=5))
        assert impl.greedy(model, ids, 4) == model.continued(ids, 4)
    for n in aim.sizes(20_011, at_most=100_000):
        large = Sum(n)
        assert impl.greedy(large, np.array([n - 1, n - 2]), 3) == large.continued([n - 1, n - 2], 3)
        first, second, third = large.continued([n - 3], 3)
        assert impl.greedy(large, [n - 3], 3) == [first, second, third]
        if len({first, second, third}) == 3:
            assert impl.greedy(large, [n - 3], 3, {third}) == [first, second]


def test_greedy_stops(impl):
    for stop in ([3], (3,), {3}, frozenset([3, 77]), range(3, 9), {3: "end"}, np.array([3, 9])):
        model = Table(STEPS)
        assert impl.greedy(model, [3, 0], 9, stop) == [1, 2]  # the 3 in the text does not count
        assert model.texts == [[3, 0], [3, 0, 1], [3, 0, 1, 2]]
    for text in ([0, 3], [3], [3, 3]):
        assert impl.greedy(Table(STEPS), text, 9, stop={3}) == [0, 1, 2], "a stop token in the text given"
    assert impl.greedy(Table(STEPS), [0], 9, stop={1}) == []
    assert impl.greedy(Table(STEPS), [3], 9, stop={0}) == []
    assert impl.greedy(Table(STEPS), [0], 2, stop={3}) == [1, 2]
    assert impl.greedy(Table(STEPS), [0], 3, stop={8, 9}) == [1, 2, 3]
    assert impl.greedy(Table(STEPS), [0], 3, stop=[]) == [1, 2, 3]


def test_what_greedy_refuses(impl):
    for ids in ([], (), np.zeros(0, int)):
        for n in (0, 3):
            battery.refuses(impl.greedy, Table(STEPS), ids, n)
    for n in (-1, -5):
        battery.refuses(impl.greedy, Table(STEPS), [1], n)
    model = model_of(impl, {})
    assert len(impl.greedy(model, [1, 2], 4)) == 4  # the last one is not read any more
    battery.refuses(impl.greedy, model, [1, 2], 5)
    battery.refuses(impl.greedy, model, [7], 1)
    assert (Tensor([1.0], requires_grad=True) * 2).requires_grad
    ids, expected = [3, 1], []
    for _ in range(3):
        logits = model(np.array(ids + expected)).data[-1]
        expected.append(int(np.flatnonzero(logits == logits.max())[0]))
    assert impl.greedy(model, ids, 3) == expected


CODES = {np.float16: "F16", np.float32: "F32", np.float64: "F64", np.uint8: "U8"}


def write(folder, config, tensors):
    """Write a folder as transformers does."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        code, end = CODES[array.dtype.type], len(data) + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder


LAYERS = {
    "ln_1": "attention_norm",
    "attn.c_proj": "attention.output",
    "ln_2": "feed_forward_norm",
    "mlp.c_fc": "feed_forward.up",
    "mlp.c_proj": "feed_forward.down",
}


def stored(values, n_layers, dtype=np.float32):
    """Return our parameters as the tensors of a GPT2Model, and the head."""
    found = {
        "wte.weight": values["token_embedding.weight"],
        "wpe.weight": values["position_embedding.weight"],
    }
    for n in range(n_layers):
        own = f"blocks.{n}."
        for kind in ("weight", "bias"):
            found[f"h.{n}.attn.c_attn.{kind}"] = np.concatenate(
                [values[f"{own}attention.{name}.{kind}"].T for name in ("query", "key", "value")], axis=-1
            )
            for theirs, ours in LAYERS.items():
                found[f"h.{n}.{theirs}.{kind}"] = values[f"{own}{ours}.{kind}"].T
    found |= {f"ln_f.{kind}": values[f"norm.{kind}"] for kind in ("weight", "bias")}
    if "head.weight" in values:
        found["lm_head.weight"] = values["head.weight"]
    return {name: np.ascontiguousarray(each, dtype) for name, each in found.items()}


def prefixed(tensors):
    return {
        name if name == "lm_head.weight" else f"transformer.{name}": each for name, each in tensors.items()
    }


PLAIN = {
    "model_type": "gpt2",
    "vocab_size": 7,
    "n_positions": 5,
    "n_embd": 4,
    "n_layer": 2,
    "n_head": 2,
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "reorder_and_upcast_attn": False,
}
KEYS = {
    "vocab_size": "n_tokens",
    "n_positions": "n_positions",
    "n_embd": "width",
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "n_inner": "hidden",
    "tie_word_embeddings": "is_tied",
    "layer_norm_epsilon": "eps",
}


def folder_of(rng, changes=(), dtype=np.float32):
    """Return a config, its tensors, and our options and parameters for it."""
    config = PLAIN | dict(changes)
    options = {ours: config[theirs] for theirs, ours in KEYS.items()}
    values = cut(draw(rng, options, dtype), options)
    return config, stored(values, config["n_layer"], dtype), options, values


def check_loaded(model, options, values, dtype=np.float32):
    held = dict(model.named_parameters())
    assert list(held) == list(values)
    for name, each in held.items():
        assert each.dtype == dtype
        assert np.array_equal(each.data, values[name].astype(dtype)), name
        assert each.data.flags.writeable
        assert each.requires_grad
    ids = np.arange(min(5, options["n_positions"])) % options["n_tokens"]
    theta = np.concatenate([each.data.astype(float).ravel() for each in held.values()])
    battery.check_equal(model(ids).data, slow(ids, theta, **options), 64, size_of(ids, theta, **options))


def test_folders_are_read(impl, rng, tmp_path):
    changes = [
        {},
        {"tie_word_embeddings": False},
        {"n_inner": 3, "layer_norm_epsilon": 0.5},
        {"n_head": 1, "n_layer": 1, "n_inner": 16},
        {"n_embd": 6, "n_head": 3, "n_layer": 12, "activation_function": "gelu_pytorch_tanh"},
        {"vocab_size": 300, "n_positions": 9, "n_head": 4, "layer_norm_epsilon": 1e-8, "n_layer": 1},
        {"architectures": ["GPT2Model"], "n_layer": 1},
        {"architectures": ["GPT2Model"], "n_layer": 1, "tie_word_embeddings": False},
        {"n_embd": 1, "n_head": 1, "n_positions": 1, "vocab_size": 1, "tie_word_embeddings": False},
    ]
    for number, change in enumerate(changes):
        config, tensors, options, values = folder_of(rng, change)
        folder = write(tmp_path / str(number), config, prefixed(tensors) if number % 2 else tensors)
        model = impl.load_gpt2(str(folder) if number % 3 else folder)
        assert isinstance(model, impl.GPT)
        check_loaded(model, options, values)
        check_loaded(impl.load_gpt2(folder, np.float64), options, values, np.float64)
        assert (model.head is None) == options["is_tied"]


def test_folders_of_every_dtype(impl, rng, tmp_path):
    for kind in battery.FLOATS:
        config, tensors, options, values = folder_of(rng, {"n_layer": 1}, kind)
        folder = write(tmp_path / np.dtype(kind).name, config, tensors)
        for dtype in battery.FLOATS:
            check_loaded(impl.load_gpt2(folder, dtype=dtype), options, values, dtype)
        one = impl.load_gpt2(folder)
        next(one.parameters()).data += 1
        check_loaded(impl.load_gpt2(folder), options, values)


def test_what_a_folder_may_leave_out_and_have_besides(impl, rng, tmp_path):
    config, tensors, options, values = folder_of(rng)
    optional = ("model_type", "activation_function", "n_inner", "layer_norm_epsilon", "tie_word_embeddings")
    optional += ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention")
    kept = [{key: value for key, value in config.items() if key != each} for each in optional]
    kept.append({key: config[key] for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")})
    more = {"reorder_and_upcast_attn": True, "n_ctx": 77, "_name_or_path": "/größe/東京", "n_vocab": 3}
    kept.append(config | more)
    more = {"n_ctx": 5, "resid_pdrop": 0.5, "use_cache": False, "bos_token_id": 50256, "dtype": "x"}
    kept.append(config | more)
    for number, each in enumerate(kept):
        folder = write(tmp_path / str(number), each, tensors)
        check_loaded(impl.load_gpt2(folder, np.float64), options, values, np.float64)
    masks = {f"h.{n}.attn.bias": np.tri(5, dtype=np.uint8)[None, None] for n in range(2)}
    masks |= {f"h.{n}.attn.masked_bias": np.array(-1e4, np.float32) for n in range(2)}
    for rename in (dict, prefixed):
        folder = write(tmp_path / "masks", config, rename(tensors | masks))
        check_loaded(impl.load_gpt2(folder), options, values)
        again = tensors | {"lm_head.weight": tensors["wte.weight"].copy()}
        check_loaded(impl.load_gpt2(write(tmp_path / "head", config, rename(again))), options, values)
    backwards = dict(reversed(prefixed(tensors).items()))
    check_loaded(impl.load_gpt2(write(tmp_path / "backwards", config, backwards)), options, values)


WRONG = {
    "model_type": ("gpt_neo", "llama", "GPT2", "openai-gpt", "gpt2_", None),
    "activation_function": (
        "gelu",
        "relu",
        "silu",
        "tanh",
        "gelu_fast",
        "gelu_python",
        "quick_gelu",
        "",
        None,
    ),
    "scale_attn_weights": (False,),
    "scale_attn_by_inverse_layer_idx": (True,),
    "add_cross_attention": (True,),
}


def test_which_configs_are_refused(impl, rng, tmp_path):
    config, tensors, _, _ = folder_of(rng)
    folder = write(tmp_path / "one", config, tensors)
    for key, values in WRONG.items():
        for value in values:
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            battery.refuses(impl.load_gpt2, folder, says=[key])
    for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        less = {name: value for name, value in config.items() if name != key}
        (folder / "config.json").write_text(json.dumps(less))
        battery.refuses(impl.load_gpt2, folder, says=[key])
    wide, wide_tensors, _, _ = folder_of(rng, {"n_embd": 12, "n_layer": 1})
    for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):  # whatever would do in its place
        less = {name: value for name, value in wide.items() if name != key}
        battery.refuses(impl.load_gpt2, write(tmp_path / "wide", less, wide_tensors), says=[key])
    fits = {"vocab_size": 8, "n_positions": 4, "n_embd": 8, "n_layer": 1, "n_head": 3, "n_inner": 15}
    for key, value in (fits | {"tie_word_embeddings": False}).items():
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        battery.refuses(impl.load_gpt2, folder)
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    battery.refuses(impl.load_gpt2, folder)


def test_which_tensors_are_refused(impl, rng, tmp_path):
    config, tensors, _, _ = folder_of(rng, {"n_layer": 1, "n_inner": 8})
    untied, with_head, _, _ = folder_of(rng, {"n_layer": 1, "tie_word_embeddings": False})
    for number, (name, each) in enumerate(tensors.items()):
        less = {other: array for other, array in tensors.items() if other != name}
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, less))
        wrong = each[:-1] if number % 2 else each[None]
        shaped = tensors | {name: np.ascontiguousarray(wrong)}
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, shaped))
        if each.ndim == 2 and each.shape[0] != each.shape[1]:
            turned = tensors | {name: np.ascontiguousarray(each.T)}
            battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, turned))
    one = np.ones(4, np.float32)
    for name in ("h.1.ln_1.weight", "score.weight", "h.0.attn.q_attn.weight", "h.0.ln_cross_attn.weight"):
        for rename in (dict, prefixed):
            battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, rename(tensors | {name: one})))
    for name in (
        "ln_f.scale",
        "h.0.mlp.c_fc.weight_scale",
        "h.0.attn.scale",
        "h.0.attn.weight",
        "h.0.bias",
        "h.0.mlp.c_gate.weight",
        "lm_head.bias",
        "wte.bias",
    ):
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, tensors | {name: one}))
    for name in (
        "model.transformer.score.weight",
        "transformer.transformer.ln_f.weight",
        "model.ln_f.weight",
    ):
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, tensors | {name: one}))
    table = tensors["wte.weight"]
    near = table.copy()
    near.flat[-1] = np.nextafter(near.flat[-1], np.float32(9))
    for head in (near, table + np.float32(1e-3), table[:-1], -table, table * 0):
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", config, tensors | {"lm_head.weight": head}))
    for head in (with_head["lm_head.weight"][:-1], with_head["lm_head.weight"].T.copy()):
        battery.refuses(impl.load_gpt2, write(tmp_path / "f", untied, with_head | {"lm_head.weight": head}))
    with_head.pop("lm_head.weight")
    battery.refuses(impl.load_gpt2, write(tmp_path / "f", untied, with_head))


def test_loading_draws_from_no_shared_generator(impl, rng, tmp_path):
    config, tensors, options, values = folder_of(rng)
    folder = write(tmp_path / "one", config, tensors)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    with elsewhere(impl):
        check_loaded(impl.load_gpt2(folder), options, values)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert {each.name for each in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_every_model_is_its_definition(impl, rng):
    battery.sweep(with_arrays(impl), slow, cases(rng), ulps=32, magnitude=size_of, dtype=None)


def test_large_models_are_their_definition(impl, rng):
    battery.sweep(with_arrays(impl), slow, large_cases(rng), ulps=32, magnitude=size_of, dtype=None)


def test_gradients_are_their_definition(impl, rng):
    def function(ids, theta, **options):
        return place(model_of(impl, options, theta.dtype.type), cut(theta, options))(ids)

    few = [each for each in cases(rng) if each.arguments[0].size and len(each.arguments[1]) < 1500]
    few = [each for each in few if not each.label.startswith("ids ") or "shape" in each.label]
    tensors = {"tensor": Parameter, "rng": rng}
    battery.sweep_gradients(function, slow_gradients, few, **tensors, ulps=32, magnitude=gradients_size)
