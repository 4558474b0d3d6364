"""Oracles: lists of names and values written by hand; identity of objects and of memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pytest

from techtree.techs import battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad


def names(module):
    return [name for name, _ in module.named_parameters()]


def module(impl, **attributes):
    """A module with the given attributes, assigned in order, whose class does not define `__init__`."""

    class Part(impl.Module):
        pass

    made = Part()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def p(impl, *values):
    return impl.Parameter(np.array(values or [0.0]))


def affine(impl, n_in=2, n_out=3, fill=1.0):
    class Affine(impl.Module):
        def __init__(self):
            self.weight = impl.Parameter(np.full((n_out, n_in), fill))
            self.bias = impl.Parameter(np.zeros(n_out))

        def forward(self, x):
            return x @ self.weight.swapaxes(0, 1) + self.bias

    return Affine()


# What is found, under which name, in which order.


def test_attributes_are_found_by_name_in_the_order_of_assignment(impl):
    m = module(impl, weight=p(impl), bias=p(impl), a=p(impl))
    assert names(m) == ["weight", "bias", "a"]
    assert [each for _, each in m.named_parameters()] == [m.weight, m.bias, m.a]


def test_modules_in_modules_give_paths(impl):
    m = module(impl, first=affine(impl), second=module(impl, inner=affine(impl)))
    assert names(m) == ["first.weight", "first.bias", "second.inner.weight", "second.inner.bias"]
    found = dict(m.named_parameters())
    assert found["second.inner.bias"] is m.second.inner.bias


def test_lists_tuples_and_dicts_are_walked(impl):
    m = module(
        impl,
        layers=[affine(impl), affine(impl)],
        pair=(p(impl), affine(impl)),
        table={"z": p(impl), "a": affine(impl), 3: p(impl), None: p(impl)},
    )
    assert names(m) == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
        "pair.0",
        "pair.1.weight",
        "pair.1.bias",
        "table.z",
        "table.a.weight",
        "table.a.bias",
        "table.3",
        "table.None",
    ]


def test_containers_are_walked_to_any_depth(impl):
    m = module(impl, blocks=[[p(impl), (p(impl), {"x": [affine(impl)]})], [], {}, ({"y": p(impl)},)])
    assert names(m) == [
        "blocks.0.0",
        "blocks.0.1.0",
        "blocks.0.1.1.x.0.weight",
        "blocks.0.1.1.x.0.bias",
        "blocks.3.0.y",
    ]
    deep = p(impl)
    for _ in range(40):
        deep = [module(impl, m=deep)]
    assert names(module(impl, d=deep)) == ["d" + ".0.m" * 40]


def test_kinds_of_lists_tuples_and_dicts_count_as_these(impl):
    """A named tuple is a tuple, and a class that extends list or dict makes lists and dicts."""

    class Layers(list):
        pass

    class Table(dict):
        pass

    m = module(impl, layers=Layers([p(impl)]), table=Table(a=p(impl)))
    assert names(m) == ["layers.0", "table.a"]


def test_what_is_inside_an_attribute_comes_before_the_next_one(impl):
    """Depth first, in the order of assignment: parameters of the module itself do not come first."""
    m = module(impl, body=[affine(impl)], scale=p(impl), head=affine(impl), shift=p(impl))
    assert names(m) == ["body.0.weight", "body.0.bias", "scale", "head.weight", "head.bias", "shift"]


def test_many_entries_keep_their_order(impl):
    """Sorted as texts, 10 comes before 2."""
    m = module(impl, layers=[p(impl, n) for n in range(150)])
    assert names(m) == [f"layers.{n}" for n in range(150)]
    assert [each.data[0] for each in m.parameters()] == list(range(150))


def test_an_attribute_that_is_assigned_again_keeps_its_place(impl):
    m = module(impl, a=p(impl, 1), b=p(impl, 2))
    m.a = p(impl, 3)
    assert [(name, each.data[0]) for name, each in m.named_parameters()] == [("a", 3), ("b", 2)]
    m.a = None
    assert names(m) == ["b"]


def test_any_name_will_do(impl):
    m = module(impl, _hidden=p(impl), __mangled=p(impl), Weight=p(impl), data=p(impl), grad=p(impl))
    assert names(m) == ["_hidden", "__mangled", "Weight", "data", "grad"]


def test_the_walk_sees_what_is_there_now(impl):
    m = module(impl, layers=[p(impl)])
    assert names(m) == ["layers.0"]
    assert len(m.state_dict()) == 1
    m.layers.append(affine(impl))
    m.late = p(impl)
    assert names(m) == ["layers.0", "layers.1.weight", "layers.1.bias", "late"]
    m.layers.pop(0)
    assert names(m) == ["layers.0.weight", "layers.0.bias", "late"]
    assert list(m.state_dict()) == names(m)
    del m.late
    assert m.layers[0].weight in list(m.parameters())
    assert len(list(m.parameters())) == 2


def test_other_attributes_are_left_alone(impl):
    spent = []

    def numbers():
        spent.append(1)
        yield p(impl)

    m = module(
        impl,
        tensor=Tensor(np.zeros(2), requires_grad=True),
        constant=Tensor(np.zeros(2)),
        array=np.zeros((2, 2)),
        objects=np.array([p(impl), p(impl)], dtype=object),
        text="weight",
        texts=["a", "bb", ("c",)],
        number=3.5,
        nothing=None,
        generator=numbers(),
        group={p(impl)},
        function=lambda: None,
        kind=impl.Module,
        kinds=[impl.Parameter, impl.Module],
        weight=p(impl),
    )
    assert names(m) == ["weight"]
    assert not spent


def test_a_module_without_parameters(impl):
    m = module(impl)
    assert (names(m), list(m.parameters()), m.state_dict()) == ([], [], {})
    m.load_state_dict({})


def test_a_parameter_that_is_frozen_is_still_there(impl):
    m = module(impl, a=p(impl, 1), b=p(impl, 2))
    m.a.requires_grad = False
    assert names(m) == list(m.state_dict()) == ["a", "b"]
    m.load_state_dict({"a": np.array([3.0]), "b": np.array([4.0])})
    assert [each.data[0] for each in m.parameters()] == [3, 4]
    assert m.a.requires_grad is False


def test_parameters_are_those_of_named_parameters(impl):
    m = module(impl, a=[affine(impl), p(impl)], b={"x": p(impl)})
    expected = [each for _, each in m.named_parameters()]
    found = list(m.parameters())
    assert len(found) == len(expected) == 4
    assert all(a is b for a, b in zip(found, expected, strict=True))
    assert isinstance(m.parameters(), Iterator)
    assert isinstance(m.named_parameters(), Iterator)
    first, second = m.parameters(), m.parameters()
    assert [next(first), next(second), next(first)] == [expected[0], expected[0], expected[1]]


# The same object in several places.


def test_a_shared_parameter_comes_once_by_its_first_name(impl):
    tied = p(impl, 1)
    m = module(impl, embedding=module(impl, weight=tied), body=p(impl, 2), head=module(impl, weight=tied))
    assert names(m) == ["embedding.weight", "body"]
    assert list(m.state_dict()) == ["embedding.weight", "body"]
    assert len(list(m.parameters())) == 2
    m = module(impl, a=tied, b=tied, c=[tied, tied], d={"x": tied})
    assert names(m) == ["a"]
    m = module(impl, c=[p(impl), tied, tied], a=tied)
    assert names(m) == ["c.0", "c.1"]


def test_a_shared_module_or_list_comes_once(impl):
    layer = affine(impl)
    layers = [p(impl), layer]
    m = module(impl, first=layer, again=layer, layers=layers, same=layers)
    assert names(m) == ["first.weight", "first.bias", "layers.0"]


def test_equal_values_are_not_the_same_parameter(impl):
    m = module(impl, a=p(impl, 1, 2), b=p(impl, 1, 2), c=[p(impl, 1, 2)])
    assert names(m) == ["a", "b", "c.0"]


def test_equal_modules_are_not_the_same_module(impl):
    """A dataclass defines `==`, and thereby is not hashable."""

    @dataclass
    class Scale(impl.Module):
        width: int

        def __post_init__(self):
            self.weight = impl.Parameter(np.ones(self.width))

    class Same(impl.Module):
        def __init__(self):
            self.weight = p(impl)

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 7

        def __bool__(self):
            return False

    m = module(impl, a=Scale(2), b=Scale(2), c=[Same(), Same()])
    assert names(m) == ["a.weight", "b.weight", "c.0.weight", "c.1.weight"]
    m.eval()
    assert [each.is_training for each in (m.a, m.b, *m.c)] == [False] * 4


def test_modules_may_hold_each_other(impl):
    parent = module(impl, weight=p(impl))
    parent.child = module(impl, before=p(impl), parent=parent, after=p(impl))
    parent.itself = parent
    assert names(parent) == ["weight", "child.before", "child.after"]
    assert names(parent.child) == ["before", "parent.weight", "after"]
    assert list(parent.state_dict()) == names(parent)
    assert parent.eval() is parent
    assert not parent.child.is_training
    parent.child.train()
    assert parent.is_training


def test_two_parameters_with_one_name_are_refused(impl):
    """The second would take the place of the first in a state dict."""
    inner = module(impl, b=p(impl, 1))
    clashing = [
        ("x.1", module(impl, x={1: p(impl, 1), "1": p(impl, 2)})),
        ("t.a.b", module(impl, t={"a.b": p(impl, 1), "a": inner})),
        ("t.a.b", module(impl, t={"a": {"b": p(impl, 1)}, "a.b": p(impl, 2)})),
    ]
    for name, m in clashing:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the name is looked for below
            list(m.named_parameters())
        assert name in str(caught.value)
    shared = p(impl)
    assert names(module(impl, x={1: shared, "1": shared})) == ["x.1"]


# Parameters.


def test_a_parameter_is_a_tensor_that_needs_a_gradient(impl):
    weight = impl.Parameter([[1.0, 2.0], [3.0, 4.0]])
    assert isinstance(weight, Tensor)
    assert weight.requires_grad is True
    assert weight.grad is None
    loss = ((np.array([1.0, 1.0]) @ weight) * 2.0).sum()
    loss.backward()
    assert weight.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert not isinstance(weight * 2.0, impl.Parameter)
    with no_grad():
        made = impl.Parameter([1.0])
    assert made.requires_grad is True
    (made * made).sum().backward()
    assert made.grad.tolist() == [2.0]


def test_a_parameter_has_a_copy_of_any_array(impl, rng):
    dtypes = [*battery.FLOATS, *battery.INTEGERS]
    battery.sweep(impl.Parameter, lambda x: x, battery.cases(rng, "... n m", dtypes=dtypes), ulps=0)
    for data in (2.5, 3, True, np.float32(1.5), [[1, 2], [3, 4]], [], np.zeros((0, 4))):
        made = impl.Parameter(data)
        expected = np.asarray(data)
        assert made.data.shape == expected.shape
        assert made.data.dtype == (expected.dtype if expected.dtype.kind == "f" else np.float64)
        assert made.data.tolist() == expected.tolist()


def test_the_data_of_a_parameter_is_its_own_and_writable(impl, rng):
    for layout, change in battery.LAYOUTS.items():
        for dtype in (np.float16, np.float32, np.float64, np.int64):
            given = change(np.arange(6).reshape(2, 3).astype(dtype))
            before = given.copy()
            made, other = impl.Parameter(given), impl.Parameter(given)
            made.data[...] = -1
            made.data[0, 0] = 5
            assert np.array_equal(given, before), layout
            assert np.array_equal(other.data, before), layout
            assert made.data.ravel().tolist() == [5, -1, -1, -1, -1, -1], layout
            if given.flags.writeable:
                given[...] = 9
                assert made.data[0, 0] == 5


def test_what_a_tensor_refuses_a_parameter_refuses(impl):
    for data in ("weight", [None], np.array([1j])):
        with pytest.raises(TypeError):
            impl.Parameter(data)


# Calling.


def test_calling_is_forward(impl):
    class Echo(impl.Module):
        def forward(self, *arguments, **options):
            return arguments, options

    class Nothing(impl.Module):
        def forward(self):
            return None

    marker = object()
    assert Echo()(1, marker, key=marker) == ((1, marker), {"key": marker})
    assert Echo()() == ((), {})
    assert Nothing()() is None
    x = Tensor(np.zeros(2))
    assert Echo()(x)[0][0] is x


def test_without_forward_there_is_nothing_to_call(impl):
    m = module(impl)
    with pytest.raises(NotImplementedError):
        m(1)
    with pytest.raises(NotImplementedError):
        m.forward(1)
    with pytest.raises(NotImplementedError):
        impl.Module()()


def test_a_small_network_learns(impl):
    """y = 3 x - 1 from four points, by gradient descent over what `parameters` finds."""
    layer = affine(impl, 1, 1, fill=0.0)
    x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[-1.0], [2.0], [5.0], [8.0]])
    for _ in range(400):
        for each in layer.parameters():
            each.grad = None
        ((layer(x) - y) ** 2).mean().backward()
        for each in layer.parameters():
            each.data -= 0.1 * each.grad
    assert math.isclose(layer.weight.data[0, 0], 3, abs_tol=1e-6)
    assert math.isclose(layer.bias.data[0], -1, abs_tol=1e-6)


def test_calling_does_not_depend_on_the_mode(impl):
    """What `eval` means is for each layer's forward to say: gradients flow in both modes."""
    layer = affine(impl)
    for m in (layer.train(), layer.eval()):
        out = m(np.ones((1, 2)))
        assert out.requires_grad
        out.sum().backward()
    assert all(each.requires_grad for each in layer.parameters())
    assert layer.bias.grad.tolist() == [2.0, 2.0, 2.0]


