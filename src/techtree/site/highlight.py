"""Source code with its words in colour: one regular expression finds what is coloured, all else stays plain.

Pygments knows more kinds of words, and takes ten times as long for the megabytes of a site.
"""

import builtins
import html
import keyword
import re

_STRING = (
    r"(?:[rbfuRBFU]{0,2})(?:'{3}(?:\\.|[^\\])*?'{3}|\"{3}(?:\\.|[^\\])*?\"{3}"
    r"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")"
)
_NUMBER = (
    r"(?<![\w.])(?:0[xX][\da-fA-F_]+|0[bB][01_]+|\d[\d_]*\.?[\d_]*(?:[eE][+-]?\d+)?j?|\.\d+(?:[eE][+-]?\d+)?)"
)
_BUILTINS = [name for name in dir(builtins) if not name.startswith("_") and name not in keyword.kwlist]

_PYTHON = re.compile(
    rf"(?P<c>\#[^\n]*)|(?P<s>{_STRING})|(?<=\bdef\ )(?P<f>\w+)|(?<=\bclass\ )(?P<f2>\w+)"
    rf"|(?P<d>^[ ]*@[\w.]+)|(?<![\w.])(?P<k>(?:{'|'.join(keyword.kwlist)})\b)"
    rf"|(?<![\w.])(?P<b>(?:{'|'.join(_BUILTINS)})\b(?!\s*=[^=]))|(?P<m>{_NUMBER})",
    re.MULTILINE | re.DOTALL,
)

_C_WORDS = (
    "auto|bool|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long"
    "|register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile"
    "|while|size_t|u?int(?:8|16|32|64)_t"
)
_C = re.compile(
    r"(?P<c>//[^\n]*|/\*.*?\*/)|(?P<s>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|(?P<d>^[ ]*\#[ ]*\w+)"
    rf"|\b(?P<k>(?:{_C_WORDS})\b)|(?P<m>{_NUMBER}[fuUlL]*)",
    re.MULTILINE | re.DOTALL,
)

_PROMPT = re.compile(r"(?:>>>|\.\.\.)(?: |$)")


def highlighted(text: str, language: str = "python") -> str:
    """Return source code as HTML: comments, strings, keywords, numbers, names that are defined, decorators.

    Parameters
    ----------
    text
        The source.
    language
        "python", "pycon" for a session with prompts and answers, "c"; anything else stays plain.

    >>> highlighted("return 1")
    '<span class="k">return</span> <span class="m">1</span>'
    >>> highlighted(">>> 1 < 2", "pycon")
    '<span class="p">&gt;&gt;&gt; </span><span class="m">1</span> &lt; <span class="m">2</span>'
    """
    text = text.strip("\n")
    if language == "pycon":
        return "\n".join(_session_line(line) for line in text.splitlines())
    pattern = {"python": _PYTHON, "c": _C}.get(language)
    if pattern is None:
        return html.escape(text, quote=False)
    parts, end = [], 0
    for found in pattern.finditer(text):
        parts.append(html.escape(text[end : found.start()], quote=False))
        name = found.lastgroup or ""
        parts.append(f'<span class="{name[0]}">{html.escape(found[0], quote=False)}</span>')
        end = found.end()
    parts.append(html.escape(text[end:], quote=False))
    return "".join(parts)


def _session_line(line: str) -> str:
    prompt = _PROMPT.match(line)
    if prompt is None:
        return f'<span class="o">{html.escape(line, quote=False)}</span>' if line else ""
    shown = html.escape(prompt[0], quote=False)
    return f'<span class="p">{shown}</span>{highlighted(line[prompt.end() :])}'
