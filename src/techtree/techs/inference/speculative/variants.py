"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.inference.sampling import Sampling, draw
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.tree.answers import told

_BEST = "best, found = shortest - 1, len(text)"
_PLACES = "for place in range(len(text) - 1, 0, -1):  # the latest first"
_SAME = "n, most = 0, min(longest, place)"
_BETTER = "if n > best:"
_FOLLOWS = "return text[found : found + n_most], None"
_ROWS = "if p.ndim != 2 or len(p) != len(drafted) + 1:"
_ROWS_OF_Q = "if q is not None and np.shape(q) != (len(drafted), p.shape[1]):"
_DRAWN = "found = draw(p[place], rng)\n            is_kept = found == token"
_KEPT = "rng.random() * q[place][token] < p[place, token]"
_REST = "rest = np.maximum(p[place] - q[place], 0)"
_OTHER = "found = draw(rest if rest.any() else p[place], rng)"
_ENDS = "if not is_kept:\n            return tokens"
_ONE_MORE = "return [*tokens, draw(p[-1], rng)]"
_RANGES = "if n_most < 0 or not 1 <= shortest <= longest:"
_COMMON = (
    "while n_common < min(len(self._read), len(text) - 1) and self._read[n_common] == text[n_common]:\n"
    "            n_common += 1"
)
_FORGET = "self._cache.truncate(n_common)"
_FORGET_IDS = "self._read = []  # should an error come"
_READ = "self._read = text[:]"
_ROW = "rows.append(distribution(self._next_logits(text), text, self._settings))"
_NEXT = "text.append(draw(rows[-1], rng))"
_NOTHING = "if not len(ids) or n_most < 0:"
_TEXT = "    text = [int(each) for each in ids]\n    end = len(text) + n_new\n"
_EMPTY = "if not len(ids) or n_new < 0 or n_draft < 0:"
_DRAFT = "drafted, q = draft(text, min(n_draft, end - len(text) - 1), rng)"
_LOGITS = "logits = extend(model, cache, [*text[cache.length :], *drafted])[-1 - len(drafted) :]"
_P = "p = [distribution(row, [*text, *drafted[:n]], settings) for n, row in enumerate(logits)]"
_VERIFY = "tokens = verify(drafted, np.array(p), rng, q)"
_TRUNCATE = "cache.truncate(len(text) + len(tokens) - 1)"
_STOP = "if token in stop:\n                return"
_GIVE = "text.append(token)\n            yield token"
_ACCEPTANCE = "return np.minimum(p, q).sum(axis=-1, dtype=np.float64)"
_SHAPES = "if np.shape(p) != np.shape(q) or not np.ndim(p):"
_RATE = "if not 0 <= rate <= 1 or n_draft < 0:"
_SUM = "return float(sum(rate**n for n in range(n_draft + 1)))"


