"""Batches depend on the seed and the step alone; ranks divide them; a pass has every row once."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.data.batches import RandomBatches
from techtree.lm.data.manifest import Manifest, Shard
from techtree.lm.data.rows import RowsConfig
from techtree.lm.data.shard import shard_path, write_shard
from techtree.lm.data.store import TokenStore
from techtree.lm.model.cross_entropy import IGNORED

SEQ_LEN = 16
FLAG = 0x8000


def write_store(folder: Path, *shards: np.ndarray) -> TokenStore:
    """Write a store that holds exactly these rows."""
    about = []
    for number, rows in enumerate(shards):
        write_shard(shard_path(folder, number), rows)
        about.append(Shard(len(rows), rows.size, n_documents=1, n_bytes=1, made_from=""))
    config = RowsConfig(seq_len=shards[0].shape[1] - 1)
    manifest = Manifest(config, "", 1 << 15, str(shards[0].dtype), is_complete=True, shards=tuple(about))
    manifest.write(folder)
    return TokenStore(folder)


@cache
def numbered(n_rows: int) -> TokenStore:
    """Rows that hold their own number, in up to three shards."""
    rows = np.repeat(np.arange(n_rows, dtype=np.uint16)[:, None], SEQ_LEN + 1, axis=1)
    folder = tempfile.TemporaryDirectory()
    FOLDERS.append(folder)
    parts = [part for part in np.array_split(rows, 3) if len(part)]
    return write_store(Path(folder.name), *parts)


FOLDERS: list[tempfile.TemporaryDirectory] = []


@pytest.fixture(scope="module", autouse=True)
def no_folder_is_left():
    yield
    numbered.cache_clear()
    while FOLDERS:
        FOLDERS.pop().cleanup()


def drawn(batches: RandomBatches, step: int, rank: int = 0, n_ranks: int = 1) -> list[int]:
    """The numbers of the rows of a batch."""
    inputs, targets = batches.batch(step, rank, n_ranks)
    assert inputs.shape == targets.shape == (batches.batch_size // n_ranks, SEQ_LEN)
    assert torch.equal(inputs[:, :1].expand_as(targets), targets)
    return inputs[:, 0].tolist()


N_ROWS, SEEDS, STEPS = st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 10**9)


@given(N_ROWS, SEEDS, STEPS, st.integers(1, 6), st.integers(1, 6))
def test_ranks_divide_the_batch_of_one_rank(n_rows, seed, step, n_ranks, rows_each):
    batches = RandomBatches(numbered(n_rows), n_ranks * rows_each, seed)
    whole = drawn(batches, step)
    parts = [
        drawn(RandomBatches(numbered(n_rows), n_ranks * rows_each, seed), step, rank, n_ranks)
        for rank in range(n_ranks)
    ]
    assert [parts[i % n_ranks][i // n_ranks] for i in range(len(whole))] == whole


@given(N_ROWS, SEEDS, st.integers(1, 50), st.integers(0, 5))
def test_each_pass_draws_every_row_once(n_rows, seed, batch_size, first_pass):
    batches = RandomBatches(numbered(n_rows), batch_size, seed)
    first, last = first_pass * n_rows, (first_pass + 2) * n_rows
    steps = range(first // batch_size, last // batch_size + 1)
    rows = [row for step in steps for row in drawn(batches, step)][first - steps[0] * batch_size :]
    for start in (0, n_rows):
        assert sorted(rows[start : start + n_rows]) == list(range(n_rows))


@given(N_ROWS, SEEDS, st.lists(STEPS, min_size=2, max_size=6), st.integers(1, 50))
def test_a_batch_depends_on_nothing_that_was_drawn_before(n_rows, seed, steps, batch_size):
    one = RandomBatches(numbered(n_rows), batch_size, seed)
    forward = [drawn(one, step) for step in steps]
    assert [drawn(one, step) for step in reversed(steps)] == forward[::-1]
    assert [drawn(RandomBatches(numbered(n_rows), batch_size, seed), step) for step in steps] == forward


@given(N_ROWS, SEEDS, st.integers(1, 50), st.integers(0, 100))
def test_the_batch_size_only_cuts_the_sequence(n_rows, seed, batch_size, step):
    small, large = (RandomBatches(numbered(n_rows), size, seed) for size in (1, batch_size))
    places = range(step * batch_size, (step + 1) * batch_size)
    assert drawn(large, step) == [drawn(small, place)[0] for place in places]


def test_passes_and_seeds_have_orders_of_their_own():
    orders = [drawn(RandomBatches(numbered(40), 40, seed), step) for seed in (0, 1) for step in (0, 1)]
    orders.append(list(range(40)))
    assert len(set(map(tuple, orders))) == 5  # By chance two are equal once in 40! / 10 cases.


def test_no_order_is_more_likely_than_another():
    first = np.bincount([drawn(RandomBatches(numbered(4), 1, 0), 4 * i)[0] for i in range(2000)], minlength=4)
    # Binomial: 500 with a standard deviation of 19; a fair draw is 5 of them away once in a million.
    assert abs(first - 500).max() < 100


def test_targets_are_the_next_inputs_and_some_are_not_learned(tmp_path):
    row = np.arange(17, dtype=np.uint16)
    row[[0, 5, 16]] |= FLAG
    batches = RandomBatches(write_store(tmp_path, row[None]), 2, seed=0)
    inputs, targets = batches.batch(7)
    expected = list(range(1, 17))
    expected[4] = expected[15] = IGNORED
    assert inputs.tolist() == [list(range(16))] * 2
    assert targets.tolist() == [expected] * 2
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()


def test_32_bit_rows_give_the_same_batches(tmp_path):
    rows = np.random.default_rng(0).integers(0, 1 << 16, (9, 17)).astype(np.uint16)
    wide = (rows & 0x7FFF).astype(np.uint32) | (rows >> 15).astype(np.uint32) << 31
    one = RandomBatches(write_store(tmp_path / "narrow", rows), 4, seed=0).batch(3)
    other = RandomBatches(write_store(tmp_path / "wide", wide), 4, seed=0).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("batch_size", "n_ranks", "advice"), [(8, 3, 6), (4, 8, 8), (7, 2, 6)])
def test_ranks_that_cannot_have_equal_parts_are_refused(batch_size, n_ranks, advice):
    batches = RandomBatches(numbered(10), batch_size, seed=0)
    with pytest.raises(
        InputError, match=f"n_ranks must divide batch_size; got .*={n_ranks}: use {advice} rows"
    ):
        batches.batch(0, 0, n_ranks)


def test_batch_size_out_of_range_is_refused():
    with pytest.raises(InputError, match="batch_size must be at least 1; got 0"):
        RandomBatches(numbered(3), 0, seed=0)
