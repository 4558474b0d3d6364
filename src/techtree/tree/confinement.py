"""What a judged source may do while its tests run: limits on the process, and a watch over its deeds.

Python cannot be locked from inside. What is stopped here is what happens by accident and what is tried
by the usual tricks: imports by string, processes, files that are not its own, exchanged functions of NumPy
or pytest. Whoever takes the interpreter apart (by writing to memory, say) can still fool it, and cheats
nobody but himself; the outcome is decided in another process (`techtree.tree.grading`).
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

MEMORY_BYTES = 2 << 30
"""Of address space, for the judged process. NumPy and pytest need a fifth of it."""

FILE_BYTES = 256 << 20
"""The largest file that it may write."""

STARTS_A_PROCESS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.startfile/2",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
    }
)

ENDS_A_PROCESS = frozenset({"os.kill", "os.killpg"})

CHANGES_FILES = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "shutil.rmtree",
    }
)

TALKS = frozenset({"socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo"})

BINARIES = frozenset({"ctypes.dlopen", "ctypes.dlsym", "ctypes.cdata", "code.__new__", "sys.addaudithook"})

WATCHED = STARTS_A_PROCESS | ENDS_A_PROCESS | CHANGES_FILES | TALKS | BINARIES | {"import", "open"}


class ForbiddenError(PermissionError):
    """A judged source tried what it may not do."""


def limit_process() -> None:
    """Limit memory and the size of written files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in (("RLIMIT_AS", MEMORY_BYTES), ("RLIMIT_FSIZE", FILE_BYTES), ("RLIMIT_CORE", 0)):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError):  # macOS refuses some of them
            continue


class Watch:
    """From its creation on, refuses what sources in watched files try, and remembers what they tried.

    Parameters
    ----------
    is_watched
        Tells for a source file's name whether what it does is judged.
    allows
        Tells whether ``import NAME`` is allowed in this process; asked for the name of an event that starts
        or ends processes (``"os.fork"``), whether that is. What a started process does is not watched.
    hidden
        Files that may not be read: the answers.
    folder
        Where files may be written.

    Attributes
    ----------
    attempts
        What was refused, one sentence each, also when the source swallowed the exception.
    """

    def __init__(
        self,
        is_watched: Callable[[str], bool],
        allows: Callable[[str], bool],
        hidden: Iterable[Path],
        folder: Path,
    ) -> None:
        self.is_watched = is_watched
        self.allows = allows
        self.hidden = frozenset(_real(path) for path in hidden)
        self.folder = _real(folder)
        self.attempts: list[str] = []
        self._main = threading.main_thread()
        self._is_busy = False
        sys.addaudithook(self._hook)  # It cannot be removed.

    def _hook(self, event: str, arguments: tuple) -> None:
        if event not in WATCHED or self._is_busy:
            return
        self._is_busy = True
        try:
            problem = self._problem(event, arguments)
            if problem and self._is_responsible():
                self.note(problem)
                raise ForbiddenError(problem)
        finally:
            self._is_busy = False

    def note(self, problem: str) -> None:
        """Remember an attempt."""
        if problem not in self.attempts:
            self.attempts.append(problem)

    def _problem(self, event: str, arguments: tuple) -> str:
        """Return what is wrong with an event, if a watched source is behind it."""
        if event == "import":
            name = str(arguments[0])
            return "" if self.allows(name) else f"imports {name}, which no prerequisite opens"
        if event == "open":
            return self._problem_of_opening(*arguments[:3])
        if event in STARTS_A_PROCESS:
            return "" if self.allows(event) else f"starts a process ({event})"
        if event in CHANGES_FILES:
            paths = [each for each in arguments if isinstance(each, str | bytes | os.PathLike)]
            outside = [str(path) for path in paths if not self._is_inside(path)]
            return f"changes files outside of its folder ({event}: {outside[0]})" if outside else ""
        if event in TALKS:
            return f"uses the network ({event})"
        if event in ENDS_A_PROCESS:
            return "" if self.allows(event) else "sends signals to processes"
        return f"reaches into the interpreter ({event})"

    def _problem_of_opening(self, path: object, mode: object, flags: object) -> str:
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if mode is None and isinstance(flags, int):
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and not self._is_inside(path) and _real(path) != _real(os.devnull):
            return f"writes a file outside of its folder ({_real(path).name})"
        if _real(path) in self.hidden:
            return f"reads the answer ({_real(path).name})"
        return ""

    def _is_inside(self, path: str | bytes | os.PathLike) -> bool:
        return self.folder in _real(path).parents

    def _is_responsible(self) -> bool:
        """Tell whether a watched source is among the callers, or the call comes from another thread."""
        if threading.current_thread() is not self._main:
            return True
        frame = sys._getframe(2)
        while frame is not None:
            if self.is_watched(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False


def _real(path: str | bytes | os.PathLike) -> Path:
    return Path(os.path.realpath(os.fsdecode(path)))


GUARDED = (
    "builtins",
    "functools",
    "itertools",
    "math",
    "numpy",
    "numpy.linalg",
    "numpy.random",
    "numpy.testing",
    "operator",
    "pytest",
    "_pytest.fixtures",
    "_pytest.outcomes",
    "_pytest.python",
    "_pytest.raises",
    "_pytest.reports",
    "_pytest.runner",
    "techtree.techs.aim",
    "techtree.techs.battery",
)
"""Modules on which a verdict stands: a judged source may not exchange what is in them."""


class Seal:
    """Notices when something in the modules on which a verdict stands is exchanged.

    Parameters
    ----------
    more
        Modules besides `GUARDED`: the tests themselves.
    """

    def __init__(self, more: Iterable[ModuleType] = ()) -> None:
        self._modules = {name: sys.modules[name] for name in GUARDED if name in sys.modules}
        # The objects are kept, so that no other can take the place of one at the same address.
        self._kept: dict[int, tuple[ModuleType | type, Mapping[str, object], dict[str, object]]] = {}
        for module in [*self._modules.values(), *more]:
            for owner, name, value in _parts(module):
                self._kept.setdefault(id(owner), (owner, vars(owner), {}))[2][name] = value

    def broken(self) -> str:
        """Return the dotted name of something that was exchanged, or an empty string; it is put back."""
        found = ""
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
                found = found or name
        for owner, now, kept in self._kept.values():
            for name, value in kept.items():
                if now.get(name, self) is not value:
                    setattr(owner, name, value)
                    found = found or f"{getattr(owner, '__module__', None) or owner.__name__}.{name}"
        return found


def _parts(module: ModuleType) -> Iterator[tuple[ModuleType | type, str, object]]:
    """Give what a module holds, and what its own classes hold."""
    for name, value in list(vars(module).items()):
        if name.startswith("__") and name not in ("__import__", "__build_class__"):
            continue
        yield module, name, value
        if isinstance(value, type) and value.__module__.startswith(("_pytest", "techtree")):
            for inner, part in list(vars(value).items()):
                if not inner.startswith("__") or inner in ("__init__", "__call__", "__eq__"):
                    yield value, inner, part
