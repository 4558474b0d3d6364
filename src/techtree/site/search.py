"""The index of the search: a classic script, since a page from the file system may not fetch."""

import json
import re
from collections.abc import Mapping

from techtree.site import glossary
from techtree.site.content import Lesson
from techtree.site.markup import plain
from techtree.tree.graph import Tree

MAX_SHARE = 0.2
"""A word in more than this share of the sections tells none from another."""

LENGTH = 90
"""Characters of a section that a result shows."""


def index(tree: Tree, lessons: Mapping[str, Lesson | None]) -> str:
    """Return a script that sets ``techtreeIndex``.

    ``pages`` holds [address, title, heading, beginning] of each section; ``words`` maps a word to the numbers
    of the sections that have it, as differences in base 36, each followed by "!" where the word stands in a
    title; ``common`` are the words that so many sections have that only those in titles are kept.
    """
    pages: list[tuple[str, str, str, str]] = []
    words: dict[str, dict[int, bool]] = {}

    def add(address: str, title: str, heading: str, text: str) -> None:
        number = len(pages)
        shown = text if len(text) <= LENGTH else text[:LENGTH].rsplit(" ", 1)[0] + " ..."
        pages.append((address, title, heading, shown))
        for word in words_of(text):
            words.setdefault(word, {}).setdefault(number, False)
        for word in words_of(f"{title} {heading}"):
            words.setdefault(word, {})[number] = True

    for term in glossary.terms():
        if term.tech in tree.by_id:
            add(f"glossary.html#{term.slug}", term.term, "Glossary", plain(term.meaning))
    for tech in tree.technologies:
        lesson = lessons[tech.id]
        title = tech.title or tech.id
        names = f"{tech.id} {' '.join(tech.exercise)} {' '.join(tech.opens)}"
        add(f"tech/{tech.id}.html", title, tech.id, f"{tech.summary} {names if lesson else ''}".strip())
        for section in lesson.sections if lesson else ():
            add(f"tech/{tech.id}.html#{section.slug}", title, section.title, plain(section.text))
    common = sorted(w for w, places in words.items() if len(places) > MAX_SHARE * len(pages) and w.isalpha())
    for word in common:
        words[word] = {number: True for number, is_title in words[word].items() if is_title}
    packed = {word: _packed(places) for word, places in sorted(words.items()) if places}
    data = json.dumps(
        {"pages": pages, "words": packed, "common": common}, ensure_ascii=False, separators=(",", ":")
    )
    return f"var techtreeIndex={data};\n"


def words_of(text: str) -> set[str]:
    """Return the words by which a text is found.

    >>> sorted(words_of("KV cache, top_k = 40"))
    ['40', 'cache', 'k', 'kv', 'top', 'top_k']
    """
    found = set(re.findall(r"\w+", text.lower()))
    return found | {part for word in found for part in word.split("_") if part}


def _packed(places: Mapping[int, bool]) -> str:
    parts, before = [], 0
    for number in sorted(places):
        parts.append(_base36(number - before) + ("!" if places[number] else ""))
        before = number
    return " ".join(parts)


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while True:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
        if not number:
            return text
