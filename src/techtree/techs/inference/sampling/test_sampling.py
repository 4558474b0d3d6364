"""Oracles: definitions token by token, sums for the draw, all texts of a few letters; a rng by hand."""

import itertools
import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere
from techtree.techs.transformer.gpt import GPT, GPTConfig, greedy

INF = math.inf
NUMBERS = ("temperature", "top_k", "top_p", "min_p")
CLOSE = 1e-9
"""Nearer than this to a bound of top-p or min-p, rounding decides; such cases are left out."""


# Probabilities -------------------------------------------------------------------------------------------


def slow_weights(logits):
    largest = max(logits)
    weights = [math.exp(each - largest) for each in logits]
    total = math.fsum(weights)
    return [each / total for each in weights]


def slow_chosen(logits, temperature, top_k, top_p, min_p):
    """Return the tokens that may be drawn; None where rounding would decide."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if temperature == 0:
        return order[:1]
    order = order[: top_k or len(order)]
    p = slow_weights([logits[token] for token in order])
    chosen, before = [], 0.0
    for token, each in zip(order, p, strict=True):
        is_near = [top_p < 1 and abs(before - top_p) < CLOSE, min_p > 0 and abs(each - min_p * p[0]) < CLOSE]
        if any(is_near) and chosen:
            return None
        if not chosen or ((top_p == 1 or before < top_p) and (min_p == 0 or each > min_p * p[0])):
            chosen.append(token)
        before += each
    return chosen


def slow_probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    logits = [float(each) for each in logits]
    chosen = slow_chosen(logits, temperature, top_k, top_p, min_p)
    first = logits[chosen[0]]
    found = np.zeros(len(logits))
    with np.errstate(over="ignore"):
        apart = [float(np.float64(logits[token] - first) / (temperature or 1)) for token in chosen]
    found[chosen] = slow_weights(apart)
    return found


def rounding(logits, temperature=1.0, **options):
    """exp(x) is off by x roundings, relative to itself."""
    with np.errstate(over="ignore"):
        apart = np.minimum((logits.max() - logits) / max(temperature, 1e-300), 800.0)
    return (1 + apart) * slow_probabilities(logits, temperature, **options)


OPTIONS = (
    {},
    {"temperature": 0},
    {"temperature": 0.0, "top_k": 3, "top_p": 0.5, "min_p": 0.9},
    {"temperature": 0.7},
    {"temperature": 3},
    {"temperature": 1e-3},
    {"temperature": 1e4},
    {"top_k": 1},
    {"top_k": 2},
    {"top_k": 7, "temperature": 0.5},
    {"top_p": 0.0},
    {"top_p": 0.37},
    {"top_p": 0.9, "temperature": 2.0},
    {"top_p": 0.9, "temperature": 0.4},
    {"top_p": 0.999999},
    {"min_p": 0.07},
    {"min_p": 0.31, "temperature": 2.5},
    {"min_p": 0.31, "temperature": 0.3},
    {"min_p": 1e-6},
    {"top_k": 3, "top_p": 0.62},
    {"top_k": 3, "top_p": 0.62, "min_p": 0.33, "temperature": 1.5},
    {"top_k": 4, "min_p": 0.33, "temperature": 0.1},
    {"top_k": 2, "temperature": 1e12},
    {"min_p": 0.5, "temperature": 1e200},
    {"top_p": 0.83, "min_p": 0.2, "temperature": 0.8},
    {"top_p": 1, "min_p": 0, "temperature": 1},
)


MIXED = {"temperature": 0.7, "top_k": 20, "top_p": 0.93, "min_p": 0.02}


def decided(cases):
    """Leave out where rounding would decide."""
    for case in cases:
        values = [float(each) for each in case.arguments[0]]
        numbers = dict(zip(NUMBERS, (1.0, 0, 1.0, 0.0), strict=True)) | dict(case.options)
        if slow_chosen(values, **numbers) is not None:
            yield case


def probability_cases(rng):
    sizes = {"n": (1, 2, 7, 33, 130)}
    wide = {
        "far apart": lambda shape: 30 * rng.normal(size=shape),
        "very far apart": lambda shape: np.resize([0, 1e4, -1e4, 9999.5], shape),
        "all below -1000": lambda shape: rng.normal(size=shape) - 1000,
        "all above 1000": lambda shape: rng.normal(size=shape) + 1000,
        "some -inf": lambda shape: np.resize([-INF, 0.3, -INF, 1.1, 0.9], shape),
        "all but one -inf": lambda shape: np.where(np.arange(shape[0]) == 1, -3.0, -INF),
        "nearly beyond the range": lambda shape: np.resize([1e300, 9.9e299, -1e300], shape),
    }
    dtypes = (*battery.FLOATS, np.int8, np.uint8, np.int64)
    yield from decided(
        battery.cases(rng, "n", sizes=sizes, dtypes=dtypes, values=wide, options=({}, MIXED), largest=1e30)
    )
    for options in OPTIONS:
        for n in (2, 4, 9):
            yield from decided([Case(f"{n} logits", (rng.normal(size=n),), options)])
        for n in (3, 5, 11):
            drawn = rng.choice([0.0, 1.0, 2.0], size=n)  # many are equal
            yield from decided([Case(f"{n} logits, some equal", (drawn,), options)])
        for label in ("far apart", "very far apart", "some -inf"):
            yield from decided([Case(label, (np.asarray(wide[label]((6,)), float),), options)])
    for k in (1, 2, 4, 5, 6, 1000):
        yield Case(f"top_k={k} of 5, all equal", (np.full(5, 3.0),), {"top_k": k})
    for p in (0.19, 0.21, 0.5, 0.79, 0.81):
        yield Case(f"top_p={p} of 5, all equal", (np.full(5, -3.0),), {"top_p": p, "temperature": 0.5})
    yield Case("seldom and hot", (np.array([0.0, -800.0, -801.0]),), {"temperature": 1000.0})
    for temperature in (1e-300, 5e-324, 1e300):
        for values in ([1.0, 3.0, 3.0, 2.0], [-1e4, 0.0, 1e4], [2.0]):
            yield Case(f"temperature {temperature:g}", (np.array(values),), {"temperature": temperature})
    for number in [each for each in aim.NUMBERS if each < 1e6]:
        for each in filter(math.isfinite, (number, 1 / number)):
            yield from decided([Case("", (rng.normal(size=9),), {"temperature": each})])
            if each <= 1:
                yield from decided([Case("", (rng.normal(size=9),), {"top_p": each})])
                yield from decided([Case("", (rng.normal(size=9),), {"min_p": each})])
    for n in aim.whole(3, 3000):
        for k in (n - 1, n, n + 1):
            yield Case(f"top_k={k} of {n + 3}", (rng.normal(size=n + 3),), {"top_k": k})


# Settings ------------------------------------------------------------------------------------------------


PLAIN = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "min_p": 0.05}
PLAIN |= {"repetition": 1.0, "presence": 0.0, "frequency": 0.0}


# Penalties -----------------------------------------------------------------------------------------------


def slow_penalize(logits, ids, repetition=1.0, presence=0.0, frequency=0.0):
    found = [float(each) for each in logits]
    for token in {int(each) for each in ids}:
        x = found[token]
        x = x / repetition if x > 0 else x * repetition
        found[token] = x - presence - frequency * sum(int(each) == token for each in ids)
    return np.array(found)


def penalty_size(logits, ids, repetition=1.0, presence=0.0, frequency=0.0):
    finite = np.abs(logits[np.isfinite(logits)]).max()
    return finite * max(repetition, 1 / repetition) + abs(presence) + abs(frequency) * len(ids)


PENALTIES = (
    {},
    {"repetition": 1.3},
    {"repetition": 0.5},
    {"presence": 0.7},
    {"presence": -1.5},
    {"frequency": 0.25},
    {"frequency": -0.25},
    {"repetition": 2.0, "presence": 0.5, "frequency": 0.125},
)


def penalty_cases(rng):
    for options in PENALTIES:
        for n, length in [(1, 0), (1, 1), (1, 3), (2, 2), (5, 0), (5, 1), (5, 4), (7, 30), (300, 40)]:
            case = (2 * rng.normal(size=n), rng.integers(n, size=length))
            yield Case(f"{length} of {n} tokens", case, options)
        special = np.array([-INF, -2.0, 0.0, 3.0, -0.0, 1e9, -1e9])
        yield Case("zeros and -inf", (special, np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])), options)
    full = PENALTIES[-1]
    for kind in battery.INTEGERS[:-1]:
        ids = rng.integers(9, size=400).astype(kind)
        yield Case(f"ids of {np.dtype(kind).name}", (rng.normal(size=9), ids), full)
    for kind in (np.uint8, np.int16, np.uint64):
        ids = np.array([255, 130, 255, 130, 0]).astype(kind)
        yield Case(f"large ids of {np.dtype(kind).name}", (rng.normal(size=256), ids), full)
    for kind in (*battery.FLOATS, np.int16):
        logits = (3 * rng.normal(size=9)).astype(kind)
        yield Case(f"logits of {np.dtype(kind).name}", (logits, rng.integers(9, size=5)), full)
    for lay in battery.LAYOUTS.values():
        yield Case("layouts", (lay(rng.normal(size=9)), lay(rng.integers(9, size=6))), full)
    for n in aim.sizes(130, 300, at_most=4000):
        yield Case(f"{n} times", (rng.normal(size=3), np.full(n, 1)), full)
        ids = np.concatenate([np.arange(n), [0, n - 1]])
        yield Case(f"{n} tokens", (rng.normal(size=n), ids), full)
    for number in [each for each in aim.NUMBERS if each < 1e30]:
        for sign in (1, -1):
            logits = sign * number * np.array([0.5, 0.99, 1.01, 2.0])
            yield Case(f"logits near {sign * number:g}", (logits, np.array([0, 1, 2])), full)


# Both ----------------------------------------------------------------------------------------------------


def distribution_cases(rng):
    yield Case("two tokens", (np.array([1.0, 2.0]), np.array([1])), {"temperature": 1.0, "presence": 3.0})
    for number, penalties in itertools.product(range(6), PENALTIES):
        more = {"temperature": float(rng.uniform(0, 2)), "top_k": int(rng.integers(8))} if number else {}
        more |= {"top_p": float(rng.uniform(0.3, 1)), "min_p": float(rng.uniform(0, 0.3))} if number else {}
        logits, ids = 2 * rng.normal(size=9), rng.integers(9, size=number + 2)
        lowered = slow_penalize(logits, ids, **penalties)
        if slow_chosen(lowered.tolist(), **{name: (PLAIN | more)[name] for name in NUMBERS}) is not None:
            yield Case(f"text {ids}", (logits, ids), penalties | more)
    for kind in battery.FLOATS:
        logits, ids = (2 * rng.normal(size=200)).astype(kind), rng.integers(200, size=20)
        full = {"top_p": 0.99, "min_p": 0.0, "repetition": 1.5, "frequency": 0.125}
        yield Case(np.dtype(kind).name, (logits, ids), full)
    for lay in battery.LAYOUTS.values():
        yield Case("layouts", (lay(rng.normal(size=5)), lay(np.array([4, 1, 4]))), {"frequency": 0.5})
    large = 1e5 * np.array([3.0, 1.0, 2.999999])
    yield Case("large logits", (large, np.array([0])), {"temperature": 0.0, "repetition": 1.1})


# The draw ------------------------------------------------------------------------------------------------


class ByHand:
    """Stands in for a generator: gives the numbers it was made with, one at a call, and nothing else."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)
        self.n_calls = 0

    def random(self):
        self.n_calls += 1
        return self.numbers.pop(0)


