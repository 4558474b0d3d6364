"""Which part of the generated text an editor should insert.

A model that is good at writing the middle is not always good at ending it: it goes on into the next
function, or writes once more what stands after the cursor anyway; one that was made for chats closes a code
block and explains it. The rules here cut that off. They only look at text, so they hold for any model.

`shown_text` is asked again after each token, and never takes back what it has shown: text that might
still be cut off is held back until the next token decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Lines = Literal["auto", "single", "multiple"]

LONGEST_LOOP = 8
"""Lines that come a second time right after the first. People write so once in 10,000 lines of the standard
library; a small model, once it has begun, goes on so until the limit."""

SHORTEST_PIECE, LONGEST_PIECE = 8, 64
_CIRCLE = re.compile(rf"(.{{{SHORTEST_PIECE},{LONGEST_PIECE}}}?)\1\1", re.DOTALL)
"""A piece that stands three times in a row. With a letter in it, people write so once in 9,000 lines of the
standard library (tables, for the most part); a small model that has begun goes on so."""

_BRACKETS = ("()", "[]", "{}")
_QUOTES = "\"'"
_FENCE = "```"
"""Begins and ends a code block in Markdown."""


@dataclass(frozen=True)
class Place:
    """The cursor's surroundings, as far as they decide where the inserted text must end."""

    prefix: str
    suffix: str
    n_indent: int = 0
    """A new line with less indentation than this is outside the block, and ends the text."""
    stop: Sequence[str] = ()
    """Strings that end the text; they are not part of it."""
    lines: Lines = "auto"
    """How many lines to insert. "auto" means one when something stands right of the cursor."""
    is_raw: bool = False
    """Whether nothing but the stop strings shapes the text."""
    has_fences: bool = field(init=False)
    """Whether the text around holds code blocks of Markdown, so that the inserted text may, too."""
    line_before: str = field(init=False)
    """The cursor's line, left of the cursor."""
    lines_before: Sequence[str] = field(init=False)
    """Some lines before that one."""
    line_after: str = field(init=False)
    """The cursor's line, right of the cursor."""
    next_line: str = field(init=False)
    """The line that will follow the inserted ones, blank ones left out; or an empty string."""

    def __post_init__(self):
        """Find the lines."""
        *earlier, before = self.prefix.rsplit("\n", LONGEST_LOOP + 1)[-LONGEST_LOOP - 1 :]
        after, *below = self.suffix.split("\n")
        # With only indentation left of the cursor, whole lines are inserted above the cursor's.
        following = below if before.strip() else [before + after, *below]
        object.__setattr__(self, "has_fences", _FENCE in self.prefix or _FENCE in self.suffix)
        object.__setattr__(self, "line_before", before)
        object.__setattr__(self, "lines_before", [line.rstrip() for line in earlier])
        object.__setattr__(self, "line_after", after.rstrip())
        object.__setattr__(self, "next_line", next((line.rstrip() for line in following if line.strip()), ""))

    @property
    def is_single_line(self) -> bool:
        """Whether the text ends at the end of its first line."""
        return self.lines == "single" or (self.lines == "auto" and bool(self.line_after))


@dataclass(frozen=True)
class Shown:
    """What to insert so far, and whether that is all."""

    text: str
    is_over: bool = False
    stopping_word: str = ""


def shown_text(raw: str, place: Place, end: Literal["open", "complete", "cut"] = "open") -> Shown:
    """Return what may be shown of the text that the model has written.

    Parameters
    ----------
    raw
        All that it has written until now.
    place
        Where it will stand.
    end
        "open" while more may come; "complete" when the model has ended it, "cut" when a limit has.

    Returns
    -------
    Shown
        With `is_over`, no further token can change it.
    """
    text, word = _before_stop(raw, place.stop)
    is_over = bool(word)
    if end == "open" and not is_over:
        # Of what the model wrote: a stop string may begin with blanks that are not shown.
        text = text[: len(text) - _overlap(text, place.stop)]
    if place.is_raw:
        return Shown(text, is_over, word)
    text = _without_doubled_space(text, place)
    for rule in (_before_fence, _first_line, _inside_block, _before_next_line, _before_loop, _before_circle):
        cut = rule(text, place)
        if cut is not None:
            text, is_over, word = cut, True, ""
    if end == "open" and not is_over:
        text = _without_begun_circle(_without_begun_loop(text, place))
    elif (cut := _before_loop(f"{text}\n", place)) is not None:
        text = cut
    return Shown(_tail_settled(text, place, "complete" if is_over else end), is_over, word)


