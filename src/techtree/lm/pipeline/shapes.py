"""The kinds of new models that can be trained by name; each comes in every depth."""

import dataclasses
from collections.abc import Callable

from techtree.lm.config import ExpertsConfig, ModelConfig, Speedrun
from techtree.lm.pipeline.plan import shape


def with_experts(depth: int, vocab_size: int) -> ModelConfig:
    """Return the depth's shape with 8 experts of half the feed-forward width, of which a token uses 2.

    A token costs as many products as in the dense shape. On a CPU it takes almost twice the time all the
    same, and learns about as much from the same tokens (results/LOG.md).
    """
    dense = shape(depth, vocab_size)
    experts = ExpertsConfig(n_experts=8, n_active=2, d_expert=dense.d_ff // 2, balance_coef=0.01)
    return dataclasses.replace(dense, experts=experts)


def speedrun(depth: int, vocab_size: int) -> ModelConfig:
    """Return the depth's shape with vectors for pairs and triples of tokens: no other program can compute it.

    With 4 layers it needed 1.80 bits per byte after tokens with which the plain shape needed 1.85, and
    12 % more time for them (results/LOG.md).
    """
    # Any number that has no divisor in common with the vocabulary's size will do.
    tables = Speedrun(longest_ngram=3, ngram_rows=4 * vocab_size + 1)
    return dataclasses.replace(shape(depth, vocab_size), speedrun=tables)


SHAPES: dict[str, Callable[[int, int], ModelConfig]] = {
    "plain": shape,
    "experts": with_experts,
    "speedrun": speedrun,
}
"""From depth and vocabulary to the model."""
