"""Oracles: lists of names and values written by hand; identity of objects and of memory."""

import enum
import itertools
import math
from collections import OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

from techtree.techs import aim, battery
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
        table={"z": p(impl), "a": affine(impl), 3: p(impl)},
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
    ]


class Sign:
    """What `str` and `repr` write of it differs."""

    def __str__(self):
        return "sign"

    def __repr__(self):
        return "Sign()"


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 7


KEYS = [
    *["z", "a", "", "ß 😀", "two words", "k" * 200, "10", "9", "_", "__class__", "weight", "is_training"],
    *[-1, 0, 1, 2.0, 2.5, 10**30, None, (1, 2), ("x",), b"a", frozenset(), Sign(), Colour.RED, Level.HIGH],
    *[np.int64(5), np.float32(0.5), np.str_("np"), int, ...],
]


def test_keys_of_dicts_are_written_as_str_writes_them(impl):
    for key in [*KEYS, True, False, "0", "None"]:
        for value, end in ((p(impl), ""), ([p(impl)], ".0"), (module(impl, w=p(impl)), ".w")):
            m = module(impl, table={key: value})
            assert (key, names(m)) == (key, [f"table.{key!s}{end}"])
            assert list(m.state_dict()) == names(m)
    together = module(impl, table={key: p(impl) for key in KEYS})
    assert names(together) == [f"table.{key!s}" for key in KEYS]


def test_containers_are_walked_to_any_depth(impl):
    m = module(impl, blocks=[[p(impl), (p(impl), {"x": [affine(impl)]})], [], {}, ({"y": p(impl)},)])
    assert names(m) == [
        "blocks.0.0",
        "blocks.0.1.0",
        "blocks.0.1.1.x.0.weight",
        "blocks.0.1.1.x.0.bias",
        "blocks.3.0.y",
    ]


WRAPS = {
    "list": (lambda impl, x: [x], ".0"),
    "tuple": (lambda impl, x: (x,), ".0"),
    "dict": (lambda impl, x: {"k": x}, ".k"),
    "module": (lambda impl, x: module(impl, m=x), ".m"),
    "the second place of a list": (lambda impl, x: ["before", x, None], ".1"),
    "a list in a module": (lambda impl, x: module(impl, m=[x]), ".m.0"),
    "a dict in a tuple": (lambda impl, x: ({1: x},), ".0.1"),
}


def test_the_walk_leaves_nothing_out_that_is_deep(impl):
    """Python allows about a thousand nested calls: beyond a hundred, one may say that it is too deep."""
    for (wrap, step), depth in itertools.product(
        WRAPS.values(), aim.sizes(2, 3, 4, 7, 20, 100, 2000, at_most=2500)
    ):
        end = module(impl, w=p(impl))
        deep = end
        for _ in range(depth):
            deep = wrap(impl, deep)
        m = module(impl, d=deep, after=p(impl))
        try:
            found = [names(m), m.eval().is_training, end.is_training]
        except RecursionError:
            assert depth > 100, f"a RecursionError for {step!r} nested {depth} deep"
            continue
        expected = [["d" + step * depth + ".w", "after"], False, False]
        assert (step, depth, found == expected) == (step, depth, True)


def test_kinds_of_lists_tuples_dicts_parameters_and_modules_count_as_these(impl):
    """A named tuple is a tuple, and a class that extends list or dict makes lists and dicts."""

    class Layers(list):
        pass

    class Table(dict):
        pass

    class Weight(impl.Parameter):
        def __init__(self, n):
            super().__init__(np.ones(n))

    class Heavy(Weight):
        pass

    class Base(impl.Module):
        def __init__(self):
            self.base = p(impl)

    class Derived(Base):
        def __init__(self):
            super().__init__()
            self.derived = Weight(2)

    counted = defaultdict(list, x=p(impl))
    pair = namedtuple("Pair", ["left", "right"])(p(impl), [p(impl)])
    m = module(
        impl,
        layers=Layers([p(impl)]),
        table=Table(a=p(impl)),
        ordered=OrderedDict(b=p(impl), a=p(impl)),
        counted=counted,
        pair=pair,
        weight=Weight(3),
        heavy=[Heavy(1)],
        derived=Derived(),
    )
    expected = ["layers.0", "table.a", "ordered.b", "ordered.a", "counted.x", "pair.0", "pair.1.0", "weight"]
    assert names(m) == [*expected, "heavy.0", "derived.base", "derived.derived"]
    assert list(counted) == ["x"]
    assert type(m.weight) is Weight
    assert m.weight.requires_grad
    m.derived.eval()
    assert (m.is_training, m.derived.is_training) == (True, False)


