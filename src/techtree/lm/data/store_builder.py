"""A store of tokens, built shard by shard from groups of documents.

A shard depends on nothing but its group, its number and the settings, and is on the disk before the manifest
tells of it. So a build that is killed goes on after the last shard it told of, and ends with the same bytes.
Documents may come from an iterator: no more than two groups' texts and one shard's tokens are held.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.manifest import Manifest, Shard, hash_of, read_manifest
from techtree.lm.data.pieces import highest_bit, token_dtype
from techtree.lm.data.rows import RowsConfig, build_rows
from techtree.lm.data.shard import shard_path, write_shard
from techtree.lm.data.store import open_shard_of
from techtree.lm.tokenizer import Tokenizer

GROUP_BYTES = 8_000_000
"""Text of a shard: some seconds of work, which is what a kill may cost, and 4 MB of rows."""


def grouped(documents: Iterable[Document], n_bytes: int = GROUP_BYTES) -> Iterator[list[Document]]:
    """Yield documents in groups of about so many bytes.

    The last group takes what is left in too: alone that might not fill a row.
    """
    before: list[Document] = []
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += document.n_bytes
        if size >= n_bytes:
            if before:
                yield before
            before, group, size = group, [], 0
    if before or group:
        yield before + group


def build_store(
    folder: Path,
    groups: Iterable[Sequence[Document]],
    tokenizer: Tokenizer,
    config: RowsConfig,
    on_shard: Callable[[Shard], None] = lambda shard: None,
) -> None:
    """Build a store of tokens, or go on with one, or see that a finished one is whole.

    Parameters
    ----------
    folder
        Of the store.
    groups
        The documents of each shard, in turn.
    tokenizer, config
        What they are made with.
    on_shard
        Called when a shard is there, also if it was there before.

    Raises
    ------
    InputError
        When the folder holds a store of other files or settings, or one that cannot be read; when a group
        does not fill a row, or there is none.
    """
    manifest = _begin(folder, tokenizer, config)
    n_groups = 0
    for documents in groups:
        manifest = _with_shard(manifest, n_groups, folder, documents, tokenizer)
        on_shard(manifest.shards[n_groups])
        n_groups += 1
    if n_groups < len(manifest.shards):
        raise InputError(_made_from_others(folder))
    if n_groups == 0:
        raise InputError("a store of tokens needs documents; got none: add files")
    if not manifest.is_complete:
        dataclasses.replace(manifest, is_complete=True).write(folder)


def _begin(folder: Path, tokenizer: Tokenizer, config: RowsConfig) -> Manifest:
    """Return the folder's manifest, or the first one of a new store."""
    new = Manifest(
        config=config,
        tokenizer=hash_of([tokenizer.to_json()]),
        vocab_size=tokenizer.vocab_size,
        dtype=token_dtype(tokenizer.vocab_size).name,
    )
    old = read_manifest(folder)
    if old is not None:
        _check_same(folder, old, new)
    for torn in folder.glob(".*.part"):  # what a kill left of an atomic write
        torn.unlink(missing_ok=True)
    tokenizer.save(folder)
    if old is None:
        new.write(folder)
    return old or new


def _with_shard(
    manifest: Manifest, number: int, folder: Path, documents: Sequence[Document], tokenizer: Tokenizer
) -> Manifest:
    """Return the manifest that tells of a shard, after building it unless it is there."""
    made_from = hash_of(document.text for document in documents)
    is_told_of = number < len(manifest.shards)
    if is_told_of and _is_whole(folder, manifest, number, made_from):
        return manifest
    if not is_told_of and manifest.is_complete:
        raise InputError(_made_from_others(folder))
    rng = np.random.default_rng([manifest.config.seed, number])
    rows = build_rows(documents, tokenizer, manifest.config, rng)
    write_shard(shard_path(folder, number), rows)
    if is_told_of:
        return manifest
    shard = Shard(
        n_rows=len(rows),
        n_tokens=int((rows < highest_bit(rows.dtype)).sum()),
        n_documents=len(documents),
        n_bytes=sum(document.n_bytes for document in documents),
        made_from=made_from,
    )
    manifest = dataclasses.replace(manifest, shards=(*manifest.shards, shard))
    manifest.write(folder)
    return manifest


def _is_whole(folder: Path, manifest: Manifest, number: int, made_from: str) -> bool:
    """Return whether a shard of these documents can be read."""
    if manifest.shards[number].made_from != made_from:
        raise InputError(_made_from_others(folder))
    try:
        open_shard_of(folder, manifest, number)
    except InputError:
        return False  # It is built again from the same documents, to the same bytes.
    return True


def _check_same(folder: Path, old: Manifest, new: Manifest) -> None:
    before, now = ({"tokenizer": m.tokenizer} | dataclasses.asdict(m.config) for m in (old, new))
    for name, value in now.items():
        if value != before[name]:
            got = f"{name}={before[name]}, now it is {value}"
            if name == "tokenizer":
                got = "another tokenizer"
            raise InputError(
                f"a store goes on with what it began with; {folder} has {got}: choose another folder, or "
                "delete it"
            )


def _made_from_others(folder: Path) -> str:
    return f"{folder} holds the tokens of other files: choose another folder, or delete it"
