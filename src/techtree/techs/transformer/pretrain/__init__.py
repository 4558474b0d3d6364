"""Files in, a trained language model out: preparation, a recipe, and the run."""

from techtree.techs.transformer.pretrain.pretrain import (
    Optimizers,
    Prepared,
    Recipe,
    optimizers_for,
    prepare,
    pretrain,
)

__all__ = ["Optimizers", "Prepared", "Recipe", "optimizers_for", "prepare", "pretrain"]
