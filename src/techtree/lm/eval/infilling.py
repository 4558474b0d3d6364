"""How well holes are filled in: what stood there, what works, and what an editor's user must never see."""

import ast
import difflib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from techtree.lm.eval.pass_rate import Rate, all_passing
from techtree.lm.eval.problems import Hole

SENTINEL = re.compile(
    r"<\|?(?:fim_\w+|endoftext|file_sep|repo_name|im_start|im_end|filename|reponame)\|?>|<(?:PRE|SUF|MID|EOT)>"
)
"""Special tokens of the models that fill in."""

REPETITION = re.compile(r"(.{8,}?)\1\1", re.DOTALL)
"""Eight characters or more, three times in a row."""


@dataclass(frozen=True)
class Answer:
    """What a model would insert."""

    text: str
    has_ended: bool = True
    """Whether it came to an end before a limit."""


@dataclass(frozen=True)
class Infilling:
    """Figures over holes, each a share in which more is better unless it says otherwise."""

    exact: Rate
    """What stood there, but for blanks around it; of a line, the first line of the answer counts."""
    similarity: Rate
    """Of the answer to what stood there: twice the characters in common over those of both."""
    passing: Rate
    """The program with it passes its tests; only of holes that have some."""
    valid: Rate
    """The text with it is Python; only of answers that are not empty."""
    ended: Rate
    """The answer came to its end before a limit."""
    leaking: Rate
    """It shows a special token. Less is better."""
    repeating: Rate
    """It says the same three times in a row. Less is better."""


def inserted(hole: Hole, answer: Answer) -> str:
    """Return what counts of an answer: its first line where a line is missing, else all."""
    return answer.text.strip("\n").partition("\n")[0] if hole.is_line else answer.text


def filled(hole: Hole, text: str) -> str:
    """Return the text with the hole filled in, its line ended where it was."""
    end = "\n" if hole.middle.endswith("\n") and not text.endswith("\n") else ""
    return hole.prefix + text + end + hole.suffix


def measure(holes: Sequence[Hole], answers: Sequence[Answer], *, by_tests: bool) -> Infilling:
    """Judge answers.

    Parameters
    ----------
    holes
        What was asked.
    answers
        What came, in the same order.
    by_tests
        Whether the tests are run; only then is `passing` known.
    """
    texts = [inserted(hole, answer) for hole, answer in zip(holes, answers, strict=True)]
    programs = [
        (filled(hole, text), hole.check)
        for hole, text in zip(holes, texts, strict=True)
        if by_tests and hole.check
    ]
    return Infilling(
        exact=Rate.of([h.middle.strip() == t.strip() for h, t in zip(holes, texts, strict=True)]),
        similarity=Rate.of([similarity(h.middle, t) for h, t in zip(holes, texts, strict=True)]),
        passing=Rate.of(all_passing(programs)),
        valid=Rate.of([is_python(filled(h, t)) for h, t in zip(holes, texts, strict=True) if t.strip()]),
        ended=Rate.of([answer.has_ended for answer in answers]),
        leaking=Rate.of([SENTINEL.search(answer.text) is not None for answer in answers]),
        repeating=Rate.of([REPETITION.search(answer.text) is not None for answer in answers]),
    )


def similarity(wanted: str, got: str) -> float:
    """Return how alike two texts are, blanks around them left out: 1 for the same.

    >>> similarity("return x", "return y")
    0.875
    """
    return difflib.SequenceMatcher(None, wanted.strip(), got.strip(), autojunk=False).ratio()


def is_python(text: str) -> bool:
    """Tell whether a text can be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in a string
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def floors(holes: Sequence[Hole]) -> dict[str, list[Answer]]:
    """Return what answers without reading would be: nothing, one line for all, the line before, and after."""
    line = Counter(hole.middle.strip() for hole in holes if hole.is_line).most_common(1)
    constant = line[0][0] if line else ""
    return {
        "nothing": [Answer("") for _ in holes],
        f"always {constant!r}": [Answer(_indented(hole, constant)) for hole in holes],
        "the line before": [Answer(_indented(hole, _last_line(hole.prefix))) for hole in holes],
        "the line after": [Answer(_indented(hole, _first_line(hole.suffix))) for hole in holes],
    }


def _indented(hole: Hole, line: str) -> str:
    """Return a line as the hole needs it."""
    blanks = len(hole.middle) - len(hole.middle.lstrip(" \t"))
    return hole.middle[:blanks] + line.strip()


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.split("\n")[:-1]) if line.strip()), "")


def _first_line(text: str) -> str:
    return next((line for line in text.split("\n") if line.strip()), "")
