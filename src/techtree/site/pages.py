"""Which pages there are, and how each is made."""

import functools
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from techtree import atomic
from techtree.errors import InputError
from techtree.learn.workspace import Workspace
from techtree.site import content, glossary, search, touchable
from techtree.site.docstring import docstring_html, pieces
from techtree.site.highlight import highlighted
from techtree.site.markup import code, inline, markdown, plain
from techtree.tree import certificate, drawing
from techtree.tree.graph import Tree
from techtree.tree.technology import Technology

HERE = Path(__file__).parent
PACKAGE = HERE.parent
MANIFEST = "techtree-site.json"
"""Lists the files of a site, in its folder: they may be replaced and removed, others never."""

STATES = {
    "unlocked": "unlocked",
    "stale": "changed since it was unlocked",
    "open": "open: all it needs is unlocked",
    "locked": "locked: something it needs is not unlocked",
    "planned": "planned, not written",
}
"""What the states mean, in words."""


@dataclass(frozen=True)
class Bridge:
    """Where the product has a technology: a sentence, and the files."""

    text: str
    files: tuple[str, ...]


@functools.cache
def bridges() -> dict[str, Bridge]:
    """Return each technology's place in the product."""
    table = tomllib.loads((HERE / "bridge.toml").read_text(encoding="utf-8"))
    return {name: Bridge(entry["text"], tuple(entry["files"])) for name, entry in table.items()}


@functools.cache
def claims() -> dict[str, str]:
    """Return what each technology's figure shows, in a sentence."""
    return tomllib.loads((HERE / "claims.toml").read_text(encoding="utf-8"))


class Site:
    """All pages of a tree.

    Parameters
    ----------
    tree
        The technologies.
    mine
        The learner's workspace, whose states are shown; None to show those of the tree itself.
    """

    def __init__(self, tree: Tree, mine: Workspace | None = None):
        self.tree = tree
        self.mine = mine
        self.states = certificate.states(tree) if mine is None else mine.states()
        self._lessons = {tech.id: content.read_lesson(tech) for tech in tree.technologies}
        self._makers: dict[str, Callable[[], str | bytes]] = {
            "index.html": self._index,
            "glossary.html": self._glossary,
            "assets/map.css": lambda: drawing.map_css(self.tree),
            "assets/search-index.js": lambda: search.index(self.tree, self._lessons),
        }
        for era in tree.eras:
            self._makers[f"era/{era.id}.html"] = functools.partial(self._era, era)
        for tech in tree.technologies:
            self._makers[f"tech/{tech.id}.html"] = functools.partial(self._tech, tech)
            if self._lessons[tech.id] is not None and tech.file("figure.svg").is_file():
                self._makers[f"figures/{tech.id}.svg"] = tech.file("figure.svg").read_bytes
        self._bridges = [name for name in bridges() if name in tree.by_id]
        for file in sorted({file for name in self._bridges for file in bridges()[name].files}):
            self._makers[product_page(file)] = functools.partial(self._product, file)
        for name, path in {**_assets(), **touchable.assets()}.items():
            self._makers[f"assets/{name}"] = path.read_bytes

    def paths(self) -> tuple[str, ...]:
        """Return the names of all files, relative to the site's folder."""
        return tuple(self._makers)

    def render(self, path: str) -> bytes:
        """Return one file.

        Raises
        ------
        KeyError
            When there is none of that name.
        InputError
            When a lesson cannot be shown; the message names it.
        """
        try:
            made = self._makers[path]()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return made if isinstance(made, bytes) else made.encode()

    def write(self, folder: Path) -> int:
        """Write all files, and remove those that only an earlier site had; return how many there are.

        Raises
        ------
        InputError
            When the folder holds something else.
        """
        before = _read_manifest(folder)
        made = {path: self.render(path) for path in self.paths()}
        # First, so that a run that is stopped leaves a folder that the next one may use.
        _write(folder / MANIFEST, json.dumps({"files": sorted({*before, *made})}).encode())
        for path, data in made.items():
            _write(folder / path, data)
        for path in sorted(before - made.keys()):
            (folder / path).unlink(missing_ok=True)
        _write(folder / MANIFEST, json.dumps({"files": sorted(made)}).encode())
        return len(made)

    def _page(self, template: str, path: str, **values: Any) -> str:
        root = "../" * path.count("/")
        common = {
            "root": root,
            "path": path,
            "eras": self.tree.eras,
            "mine": self.mine.folder.name if self.mine is not None else "",
            "states": self.states,
            "state_words": STATES,
        }
        return _environment().get_template(template).render(**common, **values)

    def _index(self) -> str:
        tree = self.tree
        following = [tech for tech in tree.technologies if self.states[tech.id] == "open"]
        seen = set(self.states.values())
        n_unlocked = sum(each == "unlocked" for each in self.states.values())
        return self._page(
            "index.html",
            "index.html",
            tree=tree,
            by_era=[(era, [t for t in tree.technologies if t.era == era.id]) for era in tree.eras],
            following=[(tech, tree.leads_to(tech.id)) for tech in following],
            stale=[tech for tech in tree.technologies if self.states[tech.id] == "stale"]
            if self.mine
            else [],
            n_unlocked=n_unlocked,
            n_written=len(tree.written),
            map=Markup(touchable.map_of(tree, self.states)),
            signs=[(Markup(drawing.sign(name)), words) for name, words in STATES.items() if name in seen],
        )

    def _era(self, era) -> str:
        members = [tech for tech in self.tree.technologies if tech.era == era.id]
        numbers = [each.id for each in self.tree.eras]
        place = numbers.index(era.id)
        return self._page(
            "era.html",
            f"era/{era.id}.html",
            era=era,
            number=place + 1,
            members=[(tech, self.tree.leads_to(tech.id)) for tech in members],
            before=self.tree.eras[place - 1] if place else None,
            after=self.tree.eras[place + 1] if place + 1 < len(numbers) else None,
        )

    def _glossary(self) -> str:
        terms = []
        for term in glossary.terms():
            if term.tech in self.tree.by_id:
                lesson = self._lessons[term.tech]
                sections = [section.title for section in lesson.sections] if lesson else []
                terms.append((term, term.place(sections)))
        return self._page("glossary.html", "glossary.html", terms=terms)

    def _product(self, file: str) -> str:
        text = (PACKAGE / file).read_text(encoding="utf-8")
        users = [self.tree.by_id[name] for name in self._bridges if file in bridges()[name].files]
        language = "c" if file.endswith(".c") else "python"
        return self._page(
            "product.html", product_page(file), file=file, source=code(text, language), users=users
        )

    def _tech(self, tech: Technology) -> str:
        lesson = self._lessons[tech.id]
        order = [each.id for each in self.tree.written]
        place = order.index(tech.id) if tech.id in order else None
        era = next(era for era in self.tree.eras if era.id == tech.era)
        values: dict[str, Any] = {
            "tech": tech,
            "era": era,
            "state": self.states[tech.id],
            "needs": [
                (self.tree[need.tech], need.why) for need in tech.requires if need.tech in self.tree.by_id
            ],
            "leads": [(later, _reason(later, tech)) for later in self.tree.leads_to(tech.id)],
            "before": self.tree[order[place - 1]] if place else None,
            "after": self.tree[order[place + 1]] if place is not None and place + 1 < len(order) else None,
            "bridge": _bridge(tech),
            "lesson": None,
        }
        if lesson is not None:
            values |= self._lesson_values(tech, lesson)
        return self._page("tech.html", f"tech/{tech.id}.html", **values)

    def _lesson_values(self, tech: Technology, lesson: content.Lesson) -> dict[str, Any]:
        sections = [
            {
                "title": section.title,
                "slug": section.slug,
                "html": markdown(section.text),
                "has_figure": section.title == content.MEASURED and f"figures/{tech.id}.svg" in self._makers,
                "questions": [
                    {"number": q.number, "html": inline(q.text), "answer": markdown(q.answer)}
                    for q in lesson.questions
                    if q.after == section.title
                ],
            }
            for section in lesson.sections
        ]
        is_there = tech.implementation.is_file()
        source = tech.implementation.read_text(encoding="utf-8") if is_there else ""
        tests = sorted(tech.file("").glob("test_*.py"))
        return {
            "lesson": lesson,
            "lead": markdown(lesson.lead),
            "description": plain(lesson.lead).split(". ")[0].rstrip(".") + ".",
            "sections": sections,
            "size": _size(tech.file("figure.svg")),
            "claim": claims().get(tech.id, ""),
            "touch": touchable.section(tech),
            "pieces": [
                (p.name, docstring_html(p.docstring), Markup(highlighted(p.source))) for p in pieces(source)
            ],
            "tests": [(path.name, Markup(highlighted(path.read_text(encoding="utf-8")))) for path in tests],
            "mistakes": content.mistakes(tech),
        }


