"""Which library symbols a source uses: `np.einsum` is `numpy.einsum`, however it was imported."""

import ast
from collections.abc import Mapping


def names_of_imports(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for: ``{"np": "numpy"}``; relative imports are left out."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST, names: Mapping[str, str]) -> str:
    """Return ``numpy.einsum`` for the expression ``np.einsum``, an empty string for other expressions."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, names)
        return f"{inner}.{node.attr}" if inner else ""
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def used_symbols(source: str) -> set[str]:
    r"""Return every dotted symbol that a source imports from a library or reaches through one.

    Examples
    --------
    >>> sorted(used_symbols("import torch.nn.functional as F\nF.relu(x)"))
    ['torch.nn.functional', 'torch.nn.functional.relu']
    """
    tree = ast.parse(source)
    names = names_of_imports(tree)
    tops = {node.names[0].name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)}
    roots = {name.partition(".")[0] for name in names.values()} | tops
    found = set(names.values())
    for node in ast.walk(tree):
        symbol = dotted(node, names)
        if symbol and symbol.partition(".")[0] in roots:
            found.add(symbol)
    return found
