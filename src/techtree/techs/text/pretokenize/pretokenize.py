r"""Words and bytes: the two cuts that come before any token is learned.

Claim: 256 symbols spell every text, because they are its bytes; and one regular expression says where tokens
must end, so that "dog", "dog." and "dog!" do not each need a token of their own.

The expression is the one of Qwen2. ``\p{L}`` is a letter, ``\p{N}`` a number, ``\s`` whitespace; the leftmost
alternative that matches wins, and takes as much as it can:

    (?i:'s|'t|'re|'ve|'m|'ll|'d)  |  [^\r\n\p{L}\p{N}]?\p{L}+  |  \p{N}
    |   ?[^\s\p{L}\p{N}]+[\r\n]*  |  \s*[\r\n]+  |  \s+(?!\S)  |  \s+

Legend: letter, a character of a Unicode category L* (`unicodedata.category`); number, of a category N*;
whitespace, one of U+0009 to U+000D, U+0020, U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F,
U+205F, U+3000. (`str.isspace` and `re` count U+001C to U+001F as well; the expression does not.)

Left out: normalization. "é" may be one character or two; both are kept as they came, since code must come
back byte for byte.

Paper: Radford and others (2019), "Language models are unsupervised multitask learners", section 2.2
"""

import re
import unicodedata


def split(text: str) -> list[str]:
    r"""Cut a text into words, across whose borders no token will ever reach.

    Parameters
    ----------
    text
        Any text, also with halves of surrogate pairs, which are no letter, number or whitespace. It is not
        normalized, and nothing is dropped.

    Returns
    -------
    list[str]
        A new list of pieces, none of them empty, which joined give the text. No pieces for an empty text. The
        time is proportional to the length, for every text.

    Notes
    -----
    At each position the first rule that matches gives the next piece, as long as it can be:

    1. ``'`` and one of s, t, re, ve, m, ll, d, small or capital letters (the old long s, U+017F, is an s);
    2. letters, and before them at most one character that is no letter, no number, no CR and no LF;
    3. one number;
    4. characters that are no whitespace, letter or number, before them at most one space (U+0020), after them
       all CR and LF that follow;
    5. whitespace up to and including the last CR or LF of its run;
    6. whitespace without the last of its run, unless the text ends there;
    7. whitespace.

    Examples
    --------
    >>> split("if x1 >= 10:\n    print('done')")
    ['if', ' x', '1', ' >=', ' ', '1', '0', ':\n', '   ', ' print', "('", 'done', "')"]
    """
    plain = text if text.isascii() else text.translate(_STAND_INS)  # as long as the text: spans carry over
    return [text[match.start() : match.end()] for match in _WORD.finditer(plain)]


def bytes_to_unicode() -> dict[int, str]:
    """Return the printable character that stands for each byte in a vocabulary file.

    Returns
    -------
    dict[int, str]
        A new dictionary: all 256 bytes as keys, in the order of their characters. The bytes ``!`` to ``~``,
        ``¡`` to ``¬`` and ``®`` to ``ÿ`` (in Latin-1) map to themselves; the other 68, in the order of the
        bytes, to U+0100, U+0101, ... In this order, too, byte-level tokenizers number the bytes.

    Examples
    --------
    >>> table = bytes_to_unicode()
    >>> table[65], table[0], table[32], table[10]  # the space is the 33rd of the others, 0 to 32
    ('A', 'Ā', 'Ġ', 'Ċ')
    """
    as_they_are = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    printable = {byte: chr(byte) for byte in as_they_are}
    others = [byte for byte in range(256) if byte not in printable]
    return printable | {byte: chr(256 + n) for n, byte in enumerate(others)}


def visible(data: bytes) -> str:
    r"""Write bytes as printable characters, one each.

    Parameters
    ----------
    data
        Any bytes, whether or not they are whole characters of UTF-8.

    Returns
    -------
    str
        As long as the data, by the table of `bytes_to_unicode`.

    Examples
    --------
    >>> visible(" naïve\n".encode("utf-8"))
    'ĠnaÃ¯veĊ'
    """
    return "".join([_CHARACTERS[byte] for byte in data])


def from_visible(text: str) -> bytes:
    """Read back what `visible` wrote.

    Parameters
    ----------
    text
        Characters of the table of `bytes_to_unicode`.

    Returns
    -------
    bytes
        One byte for each character.

    Raises
    ------
    ValueError
        When a character stands for no byte.

    Examples
    --------
    >>> from_visible("Ġdef")
    b' def'
    """
    strangers = sorted(set(text) - _BYTES.keys())
    if strangers:
        raise ValueError(f"each character must stand for a byte; {strangers} do not: use visible() first")
    return bytes([_BYTES[character] for character in text])


_WORD = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
"""The expression for a text of ASCII characters, whose letters, numbers and whitespace `re` can name."""

_WHITESPACE = {*range(0x2000, 0x200B), 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
"""Beyond ASCII."""


class _StandIns(dict[int, str]):
    """For each character an ASCII character that the expression treats alike; worked out when first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 128:
            stand_in = character
        elif character == "ſ":
            stand_in = "s"
        elif code in _WHITESPACE:
            stand_in = "\t"  # not a space: rule 4 takes only U+0020 along
        else:
            kind = unicodedata.category(character)[0]
            stand_in = {"L": "x", "N": "0"}.get(kind, "!")  # x, because no contraction has an x
        self[code] = stand_in
        return stand_in


_STAND_INS = _StandIns()
_CHARACTERS = bytes_to_unicode()
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
