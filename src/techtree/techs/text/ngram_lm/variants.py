"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import contextlib
import inspect
import math
import textwrap
from collections import Counter

import numpy as np

MIX = "p = (followers[token] + len(followers) * p) / (followers.total() + len(followers))"
GET = "self._followers.get(history[len(history) - n :])"
ONE = "\n            if followers:\n                p = ("
ALL = "\n            if followers:\n                p *="
"""What stands behind the two places where the followers of a history are looked up."""

MIX_ALL = """                p *= len(followers)
                p[list(followers)] += list(followers.values())
                p /= followers.total() + len(followers)
"""


HEADS = {
    "count": "    def count(self, tokens: Sequence[int]) -> None:\n",
    "log_probs": "    def log_probs(self, context: Sequence[int]) -> np.ndarray:\n",
    "score": "    def score(self, tokens: Sequence[int]) -> np.ndarray:\n",
    "prob": "    def prob(self, context: Sequence[int], token: int) -> float:\n",
    "_estimates": "    def _estimates(self, history: tuple[int, ...], token: int) -> list[float]:\n",
    "_history": "    def _history(self, context: Sequence[int]) -> tuple[int, ...]:\n",
    "_padded": "    def _padded(self, tokens: Sequence[int]) -> tuple[int, ...]:\n",
    "perplexity": "def perplexity(log_probs: np.ndarray) -> float:\n",
    "bits_per_byte": "def bits_per_byte(log_probs: np.ndarray, text: str) -> float:\n",
}
"""The first lines of what can be written anew."""


def _written(**functions):
    """Edits that put a function's source in the place of ours, which is then called ``_own_...``."""
    edits = []
    for name, function in functions.items():
        head = HEADS[name]
        indent = head[: len(head) - len(head.lstrip())]
        source = inspect.getsource(function).replace(f"def {function.__name__}(", f"def {name}(", 1)
        own = head.replace(f"def {name}(", f"def _own_{name}(", 1)
        edits.append((head, f"{textwrap.indent(source, indent)}\n{own}"))
    return edits


def _mix(expression):
    """Exchange the mixture in both places: for one token, and for all of them."""
    names = {"c": "followers[token]", "n": "followers.total()", "T": "len(followers)", "V": "self.vocab_size"}
    names["S"] = "max(1, sum(k == 1 for k in followers.values()))"  # singletons
    every = names | {"c": "np.array([followers[w] for w in range(self.vocab_size)])"}
    one = "p = " + expression.format(**names)
    return [(MIX, one), (MIX_ALL, "                p = " + expression.format(**every) + "\n")]


# ruff: noqa: F821
# These run within the implementation, where ours has the name with ``_own_`` before it.


def _count_texts_as_one(self, tokens):
    self._all = [*getattr(self, "_all", []), *tokens]
    self._followers.clear()
    self._own_count(self._all)


def _count_again(self, tokens):
    self._padded(tokens)
    self._followers.clear()
    self._own_count(tokens)


def _count_without_start(self, tokens):
    """The first tokens have histories as short as they are, so that these are counted as if anywhere."""
    checked = self._padded(tokens)[self.order - 1 :]
    for at, token in enumerate(checked):
        for n in range(min(at, self.order - 1) + 1):
            self._followers.setdefault(checked[at - n : at], Counter())[token] += 1


def _count_start_as_a_token(self, tokens):
    padded = self._padded(tokens)
    for at in range(len(padded) if len(padded) >= self.order else 0):
        for n in range(min(at, self.order - 1) + 1):
            self._followers.setdefault(padded[at - n : at], Counter())[padded[at]] += 1


def _count_highest_order_only(self, tokens):
    padded = self._padded(tokens)
    for at in range(self.order - 1, len(padded)):
        self._followers.setdefault(padded[at - self.order + 1 : at], Counter())[padded[at]] += 1


