"""Tokens per second in training, beside nanoGPT's model and optimizer: `throughput.py --nanogpt PATH`.

6 layers of width 384 with 6 heads, 256 tokens a row, 16 rows a step, a vocabulary of 8,192. All get the same
tokens in the same order: the standard library, in the tokens that our tokenizer learns on it. Each trains in
a fresh process. nanoGPT runs uncompiled and in float32, as it does on a CPU; ours in the precision that the
trainer chooses.
"""

import dataclasses
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import nanogpt
from evaluation import held_out_loss
from report import again, conditions, run, table
from techtree.errors import InputError
from techtree.lm.config import ModelConfig, Speedrun
from techtree.lm.data.corpus import Document, collect, standard_library
from techtree.lm.data.near_duplicates import without_near_duplicates
from techtree.lm.data.split import split_by_file
from techtree.lm.model import LanguageModel
from techtree.lm.pipeline.plan import shape
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.trainer import Step, train

VOCAB_SIZE = 8192
SEQ_LEN = 256
N_ROWS = 16
N_HELD_OUT = 100 * SEQ_LEN + 1
WARM_UP = 3
"""Steps that do not count for the speed."""

_SHAPE = dataclasses.replace(shape(6, VOCAB_SIZE), max_seq_len=SEQ_LEN)
MODELS: dict[str, ModelConfig] = {
    "techtree": dataclasses.replace(_SHAPE, d_ff=704),
    "techtree speedrun": dataclasses.replace(
        _SHAPE, d_ff=480, speedrun=Speedrun(longest_ngram=4, ngram_rows=4095)
    ),
}
"""Ours, about as large as nanoGPT's: what they have more of in tables, they have less of in d_ff."""


@dataclass(frozen=True)
class Config:
    """What to compare."""

    nanogpt: Path | None = None
    """A checkout of nanoGPT; left out, it is skipped."""
    n_steps: int = 60
    """How long each trains, 4,096 tokens a step."""
    nanogpt_lr: float = 1e-3
    """The highest learning rate of nanoGPT, which falls to a tenth as in its recipes."""
    threads: int = 0
    """Of PyTorch, for all; 0 leaves its choice."""

    def __post_init__(self) -> None:
        if self.n_steps <= WARM_UP:
            raise InputError(f"n_steps must be more than {WARM_UP}; got {self.n_steps}")


@dataclass(frozen=True)
class Result:
    """One training."""

    tokens_per_s: float
    loss: float
    n_parameters: int


class Rows:
    """The tokens as batches."""

    def __init__(self, ids: Int[Tensor, "steps rows length"]) -> None:
        self.ids = ids

    def batch(self, step: int, rank: int = 0, n_ranks: int = 1) -> tuple[Tensor, Tensor]:
        """Return the inputs and the targets of a step."""
        rows = self.ids[step, rank::n_ranks]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def main(config: Config) -> None:
    """Measure, and print."""
    if config.nanogpt is not None:
        nanogpt.check(config.nanogpt)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "tokens.npz"
        write_tokens(data, config.n_steps)
        if config.nanogpt is not None:
            results["nanoGPT"] = in_a_process("nanoGPT", data, config)
        for model in MODELS:
            results[model] = in_a_process(model, data, config)
    threads = config.threads or torch.get_num_threads()
    print(f"{conditions('torch', 'numpy', n_threads=threads)}\n\n{compared(results)}\n")
    if config.nanogpt is None:
        print(f"nanoGPT was skipped: {nanogpt.ADVICE}")
    else:
        print(f"nanoGPT {nanogpt.commit(config.nanogpt)}: its model.py and AdamW, float32, not compiled")
    print(again())


def compared(results: dict[str, Result]) -> str:
    """Return the table."""
    base = results.get("nanoGPT")
    rows = [
        [
            name,
            f"{one.n_parameters:,}",
            f"{one.tokens_per_s:,.0f}",
            f"{one.tokens_per_s / base.tokens_per_s:.2f}" if base else "-",
            f"{one.loss:.3f}",
        ]
        for name, one in results.items()
    ]
    return table(["program", "parameters", "tokens/s", "of nanoGPT's", "held-out loss"], rows)


