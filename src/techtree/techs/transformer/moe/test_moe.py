"""Oracles: each token by itself in NumPy, gradients by differences, folders written here."""

import json
import math

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.swiglu import SwiGLU


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def slow_route(logits, n_chosen, is_renormalized=True):
    p = softmax(np.asarray(logits, float))
    experts = [sorted(range(len(row)), key=lambda e, row=row: -row[e])[:n_chosen] for row in logits]
    experts = np.array(experts, int).reshape(len(p), n_chosen)
    weights = np.take_along_axis(p, experts, axis=1)
    return experts, weights / weights.sum(axis=1, keepdims=True) if is_renormalized else weights


def slow_balance(logits, experts):
    share = np.array([(experts == e).mean() for e in range(logits.shape[1])])
    return logits.shape[1] * (share * softmax(logits).mean(axis=0)).sum()


def distinct(rng, *shape):
    """Draw logits without near ties, so that rounding decides nothing: steps of a half, shuffled."""
    order = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    return 0.5 * (order - shape[-1] / 2) * (1 if shape[-1] < 40 else 40 / shape[-1])


# Router --------------------------------------------------------------------------------------------------


def test_routes_by_hand(impl):
    logits = Tensor(np.log([[1.0, 4.0, 3.0], [2.0, 2.0, 1.0]]))
    for is_renormalized, expected in [
        (False, [[0.5, 0.375], [0.4, 0.4]]),
        (True, [[4 / 7, 3 / 7], [0.5, 0.5]]),
    ]:
        experts, weights = impl.route(logits, 2, is_renormalized)
        assert experts.tolist() == [[1, 2], [0, 1]]
        battery.check_equal(weights, expected)
    battery.check_equal(impl.route(logits, n_chosen=1)[1], [[1.0], [1.0]])


def route_cases(rng):
    sizes = [
        (1, 1, 1),
        (3, 2, 1),
        (1, 2, 2),
        (4, 3, 2),
        (5, 8, 2),
        (7, 5, 5),
        (2, 64, 8),
        (0, 4, 2),
        (130, 3, 1),
    ]
    sizes += [(3, 130, 129), (300, 6, 3), (3, 300, 290)]
    sizes += [(n, 3, 2) for n in aim.sizes(at_most=3000)] + [
        (2, n, 2) for n in aim.sizes(at_most=300) if n > 1
    ]
    for n, n_experts, n_chosen in sizes:
        for is_renormalized in (True, False):
            options = {"n_chosen": n_chosen, "is_renormalized": is_renormalized}
            yield Case(f"{n} tokens, {n_chosen} of {n_experts}", (distinct(rng, n, n_experts),), options)
        yield Case(
            f"{n} tokens, {n_chosen} of {n_experts}", (distinct(rng, n, n_experts),), {"n_chosen": n_chosen}
        )
    options = {"n_chosen": 3, "is_renormalized": False}
    for dtype in battery.FLOATS:
        for is_renormalized in (True, False):
            x = distinct(rng, 6, 5).astype(dtype)
            yield Case(np.dtype(dtype).name, (x,), {"n_chosen": 2, "is_renormalized": is_renormalized})
    for layout, lay in battery.LAYOUTS.items():
        yield Case(layout, (lay(distinct(rng, 6, 5)),), options)
    for size in (1e-9, 30.0, 1e3, 1e5):
        yield Case(f"logits times {size:g}", (size * distinct(rng, 6, 5),), options)
        yield Case(f"logits times {size:g}", (size * distinct(rng, 6, 5),), {"n_chosen": 3})
    for shift in (-1e3, 1e3):
        yield Case(f"logits and {shift:g}", (shift + distinct(rng, 6, 5),), options)
    ties = {"all equal": np.zeros((4, 5)), "small whole numbers": rng.integers(3, size=(40, 7)) * 1.0}
    ties |= {"zeros of both signs": np.array([[0.0, -0.0, 0.0, -0.0], [-0.0, 0.0, -1.0, 0.0]])}
    ties |= {"equal and many": np.zeros((3, 200)), "two halves": np.repeat([[1.0, 0.0]], 150, 1)}
    for name, x in ties.items():
        yield Case(name, (x,), options)


