"""Who may decode now: one at a time, in the order of arrival, and nobody waits for a stale question."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from techtree.engines.engine import EngineBusyError

POLL_S = 0.01
"""How often somebody who is next looks whether it was cancelled; the tenth in line looks every tenth time."""

_NEWEST_WEIGHT = 0.2
"""Of the last turn's time, in the mean of all that expected waits are computed from."""


@dataclass(eq=False)
class Turn:
    """One request's place in the line."""

    slot: int | None
    cancelled: Callable[[], bool]
    _newer: threading.Event = field(default_factory=threading.Event)

    def is_void(self) -> bool:
        """Return whether the answer is no longer wanted."""
        return self._newer.is_set() or self.cancelled()

    def supersede(self) -> None:
        """Make it void, as a newer request of the same slot has come."""
        self._newer.set()


class Turns:
    """The line. Whoever stands in front decodes.

    It is as long as those who stand in it have patience: whoever would wait beyond its deadline, as far as
    the turns before tell, is refused at once.

    Parameters
    ----------
    max_waiting
        How many may wait behind in any case.
    """

    def __init__(self, max_waiting: int):
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._line: list[Turn] = []
        self._turn_s = 0.0

    @contextlib.contextmanager
    def take(
        self, slot: int | None, cancelled: Callable[[], bool], deadline: float = math.inf
    ) -> Iterator[Turn | None]:
        """Wait for the turn, and hold it until the block ends.

        Older requests of the same slot become void at once: those that wait give up, and the one that
        decodes can see it.

        Parameters
        ----------
        slot
            Who asks; None is nobody in particular, whose requests never make each other void.
        cancelled
            Asked while waiting; whether the answer is no longer wanted.
        deadline
            Wait until this moment of `time.monotonic()` at most.

        Yields
        ------
        Turn or None
            None when it has become void, or its deadline has passed, before it came.

        Raises
        ------
        EngineBusyError
            When too many are waiting, or for too long.
        """
        turn = self._join(Turn(slot, cancelled), deadline)
        began = None
        try:
            has_come = self._wait(turn, deadline)
            began = time.monotonic() if has_come else None
            yield turn if has_come else None
        finally:
            with self._changed:
                self._line.remove(turn)
                if began is not None:
                    self._turn_s += _NEWEST_WEIGHT * (time.monotonic() - began - self._turn_s)
                self._changed.notify_all()

    def _join(self, turn: Turn, deadline: float) -> Turn:
        with self._changed:
            for older in self._line:
                if turn.slot is not None and older.slot == turn.slot:
                    older.supersede()
            n_waiting = sum(not waiting.is_void() for waiting in self._line[1:])
            if self._line and n_waiting >= self._max_waiting:
                raise EngineBusyError(f"{n_waiting} requests are waiting already: try again in a moment")
            wait_s = n_waiting * self._turn_s  # and what is left of the turn that is being taken
            if self._line and wait_s > max(deadline - time.monotonic(), 0):
                raise EngineBusyError(
                    f"{n_waiting} requests are waiting already, for about {wait_s:.0f} s: try again later"
                )
            self._line.append(turn)
            self._changed.notify_all()
        return turn

    def _wait(self, turn: Turn, deadline: float) -> bool:
        with self._changed:
            while not turn.is_void() and time.monotonic() < deadline:
                place = self._line.index(turn)
                if place == 0:
                    return True
                self._changed.wait(POLL_S * place)
        return False
