"""`techtree map`: the tree in the terminal, or as a picture."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from techtree import atomic, streams
from techtree.learn import workspace
from techtree.tree import certificate, drawing
from techtree.tree.graph import load_tree


@dataclass(frozen=True)
class Config:
    """Draw the tree: what is unlocked, stale, open, locked or planned.

    In a learner's workspace (`techtree learn`) that is said of the learner's own versions, elsewhere of ours.
    """

    tech: Annotated[str, tyro.conf.Positional] = ""
    """Show this technology alone: what it needs and why, what it opens, where it leads."""

    svg: Path | None = None
    """Write the picture of the tree to this file instead."""


def run(config: Config) -> int:
    """Print the map, or write it."""
    tree = load_tree()
    mine = workspace.find(Path.cwd(), tree) if config.svg is None else None
    states = certificate.states(tree) if mine is None else mine.states()
    if config.svg is not None:
        atomic.write_text(config.svg, drawing.picture(tree, states))
    elif config.tech:
        print(drawing.page(tree, tree[config.tech], states))
    else:
        in_colour = not streams.is_plain(sys.stdout)
        print(drawing.overview(tree, states, in_colour=in_colour), file=streams.drawing(sys.stdout))
    return 0
