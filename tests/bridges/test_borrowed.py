"""After an unlock somebody else's implementation may be borrowed: it passes the same tests as ours."""

from pathlib import Path

import pytest

from techtree.tree.grading import grade
from techtree.tree.graph import load_tree

TREE = load_tree()
ADAPTERS = sorted(Path(__file__).with_name("borrowed").glob("*.py"))


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.stem)
def test_the_borrowed_library_passes_the_lessons_tests(adapter):
    report = grade(TREE[adapter.stem], subjects=str(adapter), is_borrowed=True)
    assert report.problems() == []
    assert report.outcomes[0].n_passed > 0
