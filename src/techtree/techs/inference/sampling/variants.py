"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.tree.answers import told

_ORDER = 'order = np.argsort(-logits, kind="stable")'
_COLD = "if temperature == 0:\n        order = order[:1]"
_TOP_K = "if top_k:\n        order = order[:top_k]"
_P = "p = softmax(logits[order])"
_MIN_P = "stays = p >= min_p * p[0]"
_NOT_ALL = "if top_p < 1:"
_TOP_P = "stays &= np.cumsum(p) - p < top_p"
_FIRST = "    stays[0] = True\n"
_RESULT = "result = np.zeros(logits.shape)"
_SHARPEN = "result[order] = softmax((logits[order] - logits[order[0]]) / (temperature or 1.0))"
_RANGES = "Sampling(temperature, top_k, top_p, min_p)  # refuses what is out of range"
_RANGES_OF_PENALTIES = "    Sampling(repetition=repetition, presence=presence, frequency=frequency)\n"
_FLOAT = "logits = np.asarray(logits, np.float64)"
_SOUND = "if not np.isfinite(logits.max()):  # NaN if any is"
_IDS = 'if text.size and (text.dtype.kind not in "iu" or text.min() < 0 or text.max() >= len(logits)):'
_COUNT = "np.add.at(count, text.astype(np.intp), 1)"
_SCALED = "scaled = np.where(logits > 0, logits / repetition, logits * repetition)"
_LOWERED = "return np.where(count > 0, scaled - presence - count * frequency, logits)"
_PENALTIES = "lowered = penalize(logits, ids, settings.repetition, settings.presence, settings.frequency)"
_CHOICE = (
    "return probabilities(lowered, settings.temperature, settings.top_k, settings.top_p, settings.min_p)"
)
_GIVEN = "p = np.asarray(probabilities, np.float64)"
_SANE = "if p.ndim != 1 or not np.isfinite(p).all() or (p < 0).any() or not p.any():"
_ENDS = "ends = np.cumsum(p)"
_DRAWN = 'return int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))'
_STRINGS = "self._strings = sorted(strings, key=len, reverse=True)"
_NONE_EMPTY = 'if isinstance(strings, str) or "" in self._strings:'
_STOPPED = 'if self.is_stopped:\n            return ""'
_HOLD = "self._held += character"
_END = "if self._held.endswith(each):"
_SHOWN = "shown += self._held[: -len(each)]"
_FORGET = 'self._held, self.is_stopped = "", True'
_START = "start = self._first_that_may_stop()"
_FINISH = 'held, self._held = self._held, ""'
_MAY = "if any(each.startswith(self._held[start:]) for each in self._strings):"
_EMPTY = "if not len(ids) or n_new < 0:"
_TEXT = "text = [int(each) for each in ids]"
_TIMES = "for _ in range(n_new):"
_ASK = (
    "with no_grad():  # left before the token is given: the caller may be training\n"
    "            logits = model(np.array(text)).data[-1]"
)
_DRAW = "token = draw(distribution(logits, text, settings), rng)"
_STOP = "if token in stop:\n            return"
_YIELD = "text.append(token)\n        yield token"
_TOP_K_RANGE = "if type(self.top_k) is not int or self.top_k < 0:"
_TEMPERATURE_RANGE = "if not 0 <= self.temperature < math.inf:"
_REPETITION_RANGE = "if not 0 < self.repetition < math.inf:"
_SHARES = 'for name in ("top_p", "min_p"):'
_FINITE = 'for name in ("presence", "frequency"):'


