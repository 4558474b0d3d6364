import dataclasses

import pytest

from techtree.errors import InputError
from techtree.lm.pipeline import plan as planning
from techtree.lm.pipeline.plan import (
    DEFAULT_DEPTH,
    DEPTHS,
    MIN_STEPS,
    PACE,
    STEPS_WANTED,
    Plan,
    make_plan,
    shape,
    training_flops,
)


class Machine:
    """Trains so many operations a second, and remembers what it was asked."""

    def __init__(self, flops_per_s: float):
        self.flops_per_s = flops_per_s
        self.depths = []

    def measure(self, model, batch_size) -> float:
        self.depths.append(model.n_layers)
        return self.flops_per_s / training_flops(model)


def plan_for(seconds: float, flops_per_s: float = 1e11, **options) -> Plan:
    machine = Machine(flops_per_s)
    return make_plan(lambda rate: seconds, 4096, 0, machine.measure, **options)


def test_more_time_and_a_faster_machine_give_a_larger_model():
    depths = [plan_for(seconds).model.n_layers for seconds in (1, 30, 100, 300, 1000, 10_000, 1e6)]
    assert depths == sorted(depths)
    assert depths[0] == DEPTHS[0]
    assert depths[-1] == DEPTHS[-1]
    assert plan_for(100, 1e12).model.n_layers == plan_for(1000, 1e11).model.n_layers


def test_the_steps_fill_the_time():
    plan = plan_for(300)
    # Up to a part of a step.
    assert plan.n_tokens / plan.tokens_per_s == pytest.approx(PACE * 300, rel=0.02)
    assert plan.train.n_steps >= STEPS_WANTED


def test_the_time_left_may_depend_on_the_speed():
    machine = Machine(1e11)
    plan = make_plan(lambda rate: 300 - 1e5 / rate, 4096, 0, machine.measure, depth=4)
    left = 300 - 1e5 / plan.tokens_per_s
    assert plan.n_tokens / plan.tokens_per_s == pytest.approx(PACE * left, rel=0.02)


@pytest.mark.parametrize("seconds", [0.001, 0.0, -50.0])
def test_without_time_there_is_still_a_run(seconds):
    plan = plan_for(seconds)
    assert (plan.model.n_layers, plan.train.n_steps) == (DEPTHS[0], MIN_STEPS)


def test_a_number_of_steps_needs_no_measurement():
    machine = Machine(1e11)
    plan = make_plan(lambda rate: 300, 4096, 7, machine.measure, n_steps=50)
    assert machine.depths == []
    assert (plan.train.n_steps, plan.train.seed, plan.model.n_layers) == (50, 7, DEFAULT_DEPTH)
    assert make_plan(lambda rate: 1, 4096, 7, machine.measure, n_steps=50) == plan


def test_a_depth_is_taken_and_measured_itself():
    machine = Machine(1e11)
    plan = make_plan(lambda rate: 300, 4096, 0, machine.measure, depth=6)
    assert (plan.model.n_layers, machine.depths) == (6, [6])


@pytest.mark.parametrize(
    ("max_seq_len", "seq_len", "batch_size"),
    [(128, 128, 16), (1024, 1024, 2), (1100, 1024, 2), (8192, 1024, 2)],
)
def test_a_given_model_keeps_its_shape_and_learns_in_small_steps(max_seq_len, seq_len, batch_size):
    machine = Machine(1e11)
    given = dataclasses.replace(shape(6, 999), max_seq_len=max_seq_len)
    plan = make_plan(lambda rate: 300, 999, 3, machine.measure, init=given)
    assert (plan.model, plan.seq_len, plan.batch_size, machine.depths) == (given, seq_len, batch_size, [6])
    assert plan.n_tokens == plan.train.n_steps * batch_size * seq_len
    assert plan.n_tokens / plan.tokens_per_s == pytest.approx(PACE * 300, rel=0.02)
    new = make_plan(lambda rate: 300, 999, 3, machine.measure, depth=6)
    assert plan.train.muon_lr < new.train.muon_lr
    fixed = make_plan(lambda rate: 1, 999, 3, machine.measure, n_steps=50, init=given)
    assert fixed == dataclasses.replace(
        plan, train=dataclasses.replace(plan.train, n_steps=50), tokens_per_s=0.0
    )


@pytest.mark.parametrize("depth", [1, *DEPTHS, 48])
def test_every_depth_is_a_model(depth):
    model = shape(depth, 4096)
    assert model.d_model == model.n_heads * model.head_dim == 64 * depth
    assert model.d_ff % 32 == 0  # blocks of 32 for the quantized formats


def test_a_plan_survives_json():
    plan = plan_for(300)
    assert Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("batch_size"),
        lambda values: values.update(batchsize=3),
        lambda values: values["train"].update(muon=1),
        lambda values: values["model"].pop("d_model"),
        lambda values: values.pop("model"),
    ],
)
def test_a_plan_of_another_version_is_refused(change):
    values = plan_for(300).to_dict()
    change(values)
    with pytest.raises(InputError, match=r"must have exactly|model config"):
        Plan.from_dict(values)


def test_flops_count_the_weights_six_times():
    """By hand for depth 1, vocabulary 1000, d = 64, 1 head: attention 4 d^2, SwiGLU 3 * d * 192."""
    model = shape(1, 1000)
    weights = 1000 * 64 + 4 * 64 * 64 + 3 * 64 * 192
    gains = 3 * 64 + 2 * 64
    assert training_flops(model) == 6 * (weights + gains) + 6 * planning.SEQ_LEN * 64
