"""Masks over the vocabulary that let through only what can still become a text of a given form.

Claim: a form such as "a JSON object with these keys" is a machine of finitely many states that reads bytes.
Let each token run through it once, from every state, and a table says for each state which tokens may come
next. A model that chooses among those alone writes texts that parse, always, also when its last token comes.

Idea: the form is a regular expression. After some bytes there is a set of things that may still have to be
read; each such set is a state. All of it is about bytes, so tokens may end anywhere, also within a character.

Legend: ``S`` states, 0 the first; ``V`` tokens; *grammar*: a regular expression over bytes, as nested tuples.

Left out: forms that contain themselves, which need a stack; joining states that accept the same; of JSON
schemas most keywords.

Papers: Willard and Louf (2023), https://arxiv.org/abs/2307.09702; Koo, Liu and He (2024),
https://arxiv.org/abs/2407.08103
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling, distribution, draw


@dataclass(frozen=True)
class Automaton:
    """A machine that reads bytes and tells which texts are of a form.

    Attributes
    ----------
    transitions
        (S, 256) whole numbers: the state after a byte, -1 where no text of the form goes on so.
    is_accepting
        (S,) booleans: whether a text may end there.
    """

    transitions: np.ndarray
    is_accepting: np.ndarray

    def step(self, state: int, data: bytes) -> int:
        """Return the state, a plain ``int``, after some bytes from a state: -1 where none is, or from -1."""
        for byte in data:
            state = int(self.transitions[state, byte]) if state >= 0 else -1
        return state

    def matches(self, data: bytes) -> bool:
        """Return, True or False, whether the bytes, read from state 0 on, are a whole text of the form."""
        state = self.step(0, data)
        return state >= 0 and bool(self.is_accepting[state])


def compile_grammar(grammar: bytes | tuple) -> Automaton:
    """Make an automaton that accepts the texts that a grammar describes, and no others.

    Parameters
    ----------
    grammar
        One of these, in which each ``g`` is a grammar, too. Tuples, not lists.

        - bytes: these bytes; ``b""`` is the empty text;
        - ``("range", low, high)``: one byte from low to high, both included;
        - ``("sequence", g, ...)``: one after another; of none, the empty text;
        - ``("choice", g, ...)``: one of them, of which there is at least one;
        - ``("repeat", g, least, most)``: g least to most times; with None for most, as often as one likes.

    Returns
    -------
    Automaton
        Each state is reached from state 0 by some bytes, and from each a text can be ended. The arrays are
        new.

    Raises
    ------
    ValueError
        When it is none of these, or a part of it is not, even one of a repetition of no times; when low and
        high are no whole numbers with ``0 <= low <= high <= 255``; when least and most are no whole numbers
        with ``0 <= least <= most``.

    Examples
    --------
    >>> form = compile_grammar(("sequence", ("repeat", ("choice", b"ab", b"c"), 0, None), b"d"))
    >>> [form.matches(text) for text in (b"d", b"abcabd", b"ab", b"ad")]
    [True, True, False, False]
    """
    _check(grammar)
    numbers = {frozenset([(grammar,)]): 0}
    todo, is_accepting, arrows = list(numbers), [], {}
    for number, state in enumerate(todo):
        moves, may_end = _first_bytes(state)
        is_accepting.append(may_end)
        for low, high in pairwise(sorted({cut for first, last, _ in moves for cut in (first, last + 1)})):
            after = frozenset(rest for first, last, rest in moves if first <= low <= last)
            if after and after not in numbers:
                numbers[after] = len(numbers)
                todo.append(after)
            arrows[number, low, high] = numbers.get(after, -1)
    transitions = np.full((len(todo), 256), -1)
    for (number, low, high), end in arrows.items():
        transitions[number, low:high] = end
    return Automaton(transitions, np.array(is_accepting))


def _check(grammar: object) -> None:
    """Refuse what is no grammar, at any depth."""
    is_one = isinstance(grammar, bytes | tuple)  # A list would match, too.
    parts: list[object] = []
    match grammar:
        case bytes():
            pass
        case "range", int(low), int(high):
            is_one &= 0 <= low <= high <= 255
        case ("sequence", *_) | ("choice", _, *_):
            parts = [*grammar[1:]]
        case "repeat", part, int(least), None | int() as most:
            is_one &= 0 <= least <= (least if most is None else most)
            parts = [part]
        case _:
            is_one = False
    if not is_one:
        raise ValueError(f"a grammar must be one of those that compile_grammar lists; got {grammar!r}")
    for each in parts:
        _check(each)


def _first_bytes(state: frozenset[tuple]) -> tuple[list[tuple[int, int, tuple]], bool]:
    """Return the bytes that may come, as (first, last, what is to be read then), and whether none need come.

    A state is a set of what may be to be read: tuples of grammars, one after another.
    """
    moves, may_end, todo, seen = [], False, list(state), set(state)
    for rest in todo:
        if not rest:
            may_end = True
            continue
        grammar, *then = rest
        kind, parts = "bytes" if isinstance(grammar, bytes) else grammar[0], grammar[1:]
        ways: list[list] = []  # What may stand in place of the grammar.
        if kind == "bytes":
            ways = [[("range", byte, byte) for byte in grammar]]
        elif kind == "range":
            moves.append((*parts, tuple(then)))
        elif kind == "sequence":
            ways = [[*parts]]
        elif kind == "choice":
            ways = [[part] for part in parts]
        else:
            part, least, most = parts
            fewer = ("repeat", part, max(least - 1, 0), None if most is None else most - 1)
            ways = [[]] * (least == 0) + [[part, fewer]] * (most != 0)
        for each in ((*way, *then) for way in ways):
            if each not in seen:  # A part that may be empty, any number of times, leads back to itself.
                seen.add(each)
                todo.append(each)
    return moves, may_end


def json_grammar(schema: dict) -> bytes | tuple:
    r"""Write a JSON schema as a grammar.

    Parameters
    ----------
    schema
        One of these, at any depth, with no other keywords. Not changed.

        - ``{"enum": [...]}`` with at least one value;
        - ``{"type": "object", "properties": {name: schema, ...}, "required": [...]}``: these keys and no
          others, in the order of ``properties``; ``required`` names each of them once, in any order;
        - ``{"type": "array", "items": schema}``, perhaps with ``"maxItems"``, a whole number from 1 on;
        - ``{"type": "string"}``; ``{"type": "boolean"}``; ``{"type": "null"}``;
        - ``{"type": "integer"}``: perhaps a minus; then 0, or 1 to 15 digits of which the first is not 0.

    Returns
    -------
    bytes | tuple
        Of the JSON texts for which the schema holds, in UTF-8, those that have no blanks between their parts.
        Values of ``enum`` and keys are written in one way: as `json.dumps` does with ``ensure_ascii=False``
        and ``separators=(",", ":")``.
        In other strings a character stands for itself, if JSON allows that, or is one of the escapes
        ``\" \\ \/ \b \f \n \r \t``; there are no escapes ``\u``.

    Raises
    ------
    ValueError
        When a schema is none of these, among them: a keyword that is not listed for its kind; a key that is
        not required, or no string; a value that is not JSON, as NaN or a set.

    Examples
    --------
    >>> schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    >>> form = compile_grammar(json_grammar({"type": "array", "items": schema}))
    >>> [form.matches(text) for text in (b"[]", b'[{"on":true},{"on":false}]', b'[{"on":1}]', b"[{}]")]
    [True, True, False, False]
    """
    match schema:
        case {"enum": [_, *_] as values, **rest} if not rest:
            return "choice", *map(_literal, values)
        case {"type": "object", "properties": dict() as parts, "required": list() as names, **rest} if (
            not rest
            and all(isinstance(name, str) for name in [*names, *parts])
            and sorted(names) == sorted(parts)
        ):
            pairs = [("sequence", _literal(name), b":", json_grammar(part)) for name, part in parts.items()]
            return "sequence", b"{", *pairs[:1], *(("sequence", b",", pair) for pair in pairs[1:]), b"}"
        case {"type": "array", "items": item, **rest} if rest.keys() <= {"maxItems"} and all(
            type(most) is int and most >= 1 for most in rest.values()
        ):
            value, n_more = json_grammar(item), rest["maxItems"] - 1 if rest else None
            more = "repeat", ("sequence", b",", value), 0, n_more
            return "sequence", b"[", ("repeat", ("sequence", value, more), 0, 1), b"]"
        case {"type": str(kind), **rest} if kind in _SCALARS and not rest:
            return _SCALARS[kind]
    raise ValueError(f"a schema must be one of those that json_grammar lists; got {schema!r}")


@dataclass(frozen=True)
class TokenTable:
    """Which tokens may come next in each state of an automaton, and where they lead.

    Attributes
    ----------
    next_state
        (S, V) whole numbers: the state after a token, -1 where it may not come.
    n_left
        (S,) whole numbers: the fewest tokens that end the text from a state; 0 where it may end at once,
        -1 where no tokens do.
    """

    next_state: np.ndarray
    n_left: np.ndarray

    def choices(self, state: int, n_new: int) -> np.ndarray:
        """Return the tokens after which the text can still be ended, ascending, in a new array.

        ``n_new`` is how many tokens there may be at most, this one included; 0 leaves no choice.
        """
        after = self.next_state[state]
        return np.flatnonzero((after >= 0) & (self.n_left[after] < n_new))


def token_masks(automaton: Automaton, vocabulary: Sequence[bytes]) -> TokenTable:
    r"""Let every token run through an automaton, from every state.

    Parameters
    ----------
    automaton
        Not changed.
    vocabulary
        The bytes of each token, which need not be whole characters; two tokens may have the same. One without
        bytes (that marks the end, say) may never come. Not changed.

    Returns
    -------
    TokenTable
        Its states are those of the automaton; its arrays are new. A token may come in a state if the
        automaton can read all its bytes from there, and if tokens of this vocabulary can end the text then.

    Raises
    ------
    ValueError
        When no tokens make a whole text from state 0 on. (The empty text needs none.)

    Examples
    --------
    >>> form = compile_grammar(("choice", "é".encode(), ("repeat", b"e", 1, None)))
    >>> table = token_masks(form, [b"e", b"ee", b"\xc3", b"\xa9", b"\xa9e", b""])
    >>> table.choices(0, 9).tolist(), table.choices(table.next_state[0, 2], 9).tolist()
    ([0, 1, 2], [3])
    >>> table.choices(0, 1).tolist()  # the first byte of é would need a second token
    [0, 1]
    """
    n_states = len(automaton.transitions)
    transitions = np.vstack([automaton.transitions, np.full((1, 256), -1)])  # Row -1 leads to itself.
    next_state = np.empty((n_states, len(vocabulary)), int)
    for token, data in enumerate(vocabulary):
        states = np.arange(n_states) if data else -1
        for byte in data:
            states = transitions[states, byte]
        next_state[:, token] = states
    n_left = np.where(automaton.is_accepting, 0, -1)
    is_new = automaton.is_accepting
    while is_new.any():  # One token more at a time.
        leads_on = (next_state >= 0) & (n_left[next_state] >= 0)
        is_new = (n_left < 0) & leads_on.any(axis=1)
        n_left[is_new] = n_left.max() + 1
    if n_left[0] < 0:
        raise ValueError("some tokens of the vocabulary must make a text of this form; none do")
    next_state[n_left[next_state] < 0] = -1
    return TokenTable(next_state, n_left)


def constrained_generate(
    model: Callable[[np.ndarray], Tensor],
    ids: Sequence[int],
    n_new: int,
    table: TokenTable,
    end: int,
    settings: Sampling,
    rng: np.random.Generator,
) -> list[int]:
    """Continue a text by tokens that together are a text of the form, whatever the model would like.

    Parameters
    ----------
    model
        Maps ids (T,) to logits (T, V), which are not changed. Called without recording gradients, with the
        whole text so far.
    ids
        What comes before, at least one token; the form does not concern it. Not changed.
    n_new
        How many tokens to add at most.
    table
        Over the V tokens of the model.
    end
        The token by which the model ends a text. The table never lets it through.
    settings, rng
        How a token is drawn.

    Returns
    -------
    list[int]
        The new tokens, plain ``int``, without ``end``: always a whole text of the form.

    Raises
    ------
    ValueError
        When ids is empty, when the table lets ``end`` through in some state, or when n_new tokens are
        too few for any text of the form: before the model is asked. And what `distribution` raises.

    Notes
    -----
    For each token the choices are those of `TokenTable.choices`, for what is left of n_new, and ``end`` where
    the text may end. A single choice is taken: the model is not asked, nothing is drawn. Of several, the
    model's last logits, with -inf in place of all others, go through `distribution` with the whole text so
    far, and `draw` takes one. The text is over with ``end``, or with n_new tokens.
    """
    if not len(ids) or (table.next_state[:, end] >= 0).any():
        raise ValueError(f"ids must not be empty, and the end, token {end}, be no part of a text")
    if table.n_left[0] > n_new:
        raise ValueError(f"n_new must be at least {table.n_left[0]} for a text of this form; got {n_new}")
    text, state = [int(each) for each in ids], 0
    with no_grad():
        for n_left in range(n_new, 0, -1):
            choices = table.choices(state, n_left)
            if table.n_left[state] == 0:
                choices = np.sort(np.append(choices, end))
            token = int(choices[0])
            if len(choices) > 1:
                logits = np.full(table.next_state.shape[1], -np.inf)
                logits[choices] = model(np.array(text)).data[-1, choices]
                token = draw(distribution(logits, text, settings), rng)
            if token == end:
                break
            text.append(token)
            state = table.next_state[state, token]
    return text[len(ids) :]


def _ranges(*rows: str) -> tuple:
    """Return a choice of sequences of bytes, of each the first and the last that may come, in hexadecimal."""
    bounds = [[each.split("-") for each in row.split()] for row in rows]
    return "choice", *(
        ("sequence", *(("range", int(low, 16), int(high, 16)) for low, high in row)) for row in bounds
    )


_CHARACTER = (
    "choice",
    ("sequence", b"\\", ("choice", *(bytes([each]) for each in b'"\\/bfnrt'))),
    _ranges("20-21", "23-5B", "5D-7F", "C2-DF 80-BF"),
    _ranges("E0-E0 A0-BF 80-BF", "E1-EC 80-BF 80-BF", "ED-ED 80-9F 80-BF", "EE-EF 80-BF 80-BF"),
    _ranges("F0-F0 90-BF 80-BF 80-BF", "F1-F3 80-BF 80-BF 80-BF", "F4-F4 80-8F 80-BF 80-BF"),
)
"""Of a string: the well-formed bytes are those of table 3-7 in the Unicode standard."""
_UP_TO_15 = ("sequence", _ranges("31-39"), ("repeat", _ranges("30-39"), 0, 14))
_SCALARS = {
    "string": ("sequence", b'"', ("repeat", _CHARACTER, 0, None), b'"'),
    "integer": ("sequence", ("repeat", b"-", 0, 1), ("choice", b"0", _UP_TO_15)),
    "boolean": ("choice", b"true", b"false"),
    "null": b"null",
}


def _literal(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except TypeError as error:
        raise ValueError(f"a value must be JSON; got {value!r}") from error