LAST = 1 - 2.0**-53
"""The largest number that a generator gives."""


def slow_draw(p, u):
    """Add one after the other; None where rounding would decide."""
    p = [float(each) for each in p]
    possible = [token for token, each in enumerate(p) if each]
    if u in (0, LAST):  # however the sums are rounded
        return possible[0 if u == 0 else -1]
    total, end = math.fsum(p), 0.0
    for token in possible:
        end += p[token]
        if abs(end - u * total) < 1e-12 * total:
            return None
        if end > u * total:
            return token
    return None


def check_draw(impl, p, u, expected):
    rng, kept = ByHand(u), np.array(p)
    got = impl.draw(p, rng)
    what = f"u = {u!r}: token {expected} expected, got {got!r}"
    if got != expected or type(got) is not int:
        raise battery.MismatchError(what, battery.describe(Case("", (p,))))
    assert rng.n_calls == 1
    assert np.array_equal(p, kept)


# Stop strings --------------------------------------------------------------------------------------------


def ended(text, strings):
    """Return where what is shown of a whole text ends, and whether it stopped there."""
    for end in range(1, len(text) + 1):
        found = [len(each) for each in strings if text.endswith(each, 0, end)]
        if found:
            return end - max(found), True
    return len(text), False


def held_back(text, strings):
    """Return how much of a text that has not ended may become a stop string."""
    sizes = range(min(len(text), max(map(len, strings), default=0)), 0, -1)
    return next((n for n in sizes if any(each.startswith(text[len(text) - n :]) for each in strings)), 0)


