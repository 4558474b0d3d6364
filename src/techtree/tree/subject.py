"""The module under test: our implementation, its stub, a known mistake, an equivalent, or a file.

One suite of tests judges many subjects. A subject is made from source text, executed as if it were the
implementation, so that an inner function that is exchanged is exchanged for its callers too.
"""

import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from techtree.tree.stub import make_stub
from techtree.tree.technology import Technology

Variant = Mapping[str, object] | list[tuple[str, str]]
"""A changed implementation: names with what takes their place, or edits (old text, new text)."""


@dataclass(frozen=True)
class Subject:
    """What a test run judges, and whether the tests should accept it."""

    name: str
    should_pass: bool
    source: str
    file: str
    exchanges: Mapping[str, object]


def own(tech: Technology) -> Subject:
    """Return our implementation."""
    path = tech.implementation
    return Subject("own", True, path.read_text(encoding="utf-8"), str(path), {})


def from_file(path: Path) -> Subject:
    """Return somebody's own version of the implementation."""
    return Subject(str(path), True, path.read_text(encoding="utf-8"), str(path), {})


def graders(tech: Technology) -> list[Subject]:
    """Return the subjects that a technology's tests must tell apart: ours, the stub and all variants.

    Raises
    ------
    ValueError
        When `variants.py` is malformed, or an edit does not match the source exactly once.
    """
    ours = own(tech)
    stub = Subject("stub", False, make_stub(ours.source, tech.exercise), f"<stub of {tech.id}>", {})
    variants = import_module(f"{tech.module}.variants")
    return [
        ours,
        stub,
        *(_variant(tech, ours, name, v, should_pass=False) for name, v in variants.MISTAKES.items()),
        *(_variant(tech, ours, name, v, should_pass=True) for name, v in variants.EQUIVALENTS.items()),
    ]


def _variant(tech: Technology, ours: Subject, name: str, variant: Variant, should_pass: bool) -> Subject:
    kind = "equivalent" if should_pass else "mistake"
    if isinstance(variant, Mapping):
        return Subject(f"{kind}: {name}", should_pass, ours.source, ours.file, variant)
    source = ours.source
    for old, new in variant:
        if source.count(old) != 1:
            raise ValueError(
                f"{tech.id}/variants.py, {name!r}: {old!r} occurs {source.count(old)} times, not once"
            )
        source = source.replace(old, new)
    return Subject(f"{kind}: {name}", should_pass, source, f"<{tech.id}: {name}>", {})


def load(tech: Technology, subject: Subject) -> ModuleType:
    """Execute a subject as a fresh module; the installed implementation is not touched."""
    module = ModuleType(f"{tech.module}.{tech.id}")
    module.__file__ = subject.file
    module.__package__ = tech.module
    # Tracebacks show the lines of an edited source, too.
    lines = subject.source.splitlines(keepends=True)
    linecache.cache[subject.file] = (len(subject.source), None, lines, subject.file)
    # dataclasses look their module up by name while the source runs.
    installed = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(subject.source, subject.file, "exec"), module.__dict__)
    finally:
        if installed is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = installed
    vars(module).update(subject.exchanges)
    return module
