"""Oracles: merges and ids worked out by hand, and slow twins that count anew after every merge."""

import functools
import itertools
import re
import string
import unicodedata
from collections import Counter
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from techtree.techs import aim, battery
from techtree.techs.text.pretokenize import bytes_to_unicode, split

ID = {bytes([byte]): i for i, byte in enumerate(bytes_to_unicode())}
"""The ids of the bytes where no special token takes one."""

A, B, C, D, SPACE = (ID[letter] for letter in (b"a", b"b", b"c", b"d", b" "))


def replaced(symbols: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """From left to right, each symbol used once."""
    result, at = [], 0
    while at < len(symbols):
        if tuple(symbols[at : at + 2]) == pair:
            result.append(pair[0] + pair[1])
            at += 2
        else:
            result.append(symbols[at])
            at += 1
    return result


@functools.cache  # the same texts are given to every version
def slow_merges(texts: tuple[str, ...], n_merges: int) -> tuple[tuple[bytes, bytes], ...]:
    """Count all pairs anew before each merge."""
    words = [[bytes([byte]) for byte in word.encode()] for text in texts for word in split(text)]
    ids = dict(ID)
    merges = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids[best[0] + best[1]] = len(ids)
        words = [replaced(word, best) for word in words]
    return tuple(merges)


@functools.cache
def slow_tokens(merges: tuple[tuple[bytes, bytes], ...], word: str) -> list[bytes]:
    """One merge at a time: the lowest rank, the leftmost of several."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = [bytes([byte]) for byte in word.encode()]
    while found := [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]:
        _, i = min(found)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    return symbols


class Slow:
    """The definition of a tokenizer; names of special tokens are found by trying all at each place."""

    def __init__(self, merges, specials=()):
        self.merges, self.specials = tuple(merges), dict(specials)
        ordinary = dict.fromkeys([*ID, *(left + right for left, right in merges)])
        taken = set(self.specials.values())
        free = [i for i in range(len(ordinary) + len(taken)) if i not in taken]
        self.ids = dict(zip(ordinary, free, strict=False))
        names = {i: name.encode() for name, i in self.specials.items()}
        self.vocab = dict(sorted(({i: token for token, i in self.ids.items()} | names).items()))

    def encode(self, text: str, allowed=()) -> list[int]:
        ids, start, at = [], 0, 0
        while at <= len(text):
            name = max((n for n in allowed if text.startswith(n, at)), key=len, default="")
            if name or at == len(text):
                words = split(text[start:at])
                ids += [self.ids[token] for word in words for token in slow_tokens(self.merges, word)]
            if name:
                ids.append(self.specials[name])
                start = at = at + len(name)
            else:
                at += 1
        return ids


def cases(*texts: str) -> list[battery.Case]:
    return [battery.Case("", (text,)) for text in sorted(texts, key=len)]


def random_text(rng, alphabet, n):
    return "".join(rng.choice(list(alphabet), size=n))


def random_merges(rng, alphabet, n_merges):
    """A list that training need not have made: ranks in any order that builds each part first."""
    tokens, merges = [letter.encode() for letter in alphabet], []
    for _ in range(n_merges):
        pair = (tokens[rng.integers(len(tokens))], tokens[rng.integers(len(tokens))])
        if pair not in merges:
            merges.append(pair)
            tokens.append(pair[0] + pair[1])
    return merges


def check_training(impl, texts, n_merges):
    """Compare all merges; where they differ the sweep tells it."""
    expected = slow_merges(tuple(texts), n_merges)
    if impl.train(list(texts), 256 + n_merges).merges != expected:
        sweep_training(impl, texts, n_merges)
        raise battery.MismatchError("the first merges were wrong")


def sweep_training(impl, texts, n_merges):
    expected = slow_merges(tuple(texts), n_merges)
    case = battery.Case(f"{n_merges} merges", (list(texts),))
    battery.sweep_plain(
        lambda texts: impl.train(texts, 256 + n_merges).merges, lambda texts: expected, [case]
    )


# What a line or two decides comes first.

BY_HAND = [
    # aaabdaaabac: aa at 4 places, then ab (2, and a has a lower id than aa), then the pair of both.
    (["aaabdaaabac"], [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]),
    # In aaa the pair (a, a) stands at two places: with the one of (c, d) in each of 3 words, 4 beat 3.
    (["aaa", "aaa", "cd", "cd", "cd"], [(b"a", b"a")]),
    (["aaa", "cd", "cd", "cd"], [(b"c", b"d")]),
    # aaaaa becomes aa, aa, a: one place each for (aa, a) and (aa, aa), and a has the lower id.
    (["aaaaa"], [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aaa")]),
    # From left to right: aaa becomes aa, a, and what is left to merge is (aa, a), not (a, aa).
    (["aaa"] * 2, [(b"a", b"a"), (b"aa", b"a")]),
    (["baaa"] * 2, [(b"a", b"a"), (b"b", b"aa"), (b"baa", b"a")]),
    # Ties go to the left id, not to who came first; then to the right id.
    (["ba", "ab"], [(b"a", b"b")]),
    (["ab", "ba"], [(b"a", b"b")]),
    (["ac", "ab"], [(b"a", b"b")]),
    (["cb", "ca"], [(b"c", b"a")]),
    ([" b", "bc"], [(b"b", b"c")]),  # ids, not bytes: a space is a low byte with a high id
    (["b\u00e9"], [(b"b", b"\xc3")]),
    (["\x00\x00\x00\x01", "~~", "~~"], [(b"~", b"~")]),
    (["\u00ad!", "!!"], [(b"!", b"!")]),  # U+00AD is C2 AD
    (["zy", "yz", "zy"], [(b"z", b"y")]),  # the count comes first
    # A learned token has a higher id than a byte, and the earlier learned one is the lower.
    (["abc", "abc", "ab", "de", "de"], [(b"a", b"b"), (b"d", b"e")]),
    (["zzq", "zz", "zz", "abq", "ab"], [(b"z", b"z"), (b"a", b"b"), (b"zz", b"q")]),
    # Words count as often as they occur.
    (["xy"] + ["ab"] * 2, [(b"a", b"b")]),
    (["xy"] * 3 + ["ab"] * 2, [(b"x", b"y")]),
    (["ABC"] * 3 + ["abc"] * 2, [(b"A", b"B")]),
    (["xy\nxy\nxy\nab\nac\nad\nab"], [(b"x", b"y")]),
    # No pair is left.
    (["abcd"], [(b"a", b"b"), (b"c", b"d"), (b"ab", b"cd"), None]),
    ([], [None]),
    (["", "a", "1 2"], [None]),
    # No pair reaches from one word, or text, into the next.
    (["a", "b"] * 5, [None]),
    (["x ", "y"] * 3, [None]),
    (["12 12", "a1b1"], [None]),
]
"""Texts, and the first merges; None where there is no more."""


def test_merges_by_hand(impl):
    for texts, merges in BY_HAND:
        expected = tuple(pair for pair in merges if pair)
        assert slow_merges(tuple(texts), len(merges)) == expected
        check_training(impl, texts, len(merges))


def test_ids_by_hand(impl):
    bpe = impl.BPE([(b"a", b"a"), (b"aa", b"b"), (b" ", b"a")])
    by_hand = {
        "": [],
        "a": [A],
        "aa": [256],
        "aaa": [256, A],
        "aaab": [256, A, B],
        "aab aab": [257, SPACE, 257],
        " ab": [258, B],
        "é": [ID[b"\xc3"], ID[b"\xa9"]],
        "\x00": [188],  # the first of the bytes that do not print
        "!~": [0, 93],
        "\u07ff": [ID[b"\xdf"], ID[b"\xbf"]],
    }
    assert {text: bpe.encode(text) for text in by_hand} == by_hand


ENCODED = [
    # The lower rank, not the pair that comes first.
    ([(b"b", b"c"), (b"a", b"b")], "abc", [b"a", b"bc"]),
    # Nor the longest token: ab is merged before bcd can come about.
    ([(b"a", b"b"), (b"b", b"c"), (b"bc", b"d")], "abcd", [b"ab", b"c", b"d"]),
    # Nor the fewest tokens.
    ([(b"c", b"d"), (b"a", b"b"), (b"b", b"c"), (b"a", b"bc")], "abcd", [b"ab", b"cd"]),
    # Nor the word as a whole, though it is a token: it is not reached from here.
    ([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")], "abc", [b"a", b"bc"]),
    # The leftmost of equal ones.
    ([(b"a", b"a")], "aaaaa", [b"aa", b"aa", b"a"]),
    ([(b"a", b"a"), (b"aa", b"aa")], "aaaaaaa", [b"aaaa", b"aa", b"a"]),
    ([(b"a", b"b"), (b"b", b"a")], "babab", [b"b", b"ab", b"ab"]),
    # One place at a time: the first a, bc makes abc, which makes abca before the second a, bc is merged.
    (
        [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"abc", b"a"), (b"a", b"bc")],
        "abcabc",
        [b"abca", b"bc"],
    ),
    # A new symbol meets its neighbours on both sides.
    ([(b"b", b"c"), (b"bc", b"d"), (b"a", b"bcd")], "abcd", [b"abcd"]),
    ([(b"b", b"c"), (b"a", b"bc"), (b"abc", b"d")], "abcd", [b"abcd"]),
    # A merge whose parts are never left over; and one that reaches a token that was there already.
    ([(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")], "abc", [b"abc"]),
    ([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc")], "abc", [b"abc"]),
    # Words are encoded apart.
    ([(b"a", b" "), (b"1", b"2"), (b".", b"\n")], "a a.\n12", [b"a", b" ", b"a", b".\n", b"1", b"2"]),
]


def test_the_lowest_rank_first(impl):
    for merges, text, tokens in ENCODED:
        slow, bpe = Slow(merges), impl.BPE(merges)
        assert [slow.vocab[i] for i in slow.encode(text)] == tokens
        battery.sweep_plain(bpe.encode, slow.encode, cases(text))


def test_decoding_by_hand(impl):
    bpe = impl.BPE([(b"a", b"b")], {"<|end|>": 0, "é": 1})
    assert bpe.decode([]) == ""
    assert bpe.decode_bytes([]) == b""
    assert bpe.decode([258, 0, 2 + C, 1]) == "ab<|end|>cé"
    assert bpe.decode_bytes([258, 0, 1]) == b"ab<|end|>" + "é".encode()
    # The ids may come from anywhere.
    bpe = impl.BPE([(b"a", b"b")], {"<s>": 300})
    ids, text = [256, A, 300, 256], "aba<s>ab"
    for given in (
        *(list, tuple, iter, np.array, lambda ids: (i for i in ids), lambda ids: np.array(ids)[::-1][::-1]),
        *(lambda ids, kind=kind: np.array(ids, dtype=kind) for kind in (np.int16, np.uint16, np.int32)),
        lambda ids: [np.int64(i) for i in ids],
    ):
        assert bpe.decode(given(ids)) == text
        assert bpe.decode_bytes(given(ids)) == text.encode()
        assert (bpe.decode(given([])), bpe.decode_bytes(given([]))) == ("", b"")
    assert bpe.decode_bytes(range(256)) == bytes(bytes_to_unicode())


def test_special_tokens_stand_where_they_are_allowed(impl):
    bpe = impl.BPE([(b"a", b"b")], {"<|end|>": 0, "<s>": 1})
    ab, a, b = 2 + 256, 2 + A, 2 + B
    assert bpe.encode("<|end|>", {"<|end|>"}) == [0]
    assert bpe.encode("ab<|end|>ab", ["<|end|>"]) == [ab, 0, ab]
    assert bpe.encode("<|end|><|end|>a", ("<|end|>",)) == [0, 0, a]
    assert bpe.encode("a<|end|>b", {"<|end|>"}) == [a, 0, b]  # no merge across it
    assert bpe.encode("ab", {"<|end|>", "<s>"}) == [ab]
    assert bpe.encode("", {"<|end|>"}) == []
    assert bpe.encode("<s>a<|end|>", {"<|end|>", "<s>"}) == [1, a, 0]
    # What is not allowed stays text, beside what is; and what was allowed once is not so for ever.
    for _ in range(2):
        assert bpe.encode("<s>a<|end|>", {"<|end|>"}) == [*bpe.encode("<s>a"), 0]
        assert bpe.encode("<s>a<|end|>", {"<s>"}) == [1, *bpe.encode("a<|end|>")]
    # Before a special token a run of spaces ends a text, so none of it waits for a word.
    bpe = impl.BPE([(b" ", b" "), (b"  ", b" ")], {"<s>": 300})
    assert bpe.encode("a   b")[1:-1] == [256, SPACE]
    assert bpe.encode("a   <s>b", {"<s>"}) == [A, 257, 300, B]
    assert bpe.encode("<s>   ", {"<s>"}) == [300, 257]
    assert bpe.encode("<s>" * 300, {"<s>"}) == [300] * 300
    # Where none is allowed, none is found.
    bpe = impl.train(["a<|end|>b <|end|> x"] * 5, 300, ["<|end|>", "a"])
    slow = Slow(bpe.merges, {"<|end|>": 0, "a": 1})
    texts = ("<|end|>", "a<|end|>b", " <|end|>", "<|end|><|end|>", "a", "<|end|>\n")
    battery.sweep_plain(bpe.encode, slow.encode, cases(*texts))
    battery.sweep_plain(lambda text: bpe.encode(text, allowed_special=()), slow.encode, cases(*texts))
    battery.sweep_plain(lambda text: bpe.encode(text, allowed_special=set()), slow.encode, cases(*texts))


def test_special_tokens_take_any_ids_and_the_others_the_rest(impl):
    merges = [(b"a", b"b"), (b"ab", b"c")]
    for specials in (
        {},
        {"<s>": 0},
        {"<s>": 258},
        {"<s>": 65, "<e>": 3},
        {"<e>": 3, "<s>": 2},
        {"<s>": 256, "<e>": 1000},
        {"<s>": 257},
        {"é": 70_000, "\0": 1},
        {"ab": 0, "c": 1},  # spelled as ordinary tokens are
        {
            "\u00e9": 0,
            "e\u0301": 1,
            "\ufb01": 2,
            "fi": 3,
            "\u212a": 4,
            "K": 5,
            "k": 6,
        },  # alike but for Unicode
        {"\r\n": 7, "\n": 8, " s": 9, "s ": 10, "s": 11, "S": 12},
        *({"<s>": number, "<e>": number + 1} for number in aim.whole(3, 2**60)),
    ):
        bpe, slow = impl.BPE(merges, specials), Slow(merges, specials)
        assert isinstance(bpe.vocab, dict)
        assert {type(token) for token in bpe.vocab.values()} == {bytes}
        assert bpe.vocab == slow.vocab
        assert [*bpe.vocab] == sorted(slow.vocab)
        assert bpe.special_tokens == specials
        assert bpe.merges == ((b"a", b"b"), (b"ab", b"c"))
        assert bpe.decode_bytes(bpe.encode("abcd")) == b"abcd"
        for text in ("abcd", "c", *(f"a{name}c" for name in specials)):
            assert bpe.encode(text) == slow.encode(text)
            assert bpe.encode(text, specials) == slow.encode(text, specials)
        assert bpe.special_tokens is not specials
    bpe = impl.BPE(merges=((b"a", b"b"),), special_tokens=MappingProxyType({"<s>": 7}))
    assert (type(bpe.special_tokens), bpe.special_tokens) == (dict, {"<s>": 7})
    assert type(bpe.merges) is tuple
    assert {type(pair) for pair in bpe.merges} == {tuple}
    assert bpe.encode(text="ab<s>", allowed_special=["<s>", "<s>"]) == [257, 7]
    assert bpe.decode(ids=[257, 7]) == "ab<s>"
    assert bpe.decode_bytes(ids=[257, 7]) == b"ab<s>"
    assert impl.BPE([]).special_tokens == {}
    assert impl.BPE([], None).merges == ()
    # A result that is a token already gets no second id.
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"c", b"d"), (b"a", b"bc"), (b"d", b"d")]
    bpe, slow = impl.BPE(merges), Slow(merges)
    assert len(bpe.vocab) == 256 + 5
    assert bpe.vocab == slow.vocab
    assert bpe.vocab[258] == b"abc"
    assert bpe.merges == tuple(merges)
    assert bpe.encode("abc") == [258]
    assert bpe.encode("dcd") == [D, 259]
    assert bpe.encode("ddd") == [260, D]


def test_what_training_returns(impl):
    texts = ["<s>ab<s>", "<s><s>", "b ab ab"]
    for names in ((), ["<s>", "ab"], ("z", "ab", "<s>"), ["é", "\n", "<|a|>", "b"]):
        specials = {name: i for i, name in enumerate(names)}
        bpe, slow = impl.train(texts, 265, names), Slow(slow_merges(tuple(texts), 9 - len(names)), specials)
        assert isinstance(bpe, impl.BPE)
        assert bpe.special_tokens == specials
        assert bpe.vocab == slow.vocab
        assert bpe.encode("ab<s>b") == slow.encode("ab<s>b")
        assert bpe.encode("ab<s>b", names) == slow.encode("ab<s>b", names)


def test_training_refuses(impl):
    for texts, size, *names in (
        (["ab"], 255),
        (["ab"], 0),
        (["ab"], -1),
        ([], 255),
        (["ab"], 257, ["<s>", "<e>"]),
        (["ab"], 256, ["<s>"]),
        (["ab"], 300, ["<s>", "<s>"]),
        (["ab"], 300, ["<s>", "<e>", "<s>"]),
        (["ab"], 300, [""]),
        (["ab"], 300, ["<s>", ""]),
        (["ab"], 300, ["a\ud800"]),
        (["ab"], 300, ["<s>", "<e>", "\udfff"]),
        (["ab"], 300, [*map(str, range(40)), "7"]),
        (["ab"], 300, [*map(str, range(40)), ""]),
        (["ab"], 255 + 40, [*map(str, range(40))]),
        (["ab"], -(2**40)),
        ("ab", 300),
        ("", 300),
        ("a", 256),
    ):
        battery.refuses(impl.train, texts, size, *names)
    for half in (*battery.LONE_SURROGATES.values(), "\ud800", "a \ud83d\ude00"):
        battery.refuses(impl.train, [half], 256)
        battery.refuses(impl.train, ["ab", "ab", half], 257)
        battery.refuses(impl.train, [half, "ab"], 257, ["<s>"])
    battery.refuses(impl.train, texts="ab", vocab_size=300, special_tokens=["<s>"])
    battery.refuses(impl.train, ["ab" * 9] * 500 + ["ab\udc00"], 257)
    battery.refuses(impl.train, (each for each in ("ab", "a\ud800b")), 256)


def test_what_is_no_tokenizer_is_refused(impl):
    a, b, c = b"a", b"b", b"c"
    many = [(bytes([i]), bytes([j])) for i in range(200, 230) for j in range(200, 250)]
    for arguments in (
        ([(b"ab", c)],),
        ([(c, b"ab")],),
        ([(b"ab", b"ab")],),
        ([(a, b"bc"), (b, c)],),
        ([(b"ab", c), (a, b)],),
        ([(b"", a)],),
        ([(a, b"")],),
        ([(a, b), (a, b)],),
        ([(a, b), (b, c), (a, b)],),
        ([(b"<s>", a)], {"<s>": 0}),  # the name of a special token is no token of text
        ([], {"": 0}),
        ([], {"<s>": 0, "": 1}),
        ([], {"<s>": -1}),
        ([], {"<s>": 5, "<e>": -300}),
        ([], {"<s>": 0, "<e>": 0}),
        ([], {"<s>": 0, "<m>": 1, "<e>": 0}),
        ([], {"a\ud800": 0}),
        ([], {"<s>": 0, "<e>": 7, "a\udfff": 9}),
        ([], {f"<{i}>": i for i in range(700)} | {"<e>": 699}),
        ([], {f"<{i}>": i for i in range(700)} | {"<e>": -1}),
        ([], {f"<{i}>": i for i in range(700)} | {"": 700}),
        ([], {"<s>": 2**40, "<e>": 2**40}),
        ([*many, many[0]],),
        ([*many, many[-1]],),
        ([*many, (a, b"xyz")],),
        ([*many, (b"xyz", a)],),
        ([(a, b"bc"), *many, (b, c)],),
    ):
        battery.refuses(impl.BPE, *arguments)


def test_encoding_refuses_unknown_names_and_half_of_a_surrogate_pair(impl):
    bpe = impl.BPE([], {"<s>": 0})
    for allowed in ({"<e>"}, {"<s>", "<e>"}, ["<S>"], ["s"], {""}, ("<s> ",), ["<s>"] * 300 + ["<e>"]):
        for text in ("a", "", "<e>", "<s>"):
            battery.refuses(bpe.encode, text, allowed)
    names = {"<s>"}
    bpe.encode("a<s>", names)
    assert names == {"<s>"}
    bpe = impl.BPE([(b"\xed", b"\xa0")], {"<s>": 0})
    for text in (*battery.LONE_SURROGATES.values(), "\ud800", "a\udfffb", "\ud83d\ude00", "a <s>\udc80"):
        battery.refuses(bpe.encode, text)
        battery.refuses(bpe.encode, text, {"<s>"})
        battery.refuses(bpe.encode, "ab <s>" * 300 + text, {"<s>"})
        battery.refuses(bpe.encode, text + "<s> ab" * 300, {"<s>"})


def test_unknown_ids_are_refused(impl):
    bpe = impl.BPE([(b"a", b"b")], {"<s>": 400})
    strangers = (
        [257],
        [-1],
        [A, -256],
        [10**9],
        [A, 257, A],
        [A, B, 300],
        [399],
        [401],
        [400, -257],
        [A] * 5000 + [257],
        [-1] + [A] * 5000,
        [*range(257), 400] * 9 + [-400],
        [2**64],
    )
    for function in (bpe.decode, bpe.decode_bytes):
        for ids in strangers:
            battery.refuses(function, ids)
            battery.refuses(function, iter(ids))
        battery.refuses(function, np.array([A, -1]))
        battery.refuses(function, np.array([257, A], dtype=np.uint16))
        battery.refuses(function, np.array([2**63 + A], dtype=np.uint64))
        battery.refuses(function, [np.int8(-1)])
    assert bpe.decode([400]) == "<s>"
    for bpe in (impl.BPE([]), impl.BPE([(b"a", b"b")], {"<s>": 0})):  # no gaps
        n = len(bpe.vocab)
        for ids in ([n], [n + 1], [A, n], [n, A], [-n], [-n - 1], [A, -1]):
            battery.refuses(bpe.decode, ids)
            battery.refuses(bpe.decode_bytes, iter(ids))


def test_the_size_counts_everything(impl):
    text, three = "abcdefgh" * 5, ("<s>", "<e>", "<m>")
    for size, n_names in ((256, 0), (257, 0), (257, 1), (260, 1), (259, 3), (262, 2)):
        bpe = impl.train([text], size, three[:n_names])
        assert [*bpe.vocab] == list(range(size))
        assert len(bpe.merges) == size - 256 - n_names
    for size in (1000, 70_000, 10**9):
        assert [*impl.train(["abcd"], size, three).vocab] == list(range(3 + 256 + 3))
    for n in aim.sizes(300, at_most=3000):
        names = [f"<{i}>" for i in range(n)]
        bpe = impl.train(texts=["ab"], vocab_size=257 + n, special_tokens=names)
        assert [*bpe.special_tokens.items()][-2:] == [(names[-2], n - 2), (names[-1], n - 1)]
        assert bpe.merges == ((b"a", b"b"),)
        assert bpe.encode(f"ab{names[-1]}", names[-1:]) == [256 + n, n - 1]


def test_texts_may_come_one_by_one_and_stay_as_they_are(impl, rng):
    texts = ["b ab", "ab", "cd", "ab"]
    before = list(texts)
    expected = slow_merges(tuple(texts), 4)
    for given in (texts, tuple(texts), iter(texts), (text for text in texts)):
        assert impl.train(given, 260).merges == expected
    assert texts == before
    texts = [random_text(rng, "abc ", 30) for _ in range(10)]
    expected = slow_merges(tuple(texts), 24)
    for _ in range(3):
        rng.shuffle(texts)
        assert impl.train(texts, 280).merges == expected


def test_tokenizers_and_trainings_share_nothing(impl):
    merges, specials = [(b"a", b"b")], {"<s>": 256}
    one, other = impl.BPE(merges, specials), impl.BPE([(b"b", b"c")])
    same_merges = impl.BPE(merges, {"<s>": 0})
    for _ in range(2):
        assert one.encode("abc") == [257, C]
        assert other.encode("abc") == [A, 256]
        assert same_merges.encode("abc") == [257, 1 + C]
        assert same_merges.encode("<s>abc", {"<s>"}) == [0, 257, 1 + C]
        assert (one.vocab[257], other.vocab[256], same_merges.vocab[0]) == (b"ab", b"bc", b"<s>")
        assert (one.decode([257]), other.decode([256]), same_merges.decode([0])) == ("ab", "bc", "<s>")
    merges.append((b"ab", b"c"))
    specials["abc"] = 999
    assert one.encode("abc") == [257, C]
    assert one.encode("<s>abc", {"<s>"}) == [256, 257, C]
    assert one.merges == ((b"a", b"b"),)
    assert one.special_tokens == {"<s>": 256}
    assert other.special_tokens == {}
    battery.refuses(one.encode, "abc", {"abc"})
    for n in range(40):  # each may lie in the memory of one that is gone
        letter = string.ascii_letters[n].encode()
        bpe = impl.BPE([(letter, b"z")], {"<s>": n})
        assert [bpe.vocab[i] for i in bpe.encode("azbz<s>")][:1] == ([b"az"] if letter == b"a" else [b"a"])
        assert bpe.encode("<s>", {"<s>"}) == [n]
        assert bpe.decode([n, 256 + 1]) == f"<s>{letter.decode()}z"
    first, second = impl.BPE([(b"a", b"b")]), impl.BPE([(b"a", b"b")])
    assert first.vocab is not second.vocab
    assert impl.BPE([]).special_tokens is not impl.BPE([]).special_tokens
    impl.train(["zz"] * 100, 258, ["<s>"])
    first = impl.train(["ab", "cd"], 258)
    second = impl.train(["cd", "ef"], 258, ["<e>"])
    assert impl.train(["ab"], 300).merges == ((b"a", b"b"),)
    assert (first.merges, second.merges) == (((b"a", b"b"), (b"c", b"d")), ((b"c", b"d"),))
    assert (first.special_tokens, second.special_tokens) == ({}, {"<e>": 0})


# Everywhere.

HOSTILE = list(battery.HOSTILE_TEXTS.values())
COLLIDING = [
    *("ABC", "abc", "Abc", "e\u0301", "\u00e9", "\u212b", "\u00c5", "\ufb01", "fi", "a b", "a  b", "a\tb"),
    *("ab" * 60 + middle + "ba" * 60 for middle in ("aa", "bb", "ab", "ba")),
    *("x" * 40 + letter for letter in "abc"),
]
"""Words that are alike but for case, composition, or a letter far from the start."""


def test_bytes_of_any_kind_are_decoded(impl, rng):
    """Half characters, what is no UTF-8, and whole texts cut anywhere; special tokens in between."""
    specials = {"<s>": 300, "é": 301}
    bpe = impl.BPE([(b"\xc3", b"\xa9"), (b"\xe2", b"\x82")], specials)
    vocab = Slow([(b"\xc3", b"\xa9"), (b"\xe2", b"\x82")], specials).vocab
    data = [*battery.HOSTILE_BYTES.values(), b"\xef\xbb\xbfa", *(rng.bytes(n) for n in range(1, 30))]
    for text in ["👍", "é", "東京", *HOSTILE]:
        data += [text.encode()[start:end] for start, end in ((1, None), (0, 2), (0, 3), (2, 5), (0, -1))]
    ids = [[ID[bytes([byte])] for byte in each] for each in data]
    ids += [[*each[:1], 300, *each[1:], 301, *each[:2]] for each in ids[:30]]
    ids += [[256, 257, 256], [257], [A, 257, B], [257, ID[b"\xac"]], [257, 300, ID[b"\xac"]]]
    ids += [[A, D], [B, C], [C, B]]  # alike in length and sum

    def joined(ids) -> bytes:
        return b"".join(vocab[i] for i in ids)

    found = [battery.Case("", (each,)) for each in sorted(ids, key=len)]
    battery.sweep_plain(bpe.decode_bytes, joined, found)
    battery.sweep_plain(bpe.decode, lambda ids: joined(ids).decode("utf-8", errors="replace"), found)


def test_the_special_token_that_begins_first_and_of_those_the_longest(impl, rng):
    names = ["<s>", "<s>x", "x", "xx", "ab", "bcd", "cd", "aa", "a", "<S>", "s>a", "b<", "zab", "z"]
    specials = {name: 3 * i for i, name in enumerate(names)}
    merges = [(b"a", b"b"), (b"x", b"x")]
    bpe, slow = impl.BPE(merges, specials), Slow(merges, specials)
    assert bpe.encode("<s>x<s>xx<s>", names) == [3, 3, 6, 0]
    assert bpe.encode("abcd", ["bcd", "ab", "cd"]) == [12, 18]  # ab begins first; bcd, though longer, is cut
    for _ in range(120):
        allowed = rng.permutation(names)[: rng.integers(1, len(names) + 1)].tolist()
        texts = ["".join(rng.choice([*names, *"abcdx <>sS"], size=n)) for n in (2, 5, 9)]
        kind = (list, tuple, set, frozenset, dict.fromkeys)[rng.integers(5)]
        battery.sweep_plain(
            lambda text, names, kind=kind: bpe.encode(text, kind(names)),
            slow.encode,
            [battery.Case(f"{kind.__name__} of names", (text, allowed)) for text in texts],
        )


def test_names_are_no_expressions_and_any_text_may_be_one(impl):
    names = [
        "|",
        "a|b",
        "[s]",
        "(s)",
        "s*",
        "a.b",
        "^",
        "$",
        "\\d",
        "{2}",
        "é東",
        " s ",
        "\n",
        "#",
        "a b",
        "A",
    ]
    names += [each for each in aim.TEXTS if 0 < len(each) <= 60]
    names += [f"<{'x' * n}>" for n in aim.sizes(70, 300, at_most=3000)]
    for name in [*names, *filter(None, HOSTILE)]:
        bpe, slow = impl.BPE([(b"a", b"b")], {name: 0}), Slow([(b"a", b"b")], {name: 0})
        forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC")]
        texts = {
            f"ab{name}a2b",
            name,
            f" {name} {name}{name}",
            "ab2ds",
            name[:-1],
            name.swapcase(),
            name.casefold(),
        }
        texts |= {*forms, name.strip(), f" {name.strip()}", name.replace("\r\n", "\n")}
        found = [battery.Case("", (text, [name])) for text in sorted(texts, key=len)]
        battery.sweep_plain(bpe.encode, slow.encode, found)
        assert bpe.decode([0, 0]) == name * 2


def test_encoding_of_random_texts(impl, rng):
    for alphabet in ("ab", "abc ", "abcdefgh", "aé東 '\n", "ab 12."):
        merges = slow_merges((random_text(rng, alphabet, 200),), 60)
        texts = [random_text(rng, alphabet, n) for n in (1, 2, 3, 5, 10, 30, 100, 300)]
        battery.sweep_plain(impl.BPE(merges).encode, Slow(merges).encode, cases(*texts))


def test_any_list_of_merges(impl, rng):
    """Every word of up to five letters, and some longer ones; results that are tokens already, too."""
    words = [*map("".join, itertools.chain(*(itertools.product("abc", repeat=n) for n in range(6))))]
    for round_ in range(60):
        merges = random_merges(rng, "abc", rng.integers(1, 15))
        texts = rng.choice(words, size=30).tolist() if round_ else words
        texts += [random_text(rng, "abc", n) for n in (9, 20, 40)]
        bpe, slow = impl.BPE(merges), Slow(merges)
        if [bpe.encode(text) for text in texts] != [slow.encode(text) for text in texts]:
            for text in sorted(texts, key=len):
                battery.sweep_plain(bpe.encode, slow.encode, [battery.Case(f"merges {merges}", (text,))])
            raise battery.MismatchError("the first answers were wrong")


def test_merges_equal_those_of_a_new_count_each_time(impl, rng):
    """Few letters: many ties, runs, overlaps, and pairs whose count falls and falls again."""
    for alphabet in ("a", "ab", "ab ", "abc", "aab\n1", "abcdefgh ", "aé東 ", "ab' s-"):
        for n in (1, 2, 3, 7, 20, 60, 120):
            check_training(impl, [random_text(rng, alphabet, n) for _ in range(3)], 40)
    # 300 made-up words, the n-th with 1/n of the first one's frequency.
    syllables = ["ba", "be", "re", "tion", "al", "s", "ing", "un", "o", "th"]
    words = ["".join(rng.choice(syllables, size=rng.integers(1, 5))) for _ in range(300)]
    p = 1 / np.arange(1, 301)
    check_training(impl, [" ".join(rng.choice(words, size=1200, p=p / p.sum()))], 50)


def test_large_counts_words_and_numbers_of_merges(impl, rng):
    """More than a byte, or two, can count; what stands in the 4,000th place; 300 merges."""
    for n, m in ((256, 255), (257, 3), (1001, 1000), (65_537, 2), (65_540, 65_539)):
        assert impl.train(["xy", "ab ", " xy" * (n - 1), " ab" * (m - 1)], 257).merges == ((b"x", b"y"),)
    for n in aim.sizes(at_most=100_000):
        for texts in ([" ab" * n, " xy" * (n + 1)], ["ab"] * n + ["xy"] * (n + 1)):
            first = impl.train(texts, 257).merges
            if first != ((b"x", b"y"),):
                asked = f"asked: train on {n} times ab and {n + 1} times xy, to 257 tokens"
                raise battery.MismatchError(f"the merge must be (x, y); got {first}", [asked])
    for n in {1500, *aim.sizes(1500, at_most=10_000)[-2:]}:
        # What comes behind the first n letters, or words, decides.
        letters = [*string.ascii_letters[4:26], *string.ascii_uppercase]
        m = n // 300 + 20
        filler = "".join(rng.choice(letters, size=n))
        assert impl.train(["cd" * (m - 1), filler + "ab" * m], 257).merges == ((b"a", b"b"),)
        words = {"".join(rng.choice(letters, size=4)) for _ in range(n + n // 9)}
        assert impl.train(["cd"] * (m - 1) + sorted(words) + ["ab"] * m, 257).merges == ((b"a", b"b"),)
    check_training(impl, ["a" * 4000 + "xyxyxy" + "b" * 300 + "xyxy"], 30)
    check_training(impl, ["ab" * 150, "!" * 90 + "\n" * 40], 40)
    # Words of two letters, each in a text of its own, are merged in the order of their ids.
    for n in {300, max(aim.sizes(300, at_most=900))}:
        letters = sorted(string.ascii_letters)[: int(n**0.5) + 2]
        pairs = list(itertools.product(letters, repeat=2))
        words = list(map("".join, pairs))
        rng.shuffle(words)
        assert impl.train(words, 256 + n).merges == tuple((a.encode(), b.encode()) for a, b in pairs[:n])
    # Of 7,653 pairs that all stand at one place, the one that is read last has the lowest ids.
    letters = string.ascii_letters + string.punctuation.replace("'", "") + "".join(map(chr, range(14, 32)))
    words = {part for a in letters for b in letters for part in split(a + b) if len(part) == 2}
    assert len(words) == 7653
    assert impl.train(sorted(words, key=lambda word: (word == "!!", word)), 257).merges == ((b"!", b"!"),)


def test_merges_of_hostile_texts(impl):
    for text in [*HOSTILE, *(f"a{each} {each}{each}b" for each in aim.TEXTS if len(each) <= 60)]:
        check_training(impl, [text], 5)
    check_training(impl, HOSTILE, 20)


def test_hostile_texts_are_encoded_without_loss(impl, rng):
    """So are words that are alike but for something small: none may be remembered in another's place."""
    merges = slow_merges(tuple(HOSTILE), 20)
    texts = [*HOSTILE, *COLLIDING, *("".join(rng.choice(HOSTILE[1:], size=2)) for _ in range(5))]
    texts.append("".join(map(chr, range(0x500))))
    codes = [code for code in rng.integers(0x110000, size=500).tolist() if not 0xD800 <= code < 0xE000]
    texts.append("".join(map(chr, codes)))
    texts += battery.texts(at_most=100).values()
    for specials in ({}, {"<|endoftext|>": 0, "a": 5, "\ufeff": 9, "\0": 1000}):
        bpe, slow = impl.BPE(merges, specials), Slow(merges, specials)
        battery.sweep_plain(bpe.encode, slow.encode, cases(*texts))
        for text in texts:
            assert bpe.decode(slow.encode(text)) == text
            assert bpe.decode_bytes(slow.encode(text)) == text.encode()


def test_more_merges_and_ids_than_a_byte_can_count(impl, rng):
    """Pairs of bytes in any order, 1,500 of them, and 300 special tokens that take every second id."""
    pairs = [(bytes([i]), bytes([j])) for i in range(0, 256, 4) for j in range(1, 256, 6)]
    rng.shuffle(pairs)
    merges = [(bytes(left), bytes(right)) for left, right in pairs[:1500]]
    specials = {f"<{i}>": 2 * i for i in range(300)} | {"<far>": 10**6}
    bpe, slow = impl.BPE(merges, specials), Slow(merges, specials)
    assert bpe.vocab == slow.vocab
    assert [*bpe.vocab] == [*slow.vocab]
    texts = [(left + right).decode("latin-1") for left, right in merges[::15]]
    texts += ["".join(map(chr, rng.integers(0x250, size=30).tolist())) for _ in range(20)]
    battery.sweep_plain(bpe.encode, slow.encode, cases(*texts))
    names = cases(*specials)
    battery.sweep_plain(lambda name: bpe.encode(name, specials), lambda name: [specials[name]], names[:20])
    battery.sweep_plain(lambda name: bpe.decode([specials[name]]), lambda name: name, names)


def test_as_many_merges_tokens_and_names_as_the_source_counts(impl, rng):
    """Each merge stands for itself: a pair of bytes that no other merge has a part in."""
    all_pairs = [(bytes([i]), bytes([j])) for i in range(256) for j in range(256)]
    for n in aim.sizes(3000, at_most=60_000):
        merges = [all_pairs[i] for i in rng.permutation(len(all_pairs))[:n]]
        merges.sort(key=lambda pair: (pair[0] + pair[1]).isalpha())  # the last ones can be encoded
        bpe = impl.BPE(merges)
        asked = [f"asked: a BPE of {n} merges of two bytes each, in any order"]
        places = [0, n // 2, n - 2, n - 1]
        if [bpe.vocab[256 + i] for i in places] != [b"".join(merges[i]) for i in places]:
            raise battery.MismatchError("the vocabulary must go on with the merges in their order", asked)
        if len(bpe.vocab) != 256 + n or len(bpe.merges) != n:
            raise battery.MismatchError(f"{256 + n} tokens expected; got {len(bpe.vocab)}", asked)
        text = "".join(
            a.decode() + b.decode() + "\n1" for a, b in merges[-9:] if (a + b).isalpha() and (a + b).isascii()
        )
        battery.sweep_plain(bpe.encode, Slow(merges).encode, cases(text, "ab", "zz"))
        assert bpe.decode_bytes([256 + i for i in places]) == b"".join(b"".join(merges[i]) for i in places)
    for n in aim.sizes(at_most=3000):
        specials = {f"<{i}>": 3 * i for i in range(n + 1)}
        bpe = impl.BPE([(b"a", b"b")], specials)
        text, expected = (
            f"<{n}>ab<{n - 1}><0>",
            [3 * n, Slow([(b"a", b"b")], specials).ids[b"ab"], 3 * n - 3, 0],
        )
        found = bpe.encode(text, specials)
        if found != expected:
            asked = [
                f"asked: encode({text!r}) by {n + 1} special tokens, all allowed",
                f"expected: {expected}",
            ]
            raise battery.MismatchError("wrong ids", [*asked, f"yours:    {found}"])
    for n in aim.sizes(300, at_most=20_000):
        bpe = impl.BPE([(b"a", b"b"), (b"ab", b"c")], {"<s>": 0})
        unit, ids = "abc ab, ", [1 + SPACE, 257, 1 + ID[b","], 1 + SPACE, 258]
        expected = [258, *ids * (n // 5)]
        found = bpe.encode(unit * (n // 5) + "abc")
        if found != expected:
            place = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found)
            )
            asked = [
                f"asked: encode({unit!r} * {n // 5} + 'abc')",
                f"at place {place} of {len(expected)} ids",
            ]
            raise battery.MismatchError(f"{len(expected)} ids expected, {len(found)} came, or others", asked)
        assert bpe.decode(expected) == unit * (n // 5) + "abc"
        assert bpe.decode_bytes(iter([*expected, 0])) == (unit * (n // 5) + "abc<s>").encode()
        assert bpe.encode("<s>" * n + "a", {"<s>"}) == [0] * n + [1 + A]
    # As many different words, one after the other; then the first ones again.
    for n in aim.sizes(400, at_most=10_000):
        bpe = impl.BPE([(b"a", b"b")])
        words = ["ab" + "".join(each) for each in itertools.islice(itertools.product("abcdefg", repeat=5), n)]
        for word in [*words, *words[:50]]:
            expected = [256 if part == "ab" else ID[part.encode()] for part in re.findall("ab|.", word)]
            found = bpe.encode(word)
            if found != expected:
                asked = [
                    f"asked: encode({word!r}), after other words",
                    f"expected: {expected}",
                    f"yours:    {found}",
                ]
                raise battery.MismatchError("wrong ids", asked)


def test_the_time_does_not_grow_with_the_square_of_the_word(impl):
    """CPU time: eight times the word takes about 9 times as long; 64 times where it grows with the square."""
    merges = [(b"a", b"b"), (b"b", b"a"), (b"ab", b"ab"), (b"ba", b"b"), (b"abab", b"ab")]

    def encode(text: str):
        impl.BPE(merges).encode(text)  # a new one: the other may remember the word

    # From k to 2k: eight times as long. Much to merge, nothing to merge, a letter's runs.
    for unit, k in (("abbab", 3), ("abbab", 10), ("bbbbb", 10), ("xyxyx", 10), ("aaaab", 8)):
        assert any(battery.growth(encode, lambda k, u=unit: u * k**3, k, n_runs=1) < 24 for _ in range(4))


def test_long_words_are_encoded(impl, rng):
    """Tokens of up to 1,024 bytes, and words of up to 66,001."""
    doubling = [(b"a" * 2**k, b"a" * 2**k) for k in range(10)]
    bpe = impl.BPE(doubling)
    for n in aim.sizes(255, 256, 257, 1000, 66_001, at_most=66_001):
        # As many of the longest token as there is room for, and the binary digits of the rest.
        rest = [255 + k if k else A for k in range(9, -1, -1) if n % 1024 >> k & 1]
        ids = bpe.encode("a" * n)
        if ids != [265] * (n // 1024) + rest:
            raise battery.MismatchError("wrong ids", [f"asked: encode('a' * {n}), by merges of doubles"])
        assert bpe.decode_bytes(ids) == b"a" * n
    for n in aim.sizes(2000, at_most=20_000):
        ids = impl.BPE([(b"a", b"b"), (b"ab", b"ab"), (b"b", b"c")]).encode("ab" * (2 * n) + "c")
        assert ids == [257] * n + [C]
    merges = random_merges(rng, "ab", 12)
    texts = cases(random_text(rng, "ab", 257), random_text(rng, "ab", 330))
    battery.sweep_plain(impl.BPE(merges).encode, Slow(merges).encode, texts)
