"""Oracles: the module head by head and query by query, its gradients in closed form, values by hand."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.training.linear import Linear

LAYERS = ("query", "key", "value", "output")


def made(impl, weights, biases=None, n_heads=1):
    """Return a module with these numbers: (4, W, W) and (4, W)."""
    width = weights.shape[-1]
    module = impl.MultiHeadAttention(
        width, n_heads, np.random.default_rng(0), has_bias=biases is not None, dtype=weights.dtype.type
    )
    state = {f"{name}.weight": each for name, each in zip(LAYERS, weights, strict=True)}
    if biases is not None:
        state |= {f"{name}.bias": each for name, each in zip(LAYERS, biases, strict=True)}
    module.load_state_dict(state)
    return module


def slow_split(x, n_heads):
    width = x.shape[-1] // n_heads
    return np.stack([x[..., h * width : (h + 1) * width] for h in range(n_heads)], axis=-3)


def slow_merge(x):
    return np.concatenate([x[..., h, :, :] for h in range(x.shape[-3])], axis=-1)


def softmax(scores, seen):
    """Row by row, over what may be seen."""
    weights = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        visible = scores[row][seen[row]]
        if visible.size:
            e = np.exp(visible - visible.max())
            weights[row][seen[row]] = e / e.sum()
    return weights


def parts(x, weights, biases, mask, n_heads):
    """Return queries, keys, values, weights (..., H, T, T) and the merged answer, in float64."""
    b = np.zeros(weights.shape[:2]) if biases is None else biases
    q, k, v = (slow_split(x @ w.T + bias, n_heads) for w, bias in zip(weights[:3], b[:3], strict=True))
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    seen = np.ones(x.shape[-2:-1] * 2, bool) if mask is None else mask
    leading = np.broadcast_shapes(seen.shape[:-2], x.shape[:-2])
    scores = np.broadcast_to(scores, (*leading, *scores.shape[-3:]))
    seen = np.broadcast_to(seen[..., None, :, :], scores.shape)
    p = softmax(scores, seen)
    return q, k, v, p, slow_merge(p @ v)


def slow(x, weights, biases=None, mask=None, n_heads=1):
    answer = parts(x, weights, biases, mask, n_heads)[-1]
    return answer @ weights[3].T + (0 if biases is None else biases[3])


def slow_gradients(g, x, weights, biases=None, mask=None, n_heads=1):
    """For a row p of weights dp = g v^T and ds = p * (dp - sum(p * dp)), head by head."""
    q, k, v, p, answer = parts(x, weights, biases, mask, n_heads)
    flat = (-1, x.shape[-1])
    of_answer = slow_split(g @ weights[3], n_heads)
    dp = of_answer @ v.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[-1])
    of_heads = [ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ of_answer]
    inner = [_summed(slow_merge(each), x.shape) for each in of_heads]
    of_x = sum(each @ w for each, w in zip(inner, weights[:3], strict=True))
    of_weights = [each.reshape(flat).T @ x.reshape(flat) for each in inner]
    of_weights.append(g.reshape(flat).T @ answer.reshape(flat))
    of_biases = [each.reshape(flat).sum(axis=0) for each in (*inner, g)]
    return [of_x, np.array(of_weights), *([] if biases is None else [np.array(of_biases)])]


def _summed(gradient, shape):
    """Sum over axes along which the mask, which has more samples, has repeated x."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length != gradient.shape[axis])
    return gradient.sum(axis=repeated, keepdims=True)


