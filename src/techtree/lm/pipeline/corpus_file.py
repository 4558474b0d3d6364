"""The documents of a run in one file, so that a resumed run reads what the first one read."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from techtree import atomic
from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.reading import check_regular


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as gzipped lines of JSON."""
    lines = "".join(json.dumps({"path": d.path, "text": d.text}) + "\n" for d in documents)
    # No time in the header: the same documents give the same file.
    atomic.write_bytes(path, gzip.compress(lines.encode("utf-8"), compresslevel=3, mtime=0))


def read_documents(path: Path) -> list[Document]:
    """Read what `write_documents` wrote.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    try:
        check_regular(path)
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
        documents = [Document(**json.loads(line)) for line in lines]
        if not documents:
            raise ValueError("it is empty")
        return documents
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise InputError(f"{path} must be as an earlier run wrote it ({error}): use another --out") from None
