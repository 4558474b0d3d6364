"""Damage to a store is one clear error, and building mends what it can."""

import json
from pathlib import Path

import numpy as np
import pytest

from techtree.errors import InputError
from techtree.lm.data.shard import shard_path
from techtree.lm.data.store import TokenStore
from techtree.lm.tokenizer import Tokenizer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


DAMAGED_SHARDS = {
    "missing": (None, "is missing"),
    "empty": (lambda data: b"", "does not begin as a file of"),
    "garbage": (lambda data: bytes(len(data)), "does not begin as a file of"),
    "cut": (lambda data: data[:-1], "must have .* bytes; got"),
    "longer": (lambda data: data + b"x", "must have .* bytes; got"),
    "another shape": (lambda data: data.replace(b", 65)", b", 64)", 1), "does not begin as a file of"),
    "a pickle": (lambda data: data.replace(b"'<u2'", b"'|O' ", 1), "does not begin as a file of"),
    "a huge shape": (lambda data: data.replace(b"'shape': (", b"'shape': (9999999", 1), "does not begin as"),
}


@pytest.mark.parametrize(("damage", "what"), DAMAGED_SHARDS.values(), ids=DAMAGED_SHARDS)
def test_a_damaged_shard_is_one_clear_error_and_building_mends_it(
    folder, store_documents, n_built, damage, what, build
):
    before = contents(folder)
    path = shard_path(folder, 2)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"rows-00002\.npy .*{what}.*: delete .* and make it again"):
        TokenStore(folder)
    build(folder, store_documents)
    assert n_built == [1]
    assert contents(folder) == before


def test_a_token_outside_the_vocabulary_is_one_clear_error(folder, tiny_tokenizer):
    path = shard_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[-2:] = (tiny_tokenizer.vocab_size | 0x8000).to_bytes(2, "little")
    path.write_bytes(data)
    store = TokenStore(folder)
    last = store.manifest.shards[0].n_rows + store.manifest.shards[1].n_rows - 1
    store.rows(np.arange(last))
    message = (
        rf"rows-00001\.npy is damaged: the vocabulary has {tiny_tokenizer.vocab_size} tokens, it has number"
    )
    with pytest.raises(InputError, match=message):
        store.rows(np.arange(store.n_rows))


DAMAGED_MANIFESTS = {
    "another format": (lambda about: about | {"format": "techtree token store 0"}, "must have the format"),
    "no format": (lambda about: {}, "is damaged"),
    "a list": (lambda about: [about], "is damaged"),
    "another field": (lambda about: about | {"colour": 1}, "is damaged"),
    "a field less": (lambda about: {k: v for k, v in about.items() if k != "dtype"}, "is damaged"),
    "another type": (lambda about: about | {"dtype": "object"}, "is damaged"),
    "no numbers": (lambda about: about | {"vocab_size": "many"}, "is damaged"),
    "no rows": (lambda about: about | {"shards": []}, "is damaged"),
    "wrong rows": (lambda about: about | {"config": {"seq_len": -5}}, "is damaged"),
    "more rows": (
        lambda about: about | {"shards": [about["shards"][0] | {"n_rows": 10**30}]},
        "does not begin as a file",
    ),
    "fewer rows than none": (
        lambda about: about | {"shards": [about["shards"][0] | {"n_rows": -1}]},
        "is damaged",
    ),
}


@pytest.mark.parametrize(("change", "what"), DAMAGED_MANIFESTS.values(), ids=DAMAGED_MANIFESTS)
def test_a_damaged_manifest_is_one_clear_error(folder, store_documents, tiny_tokenizer, change, what):
    path = folder / "store.json"
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(InputError, match=f"(?s){what}.*and make it again"):
        TokenStore(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_a_manifest_that_is_no_json_is_one_clear_error(folder, store_documents, data, build):
    (folder / "store.json").write_bytes(data)
    for use in (TokenStore, lambda folder: build(folder, store_documents)):
        with pytest.raises(InputError, match=r"store\.json is damaged .*: delete .* and make it again"):
            use(folder)


def test_what_is_no_store_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"must hold a store of tokens; it has no store\.json"):
        TokenStore(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be read"):
        TokenStore(tmp_path / "file")
    (tmp_path / "store.json").mkdir()
    with pytest.raises(InputError, match="must be a regular file; it is a folder"):
        TokenStore(tmp_path)


def test_another_tokenizer_beside_the_rows_is_one_clear_error(folder, tiny_texts):
    Tokenizer.train(tiny_texts, 300).save(folder)
    with pytest.raises(InputError, match=r"tokenizer\.json is not the one that made the rows beside it"):
        _ = TokenStore(folder).tokenizer
