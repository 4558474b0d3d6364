"""What each part of the speedrun preset is worth, at equal steps: `speedrun_parts.py --n-steps 80`.

Every row changes one thing of the preset, and has about as many parameters where it can.
"""

import dataclasses
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from evaluation import held_out_loss
from report import again, conditions, run, table
from shakespeare import WINDOW, Characters, ShuffledWindows, default_path, read
from techtree.lm.config import Speedrun
from techtree.lm.speedrun import BATCH_TOKENS, speedrun_model, speedrun_training
from techtree.lm.train.trainer import train

CHANGES: dict[str, dict[str, Any]] = {
    "nothing changed": {},
    "no n-grams": {"speedrun": None},
    "no n-grams, d_ff 1,952 instead": {"speedrun": None, "d_ff": 1952},
    "no n-grams, 4 layers of d_ff 416 instead": {"speedrun": None, "n_layers": 4, "d_ff": 416},
    "n-grams up to 2, 1,344 rows": {"speedrun": Speedrun(2, 1344)},
    "n-grams up to 3, 5,376 rows": {"speedrun": Speedrun(3, 5376)},
    "n-grams up to 9, 5,376 rows": {"speedrun": Speedrun(9, 5376)},
    "half the rows": {"speedrun": Speedrun(5, 2688)},
    "half the rows, 4 layers": {"speedrun": Speedrun(5, 2688), "n_layers": 4},
    "d_ff 512, fewer rows": {"speedrun": Speedrun(5, 4352), "d_ff": 512},
    "squared ReLU": {"mlp": "relu2", "d_ff": 252},
    "QK-norm": {"qk_norm": "head"},
    "one table for input and output": {"tie_embeddings": True},
    "batches of half the size, twice the steps": {"batch_tokens": BATCH_TOKENS // 2},
    "batches of twice the size, half the steps": {"batch_tokens": BATCH_TOKENS * 2},
    "Muon's rate halved": {"muon_lr": 0.015},
    "Muon's rate doubled": {"muon_lr": 0.06},
    "the tables' rate halved": {"embedding_lr": 0.05},
    "the tables' rate doubled": {"embedding_lr": 0.2},
    "the head's rate halved": {"head_lr": 0.005},
    "the head's rate doubled": {"head_lr": 0.02},
    "float32": {"precision": "float32"},
}


@dataclass(frozen=True)
class Config:
    """What to train."""

    n_steps: int = 80
    """How long each trains."""
    seeds: int = 3
    """How often each trains, every time with other first weights and another order of the text."""
    only: tuple[str, ...] = ()
    """Words of the rows to make; all when left out."""
    text: Path = field(default_factory=default_path)
    """The text."""
    threads: int = 1
    """Of PyTorch; with one, the processor's time says something."""


def main(config: Config) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(config.threads)
    text = read(config.text)
    rows = []
    for name, change in CHANGES.items():
        if config.only and not any(word in name for word in config.only):
            continue
        found = [train_changed(change, text, config.n_steps, seed) for seed in range(config.seeds)]
        losses, seconds, (n_parameters, *_) = zip(*found, strict=True)
        loss, time_s = statistics.mean(losses), statistics.mean(seconds)
        rows.append([name, f"{n_parameters:,}", f"{loss:.4f}", f"{time_s:.2f}"])
        print(*rows[-1], file=sys.stderr)
    print(conditions("torch", n_threads=config.threads))
    print(f"{config.n_steps} steps, mean of {config.seeds} seeds\n")
    print(f"{table(['change', 'parameters', 'held-out loss', 'CPU seconds'], rows)}\n")
    print(again())


def train_changed(
    change: dict[str, Any], text: Characters, n_steps: int, seed: int
) -> tuple[float, float, int]:
    """Train the preset with a change; return the loss, the processor's seconds, and the parameters."""
    change = dict(change)
    batch_tokens = change.pop("batch_tokens", BATCH_TOKENS)
    n_steps = n_steps * BATCH_TOKENS // batch_tokens
    model_config = speedrun_model(len(text.alphabet), WINDOW)
    fields = {name: value for name, value in change.items() if hasattr(model_config, name)}
    model_config = dataclasses.replace(model_config, **fields)
    recipe = {name: value for name, value in change.items() if name not in fields}
    recipe |= {"checkpoint_interval_s": math.inf}
    batches = ShuffledWindows(text.train, n_steps, batch_tokens // WINDOW, seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        train_config = dataclasses.replace(speedrun_training(n_steps, seed), **recipe)
        model = train(model_config, train_config, batches, Path(folder))
        seconds = time.process_time() - started
    return held_out_loss(model, text.held_out, WINDOW), seconds, model_config.n_parameters


if __name__ == "__main__":
    sys.exit(run(main, Config))
