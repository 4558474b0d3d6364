"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.training.sgd import Optimizer

MISTAKES = {
    "orthogonalize does not divide by the norm, so that large matrices explode": [
        ("for size in (_largest, _frobenius):", "for size in ():")
    ],
    "orthogonalize divides by the largest entry alone": [("(_largest, _frobenius)", "(_largest,)")],
    "orthogonalize squares the entries as they are, and overflows or vanishes beyond 1e154": [
        ("(_largest, _frobenius)", "(_frobenius,)")
    ],
    "orthogonalize divides a stack by the norm of all its matrices together": [
        ("np.sqrt((x * x).sum(axis=(-1, -2), keepdims=True))", "np.sqrt((x * x).sum(keepdims=True))")
    ],
    "orthogonalize gives NaN for a matrix of zeros": [("np.where(norm > 0, norm, 1)", "norm")],
    "orthogonalize takes one iteration too few": [("range(n_iterations)", "range(n_iterations - 1)")],
    "orthogonalize ignores the number of iterations": [("range(n_iterations)", "range(5)")],
    "orthogonalize ignores the coefficients": [
        ("a, b, c = coefficients", "a, b, c = 3.4445, -4.7750, 2.0315")
    ],
    "orthogonalize leaves out the fifth power": [("c * (square @ square)", "0 * c * (square @ square)")],
    "orthogonalize exchanges the coefficients of the third and the fifth power": [
        ("a, b, c = coefficients", "a, c, b = coefficients")
    ],
    "orthogonalize squares entry by entry": [
        (
            "square = x @ x.swapaxes(-1, -2)",
            "square = np.eye(x.shape[-2], dtype=x.dtype) * (x @ x.swapaxes(-1, -2))",
        )
    ],
    "orthogonalize returns the transpose of a tall matrix": [
        ("return (x.swapaxes(-1, -2) if is_tall else x)", "return x")
    ],
    "orthogonalize returns float64 for float32": [(".astype(matrix.dtype)", ".astype(np.float64)")],
    "orthogonalize works in float16 when it is given float16": [
        ("np.float32 if matrix.dtype == np.float16 else matrix.dtype", "matrix.dtype")
    ],
    "orthogonalize accepts integers": [
        ('if matrix.dtype.kind != "f":', "if False:"),
        ("x = matrix.astype(np.float32", "x = matrix.astype(float).astype(np.float32"),
    ],
    "orthogonalize accepts a vector, as one row": [
        ("if matrix.ndim < 2:", "matrix = np.atleast_2d(matrix)\n    if matrix.ndim < 2:")
    ],
    "orthogonalize accepts a negative number of iterations": [("if n_iterations < 0:", "if False:")],
    "Muon does not look ahead (no Nesterov)": [
        ("        ahead = momentum * average + (1 - momentum) * gradient", "        ahead = average")
    ],
    "Muon orthogonalizes the gradient, without momentum": [
        ("        ahead = momentum * average + (1 - momentum) * gradient", "        ahead = gradient")
    ],
    "Muon remembers the orthogonalized direction in place of the average": [
        (
            "average += (1 - momentum) * (gradient - average)",
            "average += (1 - momentum) * (orthogonalize(gradient) - average)",
        )
    ],
    "Muon adds gradients up without the share 1 - momentum, so that the average has another size": [
        (
            "average += (1 - momentum) * (gradient - average)",
            "average *= momentum\n        average += gradient",
        )
    ],
    "Muon does not scale by the shape": [("math.sqrt(max(1.0, rows / max(columns, 1)))", "1.0")],
    "Muon makes wide matrices move less": [("max(1.0, rows / max(columns, 1))", "rows / max(columns, 1)")],
    "Muon scales by the shape turned around": [
        ("rows, columns = weights.shape[-2:]", "columns, rows = weights.shape[-2:]")
    ],
    "Muon scales without the root": [
        ("scale = math.sqrt(max(1.0, rows / max(columns, 1)))", "scale = max(1.0, rows / max(columns, 1))")
    ],
    "Muon takes rows and columns of a stack from its first two axes": [
        ("weights.shape[-2:]", "weights.shape[:2]")
    ],
    "Muon decays after the step": [
        ('        weights *= 1 - lr * options["weight_decay"]\n', ""),
        (
            'orthogonalize(ahead, int(options["n_iterations"]))',
            'orthogonalize(ahead, int(options["n_iterations"]))\n'
            '        weights *= 1 - lr * options["weight_decay"]',
        ),
    ],
    "Muon adds the decay to the gradient, where it is orthogonalized away": [
        ('        weights *= 1 - lr * options["weight_decay"]\n', ""),
        (
            "        ahead = momentum * average",
            "        ahead = options['weight_decay'] * weights + momentum * average",
        ),
    ],
    "Muon's decay does not depend on the rate": [
        ('1 - lr * options["weight_decay"]', '1 - options["weight_decay"]')
    ],
    "Muon ignores its number of iterations": [
        ('orthogonalize(ahead, int(options["n_iterations"]))', "orthogonalize(ahead)")
    ],
    "Muon accepts vectors": [
        ("if weights.ndim < 2:", "if False:"),
        ("np.zeros_like(weights)", "np.zeros_like(np.atleast_2d(weights))"),
        (
            "average, momentum, lr = state",
            "weights, gradient = np.atleast_2d(weights), np.atleast_2d(gradient)\n"
            "        average, momentum, lr = state",
        ),
    ],
    "Muon replaces the array of the weights": [
        ("weights -= (lr * scale)", "weights = weights - (lr * scale)"),
    ],
    "Muon's momentum is .9 if it is not given": [("momentum: float = 0.95", "momentum: float = 0.9")],
    "Muon checks no limits": [("    limits: ClassVar", "    other_limits: ClassVar")],
    "split_parameters gives everything with two axes to Muon, embeddings too": [
        ('parameter.ndim >= 2 and not set(others).intersection(name.split("."))', "parameter.ndim >= 2")
    ],
    "split_parameters looks for the names anywhere in a word, so that heads of attention are left out": [
        ('not set(others).intersection(name.split("."))', "not any(each in name for each in others)")
    ],
    "split_parameters looks at the first word only": [('name.split("."))', 'name.split(".")[:1])')],
    "split_parameters takes two axes exactly": [("parameter.ndim >= 2", "parameter.ndim == 2")],
    "split_parameters gives vectors to Muon": [("parameter.ndim >= 2", "parameter.ndim >= 1")],
    "split_parameters drops what is left to AdamW unless it is a vector": [
        (
            "(matrices if is_hidden else rest).append(parameter)",
            "(matrices if is_hidden else rest if parameter.ndim < 2 else []).append(parameter)",
        )
    ],
    "split_parameters leaves out the names that it is given and looks for its own": [
        (
            "set(others).intersection",
            "{'embedding', 'token_embedding', 'position_embedding', 'head'}.intersection",
        )
    ],
}


