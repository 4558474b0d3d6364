"""The text around a cursor as a prompt that asks for what stands between, cut to fit the context.

    extra...  <fim_prefix> prefix <fim_suffix> suffix <fim_middle>            in the order "psm"
    extra...  <fim_prefix> <fim_suffix> suffix <fim_middle> prefix            in the order "spm"
    extra:    <file_sep> filename newline text

The models of this project learn both orders. In "spm" the prefix stands last: while somebody types, the
prompt only grows at its end, and everything before is in the cache.

Text is encoded without special tokens: a file that contains `<fim_middle>` is a file, not a command.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from techtree.errors import InputError
from techtree.lm.tokenizer import Tokenizer

Order = Literal["psm", "spm"]

N_SENTINELS = 3

PREFIX_SHARE = 3 / 4
"""Of the room, when prefix and suffix are both too long. What one does not need, the other may use."""

CUT_SLACK = 1 / 4
"""A prefix that is too long may lose so much more of its room, for a cut that stays where it is."""

EXTRA_GRAIN = 64
"""The room for extra chunks shrinks in such steps, so that they stay the same while the prefix grows."""

MIN_EXTRA_TOKENS = 16
"""Less of a chunk is not worth its header."""

MAX_TOKEN_CHARS = 32
"""Text beyond so many characters per token of room is not even looked at; longer tokens are rare."""


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


@dataclass(frozen=True)
class FimPrompt:
    """The ids of a prompt, and whether it had to leave something out."""

    ids: list[int]
    is_truncated: bool


def fim_prompt(tokenizer: Tokenizer, text: FimText, max_tokens: int, order: Order = "psm") -> FimPrompt:
    """Return the prompt for a text.

    Parameters
    ----------
    tokenizer
        It must know the special tokens.
    text
        The prefix keeps its end and the suffix its start; chunks get what room is left.
    max_tokens
        The length that the prompt must not exceed.
    order
        Whether the prefix or the suffix stands first.

    Raises
    ------
    InputError
        When there is no room for any text.
    """
    room = max_tokens - N_SENTINELS
    if room < 2:
        raise InputError(f"a prompt needs room for at least {N_SENTINELS + 2} tokens; got {max_tokens}")
    suffix = _first_tokens(tokenizer, text.suffix, room)
    # An upper limit is enough here: a long prefix is cut below, to exactly its room.
    prefix_room = max(int(room * PREFIX_SHARE), room - len(suffix))
    prefix = _last_lines(tokenizer, text.prefix, prefix_room)
    cut_suffix = suffix[: room - min(len(prefix), int(room * PREFIX_SHARE))]
    is_truncated = len(tokenizer.decode_bytes([*prefix, *cut_suffix])) < _n_bytes(text)
    left = room - -(-(len(prefix) + len(cut_suffix)) // EXTRA_GRAIN) * EXTRA_GRAIN
    extra, extra_is_cut = _extra(tokenizer, text.extra, left)
    pre, suf, mid = tokenizer.fim_prefix_id, tokenizer.fim_suffix_id, tokenizer.fim_middle_id
    if order == "psm":
        ids = [*extra, pre, *prefix, suf, *cut_suffix, mid]
    else:
        ids = [*extra, pre, suf, *cut_suffix, mid, *prefix]
    return FimPrompt(ids, is_truncated or extra_is_cut)
