r"""Oracles: the seven rules, one function each; splits stored from the `regex` package; the table by hand.

The stored splits came from `regex.findall(EXPRESSION, text)`, regex 2026.11.15, with the expression of
the lesson.
"""

import functools
import itertools
import string
import unicodedata

from techtree.techs import aim, battery


def cases(*texts: str, label: str = "") -> list[battery.Case]:
    """One case for each text, the shortest first."""
    return [battery.Case(label, (text,)) for text in sorted(texts, key=len)]


PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
TABLE = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(256 + n) for n, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))
}
BACK = {character: byte for byte, character in TABLE.items()}


def spelled(data: bytes) -> str:
    return "".join(TABLE[byte] for byte in data)


def test_the_table_of_bytes(impl):
    # The others, in order: 0 to 32 are the first 33, 127 the 34th, 128 to 160 follow, 173 is the 68th.
    by_hand = {0: 0x100, 10: 0x10A, 32: 0x120, 127: 0x121, 128: 0x122, 160: 0x142, 173: 0x143, 255: 255}
    assert {byte: ord(TABLE[byte]) for byte in by_hand} == by_hand
    impl.bytes_to_unicode().update(dict.fromkeys(range(256), "?"))  # at the first call, and again below
    # The order of the keys counts, and the sweep empties the first dictionary before it asks for another.
    battery.sweep_plain(impl.bytes_to_unicode, lambda: dict(TABLE), [battery.Case("no argument", ())])
    impl.bytes_to_unicode().update(dict.fromkeys(range(256), "?"))
    assert impl.visible(b" a") == "Ġa"
    assert impl.from_visible("Ġa") == b" a"


def all_bytes(rng) -> list[bytes]:
    """Every byte, hostile texts, and more of several lengths. Few: some make the table anew for each byte."""
    lengths = (1, 2, 3, 4, 5, 33, 130, 257, *aim.sizes(1100, at_most=9000))
    found = [bytes([byte, byte]) for byte in range(256)] + [b"", b"a", b"\r\n", b"\xef\xbb\xbfa"]
    found += battery.HOSTILE_BYTES.values()
    found += [text.encode()[:40] for text in battery.HOSTILE_TEXTS.values()]
    found += [rng.bytes(n) for n in lengths]
    found += [b"a" + each.encode("utf-8", "surrogatepass")[:60] + b"\n" for each in aim.TEXTS]
    found += [b"x" * 70 + middle + b"y" * 70 for middle in (b"a", b"b", b"\xff")]
    return sorted(found, key=len)


def test_visible(impl, rng):
    assert impl.visible(" naïve\n".encode()) == "ĠnaÃ¯veĊ"
    assert impl.visible("é".encode()[:1]) == "Ã"  # half a character is fine: these are bytes
    battery.sweep_plain(impl.visible, spelled, [battery.Case("", (data,)) for data in all_bytes(rng)])


def test_as_many_bytes_as_the_source_names(impl, rng):
    for n in aim.sizes(at_most=300_000):
        data = rng.bytes(n)
        assert impl.from_visible(impl.visible(data)) == data, f"{n} bytes"


def test_from_visible(impl, rng):
    assert impl.from_visible("Ġdef") == b" def"
    texts = cases(*map(spelled, all_bytes(rng)))
    battery.sweep_plain(impl.from_visible, lambda text: bytes(BACK[character] for character in text), texts)


def test_from_visible_refuses_what_stands_for_no_byte(impl):
    """Also what normalization, small letters or a remainder would make a byte of; alone and in any place."""
    codes = [*range(0x300), *range(0x2100, 0x2150), *range(0xFB00, 0xFB07), *range(0xFF00, 0xFF60)]
    codes += [*range(0x1000, 0x110000, 0x1FFF), 0xD800, 0xDFFF, 0xFEFF, 0xFFFF, 0x10FFFF]
    strangers = [character for character in map(chr, codes) if character not in BACK]
    anywhere = ("{}a", "a{}", "a{}b", "Ġ" * 130 + "{}", "{}" + "a" * 130)
    texts = [form.format(stranger) for form in anywhere for stranger in " \n\0\xa0\xad\u0144東"]
    for n in aim.sizes(at_most=9000):
        texts += ["a" * n + " ", "\u6771" + "a" * n]
    for text in [*strangers, *texts]:
        battery.refuses(impl.from_visible, text)


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


