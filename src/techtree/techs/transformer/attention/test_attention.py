"""Oracles: the definition query by query, its gradient in closed form, values worked out by hand."""

import itertools
import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.ground.gradcheck import check_gradient

Q, K, D, E = 3, 5, 4, 2  # all different, so that no axis can stand in for another


def slow_weights(q, k, mask=None):
    """One query after the other: a softmax over the keys that it may see, and nothing else."""
    scores = np.einsum("...qd,...kd->...qk", q, k) / math.sqrt(q.shape[-1])
    scores, seen = np.broadcast_arrays(scores, True if mask is None else mask)
    weights = np.zeros(scores.shape)
    for query in np.ndindex(scores.shape[:-1]):
        visible = scores[query][seen[query]]
        if visible.size:
            e = np.exp(visible - visible.max())
            weights[query][seen[query]] = e / e.sum()
    return weights


def slow_attention(q, k, v, mask=None):
    return np.einsum("...qk,...ke->...qe", slow_weights(q, k, mask), v)


def slow_gradients(g, q, k, v, mask=None):
    """For a row p of weights dp = g v^T and ds = p * (dp - sum(p * dp)); what was broadcast is summed."""
    p = slow_weights(q, k, mask)
    dp = np.einsum("...qe,...ke->...qk", g, v)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[-1])
    return _sums_of_copies(ds, p, g, q, k, v)


def slow_gradients_of_weights(g, q, k, mask=None):
    """Those of an average of unit vectors, one for each key."""
    return slow_gradients(g, q, k, np.eye(k.shape[-2]), mask)[:2]


def _sums_of_copies(ds, p, g, q, k, v):
    copies = (
        np.einsum("...qk,...kd->...qd", ds, k),
        np.einsum("...qk,...qd->...kd", ds, q),
        np.einsum("...qk,...qe->...ke", p, g),
    )
    found = []
    for gradient, x in zip(copies, (q, k, v), strict=True):
        gradient = gradient.sum(axis=tuple(range(gradient.ndim - x.ndim)))
        repeated = tuple(axis for axis, length in enumerate(x.shape) if length != gradient.shape[axis])
        found.append(gradient.sum(axis=repeated, keepdims=True))
    return found


# Tolerances. Rounding moves a score by a few units in the last place of the products that it sums, and a
# weight by as many times itself; an average of values moves by the same share of their sizes.


def _spread(q, k, mask=None):
    """How many units in the last place, times their size, the scores of each query may be off, and 1."""
    sums = np.einsum("...qd,...kd->...qk", abs(q), abs(k)) / math.sqrt(q.shape[-1])
    sums = sums if mask is None else np.where(mask, sums, 0)
    return 1 + 2 * sums.max(axis=-1, keepdims=True, initial=0)


def weights_off(q, k, mask=None):
    return slow_weights(q, k, mask) * _spread(q, k, mask)


def attention_off(q, k, v, mask=None):
    return slow_attention(q, k, abs(v), mask) * _spread(q, k, mask)


def gradients_off(q, k, v=None, mask=None):
    """The closed form with all its terms added, for a gradient of ones; the largest entry."""
    v = np.eye(k.shape[-2]) if v is None else abs(v)
    p = slow_weights(q, k, mask)
    dp = v.sum(axis=-1)[..., None, :]
    ds = p * (dp + (p * dp).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[-1])
    g = np.ones((*np.broadcast_shapes(p.shape[:-2], v.shape[:-2]), p.shape[-2], v.shape[-1]))
    sizes = _sums_of_copies(np.broadcast_to(ds, (*g.shape[:-2], *ds.shape[-2:])), p, g, abs(q), abs(k), v)
    return max(size.max(initial=0) for size in sizes) * _spread(q, k, mask).max(initial=1)


def weights_of(impl):
    def attention_weights(q, k, mask=None):
        return impl.attention_weights(Tensor(q), Tensor(k), mask)

    return attention_weights


def attention_of(impl):
    def attention(q, k, v, mask=None):
        return impl.attention(Tensor(q), Tensor(k), Tensor(v), mask)

    return attention


def leaf(x):
    return Tensor(x, requires_grad=True)


def random_mask(rng, shape):
    """Two keys in three may be seen; now and then a query sees none."""
    return np.asarray(rng.random(shape) < 2 / 3)


SIZES = {"d": (1, 2, 7, 33, 130), "k": (1, 2, 7, 33, 130)}
SPECS = {"weights": "... q d, ... k d", "attention": "... q d, ... k d, ... k e"}