def test_what_is_inside_an_attribute_comes_before_the_next_one(impl):
    """Depth first, in the order of assignment: parameters of the module itself do not come first."""
    m = module(impl, body=[affine(impl)], scale=p(impl), head=affine(impl), shift=p(impl))
    assert names(m) == ["body.0.weight", "body.0.bias", "scale", "head.weight", "head.bias", "shift"]


def test_many_entries_keep_their_order(impl):
    """Sorted as texts, 10 comes before 2."""
    for n in aim.sizes(12, 150, at_most=2000):
        places = range(n)
        several = {
            "list": [p(impl, i) for i in places],
            "tuple": tuple(p(impl, i) for i in places),
            "dict": {n - i: p(impl, i) for i in places},
        }
        for kind, parameters in several.items():
            m = module(impl, layers=parameters)
            keys = parameters if kind == "dict" else places
            assert (kind, names(m)) == (kind, [f"layers.{key}" for key in keys])
            assert [each.data[0] for each in m.parameters()] == list(places)
            assert [each[0] for each in m.state_dict().values()] == list(places)
        m = module(impl, **{f"a{n - i}": p(impl, i) for i in places})
        assert names(m) == [f"a{n - i}" for i in places]
        layers = [module(impl) for _ in places]
        module(impl, layers=layers).eval()
        assert [i for i in places if layers[i].is_training] == []


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
        frozen=frozenset([p(impl)]),
        queue=deque([p(impl)]),
        user_list=UserList([p(impl)]),
        user_dict=UserDict(x=p(impl)),
        view=MappingProxyType({"x": p(impl)}),
        values={"x": p(impl)}.values(),
        namespace=SimpleNamespace(weight=p(impl)),
        number=3.5,
        nothing=None,
        generator=numbers(),
        group={p(impl)},
        function=lambda: None,
        kind=impl.Module,
        kinds=[impl.Parameter, impl.Module],
        weight=p(impl),
    )
    assert names(m) == list(m.state_dict()) == ["weight"]
    assert len(list(m.eval().parameters())) == 1
    assert not spent


def test_what_the_class_holds_is_left_alone(impl):
    class Part(impl.Module):
        shared = p(impl)
        layers = (module(impl),)
        n_asked = 0

        def __init__(self):
            self.weight = p(impl)

        @property
        def asked(self):
            type(self).n_asked += 1
            return self.weight

        def __getattr__(self, name):
            raise AttributeError(name)

    class Derived(Part):
        other = p(impl)

    for m in (Part(), Derived()):
        assert names(m) == list(m.state_dict()) == ["weight"]
        m.eval()
        assert m.layers[0].is_training
    assert Part.n_asked == 0


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
    m.a.data = m.b.data = m.c[0].data  # nor if they share their memory
    assert names(m) == list(m.state_dict()) == ["a", "b", "c.0"]


def test_containers_of_equal_length_or_content_are_not_the_same(impl):
    m = module(impl, a=[p(impl), p(impl)], b=[p(impl), p(impl)], c=(p(impl),), d=(p(impl),))
    assert names(m) == ["a.0", "a.1", "b.0", "b.1", "c.0", "d.0"]
    m = module(impl, a={"x": p(impl)}, b={"x": p(impl)}, c=[], d=[], e=[[], [p(impl)]], f=[[], [p(impl)]])
    assert names(m) == ["a.x", "b.x", "e.1.0", "f.1.0"]
    one, other = p(impl), p(impl)
    m = module(impl, a=[one], b=[one], c=[one, other], d=(one, other))
    assert names(m) == ["a.0", "c.1"]


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
    for n in aim.sizes(2, 3, 9, at_most=60):
        ring = [module(impl) for _ in range(n)]
        for here, following in zip(ring, [*ring[1:], ring[0]], strict=True):
            here.next, here.weight = following, p(impl)
        expected = [f"{'next.' * k}weight" for k in reversed(range(n))]
        assert (n, names(ring[0])) == (n, expected)
        ring[-1].eval()
        assert not any(each.is_training for each in ring)
    loop = [p(impl)]
    loop.append(loop)
    loop.append({"again": loop, "new": p(impl)})
    assert names(module(impl, loop=loop)) == ["loop.0", "loop.2.new"]


