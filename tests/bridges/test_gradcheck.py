"""`gradcheck` measures what SciPy measures, and judges as torch's gradcheck does."""

import numpy as np
import pytest
import scipy.differentiate
import torch

from techtree.techs.ground.gradcheck import check_gradient, directional_derivative, numerical_gradient

FUNCTIONS = {
    "sin": (np.sin, torch.sin),
    "exp": (np.exp, torch.exp),
    "log of 1 + x**2": (lambda x: np.log(1 + x**2), lambda x: torch.log(1 + x**2)),
    "tanh": (np.tanh, torch.tanh),
    "x / (2 + sin x)": (lambda x: x / (2 + np.sin(x)), lambda x: x / (2 + torch.sin(x))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_measured_gradient_equals_scipys(name):
    f, _ = FUNCTIONS[name]
    x = np.random.default_rng(0).normal(size=(3, 4)) * 2
    expected = scipy.differentiate.derivative(f, x).df
    got = numerical_gradient(lambda v: f(v).sum(), x)
    # Ours loses eps / h = 4e-11 of the sum, up to 60 here; SciPy's extrapolation is better than that.
    assert np.abs(got - expected).max() < 1e-8
    along = directional_derivative(lambda v: f(v).sum(), x, np.cos(x))
    assert abs(along - (expected * np.cos(x)).sum()) < 1e-7


class Scaled(torch.autograd.Function):
    """The identity, with a gradient that is off by a factor in one entry."""

    factor = 1.0

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        wrong = torch.ones_like(gradient)
        wrong[1, 2] = Scaled.factor
        return gradient * wrong


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("factor", [1.0, 1.01, 0.99, -1.0, 0.0])
def test_the_verdict_is_that_of_torchs_gradcheck(monkeypatch, name, factor):
    monkeypatch.setattr(Scaled, "factor", factor)
    _, f = FUNCTIONS[name]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3))).requires_grad_()

    def loss(v):
        return f(Scaled.apply(v)).sum()

    accepted_by_torch = torch.autograd.gradcheck(loss, x, raise_exception=False)
    (gradient,) = torch.autograd.grad(loss(x), x)
    point = x.detach().numpy()
    try:
        check_gradient(lambda v: float(f(torch.from_numpy(v)).sum()), gradient.numpy(), point)
        accepted_by_us = True
    except AssertionError:
        accepted_by_us = False
    assert accepted_by_us == accepted_by_torch == (factor == 1.0)
