"""Oracles: probabilities computed by hand, and chi-square against exact distributions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from techtree.errors import InputError
from techtree.lm.infer.sampling import SamplingParams, distribution, sample, seeded_generator

PROBABILITIES = (0.5, 0.25, 0.15, 0.07, 0.03)
LOGITS = torch.tensor([math.log(p) for p in PROBABILITIES])


def close(actual, expected):
    # Float32 softmax of five numbers: errors of some 1e-7.
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=0)


def test_temperature_one_is_the_softmax():
    close(distribution(LOGITS, SamplingParams(temperature=1)), PROBABILITIES)


def test_temperature_sharpens_by_a_power():
    # softmax(x / T) is p^(1/T), normalized; with T = 1/2, squares.
    squares = [p * p for p in PROBABILITIES]
    close(distribution(LOGITS, SamplingParams(temperature=0.5)), [s / sum(squares) for s in squares])


def test_top_k_keeps_the_most_probable():
    close(distribution(LOGITS, SamplingParams(temperature=1, top_k=2)), [2 / 3, 1 / 3, 0, 0, 0])


def test_with_top_p_1_all_stay():
    logits = torch.tensor([60.0, *[0.0] * 99])  # beside the first, rounding hides the others
    assert (distribution(logits, SamplingParams(temperature=20, top_p=1.0)) > 0).all()


@pytest.mark.parametrize(
    ("top_p", "n_kept"), [(0.0, 1), (0.4, 1), (0.51, 2), (0.74, 2), (0.8, 3), (0.96, 4), (1.0, 5)]
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p, n_kept):
    p = distribution(LOGITS, SamplingParams(temperature=1, top_p=top_p))
    assert int((p > 0).sum()) == n_kept
    close(p[:n_kept], [q / sum(PROBABILITIES[:n_kept]) for q in PROBABILITIES[:n_kept]])


def test_min_p_is_relative_to_the_most_probable():
    # 0.25 * 0.5 = 0.125: the first three are above.
    p = distribution(LOGITS, SamplingParams(temperature=1, min_p=0.25))
    close(p, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0, 0])


def test_filters_look_at_untempered_probabilities():
    # At T = 2 the first token alone would no longer reach 0.45; the order of steps decides.
    p = distribution(LOGITS, SamplingParams(temperature=2, top_p=0.45))
    close(p, [1.0, 0, 0, 0, 0])


def test_the_order_of_tokens_does_not_matter():
    shuffled = torch.tensor([3, 0, 4, 2, 1])
    params = SamplingParams(temperature=0.7, top_k=4, top_p=0.9, min_p=0.1)
    torch.testing.assert_close(distribution(LOGITS[shuffled], params), distribution(LOGITS, params)[shuffled])


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1, seed=1),
        SamplingParams(temperature=0.6, seed=2),
        SamplingParams(temperature=1.5, top_k=3, seed=3),
        SamplingParams(temperature=1, top_p=0.9, min_p=0.1, seed=4),
    ],
)
def test_draws_have_exactly_this_distribution(params):
    expected = distribution(LOGITS, params)
    generator = seeded_generator(params)
    n = 2_000
    counts = torch.bincount(torch.tensor([sample(LOGITS, params, generator) for _ in range(n)]), minlength=5)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    # With fixed seeds this is no gamble: p is what it is. A wrong temperature gives p < 1e-9.
    p_value = stats.chisquare(
        counts[possible].numpy(), n * expected[possible].double().numpy() / float(expected.double().sum())
    ).pvalue
    assert p_value > 0.01


@given(st.lists(st.integers(-30, 30).map(float), min_size=2, max_size=20, unique=True), st.integers(0, 5))
def test_a_low_temperature_is_greedy(logits, seed):
    x = torch.tensor(logits)
    greedy = sample(x, SamplingParams(), torch.Generator())
    assert greedy == logits.index(max(logits))
    cold = SamplingParams(temperature=1e-30, seed=seed)
    assert sample(x, cold, seeded_generator(cold)) == greedy
    assert distribution(x, SamplingParams())[greedy] == 1


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
    st.floats(1e-3, 100),
    st.integers(0, 30),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_it_is_always_a_distribution(logits, temperature, top_k, top_p, min_p):
    p = distribution(torch.tensor(logits), SamplingParams(temperature, top_k, top_p, min_p))
    assert bool((p >= 0).all())
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)  # the rounding of a float32 sum of 20


def test_a_seed_repeats_the_draws():
    params = SamplingParams(temperature=1, seed=7)
    first, second = (
        [sample(LOGITS, params, g) for _ in range(50)] for g in map(seeded_generator, [params] * 2)
    )
    assert first == second
    other = seeded_generator(SamplingParams(temperature=1, seed=8))
    assert first != [sample(LOGITS, params, other) for _ in range(50)]


def test_without_a_seed_draws_differ():
    params = SamplingParams(temperature=1)
    first, second = (
        [sample(LOGITS, params, g) for _ in range(50)] for g in map(seeded_generator, [params] * 2)
    )
    assert first != second  # equal once in 2^90 runs


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 1.1},
        {"top_p": -0.1},
        {"top_p": math.nan},
        {"min_p": 2.0},
    ],
)
def test_what_is_no_distribution_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplingParams(**wrong)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.0, seed=0)])
@pytest.mark.parametrize(
    "logits", [[0.0, float("nan"), 1.0], [float("nan")] * 3, [float("inf"), 0.0], [float("-inf")] * 2]
)
def test_scores_that_are_no_numbers_are_refused(params, logits):
    with pytest.raises(InputError, match="scores must be numbers"):
        sample(torch.tensor(logits), params, seeded_generator(params))


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.0, seed=0)])
def test_a_token_may_be_impossible(params):
    assert sample(torch.tensor([float("-inf"), 2.0]), params, seeded_generator(params)) == 1
