"""A ring of workers that adds up gradients, and an optimizer whose state is spread over them."""

from .data_parallel import (
    Network,
    ShardedOptimizer,
    all_gather,
    all_reduce,
    average_gradients,
    reduce_scatter,
    shards,
)

__all__ = [
    "Network",
    "ShardedOptimizer",
    "all_gather",
    "all_reduce",
    "average_gradients",
    "reduce_scatter",
    "shards",
]
