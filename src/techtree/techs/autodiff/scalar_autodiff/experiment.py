"""What do derivatives cost? Multiplications: of the engine, of differences, of a walk along every path."""

import math

import numpy as np

from techtree.techs.autodiff.scalar_autodiff import Value
from techtree.techs.ground.gradcheck import numerical_gradient


class Counted(float):
    """A slope that counts how often something is multiplied by it."""

    n_multiplications = 0

    def __mul__(self, other):
        Counted.n_multiplications += 1
        return float(self) * other

    __rmul__ = __mul__


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count multiplications for a product of n numbers, and for a deep network with short cuts.

    Parameters
    ----------
    rng
        Draws the numbers.
    scale
        The share of the largest number of inputs, in (0, 1].

    Returns
    -------
    dict
        Lists, ready for JSON.
    """
    sizes = np.unique(np.geomspace(2, max(32, 1000 * scale), 16).round().astype(int)).tolist()
    products = [_product(rng.uniform(0.9, 1.1, size=n)) for n in sizes]
    depths = list(range(1, 15))
    return {
        "sizes": sizes,
        "forward": [n - 1 for n in sizes],
        **{key: [product[key] for product in products] for key in products[0]},
        "depths": depths,
        "in_order": [_network(depth, Value.backward) for depth in depths],
        "path_by_path": [_network(depth, _walk) for depth in depths],
    }


def _product(x: np.ndarray) -> dict:
    """Differentiate the product of all entries: its derivative by x_i is the product of the others."""
    inputs = [Value(each) for each in x.tolist()]
    end = inputs[0]
    for each in inputs[1:]:
        end = _times(end, each)
    Counted.n_multiplications = 0
    end.backward()
    counts = {"backward": Counted.n_multiplications, "differences": 0}

    def counting(v):
        counts["differences"] += len(v) - 1
        return math.prod(v.tolist())

    measured = numerical_gradient(counting, x)
    exact = [math.prod(x[:i].tolist()) * math.prod(x[i + 1 :].tolist()) for i in range(len(x))]
    got = [each.grad for each in inputs]
    return {
        **counts,
        "backward_error": float(np.max(np.abs(np.divide(got, exact) - 1))),
        "differences_error": float(np.max(np.abs(np.divide(measured, exact) - 1))),
    }


def _times(a: Value, b: Value) -> Value:
    return Value(a.data * b.data, [(a, Counted(b.data)), (b, Counted(a.data))])


def _network(depth: int, backward) -> int:
    """Count the multiplications for layers of the form x + w x, where x has two ways to the end of each."""
    x, weight = Value(1.0), Value(0.1)
    end = x
    for _ in range(depth):
        inner = _times(end, weight)
        end = Value(end.data + inner.data, [(end, Counted(1.0)), (inner, Counted(1.0))])
    Counted.n_multiplications = 0
    backward(end)
    assert math.isclose(x.grad, 1.1**depth)
    assert math.isclose(weight.grad, depth * 1.1 ** (depth - 1))
    return Counted.n_multiplications


def _walk(node: Value, derivative: float = 1.0) -> None:
    """Follow every path from the end, one after the other."""
    node.grad += derivative
    for each, slope in node.edges:
        _walk(each, derivative * slope)


def plot(numbers: dict):
    """Draw both counts."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.loglog(numbers["sizes"], numbers["differences"], color="C1", label="central differences")
    left.loglog(numbers["sizes"], numbers["backward"], color="C0", label="one backward pass")
    left.loglog(numbers["sizes"], numbers["forward"], color="C7", label="the product itself")
    left.set(xlabel="factors n", ylabel="multiplications")
    left.legend(loc="upper left")
    right.semilogy(numbers["depths"], numbers["path_by_path"], color="C1", label="path by path")
    right.semilogy(numbers["depths"], numbers["in_order"], color="C0", label="in topological order")
    right.set(xlabel="layers", ylabel="multiplications")
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: 2 (n - 1) against 2 n (n - 1); 4 for each layer against 4 (2**layers - 1); the errors."""
    for n, backward, differences in zip(
        numbers["sizes"], numbers["backward"], numbers["differences"], strict=True
    ):
        assert backward == 2 * (n - 1)
        assert differences == 2 * n * (n - 1)
    assert max(numbers["backward_error"]) < 1e-12
    assert 1e-11 < max(numbers["differences_error"]) < 1e-6
    for depth, in_order, path_by_path in zip(
        numbers["depths"], numbers["in_order"], numbers["path_by_path"], strict=True
    ):
        assert in_order == 4 * depth
        assert path_by_path == 4 * (2**depth - 1)