def test_the_highest_are_chosen_everywhere(impl, rng):
    cases = list(route_cases(rng))

    def chosen(logits, **options):
        experts, _ = impl.route(Tensor(logits), **options)
        assert experts.dtype.kind in "iu"
        return experts.astype(np.int64)

    battery.sweep(chosen, lambda x, **options: slow_route(x, **options)[0], cases, ulps=0, dtype=np.int64)
    battery.sweep(
        lambda x, **options: impl.route(Tensor(x), **options)[1],
        lambda x, **options: slow_route(x, **options)[1],
        cases,
        ulps=32,
        magnitude=lambda x, **options: 1e-3 + 1e-3 * np.abs(x).max(initial=0),
    )


def test_gradients_of_routes(impl, rng):
    def definition(g, logits, n_chosen, is_renormalized=True):
        experts, _ = slow_route(logits, n_chosen, is_renormalized)
        p = softmax(logits)
        of_p = np.zeros(p.shape)
        chosen = np.take_along_axis(p, experts, 1)
        if is_renormalized:
            total = chosen.sum(axis=1, keepdims=True)
            g = g / total - (g * chosen).sum(axis=1, keepdims=True) / total**2
        np.put_along_axis(of_p, experts, g, 1)
        return [p * (of_p - (p * of_p).sum(axis=1, keepdims=True))]

    cases = [each for each in route_cases(rng) if np.abs(each.arguments[0]).max(initial=0) < 20]
    battery.sweep_gradients(
        lambda x, **options: impl.route(x, **options)[1],
        definition,
        cases,
        tensor=lambda x: Tensor(x, requires_grad=True),
        rng=rng,
        magnitude=lambda *_, **__: 4.0,
    )


def test_what_a_router_refuses(impl, rng):
    for shape in [(), (3,), (2, 3, 4), (1, 2, 3, 4)]:
        battery.refuses(impl.route, Tensor(np.ones(shape)), 1)
    for n_experts, n_chosen in [(3, 0), (3, -1), (3, 4), (1, 2), (1, 0), (8, 9), (8, 100)]:
        for n in (0, 1, 5):
            battery.refuses(impl.route, Tensor(np.ones((n, n_experts))), n_chosen)
            battery.refuses(impl.route, Tensor(np.ones((n, n_experts))), n_chosen, False)


# Balance -------------------------------------------------------------------------------------------------


def balance_cases(rng):
    for n, n_experts, n_chosen in [
        (1, 1, 1),
        (1, 2, 1),
        (2, 2, 2),
        (5, 3, 1),
        (7, 8, 3),
        (130, 4, 2),
        (3, 130, 5),
    ]:
        logits = rng.normal(size=(n, n_experts))
        yield Case(f"{n} tokens, {n_chosen} of {n_experts}", (logits, slow_route(logits, n_chosen)[0]))
        experts = rng.integers(n_experts, size=(n, n_chosen))
        yield Case(f"{n} tokens, other choices of {n_experts}", (logits, experts))
        yield Case(f"{n} tokens, only one of {n_experts}", (logits, np.full((n, n_chosen), n_experts - 1)))
    for n in aim.sizes(at_most=3000):
        logits = rng.normal(size=(n, 4))
        yield Case(f"{n} tokens", (logits, slow_route(logits, 2)[0]))
    for dtype in battery.FLOATS:
        logits = rng.normal(size=(6, 5)).astype(dtype)
        yield Case(np.dtype(dtype).name, (logits, slow_route(logits, 2)[0]))
    for layout, lay in battery.LAYOUTS.items():
        logits = rng.normal(size=(6, 5))
        yield Case(layout, (lay(logits), lay(slow_route(logits, 2)[0])))
    for size in (0.0, 1e-6, 30.0, 1e4):
        logits = size * rng.normal(size=(6, 5))
        yield Case(f"logits times {size:g}", (logits, slow_route(logits, 2)[0]))


