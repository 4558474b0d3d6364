"""What `qat` opens, behind the exercise's names: a rounding of PyTorch's autograd with a gradient of its own.

PyTorch's own fake quantization takes any scales, and rounds x / d halves to even: `tests/bridges/test_qat.py`
compares where this is the same. Here its autograd computes with the blocks of the ancestor.
"""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.inference.qat import QATLinear as Ours
from techtree.techs.inference.qat import convert as ours_converted
from techtree.techs.inference.qat import prepare as ours_prepared
from techtree.techs.inference.quantization import dequantize, quantize

__all__ = ["QATLinear", "convert", "fake_quantize", "prepare"]


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kind):
        worth = dequantize(quantize(x.detach().numpy(), kind), kind)
        return torch.from_numpy(worth).to(x.dtype)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0], None


def _rounded(leaf, kind):
    return _Straight.apply(leaf, kind)


def _leaf(data):
    return torch.tensor(np.ascontiguousarray(data), requires_grad=True)


def _pull_back(y, leaf):
    def pull_back(g):
        given = torch.tensor(np.ascontiguousarray(g))
        return torch.autograd.grad(y, leaf, given, retain_graph=True)[0].numpy()

    return pull_back


def fake_quantize(x, kind):
    leaf = _leaf(x.data)
    y = _rounded(leaf, kind)
    return record(y.detach().numpy().copy(), (x, _pull_back(y, leaf)))


def _forward(self, x):
    if x.ndim == 0 or x.shape[-1] != self.weight.shape[1]:
        raise ValueError("x does not fit")
    inputs = [x, self.weight] + ([] if self.bias is None else [self.bias])
    leaves = [_leaf(each.data) for each in inputs]
    y = F.linear(_rounded(leaves[0], "q8_0"), _rounded(leaves[1], self.kind), *leaves[2:])
    return record(
        y.detach().numpy(), *((each, _pull_back(y, leaf)) for each, leaf in zip(inputs, leaves, strict=True))
    )


class QATLinear(Ours):
    """Their product and their gradients, on our tape."""

    forward = _forward


def prepare(model, kinds):
    """Ours, with layers of this class."""
    ours_prepared(model, kinds)
    _exchange(model, Ours, QATLinear)
    return model


def convert(model):
    layers = _exchange(model, QATLinear, Ours)
    try:
        return ours_converted(model)
    finally:
        for each in layers:
            if type(each) is Ours:  # it was refused
                each.__class__ = QATLinear


def _exchange(each, old, new, seen=None):
    """Give all layers of one class another one; return them."""
    seen = set() if seen is None else seen
    if id(each) in seen:
        return []
    seen.add(id(each))
    found = []
    if type(each) is old:
        each.__class__ = new
        found.append(each)
    inside = vars(each) if hasattr(each, "forward") else each
    values = (
        inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list | tuple) else ()
    )
    for child in list(values):
        found += _exchange(child, old, new, seen)
    return found
