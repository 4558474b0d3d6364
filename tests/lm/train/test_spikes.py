import numpy as np
import pytest

from techtree.lm.train.spikes import N_BEFORE, SpikeWatch


def found(losses):
    """The steps at which a spike was found, and the spikes."""
    watch, steps, spikes = SpikeWatch(), [], []
    for step, loss in enumerate(losses, start=1):
        if watch.add(float(loss)):
            steps.append(step)
            spikes.append(watch.spike)
    return steps, spikes, watch


def test_a_jump_is_found_with_its_third_step():
    # Of the last five losses three are high then, and so is their median.
    losses = [2.0] * 200 + [4.0] * 10
    steps, [spike], watch = found(losses)
    assert steps == [203]
    assert (spike.first_step, spike.before, spike.limit) == (201, 2.0, 2.1)
    assert watch.n_steps_high == 10


def test_one_hard_batch_is_no_spike_and_two_are_none():
    assert found([2.0] * 200 + [9.0] + [2.0] * 50)[0] == []
    assert found([2.0] * 200 + [9.0, 9.0] + [2.0] * 50)[0] == []


def test_the_limit_by_hand():
    # Of 100 losses the quartiles are 1.75 and 2.25: 0.5 / 1.349 a deviation, six of them above the median.
    losses = [1.0 + (i * 37 % 100) / 50 for i in range(200)]  # all of 1.00, 1.02, ..., 2.98 in every 100
    below, above = 2.0 + 6 * 1.0 / 1.349 - 0.05, 2.0 + 6 * 1.0 / 1.349 + 0.05
    assert found(losses + [below] * 20)[0] == []
    steps, [spike], _ = found(losses + [above] * 20)
    assert spike.before == pytest.approx(2.0)
    # (Three of the ordinary losses can still be the larger ones of five.)
    assert spike.first_step == 201
    assert 203 <= steps[0] <= 205


def test_a_loss_that_comes_back_ends_the_spike_and_the_next_one_is_found():
    losses = [2.0] * 200 + [4.0] * 30 + [2.05] * 100 + [5.0] * 4
    steps, spikes, watch = found(losses)
    assert steps == [203, 333]
    assert spikes[1].first_step == 331
    assert spikes[1].before in (2.0, 2.05)
    assert watch.n_steps_high == 4
    assert found(losses[:300])[2].spike is None


def test_what_was_usual_before_stays_while_the_loss_is_high():
    watch = found([2.0] * 200 + [4.0] * 5 * N_BEFORE)[2]
    assert watch.spike.before == 2.0
    assert watch.n_steps_high == 5 * N_BEFORE


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_healthy_run_is_silent(seed):
    """Fast fall, slow fall, decay; heavy tails (Student's t of 3 degrees); a rise in the warm-up."""
    rng = np.random.default_rng(seed)
    step = np.arange(4000)
    loss = 2.0 + 6.3 * np.exp(-step / 30) + 2 * np.exp(-step / 800) - 0.4 * np.clip(step / 2000 - 1, 0, 1)
    loss[:10] += 0.5
    assert found(loss + 0.1 * rng.standard_t(3, len(step)))[0] == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at", [300, 700, 3000])
def test_a_spike_planted_into_it_is_found(seed, at):
    rng = np.random.default_rng(seed)
    step = np.arange(4000)
    loss = 2.0 + 6.3 * np.exp(-step / 30) + 2 * np.exp(-step / 800) + 0.1 * rng.standard_t(3, len(step))
    # It jumps by 3 nats and comes back within some tens of steps, as spikes do.
    loss[at:] += 3 * np.exp(-np.arange(len(step) - at) / 20)
    steps, spikes, watch = found(loss)
    assert len(steps) == 1
    # Three of the last five must be high; one of them may be noise from just before.
    assert at + 2 <= steps[0] <= at + 5
    assert at - 3 <= spikes[0].first_step <= at + 2
    assert watch.spike is None


def test_it_says_the_same_after_a_resume():
    losses = [2.0] * 150 + [4.0] * 50
    whole = found(losses)[2]
    for at in (100, 152, 170):
        resumed = SpikeWatch(losses[:at])
        for loss in losses[at:]:
            resumed.add(loss)
        assert (resumed.spike, resumed.n_steps_high) == (whole.spike, whole.n_steps_high)
