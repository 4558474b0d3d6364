"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import json
from typing import NamedTuple

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling, draw, penalize, probabilities
from techtree.tree.answers import told

_STEP = "state = int(self.transitions[state, byte]) if state >= 0 else -1"
_MATCHES = "return state >= 0 and bool(self.is_accepting[state])"
_CUTS = "for cut in (first, last + 1)"
_AFTER = "after = frozenset(rest for first, last, rest in moves if first <= low <= last)"
_BYTES = 'ways = [[("range", byte, byte) for byte in grammar]]'
_RANGE = "is_one &= 0 <= low <= high <= 255"
_MOVE = "moves.append((*parts, tuple(then)))"
_SEQUENCE = "ways = [[*parts]]"
_CHOICE = 'case ("sequence", *_) | ("choice", _, *_):'
_WAYS_OF_CHOICE = "ways = [[part] for part in parts]"
_LIMITS = "is_one &= 0 <= least <= (least if most is None else most)"
_FEWER = 'fewer = ("repeat", part, max(least - 1, 0), None if most is None else most - 1)'
_TIMES = "ways = [[]] * (least == 0) + [[part, fewer]] * (most != 0)"
_WAYS = "for each in ((*way, *then) for way in ways):"
_CHECKED = "    for each in parts:\n        _check(each)\n"
_OBJECT = """            not rest
            and all(isinstance(name, str) for name in [*names, *parts])
            and sorted(names) == sorted(parts)
"""
_PAIRS = 'pairs = [("sequence", _literal(name), b":", json_grammar(part)) for name, part in parts.items()]'
_COMMAS = '*(("sequence", b",", pair) for pair in pairs[1:])'
_ARRAY = 'case {"type": "array", "items": item, **rest} if rest.keys() <= {"maxItems"} and all('
_MOST = "type(most) is int and most >= 1 for most in rest.values()"
_MORE = 'more = "repeat", ("sequence", b",", value), 0, n_more'
_SOME = 'return "sequence", b"[", ("repeat", ("sequence", value, more), 0, 1), b"]"'
_SCALAR = 'case {"type": str(kind), **rest} if kind in _SCALARS and not rest:'
_LITERAL = 'json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))'
_IF_DATA = "states = np.arange(n_states) if data else -1"
_WALK = "        for byte in data:\n            states = transitions[states, byte]\n"
_LEADS = "leads_on = (next_state >= 0) & (n_left[next_state] >= 0)"
_NEW = "n_left[is_new] = n_left.max() + 1"
_NO_TEXT = '    if n_left[0] < 0:\n        raise ValueError("some'
_PRUNE = "next_state[n_left[next_state] < 0] = -1"
_BUDGET = "return np.flatnonzero((after >= 0) & (self.n_left[after] < n_new))"
_IF_END = "            if table.n_left[state] == 0:\n"
_ASK = "if len(choices) > 1:"
_LOGITS = "logits[choices] = model(np.array(text)).data[-1, choices]"
_DRAW = "token = draw(distribution(logits, text, settings), rng)"
_TOO_FEW = "if table.n_left[0] > n_new:"
_BAD_END = "if not len(ids) or (table.next_state[:, end] >= 0).any():"


