"""Whether programs are right, decided by running them; and how often, with k tries."""

import math
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from techtree.sandbox import Limits, run

LIMITS = Limits(cpu_seconds=5, wall_seconds=30.0)
"""On a machine that is busy, a program takes longer to get its seconds."""


def passes(program: str) -> bool:
    """Run a program, tests included, and tell whether it reaches its end.

    What it returns as its exit code is no proof: ``sys.exit(0)`` before the tests gives the same. So a word
    that is drawn anew for each run is printed after the last line, and must be the end of the output.
    A program that looks for the word in its own code can forge it; nothing that writes functions does.
    """
    word = secrets.token_hex(16)
    outcome = run(f"{program}\nprint({word!r})", LIMITS)
    return outcome.ending == "exited" and outcome.exit_code == 0 and outcome.output.endswith(f"{word}\n")


def all_passing(programs: Sequence[str], n_workers: int = 2) -> list[bool]:
    """Run programs, some at a time."""
    with ThreadPoolExecutor(n_workers) as pool:
        return list(pool.map(passes, programs))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that one of k answers is right, drawn without replacement from n of which c are.

    This estimates without bias what k fresh answers would achieve (Chen et al. 2021).

    >>> pass_at_k(3, 1, 2)
    0.6666666666666667
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"0 <= c <= n and 1 <= k <= n must hold; got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))


@dataclass(frozen=True)
class Rate:
    """A mean over problems, and its standard error over them."""

    value: float
    error: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float] | Sequence[bool]) -> "Rate":
        """Return the mean of values; nan for none."""
        n = len(values)
        mean = float(np.mean(values)) if n else math.nan
        return cls(mean, float(np.std(values)) / math.sqrt(n) if n else math.nan, n)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.error:.1f}" if self.n else "-"
