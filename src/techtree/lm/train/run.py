"""The state of a training, and what happens to it: advance, save, resume.

It can be killed at any moment and started again, and ends with the same weights. That works because a batch
is a function of its step's number, so that the state is nothing but the weights, the optimizers' averages
and a counter, which the checkpoint keeps.

What the ranks decide on (loss, stop, checkpoint) they add up first, so that all decide the same.

B batch, T tokens.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.model.cross_entropy import IGNORED
from techtree.lm.model.initialization import initialize
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.quant.fake import fake_quantized
from techtree.lm.train import checkpoint, checkpoint_folder
from techtree.lm.train.batches import Batches
from techtree.lm.train.checkpoint import Checkpoint, State
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.interruption import StopRequest
from techtree.lm.train.optimization import optimizers
from techtree.lm.train.precision import chosen_dtype
from techtree.lm.train.ranks import Ranks, SharedInputError
from techtree.lm.train.replicated import Replicated
from techtree.lm.train.run_settings import (
    check_branch,
    check_division,
    check_same,
    fingerprint,
    run_settings,
)
from techtree.lm.train.scaling import scaled_rates
from techtree.lm.train.schedule import lr_scale
from techtree.lm.train.spikes import SpikeWatch
from techtree.lm.train.strategy import Rows, Strategy


@dataclass(frozen=True)
class Step:
    """What a step came to, over all ranks."""

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
    gradient_norm: float
    """The root of the sum of squares of all gradients."""
    warning: str = ""
    """What somebody should hear about this step."""


class Taken(NamedTuple):
    """A step, and what all ranks have to do now."""

    step: Step
    is_stop_asked: bool
    is_save_due: bool


class Run:
    """A training on one rank.

    Parameters
    ----------
    model_config, config, batches, folder
        What is trained, how, on what; where the checkpoints are.
    ranks
        Who trains.
    weights
        To begin with; random ones when left out.
    on_save
        Called before a checkpoint is written, on the first rank, with the losses of all steps.
    """

    step: int = 0
    """How many steps were taken."""
    seconds: float = 0.0
    """How long they took."""

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        batches: Batches,
        folder: Path,
        ranks: Ranks,
        weights: Mapping[str, Tensor] | None = None,
        on_save: Callable[[list[float]], None] = lambda losses: None,
    ) -> None:
        self.config = config
        self.batches = batches
        self.folder = folder
        self.ranks = ranks
        self.on_save = on_save
        ids, targets = batches.batch(0)
        batches.batch(0, ranks.rank, ranks.n_ranks)  # Data that cannot be divided so say it now.
        check_division(len(ids), ranks.n_ranks, config.n_micro_batches)
        dtype = chosen_dtype(config.precision, ranks.device)
        rates = scaled_rates(config, model_config.d_model, ids.numel())
        self.model = LanguageModel(model_config, dtype)
        if weights is None:
            initialize(self.model, torch.Generator().manual_seed(config.seed))
        else:
            self.model.load_state_dict(weights)
        self.is_compiled = ranks.device.type == "cuda" if config.compile is None else config.compile
        if self.is_compiled:
            # Layer by layer: they are equal, so one compilation serves all.
            for layer in self.model.model.layers:
                layer.compile()
        is_sharded = config.strategy == "sharded" and ranks.n_ranks > 1
        self.strategy: Strategy = _sharded(self.model, ranks) if is_sharded else Replicated(self.model, ranks)
        self.optimizers = optimizers(self.strategy, rates, dtype)
        self.losses: list[float] = []
        self.watch = SpikeWatch()
        self._saved_at, self._saved_step = time.monotonic(), -1
        self.settings = run_settings(model_config, config, fingerprint(batches, ids, targets), dtype, rates)

    def advance(self, stop: StopRequest) -> Taken:
        """Take one step, and tell the other ranks whether somebody asked this one to stop."""
        started = time.monotonic()
        ids, targets = self.batches.batch(self.step, self.ranks.rank, self.ranks.n_ranks)
        n_counted, n_tokens = self.ranks.sums((targets != IGNORED).sum().item(), ids.numel())
        with self._rounding():
            loss = self._accumulate_gradients(ids, targets, int(n_counted))
        due = self.ranks.is_first and started - self._saved_at >= self.config.checkpoint_interval_s
        loss, squared_norm, n_stops, n_due = self.ranks.sums(
            loss, self.strategy.squared_norm(), stop.is_made, due
        )
        if not math.isfinite(loss):
            raise SharedInputError(self._diverged(f"the loss is {loss}"))
        if not math.isfinite(squared_norm):
            raise SharedInputError(self._diverged("the gradient is no longer finite"))
        scale = self._update()
        self.losses.append(loss)
        took = time.monotonic() - started
        self.seconds += took
        step = Step(
            step=self.step,
            n_steps=self.config.n_steps,
            loss=loss,
            tokens=int(n_tokens),
            tokens_per_s=n_tokens / took,
            seconds=self.seconds,
            lr_scale=scale,
            gradient_norm=math.sqrt(squared_norm),
            warning=self._watched(loss),
        )
        return Taken(step, n_stops > 0, n_due > 0)

    def _rounding(self) -> contextlib.AbstractContextManager[None]:
        """Return what gives the model rounded weights, in the steps that compute with them."""
        kind, n_steps = self.config.quantize, self.config.n_steps
        if kind == "none" or self.step < round(n_steps * (1 - self.config.quantize_fraction)):
            return contextlib.nullcontext()
        return fake_quantized(self.model, kind)

    def _update(self) -> float:
        """Apply the gradients; return what the learning rates were multiplied with."""
        config = self.config
        scale = lr_scale(self.step, config.n_steps, config.warmup_steps, config.decay_fraction)
        gradients = self.strategy.gradients()
        self.step += 1
        for optimizer in self.optimizers.values():
            optimizer.update(gradients, self.step, scale)
        self.model.update_selection_bias(self.ranks.add_up)
        return scale

    def _accumulate_gradients(self, ids: Tensor, targets: Tensor, n_counted: int) -> float:
        """Compute this rank's part of the gradient of the batch's mean loss; return its part of the loss."""
        self.model.zero_grad()
        n_parts = self.config.n_micro_batches
        total = 0.0
        parts = zip(ids.tensor_split(n_parts), targets.tensor_split(n_parts), strict=True)
        for i, (part_ids, part_targets) in enumerate(parts, start=1):
            # A part counts by its targets: the mean of the parts' means would be another one.
            n_part = int((part_targets != IGNORED).sum())
            if n_part == 0 and n_counted:
                # The mean of no losses is NaN. All ranks must compute something, and this counts nothing.
                part_targets = part_ids
            weight = n_part / n_counted if n_counted else 1.0
            total += self.strategy.backward(
                part_ids.to(self.ranks.device), part_targets.to(self.ranks.device), weight, i == n_parts
            )
        return total

    def _watched(self, loss: float) -> str:
        """Return what there is to say about the course of the loss.

        Raises
        ------
        InputError
            When it jumped up and has not come back for too long.
        """
        is_new = self.watch.add(loss)
        spike = self.watch.spike
        if spike is None:
            return ""
        rise = f"the loss jumped from about {spike.before:.3f} to {loss:.3f} at step {spike.first_step}"
        patience = self.config.spike_patience
        if patience and self.watch.n_steps_high >= patience:
            raise SharedInputError(
                f"{rise} and has not come back for {patience} steps. {self._way_back(spike.first_step)}; if "
                "the data became harder there, go on with a larger spike_patience (0 for ever)"
            )
        if not is_new:
            return ""
        end = f" If it stays there for {patience} steps, the training stops." if patience else ""
        return f"{rise}.{end} {self._way_back(spike.first_step)}"

    def _way_back(self, first_step: int) -> str:
        older = checkpoint_folder.before(self.folder, first_step - 1)
        lower = f"muon_lr={self.config.muon_lr / 2:g}, embedding_lr={self.config.embedding_lr / 2:g}"
        if older is None:
            return f"No checkpoint from before is left: start again in another folder with e.g. {lower}"
        return (
            f"{older} is from before: go on from it in another folder (techtree train --branch-from) with "
            f"lower rates, e.g. {lower}"
        )

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this step or the weights are broken."""
        if self._saved_step == self.step:
            return
        tensors = self._tensors()
        with self.ranks.together():
            for name, rows in tensors.items():
                if not torch.isfinite(rows.tensor).all():
                    raise InputError(self._diverged(f"{name} is no longer finite"))
        path = checkpoint_folder.checkpoint_path(self.folder, self.step)
        state = State(self.step, self.seconds, self.settings, self.losses)
        if self.ranks.is_first:
            self.on_save(self.losses)
        try:
            checkpoint.save(path, state, tensors, self.ranks)
        except InputError:
            if self.ranks.is_first:
                shutil.rmtree(path, ignore_errors=True)
            raise
        if self.ranks.is_first:
            spike = self.watch.spike
            also = spike and checkpoint_folder.before(self.folder, spike.first_step - 1)
            checkpoint_folder.remove_old(self.folder, self.config.keep_checkpoints, also)
        self._saved_at, self._saved_step = time.monotonic(), self.step

    def resume_or_start(self, branch_from: Path | None = None) -> None:
        """Take over the folder's newest checkpoint; where there is none, write the first one.

        A folder that cannot be written thus says so before the work and not after it.
        """
        if self.ranks.is_first:
            checkpoint_folder.sweep(self.folder)
        self.ranks.wait()
        with self.ranks.together():
            found = checkpoint_folder.newest(self.folder)
            if found is not None:
                check_same(found.state.settings, self.settings, found.folder)
                self._take_over(found)
                self._saved_step = self.step
                checkpoint_folder.check_writable(self.folder)
            elif branch_from is not None:
                other = Checkpoint(branch_from)
                check_branch(other, self.settings, self.config.n_steps)
                self._take_over(other)
        steps = self.step * self.ranks.n_ranks
        if self.ranks.sums(self.step) != [steps]:
            raise SharedInputError(
                f"all ranks must see the same checkpoints; in {self.folder} rank {self.ranks.rank} sees step "
                f"{self.step}, others another one: choose a folder on a file system that all machines share"
            )
        self.save()

    def _take_over(self, found: Checkpoint) -> None:
        tensors = self._tensors()
        if {name: (rows.n_rows, *rows.tensor.shape[1:]) for name, rows in tensors.items()} != found.shapes:
            raise InputError(f"{found.folder} does not hold this model's tensors: choose another folder")
        for name, rows in tensors.items():
            found.read_into(name, rows)
        self.step, self.seconds = found.state.step, found.state.seconds
        self.losses = list(found.state.losses)
        self.watch = SpikeWatch(self.losses)

    def _tensors(self) -> dict[str, Rows]:
        """Return everything that a step changes, as far as this rank has it."""
        strategy = self.strategy
        # The state dict and not the parameters alone: the experts' biases are buffers.
        tensors = {f"model.{n}": strategy.rows(n, t) for n, t in self.model.state_dict().items()}
        for optimizer_name, optimizer in self.optimizers.items():
            for moment, by_name in optimizer.state.items():
                for name, tensor in by_name.items():
                    tensors[f"{optimizer_name}.{moment}.{name}"] = strategy.rows(name, tensor)
        return tensors

    def trained_model(self) -> LanguageModel:
        """Return the whole model, once it was saved; all but the first rank get one without memory."""
        if not self.ranks.is_first:
            with torch.device("meta"):
                return LanguageModel(self.model.config)
        if self.ranks.n_ranks > 1 or self.is_compiled:
            return load_model(Checkpoint(checkpoint_folder.checkpoint_path(self.folder, self.step)))
        self.model.compute_dtype = None
        return self.model

    def _diverged(self, what: str) -> str:
        return (
            f"training diverged: {what} at step {self.step}. The last checkpoint in {self.folder} is from "
            "before; start again in another folder with lower learning rates, e.g. "
            f"muon_lr={self.config.muon_lr / 2:g}, embedding_lr={self.config.embedding_lr / 2:g}"
        )


def _sharded(model: LanguageModel, ranks: Ranks) -> Strategy:
    """Return the strategy; to import what it needs takes half a second, which nobody else should wait for."""
    from techtree.lm.train.sharded import Sharded

    return Sharded(model, ranks)


def load_model(saved: Checkpoint) -> LanguageModel:
    """Return the model that a checkpoint holds."""
    model = LanguageModel(ModelConfig.from_dict(saved.state.settings["model"]))
    for name, tensor in model.state_dict().items():
        saved.read_into(f"model.{name}", Rows(tensor, 0, len(tensor)))
    return model
