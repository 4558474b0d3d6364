"""What every step came to, in a file that other programs draw.

A run that is resumed takes its file up where its checkpoint stands: what was written after that is written
again, and so dropped first. Before a checkpoint, all lines up to it must be on the disk (`flush`).
"""

import csv
import io
import os
from pathlib import Path
from typing import Protocol, TextIO

from techtree import atomic
from techtree.errors import InputError
from techtree.lm.train.run import Step

COLUMNS = ("step", "loss", "lr_scale", "gradient_norm", "tokens_per_s", "seconds")
"""Fields of `Step`."""


class StepLog(Protocol):
    """Where steps are noted."""

    def add(self, step: Step) -> None:
        """Note a step."""
        ...

    def flush(self) -> None:
        """Make what was noted last, whatever happens."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class CsvLog:
    """A table with a line for each step: its number, loss, learning rate's scale, gradient norm, speed, time.

    Parameters
    ----------
    path
        Of the file; with the first step it is made, or taken up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def add(self, step: Step) -> None:
        """Write a line; a kill of the program does not lose it."""
        if self._file is None:
            atomic.write_text(self._path, _table_before(self._path, step.step))
            self._file = self._path.open("a", encoding="utf-8", newline="")
        values = [f"{getattr(step, name):.10g}" for name in COLUMNS]
        self._file.write(",".join(values) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Write to the disk itself: a power cut does not lose it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _table_before(path: Path, step: int) -> str:
    """Return the head and the whole lines of the steps before one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [",".join(COLUMNS)]
    for values in csv.reader(io.StringIO(text)):
        is_whole = len(values) == len(COLUMNS) and values[0].isdecimal()
        if is_whole and int(values[0]) < step:
            lines.append(",".join(values))
    return "\n".join(lines) + "\n"


class TensorBoardLog:
    """A folder that TensorBoard draws.

    Parameters
    ----------
    folder
        Where its event files are.

    Raises
    ------
    InputError
        When the library that writes them is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboardX
        except ImportError:
            raise InputError(
                "--log tensorboard needs tensorboardX: pip install 'techtree[tensorboard]', or take --log csv"
            ) from None
        self._make_writer = tensorboardX.SummaryWriter
        self._folder = folder
        self._writer: tensorboardX.SummaryWriter | None = None

    def add(self, step: Step) -> None:
        """Note the step's numbers."""
        if self._writer is None:
            # TensorBoard drops what an earlier file has from this step on.
            self._writer = self._make_writer(str(self._folder), purge_step=step.step)
        for name in COLUMNS[1:-1]:
            self._writer.add_scalar(name, getattr(step, name), step.step)

    def flush(self) -> None:
        """Write the events that are waiting."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