def check_stream(impl, strings, pieces):
    filter, text, shown = impl.StopStrings(strings), "", ""
    assert filter.is_stopped is False
    for piece in pieces:
        text += piece
        end, is_stopped = ended(text, strings)
        if not is_stopped:
            end -= held_back(text, strings)
        got = filter.feed(piece)
        if shown + got != text[:end] or filter.is_stopped is not is_stopped:
            what = f"{text[len(shown) : end]!r} expected, got {got!r}; is_stopped {filter.is_stopped}"
            facts = [f"stop strings: {strings!r}", f"pieces: {battery.drawn(pieces)}", f"fed: {text!r}"]
            raise battery.MismatchError(what, facts)
        shown += got
    rest = filter.finish()
    assert shown + rest == text[: ended(text, strings)[0]]
    assert filter.is_stopped is ended(text, strings)[1]


def cuts(rng, text):
    places = sorted(rng.choice(len(text) + 1, size=rng.integers(4)).tolist()) if text else []
    return [text[a:b] for a, b in itertools.pairwise([0, *places, len(text)])]


# A text --------------------------------------------------------------------------------------------------


class Chain:
    """A model of a table: the logits after a token; keeps what it was asked, and how."""

    def __init__(self, table, dtype=np.float64):
        self.table = np.asarray(table, dtype)
        self.texts = []

    def __call__(self, ids):
        assert isinstance(ids, np.ndarray)
        assert ids.ndim == 1
        assert ids.dtype.kind in "iu"
        assert not is_recorded(), "the model is called without recording gradients"
        self.texts.append(ids.tolist())
        return Tensor(self.table[ids])


def is_recorded():
    return (Tensor([1.0], requires_grad=True) * 2).requires_grad


def slow_text(table, ids, n_new, numbers, us, stop=()):
    """Return the tokens, and how many numbers they took."""
    text, used = [int(each) for each in ids], 0
    for _ in range(n_new):
        lowered = slow_penalize(
            table[text[-1]], text, numbers["repetition"], numbers["presence"], numbers["frequency"]
        )
        p = slow_probabilities(lowered, **{name: numbers[name] for name in NUMBERS})
        token, used = slow_draw(p, us[used]), used + 1
        assert token is not None, "choose other numbers: rounding decides here"
        if token in stop:
            break
        text.append(token)
    return text[len(ids) :], used


SETTINGS = (
    {},
    {"temperature": 0},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 2.5, "top_k": 3},
    {"temperature": 0, "repetition": 1.7},
    {"temperature": 1.2, "top_p": 0.8, "min_p": 0.1, "presence": 0.7, "frequency": 0.3},
    {"repetition": 1.3, "min_p": 0.0},
    {"frequency": -0.4},
)


