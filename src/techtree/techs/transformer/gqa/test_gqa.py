"""Oracles: every query head with its own key head, gradients in closed form, values by hand."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.mha import MultiHeadAttention

LAYERS = ("query", "key", "value", "output")
LEADING = [(1,), (2,), (3,), (0,), (2, 3), (3, 2), (2, 1, 2, 1, 1, 2)]
HEADS = [(1, 1), (2, 1), (2, 2), (4, 2), (4, 1), (6, 2), (6, 3), (3, 1), (12, 4), (8, 8), (132, 2), (34, 17)]


def tensor(x):
    return Tensor(x, requires_grad=True)


def slow_repeat(x, n_heads):
    n_shared = n_heads // x.shape[-3]
    return np.stack([x[..., h // n_shared, :, :] for h in range(n_heads)], axis=-3)


def softmax(scores, seen):
    """Over the keys that may be seen; rows that see none are 0."""
    scores = np.where(seen, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total > 0, total, 1)


def slow_parts(q, k, v, mask=None):
    """Return weights (..., H, T, S), and the keys and values of each query head."""
    n_heads, n_queries, width = q.shape[-3:]
    n_keys = k.shape[-2]
    keys, values = slow_repeat(k, n_heads), slow_repeat(v, n_heads)
    seen = np.ones((n_queries, n_keys), bool) if mask is None else mask
    seen = np.broadcast_to(seen, np.broadcast_shapes(seen.shape, (n_queries, n_keys)))
    leading = np.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3], seen.shape[:-2])
    scores = np.einsum("...td,...sd->...ts", q, keys) / math.sqrt(width)
    scores = np.broadcast_to(scores, (*leading, *scores.shape[-3:]))
    return softmax(scores, np.broadcast_to(seen[..., None, :, :], scores.shape)), keys, values


def slow_attention(q, k, v, mask=None):
    p, _, values = slow_parts(q, k, v, mask)
    return np.einsum("...ts,...se->...te", p, values)


def _summed(gradient, shape):
    """Sum over leading axes along which an argument was repeated."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length != gradient.shape[axis])
    return gradient.sum(axis=repeated, keepdims=True)


def _of_group(gradient, n_kv_heads):
    """Sum over the query heads of each group."""
    groups = np.split(gradient, n_kv_heads, axis=-3)
    return np.concatenate([each.sum(axis=-3, keepdims=True) for each in groups], axis=-3)


def slow_attention_gradients(g, q, k, v, mask=None):
    p, keys, values = slow_parts(q, k, v, mask)
    dp = np.einsum("...te,...se->...ts", g, values)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[-1])
    of_q = np.einsum("...ts,...sd->...td", ds, keys)
    of_k = _of_group(np.einsum("...ts,...td->...sd", ds, q), k.shape[-3])
    of_v = _of_group(np.einsum("...ts,...te->...se", p, g), k.shape[-3])
    return [_summed(each, of.shape) for each, of in ((of_q, q), (of_k, k), (of_v, v))]


def off(q, k, v, mask=None):
    """The size of the values, and by how much a score's rounding changes the weights."""
    return _most(v) * (1 + _most(q) * _most(k) * math.sqrt(q.shape[-1]))


def gradients_off(q, k, v, mask=None):
    most = max(_most(q), _most(k), _most(v), 1)
    return 8 * (1 + off(q, k, v)) * most * math.sqrt(1 + max(q.size, k.size))


def _most(x):
    return float(np.abs(x).max(initial=0))


def random_mask(rng, *shape):
    """Two in three may be seen; now and then a query sees none."""
    return rng.random(shape) < 2 / 3


