"""The stages of a build, each done once: what a stage made is kept, and taken from there the next time."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from techtree import atomic, reading
from techtree.errors import InputError
from techtree.lm.train.trainer import Step

MAX_JSON_BYTES = 1 << 28
"""Of what a stage writes; the losses of a hundred thousand steps take 2 MB."""

STAGES = "stages.json"
"""The file of a run's folder that keeps how long each stage took."""


class Display(Protocol):
    """Whoever shows a person how far a build is."""

    def begin(self, stage: str) -> None:
        """Show that a stage begins."""
        ...

    def done(self, stage: str, result: str, seconds: float) -> None:
        """Show that a stage ended, with this in one line."""
        ...

    def progress(self, done: int, total: int) -> None:
        """Show how far the running stage is."""
        ...

    def step(self, step: Step) -> None:
        """Show that a step of training was taken."""
        ...


class Stages:
    """Runs stages, and keeps how long each took, over all resumes.

    Parameters
    ----------
    folder
        Of the run.
    display
        What to tell.
    """

    def __init__(self, folder: Path, display: Display):
        self.display = display
        self._path = folder / STAGES
        self.seconds: dict[str, float] = read_json(self._path) if self._path.exists() else {}

    def run(
        self,
        name: str,
        work: Callable[[], Any],
        described: Callable[[Any], str],
        seconds: Callable[[Any], float] = lambda result: 0.0,
    ) -> Any:
        """Do a stage's work and return what it gives.

        Parameters
        ----------
        name
            What the stage does, in the display and in the report.
        work
            The stage.
        described
            Its result in one line.
        seconds
            How long the work says that it took, where it knows more than a clock: a training that was
            resumed counts the time before.
        """
        self.display.begin(name)
        start = time.monotonic()
        result = work()
        took = time.monotonic() - start
        # A stage that was done before is only read again: the time that it took then counts.
        self.seconds[name] = max(took, seconds(result), self.seconds.get(name, 0.0))
        atomic.write_text(self._path, json.dumps(self.seconds, indent=1) + "\n")
        self.display.done(name, described(result), self.seconds[name])
        return result

    @property
    def total_seconds(self) -> float:
        """The time of all stages so far."""
        return sum(self.seconds.values())


def read_json(path: Path) -> Any:
    """Read what an earlier stage wrote.

    Raises
    ------
    InputError
        When it is damaged; atomic writes leave no half a file, so somebody else changed it.
    """
    try:
        return reading.read_json(path, MAX_JSON_BYTES, "use another --out")
    except InputError as error:
        raise InputError(f"{path} must be as an earlier run wrote it ({error})") from None


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """Return the JSON value of a file, after making and writing it where there is none."""
    if not path.exists():
        atomic.write_text(path, json.dumps(make(), indent=1) + "\n")
    return read_json(path)
