"""What `rmsnorm` opens, behind the exercise's names: PyTorch normalizes, in float32 at least."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import record

__all__ = ["RMSNorm"]


class RMSNorm(Module):
    """`torch.nn.functional.rms_norm` as one operation on our tape."""

    def __init__(self, width, eps=1e-6, dtype=np.float64):
        if width < 1 or not eps > 0:
            raise ValueError("the width must be at least 1, eps above 0")
        self.weight = Parameter(np.ones(width, dtype))
        self.eps = eps

    def forward(self, x):
        if x.ndim == 0 or x.shape[-1] != self.weight.shape[0]:
            raise ValueError("x must be as wide as the weight")
        inputs = [x, self.weight]
        wide = np.result_type(np.float32, *(each.dtype for each in inputs))
        leaves = [torch.tensor(each.data.astype(wide), requires_grad=True) for each in inputs]
        y = F.rms_norm(leaves[0], self.weight.shape, leaves[1], eps=self.eps)

        def pull_back(leaf):
            def back(g):
                return torch.autograd.grad(y, leaf, torch.tensor(g.astype(wide)), retain_graph=True)[
                    0
                ].numpy()

            return back

        return record(y.detach().numpy().astype(x.dtype), *zip(inputs, map(pull_back, leaves), strict=True))
