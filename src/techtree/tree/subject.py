"""The module under test: our implementation, its stub, a known mistake, an equivalent, or a file.

One suite of tests judges many subjects. A subject is made from source text, executed as if it were the
implementation, so that an inner function that is exchanged is exchanged for its callers too.
"""

import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from techtree.tree.mutation import kinds_of_functions, mutate
from techtree.tree.stub import make_stub
from techtree.tree.technology import Technology

Variant = Mapping[str, object] | list[tuple[str, str]]
"""A changed implementation: names with what takes their place, or edits (old text, new text)."""

Wrap = Callable[[Callable], Callable]
"""Makes another version of a function."""


@dataclass(frozen=True)
class Subject:
    """What a test run judges, and whether the tests should accept it."""

    name: str
    should_pass: bool
    source: str
    file: str
    exchanges: Mapping[str, object]
    wraps: Mapping[str, Wrap] = field(default_factory=dict)
    """What makes another function of one, by its name."""


def own(tech: Technology) -> Subject:
    """Return our implementation."""
    path = tech.implementation
    return Subject("own", True, path.read_text(encoding="utf-8"), str(path), {})


def from_file(path: Path) -> Subject:
    """Return somebody's own version of the implementation."""
    return Subject("yours", True, path.read_text(encoding="utf-8"), str(path), {})


def graders(tech: Technology) -> list[Subject]:
    """Return the subjects that a technology's tests must tell apart: ours, the stub and all variants.

    Raises
    ------
    ValueError
        When `variants.py` is malformed, or an edit does not match the source exactly once.
    """
    ours = own(tech)
    stub = Subject("stub", False, make_stub(ours.source, tech.exercise), f"<stub of {tech.id}>", {})
    variants = load_variants(tech)
    return [
        ours,
        stub,
        *(_variant(tech, ours, name, v, should_pass=False) for name, v in variants.MISTAKES.items()),
        *(_variant(tech, ours, name, v, should_pass=True) for name, v in variants.EQUIVALENTS.items()),
    ]


def mutants(tech: Technology, spoils: Mapping[str, Mapping[str, Wrap]]) -> list[Subject]:
    """Return ours with one thing changed in each: in the source, or in what every function owes.

    Parameters
    ----------
    tech
        The technology.
    spoils
        For functions that take or give something (`kinds_of_functions`): what is wrong -> what makes such a
        version of a function.

    Raises
    ------
    ValueError
        When `variants.HARMLESS` names a mutant that does not exist.
    """
    ours = own(tech)
    harmless = set(getattr(load_variants(tech), "HARMLESS", {}))
    found = [Subject(m.name, False, m.source, f"<{tech.id} mutant>", {}) for m in mutate(ours.source)]
    for name, kinds in kinds_of_functions(ours.source, tech.exercise).items():
        for kind in [each for each in spoils if each in kinds]:
            for what, spoil in spoils[kind].items():
                found.append(Subject(f"{name}: {what}", False, ours.source, ours.file, {}, {name: spoil}))
    unknown = harmless - {each.name for each in found}
    if unknown:
        raise ValueError(f"{tech.id}/variants.py: HARMLESS names no mutant: {min(unknown)!r}")
    return [ours, *(each for each in found if each.name not in harmless)]


def load_variants(tech: Technology) -> ModuleType:
    """Execute a technology's `variants.py` without its package, whose implementation it is there to judge."""
    path = tech.file("variants.py")
    spec = spec_from_file_location(f"{tech.module}.variants", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_package(tech: Technology) -> None:
    """Load a prerequisite's package, as the module under test will."""
    import_module(tech.module)


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
    for name, wrap in subject.wraps.items():
        vars(module)[name] = wrap(vars(module)[name])
    return module
