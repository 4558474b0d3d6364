"""The lesson's distribution is the product's, and with one way to cut at a time that of transformers."""

import itertools

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from techtree.errors import InputError
from techtree.lm.infer.sampling import SamplingParams, sample, seeded_generator
from techtree.lm.infer.sampling import distribution as distribution_of_the_product
from techtree.techs.inference.sampling import Sampling, penalize, probabilities

WAYS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    for temperature, top_k, top_p, min_p in itertools.product(
        (0.0, 1e-30, 0.3, 1.0, 2.5), (0, 1, 5, 10_000), (0.0, 0.4, 0.9, 1.0), (0.0, 0.03, 0.4, 1.0)
    )
]


def drawn(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rng.choice([1, 2, 40, 1000])) * rng.choice([0.3, 2, 20])
    return x.round(1) if seed % 2 else x  # rounded: many are equal


@pytest.mark.parametrize("seed", range(6))
def test_the_product_draws_with_the_same_probabilities(seed):
    logits = drawn(seed)
    for way in WAYS:
        theirs = distribution_of_the_product(torch.tensor(logits), SamplingParams(**way))
        np.testing.assert_allclose(probabilities(logits, **way), theirs.numpy(), rtol=1e-9, atol=1e-9)


def test_the_product_takes_the_same_token_when_cold():
    for seed in range(20):
        params = SamplingParams(temperature=0.0)
        token = sample(torch.tensor(drawn(seed)), params, seeded_generator(params))
        assert token == probabilities(drawn(seed), 0.0).argmax()


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 1.5}, {"min_p": -0.1}],
)
def test_both_refuse_the_same_numbers(wrong):
    with pytest.raises(InputError):
        SamplingParams(**wrong)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize(
    ("way", "theirs"),
    [
        ({"temperature": 0.7}, TemperatureLogitsWarper(0.7)),
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"top_p": 0.8}, TopPLogitsWarper(0.8)),
        ({"min_p": 0.1}, MinPLogitsWarper(0.1)),
    ],
)
def test_each_way_alone_is_that_of_transformers(way, theirs):
    for seed in range(0, 20, 2):
        logits = torch.tensor(drawn(seed))[None]
        expected = torch.softmax(theirs(torch.zeros((1, 1), dtype=torch.long), logits.clone()), dim=-1)[0]
        np.testing.assert_allclose(probabilities(logits[0].numpy(), **way), expected.numpy(), atol=1e-12)


def test_the_penalty_for_repetitions_is_that_of_transformers():
    logits, ids = np.random.default_rng(0).normal(size=50), [3, 3, 7, 49, 0]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([ids]), torch.tensor(logits)[None])[0]
    np.testing.assert_allclose(penalize(logits, ids, repetition=1.3), theirs.numpy(), rtol=1e-12)
