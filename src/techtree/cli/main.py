"""`techtree COMMAND ...`: finds the command, parses its configuration, runs it.

Each command is a module with a frozen dataclass `Config` (its docstring and its fields' docstrings are
the help) and a function `run(config)` that returns the exit code. The module is imported only when
its command is called, so that `techtree --help` stays fast and free of PyTorch.
"""

import dataclasses
import importlib
import keyword
import os
import sys
from collections.abc import Sequence

from techtree import __version__
from techtree.errors import InputError, did_you_mean

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
    "bench": "measure the program beside its peers, in a clone",
    "map": "draw the tree: what is unlocked, open, locked",
    "unlock": "verify the four unlock rules",
    "mutants": "try a technology's tests on mechanical mutants of it",
    "figure": "run a technology's experiment and draw its figure",
}
"""Name -> what it does, in the order of the help."""

PRODUCT_PACKAGES = frozenset({"huggingface_hub", "jaxtyping", "starlette", "tokenizers", "torch", "uvicorn"})
"""What `pip install techtree[lm]` adds; the light installation has the tree alone."""


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
    try:
        return _dispatch(words)
    except InputError as error:
        print(f"techtree: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PRODUCT_PACKAGES:
            raise
        print(
            f"techtree: error: this command needs {error.name}: pip install 'techtree[lm]'", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("\ntechtree: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) went away. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
    import tyro

    config = tyro.cli(command.Config, prog=f"techtree {name}", args=rest)
    if passed_on:
        config = dataclasses.replace(config, words=tuple(passed_on))
    return command.run(config)
