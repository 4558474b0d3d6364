"""Rule 1: a technology has a description that answers what, how and why."""

import re

from techtree.tree.technology import Technology

SECTIONS = (
    "What it is for",
    "The idea",
    "What we measured",
    "By hand",
    "The math",
    "Why it works",
    "Why these numbers",
    "What it costs",
    "What breaks without it",
    "History",
    "References",
    "Three questions",
)
"""The headings of a description, in order."""

LINKS = "<!-- Made from the graph by `python -m techtree.tree.links`. -->"
"""Where the generated end of a page begins (`techtree.tree.links`)."""

MIN_WORDS = 12
"""A section with fewer words says nothing. (The shortest honest one, a single reference, has about that.)"""


def missing_from_description(tech: Technology) -> list[str]:
    """Return what the technology's README.md lacks, one sentence each; nothing when it is complete."""
    path = tech.file("README.md")
    if not path.is_file():
        return ["README.md is missing"]
    text = path.read_text(encoding="utf-8").partition(LINKS)[0]
    sections = _sections(text)
    problems = [f'README.md: the section "{name}" is missing' for name in SECTIONS if name not in sections]
    problems += [
        f'README.md: the section "{name}" says nothing ({words} words)'
        for name in SECTIONS
        if name in sections and (words := len(sections[name].split())) < MIN_WORDS
    ]
    in_order = [name for name in sections if name in SECTIONS]
    if in_order != [name for name in SECTIONS if name in sections]:
        problems.append(f"README.md: the sections must come in the order {', '.join(SECTIONS)}")
    problems += [f'README.md: unknown section "{name}"' for name in sections if name not in SECTIONS]
    if not tech.file("figure.svg").is_file() or "](figure.svg)" not in sections.get("What we measured", ""):
        problems.append('README.md: "What we measured" must show figure.svg (techtree figure draws it)')
    questions = re.findall(r"^\d\. ", sections.get("Three questions", ""), flags=re.MULTILINE)
    if "Three questions" in sections and len(questions) != 3:
        problems.append(f'README.md: "Three questions" must list three; got {len(questions)}')
    return problems


def hints(tech: Technology) -> list[str]:
    """Return the hints of a technology, each revealing more than the one before."""
    text = tech.file("hints.md").read_text(encoding="utf-8")
    return [part.strip() for part in re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]]


def _sections(text: str) -> dict[str, str]:
    """Return the text below each second-level heading; headings inside code fences do not count."""
    sections: dict[str, str] = {}
    name, in_fence = None, False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        if line.startswith("## ") and not in_fence:
            name = line[3:].strip()
            sections[name] = ""
        elif name is not None:
            sections[name] += line + "\n"
    return sections
