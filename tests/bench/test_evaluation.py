import math

import pytest
import torch

from evaluation import held_out_loss, windows

IDS = torch.arange(10) % 3


def test_every_token_but_the_first_is_a_target_once():
    inputs, targets = zip(*windows(IDS, 4), strict=True)
    assert [part.tolist() for part in inputs] == [[[0, 1, 2, 0], [1, 2, 0, 1]], [[2]]]
    assert torch.cat([part.flatten() for part in targets]).tolist() == IDS[1:].tolist()


def test_a_text_of_whole_windows_has_no_rest():
    assert [part.tolist() for part, _ in windows(IDS[:9], 4)] == [[[0, 1, 2, 0], [1, 2, 0, 1]]]


def test_the_loss_by_hand():
    """Nine targets; a program that gives 1/2 to what follows, but 1/8 after a window's first token.

    Two windows of four and one of one: three times log 8 and six times log 2, over nine.
    """

    def logits(ids):
        chance = torch.full(ids.shape, 0.5)
        chance[:, 0] = 0.125
        others = (1 - chance) / 2
        one_hot = torch.nn.functional.one_hot((ids + 1) % 3, 3)
        return torch.where(one_hot == 1, chance[..., None], others[..., None]).log()

    expected = (3 * math.log(8) + 6 * math.log(2)) / 9
    assert held_out_loss(logits, IDS, 4) == pytest.approx(expected, rel=1e-6)


def test_the_mean_is_over_targets_and_not_over_batches(monkeypatch):
    def logits(ids):
        return ids[..., None] * torch.tensor([1.0, 0.0, 0.5])

    expected = held_out_loss(logits, IDS, 2)
    monkeypatch.setattr("evaluation._TOKENS_AT_ONCE", 6)  # three rows, then one, then the rest
    assert held_out_loss(logits, IDS, 2) == pytest.approx(expected, rel=1e-6)
