"""Gradients gathered over portions, evaluation, checkpoints, and a run that a kill does not change."""

from .train_loop import accumulate, evaluate, load_checkpoint, save_checkpoint, train

__all__ = ["accumulate", "evaluate", "load_checkpoint", "save_checkpoint", "train"]