def test_balance_everywhere(impl, rng):
    for logits, experts, expected in [
        (np.log([[3.0, 1.0], [3.0, 1.0]]), [[0], [0]], 1.5),
        (np.log([[3.0, 1.0], [3.0, 1.0]]), [[1], [0]], 1.0),
        (np.log([[3.0, 1.0], [3.0, 1.0]]), [[1], [1]], 0.5),
        (np.zeros((5, 4)), [[0, 1]] * 5, 1.0),
        ([[1e3, 0.0, 0.0]] * 2, [[0], [0]], 3.0),
    ]:
        battery.check_equal(impl.balance_loss(Tensor(logits), np.array(experts)), expected)
    battery.sweep(
        lambda logits, experts: impl.balance_loss(Tensor(logits), experts),
        slow_balance,
        balance_cases(rng),
        ulps=32,
        dtype=None,
    )
    logits = Tensor(rng.normal(size=(3, 4)).astype(np.float32))
    assert impl.balance_loss(logits, np.array([[0], [1], [1]])).dtype == np.float32
    assert impl.balance_loss(logits, np.array([[0], [1], [1]])).shape == ()


def test_gradients_of_the_balance(impl, rng):
    def definition(g, logits, experts):
        p = softmax(logits)
        share = np.array([(experts == e).mean() for e in range(p.shape[1])])
        return [g * p.shape[1] / len(p) * p * (share - (p * share).sum(axis=1, keepdims=True))]

    cases = [each for each in balance_cases(rng) if np.abs(each.arguments[0]).max() < 20]
    battery.sweep_gradients(
        impl.balance_loss,
        definition,
        cases,
        tensor=lambda x: Tensor(x, requires_grad=True),
        rng=rng,
        magnitude=1.0,
    )


def test_what_the_balance_refuses(impl, rng):
    logits = Tensor(rng.normal(size=(3, 4)))
    for shape in [(3,), (), (3, 1, 1), (2, 1), (4, 1), (1, 1), (3, 0), (0, 1)]:
        battery.refuses(impl.balance_loss, logits, np.zeros(shape, int))
    for shape in [(3,), (), (3, 4, 1), (1, 3, 4), (2, 4), (0, 4)]:
        battery.refuses(impl.balance_loss, Tensor(np.ones(shape)), np.zeros((3, 1), int))
    battery.refuses(impl.balance_loss, Tensor(np.ones((0, 4))), np.zeros((0, 2), int))


# The layer -----------------------------------------------------------------------------------------------


def filled(module, rng):
    """Give all parameters numbers that make logits far from ties and answers of size one."""
    module.load_state_dict(
        {
            name: 1.5 * rng.normal(size=p.shape) / math.sqrt(p.shape[-1])
            for name, p in module.named_parameters()
        }
    )
    return module


def state_of(module):
    return {name: each.data.astype(np.float64) for name, each in module.named_parameters()}


def slow_expert(state, e, rows):
    gate, up = (rows @ state[f"experts.{e}.{name}.weight"].T for name in ("gate", "up"))
    return (gate / (1 + np.exp(-gate)) * up) @ state[f"experts.{e}.down.weight"].T


def slow_moe(state, x, n_chosen, is_renormalized=True, capacity=None, experts=None):
    """All experts for all rows, of which the choices are taken; ``experts``, where these are known."""
    rows = x.reshape(-1, x.shape[-1])
    logits = rows @ state["router.weight"].T
    n_experts = logits.shape[1]
    if experts is None:
        experts, _ = slow_route(logits, n_chosen)
    p = softmax(logits)
    room = math.inf if capacity is None else math.ceil(capacity * len(rows) * n_chosen / n_experts)
    total = np.take_along_axis(p, experts, 1).sum(axis=1) if is_renormalized else np.ones(len(rows))
    answer = np.zeros(rows.shape)
    for e in range(n_experts):
        mine = (experts == e).any(axis=1)
        mine &= np.cumsum(mine) <= room
        answer += np.where(mine, p[:, e] / total, 0)[:, None] * slow_expert(state, e, rows)
    return answer.reshape(x.shape)


