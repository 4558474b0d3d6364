"""The picture of the tree: no line through a box, few crossings, and newcomers move next to nothing."""

import dataclasses
import itertools
import time

import pytest

from techtree.tree.graph import TECHS, load_tree
from techtree.tree.layout import BOX_HEIGHT, BOX_WIDTH, GAP, layout
from techtree.tree.ordering import Row, keep_order, ordered_rows, read_order, search
from techtree.tree.technology import Requirement, Technology

TREE = load_tree()
PLACED = layout(TREE)


def runs_through(line, corner):
    (x0, y0), (x1, y1) = line
    x, y = corner
    is_beside = max(x0, x1) <= x or min(x0, x1) >= x + BOX_WIDTH
    is_above_or_below = max(y0, y1) <= y or min(y0, y1) >= y + BOX_HEIGHT
    return not (is_beside or is_above_or_below)


def test_every_edge_is_drawn_from_box_to_box():
    """Following a technology's lines down from its box leads to exactly those that stand on it."""
    placed = PLACED
    for tech in TREE.technologies:
        pieces = [line.points for line in placed.lines if line.tech == tech.id]
        x, y = placed.boxes[tech.id]
        starts = {p[0] for p in pieces if p[0][1] == y + BOX_HEIGHT and x < p[0][0] < x + BOX_WIDTH}
        assert len(starts) == bool(TREE.leads_to(tech.id)), f"one trunk leaves {tech.id}"
        reached, waiting = set(), list(starts)
        while waiting:
            start = waiting.pop()
            for points in [each for each in pieces if each[0] == start]:
                waiting.append(points[-1])
                reached.add(points[-1])
        found = {
            name
            for name, (bx, by) in placed.boxes.items()
            for px, py in reached
            if py == by and bx < px < bx + BOX_WIDTH
        }
        assert found == {later.id for later in TREE.leads_to(tech.id)}, tech.id


def test_a_line_says_where_it_leads():
    """Lit are the lines from a box down to those that stand on it, and no other branch of a trunk."""
    placed = PLACED
    for tech in TREE.technologies:
        lines = [line for line in placed.lines if line.tech == tech.id]
        for line in lines:
            ends = [other for other in lines if other.points[0] == line.points[-1]]
            if ends:
                assert {name for other in ends for name in other.leads_to} == set(line.leads_to)
            else:
                (name,) = line.leads_to
                assert placed.boxes[name][1] == line.points[-1][1]


def test_no_line_runs_through_a_box_and_no_boxes_overlap():
    placed = PLACED
    for line in placed.lines:
        for piece in itertools.pairwise(line.points):
            assert not [name for name, corner in placed.boxes.items() if runs_through(piece, corner)], line
    for (ax, ay), (bx, by) in itertools.combinations(placed.boxes.values(), 2):
        assert abs(ax - bx) >= BOX_WIDTH or abs(ay - by) >= BOX_HEIGHT


def test_lines_of_different_technologies_lie_nowhere_on_each_other():
    placed = PLACED
    pieces = [
        (line.tech, *sorted(piece)) for line in placed.lines for piece in itertools.pairwise(line.points)
    ]
    for (s, (ax, ay), (bx, by)), (t, (cx, cy), (dx, dy)) in itertools.combinations(pieces, 2):
        if s != t and ax == bx == cx == dx:
            assert min(by, dy) <= max(ay, cy), f"{s} and {t} at x = {ax}"
        if s != t and ay == by == cy == dy:
            assert min(bx, dx) <= max(ax, cx), f"{s} and {t} at y = {ay}"


def test_few_lines_cross():
    """Graphviz's dot draws this graph with 58, and with 66 where the eras are bands."""
    placed = PLACED
    assert placed.crossings() <= 50
    assert placed.crossings() == crossings_of_paths(placed)


def crossings_of_paths(placed):
    """Count again, pixel by pixel: where lines of different trunks have a point in common."""
    across, down = {}, {}
    for line in placed.lines:
        for (x0, y0), (x1, y1) in itertools.pairwise(line.points):
            for x in range(min(x0, x1) + 1, max(x0, x1)):
                across.setdefault((x, y0), set()).add(line.tech)
            for y in range(min(y0, y1) + 1, max(y0, y1)):
                down.setdefault((x0, y), set()).add(line.tech)
    return sum(1 for point in across.keys() & down.keys() if across[point] ^ down[point])


