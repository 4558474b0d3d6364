"""`techtree bench NAME ...`: run a benchmark of the clone's folder bench/."""

import ast
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

import techtree
from techtree.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Config:
    """Measure the program beside its peers: without a name, list the benchmarks.

    What follows the name is the benchmark's own; `techtree bench NAME --help` explains it. A peer that is not
    there is skipped, and the result says so.
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    """The benchmark, e.g. throughput."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="...")] = field(default=())
    """What the benchmark gets."""


def run(config: Config) -> int:
    """List the benchmarks, or run one and return its exit code."""
    programs = benchmarks()
    if not config.name:
        print("\n".join(f"  {name:<14} {summary(path)}" for name, path in programs.items()))
        return 0
    if config.name not in programs:
        raise InputError(
            f"unknown benchmark {config.name!r}{did_you_mean(config.name, programs)} "
            "(techtree bench lists all)"
        )
    return subprocess.run([sys.executable, programs[config.name], *config.words], check=False).returncode


def benchmarks() -> dict[str, Path]:
    """Return the programs of the folder, by name.

    Raises
    ------
    InputError
        When this is no clone: the benchmarks are not installed.
    """
    folder = Path(techtree.__file__).parents[2] / "bench"
    if not folder.is_dir():
        raise InputError(
            f"the benchmarks are in a clone of techtree, which {folder.parent} is not: clone it, and run "
            "./techtree bench there"
        )
    found = sorted(folder.glob("*.py"))
    return {path.stem: path for path in found if b'if __name__ == "__main__"' in path.read_bytes()}


def summary(path: Path) -> str:
    """Return the first line of a program's description, up to the example of how to call it."""
    try:
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"no program: {error}"
    return text.partition("\n")[0].partition(": `")[0].rstrip(".")
