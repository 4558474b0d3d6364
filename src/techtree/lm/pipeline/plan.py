"""What to train in the time given: the machine is measured once, and the answer is kept.

A plan fixes everything that the result depends on. A run that is stopped and started again follows the
plan that it began with, however fast the machine is by then; so do two runs with the same plan.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.train.config import TrainConfig

SEQ_LEN = 256
"""Tokens that the model sees at once: about 900 bytes of code."""

HEAD_DIM = 64
DEPTHS = (2, 3, 4, 5, 6, 8, 10, 12)
"""The shapes to choose from: one number sets all widths."""

DEFAULT_DEPTH = 4
"""The depth of a run with a fixed number of steps."""

TOKENS_PER_STEP = 2048
MIN_STEPS = 20
"""Below, the schedule has no room to rise and fall."""

ADAPTING_SEQ_LEN = 1024
"""Tokens that a model sees at once while it learns more, at most; its own context may be longer."""

ADAPTING_RATE = 0.04
"""Of a new model's learning rates, for one that has learned already; they fall from the first step on. A rate
of 0.2 learns little more of the new text and forgets four times as much of the old (results/LOG.md)."""

PACE = 0.95
"""What a machine keeps up for minutes, of the speed that it shows for seconds."""

STEPS_WANTED = 500
"""A model is taken one size larger only where the time still gives it so many steps."""


@dataclass(frozen=True)
class Plan:
    """A model's shape, its recipe and its data's shape."""

    model: ModelConfig
    train: TrainConfig
    batch_size: int
    """Rows of a step."""
    seq_len: int
    """Tokens of a row; the model may be made for more."""
    tokens_per_s: float
    """What this machine was measured to do with this shape; 0 where it was not measured."""

    @property
    def n_tokens(self) -> int:
        """How many tokens the model reads in training."""
        return self.train.n_steps * self.batch_size * self.seq_len

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a plan from what `to_dict` gave.

        Raises
        ------
        InputError
            When a field is unknown or missing.
        """
        try:
            model = ModelConfig.from_dict(values["model"])
            train = TrainConfig(**values["train"])
            others = {name: value for name, value in values.items() if name not in ("model", "train")}
            return cls(model=model, train=train, **others)
        except (TypeError, KeyError) as error:
            raise InputError(f"a plan must have exactly this version's fields; {error}") from None


def shape(depth: int, vocab_size: int) -> ModelConfig:
    """Return the model of a depth: 64 of width for each layer, and as many heads as layers.

    Narrow and deep beats wide and shallow at equal cost (nanochat's scaling experiments), and one number
    is enough to order the models by size.
    """
    n_kv_heads = depth // 2 if depth % 2 == 0 else depth
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=HEAD_DIM * depth,
        n_layers=depth,
        n_heads=depth,
        n_kv_heads=n_kv_heads,
        head_dim=HEAD_DIM,
        d_ff=3 * HEAD_DIM * depth,
        max_seq_len=SEQ_LEN,
        tie_embeddings=False,
    )


def make_plan(
    seconds_left: Callable[[float], float],
    vocab_size: int,
    seed: int,
    measure: Callable[[ModelConfig, int], float],
    n_steps: int | None = None,
    depth: int | None = None,
    init: ModelConfig | None = None,
) -> Plan:
    """Choose the largest model that the time can teach, or how long one that is there learns more.

    Parameters
    ----------
    seconds_left
        Gives the time that is left for training alone, if the machine trains so many tokens a second.
    vocab_size
        Of the tokenizer.
    seed
        Of the first weights and of the data's order.
    measure
        Gives the tokens a second at which this machine trains a shape with so many rows in a batch.
    n_steps
        Take exactly so many, and measure nothing: the plan is then the same on every machine.
    depth
        Take this depth and not the one that fits.
    init
        The shape of the model that is there.
    """
    seq_len = SEQ_LEN if init is None else min(init.max_seq_len, ADAPTING_SEQ_LEN)
    batch_size = max(1, TOKENS_PER_STEP // seq_len)
    if n_steps is not None:
        model = init or shape(depth or DEFAULT_DEPTH, vocab_size)
        return Plan(model, _recipe(n_steps, seed, init is not None), batch_size, seq_len, 0.0)

    def steps(rate: float) -> int:
        return max(MIN_STEPS, math.floor(PACE * seconds_left(rate) * rate / (batch_size * seq_len)))

    if init is None and depth is None:
        known = shape(DEFAULT_DEPTH, vocab_size)
        rate = measure(known, batch_size)
        # The time of a step grows about as its arithmetic does; the chosen shape is measured itself below.
        estimates = {d: rate * training_flops(known) / training_flops(shape(d, vocab_size)) for d in DEPTHS}
        fitting = [d for d, estimate in estimates.items() if steps(estimate) >= STEPS_WANTED]
        depth = max(fitting, default=min(DEPTHS))
    model = init or shape(depth or DEFAULT_DEPTH, vocab_size)
    tokens_per_s = measure(dataclasses.replace(model, max_seq_len=seq_len), batch_size)
    train = _recipe(steps(tokens_per_s), seed, init is not None)
    return Plan(model, train, batch_size, seq_len, tokens_per_s)


def _recipe(n_steps: int, seed: int, is_adapting: bool) -> TrainConfig:
    recipe = TrainConfig(n_steps=n_steps, seed=seed)
    if not is_adapting:
        return recipe
    return dataclasses.replace(
        recipe,
        muon_lr=recipe.muon_lr * ADAPTING_RATE,
        embedding_lr=recipe.embedding_lr * ADAPTING_RATE,
        head_lr=recipe.head_lr * ADAPTING_RATE,
        gain_lr=recipe.gain_lr * ADAPTING_RATE,
        decay_fraction=1.0,
    )


def training_flops(model: ModelConfig) -> int:
    """Return about how many operations training takes for a token: six for each weight in a product.

    Attention adds, in each layer and for forward and backward, two products of half a context with the heads'
    width.
    """
    weights = (
        model.n_parameters if model.tie_embeddings else model.n_parameters - model.vocab_size * model.d_model
    )
    attention = 6 * model.n_layers * model.max_seq_len * model.n_heads * model.head_dim
    return 6 * weights + attention
