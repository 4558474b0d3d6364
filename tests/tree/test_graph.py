import shutil

import pytest

from techtree.errors import InputError
from techtree.tree.graph import load_tree


def require(root, name, *needs):
    path = root / "ground" / name / "tech.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    tables = ", ".join(f'{{ tech = "{need}", why = "because" }}' for need in needs)
    lines = [f"requires = [{tables}]" if line.startswith("requires") else line for line in lines]
    path.write_text("\n".join(lines), encoding="utf-8")


def ids(technologies):
    return [tech.id for tech in technologies]


def test_prerequisites_come_first_and_plans_count(small_tree):
    tree = load_tree(small_tree)
    assert ids(tree.technologies) == ["aside", "first", "second", "later", "third"]
    assert ids(tree.written) == ["aside", "first", "second", "third"]
    assert ids(tree.ancestors("third")) == ["first", "second"]
    assert ids(tree.ancestors("later")) == ["first", "second"]
    assert ids(tree.leads_to("second")) == ["later", "third"]


def test_an_unknown_name_gets_a_suggestion(small_tree):
    with pytest.raises(InputError, match="unknown technology 'secnd'; did you mean second"):
        load_tree(small_tree)["secnd"]


def test_a_cycle_is_an_error_that_names_its_members(small_tree):
    require(small_tree, "first", "third")
    with pytest.raises(InputError, match="cycle; these do: first, later, second, third"):
        load_tree(small_tree)


def test_a_missing_prerequisite_breaks_no_tree(small_tree):
    shutil.rmtree(small_tree / "ground" / "first")
    tree = load_tree(small_tree)
    assert ids(tree.written) == ["aside", "second", "third"]
    assert ids(tree.ancestors("third")) == ["second"]


def test_redundant_edges_are_found(small_tree):
    assert load_tree(small_tree).redundant_edges() == []
    require(small_tree, "third", "second", "first")
    assert load_tree(small_tree).redundant_edges() == [("third", "first")]


def test_a_folder_in_an_unknown_era(small_tree):
    shutil.move(small_tree / "ground" / "aside", small_tree / "grownd" / "aside")
    with pytest.raises(InputError, match="unknown era 'grownd'; did you mean ground"):
        load_tree(small_tree)


def test_a_folder_that_is_no_tree(tmp_path):
    with pytest.raises(InputError, match=r"needs the file plan.toml"):
        load_tree(tmp_path)
