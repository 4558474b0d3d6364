"""A run of a second, in a process that a test can kill: ``python small_run.py FOLDER N_STEPS``."""

import dataclasses
import sys
from pathlib import Path

import torch

from techtree.lm.config import ModelConfig
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.trainer import Step, train

MODEL = ModelConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64)
# The rates count as they are: they fit this size, and tests compute with them.
TRAIN = TrainConfig(n_steps=40, warmup_steps=4, checkpoint_interval_s=1000.0, scale_rates=False)
SAVED_OFTEN = dataclasses.replace(TRAIN, checkpoint_interval_s=0.0)
"""The same, with a checkpoint after every step."""


class Counting:
    """Rows that count up from a random number, as a model can learn."""

    def __init__(self, n_rows: int = 8) -> None:
        self.n_rows = n_rows

    def batch(self, step: int, rank: int = 0, n_ranks: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        first = torch.randint(64, (self.n_rows, 1), generator=generator)
        rows = (first + torch.arange(17)) % 64
        inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].clone()
        targets[0, : step % 5] = -100
        return inputs[rank::n_ranks], targets[rank::n_ranks]


def say(step: Step) -> None:
    print(step.step, step.loss, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    config = dataclasses.replace(SAVED_OFTEN, n_steps=int(sys.argv[2]))
    train(MODEL, config, Counting(), Path(sys.argv[1]), say)
