"""What the pages say can be done, can be done: commands exist, links lead somewhere, pictures are current."""

import re

import pytest

from techtree.cli.main import COMMANDS
from techtree.tree import drawing
from techtree.tree.certificate import certificates, read_certificates, state
from techtree.tree.graph import load_tree
from techtree.tree.links import with_links
from tracked import ROOT, tracked_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for path in tracked_files() if path.suffix == ".md"]


def test_the_readme_is_short_and_begins_with_two_commands():
    assert len(README.splitlines()) <= 150
    first_block = README.split("```")[1]
    assert re.findall(r"^\./techtree (\w+)", first_block, flags=re.MULTILINE) == ["build", "test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_on_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^\s*|`)(?:\./)?techtree ([a-z]+)", text, flags=re.MULTILINE)
    assert [name for name in named if name not in (*COMMANDS, "test")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_end_of_a_line_tears_a_formula_or_makes_a_list(page):
    """Code hosts show a formula only on one line, and take "is N -" with "1." below it for a list."""
    code = re.compile(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`", flags=re.DOTALL)
    text = code.sub("", page.read_text(encoding="utf-8"))
    formulas = [each for part in re.split(r"\n\s*\n", text) for each in re.findall(r"\$[^$]*\$", part)]
    assert [formula for formula in formulas if "\n" in formula] == []
    assert re.findall(r"^(?![ \-+*]|\d+\. )\S.*\n(?:\d+\.|[-+*]) .*", text, flags=re.MULTILINE) == []


@pytest.mark.parametrize("tech", load_tree().written, ids=lambda tech: tech.id)
def test_the_links_at_the_end_of_a_page_are_current(tech):
    """After a change: python -m techtree.tree.links."""
    assert tech.file("README.md").read_text(encoding="utf-8") == with_links(load_tree(), tech)


def test_the_picture_of_the_tree_is_current():
    """After a change: techtree map --svg docs/tree.svg."""
    tree = load_tree()
    issued, current = read_certificates(tree.root), certificates(tree)
    states = {tech.id: state(tree, tech, issued, current) for tech in tree.technologies}
    assert (ROOT / "docs" / "tree.svg").read_text(encoding="utf-8") == drawing.picture(tree, states)


def test_the_readme_counts_the_technologies():
    tree = load_tree()
    words = {10: "Ten"}
    n_written = len(tree.written)
    n_planned = len(tree.technologies) - n_written
    assert f"{words.get(n_written, n_written)} technologies are written, {n_planned} planned" in README