def close(got, expected, label, dtype=np.float64):
    assert got.dtype == dtype, label
    size = 1 + 4 * np.abs(expected).max(initial=0)
    battery.check_equal(got, expected, 200 if dtype == np.float64 else 20, size, dtype, label)


SHAPES = [
    # width, hidden, experts, chosen
    (3, 2, 1, 1),
    (2, 3, 2, 1),
    (4, 3, 2, 2),
    (3, 5, 4, 2),
    (1, 1, 3, 2),
    (6, 2, 8, 3),
    (2, 2, 40, 4),
    (5, 1, 5, 5),
]


def test_every_shape_is_its_definition(impl, rng):
    for width, hidden, n_experts, n_chosen in SHAPES:
        for is_renormalized in (True, False):
            module = impl.MoE(width, hidden, n_experts, n_chosen, rng, is_renormalized)
            filled(module, rng)
            for leading in ((7,), (), (1,), (2, 3), (2, 1, 2)):
                x = rng.normal(size=(*leading, width))
                before = x.copy()
                label = f"{n_chosen} of {n_experts}, renormalized {is_renormalized}, leading axes {leading}"
                expected = slow_moe(state_of(module), x, n_chosen, is_renormalized)
                close(module(Tensor(x)), expected, label)
                assert np.array_equal(x, before)
                logits = x.reshape(-1, width) @ module.router.weight.data.T
                battery.check_equal(module.logits, logits, 64, 1, label=label)
                assert np.array_equal(module.chosen, slow_route(logits, n_chosen)[0]), label
    for n in aim.sizes(140, 600, at_most=10_000):
        module = filled(impl.MoE(2, 1, 3, 2, rng), rng)
        x = rng.normal(size=(n, 2))
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2), f"{n} tokens")
    for n in aim.sizes(70, at_most=300):
        module = filled(impl.MoE(3, 1, n, 2, rng), rng)
        x = rng.normal(size=(9, 3))
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2), f"{n} experts")


def test_no_rows(impl, rng):
    for capacity in (None, 1.0):
        module = impl.MoE(3, 2, 4, 2, rng, capacity=capacity)
        for shape in ((0, 3), (2, 0, 3), (0, 5, 3)):
            got = module(Tensor(np.zeros(shape)))
            assert got.shape == shape
            assert module.logits.shape == (0, 4)
            assert module.chosen.shape == (0, 2)


def test_all_experts_are_the_dense_mix(impl, rng):
    module = filled(impl.MoE(4, 3, 5, 5, rng), rng)
    x = rng.normal(size=(2, 3, 4))
    weights = softmax(x @ module.router.weight.data.T)
    mix = sum(weights[..., e : e + 1] * expert(Tensor(x)).data for e, expert in enumerate(module.experts))
    close(module(Tensor(x)), mix, "five of five")
    same = filled(impl.MoE(4, 3, 3, 2, rng), rng)
    for expert in same.experts[1:]:
        expert.load_state_dict(same.experts[0].state_dict())
    close(same(Tensor(x)), same.experts[0](Tensor(x)).data, "equal experts")


def test_layouts_and_dtypes(impl, rng):
    for dtype in battery.FLOATS:
        for capacity in (None, 0.75):
            module = filled(impl.MoE(4, 3, 5, 2, rng, capacity=capacity, dtype=dtype), rng)
            assert {each.dtype for each in module.parameters()} == {np.dtype(dtype)}
            x = rng.normal(size=(2, 8, 4)).astype(dtype)
            got = module(Tensor(x))
            assert module.logits.dtype == dtype
            # In float16 rounding may decide between experts: the choices are taken as they are.
            expected = slow_moe(state_of(module), x.astype(float), 2, True, capacity, module.chosen)
            close(got, expected, f"{np.dtype(dtype).name}, capacity {capacity}", dtype)
    module = filled(impl.MoE(4, 3, 5, 2, rng), rng)
    for layout, lay in battery.LAYOUTS.items():
        x = lay(rng.normal(size=(3, 4)))
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2), layout)
    for size in (0.0, 1e-6, 30.0, 1e3):
        x = size * rng.normal(size=(5, 4))
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2), f"x times {size:g}")


