"""Where everything on the picture of the tree lies: boxes in rows, edges in channels between the rows.

Eras are bands from top to bottom, and within a band what stands on something lies below it. All edges of
one technology share a trunk: from row to row it is one line, straight as far as it can be, which branches
where an edge leaves it. In each channel the trunk is one horizontal line on a track of its own, so that no
edge runs through a box.

`ordering` says what stands in each row, from left to right. ``python -m techtree.tree.layout`` searches that
order anew, in some minutes.
"""

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from techtree.tree.graph import Tree, load_tree
from techtree.tree.ordering import (
    Joined,
    Row,
    Slot,
    joined_slots,
    keep_order,
    ordered_rows,
    rows_by_box,
    search,
)

BOX_WIDTH, BOX_HEIGHT = 132, 28
GAP, TRUNK, TRACK = 12, 9, 7
"""Between boxes, of a trunk that passes through a row, and between two tracks of a channel, in pixels."""

REACH, PORT = 46, 10
"""How far from a box's middle an edge may leave or enter it, and how far apart those that enter are."""

SPARE = 24
"""What the picture may be wider than its fullest row, so that trunks are straight."""

SWEEPS = 100
"""Of the search for the columns."""

STRIP, MARGIN = 34, 16
"""At the left, for the names of the eras; and above the first row of each."""


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


@dataclass(frozen=True)
class Line:
    """A piece of a technology's edges, through a channel or a row, and where it leads in the end."""

    tech: str
    points: list[tuple[int, int]]
    leads_to: tuple[str, ...]


@dataclass
class Layout:
    """The finished layout, in pixels: corners of boxes, nets of each channel, bands of the eras, lines."""

    width: int
    height: int
    boxes: dict[str, tuple[int, int]]
    channels: list[tuple[int, int, list[Net]]]
    bands: list[tuple[str, int, int]]
    lines: list[Line] = field(default_factory=list)

    def crossings(self) -> int:
        """Count the places on the drawn picture where lines of different technologies cross."""
        across = {(s, line) for s, line in self._pieces() if line[0][1] == line[1][1]}
        down = {(s, line) for s, line in self._pieces() if line[0][0] == line[1][0]}
        return len(
            {
                (u[0], p[1])
                for a, (p, q) in across
                for b, (u, v) in down
                if a != b
                and min(p[0], q[0]) < u[0] < max(p[0], q[0])
                and min(u[1], v[1]) < p[1] < max(u[1], v[1])
            }
        )

    def _pieces(self) -> Iterator[tuple[str, tuple[tuple[int, int], tuple[int, int]]]]:
        for line in self.lines:
            for piece in itertools.pairwise(line.points):
                yield line.tech, piece


def layout(tree: Tree) -> Layout:
    """Return where everything lies."""
    return _laid_out(tree, ordered_rows(tree))


