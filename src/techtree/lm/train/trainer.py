"""Training, from the first step or from where it was stopped to the last.

Started by `torchrun`, every rank calls `train` with the same arguments; they divide the work.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from techtree.lm.config import ModelConfig
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.batches import Batches
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.interruption import awaited_stop
from techtree.lm.train.ranks import Ranks, explained_loss_of_ranks, join_ranks
from techtree.lm.train.run import Run, Step

__all__ = ["Batches", "Step", "train"]


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    batches: Batches,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
    device: torch.device | str = "cpu",
    *,
    ranks: Ranks | None = None,
    weights: Mapping[str, Tensor] | None = None,
    branch_from: Path | None = None,
    on_save: Callable[[list[float]], None] = lambda losses: None,
) -> LanguageModel:
    """Train a model, or go on where the folder's newest checkpoint stands.

    Parameters
    ----------
    model_config
        The model's shape.
    train_config
        The recipe.
    batches
        The data.
    folder
        Where the checkpoints are kept; of several ranks on several machines, on a file system that all see.
    on_step
        Called after every step, on the first rank.
    device
        Where to compute.
    ranks
        Who trains; by default whom `torchrun` started, or this process alone.
    weights
        The state dict to begin with, instead of a random one.
    branch_from
        The checkpoint of another run to begin with: its weights, averages and count of steps. The model must
        be the same, all other settings may differ.
    on_save
        Called before a checkpoint is written, on the first rank, with the losses of all its steps.

    Returns
    -------
    The trained model, which computes in the precision of its float32 weights. All but the first of several
    ranks get one without memory, on the device "meta".

    Raises
    ------
    InputError
        When the checkpoint is damaged or of another run, when it cannot be written, or when the
        training diverges.
    KeyboardInterrupt
        At Ctrl-C or SIGTERM, after the step was finished and a checkpoint was saved.
    """
    with contextlib.nullcontext(ranks) if ranks else join_ranks(device) as ranks:
        with ranks.together():
            run = Run(model_config, train_config, batches, folder, ranks, weights, on_save)
        stop_is_awaited = awaited_stop(second_is_obeyed=ranks.n_ranks == 1)
        with explained_loss_of_ranks(folder), stop_is_awaited as stop:
            run.resume_or_start(branch_from)
            while run.step < train_config.n_steps:
                taken = run.advance(stop)
                if ranks.is_first:
                    on_step(taken.step)
                # Alone, there is nobody to agree with before one stops.
                is_stop_asked = taken.is_stop_asked or (ranks.n_ranks == 1 and stop.is_made)
                if taken.is_save_due or is_stop_asked:
                    run.save()
                if is_stop_asked:
                    raise KeyboardInterrupt
            run.save()
        return run.trained_model()
