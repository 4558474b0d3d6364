"""What `adamw` opens, behind the exercise's names: PyTorch's rule on our arrays, in the lesson's frame."""

import torch

from techtree.techs.training import adamw
from techtree.techs.training.adamw import decay_groups

__all__ = ["AdamW", "decay_groups"]


class AdamW(adamw.AdamW):
    def update(self, weights, gradient, state, options):
        w = torch.from_numpy(weights)  # shares memory
        w.grad = torch.from_numpy(gradient.copy())
        optimizer = torch.optim.AdamW(
            [w],
            lr=float(options["lr"]),
            betas=tuple(map(float, options["betas"])),
            eps=float(options["eps"]),
            weight_decay=float(options["weight_decay"]),
        )
        optimizer.state[w] |= {
            "step": torch.tensor(float(state["n_steps"])),
            "exp_avg": torch.from_numpy(state["mean"]),
            "exp_avg_sq": torch.from_numpy(state["square"]),
        }
        optimizer.step()
        state["n_steps"] += 1
