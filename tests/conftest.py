"""Shape checking for all tests of the product, a tiny model that they share, and which files they judge."""

import importlib.util
import os
import signal
import sys
import sysconfig
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

sys.path.insert(0, str(TESTS))  # so that tests find their own modules
# The processes that tests start find them too, and no file that somebody left where the tests run.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
os.environ["PYTHONSAFEPATH"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tracked import copy_tracked, is_known, is_left_out  # noqa: E402 - now it is found

pytest_plugins = ["proofs"]

if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("typeguard"):
    import jaxtyping

    # Every call in the product is checked against the shapes and types that its signature declares.
    jaxtyping.install_import_hook("techtree.lm", "type_checking.checked")

if importlib.util.find_spec("hypothesis"):
    import hypothesis

    # A test that is slow once, because the machine is busy, is no wrong program.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("techtree", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("techtree")

TINY_SOURCES = ("bisect.py", "contextlib.py", "fnmatch.py", "heapq.py", "shlex.py", "textwrap.py")
"""Of the standard library; 100 kB together."""


def pytest_report_header(config: pytest.Config) -> str:
    """Say which files are judged, where that is not what git tracks."""
    return "" if is_known() else "git does not know this folder: every file in it is judged as the project's"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out tests that git does not track, unless somebody names them, or a folder of them."""
    named = [Path(config.invocation_params.dir, word.partition("::")[0]) for word in config.args]
    return is_left_out(collection_path, named) or None


@pytest.fixture(scope="session")
def project_copy(tmp_path_factory) -> Path:
    """The project's files and nothing else, in a folder of their own."""
    return copy_tracked(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def tiny_texts() -> list[str]:
    """Some source code."""
    library = Path(sysconfig.get_path("stdlib"))
    return [(library / name).read_text(encoding="utf-8") for name in TINY_SOURCES]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_texts):
    """A tokenizer of 512 tokens."""
    pytest.importorskip("tokenizers")
    from techtree.lm.tokenizer import Tokenizer

    return Tokenizer.train(tiny_texts, vocab_size=512)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer):
    """A random model of two layers: it writes words without sense or end, and always the same."""
    torch = pytest.importorskip("torch")
    from techtree.lm.config import ModelConfig
    from techtree.lm.model.language_model import LanguageModel

    config = ModelConfig(
        vocab_size=tiny_tokenizer.vocab_size,
        d_model=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        d_ff=64,
        max_seq_len=128,
    )
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # Unlike before training, every matrix does something: a mistake in any shows in the logits.
        for matrix in (p for p in model.parameters() if p.dim() == 2):
            matrix.normal_(std=matrix.shape[1] ** -0.5, generator=generator)
        embedding = model.model.embed_tokens.weight
        for i in range(config.vocab_size):
            text = tiny_tokenizer.decode_bytes([i])
            if i < 5 or not (text.isascii() and text.strip().isalnum()):
                embedding[i] *= 0.01  # a logit near zero, which is never the largest
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_model, tiny_tokenizer, tmp_path_factory) -> Path:
    """The tiny model and its tokenizer as files; read it, never write to it."""
    from techtree.lm.formats.huggingface import save_pretrained

    folder = tmp_path_factory.mktemp("runs") / "tiny" / "model"
    save_pretrained(folder, tiny_model, tiny_tokenizer)
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """Let PyTorch take one thread: with matrices this small, more would only wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
