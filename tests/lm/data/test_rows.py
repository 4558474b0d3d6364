"""Rows are built once and never stale; batches depend on the seed and the step alone."""

import numpy as np
import pytest
import torch

from techtree.errors import InputError
from techtree.lm.data import rows as rows_module
from techtree.lm.data.corpus import Document
from techtree.lm.data.pieces import MAX_PASSES
from techtree.lm.data.rows import IGNORED, RowsConfig, TokenRows, build_rows
from techtree.lm.tokenizer import Tokenizer

CONFIG = RowsConfig(seq_len=64)


@pytest.fixture
def documents(tiny_texts) -> list[Document]:
    return [Document(f"{i}.py", text[:8000]) for i, text in enumerate(tiny_texts[:2])]


@pytest.fixture
def rows(documents, tiny_tokenizer) -> np.ndarray:
    return build_rows(documents, tiny_tokenizer, CONFIG)


# ---- what is in the rows


def test_rows_hold_each_token_once(documents, tiny_tokenizer):
    rows = build_rows(documents, tiny_tokenizer, RowsConfig(seq_len=64, fim_rate=0))
    learned = np.sort(rows[rows < 0x8000])
    ids = tiny_tokenizer.encode_batch([d.text for d in documents])
    expected = np.sort(np.concatenate([*ids, [tiny_tokenizer.end_of_text_id] * len(documents)]))
    assert rows.dtype == np.uint16
    np.testing.assert_array_equal(learned, expected)


def test_rows_are_nearly_full(rows, tiny_tokenizer):
    is_padding = rows == tiny_tokenizer.end_of_text_id | 0x8000
    assert is_padding.mean() < 0.05


def test_same_seed_same_rows(documents, tiny_tokenizer, rows):
    np.testing.assert_array_equal(build_rows(documents, tiny_tokenizer, CONFIG), rows)
    other = build_rows(documents, tiny_tokenizer, RowsConfig(seq_len=64, seed=1))
    assert other.shape != rows.shape or (other != rows).any()


def test_as_many_rows_as_asked_for(documents, tiny_tokenizer, rows):
    for n_rows in (1, 20, 2 * len(rows)):
        config = RowsConfig(seq_len=64, n_rows=n_rows)
        assert len(build_rows(documents, tiny_tokenizer, config)) == n_rows
    most = build_rows(documents, tiny_tokenizer, RowsConfig(seq_len=64, n_rows=100 * len(rows)))
    assert len(most) == pytest.approx(MAX_PASSES * len(rows), rel=0.05)
    assert len(np.unique(most, axis=0)) > 0.6 * len(most)  # plain windows repeat, examples are cut anew


def test_too_little_text_is_refused(tiny_tokenizer):
    documents = [Document("a.py", "x = 1\n"), Document("b.py", "y = 2\n")]
    with pytest.raises(InputError, match=r"seq_len \+ 1 = 65 tokens; got 1\d tokens in 2 files: add files"):
        build_rows(documents, tiny_tokenizer, CONFIG)


@pytest.mark.parametrize("wrong", [{"seq_len": 15}, {"fim_rate": 1.1}, {"fim_rate": -0.1}, {"n_rows": 0}])
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must"):
        RowsConfig(**wrong)


# ---- batches


def test_targets_are_the_next_inputs(rows, tiny_tokenizer):
    inputs, targets = TokenRows(rows, batch_size=len(rows), seed=0).batch(0)
    assert inputs.shape == targets.shape == (len(rows), 64)
    assert inputs.dtype == targets.dtype == torch.int64
    assert 0 <= inputs.min() <= inputs.max() < tiny_tokenizer.vocab_size
    is_learned = targets[:, :-1] != IGNORED
    assert torch.equal(inputs[:, 1:][is_learned], targets[:, :-1][is_learned])
    assert (
        is_learned.float().mean() > 0.8
    )  # rows of 64 have a piece's start and three marks, and some padding
    marks = [tiny_tokenizer.fim_prefix_id, tiny_tokenizer.fim_suffix_id, tiny_tokenizer.fim_middle_id]
    assert not torch.isin(targets, torch.tensor(marks)).any()
    assert torch.isin(inputs, torch.tensor(marks)).any()


def test_32_bit_rows_give_the_same_batches(rows):
    wide = (rows & 0x7FFF).astype(np.uint32) | (rows >> 15).astype(np.uint32) << 31
    narrow_batch = TokenRows(rows, 4, seed=0).batch(3)
    wide_batch = TokenRows(wide, 4, seed=0).batch(3)
    assert torch.equal(narrow_batch[0], wide_batch[0])
    assert torch.equal(narrow_batch[1], wide_batch[1])


