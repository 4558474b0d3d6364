"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from bisect import bisect_left, bisect_right

import numpy as np

from techtree.tree.answers import told

_BEGIN = "tokens: list[int] = []"
_TEXT = "tokens += [*own, BOUNDARY]"
_OWN = "            _require_tokens(own)\n"
_ARRAY = "self.tokens = np.array(tokens, np.int64)"
_ALL_RANKS = "while ranks.max(initial=-1) < len(ranks) - 1:  # some places still have the same rank"
_BEYOND = "after = np.zeros_like(ranks)  # beyond the end: before everything"
_KEYS = "keys = ranks * (len(ranks) + 1) + after"
_ORDER = "return np.argsort(ranks)"
_RUN = "return self.tokens[place : place + len(wanted)].tolist()"
_WANTED = "        _require_tokens(wanted)\n\n"
_LOW = "low = bisect_left(self.places, wanted, key=run_from)"
_HIGH = "return low, bisect_right(self.places, wanted, lo=low, key=run_from)"
_FOUND = "found = self.tokens[self.places[low:high] + len(pattern)]"
_NO_BOUNDARY = "found[found != BOUNDARY]"
_COUNTS = "return dict(zip(tokens.tolist(), counts.tolist(), strict=True))"
_MAX = '        if max_length < 1:\n            raise ValueError(f"max_length must be at least 1; got {max_length}")\n'
_INIT = "def __init__(self, max_length: int = 8):"
_TABLE = "self._followers: dict[tuple[int, ...], dict[int, int]] = {}"
_TOKEN = "        _require_tokens([token])\n"
_STARTS = "for start in range(len(self._recent) + 1):"
_COUNT = "counts[token] = counts.get(token, 0) + 1"
_RECENT = "        self._recent = (*self._recent, token)[-self._max_length :]\n"
_LONGER = (
    "        if len(wanted) > self._max_length:\n"
    '            raise ValueError(f"a pattern has at most {self._max_length} tokens here; got {len(wanted)}")\n'
)
_KNOWN = "return dict(self._followers.get(wanted, {}))"
_MATCH_MAX = (
    '    if max_length < 1:\n        raise ValueError(f"max_length must be at least 1; got {max_length}")\n'
)
_MATCH_STARTS = "for start in range(max(0, len(context) - max_length), len(context)):"
_ASK = "counts = index.followers(context[start:])"
_IS_MATCH = "        if counts:\n            return len(context) - start, counts\n"
_ONE = "    if len(counts) != 1:\n        return 0\n"
_SEVERAL = "return 1 if sum(counts.values()) == 1 else 2"
_WEIGHT = "if not 0 <= weight <= 1:"
_COPY = "mixed = np.array(p, np.float64)"
_NOTHING = "if not counts:\n        return mixed\n"
_OUTSIDE = "if min(counts) < 0 or max(counts) >= len(mixed):"
_LOWER = "mixed *= 1 - weight"
_RAISE = "mixed[list(counts)] += weight * np.array(list(counts.values())) / sum(counts.values())"
_SHAPES = "if not rows.shape == kinds.shape == a.shape == b.shape:"
_KINDS = "is_right = (rows >= 0) & (rows <= max_length) & (kinds >= 0) & (kinds < N_AGREEMENTS)"
_PROBABILITIES = "is_right &= (a > 0) & (a <= 1) & (b >= 0) & (b <= 1)"
_REFUSED = "if max_length < 1 or not is_right.all():"
_CELLS = "cells = rows.astype(np.int64) * N_AGREEMENTS + kinds.astype(np.int64)"
_SLOPE = "slope = np.bincount(cells, (b - a) / ((1 - w[cells]) * a + w[cells] * b), n_cells) - 1 / (1 - w)"
_WEIGHTS = "return low.reshape(max_length + 1, N_AGREEMENTS)"
_FIT_DEFAULT = "p_memory: Sequence[float] | np.ndarray,\n    max_length: int = 8,"
_N_MOST = "if n_most < 0:"
_KNOWN_TEXT = "text, n_known = [int(token) for token in context], len(context)"
_WHILE = "while len(text) < n_known + n_most:"
_NEXT = "length, counts = longest_match(index, text, len(weights) - 1)"
_BEST = "token = min(counts, key=lambda each: (-counts[each], each))"
_SHARE = "share = counts[token] / sum(counts.values())"
_BELIEVED = "if share * weights[length, agreement(counts)] < at_least:"
_APPEND = "text.append(token)"
_DRAFT = "return text[n_known:]"


def _as_lists(tokens):
    tokens = tokens.tolist()
    return np.array(sorted(range(len(tokens)), key=lambda at: tokens[at:]), np.int64)


