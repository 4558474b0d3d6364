"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import re
from collections import Counter
from itertools import pairwise

from techtree.techs.text.bpe import bpe as own
from techtree.techs.text.pretokenize import bytes_to_unicode, split

NUMBER = {byte: i for i, byte in enumerate(bytes_to_unicode())}


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
        return {pair: n for pair, n in kept.items() if any(pair in pairwise(word) for word, _ in words)}

    return count


def _learning(**steps):
    def learn(frequencies, n_merges):
        return _learn(
            frequencies,
            n_merges,
            **{k: v() if v is _count_at_the_start_only else v for k, v in steps.items()},
        )

    return {"_learn": learn}


def _encode_in_order_of_place(self, word):
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    at = 0
    while at < len(symbols) - 1:
        if (symbols[at], symbols[at + 1]) in self._ranks:
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            at = max(0, at - 1)
        else:
            at += 1
    return tuple(self._ids[symbol] for symbol in symbols)


def _encode_longest_first(self, word):
    data, ids = word.encode("utf-8"), []
    while data:
        token = next(data[:n] for n in range(min(len(data), 32), 0, -1) if data[:n] in self._ids)
        ids.append(self._ids[token])
        data = data[len(token) :]
    return tuple(ids)


def _encode_the_last_learned_first(self, word):
    """Cut the word at a token wherever its bytes occur, the longest ranks first."""
    for token in sorted(self._ids, key=self._ids.get, reverse=True):
        before, found, after = word.encode("utf-8").partition(token)
        if found and len(token) > 1:
            halves = (half.decode("utf-8", "ignore") for half in (before, after))
            left, right = (_encode_the_last_learned_first(self, half) for half in halves)
            return (*left, self._ids[token], *right)
    return tuple(self._ids[bytes([byte])] for byte in word.encode("utf-8"))


def _encode_stops_after_one_round(self, word):
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    pairs = [pair for pair in pairwise(symbols) if pair in self._ranks]
    for pair in sorted(set(pairs), key=self._ranks.get):
        symbols = _replaced(symbols, pair, b"".join(pair))
    return tuple(self._ids[symbol] for symbol in symbols)


class _Changed(own.BPE):
    """Ours, to change one method of."""


def _bpe(**methods):
    return {"BPE": type("BPE", (_Changed,), methods)}


def _always_special(self, text, allowed_special=()):
    return own.BPE.encode(self, text, self.special_tokens)


def _never_special(self, text, allowed_special=()):
    return own.BPE.encode(self, text)


def _all_when_one_is_allowed(self, text, allowed_special=()):
    own.BPE.encode(self, "", allowed_special)
    return own.BPE.encode(self, text, self.special_tokens if allowed_special else ())


def _special_as_words(self, text, allowed_special=()):
    """Look for special tokens among the words, where punctuation is cut."""
    own.BPE.encode(self, "", allowed_special)
    ids = []
    for word in re.split(r"(\s+)", text):
        ids += [self.special_tokens[word]] if word in allowed_special else own.BPE.encode(self, word)
    return ids


def _special_by_replacement(self, text, allowed_special=()):
    """Encode everything, then put the special id where the ids of its name stand."""
    own.BPE.encode(self, "", allowed_special)
    ids = own.BPE.encode(self, text)
    for name in sorted(allowed_special, key=len, reverse=True):
        wanted = own.BPE.encode(self, name)
        at = 0
        while at < len(ids):
            if ids[at : at + len(wanted)] == wanted:
                ids[at : at + len(wanted)] = [self.special_tokens[name]]
            at += 1
    return ids


def _decode_token_by_token(self, ids):
    return "".join(self.decode_bytes([i]).decode("utf-8", errors="replace") for i in ids)


def _decode_strictly(self, ids):
    return self.decode_bytes(ids).decode("utf-8")


def _decode_dropping(self, ids):
    return self.decode_bytes(ids).decode("utf-8", errors="ignore")


def _bytes_through_text(self, ids):
    return own.BPE.decode_bytes(self, ids).decode("utf-8", errors="replace").encode("utf-8")


def _bytes_by_place(self, ids):
    return b"".join([list(self.vocab.values())[i] for i in ids])


def _bytes_without_special(self, ids):
    return own.BPE.decode_bytes(self, [i for i in ids if i not in self.special_tokens.values()])


def _bytes_with_key_error(self, ids):
    return b"".join(self.vocab[i] for i in ids)


