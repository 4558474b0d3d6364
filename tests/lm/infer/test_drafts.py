"""Guesses change the number of runs, and not one token. Oracle: one token at a time."""

import random

import pytest

from lm.decoder_in_c import needs_decoder
from techtree.lm.infer.drafts import LONGEST_MATCH, N_DRAFT, SHORTEST_MATCH, Drafts
from techtree.lm.infer.generate import PrefixCache, TorchText, generate
from techtree.lm.infer.limits import Limits, Progress
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.index import BOUNDARY
from techtree.lm.native.decoder import Decoder

MAX_LEN = 128


@pytest.fixture(scope="module", params=[pytest.param(None, marks=needs_decoder)], ids=["c"])
def decoder(request, tiny_model):
    return Decoder(tiny_model.config, dict(tiny_model.named_parameters()), MAX_LEN)


def written(cache, prompt, n=30, sampling=SamplingParams(), stop_ids=()):  # noqa: B008 - it is frozen
    progress = Progress()
    ids = list(generate(cache, prompt, Limits(n), sampling=sampling, stop_ids=stop_ids, progress=progress))
    assert progress.n_predicted == len(ids)
    return ids, progress.stop


def prompts(n_tokens, n=12):
    generator = random.Random(0)
    for _ in range(n):
        words = [[generator.randrange(n_tokens) for _ in range(4)] for _ in range(3)]
        yield [token for _ in range(generator.randrange(1, 8)) for token in generator.choice(words)]


GUESSES = {
    "none": lambda self, n: [],
    "what followed before": Drafts.propose,
    "always wrong": lambda self, n: [7] * max(0, n),
}


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(1.0, top_k=5, seed=3)], ids=str)
def test_no_guess_changes_a_token(decoder, tiny_model, monkeypatch, sampling):
    plain = {}
    for i, prompt in enumerate(prompts(tiny_model.config.vocab_size)):
        expected = None
        for name, propose in GUESSES.items():
            monkeypatch.setattr(Drafts, "propose", propose)
            found = written(PrefixCache(decoder, MAX_LEN), prompt, sampling=sampling)
            expected = expected or found
            assert found == expected, (i, name)
        plain[i] = expected
    assert len({tuple(ids) for ids, _ in plain.values()}) > 6


def test_right_guesses_save_runs_and_half_right_ones_some(decoder, tiny_model, monkeypatch):
    prompt = next(prompts(tiny_model.config.vocab_size))
    monkeypatch.setattr(Drafts, "propose", GUESSES["none"])
    expected, _ = written(PrefixCache(decoder, MAX_LEN), prompt, 33)
    runs = []
    run = decoder.run
    monkeypatch.setattr(decoder, "run", lambda *a: runs.append(len(a[0])) or run(*a))
    for n_right, n_runs in ((N_DRAFT, 1 + 4), (3, 1 + 8)):

        def propose(self, n, n_right=n_right):
            at = len(self._text.ids) - len(prompt)
            return [*expected[at : at + n_right], *[7] * N_DRAFT][: max(0, n)]

        monkeypatch.setattr(Drafts, "propose", propose)
        del runs[:]
        assert written(PrefixCache(decoder, MAX_LEN), prompt, 33)[0] == expected
        assert len(runs) == n_runs
        assert max(runs[1:]) == N_DRAFT + 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_limits_hold(decoder, tiny_model, monkeypatch, n):
    monkeypatch.setattr(Drafts, "propose", GUESSES["none"])
    for prompt in prompts(tiny_model.config.vocab_size):
        long, _ = written(PrefixCache(decoder, MAX_LEN), prompt, 20)
        if long[n] not in long[:n]:
            break
    assert long[n] not in long[:n]

    def right(self, most):
        at = len(self._text.ids) - len(prompt)
        return long[at : at + max(0, most)]

    monkeypatch.setattr(Drafts, "propose", right)
    assert written(PrefixCache(decoder, MAX_LEN), prompt, n) == (long[:n], "max_tokens")
    assert written(PrefixCache(decoder, MAX_LEN), prompt, 20, stop_ids={long[n]}) == (long[:n], "end_of_text")
    short = PrefixCache(decoder, len(prompt) + n)
    assert written(short, prompt, 20) == (long[:n], "context")


