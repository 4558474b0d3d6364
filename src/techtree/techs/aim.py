"""The numbers and texts in a version's own source, at which the tests aim.

Where a version goes wrong beyond some size or on some value, its source says where: ``if n > 4096``,
``np.clip(x, -30, 30)``, ``np.int16``. No list of sizes written before could hold them all. So the tests
read the source under test and try, besides what they try with everyone, what lies beside its own numbers.

Legend: a *number* is a constant of the source, folded (``2**12`` is 4096), or the limit of a dtype that it
names; a *text* is a constant string that is no docstring.
"""

import ast
import math
import operator
from collections.abc import Callable

NUMBERS: list[float] = []
"""Of the source under test, each once, the smallest first; 0, 1 and 2 and their negatives are left out."""

TEXTS: list[str] = []
"""Of the source under test, each once."""

LIMITS = {"int8": 127, "uint8": 255, "int16": 32767, "uint16": 65535, "float16": 65504}
"""What the narrow dtypes hold; also as "i2" and the like."""

_SHORT = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "f2": "float16", "half": "float16"}
_MOST_BITS = 5000
_MOST_NUMBERS = 40
_MOST_TEXTS = 40
_OPERATIONS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def look_at(source: str) -> None:
    """Aim at the numbers and texts of a source; at nothing where it is no Python."""
    NUMBERS.clear()
    TEXTS.clear()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    numbers: dict[float, None] = {}
    texts: dict[str, None] = {}
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            texts[node.value] = None
        name = _dtype_named(node)
        found = LIMITS[name] if name else _folded(node)
        if found is not None and _is_finite(found) and (abs(found) > 2 or found % 1):
            numbers[abs(found)] = None
    NUMBERS.extend(sorted(numbers)[:_MOST_NUMBERS])
    TEXTS.extend(sorted(texts, key=len)[:_MOST_TEXTS])


def whole(at_least: int, at_most: int) -> list[int]:
    """Return the whole numbers of the source that lie within bounds, ascending."""
    return [int(each) for each in NUMBERS if each == int(each) and at_least <= each <= at_most]


def sizes(*ordinary: int, at_most: int) -> list[int]:
    """Return sizes to try, ascending: the ordinary ones, and those at and beyond the source's numbers.

    For a number c these are c + 1, 2 c + 3 and, up to 1000, c itself, as far as they are at most ``at_most``.
    """
    numbers = whole(2, at_most)
    near = [size for c in numbers for size in (min(c, 1000), c + 1, 2 * c + 3) if size <= at_most]
    return sorted({*ordinary, *near})


def _is_finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _dtype_named(node: ast.AST) -> str:
    name = ""
    if isinstance(node, ast.Attribute):
        name = node.attr
    elif isinstance(node, ast.Name):
        name = node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        name = node.value.lstrip("<>=|")
    name = _SHORT.get(name, name)
    return name if name in LIMITS else ""


def _folded(node: ast.AST) -> float | None:
    """Return the number that an expression of constants is; None for all else."""
    if isinstance(node, ast.Constant):
        is_number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        return node.value if is_number else None  # pyright: ignore[reportReturnType]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _folded(node.operand)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _folded(node.left), _folded(node.right)
    if left is None or right is None:
        return None
    try:
        if isinstance(node.op, ast.Pow | ast.LShift):
            if abs(right) > _MOST_BITS or abs(left) > 2**64:
                return None
            if isinstance(node.op, ast.LShift):
                return int(left) << int(right)
            return left**right if right >= 0 or left else None
        return _OPERATIONS[type(node.op)](left, right)
    except (KeyError, ArithmeticError, ValueError):
        return None
