"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import itertools
import re
import sys
import time
import unicodedata

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"


def _by_words(text):
    return re.findall(r"\w+|\W+", text)


def _at_whitespace(text):
    return text.split()


def _nothing_lost_at_whitespace(text):
    return re.findall(r"\s*\S+|\s+", text)


def _gpt2(text):
    return re.findall(GPT2, text)


def _ascii_only(text):
    """The expression for ASCII on text that is not."""
    return re.findall(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        text,
        flags=re.ASCII,
    )


def _with_classes_of_re(text):
    r"""Read \p{L} as [^\W\d_], which holds numbers such as Ⅷ and ² as well, and \p{N} as \d."""
    return re.findall(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:(?!\r|\n)[\W_])?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        text,
    )


def _split_lines_first(text):
    return [piece for line in text.splitlines(keepends=True) for piece in _scanner(line)]


def _with_an_empty_piece_at_the_end(text):
    return [*_scanner(text), ""]


def _without_a_mark(text):
    return _scanner(text.removeprefix("\ufeff"))


def _one_kind_of_line_end(text):
    return _scanner(text.replace("\r\n", "\n"))


def _like_a_file(text):
    """Through UTF-8, which cannot write halves of surrogate pairs."""
    return _scanner(text.encode("utf-8", "replace").decode("utf-8"))


def _refusing_halves(text):
    text.encode("utf-8")
    return _scanner(text)


def _with_pairs_joined(text):
    return _scanner(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))


def _ending_at_nul(text):
    return _scanner(text.partition("\0")[0])


def _widths_made_alike(text):
    return _scanner(unicodedata.normalize("NFKC", text))


def _remembering():
    known = {}

    def split(text):
        if text not in known:
            known[text] = _scanner(text)
        return known[text]

    return split


def _tuple_of_pieces(text):
    return tuple(_scanner(text))


def _all_to_themselves():
    return {byte: chr(byte) for byte in range(256)}


def _moved_by_256():
    return {byte: new if ord(new) == byte else chr(256 + byte) for byte, new in _right_table().items()}


