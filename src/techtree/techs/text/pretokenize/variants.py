"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import itertools
import re
import sys
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
    "visible reads the bytes as UTF-8 first": {"visible": _visible_text},
    "visible reads the bytes as Latin-1, which leaves spaces and newlines": {
        "visible": lambda data: bytes(data).decode("latin-1")
    },
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
    "bytes_to_unicode from what Latin-1 prints": {"bytes_to_unicode": _right_table},
    "visible through str.translate": {
        "visible": lambda data: bytes(data).decode("latin-1").translate(_right_table())
    },
    "from_visible in a loop": {"from_visible": _looped_from_visible},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    texts = {
        "signs and words": "if (x_1 >= 2024):\r\n\r\n    self.x = 3\n\n\n  y",
        "indentation": "a\n  \n   b   c  +  1   ",
        "contractions": "it's IT'Sa x'ſa x'sa x'rey",
        "newlines": "a\n\nb !\n\n!\r\n \n\n",
        "one newline": "a\nb",
        "tabs": "\tx\t!\t\t1",
        "numbers": "x² Ⅷ½a 1234",
        "letters": "naïve 東京ªº",
        "accents": "e\u0301a",
        "whitespace": "a\x1c\x1da \x85\x85a\u3000!\u200ba\u200b!",
        "quotes": "'t 'tis",
        "nothing": "",
    }

    def joined(text):
        return lambda impl: "|".join(impl.split(text))

    def changed_table(impl):
        table = impl.bytes_to_unicode()
        table[32] = "?"
        return impl.bytes_to_unicode()[32]

    return {f"split {name}": joined(text) for name, text in texts.items()} | {
        "pieces of split": lambda impl: len(impl.split("a b")),
        "the table": lambda impl: "".join(map(str, impl.bytes_to_unicode().values())),
        "the table's first key": lambda impl: str(next(iter(impl.bytes_to_unicode()))),
        "a changed table": changed_table,
        "visible": lambda impl: impl.visible(" naïve\n\x00\x7f\xad".encode()),
        "visible of half a character": lambda impl: impl.visible(b"\xc3"),
        "from_visible": lambda impl: list(impl.from_visible("ĠnaÃ¯ve")),
        "from_visible of a stranger": lambda impl: list(impl.from_visible("a b")),
        "from_visible of a character above all": lambda impl: list(impl.from_visible("東")),
    }