def sized(rng, spec):
    """Calls of every size, dtype and layout, each with and without a mask."""
    for case in battery.cases(rng, spec, sizes=SIZES):
        q, k = case.arguments[:2]
        yield case
        mask = random_mask(rng, (*q.shape[:-1], k.shape[-2]))
        yield Case(f"{case.label}, with a mask", (*case.arguments, mask))


def arrays(rng, *leading, dtype=np.float64):
    """Queries, keys and values whose leading axes may differ: one tuple for all, or three."""
    leading = leading * 3 if len(leading) == 1 else leading
    shapes = [(Q, D), (K, D), (K, E)]
    return [rng.normal(size=(*a, *s)).astype(dtype) for a, s in zip(leading, shapes, strict=True)]


LEADING = [
    *[((2, 3), (2, 1), (2, 1)), ((2, 3), (3,), (3,)), ((2, 3), (), ()), ((), (2, 3), (2, 3))],
    *[((2, 1), (3,), (2, 3)), ((2, 3), (2, 3), (1, 1)), ((1,), (1,), (2,)), ((), (), (2, 2))],
    *[((2, 1, 1, 2),) * 3, ((4, 1, 2), (3, 1), (4, 1, 1)), ((4,), (1,), (1,)), ((1,), (4,), (4,))],
    *[((3, 3),) * 3, ((3,),) * 3, ((2, 2),) * 3, ((1, 4), (1, 1), (1, 1)), ((4, 2), (4, 1), (2,))],
]

MASK_SHAPES = [
    *[(), (1,), (K,), (1, 1), (1, K), (Q, 1), (Q, K), (3, 1, K), (3, Q, K), (2, 1, Q, 1)],
    *[(2, 1, 1, K), (2, 3, Q, K), (4, 1, 1, Q, K), (1, 1, 1, 1, 1), (2, 1, Q, K), (1, 3, 1, K), (3, Q, 1)],
    *[(1, Q, K), (3, 1, 1), (2, 3, 1, 1), (2, 2, 3, Q, 1)],
]


def with_masks(rng):
    """Masks of every shape, dtype beside it, layout and kind."""
    for shape, dtype in itertools.product(MASK_SHAPES, battery.FLOATS):
        leading = {np.float64: (2, 3), np.float32: (), np.float16: (3,)}[dtype]
        mask = random_mask(rng, shape if leading == (2, 3) else shape[-3:])
        label = f"a mask of shape {mask.shape}, {np.dtype(dtype).name}"
        yield Case(label, (*arrays(rng, leading, dtype=dtype), mask))
    mask = random_mask(rng, (Q, K))
    for layout, lay in battery.LAYOUTS.items():
        yield Case(f"mask {layout}", (*arrays(rng, (2,)), lay(mask)))
    kinds = {"all": np.ones((Q, K), bool), "none": np.zeros((Q, K), bool), "causal": np.tri(Q, K, K - Q) > 0}
    kinds |= {f"key {n} alone": np.arange(K) == n for n in range(K)}
    kinds |= {f"all keys but {n}": np.arange(K) != n for n in range(K)}
    kinds |= {f"only query {n} sees": np.broadcast_to(np.arange(Q)[:, None] == n, (Q, K)) for n in range(Q)}
    kinds |= {f"query {n} sees nothing": ~kinds[f"only query {n} sees"] for n in range(Q)}
    for kind, mask in kinds.items():
        yield Case(f"mask: {kind}", (*arrays(rng, ()), mask))
    for mask in (np.ones((2, 1, K), bool), np.zeros((2, 1, K), bool), np.ones((Q, 1), bool)):
        yield Case(f"a mask of shape {mask.shape}, all {mask.any()}", (*arrays(rng, ()), mask))
    for leading in LEADING:
        yield Case(f"leading axes {leading}", tuple(arrays(rng, *leading)))
        yield Case(f"leading axes {leading}, a mask", (*arrays(rng, *leading), random_mask(rng, (Q, K))))
    for n in (2, 3):  # As many samples as heads, and a mask for each head.
        mask = random_mask(rng, (n, Q, K))
        yield Case(f"leading axes {(n, n)}, a mask for each head", (*arrays(rng, (n, n)), mask))
        yield Case(f"leading axes {(n, n)}, a mask", (*arrays(rng, (n, n)), mask[:, :1]))
    q, k, v = arrays(rng, (2,))
    for n in (1, 2):
        for mask in (
            None,
            np.ones((Q, n), bool),
            np.zeros(n, bool),
            np.arange(n) == 0,
            np.arange(Q)[:, None] > 0,
        ):
            yield Case(f"{n} keys", (q, k[:, :n], v[:, :n], *([] if mask is None else [mask])))
    for n in (0, 1):
        q, k, v = arrays(rng, (2, 3))
        yield Case(f"{n} queries in each head", (q[..., :n, :], k, v))
        yield Case(f"{n} queries in each head, a mask", (q[..., :n, :], k, v, random_mask(rng, (n, K))))
    q, k, v = (rng.normal(size=(140, width)) for width in (3, 3, 2))
    yield Case("140 queries and keys", (q, k, v))
    yield Case("140 queries and keys, a causal mask", (q, k, v, np.tri(140, dtype=bool)))
    yield Case("140 queries and keys, hidden in front", (q, k, v, np.tri(140, dtype=bool).T))


