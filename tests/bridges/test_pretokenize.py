"""`pretokenize` cuts as the `tokenizers` library cuts with the product's pattern, everywhere in Unicode."""

import sysconfig
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers

from techtree.lm.tokenizer import QWEN2_PATTERN
from techtree.techs.text.pretokenize import bytes_to_unicode, split, visible

_LIBRARY = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
_BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

ASSIGNED = [
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) != "Cn"
]
"""The characters that this Python knows. The library knows those of a later Unicode, too, as letters."""


def library_split(text: str) -> list[str]:
    return [piece for piece, _ in _LIBRARY.pre_tokenize_str(text)]


@pytest.mark.parametrize("context", ["a{}b", "1!{}a ", " {} ", "x'{}s", "\n{}\r"])
def test_every_character_in_context(context):
    text = "".join(context.format(character) for character in ASSIGNED)
    assert split(text) == library_split(text)


def test_the_two_know_the_same_classes():
    """Each assigned character alone, and after an apostrophe, where capital letters may matter."""
    for start in range(0, len(ASSIGNED), 1000):
        block = ASSIGNED[start : start + 1000]
        text = "".join(f"x'{character}la" for character in block)
        assert split(text) == library_split(text)


def test_random_texts():
    rng = np.random.default_rng(0)
    common = list(
        "aeslLtTrvmdS'''  \n\n\r\t!._-09ſ²½ⅧÅéßªĿ東ا\u0301\u20dd\x85\xa0\u2003\u3000\u200b\x1c\x00’👍"
    )
    for _ in range(5000):
        text = "".join(rng.choice(common, size=rng.integers(1, 30)))
        assert split(text) == library_split(text), repr(text)


def test_random_texts_from_all_of_unicode():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        text = "".join(ASSIGNED[i] for i in rng.integers(len(ASSIGNED), size=30))
        assert split(text) == library_split(text), repr(text)


def test_the_standard_library():
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::5]:
        text = path.read_text(encoding="utf-8")
        assert split(text) == library_split(text), path.name


def test_the_alphabet():
    assert sorted(bytes_to_unicode().values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    for character in ASSIGNED[::50]:
        [(spelled, _)] = _BYTE_LEVEL.pre_tokenize_str(character)
        assert visible(character.encode("utf-8")) == spelled