def repeat_cases(rng):
    for n_heads, n_kv_heads in HEADS:
        for n_tokens in (1, 0, 3, n_kv_heads, n_heads):
            for leading in ((), (n_kv_heads,)):
                x = rng.normal(size=(*leading, n_kv_heads, n_tokens, 2))
                yield Case(f"{n_kv_heads} heads for {n_heads}", (x,), {"n_heads": n_heads})
    for width in (1, 0, 7, 130):
        yield Case(f"width {width}", (rng.normal(size=(2, 3, width)),), {"n_heads": 4})
    for leading in LEADING:
        for n_heads in (2, 6):
            x = rng.normal(size=(*leading, 2, 3, 2))
            yield Case(f"leading axes {leading}, {n_heads} heads", (x,), {"n_heads": n_heads})
    for dtype in battery.FLOATS:
        for n_heads in (3, 9):
            x = rng.normal(size=(2, 3, 4, 2)).astype(dtype)
            yield Case(np.dtype(dtype).name, (x,), {"n_heads": n_heads})
    for layout, lay in battery.LAYOUTS.items():
        for n_heads in (2, 4):
            yield Case(layout, (lay(rng.normal(size=(2, 3, 4))),), {"n_heads": n_heads})
    for size in (1e6, 1e300, 1e-300, -0.0):
        yield Case(f"numbers of {size:g}", (size * rng.normal(size=(2, 3, 4)),), {"n_heads": 4})
    for n in aim.sizes(at_most=5000):
        yield Case(f"{n} tokens", (rng.normal(size=(2, n, 2)),), {"n_heads": 4})
        yield Case(f"{n} heads", (rng.normal(size=(n, 2, 2)),), {"n_heads": 2 * n})
        yield Case(f"one head for {n}", (rng.normal(size=(1, 2, 2)),), {"n_heads": n})
        yield Case(f"width {n}", (rng.normal(size=(2, 2, n)),), {"n_heads": 4})
        yield Case(f"{n} samples", (rng.normal(size=(n, 2, 1, 2)),), {"n_heads": 4})


def draw(
    rng, n_heads=4, n_kv_heads=2, n_queries=3, n_keys=5, width=2, value_width=2, leading=(), dtype=float
):
    q = rng.normal(size=(*leading, n_heads, n_queries, width))
    k = rng.normal(size=(*leading, n_kv_heads, n_keys, width))
    v = rng.normal(size=(*leading, n_kv_heads, n_keys, value_width))
    return tuple(each.astype(dtype) for each in (q, k, v))


def attention_shapes(rng):
    for n_heads, n_kv_heads in HEADS:
        for n_queries, n_keys in [(1, 1), (3, 4), (n_heads, n_kv_heads)]:
            label = f"{n_heads} heads, {n_kv_heads} of keys, {n_queries} queries, {n_keys} keys"
            case = draw(rng, n_heads, n_kv_heads, n_queries, n_keys)
            yield Case(label, case)
            if n_keys < 9:
                yield Case(f"{label}, a mask", (*case, random_mask(rng, n_queries, n_keys)))
    for width, value_width in [(1, 1), (3, 1), (1, 3), (4, 7), (130, 2), (2, 130)]:
        case = draw(rng, width=width, value_width=value_width)
        yield Case(f"width {width}, of values {value_width}", case)
    for n_queries, n_keys in [(0, 3), (7, 130), (130, 7), (33, 33), (2, 3), (3, 2)]:
        for heads in ((4, 2), (3, 1), (2, 2)):
            case = draw(rng, *heads, n_queries, n_keys)
            yield Case(f"{n_queries} queries, {n_keys} keys, {heads} heads", case)
            mask = random_mask(rng, n_queries, n_keys)
            yield Case(f"{n_queries} queries, {n_keys} keys, {heads} heads, a mask", (*case, mask))
    for leading in LEADING:
        for heads in ((4, 2), (2, 1), (2, 2)):
            case = draw(rng, *heads, leading=leading)
            yield Case(f"leading axes {leading}, {heads} heads", case)
            yield Case(f"leading axes {leading}, {heads} heads, one mask", (*case, random_mask(rng, 3, 5)))
            own = random_mask(rng, *leading, 3, 5)
            yield Case(f"leading axes {leading}, {heads} heads, their own masks", (*case, own))
    for of_q, of_k, of_v in [
        ((2,), (), ()),
        ((), (2,), (2,)),
        ((2, 1), (3,), (3,)),
        ((), (), (3,)),
        ((1,), (2,), (1,)),
    ]:
        (q, _, _), (_, k, _), (_, _, v) = (draw(rng, leading=leading) for leading in (of_q, of_k, of_v))
        yield Case(f"leading axes {of_q}, {of_k}, {of_v}", (q, k, v))
        yield Case(f"leading axes {of_q}, {of_k}, {of_v}, a mask", (q, k, v, random_mask(rng, 3, 5)))
    for shape in [
        (1, 5),
        (3, 1),
        (1, 1),
        (5,),
        (1,),
        (),
        (2, 3, 5),
        (2, 1, 5),
        (1, 3, 1),
        (4, 2, 3, 5),
        (4, 1, 1, 5),
    ]:
        for heads in ((4, 2), (2, 1), (2, 2), (4, 4)):
            case = draw(rng, *heads, leading=(2,))
            yield Case(
                f"a mask of shape {shape} for 2 samples, {heads} heads", (*case, random_mask(rng, *shape))
            )
        yield Case(f"a mask of shape {shape}, no samples", (*draw(rng), random_mask(rng, *shape)))
    for name, mask in {"all": np.ones((3, 5), bool), "none": np.zeros((3, 5), bool)}.items():
        yield Case(f"each sees {name}", (*draw(rng), mask))
    for n in aim.sizes(at_most=700):
        yield Case(f"{n} keys", draw(rng, 2, 1, 2, n, 1, 1))
        yield Case(f"{n} queries", draw(rng, 2, 1, n, 2, 1, 1))
        yield Case(f"{n} heads", draw(rng, n, 1, 1, 2, 1, 1))
        yield Case(f"{n} heads of keys", draw(rng, 2 * n, n, 1, 2, 1, 1))
        yield Case(f"width {n}", draw(rng, 2, 1, 1, 2, n, n))
        yield Case(f"{n} samples", draw(rng, 2, 1, 1, 2, 1, 1, (n,)))
        causal = np.tri(n, dtype=bool)
        yield Case(f"{n} tokens, causal", (*draw(rng, 2, 1, n, n, 1, 1), causal))
        yield Case(f"{n} tokens", draw(rng, 2, 1, n, n, 1, 1))


