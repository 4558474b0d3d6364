"""Oracles: cases that a programmer can judge, and the promise never to take text back."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from techtree.lm.infer.shown_text import Place, shown_text


def shown(before, raw, after, end="complete", **options):
    return shown_text(raw, Place(before, after, **options), end).text


@pytest.mark.parametrize(
    ("before", "raw", "after", "expected"),
    [
        # At the end of a line: several lines may come, blanks at the end do not.
        ("x = ", "1", "\ny = 2\n", "1"),
        ("x = ", "1\n", "\ny = 2\n", "1"),
        ("def f(x):\n    ", "y = x\n    return y\n\n", "\n", "y = x\n    return y"),
        ("def f(x):", "\n    return x\n", "", "\n    return x"),
        # In the middle of a line: one line only.
        ("print(", "x)\nfoo(y", ")\n", "x"),
        ("x = ", "a + ", "b\n", "a + "),
        # Above a line: whole lines, and the line below keeps its indentation.
        ("def f(x):\n", "    y = x\n    z", "    return y\n", "    y = x\n"),
        ("def f(x):\n    ", "y = x\n    z = 1\n", "return y\n", "y = x\n    "),
        ("def f(x):\n    ", "if x: ", "return y\n", "if x: "),
        # Nothing to show.
        ("x = 1", "", "\n", ""),
        ("x = 1", "  \n  ", "\n", ""),
        ("x = 1", "\n\n", "", ""),
        # A blank that is there already.
        ("x = ", " 1", "\n", "1"),
        ("def f():\n    ", "    return", "\n", "    return"),
    ],
)
def test_what_is_shown(before, raw, after, expected):
    assert shown(before, raw, after) == expected


@pytest.mark.parametrize(
    ("before", "raw", "after", "expected"),
    [
        # What a model that was made for chats adds after the code.
        ("x = ", "1\n```\nThis sets x to 1.", "\ny = 2\n", "1"),
        ("def f():\n    ", "return 1\n\n    ```\n\n### Why\n", "\n", "return 1"),
        ("x = ", "1```", "\n", "1"),
        ("x = ", "```python\n1\n```", "\n", ""),
        # Where code blocks are part of the text they stay.
        ("```python\n", "x = 1\n```\nSo it is.", "\n", "x = 1\n```\nSo it is."),
        ("See\n", "```\nx\n```", "\nThen\n```\ny\n```\n", "```\nx\n```"),
        # A tick or two are no fence.
        ("# the ", "`x` and ``y``", "\n", "`x` and ``y``"),
    ],
)
def test_no_explanation_is_inserted(before, raw, after, expected):
    assert shown(before, raw, after) == expected


@pytest.mark.parametrize(
    ("before", "raw", "after", "expected"),
    [
        # The rest of the line once more.
        ("return ", "max(a, b) + 1", " + 1\n", "max(a, b)"),
        ("foo(", "a, b)", ")\n", "a, b"),
        ('print("', 'hello")', '")\n', "hello"),
        ("x = [", "1, 2]", "]\n", "1, 2"),
        ("foo(bar(", "x))", "))\n", "x"),
        ("call(\n    a,\n    b", ".c)", ")\n", ".c"),
        # Here the same bracket is needed twice.
        ("foo(bar(", "x)", ")\n", "x)"),
        ("call(\n    f(b", ")", ")\n", ")"),
        # A letter that happens to be the same stays.
        ("for ma", "x in list", "t:\n", "x in list"),
        # The line below once more.
        ("def f(x):\n    y = x", "\n    return y", "\n    return y\n", ""),
        ("def f(x):\n    ", "y = x\n    return y", "\n    return y\n", "y = x"),
        ("def f(x):\n    ", "return y", "\n    return y\n", ""),
        ("call(\n    a,", "\n    b,\n)", "\n)\n", "\n    b,"),
        ("def f(x):\n    ", "y = x\n\n    return y\n\n\ndef g():", "\n\n    return y\n", "y = x"),
        # The same words at another depth are another line.
        ("if x:\n    ", "pass\nelse:\n    pass", "\nprint()\n", "pass\nelse:\n    pass"),
        ("while x:\n    ", "if y:\n        break", "\n    break\n", "if y:\n        break"),
    ],
)
def test_what_follows_is_not_written_twice(before, raw, after, expected):
    assert shown(before, raw, after) == expected


def test_a_line_below_that_a_limit_cut_short_is_dropped():
    assert shown("def f(x):\n    ", "y = x\n    ret", "\n    return y\n", end="cut") == "y = x"
    assert shown("def f(x):\n    ", "y = x\n    ret", "\n    return y\n") == "y = x\n    ret"


@pytest.mark.parametrize(
    ("raw", "n_indent", "expected"),
    [
        ("x = 1\n    y = 2\nz = 3", 4, "x = 1\n    y = 2"),
        ("x = 1\n    y = 2\nz = 3", 0, "x = 1\n    y = 2\nz = 3"),
        ("x = 1\n\n    y = 2\n\n\ndef g", 4, "x = 1\n\n    y = 2"),
        ("x = 1\n\t\ty = 2\n\tz", 2, "x = 1\n\t\ty = 2"),
        ("x = 1\n   y", 4, "x = 1"),
        ("x", 8, "x"),  # the first line has its indentation already
    ],
)
def test_less_indentation_ends_the_text(raw, n_indent, expected):
    assert shown("", raw, "", n_indent=n_indent) == expected
    assert shown_text(raw, Place("", "", n_indent=n_indent)).is_over == (expected != raw)


def test_stop_strings():
    place = Place("", "", stop=["\n\n", "STOP", ""])
    assert shown_text("a STOP b\n\n", place).text == "a"
    assert shown_text("a STOP b\n\n", place).stopping_word == "STOP"
    assert shown_text("a\n\nb STOP", place).stopping_word == "\n\n"
    assert shown_text("a ST", place).text == "a"
    assert shown_text("a STa", place).text == "a STa"
    assert not shown_text("a ST", place).is_over
    assert shown_text("a ST", place, "complete").text == "a ST"


@pytest.mark.parametrize(
    ("before", "stop", "raw"),
    [
        ("x = ", " <EOT", " <EOT"),
        ("x = ", "  # end", "  # end"),
        ("return\t", " \n\n", " \n\n"),
        ("x = ", " y", "  yes y"),
        ("x = ", "   STOP", "    STOP"),
        ("x = ", "a b", "  a b"),
    ],
)
def test_a_stop_string_with_blanks_in_front_is_held_back_from_its_first_one(before, stop, raw):
    place = Place(before, "\n", stop=(stop,))
    last = shown_text(raw, place)
    assert last.stopping_word == stop
    for n in range(len(raw)):
        assert last.text.startswith(shown_text(raw[:n], place).text)


def test_how_many_lines():
    assert shown("x = ", "1\ny = 2", "\n") == "1\ny = 2"
    assert shown("x = ", "1\ny = 2", "\n", lines="single") == "1"
    assert shown("f(", "\n    x,\n", ")", lines="multiple") == "\n    x,\n"


@pytest.mark.parametrize(
    ("before", "raw", "expected"),
    [
        ("x = 1\n", "a()\na()\na()\n", "a()"),
        ("x = 1\n", "a()\nb()\na()\nb()\nc()\n", "a()\nb()"),
        ("a()\nb()\n", "a()\nb()\na()\n", ""),
        ("a()\nb()\na()\n", "b()\nc()", "b()\nc()"),  # the user has begun to say it again
        ("a = 1\na = ", "1\n", "1"),
        ("def f():\n    ", "a()\n    a()", "a()"),
        ("x = 1\n", "a(\n    1,\n)\nb(\n    2,\n)\n", "a(\n    1,\n)\nb(\n    2,\n)"),
        ("x = [\n", "    (1),\n    ),\n    ),\n", "    (1),\n    ),\n    ),"),  # no letter, no digit
        ("", "".join(f"f({n})\n" for n in range(40)), "".join(f"f({n})\n" for n in range(40)).rstrip()),
    ],
)
def test_lines_that_come_a_second_time_are_no_answer(before, raw, expected):
    assert shown(before, raw, "") == expected
    now = [shown_text(raw[:n], Place(before, "")) for n in range(len(raw) + 1)]
    assert now[-1].is_over == (expected != raw.rstrip() and raw.endswith("\n") and expected != "1")


def test_eight_lines_may_come_again_and_that_is_seen():
    block = "".join(f"f({n})\n" for n in range(8))
    assert shown("", block * 2, "") == block.rstrip()
    assert shown("x\n", f"y\n{block}" * 2, "") == f"y\n{block}".rstrip() + f"\ny\n{block}".rstrip()


def test_text_in_doubt_is_held_back():
    place = Place("def f(x):\n    ", "\n    return y\n")
    pieces = [
        "y",
        "y =",
        "y = x",
        "y = x\n",
        "y = x\n    re",
        "y = x\n    res",
        "y = x\n    res = y\n    return y\n",
    ]
    assert [shown_text(piece, place).text for piece in pieces] == [
        "y",
        "y =",
        "y = x",
        "y = x",
        "y = x",
        "y = x\n    res",
        "y = x\n    res = y",
    ]


def test_long_lines_take_no_long_time():
    # With a square of the line's length, this would take hours.
    assert shown("f(", "x)", ")" * 1_000_000) == "x"


PARTS = st.sampled_from(
    [
        "x",
        "y",
        " ",
        "    ",
        "\n",
        "\n\n",
        "  \n",
        "return y",
        "re",
        "(",
        ")",
        "]",
        '"',
        "'",
        ":",
        "\n    return y",
        "STOP",
        "ST",
        "\t",
    ]
)
REPEATED = st.tuples(st.lists(PARTS, max_size=4).map("".join), st.integers(1, 3)).map(
    lambda it: it[0] * it[1]
)
TEXTS = st.lists(PARTS, max_size=14).map("".join) | st.lists(REPEATED, max_size=4).map("".join)
AROUND = st.lists(PARTS, max_size=6).map("".join)


def assert_nothing_is_taken_back(raw, place, end):
    before = ""  # what has been shown
    for n in range(len(raw) + 1):
        now = shown_text(raw[:n], place)
        assert now.text.startswith(before)
        before = now.text
        if now.is_over:
            assert shown_text(raw, place, end) == now
            return
    assert shown_text(raw, place, end).text.startswith(before)


@settings(max_examples=500)
@given(
    AROUND,
    TEXTS,
    AROUND,
    st.integers(0, 4),
    st.lists(
        st.sampled_from(["STOP", "\n\n", ")x", "return", " y", "  x", " ", "    return", " \n", "\tx", " ST"])
        | TEXTS,
        max_size=2,
    ),
    st.sampled_from(["auto", "single", "multiple"]),
    st.sampled_from(["complete", "cut"]),
)
@example("", "\n    return yx", "\n    return y", 0, [], "auto", "complete")
@example("", "yxx", "", 0, ["x", "yxx"], "auto", "complete")
@example("", "yxx", "", 0, ["xx", "yxx"], "auto", "complete")
@example("x = ", " <EOT", "\n", 0, [" <EOT"], "auto", "complete")
def test_nothing_is_ever_taken_back(before, raw, after, n_indent, stop, lines, end):
    assert_nothing_is_taken_back(raw, Place(before, after, n_indent, tuple(stop), lines), end)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("f(n, g(n, " * 6, "f(n, g(n, " * 2),
        ("x = a.bcdef.bcdef.bcdef.bcdef", "x = a.bcdef.bcdef.bcdef.bcdef"),  # too short a piece
        ("x = a.bcdefgh.bcdefgh.bcdefgh.b", "x = a.bcdefgh.bcdefgh"),
        ("x = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "x = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"),
        ("# ------------------------------ end", "# ------------------------------ end"),
        ("abcdefgh" * 2 + "abcdefg", "abcdefgh" * 2 + "abcdefg"),
        ("x = '" + "ab cd ef gh ij kl mn op " * 3, "x = '" + "ab cd ef gh ij kl mn op " * 2),
    ],
)
def test_a_text_that_goes_in_circles_ends(raw, text):
    found = shown_text(raw, Place("", "", lines="multiple"), "complete")
    assert found.text == text.rstrip()
    assert found.is_over == (text != raw)


CIRCLES = st.lists(st.sampled_from(["abcdefgh", "x, ", "0, 0, 0, ", "\n    ", "        "]), max_size=14).map(
    "".join
)


@given(AROUND, CIRCLES, AROUND, st.sampled_from(["complete", "cut"]))
def test_nor_is_anything_taken_back_of_circles(before, raw, after, end):
    assert_nothing_is_taken_back(raw, Place(before, after), end)


@given(AROUND, TEXTS, AROUND)
def test_blank_text_is_no_text(before, raw, after):
    text = shown(before, raw, after)
    assert text == "" or text.strip()
