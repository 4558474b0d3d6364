"""Time to nanoGPT's loss on the characters of Shakespeare: `time_to_loss.py --nanogpt PATH`.

nanoGPT trains by its own recipe for a CPU, and we by the speedrun preset and by the tree's lessons on NumPy,
in turns, each in a fresh process on the same cores. The time is that of the whole process: imports, data,
training, checkpoint. Then this program evaluates all checkpoints in the same way, over the whole held-out
text in windows of 64 characters.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import nanogpt
import numpy_speedrun
from evaluation import held_out_loss
from report import again, conditions, run, table
from shakespeare import WINDOW, Characters, default_path, read
from speedrun import SPEED
from techtree.errors import InputError
from techtree.lm.train import checkpoint_folder
from techtree.lm.train.run import load_model
from techtree.techs.autodiff.tensor_autodiff import no_grad

SPEEDRUN = Path(__file__).with_name("speedrun.py")
NUMPY_SPEEDRUN = Path(__file__).with_name("numpy_speedrun.py")


@dataclass(frozen=True)
class Config:
    """What to compare."""

    nanogpt: Path | None = None
    """A checkout of nanoGPT; left out, it is skipped."""
    runs: int = 3
    """How often each trains; the time is the median. Ours has another seed each time."""
    n_steps: int = 80
    """How long ours trains."""
    n_numpy_steps: int = 300
    """How long the lessons' code on NumPy trains; 0 leaves it out."""
    shares: tuple[float, ...] = ()
    """Train ours also for these shares of nanoGPT's time, once each."""
    text: Path = field(default_factory=default_path)
    """The text."""
    threads: int = 0
    """Of PyTorch, for both; 0 leaves its choice."""

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise InputError(f"runs must be at least 1; got {self.runs}")
        if self.shares and self.nanogpt is None:
            raise InputError(f"shares are of nanoGPT's time: {nanogpt.ADVICE}")


@dataclass(frozen=True)
class Result:
    """One training."""

    seconds: float
    """Of the whole process."""
    loss: float
    n_parameters: int
    n_steps: int
    seconds_of_steps: float = 0.0


