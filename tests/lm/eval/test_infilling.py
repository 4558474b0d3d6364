"""What counts of an answer, and what an editor's user must not see."""

import pytest

from techtree.lm.eval.infilling import Answer, filled, floors, inserted, is_python, measure, similarity
from techtree.lm.eval.problems import Hole
from techtree.sandbox import why_not_confined

CHECK = "\nassert one() == 1\n"
LINE = Hole("line", "def one():\n", "    return 1\n", "\nx = one()\n", CHECK)
END = Hole("end", "def one():\n    return ", "1", "\nx = one()\n", CHECK)
SPAN = Hole("span", "def one():\n", "    y = 1\n    return y\n", "x = one()\n", CHECK)


def test_of_a_line_the_first_line_of_the_answer_counts():
    assert inserted(LINE, Answer("    return 1\n\ny = 2")) == "    return 1"
    assert inserted(LINE, Answer("\n    return 1")) == "    return 1"
    assert inserted(SPAN, Answer("    y = 1\n    return y\n")) == SPAN.middle


def test_a_line_stays_a_line():
    assert (
        filled(LINE, "    return 1")
        == filled(LINE, "    return 1\n")
        == "def one():\n    return 1\n\nx = one()\n"
    )
    assert filled(END, "1") == "def one():\n    return 1\nx = one()\n"


@pytest.mark.parametrize("by_tests", [False, True])
def test_figures(by_tests):
    if by_tests and why_not_confined():
        pytest.skip(f"needs {why_not_confined()}")
    holes = [LINE, END, SPAN, END]
    answers = [
        Answer("    return 1  \n    more"),
        Answer("0 + 1", has_ended=False),
        Answer("    return (\n"),
        Answer("<|fim_middle|>"),
    ]
    found = measure(holes, answers, by_tests=by_tests)
    assert found.exact.value == 0.25
    assert (found.passing.value, found.passing.n) == (0.5, 4) if by_tests else found.passing.n == 0
    assert (found.valid.value, found.valid.n) == (0.5, 4)
    assert found.ended.value == 0.75
    assert found.leaking.value == 0.25
    assert found.repeating.value == 0
    assert found.similarity.value == pytest.approx(
        (
            1
            + similarity("1", "0 + 1")
            + similarity(SPAN.middle, "return (")
            + similarity("1", "<|fim_middle|>")
        )
        / 4
    )


def test_empty_answers_are_not_valid():
    assert measure([END], [Answer("  ")], by_tests=False).valid.n == 0


@pytest.mark.parametrize(
    ("text", "is_repeating"),
    [
        ("self.x = x\n" * 3, True),
        ("self.x = x\n" * 2, False),
        ("=" * 23, False),
        ("=" * 24, True),
        ("abcdefg" * 3, False),
        ("return a, a, a", False),
    ],
)
def test_repetitions(text, is_repeating):
    assert measure([END], [Answer(text)], by_tests=False).repeating.value == is_repeating


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|fim_suffix|>", "<fim_prefix>", "<file_sep>", "<MID>"])
def test_sentinels(token):
    assert measure([END], [Answer(f"x{token}")], by_tests=False).leaking.value == 1


def test_similarity_is_of_what_is_there():
    assert similarity(" a = 1\n", "a = 1") == 1
    assert similarity("abc", "xyz") == 0
    assert similarity("ab", "ac") == 0.5


@pytest.mark.parametrize("text", ["def", "x = '\0'", "(" * 1000, "x = 1\n  y", "x = '\udc80'"])
def test_what_is_no_python(text):
    assert not is_python(text)


def test_what_is_python():
    assert is_python(r"x = '\d'  # which warns")


def test_floors():
    holes = [LINE, LINE, END]
    found = floors(holes)
    assert [answer.text for answer in found["nothing"]] == ["", "", ""]
    assert [answer.text for answer in found["always 'return 1'"]] == [
        "    return 1",
        "    return 1",
        "return 1",
    ]
    assert [answer.text for answer in found["the line before"]] == [
        "    def one():",
        "    def one():",
        "def one():",
    ]
    assert [answer.text for answer in found["the line after"]] == ["    x = one()"] * 2 + ["x = one()"]
