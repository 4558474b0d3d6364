"""Which documents train the model, and which measure it."""

import hashlib
from collections.abc import Sequence

from techtree.errors import InputError
from techtree.lm.data.corpus import Document

HELD_OUT_FRACTION = 0.04

MAX_PART_OF_ONE = 0.5
"""A document that would be more than this part of all held-out bytes trains instead: the measure should not
hang on one file. (Of Python 3.11, `_pydecimal.py` alone would be 0.6 of it.)"""

_SALT = b"techtree held-out split"


def split_by_file(
    documents: Sequence[Document], held_out_fraction: float = HELD_OUT_FRACTION
) -> tuple[list[Document], list[Document]]:
    """Split documents into those to train on and those to measure on.

    Parameters
    ----------
    documents
        Without near-duplicates: copies on both sides would be a leak. Equal texts stay together in any case.
    held_out_fraction
        The share of bytes to hold out, in (0, 0.5].

    Returns
    -------
    train, held_out : list of Document
        In the order given; neither is empty.

    Raises
    ------
    InputError
        When there are fewer than two different documents, or the fraction is out of range.

    Notes
    -----
    Documents are held out in the order of a hash of their texts, until the fraction is reached. So a
    run repeats the choice, whatever the files are called, and when files come or go only
    documents near the end of that order change sides. Where all files are too large, the smallest is
    held out.
    """
    if not 0 < held_out_fraction <= 0.5:
        raise InputError(f"held_out_fraction must lie in (0, 0.5]; got {held_out_fraction}: use 0.04")
    sizes: dict[bytes, int] = {}
    hashes = [_hash(document.text) for document in documents]
    for text_hash, document in zip(hashes, documents, strict=True):
        sizes[text_hash] = sizes.get(text_hash, 0) + document.n_bytes
    if len(sizes) < 2:
        raise InputError(
            "a corpus must have at least two different files, one to train on and one to measure on; "
            f"got {len(sizes)}: add files"
        )
    chosen = _held_out(sizes, held_out_fraction * sum(sizes.values()))
    train = [d for d, text_hash in zip(documents, hashes, strict=True) if text_hash not in chosen]
    held_out = [d for d, text_hash in zip(documents, hashes, strict=True) if text_hash in chosen]
    return train, held_out


def _held_out(sizes: dict[bytes, int], target_bytes: float) -> set[bytes]:
    """Return the hashes of the texts to hold out."""
    chosen: set[bytes] = set()
    n_bytes = 0
    for text_hash in sorted(sizes):
        if n_bytes < target_bytes and sizes[text_hash] <= MAX_PART_OF_ONE * target_bytes:
            chosen.add(text_hash)
            n_bytes += sizes[text_hash]
    return chosen or {min(sizes, key=lambda text_hash: (sizes[text_hash], text_hash))}


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), key=_SALT, digest_size=16).digest()
