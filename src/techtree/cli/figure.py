"""`techtree figure TECH`: run a technology's experiment, check its claim, draw its figure."""

import io
import json
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import tyro

from techtree import atomic
from techtree.errors import InputError
from techtree.tree.graph import load_tree

STYLE: dict[Any, object] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "techtree",  # ids in the file are the same at every run
}
"""The look of every figure of the tree."""


@dataclass(frozen=True)
class Config:
    """Run a technology's experiment at full scale, check what its page claims, and draw its figure."""

    tech: Annotated[str, tyro.conf.Positional]
    """The technology, e.g. numerics."""


def run(config: Config) -> int:
    """Write figure.json and figure.svg into the technology's folder."""
    tech = load_tree()[config.tech]
    if not tech.is_written:
        raise InputError(f"{tech.id} must be written to have a figure; it is planned")
    import matplotlib as mpl
    import numpy as np

    mpl.use("svg")
    experiment = import_module(f"{tech.module}.experiment")
    start = time.monotonic()
    numbers = json.loads(json.dumps(experiment.run(np.random.default_rng(0), 1.0)))
    print(f"{tech.id}: the experiment took {time.monotonic() - start:.1f} s")
    experiment.claim(numbers)
    svg = io.BytesIO()
    with mpl.rc_context(STYLE):
        experiment.plot(numbers).savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    atomic.write_text(tech.file("figure.json"), json.dumps(numbers, indent=1) + "\n")
    atomic.write_bytes(tech.file("figure.svg"), svg.getvalue())
    print(f"{tech.id}: the claim holds; wrote figure.json and figure.svg")
    return 0