def attention_values(rng):
    for dtype in battery.FLOATS:
        for leading in ((), (2, 3)):
            case = draw(rng, 6, 2, leading=leading, dtype=dtype)
            yield Case(f"dtype {np.dtype(dtype).name}", case)
            yield Case(f"dtype {np.dtype(dtype).name}, a mask", (*case, random_mask(rng, 3, 5)))
    for layout, lay in battery.LAYOUTS.items():
        for place in range(3):
            case = list(draw(rng, leading=(2,)))
            case[place] = lay(case[place])
            yield Case(f"argument {place + 1} {layout}", tuple(case))
        yield Case(f"mask {layout}", (*draw(rng, leading=(2,)), lay(random_mask(rng, 2, 3, 5))))
    for size in (0.0, 1e-9, 1e-3, 30.0, 1e3):
        q, k, v = draw(rng)
        yield Case(f"queries times {size:g}", (size * q, k, v))
        yield Case(f"keys times {size:g}, a mask", (q, size * k, v, random_mask(rng, 3, 5)))
        yield Case(f"values times {size:g}", (q, k, size * v))
    q, k, v = draw(rng)
    yield Case("equal keys", (q, k[..., :1, :].repeat(5, axis=-2), v))


def grouped(impl):
    return lambda q, k, v, mask=None: impl.grouped_attention(Tensor(q), Tensor(k), Tensor(v), mask)


def made(impl, weights, biases, n_heads, n_kv_heads):
    """Return a module whose layers have these weights and biases; four each, or None for no biases."""
    width = weights[0].shape[1]
    head_width = weights[0].shape[0] // n_heads
    module = impl.GroupedQueryAttention(
        *(width, n_heads, n_kv_heads, np.random.default_rng(0)),
        head_width=head_width,
        has_bias=biases is not None,
        dtype=weights[0].dtype.type,
    )
    state = {f"{name}.weight": each for name, each in zip(LAYERS, weights, strict=True)}
    if biases is not None:
        state |= {f"{name}.bias": each for name, each in zip(LAYERS, biases, strict=True)}
    module.load_state_dict(state)
    return module


def drawn(rng, width, n_heads, n_kv_heads, head_width, dtype=np.float64, has_bias=True):
    sizes = [n_heads * head_width, n_kv_heads * head_width, n_kv_heads * head_width]
    weights = [rng.normal(size=(n, width)) / math.sqrt(width) for n in sizes]
    weights.append(rng.normal(size=(width, n_heads * head_width)) / math.sqrt(n_heads * head_width))
    biases = [rng.normal(size=n) for n in (*sizes, width)] if has_bias else None
    weights = [each.astype(dtype) for each in weights]
    return weights, None if biases is None else [each.astype(dtype) for each in biases]


def heads_of(x, n_heads):
    return np.stack(np.split(x, n_heads, axis=-1), axis=-3)


def slow_module(x, weights, biases, mask, n_heads, n_kv_heads):
    b = biases or [0.0] * 4
    q, k, v = (x @ w.T + bias for w, bias in zip(weights[:3], b[:3], strict=True))
    answer = slow_attention(heads_of(q, n_heads), heads_of(k, n_kv_heads), heads_of(v, n_kv_heads), mask)
    merged = np.concatenate([answer[..., h, :, :] for h in range(n_heads)], axis=-1)
    return merged @ weights[3].T + b[3]