def test_experts_have_no_more_room_than_their_capacity(impl, rng):
    for n_experts, n_chosen in [(4, 2), (3, 1), (2, 2), (5, 3), (1, 1), (8, 2)]:
        for capacity in (0.25, 0.5, 1, 1.0, 1.25, 2.0, 100.0, 2**-20):
            for is_renormalized in (True, False):
                module = impl.MoE(3, 2, n_experts, n_chosen, rng, is_renormalized, capacity)
                filled(module, rng)
                x = rng.normal(size=(2, 8, 3))
                expected = slow_moe(state_of(module), x, n_chosen, is_renormalized, capacity)
                close(module(Tensor(x)), expected, f"{n_chosen} of {n_experts}, capacity {capacity}")
                logits = x.reshape(-1, 3) @ module.router.weight.data.T
                assert np.array_equal(module.chosen, slow_route(logits, n_chosen)[0])
    # By hand: all five tokens want expert 1, which takes ceil(0.75 * 5 / 2) = 2, the first ones.
    module = filled(impl.MoE(1, 1, 2, 1, rng, capacity=0.75), rng)
    module.router.weight.data[:] = [[0.0], [1.0]]
    x = np.array([[3.0], [1.0], [2.0], [5.0], [4.0]])
    got = module(Tensor(x)).data
    assert (got[:2] != 0).all()
    assert (got[2:] == 0).all()
    assert module.chosen.tolist() == [[1]] * 5
    for n in aim.sizes(40, at_most=600):
        module = filled(impl.MoE(2, 1, 3, 2, rng, capacity=0.5), rng)
        x = rng.normal(size=(n, 2))
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2, capacity=0.5), f"{n} tokens")
    for switch in (module.eval, module.train):
        close(switch()(Tensor(x)), slow_moe(state_of(module), x, 2, capacity=0.5), "in use and in training")


def test_an_expert_computes_its_own_rows_alone(impl, rng):
    class Counting(Module):
        def __init__(self, expert):
            self.expert, self.rows = expert, 0

        def forward(self, x):
            self.rows += math.prod(x.shape[:-1])
            return self.expert(x)

    for capacity in (None, 0.5):
        module = filled(impl.MoE(4, 3, 6, 2, rng, capacity=capacity), rng)
        x = rng.normal(size=(20, 4))
        expected = slow_moe(state_of(module), x, 2, capacity=capacity)
        module.experts = [Counting(each) for each in module.experts]
        close(module(Tensor(x)), expected, "counted")
        counts = np.bincount(module.chosen.ravel(), minlength=6)
        room = 40 if capacity is None else math.ceil(capacity * 40 / 6)
        assert [each.rows for each in module.experts] == np.minimum(counts, room).tolist()


def test_gradients_are_differences(impl, rng):
    for n_experts, n_chosen, is_renormalized, capacity in [
        (4, 2, True, None),
        (3, 1, False, None),
        (3, 1, True, None),
        (2, 2, True, None),
        (4, 2, False, 0.5),
        (4, 2, True, 1.0),
    ]:
        module = filled(impl.MoE(3, 2, n_experts, n_chosen, rng, is_renormalized, capacity), rng)
        x = rng.normal(size=(2, 5, 3))
        state, leaf = state_of(module), Tensor(x, requires_grad=True)
        result = module(leaf)
        g = rng.normal(size=result.shape)
        result.backward(g)
        chosen = slow_route(x.reshape(-1, 3) @ state["router.weight"].T, n_chosen)[0]
        for name, grad in [*((name, p.grad) for name, p in module.named_parameters()), ("x", leaf.grad)]:
            at = x if name == "x" else state[name]
            direction, values = rng.normal(size=at.shape), []
            for step in (1e-5, -1e-5):
                moved = at + step * direction
                mine, there = (state, moved) if name == "x" else (state | {name: moved}, x)
                values.append((g * slow_moe(mine, there, n_chosen, is_renormalized, capacity, chosen)).sum())
            expected = (values[0] - values[1]) / 2e-5
            got = 0 if grad is None else (grad * direction).sum()
            assert abs(got - expected) < 1e-6 * (1 + abs(expected)), (name, got, expected)
    with no_grad():
        assert not module(Tensor(x)).requires_grad