@functools.cache  # the same texts are asked of every version
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


def check(impl, *texts: str) -> None:
    """Compare at once; where that is wrong the sweep draws it."""
    for text in texts:
        if impl.split(text) != slow_split(text):
            battery.sweep_plain(impl.split, slow_split, cases(text))
            raise battery.MismatchError(f"the first call was wrong: {battery.drawn(text)}")


def test_stored_splits(impl):
    assert {text: slow_split(text) for text in STORED} == STORED
    battery.sweep_plain(impl.split, STORED.get, cases(*STORED))


def test_hostile_texts(impl, rng):
    """Each alone, and two after one another, so that the end of one meets the start of the other."""
    hostile = (
        battery.texts(at_most=1000) | battery.LONE_SURROGATES | {"two halves in order": "a\ud83d\ude00b"}
    )
    by_length = sorted(hostile.items(), key=lambda item: len(item[1]))
    battery.sweep_plain(impl.split, slow_split, [battery.Case(label, (text,)) for label, text in by_length])
    every = [*battery.HOSTILE_TEXTS.values(), *battery.LONE_SURROGATES.values()]
    for first in (
        "a\0",
        "\r\n",
        "\ufeff",
        " ",
        "\t",
        "'",
        *(every[i] for i in rng.integers(len(every), size=5)),
    ):
        check(impl, *(first + text for text in every))


def test_the_time_is_proportional_to_the_length(impl):
    """CPU time: eight times the text takes about 8 times as long, and 64 where it grows with the square."""
    units = [(each, 12, "\t1") for each in (" ", "\t\n", "a ", "!", "' ")]
    units += [("東1", 6, "\t1"), ("東1", 20, "\t1"), (" ", 12, ""), ("\n ", 12, ""), ("\t", 12, "é")]
    for unit, k, end in units:

        def text(k: int, unit=unit, end=end) -> str:
            return unit * k**3 + end  # from k to 2k: eight times as long

        assert any(battery.growth(impl.split, text, k, n_runs=1) < 20 for _ in range(4)), unit


def test_every_short_text_over_one_character_of_each_sort(impl):
    """11 characters up to length 4: each rule meets each other rule at each of its ends."""
    for length in range(5):
        check(impl, *map("".join, itertools.product("as1' \t\n\r!\x85\x1c", repeat=length)))


def test_contractions(impl):
    """Every two letters of ASCII after an apostrophe, and what looks alike; contractions in any place."""
    alike = "1 ſ\u212a\u0131\u0130é"
    check(impl, *(f"x'{a}{b}z" for a, b in itertools.product(string.ascii_letters + alike, repeat=2)))
    for sign, ending in itertools.product(
        "'`\u2019\u02bc\uff07\u00b4\"", ("s", "T", "re", "Ve", "lL", "M", "d", "ſ")
    ):
        for before in ("", "x", " ", "'", "1", "é", "\n", "s'", "'x"):
            check(
                impl,
                *(f"{before}{sign}{ending}{after}" for after in ("", "a", "'s", " ", "1", "\u0301", "é")),
            )


def test_letters_that_look_like_those_of_a_contraction(impl):
    """With accents, in other widths and types: of all of Unicode the old long s alone counts as an s."""
    for character in map(chr, [*range(0x80, 0x250), *range(0x1E00, 0x1F00), *range(0x1D400, 0x1D6A6)]):
        if unicodedata.normalize("NFKD", character)[0] in "stmdlrevSTMDLREV" or character in "ſłđŧßŉ":
            check(impl, *(f"x'{form.format(character)}a" for form in ("{}", "l{}", "{}l", "r{}", "{}e")))


