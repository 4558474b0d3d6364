"""Oracles: derivatives by hand, sums over all paths of a graph, central differences of random programs."""

import gc
import itertools
import math
import operator
import tracemalloc

import pytest

from techtree.techs import aim, battery
from techtree.techs.ground.gradcheck import numerical_gradient

# One operation is off by at most a unit in the last place or two; the expressions below have a few of them.
TOLERANCE = 1e-14


def near(number, expected, absolute=0.0):
    return math.isclose(number, expected, rel_tol=TOLERANCE, abs_tol=absolute)


def require(got, expected, asked, absolute=0.0, relative=TOLERANCE):
    """Require a float that is right up to rounding."""
    if not isinstance(got, float):
        raise battery.MismatchError(f"a float was expected, {type(got).__name__} came", [f"asked: {asked}"])
    if not math.isclose(got, expected, rel_tol=relative, abs_tol=absolute):
        facts = [f"asked: {asked}", f"expected: {expected!r}", f"yours:    {got!r}"]
        raise battery.MismatchError("wrong number", facts)


def beside_numbers(at_least=1e-100, at_most=1e100):
    """Numbers just below and above those of the source under test, of both signs."""
    numbers = [c for c in aim.NUMBERS if at_least <= c <= at_most]
    return [sign * c * near for c in numbers for near in (0.99, 1.01) for sign in (1, -1)]


def check_order(order, root, inputs):
    """Every node that the root depends on, once, after its inputs."""
    assert isinstance(order, list)
    needed, waiting = {root}, [root]
    while waiting:
        for each in inputs(waiting.pop()):
            if each not in needed:
                needed.add(each)
                waiting.append(each)
    assert len(order) == len(needed)
    assert set(order) == needed
    place = {node: n for n, node in enumerate(order)}
    assert all(place[each] < place[node] for node in order for each in inputs(node))


def test_the_order_of_hand_made_graphs(impl):
    """Short cuts and long ways, in either order; an input twice; a node that nobody asks for."""
    for graph in (
        {"a": []},
        {"b": ["a"], "a": []},
        {"b": ["a", "a"], "a": []},
        {"e": ["d", "d", "b"], "d": ["c", "a"], "c": ["a", "b"], "b": [], "a": [], "z": ["e"]},
        {"r": ["a", "e"], "e": ["d"], "d": ["c"], "c": ["a"], "a": []},
        {"r": ["e", "a"], "e": ["d"], "d": ["c"], "c": ["a"], "a": []},
        {"r": ["a", "b", "c"], "a": ["b"], "b": ["c"], "c": []},
        {"r": ["c", "b", "a"], "a": ["b"], "b": ["c"], "c": []},
    ):
        root = next(iter(graph))
        kept = {node: list(inputs) for node, inputs in graph.items()}
        order = impl.topological_order(root, graph.__getitem__)
        assert graph == kept
        check_order(order, root, kept.__getitem__)


