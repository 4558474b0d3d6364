"""Whether programs are right, decided by running them; and how often, with k tries."""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from techtree.sandbox import Limits, run

LIMITS = Limits(cpu_seconds=5, wall_seconds=30.0)
"""On a machine that is busy, a program takes longer to get its seconds."""


_JUDGE = """\
import builtins, hashlib, os, secrets, sys, types


def judge(program, check):
    # What is needed behind the program is taken before it can put something else in its place.
    write, leave, run, plain = os.write, os._exit, exec, dict(vars(builtins))
    check = compile(check, "check", "exec")
    word = secrets.token_hex(16).encode()
    write(1, hashlib.sha256(word).hexdigest().encode() + b"\\n")
    module = sys.modules["solution"] = types.ModuleType("solution")
    run(compile(program, "solution", "exec"), vars(module))
    run(check, {**vars(module), **plain, "__name__": "check", "__builtins__": plain})
    write(1, b"\\n" + word + b"\\n")
    leave(0)


"""


def passes(program: str, check: str) -> bool:
    """Run a program and then its tests, and tell whether they come to their end.

    Neither the exit code nor a word in the source is proof of that: ``sys.exit(0)`` gives the one, and a
    program that reads its own text the other. So the process draws a word, and tells its hash before the
    program begins, and the word itself after the last test; the lesson on pass@k has more. A program that
    looks into the frames of its callers can still forge it; nothing that merely writes functions does.
    """
    outcome = run(f"{_JUDGE}judge({program!r}, {check!r})\n", LIMITS)
    told, *lines = outcome.output.splitlines() or [""]
    return any(hashlib.sha256(line.encode("utf-8", "replace")).hexdigest() == told for line in lines)


def all_passing(programs: Sequence[tuple[str, str]], n_workers: int = 2) -> list[bool]:
    """Judge programs, each with its tests, some at a time."""
    with ThreadPoolExecutor(n_workers) as pool:
        return list(pool.map(lambda pair: passes(*pair), programs))


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
        """Return the mean of values, nan for none, and its error, nan for a single one."""
        n = len(values)
        mean = float(np.mean(values)) if n else math.nan
        return cls(mean, float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan, n)

    def __str__(self) -> str:
        error = f" ± {100 * self.error:.1f}" if self.n > 1 else ""
        return f"{100 * self.value:.1f}{error}" if self.n else "-"
