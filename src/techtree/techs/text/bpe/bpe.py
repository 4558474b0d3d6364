"""Byte-pair encoding: learn a vocabulary by merging what stands together most often, and encode with it.

Claim: a list of merges, in the order in which they were learned, is the whole tokenizer. Training looks for the next
one; encoding replays them.

Legend: a symbol is a byte or a token learned so far. A pair is two neighbouring symbols of one word. A merge
is a pair of byte strings, its rank the place in the list. An id is a token's number.

Left out: writing files. `tokenizer.json` holds merges as pairs of visible strings; `from_visible` of
`pretokenize` reads them.

Paper: Sennrich, Haddow, Birch (2016), https://arxiv.org/abs/1508.07909
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

from techtree.techs.text.pretokenize import bytes_to_unicode, split


class BPE:
    """A byte-level tokenizer: text to ids and back, without loss.

    Ordinary tokens are the 256 bytes, in the order of `bytes_to_unicode`, then the results of the merges, in
    their order. They take, from 0 and in this order, the ids that no special token has.

    Parameters
    ----------
    merges
        Pairs of byte strings, the most important first. Each part is a single byte or the result of an
        earlier merge. A result that is a token already gets no second id.
    special_tokens
        Names and ids of tokens that are not text, such as ``{"<|endoftext|>": 0}``. The bytes of a name may be an
        ordinary token as well: the two are different tokens.

    Attributes
    ----------
    merges
        As given: a tuple of pairs.
    special_tokens
        As given: a new dictionary.
    vocab
        Bytes by id, in the order of the ids; of a special token, its name in UTF-8.

    Raises
    ------
    ValueError
        When a merge occurs twice or has a part that is no token yet; when a special token's name is empty, or two have
        the same id, or one is negative.

    Examples
    --------
    >>> bpe = BPE([(b"a", b"a"), (b"aa", b"b")], {"<end>": 0})
    >>> bpe.encode("aab aaa")  # aab; a space; aa, a
    [258, 221, 257, 66]
    >>> bpe.vocab[257]
    b'aa'
    """

    def __init__(self, merges: Sequence[tuple[bytes, bytes]], special_tokens: Mapping[str, int] | None = None):
        self.merges = tuple((bytes(left), bytes(right)) for left, right in merges)
        self.special_tokens = dict(special_tokens or {})
        tokens = dict.fromkeys(bytes([byte]) for byte in bytes_to_unicode())
        for left, right in self.merges:
            if left not in tokens or right not in tokens:
                raise ValueError(f"the parts of a merge must be tokens before it; got {(left, right)}")
            tokens[left + right] = None
        taken = set(self.special_tokens.values())
        if len(set(self.merges)) < len(self.merges):
            raise ValueError("each merge must occur once; sort them by rank and drop the later ones")
        if len(taken) < len(self.special_tokens) or min(taken, default=0) < 0 or "" in self.special_tokens:
            raise ValueError(f"special tokens need names and different ids from 0; got {self.special_tokens}")
        free = (i for i in range(len(tokens) + len(taken)) if i not in taken)
        self._ids = dict(zip(tokens, free, strict=False))
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        named = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        self.vocab = dict(sorted((named | {i: token for token, i in self._ids.items()}).items()))
        self._encode_word = lru_cache(maxsize=2**17)(self._merged)

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text
            Any text that UTF-8 can write.
        allowed_special
            Names of special tokens that mean the token where they stand in the text; of two that begin at
            the same place, the longer one. All others are text like any other.

        Returns
        -------
        list[int]
            The text is cut at the allowed special tokens, then into words by `split`. Each word starts as
            its bytes; then, as long as there is one, the pair of the lowest rank, among equal ones the leftmost,
            becomes one symbol.

        Raises
        ------
        ValueError
            When a name is not a special token, or the text holds half of a surrogate pair.
        """
        unknown = set(allowed_special) - self.special_tokens.keys()
        if unknown:
            raise ValueError(f"allowed_special must name special tokens; {sorted(unknown)} are none")
        if not allowed_special:
            return [i for word in split(text) for i in self._encode_word(word)]
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
            Python or NumPy integers. A special token gives its name.

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
        """Merge the bytes of a word, the lowest rank first: a heap of pairs over a linked list of symbols."""
        symbols: list[bytes | None] = [bytes([byte]) for byte in word.encode("utf-8")]
        n = len(symbols)
        before, after = list(range(-1, n - 1)), [*range(1, n), -1]
        heap = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in self._ranks]
        heapify(heap)
        while heap:
            rank, i = heappop(heap)
            j = after[i]
            left, right = self.merges[rank]
            if symbols[i] != left or j < 0 or symbols[j] != right:
                continue  # a neighbour was merged away since
            symbols[i], symbols[j] = left + right, None
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
            for a, b in ((before[i], i), (i, after[i])):
                if a >= 0 and b >= 0 and (symbols[a], symbols[b]) in self._ranks:
                    heappush(heap, (self._ranks[symbols[a], symbols[b]], a))
        return tuple(self._ids[symbol] for symbol in symbols if symbol is not None)


