"""A small store of several shards, and how to build it again."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from techtree.lm.data import store_builder
from techtree.lm.data.corpus import Document
from techtree.lm.data.rows import RowsConfig, build_rows
from techtree.lm.data.store_builder import build_store, grouped

STORE_CONFIG = RowsConfig(seq_len=64, seed=3)
GROUP_BYTES = 2500


@pytest.fixture(scope="session")
def store_documents(tiny_texts) -> list[Document]:
    """What the small store is made from."""
    texts = [text[1000 * i : 1000 * i + 1500] for i, text in enumerate(tiny_texts * 2)]
    return [Document(f"{i}.py", text) for i, text in enumerate(texts)]


@pytest.fixture(scope="session")
def store_groups(store_documents) -> list[list[Document]]:
    """The documents of each shard."""
    return list(grouped(store_documents, GROUP_BYTES))


@pytest.fixture(scope="session")
def build(tiny_tokenizer) -> Callable[..., None]:
    """Build a store of small shards: `build(folder, documents)`."""

    def build_small(folder, documents, config=STORE_CONFIG, tokenizer=tiny_tokenizer, **options):
        build_store(folder, grouped(documents, GROUP_BYTES), tokenizer, config, **options)

    return build_small


@pytest.fixture(scope="session")
def whole(build, store_documents, tmp_path_factory) -> Path:
    """The small store; read it, never write to it."""
    folder = tmp_path_factory.mktemp("store")
    build(folder, store_documents)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def n_built(monkeypatch) -> list[int]:
    """One entry for each shard that is built."""
    built = []

    def counting(*arguments):
        built.append(1)
        return build_rows(*arguments)

    monkeypatch.setattr(store_builder, "build_rows", counting)
    return built
