"""What a run was begun with, and what may be otherwise when it is resumed or branched from."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.train.batches import Batches, Fingerprinted
from techtree.lm.train.checkpoint import Checkpoint
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.scaling import Rates

_MAY_CHANGE = (
    "checkpoint_interval_s",
    "compile",
    "keep_checkpoints",
    "n_micro_batches",
    "precision",
    "spike_patience",
    "strategy",
)
"""What a resumed run may have otherwise; the precision counts as what it comes to on this machine."""


def run_settings(
    model: ModelConfig, config: TrainConfig, data: str, dtype: torch.dtype, rates: Rates
) -> dict[str, Any]:
    """Return all that a checkpoint notes of a run, as JSON gives it back."""
    settings = {
        "model": dataclasses.asdict(model),
        "train": {k: v for k, v in dataclasses.asdict(config).items() if k not in _MAY_CHANGE},
        "data": data,
        "precision": str(dtype).removeprefix("torch."),
        "rates": dataclasses.asdict(rates),
    }
    return json.loads(json.dumps(settings))


def fingerprint(batches: Batches, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> str:
    """Return a hash of the data: of its first batch, whose tensors these are, and of all where it can tell.

    The first batch shows what the rows' order and number depend on, and nothing of the rows that come later.
    """
    digest = hashlib.sha256(ids.numpy().tobytes() + targets.numpy().tobytes())
    if isinstance(batches, Fingerprinted):
        digest.update(batches.fingerprint().encode("ascii"))
    return digest.hexdigest()[:16]


def check_division(n_rows: int, n_ranks: int, n_micro_batches: int) -> None:
    """See that a batch of so many rows can be divided among the ranks and into the parts.

    Raises
    ------
    InputError
        When it cannot.
    """
    if n_rows // n_ranks < n_micro_batches:
        ranks = f" on {n_ranks} ranks" if n_ranks > 1 else ""
        raise InputError(
            "n_micro_batches must be at most the rows of a batch that a rank gets; "
            f"got {n_micro_batches} for {n_rows} rows{ranks}"
        )


def check_same(old: dict[str, Any], new: dict[str, Any], path: Path, prefix: str = "") -> None:
    """Refuse to resume with another setting, by the name of the first that differs.

    Raises
    ------
    InputError
        When one does.
    """
    for name in dict.fromkeys((*new, *old)):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            check_same(before, now, path, f"{name} config's ")
        elif before != now and name == "data" and not prefix:
            raise InputError(
                f"a run must resume on the data that it began with; {path} began on data={before!r}, and "
                f"what is given is {now!r}, other files or tokens: give the same, or choose another folder"
            )
        elif before != now:
            raise InputError(
                f"a run must resume with what it began with; {path} has {prefix}{name}={before!r}, "
                f"now it is {now!r}: give the old value, or choose another folder"
            )


def check_branch(other: Checkpoint, settings: dict[str, Any], n_steps: int) -> None:
    """See that a run can go on from the checkpoint of another one.

    Raises
    ------
    InputError
        When the model is another, or no step is left to take.
    """
    check_same({"model": other.state.settings["model"]}, {"model": settings["model"]}, other.folder)
    if other.state.step >= n_steps:
        raise InputError(
            f"n_steps must be more than the {other.state.step} steps that {other.folder} has taken; "
            f"got {n_steps}"
        )
