"""The source files to learn from, as documents in a fixed order.

Whatever cannot be used is left out with its reason, never with a crash: one strange file in a
thousand must not cost a night's training.
"""

import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from techtree.errors import InputError
from techtree.lm.data.generated import why_generated
from techtree.lm.data.text_parts import text_parts

MAX_FILE_BYTES = 1_000_000
"""Longer files are data in the form of code, as a rule; Python's longest hand-written module has 0.23 MB."""

EXCLUDED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
"""Other people's code, or no source; hidden folders (.git, .venv) are left out too."""

TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
"""Left out of the standard library, most of whose text they would be; elsewhere tests are code as any."""


@dataclass(frozen=True)
class Document:
    """A source file, or a part of a long text.

    Its path is for display (relative, with slashes); its text has LF line ends.
    """

    path: str
    text: str

    @property
    def n_bytes(self) -> int:
        """The size of the text in UTF-8."""
        return len(self.text) if self.text.isascii() else len(self.text.encode("utf-8"))


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The documents of a corpus, in the order of their paths, and what was left out."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]

    @property
    def n_bytes(self) -> int:
        """The size of all texts in UTF-8."""
        return sum(document.n_bytes for document in self.documents)

    def skipped_by_reason(self) -> dict[str, int]:
        """Return how many were left out for each reason, the most frequent first."""
        return dict(Counter(skipped.reason for skipped in self.skipped).most_common())


def standard_library() -> Path:
    """Return the folder of the standard library of the running interpreter, which every machine has.

    In a virtual environment it is the base interpreter's.
    """
    return Path(sysconfig.get_paths()["stdlib"])


def collect(
    paths: Sequence[Path], extensions: Sequence[str] = (".py",), *, is_exact: bool = False
) -> Collection:
    """Read the source files under some paths.

    Parameters
    ----------
    paths
        Folders, searched with all their subfolders, and files. A file that is named itself is taken
        whatever its extension; with another one than those of `extensions` it is text, which may be of
        any length and look as it likes. One that is reached twice is taken once.
    extensions
        The ends of the names of files to take from folders.
    is_exact
        Whether a text keeps its byte-order mark and its line ends, and so all bytes of its file.

    Returns
    -------
    Collection
        Sorted by path. Paths are relative to the deepest folder that holds all that was given. Long texts
        come in parts, in turn.

    Raises
    ------
    InputError
        When a path does not exist, a text that is named cannot be used, or no file can.

    Notes
    -----
    Text must be UTF-8, Python's default. Files in another encoding, even if they declare it (PEP 263),
    are left out: they are old and rare (none of the 734 of Python 3.11). Unless it is wanted to the
    byte, a text loses its byte-order mark, and its line ends become LF, as in Python's own reader.
    Links within folders are not followed, so nothing outside them is read and no loop can occur.
    """
    roots = [_existing(Path(path)) for path in paths]
    base = _common_folder(roots)
    # By the file and not by the path that is shown: two files may be shown alike.
    texts: dict[Path, str] = {}
    skipped: dict[Path, Skipped] = {}
    for root in roots:
        for file, problem in _walk(root, tuple(extensions)):
            if file in texts or file in skipped:
                continue
            is_source = file.name.endswith(tuple(extensions))
            text, reason = (None, problem) if problem else read_text(file, is_source, is_exact)
            if text is None and not is_source and not problem:
                raise InputError(
                    f"a file that is named must be text; {file} {reason}: correct it or leave it out"
                )
            if text is None:
                skipped[file] = Skipped(_displayed(file, base), reason)
            else:
                texts[file] = text
    shown = {file: _displayed(file, base) for file in sorted(texts, key=os.fsencode)}
    collection = Collection(
        tuple(
            document
            for file, path in sorted(shown.items(), key=lambda item: _names(item[1]))
            for document in _documents(path, texts[file])
        ),
        tuple(sorted(skipped.values(), key=lambda one: _names(one.path))),
    )
    if not texts:
        raise InputError(_nothing_found(paths, extensions, collection))
    return collection


def _existing(path: Path) -> Path:
    if not os.path.exists(path):
        raise InputError(f"a corpus path must exist; got {path}: correct it, or leave it out")
    return path.resolve()


def _common_folder(roots: Sequence[Path]) -> Path | None:
    folders = [root if root.is_dir() else root.parent for root in roots]
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # on different drives
        return None


def _displayed(file: Path, base: Path | None) -> str:
    """Return a path as Unicode, in which bytes that are none are spelled out."""
    path = (file.relative_to(base) if base else file).as_posix()
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _walk(root: Path, extensions: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield each file to read with an empty string, and each unusable entry with the reason."""
    if not root.is_dir():
        yield root, ""
        return
    unreadable: list[Path] = []
    excluded = EXCLUDED_FOLDERS | (TEST_FOLDERS if root == standard_library().resolve() else set())
    for folder, subfolders, names in os.walk(
        root, onerror=lambda error: unreadable.append(Path(error.filename))
    ):
        subfolders[:] = sorted(
            name for name in subfolders if name not in excluded and not name.startswith(".")
        )
        for name in sorted(names):
            if name.endswith(extensions):
                file = Path(folder, name)
                yield file, "is a link" if file.is_symlink() else ""
    for folder in unreadable:
        yield folder, "folder cannot be read"


def read_text(
    file: Path, is_source: bool = True, is_exact: bool = False, max_bytes: int = MAX_FILE_BYTES
) -> tuple[str | None, str]:
    """Return the text of a file, or None and the reason why it cannot be used.

    Parameters
    ----------
    file
        What to read.
    is_source
        Whether a text must look as if a person wrote it, and have at most so many bytes.
    is_exact
        Whether it keeps its byte-order mark and its line ends.
    max_bytes
        Of a source.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            return None, "is not a regular file"
        if is_source and status.st_size > max_bytes:
            return None, f"has more than {max_bytes:,} bytes"
        data = file.read_bytes()
    except OSError:
        return None, "cannot be read"
    if b"\0" in data:
        return None, "holds NUL bytes"
    try:
        text = data.decode("utf-8" if is_exact else "utf-8-sig")
    except UnicodeDecodeError:
        return None, "is not UTF-8"
    if not is_exact:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return None, "is empty"
    reason = why_generated(text) if is_source else ""
    return (None, reason) if reason else (text, "")


def _documents(path: str, text: str) -> Iterator[Document]:
    if len(text) <= MAX_FILE_BYTES:
        yield Document(path, text)
        return
    for number, part in enumerate(text_parts(text), start=1):
        yield Document(f"{path}#{number}", part)


def _names(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))


def _nothing_found(paths: Sequence[Path], extensions: Sequence[str], collection: Collection) -> str:
    kinds = " or ".join(extensions)
    given = ", ".join(str(path) for path in paths) or "no path"
    reasons = ", ".join(f"{n} {reason}" for reason, n in collection.skipped_by_reason().items())
    skipped = f" ({len(collection.skipped)} left out: {reasons})" if reasons else ""
    return (
        f"a corpus needs files that end in {kinds}; found none that can be used under {given}{skipped}: "
        "give a folder with such files"
    )
