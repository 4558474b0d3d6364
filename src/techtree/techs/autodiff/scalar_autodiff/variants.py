"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from collections import Counter

import numpy as np

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
        if len(visits) > 100_000:
            raise RecursionError("too many paths")
    return list(dict.fromkeys(reversed(visits)))


_SEEN = set()


def _shared_seen(root, inputs):
    order, path = [], [(root, iter(inputs(root)))]
    _SEEN.add(root)
    while path:
        node, rest = path[-1]
        following = next((each for each in rest if each not in _SEEN), None)
        if following is None:
            order.append(node)
            path.pop()
        else:
            _SEEN.add(following)
            path.append((following, iter(inputs(following))))
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
    "the nodes seen are remembered from call to call": {"topological_order": _shared_seen},
    "the order is backwards: the root comes first": _rule("    return order\n", "    return order[::-1]\n"),
    "the root is missing": _rule("    return order\n", "    return order[:-1]\n"),
    "a repeated input is listed twice": _rule("            seen.add(following)\n", ""),
    "number + Value fails": _rule(
        "    def __radd__(self, other):\n        return _value(other) + self\n\n", ""
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
    "a power keeps its exponent: n x**n": _rule(
        "exponent * self.data ** (exponent - 1)", "exponent * self.data**exponent"
    ),
    "a power forgets the factor n": _rule(
        "exponent * self.data ** (exponent - 1)", "self.data ** (exponent - 1)"
    ),
    "the power 0 divides by 0 at the base 0": _rule(" if exponent else 0.0", ""),
    "exp passes on its input instead of its result": _rule("[(self, result)])", "[(self, self.data)])"),
    "log passes on 1": _rule("[(self, 1 / self.data)])", "[(self, 1.0)])"),
    "tanh squares its input instead of its result": _rule("1 - result**2", "1 - self.data**2"),
    "tanh is computed from exp, which overflows": _rule(
        "math.tanh(self.data)", "(math.exp(2 * self.data) - 1) / (math.exp(2 * self.data) + 1)"
    ),
    "relu passes the gradient everywhere": _rule("float(self.data > 0)", "1.0"),
    "relu passes the gradient at 0": _rule("float(self.data > 0)", "float(self.data >= 0)"),
    "in-place addition changes the operand, which others use": _rule(
        "    def __neg__(self):",
        "    def __iadd__(self, other):\n"
        "        self.data += _value(other).data\n"
        "        return self\n\n"
        "    def __neg__(self):",
    ),
    "integers stay integers": _rule("self.data = float(data)", "self.data = data"),
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
        x = impl.Value(a)
        y = x
        for _ in range(18):
            y = (y + y) * 0.5
        y.backward()
        return x.grad

    def in_place(impl):
        x = impl.Value(a)
        y = x
        y += 1
        return [x.data, y.data]

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
        "tanh": slopes(lambda x: x.tanh(), a),
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
            impl.topological_order(5000, lambda node: [node - 1] if node else [])
        ),
        "order, first and last": lambda impl: str(
            [impl.topological_order("b", graph.get)[0], impl.topological_order("b", graph.get)[-1]]
        ),
        "order of a ladder": lambda impl: len(
            impl.topological_order(18, lambda node: [node - 1, node - 1] if node else [])
        ),
        "three passes": passes,
        "two ends": shared,
        "a ladder of sums": ladder,
        "in-place addition": in_place,
        "type of the data": lambda impl: type(impl.Value(3).data).__name__,
        "numbers": lambda impl: np.array([impl.Value(3).data, impl.Value(3).grad]),
    }
