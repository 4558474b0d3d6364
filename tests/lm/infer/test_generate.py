"""Oracle: the model without a cache, which reads the whole text again for each token."""

import math
import time

import pytest
import torch

from techtree.errors import InputError
from techtree.lm.infer.generate import (
    PREFILL_CHUNK,
    PrefixCache,
    decode_one_token,
    generate,
    prefill,
)
from techtree.lm.infer.limits import Limits, Progress
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.model.cache import KVCache

GREEDY = SamplingParams()
# Sums of 32 products in another order: errors of some 1e-6 on logits of size 1.
ATOL = 1e-4


def prompt(n, start=5):
    return [start + (i * i) % 97 for i in range(n)]


@torch.inference_mode()
def uncached(model, ids, n):
    """Return the greedy continuation, and the smallest lead of a best token over the second."""
    ids, lead = list(ids), math.inf
    for _ in range(n):
        logits, best = model(torch.tensor([ids]))[0, -1].topk(2)
        lead = min(lead, float(logits[0] - logits[1]))
        ids.append(int(best[0]))
    return ids[-n:], lead


def run(cache, ids, n=10, sampling=GREEDY, stop_ids=(), progress=None, **limits):
    return list(
        generate(cache, ids, Limits(n, **limits), sampling=sampling, stop_ids=stop_ids, progress=progress)
    )


@pytest.fixture
def cache(tiny_model):
    return PrefixCache(tiny_model, tiny_model.config.max_seq_len)


def test_prefill_and_decode_equal_the_uncached_model(tiny_model):
    ids = prompt(20)
    kv = KVCache(tiny_model.config, 1, 32)
    with torch.inference_mode():
        expected = tiny_model(torch.tensor([ids]))[0]
        torch.testing.assert_close(
            prefill(tiny_model, torch.tensor(ids[:15]), kv), expected[14], atol=ATOL, rtol=0
        )
        for i in range(15, 20):
            logits = decode_one_token(tiny_model, ids[i], kv)
            torch.testing.assert_close(logits, expected[i], atol=ATOL, rtol=0)
    assert kv.length == 20


def test_prefill_in_chunks_equals_all_at_once(tiny_model):
    ids = torch.tensor(prompt(PREFILL_CHUNK + 7))
    kv = KVCache(tiny_model.config, 1, len(ids))
    with torch.inference_mode():
        expected = tiny_model(ids[None])[0, -1]
        torch.testing.assert_close(prefill(tiny_model, ids, kv), expected, atol=ATOL, rtol=0)


def test_cached_equals_uncached(tiny_model, cache):
    ids = prompt(20)
    expected, lead = uncached(tiny_model, ids, 20)
    assert lead > 2 * ATOL  # so that rounding cannot decide
    assert run(cache, ids, 20) == expected


def test_a_prompt_after_another_equals_a_fresh_one(tiny_model, cache):
    base = prompt(40)
    successors = [
        base,
        [*base, 7, 8, 9],  # typed on
        [*base[:30], 11, 12],  # deleted, and typed something else
        base[:10],  # all of it is held
        base,
        prompt(20, start=100),  # nothing in common
    ]
    for ids in successors:
        expected, lead = uncached(tiny_model, ids, 3)
        assert lead > 2 * ATOL
        assert run(cache, ids, 3) == expected


def test_only_what_is_new_is_run(cache):
    base = prompt(40)
    first, second, third = Progress(), Progress(), Progress()
    text = run(cache, base, 5, progress=first)
    run(cache, [*base, *text[:3], 9], 5, progress=second)
    run(cache, base[:20], 5, progress=third)
    assert (first.n_prompt, first.n_reused) == (40, 0)
    assert (second.n_prompt, second.n_reused) == (44, 43)
    assert (third.n_prompt, third.n_reused) == (20, 19)  # the last token is run for its logits
    assert first.n_predicted == 5
    assert first.prompt_s > 0
    assert first.predicted_s > 0


def test_it_stops_at_the_number_of_tokens(cache):
    progress = Progress()
    assert len(run(cache, prompt(10), 7, progress=progress)) == 7
    assert progress.stop == "max_tokens"
    assert run(cache, prompt(10), 0, progress=progress) == []


def test_it_stops_before_a_stop_token(cache):
    free = run(cache, prompt(10), 10)
    stop = free[4]
    progress = Progress()
    text = run(cache, prompt(10), 10, stop_ids={stop}, progress=progress)
    assert text == free[: free.index(stop)]
    assert progress.stop == "end_of_text"


def test_it_stops_at_the_end_of_the_context(tiny_model):
    small = PrefixCache(tiny_model, 16)
    progress = Progress()
    assert len(run(small, prompt(10), 100, progress=progress)) == 6
    assert progress.stop == "context"


def test_it_stops_at_the_deadline(cache):
    progress = Progress()
    assert run(cache, prompt(10), 10, deadline=time.monotonic() - 1, progress=progress) == []
    assert progress.stop == "deadline"
    assert len(run(cache, prompt(10), 10, deadline=time.monotonic() + 3600)) == 10


def test_it_is_cancelled_between_two_tokens(cache):
    seen = []
    progress = Progress()
    limits = Limits(50, should_stop=lambda: len(seen) >= 3)
    for token in generate(cache, prompt(10), limits, sampling=GREEDY, stop_ids=(), progress=progress):
        seen.append(token)
    assert len(seen) == 3
    assert progress.stop == "cancelled"


def test_it_is_cancelled_within_the_prompt(tiny_model):
    cache = PrefixCache(tiny_model, 4 * PREFILL_CHUNK)
    answers = iter([False, False, False, True, True, True])
    ids = prompt(3 * PREFILL_CHUNK)
    assert run(cache, ids, 5, should_stop=lambda: next(answers)) == []
    assert 0 < len(cache) < len(ids)
    # What has been run stays good.
    fresh = PrefixCache(tiny_model, 4 * PREFILL_CHUNK)
    assert run(cache, ids, 5) == run(fresh, ids, 5)


def test_an_exception_in_the_model_leaves_a_good_cache(tiny_model, cache, monkeypatch):
    ids = prompt(20)
    run(cache, ids[:10], 2)

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_model), "logits", fail)
        with pytest.raises(MemoryError):
            run(cache, ids, 3)
    assert run(cache, ids, 3) == run(PrefixCache(tiny_model, 128), ids, 3)


def test_a_consumer_may_leave(tiny_model, cache):
    ids = prompt(20)
    for _ in generate(cache, ids, Limits(9), sampling=GREEDY, stop_ids=()):
        break
    assert run(cache, ids, 3) == run(PrefixCache(tiny_model, 128), ids, 3)


def test_a_seed_repeats_a_text(cache):
    sampling = SamplingParams(temperature=1, seed=3)
    first = run(cache, prompt(10), 20, sampling)
    assert first == run(cache, prompt(10), 20, sampling)
    assert first != run(cache, prompt(10), 20, SamplingParams(temperature=1, seed=4))


@pytest.mark.parametrize("n", [0, 128, 200])
def test_a_prompt_must_fit(cache, n):
    with pytest.raises(InputError, match="from 1 to 127"):
        run(cache, prompt(n))
