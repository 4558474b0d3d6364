"""One of the ranks that train a small model: ``python ranks_run.py SCENARIOS``, with torchrun's variables.

SCENARIOS is a JSON list; each is a training that this rank takes part in.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from small_run import MODEL, TRAIN, Counting
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig
from techtree.lm.train.ranks import Ranks, join_ranks
from techtree.lm.train.trainer import Step, train

EXACT = dataclasses.replace(TRAIN, n_steps=50, precision="float32", checkpoint_interval_s=1000.0)
"""Long enough for rounding errors to grow, and free of bfloat16's."""

EXPERTS = ExpertsConfig(n_experts=3, n_active=2, d_expert=32, balance_coef=0.0, has_bias=True)
"""Three do not divide among two ranks. (The balance loss is that of each part of a batch by itself.)"""


class Killing(Counting):
    """Data that kill the second rank at some step."""

    def __init__(self, at: int) -> None:
        super().__init__(9)
        self.at = at

    def batch(self, step: int, rank: int = 0, n_ranks: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        if self.at and step == self.at and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step, rank, n_ranks)


def run(
    ranks: Ranks | None,
    folder: Path | str,
    *,
    stop_at: int = 0,
    kill_at: int = 0,
    model: dict[str, Any] | None = None,
    **config: Any,
) -> list[float]:
    """Train; stop at some step as by a Ctrl-C that only the first rank gets. Return the losses."""
    losses: list[float] = []

    def on_step(step: Step) -> None:
        losses.append(step.loss)
        if step.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    model_config = dataclasses.replace(MODEL, **(model or {}))
    train_config = dataclasses.replace(EXACT, **config)
    try:
        train(model_config, train_config, Killing(kill_at), Path(folder), on_step, ranks=ranks)
    except KeyboardInterrupt:
        assert stop_at
    return losses


def main() -> None:
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        for scenario in json.loads(sys.argv[1]):
            if scenario.pop("has_experts", False):
                scenario["model"] = {"experts": EXPERTS}
            try:
                result: Any = run(ranks, **scenario)
            except InputError as error:
                result = str(error)
            if ranks.is_first:
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
