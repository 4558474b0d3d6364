"""The graph of technologies: load it, look things up, walk it in order."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from techtree.errors import InputError, did_you_mean
from techtree.tree.technology import Requirement, Technology, load_technology, read_toml

TECHS = Path(__file__).parent.parent / "techs"
"""The folder of the tree that this package ships."""


@dataclass(frozen=True)
class Era:
    """A named stretch of the tree."""

    id: str
    title: str
    summary: str


@dataclass(frozen=True)
class Tree:
    """All technologies, written and planned, in the order of their prerequisites.

    A technology may name a prerequisite that does not exist: that breaks an unlock rule, not the tree.
    """

    root: Path
    eras: tuple[Era, ...]
    technologies: tuple[Technology, ...]

    @cached_property
    def by_id(self) -> dict[str, Technology]:
        """Each technology under its id."""
        return {tech.id: tech for tech in self.technologies}

    @cached_property
    def written(self) -> tuple[Technology, ...]:
        """The technologies that have a folder, in order."""
        return tuple(tech for tech in self.technologies if tech.is_written)

    def __getitem__(self, tech_id: str) -> Technology:
        """Return one technology.

        Raises
        ------
        InputError
            When there is none of that name; the message names the nearest one.
        """
        if tech_id not in self.by_id:
            hint = did_you_mean(tech_id, self.by_id)
            raise InputError(f"unknown technology {tech_id!r}{hint} (techtree map lists all)")
        return self.by_id[tech_id]

    def ancestors(self, tech_id: str) -> tuple[Technology, ...]:
        """Return everything that a technology stands on, in order, without itself."""
        found: set[str] = set()
        waiting = [need.tech for need in self[tech_id].requires]
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.by_id:
                found.add(name)
                waiting.extend(need.tech for need in self.by_id[name].requires)
        return tuple(tech for tech in self.technologies if tech.id in found)

    def leads_to(self, tech_id: str) -> tuple[Technology, ...]:
        """Return the technologies that name this one as a direct prerequisite, in order."""
        return tuple(t for t in self.technologies if any(need.tech == tech_id for need in t.requires))

    def redundant_edges(self) -> list[tuple[str, str]]:
        """Return the edges (technology, prerequisite) that a longer path already implies."""
        return [
            (tech.id, need.tech)
            for tech in self.technologies
            for need in tech.requires
            for other in tech.requires
            if other.tech in self.by_id and need.tech in {a.id for a in self.ancestors(other.tech)}
        ]


def load_tree(root: Path = TECHS) -> Tree:
    """Read every `tech.toml` below ``root`` and the plan of those that are not written yet.

    Parameters
    ----------
    root
        A folder laid out as ``<era>/<technology>/tech.toml``, with ``plan.toml`` on top.

    Raises
    ------
    InputError
        When a file is malformed, an era is unknown, an id occurs twice, or there is a cycle.
    """
    if not (root / "plan.toml").is_file():
        raise InputError(f"a tree needs the file plan.toml; there is none in {root}")
    plan = read_toml(root / "plan.toml")
    eras = tuple(Era(id=name, **table) for name, table in plan["eras"].items())
    written = [load_technology(path.parent) for path in sorted(root.glob("*/*/tech.toml"))]
    planned = [_planned(name, table) for name, table in plan["technologies"].items()]
    for tech in written:
        if tech.era not in plan["eras"]:
            raise InputError(f"{tech.folder}: unknown era {tech.era!r}{did_you_mean(tech.era, plan['eras'])}")
    names = {tech.id for tech in written}
    everything = written + [tech for tech in planned if tech.id not in names]
    if len({tech.id for tech in everything}) < len(everything):
        raise InputError(f"two folders below {root} hold a technology of the same name")
    return Tree(root, eras, tuple(_in_order(everything, [era.id for era in eras])))


def _planned(name: str, table: dict) -> Technology:
    requires = tuple(Requirement(tech, "") for tech in table["requires"])
    return Technology(id=name, era=table["era"], summary=table["summary"], requires=requires)


def _in_order(technologies: Iterable[Technology], eras: list[str]) -> list[Technology]:
    """Sort so that prerequisites come first; among those that are free, by era and then by name."""
    waiting = {tech.id: tech for tech in technologies}
    known, ordered = set(waiting), []
    while waiting:
        free = [
            t for t in waiting.values() if not any(n.tech in waiting for n in t.requires if n.tech in known)
        ]
        if not free:
            raise InputError(
                f"the prerequisites must not form a cycle; these do: {', '.join(sorted(waiting))}"
            )
        following = min(free, key=lambda tech: (eras.index(tech.era), tech.id))
        ordered.append(waiting.pop(following.id))
    return ordered
