"""What a memory of a project is worth: `memory.py MODEL --project FOLDER`, bits per byte and lines filled in.

A model reads some files of a project that it was never trained on, and is reminded of nothing, of what the
file said so far, or of that and the project's other files. With `--holes N`, lines of these files are taken
out, and it fills them in, with and without the memory. With `--fit`, the weights of the gate are learned on
the project instead, from all the models named; measure them on another project.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from report import again, conditions, run, table
from techtree.engines.engine import InfillRequest
from techtree.engines.torch_engine import TorchEngine, load_to_decode
from techtree.errors import InputError
from techtree.lm.data.corpus import Document, collect
from techtree.lm.data.token_sequence import measured_sequence
from techtree.lm.eval.bits_per_byte import bits_per_byte
from techtree.lm.eval.held_out import evaluated
from techtree.lm.formats.gguf import load_gguf
from techtree.lm.formats.huggingface import load_pretrained
from techtree.lm.memory.gate import features
from techtree.lm.memory.index import LONGEST_MATCH, Match, TokenIndex
from techtree.lm.memory.memory import Memory
from techtree.lm.memory.reminders import reminders
from techtree.lm.memory.repository import Repository
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train.precision import compute_dtype

MIN_BYTES, MAX_BYTES = 1500, 30_000
"""Of a file that is measured."""
STEPS, RATE = 300, 0.05
"""Of the gate's training."""


@dataclass(frozen=True)
class Config:
    """What to measure."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of models, or GGUF files."""
    project: Path = Path("src")
    """A folder with code that the models have never seen."""
    max_bytes: int = 90_000
    """Of the files that are read; all of the project's other files are remembered."""
    seq_len: int = 1024
    holes: int = 0
    """How many lines to take out and have filled in."""
    fit: bool = False
    """Learn the gate's weights on the project, and print them."""


def main(config: Config) -> None:
    """Measure, and print."""
    if not config.models:
        raise InputError("name at least one model")
    project = collect([config.project], is_exact=True).documents
    wanted = [document for document in project if MIN_BYTES <= document.n_bytes <= MAX_BYTES]
    documents = evaluated(wanted, config.max_bytes)
    print(conditions("torch", n_threads=torch.get_num_threads()), end="\n\n")
    if config.fit:
        positions = [
            each for path in config.models for each in seen(path, documents, project, config.seq_len)
        ]
        for name, weights in zip(("TEXT", "REPOSITORY"), fitted(positions), strict=True):
            print(f"{name}_WEIGHTS = {tuple(np.round(weights, 2).tolist())}")
    else:
        rows = [row for path in config.models for row in bits(path, documents, project, config.seq_len)]
        print(table(["model", "memory", "bits per byte", "fewer"], rows), end="\n\n")
        rows = [row for path in config.models for row in costs(path, project)]
        print(table(["model", "of the index", "CPU time"], rows), end="\n\n")
    if config.holes:
        rows = [filled(path, documents, config.project, config.holes) for path in config.models]
        print(table(["model", "lines", "right without", "right with", "standard error"], rows), end="\n\n")
    print(again())


def load(path: Path) -> tuple[LanguageModel, Tokenizer]:
    """Return a model as it is measured, and its tokenizer."""
    model, tokenizer = (load_gguf if path.suffix == ".gguf" else load_pretrained)(path, torch.float32)
    model.compute_dtype = compute_dtype(torch.device("cpu"))
    return model.eval(), tokenizer


def bits(path: Path, documents: list[Document], project, seq_len: int) -> Iterator[list[object]]:
    """Yield a row for each memory."""
    model, tokenizer = load(path)
    alone = math.nan
    for name, remembered in {"none": None, "the file": [], "the project": project}.items():
        score = bits_per_byte(
            model, documents, tokenizer, seq_len=seq_len, batch_size=1, project=remembered
        ).bits_per_byte
        alone = score if remembered is None else alone
        yield [path.stem, name, f"{score:.4f}", f"{100 * (1 - score / alone):.1f} %"]


