"""Oracles: the model head by head in NumPy, its gradients by differences, folders written here."""

import dataclasses
import json
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.safetensors import save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.rmsnorm import RMSNorm
from techtree.techs.transformer.rope import RopeScaling
from techtree.techs.transformer.swiglu import SwiGLU

SMALL = {"n_tokens": 11, "width": 6, "hidden": 5, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1}
"""Heads of width 4 take 8 of 6 numbers: nothing is as wide as anything else."""
SMALL |= {"head_width": 4}
SHAPES = {
    "the plainest": {},
    "as many heads of keys": {"n_kv_heads": 2},
    "four heads, two of keys": {"n_heads": 4, "n_kv_heads": 2, "head_width": 2},
    "six heads, two of keys": {"n_heads": 6, "n_kv_heads": 2, "head_width": 6},
    "six heads, three of keys, norms": {"n_heads": 6, "n_kv_heads": 3, "has_head_norms": True},
    "one head": {"n_heads": 1},
    "one head, norms, biases": {"n_heads": 1, "has_head_norms": True, "has_qkv_bias": True},
    "the head width left out": {"width": 8, "head_width": None},
    "the head width rounded down": {"width": 9, "head_width": None},
    "biases": {"has_qkv_bias": True},
    "norms of heads": {"has_head_norms": True},
    "biases and norms of heads": {"has_qkv_bias": True, "has_head_norms": True, "n_kv_heads": 2},
    "untied": {"is_tied": False},
    "untied, biases": {"is_tied": False, "has_qkv_bias": True},
    "a window": {"window": 2},
    "a window of one": {"window": 1, "is_tied": False},
    "a wide window": {"window": 100},
    "another base": {"base": 500_000.0},
    "a small base": {"base": 3.0, "head_width": 6},
    "scaled linearly": {"scaling": RopeScaling("linear", 4.0)},
    "scaled like Llama 3": {
        "scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 16),
        "head_width": 8,
        "base": 20.0,
    },
    "scaled, another base": {"scaling": RopeScaling("linear", 0.5), "base": 7.0, "has_head_norms": True},
    "a large eps": {"eps": 0.5, "has_head_norms": True},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "five layers": {"n_layers": 5, "width": 3, "hidden": 2, "head_width": 2},
    "one token": {"n_tokens": 1},
    "width 1": {"width": 1, "hidden": 1, "n_tokens": 3, "head_width": 2},
    "wider inside": {"hidden": 40},
    "wide heads": {"head_width": 132, "n_heads": 2},
}


def config_of(impl, **changes):
    return impl.LlamaConfig(**(SMALL | changes))


def filled(module, rng):
    """Give all parameters numbers of their size, norms and biases too; return the module."""
    state = {}
    for name, each in module.named_parameters():
        spread = 1 if each.ndim == 1 else 1 / math.sqrt(each.shape[-1])
        state[name] = spread * rng.normal(size=each.shape) + (0.5 if "norm" in name else 0)
    module.load_state_dict(state)
    return module


def state_of(module):
    return {name: each.data.astype(np.float64) for name, each in module.named_parameters()}


def slow_norm(x, weight, eps):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def slow_frequencies(config):
    found = []
    for i in range(config.head_width // 2):
        f = config.base ** (-2 * i / config.head_width)
        scaling = config.scaling
        if scaling is not None and scaling.kind == "linear":
            f /= scaling.factor
        elif scaling is not None:
            turns = scaling.original_max_seq_len * f / (2 * math.pi)
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            kept = min(max((turns - low) / (high - low), 0), 1)
            f = kept * f + (1 - kept) * f / scaling.factor
        found.append(f)
    return np.array(found)


def turned(x, positions, config):
    half = config.head_width // 2
    angles = np.asarray(positions, float)[:, None] * slow_frequencies(config)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def slow_attention(state, x, config, mask=None, positions=None, name=""):
    n, d = x.shape[-2], config.head_width
    positions = range(n) if positions is None else positions
    mask = np.ones((n, n), bool) if mask is None else mask

    def made(layer, head):
        y = x @ state[f"{name}{layer}.weight"].T + state.get(f"{name}{layer}.bias", 0)
        y = y[..., head * d : (head + 1) * d]
        if f"{name}{layer}_norm.weight" in state:
            y = slow_norm(y, state[f"{name}{layer}_norm.weight"], config.eps)
        return y if layer == "value" else turned(y, positions, config)

    total = 0
    for head in range(config.n_heads):
        place = head // (config.n_heads // config.n_kv_heads)
        q, k, v = made("query", head), made("key", place), made("value", place)
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(d)
        seen = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, scores.shape))
        scores = np.where(seen, scores, -np.inf)
        largest = scores.max(axis=-1, keepdims=True)
        e = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
        weights = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-300)
        total = total + weights @ v @ state[f"{name}output.weight"][:, head * d : (head + 1) * d].T
    return total


def slow_feed_forward(state, x, name):
    gate, up = (x @ state[f"{name}{each}.weight"].T for each in ("gate", "up"))
    return (gate / (1 + np.exp(-gate)) * up) @ state[f"{name}down.weight"].T


def slow_block(state, x, config, mask=None, positions=None, name=""):
    normed = slow_norm(x, state[f"{name}attention_norm.weight"], config.eps)
    x = x + slow_attention(state, normed, config, mask, positions, f"{name}attention.")
    normed = slow_norm(x, state[f"{name}feed_forward_norm.weight"], config.eps)
    return x + slow_feed_forward(state, normed, f"{name}feed_forward.")


def slow_llama(state, ids, config):
    ids = np.asarray(ids)
    n = ids.shape[-1]
    distance = np.arange(n)[:, None] - np.arange(n)
    mask = (distance >= 0) & (distance < (config.window or n + 1))
    x = state["token_embedding.weight"][ids]
    for i in range(config.n_layers):
        x = slow_block(state, x, config, mask, None, f"blocks.{i}.")
    x = slow_norm(x, state["norm.weight"], config.eps)
    return x @ state["token_embedding.weight" if config.is_tied else "head.weight"].T


def close(got, expected, label, dtype=np.float64, ulps=None):
    """Rounding in some hundred operations on numbers of about the largest one's size."""
    assert got.dtype == dtype, label
    size = 1 + 4 * np.abs(expected).max(initial=0)
    ulps = ulps or (200 if dtype == np.float64 else 20)
    battery.check_equal(got, expected, ulps, size, dtype, label)


# The shape -----------------------------------------------------------------------------------------------