LEVELS = {
    np.float16: (6, 8, 9, 10, 11, 12, 15, 16),
    np.float32: (15, 30, 50, 70, 80, 86, 88, 89, 95, 100, 103),
    np.float64: (88, 100, 300, 500, 700, 708, 710, 740, 745),
}
"""Where exp becomes so large that a few overflow together, infinite, subnormal, 0."""

SUBNORMAL = {
    np.float16: (0, 10, 12, 13, 15),
    np.float32: (0, 88, 92, 97, 102),
    np.float64: (0, 709, 715, 730, 743),
}
"""Minus the logarithms of weights below the smallest number with all its digits."""

GAPS = {
    np.float16: (2, 5, 8, 12, 16, 18, 25, 60),
    np.float32: (5, 20, 40, 49, 60, 79, 90, 105, 300),
    np.float64: (20, 60, 300, 600, 720, 750),
}


def with_levels(rng):
    """Scores that lie close together, anywhere; hidden ones above; samples and rows that lie apart."""
    seen, spread = np.array([True, True, False, True, True]), np.array([[0], [0.5], [-0.5], [1], [-2]])
    for dtype in battery.FLOATS:
        one, v, name = np.ones((1, 1), dtype), rng.normal(size=(5, 2)).astype(dtype), np.dtype(dtype).name
        aimed = [number for number in aim.NUMBERS if number <= min(1e6, float(np.finfo(dtype).max) / 8)]
        for level in itertools.chain(*((n, -n) for n in (*LEVELS[dtype], *aimed))):
            k = (level + spread).astype(dtype)
            yield Case(f"scores near {level:.6g}, {name}", (one, k, v))
            yield Case(f"scores near {level:.6g}, a key is hidden, {name}", (one, k, v, seen))
            many = np.full((40, 1), level, dtype), rng.normal(size=(40, 2)).astype(dtype)
            yield Case(f"40 scores of {level:.6g}, {name}", (one, *many))
            yield Case(f"40 scores of {level:.6g}, half hidden, {name}", (one, *many, np.arange(40) % 2 == 0))
        for level in itertools.chain(*((n, -n) for n in aimed)):
            k = (level * np.array([[0.9], [0.99], [1.01], [1.1], [1.11]])).astype(dtype)
            yield Case(f"scores beside {level:.6g}, {name}", (one, k, v))
        low = {np.float16: -7, np.float32: -65, np.float64: -600}[dtype]
        for level in itertools.chain(*((n, -n) for n in LEVELS[dtype])):
            k = (level + low * np.array([[0.5], [0], [0.8], [1], [0.1]])).astype(dtype)
            yield Case(f"scores from {level:.6g} far down, {name}", (one, k, v))
            yield Case(f"scores from {level:.6g} far down, a mask, {name}", (one, k, v, seen))
        k = -np.array(SUBNORMAL[dtype], dtype)[:, None]
        yield Case(f"weights that are subnormal, {name}", (one, k, v))
        yield Case(f"weights that are subnormal, a mask, {name}", (one, k, v, seen))
        for gap in (*GAPS[dtype], *aimed):
            for above in (gap, -gap):
                k = np.array([[0], [-1], [above], [low], [0.25]], dtype)
                yield Case(f"a hidden score of {above:.6g}, {name}", (one, k, v, seen))
        far = 30 if dtype is np.float16 else 2000
        q, k, v = arrays(rng, (2, 3), dtype=dtype)
        q *= np.array([[1, far, -far], [0.01, 5, far / 2]], dtype)[..., None, None]
        yield Case(f"samples and heads far apart, {name}", (q, k, v))
        yield Case(f"samples and heads far apart, a mask, {name}", (q, k, v, random_mask(rng, (3, Q, K))))
        low = np.array([[-far], [0], [far]], dtype)
        for mask in ([], [np.array([True, False, True])]):
            yield Case(
                f"rows far apart, {name}",
                (np.array([[1], [-2], [0.5]], dtype), low * one, v[0, 0, :3], *mask),
            )
            apart = (low[:, None] * one, np.ones((3, 5, 1), dtype) + spread.astype(dtype) / 8, v[0, 0])
            yield Case(f"samples far apart, {name}", (*apart, *([seen] if mask else [])))
        signed = [np.where(rng.random(x.shape) < 0.5, -0.0, x).astype(dtype) for x in arrays(rng, (2,))]
        yield Case(f"zeros of both signs, {name}", tuple(signed))
        yield Case(f"zeros of both signs, a mask, {name}", (*signed, random_mask(rng, (Q, K))))