def test_after_a_rejected_guess_the_cache_is_as_if_it_had_never_been(decoder, tiny_model, monkeypatch):
    first, second = [*prompts(tiny_model.config.vocab_size, 2)]
    monkeypatch.setattr(Drafts, "propose", GUESSES["always wrong"])
    cache = PrefixCache(decoder, MAX_LEN)
    ids, _ = written(cache, first)
    for prompt in ([*first, *ids[:-3]], second, first):
        fresh = written(PrefixCache(decoder, MAX_LEN), prompt)
        assert written(cache, prompt) == fresh


def test_a_consumer_that_leaves_midway_leaves_a_cache_that_holds(decoder, tiny_model, monkeypatch):
    prompt = next(prompts(tiny_model.config.vocab_size))
    expected = written(PrefixCache(decoder, MAX_LEN), prompt)
    monkeypatch.setattr(Drafts, "propose", GUESSES["always wrong"])
    cache = PrefixCache(decoder, MAX_LEN)
    tokens = generate(cache, prompt, Limits(30), sampling=SamplingParams(), stop_ids=())
    assert [next(tokens) for _ in range(4)] == expected[0][:4]
    tokens.close()
    assert written(cache, prompt) == expected


def test_pytorch_does_not_guess(tiny_model, monkeypatch):
    monkeypatch.setattr(Drafts, "__init__", pytest.fail)
    assert not TorchText.is_exact
    assert written(PrefixCache(tiny_model, MAX_LEN), [1, 2, 3])[0]


# ---- where guesses come from


def drafts_of(ids):
    return Drafts(GrowingText(ids))


def test_what_followed_the_longest_match_comes_first():
    #          the longest   ...the latest of three        the end
    text = [1, 2, 3, 4, 50, 9, 9, 2, 3, 4, 60, 61, 9, 1, 2, 3, 4]
    assert drafts_of(text).propose() == [50, 9, 9, 2, 3, 4, 60]
    assert drafts_of(text).propose(2) == [50, 9]
    assert drafts_of(text).propose(0) == drafts_of(text).propose(-1) == []
    assert drafts_of(text[1:4] + text[7:]).propose(2) == [60, 61]


def test_what_never_stood_before_gives_no_guess():
    for text in ([], [1], [1, 1], [1, 2, 3, 4], [5, 6, 9, 5, 6]):
        assert drafts_of(text).propose() == []
    assert drafts_of([5, 6, 7, 9, 5, 6, 7]).propose() == [9, 5, 6, 7]


def test_no_guess_goes_beyond_a_text_that_ends():
    assert drafts_of([1, 2, 3, 4, BOUNDARY, 7, 1, 2, 3]).propose() == [4]


def test_a_run_of_one_token_guesses_that_it_goes_on():
    assert drafts_of([3] * 20).propose() == [3]


def test_wrong_guesses_make_it_careful_and_right_ones_bold():
    text = [1, 2, 3, 9, 1, 2, 3]
    drafts = drafts_of(text)
    assert len(text) - 4 == SHORTEST_MATCH
    assert drafts.propose()
    drafts.judge(4, 0)
    assert not drafts.propose()
    for _ in range(9):
        drafts.judge(4, 0)
    for token in [*range(100, 130), 7, *range(100, 130)]:
        drafts._text.append(token)
    assert LONGEST_MATCH <= 30
    assert drafts.propose() == [7, *range(100, 100 + N_DRAFT - 1)]
    drafts.judge(0, 0)
    drafts.judge(4, 1)
    for token in text:
        drafts._text.append(token)
    assert drafts.propose()
