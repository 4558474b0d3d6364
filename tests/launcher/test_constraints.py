"""constraints.txt pins all that an install brings, and nothing that only one platform has."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}


def test_every_line_is_an_exact_public_version():
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+==\d+(\.\d+)*", line), line
    assert sorted(LINES, key=str.lower) == LINES
    assert len(PINS) == len(LINES)


def test_nothing_is_for_one_kind_of_card():
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


def test_all_that_the_install_brings_is_pinned_within_its_bounds():
    waiting = [
        (Requirement("techtree[dev]"), "the project"),
        (Requirement("hatchling"), "the build"),
        (Requirement("editables"), "the build"),
    ]
    seen: set[str] = set()
    while waiting:
        requirement, source = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name != "techtree" and not name.startswith(("nvidia", "cuda", "triton")):
            assert name in PINS, f"{name}, which {source} needs, is missing from constraints.txt"
            assert requirement.specifier.contains(PINS[name]), f"{source} needs {requirement}"
        key = f"{name}{sorted(requirement.extras)}"
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            pytest.fail(f"{name}, which {source} needs, is not installed: run ./techtree test")
        for text in needs:
            need = Requirement(text)
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((need, name))
    assert len(seen) > 50