def off(x, weights, biases=None, mask=None, n_heads=1):
    """The size of all terms added: a score that is off by its rounding changes its weight by as much."""
    size = [np.abs(each).sum(axis=-1).max(initial=0) for each in weights]
    b = [0.0] * 4 if biases is None else [np.abs(each).max(initial=0) for each in biases]
    most = np.abs(x).max(initial=0)
    q, k, v = (most * s + bias for s, bias in zip(size[:3], b[:3], strict=True))
    return (v * size[3] + b[3]) * (1 + q * k / math.sqrt(x.shape[-1] // n_heads))


def gradients_off(x, weights, biases=None, mask=None, n_heads=1):
    return (1 + off(x, weights, biases, mask, n_heads)) * math.sqrt(1 + x.size)


def draw(rng, n_tokens=3, width=4, leading=(), dtype=np.float64, has_bias=True):
    x = rng.normal(size=(*leading, n_tokens, width)).astype(dtype)
    weights = (rng.normal(size=(4, width, width)) / math.sqrt(width)).astype(dtype)
    return (x, weights, *([rng.normal(size=(4, width)).astype(dtype)] if has_bias else [None]))


def random_mask(rng, shape):
    """Two in three may be seen; now and then a token sees none."""
    return rng.random(shape) < 2 / 3


LEADING = [(1,), (2,), (0,), (2, 3), (3, 2), (2, 1, 3), (2, 1, 2, 1, 1, 2)]


def with_shapes(rng):
    """Widths, heads, numbers of tokens, leading axes, masks; the smallest first."""
    for width, n_heads in [
        (1, 1),
        (2, 1),
        (2, 2),
        (4, 2),
        (4, 4),
        (6, 2),
        (6, 3),
        (12, 4),
        (12, 6),
        (132, 12),
    ]:
        for n_tokens in (1, 3, n_heads):
            options = {"n_heads": n_heads}
            label = f"{n_heads} heads of {width} numbers, {n_tokens} tokens"
            yield Case(label, draw(rng, n_tokens, width), options)
            mask = random_mask(rng, (n_tokens, n_tokens))
            yield Case(f"{label}, a mask", (*draw(rng, n_tokens, width, (2,)), mask), options)
            yield Case(f"{label}, no biases", draw(rng, n_tokens, width, has_bias=False), options)
    for leading in LEADING:
        yield Case(f"leading axes {leading}", draw(rng, 3, 4, leading), {"n_heads": 2})
        mask = random_mask(rng, (3, 3))
        yield Case(f"leading axes {leading}, one mask", (*draw(rng, 3, 4, leading), mask), {"n_heads": 2})
        mask = random_mask(rng, (*leading, 3, 3))
        yield Case(
            f"leading axes {leading}, their own masks", (*draw(rng, 3, 4, leading), mask), {"n_heads": 2}
        )
    for shape in [(2, 3, 3), (1, 3, 3), (2, 1, 3, 3), (4, 2, 3, 3), (4, 1, 3, 3)]:
        label = f"a mask of shape {shape} for 2 samples"
        yield Case(label, (*draw(rng, 3, 4, (2,)), random_mask(rng, shape)), {"n_heads": 2})
        yield Case(f"{label}, 4 heads", (*draw(rng, 3, 4, (2,)), random_mask(rng, shape)), {"n_heads": 4})
    masks = {"all": np.ones((4, 4), bool), "none": np.zeros((4, 4), bool), "earlier": np.tri(4, dtype=bool)}
    masks |= {"later": np.tri(4, dtype=bool).T, "itself": np.eye(4, dtype=bool)}
    masks |= {"all but itself": ~np.eye(4, dtype=bool), "the first": np.arange(4) == np.zeros((4, 1))}
    for name, mask in masks.items():
        yield Case(f"each sees {name}", (*draw(rng, 4, 6), mask), {"n_heads": 3})
    for n_tokens in aim.sizes(33, 130, at_most=600):
        yield Case(f"{n_tokens} tokens", draw(rng, n_tokens, 2), {"n_heads": 2})
        causal = np.tri(n_tokens, dtype=bool)
        yield Case(f"{n_tokens} tokens, causal", (*draw(rng, n_tokens, 2), causal), {"n_heads": 1})
    for width in aim.sizes(32, at_most=300):
        yield Case(f"width {width}", draw(rng, 2, width), {"n_heads": 1})
        if width <= 75:
            yield Case(f"{width} heads of 2", draw(rng, 2, 2 * width), {"n_heads": width})
            yield Case(f"{2 * width} heads of 2", draw(rng, 2, 4 * width), {"n_heads": 2 * width})
        yield Case(f"{width} heads", draw(rng, 2, width), {"n_heads": width})
    for n in aim.sizes(at_most=2000):
        yield Case(f"{n} samples", draw(rng, 2, 2, (n,)), {"n_heads": 2})


def with_values(rng):
    """Dtypes, layouts, sizes of numbers, equal tokens."""
    for dtype in battery.FLOATS:
        for leading in ((), (2, 3)):
            case = draw(rng, 5, 6, leading, dtype)
            yield Case(f"dtype {np.dtype(dtype).name}", case, {"n_heads": 2})
            mask = random_mask(rng, (5, 5))
            yield Case(f"dtype {np.dtype(dtype).name}, a mask", (*case, mask), {"n_heads": 3})
    for layout, lay in battery.LAYOUTS.items():
        x, weights, biases = draw(rng, 4, 4, (2,))
        yield Case(f"x {layout}", (lay(x), weights, biases), {"n_heads": 2})
        mask = lay(random_mask(rng, (2, 4, 4)))
        yield Case(f"mask {layout}", (x, weights, biases, mask), {"n_heads": 2})
    for size in (0.0, 1e-9, 1e-3, 30.0, 1e3):
        x, weights, biases = draw(rng, 3, 4)
        yield Case(f"x times {size:g}", (size * x, weights, biases), {"n_heads": 2})
        yield Case(
            f"x times {size:g}, a mask", (size * x, weights, biases, np.tri(3, dtype=bool)), {"n_heads": 2}
        )
    x, weights, biases = draw(rng, 1, 4)
    yield Case("equal tokens", (x.repeat(4, axis=0), weights, biases, np.tri(4, dtype=bool)), {"n_heads": 2})


def test_heads_by_hand(impl):
    """Head 0 has the first half of each token, head 1 the second."""
    x = Tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    heads = impl.split_heads(x, 2)
    assert heads.data.tolist() == [[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]
    assert impl.merge_heads(heads).data.tolist() == x.data.tolist()
    assert impl.split_heads(x, 1).data.tolist() == [x.data.tolist()]
    assert impl.split_heads(x, 4).data.tolist() == [
        [[1.0], [5.0]],
        [[2.0], [6.0]],
        [[3.0], [7.0]],
        [[4.0], [8.0]],
    ]


def test_attention_by_hand(impl):
    """Two heads of width 1 whose keys are all 0: plain averages of what may be seen, through the output."""
    weights = np.array([np.eye(2), np.zeros((2, 2)), np.eye(2), [[1.0, 0.0], [1.0, 1.0]]])
    module = made(impl, weights, n_heads=2)
    x = Tensor([[2.0, 10.0], [4.0, 30.0]])
    assert module(x).data.tolist() == [[3.0, 23.0], [3.0, 23.0]]
    assert module(x, np.tri(2, dtype=bool)).data.tolist() == [[2.0, 12.0], [3.0, 23.0]]
    assert module(x, mask=np.zeros((2, 2), bool)).data.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    # Scores log 3 and 0 in the first head, of width 1; the second head is blind.
    weights = np.array([[[1.0, 0], [0, 0]], [[1.0, 0], [0, 0]], np.eye(2), np.eye(2)])
    root = math.sqrt(math.log(3))
    got = made(impl, weights, n_heads=2)(Tensor([[root, 1.0], [0.0, 3.0]]))
    battery.check_equal(got, [[0.75 * root, 2.0], [0.5 * root, 2.0]])


def split_cases(rng):
    for n_heads, width in [(1, 1), (1, 3), (2, 1), (3, 2), (2, 5), (5, 2), (7, 3), (130, 1), (2, 65)]:
        for n_tokens in (0, 1, n_heads, width):
            for leading in ((), (n_heads,)):
                x = rng.normal(size=(*leading, n_tokens, n_heads * width))
                yield Case(f"{n_heads} heads of {width}", (x,), {"n_heads": n_heads})
    for leading in LEADING:
        yield Case(f"leading axes {leading}", (rng.normal(size=(*leading, 3, 6)),), {"n_heads": 2})
    for dtype in battery.FLOATS:
        yield Case(np.dtype(dtype).name, (rng.normal(size=(2, 3, 4)).astype(dtype),), {"n_heads": 2})
    for layout, lay in battery.LAYOUTS.items():
        yield Case(layout, (lay(rng.normal(size=(2, 3, 4))),), {"n_heads": 2})
    for size in (1e6, 1e300, 1e-300):
        yield Case(f"numbers of {size:g}", (size * rng.normal(size=(2, 3, 4)),), {"n_heads": 2})
    for n in aim.sizes(at_most=10_000):
        yield Case(f"{n} tokens", (rng.normal(size=(n, 4)),), {"n_heads": 2})
        yield Case(f"{n} heads", (rng.normal(size=(2, n)),), {"n_heads": n})
        yield Case(f"width {2 * n}", (rng.normal(size=(2, 2 * n)),), {"n_heads": 2})
        yield Case(f"{n} samples", (rng.normal(size=(n, 2, 2)),), {"n_heads": 2})


def test_heads_are_cut_and_joined_everywhere(impl, rng):
    cases = list(split_cases(rng))
    battery.sweep(
        lambda x, n_heads: impl.split_heads(Tensor(x), n_heads), slow_split, cases, ulps=0, is_new=False
    )
    merged = [
        Case(f"merged, {each.label}", (slow_split(each.arguments[0], **each.options),)) for each in cases
    ]
    battery.sweep(lambda x: impl.merge_heads(Tensor(x)), slow_merge, merged, ulps=0, is_new=False)


def test_tensors_stay_as_they_are(impl, rng):
    x = Tensor(rng.normal(size=(2, 4, 4)))
    before = x.data.copy()
    module, mask = impl.MultiHeadAttention(4, 2, rng), random_mask(rng, (4, 4))
    kept = mask.copy()
    for call in (lambda: impl.split_heads(x, 2), lambda: impl.merge_heads(x), lambda: module(x, mask)):
        call()
        assert np.array_equal(x.data, before)
        assert x.shape == (2, 4, 4)
        assert np.array_equal(mask, kept)


def test_gradients_of_cutting_and_joining(impl, rng):
    cases = [each for each in split_cases(rng) if each.arguments[0].size < 500]

    def tensor(x):
        return Tensor(x, requires_grad=True)

    def of_split(g, x, n_heads):
        return [slow_merge(g)]

    def of_merge(g, x):
        return [slow_split(g, x.shape[-3])]

    battery.sweep_gradients(impl.split_heads, of_split, cases, tensor=tensor, rng=rng, ulps=0)
    merged = [Case(each.label, (slow_split(each.arguments[0], **each.options),)) for each in cases]
    battery.sweep_gradients(impl.merge_heads, of_merge, merged, tensor=tensor, rng=rng, ulps=0)


def function_of(impl):
    return lambda x, weights, biases, mask=None, n_heads=1: made(impl, weights, biases, n_heads)(
        Tensor(x), mask
    )


def test_every_shape_is_its_definition(impl, rng):
    battery.sweep(function_of(impl), slow, with_shapes(rng), ulps=32, magnitude=off)


def test_every_value_is_its_definition(impl, rng):
    battery.sweep(function_of(impl), slow, with_values(rng), ulps=32, magnitude=off)


def gradient_cases(rng):
    for case in [*with_shapes(rng), *with_values(rng)]:
        is_large = case.arguments[0].size > 800
        if not is_large and case.arguments[0].size and np.abs(case.arguments[0]).max() < 20:
            yield case


def test_gradients_are_their_definition_everywhere(impl, rng):
    def function(x, weights, biases, mask=None, n_heads=1):
        width = weights.shape[-1]
        module = impl.MultiHeadAttention(
            width, n_heads, np.random.default_rng(0), biases is not None, dtype=weights.dtype.type
        )
        for place, name in enumerate(LAYERS):  # exchanged for parts of two tensors, which get the gradients
            layer = getattr(module, name)
            layer.weight = weights[place]
            layer.bias = None if biases is None else biases[place]
        return module(x, mask)

    battery.sweep_gradients(
        function,
        slow_gradients,
        gradient_cases(rng),
        tensor=Parameter,
        rng=rng,
        ulps=64,
        magnitude=gradients_off,
    )


def test_what_a_module_holds(impl, rng):
    module = impl.MultiHeadAttention(6, 3, rng)
    assert isinstance(module, Module)
    assert module.n_heads == 3
    expected = [
        (f"{name}.{part}", (6, 6) if part == "weight" else (6,))
        for name in LAYERS
        for part in ("weight", "bias")
    ]
    assert [(name, each.shape) for name, each in module.named_parameters()] == expected
    for name in LAYERS:
        layer = getattr(module, name)
        assert isinstance(layer, Linear)
        assert (layer.bias.data == 0).all()
        assert layer.weight.dtype == np.float64
    bare = impl.MultiHeadAttention(6, 3, rng, has_bias=False)
    assert [name for name, _ in bare.named_parameters()] == [f"{name}.weight" for name in LAYERS]
    for dtype in battery.FLOATS:
        module = impl.MultiHeadAttention(6, 2, rng, dtype=dtype)
        assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
        assert module(Tensor(np.ones((2, 6), dtype))).dtype == dtype


def test_weights_are_drawn_in_order_and_the_gain_is_the_outputs(impl):
    for width, n_heads, gain in [(1, 1, 1.0), (6, 2, 1.0), (6, 3, 0.25), (12, 4, 3.0), (40, 40, 0.0)]:
        options = {} if gain == 1 else {"gain": gain}  # 1 is the default
        module = impl.MultiHeadAttention(width, n_heads, np.random.default_rng(3), **options)
        twin = np.random.default_rng(3)
        for name in LAYERS:
            layer = Linear(width, width, twin, gain=gain if name == "output" else 1.0)
            assert np.array_equal(getattr(module, name).weight.data, layer.weight.data), (name, width, gain)
    module = impl.MultiHeadAttention(4, 2, np.random.default_rng(0), gain=0)
    assert (module(Tensor(np.ones((3, 4)))).data == 0).all()


def test_modules_share_nothing_and_depend_on_their_generator_alone(impl):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, other = (impl.MultiHeadAttention(4, 2, np.random.default_rng(0)) for _ in range(2))
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert np.array_equal(mine.data, theirs.data)
        mine.data += 1
        assert not np.array_equal(mine.data, theirs.data)
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    third = impl.MultiHeadAttention(4, 2, rng)
    for _ in LAYERS:
        Linear(4, 4, twin)
    assert rng.random() == twin.random()
    assert not np.array_equal(third.query.weight.data, impl.MultiHeadAttention(4, 2, rng).query.weight.data)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_layers_may_be_changed_and_exchanged(impl, rng):
    x, weights, biases = draw(rng, 3, 4)
    module, same, mask = made(impl, weights, biases, n_heads=2), Tensor(x), np.ones((3, 3), bool)
    module(same), module(same, mask)  # the same objects again must not give the same answer
    for place, name in enumerate(LAYERS):
        getattr(module, name).weight.data *= 2
        getattr(module, name).bias.data -= 1
        weights[place] *= 2
        biases[place] -= 1
        for arguments in ((same,), (same, mask)):
            expected = slow(x, weights, biases, n_heads=2)
            battery.check_equal(module(*arguments), expected, 64, 100, label=f"{name} changed")
        layer = Linear(4, 4, rng)
        setattr(module, name, layer)
        weights[place], biases[place] = layer.weight.data, layer.bias.data
        for arguments in ((same,), (same, mask)):
            expected = slow(x, weights, biases, n_heads=2)
            battery.check_equal(module(*arguments), expected, 64, 100, label=f"{name} exchanged")
    same.data *= 2
    for arguments in ((same,), (same, mask)):
        expected = slow(same.data, weights, biases, n_heads=2)
        battery.check_equal(module(*arguments), expected, 64, 400, label="x changed")
    before = module(Tensor(x)).data.copy()
    assert np.array_equal(module.eval()(Tensor(x)).data, before)
    assert np.array_equal(module.train()(Tensor(x)).data, before)


def test_what_is_hidden_changes_nothing(impl, rng):
    x, weights, biases = draw(rng, 5, 6, (2,))
    module = made(impl, weights, biases, n_heads=3)
    mask = np.tri(5, dtype=bool)
    before = module(Tensor(x), mask).data.copy()
    x[:, 3:] = 1e6
    assert np.array_equal(module(Tensor(x), mask).data[:, :3], before[:, :3])
    with no_grad():
        assert not module(Tensor(x, requires_grad=True)).requires_grad


def test_what_is_refused(impl, rng):
    for width, n_heads in [(4, 3), (4, 0), (4, -1), (4, -2), (4, 8), (1, 2), (6, 4), (10_001, 2), (0, 0)]:
        battery.refuses(impl.MultiHeadAttention, width, n_heads, rng)
        if width:
            battery.refuses(impl.split_heads, Tensor(np.ones((2, width))), n_heads)
    for shape in [(), (4,), (0,), (1,)]:
        battery.refuses(impl.split_heads, Tensor(np.ones(shape)), 1)
    for shape in [(), (4,), (2, 4), (1, 1), (0, 4)]:
        battery.refuses(impl.merge_heads, Tensor(np.ones(shape)))
    module = impl.MultiHeadAttention(4, 2, rng)
    for shape in [(), (4,), (3, 3), (4, 1), (2, 4, 8), (3, 0), (3, 2)]:
        battery.refuses(module, Tensor(np.ones(shape)))
    one = impl.MultiHeadAttention(1, 1, rng)
    for shape in [(), (1,), (3, 2)]:
        battery.refuses(one, Tensor(np.ones(shape)))
    x = Tensor(rng.normal(size=(2, 3, 4)))
    for mask in (np.ones((3, 3)), np.zeros((3, 3)), np.ones((3, 3), int), np.ones((3, 3), np.int8)):
        battery.refuses(module, x, mask)
    for shape in [(2, 2), (3, 4), (4, 4), (4, 3), (3, 3, 3), (5, 3, 3), (2, 2, 2), (2, 3, 4)]:
        battery.refuses(module, x, np.ones(shape, bool))


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_permuting_tokens_permutes_answers(impl, rng, n_heads):
    x, weights, biases = draw(rng, 6, 8)
    module = made(impl, weights, biases, n_heads)
    order, mask = rng.permutation(6), random_mask(rng, (6, 6))
    expected = module(Tensor(x), mask).data[order]
    got = module(Tensor(x[order]), mask[order][:, order])
    battery.check_equal(got, expected, 64, off(x, weights, biases, mask, n_heads))