# Training and use.


def everywhere(impl):
    """Modules in every kind of place, and all of them as a list."""
    inner = [module(impl) for _ in range(7)]
    m = module(
        impl,
        plain=inner[0],
        listed=[inner[1], [inner[2]]],
        tupled=(inner[3],),
        table={"x": inner[4], "deep": {"y": (inner[5],)}},
    )
    inner[5]._hidden = inner[6]
    return m, [m, *inner]


def test_the_switch_reaches_every_module(impl):
    m, every = everywhere(impl)
    assert [each.is_training for each in every] == [True] * 8
    assert m.eval() is m
    assert [each.is_training for each in every] == [False] * 8
    assert m.train() is m
    assert [each.is_training for each in every] == [True] * 8
    assert all(type(each.is_training) is bool for each in every)


def test_the_switch_reaches_nothing_else(impl):
    m, every = everywhere(impl)
    other, _ = everywhere(impl)
    m.listed[0].eval()
    assert [each.is_training for each in every] == [True, True, False] + [True] * 5
    m.eval()
    m.table["x"].train()
    assert [each.is_training for each in every] == [False] * 5 + [True] + [False] * 2
    assert other.is_training
    assert other.plain.is_training
    assert type(m)().is_training
    assert impl.Module().is_training


def test_the_switch_leaves_parameters_alone(impl):
    layer = affine(impl)
    before = layer.state_dict()
    layer.weight.grad = np.ones((3, 2))
    layer.eval().train()
    assert names(layer) == ["weight", "bias"]
    assert layer.weight.grad.tolist() == [[1.0] * 2] * 3
    assert all(np.array_equal(before[name], each.data) for name, each in layer.named_parameters())