def test_the_balance_reaches_the_router(impl, rng):
    module = filled(impl.MoE(3, 2, 4, 2, rng), rng)
    x = Tensor(rng.normal(size=(2, 5, 3)), requires_grad=True)
    module(x)
    impl.balance_loss(module.logits, module.chosen).backward()
    assert np.abs(module.router.weight.grad).max() > 0
    assert np.abs(x.grad).max() > 0
    assert all(each.grad is None for expert in module.experts for each in expert.parameters())


def test_what_a_module_holds(impl, rng):
    module = impl.MoE(6, 5, 3, 2, rng)
    assert isinstance(module, Module)
    assert isinstance(module.router, Linear)
    assert module.router.bias is None
    assert isinstance(module.experts, list)
    assert all(type(each) is SwiGLU for each in module.experts)
    assert module.logits is None
    assert module.chosen is None
    expected = [("router.weight", (3, 6))]
    for e in range(3):
        expected += [(f"experts.{e}.{name}.weight", (5, 6)) for name in ("gate", "up")]
        expected += [(f"experts.{e}.down.weight", (6, 5))]
    for _ in range(2):
        assert [(name, each.shape) for name, each in module.named_parameters()] == expected
        module(Tensor(rng.normal(size=(4, 6))))
    x = rng.normal(size=(5, 6))
    before = module(Tensor(x)).data.copy()
    module(Tensor(rng.normal(size=(2, 3, 6))))
    assert module.chosen.shape == (6, 2)
    assert module.logits.shape == (6, 3)
    for switch in (module.eval, module.train):
        assert np.array_equal(switch()(Tensor(x)).data, before)


def test_weights_are_drawn_in_order(impl):
    for gain in (1.0, 0.25, 0.0):
        options = {} if gain == 1 else {"gain": gain}
        rng, twin = np.random.default_rng(3), np.random.default_rng(3)
        module = impl.MoE(4, 3, 5, 2, rng, **options)
        assert np.array_equal(module.router.weight.data, Linear(4, 5, twin, False).weight.data)
        for expert in module.experts:
            for mine, theirs in zip(
                expert.parameters(), SwiGLU(4, 3, twin, gain=gain).parameters(), strict=True
            ):
                assert np.array_equal(mine.data, theirs.data)
        assert rng.random() == twin.random()
    one, other = (impl.MoE(4, 3, 3, 2, np.random.default_rng(0)) for _ in range(2))
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        mine.data += 1
        assert not np.array_equal(mine.data, theirs.data)


def test_parts_may_be_changed_and_exchanged(impl, rng):
    module = filled(impl.MoE(4, 3, 3, 2, rng), rng)
    x = rng.normal(size=(6, 4))

    def check(label):
        close(module(Tensor(x)), slow_moe(state_of(module), x, 2), label)

    for name, each in module.named_parameters():
        each.data *= 2
        check(f"{name} changed")
        each.data = each.data - 0.1
        check(f"{name} replaced")
    module.router = filled(Linear(4, 3, rng, False), rng)
    check("router exchanged")
    module.experts[1] = filled(SwiGLU(4, 7, rng), rng)
    check("one expert exchanged")
    module.experts = [filled(SwiGLU(4, 2, rng), rng) for _ in range(3)]
    check("all experts exchanged")


def test_what_a_module_refuses(impl, rng):
    for n_experts, n_chosen in [(0, 0), (1, 0), (3, 4), (3, 0), (3, -1), (-1, -1), (0, 1), (8, 9)]:
        battery.refuses(impl.MoE, 4, 3, n_experts, n_chosen, rng)
    for capacity in (0, 0.0, -1.0, -1e-9, float("nan")):
        battery.refuses(impl.MoE, 4, 3, 3, 2, rng, capacity=capacity)
    for capacity in (None, 1.0):
        module = impl.MoE(4, 3, 3, 2, rng, capacity=capacity)
        for shape in [(), (3,), (3, 5), (4, 1), (2, 4, 8), (3, 0), (2, 2), (8,)]:
            battery.refuses(module, Tensor(np.ones(shape)))