def _laid_out(tree: Tree, rows: Sequence[Row]) -> Layout:
    segments = joined_slots(tree, rows)
    xs, width = _columns(rows, segments)
    found = Layout(width, 0, {}, [], [])
    y = MARGIN
    for index, row in enumerate(rows):
        if not found.bands or found.bands[-1][0] != row.era:
            found.bands.append((row.era, y - MARGIN, 0))
        for slot in row.slots:
            if slot[1]:
                found.boxes[slot[0]] = (xs[index][slot] - BOX_WIDTH // 2, y)
        top = y + BOX_HEIGHT
        nets = _nets(index, xs, segments) if index < len(segments) else []
        n_tracks = _put_on_tracks(nets)
        for net in nets:
            net.y = top + TRACK * (net.y + 2)
        y = top + (TRACK * (n_tracks + 3) if nets else MARGIN)
        era, start, _ = found.bands[-1]
        found.bands[-1] = (era, start, y)
        if index + 1 < len(rows) and rows[index + 1].era != row.era:
            y += MARGIN
        found.channels.append((top, y, nets))
    found.height = y
    _draw_lines(tree, found, rows, xs)
    return found


@dataclass(frozen=True)
class Room:
    """Where blocks can stand: ``left`` and ``right`` say what is beside each and how far, at least."""

    order: list[int]
    left: dict[int, dict[int, float]]
    right: dict[int, dict[int, float]]
    least: dict[int, float]
    most: dict[int, float]


def _size(slot: Slot) -> int:
    return BOX_WIDTH + GAP if slot[1] else TRUNK


def _columns(rows: Sequence[Row], segments: Sequence[Joined]) -> tuple[list[dict[Slot, int]], int]:
    """Return the x of each slot's middle, row by row: in order, apart, and where it was kept.

    What has no place yet comes near to what it is joined to.
    """
    width = STRIP + max(sum(_size(slot) for slot in row.slots) for row in rows) + GAP + SPARE
    blocks = _blocks(rows, segments, width)
    room = _room(rows, blocks, width)
    assert room is not None
    kept: dict[int, list[int]] = {}
    for row, at in zip(rows, blocks, strict=True):
        for slot in at.keys() & row.x.keys():
            kept.setdefault(at[slot], []).append(row.x[slot])
    near: dict[int, list[int]] = {block: [] for block in room.order}
    for index, joined in enumerate(segments):
        for a, b in joined:
            u, v = blocks[index][a], blocks[index + 1][b]
            if u != v:
                near[u].append(v)
                near[v].append(u)
    x = {block: (room.least[block] + room.most[block]) / 2 for block in room.order}
    home = {block: statistics.median_low(places) for block, places in kept.items()}
    for _ in range(SWEEPS):
        aim = {b: sum(x[n] for n in near[b]) / len(near[b]) if near[b] else x[b] for b in x} | home
        aim = {b: min(max(aim[b], room.least[b]), room.most[b]) for b in x}
        # What is too near is pushed to the right, or else to the left; half-way between, all is apart, too.
        high = _pushed(room.order, room.left, aim)
        low = _pushed(room.order[::-1], room.right, {b: -aim[b] for b in x})
        x = {b: (min(high[b], room.most[b]) + max(-low[b], room.least[b])) / 2 for b in x}
    return [{slot: round(x[at[slot]]) for slot in at} for at in blocks], width


def _room(rows: Sequence[Row], blocks: Sequence[Mapping[Slot, int]], width: int) -> Room | None:
    """Return where the blocks can stand within the width; None where they cannot."""
    left: dict[int, dict[int, float]] = {block: {} for at in blocks for block in at.values()}
    right: dict[int, dict[int, float]] = {block: {} for block in left}
    edge = dict.fromkeys(left, 0.0)
    for at, row in zip(blocks, rows, strict=True):
        for slot in row.slots:
            edge[at[slot]] = max(edge[at[slot]], STRIP + (GAP + _size(slot)) / 2)
        for a, b in itertools.pairwise(row.slots):
            apart = max((_size(a) + _size(b)) / 2, right[at[a]].get(at[b], 0))
            right[at[a]][at[b]] = left[at[b]][at[a]] = apart
    try:
        order = list(TopologicalSorter({block: list(left[block]) for block in left}).static_order())
    except CycleError:
        return None
    least = _pushed(order, left, edge)
    most = {block: width + STRIP - x for block, x in _pushed(order[::-1], right, edge).items()}
    return Room(order, left, right, least, most) if all(least[b] <= most[b] for b in order) else None


def _pushed(
    order: Sequence[int], before: Mapping[int, Mapping[int, float]], aim: Mapping[int, float]
) -> dict[int, float]:
    """Return the least places that are not below the aims, and as far beyond those before as these ask."""
    found: dict[int, float] = {}
    for block in order:
        found[block] = max([aim[block], *(found[each] + apart for each, apart in before[block].items())])
    return found


def _blocks(rows: Sequence[Row], segments: Sequence[Joined], width: int) -> list[dict[Slot, int]]:
    """Return the block of each slot, row by row: as much of a trunk as can be straight is one block."""
    number = itertools.count()
    blocks = [{slot: next(number) for slot in row.slots} for row in rows]
    members = {block: [(index, slot)] for index, at in enumerate(blocks) for slot, block in at.items()}
    length = Counter(name for row in rows for name, is_box in row.slots if not is_box)
    steps = [(n, a) for n, joined in enumerate(segments) for a, b in joined if a == b]
    for index, slot in sorted(steps, key=lambda step: (-length[step[1][0]], step[1], step[0])):
        upper, lower = blocks[index][slot], blocks[index + 1][slot]
        for row, moved in members[lower]:
            blocks[row][moved] = upper
        if _room(rows, blocks, width) is not None:
            members[upper] += members.pop(lower)
        else:
            for row, moved in members[lower]:
                blocks[row][moved] = lower
    return blocks


def _nets(index: int, xs: Sequence[dict[Slot, int]], segments: Sequence[Joined]) -> list[Net]:
    """Return the nets of the channel below row ``index``.

    An edge leaves and enters a box where it can be straight; those that enter are side by side.
    """
    targets: dict[Slot, list[Slot]] = {}
    sources: dict[Slot, list[Slot]] = {}
    for a, b in segments[index]:
        targets.setdefault(a, []).append(b)
        sources.setdefault(b, []).append(a)
    nets = {}
    for a, leading in targets.items():
        x = xs[index][a]
        if a[1]:
            middle = statistics.median_low([xs[index + 1][b] for b in leading])
            x = min(max(middle, x - REACH), x + REACH)
        nets[a] = Net(a[0], x, {})
    for b, coming in sources.items():
        x = xs[index + 1][b]
        if not b[1]:
            nets[coming[0]].targets[x] = b
            continue
        coming.sort(key=lambda a: (nets[a].source, xs[index][a]))
        for a, entry in zip(coming, _side_by_side([nets[a].source for a in coming], x), strict=True):
            nets[a].targets[entry] = b
    return list(nets.values())


def _side_by_side(wanted: Sequence[int], middle: int) -> list[int]:
    """Return places on top of a box, as near to the wanted ones as their order and distance allow.

    >>> _side_by_side([0, 100, 101], 100)
    [54, 96, 106]
    """
    step = min(PORT, 2 * REACH // max(len(wanted) - 1, 1))
    pools: list[tuple[float, int]] = []
    for place, x in enumerate(wanted):
        pools.append((x - place * step, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m)]
    starts = [start for start, n in pools for _ in range(n)]
    low, high = middle - REACH, middle + REACH - step * (len(wanted) - 1)
    return [round(min(max(start, low), high)) + place * step for place, start in enumerate(starts)]


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


def _draw_lines(tree: Tree, found: Layout, rows: Sequence[Row], xs: Sequence[dict[Slot, int]]) -> None:
    """Make the polylines: each net from its source to each target, and trunks through their rows."""
    row_of = rows_by_box(rows)

    def below(name: str, index: int) -> tuple[str, ...]:
        return tuple(later.id for later in tree.leads_to(name) if row_of[later.id] > index)

    for index, (top, bottom, nets) in enumerate(found.channels):
        for net in nets:
            for x, (name, is_box) in net.targets.items():
                points = [(net.source, top), (net.source, net.y), (x, net.y), (x, bottom)]
                straight = x == net.source
                leads_to = (name,) if is_box else below(name, index + 1)
                found.lines.append(Line(net.tech, [points[0], points[3]] if straight else points, leads_to))
        for name, is_box in rows[index].slots:
            if not is_box:
                x = xs[index][name, False]
                start = found.channels[index - 1][1] if index else top
                found.lines.append(Line(name, [(x, start), (x, top)], below(name, index)))


def _searched(tree: Tree, seed: int) -> tuple[int, list[Row]]:
    """Search an order in which the tree begins at the left, where a narrow window shows it."""
    rows = search(tree, n_moves=1200, seed=seed)
    placed = _laid_out(tree, rows)
    if placed.boxes[tree.technologies[0].id][0] > placed.width / 2:
        rows = [Row(row.era, row.slots[::-1]) for row in rows]
    return _laid_out(tree, rows).crossings(), rows


def main() -> None:
    """Search the order anew and keep it."""
    tree = load_tree()
    found = [_searched(tree, seed) for seed in range(4)]
    n_crossings, rows = min(found, key=lambda each: each[0])
    columns, _ = _columns(rows, joined_slots(tree, rows))
    keep_order(tree.root, [Row(row.era, row.slots, x) for row, x in zip(rows, columns, strict=True)])
    print(f"{n_crossings} crossings")


if __name__ == "__main__":
    main()
