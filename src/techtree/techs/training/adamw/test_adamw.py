"""Oracles: first steps by hand, the rule in loops over its closed form, and what it must not depend on."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Parameter


def walked(impl, weights, gradients, **options):
    """Take steps with one parameter, and return it with its optimizer."""
    w = Parameter(weights)
    optimizer = impl.AdamW([w], **options)
    for gradient in gradients:
        w.grad = gradient
        optimizer.step()
    return w, optimizer


def test_the_first_step_has_the_size_of_the_rate(impl):
    """mean / (1 - beta1) is the gradient, and the root of square / (1 - beta2) its size."""
    for betas in ((0.9, 0.999), (0.0, 0.0), (0.5, 0.75), (0.99, 0.9)):
        w, optimizer = walked(
            impl, [1.0, 1.0, 2.0], [np.array([1e-3, -1e3, 1.0])], lr=0.25, betas=betas, weight_decay=0.0
        )
        assert np.abs(w.data - [0.75, 1.25, 1.75]).max() < 1e-5  # epsilon takes 1e-8 / 1e-3 of it
        state = optimizer.state_dict()
        assert np.abs(state["0.mean"] / (1 - betas[0]) - [1e-3, -1e3, 1.0]).max() < 1e-9
        assert np.abs(state["0.square"] / (1 - betas[1]) - [1e-6, 1e6, 1.0]).max() < 1e-6


def test_two_steps_by_hand(impl):
    """Betas of 1/2 and 3/4, gradients 4 and -2: means 2, 0 and squares 4, 4; corrected 4, 0 and 16, 64/7."""
    w, optimizer = walked(
        impl, [8.0], [np.array([4.0]), np.array([-2.0])], lr=0.5, betas=(0.5, 0.75), eps=0.0, weight_decay=0.0
    )
    assert w.data.tolist() == [7.5]
    state = optimizer.state_dict()
    assert (state["0.mean"].tolist(), state["0.square"].tolist()) == ([0.0], [4.0])
    assert int(state["0.n_steps"]) == 2
    w.grad = np.array([3.0])  # mean 1.5, corrected 12/7; square 21/4, corrected 21/4 * 64/37
    optimizer.step()
    assert w.data[0] == pytest.approx(7.5 - 0.5 * (12 / 7) / math.sqrt(21 / 4 * 64 / 37), rel=1e-14)


def test_epsilon_stands_outside_the_root_and_is_not_corrected(impl):
    """A first gradient of the size of epsilon makes half a step, one of three times that, three quarters."""
    for eps in (1e-8, 1.0, 1e-3):
        w, _ = walked(
            impl, np.zeros(3), [np.array([1.0, 3.0, -1.0]) * eps], lr=1.0, eps=eps, weight_decay=0.0
        )
        assert np.abs(w.data - [-0.5, -0.75, 0.5]).max() < 1e-9


def test_decay_stands_beside_the_step(impl):
    """Without a gradient to speak of it takes off lr * weight_decay; of the weights before the step."""
    w, optimizer = walked(impl, [8.0, -4.0], [np.zeros(2)], lr=0.5, weight_decay=0.25)
    assert w.data.tolist() == [7.0, -3.5]
    optimizer.step()
    assert w.data.tolist() == [6.125, -3.0625]
    for size in (1e-3, 1.0, 1e3):  # the same share for gradients of any size
        w, optimizer = walked(impl, [8.0], [np.full(1, size)], lr=0.5, eps=0.0, weight_decay=0.25)
        assert w.data[0] == pytest.approx(8.0 * 0.875 - 0.5, rel=1e-14)
        assert optimizer.state_dict()["0.mean"][0] == pytest.approx(0.1 * size, rel=1e-12)


def test_defaults_and_order_of_arguments(impl):
    w = Parameter([1.0])
    names = ("lr", "betas", "eps", "weight_decay")
    (group,) = impl.AdamW([w], 0.5).groups
    assert [group[name] for name in names] == [0.5, (0.9, 0.999), 1e-8, 0.01]
    (group,) = impl.AdamW([w], 0.5, (0.8, 0.95), 1e-6, 0.125).groups
    assert [group[name] for name in names] == [0.5, (0.8, 0.95), 1e-6, 0.125]


def steps_of(impl):
    """Four steps as a function of arrays."""

    def steps(weights, *gradients, **options):
        w, optimizer = walked(impl, weights, gradients, **options)
        state = optimizer.state_dict()
        return w.data, state["0.mean"], state["0.square"]

    return steps


def slow_steps(weights, *gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    """The averages as what they are: weighted sums over all gradients so far, divided by their weights."""
    w = weights.copy()
    mean, square = np.zeros(w.shape), np.zeros(w.shape)
    for place in np.ndindex(w.shape):
        for n in range(1, len(gradients) + 1):
            seen = [float(gradient[place]) for gradient in gradients[:n]]
            m = math.fsum((1 - betas[0]) * betas[0] ** (n - 1 - k) * g for k, g in enumerate(seen))
            v = math.fsum((1 - betas[1]) * betas[1] ** (n - 1 - k) * g * g for k, g in enumerate(seen))
            size = math.sqrt(v / (1 - betas[1] ** n)) + eps
            w[place] += -lr * weight_decay * w[place] - lr * m / (1 - betas[0] ** n) / size
            mean[place], square[place] = m, v
    return w, mean, square


OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2},
    {"lr": 0.1, "betas": (0.0, 0.9), "weight_decay": 0.0},
    {"lr": 0.1, "betas": (0.9, 0.5)},
    {"lr": 0.0, "weight_decay": 0.5},
    {"lr": 1.5, "betas": (0.99, 0.9), "eps": 0.5, "weight_decay": 0.6},
    {"lr": 0.5, "weight_decay": 3.0},  # each step turns the weights' sign
]


def test_steps_everywhere(impl, rng):
    """A square of size 1 times 1 - 0.999 rounds as a term of size 1; four steps of a dozen roundings each."""
    calls = battery.cases(
        rng,
        "... a b, ... a b, ... a b, ... a b, ... a b",
        sizes={"a": (0, 1, 33), "b": (0, 1, 2, 33)},
        dtypes=(np.float32, np.float64),
        options=OPTIONS,
        values={
            "tiny": lambda shape: np.full(shape, 1e-100),
            "huge": lambda shape: np.full(shape, 1e100),
            "equal": np.ones,
            "zero": lambda shape: np.full(shape, -0.0),
        },
    )

    def magnitude(weights, *gradients, lr, **_):
        return sum((np.abs(g) for g in gradients), np.abs(weights)) + 10 * lr

    battery.sweep(steps_of(impl), slow_steps, calls, ulps=128, magnitude=magnitude)
    no_axes = [battery.Case("no axes", tuple(np.array(x) for x in rng.normal(size=5)), OPTIONS[1])]
    battery.sweep(steps_of(impl), slow_steps, no_axes, ulps=128, magnitude=10)
    long = [battery.Case("130 x 130", tuple(rng.normal(size=(3, 130, 130))), OPTIONS[1])]
    long += [
        battery.Case(f"{n} entries", tuple(rng.normal(size=(3, n))), OPTIONS[1])
        for n in aim.sizes(at_most=300_000)
    ]
    battery.sweep(steps_of(impl), fast_steps, long, ulps=128, magnitude=10)


def fast_steps(weights, *gradients, lr, betas, eps, weight_decay):
    """The closed form of two steps for whole arrays."""
    first, second = gradients
    one = weights * (1 - lr * weight_decay) - lr * first / (np.abs(first) + eps)
    mean = (1 - betas[0]) * (second + betas[0] * first)
    square = (1 - betas[1]) * (second**2 + betas[1] * first**2)
    step = mean / (1 - betas[0] ** 2) / (np.sqrt(square / (1 - betas[1] ** 2)) + eps)
    return one * (1 - lr * weight_decay) - lr * step, mean, square


@pytest.mark.parametrize("n_steps", [10, 300])
def test_many_steps(impl, rng, n_steps):
    """The correction fades as the averages fill: an error in its exponent shows where beta2**n is neither."""
    gradients = list(rng.normal(size=(n_steps, 2)))
    for betas in ((0.9, 0.999), (0.5, 0.98)):
        w, optimizer = walked(impl, [1.0, -1.0], gradients, lr=0.01, betas=betas, weight_decay=0.1)
        assert int(optimizer.state_dict()["0.n_steps"]) == n_steps
        expected, m, v = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
        for n, g in enumerate(gradients, 1):
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
            step = m / (1 - betas[0] ** n) / (np.sqrt(v / (1 - betas[1] ** n)) + 1e-8)
            expected = expected * (1 - 0.01 * 0.1) - 0.01 * step
        assert np.abs(w.data - expected).max() < 1e-12


def test_the_count_goes_on_from_any_number(impl):
    """Betas whose n-th powers are 1/2 and 1/4: the corrections are never near 1. A count may be long."""
    for n in aim.sizes(1, 2, 70, 40_000, 1_000_000, at_most=10_000_000):
        w = Parameter([1.0])
        betas = (0.5 ** (1 / n), 0.25 ** (1 / n))
        optimizer = impl.AdamW([w], lr=0.5, betas=betas, weight_decay=0.0)
        optimizer.load_state_dict(
            {"0.mean": np.array([3.0]), "0.square": np.array([2.0]), "0.n_steps": np.array(n - 1)}
        )
        w.grad = np.array([1.0])
        optimizer.step()
        mean, square = (beta * x + 1 - beta for beta, x in zip(betas, (3.0, 2.0), strict=True))
        expected = 1 - 0.5 * (mean / 0.5) / (math.sqrt(square / 0.75) + 1e-8)
        assert w.data[0] == pytest.approx(expected, rel=1e-7)
        assert int(optimizer.state_dict()["0.n_steps"]) == n


def test_the_scale_of_gradients_does_not_matter(impl, rng):
    gradients = rng.normal(size=(5, 3))
    options = {"lr": 0.1, "eps": 0.0, "weight_decay": 0.1}
    expected = walked(impl, np.ones(3), gradients, **options)[0].data
    for scale in (2.0**-100, 2.0**100):  # powers of two change no rounding
        got = walked(impl, np.ones(3), gradients * scale, **options)[0].data
        assert np.abs(got - expected).max() < 1e-14


def test_each_entry_on_its_own(impl, rng):
    """What the gradient of one weight is has nothing to do with the steps of the others."""
    gradients = rng.normal(size=(4, 3))
    alone = [walked(impl, [1.0], g[:, None], lr=0.1)[0].data[0] for g in gradients.T]
    together = walked(impl, np.ones(3), gradients, lr=0.1)[0].data
    assert np.abs(together - alone).max() < 1e-14
    for broken in (np.nan, np.inf, -np.inf):
        w, optimizer = walked(impl, [1.0, 1.0], [np.array([broken, 2.0])], lr=0.5, eps=0.0, weight_decay=0.0)
        state = optimizer.state_dict()
        assert np.isnan(w.data[0])
        assert w.data[1] == pytest.approx(0.5, rel=1e-12)
        assert np.array_equal(state["0.mean"][:1], [broken], equal_nan=True)
        assert not np.isfinite(state["0.square"][0])


def test_data_in_place_and_gradient_unchanged(impl):
    for shape in ((2, 2), ()):
        w = Parameter(np.ones(shape))
        data, gradient = w.data, np.full(shape, 0.5)
        optimizer = impl.AdamW([w], lr=0.5, weight_decay=0.1)
        for _ in range(3):
            w.grad = gradient
            optimizer.step()
        assert w.data is data
        assert (data < 1).all()
        assert w.grad is gradient
        assert (gradient == 0.5).all()
        mean = optimizer.state_dict()["0.mean"].copy()
        gradient += 1.0
        assert np.array_equal(optimizer.state_dict()["0.mean"], mean)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(impl, dtype):
    for lr in (0.5, np.float64(0.5), np.array(0.5)):
        for betas in ((0.9, 0.999), (np.float64(0.9), np.float64(0.999)), [0.9, 0.999]):
            w = Parameter(np.ones((2, 3), dtype))
            data = w.data
            optimizer = impl.AdamW([w], lr=lr, betas=betas)
            for _ in range(2):
                w.grad = np.ones((2, 3), dtype)
                optimizer.step()
            state = optimizer.state_dict()
            assert w.data is data
            assert data.dtype == state["0.mean"].dtype == state["0.square"].dtype == dtype
            assert state["0.n_steps"].dtype.kind in "iu"
            assert state["0.n_steps"].shape == ()


def test_what_is_remembered_from_the_start(impl):
    w = Parameter(np.ones((2, 3), np.float32))
    state = impl.AdamW([w], lr=0.5).state_dict()
    assert set(state) == {"0.mean", "0.square", "0.n_steps"}
    assert all(isinstance(value, np.ndarray) and (value == 0).all() for value in state.values())
    assert state["0.mean"].shape == state["0.square"].shape == (2, 3)
    assert state["0.mean"].dtype == state["0.square"].dtype == np.float32


def test_a_parameter_without_a_gradient_is_left_alone_and_counts_its_own_steps(impl):
    """It comes later into play, and its first step is a first step."""
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = impl.AdamW([a, b], lr=0.25, eps=0.0, weight_decay=0.5)
    for _ in range(5):
        a.grad, b.grad = np.array([2.0]), None
        optimizer.step()
    assert b.data.tolist() == [1.0]
    before = a.data.copy()
    a.grad, b.grad = None, np.array([3.0])
    optimizer.step()
    assert b.data[0] == pytest.approx(1.0 * 0.875 - 0.25, rel=1e-14)
    assert a.data.tolist() == before.tolist()
    state = optimizer.state_dict()
    assert (int(state["0.n_steps"]), int(state["1.n_steps"])) == (5, 1)


def test_nothing_is_shared(impl):
    a, b = Parameter(np.ones(2)), Parameter(np.ones(2))
    one = impl.AdamW([a, b], lr=0.5)
    a.grad, b.grad = np.ones(2), -np.ones(2)
    one.step()
    c = Parameter(np.ones(2))
    two = impl.AdamW([c], lr=0.25, betas=(0.5, 0.5))
    assert all((value == 0).all() for value in two.state_dict().values())
    c.grad = np.full(2, 4.0)
    two.step()
    assert one.state_dict()["0.mean"] == pytest.approx(0.1)
    assert one.state_dict()["1.mean"] == pytest.approx(-0.1)
    assert two.state_dict()["0.mean"] == pytest.approx(2.0)
    assert one.groups[0]["betas"] == (0.9, 0.999)


def test_groups_and_changed_options(impl):
    """Every option of a group holds for it alone, and is read anew in each step."""
    special = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 1.0, "weight_decay": 0.25}
    usual = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 0.1, "weight_decay": 0.02}
    gradients = [np.array([1.0]), np.array([3.0])]
    for name in special:
        a, b = Parameter([2.0]), Parameter([2.0])
        optimizer = impl.AdamW([{"parameters": [a], name: special[name]}, {"parameters": [b]}], **usual)
        for gradient in gradients:
            a.grad = b.grad = gradient
            optimizer.step()
        expected = walked(impl, [2.0], gradients, **{**usual, name: special[name]})[0].data
        assert a.data.tolist() == expected.tolist()
        assert b.data.tolist() == walked(impl, [2.0], gradients, **usual)[0].data.tolist()
        assert a.data.tolist() != b.data.tolist()
    w = Parameter([2.0])
    optimizer = impl.AdamW([w], **usual)
    w.grad = np.array([1.0])
    optimizer.step()
    place = w.data[0]
    optimizer.groups[0].update(special)
    w.grad = np.array([3.0])
    optimizer.step()
    mean, square = 0.5 * 0.1 + 0.5 * 3, 0.75 * 0.05 + 0.25 * 9
    step = mean / (1 - 0.5**2) / (math.sqrt(square / (1 - 0.75**2)) + 1.0)
    assert w.data[0] == pytest.approx(place * (1 - 0.5 * 0.25) - 0.5 * step, rel=1e-13)


SHAPES = [(3,), (2, 4), (), (0, 2), (5,)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_state_continues_to_the_bit(impl, dtype):
    def make(members):
        groups = [{"parameters": members[:2]}, {"parameters": members[2:], "betas": (0.8, 0.9), "lr": 0.07}]
        return impl.AdamW(groups, lr=0.03, weight_decay=0.1)

    def walk(optimizer, members, n_steps, seed):
        draw = np.random.default_rng(seed)
        for step in range(n_steps):
            for number, each in enumerate(members):
                gradient = np.asarray(draw.normal(size=each.shape), dtype)
                each.grad = None if (step + number) % 4 == 3 else gradient
            optimizer.step()

    members = [Parameter(np.linspace(-1, 1, math.prod(s)).reshape(s).astype(dtype)) for s in SHAPES]
    optimizer = make(members)
    walk(optimizer, members, 5, 0)
    copies = [Parameter(each.data) for each in members]
    state = optimizer.state_dict()
    for value in state.values():
        value.flags.writeable = False  # as a mapped file is
    walk(optimizer, members, 5, 1)
    resumed = make(copies)
    resumed.load_state_dict(state)
    walk(resumed, copies, 5, 1)
    for a, b in zip(members, copies, strict=True):
        assert a.data.tobytes() == b.data.tobytes()
    for key, value in optimizer.state_dict().items():
        assert value.tobytes() == resumed.state_dict()[key].tobytes()


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("lr", (-0.5, math.inf, math.nan), (0, 0.0, 1e9)),
        (
            "betas",
            ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, -0.1), (0.9, math.nan), (2, 0.5)),
            ((0, 0), (0.0, 0.999), (0.999, 0.0)),
        ),
        ("eps", (-1e-8, math.inf, math.nan), (0, 0.0, 1.0)),
        ("weight_decay", (-0.5, math.inf, math.nan), (0, 0.0, 7.0)),
    ],
)
def test_options_outside_their_limits(impl, option, wrong, right):
    a, b = Parameter([1.0]), Parameter([1.0])
    for value in wrong:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.AdamW([a], **{"lr": 0.5, option: value})
        with pytest.raises(ValueError):  # noqa: PT011
            impl.AdamW([{"parameters": [a]}, {"parameters": [b], option: value}], lr=0.5)
    for value in right:
        assert impl.AdamW([a], **{"lr": 0.5, option: value}).groups[0][option] == value


def test_it_is_an_optimizer(impl):
    """The frame of `sgd`: generators, unknown options, no parameters, zero_grad, another's state."""
    a, b = Parameter([1.0, 2.0]), Parameter([3.0])
    optimizer = impl.AdamW(iter([a, b]), lr=0.5)
    a.grad = np.ones(2)
    optimizer.zero_grad()
    assert a.grad is None
    for given in ([], [a, a], [{"parameters": [a], "beta": 0.5}]):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.AdamW(given, lr=0.5)
    state = optimizer.state_dict()
    del state["1.n_steps"]
    with pytest.raises(ValueError):  # noqa: PT011
        optimizer.load_state_dict(state)