def module_shapes(rng):
    """Width, heads, heads of keys, head width, tokens, leading axes, mask."""
    for n_heads, n_kv_heads in [(1, 1), (2, 1), (2, 2), (4, 2), (4, 1), (6, 2), (6, 3), (12, 4)]:
        for head_width in (1, 5):
            for width in {n_heads * head_width, 3}:
                for n_tokens in (1, n_kv_heads + 1):
                    yield width, n_heads, n_kv_heads, head_width, n_tokens, (), None
                yield width, n_heads, n_kv_heads, head_width, 3, (2,), random_mask(rng, 3, 3)
    for leading in LEADING:
        yield 4, 2, 1, 2, 3, leading, None
        yield 4, 4, 2, 1, 3, leading, random_mask(rng, 3, 3)
        yield 4, 4, 2, 1, 3, leading, random_mask(rng, *leading, 3, 3)
    for shape in [(2, 3, 3), (1, 3, 3), (4, 2, 3, 3), (4, 1, 3, 3)]:
        for heads in ((4, 2), (2, 1), (2, 2)):
            yield 4, *heads, 2, 3, (2,), random_mask(rng, *shape)
    for n in aim.sizes(130, at_most=500):
        yield 2, 2, 1, 1, n, (), np.tri(n, dtype=bool)
        yield 2, 2, 1, 1, n, (), None
        yield n, 2, 1, 1, 2, (), None
        yield 2, n, 1, 1, 2, (), None
        yield 2, 2, 1, n, 2, (), None
        yield 2, 2 * n, n, 1, 2, (), None


def shapes_of(module):
    return [(name, each.shape) for name, each in module.named_parameters()]


def test_repeated_by_hand(impl):
    """Neighbours share: 0, 0, 1, 1 and not 0, 1, 0, 1."""
    x = Tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    expected = [[[1.0, 2.0]], [[1.0, 2.0]], [[3.0, 4.0]], [[3.0, 4.0]]]
    assert impl.repeat_heads(x, 4).data.tolist() == expected
    assert impl.repeat_heads(x, n_heads=2).data.tolist() == x.data.tolist()
    leaf = tensor(np.ones((2, 1, 1)))
    impl.repeat_heads(leaf, 4).backward(np.array([1.0, 10.0, 100.0, 1000.0]).reshape(4, 1, 1))
    assert leaf.grad.tolist() == [[[11.0]], [[1100.0]]]


def test_attention_by_hand(impl):
    """Keys of 0: plain averages. Query heads 0 and 1 have the first key head, 2 and 3 the second."""
    q, k = Tensor(np.ones((4, 1, 1))), Tensor(np.zeros((2, 2, 1)))
    v = Tensor([[[2.0], [4.0]], [[10.0], [30.0]]])
    assert impl.grouped_attention(q, k, v).data.tolist() == [[[3.0]], [[3.0]], [[20.0]], [[20.0]]]
    first = np.array([[True, False]])
    assert impl.grouped_attention(q, k, v, first).data.tolist() == [[[2.0]], [[2.0]], [[10.0]], [[10.0]]]
    none = np.zeros((1, 2), bool)
    assert impl.grouped_attention(q, k, v, mask=none).data.tolist() == [[[0.0]]] * 4
    # Scores 0 and log 3 for the second query head, 0 and 0 for the first one; both ask the same keys.
    q = Tensor([[[0.0]], [[math.log(3)]]])
    got = impl.grouped_attention(q, Tensor([[[0.0], [1.0]]]), Tensor([[[4.0], [8.0]]]))
    battery.check_equal(got, [[[6.0]], [[7.0]]])


def test_what_a_module_holds(impl, rng):
    module = impl.GroupedQueryAttention(12, 6, 2, rng)
    assert isinstance(module, Module)
    assert (module.n_heads, module.n_kv_heads) == (6, 2)
    expected = [("query", (12, 12)), ("key", (4, 12)), ("value", (4, 12)), ("output", (12, 12))]
    assert shapes_of(module) == [(f"{name}.weight", shape) for name, shape in expected]
    for name in LAYERS:
        assert isinstance(getattr(module, name), Linear)
        assert getattr(module, name).weight.dtype == np.float64
    module = impl.GroupedQueryAttention(5, 6, 3, rng, head_width=4, has_bias=True)
    expected = [("query", (24, 5)), ("key", (12, 5)), ("value", (12, 5)), ("output", (5, 24))]
    both = [
        (f"{name}.{part}", shape if part == "weight" else shape[:1])
        for name, shape in expected
        for part in ("weight", "bias")
    ]
    assert shapes_of(module) == both
    assert all((getattr(module, name).bias.data == 0).all() for name in LAYERS)
    for dtype in battery.FLOATS:
        module = impl.GroupedQueryAttention(6, 2, 1, rng, dtype=dtype)
        assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
        assert module(Tensor(np.ones((2, 6), dtype))).dtype == dtype
    assert shapes_of(impl.GroupedQueryAttention(7, 2, 1, rng, 3)) == shapes_of(
        impl.GroupedQueryAttention(7, 2, 1, rng, head_width=3)
    )