def costs(path: Path, project: tuple[Document, ...]) -> Iterator[list[object]]:
    """Yield how long it takes to encode and sort the project, and to look something up."""
    _, tokenizer = load_to_decode(path)
    texts = [document.text for document in project]
    start = time.process_time()
    ids = tokenizer.encode_batch(texts)
    encoded = time.process_time()
    index = TokenIndex(ids)
    n_mb = sum(document.n_bytes for document in project) / 1e6
    yield [path.stem, f"encode {n_mb:.1f} MB", f"{encoded - start:.2f} s"]
    yield [path.stem, f"sort {len(index.tokens):,} tokens", f"{time.process_time() - encoded:.2f} s"]
    contexts = [text[max(0, i - LONGEST_MATCH) : i] for text in ids for i in range(1, len(text), 97)][:3000]
    start = time.process_time()
    for context in contexts:
        index.match(context)
    took = (time.process_time() - start) / len(contexts)
    yield [path.stem, f"look up, mean of {len(contexts)}", f"{1e6 * took:.0f} µs"]


def filled(path: Path, documents: list[Document], project: Path, n_holes: int) -> list[object]:
    """Return how many lines are filled in as they stood."""
    model, tokenizer = load_to_decode(path)
    repository = Repository(project, tokenizer)
    engines = [
        TorchEngine(model, tokenizer, "m", memory=each) for each in (None, Memory(tokenizer, repository))
    ]
    rng = np.random.default_rng(0)
    right = np.zeros((2, n_holes))
    for i in range(n_holes):
        text = documents[i % len(documents)].text
        lines = text.splitlines(keepends=True)
        n = int(rng.choice([n for n, line in enumerate(lines) if line.strip()]))
        indent = len(lines[n]) - len(lines[n].lstrip())
        prefix = "".join(lines[:n]) + lines[n][:indent]
        request = InfillRequest(prefix, "\n" + "".join(lines[n + 1 :]), max_tokens=64, stop=("\n",))
        for j, engine in enumerate(engines):
            right[j, i] = engine.infill(request).text.strip() == lines[n].strip()
    share = right.mean(1)
    error = (right[1] - right[0]).std() / math.sqrt(n_holes)
    return [path.stem, n_holes, f"{share[0]:.3f}", f"{share[1]:.3f}", f"{error:.3f}"]


# ---- the gate


@dataclass(frozen=True)
class Position:
    """A place in a text: the probability of what came there, by the model and by the memories."""

    p_model: float
    p: tuple[float, ...]
    features: tuple[np.ndarray | None, ...]


def seen(path: Path, documents: list[Document], project, seq_len: int) -> Iterator[Position]:
    """Yield all positions of documents, in windows that overlap by half, as one model sees them."""
    model, tokenizer = load(path)
    sequences = [measured_sequence(document, tokenizer) for document in documents]
    for sequence, memory in zip(sequences, reminders(documents, sequences, project, tokenizer), strict=True):
        for begin in range(0, len(sequence) - 1, seq_len // 2):
            start = max(0, begin - seq_len // 2)
            ids = torch.from_numpy(sequence[start : begin + seq_len // 2].astype(np.int64))
            with torch.inference_mode():
                log_p = torch.log_softmax(model(ids[None])[0].float(), 1)
            for i in range(begin, min(begin + seq_len // 2, len(sequence) - 1)):
                row, target = log_p[i - start], int(sequence[i + 1])
                best = int(row.argmax())
                yield Position(
                    row[target].exp().item(),
                    tuple(_share(match, target) for match in memory[i]),
                    tuple(match and features(match, best, row[best].item()) for match in memory[i]),
                )


def _share(match: Match | None, target: int) -> float:
    if match is None:
        return 0.0
    return float(match.counts[match.followers == target].sum() / match.counts.sum())


def fitted(positions: list[Position]) -> np.ndarray:
    """Return the weights for which the mixture needs the fewest bits, by gradient descent (Adam)."""
    n_features = next(len(f) for each in positions for f in each.features if f is not None)
    nothing = np.zeros(n_features)
    inputs = np.array([[nothing if f is None else f for f in each.features] for each in positions])
    is_there = np.array([[f is not None for f in each.features] for each in positions])
    p = np.array([[each.p_model, *each.p] for each in positions])
    weights = np.zeros((2, n_features))
    weights[:, 0] = -2
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gates = np.exp(np.where(is_there, np.einsum("tkf,kf->tk", inputs, weights), -np.inf))
        gates = np.concatenate([np.ones((len(p), 1)), gates], 1)
        gates /= gates.sum(1, keepdims=True)
        posterior = gates * p / (gates * p).sum(1, keepdims=True)
        gradient = np.einsum("tk,tkf->kf", (gates - posterior)[:, 1:], inputs) / len(p)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        size = np.sqrt(square / (1 - 0.99**step)) + 1e-9
        weights -= RATE * (1 - step / STEPS) * mean / (1 - 0.9**step) / size
    return weights


if __name__ == "__main__":
    raise SystemExit(run(main, Config))
