"""`techtree eval`: how well a model knows a text, in bits per byte."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from techtree.errors import InputError
from techtree.streams import drawing, is_plain

if TYPE_CHECKING:
    from techtree.lm.data.corpus import Document

MAX_LOGITS = 1 << 26
"""Of the windows that are computed at once: 256 MB in float32."""


@dataclass(frozen=True)
class Config:
    """Measure a model on text: the bits that it needs per byte, which compares models of any vocabulary.

    Measure on what the model was not trained on.
    """

    corpus: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS...")]
    """Files and folders with code or text; of a folder that `techtree data` made, what it held out."""

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    seq_len: int | None = None
    """How many tokens the model sees at once; what it was trained to see, and 2048 at most, when left out."""

    memory: Literal["none", "text", "project"] = "none"
    """What the model is reminded of: nothing, what a text said so far, or that and CORPUS's other texts."""

    max_bytes: int = 1_000_000
    """Measure on whole documents of so many bytes together at most; 0 for all of them."""


def run(config: Config) -> int:
    """Measure, and print one line."""
    _check(config)
    import torch

    from techtree.engines.model_folder import find_model
    from techtree.lm.eval.bits_per_byte import bits_per_byte
    from techtree.lm.eval.held_out import evaluated
    from techtree.lm.formats.gguf import load_gguf
    from techtree.lm.formats.huggingface import load_pretrained
    from techtree.lm.train.precision import compute_dtype

    folder = find_model(config.model)
    project = _documents(config.corpus)
    documents = evaluated(project, config.max_bytes or None)
    load = load_gguf if folder.suffix == ".gguf" else load_pretrained
    model, tokenizer = load(folder, torch.float32)
    model.compute_dtype = compute_dtype(torch.device("cpu"))
    seq_len = config.seq_len or min(model.config.max_seq_len, 2048)
    if model.config.positions == "learned" and seq_len > model.config.max_seq_len:
        raise InputError(
            f"--seq-len must be at most {model.config.max_seq_len} for this model; got {seq_len}"
        )
    started = time.monotonic()
    score = bits_per_byte(
        model,
        documents,
        tokenizer,
        seq_len=seq_len,
        batch_size=max(1, min(8, MAX_LOGITS // (seq_len * model.config.vocab_size))),
        project={"none": None, "text": [], "project": project}[config.memory],
        on_batch=_show_progress,
    )
    print(
        f"{score.bits_per_byte:.4f} bits per byte  {score.bits_per_token:.4f} bits per token  "
        f"{len(documents)} documents, {score.n_bytes:,} bytes, {score.n_tokens:,} tokens in "
        f"windows of {seq_len}, memory: {config.memory}, {time.monotonic() - started:.0f} s"
    )
    return 0


def _check(config: Config) -> None:
    if not config.corpus:
        raise InputError("an evaluation needs at least one file or folder; got none: techtree eval CORPUS")
    if config.max_bytes < 0:
        raise InputError(f"--max-bytes must not be negative; got {config.max_bytes}: 0 takes all")
    if config.seq_len is not None and config.seq_len < 1:
        raise InputError(f"--seq-len must be at least 1; got {config.seq_len}")


def _documents(paths: tuple[Path, ...]) -> "list[Document]":
    from techtree.lm.data.corpus import collect
    from techtree.lm.pipeline.corpus_file import read_documents
    from techtree.lm.pipeline.data_folder import HELD_OUT

    prepared = [path for path in paths if (path / HELD_OUT).is_file()]
    others = [path for path in paths if path not in prepared]
    documents = [document for path in prepared for document in read_documents(path / HELD_OUT)]
    if others:
        collection = collect(others, is_exact=True)  # of every byte, as the figure is per byte
        documents += collection.documents
        if collection.skipped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in collection.skipped_by_reason().items())
            print(f"techtree: left out {len(collection.skipped)} files ({reasons})", file=sys.stderr)
    return documents


def _show_progress(n_done: int, n_batches: int) -> None:
    if not is_plain(sys.stderr):
        end = "\r" if n_done < n_batches else "\r\033[K"
        print(f"{n_done} of {n_batches} batches", end=end, file=drawing(sys.stderr), flush=True)
