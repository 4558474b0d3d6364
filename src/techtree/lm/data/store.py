"""A store of tokens: a folder with files of rows, which are mapped into memory, and the tokenizer.

    store.json                               what it holds (`manifest`), written last
    rows-00000.npy rows-00001.npy ...        the rows (`shard`)
    tokenizer.json tokenizer_config.json     what the tokens mean

Arrays: `N` rows of a file, `L` tokens of a row, `B` rows that are read.
"""

import dataclasses
import hashlib
import json
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt

from techtree.errors import InputError
from techtree.lm.data.manifest import FILE_NAME, Manifest, hash_of, read_manifest
from techtree.lm.data.pieces import highest_bit
from techtree.lm.data.shard import open_shard, shard_path
from techtree.lm.tokenizer import MAX_TOKENIZER_BYTES, TOKENIZER, Tokenizer
from techtree.reading import read_text

MAX_OPEN_SHARDS = 128
"""Each map holds a file open, and macOS lets a process have 256."""


class TokenStore:
    """The rows of a finished store, by number.

    Opening it looks at the beginning and the size of every file, and reads no row.

    Parameters
    ----------
    folder
        Where `build_store` put it.

    Raises
    ------
    InputError
        When there is no finished store, or a file is missing, cut short or no shard of it.
    """

    def __init__(self, folder: Path):
        manifest = read_manifest(folder)
        if manifest is None:
            raise InputError(
                f"{folder} must hold a store of tokens; it has no {FILE_NAME}: see techtree data"
            )
        if not manifest.is_complete:
            raise InputError(
                f"{folder} must be finished; it has {len(manifest.shards)} shards of more: start the command "
                "that makes it once more, it goes on from there"
            )
        self.folder = folder
        self.manifest = manifest
        self._ends = np.cumsum([shard.n_rows for shard in manifest.shards])
        for number in range(len(manifest.shards)):
            open_shard_of(folder, manifest, number)
        self._rows_of = lru_cache(MAX_OPEN_SHARDS)(partial(open_shard_of, folder, manifest))

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return int(self._ends[-1])

    @property
    def seq_len(self) -> int:
        """The number of tokens that the model sees at once."""
        return self.manifest.config.seq_len

    @property
    def n_tokens(self) -> int:
        """How many tokens there are to be learned in a pass over the rows."""
        return sum(shard.n_tokens for shard in self.manifest.shards)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that gave the tokens.

        Raises
        ------
        InputError
            When its file is missing, or another one.
        """
        tokenizer = Tokenizer.load(self.folder)
        if hash_of([read_text(self.folder / TOKENIZER, MAX_TOKENIZER_BYTES)]) != self.manifest.tokenizer:
            raise InputError(
                f"{self.folder / TOKENIZER} is not the one that made the rows beside it: put that one "
                "back, or make the store again"
            )
        return tokenizer

    def rows(
        self, numbers: Int64[np.ndarray, " B"]
    ) -> tuple[Int64[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        """Return the tokens of some rows, and which of them are to be learned.

        Raises
        ------
        InputError
            When there is a token that is not in the vocabulary: the file was changed.
        """
        shards = np.searchsorted(self._ends, numbers, side="right")
        # Counted from the end of the shard, as negative indices.
        places = numbers - self._ends[shards]
        drawn = np.stack([self._rows_of(int(s))[place] for s, place in zip(shards, places, strict=True)])
        flag = highest_bit(drawn.dtype)
        tokens = (drawn & (flag - 1)).astype(np.int64)
        if tokens.max() >= self.manifest.vocab_size:
            worst = int(shards[tokens.max(axis=1).argmax()])
            raise InputError(
                f"{shard_path(self.folder, worst)} is damaged: the vocabulary has {self.manifest.vocab_size} "
                f"tokens, it has number {tokens.max()}: make the store again"
            )
        return tokens, drawn & flag == 0

    def fingerprint(self) -> str:
        """Return a hash of all rows, and of what they were made from and with.

        All files are read once, half a second for a gigabyte: otherwise a run would go on with a file that
        was changed meanwhile.
        """
        about = dataclasses.asdict(self.manifest)
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode("utf-8"))
        for number in range(len(self.manifest.shards)):
            digest.update(self._rows_of(number).data)
        return digest.hexdigest()


def open_shard_of(folder: Path, manifest: Manifest, number: int) -> UInt[np.ndarray, "N L"]:
    """Map one of the files that a manifest tells of.

    Raises
    ------
    InputError
        When it is not as the manifest says.
    """
    n_rows, row_length = manifest.shards[number].n_rows, manifest.config.row_length
    return open_shard(shard_path(folder, number), np.dtype(manifest.dtype), n_rows, row_length)