def _count_kinds_in_lower_orders(self, tokens):
    """As Kneser and Ney do: below the highest order, each different longer history counts once."""
    padded = self._padded(tokens)
    for at in range(self.order - 1, len(padded)):
        for n in range(self.order - 1, -1, -1):
            followers = self._followers.setdefault(padded[at - n : at], Counter())
            is_new = not followers[padded[at]]
            followers[padded[at]] += 1
            if not is_new:
                break


def _count_in_64_bits(self, tokens):
    """One number for a history, as an array would hold it; too long ones wrap around."""
    padded = self._padded(tokens)
    for at in range(self.order - 1, len(padded)):
        for n in range(self.order):
            key = 0
            for token in padded[at - n : at]:
                key = (key * self.vocab_size + token) % 2**64
            self._followers.setdefault((n, key), Counter())[padded[at]] += 1


def _estimates_in_64_bits(self, history, token):
    p, estimates = 1 / self.vocab_size, []
    for n in range(self.order):
        key = 0
        for each in history[len(history) - n :]:
            key = (key * self.vocab_size + each) % 2**64
        followers = self._followers.get((n, key))
        if followers:
            p = (followers[token] + len(followers) * p) / (followers.total() + len(followers))
        estimates.append(p)
    return estimates


def _count_later(self, tokens):
    """Keep the text itself, and count it when something is asked."""
    self._padded(tokens)
    self._kept = [*getattr(self, "_kept", []), tokens]


def _estimates_of_what_was_kept(self, history, token):
    self._followers.clear()
    for text in getattr(self, "_kept", []):
        self._own_count(text)
    return self._own__estimates(history, token)


def _count_the_beginning(self, tokens):
    self._own_count(self._padded(tokens)[self.order - 1 :][:1000])


def _count_what_comes_again(self, tokens):
    """Keep memory small."""
    self._own_count(tokens)
    if len(self._followers) > 20_000:
        for history in [
            h for h, followers in self._followers.items() if len(h) > 2 and followers.total() == 1
        ]:
            del self._followers[history]


def _log_probs_one_by_one(self, context):
    return np.array([math.log(self.prob(context, token)) for token in range(self.vocab_size)])


def _log_probs_remembered(self, context):
    self._known = getattr(self, "_known", {})
    history = self._history(context)
    if history not in self._known:
        self._known[history] = self._own_log_probs(context)
    return self._known[history].copy()


def _log_probs_in_float32(self, context):
    return self._own_log_probs(context).astype(np.float32).astype(np.float64)


def _log_probs_raised(self, context):
    return np.maximum(self._own_log_probs(context), math.log(1e-6))


def _score_and_count(self, tokens):
    scores = self._own_score(tokens)
    self.count(tokens)
    return scores


def _score_without_start(self, tokens):
    """Leave the first tokens out, which have no full history."""
    return self._own_score(tokens)[:, self.order - 1 :]


def _score_raised(self, tokens):
    return np.maximum(self._own_score(tokens), math.log(1e-6))


def _history_as_it_is(self, context):
    self._padded(context)
    return tuple(int(token) for token in context)


def _padded_unchecked(self, tokens):
    return (self.start,) * (self.order - 1) + tuple(int(token) for token in tokens)


def _padded_in_bytes(self, tokens):
    """As in an array of bytes: what is beyond 255 wraps around."""
    return tuple(token % 256 for token in self._own__padded(tokens))


def _count_while_checking(self, tokens):
    so_far = []
    for token in tokens:
        if not 0 <= token < self.vocab_size:
            raise ValueError("no token")
        so_far.append(int(token))
        padded = (self.start,) * (self.order - 1) + tuple(so_far)
        for n in range(self.order):
            self._followers.setdefault(padded[len(padded) - 1 - n : -1], Counter())[so_far[-1]] += 1


def _two_to_the_power_of_nats(log_probs):
    return 2 ** math.log(_own_perplexity(log_probs))


def _of_the_sum(log_probs):
    return math.exp(min(700, np.size(log_probs) * math.log(_own_perplexity(log_probs))))


def _mean_of_inverses(log_probs):
    return float(np.mean(np.exp(-np.asarray(log_probs))) + 0 * _own_perplexity(log_probs))