def test_a_config_holds_what_it_is_given(impl):
    config = impl.LlamaConfig(11, 8, 5, 2, 4, 2)
    plain = {"n_tokens": 11, "width": 8, "hidden": 5, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    plain |= {"head_width": 2, "base": 10_000.0, "scaling": None, "eps": 1e-6, "is_tied": True}
    plain |= {"has_qkv_bias": False, "has_head_norms": False, "window": None}
    assert {name: getattr(config, name) for name in plain} == plain
    assert [each.name for each in dataclasses.fields(config)] == list(plain)
    for width, n_heads, expected in [(9, 2, 4), (8, 1, 8), (576, 9, 64), (5, 2, 2)]:
        made = config_of(impl, width=width, n_heads=n_heads, n_kv_heads=1, head_width=None)
        assert made.head_width == expected
    assert config_of(impl, head_width=10).head_width == 10
    assert config == impl.LlamaConfig(11, 8, 5, 2, 4, 2)
    assert hash(config) == hash(impl.LlamaConfig(11, 8, 5, 2, 4, 2))
    assert config != impl.LlamaConfig(11, 8, 5, 2, 4, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 10
    large = config_of(impl, n_tokens=10**6, width=10**5, n_layers=1000, window=1, base=1e7, eps=10)
    assert (large.n_tokens, large.width, large.n_layers) == (10**6, 10**5, 1000)


def test_what_a_config_refuses(impl):
    counts = ["n_tokens", "width", "hidden", "n_layers", "n_heads", "n_kv_heads", "head_width", "window"]
    for name in counts:
        for value in (0, -1, -4, 2.0, 1.0, "2", True, False):
            battery.refuses(config_of, impl, **{name: value})
    for name in counts[:6]:
        battery.refuses(config_of, impl, **{name: None})
    for value in (0, 0.0, False):  # not as if it had been left out
        battery.refuses(config_of, impl, width=8, n_heads=2, head_width=value)
    for name in counts[:6]:
        battery.refuses(config_of, impl, **{name: np.int64(2)})
    for n_heads, n_kv_heads in [(2, 3), (3, 2), (2, 4), (6, 4), (7, 2), (8, 3)]:
        battery.refuses(config_of, impl, n_heads=n_heads, n_kv_heads=n_kv_heads)
    for head_width in (1, 3, 5, 127):
        battery.refuses(config_of, impl, head_width=head_width)
    for width, n_heads in [(6, 2), (1, 1), (3, 4), (5, 1), (7, 7)]:
        battery.refuses(config_of, impl, width=width, n_heads=n_heads, head_width=None)
    for name in ("base", "eps"):
        for value in (0, 0.0, -1e-6, -1.0, float("nan"), math.inf):
            battery.refuses(config_of, impl, **{name: value})


# Attention, block, model ---------------------------------------------------------------------------------


def masks(rng, n):
    """Two in three may be seen; the second row of the second one sees nothing."""
    sparse = rng.random((n, n)) < 2 / 3
    sparse[n // 2] = False
    return {"none": None, "causal": np.tri(n, dtype=bool), "sparse": sparse, "later": np.tri(n, dtype=bool).T}


@pytest.mark.parametrize("part", ["LlamaAttention", "LlamaBlock"])
def test_every_shape_is_its_definition(impl, rng, part):
    slow = slow_attention if part == "LlamaAttention" else slow_block
    for label, changes in SHAPES.items():
        config = config_of(impl, **changes)
        module = filled(getattr(impl, part)(config, rng), rng)
        state = state_of(module)
        for n, (name, mask) in zip((1, 3, 4, 5), masks(rng, 5).items(), strict=True):
            x = rng.normal(size=(n, config.width))
            mask = None if mask is None else mask[:n, :n]
            before = x.copy()
            close(module(Tensor(x), mask), slow(state, x, config, mask), f"{part}, {label}, mask {name}")
            assert np.array_equal(x, before)
        positions = np.array([5, 0, 300_000])  # an angle of that size is off by as many roundings
        x = rng.normal(size=(3, config.width))
        got = module(Tensor(x), positions=positions)
        close(got, slow(state, x, config, None, positions), f"{part}, {label}, positions", ulps=1e6)
        close(module(Tensor(x), None, np.arange(3)), slow(state, x, config), f"{part}, {label}, 0, 1, 2")


LEADING = [(1,), (2,), (0,), (2, 3), (3, 2), (2, 1, 3)]


def test_samples_and_their_masks(impl, rng):
    for changes in ({}, {"n_heads": 6, "n_kv_heads": 2, "has_head_norms": True, "has_qkv_bias": True}):
        config = config_of(impl, **changes)
        for part, slow in (("LlamaAttention", slow_attention), ("LlamaBlock", slow_block)):
            module = filled(getattr(impl, part)(config, rng), rng)
            state = state_of(module)
            for leading in LEADING:
                x = rng.normal(size=(*leading, 3, config.width))
                label = f"{part}, leading axes {leading}"
                positions = rng.integers(40, size=3)
                close(module(Tensor(x)), slow(state, x, config), label)
                for shape in ((3, 3), (*leading, 3, 3), (1, 3, 3)):
                    mask = rng.random(shape) < 2 / 3
                    kept = mask.copy(), positions.copy()
                    got = module(Tensor(x), mask, positions)
                    close(got, slow(state, x, config, mask, positions), f"{label}, mask {shape}")
                    assert np.array_equal(mask, kept[0])
                    assert np.array_equal(positions, kept[1])
    for n in aim.sizes(33, 130, at_most=600):
        config = config_of(impl, width=2, head_width=2, n_layers=1)
        module = filled(impl.LlamaAttention(config, rng), rng)
        x, mask = rng.normal(size=(n, 2)), np.tri(n, dtype=bool)
        close(module(Tensor(x), mask), slow_attention(state_of(module), x, config, mask), f"{n} tokens")


def test_layouts_and_dtypes(impl, rng):
    config = config_of(impl, has_head_norms=True, has_qkv_bias=True, is_tied=False)
    for dtype in battery.FLOATS:
        for part, slow in (("LlamaAttention", slow_attention), ("LlamaBlock", slow_block)):
            module = filled(getattr(impl, part)(config, rng, dtype=dtype), rng)
            assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
            x = rng.normal(size=(2, 3, 6)).astype(dtype)
            for positions in (None, np.array([2, 5, 9], np.int16)):
                expected = slow(state_of(module), x.astype(np.float64), config, None, positions)
                close(module(Tensor(x), None, positions), expected, f"{part}, {np.dtype(dtype).name}", dtype)
        model = filled(impl.Llama(config, rng, dtype=dtype), rng)
        assert {each.dtype for each in model.parameters()} == {np.dtype(dtype)}
        got = model(np.array([3, 1, 4]))
        close(got, slow_llama(state_of(model), [3, 1, 4], config), f"Llama, {np.dtype(dtype).name}", dtype)
    module = filled(impl.LlamaAttention(config, rng), rng)
    x = rng.normal(size=(2, 4, 6))
    mask = rng.random((2, 4, 4)) < 2 / 3
    for layout, lay in battery.LAYOUTS.items():
        got = module(Tensor(lay(x)), lay(mask), lay(np.arange(4)))
        expected = slow_attention(state_of(module), lay(x), config, lay(mask), lay(np.arange(4)))
        close(got, expected, layout)
    for size in (0.0, 1e-9, 1e-3, 30.0, 1e4):
        x = size * rng.normal(size=(4, 6))
        close(module(Tensor(x)), slow_attention(state_of(module), x, config), f"x times {size:g}")


def test_every_model_is_its_definition(impl, rng):
    for label, changes in SHAPES.items():
        config = config_of(impl, **changes)
        model = filled(impl.Llama(config, rng), rng)
        assert model.config == config
        state = state_of(model)
        shapes = [(5,), (1,), (2, 1, 3), (0, 4)] if label in ("the plainest", "a window") else []
        for shape in (*shapes, (2, 4)):
            ids = rng.integers(config.n_tokens, size=shape)
            kept = ids.copy()
            close(model(ids), slow_llama(state, ids, config), f"{label}, ids {shape}")
            assert np.array_equal(ids, kept)
    for dtype in (np.uint8, np.int16, np.uint64):
        ids = rng.integers(config.n_tokens, size=4).astype(dtype)
        close(model(ids), slow_llama(state, ids, config), f"ids of {np.dtype(dtype).name}")
    config = config_of(impl, n_layers=1, width=2, head_width=2, hidden=1)
    for n in aim.sizes(130, at_most=600):
        for window in (None, n // 2 + 1, n - 1 or None):
            config = dataclasses.replace(config, window=window)
            model = filled(impl.Llama(config, rng), rng)
            ids = rng.integers(11, size=n)
            close(model(ids), slow_llama(state_of(model), ids, config), f"{n} tokens, window {window}")
    for n in aim.sizes(at_most=40):
        config = config_of(impl, n_layers=n, width=2, head_width=2, hidden=1)
        model = filled(impl.Llama(config, rng), rng)
        close(model(ids[:3]), slow_llama(state_of(model), ids[:3], config), f"{n} layers")
        config = config_of(impl, n_heads=n, head_width=2)
        model = filled(impl.Llama(config, rng), rng)
        close(model(ids[:3]), slow_llama(state_of(model), ids[:3], config), f"{n} heads")


def check_gradients(module, call, slow, rng, x=None):
    """Compare the derivative along a random direction of each parameter with a difference."""
    state, leaf = state_of(module), None if x is None else Tensor(x, requires_grad=True)
    result = call(leaf)
    g = rng.normal(size=result.shape)
    result.backward(g)
    entries = [(name, each.grad) for name, each in module.named_parameters()]
    for name, grad in [*entries, *([] if leaf is None else [("x", leaf.grad)])]:
        at = x if name == "x" else state[name]
        assert grad is not None, f"no gradient reaches {name}"
        direction = rng.normal(size=at.shape)
        values = []
        for step in (1e-5, -1e-5):
            moved = at + step * direction
            values.append((g * (slow(state, moved) if name == "x" else slow(state | {name: moved}, x))).sum())
        expected = (values[0] - values[1]) / 2e-5
        got = (grad * direction).sum()
        assert abs(got - expected) < 1e-6 * (1 + abs(expected)), (name, got, expected)


def test_gradients_are_differences(impl, rng):
    for changes in (
        {"has_qkv_bias": True},
        {"n_heads": 6, "n_kv_heads": 3, "has_head_norms": True, "base": 5.0, "is_tied": False, "window": 2},
        {"scaling": RopeScaling("linear", 3.0), "n_layers": 1},
    ):
        config = config_of(impl, **changes)
        x, mask, positions = rng.normal(size=(2, 3, 6)), np.tri(3, dtype=bool), np.array([3, 8, 1])
        for part, slow in (("LlamaAttention", slow_attention), ("LlamaBlock", slow_block)):
            module = filled(getattr(impl, part)(config, rng), rng)
            check_gradients(
                module,
                lambda leaf, module=module, mask=mask, at=positions: module(leaf, mask, at),
                lambda state, x, slow=slow, rest=(config, mask, positions): slow(state, x, *rest),
                rng,
                x,
            )
        model, ids = filled(impl.Llama(config, rng), rng), rng.integers(11, size=(2, 4))
        check_gradients(
            model,
            lambda leaf, model=model, ids=ids: model(ids),
            lambda state, x, config=config, ids=ids: slow_llama(state, ids, config),
            rng,
        )
    with no_grad():
        assert not model(ids).requires_grad


ATTENTION = ["query", "key", "value", "output"]


def test_what_the_modules_hold(impl, rng):
    for has_bias in (False, True):
        for has_norms in (False, True):
            config = config_of(impl, n_heads=4, n_kv_heads=2, has_qkv_bias=has_bias, has_head_norms=has_norms)
            shapes = {"query.weight": (16, 6), "query.bias": (16,), "key.weight": (8, 6), "key.bias": (8,)}
            shapes |= {"value.weight": (8, 6), "value.bias": (8,), "output.weight": (6, 16)}
            shapes |= {"query_norm.weight": (4,), "key_norm.weight": (4,)}
            expected = [
                (name, shape)
                for name, shape in shapes.items()
                if (has_bias or "bias" not in name) and (has_norms or "norm" not in name)
            ]
            attention = impl.LlamaAttention(config, rng)
            assert isinstance(attention, Module)
            assert [(name, each.shape) for name, each in attention.named_parameters()] == expected
            for name in ATTENTION:
                assert isinstance(getattr(attention, name), Linear)
            assert isinstance(attention.query_norm, RMSNorm if has_norms else type(None))
            assert isinstance(attention.key_norm, RMSNorm if has_norms else type(None))
            names = ["attention_norm.weight", *(f"attention.{name}" for name, _ in expected)]
            names += ["feed_forward_norm.weight"]
            names += [f"feed_forward.{name}.weight" for name in ("gate", "up", "down")]
            block = impl.LlamaBlock(config, rng)
            assert isinstance(block, Module)
            assert [name for name, _ in block.named_parameters()] == names
            assert isinstance(block.attention, impl.LlamaAttention)
            assert isinstance(block.feed_forward, SwiGLU)
            assert block.feed_forward.gate.weight.shape == (5, 6)
            for norm in (block.attention_norm, block.feed_forward_norm):
                assert isinstance(norm, RMSNorm)
                assert (norm.weight.data == 1).all()
            for is_tied in (False, True):
                model = impl.Llama(dataclasses.replace(config, is_tied=is_tied), rng)
                whole = [
                    "token_embedding.weight",
                    *(f"blocks.{i}.{name}" for i in range(2) for name in names),
                ]
                whole += ["norm.weight"] + ([] if is_tied else ["head.weight"])
                assert [name for name, _ in model.named_parameters()] == whole
                assert isinstance(model.token_embedding, Embedding)
                assert isinstance(model.blocks, list)
                assert all(isinstance(each, impl.LlamaBlock) for each in model.blocks)
                assert isinstance(model.norm, RMSNorm)
                assert isinstance(model.head, type(None) if is_tied else Linear)


def test_weights_are_drawn_in_order_with_their_gains(impl):
    def linear(n_in, n_out, twin, gain=1.0, **options):
        return Linear(n_in, n_out, twin, has_bias=False, gain=gain, **options).weight.data

    def expected_of(config, twin, made=()):
        gain = 1 / math.sqrt(2 * config.n_layers)
        w, wide, narrow = (
            config.width,
            config.n_heads * config.head_width,
            config.n_kv_heads * config.head_width,
        )
        yield "token_embedding.weight", Embedding(config.n_tokens, w, twin).weight.data
        for i in range(config.n_layers):
            if i in made:
                twin.normal(size=3)
            for name, n_in, n_out in [("query", w, wide), ("key", w, narrow), ("value", w, narrow)]:
                yield f"blocks.{i}.attention.{name}.weight", linear(n_in, n_out, twin)
            yield f"blocks.{i}.attention.output.weight", linear(wide, w, twin, gain)
            if i not in made:
                for name in ("gate", "up"):
                    yield f"blocks.{i}.feed_forward.{name}.weight", linear(w, config.hidden, twin)
                yield f"blocks.{i}.feed_forward.down.weight", linear(config.hidden, w, twin, gain)
        if not config.is_tied:
            yield "head.weight", linear(w, config.n_tokens, twin, 0.02 * math.sqrt(w))

    for label, changes in SHAPES.items():
        config = config_of(impl, **changes)
        rng, twin = np.random.default_rng(5), np.random.default_rng(5)
        state = state_of(impl.Llama(config, rng))
        for name, weight in expected_of(config, twin):
            battery.check_equal(state.pop(name), weight, 8, label=f"{label}: {name}")
        for name, rest in state.items():
            assert (rest == (0 if name.endswith("bias") else 1)).all()
        assert rng.random() == twin.random()
    for part in ("LlamaAttention", "LlamaBlock"):
        rng, twin = np.random.default_rng(6), np.random.default_rng(6)
        config = config_of(impl, n_layers=7)
        state = state_of(getattr(impl, part)(config, rng))
        Embedding(1, 1, np.random.default_rng(0))
        start = "" if part == "LlamaBlock" else "attention."
        names = [f"blocks.0.{start}{name}" for name in state if "norm" not in name]
        first = dict(list(_without_embedding(expected_of, config, twin))[: len(names)])
        for name, weight in first.items():
            mine = name.removeprefix("blocks.0.").removeprefix(start)
            battery.check_equal(state[mine], weight, 8, label=f"{part}: {name}")
    # A layer's own feed-forward part is made before its block is drawn.
    config, rng, twin = config_of(impl, n_layers=3), np.random.default_rng(7), np.random.default_rng(7)
    calls = []

    def make(layer):
        calls.append(layer)
        return Half(rng.normal(size=3)) if layer in (0, 2) else None

    model = impl.Llama(config, rng, make)
    assert calls == [0, 1, 2]
    state = state_of(model)
    for name, weight in expected_of(config, twin, made=(0, 2)):
        battery.check_equal(state[name], weight, 8, label=f"with others: {name}")
    assert isinstance(model.blocks[0].feed_forward, Half)
    assert isinstance(model.blocks[1].feed_forward, SwiGLU)
    assert calls == [0, 1, 2]


def _without_embedding(expected_of, config, twin):
    """Give what a block draws: the table is drawn from another generator."""
    parts = expected_of(dataclasses.replace(config, n_tokens=1, width=config.width), _Skipping(twin))
    next(parts)
    yield from parts


class _Skipping:
    """A generator whose first numbers are not drawn."""

    def __init__(self, rng):
        self.rng, self.is_first = rng, True

    def normal(self, size):
        if self.is_first:
            self.is_first = False
            return np.zeros(size)
        return self.rng.normal(size=size)


class Half(Module):
    """Another feed-forward part: half of each token, and a number that is learned."""

    def __init__(self, values):
        self.shift = Parameter(values[:1])

    def forward(self, x):
        return x * 0.5 + self.shift


def test_another_feed_forward_part_takes_its_place(impl, rng):
    class Empty(Half):
        def __len__(self):
            return 0

    config = config_of(impl)
    empty = Empty(np.array([3.0]))
    assert impl.LlamaBlock(config, rng, empty).feed_forward is empty
    assert impl.Llama(config, rng, lambda layer: empty).blocks[0].feed_forward is empty
    half = Half(np.array([3.0]))
    block = impl.LlamaBlock(config, rng, half)
    assert block.feed_forward is half
    filled(block, rng)
    state, x = state_of(block), rng.normal(size=(2, 3, 6))
    y = x + slow_attention(
        state, slow_norm(x, state["attention_norm.weight"], 1e-6), config, name="attention."
    )
    normed = slow_norm(y, state["feed_forward_norm.weight"], 1e-6)
    close(block(Tensor(x)), y + normed / 2 + state["feed_forward.shift"], "half of each token")
    model = filled(impl.Llama(config, rng, lambda layer: block.feed_forward if layer else None), rng)
    names = [name for name, _ in model.named_parameters()]
    assert "blocks.1.feed_forward.shift" in names
    assert "blocks.0.feed_forward.up.weight" in names
    assert model(np.array([1, 2])).shape == (2, 11)


def test_later_tokens_change_nothing(impl, rng):
    for window in (None, 3):
        config = config_of(impl, window=window)
        model = filled(impl.Llama(config, rng), rng)
        ids = rng.integers(11, size=9)
        before = model(ids).data.copy()
        for n in range(1, 9):
            close(model(ids[:n]), before[:n], f"the first {n} tokens")
        ids[5:] = (ids[5:] + 1) % 11
        assert np.array_equal(model(ids).data[:5], before[:5])
        reach = 1 + config.n_layers * (window - 1) if window else 9
        changed = ids.copy()
        changed[0] = (ids[0] + 1) % 11
        same = (model(changed).data == model(ids).data).all(axis=-1)
        assert same.tolist() == [i >= reach for i in range(9)]


def test_only_distances_count(impl, rng):
    module = filled(impl.LlamaAttention(config_of(impl, has_head_norms=True), rng), rng)
    x, positions = rng.normal(size=(4, 6)), np.array([0, 1, 5, 9])
    close(module(Tensor(x), None, positions + 17), module(Tensor(x), None, positions).data, "17 tokens later")


def test_modules_share_nothing_and_depend_on_their_generator_alone(impl):
    config = config_of(impl, has_head_norms=True, has_qkv_bias=True, is_tied=False)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, other = (impl.Llama(config, np.random.default_rng(0)) for _ in range(2))
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert np.array_equal(mine.data, theirs.data)
        mine.data += 1
        assert not np.array_equal(mine.data, theirs.data)
    blocks = [block.attention.query.weight.data for block in other.blocks]
    assert not np.array_equal(*blocks)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_parts_may_be_changed_and_exchanged(impl, rng):
    config = config_of(impl, has_head_norms=True, has_qkv_bias=True, is_tied=False)
    model = filled(impl.Llama(config, rng), rng)
    ids = rng.integers(11, size=4)

    def check(label):
        close(model(ids), slow_llama(state_of(model), ids, config), label)

    check("before")
    for name, each in model.named_parameters():
        each.data *= 1.5
        check(f"{name} changed")
        each.data = each.data + 0.1
        check(f"{name} replaced")
    for owner in (model.blocks[1].attention, model.blocks[0].feed_forward):
        for name in [*ATTENTION, "gate", "up", "down"]:
            if hasattr(owner, name):
                layer = getattr(owner, name)
                n_out, n_in = layer.weight.shape
                setattr(owner, name, Linear(n_in, n_out, rng, layer.bias is not None))
                check(f"{name} exchanged")
    for owner, name, width in [
        (model, "norm", 6),
        (model.blocks[0], "attention_norm", 6),
        (model.blocks[1], "feed_forward_norm", 6),
        (model.blocks[0].attention, "query_norm", 4),
        (model.blocks[0].attention, "key_norm", 4),
    ]:
        setattr(owner, name, filled(RMSNorm(width), rng))
        check(f"{name} exchanged")
    model.blocks = [model.blocks[1], model.blocks[0]]
    check("blocks exchanged")
    model.head = Linear(6, 11, rng, has_bias=False)
    check("head exchanged")
    model.token_embedding = Embedding(11, 6, rng)
    check("embedding exchanged")
    before = model(ids).data.copy()
    assert np.array_equal(model.eval()(ids).data, before)
    assert np.array_equal(model.train()(ids).data, before)


def test_what_the_modules_refuse(impl, rng):
    config = config_of(impl)
    for part in ("LlamaAttention", "LlamaBlock"):
        module = getattr(impl, part)(config, rng)
        for shape in [(), (6,), (3, 5), (3, 1), (2, 6, 3), (3, 12), (3, 8)]:
            battery.refuses(module, Tensor(np.ones(shape)))
        x = Tensor(rng.normal(size=(2, 3, 6)))
        for mask in (np.ones((3, 3)), np.zeros((3, 3)), np.ones((3, 3), int)):
            battery.refuses(module, x, mask)
        for shape in [(2, 2), (3, 4), (4, 4), (5, 3, 3), (3, 3, 3)]:
            battery.refuses(module, x, np.ones(shape, bool))
        for positions in (np.arange(2), np.arange(4), np.arange(1), np.arange(0), np.array(0), [[0, 1, 2]]):
            battery.refuses(module, x, None, positions)
    for is_tied in (True, False):
        model = impl.Llama(config_of(impl, is_tied=is_tied), rng)
        for ids in ([-1], [11], [3, 2, 11], [[1], [-2]]):
            battery.refuses(model, np.array(ids))
        for ids in (np.array(3), np.array([1.0]), np.array([True])):
            battery.refuses(model, ids)


# Folders -------------------------------------------------------------------------------------------------


def values_of(kind, **changes):
    """Return a config.json of 3 layers, as a dictionary; None drops a key, "null" is null."""
    values = {"model_type": kind, "vocab_size": 13, "hidden_size": 12, "intermediate_size": 7}
    values |= {"num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 3}
    values |= {"qwen3": {"head_dim": 4}, "mistral": {"sliding_window": 5}}.get(str(kind), {})
    values |= changes
    return {key: None if each == "null" else each for key, each in values.items() if each is not None}


def written(folder, values):
    folder.mkdir(exist_ok=True)
    text = values if isinstance(values, str) else json.dumps(values)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


KINDS = ("llama", "mistral", "qwen2", "qwen3")
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}


def test_what_config_json_says(impl, tmp_path):
    plain = {"n_tokens": 13, "width": 12, "hidden": 7, "n_layers": 3, "n_heads": 6, "n_kv_heads": 3}
    plain |= {"is_tied": False}
    switches = {
        "llama": {},
        "mistral": {"window": 5},
        "qwen2": {"has_qkv_bias": True},
        "qwen3": {"has_head_norms": True, "head_width": 4},
    }
    cases = [
        ({}, {}),
        ({"head_dim": 8}, {"head_width": 8}),
        ({"num_attention_heads": 3, "num_key_value_heads": 1}, {"n_heads": 3, "n_kv_heads": 1}),
        ({"hidden_size": 24}, {"width": 24}),
        ({"rms_norm_eps": 1e-5}, {"eps": 1e-5}),
        ({"tie_word_embeddings": True}, {"is_tied": True}),
        ({"tie_word_embeddings": False}, {}),
        ({"rope_theta": 500_000}, {"base": 500_000.0}),
        ({"rope_theta": 2.5, "rope_parameters": {"rope_theta": 7.0}}, {"base": 7.0}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, {"base": 7.0}),
        ({"rope_scaling": "null", "rope_parameters": {"rope_theta": 7.0}}, {"base": 7.0}),
        ({"rope_scaling": {}, "rope_parameters": {"rope_theta": 7.0}}, {"base": 7.0}),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 4}},
            {"scaling": RopeScaling("linear", 4.0)},
        ),
        ({"rope_scaling": {"type": "linear", "factor": 3.0}}, {"scaling": RopeScaling("linear", 3.0)}),
        (
            {"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 3.0}},
            {"scaling": RopeScaling("linear", 3.0)},
        ),
        (
            {
                "rope_scaling": {"rope_type": "linear", "factor": 3.0},
                "rope_parameters": {"rope_theta": 9.0},
            },
            {"scaling": RopeScaling("linear", 3.0)},
        ),
        (
            {"rope_theta": 9.0, "rope_scaling": {"type": "llama3", **LLAMA3}},
            {"scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 64), "base": 9.0},
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", **LLAMA3, "rope_theta": 9.0}},
            {"scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 64), "base": 9.0},
        ),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 8.0}, "rope_theta": 3.0}, {"base": 8.0}),
        ({"hidden_act": "silu"}, {}),
        ({"hidden_act": "swish", "attention_bias": False, "mlp_bias": False}, {}),
        ({"use_sliding_window": False, "quantization_config": "null", "layer_types": "null"}, {}),
        ({"layer_types": ["full_attention"] * 3, "partial_rotary_factor": 1.0}, {}),
        ({"rope_parameters": {"partial_rotary_factor": None}, "partial_rotary_factor": "null"}, {}),
        ({"rope_scaling": {"partial_rotary_factor": 1.0, "rope_theta": 8.0}}, {"base": 8.0}),
        ({"some_key": [1, {"a": "b"}], "max_position_embeddings": 7, "torch_dtype": "bfloat16"}, {}),
    ]
    for number, (changes, expected) in enumerate(cases):
        for kind in KINDS if number < 3 else (KINDS[number % 4], KINDS[(number + 1 + number // 4 % 3) % 4]):
            values = values_of(kind, **changes)
            config, found = impl.read_config(written(tmp_path, values))
            given = {**plain, **switches[kind], **expected}
            assert config == impl.LlamaConfig(**given), (kind, changes)
            assert found == values
    assert isinstance(config, impl.LlamaConfig)
    for kind in ("llama", "qwen2", "mistral"):
        config, _ = impl.read_config(str(written(tmp_path, values_of(kind, head_dim="null"))))
        assert config.head_width == 2
    for window in ("null", 1, 4096):
        config, _ = impl.read_config(written(tmp_path, values_of("mistral", sliding_window=window)))
        assert config.window == (None if window == "null" else window)
    for kind in ("llama", "qwen2", "qwen3"):
        config, _ = impl.read_config(written(tmp_path, values_of(kind, sliding_window=4)))
        assert config.window is None


def test_what_is_read_of_other_model_types(impl, tmp_path):
    for kind, expected in {
        "qwen2_moe": {"has_qkv_bias": True},
        "qwen3_moe": {"has_head_norms": True},
        "other": {},
    }.items():
        folder = written(tmp_path, values_of(kind, moe_intermediate_size=3))
        config, values = impl.read_config(folder, (kind,))
        assert values["moe_intermediate_size"] == 3
        assert dataclasses.replace(config, **dict.fromkeys(expected, False)) == impl.LlamaConfig(
            13, 12, 7, 3, 6, 3, is_tied=False
        )
        assert all(getattr(config, name) for name in expected)
        battery.refuses(impl.read_config, folder, says=["model_type"])
        battery.refuses(impl.read_config, folder, model_types=("llama",), says=["model_type"])
    folder = written(tmp_path, values_of("llama"))
    assert impl.read_config(folder, {"llama": 1, "x": 2})[0].n_tokens == 13
    battery.refuses(impl.read_config, folder, ["mistral", "xllama", "llama2"], says=["model_type"])


def test_what_config_json_may_not_say(impl, tmp_path):
    battery.refuses(impl.read_config, tmp_path / "nothing")
    battery.refuses(impl.read_config, tmp_path)
    for text in ("", "{", "[]", "3", "null", "[" * 100_000, '"llama"', json.dumps([values_of("llama")])):
        battery.refuses(impl.read_config, written(tmp_path, text))
    for kind in ("gpt2", "Llama", "llama2", "lama", "", 3, ["llama"], "null", "mixtral", "qwen3_moe"):
        battery.refuses(impl.read_config, written(tmp_path, values_of(kind if kind != "null" else None)))
    rope = {"rope_type": "llama3", **LLAMA3}
    needed = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    needed += ["num_key_value_heads"]
    wrong = [(key, value) for key in needed for value in (None, 0, -1, 2.0, "3", True, "null", [3])]
    wrong += [("head_dim", each) for each in (0, 3, -2, 4.0, "4", True)]
    wrong += [("rms_norm_eps", each) for each in (0, -1e-6, "1e-6", True, "null", [1])]
    wrong += [("tie_word_embeddings", each) for each in (1, 0, "true", "null")]
    wrong += [("rope_theta", each) for each in (0, -1.0, "10000", True, "null")]
    wrong += [("num_key_value_heads", each) for each in (4, 5, 12)]
    wrong += [("hidden_act", each) for each in ("gelu", "relu", "null", "SiLU", "gelu_pytorch_tanh")]
    switches = ("attention_bias", "mlp_bias", "use_sliding_window")
    wrong += [(key, value) for key in switches for value in (True, 1, "null", "false", [])]
    wrong += [("quantization_config", {"bits": 4}), ("quantization_config", {})]
    wrong += [("partial_rotary_factor", 0.5), ("partial_rotary_factor", 0)]
    sliding = "sliding_attention"
    wrong += [
        ("layer_types", [sliding] * 3),
        ("layer_types", ["full_attention", sliding]),
        ("layer_types", 3),
    ]
    wrong += [("layer_types", "full_attention"), ("layer_types", [3]), ("layer_types", {"full_attention": 1})]
    for key in ("rope_scaling", "rope_parameters"):
        wrong += [(key, {"rope_type": each, "factor": 2.0}) for each in ("dynamic", "yarn", "Linear", 3)]
        wrong += [(key, {"type": "longrope", "factor": 2.0}), (key, 3), (key, [1]), (key, "linear")]
        wrong += [(key, {"rope_type": "linear"}), (key, {"type": "linear", "factor": "2"})]
        wrong += [(key, {"partial_rotary_factor": 0.25, "rope_type": "default"})]
        wrong += [(key, {"rope_type": "default", "rope_theta": each}) for each in ("7", 0, None, True)]
        wrong += [(key, {name: each for name, each in rope.items() if name != left}) for left in LLAMA3]
        wrong += [(key, rope | {name: "3"}) for name in LLAMA3]
    for number, (key, value) in enumerate(wrong):
        kind = KINDS[number % 4]
        battery.refuses(impl.read_config, written(tmp_path, values_of(kind, **{key: value})))
    for key in needed:
        battery.refuses(impl.read_config, written(tmp_path, values_of("llama", **{key: None})), says=[key])
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        battery.refuses(impl.read_config, written(tmp_path, values_of("qwen2", **{key: True})), says=[key])
    for kind, key in {"qwen3": "head_dim", "mistral": "sliding_window"}.items():
        folder = written(tmp_path, values_of(kind, **{key: None}))
        battery.refuses(impl.read_config, folder, says=[key])
    for window in (0, -1, 2.5, "3", True):
        battery.refuses(impl.read_config, written(tmp_path, values_of("mistral", sliding_window=window)))


def test_weights_in_one_file_or_several(impl, rng, tmp_path):
    tensors = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in "abcd"}

    def equal(found, names):
        assert sorted(found) == sorted(names)
        for name in names:
            assert found[name].dtype == np.float32
            assert np.array_equal(found[name], tensors[name])

    battery.refuses(impl.read_weights, tmp_path)
    battery.refuses(impl.read_weights, tmp_path / "nothing")
    index = tmp_path / "model.safetensors.index.json"
    save_file({"a": tensors["a"], "b": tensors["b"]}, tmp_path / "model-1.safetensors")
    save_file({"c": tensors["c"], "d": tensors["d"]}, tmp_path / "other")
    battery.refuses(impl.read_weights, tmp_path)
    places = {"a": "model-1.safetensors", "d": "other", "c": "other"}
    index.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": places}))
    equal(impl.read_weights(tmp_path), "acd")
    equal(impl.read_weights(str(tmp_path)), "acd")
    index.write_text(json.dumps({"weight_map": {}}))
    assert impl.read_weights(tmp_path) == {}
    (tmp_path / "inner").mkdir()
    save_file(tensors, tmp_path / "inner" / "model")
    outer = tmp_path / "inner" / ".." / "other"
    for wrong in (
        {"a": "missing"},
        {"a": "other"},
        {"e": "other"},
        {"a": "inner/model"},
        {"a": "../model"},
        {"c": str(tmp_path / "other")},
        {"c": str(outer)},
        {"c": "./other"},
        {"a": 3},
        {"a": None},
        {"a": ["model-1.safetensors"]},
        ["other"],
        "other",
        None,
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        battery.refuses(impl.read_weights, tmp_path)
    for text in ("{}", "[]", "", "{", '"other"'):
        index.write_text(text)
        battery.refuses(impl.read_weights, tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    equal(impl.read_weights(tmp_path), "abcd")
    index.unlink()
    equal(impl.read_weights(tmp_path), "abcd")
    halves = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = np.array([1.5, -3.0], np.float32).view(np.uint16)[1::2].tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(halves).to_bytes(8, "little") + halves + data)
    assert impl.read_weights(tmp_path)["a"].tolist() == [1.5, -3.0]
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    battery.refuses(impl.read_weights, tmp_path)


def their_names(config):
    """Our names and theirs, written out."""
    names = {"token_embedding.weight": "model.embed_tokens.weight"}
    for i in range(config.n_layers):
        layer = f"model.layers.{i}"
        names[f"blocks.{i}.attention_norm.weight"] = f"{layer}.input_layernorm.weight"
        for ours, theirs in zip(ATTENTION, "qkvo", strict=True):
            names[f"blocks.{i}.attention.{ours}.weight"] = f"{layer}.self_attn.{theirs}_proj.weight"
            if config.has_qkv_bias and theirs != "o":
                names[f"blocks.{i}.attention.{ours}.bias"] = f"{layer}.self_attn.{theirs}_proj.bias"
        if config.has_head_norms:
            names[f"blocks.{i}.attention.query_norm.weight"] = f"{layer}.self_attn.q_norm.weight"
            names[f"blocks.{i}.attention.key_norm.weight"] = f"{layer}.self_attn.k_norm.weight"
        names[f"blocks.{i}.feed_forward_norm.weight"] = f"{layer}.post_attention_layernorm.weight"
        for part in ("gate", "up", "down"):
            names[f"blocks.{i}.feed_forward.{part}.weight"] = f"{layer}.mlp.{part}_proj.weight"
    names["norm.weight"] = "model.norm.weight"
    return names if config.is_tied else names | {"head.weight": "lm_head.weight"}


def weights_for(config, model, rng, dtype=np.float32):
    shapes = {name: each.shape for name, each in model.named_parameters()}
    return {
        theirs: (rng.normal(size=shapes[ours]) / math.sqrt(shapes[ours][-1])).astype(dtype)
        for ours, theirs in their_names(config).items()
    }


def test_weights_find_their_places(impl, rng):
    for changes in (
        {},
        {"is_tied": False, "has_qkv_bias": True},
        {"n_layers": 11, "has_head_norms": True, "has_qkv_bias": True, "is_tied": False},
    ):
        config = config_of(impl, n_kv_heads=2, **changes)
        for dtype in battery.FLOATS:
            for stored in battery.FLOATS:
                if dtype != np.float64 and stored != np.float64 and changes:
                    continue
                model = impl.Llama(config, rng, dtype=dtype)
                weights = weights_for(config, model, rng, stored)
                kept = {name: each.copy() for name, each in weights.items()}
                items = list(weights.items())
                shuffled = dict(items[i] for i in rng.permutation(len(items)))
                arrays = [each.data for each in model.parameters()]
                assert impl.set_weights(model, shuffled) is None
                for (name, each), array in zip(model.named_parameters(), arrays, strict=True):
                    given = weights[their_names(config)[name]]
                    assert each.data is array or not np.may_share_memory(each.data, given)
                    assert each.dtype == dtype
                    assert np.array_equal(each.data, given.astype(dtype)), name
                    each.data += 1
                for name, each in weights.items():
                    assert np.array_equal(each, kept[name])
                for each in weights.values():
                    each.flags.writeable = False
                impl.set_weights(model, weights)


def test_weights_of_every_layout_and_size(impl, rng):
    config = config_of(impl, width=134, hidden=1, n_layers=1, is_tied=False)
    for layout, lay in battery.LAYOUTS.items():
        for size in (1.0, 1e-30, 1e5):
            model = impl.Llama(config, rng)
            weights = {name: lay(size * each) for name, each in weights_for(config, model, rng).items()}
            impl.set_weights(model, weights)
            for name, each in model.named_parameters():
                assert np.array_equal(each.data, weights[their_names(config)[name]]), (layout, size, name)


def test_what_weights_may_bring_along(impl, rng):
    inverse = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32) for i in range(2)}
    config = config_of(impl)
    model = impl.Llama(config, rng)
    weights = weights_for(config, model, rng)
    impl.set_weights(model, weights | inverse | {"lm_head.weight": np.zeros((11, 6), np.float32)})
    assert np.array_equal(model.token_embedding.weight.data, weights["model.embed_tokens.weight"])
    assert model.head is None
    battery.refuses(impl.set_weights, model, weights | {"inv_freq": np.ones(2)})
    battery.refuses(impl.set_weights, model, weights | {"model.rotary_emb.inv_freq.bias": np.ones(2)})
    battery.refuses(impl.set_weights, model, weights | {"lm_head.bias": np.ones(2)})
    untied = impl.Llama(config_of(impl, is_tied=False), rng)
    battery.refuses(impl.set_weights, untied, weights, says=["lm_head.weight"])


def test_further_words(impl, rng):
    class Both(Module):
        def __init__(self):
            self.blocks = [{"router": Linear(2, 3, rng, False), "experts": [SwiGLU(2, 3, rng)]}]
            self.query = Linear(2, 2, rng)
            self.headless = Linear(2, 2, rng)

    for words, router, query in [
        ({"router": "gate"}, "gate", "q_proj"),
        ({}, "router", "q_proj"),
        (None, "router", "q_proj"),
        ({"query": "router", "router": "query"}, "query", "router"),
    ]:
        weights = {f"model.layers.0.{router}.weight": rng.normal(size=(3, 2))}
        for part, shape in (("gate", (3, 2)), ("up", (3, 2)), ("down", (2, 3))):
            weights[f"model.layers.0.experts.0.{part}_proj.weight"] = rng.normal(size=shape)
        for name in (query, "headless"):
            weights |= {f"model.{name}.weight": rng.normal(size=(2, 2)), f"model.{name}.bias": np.ones(2)}
        model, given = Both(), None if words is None else dict(words)
        impl.set_weights(model, weights, words)
        assert words == given
        assert np.array_equal(
            model.blocks[0]["router"].weight.data, weights[f"model.layers.0.{router}.weight"]
        )
        assert np.array_equal(model.query.weight.data, weights[f"model.{query}.weight"])
        assert np.array_equal(model.headless.weight.data, weights["model.headless.weight"])
        down = model.blocks[0]["experts"][0].down.weight.data
        assert np.array_equal(down, weights["model.layers.0.experts.0.down_proj.weight"])


def test_the_head_is_told_by_our_name(impl, rng):
    """What theirs is called does not matter: model. is left out for our head, and for nothing else."""

    class Two(Module):
        def __init__(self):
            self.head, self.query, self.lm_head = (Linear(2, 2, rng, False) for _ in range(3))

    for words, head, query in [
        ({"head": "score"}, "score", "q_proj"),
        ({"query": "lm_head", "lm_head": "q_proj"}, "lm_head", "lm_head"),
    ]:
        other = "q_proj" if query == "lm_head" else "lm_head"
        names = [f"{head}.weight", f"model.{query}.weight", f"model.{other}.weight"]
        weights, model = {name: rng.normal(size=(2, 2)) for name in names}, Two()
        impl.set_weights(model, weights, words)
        for name, part in zip(names, (model.head, model.query, model.lm_head), strict=True):
            assert np.array_equal(part.weight.data, weights[name]), name


def test_weights_that_do_not_fit_change_nothing(impl, rng):
    config = config_of(impl, is_tied=False, has_qkv_bias=True)
    model = impl.Llama(config, rng)
    weights = weights_for(config, model, rng)
    before = state_of(model)
    for name, each in weights.items():
        rest = {other: array for other, array in weights.items() if other != name}
        rows = np.zeros((each.shape[0] + 1, *each.shape[1:]), np.float32)
        for wrong in (rest, rest | {name: rows}, rest | {name: each[None]}, rest | {name: each[..., :1]}):
            battery.refuses(impl.set_weights, model, wrong, says=[name])
        battery.refuses(impl.set_weights, model, rest | {name: np.ones(each.shape, int)}, says=[name])
        for dtype in (bool, complex, object, "U1"):
            battery.refuses(impl.set_weights, model, rest | {name: np.ones(each.shape, dtype)}, says=[name])
    turned_over = weights | {"model.layers.0.self_attn.k_proj.weight": np.zeros((6, 4), np.float32)}
    battery.refuses(impl.set_weights, model, turned_over, says=["k_proj"])
    extra = {
        "model.layers.2.input_layernorm.weight": np.ones(6),
        "model.layers.0.mlp.up_proj.bias": np.ones(5),
    }
    battery.refuses(impl.set_weights, model, weights | extra, says=list(extra))
    both = {name: each for name, each in weights.items() if "norm" not in name}
    gone = [name for name in weights if "norm" in name]
    battery.refuses(impl.set_weights, model, both | extra, says=["mlp.up_proj.bias", *gone])
    battery.refuses(impl.set_weights, model, {})
    for name, each in model.named_parameters():
        assert np.array_equal(each.data, before[name])


def test_whole_folders(impl, rng, tmp_path):
    for number, kind in enumerate(KINDS):
        folder = tmp_path / kind
        changes = {"head_dim": 8, "rope_theta": 50.0, "tie_word_embeddings": number % 2 == 0}
        changes |= {"rope_scaling": {"rope_type": "llama3", **LLAMA3}} if kind == "llama" else {}
        config, _ = impl.read_config(written(folder, values_of(kind, **changes)))
        weights = weights_for(config, impl.Llama(config, rng), rng)
        if number % 2:
            save_file(weights, folder / "model.safetensors")
        else:
            names = sorted(weights)
            for part, mine in enumerate((names[::2], names[1::2])):
                save_file({name: weights[name] for name in mine}, folder / f"part-{part}.safetensors")
            places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        state = {ours: weights[theirs].astype(float) for ours, theirs in their_names(config).items()}
        ids = rng.integers(13, size=(2, 7))
        expected = slow_llama(state, ids, config)
        for dtype in (np.float32, np.float64):
            model = impl.load_llama(str(folder) if number % 2 else folder, dtype=dtype)
            assert isinstance(model, impl.Llama)
            assert {each.dtype for each in model.parameters()} == {np.dtype(dtype)}
            got = model(ids)
            assert got.dtype == dtype
            close(got, expected, kind, dtype)
        assert {each.dtype for each in impl.load_llama(folder).parameters()} == {np.dtype(np.float32)}
        for each in model.parameters():
            each.data += 1  # writable
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        again = impl.load_llama(folder, np.float64)
        close(again(ids), expected, f"{kind} again")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    battery.refuses(impl.load_llama, tmp_path)
    for changes in ({"num_hidden_layers": 2}, {"tie_word_embeddings": False}, {"head_dim": 4}):
        written(
            tmp_path / "llama", values_of("llama", **({"head_dim": 8, "tie_word_embeddings": True} | changes))
        )
        battery.refuses(impl.load_llama, tmp_path / "llama")
    written(tmp_path / "llama", values_of("gpt2", head_dim=8))
    battery.refuses(impl.load_llama, tmp_path / "llama")