def with_values(rng):
    """Scores far apart, equal, tiny, huge; hidden ones that would drown all others."""
    q, k, v = arrays(rng, ())
    mask = random_mask(rng, (Q, K))
    mask[:, 1], mask[:, 3] = False, True
    for size in (0.0, -0.0, 1e-300, 1e-9, 1e-4, 10.0, 300.0, 1e4):
        yield Case(f"queries times {size:g}", (size * q, k, v))
        yield Case(f"queries times {size:g}, a mask", (size * q, k, v, mask))
    for size in (1e-300, 1e-4, 1e5, 1e150):
        yield Case(f"values times {size:g}", (q, k, size * v))
        yield Case(f"values times {size:g}, a mask", (q, k, size * v, mask))
        yield Case(f"queries times {size:g}, keys divided by it", (size * q, k / size, v, mask))
    far = np.where(np.arange(K)[:, None] == 1, 1e5, 1.0) * abs(k)
    yield Case("a hidden key of a high score", (abs(q), far, v, mask))
    yield Case("a hidden key of a low score", (abs(q), -far, v, mask))
    yield Case("equal keys", (q, k[:1].repeat(K, axis=0), v, mask))
    low = np.linspace(0, 690, 9)[:, None]
    yield Case("weights down to 1e-300", (np.ones((1, 1)), -low, np.ones((9, 1))))
    yield Case("small weights of large values", (np.ones((1, 1)), -low, np.exp(low)))
    for n, leading in itertools.product((3, 9), ((), (0,), (0, 0))):
        three = rng.normal(size=(3, *(n for _ in leading), n, n))
        yield Case(f"all axes {n} long", tuple(three))
        yield Case(f"all axes {n} long, a mask", (*three, np.tri(n, dtype=bool)))
        for shape in [(n,), (n, 1), (1, n), (n, n), (n, 1, n), (n, n, 1), (n, 1, 1), (n, n, n)]:
            yield Case(f"all axes {n} long, a mask of {shape}", (*three, random_mask(rng, shape)))


def test_the_causal_mask_is_its_definition(impl, rng):
    """In order of size; the query i stands at the position n_keys - n_queries + i."""
    sizes = [*battery.SIZES, 3, 135]
    pairs = [*sorted(itertools.product(sizes, sizes), key=sum) * 2, (3, 300), (3, 3000), (1, 70_000)]
    for n in aim.sizes(at_most=300_000):
        pairs += [(1, n), (3, n + 2)] + ([(n, n), (n, n + 3)] if n <= 1500 else [])
    for n_queries, n_keys in pairs:
        if n_queries > n_keys:
            continue
        asked = f"causal_mask({n_queries}, {n_keys})"
        mask = impl.causal_mask(n_queries, n_keys)
        assert type(mask) is np.ndarray, f"{asked} is a {type(mask).__name__}"
        n_seen = n_keys - n_queries + 1 + np.arange(n_queries)
        rows = [np.arange(n_keys) < n for n in n_seen.tolist()]
        expected = np.array(rows, bool).reshape(n_queries, n_keys)
        battery.check_equal(mask, expected, dtype=bool, label=asked)
        # Whoever wants to may write into it: the second round must give new ones, entries of their own.
        other = rng.random(mask.shape) < 0.5
        mask[...] = other
        assert np.array_equal(mask, other), f"{asked} has entries that share memory"
    assert impl.causal_mask(2, 4).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert impl.causal_mask(1, 4).tolist() == [[True] * 4]
    assert impl.causal_mask(n_queries=1, n_keys=2).tolist() == [[True] * 2]


def test_more_queries_than_keys(impl):
    near = [(n + 1, n) for n in aim.sizes(2, 3, 100, at_most=3000)]
    for n_queries, n_keys in [(2, 1), (5, 4), (1, 0), (2, 0), (130, 0), (130, 3), (10_000, 1), *near]:
        battery.refuses(impl.causal_mask, n_queries, n_keys)