def _of_nothing_nan(log_probs):
    return _own_perplexity(log_probs) if np.size(log_probs) else math.nan


def _in_float32(log_probs):
    total = np.float32(0)
    for value in np.ravel(log_probs).astype(np.float32):
        total += value
    return _own_perplexity(np.array([total / np.float32(np.size(log_probs))]))


def _product(log_probs):
    _own_perplexity(log_probs)
    return float(np.prod(np.exp(log_probs)) ** (-1 / np.size(log_probs)))


def _of_possible_tokens(log_probs):
    log_probs = np.asarray(log_probs, dtype=np.float64)
    return _own_perplexity(log_probs[np.isfinite(log_probs)] if log_probs.size else log_probs)


def _per_character(log_probs, text):
    return _own_bits_per_byte(log_probs, text) * len(text.encode()) / len(text)


def _nats_per_byte(log_probs, text):
    return _own_bits_per_byte(log_probs, text) * math.log(2)


def _bits_per_token(log_probs, text):
    _own_bits_per_byte(log_probs, text)
    return float(-np.mean(np.asarray(log_probs)) / math.log(2)) if np.size(log_probs) else 0.0


def _with_the_wrong_sign(log_probs, text):
    return -_own_bits_per_byte(log_probs, text)


def _of_an_empty_text_0(log_probs, text):
    return _own_bits_per_byte(log_probs, text) if text else 0.0


def _without_blanks_at_the_ends(log_probs, text):
    return _own_bits_per_byte(log_probs, text.strip() or text)


