"""Operations and random programs have the same values and gradients in `tensor_autodiff` and in torch."""

import numpy as np
import pytest
import torch

from techtree.techs.autodiff import tensor_autodiff as own
from techtree.techs.autodiff.tensor_autodiff import Tensor


def compare(ours, theirs, *arrays, rtol=1e-10):
    """Both take tensors; the gradient of the result is made of cosines, different for each entry."""
    a = [Tensor(x, requires_grad=True) for x in arrays]
    b = [torch.tensor(x, requires_grad=True) for x in arrays]
    got, expected = ours(*a), theirs(*b)
    assert got.shape == tuple(expected.shape)
    assert str(got.dtype) == str(expected.dtype).removeprefix("torch.")
    assert np.allclose(got.data, expected.detach().numpy(), rtol=rtol, atol=rtol)
    gradient = np.cos(np.arange(got.data.size) + 1.0).reshape(got.shape).astype(got.dtype)
    got.backward(gradient)
    expected.backward(torch.from_numpy(gradient))
    for mine, other in zip(a, b, strict=True):
        assert mine.grad.dtype == mine.dtype
        assert np.allclose(mine.grad, other.grad.numpy(), rtol=rtol, atol=rtol)


def shapes_that_broadcast(rng, n_axes):
    """Return two shapes with some axes of length 1 or missing."""
    full = rng.integers(1, 4, size=n_axes)
    pair = []
    for _ in range(2):
        shape = np.where(rng.random(n_axes) < 0.3, 1, full)
        pair.append(tuple(shape[rng.integers(0, n_axes + 1) :].tolist()))
    return pair


@pytest.mark.parametrize("seed", range(40))
def test_operators(seed):
    rng = np.random.default_rng(seed)
    left, right = shapes_that_broadcast(rng, int(rng.integers(1, 5)))
    a, b = rng.uniform(0.5, 2, size=left), rng.uniform(0.5, 2, size=right)
    for operation in (
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: x**y,
        lambda x, y: 2 - x / (3 * y) + 2**y,
    ):
        compare(operation, operation, a, b)
    mask = rng.random(size=np.broadcast_shapes(left, right)) < 0.5
    compare(lambda x, y: own.where(mask, x, y), lambda x, y: torch.where(torch.tensor(mask), x, y), a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(25))
def test_matrix_products(seed, dtype):
    rng = np.random.default_rng(seed)
    left, right = shapes_that_broadcast(rng, int(rng.integers(1, 4)))
    n, m, k = rng.integers(1, 5, size=3)
    left = [(k,), (n, k), (*left, n, k)][rng.integers(3)]
    right = [(k,), (k, m), (*right, k, m)][rng.integers(3)]
    a, b = rng.normal(size=left).astype(dtype), rng.normal(size=right).astype(dtype)
    # Sums of up to 100 products of numbers near 1: about 10 roundings.
    compare(lambda x, y: x @ y, lambda x, y: x @ y, a, b, rtol=1e-12 if dtype == np.float64 else 2e-5)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (1, -1), (0, 1, 2)])
def test_reductions(axis, keepdims):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, size=(3, 4, 2)) * 1.0  # many ties, which torch's amax shares equally as well
    compare(lambda t: t.sum(axis, keepdims), lambda t: t.sum(axis, keepdim=keepdims), x)
    compare(lambda t: t.mean(axis, keepdims), lambda t: t.mean(axis, keepdim=keepdims), x)
    compare(lambda t: t.max(axis, keepdims), lambda t: t.amax(axis, keepdim=keepdims), x)


def test_functions_of_each_entry():
    x = np.random.default_rng(0).uniform(0.1, 4, size=(3, 4))
    for name in ("exp", "log", "sqrt", "tanh"):
        compare(getattr(Tensor, name), getattr(torch, name), x)
    for power in (-2, -1, 0, 0.5, 1, 2, 3):
        compare(lambda t, p=power: t**p, lambda t, p=power: t**p, x)
    for power in (0, 1, 2, 3):
        compare(lambda t, p=power: t**p, lambda t, p=power: t**p, np.array([-1.5, 0.0, 2.0]))


@pytest.mark.parametrize("seed", range(30))
def test_selections(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 3, 5))
    choices = [
        lambda n: int(rng.integers(-n, n)),
        lambda n: slice(int(rng.integers(n)), None),
        lambda n: slice(None, None, int(rng.integers(1, 3))),
        lambda n: rng.integers(-n, n, size=(2, 3)),
        lambda n: rng.integers(0, n, size=3),
        lambda n: None,
        lambda n: ...,
    ]
    index, axis = [], 0
    while axis < 3 and rng.random() < 0.8:
        part = choices[rng.integers(len(choices) - (... in [p for p in index if p is ...]))](x.shape[axis])
        index.append(part)
        axis += part is not None and part is not ...
        if part is ...:
            break
    index = tuple(index)
    as_torch = tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in index)
    compare(lambda t: t[index], lambda t: t[as_torch], x)


@pytest.mark.parametrize("seed", range(40))
def test_einsum(seed):
    rng = np.random.default_rng(seed)
    lengths = dict(zip("abcde", rng.integers(1, 4, size=5).tolist(), strict=True))
    terms = ["".join(rng.permutation(list("abcde"))[: rng.integers(0, 4)]) for _ in range(rng.integers(1, 4))]
    letters = sorted(set("".join(terms)))
    output = "".join(rng.permutation(letters)[: rng.integers(0, len(letters) + 1)]) if letters else ""
    spec = ",".join(terms) + "->" + output
    arrays = [rng.normal(size=[lengths[letter] for letter in term]) for term in terms]
    compare(lambda *t: own.einsum(spec, *t), lambda *t: torch.einsum(spec, *t), *arrays)


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed):
    """Up to thirty operations on matrices, with results used again and again."""
    rng = np.random.default_rng(seed)
    steps = [
        (int(rng.integers(8)), *rng.integers(3 + n, size=2).tolist()) for n in range(rng.integers(1, 30))
    ]
    ids = rng.integers(4, size=4)

    def program(*inputs, where, concatenate, largest):
        nodes = list(inputs)
        for kind, i, j in steps:
            a, b = nodes[i], nodes[j]
            if kind == 0:
                c = a @ b / 4
            elif kind == 1:
                c = a * b.sum(0) - b.mean(1).reshape(4, 1)
            elif kind == 2:
                c = a[ids] + b.swapaxes(0, 1)
            elif kind == 3:
                c = where(ids > 1, a, b * 0.5)
            elif kind == 4:
                c = concatenate([a[:2], b[2:] * 2])
            elif kind == 5:
                c = (a - largest(a)).exp() / (1 + b * b)
            elif kind == 6:
                c = (a * a + 1).log() - (b * b + 1).sqrt()
            else:
                c = a.reshape(2, 8).reshape(4, 4) ** 2 + b[1]
            nodes.append(c.tanh())
        return sum(nodes[1:], nodes[0])

    compare(
        lambda *t: program(
            *t, where=own.where, concatenate=own.concatenate, largest=lambda a: a.max(1, True)
        ),
        lambda *t: program(
            *t,
            where=lambda mask, a, b: torch.where(torch.from_numpy(mask), a, b),
            concatenate=torch.cat,
            largest=lambda a: a.amax(1, keepdim=True),
        ),
        *rng.normal(size=(3, 4, 4)),
    )