MISTAKES = {
    "prompt_lookup: the earliest place is taken": [(_BETTER, "if n >= max(best, shortest):")],
    "prompt_lookup: the latest place is taken, whatever stands before it": [
        (_BETTER, "if n > best and best < shortest:")
    ],
    "prompt_lookup: the end of the text is a place, too": [
        (_PLACES, "for place in range(len(text), 0, -1):")
    ],
    "prompt_lookup: the last tokens are proposed again": [
        (_FOLLOWS, "return text[found - best : found - best + n_most] if found < len(text) else [], None")
    ],
    "prompt_lookup: the first token that follows is left out": [
        (_FOLLOWS, "return text[found + 1 : found + 1 + n_most], None")
    ],
    "prompt_lookup: a place may not overlap with the end": [
        (_SAME, _SAME.replace("place)", "place, len(text) - place)"))
    ],
    "prompt_lookup: what follows is repeated until there is enough": [
        (_FOLLOWS, "return (text[found:] * n_most)[:n_most], None")
    ],
    "prompt_lookup: one token more than the shortest is needed": [
        (_BEST, "best, found = shortest, len(text)")
    ],
    "prompt_lookup: one token less than the shortest is enough": [
        (_BEST, "best, found = max(shortest - 2, 0), len(text)")
    ],
    "prompt_lookup: all tokens are compared, however many": [
        (_SAME, _SAME.replace("min(longest, place)", "place"))
    ],
    "prompt_lookup: the first token of the text is never compared": [
        (_SAME, _SAME.replace("place)", "place - 1)"))
    ],
    "prompt_lookup: without a place the last token is proposed": [
        (_FOLLOWS, "return text[min(found, len(text) - 1) :][:n_most], None")
    ],
    "prompt_lookup: one token too many": [(_FOLLOWS, "return text[found : found + n_most + 1], None")],
    "prompt_lookup: q is a list of ones": [
        (_FOLLOWS, "return text[found : found + n_most], [1.0] * len(text[found : found + n_most])")
    ],
    "prompt_lookup: numbers out of range pass": [(_RANGES, "if False:")],
    "verify: a token that the model likes less is always refused": [
        (_KEPT, "rng.random() * 0 + q[place][token] <= p[place, token]")
    ],
    "verify: a token is kept with the model's probability": [(_KEPT, "rng.random() < p[place, token]")],
    "verify: p and q are exchanged": [(_KEPT, "rng.random() * p[place, token] < q[place][token]")],
    "verify: a token of equal value is refused, and u is the bound itself": [
        (_KEPT, "rng.random() * q[place][token] <= p[place, token]")
    ],
    "verify: u is drawn only where the model likes the token less": [
        (_KEPT, "q[place][token] <= p[place, token] or " + _KEPT)
    ],
    "verify: what replaces a refused token is drawn from p": [(_OTHER, "found = draw(p[place], rng)")],
    "verify: what replaces a refused token is drawn from p without it": [
        (_REST, "rest = np.where(np.arange(p.shape[1]) == token, 0, p[place])")
    ],
    "verify: what replaces a refused token is drawn from the differences, whatever their sign": [
        (_REST, "rest = np.abs(p[place] - q[place])")
    ],
    "verify: what replaces a refused token is drawn from q - p": [
        (_REST, "rest = np.maximum(q[place] - p[place], 0)")
    ],
    "verify: where rounding leaves nothing, there is an error": [(_OTHER, "found = draw(rest, rng)")],
    "verify: what replaces a refused token is the likeliest": [
        (_OTHER, "rng.random()\n            found = int(rest.argmax())")
    ],
    "verify: a refused token is replaced, and the next ones are tried": [(_ENDS, "pass")],
    "verify: a refused token is not replaced": [(_ENDS, "if not is_kept:\n            return tokens[:-1]")],
    "verify: if all are kept, none is added": [(_ONE_MORE, "return tokens")],
    "verify: if all are kept, one is added from the row before the last": [
        (_ONE_MORE, "return [*tokens, draw(p[max(len(p) - 2, 0)], rng)]")
    ],
    "verify: if all are kept, the likeliest one is added": [
        (_ONE_MORE, "rng.random()\n    return [*tokens, int(p[-1].argmax())]")
    ],
    "verify: without q the likeliest token is compared": [
        (
            _DRAWN,
            "found = draw(p[place], rng)\n            found = int(p[place].argmax())\n            is_kept = found == token",
        )
    ],
    "verify: without q a refused token is drawn anew": [
        (
            _DRAWN,
            "is_kept = draw(p[place], rng) == token\n"
            "            found = token if is_kept else draw(p[place], rng)",
        )
    ],
    "verify: without q a token is kept by u, as if it had been sure": [
        (
            _DRAWN,
            "is_kept = rng.random() < p[place, token]\n"
            "            found = token if is_kept else draw(p[place], rng)",
        )
    ],
    "verify: the rows are one place too late": [
        (_ROWS, "p = np.roll(p, -1, axis=0) if p.ndim == 2 else p\n    " + _ROWS)
    ],
    "verify: too many rows are ignored": [
        (_ROWS, _ROWS.replace("!= len(drafted) + 1", "< len(drafted) + 1"))
    ],
    "verify: rows of q that are too many are ignored": [
        (_ROWS_OF_Q, "if q is not None and len(q) < len(drafted):")
    ],
    "ModelDraft: it takes the likeliest token": [
        (_NEXT, "rng.random()\n            text.append(int(rows[-1].argmax()))")
    ],
    "ModelDraft: it reads the whole text each time": [(_COMMON, "n_common = 0")],
    "ModelDraft: it takes for granted that the text goes on": [
        (_COMMON, "n_common = min(len(self._read), len(text) - 1)")
    ],
    "ModelDraft: it forgets the drafted tokens": [(_READ, "self._read = text[: n_common + 1]")],
    "ModelDraft: after an error it believes what it has not read": [(_FORGET_IDS, "self._read = text[:]")],
    "ModelDraft: penalties do not see what it drafted": [
        (_ROW, _ROW.replace("text, self._settings", "list(ids), self._settings"))
    ],
    "ModelDraft: penalties see its own tokens alone": [
        (_ROW, _ROW.replace("text, self._settings", "text[len(ids) :], self._settings"))
    ],
    "ModelDraft: the settings are left out": [
        (_ROW, _ROW.replace("self._settings", "Sampling(1.0, 0, 1.0, 0.0)"))
    ],
    "ModelDraft: q are logits": [
        (_ROW, "rows.append(self._next_logits(text))"),
        (_NEXT, "text.append(draw(distribution(rows[-1], text, self._settings), rng))"),
    ],
    "ModelDraft: it gives the whole text": [("return text[len(ids) :], np", "return text, np")],
    "ModelDraft: an empty text is no error": [(_NOTHING, "if n_most < 0 or not len(ids) and n_most:")],
    "ModelDraft: a negative number is none": [
        (_NOTHING, "n_most = max(n_most, 0)\n        if not len(ids):")
    ],
    "ModelDraft: it reads its last token, too": [
        (
            "return text[len(ids) :], np",
            "if n_most:\n            self._next_logits(text)\n        return text[len(ids) :], np",
        )
    ],
    "generate_speculative: the cache keeps what was refused": [(_TRUNCATE, "pass")],
    "generate_speculative: the cache forgets one token too many": [
        (_TRUNCATE, "cache.truncate(max(len(text) + len(tokens) - 2, 0))")
    ],
    "generate_speculative: penalties do not see the drafted tokens": [
        (_P, _P.replace("[*text, *drafted[:n]]", "text"))
    ],
    "generate_speculative: penalties see all drafted tokens": [(_P, _P.replace("drafted[:n]", "drafted"))],
    "generate_speculative: penalties do not see the prompt": [
        (_P, _P.replace("*text,", "*text[len(ids) :],"))
    ],
    "generate_speculative: q is left out": [(_VERIFY, _VERIFY.replace(", q)", ")"))],
    "generate_speculative: more is drafted than may be given": [
        (_DRAFT, _DRAFT.replace("min(n_draft, end - len(text) - 1)", "n_draft")),
        ("cache = KVCache(model.config, end,", "cache = KVCache(model.config, end + n_draft + 1,"),
        ("        for token in tokens:", "        for token in tokens[: end - len(text)]:"),
    ],
    "generate_speculative: as much is drafted as may be given": [
        (_DRAFT, _DRAFT.replace(" - 1)", ")")),
        ("cache = KVCache(model.config, end,", "cache = KVCache(model.config, end + 1,"),
        ("        for token in tokens:", "        for token in tokens[: end - len(text)]:"),
    ],
    "generate_speculative: the model's own token after a draft is left out": [
        (_VERIFY, _VERIFY + "\n        tokens = tokens[:-1] if len(tokens) > len(drafted) > 0 else tokens")
    ],
    "generate_speculative: a stop within a draft is given": [
        (_STOP, "if token in stop and token not in drafted:\n                return")
    ],
    "generate_speculative: it does not stop": [(_STOP, "pass")],
    "generate_speculative: the token that stops is given": [
        (_STOP, "if token in stop:\n                yield token\n                return")
    ],
    "generate_speculative: a token that stops is left out, and the round goes on": [
        (_STOP, "if token in stop:\n                break")
    ],
    "generate_speculative: a draft is cut before a token that stops": [
        (
            _DRAFT,
            _DRAFT + "\n"
            "        n_kept = next((n for n, token in enumerate(drafted) if token in stop), len(drafted))\n"
            "        drafted, q = drafted[:n_kept], None if q is None else q[:n_kept]",
        )
    ],
    "generate_speculative: the draft sees the last token alone": [
        (_DRAFT, _DRAFT.replace("draft(text,", "draft(text[-1:],"))
    ],
    "generate_speculative: the draft sees the new tokens alone": [
        (_DRAFT, _DRAFT.replace("draft(text,", "draft(text[len(ids) :] or text,"))
    ],
    "generate_speculative: the draft has a generator of its own": [
        (_DRAFT, _DRAFT.replace(", rng)", ", np.random.default_rng(0))"))
    ],
    "generate_speculative: the prompt is read before the first draft, in a call of its own": [
        (
            _DRAFT,
            "if cache.length == 0 and len(text) > 1:\n            extend(model, cache, text[:-1])\n        "
            + _DRAFT,
        )
    ],
    "generate_speculative: each drafted token is read in a call of its own": [
        (
            _LOGITS,
            "new = [*text[cache.length :], *drafted]\n"
            "        logits = [extend(model, cache, [each])[-1] for each in new][-1 - len(drafted) :]",
        )
    ],
    "generate_speculative: all is read anew in each round": [
        (_LOGITS, "cache.truncate(0)\n        " + _LOGITS)
    ],
    "generate_speculative: the prompt comes first": [(_TEXT, _TEXT + "    yield from text\n")],
    "generate_speculative: all tokens are made at the first": [
        (_GIVE, "text.append(token)\n    yield from text[len(text) - n_new :]"),
    ],
    "generate_speculative: a round is made before it is asked for": [
        (
            "def generate_speculative(\n",
            "def _ahead(tokens):\n    held = None\n    for each in tokens:\n        if held is not None:\n"
            "            yield held\n        held = each\n    if held is not None:\n        yield held\n\n\n"
            "@lambda f: lambda *a, **k: _ahead(f(*a, **k))\ndef generate_speculative(\n",
        )
    ],
    "generate_speculative: a negative draft is none": [
        (_EMPTY, "n_draft = max(n_draft, 0)\n    if not len(ids) or n_new < 0:")
    ],
    "generate_speculative: an empty text has no tokens, and is no error": [
        (_EMPTY, "if not len(ids):\n        return\n    if n_new < 0 or n_draft < 0:")
    ],
    "generate_speculative: three tokens are drafted when nothing is said": [
        ("n_draft: int = 7", "n_draft: int = 3")
    ],
    "acceptance: the larger ones are added": [(_ACCEPTANCE, _ACCEPTANCE.replace("minimum", "maximum"))],
    "acceptance: products are added": [
        (_ACCEPTANCE, "return np.multiply(p, q).sum(axis=-1, dtype=np.float64)")
    ],
    "acceptance: it is one less all differences": [
        (_ACCEPTANCE, "return 1 - np.abs(np.subtract(p, q)).sum(axis=-1, dtype=np.float64)")
    ],
    "acceptance: all rows are added": [(_ACCEPTANCE, _ACCEPTANCE.replace("axis=-1", "axis=None"))],
    "acceptance: shapes are broadcast": [(_SHAPES, "if not np.ndim(p):")],
    "tokens_per_call: the model's own token is left out": [
        (_SUM, "return float(sum(rate**n for n in range(1, n_draft + 1)))")
    ],
    "tokens_per_call: each drafted token is kept on its own": [(_SUM, "return float(1 + rate * n_draft)")],
    "tokens_per_call: at rate 1 it divides by 0": [
        (_SUM, "return float((1 - rate ** (n_draft + 1)) / (1 - rate))")
    ],
    "tokens_per_call: one drafted token more": [(_SUM, _SUM.replace("n_draft + 1", "n_draft + 2"))],
    "tokens_per_call: a rate above 1 passes": [(_RATE, "if not 0 <= rate or n_draft < 0:")],
}


