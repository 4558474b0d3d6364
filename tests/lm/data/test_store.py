"""A store is the same bytes however often its building was killed, and never stale or damaged unnoticed."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.data import store as store_module
from techtree.lm.data.corpus import Document
from techtree.lm.data.manifest import read_manifest
from techtree.lm.data.rows import RowsConfig, build_rows
from techtree.lm.data.shard import open_shard, shard_path, write_shard
from techtree.lm.data.store import TokenStore
from techtree.lm.data.store_builder import grouped
from techtree.lm.tokenizer import Tokenizer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- groups


@given(st.lists(st.text("ab", max_size=12)), st.integers(1, 20))
def test_groups_are_the_documents_in_turn_and_large_enough(texts, n_bytes):
    documents = [Document(f"{i}.py", text) for i, text in enumerate(texts)]
    groups = list(grouped(iter(documents), n_bytes))
    assert [document for group in groups for document in group] == documents
    sizes = [sum(document.n_bytes for document in group) for group in groups]
    assert all(size >= n_bytes for size in sizes) or len(sizes) == 1
    assert all(size < n_bytes + 12 for size in sizes[:-1])
    assert all(size < 2 * n_bytes + 24 for size in sizes[-1:])


def test_no_more_than_two_groups_are_held():
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield Document("a.py", "x" * 10)

    groups = grouped(endless(), 30)
    assert [len(next(groups)) for _ in range(5)] == [3] * 5
    assert len(drawn) == 18


# ---- what is in it


def test_a_store_is_the_rows_of_its_groups(whole, store_groups, tiny_tokenizer):
    store = TokenStore(whole)
    assert len(store_groups) > 4
    built = [
        build_rows(group, tiny_tokenizer, RowsConfig(seq_len=64, seed=3), np.random.default_rng([3, number]))
        for number, group in enumerate(store_groups)
    ]
    expected = np.concatenate(built)
    assert (store.n_rows, store.seq_len) == (len(expected), 64)
    assert store.n_tokens == (expected < 0x8000).sum()
    # One by one, all at once, and backwards: over the borders of shards too.
    for numbers in ([i] for i in range(len(expected))):
        tokens, is_learned = store.rows(np.array(numbers))
        np.testing.assert_array_equal(tokens | np.where(is_learned, 0, 0x8000), expected[numbers])
    numbers = np.arange(len(expected))[::-1]
    tokens, is_learned = store.rows(numbers)
    np.testing.assert_array_equal(tokens | np.where(is_learned, 0, 0x8000), expected[numbers])


def test_rows_are_mapped_and_readable_with_numpy_alone(whole):
    store = TokenStore(whole)
    for number, shard in enumerate(store.manifest.shards):
        assert isinstance(store._rows_of(number), np.memmap)
        rows = np.load(shard_path(whole, number), allow_pickle=False)
        np.testing.assert_array_equal(rows, store._rows_of(number))
        assert rows.shape == (shard.n_rows, 65)
        assert (rows < 0x8000).sum() == shard.n_tokens


def test_few_files_are_held_open(whole, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 2)
    store, all_open = TokenStore(whole), TokenStore(whole)
    for number in np.random.default_rng(0).integers(0, store.n_rows, 50):
        numbers = np.array([number])
        np.testing.assert_array_equal(store.rows(numbers)[0], all_open.rows(numbers)[0])
        assert store._rows_of.cache_info().currsize <= 2


def test_the_manifest_says_what_it_was_made_from(whole, store_documents, tiny_tokenizer):
    about = json.loads((whole / "store.json").read_text(encoding="utf-8"))
    assert about["format"] == "techtree token store 1"
    assert about["config"] == {"seq_len": 64, "fim_rate": 0.5, "n_rows": None, "seed": 3}
    assert (about["vocab_size"], about["dtype"]) == (tiny_tokenizer.vocab_size, "uint16")
    assert sum(shard["n_documents"] for shard in about["shards"]) == len(store_documents)
    assert sum(shard["n_bytes"] for shard in about["shards"]) == sum(d.n_bytes for d in store_documents)
    assert len({shard["made_from"] for shard in about["shards"]}) == len(about["shards"])


def test_it_has_its_tokenizer(whole, tiny_tokenizer):
    assert TokenStore(whole).tokenizer.to_json() == tiny_tokenizer.to_json()


def test_documents_may_come_from_an_iterator(whole, store_documents, tmp_path, build):
    build(tmp_path, iter(store_documents))
    assert contents(tmp_path) == contents(whole)


def test_paths_of_documents_do_not_matter(folder, store_documents, build):
    build(folder, [Document(f"moved/{d.path}", d.text) for d in store_documents])


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 17), np.uint16), ((12345, 33), np.uint16), ((7, 1025), np.uint32)]
)
def test_shards_round_trip_and_start_at_a_multiple_of_64(shape, dtype, tmp_path):
    rows = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    write_shard(tmp_path / "x.npy", rows)
    mapped = open_shard(tmp_path / "x.npy", np.dtype(dtype), *shape)
    np.testing.assert_array_equal(mapped, rows)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows)
    assert ((tmp_path / "x.npy").stat().st_size - rows.nbytes) % 64 == 0
    assert not mapped.flags.writeable


# ---- killed and started again

KILLED_EVERYWHERE = """
import json, os, signal, sys
from pathlib import Path
from techtree.lm.data.corpus import Document
from techtree.lm.data.rows import RowsConfig
from techtree.lm.data.store_builder import build_store
from techtree.lm.tokenizer import Tokenizer

