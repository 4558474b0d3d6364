"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import gc
import math
import operator
import weakref
from collections import Counter

PASS_ON = "                derivatives[each] = derivatives.get(each, 0.0) + derivatives[node] * slope\n"
KEEP = "            node.grad += derivatives[node]\n"
START = "        derivatives = {self: 1.0}\n"
LOOP = (
    "        for node in reversed("
    "topological_order(self, lambda value: [each for each, _ in value.edges])):\n"
)


def _breadth_first(root, inputs):
    """The nearest nodes first: a node that is also reached by a longer way comes too late in the list."""
    order, seen = [root], {root}
    for node in order:
        for each in inputs(node):
            if each not in seen:
                seen.add(each)
                order.append(each)
    return order[::-1]


def _preorder(root, inputs):
    """Note a node when it is first met, not when it is left."""
    order, seen, waiting = [], set(), [root]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            order.append(node)
            waiting.extend(inputs(node))
    return order[::-1]


def _recursive(root, inputs):
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for each in inputs(node):
                visit(each)
            order.append(node)

    visit(root)
    return order


def _all_paths(root, inputs):
    """Walk every path, and keep the last visit of each node."""
    visits = [root]
    for node in visits:
        visits.extend(inputs(node))
        if len(visits) > 1_000:
            raise RecursionError("too many paths")
    return list(dict.fromkeys(reversed(visits)))


def _by_identity(root, inputs):
    """Tell nodes apart by their address: equal texts or tuples become two nodes."""
    order, seen, waiting = [], set(), [(root, False)]
    while waiting:
        node, is_open = waiting.pop()
        if is_open:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((node, True))
            waiting.extend((each, False) for each in inputs(node))
    return order


def _rule(line, other):
    return [(line, other)]


