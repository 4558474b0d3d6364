"""Bits per byte of a language model on whole documents.

A document longer than the model's context is read in windows that overlap by half. Every token is
predicted once; those after a document's first window from at least half a context.

Arrays: `B` windows of a batch, `T` tokens of the longest one.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32
from torch import Tensor, nn

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.token_sequence import measured_sequence
from techtree.lm.eval.held_out import Score
from techtree.lm.memory.gate import mixed
from techtree.lm.memory.reminders import Reminder, reminders
from techtree.lm.model.cross_entropy import IGNORED
from techtree.lm.tokenizer import Tokenizer


def bits_per_byte(
    model: nn.Module,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    batch_size: int = 8,
    project: Sequence[Document] | None = None,
    on_batch: Callable[[int, int], None] = lambda n_done, n_batches: None,
) -> Score:
    """Measure a model on documents.

    Parameters
    ----------
    model
        Maps ids (B, T) to logits (B, T, vocabulary), each position seeing only those before it.
    documents
        What to measure on, all of it (see `techtree.lm.eval.held_out.evaluated`).
    tokenizer
        The model's own.
    seq_len
        The largest number of tokens that the model sees at once.
    batch_size
        Windows computed at once: for memory and speed, without influence on the result beyond rounding.
    project
        Documents of which the model is reminded, all but the one that it reads, and of what that one said so
        far (`techtree.lm.memory`); of nothing when left out.
    on_batch
        Called after each batch with how many are done, of how many.

    Raises
    ------
    InputError
        When seq_len or batch_size is not positive, the tokenizer loses a part of a text, or the losses are no
        numbers.
    """
    if seq_len < 1 or batch_size < 1:
        raise InputError(f"seq_len and batch_size must be positive; got {seq_len} and {batch_size}")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    sequences = [measured_sequence(document, tokenizer) for document in documents]
    memories = [None] * len(sequences)
    if project is not None:
        memories = reminders(documents, sequences, project, tokenizer)
    windows = [
        window
        for sequence, memory in zip(sequences, memories, strict=True)
        for window in _windows(sequence, seq_len, memory)
    ]
    windows.sort(key=lambda window: -len(window.ids))  # windows of like lengths together: little padding
    batches = [windows[i : i + batch_size] for i in range(0, len(windows), batch_size)]
    nats = 0.0
    with _evaluating(model), torch.inference_mode():
        for n_done, batch in enumerate(batches, start=1):
            ids, targets = _stacked(batch)
            logits = model(ids.to(device)).float()
            _remind(logits, batch)
            losses = F.cross_entropy(
                logits.flatten(0, 1),
                targets.to(device).flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            nats += losses.double().sum().item()
            on_batch(n_done, len(batches))
    if not math.isfinite(nats):
        raise InputError(
            f"a model's losses must be numbers; their sum is {nats}: its files are damaged, or its numbers "
            "grow too large for the precision in which it computes"
        )
    n_bytes = sum(document.n_bytes for document in documents)
    return Score(nats / math.log(2), sum(len(sequence) - 1 for sequence in sequences), n_bytes)


@dataclass(frozen=True)
class _Window:
    """A stretch of a document: its tokens, and what is to be predicted after each of them."""

    ids: Int32[np.ndarray, " T"]
    targets: Int32[np.ndarray, " T"]
    reminders: Sequence[Reminder] | None
    """What stood before where the tokens so far stand, for each of them."""


def _remind(logits: Float[Tensor, "B T V"], windows: Sequence[_Window]) -> None:
    """Mix what is remembered into the scores that count."""
    for i, window in enumerate(windows):
        if window.reminders is not None:
            for j in np.flatnonzero(window.targets != IGNORED).tolist():
                logits[i, j] = mixed(logits[i, j], *window.reminders[j])


def _windows(
    sequence: Int32[np.ndarray, " T"], seq_len: int, memory: Sequence[Reminder] | None
) -> Iterator[_Window]:
    """Cut a document into windows in which each token but the first is a target exactly once."""
    n = len(sequence) - 1
    n_predicted = 0
    while n_predicted < n:
        end = min(max(seq_len, n_predicted + max(1, seq_len // 2)), n)
        start = max(0, end - seq_len)
        targets = sequence[start + 1 : end + 1].copy()
        targets[: n_predicted - start] = IGNORED
        yield _Window(sequence[start:end], targets, memory and memory[start:end])
        n_predicted = end


def _stacked(windows: Sequence[_Window]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Return the ids and targets of windows, filled up on the right, where no earlier position looks."""
    shape = len(windows), max(len(window.ids) for window in windows)
    ids, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for i, window in enumerate(windows):
        ids[i, : len(window.ids)] = window.ids
        targets[i, : len(window.ids)] = window.targets
    return torch.from_numpy(ids), torch.from_numpy(targets)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and back into the mode that it had."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
