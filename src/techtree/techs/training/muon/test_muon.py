"""Oracles: the polynomial of the singular values by NumPy's decomposition, and the rule with it."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter

QUINTIC = (3.4445, -4.7750, 2.0315)
CUBIC = (1.5, -0.5, 0.0)

# Each quintic iteration stretches what is small by 3.4: noise of one rounding has grown to 500 after five,
# and sums over 130 columns add some more.
ULPS = 4096


def slow_orthogonalize(matrix, n_iterations=5, coefficients=QUINTIC):
    """The definition, matrix by matrix."""
    result = np.zeros(matrix.shape)
    if not matrix.size:
        return result
    a, b, c = coefficients
    for place in np.ndindex(matrix.shape[:-2]):
        largest = np.abs(matrix[place]).max()
        if largest == 0:
            continue
        u, s, vt = np.linalg.svd(matrix[place] / largest, full_matrices=False)
        s = s / math.sqrt((s * s).sum())
        for _ in range(n_iterations):
            s = a * s + b * s**3 + c * s**5
        result[place] = (u * s) @ vt
    return result


def test_by_hand(impl):
    """The singular values of a diagonal matrix are its entries: 3/5 and 4/5 after the division."""
    x = np.array([[3.0, 0.0], [0.0, -4.0]])
    battery.check_equal(impl.orthogonalize(x, n_iterations=0), [[0.6, 0.0], [0.0, -0.8]])
    once = [1.5 * s - 0.5 * s**3 for s in (0.6, 0.8)]
    battery.check_equal(impl.orthogonalize(x, 1, CUBIC), [[once[0], 0.0], [0.0, -once[1]]])
    once = [sum(c * s**n for c, n in zip(QUINTIC, (1, 3, 5), strict=True)) for s in (0.6, 0.8)]
    battery.check_equal(impl.orthogonalize(x, 1), [[once[0], 0.0], [0.0, -once[1]]])
    battery.check_equal(impl.orthogonalize(x, 30, CUBIC), [[1.0, 0.0], [0.0, -1.0]])


def test_orthogonalize_everywhere(impl, rng):
    sizes = {"r": (0, 1, 2, 7, 130), "c": (0, 1, 2, 7, 130)}
    values = {
        "tiny": lambda shape: rng.normal(size=shape) * 1e-200,
        "huge": lambda shape: rng.normal(size=shape) * 1e200,
        "equal": np.ones,
        "zeros": np.zeros,
        "the smallest": lambda shape: 1e-323 * rng.integers(-9, 10, size=shape),
        "one entry": lambda shape: np.eye(math.prod(shape), 1).reshape(shape),
        "a large row": lambda shape: rng.normal(size=shape) * np.array([1e3, 1.0, 1e-2])[:, None],
    }
    options = [{}, {"n_iterations": 1}, {"n_iterations": 3}, {"n_iterations": 0}]
    options += [{"n_iterations": 8, "coefficients": CUBIC}, {"coefficients": (2.0, -1.5, 0.5)}]
    dtypes = (np.float32, np.float64)
    found = battery.cases(rng, "... r c", sizes=sizes, values=values, options=options, dtypes=dtypes)
    for n in aim.sizes(70, at_most=300):
        found.append(battery.Case(f"{n} x {n}", (np.eye(n) + rng.normal(size=(n, n)) / math.sqrt(n),)))
    found.append(battery.Case("of norm 1 already", (np.array([[0.0, 1.0], [0.0, 0.0]]),), options[3]))
    battery.sweep(impl.orthogonalize, slow_orthogonalize, found, ulps=ULPS, magnitude=1.0)


def test_any_number_of_iterations(impl):
    """A small singular value grows by half each time: 1e-6 needs more than thirty."""
    x = np.diag([1.0, 1e-6])
    for n in aim.sizes(1, 10, 31, 40, at_most=1000):
        s = np.array([1.0, 1e-6]) / math.sqrt(1 + 1e-12)
        for _ in range(n):
            s = 1.5 * s - 0.5 * s**3
        got = impl.orthogonalize(x, n, CUBIC)
        battery.check_equal(got, np.diag(s), ulps=ULPS, magnitude=1e-6, label=f"{n} iterations")


def test_float16_is_computed_in_float32(impl, rng):
    """So that the result is off by its own rounding, and not by what iterations make of it."""
    matrices = [rng.normal(size=shape).astype(np.float16) for shape in ((3, 5), (5, 3), (2, 4, 4), (40, 30))]
    matrices.append(np.diag([1.0, 1e-3, 1e-4]).astype(np.float16))
    found = [battery.Case(f"shape {x.shape}", (x,)) for x in matrices]
    battery.sweep(impl.orthogonalize, slow_orthogonalize, found, ulps=2, magnitude=1e-3)


def test_each_matrix_of_a_stack_by_itself(impl, rng):
    stack = rng.normal(size=(2, 3, 4, 5)) * 10.0 ** np.array([[-200, 0, 3], [200, -30, 0]])[..., None, None]
    stack[1, 1] = 0
    for _ in range(20):
        np.full(stack.shape, np.nan)  # what an array that is not filled would hold
    got = impl.orthogonalize(stack)
    for place in np.ndindex(2, 3):
        battery.check_equal(got[place], slow_orthogonalize(stack[place]), ulps=ULPS, magnitude=1.0)


def test_what_is_no_matrix_is_refused(impl):
    for shape in ((), (3,)):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.orthogonalize(np.ones(shape))
    with pytest.raises(ValueError):  # noqa: PT011
        impl.orthogonalize(np.eye(2), -1)
    for dtype in (np.int64, np.uint8, bool, complex):
        with pytest.raises(TypeError):
            impl.orthogonalize(np.eye(2, dtype=dtype))


def slow_walk(weights, *gradients, lr, momentum=0.95, weight_decay=0.0, n_iterations=5):
    w, average = weights.copy(), np.zeros(weights.shape)
    rows, columns = weights.shape[-2:]
    scale = math.sqrt(rows / columns) if rows > columns > 0 else 1.0
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient
        ahead = momentum * average + (1 - momentum) * gradient
        w = (1 - lr * weight_decay) * w - lr * scale * slow_orthogonalize(ahead, n_iterations)
    return w, average


def walk_of(impl):
    """Three steps as a function of arrays."""

    def walk(weights, *gradients, **options):
        w = Parameter(weights)
        data = w.data
        optimizer = impl.Muon([w], **options)
        for gradient in gradients:
            w.grad = gradient
            optimizer.step()
        assert w.data is data
        return w.data, optimizer.state_dict()["0.momentum"]

    return walk


OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.2},
    {"lr": 0.1, "momentum": 0.0},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.1, "n_iterations": 2},
    {"lr": 0.0, "momentum": 0.9},
    {"lr": 1.5, "momentum": 0.99, "n_iterations": 7},
]


def test_steps_everywhere(impl, rng):
    """Errors of a direction are those of the orthogonalization, times the rate and the scale."""
    sizes = {"r": (0, 1, 2, 130), "c": (0, 1, 2, 130), "...": [(), (2,), (2, 3)]}
    values = {
        "tiny": lambda s: rng.normal(size=s) * 1e-30,
        "zeros": np.zeros,
        "huge": lambda s: rng.normal(size=s) * 1e4,
    }
    dtypes = (np.float32, np.float64)
    calls = battery.cases(
        rng, "... r c, ... r c, ... r c, ... r c", sizes=sizes, options=OPTIONS, dtypes=dtypes, values=values
    )

    def magnitude(weights, *gradients, **options):
        return 12 + max(np.abs(x).max(initial=0) for x in (weights, *gradients))

    battery.sweep(walk_of(impl), slow_walk, calls, ulps=ULPS, magnitude=magnitude)


def test_a_step_by_hand(impl):
    """A column has one direction; a tall matrix moves by the root of rows / columns more."""
    w = Parameter(np.zeros((4, 1)))
    optimizer = impl.Muon([w], 0.5, 0.5, 0.0, 0)
    w.grad = np.array([[3.0], [0.0], [4.0], [0.0]])
    optimizer.step()
    battery.check_equal(w.data, -0.5 * 2 * np.array([[0.6], [0.0], [0.8], [0.0]]))
    w = Parameter(np.ones((1, 4)))
    optimizer = impl.Muon([w], lr=0.5, weight_decay=0.5, n_iterations=0)
    w.grad = np.array([[3.0, 0.0, 4.0, 0.0]])
    optimizer.step()
    battery.check_equal(w.data, 0.75 - 0.5 * np.array([[0.6, 0.0, 0.8, 0.0]]))


def test_the_matrices_of_a_stack_are_its_last_two_axes(impl, rng):
    w, gradient = rng.normal(size=(2, 3, 7, 2)), rng.normal(size=(2, 3, 7, 2))
    got = walk_of(impl)(w, gradient, lr=0.1)[0]
    battery.check_equal(got, slow_walk(w, gradient, lr=0.1)[0], ulps=ULPS, magnitude=2.0)


def test_the_size_of_the_gradient_does_not_matter(impl, rng):
    gradient = rng.normal(size=(3, 4))
    places = []
    for factor in (1e-8, 1.0, 1e8):
        w = Parameter(np.zeros((3, 4)))
        optimizer = impl.Muon([w], lr=0.1)
        w.grad = factor * gradient
        optimizer.step()
        places.append(w.data.copy())
    battery.check_equal(places[0], places[1], ulps=ULPS, magnitude=1.0)
    battery.check_equal(places[2], places[1], ulps=ULPS, magnitude=1.0)


def test_defaults(impl):
    (group,) = impl.Muon([Parameter(np.ones((2, 2)))], lr=0.1).groups
    assert {name: group[name] for name in ("lr", "momentum", "weight_decay", "n_iterations")} == {
        "lr": 0.1,
        "momentum": 0.95,
        "weight_decay": 0.0,
        "n_iterations": 5,
    }


def test_gradients_are_neither_changed_nor_kept(impl, rng):
    w = Parameter(rng.normal(size=(2, 3)))
    gradient = rng.normal(size=(2, 3))
    kept = gradient.copy()
    optimizer = impl.Muon([w], lr=0.1, weight_decay=0.1)
    w.grad = gradient
    optimizer.step()
    assert w.grad is gradient
    assert np.array_equal(gradient, kept)
    average = optimizer.state_dict()["0.momentum"]
    gradient[:] = 100.0
    assert np.array_equal(optimizer.state_dict()["0.momentum"], average)


def test_what_has_no_gradient_is_left_alone(impl, rng):
    a, b = Parameter(rng.normal(size=(2, 2))), Parameter(rng.normal(size=(2, 2)))
    optimizer = impl.Muon([a, b], lr=0.1, weight_decay=0.5)
    a.grad, b.grad = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    optimizer.step()
    before, average = b.data.copy(), optimizer.state_dict()["1.momentum"]
    b.grad = None
    optimizer.step()
    assert np.array_equal(b.data, before)
    assert np.array_equal(optimizer.state_dict()["1.momentum"], average)
    optimizer.zero_grad()
    assert (a.grad, b.grad) == (None, None)


def test_groups_have_their_own_options(impl):
    a, b = Parameter(np.zeros((2, 2))), Parameter(np.zeros((2, 2)))
    optimizer = impl.Muon([{"parameters": [a], "lr": 0.5}, {"parameters": [b], "n_iterations": 0}], lr=0.25)
    for each in (a, b):
        each.grad = np.diag([3.0, 4.0])
    optimizer.step()
    battery.check_equal(a.data, -0.5 * slow_orthogonalize(np.diag([3.0, 4.0])), ulps=ULPS, magnitude=1.0)
    battery.check_equal(b.data, -0.25 * np.diag([0.6, 0.8]))
    optimizer.groups[1]["lr"] = 0.0
    kept = b.data.copy()
    optimizer.step()
    assert np.array_equal(b.data, kept)


def test_every_option_of_a_group_holds_for_it_alone(impl, rng):
    gradients = rng.normal(size=(2, 5, 2))
    usual = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "n_iterations": 3}
    special = {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.4, "n_iterations": 1}
    for name, value in special.items():
        members = [Parameter(np.ones((5, 2))) for _ in range(3)]
        groups = [{"parameters": members[:1], name: value}, {"parameters": members[1:2]}]
        groups.append({"parameters": members[2:], name: value})
        optimizer = impl.Muon(groups, **usual)
        for gradient in gradients:
            for each in members:
                each.grad = gradient
            optimizer.step()
        for each, options in zip(members, ({name: value}, {}, {name: value}), strict=True):
            expected = slow_walk(np.ones((5, 2)), *gradients, **{**usual, **options})[0]
            battery.check_equal(each.data, expected, ulps=ULPS, magnitude=1.0)


def test_the_tallest_and_the_widest(impl, rng):
    for shape in ((1000, 1), (1, 1000), (400, 2), (2, 400)):
        w, gradient = rng.normal(size=shape), rng.normal(size=shape)
        got = walk_of(impl)(w, gradient, lr=0.1)[0]
        battery.check_equal(got, slow_walk(w, gradient, lr=0.1)[0], ulps=ULPS, magnitude=1.0)


def test_vectors_are_refused(impl):
    matrix = Parameter(np.ones((2, 2)))
    for shape in ((), (3,)):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is free
            impl.Muon([matrix, Parameter(np.ones(shape))], lr=0.1)
        battery.refuses(
            impl.Muon, [{"parameters": [matrix]}, {"parameters": [Parameter(np.ones(shape))]}], 0.1
        )
    impl.Muon([Parameter(np.ones((3, 1))), Parameter(np.ones((1, 3)))], lr=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -0.1},
        {"lr": math.nan},
        {"lr": 0.1, "momentum": 1.0},
        {"lr": 0.1, "momentum": -0.1},
        {"lr": 0.1, "weight_decay": -1.0},
        {"lr": 0.1, "n_iterations": -1},
    ],
)
def test_options_outside_their_limits(impl, options):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is free
        impl.Muon([Parameter(np.ones((2, 2)))], **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_state_continues_to_the_bit(impl, rng, dtype):
    gradients = rng.normal(size=(6, 2, 3, 4)).astype(dtype)

    def make(members):
        return impl.Muon([{"parameters": members[:1]}, {"parameters": members[1:], "lr": 0.3}], lr=0.1)

    def walk(optimizer, members, steps):
        for step in steps:
            for each, gradient in zip(members, gradients[step], strict=True):
                each.grad = gradient
            optimizer.step()

    members = [Parameter(rng.normal(size=(3, 4)).astype(dtype)) for _ in range(2)]
    optimizer = make(members)
    walk(optimizer, members, range(3))
    copies = [Parameter(each.data) for each in members]
    state = optimizer.state_dict()
    assert sorted(state) == ["0.momentum", "1.momentum"]
    walk(optimizer, members, range(3, 6))
    resumed = make(copies)
    resumed.load_state_dict(state)
    walk(resumed, copies, range(3, 6))
    for a, b in zip(members, copies, strict=True):
        assert a.data.dtype == dtype
        assert a.data.tobytes() == b.data.tobytes()


def test_optimizers_share_nothing(impl):
    a, b = Parameter(np.zeros((2, 2))), Parameter(np.zeros((2, 2)))
    one, two = impl.Muon([a], lr=0.1), impl.Muon([b], lr=0.1)
    a.grad = np.eye(2)
    one.step()
    assert not two.state_dict()["0.momentum"].any()
    assert not b.data.any()


class Branch(Module):
    def __init__(self, **parts):
        vars(self).update(parts)


def names(model, parameters):
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(each)] for each in parameters]


def a_model():
    def matrix():
        return Parameter(np.zeros((2, 3)))

    return Branch(
        embedding=Branch(weight=matrix(), gain=Parameter(np.ones(3))),
        layers=[
            Branch(heads=Branch(weight=matrix()), bias=Parameter(np.zeros(3)), scale=Parameter(1.0)),
            Branch(weight=Parameter(np.zeros((2, 3, 4))), row=Parameter(np.zeros((1, 3)))),
        ],
        lm=Branch(head=[matrix()]),
        head=Branch(weight=matrix()),
        subhead=matrix(),
        table=matrix(),
    )


def test_which_parameters_are_for_whom(impl):
    model = a_model()
    matrices, rest = impl.split_parameters(model)
    assert isinstance(matrices, list)
    assert isinstance(rest, list)
    assert names(model, matrices) == [
        "layers.0.heads.weight",
        "layers.1.weight",
        "layers.1.row",
        "subhead",
        "table",
    ]
    assert names(model, rest) == [
        "embedding.weight",
        "embedding.gain",
        "layers.0.bias",
        "layers.0.scale",
        "lm.head.0",
        "head.weight",
    ]
    matrices, rest = impl.split_parameters(model, others=("table", "layers"))
    assert names(model, matrices) == ["embedding.weight", "lm.head.0", "head.weight", "subhead"]
    assert len(rest) == 7
    matrices, _ = impl.split_parameters(model, ["0"])  # a position is a word, too
    assert names(model, matrices)[0] == "embedding.weight"
    assert "layers.0.heads.weight" not in names(model, matrices)
    matrices, rest = impl.split_parameters(model, ())
    assert (len(matrices), len(rest)) == (8, 3)
    assert impl.split_parameters(Branch()) == ([], [])


def test_names_at_any_depth_and_in_their_own_case(impl):
    def matrix():
        return Parameter(np.zeros((2, 3)))

    deep = Branch(a=[Branch(b=Branch(head=Branch(c=[matrix()]))), Branch(b=Branch(Head=matrix()))])
    model = Branch(deep=deep, Embedding=matrix(), embeddings=matrix(), empty=Parameter(np.zeros((0, 3))))
    matrices, rest = impl.split_parameters(model)
    assert names(model, matrices) == ["deep.a.1.b.Head", "Embedding", "embeddings", "empty"]
    assert names(model, rest) == ["deep.a.0.b.head.c.0"]
    usual = ("embedding", "token_embedding", "position_embedding", "head")
    others = ("embedding_norm", "type_embedding", "lm_head", "token", "position", "output", "wte", "wpe")
    model = Branch(**{name: Branch(weight=matrix()) for name in (*usual, *others)})
    matrices, rest = impl.split_parameters(model)
    assert names(model, rest) == [f"{name}.weight" for name in usual]
    assert names(model, matrices) == [f"{name}.weight" for name in others]
    for pattern in ("h..d", "head|table", ".*", "[a-z]+", "*", "HEAD"):
        assert impl.split_parameters(model, (pattern,))[1] == [], f"{pattern!r} is no word of a name"
    for each in model.parameters():
        each.requires_grad = False  # what is frozen today may thaw tomorrow
    assert [len(each) for each in impl.split_parameters(model)] == [len(others), len(usual)]


def test_a_shared_parameter_is_in_one_list_once(impl):
    shared = Parameter(np.zeros((2, 2)))
    for model, n in ((Branch(first=shared, head=shared), 1), (Branch(head=shared, first=shared), 0)):
        matrices, rest = impl.split_parameters(model)
        assert (len(matrices), len(rest)) == (n, 1 - n)


def test_both_lists_train_together(impl):
    """The lists go to two optimizers, and each parameter moves."""
    model = a_model()
    matrices, rest = impl.split_parameters(model)
    for each in model.parameters():
        each.grad = np.ones(each.shape)
    impl.Muon(matrices, lr=0.1).step()
    assert all(each.data.any() for each in matrices)
    assert not any((each.data != each.data.flat[0]).any() for each in rest)
