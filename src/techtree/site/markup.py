"""Markdown, mathematics and source code as HTML, all made here: a page needs no script to show them."""

import html
import re
from functools import cache
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from markupsafe import Markup
from math_core import LatexError, LatexToMathML
from mdit_py_plugins.dollarmath import dollarmath_plugin

from techtree.errors import InputError
from techtree.site.highlight import highlighted

_LESSON = re.compile(r"(?:\.\./)+(?:[a-z0-9_]+/)?(?P<tech>[a-z][a-z0-9_]*)/README\.md(?P<fragment>#.*)?")


_PRIMED = re.compile(r"<msup>(<mi[^>]*>[^<]*</mi>)<mo>([′″‴]+)</mo></msup>")
_SIZED = re.compile(r"<(?!math|mstyle)\w+[^>]* (?:displaystyle|scriptlevel)=")


def _with_styles(made: str) -> str:
    """Put the size of a part on an element of its own, where older rules of MathML allow it only there."""
    top = ElementTree.fromstring(made)
    for parent in list(top.iter()):
        for place, child in enumerate(list(parent)):
            moved = {
                key: child.attrib.pop(key) for key in ("displaystyle", "scriptlevel") if key in child.attrib
            }
            if moved and child.tag != "mstyle":
                style = ElementTree.Element("mstyle", moved)
                style.append(child)
                parent[place] = style
            else:
                child.attrib |= moved
    return ElementTree.tostring(top, encoding="unicode")


@cache
def _math() -> LatexToMathML:
    return LatexToMathML()


def math(latex: str, is_block: bool = False) -> Markup:
    """Return a formula as MathML.

    Raises
    ------
    InputError
        When a command is unknown, or the formula is malformed.
    """
    try:
        made = _math().convert_with_local_state(latex.strip(), displaystyle=is_block)
    except LatexError as error:
        raise InputError(
            f"the formula {latex.strip()!r} must be LaTeX that math-core knows: {error}"
        ) from None
    # The macron of \bar lies on its letter in Chromium; an overline does not.
    made = re.sub(r"(<mo[^>]*>)(?:\u00af|\u02c9)(</mo>)", "\\1\u203e\\2", made)
    # A prime is drawn raised already; as an exponent it is raised and made small once more.
    made = _PRIMED.sub(r'<mrow>\1<mo lspace="0" rspace="0" form="postfix">\2</mo></mrow>', made)
    # Named characters are HTML's; what comes next reads XML, too.
    made = re.sub(r"&(?!amp;|lt;|gt;|quot;)\w+;", lambda found: html.unescape(found[0]), made)
    if _SIZED.search(made):
        made = _with_styles(made)
    return Markup(re.sub(r' style="([^"]*)"', lambda found: _classes(found[1], latex), made))


_STYLES = {
    "text-align: left": "left",
    "text-align: right": "right",
    "padding-left: 0": "tight-left",
    "padding-right: 0": "tight-right",
    "padding-left: 1em": "wide-left",
    "padding-right: 0.1667em": "thin-right",
    "margin-left: -0.1667em": "pulled",
    "justify-items: start": "",
    "justify-items: end": "",
}
"""The styles of formulas, as classes of the style sheet: a strict policy obeys no style within a page."""


def _classes(style: str, latex: str) -> str:
    style = re.sub(r"\d+\.\d+", lambda number: f"{round(float(number[0]), 4):g}", style)
    parts = [re.sub(r":\s*", ": ", part.strip()) for part in style.split(";") if part.strip()]
    unknown = [part for part in parts if part not in _STYLES]
    if unknown:
        raise InputError(
            f"the formula {latex.strip()!r} needs the style {unknown[0]!r}, for which there is no class"
        )
    return f' class="{" ".join(_STYLES[part] for part in parts if _STYLES[part])}"'


def markdown(text: str, prefix: str = "") -> Markup:
    """Return Markdown as HTML.

    Parameters
    ----------
    text
        Markdown with formulas between dollar signs. HTML in it is shown, not obeyed.
    prefix
        What stands before the page of a technology in a link: "" among the technologies, "tech/" above them.

    Raises
    ------
    InputError
        When a formula cannot be rendered.
    """
    return Markup(_tied(_parser().render(_untorn(text), {"prefix": prefix})))


