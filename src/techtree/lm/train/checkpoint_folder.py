"""The checkpoints of a run: which there are, which is the newest, which may go."""

import os
import re
import shutil
from pathlib import Path

from techtree.errors import InputError
from techtree.lm.train.checkpoint import HEAD, Checkpoint

CHECKPOINTS = "checkpoints"
"""The name of their folder within the run's."""

_NAME = re.compile(r"step-(\d{8,})")


def checkpoint_path(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint after so many steps."""
    return run / CHECKPOINTS / f"step-{step:08}"


def step_of(checkpoint: Path) -> int:
    """Return after how many steps a checkpoint was written, by its folder's name."""
    found = _NAME.fullmatch(checkpoint.name)
    assert found is not None, checkpoint
    return int(found[1])


def checkpoint_paths(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, oldest first; damage is found when one is opened."""
    return sorted((path for path in _step_folders(run) if (path / HEAD).exists()), key=step_of)


def _step_folders(run: Path) -> list[Path]:
    folder = run / CHECKPOINTS
    return [path for path in folder.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]


def newest(run: Path) -> Checkpoint | None:
    """Open the newest checkpoint of a run; None when there is none.

    Raises
    ------
    InputError
        When it is damaged. It is left as it is: whether to throw work away is not for a program to decide.
    """
    paths = checkpoint_paths(run)
    if not paths:
        return None
    try:
        return Checkpoint(paths[-1])
    except InputError as error:
        older = next((path for path in reversed(paths[:-1]) if _is_intact(path)), None)
        if older is None:
            raise InputError(
                f"{error}. No older one is intact: move {run / CHECKPOINTS} away to train from the start, or "
                "choose another folder"
            ) from error
        damaged = " and ".join(str(path) for path in paths[paths.index(older) + 1 :])
        raise InputError(
            f"{error}. {older} is intact: move {damaged} away, and the same command goes on from step "
            f"{step_of(older)}"
        ) from error


def _is_intact(path: Path) -> bool:
    try:
        Checkpoint(path)
    except InputError:
        return False
    return True


def before(run: Path, step: int) -> Path | None:
    """Return the newest checkpoint whose weights are older than those of a step; None if there is none."""
    return next((path for path in reversed(checkpoint_paths(run)) if step_of(path) < step), None)


def sweep(run: Path) -> None:
    """Delete what a killed run left half written or half deleted."""
    for path in _step_folders(run):
        if not (path / HEAD).exists():
            shutil.rmtree(path, ignore_errors=True)


def remove_old(run: Path, keep: int, also: Path | None = None) -> None:
    """Delete all checkpoints but the newest ``keep``, and this one."""
    for path in checkpoint_paths(run)[:-keep]:
        if path != also:
            # Without this file it is no checkpoint any more, however far the rest comes.
            (path / HEAD).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def check_writable(run: Path) -> None:
    """See that a resumed run will be able to write its next checkpoint.

    Raises
    ------
    InputError
        When it will not.
    """
    if not os.access(run / CHECKPOINTS, os.W_OK):
        raise InputError(
            f"a run must be able to write its checkpoints; {run / CHECKPOINTS} cannot be written: change its "
            "permissions, or copy the run's folder elsewhere"
        )


def remove_all(run: Path) -> None:
    """Delete all checkpoints of a run that needs them no more."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
