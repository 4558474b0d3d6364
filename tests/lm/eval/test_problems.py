"""Problems from files, and holes made in texts."""

import gzip
import json

import numpy as np
import pytest

from problem_entry import EXERCISE
from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.eval.problems import Exercise, Hole, drawn, holes_in, read_problems

HOLE = EXERCISE | {"suffix": "\n# end\n"}
CHECK = "def check(f):\n    assert f() == 1\n\ncheck(one)\n"


def test_exercises(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(EXERCISE) + "\n\n" + json.dumps(EXERCISE | {"task_id": "T/1"}) + "\n")
    first, second = read_problems(path)
    assert first == Exercise("T/0", "def one():\n", "    return 1\n", CHECK)
    assert second.name == "T/1"


def test_holes_in_a_packed_file(tmp_path):
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(HOLE).encode()))
    assert read_problems(path) == [Hole("T/0", "def one():\n", "    return 1\n", "\n# end\n", CHECK)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "got 0 and 0"),
        (b"{}", "KeyError"),
        (b"[1]", "must be texts"),
        (json.dumps(HOLE | {"test": 1}).encode(), "must be texts"),
        (b"x", "in each line"),
        (b"\xff", "in each line"),
        (json.dumps(HOLE).encode() + b"\n" + json.dumps(EXERCISE).encode(), "got 1 and 1"),
    ],
)
def test_other_files_are_refused(data, told, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=told):
        read_problems(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b"{}" * 99)[:-9])
    for name in ("p.jsonl.gz", "none.jsonl"):
        with pytest.raises(InputError, match="must be a file of problems that can be read"):
            read_problems(tmp_path / name)


@pytest.mark.parametrize("seed", range(20))
def test_a_hole_is_a_line_or_its_end_and_the_parts_are_the_text(seed):
    texts = ["def f(x):\n    y = x  \n\n    return y\n", "a = 1", "\n\n  b\n", "   \n"]
    documents = [Document(f"{i}.py", text) for i, text in enumerate(texts)]
    holes = holes_in(documents, 12, np.random.default_rng(seed))
    starts = set()
    for i, hole in enumerate(holes):
        text = texts[i % 3]  # the last has no line to take
        assert hole.name.startswith(f"{i % 3}.py:")
        line = text.split("\n")[int(hole.name.split(":")[1]) - 1].rstrip()
        assert hole.middle
        assert line.endswith(hole.middle)
        assert hole.is_line
        assert hole.prefix + hole.middle == text[: len(hole.prefix) + len(hole.middle)]
        assert text.endswith(hole.suffix)
        rest = text[len(hole.prefix) + len(hole.middle) : len(text) - len(hole.suffix)]
        assert rest.strip(" ") == ""  # blanks at a line's end are no one's to write
        if i // 3 % 2 == 0:
            assert hole.middle == line.strip()
        starts.add(hole.middle == line.strip())
    assert starts == {True, False}


def test_no_text_no_hole():
    with pytest.raises(InputError, match="got none"):
        holes_in([Document("a", " \n")], 1, np.random.default_rng(0))


def test_problems_are_drawn_once_each_and_in_order():
    problems = list(range(50))
    assert drawn(problems, 0, np.random.default_rng(0)) == problems
    assert drawn(problems, 50, np.random.default_rng(0)) == problems
    some = drawn(problems, 10, np.random.default_rng(0))
    assert len(set(some)) == 10
    assert some == sorted(some) != drawn(problems, 10, np.random.default_rng(1))
