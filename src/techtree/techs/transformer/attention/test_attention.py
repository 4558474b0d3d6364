"""Oracles: the definition in loops with `math.fsum`, its gradient in closed form, values worked out by hand.

Widths and numbers of queries, keys and values all differ, so that no axis can stand in for another.
"""

import math

import numpy as np
import pytest

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.ground.gradcheck import check_gradient

Q, K, D, E = 3, 5, 6, 2

# Values are of size 1 and sums have at most a few dozen terms, which costs about 1e-15 * 30; gradients chain
# a few of them. A wrong formula is off by far more than 1e-6.
TOLERANCE = 1e-12


def slow_weights(q, k, mask):
    """The definition for one head, one query after the other."""
    weights = np.zeros((len(q), len(k)))
    for i, j in np.ndindex(weights.shape):
        scores = [math.fsum(q[i] * key) / math.sqrt(q.shape[1]) for key in k]
        seen = [n for n in range(len(k)) if mask[i, n]]
        if mask[i, j]:
            largest = max(scores[n] for n in seen)
            total = math.fsum(math.exp(scores[n] - largest) for n in seen)
            weights[i, j] = math.exp(scores[j] - largest) / total
    return weights


def slow_attention(q, k, v, mask):
    weights = slow_weights(q, k, mask)
    return np.array([[math.fsum(row * column) for column in v.T] for row in weights])


def slow_gradients(q, k, v, mask, g):
    """The chain rule by hand: g is the gradient of the output. For a row p of weights, dp = g v^T and
    ds = p * (dp - sum(p * dp)).
    """
    p = slow_weights(q, k, mask)
    dp = g @ v.T
    ds = p * (dp - (p * dp).sum(axis=1)[:, None]) / math.sqrt(q.shape[1])
    return ds @ k, ds.T @ q, p.T @ g


def inputs(rng, *leading, dtype=np.float64, n_queries=Q):
    shapes = [(n_queries, D), (K, D), (K, E)]
    return [rng.normal(size=(*leading, *shape)).astype(dtype) for shape in shapes]


def tensors(*arrays):
    return [Tensor(x, requires_grad=True) for x in arrays]


def constants(*arrays):
    return [Tensor(x) for x in arrays]


def masks(rng):
    """None; causal; random, with at least one key for each query; one key alone."""
    random = rng.random((Q, K)) < 0.5
    random[np.arange(Q), rng.integers(K, size=Q)] = True
    single = np.zeros((Q, K), dtype=bool)
    single[:, 2] = True
    return [None, np.tri(Q, K, K - Q, dtype=bool), random, single]


def close(a, b, tolerance=TOLERANCE):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    assert np.abs(a - b).max(initial=0) < tolerance


def test_the_causal_mask_by_hand(impl):
    assert impl.causal_mask(3, 3).astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert impl.causal_mask(2, 4).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert impl.causal_mask(1, 4).tolist() == [[True] * 4]
    assert impl.causal_mask(1, 1).tolist() == [[True]]
    assert impl.causal_mask(0, 3).shape == (0, 3)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 7), (2, 7), (6, 7), (7, 7), (30, 40)])
def test_a_query_sees_the_keys_up_to_its_own_position(impl, n_queries, n_keys):
    mask = impl.causal_mask(n_queries, n_keys)
    assert mask.dtype == bool
    assert mask.shape == (n_queries, n_keys)
    for i, j in np.ndindex(mask.shape):
        position = n_keys - n_queries + i  # the queries are the last ones
        assert mask[i, j] == (j <= position)


def test_masks_do_not_share_memory(impl):
    first = impl.causal_mask(3, 4)
    first[:] = False
    assert impl.causal_mask(3, 4)[0].tolist() == [True, True, False, False]


def test_more_queries_than_keys(impl):
    for n_queries, n_keys in [(2, 1), (5, 4), (1, 0)]:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.causal_mask(n_queries, n_keys)


def test_weights_by_hand(impl):
    """Scores 2 log 3 / sqrt(4) = log 3 and 0: the weights are as 3 to 1."""
    q = np.array([[2.0, 0, 0, 0]])
    k = np.array([[math.log(3), 0, 0, 0], [0, 5, 0, 0]])
    close(impl.attention_weights(*constants(q, k)).data, [[0.75, 0.25]])
    # Width 1: the root is 1.
    k = np.array([[0.0], [math.log(2)], [math.log(5)]])
    close(impl.attention_weights(*constants(np.ones((1, 1)), k)).data, [[1 / 8, 2 / 8, 5 / 8]])