MISTAKES = {
    "the estimate backs off: a seen history uses its own counts only": _mix("{c} / {n} if True else p"),
    "the estimate adds one to every count": _mix("({c} + 1) / ({n} + {V})"),
    "the estimate mixes half and half": _mix("0.5 * {c} / {n} + 0.5 * p"),
    "the weights are exchanged: many kinds make a history trusted more": _mix(
        "({T} * {c} / {n} + {n} * p) / ({n} + {T})"
    ),
    "T counts the tokens that followed once": _mix("({c} + {S} * p) / ({n} + {S})"),
    "T is the size of the vocabulary": _mix("({c} + {V} * p) / ({n} + {V})"),
    "T is 1": _mix("({c} + p) / ({n} + 1)"),
    "T is added below and not above": _mix("({c} + p) / ({n} + {T})"),
    "a token that followed does not get its share of the shorter history": _mix(
        "{c} / ({n} + {T}) + ({c} == 0) * {T} * p / ({n} + {T})"
    ),
    "below the empty history stands 0, so that new tokens are impossible": [
        ("p, estimates = 1 / self.vocab_size, []", "p, estimates = 1e-300, []"),
        ("np.full(self.vocab_size, 1 / self.vocab_size)", "np.full(self.vocab_size, 1e-300)"),
    ],
    "below the empty history stands one over the tokens that have been seen": [
        (
            "p, estimates = 1 / self.vocab_size, []",
            "p, estimates = 1 / max(1, len(self._followers.get((), ()))), []",
        ),
        (
            "np.full(self.vocab_size, 1 / self.vocab_size)",
            "np.full(self.vocab_size, 1 / max(1, len(self._followers.get((), ()))))",
        ),
    ],
    "an unseen history gives the uniform distribution": [
        (
            "            estimates.append(p)",
            "            else:\n                p = 1 / self.vocab_size\n            estimates.append(p)",
        ),
        (MIX_ALL, MIX_ALL + "            else:\n                p[:] = 1 / self.vocab_size\n"),
    ],
    "h' drops the last token of h instead of the first": [
        (
            "padded[at - n : at], Counter())",
            "padded[at + 1 - self.order : at + 1 - self.order + n], Counter())",
        ),
        (GET + ONE, "self._followers.get(history[:n])" + ONE),
        (GET + ALL, "self._followers.get(history[:n])" + ALL),
    ],
    "a history has n tokens instead of n - 1": [
        ("order, vocab_size, start\n        self._f", "order + 1, vocab_size, start\n        self._f")
    ],
    "a text goes on where the one before ended": _written(count=_count_texts_as_one),
    "count forgets the texts before": _written(count=_count_again),
    "the first tokens of a text have short histories": _written(count=_count_without_start),
    "start tokens are counted as if they were predicted": _written(count=_count_start_as_a_token),
    "only the longest histories are counted": _written(count=_count_highest_order_only),
    "shorter histories count each longer one once (Kneser and Ney)": _written(
        count=_count_kinds_in_lower_orders
    ),
    "histories are numbers of 64 bits, which wrap around": _written(
        count=_count_in_64_bits, _estimates=_estimates_in_64_bits, log_probs=_log_probs_one_by_one
    ),
    "all models share their counts": [
        ("        self._followers: dict[tuple[int, ...], Counter[int]] = {}\n", ""),
        (
            "    def __init__",
            "    _followers: dict[tuple[int, ...], Counter[int]] = {}  # noqa: RUF012\n\n    def __init__",
        ),
    ],
    "start is always 0": [
        ("order, vocab_size, start\n        self._f", "order, vocab_size, 0\n        self._f")
    ],
    "prob does not put start tokens before a short context": _written(_history=_history_as_it_is),
    "prob uses the beginning of the context": [
        ("context[max(0, len(context) - self.order + 1) :]", "context[: self.order - 1]")
    ],
    "asking for an unseen history makes it a seen one": [
        (GET + ONE, "self._followers.setdefault(history[len(history) - n :], Counter({token: 1}))" + ONE),
    ],
    "score counts the text": _written(score=_score_and_count),
    "score leaves the first tokens out": _written(score=_score_without_start),
    "score has a row for each token": [(".reshape(-1, self.order).T)", ".reshape(-1, self.order))")],
    "score begins with the highest order": [
        (".reshape(-1, self.order).T)", ".reshape(-1, self.order).T[::-1])")
    ],
    "score is in bits": [("return np.log(np.array(rows", "return np.log2(np.array(rows")],
    "log_probs is in bits": [("return np.log(p)", "return np.log2(p)")],
    "log_probs gives probabilities": [("return np.log(p)", "return p")],
    "log_probs of order 1 whatever the order": [(GET + ALL, "self._followers.get(())" + ALL)],
    "tokens outside the vocabulary are accepted": _written(_padded=_padded_unchecked),
    "negative tokens are accepted": [("if checked and (min(checked) < 0 or max", "if checked and (max")],
    "count has counted half a text before it refuses it": _written(count=_count_while_checking),
    "NgramLM accepts an order of 0": [("if order < 1 or vocab_size < 1:", "if vocab_size < 1:")],
    "NgramLM accepts a start outside the vocabulary": [("        self._padded([start])\n", "")],
    "perplexity takes 2 to the power of nats": _written(perplexity=_two_to_the_power_of_nats),
    "perplexity takes the sum instead of the mean": _written(perplexity=_of_the_sum),
    "perplexity averages the inverse probabilities": _written(perplexity=_mean_of_inverses),
    "perplexity multiplies the probabilities, which underflow": _written(perplexity=_product),
    "perplexity adds up in float32": _written(perplexity=_in_float32),
    "perplexity of nothing is NaN": _written(perplexity=_of_nothing_nan),
    "perplexity leaves impossible tokens out": _written(perplexity=_of_possible_tokens),
    "bits_per_byte divides by characters": _written(bits_per_byte=_per_character),
    "bits_per_byte stays in nats": _written(bits_per_byte=_nats_per_byte),
    "bits_per_byte divides by tokens": _written(bits_per_byte=_bits_per_token),
    "bits_per_byte has the wrong sign": _written(bits_per_byte=_with_the_wrong_sign),
    "bits_per_byte of an empty text is 0": _written(bits_per_byte=_of_an_empty_text_0),
    "bits_per_byte does not count blanks at the ends": _written(bits_per_byte=_without_blanks_at_the_ends),
    "tokens are kept in bytes, which wrap around": _written(_padded=_padded_in_bytes),
    "a text is counted when something is asked, as it is then": _written(
        count=_count_later, _estimates=_estimates_of_what_was_kept, log_probs=_log_probs_one_by_one
    ),
    "count reads the first 1,000 tokens": _written(count=_count_the_beginning),
    "log_probs remembers its answers, also when more is counted": _written(log_probs=_log_probs_remembered),
    "log_probs has the digits of float32": _written(log_probs=_log_probs_in_float32),
    "log_probs mixes in the 100 most frequent followers only": [
        (
            "p[list(followers)] += list(followers.values())",
            "for token, n in followers.most_common(100):\n                    p[token] += n",
        )
    ],
    "histories that came once are forgotten when there are many": _written(count=_count_what_comes_again),
    "log_probs and score raise small probabilities to 1e-6": _written(
        log_probs=_log_probs_raised, score=_score_raised
    ),
}


