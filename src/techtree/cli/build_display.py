"""How a build shows that it is alive: a live line in a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.text import Text

from techtree.lm.pipeline.stages import Display
from techtree.lm.train.trainer import Step
from techtree.streams import drawing, is_plain

STAGE_WIDTH = 24
"""The column of what the stages gave."""

LINE_EVERY_S = 15
"""How often a stage writes a line where the output is no terminal."""


@contextlib.contextmanager
def open_display(stream: TextIO) -> Iterator[Display]:
    """Give the display that fits a stream."""
    if is_plain(stream):
        yield PlainDisplay(stream)
        return
    with TerminalDisplay(Console(file=drawing(stream), highlight=False)) as display:
        yield display


class PlainDisplay:
    """A line for each stage, and one now and then during a long one."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._said_at = 0.0
        self._rate = SmoothRate()

    def begin(self, stage: str) -> None:
        """Say nothing: the line comes when there is something to tell."""
        self._said_at = time.monotonic()

    def done(self, stage: str, result: str, seconds: float) -> None:
        """Write the stage, its result and its time."""
        self._write(f"{stage:<{STAGE_WIDTH}}{result}  ({seconds:.1f} s)")

    def progress(self, done: int, total: int) -> None:
        """Write a line when the last one is some time ago."""
        if self._is_time():
            self._write(f"  {done / total:.0%}")

    def step(self, step: Step) -> None:
        """Write a line when the last one is some time ago, or there is something to hear."""
        self._rate.add(step)
        if step.warning:
            self._write(f"  warning: {step.warning}")
        if self._is_time():
            self._write(f"  step {step.step:,} of {step.n_steps:,}  {self._rate.described(step)}")

    def _is_time(self) -> bool:
        if time.monotonic() - self._said_at < LINE_EVERY_S:
            return False
        self._said_at = time.monotonic()
        return True

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class TerminalDisplay:
    """A live line for the running stage, and a line that stays for each that is done."""

    def __init__(self, console: Console):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            _Detail(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._rate = SmoothRate()

    def __enter__(self) -> "TerminalDisplay":
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop to draw, and leave the cursor below."""
        self._progress.stop()

    def begin(self, stage: str) -> None:
        """Show the stage as running."""
        self._task = self._progress.add_task(stage, total=None, detail="")

    def done(self, stage: str, result: str, seconds: float) -> None:
        """Replace the live line by one that stays."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        line = Text.assemble(
            ("✓ ", "green"), f"{stage:<{STAGE_WIDTH}}", (f"{result}  ", ""), (f"{seconds:.1f} s", "dim")
        )
        self._progress.console.print(line, soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def step(self, step: Step) -> None:
        """Move the bar, and show loss, speed and the time that is left."""
        self._rate.add(step)
        if step.warning:
            warning = Text.assemble(("! ", "yellow"), step.warning)
            self._progress.console.print(warning, soft_wrap=True)
        if self._task is not None:
            detail = self._rate.described(step)
            self._progress.update(self._task, completed=step.step, total=step.n_steps, detail=detail)


class SmoothRate:
    """A step's loss and speed, averaged so that a person can read them."""

    def __init__(self):
        self._loss = self._seconds_per_step = 0.0
        self._n_steps = 0

    def add(self, step: Step) -> None:
        """Take a step in."""
        self._n_steps += 1
        # An average of about 20 steps, and of all while there are fewer.
        weight = max(1 / 20, 1 / self._n_steps)
        self._loss += weight * (step.loss - self._loss)
        self._seconds_per_step += weight * (step.tokens / step.tokens_per_s - self._seconds_per_step)

    def described(self, step: Step) -> str:
        """Return loss, speed and time left."""
        left = self._seconds_per_step * (step.n_steps - step.step)
        rate = step.tokens / self._seconds_per_step
        return f"loss {self._loss:.3f}  {rate:,.0f} tokens/s  {_clock(left)} left"


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


class _Detail(ProgressColumn):
    """What the running stage has to say."""

    def render(self, task) -> Text:
        left = task.time_remaining
        return Text(task.fields["detail"] or ("" if left is None else f"{_clock(left)} left"))
