"""How many threads share a piece of work: one, unless it is large.

Threads that share a matrix product meet at its end. On a machine that is not idle, one of them waits
for a turn on a processor, several milliseconds each time, and all wait for that one. A token of a
model of 10M parameters takes 50 products: with one other program busy on two cores, 56 ms with two
threads and 7 ms with one.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch

SMALL_WORK = 300_000_000
"""Multiplications that one thread does alone: a token of 300M parameters, 30 tokens of 10M."""


@contextlib.contextmanager
def threads_for(n_multiplications: int) -> Iterator[None]:
    """Use one thread for a block with little work; otherwise leave PyTorch's number as it is."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1 if n_multiplications <= SMALL_WORK else n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class Threads:
    """Finds out how many threads are fastest now, by trying others from time to time.

    On a machine that others use, too, it takes fewer, and more again when they have ended. Long steps (a
    prompt) and short ones (a token) are measured apart.

    Parameters
    ----------
    n_most
        The largest number; as many as PyTorch would take when left out.
    clock
        What gives the time in seconds.
    """

    def __init__(self, n_most: int | None = None, clock: Callable[[], float] = time.perf_counter):
        self.n_most = n_most or torch.get_num_threads()
        self._clock = clock
        self._kinds = {is_long: _Choice(self.n_most) for is_long in (False, True)}

    @contextlib.contextmanager
    def timed(self, n_tokens: int) -> Iterator[int]:
        """Give the number of threads for a step of so many tokens, and learn from how long it takes."""
        choice = self._kinds[n_tokens >= LONG_STEP]
        start = self._clock()
        n_threads = choice.next(start)
        yield n_threads
        end = self._clock()
        choice.took(n_threads, end - start, n_tokens, end)


LONG_STEP = 8
"""Tokens from which on a step counts as long."""
PROBE_S = 0.5
"""Another number is tried so often, and at most for a tenth of the time."""
N_TRIED = 2
"""Steps of a trial: a single one may be slow by chance."""
BETTER = 0.9
"""A number takes over when it needs less than this part of the time."""


class _Choice:
    """The best number of threads so far, and the trial that is going on."""

    def __init__(self, n_most: int):
        self.n = self._n_most = n_most
        self._cost: float | None = None
        self._tried: list[float] = []
        self._candidate = n_most
        self._n_trials = 0
        self._next_trial = -math.inf

    def next(self, now: float) -> int:
        """Return the number for the next step."""
        if not self._tried and self._cost is not None and now >= self._next_trial:
            others = [self.n - 1, self.n + 1, self.n // 2, 2 * self.n]
            others = [n for n in others if 1 <= n <= self._n_most and n != self.n]
            self._n_trials += 1
            self._candidate = others[self._n_trials % len(others)] if others else self.n
            self._next_trial = math.inf  # until this one has ended
        return self._candidate

    def took(self, n_threads: int, step_s: float, n_tokens: int, now: float) -> None:
        """Learn what a step took."""
        cost = step_s / n_tokens
        if n_threads == self.n:
            if self._cost is None:
                self._next_trial = now + PROBE_S
            self._cost = cost if self._cost is None else 0.7 * self._cost + 0.3 * cost
            return
        assert self._cost is not None
        self._tried.append(cost)
        if len(self._tried) < N_TRIED:
            return
        mean = sum(self._tried) / N_TRIED
        self._next_trial = now + max(PROBE_S, 10 * N_TRIED * step_s)
        if mean < BETTER * self._cost:
            self.n, self._cost = n_threads, mean
        self._candidate, self._tried = self.n, []