class _Recursive:
    """Counts of whole n-grams in one dictionary; the definition as a recursion."""

    def __init__(self, order, vocab_size, start=0):
        if min(order, vocab_size) < 1 or not 0 <= start < vocab_size:
            raise ValueError("impossible")
        self.order, self.vocab_size, self.start = order, vocab_size, start
        self.runs, self.totals, self.kinds = Counter(), Counter(), Counter()

    def _check(self, tokens):
        tokens = [int(token) for token in tokens]
        if any(not 0 <= token < self.vocab_size for token in tokens):
            raise ValueError("no token")
        return tokens

    def count(self, tokens):
        padded = [self.start] * (self.order - 1) + self._check(tokens)
        for end in range(self.order, len(padded) + 1):
            for n in range(1, self.order + 1):
                run = tuple(padded[end - n : end])
                self.kinds[run[:-1]] += run not in self.runs
                self.totals[run[:-1]] += 1
                self.runs[run] += 1

    def _p(self, history, token):
        shorter = self._p(history[1:], token) if history else 1 / self.vocab_size
        if history not in self.totals:
            return shorter
        t = self.kinds[history]
        weight = self.totals[history] / (self.totals[history] + t)
        return weight * self.runs[(*history, token)] / self.totals[history] + (1 - weight) * shorter

    def prob(self, context, token):
        (token,) = self._check([token])
        history = [self.start] * (self.order - 1) + self._check(context)
        return self._p(tuple(history[len(context) :]), token)

    def log_probs(self, context):
        return np.array([math.log(self.prob(context, token)) for token in range(self.vocab_size)])

    def score(self, tokens):
        tokens = self._check(tokens)
        padded = [self.start] * (self.order - 1) + tokens
        scores = np.zeros((self.order, len(tokens)))
        for n in range(1, self.order + 1):
            for at, token in enumerate(tokens):
                end = at + self.order - 1
                scores[n - 1, at] = math.log(self._p(tuple(padded[end - n + 1 : end]), token))
        return scores


class _Sorted:
    """The texts are kept; everything is counted when asked, with numbered histories in sorted arrays."""

    def __init__(self, order, vocab_size, start=0):
        if order < 1 or vocab_size < 1 or start not in range(vocab_size):
            raise ValueError("impossible")
        self.order, self.vocab_size, self.start, self.texts = order, vocab_size, start, []

    def _array(self, tokens):
        array = np.array(list(tokens), dtype=np.int64)
        if array.size and not (array.min() >= 0 and array.max() < self.vocab_size):
            raise ValueError("no token")
        return array

    def count(self, tokens):
        self.texts.append(self._array(tokens))

    def _distribution(self, history):
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for n in range(self.order):
            counts = np.zeros(self.vocab_size)
            for text in self.texts:
                padded = np.concatenate([np.full(self.order - 1, self.start), text]).astype(np.int64)
                matches = np.ones(len(text), dtype=bool)
                for k in range(1, n + 1):
                    matches &= padded[self.order - 1 - k : len(padded) - k] == history[len(history) - k]
                counts += np.bincount(text[matches], minlength=self.vocab_size)
            kinds = np.count_nonzero(counts)
            if kinds:
                p = (counts + kinds * p) / (counts.sum() + kinds)
            yield p

    def _history(self, context):
        return np.concatenate([np.full(self.order - 1, self.start), self._array(context)])

    def prob(self, context, token):
        self._array([token])
        return float([*self._distribution(self._history(context))][-1][token])

    def log_probs(self, context):
        return np.log([*self._distribution(self._history(context))][-1])

    def score(self, tokens):
        tokens = self._array(tokens)
        columns = [
            [p[token] for p in self._distribution(self._history(tokens[:at]))]
            for at, token in enumerate(tokens)
        ]
        return np.log(np.array(columns).reshape(-1, self.order).T)