def test_forward_reads_the_switch(impl):
    class Halving(impl.Module):
        def __init__(self):  # without super().__init__()
            self.divisor = 2

        def forward(self, x):
            return x / self.divisor if self.is_training else x

    class Outer(impl.Module):
        def __init__(self):
            super().__init__()
            self.layers = [Halving(), Halving()]

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    m = Outer()
    assert [m(8), m.eval()(8), m.train()(8)] == [2, 8, 2]


# Saving and loading.


def test_a_state_dict_is_a_copy(impl):
    m = module(impl, a=p(impl, 1, 2), b=impl.Parameter(3.0), c=impl.Parameter(np.zeros((0, 2), np.float16)))
    state = m.state_dict()
    assert list(state) == ["a", "b", "c"]
    assert all(type(each) is np.ndarray for each in state.values())
    assert [each.shape for each in state.values()] == [(2,), (), (0, 2)]
    assert [each.dtype for each in state.values()] == [np.float64, np.float64, np.float16]
    m.a.data[...] = 7
    m.b.data[...] = 7
    assert (state["a"].tolist(), state["b"].tolist()) == ([1, 2], 3)
    state["a"][0] = 9
    state["b"][...] = 9
    assert (m.a.data.tolist(), m.b.data.tolist()) == ([7, 7], 7)
    assert m.state_dict()["a"].tolist() == [7, 7]