def test_weights_by_hand(impl):
    """Scores 2 log 3 / sqrt(4) = log 3 and 0: the weights are as 3 to 1. With width 1 the root is 1."""
    q, k = np.array([[2.0, 0, 0, 0]]), np.array([[math.log(3), 0, 0, 0], [0, 5, 0, 0]])
    battery.check_equal(weights_of(impl)(q, k), [[0.75, 0.25]])
    k = np.array([[0.0], [math.log(2)], [math.log(5)]])
    battery.check_equal(weights_of(impl)(np.ones((1, 1)), k), [[1 / 8, 2 / 8, 5 / 8]])
    seen = np.array([True, False, True])
    battery.check_equal(weights_of(impl)(np.ones((1, 1)), k, mask=seen), [[1 / 6, 0, 5 / 6]])


def test_outputs_by_hand(impl):
    """Equal scores: plain averages of what may be seen."""
    x, v = np.zeros((3, 2)), np.array([[6.0], [2], [1]])
    battery.check_equal(attention_of(impl)(x, x, v, np.tri(3, dtype=bool)), [[6], [4], [3]])
    battery.check_equal(attention_of(impl)(x, x, v), [[3], [3], [3]])
    three = [Tensor(each) for each in (x, x, v)]
    battery.check_equal(impl.attention(*three, mask=np.array([True, False, True])), [[3.5]] * 3)


def test_scores_of_any_size(impl):
    """Powers of two, so that the scores are exact: size, size, -size and size / 2 in the first row."""
    sizes = [(np.float16, 13), (np.float32, 14), (np.float64, 14), (np.float32, 100), (np.float64, 1000)]
    for dtype, exponent in sizes:
        root = 2.0 ** (exponent // 2)
        size = 2.0**exponent
        q = np.array([[2 * size / root, 0, 0, 0], [0, 1, 0, 0], [-2 * size / root, 0, 0, 0]], dtype)
        k = np.array([[root, 0, 0, 0], [root, 0, 0, 0], [-root, 0, 0, 0], [root / 2, 0, 0, 0]], dtype)
        v = np.array([[1], [3], [7], [9]], dtype)
        weights = [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0]]
        battery.check_equal(weights_of(impl)(q, k), weights, dtype=dtype)
        battery.check_equal(attention_of(impl)(q, k, v), [[2], [5], [7]], dtype=dtype)
        # The third key has the lowest score of the first query and the highest of the last.
        mask = np.array([[False, False, True, False], [False] * 4, [True, True, False, True]])
        weights = [[0, 0, 1, 0], [0] * 4, [0, 0, 0, 1]]
        battery.check_equal(weights_of(impl)(q, k, mask), weights, dtype=dtype)
        three = leaf(q), leaf(k), leaf(v)
        impl.attention(*three, mask).backward(np.ones((3, 1), dtype))
        assert (three[2].grad == [[0], [0], [1], [1]]).all()
        assert all(np.isfinite(tensor.grad).all() for tensor in three)


def test_the_lowest_score_is_above_a_hidden_one(impl):
    """No finite number can stand for a score that is hidden: another may be as low, and may be seen."""
    for dtype in battery.FLOATS:
        low = float(np.finfo(dtype).min)
        q, k = np.ones((1, 1), dtype), np.array([[low], [0], [low], [low]], dtype)
        v = np.array([[1], [2], [5], [9]], dtype)
        for seen, weights, out in (([0], [1, 0, 0, 0], 1), ([0, 2], [0.5, 0, 0.5, 0], 3)):
            mask = np.isin(np.arange(4), seen)
            battery.check_equal(weights_of(impl)(q, k, mask), [weights], dtype=dtype)
            battery.check_equal(attention_of(impl)(q, k, v, mask), [[out]], dtype=dtype)


def test_the_mask_must_be_boolean(impl, rng):
    """An additive mask, 0 where a key may be seen, would mean the opposite."""
    q, k, v = arrays(rng, ())
    seen = np.tri(Q, K) > 0
    dtypes = (*battery.INTEGERS[:-1], *battery.FLOATS, np.longdouble, np.complex128, object)
    masks = [np.where(seen, 0, -np.inf), np.where(seen, 0, -1e9), -np.ones((Q, K)), np.full((Q, K), np.nan)]
    for dtype, shape in itertools.product(dtypes, [(Q, K), (K,), (), (1, 1), (2, 1, K)]):
        attention_of(impl)(q, k, v, np.ones(shape, bool))  # Fine in this shape, and then?
        masks += [np.zeros(shape, dtype), np.ones(shape, dtype)]
        masks += [seen.astype(dtype)] if shape == (Q, K) else []
    for mask in masks:
        battery.refuses(weights_of(impl), q, k, mask)
        battery.refuses(attention_of(impl), q, k, v, mask)
    for dtype in dtypes:
        for mask in (np.zeros((0, K), dtype), np.zeros((1, K), dtype), np.ones(K, dtype)):
            battery.refuses(weights_of(impl), q[:0], k, mask)
            battery.refuses(attention_of(impl), q[:0], k, v, mask)


