"""Mechanical mutants of a source: one operator, constant, condition, argument or statement changed in each.

They are not clever, and that is their use: a test suite that accepts one has a hole, or the mutant is the
same program in other words. A technology lists the latter in its `variants.HARMLESS`, each with the reason.
"""

import ast
import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}


SYMMETRIC = frozenset({"add", "gcd", "max", "maximum", "min", "minimum", "multiply", "swapaxes"})
"""Functions whose first two arguments may change places."""


GUARDS = frozenset({"strict", "stacklevel"})
"""Keywords that change nothing in a right program."""


@dataclass(frozen=True)
class Mutant:
    """A changed source; the name tells the statement before and after."""

    name: str
    source: str


def mutate(source: str) -> list[Mutant]:
    r"""Return every mutant of a source, each different from it and from the others.

    Messages of errors, docstrings, imports and annotations stay as they are.

    Examples
    --------
    >>> [m.name for m in mutate("def f(x):\n    return x + 1")]
    ['return x + 1 => return x - 1', 'return x + 1 => return x + 2', 'return x + 1 => return x + 0']
    """
    original = ast.parse(source)
    text = ast.unparse(original)
    found: dict[str, Mutant] = {}
    names: dict[str, int] = {}
    for statement, change in _changes(original):
        before = _head(statement)
        undo = change()
        after, mutated = _head(statement), ast.unparse(original)
        undo()
        after = "pass" if after == before else after  # The statement itself is gone.
        if mutated == text or mutated in found:
            continue
        name = f"{before} => {after}"
        names[name] = names.get(name, 0) + 1
        found[mutated] = Mutant(name if names[name] == 1 else f"{name} #{names[name]}", mutated)
    return list(found.values())


def kinds_of_functions(source: str, exercise: Collection[str]) -> dict[str, set[str]]:
    r"""Return what each function of an exercise takes and gives, by its annotations.

    Examples
    --------
    >>> found = kinds_of_functions("def f(x: np.ndarray, name: str) -> np.ndarray:\n    return x", ["f"])
    >>> sorted(found["f"])
    ['gives arrays', 'gives something', 'takes arrays', 'takes text']
    """

    def is_array(annotation: ast.expr | None) -> bool:
        return annotation is not None and any(
            word in ast.unparse(annotation) for word in ("ndarray", "Tensor")
        )

    kinds: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in exercise and not node.decorator_list:
            annotations = [each.annotation for each in [*node.args.posonlyargs, *node.args.args]]
            found = {"takes arrays" for each in annotations if is_array(each)}
            found |= {"takes text" for each in annotations if each and ast.unparse(each) in ("str", "bytes")}
            found |= {"gives arrays"} if is_array(node.returns) else set()
            gives_nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
            kinds[node.name] = found if gives_nothing else found | {"gives something"}
    return kinds


def _head(statement: ast.stmt) -> str:
    """Return a statement on one line; of a compound one, what stands before its body."""
    shown = copy.copy(statement)
    for block in ("body", "orelse", "finalbody", "handlers"):
        if getattr(shown, block, None) and not isinstance(shown, ast.Try):
            setattr(shown, block, [ast.Pass()] if block == "body" else [])
    text = " ".join(ast.unparse(shown).split())
    return text.removesuffix(" pass")


Change = Callable[[], Callable[[], None]]
"""Changes the tree in place, and returns what changes it back."""


def _changes(module: ast.Module) -> Iterator[tuple[ast.stmt, Change]]:
    """Give each change with the statement that it happens in."""
    for parent in ast.walk(module):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(parent, block, None)
            if not isinstance(statements, list):
                continue
            for index, statement in enumerate(statements):
                if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) or _is_text(statement):
                    continue
                yield from ((statement, change) for change in _of_statement(statements, index, statement))
                for node in _expressions(statement):
                    yield from ((statement, change) for change in _of_expression(node))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _of_statement(statements: list[ast.stmt], index: int, statement: ast.stmt) -> Iterator[Change]:
    if isinstance(statement, ast.Expr | ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break):
        yield lambda: _set_item(statements, index, ast.Pass())
    if isinstance(statement, ast.If | ast.While):
        for value in (True, False):
            if not (isinstance(statement, ast.While) and value):  # It would never end.
                yield lambda value=value: _set(statement, "test", ast.Constant(value))


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Give the expressions of a statement itself, not those of the statements inside it."""
    for name, value in ast.iter_fields(statement):
        if name in ("body", "orelse", "finalbody", "handlers", "annotation", "returns", "exc", "type_params"):
            continue
        if name == "args" and isinstance(value, ast.arguments):
            for default in [*value.defaults, *filter(None, value.kw_defaults)]:
                yield from _walk(default)
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST) and name != "decorator_list":
                yield from _walk(each)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        is_guard = isinstance(child, ast.keyword) and child.arg in GUARDS
        if not is_guard and not isinstance(child, ast.JoinedStr):
            yield from _walk(child)


def _of_expression(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS.get(type(operator), ()):
                yield lambda index=index, other=other: _set_item(node.ops, index, other())
    elif isinstance(node, ast.BinOp):
        for other in OPERATORS.get(type(node.op), ()):
            yield lambda other=other: _set(node, "op", other())
    elif isinstance(node, ast.BoolOp):
        yield lambda: _set(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield lambda: _set(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else node.op)
        if isinstance(node.op, ast.Not):
            yield lambda: _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Constant):
        yield from (lambda value=value: _set(node, "value", value) for value in _other_values(node.value))
    elif isinstance(node, ast.IfExp):
        for value in (True, False):
            yield lambda value=value: _set(node, "test", ast.Constant(value))
    elif isinstance(node, ast.Call):
        plain = [each for each in node.args if not isinstance(each, ast.Starred)]
        called = ast.unparse(node.func).rpartition(".")[2]
        if len(plain) >= 2 and len(plain) == len(node.args) and called not in SYMMETRIC:
            yield lambda: _set(node, "args", [node.args[1], node.args[0], *node.args[2:]])
        for index, keyword in enumerate(node.keywords):
            if called == "errstate" or keyword.arg in GUARDS:
                continue
            yield lambda index=index: _set(
                node, "keywords", node.keywords[:index] + node.keywords[index + 1 :]
            )
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield lambda part=part: _set(node, part, None)


def _other_values(value: object) -> list:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value * 2 if value else 1.0]
    return []


def _set(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    before = getattr(node, name)
    setattr(node, name, value)
    return lambda: setattr(node, name, before)


def _set_item(items: list, index: int, value: object) -> Callable[[], None]:
    before = items[index]
    items[index] = value

    def undo() -> None:
        items[index] = before

    return undo
