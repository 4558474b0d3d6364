"""The state of a run in one file, replaced as a whole: a kill leaves the old state or the new one.

The file is safetensors: tensors, and a JSON text in the header. Nothing in it is ever executed.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from techtree.atomic import atomic_writer
from techtree.errors import InputError

FILE_NAME = "checkpoint.safetensors"
_FORMAT = "techtree training checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands."""

    step: int
    """How many steps were taken."""
    seconds: float
    """How long they took, over all resumes."""
    settings: dict[str, Any]
    """What must not change between resumes, by name."""
    losses: list[float]
    """The loss of every step."""
    tensors: dict[str, Tensor]
    """Weights and optimizer state."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the folder's last one.

    Raises
    ------
    InputError
        When the folder cannot be written or the disk is full; the last checkpoint is intact.
    """
    state = {name: getattr(checkpoint, name) for name in ("step", "seconds", "settings", "losses")}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = safetensors.torch.save(tensors, {"format": _FORMAT, "state": json.dumps(state)})
    try:
        with atomic_writer(folder / FILE_NAME) as file:
            file.write(data)
    except OSError as error:
        raise InputError(
            f"the checkpoint of step {checkpoint.step} could not be written to {folder} "
            f"({error.strerror or error}); the one before it, if any, is intact: make room or choose "
            "another folder, and start the same command again"
        ) from error


def load(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, or None when there is none.

    Raises
    ------
    InputError
        When the file is not a whole checkpoint of this program. It is left as it is: whether to
        throw work away is not for a program to decide.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise InputError(_refusal(path, "it is not a checkpoint of this version of techtree"))
            state = json.loads(metadata["state"])
            # Copies: a tensor that maps the file would keep it open, and change with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return Checkpoint(**state, tensors=tensors)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(_refusal(path, f"it is damaged ({error})")) from error


def _refusal(path: Path, why: str) -> str:
    return f"{path} cannot be resumed: {why}. Move it away to train from the start, or choose another folder"


def remove_torn(folder: Path) -> None:
    """Delete what a killed run had half written."""
    for part in folder.glob(f".{FILE_NAME}.*.part"):
        with contextlib.suppress(OSError):
            part.unlink()
