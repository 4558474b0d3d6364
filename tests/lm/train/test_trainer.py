import dataclasses
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import small_run
from small_run import MODEL, SAVED_OFTEN, TRAIN, Counting
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig
from techtree.lm.model.initialization import initialize
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.checkpoint_folder import checkpoint_path, checkpoint_paths, newest, step_of
from techtree.lm.train.strategy import Rows
from techtree.lm.train.trainer import Step, train

SCRIPT = Path(small_run.__file__)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights and losses of a run that nothing disturbed."""
    steps: list[Step] = []
    model = train(MODEL, TRAIN, Counting(), tmp_path_factory.mktemp("run"), steps.append)
    return model.state_dict(), [step.loss for step in steps]


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def saved_tensors(folder):
    """Everything that the newest checkpoint holds."""
    found = newest(folder)
    tensors = {name: torch.empty(shape) for name, shape in found.shapes.items()}
    for name, tensor in tensors.items():
        found.read_into(name, Rows(tensor, 0, len(tensor)))
    return tensors


def saved_weights(folder):
    return {n.removeprefix("model."): t for n, t in saved_tensors(folder).items() if n.startswith("model.")}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_learns_and_reports(tmp_path):
    steps: list[Step] = []
    config = dataclasses.replace(TRAIN, n_steps=60)
    model = train(MODEL, config, Counting(), tmp_path, steps.append)
    assert [step.step for step in steps] == list(range(1, 61))
    # From about log(64) = 4.2 nats to a rule that has no exception.
    assert steps[0].loss == pytest.approx(4.2, abs=0.5)
    assert steps[-1].loss < 0.2
    assert (steps[0].tokens, steps[0].n_steps) == (8 * 16, 60)
    assert steps[0].lr_scale == 0.25
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(steps))
    assert not any(step.warning for step in steps)
    assert {p.dtype for p in model.parameters()} == {model.dtype} == {torch.float32}


def test_a_finished_run_is_not_run_again(tmp_path, uninterrupted):
    train(MODEL, TRAIN, Counting(), tmp_path)
    again = train(MODEL, TRAIN, Counting(), tmp_path, on_step=pytest.fail)
    assert_same_weights(again.state_dict(), uninterrupted[0])


@pytest.mark.parametrize(("n_kills", "n_steps"), [(3, 60), pytest.param(20, 300, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path, n_kills, n_steps):
    undisturbed = train(MODEL, dataclasses.replace(TRAIN, n_steps=n_steps), Counting(), tmp_path / "whole")
    run = tmp_path / "killed"
    command = [sys.executable, SCRIPT, run, str(n_steps)]
    delays = random.Random(0)
    for _ in range(n_kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with process:
            process.stdout.readline()  # The first step is done; it saves after each.
            time.sleep(delays.random() * 0.05)
            process.kill()
    assert newest(run).state.step < n_steps  # Every kill hit a run that was under way.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_same_weights(saved_weights(run), undisturbed.state_dict())
    assert newest(run).state.losses == newest(tmp_path / "whole").state.losses
    assert [step_of(path) for path in checkpoint_paths(run)] == [n_steps - 1, n_steps]
    assert [path.name for path in run.iterdir()] == ["checkpoints"]
    assert len(list((run / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("where", "saved_step"), [("on_step", 7), ("batch", 8), ("update", 7)])
def test_ctrl_c_saves_a_whole_state(tmp_path, uninterrupted, monkeypatch, where, saved_step, signal_number):
    from techtree.lm.train.adamw import AdamW

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def press(step):
        if step == 7:
            signal.raise_signal(signal_number)

    class Pressing(Counting):
        def batch(self, step, rank=0, n_ranks=1):
            press(step)
            return super().batch(step, rank, n_ranks)

    update = AdamW.update
    pressed = []

    def pressing_update(self, gradients, step, scale):  # when Muon has moved, and this one has not
        if step not in pressed:
            pressed.append(step)
            press(step)
        update(self, gradients, step, scale)

    batches = Pressing() if where == "batch" else Counting()
    if where == "update":
        monkeypatch.setattr(AdamW, "update", pressing_update)
    with pytest.raises(KeyboardInterrupt):
        train(MODEL, TRAIN, batches, tmp_path, lambda s: press(s.step) if where == "on_step" else None)
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    found = newest(tmp_path).state
    assert found.step == saved_step
    steps: list[Step] = []
    model = train(MODEL, TRAIN, Counting(), tmp_path, steps.append)
    assert steps[0].step == saved_step + 1
    assert steps[0].seconds > found.seconds
    assert_same_weights(model.state_dict(), uninterrupted[0])
    assert newest(tmp_path).state.losses == uninterrupted[1]


def test_a_second_ctrl_c_is_obeyed_at_once(tmp_path):
    class Pressing(Counting):
        def batch(self, step, rank=0, n_ranks=1):
            if step == 7:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                pytest.fail("it went on")
            return super().batch(step, rank, n_ranks)

    with pytest.raises(KeyboardInterrupt):
        train(MODEL, TRAIN, Pressing(), tmp_path)
    assert newest(tmp_path).state.step == 0  # nothing is saved then


def test_a_torn_checkpoint_is_swept_away(tmp_path, uninterrupted):
    torn = checkpoint_path(tmp_path, 17)
    torn.mkdir(parents=True)
    (torn / "rank-00000-of-00001.safetensors").write_bytes(b"half")
    model = train(MODEL, TRAIN, Counting(), tmp_path)
    assert_same_weights(model.state_dict(), uninterrupted[0])
    assert not torn.exists()


def test_only_the_last_checkpoints_stay(tmp_path):
    train(MODEL, dataclasses.replace(SAVED_OFTEN, n_steps=9, keep_checkpoints=3), Counting(), tmp_path)
    assert [step_of(path) for path in checkpoint_paths(tmp_path)] == [7, 8, 9]


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_goes_on(tmp_path, uninterrupted):
    interrupt_at(tmp_path, 5, SAVED_OFTEN)
    path = checkpoint_path(tmp_path, 5)
    (file,) = path.glob("rank-*")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"step-00000005 cannot be resumed.*step-00000004 is intact"):
        train(MODEL, TRAIN, Counting(), tmp_path, on_step=pytest.fail)
    path.rename(tmp_path / "moved away")
    steps: list[Step] = []
    model = train(MODEL, TRAIN, Counting(), tmp_path, steps.append)
    assert steps[0].step == 5
    assert_same_weights(model.state_dict(), uninterrupted[0])


def test_micro_batches_are_one_batch(tmp_path):
    class Uneven(Counting):  # a row without any target, and one with few
        def batch(self, step, rank=0, n_ranks=1):
            inputs, targets = super().batch(step, rank, n_ranks)
            targets[3], targets[5, 2:] = -100, -100
            return inputs, targets

    losses, found = {}, {}
    for n_parts in (1, 2, 4, 9):
        config = dataclasses.replace(TRAIN, n_steps=1, n_micro_batches=n_parts, precision="float32")
        train(MODEL, config, Uneven(9), tmp_path / str(n_parts))
        losses[n_parts] = newest(tmp_path / str(n_parts)).state.losses
        found[n_parts] = saved_tensors(tmp_path / str(n_parts))
    for n_parts in (2, 4, 9):
        assert losses[n_parts] == pytest.approx(losses[1], rel=1e-6)
        for name, tensor in found[1].items():
            # After one step these averages are the gradients, times a constant. (The weights would
            # not do: a first step of AdamW is as long for a gradient of rounding errors.)
            if name.startswith(("muon.momentum", "embedding.mean", "gains.mean")):
                torch.testing.assert_close(found[n_parts][name], tensor, atol=1e-8, rtol=1e-4, msg=name)


def test_the_gradient_norm_is_that_of_the_first_step_by_pytorch(tmp_path):
    model = LanguageModel(MODEL)
    initialize(model, torch.Generator().manual_seed(TRAIN.seed))
    model.loss(*Counting().batch(0)).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    steps: list[Step] = []
    one = dataclasses.replace(TRAIN, n_steps=1, precision="float32")
    train(MODEL, one, Counting(), tmp_path, steps.append)
    assert steps[0].gradient_norm == pytest.approx(expected.item(), rel=1e-5)


def test_more_micro_batches_than_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"n_micro_batches must be at most the rows.*got 9 for 8 rows$"):
        train(MODEL, dataclasses.replace(TRAIN, n_micro_batches=9), Counting(), tmp_path)


@pytest.mark.parametrize(
    ("model", "config", "batches", "named"),
    [
        ({"d_ff": 96}, {}, Counting(), "model config's d_ff=64, now it is 96"),
        ({}, {"muon_lr": 0.5}, Counting(), f"train config's muon_lr={TRAIN.muon_lr}, now it is 0.5"),
        ({}, {"n_steps": 41}, Counting(), "train config's n_steps=40, now it is 41"),
        ({}, {}, Counting(5), "data="),
    ],
)
def test_another_run_is_not_resumed(tmp_path, model, config, batches, named):
    interrupt_at(tmp_path, 3)
    before = files(tmp_path)
    with pytest.raises(InputError, match=named):
        train(dataclasses.replace(MODEL, **model), dataclasses.replace(TRAIN, **config), batches, tmp_path)
    assert files(tmp_path) == before


def interrupt_at(folder, step, config=TRAIN):
    def press(done):
        if done.step == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(MODEL, config, Counting(), folder, press)


def test_divergence_stops_with_the_last_checkpoint_intact(tmp_path):
    wild = dataclasses.replace(TRAIN, muon_lr=1e30, embedding_lr=1e30)
    with pytest.raises(InputError, match=r"training diverged: the loss is (nan|inf) at step.*muon_lr=5e\+29"):
        train(MODEL, wild, Counting(), tmp_path)
    assert newest(tmp_path).state.step == 0


def test_broken_weights_are_not_saved(tmp_path):
    # The loss of a step is that before its update: after the last one nothing else would notice.
    wild = dataclasses.replace(
        TRAIN, n_steps=1, warmup_steps=0, embedding_lr=float("inf"), decay_fraction=0.0
    )
    with pytest.raises(InputError, match=r"training diverged: .* is no longer finite"):
        train(MODEL, wild, Counting(), tmp_path)
    assert newest(tmp_path).state.step == 0


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, uninterrupted):
    interrupt_at(tmp_path, 3)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"checkpoint of step 4 could not be written.*No space left"):
            train(MODEL, SAVED_OFTEN, Counting(), tmp_path)
    assert newest(tmp_path).state.step == 3
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2  # nothing half written is left
    assert_same_weights(train(MODEL, TRAIN, Counting(), tmp_path).state_dict(), uninterrupted[0])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that changes its size or makes it read-only."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this container may not mount file systems")

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    yield folder, change
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_leaves_the_last_checkpoint(small_disk, uninterrupted):
    disk, change = small_disk
    run = disk / "run"
    # Two checkpoints fit, and a third beside them does not.
    with pytest.raises(InputError, match=r"checkpoint of step 2 could not be written.*No space left"):
        train(MODEL, SAVED_OFTEN, Counting(), run)
    assert newest(run).state.step == 1
    change("size=10m")
    assert_same_weights(train(MODEL, TRAIN, Counting(), run).state_dict(), uninterrupted[0])


def test_a_read_only_file_system_says_so_at_once(small_disk, uninterrupted):
    disk, change = small_disk
    change("size=10m")
    interrupt_at(disk / "run", 3)
    before = files(disk)
    change("ro")
    with pytest.raises(InputError, match=r"checkpoints cannot be written: change its permissions"):
        train(MODEL, TRAIN, Counting(), disk / "run", on_step=pytest.fail)
    with pytest.raises(InputError, match=r"checkpoint of step 0 could not be written.*Read-only"):
        train(MODEL, TRAIN, Counting(), disk / "other", on_step=pytest.fail)
    assert files(disk) == before
    change("rw")
    assert_same_weights(train(MODEL, TRAIN, Counting(), disk / "run").state_dict(), uninterrupted[0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_says_so_at_once(tmp_path, uninterrupted):
    interrupt_at(tmp_path, 3)
    (tmp_path / "checkpoints").chmod(0o555)
    with pytest.raises(InputError, match=r"checkpoints cannot be written: change its permissions"):
        train(MODEL, TRAIN, Counting(), tmp_path, on_step=pytest.fail)
    (tmp_path / "checkpoints").chmod(0o755)
    assert_same_weights(train(MODEL, TRAIN, Counting(), tmp_path).state_dict(), uninterrupted[0])


def test_a_folder_that_cannot_be_written_says_so_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="checkpoint of step 0 could not be written"):
        train(MODEL, TRAIN, Counting(), tmp_path / "file" / "run", on_step=pytest.fail)


def test_it_runs_outside_the_main_thread(tmp_path):
    done: list[object] = []
    short = dataclasses.replace(TRAIN, n_steps=2)
    thread = threading.Thread(target=lambda: done.append(train(MODEL, short, Counting(), tmp_path)))
    thread.start()
    thread.join()
    assert done


def test_it_begins_with_given_weights(tmp_path, uninterrupted):
    none = dataclasses.replace(TRAIN, n_steps=1, warmup_steps=100_000, weight_decay=0.0)
    weights = uninterrupted[0]
    model = train(MODEL, none, Counting(), tmp_path, weights=weights)
    for name, tensor in model.state_dict().items():
        # The one step had rates of a hundred thousandth.
        torch.testing.assert_close(tensor, weights[name], atol=1e-5, rtol=0)


def test_experts_biases_are_kept(tmp_path):
    experts = ExpertsConfig(4, 2, 16, balance_coef=0.0, has_bias=True)
    model_config = dataclasses.replace(MODEL, experts=experts)
    model = train(model_config, TRAIN, Counting(), tmp_path / "whole")
    biases = {n: t for n, t in model.state_dict().items() if n.endswith("selection_bias")}
    assert len(biases) == 2
    assert all(bias.any() for bias in biases.values())

    def press(step):
        if step.step in (11, 30):
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(model_config, TRAIN, Counting(), tmp_path / "parts", press)
    resumed = train(model_config, TRAIN, Counting(), tmp_path / "parts")
    assert_same_weights(resumed.state_dict(), model.state_dict())


def test_the_rates_are_scaled_and_saved(tmp_path):
    scaled = dataclasses.replace(TRAIN, n_steps=1, scale_rates=True)
    train(MODEL, scaled, Counting(), tmp_path)
    settings = newest(tmp_path).state.settings
    assert settings["train"]["muon_lr"] == TRAIN.muon_lr
    assert settings["rates"]["muon_lr"] == pytest.approx(TRAIN.muon_lr * (8 * 16 / 2048) ** 0.5)


class Spoiled(Counting):
    """Data that turn into noise."""

    def __init__(self, first_step):
        super().__init__()
        self.first_step = first_step

    def batch(self, step, rank=0, n_ranks=1):
        inputs, targets = super().batch(step, rank, n_ranks)
        if step + 1 < self.first_step:
            return inputs, targets
        return inputs, torch.randint(64, targets.shape, generator=torch.Generator().manual_seed(step))


LONG = dataclasses.replace(TRAIN, n_steps=1000, decay_fraction=0.0, keep_checkpoints=6, spike_patience=10)


def test_a_spike_is_told_and_a_loss_that_stays_high_stops_the_run(tmp_path):
    steps: list[Step] = []
    expected = (
        r"the loss jumped from about 0\.0\d+ to \d\.\d+ at step 100 and has not come back for 10 steps\. "
        r".*step-00000098 is from before: go on from it .*muon_lr=0\.005, embedding_lr=0\.05; if the data"
    )
    interrupt_at(tmp_path / "a", 90, LONG)
    often = dataclasses.replace(LONG, checkpoint_interval_s=0.0)
    with pytest.raises(InputError, match=expected):
        train(MODEL, often, Spoiled(100), tmp_path / "a", steps.append)
    told = [step for step in steps if step.warning]
    assert [step.step for step in told] == [102]
    assert "the loss jumped from about 0.0" in told[0].warning
    assert "at step 100. If it stays there for 10 steps, the training stops." in told[0].warning
    assert "step-00000098 is from before" in told[0].warning
    # It stays, however many were written after it.
    assert step_of(checkpoint_paths(tmp_path / "a")[0]) == 98
    # The same command says the same again.
    with pytest.raises(InputError, match=expected):
        train(MODEL, LONG, Spoiled(100), tmp_path / "a")
    # With more patience it goes on.
    patient = dataclasses.replace(LONG, spike_patience=0)
    more: list[Step] = []

    def stop(step):
        more.append(step)
        if len(more) == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(MODEL, patient, Spoiled(100), tmp_path / "a", stop)
    assert len(more) == 5
    # And so does another run from the checkpoint before it, with other rates and sound data.
    lower = dataclasses.replace(TRAIN, n_steps=110, muon_lr=0.005, embedding_lr=0.05)
    branch: list[Step] = []
    source = checkpoint_path(tmp_path / "a", 98)
    train(MODEL, lower, Counting(), tmp_path / "b", branch.append, branch_from=source)
    assert (branch[0].step, branch[-1].step) == (99, 110)
    assert branch[-1].loss < 0.5
    # Resumed, it is a run like any other.
    again = train(MODEL, lower, Counting(), tmp_path / "b", pytest.fail, branch_from=source)
    assert_same_weights(again.state_dict(), saved_weights(tmp_path / "b"))


def test_a_spike_that_comes_back_is_told_once(tmp_path):
    class Once(Spoiled):
        def batch(self, step, rank=0, n_ranks=1):
            source = super() if 99 <= step < 104 else Counting()
            return source.batch(step, rank, n_ranks)

    steps: list[Step] = []
    config = dataclasses.replace(LONG, n_steps=130, spike_patience=20)
    train(MODEL, config, Once(100), tmp_path, steps.append)
    told = [step for step in steps if step.warning]
    assert [step.step for step in told] == [102]
    assert "step-00000000 is from before" in told[0].warning


def test_a_branch_needs_the_same_model_and_steps_to_go(tmp_path):
    interrupt_at(tmp_path / "a", 3)
    source = checkpoint_path(tmp_path / "a", 3)
    with pytest.raises(InputError, match="model config's d_ff=64, now it is 96"):
        train(dataclasses.replace(MODEL, d_ff=96), TRAIN, Counting(), tmp_path / "b", branch_from=source)
    short = dataclasses.replace(TRAIN, n_steps=3)
    with pytest.raises(InputError, match="n_steps must be more than the 3 steps"):
        train(MODEL, short, Counting(), tmp_path / "b", branch_from=source)


COMPARE = """
import dataclasses, json, sys
from pathlib import Path
import torch
from small_run import MODEL, TRAIN, Counting
from techtree.lm.train.trainer import train
torch.set_num_threads(1)
found = []
for compiled in (False, True):
    config = dataclasses.replace(TRAIN, n_steps=10, compile=compiled, precision="float32")
    folder, losses = Path(sys.argv[1]) / str(compiled), []
    model = train(MODEL, config, Counting(), folder, lambda step: losses.append(step.loss))
    model(torch.zeros(1, 3, dtype=torch.long))
    found.append(losses)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_compiled_is_eager(tmp_path):
    # In a process of its own: the compiler cannot look through the tests' checks of shapes.
    command = [sys.executable, "-c", COMPARE, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent)
    assert run.returncode == 0, run.stderr
    eager, compiled = json.loads(run.stdout.splitlines()[-1])
    # Fused float32 operations round otherwise; ten steps do not let that grow.
    assert compiled == pytest.approx(eager, abs=1e-5)
    assert eager[-1] < eager[0] / 2