def test_two_parameters_with_one_name_are_refused(impl):
    """The second would take the place of the first in a state dict."""
    a, b = p(impl, 1), p(impl, 2)
    clashing = [
        ("x.1", module(impl, x={1: a, "1": b}), {}),
        ("t.a.b", module(impl, t={"a.b": a, "a": module(impl, b=b)}), {}),
        ("t.a.b", module(impl, t={"a": {"b": a}, "a.b": b}), {}),
        ("x.0", module(impl, y=p(impl), x=[a], **{"x.0": b}), {"y": np.ones(1)}),
    ]
    for n in aim.sizes(20, at_most=2000):  # the last of many
        before = {f"layers.{i}": np.ones(1) for i in range(n)}
        clashing.append(("x.1", module(impl, layers=[p(impl) for _ in range(n)], x={1: a, "1": b}), before))
    for name, m, before in clashing:
        state = before | {name: np.array([7.0])}
        battery.refuses(lambda m=m: list(m.named_parameters()), says=[name])
        battery.refuses(lambda m=m: list(m.parameters()), says=[name])
        battery.refuses(m.state_dict, says=[name])
        battery.refuses(m.load_state_dict, state, says=[name])
        assert (a.data.tolist(), b.data.tolist()) == ([1], [2])
        if before:
            first = m.layers[0] if len(before) > 1 else m.y
            assert first.data.tolist() == [0]
    shared = p(impl)
    assert names(module(impl, x={1: shared, "1": shared})) == ["x.1"]


def test_names_that_differ_a_little_are_two(impl):
    """Small letters and capitals; and a module, a list or a dict may be called as a parameter is."""
    for pair in (("w", "W"), ("layer_1", "layer1"), ("w", "w_"), ("ſ", "s"), ("é", "é")):
        m = module(impl, **{pair[0]: p(impl, 1)}, inner={pair[1]: p(impl, 2), pair[0]: p(impl, 3)})
        setattr(m, pair[1], p(impl, 4))
        assert names(m) == [pair[0], f"inner.{pair[1]}", f"inner.{pair[0]}", pair[1]]
        m.load_state_dict(m.state_dict())
    for inner in (module(impl), module(impl, w=p(impl)), [], [p(impl)], {"w": p(impl)}, (module(impl),)):
        for entries in ({"a": {"b": inner}, "a.b": p(impl)}, {"a.b": p(impl), "a": {"b": inner}}):
            found = names(module(impl, x=entries))
            assert found.count("x.a.b") == 1
            m = module(impl, x=entries).eval()
            m.load_state_dict(m.state_dict())


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


def test_the_data_of_a_parameter_is_its_own_and_writable(impl):
    """Of every size and layout, also of those arrays that NumPy need not copy."""
    shapes = [(), (1,), (7,), (2, 3), (3, 2, 2), (0,), (0, 3)]
    shapes += [(n,) for n in aim.sizes(at_most=200_000)] + [(2, n) for n in aim.sizes(at_most=5000)]
    for shape, dtype in itertools.product(shapes, (np.float16, np.float32, np.float64, np.int64)):
        for layout, change in battery.LAYOUTS.items():
            given = change(np.arange(math.prod(shape)).reshape(shape).astype(dtype))
            before = given.copy()
            made, other = impl.Parameter(given), impl.Parameter(given)
            told = f"shape {shape}, {layout}, {np.dtype(dtype)}"
            assert type(made.data) is np.ndarray
            assert made.data.flags.writeable, told
            assert made.data is not given, told
            assert made.data is not other.data, told
            assert np.array_equal(made.data, before), told
            made.data[...] = -1
            made.data[(0,) * len(shape) if given.size else ...] = 5
            assert (np.count_nonzero(made.data == 5), np.count_nonzero(made.data == -1)) == (
                min(given.size, 1),
                max(given.size - 1, 0),
            ), told
            assert np.array_equal(given, before), told
            assert np.array_equal(other.data, before), told
            if given.flags.writeable:
                given[...] = 9
                assert np.array_equal(other.data, before), told


