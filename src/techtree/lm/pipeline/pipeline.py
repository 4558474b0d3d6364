"""The whole way from source files to a measured model, in stages that survive a kill.

Each stage leaves its result in the run's folder by one atomic write, and a later start takes it from there.
So the same command resumes a run that was stopped at any moment; and because all that the result depends
on is fixed before training (documents, tokenizer, plan), it ends with the same weights bit for bit.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import techtree
from techtree import atomic
from techtree.lm.data.batches import RandomBatches
from techtree.lm.data.corpus import Document
from techtree.lm.data.rows import RowsConfig
from techtree.lm.data.split import split_by_file
from techtree.lm.data.store import TokenStore
from techtree.lm.data.store_builder import build_store
from techtree.lm.eval.bits_per_byte import bits_per_byte
from techtree.lm.eval.held_out import evaluated
from techtree.lm.eval.ngram import ngram_scores
from techtree.lm.formats.gguf import save_gguf
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.pipeline.config import BuildConfig
from techtree.lm.pipeline.corpus_file import read_documents, write_documents
from techtree.lm.pipeline.gathering import described, gather
from techtree.lm.pipeline.machine import training_rate
from techtree.lm.pipeline.plan import Plan, make_plan
from techtree.lm.pipeline.report import write_report
from techtree.lm.pipeline.run_folder import (
    check_same,
    check_settings,
    forgotten_if_refused,
    locked,
    record_settings,
)
from techtree.lm.pipeline.samples import make_samples
from techtree.lm.pipeline.stages import STAGES, Display, Stages, kept, read_json
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train import checkpoint_folder
from techtree.lm.train.precision import compute_dtype
from techtree.lm.train.trainer import train

MAX_EVALUATED_BYTES = 500_000
EVALUATED_BYTES_PER_MINUTE = 100_000
"""A short run shall not spend its time on being measured. (100 kB give the bits per byte to about 1 %.)"""

BYTES_PER_VOCABULARY_ENTRY = 3000
"""A token that occurs a few times in the whole corpus is not worth a row of the embedding table."""

MAX_VOCAB_SIZE, MIN_VOCAB_SIZE = 4096, 512

BYTES_PER_TOKEN = 3
"""At least, on source code with a vocabulary of some thousands."""

MODEL, TOKENS, GGUF = "model", "tokens", "model.gguf"
"""The names of the model's folder, of the store of tokens and of the model for llama.cpp within the run's."""

SETTINGS = "build.json"
"""What the run was begun with; nothing else goes on in its folder."""

_ABOUT, _CORPUS, _TOKENIZER = "corpus.json", "corpus.jsonl.gz", "tokenizer"
_NGRAM, _PLAN, _BEFORE = "ngram.json", "plan.json", "before.json"

OTHER_STAGES_S = 12
"""What export, samples and report take after the training, at most, on the reference machine."""


@dataclass(frozen=True)
class Data:
    """The documents, split, and the tokenizer that was trained on them, or is the given model's."""

    train: Sequence[Document]
    held_out: Sequence[Document]
    tokenizer: Tokenizer
    about: dict[str, Any]
    init: LanguageModel | None = None
    """The model to go on with."""


def build(config: BuildConfig, display: Display) -> dict[str, Any]:
    """Build a model, or go on where an earlier call was stopped.

    Returns
    -------
    dict
        What report.json holds.

    Raises
    ------
    InputError
        When the corpus cannot be used, or the folder holds another run, is being filled or cannot be written.
    """
    _check_same(config)
    made = (SETTINGS, STAGES, _ABOUT, _CORPUS, _TOKENIZER, _NGRAM, _PLAN, _BEFORE, TOKENS)
    with (
        locked(config.folder),
        forgotten_if_refused(
            config.folder, made, lambda: checkpoint_folder.newest(config.folder) is not None
        ),
    ):
        return _build(config, Stages(config.folder, display), display)


def _check_same(config: BuildConfig) -> None:
    """Refuse a folder that was begun with other settings."""
    settings, about = config.folder / SETTINGS, config.folder / _ABOUT
    check_settings(settings, config.settings)
    if about.exists() and not settings.exists():  # Somebody has brought a corpus along.
        check_same(config.folder, {"corpus": read_json(about).get("paths")}, config.settings)