@functools.cache
def edges() -> list[int]:
    """Beyond U+3100, where one kind of character ends and another begins: every block has two such places."""
    codes = [*range(0x3100, 0x32400), *range(0xE0000, 0xE0200)]
    kinds = ["Cn", *map(unicodedata.category, map(chr, codes)), "Cn"]
    kinds = [each if each == "Cn" else each[0] if each[0] in "LN" else "other" for each in kinds]
    inner = zip(codes, kinds, kinds[1:], kinds[2:], strict=False)
    return [code for code, before, own, after in inner if not before == own == after]


def test_characters_from_all_of_unicode(impl):
    """The scripts below U+3100 whole, of the rest every 97th character, and those where kinds change.

    Characters that are not assigned yet are left out.

    Each stands between a sign and a letter, to which each kind of character sticks in its own way; those that
    may be taken for whitespace, or for other letters, in two more places.
    """
    codes = [
        *range(0x3100),
        *range(0x3100, 0x110000, 97),
        *edges(),
        0xD800,
        0xDBFF,
        0xDC00,
        0xDFFF,
        *range(0xFE00, 0x10000),
    ]
    # U+1FFF, before the first of the wide spaces, is not assigned; U+FFFE and its like will never be.
    sample = [c for c in map(chr, codes) if unicodedata.category(c) != "Cn" or ord(c) & 0xFFFE == 0xFFFE]
    sample.append("\u1fff")
    delicate = [c for c in sample if unicodedata.category(c)[0] in "ZC" or c.casefold() != c]
    for context, characters in (("1!{}a1", sample), ("x'{}a ", delicate), (" {}\n", delicate)):
        for start in range(0, len(characters), 64):
            some = [context.format(character) for character in characters[start : start + 64]]
            if impl.split("".join(some)) != slow_split("".join(some)):
                check(impl, *some, "".join(some))


def test_random_texts(impl, rng):
    """Characters from all over Unicode, in proportions that make runs of every kind."""
    common = list("aeslLtTrvmdS'''  \n\n\r\t!._-09")
    rare = list(
        "ſ²½ⅧÅéßªĿ東ا\u0301\u20dd\x85\xa0\u2003\u3000\u200b\x1c\x1f\x01\u180e€’´👍\U0001d7d8\U00020000K\ud800"
    )
    drawn = [
        "".join(rng.choice(common + rare * (rng.random() < 0.5), size=rng.integers(1, 40)))
        for _ in range(300)
    ]
    battery.sweep_plain(impl.split, slow_split, cases(*drawn))


def test_runs_of_any_length(impl):
    """Each run stands after a letter and before each sort; as long as a byte may count, and longer."""
    units = (
        "a",
        "é",
        "7",
        "!",
        "\u0301",
        " ",
        "\t",
        "\u3000",
        "\n",
        "\r\n",
        " \n",
        "'",
        "' ",
        "-\n",
        "\ufeff",
    )
    for unit in units:
        for n in (*range(1, 12), 16, 17, 31, 32, 33, 64, 65, 99, 100, 101, 128, 129, 256, 257):
            check(impl, *(f"b{unit * n}{tail}" for tail in ("", "c", "!", "1", " ", "\n")))
        check(impl, *(f"b!{unit * n}x " for n in (1023, 1024, 1025, 4097)))
    for unit in ("a", " ", "\n", "é", "\u3000"):
        check(impl, f"b{unit * 200_001}x ")
    for n in aim.sizes(at_most=9000):
        check(impl, f"{'b' * n}1{'!' * n}x{' ' * n}x{chr(10) * n}1", "a 1! " * (n // 5 + 1) + "'ll\t\t1")


def test_texts_of_equal_length_are_told_apart(impl):
    """Alike at both ends and in length, or but for case and accents: no answer may come from another text."""
    middles = ("xy", "x ", "1y", "X'", "é ", "\n\n")
    alike = (
        "x'ssa",
        "x'ßa",
        "x'SSa",
        "x'\u212aa",
        "x'ka",
        "x'e\u0301",
        "x'é",
        "a  b",
        "a b",
        "a\tb",
        "a\r\nb",
        "a\nb",
    )
    battery.sweep_plain(impl.split, slow_split, cases(*alike))
    battery.sweep_plain(
        impl.split, slow_split, cases(*("ab 1" * 100 + middle + " cd!" * 100 for middle in middles))
    )