def test_weights_are_drawn_in_order_and_the_gain_is_the_outputs(impl):
    cases = [
        (1, 1, 1, None, 1.0),
        (6, 2, 1, None, 1.0),
        (6, 6, 3, None, 0.25),
        (5, 4, 2, 3, 3.0),
        (40, 40, 8, None, 0.0),
    ]
    for width, n_heads, n_kv_heads, head_width, gain in cases:
        for has_bias in (False, True):
            options = {} if gain == 1 else {"gain": gain}  # 1 is the default
            if head_width is not None:
                options["head_width"] = head_width
            if has_bias:
                options["has_bias"] = True
            rng, twin = np.random.default_rng(3), np.random.default_rng(3)
            module = impl.GroupedQueryAttention(width, n_heads, n_kv_heads, rng, **options)
            d = head_width or width // n_heads
            sizes = [
                (width, n_heads * d),
                (width, n_kv_heads * d),
                (width, n_kv_heads * d),
                (n_heads * d, width),
            ]
            for name, (n_in, n_out) in zip(LAYERS, sizes, strict=True):
                layer = Linear(n_in, n_out, twin, gain=gain if name == "output" else 1.0)
                assert np.array_equal(getattr(module, name).weight.data, layer.weight.data), (
                    name,
                    width,
                    gain,
                )
            assert rng.random() == twin.random()
    module = impl.GroupedQueryAttention(4, 2, 1, np.random.default_rng(0), gain=0)
    assert (module(Tensor(np.ones((3, 4)))).data == 0).all()


def test_layers_may_be_changed_and_exchanged(impl, rng):
    weights, biases = drawn(rng, 3, 4, 2, 2)
    x = rng.normal(size=(5, 3))
    module = made(impl, weights, biases, 4, 2)
    for place, name in enumerate(LAYERS):
        getattr(module, name).weight.data *= 2
        getattr(module, name).bias.data -= 1
        weights[place], biases[place] = 2 * weights[place], biases[place] - 1
        expected = slow_module(x, weights, biases, None, 4, 2)
        battery.check_equal(module(Tensor(x)), expected, 256, 100, label=f"{name} changed")
        layer = Linear(*weights[place].shape[::-1], rng)
        setattr(module, name, layer)
        weights[place], biases[place] = layer.weight.data, layer.bias.data
        expected = slow_module(x, weights, biases, None, 4, 2)
        battery.check_equal(module(Tensor(x)), expected, 256, 100, label=f"{name} exchanged")
        layer.weight = Parameter(layer.weight.data * 3)
        weights[place] = 3 * weights[place]
        expected = slow_module(x, weights, biases, None, 4, 2)
        battery.check_equal(module(Tensor(x)), expected, 256, 100, label=f"the weight of {name} exchanged")
    before = module(Tensor(x)).data.copy()
    assert np.array_equal(module.eval()(Tensor(x)).data, before)
    assert np.array_equal(module.train()(Tensor(x)).data, before)


def test_a_module_leaves_its_input_alone(impl, rng):
    module = impl.GroupedQueryAttention(4, 2, 1, rng)
    x, mask = Tensor(rng.normal(size=(3, 4))), random_mask(rng, 3, 3)
    kept, seen = x.data.copy(), mask.copy()
    module(x, mask)
    assert np.array_equal(x.data, kept)
    assert np.array_equal(mask, seen)
    blind = made(impl, *drawn(rng, 4, 2, 1, 2), 2, 1)
    expected = np.broadcast_to(blind.output.bias.data, (3, 4))
    assert np.array_equal(blind(x, np.zeros((3, 3), bool)).data, expected)


def test_as_many_key_heads_as_heads_is_multi_head_attention(impl, rng):
    theirs = MultiHeadAttention(6, 3, rng, has_bias=True)
    ours = impl.GroupedQueryAttention(6, 3, 3, rng, has_bias=True)
    ours.load_state_dict(theirs.state_dict())
    x, mask = Tensor(rng.normal(size=(2, 4, 6))), np.tri(4, dtype=bool)
    battery.check_equal(ours(x, mask), theirs(x, mask).data, 64, 10)


