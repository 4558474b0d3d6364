r"""Oracles: the seven rules, one function each; splits stored from the `regex` package; the table by hand.

The stored splits came from `regex.findall(EXPRESSION, text)`, regex 2026.11.15, with the expression of
the lesson.
"""

import itertools
import unicodedata

import pytest

WHITESPACE = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(code) for code in range(0x2000, 0x200B)
}


def kind(character: str) -> str:
    if character in WHITESPACE:
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "other")


def run_of(text, at, *kinds) -> int:
    """Where the run of characters of these kinds that begins at `at` ends."""
    while at < len(text) and kind(text[at]) in kinds:
        at += 1
    return at


def contraction(text, at):
    for ending in ("s", "t", "re", "ve", "m", "ll", "d"):
        found = text[at + 1 : at + 1 + len(ending)].replace("ſ", "s").lower()
        # The sign for a kelvin and its like have small letters in ASCII; none is in a contraction.
        if text[at] == "'" and found == ending:
            return at + 1 + len(ending)
    return at


def word(text, at):
    prefix = kind(text[at]) in ("space", "other") and text[at] not in "\r\n"
    end = run_of(text, at + prefix, "letter")
    return end if end > at + prefix else at


def number(text, at):
    return at + (kind(text[at]) == "number")


def signs(text, at):
    start = at + (text[at] == " ")
    end = run_of(text, start, "other")
    if end == start:
        return at
    while end < len(text) and text[end] in "\r\n":
        end += 1
    return end


def lines(text, at):
    run = text[at : run_of(text, at, "space")]
    return at + 1 + max(run.rfind("\r"), run.rfind("\n"))


def all_but_the_last_space(text, at):
    end = run_of(text, at, "space")
    return end if end == len(text) else max(at, end - 1)


def spaces(text, at):
    return run_of(text, at, "space")


RULES = (contraction, word, number, signs, lines, all_but_the_last_space, spaces)


def slow_split(text):
    pieces, at = [], 0
    while at < len(text):
        end = next(end for rule in RULES if (end := rule(text, at)) > at)
        pieces.append(text[at:end])
        at = end
    return pieces


# Stored: what the expression does to texts on which careless versions differ.
STORED = {
    "": [],
    "a": ["a"],
    " ": [" "],
    "def f(x):\n    return x + 1\n": [
        "def", " f", "(x", "):\n", "   ", " return", " x", " +", " ", "1", "\n",
    ],
    "it's IT'S we'Ll I'Ve 'tis": ["it", "'s", " IT", "'S", " we", "'Ll", " I", "'Ve", " '", "tis"],
    "x'sa x'ta x'red x'lla": ["x", "'s", "a", " x", "'t", "a", " x", "'re", "d", " x", "'ll", "a"],
    "x'Sa x'LLa x'rEa x'Da": ["x", "'S", "a", " x", "'LL", "a", " x", "'rE", "a", " x", "'D", "a"],
    "x'ßa x'ŉa": ["x", "'ßa", " x", "'ŉa"],
    "x'ſa x'ſ": ["x", "'ſ", "a", " x", "'ſ"],
    "x'vea x'mE x'me x'dx": ["x", "'ve", "a", " x", "'m", "E", " x", "'m", "e", " x", "'d", "x"],
    "x’s x’sa": ["x", "’s", " x", "’sa"],
    "dog dog. dog!": ["dog", " dog", ".", " dog", "!"],
    "snake_case __init__ _x": ["snake", "_case", " __", "init", "__", " _", "x"],
    "self.x=-1": ["self", ".x", "=-", "1"],
    "2024 3.14 x²½ Ⅷ ٣": ["2", "0", "2", "4", " ", "3", ".", "1", "4", " x", "²", "½", " ", "Ⅷ", " ", "٣"],
    "naïve Straße 東京 привет": ["naïve", " Straße", " 東京", " привет"],
    "e\u0301x": ["e", "\u0301x"],
    "一二 ªº": ["一二", " ªº"],
    "a\r\nb\rc\n\nd": ["a", "\r\n", "b", "\r", "c", "\n\n", "d"],
    "a \n b": ["a", " \n", " b"],
    "a\n  \n   b": ["a", "\n  \n", "  ", " b"],
    "a   b": ["a", "  ", " b"],
    "a   1": ["a", "  ", " ", "1"],
    "a  +": ["a", " ", " +"],
    "a   ": ["a", "   "],
    "a\tb\t\tc": ["a", "\tb", "\t", "\tc"],
    "\t1 \t+": ["\t", "1", " ", "\t", "+"],
    "a\v\vb \f\n\v!": ["a", "\v", "\vb", " \f\n", "\v", "!"],
    "a\xa0b\u3000\u3000c": ["a", "\xa0b", "\u3000", "\u3000c"],
    "a\x85\x85b": ["a", "\x85", "\x85b"],
    "a\x1c\x1db c\x1f": ["a", "\x1c\x1d", "b", " c", "\x1f"],
    "!\x1c!": ["!\x1c!"],
    "a\u200b\u180e\ufeffb": ["a", "\u200b\u180e\ufeff", "b"],
    "):\r\n\r\n  x": ["):\r\n\r\n", " ", " x"],
    " !\n !": [" !\n", " !"],
    "\u3000!": ["\u3000", "!"],
    "👩‍💻 👍🏽ok": ["👩‍💻", " 👍🏽", "ok"],
    "\u2028x\u2029\n": ["\u2028x", "\u2029\n"],
    "\x00\x00a \x00a": ["\x00\x00", "a", " \x00", "a"],
}  # fmt: skip