def _by_decomposition(matrix, n_iterations=5, coefficients=(3.4445, -4.7750, 2.0315)):
    """The eigenvalues of X X^T by Jacobi rotations would do too; here the polynomial's powers are nested."""
    matrix = np.asarray(matrix)
    if matrix.dtype.kind != "f":
        raise TypeError("floating numbers only")
    if matrix.ndim < 2 or n_iterations < 0:
        raise ValueError("two axes or more, and no negative number of iterations")
    x = matrix.astype(np.float64)
    for place in np.ndindex(x.shape[:-2]):
        x[place] = _one(x[place], n_iterations, coefficients)
    return x.astype(matrix.dtype)


def _one(x, n_iterations, coefficients):
    largest = np.abs(x).max(initial=0.0)
    if largest == 0:
        return x
    x = x / largest
    x = x / math.sqrt(np.vdot(x, x))
    a, b, c = coefficients
    for _ in range(n_iterations):
        right = x.T @ x  # the other square: as good, if not as cheap
        x = x @ (a * np.eye(len(right)) + right @ (b * np.eye(len(right)) + c * right))
    return x


LIMITS = {
    "lr": (0, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "n_iterations": (0, math.inf),
}


class _PlainMuon(Optimizer):
    """Nesterov with buffers of the classical form: the sum is 1 / (1 - momentum) times the average."""

    limits: ClassVar = Optimizer.limits | dict.fromkeys(("lr", "weight_decay", "n_iterations"), (0, math.inf))
    limits["momentum"] = (0, 1)

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.0, n_iterations=5):
        super().__init__(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, n_iterations=n_iterations
        )

    def start(self, weights):
        if np.ndim(weights) < 2:
            raise ValueError("matrices only")
        return {"momentum": 0 * weights}

    def update(self, weights, gradient, state, options):
        keep = options["momentum"]
        state["momentum"] = np.array(keep * state["momentum"] + (1 - keep) * gradient, weights.dtype)
        direction = _by_decomposition(
            gradient + keep * (state["momentum"] - gradient), options["n_iterations"]
        )
        shrunk = weights - options["lr"] * options["weight_decay"] * weights
        longer = max(weights.shape[-2] / max(weights.shape[-1], 1), 1) ** 0.5
        weights[...] = shrunk - options["lr"] * longer * direction


def _split_in_two_passes(model, others=("embedding", "token_embedding", "position_embedding", "head")):
    named = list(model.named_parameters())
    rest = [p for name, p in named if len(p.shape) < 2 or any(f".{each}." in f".{name}." for each in others)]
    known = {id(p) for p in rest}
    return [p for _, p in named if id(p) not in known], rest


