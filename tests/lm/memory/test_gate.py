"""The mixture is a distribution, and the one that its formula says."""

import math

import numpy as np
import pytest
import torch

from techtree.lm.memory import gate
from techtree.lm.memory.index import LONGEST_MATCH, match_of


def slow_mixture(logits, matches):
    """The formula, one token at a time; `matches` has (match, weights)."""
    p_model = np.exp(logits - logits.max())
    p_model /= p_model.sum()
    best = int(p_model.argmax())
    strengths = [1.0]
    for match, weights in matches:
        length, share = math.log(match.n_tokens), match.counts[0] / match.counts.sum()
        agrees = 1.0 if match.followers[0] == best else 0.0
        sure = math.log(p_model[best])
        f = [
            1,
            length,
            length**2,
            math.log(match.n_places),
            share,
            share * length,
            sure,
            agrees,
            agrees * sure,
        ]
        f.append(1.0 if match.n_tokens >= LONGEST_MATCH else 0.0)
        strengths.append(math.exp(sum(w * x for w, x in zip(weights, f, strict=True))))
    g = np.array(strengths) / sum(strengths)
    p = g[0] * p_model
    for share, (match, _) in zip(g[1:], matches, strict=True):
        for token, count in zip(match.followers, match.counts, strict=True):
            p[token] += share * count / match.counts.sum()
    return p


def a_match(rng, n_tokens):
    return match_of(n_tokens, int(rng.integers(20, 90)), rng.integers(0, 12, 20))


@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("has_repository", [True, False])
def test_it_is_the_mixture(rng, has_text, has_repository):
    for n_tokens in (1, 2, 5, 31, 32):
        logits = torch.tensor(rng.normal(size=40) * 3 + 10)
        text = a_match(rng, n_tokens) if has_text else None
        repository = a_match(rng, 33 - n_tokens) if has_repository else None
        given = [(text, gate.TEXT_WEIGHTS), (repository, gate.REPOSITORY_WEIGHTS)]
        before = logits.clone()
        found = torch.softmax(gate.mixed(logits, text, repository), 0).numpy()
        expected = slow_mixture(logits.numpy(), [each for each in given if each[0] is not None])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert found.sum() == pytest.approx(1)
        assert torch.equal(logits, before)


def test_without_a_match_the_scores_stay():
    logits = torch.randn(5)
    assert gate.mixed(logits, None, None) is logits


def test_a_token_that_the_model_excludes_may_come_from_memory():
    logits = torch.tensor([0.0, -torch.inf, 1.0])
    found = torch.softmax(gate.mixed(logits, match_of(9, 4, np.array([1, 1, 1, 1])), None), 0)
    assert found[1] > 0.1
    assert found.sum() == pytest.approx(1)


def test_float32_scores_keep_their_type():
    logits = torch.randn(9)
    found = gate.mixed(logits, match_of(3, 2, np.array([4, 5])), None)
    assert found.dtype == torch.float32


def test_longer_matches_are_believed_more():
    logits = torch.zeros(100)
    p = [
        torch.softmax(gate.mixed(logits, None, match_of(n, 1, np.array([7]))), 0)[7].item()
        for n in (1, 4, 16)
    ]
    assert p[0] < p[1] < p[2]
