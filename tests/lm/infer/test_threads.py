"""Small work is done by one thread, and the number is given back."""

import pytest
import torch

from techtree.lm.infer.generate import PrefixCache, generate
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.threads import SMALL_WORK, threads_for


@pytest.fixture(autouse=True)
def two_threads(one_thread):
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("work", "n_threads"), [(0, 1), (SMALL_WORK, 1), (SMALL_WORK + 1, 2)])
def test_how_many(work, n_threads):
    with threads_for(work):
        assert torch.get_num_threads() == n_threads
    assert torch.get_num_threads() == 2


def test_after_an_exception(two_threads):
    with pytest.raises(MemoryError), threads_for(0):
        raise MemoryError
    assert torch.get_num_threads() == 2


def test_generation_uses_it(tiny_model, monkeypatch):
    used = []
    hidden = type(tiny_model).hidden

    def watched(self, *args):
        used.append(torch.get_num_threads())
        return hidden(self, *args)

    monkeypatch.setattr(type(tiny_model), "hidden", watched)
    cache = PrefixCache(tiny_model, 128)
    for small_work, n_threads in ((10**9, 1), (0, 2)):
        monkeypatch.setattr("techtree.lm.infer.threads.SMALL_WORK", small_work)
        list(generate(cache, [7, 8, 9], Limits(2), sampling=SamplingParams(), stop_ids=()))
        assert used[-1] == n_threads
    assert torch.get_num_threads() == 2
