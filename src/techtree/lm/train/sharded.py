"""Every rank keeps some rows of each parameter, and gathers a layer's others while it computes with it.

Rajbhandari et al., "ZeRO", 2020, https://arxiv.org/abs/1910.02054; Zhao et al., "PyTorch FSDP", 2023,
https://arxiv.org/abs/2304.11277. B batch, T tokens.
"""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.muon import Named
from techtree.lm.train.ranks import Ranks, share
from techtree.lm.train.strategy import Rows


class Sharded:
    """A model of which each rank keeps a share: of weights, of gradients, and of the optimizers' averages.

    The model comes whole, in main memory; it is shared out layer by layer.
    """

    def __init__(self, model: LanguageModel, ranks: Ranks) -> None:
        self.model = model
        self.ranks = ranks
        mesh = init_device_mesh(ranks.device.type, (ranks.n_ranks,))
        for module in (*model.model.layers, model):
            fully_shard(module, mesh=mesh)
            assert isinstance(module, FSDPModule)
            # Sums, not means: the parts' weights make the mean already. Gloo has no other way to say it.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(model, "loss")
        self._n_rows = {name: len(p) for name, p in model.named_parameters()}
        self.parameters = {name: _local(p) for name, p in model.named_parameters()}
        for name, local in self.parameters.items():
            mine = ranks.share(self._n_rows[name])
            assert len(local) == mine.stop - mine.start, name

    def backward(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], weight: float, last: bool
    ) -> float:
        """Add a part's gradient of all ranks.

        Every part's is shared out at once: to wait for the last part would need memory for whole gradients,
        and saving memory is what sharding is for.
        """
        loss = self.model.loss(ids, targets) * weight
        loss.backward()
        return loss.item()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of this rank's rows."""
        return {name: _local(p.grad) for name, p in self.model.named_parameters() if p.grad is not None}

    def squared_norm(self) -> float:
        """Return the sum of squares of this rank's rows."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in self.gradients().values()]
        return torch.stack(norms).cpu().double().square().sum().item()

    def apply_whole(
        self, matrices: Named, function: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Apply a function of whole matrices; of as many as there are ranks, each rank gets one.

        A stack of experts is shared out by experts, whose matrices are whole.
        """
        whole: list[tuple[str, Tensor]] = []
        for name, rows in matrices:
            if rows.ndim == 3:
                yield name, function(rows)
                continue
            whole.append((name, rows))
            if len(whole) == self.ranks.n_ranks:
                yield from self._exchanged(whole, function)
                whole = []
        if whole:
            yield from self._exchanged(whole, function)

    def _exchanged(
        self, parts: list[tuple[str, Tensor]], function: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Send the rows of matrix i to rank i, apply the function there, and send the results back."""
        rank, n_ranks = self.ranks.rank, self.ranks.n_ranks
        sent = [rows.numel() for _, rows in parts] + [0] * (n_ranks - len(parts))
        received, n_columns = [0] * n_ranks, 0
        if rank < len(parts):
            name, rows = parts[rank]
            n_columns = rows.shape[1]
            shares = (share(self._n_rows[name], other, n_ranks) for other in range(n_ranks))
            received = [(mine.stop - mine.start) * n_columns for mine in shares]
        outgoing = torch.cat([rows.flatten() for _, rows in parts])
        incoming = outgoing.new_empty(sum(received))
        dist.all_to_all_single(incoming, outgoing, received, sent)
        if rank < len(parts):
            incoming = function(incoming.view(-1, n_columns)).flatten()
        dist.all_to_all_single(outgoing, incoming, sent, received)
        for (name, rows), result in zip(parts, outgoing.split(sent[: len(parts)]), strict=True):
            yield name, result.view_as(rows)

    def rows(self, name: str, tensor: Tensor) -> Rows:
        """Say which rows of a parameter the tensor is; a buffer is whole on every rank."""
        if name not in self._n_rows:
            return Rows(tensor, 0, len(tensor))
        n_rows = self._n_rows[name]
        return Rows(_local(tensor), self.ranks.share(n_rows).start, n_rows)


def _local(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor
