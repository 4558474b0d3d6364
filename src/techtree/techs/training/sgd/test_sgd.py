"""Oracles: steps worked out by hand in powers of two, where nothing is rounded, and the rule in loops."""

import collections
import math
import types
from typing import ClassVar

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Parameter


def parameters(*shapes):
    """Parameters with entries 1, 2, 3, ..."""
    return [Parameter(np.arange(1.0, 1 + math.prod(shape)).reshape(shape)) for shape in shapes]


def walk(optimizer, members, n_steps, seed=0):
    """Take steps with gradients that depend on the weights and on the step."""
    for step in range(n_steps):
        for number, each in enumerate(members):
            noise = np.random.default_rng([seed, step, number]).normal(size=each.shape)
            each.grad = np.asarray(0.3 * each.data + noise, each.dtype)
        optimizer.step()


def recorder(impl):
    """A rule that notes how it is called."""

    class Recorder(impl.Optimizer):
        def start(self, weights):
            self.__dict__.setdefault("started", []).append(weights.copy())
            return {"total": np.zeros_like(weights), "n": np.array(0)}

        def update(self, weights, gradient, state, options):
            self.__dict__.setdefault("calls", []).append((weights, gradient, state, options))
            state["total"] += gradient
            state["n"] = state["n"] + 1
            weights -= options["lr"] * gradient

    return Recorder


def test_by_hand(impl):
    """Velocities 1, 0.5 + 1, 0.75 + 1; a quarter of each is subtracted."""
    w = Parameter([1.0, -2.0])
    optimizer = impl.SGD([w], lr=0.25, momentum=0.5)
    for place, velocity in ((0.75, 1.0), (0.375, 1.5), (-0.0625, 1.75)):
        w.grad = np.array([1.0, 0.0])
        optimizer.step()
        assert w.data.tolist() == [place, -2.0]
        assert optimizer.state_dict()["0.momentum"].tolist() == [velocity, 0.0]


def test_without_momentum_and_with_decay_by_hand(impl):
    w = Parameter([1.0, 2.0])
    optimizer = impl.SGD([w], 0.5)
    w.grad = np.array([4.0, -1.0])
    optimizer.step()
    assert w.data.tolist() == [-1.0, 2.5]
    w.grad = np.array([1.0, 1.0])
    optimizer.step()
    assert w.data.tolist() == [-1.5, 2.0]
    # Decay alone: velocities 0.25 * 8 = 2, then 1 + 0.25 * 7 = 2.75.
    w = Parameter([8.0])
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5, weight_decay=0.25)
    for place in (7.0, 5.625):
        w.grad = np.zeros(1)
        optimizer.step()
        assert w.data.tolist() == [place]


def test_positional_arguments_are_lr_momentum_weight_decay(impl):
    w = Parameter([1.0])
    (group,) = impl.SGD([w], 0.5, 0.25, 0.125).groups
    assert [group[name] for name in ("lr", "momentum", "weight_decay")] == [0.5, 0.25, 0.125]
    (group,) = impl.SGD([w], 0.5).groups
    assert [group[name] for name in ("lr", "momentum", "weight_decay")] == [0.5, 0.0, 0.0]


def steps_of(impl):
    """Three steps as a function of arrays."""

    def steps(weights, *gradients, **options):
        w = Parameter(weights)
        optimizer = impl.SGD([w], **options)
        for gradient in gradients:
            w.grad = gradient
            optimizer.step()
        return w.data, optimizer.state_dict()["0.momentum"]

    return steps


def slow_steps(weights, *gradients, lr, momentum=0.0, weight_decay=0.0):
    w, v = weights.copy(), np.zeros(weights.shape)
    for gradient in gradients:
        for place in np.ndindex(w.shape):
            v[place] = momentum * v[place] + gradient[place] + weight_decay * w[place]
            w[place] -= lr * v[place]
    return w, v


OPTIONS = [
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2},
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "weight_decay": 0.2},
    {"lr": 0.0, "momentum": 0.5},
    {"lr": 1.5, "momentum": 0.99, "weight_decay": 0.01},
]