def _ranked(tokens):
    """Sort pairs of ranks in two passes, the later one first, from twice as far each time."""
    ranks = np.searchsorted(np.unique(tokens), tokens)
    n = 1
    while True:
        after = np.concatenate([ranks[n:], np.full(min(n, len(ranks)), -1)])[: len(ranks)]
        order = np.lexsort((after, ranks))
        pairs = np.stack([ranks[order], after[order]], axis=1)
        new = np.cumsum(np.any(pairs != np.roll(pairs, 1, axis=0), axis=1)) if len(order) else order
        ranks = np.empty_like(order)
        ranks[order] = new - new[0] if len(order) else new
        n *= 2
        if n > len(order):
            return order


class _Narrowed:
    """The interval is narrowed token by token, in a plain list."""

    def __init__(self, texts):
        texts = [[int(token) for token in text] for text in texts]
        if any(token < 0 for text in texts for token in text):
            raise ValueError("no token")
        self._joined = [token for text in texts for token in (*text, -1)]
        self.tokens = np.array(self._joined, dtype=np.int64)
        self.places = _ranked(self.tokens).astype(np.int32)

    def interval(self, pattern):
        pattern = [int(token) for token in pattern]
        if min(pattern, default=0) < 0:
            raise ValueError("no pattern")
        low, high = 0, len(self.places)
        for depth, token in enumerate(pattern):

            def at(place, depth=depth):
                return self._joined[place + depth] if place + depth < len(self._joined) else -2

            low = bisect_left(self.places, token, low, high, key=at)
            high = bisect_right(self.places, token, low, high, key=at)
        return low, high

    def followers(self, pattern):
        low, high = self.interval(pattern)
        found: dict = {}
        for place in self.places[low:high].tolist():
            token = self._joined[place + len(pattern)]
            if token >= 0:
                found[token] = found.get(token, 0) + 1
        return found


class _Late:
    """Keeps the texts themselves, and sorts them when it is asked for the first time."""

    def __init__(self, texts):
        self._texts, self._index = list(texts), None
        _Narrowed(self._texts)

    def __getattr__(self, name):
        self._index = self._index or _Narrowed(self._texts)
        return getattr(self._index, name)


