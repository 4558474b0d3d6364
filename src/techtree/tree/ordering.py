"""What stands in each row of the picture of the tree, from left to right, so that few lines cross.

It is searched for by `search`, which moves single boxes and whole trunks on a sketch of the picture, from a
fixed seed, and is kept in ``map.json`` beside the tree, with the columns that came of it: so a new technology
takes a place between the others, or in a row of its own, and moves next to nothing.
"""

import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from techtree import atomic
from techtree.tree.graph import Tree
from techtree.tree.technology import Technology

ORDER = "map.json"
MAX_BOXES = 5
"""In one row of a new layout; a technology that comes later may be the sixth."""

BOX, TRUNK, LENGTH = 16.0, 1.0, 0.005
"""Widths on the sketch, and what a line's length costs, in crossings: short ones are easier to follow."""

HOT, COLD = 4.0, 0.15
"""The temperatures of the search at its beginning and at its end, in crossings."""

Slot = tuple[str, bool]
"""A technology's box (True), or the trunk of its edges on its way through a row (False)."""


Joined = list[tuple[Slot, Slot]]
"""Which slots of a row are joined to which of the next."""


@dataclass(frozen=True)
class Row:
    """One row of boxes and passing trunks, from left to right; ``x`` is where they stand, if that is kept."""

    era: str
    slots: list[Slot]
    x: dict[Slot, int] = field(default_factory=dict)

    @property
    def boxes(self) -> list[str]:
        """The technologies in the row."""
        return [name for name, is_box in self.slots if is_box]


def rows_by_box(rows: Sequence[Row]) -> dict[str, int]:
    """Return the number of the row in which each technology's box stands."""
    return {name: index for index, row in enumerate(rows) for name in row.boxes}


def _rows_of(tree: Tree) -> list[Row]:
    """Return the rows with their boxes: in an era by the longest way, few enough for a row."""
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
            boxes: list[Slot] = [(name, True) for name in at]
            found += [Row(era.id, boxes[start : start + size]) for start in range(0, len(at), size)]
    return found


def _add_trunks(tree: Tree, rows: Sequence[Row]) -> None:
    """Add the trunks that pass through each row: between a technology and the last that it leads to."""
    where = rows_by_box(rows)
    for name, start in where.items():
        last = max((where[later.id] for later in tree.leads_to(name)), default=start)
        for row in rows[start + 1 : last]:
            row.slots.append((name, False))


def joined_slots(tree: Tree, rows: Sequence[Row]) -> list[Joined]:
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


class Sketch:
    """The picture without its details: where the slots stand about, and how many lines cross in each channel.

    Parameters
    ----------
    rows
        The rows; their order is what `insert` and `move` change.
    joined
        What is joined, for each two neighbouring rows.
    """

    def __init__(self, rows: Sequence[Row], joined: Sequence[Joined]):
        self.rows = rows
        self._targets: list[dict[Slot, list[Slot]]] = [{} for _ in joined]
        self._sources: list[dict[Slot, list[Slot]]] = [{} for _ in joined]
        for channel, pairs in enumerate(joined):
            for a, b in pairs:
                self._targets[channel].setdefault(a, []).append(b)
                self._sources[channel].setdefault(b, []).append(a)
        self._width = max(sum(BOX if is_box else TRUNK for _, is_box in row.slots) for row in rows)
        self._x = [self._places(row.slots) for row in rows]
        self._costs = [self._cost(channel) for channel in range(len(joined))]

    @property
    def cost(self) -> float:
        """The number of crossings, and a little for the length of the lines."""
        return sum(self._costs)

    def insert(self, index: int, slot: Slot) -> None:
        """Put a slot that is in the row already to the place in it where it costs least."""
        row = self.rows[index].slots
        others = [each for each in row if each != slot]
        orders = [[*others[:at], slot, *others[at:]] for at in range(len(others) + 1)]
        costs = []
        for order in orders:
            self.reorder({index: order})
            costs.append(self.cost)
        self.reorder({index: orders[costs.index(min(costs))]})

    def reorder(self, orders: Mapping[int, list[Slot]]) -> None:
        """Give rows another order."""
        for index, slots in orders.items():
            self.rows[index].slots[:] = slots
            self._x[index] = self._places(slots)
        for channel in {channel for index in orders for channel in (index - 1, index)}:
            if 0 <= channel < len(self._costs):
                self._costs[channel] = self._cost(channel)

    def _places(self, slots: Sequence[Slot]) -> dict[Slot, float]:
        free = self._width - sum(BOX if is_box else TRUNK for _, is_box in slots)
        x, found = 0.0, {}
        for slot in slots:
            size = BOX if slot[1] else TRUNK
            x += free / (len(slots) + 1)
            found[slot] = x + size / 2
            x += size
        return found

    def _cost(self, channel: int) -> float:
        """Count what crosses between two rows when each two lines take the better of two tracks."""
        upper, lower = self._x[channel], self._x[channel + 1]
        nets = []
        for a, leading in self._targets[channel].items():
            source, targets = upper[a], []
            for b in leading:
                coming = self._sources[channel][b]
                place = sum(upper[other] < source for other in coming)
                targets.append(lower[b] + place - (len(coming) - 1) / 2)
            nets.append((source, targets, min(source, *targets), max(source, *targets)))
        cost = LENGTH * sum(high - low for _, _, low, high in nets)
        for (s, to, a, b), (t, onto, c, d) in itertools.combinations(nets, 2):
            if a < d and c < b:
                cost += min(
                    (a < t < b) + sum(c < x < d for x in to), (c < s < d) + sum(a < x < b for x in onto)
                )
        return cost