def train(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> BPE:
    """Learn merges from texts.

    Parameters
    ----------
    texts
        What to learn from, cut into words by `split`; no pair reaches from one word into the next. The order
        does not matter, and names of special tokens are text.
    vocab_size
        How many tokens there are in all: special tokens, 256 bytes, merges. There are fewer if no pair is left.
    special_tokens
        Their names, with the ids 0, 1, 2, ...

    Returns
    -------
    BPE
        With merges in the order in which they were learned.

    Raises
    ------
    ValueError
        When ``vocab_size`` is less than 256 and the number of special tokens, when a name is empty or occurs twice,
        when ``texts`` is one string, or a text holds half of a surrogate pair.

    Notes
    -----
    Start with words as bytes. Repeat: count, over all words, the positions at which a pair stands (in ``aaa``
    the pair of a and a stands at two); take the pair with the highest count, among equals the one whose left symbol has
    the lowest id, then whose right symbol has; append it, and replace it in each word, from left to right (``aaa``
    becomes ``aa``, ``a``). The counts after a merge are those of a new count, though only the words that
    contain the pair need a look.

    Examples
    --------
    >>> train(["low lower lowest"], 261).merges  # "lo" stands in 3 words, as "ow" does; l comes before o
    ((b'l', b'o'), (b'lo', b'w'), (b' ', b'low'), (b' low', b'e'), (b' lowe', b'r'))
    """
    if isinstance(texts, str):
        raise ValueError("texts must be several texts; got one string: put it in a list")
    names = {name: i for i, name in enumerate(special_tokens)}
    if vocab_size < 256 + len(special_tokens) or len(names) < len(special_tokens):
        raise ValueError(f"{vocab_size} ids must hold 256 bytes and the distinct tokens {special_tokens}")
    counts = Counter(word for text in texts for word in split(text))
    return BPE(_learn(counts, vocab_size - 256 - len(names)), names)


def _learn(counts: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Merge the most frequent pair of the words, again and again; symbols are numbered as in `BPE`."""
    tokens = [bytes([byte]) for byte in bytes_to_unicode()]
    number = {token[0]: i for i, token in enumerate(tokens)}
    words = [[number[byte] for byte in word.encode("utf-8")] for word in counts]
    pair_counts: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for w, (word, count) in enumerate(zip(words, counts.values(), strict=True)):
        for pair in pairwise(word):
            pair_counts[pair] += count
            where[pair].add(w)
    # Only the pairs with a new symbol can gain, so an entry of the queue is never too low. One that is too
    # high goes back with its count of today.
    queue = [(-count, pair) for pair, count in pair_counts.items()]
    heapify(queue)
    frequencies = list(counts.values())
    merges = []
    while queue and len(merges) < n_merges:
        expected, pair = heappop(queue)
        if pair_counts[pair] != -expected:
            if pair_counts[pair]:
                heappush(queue, (-pair_counts[pair], pair))
            continue
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        born = set()
        for w in where.pop(pair):
            old, words[w] = words[w], _replaced(words[w], pair, len(tokens) - 1)
            for lost in pairwise(old):
                pair_counts[lost] -= frequencies[w]
            for found in pairwise(words[w]):
                pair_counts[found] += frequencies[w]
                if len(tokens) - 1 in found:
                    where[found].add(w)
                    born.add(found)
        for found in born:
            heappush(queue, (-pair_counts[found], found))
    return merges


def _replaced(word: list[int], pair: tuple[int, int], symbol: int) -> list[int]:
    """Put one symbol in the place of each pair, from left to right."""
    result, at = [], 0
    while at < len(word):
        is_pair = tuple(word[at : at + 2]) == pair
        result.append(symbol if is_pair else word[at])
        at += 2 if is_pair else 1
    return result