MISTAKES = {
    "the derivative of an input is set, not added to: of two paths only the last one counts": _rule(
        PASS_ON, "                derivatives[each] = derivatives[node] * slope\n"
    ),
    "every node passes on all that stands in its grad: a second pass adds too much": [
        (KEEP, ""),
        (START, "        self.grad += 1.0\n"),
        (PASS_ON, "                each.grad += node.grad * slope\n"),
    ],
    "grad starts from 0 in every pass: a second pass replaces the first": _rule(
        KEEP, "            node.grad = derivatives[node]\n"
    ),
    "only numbers that were given get their grad, the inner ones do not": _rule(
        KEEP, "            node.grad += 0.0 if node.edges else derivatives[node]\n"
    ),
    "the end does not get its own derivative, 1": _rule(
        KEEP, "            node.grad += derivatives[node] if node is not self else 0.0\n"
    ),
    "the end passes on what stands in its grad, which an earlier pass has left": _rule(
        START, "        derivatives = {self: self.grad + 1.0}\n"
    ),
    "backward goes forwards": _rule(
        LOOP,
        "        for node in topological_order(self, lambda value: [each for each, _ in value.edges]):\n"
        "            derivatives.setdefault(node, 0.0)\n",
    ),
    "every edge is walked as often as there are paths: right, and out of time in a deep network": _rule(
        LOOP + KEEP + "            for each, slope in node.edges:\n" + PASS_ON,
        "        waiting = [(self, 1.0)]\n"
        "        for n, (node, derivative) in enumerate(waiting):\n"
        "            if n > 200_000:\n"
        "                raise RecursionError('too many paths')\n"
        "            node.grad += derivative\n"
        "            waiting.extend((each, derivative * slope) for each, slope in node.edges)\n",
    ),
    "numbers that are equal count as one node": _rule(
        "    def __neg__(self):",
        "    def __eq__(self, other):\n"
        "        return isinstance(other, Value) and self.data == other.data\n\n"
        "    def __hash__(self):\n"
        "        return hash(self.data)\n\n"
        "    def __neg__(self):",
    ),
    "the order is breadth first: a node may come before one that uses it": {
        "topological_order": _breadth_first
    },
    "the order notes a node when it is first met": {"topological_order": _preorder},
    "the order is recursive, and Python stops it after about a thousand nodes": {
        "topological_order": _recursive
    },
    "the order walks every path": {"topological_order": _all_paths},
    "the nodes seen are remembered from call to call": [
        ("def topological_order(", "everything = set()\n\n\ndef topological_order("),
        (
            "    order, seen, path = [], {root},",
            "    everything.add(root)\n    order, seen, path = [], everything,",
        ),
    ],
    "the order of a root is remembered, though the graph may have changed": [
        ("def topological_order(", "known = {}\n\n\ndef topological_order("),
        ("    return order\n", "    return list(known.setdefault(root, order))\n"),
    ],
    "nodes are told apart by their address": {"topological_order": _by_identity},
    "nodes are told apart by their hash, which -1 and -2 share": [
        ("[], {root}, [", "[], {hash(root)}, ["),
        ("if each not in seen", "if hash(each) not in seen"),
        ("seen.add(following)", "seen.add(hash(following))"),
    ],
    "the nodes seen are kept in a list, which takes ever longer to search": [
        ("[], {root}, [", "[], [root], ["),
        ("seen.add(", "seen.append("),
    ],
    "nodes that count as false, as 0 does, are left out": [
        ("for each in rest if each not in seen", "for each in rest if each and each not in seen")
    ],
    "the inputs must be a list": _rule(
        "path.append((following, iter(inputs(following))))",
        "path.append((following, iter([inputs(following)[n] for n in range(len(inputs(following)))])))",
    ),
    "the inputs are taken out of the caller's lists": _rule(
        "path.append((following, iter(inputs(following))))",
        "found = inputs(following)\n"
        "            taken = [found.pop(0) for _ in list(found)] if isinstance(found, list) else found\n"
        "            path.append((following, iter(taken)))",
    ),
    "the order is an iterator, not a list": _rule("    return order\n", "    return iter(order)\n"),
    "the order is backwards: the root comes first": _rule("    return order\n", "    return order[::-1]\n"),
    "the root is missing": _rule("    return order\n", "    return order[:-1]\n"),
    "a repeated input is listed twice": _rule("            seen.add(following)\n", ""),
    "number + Value fails": _rule(
        "    def __radd__(self, other):\n        return _value(other) + self\n\n", ""
    ),
    "number - Value fails": _rule(
        "    def __rsub__(self, other):\n        return _value(other) - self\n\n", ""
    ),
    "number * Value fails": _rule(
        "    def __rmul__(self, other):\n        return _value(other) * self\n\n", ""
    ),
    "number / Value fails": _rule(
        "    def __rtruediv__(self, other):\n        return _value(other) / self\n\n", ""
    ),
    "only Values work with Values, plain numbers fail": _rule(
        "return number if isinstance(number, Value) else Value(number)", "return number"
    ),
    "0 + Value is the Value itself": _rule(
        "        return _value(other) + self\n",
        "        return self if other == 0 else _value(other) + self\n",
    ),
    "a product with 1 is the other factor itself": _rule(
        "        return Value(self.data * other.data,",
        "        if other.data == 1:\n            return self\n        return Value(self.data * other.data,",
    ),
    "number - Value is Value - number": _rule("return _value(other) - self", "return self - other"),
    "number / Value is Value / number": _rule("return _value(other) / self", "return self / other"),
    "a product passes each factor's own number on": _rule(
        "[(self, other.data), (other, self.data)]", "[(self, self.data), (other, other.data)]"
    ),
    "a difference passes the gradient to both sides with the same sign": _rule(
        "(other, -1.0)", "(other, 1.0)"
    ),
    "a quotient forgets the minus sign of its denominator": _rule(
        "(other, -result / other.data)", "(other, result / other.data)"
    ),
    "a quotient divides by its denominator once, not twice": _rule(
        "(other, -result / other.data)", "(other, -result)"
    ),
    "a division by 0 is infinite": _rule(
        "result = self.data / other.data\n",
        "if other.data == 0:\n            return Value(math.inf)\n        result = self.data / other.data\n",
    ),
    "a power goes through the logarithm, which negative numbers do not have": _rule(
        "return Value(self.data**exponent, [(self, slope)])",
        "return Value(math.exp(exponent * math.log(self.data)) if self.data else 0.0**exponent, "
        "[(self, slope)])",
    ),
    "a power takes the whole part of its exponent": _rule(
        "        slope = exponent", "        exponent = int(exponent)\n        slope = exponent"
    ),
    "the derivative of a power at the base 0 is 0": _rule(" if exponent else 0.0", " if self.data else 0.0"),
    "a power keeps its exponent: n x**n": _rule(
        "exponent * self.data ** (exponent - 1)", "exponent * self.data**exponent"
    ),
    "a power forgets the factor n": _rule(
        "exponent * self.data ** (exponent - 1)", "self.data ** (exponent - 1)"
    ),
    "the power 0 divides by 0 at the base 0": _rule(" if exponent else 0.0", ""),
    "exp passes on its input instead of its result": _rule("[(self, result)])", "[(self, self.data)])"),
    "exp keeps its input below 500, so as not to overflow": _rule(
        "math.exp(self.data)", "math.exp(min(self.data, 500))"
    ),
    "exp of a large number is infinite": _rule(
        "math.exp(self.data)", "(math.exp(self.data) if self.data < 709 else math.inf)"
    ),
    "log of 0 is minus infinity": _rule(
        "return Value(math.log(self.data), [(self, 1 / self.data)])",
        "number = self.data or 1e-320\n"
        "        return Value(math.log(number) if self.data else -math.inf, [(self, 1 / number)])",
    ),
    "log adds 1e-12 to its input": _rule("math.log(self.data)", "math.log(self.data + 1e-12)"),
    "log keeps its input above 1e-12": _rule("math.log(self.data)", "math.log(max(self.data, 1e-12))"),
    "log is that of the base 10": _rule("math.log(self.data)", "math.log10(self.data)"),
    "log passes on 1": _rule("[(self, 1 / self.data)])", "[(self, 1.0)])"),
    "tanh squares its input instead of its result": _rule("1 - result**2", "1 - self.data**2"),
    "tanh is computed from exp, which overflows": _rule(
        "math.tanh(self.data)", "(math.exp(2 * self.data) - 1) / (math.exp(2 * self.data) + 1)"
    ),
    "tanh is 1 - 2 / (exp(2 x) + 1), which loses small numbers": _rule(
        "math.tanh(self.data)", "(1 - 2 / (math.exp(min(2 * self.data, 700)) + 1))"
    ),
    "relu passes the gradient everywhere": _rule("float(self.data > 0)", "1.0"),
    "relu lets a hundredth through": [
        ("max(self.data, 0.0)", "max(self.data, 0.01 * self.data)"),
        ("float(self.data > 0)", "1.0 if self.data > 0 else 0.01 if self.data else 0.0"),
    ],
    "relu passes the gradient at 0": _rule("float(self.data > 0)", "float(self.data >= 0)"),
    "in-place addition changes the operand, which others use": _rule(
        "    def __neg__(self):",
        "    def __iadd__(self, other):\n"
        "        self.data += _value(other).data\n"
        "        return self\n\n"
        "    def __neg__(self):",
    ),
    "in-place multiplication changes the operand, which others use": _rule(
        "    def __neg__(self):",
        "    def __imul__(self, other):\n"
        "        self.data *= _value(other).data\n"
        "        return self\n\n"
        "    def __neg__(self):",
    ),
    "integers stay integers": _rule("self.data = float(data)", "self.data = data"),
    "grad is an integer before the first pass": _rule("self.grad = 0.0", "self.grad = 0"),
    "grad is None before the first pass": [
        ("self.grad = 0.0", "self.grad = None"),
        (KEEP, "            node.grad = (node.grad or 0.0) + derivatives[node]\n"),
    ],
    "the edges are kept as they came: an iterator is used up by the first look": _rule(
        "self.edges = tuple(edges)", "self.edges = edges"
    ),
    "the edges are the caller's list, which may change": _rule(
        "self.edges = tuple(edges)", "self.edges = edges if isinstance(edges, list) else tuple(edges)"
    ),
    "the edges are a dictionary: an input that occurs twice counts once": _rule(
        "self.edges = tuple(edges)", "self.edges = tuple(dict(edges).items())"
    ),
    "the graph is taken apart by the first pass": _rule(PASS_ON, PASS_ON + "            node.edges = ()\n"),
    "a second pass of the same end does nothing": _rule(
        START,
        "        if self.grad and self.edges:\n            return\n" + START,
    ),
    "backward calls itself, and Python stops it after about a thousand nodes": _rule(
        LOOP,
        "        order, seen = [], set()\n\n"
        "        def visit(node):\n"
        "            if node not in seen:\n"
        "                seen.add(node)\n"
        "                for each, _ in node.edges:\n"
        "                    visit(each)\n"
        "                order.append(node)\n\n"
        "        visit(self)\n"
        "        for node in reversed(order):\n",
    ),
    "every Value is kept on a list for ever": [
        ("class Value:", "tape = []\n\n\nclass Value:"),
        ("        self.grad = 0.0\n", "        self.grad = 0.0\n        tape.append(self)\n"),
    ],
}