@pytest.mark.parametrize("text", STORED)
def test_stored_splits(impl, text):
    assert slow_split(text) == STORED[text]
    assert impl.split(text) == STORED[text]


def test_every_short_text_over_one_character_of_each_sort(impl):
    """11 characters up to length 4: each rule meets each other rule at each of its ends."""
    for length in range(5):
        for characters in itertools.product("as1' \t\n\r!\x85\x1c", repeat=length):
            text = "".join(characters)
            assert impl.split(text) == slow_split(text), repr(text)


def test_random_texts(impl, rng):
    """Characters from all over Unicode, in proportions that make runs of every kind."""
    common = list("aeslLtTrvmdS'''  \n\n\r\t!._-09")
    rare = list(
        "ſ²½ⅧÅéßªĿ東ا\u0301\u20dd\x85\xa0\u2003\u3000\u200b\x1c\x1f\x00\u180e€’´👍\U0001d7d8\U00020000K\ud800"
    )
    for _ in range(300):
        text = "".join(rng.choice(common + rare * (rng.random() < 0.5), size=rng.integers(1, 40)))
        assert impl.split(text) == slow_split(text), repr(text)


def test_characters_from_all_of_unicode_stick_as_their_category_says(impl):
    """The scripts below U+3100 whole, of the rest every 97th character; without those not assigned yet."""
    codes = [*range(0x3100), *range(0x3100, 0xD800, 97), *range(0xE000, 0x110000, 97)]
    sample = [c for c in map(chr, codes) if unicodedata.category(c) != "Cn" and c not in "\r\n'"]
    # Between "!" and "a", each kind of character sticks to its neighbours in its own way.
    pieces = {
        "letter": lambda c: ["1", f"!{c}a", "1"],
        "number": lambda c: ["1", "!", c, "a", "1"],
        "space": lambda c: ["1", "!", f"{c}a", "1"],
        "other": lambda c: ["1", f"!{c}", "a", "1"],
    }
    got = impl.split("".join(f"1!{c}a1" for c in sample))
    assert got == [piece for c in sample for piece in pieces[kind(c)](c)]


def test_pieces_join_to_the_text_and_none_is_empty(impl, rng):
    for _ in range(50):
        text = "".join(map(chr, rng.choice(0xD000, size=rng.integers(0, 60))))
        pieces = impl.split(text)
        assert isinstance(pieces, list)
        assert all(isinstance(piece, str) and piece for piece in pieces)
        assert "".join(pieces) == text


def test_a_text_is_cut_alike_wherever_it_stands(impl):
    """Nothing of one text may be left over for the next."""
    for text in ("x  y", "a\n", "naïve 'ſa", "x  y"):
        assert impl.split(text) == slow_split(text)
        assert impl.split(text) == slow_split(text)


