"""A training on prepared data, from a new model or a given one to a folder that others load.

train.json           what the run was begun with, and the rates that it comes to
checkpoints/         where it stands
log.csv, loss.svg    on request; or tensorboard/
model/               the trained model, as Hugging Face's tools read it where they can compute it
report.json          written last: where it lies, the run is finished
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import techtree
from techtree import atomic
from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.data.batches import RandomBatches
from techtree.lm.data.store import TokenStore
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.formats.huggingface.families import family_of
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.pipeline.config import MAX_SEED, MAX_STEPS, REPORT, check_range
from techtree.lm.pipeline.data_folder import TOKENS
from techtree.lm.pipeline.plan import DEFAULT_DEPTH, TOKENS_PER_STEP
from techtree.lm.pipeline.run_folder import check_settings, locked, record_settings
from techtree.lm.pipeline.shapes import SHAPES
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train import checkpoint_folder
from techtree.lm.train.config import Recipe, TrainConfig
from techtree.lm.train.loss_plot import loss_plot
from techtree.lm.train.ranks import Ranks
from techtree.lm.train.run import Step
from techtree.lm.train.scaling import Rates, scaled_rates
from techtree.lm.train.step_log import CsvLog, StepLog, TensorBoardLog
from techtree.lm.train.trainer import train

MODEL = "model"
"""The name of the model's folder within the run's."""

MAX_BATCH_TOKENS = 2**31
"""More than the largest clusters take in a step."""

_SETTINGS, _PLOT = "train.json", "loss.svg"


@dataclass(frozen=True)
class FolderRun:
    """What to train, on what, and where to."""

    data: Path
    """A folder that `techtree data` made."""
    folder: Path
    """Of the run."""
    depth: int | None = None
    """Of a new model."""
    shape: Literal["plain", "experts", "speedrun"] = "plain"
    """Of a new model."""
    init: Path | None = None
    """The folder of a model to go on with, instead of a new one."""
    branch_from: Path | None = None
    """The checkpoint of another run to go on from."""
    n_steps: int | None = None
    """None for one pass over the data."""
    batch_tokens: int = TOKENS_PER_STEP
    n_micro_batches: int = 1
    strategy: Literal["replicated", "sharded"] = "replicated"
    recipe: Recipe = field(default_factory=Recipe)
    log: Literal["csv", "tensorboard", "none"] = "csv"
    has_plot: bool = False

    def __post_init__(self) -> None:
        if self.depth is not None and self.init is not None:
            raise InputError("--depth is for a new model: leave it out, or --init")
        if self.shape != "plain" and self.init is not None:
            raise InputError("--shape is for a new model: leave it out, or --init")
        if self.depth is not None and not 1 <= self.depth <= 48:
            raise InputError(f"--depth must be from 1 to 48; got {self.depth}")
        if self.n_steps is not None:
            check_range("--steps", self.n_steps, 1, MAX_STEPS)
        check_range("--seed", self.recipe.seed, 0, MAX_SEED)
        check_range("--batch-tokens", self.batch_tokens, 1, MAX_BATCH_TOKENS)


@dataclass(frozen=True)
class Prepared:
    """A run whose data and model are at hand."""

    run: FolderRun
    store: TokenStore
    model: ModelConfig
    init: LanguageModel | None
    tokenizer: Tokenizer
    """The store's, and of a model that is gone on with, what its files say of it besides."""
    train: TrainConfig
    batch_size: int
    """Rows of a step, over all ranks."""

    @property
    def rates(self) -> Rates:
        """What the recipe's rates come to."""
        return scaled_rates(self.train, self.model.d_model, self.batch_size * self.store.seq_len)

    @property
    def n_tokens(self) -> int:
        """How many tokens the whole run reads."""
        return self.train.n_steps * self.batch_size * self.store.seq_len

    @property
    def is_for_others(self) -> bool:
        """Whether other programs will be able to compute the model."""
        try:
            family_of(self.model)
        except InputError:
            return False
        return True

    @property
    def settings(self) -> dict[str, Any]:
        """What the run's folder keeps of all this."""
        run = self.run
        return {
            "data": os.path.realpath(run.data),
            "init": None if run.init is None else os.path.realpath(run.init),
            "branch_from": None if run.branch_from is None else os.path.realpath(run.branch_from),
            "batch_tokens": self.batch_size * self.store.seq_len,
            "model": dataclasses.asdict(self.model),
            "train": dataclasses.asdict(self.train),
            "rates": dataclasses.asdict(self.rates),
            "version": techtree.__version__,
        }


