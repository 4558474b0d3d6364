"""Train a Transformer on the characters of Shakespeare with NumPy: `python bench/numpy_speedrun.py FOLDER`.

Model and training are technologies of the tree: `llama_block` with 4 layers of width 128, 4 heads and windows
of 64; `muon` for the matrices, `adamw` for the rest, `schedule_clip`. The whole of it, from the interpreter's
start to the weights on disk, is what `time_to_loss` measures. No PyTorch is imported.
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from techtree.techs.autodiff.safetensors import load_file, save_file
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.muon import Muon, split_parameters
from techtree.techs.training.schedule_clip import warmup_linear
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

WINDOW = 64
WEIGHTS, SPEED = "model.safetensors", "speed.json"


@dataclass(frozen=True)
class Config:
    """A run."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where the weights go."""
    text: Path = field(default=Path("tinyshakespeare.txt"))
    """The text. Its first nine tenths are trained on."""
    n_steps: int = 600
    """How long to train."""
    n_rows: int = 16
    """Windows in a step."""
    muon_lr: float = 0.02
    """Of the matrices."""
    adamw_lr: float = 0.006
    """Of embedding, head and norms."""
    seed: int = 0
    """Of the first weights and of the order of the text."""
    show_every: int = 0
    """Print the loss of every so many steps."""


def make_model(n_tokens: int, seed: int) -> Llama:
    """Return the model before training."""
    config = LlamaConfig(n_tokens, width=128, hidden=352, n_layers=4, n_heads=4, n_kv_heads=4, is_tied=False)
    return Llama(config, np.random.default_rng(seed), dtype=np.float32)


def load(folder: Path, n_tokens: int) -> Llama:
    """Return the model that a run left."""
    model = make_model(n_tokens, 0)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model


def main(config: Config) -> None:
    """Train, and save."""
    text = config.text.read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = np.array([number[character] for character in text[: int(0.9 * len(text))]])
    model, rng = make_model(len(number), config.seed), np.random.default_rng(config.seed + 1)
    matrices, rest = split_parameters(model)
    optimizers = [
        (Muon(matrices, lr=config.muon_lr), config.muon_lr),
        (AdamW(rest, lr=config.adamw_lr, betas=(0.9, 0.95)), config.adamw_lr),
    ]
    started, losses = time.perf_counter(), []
    for step in range(config.n_steps):
        starts = rng.integers(len(ids) - WINDOW, size=config.n_rows)
        rows = ids[starts[:, None] + np.arange(WINDOW + 1)]
        loss = cross_entropy(model(rows[:, :-1]), rows[:, 1:])
        loss.backward()
        share = warmup_linear(step, config.n_steps, n_warmup=10)
        for optimizer, lr in optimizers:
            optimizer.groups[0]["lr"] = lr * share
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.data))
        if config.show_every and (step + 1) % config.show_every == 0:
            print(step + 1, round(float(np.mean(losses[-config.show_every :])), 4), flush=True)
    save_file(model.state_dict(), config.folder / WEIGHTS)
    speed = {"seconds": time.perf_counter() - started}
    (config.folder / SPEED).write_text(json.dumps(speed), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
