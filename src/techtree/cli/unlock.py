"""`techtree unlock`: verify the four rules and issue the certificates."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from techtree.tree.certificate import certificates, read_certificates, write_certificates
from techtree.tree.graph import TECHS, load_tree
from techtree.tree.rules import RULES, Verdict, verify


@dataclass(frozen=True)
class Config:
    """Verify the four unlock rules; exit with 1 when a technology breaks one.

    A technology is unlocked when it has a description, unlocked prerequisites, an own implementation,
    and unit tests that accept it and refuse every known mistake.
    """

    techs: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default=())
    """Verify these and what they stand on; all when left out."""


def run(config: Config) -> int:
    """Print each verdict as it comes, and write the certificates of those that are unlocked."""
    tree = load_tree()
    current = certificates(tree)
    verdicts = []
    for verdict in verify(tree, config.techs or None):
        print(_described(verdict), flush=True)
        verdicts.append(verdict)
    issued = {name: c for name, c in read_certificates(TECHS).items() if name in tree.by_id}
    for verdict in verdicts:
        issued.pop(verdict.tech.id, None)
        if verdict.is_unlocked:
            issued[verdict.tech.id] = current[verdict.tech.id]
    if issued != read_certificates(TECHS):
        _store(issued)
    n_unlocked = sum(verdict.is_unlocked for verdict in verdicts)
    print(f"{n_unlocked} of {len(verdicts)} technologies hold all four rules")
    return 0 if n_unlocked == len(verdicts) else 1


def _store(issued: dict[str, str]) -> None:
    try:
        write_certificates(TECHS, issued)
    except OSError as error:
        print(f"the certificates could not be written ({error.strerror}): the map keeps showing the old ones")


def _described(verdict: Verdict) -> str:
    if verdict.is_unlocked:
        return f"●  {verdict.tech.id}"
    lines = [f"✗  {verdict.tech.id}"]
    lines += [
        f"     {RULES[rule]}: {problem}" for rule, found in verdict.problems.items() for problem in found
    ]
    return "\n".join(lines)