def product_page(file: str) -> str:
    """Return the page of a file of the product.

    >>> product_page("lm/model/rope.py")
    'product/lm.model.rope.py.html'
    """
    return f"product/{file.replace('/', '.')}.html"


def _size(figure: Path) -> tuple[int, int]:
    """Return a figure's width and height in pixels, so that a page keeps the room for it."""
    head = figure.read_text(encoding="utf-8")[:2000] if figure.is_file() else ""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    return (round(float(found[1]) * 4 / 3), round(float(found[2]) * 4 / 3)) if found else (864, 346)


def _bridge(tech: Technology) -> dict[str, Any] | None:
    found = bridges().get(tech.id)
    if found is None:
        return None
    return {
        "html": inline(found.text),
        "files": [(file, product_page(file)) for file in found.files],
    }


def _reason(later: Technology, tech: Technology) -> str:
    return next((need.why for need in later.requires if need.tech == tech.id), "") or later.summary


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline
    return environment


def _assets() -> dict[str, Path]:
    folder = HERE / "assets"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _read_manifest(folder: Path) -> set[str]:
    path = folder / MANIFEST
    if path.is_file():
        try:
            files = json.loads(path.read_text(encoding="utf-8"))["files"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} must be the list that techtree wrote: delete the folder, or choose another"
            ) from None
        return {name for name in files if ".." not in Path(name).parts and not Path(name).is_absolute()}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--out must be a new or an empty folder, or an earlier site; {folder} is none")
    return set()


def _write(path: Path, data: bytes) -> None:
    """Write a file where it is not so already: a site that is made again changes little."""
    if not (path.is_file() and path.read_bytes() == data):
        atomic.write_bytes(path, data)
