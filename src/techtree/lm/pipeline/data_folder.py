"""From a corpus to a folder that `techtree train` reads, in stages that survive a kill.

    settings.json        what the folder was begun with; nothing else goes on in it
    held_out.jsonl.gz    the documents to measure on
    tokens/              the store of tokens to train on, with the tokenizer

Until the store is finished, corpus.jsonl.gz and corpus.json keep the documents to train on, so that files
which change meanwhile do not matter.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from techtree import atomic
from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.manifest import Shard, read_manifest
from techtree.lm.data.rows import RowsConfig
from techtree.lm.data.split import split_at_end, split_by_file
from techtree.lm.data.store import TokenStore
from techtree.lm.data.store_builder import build_store, grouped
from techtree.lm.pipeline.corpus_file import read_documents, write_documents
from techtree.lm.pipeline.gathering import described, full_paths, gather
from techtree.lm.pipeline.run_folder import (
    check_settings,
    forgotten_if_refused,
    locked,
    record_settings,
)
from techtree.lm.pipeline.stages import STAGES, Display, Stages, read_json
from techtree.lm.tokenizer import Tokenizer

HELD_OUT, TOKENS = "held_out.jsonl.gz", "tokens"
"""What lies in a finished folder, by name."""

_CORPUS, _ABOUT, _SETTINGS = "corpus.jsonl.gz", "corpus.json", "settings.json"


@dataclass(frozen=True)
class DataConfig:
    """What to make."""

    corpus: tuple[Path, ...]
    folder: Path
    tokenizer: Path | None
    """The folder of a model whose tokenizer to take; None to train one."""
    vocab_size: int
    """Of the tokenizer that is trained."""
    rows: RowsConfig
    held_out_percent: float

    def __post_init__(self) -> None:
        if not 0 < self.held_out_percent <= 50:
            raise InputError(
                f"--held-out-percent must be above 0, and 50 at most; got {self.held_out_percent:g}: use 4"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the folder's content depends on, by the name of the option."""
        return {
            "corpus": full_paths(self.corpus),
            "tokenizer": self.tokenizer and full_paths([self.tokenizer])[0],
            "vocab_size": None if self.tokenizer else self.vocab_size,
            "held_out_percent": self.held_out_percent,
            **dataclasses.asdict(self.rows),
        }


def is_finished(config: DataConfig) -> bool:
    """Return whether the folder holds all of what is to be made.

    Raises
    ------
    InputError
        When it holds something else, or a damaged file.
    """
    _check_same(config)
    manifest = read_manifest(config.folder / TOKENS)
    if manifest is None or not manifest.is_complete or (config.folder / _ABOUT).exists():
        return False
    TokenStore(config.folder / TOKENS)
    return True


def prepare(config: DataConfig, display: Display) -> TokenStore:
    """Fill the folder, or go on where an earlier call was stopped.

    Raises
    ------
    InputError
        When the corpus or the tokenizer cannot be used, or the folder holds something else.
    """
    _check_same(config)
    made = (_SETTINGS, STAGES, _CORPUS, _ABOUT, HELD_OUT, TOKENS)
    with locked(config.folder), forgotten_if_refused(config.folder, made, lambda: _has_shards(config)):
        return _prepare(config, Stages(config.folder, display), display)


def _prepare(config: DataConfig, stages: Stages, display: Display) -> TokenStore:
    train, _ = stages.run(
        "collect source files", lambda: _documents(config), lambda result: described(result[1])
    )
    tokenizer = stages.run(
        "train the tokenizer" if config.tokenizer is None else "take the tokenizer",
        lambda: _tokenizer(config, train),
        lambda tokenizer: f"{tokenizer.vocab_size:,} tokens",
    )
    store = stages.run(
        "pack tokens into rows",
        lambda: _pack(config, train, tokenizer, display),
        lambda store: f"{store.n_rows:,} rows of {store.seq_len}, {store.n_tokens:,} tokens to learn",
    )
    for name in (_ABOUT, _CORPUS):  # in this order: the first one says that the other is there
        (config.folder / name).unlink(missing_ok=True)
    return store


def _check_same(config: DataConfig) -> None:
    """Refuse a folder that was begun with other settings, or by another program."""
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder; {folder} is a file: choose another one")
    if not (folder / _SETTINGS).exists():
        strange = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []
        if strange:
            raise InputError(f"--out must be a new folder; {folder} holds {min(strange)}: choose another one")
        return
    check_settings(folder / _SETTINGS, config.settings, positional=("corpus",))


def _has_shards(config: DataConfig) -> bool:
    manifest = read_manifest(config.folder / TOKENS)
    return manifest is not None and len(manifest.shards) > 0


def _documents(config: DataConfig) -> tuple[list[Document], dict[str, Any]]:
    """Return the documents to train on; those to measure on are in their file then."""
    path, about_path = config.folder / _CORPUS, config.folder / _ABOUT
    if about_path.exists():
        return read_documents(path), read_json(about_path)
    documents, about = gather(config.corpus)
    # The parts of one text continue each other: only its end is unseen.
    is_one_text = len(config.corpus) == 1 and config.corpus[0].is_file()
    split = split_at_end if is_one_text else split_by_file
    train, held_out = split(documents, config.held_out_percent / 100)
    record_settings(config.folder / _SETTINGS, config.settings)
    write_documents(config.folder / HELD_OUT, held_out)
    write_documents(path, train)
    atomic.write_text(about_path, json.dumps(about, indent=1) + "\n")
    return train, about


def _tokenizer(config: DataConfig, train: Sequence[Document]) -> Tokenizer:
    folder = config.folder / TOKENS
    if (folder / "tokenizer_config.json").exists():  # the last file that is written
        return Tokenizer.load(folder)
    if config.tokenizer is None:
        tokenizer = Tokenizer.train((document.text for document in train), config.vocab_size)
    else:
        tokenizer = Tokenizer.load(config.tokenizer)
        _check_special_tokens(tokenizer, config.rows.fim_rate)
    tokenizer.save(folder)
    return tokenizer


def _check_special_tokens(tokenizer: Tokenizer, fim_rate: float) -> None:
    _ = tokenizer.end_of_text_id
    if fim_rate == 0:
        return
    try:
        _ = tokenizer.fim_prefix_id, tokenizer.fim_suffix_id, tokenizer.fim_middle_id
    except InputError as error:
        raise InputError(f"{error}; with --fim-rate 0 it needs none") from error


def _pack(
    config: DataConfig, train: Sequence[Document], tokenizer: Tokenizer, display: Display
) -> TokenStore:
    n_bytes = sum(document.n_bytes for document in train)
    n_done = 0

    def on_shard(shard: Shard) -> None:
        nonlocal n_done
        n_done += shard.n_bytes
        display.progress(n_done, n_bytes)

    build_store(config.folder / TOKENS, grouped(train), tokenizer, config.rows, on_shard)
    return TokenStore(config.folder / TOKENS)