def _bytes_skipping_strangers(self, ids):
    return b"".join(self.vocab.get(i, b"") for i in ids)


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
    "encode merges in the order of places": _bpe(_merged=_encode_in_order_of_place),
    "encode takes the longest token that fits": _bpe(_merged=_encode_longest_first),
    "encode takes the last learned token first": _bpe(_merged=_encode_the_last_learned_first),
    "encode makes one round over the pairs of bytes": _bpe(_merged=_encode_stops_after_one_round),
    "encode does not look at the pair before a new symbol": [
        ("for a, b in ((before[i], i), (i, after[i])):", "for a, b in ((i, after[i]),):")
    ],
    "encode does not split into words": [
        ("for word in split(text) for i in self", "for word in [text] for i in self")
    ],
    "encode reads special tokens in every text": _bpe(encode=_always_special),
    "encode never gives a special token": _bpe(encode=_never_special),
    "encode allows all special tokens as soon as one is allowed": _bpe(encode=_all_when_one_is_allowed),
    "encode finds special tokens only as words of their own": _bpe(encode=_special_as_words),
    "encode puts special tokens where the ids of their names stand": _bpe(encode=_special_by_replacement),
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
    "decode reads each token as UTF-8 by itself": _bpe(decode=_decode_token_by_token),
    "decode fails within a character": _bpe(decode=_decode_strictly),
    "decode drops half characters": _bpe(decode=_decode_dropping),
    "decode_bytes goes through text": _bpe(decode_bytes=_bytes_through_text),
    "decode_bytes takes the id for a place in a list, so that -1 is the last token": _bpe(
        decode_bytes=_bytes_by_place
    ),
    "decode_bytes leaves special tokens out": _bpe(decode_bytes=_bytes_without_special),
    "decode_bytes raises KeyError": _bpe(decode_bytes=_bytes_with_key_error),
    "decode_bytes skips unknown ids": _bpe(decode_bytes=_bytes_skipping_strangers),
}


def _encode_in_rounds(self, word):
    """All places of the lowest rank at once, as GPT-2's own encoder did."""
    symbols = [bytes([byte]) for byte in word.encode("utf-8")]
    while pairs := [pair for pair in pairwise(symbols) if pair in self._ranks]:
        pair = min(pairs, key=self._ranks.get)
        symbols = _replaced(symbols, pair, b"".join(pair))
    return tuple(self._ids[symbol] for symbol in symbols)


class _Listed:
    """Ids into lists, special tokens found by scanning; nothing in common with ours."""

    def __init__(self, merges, special_tokens=None):
        self.merges = [tuple(pair) for pair in merges]
        self.special_tokens = {**(special_tokens or {})}
        ids = list(self.special_tokens.values())
        if (
            any(i < 0 for i in ids)
            or any(not name for name in self.special_tokens)
            or len(set(ids)) != len(ids)
        ):
            raise ValueError("bad special tokens")
        self.of_bytes, self.vocab, following = {}, {}, 0
        for token in [*(bytes([b]) for b in bytes_to_unicode()), *self.merges]:
            if isinstance(token, tuple):
                if not set(token) <= self.of_bytes.keys() or self.merges.count(token) > 1:
                    raise ValueError("bad merges")
                token = b"".join(token)
            if token in self.of_bytes:
                continue
            while following in ids:
                following += 1
            self.of_bytes[token] = following
            following += 1
        for name, i in self.special_tokens.items():
            self.vocab[i] = name.encode()
        self.vocab.update({i: token for token, i in self.of_bytes.items()})
        self.vocab = {i: self.vocab[i] for i in sorted(self.vocab)}
        self._ranks, self._ids = {pair: n for n, pair in enumerate(self.merges)}, self.of_bytes

    def encode(self, text, allowed_special=()):
        if any(name not in self.special_tokens for name in allowed_special):
            raise ValueError("not a special token")
        ids, start, at = [], 0, 0
        while at <= len(text):
            found = [name for name in allowed_special if text.startswith(name, at)]
            if found or at == len(text):
                ids += [i for word in split(text[start:at]) for i in _encode_in_rounds(self, word)]
            if found:
                name = max(found, key=len)
                ids.append(self.special_tokens[name])
                start = at = at + len(name)
            else:
                at += 1
        return ids

    def decode_bytes(self, ids):
        out = bytearray()
        for i in ids:
            if i not in self.vocab:
                raise ValueError(f"no token {i}")
            out += self.vocab[i]
        return bytes(out)

    def decode(self, ids):
        return str(self.decode_bytes(ids), "utf-8", "replace")