def prepare(run: FolderRun) -> Prepared:
    """Open the data, and the model to go on with if there is one.

    Raises
    ------
    InputError
        When they cannot be used, do not fit each other, or the batch is no whole number of rows.
    """
    store = TokenStore(run.data / TOKENS)
    n_rows, rest = divmod(run.batch_tokens, store.seq_len)
    if rest or n_rows < 1:
        raise InputError(
            f"--batch-tokens must be a multiple of the data's {store.seq_len} tokens a row; got "
            f"{run.batch_tokens}: use {max(1, n_rows) * store.seq_len}"
        )
    config = TrainConfig(
        n_steps=run.n_steps or -(-store.n_rows // n_rows),
        n_micro_batches=run.n_micro_batches,
        strategy=run.strategy,
        **dataclasses.asdict(run.recipe),
    )
    init, tokenizer = (None, store.tokenizer) if run.init is None else _load_init(run.init, store)
    if init is None:
        new = SHAPES[run.shape](run.depth or DEFAULT_DEPTH, store.tokenizer.vocab_size)
        model = dataclasses.replace(new, max_seq_len=store.seq_len)
    else:
        model = init.config
    return Prepared(run, store, model, init, tokenizer, config, n_rows)


def _load_init(folder: Path, store: TokenStore) -> tuple[LanguageModel, Tokenizer]:
    """Return the model to go on with, which must have learned the data's tokens, and its tokenizer."""
    model, tokenizer = load_pretrained(folder)
    if tokenizer.to_json() != store.tokenizer.to_json():
        raise InputError(
            f"--init must name a model with the data's tokenizer; that of {folder} is another one: make the "
            f"data with techtree data ... --tokenizer {folder}"
        )
    if model.config.positions == "learned" and model.config.max_seq_len < store.seq_len:
        raise InputError(
            f"the model of {folder} reads {model.config.max_seq_len} tokens at most; the data's rows have "
            f"{store.seq_len}: make the data with a smaller --seq-len"
        )
    return model, tokenizer


def train_folder(prepared: Prepared, ranks: Ranks, on_step: Callable[[Step], None]) -> dict[str, Any]:
    """Train, or go on where an earlier call was stopped, and write the model.

    Returns
    -------
    dict
        What report.json holds.

    Raises
    ------
    InputError
        When the folder holds another run or cannot be written, or the training fails.
    """
    run = prepared.run
    with contextlib.ExitStack() as stack:
        with ranks.together():
            if ranks.is_first:
                stack.enter_context(locked(run.folder))
                fixed = {name: prepared.settings[name] for name in ("init", "branch_from")}
                check_settings(run.folder / _SETTINGS, fixed)
        return _train_locked(prepared, ranks, on_step)


def _train_locked(prepared: Prepared, ranks: Ranks, on_step: Callable[[Step], None]) -> dict[str, Any]:
    run = prepared.run
    with _logged(run, ranks) as log:

        def note(step: Step) -> None:
            log.add(step)
            on_step(step)

        def before_save(losses: list[float]) -> None:
            # By now the checkpoint to branch from was read.
            record_settings(run.folder / _SETTINGS, prepared.settings)
            log.flush()
            _plot(run, losses)

        model = train(
            prepared.model,
            prepared.train,
            RandomBatches(prepared.store, prepared.batch_size, prepared.train.seed),
            run.folder,
            note,
            ranks=ranks,
            weights=None if prepared.init is None else prepared.init.state_dict(),
            branch_from=run.branch_from,
            on_save=before_save,
        )
    report: dict[str, Any] = {}
    with ranks.together():
        if ranks.is_first:
            save_pretrained(run.folder / MODEL, model, prepared.tokenizer, for_others=False)
            report = _write_report(prepared)
    return report


@contextlib.contextmanager
def _logged(run: FolderRun, ranks: Ranks) -> Iterator[StepLog]:
    """Open the log that was asked for; only the first rank writes to it."""
    with ranks.together():
        log: StepLog = _NoLog()
        if run.log == "csv":
            log = CsvLog(run.folder / "log.csv")
        elif run.log == "tensorboard":
            log = TensorBoardLog(run.folder / "tensorboard")
    try:
        yield log
    finally:
        log.close()


class _NoLog:
    """A log that keeps nothing."""

    def add(self, step: Step) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _plot(run: FolderRun, losses: list[float]) -> None:
    if run.has_plot and losses:
        atomic.write_bytes(run.folder / _PLOT, loss_plot(losses))


def _write_report(prepared: Prepared) -> dict[str, Any]:
    folder = prepared.run.folder
    last = checkpoint_folder.newest(folder)
    assert last is not None
    # Now it is there even if the option was given only after the last step.
    _plot(prepared.run, last.state.losses)
    n_last = max(1, len(last.state.losses) // 20)
    report = {
        "name": folder.name,
        "steps": last.state.step,
        "tokens": prepared.n_tokens,
        "loss": sum(last.state.losses[-n_last:]) / n_last,
        "seconds": last.state.seconds,
        "n_parameters": prepared.model.n_parameters,
        "model_folder": str(folder / MODEL),
        **prepared.settings,
    }
    atomic.write_text(folder / REPORT, json.dumps(report, indent=1) + "\n")
    return report