def test_outputs_by_hand(impl):
    """Equal scores: plain averages of what may be seen."""
    x, v = Tensor(np.zeros((3, 2))), Tensor(np.array([[6.0], [2], [1]]))
    close(impl.attention(x, x, v, impl.causal_mask(3, 3)).data, [[6], [4], [3]])
    close(impl.attention(x, x, v).data, [[3], [3], [3]])
    close(impl.attention(x, x, v, np.array([True, False, True])).data, [[3.5]] * 3)


def test_weights_and_outputs_are_their_definition(impl, rng):
    for mask in masks(rng):
        q, k, v = inputs(rng)
        seen = np.ones((Q, K), dtype=bool) if mask is None else mask
        weights = impl.attention_weights(*constants(q, k), mask)
        out = impl.attention(*constants(q, k, v), mask)
        assert isinstance(weights, Tensor)
        assert isinstance(out, Tensor)
        close(weights.data, slow_weights(q, k, seen))
        close(out.data, slow_attention(q, k, v, seen))
        close(weights.data.sum(axis=-1), np.ones(Q))
        assert (weights.data[~seen] == 0).all()
        assert (weights.data[seen] > 0).all()


@pytest.mark.parametrize(
    ("n_queries", "n_keys", "width", "value_width"),
    [(1, 1, 1, 1), (1, 6, 3, 2), (6, 1, 3, 2), (4, 4, 4, 4), (5, 3, 16, 1), (2, 9, 1, 7)],
)
def test_any_sizes(impl, rng, n_queries, n_keys, width, value_width):
    q, k = rng.normal(size=(n_queries, width)), rng.normal(size=(n_keys, width))
    v = rng.normal(size=(n_keys, value_width))
    everything = np.ones((n_queries, n_keys), dtype=bool)
    some = rng.random((n_queries, n_keys)) < 0.5
    some[:, n_keys // 2] = True
    for mask in (None, some):
        seen = everything if mask is None else mask
        close(impl.attention(*constants(q, k, v), mask).data, slow_attention(q, k, v, seen))
        close(impl.attention_weights(*constants(q, k), mask).data, slow_weights(q, k, seen))


def test_the_scale_is_the_root_of_the_width_of_queries_and_keys(impl, rng):
    """Zeros in three times as many columns more change the width to 4 D, and so halve the scores."""
    q, k, v = inputs(rng)
    wide = [np.concatenate([x, np.zeros((len(x), 3 * D))], axis=1) for x in (q, k)]
    close(
        impl.attention_weights(*constants(*wide)).data,
        impl.attention_weights(*constants(q / 2, k)).data,
        1e-12,
    )
    # The width of the values has no say.
    wide_v = np.concatenate([v, v, v], axis=1)
    got = impl.attention(*constants(q, k, wide_v)).data
    close(got[:, :E], impl.attention(*constants(q, k, v)).data)
    close(got[:, E : 2 * E], got[:, :E])


def test_every_sample_and_head_on_its_own(impl, rng):
    q, k, v = inputs(rng, 2, 3)
    for mask in masks(rng):
        seen = np.ones((Q, K), dtype=bool) if mask is None else mask
        weights = impl.attention_weights(*constants(q, k), mask).data
        out = impl.attention(*constants(q, k, v), mask).data
        assert weights.shape == (2, 3, Q, K)
        assert out.shape == (2, 3, Q, E)
        for at in np.ndindex(2, 3):
            close(weights[at], slow_weights(q[at], k[at], seen))
            close(out[at], slow_attention(q[at], k[at], v[at], seen))


@pytest.mark.parametrize(
    ("q_axes", "k_axes", "v_axes"),
    [
        ((2, 3), (2, 1), (2, 1)),  # heads that share keys and values
        ((2, 3), (3,), (3,)),
        ((2, 3), (), ()),
        ((), (2, 3), (2, 3)),
        ((2, 1), (3,), (2, 3)),
        ((2, 3), (2, 3), (1, 1)),
        ((1,), (1,), (2,)),
    ],
)
def test_leading_axes_broadcast(impl, rng, q_axes, k_axes, v_axes):
    q, k, v = (inputs(rng, *axes)[n] for n, axes in enumerate((q_axes, k_axes, v_axes)))
    leading = np.broadcast_shapes(q_axes, k_axes, v_axes)
    mask = np.tri(Q, K, K - Q, dtype=bool)
    g = rng.normal(size=(*leading, Q, E))
    all_q, all_k, all_v = (np.broadcast_to(x, leading + x.shape[-2:]) for x in (q, k, v))
    tq, tk, tv = tensors(q, k, v)
    out = impl.attention(tq, tk, tv, mask)
    assert out.shape == (*leading, Q, E)
    out.backward(g)
    expected = [np.zeros_like(x) for x in (all_q, all_k, all_v)]
    for at in np.ndindex(leading):
        close(out.data[at], slow_attention(all_q[at], all_k[at], all_v[at], mask))
        for total, part in zip(
            expected, slow_gradients(all_q[at], all_k[at], all_v[at], mask, g[at]), strict=True
        ):
            total[at] = part
    for tensor, total in zip((tq, tk, tv), expected, strict=True):
        # What was repeated collects the gradients of all its copies.
        n_new = total.ndim - tensor.ndim
        total = total.sum(axis=tuple(range(n_new)))
        repeated = tuple(n for n, length in enumerate(tensor.shape) if length != total.shape[n])
        close(tensor.grad, total.sum(axis=repeated, keepdims=True), 1e-11)


@pytest.mark.parametrize(
    "mask_shape",
    [(K,), (1, K), (Q, 1), (Q, K), (2, 1, 1, K), (2, 1, Q, K), (3, 1, K), (2, 3, Q, K), (4, 1, 1, Q, K)],
)
def test_masks_broadcast(impl, rng, mask_shape):
    mask = rng.random(mask_shape) < 0.6
    mask[..., 0] = True  # no row without a key
    q, k, v = inputs(rng, 2, 3)
    leading = np.broadcast_shapes((2, 3), mask_shape[:-2])
    full = np.broadcast_to(mask, (*leading, Q, K))
    weights = impl.attention_weights(*constants(q, k), mask).data
    out = impl.attention(*constants(q, k, v), mask).data
    assert weights.shape == (*leading, Q, K)
    assert out.shape == (*leading, Q, E)
    for at in np.ndindex(leading):
        head = at[-2:]
        close(weights[at], slow_weights(q[head], k[head], full[at]))
        close(out[at], slow_attention(q[head], k[head], v[head], full[at]))


def test_a_mask_may_have_more_axes_than_the_scores(impl, rng):
    q, k, v = inputs(rng)
    mask = rng.random((2, Q, K)) < 0.5
    mask[..., 1] = True
    out = impl.attention(*constants(q, k, v), mask).data
    assert out.shape == (2, Q, E)
    for n in range(2):
        close(out[n], slow_attention(q, k, v, mask[n]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_any_size(impl, dtype):
    """Powers of two, so that the scores are exact: 16384, 16384, -16384 and 8192 in the first row."""
    q = np.array([[128, 0, 0, 0], [0, 1, 0, 0], [-128, 0, 0, 0]], dtype)
    k = np.array([[256, 0, 0, 0], [256, 0, 0, 0], [-256, 0, 0, 0], [128, 0, 0, 0]], dtype)
    v = np.array([[1], [3], [7], [9]], dtype)
    weights = impl.attention_weights(*constants(q, k)).data
    close(weights, [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0]], 1e-6)
    close(impl.attention(*constants(q, k, v)).data, [[2], [5], [7]], 1e-5)
    tq, tk, tv = tensors(q, k, v)
    impl.attention(tq, tk, tv).backward(np.ones((3, 1), dtype))
    assert all(np.isfinite(tensor.grad).all() for tensor in (tq, tk, tv))
    close(tv.grad, [[0.75], [0.75], [1.25], [0.25]], 1e-6)


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_a_hidden_key_with_a_huge_score_disturbs_nothing(impl, size):
    """Its score must not be the one that is subtracted, nor outweigh what is added to it."""
    q = np.array([[1.0], [1.0]])
    k = np.array([[-size], [-size + math.log(3)], [size]])
    mask = np.array([[True, True, False], [False, True, False]])
    weights = impl.attention_weights(*constants(q, k), mask).data
    close(weights, [[0.25, 0.75, 0], [0, 1, 0]], 1e-9)  # 1e6 in float64 has an error of 1e-10
    assert (weights[:, 2] == 0).all()


def test_a_query_that_sees_nothing_gets_zero(impl, rng):
    """Padding in front of a causal sequence makes such rows. They must not be NaN, nor an average of all."""
    q, k, v = inputs(rng)
    mask = np.array([[False] * K, [True, False, True, True, False], [False] * K])
    tq, tk, tv = tensors(q, k, v)
    weights = impl.attention_weights(tq, tk, mask)
    assert (weights.data[[0, 2]] == 0).all()
    close(weights.data[1], slow_weights(q[1:2], k, mask[1:2])[0])
    out = impl.attention(tq, tk, tv, mask)
    assert (out.data[[0, 2]] == 0).all()
    g = rng.normal(size=(Q, E))
    out.backward(g)
    assert (tq.grad[[0, 2]] == 0).all()
    expected = slow_gradients(q[1:2], k, v, mask[1:2], g[1:2])
    close(tq.grad[1], expected[0][0])
    close(tk.grad, expected[1])
    close(tv.grad, expected[2])


def test_gradients_are_their_closed_form(impl, rng):
    for mask in masks(rng):
        q, k, v = inputs(rng)
        g = rng.normal(size=(Q, E))
        tq, tk, tv = tensors(q, k, v)
        impl.attention(tq, tk, tv, mask).backward(g)
        seen = np.ones((Q, K), dtype=bool) if mask is None else mask
        for tensor, expected in zip((tq, tk, tv), slow_gradients(q, k, v, seen, g), strict=True):
            close(tensor.grad, expected)


def test_gradients_of_the_weights(impl, rng):
    """The gradient of weights is that of an output whose values are the unit vectors."""
    q, k, _ = inputs(rng)
    mask = np.tri(Q, K, K - Q, dtype=bool)
    g = rng.normal(size=(Q, K))
    tq, tk = tensors(q, k)
    impl.attention_weights(tq, tk, mask).backward(g)
    dq, dk, _ = slow_gradients(q, k, np.eye(K), mask, g)
    close(tq.grad, dq)
    close(tk.grad, dk)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_are_what_central_differences_measure(impl, rng, which):
    arrays = inputs(rng, 2)
    mask = np.tri(Q, K, K - Q, dtype=bool)
    g = rng.normal(size=(2, Q, E))

    def loss(x):
        return float(
            (impl.attention(*constants(*arrays[:which], x, *arrays[which + 1 :]), mask).data * g).sum()
        )

    chosen = tensors(*arrays)
    impl.attention(*chosen, mask).backward(g)
    check_gradient(loss, chosen[which].grad, arrays[which])


def test_self_attention_adds_the_three_gradients(impl, rng):
    """One tensor as query, key and value."""
    x, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    mask = np.tri(4, dtype=bool)
    (tensor,) = tensors(x)
    impl.attention(tensor, tensor, tensor, mask).backward(g)
    close(tensor.grad, sum(slow_gradients(x, x, x, mask, g)))


def test_hidden_keys_get_no_gradient_at_all(impl, rng):
    q, k, v = inputs(rng, 2)
    mask = np.array([True, False, True, False, True])
    tq, tk, tv = tensors(q, k, v)
    impl.attention(tq, tk, tv, mask).backward(rng.normal(size=(2, Q, E)))
    for tensor in (tk, tv):
        assert (tensor.grad[:, [1, 3]] == 0).all()
        assert (tensor.grad[:, [0, 2, 4]] != 0).all()
    assert (tq.grad != 0).all()


def test_later_tokens_do_not_reach_earlier_ones(impl, rng):
    x = rng.normal(size=(6, 4))
    mask = impl.causal_mask(6, 6)
    before = impl.attention(*constants(x, x, x), mask).data
    changed = x.copy()
    changed[4:] = 100 * rng.normal(size=(2, 4))
    after = impl.attention(*constants(changed, changed, changed), mask).data
    close(after[:4], before[:4])
    assert np.abs(after[4:] - before[4:]).min(axis=1).max() > 1e-3


def test_queries_in_portions_give_the_same(impl, rng):
    """What a cache of keys and values relies on: the mask is aligned at the last key."""
    x = rng.normal(size=(2, 7, 4))
    whole = impl.attention(*constants(x, x, x), impl.causal_mask(7, 7)).data
    for start, stop in [(0, 1), (0, 3), (3, 5), (5, 6), (6, 7)]:
        seen = x[:, :stop]
        part = impl.attention(
            *constants(x[:, start:stop], seen, seen), impl.causal_mask(stop - start, stop)
        ).data
        close(part, whole[:, start:stop])


def test_the_order_of_keys_does_not_matter(impl, rng):
    q, k, v = inputs(rng)
    order = rng.permutation(K)
    mask = masks(rng)[2]
    expected = impl.attention(*constants(q, k, v), mask).data
    close(impl.attention(*constants(q, k[order], v[order]), mask[:, order]).data, expected)


def test_dtypes(impl, rng):
    """float32 stays float32, and so do its gradients; 1e-5 is far above its rounding."""
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, TOLERANCE)):
        for mask in (None, np.tri(Q, K, K - Q, dtype=bool), np.zeros((Q, K), dtype=bool)):
            q, k, v = inputs(rng, dtype=dtype)
            tq, tk, tv = tensors(q, k, v)
            weights, out = impl.attention_weights(tq, tk, mask), impl.attention(tq, tk, tv, mask)
            assert weights.dtype == out.dtype == dtype
            out.backward(np.ones((Q, E), dtype))
            assert tq.grad.dtype == tk.grad.dtype == tv.grad.dtype == dtype
            seen = np.ones((Q, K), dtype=bool) if mask is None else mask
            if seen.any():
                q, k, v = (x.astype(np.float64) for x in (q, k, v))
                close(out.data, slow_attention(q, k, v, seen), tolerance)


