"""Batches of `dataloader` are as torch counts them and can drive torch's loader; their order is pinned."""

import zlib

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler, TensorDataset
from torch.utils.data import DataLoader as TorchLoader

from techtree.techs.training.dataloader import DataLoader


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64, 100])
def test_batches_have_the_sizes_of_torchs_sampler(n):
    for size in (1, 2, 3, 8, 64, 100):
        for keep_last in (False, True):
            expected = BatchSampler(SequentialSampler(range(n)), size, drop_last=not keep_last)
            if not len(expected):  # torch gives an epoch without batches, ours is refused
                with pytest.raises(ValueError, match="no batch"):
                    DataLoader(n, size, 0, keep_last)
                continue
            loader = DataLoader(n, size, 0, keep_last)
            assert loader.n_batches == len(expected)
            assert [len(batch) for batch in loader.epoch(0)] == [len(batch) for batch in expected]


def test_an_epoch_is_a_sampler_for_torch():
    x = torch.arange(20.0).reshape(10, 2)
    loader = DataLoader(10, 4, seed=1, keep_last=True)
    found = [rows for (rows,) in TorchLoader(TensorDataset(x), batch_sampler=list(loader.epoch(2)))]
    assert all(torch.equal(rows, x[batch]) for rows, batch in zip(found, loader.epoch(2), strict=True))
    assert len(found) == 3


def test_the_order_is_the_same_on_every_machine():
    """Made by DataLoader(10, 10, seed).epoch(number) on Linux, x86-64, with NumPy 2."""
    expected = {
        (0, 0): [2, 7, 0, 9, 1, 6, 3, 5, 4, 8],
        (0, 1): [2, 5, 9, 3, 8, 6, 0, 7, 1, 4],
        (1, 0): [1, 7, 8, 3, 5, 6, 0, 2, 4, 9],
        (2**63 - 1, 10**6): [4, 9, 2, 5, 8, 6, 3, 0, 1, 7],
    }
    for (seed, number), order in expected.items():
        assert next(DataLoader(10, 10, seed).epoch(number)).tolist() == order
    many = next(DataLoader(100_000, 100_000, seed=7).epoch(3))
    assert zlib.crc32(many.astype("<i8").tobytes()) == 2320696026
    assert np.array_equal(np.sort(many), np.arange(100_000))
