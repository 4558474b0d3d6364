"""Byte-pair encoding: learn a vocabulary by merging what stands together most often, and encode with it.

Claim: a list of merges, in the order in which they were learned, is the whole tokenizer. Training finds the
next one; encoding replays them.

Legend: a symbol is a byte or a token learned so far. A pair is two neighbouring symbols of one word. A merge
is a pair of byte strings; its rank is its place in the list, from 0. An id is a token's number.

Left out: reading and writing files. `tokenizer.json` holds the merges as pairs of visible strings, which
`from_visible` of `pretokenize` turns into bytes.

Paper: Sennrich, Haddow, Birch (2016), https://arxiv.org/abs/1508.07909
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import count, pairwise

from techtree.techs.text.pretokenize import bytes_to_unicode, split


class BPE:
    """A byte-level tokenizer: text to ids and back, without loss.

    Ordinary tokens are the 256 bytes, in the order of `bytes_to_unicode`, then the results of the merges, in
    their order. In this order they take the ids, from 0, that no special token has.

    Parameters
    ----------
    merges
        Pairs of byte strings, the most important first. Each part is a single byte or the result of an
        earlier merge. Two merges may have one result: it keeps the id that the first gave it.
    special_tokens
        Names and ids of tokens that are not text: ``{"<|endoftext|>": 0}``. The ids may leave gaps. A name
        may have the bytes of an ordinary token; they are different tokens all the same.

    Attributes
    ----------
    merges
        A tuple of tuples, as given.
    special_tokens
        A new dictionary, equal to the one given; empty without one.
    vocab
        A dictionary from each id to the token's bytes, by ascending id; for a special token, its name in
        UTF-8.

    Raises
    ------
    ValueError
        When a merge occurs twice, or has a part that is no token yet; when a special token has a negative id,
        the id of another, an empty name, or half of a surrogate pair in its name.

    Examples
    --------
    >>> bpe = BPE([(b"a", b"a"), (b"aa", b"b")], {"<end>": 0})
    >>> bpe.encode("aab aaa")  # aab; then a space, aa, a
    [258, 221, 257, 65]
    >>> bpe.vocab[257]
    b'aa'
    """

    def __init__(
        self, merges: Sequence[tuple[bytes, bytes]], special_tokens: Mapping[str, int] | None = None
    ):
        self.merges = tuple((bytes(left), bytes(right)) for left, right in merges)
        self.special_tokens = dict(special_tokens or {})
        taken = set(self.special_tokens.values())
        if len(taken) < len(self.special_tokens) or min(taken, default=0) < 0 or "" in self.special_tokens:
            raise ValueError(f"special tokens need names and different ids from 0; got {self.special_tokens}")
        tokens = dict.fromkeys(bytes([byte]) for byte in bytes_to_unicode())  # a set that keeps its order
        self._ranks: dict[tuple[bytes, bytes], int] = {}
        for rank, (left, right) in enumerate(self.merges):
            if left not in tokens or right not in tokens or (left, right) in self._ranks:
                raise ValueError(f"a merge must be new, its parts tokens before it; got {(left, right)}")
            self._ranks[left, right] = rank
            tokens[left + right] = None
        free = (i for i in count() if i not in taken)
        self._ids = dict(zip(tokens, free, strict=False))
        ordinary = {i: token for token, i in self._ids.items()}
        named = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        self.vocab = dict(sorted((ordinary | named).items()))
        # Most words of a text have been met before. A tuple, because a caller may change a list.
        self._word_ids = lru_cache(maxsize=2**17)(self._merged)

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text
            Any text that UTF-8 can write.
        allowed_special
            Names of special tokens that mean the token where they stand in the text, read from the left: the
            one that begins first, of several that begin there the longest; then on behind it. All others are
            text like any other.

        Returns
        -------
        list[int]
            The text is cut at the allowed special tokens, and what is between them into words, by `split`.
            Each word starts as its bytes. Then, as long as there is a pair that is a merge, the one of the
            lowest rank, the leftmost of several, becomes one symbol. A new list each time. The time must not
            grow with the square of a word's length.

        Raises
        ------
        ValueError
            When a name is not that of a special token, or the text holds half of a surrogate pair.
        """
        unknown = set(allowed_special) - self.special_tokens.keys()
        if unknown:
            raise ValueError(f"allowed_special must name special tokens; {sorted(unknown)} are none")
        if not allowed_special:
            return [i for word in split(text) for i in self._word_ids(word)]
        names = "|".join(re.escape(name) for name in sorted(allowed_special, key=len, reverse=True))
        ids = []
        for k, part in enumerate(re.split(f"({names})", text)):
            ids += [self.special_tokens[part]] if k % 2 else self.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8, as of half a character, become U+FFFD.

        Parameters
        ----------
        ids
            As for `decode_bytes`.

        Returns
        -------
        str
            What ``bytes.decode`` with ``errors="replace"`` makes of all bytes joined.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids, which may begin or end within a character.

        Parameters
        ----------
        ids
            Python or NumPy integers.

        Returns
        -------
        bytes
            Those of all tokens, joined; of a special token, its name in UTF-8.

        Raises
        ------
        ValueError
            When an id is not in the vocabulary, also a negative one.
        """
        ids = list(ids)
        strangers = [i for i in ids if i not in self.vocab]
        if strangers:
            raise ValueError(f"ids must be in the vocabulary of {len(self.vocab)}; got {strangers[:5]}")
        return b"".join([self.vocab[i] for i in ids])

    def _merged(self, word: str) -> tuple[int, ...]:
        """Merge the bytes of a word: a heap of pairs by rank and place, over a linked list of symbols."""
        symbols = [bytes([byte]) for byte in word.encode("utf-8")]
        before, after = [*range(-1, len(symbols) - 1)], [*range(1, len(symbols)), -1]
        heap = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in self._ranks]
        heapify(heap)
        while heap:
            rank, i = heappop(heap)
            j = after[i]
            if j < 0 or (symbols[i], symbols[j]) != self.merges[rank]:
                continue  # a neighbour has been merged away since
            symbols[i], symbols[j] = b"".join(self.merges[rank]), b""
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
            for a, b in ((before[i], i), (i, after[i])):
                if a >= 0 and b >= 0 and (symbols[a], symbols[b]) in self._ranks:
                    heappush(heap, (self._ranks[symbols[a], symbols[b]], a))
        return tuple(self._ids[symbol] for symbol in symbols if symbol)


def train(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> BPE:
    """Learn merges from texts.

    Parameters
    ----------
    texts
        What to learn from, read once, cut into words by `split`; no pair reaches from one word into the next.
        The order does not matter, and names of special tokens are text.
    vocab_size
        How many tokens there are in all: special tokens, 256 bytes, merges. There are fewer when no pair is
        left.
    special_tokens
        Their names; the ids are 0, 1, 2, ..., in this order.

    Returns
    -------
    BPE
        With the merges in the order in which they were learned.

    Raises
    ------
    ValueError
        When ``vocab_size`` is less than 256 plus the special tokens, when a name is empty or occurs twice,
        when ``texts`` is one string, or when a text or a name holds half of a surrogate pair.

    Notes
    -----
    Each word starts as its bytes. Then repeat: count, over all words of all texts, at how many positions each
    pair stands (in ``aaa`` the pair of a and a stands at two); take the pair of the highest count, among
    equals the one whose left symbol has the lowest id, among these the one whose right symbol has; append it
    to the merges; replace it in all words, from left to right (``aaa`` becomes ``aa``, ``a``). A pair that
    occurs once counts too.

    The counts need not be taken anew: only words that contain the pair change.

    Examples
    --------
    >>> train(["low lower lowest"], 260).merges  # lo and ow occur 3 times, and l has a lower id than o
    ((b'l', b'o'), (b'lo', b'w'), (b' ', b'low'), (b' low', b'e'))
    """
    if isinstance(texts, str):
        raise ValueError("texts must be several texts; got one string: put it in a list")
    ids = {name: i for i, name in enumerate(special_tokens)}
    if len(ids) < len(special_tokens) or vocab_size < 256 + len(ids):
        raise ValueError(f"{vocab_size} ids must hold 256 bytes and the distinct tokens {special_tokens}")
    frequencies = Counter(word for text in texts for word in split(text))
    return BPE(_learn(frequencies, vocab_size - 256 - len(ids)), ids)


def _learn(frequencies: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Merge the most frequent pair of some words, again and again; symbols are numbered as in `BPE`."""
    tokens = [bytes([byte]) for byte in bytes_to_unicode()]
    number = {token[0]: i for i, token in enumerate(tokens)}
    words = [[number[byte] for byte in word.encode("utf-8")] for word in frequencies]
    weights = list(frequencies.values())
    counts: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # the words that hold, or held, a pair

    def tally(w: int, sign: int) -> None:
        for pair in pairwise(words[w]):
            counts[pair] += sign * weights[w]
            places[pair].add(w)

    for w in range(len(words)):
        tally(w, +1)
    # Once a pair is in the queue, it can only lose. So no entry is too low, and one that turns out too high
    # goes back with its count of today.
    queue = [(-count, pair) for pair, count in counts.items()]
    heapify(queue)
    merges = []
    while queue and len(merges) < n_merges:
        negative, pair = heappop(queue)
        if counts[pair] < -negative:
            if counts[pair]:
                heappush(queue, (-counts[pair], pair))
            continue
        left, right = (tokens[symbol] for symbol in pair)
        merges.append((left, right))
        tokens.append(left + right)
        new = len(tokens) - 1
        fresh = set()
        for w in places.pop(pair):
            tally(w, -1)
            words[w] = _replaced(words[w], pair, new)
            tally(w, +1)
            fresh.update(found for found in pairwise(words[w]) if new in found)
        for found in fresh:
            heappush(queue, (-counts[found], found))
    return merges


def _replaced(word: list[int], pair: tuple[int, int], symbol: int) -> list[int]:
    """Put one symbol in the place of each pair, from left to right."""
    result, at = [], 0
    while at < len(word):
        is_pair = word[at] == pair[0] and word[at + 1 : at + 2] == [pair[1]]
        result.append(symbol if is_pair else word[at])
        at += 2 if is_pair else 1
    return result