def test_the_map_is_laid_out_within_three_seconds():
    start = time.process_time()
    layout(load_tree())
    assert time.process_time() - start < 3


def test_the_picture_fits_the_width_of_a_readme():
    """A code host shows 830 to 900 pixels: the names, of 12 pixels, shrink by a tenth at most."""
    assert PLACED.width <= 900


def test_what_stands_on_something_lies_below_it():
    placed = PLACED
    for tech in TREE.technologies:
        for need in tech.requires:
            assert placed.boxes[need.tech][1] + BOX_HEIGHT < placed.boxes[tech.id][1]


def with_newcomer(era, needs, above=None):
    """Return the tree with one technology more, which stands on others, and below another if named."""
    new = Technology(id="newcomer", era=era, summary="New.", requires=needs)
    technologies = []
    for tech in TREE.technologies:
        if tech.id == above:
            kept = [need for need in tech.requires if need not in needs]
            technologies.append(new)
            tech = dataclasses.replace(tech, requires=(*kept, Requirement("newcomer", "")))
        technologies.append(tech)
    return dataclasses.replace(TREE, technologies=(*technologies, *([] if above else [new])))


def in_a_row_that_is_there(era):
    last = [tech for tech in TREE.technologies if tech.era == era][-1]
    return with_newcomer(era, (Requirement(TREE.technologies[0].id, ""), *last.requires[:1]))


def below_the_last_row(era):
    last = [row for row in ordered_rows(TREE) if row.era == era][-1]
    return with_newcomer(era, (Requirement(last.boxes[0], ""),))


def between_two_that_are_there(era):
    below = next(tech for tech in TREE.technologies if tech.era == era and tech.requires)
    return with_newcomer(era, below.requires[:1], above=below.id)


@pytest.mark.parametrize("place", [in_a_row_that_is_there, below_the_last_row, between_two_that_are_there])
@pytest.mark.parametrize("era", [era.id for era in TREE.eras])
def test_a_new_technology_moves_next_to_nothing(era, place):
    larger = place(era)
    after = [row for row in ordered_rows(larger) if row.boxes != ["newcomer"]]
    for old, now in zip(ordered_rows(TREE), after, strict=True):
        assert now.era == old.era
        assert [name for name in now.boxes if name != "newcomer"] == old.boxes
    placed, before = layout(larger), PLACED
    assert "newcomer" in placed.boxes
    moved = [
        name for name, (x, _) in before.boxes.items() if abs(placed.boxes[name][0] - x) > BOX_WIDTH + GAP
    ]
    assert len(moved) <= len(before.boxes) / 5
    assert placed.crossings() <= 66
    for tech in larger.technologies:
        for need in tech.requires:
            assert placed.boxes[need.tech][1] < placed.boxes[tech.id][1]
    assert [era for era, _, _ in placed.bands] == [era for era, _, _ in before.bands]
    for line in placed.lines:
        for piece in itertools.pairwise(line.points):
            assert not any(runs_through(piece, corner) for corner in placed.boxes.values()), line


def test_the_search_is_deterministic_and_needs_no_kept_order(small_tree):
    tree = load_tree(small_tree)
    rows = search(tree, n_moves=50)
    assert rows == search(tree, n_moves=50)
    assert set(layout(tree).boxes) == {tech.id for tech in tree.technologies}


def test_an_order_in_which_an_edge_would_not_lead_down_is_searched_anew(small_tree):
    tree = load_tree(small_tree)
    rows = search(tree, n_moves=50)
    slots = [slot for row in rows for slot in row.slots if slot[1]]
    keep_order(small_tree, [Row(rows[0].era, slots, {slot: 200 * at for at, slot in enumerate(slots)})])
    placed = layout(tree)
    for tech in tree.technologies:
        for need in tech.requires:
            assert placed.boxes[need.tech][1] < placed.boxes[tech.id][1]


def test_the_kept_order_names_nothing_that_is_gone():
    assert {name for row in read_order(TECHS) for name in row.boxes} <= set(TREE.by_id)