def test_nothing_that_was_given_is_changed(impl, rng):
    for mask in masks(rng):
        arrays = inputs(rng, 2)
        before = [x.copy() for x in arrays]
        mask_before = None if mask is None else mask.copy()
        impl.attention(*tensors(*arrays), mask).backward(rng.normal(size=(2, Q, E)))
        assert all(np.array_equal(x, y) for x, y in zip(arrays, before, strict=True))
        assert mask is None or np.array_equal(mask, mask_before)


def test_calls_do_not_remember(impl, rng):
    q, k, v = inputs(rng)
    everything = np.ones((Q, K), dtype=bool)
    mask = np.tri(Q, K, K - Q, dtype=bool)
    for seen in (None, mask, None, ~mask | np.eye(Q, K, dtype=bool), everything, None):
        close(
            impl.attention(*constants(q, k, v), seen).data,
            slow_attention(q, k, v, everything if seen is None else seen),
        )
    tq, tk, tv = tensors(q, k, v)
    for _ in range(2):
        impl.attention(tq, tk, tv, mask).backward(np.ones((Q, E)))
    close(tq.grad, 2 * slow_gradients(q, k, v, mask, np.ones((Q, E)))[0])


def test_any_memory_layout(impl, rng):
    q = rng.normal(size=(D, 2, Q)).transpose(1, 2, 0)
    k = rng.normal(size=(2, 2 * K, D))[:, ::-2]
    v = np.broadcast_to(rng.normal(size=(K, E)), (2, K, E))
    mask = np.asfortranarray(np.tri(Q, K, K - Q, dtype=bool))
    out = impl.attention(*constants(q, k, v), mask).data
    for n in range(2):
        close(out[n], slow_attention(q[n], k[n], v[n], mask))


