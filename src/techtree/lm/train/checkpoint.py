"""The state of a run in a folder: a file of tensors from each rank, and `checkpoint.json`, written last.

That file makes the folder a checkpoint; without it, it is what a killed run left. The files are safetensors
and JSON: nothing in them is ever executed.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from techtree import atomic
from techtree.errors import InputError
from techtree.lm.formats.safetensors_file import SafetensorsFile, write_safetensors
from techtree.lm.train.ranks import Ranks, share
from techtree.lm.train.strategy import Rows

HEAD = "checkpoint.json"
_FORMAT = "techtree training checkpoint 2"
_LOSSES = "losses"
"""The losses of all steps, beside the tensors in the first rank's file."""


@dataclass(frozen=True)
class State:
    """Where a run stands, but for its tensors."""

    step: int
    """How many steps were taken."""
    seconds: float
    """How long they took, over all resumes."""
    settings: dict[str, Any]
    """What the run began with, by name."""
    losses: list[float]
    """The loss of every step."""


def save(folder: Path, state: State, tensors: Mapping[str, Rows], ranks: Ranks) -> None:
    """Write a checkpoint. All ranks call this, each with the rows that it has.

    Parameters
    ----------
    folder
        A new one.
    state, tensors
        What to write. A rank writes its share of each tensor's rows; it may have more than that.
    ranks
        Who writes.

    Raises
    ------
    InputError
        When one of the ranks cannot write, or the disk is full.
    """
    shares = {}
    for name, (tensor, first, n_rows) in tensors.items():
        mine = ranks.share(n_rows)
        shares[name] = tensor.detach()[mine.start - first : mine.stop - first]
    if ranks.is_first:
        shares[_LOSSES] = torch.tensor(state.losses, dtype=torch.float64)
    with ranks.together(), _writing(folder, state.step):
        metadata = _metadata(ranks.rank, state.step)
        write_safetensors(folder / _file_name(ranks.rank, ranks.n_ranks), shares, metadata)
    head = {
        "format": _FORMAT,
        "step": state.step,
        "seconds": state.seconds,
        "n_ranks": ranks.n_ranks,
        "settings": state.settings,
    }
    with ranks.together(), _writing(folder, state.step):
        if ranks.is_first:
            atomic.write_text(folder / HEAD, json.dumps(head, indent=1) + "\n")
            _flush_names(folder)
    with ranks.together():
        if not (folder / HEAD).exists():
            raise InputError(
                f"all ranks must write to one folder, on a file system that all machines share; {folder} of "
                f"rank {ranks.rank} has no {HEAD}, which rank 0 wrote: choose another folder"
            )


@contextlib.contextmanager
def _writing(folder: Path, step: int) -> Iterator[None]:
    """Turn what the file system says into what a user can do about it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the checkpoint of step {step} could not be written to {folder} ({error.strerror or error}); "
            "the one before it, if any, is intact: make room or choose another folder, and start the same "
            "command again"
        ) from error


def _flush_names(folder: Path) -> None:
    """Make the new names last: an older checkpoint, which goes next, must not vanish alone in a power cut."""
    for path in (folder, folder.parent):
        with contextlib.suppress(OSError):  # Windows opens no folders.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Checkpoint:
    """A checkpoint on disk. Opening it reads no tensor, and finds files that are missing or cut short.

    Parameters
    ----------
    folder
        Of the checkpoint.

    Raises
    ------
    InputError
        When it is damaged, or not of this version of the program.
    """

    folder: Path
    state: State
    shapes: dict[str, tuple[int, ...]]
    """Of the whole tensors, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise _ForeignError
            n_ranks = head["n_ranks"]
            self._files = [SafetensorsFile(folder / _file_name(rank, n_ranks)) for rank in range(n_ranks)]
            for rank, file in enumerate(self._files):
                if file.metadata != _metadata(rank, head["step"]):
                    raise ValueError(f"{file.path.name} is not of rank {rank} and step {head['step']}")
            self.shapes = _whole_shapes(self._files)
            losses = torch.empty(self._files[0].shape(_LOSSES), dtype=torch.float64)
            self._files[0].read_into(_LOSSES, losses)
            self.state = State(head["step"], head["seconds"], head["settings"], losses.tolist())
        except _ForeignError:
            raise InputError(
                f"{folder} cannot be resumed: it is not a checkpoint of this version of techtree"
            ) from None
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"{folder} cannot be resumed: it is damaged ({error})") from error

    def read_into(self, name: str, rows: Rows) -> None:
        """Read some rows of a tensor, from the files that have them."""
        first, last = rows.first, rows.first + len(rows.tensor)
        for rank, file in enumerate(self._files):
            theirs = share(rows.n_rows, rank, len(self._files))
            start, stop = max(first, theirs.start), min(last, theirs.stop)
            if start < stop:
                out = rows.tensor[start - first : stop - first]
                file.read_into(name, out, slice(start - theirs.start, stop - theirs.start))


def _metadata(rank: int, step: int) -> dict[str, str]:
    return {"format": _FORMAT, "rank": str(rank), "step": str(step)}


def _whole_shapes(files: list[SafetensorsFile]) -> dict[str, tuple[int, ...]]:
    """Put the shapes of all ranks' rows together, and see that each rank has its share of every tensor."""
    names = set(files[0].names) - {_LOSSES}
    shapes = {}
    for file in files:
        if odd := (set(file.names) - {_LOSSES}) ^ names:
            raise ValueError(f"only some of the ranks have {min(odd)}")
    for name in names:
        parts = [file.shape(name) for file in files]
        n_rows, others = sum(part[0] for part in parts), parts[0][1:]
        for rank, part in enumerate(parts):
            mine = share(n_rows, rank, len(files))
            if part != (mine.stop - mine.start, *others):
                raise ValueError(f"rank {rank} has no fair share of {name}")
        shapes[name] = (n_rows, *others)
    return shapes


class _ForeignError(Exception):
    """Some other program's checkpoint."""


def _file_name(rank: int, n_ranks: int) -> str:
    return f"rank-{rank:05}-of-{n_ranks:05}.safetensors"