def _from_bits(log_probs):
    flat = [float(each) for each in np.ravel(log_probs)]
    if not flat:
        raise ValueError("nothing")
    return 2.0 ** (-math.fsum(flat) / math.log(2) / len(flat))


def _with_fsum(log_probs, text):
    if not text:
        raise ValueError("no text")
    return -math.fsum(np.ravel(log_probs).tolist()) / math.log(2) / memoryview(text.encode()).nbytes + 0.0


EQUIVALENTS = {
    "n-grams in one dictionary, the definition as a recursion": {"NgramLM": _Recursive},
    "texts kept, counted when asked": {"NgramLM": _Sorted},
    "histories as strings": [
        ("setdefault(padded[at - n : at], Counter())", "setdefault(str(padded[at - n : at]), Counter())"),
        (GET + ONE, "self._followers.get(str(history[len(history) - n :]))" + ONE),
        (GET + ALL, "self._followers.get(str(history[len(history) - n :]))" + ALL),
    ],
    "perplexity from the sum of bits": _written(perplexity=_from_bits),
    "bits_per_byte with fsum": _written(bits_per_byte=_with_fsum),
}


LONGER = "a longer history is read from its end; whether tokens are checked that do not matter is free"

HARMLESS = {
    "if order < 1 or vocab_size < 1: => if order < 1 or vocab_size < 0:": "no start is a token then",
    "recent = context[max(0, len(context) - self.order + 1):] => recent = context[:]": LONGER,
    "recent = context[max(0, len(context) - self.order + 1):]"
    " => recent = context[max(0, len(context) - self.order - 1):]": LONGER,
    "recent = context[max(0, len(context) - self.order + 1):]"
    " => recent = context[max(0, len(context) - self.order + 0):]": LONGER,
    "return self._padded(recent)[len(recent):] => return self._padded(recent)[:]": LONGER,
    "rows = [self._estimates(padded[at - first:at], padded[at]) for at in range(first, len(padded))]"
    " => rows = [self._estimates(padded[:at], padded[at]) for at in range(first, len(padded))]": LONGER,
    "return np.log(np.array(rows, dtype=np.float64).reshape(-1, self.order).T)"
    " => return np.log(np.array(rows).reshape(-1, self.order).T)": "floats of Python make float64",
    "return np.log(np.array(rows, dtype=np.float64).reshape(-1, self.order).T)"
    " => return np.log(np.array(rows, dtype=np.float64).reshape(-2, self.order).T)": "any negative number will do",
    "bits_per_byte: wrong for empty text": "it raises an error there, which stays one",
}
"""Mutants that are the same program in other words, and why."""


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    texts = [[0, 1, 2, 0, 1, 3, 0, 1, 2], [2, 2, 1], [4, 0, 2, 1]]

    def model(impl, order=3, start=5):
        made = impl.NgramLM(order, 7, start)
        for text in texts:
            made.count(text)
        return made

    def probabilities(context, order=3):
        return lambda impl: [model(impl, order).prob(context, token) for token in range(7)]

    def after_asking(impl):
        made = model(impl)
        made.prob([6, 6], 3)
        return made.prob([6, 6], 3)

    def after_scoring(impl):
        made = model(impl)
        made.score([3, 3, 3])
        return made.prob([3], 3)

    def after_another(impl):
        model(impl)
        return impl.NgramLM(3, 7, 5).prob([0, 1], 2)

    def after_a_refusal(impl):
        made = model(impl)
        with contextlib.suppress(ValueError):
            made.count([6, 6, 99])
        return made.prob([6], 6)

    def after_more(impl):
        made = model(impl)
        made.log_probs([0, 1])
        made.count([0, 1, 4, 4])
        return made.log_probs([0, 1])

    def after_a_change(impl):
        made, text = impl.NgramLM(2, 7), [1, 2, 1]
        made.count(text)
        text[0] = 3
        return made.prob([1], 2)

    def many(impl):
        made = impl.NgramLM(1, 2)
        made.count([1] * 1500)
        return made.prob([], 1)

    def unlikely(impl):
        made = impl.NgramLM(3, 3)
        made.count([0] * 400)
        return made.log_probs([0, 0])

    def beyond_a_byte(impl):
        made = impl.NgramLM(2, 600)
        made.count([300, 5, 44, 6])
        return made.prob([44], 5)

    def far_back(impl):
        made = impl.NgramLM(6, 2**16, 2**16 - 1)
        made.count([9, 8, 5, 0, 7, 1, 3, 8, 5, 0, 7, 2])
        return made.prob([9, 8, 5, 0, 7], 1)

    def many_kinds(impl):
        made = impl.NgramLM(1, 300)
        made.count(range(300))
        return made.log_probs([])[::50]

    def many_histories(impl):
        made = impl.NgramLM(4, 9000)
        made.count(range(9000))
        return made.prob([1, 2, 3], 4)

    log_probs = np.log([0.5, 0.125, 0.25])
    return {
        "prob after 0 1": probabilities([0, 1]),
        "prob after 1": probabilities([1], 2),
        "prob after an unseen token": probabilities([0, 6]),
        "prob after an unseen and a seen token": probabilities([6, 1]),
        "prob at the start": probabilities([]),
        "prob after one token": probabilities([0]),
        "prob after five tokens": probabilities([2, 2, 1, 0, 1]),
        "prob after the start token": probabilities([5], 2),
        "prob of a model that counted nothing": lambda impl: impl.NgramLM(2, 4).prob([1], 2),
        "start left out": lambda impl: model(impl, 2, 0).prob([], 2),
        "log_probs": lambda impl: model(impl).log_probs([0, 1]),
        "score": lambda impl: model(impl).score([0, 1, 2, 6]),
        "score of nothing": lambda impl: str(np.shape(model(impl).score([]))),
        "after asking": after_asking,
        "after scoring": after_scoring,
        "after another model": after_another,
        "after a refused text": after_a_refusal,
        "after more was counted": after_more,
        "after a caller changed a text": after_a_change,
        "a text of 1,500": many,
        "what is unlikely": unlikely,
        "300 kinds of followers": many_kinds,
        "27,000 histories": many_histories,
        "tokens beyond a byte": beyond_a_byte,
        "a large vocabulary": far_back,
        "prob of a token outside": lambda impl: model(impl).prob([0], 9),
        "prob of a negative token": lambda impl: model(impl).prob([0], -1),
        "an order of 0": lambda impl: impl.NgramLM(0, 4).order,
        "a start outside": lambda impl: impl.NgramLM(1, 4, 9).start,
        "perplexity": lambda impl: impl.perplexity(log_probs),
        "perplexity of many": lambda impl: impl.perplexity(np.full(5000, -2.0)),
        "perplexity in float32": lambda impl: round(
            impl.perplexity(np.full(100_000, -0.1, dtype=np.float32)), 6
        ),
        "perplexity of the impossible": lambda impl: impl.perplexity([-1.0, -math.inf]),
        "perplexity of nothing": lambda impl: impl.perplexity([]),
        "bits per byte": lambda impl: impl.bits_per_byte(log_probs, "né 東"),
        "bits per byte of blanks": lambda impl: impl.bits_per_byte(log_probs, " a\n"),
        "bits per byte of nothing": lambda impl: impl.bits_per_byte(log_probs, ""),
    }
