"""Oracles: derivatives by hand, sums over all paths of a graph, central differences of random programs."""

import math

import pytest

from techtree.techs.ground.gradcheck import numerical_gradient

# One operation is off by at most a unit in the last place or two; the expressions below have a few of them.
TOLERANCE = 1e-14


class Node:
    """A node that knows its inputs; told apart by identity."""

    def __init__(self, *inputs):
        self.inputs = list(inputs)


def check_order(order, root, inputs):
    """Every node that the root depends on, once, after its inputs."""
    needed, waiting = {root}, [root]
    while waiting:
        for each in inputs(waiting.pop()):
            if each not in needed:
                needed.add(each)
                waiting.append(each)
    order = list(order)
    assert len(order) == len(needed)
    assert set(order) == needed
    place = {node: n for n, node in enumerate(order)}
    assert all(place[each] < place[node] for node in order for each in inputs(node))


def inputs_of(node):
    return node.inputs


def test_the_order_of_a_hand_made_graph(impl):
    a, b = Node(), Node()
    c = Node(a, b)
    d = Node(c, a)
    e = Node(d, d, b)
    Node(e)  # nobody asks for it
    check_order(impl.topological_order(e, inputs_of), e, inputs_of)
    assert impl.topological_order(a, inputs_of) == [a]
    assert isinstance(impl.topological_order(e, inputs_of), list)


def test_a_long_way_round_and_a_short_cut(impl):
    """The root uses a directly, and through a chain: a must come before the chain all the same."""
    for first in (True, False):
        a = Node()
        chain = Node(a)
        for _ in range(5):
            chain = Node(chain)
        root = Node(a, chain) if first else Node(chain, a)
        check_order(impl.topological_order(root, inputs_of), root, inputs_of)


def test_the_order_of_random_graphs(impl, rng):
    for size in (2, 3, 5, 10, 40):
        for _ in range(20):
            nodes = [Node()]
            for _ in range(size):
                chosen = rng.integers(len(nodes), size=rng.integers(4))
                nodes.append(Node(*(nodes[i] for i in chosen)))
            root = Node(*(nodes[i] for i in rng.permutation(len(nodes))[:3]))
            check_order(impl.topological_order(root, inputs_of), root, inputs_of)


def test_nodes_may_be_any_hashable_objects_and_inputs_any_iterables(impl):
    graph = {3: (2, 0), 2: (0, ""), 0: (), "": ()}
    order = impl.topological_order(3, lambda node: (each for each in graph[node]))
    check_order(order, 3, graph.__getitem__)
    order = impl.topological_order(3, lambda node: iter(graph[node]))
    check_order(order, 3, graph.__getitem__)


def test_the_order_leaves_the_graph_and_itself_alone(impl):
    a = Node()
    b = Node(a, a)
    c = Node(b, a)
    first = impl.topological_order(c, inputs_of)
    assert b.inputs == [a, a]
    assert c.inputs == [b, a]
    first.clear()
    check_order(impl.topological_order(c, inputs_of), c, inputs_of)
    check_order(impl.topological_order(b, inputs_of), b, inputs_of)


def test_the_order_of_a_chain_of_a_hundred_thousand(impl):
    n = 100_000
    order = impl.topological_order(n, lambda node: [node - 1] if node else [])
    assert order == list(range(n + 1))


def test_the_order_where_the_paths_are_too_many_to_walk(impl):
    """A ladder with 2**300 paths."""
    order = impl.topological_order(300, lambda node: [node - 1, node - 1, max(node - 2, 0)] if node else [])
    assert order == list(range(301))


def test_the_example(impl):
    x = impl.Value(3.0)
    y = x * x + 2 * x
    y.backward()
    assert (y.data, x.grad, y.grad) == (15.0, 8.0, 1.0)


