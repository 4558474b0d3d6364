"""The training loop. It can be killed at any moment and started again, and ends with the same weights.

That works because a batch is a function of its step's number, so that the state is nothing but the
weights, the optimizers' averages and a counter, which the checkpoint keeps.

B batch, T tokens.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.model.cross_entropy import IGNORED
from techtree.lm.model.initialization import initialize
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train import checkpoint
from techtree.lm.train.checkpoint import Checkpoint
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.interruption import deferred_interrupt
from techtree.lm.train.optimization import optimizers
from techtree.lm.train.precision import compute_dtype
from techtree.lm.train.schedule import lr_scale

_MAY_CHANGE = ("checkpoint_interval_s",)
"""What a resumed run may have otherwise."""


class Batches(Protocol):
    """The data, in an order that depends on nothing but the step's number."""

    def batch(self, step: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a step; a target of -100 does not count."""
        ...


@dataclass(frozen=True)
class Step:
    """What a step came to."""

    step: int
    """How many steps were taken, this one included."""
    n_steps: int
    loss: float
    """The mean cross-entropy of its batch before the update, in nats per token."""
    tokens: int
    """How many tokens were in its batch."""
    tokens_per_s: float
    seconds: float
    """How long the run has taken, over all resumes."""
    lr_scale: float


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    batches: Batches,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
    device: torch.device | str = "cpu",
) -> LanguageModel:
    """Train a model, or go on where the folder's checkpoint stands.

    Parameters
    ----------
    model_config
        The model's shape.
    train_config
        The recipe.
    batches
        The data.
    folder
        Where the checkpoint is kept.
    on_step
        Called after every step.
    device
        Where to compute.

    Returns
    -------
    The trained model, which computes in the precision of its float32 weights.

    Raises
    ------
    InputError
        When the checkpoint is damaged or of another run, when it cannot be written, or when the
        training diverges.
    KeyboardInterrupt
        At Ctrl-C, after a checkpoint was saved.
    """
    run = _Run(model_config, train_config, batches, folder, torch.device(device))
    run.resume_or_start()
    saved_at = time.monotonic()
    try:
        while run.step < train_config.n_steps:
            on_step(run.advance())
            if time.monotonic() - saved_at >= train_config.checkpoint_interval_s:
                run.save()
                saved_at = time.monotonic()
    except KeyboardInterrupt:
        run.save()
        raise
    run.save()
    run.model.compute_dtype = None
    return run.model


class _Run:
    """The state of a training, and the three things that happen to it: advance, save, resume."""

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        batches: Batches,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.config = config
        self.batches = batches
        self.folder = folder
        self.device = device
        dtype = compute_dtype(device)
        self.model = LanguageModel(model_config, dtype)
        initialize(self.model, torch.Generator().manual_seed(config.seed))
        self.model.to(device)
        self.optimizers = optimizers(self.model, config, dtype)
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.settings = {
            "model": dataclasses.asdict(model_config),
            "train": {k: v for k, v in dataclasses.asdict(config).items() if k not in _MAY_CHANGE},
            "data": _fingerprint(batches),
        }

    def advance(self) -> Step:
        """Take one step."""
        started = time.monotonic()
        ids, targets = self.batches.batch(self.step)
        loss = self._accumulate_gradients(ids, targets)
        if not math.isfinite(loss):
            raise InputError(self._diverged(f"the loss is {loss}"))
        config = self.config
        scale = lr_scale(self.step, config.n_steps, config.warmup_steps, config.decay_fraction)
        with deferred_interrupt():
            for optimizer in self.optimizers.values():
                optimizer.update(self.step + 1, scale)
            took = time.monotonic() - started
            self.step += 1
            self.seconds += took
            self.losses.append(loss)
        return Step(
            step=self.step,
            n_steps=config.n_steps,
            loss=loss,
            tokens=ids.numel(),
            tokens_per_s=ids.numel() / took,
            seconds=self.seconds,
            lr_scale=scale,
        )

    def _accumulate_gradients(self, ids: Tensor, targets: Tensor) -> float:
        """Set the parameters' gradients to those of the batch's mean loss, and return that loss."""
        n_parts = self.config.n_micro_batches
        if n_parts > len(ids):
            raise InputError(
                f"n_micro_batches must be at most the rows of a batch; got {n_parts} for {len(ids)} rows"
            )
        self.model.zero_grad()
        n_counted = (targets != IGNORED).sum().item()
        total = 0.0
        for part_ids, part_targets in zip(ids.chunk(n_parts), targets.chunk(n_parts), strict=True):
            # A part counts by its targets: the mean of the parts' means would be another one.
            n_part = (part_targets != IGNORED).sum().item()
            if n_part == 0 and n_counted:
                continue
            share = n_part / n_counted if n_counted else 1.0
            loss = self.model.loss(part_ids.to(self.device), part_targets.to(self.device)) * share
            loss.backward()
            total += loss.item()
        return total

    def save(self) -> None:
        """Replace the checkpoint, unless the weights are broken."""
        tensors = self._tensors()
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise InputError(self._diverged(f"{name} is no longer finite"))
        checkpoint.save(self.folder, Checkpoint(self.step, self.seconds, self.settings, self.losses, tensors))

    def resume_or_start(self) -> None:
        """Take over the folder's checkpoint; where there is none, write the first one.

        A folder that cannot be written thus says so before the work and not after it.
        """
        checkpoint.remove_torn(self.folder)
        found = checkpoint.load(self.folder)
        if found is None:
            self.save()
            return
        _check_same(found.settings, self.settings, self.folder / checkpoint.FILE_NAME)
        tensors = self._tensors()
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in found.tensors.items()}:
            raise InputError(
                f"{self.folder / checkpoint.FILE_NAME} does not hold this model's tensors: "
                "choose another folder"
            )
        for name, tensor in tensors.items():
            tensor.detach().copy_(found.tensors[name])
        self.step, self.seconds, self.losses = found.step, found.seconds, list(found.losses)

    def _tensors(self) -> dict[str, Tensor]:
        """Return everything that a step changes."""
        tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in self.model.named_parameters()}
        for optimizer_name, optimizer in self.optimizers.items():
            tensors |= {f"{optimizer_name}.{name}": t for name, t in optimizer.state.items()}
        return tensors

    def _diverged(self, what: str) -> str:
        return (
            f"training diverged: {what} at step {self.step}. The last checkpoint in {self.folder} is from "
            "before; start again in another folder with lower learning rates, e.g. "
            f"muon_lr={self.config.muon_lr / 2:g}, embedding_lr={self.config.embedding_lr / 2:g}"
        )


def _fingerprint(batches: Batches) -> str:
    """Return a hash of the first batch: other data begin otherwise."""
    ids, targets = batches.batch(0)
    return hashlib.sha256(ids.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()[:16]


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path, prefix: str = "") -> None:
    """Refuse to resume with another setting, by the name of the first that differs."""
    for name in old.keys() | new.keys():
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            _check_same(before, now, path, f"{name} config's ")
        elif before != now:
            raise InputError(
                f"a run must resume with what it began with; {path} has {prefix}{name}={before!r}, "
                f"now it is {now!r}: give the old value, or choose another folder"
            )
