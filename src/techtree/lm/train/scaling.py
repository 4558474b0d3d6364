"""The learning rates of another batch and another width than those that were tuned.

Our recipe was tuned at 4 layers of width 256 and 2,048 tokens a step (results/LOG.md), so there all
factors are 1. That is what we measured; the rules that lead away from there are taken from nanochat, whose
author fitted them to models from 12 layers of width 768 on (https://github.com/karpathy/nanochat, read in
2026), and were not measured here. Values tuned at one size are known to hurt at another: tune again on the
size that matters, with ``scale_rates=False`` if need be.
"""

import math
from dataclasses import dataclass

from techtree.lm.train.config import Recipe

REFERENCE_BATCH_TOKENS = 2048
REFERENCE_D_MODEL = 256


@dataclass(frozen=True)
class Rates:
    """The numbers that the optimizers get."""

    muon_lr: float
    embedding_lr: float
    head_lr: float
    gain_lr: float
    weight_decay: float


def batch_factor(batch_tokens: int) -> float:
    """Return what a batch of so many tokens multiplies every learning rate with.

    ``sqrt(B / B_ref)``: a mean over B tokens has noise of ``1 / sqrt(B)``, and so bears steps that are
    longer by as much.

    >>> batch_factor(4 * 2048)
    2.0
    """
    return math.sqrt(batch_tokens / REFERENCE_BATCH_TOKENS)


def width_factor(d_model: int) -> float:
    """Return what a width multiplies the learning rates of AdamW with.

    ``(d / d_ref)^(-1/2)``. Muon's need none: the norm of its updates does not depend on the shape.

    >>> width_factor(4 * 256)
    0.5
    """
    return (d_model / REFERENCE_D_MODEL) ** -0.5


def weight_decay_factor(batch_tokens: int) -> float:
    """Return what a batch of so many tokens multiplies the weight decay with.

    ``sqrt(B / B_ref)``. Together with the learning rate's own factor a step takes off B times as much,
    and a token as much as before. The source divides by the length of the training too; ours was tuned
    over 200 steps, where decay made no difference (4.396 with, 4.400 without), so there is no length to
    scale from.

    >>> weight_decay_factor(4 * 2048)
    2.0
    """
    return math.sqrt(batch_tokens / REFERENCE_BATCH_TOKENS)


def scaled_rates(recipe: Recipe, d_model: int, batch_tokens: int) -> Rates:
    """Return a recipe's rates for a model of a width and a batch of so many tokens."""
    muon = adamw = decay = 1.0
    if recipe.scale_rates:
        muon = batch_factor(batch_tokens)
        adamw = muon * width_factor(d_model)
        decay = weight_decay_factor(batch_tokens)
    return Rates(
        muon_lr=recipe.muon_lr * muon,
        embedding_lr=recipe.embedding_lr * adamw,
        head_lr=recipe.head_lr * adamw,
        gain_lr=recipe.gain_lr * adamw,
        weight_decay=recipe.weight_decay * decay,
    )
