"""`techtree complete`: what the model would insert at a place in a file."""

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from techtree.errors import InputError
from techtree.reading import read_regular
from techtree.streams import escaped

if TYPE_CHECKING:
    from techtree.engines.engine import InfillRequest, InfillResult

_PLACE = re.compile(r"(?P<file>.+):(?P<line>[0-9]+):(?P<column>[0-9]+)", re.DOTALL)

MAX_SOURCE_BYTES = 1 << 26
"""No file that is edited is longer; the model sees some kilobytes."""

MAX_DIGITS = 18
"""Of a line or a column; no file is so long."""


@dataclass(frozen=True)
class Config:
    """Complete the code at a place in a file: print what the model would insert there.

    Nothing is printed when the model has nothing to add.
    """

    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE:LINE:COL")]
    """Where the cursor is. Lines and columns count from 1, in characters, as editors show them; the
    cursor stands before the character at COL, and one past the last character is the line's end."""

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    max_tokens: int = 64
    """Insert so many tokens at most."""

    engine: Literal["torch", "numpy"] = "torch"
    """What runs the model: the product (PyTorch, and C for what that can decode), or the lessons' own code on
    NumPy, which is slower and gives the same."""

    memory: bool = True
    """Whether what stood before, in this file and in the others of its git repository, is mixed into the
    model's scores. It stays on this machine."""

    mine: bool = False
    """With the NumPy engine, in a workspace: your own technologies take the place of ours."""


def run(config: Config) -> int:
    """Print the completion."""
    if config.max_tokens < 1:
        raise InputError(f"--max-tokens must be 1 or more; got {config.max_tokens}")
    prefix, suffix = around(config.place)
    if config.mine and config.engine != "numpy":
        raise InputError("--mine needs the NumPy engine: add --engine numpy")
    from techtree.engines.engine import InfillRequest
    from techtree.engines.model_folder import find_model, find_model_folder

    folder = (find_model if config.engine == "torch" else find_model_folder)(config.model)
    request = InfillRequest(prefix, suffix, max_tokens=config.max_tokens)
    if config.mine:
        result = _on_the_learners_code(folder, request)
    elif config.engine == "numpy":
        from techtree.engines.numpy_engine import NumpyEngine

        result = NumpyEngine.load(folder).infill(request)
    else:
        with _no_garbage_collection():
            from techtree.engines.torch_engine import TorchEngine
            from techtree.lm.memory.files import repository_of

            repository = repository_of(parse_place(config.place)[0]) if config.memory else None
            engine = TorchEngine.load(folder, remembers=config.memory, repository=repository)
            result = engine.infill(request)
    if result.is_truncated:
        print("techtree: the file is longer than the model's context; it saw a part", file=sys.stderr)
    if not result.text:
        print("techtree: the model has nothing to add here", file=sys.stderr)
        return 0
    if sys.stdout.isatty():  # what a model writes is no command to a terminal
        print(escaped(result.text))
    else:  # source is UTF-8, whatever the system's encoding
        sys.stdout.flush()
        sys.stdout.buffer.write(f"{result.text}\n".encode())
        sys.stdout.buffer.flush()
    return 0


def _on_the_learners_code(folder: Path, request: "InfillRequest") -> "InfillResult":
    """Answer with the technologies of the workspace that the current folder lies in; tell whose code ran."""
    from techtree.learn import mine, workspace
    from techtree.tree.graph import load_tree

    own = workspace.require(load_tree())
    files = mine.own_files(own)
    mine.take(own.tree, files)
    from techtree.engines.numpy_engine import NumpyEngine

    try:
        result = NumpyEngine.load(folder).infill(request)
    except Exception as error:
        failure = mine.failure(error, files)
        if failure is None:
            raise
        raise failure from error
    print(f"techtree: {mine.whose_code(own, files)}", file=sys.stderr)
    return result


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Save the 0.2 of 2 seconds that looking for garbage takes while PyTorch is imported."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def around(place: str) -> tuple[str, str]:
    """Return the text before and after a place.

    Raises
    ------
    InputError
        When it is not FILE:LINE:COL, or there is no such place in a file that can be read.
    """
    file, line, column = parse_place(place)
    text = read_source(file)
    offset = offset_of(text, line, column, file)
    return text[:offset], text[offset:]


def parse_place(place: str) -> tuple[Path, int, int]:
    r"""Return file, line and column.

    >>> parse_place("C:\\x.py:3:5")[1:]
    (3, 5)

    Raises
    ------
    InputError
        When it is not FILE:LINE:COL, with numbers from 1.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InputError(f"the place must be FILE:LINE:COL, as in src/app.py:12:5; got {place!r}")
    if max(len(match["line"]), len(match["column"])) > MAX_DIGITS:
        raise InputError(f"lines and columns must have {MAX_DIGITS} digits at most; got more")
    line, column = int(match["line"]), int(match["column"])
    if line < 1 or column < 1:
        raise InputError(f"lines and columns count from 1; got line {line}, column {column}")
    return Path(match["file"]), line, column


def read_source(file: Path) -> str:
    """Return the text of a file with single line feeds and no byte-order mark.

    Raises
    ------
    InputError
        When it cannot be read, or is not UTF-8.
    """
    try:
        data = read_regular(file, MAX_SOURCE_BYTES, "name another file")
    except InputError as error:
        raise InputError(f"the place must be in a file that can be read; {error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} must be UTF-8 text; byte {error.start} is not: convert the file first"
        ) from error
    return text.replace("\r\n", "\n")


def offset_of(text: str, line: int, column: int, file: Path) -> int:
    """Return where in a text a place is.

    Raises
    ------
    InputError
        When there is no such line or column.
    """
    lines = text.split("\n")
    if line > len(lines):
        raise InputError(f"{file} has {len(lines)} lines; got line {line}")
    length = len(lines[line - 1])
    if column > length + 1:
        raise InputError(
            f"line {line} of {file} has {length} characters, so columns go up to {length + 1}; got {column}"
        )
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
