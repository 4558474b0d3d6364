"""`techtree train`: a model from prepared data, on one machine or on many."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from techtree.cli.filling import filling
from techtree.errors import InputError
from techtree.lm.train.config import Recipe

if TYPE_CHECKING:
    from techtree.lm.pipeline.training_folder import FolderRun, Prepared


@dataclass(frozen=True)
class Config:
    """Train a model on what `techtree data` prepared.

    Ctrl-C saves, and the same command goes on from there; so it does after a crash, and on another number of
    machines. On several: torchrun ... -m techtree train DATA ...; docs/train-on-many-machines.md says how.
    """

    data: Annotated[Path, tyro.conf.Positional]
    """The folder that `techtree data` made."""

    out: Path | None = None
    """The run's folder; runs/NAME of the data's name when left out."""

    depth: int | None = None
    """The number of layers of a new model, which sets the widths too; 4 when left out."""

    shape: Literal["plain", "experts", "speedrun"] = "plain"
    """The kind of a new model. experts: a mixture of 8, of which a token uses 2. speedrun: learns more from
    the same tokens, and cannot be exported."""

    init: Path | None = None
    """The folder of a model to go on with, instead of a new one."""

    branch_from: Path | None = None
    """A checkpoint of another run to go on from, with its averages and its count of steps: to go back before
    a spike, with lower rates."""

    steps: int | None = None
    """How many steps to take in all; one pass over the data when left out."""

    batch_tokens: int = 2048
    """How many tokens a step reads, on all machines together."""

    micro_batches: int = 1
    """In how many parts each process computes its share of a batch: more parts need less memory."""

    strategy: Literal["replicated", "sharded"] = "replicated"
    """What several processes do: each keeps the whole model, or each keeps a share of it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPUs where there are any."""

    log: Literal["csv", "tensorboard", "none"] = "csv"
    """What to write of every step: a table log.csv, or a folder for TensorBoard."""

    plot: bool = False
    """Draw the loss to loss.svg, at every checkpoint."""

    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = field(default_factory=Recipe)
    """How the model learns."""


def run(config: Config) -> int:
    """Train; of several processes, the first one speaks."""
    from techtree.lm.pipeline.config import REPORT
    from techtree.lm.pipeline.training_folder import FolderRun
    from techtree.lm.train.ranks import SharedInputError

    run_config = FolderRun(
        data=config.data,
        folder=config.out or Path("runs") / os.path.basename(os.path.realpath(config.data)),
        depth=config.depth,
        shape=config.shape,
        init=config.init,
        branch_from=config.branch_from,
        n_steps=config.steps,
        batch_tokens=config.batch_tokens,
        n_micro_batches=config.micro_batches,
        strategy=config.strategy,
        recipe=config.recipe,
        log=config.log,
        has_plot=config.plot,
    )
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun's
    try:
        with filling(run_config.folder, speaks=is_first):
            if (run_config.folder / REPORT).exists():
                if is_first:
                    print(
                        f"{run_config.folder} holds a finished run: choose another --out; to go on with its "
                        f"model, --init {run_config.folder / 'model'}"
                    )
                return 0
            return _train(run_config, config.device)
    except SharedInputError:
        if is_first:
            raise
        return 2


def _train(run_config: "FolderRun", device: str) -> int:
    import torch

    from techtree.cli.build_display import open_display
    from techtree.cli.next_steps import next_steps
    from techtree.lm.pipeline.training_folder import prepare, train_folder
    from techtree.lm.train.ranks import join_ranks

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda needs a GPU that PyTorch can use; it finds none: leave --device out")
    with join_ranks(device) as ranks:
        with ranks.together():
            prepared = prepare(run_config)
        if not ranks.is_first:
            train_folder(prepared, ranks, lambda step: None)
            return 0
        print(_described(prepared, ranks.n_ranks), flush=True)
        with open_display(sys.stdout) as display:
            display.begin("train")
            report = train_folder(prepared, ranks, display.step)
            display.done(
                "train", f"loss {report['loss']:.3f}, {report['tokens']:,} tokens", report["seconds"]
            )
    print(f"measure   techtree eval {run_config.data} --model {report['model_folder']}")
    print(next_steps(Path(report["model_folder"])))
    return 0


def _described(prepared: "Prepared", n_ranks: int) -> str:
    """Return what is about to be done, and the rates that it comes to."""
    model, rates = prepared.model, prepared.rates
    where = f", {prepared.train.strategy} on {n_ranks} processes" if n_ranks > 1 else ""
    note = "" if prepared.is_for_others else "\nnot for export: no other program computes such a model"
    return (
        f"{model.n_layers} layers of width {model.d_model}, {model.n_parameters:,} parameters; "
        f"{prepared.train.n_steps:,} steps, {prepared.n_tokens:,} tokens{where}\n"
        f"rates: matrices {rates.muon_lr:.3g}, embedding {rates.embedding_lr:.3g}, head {rates.head_lr:.3g}, "
        f"gains {rates.gain_lr:.3g}, weight decay {rates.weight_decay:.3g}{note}"
    )