def test_a_valley_is_descended(impl):
    """With gradients of the tape: a curvature of 1 in one direction, of 10,000 in the other."""
    w = Parameter(np.array([3.0, 3.0]))
    optimizer = impl.AdamW([w], lr=0.05, weight_decay=0.0)
    for step in range(400):
        optimizer.groups[0]["lr"] = 0.05 * (1 - step / 400)
        optimizer.zero_grad()
        (w * w * np.array([1.0, 1e4])).sum().backward()
        optimizer.step()
    assert np.abs(w.data).max() < 1e-2


def names_of(groups, members):
    """Each group as the numbers of its parameters and its decay."""
    number = {id(each): n for n, each in enumerate(members)}
    assert all(set(group) == {"parameters", "weight_decay"} for group in groups)
    assert all(isinstance(group["parameters"], list) for group in groups)
    return [([number[id(each)] for each in group["parameters"]], group["weight_decay"]) for group in groups]


def test_matrices_decay_and_vectors_do_not(impl):
    shapes = [(2,), (2, 3), (), (1, 1), (5,), (2, 3, 4), (1,), (0, 3), (1, 1, 1, 1)]
    members = [Parameter(np.ones(shape)) for shape in shapes]
    members[3].requires_grad = members[4].requires_grad = False  # What is frozen today may thaw tomorrow.
    for given in (members, tuple(members), iter(members), (each for each in members)):
        groups = impl.decay_groups(given, 0.1)
        assert isinstance(groups, list)
        assert names_of(groups, members) == [([1, 3, 5, 7, 8], 0.1), ([0, 2, 4, 6], 0.0)]
    assert names_of(impl.decay_groups(parameters=members, weight_decay=0.0), members) == [
        ([1, 3, 5, 7, 8], 0.0),
        ([0, 2, 4, 6], 0.0),
    ]


def test_groups_without_parameters_are_left_out(impl):
    members = [Parameter(np.ones(shape)) for shape in ((2, 3), (2,))]
    assert names_of(impl.decay_groups(members[:1], 0.5), members) == [([0], 0.5)]
    assert names_of(impl.decay_groups(members[1:], 0.5), members) == [([1], 0.0)]
    assert impl.decay_groups([], 0.5) == []


def test_groups_for_the_optimizer(impl):
    matrix, bias = Parameter(np.full((2, 2), 8.0)), Parameter(np.full(2, 8.0))
    optimizer = impl.AdamW(impl.decay_groups([bias, matrix], 0.25), lr=0.5, weight_decay=0.125)
    matrix.grad, bias.grad = np.zeros((2, 2)), np.zeros(2)
    optimizer.step()
    assert matrix.data.tolist() == [[7.0, 7.0], [7.0, 7.0]]
    assert bias.data.tolist() == [8.0, 8.0]
    first = impl.decay_groups([bias, matrix], 0.25)
    first[0]["parameters"].clear()
    assert len(impl.decay_groups([bias, matrix], 0.25)) == 2
