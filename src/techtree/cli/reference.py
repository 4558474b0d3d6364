"""The reference of all commands as a page, made from the sources.

`python -m techtree.cli.reference > docs/cli.md` writes it.
"""

import ast
import dataclasses
import importlib
import inspect
import typing
from pathlib import Path
from typing import Any

from techtree.cli.main import COMMANDS, module_of

HEAD = """\
# Commands

Made by `python -m techtree.cli.reference`; a test keeps it current.

In a clone every command is also `./techtree COMMAND`, and `./techtree test` runs the tests. Exit codes: 0 all
went well, 1 a check found something wrong, 2 an input cannot be used, 130 Ctrl-C.
"""


def page() -> str:
    """Return the reference as Markdown."""
    return "\n".join([HEAD, *(_section(name) for name in COMMANDS)])


def _section(name: str) -> str:
    config = importlib.import_module(module_of(name)).Config
    lines = [f"## techtree {name}\n", f"{inspect.cleandoc(config.__doc__)}\n"]
    lines += ["| argument | default | what |", "| --- | --- | --- |", *_rows(config)]
    return "\n".join(lines) + "\n"


def _rows(config: type) -> list[str]:
    """Return a line for each option; those of a nested dataclass are options like the others."""
    described = _field_docstrings(config)
    lines = []
    for field in dataclasses.fields(config):
        inner = typing.get_args(field.type)[:1]
        if inner and dataclasses.is_dataclass(inner[0]):
            lines += _rows(typing.cast(type, inner[0]))
            continue
        is_positional = "Positional" in str(field.type)
        shown = field.name.upper() if is_positional else f"`--{field.name.replace('_', '-')}`"
        lines.append(f"| {shown} | {_default(field)} | {described[field.name]} |")
    return lines


def _field_docstrings(config: type) -> dict[str, str]:
    """Return the text below each field of a dataclass."""
    body = ast.parse(inspect.getsource(config)).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(text.value, ast.Constant)
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default if field.default is not dataclasses.MISSING else None
    if value is None or value == "" or value == ():
        return ""
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    print(page(), end="")