MISTAKES = {
    "SuffixIndex: texts are joined, and a match may cross": [(_TEXT, "tokens += own")],
    "SuffixIndex: no boundary stands after the last text": [
        (_ARRAY, "self.tokens = np.array(tokens[:-1], np.int64)")
    ],
    "SuffixIndex: a boundary stands before the first text, too": [(_BEGIN, "tokens: list[int] = [BOUNDARY]")],
    "SuffixIndex: negative tokens are accepted": [(_OWN, "")],
    "SuffixIndex: the tokens are kept in 32 bits": [
        (_ARRAY, "self.tokens = np.array(tokens, np.int64).astype(np.int32)")
    ],
    "SuffixIndex: places are sorted by two tokens": [(_ALL_RANKS, "for _ in range(1):")],
    "SuffixIndex: places are sorted by 16 tokens": [(_ALL_RANKS, "for _ in range(4):")],
    "SuffixIndex: what ends first comes last": [
        (_BEYOND, "after = np.full_like(ranks, len(ranks) + 1)"),
        (_KEYS, "keys = ranks * (len(ranks) + 2) + after"),
    ],
    "SuffixIndex: the order is descending": [(_ORDER, "return np.argsort(-ranks)")],
    "SuffixIndex: it has the rank of each place, not the places in order": [(_ORDER, "return ranks")],
    "SuffixIndex: the suffixes are sorted as lists, in quadratic time": {"_sorted_suffixes": _as_lists},
    "SuffixIndex: the texts are read when it is asked": {"SuffixIndex": _Late},
    "interval: the last place is left out": [
        (_HIGH, "return low, max(low, bisect_right(self.places, wanted, lo=low, key=run_from) - 1)")
    ],
    "interval: whole suffixes are compared": [(_RUN, "return self.tokens[place:].tolist()")],
    "interval: the last token of the pattern is not compared": [
        (_WANTED, _WANTED + "        wanted = wanted[:-1]\n\n")
    ],
    "interval: a pattern may hold a boundary": [(_WANTED, "\n")],
    "interval: it is 0 to 0 where the pattern stands nowhere": [
        (
            _HIGH,
            "high = bisect_right(self.places, wanted, lo=low, key=run_from)\n"
            "        return (low, high) if low < high else (0, 0)",
        )
    ],
    "interval: all places are looked at": [
        (_LOW, "runs = [run_from(place) for place in self.places]"),
        (_HIGH, "low = sum(run < wanted for run in runs)\n        return low, low + runs.count(wanted)"),
    ],
    "followers: the end of a text is a token": [(_NO_BOUNDARY, "found")],
    "followers: the pattern's first token is counted": [
        (_FOUND, "found = self.tokens[self.places[low:high]]")
    ],
    "followers: the token after the next is counted": [
        (
            _FOUND,
            "at = self.places[low:high] + len(pattern) + 1\n"
            "        found = self.tokens[at[at < len(self.tokens)]]",
        )
    ],
    "followers: each token counts once": [(_COUNTS, "return dict.fromkeys(tokens.tolist(), 1)")],
    "followers: 16 places are looked at": [
        (_FOUND, "found = self.tokens[self.places[low : min(high, low + 16)] + len(pattern)]")
    ],
    "followers: they are shares": [
        (_COUNTS, "return dict(zip(tokens.tolist(), (counts / counts.sum()).tolist(), strict=True))")
    ],
    "followers: tokens and counts are NumPy's": [(_COUNTS, "return dict(zip(tokens, counts, strict=True))")],
    "GrowingIndex: a longest run of 0 is accepted": [(_MAX, "")],
    "GrowingIndex: runs of up to 4 are noted if nothing is said": [(_INIT, _INIT.replace("8", "4"))],
    "GrowingIndex: all texts share one table": [
        (_INIT, "def __init__(self, max_length: int = 8, _shared: dict = {}):"),
        (_TABLE, "self._followers = _shared"),
    ],
    "append: the empty run is left out": [(_STARTS, "for start in range(len(self._recent)):")],
    "append: the longest run alone is noted": [(_STARTS, "for start in [0]:")],
    "append: the token belongs to the run before itself": [(_RECENT, ""), (_TOKEN, _TOKEN + _RECENT)],
    "append: runs are one token too short": [(_RECENT, _RECENT.replace("[-self._max", "[1 - self._max"))],
    "append: a token counts once": [(_COUNT, "counts[token] = 1")],
    "append: only the latest follower is kept": [(_COUNT, "counts.clear()\n            counts[token] = 1")],
    "append: negative tokens are accepted": [(_TOKEN, "")],
    "append: a negative token is noted before it is refused": [
        (_TOKEN, ""),
        (_RECENT, "        _require_tokens([token])\n" + _RECENT),
    ],
    "GrowingIndex.followers: a longer pattern is cut": [
        (_LONGER, "        wanted = wanted[-self._max_length :]\n")
    ],
    "GrowingIndex.followers: nothing follows a longer pattern": [(_LONGER, "")],
    "GrowingIndex.followers: its own table is handed out": [
        (_KNOWN, "return self._followers.get(wanted, {})")
    ],
    "longest_match: it is the shortest": [
        (_MATCH_STARTS, "for start in range(len(context) - 1, max(0, len(context) - max_length) - 1, -1):")
    ],
    "longest_match: one token more is compared": [
        (_MATCH_STARTS, _MATCH_STARTS.replace("- max_length)", "- max_length - 1)"))
    ],
    "longest_match: the whole text is never compared": [
        (_MATCH_STARTS, _MATCH_STARTS.replace("max(0,", "max(1,"))
    ],
    "longest_match: the text's first tokens are looked for": [
        (_ASK, "counts = index.followers(context[: len(context) - start])")
    ],
    "longest_match: two places are needed": [
        (_IS_MATCH, _IS_MATCH.replace("if counts", "if sum(counts.values()) > 1"))
    ],
    "longest_match: it is longest when its places agree": [
        (_IS_MATCH, _IS_MATCH.replace("if counts", "if len(counts) == 1"))
    ],
    "longest_match: it gives the number of places": [
        (_IS_MATCH, _IS_MATCH.replace("len(context) - start, counts", "sum(counts.values()), counts"))
    ],
    "longest_match: without a match all tokens follow": [
        (_MATCH_STARTS, _MATCH_STARTS.replace("len(context)):", "len(context) + 1):"))
    ],
    "longest_match: a longest length of 0 is accepted": [(_MATCH_MAX, "")],
    "longest_match: 32 tokens are compared if nothing is said": [
        ("context: Sequence[int], max_length: int = 8", "context: Sequence[int], max_length: int = 32")
    ],
    "agreement: several places count like one": [(_SEVERAL, "return 1")],
    "agreement: one place counts like several": [(_SEVERAL, "return 2")],
    "agreement: none is one place": [
        (_ONE, "    if len(counts) > 1:\n        return 0\n"),
        (_SEVERAL, "return 1 if sum(counts.values()) < 2 else 2"),
    ],
    "agreement: more than half is as good as all": [
        (_ONE, "    if not counts or 2 * max(counts.values()) <= sum(counts.values()):\n        return 0\n")
    ],
    "agreement: it is the number of different tokens": [
        (_ONE, "    if len(counts) != 1:\n        return min(2, len(counts))\n")
    ],
    "mix: the weight is the model's": [
        (_LOWER, "mixed *= weight"),
        (_RAISE, _RAISE.replace("+= weight", "+= (1 - weight)")),
    ],
    "mix: the model's part is not lowered": [(_LOWER, "pass")],
    "mix: counts are added as they are": [(_RAISE, _RAISE.replace(" / sum(counts.values())", ""))],
    "mix: counts are divided by the largest": [(_RAISE, _RAISE.replace("/ sum(", "/ max("))],
    "mix: each follower has the same share": [(_RAISE, "mixed[list(counts)] += weight / len(counts)")],
    "mix: the most frequent follower has it all": [
        (_RAISE, "mixed[max(counts, key=counts.__getitem__)] += weight")
    ],
    "mix: followers have the memory's share alone": [(_RAISE, _RAISE.replace("+=", "="))],
    "mix: without counts the model's part is lowered": [
        (_NOTHING, "if not counts:\n        return mixed * (1 - weight)\n")
    ],
    "mix: without counts the model's own array comes back": [
        (_NOTHING, "if not counts:\n        return np.asarray(p, np.float64)\n")
    ],
    "mix: the model's array is changed": [(_COPY, "mixed = np.asarray(p, np.float64)")],
    "mix: any weight is accepted": [(_WEIGHT, "if False:")],
    "mix: weights of 0 and 1 are refused": [(_WEIGHT, "if not 0 < weight < 1:")],
    "mix: a weight that is no number is accepted": [(_WEIGHT, "if weight < 0 or weight > 1:")],
    "mix: negative tokens count from the end": [(_OUTSIDE, "if max(counts) >= len(mixed):")],
    "mix: tokens outside the vocabulary are left out": [
        (
            _OUTSIDE,
            "counts = {t: n for t, n in counts.items() if 0 <= t < len(mixed)} or {0: 1}\n    if False:",
        )
    ],
    "fit_weights: the one more token is left out": [(_SLOPE, _SLOPE.replace(" - 1 / (1 - w)", ""))],
    "fit_weights: two more tokens are not known": [(_SLOPE, _SLOPE.replace("- 1 /", "- 2 /"))],
    "fit_weights: one more token is known, and one is not": [(_SLOPE, _SLOPE + " + 1 / w")],
    "fit_weights: all kinds have one weight": [
        (_CELLS, "cells = 0 * rows.astype(np.int64)"),
        (_WEIGHTS, "return np.full((max_length + 1, N_AGREEMENTS), low[0])"),
    ],
    "fit_weights: how places agree is left out": [
        (_CELLS, "cells = rows.astype(np.int64) * N_AGREEMENTS"),
        (
            _WEIGHTS,
            "return np.repeat(low.reshape(max_length + 1, N_AGREEMENTS)[:, :1], N_AGREEMENTS, axis=1)",
        ),
    ],
    "fit_weights: length and agreement are exchanged": [
        (_WEIGHTS, "return low.reshape(max_length + 1, N_AGREEMENTS)[::-1]")
    ],
    "fit_weights: a weight is how often the memory was right": [
        (
            _WEIGHTS,
            "low = np.bincount(cells, b, n_cells) / np.maximum(1, np.bincount(cells, minlength=n_cells) + 1)\n    "
            + _WEIGHTS,
        )
    ],
    "fit_weights: the sum of probabilities is made large": [
        (_SLOPE, "slope = np.bincount(cells, b - a, n_cells)")
    ],
    "fit_weights: model and memory are exchanged": [
        (_CELLS, _CELLS + "\n    a, b = np.maximum(b, 1e-300), a")
    ],
    "fit_weights: one step of EM": [
        (
            _WEIGHTS,
            "low = np.bincount(cells, b / (a + b), n_cells) / (np.bincount(cells, minlength=n_cells) + 1)\n    "
            + _WEIGHTS,
        )
    ],
    "fit_weights: kinds that never came have one half": [
        (_WEIGHTS, "low = np.where(np.bincount(cells, minlength=n_cells) > 0, low, 0.5)\n    " + _WEIGHTS)
    ],
    "fit_weights: one digit is enough": [("for _ in range(30):", "for _ in range(4):")],
    "fit_weights: there is no row for length 0": [
        (_WEIGHTS, "return low.reshape(max_length + 1, N_AGREEMENTS)[1:]")
    ],
    "fit_weights: 4 is the longest if nothing is said": [(_FIT_DEFAULT, _FIT_DEFAULT.replace("8", "4"))],
    "fit_weights: a single probability stands for all": [
        (
            _SHAPES,
            "a, b = (np.resize(each, rows.shape) for each in (a, b))\n    if rows.shape != kinds.shape:",
        )
    ],
    "fit_weights: longer matches count as the longest": [
        (_KINDS, "rows = np.minimum(rows, max_length)\n    " + _KINDS)
    ],
    "fit_weights: negative lengths are accepted": [(_KINDS, "rows = np.maximum(rows, 0)\n    " + _KINDS)],
    "fit_weights: a fourth kind of agreement runs into the next length": [
        (_KINDS, _KINDS.replace("kinds < N_AGREEMENTS", "kinds <= N_AGREEMENTS")),
        (_CELLS, _CELLS + "\n    cells = np.minimum(cells, n_cells - 1)"),
    ],
    "fit_weights: a model's probability of 0 is accepted": [
        (_PROBABILITIES, "a = np.maximum(a, 1e-300)\n    " + _PROBABILITIES)
    ],
    "fit_weights: probabilities above 1 are accepted": [
        (_PROBABILITIES, "a, b = np.minimum(a, 1.0), np.minimum(b, 1.0)\n    " + _PROBABILITIES)
    ],
    "fit_weights: probabilities that are no numbers are accepted": [
        (_PROBABILITIES, "a, b = np.nan_to_num(a, nan=0.5), np.nan_to_num(b, nan=0.5)\n    " + _PROBABILITIES)
    ],
    "propose: one token is proposed": [
        (_WHILE, "if n_most:"),
        ("        if not counts:\n            break\n", "        if not counts:\n            return []\n"),
        (_BELIEVED + "\n            break", _BELIEVED + "\n            return []"),
    ],
    "propose: the share alone decides": [(_BELIEVED, "if share < at_least:")],
    "propose: the weight alone decides": [(_BELIEVED, _BELIEVED.replace("share * ", ""))],
    "propose: more than at_least is needed": [(_BELIEVED, _BELIEVED.replace("<", "<="))],
    "propose: the whole draft must be probable": [
        (_KNOWN_TEXT, _KNOWN_TEXT + "\n    so_far = 1.0"),
        (_BELIEVED, "so_far *= share * weights[length, agreement(counts)]\n        if so_far < at_least:"),
    ],
    "propose: the first token decides for all": [
        (_BELIEVED, _BELIEVED.replace("if share", "if len(text) == n_known and share"))
    ],
    "propose: how places agree is left out": [(_BELIEVED, _BELIEVED.replace("agreement(counts)", "2"))],
    "propose: the longest match decides, whatever its length": [
        (_BELIEVED, _BELIEVED.replace("[length,", "[-1,"))
    ],
    "propose: the largest of equally frequent tokens is taken": [(_BEST, _BEST.replace("each))", "-each))"))],
    "propose: the first of equally frequent tokens is taken": [
        (_BEST, "token = max(counts, key=counts.__getitem__)")
    ],
    "propose: the rarest is taken": [(_BEST, _BEST.replace("-counts", "counts"))],
    "propose: the smallest is taken": [(_BEST, "token = min(counts)")],
    "propose: the context alone is looked up": [(_NEXT, _NEXT.replace("text,", "text[:n_known],"))],
    "propose: longer matches than the weights have are looked for": [
        (_NEXT, _NEXT.replace("len(weights) - 1)", "len(weights))")),
        (_BELIEVED, _BELIEVED.replace("[length,", "[min(length, len(weights) - 1),")),
    ],
    "propose: the longest match is never used": [
        (_NEXT, _NEXT.replace("len(weights) - 1)", "max(1, len(weights) - 2))"))
    ],
    "propose: the token that is not believed ends the draft": [
        (_BELIEVED + "\n            break", _BELIEVED + "\n            return [*text[n_known:], token]")
    ],
    "propose: the context comes first": [(_DRAFT, "return text")],
    "propose: the context grows": [(_KNOWN_TEXT, "text, n_known = context, len(context)")],
    "propose: the draft goes into the index": [
        (_APPEND, _APPEND + "\n        if hasattr(index, 'append'):\n            index.append(token)")
    ],
    "propose: one token too many": [(_WHILE, "while len(text) <= n_known + n_most:")],
    "propose: a negative number is none": [(_N_MOST, "if False:")],
    "propose: four tenths are enough if nothing is said": [
        ("at_least: float = 0.5", "at_least: float = 0.4")
    ],
}


