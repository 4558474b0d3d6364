"""Rule 3: an own implementation uses NumPy, the standard library and its prerequisites, nothing else.

Two checks. The static one reads the source and misses nothing that is written as an import. The one at
run time watches the imports that the implementation makes while its tests run, and the NumPy
functions that would do its work for it.
"""

import ast
import builtins
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from techtree.tree.confinement import ENDS_A_PROCESS, STARTS_A_PROCESS
from techtree.tree.symbols import dotted, names_of_imports

LOADERS = frozenset({"importlib", "runpy", "pkgutil", "zipimport", "ctypes"})
"""Standard modules that import by string or call into binaries: a lesson has no use for them."""

PRIVATE_NUMPY = ("numpy._", "numpy.core")
"""Where the functions of NumPy are to be had under other names."""

LOADER_NAMES = frozenset({"__import__", "exec", "eval", "compile"})


OUTER = frozenset(
    {
        "techtree",
        "techtree.errors",
        "techtree.techs",
        "techtree.techs.aim",
        "techtree.techs.battery",
        "techtree.techs.elsewhere",
    }
)
"""Packages around the technologies, and what their tests load."""

JUDGES = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "colorama"})
"""What runs the tests; it loads parts of itself when it needs them."""


class ForbiddenImportError(ImportError):
    """An implementation reached for something that its technology has not opened."""


@dataclass(frozen=True)
class ImportRule:
    """What one technology's implementation may import and may not call.

    ``packages`` are the dotted packages of the technology and its ancestors; ``replaces`` are the NumPy
    symbols that the implementation is there to write itself (``numpy.einsum``). ``may_start`` tells whether
    it may start and end processes.
    """

    packages: frozenset[str]
    replaces: frozenset[str] = frozenset()
    may_start: bool = False

    def allows(self, module: str) -> bool:
        """Tell whether ``import module`` is allowed."""
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names:
            return top not in LOADERS and (top == "__future__" or not top.startswith("_"))
        if top == "techtree":
            inside = any(module == package or module.startswith(package + ".") for package in self.packages)
            return inside and module.rpartition(".")[2] not in ("variants", "experiment")
        return top == "numpy"

    def may_load(self, module: str) -> bool:
        """Tell whether ``module`` may be loaded in the judged process, by whatever way.

        Where it names an event of `confinement` that starts or ends processes: whether that may be.
        """
        if module in STARTS_A_PROCESS | ENDS_A_PROCESS:
            return self.may_start
        top = module.partition(".")[0]
        if top == "techtree":
            inside = module in OUTER or any(package.startswith(module + ".") for package in self.packages)
            return inside or self.allows(module)
        return top in sys.stdlib_module_names or top == "numpy" or top in JUDGES

    def violations(self, source: str, package: str) -> list[str]:
        """Return what a source breaks, one sentence each.

        Parameters
        ----------
        source
            Python source.
        package
            The dotted package that relative imports start from.
        """
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            return [f"line {error.lineno}: not valid Python: {error.msg}"]
        aliases = names_of_imports(tree)
        found = []
        for node in ast.walk(tree):
            line = getattr(node, "lineno", 0)
            found += [f"line {line}: {problem}" for problem in self._problems(node, package, aliases)]
        return found

    def _problems(self, node: ast.AST, package: str, aliases: Mapping[str, str]) -> Iterator[str]:
        """Give what one node breaks."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = _imported(node, package)
            refused = [module for module in imported if not self.allows(module)]
            if refused:
                yield f"imports {refused[0]}, which no prerequisite opens"
            for symbol in sorted(self.replaces.intersection(imported)):
                yield f"uses {symbol}, which this technology is there to write"
        if isinstance(node, ast.Name) and node.id in LOADER_NAMES:
            yield f"{node.id} can import anything; a lesson may not use it"
        if isinstance(node, ast.Attribute):
            symbol = dotted(node, aliases)
            if symbol in self.replaces:
                yield f"uses {symbol}, which this technology is there to write"
            if symbol.startswith(PRIVATE_NUMPY):
                yield f"uses {symbol}, a private part of NumPy"


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Return the dotted names that one statement imports: the module, and each name taken from it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    if node.level:
        base = package.rsplit(".", node.level - 1)[0]
        module = f"{base}.{module}".rstrip(".")
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def watch_imports(rule_of_file: Callable[[str], ImportRule | None], note: Callable[[str], None]) -> None:
    """From now on refuse, in this process, every import that a watched file may not make.

    Parameters
    ----------
    rule_of_file
        Gives the rule for a source file's name, or None for a file that is not watched.
    note
        Is told what was refused, for the file may swallow the exception.
    """

    def refuse(problem: str) -> None:
        note(problem)
        raise ForbiddenImportError(problem)

    plain_import, plain_import_module = builtins.__import__, importlib.import_module

    def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
        rule = rule_of_file((globals or {}).get("__file__") or "")
        if rule is not None and level == 0 and not rule.allows(name):
            refuse(f"imports {name}, which no prerequisite opens")
        return plain_import(name, globals, locals, fromlist, level)

    def watched_import_module(name: str, package: str | None = None) -> ModuleType:
        rule = rule_of_file(sys._getframe(1).f_code.co_filename)
        if rule is not None:
            refuse(f"imports {name} by string; a lesson may not")
        return plain_import_module(name, package)

    builtins.__import__, importlib.import_module = watched_import, watched_import_module


def watch_calls(symbols: Iterable[str], is_watched: Callable[[str], bool]) -> None:
    """From now on refuse calls of the NumPy ``symbols`` from files for which ``is_watched`` holds.

    A function is exchanged under all the names that NumPy's modules have for it.
    """
    for symbol in symbols:
        owner_name, _, name = symbol.rpartition(".")
        function = getattr(importlib.import_module(owner_name), name)
        refusing = _Refusing(function, symbol, is_watched)
        for module_name, module in list(sys.modules.items()):
            if module_name.partition(".")[0] == "numpy":
                for alias in [alias for alias, value in vars(module).items() if value is function]:
                    setattr(module, alias, refusing)


class _Refusing:
    """A function, or an object with methods like a ufunc, that refuses to work for watched files."""

    def __init__(self, function: Callable, symbol: str, is_watched: Callable[[str], bool]) -> None:
        self._function, self._symbol, self._is_watched = function, symbol, is_watched

    def _refuse_watched(self) -> None:
        if self._is_watched(sys._getframe(2).f_code.co_filename):
            raise ForbiddenImportError(f"uses {self._symbol}, which this technology is there to write")

    def __call__(self, *args, **kwargs):
        self._refuse_watched()
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str):
        self._refuse_watched()
        return getattr(self._function, name)


def sources(folder: Path) -> list[Path]:
    """Return the Python files of a technology that the rule speaks of: not tests, variants, experiments."""
    others = {folder / "variants.py", folder / "experiment.py"}
    return [p for p in sorted(folder.rglob("*.py")) if p not in others and not p.name.startswith("test_")]
