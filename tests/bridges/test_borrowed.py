"""After an unlock somebody else's implementation may be borrowed: it passes the same tests as ours."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from proofs import proof_of
from techtree.tree.certificate import certificates
from techtree.tree.grading import grade
from techtree.tree.graph import load_tree

TREE = load_tree()
CURRENT = certificates(TREE)
ADAPTERS = sorted(Path(__file__).with_name("borrowed").glob("*.py"))
LENDERS = ("gguf", "regex", "scipy", "tokenizers", "torch", "transformers")


def lent() -> list[str]:
    """Return which libraries are there, each with its version."""
    found = []
    for name in LENDERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


LENT = lent()


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param(
            adapter,
            marks=pytest.mark.proof(proof_of([CURRENT[adapter.stem], *LENT], [adapter, Path(__file__)])),
            id=adapter.stem,
        )
        for adapter in ADAPTERS
    ],
)
def test_the_borrowed_library_passes_the_lessons_tests(adapter):
    report = grade(TREE[adapter.stem], subjects=str(adapter), is_borrowed=True)
    assert report.problems() == []
    assert report.outcomes[0].n_passed > 0
