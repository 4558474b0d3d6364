"""The picture of the tree: no line through a box, few crossings, and newcomers move next to nothing."""

import dataclasses
import itertools

import pytest

from techtree.tree.graph import TECHS, load_tree
from techtree.tree.layout import BOX_HEIGHT, BOX_WIDTH, layout, ordered_rows, read_order, search
from techtree.tree.technology import Requirement, Technology

TREE = load_tree()


def runs_through(line, corner):
    (x0, y0), (x1, y1) = line
    x, y = corner
    is_beside = max(x0, x1) <= x or min(x0, x1) >= x + BOX_WIDTH
    is_above_or_below = max(y0, y1) <= y or min(y0, y1) >= y + BOX_HEIGHT
    return not (is_beside or is_above_or_below)


def test_every_edge_is_drawn_from_box_to_box():
    """Following a technology's lines down from its box leads to exactly those that stand on it."""
    placed = layout(TREE)
    for tech in TREE.technologies:
        pieces = [points for name, points in placed.lines if name == tech.id]
        x, y = placed.boxes[tech.id]
        reached, waiting = set(), [(x + BOX_WIDTH // 2, y + BOX_HEIGHT)]
        while waiting:
            start = waiting.pop()
            for points in [each for each in pieces if each[0] == start]:
                waiting.append(points[-1])
                reached.add(points[-1])
        found = {
            name
            for name, (bx, by) in placed.boxes.items()
            for px, py in reached
            if py == by and bx <= px <= bx + BOX_WIDTH
        }
        assert found == {later.id for later in TREE.leads_to(tech.id)}, tech.id


def test_no_line_runs_through_a_box_and_no_boxes_overlap():
    placed = layout(TREE)
    for name, points in placed.lines:
        for piece in itertools.pairwise(points):
            assert [box for box, corner in placed.boxes.items() if runs_through(piece, corner)] == [], name
    for (ax, ay), (bx, by) in itertools.combinations(placed.boxes.values(), 2):
        assert abs(ax - bx) >= BOX_WIDTH or abs(ay - by) >= BOX_HEIGHT


def test_few_lines_cross():
    """Graphviz's dot drew this graph with 58 when two edges were not there yet, which have 7 of ours."""
    assert layout(TREE).crossings() <= 78


def test_what_stands_on_something_lies_below_it():
    placed = layout(TREE)
    for tech in TREE.technologies:
        for need in tech.requires:
            assert placed.boxes[need.tech][1] + BOX_HEIGHT < placed.boxes[tech.id][1]


@pytest.mark.parametrize("era", [era.id for era in TREE.eras])
def test_a_new_technology_moves_next_to_nothing(era):
    last = [tech for tech in TREE.technologies if tech.era == era][-1]
    needs = (Requirement(TREE.technologies[0].id, ""), *last.requires[:1])
    new = Technology(id="newcomer", era=era, summary="New.", requires=needs)
    larger = dataclasses.replace(TREE, technologies=(*TREE.technologies, new))
    before, after = ordered_rows(TREE), ordered_rows(larger)
    assert [row.era for row in before] == [row.era for row in after]
    for old, now in zip(before, after, strict=True):
        boxes = [name for name, is_box in now.slots if is_box and name != "newcomer"]
        assert boxes == [name for name, is_box in old.slots if is_box]
    placed = layout(larger)
    assert "newcomer" in placed.boxes
    for name, points in placed.lines:
        for piece in itertools.pairwise(points):
            assert not any(runs_through(piece, corner) for corner in placed.boxes.values()), name


def test_the_search_is_deterministic_and_needs_no_kept_order(small_tree):
    tree = load_tree(small_tree)
    rows = search(tree, n_starts=3)
    assert rows == search(tree, n_starts=3)
    assert set(layout(tree).boxes) == {tech.id for tech in tree.technologies}


def test_the_kept_order_names_nothing_that_is_gone():
    kept = {name for _, slots in read_order(TECHS) for name, is_box in slots if is_box}
    assert kept <= set(TREE.by_id)