# Small inputs, the cheap tests first --------------------------------------------------------------------


def test_probabilities_by_hand(impl):
    logits = np.log([0.5, 0.25, 0.15, 0.1])

    def check(expected, *numbers, **options):
        battery.check_equal(impl.probabilities(logits, *numbers, **options), expected, 64)

    check([0.5, 0.25, 0.15, 0.1])
    check([2 / 3, 1 / 3, 0, 0], top_k=2)
    check([2 / 3, 1 / 3, 0, 0], 1.0, 2)
    check([2 / 3, 1 / 3, 0, 0], 1.0, 0, 0.7)
    check([5 / 9, 2.5 / 9, 1.5 / 9, 0], 1.0, 0, 1.0, 0.29)
    check([0.8, 0.2, 0, 0], 0.5, top_p=0.7)  # 0.5**2 to 0.25**2
    check([1, 0, 0, 0], 0)
    check([2**20 / (2**20 + 1), 1 / (2**20 + 1), 0, 0], 0.05, 2)
    # Of two tokens, 2/3 and 1/3: the first has more than 0.6. Of all, it has 0.5.
    check([1, 0, 0, 0], top_k=2, top_p=0.6)
    check([2 / 3, 1 / 3, 0, 0], top_p=0.6)
    # The temperature comes last: 100 makes all nearly equal, and still nothing is drawn below 0.29 * 0.5.
    got = impl.probabilities(logits, 100.0, min_p=0.29)
    assert got[3] == 0
    assert np.abs(got[:3] - 1 / 3).max() < 0.01
    got = impl.probabilities([0.0, -50.0, -60.0], 30.0)
    battery.check_equal(got, slow_weights([0.0, -5 / 3, -2.0]), 64)
    with np.errstate(over="ignore", invalid="ignore"):
        assert impl.probabilities([5.0, 5.0, 4.0], 1e-308).tolist() == [0.5, 0.5, 0.0]
    for given in (logits.tolist(), tuple(logits)):
        battery.check_equal(impl.probabilities(given, top_k=2), [2 / 3, 1 / 3, 0, 0], 64)


def test_penalties_by_hand(impl):
    got = impl.penalize([2.0, -2.0, 2.0], [0, 1, 1], repetition=2.0, presence=0.5, frequency=0.25)
    assert got.tolist() == [0.25, -5.0, 2.0]
    assert impl.penalize([2.0, -2.0, 2.0], [1, 0, 1], 2.0, 0.5, 0.25).tolist() == [0.25, -5.0, 2.0]
    for ids in ([1, 1], (1, 1), np.array([1, 1]), range(1, 2)):
        assert impl.penalize((4.0, 4.0), ids, 4.0).tolist() == [4.0, 1.0]
    for ids in ([], (), np.zeros(0, int)):
        assert impl.penalize([1.0, -1.0], ids, 9.0, 9.0, 9.0).tolist() == [1.0, -1.0]


def test_draws_by_hand(impl):
    p = [0.25, 0.0, 0.25, 0.5]  # sums of them are exact
    for u, token in [(0.0, 0), (0.24, 0), (0.25, 2), (0.49, 2), (0.5, 3), (0.75, 3), (LAST, 3)]:
        check_draw(impl, np.array(p), u, token)
        check_draw(impl, p, u, token)
        check_draw(impl, 2 * np.array(p), u, token)
        check_draw(impl, np.array(p) / 1024, u, token)
    check_draw(impl, [0.0, 0.0, 1.0, 0.0], 0.0, 2)
    check_draw(impl, [0.0, 0.0, 1.0, 0.0], LAST, 2)
    check_draw(impl, [1.0, 1e-9, 0.0], LAST, 1)
    check_draw(impl, [0.0, 1e-9, 1.0], 0.0, 1)
    check_draw(impl, [1e-9, 1e-12, 1.0], 1.0005e-9, 1)
    for off in (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):  # the sum takes the place of 1
        check_draw(impl, [0.5 + off / 2, 0.5 + off / 2], 0.5 + off / 4, 1)
        check_draw(impl, [0.5 - off / 2, 0.5 - off / 2], 0.5 - off / 4, 0)
    check_draw(impl, [3], 0.7, 0)
    check_draw(impl, np.array([1, 0, 3]), 0.3, 2)


def test_streams_by_hand(impl):
    filter = impl.StopStrings(["\n\n", "</s>"])
    assert [filter.feed(piece) for piece in ("a\n", "b<", "/s", "", " </", "s>c", "d")] == [
        "a",
        "\nb",
        "",
        "",
        "</s ",
        "",
        "",
    ]
    assert (filter.is_stopped, filter.finish()) == (True, "")
    filter = impl.StopStrings({"END"})
    assert (filter.feed("x E"), filter.feed("N"), filter.finish()) == ("x ", "", "EN")
    assert filter.is_stopped is False
    check_stream(impl, ["b"], ["xBb"])
    check_stream(impl, ["\u00e9e"], ["e\u0301\u00e9", "\u00c9", "\u00e9e"])
    for strings in ([], (), set()):
        check_stream(impl, strings, ["a", "", "b\n"])


