"""Tells a loss that jumped up from a loss that is noisy or still falls.

The last 5 losses are held against the 100 before them: they have jumped when their median lies above the
others' median by more than 6 of their standard deviations, and by more than 0.1 nats. Medians and
quartiles do not move for one hard batch, and a falling loss lies below its own past, so neither the first
steps nor noise count. (1.349 standard deviations lie between the quartiles of normally distributed numbers.)
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

N_RECENT = 5
N_BEFORE = 100
MIN_BEFORE = 50
"""Of so many losses quartiles begin to mean something."""

DEVIATIONS = 6.0
MIN_RISE = 0.1
"""In nats. Where the loss is nearly constant its deviations are tiny, and many of them are still harmless."""


@dataclass(frozen=True)
class Spike:
    """A loss that jumped up and has not come back yet."""

    first_step: int
    """The first step whose loss was high; steps count from 1."""
    before: float
    """The median loss before it."""
    limit: float
    """Where the loss counts as back."""


class SpikeWatch:
    """Reads the losses one after the other. What it says depends on them alone: a resume changes nothing.

    Parameters
    ----------
    losses
        Those of the steps that were taken before.
    """

    spike: Spike | None
    """The one that the run is in."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self.spike = None
        self._step = 0
        self._recent: deque[float] = deque()
        self._before: deque[float] = deque()
        self._sorted: list[float] = []
        for loss in losses:
            self.add(loss)

    @property
    def n_steps_high(self) -> int:
        """For how many steps the loss has been high."""
        return 0 if self.spike is None else self._step - self.spike.first_step + 1

    def add(self, loss: float) -> bool:
        """Take in the loss of a step; return whether a spike was found with it."""
        self._step += 1
        self._recent.append(loss)
        if len(self._recent) > N_RECENT:
            passed = self._recent.popleft()
            if self.spike is None:  # What is known from before a spike must not become the spike.
                self._remember(passed)
        if len(self._recent) < N_RECENT or len(self._sorted) < MIN_BEFORE:
            return False
        level = median(self._recent)
        if self.spike is not None:
            if level <= self.spike.limit:
                self.spike = None
            return False
        before, limit = self._usual()
        if level <= limit:
            return False
        n_high = next(i for i, high in enumerate(self._recent) if high > limit)
        self.spike = Spike(self._step - N_RECENT + 1 + n_high, before, limit)
        return True

    def _remember(self, loss: float) -> None:
        self._before.append(loss)
        insort(self._sorted, loss)
        if len(self._before) > N_BEFORE:
            del self._sorted[bisect_left(self._sorted, self._before.popleft())]

    def _usual(self) -> tuple[float, float]:
        """Return the median of the losses before, and above what a loss is not usual."""
        n = len(self._sorted)
        deviation = (self._sorted[3 * n // 4] - self._sorted[n // 4]) / 1.349
        before = self._sorted[n // 2]
        return before, before + max(DEVIATIONS * deviation, MIN_RISE)