class _Kept:
    """Keeps the whole text, and looks at all of it when it is asked."""

    def __init__(self, max_length=8):
        if max_length <= 0:
            raise ValueError("at least 1")
        self.max_length, self.text = max_length, []

    def append(self, token):
        if token < 0:
            raise ValueError("no token")
        self.text.append(int(token))

    def followers(self, pattern):
        pattern = [int(token) for token in pattern]
        if len(pattern) > self.max_length or any(token < 0 for token in pattern):
            raise ValueError("no pattern")
        found: dict = {}
        for end in range(len(pattern), len(self.text)):
            if self.text[end - len(pattern) : end] == pattern:
                found[self.text[end]] = found.get(self.text[end], 0) + 1
        return found


def _upwards(index, context, max_length=8):
    """From one token on, as long as something follows."""
    if not max_length >= 1:
        raise ValueError("at least 1")
    best = (0, {})
    for n in range(1, min(max_length, len(context)) + 1):
        found = index.followers([int(token) for token in context[len(context) - n :]])
        if not found:
            break
        best = (n, found)
    return best


def _one_by_one(p, counts, weight):
    if math.isnan(weight) or weight < 0 or weight > 1:
        raise ValueError("weight")
    p = [float(each) for each in p]
    if any(not 0 <= token < len(p) for token in counts):
        raise ValueError("token")
    total = sum(counts.values())
    memory = [counts.get(token, 0) / total for token in range(len(p))] if counts else p
    return np.array([a + weight * (b - a) for a, b in zip(p, memory, strict=True)])