def test_streams_do_not_know_of_each_other(impl):
    strings = ["ab"]
    one, other = impl.StopStrings(strings), impl.StopStrings(strings)
    strings[0] = "x"
    strings.append("c")
    assert (one.feed("xa"), other.feed("ca"), one.feed("b"), other.feed("c")) == ("x", "c", "", "ac")
    assert (one.is_stopped, other.is_stopped) == (True, False)
    later = impl.StopStrings(["ab"])
    assert (later.feed("ba"), later.is_stopped, later.finish()) == ("b", False, "a")
    assert impl.StopStrings({"x": 1, "y": 2}).feed("ay") == "a"
    for bad in ("", "END", "x", [""], ["a", ""], ("", "a"), {""}):
        battery.refuses(impl.StopStrings, bad)


def test_the_least_temperature_is_greedy(impl, rng):
    for n in (1, 2, 5, 200):
        logits = rng.permutation(n) / 7
        zero = impl.probabilities(logits, 0)
        assert zero.tolist() == [float(each == logits.argmax()) for each in range(n)]
        battery.check_equal(impl.probabilities(logits, 1e-300), zero, 4)
        battery.check_equal(impl.probabilities(logits, 1e-3), zero, 4, 1.0)
    assert impl.probabilities([1.0, 4.0, 4.0, 4.0], 0).tolist() == [0, 1, 0, 0]
    assert impl.probabilities([-INF, -2.0, -2.0], 0.0, 3, 0.1, 1.0).tolist() == [0, 1, 0]


def test_what_numbers_are_refused(impl):
    good = [0.5, 1.0, -INF]
    for bad in ([], [[1.0, 2.0]], 3.0, [[]], [math.nan, 1.0], [1.0, math.nan], [INF, 1.0], [-INF, INF]):
        for options in ({}, {"temperature": 0}, {"top_k": 1}):
            battery.refuses(impl.probabilities, np.array(bad), **options)
    for bad in ([-INF], [-INF, -INF], [math.nan], [INF]):
        for temperature in (0, 1):
            battery.refuses(impl.probabilities, np.array(bad), temperature)
    for temperature in (-1, -1e-9, math.nan, INF, -INF):
        battery.refuses(impl.probabilities, good, temperature)
    for temperature in (0, 1.0):
        for k in (-1, -5, 1.5, 2.0):
            battery.refuses(impl.probabilities, good, temperature, k)
        for p in (-0.01, 1.01, 2, -1, math.nan, INF, -INF):
            battery.refuses(impl.probabilities, good, temperature, 0, p)
            battery.refuses(impl.probabilities, good, temperature, 0, 1.0, p)
    for ids in ([3], [-1], [0, 1, 7], [-3, 0], np.array([0.0]), np.array([1.5]), [0.5]):
        battery.refuses(impl.penalize, good, ids, 1.5)
        battery.refuses(impl.penalize, good, ids)
    for bad in ([], [[1.0, 2.0]], 3.0, [math.nan, 1.0], [INF, 1.0], [-INF, -INF]):
        for ids in ([], [0]):
            battery.refuses(impl.penalize, np.array(bad), ids, 1.5)
    for number in (0, -1, math.nan, INF):
        battery.refuses(impl.penalize, good, [0], number)
        battery.refuses(impl.penalize, good, [], repetition=number)
    for number in (math.nan, INF, -INF):
        battery.refuses(impl.penalize, good, [0], presence=number)
        battery.refuses(impl.penalize, good, [], frequency=number)


def test_what_draws_refuse(impl):
    bad = [[], [[0.5, 0.5]], 0.5, [0.0], [0.0, 0.0], [-0.1, 1.1], [0.5, -1e-12], [math.nan, 1.0]]
    bad += [[1.0, math.nan], [INF, 1.0], [-INF, 1.0], [0.0, -1.0], [[]]]
    for each in bad:
        rng = ByHand(0.5)
        battery.refuses(impl.draw, np.array(each), rng)
        assert rng.n_calls == 0


def test_settings(impl):
    one = impl.Sampling()
    assert {name: getattr(one, name) for name in PLAIN} == PLAIN
    values = {"temperature": 0.1, "top_k": 2, "top_p": 0.3, "min_p": 0.4, "repetition": 0.5}
    values |= {"presence": 0.6, "frequency": -0.7}
    assert impl.Sampling(*values.values()) == impl.Sampling(**values) != one
    for name, value in values.items():
        assert getattr(impl.Sampling(**values), name) == value
        with pytest.raises(AttributeError):
            setattr(one, name, value)
    assert len({one, impl.Sampling(**PLAIN)}) == 1
    fine = {"temperature": (0, 5e-324, 1e300), "top_k": (1, 10**9), "top_p": (0, 1), "min_p": (0.0, 1.0)}
    fine |= {"repetition": (1e-9, 7), "presence": (-2, 2, 1e9), "frequency": (-2.5, 0)}
    for name, chosen in fine.items():
        for value in chosen:
            assert getattr(impl.Sampling(**{name: value}), name) == value


