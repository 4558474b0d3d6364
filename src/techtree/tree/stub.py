"""The stub of an exercise: the implementation with its bodies cut, so that nothing is written twice."""

import ast
from collections.abc import Collection


def make_stub(source: str, exercise: Collection[str]) -> str:
    r"""Cut the bodies of an implementation.

    Imports, the module's docstring, and the signatures and docstrings of the exercise's functions and
    classes stay. Every other definition and constant goes, since it would give the answer away.

    Parameters
    ----------
    source
        The implementation.
    exercise
        The names that the learner writes.

    Returns
    -------
    str
        Python source that imports and whose every function raises ``NotImplementedError``.

    Examples
    --------
    >>> print(make_stub('def double(x):\n    "Return 2x."\n    return x + x', ["double"]))
    def double(x):
        "Return 2x."
        raise NotImplementedError("write double")
    <BLANKLINE>
    """
    lines = source.splitlines()
    kept: list[str] = []
    module = ast.parse(source)
    for index, node in enumerate(module.body):
        is_docstring = index == 0 and _is_text(node)
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            kept += _lines(lines, node)
        elif isinstance(node, ast.FunctionDef) and node.name in exercise:
            kept += ["", "", *_cut_function(lines, node)]
        elif isinstance(node, ast.ClassDef) and node.name in exercise:
            kept += ["", "", *_cut_class(lines, node)]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            kept += [f"\n{name} = None  # write it" for name in _names(node) if name in exercise]
        if is_docstring:
            kept.append("")
    return "\n".join(kept).strip("\n") + "\n"


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _names(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _lines(lines: list[str], node: ast.stmt) -> list[str]:
    return lines[_first_line(node) - 1 : node.end_lineno]


def _cut_function(lines: list[str], node: ast.FunctionDef) -> list[str]:
    body = node.body
    head_end = body[0].end_lineno if _is_text(body[0]) else _first_line(body[0]) - 1
    head = lines[_first_line(node) - 1 : head_end]
    if not _is_text(body[0]) and body[0].lineno == node.lineno:
        raise ValueError(f"line {node.lineno}: the body of {node.name} must start on a line of its own")
    # A comment between the signature and the first statement belongs to the body.
    while head[-1].lstrip().startswith("#"):
        head.pop()
    indent = " " * body[0].col_offset
    return [*head, f'{indent}raise NotImplementedError("write {node.name}")']


def _cut_class(lines: list[str], node: ast.ClassDef) -> list[str]:
    """Keep the head, the docstring and the fields with what is said about them; cut each method."""
    head_end = node.body[0].end_lineno if _is_text(node.body[0]) else _first_line(node.body[0]) - 1
    kept = lines[_first_line(node) - 1 : head_end]
    previous: ast.stmt | None = None
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            kept += ["", *_cut_function(lines, member)]
        elif isinstance(member, ast.AnnAssign | ast.Assign):
            is_first = not isinstance(previous, ast.AnnAssign | ast.Assign)
            kept += ([""] if is_first else []) + _lines(lines, member)
        elif _is_text(member) and isinstance(previous, ast.AnnAssign | ast.Assign):
            kept += _lines(lines, member)
            continue  # A field with its description is still a field.
        previous = member
    return kept
