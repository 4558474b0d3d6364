import pytest
from hypothesis import given
from hypothesis import strategies as st

from techtree.lm.train.schedule import lr_scale


def test_by_hand():
    scales = [lr_scale(step, 10, 2, 0.4) for step in range(10)]
    assert scales == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_without_warmup_and_decay_it_stays():
    assert {lr_scale(step, 5, 0, 0.0) for step in range(5)} == {1.0}


@given(st.integers(1, 500), st.integers(0, 600), st.floats(0, 1))
def test_it_moves_in_every_step_and_never_rises_again(n_steps, warmup_steps, decay_fraction):
    scales = [lr_scale(step, n_steps, warmup_steps, decay_fraction) for step in range(n_steps)]
    assert all(0 < scale <= 1 for scale in scales)
    top = scales.index(max(scales))
    assert scales[:top] == sorted(scales[:top])
    assert scales[top:] == sorted(scales[top:], reverse=True)
