"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import inspect
import re
import string
import textwrap
import time
import unicodedata
from collections import Counter
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

from techtree.techs.text.pretokenize import bytes_to_unicode, split

NUMBER = {byte: i for i, byte in enumerate(bytes_to_unicode())}
ID = {bytes([byte]): i for byte, i in NUMBER.items()}


def _replaced(word, pair, symbol):
    result, at = [], 0
    while at < len(word):
        is_pair = tuple(word[at : at + 2]) == pair
        result.append(symbol if is_pair else word[at])
        at += 1 + is_pair
    return result


def _replaced_from_the_right(word, pair, symbol):
    return _replaced(word[::-1], pair[::-1], symbol)[::-1]


def _learn(frequencies, n_merges, count=None, best=None, replace=_replaced, least=1):
    """Count anew before each merge; the parameters exchange one step."""
    tokens = [bytes([byte]) for byte in bytes_to_unicode()]
    words = [([NUMBER[byte] for byte in word.encode()], n) for word, n in frequencies.items()]
    merges = []
    while len(merges) < n_merges:
        counts = (count or _count)(words)
        if not counts or max(counts.values()) < least:
            break
        pair = (best or _best)(counts, tokens)
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        words = [(replace(word, pair, len(tokens) - 1), n) for word, n in words]
    return merges


def _count(words):
    counts = Counter()
    for word, n in words:
        for pair in pairwise(word):
            counts[pair] += n
    return counts


def _best(counts, tokens):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _count_without_overlaps(words):
    counts = Counter()
    for word, n in words:
        at = 0
        while at < len(word) - 1:
            pair = word[at], word[at + 1]
            counts[pair] += n
            # The run aaa holds aa once.
            at += 2 if word[at : at + 3] == [pair[0]] * 3 else 1
    return counts


def _count_each_word_once(words):
    return _count([(word, 1) for word, _ in words])


def _count_once_per_word(words):
    counts = Counter()
    for word, n in words:
        for pair in set(pairwise(word)):
            counts[pair] += n
    return counts


def _count_at_the_start_only():
    kept = {}

    def count(words):
        if not kept:
            kept.update(_count(words))
        present = {pair for word, _ in words for pair in pairwise(word)}
        return {pair: n for pair, n in kept.items() if pair in present}

    return count


def _learning(**steps):
    def learn(frequencies, n_merges):
        return _learn(
            frequencies,
            n_merges,
            **{k: v() if v is _count_at_the_start_only else v for k, v in steps.items()},
        )

    return {"_learn": learn}


HEADS = {
    "encode": "    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:\n",
    "decode": "    def decode(self, ids: Iterable[int]) -> str:\n",
    "decode_bytes": "    def decode_bytes(self, ids: Iterable[int]) -> bytes:\n",
    "_merged": "    def _merged(self, word: str) -> tuple[int, ...]:\n",
    "train": "def train(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()) -> BPE:\n",
}
"""The first lines of what can be written anew."""


def _written(name, function):
    """Edits that put a function's source in the place of ours, which is then called ``_own_...``."""
    head = HEADS[name]
    indent = head[: len(head) - len(head.lstrip())]
    source = inspect.getsource(function).replace(f"def {function.__name__}(", f"def {name}(", 1)
    own = head.replace(f"def {name}(", f"def _own_{name}(", 1)
    imports = ("import re\n", "import re\nimport unicodedata\n\nimport numpy as np\n")
    edits = [imports, (head, f"{textwrap.indent(source, indent)}\n{own}")]
    # Ours calls itself for what is between special tokens.
    return edits + [("else self.encode(part)", "else self._own_encode(part)")] * (name == "encode")


def _in_order_of_place(self, word):
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    at = 0
    while at < len(symbols) - 1:
        if (symbols[at], symbols[at + 1]) in self._ranks:
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            at = max(0, at - 1)
        else:
            at += 1
    return tuple(self._ids[symbol] for symbol in symbols)


def _longest_first(self, word):
    data, ids = word.encode("utf-8"), []
    while data:
        token = next(data[:n] for n in range(min(len(data), 32), 0, -1) if data[:n] in self._ids)
        ids.append(self._ids[token])
        data = data[len(token) :]
    return tuple(ids)


def _the_last_learned_first(self, word):
    """Cut the word at a token wherever its bytes occur, the longest ranks first."""

    def cut(data):
        for token in sorted(self._ids, key=self._ids.get, reverse=True):
            before, found, after = data.partition(token)
            if found and len(token) > 1:
                return [*cut(before), self._ids[token], *cut(after)]
        return [self._ids[bytes([byte])] for byte in data]

    return tuple(cut(word.encode("utf-8")))


def _one_round(self, word):
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    pairs = [pair for pair in pairwise(symbols) if pair in self._ranks]
    for pair in sorted(set(pairs), key=self._ranks.get):
        symbols = _replaced(symbols, pair, b"".join(pair))
    return tuple(self._ids[symbol] for symbol in symbols)


def _all_places_at_once(self, word):
    """As GPT-2's own encoder did; where two merges have one result, a new symbol may come too late."""
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    for _ in range(len(symbols)):
        pairs = [pair for pair in pairwise(symbols) if pair in self._ranks]
        if not pairs:
            break
        pair = min(pairs, key=self._ranks.get)
        symbols = _replaced(symbols, pair, b"".join(pair))
    return tuple(self._ids[symbol] for symbol in symbols)


def _one_at_a_time(self, word):
    """Right, but every merge looks at the whole word."""
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    while True:
        found = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in self._ranks]
        if not found:
            return tuple(self._ids[symbol] for symbol in symbols)
        i = min(found)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def _whole_words_first(self, word):
    whole = word.encode("utf-8")
    return (self._ids[whole],) if whole in self._ids else self._own__merged(word)


