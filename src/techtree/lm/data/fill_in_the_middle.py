"""Fill-in-the-middle: text cut in three, so that the model learns to write between a prefix and a suffix.

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle <|endoftext|>
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle <|endoftext|>

Half of the examples have either order. SPM is the form that fits PSM (Bavarian et al. 2022, "SPMv2",
as SantaCoder used it): its prompt is a PSM prompt with an empty prefix. In SPM the middle follows the
prefix directly, and the suffix's keys can stay cached while the prefix grows.

Cuts lie between any two characters, as cursors do, also within what would be one token; the three
parts are encoded apart, as a prompt's are. The middle ends with `<|endoftext|>`, so that the model
learns to stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from techtree.lm.tokenizer import Tokenizer

N_SENTINELS = 4
"""Special tokens in an example, whatever its order."""

SPM_RATE = 0.5
LINE_RATE, BLOCK_RATE = 0.5, 0.3
"""Of all cuts; the rest is random. What editors ask for most is the rest of a line, then some lines more."""

MAX_BLOCK_LINES = 8
"""Longer suggestions are neither read nor right, in an editor."""


@dataclass(frozen=True)
class Cut:
    """A text in three parts; joined they are the text."""

    prefix: str
    middle: str
    suffix: str


def cut(text: str, rng: np.random.Generator) -> Cut:
    """Cut a text at a place where an editor's user might ask for it: in a line, at a block, or anywhere."""
    kind = rng.random()
    if kind < LINE_RATE:
        start, end = line_span(text, rng)
    elif kind < LINE_RATE + BLOCK_RATE:
        start, end = block_span(text, rng)
    else:
        start, end = sorted(rng.integers(0, len(text) + 1, 2).tolist())
    return Cut(text[:start], text[start:end], text[end:])


def line_span(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """Return where a random part of a random line that is not blank starts and ends.

    It starts at the line's first character (after its indentation) in a third of the cases, else anywhere in
    the line. It goes to the end of the line, except in a fifth of the cases. It may be empty: then the
    lesson is that there is nothing to add.
    """
    lines = _lines(text)
    line = lines[_random_line(lines, rng)]
    start = line.code if rng.random() < 1 / 3 else int(rng.integers(line.code, line.end + 1))
    end = line.end if rng.random() < 0.8 else int(rng.integers(start, line.end + 1))
    return start, end


def block_span(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """Return where a random run of lines at one level of indentation, or deeper, starts and ends.

    In half of the cases that is whole lines. In the others the first line's indentation and the last one's
    line end stay outside, as when an editor has indented the line of the cursor already.
    """
    lines = _lines(text)
    first = _random_line(lines, rng)
    last = first
    for i in range(first + 1, min(first + int(rng.integers(1, MAX_BLOCK_LINES + 1)), len(lines))):
        if not lines[i].is_blank:
            if lines[i].indent < lines[first].indent:
                break
            last = i
    if rng.random() < 0.5:
        return lines[first].start, min(lines[last].end + 1, len(text))
    return lines[first].code, lines[last].end


def encode_cut(parts: Cut, tokenizer: Tokenizer, max_tokens: int, is_spm: bool) -> list[int]:
    """Return a cut text as ids, with the special tokens.

    Parameters
    ----------
    parts
        What to encode.
    tokenizer
        It must know the special tokens.
    max_tokens
        The length that must not be exceeded. What is too much goes from the suffix's end and the
        prefix's beginning, more from the longer one, as it does from a prompt.
    is_spm
        Whether the suffix stands before the prefix.
    """
    prefix, middle, suffix = tokenizer.encode_batch([parts.prefix, parts.middle, parts.suffix])
    prefix, middle, suffix = _trimmed(prefix, middle, suffix, max_tokens - N_SENTINELS)
    pre, suf, mid = tokenizer.fim_prefix_id, tokenizer.fim_suffix_id, tokenizer.fim_middle_id
    if is_spm:
        return [pre, suf, *suffix, mid, *prefix, *middle, tokenizer.end_of_text_id]
    return [pre, *prefix, suf, *suffix, mid, *middle, tokenizer.end_of_text_id]


def example(text: str, tokenizer: Tokenizer, max_tokens: int, rng: np.random.Generator) -> list[int]:
    """Cut a text at random and return it as ids, in either order."""
    parts = cut(text, rng)
    return encode_cut(parts, tokenizer, max_tokens, is_spm=bool(rng.random() < SPM_RATE))


@dataclass(frozen=True)
class _Line:
    """Offsets in a text: of a line's start, of its first character that is no space, and of its end."""

    start: int
    code: int
    end: int

    @property
    def indent(self) -> int:
        return self.code - self.start

    @property
    def is_blank(self) -> bool:
        return self.code == self.end


def _lines(text: str) -> list[_Line]:
    lines = []
    start = 0
    for line in text.split("\n"):
        lines.append(_Line(start, start + len(line) - len(line.lstrip()), start + len(line)))
        start += len(line) + 1
    return lines


def _random_line(lines: Sequence[_Line], rng: np.random.Generator) -> int:
    choices = [i for i, line in enumerate(lines) if not line.is_blank] or range(len(lines))
    return choices[int(rng.integers(len(choices)))]


def _trimmed(
    prefix: list[int], middle: list[int], suffix: list[int], max_tokens: int
) -> tuple[list[int], list[int], list[int]]:
    """Return the parts with at most so many ids: those nearest to the middle, and its end."""
    middle = middle[max(0, len(middle) - max_tokens) :]
    room = max_tokens - len(middle)
    n_suffix = min(len(suffix), max(room // 2, room - len(prefix)))
    n_prefix = min(len(prefix), room - n_suffix)
    return prefix[len(prefix) - n_prefix :], middle, suffix[:n_suffix]