def test_modules_share_nothing_and_depend_on_their_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, other = (
        impl.GroupedQueryAttention(4, 2, 1, np.random.default_rng(0), has_bias=True) for _ in range(2)
    )
    x = Tensor(np.cos(np.arange(12.0)).reshape(3, 4))
    answer = one(x).data.copy()
    with elsewhere(impl):
        third = impl.GroupedQueryAttention(4, 2, 1, np.random.default_rng(0), has_bias=True)
        assert np.array_equal(third(x).data, answer)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert np.array_equal(mine.data, theirs.data)
        mine.data += 1
        assert not np.array_equal(mine.data, theirs.data)
    assert np.array_equal(other(x).data, answer)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_what_is_refused_for_heads(impl, rng):
    for n_heads, n_kv_heads in [
        (4, 3),
        (4, 0),
        (0, 1),
        (0, 0),
        (-2, 1),
        (-2, -1),
        (4, -2),
        (2, 4),
        (1, 2),
        (6, 4),
        (131, 2),
    ]:
        battery.refuses(impl.GroupedQueryAttention, 12, n_heads, n_kv_heads, rng)
        battery.refuses(impl.GroupedQueryAttention, 12, n_heads, n_kv_heads, rng, head_width=2)
        if n_kv_heads >= 0:
            battery.refuses(impl.repeat_heads, Tensor(np.ones((n_kv_heads, 2, 2))), n_heads)
            battery.refuses(impl.repeat_heads, Tensor(np.ones((2, n_kv_heads, 2, 2))), n_heads)
        if n_heads >= 0 and n_kv_heads >= 0:
            q, k = (Tensor(np.ones((n, 2, 2))) for n in (n_heads, n_kv_heads))
            battery.refuses(impl.grouped_attention, q, k, k)
    for width, n_heads in [(4, 3), (1, 2), (10, 4), (131, 2)]:
        battery.refuses(impl.GroupedQueryAttention, width, n_heads, 1, rng)
        impl.GroupedQueryAttention(width, n_heads, 1, rng, head_width=1)
    for head_width in (0, -1, -4):
        battery.refuses(impl.GroupedQueryAttention, 4, 2, 1, rng, head_width)
    for shape in [(), (2,), (2, 2), (1, 1)]:
        battery.refuses(impl.repeat_heads, Tensor(np.ones(shape)), 2)


def test_what_attention_refuses(impl, rng):
    q, k, v = (Tensor(each) for each in draw(rng))  # (4, 3, 2), (2, 5, 2), (2, 5, 2)

    def ones(*shape):
        return Tensor(np.ones(shape))

    for shape in [(), (2,), (3, 2), (1, 1)]:
        battery.refuses(impl.grouped_attention, ones(*shape), k, v)
        battery.refuses(impl.grouped_attention, q, ones(*shape), v)
        battery.refuses(impl.grouped_attention, q, k, ones(*shape))
        battery.refuses(impl.grouped_attention, ones(1, 1, 1), ones(*shape), ones(*shape))
        battery.refuses(impl.grouped_attention, ones(*shape), ones(1, 5, 2), ones(1, 5, 2))
        battery.refuses(impl.grouped_attention, ones(*shape), ones(*shape), ones(*shape))
    for n_k, n_v in [(2, 1), (1, 2), (4, 2), (2, 4), (1, 4), (4, 1), (2, 0), (0, 2), (3, 2), (2, 3), (3, 3)]:
        battery.refuses(impl.grouped_attention, q, ones(n_k, 5, 2), ones(n_v, 5, 2))
        battery.refuses(impl.grouped_attention, q, ones(2, n_k, 5, 2), ones(2, n_v, 5, 2))
    for of_q, of_k in [(2, 1), (1, 2), (2, 3), (4, 2)]:  # widths
        battery.refuses(impl.grouped_attention, ones(4, 3, of_q), ones(2, 5, of_k), v)
    for n in (1, 4, 6, 0):  # values
        battery.refuses(impl.grouped_attention, q, k, ones(2, n, 2))
    battery.refuses(impl.grouped_attention, q, ones(2, 1, 2), v)
    for mask in (np.ones((3, 5)), np.zeros((3, 5)), np.ones((3, 5), int), np.zeros((1, 1), np.int8)):
        battery.refuses(impl.grouped_attention, q, k, v, mask)
    for shape in [
        (2, 5),
        (3, 4),
        (4, 5),
        (3, 6),
        (5, 3),
        (6, 5),
        (12, 5),
        (3,),
        (2, 3, 4),
        (2, 2, 5),
        (3, 0),
    ]:
        battery.refuses(impl.grouped_attention, q, k, v, np.ones(shape, bool))
    one = ones(2, 1, 2), ones(1, 1, 2), ones(1, 1, 2)
    for shape in [(2, 1), (1, 2), (3,), (4, 1, 2), (2, 2, 1)]:  # longer than one query or one key
        battery.refuses(impl.grouped_attention, *one, np.ones(shape, bool))
    samples = [Tensor(each) for each in draw(rng, leading=(2,))]
    for shape in [(3, 3, 5), (4, 3, 5), (0, 3, 5), (2, 3, 3, 5)]:
        battery.refuses(impl.grouped_attention, *samples, np.ones(shape, bool))
    battery.refuses(impl.grouped_attention, ones(3, 4, 3, 2), ones(2, 2, 5, 2), ones(2, 2, 5, 2))


