"""Oracles: every place of every small text, parts chosen token by token, a generator by hand."""

import itertools

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.text.bpe import BPE

NAMES = {"<pre>": 0, "<suf>": 270, "<mid>": 5, "<end>": 300}
TOKENIZER = BPE([(b"a", b"b"), (b"ab", b"c"), (b" ", b"x"), (b"\n", b"\n")], NAMES)
TEXTS = [
    "",
    "a",
    "abc",
    "abcabc xab\n\ny",
    "<pre>a<suf>b<mid>c<end>",
    "é東\U0001f600é",
    "x\r\n\ty  ",
    "\ufeffab\0ab",
    "e\u0301 a\u0308\u0301",
]


class ByHand:
    """Stands in for a generator: gives the numbers it was made with, and writes down how it was asked."""

    def __init__(self, *numbers, places=(0, 0)):
        self.numbers, self.places, self.asked = list(numbers), places, []

    def random(self):
        self.asked.append("random")
        return self.numbers.pop(0)

    def integers(self, low, high=None, size=None, **options):
        low, high = (0, low) if high is None else (low, high)
        self.asked.append((low, high, size, options))
        return np.array(self.places)


def marks_of(impl, *ids):
    return impl.Sentinels(*(ids or NAMES.values()))


# Cuts ----------------------------------------------------------------------------------------------------


