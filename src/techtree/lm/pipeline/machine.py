"""How fast this machine trains a model of some shape.

B batch, T tokens.
"""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from techtree.lm.config import ModelConfig
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.trainer import Step, train

MEASURE_S = 3.0
MIN_STEPS = 3
"""The first step allocates memory and is left out; a median of three is not thrown off by one."""


class _Noise:
    """Batches of random tokens: the speed does not depend on which."""

    def __init__(self, vocab_size: int, batch_size: int, seq_len: int):
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.randint(vocab_size, (batch_size, seq_len + 1), generator=generator)

    def batch(
        self, step: int, rank: int = 0, n_ranks: int = 1
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        ids = self._ids[rank::n_ranks]
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


class _EnoughError(Exception):
    """Ends the measurement from within the training."""


def training_rate(model: ModelConfig, batch_size: int, seconds: float = MEASURE_S) -> float:
    """Measure how many tokens a second this machine trains.

    Parameters
    ----------
    model
        The shape.
    batch_size
        Rows of ``model.max_seq_len`` tokens in a step.
    seconds
        For how long to measure, at least three steps; on a slow machine for three times as long at most.
    """
    rates: list[float] = []
    start = time.monotonic()

    def on_step(step: Step) -> None:
        if step.step > 1:
            rates.append(step.tokens_per_s)
        elapsed = time.monotonic() - start
        if rates and elapsed >= (seconds if len(rates) >= MIN_STEPS else 3 * seconds):
            raise _EnoughError

    noise = _Noise(model.vocab_size, batch_size, model.max_seq_len)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        train(model, TrainConfig(n_steps=1_000_000), noise, Path(folder), on_step)
    return statistics.median(rates)
