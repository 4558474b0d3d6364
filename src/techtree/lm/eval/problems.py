"""Problems that tell how useful a model is: holes to fill in, and functions to write.

The files are those of HumanEval (Chen et al. 2021) and of its infilling variants (Bavarian et al. 2022): JSON
Lines, gzipped or not.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from techtree.errors import InputError
from techtree.lm.data.corpus import Document

MAX_BYTES = 1 << 28
"""Of an unpacked file of problems."""

_problem_kind = TypeVar("_problem_kind")
_FIELDS = ("task_id", "prompt", "canonical_solution", "suffix", "test", "entry_point")


@dataclass(frozen=True)
class Hole:
    """A text with a part missing."""

    name: str
    prefix: str
    middle: str
    """What is missing."""
    suffix: str
    check: str = ""
    """A program that fails if what stands in the hole is wrong; it sees the names of the text's."""

    @property
    def is_line(self) -> bool:
        """Whether no more than a line is missing."""
        return "\n" not in self.middle.rstrip("\n")


@dataclass(frozen=True)
class Exercise:
    """The beginning of a function to write."""

    name: str
    prompt: str
    solution: str
    """What stands there in the file; it is right."""
    check: str
    """A program that fails if the function is wrong; it sees the names of the function's program."""


def read_problems(path: Path) -> list[Hole] | list[Exercise]:
    """Return the problems in a file, all of one kind.

    Raises
    ------
    InputError
        When it cannot be read, or holds something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} must have at most {MAX_BYTES:,} bytes: give a part of it")
        entries = [json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip()]
        problems = [_problem(entry) for entry in entries]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} must be a file of problems that can be read: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} must hold a problem of HumanEval or of its infilling variants in each line: {error!r}"
        ) from error
    holes = [each for each in problems if isinstance(each, Hole)]
    exercises = [each for each in problems if isinstance(each, Exercise)]
    if not problems or (holes and exercises):
        raise InputError(f"{path} must hold problems, all of one kind; got {len(holes)} and {len(exercises)}")
    return holes or exercises


def _problem(entry: object) -> Hole | Exercise:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name, ""), str) for name in _FIELDS):
        raise TypeError("its fields must be texts")
    check = f"{entry['test']}\ncheck({entry['entry_point']})\n"
    if "suffix" in entry:
        return Hole(entry["task_id"], entry["prompt"], entry["canonical_solution"], entry["suffix"], check)
    return Exercise(entry["task_id"], entry["prompt"], entry["canonical_solution"], check)


def holes_in(documents: Sequence[Document], n: int, rng: np.random.Generator) -> list[Hole]:
    """Take lines out of documents, or what stands behind a random place in a line; half of them each.

    Parameters
    ----------
    documents
        Texts; those are taken in turn that have a line which is not blank.
    n
        How many holes to make.
    rng
        Decides which lines.
    """
    texts = [document for document in documents if document.text.strip()]
    if not texts:
        raise InputError("a hole needs a text with a line that is not blank; got none")
    holes = []
    for i in range(n):
        document = texts[i % len(texts)]
        lines = document.text.split("\n")
        number = int(rng.choice([number for number, line in enumerate(lines) if line.strip()]))
        line = lines[number].rstrip()
        start = len(line) - len(line.lstrip())
        if i // len(texts) % 2:
            start = int(rng.integers(start, len(line)))
        before = "".join(f"{each}\n" for each in lines[:number]) + line[:start]
        after = "".join(f"\n{each}" for each in lines[number + 1 :])
        holes.append(Hole(f"{document.path}:{number + 1}:{start + 1}", before, line[start:], after))
    return holes


def drawn(problems: Sequence[_problem_kind], n: int, rng: np.random.Generator) -> list[_problem_kind]:
    """Return so many problems, drawn at random and in their order; all of them for 0."""
    if not 0 < n < len(problems):
        return list(problems)
    return [problems[i] for i in sorted(rng.choice(len(problems), n, replace=False))]