MISTAKES = {
    "an automaton: a byte that leads nowhere is passed over": [
        (
            _STEP,
            "state = max(int(self.transitions[state, byte]), -1) if self.transitions[state, byte] >= 0 else state",
        )
    ],
    "an automaton: a beginning of a text is a text": [(_MATCHES, "return state >= 0")],
    "an automaton: from a dead end the last state's row is read": [
        (_STEP, "state = int(self.transitions[state, byte])")
    ],
    "a range leaves its last byte out": [
        (_MOVE, "moves.append((parts[0], max(parts[0], parts[1] - 1), tuple(then)))")
    ],
    "a range is its two ends": [(_MOVE, "moves += [(each, each, tuple(then)) for each in parts]")],
    "a range that falls is nothing": [
        (_RANGE, "is_one &= 0 <= low <= 255 and 0 <= high <= 255"),
        (_MOVE, "moves += [(*parts, tuple(then))] * (parts[0] <= parts[1])"),
    ],
    "the empty text is no part of a text": [(_BYTES, f"{_BYTES} if grammar or not then else []")],
    "of bytes the first is enough": [(_BYTES, _BYTES.replace("in grammar", "in grammar[:1]"))],
    "a sequence is read from its end": [(_SEQUENCE, "ways = [[*parts[::-1]]]")],
    "a choice of none is the empty text": [
        (_CHOICE, 'case ("sequence" | "choice", *_):'),
        (_WAYS_OF_CHOICE, f"{_WAYS_OF_CHOICE} or [[]]"),
    ],
    "a choice is the first that begins with the byte": [
        (_AFTER, "after = frozenset([rest for first, last, rest in moves if first <= low <= last][:1])")
    ],
    "any number of times is at least once": [
        (_TIMES, f'{_TIMES} if most is not None or least else [[part, ("choice", b"", grammar)]]')
    ],
    "at least is not looked at": [(_TIMES, _TIMES.replace("(least == 0)", "True"))],
    "at most is not looked at": [(_FEWER, _FEWER.replace("None if most is None else most - 1", "None"))],
    "at most is one more": [
        (_FEWER, _FEWER.replace("most - 1", "(most - 1 or -1)")),
        (_TIMES, _TIMES.replace("(most != 0)", "(most not in (0, -2))").replace("most)", "most)")),
    ],
    "a repetition is its fewest times or its most": [
        (
            _FEWER,
            'fewer = ("repeat", part, least - 1, None if most is None else most - 1) if least else ("repeat", part, 0, None) if most is None else ("repeat", part, most - 1, most - 1)',
        ),
    ],
    "a repetition of fewer than no times is none": [(_LIMITS, "pass")],
    "what a repetition of no times would repeat is not looked at": [
        ("            parts = [part]\n", "            parts = [part] * (most != 0)\n")
    ],
    "a list is as good as a tuple": [
        ("is_one = isinstance(grammar, bytes | tuple)", "is_one = True"),
        ("    _check(grammar)\n", "    _check(grammar)\n    grammar = _tuples(grammar)\n"),
        (
            "def _check(",
            "def _tuples(given):\n    return tuple(map(_tuples, given)) if isinstance(given, list | tuple) else given\n\n\ndef _check(",
        ),
    ],
    "what may be empty is followed once": [
        (_WAYS, "for each in [(*way, *then) for way in ways if rest in state]:")
    ],
    "bytes are read as characters: above 127 none may come": [
        (_CUTS, "for cut in (min(first, 128), min(last + 1, 128))")
    ],
    "keys may come in the order of required": [
        (
            _PAIRS,
            _PAIRS.replace("for name, part in parts.items()", "for name in names for part in [parts[name]]"),
        )
    ],
    "keys that are not required are left out": [
        (_OBJECT, _OBJECT.replace("sorted(names) == sorted(parts)", "{*names} <= {*parts}")),
        (_PAIRS, _PAIRS.replace("parts.items()", "parts.items() if name in names")),
    ],
    "a key may be required twice": [
        (_OBJECT, _OBJECT.replace("sorted(names) == sorted(parts)", "{*names} == {*parts}"))
    ],
    "a key may be a number": [(_OBJECT, _OBJECT.replace("isinstance(name, str)", "name is not None"))],
    "unknown keywords of an object are passed over": [
        (_OBJECT, _OBJECT.replace("not rest\n            and ", ""))
    ],
    "unknown keywords of a type are passed over": [(_SCALAR, _SCALAR.replace(" and not rest", ""))],
    "commas are missing between keys": [(_COMMAS, "*pairs[1:]")],
    "a comma may come after the last key": [(_COMMAS, _COMMAS + ', ("repeat", b",", 0, 1)')],
    "keys are written without quotes": [(_PAIRS, _PAIRS.replace("_literal(name)", "name.encode()"))],
    "values are written with escapes for all but ASCII": [
        (_LITERAL, _LITERAL.replace("ensure_ascii=False", "ensure_ascii=True"))
    ],
    "values are written with blanks": [(_LITERAL, _LITERAL.replace(', separators=(",", ":")', ""))],
    "keys of values are sorted": [(_LITERAL, _LITERAL.replace("ensure", "sort_keys=True, ensure"))],
    "NaN is a value": [(_LITERAL, _LITERAL.replace("allow_nan=False", "allow_nan=True"))],
    "an array never is empty": [(_SOME, _SOME.replace("0, 1)", "1, 1)"))],
    "an array may end with a comma": [
        (_SOME, _SOME.replace("value, more)", 'value, more, ("repeat", b",", 0, 1))'))
    ],
    "an array has one more than it should": [
        ('rest["maxItems"] - 1 if rest else None', 'rest["maxItems"] if rest else None')
    ],
    "an array of any length": [(_MORE, _MORE.replace("n_more", "None"))],
    "an array of no values is a limit": [(_MOST, _MOST.replace(">= 1", ">= 0"))],
    "a string may have a quote inside": [('"23-5B"', '"22-5B"')],
    "a string may have a backslash inside": [('"5D-7F"', '"5C-7F"')],
    "a string may have control characters": [('"20-21"', '"00-21"')],
    "a string is of any bytes beyond ASCII": [('"C2-DF 80-BF"', '"80-FF"')],
    "a string has bytes of surrogates": [('"ED-ED 80-9F 80-BF"', '"ED-ED 80-BF 80-BF"')],
    "a string is of ASCII": [
        ('"C2-DF 80-BF"', '"20-20"'),
        (
            '_ranges("E0-E0 A0-BF 80-BF", "E1-EC 80-BF 80-BF", "ED-ED 80-9F 80-BF", "EE-EF 80-BF 80-BF")',
            'b" "',
        ),
        ('_ranges("F0-F0 90-BF 80-BF 80-BF", "F1-F3 80-BF 80-BF 80-BF", "F4-F4 80-8F 80-BF 80-BF")', 'b" "'),
    ],
    "an escape may be any sign": [("b'\"\\\\/bfnrt'", "range(32, 127)")],
    "an escape is left out": [("b'\"\\\\/bfnrt'", "b'\"\\\\nrt'")],
    "an integer may begin with zeros": [
        ('("choice", b"0", _UP_TO_15)', '("repeat", _ranges("30-39"), 1, 15)')
    ],
    "an integer has any number of digits": [('_ranges("30-39"), 0, 14)', '_ranges("30-39"), 0, None)')],
    "an integer is not negative": [('("repeat", b"-", 0, 1)', 'b""')],
    "a token is allowed if its first byte is": [
        (
            _WALK,
            "        for i, byte in enumerate(data):\n"
            "            after = transitions[states, byte]\n"
            "            states = np.where((after < 0) & (i > 0), states, after)\n",
        )
    ],
    "a token without bytes stays where it is": [(_IF_DATA, "states = np.arange(n_states)")],
    "a token is allowed though no tokens end the text after it": [(_PRUNE, "next_state += 0")],
    "a form that no tokens make has a table": [
        (_NO_TEXT, _NO_TEXT.replace("n_left[0] < 0", "not (next_state[0] >= 0).any() and n_left[0] < 0"))
    ],
    "the fewest tokens: some way, not the shortest": [
        (_NEW, "n_left[is_new] = n_left.max() + 1 + (n_left.max() > 0)")
    ],
    "the fewest tokens: at most two are looked ahead": [(_NEW, "n_left[is_new] = min(n_left.max() + 1, 2)")],
    "the limit is not looked at": [(_BUDGET, "return np.flatnonzero(after >= 0)")],
    "the limit is off by one: one token may be missing at the end": [
        (_BUDGET, _BUDGET.replace("< n_new", "<= n_new"))
    ],
    "the limit is off by one: the last token is not used": [
        (_BUDGET, _BUDGET.replace("< n_new", "< n_new - 1"))
    ],
    "the end is a choice everywhere": [(_IF_END, "            if True:\n")],
    "the end is taken as soon as it may come": [
        (_ASK, "if table.n_left[state] == 0:\n                break\n            " + _ASK)
    ],
    "the end may come only when nothing else can": [
        (_IF_END, _IF_END.replace("== 0:", "== 0 and not len(choices):"))
    ],
    "a single choice is asked for, too": [(_ASK, "if len(choices) >= 1:")],
    "a single choice draws a number": [
        (_ASK, "if len(choices) == 1:\n                rng.random()\n            " + _ASK)
    ],
    "what may not come is taken away after the draw is prepared": [
        (_LOGITS, "logits = model(np.array(text)).data[-1].astype(np.float64)"),
        (
            _DRAW,
            "p = distribution(logits, text, settings)\n                p = np.where(np.isin(np.arange(p.size), choices), p, 0)\n                token = draw(p if p.any() else np.isin(np.arange(p.size), choices), rng)",
        ),
    ],
    "what may not come loses 3 and no more": [
        (
            _LOGITS,
            "row = model(np.array(text)).data[-1]\n                logits = row - 3.0\n                logits[choices] = row[choices]",
        )
    ],
    "what may not come gets -1e9": [
        ("np.full(table.next_state.shape[1], -np.inf)", "np.full(table.next_state.shape[1], -1e9)")
    ],
    "the likeliest is taken, whatever the settings": [
        (_DRAW, "rng.random()\n                token = int(logits.argmax())")
    ],
    "penalties see the new tokens alone": [
        (_DRAW, _DRAW.replace("text, settings", "text[len(ids) :], settings"))
    ],
    "the model sees the new tokens alone": [
        (_LOGITS, _LOGITS.replace("np.array(text)", "np.array(text[-1:])"))
    ],
    "the model is asked once more at the limit": [
        (
            "    return text[len(ids) :]",
            "        if len(text) - len(ids) == n_new:\n            model(np.array(text))\n    return text[len(ids) :]",
        )
    ],
    "the end is among the new tokens": [
        (
            "            if token == end:\n",
            "            if token == end:\n                text.append(token)\n",
        )
    ],
    "gradients are recorded": [
        ("    with no_grad():\n        for n_left", "    with contextlib.nullcontext():\n        for n_left"),
        ("import json\n", "import contextlib\nimport json\n"),
    ],
    "too few tokens give what there is": [(_TOO_FEW, "if n_new < 0:")],
    "an end that stands for text is fine": [(_BAD_END, "if not len(ids):")],
    "an empty text before is fine": [(_BAD_END, _BAD_END.replace("not len(ids) or ", ""))],
}


