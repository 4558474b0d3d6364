"""What to build; free of PyTorch, so that a wrong number is refused at once."""

from dataclasses import dataclass
from pathlib import Path

from techtree.errors import InputError

REPORT = "report.json"
"""Where it lies in a run's folder, the run is finished."""


@dataclass(frozen=True)
class BuildConfig:
    """What to build."""

    corpus: tuple[Path, ...]
    """Files and folders with source code."""
    minutes: float
    folder: Path
    """Of the run."""
    n_steps: int | None
    depth: int | None
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise InputError(f"--minutes must be above 0; got {self.minutes:g}: 5 is a good start")
        if self.n_steps is not None and self.n_steps < 1:
            raise InputError(f"--steps must be at least 1; got {self.n_steps}")
        if self.depth is not None and not 1 <= self.depth <= 48:
            raise InputError(f"--depth must be from 1 to 48; got {self.depth}")
