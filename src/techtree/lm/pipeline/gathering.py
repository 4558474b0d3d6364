"""The documents of a corpus without near-duplicates, and what there is to say about them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from techtree.lm.data.corpus import Document, collect
from techtree.lm.data.near_duplicates import without_near_duplicates


def gather(paths: Sequence[Path]) -> tuple[list[Document], dict[str, Any]]:
    """Collect documents and drop near-duplicates.

    Returns
    -------
    documents
        In the order of their paths.
    about
        Where they come from, how many they are, and how many were left out why; for JSON.

    Raises
    ------
    InputError
        When a path does not exist, or no file can be used.
    """
    collection = collect(paths)
    documents = without_near_duplicates(collection.documents)
    about = {
        "paths": full_paths(paths),
        "n_documents": len(documents),
        "n_bytes": sum(document.n_bytes for document in documents),
        "n_near_duplicates": len(collection.documents) - len(documents),
        "n_skipped": len(collection.skipped),
        "skipped": collection.skipped_by_reason(),
    }
    return documents, about


def full_paths(paths: Sequence[Path]) -> list[str]:
    """Return paths as they mean the same wherever a command is started."""
    return [os.path.realpath(path) for path in paths]


def described(about: dict[str, Any]) -> str:
    """Return in a line what was gathered."""
    return (
        "{n_documents:,} documents, {n_bytes:,} bytes; left out {n_skipped} files and "
        "{n_near_duplicates} near-duplicates".format(**about)
    )