def _newton(lengths, agreements, p_model, p_memory, max_length=8):
    """Newton's steps for each kind, kept within what bisection has left over."""
    columns = [np.atleast_1d(np.asarray(each)) for each in (lengths, agreements, p_model, p_memory)]
    if any(np.ndim(each) != 1 for each in (lengths, agreements, p_model, p_memory)):
        raise ValueError("one axis")
    if max_length < 1 or len({len(each) for each in columns}) > 1:
        raise ValueError("shapes")
    rows, kinds, a, b = columns
    fine = (rows >= 0) & (rows <= max_length) & (kinds >= 0) & (kinds <= 2)
    if not (fine & (a > 0) & (a <= 1) & (b >= 0) & (b <= 1)).all():
        raise ValueError("range")
    found = np.zeros((max_length + 1, 3))
    for n, kind in np.ndindex(found.shape):
        chosen = (rows == n) & (kinds == kind)
        one, other = a[chosen].astype(float), b[chosen].astype(float)
        if math.fsum((other - one) / one) <= 1:
            continue
        low, high, w = 0.0, 1.0, 0.5
        for _ in range(200):
            terms = (other - one) / (one + w * (other - one))
            slope = terms.sum() - 1 / (1 - w)
            low, high = (w, high) if slope > 0 else (low, w)
            step = w + slope / (np.sum(terms**2) + 1 / (1 - w) ** 2)
            w = step if low < step < high else (low + high) / 2
            if high - low < 1e-9:
                break
        found[n, kind] = w
    return found