def test_saved_and_loaded_values_are_equal_to_the_bit(impl, rng):
    shapes = [(), (1,), (3,), (0,), (2, 3), (130, 7), (5, 0, 2), (1, 1, 1, 4)]
    for dtype in battery.FLOATS:
        drawn = [(rng.normal(size=shape) * 10.0 ** rng.integers(-4, 4)).astype(dtype) for shape in shapes]
        drawn[2][:] = [-0.0, np.inf, np.nan]
        source = module(impl, layers=[impl.Parameter(x) for x in drawn])
        target = module(impl, layers=[impl.Parameter(np.zeros_like(x)) for x in drawn])
        target.load_state_dict(source.state_dict())
        for a, b in zip(drawn, target.parameters(), strict=True):
            assert a.tobytes() == b.data.tobytes()
            assert b.data.dtype == dtype
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            assert not np.shares_memory(a.data, b.data)


def test_loading_writes_into_the_arrays_that_are_there(impl):
    m = module(impl, a=p(impl, 1, 2), b=impl.Parameter(3.0))
    parameters, arrays, view = [m.a, m.b], [m.a.data, m.b.data], m.a.data[1:]
    m.load_state_dict({"a": np.array([5.0, 6.0]), "b": np.array(7.0)})
    assert [m.a, m.b] == parameters
    assert m.a.data is arrays[0]
    assert m.b.data is arrays[1]
    assert (arrays[0].tolist(), arrays[1].tolist(), view.tolist()) == ([5, 6], 7, [6])


