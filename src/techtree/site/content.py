"""A lesson as data: the sections of its page, its questions, its known mistakes."""

import ast
import re
from dataclasses import dataclass

from techtree.tree.description import LINKS
from techtree.tree.technology import Technology

QUESTIONS = "Three questions"
MEASURED = "What we measured"
"""The sections of a description that become something else on a page."""

_FIGURE = re.compile(r"^!\[(?P<alt>[^\]]*)\]\(figure\.svg\)\s*$", re.MULTILINE)
_ANSWER = re.compile(r"<details><summary>Answer</summary>(?P<answer>.*?)</details>", re.DOTALL)


@dataclass(frozen=True)
class Section:
    """One section of a description, as Markdown."""

    title: str
    text: str

    @property
    def slug(self) -> str:
        """The name by which links find it."""
        return slug(self.title)


@dataclass(frozen=True)
class Question:
    """A question and its answer, as Markdown; ``after`` is the section that a page asks it after."""

    number: int
    text: str
    answer: str
    after: str = ""


@dataclass(frozen=True)
class Lesson:
    """What a technology's README.md says.

    Attributes
    ----------
    title
        The heading.
    lead
        What stands between it and the first section.
    sections
        The others, without the questions.
    figure
        The text that stands for the figure; empty where there is none.
    questions
        Three, each with the section after which it is asked.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    figure: str
    questions: tuple[Question, ...]


def slug(title: str) -> str:
    """Return a title as the fragment of a link.

    >>> slug("Why it works"), slug("RMSNorm's eps")
    ('why-it-works', 'rmsnorm-s-eps')
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def read_lesson(tech: Technology) -> Lesson | None:
    """Return a technology's lesson, or None where there is none yet."""
    if not tech.is_written or not tech.file("README.md").is_file():
        return None
    return parse_lesson(tech.file("README.md").read_text(encoding="utf-8"))


def parse_lesson(text: str) -> Lesson:
    """Take a description apart."""
    title, lead, sections = "", "", []
    name, lines, in_fence = None, [], False
    for line in [*text.partition(LINKS)[0].splitlines(), "## "]:
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        if line.startswith("# ") and not in_fence and not title:
            title = line[2:].strip()
        elif line.startswith("## ") and not in_fence:
            body = "\n".join(lines).strip() + "\n"
            if name is None:
                lead = body
            else:
                sections.append(Section(name, body))
            name, lines = line[3:].strip(), []
        else:
            lines.append(line)
    figure = ""
    plain = []
    asked: tuple[Question, ...] = ()
    for section in sections:
        if section.title == QUESTIONS:
            asked = questions(section.text)
            continue
        found = _FIGURE.search(section.text)
        if found is not None:
            figure = found["alt"]
            section = Section(section.title, _FIGURE.sub("", section.text).strip() + "\n")
        plain.append(section)
    return Lesson(title, lead, tuple(plain), figure, _placed(asked, plain))


def questions(text: str) -> tuple[Question, ...]:
    r"""Return the questions of the section of that name.

    >>> questions("1. Why?\n   <details><summary>Answer</summary>So.</details>\n")
    (Question(number=1, text='Why?', answer='So.', after=''),)
    """
    found = []
    for number, part in enumerate(re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:], 1):
        answer = _ANSWER.search(part)
        asked = part[: answer.start()] if answer else part
        found.append(Question(number, _joined(asked), _joined(answer["answer"]) if answer else ""))
    return tuple(found)


def _joined(text: str) -> str:
    """Return an indented paragraph as one line; code fences keep their lines."""
    if "```" in text:
        return re.sub(r"^ {3}", "", text, flags=re.MULTILINE).strip()
    return " ".join(text.split())


def _placed(asked: tuple[Question, ...], sections: list[Section]) -> tuple[Question, ...]:
    """Put each question after the section that shares its rare words: what answers it was just read."""
    places = [s for s in sections if s.title not in ("What it is for", "History", "References")]
    words = {section.title: _words(section.text) for section in places}
    placed = []
    for question in asked:
        wanted = _words(f"{question.text} {question.answer}")

        def worth(section: Section, wanted: set[str] = wanted) -> tuple[float, int]:
            shared = wanted & words[section.title]
            rare = sum(1 / sum(word in other for other in words.values()) for word in shared)
            # Long sections share words by chance.
            return rare / (len(words[section.title]) + 40) ** 0.5, places.index(section)

        after = max(places, key=worth).title if places else ""
        placed.append(Question(question.number, question.text, question.answer, after))
    return tuple(placed)


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z_]{4,}", text.lower())}


def mistakes(tech: Technology) -> list[str]:
    """Return the sentences of a technology's known mistakes, from the source of its `variants.py`."""
    path = tech.file("variants.py")
    if not path.is_file():
        return []
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "MISTAKES" for target in targets):
            for part in ast.walk(node):
                found += _sentences(part) if isinstance(part, ast.Dict) else []
    return found


def _sentences(table: ast.Dict) -> list[str]:
    """Return the keys that are sentences; the keys of a mistake's own dictionary are names."""
    keys = [key.value for key in table.keys if isinstance(key, ast.Constant)]
    return [key for key in keys if isinstance(key, str) and " " in key]
