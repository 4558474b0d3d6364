"""The map: the tree in a terminal, and as a picture."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape

from techtree.tree.graph import Tree
from techtree.tree.layout import BOX_HEIGHT, BOX_WIDTH, Layout, layout
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


SHAPES = {
    "unlocked": ("M-4.5 .5l3 3.5l6-8", ""),
    "stale": ("M0-4.5a4.5 4.5 0 0 0 0 9a4.5 4.5 0 0 0 0-9", "M0-4.5a4.5 4.5 0 0 1 0 9z"),
    "open": ("M0-4.5a4.5 4.5 0 0 0 0 9a4.5 4.5 0 0 0 0-9", ""),
    "locked": ("M-2.5-1v-1.5a2.5 2.5 0 0 1 5 0v1.5", "M-4-1h8v5.5h-8z"),
    "planned": ("M-4.5 0h1.5M-.75 0h1.5M3 0h1.5", ""),
}
"""State -> the strokes and the filled part of its sign, around its middle: shapes tell states, too."""

ROUND = 5
"""Radius of a line's corners."""

TEXT_ROOM, MAX_LETTERS = BOX_WIDTH - 33, 15
"""For the name beside the sign; a name of more letters, which may need more in some font, is set into it."""

STYLE = """\
.map { font: 500 12px/1 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.map .paper { fill: var(--paper); }
.map .band { fill: var(--raised); }
.map .era { fill: var(--muted); font-size: 13px; font-weight: 650; text-anchor: middle; }
.map .edges { opacity: .6; }
.map .edge { fill: none; stroke: var(--muted); stroke-width: 1.2; }
.map .box text { fill: var(--ink); }
.map .sign, .map-sign { fill: none; stroke: var(--ink); stroke-width: 1.7; }
.map .sign, .map-sign { stroke-linecap: round; stroke-linejoin: round; }
.map .box rect { stroke-width: 1.2; }
.map .open rect { stroke-width: 2.4; }
.map .planned rect { stroke-dasharray: 4 3; }
"""
STATE_STYLE = """\
.map .{0} rect {{ fill: var(--{0}-fill); stroke: var(--{0}-line); }}
.map .{0} text {{ fill: var(--{0}-ink); }}
.map .{0} .sign, .map-sign.{0} {{ stroke: var(--{0}-ink); }}
.map .{0} .sign.solid, .map-sign.{0} .solid {{ fill: var(--{0}-ink); stroke: none; }}
"""
GOAL_STYLE = """\
.map .goal { fill: none; stroke: var(--accent); stroke-width: 2; }
.map .note { fill: var(--muted); }
"""
FOCUS_STYLE = """\
.map { max-width: none; }
.map a { cursor: pointer; text-decoration: none; }
.map a:focus-visible { outline: none; }
.map a.box:is(:hover, :focus-visible) rect { stroke: var(--accent); stroke-width: 3; }
.map a:is(:hover, :focus-visible) .era { fill: var(--accent); text-decoration: underline; }
.map:has(.box:is(:hover, :focus-visible)) .box { opacity: .3; }
.map:has(.box:is(:hover, :focus-visible)) .edges { opacity: 1; }
.map:has(.box:is(:hover, :focus-visible)) .edge { stroke-opacity: .18; }
"""
LIT_STYLE = """\
.map:has(#map-{0}:is(:hover, :focus-visible)) {{
  :is({1}) {{ opacity: 1; }}
  :is({2}) {{ stroke: var(--accent); stroke-opacity: 1; stroke-width: 2; }}
}}
"""