def test_gradients_go_where_they_are_required(impl, rng):
    q, k, v = inputs(rng)
    for required in range(3):
        chosen = [Tensor(x, requires_grad=n == required) for n, x in enumerate((q, k, v))]
        impl.attention(*chosen).backward(np.ones((Q, E)))
        assert [x.grad is not None for x in chosen] == [n == required for n in range(3)]
    assert not impl.attention(*constants(q, k, v)).requires_grad
    with no_grad():
        assert not impl.attention(*tensors(q, k, v)).requires_grad


def test_the_mask_must_be_boolean(impl, rng):
    """An additive mask, 0 where a key may be seen, would mean the opposite."""
    q, k, v = inputs(rng)
    for mask in (np.zeros((Q, K)), np.ones((Q, K), dtype=int), np.where(np.tri(Q, K) > 0, 0, -np.inf)):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.attention_weights(*constants(q, k), mask)
        with pytest.raises(ValueError):  # noqa: PT011
            impl.attention(*constants(q, k, v), mask)


@pytest.mark.parametrize(
    ("q_shape", "k_shape", "v_shape", "mask_shape"),
    [
        ((Q, D), (K, D + 1), (K, E), None),
        ((Q, D), (K, D), (K + 1, E), None),
        ((2, Q, D), (3, K, D), (3, K, E), None),
        ((Q, D), (K, D), (K, E), (Q, K + 1)),
        ((Q, D), (K, D), (K, E), (K, Q)),
        ((2, Q, D), (2, K, D), (2, K, E), (3, Q, K)),
    ],
)
def test_shapes_that_do_not_fit(impl, q_shape, k_shape, v_shape, mask_shape):
    mask = None if mask_shape is None else np.ones(mask_shape, dtype=bool)
    with pytest.raises(ValueError):  # noqa: PT011 - the message is NumPy's
        impl.attention(*constants(np.ones(q_shape), np.ones(k_shape), np.ones(v_shape)), mask)
