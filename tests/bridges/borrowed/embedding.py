"""What `embedding` opens, behind the exercise's names: PyTorch looks up, and adds the gradients up."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import record

__all__ = ["Embedding"]


class Embedding(Module):
    """The table is ours, so that it can be trained and saved with our tools; the operations are PyTorch's."""

    def __init__(self, n_tokens, width, rng, std=0.02, dtype=np.float64):
        if n_tokens < 1 or width < 1:
            raise ValueError("a table has at least one row and one column")
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = torch.empty(n_tokens, width, dtype=torch.float64)
        self.weight = Parameter(torch.nn.init.normal_(drawn, std=1.0, generator=generator).numpy() * std)
        self.weight.data = self.weight.data.astype(dtype)

    def forward(self, ids):
        ids, weight = np.asarray(ids), self.weight
        if ids.dtype.kind not in "iu" or (ids.size and int(ids.max()) >= weight.shape[0]):  # also above 2**63
            raise ValueError("ids must be integers below the number of rows")
        wide = np.result_type(weight.data, np.float32)  # PyTorch adds float16 up in float16
        table = torch.tensor(weight.data.astype(wide), requires_grad=True)
        try:
            x = F.embedding(torch.tensor(ids.astype(np.int64)), table)
        except IndexError as error:  # PyTorch's error for an id without a row
            raise ValueError(str(error)) from error

        def pull_back(g):
            return torch.autograd.grad(x, table, torch.tensor(g.astype(wide)), retain_graph=True)[0].numpy()

        return record(x.detach().numpy().astype(weight.dtype), (weight, pull_back))

    def unembed(self, x):
        if x.ndim == 0 or x.shape[-1] != self.weight.shape[1]:
            raise ValueError("x must be as wide as the table")
        inputs = (x, self.weight)
        leaves = [torch.tensor(each.data.copy(), requires_grad=True) for each in inputs]
        y = F.linear(*leaves)

        def pull_back(leaf):
            return lambda g: torch.autograd.grad(y, leaf, torch.tensor(g.copy()), retain_graph=True)[
                0
            ].numpy()

        return record(y.detach().numpy(), *zip(inputs, map(pull_back, leaves), strict=True))