def _before_stop(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """Return the text before the stop string that was whole first, and that string.

    Of several that end at the same character it is the longest. So it does not matter how many characters
    came at once.
    """
    found = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return text, ""
    end, _, stop = min(found)
    return text[: end - len(stop)], stop


def _overlap(text: str, following: Sequence[str]) -> int:
    """Return the length of the longest end of a text that one of the strings begins with, but not all of it.

    >>> _overlap("a = b)", [") or"])
    1
    """
    return max(
        (
            n
            for string in following
            for n in range(1, min(len(text), len(string) - 1) + 1)
            if text.endswith(string[:n])
        ),
        default=0,
    )


def _without_doubled_space(text: str, place: Place) -> str:
    """Drop blanks at the start when there is one left of the cursor already, after some code."""
    before = place.line_before
    return text.lstrip(" ") if before.strip() and before[-1] in " \t" else text


def _before_fence(text: str, place: Place) -> str | None:
    """Cut before the end of a code block, where there are no code blocks: an explanation follows."""
    at = text.find(_FENCE)
    if at < 0 or place.has_fences:
        return None
    return text[:at].rstrip()


def _first_line(text: str, place: Place) -> str | None:
    """Cut after the first line, when that is all that is wanted.

    With only indentation left of the cursor and code right of it, a line ends in the middle of what is
    inserted; what is then right of the cursor gets the indentation back.
    """
    if not place.is_single_line or "\n" not in text:
        return None
    line = text.split("\n", 1)[0]
    if place.line_after and not place.line_before.strip() and line.strip():
        return f"{line}\n{place.line_before}"
    return line


def _inside_block(text: str, place: Place) -> str | None:
    """Cut before the first new line with too little indentation."""
    start = text.find("\n") + 1
    while start:
        newline = text.find("\n", start)
        line = text[start : newline if newline >= 0 else len(text)]
        if line.strip() and len(line) - len(line.lstrip(" \t")) < place.n_indent:
            return text[:start].rstrip()
        start = newline + 1
    return None


def _before_next_line(text: str, place: Place) -> str | None:
    """Cut before a line that is the same as the one which follows the inserted text anyway."""
    if not place.next_line:
        return None
    *lines, _ = text.split("\n")
    for i, line in enumerate(lines):
        if ("" if i else place.line_before) + line.rstrip() == place.next_line:
            return "\n".join(lines[:i]).rstrip()
    return None


def _before_loop(text: str, place: Place) -> str | None:
    """Cut before whole lines that say once more what the lines before them say."""
    lines, n_before, first = _all_lines(text, place)
    for end in range(first + 1, len(lines)):
        for period in range(1, min(LONGEST_LOOP, end - first, end // 2) + 1):
            start = end - period
            if lines[start:end] == lines[start - period : start] and _says_something(lines[start:end]):
                return "\n".join(text.split("\n")[: start - n_before]).rstrip()
    return None


def _without_begun_loop(text: str, place: Place) -> str:
    """Drop the lines at the end that say once more, as far as they go, what the lines before them say."""
    lines, n_before, first = _all_lines(text, place)
    last = len(lines) - 1
    starts = [
        start
        for period in range(1, LONGEST_LOOP + 1)
        for start in range(max(first, period, last - period + 1), last + 1)
        if lines[start:last] == lines[start - period : last - period]
        and lines[last - period].startswith(lines[last])
        and _says_something(lines[start - period : start])
    ]
    return "\n".join(text.split("\n")[: min(starts) - n_before]) if starts else text


def _before_circle(text: str, place: Place) -> str | None:
    """Cut before a piece that comes for the third time in a row."""
    for match in _CIRCLE.finditer(text) if _may_circle(text) else ():
        if _has_letter(match[1]):
            return text[: match.start() + 2 * len(match[1])].rstrip()
    return None


def _may_circle(text: str) -> bool:
    """Tell whether a piece stands twice in a row, as it does from the first eighth character of a circle on.

    Nearly all texts have none. It is asked for each token, and takes far less time than to look for a circle.
    """
    for start in range(0, len(text), SHORTEST_PIECE):
        head, end = text[start : start + SHORTEST_PIECE], start + LONGEST_PIECE + SHORTEST_PIECE
        again = text.find(head, start + SHORTEST_PIECE, end)
        while again >= 0:
            piece = text[start:again]
            if text.startswith(piece, again) and _has_letter(piece):
                return True
            again = text.find(head, again + 1, end)
    return False


def _without_begun_circle(text: str) -> str:
    """Drop what may become such a piece, at the end: what comes after two of them."""
    n, kept = len(text), len(text)
    for period in range(SHORTEST_PIECE, LONGEST_PIECE + 1):
        n_again = 0  # characters at the end that say what stands a period before them
        while n_again + period < n and text[n - 1 - n_again] == text[n - 1 - n_again - period]:
            n_again += 1
        if n_again > period and _has_letter(text[-period:]):
            kept = min(kept, n - n_again + period)
    return text[:kept]


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _all_lines(text: str, place: Place) -> tuple[list[str], int, int]:
    """Return the lines before the text, and its own; how many the former are; the first one written whole."""
    written = [line.rstrip() for line in f"{place.line_before}{text}".split("\n")]
    n_before = len(place.lines_before)
    return [*place.lines_before, *written], n_before, n_before + bool(place.line_before.strip())


def _says_something(lines: Sequence[str]) -> bool:
    return any(character.isalnum() for line in lines for character in line)


def _tail_settled(text: str, place: Place, end: Literal["open", "complete", "cut"]) -> str:
    """Drop from the end of the text what repeats the suffix; while more may come, what might."""
    head, newline, line = text.rpartition("\n")
    whole = line if newline else place.line_before + line
    if place.next_line and line.strip():
        is_repeated = whole.rstrip() == place.next_line
        if is_repeated or (end != "complete" and place.next_line.startswith(whole.rstrip())):
            text = head.rstrip()
    if end == "open" or not place.line_after:
        text = text.rstrip()
    if place.line_after:
        n_held = _overlap(text, [place.line_after + "\n"])
        n_dropped = n_held if end == "open" else _repeated(text, place)
        text = text[: len(text) - n_dropped]
    if end == "open" and not place.has_fences:
        text = text[: len(text) - _overlap(text, [_FENCE])]
    if end == "open":
        text = text.rstrip()
    return text if text.strip() else ""


def _repeated(text: str, place: Place) -> int:
    """Return how many characters at the end of the text stand right of the cursor already.

    All of the rest of the line, when there is a word in it. Else (brackets and quotes, which may well come
    twice) as much as balances the line.
    """
    after = place.line_after
    if any(c.isalnum() for c in after) and text.endswith(after):
        return len(after)
    repeated = [
        n
        for n in range(1, min(len(after), len(text)) + 1)
        if text.endswith(after[:n]) and not any(c.isalnum() or c.isspace() for c in after[:n])
    ]
    return min([0, *repeated], key=lambda n: _imbalance(place, text[: len(text) - n]))


def _imbalance(place: Place, text: str) -> int:
    """Return how many brackets would be closed that were not opened, and quotes opened and not closed."""
    before = place.prefix + text + place.line_after
    line = place.line_before + text + place.line_after
    n_closed = sum(max(0, before.count(b[1]) - before.count(b[0])) for b in _BRACKETS)
    return n_closed + sum(line.count(quote) % 2 for quote in _QUOTES)
