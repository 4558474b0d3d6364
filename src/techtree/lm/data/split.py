"""Which documents train the model, and which measure it."""

import hashlib
from collections.abc import Sequence

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.text_parts import last_break

HELD_OUT_FRACTION = 0.04

MAX_PART_OF_ONE = 0.5
"""A document that would be more than this part of all held-out bytes trains instead: the measure should not
hang on one file. (Of Python 3.11, `_pydecimal.py` alone would be 0.6 of it.)"""

MAX_MOVE_CHARS = 1000
"""How far the border within a text may move to spare a paragraph or a line."""

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
    _check_fraction(held_out_fraction)
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


def split_at_end(
    parts: Sequence[Document], held_out_fraction: float = HELD_OUT_FRACTION
) -> tuple[list[Document], list[Document]]:
    """Split the parts of one text into those to train on and the end of it, to measure on.

    Parameters
    ----------
    parts
        Joined they are the text.
    held_out_fraction
        The share of characters to hold out, in (0, 0.5]; a little more where that spares a
        paragraph or a line.

    Returns
    -------
    train, held_out : list of Document
        The text in two; of the part at the border, each has a piece.

    Raises
    ------
    InputError
        When the text has less than two characters, or the fraction is out of range.
    """
    _check_fraction(held_out_fraction)
    n_chars = sum(len(part.text) for part in parts)
    if n_chars < 2:
        raise InputError(f"a text must have an end to hold out; got {n_chars} characters: add files")
    room = int(n_chars * (1 - held_out_fraction))  # at least half, so never 0
    train: list[Document] = []
    for i, part in enumerate(parts):
        if len(part.text) > room:
            end = last_break(part.text, max(0, room - MAX_MOVE_CHARS), room)
            pieces = [Document(part.path, text) for text in (part.text[:end], part.text[end:])]
            return [*train, *(p for p in pieces[:1] if p.text)], [pieces[1], *parts[i + 1 :]]
        train.append(part)
        room -= len(part.text)
    raise AssertionError("what is to be left out is less than the whole")


def _check_fraction(held_out_fraction: float) -> None:
    if not 0 < held_out_fraction <= 0.5:
        raise InputError(f"held_out_fraction must lie in (0, 0.5]; got {held_out_fraction}: use 0.04")


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
