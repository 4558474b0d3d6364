"""The map: the tree in a terminal, and as a picture."""

from collections.abc import Mapping
from html import escape

from techtree.tree.graph import Tree
from techtree.tree.technology import Technology

SIGNS = {"unlocked": "●", "stale": "◐", "open": "○", "locked": "·", "planned": "·"}
COLOURS = {"unlocked": "\x1b[32m", "stale": "\x1b[33m", "open": "\x1b[36m", "locked": "\x1b[2m", "planned": "\x1b[2m"}


def overview(tree: Tree, states: Mapping[str, str], in_colour: bool = False) -> str:
    """Return the whole tree, era by era: each written technology with its links, the planned ones by name.

    Parameters
    ----------
    tree
        The tree.
    states
        The state of each technology, as `certificate.state` gives it.
    in_colour
        Whether to use the terminal's colours.
    """
    n_unlocked = sum(state == "unlocked" for state in states.values())
    lines = [f"{n_unlocked} of {len(tree.technologies)} technologies unlocked   ● unlocked  ◐ stale  ○ open  · locked or planned"]
    width = max(len(tech.id) for tech in tree.technologies)
    for era in tree.eras:
        members = [tech for tech in tree.technologies if tech.era == era.id]
        if not members:
            continue
        lines += ["", f"{era.title}: {era.summary}"]
        for tech in members:
            if tech.is_written:
                line = f"  {SIGNS[states[tech.id]]} {tech.id:<{width}}  {_links(tree, tech)}"
                colour = COLOURS[states[tech.id]] if in_colour else ""
                lines.append(f"{colour}{line.rstrip()}\x1b[0m" if colour else line.rstrip())
        planned = [tech.id for tech in members if not tech.is_written]
        lines += _wrapped("  · " + ", ".join(planned), 100) if planned else []
    return "\n".join(lines)


def _links(tree: Tree, tech: Technology) -> str:
    needs = ", ".join(need.tech for need in tech.requires)
    leads = ", ".join(t.id for t in tree.leads_to(tech.id))
    return "   ".join(part for part in (needs and f"← {needs}", leads and f"→ {leads}") if part)


def _wrapped(text: str, width: int) -> list[str]:
    lines, words = [""], text.split(" ")
    for word in words:
        if len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] += word + " "
    return [line.rstrip() for line in lines]


def page(tree: Tree, tech: Technology, states: Mapping[str, str]) -> str:
    """Return one technology: its state, what it needs and why, what it opens, where it leads."""
    lines = [f"{SIGNS[states[tech.id]]} {tech.id} ({states[tech.id]}): {tech.title or tech.summary}"]
    if tech.title:
        lines += [f"  {tech.summary}", f"  about {tech.minutes} minutes; you write {', '.join(tech.exercise)}"]
    lines += [f"  needs     {SIGNS[states.get(n.tech, 'locked')]} {n.tech:<18} {n.why}" for n in tech.requires]
    lines += [f"  leads to  {SIGNS[states[t.id]]} {t.id:<18} {t.summary}" for t in tree.leads_to(tech.id)]
    lines += [f"  opens     {symbol}" for symbol in tech.opens]
    if tech.folder:
        lines.append(f"  read      {tech.file('README.md')}")
    return "\n".join(line.rstrip() for line in lines)


def picture(tree: Tree, states: Mapping[str, str]) -> str:
    """Return the tree as an SVG: eras as bands, prerequisites to the left of what stands on them."""
    raise NotImplementedError