LIGHT = {
    "paper": "#fdfcfa",
    "raised": "#f6f4ef",
    "ink": "#1f1d1a",
    "muted": "#5f5a52",
    "accent": "#0f5c8c",
    "unlocked-fill": "#dcefdd",
    "unlocked-ink": "#14532d",
    "unlocked-line": "#5a9a66",
    "stale-fill": "#fbeac2",
    "stale-ink": "#6b4700",
    "stale-line": "#c08f24",
    "open-fill": "#d9ebf8",
    "open-ink": "#0b4468",
    "open-line": "#4f92bd",
    "locked-fill": "#f2f0eb",
    "locked-ink": "#5f5a52",
    "locked-line": "#b5afa3",
    "planned-fill": "#fdfcfa",
    "planned-ink": "#655f56",
    "planned-line": "#cdc7ba",
}
DARK = {
    "paper": "#17181a",
    "raised": "#1f2124",
    "ink": "#e6e3dc",
    "muted": "#a8a39a",
    "accent": "#8cc2ea",
    "unlocked-fill": "#1d3a26",
    "unlocked-ink": "#b9e6c3",
    "unlocked-line": "#4d8f5d",
    "stale-fill": "#40330f",
    "stale-ink": "#f3d894",
    "stale-line": "#a57d25",
    "open-fill": "#17344a",
    "open-ink": "#b5dbf5",
    "open-line": "#4a88b0",
    "locked-fill": "#26282b",
    "locked-ink": "#a8a39a",
    "locked-line": "#6a6d72",
    "planned-fill": "#17181a",
    "planned-ink": "#a19c92",
    "planned-line": "#55585d",
}
"""The colours of the pages, for the picture that stands alone."""


def picture(tree: Tree, states: Mapping[str, str]) -> str:
    """Return the tree as an SVG that stands alone: light, and dark where the reader's system is dark.

    Its style names colours, no variables, which not every program that shows SVG knows.
    """
    rules = _rules()
    in_colours = "\n".join(line for line in rules.splitlines() if "var(" in line)
    dark = f"@media (prefers-color-scheme: dark) {{\n{_painted(in_colours, DARK)}\n}}"
    style = f"<style>\n{_painted(rules, LIGHT)}{dark}\n</style>"
    return _drawn(tree, states, lambda _: None, lambda _: None, style) + "\n"


def svg(
    tree: Tree,
    states: Mapping[str, str],
    href: Callable[[Technology], str | None],
    era_href: Callable[[str], str | None] = lambda _: None,
) -> str:
    """Return the tree as an SVG within a page whose style sheet has `map_css`.

    Parameters
    ----------
    tree, states
        What is drawn, and the state of each technology.
    href
        Gives the link of a technology's box; None where it has none.
    era_href
        The same for the id of an era.
    """
    return _drawn(tree, states, href, era_href, "")


def map_css(tree: Tree) -> str:
    """Return the style of `svg`: its colours by the page's variables, and what a technology lights."""
    lit = []
    for tech in tree.technologies:
        above = [each.id for each in tree.ancestors(tech.id)]
        below = [t.id for t in tree.technologies if tech in tree.ancestors(t.id)]
        boxes = ",".join(f"#map-{name}" for name in [tech.id, *above, *below])
        lines = ",".join(
            [*(f".t-{name}" for name in [tech.id, *above]), *(f".f-{n}" for n in [tech.id, *below])]
        )
        lit.append(LIT_STYLE.format(tech.id, boxes, lines))
    return _rules() + FOCUS_STYLE + "".join(lit)


def sign(state: str) -> str:
    """Return the sign of a state as a small SVG, for a legend."""
    return (
        f'<svg class="map-sign {state}" viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">'
        f"{_sign(state)}</svg>"
    )


def _rules() -> str:
    return STYLE + "".join(STATE_STYLE.format(state) for state in SHAPES) + GOAL_STYLE


def _painted(rules: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"var\(--([a-z-]+)\)", lambda found: colours[found[1]], rules)


def _drawn(
    tree: Tree,
    states: Mapping[str, str],
    href: Callable[[Technology], str | None],
    era_href: Callable[[str], str | None],
    style: str,
) -> str:
    placed = layout(tree)
    width, height = placed.width, placed.height
    is_alone = bool(style)
    n_unlocked = sum(state == "unlocked" for state in states.values())
    label = f"Map of {len(tree.technologies)} technologies, {n_unlocked} unlocked"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="{"img" if is_alone else "group"}" aria-label="{label}">'
    ]
    if is_alone:
        parts += [
            style,
            f"<title>{label}</title>",
            f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
        ]
    titles = {era.id: era.title for era in tree.eras}
    for number, (era, top, bottom) in enumerate(placed.bands):
        if number % 2 == 0:
            parts.append(f'<rect class="band" y="{top}" width="{width}" height="{bottom - top}" rx="8"/>')
        turned = f'transform="translate(20 {(top + bottom) // 2}) rotate(-90)"'
        parts.append(_linked(f'<text class="era" {turned}>{escape(titles[era])}</text>', era_href(era)))
    parts += ['<g class="edges">', *_edges(placed), "</g>"]
    goal = max(tree.technologies, key=lambda tech: len(tree.ancestors(tech.id)), default=None)
    for tech in tree.technologies:
        x, y = placed.boxes[tech.id]
        parts.append(_box(tech, states[tech.id], href(tech), x, y))
        if tech is goal:
            parts.append(_goal(x, y, width))
    return "\n".join([*parts, "</svg>"])