class _OwnAutomaton(NamedTuple):
    """A tuple."""

    transitions: np.ndarray
    is_accepting: np.ndarray

    def step(self, state, data):
        for byte in data:
            if state == -1:
                break
            state = self.transitions[state][byte]
        return int(state)

    def matches(self, data):
        last = self.step(0, data)
        return last != -1 and self.is_accepting.tolist()[last]


class _OwnTable(NamedTuple):
    """A tuple; the choices are looked at one by one."""

    next_state: np.ndarray
    n_left: np.ndarray

    def choices(self, state, n_new):
        row = enumerate(self.next_state[state].tolist())
        return np.array(
            [token for token, after in row if after != -1 and 1 + self.n_left[after] <= n_new], int
        )


def _with_jumps(grammar):
    """States with arrows for bytes and arrows for nothing, and the sets of them that are reached."""
    moves, jumps = [], []

    def new():
        moves.append([])
        jumps.append([])
        return len(moves) - 1

    def add(each, start, end):
        if isinstance(each, bytes):
            for byte in each:
                after = new()
                moves[start].append((byte, byte, after))
                start = after
            jumps[start].append(end)
            return
        if not isinstance(each, tuple) or not each:
            raise ValueError("no grammar")
        kind, *parts = each
        if kind == "range" and len(parts) == 2:
            low, high = parts
            if type(low) is not int or type(high) is not int or not 0 <= low <= high <= 255:
                raise ValueError("no range")
            moves[start].append((low, high, end))
        elif kind == "sequence":
            for part in parts:
                after = new()
                add(part, start, after)
                start = after
            jumps[start].append(end)
        elif kind == "choice" and parts:
            for part in parts:
                add(part, start, end)
        elif kind == "repeat" and len(parts) == 3:
            part, least, most = parts
            add(part, new(), new())  # should it be no grammar
            if type(least) is not int or least < 0 or type(most) not in (int, type(None)):
                raise ValueError("no number of times")
            if most is not None and most < least:
                raise ValueError("no times")
            for _ in range(least):
                after = new()
                add(part, start, after)
                start = after
            if most is None:
                loop = new()
                jumps[start].append(loop)
                add(part, loop, loop)
                start = loop
            for _ in range(0 if most is None else most - least):
                jumps[start].append(end)
                after = new()
                add(part, start, after)
                start = after
            jumps[start].append(end)
        else:
            raise ValueError("no grammar")

    def closure(states):
        todo = list(states)
        for state in todo:
            todo += [each for each in jumps[state] if each not in todo]
        return frozenset(todo)

    start, end = new(), new()
    add(grammar, start, end)
    numbers = {closure([start]): 0}
    todo, table = list(numbers), []
    for states in todo:
        row = [set() for _ in range(256)]
        for low, high, after in {move for state in states for move in moves[state]}:
            for byte in range(low, high + 1):
                row[byte].add(after)
        known, numbered = {}, []
        for each in map(frozenset, row):
            if each and each not in known:
                known[each] = closure(each)
                if known[each] not in numbers:
                    numbers[known[each]] = len(numbers)
                    todo.append(known[each])
            numbered.append(numbers[known[each]] if each else -1)
        table.append(numbered)
    return _OwnAutomaton(np.array(table, np.int16), np.array([end in states for states in todo]))


