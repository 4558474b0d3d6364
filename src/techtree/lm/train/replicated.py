"""Every rank keeps the whole model, computes a part of each batch, and adds up the gradients with the others.

Li et al., "PyTorch Distributed", 2020, https://arxiv.org/abs/2006.15704. B batch, T tokens.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.muon import Named, one_by_one
from techtree.lm.train.ranks import Ranks
from techtree.lm.train.strategy import Rows


class Replicated:
    """A model of which each rank has a copy, all the same; with one rank, an ordinary model.

    Every rank makes the same updates from the same gradients, so that the copies stay equal.
    """

    def __init__(self, model: LanguageModel, ranks: Ranks) -> None:
        self.model = model.to(ranks.device)
        self.ranks = ranks
        self.parameters = {name: p.detach() for name, p in model.named_parameters()}
        self._is_last = True
        self._under_way: list[dist.Work] = []
        if ranks.n_ranks > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)
            for parameter in model.parameters():
                parameter.register_post_accumulate_grad_hook(self._start_adding_up)

    def backward(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], weight: float, last: bool
    ) -> float:
        """Add a part's gradient; with the last part's, add up those of all ranks."""
        self._is_last = last
        loss = self.model.loss(ids, targets) * weight
        loss.backward()
        while self._under_way:
            self._under_way.pop().wait()
        return loss.item()

    def _start_adding_up(self, parameter: Tensor) -> None:
        """Send a gradient that is complete while the earlier layers' are being computed."""
        if self._is_last:
            work = dist.all_reduce(parameter.grad, async_op=True)
            assert work is not None
            self._under_way.append(work)

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients."""
        found = {}
        for name, parameter in self.model.named_parameters():
            assert parameter.grad is not None, name
            found[name] = parameter.grad
        return found

    def squared_norm(self) -> float:
        """Return the sum of all gradients' squares on the first rank: the others have the same."""
        if not self.ranks.is_first:
            return 0.0
        norms = [torch.linalg.vector_norm(gradient) for gradient in self.gradients().values()]
        return torch.stack(norms).cpu().double().square().sum().item()

    def apply_whole(self, matrices: Named, function: Callable[[Tensor], Tensor]) -> Named:
        """Apply a function to each: they are whole. Every rank does all of them.

        To share the work would cost sending each result to all, 4 bytes a weight and step; it pays where the
        orthogonalization is slower than that, which nobody measured yet.
        """
        return one_by_one(matrices, function)

    def rows(self, name: str, tensor: Tensor) -> Rows:
        """Say that the tensor is whole."""
        return Rows(tensor, 0, len(tensor))