EQUIVALENTS = {
    "orthogonalize matrix by matrix in float64, with the other square": {"orthogonalize": _by_decomposition},
    "orthogonalize never transposes": [("is_tall = x.shape[-2] > x.shape[-1]", "is_tall = False")],
    "the powers are summed one by one": [
        (
            "x = a * x + (b * square + c * (square @ square)) @ x",
            "x = a * x + b * (square @ x) + c * (square @ (square @ x))",
        )
    ],
    "Muon in other words": {"Muon": _PlainMuon},
    "split_parameters in two passes": {"split_parameters": _split_in_two_passes},
}


_TALL = "is_tall = x.shape[-2] > x.shape[-1] => is_tall = x.shape["
HARMLESS = {
    **{
        f"{_TALL}{rest}": "which square is taken decides the cost, not the result"
        for rest in ("-2] >= x.shape[-1]", "-2] <= x.shape[-1]", "-1] > x.shape[-1]", "-2] > x.shape[-2]")
    },
    f"{_TALL}-2] > x.shape[-0]": "which square is taken decides the cost, not the result",
    "return np.abs(x).max(axis=(-1, -2), keepdims=True, initial=0) => "
    "return np.abs(x).max(axis=(-1, -2), keepdims=True, initial=-1)": "only a matrix without entries has it",
    "x = x / np.where(norm > 0, norm, 1) => x = x / np.where(norm > 0, norm, 2)": "it divides zeros only",
    "if matrix.ndim < 2: => if False:": "NumPy's error for a missing axis is a ValueError, too",
    "if matrix.ndim < 2: => if matrix.ndim < 1:": "NumPy's error for a missing axis is a ValueError, too",
    "raise ValueError(f'a matrix has two axes or more; got the shape {matrix.shape}') => pass": "as above",
}
"""Mutants that are right versions."""


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    matrix = rng.normal(size=(3, 4))
    gradients = rng.normal(size=(3, 2, 3))
    stack = rng.normal(size=(2, 2, 3)) * np.array([1.0, 10.0])[:, None, None]

    def walked(impl, shape=(2, 3), n_steps=3, **options):
        w = Parameter(np.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape))
        kept = w.data
        optimizer = impl.Muon([w], **{"lr": 0.1, **options})
        for step in range(n_steps):
            w.grad = np.resize(gradients[step], shape)
            optimizer.step()
        return kept, optimizer.state_dict()["0.momentum"]

    class Branch(Module):
        def __init__(self, **parts):
            vars(self).update(parts)

    def split(impl, *others):
        def zeros(*shape):
            return Parameter(np.zeros(shape))

        whole = Branch(
            embedding=zeros(2, 3),
            heads=zeros(2, 4),
            layers=[Branch(head=zeros(2, 5), bias=zeros(6), stack=zeros(2, 2, 7))],
            table=zeros(2, 8),
        )
        return [[p.shape[-1] for p in part] for part in impl.split_parameters(whole, *others)]

    return {
        "one iteration": lambda impl: impl.orthogonalize(matrix, 1),
        "no iteration": lambda impl: impl.orthogonalize(matrix, 0),
        "five iterations": lambda impl: impl.orthogonalize(matrix),
        "cubic": lambda impl: impl.orthogonalize(matrix, 2, (1.5, -0.5, 0.0)),
        "a tall matrix": lambda impl: impl.orthogonalize(matrix.T),
        "a huge matrix": lambda impl: impl.orthogonalize(matrix * 1e200),
        "a stack": lambda impl: impl.orthogonalize(stack),
        "zeros": lambda impl: impl.orthogonalize(np.zeros((2, 2))),
        "float32": lambda impl: str(impl.orthogonalize(matrix.astype(np.float32)).dtype),
        "float16": lambda impl: impl.orthogonalize(np.diag([1.0, 1e-3]).astype(np.float16))[1].astype(
            np.float64
        ),
        "integers": lambda impl: impl.orthogonalize(np.eye(2, dtype=int)),
        "a vector": lambda impl: impl.orthogonalize(np.ones(2)),
        "minus one iteration": lambda impl: impl.orthogonalize(matrix, -1),
        "steps": walked,
        "the first step": lambda impl: walked(impl, n_steps=1),
        "steps of a tall matrix": lambda impl: walked(impl, (4, 2)),
        "steps of a stack": lambda impl: walked(impl, (5, 3, 2)),
        "steps with decay": lambda impl: walked(impl, weight_decay=0.5),
        "steps with two iterations": lambda impl: walked(impl, n_iterations=2),
        "steps of a vector": lambda impl: walked(impl, (3,)),
        "a negative rate": lambda impl: walked(impl, lr=-1.0),
        "who is for Muon": split,
        "who is for Muon, other names": lambda impl: split(impl, ("table",)),
    }