root, tokenizer = Path(sys.argv[1]), Tokenizer.load(Path(sys.argv[2]))
given = json.loads(sys.stdin.read())
groups = [[Document("x.py", text) for text in texts] for texts in given["groups"]]
replace, n_calls = os.replace, 0

def build(folder):
    build_store(folder, groups, tokenizer, RowsConfig(**given["config"]))

def killed_at(moment):
    def call(*arguments):
        global n_calls
        for is_after in (False, True):
            if is_after:
                replace(*arguments)
            n_calls += 1
            if n_calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    return call

def state(folder):
    shards = folder.glob("rows-*.npy")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards}

moment = 0
while True:
    moment += 1
    folder = root / str(moment)
    child = os.fork()
    if child == 0:
        os.replace = killed_at(moment)
        build(folder)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    n_told_of = 0
    if (folder / "store.json").exists():
        n_told_of = len(json.loads((folder / "store.json").read_text())["shards"])
    before = state(folder)
    build(folder)
    after = state(folder)
    kept = [name for name in before if before[name] == after[name]]
    print(moment, n_told_of, len(kept), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
def test_a_kill_at_any_moment_changes_no_byte(whole, store_groups, tmp_path):
    """SIGKILL before and after every replacement of a file, which are all states that a disk can be in."""
    given = {
        "groups": [[document.text for document in group] for group in store_groups],
        "config": dataclasses.asdict(TokenStore(whole).manifest.config),
    }
    run = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path), str(whole)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    moments = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    n_shards = len(TokenStore(whole).manifest.shards)
    # Two files of the tokenizer, the first and the last manifest, and two files for each shard.
    assert len(moments) == 2 * (4 + 2 * n_shards)
    expected = contents(whole)
    for moment, n_told_of, n_kept in moments:
        assert contents(tmp_path / str(moment)) == expected
        assert n_told_of == n_kept  # What was done is not done again.
    assert {n_told_of for _, n_told_of, _ in moments} == set(range(n_shards + 1))


def test_an_exception_in_the_documents_loses_no_whole_shard(store_documents, whole, tmp_path, build):
    def interrupted():
        yield from store_documents[:8]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, interrupted())
    assert 0 < len(read_manifest(tmp_path).shards) < len(TokenStore(whole).manifest.shards)
    with pytest.raises(InputError, match=r"must be finished; it has .* goes on from there"):
        TokenStore(tmp_path)
    build(tmp_path, store_documents)
    assert contents(tmp_path) == contents(whole)


# ---- other files, other settings


def test_a_finished_store_is_only_looked_at(folder, store_documents, n_built, build):
    before = contents(folder)
    told = []
    build(folder, store_documents, on_shard=told.append)
    assert n_built == []
    assert tuple(told) == TokenStore(folder).manifest.shards
    assert contents(folder) == before


OTHER_DOCUMENTS = {
    "edited at the end": lambda ds: [*ds[:-1], Document("x.py", ds[-1].text + "x")],
    "edited at the start": lambda ds: [Document("x.py", ds[0].text + "x"), *ds[1:]],
    "fewer": lambda ds: ds[:4],
    "more": lambda ds: ds + ds,
    "joined": lambda ds: [Document("all.py", ds[0].text + ds[1].text), *ds[2:]],
    "none": lambda ds: [],
}


@pytest.mark.parametrize("other", OTHER_DOCUMENTS.values(), ids=OTHER_DOCUMENTS)
def test_other_documents_are_refused(folder, store_documents, other, build):
    before = contents(folder)
    with pytest.raises(InputError, match="holds the tokens of other files: choose another folder, or delete"):
        build(folder, other(store_documents))
    assert contents(folder) == before


@pytest.mark.parametrize("name", sorted(OTHER_DOCUMENTS.keys() - {"more"}))
def test_other_documents_do_not_join_an_unfinished_store(folder, store_documents, name, build):
    dataclasses.replace(read_manifest(folder), is_complete=False).write(folder)
    with pytest.raises(InputError, match="holds the tokens of other files"):
        build(folder, OTHER_DOCUMENTS[name](store_documents))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (RowsConfig(seq_len=32, seed=3), "seq_len=64, now it is 32"),
        (RowsConfig(seq_len=64, seed=4), "seed=3, now it is 4"),
        (RowsConfig(seq_len=64, seed=3, fim_rate=0), "fim_rate=0.5, now it is 0"),
        (RowsConfig(seq_len=64, seed=3, n_rows=9), "n_rows=None, now it is 9"),
    ],
)
def test_other_settings_are_refused(folder, store_documents, config, what, build):
    with pytest.raises(InputError, match=f"has {what}: choose another folder, or delete it"):
        build(folder, store_documents, config)


def test_another_tokenizer_is_refused(folder, store_documents, tiny_texts, build):
    with pytest.raises(InputError, match="has another tokenizer"):
        build(folder, store_documents, tokenizer=Tokenizer.train(tiny_texts, 300))


def test_no_documents_and_too_few_are_refused(tmp_path, build):
    with pytest.raises(InputError, match="needs documents; got none"):
        build(tmp_path, [])
    with pytest.raises(InputError, match="must fill at least one row"):
        build(tmp_path, [Document("a.py", "x = 1")])
