"""How a model is trained."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from techtree.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides how well a model learns; what each number should be is in results/LOG.md.

    The rates are those of the shape at which they were measured, and `scaling` takes them to another.
    """

    muon_lr: float = 0.01
    """The learning rate of the layers' matrices."""
    embedding_lr: float = 0.1
    """The learning rate of the embedding table. A row of it moves only when its token comes up."""
    head_lr: float = 0.006
    """The learning rate of the head where it is a table of its own, and of the experts' router. All rows
    move in every step."""
    gain_lr: float = 0.03
    """The learning rate of the norms' gains and of all biases."""
    weight_decay: float = 0.05
    """What a step takes off the layers' matrices, times the learning rate."""
    scale_rates: bool = True
    """Whether the rates are scaled to the batch and to the model's width, or count as they are."""
    warmup_steps: int = 10
    """The steps over which the learning rates rise."""
    decay_fraction: float = 0.6
    """The share of the steps, at the end, over which the learning rates fall to zero."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which precision activations are computed; auto: bfloat16 where the machine is made for it. The
    weights are float32 in any case."""
    compile: bool | None = None
    """Whether the layers are compiled; when left out, on a GPU only. On two CPU cores it takes 34 to 50 s and
    gains nothing; on a GPU nobody measured it yet."""
    seed: int = 0
    """Of the first weights, and of the order of prepared data."""
    checkpoint_interval_s: float = 30.0
    """How much work a kill can cost."""
    keep_checkpoints: int = 2
    """How many checkpoints stay."""
    quantize: Literal["none", "q8_0", "q4_0"] = "none"
    """Train the weights for the blocks of 8 or 4 bits in which they will be exported, so that rounding costs
    less: the last steps compute with the rounded ones."""
    quantize_fraction: float = 0.3
    """The share of the steps, at the end, that do."""
    spike_patience: int = 200
    """For how many steps a loss that jumped up may stay there before the training stops; 0 for ever."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Recipe):
    """A recipe, how long it is followed, and how the work is divided."""

    n_steps: int
    """How many batches to learn from."""
    n_micro_batches: int = 1
    """In how many parts a rank computes its batch, for less memory; the result is that of one part."""
    strategy: Literal["replicated", "sharded"] = "replicated"
    """What several ranks do: each keeps the whole model, or each keeps a share of it, for models that do not
    fit otherwise."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not value >= 0:
                raise InputError(f"{field.name} must not be negative; got {value}")
        for name in ("n_steps", "n_micro_batches", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("decay_fraction", "quantize_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be between 0 and 1; got {getattr(self, name)}")
        if self.quantize != "none" and self.strategy == "sharded":
            raise InputError(f"quantize={self.quantize} needs strategy=replicated: shards may divide a block")
        for name, choices in (
            ("precision", ("auto", "float32", "bfloat16")),
            ("strategy", ("replicated", "sharded")),
            ("quantize", ("none", "q8_0", "q4_0")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}")