def test_batch_is_a_pure_function_of_seed_and_step(rows):
    forward = TokenRows(rows, 8, seed=5)
    steps = range(3 * len(rows) // 8)
    batches = {step: forward.batch(step) for step in steps}
    for step in reversed(steps):  # one object in another order, and a new object for each
        for other in (forward.batch(step), TokenRows(rows, 8, seed=5).batch(step)):
            assert torch.equal(batches[step][0], other[0])
            assert torch.equal(batches[step][1], other[1])


@pytest.mark.parametrize("batch_size", [1, 7])
def test_each_pass_draws_every_row_once_in_an_order_of_its_own(batch_size):
    n = 21
    rows = np.arange(n, dtype=np.uint16)[:, None] + np.zeros((1, 17), np.uint16)
    loader = TokenRows(rows, batch_size, seed=0)
    drawn = torch.cat([loader.batch(step)[0][:, 0] for step in range(3 * n // batch_size)]).tolist()
    passes = [drawn[i : i + n] for i in range(0, len(drawn), n)]
    assert all(sorted(each) == list(range(n)) for each in passes)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] != list(range(n))


def test_batch_across_passes():
    rows = np.arange(5, dtype=np.uint16)[:, None] + np.zeros((1, 17), np.uint16)
    small, large = TokenRows(rows, 1, seed=0), TokenRows(rows, 12, seed=0)  # more than two passes at once
    assert large.batch(1)[0][:, 0].tolist() == [int(small.batch(i)[0][0, 0]) for i in range(12, 24)]


def test_batch_size_out_of_range_is_refused(rows):
    with pytest.raises(InputError, match="batch_size must be at least 1; got 0"):
        TokenRows(rows, 0, seed=0)


# ---- the file


@pytest.fixture
def path(documents, tiny_tokenizer, tmp_path):
    """A file with rows, just built."""
    path = tmp_path / "data" / "rows.npy"
    TokenRows.open(path, documents, tiny_tokenizer, CONFIG, batch_size=4)
    return path


@pytest.fixture
def builds(monkeypatch) -> list[RowsConfig]:
    """What has been built since the start of the test."""
    builds = []

    def counting(documents, tokenizer, config):
        builds.append(config)
        return build_rows(documents, tokenizer, config)

    monkeypatch.setattr(rows_module, "build_rows", counting)
    return builds


def test_second_opening_maps_the_file(path, documents, tiny_tokenizer, builds, rows):
    opened = TokenRows.open(path, documents, tiny_tokenizer, CONFIG, batch_size=4)
    assert builds == []
    assert isinstance(opened.rows, np.memmap)
    np.testing.assert_array_equal(opened.rows, rows)
    assert (opened.n_rows, opened.seq_len) == (len(rows), 64)
    assert sorted(file.name for file in path.parent.iterdir()) == ["rows.json", "rows.npy"]


def test_path_of_documents_does_not_matter(path, documents, tiny_tokenizer, builds):
    moved = [Document(f"moved/{d.path}", d.text) for d in documents]
    TokenRows.open(path, moved, tiny_tokenizer, CONFIG, batch_size=4)
    assert builds == []


def test_stale_file_is_built_anew(path, documents, tiny_texts, tiny_tokenizer, builds):
    edited = [documents[0], Document(documents[1].path, documents[1].text + "\n")]
    joined = [Document("all.py", documents[0].text + documents[1].text)]
    TokenRows.open(path, edited, tiny_tokenizer, CONFIG, batch_size=4)
    TokenRows.open(path, joined, tiny_tokenizer, CONFIG, batch_size=4)
    TokenRows.open(path, joined, Tokenizer.train(tiny_texts, 300), CONFIG, batch_size=4)
    TokenRows.open(path, joined, tiny_tokenizer, RowsConfig(seq_len=32), batch_size=4)
    assert len(builds) == 4
    last = TokenRows.open(path, joined, tiny_tokenizer, RowsConfig(seq_len=32), batch_size=4)
    assert len(builds) == 4
    assert last.seq_len == 32


@pytest.mark.parametrize("name", ["rows.npy", "rows.json"])
@pytest.mark.parametrize("damage", [None, b"", b"\x00garbage", b"{}", b"[]", b'"x"'])
def test_damaged_file_is_built_anew(path, documents, tiny_tokenizer, builds, rows, name, damage):
    file = path.with_name(name)
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    opened = TokenRows.open(path, documents, tiny_tokenizer, CONFIG, batch_size=4)
    assert len(builds) == 1
    np.testing.assert_array_equal(opened.rows, rows)


def test_half_a_file_is_built_anew(path, documents, tiny_tokenizer, builds):
    path.write_bytes(path.read_bytes()[:-1000])
    TokenRows.open(path, documents, tiny_tokenizer, CONFIG, batch_size=4)
    assert len(builds) == 1


def test_kill_between_the_two_files_leaves_nothing_to_trust(documents, tiny_tokenizer, tmp_path, monkeypatch):
    def killed(path, text):
        raise KeyboardInterrupt

    path = tmp_path / "rows.npy"
    config, other = (RowsConfig(seq_len=64, n_rows=20, seed=seed) for seed in (0, 1))  # of the same shape
    before = np.array(TokenRows.open(path, documents, tiny_tokenizer, config, batch_size=4).rows)
    with monkeypatch.context() as patch:
        patch.setattr(rows_module, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            TokenRows.open(path, documents, tiny_tokenizer, other, batch_size=4)
    opened = TokenRows.open(path, documents, tiny_tokenizer, config, batch_size=4)
    np.testing.assert_array_equal(opened.rows, before)
