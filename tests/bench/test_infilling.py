"""Missing lines: which are asked for, what counts as written, and what is counted."""

import gzip
import json

import pytest

torch = pytest.importorskip("torch")

import infilling  # noqa: E402 - where there is PyTorch
from techtree.engines.torch_engine import TorchEngine  # noqa: E402
from techtree.errors import InputError  # noqa: E402


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl.gz"
    each = [
        {"prompt": f"x = {i}\n", "suffix": "print(y)\n", "canonical_solution": f"y = x + {i}\n"}
        for i in range(9)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, each)).encode()))
    return path


def test_problems_are_drawn_by_seed(problems):
    three = infilling.drawn(problems, 3, 0)
    assert three == infilling.drawn(problems, 3, 0)
    assert three != infilling.drawn(problems, 3, 1)
    assert len(set(infilling.drawn(problems, 100, 0))) == 9
    assert all(hole.line == f"y = x + {hole.prefix[4]}\n" for hole in three)


@pytest.mark.parametrize(
    ("text", "is_filled"),
    [("    y = 1", True), ("    y = 1  \nmore", True), ("y = 1", False), ("\n    y = 1", False), ("", False)],
)
def test_a_line_counts_to_the_letter_but_for_blanks_at_its_end(text, is_filled):
    assert infilling.Hole("", "", "    y = 1\n").is_filled_by(text) == is_filled


def test_what_is_counted(problems, tiny_model, tiny_tokenizer):
    holes = infilling.drawn(problems, 4, 0)
    answered = infilling.filled(holes, infilling.ours(TorchEngine(tiny_model, tiny_tokenizer, "tiny")))
    assert len(answered) == 4
    perfect = infilling.filled(holes, lambda question: f"y = x + {question['input_prefix'][4]}")
    rows = infilling.rows({"none": answered, "all": perfect, "half": [True, False, True, False]})
    assert rows[1:] == [["all", "100.0%", "0.0%", 4], ["half", "50.0%", "25.0%", 4]]


def test_wrong_input(problems, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        infilling.Config(file=tmp_path / "x.gguf", problems=problems)
    with pytest.raises(InputError, match="at least 1"):
        infilling.Config(file=problems, problems=problems, n=0)
