"""What `sgd` opens, behind the exercise's names: PyTorch's rule on our arrays, in the frame of the lesson."""

import torch

from techtree.techs.training import sgd
from techtree.techs.training.sgd import Optimizer

__all__ = ["SGD", "Optimizer"]


class SGD(sgd.SGD):
    def update(self, weights, gradient, state, options):
        w = torch.from_numpy(weights.copy())  # PyTorch takes no array that is reversed in memory
        w.grad = torch.from_numpy(gradient.copy())
        lr, momentum, weight_decay = (float(options[name]) for name in ("lr", "momentum", "weight_decay"))
        if not momentum:  # PyTorch keeps no velocity then
            state["momentum"][...] = gradient + weight_decay * weights
        optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=weight_decay)
        optimizer.state[w]["momentum_buffer"] = torch.from_numpy(state["momentum"])
        optimizer.step()
        weights[...] = w.numpy()