def _build(config: BuildConfig, stages: Stages, display: Display) -> dict[str, Any]:
    data = _prepare(config, stages)
    ngram = stages.run(
        "count n-grams",
        lambda: kept(config.folder / _NGRAM, lambda: _ngram(data)),
        lambda scores: f"{min(scores.values()):.3f} bits per byte, the best of orders {', '.join(scores)}",
    )
    plan = stages.run(
        "measure this machine",
        lambda: Plan.from_dict(kept(config.folder / _PLAN, lambda: _plan(config, data, stages).to_dict())),
        _described_plan,
    )
    before = None
    if (init := data.init) is not None:
        before = stages.run(
            "measure the given model",
            lambda: kept(config.folder / _BEFORE, lambda: _evaluate(init, data, plan, display)),
            lambda scores: f"{scores['bits_per_byte']:.3f} bits per byte",
        )
    model, losses = _train(config, plan, data, stages)
    scores = stages.run(
        "measure the model",
        lambda: kept(config.folder / "evaluation.json", lambda: _evaluate(model, data, plan, display)),
        lambda scores: f"{scores['bits_per_byte']:.3f} bits per byte on {scores['n_bytes']:,} held-out bytes",
    )
    samples = stages.run(
        "complete held-out code",
        lambda: kept(
            config.folder / "samples.json", lambda: make_samples(model, data.tokenizer, data.held_out)
        ),
        lambda samples: f"{len(samples)} samples",
    )
    stages.run(
        "write for llama.cpp",
        lambda: _write_gguf(config.folder / GGUF, model, data.tokenizer),
        lambda n_bytes: f"{GGUF}, {n_bytes / 1e6:.1f} MB",
    )
    report = _report(config, plan, data, stages, ngram, before, scores, samples)
    write_report(config.folder, report, losses)
    checkpoint_folder.remove_all(config.folder)
    # The run is finished: a file that somebody holds open only takes room.
    shutil.rmtree(config.folder / TOKENS, ignore_errors=True)
    return report


def _prepare(config: BuildConfig, stages: Stages) -> Data:
    """Collect, split, tokenize."""
    path, about_path = config.folder / _CORPUS, config.folder / _ABOUT

    def read_corpus() -> tuple[list[Document], list[Document], dict[str, Any]]:
        if not about_path.exists():
            documents, about = gather(config.corpus)
            train_documents, held_out = split_by_file(documents)
            record_settings(config.folder / SETTINGS, config.settings)
            write_documents(path, documents)
            atomic.write_text(about_path, json.dumps(about, indent=1) + "\n")
            return train_documents, held_out, about
        about = read_json(about_path)
        return *split_by_file(read_documents(path)), about

    train_documents, held_out, about = stages.run(
        "collect source files", read_corpus, lambda result: described(result[2])
    )
    init = None
    if config.init is None:
        tokenizer = stages.run(
            "train the tokenizer",
            lambda: _tokenizer(config.folder / _TOKENIZER, train_documents),
            lambda tokenizer: f"{tokenizer.vocab_size:,} tokens",
        )
    else:
        folder = config.init
        init, tokenizer = stages.run(
            "load the model",
            lambda: load_pretrained(folder, torch.float32),
            lambda loaded: f"{loaded[0].config.n_parameters:,} parameters",
        )
    return Data(train_documents, evaluated(held_out, _max_bytes(config.minutes)), tokenizer, about, init)


def _max_bytes(minutes: float) -> int:
    return min(MAX_EVALUATED_BYTES, int(EVALUATED_BYTES_PER_MINUTE * max(1.0, minutes)))


def _tokenizer(folder: Path, documents: Sequence[Document]) -> Tokenizer:
    if not (folder / "tokenizer_config.json").exists():  # the last file that is written
        n_bytes = sum(document.n_bytes for document in documents)
        wanted = n_bytes // BYTES_PER_VOCABULARY_ENTRY // 64 * 64
        vocab_size = min(MAX_VOCAB_SIZE, max(MIN_VOCAB_SIZE, wanted))
        Tokenizer.train((document.text for document in documents), vocab_size).save(folder)
    return Tokenizer.load(folder)


def _ngram(data: Data) -> dict[str, float]:
    scores = ngram_scores(data.train, data.held_out, data.tokenizer)
    return {str(order): score.bits_per_byte for order, score in scores.items()}


def _plan(config: BuildConfig, data: Data, stages: Stages) -> Plan:
    """Choose a plan for the time that is left when everything else is paid for."""
    n_bytes = sum(document.n_bytes for document in data.held_out)
    # Measuring reads each token twice (windows overlap by half), at a third of the cost of training; a given
    # model is measured too.
    n_tokens_measured = 2 / 3 * n_bytes / BYTES_PER_TOKEN * (1 if data.init is None else 2)
    start = time.monotonic()

    def seconds_left(tokens_per_s: float) -> float:
        spent = stages.total_seconds + (time.monotonic() - start)
        return config.minutes * 60 - spent - OTHER_STAGES_S - n_tokens_measured / tokens_per_s

    vocab_size = data.tokenizer.vocab_size
    given = data.init and data.init.config
    return make_plan(
        seconds_left, vocab_size, config.seed, training_rate, config.n_steps, config.depth, given
    )


