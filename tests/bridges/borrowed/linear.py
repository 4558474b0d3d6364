"""What `linear` opens, behind the exercise's names: PyTorch multiplies, and draws with `torch.nn.init`."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.training.linear import gain_of

__all__ = ["Linear", "fan_average_uniform", "fan_in_normal", "gain_of", "orthogonal"]


def _drawn(n_in, n_out, rng, fill):
    if n_in < 1 or n_out < 1:
        raise ValueError("a layer has at least one input and one output")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return fill(torch.empty(n_out, n_in, dtype=torch.float64), generator).numpy()


def fan_in_normal(n_in, n_out, rng, gain=1.0):
    def fill(w, generator):
        return torch.nn.init.kaiming_normal_(w, nonlinearity="linear", generator=generator)

    return gain * _drawn(n_in, n_out, rng, fill)


def fan_average_uniform(n_in, n_out, rng, gain=1.0):
    return _drawn(n_in, n_out, rng, lambda w, generator: torch.nn.init.xavier_uniform_(w, gain, generator))


def orthogonal(n_in, n_out, rng, gain=1.0):
    return _drawn(n_in, n_out, rng, lambda w, generator: torch.nn.init.orthogonal_(w, gain, generator))


class Linear(Module):
    """The product of `torch.nn.functional.linear` as one operation on our tape."""

    def __init__(self, n_in, n_out, rng, has_bias=True, gain=1.0, dtype=np.float64):
        self.weight = Parameter(fan_in_normal(n_in, n_out, rng, gain).astype(dtype))
        self.bias = Parameter(np.zeros(n_out, dtype)) if has_bias else None

    def forward(self, x):
        if x.ndim == 0:
            raise ValueError("x must have an axis")
        inputs = [x, self.weight] + ([] if self.bias is None else [self.bias])
        leaves = [torch.tensor(each.data.copy(), requires_grad=True) for each in inputs]
        try:
            y = F.linear(*leaves)
        except RuntimeError as error:  # PyTorch's error for shapes that do not fit
            raise ValueError(str(error)) from error
        y = y.reshape(*x.shape[:-1], math.prod(self.weight.shape[:1]))

        def pull_back(leaf):
            return lambda g: torch.autograd.grad(y, leaf, torch.tensor(g.copy()), retain_graph=True)[
                0
            ].numpy()

        return record(y.detach().numpy(), *zip(inputs, map(pull_back, leaves), strict=True))