def _by_length(ids, n_most, rng=None, shortest=3, longest=24):
    """From the longest end to the shortest one, each looked for in the text."""
    if n_most < 0 or shortest < 1 or longest < shortest:
        raise ValueError("wrong numbers")
    text = tuple(int(each) for each in ids)
    for n in range(min(longest, len(text) - 1), shortest - 1, -1):
        end = text[-n:]
        for start in range(len(text) - n - 1, -1, -1):
            if text[start : start + n] == end:
                return list(text[start + n : start + n + n_most]), None
    return [], None


def _as_leviathan(drafted, p, rng, q=None):
    """Compare u with the ratio; a draft without q is one whose row is 1 at its token, drawn in another way."""
    p = [np.array(each, float) for each in p]
    if any(each.ndim != 1 or len(each) != len(p[0]) for each in p) or len(p) != len(drafted) + 1:
        raise ValueError("one row more than drafted tokens")
    if q is not None and np.shape(q) != (len(drafted), len(p[0])):
        raise ValueError("a row for each drafted token")
    found = []
    while len(found) < len(drafted):
        place, token = len(found), int(drafted[len(found)])
        if q is None:
            found.append(draw(p[place], rng))
            if found[-1] == token:
                continue
            return found
        if rng.random() < p[place][token] / float(q[place][token]):
            found.append(token)
            continue
        rest = np.clip(p[place] - np.asarray(q[place], float), 0, None)
        return [*found, draw(rest if rest.sum() > 0 else p[place], rng)]
    return [*found, draw(p[-1], rng)]


