"""Where everything on the picture of the tree lies: boxes in rows, edges in channels between the rows.

Eras are bands from top to bottom, and within a band what stands on something lies below it. All edges of one
technology share a trunk: from row to row it is one line, which branches where an edge leaves it. In each
channel the trunk is one horizontal line on a track of its own, so that no edge runs through a box.

The order within the rows decides how many lines cross. It is searched for by `search` (a barycentre start,
then moves of single slots, from fixed seeds) and kept in ``map.json`` beside the tree, so that a new
technology takes a place between the others and moves none of them. ``python -m techtree.tree.layout``
searches anew.
"""

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from techtree import atomic
from techtree.tree.graph import Tree, load_tree

ORDER = "map.json"
MAX_BOXES = 5
"""In one row of a new layout; a technology that comes later may be the sixth."""

BOX_WIDTH, BOX_HEIGHT = 128, 24
GAP, TRUNK, TRACK = 14, 8, 6
"""Between boxes, of a trunk that passes through a row, and between two tracks of a channel, in pixels."""

TITLE = 30
"""Above the first row of an era."""

Slot = tuple[str, bool]
"""A technology's box (True), or the trunk of its edges on its way through a row (False)."""


@dataclass(frozen=True)
class Row:
    """One row of boxes and passing trunks, from left to right."""

    era: str
    slots: list[Slot]


@dataclass
class Net:
    """A technology's edges in one channel: down from ``source``, along a track, down to the targets.

    ``targets`` maps the x of each to what it is: a box, or the trunk that goes on.
    """

    tech: str
    source: int
    targets: dict[int, Slot]
    y: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """The least and the largest x."""
        return min(self.source, *self.targets), max(self.source, *self.targets)


@dataclass
class Layout:
    """The finished layout, in pixels: corners of boxes, nets of each channel, bands of the eras, lines."""

    width: int
    height: int
    boxes: dict[str, tuple[int, int]]
    channels: list[tuple[int, int, list[Net]]]
    bands: list[tuple[str, int, int]]
    lines: list[tuple[str, list[tuple[int, int]]]] = field(default_factory=list)

    def crossings(self) -> int:
        """Count the places where lines of different technologies cross, on the drawn picture."""
        across = [(s, line) for s, line in self._pieces() if line[0][1] == line[1][1]]
        down = [(s, line) for s, line in self._pieces() if line[0][0] == line[1][0]]
        return sum(
            a != b and min(p[0], q[0]) < u[0] < max(p[0], q[0]) and min(u[1], v[1]) < p[1] < max(u[1], v[1])
            for a, (p, q) in across
            for b, (u, v) in down
        )

    def _pieces(self) -> Iterator[tuple[str, tuple[tuple[int, int], tuple[int, int]]]]:
        for tech, points in self.lines:
            for piece in itertools.pairwise(points):
                yield tech, piece


