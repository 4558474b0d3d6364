"""A long text, cut into parts that can be handled like source files."""

from collections.abc import Iterator

PART_CHARS = 100_000
"""As the longest source files. A model sees an end of text that is none once in 25,000 tokens."""


def text_parts(text: str, n_chars: int = PART_CHARS) -> Iterator[str]:
    r"""Yield a text in parts of at most so many characters, cut after a blank line, or a line, or anywhere.

    A part has at least half as many, but for the last one.

    >>> list(text_parts("one\n\ntwo\nthree", 8))
    ['one\n\n', 'two\n', 'three']
    """
    start = 0
    while len(text) - start > n_chars:
        end = last_break(text, start + n_chars // 2, start + n_chars)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def last_break(text: str, first: int, last: int) -> int:
    """Return where the last paragraph between two places ends, else the last line, else the last place."""
    for mark in ("\n\n", "\n"):
        found = text.rfind(mark, first, last)
        if found >= 0:
            return found + len(mark)
    return last
