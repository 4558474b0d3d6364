"""The loss, without ever holding the logits of a whole batch.

4,096 tokens times a vocabulary of 8,192 are 128 MB of logits in float32, and as much for each of
log-softmax, its gradient and its rounding. Chunk by chunk they stay in the processor's cache, and as
the loss is the last operation, each chunk's gradient can be taken at once. One chunk's softmax takes
a third of the time per token that it takes on 16 MB.

The gradient of the weight adds up over chunks, and each addition reads and writes all of it: several chunks'
gradients of logits, rounded, are kept for one product. For 4,096 tokens of width 384 with a vocabulary of
8,192, on one Zen 5 core, one product for 4 chunks makes 209 ms of 253; the products alone take 184.

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

_CHUNK_LOGITS = 2**21
_GROUP_LOGITS = 2**23
"""What one product for the weight's gradient takes."""
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
    n_rows, _ = _sizes(weight)
    for rows in _parts(slice(0, len(hidden)), n_rows):
        logits = F.linear(hidden[rows], weight.to(hidden.dtype)).float()
        total += F.cross_entropy(logits, targets[rows], ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum()


def _sizes(weight: Tensor) -> tuple[int, int]:
    """Return the rows of a chunk, and those of a group of chunks."""
    on_cpu = weight.device.type == "cpu"
    chunk = max(1, (_CHUNK_LOGITS if on_cpu else _CHUNK_LOGITS_ON_GPU) // len(weight))
    return chunk, chunk * max(1, _GROUP_LOGITS // _CHUNK_LOGITS if on_cpu else 1)


def _parts(rows: slice, size: int) -> Iterator[slice]:
    starts = range(rows.start, rows.stop, size)
    return (slice(start, min(start + size, rows.stop)) for start in starts)


class _LossAndGradient(torch.autograd.Function):
    """The gradient with respect to the logits is ``softmax - one_hot(target)`` over the count."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rounded = weight.to(hidden.dtype)
        chunk, group = _sizes(weight)
        counts = targets != IGNORED
        share = (counts / counts.sum())[:, None]
        targets = targets.clamp(min=0)[:, None]
        total = torch.zeros((), device=hidden.device)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        kept = hidden.new_empty(min(group, len(hidden)), len(weight))
        for grouped in _parts(slice(0, len(hidden)), group):
            d_logits = kept[: grouped.stop - grouped.start]
            for rows in _parts(grouped, chunk):
                p = F.linear(hidden[rows], rounded).float().softmax(dim=-1)
                p_target = p.gather(1, targets[rows])
                # The smallest normal number: a chance below it would make one token's loss infinite.
                total -= (p_target.clamp(min=torch.finfo(p.dtype).tiny).log() * share[rows]).sum()
                p.scatter_(1, targets[rows], p_target - 1)
                d_logits[rows.start - grouped.start : rows.stop - grouped.start] = p.mul_(share[rows])
            d_hidden[grouped] = d_logits @ rounded
            d_weight += d_logits.T @ hidden[grouped]
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_weight * grad, None