def test_loading_keeps_the_dtype(impl):
    for dtype in battery.FLOATS:
        _require_that_loading_keeps(impl, dtype)


def _require_that_loading_keeps(impl, dtype):
    for given in (np.float16, np.float32, np.float64, np.int32, np.uint8, np.bool_):
        m = module(impl, a=impl.Parameter(np.array([[5, 6], [7, 8]], dtype)))
        state = {"a": np.array([[1, 0], [0, 1]], given)}
        m.load_state_dict(state)
        assert m.a.data.dtype == dtype
        assert m.a.data.tolist() == [[1, 0], [0, 1]]
        assert state["a"].dtype == given
    m = module(impl, a=impl.Parameter(np.zeros(1, dtype)))
    m.load_state_dict({"a": np.array([1 / 3])})
    assert m.a.data[0] == dtype(1 / 3)


def test_loading_takes_any_order_layout_and_mapping(impl, rng):
    x = rng.normal(size=(4, 3))
    for layout, change in battery.LAYOUTS.items():
        m = module(impl, a=impl.Parameter(np.zeros((4, 3))), b=impl.Parameter(np.zeros(2)))
        given = change(x)
        m.load_state_dict(MappingProxyType({"b": np.array([1.0, 2.0]), "a": given}))
        assert np.array_equal(m.a.data, given), layout
        assert m.b.data.tolist() == [1, 2]