def _linked(drawn: str, href: str | None) -> str:
    return f'<a href="{escape(href)}">{drawn}</a>' if href else drawn


def _edges(placed: Layout) -> list[str]:
    """Return a path for each bundle of lines that leave one technology and lead to the same."""
    bundles: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for line in placed.lines:
        bundles.setdefault((line.tech, line.leads_to), []).append(_rounded(line.points))
    return [
        f'<path class="edge f-{tech} {" ".join(f"t-{name}" for name in leads_to)}" d="{"".join(steps)}"/>'
        for (tech, leads_to), steps in bundles.items()
    ]


def _rounded(points: Sequence[tuple[int, int]]) -> str:
    """Return the path along points at right angles, its corners rounded.

    >>> _rounded([(0, 0), (0, 9)])
    'M0 0V9'
    >>> _rounded([(0, 0), (0, 9), (30, 9), (30, 20)])
    'M0 0V4Q0 9 5 9H25Q30 9 30 14V20'
    """
    steps = ["M{} {}".format(*points[0])]
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        radius = min(
            ROUND, *(abs(x - u) + abs(y - v) if v != y else abs(x - u) / 2 for u, v in (before, after))
        )
        (ax, ay), (bx, by) = (_towards((x, y), end, radius) for end in (before, after))
        steps.append(f"V{ay:g}" if ax == x else f"H{ax:g}")
        steps.append(f"Q{x} {y} {bx:g} {by:g}")
    (x0, _), (x, y) = points[-2:]
    steps.append(f"V{y}" if x0 == x else f"H{x}")
    return "".join(steps)


def _towards(start: tuple[int, int], end: tuple[int, int], by: float) -> tuple[float, float]:
    """Return the point ``by`` pixels away, in the direction of one of the axes."""
    (x, y), (u, v) = start, end
    return x + by * ((u > x) - (u < x)), y + by * ((v > y) - (v < y))


def _box(tech: Technology, state: str, href: str | None, x: int, y: int) -> str:
    fitted = (
        f' textLength="{TEXT_ROOM}" lengthAdjust="spacingAndGlyphs"' if len(tech.id) > MAX_LETTERS else ""
    )
    tag, link = ("a", f' href="{escape(href)}"') if href else ("g", "")
    return (
        f'<{tag} id="map-{tech.id}" class="box {state}"{link}>'
        f"<title>{escape(tech.id)} ({state}): {escape(tech.summary)}</title>"
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<g transform="translate({x + 14} {y + BOX_HEIGHT // 2})">{_sign(state)}</g>'
        f'<text x="{x + 26}" y="{y + BOX_HEIGHT // 2 + 4}"{fitted}>{escape(tech.id)}</text></{tag}>'
    )


def _sign(state: str) -> str:
    stroked, filled = SHAPES[state]
    solid = f'<path class="sign solid" d="{filled}"/>' if filled else ""
    return f'{solid}<path class="sign" d="{stroked}"/>'


def _goal(x: int, y: int, width: int) -> str:
    """Return a ring around the box of what all the rest leads to, and a word beside it."""
    is_right = x + BOX_WIDTH + 80 < width
    at, anchor = (x + BOX_WIDTH + 14, "start") if is_right else (x - 14, "end")
    return (
        f'<rect class="goal" x="{x - 5}" y="{y - 5}" width="{BOX_WIDTH + 10}"'
        f' height="{BOX_HEIGHT + 10}" rx="10"/>'
        f'<text class="note" x="{at}" y="{y + BOX_HEIGHT // 2 + 4}" text-anchor="{anchor}">the goal</text>'
    )