def _geometric(rate, n_draft):
    if math.isnan(rate) or rate < 0 or rate > 1 or n_draft < 0:
        raise ValueError("wrong numbers")
    total = 1.0
    for _ in range(n_draft):
        total = 1 + rate * total
    return float(total)


def _by_difference(p, q):
    p, q = np.asarray(p), np.asarray(q)
    if p.shape != q.shape or p.ndim == 0:
        raise ValueError("two of a shape")
    p, q = p.astype(float), q.astype(float)
    return (p.sum(axis=-1) + q.sum(axis=-1) - np.abs(p - q).sum(axis=-1)) / 2


EQUIVALENTS = {
    "from the longest end to the shortest": {"prompt_lookup": _by_length},
    "ratios": {"verify": _as_leviathan},
    "Horner's rule": {"tokens_per_call": _geometric},
    "half the differences": {"acceptance": _by_difference},
    "the cache has room to spare": [
        ("cache = KVCache(model.config, end,", "cache = KVCache(model.config, end + 99,")
    ],
    "errors come before the first token is asked for": [
        ("def generate_speculative(\n", "def _tokens(\n"),
        (
            "def acceptance(",
            "def generate_speculative(model, ids, n_new, settings, rng, draft, n_draft=7, stop=()):\n"
            "    if len(ids) == 0 or min(n_new, n_draft) < 0:\n        raise ValueError('nothing to do')\n"
            "    return _tokens(model, [*ids], n_new, settings, rng, draft, n_draft, stop)\n\n\ndef acceptance(",
        ),
    ],
}

