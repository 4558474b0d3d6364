"""Arrays that remember how they were computed, and gradients for all of them in one backward pass.

Claim: the scalar engine works for arrays unchanged. Only what stands on an edge is new: not a number to multiply
by, but a function that carries a gradient from the result of an operation back to one of its inputs.

Idea: every operation is a value, and for each input such a function, which is never called for a constant. Whatever
NumPy repeated by broadcasting, the backward pass sums up again, in one place for all operations.

Legend: ``g`` the gradient of the end with respect to an operation's result, same shape as the result.

Left out: gradients of gradients, changes in place (an array that entered an operation must stay as it is until the
backward pass is done), and indexing with repeated letters on one operand of `einsum`.

Paper: Baydin, Pearlmutter, Radul, Siskind (2018), https://jmlr.org/papers/v18/17-468.html
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from techtree.techs.autodiff.scalar_autodiff import topological_order

_einsum = np.einsum
_is_recording = ContextVar("_is_recording", default=True)


class Tensor:
    """An array of floating-point numbers that remembers how it was computed.

    Parameters
    ----------
    data
        An array, kept and not copied if its dtype is floating; integers and booleans become float64.
    requires_grad
        Whether `backward` shall leave a gradient here.
    """

    __array_ufunc__ = None  # makes NumPy leave `array * tensor` to the tensor

    def __init__(self, data, requires_grad: bool = False):
        data = np.asarray(data)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"a tensor holds real numbers; got dtype {data.dtype}")
        self.data = data if data.dtype.kind == "f" else data.astype(np.float64)
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None
        self.edges: tuple[tuple[Tensor, Callable], ...] = ()

    def __repr__(self) -> str:
        return f"Tensor({self.data}, requires_grad={self.requires_grad})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``data``."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes of ``data``."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        """The dtype of ``data``."""
        return self.data.dtype

    def __add__(self, other):
        a, b = self, _operand(other, self.dtype)
        return record(a.data + b.data, (a, lambda g: g), (b, lambda g: g))

    def __sub__(self, other):
        a, b = self, _operand(other, self.dtype)
        return record(a.data - b.data, (a, lambda g: g), (b, lambda g: -g))

    def __mul__(self, other):
        a, b = self, _operand(other, self.dtype)
        return record(a.data * b.data, (a, lambda g: g * b.data), (b, lambda g: g * a.data))

    def __truediv__(self, other):
        a, b = self, _operand(other, self.dtype)
        value = a.data / b.data
        return record(value, (a, lambda g: g / b.data), (b, lambda g: -g * value / b.data))

    def __pow__(self, other):
        a, b = self, _operand(other, self.dtype)
        value = a.data**b.data
        return record(
            value,
            # An exponent of 0 must not be lowered to -1: the base may be 0.
            (a, lambda g: g * b.data * a.data ** (b.data - (b.data != 0))),
            (b, lambda g: g * value * np.log(a.data)),
        )

    def __matmul__(self, other):
        a, b = self, _operand(other, self.dtype)
        if b.ndim == 1:
            column = a @ b.reshape(-1, 1)
            return column.reshape(column.shape[:-1])
        if a.ndim == 1:
            row = a.reshape(1, -1) @ b
            return row.reshape(row.shape[:-2] + row.shape[-1:])
        if a.ndim > 2 and b.ndim == 2:  # many matrices times the same one: one long matrix times it
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) @ b
            return rows.reshape(a.shape[:-1] + b.shape[-1:])
        return record(
            a.data @ b.data,
            (a, lambda g: g @ b.data.swapaxes(-1, -2)),
            (b, lambda g: a.data.swapaxes(-1, -2) @ g),
        )

    def __neg__(self):
        return record(-self.data, (self, lambda g: -g))

    def __radd__(self, other):
        return self + other

    def __rsub__(self, other):
        return _operand(other, self.dtype) - self

    def __rmul__(self, other):
        return self * other

    def __rtruediv__(self, other):
        return _operand(other, self.dtype) / self

    def __rpow__(self, other):
        return _operand(other, self.dtype) ** self

    def __rmatmul__(self, other):
        return _operand(other, self.dtype) @ self

    def exp(self):
        """Return e to the power of each entry."""
        value = np.exp(self.data)
        return record(value, (self, lambda g: g * value))

    def log(self):
        """Return the natural logarithm of each entry."""
        return record(np.log(self.data), (self, lambda g: g / self.data))

    def sqrt(self):
        """Return the square root of each entry."""
        value = np.sqrt(self.data)
        return record(value, (self, lambda g: g / (2 * value)))

    def tanh(self):
        """Return the hyperbolic tangent of each entry."""
        value = np.tanh(self.data)
        return record(value, (self, lambda g: g * (1 - value * value)))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Add up along one axis, several, or all."""
        value = self.data.sum(axis=axis, keepdims=True)
        pull_back = lambda g: np.broadcast_to(g.reshape(value.shape), self.shape)  # noqa: E731
        return record(value if keepdims else value.squeeze(axis), (self, pull_back))

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Average along one axis, several, or all."""
        total = self.sum(axis, keepdims)
        return total / (self.data.size // max(total.data.size, 1))

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Take the largest along one axis, several, or all; entries that tie share the gradient equally."""
        value = self.data.max(axis=axis, keepdims=True)

        def pull_back(g):
            ties = self.data == value
            return g.reshape(value.shape) * ties / ties.sum(axis=axis, keepdims=True)

        return record(value if keepdims else value.squeeze(axis), (self, pull_back))

    def reshape(self, *shape):
        """Return the same entries, in the same order, in another shape: ``reshape(2, -1)`` or ``reshape((2, -1))``."""
        return record(self.data.reshape(*shape), (self, lambda g: g.reshape(self.shape)))

    def transpose(self, *axes):
        """Reorder the axes, ``transpose(1, 0, 2)`` or ``transpose((1, 0, 2))``; without arguments reverse them."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = order or range(self.ndim)[::-1]
        return record(
            self.data.transpose(order), (self, lambda g: np.moveaxis(g, range(self.ndim), order))
        )

    def swapaxes(self, first: int, second: int):
        """Exchange two axes."""
        return record(self.data.swapaxes(first, second), (self, lambda g: g.swapaxes(first, second)))

    def __getitem__(self, index):
        def scatter(g):
            whole = np.zeros(self.shape, g.dtype)
            np.add.at(whole, index, g)  # whole[index] += g would count a repeated index once
            return whole

        return record(self.data[index], (self, scatter))

    def detach(self):
        """Return a constant with the same data, not copied."""
        return Tensor(self.data)

    def backward(self, gradient=None) -> None:
        """Add the gradient of this tensor to the ``grad`` of each leaf that it was computed from."""
        if not self.requires_grad:
            raise ValueError("backward needs a tensor computed from one with requires_grad=True, outside no_grad")
        if gradient is None and self.data.size != 1:
            raise ValueError(f"only a tensor of one entry has a default gradient; got shape {self.shape}")
        gradient = np.ones(self.shape) if gradient is None else np.asarray(gradient)
        if gradient.shape != self.shape:
            raise ValueError(f"the gradient must have the shape {self.shape}; got {gradient.shape}")
        gradients = {self: gradient.astype(self.dtype)}
        for node in reversed(topological_order(self, lambda tensor: [each for each, _ in tensor.edges])):
            g = gradients.pop(node)
            if not node.edges:
                node.grad = np.array(g if node.grad is None else node.grad + g)
            for each, pull_back in node.edges:
                part = _unbroadcast(pull_back(g), each)
                gradients[each] = gradients[each] + part if each in gradients else part


def record(value, *edges: tuple[Tensor, Callable[[np.ndarray], np.ndarray]]) -> Tensor:
    """Make the result of an operation, with what the backward pass needs to know about it."""
    result = Tensor(value)
    if _is_recording.get():
        result.edges = tuple((each, pull_back) for each, pull_back in edges if each.requires_grad)
        result.requires_grad = bool(result.edges)
    return result


def where(mask, a, b) -> Tensor:
    """Take each entry from ``a`` where the mask is true, from ``b`` elsewhere."""
    dtype = next((each.dtype for each in (a, b) if isinstance(each, Tensor)), np.dtype(np.float64))
    mask, a, b = np.asarray(mask, dtype=bool), _operand(a, dtype), _operand(b, dtype)
    return record(
        np.where(mask, a.data, b.data),
        (a, lambda g: np.where(mask, g, 0)),
        (b, lambda g: np.where(mask, 0, g)),
    )


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along an axis."""
    ends = np.cumsum([each.shape[axis] for each in tensors])

    def part(start, end):
        return lambda g: g.swapaxes(0, axis)[start:end].swapaxes(0, axis)

    pull_backs = [part(end - each.shape[axis], end) for each, end in zip(tensors, ends, strict=True)]
    value = np.concatenate([each.data for each in tensors], axis=axis)
    return record(value, *zip(tensors, pull_backs, strict=True))