def _described_plan(plan: Plan) -> str:
    measured = f" at {plan.tokens_per_s:,.0f} tokens/s" if plan.tokens_per_s else ""
    return (
        f"{plan.model.n_layers} layers of width {plan.model.d_model}, {plan.model.n_parameters:,} parameters;"
        f" {plan.train.n_steps:,} steps, {plan.n_tokens:,} tokens{measured}"
    )


def _train(config: BuildConfig, plan: Plan, data: Data, stages: Stages) -> tuple[LanguageModel, list[float]]:
    """Return the trained model and the loss of every step."""
    model_folder, losses_path = config.folder / MODEL, config.folder / "losses.json"

    def work() -> dict[str, Any]:
        if not losses_path.exists():
            model, trained = _run_training(config.folder, plan, data, stages.display)
            save_pretrained(model_folder, model, data.tokenizer)
            atomic.write_text(losses_path, json.dumps(trained) + "\n")
        return read_json(losses_path)

    trained = stages.run(
        "train",
        work,
        lambda trained: (
            f"loss {trained['losses'][-1]:.3f}, {plan.n_tokens / trained['seconds']:,.0f} tokens/s"
        ),
        lambda trained: trained["seconds"],
    )
    return load_pretrained(model_folder)[0], trained["losses"]


def _run_training(
    folder: Path, plan: Plan, data: Data, display: Display
) -> tuple[LanguageModel, dict[str, Any]]:
    n_rows = plan.train.n_steps * plan.batch_size
    fim_rate = RowsConfig.fim_rate if data.tokenizer.can_fill_in else 0.0
    rows = RowsConfig(seq_len=plan.seq_len, fim_rate=fim_rate, n_rows=n_rows, seed=plan.train.seed)
    # One group: the rows that the run needs are drawn from all documents.
    build_store(folder / TOKENS, [data.train], data.tokenizer, rows)
    batches = RandomBatches(TokenStore(folder / TOKENS), plan.batch_size, plan.train.seed)
    weights = None if data.init is None else data.init.state_dict()
    model = train(plan.model, plan.train, batches, folder, display.step, weights=weights)
    last = checkpoint_folder.newest(folder)
    assert last is not None
    return model, {"losses": last.state.losses, "seconds": last.state.seconds}


def _evaluate(model: LanguageModel, data: Data, plan: Plan, display: Display) -> dict[str, Any]:
    model.compute_dtype = compute_dtype(torch.device("cpu"))
    score = bits_per_byte(
        model, data.held_out, data.tokenizer, seq_len=plan.seq_len, on_batch=display.progress
    )
    model.compute_dtype = None
    return {"bits_per_byte": score.bits_per_byte, "n_tokens": score.n_tokens, "n_bytes": score.n_bytes}


def _write_gguf(path: Path, model: LanguageModel, tokenizer: Tokenizer) -> int:
    """Write the model for llama.cpp, and return the file's size in bytes."""
    if not path.exists():
        save_gguf(path, model, tokenizer, torch.float16)
    return path.stat().st_size


def _report(
    config: BuildConfig,
    plan: Plan,
    data: Data,
    stages: Stages,
    ngram: dict[str, float],
    before: dict[str, Any] | None,
    scores: dict[str, Any],
    samples: list[dict[str, str]],
) -> dict[str, Any]:
    return {
        "name": config.folder.name,
        "bits_per_byte": scores["bits_per_byte"],
        "ngram_bits_per_byte": ngram,
        "bits_per_byte_before": before and before["bits_per_byte"],
        "n_parameters": plan.model.n_parameters,
        "tokens": plan.n_tokens,
        "steps": plan.train.n_steps,
        "tokens_per_s": plan.n_tokens / stages.seconds["train"],
        "seconds": stages.total_seconds,
        "bits_per_token": scores["bits_per_byte"] * scores["n_bytes"] / scores["n_tokens"],
        "model": dataclasses.asdict(plan.model),
        "train": dataclasses.asdict(plan.train),
        "corpus": data.about,
        "held_out": {"n_documents": len(data.held_out), "n_bytes": scores["n_bytes"]},
        "stage_seconds": stages.seconds,
        "samples": samples,
        "model_folder": str(config.folder / MODEL),
        "gguf": str(config.folder / GGUF),
        "version": {"techtree": techtree.__version__, "torch": torch.__version__},
    }
