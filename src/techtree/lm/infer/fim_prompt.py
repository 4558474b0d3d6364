"""The text around a cursor as a prompt that asks for what stands between, cut to fit the context.

    extra...  <fim_prefix> prefix <fim_suffix> suffix <fim_middle>            in the order "psm"
    extra...  <fim_prefix> <fim_suffix> suffix <fim_middle> prefix            in the order "spm"
    extra:    <file_sep> filename newline text
    prefix                                                                  without these special tokens

A tokenizer without the special tokens is that of a model that never learned to fill in; it goes on where the
prefix ends. The models of this project learn both orders. In "spm" the prefix stands last: while somebody
types, the prompt only grows at its end, and everything before is in the cache.

Text is encoded without special tokens: a file that contains `<fim_middle>` is a file, not a command. What an
editor has cut within a character is no text: half of a surrogate pair becomes U+FFFD.
"""

import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from techtree.errors import InputError
from techtree.lm.tokenizer import LINE_START, Tokenizer

Order = Literal["psm", "spm"]

N_SENTINELS = 3
MIN_PROMPT_TOKENS = N_SENTINELS + 4

SUFFIX_SHARE = 1 / 4
"""Of the room, at most. The prefix gets what the suffix leaves, and extra chunks what both leave."""

CUT_SLACK = 1 / 4
"""A prefix that is too long may lose so much more of its room, so that the cut can stay where it is."""

EXTRA_GRAIN = 64
"""The room for extra chunks shrinks in such steps, so that they stay the same while the prefix grows."""

MIN_CHUNK_TOKENS = 16
"""Less of a chunk is not worth its header."""

MAX_TOKEN_CHARS = 32
"""Text beyond so many characters per token of room is not even looked at; longer tokens are rare."""

LEAD_CHARS = 1000
"""Of the text before the end that is encoded. They are encoded too and left out, as the first words may be
split otherwise than in the whole text."""


@dataclass(frozen=True)
class Chunk:
    """Some text from elsewhere in the project, and the file that it is from."""

    filename: str
    text: str


@dataclass(frozen=True)
class FimText:
    """What stands around the cursor."""

    prefix: str
    suffix: str
    extra: tuple[Chunk, ...] = ()
    """The most useful chunk last."""
    fills_in: bool = True
    """Whether a model that can is asked to fill in; else the prefix is gone on with."""


@dataclass(frozen=True)
class FimPrompt:
    """The ids of a prompt, and whether something had to be left out."""

    ids: list[int]
    is_truncated: bool