def test_a_parameter_is_of_the_dtype_that_a_tensor_has(impl):
    class Own(np.ndarray):
        pass

    for form in (">f8", "<f8", ">f4", "<f4", ">f2", "g", ">i4", "<u8"):
        given = np.array([[1, 2], [3, 4]], form)
        for data in (given, given.view(Own), given[0, 0]):
            made = impl.Parameter(data)
            assert (form, made.data.dtype) == (form, Tensor(np.asarray(data)).dtype)
            assert type(made.data) is np.ndarray
            assert made.data.tolist() == data.tolist()


def test_what_a_tensor_refuses_a_parameter_refuses(impl):
    wrong = ["weight", b"w", None, [None], np.array([1j]), 1j, np.array(["1"]), object(), {"x": 1.0}]
    for data in [*wrong, np.array([1.0, 2.0], object), np.zeros(2, "m8[s]"), np.zeros(2, "M8[s]"), {1.0}]:
        battery.refuses(impl.Parameter, data, error=TypeError)


# Calling.


def test_calling_is_forward(impl):
    class Echo(impl.Module):
        n_calls = 0

        def forward(self, *arguments, **options):
            self.n_calls += 1
            return arguments, options

    class Louder(Echo):
        def forward(self, *arguments, **options):
            return super().forward(*arguments, *arguments, **options)

    class Nothing(impl.Module):
        def forward(self):
            return None

    class First(impl.Module):
        def forward(self, x, scale=1):
            return x

    marker = object()
    assert Echo()(1, marker, key=marker) == ((1, marker), {"key": marker})
    assert Echo()() == ((), {})
    assert Louder()(1, key=2) == ((1, 1), {"key": 2})
    assert Nothing()() is None
    echo = Echo()
    given = [
        Tensor(np.zeros(2)),
        np.zeros(2),
        np.ones(3, int),
        [1.0],
        2.5,
        None,
        np.float32(1),
        impl.Module(),
    ]
    for n, each in enumerate(given, 1):
        arguments, options = echo(each, each, x=each)
        assert echo.n_calls == n
        assert all(got is each for got in (*arguments, options["x"], First()(each), First()(scale=3, x=each)))


def test_what_forward_raises_comes_through(impl):
    class Failing(impl.Module):
        def forward(self, error):
            raise error

    for error in (KeyError("k"), NotImplementedError("mine"), StopIteration(), TypeError("t")):
        with pytest.raises(type(error)) as caught:
            Failing()(error)
        assert caught.value is error


def test_without_forward_there_is_nothing_to_call(impl):
    m = module(impl)
    for call in (m, m.forward, impl.Module(), m.eval()):
        battery.refuses(call, error=NotImplementedError)
        battery.refuses(call, 1, error=NotImplementedError)
        battery.refuses(call, np.ones(2), error=NotImplementedError, key=3)


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


def test_the_switch_reaches_every_module_whatever_its_mode_was(impl, rng):
    m, every = everywhere(impl)
    patterns = [rng.random(8) < 0.5 for _ in range(12)]
    for pattern, mode in itertools.product(
        [*patterns, *np.eye(8, dtype=bool), *~np.eye(8, dtype=bool)], (0, 1)
    ):
        for each, is_training in zip(every, pattern.tolist(), strict=True):
            each.is_training = is_training
        assert (m.train() if mode else m.eval()) is m
        assert (pattern.tolist(), [each.is_training for each in every]) == (pattern.tolist(), [mode == 1] * 8)


def test_a_module_may_set_its_own_mode(impl):
    class Off(impl.Module):
        def __init__(self):
            self.is_training = False

    m = module(impl, inner=Off())
    assert (m.is_training, m.inner.is_training) == (True, False)
    m.train()
    assert (m.is_training, m.inner.is_training) == (True, True)
    m.eval()
    assert (m.is_training, m.inner.is_training, Off().is_training) == (False, False, False)
    assert Off().train().is_training


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


