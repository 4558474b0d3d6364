import xml.etree.ElementTree as ElementTree

import pytest

from techtree.tree import drawing
from techtree.tree.graph import load_tree
from techtree.tree.layout import BOX_HEIGHT, BOX_WIDTH, layout

STATES = {"aside": "open", "first": "unlocked", "second": "stale", "third": "locked", "later": "planned"}

OVERVIEW = """\
1 of 5 technologies unlocked   ● unlocked  ◐ stale  ○ open  · locked or planned

Ground: First things.
  ○ aside
  ● first   → second
  ◐ second  ← first   → later, third
  · third   ← second
  · later"""


def test_the_overview(small_tree):
    assert drawing.overview(load_tree(small_tree), STATES) == OVERVIEW


def test_colours_change_nothing_else(small_tree):
    coloured = drawing.overview(load_tree(small_tree), STATES, in_colour=True)
    assert "\x1b[32m  ● first" in coloured
    for code in ("\x1b[0m", *drawing.COLOURS.values()):
        coloured = coloured.replace(code, "")
    assert coloured == OVERVIEW


def test_a_page(small_tree):
    tree = load_tree(small_tree)
    lines = drawing.page(tree, tree["second"], STATES).splitlines()
    assert lines[0] == "◐ second (stale): second"
    assert "  needs     ● first              because" in lines
    assert "  leads to  · third              What third does." in lines
    assert "  opens     library.second" in lines
    assert drawing.page(tree, tree["later"], STATES).splitlines()[0] == "· later (planned): Not written yet."


def test_the_picture_has_every_box_once_and_none_overlaps(small_tree):
    tree = load_tree(small_tree)
    root = ElementTree.fromstring(drawing.picture(tree, STATES))
    name = "{http://www.w3.org/2000/svg}"
    boxes = [group.find(f"{name}rect") for group in root.iter(f"{name}g")]
    places = [(int(box.get("x")), int(box.get("y"))) for box in boxes]
    assert sorted(group.find(f"{name}text").text for group in root.iter(f"{name}g")) == sorted(STATES)
    apart = [
        abs(a[0] - b[0]) >= BOX_WIDTH or abs(a[1] - b[1]) >= BOX_HEIGHT
        for a in places
        for b in places
        if a is not b
    ]
    assert all(apart)
    assert len(list(root.iter(f"{name}path"))) == 1


@pytest.mark.parametrize("child", ["second", "third", "later"])
def test_what_stands_on_something_is_drawn_below_it(small_tree, child):
    tree = load_tree(small_tree)
    boxes = layout(tree).boxes
    for need in tree[child].requires:
        assert boxes[child][1] > boxes[need.tech][1]