UNARY = {
    "negative": (lambda v: -v, lambda x: -x, lambda x: -1.0, [-2.5, 0.0, 3.0]),
    "exp": (lambda v: v.exp(), math.exp, math.exp, [-700.0, -1.5, 0.0, 2.0, 300.0]),
    "log": (lambda v: v.log(), math.log, lambda x: 1 / x, [1e-300, 0.5, 1.0, 7.0, 1e300]),
    "tanh": (
        lambda v: v.tanh(),
        math.tanh,
        lambda x: 1 - math.tanh(x) ** 2,
        [-1000.0, -2.0, 0.0, 0.3, 800.0],
    ),
    "relu": (
        lambda v: v.relu(),
        lambda x: max(x, 0.0),
        lambda x: float(x > 0),
        [-3.0, -1e-9, 0.0, 1e-9, 4.0],
    ),
    "cube": (lambda v: v**3, lambda x: x**3, lambda x: 3 * x**2, [-2.0, 0.0, 1.5]),
    "first power": (lambda v: v**1, lambda x: x, lambda x: 1.0, [-2.0, 0.0, 1.5]),
    "square root": (lambda v: v**0.5, math.sqrt, lambda x: 0.5 / math.sqrt(x), [0.25, 9.0]),
    "inverse square": (lambda v: v**-2, lambda x: x**-2, lambda x: -2 * x**-3, [-0.5, 3.0]),
    "power 0": (lambda v: v**0, lambda x: 1.0, lambda x: 0.0, [-2.0, 0.0, 1.5]),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(impl, name):
    operation, value, slope, points = UNARY[name]
    for point in points:
        x = impl.Value(point)
        y = operation(x)
        assert y.data == pytest.approx(value(point), rel=TOLERANCE, abs=1e-300)
        y.backward()
        assert x.grad == pytest.approx(slope(point), rel=TOLERANCE, abs=TOLERANCE)


BINARY = {
    "+": (lambda a, b: a + b, lambda a, b: (1.0, 1.0)),
    "-": (lambda a, b: a - b, lambda a, b: (1.0, -1.0)),
    "*": (lambda a, b: a * b, lambda a, b: (b, a)),
    "/": (lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2)),
}


@pytest.mark.parametrize("sign", BINARY)
@pytest.mark.parametrize(
    ("left", "right"), [(3.0, 2.0), (-1.5, 0.25), (0.0, -7.0), (1e10, 1e-10), (2.0, 2.0)]
)
def test_functions_of_two_numbers(impl, sign, left, right):
    operation, slopes = BINARY[sign]
    for as_left, as_right in [(impl.Value, impl.Value), (impl.Value, float), (float, impl.Value)]:
        a, b = as_left(left), as_right(right)
        y = operation(a, b)
        assert isinstance(y, impl.Value)
        assert y.data == pytest.approx(operation(left, right), rel=TOLERANCE)
        y.backward()
        for each, slope in zip((a, b), slopes(left, right), strict=True):
            if isinstance(each, impl.Value):
                assert each.grad == pytest.approx(slope, rel=TOLERANCE)


@pytest.mark.parametrize("sign", BINARY)
def test_integers_on_either_side(impl, sign):
    operation, slopes = BINARY[sign]
    a, b = impl.Value(7), impl.Value(2)
    for y in (operation(a, 2), operation(7, b), operation(a, b)):
        assert y.data == operation(7, 2)
        assert isinstance(y.data, float)
    operation(a, 2).backward()
    operation(7, b).backward()
    assert (a.grad, b.grad) == pytest.approx(slopes(7, 2), rel=TOLERANCE)