def _by_queue(automaton, vocabulary):
    """Token by token and state by state; breadth first from the ends back."""
    n_states = len(automaton.is_accepting)
    leads = [
        [automaton.step(state, data) if data else -1 for data in vocabulary] for state in range(n_states)
    ]
    before = [set() for _ in range(n_states)]
    for state, row in enumerate(leads):
        for after in set(row) - {-1}:
            before[after].add(state)
    queue = np.flatnonzero(automaton.is_accepting).tolist()
    n_left = [-1] * n_states
    for state in queue:
        n_left[state] = 0
    for state in queue:
        for each in before[state]:
            if n_left[each] < 0:
                n_left[each] = n_left[state] + 1
                queue.append(each)
    if n_left[0] < 0:
        raise ValueError("no text")
    leads = [[after if after >= 0 and n_left[after] >= 0 else -1 for after in row] for row in leads]
    return _OwnTable(np.array(leads, np.int32).reshape(n_states, -1), np.array(n_left))


def _among_the_choices(model, ids, n_new, table, end, settings: Sampling, rng):
    """The logits of the choices alone; recursion."""
    if len(ids) == 0 or table.next_state[:, end].max() >= 0 or not 0 <= table.n_left[0] <= n_new:
        raise ValueError("ids, an end that is no text, and room for it")

    def more(text, state, n):
        choices = table.choices(state, n).tolist() if n else []
        if n and table.n_left[state] == 0:
            choices = sorted([*choices, end])
        if not choices:
            return []
        token = choices[0]
        if len(choices) > 1:
            with no_grad():
                logits = model(np.array(text)).data[-1]
            logits = np.where(np.isin(np.arange(len(logits)), choices), logits, 0)
            logits = penalize(logits, text, settings.repetition, settings.presence, settings.frequency)
            p = probabilities(
                logits[choices], settings.temperature, settings.top_k, settings.top_p, settings.min_p
            )
            token = choices[draw(p, rng)]
        return (
            [] if token == end else [token, *more([*text, token], int(table.next_state[state, token]), n - 1)]
        )

    return more([int(each) for each in ids], 0, n_new)


