"""What training for 4 bits gains over rounding afterwards, in bits per byte: `qat.py --seeds 0 1 2`.

For each seed two models are trained on the standard library with the same batches: one as ever, and one whose
last steps compute with rounded weights. Both are exported in the same blocks and measured on held-out files.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from report import again, conditions, run, table


@dataclass(frozen=True)
class Config:
    """What to compare."""

    seeds: tuple[int, ...] = (0, 1, 2)
    depth: int = 2
    steps: int = 400
    kind: Literal["q8_0", "q4_0"] = "q4_0"
    quantize_fraction: float = 0.3
    """The share of the steps, at the end, that compute with rounded weights."""
    max_bytes: int = 200_000
    """Of the held-out files, so many are measured."""
    work: Path | None = None
    """Where the data and the runs lie, so that a stopped comparison goes on; a temporary folder when left
    out."""


def main(config: Config) -> None:
    """Train, measure, and print."""
    with tempfile.TemporaryDirectory() as name:
        rows = compared(config, config.work or Path(name))
    print(conditions("torch", n_threads=torch.get_num_threads()), end="\n\n")
    head = ["seed", "exact", "rounded afterwards", "trained for it", "recovered", "its time"]
    print(table(head, rows), end="\n\n")
    print(again())


def compared(config: Config, work: Path) -> list[list[str]]:
    """Return the rows of the table."""
    data = work / "data"
    techtree("data", sysconfig.get_path("stdlib"), "--out", data, "--seq-len", 256)
    rows = []
    for seed in config.seeds:
        runs, seconds = {}, {}
        for kind in ("none", config.kind):
            runs[kind] = work / f"{kind}-{config.depth}-{config.steps}-{config.quantize_fraction}-{seed}"
            words = ["train", data, "--out", runs[kind], "--depth", config.depth, "--steps", config.steps]
            words += ["--seed", seed, "--quantize", kind, "--quantize-fraction", config.quantize_fraction]
            start = time.monotonic()
            techtree(*words, "--log", "none")
            seconds[kind] = time.monotonic() - start
        exact = bits(runs["none"] / "model", data, config)
        afterwards, trained = (exported(runs[kind], data, config) for kind in runs)
        recovered = (afterwards - trained) / (afterwards - exact)
        rows.append(
            [
                *(str(seed), f"{exact:.4f}", f"{afterwards:.4f}", f"{trained:.4f}", f"{recovered:.0%}"),
                f"{seconds[config.kind] / seconds['none']:.2f}",
            ]
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def exported(folder: Path, data: Path, config: Config) -> float:
    """Return the bits per byte of a run's model, in blocks."""
    file = folder / f"{config.kind}.gguf"
    if not file.exists():
        techtree("export", folder / "model", "--to", "gguf", "--dtype", config.kind, "--out", file)
    return bits(file, data, config)


def bits(model: Path, data: Path, config: Config) -> float:
    """Return a model's bits per byte of what the data held out."""
    said = techtree("eval", data, "--model", model, "--max-bytes", config.max_bytes)
    found = re.search(r"([\d.]+) bits per byte", said)
    assert found, said
    return float(found[1])


def techtree(*words: object) -> str:
    """Run a command of the program, and return what it printed."""
    command = [sys.executable, "-m", "techtree", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(run(main, Config))