def test_loading_leaves_the_state_and_shares_nothing_with_it(impl):
    m = module(impl, a=p(impl, 1, 2), b=p(impl, 3))
    state = {"a": np.array([5.0, 6.0]), "b": np.array([7.0])}
    m.load_state_dict(state)
    m.a.data += 1
    assert {name: each.tolist() for name, each in state.items()} == {"a": [5, 6], "b": [7]}
    state["a"][...] = 0
    assert m.a.data.tolist() == [6, 7]


def test_loading_leaves_gradients(impl):
    m = module(impl, a=p(impl, 1, 2), b=p(impl, 3))
    m.a.grad = gradient = np.array([1.0, 2.0])
    m.load_state_dict({"a": np.array([5.0, 6.0]), "b": np.array([7.0])})
    assert m.a.grad is gradient
    assert gradient.tolist() == [1, 2]
    assert m.b.grad is None
    assert m.a.requires_grad


def test_loading_reads_all_before_it_writes(impl):
    """The state may hold the arrays of the model, under other names."""
    m = module(impl, a=p(impl, 1, 2), b=p(impl, 3, 4), c=p(impl, 5, 6))
    m.load_state_dict({"a": m.b.data, "b": m.c.data[::-1], "c": m.a.data})
    assert [each.data.tolist() for each in m.parameters()] == [[3, 4], [6, 5], [1, 2]]


def test_loading_a_shared_parameter_takes_its_first_name(impl):
    tied = p(impl, 1)
    m = module(impl, a=tied, b=module(impl, c=tied))
    m.load_state_dict({"a": np.array([2.0])})
    assert m.b.c.data.tolist() == [2]
    with pytest.raises(ValueError, match=r"b\.c"):
        m.load_state_dict({"a": np.array([3.0]), "b.c": np.array([3.0])})
    assert tied.data.tolist() == [2]


GOOD = {"first": np.ones((2, 3)), "second.0": np.ones(1), "second.1": np.array(1.0), "third": np.ones((2, 0))}


UNFIT = [
    ({"first": None}, ["first"]),
    ({"third": None}, ["third"]),
    ({"first": None, "second.1": None}, ["first", "second.1"]),
    ({"extra": np.ones(1)}, ["extra"]),
    ({"extra": np.ones(1), "other": np.ones(1)}, ["extra", "other"]),
    ({"": np.ones(1)}, []),
    ({"second": np.ones(1)}, ["second"]),
    ({"first": np.ones((3, 2))}, ["first"]),
    ({"first": np.ones(6)}, ["first"]),
    ({"first": np.ones(3)}, ["first"]),
    ({"first": np.ones((1, 3))}, ["first"]),
    ({"first": np.ones((1, 2, 3))}, ["first"]),
    ({"first": np.array(1.0)}, ["first"]),
    ({"second.0": np.ones(2)}, ["second.0"]),
    ({"second.0": np.array(1.0)}, ["second.0"]),
    ({"second.1": np.ones(1)}, ["second.1"]),
    ({"third": np.ones((0, 2))}, ["third"]),
    ({"third": np.ones((2, 1))}, ["third"]),
    (
        {"first": np.ones(3), "second.0": np.ones(3), "third": None, "x": np.ones(1)},
        ["first", "second.0", "third", "x"],
    ),
    ({"first": None, "First": np.ones((2, 3))}, ["first", "First"]),
]


def test_a_state_that_does_not_fit_is_refused_whole(impl):
    m = module(
        impl,
        first=impl.Parameter(np.zeros((2, 3))),
        second=[impl.Parameter(np.zeros(1)), impl.Parameter(0.0)],
        third=impl.Parameter(np.zeros((2, 0))),
    )
    for changes, wrong in UNFIT:
        state = {name: value for name, value in (GOOD | changes).items() if value is not None}
        for given in (state, dict(reversed(state.items()))):
            with pytest.raises(ValueError) as caught:  # noqa: PT011 - the names are looked for
                m.load_state_dict(given)
            assert all(name in str(caught.value) for name in wrong)
            assert all(not each.data.any() for each in m.parameters())
    m.load_state_dict(GOOD)
    assert all(each.data.all() for each in m.parameters())
