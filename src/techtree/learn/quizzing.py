"""Three questions about a technology, asked in turn; an answer is told once one's own was given."""

import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_COLUMNS = 100


@dataclass(frozen=True)
class Asked:
    """A question, its answer, and the section of the lesson that explains it."""

    text: str
    answer: str
    section: str


def quiz(asked: Sequence[Asked], read: Callable[[str], str], tell: Callable[[str], None]) -> list[Asked]:
    """Ask, and return the questions that were not known.

    Parameters
    ----------
    asked
        The questions.
    read
        Shows a prompt and returns a line; ``EOFError`` where there are no more.
    tell
        Shows a text.

    Raises
    ------
    EOFError
        When the lines end before the questions do.
    """
    missed = []
    for number, question in enumerate(asked, 1):
        tell(f"\n{_wrapped(f'{number} of {len(asked)}: {question.text}')}\n")
        while not read("your answer: ").strip():
            tell("  a guess is enough; Ctrl-C stops")
        tell(f"\n{_wrapped(question.answer, '  ')}\n")
        if not _is_yes(read, tell):
            missed.append(question)
    return missed


def _is_yes(read: Callable[[str], str], tell: Callable[[str], None]) -> bool:
    while True:
        said = read("was yours the same? y or n: ").strip().lower()
        if said in ("y", "yes"):
            return True
        if said in ("n", "no"):
            return False
        tell("  y for yes, n for no")


def _wrapped(text: str, indent: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
    return textwrap.fill(
        text, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