MISFITS = [
    *[((Q, D), (K, D + 1)), ((Q, D), (K, D - 1)), ((Q, 1), (K, D)), ((Q, D), (K, 1)), ((Q, 2 * D), (K, D))],
    *[((Q, D), (K, 2 * D)), ((1, D), (1, 1)), ((2, Q, 1), (2, K, D)), ((2, Q, D), (2, K, 1))],
    *[((2, Q, D), (3, K, D)), ((4, Q, D), (2, K, D)), ((2, Q, D), (4, K, D)), ((3, Q, D), (6, K, D))],
    *[((1, 4, Q, D), (1, 2, K, D)), ((2, 4, Q, D), (2, 2, K, D)), ((2, 2, Q, D), (2, 4, K, D))],
    *[((2, 6, Q, D), (2, 3, K, D)), ((4, 2, Q, D), (2, 2, K, D)), ((2, 3, Q, D), (2, K, D))],
    *[
        ((3, Q, D), (3, 2, K, D)),
        ((0, Q, D), (2, K, D)),
        ((2, Q, D), (0, K, D)),
        ((4, 1, Q, D), (2, 1, K, D)),
    ],
]
"""Shapes of queries and keys."""

MASK_MISFITS = [
    *[((Q, D), (K, D), shape) for shape in [(Q, K + 1), (Q + 1, K), (K, Q), (Q, K - 1), (Q - 1, K), (Q,)]],
    *[
        ((Q, D), (K, D), shape)
        for shape in [(2 * Q, K), (Q, 2 * K), (K + 1,), (0,), (0, K), (Q, 0), (2, Q, 2)]
    ],
    *[((Q, D), (1, D), shape) for shape in [(1, 3), (Q, 3), (3,), (Q, 0), (0,), (1, 1, 2)]],
    *[((1, D), (K, D), shape) for shape in [(3, K), (3, 1), (0, K), (0, 1), (4, 3, K), (K, 1)]],
    *[((1, D), (1, D), shape) for shape in [(2, 2), (2, 1), (1, 2), (2,), (0, 1), (0,)]],
    *[((0, D), (K, D), shape) for shape in [(3, K), (0, K + 1), (2, 1)]],
    *[((2, Q, D), (2, K, D), shape) for shape in [(3, Q, K), (4, Q, K), (2, 2, K), (2, K), (3, 1, 1)]],
    *[((4, Q, D), (4, K, D), shape) for shape in [(2, Q, K), (2, 1, 1), (8, Q, K), (0, Q, K)]],
    *[
        ((2, 3, Q, D), (2, 3, K, D), shape)
        for shape in [(2, Q, K), (2, 1, K), (2, 1, 1), (2, K), (3, 2, Q, K)]
    ],
    *[((2, 4, Q, D), (2, 4, K, D), shape) for shape in [(2, Q, K), (2, 2, Q, K), (2, 1, K), (1, 2, 1, 1)]],
]
"""Shapes of queries, keys and mask."""

VALUE_MISFITS = [
    *[((Q, D), (K, D), shape) for shape in [(K + 1, E), (K - 1, E), (1, E), (2 * K, E), (0, E), (Q, E)]],
    *[((Q, D), (1, D), (K, E)), ((Q, D), (1, D), (2, E)), ((1, D), (1, D), (3, E)), ((K, D), (1, D), (K, E))],
    *[((2, Q, D), (2, K, D), shape) for shape in [(3, K, E), (4, K, E), (2, 1, E), (2, K + 1, E), (1, 1, E)]],
    *[((4, Q, D), (4, K, D), (2, K, E)), ((2, 3, Q, D), (2, 3, K, D), (2, K, E))],
    *[((2, 4, Q, D), (2, 4, K, D), (2, 2, K, E)), ((2, 4, Q, D), (2, 1, K, D), (2, 2, K, E))],
]
"""Shapes of queries, keys and values."""