# Folders -------------------------------------------------------------------------------------------------

PLAIN = {"model_type": "qwen3_moe", "vocab_size": 13, "hidden_size": 6, "intermediate_size": 7}
PLAIN |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
PLAIN |= {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 3}


def values_of(**changes):
    values = PLAIN | changes
    return {key: each for key, each in values.items() if each != "missing"}


def their_name(name):
    for part in ("gate", "up", "down"):
        name = name.replace(f".{part}.", f".{part}_proj.")
    for ours, theirs in [
        ("token_embedding", "model.embed_tokens"),
        ("blocks", "model.layers"),
        ("attention_norm", "input_layernorm"),
        ("feed_forward_norm", "post_attention_layernorm"),
        ("feed_forward.router", "mlp.gate"),
        ("feed_forward.experts", "mlp.experts"),
        ("feed_forward", "mlp"),
        ("attention.query_norm", "self_attn.q_norm"),
        ("attention.key_norm", "self_attn.k_norm"),
        ("attention.query", "self_attn.q_proj"),
        ("attention.key", "self_attn.k_proj"),
        ("attention.value", "self_attn.v_proj"),
        ("attention.output", "self_attn.o_proj"),
    ]:
        name = name.replace(ours, theirs)
    return {"norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}.get(name, name)


def made(impl, rng, values, sparse, **options):
    """Return a model put together here, with random weights."""
    config = LlamaConfig(
        13,
        6,
        7,
        values["num_hidden_layers"],
        4,
        2,
        4,
        is_tied=values.get("tie_word_embeddings", False),
        has_head_norms=True,
    )
    n_experts, n_chosen = values.get("num_experts", 0), values["num_experts_per_tok"]

    def part(layer):
        return impl.MoE(6, 3, n_experts, n_chosen, rng, **options) if layer in sparse else None

    return filled(Llama(config, rng, part), rng)


def written(folder, values, model=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    if model is not None:
        weights = {their_name(name): each.data.astype(np.float32) for name, each in model.named_parameters()}
        save_file(weights, folder / "model.safetensors")
    return folder


def test_whole_folders(impl, rng, tmp_path):
    ids = rng.integers(13, size=(2, 5))
    for number, (changes, sparse) in enumerate(
        [
            ({}, {0, 1, 2}),
            ({"norm_topk_prob": True, "tie_word_embeddings": True}, {0, 1, 2}),
            ({"norm_topk_prob": False, "num_experts_per_tok": 5}, {0, 1, 2}),
            ({"num_experts_per_tok": 1, "num_experts": 1}, {0, 1, 2}),
            ({"mlp_only_layers": [1], "norm_topk_prob": True}, {0, 2}),
            ({"mlp_only_layers": None, "decoder_sparse_step": 2}, {1}),
            ({"mlp_only_layers": [], "decoder_sparse_step": 3, "num_hidden_layers": 6}, {2, 5}),
            ({"mlp_only_layers": [5, 0, 99], "decoder_sparse_step": 2, "num_hidden_layers": 6}, {1, 3}),
            ({"decoder_sparse_step": 9}, set()),
            ({"num_experts": 12, "num_experts_per_tok": 3, "num_hidden_layers": 1}, {0}),
        ]
    ):
        values = values_of(**changes)
        is_renormalized = changes.get("norm_topk_prob", False)
        model = made(impl, rng, values, sparse, is_renormalized=is_renormalized)
        folder = written(tmp_path / str(number), values, model)
        for given, dtype in ((folder, np.float32), (str(folder), np.float64)):
            loaded = impl.load_qwen3_moe(given, dtype=dtype)
            assert isinstance(loaded, Llama)
            assert {each.dtype for each in loaded.parameters()} == {np.dtype(dtype)}
            kinds = {i for i, block in enumerate(loaded.blocks) if isinstance(block.feed_forward, impl.MoE)}
            assert kinds == sparse
            model.load_state_dict(
                {name: each.astype(np.float32) for name, each in model.state_dict().items()}
            )
            for name, each in loaded.named_parameters():
                assert np.array_equal(each.data, dict(model.named_parameters())[name].data), name
            if dtype == np.float64:
                close(loaded(ids), model(ids).data, f"{changes}")
        assert {each.dtype for each in impl.load_qwen3_moe(folder).parameters()} == {np.dtype(np.float32)}
    other = {key: each for key, each in values.items() if key != "num_experts"} | {"num_local_experts": 12}
    again = impl.load_qwen3_moe(written(folder, other), np.float64)
    close(again(ids), model(ids).data, "num_local_experts")
    again = impl.load_qwen3_moe(written(folder, values | {"num_local_experts": 3}), np.float64)
    close(again(ids), model(ids).data, "both, num_experts counts")


def test_folders_that_are_refused(impl, rng, tmp_path):
    model = made(impl, rng, values_of(), {0, 1, 2})
    folder = written(tmp_path / "model", values_of(), model)
    impl.load_qwen3_moe(folder)
    battery.refuses(impl.load_qwen3_moe, tmp_path)
    wrong = [
        (key, each)
        for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
        for each in ("missing", None, 0, -1, 2.0, "5", True, [5])
    ]
    wrong += [("decoder_sparse_step", each) for each in (0, -1, 1.0, "1", None, True)]
    wrong += [("norm_topk_prob", each) for each in (0, 1, "true", None)]
    wrong += [
        ("mlp_only_layers", each) for each in (3, "0", {"0": 1}, True, {}, "", ["0"], [1.5], [None], [[1]])
    ]
    for key in ("num_experts_per_tok", "moe_intermediate_size"):
        battery.refuses(impl.load_qwen3_moe, written(folder, values_of(**{key: "missing"})), says=[key])
    alike = values_of(moe_intermediate_size="missing", intermediate_size=3)  # no other width takes its place
    battery.refuses(impl.load_qwen3_moe, written(folder, alike), says=["moe_intermediate_size"])
    wrong += [("num_experts_per_tok", 6), ("num_experts", 1), ("num_experts", 4), ("num_experts", 6)]
    wrong += [("model_type", each) for each in ("qwen3", "llama", "qwen2_moe", "mixtral", "missing")]
    wrong += [("moe_intermediate_size", 4), ("mlp_only_layers", [0]), ("decoder_sparse_step", 2)]
    wrong += [
        ("attention_bias", True),
        ("use_sliding_window", True),
        ("vocab_size", "missing"),
        ("head_dim", 3),
    ]
    for key, value in wrong:
        battery.refuses(impl.load_qwen3_moe, written(folder, values_of(**{key: value})))
    for value in (None, 0, 4):
        both = values_of(num_experts=value, num_local_experts=5)
        battery.refuses(impl.load_qwen3_moe, written(folder, both))
    written(folder, values_of())
    weights = {their_name(name): each.data for name, each in model.named_parameters()}
    for name in ("model.layers.1.mlp.gate.weight", "model.layers.2.mlp.experts.4.up_proj.weight"):
        rest = {other: each for other, each in weights.items() if other != name}
        save_file(rest, folder / "model.safetensors")
        battery.refuses(impl.load_qwen3_moe, folder, says=[name])
        save_file(rest | {name: weights[name].T.copy()}, folder / "model.safetensors")
        battery.refuses(impl.load_qwen3_moe, folder, says=[name])
    save_file(
        weights | {"model.layers.0.mlp.shared_expert.up_proj.weight": np.ones(3)},
        folder / "model.safetensors",
    )
    battery.refuses(impl.load_qwen3_moe, folder, says=["shared_expert"])
    (folder / "model.safetensors").unlink()
    battery.refuses(impl.load_qwen3_moe, folder)
