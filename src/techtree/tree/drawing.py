"""The map: the tree in a terminal, and as a picture."""

from collections.abc import Mapping
from html import escape

from techtree.tree.graph import Tree
from techtree.tree.layout import BOX_HEIGHT, BOX_WIDTH, layout
from techtree.tree.technology import Technology

SIGNS = {"unlocked": "●", "stale": "◐", "open": "○", "locked": "·", "planned": "·"}
COLOURS = {
    "unlocked": "\x1b[32m",
    "stale": "\x1b[33m",
    "open": "\x1b[36m",
    "locked": "\x1b[2m",
    "planned": "\x1b[2m",
}


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
    lines = [
        f"{n_unlocked} of {len(tree.technologies)} technologies unlocked   "
        "● unlocked  ◐ stale  ○ open  · locked or planned"
    ]
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
        lines += [
            f"  {tech.summary}",
            f"  about {tech.minutes} minutes; you write {', '.join(tech.exercise)}",
        ]
    lines += [
        f"  needs     {SIGNS[states.get(n.tech, 'locked')]} {n.tech:<18} {n.why}" for n in tech.requires
    ]
    lines += [f"  leads to  {SIGNS[states[t.id]]} {t.id:<18} {t.summary}" for t in tree.leads_to(tech.id)]
    lines += [f"  opens     {symbol}" for symbol in tech.opens]
    if tech.folder:
        lines.append(f"  read      {tech.file('README.md')}")
    return "\n".join(line.rstrip() for line in lines)


PAINT = {
    "unlocked": ("#1a7f37", "#ffffff", "#1a7f37"),
    "stale": ("#bf8700", "#ffffff", "#bf8700"),
    "open": ("#ddf4ff", "#0550ae", "#0969da"),
    "locked": ("#ffffff", "#59636e", "#8c959f"),
    "planned": ("#ffffff", "#59636e", "#d1d9e0"),
}
"""State -> fill, text and border."""


def picture(tree: Tree, states: Mapping[str, str]) -> str:
    """Return the tree as an SVG: eras as bands, and prerequisites above what stands on them."""
    placed = layout(tree)
    titles = {era.id: era.title for era in tree.eras}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {placed.width} {placed.height}"'
        f' width="{placed.width}" height="{placed.height}"'
        ' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">',
        f"<title>The tree: {len(tree.technologies)} technologies</title>",
        f'<rect width="{placed.width}" height="{placed.height}" rx="8" fill="#f6f8fa"/>',
    ]
    for number, (era, top, bottom) in enumerate(placed.bands):
        if number % 2:
            band = f'<rect y="{top}" width="{placed.width}" height="{bottom - top}" fill="#eaeef2"/>'
            parts.append(band)
        parts.append(
            f'<text x="12" y="{top + 19}" font-weight="bold" fill="#1f2328">{escape(titles[era])}</text>'
        )
    drawn = dict.fromkeys(
        (points[n], points[n + 1]) for _, points in placed.lines for n in range(len(points) - 1)
    )
    steps = "".join(f"M{x0} {y0}L{x1} {y1}" for (x0, y0), (x1, y1) in drawn)
    parts.append(f'<path d="{steps}" fill="none" stroke="#8c959f"/>')
    parts += [_box(tech, states[tech.id], *placed.boxes[tech.id]) for tech in tree.technologies]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(tech: Technology, state: str, x: int, y: int) -> str:
    fill, ink, border = PAINT[state]
    return (
        f"<g><title>{escape(tech.id)} ({state}): {escape(tech.summary)}</title>"
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"'
        f' fill="{fill}" stroke="{border}"/>'
        f'<text x="{x + BOX_WIDTH // 2}" y="{y + 16}" text-anchor="middle" fill="{ink}">'
        f"{escape(tech.id)}</text></g>"
    )