def _recursive(index, context, n_most, weights, at_least=0.5):
    if n_most < 0:
        raise ValueError("n_most")
    context = [int(token) for token in context]
    if n_most == 0:
        return []
    length, counts = _upwards(index, context, len(weights) - 1)
    if not length:
        return []
    total, most = sum(counts.values()), max(counts.values())
    kind = 0 if len(counts) > 1 else min(2, total)
    if most * float(weights[length][kind]) < at_least * total:
        return []
    token = sorted(token for token, n in counts.items() if n == most)[0]
    return [token, *_recursive(index, [*context, token], n_most - 1, weights, at_least)]


EQUIVALENTS = {
    "pairs of ranks, sorted in two passes": {"_sorted_suffixes": _ranked},
    "an interval that is narrowed": {"SuffixIndex": _Narrowed},
    "the whole text is kept, and looked at": {"GrowingIndex": _Kept},
    "from the shortest match upwards": {"longest_match": _upwards},
    "token by token": {"mix": _one_by_one},
    "Newton's steps": {"fit_weights": _newton},
    "drafts by recursion": {"propose": _recursive},
}

_HALVES = "low, high = (np.where(slope > 0, w, low), np.where(slope > 0, high, w))"
_AFTER = "after[:max(0, len(ranks) - n)] = ranks[n:] + 1"
_PAIRS = "keys = ranks * (len(ranks) + 1) + after"
_LONG_ENOUGH = "all ranks differ before n is as large as the text"

HARMLESS = {
    f"{_KINDS} => {_KINDS.replace('(rows >= 0)', '(rows >= -1)')}": "np.bincount refuses the negative cell",
    **{
        f"for _ in range(30): => for _ in range({n}):": "both are nearer than the page asks for"
        for n in (29, 31)
    },
    "while ranks.max(initial=-1) < len(ranks) - 1: => while ranks.max(initial=-0) < len(ranks) - 1:": (
        "neither -1 nor 0 is below -1"
    ),
    "return (low, bisect_right(self.places, wanted, lo=low, key=run_from))"
    " => return (low, bisect_right(self.places, wanted, key=run_from))": "the whole order is bisected again",
    f"{_HALVES} => {_HALVES.replace('(slope > 0, w', '(slope >= 0, w')}": "w is where the slope is 0",
    f"{_HALVES} => {_HALVES.replace('(slope > 0, high', '(slope >= 0, high')}": "w is where the slope is 0",
    **{f"{_AFTER} => {_AFTER.replace('max(0', f'max({n}')}": _LONG_ENOUGH for n in (1, -1)},
    f"{_AFTER} => {_AFTER.replace('+ 1', '+ 2')}": "the order of the pairs is the same",
    f"{_PAIRS} => {_PAIRS.replace('+ 1', '+ 2')}": "the order of the pairs is the same",
    f"{_PAIRS} => {_PAIRS.replace('+ 1', '+ 0')}": "while two ranks are equal, none is the largest",
    "mix: refuses arrays without entries": "a model has a token",
    **{f"{name}: float32 becomes float64": "the result is always float64" for name in ("mix", "fit_weights")},
    **{
        f"{name}: wrong for {what}": "the page has no such arrays"
        for name in ("mix", "fit_weights", "propose")
        for what in ("more than two axes", "values beyond 1e4")
    },
    "propose: wrong for float32": "weights are float64",
}
"""Mutants that are the same program in other words, and why."""


