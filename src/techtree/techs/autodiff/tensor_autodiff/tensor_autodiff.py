"""Arrays that remember how they were computed, and gradients for all of them in one backward pass.

Claim: the scalar engine works for arrays unchanged. Only what stands on an edge is new: not a number to
multiply by, but a function that carries a gradient from the result of an operation back to one input.

Idea: every operation is a value and, for each input, such a function; for a constant it is never called. What
NumPy repeated by broadcasting, the backward pass adds up again, in one place for all operations.

Legend: ``g`` the gradient of the end with respect to the result of an operation, of the result's shape.

Left out: gradients of gradients; changes in place. An array that entered an operation, as data, index or
mask, must stay as it is until the backward pass is done.

Paper: Baydin, Pearlmutter, Radul, Siskind (2018), https://jmlr.org/papers/v18/17-468.html
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from techtree.techs.autodiff.scalar_autodiff import topological_order
from techtree.techs.ground.einsum import einsum as contract

_is_recording = ContextVar("_is_recording", default=True)


class Tensor:
    """An array of floating-point numbers that remembers how it was computed.

    ``+ - * / ** @`` take a tensor on one side, and a tensor, array or number on the other. They
    broadcast, and treat axes, as NumPy does: ``@`` takes stacks of matrices and operands with one axis.
    Arrays and numbers are constants. Numbers (also as arrays without axes), and arrays of integers or
    booleans, take the dtype of the tensor, so that float32 stays float32; otherwise dtypes mix as in NumPy.
    Every operation gives a new tensor, also ``x + 0`` and ``x += y``, and leaves its operands as they are.
    Its data may share memory with theirs, and its ``requires_grad`` is true if that of an operand is. The
    methods take the arguments of NumPy's of the same name: an axis may be negative, ``axis=()`` is none.
    Shapes that do not fit, and axes that do not exist or occur twice, are a ``ValueError``. Results and
    gradients are right up to rounding, for float64 entries from 1e-100 to 1e100 in size, and 0, wherever
    they are defined.

    Parameters
    ----------
    data
        An array or nested list. A floating dtype is kept, and an array of one is not copied; integers and
        booleans become float64; ``TypeError`` for entries of any other kind.
    requires_grad
        Whether `backward` shall leave a gradient here.

    Attributes
    ----------
    data
        The NumPy array.
    grad
        None, or an array of the shape and dtype of ``data``, left by `backward`.
    requires_grad
        True where it was asked for, and in all that was computed from there.
    shape, ndim, dtype
        Of the data.

    Notes
    -----
    Gradients of ``a ** b``: ``b * a**(b - 1)`` and ``a**b * log(a)``, the first being 0 where b is 0,
    also for a = 0. The second is not evaluated for a constant b, so that a may be negative then.

    Examples
    --------
    >>> w, b = Tensor([[1.0], [2.0]], requires_grad=True), Tensor([0.5], requires_grad=True)
    >>> loss = ((np.array([[1.0, 3.0], [2.0, 4.0]]) @ w + b) ** 2).sum()
    >>> loss.backward()  # the errors are 7.5 and 10.5
    >>> float(loss.data), w.grad.tolist(), b.grad.tolist()
    (166.5, [[57.0], [129.0]], [36.0])
    """

    __array_ufunc__ = None  # makes NumPy leave `array + tensor` to the tensor

    def __init__(self, data, requires_grad: bool = False):
        data = np.asarray(data)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"a tensor holds real numbers; got dtype {data.dtype}")
        self.data = data if data.dtype.kind == "f" else data.astype(np.float64)
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None
        self.edges: tuple[tuple[Tensor, Callable], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        """The type of the entries."""
        return self.data.dtype

    def __repr__(self) -> str:
        return f"Tensor({self.data}, requires_grad={self.requires_grad})"

    def __add__(self, other):
        a, b = _tensors(self, other)
        return record(a.data + b.data, (a, lambda g: g), (b, lambda g: g))

    def __sub__(self, other):
        a, b = _tensors(self, other)
        return record(a.data - b.data, (a, lambda g: g), (b, lambda g: -g))

    def __mul__(self, other):
        a, b = _tensors(self, other)
        return record(a.data * b.data, (a, lambda g: g * b.data), (b, lambda g: g * a.data))

    def __truediv__(self, other):
        a, b = _tensors(self, other)
        value = a.data / b.data
        return record(value, (a, lambda g: g / b.data), (b, lambda g: -g * value / b.data))

    def __pow__(self, other):
        a, b = _tensors(self, other)
        power = other if type(other) in (int, float) else b.data  # NumPy is fast for plain numbers only
        value = a.data**power
        lowered = power - (power != 0)  # 0 stays 0: -1 would divide by a base of 0
        return record(
            value,
            (a, lambda g: g * power * a.data**lowered),
            (b, lambda g: g * value * np.log(a.data)),
        )

    def __matmul__(self, other):
        a, b = _tensors(self, other)
        if b.ndim == 1:
            column = a @ b.reshape(-1, 1)
            return column.reshape(column.shape[:-1])
        if a.ndim == 1:
            row = a.reshape(1, -1) @ b
            return row.reshape(row.shape[:-2] + row.shape[-1:])
        if a.ndim > 2 and b.ndim == 2:  # a stack of matrices times one: put end to end they are one matrix
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
        return _tensors(other, self)[0] + self

    def __rsub__(self, other):
        return _tensors(other, self)[0] - self

    def __rmul__(self, other):
        return _tensors(other, self)[0] * self

    def __rtruediv__(self, other):
        return _tensors(other, self)[0] / self

    def __rpow__(self, other):
        return _tensors(other, self)[0] ** self

    def __rmatmul__(self, other):
        return _tensors(other, self)[0] @ self

    def exp(self):
        """Return e to the power of each entry, up to the largest that a float can hold."""
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
        """Return the hyperbolic tangent of each entry, of any size."""
        value = np.tanh(self.data)
        return record(value, (self, lambda g: g * (1 - value * value)))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Add up along an axis, several, or all (None); ``keepdims`` leaves them with length 1."""
        value = self.data.sum(axis=axis, keepdims=True)
        return record(
            value if keepdims else value.squeeze(axis),
            (self, lambda g: np.broadcast_to(g.reshape(value.shape), self.shape)),
        )

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Average along an axis, several, or all (None)."""
        total = self.sum(axis, keepdims)
        return total / (self.data.size // max(total.data.size, 1))

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False):
        """Return the largest along an axis, several, or all (None); a tie shares the gradient equally."""
        value = self.data.max(axis=axis, keepdims=True)

        def pull_back(g):
            is_largest = self.data == value
            return g.reshape(value.shape) * is_largest / is_largest.sum(axis=axis, keepdims=True)

        return record(value if keepdims else value.squeeze(axis), (self, pull_back))

    def reshape(self, *shape):
        """Return the same entries in another shape: ``reshape(2, -1)`` or ``reshape((2, -1))``."""
        return record(self.data.reshape(*shape), (self, lambda g: g.reshape(self.shape)))

    def transpose(self, *axes):
        """Reorder the axes: ``transpose(1, 0, 2)`` or ``transpose((1, 0, 2))``; without arguments reverse."""
        order = axes[0] if len(axes) == 1 and np.ndim(axes[0]) else axes or range(self.ndim)[::-1]
        back = (self, lambda g: np.moveaxis(g, range(self.ndim), order))
        return record(self.data.transpose(order), back)

    def swapaxes(self, first: int, second: int):
        """Exchange two axes."""
        return record(self.data.swapaxes(first, second), (self, lambda g: g.swapaxes(first, second)))

    def __getitem__(self, index):
        """Select as NumPy does, errors included; an entry that is selected twice receives both gradients."""
        value = self.data[index]

        def pull_back(g):
            whole = np.zeros(self.shape, g.dtype)
            if np.may_share_memory(value, self.data):  # a slice has each entry once
                whole[index] = g
            else:
                np.add.at(whole, index, g)
            return whole

        return record(value, (self, pull_back))

    def detach(self):
        """Return a constant with the same data, not copied."""
        return Tensor(self.data)

    def backward(self, gradient: np.ndarray | None = None) -> None:
        """Add to ``grad`` of the tensors that this one was computed from the gradient with respect to them.

        Only tensors that were made with ``requires_grad=True`` receive one, also where it is 0; that of a
        result is dropped as soon as it has been passed on, and its ``grad`` stays None. The first gradient to
        arrive is set, later ones, of this call or the next, are added. Calling `backward` again adds the same
        again.

        Parameters
        ----------
        gradient
            Of the end with respect to this tensor: an array, nested list or number of its shape and of any
            dtype, not changed. 1 if it is left out, for a tensor of one entry.

        Raises
        ------
        ValueError
            When ``requires_grad`` is false, the shape of the gradient is another, or it is left out for a
            tensor of more or fewer entries than one.

        Notes
        -----
        Each ``grad`` is a writable array of its own: it shares no memory with another, with ``gradient`` or
        with any data. Chains of twenty thousand operations are fine, and so are graphs with an astronomical
        number of paths.
        """
        if not self.requires_grad:
            raise ValueError("backward needs a tensor with requires_grad, computed outside of no_grad")
        if gradient is None and self.data.size != 1:
            raise ValueError(f"a tensor of shape {self.shape} needs a gradient; only one entry has a default")
        if gradient is not None and np.shape(gradient) != self.shape:
            raise ValueError(f"the gradient must have the shape {self.shape}; got {np.shape(gradient)}")
        gradients = {self: np.asarray(np.ones(self.shape) if gradient is None else gradient, self.dtype)}
        for node in reversed(topological_order(self, lambda tensor: [each for each, _ in tensor.edges])):
            g = np.asarray(gradients.pop(node))
            if not node.edges:
                node.grad = np.array(g) if node.grad is None else np.asarray(node.grad + g)
            for each, pull_back in node.edges:
                part = _unbroadcast(pull_back(g), each)
                gradients[each] = gradients[each] + part if each in gradients else part


def record(value: np.ndarray, *edges: tuple[Tensor, Callable[[np.ndarray], np.ndarray]]) -> Tensor:
    """Make the result of an operation: the way in which every operation above is written, and new ones are.

    Parameters
    ----------
    value
        The result.
    edges
        A pair for each input: the tensor, and a function. It takes the gradient ``g`` with respect to the
        result, an array of the result's shape and dtype, which it must not change. It returns the gradient
        with respect to the input, an array or nested list of any dtype, in the input's shape or in one that
        this broadcasts to; what was repeated is then summed, and what was returned stays as it is. The same
        input may come twice.

    Returns
    -------
    Tensor
        Needs a gradient if an input does and nothing forbids it (`no_grad`); otherwise a constant that
        remembers nothing. The functions are called only by `backward`, once each, when ``g`` is complete, and
        only for inputs that need it.

    Examples
    --------
    >>> x = Tensor([0.0, 1.0], requires_grad=True)
    >>> y = record(np.sin(x.data), (x, lambda g: g * np.cos(x.data)))
    >>> y.backward(np.array([1.0, 0.0]))
    >>> x.grad.tolist()
    [1.0, 0.0]
    """
    result = Tensor(value)
    if _is_recording.get():
        result.edges = tuple((each, pull_back) for each, pull_back in edges if each.requires_grad)
        result.requires_grad = bool(result.edges)
    return result


def where(mask: np.ndarray, a, b) -> Tensor:
    """Take each entry from ``a`` where the mask is true, from ``b`` elsewhere; all three broadcast.

    Parameters
    ----------
    mask
        An array of booleans, a constant.
    a, b
        Tensors, arrays or numbers; their dtypes mix as in the operators of `Tensor`. An entry that is not
        taken gets the gradient 0, also if it is infinite or NaN.
    """
    a, b = _tensors(a, b)
    return record(
        np.where(mask, a.data, b.data),
        (a, lambda g: np.where(mask, g, 0)),
        (b, lambda g: np.where(mask, 0, g)),
    )


def concatenate(tensors: Sequence, axis: int = 0) -> Tensor:
    """Join tensors, or arrays as constants, along an axis that they have; dtypes mix as in `Tensor`."""
    tensors = _tensors(*tensors)
    value = np.concatenate([each.data for each in tensors], axis=axis)
    ends = np.cumsum([each.shape[axis] for each in tensors])

    def cut(start, end):
        return lambda g: g.swapaxes(0, axis)[start:end].swapaxes(0, axis)

    return record(
        value, *((each, cut(end - each.shape[axis], end)) for each, end in zip(tensors, ends, strict=True))
    )


def einsum(spec: str, *operands) -> Tensor:
    """Contract tensors, or arrays as constants, along named axes.

    Parameters
    ----------
    spec
        As in `techtree.techs.ground.einsum`, with ``->``, and no letter twice in a term.
    operands
        One for each term; their dtypes mix as in the operators of `Tensor`.

    Raises
    ------
    ValueError
        When a term has a letter twice, ``->`` is missing, or as in `techtree.techs.ground.einsum`.
    """
    tensors = _tensors(*operands)
    inputs, arrow, output = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or any(len(set(term)) < len(term) for term in terms):
        raise ValueError(f"the spec must have -> and no letter twice in a term; got {spec!r}")
    value = contract(spec, *(each.data for each in tensors))

    def pull_back(n):
        others = [m for m in range(len(tensors)) if m != n]
        names = ",".join([output, *(terms[m] for m in others)])
        shared = "".join(letter for letter in terms[n] if letter in names)
        summed = tuple(axis for axis, letter in enumerate(terms[n]) if letter not in names)

        def exchanged(g):  # the result's term and the operand's change places
            part = contract(f"{names}->{shared}", g, *(tensors[m].data for m in others))
            return np.broadcast_to(np.expand_dims(part, summed), tensors[n].shape)

        return exchanged

    return record(value, *((each, pull_back(n)) for n, each in enumerate(tensors)))


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside a ``with`` block: results are constants, which keep nothing alive but their data.

    Blocks may be nested, and end as usual when an error leaves them. Other threads are not affected.
    """
    token = _is_recording.set(False)
    try:
        yield
    finally:
        _is_recording.reset(token)


def _tensors(*operands) -> list[Tensor]:
    """Make constants of what is not a tensor: of the first tensor's dtype, except for arrays of floats."""
    dtype = next((each.dtype for each in operands if isinstance(each, Tensor)), np.dtype(np.float64))

    def constant(x):
        x = np.asarray(x)
        return Tensor(x if x.ndim and x.dtype.kind == "f" else x.astype(dtype))

    return [each if isinstance(each, Tensor) else constant(each) for each in operands]


def _unbroadcast(gradient: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Sum over the axes along which the tensor was repeated, so that the gradient takes its shape."""
    gradient = np.asarray(gradient, dtype=tensor.dtype)
    if gradient.shape == tensor.shape:
        return gradient
    n_new = gradient.ndim - tensor.ndim
    axes = [n for n, size in enumerate(gradient.shape) if n < n_new or size != tensor.shape[n - n_new]]
    return gradient.sum(axis=tuple(axes), keepdims=True).reshape(tensor.shape)
