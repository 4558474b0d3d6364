import pytest
import torch

from shakespeare import WINDOW, ShuffledWindows, read, split
from techtree.errors import InputError

TEXT = "to be, or not to be\n" * 50


def test_characters_are_numbered_in_order():
    found = split(TEXT)
    assert found.alphabet == "\n ,benort"
    assert found.train[:5].tolist() == [8, 6, 1, 3, 4]
    assert (len(found.train), len(found.held_out)) == (900, 100)


def test_a_text_that_is_missing_or_short_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing.txt is none: download https.*TECHTREE_DATA"):
        read(tmp_path / "missing.txt")
    with pytest.raises(InputError, match="must be more than 64 characters; got 640 in all"):
        split("a" * 640)


def test_an_epoch_has_every_window_once():
    ids = torch.arange(20 * WINDOW)
    batches = ShuffledWindows(ids, n_steps=10, n_rows=4, seed=3)
    starts = batches.starts.flatten()
    first_epoch = starts[: (len(ids) - 1 - starts[0] % WINDOW) // WINDOW]
    assert len(set(first_epoch.tolist())) == len(first_epoch) >= 18
    assert len({start % WINDOW for start in first_epoch.tolist()}) == 1
    inputs, targets = batches.batch(2)
    assert inputs.shape == (4, WINDOW)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(batches.batch(2, 1, 2)[0], inputs[1::2])