def fim_prompt(tokenizer: Tokenizer, text: FimText, max_tokens: int, order: Order = "psm") -> FimPrompt:
    """Return the prompt for a text.

    Parameters
    ----------
    tokenizer
        The model's.
    text
        The prefix keeps its end, the suffix its start.
    max_tokens
        The length that the prompt must not exceed.
    order
        Whether the prefix or the suffix stands first.

    Raises
    ------
    InputError
        When there is no room for any text.
    """
    if max_tokens < MIN_PROMPT_TOKENS:
        raise InputError(f"a prompt needs room for {MIN_PROMPT_TOKENS} tokens or more; got {max_tokens}")
    text = _whole(text)
    if not (tokenizer.can_fill_in and text.fills_in):
        prefix, is_cut = last_lines(tokenizer, text.prefix, max_tokens)
        # Before the first token of a text stands the end of another.
        return FimPrompt(prefix or [tokenizer.end_of_text_id], is_cut)
    room = max_tokens - N_SENTINELS
    suffix, suffix_is_cut = first_tokens(tokenizer, text.suffix, int(room * SUFFIX_SHARE))
    prefix, prefix_is_cut = last_lines(tokenizer, text.prefix, room - len(suffix))
    n_used = ((len(prefix) + len(suffix)) // EXTRA_GRAIN + 1) * EXTRA_GRAIN
    extra, extra_is_cut = last_chunks(tokenizer, text.extra, room - n_used)
    pre, suf, mid = tokenizer.fim_prefix_id, tokenizer.fim_suffix_id, tokenizer.fim_middle_id
    if order == "psm":
        ids = [*extra, pre, *prefix, suf, *suffix, mid]
    else:
        ids = [*extra, pre, suf, *suffix, mid, *prefix]
    return FimPrompt(ids, prefix_is_cut or suffix_is_cut or extra_is_cut)


def first_tokens(tokenizer: Tokenizer, text: str, room: int) -> tuple[list[int], bool]:
    """Return the start of a text in at most `room` tokens, and whether the rest was left out."""
    start = text[: room * MAX_TOKEN_CHARS]
    ids = tokenizer.encode(start)
    return ids[:room], len(ids) > room or len(start) < len(text)


def last_lines(tokenizer: Tokenizer, text: str, room: int) -> tuple[list[int], bool]:
    """Return the end of a text in at most `room` tokens, and whether its start was left out.

    The tokens are the last ones of the whole text's, which the model has learned, whatever they are cut at.
    Where exactly the text is cut depends on its lines alone: among the lines at which a cut loses at
    most `CUT_SLACK` of the room, the one with the smallest checksum is first. When a few characters are
    typed, that is still the same line, and what is in the cache stays useful. (The last line, which is
    being typed, is no place to cut.)
    """
    end = text[-room * MAX_TOKEN_CHARS :] if room else ""
    encoded: list[list[int]] = []  # from the last line to the first
    n_tokens, candidates = 0, []
    for line, ids in _lines_backwards(tokenizer, end, room):
        n_tokens += len(ids)
        encoded.append(ids)
        if n_tokens > room:
            break
        if len(encoded) > 1 and n_tokens >= room * (1 - CUT_SLACK):
            candidates.append((zlib.crc32(line.encode("utf-8")), len(encoded)))
    if n_tokens <= room and len(end) == len(text):
        return _joined(encoded), False
    if candidates:
        return _joined(encoded[: min(candidates)[1]]), True
    return _joined(encoded)[-room:] if room else [], True


def _lines_backwards(tokenizer: Tokenizer, text: str, room: int) -> Iterator[tuple[str, list[int]]]:
    """Yield each line and the ids that begin in it, from the last line on; more than `room` ids, or all."""
    if tokenizer.splits_at_lines:
        for line in reversed(LINE_START.split(text)):
            yield line, tokenizer.encode(line)
        return
    text, ids, starts = _last_tokens(tokenizer, text, room)
    end, n_left = len(text), len(ids)
    for begin in reversed([0, *(match.start() for match in LINE_START.finditer(text))]):
        first = bisect_left(starts, begin, hi=n_left)
        yield text[begin:end], ids[first:n_left]
        end, n_left = begin, first


def _last_tokens(tokenizer: Tokenizer, text: str, room: int) -> tuple[str, list[int], list[int]]:
    """Return an end of a text with its ids and the characters they begin at: more than `room`, or all."""
    n_chars = 8 * room
    while True:
        begin = max(0, len(text) - n_chars - LEAD_CHARS)
        end = text[begin:]
        ids, starts = tokenizer.encode_with_starts(end)
        n_lead = bisect_left(starts, LEAD_CHARS) if begin else 0
        if begin == 0 or len(ids) - n_lead > room:
            return end, ids[n_lead:], starts[n_lead:]
        n_chars *= 4


def last_chunks(tokenizer: Tokenizer, chunks: Sequence[Chunk], room: int) -> tuple[list[int], bool]:
    """Return the last chunks that fit in `room` tokens, and whether something was left out.

    The first chunk that does not fit keeps its start, if there is room for enough of it.
    """
    parts: list[list[int]] = []  # from the last chunk to the first
    for chunk in reversed(chunks):
        ids, is_cut = first_tokens(tokenizer, f"{chunk.filename}\n{chunk.text}", max(room - 1, 0))
        if is_cut and len(ids) < MIN_CHUNK_TOKENS:
            return _joined(parts), True
        parts.append([tokenizer.file_sep_id, *ids])
        if is_cut:
            return _joined(parts), True
        room -= 1 + len(ids)
    return _joined(parts), False


def _whole(text: FimText) -> FimText:
    """Return the same text without halves of characters."""
    extra = tuple(Chunk(_whole_text(chunk.filename), _whole_text(chunk.text)) for chunk in text.extra)
    return FimText(_whole_text(text.prefix), _whole_text(text.suffix), extra, text.fills_in)


def _whole_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # two halves that meet are one character
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _joined(parts: Sequence[list[int]]) -> list[int]:
    """Return parts that were collected from the last to the first, as one."""
    return [i for part in reversed(parts) for i in part]
