"""What `pretokenize` opens, behind the exercise's names; the table of bytes comes from `tokenizers`."""

import functools

import regex
from tokenizers import pre_tokenizers

__all__ = ["bytes_to_unicode", "from_visible", "split", "visible"]

_EXPRESSION = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())


def split(text):
    return _EXPRESSION.findall(text)


def bytes_to_unicode():
    return dict(_table())


@functools.cache
def _table():
    table = {}
    for code in range(0x800):  # the library maps texts; characters below U+0800 have all the bytes below 0xE0
        table |= _spelling(chr(code))
    for code in (*range(0x800, 0xD000, 0x400), *range(0xE000, 0x110000, 0x8000)):
        table |= _spelling(chr(code))
    # No text has these bytes; the library's table continues in order.
    missing = sorted(set(range(256)) - table.keys())
    return dict(sorted((table | {byte: chr(byte) for byte in missing}).items(), key=lambda item: item[1]))


def _spelling(character):
    [(spelled, _)] = _BYTE_LEVEL.pre_tokenize_str(character)
    return dict(zip(character.encode("utf-8"), spelled, strict=True))


def visible(data):
    table = _table()
    return "".join(table[byte] for byte in data)


def from_visible(text):
    if not set(text) <= _ALPHABET:
        raise ValueError("every character must stand for a byte")
    table = {character: byte for byte, character in _table().items()}
    return bytes(table[character] for character in text)