def _soft_hyphen_is_printable():
    printable = [*range(33, 127), *range(161, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def _delete_is_printable():
    printable = [*range(33, 128), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def _in_the_order_of_the_bytes():
    return dict(sorted(_right_table().items()))


def _keyed_by_character():
    return {character: byte for byte, character in _right_table().items()}


def _visible_text(data):
    return "".join(_right_table()[ord(character)] for character in data.decode("utf-8"))


def _visible_without_edges(data):
    return "".join(_right_table()[byte] for byte in data.strip())


def _reads_composed(text):
    back = {character: byte for byte, character in _right_table().items()}
    text = unicodedata.normalize("NFKC", text)
    if not back.keys() >= set(text):
        raise ValueError("strangers")
    return bytes(back[character] for character in text)


def _reads_what_is_below_256_as_itself(text):
    back = {chr(byte): byte for byte in range(256)} | {c: byte for byte, c in _right_table().items()}
    if not back.keys() >= set(text):
        raise ValueError("strangers")
    return bytes(back[character] for character in text)


def _looks_at_the_first_character(text):
    back = {character: byte for byte, character in _right_table().items()}
    if text and text[0] not in back:
        raise ValueError("a stranger")
    return bytes(back.get(character, 63) for character in text)


def _list_of_bytes(text):
    return list(_looped_from_visible(text))


def _drops_strangers(text):
    back = {character: byte for byte, character in _right_table().items()}
    return bytes(back[character] for character in text if character in back)


def _key_error(text):
    back = {character: byte for byte, character in _right_table().items()}
    return bytes(back[character] for character in text)


def _keeps_strangers(text):
    back = {character: byte for byte, character in _right_table().items()}
    return b"".join(bytes([back[c]]) if c in back else c.encode("utf-8", "surrogatepass") for c in text)


MISTAKES = {
    "split takes words and what is between them, so that digits and _ join letters": {"split": _by_words},
    "split drops the whitespace": {"split": _at_whitespace},
    "split cuts before whitespace only, so that signs stay on words": {"split": _nothing_lost_at_whitespace},
    "split is GPT-2's, which keeps numbers whole and lets only a space join a word": {"split": _gpt2},
    "split knows the letters of ASCII only": {"split": _ascii_only},
    "split takes re's \\w and \\d for letters and numbers: Ⅷ becomes a letter, ² a sign": {
        "split": _with_classes_of_re
    },
    "split composes accents (NFC), so that the pieces are not the text": [
        ("plain = text if", "text = unicodedata.normalize('NFC', text)\n    plain = text if")
    ],
    "split cuts the lines apart first, so that runs of newlines come apart": {"split": _split_lines_first},
    "split ends with an empty piece": {"split": _with_an_empty_piece_at_the_end},
    "split gives one empty piece for an empty text": {"split": lambda text: _scanner(text) or [""]},
    "split gives a tuple": {"split": _tuple_of_pieces},
    "split drops a byte order mark": {"split": _without_a_mark},
    "split makes line ends alike": {"split": _one_kind_of_line_end},
    "split ends the text at NUL": {"split": _ending_at_nul},
    "split normalizes compatible characters (NFKC)": {"split": _widths_made_alike},
    "split puts a question mark for half of a surrogate pair": {"split": _like_a_file},
    "split refuses half of a surrogate pair": {"split": _refusing_halves},
    "split makes one character of two halves": {"split": _with_pairs_joined},
    "split takes half of a surrogate pair for a letter": [('"N": "0"}', '"N": "0", "C": "x"}')],
    "split hands out a list that it remembers, which a caller may change": {"split": _remembering()},
    "split reads the rest of the text again for each piece": [
        (
            "    return [text[match.start() : match.end()] for match in _WORD.finditer(plain)]\n",
            "    pieces = []\n    while text:\n"
            "        plain = text if text.isascii() else text.translate(_STAND_INS)\n"
            "        pieces.append(text[: _WORD.match(plain).end()])\n"
            "        text = text[len(pieces[-1]) :]\n    return pieces\n",
        )
    ],
    "split cuts words after 1,000 letters": [
        ("[^\\r\\nA-Za-z0-9]?[A-Za-z]+", "[^\\r\\nA-Za-z0-9]?[A-Za-z]{1,1000}")
    ],
    "split lets two signs join a word": [
        ("[^\\r\\nA-Za-z0-9]?[A-Za-z]+", "[^\\r\\nA-Za-z0-9]{0,2}[A-Za-z]+")
    ],
    "split takes the underscore for a letter": [
        ("[^\\r\\nA-Za-z0-9]?[A-Za-z]+", "[^\\r\\nA-Za-z0-9_]?[A-Za-z_]+")
    ],
    "split lets two spaces join signs": [("| ?[^\\sA-Za-z0-9]+", "| {0,2}[^\\sA-Za-z0-9]+")],
    "split takes one newline after signs": [
        ("[^\\sA-Za-z0-9]+[\\r\\n]*", "[^\\sA-Za-z0-9]+(?:\\r?\\n|\\r)?")
    ],
    "split has no rule for carriage returns alone": [("|\\s*[\\r\\n]+|", "|\\s*\\n+|")],
    "split keeps the last of the whitespace at the end of a text apart": [
        ("|\\s+(?!\\S)|", "|\\s+(?=\\s)|")
    ],
    "split lacks the contraction 've": [("'re|'ve|'m|'ll|'d)|[", "'re|'m|'ll|'d)|[")],
    "split knows 'n, of rock'n'roll, as a contraction": [("'ll|'d)|[", "'ll|'d|'n)|[")],
    "split takes a contraction only after a letter": [
        ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[", "(?i:(?<=[A-Za-z])(?:'s|'t|'re|'ve|'m|'ll|'d))|[")
    ],
    "split knows contractions all in small or all in capital letters only": [
        (
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[",
            "(?:'s|'t|'re|'ve|'m|'ll|'d|'S|'T|'RE|'VE|'M|'LL|'D)|[",
        )
    ],
    "split takes the sign for kelvin for an s, as the old long s": [
        ('elif character == "ſ"', 'elif character in "ſ\\u212a"')
    ],
    "split takes a typographic apostrophe for an apostrophe": [
        (
            '        elif character == "ſ"',
            '        elif code == 0x2019:\n            stand_in = chr(39)\n        elif character == "ſ"',
        )
    ],
    "split takes U+0085 and U+2028 for newlines": [
        ('stand_in = "\\t"', 'stand_in = "\\n" if code in (0x85, 0x2028) else "\\t"')
    ],
    "split takes the byte order mark for whitespace": [("0x205F, 0x3000}", "0x205F, 0x3000, 0xFEFF}")],
    "split takes letters beyond the first plane for signs": [
        (
            "kind = unicodedata.category(character)[0]",
            "kind = unicodedata.category(character)[0] if code < 65536 else 'S'",
        )
    ],
    "split keeps runs of digits whole": [("|[0-9]|", "|[0-9]+|")],
    "split takes at most three digits (Llama 3)": [("|[0-9]|", "|[0-9]{1,3}|")],
    "split knows contractions in small letters only": [
        ('r"(?i:', 'r"(?-i:'),
    ],
    "split has no contractions": [('r"(?i:\'s|\'t|\'re|\'ve|\'m|\'ll|\'d)|', 'r"')],
    "split does not know that (?i) makes a long s an s": [('elif character == "ſ"', "elif False")],
    "split lets a sign join a word only if it is a space": [("[^\\r\\nA-Za-z0-9]?[A-Za-z]+", " ?[A-Za-z]+")],
    "split lets a newline join a word": [("[^\\r\\nA-Za-z0-9]?[A-Za-z]+", "[^A-Za-z0-9]?[A-Za-z]+")],
    "split gives the space before a word to the whitespace": [("|\\s+(?!\\S)|", "|")],
    "split has no rule for whitespace with newlines in it": [("|\\s*[\\r\\n]+|", "|")],
    "split ends such a run at its first newline": [("|\\s*[\\r\\n]+|", "|\\s*?[\\r\\n]|")],
    "split cuts newlines off the signs before them": [("[^\\sA-Za-z0-9]+[\\r\\n]*", "[^\\sA-Za-z0-9]+")],
    "split takes no carriage return after signs": [("[^\\sA-Za-z0-9]+[\\r\\n]*", "[^\\sA-Za-z0-9]+\\n*")],
    "split leaves the space before signs alone": [("| ?[^\\sA-Za-z0-9]+", "|[^\\sA-Za-z0-9]+")],
    "split lets every whitespace join signs": [("| ?[^\\sA-Za-z0-9]+", "|\\s?[^\\sA-Za-z0-9]+")],
    "split takes U+001C to U+001F for whitespace, as Python does": [
        ("if code < 128:", "if 28 <= code < 32:\n            stand_in = '\\t'\n        elif code < 128:"),
        ("text if text.isascii() else text", "text"),
    ],
    "split does not take U+0085 for whitespace": [(" 0x85, 0xA0,", " 0xA0,")],
    "split takes the space of no width, U+200B, for whitespace": [("0x200B)", "0x200C)")],
    "split treats the wide space, U+3000, as a space": [('stand_in = "\\t"', 'stand_in = " "')],
    "split takes combining accents for letters": [('"N": "0"}', '"N": "0", "M": "x"}')],
    "split takes only decimal digits for numbers, and the rest of isalnum for letters": [
        ("unicodedata.category(character)[0]", "'LN'[character.isdecimal()] if character.isalnum() else 'O'")
    ],
    "bytes_to_unicode takes the soft hyphen, byte 173, for printable": {
        "bytes_to_unicode": _soft_hyphen_is_printable
    },
    "bytes_to_unicode takes DEL, byte 127, for printable": {"bytes_to_unicode": _delete_is_printable},
    "bytes_to_unicode adds 256 to each byte instead of counting the 68": {"bytes_to_unicode": _moved_by_256},
    "bytes_to_unicode maps every byte to itself": {"bytes_to_unicode": _all_to_themselves},
    "bytes_to_unicode is in the order of the bytes": {"bytes_to_unicode": _in_the_order_of_the_bytes},
    "bytes_to_unicode is the way back": {"bytes_to_unicode": _keyed_by_character},
    "bytes_to_unicode hands out one table, which a caller may change for all": [
        ("def bytes_to_unicode", "@__import__('functools').cache\ndef bytes_to_unicode")
    ],
    "bytes_to_unicode gives numbers instead of characters": {
        "bytes_to_unicode": lambda: {byte: ord(character) for byte, character in _right_table().items()}
    },
    "visible drops whitespace at the ends": {"visible": _visible_without_edges},
    "visible reads the bytes as UTF-8 first": {"visible": _visible_text},
    "visible reads the bytes as Latin-1, which leaves spaces and newlines": {
        "visible": lambda data: bytes(data).decode("latin-1")
    },
    "from_visible normalizes first (NFKC)": {"from_visible": _reads_composed},
    "from_visible takes all of Latin-1 as it is": {"from_visible": _reads_what_is_below_256_as_itself},
    "from_visible looks at the first character only": {"from_visible": _looks_at_the_first_character},
    "from_visible gives a list of numbers": {"from_visible": _list_of_bytes},
    "from_visible drops what stands for no byte": {"from_visible": _drops_strangers},
    "from_visible raises KeyError": {"from_visible": _key_error},
    "from_visible lets through what stands for no byte": {"from_visible": _keeps_strangers},
}  # fmt: skip


def _right_table():
    """Through Latin-1: what prints and is no space stands for itself."""
    table, n_others = {}, 0
    for byte in range(256):
        character = bytes([byte]).decode("latin-1")
        if not (character.isprintable() and not character.isspace()):
            character = chr(256 + n_others)
            n_others += 1
        table[byte] = character
    return dict(sorted(table.items(), key=lambda item: item[1]))


def _kind(character):
    category = unicodedata.category(character)[0]
    is_space = character.isspace() and character not in "\x1c\x1d\x1e\x1f"
    return "S" if is_space else category if category in "LN" else "O"


def _scanner(text):
    """One loop over the kinds of the characters, without any expression."""
    kinds = [_kind(character) for character in text] + ["end"]
    pieces, at = [], 0

    def run(start, kind):
        while kinds[start] == kind:
            start += 1
        return start

    while at < len(text):
        # Not upper(): the capital of ſ is S, but that of ß is SS.
        ahead = text[at : at + 3].replace("ſ", "s").lower()
        joins = kinds[at] in "SO" and text[at] not in "\r\n" and kinds[at + 1] == "L"
        if ahead[:2] in ("'s", "'t", "'m", "'d"):
            end = at + 2
        elif ahead in ("'re", "'ve", "'ll"):
            end = at + 3
        elif kinds[at] == "L" or joins:
            end = run(at + joins, "L")
        elif kinds[at] == "N":
            end = at + 1
        elif kinds[at] == "O" or (text[at] == " " and kinds[at + 1] == "O"):
            end = run(at + (text[at] == " "), "O")
            while text[end : end + 1] in ("\r", "\n"):
                end += 1
        else:
            end = run(at, "S")
            newline = max(text.rfind("\n", at, end), text.rfind("\r", at, end))
            if newline >= 0:
                end = newline + 1
            elif end < len(text) and end - at > 1:
                end -= 1
        pieces.append(text[at:end])
        at = end
    return pieces


@functools.cache
def _spelled_out():
    """The expression itself, its classes spelled out as ranges over all of Unicode."""

    def ranges(wanted):
        codes = (code for code in range(sys.maxunicode + 1) if _kind(chr(code)) == wanted)
        groups = itertools.groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0])
        runs = [[code for _, code in group] for _, group in groups]
        return "".join(f"{re.escape(chr(run[0]))}-{re.escape(chr(run[-1]))}" for run in runs)

    letter, number, space = ranges("L"), ranges("N"), ranges("S")
    return re.compile(
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n{letter}{number}]?[{letter}]+|[{number}]"
        rf"| ?[^{space}{letter}{number}]+[\r\n]*|[{space}]*[\r\n]+|[{space}]+(?![^{space}])|[{space}]+"
    )


def _looped_from_visible(text):
    back = dict(zip(_right_table().values(), _right_table(), strict=True))
    data = bytearray()
    for character in text:
        if character not in back:
            raise ValueError(f"{character!r} stands for no byte")
        data.append(back[character])
    return bytes(data)


EQUIVALENTS = {
    "split as one loop over kinds of characters": {"split": _scanner},
    "split by the expression with its classes spelled out": {
        "split": lambda text: [match.group() for match in _spelled_out().finditer(text)]
    },
    "split by the names of the kinds, the table from what Latin-1 prints": {
        "split": lambda text: _split_by_kinds(text),
        "bytes_to_unicode": _right_table,
    },
    "visible through str.translate, from_visible in a loop": {
        "visible": lambda data: bytes(data).decode("latin-1").translate(_right_table()),
        "from_visible": _looped_from_visible,
    },
}


_KINDS = re.compile(
    r"q(?:s|t|re|ve|m|ll|d)|[bwoq]?[stremvldx]+|0|b?[oq]+n*|[bwn]*n|[bwn]+(?=[bwn]|$)|[bwn]", re.ASCII
)
"""b: a blank, w: other whitespace, n: a line end, q: an apostrophe, o: another sign, x: another letter."""


def _split_by_kinds(text):
    def name(character):
        if character in "' \r\n":
            return {"'": "q", " ": "b"}.get(character, "n")
        kind = _kind(character)
        if kind == "L":
            letter = "s" if character == "\u017f" else character.lower() if character.isascii() else "x"
            return letter if letter in "stremvld" else "x"
        return {"N": "0", "S": "w"}.get(kind, "o")

    at, pieces = 0, []
    for match in _KINDS.finditer("".join(map(name, text))):
        pieces.append(text[at : match.end()])
        at = match.end()
    return pieces


HARMLESS = {
    "plain = text if text.isascii() else text.translate(_STAND_INS)"
    " => plain = text if False else text.translate(_STAND_INS)": "a text in ASCII stands in for itself",
    "others = [byte for byte in range(256) if byte not in printable]"
    " => others = [byte for byte in range(255) if byte not in printable]": "byte 255 is printable",
    "if code < 128: => if code <= 128:": "in ASCII, U+0080 is treated as any other sign",
    "if code < 128: => if code < 129:": "in ASCII, U+0080 is treated as any other sign",
    "if code < 128: => if code < 127:": "DEL is a sign, and gets one",
    "split: wrong for empty text": "no piece of an empty list is repeated",
    "bytes_to_unicode: right at the first call only": "a dictionary is handed on as it is",
    "visible: wrong for text with a byte order mark": "in bytes there is none",
    "from_visible: wrong for text with a byte order mark": "it stands for no byte",
    "from_visible: wrong for text with NUL": "it stands for no byte",
    "from_visible: wrong for text with CRLF": "they stand for no bytes",
}
"""Mutants that are the same program in other words, and why."""


def _growth(impl):
    """How many times as long eight times as many pieces take: "8" or "64", by the middle between them."""

    def seconds(n):
        text, start = "é1" * n, time.thread_time()
        impl.split(text)
        return time.thread_time() - start

    impl.split("é1" * 100)
    return "8" if any(seconds(800) < 23 * seconds(100) for _ in range(3)) else "64"


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    texts = {
        "signs and words": "if (x_1 >= 2024):\r\n\r\n    self.x = 3\n\n\n  y",
        "joining signs": "a--b a__b x  !",
        "an underscore": "_a a_b",
        "indentation": "a\n  \n   b   c  +  1   ",
        "contractions": "it's IT'Sa x'ſa x'sa x'rey",
        "a contraction in mixed letters": "x'Llx",
        "a contraction of two letters": "x'vex",
        "a contraction after a digit": "1'sa 'sa",
        "an n after an apostrophe": "x'nx",
        "the sign for kelvin": "x'\u212ax",
        "a typographic apostrophe": "x\u2019sx",
        "newlines": "a\n\nb !\n\n!\r\n \n\n",
        "signs before newlines": "!\n\n! !\r\r!",
        "carriage returns": "a\r\rb \r1",
        "line ends of two kinds": "a\r\nb\n",
        "one newline": "a\nb",
        "tabs": "\tx\t!\t\t1",
        "numbers": "x² Ⅷ½a 1234",
        "letters": "naïve 東京ªº",
        "letters beyond the first plane": "a\U00010348\U0001d54f",
        "a long word": "a" * 1001,
        "accents": "e\u0301a",
        "widths": "\uff21\ufb01",
        "whitespace": "a\x1c\x1da \x85\x85a\u3000!\u200ba\u200b!",
        "lines of other kinds": "a\x85\x85!\u2028\u20281",
        "a mark at the start": "\ufeffa!",
        "a mark inside": "1\ufeff!",
        "NUL": "a\0b",
        "half of a pair": "a\ud83d1",
        "two halves": "a\ud83d\ude00",
        "quotes": "'t 'tis",
        "the end": "a  ",
    }

    def joined(text):
        return lambda impl: "|".join(impl.split(text))

    def changed_table(impl):
        table = impl.bytes_to_unicode()
        table[32] = "?"
        return impl.bytes_to_unicode()[32]

    def changed_pieces(impl):
        [*impl.split("changed by its caller")]
        pieces = impl.split("changed by its caller")
        if isinstance(pieces, list):
            pieces.clear()
        return len(impl.split("changed by its caller"))

    return {f"split {name}": joined(text) for name, text in texts.items()} | {
        "pieces of split": lambda impl: len(impl.split("a b")),
        "pieces of nothing": lambda impl: len(impl.split("")),
        "what split returns": lambda impl: type(impl.split("a")).__name__,
        "pieces that a caller has changed": changed_pieces,
        "the growth of split's time": _growth,
        "the table": lambda impl: "".join(map(str, impl.bytes_to_unicode().values())),
        "the table's first key": lambda impl: str(next(iter(impl.bytes_to_unicode()))),
        "the table's first value": lambda impl: type(next(iter(impl.bytes_to_unicode().values()))).__name__,
        "a changed table": changed_table,
        "visible": lambda impl: impl.visible(" naïve\n\x00\x7f\xad".encode()),
        "visible of half a character": lambda impl: impl.visible(b"\xc3"),
        "visible of blanks": lambda impl: impl.visible(b" a\n"),
        "from_visible": lambda impl: list(impl.from_visible("ĠnaÃ¯ve")),
        "what from_visible returns": lambda impl: type(impl.from_visible("a")).__name__,
        "from_visible of ª": lambda impl: list(impl.from_visible("\xaa")),
        "from_visible of a stranger": lambda impl: list(impl.from_visible("a b")),
        "from_visible of a stranger first": lambda impl: list(impl.from_visible(" ")),
        "from_visible of a character above all": lambda impl: list(impl.from_visible("東")),
    }