def main(config: Config) -> None:
    """Measure, and print."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.nanogpt is not None:
        nanogpt.check(config.nanogpt)
    text = read(config.text)
    ours, theirs, lessons = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(config.runs):
            if config.nanogpt is not None:
                theirs.append(_theirs(config.nanogpt, folder / f"nanogpt-{i}", text, config))
            ours.append(_ours(folder / f"ours-{i}", text, config, config.n_steps, seed=i))
            if config.n_numpy_steps:
                lessons.append(_lessons(folder / f"lessons-{i}", text, config, seed=i))
        longer = []
        for i, share in enumerate(config.shares):
            n_steps = steps_for(share * _median(theirs), ours)
            longer.append(_ours(folder / f"longer-{i}", text, config, n_steps, seed=0))
    packages = conditions("torch", "numpy", n_threads=torch.get_num_threads())
    print(f"{packages}\n\n{compared(ours, theirs, longer, lessons)}\n")
    if config.nanogpt is None:
        print(f"nanoGPT was skipped: {nanogpt.ADVICE}")
    else:
        print(f"nanoGPT {nanogpt.commit(config.nanogpt)}: train.py {' '.join(nanogpt.CPU_RECIPE)}")
    print(again())


def compared(
    ours: Sequence[Result],
    theirs: Sequence[Result],
    longer: Sequence[Result],
    lessons: Sequence[Result] = (),
) -> str:
    """Return the table: medians of the times, and the worst of the losses."""
    rows = [_row("nanoGPT", theirs, theirs)] if theirs else []
    rows += [_row("techtree's lessons, NumPy", lessons, theirs)] if lessons else []
    rows.append(_row("techtree speedrun", ours, theirs))
    rows += [_row("techtree speedrun", [one], theirs) for one in longer]
    head = ["program", "parameters", "steps", "held-out loss", "seconds (all runs)", "share of nanoGPT's"]
    return table(head, rows)


def _row(name: str, results: Sequence[Result], theirs: Sequence[Result]) -> list[str]:
    times = " ".join(f"{one.seconds:.1f}" for one in results)
    shown = f"{_median(results):.1f} ({times})" if len(results) > 1 else times
    share = f"1/{_median(theirs) / _median(results):.1f}" if theirs else "-"
    losses = [one.loss for one in results]
    spread = f" (best {min(losses):.4f})" if min(losses) < max(losses) else ""
    parameters, n_steps = f"{results[0].n_parameters:,}", f"{results[0].n_steps:,}"
    return [name, parameters, n_steps, f"{max(losses):.4f}{spread}", shown, share]


def _median(results: Sequence[Result]) -> float:
    return statistics.median(one.seconds for one in results)


def steps_for(seconds: float, measured: Sequence[Result]) -> int:
    """Return how many of our steps fit into a time, from how long the measured trainings took."""
    overhead = statistics.median(one.seconds - one.seconds_of_steps for one in measured)
    pace = statistics.median(one.seconds_of_steps / one.n_steps for one in measured)
    return max(1, int((seconds - overhead) / pace))


def _theirs(checkout: Path, copy: Path, text: Characters, config: Config) -> Result:
    nanogpt.copy_with_text(checkout, copy, text)
    seconds = timed([sys.executable, "train.py", *nanogpt.CPU_RECIPE], copy, config.threads)
    model = nanogpt.trained_model(copy)
    n_parameters = sum(p.numel() for p in model.parameters())
    n_steps = next(int(word[12:]) for word in nanogpt.CPU_RECIPE if word.startswith("--max_iters="))
    return Result(seconds, held_out_loss(nanogpt.logits(model), text.held_out, WINDOW), n_parameters, n_steps)


def _ours(folder: Path, text: Characters, config: Config, n_steps: int, seed: int) -> Result:
    folder.mkdir()
    command = [sys.executable, str(SPEEDRUN), str(folder), "--n-steps", str(n_steps), "--seed", str(seed)]
    seconds = timed([*command, "--text", str(config.text.resolve())], folder, config.threads)
    found = checkpoint_folder.newest(folder)
    assert found is not None
    model = load_model(found)
    n_parameters = sum(p.numel() for p in model.parameters())
    speed = json.loads((folder / SPEED).read_text(encoding="utf-8"))
    return Result(
        seconds, held_out_loss(model, text.held_out, WINDOW), n_parameters, n_steps, speed["seconds"]
    )


def _lessons(folder: Path, text: Characters, config: Config, seed: int) -> Result:
    folder.mkdir()
    command = [sys.executable, str(NUMPY_SPEEDRUN), str(folder), "--seed", str(seed)]
    command += ["--n-steps", str(config.n_numpy_steps), "--text", str(config.text.resolve())]
    seconds = timed(command, folder, config.threads)
    model = numpy_speedrun.load(folder, len(text.alphabet))

    def logits(ids: torch.Tensor) -> torch.Tensor:
        with no_grad():
            return torch.from_numpy(model(ids.numpy()).data)

    n_parameters = sum(p.data.size for p in model.parameters())
    loss = held_out_loss(logits, text.held_out, WINDOW)
    speed = json.loads((folder / numpy_speedrun.SPEED).read_text(encoding="utf-8"))
    return Result(seconds, loss, n_parameters, config.n_numpy_steps, speed["seconds"])


def timed(command: Sequence[str], cwd: Path, n_threads: int) -> float:
    """Run a program in a process of its own, and return the seconds from its start to its end.

    Raises
    ------
    InputError
        When it fails.
    """
    threads = {"OMP_NUM_THREADS": str(n_threads)} if n_threads else {}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | threads, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise InputError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    sys.exit(run(main, Config))
