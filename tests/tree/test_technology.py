import re

import pytest

from techtree.errors import InputError
from techtree.tree.technology import load_technology


def test_a_complete_file(small_tree):
    tech = load_technology(small_tree / "ground" / "second")
    assert (tech.id, tech.era, tech.title, tech.minutes) == ("second", "ground", "second", 5)
    assert [(need.tech, need.why) for need in tech.requires] == [("first", "because")]
    assert tech.papers[0].year == 2001
    assert tech.module == "techtree.techs.ground.second"
    assert tech.implementation.name == "second.py"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minutes = 5", "minutes = ", "must be TOML: .*line"),
        ("minutes = 5", "", "the key 'minutes' is missing"),
        ("minutes = 5", "minuts = 5\nminutes = 5", "unknown key 'minuts'; did you mean minutes"),
        ("minutes = 5", 'minutes = "5"', "'minutes' must be a non-empty int; got '5'"),
        ("minutes = 5", "minutes = 0", "'minutes' must be a non-empty int; got 0"),
        ("minutes = 5", "minutes = true", "'minutes' must be a non-empty int; got True"),
        ('exercise = ["double"]', 'exercise = "double"', "'exercise' must be a list of strings"),
        ('exercise = ["double"]', 'exercise = ["a", "a"]', "names something twice"),
        (', why = "because"', "", "must have exactly tech, why"),
        (', why = "because"', ', why = ""', "'why' must be a non-empty str"),
        ("year = 2001", 'year = "2001"', "'year' must be a non-empty int"),
        (
            "minutes = 5",
            "minutes = 5\nstarts_processes = 1",
            "'starts_processes' must be true or false; got 1",
        ),
        ('title = "second"', "title = 3", "'title' must be a non-empty str"),
    ],
)
def test_each_malformed_file_is_one_clear_error(small_tree, old, new, message):
    folder = small_tree / "ground" / "second"
    text = (folder / "tech.toml").read_text(encoding="utf-8")
    assert old in text
    (folder / "tech.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        load_technology(folder)
    assert str(folder / "tech.toml") in str(error.value)


def test_bytes_that_are_not_utf8(small_tree):
    folder = small_tree / "ground" / "second"
    (folder / "tech.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(InputError, match="must be UTF-8: byte 9"):
        load_technology(folder)


def test_a_folder_whose_name_is_no_id(small_tree):
    folder = small_tree / "ground" / "second"
    folder = folder.rename(folder.with_name("2nd-one"))
    with pytest.raises(InputError, match=re.escape("lower_case words; got '2nd-one'")):
        load_technology(folder)