def test_what_settings_refuse(impl):
    no_numbers = (math.nan, INF, -INF)
    wrong = {"temperature": (-1, -1e-9, *no_numbers), "top_k": (-1, -7, 1.0, 2.5, True, False)}
    wrong |= dict.fromkeys(("top_p", "min_p"), (-1e-9, -1, 1.0001, 2, *no_numbers))
    wrong |= {"repetition": (0, -1, -0.5, *no_numbers)}
    wrong |= dict.fromkeys(("presence", "frequency"), no_numbers)
    for name, values in wrong.items():
        for value in values:
            for others in ({}, {"temperature": 0} if name != "temperature" else {"top_k": 3}):
                battery.refuses(impl.Sampling, **(others | {name: value}))


def test_tokens_come_one_by_one(impl, rng):
    table = rng.normal(size=(6, 6))
    model, by_hand = Chain(table), ByHand(*rng.random(size=9))
    ids = [5, 2]
    tokens = iter(impl.generate(model, ids, 9, impl.Sampling(), by_hand))
    assert (model.texts, by_hand.n_calls) == ([], 0)
    first = next(tokens)
    assert (model.texts, by_hand.n_calls) == ([[5, 2]], 1)
    ids[:] = [0, 0, 0]
    assert is_recorded()
    second = next(tokens)
    assert (model.texts, by_hand.n_calls) == ([[5, 2], [5, 2, first]], 2)
    with no_grad():
        third = next(tokens)
        assert not is_recorded()
    assert is_recorded()
    next(tokens)
    assert model.texts[-1] == [5, 2, first, second, third]
    assert is_recorded()
    model, by_hand = Chain(table), ByHand()
    assert list(impl.generate(model, [5], 0, impl.Sampling(), by_hand)) == []
    assert (model.texts, by_hand.n_calls) == ([], 0)


def test_texts_are_their_definition(impl, rng):
    for changes, n_new, n_ids in itertools.product(SETTINGS, (1, 8), (1, 5)):
        table, ids = 1.5 * rng.normal(size=(6, 6)), rng.integers(6, size=n_ids)
        us = rng.random(size=n_new).tolist()
        for stop in ((), {2, 3}):
            expected, used = slow_text(table, ids, n_new, PLAIN | changes, us, stop)
            model, by_hand = Chain(table), ByHand(*us)
            given = ids.tolist() if n_ids == 1 else ids.copy()
            got = list(impl.generate(model, given, n_new, impl.Sampling(**changes), by_hand, stop))
            if got != expected:
                facts = [f"settings: {changes}, stop: {stop}", f"ids: {ids.tolist()}", f"numbers: {us}"]
                raise battery.MismatchError(f"{expected} expected, got {got}", facts)
            assert all(type(each) is int for each in got)
            assert by_hand.n_calls == used
            whole = [*ids.tolist(), *got]
            assert model.texts == [whole[: n_ids + n] for n in range(used)]
            assert np.array_equal(given, ids)


def test_texts_do_not_know_of_each_other(impl, rng):
    table, us = rng.normal(size=(6, 6)), rng.random(size=10).tolist()
    shared, starts = ByHand(*us), ([1], [4, 4])
    hot = impl.Sampling(1.5, presence=1.0)
    one, other = (iter(impl.generate(Chain(table), ids, 5, hot, shared)) for ids in starts)
    pairs = [(next(one), next(other)) for _ in range(5)]
    numbers = PLAIN | {"temperature": 1.5, "presence": 1.0}
    for number, ids in enumerate(starts):
        expected, _ = slow_text(table, ids, 5, numbers, us[number::2])
        assert [each[number] for each in pairs] == expected
    again = list(impl.generate(Chain(table), [1], 5, hot, ByHand(*us[::2])))
    assert again == [each[0] for each in pairs]


def test_what_texts_refuse(impl):
    def text(*arguments):
        return list(impl.generate(Chain(np.eye(3)), *arguments, impl.Sampling(), ByHand(0.5)))

    for ids in ([], (), np.zeros(0, int)):
        for n in (0, 3):
            battery.refuses(text, ids, n)
    for n in (-1, -5):
        battery.refuses(text, [1], n)
    nothing = Chain([[math.nan, 0.0]] * 2)
    battery.refuses(lambda: list(impl.generate(nothing, [1], 1, impl.Sampling(), ByHand(0.5))))


# Many inputs --------------------------------------------------------------------------------------------


def test_frequencies_of_draws(impl):
    """Chi-square against the exact distribution: with 8 tokens 99.99 % of all right runs stay below 29.9."""
    rng = np.random.default_rng(1)
    p = impl.distribution(np.log(np.arange(1.0, 9.0)), [], impl.Sampling(0.7, 0, 1.0, 0.0))
    count = np.bincount([impl.draw(p, rng) for _ in range(1000)], minlength=8)
    assert ((count - 1000 * p) ** 2 / (1000 * p)).sum() < 29.9


def test_draws_use_one_number_of_the_generator(impl, rng):
    p = rng.random(size=20)
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    numbers = other.random(size=300)
    got = [impl.draw(p / p.sum(), one) for _ in range(300)]
    assert got == [slow_draw(p, float(u)) for u in numbers]
    for sure in ([0.0, 1.0], [7.0], [0.0, 1e-9, 0.0]):
        impl.draw(sure, one)
        other.random()
    assert one.random() == other.random()


