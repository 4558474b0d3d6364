import re
import xml.etree.ElementTree as ElementTree

import pytest

from techtree.tree import drawing
from techtree.tree.graph import load_tree
from techtree.tree.layout import layout

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


SVG = "{http://www.w3.org/2000/svg}"


def boxes_of(root):
    return [each for each in root.iter() if "box" in each.get("class", "").split()]


def test_the_picture_has_every_box_once_with_its_state_in_words(small_tree):
    tree = load_tree(small_tree)
    root = ElementTree.fromstring(drawing.picture(tree, STATES))
    boxes = boxes_of(root)
    assert sorted(box.find(f"{SVG}text").text for box in boxes) == sorted(STATES)
    for box in boxes:
        name = box.find(f"{SVG}text").text
        assert box.get("class") == f"box {STATES[name]}"
        assert box.find(f"{SVG}title").text.startswith(f"{name} ({STATES[name]}): ")


def test_every_state_has_a_shape_of_its_own():
    assert len({str(shape) for shape in drawing.SHAPES.values()}) == len(drawing.SHAPES) == 5
    for state in drawing.SHAPES:
        ElementTree.fromstring(drawing.sign(state))


def test_the_picture_that_stands_alone_names_its_colours(small_tree):
    text = drawing.picture(load_tree(small_tree), STATES)
    assert "var(" not in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert drawing.LIGHT.keys() == drawing.DARK.keys()


@pytest.mark.parametrize("colours", [drawing.LIGHT, drawing.DARK])
def test_names_stand_out_from_their_boxes(colours):
    """The ratio that WCAG 2 asks of text of this size is 4.5."""
    for state in drawing.SHAPES:
        assert contrast(colours[f"{state}-ink"], colours[f"{state}-fill"]) >= 4.5
    for ground in ("paper", "raised"):
        assert contrast(colours["muted"], colours[ground]) >= 4.5


def contrast(a, b):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_the_svg_of_a_page_has_links_and_no_styles(small_tree):
    tree = load_tree(small_tree)
    text = drawing.svg(tree, STATES, lambda t: f"tech/{t.id}.html", lambda era: f"era/{era}.html")
    root = ElementTree.fromstring(text)
    assert {box.get("id"): box.get("href") for box in boxes_of(root)} == {
        f"map-{name}": f"tech/{name}.html" for name in STATES
    }
    assert 'href="era/ground.html"' in text
    assert not any(word in text for word in ("style", "fill=", "stroke=", "onclick"))


def test_a_technology_lights_what_it_stands_on_and_what_stands_on_it(small_tree):
    css = drawing.map_css(load_tree(small_tree))
    rule = css[css.index("#map-second:") :].split("}\n}")[0]
    assert {"#map-first", "#map-second", "#map-third", "#map-later"} == set(
        re.findall(r"#map-\w+(?=[,)])", rule)
    )
    assert ".t-second" in rule
    assert ".f-second" in rule
    assert ".f-first" not in rule, "an edge from an ancestor to another is not on the way"


@pytest.mark.parametrize("child", ["second", "third", "later"])
def test_what_stands_on_something_is_drawn_below_it(small_tree, child):
    tree = load_tree(small_tree)
    boxes = layout(tree).boxes
    for need in tree[child].requires:
        assert boxes[child][1] > boxes[need.tech][1]