def test_loading_keeps_the_dtype_and_converts(impl, rng):
    values = [1 / 3, -2.5, 1e-5, 60000.0, 2**24 + 1, 2**53 - 1, 1e300, 5e-324, -0.0, np.inf, np.nan]
    for given, own in itertools.product([*battery.FLOATS, *battery.INTEGERS], battery.FLOATS):
        drawn = np.array(values) if given is np.float64 else rng.integers(0, 128, size=11)
        with np.errstate(all="ignore"):
            state = {"a": drawn.astype(given).reshape(1, -1), "b": np.array(drawn[2]).astype(given)}
            kept = {name: each.copy() for name, each in state.items()}
            m = module(impl, a=impl.Parameter(np.ones((1, 11), own)), b=impl.Parameter(own(1)))
            arrays = [m.a.data, m.b.data]
            m.load_state_dict(state)
            for name, array in zip(state, arrays, strict=True):
                assert getattr(m, name).data is array
                battery.check_equal(
                    *(array, kept[name].astype(own), 0),
                    dtype=own,
                    label=f"{np.dtype(given)} loaded into {np.dtype(own)}",
                )
                assert (state[name].dtype, state[name].tobytes()) == (given, kept[name].tobytes())


def test_loading_fills_the_arrays_that_parameters_have_now(impl):
    """Views of a buffer, too, in any layout; and so are they saved."""
    buffer = np.zeros((8, 6))
    views = {
        "rows": buffer[:1],
        "reversed": buffer[1, ::-1],
        "columns": buffer[2:4, ::2],
        "transposed": buffer[4:6].T,
        "entry": buffer[6, 3:4].reshape(()),
        "none": buffer[7:7],
    }
    m = module(impl, **{name: impl.Parameter(np.full(view.shape, 7.0)) for name, view in views.items()})
    assert m.rows.data.tolist() == [[7.0] * 6]
    m.state_dict()
    for name, view in views.items():
        getattr(m, name).data = view
    for factor in (1, -2):
        state = {
            name: factor * (np.arange(view.size).reshape(view.shape) + 1.0) for name, view in views.items()
        }
        m.load_state_dict(state)
        saved = m.state_dict()
        for name, view in views.items():
            assert getattr(m, name).data is view, name
            assert np.array_equal(view, state[name]), name
            assert np.array_equal(saved[name], state[name]), name
            assert not np.shares_memory(saved[name], buffer), name
            assert saved[name].flags.writeable
        assert buffer[1].tolist() == [factor * n for n in (6, 5, 4, 3, 2, 1)]
        assert [buffer[0, 0], buffer[5, 1], buffer[6, 3], buffer[7].any()] == [
            factor,
            4 * factor,
            factor,
            False,
        ]
    m.entry.data[...] = 5
    assert (m.state_dict()["entry"], saved["entry"], buffer[6, 3]) == (5, -2, 5)


def test_many_parameters_are_saved_and_loaded(impl):
    for n in aim.sizes(30, at_most=2000):
        m = module(impl, layers=[p(impl, i) for i in range(n)], last=impl.Parameter(np.zeros(3)))
        state = m.state_dict()
        assert [each.tolist() for each in state.values()] == [*([i] for i in range(n)), [0, 0, 0]]
        m.load_state_dict({name: value + 1 for name, value in reversed(state.items())})
        assert [each.data.tolist() for each in m.parameters()] == [*([i + 1] for i in range(n)), [1, 1, 1]]
        wrong = dict(list(state.items())[:-1])
        wrong["last"] = np.zeros(2)
        battery.refuses(m.load_state_dict, wrong, says=["last"])
        few = {f"no {i}": value for i, value in enumerate(state.values())}
        battery.refuses(m.load_state_dict, few, says=[*state, *few])
        shapes = {name: np.zeros((*value.shape, 1)) for name, value in state.items()}
        battery.refuses(m.load_state_dict, shapes, says=list(state))
        assert [each.data[0] for each in m.parameters()] == [*(i + 1 for i in range(n)), 1]


def test_loading_takes_any_order_layout_and_mapping(impl, rng):
    x = rng.normal(size=(4, 3))
    for layout, change in battery.LAYOUTS.items():
        given = change(x)
        state = {"b": np.array([1.0, 2.0]), "a": given}
        for mapping in (dict, MappingProxyType, UserDict, OrderedDict, Once):
            m = module(impl, a=impl.Parameter(np.zeros((4, 3))), b=impl.Parameter(np.zeros(2)))
            m.load_state_dict(mapping(state))
            assert np.array_equal(m.a.data, given), (layout, mapping)
            assert m.b.data.tolist() == [1, 2]


class Once(Mapping):
    """The least that a mapping must have; each value is made when it is asked for."""

    def __init__(self, table):
        self.table = table

    def __getitem__(self, name):
        return self.table[name].copy()

    def __iter__(self):
        return iter(self.table)

    def __len__(self):
        return len(self.table)


