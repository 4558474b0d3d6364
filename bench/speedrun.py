"""Train the speedrun preset on the characters of Shakespeare: `python bench/speedrun.py FOLDER --n-steps 80`.

The whole of it, from the interpreter's start to the checkpoint on disk, is what `time_to_loss` measures.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from report import run
from shakespeare import WINDOW, ShuffledWindows, default_path, read
from techtree.lm.speedrun import BATCH_TOKENS, speedrun_model, speedrun_training
from techtree.lm.train.trainer import Step, train

SPEED = "speed.json"
"""Says in a run's folder how long the steps alone took."""


@dataclass(frozen=True)
class Config:
    """A run."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where the checkpoint goes."""
    n_steps: int = 80
    """How long to train."""
    seed: int = 0
    """Of the first weights and of the order of the text."""
    text: Path = field(default_factory=default_path)
    """The text."""
    threads: int = 0
    """Of PyTorch; 0 leaves its choice."""


def main(config: Config) -> None:
    """Train, and save."""
    if config.threads:
        torch.set_num_threads(config.threads)
    characters = read(config.text)
    batches = ShuffledWindows(characters.train, config.n_steps, BATCH_TOKENS // WINDOW, config.seed)
    model_config = speedrun_model(len(characters.alphabet), WINDOW)
    steps: list[Step] = []
    train(model_config, speedrun_training(config.n_steps, config.seed), batches, config.folder, steps.append)
    (config.folder / SPEED).write_text(json.dumps({"seconds": steps[-1].seconds}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main, Config))
