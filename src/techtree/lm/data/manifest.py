"""What is in a store of tokens, and what it was made from: `store.json`, replaced after every shard."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from techtree.atomic import write_text
from techtree.errors import InputError
from techtree.lm.data.rows import RowsConfig
from techtree.reading import is_missing, read_json

FILE_NAME = "store.json"

FORMAT = "techtree token store 1"
"""Of the files and of what is in them; a change makes older stores unreadable."""

DTYPES = ("uint16", "uint32")

_MAX_BYTES = 100_000_000
"""Half a million shards, 4 TB of text."""


@dataclass(frozen=True)
class Shard:
    """What one file of rows holds, and what it was made from."""

    n_rows: int
    n_tokens: int
    """How many of its tokens are to be learned."""
    n_documents: int
    n_bytes: int
    """Of the documents in UTF-8."""
    made_from: str
    """A hash of the documents' texts."""

    def __post_init__(self):
        counts = (self.n_rows, self.n_tokens, self.n_documents, self.n_bytes)
        if not all(isinstance(count, int) and count >= 0 for count in counts) or self.n_rows == 0:
            raise ValueError(f"a shard must have rows, and no count below 0; got {self}")


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and what it was made with."""

    config: RowsConfig
    tokenizer: str
    """A hash of `tokenizer.json`, which lies beside it."""
    vocab_size: int
    dtype: str
    """Of a token in the files, its flag included."""
    is_complete: bool = False
    """Whether all shards are there."""
    shards: tuple[Shard, ...] = ()

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}; got {self.dtype!r}")
        if not isinstance(self.vocab_size, int) or not isinstance(self.is_complete, bool):
            raise TypeError("vocab_size must be a number, and is_complete true or false")
        if self.is_complete and not self.shards:
            raise ValueError("a complete store must have shards")

    def write(self, folder: Path) -> None:
        """Put it in the place of the folder's last one."""
        values = {"format": FORMAT} | dataclasses.asdict(self)
        write_text(folder / FILE_NAME, json.dumps(values, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a store, or None when there is none.

    Raises
    ------
    InputError
        When it is damaged, or of another format.
    """
    path = folder / FILE_NAME
    if is_missing(path):
        return None
    values = read_json(path, _MAX_BYTES, f"delete {folder} and make it again")
    try:
        found = values.pop("format")
        if found == FORMAT:
            return _manifest(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): delete {folder} and make it again") from error
    raise InputError(
        f"{path} must have the format {FORMAT!r}; got {found!r}, of another version of techtree: delete "
        f"{folder} and make it again"
    )


def hash_of(texts: Iterable[str]) -> str:
    """Return a hash of some texts and their borders."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def _manifest(values: dict[str, Any]) -> Manifest:
    config = RowsConfig(**values.pop("config"))
    shards = tuple(Shard(**shard) for shard in values.pop("shards"))
    return Manifest(config=config, shards=shards, **values)