def test_a_value_that_cannot_be_had_changes_nothing(impl):
    class Failing(Once):
        def __getitem__(self, name):
            if name == "c":
                raise InterruptedError(name)
            return super().__getitem__(name)

    m = module(impl, a=p(impl, 1), b=p(impl, 2), c=p(impl, 3), d=p(impl, 4))
    for names_given in itertools.permutations("abcd"):
        state = Failing({name: np.array([9.0]) for name in names_given})
        battery.refuses(m.load_state_dict, state, error=InterruptedError)
        assert [each.data[0] for each in m.parameters()] == [1, 2, 3, 4]


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


def test_loading_leaves_all_else(impl):
    m, every = everywhere(impl)
    m.w, m.frozen = p(impl, 1), p(impl, 2)
    m.frozen.requires_grad = False
    for pattern in ([True] * 8, [False] * 8, [False, True] * 4, [True, False] * 4):
        for each, is_training in zip(every, pattern, strict=True):
            each.is_training = is_training
        m.load_state_dict({"w": np.array([3.0]), "frozen": np.array([4.0])})
        m.state_dict()
        assert [each.is_training for each in every] == pattern
        assert (m.w.requires_grad, m.frozen.requires_grad) == (True, False)
        assert (m.w.data[0], m.frozen.data[0]) == (3, 4)


def test_loading_reads_all_before_it_writes(impl):
    """The state may hold the arrays of the model, under other names."""
    m = module(impl, a=p(impl, 1, 2), b=p(impl, 3, 4), c=p(impl, 5, 6))
    m.load_state_dict({"a": m.b.data, "b": m.c.data[::-1], "c": m.a.data})
    assert [each.data.tolist() for each in m.parameters()] == [[3, 4], [6, 5], [1, 2]]
    layouts = {"as it is": lambda x: x, "a view": lambda x: x[:], "reversed": lambda x: x[::-1]}
    for places in itertools.product("abc", repeat=3):
        for label, change in layouts.items():
            m = module(impl, a=p(impl, 1, 2), b=p(impl, 3, 4), c=p(impl, 5, 6))
            state = {name: change(getattr(m, place).data) for name, place in zip("abc", places, strict=True)}
            expected = [state[name].tolist() for name in "abc"]
            m.load_state_dict(state)
            got = [each.data.tolist() for each in m.parameters()]
            assert (label, places, got) == (label, places, expected)


def test_a_value_that_is_no_number_changes_nothing(impl):
    """In the place of each parameter, whichever of NumPy's errors it gives."""
    m = module(impl, a=p(impl, 1, 2), b=[impl.Parameter(np.float32(3)), p(impl, 4)], c=p(impl, 5, 6))
    before = m.state_dict()
    for name, value in before.items():
        for wrong in (np.full(value.shape, "x"), np.full(value.shape, object()), np.full(value.shape, b"-")):
            state = {each: before[each] + 1 for each in before} | {name: wrong}
            battery.refuses(m.load_state_dict, state, error=Exception)
            for each, now in m.state_dict().items():
                assert np.array_equal(now, before[each]), f"{each} was written before {name!r} was refused"


def test_loading_a_shared_parameter_takes_its_first_name(impl):
    tied = p(impl, 1)
    m = module(impl, a=tied, b=module(impl, c=tied))
    m.load_state_dict({"a": np.array([2.0])})
    assert m.b.c.data.tolist() == [2]
    battery.refuses(m.load_state_dict, {"a": np.array([3.0]), "b.c": np.array([3.0])}, says=["b.c"])
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
    # As many as there are, under other names.
    (
        {
            **dict.fromkeys(["first", "second.0", "second.1", "third"]),
            "alpha": np.ones((2, 3)),
            "beta": np.ones(1),
            "gamma": np.array(1.0),
            "delta": np.ones((2, 0)),
        },
        ["first", "second.0", "second.1", "third", "alpha", "beta", "gamma", "delta"],
    ),
    ({"third": None, "Third": np.ones((2, 0))}, ["third", "Third"]),
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
            battery.refuses(m.load_state_dict, given, says=wrong)
            assert all(not each.data.any() for each in m.parameters()), f"written before {wrong} was refused"
    m.load_state_dict(GOOD)
    assert all(each.data.all() for each in m.parameters())
