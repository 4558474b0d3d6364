"""Time and memory to load a model, beside transformers: `loading.py`.

Both load the same folder, which this program writes with random weights, each in a fresh process. The clock
starts when the libraries are imported. As a mapped file takes no memory before it is read, both then
compute the logits of one token, which reads every weight. The file was just written, and so is likely to be
in the system's cache.
"""

import importlib.util
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from report import again, conditions, run, table
from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

TRANSFORMERS = "transformers"

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Config:
    """What to load."""

    megabytes: int = 1000
    """About the size of the checkpoint, in float32."""
    runs: int = 3
    """How often each loads; the table has the fastest."""

    def __post_init__(self) -> None:
        for name in ("megabytes", "runs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}")


@dataclass(frozen=True)
class Result:
    """One load."""

    load_s: float
    ready_s: float
    """Until the first token's logits."""
    before_bytes: int
    """The memory before the load."""
    peak_bytes: int
    """The most that the process ever had."""


def main(config: Config) -> None:
    """Measure, and print."""
    programs = ["techtree"]
    if importlib.util.find_spec(TRANSFORMERS) is not None:
        programs.append(TRANSFORMERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process(write_checkpoint, folder, config.megabytes)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        results = {program: [] for program in programs}
        for _ in range(config.runs):
            for program in programs:
                results[program].append(in_a_process(load, program, folder))
    best = {program: min(runs, key=lambda one: one.ready_s) for program, runs in results.items()}
    print(conditions("torch", *programs[1:], n_threads=torch.get_num_threads()))
    print(f"checkpoint: {size / 1e6:,.0f} MB\n\n{compared(best, size)}\n")
    if TRANSFORMERS not in programs:
        print("transformers was skipped: pip install transformers to compare with it")
    print(again())


def compared(results: dict[str, Result], size: int) -> str:
    """Return the table."""
    theirs = results.get(TRANSFORMERS)
    head = ["program", "load, s", "+ first logits, s", "of transformers'"]
    head += ["peak, MB", "before the load, MB", "difference / size"]
    rows = [
        [
            name,
            f"{one.load_s:.2f}",
            f"{one.ready_s:.2f}",
            f"{one.ready_s / theirs.ready_s:.2f}" if theirs else "-",
            f"{one.peak_bytes / 1e6:,.0f}",
            f"{one.before_bytes / 1e6:,.0f}",
            f"{(one.peak_bytes - one.before_bytes) / size:.2f}",
        ]
        for name, one in results.items()
    ]
    return table(head, rows)


def in_a_process(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function in a fresh process, whose memory nothing else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def write_checkpoint(folder: Path, megabytes: int) -> None:
    """Write a model with random weights of about this size, and a tokenizer."""
    config = shape(megabytes * 1_000_000 // 4)
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02, generator=generator)
    save_pretrained(folder, model, Tokenizer.train(["text for a tokenizer"], 280))


def shape(n_parameters: int) -> ModelConfig:
    """Return a Qwen3 with about so many parameters.

    A layer of width d has 2.5 d^2 in its attention, with a fourth as many key heads as query heads, and 9 d^2
    in its three other matrices.
    """
    d_model = 64
    while d_model < 1024 and 12 * 11.5 * (2 * d_model) ** 2 < n_parameters:
        d_model *= 2
    n_layers = max(1, round((n_parameters - 4096 * d_model) / (11.5 * d_model**2)))
    return ModelConfig(
        vocab_size=4096,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=d_model // 64,
        n_kv_heads=max(1, d_model // 256),
        head_dim=64,
        d_ff=3 * d_model,
    )


def load(program: str, folder: Path) -> Result:
    """Load, and compute one token's logits."""
    read = _reader(program)
    before_bytes = memory("VmRSS")
    started = time.perf_counter()
    model = read(folder)
    loaded = time.perf_counter()
    with torch.inference_mode():
        model(torch.tensor([[0]]))
    ended = time.perf_counter()
    return Result(loaded - started, ended - started, before_bytes, memory("VmHWM"))


def _reader(program: str) -> Callable[[Path], Any]:
    """Import what reads a folder."""
    if program != TRANSFORMERS:
        return lambda folder: load_pretrained(folder)[0]
    from transformers import Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return Qwen3ForCausalLM.from_pretrained


def memory(field: str) -> int:
    """Return a line of Linux's account of this process, in bytes: VmRSS is now, VmHWM the most ever."""
    path = Path("/proc/self/status")
    if not path.exists():
        raise InputError("this benchmark reads /proc/self/status, and so needs Linux")
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines())
    return int(lines[field].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(run(main, Config))
