"""torch behind the names of `tensor_autodiff`: every gradient comes from `torch.autograd`."""

import functools

import numpy as np
import torch

__all__ = ["Tensor", "concatenate", "einsum", "no_grad", "record", "where"]

no_grad = torch.no_grad


def _numpy_errors(function):
    """Torch raises RuntimeError and IndexError where NumPy raises ValueError."""

    @functools.wraps(function)
    def calling(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (RuntimeError, IndexError) as error:
            raise ValueError(str(error)) from None

    return calling


class Tensor:
    """A torch tensor that speaks NumPy."""

    __array_ufunc__ = None

    def __init__(self, data, requires_grad=False):
        data = np.asarray(data)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"a tensor holds real numbers; got dtype {data.dtype}")
        data = data if data.dtype.kind == "f" else data.astype(np.float64)
        # Torch does not have strides below 0: it gets a copy, and the array is handed out as it came.
        self.reversed = data if any(stride < 0 for stride in data.strides) else None
        self.torch = torch.from_numpy(data if self.reversed is None else data.copy())
        self.torch.requires_grad_(requires_grad)

    @classmethod
    def of(cls, tensor):
        self = cls.__new__(cls)
        self.torch, self.reversed = tensor, None
        return self

    @property
    def data(self):
        return self.torch.detach().numpy() if self.reversed is None else self.reversed

    @data.setter
    def data(self, array):
        self.torch.data, self.reversed = torch.from_numpy(array), None

    @property
    def grad(self):
        return None if not self.torch.is_leaf or self.torch.grad is None else self.torch.grad.numpy()

    @grad.setter
    def grad(self, array):
        self.torch.grad = None if array is None else torch.from_numpy(array)

    @property
    def requires_grad(self):
        return self.torch.requires_grad

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)

    def reshape(self, *shape):
        shape = shape if len(shape) != 1 or np.ndim(shape[0]) == 0 else tuple(shape[0])
        return _of(torch.reshape, self, shape)

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and np.ndim(axes[0]) else axes or range(self.ndim)[::-1]
        return _of(torch.permute, self, tuple(axes))

    def swapaxes(self, first, second):
        return _of(torch.swapaxes, self, first, second)

    def __getitem__(self, index):
        # Torch has no steps below 0: select by the number of each entry.
        places = np.asarray(np.arange(self.data.size).reshape(self.shape)[index])
        chosen = self.torch.reshape(-1)[torch.from_numpy(places.reshape(-1))]
        return Tensor.of(chosen.reshape(places.shape))

    def detach(self):
        return Tensor.of(self.torch.detach())

    @_numpy_errors
    def backward(self, gradient=None):
        if gradient is not None:
            if np.shape(gradient) != self.shape:
                raise ValueError("the gradient must have the shape of the tensor")
            gradient = torch.tensor(np.asarray(gradient), dtype=self.torch.dtype)
        self.torch.backward(gradient, retain_graph=True)


def _tensors(*operands):
    dtype = next((each.dtype for each in operands if isinstance(each, Tensor)), np.dtype(np.float64))
    arrays = [each if isinstance(each, Tensor) else np.asarray(each) for each in operands]
    return [
        each if isinstance(each, Tensor) or (each.ndim and each.dtype.kind == "f") else each.astype(dtype)
        for each in arrays
    ]


@_numpy_errors
def _of(function, *operands, **options):
    """Call a torch function on what is inside of the tensors."""
    inner = [each.torch if isinstance(each, Tensor) else each for each in operands]
    return Tensor.of(function(*inner, **options))


def _mixed(*operands):
    """Return tensors of one dtype, as NumPy would mix them; torch's `@` and `einsum` do not."""
    tensors = [each if isinstance(each, Tensor) else Tensor(each) for each in _tensors(*operands)]
    dtype = functools.reduce(torch.promote_types, [each.torch.dtype for each in tensors])
    return [Tensor.of(each.torch.to(dtype)) for each in tensors]


def _binary(function):
    return (
        lambda self, other: _of(function, *_mixed(self, other)),
        lambda self, other: _of(function, *_mixed(other, self)),
    )


def _reduction(function):
    def reduce(self, axis=None, keepdims=False):
        axis = tuple(range(self.ndim)) if axis is None else axis
        if axis == () or self.ndim == 0:  # torch takes no axes for all axes
            return _of(torch.mul, self, 1)
        return _of(function, self, dim=axis, keepdim=keepdims)

    return reduce


for name, function in [
    ("add", torch.add),
    ("sub", torch.sub),
    ("mul", torch.mul),
    ("truediv", torch.div),
    ("pow", torch.pow),
    ("matmul", torch.matmul),
]:
    plain, reflected = _binary(function)
    setattr(Tensor, f"__{name}__", plain)
    setattr(Tensor, f"__r{name}__", reflected)
for name in ("exp", "log", "sqrt", "tanh"):
    setattr(Tensor, name, functools.partialmethod(lambda self, f: _of(f, self), getattr(torch, name)))
Tensor.__neg__ = lambda self: _of(torch.neg, self)
Tensor.sum, Tensor.mean, Tensor.max = map(_reduction, (torch.sum, torch.mean, torch.amax))


def where(mask, a, b):
    return _of(torch.where, torch.from_numpy(np.array(mask, dtype=bool)), *_mixed(a, b))


def concatenate(tensors, axis=0):
    return Tensor.of(_numpy_errors(torch.cat)([each.torch for each in _mixed(*tensors)], axis))


def einsum(spec, *operands):
    inputs, arrow, _ = spec.replace(" ", "").partition("->")
    if not arrow or any(len(set(term)) < len(term) for term in inputs.split(",")):
        raise ValueError("the spec must have -> and no letter twice in a term")
    shapes = [each.shape if isinstance(each, Tensor) else np.shape(each) for each in operands]
    lengths = {
        pair
        for term, shape in zip(inputs.split(","), shapes, strict=True)
        for pair in zip(term, shape, strict=True)
    }
    if len(lengths) > len(dict(lengths)):  # which torch would stretch
        raise ValueError("axes of one letter must be equally long")
    return _of(torch.einsum, spec, *_mixed(*operands))


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, pull_backs, *inputs):
        ctx.pull_backs, ctx.shapes = pull_backs, [(each.shape, each.dtype) for each in inputs]
        value = np.asarray(value)
        return torch.tensor(value if value.dtype.kind == "f" else value.astype(np.float64))

    @staticmethod
    def backward(ctx, g):
        gradients = [None, None]
        needed = ctx.needs_input_grad[2:]
        for needs, pull_back, (shape, dtype) in zip(needed, ctx.pull_backs, ctx.shapes, strict=True):
            part = torch.tensor(np.asarray(pull_back(g.numpy()))).to(dtype) if needs else None
            gradients.append(part.sum_to_size(shape) if needs else None)
        return tuple(gradients)


def record(value, *edges):
    return Tensor.of(_Recorded.apply(value, [pull for _, pull in edges], *(each.torch for each, _ in edges)))