def test_every_cut(impl):
    for text in TEXTS:
        for places in itertools.product(range(len(text) + 1), repeat=2):
            rng = ByHand(places=places)
            parts = impl.cut(text, rng)
            start, stop = sorted(places)
            if tuple(parts) != (text[:start], text[start:stop], text[stop:]):
                raise battery.MismatchError(f"cut at {places}: {parts}", [f"text: {text!r}"])
            assert isinstance(parts, tuple)
            assert rng.asked == [(0, len(text) + 1, 2, {})]
    for label, text in battery.texts(300).items():
        for start in sorted({0, len(text) // 2, *range(0, len(text), len(text) // 20 + 1)}):
            parts = impl.cut(text, ByHand(places=(len(text), start)))
            assert parts == (text[:start], text[start:], ""), f"{label}: cut at {start}"


def test_cuts_of_a_generator(impl):
    for n in aim.sizes(0, 1, 130, 10_000, at_most=300_000):
        text = ("ab\n é" * n)[:n]
        one, other = np.random.default_rng(n), np.random.default_rng(n)
        for _ in range(5):
            start, stop = sorted(other.integers(0, n + 1, size=2).tolist())
            assert tuple(impl.cut(text, one)) == (text[:start], text[start:stop], text[stop:])
        assert one.random() == other.random()
    for label, text in battery.texts(300).items():
        assert "".join(impl.cut(text, np.random.default_rng(1))) == text, label


# Parts ---------------------------------------------------------------------------------------------------


def slow_trim(prefix, middle, suffix, room):
    """Take tokens one after the other: the middle's from its end, then by turns, the prefix first."""
    n_middle = min(len(middle), room)
    kept = {"prefix": 0, "suffix": 0}
    of = {"prefix": len(prefix), "suffix": len(suffix)}
    for turn in range(min(room - n_middle, len(prefix) + len(suffix))):
        name = ("prefix", "suffix")[turn % 2]
        other = ("suffix", "prefix")[turn % 2]
        kept[name if kept[name] < of[name] else other] += 1
    before = list(prefix)[len(prefix) - kept["prefix"] :]
    return before, list(middle)[len(middle) - n_middle :], list(suffix)[: kept["suffix"]]


def parts_of(n_prefix, n_middle, n_suffix):
    start = itertools.count(1000)
    return [[next(start) for _ in range(n)] for n in (n_prefix, n_middle, n_suffix)]


def test_trim_is_its_definition(impl):
    cases = []
    for sizes in itertools.product((0, 1, 2, 5), repeat=3):
        for room in (0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 16):
            cases.append(Case(f"room {room}", (*parts_of(*sizes), room)))
    for n in aim.sizes(33, at_most=700):
        for sizes in ((n, 3, n), (n, n, 2), (2, 0, n), (n, 0, 2)):
            cases += [Case(f"{sizes}", (*parts_of(*sizes), room)) for room in (n, n + 3, 2 * n)]
    for room in range(13):  # the same tokens again and again
        for middle in ([7, 7], []):
            cases.append(Case(f"room {room}, repeated", ([7, 7, 8, 8, 8], middle, [8, 8, 7, 7], room)))
    for n in aim.sizes(3000, at_most=200_000):
        cases += [Case(f"room {n}", (*parts_of(n, 3, n), n)), Case(f"room {n}", (*parts_of(2, n, n), n + 7))]
    battery.sweep_plain(impl.trim, slow_trim, cases)


def test_trim_takes_any_sequence(impl):
    for kind in (tuple, np.array, range):
        given = [kind(6) if kind is range else kind([7, 8, 9, 7]) for _ in range(3)]
        expected = slow_trim(*given, 7)
        found = impl.trim(*given, 7)
        assert all(type(each) is list for each in found)
        assert [[int(i) for i in each] for each in found] == [[int(i) for i in each] for each in expected]
    part = [1, 2]
    for index in range(3):
        given = [[], [], []]
        given[index] = part
        assert impl.trim(*given, 9)[index] == part
        assert impl.trim(*given, 9)[index] is not part
    for room in (-1, -5):
        battery.refuses(impl.trim, [1], [2], [3], room)
        battery.refuses(impl.trim, [], [], [], room)


# Examples ------------------------------------------------------------------------------------------------


def slow_arrange(marks, prefix, middle, suffix, is_spm=False):
    p, s, m, e = marks
    if is_spm:
        return [p, s, *suffix, m, *prefix, *middle, e]
    return [p, *prefix, s, *suffix, m, *middle, e]


def test_arranged_and_restored(impl):
    for marks in ((0, 270, 5, 300), (3, 2, 1, 0), (9, 1, 8, 4)):
        sentinels, cases = marks_of(impl, *marks), []
        for sizes in [
            *itertools.product((0, 1, 3), repeat=3),
            *((n, n, n) for n in aim.sizes(130, at_most=20_000)),
        ]:
            parts = parts_of(*sizes)
            for options in ({}, {"is_spm": False}, {"is_spm": True}):
                cases.append(Case(f"{sizes}", tuple(parts), options))
                ids = slow_arrange(marks, *parts, **options)
                assert impl.restore(tuple(ids), sentinels) == [*itertools.chain(*parts)]
        battery.sweep_plain(
            lambda p, m, s, sentinels=sentinels, **more: impl.arrange(p, m, s, sentinels, **more),
            lambda p, m, s, marks=marks, **more: slow_arrange(marks, p, m, s, **more),
            cases,
        )
        ids = [marks[0], 20, marks[1], 21, marks[2], 22, 23, marks[3]]
        battery.sweep_plain(
            lambda ids, sentinels=sentinels: impl.restore(ids, sentinels),
            lambda _: [20, 22, 23, 21],
            [Case("", (ids,))],
        )
        for kind, is_spm in itertools.product((np.array, tuple, list), (False, True)):
            parts = [kind(each) for each in ([20, 20, 21], [22, 22], [23])]
            found = impl.arrange(*parts, sentinels, is_spm)
            assert type(found) is list
            assert found == slow_arrange(marks, *([*each] for each in parts), is_spm)
            again = impl.restore(kind(found), sentinels)
            assert type(again) is list
            assert again == [20, 20, 21, 22, 22, 23]
        found = impl.arrange(np.array([20, 21]), (22,), range(30, 32), sentinels)
        assert found == slow_arrange(marks, [20, 21], [22], [30, 31])
        assert type(found) is list
        assert impl.restore(np.array(ids), sentinels) == [20, 22, 23, 21]


def test_parts_hold_no_sentinel(impl):
    for marks in ((0, 270, 5, 300), (3, 2, 1, 0)):
        sentinels = marks_of(impl, *marks)
        for mark, index, is_spm in itertools.product(marks, range(3), (True, False)):
            for held in ([mark], [20, mark], [mark, 20], [20, mark, 21], [20, 21, 22, mark]):
                parts = [[30], [31], [32]]
                parts[index] = held
                battery.refuses(impl.arrange, *parts, sentinels, is_spm)

    for n in (9, 150, *aim.sizes(at_most=30_000)):  # somewhere in a long part
        for at, index in itertools.product(sorted({0, 1, n // 2, n - 1}), range(3)):
            parts = [[30] * n, [31] * n, [32] * n]
            parts[index][at] = marks[(at + index) % 4]
            battery.refuses(impl.arrange, *parts, sentinels, at % 2 == 0)


def test_what_cannot_be_restored(impl):
    sentinels = marks_of(impl, 1, 2, 3, 0)
    good = [1, 7, 2, 9, 3, 8, 0]
    assert impl.restore(good, sentinels) == [7, 8, 9]
    assert impl.restore([1, 2, 3, 0], sentinels) == []
    for place in range(len(good)):
        if good[place] < 4:
            battery.refuses(impl.restore, good[:place] + good[place + 1 :], sentinels)
            for other in range(4):
                if other != good[place]:
                    battery.refuses(impl.restore, [*good[:place], other, *good[place + 1 :]], sentinels)
    for place, mark in itertools.product(range(len(good) + 1), range(4)):
        battery.refuses(impl.restore, [*good[:place], mark, *good[place:]], sentinels)
    for order in itertools.permutations((1, 2, 3, 0)):
        if order != (1, 2, 3, 0):
            battery.refuses(impl.restore, [order[0], 7, order[1], 8, order[2], 9, order[3]], sentinels)
    for bad in ([], [7], [7, *good], [*good, 7], good[1:], good[:-1], [*good, *good], [7, 1, 2, 3, 0]):
        battery.refuses(impl.restore, bad, sentinels)


def test_sentinels_are_four(impl):
    one = impl.Sentinels(prefix=1, suffix=2, middle=3, end=0)
    assert one == impl.Sentinels(1, 2, 3, 0)
    assert (one.prefix, one.suffix, one.middle, one.end) == (1, 2, 3, 0)
    assert one != impl.Sentinels(1, 2, 3, 4)
    with pytest.raises(AttributeError):
        one.end = 5
    for ids in itertools.permutations((0, 1, 2, 3)):
        assert impl.Sentinels(*ids).end == ids[3]
    for a, b in itertools.combinations(range(4), 2):
        ids = [1, 2, 3, 0]
        ids[b] = ids[a]
        battery.refuses(impl.Sentinels, *ids)
        ids = [10**6 + k for k in range(4)]
        ids[b] = int(str(ids[a]))  # the same number, another object
        battery.refuses(impl.Sentinels, *ids)


# From texts ----------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of another kind: one id for each character; remembers what it was given."""

    def __init__(self):
        self.given = []

    def encode(self, text):
        self.given.append(text)
        return [400 + ord(each) for each in text]


class Words:
    """A tokenizer whose tokens are words, however long: what is cut off before changes them."""

    def encode(self, text):
        return [400 + sum(k * ord(sign) for k, sign in enumerate(word, 1)) for word in text.split(" ")]


LONG = BPE([(b"a" * 2**n, b"a" * 2**n) for n in range(7)], NAMES)
"""Its longest token has 128 letters."""


def slow_example(text, tokenizer, max_tokens, first, places, second, fim_rate=0.5, spm_rate=0.5):
    if first >= fim_rate:
        return [*tokenizer.encode(text), NAMES["<end>"]][:max_tokens]
    start, stop = sorted(places)
    parts = [tokenizer.encode(each) for each in (text[:start], text[start:stop], text[stop:])]
    return slow_arrange(NAMES.values(), *slow_trim(*parts, max_tokens - 4), second < spm_rate)


def test_examples_are_their_definition(impl, rng):
    marks = marks_of(impl)
    for text, tokenizer in itertools.product([*TEXTS, "abc xab" * 60], (TOKENIZER, Letters())):
        for max_tokens in (4, 5, 6, 12, 1000, *aim.sizes(at_most=40)):
            if max_tokens < 4:
                continue
            for options in (
                {},
                {"fim_rate": 0.8},
                {"spm_rate": 0.2},
                {"fim_rate": 1, "spm_rate": 1},
                {"fim_rate": 0.0},
            ):
                first, second = (
                    float(each) for each in rng.choice([0.0, 0.19, 0.2, 0.3, 0.5, 0.7, 0.8, 0.99], size=2)
                )
                places = rng.integers(len(text) + 1, size=2).tolist()
                by_hand = ByHand(first, second, places=places)
                found = impl.example(text, tokenizer, marks, max_tokens, by_hand, **options)
                expected = slow_example(text, tokenizer, max_tokens, first, places, second, **options)
                if found != expected or type(found) is not list:
                    facts = [
                        f"text {text!r}, {max_tokens} tokens, {options}",
                        f"expected: {expected}",
                        f"yours: {found}",
                    ]
                    raise battery.MismatchError(
                        f"another example: numbers {first} and {second}, cut {places}", facts
                    )
                is_cut = first < options.get("fim_rate", 0.5)
                wanted = ["random", (0, len(text) + 1, 2, {}), "random"] if is_cut else ["random"]
                assert by_hand.asked == wanted
    for max_tokens in (3, 2, 0, -1):
        for first in (0.0, 0.9):
            by_hand = ByHand(first, 0.0)
            battery.refuses(impl.example, "abc", TOKENIZER, marks, max_tokens, by_hand)


def test_when_examples_are_cut(impl):
    """Each number is drawn, and compared, whatever the rates are."""
    marks, text, places = marks_of(impl), "abc xab", (2, 5)
    for fim_rate, spm_rate in itertools.product((0, 0.2, 0.5, 1), repeat=2):
        for first, second in itertools.product((0.0, 0.19, 0.2, 0.5, 0.99), repeat=2):
            rng = ByHand(first, second, places=places)
            found = impl.example(text, TOKENIZER, marks, 40, rng, fim_rate, spm_rate)
            expected = slow_example(text, TOKENIZER, 40, first, places, second, fim_rate, spm_rate)
            told = f"numbers {first} and {second}, rates {fim_rate} and {spm_rate}"
            assert found == expected, told
            n_asked = 3 if first < fim_rate else 1
            assert rng.asked == ["random", (0, len(text) + 1, 2, {}), "random"][:n_asked], told


def test_examples_of_long_texts(impl):
    marks = marks_of(impl)
    given = [("a" * 3000, LONG, 9), ("a" * 500 + "b" * 30, LONG, 20), ("ab cd" * 500 + "e" * 90, Words(), 40)]
    for n in (300, *aim.sizes(at_most=10_000)):
        given += [("abc xab" * n, Letters(), n + 4), ("abc xab" * n, Letters(), 9 * n)]
    for text, tokenizer, max_tokens in given:
        for first, second, share in [(0.9, 0.0, 3), (0.0, 0.0, 3), (0.0, 0.9, 2), (0.0, 0.9, 30)]:
            places = len(text) // share, len(text) - len(text) // 5
            found = impl.example(text, tokenizer, marks, max_tokens, ByHand(first, second, places=places))
            expected = slow_example(text, tokenizer, max_tokens, first, places, second)
            told = (
                f"{len(text)} characters, {max_tokens} tokens, numbers {first} and {second}, cut at {places}"
            )
            assert found == expected, told


def test_examples_of_a_generator(impl):
    """The whole text is there, whatever is drawn; half are cut, and half of these are SPM."""
    marks, rng, kinds = marks_of(impl), np.random.default_rng(3), []
    text = "def f(x):\n    return abc + <mid>\n"
    for _ in range(300):
        ids = impl.example(text, TOKENIZER, marks, 200, rng)
        if ids[0] == marks.prefix:
            kinds.append("spm" if ids[1] == marks.suffix else "psm")
            ids = impl.restore(ids, marks)
        else:
            kinds.append("plain")
            ids = ids[:-1]
        assert TOKENIZER.decode(ids) == text
    assert 120 < kinds.count("plain") < 180
    assert 45 < kinds.count("spm") < 105


def slow_prompt(prefix, suffix, tokenizer, max_tokens, is_spm=False):
    room = max_tokens - 3
    after = tokenizer.encode(suffix)[: int(room * 0.25)]
    before = tokenizer.encode(prefix)
    before = before[max(0, len(before) + len(after) - room) :]
    return slow_arrange(NAMES.values(), before, [], after, is_spm)[:-1]


def test_prompts_are_their_definition(impl):
    marks = marks_of(impl)
    texts = battery.texts(70).values()
    cases = []
    for number, (prefix, suffix) in enumerate(itertools.product([*TEXTS[1:6], "abc xab" * 9], repeat=2)):
        for max_tokens in (3, 4, 6, 7, 11, 24, 200):
            cases.append(Case("", (prefix, suffix, max_tokens), {"is_spm": True} if number % 2 else {}))
    whole = [each for each in texts if not any("\ud800" <= sign <= "\udfff" for sign in each)]
    cases += [Case("", (text, text, 30), {"is_spm": False}) for text in whole]
    for n in aim.sizes(130, 1000, at_most=10_000):
        if n > 2:
            cases += [
                Case("", ("ab c" * n, "x" * n, n)),
                Case("", ("ab c" * n, "", n)),
                Case("", ("ab", "c" * n, n)),
            ]
    text = "abc xab\n\nabc xabc \n\n\nxab"
    for at in range(len(text) + 1):  # also where a token of the whole text would be cut
        cases += [
            Case(f"cursor at {at}", (text[:at], text[at:], n), {"is_spm": n == 15}) for n in (9, 15, 90)
        ]
    for letters in (100, 1000):
        for n in (5, 9, 12):
            cases.append(Case("long tokens", ("b" + "a" * letters, "a" * letters + "b", n)))
            cases.append(Case("long words", ("a " * 3 + "a" * letters, "c" * letters + " d e", n)))
    for tokenizer in (TOKENIZER, Letters(), LONG, Words()):
        battery.sweep_plain(
            lambda p, s, n, t=tokenizer, **more: impl.prompt(p, s, t, marks, n, **more),
            lambda p, s, n, t=tokenizer, **more: slow_prompt(p, s, t, n, **more),
            cases,
        )
    for max_tokens in (2, 1, 0, -1):
        battery.refuses(impl.prompt, "a", "b", TOKENIZER, marks, max_tokens)
        battery.refuses(impl.prompt, "", "", TOKENIZER, marks, max_tokens, True)


def test_a_prompt_is_the_beginning_of_an_example(impl):
    marks = marks_of(impl)
    for is_spm in (True, False):
        text, places = "abc xabc abcy", (3, 6)
        by_hand = ByHand(0.0, 0.0 if is_spm else 0.9, places=places)
        ids = impl.example(text, TOKENIZER, marks, 100, by_hand)
        start = impl.prompt(text[:3], text[6:], TOKENIZER, marks, 100, is_spm)
        assert ids[: len(start)] == start
        assert TOKENIZER.decode(ids[len(start) : -1]) == text[3:6]


def test_answers_are_new(impl):
    marks = marks_of(impl)
    asked = [
        lambda: impl.arrange([20], [21], [22], marks),
        lambda: impl.restore([0, 20, 270, 5, 300], marks),
        lambda: impl.prompt("a", "b", TOKENIZER, marks, 9),
        lambda: impl.example("abc", TOKENIZER, marks, 9, np.random.default_rng(0)),
    ]
    for each in asked:
        one, other = each(), each()
        assert one == other
        assert one is not other


def test_another_machine_and_day_change_nothing(impl):
    def everything():
        marks, rng = marks_of(impl), np.random.default_rng(4)
        return [impl.example("abc xab", TOKENIZER, marks, 9, rng) for _ in range(20)]

    before = everything()
    with elsewhere(impl):
        assert everything() == before