_TOKENS = "    for token, data in enumerate(vocabulary):\n        states = np.arange(n_states) if data else -1\n        for byte in data:\n            states = transitions[states, byte]\n        next_state[:, token] = states\n"
EQUIVALENTS = {
    "a machine with arrows for no byte": {"Automaton": _OwnAutomaton, "compile_grammar": _with_jumps},
    "tables by a queue": {"TokenTable": _OwnTable, "token_masks": _by_queue},
    "the choices' logits alone, by recursion": {"constrained_generate": _among_the_choices},
    "tokens that begin alike walk together": [
        (
            _TOKENS,
            '    known = {b"": np.arange(n_states)}\n\n    def after(data):\n        if data not in known:\n            known[data] = transitions[after(data[:-1]), data[-1]]\n        return known[data]\n\n'
            "    for token in sorted(range(len(vocabulary)), key=lambda token: len(vocabulary[token])):\n        next_state[:, token] = after(vocabulary[token]) if vocabulary[token] else -1\n    next_state = next_state.astype(np.int32)\n",
        )
    ],
    "arrays written as a choice": [
        (_SOME, 'return "choice", b"[]", ("sequence", b"[", value, more, b"]")'),
    ],
}

_ORDER = [
    ("'20-21', '23-5B'", "'23-5B', '20-21'"),
    ("'E0-E0 A0-BF 80-BF', 'E1-EC 80-BF 80-BF'", "'E1-EC 80-BF 80-BF', 'E0-E0 A0-BF 80-BF'"),
    (
        "'F0-F0 90-BF 80-BF 80-BF', 'F1-F3 80-BF 80-BF 80-BF'",
        "'F1-F3 80-BF 80-BF 80-BF', 'F0-F0 90-BF 80-BF 80-BF'",
    ),
]
_CHARACTER = """_CHARACTER = ('choice', ('sequence', b'\\\\', ('choice', *(bytes([each]) for each in b'"\\\\/bfnrt'))), \
_ranges('20-21', '23-5B', '5D-7F', 'C2-DF 80-BF'), \
_ranges('E0-E0 A0-BF 80-BF', 'E1-EC 80-BF 80-BF', 'ED-ED 80-9F 80-BF', 'EE-EF 80-BF 80-BF'), \
_ranges('F0-F0 90-BF 80-BF 80-BF', 'F1-F3 80-BF 80-BF 80-BF', 'F4-F4 80-8F 80-BF 80-BF'))"""
HARMLESS = {
    **{f"{_CHARACTER} => {_CHARACTER.replace(*turned)}": "a choice has no order" for turned in _ORDER},
    "transitions = np.vstack([automaton.transitions, np.full((1, 256), -1)]) => "
    "transitions = np.vstack([automaton.transitions, np.full((2, 256), -1)])": "-1 is the last row of both",
    "for n_left in range(n_new, 0, -1): => for n_left in range(n_new, -1, -1):": (
        "with no tokens left the text can end, and nothing else can come: the end is taken"
    ),
    "choices = np.sort(np.append(choices, end)) => choices = np.sort(np.append(end, choices))": "they are sorted",
    "token = int(choices[0]) => token = int(choices[-1])": "of a single choice; of several another is drawn",
    "compile_grammar: right at the first call only": "the spoil knows no automata: they pass as they are",
    "token_masks: right at the first call only": "the spoil knows no tables: they pass as they are",
    **{
        f"constrained_generate: {what}": "ids are whole numbers on one axis"
        for what in ("wrong for more than two axes", "wrong for float32", "wrong for values beyond 1e4")
    },
}