def einsum(spec: str, *tensors: Tensor) -> Tensor:
    """Contract tensors over named axes; the spec as in `techtree.techs.ground.einsum`."""
    arrays = [each.data for each in tensors]
    left, output = spec.replace(" ", "").split("->")
    terms = left.split(",")

    def pull_back(place):
        others = [n for n in range(len(terms)) if n != place]
        known = set(output).union(*(terms[n] for n in others))
        # An axis that only this operand has was summed over: every entry along it gets the same gradient.
        alone = [n for n, name in enumerate(terms[place]) if name not in known]
        extra = "".join(terms[place][n] for n in alone)
        back = ",".join([output, *(terms[n] for n in others), extra]) + "->" + terms[place]
        ones = np.ones([tensors[place].shape[n] for n in alone], tensors[place].dtype)
        return lambda g: _einsum(back, g, *(arrays[n] for n in others), ones)

    edges = [(each, pull_back(place)) for place, each in enumerate(tensors)]
    return record(_einsum(spec, *arrays), *edges)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing in a ``with`` block, of this thread only; results are constants."""
    token = _is_recording.set(False)
    try:
        yield
    finally:
        _is_recording.reset(token)


def _operand(other, dtype: np.dtype) -> Tensor:
    """Return a constant for what is not a tensor; only an array of floats brings a dtype of its own."""
    if isinstance(other, Tensor):
        return other
    other = np.asarray(other)
    return Tensor(other if other.ndim and other.dtype.kind == "f" else other.astype(dtype))


def _unbroadcast(gradient: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Sum over the axes along which the tensor was repeated, so that the gradient takes its shape."""
    n_new = gradient.ndim - tensor.ndim
    axes = [n for n, size in enumerate(gradient.shape) if n < n_new or size != tensor.shape[n - n_new]]
    return gradient.sum(axis=tuple(axes)).reshape(tensor.shape).astype(tensor.dtype, copy=False)
