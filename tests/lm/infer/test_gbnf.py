"""Grammars of llama.cpp's: texts that fit and texts that do not, worked out by hand, on bytes as tokens."""

import pytest

pytest.importorskip("torch")

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from techtree.errors import InputError
from techtree.lm.infer.gbnf import MAX_DEPTH, MAX_RULES, lark_from_gbnf
from techtree.lm.infer.grammar_trial import _Bytes, parser_limits


def fits(grammar, text):
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257)
    lark = LLMatcher.grammar_from_lark(lark_from_gbnf(grammar))
    matcher = LLMatcher(tokenizer, lark, log_level=0, limits=parser_limits())
    assert not matcher.is_error(), matcher.get_error()
    ids = list(text.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


JSON = r"""
# as llama.cpp ships it
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "a" | "b"', ["a", "b"], ["", "c", "ab"]),
        ("root ::= [a-z]+", ["abc", "z"], ["", "A"]),
        ("root ::= [^a]", ["b", "\n", "é", "\\"], ["a", "", "bb"]),
        ("root ::= .", ["a", "\n", "é", "😀", "\0"], ["", "ab"]),
        ("root ::= .*", ["a\nb", ""], []),
        ('root ::= "a"{2,3}', ["aa", "aaa"], ["a", "aaaa"]),
        ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
        ('root ::= "a"{2,}', ["aa", "aaaaa"], ["a"]),
        ('root ::= "a"{0,2}', ["", "aa"], ["aaa"]),
        (r'root ::= "\x41\u0042\U00000043"', ["ABC"], ["x41"]),
        (r'root ::= "\u00e9\U0001F600"', ["é😀"], ["e"]),
        (r"root ::= [\x41-\x43]", ["A", "C"], ["D"]),
        (r"root ::= [\u00e0-\u00ff]", ["é"], ["a"]),
        (r"root ::= [\U0001F600-\U0001F64F]", ["😀"], ["a"]),
        (r'root ::= "\n\t\r\\\""', ['\n\t\r\\"'], ["n"]),
        (r'root ::= "\[x\]"', ["[x]"], []),
        (r"root ::= [\]\[]", ["]", "["], ["\\"]),
        ("root ::= [-+*/]", ["-", "+", "*", "/"], [",", "."]),
        ("root ::= [a-]", ["a", "-"], ["b"]),
        ("root ::= [+--]", ["+", ",", "-"], ["."]),
        ("root ::= [&&a]", ["&", "a"], ["b"]),
        ("root ::= [~~]", ["~"], ["b"]),
        ("root ::= [a^]", ["a", "^"], ["b"]),
        ("root ::= [#.(]", ["#", ".", "("], ["b"]),
        (r'root ::= [^"\\\x7F\x00-\x1F]', ["a", "é"], ['"', "\\", "\n"]),
        ('# c\nroot ::= "a" # "b"\nx ::= "b"', ["a"], ["ab", ""]),
        ('root ::= "a#b" "c.(d"', ["a#bc.(d"], ["a"]),
        ('root ::= "a" |\n "b"', ["a", "b"], [""]),
        ('root ::= ("a"\n| "b")', ["a", "b"], [""]),
        ('root ::= x\nx ::= "(" x ")" | ""', ["", "()", "(())"], ["("]),
        ('root ::= x\nx ::= x "a" | "a"', ["a", "aa"], [""]),
        ('root ::= ("a"|"ab") ("c"|"bc"|"d")', ["ac", "abc", "abbc", "ad", "abd"], ["a"]),
        ('root ::= word (" " word)*\nword ::= [a-z]+', ["a b cd", "a"], [" a", "a ", ""]),
        ('root ::= ""', [""], ["a"]),
        ('root ::= ("a" | ) "b"', ["ab", "b"], ["a"]),
        ('root ::= aB a_b a-b\naB ::= "a"\na_b ::= "b"\na-b ::= "c"', ["abc"], ["aaa"]),
        ('root ::= start 1a\nstart ::= "a"\n1a ::= "x"', ["ax"], ["a"]),
        ('root ::= "a" root | "b"', ["aab", "b"], ["a"]),
        ('root ::= "a"\r\nx ::= "b"\r\n', ["a"], []),
        ('root ::= "a\n"', ["a\n"], ["a"]),
        ("root ::= [\n\r\u0085\u2028]", ["\n", "\r", "\x85", "\u2028"], ["n"]),
        ('root ::= "é😀/\u0085"', ["é😀/\x85"], []),
        ("root ::= [é😀]", ["é", "😀"], ["e"]),
        ('root ::= ("a"+)+', ["a", "aa"], [""]),
        ('root ::= ("a"*)* ("b"*)?', ["", "aa", "ab"], ["ba"]),
        ("root ::= ([a-z]{1,3}){2}", ["ab", "abcdef"], ["a", "abcdefg"]),
        (JSON, ["{}", '{"a": [1, -2.5e3, "x\\n\\u00e9", null], "b": {"c": true}}'], ["[]", "{a:1}", '{"a"}']),
    ],
)
def test_what_fits(grammar, good, bad):
    assert [text for text in good if not fits(grammar, text)] == []
    assert [text for text in bad if fits(grammar, text)] == []


def test_where_pieces_overlap_less_fits_and_never_more():
    for grammar in ('root ::= [a-z]* "end"', 'root ::= x y\nx ::= [a-z]*\ny ::= "end"'):
        assert not any(fits(grammar, text) for text in ("", "a", "en", "endx"))
    assert [fits('root ::= [a-z]* "end"', text) for text in ("end", "xend", "endend")] == [True, True, False]
    assert fits('root ::= [a-z]* "e" "n" "d"', "endend")  # the way out: pieces of one character


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ("", "a rule root; it has: none"),
        ('x ::= "a"', "a rule root; it has: x"),
        ("root ::= item\nitems ::= [a]", "no 'item'; did you mean items"),
        ('root ::= "', "must be closed"),
        ("root ::= [", "must be closed"),
        ('root ::= ("a"', "GBNF"),
        ('root ::= "a")', "GBNF"),
        ("root ::= []", "must hold a character"),
        ("root ::= [^]", "must hold a character"),
        (r'root ::= "\q"', r"after \\ must stand"),
        (r"root ::= [\w]", r"after \\ must stand"),
        (r'root ::= "\uD800"', "in Unicode"),
        (r'root ::= "\UFFFFFFFF"', "in Unicode"),
        ('root ::= !"a"', "GBNF"),
        ('root = "a"', "a rule root"),
        ('root ::= "a"{x}', "GBNF"),
        ('root ::= "a"\n "b"', "GBNF"),
        ("root ::= <[5]>", "GBNF"),
        ("root ::= " + "(" * (MAX_DEPTH + 1) + '"a"' + ")" * (MAX_DEPTH + 1), f"{MAX_DEPTH} deep"),
        (
            "".join(f'r{i} ::= "a"\n' for i in range(MAX_RULES)) + 'root ::= "b"',
            f"{MAX_RULES} rules or fewer",
        ),
    ],
)
def test_what_is_refused(grammar, says):
    with pytest.raises(InputError, match=says):
        lark_from_gbnf(grammar)