def _untorn(text: str) -> str:
    r"""Join lines where a paragraph goes on with a sign or number that would begin a list.

    Lists begin after an empty line.

    >>> _untorn("a $p\n- q$, N -\n1. So\n\n- c\n- d\n")
    'a $p - q$, N - 1. So\n\n- c\n- d\n'
    """
    lines: list[str] = []
    in_paragraph = in_fence = False
    for line in text.split("\n"):
        in_fence ^= line.lstrip().startswith("```")
        begins_list = re.match(r" {0,3}(?:[-+*]|1[.)]) ", line)
        if in_paragraph and not in_fence and begins_list:
            lines[-1] += f" {line.lstrip()}"
            continue
        is_first = not (lines and lines[-1].strip())
        lines.append(line)
        is_text = bool(line.strip()) and not in_fence and not re.match(r"\s*(?:```|#|>)", line)
        in_paragraph = is_text and (
            in_paragraph or (is_first and not re.match(r"\s*(?:[-+*]|\d+[.)]) ", line))
        )
    return "\n".join(lines)


def inline(text: str, prefix: str = "") -> Markup:
    """Return one line of Markdown as HTML, without a paragraph around it."""
    return Markup(_tied(_parser().renderInline(text, {"prefix": prefix})))


def _tied(made: str) -> str:
    """Keep a formula on one line with its brackets and with what ends the clause."""
    return re.sub(
        r"(\(?)(<math>(?:(?!</math>).)*</math>)([,.;:!?)]*)",
        lambda found: f'<span class="tied">{found[0]}</span>' if found[1] or found[3] else found[0],
        made,
    )


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    dollarmath_plugin(parser, allow_space=False, double_inline=True)
    parser.add_render_rule("math_inline", lambda self, tokens, i, options, env: math(tokens[i].content))
    parser.add_render_rule("math_inline_double", _math_block)
    parser.add_render_rule("math_block", _math_block)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>')
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    parser.add_render_rule("link_open", _link)
    return parser


def _math_block(self, tokens, i, options, env) -> str:
    # A span, since it may stand within a paragraph.
    made = "".join(math(part, is_block=True) for part in _parts(tokens[i].content))
    return f'<span class="formula">{made}</span>'


def _parts(latex: str) -> list[str]:
    r"""Return the formulas that stand side by side, so that a narrow screen can put them below each other.

    >>> _parts(r"a = b, \qquad c = \left( d \qquad e \right)")
    ['a = b,', 'c = \\left( d \\qquad e \\right)']
    """
    parts, depth, begin = [], 0, 0
    for found in re.finditer(r"\\(?:left|begin)\b|\\(?:right|end)\b|\\qquad\b|\\.|[{}]", latex):
        word = found[0]
        if word == "\\qquad" and depth == 0:
            parts.append(latex[begin : found.start()].strip())
            begin = found.end()
        elif word in ("\\left", "\\begin", "{"):
            depth += 1
        elif word in ("\\right", "\\end", "}"):
            depth -= 1
    return [part for part in (*parts, latex[begin:].strip()) if part]


def _fence(self, tokens, i, options, env) -> str:
    text, language = tokens[i].content, tokens[i].info.strip()
    if language in ("python", "pycon", "py"):
        is_session = text.lstrip().startswith(">>>")
        return str(code(text, "pycon" if is_session else "python"))
    return str(code(text, "text"))


def _link(self, tokens, i, options, env) -> str:
    token = tokens[i]
    found = _LESSON.fullmatch(token.attrs["href"])
    if found is not None:
        token.attrs["href"] = f"{env['prefix']}{found['tech']}.html{found['fragment'] or ''}"
    return self.renderToken(tokens, i, options, env)


def code(text: str, language: str = "python") -> Markup:
    """Return source code as a block with its words in colour."""
    return Markup(f"<pre><code>{highlighted(text, language)}</code></pre>")


def plain(text: str) -> str:
    r"""Return Markdown without its marks, on one line, for a search and for descriptions.

    >>> plain("The *wavelength* of `rope`: see [this](x.html), $2 \\pi$.")
    'The wavelength of rope: see this, 2 pi.'
    """
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", " ", text)
    text = re.sub(r"(?<!\w)\*+|\*+(?!\w)|`", "", text)
    text = re.sub(r"\$+", "", re.sub(r"\\([a-zA-Z]+)", r"\1", text))
    return " ".join(text.split())