def test_what_a_module_refuses(impl, rng):
    module = impl.GroupedQueryAttention(4, 2, 1, rng)
    for shape in [(), (4,), (3, 3), (4, 1), (2, 4, 8), (3, 0), (3, 2)]:
        battery.refuses(module, Tensor(np.ones(shape)))
    one = impl.GroupedQueryAttention(1, 1, 1, rng)
    for shape in [(), (1,), (3, 2)]:
        battery.refuses(one, Tensor(np.ones(shape)))
    x = Tensor(rng.normal(size=(2, 3, 4)))
    for mask in (np.ones((3, 3)), np.zeros((3, 3)), np.ones((3, 3), int), np.ones((3, 3), np.int8)):
        battery.refuses(module, x, mask)
    for shape in [(2, 2), (3, 4), (4, 4), (4, 3), (6, 3), (3, 3, 3), (5, 3, 3), (2, 2, 2), (2, 3, 4)]:
        battery.refuses(module, x, np.ones(shape, bool))


def test_tensors_stay_as_they_are(impl, rng):
    arrays = draw(rng)
    tensors = [Tensor(each.copy()) for each in arrays]
    mask = random_mask(rng, 3, 5)
    kept = mask.copy()
    impl.grouped_attention(*tensors, mask)
    impl.repeat_heads(tensors[1], 4)
    for each, before in zip(tensors, arrays, strict=True):
        assert each.shape == before.shape
        assert np.array_equal(each.data, before)
    assert np.array_equal(mask, kept)
    first = impl.grouped_attention(*tensors, mask).data.copy()
    mask[...] = ~mask
    battery.check_equal(impl.grouped_attention(*tensors, mask), slow_attention(*arrays, mask), 32, 20)
    mask[...] = ~mask
    assert np.array_equal(impl.grouped_attention(*tensors, mask).data, first)


@pytest.mark.parametrize("wants", [(True, False, False), (False, True, False), (False, False, True)])
def test_each_gradient_alone(impl, rng, wants):
    arrays = draw(rng, 6, 2)
    g = rng.normal(size=(6, 3, 2))
    leaves = [Tensor(each, requires_grad=flag) for each, flag in zip(arrays, wants, strict=True)]
    impl.grouped_attention(*leaves).backward(g)
    for leaf, flag, expected in zip(leaves, wants, slow_attention_gradients(g, *arrays), strict=True):
        if flag:
            battery.check_equal(leaf.grad, expected, 64, 20)
        else:
            assert leaf.grad is None
    with no_grad():
        assert not impl.grouped_attention(*leaves).requires_grad


def test_keys_are_not_copied(impl, rng):
    """One query for each of 32 heads, and 2000 keys of 64 numbers: repeated, they would be 32 MB."""
    for place, n_kv_heads in enumerate((1, 2)):
        q = Tensor(rng.normal(size=(32, 1, 64)))
        k, v = (Tensor(rng.normal(size=(n_kv_heads, 2000, 64 if i != place else 4))) for i in range(2))
        q = q if place else Tensor(q.data[..., :4])
        mask = np.ones((1, 2000), bool)
        repeated = 32 * 2000 * 64 * 8
        assert (
            battery.peak_bytes(lambda q=q, k=k, v=v, mask=mask: impl.grouped_attention(q, k, v, mask))
            < repeated / 2
        )