class _Scan:
    """Stands in for an index: looks at all places of its texts, and notes the longest pattern."""

    def __init__(self, *texts):
        self.texts, self.longest = texts, 0

    def followers(self, pattern):
        pattern = [int(token) for token in pattern]
        self.longest = max(self.longest, len(pattern))
        if self.longest > 99:
            raise OverflowError("it never ends")
        found: dict = {}
        for text in self.texts:
            for end in range(len(pattern), len(text)):
                if text[end - len(pattern) : end] == pattern:
                    found[text[end]] = found.get(text[end], 0) + 1
        return found


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    texts = [[5, 6, 5, 7], [5, 6], [], [2, 5, 6, 5, 8, 5, 6, 9]]
    ten = [*range(20, 30)]

    def counts(found):
        kinds = {type(each).__name__ for pair in found.items() for each in pair}
        return [{int(token): float(n) for token, n in found.items()}, sorted(kinds)]

    def index_of(given):
        def call(impl):
            index = impl.SuffixIndex(given)
            return [index.tokens.tolist(), index.places.tolist()]

        return told(call)

    def looked_up(pattern):
        return told(lambda impl: [int(each) for each in impl.SuffixIndex(texts).interval(pattern)])

    def following(pattern, given=texts):
        return told(lambda impl: counts(impl.SuffixIndex(given).followers(pattern)))

    def changed(impl):
        text = [1, 2, 3]
        index = impl.SuffixIndex([text])
        text[1] = 9
        return counts(index.followers([1]))

    def is_scanned(impl):
        """Count how many places are looked at."""
        index = impl.SuffixIndex([np.arange(3000)])
        looked = 0

        class Watched(np.ndarray):
            def __getitem__(self, at):
                nonlocal looked
                looked += 1
                return np.ndarray.__getitem__(self, at)

        index.places = index.places.view(Watched)
        low, high = index.interval([7, 8])
        return [int(low), int(high), looked > 200]

    def is_sorted_as_lists(impl):
        """Whether suffixes become lists: they are as long as the text."""
        import tracemalloc

        tokens = np.full(1500, 3)
        tracemalloc.start()
        getattr(impl, "_sorted_suffixes", np.sort)(tokens)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak > 2_000_000

    def grown(text, pattern, max_length=3):
        def call(impl):
            index = impl.GrowingIndex(max_length)
            for token in text:
                index.append(token)
            return counts(index.followers(pattern))

        return told(call)

    def grown_usual(impl):
        index = impl.GrowingIndex()
        for token in [*ten[:7], 1, *ten[:7]]:
            index.append(token)
        return counts(index.followers(ten[:7]))

    def two_at_once(impl):
        one, other = impl.GrowingIndex(2), impl.GrowingIndex(2)
        one.append(1)
        other.append(2)
        return counts(one.followers([]))

    def refused(impl):
        index = impl.GrowingIndex(2)
        try:
            index.append(-1)
        except ValueError:
            return ["ValueError", counts(index.followers([]))]
        return counts(index.followers([]))

    def handed_out(impl):
        index = impl.GrowingIndex(2)
        index.append(1)
        index.followers([])[9] = 4
        return counts(index.followers([]))

    def match(context, max_length=3, given=texts):
        def call(impl):
            index = _Scan(*given)
            options = () if max_length is None else (max_length,)
            length, found = impl.longest_match(index, context, *options)
            return [int(length), counts(found), index.longest]

        return told(call)

    def mixed(p, given, weight):
        def call(impl):
            array = np.array(p)
            got = impl.mix(array, given, weight)
            same = np.may_share_memory(got, array)
            return [got.tolist(), array.tolist(), same]

        return told(call)

    def weights(*given, options=(2,)):
        return told(lambda impl: np.round(impl.fit_weights(*given, *options), 3).tolist())

    table = np.array([[0.0, 0.0, 0.0], [0.25, 0.5, 0.625], [0.375, 0.75, 0.875]])
    tied = [[1, 6, 0, 1, 4, 0, 1, 9, 0] * 3 + [1, 2, 0, 1, 2, 0, 1, 7]]

    def draft(context, n_most=6, at_least=None, given=([5, 6, 5, 7, 8],), of=table):
        def call(impl):
            text, options = list(context), () if at_least is None else (at_least,)
            index = _Scan(*given)
            found = impl.propose(index, text, n_most, of, *options)
            return [[int(each) for each in found], text, index.longest]

        return told(call)

    def draft_kept(impl):
        index = impl.GrowingIndex(3)
        for token in [5, 6, 5, 7]:
            index.append(token)
        impl.propose(index, [5, 6], 2, np.ones((4, 3)))
        return counts(index.followers([7]))

    good = (
        [1, 2, 2, 2, 1, 2],
        [0, 2, 1, 2, 0, 1],
        [0.5, 0.1, 0.2, 0.3, 0.05, 0.1],
        [0.0, 1.0, 1.0, 1.0, 0.5, 0.0],
    )

    def spoilt(place, value):
        changed = [list(each) for each in good]
        changed[place][0] = value
        return weights(*changed)

    return {
        "an index": index_of(texts),
        "an index of equal tokens": index_of([[3] * 20, [3] * 40]),
        "an index of runs": index_of([[*range(30), 99, *range(30), 98]]),
        "an index of large tokens": index_of([[2**32 + 5, 5, 2**40]]),
        "an index of no token": index_of([[1, -1, 2]]),
        "an index of a changed text": told(changed),
        **{
            f"the interval of {each}": looked_up(each)
            for each in ([], [5], [5, 6], [6, 5, 7], [6, 6], [7, -1])
        },
        **{f"followers of {each}": following(each) for each in ([], [5], [5, 6], [7], [6, 5], [5, -1])},
        "followers of many": following([1], [[1, n % 3 + 2] for n in range(40)]),
        "places looked at": told(is_scanned),
        "memory of sorting": told(is_sorted_as_lists),
        **{
            f"grown, followers of {each}": grown([1, 2, 1, 2, 3, 1, 2, 1], each)
            for each in ([], [1], [1, 2], [2, 1, 2])
        },
        "grown, a longer pattern": grown([1, 2, 1, 2, 3, 1], [1, 2, 1, 2]),
        "grown, of length 0": grown([1, 2], [], 0),
        "grown, of length 1": grown([1, 2, 1, 1], [1], 1),
        "grown, the usual length": told(grown_usual),
        "two that grow": told(two_at_once),
        "grown by no token": told(refused),
        "what is handed out": told(handed_out),
        "a match": match([9, 6, 5]),
        "a match of three": match([5, 6, 5, 7, 5, 6, 5]),
        "a match of one place": match([2, 5, 6]),
        "a match of the whole text": match([5, 6]),
        "a match of two": match([5, 6, 5], 2),
        "no match": match([4]),
        "a match of an empty text": match([]),
        "a match of no length": match([5], 0),
        "a match of the usual length": match(
            ten, None, [[*ten, 1], [*ten[1:], 2], [*ten[2:], 3], [*ten[3:], 4]]
        ),
        **{
            f"agreement of {each}": told(lambda impl, each=each: int(impl.agreement(dict(each))))
            for each in ({}, {6: 1}, {6: 4}, {6: 3, 7: 1}, {6: 1, 7: 1}, {1: 1, 2: 1, 3: 1})
        },
        "a mixture": mixed([0.5, 0.125, 0.375], {2: 3, 0: 1}, 0.25),
        "a mixture of nothing": mixed([0.5, 0.5], {}, 0.25),
        "a mixture of weight 0": mixed([0.5, 0.5], {0: 1}, 0),
        **{f"a mixture of weight {each}": mixed([0.5, 0.5], {0: 1}, each) for each in (1.5, math.nan)},
        "a mixture with a negative token": mixed([0.5, 0.5], {0: 1, -1: 1}, 0.5),
        "a mixture with a token outside": mixed([0.5, 0.5], {0: 1, 2: 1}, 0.5),
        "weights": weights(*good),
        "weights of sure ones": weights([1] * 3, [1] * 3, [0.1] * 3, [1.0] * 3),
        "weights of rare ones": weights([1] * 9, [1] * 9, [0.1] * 9, [1.0] * 4 + [0.0] * 5),
        "weights of the usual length": weights([6], [1], [0.1], [1.0], options=()),
        "weights of several shapes": weights([1, 1], [1, 1], [0.1], [1.0, 0.5]),
        **{
            f"weights of {value} in column {place}": spoilt(place, value)
            for place, value in [(0, 3), (0, -1), (1, 3), (2, 0.0), (2, 1.5), (2, math.nan), (3, math.nan)]
        },
        "a draft": draft([9, 6]),
        "a draft of little": draft([9, 6], at_least=0.1),
        "a draft of much": draft([9, 6], at_least=0.6),
        "a draft at the bound": draft([9, 6], at_least=0.75),
        "a draft that needs a share": draft([5], at_least=0.2),
        "a draft of 0.45": draft([1], 2, None, [[1, 2]], np.full((2, 3), 0.45)),
        "a draft of equals": draft([3, 1], 1, 0.1, tied, np.ones((2, 3))),
        "a draft that ends": draft([1], given=([1, 2, 3], [9, 3, 4, 3, 5])),
        "a draft of one": draft([9, 6], 1),
        "a draft of none": draft([9, 6], 0),
        "a draft of a negative number": draft([9, 6], -1),
        "a draft after a draft": told(draft_kept),
    }
