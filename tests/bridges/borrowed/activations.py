"""What `activations` opens, behind the exercise's names: PyTorch's curves as operations on our tape."""

import functools

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.tensor_autodiff import record

__all__ = ["erf", "gelu", "gelu_tanh", "relu", "sigmoid", "silu"]


def erf(x):
    x = np.asarray(x)
    return scipy.special.erf(x).astype(x.dtype if x.dtype.kind == "f" else np.float64)


def _on_our_tape(function, x):
    leaf = torch.tensor(x.data.copy(), requires_grad=True)
    out = function(leaf)

    def pull_back(g):
        return torch.autograd.grad(out, leaf, torch.tensor(g.copy()), retain_graph=True)[0].numpy()

    return record(out.detach().numpy(), (x, pull_back))


sigmoid = functools.partial(_on_our_tape, torch.sigmoid)
relu = functools.partial(_on_our_tape, F.relu)
gelu = functools.partial(_on_our_tape, F.gelu)
gelu_tanh = functools.partial(_on_our_tape, functools.partial(F.gelu, approximate="tanh"))
silu = functools.partial(_on_our_tape, F.silu)
