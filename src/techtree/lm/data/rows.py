"""The rows of tokens that training reads: built once, kept in a file, drawn in a random order.

Arrays: `N` rows, `L` = seq_len + 1 tokens of a row, `B` rows of a batch, `T` = seq_len.

In the file, a token whose number has the highest bit set is seen, but not learned (`pieces` says
which); so is the padding at a row's end, which is `<|endoftext|>`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt
from torch import Tensor

from techtree.atomic import atomic_writer, write_text
from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.packing import best_fit
from techtree.lm.data.pieces import OVERSAMPLING, Cutter, highest_bit
from techtree.lm.tokenizer import Tokenizer

IGNORED = -100
"""As a target: no loss here. PyTorch's own number for that."""

FORMAT = 1
"""Of the file and of what is in it; a change makes older files stale."""


@dataclass(frozen=True)
class RowsConfig:
    """How rows are made."""

    seq_len: int = 512
    """Tokens that the model sees at once."""
    fim_rate: float = 0.5
    """The share of windows that become fill-in-the-middle examples."""
    n_rows: int | None = None
    """How many rows to make at most; by default as many as the documents give in one pass."""
    seed: int = 0
    """Of all random choices."""

    def __post_init__(self):
        if self.seq_len < 16:
            raise InputError(f"seq_len must be at least 16; got {self.seq_len}: use 256 or 512")
        if not 0 <= self.fim_rate <= 1:
            raise InputError(f"fim_rate must lie in [0, 1]; got {self.fim_rate}: use 0.5")
        if self.n_rows is not None and self.n_rows < 1:
            raise InputError(f"n_rows must be at least 1; got {self.n_rows}: leave it out for one pass")


class TokenRows:
    """Rows of tokens, and batches of them in a random order.

    Parameters
    ----------
    rows
        As `build_rows` makes them; may lie in a file.
    batch_size
        Rows of a batch.
    seed
        Of the order of rows.
    """

    def __init__(self, rows: UInt[np.ndarray, "N L"], batch_size: int, seed: int):
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1; got {batch_size}: use 8 or more")
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self._order: tuple[int, Int64[np.ndarray, " N"]] = (-1, np.empty(0, np.int64))

    @classmethod
    def open(
        cls,
        path: Path,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        config: RowsConfig,
        batch_size: int,
    ) -> "TokenRows":
        """Map the rows of a file into memory, after building them if the file is missing, stale or damaged.

        Parameters
        ----------
        path
            Of the file, `.npy`. A `.json` beside it says what the rows were made from.
        documents, tokenizer, config
            What they are made from.
        batch_size
            Rows of a batch.

        Raises
        ------
        InputError
            When the documents do not fill a single row.
        """
        fingerprint = _fingerprint(documents, tokenizer, config)
        rows = _load(path, fingerprint)
        if rows is None:
            _save(path, build_rows(documents, tokenizer, config), fingerprint, config)
            rows = _load(path, fingerprint)
            assert rows is not None
        return cls(rows, batch_size, config.seed)

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def seq_len(self) -> int:
        """The number of tokens that the model sees at once."""
        return self.rows.shape[1] - 1

    def batch(self, step: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a training step.

        A pure function of the seed and the step, so that a resumed run needs no state of the loader. Every
        row comes once before any comes again; each pass over the rows has an order of its own.
        """
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        drawn = self.rows[[self._row_at(place) for place in places]].astype(np.int64)  # (B, L)
        flag = highest_bit(self.rows.dtype)
        tokens = drawn & (flag - 1)
        targets = np.where(drawn & flag, IGNORED, tokens)
        return torch.from_numpy(tokens)[:, :-1].contiguous(), torch.from_numpy(targets)[:, 1:].contiguous()

    def _row_at(self, place: int) -> int:
        """Return the row at a place in the endless sequence of passes."""
        number, index = divmod(place, self.n_rows)
        if self._order[0] != number:
            self._order = number, np.random.default_rng([self.seed, number]).permutation(self.n_rows)
        return int(self._order[1][index])


def build_rows(
    documents: Sequence[Document], tokenizer: Tokenizer, config: RowsConfig
) -> UInt[np.ndarray, "N L"]:
    """Make rows of tokens from documents.

    Returns
    -------
    array
        16 bits a token where the vocabulary leaves the highest one free, else 32.

    Raises
    ------
    InputError
        When the documents do not fill a single row.
    """
    rng = np.random.default_rng(config.seed)
    row_length = config.seq_len + 1
    n_tokens = None if config.n_rows is None else config.n_rows * row_length
    cutter = Cutter(tokenizer, row_length, config.fim_rate, rng)
    sequences = cutter.encode(documents, OVERSAMPLING * n_tokens if n_tokens else float("inf"))
    if sum(map(len, sequences)) < row_length:
        raise InputError(
            f"the files to train on must fill at least one row of seq_len + 1 = {row_length} tokens; got "
            f"{sum(map(len, sequences))} tokens in {len(sequences)} files: add files, or lower seq_len"
        )
    pieces = list(cutter.pieces(sequences, n_tokens))
    packed = best_fit([len(piece) for piece in pieces], row_length)
    # Best fit puts the longest pieces into the first rows; a part of the rows must be a fair sample.
    chosen = rng.permutation(len(packed))[: config.n_rows]
    padding = tokenizer.end_of_text_id | highest_bit(cutter.dtype)
    rows = np.full((len(chosen), row_length), padding, cutter.dtype)
    for row, members in zip(rows, (packed[i] for i in chosen), strict=True):
        filled = np.concatenate([pieces[i] for i in members])
        row[: len(filled)] = filled
    return rows


def _fingerprint(documents: Sequence[Document], tokenizer: Tokenizer, config: RowsConfig) -> str:
    """Return a hash of everything that the rows depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (json.dumps([FORMAT, asdict(config)]), tokenizer.to_json(), *(d.text for d in documents)):
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _load(path: Path, fingerprint: str) -> UInt[np.ndarray, "N L"] | None:
    """Return the rows of a file, or None when there are none that were made from the same."""
    try:
        about = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        matches = about["made_from"] == fingerprint and about["shape"] == list(rows.shape)
    except (OSError, ValueError, EOFError, KeyError, TypeError):  # missing or damaged: both are built anew
        return None
    return rows if matches else None


def _save(path: Path, rows: UInt[np.ndarray, "N L"], fingerprint: str, config: RowsConfig) -> None:
    """Write the rows, then what they were made from, so that a kill in between leaves nothing to trust."""
    _sidecar(path).unlink(missing_ok=True)
    with atomic_writer(path) as file:
        np.save(file, rows)
    about = {"made_from": fingerprint, "shape": list(rows.shape), "dtype": str(rows.dtype)} | asdict(config)
    write_text(_sidecar(path), json.dumps(about, indent=2) + "\n")
