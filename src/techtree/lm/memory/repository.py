"""The files of a repository, as one index that follows their changes.

The index of all files is sorted once, and kept on the disk. Files that changed since are in a second, small
index, and their old texts are hidden; when those become many, all is sorted anew.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from techtree.lm.memory.files import files_of, text_of
from techtree.lm.memory.index import LONGEST_MATCH, Continues, Match, TokenIndex
from techtree.lm.tokenizer import Tokenizer
from techtree.reading import read_object

CHANGED_SHARE = 1 / 8
"""Of all tokens: when more than these are in files that changed, the index is made anew."""

MIN_TOKENS_ANEW = 50_000
"""Changed tokens that cost no more than they do anyway."""

MAX_TOKENS = 1 << 28
"""Of a repository; the files that come later are left out."""

MIN_PAUSE_S = 2.0
"""Between two looks at the files."""

N_SAMPLES = 8
"""Of the text before a cursor, and of that after it, by which its file is found."""

MAX_LIST_BYTES = 1 << 28
LIST = "files.json"

Stamp = tuple[int, int]
"""A file's time and size: while they stay, so does its text."""


@dataclass(frozen=True)
class _Part:
    """Some files, in the order of their texts in an index."""

    index: TokenIndex
    stamps: dict[str, Stamp]

    @cached_property
    def names(self) -> list[str]:
        """The files, by the numbers of their texts."""
        return list(self.stamps)

    def are(self, names: frozenset[str]) -> Bool[np.ndarray, " N"]:
        """Return which of its texts are of these files."""
        return np.array([name in names for name in self.stamps], bool)

    def files_with(self, tokens: Sequence[int]) -> set[str]:
        """Return the files in which some tokens stand."""
        return {self.names[i] for i in self.index.texts_with(tokens)}


@dataclass(frozen=True)
class _State:
    """What is remembered at a moment; a look-up sees one, however the files change meanwhile."""

    everything: _Part
    changes: _Part = _Part(TokenIndex([]), {})
    """The files that changed since everything was read, or came."""
    outdated: frozenset[str] = frozenset()
    """The files of which everything has an old text, or one that is gone."""
    edited: str | None = None

    @cached_property
    def hidden(self) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " M"]]:
        """Which texts of either part do not count."""
        edited = frozenset(() if self.edited is None else (self.edited,))
        return self.everything.are(self.outdated | edited), self.changes.are(edited)


class Repository:
    """What stands in the files of a folder. Look-ups and `refresh` may run on several threads.

    Parameters
    ----------
    root
        The folder.
    tokenizer
        Of the model that is to be helped.
    kept_in
        A folder in which the index is kept between runs; nowhere when left out.
    """

    def __init__(self, root: Path, tokenizer: Tokenizer, kept_in: Path | None = None):
        self.root = root.resolve()
        self._tokenizer = tokenizer
        identity = hashlib.sha256(os.fsencode(self.root) + tokenizer.fingerprint).hexdigest()
        self._folder = kept_in and kept_in / identity[:32]
        self._lock = threading.Lock()
        self._state = _State(self._loaded() or _Part(TokenIndex([]), {}))
        self.refresh()

    @property
    def n_files(self) -> int:
        """How many files are remembered."""
        state = self._state
        return len(state.everything.stamps.keys() - state.outdated) + len(state.changes.stamps)

    def match(self, context: Sequence[int], continues: Continues | None = None) -> Match | None:
        """Return the places that share the most last tokens with a context; see `TokenIndex.match`.

        The file that is being edited (`edit_like`) does not count.
        """
        state = self._state
        old = state.everything.index.match(context, state.hidden[0], continues)
        new = state.changes.index.match(context, state.hidden[1], continues) if state.changes.stamps else None
        if old is None or new is None:
            return new or old
        return new if new.n_tokens >= old.n_tokens else old

    def edit_like(self, texts: Sequence[Sequence[int]]) -> None:
        """Hide the file that texts are from, as an editor has a newer version of it.

        Parameters
        ----------
        texts
            The tokens before and after a cursor. The file in which most of some samples of them stand is it,
            if it has half of them.
        """
        state = self._state
        votes: Counter[str] = Counter()
        n_samples = 0
        for text in texts:
            for end in range(len(text), LONGEST_MATCH - 1, -max(LONGEST_MATCH, len(text) // N_SAMPLES)):
                n_samples += 1
                sample = text[end - LONGEST_MATCH : end]
                votes.update(state.everything.files_with(sample) | state.changes.files_with(sample))
        name, n_votes = max(votes.items(), key=lambda vote: vote[1], default=("", 0))
        edited = name if 2 * n_votes >= n_samples > 0 else None
        if edited != state.edited:
            with self._lock:
                self._state = replace(self._state, edited=edited)

    def refresh(self) -> None:
        """Look which files changed, and read those."""
        stamps = {name: stamp for name in files_of(self.root) if (stamp := _stamp(self.root / name))}
        state = self._state
        known = state.everything.stamps
        changed = {name: stamp for name, stamp in stamps.items() if known.get(name) != stamp}
        outdated = frozenset(name for name, stamp in known.items() if stamps.get(name) != stamp)
        if changed == state.changes.stamps and outdated == state.outdated:
            return
        everything, changes = state.everything, self._read(changed, state.changes)
        if len(changes.index.tokens) > max(MIN_TOKENS_ANEW, CHANGED_SHARE * len(everything.index.tokens)):
            everything = self._read(stamps, everything, changes)
            changes, outdated = _Part(TokenIndex([]), {}), frozenset()
            self._keep(everything)
        with self._lock:
            self._state = _State(everything, changes, outdated, self._state.edited)

    def follow(self, stopping: threading.Event) -> None:
        """Refresh again and again, at no more than a fiftieth of a core, until told to stop."""
        pause = MIN_PAUSE_S
        while not stopping.wait(pause):
            start = time.monotonic()
            self.refresh()
            pause = max(MIN_PAUSE_S, 50 * (time.monotonic() - start))

    def _read(self, stamps: dict[str, Stamp], *known: _Part) -> _Part:
        """Index files, of which some are known; one that should not be remembered has no tokens."""
        texts = {
            (name, stamp): part.index.text(i)
            for part in known
            for i, (name, stamp) in enumerate(part.stamps.items())
        }
        ids, n_tokens = [], 0
        for name, stamp in stamps.items():
            if (name, stamp) not in texts:
                text = text_of(self.root / name) if n_tokens < MAX_TOKENS else None
                texts[name, stamp] = np.array(self._tokenizer.encode(text) if text else [], np.int32)
            ids.append(texts[name, stamp])
            n_tokens += len(ids[-1])
        return _Part(TokenIndex(ids), stamps)

    def _loaded(self) -> _Part | None:
        """Return what an earlier run kept, if it is whole."""
        if self._folder is None:
            return None
        try:
            names = read_object(self._folder / LIST, MAX_LIST_BYTES)
            part = _Part(
                TokenIndex.load(self._folder), {name: (int(a), int(b)) for name, (a, b) in names.items()}
            )
        except Exception:  # whatever is wrong with it: it is made anew
            return None
        return part if part.index.n_texts == len(part.stamps) else None

    def _keep(self, part: _Part) -> None:
        """Put the index where a later run finds it, in one step; without it, that one takes longer."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = Path(tempfile.mkdtemp(dir=self._folder.parent))
            try:
                part.index.save(new)
                (new / LIST).write_text(json.dumps(part.stamps), encoding="utf-8")
                shutil.rmtree(self._folder, ignore_errors=True)
                os.rename(new, self._folder)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size