def test_gradients_of_modules(impl, rng):
    """As those of the layers and of attention, which have been compared before."""
    for width, n_heads, n_kv_heads, head_width, leading in [
        (4, 2, 1, 2, ()),
        (3, 4, 2, 2, (2,)),
        (6, 6, 3, 1, (2, 2)),
        (2, 2, 2, 3, ()),
    ]:
        for mask in (None, np.tri(3, dtype=bool), random_mask(rng, *leading, 3, 3)):
            weights, biases = drawn(rng, width, n_heads, n_kv_heads, head_width)
            x = rng.normal(size=(*leading, 3, width))
            module, leaf = made(impl, weights, biases, n_heads, n_kv_heads), tensor(x)
            g = rng.normal(size=x.shape)
            module(leaf, mask).backward(g)
            q, k, v = (
                heads_of(x @ w.T + b, n)
                for w, b, n in zip(weights, biases, (n_heads, n_kv_heads, n_kv_heads), strict=False)
            )
            merged = np.concatenate(np.split(slow_attention(q, k, v, mask), n_heads, axis=-3), axis=-1)[
                ..., 0, :, :
            ]
            inner = slow_attention_gradients(heads_of(g @ weights[3], n_heads), q, k, v, mask)
            inner = [
                np.concatenate([each[..., h, :, :] for h in range(each.shape[-3])], axis=-1) for each in inner
            ]
            battery.check_equal(leaf.grad, sum(d @ w for d, w in zip(inner, weights, strict=False)), 256, 20)
            flat = (-1, width)
            for name, d in zip(LAYERS, inner, strict=False):
                d = d.reshape(-1, d.shape[-1])
                battery.check_equal(
                    getattr(module, name).weight.grad, d.T @ x.reshape(flat), 256, 20, label=name
                )
                battery.check_equal(getattr(module, name).bias.grad, d.sum(axis=0), 256, 20, label=name)
            of_output = g.reshape(flat).T @ merged.reshape(-1, merged.shape[-1])
            battery.check_equal(module.output.weight.grad, of_output, 256, 20)
            battery.check_equal(module.output.bias.grad, g.reshape(flat).sum(axis=0), 256, 20)


def test_what_is_hidden_changes_nothing(impl, rng):
    q, k, v = draw(rng, 4, 2, 5, 5)
    mask = np.tri(5, dtype=bool)
    before = grouped(impl)(q, k, v, mask).data.copy()
    k[:, 3:], v[:, 3:] = 1e6, -1e6
    assert np.array_equal(grouped(impl)(q, k, v, mask).data[:, :3], before[:, :3])


def test_repeated_everywhere(impl, rng):
    cases = list(repeat_cases(rng))
    battery.sweep(lambda x, n_heads: impl.repeat_heads(Tensor(x), n_heads), slow_repeat, cases, ulps=0)


def test_gradients_of_repeated_heads(impl, rng):
    cases = [each for each in repeat_cases(rng) if each.arguments[0].size < 500]

    def definition(g, x, n_heads):
        return [_of_group(g, x.shape[-3])]

    battery.sweep_gradients(
        impl.repeat_heads, definition, cases, tensor=tensor, rng=rng, ulps=16, magnitude=20.0
    )


def test_attention_in_every_shape(impl, rng):
    battery.sweep(grouped(impl), slow_attention, attention_shapes(rng), ulps=32, magnitude=off)


def test_attention_for_every_value(impl, rng):
    battery.sweep(grouped(impl), slow_attention, attention_values(rng), ulps=32, magnitude=off)
    mixed = draw(rng)
    for place in range(3):
        narrow = [each.astype(np.float32) for each in mixed]
        narrow[place] = mixed[place]
        assert grouped(impl)(*narrow).dtype == np.float64
        assert grouped(impl)(*(each.astype(np.float16) for each in narrow)).dtype == np.float16


def test_gradients_of_attention(impl, rng):
    cases = [
        each
        for each in [*attention_shapes(rng), *attention_values(rng)]
        if all(a.size < 400 and _most(a.astype(float)) < 20 for a in each.arguments)
    ]
    battery.sweep_gradients(
        impl.grouped_attention,
        slow_attention_gradients,
        cases,
        tensor=tensor,
        rng=rng,
        ulps=32,
        magnitude=gradients_off,
    )


def test_modules_are_their_definition(impl, rng):
    for place, (width, n_heads, n_kv_heads, head_width, n_tokens, leading, mask) in enumerate(
        module_shapes(rng)
    ):
        dtype = battery.FLOATS[::-1][place % 3]
        weights, biases = drawn(rng, width, n_heads, n_kv_heads, head_width, dtype, has_bias=place % 2 == 0)
        x = rng.normal(size=(*leading, n_tokens, width)).astype(dtype)
        module = made(impl, weights, biases, n_heads, n_kv_heads)
        wide = [each.astype(float) for each in weights], biases and [each.astype(float) for each in biases]
        expected = slow_module(x.astype(float), *wide, mask, n_heads, n_kv_heads)
        label = f"width {width}, {n_heads} heads of {head_width}, {n_kv_heads} of keys, x of {x.shape}"
        size = 10 * math.sqrt(width * head_width)
        for _ in range(2):
            battery.check_equal(module(Tensor(x), mask), expected, 64, size, dtype, label)