def test_steps_everywhere(impl, rng):
    """Each entry takes a dozen roundings of numbers of size 10; float16 has the same number of them."""
    calls = battery.cases(
        rng,
        "... a b, ... a b, ... a b, ... a b",
        sizes={"a": (0, 1, 130), "b": (0, 1, 2, 130)},
        options=OPTIONS,
        values={
            "tiny": lambda shape: np.full(shape, 1e-30),
            "huge": lambda shape: np.full(shape, 1e30),
            "equal": np.ones,
            "zero": lambda shape: np.full(shape, -0.0),
        },
    )
    battery.sweep(
        steps_of(impl), slow_steps, calls, ulps=32, magnitude=lambda *x, **_: sum(np.abs(y) for y in x)
    )
    no_axes = [battery.Case("no axes", tuple(np.array(x) for x in rng.normal(size=4)), OPTIONS[0])]
    battery.sweep(steps_of(impl), slow_steps, no_axes, ulps=32, magnitude=10)


def test_the_data_is_changed_in_place(impl):
    """Whoever holds the array, as a tied layer or a saved view does, sees the step."""
    for options in ({}, {"momentum": 0.5}, {"weight_decay": 0.5}):
        for shape in ((2, 2), ()):
            w = Parameter(np.ones(shape))
            data = w.data
            optimizer = impl.SGD([w], lr=0.5, **options)
            for _ in range(2):
                w.grad = np.ones(shape)
                optimizer.step()
            assert w.data is data
            assert (data < 1).all()


def test_a_parameter_without_a_gradient_is_left_alone(impl):
    """Its velocity does not carry it on, does not fade, and decay does not shrink it."""
    a, b = parameters((2,), (2,))
    optimizer = impl.SGD([a, b], lr=0.5, momentum=0.5, weight_decay=0.5)
    a.grad, b.grad = np.ones(2), np.ones(2)
    optimizer.step()
    kept, velocity = b.data.copy(), optimizer.state_dict()["1.momentum"]
    before = a.data.copy()
    for _ in range(2):
        a.grad, b.grad = np.ones(2), None
        optimizer.step()
        assert b.data.tolist() == kept.tolist()
        assert b.grad is None
        assert optimizer.state_dict()["1.momentum"].tolist() == velocity.tolist()
        assert (a.data < before).all()
    b.grad = np.zeros(2)  # a gradient of 0 is one: the velocity carries on
    optimizer.step()
    assert (b.data < kept).all()


def test_the_gradient_is_not_changed_and_not_kept(impl):
    w = Parameter([1.0, 2.0])
    gradient = np.array([1.0, -1.0])
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5, weight_decay=0.5)
    w.grad = gradient
    optimizer.step()
    assert w.grad is gradient
    assert gradient.tolist() == [1.0, -1.0]
    velocity = optimizer.state_dict()["0.momentum"].tolist()
    gradient[:] = 100.0
    assert optimizer.state_dict()["0.momentum"].tolist() == velocity
    gradient[:] = 1.0
    optimizer.step()
    assert gradient.tolist() == [1.0, 1.0]


def test_zero_grad_sets_none(impl):
    a, b, c = parameters((2,), (3,), ())
    a.grad, b.grad = np.ones(2), np.ones(3)
    optimizer = impl.SGD([{"parameters": [a, c]}, {"parameters": [b]}], lr=0.5)
    optimizer.zero_grad()
    assert [each.grad for each in (a, b, c)] == [None] * 3
    optimizer.step()
    assert a.data.tolist() == [1.0, 2.0]
    assert [each.requires_grad for each in (a, b, c)] == [True] * 3
    a.grad = np.ones(2)
    optimizer.step()
    optimizer.zero_grad()  # forgets the gradients, and nothing else
    assert [value.tolist() for value in optimizer.state_dict().values()] == [[1.0, 1.0], 0.0, [0.0] * 3]
    assert a.data.tolist() == [0.5, 1.5]


def test_the_rate_is_not_part_of_the_velocity(impl):
    """When the rate falls to 0, everything stands still at once; when it returns, the velocity is there."""
    w = Parameter([1.0])
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    for lr, place in ((0.5, 0.5), (0.0, 0.5), (0.25, 0.0625)):
        optimizer.groups[0]["lr"] = lr
        w.grad = np.ones(1)
        optimizer.step()
        assert w.data.tolist() == [place]


