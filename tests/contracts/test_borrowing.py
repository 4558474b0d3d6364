"""The product may use a machine-learning library only where an unlocked technology opens it.

What is borrowed before its technology is written stands in `debts.toml`. The list is exact: a debt that
is paid, or no longer used, must be struck out, and nothing new may be added.
"""

import tomllib
from pathlib import Path

from techtree.tree.graph import load_tree
from techtree.tree.symbols import used_symbols
from tracked import ROOT, tracked_files

PACKAGE = ROOT / "src" / "techtree"
TREE = load_tree()
BORROWED = ("torch.nn", "torch.optim", "tokenizers", "safetensors", "transformers")
"""Where machine-learning parts lie. Plain tensors (`torch.*`) are opened by `tensor_autodiff`."""

MAX_DEBTS = 10
"""The number of debts the last time one was struck out; 13 when the list was begun. It may only shrink."""


def debts() -> dict[str, str]:
    """Symbol -> the planned technology that will open it."""
    return tomllib.loads(Path(__file__).with_name("debts.toml").read_text(encoding="utf-8"))["debts"]


def borrowed() -> set[str]:
    """Every borrowed symbol that the product uses."""
    towers = [PACKAGE / tower for tower in ("lm", "engines", "serve", "cli")]
    files = [
        path
        for path in tracked_files()
        if path.suffix == ".py" and any(path.is_relative_to(tower) for tower in towers)
    ]
    assert len(files) > 50
    symbols = {symbol for path in files for symbol in used_symbols(path.read_text(encoding="utf-8"))}
    # `from tokenizers import models` borrows nothing yet; `models.BPE` does.
    ends = {s for s in symbols if not any(other.startswith(f"{s}.") for other in symbols)}
    return {s for s in ends if any(s.startswith(f"{root}.") for root in BORROWED)}


def opened() -> set[str]:
    return {symbol for tech in TREE.written for symbol in tech.opens}


def is_opened(symbol: str) -> bool:
    """A technology that opens a class opens its attributes."""
    return any(symbol == one or symbol.startswith(f"{one}.") for one in opened())


def is_owed(symbol: str) -> bool:
    return any(symbol == one or symbol.startswith(f"{one}.") for one in debts())


def test_everything_borrowed_is_opened_or_owed():
    assert sorted(s for s in borrowed() if not is_opened(s) and not is_owed(s)) == []


def test_every_debt_is_still_owed():
    uses = borrowed()
    assert [s for s in debts() if not any(use == s or use.startswith(f"{s}.") for use in uses)] == []
    assert [s for s in debts() if is_opened(s)] == []
    assert {tech: TREE[tech].is_written for tech in debts().values()} == dict.fromkeys(
        debts().values(), False
    )


def test_the_list_only_shrinks():
    assert len(debts()) <= MAX_DEBTS