def test_shapes_that_do_not_fit(impl):
    for q, k in MISFITS:
        v = (*k[:-1], E)
        for mask in ([], [np.ones((), bool)], [np.zeros((1, 1), bool)]):
            battery.refuses(weights_of(impl), np.ones(q), np.ones(k), *mask)
            battery.refuses(attention_of(impl), np.ones(q), np.ones(k), np.ones(v), *mask)
    for q, k, mask in MASK_MISFITS:
        v = (*k[:-1], E)
        n_q, n_k = (1, 1, *mask)[-2:]
        if n_k:  # The same mask is fine for other queries and keys.
            attention_of(impl)(np.ones((n_q, D)), np.ones((n_k, D)), np.ones((n_k, E)), np.ones(mask, bool))
        for each in (np.ones(mask, bool), np.zeros(mask, bool)):
            battery.refuses(weights_of(impl), np.ones(q), np.ones(k), each)
            battery.refuses(attention_of(impl), np.ones(q), np.ones(k), np.ones(v), each)
    for q, k, v in VALUE_MISFITS:
        for mask in ([], [np.ones((), bool)], [np.zeros((q[-2], k[-2]), bool)]):
            battery.refuses(attention_of(impl), np.ones(q), np.ones(k), np.ones(v), *mask)


def test_weights_for_every_value_and_mask(impl, rng):
    for make in (with_values, with_masks, with_levels):
        cases = [Case(c.label, (*c.arguments[:2], *c.arguments[3:])) for c in make(rng)]
        battery.sweep(weights_of(impl), slow_weights, cases, magnitude=weights_off)


def test_outputs_for_every_value_and_mask(impl, rng):
    for make in (with_values, with_masks, with_levels):
        battery.sweep(attention_of(impl), slow_attention, make(rng), magnitude=attention_off)


def test_weights_of_every_size(impl, rng):
    cases = sized(rng, SPECS["weights"])
    battery.sweep(weights_of(impl), slow_weights, cases, magnitude=weights_off)


def test_outputs_of_every_size(impl, rng):
    cases = sized(rng, SPECS["attention"])
    battery.sweep(attention_of(impl), slow_attention, cases, magnitude=attention_off)


def test_dtypes_that_differ(impl, rng):
    """The more precise one counts. What queries and keys give has the digits of the coarser."""
    for dtypes in itertools.product(battery.FLOATS, repeat=3):
        label = f"dtypes {[np.dtype(dtype).name for dtype in dtypes]}"
        q, k, v = (x.astype(dtype) for x, dtype in zip(arrays(rng, (2,)), dtypes, strict=True))
        for function, definition, off, arguments in (
            (weights_of(impl), slow_weights, weights_off, (q, k)),
            (attention_of(impl), slow_attention, attention_off, (q, k, v)),
        ):
            for mask in ([], [random_mask(rng, (Q, K))]):
                finest = np.finfo(np.result_type(*arguments)).eps
                lost = max(np.finfo(each.dtype).eps for each in (q, k)) / finest
                battery.sweep(
                    function,
                    definition,
                    [Case(label, (*arguments, *mask))],
                    magnitude=lambda *x, off=off, lost=float(lost): lost * off(*x),
                )


def careful(function):
    """A function of tensors that must leave them as they are: their arrays, gradients and wishes."""

    def called(*arguments):
        tensors = [each for each in arguments if isinstance(each, Tensor)]
        before = [(each.data, each.grad, each.requires_grad) for each in tensors]
        result = function(*arguments)
        for each, kept in zip(tensors, before, strict=True):
            if each.data is not kept[0] or each.grad is not kept[1] or each.requires_grad != kept[2]:
                raise battery.MismatchError("a tensor was changed", [f"argument: {battery.drawn(each.data)}"])
        return result

    return called


def test_gradients_of_outputs(impl, rng):
    for cases in (with_masks(rng), with_values(rng), with_levels(rng), sized(rng, SPECS["attention"])):
        battery.sweep_gradients(
            careful(impl.attention), slow_gradients, cases, tensor=leaf, rng=rng, magnitude=gradients_off
        )


def test_gradients_of_weights(impl, rng):
    others = [
        Case(c.label, (*c.arguments[:2], *c.arguments[3:]))
        for c in (*with_masks(rng), *[*with_levels(rng)][::3])
    ]
    for cases in (others, sized(rng, SPECS["weights"])):
        battery.sweep_gradients(
            careful(impl.attention_weights),
            slow_gradients_of_weights,
            cases,
            tensor=leaf,
            rng=rng,
            magnitude=lambda q, k, mask=None: gradients_off(q, k, None, mask),
        )


def test_no_gradient_comes_from_where_nothing_may_be_seen(impl, rng):
    """Exactly none, nor NaN: with hidden scores of 5e5, exp of their distance is infinite."""
    for size in (1.0, 1e6):
        q, k, v = (leaf(abs(x)) for x in arrays(rng, (2,)))
        k.data[:, [1, 3]] *= size
        mask = np.array([[True, False, True, False, True], [False] * K, [False, False, True, False, False]])
        impl.attention(q, k, v, mask).backward(rng.normal(size=(2, Q, E)))
        for tensor in (k, v):
            assert (tensor.grad[:, [1, 3]] == 0).all()
            assert (tensor.grad[:, [0, 2, 4]] != 0).all()
        assert (q.grad[:, 1] == 0).all()
        assert (q.grad[:, 0] != 0).all()


