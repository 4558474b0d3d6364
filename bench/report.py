"""What every benchmark prints: on what it ran, a table, and how to run it again; and its exit code."""

import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import tyro

import techtree
from techtree.errors import InputError

_Config = TypeVar("_Config")


def run(main: Callable[[_Config], None], config: type[_Config]) -> int:
    """Parse the words of the command line and do the work.

    Returns
    -------
    int
        0 when all went well, 2 for an input that cannot be used.
    """
    try:
        main(tyro.cli(config))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table whose columns are aligned, all but the first to the right.

    >>> print(table(["who", "seconds"], [["we", 1.5], ["they", 12]]))
    | who  | seconds |
    | :--- | ------: |
    | we   |     1.5 |
    | they |      12 |
    """
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [":" + "-" * (width - 1) if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in (lines[0], rule, *lines[1:])
    )


def conditions(*packages: str, n_threads: int) -> str:
    """Return the machine and the versions in two lines."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"machine: {_processor()}, {n_threads} of {os.cpu_count()} cores, {platform.system()}\n"
        f"versions: techtree {techtree.__version__}, Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    """Return the processor's name, by Linux where there is one: Python does not know it there."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in named:
        return platform.processor() or platform.machine()
    return f"{named['model name']} (family {named.get('cpu family')}, model {named.get('model')})"


def again() -> str:
    """Return the command that repeats this."""
    name = Path(sys.argv[0]).stem
    return f"again: ./techtree bench {shlex.join([name, *sys.argv[1:]])}"