def test_options_may_be_changed_between_steps(impl):
    w = Parameter([8.0])
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    w.grad = np.ones(1)
    optimizer.step()  # velocity 1, weight 7.5
    optimizer.groups[0].update(momentum=0.75, weight_decay=0.5, lr=1.0)
    optimizer.step()  # velocity 0.75 + 1 + 3.75
    assert w.data.tolist() == [2.0]


def test_groups_override_options(impl):
    a, b, c = parameters((1,), (1,), (1,))
    given = [
        {"parameters": [a], "lr": 0.25},
        {"parameters": [b, c], "weight_decay": 1.0},
    ]
    copies = [dict(each) for each in given]
    optimizer = impl.SGD(given, lr=0.5, momentum=0.5)
    for each in (a, b, c):
        each.grad = np.ones(1)
    optimizer.step()
    assert [each.data.tolist() for each in (a, b, c)] == [[0.75], [0.0], [0.0]]
    optimizer.step()
    assert [each.data.tolist() for each in (a, b, c)] == [[0.375], [-1.0], [-1.0]]
    assert given == copies
    first, second = optimizer.groups
    assert first == {"parameters": [a], "lr": 0.25, "momentum": 0.5, "weight_decay": 0.0}
    assert second == {"parameters": [b, c], "lr": 0.5, "momentum": 0.5, "weight_decay": 1.0}
    assert first is not given[0]
    first["lr"], given[1]["weight_decay"] = 2.0, 5.0
    assert second["lr"] == 0.5
    assert optimizer.groups[1]["weight_decay"] == 1.0
    optimizer.step()
    assert a.data.tolist() == [0.375 - 2.0 * 1.75]


