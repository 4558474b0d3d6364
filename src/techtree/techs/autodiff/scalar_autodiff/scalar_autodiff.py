"""Derivatives of a whole program: remember each operation, then apply the chain rule backwards.

Claim: one backward pass over the recorded operations gives the derivatives of one number with respect to
all the numbers that it was computed from, exact up to rounding, for a small multiple of its own cost.

Idea: every operation makes a `Value` with one edge for each input: the input, and the derivative of the
result with respect to it, a plain number that is known as soon as the operation is done. The derivative
along a path is the product of its edges; the derivative of the end with respect to a node is the sum over
all paths. Visiting each node after all nodes that use it collects that sum edge by edge.

Legend: ``data`` a node's number; ``grad`` the derivative of the end with respect to it.

Left out: derivatives of derivatives (an edge holds a number, not a Value), and arrays, which come in
`tensor_autodiff`.

Paper: Griewank (2012), Who invented the reverse mode of differentiation?
"""

import math
from collections.abc import Callable, Iterable
from typing import Any


def topological_order(root: Any, inputs: Callable[[Any], Iterable[Any]]) -> list:
    """List everything that a node depends on: each node once, and after all of its inputs.

    Parameters
    ----------
    root
        The node to start from: any hashable object except None, and so are the others. Objects that are
        equal are one node.
    inputs
        Gives the nodes that a node was computed from: any iterable, with any number of them, repeated or not.
        It is left as it is. There is no cycle.

    Returns
    -------
    list
        New in each call; the root is the last. A chain of twenty thousand nodes is fine, although Python
        allows only about a thousand nested calls, and so is a graph in which the number of paths is
        astronomical: the time grows as the number of nodes and inputs does.

    Examples
    --------
    >>> uses = {"loss": ["error", "error"], "error": ["weight"], "weight": [], "unused": []}
    >>> topological_order("loss", uses.get)
    ['weight', 'error', 'loss']
    """
    order, seen, path = [], {root}, [(root, iter(inputs(root)))]
    while path:
        node, rest = path[-1]
        following = next((each for each in rest if each not in seen), None)
        if following is None:
            order.append(node)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(inputs(following))))
    return order


class Value:
    """A number that remembers which numbers it was computed from.

    ``+ - * /`` work with Values and plain numbers (``int``, ``float``) on either side, ``**`` with a plain
    number as the exponent. Every operation gives a new Value, also ``x + 0`` and ``x += y``, and leaves its
    operands as they are. Two Values are two nodes, also if their numbers are equal. Results and derivatives
    are right up to rounding, for numbers and exponents of either sign, for 0, and for sizes from 1e-100 to
    1e100; a division by 0 is a ``ZeroDivisionError``. Derivatives are taken when an operation is done: those
    who set ``data`` later change no edge. A Value is kept alive by what was computed from it, and by nothing
    else in this module.

    Parameters
    ----------
    data
        The number, kept as a float in the attribute ``data``.
    edges
        For the result of an operation: pairs (input, derivative of the result with respect to it), any
        iterable, which is read at once. An input that occurs in two pairs counts twice. Left out for a number
        that is given and not computed.

    Attributes
    ----------
    grad
        A float: 0.0 until a backward pass comes by; see `backward`.

    Examples
    --------
    >>> x = Value(3.0)
    >>> y = x * x + 2 * x
    >>> y.backward()
    >>> y.data, x.grad  # 9 + 6, and 2 * 3 + 2
    (15.0, 8.0)
    """

    def __init__(self, data: float, edges: Iterable[tuple["Value", float]] = ()):
        self.data = float(data)
        self.edges = tuple(edges)
        self.grad = 0.0

    def __add__(self, other):
        other = _value(other)
        return Value(self.data + other.data, [(self, 1.0), (other, 1.0)])

    def __sub__(self, other):
        other = _value(other)
        return Value(self.data - other.data, [(self, 1.0), (other, -1.0)])

    def __mul__(self, other):
        other = _value(other)
        return Value(self.data * other.data, [(self, other.data), (other, self.data)])

    def __truediv__(self, other):
        other = _value(other)
        result = self.data / other.data
        return Value(result, [(self, 1 / other.data), (other, -result / other.data)])

    def __pow__(self, exponent: float):
        """Raise to a plain number; an exponent of 0 gives 1 with derivative 0, for the base 0 too.

        A negative power of 0 is a ``ZeroDivisionError``.
        """
        slope = exponent * self.data ** (exponent - 1) if exponent else 0.0
        return Value(self.data**exponent, [(self, slope)])

    def __neg__(self):
        return Value(-self.data, [(self, -1.0)])

    def __radd__(self, other):
        return _value(other) + self

    def __rsub__(self, other):
        return _value(other) - self

    def __rmul__(self, other):
        return _value(other) * self

    def __rtruediv__(self, other):
        return _value(other) / self

    def exp(self):
        """Return e to the power of this number; ``OverflowError`` above 709.78, where no float is."""
        result = math.exp(self.data)
        return Value(result, [(self, result)])

    def log(self):
        """Return the natural logarithm; ``ValueError`` for numbers that are not positive."""
        return Value(math.log(self.data), [(self, 1 / self.data)])

    def tanh(self):
        """Return the hyperbolic tangent, for numbers of any size, huge or tiny."""
        result = math.tanh(self.data)
        return Value(result, [(self, 1 - result**2)])

    def relu(self):
        """Return this number where it is positive, otherwise 0; the derivative at 0 is 0."""
        return Value(max(self.data, 0.0), [(self, float(self.data > 0))])

    def backward(self) -> None:
        """Add to the ``grad`` of each number that this one depends on the derivative with respect to it.

        This one's own ``grad`` grows by 1. Adding, and not setting, means that `backward` called twice, or on
        two results that share inputs, leaves the sum of what each call alone would have left. What earlier
        calls left in ``grad`` has no influence on what a call adds. The graph may be as deep, and have as
        many paths, as in `topological_order`.

        Notes
        -----
        ``d end / d input += d end / d node * d node / d input`` for every edge, the nodes in reverse
        topological order: when it is a node's turn, its own derivative is complete.
        """
        derivatives = {self: 1.0}
        for node in reversed(topological_order(self, lambda value: [each for each, _ in value.edges])):
            node.grad += derivatives[node]
            for each, slope in node.edges:
                derivatives[each] = derivatives.get(each, 0.0) + derivatives[node] * slope


def _value(number) -> Value:
    return number if isinstance(number, Value) else Value(number)
