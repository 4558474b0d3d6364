import pytest
import torch

from techtree.errors import InputError
from techtree.lm.formats.gguf.architecture import architecture_of
from techtree.lm.formats.huggingface.families import family_of
from techtree.lm.model import LanguageModel
from techtree.lm.speedrun import speedrun_model, speedrun_training
from techtree.lm.train.trainer import train


def test_it_has_no_more_parameters_than_its_peer():
    # nanoGPT, 4 layers of width 128 without biases: two tables; per layer 12 d^2 and two norms.
    peer = 65 * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128
    assert 0.99 * peer < speedrun_model(65, 64).n_parameters <= peer


@pytest.mark.parametrize("choose", [family_of, architecture_of])
def test_it_cannot_be_exported_and_says_so(choose):
    with pytest.raises(InputError, match=r"can carry this model.*speedrun=None \(got"):
        choose(speedrun_model(65, 64))


class Trigrams:
    """What follows is the sum of the last two, so that one token alone says nothing."""

    def batch(self, step, rank=0, n_ranks=1):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(13, (16, 18), generator=generator)
        for i in range(2, 18):
            rows[:, i] = (rows[:, i - 1] + rows[:, i - 2]) % 13
        return rows[:, 1:-1].contiguous(), rows[:, 2:].contiguous()


def test_it_trains_with_the_trainer_and_comes_back(tmp_path):
    steps = []
    model = train(speedrun_model(13, 16), speedrun_training(30), Trigrams(), tmp_path, steps.append)
    # Only the first token of a row is a guess among 13, log 13 / 16 = 0.16; at first all are, log 13 = 2.56.
    assert steps[0].loss > 2.4
    assert steps[-1].loss < 0.6
    again = train(speedrun_model(13, 16), speedrun_training(30), Trigrams(), tmp_path)
    assert isinstance(again, LanguageModel)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