def _cut_at_255(self, word):
    return sum((self._own__merged(word[at : at + 255]) for at in range(0, len(word), 255)), ())


def _always_special(self, text, allowed_special=()):
    return self._own_encode(text, self.special_tokens)


def _never_special(self, text, allowed_special=()):
    return self._own_encode(text)


def _all_when_one_is_allowed(self, text, allowed_special=()):
    self._own_encode("", allowed_special)
    return self._own_encode(text, self.special_tokens if allowed_special else ())


def _all_that_were_ever_allowed(self, text, allowed_special=()):
    self._own_encode("", allowed_special)
    self._allowed = {*getattr(self, "_allowed", ()), *allowed_special}
    return self._own_encode(text, self._allowed)


def _special_as_words(self, text, allowed_special=()):
    """Look for special tokens among the words, where whitespace is."""
    self._own_encode("", allowed_special)
    ids = []
    for word in re.split(r"(\s+)", text):
        ids += [self.special_tokens[word]] if word in allowed_special else self._own_encode(word)
    return ids


def _special_by_replacement(self, text, allowed_special=()):
    """Encode everything, then put the special id where the ids of its name stand."""
    self._own_encode("", allowed_special)
    ids = self._own_encode(text)
    for name in sorted(allowed_special, key=len, reverse=True):
        wanted = self._own_encode(name)
        at = 0
        while at < len(ids):
            if ids[at : at + len(wanted)] == wanted:
                ids[at : at + len(wanted)] = [self.special_tokens[name]]
            at += 1
    return ids


def _longest_name_first_anywhere(self, text, allowed_special=()):
    """Cut at every place of the longest name before any other is looked for."""
    self._own_encode("", allowed_special)
    parts = [text]
    for name in sorted(allowed_special, key=len, reverse=True):
        for at in range(len(parts) - 1, -1, -1):
            if isinstance(parts[at], str) and name in parts[at]:
                pieces = parts[at].split(name)
                parts[at : at + 1] = [x for piece in pieces for x in (self.special_tokens[name], piece)][1:]
    return [i for part in parts for i in ([part] if isinstance(part, int) else self._own_encode(part))]


def _special_in_any_case(self, text, allowed_special=()):
    for name in allowed_special:
        if name in self.special_tokens:
            text = re.sub(re.escape(name), lambda match, name=name: name, text, flags=re.IGNORECASE)
    return self._own_encode(text, allowed_special)


def _without_blanks_around_special(self, text, allowed_special=()):
    for name in allowed_special:
        if name in self.special_tokens:
            text = re.sub(f" *{re.escape(name)} *", lambda match, name=name: name, text)
    return self._own_encode(text, allowed_special)


def _unknown_names_only_where_they_occur(self, text, allowed_special=()):
    return self._own_encode(
        text, [name for name in allowed_special if name in self.special_tokens or (name and name in text)]
    )


def _without_a_mark(self, text, allowed_special=()):
    return self._own_encode(text.removeprefix("\ufeff"), allowed_special)


def _one_kind_of_line_end(self, text, allowed_special=()):
    return self._own_encode(text.replace("\r\n", "\n"), allowed_special)


def _without_nul(self, text, allowed_special=()):
    return self._own_encode(text.replace("\0", ""), allowed_special)


def _composed(self, text, allowed_special=()):
    return self._own_encode(unicodedata.normalize("NFC", text), allowed_special)


def _with_pairs_joined(self, text, allowed_special=()):
    return self._own_encode(text.encode("utf-16", "surrogatepass").decode("utf-16"), allowed_special)


def _numbers_of_numpy(self, text, allowed_special=()):
    return list(np.array(self._own_encode(text, allowed_special), dtype=np.int64))


def _tuple_of_ids(self, text, allowed_special=()):
    return tuple(self._own_encode(text, allowed_special))


def _token_by_token(self, ids):
    return "".join(self.decode_bytes([i]).decode("utf-8", errors="replace") for i in ids)


def _strictly(self, ids):
    return self.decode_bytes(ids).decode("utf-8")


def _dropping(self, ids):
    return self.decode_bytes(ids).decode("utf-8", errors="ignore")


def _with_halves(self, ids):
    return self.decode_bytes(ids).decode("utf-8", errors="surrogateescape")


def _without_a_signature(self, ids):
    return self.decode_bytes(ids).decode("utf-8-sig", errors="replace")


