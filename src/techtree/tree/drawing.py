"""The map: the tree in a terminal, and as a picture."""

from collections.abc import Mapping
from html import escape

from techtree.tree.graph import Tree
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


COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT, TOP = 142, 30, 128, 21, 46
"""Sizes of the picture in pixels: the pitch of eras and of rows, a box, and the space for the titles."""

PAINT = {
    "unlocked": ("#1a7f37", "#ffffff", "#1a7f37"),
    "stale": ("#bf8700", "#ffffff", "#bf8700"),
    "open": ("#ddf4ff", "#0550ae", "#0969da"),
    "locked": ("#ffffff", "#59636e", "#8c959f"),
    "planned": ("#ffffff", "#59636e", "#d1d9e0"),
}
"""State -> fill, text and border."""


def picture(tree: Tree, states: Mapping[str, str]) -> str:
    """Return the tree as an SVG: a column for each era, prerequisites above what stands on them."""
    places, height = _places(tree)
    width = COLUMN * len(tree.eras)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}"'
        ' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">',
        f"<title>The tree: {len(tree.technologies)} technologies</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#f6f8fa"/>',
    ]
    for column, era in enumerate(tree.eras):
        x = column * COLUMN
        if column % 2:
            parts.append(f'<rect x="{x}" width="{COLUMN}" height="{height}" fill="#eef1f4"/>')
        title = f'<text x="{x + COLUMN // 2}" y="27" text-anchor="middle" font-weight="bold" fill="#1f2328">'
        parts.append(f"{title}{escape(era.title)}</text>")
    parts += [
        _edge(places[n.tech], places[t.id]) for t in tree.technologies for n in t.requires if n.tech in places
    ]
    parts += [_box(tech, states[tech.id], *places[tech.id]) for tech in tree.technologies]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(tree: Tree) -> tuple[dict[str, tuple[int, int]], int]:
    """Return where each box's upper left corner lies, and the height of the whole.

    A technology's depth is the longest way to it; each depth takes as many rows as its fullest era needs.
    """
    depth: dict[str, int] = {}
    for tech in tree.technologies:
        depth[tech.id] = max((depth[n.tech] + 1 for n in tech.requires if n.tech in depth), default=0)
    places, y = {}, TOP
    for level in range(max(depth.values()) + 1):
        stacks = [
            [t for t in tree.technologies if t.era == era.id and depth[t.id] == level] for era in tree.eras
        ]
        for column, stack in enumerate(stacks):
            for row, tech in enumerate(stack):
                places[tech.id] = (column * COLUMN + (COLUMN - BOX_WIDTH) // 2, y + row * ROW)
        y += ROW * max(len(stack) for stack in stacks) + 8
    return places, y + 8


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Draw from box to box; within a column along its left side, so that no box hides the line."""
    (x0, y0), (x1, y1) = start, end
    if x0 == x1 and y1 - y0 > ROW + 8:
        y0, y1 = y0 + BOX_HEIGHT // 2, y1 + BOX_HEIGHT // 2
        curve = f"M{x0} {y0}C{x0 - 9} {y0 + 12} {x0 - 9} {y1 - 12} {x1} {y1}"
    else:
        x0, y0, x1 = x0 + BOX_WIDTH // 2, y0 + BOX_HEIGHT, x1 + BOX_WIDTH // 2
        bend = max(6, (y1 - y0) // 2)
        curve = f"M{x0} {y0}C{x0} {y0 + bend} {x1} {y1 - bend} {x1} {y1}"
    return f'<path d="{curve}" fill="none" stroke="#afb8c1"/>'


def _box(tech: Technology, state: str, x: int, y: int) -> str:
    fill, ink, border = PAINT[state]
    return (
        f"<g><title>{escape(tech.id)} ({state}): {escape(tech.summary)}</title>"
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4"'
        f' fill="{fill}" stroke="{border}"/>'
        f'<text x="{x + BOX_WIDTH // 2}" y="{y + 14}" text-anchor="middle" fill="{ink}">'
        f"{escape(tech.id)}</text></g>"
    )
