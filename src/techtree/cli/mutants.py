"""`techtree mutants`: try a technology's tests on mechanical mutants of its implementation."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from techtree.tree.grading import grade
from techtree.tree.graph import load_tree


@dataclass(frozen=True)
class Config:
    """Try tests on mutants: ours with one operator, constant, condition or statement changed in each.

    Also on versions of each function that break what every function owes: the inputs unchanged, the same
    answer twice, large sizes. Exit with 1 when the tests accept one that `HARMLESS` in variants.py does not
    explain as the same program in other words.
    """

    techs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The technologies whose tests are tried."""

    seed: int = 0
    """Of the tests' random inputs."""


def run(config: Config) -> int:
    """Print what the tests accept, technology by technology."""
    tree = load_tree()
    n_survivors = 0
    for tech in [tree[name] for name in config.techs]:
        if not tech.is_written:
            print(f"{tech.id} is planned, not written")
            n_survivors += 1
            continue
        report = grade(tech, "mutants", config.seed, timeout_s=3600)
        wrong = [outcome for outcome in report.outcomes if not outcome.should_pass]
        problems = report.problems()
        print(f"{tech.id}: {len(wrong)} mutants, {len(problems)} accepted")
        for problem in problems:
            print(f"  {problem.removeprefix('the tests accept the ')}")
        n_survivors += len(problems)
    return 1 if n_survivors else 0
