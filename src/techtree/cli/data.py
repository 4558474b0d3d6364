"""`techtree data`: from source files or text to rows of tokens, ready to train on."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from techtree.cli.filling import filling
from techtree.errors import InputError


@dataclass(frozen=True)
class Config:
    """Prepare a corpus for training: drop near-duplicates, hold some out, tokenize the rest into rows.

    Ctrl-C stops it, and the same command goes on from there.
    """

    corpus: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS...")]
    """Folders with Python code; and single files, of any kind of text: of one file, the end is held out."""

    out: Path
    """The folder to make."""

    tokenizer: Path | None = None
    """The folder of a model whose tokenizer to take; one is trained when left out."""

    vocab_size: int | None = None
    """How many tokens the trained tokenizer has; 4096 when left out."""

    seq_len: int = 512
    """How many tokens the model will see at once."""

    fim_rate: float = 0.5
    """The share of windows that become fill-in-the-middle examples: 0.5 for code, 0 for prose."""

    held_out_percent: float = 4.0
    """How much of the text measures the model instead of training it."""


def run(config: Config) -> int:
    """Prepare the data, with a display that fits where the output goes."""
    if config.tokenizer is not None and config.vocab_size is not None:
        raise InputError("--vocab-size is for a tokenizer that is trained; leave it out, or --tokenizer")
    if not config.corpus:
        raise InputError("a corpus must have at least one file or folder; got none: techtree data CORPUS")
    from techtree.lm.data.rows import RowsConfig
    from techtree.lm.pipeline.data_folder import DataConfig, is_finished, prepare

    data_config = DataConfig(
        corpus=config.corpus,
        folder=config.out,
        tokenizer=config.tokenizer,
        vocab_size=4096 if config.vocab_size is None else config.vocab_size,
        rows=RowsConfig(seq_len=config.seq_len, fim_rate=config.fim_rate),
        held_out_percent=config.held_out_percent,
    )
    with filling(config.out):
        if is_finished(data_config):
            print(f"{config.out} is finished")
        else:
            from techtree.cli.build_display import open_display

            with open_display(sys.stdout) as display:
                prepare(data_config, display)
    print(f"next      techtree train {config.out}")
    return 0
