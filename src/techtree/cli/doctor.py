"""`techtree doctor`: what this machine has for the product, and one decoding, measured."""

import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from techtree import __version__
from techtree.errors import InputError

N_TOKENS = 16
"""To decode: enough for a rate, and a second or two on the slowest machine."""


@dataclass(frozen=True)
class Config:
    """Look at what this machine has: processors, PyTorch, bfloat16, a C compiler, a model; and decode once.

    It changes nothing but the compiled decoder in the cache. The exit code is 1 when something that
    completing code needs is missing.
    """

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    port: int = 8012
    """Where the server would listen."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    what: str
    advice: str = ""
    """What to do about it, if it could be better."""
    is_needed: bool = False
    """Whether completing code needs what the advice says."""


def run(config: Config) -> int:
    """Print what is found."""
    is_well = True
    for finding in findings(config):
        print(f"{finding.name:<14} {finding.what}", flush=True)
        if finding.advice:
            print(f"{'':<14} -> {finding.advice}", flush=True)
        is_well &= not (finding.advice and finding.is_needed)
    return 0 if is_well else 1


def findings(config: Config) -> Iterator[Finding]:
    """Yield what is found, the slowest last."""
    yield Finding("techtree", f"{__version__}, Python {platform.python_version()}, {_system()}")
    yield processors(os.cpu_count() or 1, _n_usable(), _load())
    yield package("torch", "PyTorch", "pip install 'techtree[lm]'", is_needed=True)
    if _version("torch") is not None:
        yield bfloat16()
        yield accelerator()
        yield compiler()
    yield package(
        "pygls", "techtree lsp", "pip install 'techtree[lsp]', if your editor is to start it itself"
    )
    yield port(config.port)
    if _version("torch") is not None:
        yield from model(config.model)


def processors(n_all: int, n_usable: int, load: float | None) -> Finding:
    """Return how many processors there are, and how busy they are."""
    what = f"{n_usable}" if n_usable == n_all else f"{n_usable} of {n_all} may be used"
    if load is None:
        return Finding("processors", what)
    is_busy = load > 0.5 * n_usable
    return Finding(
        "processors",
        f"{what}, load {load:.1f}",
        "others are busy on this machine: decoding is slower than it could be" if is_busy else "",
    )


def package(name: str, purpose: str, how: str, is_needed: bool = False) -> Finding:
    """Return whether a package is installed."""
    version = _version(name)
    if version is None:
        return Finding(purpose, f"{name} is not installed", how, is_needed)
    return Finding(purpose, version if name == "torch" else f"{name} {version}")


def bfloat16() -> Finding:
    """Return whether the processor multiplies it, which halves the memory that training reads."""
    import torch

    from techtree.lm.train.precision import compute_dtype

    has = compute_dtype(torch.device("cpu")) == torch.bfloat16
    return Finding("bfloat16", "yes" if has else "no: training and PyTorch's decoding take float32")


def accelerator() -> Finding:
    """Return which accelerator PyTorch sees."""
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", torch.cuda.get_device_name())
    return Finding("accelerator", "none that PyTorch sees; the product is made for processors")


def compiler() -> Finding:
    """Return whether the decoder in C can be made here."""
    from techtree.lm.native.library import NoCompilerError, library

    try:
        library()
    except NoCompilerError as error:
        return Finding("decoder in C", f"no: {error}", "install a C compiler: PyTorch decodes more slowly")
    return Finding("decoder in C", "yes")


def port(number: int) -> Finding:
    """Return whether somebody listens there already."""
    with socket.socket() as client:
        client.settimeout(1)
        is_taken = client.connect_ex(("127.0.0.1", number)) == 0
    advice = "stop it, or choose another --port for techtree serve" if is_taken else ""
    return Finding(f"port {number}", "something listens there" if is_taken else "free", advice)


def model(given: Path | None) -> Iterator[Finding]:
    """Yield which model there is, and how fast it decodes."""
    from techtree.engines.model_folder import find_model

    try:
        folder = find_model(given)
    except InputError as error:
        yield Finding("model", "none", str(error), is_needed=True)
        return
    yield Finding("model", str(folder))
    yield decoding(folder)


def decoding(folder: Path) -> Finding:
    """Return how fast a model decodes."""
    from techtree.engines.engine import InfillRequest
    from techtree.engines.torch_engine import TorchEngine

    try:
        engine = TorchEngine.load(folder)
        result = engine.infill(InfillRequest("def add(a, b):\n    return ", max_tokens=N_TOKENS, is_raw=True))
    except InputError as error:
        return Finding("decoding", "failed", str(error), is_needed=True)
    rate = 1000 * result.n_predicted / result.predicted_ms if result.predicted_ms else 0
    kind = [
        *(["chats"] if engine.can_chat else []),
        "fills in" if engine.can_fill_in else "only goes on where the text ends",
    ]
    return Finding(
        "decoding",
        f"{rate:.0f} tokens a second ({result.n_predicted} tokens; {result.n_prompt} of the prompt took "
        f"{result.prompt_ms:.0f} ms); it {' and '.join(kind)}",
    )


def _system() -> str:
    return f"{platform.system()} on {platform.machine()}"


def _n_usable() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _load() -> float | None:
    """Return how many programs wanted to run in the last minute."""
    return os.getloadavg()[0] if sys.platform != "win32" else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
