"""Many texts at once, each exactly as alone: ragged batches, blocks of a shared memory, a scheduler."""

from techtree.techs.inference.batching.batching import (
    BlockPool,
    PagedText,
    Request,
    Scheduler,
    extend_batch,
)

__all__ = ["BlockPool", "PagedText", "Request", "Scheduler", "extend_batch"]
