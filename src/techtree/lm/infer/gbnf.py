r"""llama.cpp's grammars (GBNF) in the form that llguidance reads.

    root ::= "a" [^\n]{1,3} (x | .)+        rules, texts, classes of characters, groups, repetitions

The library's own converter does the work. Here the grammar is first written so that the converter reads it
right: signs by their numbers (its `\u00e9`, `[+--]`, `[&&]`, `"\["` mean something else, or nothing), `.` as
a class that holds the end of a line too, groups so that they may be repeated in groups, and rules by numbers,
since the converter takes `aB` and `a_b` for one.

The automaton reads pieces as long as they can be: in `[a-z]* "end"` it takes no `end` for letters. So all it
lets through fits the grammar, but where pieces may overlap, some texts that fit are not let through.
"""

import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from techtree.errors import InputError, did_you_mean

MAX_RULES = 200
MAX_DEPTH = 100
"""Of brackets; the converter goes into them by recursion."""

_CHARACTER = r'\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\[nrt\\"\[\]]|[^\\]'
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_RANGE = re.compile(f"({_CHARACTER})(?:-({_CHARACTER}))?", re.DOTALL)
_PART = re.compile(
    r'"(?P<text>(?:\\.|[^"\\])*)"|\[(?P<negated>\^?)(?P<class>(?:\\.|[^\]\\])*)\]|(?P<comment>#[^\r\n]*)'
    r"|(?P<count>\{[^{}]*\})|(?P<name>[\w-]+)(?P<defined>[ \t]*::=)?|(?P<other>.)",
    re.DOTALL,
)
_ANY = f"[\\x00-{chr(0x10FFFF)}]"


def lark_from_gbnf(grammar: str) -> str:
    r"""Return a grammar in the library's form, without the options that may stand above it.

    Raises
    ------
    InputError
        When it is no GBNF, has no rule `root`, uses a rule that it does not have, or is too large.

    >>> print(lark_from_gbnf('root ::= "\\u00e9" x\nx ::= [+--]').strip())
    start: "é" R1
    R1: /[\x2b-\x2d]/
    """
    parts = list(_PART.finditer(grammar))
    numbers = {name: i for i, name in enumerate(dict.fromkeys(m["name"] for m in parts if m["defined"]))}
    if "root" not in numbers:
        raise InputError(f"a grammar must have a rule root; it has: {', '.join(numbers) or 'none'}"[:200])
    if len(numbers) > MAX_RULES:
        raise InputError(f"a grammar must have {MAX_RULES} rules or fewer; got {len(numbers)}: join some")
    names = {name: "root" if name == "root" else f"r{i}" for name, i in numbers.items()}
    depth = 0
    for part in parts:
        depth += {"(": 1, ")": -1}.get(part["other"] or "", 0)
        if depth > MAX_DEPTH:
            raise InputError(f"a grammar's brackets must be {MAX_DEPTH} deep or less: make rules of some")
    try:
        lark = gbnf_to_lark("".join(_rewritten(part, names) for part in parts))
    except InputError:
        raise
    except Exception as error:  # the library raises nothing more precise
        raise InputError(f"a grammar must be llama.cpp's GBNF; {error or type(error).__name__}") from error
    return lark.removeprefix("%llguidance {}").lstrip()


def _rewritten(part: re.Match[str], names: dict[str, str]) -> str:
    """Return one part of a grammar as the converter reads it right."""
    if part["text"] is not None:
        return f'"{_characters(part["text"])}"'
    if part["class"] is not None:
        if not part["class"]:
            raise InputError(f"a class must hold a character; got {part[0]}")
        return f"[{part['negated']}{_characters(part['class'], has_ranges=True)}]"
    if part[0] in '"[':
        raise InputError(f"a grammar's texts and classes must be closed; {part[0]} is open at the end")
    if part["comment"] is not None:
        return ""
    if name := part["name"]:
        if name not in names:
            known = did_you_mean(name, names)
            raise InputError(f"a grammar must have each rule that it uses; there is no {name!r}{known}")
        return names[name] + (part["defined"] or "")
    # An empty text keeps the converter from taking the brackets away, and from `"a"++`.
    return {".": _ANY, "(": '("" '}.get(part[0], part[0])


def _characters(text: str, *, has_ranges: bool = False) -> str:
    """Return the characters of a text, or of a class with its ranges, each by its number."""
    pattern = _RANGE if has_ranges else re.compile(f"({_CHARACTER})()", re.DOTALL)
    found, end = [], 0
    while end < len(text):
        match = pattern.match(text, end)
        if match is None:
            raise InputError(
                'after \\ must stand n r t \\ " [ ], or xHH uHHHH UHHHHHHHH with hexadecimal digits; '
                f"got {text[end : end + 10]}"
            )
        found.append("-".join(map(_by_number, filter(None, match.groups()))))
        end = match.end()
    return "".join(found)


def _by_number(character: str) -> str:
    """Return one character, which may be escaped, as both texts and classes of the library's have it."""
    if character[0] == "\\" and character[1] in "xuU":
        code = int(character[2:], 16)
    else:
        code = ord(_ESCAPED.get(character[1], character[1]) if character[0] == "\\" else character)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise InputError(f"a character must be in Unicode; got {character}")
    letter = chr(code)
    return letter if code >= 0x80 or letter.isalnum() else f"\\x{code:02x}"
