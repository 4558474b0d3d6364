"""All pages of our tree: whole, linked, small, valid, without a word to anybody else."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import html5lib
import pytest

from techtree.errors import InputError
from techtree.site import content, glossary
from techtree.site.pages import MANIFEST, Site, bridges, claims
from techtree.tree.certificate import read_certificates
from techtree.tree.graph import TECHS, load_tree

MAX_PAGE_BYTES = 300_000


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "srcset", "poster", "data") or (name == "href" and tag != "a"):
                self.loads.append(value or "")


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, Page]:
    files = sorted(folder.rglob("*.html"))
    return {f.relative_to(folder).as_posix(): Page(f.read_text(encoding="utf-8")) for f in files}


def test_there_is_a_page_for_everything(tree, pages):
    expected = {"index.html", "glossary.html"} | {f"tech/{tech.id}.html" for tech in tree.technologies}
    expected |= {f"era/{era.id}.html" for era in tree.eras}
    assert expected <= pages.keys()
    assert {name for name in pages if not name.startswith("product/")} == expected


def test_every_link_leads_somewhere(folder, pages):
    broken = []
    for name, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (
                (folder / name).parent.joinpath(unquote(parts.path)).resolve()
                if parts.path
                else folder / name
            )
            found = target.is_file()
            if found and parts.fragment:
                key = target.relative_to(folder.resolve()).as_posix() if parts.path else name
                found = unquote(parts.fragment) in pages[key].ids
            if not found:
                broken.append((name, link))
    assert broken == []


def test_no_name_occurs_twice_on_a_page(pages):
    assert {name: page.ids for name, page in pages.items() if len(set(page.ids)) < len(page.ids)} == {}


def test_nothing_is_loaded_from_elsewhere(folder, pages):
    assert [
        (name, load) for name, page in pages.items() for load in page.loads if urlsplit(load).scheme
    ] == []
    for path in [*folder.rglob("*.css"), *folder.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", text), path
        assert path.name == "search-index.js" or not re.search(r"https?://(?!www\.w3\.org/)", text), path


def test_a_strict_policy_has_nothing_to_forbid(pages):
    """No script or style within a page: neither handlers, nor attributes, nor elements."""
    for name, page in pages.items():
        assert [a for a in page.attributes if a[1] == "style" or a[1].startswith("on")] == [], name
        kinds = {
            value for tag, attribute, value in page.attributes if tag == "script" and attribute == "type"
        }
        assert kinds <= {"application/json"}, name
        assert not [a for a in page.attributes if a[0] == "style"], name


def test_every_page_is_valid_and_small(folder):
    parser = html5lib.HTMLParser(strict=True)
    for path in sorted(folder.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) <= MAX_PAGE_BYTES, path.name
        # The tests' source is made like all other source, and would take half of the time.
        parser.parse(re.sub(r"<details>\s*<summary><code>test_.*?</details>", "", text, flags=re.DOTALL))


def test_a_reader_of_a_lesson_finds_everything_within_one_click(tree, pages):
    for tech in tree.written:
        if not tech.file("README.md").is_file():
            continue
        page = pages[f"tech/{tech.id}.html"]
        for place in ("needs", "leads-to", "code", "tests", "mistakes", "product"):
            assert f"#{place}" in page.links, (tech.id, place)
            assert place in page.ids, (tech.id, place)
        linked = set(page.links)
        assert {f"{need.tech}.html" for need in tech.requires} <= linked
        assert {f"{later.id}.html" for later in tree.leads_to(tech.id)} <= linked


def test_the_lessons_before_and_after_form_one_way(tree, folder):
    place, seen = tree.written[0].id, []
    while place:
        seen.append(place)
        text = (folder / "tech" / f"{place}.html").read_text(encoding="utf-8")
        following = re.search(r'rel="next" href="(\w+)\.html"', text)
        place = following[1] if following else ""
    assert seen == [tech.id for tech in tree.written]


def test_the_search_finds_lessons_functions_and_terms(folder):
    text = (folder / "assets" / "search-index.js").read_text(encoding="utf-8")
    data = json.loads(text.removeprefix("var techtreeIndex=").removesuffix(";\n"))
    pages, words = data["pages"], data["words"]

    def found(word):
        number, places = 0, []
        for part in words[word].split(" "):
            number += int(part.removesuffix("!"), 36)
            places.append(pages[number][0])
        return places

    assert "tech/rope.html" in found("rotate")
    assert "tech/rope.html#the-idea" in found("wavelength")
    assert len(pages) > 400


def test_a_site_is_renewed_and_strangers_files_stay(tree, tmp_path):
    site = Site(tree)
    site._makers = {"index.html": lambda: "new", "tech/a.html": lambda: "a"}
    assert site.write(tmp_path / "out") == 2
    (tmp_path / "out" / "mine.txt").write_text("mine")
    site._makers = {"index.html": lambda: "newer"}
    site.write(tmp_path / "out")
    left = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert left == ["index.html", "mine.txt", MANIFEST]
    assert (tmp_path / "out" / "index.html").read_text() == "newer"


def test_a_folder_of_somebody_else_is_refused(tree, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="must be a new or an empty folder"):
        Site(tree).write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_what_is_said_of_technologies_is_said_of_all_that_are_written(tree):
    names = {tech.id for tech in load_tree(TECHS).technologies}
    assert bridges().keys() <= names
    assert claims().keys() <= names
    for bridge in bridges().values():
        assert bridge.files or "yet" in bridge.text, bridge
    committed = [tech for tech in tree.written if tech.id in read_certificates(TECHS)]
    assert [tech.id for tech in committed if tech.id not in bridges()] == []
    assert [tech.id for tech in committed if tech.id not in claims()] == []


def test_every_term_is_explained_where_the_glossary_says(tree):
    n_found = 0
    for term in glossary.terms():
        lesson = content.read_lesson(tree[term.tech])
        if lesson is None or term.tech not in read_certificates(TECHS):
            continue
        assert term.section in [section.title for section in lesson.sections], term
        whole = (
            f"{lesson.title} {lesson.lead} {' '.join(section.text for section in lesson.sections)}".lower()
        )
        stems = [word[:5] for word in re.findall(r"[a-z0-9]+", term.term.lower()) if len(word) > 3] or [
            term.term
        ]
        assert any(stem.lower() in whole for stem in stems), term
        n_found += 1
    assert n_found > 80