def _one_for_each_byte(self, ids):
    text = self.decode_bytes(ids).decode("utf-8", errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", "\ufffd", text)


def _without_special(self, ids):
    return self._own_decode([i for i in ids if i not in self.special_tokens.values()])


def _bytes_through_text(self, ids):
    return self._own_decode_bytes(ids).decode("utf-8", errors="replace").encode("utf-8")


def _bytes_by_place(self, ids):
    return b"".join([list(self.vocab.values())[i] for i in ids])


def _bytes_without_special(self, ids):
    return self._own_decode_bytes([i for i in ids if i not in self.special_tokens.values()])


def _bytes_with_key_error(self, ids):
    return b"".join(self.vocab[i] for i in ids)


def _bytes_skipping_strangers(self, ids):
    return b"".join(self.vocab.get(i, b"") for i in ids)


def _bytes_skipping_gaps(self, ids):
    ids = list(ids)
    return self._own_decode_bytes([i for i in ids if i in self.vocab or not 0 <= i < max(self.vocab)])


def _bytes_read_twice(self, ids):
    if any(i not in self.vocab for i in ids):
        raise ValueError("no such id")
    return b"".join(self.vocab[i] for i in ids)


def _bytes_of_python_numbers(self, ids):
    ids = list(ids)
    if not all(type(i) is int for i in ids):
        raise ValueError("ids must be integers")
    return self._own_decode_bytes(ids)


def _bytes_that_can_change(self, ids):
    return bytearray(self._own_decode_bytes(ids))


def _train_on_changed(change):
    """Edits: each text goes through an expression in ``text`` first."""
    return [("for text in texts for word in split(text))", f"for text in texts for word in split({change}))")]


def _train_without_repeats(texts, vocab_size, special_tokens=()):
    return _own_train(texts if isinstance(texts, str) else dict.fromkeys(texts), vocab_size, special_tokens)  # noqa: F821


def _train_with_sorted_names(texts, vocab_size, special_tokens=()):
    return _own_train(texts, vocab_size, sorted(special_tokens))  # noqa: F821


def _train_reading_twice(texts, vocab_size, special_tokens=()):
    for text in texts:
        text.encode("utf-8")
    return _own_train(texts, vocab_size, special_tokens)  # noqa: F821


MISTAKES = {
    "train counts aaa as one place of (a, a)": _learning(count=_count_without_overlaps),
    "train counts each different word once": _learning(count=_count_each_word_once),
    "train counts a pair once per word": _learning(count=_count_once_per_word),
    "train keeps the counts from before the first merge": _learning(count=_count_at_the_start_only),
    "train breaks ties by who came first": _learning(best=lambda counts, tokens: max(counts, key=counts.get)),
    "train breaks ties by the highest ids": _learning(
        best=lambda counts, tokens: max(counts, key=lambda pair: (counts[pair], pair))
    ),
    "train breaks ties by the bytes": _learning(
        best=lambda counts, tokens: min(counts, key=lambda p: (-counts[p], tokens[p[0]], tokens[p[1]]))
    ),
    "train breaks ties by the right symbol first": _learning(
        best=lambda counts, tokens: min(counts, key=lambda p: (-counts[p], p[::-1]))
    ),
    "train merges from the right: aaa becomes a, aa": _learning(replace=_replaced_from_the_right),
    "train stops at pairs that occur once": _learning(least=2),
    "train does not take the lost pairs off the counts": [("            tally(w, -1)\n", "")],
    "train forgets the pairs around the new symbol": [("heappush(queue, (-counts[found], found))", "pass")],
    "train does not look again at a count that has fallen": [
        ("if counts[pair] < -negative:", "if not counts[pair]:"),
    ],
    "train looks only at the 5,000 most frequent pairs": [
        ("for pair, count in counts.items()]", "for pair, count in counts.most_common(5000)]")
    ],
    "train merges across words": [("for word in split(text))", "for word in [text])")],
    "train joins the texts": [("for text in texts for word", 'for text in ["".join(texts)] for word')],
    "train cuts words at whitespace": [("for word in split(text))", "for word in text.split())")],
    "train learns vocab_size merges": [("vocab_size - 256 - len(ids)), ids", "vocab_size), ids")],
    "train does not count the special tokens": [
        ("vocab_size - 256 - len(ids)), ids", "vocab_size - 256), ids")
    ],
    "train puts the special tokens last": [
        (
            "vocab_size - 256 - len(ids)), ids)",
            "vocab_size - 256 - len(ids)), {n: vocab_size - len(ids) + i for n, i in ids.items()})",
        )
    ],
    "train drops the names of special tokens from the texts": [
        (
            "for text in texts for word in split(text)",
            "for text in texts for part in re.split('|'.join(map(re.escape, ids)) or '$^', text)"
            " for word in split(part)",
        )
    ],
    "train takes one string for a list of letters": [("if isinstance(texts, str):", "if False:")],
    "train accepts a size without room for the bytes": [(" or vocab_size < 256 + len(ids):", ":")],
    "train accepts a special token twice": [("len(ids) < len(special_tokens) or ", "")],
    "BPE numbers the bytes by their value": [
        (
            "dict.fromkeys(bytes([byte]) for byte in bytes_to_unicode())",
            "dict.fromkeys(bytes([byte]) for byte in range(256))",
        )
    ],
    "BPE always starts the ordinary ids after the special tokens": [
        ("(i for i in count() if i not in taken)", "count(len(taken))")
    ],
    "BPE starts the ordinary ids at 0 whatever ids are taken": [
        ("(i for i in count() if i not in taken)", "count()")
    ],
    "BPE gives a result that is a token already a second id": [
        (
            "            tokens[left + right] = None\n",
            "            tokens[left + right if left + right not in tokens else (left, right)] = None\n",
        ),
        (
            "ordinary = {i: token for token, i in self._ids.items()}",
            "ordinary = {i: b''.join(t) if isinstance(t, tuple) else t for t, i in self._ids.items()}",
        ),
    ],
    "BPE keeps the caller's dictionary of special tokens": [
        (
            "self.special_tokens = dict(special_tokens or {})",
            "self.special_tokens = special_tokens if special_tokens is not None else {}",
        )
    ],
    "BPE accepts merges of parts that are no tokens": [
        (
            "if left not in tokens or right not in tokens or (left, right) in self._ranks:",
            "if (left, right) in self._ranks:",
        )
    ],
    "BPE accepts two special tokens of one id": [
        ("if len(taken) < len(self.special_tokens) or min", "if min")
    ],
    "BPE has its vocabulary in no order": [("dict(sorted((ordinary | named).items()))", "ordinary | named")],
    "encode merges in the order of places": _written("_merged", _in_order_of_place),
    "encode takes the longest token that fits": _written("_merged", _longest_first),
    "encode takes the last learned token first": _written("_merged", _the_last_learned_first),
    "encode makes one round over the pairs of bytes": _written("_merged", _one_round),
    "encode does not look at the pair before a new symbol": [
        ("for a, b in ((before[i], i), (i, after[i])):", "for a, b in ((i, after[i]),):")
    ],
    "encode does not split into words": [
        ("for word in split(text) for i in self", "for word in [text] for i in self")
    ],
    "encode reads special tokens in every text": _written("encode", _always_special),
    "encode never gives a special token": _written("encode", _never_special),
    "encode allows all special tokens as soon as one is allowed": _written(
        "encode", _all_when_one_is_allowed
    ),
    "encode finds special tokens only as words of their own": _written("encode", _special_as_words),
    "encode puts special tokens where the ids of their names stand": _written(
        "encode", _special_by_replacement
    ),
    "encode takes names for expressions: <|end|> is three alternatives": [
        ("re.escape(name) for name in sorted(", "name for name in sorted(")
    ],
    "encode takes the shorter of two special tokens": [("key=len, reverse=True)", "key=len)")],
    "encode ignores names that are no special tokens": [
        (
            "        if unknown:\n",
            "        allowed_special = set(allowed_special) - unknown\n        if False:\n",
        )
    ],
    "encode hands out its cached list, which a caller may change": [
        (
            "return [i for word in split(text) for i in self._word_ids(word)]",
            "words = split(text)\n            if len(words) == 1:\n"
            "                return self._word_ids(text)\n"
            "            return [i for word in words for i in self._word_ids(word)]",
        ),
        ("return tuple(self._ids[symbol]", "return list(self._ids[symbol]"),
    ],
    "encode caches words for all tokenizers together": [
        (
            "self._word_ids = lru_cache(maxsize=2**17)(self._merged)",
            "self._word_ids = lambda word: _CACHE.setdefault(word, self._merged(word))",
        ),
        ("class BPE:", "_CACHE = {}\n\n\nclass BPE:"),
    ],
    "encode drops half of a surrogate pair": [
        ('word.encode("utf-8")]\n        before', 'word.encode("utf-8", "ignore")]\n        before')
    ],
    "decode reads each token as UTF-8 by itself": _written("decode", _token_by_token),
    "decode fails within a character": _written("decode", _strictly),
    "decode drops half characters": _written("decode", _dropping),
    "decode_bytes goes through text": _written("decode_bytes", _bytes_through_text),
    "decode_bytes takes the id for a place in a list, so that -1 is the last token": _written(
        "decode_bytes", _bytes_by_place
    ),
    "decode_bytes leaves special tokens out": _written("decode_bytes", _bytes_without_special),
    "decode_bytes raises KeyError": _written("decode_bytes", _bytes_with_key_error),
    "decode_bytes skips unknown ids": _written("decode_bytes", _bytes_skipping_strangers),
    "train counts to 65,535 at most": [
        ("weights = list(frequencies.values())", "weights = [min(n, 65_535) for n in frequencies.values()]")
    ],
    "train looks at the first 1,000 bytes of a word": [
        (
            'in word.encode("utf-8")] for word in frequencies]',
            'in word.encode("utf-8")[:1000]] for word in frequencies]',
        )
    ],
    "train learns 256 merges at most": [("len(merges) < n_merges:", "len(merges) < min(n_merges, 256):")],
    "train numbers the special tokens by their names": _written("train", _train_with_sorted_names),
    "train counts equal texts once": _written("train", _train_without_repeats),
    "train reads the texts twice, and so nothing of a generator": _written("train", _train_reading_twice),
    "train drops a byte order mark": _train_on_changed('text.removeprefix("\\ufeff")'),
    "train drops the whitespace around a text": _train_on_changed("text.strip()"),
    "train makes line ends alike": _train_on_changed('text.replace("\\r\\n", "\\n")'),
    "train takes capital letters for small ones": _train_on_changed("text.lower()"),
    "train drops half of a surrogate pair": _train_on_changed(
        'text.encode("utf-8", "ignore").decode("utf-8")'
    ),
    "train cuts the lines apart first": [
        (
            "for text in texts for word in split(text))",
            "for text in texts for line in text.splitlines(keepends=True) for word in split(line))",
        )
    ],
    "train needs room for special tokens only beyond the bytes": [
        ("vocab_size < 256 + len(ids):", "vocab_size < 256:")
    ],
    "train refuses a size that leaves no merge": [
        ("vocab_size < 256 + len(ids):", "vocab_size <= 256 + len(ids):")
    ],
    "train takes a special token without a name": [
        (
            "ids = {name: i for",
            "special_tokens = [name or '<>' for name in special_tokens]\n    ids = {name: i for",
        )
    ],
    "BPE gives a result of two merges the id of the second": [
        (
            "            tokens[left + right] = None\n",
            "            tokens.pop(left + right, None)\n            tokens[left + right] = None\n",
        )
    ],
    "BPE leaves out a merge whose result is a token already": [
        (
            "            self._ranks[left, right] = rank\n",
            "            if left + right in tokens:\n                continue\n"
            "            self._ranks[left, right] = rank\n",
        )
    ],
    "BPE accepts a merge twice": [(" or (left, right) in self._ranks:", ":")],
    "BPE accepts a negative id": [(" or min(taken, default=0) < 0", "")],
    "BPE accepts an empty name": [(' or "" in self.special_tokens:', ":")],
    "BPE accepts half of a surrogate pair in a name": [
        ('name.encode("utf-8")', 'name.encode("utf-8", "replace")')
    ],
    "BPE refuses ids of special tokens that leave gaps": [
        (
            "        named = {",
            "        if max(taken, default=0) >= len(ordinary) + len(taken):\n"
            "            raise ValueError('a gap')\n        named = {",
        )
    ],
    "BPE refuses a name that is spelled like a token": [
        (
            "        named = {",
            "        if any(name.encode('utf-8') in tokens for name in self.special_tokens):\n"
            "            raise ValueError('a token already')\n        named = {",
        )
    ],
    "BPE keeps the merges in a list": [
        (
            "self.merges = tuple((bytes(left), bytes(right)) for left, right in merges)",
            "self.merges = [(bytes(left), bytes(right)) for left, right in merges]",
        )
    ],
    "BPE has no special tokens in its vocabulary": [
        ("dict(sorted((ordinary | named).items()))", "dict(sorted(ordinary.items()))")
    ],
    "BPE writes the names of special tokens in Latin-1": [
        ('name.encode("utf-8")', 'name.encode("latin-1", "replace")')
    ],
    "encode merges all places of a pair at once": _written("_merged", _all_places_at_once),
    "encode merges the rightmost of equal pairs": [
        ("heap = [(self._ranks[pair], i) for", "heap = [(self._ranks[pair], -i) for"),
        ("rank, i = heappop(heap)\n", "rank, i = heappop(heap)\n            i = -i\n"),
        (
            "heappush(heap, (self._ranks[symbols[a], symbols[b]], a))",
            "heappush(heap, (self._ranks[symbols[a], symbols[b]], -a))",
        ),
    ],
    "encode looks for the whole word first": _written("_merged", _whole_words_first),
    "encode looks at the whole word for each merge": _written("_merged", _one_at_a_time),
    "encode cuts words after 255 characters": _written("_merged", _cut_at_255),
    "encode remembers words without their case": [
        (
            "self._word_ids = lru_cache(maxsize=2**17)(self._merged)",
            "known = {}\n        self._word_ids = lambda word: known.setdefault(word.lower(), self._merged(word))",
        )
    ],
    "encode drops a byte order mark": _written("encode", _without_a_mark),
    "encode makes line ends alike": _written("encode", _one_kind_of_line_end),
    "encode drops NUL": _written("encode", _without_nul),
    "encode composes accents (NFC)": _written("encode", _composed),
    "encode makes one character of two halves": _written("encode", _with_pairs_joined),
    "encode writes half of a surrogate pair as three bytes": [
        ('word.encode("utf-8")]\n        before', 'word.encode("utf-8", "surrogatepass")]\n        before')
    ],
    "encode gives numbers of NumPy": _written("encode", _numbers_of_numpy),
    "encode gives a tuple": _written("encode", _tuple_of_ids),
    "encode looks for the longest name in all of the text first": _written(
        "encode", _longest_name_first_anywhere
    ),
    "encode finds special tokens in other case": _written("encode", _special_in_any_case),
    "encode drops blanks around special tokens": _written("encode", _without_blanks_around_special),
    "encode finds a special token once": [
        ('re.split(f"({names})", text)', 're.split(f"({names})", text, maxsplit=1)')
    ],
    "encode allows what an earlier call allowed": _written("encode", _all_that_were_ever_allowed),
    "encode refuses unknown names only where they occur": _written(
        "encode", _unknown_names_only_where_they_occur
    ),
    "encode raises KeyError for unknown names": [
        ('raise ValueError(f"allowed_special must', 'raise KeyError(f"allowed_special must')
    ],
    "decode gives halves of surrogate pairs": _written("decode", _with_halves),
    "decode drops a byte order mark": _written("decode", _without_a_signature),
    "decode puts U+FFFD for each byte": _written("decode", _one_for_each_byte),
    "decode leaves special tokens out": _written("decode", _without_special),
    "decode_bytes skips ids between others that no token has": _written("decode_bytes", _bytes_skipping_gaps),
    "decode_bytes reads the ids twice, and so nothing of a generator": _written(
        "decode_bytes", _bytes_read_twice
    ),
    "decode_bytes refuses NumPy's integers": _written("decode_bytes", _bytes_of_python_numbers),
    "decode_bytes gives a bytearray": _written("decode_bytes", _bytes_that_can_change),
}


class _Listed:
    """Special tokens found by scanning, words merged by a heap of places and lengths; little in common with ours."""

    def __init__(self, merges, special_tokens=None):
        self.merges = (*(tuple(pair) for pair in merges),)
        self.special_tokens = {**(special_tokens or {})}
        ids = sorted(self.special_tokens.values())
        if any(i < 0 for i in ids) or not all(self.special_tokens) or len({*ids}) != len(ids):
            raise ValueError("bad special tokens")
        self.ranks, self.of_bytes, following = {}, {}, 0
        for token in [*(bytes([b]) for b in bytes_to_unicode()), *self.merges]:
            if isinstance(token, tuple):
                if not {*token} <= self.of_bytes.keys() or token in self.ranks:
                    raise ValueError("bad merges")
                self.ranks[token] = len(self.ranks)
                token = b"".join(token)
            if token in self.of_bytes:
                continue
            while ids and following == ids[0]:
                following += 1
                ids.pop(0)
            self.of_bytes[token] = following
            following += 1
        pairs = [(i, name.encode()) for name, i in self.special_tokens.items()]
        self.vocab = dict(sorted([*pairs, *((i, token) for token, i in self.of_bytes.items())]))

    def of_word(self, word):
        data = word.encode()
        ends = {at: at + 1 for at in range(len(data))}  # of the symbol that begins there
        starts = {at + 1: at for at in range(len(data))}  # of the symbol that ends there
        waiting = []

        def look(start):
            middle = ends.get(start)
            if middle in ends and (data[start:middle], data[middle : ends[middle]]) in self.ranks:
                rank = self.ranks[data[start:middle], data[middle : ends[middle]]]
                waiting.append((rank, start, middle, ends[middle]))

        for start in range(len(data)):
            look(start)
        heapify(queue := waiting[:])
        while queue:
            _, start, middle, end = heappop(queue)
            if ends.get(start) != middle or ends.get(middle) != end:
                continue
            del ends[middle], starts[middle]
            ends[start], starts[end] = end, start
            waiting.clear()
            look(start)
            if start in starts:
                look(starts[start])
            for each in waiting:
                heappush(queue, each)
        return [self.of_bytes[data[start : ends[start]]] for start in sorted(ends)]

    def encode(self, text, allowed_special=()):
        if any(name not in self.special_tokens for name in allowed_special):
            raise ValueError("not a special token")
        ids, start = [], 0
        while True:
            found = [(text.find(name, start), -len(name), name) for name in allowed_special]
            found = [each for each in found if each[0] >= 0]
            at, _, name = min(found, default=(len(text), 0, None))
            ids += [i for word in split(text[start:at]) for i in self.of_word(word)]
            if name is None:
                return ids
            ids.append(self.special_tokens[name])
            start = at + len(name)

    def decode_bytes(self, ids):
        out = bytearray()
        for i in ids:
            if i not in self.vocab:
                raise ValueError(f"no token {i}")
            out += self.vocab[i]
        return bytes(out)

    def decode(self, ids):
        return str(self.decode_bytes(ids), "utf-8", "replace")


def _learn_bytes(frequencies, n_merges):
    order = {bytes([byte]): i for i, byte in enumerate(bytes_to_unicode())}
    words = {tuple(bytes([b]) for b in word.encode()): n for word, n in frequencies.items()}
    merges = []
    for _ in range(n_merges):
        counts = Counter()
        for word, n in words.items():
            for i in range(len(word) - 1):
                counts[word[i : i + 2]] += n
        if not counts:
            break
        most = max(counts.values())
        pair = min((p for p in counts if counts[p] == most), key=lambda p: (order[p[0]], order[p[1]]))
        order[b"".join(pair)] = len(order)
        merges.append(pair)
        words = {tuple(_replaced(word, pair, b"".join(pair))): n for word, n in words.items()}
    return merges


EQUIVALENTS = {
    "train counts anew before each merge": _learning(),
    "train with symbols as strings of bytes": {
        "_learn": lambda frequencies, n_merges: _learn_bytes(frequencies, n_merges)
    },
    "BPE written anew, with a heap of places, special tokens found by scanning": {"BPE": _Listed},
    "encode remembers no words": [("lru_cache(maxsize=2**17)(self._merged)", "self._merged")],
}


HARMLESS = {
    "number = {token[0]: i for i, token in enumerate(tokens)}"
    " => number = {token[-1]: i for i, token in enumerate(tokens)}": "these tokens have one byte",
    "if len(taken) < len(self.special_tokens) or min(taken, default=0) < 0 or '' in self.specia"
    "l_tokens:"
    " => if len(taken) < len(self.special_tokens) or min(taken, default=1) < 0 or '' in self.sp"
    "ecial_tokens:": "no id is not negative either",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache()(self._merged)": "how many words are remembered changes no answer",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache(maxsize=2 * 17)(self._merged)": "how many words are remembered changes no answer",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache(maxsize=3 ** 17)(self._merged)": "how many words are remembered changes no answer",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache(maxsize=1 ** 17)(self._merged)": "how many words are remembered changes no answer",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache(maxsize=2 ** 18)(self._merged)": "how many words are remembered changes no answer",
    "self._word_ids = lru_cache(maxsize=2 ** 17)(self._merged)"
    " => self._word_ids = lru_cache(maxsize=2 ** 16)(self._merged)": "how many words are remembered changes no answer",
    "names = '|'.join((re.escape(name) for name in sorted(allowed_special, key=len, reverse=Tru"
    "e)))"
    " => names = '|'.join((re.escape(name) for name in sorted(allowed_special, reverse=True)))": "a name comes before each of its beginnings in this order, too",
    "before, after = ([*range(-1, len(symbols) - 1)], [*range(1, len(symbols)), -1])"
    " => before, after = ([*range(-1, len(symbols) + 1)], [*range(1, len(symbols)), -1])": "what is added is never read",
    "before, after = ([*range(-1, len(symbols) - 1)], [*range(1, len(symbols)), -1])"
    " => before, after = ([*range(-1, len(symbols) - 0)], [*range(1, len(symbols)), -1])": "what is added is never read",
    "before, after = ([*range(-1, len(symbols) - 1)], [*range(1, len(symbols)), -1])"
    " => before, after = ([*range(-1, len(symbols) - 1)], [*range(1, len(symbols)), -2])": "any negative number says that nothing follows",
    "if j < 0 or (symbols[i], symbols[j]) != self.merges[rank]:"
    " => if j <= 0 or (symbols[i], symbols[j]) != self.merges[rank]:": "no symbol is followed by the first; the last one has grown and is no part of the pair",
    "if j < 0 or (symbols[i], symbols[j]) != self.merges[rank]:"
    " => if j < 1 or (symbols[i], symbols[j]) != self.merges[rank]:": "no symbol is followed by the first; the last one has grown and is no part of the pair",
    "if j < 0 or (symbols[i], symbols[j]) != self.merges[rank]:"
    " => if j < -1 or (symbols[i], symbols[j]) != self.merges[rank]:": "no symbol is followed by the first; the last one has grown and is no part of the pair",
    "if after[j] >= 0:"
    " => if True:": "no symbol is followed by the first; what is written for the last is never read",
    "if after[j] >= 0:"
    " => if after[j] > 0:": "no symbol is followed by the first; what is written for the last is never read",
    "if after[j] >= 0:"
    " => if after[j] >= 1:": "no symbol is followed by the first; what is written for the last is never read",
    "if after[j] >= 0:"
    " => if after[j] >= -1:": "no symbol is followed by the first; what is written for the last is never read",
    "if a >= 0 and b >= 0 and ((symbols[a], symbols[b]) in self._ranks):"
    " => if a >= -1 and b >= 0 and ((symbols[a], symbols[b]) in self._ranks):": "the first has nothing before it; an entry without a right neighbour is passed over",
    "if a >= 0 and b >= 0 and ((symbols[a], symbols[b]) in self._ranks):"
    " => if a >= 0 and b > 0 and ((symbols[a], symbols[b]) in self._ranks):": "the first has nothing before it; an entry without a right neighbour is passed over",
    "if a >= 0 and b >= 0 and ((symbols[a], symbols[b]) in self._ranks):"
    " => if a >= 0 and b >= 1 and ((symbols[a], symbols[b]) in self._ranks):": "the first has nothing before it; an entry without a right neighbour is passed over",
    "if a >= 0 and b >= 0 and ((symbols[a], symbols[b]) in self._ranks):"
    " => if a >= 0 and b >= -1 and ((symbols[a], symbols[b]) in self._ranks):": "the first has nothing before it; an entry without a right neighbour is passed over",
    "train: right at the first call only": "a tokenizer is handed on as it is",
}
"""Mutants that are the same program in other words, and why."""


def _growth(impl):
    """How many times as long a word of eight times the length takes: "8" or "64", by the middle between them."""
    merges = [(b"a", b"b"), (b"b", b"a"), (b"ab", b"ab")]

    def seconds(n):
        bpe, start = impl.BPE(merges), time.thread_time()
        bpe.encode("abbab" * n)
        return time.thread_time() - start

    seconds(20)
    return "8" if any(seconds(160) < 23 * seconds(20) for _ in range(3)) else "64"


def _refused(ask):
    """The answer of a call, or that it was refused: which ValueError, and with what words, is free."""

    def answer(impl):
        try:
            return ask(impl)
        except ValueError:
            return "refused"

    return answer


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    signs = string.ascii_letters + "".join(map(chr, range(14, 32))) + string.punctuation[::-1]
    corpora = {
        "runs": ["aaaa", "aaab", "aaa", "cd", "cd", "cd"],
        "ties": ["cb ca ba ab", " !", "é"],
        "counts": ["xy xz xw", "ab", "ab", "ab ab"],
        "letters": ["".join(rng.choice(list("abc "), size=60)) for _ in range(3)],
        "names": ["<s>ab<s>ab", "ab"],
        "equal texts": ["cd", "cd", "cd", " ab ab"],
        "capital letters": ["AB"],
        "a mark": ["\ufeffa"],
        "whitespace alone": ["\n\n\n"],
        "empty lines": ["a\n\nb"],
        "line ends": ["!\r\n!"],
        "half of a pair": ["ab\ud800"],
        "large counts": [" xy" * 65_540 + " ab" * 65_539],
        "a long word": ["ab" * 500 + "xy" * 600],
        "7,800 pairs, the last with the lowest ids": [a + b for a in signs for b in signs],
    }
    sizes = {"large counts": 257, "a long word": 257, "7,800 pairs, the last with the lowest ids": 257}
    merges = [(b"b", b"c"), (b"a", b"b"), (b"bc", b"d"), (b"a", b"bcd"), (b"a", b"a"), (b" ", b" ")]
    doubling = [(b"a" * 2**k, b"a" * 2**k) for k in range(10)]

    def trained(texts, size=275, names=()):
        return _refused(lambda impl: _readable(impl.train(texts, size, names)))

    def encoded(text, specials=None, allowed=(), merges=merges):
        return _refused(lambda impl: str([*map(int, impl.BPE(merges, specials).encode(text, allowed))]))

    def made(merges, specials=None):
        return _refused(lambda impl: str([*impl.BPE(merges, specials).vocab.items()][-3:]))

    def decoded(ids, specials=None):
        return _refused(lambda impl: impl.BPE([], specials).decode(ids))

    def decoded_bytes(ids, specials=None):
        return _refused(lambda impl: bytes(impl.BPE([], specials).decode_bytes(ids)).hex())

    def aliased(impl):
        bpe = impl.BPE(merges)
        got = bpe.encode("aa")
        if isinstance(got, list):
            got.append(7)
        return str([*map(int, bpe.encode("aa"))])

    def shared(impl):
        impl.BPE([(b"z", b"z")]).encode("zz")
        return str([*map(int, impl.BPE([]).encode("zz"))])

    def in_other_case(impl):
        bpe = impl.BPE([])
        bpe.encode("AB")
        return str([*map(int, bpe.encode("ab"))])

    def allowed_before(impl):
        bpe = impl.BPE([], {"<s>": 0, "<e>": 1})
        bpe.encode("", {"<s>"})
        return str([*map(int, bpe.encode("<s>", {"<e>"}))])

    def changed(impl):
        names = {"<s>": 0}
        bpe = impl.BPE([], names)
        names["<e>"] = 1
        return str(bpe.special_tokens)

    special = {"<|s|>": 0, "<|s|>x": 5, "ab": 300}
    pairs = [a + b for a in "ABCDEFGHIJKLMNOPQ" for b in "ABCDEFGHIJKLMNOPQ"]
    twice = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"c", b"d"), (b"a", b"bc")]
    return {f"train {name}": trained(texts, sizes.get(name, 275)) for name, texts in corpora.items()} | {
        "train with special tokens": trained(corpora["names"], 270, ["<s>", "<e>"]),
        "train with special tokens, many pairs": trained(["abcdefghijklmnop"], 262, ["<s>", "<e>"]),
        "train with names in no order": lambda impl: str(
            sorted(impl.train(["ab"], 260, ["z", "a"]).special_tokens.items())
        ),
        "train 289 pairs": lambda impl: len(impl.train(pairs, 1000).merges),
        "train texts that come one by one": lambda impl: len(impl.train(iter(["ab", "cd"]), 300).merges),
        "train without room": trained(["ab"], 200),
        "train without room for the names": trained(["ab"], 257, ["<s>", "<e>"]),
        "train without room for merges": trained(["ab"], 256),
        "train with a token twice": trained(["ab"], 300, ["<s>", "<s>"]),
        "train with a name that is empty": trained(["ab"], 300, [""]),
        "train on one string": trained("abab"),
        "encode abcd aabc": encoded("abcd aabc  aaa"),
        "encode abc": encoded("abc", merges=[(b"a", b"b"), (b"b", b"c")]),
        "encode abcd with other merges": encoded(
            "abcd", merges=[(b"c", b"d"), (b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
        ),
        "encode aaa": encoded("aaa", merges=[(b"a", b"a")]),
        "encode a word that is a token": encoded("abc", merges=[(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")]),
        "encode by a merge whose result is known": encoded(
            "abc", merges=[(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc")]
        ),
        "encode abcabc": encoded(
            "abcabc", merges=[(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"abc", b"a"), (b"a", b"bc")]
        ),
        "encode a long word": encoded("a" * 513, merges=doubling),
        "encode a mark": encoded("\ufeffa"),
        "encode line ends": encoded("\r\n"),
        "encode NUL": encoded("a\0b"),
        "encode an accent": encoded("e\u0301"),
        "encode half a pair": encoded("a\ud800"),
        "encode two halves": encoded("\ud83d\ude00"),
        "encode special": encoded("a<|s|>xab<|s|>  <|s|>s", special, ("<|s|>", "<|s|>x")),
        "encode one special": encoded("a<|s|>x ab", special, ("ab",)),
        "encode special as text": encoded("a<|s|>ab", special, ()),
        "encode special that overlap": encoded("abcd", {"ab": 0, "bcd": 1}, ("ab", "bcd")),
        "encode special twice": encoded("<s><s>", {"<s>": 0}, ("<s>",)),
        "encode special in other case": encoded("<S>", {"<s>": 0}, ("<s>",)),
        "encode special between blanks": encoded("a <s> b", {"<s>": 0}, ("<s>",)),
        "encode an unknown name": encoded("a<|t|>", special, ("<|t|>",)),
        "encode without the unknown name": encoded("a", special, ("<|t|>",)),
        "what was allowed before": allowed_before,
        "what encode returns": lambda impl: type(impl.BPE([]).encode("a")).__name__,
        "what encode's list holds": lambda impl: type(impl.BPE([]).encode("a")[0]).__name__,
        "the growth of encode's time": _growth,
        "a result twice": lambda impl: len(impl.BPE(twice).vocab),
        "the id of a result that came twice": encoded("abcd", merges=twice),
        "the vocabulary": _refused(lambda impl: str([*impl.BPE(merges, special).vocab.items()])),
        "ids with gaps": made([], {"<s>": 1000}),
        "a name spelled like a token": made([], {"a": 0}),
        "a name beyond ASCII": made([], {"é": 999}),
        "parts that are no tokens": made([(b"ab", b"c")]),
        "a merge twice": made([(b"a", b"b"), (b"a", b"b")]),
        "an id twice": made([], {"<s>": 0, "<e>": 0}),
        "a negative id": made([], {"<s>": -1}),
        "an empty name": made([], {"": 0}),
        "half of a pair in a name": made([], {"\ud800": 0}),
        "what holds the merges": lambda impl: type(impl.BPE([(b"a", b"b")]).merges).__name__,
        "after a caller changed a list": aliased,
        "after the word in other case": in_other_case,
        "after another tokenizer": shared,
        "after a caller changed the special tokens": changed,
        "decode": decoded([0, 128, 103, 128], {"é": 0}),
        "decode three bytes of four": decoded([ID[b"\xf0"], ID[b"\x9f"], ID[b"\x91"]]),
        "decode a mark": decoded([ID[b"\xef"], ID[b"\xbb"], ID[b"\xbf"], ID[b"a"]]),
        "decode special": decoded([1, 0], {"é": 0}),
        "decode_bytes": decoded_bytes([128, 0], {"é": 0}),
        "decode_bytes of -1": decoded_bytes([-1]),
        "decode_bytes of a stranger": decoded_bytes([300]),
        "decode_bytes of a gap": decoded_bytes([300, 65], {"<s>": 400}),
        "decode_bytes of ids that come one by one": lambda impl: bytes(
            impl.BPE([]).decode_bytes(iter([65, 66]))
        ).hex(),
        "decode_bytes of NumPy's integers": _refused(
            lambda impl: bytes(impl.BPE([]).decode_bytes(np.array([65, 66]))).hex()
        ),
        "what decode_bytes returns": lambda impl: type(impl.BPE([]).decode_bytes([65])).__name__,
    }


def _readable(bpe):
    merges = " ".join(f"{left.hex()}+{right.hex()}" for left, right in bpe.merges)
    return f"{merges} {sorted(bpe.special_tokens.items())} {len(bpe.vocab)}"