def write_tokens(path: Path, n_steps: int) -> None:
    """Tokenize as much of the standard library as is needed, and as much of its held-out files."""
    train_documents, held_out = split_by_file(
        without_near_duplicates(collect([standard_library()]).documents)
    )
    tokenizer = Tokenizer.train((d.text for d in train_documents), VOCAB_SIZE)
    assert tokenizer.vocab_size == VOCAB_SIZE
    shuffled = np.random.default_rng(0).permutation(len(train_documents))
    length = SEQ_LEN + 1
    ids = _tokens([train_documents[i] for i in shuffled], tokenizer, n_steps * N_ROWS * length)
    # Neighbours in a file would make a step's rows alike.
    rows = np.random.default_rng(1).permutation(ids.reshape(-1, length)).reshape(n_steps, N_ROWS, length)
    np.savez(path, train=rows, held_out=_tokens(held_out, tokenizer, N_HELD_OUT))


def _tokens(documents: list[Document], tokenizer: Tokenizer, n_tokens: int) -> np.ndarray:
    found: list[int] = []
    for document in documents:
        found += [*tokenizer.encode(document.text), tokenizer.end_of_text_id]
        if len(found) >= n_tokens:
            return np.array(found[:n_tokens])
    raise InputError(f"the standard library has only {len(found):,} tokens: take fewer steps")


def in_a_process(model: str, data: Path, config: Config) -> Result:
    """Train one in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        return processes.submit(train_one, model, data, config).result()


def train_one(name: str, data: Path, config: Config) -> Result:
    """Train one, and evaluate it."""
    if config.threads:
        torch.set_num_threads(config.threads)
    tokens = np.load(data)
    rows, held_out = torch.from_numpy(tokens["train"]), torch.from_numpy(tokens["held_out"])
    seconds: list[float] = []
    if name == "nanoGPT":
        model = _train_nanogpt(Rows(rows), config, seconds)
        logits = nanogpt.logits(model)
    else:
        logits = model = _train_ours(MODELS[name], Rows(rows), config, seconds)
    rate = N_ROWS * SEQ_LEN / statistics.median(seconds[WARM_UP:])
    n_parameters = sum(p.numel() for p in model.parameters())
    return Result(rate, held_out_loss(logits, held_out, SEQ_LEN), n_parameters)


def _train_ours(model: ModelConfig, rows: Rows, config: Config, seconds: list[float]) -> LanguageModel:
    def note(step: Step) -> None:
        seconds.append(step.tokens / step.tokens_per_s)

    with tempfile.TemporaryDirectory() as folder:
        recipe = TrainConfig(n_steps=config.n_steps, checkpoint_interval_s=math.inf)
        return train(model, recipe, rows, Path(folder), note)


def _train_nanogpt(rows: Rows, config: Config, seconds: list[float]) -> Any:
    """Take the steps that its train.py takes, with a schedule that fits this length."""
    assert config.nanogpt is not None
    module = nanogpt.model_module(config.nanogpt)
    torch.manual_seed(1337)
    shape = {"vocab_size": VOCAB_SIZE, "block_size": SEQ_LEN, "n_layer": 6, "n_head": 6, "n_embd": 384}
    model = module.GPT(module.GPTConfig(**shape, dropout=0.0, bias=False))
    optimizer = model.configure_optimizers(0.1, config.nanogpt_lr, (0.9, 0.95), "cpu")
    n_rising = min(10, config.n_steps // 4)
    for step in range(config.n_steps):
        started = time.perf_counter()
        inputs, targets = rows.batch(step)
        past = max(0.0, (step - n_rising) / (config.n_steps - n_rising))
        for group in optimizer.param_groups:
            group["lr"] = config.nanogpt_lr * min(
                (step + 1) / n_rising, 0.55 + 0.45 * math.cos(math.pi * past)
            )
        model(inputs, targets)[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return model.eval()


if __name__ == "__main__":
    sys.exit(run(main, Config))