HARMLESS = {
    "for place in range(len(text) - 1, 0, -1): => for place in range(len(text) - 1, -1, -1):": (
        "before place 0 stands nothing, and nothing is never enough"
    ),
    "verify: wrong for more than two axes": "p and q of more than two axes are refused before",
    "verify: wrong for values beyond 1e4": "probabilities are at most 1",
    "acceptance: wrong for values beyond 1e4": "probabilities are at most 1",
    "acceptance: float32 becomes float64": "the result is always float64",
    "generate_speculative: right at the first call only": "the spoil changes results, and an iterator passes",
}


class _ByHand:
    def __init__(self, numbers):
        self.numbers, self.used = list(numbers), 0

    def random(self):
        self.used += 1
        return self.numbers.pop(0)


class _Part(Module):
    """Notes how many tokens were read at once."""

    def __init__(self, reads):
        self.reads = reads

    def forward(self, x):
        self.reads.append(x.shape[-2])
        return x * 0.5


def _model(seed, reads):
    config = LlamaConfig(n_tokens=7, width=6, hidden=5, n_layers=1, n_heads=2, n_kv_heads=1, head_width=4)
    rng = np.random.default_rng(seed)
    model = Llama(config, rng, lambda layer: _Part(reads))
    for each in model.parameters():
        each.data[...] = rng.normal(size=each.shape) / math.sqrt(each.shape[-1])
    model.token_embedding.weight.data *= 2
    return model


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    numbers = rng.random(size=200).round(4).tolist()
    plain, heavy = Sampling(1.0, 0, 1.0, 0.0), Sampling(1.2, 0, 1.0, 0.0, presence=1.5, frequency=0.5)

    def lookup(ids, n_most, **options):
        def call(impl):
            found, q = impl.prompt_lookup(list(ids), n_most, **options)
            return [list(found), str(q)]

        return told(call)

    def verified(drafted, p, *us, q=None):
        def call(impl):
            by_hand = _ByHand(us or numbers)
            return [[int(each) for each in impl.verify(drafted, np.array(p), by_hand, q)], by_hand.used]

        return told(call)

    def drafts(*texts, n_most=3, settings=plain, max_len=20):
        def call(impl):
            reads, found, by_hand = [], [], _ByHand(numbers)
            draft = impl.ModelDraft(_model(1, reads), settings, max_len)
            for text in texts:
                try:
                    tokens, q = draft(list(text), n_most, by_hand)
                    found.append([[int(each) for each in tokens], np.round(q, 6).tolist()])
                except Exception as error:
                    found.append("ValueError" if isinstance(error, ValueError) else type(error).__name__)
            return [found, list(reads), by_hand.used]

        return told(call)

    def text(ids, n_new, kind="lookup", n_draft=3, settings=plain, stop=()):
        def call(impl):
            reads, asked, steps, by_hand = [], [], [], _ByHand(numbers)
            model, small = _model(2, reads), _model(1, [])
            script = np.random.default_rng(5)

            def draft(ids, n_most, rng):
                if len(asked) == 40:  # a version whose rounds give nothing never ends
                    raise OverflowError("too many rounds")
                asked.append([[int(each) for each in ids], int(n_most), type(rng).__name__])
                if kind == "model":
                    return impl.ModelDraft(small, settings, 99)(ids, n_most, rng)
                if kind == "random":
                    q = script.dirichlet(np.ones(7), size=n_most)
                    return [draw(each, rng) for each in q], q
                if kind == "words":
                    return [2, 6, 1, 3, 2][:n_most], None
                return impl.prompt_lookup(ids, n_most, rng, 1)

            options = {} if n_draft is None else {"n_draft": n_draft}
            found = []
            for each in impl.generate_speculative(
                model, ids, n_new, settings, by_hand, draft, stop=stop, **options
            ):
                found.append(int(each))
                steps.append([len(reads), by_hand.used])
            return [found, list(reads), asked, steps, by_hand.used]

        return told(call)

    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7]])
    q = np.array([[0.5, 0.4, 0.1], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4]])
    nearly = np.array([[0.5 - 1e-16, 0.5 - 1e-16], [0.5, 0.5]]) / 2
    key = [5, 6, 1, 2, 3]
    return {
        "a lookup": lookup([1, 2, 3, 4, 5, 9, 1, 2, 3], 2),
        "a lookup of few": lookup([1, 2, 3, 4, 5, 9, 1, 2, 3], 9),
        "a lookup of two places": lookup([1, 2, 3, 4, 0, 1, 2, 3, 5, 0, 1, 2, 3], 2),
        "a lookup of a longer one": lookup([*key, 7, 0, 1, 2, 3, 8, *key], 1),
        "a lookup of a longer one, limited": lookup([*key, 7, 0, 1, 2, 3, 8, *key], 1, longest=3),
        "a lookup that overlaps": lookup([4, 7, 7, 7, 7], 3),
        "a lookup of the beginning": lookup([1, 2, 3, 9, 1, 2, 3], 1),
        "a lookup of two": lookup([0, 1, 2, 9, 8, 1, 2], 2),
        "a lookup of two tokens": lookup([0, 1, 2, 9, 8, 1, 2], 2, shortest=2),
        "no lookup": lookup([1, 2, 3, 4], 2),
        "a wrong lookup": lookup([1, 1], -1),
        "verified": verified([0, 1, 2], p, 0.3, 0.2, 0.9, 0.6, q=q),
        "verified, the first refused": verified([0, 1, 2], p, 0.7, 0.05, 0.6, q=q),
        "verified, the second refused": verified([1, 1, 2], p, 0.95, 0.5, 0.9, 0.5, 0.5, q=q),
        "verified, near": verified([0], p[:2], 0.35, 0.8, 0.1, q=q[:1]),
        "verified, at the bound": verified([0], [[0.5, 0.5], [0.0, 1.0]], 0.5, 0.1, 0.1, q=[[1.0, 0.0]]),
        "verified, equal": verified([2], p[2:], 0.99, 0.3, q=p[2:3]),
        "verified, rounding": verified([0], nearly, 0.75, 0.1, 0.3, q=[[0.5, 0.5]]),
        "verified without q": verified([1, 0, 1], p, 0.4, 0.3, 0.8, 0.9, 0.5),
        "verified without q, all right": verified([1, 0, 2], p, 0.4, 0.3, 0.8, 0.05),
        "verified without q, wrong": verified([0, 0, 1], p, 0.3, 0.3, 0.8, 0.1),
        "nothing to verify": verified([], p[:1], 0.3),
        "too many rows": verified([0], p, 0.1, 0.1, 0.1),
        "too many rows of q": verified([0], p[:2], 0.1, 0.1, 0.1, q=q),
        "drafts": drafts([3, 1], [3, 1, 5], [3, 1, 5, 2, 2], [4]),
        "drafts with penalties": drafts([3, 1, 1, 1], [3, 1, 1, 1, 3], settings=heavy, n_most=4),
        "cold drafts": drafts([3, 1], settings=Sampling(0.5), n_most=4),
        "drafts after an error": drafts(
            [1, 2, 6, 0, 0], [1, 2, 9, 0], [1, 2, 9, 1], [1, 2, 6, 0, 3], max_len=8
        ),
        "no drafts": drafts([1], n_most=0),
        "drafts of nothing": drafts([], n_most=0),
        "a negative number of drafts": drafts([1], n_most=-1),
        "a text": text([1, 2, 1, 2, 1], 10),
        "a text with penalties": text([1, 2, 1, 2, 1], 10, "words", settings=heavy),
        "a text of a small model": text([1, 2], 10, "model"),
        "a text of a random draft": text([1, 2], 12, "random", n_draft=4),
        "a text of a random draft, penalties": text([1, 2, 2], 12, "random", n_draft=4, settings=heavy),
        "a text that stops": text([1, 2], 12, "random", n_draft=4, stop={1}),
        "a text that stops soon": text([1, 2], 12, "words", n_draft=4, stop={2, 3, 4, 6}),
        "a text that stops in a draft": text([1, 2], 30, "words", n_draft=4, stop={6}),
        "a short text": text([1, 2], 2, "words", n_draft=4),
        "a text of the usual draft": text([1, 2], 12, "random", n_draft=None),
        "a text of no draft": text([1, 2], 3, "words", n_draft=0),
        "a text of a negative draft": text([1, 2], 3, "words", n_draft=-1),
        "a text of nothing": text([], 3),
        "kept": told(lambda impl: np.round(impl.acceptance(p[:3], q), 9).tolist()),
        "kept of one": told(lambda impl: np.round(impl.acceptance(p[0], p), 9).tolist()),
        **{
            f"{k} tokens at {rate}": told(
                lambda impl, rate=rate, k=k: round(impl.tokens_per_call(rate, k), 9)
            )
            for rate, k in [(0.5, 3), (0.9, 2), (1.0, 2), (1.5, 1)]
        },
    }
