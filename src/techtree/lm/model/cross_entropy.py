"""The loss, without ever holding the logits of a whole batch.

4,096 tokens times a vocabulary of 4,096 are 64 MB of logits in float32, and as much for each of
log-softmax, its gradient and its rounding. Chunk by chunk they stay in the processor's cache, and as
the loss is the last operation, each chunk's gradient can be taken at once. One chunk's softmax takes
a third of the time per token that it takes on 16 MB.

N tokens, D d_model, V vocab_size.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""The target of a token that does not count."""

_CHUNK_LOGITS = 2**20
_CHUNK_LOGITS_ON_GPU = 2**26
"""A GPU wants large products; there the chunks only bound the memory."""


def cross_entropy(
    hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Return the mean of ``-log softmax(hidden weight^T)[target]`` over the targets that count.

    Returns
    -------
    In nats per token, float32; NaN when no target counts, as PyTorch has it.
    """
    if torch.is_grad_enabled():
        return _LossAndGradient.apply(hidden, weight, targets)  # pyright: ignore[reportReturnType]
    total = torch.zeros((), device=hidden.device)
    for rows in _chunks(hidden, weight):
        logits = F.linear(hidden[rows], weight.to(hidden.dtype)).float()
        total += F.cross_entropy(logits, targets[rows], ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum()


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    n_logits = _CHUNK_LOGITS if hidden.device.type == "cpu" else _CHUNK_LOGITS_ON_GPU
    n_rows = max(1, n_logits // len(weight))
    return (slice(start, start + n_rows) for start in range(0, len(hidden), n_rows))


class _LossAndGradient(torch.autograd.Function):
    """The gradient with respect to the logits is ``softmax - one_hot(target)``."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rounded = weight.to(hidden.dtype)
        counts = (targets != IGNORED)[:, None]
        targets = targets.clamp(min=0)[:, None]
        total = torch.zeros((), device=hidden.device)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for rows in _chunks(hidden, weight):
            p = F.linear(hidden[rows], rounded).float().softmax(dim=-1)
            p_target = p.gather(1, targets[rows])
            # The smallest normal number: a chance below it would make one token's loss infinite.
            total -= (p_target.clamp(min=torch.finfo(p.dtype).tiny).log() * counts[rows]).sum()
            p.scatter_(1, targets[rows], p_target - 1)
            d_logits = p.mul_(counts[rows]).to(hidden.dtype)
            d_hidden[rows] = d_logits @ rounded
            d_weight += d_logits.T @ hidden[rows]
        n_counted = counts.sum()
        ctx.save_for_backward(d_hidden, d_weight, n_counted)
        return total / n_counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_hidden, d_weight, n_counted = ctx.saved_tensors
        scale = grad / n_counted
        return d_hidden * scale.to(d_hidden.dtype), d_weight * scale, None