def _counting_users(root, inputs):
    """Kahn's algorithm: take a node as soon as all that use it are taken."""
    users, found = Counter(), [root]
    seen = {root}
    for node in found:
        for each in inputs(node):
            users[each] += 1
            if each not in seen:
                seen.add(each)
                found.append(each)
    free, order = [root], []
    while free:
        node = free.pop()
        order.append(node)
        for each in inputs(node):
            users[each] -= 1
            if users[each] == 0:
                free.append(each)
    return order[::-1]


def _with_marks(root, inputs):
    """Put each node on the stack twice: to open it, and, below its inputs, to close it."""
    order, done, waiting = [], set(), [(root, False)]
    while waiting:
        node, is_open = waiting.pop()
        if node in done:
            continue
        if is_open:
            done.add(node)
            order.append(node)
        else:
            waiting.append((node, True))
            waiting.extend((each, False) for each in inputs(node) if each not in done)
    return order


class _Closures:
    """A Value in the style of micrograd: each result holds a function that passes its derivative on."""

    def __init__(self, data, edges=()):
        self.data, self.grad, self._slope = float(data), 0.0, 0.0
        edges = list(edges)
        self._inputs = [each for each, _ in edges]
        self._slopes = [slope for _, slope in edges]

        def pass_on():
            for each, slope in zip(self._inputs, self._slopes, strict=True):
                each._slope += slope * self._slope

        self._pass_on = pass_on

    @classmethod
    def _of(cls, number):
        return number if isinstance(number, cls) else cls(number)

    def __add__(self, other):
        other = self._of(other)
        return type(self)(self.data + other.data, [(self, 1), (other, 1)])

    def __mul__(self, other):
        other = self._of(other)
        return type(self)(self.data * other.data, [(self, other.data), (other, self.data)])

    def __pow__(self, n):
        if n == 0:
            return self * 0 + 1
        if n < 0 and self.data == 0:
            raise ZeroDivisionError("0 has no inverse")
        return type(self)(math.pow(self.data, n), [(self, n * math.pow(self.data, n - 1))])

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + self._of(other) * -1

    def __truediv__(self, other):
        return self * self._of(other) ** -1

    def __rtruediv__(self, other):
        return self**-1 * other

    def __rsub__(self, other):
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def exp(self):
        return type(self)(math.exp(self.data), [(self, math.exp(self.data))])

    def log(self):
        return type(self)(math.log(self.data), [(self, self.data**-1)])

    def tanh(self):
        t = math.tanh(self.data)
        return type(self)(t, [(self, (1 - t) * (1 + t))])

    def relu(self):
        return self * 1 if self.data > 0 else self * 0

    def backward(self):
        order = _with_marks(self, lambda node: node._inputs)
        self._slope = 1.0
        for node in reversed(order):
            node._pass_on()
        for node in order:
            node.grad += node._slope
            node._slope = 0.0


EQUIVALENTS = {
    "topological_order by counting who still waits (Kahn)": {"topological_order": _counting_users},
    "topological_order with two visits of each node": {"topological_order": _with_marks},
    "Value with closures, and division as a power": {"Value": _Closures},
    "the derivatives are kept under the nodes' positions in the order": [
        (
            START + LOOP + KEEP + "            for each, slope in node.edges:\n" + PASS_ON,
            "        order = topological_order(self, lambda value: [each for each, _ in value.edges])\n"
            "        place = {node: n for n, node in enumerate(order)}\n"
            "        slopes = [0.0] * (len(order) - 1) + [1.0]\n"
            "        for n in range(len(order) - 1, -1, -1):\n"
            "            for each, slope in order[n].edges:\n"
            "                slopes[place[each]] += slope * slopes[n]\n"
            "        for node, slope in zip(order, slopes, strict=True):\n"
            "            node.grad += slope\n",
        )
    ],
    "grad is put aside during the pass": [
        (
            START + LOOP + KEEP + "            for each, slope in node.edges:\n" + PASS_ON,
            "        order = topological_order(self, lambda value: (each for each, _ in value.edges))\n"
            "        before = [node.grad for node in order]\n"
            "        for node in order:\n"
            "            node.grad = float(node is self)\n"
            "        for node in order[::-1]:\n"
            "            for each, slope in node.edges:\n"
            "                each.grad += slope * node.grad\n"
            "        for node, grad in zip(order, before, strict=True):\n"
            "            node.grad += grad\n",
        )
    ],
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    a, b = rng.uniform(0.5, 2.0, size=2).tolist()
    graph = {"e": ["d", "a", "d"], "d": ["c", "b"], "c": ["a", "b"], "b": ["a"], "a": []}

    def slopes(operation, *numbers):
        def probe(impl):
            inputs = [impl.Value(number) for number in numbers]
            end = operation(*inputs)
            end.backward()
            return [end.data, *(each.grad for each in inputs)]

        return probe

    def order(impl):
        found = list(impl.topological_order("e", graph.get))
        late = sum(
            found.index(each) > found.index(node) for node in found for each in graph[node] if each in found
        )
        return [len(found), late, "e" in found]

    def passes(impl):
        x = impl.Value(a)
        h = x * x
        y = h * 3 + h
        grads = []
        for _ in range(3):
            y.backward()
            grads += [x.grad, h.grad, y.grad]
        return grads

    def shared(impl):
        x = impl.Value(a)
        h = x * b
        first, second = h + 1, h * h
        first.backward()
        second.backward()
        return [x.grad, h.grad, first.grad, second.grad]

    def ladder(impl):
        """Whether an edge is walked more than once, told by the number of multiplications."""
        x = y = impl.Value(a)
        Counted.n = 0
        for _ in range(12):
            y = impl.Value(y.data, [(y, Counted(0.5)), (y, Counted(0.5))])
        y.backward()
        return [x.grad, float(Counted.n > 100)]

    def deep(impl):
        x = y = impl.Value(a)
        for _ in range(1500):
            y = -y
        y.backward()
        return x.grad

    def in_place(impl):
        found = []
        for operate in (operator.iadd, operator.imul):
            x = impl.Value(a)
            y = operate(x, 2)
            found += [x.data, y.data]
        return found

    def new_node(operation):
        def probe(impl):
            x = impl.Value(a)
            y = operation(x)
            (y + 10 * x).backward()
            return [x.grad, y.grad]

        return probe

    def changing(impl):
        found, inputs = [], {"b": ["c"], "c": [], "d": []}
        for name in ("", "d"):
            inputs["c"] += [name] if name else []
            found.append(len(list(impl.topological_order("b", inputs.get))))
        return [*found, sum(map(len, inputs.values()))]

    def comparisons(impl):
        """Whether nodes are compared far more often than a set would."""

        class Node(int):
            n_compared = 0
            __hash__ = int.__hash__

            def __eq__(self, other):
                Node.n_compared += 1
                return int(self) == int(other)

        impl.topological_order(Node(200), lambda node: [Node(node - 1)] if node else [])
        return Node.n_compared > 5000

    def own_operation(impl):
        x, y = impl.Value(a), impl.Value(b)
        z = impl.Value(a * b * b, zip((x, y, y), (b * b, a * b, a * b), strict=True)) * 2
        z.backward()
        edges = [(x, 1.0)]
        w = impl.Value(a, edges)
        edges.clear()
        w.backward()
        return [x.grad, y.grad]

    def forgotten(impl):
        x = impl.Value(a)
        reference = weakref.ref(x * 2)
        gc.collect()
        return reference() is None

    class Counted(float):
        n = 0

        def __mul__(self, other):
            Counted.n += 1
            return float(self) * other

        __rmul__ = __mul__

    return {
        "sum": slopes(lambda x, y: x + y, a, b),
        "difference": slopes(lambda x, y: x - y, a, b),
        "product": slopes(lambda x, y: x * y, a, b),
        "quotient": slopes(lambda x, y: x / y, a, b),
        "power": slopes(lambda x: x**3, a),
        "power 0 of 0": slopes(lambda x: x**0, 0.0),
        "number + Value": slopes(lambda x: 2 + x, a),
        "number - Value": slopes(lambda x: 2 - x, a),
        "number / Value": slopes(lambda x: 2 / x, a),
        "exp": slopes(lambda x: x.exp(), a),
        "log": slopes(lambda x: x.log(), a),
        "power of a negative number": slopes(lambda x: x**3, -a),
        "power 1 of 0": slopes(lambda x: x**1, 0.0),
        "power 1/2": slopes(lambda x: x**0.5, a),
        "number * Value": slopes(lambda x: 2 * x, a),
        "Value / 0": slopes(lambda x: x / 0, a),
        "exp of 600": slopes(lambda x: x.exp(), 600.0),
        "exp of 1000": slopes(lambda x: x.exp(), 1000.0),
        "log of 0": slopes(lambda x: x.log(), 0.0),
        "log of 1e-13, without its derivative": lambda impl: impl.Value(1e-13).log().data,
        "tanh": slopes(lambda x: x.tanh(), a),
        "tanh of 1e-12, without its derivative": lambda impl: impl.Value(1e-12).tanh().data,
        "tanh of 1000": slopes(lambda x: x.tanh(), 1000.0),
        "relu of -1": slopes(lambda x: x.relu(), -1.0),
        "relu of 0": slopes(lambda x: x.relu(), 0.0),
        "one number twice": slopes(lambda x: x * x + x, a),
        "two equal numbers": slopes(lambda x, y: x * y + x, a, a),
        "paths of two lengths": slopes(lambda x: (lambda h: h + h * h * 5)(x * 2), a),
        "paths of three lengths": slopes(lambda x: (lambda h, k: k * h + h + k)(x * 3, x * x * 9), a),
        "order": order,
        "order, again": order,
        "order of a chain": lambda impl: len(
            list(impl.topological_order(1500, lambda node: [node - 1] if node else []))
        ),
        "type of the order": lambda impl: type(impl.topological_order("e", graph.get)).__name__,
        "order of a changing graph": changing,
        "order of equal nodes": lambda impl: len(
            list(
                impl.topological_order((3,), lambda node: [(node[0] - 1,), (node[0] - 1,)] if node[0] else [])
            )
        ),
        "order of inputs from a generator": lambda impl: len(
            list(impl.topological_order("e", lambda node: (each for each in graph[node])))
        ),
        "order of nodes of one hash": lambda impl: len(
            list(impl.topological_order(0, lambda node: [] if node else [-1, -2]))
        ),
        "comparisons of nodes": comparisons,
        "order, first and last": lambda impl: str(
            [*impl.topological_order("b", graph.get)][:1] + [*impl.topological_order("b", graph.get)][-1:]
        ),
        "order of a ladder": lambda impl: len(
            list(impl.topological_order(10, lambda node: [node - 1, node - 1] if node else []))
        ),
        "three passes": passes,
        "two ends": shared,
        "a ladder of sums": ladder,
        "a chain": deep,
        "in-place operations": in_place,
        "0 + Value, used beside it": new_node(lambda x: 0 + x),
        "Value * 1, used beside it": new_node(lambda x: x * 1),
        "an operation of one's own": own_operation,
        "a result that nobody needs": forgotten,
        "type of the data": lambda impl: type(impl.Value(3).data).__name__,
        "type of the grad": lambda impl: type(impl.Value(3.0).grad).__name__,
    }