MISTAKES = {
    "probabilities: the temperature comes first, and what may be drawn depends on it": [
        (_P, "p = softmax((logits[order] - logits[order[0]]) / (temperature or 1.0))")
    ],
    "probabilities: the logits are multiplied by the temperature": [
        (_SHARPEN, _SHARPEN.replace("/ (temperature or 1.0)", "* temperature"))
    ],
    "probabilities: the temperature is ignored": [
        (_SHARPEN, _SHARPEN.replace(" / (temperature or 1.0)", ""))
    ],
    "probabilities: probabilities are divided by the temperature, not logits": [
        (_SHARPEN, "result[order] = softmax(p[stays] / (temperature or 1.0))")
    ],
    "probabilities: a tiny temperature overflows": [
        (_SHARPEN, "result[order] = softmax(logits[order] / (temperature or 1.0))")
    ],
    "probabilities: the temperature is at least 0.01": [
        (_SHARPEN, _SHARPEN.replace("temperature or 1.0", "max(temperature, 0.01)"))
    ],
    "probabilities: temperature 0 shares between all of the largest logit": [
        (_COLD, "if temperature == 0:\n        order = order[logits[order] == logits[order[0]]]")
    ],
    "probabilities: temperature 0 is temperature 1": [(_COLD, "pass")],
    "probabilities: below 0.1 all temperatures are greedy": [(_COLD, _COLD.replace("== 0", "< 0.1"))],
    "probabilities: of equal logits the larger id comes first": [
        (_ORDER, 'order = np.argsort(logits, kind="stable")[::-1]')
    ],
    "probabilities: the least likely tokens come first": [(_ORDER, _ORDER.replace("-logits", "logits"))],
    "probabilities: top_k is ignored": [(_TOP_K, "pass")],
    "probabilities: top_k keeps one more": [(_TOP_K, _TOP_K.replace("[:top_k]", "[: top_k + 1]"))],
    "probabilities: top_k keeps all that are as likely as the last one": [
        (
            _TOP_K,
            "if top_k:\n        order = order[logits[order] >= logits[order[min(top_k, len(order)) - 1]]]",
        )
    ],
    "probabilities: after top_k, top_p still counts by all tokens": [
        (_P, "p = softmax(logits)[order]"),
    ],
    "probabilities: top_p is ignored": [(_NOT_ALL, "if False:")],
    "probabilities: top_p leaves out the token that reaches it": [(_TOP_P, "stays &= np.cumsum(p) <= top_p")],
    "probabilities: top_p keeps one more": [(_TOP_P, "stays[1:] &= (np.cumsum(p) - p < top_p)[:-1]")],
    "probabilities: top_p counts from the least likely token": [
        (_TOP_P, "stays &= np.cumsum(p[::-1])[::-1] > top_p")
    ],
    "probabilities: top_p of 1 drops what rounding hides": [(_NOT_ALL, "if True:")],
    "probabilities: top_p is a share of the likeliest one's probability": [
        (_TOP_P, "stays &= np.cumsum(p) - p < top_p * p[0]")
    ],
    "probabilities: top_p counts what min_p has left": [
        (_TOP_P, "stays &= np.cumsum(p * stays / p[stays].sum()) - p * stays / p[stays].sum() < top_p")
    ],
    "probabilities: with a small top_p nothing is left": [(_FIRST, "")],
    "probabilities: min_p is ignored": [(_MIN_P, "stays = p >= 0")],
    "probabilities: min_p is a probability, not a fraction of the first one's": [
        (_MIN_P, "stays = p >= min_p")
    ],
    "probabilities: min_p of 0 drops what underflows": [(_MIN_P, "stays = p > min_p * p[0]")],
    "probabilities: what is left is not made to sum to 1": [
        (_SHARPEN, _SHARPEN + "\n        result *= p[stays].sum()")
    ],
    "probabilities: they come in the order of likelihood": [
        (_SHARPEN, _SHARPEN.replace("result[order]", "result[: len(order)]"))
    ],
    "probabilities: they are of the dtype of the logits": [
        ("    return result\n", "    return result.astype(_dtype)\n"),
        (_RANGES, "_dtype = np.asarray(logits).dtype\n    _dtype = _dtype if _dtype.kind == 'f' else float"),
    ],
    "probabilities: they are computed in float32": [
        (_RESULT, "logits = logits.astype(np.float32)\n    " + _RESULT)
    ],
    "probabilities: a logit of -inf is an error": [
        (_SOUND, "if not np.isfinite(logits).all():"),
    ],
    "probabilities: a NaN passes": [(_SOUND, "if np.nanmax(logits) in (math.inf, -math.inf):")],
    "probabilities: numbers out of range pass": [(_RANGES, "")],
    "penalize: logits below 0 are divided, too": [(_SCALED, "scaled = logits / repetition")],
    "penalize: the repetition counts each time": [
        (_SCALED, "r = repetition**count\n    scaled = np.where(logits > 0, logits / r, logits * r)")
    ],
    "penalize: the repetition is subtracted": [(_SCALED, "scaled = logits - repetition + 1")],
    "penalize: the repetition makes tokens likelier": [
        (_SCALED, "scaled = np.where(logits > 0, logits * repetition, logits / repetition)")
    ],
    "penalize: presence and frequency come before the repetition": [
        (
            _SCALED,
            "lowered = logits - presence - count * frequency\n    " + _SCALED.replace("logits", "lowered"),
        ),
        (_LOWERED, "return np.where(count > 0, scaled, logits)"),
    ],
    "penalize: the presence counts each time": [
        (_LOWERED, _LOWERED.replace("- presence -", "- count * presence -"))
    ],
    "penalize: the frequency counts once": [(_LOWERED, _LOWERED.replace("count * frequency", "frequency"))],
    "penalize: the frequency is a share of the text": [
        (_LOWERED, _LOWERED.replace("count * frequency", "count / max(text.size, 1) * frequency"))
    ],
    "penalize: the first time does not count for the frequency": [
        (_LOWERED, _LOWERED.replace("count * frequency", "(count - 1) * frequency"))
    ],
    "penalize: every token is lowered": [(_LOWERED, _LOWERED.replace("count > 0", "count >= 0"))],
    "penalize: only tokens that stand there twice are lowered": [
        (_LOWERED, _LOWERED.replace("count > 0", "count > 1"))
    ],
    "penalize: presence and frequency raise": [(_LOWERED, _LOWERED.replace("- presence -", "+ presence +"))],
    "penalize: it writes into the logits": [
        (
            _LOWERED,
            "logits[:] = np.where(count > 0, scaled - presence - count * frequency, logits)\n    return logits",
        )
    ],
    "penalize: an id below 0 counts from the end": [
        (_IDS, _IDS.replace("text.min() < 0 or ", "")),
    ],
    "penalize: an id that is too large is ignored": [
        (_IDS, _IDS.replace(" or text.max() >= len(logits)", "")),
        (_COUNT, "text = text[text < len(logits)]\n    " + _COUNT),
    ],
    "penalize: ids that are no whole numbers are cut": [
        (
            _IDS,
            _IDS.replace('text.dtype.kind not in "iu" or ', "text.min() <= -1 or ").replace(
                "text.min() < 0 or ", ""
            ),
        )
    ],
    "penalize: numbers out of range pass": [(_RANGES_OF_PENALTIES, "")],
    "distribution: the penalties are left out": [(_PENALTIES, "lowered = logits")],
    "distribution: only the last token is penalized": [(_PENALTIES, _PENALTIES.replace("ids,", "ids[-1:],"))],
    "distribution: each token of the text counts once": [
        (_PENALTIES, _PENALTIES.replace("ids,", "sorted({int(each) for each in ids}),"))
    ],
    "distribution: presence and frequency are swapped": [
        (
            _PENALTIES,
            _PENALTIES.replace(
                "settings.presence, settings.frequency", "settings.frequency, settings.presence"
            ),
        )
    ],
    "distribution: top_p and min_p are swapped": [
        (_CHOICE, _CHOICE.replace("settings.top_p, settings.min_p", "settings.min_p, settings.top_p"))
    ],
    "distribution: the penalties come after the choice": [
        (
            _CHOICE,
            "chosen = probabilities(logits, 1.0, settings.top_k, settings.top_p, settings.min_p) > 0\n"
            "    return probabilities(np.where(chosen, lowered, -np.inf), settings.temperature)",
        )
    ],
    "draw: what ends at u exactly is drawn": [(_DRAWN, _DRAWN.replace("right", "left"))],
    "draw: the sum is taken for 1": [
        (_DRAWN, 'return min(int(np.searchsorted(ends, rng.random(), side="right")), len(p) - 1)')
    ],
    "draw: two numbers are used": [(_ENDS, _ENDS + "\n    rng.random()")],
    "draw: no number is used where one token is sure": [
        (_ENDS, _ENDS + "\n    if p.max() == ends[-1]:\n        return int(p.argmax())")
    ],
    "draw: NumPy's choice does it": [
        (_DRAWN, "return int(rng.choice(len(p), p=p / p.sum()))"),
    ],
    "draw: u counts from the end": [(_DRAWN, _DRAWN.replace("rng.random()", "(1 - rng.random())"))],
    "draw: the likeliest tokens come first": [
        (_ENDS, 'order = np.argsort(-p, kind="stable")\n    ends = np.cumsum(p[order])'),
        (_DRAWN, 'return int(order[np.searchsorted(ends, rng.random() * ends[-1], side="right")])'),
    ],
    "draw: the likeliest token is taken": [(_DRAWN, "rng.random()\n    return int(p.argmax())")],
    "draw: sums are float32": [
        (_ENDS, "ends = np.cumsum(p / p.max(), dtype=np.float32)"),
    ],
    "draw: it returns a NumPy number": [(_DRAWN, _DRAWN.replace("return int(", "return np.int64("))],
    "draw: a negative probability is 0": [
        (_SANE, _SANE.replace(" or (p < 0).any()", "").replace("not p.any()", "not (p > 0).any()")),
        (_ENDS, "p = np.maximum(p, 0)\n    " + _ENDS),
    ],
    "draw: a token of probability 0 may come": [
        (
            _DRAWN,
            'return int(np.searchsorted(ends, rng.random() * ends[-1] * (1 + 1e-9), side="left") % len(p))',
        )
    ],
    "draw: the number is drawn before the probabilities are looked at": [
        (_GIVEN, "u = rng.random()\n    " + _GIVEN),
        (_DRAWN, _DRAWN.replace("rng.random()", "u")),
    ],
    "StopStrings: nothing is held back": [
        (_START, "start = len(self._held)"),
        (_HOLD, "self._held = (self._held + character)[-1:]"),
    ],
    "StopStrings: as much is held back as the longest string is long": [
        (_START, "start = max(0, len(self._held) - max(map(len, self._strings), default=1) + 1)")
    ],
    "StopStrings: when a beginning fails, all that was held back is shown": [
        (
            _START,
            "start = 0 if any(each.startswith(self._held) for each in self._strings) else len(self._held)",
        )
    ],
    "StopStrings: the stop string is shown": [(_SHOWN, "shown += self._held")],
    "StopStrings: a string is found within one piece only": [
        ('        shown = ""\n', '        shown, self._held = self._held, ""\n')
    ],
    "StopStrings: only the end of a piece is looked at": [
        ("for character in text:", "for character in [text] * bool(text):")
    ],
    "StopStrings: the shortest string wins": [(_STRINGS, _STRINGS.replace(", reverse=True", ""))],
    "StopStrings: the first of the list wins": [(_STRINGS, "self._strings = list(strings)")],
    "StopStrings: one string is enough": [(_STRINGS, _STRINGS + "[:1]")],
    "StopStrings: after a stop the text goes on": [(_STOPPED, "pass")],
    "StopStrings: what follows the stop in the same piece is shown": [
        (
            'self._held, self.is_stopped = "", True\n                    return shown',
            'self._held, self.is_stopped = "", True\n'
            "                    return shown + text[len(shown) + len(each) :]",
        )
    ],
    "StopStrings: is_stopped stays false": [(_FORGET, 'self._held, self.is_stopped = "", False')],
    "StopStrings: a letter in the wrong case stops, too": [
        (_END, "if self._held.lower().endswith(each.lower()):")
    ],
    "StopStrings: finish keeps what was held back": [(_FINISH, 'held = ""')],
    "StopStrings: finish is a stop": [(_FINISH, _FINISH + "\n        self.is_stopped = True")],
    "StopStrings: finish cuts blanks off": [(_FINISH, _FINISH + "\n        held = held.strip()")],
    "StopStrings: a single string is a list of letters": [(_NONE_EMPTY, 'if "" in self._strings:')],
    "StopStrings: an empty string never stops": [
        (
            _NONE_EMPTY,
            "self._strings = [each for each in self._strings if each]\n        if isinstance(strings, str):",
        )
    ],
    "StopStrings: the list is looked at again": [
        (
            _STRINGS,
            "self._strings = strings if isinstance(strings, list) else list(strings)\n        "
            "self._strings.sort(key=len, reverse=True) if isinstance(self._strings, list) else None",
        )
    ],
    "generate: the prompt is not penalized": [(_DRAW, _DRAW.replace("text,", "text[len(ids) :],"))],
    "generate: only the prompt is penalized": [(_DRAW, _DRAW.replace("text,", "text[: len(ids)],"))],
    "generate: penalties are left out": [(_DRAW, _DRAW.replace("text,", "[],"))],
    "generate: it does not stop": [(_STOP, "pass")],
    "generate: the token that stops is given": [
        (_STOP, "if token in stop:\n            yield token\n            return")
    ],
    "generate: a token that stops is skipped": [(_STOP, _STOP.replace("return", "continue"))],
    "generate: for the token that stops no number is used": [
        (
            _DRAW,
            "if sum(distribution(logits, text, settings)[each] for each in stop) > 0.999:\n            return\n        "
            + _DRAW,
        )
    ],
    "generate: with temperature 0 no number is used": [
        (
            _DRAW,
            "p = distribution(logits, text, settings)\n"
            "        token = draw(p, rng) if settings.temperature else int(p.argmax())",
        )
    ],
    "generate: gradients are recorded": [
        (_ASK, "logits = model(np.array(text)).data[-1]"),
    ],
    "generate: gradients stay off while the caller has a token": [
        (_TIMES, "with no_grad():\n      " + _TIMES),
        (_ASK, "if True:\n            logits = model(np.array(text)).data[-1]"),
    ],
    "generate: the model sees the last token alone": [
        (_ASK, _ASK.replace("np.array(text)", "np.array(text[-1:])"))
    ],
    "generate: the logits of the first place are taken": [(_ASK, _ASK.replace(".data[-1]", ".data[0]"))],
    "generate: one token more": [(_TIMES, "for _ in range(n_new + 1):")],
    "generate: the prompt comes first": [(_TIMES, "yield from text\n    " + _TIMES)],
    "generate: it writes into the caller's list": [
        (_TEXT, "text = ids if isinstance(ids, list) else [int(each) for each in ids]")
    ],
    "generate: all tokens are made at the first": [
        (_TIMES, "made = []\n    " + _TIMES),
        (_STOP, "if token in stop:\n            break"),
        (_YIELD, "text.append(token)\n        made.append(token)\n    yield from made"),
    ],
    "generate: all tokens are made when it is called": [
        ("def generate(\n", "@lambda f: lambda *a, **k: iter(list(f(*a, **k)))\ndef generate(\n")
    ],
    "generate: an empty text has no tokens, and is no error": [
        (_EMPTY, "if not len(ids):\n        return\n    if n_new < 0:")
    ],
    "generate: a negative number of tokens is none": [(_EMPTY, "if not len(ids):")],
    "Sampling: greedy by default": [("temperature: float = 0.8", "temperature: float = 0.0")],
    "Sampling: top_k is 40 by default": [
        ("top_k: int = 0\n    top_p: float = 0.95", "top_k: int = 40\n    top_p: float = 0.95")
    ],
    "Sampling: top_p is 1 by default": [("top_p: float = 0.95", "top_p: float = 1.0")],
    "Sampling: min_p is 0 by default": [("min_p: float = 0.05", "min_p: float = 0.0")],
    "Sampling: repetitions are penalized by default": [
        (
            "repetition: float = 1.0\n    presence: float = 0.0\n    frequency: float = 0.0\n\n    def",
            "repetition: float = 1.1\n    presence: float = 0.0\n    frequency: float = 0.0\n\n    def",
        )
    ],
    "Sampling: it can be changed": [("@dataclass(frozen=True)", "@dataclass(unsafe_hash=True)")],
    "Sampling: top_k may be a float": [(_TOP_K_RANGE, "if self.top_k < 0:")],
    "Sampling: top_k may be negative": [(_TOP_K_RANGE, "if type(self.top_k) is not int:")],
    "Sampling: the temperature may be negative": [
        (_TEMPERATURE_RANGE, "if not -math.inf < self.temperature < math.inf:")
    ],
    "Sampling: the temperature may be infinite": [(_TEMPERATURE_RANGE, "if not 0 <= self.temperature:")],
    "Sampling: a temperature of 0 is refused": [
        (_TEMPERATURE_RANGE, "if not 0 < self.temperature < math.inf:")
    ],
    "Sampling: a repetition of 0 passes": [(_REPETITION_RANGE, "if not 0 <= self.repetition < math.inf:")],
    "Sampling: a repetition below 1 is refused": [
        (_REPETITION_RANGE, "if not 1 <= self.repetition < math.inf:")
    ],
    "Sampling: min_p may be anything": [(_SHARES, 'for name in ("top_p",):')],
    "Sampling: top_p may be anything": [(_SHARES, 'for name in ("min_p",):')],
    "Sampling: the presence may be anything": [(_FINITE, 'for name in ("frequency",):')],
    "Sampling: the frequency may be anything": [(_FINITE, 'for name in ("presence",):')],
    "Sampling: with temperature 0 the other numbers may be anything": [
        (
            "    def __post_init__(self):\n",
            "    def __post_init__(self):\n        if self.temperature == 0:\n            return\n",
        )
    ],
}


