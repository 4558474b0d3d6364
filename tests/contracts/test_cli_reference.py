from pathlib import Path

from techtree.cli.main import COMMANDS
from techtree.cli.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_reference_is_current():
    """After a change: python -m techtree.cli.reference > docs/cli.md."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_command_and_every_argument_is_described():
    text = page()
    for name in COMMANDS:
        assert f"## techtree {name}\n" in text
    assert "|  |\n" not in text.replace("| `", "")
