"""The learner's folder: `<era>/<technology>.py`, and `progress.json` with the certificates of one's own.

A certificate is a hash of the learner's source, of the technology's contract (tests, variants, page) and of
the certificates of its prerequisites. So an edit upstream makes everything below it stale, and the folder
can be moved to another machine as it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from techtree import atomic
from techtree.errors import InputError
from techtree.tree.certificate import contract, digest
from techtree.tree.graph import Tree
from techtree.tree.stub import make_stub
from techtree.tree.technology import Technology

PROGRESS = "progress.json"

README = """\
# My tree

My own versions of the technologies between `import numpy` and a working coding assistant.

    techtree learn next              what is open now
    techtree learn start TECH        writes the stub TECH.py into its era's folder
    techtree learn check TECH        grades my file
    techtree learn watch             grades on every save
    techtree learn hint TECH         one more hint
    techtree map                     the tree as I have unlocked it

`progress.json` holds my certificates: keep it with the sources, in version control too.
"""


@dataclass(frozen=True)
class Workspace:
    """A learner's folder.

    Attributes
    ----------
    folder
        The one that holds `progress.json`.
    tree
        All technologies.
    issued
        Technology -> the certificate that it got.
    hints
        Technology -> how many hints were shown.
    """

    folder: Path
    tree: Tree
    issued: dict[str, str] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)

    def file(self, tech: Technology) -> Path:
        """Return where the learner's version lies."""
        return self.folder / tech.era / f"{tech.id}.py"

    def shown(self, tech: Technology) -> str:
        """Return the learner's file as it is told: from the workspace's folder on."""
        return f"{self.folder.name}/{tech.era}/{tech.id}.py"

    @cached_property
    def current(self) -> dict[str, str]:
        """The certificate that each technology would get now; none where there is no file."""
        found: dict[str, str] = {}
        for tech in self.tree.written:
            path = self.file(tech)
            if path.is_file():
                # Version control may change the ends of lines on another machine.
                source = path.read_bytes().replace(b"\r\n", b"\n")
                needs = sorted(need.tech for need in tech.requires)
                upstream = [found.get(need, "").encode() for need in needs]
                found[tech.id] = digest([contract(tech).encode(), source, *upstream])
        return found

    def states(self) -> dict[str, str]:
        """Return how each technology stands for the learner; see `state`."""
        return {tech.id: self.state(tech) for tech in self.tree.technologies}

    def state(self, tech: Technology) -> str:
        """Return how a technology stands for the learner.

        ``unlocked``, ``stale`` (it, or something that it stands on, changed since), ``open`` (can be worked
        on now), ``locked`` or ``planned``.
        """
        if not tech.is_written:
            return "planned"
        if tech.id in self.issued:
            return "unlocked" if self.is_unlocked(tech) else "stale"
        needs = [self.tree.by_id.get(need.tech) for need in tech.requires]
        return "open" if all(need is not None and self.is_unlocked(need) for need in needs) else "locked"

    def is_unlocked(self, tech: Technology) -> bool:
        """Tell whether a technology's certificate is the one that it would get now."""
        return tech.id in self.issued and self.issued[tech.id] == self.current.get(tech.id)

    def missing(self, tech: Technology) -> list[str]:
        """Return the prerequisites that are not unlocked."""
        return [need.tech for need in tech.requires if not self.is_unlocked(self.tree[need.tech])]

    def write_stub(self, tech: Technology) -> Path:
        """Write the stub, where there is no file yet; return the file.

        Raises
        ------
        InputError
            When the technology is not written yet.
        """
        if not tech.is_written:
            raise InputError(f"{tech.id} is planned, not written: techtree learn next shows what is open")
        path = self.file(tech)
        if not path.exists():
            atomic.write_text(path, stub(tech))
        return path

    def with_certificate(self, tech: Technology) -> "Workspace":
        """Return the workspace after a technology was found right, and keep it on disk."""
        after = Workspace(
            self.folder, self.tree, self.issued | {tech.id: self.current[tech.id]}, dict(self.hints)
        )
        after.save()
        return after

    def save(self) -> None:
        """Write the progress."""
        progress = {"version": 1, "certificates": dict(sorted(self.issued.items())), "hints": self.hints}
        atomic.write_text(self.folder / PROGRESS, json.dumps(progress, indent=1) + "\n")


def stub(tech: Technology) -> str:
    """Return what a learner begins with: the signatures, and what may not be called."""
    text = make_stub(tech.implementation.read_text(encoding="utf-8"), tech.exercise)
    if not tech.replaces:
        return text
    told = f"# Written here, and so not to be called: {', '.join(tech.replaces)}."
    return f"{text}\n{told}\n"


def create(folder: Path, tree: Tree) -> Workspace:
    """Make a workspace in a new or empty folder.

    Raises
    ------
    InputError
        When there is one, or the folder holds something else.
    """
    if (folder / PROGRESS).exists():
        raise InputError(f"{folder} is a workspace already: cd {folder}, then techtree learn next")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"a workspace needs a new or an empty folder; {folder} is none")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(folder / "README.md", README)
    workspace = Workspace(folder.resolve(), tree)
    workspace.save()
    return workspace


def find(start: Path, tree: Tree) -> Workspace | None:
    """Return the workspace that a folder lies in, or None.

    Raises
    ------
    InputError
        When its progress cannot be read.
    """
    for folder in (start, *start.parents):
        path = folder / PROGRESS
        if path.is_file():
            progress = _read(path)
            if progress is not None:
                return Workspace(folder, tree, dict(progress["certificates"]), dict(progress["hints"]))
    return None


def require(tree: Tree) -> Workspace:
    """Return the workspace that the current folder lies in.

    Raises
    ------
    InputError
        When it lies in none.
    """
    workspace = find(Path.cwd(), tree)
    if workspace is None:
        raise InputError(
            "this folder lies in no workspace: make one with techtree learn init my-tree, then cd my-tree"
        )
    return workspace


def _read(path: Path) -> Mapping | None:
    """Return the progress; None if the file is somebody else's."""
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be the progress that techtree wrote ({error}): restore it, or delete it and"
            " check your files again"
        ) from None
    if not isinstance(progress, dict) or "certificates" not in progress:
        return None
    texts = progress["certificates"]
    hints = progress.get("hints")
    is_right = isinstance(texts, dict) and all(isinstance(each, str) for each in texts.values())
    if not (is_right and isinstance(hints, dict) and all(isinstance(each, int) for each in hints.values())):
        raise InputError(
            f"{path} must map technologies to certificates and to numbers of hints: restore it, or delete it"
            " and check your files again"
        )
    return progress