def test_cold_texts_are_greedy(impl):
    model = GPT(
        GPTConfig(n_tokens=11, n_positions=9, width=8, n_layers=1, n_heads=2), np.random.default_rng(3)
    )
    for each in model.parameters():
        each.data *= 8
    for temperature in (0, 0.0, 1e-9):
        rng, other = np.random.default_rng(0), np.random.default_rng(0)
        got = list(impl.generate(model, [3, 1], 7, impl.Sampling(temperature), rng))
        assert got == greedy(model, [3, 1], 7)
        other.random(size=7)
        assert rng.random() == other.random()
    text = impl.generate(model, [3, 1], 9, impl.Sampling(0), np.random.default_rng(0))
    assert len([next(text) for _ in range(8)]) == 8
    battery.refuses(next, text)  # the model's own error
    assert is_recorded()


def test_another_machine_and_day_change_nothing(impl, rng):
    logits, table = rng.normal(size=9), rng.normal(size=(6, 6))

    def everything():
        p = impl.distribution(logits, [3, 1], impl.Sampling(0.9, 5, 0.9, 0.01, 1.2, 0.1, 0.2))
        rng = np.random.default_rng(3)
        return [p.tolist(), list(impl.generate(Chain(table), [0], 9, impl.Sampling(1.3), rng))]

    before = everything()
    with elsewhere(impl):
        assert everything() == before


def test_probabilities_are_their_definition(impl, rng):
    battery.sweep(
        impl.probabilities,
        slow_probabilities,
        probability_cases(rng),
        ulps=16,
        magnitude=rounding,
        dtype=np.float64,
    )


def test_streams_of_two_letters(impl, rng):
    """All texts of up to five letters, with stop strings that overlap themselves and each other."""
    words = ["".join(each) for n in (1, 2, 3, 4) for each in itertools.product("ab", repeat=n)]
    several = [["ab", "b"], ["b", "ab"], ["bc", "abcd"], ["abab"], ["aab"], ["aaa", "aab"], ["abb", "ba"]]
    several += [["abaab"], ["a", "aa"], ["aa", "a"], ["bba", "abbb"], ["ab", "ab"], ["abca", "bcb", "cc"]]
    several += [[str(each) for each in rng.choice(words, size=rng.integers(1, 4))] for _ in range(12)]
    for strings in several:
        for n in range(6):
            for letters in itertools.product("ab", repeat=n):
                text = "".join(letters)
                check_stream(impl, strings, cuts(rng, text) if n > 4 else [text])
    for _ in range(100):
        text = "".join(rng.choice(list("aabc"), size=rng.integers(20)))
        strings = ["".join(rng.choice(list("abc"), size=rng.integers(2, 6))) for _ in range(3)]
        check_stream(impl, tuple(strings), cuts(rng, text))
        check_stream(impl, strings, list(text))


