"""The one evaluation that all programs of a comparison get.

B rows, T tokens, N tokens of a text.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOKENS_AT_ONCE = 2048


def windows(ids: Int[Tensor, " N"], length: int) -> Iterator[tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]]:
    """Cut a text into windows that do not overlap, every token but the first being a target once.

    The last window is shorter, and so comes alone.
    """
    n_whole = (len(ids) - 1) // length * length
    inputs, targets = ids[:n_whole].view(-1, length), ids[1 : n_whole + 1].view(-1, length)
    n_rows = max(1, _TOKENS_AT_ONCE // length)
    yield from zip(inputs.split(n_rows), targets.split(n_rows), strict=True)
    if n_whole < len(ids) - 1:
        yield ids[None, n_whole:-1], ids[None, n_whole + 1 :]


@torch.inference_mode()
def held_out_loss(
    logits: Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]], ids: Int[Tensor, " N"], length: int
) -> float:
    """Return the mean of ``-log p(target)`` over all targets of all windows, in nats per token."""
    total, count = 0.0, 0
    for inputs, targets in windows(ids, length):
        chances = logits(inputs).float().log_softmax(dim=-1)
        total -= chances.gather(2, targets[..., None]).double().sum().item()
        count += targets.numel()
    return total / count
