"""`techtree COMMAND ...`: finds the command, parses its configuration, runs it.

Each command is a module with a frozen dataclass `Config` (its docstring and its fields' docstrings are
the help) and a function `run(config)` that returns the exit code. The module is imported only when
its command is called, so that `techtree --help` stays fast and free of PyTorch.
"""

import contextlib
import dataclasses
import importlib
import keyword
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from techtree import __version__
from techtree.errors import InputError, did_you_mean
from techtree.streams import OutputError, drawing, escaped, open_streams

COMMANDS = {
    "build": "train a code model on this machine and report on it: the main job",
    "data": "prepare a corpus for training: rows of tokens in a folder",
    "train": "train a model on prepared data, on one machine or on many",
    "eval": "measure a model on text, in bits per byte",
    "complete": "complete the code at FILE:LINE:COL",
    "pull": "download a model from the Hugging Face hub",
    "import": "check a model folder from elsewhere and put it where the other commands find it",
    "export": "write a model for other programs: Hugging Face's, or llama.cpp's GGUF",
    "serve": "serve a model to an editor over HTTP, on this machine only",
    "lsp": "suggest code in an editor, as a language server",
    "doctor": "look at what this machine has, and decode once",
    "bench": "measure the program beside its peers, in a clone",
    "learn": "write the technologies yourself, and have them graded",
    "map": "draw the tree: what is unlocked, open, locked",
    "site": "write the tree as pages: lessons, map, glossary, search",
    "unlock": "verify the four unlock rules",
    "mutants": "try a technology's tests on mechanical mutants of it",
    "figure": "run a technology's experiment and draw its figure",
}
"""Name -> what it does, in the order of the help."""

PRODUCT_PACKAGES = frozenset({"huggingface_hub", "jaxtyping", "starlette", "tokenizers", "torch", "uvicorn"})
"""What `pip install techtree[lm]` adds; the light installation has the tree alone."""

MIN_COLUMNS, MAX_COLUMNS = 40, 200
"""In which the help is set, whatever the terminal or COLUMNS says: in less, no line of it has room."""

_SIGNS_OF_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "Storage size", "bad_alloc")
"""What PyTorch's errors say, which have no class of their own."""


def help_text() -> str:
    """Return the page that ``techtree --help`` prints."""
    lines = [
        "techtree: everything between `import numpy` and a working coding assistant, as a tree.",
        "",
        "usage: techtree COMMAND [--help] ...",
        "",
        *(f"  {name:<10} {summary}" for name, summary in COMMANDS.items()),
        "",
        "`techtree COMMAND --help` explains one command. In a clone, `./techtree test` runs the tests.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The words after ``techtree``; those of the process when left out.

    Returns
    -------
    int
        0 when all went well, 1 when a check found something wrong, 2 for an input that cannot be
        used, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with open_streams(), _sane_size():
        try:
            try:
                return _dispatch(words)
            finally:
                sys.stdout.flush()
        except OutputError as error:
            # The reader (`| head`) has what it wanted, and went away.
            return 0 if error.reader_is_gone else _refused(str(error))
        except InputError as error:
            return _refused(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in PRODUCT_PACKAGES:
                raise
            return _refused(f"this command needs {error.name}: pip install 'techtree[lm]'")
        except KeyboardInterrupt as stop:
            _tell(f"techtree: {stop}" if str(stop) else "techtree: stopped", "\n")
            return 130
        except OSError as error:
            where = "this" if error.filename is None else os.fsdecode(error.filename)
            return _refused(
                f"{where} must be usable ({error.strerror or error}): correct it, or give another"
            )
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            return _refused("this needs more memory than there is: choose smaller numbers, or make room")


def _refused(why: str) -> int:
    """Tell why a command ended, and return the exit code."""
    _tell(f"techtree: error: {why}")
    return 2


def _tell(text: str, before: str = "") -> None:
    """Write one line to standard error, if anybody can read it."""
    with contextlib.suppress(OutputError):
        print(before + escaped(text, keep_lines=False), file=sys.stderr, flush=True)


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY)


@contextlib.contextmanager
def _sane_size() -> Iterator[None]:
    """Forget COLUMNS and LINES where they are no sizes: libraries take them at their word."""
    before = {name: os.environ[name] for name in ("COLUMNS", "LINES") if name in os.environ}
    for name, value in before.items():
        if not (value.isascii() and value.isdigit() and len(value) <= 4 and int(value) > 0):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def module_of(name: str) -> str:
    """Return the module of a command; Python keeps a few names for itself.

    >>> module_of("import")
    'techtree.cli.import_'
    """
    return f"techtree.cli.{name}_" if keyword.iskeyword(name) else f"techtree.cli.{name}"


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(f"techtree {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise InputError(
            f"unknown command {name!r}{did_you_mean(name, COMMANDS)} (techtree --help lists all)"
        )
    command = importlib.import_module(module_of(name))
    passed_on: list[str] = []
    if name == "bench":  # What follows a benchmark's name is its own.
        rest, passed_on = rest[:1], rest[1:]
    config = _parsed(command.Config, name, rest)
    if passed_on:
        config = dataclasses.replace(config, words=tuple(passed_on))
    return command.run(config)


def _parsed(config: type, name: str, words: list[str]) -> Any:
    """Return a command's configuration; SystemExit after help or an error."""
    import tyro

    columns = min(max(shutil.get_terminal_size().columns, MIN_COLUMNS), MAX_COLUMNS)
    before = os.environ.get("COLUMNS"), sys.stdout, sys.stderr
    os.environ["COLUMNS"] = str(columns)
    sys.stdout, sys.stderr = drawing(sys.stdout), drawing(sys.stderr)
    try:
        return tyro.cli(config, prog=f"techtree {name}", args=words)
    finally:
        _, sys.stdout, sys.stderr = before
        os.environ.pop("COLUMNS")
        os.environ.update({} if before[0] is None else {"COLUMNS": before[0]})
