"""A text is cut in three and its middle put last: a model that only goes on learns to fill in.

Claim: a causal model sees what stands before a token and nothing behind it. Whoever edits code has text on
both sides. No new model is needed: if what stands behind is written in front, going on is filling in.

Idea: cut a text at two places, and arrange the parts so that the middle comes last, with a *sentinel* before
each part and an end token behind the middle. In half of the examples the suffix comes first of all.

    PSM   <prefix> prefix <suffix> suffix <middle> middle <end>
    SPM   <prefix> <suffix> suffix <middle> prefix middle <end>

Legend: *sentinels*: special tokens that no text can spell; *cut*: a place between two characters.

Left out: where editors really ask (at the ends of lines, whole blocks), other files of a project.

Papers: Bavarian et al. (2022), https://arxiv.org/abs/2207.14255; Ben Allal et al. (2023),
https://arxiv.org/abs/2301.03988
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from techtree.techs.text.bpe import BPE


@dataclass(frozen=True)
class Sentinels:
    """The ids of the special tokens, all different (``ValueError`` otherwise).

    Attributes
    ----------
    prefix, suffix, middle
        Stand before these parts.
    end
        Stands behind every text and every middle.
    """

    prefix: int
    suffix: int
    middle: int
    end: int

    def __post_init__(self):
        if len({self.prefix, self.suffix, self.middle, self.end}) < 4:
            raise ValueError(f"sentinels need four different ids; got {self}")


def cut(text: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Cut a text at two places between any two characters, its beginning and end included.

    Parameters
    ----------
    text
        May be empty.
    rng
        ``rng.integers(0, len(text) + 1, size=2)`` is called once and gives both places, in any order.

    Returns
    -------
    prefix, middle, suffix : str
        Joined they are the text; each may be empty.

    Examples
    --------
    >>> cut("return a + b", np.random.default_rng(0))  # places 11 and 8
    ('return a', ' + ', 'b')
    """
    start, stop = sorted(rng.integers(0, len(text) + 1, size=2).tolist())
    return text[:start], text[start:stop], text[stop:]


