"""The learner's files in place of ours, import by import.

A technology imports what it stands on from `techtree.techs`. Where the learner has an own file for one, such
an import finds that: so a whole model runs on it, and the rest stays ours.
"""

import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

from techtree.errors import InputError
from techtree.learn.workspace import Workspace
from techtree.tree.graph import Tree


class _Finder(MetaPathFinder):
    """Finds the modules of some files."""

    def __init__(self, files: Mapping[str, Path]):
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: object = None
    ) -> ModuleSpec | None:
        """Return how to load a module, if it is one of these files."""
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def own_files(workspace: Workspace) -> dict[str, Path]:
    """Return the learner's files for the technologies that were ever unlocked, by technology.

    A file that has changed since is among them: what is wrong with it shall be found.
    """
    return {
        tech.id: workspace.file(tech)
        for tech in workspace.tree.written
        if tech.id in workspace.issued and workspace.file(tech).is_file()
    }


def take(tree: Tree, files: Mapping[str, Path]) -> None:
    """Let this process import these files in place of our technologies; for as long as it lives.

    Raises
    ------
    RuntimeError
        When ours was imported already.
    """
    modules = {_module(tree, name): file for name, file in files.items()}
    late = sorted(set(modules) & set(sys.modules))
    if late:
        raise RuntimeError(f"the learner's files must come before the first import of {late[0]}")
    sys.meta_path.insert(0, _Finder(modules))


def used(tree: Tree) -> list[str]:
    """Return the technologies that were imported until now, in the tree's order."""
    return [tech.id for tech in tree.written if _module(tree, tech.id) in sys.modules]


def whose_code(workspace: Workspace, files: Mapping[str, Path]) -> str:
    """Return a line that tells which of the technologies that ran are the learner's."""
    ran = used(workspace.tree)
    yours = [
        name if workspace.is_unlocked(workspace.tree[name]) else f"{name} (not checked since it changed)"
        for name in ran
        if name in files
    ]
    ours = [name for name in ran if name not in files]
    return f"yours: {', '.join(yours) or 'none'}; ours: {', '.join(ours) or 'none'}"


def failure(error: Exception, files: Mapping[str, Path]) -> InputError | None:
    """Return an error that says where the learner's code failed; None if it was not the learner's."""
    names = {str(file): name for name, file in files.items()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in names:
            name = names[frame.filename]
            return InputError(
                f"your {name} failed in line {frame.lineno} with {type(error).__name__}: {error}: "
                f"techtree learn check {name}"
            )
    return None


def _module(tree: Tree, name: str) -> str:
    """Return the module that holds a technology's implementation."""
    return f"{tree[name].module}.{name}"
