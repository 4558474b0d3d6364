"""The field's terms: what each means in one sentence, and where a lesson explains it."""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from techtree.site.content import slug


@dataclass(frozen=True)
class Term:
    """A term; ``section`` is the heading in the lesson of ``tech`` below which it is explained."""

    term: str
    meaning: str
    tech: str
    section: str

    @property
    def slug(self) -> str:
        """The name by which links find it."""
        return slug(self.term)

    def place(self, sections: Collection[str]) -> str:
        """Return where the explanation stands, in a lesson with some sections; at least the lesson."""
        page = f"tech/{self.tech}.html"
        return f"{page}#{slug(self.section)}" if self.section in sections else page


@cache
def terms() -> tuple[Term, ...]:
    """Return all terms, in order of the alphabet."""
    table = tomllib.loads(Path(__file__).with_name("glossary.toml").read_text(encoding="utf-8"))
    found = [Term(term, *entry) for term, entry in table.items()]
    return tuple(sorted(found, key=lambda each: each.term.lower()))
