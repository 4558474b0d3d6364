"""An implementation beside its docstrings: pieces of source, each with the words that belong to it."""

import ast
import re
import textwrap
from dataclasses import dataclass

from markupsafe import Markup, escape

from techtree.site.markup import code

_HEADS = ("Parameters", "Returns", "Yields", "Raises", "Attributes", "Examples", "Notes", "References")


@dataclass(frozen=True)
class Piece:
    """A stretch of source without its docstring, and the docstring.

    ``name`` is empty where the stretch defines nothing.
    """

    name: str
    docstring: str
    source: str


def pieces(source: str) -> list[Piece]:
    """Cut a module where functions, classes and documented methods begin.

    Joined, the pieces are the module without its docstrings.
    """
    lines = source.splitlines()
    module = ast.parse(source)
    starts: list[tuple[int, str, ast.AST]] = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            starts.append((_first_line(node, lines), node.name, node))
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and ast.get_docstring(m)]
            starts += [(_first_line(m, lines), f"{node.name}.{m.name}", m) for m in methods]
    cuts = [(0, "", module), *starts]
    ends = [start for start, _, _ in starts] + [len(lines)]
    found = []
    for (start, name, node), end in zip(cuts, ends, strict=True):
        text = _without_docstring(lines, start, end, node)
        words = ast.get_docstring(node) or ""  # type: ignore[arg-type]
        if words or text.strip():
            found.append(Piece(name, words, text))
    return _joined(found)


def _joined(found: list[Piece]) -> list[Piece]:
    """Let what has no words follow what stands before it."""
    joined: list[Piece] = []
    for piece in found:
        if joined and not piece.docstring and not joined[-1].docstring:
            before = joined[-1]
            text = f"{before.source}\n\n\n{piece.source}" if before.source else piece.source
            joined[-1] = Piece(before.name, "", text)
        else:
            joined.append(piece)
    return joined


def _first_line(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> int:
    """Return where a definition begins, with its decorators and the comments above them."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    while first > 0 and lines[first - 1].strip().startswith("#"):
        first -= 1
    return first


def _without_docstring(lines: list[str], start: int, end: int, node: ast.AST) -> str:
    kept = set(range(start, end))
    body = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        first, last = body[0].lineno - 1, body[0].end_lineno or body[0].lineno
        kept -= set(range(first, last))
        while last in kept and not lines[last].strip():
            kept.discard(last)
            last += 1
    text = "\n".join(lines[i] for i in sorted(kept)).strip("\n").rstrip()
    # A method keeps its place within the class.
    return re.sub(r"\n{4,}", "\n\n\n", text)


def docstring_html(text: str) -> Markup:
    """Return a docstring in numpydoc's form as HTML."""
    parts, head = [], ""
    for block in _blocks(text):
        lines = block.splitlines()
        if len(lines) >= 2 and lines[0] in _HEADS and set(lines[1]) == {"-"}:
            head, lines = lines[0], lines[2:]
            parts.append(f'<p class="head">{head}</p>')
        if not lines:
            continue
        if head in ("Parameters", "Returns", "Yields", "Raises", "Attributes"):
            parts.append(_entries(lines))
        elif lines[0].lstrip().startswith(">>>"):
            parts.append(str(code(textwrap.dedent("\n".join(lines)), "pycon")))
        elif all(line.startswith("    ") for line in lines):
            parts.append(str(code(textwrap.dedent("\n".join(lines)), "text")))
        else:
            parts.append(_prose(lines))
    return Markup("".join(parts))


def _prose(lines: list[str]) -> str:
    """Return a paragraph, or a list where lines begin with a dash; lines that are set in stay lines."""
    starts = [number for number, line in enumerate(lines) if line.startswith("- ")]
    if starts:
        before = f"<p>{_words(' '.join(lines[: starts[0]]))}</p>" if starts[0] else ""
        ends = [*starts[1:], len(lines)]
        items = [" ".join(line.strip() for line in lines[a:b])[2:] for a, b in zip(starts, ends, strict=True)]
        return f"{before}<ul>{''.join(f'<li>{_words(item)}</li>' for item in items)}</ul>"
    if any(line.startswith("  ") for line in lines[1:]):
        return f"<p>{'<br>'.join(_words(line) for line in lines)}</p>"
    return f"<p>{_words(' '.join(lines))}</p>"


def _blocks(text: str) -> list[str]:
    """Return what stands between empty lines; a heading begins a block of its own."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    return [block for block in blocks if block.strip()]


def _entries(lines: list[str]) -> str:
    """Return names and what they mean as a list; more of a meaning, after an empty line, as prose."""
    if all(line.startswith(" ") for line in lines):
        return f'<div class="more">{_prose(textwrap.dedent(chr(10).join(lines)).splitlines())}</div>'
    parts: list[str] = []
    meaning: list[str] = []

    def close() -> None:
        if meaning:
            parts.append(f"<dd>{_words(' '.join(meaning))}</dd>")
            meaning.clear()

    for line in lines:
        if line.startswith(" "):
            meaning.append(line.strip())
        else:
            close()
            parts.append(f"<dt><code>{escape(line)}</code></dt>")
    close()
    if not any(part.startswith("<dt>") for part in parts):
        return f"<p>{_words(' '.join(line.strip() for line in lines))}</p>"
    if parts[-1].startswith("<dt>"):  # A name that needs no words.
        parts.append("<dd></dd>")
    return f"<dl>{''.join(parts)}</dl>"


def _words(text: str) -> str:
    """Return prose; what stands between grave accents is code, and an address is a link."""
    parts = re.split(r"(``.+?``|`[^`]+`|https?://[^\s)>,]+)", text)
    shown = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            shown.append(re.sub(r"\*(\w[^*]*\w)\*", r"<em>\1</em>", str(escape(part))))
        elif part.startswith("`"):
            shown.append(f"<code>{escape(part.strip('`'))}</code>")
        else:
            address = part.rstrip(".")
            shown.append(f'<a href="{escape(address)}">{escape(address)}</a>{part[len(address) :]}')
    return "".join(shown)
