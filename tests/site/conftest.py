"""The site of our own tree, written once."""

from pathlib import Path

import pytest

from techtree.site.pages import Site
from techtree.tree.graph import load_tree


@pytest.fixture(scope="session")
def tree():
    return load_tree()


@pytest.fixture(scope="session")
def folder(tree, tmp_path_factory) -> Path:
    """The site's folder."""
    out = tmp_path_factory.mktemp("site") / "the site é"
    Site(tree).write(out)
    return out
