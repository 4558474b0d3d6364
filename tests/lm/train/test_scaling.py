import dataclasses

import pytest

from techtree.lm.pipeline.plan import DEFAULT_DEPTH, TOKENS_PER_STEP, shape
from techtree.lm.train.config import Recipe
from techtree.lm.train.scaling import batch_factor, scaled_rates, weight_decay_factor, width_factor

RECIPE = Recipe()
GIVEN = {
    "muon_lr": RECIPE.muon_lr,
    "embedding_lr": RECIPE.embedding_lr,
    "head_lr": RECIPE.head_lr,
    "gain_lr": RECIPE.gain_lr,
    "weight_decay": RECIPE.weight_decay,
}


def test_at_the_measured_shape_nothing_changes():
    measured = shape(DEFAULT_DEPTH, 4096)
    assert dataclasses.asdict(scaled_rates(RECIPE, measured.d_model, TOKENS_PER_STEP)) == GIVEN


def test_by_hand():
    assert (batch_factor(2048 // 4), batch_factor(2048 * 9)) == (0.5, 3)
    assert (width_factor(64), width_factor(1024)) == (2, 0.5)
    assert weight_decay_factor(2048 * 9) == 3
    rates = scaled_rates(RECIPE, 1024, 4 * 2048)
    # The batch doubles all, and the width halves AdamW's.
    assert rates.muon_lr == pytest.approx(0.02)
    assert (rates.embedding_lr, rates.head_lr, rates.gain_lr) == pytest.approx((0.1, 0.006, 0.03))
    assert rates.weight_decay == pytest.approx(0.1)


def test_what_a_token_takes_off_does_not_depend_on_the_batch():
    small, large = (scaled_rates(RECIPE, 256, n) for n in (512, 8192))
    assert small.muon_lr * small.weight_decay / 512 == pytest.approx(
        large.muon_lr * large.weight_decay / 8192
    )


def test_rates_count_as_they_are_on_request():
    as_they_are = dataclasses.replace(RECIPE, scale_rates=False)
    assert dataclasses.asdict(scaled_rates(as_they_are, 4096, 2**20)) == GIVEN