def search(tree: Tree, n_moves: int = 100, seed: int = 0) -> list[Row]:
    """Search the order of the slots in each row with few crossings, by simulated annealing.

    Parameters
    ----------
    tree
        What is ordered.
    n_moves
        How many moves are tried, for each slot of the picture.
    seed
        Of the moves.
    """
    chance = random.Random(seed)
    rows = _rows_of(tree)
    _add_trunks(tree, rows)
    sketch = Sketch(rows, joined_slots(tree, rows))
    trunks: dict[Slot, list[int]] = {}
    for index, row in enumerate(rows):
        for slot in row.slots:
            if not slot[1]:
                trunks.setdefault(slot, []).append(index)
    cost = least = sketch.cost
    best = [list(row.slots) for row in rows]
    n_moves *= sum(len(row.slots) for row in rows)
    for move in range(n_moves):
        if trunks and chance.random() < 0.15:
            orders = _trunk_moved(rows, trunks, chance)
        else:
            orders = _slot_moved(rows, chance)
        before = {index: list(rows[index].slots) for index in orders}
        sketch.reorder(orders)
        temperature = HOT * (COLD / HOT) ** (move / n_moves)
        if sketch.cost <= cost or chance.random() < math.exp((cost - sketch.cost) / temperature):
            cost = sketch.cost
        else:
            sketch.reorder(before)
        if cost < least:
            least, best = cost, [list(row.slots) for row in rows]
    return [Row(row.era, order) for row, order in zip(rows, best, strict=True)]


def _slot_moved(rows: Sequence[Row], chance: random.Random) -> dict[int, list[Slot]]:
    """Move one slot by up to three places."""
    index = chance.randrange(len(rows))
    order = list(rows[index].slots)
    at = chance.randrange(len(order))
    order.insert(max(at + chance.choice((-3, -2, -1, -1, 1, 1, 2, 3)), 0), order.pop(at))
    return {index: order}


def _trunk_moved(
    rows: Sequence[Row], trunks: Mapping[Slot, list[int]], chance: random.Random
) -> dict[int, list[Slot]]:
    """Move a stretch of a trunk beside another, or to about the same part of each row."""
    slot, beside = chance.choices(list(trunks), k=2)
    part = chance.random()
    is_beside = chance.random() < 0.6
    first, last = sorted(chance.choices(trunks[slot], k=2))
    orders = {}
    for index in range(first, last + 1):
        order = [each for each in rows[index].slots if each != slot]
        stands = order.index(beside) + (part < 0.5) if is_beside and beside in order else None
        at = round(part * len(order)) if stands is None else stands
        orders[index] = [*order[:at], slot, *order[at:]]
    return orders


def read_order(root: Path) -> list[Row]:
    """Return the rows as they are kept beside the tree; none where they are not."""
    path = root / ORDER
    if not path.is_file():
        return []
    kept = [
        (era, {(name, is_box): x for name, is_box, x in slots})
        for era, slots in json.loads(path.read_text("utf-8"))
    ]
    return [Row(era, list(x), x) for era, x in kept]


def keep_order(root: Path, rows: Iterable[Row]) -> None:
    """Write the order and the columns beside the tree."""
    lines = ",\n".join(json.dumps([row.era, [[*slot, row.x[slot]] for slot in row.slots]]) for row in rows)
    atomic.write_text(root / ORDER, f"[\n{lines}\n]\n")


def ordered_rows(tree: Tree) -> list[Row]:
    """Return the rows in the order that is kept; what is new takes the place with the fewest crossings."""
    kept = [
        Row(row.era, [(name, True) for name in row.boxes if name in tree.by_id], row.x)
        for row in read_order(tree.root)
    ]
    rows = [row for row in kept if row.slots]
    known = rows_by_box(rows)
    new = [tech for tech in tree.technologies if tech.id not in known]
    if not rows or not all(_take_in(tree, tech, rows) for tech in new) or not _lead_down(tree, rows):
        return search(tree)
    _add_trunks(tree, rows)
    late = []
    for index, row in enumerate(rows):
        # In a row of its own a newcomer stands between trunks, which go on as they come from above.
        above = [(name, False) for name, _ in rows[index - 1].slots] if index else []
        place = row.x or {slot: at for at, slot in enumerate(above)}
        late += [(index, slot) for slot in row.slots if slot not in place]
        row.slots.sort(key=lambda slot: place.get(slot, math.inf))
    picture = Sketch(rows, joined_slots(tree, rows))
    for index, slot in late:
        picture.insert(index, slot)
    return rows


def _take_in(tree: Tree, tech: Technology, rows: list[Row]) -> bool:
    """Put a technology into a row below what it stands on, or into a new one; False where neither goes."""
    row_of = rows_by_box(rows)
    rank = {era.id: place for place, era in enumerate(tree.eras)}
    first = 1 + max((row_of[need.tech] for need in tech.requires if need.tech in row_of), default=-1)
    last = min(
        (row_of[later.id] for later in tree.leads_to(tech.id) if later.id in row_of), default=len(rows)
    )
    for row in rows[first:last]:
        if row.era == tech.era:
            row.slots.append((tech.id, True))
            return True
    first = max(first, sum(rank[row.era] < rank[tech.era] for row in rows))
    last = min(last, sum(rank[row.era] <= rank[tech.era] for row in rows))
    if first <= last:
        rows.insert(first, Row(tech.era, [(tech.id, True)]))
    return first <= last


def _lead_down(tree: Tree, rows: Sequence[Row]) -> bool:
    """Return whether all stand below what they stand on, each in its era."""
    row_of = rows_by_box(rows)
    edges = [(need.tech, tech.id) for tech in tree.technologies for need in tech.requires]
    return all(row_of[a] < row_of[b] for a, b in edges if a in row_of) and all(
        tree[name].era == rows[index].era for name, index in row_of.items()
    )