def rows_of(tree: Tree) -> list[tuple[str, list[str]]]:
    """Return era and technologies of each row: in an era by the longest way, few enough for a row."""
    depth: dict[str, int] = {}
    for tech in tree.technologies:
        inside = [n.tech for n in tech.requires if n.tech in depth and tree.by_id[n.tech].era == tech.era]
        depth[tech.id] = max((depth[name] + 1 for name in inside), default=0)
    found = []
    for era in tree.eras:
        members = [tech.id for tech in tree.technologies if tech.era == era.id]
        for level in range(max((depth[name] for name in members), default=-1) + 1):
            at = [name for name in members if depth[name] == level]
            n_rows = -(-len(at) // MAX_BOXES)
            size = -(-len(at) // n_rows)
            found += [(era.id, at[start : start + size]) for start in range(0, len(at), size)]
    return found


def _with_trunks(tree: Tree, rows: Sequence[tuple[str, Sequence[str]]]) -> list[Row]:
    """Add the trunks that pass through each row: between a technology and the last that it leads to."""
    where = {name: index for index, (_, names) in enumerate(rows) for name in names}
    found = [Row(era, [(name, True) for name in names]) for era, names in rows]
    for name, start in where.items():
        last = max((where[later.id] for later in tree.leads_to(name)), default=start)
        for index in range(start + 1, last):
            found[index].slots.append((name, False))
    return found


def _segments(tree: Tree, rows: Sequence[Row]) -> list[list[tuple[Slot, Slot]]]:
    """Return, for each pair of neighbouring rows, which slot is joined to which."""
    found = []
    for upper, lower in itertools.pairwise(rows):
        above = {name: (name, is_box) for name, is_box in upper.slots}
        joined = []
        for name, is_box in lower.slots:
            if is_box:
                needs = [need.tech for need in tree[name].requires if need.tech in above]
                joined += [(above[need], (name, True)) for need in needs]
            else:
                joined.append((above[name], (name, False)))
        found.append(joined)
    return found


def _crossings(
    segments: Sequence[tuple[Slot, Slot]], upper: Mapping[Slot, int], lower: Mapping[Slot, int]
) -> int:
    """Count the pairs of segments of different technologies that cross between two rows."""
    placed = sorted((upper[a], lower[b], a[0]) for a, b in segments)
    return sum(x < u and y > v and s != t for (x, y, s), (u, v, t) in itertools.combinations(placed, 2))


def search(tree: Tree, n_starts: int = 6) -> list[Row]:
    """Search the order of the slots in each row with the fewest crossings on the drawn picture."""
    best: tuple[int, int, list[Row]] | None = None
    for seed in range(n_starts):
        chance = random.Random(seed)
        rows = _with_trunks(tree, rows_of(tree))
        for row in rows:
            chance.shuffle(row.slots)
        segments = _segments(tree, rows)
        for sweep in range(12):
            _sweep(rows, segments, downwards=sweep % 2 == 0)
        while _exchange(rows, segments):
            pass
        found = (_laid_out(tree, rows).crossings(), seed, rows)
        best = found if best is None else min(best, found, key=lambda each: each[:2])
    assert best is not None
    return best[2]


def _places(row: Row) -> dict[Slot, int]:
    return {slot: index for index, slot in enumerate(row.slots)}


def _sweep(rows: Sequence[Row], segments: Sequence[list[tuple[Slot, Slot]]], downwards: bool) -> None:
    """Sort each row by the average place of what its slots are joined to in the row before."""
    order = range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1)
    for index in order:
        fixed = _places(rows[index - 1 if downwards else index + 1])
        near: dict[Slot, list[int]] = {}
        for a, b in segments[index - 1 if downwards else index]:
            own, other = (b, a) if downwards else (a, b)
            near.setdefault(own, []).append(fixed[other])
        own_places = _places(rows[index])
        scale = len(fixed) / max(len(own_places), 1)
        centre = {
            slot: sum(near[slot]) / len(near[slot]) if slot in near else place * scale
            for slot, place in own_places.items()
        }
        rows[index].slots.sort(key=lambda slot: (centre[slot], own_places[slot]))


def _exchange(rows: Sequence[Row], segments: Sequence[list[tuple[Slot, Slot]]]) -> bool:
    """Move single slots within their rows where that saves crossings; tell whether any did."""
    improved = False
    for index, row in enumerate(rows):
        around = [n for n in (index - 1, index) if 0 <= n < len(segments)]

        def cost(around=around) -> int:
            return sum(_crossings(segments[n], _places(rows[n]), _places(rows[n + 1])) for n in around)

        least = cost()
        for slot in list(row.slots):
            start = best_at = row.slots.index(slot)
            row.slots.remove(slot)
            for at in range(len(row.slots) + 1):
                row.slots.insert(at, slot)
                now = cost()
                if now < least:
                    least, best_at, improved = now, at, True
                del row.slots[at]
            row.slots.insert(best_at if best_at != start else start, slot)
    return improved


def read_order(root: Path) -> list[tuple[str, list[Slot]]]:
    """Return era and slots of each row as they are kept beside the tree; nothing where they are not."""
    path = root / ORDER
    if not path.is_file():
        return []
    return [
        (era, [(name, is_box) for name, is_box in slots])
        for era, slots in json.loads(path.read_text("utf-8"))
    ]


def ordered_rows(tree: Tree) -> list[Row]:
    """Return the rows in the order that is kept; what is new takes the place with the fewest crossings."""
    kept = read_order(tree.root)
    if not kept:
        return search(tree)
    row_of = {name: index for index, (_, slots) in enumerate(kept) for name, is_box in slots if is_box}
    rows: list[tuple[str, list[str]]] = [
        (era, [n for n, is_box in slots if is_box and n in tree.by_id]) for era, slots in kept
    ]
    new = [tech for tech in tree.technologies if tech.id not in row_of]
    for tech in new:
        band = [index for index, (era, _) in enumerate(rows) if era == tech.era]
        above = max((row_of[n.tech] for n in tech.requires if n.tech in row_of), default=-1)
        below = [index for index in band if index > above]
        if not below:
            return search(tree)
        row_of[tech.id] = below[0]
        rows[below[0]][1].append(tech.id)
    found = _with_trunks(tree, rows)
    order = [{slot: place for place, slot in enumerate(slots)} for _, slots in kept]
    late = []
    for row, known in zip(found, order, strict=True):
        late += [(row, slot) for slot in row.slots if slot not in known]
        row.slots[:] = sorted((slot for slot in row.slots if slot in known), key=lambda slot: known[slot])
    _insert(tree, found, late)
    return found


def _insert(tree: Tree, rows: list[Row], late: list[tuple[Row, Slot]]) -> None:
    """Put slots where they make the fewest crossings, one after the other."""
    for row, slot in late:
        row.slots.append(slot)
    segments = _segments(tree, rows)
    for row, slot in late:
        index = rows.index(row)
        around = [n for n in (index - 1, index) if 0 <= n < len(segments)]
        costs = []
        row.slots.remove(slot)
        for at in range(len(row.slots) + 1):
            row.slots.insert(at, slot)
            cost = sum(_crossings(segments[n], _places(rows[n]), _places(rows[n + 1])) for n in around)
            costs.append((cost, at))
            del row.slots[at]
        row.slots.insert(min(costs)[1], slot)


def layout(tree: Tree) -> Layout:
    """Return where everything lies."""
    return _laid_out(tree, ordered_rows(tree))


def _laid_out(tree: Tree, rows: Sequence[Row]) -> Layout:
    segments = _segments(tree, rows)
    xs, width = _columns(rows, segments)
    found = Layout(width, 0, {}, [], [])
    y = TITLE
    for index, row in enumerate(rows):
        if not found.bands or found.bands[-1][0] != row.era:
            found.bands.append((row.era, y - TITLE, 0))
        for slot in row.slots:
            if slot[1]:
                found.boxes[slot[0]] = (xs[index][slot] - BOX_WIDTH // 2, y)
        top = y + BOX_HEIGHT
        nets = _nets(index, xs, segments) if index < len(segments) else []
        n_tracks = _put_on_tracks(nets)
        for net in nets:
            net.y = top + TRACK * (net.y + 2)
        y = top + TRACK * (n_tracks + 4)
        era, start, _ = found.bands[-1]
        found.bands[-1] = (era, start, y)
        if index + 1 < len(rows) and rows[index + 1].era != row.era:
            y += TITLE
        found.channels.append((top, y, nets))
    found.height = y
    _draw_lines(found, rows, xs)
    return found


def _columns(
    rows: Sequence[Row], segments: Sequence[list[tuple[Slot, Slot]]]
) -> tuple[list[dict[Slot, int]], int]:
    """Return the x of each slot's middle, row by row: in order, apart, and near to what it is joined to."""

    def size(slot: Slot) -> int:
        return BOX_WIDTH + GAP if slot[1] else TRUNK

    width = max(sum(size(slot) for slot in row.slots) for row in rows) + 2 * GAP
    xs: list[dict[Slot, float]] = []
    for row in rows:
        free = (width - sum(size(slot) for slot in row.slots)) / (len(row.slots) + 1)
        x, at = free, {}
        for slot in row.slots:
            at[slot] = x + size(slot) / 2
            x += size(slot) + free
        xs.append(at)
    for sweep in range(40):
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for index in order:
            wanted: dict[Slot, list[float]] = {slot: [] for slot in rows[index].slots}
            if index:
                for a, b in segments[index - 1]:
                    wanted[b].append(xs[index - 1][a])
            if index < len(segments):
                for a, b in segments[index]:
                    wanted[a].append(xs[index + 1][b])
            aim = {slot: sum(w) / len(w) if w else xs[index][slot] for slot, w in wanted.items()}
            xs[index] = _apart(rows[index].slots, aim, size, width)
    return [{slot: round(x) for slot, x in at.items()} for at in xs], width


def _apart(slots: Sequence[Slot], aim: Mapping[Slot, float], size, width: int) -> dict[Slot, float]:
    """Return places as near to the aims as order and sizes allow; neighbours that touch move as one."""
    pools: list[list] = []  # [sum of (aim - offset), slots, length]
    for slot in slots:
        pools.append([aim[slot] - size(slot) / 2, [slot], size(slot)])
        while len(pools) > 1:
            (s1, a, l1), (s2, b, l2) = pools[-2:]
            if s1 / len(a) + l1 <= s2 / len(b):
                break
            pools[-2:] = [[s1 + s2 - l1 * len(b), a + b, l1 + l2]]
    found: dict[Slot, float] = {}
    end = GAP / 2
    for index, (total, members, length) in enumerate(pools):
        rest = sum(pool[2] for pool in pools[index + 1 :])
        x = min(max(total / len(members), end), width - GAP / 2 - rest - length)
        for slot in members:
            found[slot] = x + size(slot) / 2
            x += size(slot)
        end = x
    return found


def _nets(
    index: int, xs: Sequence[dict[Slot, int]], segments: Sequence[list[tuple[Slot, Slot]]]
) -> list[Net]:
    """Return the nets of the channel below row ``index``; edges enter a box side by side."""
    entering: dict[Slot, list[Slot]] = {}
    for a, b in segments[index]:
        entering.setdefault(b, []).append(a)
    nets: dict[str, Net] = {}
    for b, sources in entering.items():
        sources.sort(key=lambda slot: xs[index][slot])
        for place, a in enumerate(sources):
            x = xs[index + 1][b]
            if b[1]:
                x += round((place - (len(sources) - 1) / 2) * min(14, 96 / len(sources)))
            net = nets.setdefault(a[0], Net(a[0], xs[index][a], {}))
            taken = {
                other for each in nets.values() if each is not net for other in (each.source, *each.targets)
            }
            while x in taken and b[1]:
                x += 3
            net.targets[x] = b
    return list(nets.values())


def _put_on_tracks(nets: list[Net]) -> int:
    """Give each net a track so that few lines cross and none lies on another; return how many there are."""
    order: list[Net] = []
    for net in sorted(nets, key=lambda net: net.span[0] - net.span[1]):
        costs = []
        for at in range(len(order) + 1):
            costs.append((_crossings_of([*order[:at], net, *order[at:]]), at))
        order.insert(min(costs)[1], net)
    improved = True
    while improved:
        improved = False
        for at in range(len(order) - 1):
            other = [*order[:at], order[at + 1], order[at], *order[at + 2 :]]
            if _crossings_of(other) < _crossings_of(order):
                order, improved = other, True
    # Nets that do not meet may share a track.
    for net in order:
        net.y = 0
    for place, net in enumerate(order):
        low, high = net.span
        for before in order[:place]:
            a, b = before.span
            if a <= high + 4 and low <= b + 4:
                net.y = max(net.y, before.y + 1)
    return max((net.y for net in order), default=-1) + 1


def _crossings_of(order: Sequence[Net]) -> int:
    """Count the crossings in a channel whose tracks are in this order; lines on lines weigh more."""
    n = 0
    for place, net in enumerate(order):
        low, high = net.span
        for other in order[place + 1 :]:  # lower: its way down from the source crosses this track
            n += low < other.source < high
            a, b = other.span
            n += sum(a < x < b for x in net.targets)
            n += 1000 * (other.source in net.targets)
    return n


def _draw_lines(found: Layout, rows: Sequence[Row], xs: Sequence[dict[Slot, int]]) -> None:
    """Make the polylines: each net from its source to each target, and trunks through their rows."""
    for index, (top, bottom, nets) in enumerate(found.channels):
        for net in nets:
            for x in net.targets:
                points = [(net.source, top), (net.source, net.y), (x, net.y), (x, bottom)]
                found.lines.append((net.tech, points if x != net.source else [points[0], points[3]]))
        for name, is_box in rows[index].slots:
            if not is_box:
                x = xs[index][name, False]
                start = found.channels[index - 1][1] if index else top
                found.lines.append((name, [(x, start), (x, top)]))


def main() -> None:
    """Search the order anew and keep it."""
    tree = load_tree()
    rows = search(tree, n_starts=300)
    kept = [[row.era, [list(slot) for slot in row.slots]] for row in rows]
    lines = ",\n".join(json.dumps(row) for row in kept)
    atomic.write_text(tree.root / ORDER, f"[\n{lines}\n]\n")
    print(f"{layout(tree).crossings()} crossings")


if __name__ == "__main__":
    main()
