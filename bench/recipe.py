"""Compare training recipes at equal tokens: `python bench/recipe.py --train.muon-lr 0.01`.

Trains on the standard library as `techtree build` does, and prints one line: the settings that differ from
the defaults, bits per byte on held-out files, and the processor time. The numbers in results/LOG.md
come from here.
"""

import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from techtree.lm.config import ModelConfig
from techtree.lm.data.batches import RandomBatches
from techtree.lm.data.corpus import collect, standard_library
from techtree.lm.data.near_duplicates import without_near_duplicates
from techtree.lm.data.rows import RowsConfig
from techtree.lm.data.split import split_by_file
from techtree.lm.data.store import TokenStore
from techtree.lm.data.store_builder import build_store
from techtree.lm.eval.bits_per_byte import bits_per_byte
from techtree.lm.eval.held_out import evaluated
from techtree.lm.pipeline.plan import DEFAULT_DEPTH, SEQ_LEN, TOKENS_PER_STEP, shape
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.trainer import train


@dataclass(frozen=True)
class Config:
    """A recipe to measure."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(n_steps=200, checkpoint_interval_s=1e9))
    depth: int = DEFAULT_DEPTH
    vocab_size: int = 4096
    seq_len: int = SEQ_LEN
    batch_tokens: int = TOKENS_PER_STEP
    fim_rate: float = 0.5
    model: str = "{}"
    """Fields of the model's config that differ from the shape's, as JSON."""
    eval_bytes: int = 100_000
    threads: int = 0
    """Of PyTorch; 0 leaves its choice."""


def main(config: Config) -> None:
    """Train, measure, print a line."""
    if config.threads:
        torch.set_num_threads(config.threads)
    documents = without_near_duplicates(collect([standard_library()]).documents)
    train_documents, held_out = split_by_file(documents)
    tokenizer = Tokenizer.train((d.text for d in train_documents), config.vocab_size)
    plain = dataclasses.replace(shape(config.depth, tokenizer.vocab_size), max_seq_len=config.seq_len)
    model_config = ModelConfig.from_dict(dataclasses.asdict(plain) | json.loads(config.model))
    batch_size = config.batch_tokens // config.seq_len
    rows_config = RowsConfig(config.seq_len, config.fim_rate, config.train.n_steps * batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_store(folder / "tokens", [train_documents], tokenizer, rows_config)
        rows = RandomBatches(TokenStore(folder / "tokens"), batch_size, rows_config.seed)
        started, cpu = time.monotonic(), time.process_time()
        model = train(model_config, config.train, rows, folder)
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    chosen = evaluated(held_out, config.eval_bytes)
    model.compute_dtype = torch.bfloat16
    score = bits_per_byte(model, chosen, tokenizer, seq_len=config.seq_len)
    n_tokens = config.train.n_steps * config.batch_tokens
    print(
        f"{score.bits_per_byte:.4f} bits/byte  {n_tokens:,} tokens  {seconds:.0f} s  {n_tokens / cpu:,.0f} "
        f"tokens per CPU second  {model_config.n_parameters / 1e6:.2f}M parameters  {_differences(config)}",
        flush=True,
    )


def _differences(config: Config) -> str:
    default = dataclasses.asdict(Config())
    given = dataclasses.asdict(config)
    train = {k: v for k, v in given.pop("train").items() if v != default["train"][k]}
    others = {k: v for k, v in given.items() if v != default[k]}
    return " ".join(f"{name}={value}" for name, value in (others | train).items()) or "the defaults"


if __name__ == "__main__":
    main(tyro.cli(Config))
