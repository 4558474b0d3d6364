"""A technology: what its `tech.toml` says, validated."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from techtree.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Requirement:
    """A direct prerequisite and the one-line reason for it."""

    tech: str
    why: str


@dataclass(frozen=True)
class Paper:
    """A source that the description stands on."""

    title: str
    authors: str
    year: int
    url: str


@dataclass(frozen=True)
class Technology:
    """One node of the tree.

    ``folder`` is None for a technology that is planned and not written yet. ``starts_processes`` tells that
    its implementation is there to start processes and to end them, which others may not.
    """

    id: str
    era: str
    summary: str
    requires: tuple[Requirement, ...]
    folder: Path | None = None
    title: str = ""
    opens: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    exercise: tuple[str, ...] = ()
    papers: tuple[Paper, ...] = ()
    minutes: int = 0
    starts_processes: bool = False

    @property
    def is_written(self) -> bool:
        """Whether there is a folder, and not only a plan."""
        return self.folder is not None

    @property
    def module(self) -> str:
        """The dotted name of the package that holds it."""
        return f"techtree.techs.{self.era}.{self.id}"

    def file(self, name: str) -> Path:
        """Return the path of one file in its folder."""
        assert self.folder is not None, f"{self.id} is planned, not written"
        return self.folder / name

    @property
    def implementation(self) -> Path:
        """The file that holds the own implementation."""
        return self.file(f"{self.id}.py")


_STRING_LISTS = {"opens", "replaces", "exercise"}
_REQUIRED = {"title", "summary", "requires", "opens", "exercise", "papers", "minutes"}
_KEYS = _REQUIRED | {"replaces", "starts_processes"}


def read_toml(path: Path) -> dict:
    """Parse a TOML file.

    Raises
    ------
    InputError
        When the file is unreadable, not UTF-8 or not TOML; the message names the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} must be readable: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8: byte {error.start} is not") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} must be TOML: {error}") from None


def load_technology(folder: Path) -> Technology:
    """Read and validate ``folder/tech.toml``; the folder's name is the id, its parent's the era.

    Raises
    ------
    InputError
        When a key is missing, unknown or of the wrong type; the message names file and key.
    """
    path = folder / "tech.toml"
    table = read_toml(path)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", folder.name):
        raise InputError(f"{folder}: a technology's id must be lower_case words; got {folder.name!r}")
    for key in table:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
    for key in sorted(_REQUIRED - table.keys()):
        raise InputError(f"{path}: the key {key!r} is missing")
    return Technology(
        id=folder.name,
        era=folder.parent.name,
        folder=folder,
        title=_typed(table, "title", str, path),
        summary=_typed(table, "summary", str, path),
        minutes=_typed(table, "minutes", int, path),
        starts_processes=_claim(table, "starts_processes", path),
        requires=tuple(Requirement(**entry) for entry in _tables(table, "requires", Requirement, path)),
        papers=tuple(Paper(**entry) for entry in _tables(table, "papers", Paper, path)),
        **{key: _strings(table, key, path) for key in _STRING_LISTS},
    )


def _typed(table: Mapping, key: str, kind: type, path: Path):
    value = table[key]
    if not isinstance(value, kind) or isinstance(value, bool) or not value:
        raise InputError(f"{path}: {key!r} must be a non-empty {kind.__name__}; got {value!r}")
    return value


def _claim(table: Mapping, key: str, path: Path) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{path}: {key!r} must be true or false; got {value!r}")
    return value


def _strings(table: Mapping, key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{path}: {key!r} must be a list of strings; got {value!r}")
    if len(set(value)) < len(value):
        raise InputError(f"{path}: {key!r} names something twice: {value!r}")
    return tuple(value)


def _tables(table: Mapping, key: str, kind: type, path: Path) -> list[dict]:
    """Return the list of inline tables under ``key``, each with exactly the fields of ``kind``."""
    fields = kind.__annotations__
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{path}: {key!r} must be a list of tables with {', '.join(fields)}; got {value!r}")
    for entry in value:
        if entry.keys() != fields.keys():
            raise InputError(f"{path}: each of {key!r} must have exactly {', '.join(fields)}; got {entry!r}")
        for name, field_type in fields.items():
            _typed(entry, name, field_type, path)
    return value