LONG = 200_000
"""Long enough that a time that grows with the square would pass the limit of a test."""


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" " * LONG + "x", [" " * (LONG - 1), " x"]),
        ("\t" * LONG + "1", ["\t" * (LONG - 1), "\t", "1"]),
        ("\n" * LONG + " x", ["\n" * LONG, " x"]),
        ("a" * LONG, ["a" * LONG]),
        ("é" * LONG + "!", ["é" * LONG, "!"]),
        ("!" * LONG + "\n", ["!" * LONG + "\n"]),
        ("7" * 5 * LONG, ["7"] * 5 * LONG),
        ("' " * LONG, ["'", *[" '"] * (LONG - 1), " "]),
    ],
    ids=["spaces", "tabs", "lines", "letters", "accents", "signs", "digits", "quotes"],
)
def test_long_runs(impl, text, pieces):
    assert impl.split(text) == pieces


def test_the_table_of_bytes_by_hand(impl):
    table = impl.bytes_to_unicode()
    assert isinstance(table, dict)
    assert sorted(table) == list(range(256))
    assert len(set(table.values())) == 256
    by_hand = {ord("!"): "!", ord("~"): "~", ord("A"): "A", 0xA1: "¡", 0xAC: "¬", 0xAE: "®", 0xFF: "ÿ"}
    # The others, in order: 0 to 32 are the first 33, 127 the 34th, 128 to 160 follow, 173 is the 68th.
    by_hand |= {
        0: "\u0100",
        10: "\u010a",
        32: "\u0120",
        127: "\u0121",
        128: "\u0122",
        160: "\u0142",
        173: "\u0143",
    }
    assert {byte: table[byte] for byte in by_hand} == by_hand
    assert all(table[byte] == chr(byte) for byte in [*range(33, 127), *range(161, 173), *range(174, 256)])


def test_the_table_is_in_the_order_of_its_characters(impl):
    characters = list(impl.bytes_to_unicode().values())
    assert characters == sorted(characters)
    assert list(impl.bytes_to_unicode())[:2] == [33, 34]
    assert list(impl.bytes_to_unicode())[-1] == 173


def test_the_table_is_new_each_time(impl):
    before = impl.bytes_to_unicode()
    impl.bytes_to_unicode().clear()
    impl.bytes_to_unicode()[32] = "?"
    assert impl.bytes_to_unicode() == before
    assert impl.visible(b" ") == "\u0120"
    assert impl.from_visible("\u0120") == b" "


def test_visible_by_hand(impl):
    assert impl.visible(b"") == ""
    assert impl.visible(b"def f():\n\t") == "defĠf():Ċĉ"
    assert impl.visible(" naïve".encode()) == "ĠnaÃ¯ve"
    assert impl.visible("é".encode()[:1]) == "Ã"  # half a character is fine: these are bytes
    assert impl.visible(b"\x00\x7f\xad\xff") == "ĀġŃÿ"


def test_visible_and_back(impl, rng):
    for data in (bytes(range(256)), bytes(reversed(range(256))), rng.bytes(1000), b"", b"\xff" * 3):
        text = impl.visible(data)
        assert isinstance(text, str)
        assert len(text) == len(data)
        assert text.isprintable()
        assert not any(character.isspace() for character in text)
        back = impl.from_visible(text)
        assert isinstance(back, bytes)
        assert back == data


def test_from_visible_by_hand(impl):
    assert impl.from_visible("") == b""
    assert impl.from_visible("Ġdef") == b" def"
    assert impl.from_visible("Ã©") == "é".encode()
    assert impl.from_visible("!~¡¬®ÿ") == b"!~\xa1\xac\xae\xff"


@pytest.mark.parametrize(
    "stranger", [" ", "\n", "\x00", "\x7f", "\x80", "\xa0", "\xad", "\u0144", "\u0220", "東", "👍"]
)
def test_from_visible_refuses_what_stands_for_no_byte(impl, stranger):
    for text in (stranger, f"a{stranger}", f"{stranger}b"):
        with pytest.raises(ValueError):  # noqa: PT011, the message is the writer's
            impl.from_visible(text)