class _Model:
    """Logits that hang on the last token, the length and the first token; remembers what it was asked."""

    def __init__(self, n_tokens):
        self.n_tokens, self.asked, self.recorded = n_tokens, [], []

    def __call__(self, ids):
        self.asked.append(ids.tolist())
        self.recorded.append((Tensor([1.0], requires_grad=True) * 2).requires_grad)
        rows = [
            np.sin((7 * each + 3 * len(ids) + ids[0]) * (1 + np.arange(self.n_tokens))) * 2 for each in ids
        ]
        return Tensor(np.array(rows))


@functools.cache
def _texts():
    """Texts of JSON, good and bad, on which the mistakes differ."""
    values = [
        1,
        0,
        -12,
        True,
        None,
        "",
        "a",
        "\u00e9",
        "a\u20ac\U0001f600",
        [],
        [1],
        [1, 2],
        [[1]],
        {},
        {"a": 1},
    ]
    values += [
        {"a": [1]},
        [True],
        [True, False],
        [True] * 3,
        [True] * 4,
        [None] * 4,
        {"a": True, "b": None},
        1.5,
    ]
    values += [{"b": None, "a": True}, {"a": True}, "x y", {"\u00e9": 1}, {"\u00e9": True}, "ab"]
    found = [json.dumps(each, ensure_ascii=False, separators=(",", ":")).encode() for each in values]
    found += [json.dumps(each).encode() for each in values]
    found += [
        b"01",
        b"1.",
        b"1234567890123456",
        b"[1,]",
        b"[true,]",
        b"[,]",
        b'"a"b"',
        b'"\\"',
        b'"\\n"',
        b'"\\b"',
    ]
    found += [b'"\n"', b'"\xed\xa0\x80"', b'"\xff\xff"', b'"\x80"', b'"\\x"', b'["\xc3"]', b"[]"]
    found += [b'{"a":true"b":null}', b'{"a":true,"b":null,}', b"{a:true,b:null}"]
    return list(dict.fromkeys(found))


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""

    words = [
        b"",
        b"a",
        b"b",
        b"ab",
        b"aa",
        b"ba",
        b"abab",
        b"aab",
        b"abb",
        b"bb",
        b"aaa",
        b"aaaa",
        b"aaaaa",
        b"c",
        b"d",
        b"ac",
    ]
    words += [b"aaaaaa", b"bcd", b"bc", b"abcd"]

    def read(grammar):
        def call(impl):
            form = impl.compile_grammar(grammar)
            return "".join("01"[bool(form.matches(word))] for word in words)

        return told(call)

    def accepts(schema):
        def call(impl):
            try:
                grammar = impl.json_grammar(schema)
            except ValueError:
                return "no schema"
            form = impl.compile_grammar(grammar)
            return "".join("01"[bool(form.matches(text))] for text in _texts())

        return told(call)

    def table(grammar, *vocabulary):
        def call(impl):
            found = impl.token_masks(impl.compile_grammar(grammar), vocabulary)
            after = [
                [found.choices(state, n).tolist() for n in range(7)]
                for state in found.next_state[0]
                if state >= 0
            ]
            return [
                found.n_left[0].item(),
                [found.n_left[state].item() for state in found.next_state[0] if state >= 0],
                found.choices(0, 9).tolist(),
                after,
            ]

        return told(call)

    def generated(grammar, vocabulary, ids=(1, 1), n_new=6, end=0, **numbers):
        def call(impl):
            model = _Model(len(vocabulary))
            masks = impl.token_masks(impl.compile_grammar(grammar), vocabulary)
            settings = Sampling(**{"temperature": 1.0, "top_p": 1.0, "min_p": 0.0} | numbers)
            said = []
            for seed in range(4):
                drawn = np.random.default_rng(seed)
                said.append(impl.constrained_generate(model, ids, n_new, masks, end, settings, drawn))
                said.append([round(drawn.random(), 9)])
            return [said, model.asked, any(model.recorded)]

        return told(call)

    one = ("range", 97, 98)
    star = ("repeat", one, 0, None)
    flag, null = {"type": "boolean"}, {"type": "null"}

    def closed(required=None, **properties):
        return {"type": "object", "properties": properties, "required": required or [*properties]}

    walks = [(0, b"ab"), (0, b"b"), (0, b"az"), (0, b"z"), (1, b"bb"), (0, b"aab"), (0, b"zab"), (0, b"abz")]

    def walked(impl):
        form = impl.compile_grammar(("sequence", b"ab", ("repeat", b"c", 0, None)))
        states = [form.step(*walk) >= 0 for walk in walks] + [form.step(-1, b"a"), form.step(-1, b"c")]
        return [states, form.matches(b"a"), form.matches(b"ab"), form.matches(b"abz")]

    schemas = {
        "an integer": {"type": "integer"},
        "a string": {"type": "string"},
        "constants": {"enum": ["\u00e9", [1, 2], {"b": None, "a": True}]},
        "a constant that is none": {"enum": [float("nan")]},
        "two keys": closed(a=flag, b=null),
        "two keys, required turned": closed(["b", "a"], a=flag, b=null),
        "a key that is not required": closed(["a"], a=flag, b=null),
        "a key that is required twice": closed(["a", "a", "b"], a=flag, b=null),
        "a key that is a number": {"type": "object", "properties": {1: flag}, "required": [1]},
        "a keyword that is not known": {**closed(a=flag), "minProperties": 1},
        "a keyword of a type that is not known": {**flag, "title": "x"},
        "booleans": {"type": "array", "items": flag},
        "at most two": {"type": "array", "items": flag, "maxItems": 2},
        "at most none": {"type": "array", "items": flag, "maxItems": 0},
    }
    pieces = [b"", b"a", b"b", b"ab", b"bb"]
    return {
        "steps": told(walked),
        "a range": read(("sequence", ("range", 97, 98), ("repeat", b"a", 0, 1))),
        "a range of many": read(("range", 97, 100)),
        "a range that falls": read(("choice", b"a", ("range", 98, 97))),
        "no choice": read(("sequence", b"a", ("choice",))),
        "a choice": read(("choice", b"ab", b"b", b"aa")),
        "a star": read(star),
        "a star after others": read(("sequence", b"a", ("repeat", b"b", 0, None))),
        "a star inside a choice inside a star": read(
            ("repeat", ("choice", ("repeat", b"ab", 1, None), b"c"), 0, None)
        ),
        "at least two": read(("repeat", b"a", 2, None)),
        "one to four": read(("repeat", b"a", 1, 4)),
        "at most three": read(("repeat", b"a", 0, 3)),
        "at most one": read(("repeat", b"ab", 0, 1)),
        "jumps": read(("sequence", ("repeat", ("repeat", b"a", 0, 1), 0, 1), ("repeat", b"", 0, 1), b"b")),
        "a sequence with the empty text": read(("sequence", b"", b"a", b"")),
        "a sequence": read(("sequence", b"ab", b"b", b"c")),
        "no times": read(("choice", b"a", ("repeat", b"a", 3, 2))),
        "no times of what is no grammar": read(("choice", b"a", ("repeat", ("range", 98, 97), 0, 0))),
        "a list": read(("choice", b"a", ["range", 97, 98])),
        "high bytes": told(
            lambda impl: impl.compile_grammar(("choice", b"\xc3\xa9", b"a")).matches(b"\xc3\xa9")
        ),
        **{f"JSON: {label}": accepts(schema) for label, schema in schemas.items()},
        "a table": table(("repeat", one, 3, 5), *pieces),
        "a table with an end far away": table(("choice", b"a", b"bbb"), b"a", b"b", b"bb", b"", b"bba"),
        "a table of a long text": table(("repeat", b"a", 4, 4), b"a", b""),
        "a table that cannot end": table(("choice", b"a", b"bc"), b"a", b"b", b"ab"),
        "a table without a text": table(("sequence", b"b", b"c"), b"b", b"", b"bb"),
        "drawn": generated(("repeat", one, 2, 5), pieces),
        "drawn until the end": generated(("repeat", one, 1, None), pieces, n_new=9),
        "drawn with a single choice": generated(
            ("sequence", b"ab", one, b"ab", ("repeat", b"b", 0, 1)), pieces
        ),
        "drawn to the limit": generated(("repeat", one, 3, None), pieces, n_new=3),
        "drawn of two": generated(("repeat", one, 2, 5), pieces, top_k=2),
        "drawn with penalties": generated(
            ("repeat", one, 4, 5), pieces, (1, 4, 1), presence=3.0, repetition=2.0
        ),
        "drawn from one as good as another": generated(("repeat", one, 2, 5), pieces, temperature=1e12),
        "the likeliest": generated(("repeat", one, 2, 5), pieces, temperature=0.0),
        "too few tokens": generated(("repeat", b"a", 3, 3), pieces, n_new=2),
        "an end that is text": generated(("repeat", one, 2, 3), pieces, end=2),
        "no text before": generated(("repeat", b"a", 3, 3), pieces, ids=()),
    }
