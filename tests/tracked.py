"""The files that belong to the project, which are those that git tracks.

What somebody leaves in the checkout (a run, notes, a script) is theirs: no test judges it. Where git does not
say what belongs (an unpacked archive, another owner's folder), everything does, and the head of the test run
says so.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

SKIPPED = frozenset({"__pycache__", "build", "dist", "runs"})
"""Folders that are nobody's sources, where git does not say it."""


@functools.cache
def is_known(root: Path = ROOT) -> bool:
    """Whether git says what belongs to the project."""
    return _listed(root) is not None


@functools.cache
def tracked_files(root: Path = ROOT) -> tuple[Path, ...]:
    """Every file of the project that is there, in order."""
    names = _listed(root)
    found = _found(root) if names is None else [root / name for name in names]
    return tuple(sorted(path for path in found if path.is_file()))


def is_tracked(path: Path, root: Path = ROOT) -> bool:
    """Whether a file belongs to the project, or a folder holds something that does."""
    return path in _tracked_paths(root)


def is_left_out(path: Path, named: Sequence[Path], root: Path = ROOT) -> bool:
    """Whether a file or folder of tests is somebody's own, and not to be run.

    Parameters
    ----------
    path
        Of the file or folder.
    named
        What the user wants to run. Who names a test, or a folder of tests, wants it whoever tracks it.
    root
        Of the project.
    """
    if not is_known(root) or is_tracked(path, root):
        return False
    return not any(path.is_relative_to(one) for one in named if one not in (root, root / "tests"))


def copy_tracked(folder: Path, root: Path = ROOT) -> Path:
    """Put the project's files into a folder, as they are now, and return it."""
    for path in tracked_files(root):
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


@functools.cache
def _tracked_paths(root: Path) -> frozenset[Path]:
    files = tracked_files(root)
    return frozenset(files) | {folder for path in files for folder in path.parents}


def _listed(root: Path) -> list[str] | None:
    """The names that git tracks, or None where it knows of no such project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, capture_output=True, env=environment, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    # Within somebody else's repository there is an answer too, and it is about other files.
    return names if "pyproject.toml" in names else None


def _found(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED and not name.startswith(".")]
        found += [Path(folder, name) for name in names]
    return found
