"""A small tree in a temporary folder: three technologies in a chain, and one beside it."""

import shutil
from pathlib import Path

import pytest

import techtree
from techtree.tree.description import SECTIONS

PLAN = """
[eras]
ground = { title = "Ground", summary = "First things." }

[technologies.later]
era = "ground"
summary = "Not written yet."
requires = ["second"]
"""

TOML = """
title = "{name}"
summary = "What {name} does."
requires = [{requires}]
opens = ["library.{name}"]
exercise = ["double"]
papers = [{{ title = "On doubling", authors = "A. Author", year = 2001, url = "https://example.org" }}]
minutes = 5
"""

SOURCE = '''"""Doubles numbers."""

import math
{imports}

def double(x):
    """Return 2x."""
    return x + x + 0 * math.pi
'''

TESTS = '''"""Oracle: the definition."""


def test_double(impl):
    assert impl.double(3) == 6
    assert impl.double(-1) == -2
'''

VARIANTS = '''"""Wrong and right versions."""

MISTAKES = {"adds one": {"double": lambda x: x + 1}, "triples": [("return x + x", "return x + x + x")]}
MISTAKES |= {f"multiplies by {n}": {"double": lambda x, n=n: n * x} for n in range(4, 22)}
EQUIVALENTS = {"multiplies": {"double": lambda x: 2 * x}}
EQUIVALENTS |= {f"adds {n} zeros": {"double": lambda x, n=n: 2 * x + n * 0} for n in range(3)}


def probes(rng):
    return {"three": lambda impl: impl.double(3)}
'''


KEPT = ("__init__.py", "aim.py", "answering.py", "battery.py", "conftest.py", "elsewhere.py", "spoils.py")
"""What stays of the folder of technologies."""


def write_technology(root: Path, name: str, requires: list[str], imports: str = "") -> Path:
    """Write a complete technology and return its folder."""
    folder = root / "ground" / name
    folder.mkdir(parents=True)
    needs = ", ".join(f'{{ tech = "{need}", why = "because" }}' for need in requires)
    (folder / "tech.toml").write_text(TOML.format(name=name, requires=needs), encoding="utf-8")
    (folder / f"{name}.py").write_text(SOURCE.format(imports=imports), encoding="utf-8")
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / f"test_{name}.py").write_text(TESTS, encoding="utf-8")
    (folder / "variants.py").write_text(VARIANTS, encoding="utf-8")
    (folder / "hints.md").write_text("1. Add.\n2. Add it to itself.\n3. `x + x`.\n", encoding="utf-8")
    (folder / "figure.svg").write_text("<svg/>", encoding="utf-8")
    prose = "Words that stand here in the place of a description of some length. " * 2
    figure = {"What we measured": "![a figure](figure.svg)\n"}
    extra = figure | {"Three questions": "1. one?\n2. two?\n3. three?\n"}
    text = "".join(f"## {name}\n\n{extra.get(name, '')}{prose}\n\n" for name in SECTIONS)
    (folder / "README.md").write_text(f"# {name}\n\n{text}", encoding="utf-8")
    return folder


@pytest.fixture
def small_tree(tmp_path) -> Path:
    """The root of a tree with first <- second <- third, and aside."""
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    write_technology(tmp_path, "first", [])
    write_technology(tmp_path, "second", ["first"])
    write_technology(tmp_path, "third", ["second"])
    write_technology(tmp_path, "aside", [])
    return tmp_path


def write_package(folder: Path) -> Path:
    """Write a copy of the package, without the product, whose tree is the small one; return its parent."""
    package = folder / "copy" / "techtree"
    shutil.copytree(Path(techtree.__file__).parent, package, ignore=_everything_but_the_engine)
    (package / "techs" / "plan.toml").write_text(PLAN, encoding="utf-8")
    write_technology(package / "techs", "first", [])
    write_technology(
        package / "techs", "second", ["first"], "from techtree.techs.ground.first.first import double"
    )
    write_technology(package / "techs", "third", ["second"])
    write_technology(package / "techs", "aside", [])
    return package.parent


@pytest.fixture
def small_package(tmp_path) -> Path:
    """The small tree as an installed program."""
    return write_package(tmp_path)


def _everything_but_the_engine(folder: str, names: list[str]) -> list[str]:
    inside = Path(folder).name
    if inside == "techtree":
        return [name for name in names if name in ("lm", "engines", "serve", "__pycache__")]
    return [name for name in names if inside == "techs" and name not in KEPT]