def trim(
    prefix: Sequence[int], middle: Sequence[int], suffix: Sequence[int], room: int
) -> tuple[list[int], list[int], list[int]]:
    """Leave out what lies farthest from the middle, so that three parts fit.

    Parameters
    ----------
    prefix, middle, suffix
        Ids; not changed.
    room
        How many tokens may stay together, at least 0.

    Returns
    -------
    prefix, middle, suffix : list[int]
        New lists, together as long as room allows. The middle has priority and keeps its end. Of what it
        leaves, suffix and prefix get half each, the prefix the odd one; what one of them does not need the
        other gets. The prefix keeps its end, the suffix its beginning.

    Raises
    ------
    ValueError
        When ``room`` is negative.

    Examples
    --------
    >>> trim([1, 2, 3, 4], [5, 6], [7, 8, 9], room=5)
    ([3, 4], [5, 6], [7])
    >>> trim([1, 2, 3, 4], [5, 6], [7], room=6)
    ([2, 3, 4], [5, 6], [7])
    """
    if room < 0:
        raise ValueError(f"room must be at least 0; got {room}")
    middle = list(middle[max(0, len(middle) - room) :])
    left = room - len(middle)
    n_suffix = min(len(suffix), max(left // 2, left - len(prefix)))
    n_prefix = min(len(prefix), left - n_suffix)
    return list(prefix[len(prefix) - n_prefix :]), middle, list(suffix[:n_suffix])


def arrange(
    prefix: Sequence[int],
    middle: Sequence[int],
    suffix: Sequence[int],
    sentinels: Sentinels,
    is_spm: bool = False,
) -> list[int]:
    """Write three parts as one example, in the order that the top of this module shows.

    Parameters
    ----------
    prefix, middle, suffix
        Ids that are no sentinels; may be empty; not changed.
    sentinels
        What is put between.
    is_spm
        Whether the suffix comes first.

    Returns
    -------
    list[int]
        New: four tokens more than the parts have.

    Raises
    ------
    ValueError
        When a part holds a sentinel, ``end`` included.

    Examples
    --------
    >>> marks = Sentinels(prefix=1, suffix=2, middle=3, end=0)
    >>> arrange([7], [8], [9], marks), arrange([7], [8], [9], marks, is_spm=True)
    ([1, 7, 2, 9, 3, 8, 0], [1, 2, 9, 3, 7, 8, 0])
    """
    prefix, middle, suffix = list(prefix), list(middle), list(suffix)
    marks = {sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end}
    if held := marks & {*prefix, *middle, *suffix}:
        raise ValueError(
            f"no part may hold a sentinel; got {sorted(held)}: encode texts without special tokens"
        )
    first = [sentinels.prefix, *([] if is_spm else prefix), sentinels.suffix, *suffix, sentinels.middle]
    return [*first, *(prefix if is_spm else []), *middle, sentinels.end]


def restore(ids: Sequence[int], sentinels: Sentinels) -> list[int]:
    """Put an example of `arrange`, of either order, together again.

    Parameters
    ----------
    ids
        The example; not changed.
    sentinels
        With which it was made.

    Returns
    -------
    list[int]
        Prefix, middle and suffix, without sentinels. (In SPM nobody can tell where the prefix ends.)

    Raises
    ------
    ValueError
        When the four sentinels are not there, each once, in this order: prefix first of all, suffix, middle,
        end last of all.

    Examples
    --------
    >>> marks = Sentinels(prefix=1, suffix=2, middle=3, end=0)
    >>> restore([1, 7, 2, 9, 3, 8, 0], marks), restore([1, 2, 9, 3, 7, 8, 0], marks)
    ([7, 8, 9], [7, 8, 9])
    """
    ids = list(ids)
    order = [sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end]
    if [each for each in ids if each in order] != order or [ids[0], ids[-1]] != [order[0], order[-1]]:
        raise ValueError(f"an example must hold {order} once each, in this order, from first to last")
    at_suffix, at_middle = ids.index(sentinels.suffix), ids.index(sentinels.middle)
    return ids[1:at_suffix] + ids[at_middle + 1 : -1] + ids[at_suffix + 1 : at_middle]


def example(
    text: str,
    tokenizer: BPE,
    sentinels: Sentinels,
    max_tokens: int,
    rng: np.random.Generator,
    fim_rate: float = 0.5,
    spm_rate: float = 0.5,
) -> list[int]:
    """Make a training example of a text.

    Parameters
    ----------
    text
        A document.
    tokenizer
        Its ``encode`` gives the ids of a text. Each part is encoded for itself.
    sentinels
        No text has these ids.
    max_tokens
        How many tokens the example may have, at least 4.
    rng
        ``rng.random()`` is called first; then, if it is less than `fim_rate`, `cut`, and then once more
        ``rng.random()``.
    fim_rate
        With which probability the text is cut.
    spm_rate
        A text that is cut becomes SPM if the second number is less than this, PSM otherwise.

    Returns
    -------
    list[int]
        What is not cut: its ids and the end token, the first `max_tokens` of these. (So a text that is too
        long has no end.) What is cut: arranged, after `trim` has made it fit.

    Raises
    ------
    ValueError
        When ``max_tokens`` is less than 4.
    """
    if max_tokens < 4:
        raise ValueError(f"max_tokens must have room for four sentinels; got {max_tokens}")
    if rng.random() >= fim_rate:
        return [*tokenizer.encode(text), sentinels.end][:max_tokens]
    prefix, middle, suffix = (tokenizer.encode(part) for part in cut(text, rng))
    is_spm = rng.random() < spm_rate
    return arrange(*trim(prefix, middle, suffix, max_tokens - 4), sentinels, is_spm)


def prompt(
    prefix: str, suffix: str, tokenizer: BPE, sentinels: Sentinels, max_tokens: int, is_spm: bool = False
) -> list[int]:
    """Ask for what stands between a prefix and a suffix: an example up to where its middle begins.

    Parameters
    ----------
    prefix, suffix
        The text on both sides of the cursor; may be empty.
    tokenizer, sentinels, is_spm
        As for `example` and `arrange`.
    max_tokens
        How many tokens the prompt may have, at least 3.

    Returns
    -------
    list[int]
        The three sentinels before the middle, and of the rest: the suffix gets a quarter, rounded down, and
        keeps its beginning; the prefix gets all that the suffix does not need, and keeps its end.

    Raises
    ------
    ValueError
        When ``max_tokens`` is less than 3.

    Examples
    --------
    >>> bpe, marks = BPE([], {"<end>": 0, "<pre>": 1, "<suf>": 2, "<mid>": 3}), Sentinels(1, 2, 3, 0)
    >>> prompt("a", "b", bpe, marks, 9), prompt("a", "b", bpe, marks, 9, is_spm=True)  # 68 and 69
    ([1, 68, 2, 69, 3], [1, 2, 69, 3, 68])
    """
    room = max_tokens - 3
    if room < 0:
        raise ValueError(f"max_tokens must have room for three sentinels; got {max_tokens}")
    after = tokenizer.encode(suffix)[: room // 4]
    before = tokenizer.encode(prefix)
    before = before[max(0, len(before) - room + len(after)) :]
    return arrange(before, [], after, sentinels, is_spm)[:-1]