def test_gradients_are_what_central_differences_measure(impl, rng):
    three, g, mask = arrays(rng, (2,)), rng.normal(size=(2, Q, E)), np.tri(Q, K, K - Q) > 0
    leaves = [leaf(x) for x in three]
    impl.attention(*leaves, mask).backward(g)
    for n, tensor in enumerate(leaves):

        def loss(x, n=n):
            return float((attention_of(impl)(*three[:n], x, *three[n + 1 :], mask).data * g).sum())

        check_gradient(loss, tensor.grad, three[n])


def test_self_attention_adds_the_three_gradients(impl, rng):
    """One tensor as query, key and value, and two backward passes."""
    x, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    for mask in (None, np.tri(4, dtype=bool)):
        tensor = leaf(x)
        out = impl.attention(tensor, tensor, tensor, mask)
        battery.check_equal(out, slow_attention(x, x, x, mask), magnitude=attention_off(x, x, x, mask))
        for times in (1, 2):
            out.backward(g)
            expected = times * sum(slow_gradients(g, x, x, x, mask))
            battery.check_equal(tensor.grad, expected, 64, gradients_off(x, x, x, mask))


def test_one_tensor_in_two_places(impl, rng):
    """Both gradients are added, with and without a mask."""
    for mask in ([], [np.tri(4, dtype=bool)], [np.zeros((4, 4), bool)]):
        g, (x, y) = rng.normal(size=(4, 3)), rng.normal(size=(2, 4, 3))
        for places in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]:
            given, tensors = [(x, y)[place] for place in places], (leaf(x), leaf(y))
            impl.attention(*(tensors[place] for place in places), *mask).backward(g)
            for place in {*places}:
                parts = zip(places, slow_gradients(g, *given, *mask), strict=True)
                expected = sum(part for at, part in parts if at == place)
                label = (
                    f"the gradient of a tensor at the places {[n for n in range(3) if places[n] == place]}"
                )
                off = gradients_off(*given, *mask)
                battery.check_equal(tensors[place].grad, expected, 64, off, label=label)


def test_gradients_go_where_they_are_required(impl, rng):
    """Also where they are 0: one key, nothing to see, no query."""
    shapes = [(Q, K), (Q, 1), (1, 1), (1, K), (0, K)]
    for required, (n_q, n_k) in itertools.product(itertools.product([False, True], repeat=3), shapes):
        q, k, v = arrays(rng, (2,))
        three = q[:, :n_q], k[:, :n_k], v[:, :n_k]
        causal = [np.tri(n_q, n_k, n_k - n_q) > 0] if n_q <= n_k else []
        for mask in (None, *causal, np.zeros(n_k, bool), np.ones((n_q, 1), bool)):
            q, k, v = (Tensor(x, needs) for x, needs in zip(three, required, strict=True))
            weights, out = impl.attention_weights(q, k, mask), impl.attention(q, k, v, mask)
            assert isinstance(weights, Tensor)
            assert isinstance(out, Tensor)
            given = f"{n_q} queries, {n_k} keys, mask {battery.drawn(mask)}, gradients wanted: {required}"
            assert weights.requires_grad == (required[0] or required[1]), given
            assert out.requires_grad == any(required), given
            if out.requires_grad:
                out.backward(np.ones(out.shape))
            assert [x.grad is not None for x in (q, k, v)] == list(required), given
            with no_grad():
                assert not impl.attention_weights(q, k, mask).requires_grad, given
                assert not impl.attention(q, k, v, mask).requires_grad, given


def test_arrays_that_have_new_contents(impl, rng):
    """The same objects with other numbers: results must come from what is in them now."""
    q, k, v = (leaf(x) for x in arrays(rng, ()))
    mask = np.tri(Q, K, K - Q) > 0
    for _ in range(2):
        three = q.data, k.data, v.data
        expected, off = slow_attention(*three, mask), attention_off(*three, mask)
        battery.check_equal(impl.attention(q, k, v, mask), expected, magnitude=off)
        expected, off = slow_weights(*three[:2], mask), weights_off(*three[:2], mask)
        battery.check_equal(impl.attention_weights(q, k, mask), expected, magnitude=off)
        for x in three:
            x[...] = rng.normal(size=x.shape)
        mask[...] = ~mask
