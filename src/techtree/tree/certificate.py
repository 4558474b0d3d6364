"""A certificate: the proof that the four rules held for exactly these sources.

A technology's certificate is a hash of what it consists of and of its prerequisites' certificates. When
something upstream is edited, the certificates below it no longer match: they are stale.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from techtree import atomic
from techtree.errors import InputError
from techtree.tree.description import LINKS
from techtree.tree.graph import Tree
from techtree.tree.import_rule import sources
from techtree.tree.technology import Technology

FILE = "certificates.json"


def certificates(tree: Tree) -> dict[str, str]:
    """Return the certificate that each written technology would have now."""
    current: dict[str, str] = {}
    described = ("tech.toml", "README.md", "variants.py")
    for tech in tree.written:
        upstream = [current.get(need.tech, "") for need in sorted(tech.requires, key=lambda need: need.tech)]
        current[tech.id] = digest([*(each.encode() for each in upstream), *_contents(tech, described)])
    return current


_JUDGES = ("aim.py", "battery.py", "conftest.py", "elsewhere.py")
"""What all technologies' tests stand on."""


def contract(tech: Technology) -> str:
    """Return the hash of what a version of a technology is judged by, without its prerequisites."""
    return digest(_contents(tech, ("tech.toml", "variants.py")))


def _contents(tech: Technology, named: Iterable[str]) -> list[bytes]:
    """Return what a certificate speaks of, each file after its name."""
    judged = [*sources(tech.file("")), *sorted(tech.file("").glob("test_*.py"))]
    judged += [tech.file(name) for name in named]
    judged += [tech.file("").parent.parent / name for name in _JUDGES]
    # The generated links of a page tell of other technologies, not of this one.
    end = LINKS.encode()
    return [
        part
        for path in judged
        if path.is_file()
        for part in (path.name.encode(), path.read_bytes().partition(end)[0])
    ]


def digest(parts: Iterable[bytes]) -> str:
    """Return a hash of a list of byte strings, and not only of their concatenation."""
    # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
    joined = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hashlib.sha256(joined).hexdigest()[:32]


def read_certificates(root: Path) -> dict[str, str]:
    """Return the certificates that were issued for the tree in ``root``; none when there is no file."""
    path = root / FILE
    if not path.is_file():
        return {}
    try:
        issued = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        issued = None
    if not isinstance(issued, dict) or not all(isinstance(value, str) for value in issued.values()):
        raise InputError(f"{path} must map technologies to certificates: delete it and run techtree unlock")
    return issued


def write_certificates(root: Path, issued: Mapping[str, str]) -> None:
    """Write the certificates of the tree in ``root``."""
    atomic.write_text(root / FILE, json.dumps(dict(sorted(issued.items())), indent=1) + "\n")


def states(tree: Tree) -> dict[str, str]:
    """Return how each technology stands by the certificates beside the tree; see `state`."""
    issued, current = read_certificates(tree.root), certificates(tree)
    return {tech.id: state(tree, tech, issued, current) for tech in tree.technologies}


def state(tree: Tree, tech: Technology, issued: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return how a technology stands: ``unlocked``, ``stale``, ``open``, ``locked`` or ``planned``.

    Open means that its prerequisites are unlocked, and it can be worked on now.
    """
    if not tech.is_written:
        return "planned"
    if tech.id in issued:
        return "unlocked" if issued[tech.id] == current[tech.id] else "stale"
    needs = [tree.by_id.get(need.tech) for need in tech.requires]
    ready = all(n is not None and n.is_written and issued.get(n.id) == current[n.id] for n in needs)
    return "open" if ready else "locked"