def test_the_order_of_random_graphs(impl, rng):
    """The nodes are random numbers, whose size says nothing about their order."""
    for size in (2, 3, 5, 10, 40, 150):
        for _ in range(6):
            names = rng.permutation(10 * size).tolist()
            graph = {names[0]: []}
            for name in names[1:size]:
                chosen = rng.integers(len(graph), size=rng.integers(4))
                graph[name] = [names[i] for i in chosen]
            root = names[size]
            graph[root] = [names[i] for i in rng.permutation(size)[: 3 + size // 2]]
            check_order(impl.topological_order(root, graph.__getitem__), root, graph.__getitem__)


def test_nodes_in_the_middle_have_any_number_of_inputs(impl):
    """Of many inputs, each first met where many wait; and some that others have brought in already."""
    for n in aim.sizes(3, 4, 7, 40, at_most=1000):
        graph = {"root": [f"middle {i}" for i in range(3)]}
        for i in range(3):
            graph[f"middle {i}"] = [f"leaf {i}, {j}" for j in range(n)] + [f"leaf {k}, 0" for k in range(i)]
            graph |= {f"leaf {i}, {j}": ["deep"] * (j % 3) for j in range(n)}
        graph["deep"] = []
        check_order(impl.topological_order("root", graph.__getitem__), "root", graph.__getitem__)


def test_nodes_may_be_any_hashable_objects_and_inputs_any_iterables(impl):
    """False ones too; a number and its text are two nodes, and equal objects are one."""
    graph = {3: (2, 0), 2: (0, ""), 0: ("0", ()), "": ("0",), "0": (), (): ()}
    for iterable in (lambda x: (each for each in x), iter, tuple, dict.fromkeys):
        order = impl.topological_order(3, lambda node, as_iterable=iterable: as_iterable(graph[node]))
        check_order(order, 3, graph.__getitem__)

    class Nameless:
        def __repr__(self):
            return "nameless"

    graph = {-3: (first := Nameless(), second := Nameless()), first: (-1,), second: (-2,), -1: (), -2: ()}
    assert hash(-1) == hash(-2)
    check_order(impl.topological_order(-3, graph.__getitem__), -3, graph.__getitem__)

    def below(node):
        return [(n, f"node {n}") for n in (node[0] - 1, node[0] - 2, node[0] - 1) if n >= 0]

    check_order(impl.topological_order((9, "node 9"), below), (9, "node 9"), below)
    wide = impl.topological_order(-1, lambda node: range(1000) if node < 0 else ())
    check_order(wide, -1, lambda node: range(1000) if node < 0 else ())


def test_the_order_of_a_graph_that_has_changed(impl):
    """Nothing may be left from one call to the next, and what came of one is the caller's."""
    graph = {"c": ["b"], "b": [], "a": []}
    first = impl.topological_order("c", graph.__getitem__)
    assert first == ["b", "c"]
    graph["b"] = ["a"]
    assert impl.topological_order("c", graph.__getitem__) == ["a", "b", "c"]
    assert first == ["b", "c"]
    first.clear()  # it is the caller's
    assert impl.topological_order("c", graph.__getitem__) == ["a", "b", "c"]
    impl.topological_order("c", graph.__getitem__).reverse()
    assert impl.topological_order("b", graph.__getitem__) == ["a", "b"]
    assert impl.topological_order("c", graph.__getitem__) == ["a", "b", "c"]


def test_the_order_where_the_paths_are_too_many_to_walk(impl):
    """A ladder with 2**300 paths, whose inputs are asked for a few times each."""
    n_calls = 0

    def inputs(node):
        nonlocal n_calls
        n_calls += 1
        assert n_calls < 10_000, "the inputs of one node are asked for again and again"
        return [node - 1, node - 1, max(node - 2, 0)] if node else []

    assert impl.topological_order(300, inputs) == list(range(301))


def test_equal_nodes_of_several_types_are_one(impl):
    graph = {"r": [1, 1.0, True, (1, 2), (1.0, 2.0), "1"], 1: [0], 0: [], (1, 2): [0.0, False], "1": []}
    check_order(impl.topological_order("r", graph.__getitem__), "r", graph.__getitem__)
    assert len(impl.topological_order("r", graph.__getitem__)) == 5


def test_the_order_of_large_graphs(impl):
    """A chain, a star, a ladder, and a chain whose nodes all have the first as a second input."""
    for n in aim.sizes(50, 300, at_most=40_000):
        chain = impl.topological_order(n, lambda node: [node - 1] if node else [])
        assert (n, chain == list(range(n + 1))) == (n, True)
        star = impl.topological_order(-1, lambda node, n=n: range(n) if node < 0 else [])
        assert (n, len(star), set(star) == {-1, *range(n)}, star[-1]) == (n, n + 1, True, -1)
        ladder = impl.topological_order(n, lambda node: [node - 1, max(node - 2, 0)] if node else [])
        assert (n, ladder == list(range(n + 1))) == (n, True)
        tied = impl.topological_order(n, lambda node: [0, node - 1, 0] if node else [])
        assert (n, tied == list(range(n + 1))) == (n, True)


def test_the_inputs_of_a_node_are_walked_once_or_twice(impl):
    """Listed anew for each of two thousand inputs, they would take millions of steps."""
    n_given = 0

    def inputs(node):
        nonlocal n_given
        for each in range(2000) if node < 0 else []:
            n_given += 1
            assert n_given < 20_000, "the inputs of one node are walked again and again"
            yield each

    assert len(impl.topological_order(-1, inputs)) == 2001


def test_the_order_takes_time_in_proportion_to_the_graph(impl):
    """A set or a dictionary compares two nodes now and then; a search through a list compares all."""
    n_compared = 0

    class Node(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            nonlocal n_compared
            n_compared += 1
            assert n_compared < 20_000, "each node is compared with many others"
            return int(self) == int(other)

    order = impl.topological_order(Node(1000), lambda node: [Node(node - 1)] * 2 if node else [])
    assert list(map(int, order)) == list(range(1001))


def test_the_example(impl):
    x = impl.Value(3.0)
    y = x * x + 2 * x
    y.backward()
    assert (y.data, x.grad, y.grad) == (15.0, 8.0, 1.0)


NUMBERS = [0.0, 1.0, -1.0, 2.0, -1.5, 0.3, 7.0, -1e10, 1e10, 1e-10, -1e-10, 1e100, 1e-100, -1e-100]

BINARY = {
    "+": (lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "-": (lambda a, b: a - b, lambda a, b: (1.0, -1.0)),
    "*": (lambda a, b: a * b, lambda a, b: (b, a)),
    "/": (lambda a, b: a / b, lambda a, b: (1 / b, -(a / b) / b)),
}


def test_functions_of_two_numbers(impl):
    """Of every size, as Values and as plain numbers, floats and integers, on either side."""
    aimed = beside_numbers()
    pairs = list(itertools.product([*NUMBERS, 3.0, -7.0], repeat=2))
    pairs += [pair for c in aimed for other in (3.0, -0.5, c) for pair in ((c, other), (other, c))]
    plain = [float, lambda x: int(x) if x % 1 == 0 and abs(x) < 1e15 else x]
    kinds = [(impl.Value, impl.Value), *((impl.Value, f) for f in plain), *((f, impl.Value) for f in plain)]
    for sign, (operation, slopes) in BINARY.items():
        for (left, right), (as_left, as_right) in itertools.product(pairs, kinds):
            if sign == "/" and right == 0:
                continue
            a, b = as_left(left), as_right(right)
            asked = " ".join(
                f"Value({number!r})" if isinstance(each, impl.Value) else repr(each)
                for number, each in ((left, a), (right, b))
            ).replace(" ", f" {sign} ", 1)
            y = operation(a, b)
            assert isinstance(y, impl.Value)
            require(y.data, operation(left, right), asked)
            y.backward()
            for name, each, slope in zip(("left", "right"), (a, b), slopes(left, right), strict=True):
                if isinstance(each, impl.Value):
                    require(each.grad, slope, f"the grad of the {name} of {asked}")


UNARY = {
    "negative": (lambda v: -v, lambda x: -x, lambda x: -1.0, NUMBERS),
    "exp": (
        *(lambda v: v.exp(), math.exp, math.exp),
        [
            *(-1e300, -800.0, -700.0, -300.0, -90.0, -30.0, -9.0, -1.5, -1e-10, -1e-100),
            *(0.0, 1e-100, 1e-10, 0.3, 2.0, 9.0, 25.0, 90.0, 300.0, 600.0, 709.0, 709.78),
        ],
    ),
    "log": (
        *(lambda v: v.log(), math.log, lambda x: 1 / x),
        [1e-300, 1e-100, 1e-10, 0.01, 0.5, 1 - 1e-10, 1.0, 1 + 1e-10, 7.0, 99.0, 1e10, 1e100, 1e300],
    ),
    "tanh": (
        *(lambda v: v.tanh(), math.tanh, lambda x: 1 - math.tanh(x) ** 2),
        [
            *(-1e300, -1000.0, -19.0, -9.0, -3.0, -0.3, -1e-5, -1e-20, -1e-100, -1e-300),
            *(
                0.0,
                1e-300,
                1e-100,
                1e-20,
                1e-8,
                1e-5,
                1e-3,
                0.01,
                0.3,
                1.0,
                2.0,
                4.0,
                6.0,
                9.0,
                15.0,
                800.0,
                1e300,
            ),
        ],
    ),
    "relu": (
        *(lambda v: v.relu(), lambda x: max(x, 0.0), lambda x: float(x > 0)),
        [-1e300, *NUMBERS, 1e-300, 1e300],
    ),
}


def test_functions_of_one_number(impl):
    for name, (operation, value, slope, points) in UNARY.items():
        aimed = beside_numbers(1e-300, 709.0 if name == "exp" else 1e300)
        for point in [*points, *(x for x in aimed if x > 0 or name != "log")]:
            x = impl.Value(point)
            y = operation(x)
            assert isinstance(y, impl.Value)
            require(y.data, value(point), f"{name} of Value({point!r})")
            y.backward()
            # 1 - tanh**2 cancels near 1, so that its error is that of 1.
            asked = f"the grad of Value({point!r}) after {name}"
            require(x.grad, slope(point), asked, 1e-15 * (name == "tanh"))


def test_powers(impl):
    """Of positive numbers to any exponent, of negative ones and 0 to whole ones."""
    aimed = list(beside_numbers(1e-10, 200))
    whole = [*range(-4, 5), 7, -9, 10, 33, -34, 100, -101, *aim.whole(3, 200)]
    broken = [-2.5, -0.5, -0.1, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1.001, 1.5, 2.0001, 2.5, 3.5, 19.3, *aimed]
    cases = [
        (base, exponent)
        for base in (1e-100, 1e-30, 1e-3, 0.3, 0.999, 1.0, 1.5, 7.0, 40.0, 1e30, 1e100)
        for exponent in [*whole, *map(float, whole), *broken]
    ]
    cases += [
        (base, exponent)
        for base in (-1e30, -40.0, -2.0, -1.0, -0.3, -1e-30)
        for exponent in [*whole, *map(float, whole)]
    ]
    cases += [(abs(base), exponent) for base in beside_numbers() for exponent in (2, 3.0, 0.5, -1, 0)]
    cases += [(base, exponent) for base in beside_numbers() for exponent in (2, 3, 4.0, -1, 0)]
    cases += [(0.0, exponent) for exponent in (0, 0.0, 1, 1.0, 1.5, 2, 2.0, 3, 7, 33)]
    for base, exponent in cases:
        size = abs(math.log(abs(base))) if base else 0.0
        if size * (abs(exponent) + 1) > 690:
            continue  # beyond what a float holds
        x = impl.Value(base)
        y = x**exponent
        asked = f"Value({base!r}) ** {exponent!r}"
        # The error of a product of n factors is that of n roundings, that of exp(z) is z roundings.
        allowed = TOLERANCE * (1 + abs(exponent) * (1 + size))
        require(y.data, base**exponent, asked, relative=allowed)
        y.backward()
        slope = exponent * base ** (exponent - 1) if exponent else 0.0
        require(x.grad, slope, f"the grad of {asked}", relative=allowed)


def test_what_has_no_result(impl):
    value, nothing = impl.Value, impl.Value(0.0)
    for one in (nothing, impl.Value(1.0), impl.Value(-1e100), 1, 1.0, 0, 0.0):
        for zero in (nothing, impl.Value(-0.0), 0, 0.0):
            if isinstance(one, value) or isinstance(zero, value):
                battery.refuses(operator.truediv, one, zero, error=ZeroDivisionError)
    for exponent in (-1, -2, -3.0, -0.5):
        battery.refuses(operator.pow, nothing, exponent, error=ZeroDivisionError)
    for number in (0.0, -0.0, -1.0, -1e-300, -1e300, *(x for x in beside_numbers() if x < 0)):
        battery.refuses(value.log, value(number), error=ValueError)
    for number in (709.79, 710.0, 800.0, 1e10, 1e300, *(x for x in beside_numbers() if x > 709.79)):
        battery.refuses(value.exp, value(number), error=OverflowError)
    assert (nothing.data, nothing.grad) == (0.0, 0.0)


def test_what_a_value_holds(impl):
    for number in (3, 3.5, -2, 0, True, 1e300):
        x = impl.Value(number)
        assert isinstance(x.data, float)
        assert x.data == number
        assert isinstance(x.grad, float)
        assert x.grad == 0.0


USED_TWICE = [
    (lambda x: x + x, 6.0, 2.0),
    (lambda x: x - x, 0.0, 0.0),
    (lambda x: x * x, 9.0, 6.0),
    (lambda x: x / x, 1.0, 0.0),
    (lambda x: x * x * x, 27.0, 27.0),
    (lambda x: (x + x) * (x + x), 36.0, 24.0),
    (lambda x: x**2 + x**2, 18.0, 12.0),
    (lambda x: (x * 2) * (x * 2 + 1), 42.0, 26.0),
    (lambda x: (x * 1e100) * 1e-100 + (x * 1e-100) * 1e100, 6.0, 2.0),
    (lambda x: sum(x * n for n in range(50)), 3675.0, 1225.0),
]


def test_a_number_that_is_used_many_times(impl):
    """In many operations, in one, beside many others, and in many passes."""
    for n in aim.sizes(300, at_most=10_000):
        x = impl.Value(3.0)
        total = impl.Value(0.0)
        for _ in range(n):
            total = total + x
        total.backward()
        assert (n, total.data, x.grad, total.grad) == (n, 3.0 * n, n, 1.0)
        product = impl.Value(1.0, [(x, 2.0), (total, 0.0)] * n)
        x.grad = 0.0
        product.backward()
        assert (n, x.grad) == (n, 2.0 * n)
        many = [impl.Value(i) for i in range(n)]
        sum(each * i for i, each in enumerate(many)).backward()
        assert [each.grad for each in many] == list(range(n))
        x, y = impl.Value(3.0), impl.Value(2.0)
        z = x * y
        for _ in range(n):
            z.backward()
        assert (n, x.grad, y.grad, z.grad) == (n, 2.0 * n, 3.0 * n, n)


def test_a_number_that_is_used_more_than_once(impl):
    for operation, data, slope in USED_TWICE:
        x = impl.Value(3.0)
        y = operation(x)
        y.backward()
        assert near(y.data, data)
        assert near(x.grad, slope, TOLERANCE)


def test_short_and_long_paths_meet(impl):
    """The inner node must wait for the long path: b = 5 a**2, c = a + b, so dc/dx = 2 (1 + 10 a)."""
    for swapped in (False, True):
        x = impl.Value(0.5)
        a = x * 2
        b = (a * a) * 5
        c = b + a if swapped else a + b
        c.backward()
        assert (x.grad, a.grad, b.grad, c.grad) == (22.0, 11.0, 1.0, 1.0)


def test_three_paths_of_three_lengths(impl):
    for order in [(0, 1, 2), (2, 1, 0), (1, 2, 0)]:
        x = impl.Value(2.0)
        one = x * 3  # 6
        two = one * one  # 36
        three = two * one  # 216
        parts = [one, two, three]
        y = parts[order[0]] + parts[order[1]] + parts[order[2]]
        y.backward()
        # d/do (o + o**2 + o**3) = 1 + 12 + 108, times 3
        assert (x.grad, one.grad, two.grad, three.grad) == (363.0, 121.0, 7.0, 1.0)


def test_equal_numbers_are_different_nodes(impl):
    x, y = impl.Value(2.0), impl.Value(2.0)
    z = x * y + x
    z.backward()
    assert (x.grad, y.grad) == (3.0, 2.0)


def test_what_is_not_involved_keeps_its_grad(impl):
    x, other = impl.Value(2.0), impl.Value(2.0)
    aside = x * other
    y = x * 5
    assert (x.grad, y.grad) == (0.0, 0.0)
    y.backward()
    assert (x.grad, other.grad, aside.grad) == (5.0, 0.0, 0.0)
    other.backward()  # a number that was not computed
    assert (x.grad, other.grad, aside.grad) == (5.0, 1.0, 0.0)


def test_backward_again_adds_the_same_again(impl):
    """Not more: what the first pass left in the inner nodes must not enter the second."""
    x = impl.Value(3.0)
    h = x * x
    y = h * 4 + h - 100 * x
    for times in (1, 2, 3):
        y.backward()
        assert (x.grad, h.grad, y.grad) == (-70.0 * times, 5.0 * times, 1.0 * times)


def test_two_ends_that_share_inner_nodes(impl):
    x = impl.Value(3.0)
    h = x * x
    a, b = h * 2, h * 10
    a.backward()
    assert (x.grad, h.grad) == (12.0, 2.0)
    b.backward()
    assert (x.grad, h.grad, a.grad, b.grad) == (72.0, 12.0, 1.0, 1.0)
    h.backward()  # an inner node
    assert (x.grad, h.grad, a.grad, b.grad) == (78.0, 13.0, 1.0, 1.0)


def test_grad_may_be_set_back_and_whatever_stands_there_is_added_to(impl):
    x = impl.Value(3.0)
    h = x * x
    y = h * 10
    y.backward()
    x.grad = 0.0
    h.grad = -1000.0
    y.grad = 7.0
    y.backward()
    assert (x.grad, h.grad, y.grad) == (60.0, -990.0, 8.0)
    x.grad = -7.0
    y.backward()
    assert (x.grad, h.grad, y.grad) == (53.0, -980.0, 9.0)


def test_the_graph_may_grow_after_a_pass(impl):
    x = impl.Value(3.0)
    y = x * 2
    y.backward()
    z = y * 5
    z.backward()
    assert (x.grad, y.grad, z.grad) == (12.0, 6.0, 1.0)


def test_derivatives_are_those_at_the_numbers_of_the_operation(impl):
    """As in training, where ``data`` is set and the next operation sees the new number."""
    operations = [*(f for f, _ in BINARY.values()), lambda a, b: a**3, lambda a, b: a.exp() * b.log()]
    operations += [lambda a, b: a.tanh() - (-b), lambda a, b: a.relu() + b**-1, lambda a, b: 2 / a + 5 * b]
    for operation in operations:
        fresh, changed = [(impl.Value(3.0), impl.Value(4.0)) for _ in range(2)]
        operation(*fresh).backward()
        y = operation(*changed)
        for each in changed:
            each.data = -each.data
        y.data = 7.0
        y.backward()
        assert [each.grad for each in changed] == [each.grad for each in fresh]
        assert [each.data for each in changed] == [-3.0, -4.0]
    x = impl.Value(1.0)
    for n in range(5):  # x -= 1/4 of the derivative of x * x
        x.grad = 0.0
        (x * x).backward()
        assert x.grad == 2.0 ** (1 - n)
        x.data -= 0.25 * x.grad


IN_PLACE = [
    (operator.iadd, 7.0, 1.0),
    (operator.isub, -1.0, -1.0),
    (operator.imul, 12.0, 3.0),
    (operator.itruediv, 0.75, -3 / 16),
]


def test_operations_in_place_do_not_change_what_they_were_called_on(impl):
    for operation, data, slope in IN_PLACE:
        x, y = impl.Value(3.0), impl.Value(4.0)
        total = operation(x, y)
        total.backward()
        assert (x.data, y.data, total.data, y.grad, total.grad) == (3.0, 4.0, data, slope, 1.0)
        assert total is not x


def test_operations_do_not_change_their_operands(impl):
    x, y = impl.Value(3.0), impl.Value(4.0)
    results = [x + y, x - y, x * y, x / y, x**3, -x, x.exp(), x.log(), x.tanh(), x.relu(), 2 - x, 2 / x]
    before = [each.data for each in results]
    assert (x.data, y.data, x.grad, y.grad) == (3.0, 4.0, 0.0, 0.0)
    for each in results:
        each.backward()
    assert (x.data, y.data) == (3.0, 4.0)
    assert [each.data for each in results] == before
    power = x
    power **= 2
    assert (x.data, power.data) == (3.0, 9.0)


def test_every_operation_gives_a_new_node(impl):
    """x + 0 is not x: a later use of x must not show in its grad."""
    x = impl.Value(3.0)
    operations = [
        *(lambda v: v + 0, lambda v: 0 + v, lambda v: v - 0, lambda v: v * 1, lambda v: 1 * v),
        *(lambda v: v / 1, lambda v: v**1, lambda v: v.relu(), lambda v: (-v).__neg__()),
    ]
    for operation in operations:
        x.grad = 0.0
        y = operation(x)
        (y + 10 * x).backward()
        assert (x.grad, y.grad) == (11.0, 1.0)


def test_an_operation_of_ones_own(impl):
    """The constructor is the way to add an operation: here sin, and a product of three."""
    x, y = impl.Value(0.5), impl.Value(3.0)
    edges = [(x, 2.0)]
    double = impl.Value(1.0, edges)
    edges.clear()  # they have been read
    double.backward()
    assert x.grad == 2.0
    x.grad = 0.0
    sine = impl.Value(math.sin(x.data), [(x, math.cos(x.data))])
    product = impl.Value(x.data * y.data * y.data, zip((x, y, y), (9.0, 1.5, 1.5), strict=True))
    z = sine * 2 + product
    assert near(z.data, 2 * math.sin(0.5) + 4.5)
    for times in (1, 2):
        z.backward()
        assert near(x.grad, times * (2 * math.cos(0.5) + 9))
        assert y.grad == 3.0 * times


def random_program(rng, n_inputs, n_steps):
    """Return a function that runs the same random operations on Values or on plain numbers."""
    steps = [
        (int(rng.integers(9)), *(int(i) for i in rng.integers(n_inputs + n, size=2))) for n in range(n_steps)
    ]
    weights = rng.normal(size=n_inputs + n_steps).tolist()

    def run(inputs, tanh, exp, log, relu):
        nodes = list(inputs)
        for kind, i, j in steps:
            a, b = nodes[i], nodes[j]
            nodes.append(
                [
                    lambda a, b: a + b,
                    lambda a, b: a - b,
                    lambda a, b: tanh(a * b),
                    lambda a, b: a / (b * b + 1.5),
                    lambda a, b: tanh(a) ** 3 - 0.5,
                    lambda a, b: exp(-(b**2)),
                    lambda a, b: log(a * a + 2),
                    lambda a, b: 3 - 0.5 / (1 + b * b),
                    lambda a, b: relu(tanh(a) + 1.7) * tanh(b),
                ][kind](a, b)
            )
        total = 0
        for weight, node in zip(weights, nodes, strict=True):
            total = total + weight * tanh(node)
        return total

    return run


def test_random_programs_against_central_differences(impl, rng):
    """The worst of 1,600 such programs was off by 1e-9."""
    for n_steps in (1, 1, 5, 5, 20, 20, 60, 60):
        program = random_program(rng, 4, n_steps)
        x = rng.normal(size=4)

        def plain(v, program=program):
            return program(v.tolist(), math.tanh, math.exp, math.log, lambda a: max(a, 0.0))

        inputs = [impl.Value(each) for each in x.tolist()]
        value = impl.Value
        end = program(inputs, value.tanh, value.exp, value.log, value.relu)
        assert end.data == pytest.approx(plain(x), rel=1e-12)
        end.backward()
        expected = numerical_gradient(plain, x)
        assert [each.grad for each in inputs] == pytest.approx(expected.tolist(), rel=1e-7, abs=1e-7)


def test_the_order_of_a_chain_of_twenty_thousand(impl):
    for n in (2_000, 20_000):
        assert impl.topological_order(n, lambda node: [node - 1] if node else []) == list(range(n + 1))


def test_a_chain_of_twenty_thousand_operations(impl):
    """Python allows about a thousand nested calls."""
    for n in aim.sizes(2_000, 20_000, at_most=40_000):
        x = y = impl.Value(1.0)
        for _ in range(n):
            y = -y
        y.backward()
        assert (n, y.data, x.grad) == (n, (-1.0) ** n, (-1.0) ** n)


def test_more_paths_than_could_be_walked(impl):
    """200 nodes with two edges to the one before have 2**200 paths, which a slope would notice."""
    n_multiplications = 0

    class Counted(float):
        def __mul__(self, other):
            nonlocal n_multiplications
            n_multiplications += 1
            assert n_multiplications < 10_000, "one edge is walked again and again"
            return float(self) * other

        __rmul__ = __mul__

    x = y = impl.Value(3.0)
    for _ in range(200):
        y = impl.Value(y.data, [(y, Counted(0.5)), (y, Counted(0.5))])
    y.backward()
    assert (y.data, x.grad) == (3.0, 1.0)


def test_what_nobody_needs_is_freed(impl):
    """Rounds of work whose results are dropped leave nothing; one round takes at least 50,000 bytes."""
    kept = impl.Value(0.5)

    def of_its_own():
        x = y = impl.Value(0.5)
        for _ in range(200):
            y = y * x + 1.0
        y.backward()

    def beside_what_is_kept():
        for _ in range(60):
            (kept * 2 + kept - kept / 3).backward()
            kept.tanh().relu().exp().log()
            kept**3 + -kept

    def orders():
        for root in range(3):
            impl.topological_order((200, root), lambda node: [(node[0] - 1, node[1])] if node[0] else [])

    for work in (of_its_own, beside_what_is_kept, orders):
        work()
        tracemalloc.start()
        try:
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            work()
            work()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (work.__name__, after - before < 50_000) == (work.__name__, True)
