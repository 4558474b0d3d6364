"""`techtree site`: the tree as pages that open from the file system."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Config:
    """Write the tree as pages: the map, a page for each technology, the eras, a glossary and a search.

    They open from the file system and load nothing from elsewhere. In a learner's workspace the map shows the
    learner's own states, and what is open next.
    """

    out: Path = Path("site")
    """The folder: a new one, an empty one, or an earlier site."""


def run(config: Config) -> int:
    """Write the pages, and say where to begin."""
    from techtree.learn import workspace
    from techtree.site.pages import Site
    from techtree.tree.graph import load_tree

    tree = load_tree()
    site = Site(tree, workspace.find(Path.cwd(), tree))
    n_files = site.write(config.out)
    print(f"{n_files} files in {config.out}; open {(config.out / 'index.html').resolve().as_uri()}")
    return 0