def test_without_groups_there_is_one(impl):
    a, b = parameters((1,), (2,))
    optimizer = impl.SGD([a, b], lr=0.5)
    assert isinstance(optimizer.groups, list)
    assert optimizer.groups == [{"parameters": [a, b], "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}]


def test_iterables_of_any_kind(impl):
    """A module hands out its parameters as a generator, which can be walked once."""
    a, b = parameters((1,), (1,))
    for make in (
        lambda: iter([a, b]),
        lambda: (a, b),
        lambda: {"x": a, "y": b}.values(),
        lambda: ({"parameters": iter([each])} for each in (a, b)),
        lambda: ({"parameters": (a, b)},),
    ):
        a.data[:] = b.data[:] = 1.0
        optimizer = impl.SGD(make(), lr=0.5)
        assert all(isinstance(group["parameters"], list) for group in optimizer.groups)
        for _ in range(2):
            a.grad, b.grad = np.ones(1), np.ones(1)
            optimizer.step()
        assert (a.data[0], b.data[0]) == (0.0, 0.0)
        optimizer.zero_grad()
        assert a.grad is None is b.grad
    mine = [a]
    optimizer = impl.SGD(mine, lr=0.5)
    mine.append(b)
    assert optimizer.groups[0]["parameters"] == [a]


def test_nothing_is_shared(impl):
    """Not between parameters of the same shape, nor between optimizers, nor between shapes of equal size."""
    a, b = parameters((2, 2), (2, 2))
    one = impl.SGD([a, b], lr=0.5, momentum=0.5)
    a.grad, b.grad = np.ones((2, 2)), -np.ones((2, 2))
    one.step()
    c, d = parameters((2, 2), (4,))
    two = impl.SGD([c, d], lr=0.25, momentum=0.25)
    assert all((value == 0).all() for value in two.state_dict().values())
    c.grad, d.grad = np.full((2, 2), 3.0), np.full(4, 5.0)
    two.step()
    assert one.groups[0]["lr"] == 0.5
    assert {key: value.ravel()[0] for key, value in one.state_dict().items()} == {
        "0.momentum": 1.0,
        "1.momentum": -1.0,
    }
    assert {key: value.ravel()[0] for key, value in two.state_dict().items()} == {
        "0.momentum": 3.0,
        "1.momentum": 5.0,
    }
    one.step()
    assert a.data[0, 0] == 1 - 0.5 - 0.75
    assert b.data[0, 0] == 1 + 0.5 + 0.75


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_are_kept(impl, dtype):
    w = Parameter(np.ones((2, 3), dtype))
    data = w.data
    for lr in (0.5, np.float64(0.5), np.array(0.5)):
        optimizer = impl.SGD([w], lr=lr, momentum=0.5, weight_decay=0.5)
        for _ in range(2):
            w.grad = np.ones((2, 3), dtype)
            optimizer.step()
        assert w.data is data
        assert w.data.dtype == dtype
        assert optimizer.state_dict()["0.momentum"].dtype == dtype


def test_a_quadratic_is_descended(impl):
    """With gradients of the tape: (2 w - 6)^2 has its minimum at 3."""
    w = Parameter(np.array([0.0, 10.0]))
    optimizer = impl.SGD([w], lr=0.05, momentum=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        ((w * 2.0 - 6.0) ** 2).sum().backward()
        optimizer.step()
    assert np.abs(w.data - 3).max() < 1e-6


def test_the_state_is_named_by_the_number_of_the_parameter(impl):
    members = parameters(*[(n + 1,) for n in range(12)])
    groups = [{"parameters": members[:5]}, {"parameters": []}, {"parameters": members[5:], "momentum": 0.5}]
    optimizer = impl.SGD(groups, lr=0.5)
    state = optimizer.state_dict()
    assert list(state) == [f"{n}.momentum" for n in range(12)]
    assert [value.shape for value in state.values()] == [(n + 1,) for n in range(12)]
    assert all(isinstance(value, np.ndarray) and (value == 0).all() for value in state.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_state_continues_to_the_bit(impl, dtype):
    def make(members):
        groups = [{"parameters": members[:2]}, {"parameters": members[2:], "momentum": 0.8, "lr": 0.07}]
        return impl.SGD(groups, lr=0.03, momentum=0.9, weight_decay=0.1)

    members = [Parameter(np.linspace(-1, 1, math.prod(s)).reshape(s).astype(dtype)) for s in SHAPES]
    optimizer = make(members)
    walk(optimizer, members, 3)
    copies = [Parameter(each.data) for each in members]
    state = {key: value.copy() for key, value in optimizer.state_dict().items()}
    walk(optimizer, members, 3, seed=1)
    resumed = make(copies)
    for value in state.values():
        value.flags.writeable = False  # as a mapped file is
    resumed.load_state_dict(state)
    assert all(np.array_equal(value, state[key]) for key, value in resumed.state_dict().items())
    walk(resumed, copies, 3, seed=1)
    for a, b in zip(members, copies, strict=True):
        assert a.data.tobytes() == b.data.tobytes()
    for key, value in optimizer.state_dict().items():
        assert value.tobytes() == resumed.state_dict()[key].tobytes()
        assert value.dtype == resumed.state_dict()[key].dtype == dtype


SHAPES = [(3,), (2, 4), (), (0, 2), (5,)]


def test_states_are_copies(impl):
    (w,) = parameters((2,))
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    w.grad = np.ones(2)
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.step()
    assert saved["0.momentum"].tolist() == [1.0, 1.0]
    saved["0.momentum"][:] = 100.0
    assert optimizer.state_dict()["0.momentum"].tolist() == [1.5, 1.5]
    given = {"0.momentum": np.array([4.0, 8.0])}
    optimizer.load_state_dict(given)
    given["0.momentum"][:] = 100.0
    assert optimizer.state_dict()["0.momentum"].tolist() == [4.0, 8.0]
    optimizer.step()
    assert given["0.momentum"].tolist() == [100.0, 100.0]
    assert optimizer.state_dict()["0.momentum"].tolist() == [3.0, 5.0]


def test_a_state_takes_the_dtype_of_what_it_replaces(impl):
    w = Parameter(np.ones(2, np.float32))
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    optimizer.load_state_dict({"0.momentum": np.array([1.0, 0.1])})
    loaded = optimizer.state_dict()["0.momentum"]
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [1.0, float(np.float32(0.1))]


def test_options_are_not_part_of_the_state(impl):
    (w,) = parameters((2,))
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    assert set(optimizer.state_dict()) == {"0.momentum"}
    other = impl.SGD([w], lr=0.125, momentum=0.25)
    other.load_state_dict(optimizer.state_dict())
    assert (other.groups[0]["lr"], other.groups[0]["momentum"]) == (0.125, 0.25)


@pytest.mark.parametrize(
    "change",
    [
        {"1.momentum": None},
        {"0.momentum": None, "1.momentum": None},
        {"2.momentum": np.zeros(3)},
        {"0.other": np.zeros(2)},
        {"1.momentum": np.zeros(2)},
        {"1.momentum": np.zeros(1)},
        {"1.momentum": np.zeros((1, 3))},
        {"1.momentum": np.zeros((3, 1))},
        {"1.momentum": np.array(0.0)},
        {"0.momentum": np.zeros((3,)), "1.momentum": np.zeros((2,))},
    ],
)
def test_another_optimizers_state_is_refused_whole(impl, change):
    """Missing, not expected, another shape: an error, and nothing is changed, whatever else is right."""
    a, b = parameters((2,), (3,))
    optimizer = impl.SGD([a, b], lr=0.5, momentum=0.5)
    walk(optimizer, [a, b], 1)
    before = optimizer.state_dict()
    for order in (1, -1):
        state = {key: value + 1 for key, value in before.items()} | change
        state = {key: value for key, value in list(state.items())[::order] if value is not None}
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert list(after) == list(before)
        assert all(np.array_equal(after[key], before[key]) for key in before)


def test_parameters_that_cannot_be(impl):
    a, b = parameters((1,), (1,))
    for given in (
        [],
        iter([]),
        [{"parameters": []}],
        [{"parameters": []}, {"parameters": iter([])}],
        [a, a],
        [a, b, a],
        [{"parameters": [a, b]}, {"parameters": [b]}],
        [{"lr": 0.5}],
        [{"parameters": [a]}, {}],
        [{"parameters": [a], "weigth_decay": 0.5}],
        [{"parameters": [a]}, {"parameters": [b], "betas": 0.5}],
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.SGD(given, lr=0.5)
    # Equal values are no reason to refuse.
    assert len(impl.SGD([a, Parameter(a.data)], lr=0.5).groups[0]["parameters"]) == 2


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("lr", (-0.5, -1e-9, math.inf, math.nan), (0, 0.0, 1e9)),
        ("momentum", (-0.5, 1.0, 1, 9.0, math.nan), (0, 0.0, 0.999)),
        ("weight_decay", (-0.5, -1e-9, math.inf, math.nan), (0, 0.0, 7.0)),
    ],
)
def test_options_outside_their_limits(impl, option, wrong, right):
    a, b = parameters((1,), (1,))
    for value in wrong:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.SGD([a], **{"lr": 0.5, option: value})
        with pytest.raises(ValueError):  # noqa: PT011
            impl.SGD([{"parameters": [a]}, {"parameters": [b], option: value}], lr=0.5)
        for other in {"lr", "momentum", "weight_decay"} - {option}:  # what a group does not say counts in it
            battery.refuses(impl.SGD, [{"parameters": [a], other: 0.25}], **{"lr": 0.5, option: value})
    for value in right:
        assert impl.SGD([a], **{"lr": 0.5, option: value}).groups[0][option] == value
        group = {"parameters": [a], option: value}
        assert impl.SGD([group], lr=0.5).groups[0][option] == value


def test_the_frame_calls_start_once_for_each_parameter_in_order(impl):
    a, b, c = parameters((2,), (3,), ())
    optimizer = recorder(impl)([{"parameters": [b]}, {"parameters": [a, c]}], lr=0.5)
    walk(optimizer, [a, b, c], 2)
    optimizer.state_dict()
    assert [weights.tolist() for weights in optimizer.started] == [[1.0, 2.0, 3.0], [1.0, 2.0], 1.0]


def test_the_frame_hands_the_rule_what_it_promises(impl):
    a, b, c = parameters((2,), (3,), ())
    optimizer = recorder(impl)([{"parameters": [a, c]}, {"parameters": [b], "lr": 2.0}], lr=0.5, beta=(1, 2))
    a.grad, b.grad = np.ones(2), np.full(3, 2.0)
    optimizer.step()
    optimizer.step()
    assert len(optimizer.calls) == 4
    first, second, third, _ = optimizer.calls
    for (weights, gradient, state, options), parameter, group in ((first, a, 0), (second, b, 1)):
        assert weights is parameter.data
        assert gradient is parameter.grad
        assert options["lr"] == (0.5, 2.0)[group]
        assert options["beta"] == (1, 2)
        assert set(state) == {"total", "n"}
    assert third[2] is first[2] or third[2]["n"] == 2
    assert a.data.tolist() == [0.0, 1.0]
    state = optimizer.state_dict()
    assert set(state) == {f"{n}.{name}" for n in range(3) for name in ("total", "n")}
    assert all(isinstance(value, np.ndarray) for value in state.values())
    assert [int(state[f"{n}.n"]) for n in range(3)] == [2, 0, 2]
    assert state["2.total"].tolist() == [4.0] * 3
    other = recorder(impl)([{"parameters": [a, c]}, {"parameters": [b], "lr": 2.0}], lr=0.5, beta=(1, 2))
    other.load_state_dict(state)
    other.step()
    assert [int(other.state_dict()[f"{n}.n"]) for n in range(3)] == [3, 0, 3]
    assert other.state_dict()["0.n"].dtype == state["0.n"].dtype


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4, 130])
def test_any_number_of_groups(impl, n_groups):
    members = [Parameter(np.full(2, float(n), np.float32)) for n in range(2 * n_groups)]
    groups = [{"parameters": members[2 * n : 2 * n + 2], "lr": 1.0 + n} for n in range(n_groups)]
    optimizer = recorder(impl)(groups, lr=0.0)
    assert [group["lr"] for group in optimizer.groups] == [1.0 + n for n in range(n_groups)]
    for each in members:
        each.grad = np.ones(2, np.float32)
    optimizer.step()
    for n, each in enumerate(members):
        assert each.data.tolist() == [n - (1.0 + n // 2)] * 2
    for (weights, gradient, _, _), each in zip(optimizer.calls, members, strict=True):
        assert weights is each.data
        assert gradient is each.grad
    state = optimizer.state_dict()
    assert list(state) == [f"{n}.{name}" for n in range(2 * n_groups) for name in ("total", "n")]
    other = recorder(impl)(groups, lr=0.0)
    other.load_state_dict({key: value + 1 for key, value in state.items()})
    assert all(np.array_equal(value, state[key] + 1) for key, value in other.state_dict().items())
    optimizer.zero_grad()
    assert all(each.grad is None for each in members)


def test_a_rule_without_memory_and_without_limits(impl):
    class Sign(impl.Optimizer):
        def update(self, weights, gradient, state, options):
            weights -= options["lr"] * np.sign(gradient)

    (w,) = parameters((3,))
    optimizer = Sign([w], lr=-0.5)
    w.grad = np.array([5.0, -5.0, 0.0])
    optimizer.step()
    assert w.data.tolist() == [1.5, 1.5, 3.0]
    assert optimizer.state_dict() == {}
    optimizer.load_state_dict({})
    with pytest.raises(ValueError):  # noqa: PT011 - the message is free
        optimizer.load_state_dict({"0.momentum": np.zeros(3)})


def test_a_rule_that_was_not_written(impl):
    (w,) = parameters((3,))
    optimizer = impl.Optimizer([w], lr=0.5)
    optimizer.step()  # nothing to do
    w.grad = np.ones(3)
    with pytest.raises(NotImplementedError):
        optimizer.step()


def test_limits_hold_for_each_number_of_a_tuple(impl):
    class Rule(impl.Optimizer):
        limits: ClassVar = {"betas": (0.5, 2.0)}

    (w,) = parameters((3,))
    for value in ((0.4, 1.0), (1.0, 0.4), (1.0, 2.0), (2.0, 1.0), (1.0, math.nan), 2.0, 0.0):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            Rule([w], lr=-5.0, betas=value)
    for value in ((0.5, 0.5), (1.9, 0.6), 0.5):
        assert Rule([w], lr=-5.0, betas=value).groups[0]["betas"] == value


# What lies beside the usual ---------------------------------------------------------------------------------


def test_arrays_of_any_layout_are_changed_in_place(impl):
    """Who holds the array, or a part of it, sees the step; the parameter keeps its array."""
    whole = np.arange(24.0).reshape(4, 6)
    for name, view in {
        "every second column": whole[:, ::2],
        "transposed": whole.T,
        "reversed": whole[::-1, ::-1],
        "one row": whole[2],
        "one number": whole[1:2, 1:2],
    }.items():
        whole[...] = np.arange(24.0).reshape(4, 6)
        w = Parameter(view)
        w.data = view
        expected = view - 0.5
        optimizer = impl.SGD([w], lr=0.5)
        w.grad = np.ones(view.shape)
        optimizer.step()
        assert w.data is view, f"weights that are {name} of an array: step must change them in place"
        assert np.array_equal(view, expected), name
    w = Parameter([1.0, 2.0])
    optimizer = impl.SGD([w], lr=0.5, momentum=0.5)
    w.data = np.array([10.0, 20.0])  # exchanged after the optimizer was made
    w.grad = np.array([2.0, 4.0])
    optimizer.step()
    assert w.data.tolist() == [9.0, 18.0]
    w.data = w.data.copy()
    optimizer.step()
    assert w.data.tolist() == [7.5, 15.0]


def test_gradients_of_any_size_are_taken_as_they_are(impl):
    """Nothing is clipped, skipped or repaired: what is wrong with a gradient must show."""
    for gradient in (1e30, -1e30, 1e-30, math.inf, -math.inf, math.nan, 0.0, *aim.NUMBERS):
        w = Parameter([1.0, 1.0])
        w.grad = np.array([gradient, 1.0])
        impl.SGD([w], lr=0.5).step()
        with np.errstate(all="ignore"):
            expected = 1 - 0.5 * np.float64(gradient)
        assert np.array_equal(w.data, [expected, 0.5], equal_nan=True), f"a gradient of {gradient}: {w.data}"


def test_parameters_of_equal_shape_have_their_own_states(impl):
    for n in aim.sizes(2, 4, 9, 40, at_most=2000):
        members = [Parameter(np.zeros(3)) for _ in range(n)]
        optimizer = impl.SGD(members, lr=0.5, momentum=0.5)
        for _ in range(2):
            for number, each in enumerate(members):
                each.grad = np.full(3, float(number + 1))
            optimizer.step()
        for number, each in enumerate(members):
            place = -0.5 * (number + 1) * 2.5
            assert each.data.tolist() == [place] * 3, f"parameter {number} of {n}, equal in shape"
        assert list(optimizer.state_dict()) == [f"{number}.momentum" for number in range(n)]


def test_a_parameter_that_waits_keeps_its_place(impl):
    """Others of its shape go on; it has its own state when its gradient comes."""
    a, b, c = parameters((2,), (2,), (2,))
    optimizer = impl.SGD([a, b, c], lr=0.5, momentum=0.5)
    for pushes in ((None, 1.0, 2.0), (4.0, None, 2.0), (4.0, 1.0, None)):
        for each, push in zip((a, b, c), pushes, strict=True):
            each.grad = None if push is None else np.full(2, push)
        optimizer.step()
    state = optimizer.state_dict()
    assert [state[f"{n}.momentum"].tolist() for n in range(3)] == [[6.0, 6.0], [1.5, 1.5], [3.0, 3.0]]


def test_each_group_has_all_of_its_own_options(impl, rng):
    """Like three optimizers, in any order."""
    ways = [
        {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.5},
        {"lr": 0.5, "momentum": 0.0, "weight_decay": 1.0},
        {"lr": 1.0, "momentum": 0.75, "weight_decay": 0.0},
    ]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        own, together = (parameters((3,), (3,), (3,)) for _ in range(2))
        groups = [{"parameters": [together[n]], **ways[n]} for n in order]
        optimizers = [impl.SGD([own[n]], **ways[n]) for n in range(3)] + [impl.SGD(groups, lr=7.0)]
        for _ in range(3):
            for one, other in zip(own, together, strict=True):
                one.grad = rng.normal(size=3)
                other.grad = one.grad.copy()
            for each in optimizers:
                each.step()
        assert all(np.array_equal(a.data, b.data) for a, b in zip(own, together, strict=True)), order


def test_every_step_counts(impl):
    for n in aim.sizes(3, 12, 150, at_most=5000):
        w = Parameter(np.zeros(2))
        optimizer = impl.SGD([w], lr=0.25)
        for _ in range(n):
            w.grad = np.ones(2)
            optimizer.step()
        assert w.data.tolist() == [-0.25 * n] * 2, f"{n} steps"


def test_what_wants_no_gradient_is_a_parameter_too(impl):
    """A gradient is what counts, not whether one is wanted, now or at the start."""
    w, frozen = Parameter([1.0]), Parameter([2.0])
    frozen.requires_grad = False
    optimizer = impl.SGD([frozen, w], lr=0.5)
    assert optimizer.groups[0]["parameters"] == [frozen, w]
    assert list(optimizer.state_dict()) == ["0.momentum", "1.momentum"]
    w.requires_grad = False
    w.grad = np.array([1.0])
    kept = w.grad
    optimizer.step()
    assert w.data.tolist() == [0.5]
    optimizer.zero_grad()
    assert w.grad is None
    assert kept.tolist() == [1.0], "zero_grad must leave the old array alone"


def test_groups_are_kept_as_new_dictionaries(impl):
    for make in (dict, collections.OrderedDict):
        w, listed = Parameter([1.0]), [Parameter([2.0])]
        given = make({"parameters": [w], "lr": 0.25})
        optimizer = impl.SGD([given, {"parameters": listed}], lr=1.0)
        assert [group["lr"] for group in optimizer.groups] == [0.25, 1.0], make.__name__
        assert all(type(group) is dict for group in optimizer.groups)
        assert optimizer.groups[1]["parameters"] is not listed, "a group's list must be a new one"
        listed.append(w)
        assert len(optimizer.groups[1]["parameters"]) == 1
    battery.refuses(impl.SGD, [Parameter([1.0])], error=TypeError)  # lr has no default
    for lr in (
        None,
        -0.5,
        -1e-300,
        math.inf,
        math.nan,
        np.float32(-0.5),
        np.float64(math.nan),
        np.float16(math.inf),
    ):
        for arguments in (([Parameter([1.0])], lr), ([{"parameters": [Parameter([1.0])], "lr": lr}], 0.5)):
            if lr is not None:
                battery.refuses(impl.SGD, *arguments)
    for momentum in (1, 1.0, -0.1, np.float32(1), np.float32(-0.5), 2, math.nan):
        battery.refuses(impl.SGD, [Parameter([1.0])], 0.5, momentum)
        battery.refuses(impl.SGD, [{"parameters": [Parameter([1.0])], "momentum": momentum}], 0.5)


def test_limits_of_a_subclass_count(impl):
    class Narrow(impl.SGD):
        limits: ClassVar = {**impl.SGD.limits, "lr": (0.0, 0.5)}

    class Pair(impl.Optimizer):
        limits: ClassVar = {"betas": (0.0, 1.0)}

    Narrow([Parameter([1.0])], 0.25)
    battery.refuses(Narrow, [Parameter([1.0])], 0.5)
    battery.refuses(Narrow, [{"parameters": [Parameter([1.0])], "lr": 0.75}], 0.25)
    Pair([Parameter([1.0])], betas=(0.0, 0.5))
    for betas in ((0.5, 1.0), (1.0, 0.5), (-0.5, 0.5), (0.5, 0.5, 2.0), np.array([0.5, 1.0])):
        battery.refuses(Pair, [Parameter([1.0])], betas=betas)


def test_states_of_any_mapping_order_and_value(impl):
    """Also those that hold what no right run makes; the dtype is that of what is replaced."""

    def made():
        return impl.SGD(parameters((2,), (), (1, 3)), lr=0.5, momentum=0.5)

    state = {
        "2.momentum": np.array([[1.0, math.inf, math.nan]], np.float32),
        "0.momentum": np.array([0.5, -0.0]),
        "1.momentum": np.array(7),
    }
    for make in (dict, types.MappingProxyType, collections.UserDict):
        optimizer = made()
        optimizer.load_state_dict(make(state))
        found = optimizer.state_dict()
        for name, value in state.items():
            assert np.array_equal(found[name], value, equal_nan=True), name
            assert found[name].dtype == np.float64, name
    for name, wrong in {
        "1.momentum": np.zeros(1),
        "0.momentum": np.zeros((2, 1)),
        "2.momentum": np.zeros(3),
        "2.momentum ": np.zeros((3, 1)),
    }.items():
        optimizer = made()
        battery.refuses(optimizer.load_state_dict, state | {name.strip(): wrong})
        assert all((each == 0).all() for each in optimizer.state_dict().values()), "nothing may change then"
    for wrong in (
        {key: each for key, each in state.items() if key != "0.momentum"},
        state | {"3.momentum": np.zeros(1)},
        state | {"0.square": np.zeros(2)},
        {},
    ):
        battery.refuses(made().load_state_dict, wrong)
