"""`techtree serve`: a model behind HTTP, for the editors on this machine, and the tree as pages."""

import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from techtree.serve.guard import Address


@dataclass(frozen=True)
class Config:
    """Serve a model to an editor over HTTP, on this machine only, until Ctrl-C.

    It answers POST /infill as llama.cpp's server does, so llama.vim and llama.vscode can use it, and OpenAI's
    completions and chats. A browser finds the tree there, as pages; in a learner's workspace with the
    learner's states, unless there is a key. Where there is no model yet, the pages are served alone.
    """

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    memory: bool = True
    """Whether what stood before, in the text at hand and in a repository, is mixed into the model's scores
    where it fills in. It stays on this machine."""

    repository: Path | None = None
    """The folder whose files are remembered; the git repository that the current folder lies in, when left
    out and there is one."""

    host: str = "127.0.0.1"
    """Where to listen. Anything but this machine itself needs --api-key."""

    port: int = 8012
    """Where to listen; 8012 is what llama.vim expects, 0 means any free one."""

    api_key: str | None = None
    """What clients must send as 'Authorization: Bearer KEY'."""

    ollama: bool = False
    """Whether programs that look for Ollama find it here; most look at --port 11434."""


def run(config: Config) -> int:
    """Listen, load the model, and answer."""
    from techtree.serve.listening import open_socket, serve
    from techtree.serve.log import log_to

    folder, why_none = _find(config.model)
    # The port first: that fails at once, and early clients wait for the model instead of being refused.
    listener, address = open_socket(config.host, config.port, config.api_key)
    with listener:
        stopping = threading.Event()
        if folder is None:
            from techtree.serve.app import create_pages_app

            app = create_pages_app(_pages(config.api_key), address, config.api_key)
            said = f"{pages_greeting(address.url)}\nno model is served: {why_none}"
        else:
            app = _app(config, folder, address, stopping)
            said = greeting(address.url, config.api_key)
        log_to(sys.stderr)
        print(said, flush=True)
        serve(app, listener, stopping)
    print("stopped")
    return 0


def _find(given: Path | None) -> tuple[Path | None, str]:
    """Return the model's place; or None, and why, where nobody named one and there is none."""
    from techtree.engines.model_folder import find_model
    from techtree.errors import InputError

    try:
        return find_model(given), ""
    except InputError as error:
        if given is not None:
            raise
        return None, str(error)


def _app(config: Config, folder: Path, address: "Address", stopping: threading.Event) -> "ASGIApp":
    """Load the model, and return what answers."""
    from techtree.engines.torch_engine import TorchEngine
    from techtree.lm.memory.files import repository_of
    from techtree.serve.app import create_app

    root = (config.repository or repository_of(Path.cwd())) if config.memory else None
    engine = TorchEngine.load(folder, remembers=config.memory, repository=root)
    print(f"serving {folder} (context of {engine.context_length} tokens)")
    if engine.memory is not None and (files := engine.memory.repository) is not None:
        print(f"remembering {files.n_files:,} files of {files.root}")
        threading.Thread(target=files.follow, args=(stopping,), daemon=True).start()
    return create_app(
        engine, address, config.api_key, stopping, _pages(config.api_key), speaks_ollama=config.ollama
    )


def _pages(api_key: str | None):
    """Return what a browser is shown."""
    from techtree.learn import workspace
    from techtree.serve.pages import Pages
    from techtree.tree.graph import load_tree

    here, tree = Path.cwd(), load_tree()
    # With a key the server may be open to others, and the pages need none: they say nothing of the learner.
    return Pages(tree, lambda: workspace.find(here, tree) if api_key is None else None)


def pages_greeting(url: str) -> str:
    """Return where a server is, and its pages."""
    return f"listening at {url}; Ctrl-C stops it\nthe tree as pages: {url}/"


def greeting(url: str, api_key: str | None) -> str:
    """Return how to use a server."""
    settings = {"endpoint_fim": f"{url}/infill"}
    header = ""
    if api_key is not None:
        settings["api_key"] = "KEY"
        header = " -H 'Authorization: Bearer KEY'"
    vim = ", ".join(f"'{name}': '{value}'" for name, value in settings.items())
    body = json.dumps({"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n"})
    return "\n".join(
        [
            pages_greeting(url),
            "",
            "llama.vim, in your vimrc:",
            f"  let g:llama_config = {{{vim}}}",
            "by hand:",
            f"  curl --silent {url}/infill -H 'Content-Type: application/json'{header} -d '{body}'",
        ]
    )
