"""`python -m techtree.techs.answering FOLDER`: what a technology's versions say to its probes, as JSON."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np

from techtree.tree.answers import ask
from techtree.tree.subject import Subject, graders, load, load_variants
from techtree.tree.technology import load_technology


def main(folder: Path) -> None:
    """Print the answers of our version and of every mistake, on one line."""
    tech = load_technology(folder)
    variants = load_variants(tech)

    def answers(version: Subject) -> dict[str, object]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return ask(variants.probes(np.random.default_rng(0)), load(tech, version))

    versions = {each.name: each for each in graders(tech)}
    mistakes = [name for name in versions if name.startswith("mistake: ")]
    said = {name.removeprefix("mistake: "): answers(versions[name]) for name in mistakes}
    print(json.dumps({"own": answers(versions["own"]), "mistakes": said}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
