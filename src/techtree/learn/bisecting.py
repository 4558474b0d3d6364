"""Which of the learner's technologies changes a model's answer.

The model runs again and again, each time in a new process, with some of the learner's files in place of ours.
What is compared are the scores of all tokens at every place of one text: they differ before the words do.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from techtree.errors import InputError

TOLERANCE = 1e-4
"""Relative to the largest score. In float32, another order of summation makes a tenth of that."""

TIMEOUT_S = 120
"""For one run; ours take seconds."""


@dataclass(frozen=True)
class Answer:
    """What a run gave."""

    scores: np.ndarray | None
    """(T, V); None where the learner's code failed."""
    used: tuple[str, ...]
    """The technologies that ran."""
    failure: str = ""
    """Why there are no scores."""

    def differs(self, other: "Answer") -> bool:
        """Tell whether the scores are others."""
        if self.scores is None or other.scores is None or self.scores.shape != other.scores.shape:
            return True
        off = np.abs(self.scores - other.scores).max()
        return not off <= TOLERANCE * np.abs(other.scores).max()  # NaN differs

    def told(self, ours: "Answer") -> str:
        """Return how it differs, in words."""
        if self.scores is None or ours.scores is None:
            return self.failure
        if self.scores.shape != ours.scores.shape:
            return f"scores of the shape {self.scores.shape} in place of {ours.scores.shape}"
        off = np.abs(self.scores - ours.scores)
        place, token = np.unravel_index(off.argmax(), off.shape)
        return (
            f"at place {place} of the text, token {token} scores {self.scores[place, token]:.4g} "
            f"in place of {ours.scores[place, token]:.4g}"
        )


class Bisection:
    """The search on one model and one text.

    Parameters
    ----------
    folder
        The model's.
    ids
        The text's tokens.
    files
        Technology -> the learner's file, prerequisites before what stands on them.
    """

    def __init__(self, folder: Path, ids: Sequence[int], files: Mapping[str, Path]):
        self._folder = folder
        self._ids = list(ids)
        self._files = dict(files)
        self.ours = self.run([])
        if self.ours.scores is None:
            raise InputError(f"the model must run on our code; {self.ours.failure}")
        self.names = [name for name in self._files if name in self.ours.used]
        """The learner's technologies that the model uses."""

    def culprits(self) -> Iterator[tuple[str, str]]:
        """Yield each technology that changes the answer, and how it does.

        One is found by halving: the last of the first k files, where k is the smallest number with which the
        answer is another. Then it is left out, and the next is looked for.
        """
        left = list(self.names)
        while left and (answer := self.run(left)).differs(self.ours):
            low, high = 0, len(left)  # the answer is ours with the first `low`, another with the first `high`
            while high - low > 1:
                middle = (low + high) // 2
                tried = self.run(left[:middle])
                if tried.differs(self.ours):
                    high, answer = middle, tried
                else:
                    low = middle
            yield left.pop(high - 1), answer.told(self.ours)

    def run(self, names: Sequence[str]) -> Answer:
        """Run the model with some of the learner's files.

        Raises
        ------
        InputError
            When it takes too long.
        """
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "scores.npy"
            question = {
                "folder": str(self._folder),
                "ids": self._ids,
                "files": {name: str(self._files[name]) for name in names},
                "out": str(out),
            }
            try:
                run = subprocess.run(
                    [sys.executable, "-P", "-m", "techtree.learn.trial"],
                    input=json.dumps(question),
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_S,
                )
            except subprocess.TimeoutExpired:
                raise InputError(
                    f"a run with your {', '.join(names)} must end within {TIMEOUT_S} s: check them"
                ) from None
            if not out.is_file():
                last = run.stderr.strip().rpartition("\n")[2] or f"exit code {run.returncode}"
                return Answer(None, (), f"the run failed: {last}")
            told = json.loads((Path(scratch) / "told.json").read_text(encoding="utf-8"))
            return Answer(np.load(out), tuple(told))
