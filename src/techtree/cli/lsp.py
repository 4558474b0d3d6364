"""`techtree lsp`: a model as a language server, for editors that know inline completion."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from techtree.errors import InputError

if TYPE_CHECKING:
    from techtree.engines.engine import Engine


@dataclass(frozen=True)
class Config:
    """Suggest code in an editor, as a language server over standard input and output: the editor starts it.

    It answers textDocument/inlineCompletion of LSP 3.18. docs/editors.md has the lines that editors need.
    """

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    memory: bool = True
    """Whether what stood before, in the text at hand and in a repository, is mixed into the model's scores.
    It stays on this machine."""

    repository: Path | None = None
    """The folder whose files are remembered; the git repository that the current folder lies in, when left
    out and there is one."""


def run(config: Config) -> int:
    """Speak with the editor until it goes."""
    try:
        from techtree.serve.lsp import create_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise InputError("techtree lsp needs pygls: pip install 'techtree[lsp]'") from error
    from techtree.engines.model_folder import find_model
    from techtree.serve.log import log_to

    folder = find_model(config.model)
    log_to(sys.stderr)
    stopping = threading.Event()
    with _messages_only() as stdout:
        engine = _in_background(lambda: _load(config, folder, stopping))
        try:
            create_server(engine, stopping).start_io(sys.stdin.buffer, stdout)
        finally:
            stopping.set()
    return 0


def _load(config: Config, folder: Path, stopping: threading.Event) -> "Engine":
    from techtree.engines.torch_engine import TorchEngine
    from techtree.lm.memory.files import repository_of

    root = (config.repository or repository_of(Path.cwd())) if config.memory else None
    engine = TorchEngine.load(folder, remembers=config.memory, repository=root)
    if engine.memory is not None and (files := engine.memory.repository) is not None:
        threading.Thread(target=files.follow, args=(stopping,), daemon=True).start()
    print(f"techtree lsp: {folder} is loaded", file=sys.stderr, flush=True)
    return engine


def _in_background(load: "Callable[[], Engine]") -> "Future[Engine]":
    """Load meanwhile, on a thread that does not keep the program alive."""
    loaded: Future[Engine] = Future()

    def work() -> None:
        try:
            loaded.set_result(load())
        except Exception as error:
            print(f"techtree lsp: there will be no suggestions: {error}", file=sys.stderr, flush=True)
            loaded.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return loaded


@contextlib.contextmanager
def _messages_only() -> Iterator[BinaryIO]:
    """Give standard output as bytes, and lead whatever else is printed to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "wb") as stdout, contextlib.redirect_stdout(sys.stderr):
        yield stdout
