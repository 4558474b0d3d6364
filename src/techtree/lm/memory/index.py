"""Where the last tokens of a text stood before, in many texts, and what followed there.

Every place of the texts is sorted by the tokens before it, the last one first: a suffix array, read
backwards. All places that share their last ``n`` tokens then lie side by side, so that the longest match of a
context, and how often it occurs, are found by narrowing one range, token by token. Liu et al. 2024,
"Infini-gram", https://arxiv.org/abs/2401.17377.

Arrays: ``T`` tokens, those that separate texts included; ``P`` places; ``N`` texts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int32

LONGEST_MATCH = 32
"""Tokens that are compared. What agrees in so many is a copy, and to know more would not help."""

N_LOOKED_AT = 64
"""Of the places that match, so many at most, evenly spread."""

BOUNDARY = -1
"""Stands between texts; no token has this number, so that no match crosses it."""

MAX_KEY = 1 << 62
"""Numbers below can be compared as integers of 64 bits."""

Continues = Callable[[Int32[np.ndarray, " n"]], int | None]
"""From the next tokens of a place to the token that a text would go on with there; None if it would not."""

N_NEXT = 16
"""So many next tokens are shown, at most."""

NAMES = ("tokens.npy", "places.npy", "starts.npy")


@dataclass(frozen=True)
class Match:
    """The places that share the most last tokens with a context, and what followed there.

    Attributes
    ----------
    n_tokens
        How many tokens they share with it, `LONGEST_MATCH` at most.
    n_places
        How many places there are; an estimate where they are more than were looked at.
    followers
        The tokens that followed, each once, the most frequent first.
    counts
        How often each did, of the places that were looked at.
    """

    n_tokens: int
    n_places: int
    followers: Int[np.ndarray, " F"]
    counts: Int[np.ndarray, " F"]


def match_of(n_tokens: int, n_places: int, followers: Int[np.ndarray, " n"]) -> Match:
    """Count what followed at some places."""
    tokens, counts = np.unique(followers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Match(n_tokens, n_places, tokens[order], counts[order])


class TokenIndex:
    """Texts, sorted for looking up.

    Parameters
    ----------
    texts
        The tokens of each.
    """

    def __init__(self, texts: Iterable[Sequence[int] | Int32[np.ndarray, " n"]]):
        boundary = np.array([BOUNDARY], np.int32)
        parts = [boundary]
        for text in texts:
            parts += [np.asarray(text, np.int32), boundary]
        tokens = np.concatenate(parts)
        starts = np.cumsum([1, *(len(part) + 1 for part in parts[1::2])])
        self._set(tokens, _sorted_places(tokens), starts)

    def _set(
        self,
        tokens: Int32[np.ndarray, " T"],
        places: Int32[np.ndarray, " P"],
        starts: Int[np.ndarray, " _"],
    ) -> None:
        self.tokens, self.places, self.starts = tokens, places, starts

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder."""
        for name, array in zip(NAMES, (self.tokens, self.places, self.starts), strict=True):
            np.save(folder / name, array)

    @classmethod
    def load(cls, folder: Path) -> "TokenIndex":
        """Map the arrays that `save` wrote, without reading them.

        Raises
        ------
        OSError, ValueError
            When they are missing or damaged.
        """
        index = cls.__new__(cls)
        tokens, places, starts = (np.load(folder / name, mmap_mode="r") for name in NAMES)
        if not (len(starts) and starts[-1] == len(tokens) and len(places) < len(tokens)):
            raise ValueError("the arrays of an index do not fit each other")
        # A plain view: each access of a memory map's own class takes twice the time.
        index._set(np.asarray(tokens), np.asarray(places), np.array(starts))
        return index

    @property
    def n_texts(self) -> int:
        """How many texts there are."""
        return len(self.starts) - 1

    def text(self, i: int) -> Int32[np.ndarray, " n"]:
        """Return the tokens of a text."""
        return self.tokens[self.starts[i] : self.starts[i + 1] - 1]

    def text_of(self, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the numbers of the texts in which places lie."""
        return np.searchsorted(self.starts, places, side="right") - 1

    def match(
        self,
        context: Sequence[int],
        is_hidden: Bool[np.ndarray, " N"] | None = None,
        continues: Continues | None = None,
    ) -> Match | None:
        """Return the places that share the most last tokens with a context; None where none shares one.

        Parameters
        ----------
        context
            The tokens so far; the last `LONGEST_MATCH` count.
        is_hidden
            The texts that do not count; all do when left out.
        continues
            What follows at a place, where that is not simply the next token.
        """
        for n, low, high in reversed(self._ranges(context)):
            step = -(-(high - low) // N_LOOKED_AT)
            places = self.places[low:high:step]
            if is_hidden is not None:
                places = places[~is_hidden[self.text_of(places)]]
            followers = self.tokens[places]
            if continues is not None:
                found = [continues(self.tokens[place : place + N_NEXT]) for place in places]
                followers = np.array([token for token in found if token is not None], np.int32)
            if len(followers):
                return match_of(n, step * len(followers), followers)
        return None

    def texts_with(self, tokens: Sequence[int]) -> set[int]:
        """Return the numbers of the texts in which some tokens stand, `N_LOOKED_AT` places at most."""
        found = self._ranges(tokens)
        if len(found) < min(len(tokens), LONGEST_MATCH):
            return set()
        _, low, high = found[-1]
        return set(self.text_of(self.places[low : min(high, low + N_LOOKED_AT)]).tolist())

    def _ranges(self, context: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return for each number of shared tokens where in the order the places that share them lie."""
        tokens, places = self.tokens, self.places
        low, high = 0, len(places)
        ranges = []
        for n, token in enumerate(reversed(context[-LONGEST_MATCH:]), start=1):
            if high - low == 1:  # one place is left: how far it agrees can be counted
                if tokens[places[low] - n] != token:
                    break
                ranges.append((n, low, high))
                continue
            before = _Before(tokens, places, n)
            low = bisect_left(before, token, low, high)
            high = bisect_right(before, token, low, high)
            if low == high:
                break
            ranges.append((n, low, high))
        return ranges


class _Before(Sequence[int]):
    """The n-th token before each place, as `bisect` wants it: sorted where the later ones agree."""

    def __init__(self, tokens: Int32[np.ndarray, " T"], places: Int32[np.ndarray, " P"], n: int):
        self._tokens, self._places, self._n = tokens, places, n

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(self._tokens[self._places[i] - self._n])


def _sorted_places(tokens: Int32[np.ndarray, " T"]) -> Int32[np.ndarray, " P"]:
    """Return the places that a token follows, sorted by up to `LONGEST_MATCH` tokens before.

    Numbers that order by one token become numbers that order by two, by four and so on (Manber and Myers
    1993): of two halves, the later one counts first.
    """
    keys, n = tokens.astype(np.int64) - BOUNDARY, 1
    n_values = int(keys.max()) + 1
    while n < LONGEST_MATCH and n_values ** (2 * n) < MAX_KEY:  # so many tokens fit into one number
        keys = keys * n_values**n + _earlier(keys, n)
        n *= 2
    while True:
        order = np.argsort(keys)
        in_order = keys[order]
        ranks_in_order = np.cumsum(np.concatenate(([False], in_order[1:] != in_order[:-1])))
        if n >= LONGEST_MATCH or ranks_in_order[-1] == len(tokens) - 1:
            break
        ranks = np.empty_like(keys)
        ranks[order] = ranks_in_order
        keys = ranks * (len(tokens) + 1) + _earlier(ranks + 1, n)
        n *= 2
    places = order + 1  # a key orders by the tokens up to its own; what follows them is the place
    places = places[places < len(tokens)]
    return places[(tokens[places] != BOUNDARY) & (tokens[places - 1] != BOUNDARY)].astype(np.int32)


def _earlier(keys: Int[np.ndarray, " T"], n: int) -> Int[np.ndarray, " T"]:
    """Return the key n places earlier; before the beginning stands what is smaller than all."""
    return np.concatenate((np.zeros(n, np.int64), keys[:-n]))[: len(keys)]