EQUIVALENTS = {
    "train counts anew before each merge": _learning(),
    "encode in rounds, all places of a pair at once": _bpe(_merged=_encode_in_rounds),
    "BPE written anew, in rounds, special tokens found by scanning": {"BPE": _Listed},
    "train with symbols as strings of bytes": {
        "_learn": lambda frequencies, n_merges: _learn_bytes(frequencies, n_merges)
    },
}


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


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    corpora = {
        "runs": ["aaaa", "aaab", "aaa", "cd", "cd", "cd"],
        "ties": ["cb ca ba ab", " !", "é"],
        "counts": ["xy xz xw", "ab", "ab", "ab ab"],
        "letters": ["".join(rng.choice(list("abc "), size=60)) for _ in range(3)],
        "names": ["<s>ab<s>ab", "ab"],
    }
    merges = [(b"b", b"c"), (b"a", b"b"), (b"bc", b"d"), (b"a", b"bcd"), (b"a", b"a"), (b" ", b" ")]

    def trained(texts, size=275, names=()):
        return lambda impl: _readable(impl.train(texts, size, names))

    def encoded(text, specials, allowed, merges=merges):
        return lambda impl: str(impl.BPE(merges, specials).encode(text, allowed))

    def aliased(impl):
        bpe = impl.BPE(merges)
        bpe.encode("aa").append(7)
        return str(bpe.encode("aa"))

    def shared(impl):
        impl.BPE([(b"z", b"z")]).encode("zz")
        return str(impl.BPE([]).encode("zz"))

    def changed(impl):
        names = {"<s>": 0}
        bpe = impl.BPE([], names)
        names["<e>"] = 1
        return str(bpe.special_tokens)

    special = {"<|s|>": 0, "<|s|>x": 5, "ab": 300}
    return {f"train {name}": trained(texts) for name, texts in corpora.items()} | {
        "train with special tokens": trained(corpora["names"], 270, ["<s>", "<e>"]),
        "train with special tokens, many pairs": trained(["abcdefghijklmnop"], 262, ["<s>", "<e>"]),
        "train without room": trained(["ab"], 200),
        "train with a token twice": trained(["ab"], 300, ["<s>", "<s>"]),
        "train on one string": trained("abab"),
        "encode abcd aabc": encoded("abcd aabc  aaa", {}, ()),
        "encode abc": encoded("abc", {}, (), [(b"a", b"b"), (b"b", b"c")]),
        "encode abcd with other merges": encoded(
            "abcd", {}, (), [(b"c", b"d"), (b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
        ),
        "encode special": encoded("a<|s|>xab<|s|>  <|s|>s", special, ("<|s|>", "<|s|>x")),
        "encode one special": encoded("a<|s|>x ab", special, ("ab",)),
        "encode special as text": encoded("a<|s|>ab", special, ()),
        "encode an unknown name": encoded("a<|t|>", special, ("<|t|>",)),
        "encode half a pair": encoded("a\ud800", {}, ()),
        "a result twice": lambda impl: len(
            impl.BPE([(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")]).vocab
        ),
        "the vocabulary": lambda impl: str([*impl.BPE(merges, special).vocab.items()]),
        "parts that are no tokens": lambda impl: len(impl.BPE([(b"ab", b"c")]).merges),
        "an id twice": lambda impl: len(impl.BPE([], {"<s>": 0, "<e>": 0}).special_tokens),
        "after a caller changed a list": aliased,
        "after another tokenizer": shared,
        "after a caller changed the special tokens": changed,
        "decode": lambda impl: impl.BPE([], {"é": 0}).decode([0, 128, 103, 128]),
        "decode_bytes": lambda impl: impl.BPE([], {"é": 0}).decode_bytes([128, 0]).hex(),
        "decode_bytes of -1": lambda impl: impl.BPE([]).decode_bytes([-1]).hex(),
        "decode_bytes of a stranger": lambda impl: impl.BPE([]).decode_bytes([300]).hex(),
    }


def _readable(bpe):
    merges = " ".join(f"{left.hex()}+{right.hex()}" for left, right in bpe.merges)
    return f"{merges} {sorted(bpe.special_tokens.items())} {len(bpe.vocab)}"
