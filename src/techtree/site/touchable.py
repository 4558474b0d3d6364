"""What the pages take from the map and from the figures to touch."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from techtree.tree import drawing
from techtree.tree.graph import Tree
from techtree.tree.technology import Technology

FOLDER = Path(__file__).parent / "touch"


def map_of(tree: Tree, states: Mapping[str, str]) -> str:
    """Return the map as SVG, its boxes and the names of its eras linked."""
    return drawing.svg(tree, states, lambda tech: f"tech/{tech.id}.html", lambda era: f"era/{era}.html")


def assets() -> dict[str, Path]:
    """Return the scripts and the styles of the figures, under the names of their copies."""
    files = sorted([*FOLDER.glob("*.js"), *FOLDER.glob("*.css")])
    return {f"touch/{path.name}": path for path in files}


def section(tech: Technology) -> dict[str, Any] | None:
    """Return what the page of a technology gives its figure; None where there is no figure to touch."""
    if not (FOLDER / f"{tech.id}.js").is_file() or not (FOLDER / "data.py").is_file():
        return None
    made = importlib.import_module("techtree.site.touch.data").data(tech.id)
    # Within a script element only this could end it.
    return {"data": json.dumps(made, separators=(",", ":")).replace("</", "<\\/")}