def _checked(logits):
    logits = np.array(logits, float)
    if logits.ndim != 1 or len(logits) == 0 or np.isnan(logits).any() or (logits == np.inf).any():
        raise ValueError("logits must have one axis, and be numbers below infinity")
    if (logits == -np.inf).all():
        raise ValueError("a token must be possible")
    return logits


def _by_masks(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Set what may not be drawn to -inf, step by step, and leave the order as it is."""
    logits = _checked(logits)
    if not (math.isfinite(temperature) and temperature >= 0) or type(top_k) is not int or top_k < 0:
        raise ValueError("temperature and top_k must be at least 0")
    if not (0 <= top_p <= 1 and 0 <= min_p <= 1):
        raise ValueError("top_p and min_p are shares")
    best = int(np.flatnonzero(logits == logits.max())[0])
    if temperature == 0:
        return np.eye(len(logits))[best]
    ranks = np.empty(len(logits), int)
    ranks[np.lexsort((np.arange(len(logits)), -logits))] = np.arange(len(logits))
    if top_k:
        logits[ranks >= top_k] = -np.inf
    chances = np.exp(logits - logits[best])
    gone = np.zeros(len(logits), bool)
    if top_p < 1:
        ordered = np.zeros(len(logits))
        ordered[ranks] = chances
        before = np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
        gone |= (before >= top_p * chances.sum())[ranks]
    if min_p > 0:
        gone |= chances < min_p
    gone[best] = False
    logits[gone] = -np.inf
    with np.errstate(over="ignore"):
        sharp = np.exp((logits - logits[best]) / temperature)
    return sharp / sharp.sum()


def _count_by_count(logits, ids, repetition=1.0, presence=0.0, frequency=0.0):
    if not (0 < repetition < math.inf and math.isfinite(presence) and math.isfinite(frequency)):
        raise ValueError("the penalties must be finite, the repetition above 0")
    lowered, known = _checked(logits), {}
    for each in ids:
        if not isinstance(each, int | np.integer) or not 0 <= each < len(lowered):
            raise ValueError(f"no token: {each}")
        known[int(each)] = known.get(int(each), 0) + 1
    for token, n in known.items():
        lowered[token] *= 1 / repetition if lowered[token] > 0 else repetition
        lowered[token] -= presence + n * frequency
    return lowered


def _walk(probabilities, rng):
    """Subtract one after the other."""
    p = np.array(probabilities, float)
    if p.ndim != 1 or len(p) == 0 or not ((p >= 0) & (p < np.inf)).all() or not (p > 0).any():
        raise ValueError("probabilities must be at least 0, and one above")
    p = p / p.max()
    left = rng.random() * math.fsum(p)
    token = -1
    for each in np.flatnonzero(p):
        token = int(each)
        if left < p[each]:
            break
        left -= p[each]
    return token


class _WholeText:
    """Keeps the whole text, and computes what may be shown anew at each piece."""

    def __init__(self, strings):
        if isinstance(strings, str) or not all(strings):
            raise ValueError("a list of strings, none of them empty")
        self.strings, self.text, self.n_shown, self.is_stopped = tuple(strings), "", 0, False

    def feed(self, text):
        if self.is_stopped:
            return ""
        start, self.text = len(self.text), self.text + text
        ends = [
            (place + len(each), -len(each))
            for each in self.strings
            if (place := self.text.find(each, max(0, start - len(each) + 1))) >= 0
        ]
        self.is_stopped = bool(ends)
        if ends:
            end, less = min(ends)
            self.text = self.text[: end + less]
            return self._show(len(self.text))
        most = max(map(len, self.strings), default=0)
        for n in range(min(most, len(self.text)), 0, -1):
            if any(each[:n] == self.text[-n:] for each in self.strings):
                return self._show(len(self.text) - n)
        return self._show(len(self.text))

    def finish(self):
        return self._show(len(self.text))

    def _show(self, end):
        shown, self.n_shown = self.text[self.n_shown : end], end
        return shown


_GENERATE = [
    ("def generate(\n", "def _tokens(\n"),
    (
        "def _checked(",
        "def generate(model, ids, n_new, settings, rng, stop=()):\n"
        "    if len(ids) == 0 or n_new < 0:\n        raise ValueError('nothing to continue')\n"
        "    return _tokens(model, [*ids], n_new, settings, rng, stop)\n\n\ndef _checked(",
    ),
]

EQUIVALENTS = {
    "masks instead of an order": {"probabilities": _by_masks},
    "a dictionary of counts": {"penalize": _count_by_count},
    "a walk along the probabilities": {"draw": _walk},
    "the whole text is kept": {"StopStrings": _WholeText},
    "errors come when the text is asked for, not its first token": _GENERATE,
    "a line that is cut by normalized sums": [
        (_ENDS, "ends = np.cumsum(p / p.max())"),
        (_DRAWN, "return int((ends <= rng.random() * ends[-1]).sum())"),
    ],
}

_LISTS = ("probabilities", "penalize", "distribution")
HARMLESS = {
    "scaled = np.where(logits > 0, logits / repetition, logits * repetition) => "
    "scaled = np.where(logits >= 0, logits / repetition, logits * repetition)": "0 is 0 both ways",
    "stays &= np.cumsum(p) - p < top_p => stays &= np.cumsum(p) - p <= top_p": (
        "where the sum is the bound itself, the page leaves it free"
    ),
    "result[order] = softmax((logits[order] - logits[order[0]]) / (temperature or 1.0)) => "
    "result[order] = softmax((logits[order] - logits[order[0]]) / (temperature or 2.0))": (
        "with temperature 0 one token is left, and its difference is 0"
    ),
    **{f"{name}: float32 becomes float64": "the result is always float64" for name in _LISTS},
    **{
        f"{name}: wrong for more than two axes": "more than one axis is refused before"
        for name in (*_LISTS, "draw")
    },
    **{
        f"generate: {what}": "the spoil changes results, and an iterator passes as it is"
        for what in (
            "wrong beyond 128 on an axis",
            "wrong for an axis of length 1",
            "wrong for more than two axes",
            "wrong for arrays that are not contiguous",
            "wrong for float32",
            "wrong for values beyond 1e4",
            "right at the first call only",
        )
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    logits = np.array([0.3, 2.1, 1.2, 2.1, -0.4, 1.7, 1.2])
    numbers = rng.random(size=40).round(4).tolist()

    class ByHand:
        def __init__(self, *numbers):
            self.numbers, self.used = list(numbers), 0

        def random(self):
            self.used += 1
            return self.numbers.pop(0)

    def p(*arguments, of=logits, **options):
        return told(lambda impl: impl.probabilities(np.array(of), *arguments, **options))

    def lowered(*arguments, of=logits, ids=(1, 4, 4, 0), **options):
        return told(lambda impl: impl.penalize(np.array(of), list(ids), *arguments, **options))

    def writes(impl):
        held = logits.copy()
        impl.penalize(held, [1, 1, 2], 2.0)
        return held

    def both(*arguments, ids=(1, 4, 4), **options):
        return told(lambda impl: impl.distribution(logits, list(ids), impl.Sampling(*arguments, **options)))

    def drawn(p, *us):
        def call(impl):
            rng = ByHand(*(us or numbers[:20]))
            found = [impl.draw(np.array(p), rng) for _ in range(len(us) or 6)]
            return [found, type(found[0]).__name__, rng.used]

        return told(call)

    def refused(p):
        def call(impl):
            rng = ByHand(0.5)
            try:
                return impl.draw(p, rng)
            except ValueError:
                return f"ValueError after {rng.used}"

        return told(call)

    def stream(strings, *pieces):
        def call(impl):
            filter = impl.StopStrings(strings)
            return [
                [filter.feed(each) for each in pieces],
                filter.is_stopped,
                filter.finish(),
                filter.is_stopped,
            ]

        return told(call)

    def changed_list(impl):
        strings = ["ab"]
        filter = impl.StopStrings(strings)
        strings[0] = "x"
        return [filter.feed("x"), filter.feed("ab"), filter.is_stopped]

    table = np.random.default_rng(8).normal(size=(5, 5))

    def text(ids, n_new, stop=(), is_list=False, **options):
        def call(impl):
            asked, by_hand, found = [], ByHand(*numbers), []

            def model(ids):
                asked.append(f"{ids.tolist()} {(Tensor([1.0], requires_grad=True) * 2).requires_grad}")
                return Tensor(table[ids])

            given = list(ids)
            tokens = impl.generate(model, given, n_new, impl.Sampling(**options), by_hand, stop)
            steps = [len(asked)]
            for each in tokens:
                found.append(each)
                steps += [len(asked), by_hand.used]
                steps.append((Tensor([1.0], requires_grad=True) * 2).requires_grad)
            return [found, asked, steps, by_hand.used, given]

        return told(call)

    def setting(**options):
        return told(lambda impl: [str(each) for each in vars(impl.Sampling(**options)).values()])

    def frozen(impl):
        one = impl.Sampling()
        try:
            one.top_k = 3
        except AttributeError:
            return "AttributeError"
        return "nothing"

    nan, inf = math.nan, math.inf
    return {
        "plain": p(),
        "cold": p(0),
        "cool": p(0.05),
        "colder": p(1e-3, of=[1.0, 1.0005, 0.3]),
        "hot": p(2.0),
        "coldest": p(1e-300, of=[3e10, 3e10, 1.0]),
        "top_k": p(top_k=2),
        "top_k of one": p(top_k=1),
        "top_k and top_p": p(1.0, 3, 0.62),
        "top_p": p(top_p=0.5),
        "top_p, hot": p(3.0, top_p=0.5),
        "top_p 0": p(top_p=0.0),
        "hot, far apart": p(30.0, of=[0.0, -50.0, -60.0]),
        "hot, very far apart": p(1000.0, of=[0.0, -800.0, -801.0]),
        "min_p": p(min_p=0.3),
        "top_p and min_p": p(1.0, 0, 0.9, 0.45),
        "top_p before min_p": p(1.0, 0, 0.7, 0.45),
        "top_k, top_p and min_p": p(1.0, 4, 0.8, 0.3),
        "top_k and min_p": p(1.0, 5, 1.0, 0.5),
        "float32": told(lambda impl: impl.probabilities(logits.astype(np.float32))),
        "precise": p(of=[1 / 3, 0.1, 1e-9]),
        "-inf": p(of=[-inf, 1.0, 0.0]),
        "NaN": p(of=[nan, 1.0]),
        "top_p of 2": p(1.0, 0, 2.0),
        "penalties": lowered(1.7, 0.5, 0.25),
        "repetition": lowered(1.7),
        "presence": lowered(1.0, 0.5),
        "frequency": lowered(1.0, 0.0, 0.5),
        "small logits": lowered(2.0, 0.5, 0.1, of=[0.3, 0.2, -0.3], ids=[0, 0, 2]),
        "penalties in place": writes,
        "an id below 0": lowered(2.0, ids=[-1]),
        "an id too large": lowered(2.0, ids=[0, 7]),
        "an id of 1.5": told(lambda impl: impl.penalize(logits, np.array([1.5]), 2.0)),
        "a repetition of 0": lowered(0.0),
        "both": both(0.7, 3, 0.9, 0.2, 1.5, 0.75, 0.25),
        "both, frequencies": both(1.0, 0, 1.0, 0.0, frequency=0.5),
        "both, the choice": both(1.0, 2, 1.0, 0.0, presence=2.0),
        "both, min_p": both(1.0, 0, 1.0, 0.4),
        "draws": drawn([0.1, 0.4, 0.2, 0.3]),
        "draws of more than 1": drawn([0.2, 0.8, 0.4, 0.6]),
        "draws at the ends": drawn([0.0, 0.25, 0.25, 0.0, 0.5, 0.0], 0.0, 0.25, 0.5, 0.49, 1 - 2.0**-53),
        "a sure draw": drawn([0.0, 1.0]),
        "a fine draw": drawn(np.ones(4001) / 4001, 0.99990005, 0.33330005, 0.77777001),
        "a negative probability": refused([-0.5, 1.5]),
        "no probability": refused([0.0, 0.0]),
        "a stream": stream(["\n\n", "END"], "a\n", "b E", "N", "x EN", "D y", "z"),
        "a stream that begins again": stream(["aab"], "a", "a", "a", "b"),
        "a stream that fails": stream(["abc"], "xab", "d", "ab"),
        "a stream with a stop inside": stream(["ab"], "xabcd", "e"),
        "a stream with a longer string": stream(["b", "ab"], "xa", "b"),
        "a stream with a longer string first": stream(["ab", "b"], "xa", "b"),
        "a stream of another one": stream(["abcd", "bc"], "abc"),
        "a stream of several": stream(["xyz", "de"], "ade"),
        "a stream in capitals": stream(["b"], "xBb"),
        "a stream with blanks": stream(["a ", " b"], "x "),
        "one string": stream("ab", "xa"),
        "an empty string": stream(["", "b"], "xa"),
        "a list that changes": changed_list,
        "a text": text([1, 3, 1], 6, temperature=1.3, presence=1.0, frequency=0.5),
        "a text of a prompt": text([0, 1, 2], 4, temperature=1.0, top_p=1.0, min_p=0.0, presence=3.0),
        "a text without penalties": text([1, 3], 6, temperature=1.0, top_p=1.0, min_p=0.0),
        "a text with penalties": text([1], 6, temperature=0.0, presence=3.0),
        "a greedy text": text([2], 5, temperature=0.0),
        "a text that stops": text([2, 4], 9, {0, 1}, temperature=1.5),
        "a text that stops surely": text([2], 9, {int(table[2].argmax())}, temperature=0.0),
        "no text": text([], 0),
        "a negative text": text([1], -1),
        "the settings": setting(),
        "frozen": frozen,
        **{
            f"{name}={value}": setting(**{name: value})
            for name, value in [
                ("top_k", 2.5),
                ("top_k", -1),
                ("temperature", -1.0),
                ("temperature", inf),
                ("temperature", 0.0),
                ("repetition", 0.0),
                ("repetition", 0.5),
                ("top_p", 1.5),
                ("min_p", 1.5),
                ("presence", nan),
                ("frequency", nan),
            ]
        },
        "cold and top_p=2": setting(temperature=0.0, top_p=2.0),
    }