def test_streams_of_hostile_texts(impl, rng):
    for text in [*battery.texts(at_most=300).values(), *battery.LONE_SURROGATES.values()]:
        inside = [each for each in (text[len(text) // 2 :][:9], text[-3:]) if each]
        for strings in (["\r\n", "\n\n"], ["</s>", "x ", "abcabcabd"], inside):
            check_stream(impl, strings, cuts(rng, text))
    for text in aim.TEXTS:
        if 0 < len(text) <= 60:
            check_stream(impl, [text], cuts(rng, f"a{text[:-1]}b{text}c"))
    for n in aim.sizes(40, 300, at_most=400):
        check_stream(impl, ["a" * n], ["a" * (n - 1), "b", "a" * (n - 1), "a", "b"])
        check_stream(impl, [f"{each} " for each in range(n)], cuts(rng, f"x{n}{n - 1} "))


def test_draws_are_exact(impl, rng):
    for n in (1, 2, 3, 10, 33, 130):
        for kind in range(4):
            p = rng.random(size=n) if kind else np.full(n, 1 / n)
            p = np.where(rng.random(n) < 0.4, 0, p) if kind == 2 else p
            p = p * 1e-5 if kind == 3 else p / p.sum() if p.any() else np.ones(n)
            p = np.concatenate([p, np.zeros(3)]) if kind == 1 else p
            for u in (0.0, 1e-16, *rng.random(size=6), 0.5, 0.999, 1 - 1e-15, LAST):
                expected = slow_draw(p, float(u))
                if expected is not None:
                    check_draw(impl, p, float(u), expected)
    for kind in battery.FLOATS:
        p = rng.random(size=300).astype(kind)
        for u in rng.random(size=5):
            check_draw(impl, p, float(u), slow_draw(p, float(u)))
    for lay in battery.LAYOUTS.values():
        p = lay(rng.random(size=9))
        for u in rng.random(size=5):
            check_draw(impl, p, float(u), slow_draw(p, float(u)))
    for scale in (1e-300, 1e-9, 1e9, 1e300):
        p = scale * np.array([0.1, 0.2, 0.3, 0.1])
        for u in (0.0, 0.1, 0.2, 0.5, 0.99, LAST):
            check_draw(impl, p, u, slow_draw(p, u))
    large = np.ones(100_000, np.float32)  # a sum in float32 is off by far more than one token
    large[::3] = 0.3
    for n in aim.sizes(50_000, 100_000, at_most=100_000):
        p = large[:n]
        ends = np.cumsum(p.astype(np.float64))
        for u in (0.1234567, 0.777, 0.99999):
            check_draw(impl, p, u, int((ends <= u * ends[-1]).sum()))


def test_penalties_are_their_definition(impl, rng):
    battery.sweep(
        impl.penalize, slow_penalize, penalty_cases(rng), ulps=8, magnitude=penalty_size, dtype=np.float64
    )


def test_distributions_are_both_steps(impl, rng):
    def definition(logits, ids, **changes):
        numbers = PLAIN | changes
        lowered = slow_penalize(logits, ids, **{name: numbers[name] for name in PLAIN if name not in NUMBERS})
        return slow_probabilities(lowered, **{name: numbers[name] for name in NUMBERS})

    def function(logits, ids, **changes):
        return impl.distribution(logits, ids, impl.Sampling(**changes))

    battery.sweep(function, definition, distribution_cases(rng), ulps=64, magnitude=0.1, dtype=np.float64)
    for ids in ([0, 2, 2], (0, 2, 2), np.array([0, 2, 2], np.uint8)):
        settings = impl.Sampling(1.0, 0, 1.0, 0.0, presence=math.log(2), frequency=math.log(2))
        got = impl.distribution([0.0, 0.0, 0.0], ids, settings)
        battery.check_equal(got, np.array([2, 8, 1]) / 11, 64)
    for ids in ([], (), np.zeros(0, int)):
        got = impl.distribution([0.0, 0.0], ids, impl.Sampling(1.0, 0, 1.0, 0.0, 2.0, 3.0, 4.0))
        assert got.tolist() == [0.5, 0.5]
    battery.refuses(impl.distribution, [0.0, 1.0], [2], impl.Sampling())
    battery.refuses(impl.distribution, [0.0, math.nan], [0], impl.Sampling())


def test_texts_of_all_kinds(impl, rng):
    settings = impl.Sampling(temperature=1.0, top_p=1.0, min_p=0.0, frequency=0.5)
    numbers = PLAIN | {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "frequency": 0.5}
    for n in aim.sizes(1, 33, 130, at_most=400):
        table, ids = rng.normal(size=(5, 5)), rng.integers(5, size=n)
        us = rng.random(size=3).tolist()
        expected, _ = slow_text(table, ids, 3, numbers, us)
        model = Chain(table)
        assert list(impl.generate(model, ids, 3, settings, ByHand(*us))) == expected
        assert model.texts == [[*ids.tolist(), *expected[:each]] for each in range(3)]
        us = rng.random(size=min(n, 200)).tolist()
        expected, _ = slow_text(table, [4], len(us), numbers, us)
        model = Chain(table)
        assert list(impl.generate(model, [4], len(us), settings, ByHand(*us))) == expected
        assert model.texts == [[4, *expected[:each]] for each in range(len(us))]
    table, us = rng.normal(size=(5, 5)), rng.random(size=4).tolist()
    for kind in battery.INTEGERS[:-1]:
        ids = np.array([3, 4, 1], kind)
        expected, _ = slow_text(table, ids, 4, numbers, us)
        assert list(impl.generate(Chain(table), ids, 4, settings, ByHand(*us))) == expected
    for kind in (np.float16, np.float32):
        expected, _ = slow_text(table.astype(kind), [1], 4, numbers, us)
        assert list(impl.generate(Chain(table, kind), (1,), 4, settings, ByHand(*us))) == expected
    near = Chain([[1.0, 1.0 + 1e-12, 1.0 + 2e-12]] * 3)  # equal in float32
    assert list(impl.generate(near, [0], 2, impl.Sampling(0), ByHand(*us))) == [2, 2]
    impossible = np.where(np.eye(5), 0.0, -INF)[[1, 2, 3, 4, 0]]
    assert list(impl.generate(Chain(impossible), [0], 4, settings, ByHand(*us))) == [1, 2, 3, 4]
    for stop in ([3], (3,), {3}, frozenset([3, 77]), range(3, 9), {3: "end"}, np.array([3, 9])):
        assert list(impl.generate(Chain(impossible), [3, 0], 4, settings, ByHand(*us), stop)) == [1, 2]
    assert list(impl.generate(Chain(impossible), [3, 0], 4, settings, ByHand(*us), stop=[1])) == []


def test_small_floats_are_computed_in_float64(impl):
    few = impl.probabilities(np.float16([0, -5.85]), min_p=0.0028768405307400178, temperature=20)
    assert few.tolist() == [1, 0]  # exp(-5.8515625), which float16 makes of -5.85, is 0.0028754
    for dtype in (np.float16, np.float32):
        assert abs((impl.probabilities(np.zeros(3000, dtype), top_p=0.9) > 0).sum() - 2700) <= 1


def test_a_temperature_may_be_small_as_may_the_distances(impl):
    for small in (1e-9, 1e-30, 1e-300):
        found = impl.probabilities([small, 0.0], temperature=small)
        assert np.allclose(found, [0.7310585786300049, 0.2689414213699951], rtol=1e-12)


def test_nothing_is_left_after_the_end_of_a_stream(impl):
    stream = impl.StopStrings(["ab"])
    assert (stream.feed("a"), stream.finish(), stream.finish()) == ("", "a", "")


def test_each_stream_holds_back_for_its_own_strings(impl):
    first, second = impl.StopStrings(["ab"]), impl.StopStrings(["xy"])
    assert (first.feed("a"), second.feed("x"), first.feed("x"), second.feed("a")) == ("", "", "ax", "xa")
