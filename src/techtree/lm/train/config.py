"""How a model is trained."""

import dataclasses
from dataclasses import dataclass

from techtree.errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of a run; what each number should be is in results/LOG.md."""

    n_steps: int
    """How many batches to learn from."""
    seed: int = 0
    """Of the first weights."""
    muon_lr: float = 0.01
    """The learning rate of the layers' matrices."""
    embedding_lr: float = 0.1
    """The learning rate of the embedding table. A row of it moves only when its token comes up."""
    head_lr: float = 0.006
    """The learning rate of the head where it is a table of its own. All its rows move in every step."""
    gain_lr: float = 0.03
    """The learning rate of the norms' gains."""
    weight_decay: float = 0.05
    """What a step takes off the layers' matrices, times the learning rate."""
    warmup_steps: int = 10
    """The steps over which the learning rates rise."""
    decay_fraction: float = 0.6
    """The share of the steps, at the end, over which the learning rates fall to zero."""
    n_micro_batches: int = 1
    """In how many parts a batch is computed, for less memory; the result is that of one part."""
    checkpoint_interval_s: float = 30.0
    """How much work a kill can cost."""

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_micro_batches"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in (field.name for field in dataclasses.fields(self)):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative; got {getattr(self, name)}")
        if not 0 <= self.decay_fraction <= 1:
            raise InputError(f"decay_fraction must be between 0 and 1; got {self.decay_fraction}")
