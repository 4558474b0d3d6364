"""What to build; free of PyTorch, so that a wrong number is refused at once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from techtree.errors import InputError

REPORT = "report.json"
"""Where it lies in a run's folder, the run is finished."""

MAX_MINUTES = 525_600
"""A year."""

MAX_STEPS = 10**9
"""More than anybody takes, and few enough to be counted everywhere."""

MAX_SEED = 2**63 - 1
"""What all generators of random numbers take."""


def check_range(option: str, value: int, least: int, most: int) -> None:
    """Refuse a number that is out of range.

    Raises
    ------
    InputError
        When it is.
    """
    if value < least:
        raise InputError(f"{option} must be at least {least}; got {value}")
    if value > most:
        given = str(value) if value < 10**30 else "more than 30 digits"
        raise InputError(f"{option} must be {most} at most; got {given}")


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
    init: Path | None = None
    """The folder of a model to go on with, instead of a new one."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise InputError(f"--minutes must be above 0; got {self.minutes:g}: 5 is a good start")
        if self.minutes > MAX_MINUTES:
            raise InputError(f"--minutes must be {MAX_MINUTES}, a year, at most; got {self.minutes:g}")
        if self.n_steps is not None:
            check_range("--steps", self.n_steps, 1, MAX_STEPS)
        check_range("--seed", self.seed, 0, MAX_SEED)
        if self.depth is not None and not 1 <= self.depth <= 48:
            raise InputError(f"--depth must be from 1 to 48; got {self.depth}")
        if self.depth is not None and self.init is not None:
            raise InputError("--depth is for a new model: leave it out, or --init")

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on, by the name of the option."""
        return {
            "corpus": [os.path.realpath(path) for path in self.corpus],
            "minutes": self.minutes,
            "steps": self.n_steps,
            "depth": self.depth,
            "seed": self.seed,
            "init": None if self.init is None else os.path.realpath(self.init),
        }