@pytest.mark.parametrize(
    ("operation", "data", "slope"),
    [
        (lambda x: x + x, 6.0, 2.0),
        (lambda x: x - x, 0.0, 0.0),
        (lambda x: x * x, 9.0, 6.0),
        (lambda x: x / x, 1.0, 0.0),
        (lambda x: x * x * x, 27.0, 27.0),
        (lambda x: (x + x) * (x + x), 36.0, 24.0),
        (lambda x: x**2 + x**2, 18.0, 12.0),
        (lambda x: (x * 2) * (x * 2 + 1), 42.0, 26.0),
    ],
)
def test_a_number_that_is_used_more_than_once(impl, operation, data, slope):
    x = impl.Value(3.0)
    y = operation(x)
    y.backward()
    assert y.data == pytest.approx(data, rel=TOLERANCE)
    assert x.grad == pytest.approx(slope, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("swapped", [False, True])
def test_short_and_long_paths_meet(impl, swapped):
    """The inner node must wait for the long path: b = 5 a**2, c = a + b, so dc/dx = 2 (1 + 10 a)."""
    x = impl.Value(0.5)
    a = x * 2
    b = (a * a) * 5
    c = b + a if swapped else a + b
    c.backward()
    assert (x.grad, a.grad, b.grad, c.grad) == (22.0, 11.0, 1.0, 1.0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_three_paths_of_three_lengths(impl, order):
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
    assert x.grad == 0.0
    assert isinstance(x.grad, float)
    aside = x * other
    y = x * 5
    assert (x.grad, y.grad) == (0.0, 0.0)
    y.backward()
    assert (x.grad, other.grad, aside.grad) == (5.0, 0.0, 0.0)
    assert isinstance(x.grad, float)


def test_backward_of_a_number_that_was_not_computed(impl):
    x = impl.Value(4.0)
    x.backward()
    assert x.grad == 1.0


def test_backward_again_adds_the_same_again(impl):
    """Not more: what the first pass left in the inner nodes must not enter the second."""
    x = impl.Value(3.0)
    h = x * x
    y = h * 4 + h
    for times in (1, 2, 3):
        y.backward()
        assert (x.grad, h.grad, y.grad) == (30.0 * times, 5.0 * times, 1.0 * times)


def test_two_ends_that_share_inner_nodes(impl):
    x = impl.Value(3.0)
    h = x * x
    a, b = h * 2, h * 10
    a.backward()
    assert (x.grad, h.grad) == (12.0, 2.0)
    b.backward()
    assert (x.grad, h.grad, a.grad, b.grad) == (72.0, 12.0, 1.0, 1.0)


def test_backward_of_an_inner_node_and_then_of_the_end(impl):
    x = impl.Value(3.0)
    h = x * x
    y = h * 10
    h.backward()
    y.backward()
    assert (x.grad, h.grad, y.grad) == (66.0, 11.0, 1.0)


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


def test_the_graph_may_grow_after_a_pass(impl):
    x = impl.Value(3.0)
    y = x * 2
    y.backward()
    z = y * 5
    z.backward()
    assert (x.grad, y.grad, z.grad) == (12.0, 6.0, 1.0)


def test_operations_do_not_change_their_operands(impl):
    x, y = impl.Value(3.0), impl.Value(4.0)
    _ = [x + y, x - y, x * y, x / y, x**3, -x, x.exp(), x.log(), x.tanh(), x.relu(), 2 - x, 2 / x, x + 1]
    total = x
    total += y
    total *= 2
    assert (x.data, y.data, x.grad, y.grad, total.data) == (3.0, 4.0, 0.0, 0.0, 14.0)
    total.backward()
    assert (x.data, y.data, x.grad, y.grad) == (3.0, 4.0, 2.0, 2.0)


def test_every_operation_gives_a_new_node(impl):
    """x + 0 is not x: a later use of x must not show in its grad."""
    x = impl.Value(3.0)
    operations = [
        *(lambda v: v + 0, lambda v: 0 + v, lambda v: v - 0, lambda v: v * 1, lambda v: 1 * v),
        *(lambda v: v / 1, lambda v: v**1, lambda v: v.relu()),
    ]
    for operation in operations:
        x.grad = 0.0
        y = operation(x)
        (y + 10 * x).backward()
        assert (x.grad, y.grad) == (11.0, 1.0)


def test_python_can_sum_them(impl):
    values = [impl.Value(n) for n in range(50)]
    total = sum(value * value for value in values)
    total.backward()
    assert [value.grad for value in values] == [2.0 * n for n in range(50)]


def test_an_operation_of_ones_own(impl):
    """The constructor is the way to add an operation: here sin, and a product of three."""
    x, y = impl.Value(0.5), impl.Value(3.0)
    sine = impl.Value(math.sin(x.data), [(x, math.cos(x.data))])
    product = impl.Value(x.data * y.data * y.data, zip((x, y, y), (9.0, 1.5, 1.5), strict=True))
    z = sine * 2 + product
    z.backward()
    assert z.data == pytest.approx(2 * math.sin(0.5) + 4.5, rel=TOLERANCE)
    assert x.grad == pytest.approx(2 * math.cos(0.5) + 9, rel=TOLERANCE)
    assert y.grad == 3.0


def test_the_logarithm_needs_a_positive_number(impl):
    for number in (0.0, -1.0):
        with pytest.raises(ValueError):  # noqa: PT011
            impl.Value(number).log()


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


@pytest.mark.parametrize("n_steps", [1, 5, 20, 60])
def test_random_programs_against_central_differences(impl, rng, n_steps):
    """The worst of 1,600 such programs was off by 1e-9."""
    for _ in range(3):
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


def test_a_chain_of_fifty_thousand_operations(impl):
    """Python allows about a thousand nested calls."""
    x = impl.Value(1.0)
    y = x
    for _ in range(25_000):
        y = y * 1.0 + 1.0
    y.backward()
    assert (y.data, x.grad) == (25_001.0, 1.0)


def test_more_paths_than_could_be_walked(impl):
    """y + y has two paths; 200 of these have 2**200. The halves keep the derivative at 1."""
    x = impl.Value(3.0)
    y = x
    for _ in range(200):
        y = (y + y) * 0.5
    y.backward()
    assert (y.data, x.grad) == (3.0, 1.0)
