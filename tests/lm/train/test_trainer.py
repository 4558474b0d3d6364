import dataclasses
import errno
import itertools
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
from small_run import MODEL, TRAIN, Counting
from techtree.errors import InputError
from techtree.lm.train import checkpoint, trainer
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


def saved_weights(folder):
    tensors = checkpoint.load(folder).tensors
    return {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}


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
    assert {p.dtype for p in model.parameters()} == {model.dtype} == {torch.float32}


def test_a_finished_run_is_not_run_again(tmp_path, uninterrupted):
    train(MODEL, TRAIN, Counting(), tmp_path)
    again = train(MODEL, TRAIN, Counting(), tmp_path, on_step=pytest.fail)
    assert_same_weights(again.state_dict(), uninterrupted[0])


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path, uninterrupted):
    delays = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, SCRIPT, tmp_path], stdout=subprocess.PIPE, text=True)
        with process:
            process.stdout.readline()  # The first step is done; it saves after each.
            time.sleep(delays.random() * 0.1)
            process.kill()
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, stdout=subprocess.DEVNULL)
    assert_same_weights(saved_weights(tmp_path), uninterrupted[0])
    assert checkpoint.load(tmp_path).losses == uninterrupted[1]
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE_NAME]


@pytest.mark.parametrize("where", ["on_step", "batch", "update"])
def test_ctrl_c_saves_a_whole_state(tmp_path, uninterrupted, monkeypatch, where):
    from techtree.lm.train.adamw import AdamW

    def press(step):
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    class Pressing(Counting):
        def batch(self, step):
            press(step)
            return super().batch(step)

    update = AdamW.update

    def pressing_update(self, step, scale):  # when Muon has moved, and this one has not
        press(step)
        update(self, step, scale)

    batches = Pressing() if where == "batch" else Counting()
    if where == "update":
        monkeypatch.setattr(AdamW, "update", pressing_update)
    rarely = dataclasses.replace(TRAIN, checkpoint_interval_s=1000)
    with pytest.raises(KeyboardInterrupt):
        train(MODEL, rarely, batches, tmp_path, lambda s: press(s.step) if where == "on_step" else None)
    monkeypatch.undo()
    found = checkpoint.load(tmp_path)
    assert found.step == 7
    steps: list[Step] = []
    model = train(MODEL, TRAIN, Counting(), tmp_path, steps.append)
    assert steps[0].step == 8
    assert steps[0].seconds > found.seconds
    assert_same_weights(model.state_dict(), uninterrupted[0])
    assert checkpoint.load(tmp_path).losses == uninterrupted[1]


def test_a_torn_temporary_file_is_swept_away(tmp_path, uninterrupted):
    torn = tmp_path / f".{checkpoint.FILE_NAME}.abc123.part"
    torn.write_bytes(b"half")
    model = train(MODEL, TRAIN, Counting(), tmp_path)
    assert_same_weights(model.state_dict(), uninterrupted[0])
    assert not torn.exists()


def test_micro_batches_are_one_batch(tmp_path, monkeypatch):
    class Uneven(Counting):  # a row without any target, and one with few
        def batch(self, step):
            inputs, targets = super().batch(step)
            targets[3], targets[5, 2:] = -100, -100
            return inputs, targets

    monkeypatch.setattr(trainer, "compute_dtype", lambda device: torch.float32)
    found = {}
    for n_parts in (1, 2, 4, 9):
        config = dataclasses.replace(TRAIN, n_steps=1, n_micro_batches=n_parts)
        train(MODEL, config, Uneven(9), tmp_path / str(n_parts))
        found[n_parts] = checkpoint.load(tmp_path / str(n_parts))
    for n_parts in (2, 4, 9):
        assert found[n_parts].losses == pytest.approx(found[1].losses, rel=1e-6)
        for name, tensor in found[1].tensors.items():
            # After one step these averages are the gradients, times a constant. (The weights would
            # not do: a first step of AdamW is as long for a gradient of rounding errors.)
            if name.startswith(("muon.momentum", "embedding.mean", "gains.mean")):
                torch.testing.assert_close(
                    found[n_parts].tensors[name], tensor, atol=1e-8, rtol=1e-4, msg=name
                )


def test_more_micro_batches_than_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"n_micro_batches must be at most the rows.*got 9 for 8 rows"):
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
    before = (tmp_path / checkpoint.FILE_NAME).read_bytes()
    with pytest.raises(InputError, match=named):
        train(dataclasses.replace(MODEL, **model), dataclasses.replace(TRAIN, **config), batches, tmp_path)
    assert (tmp_path / checkpoint.FILE_NAME).read_bytes() == before


def interrupt_at(folder, step):
    def press(done):
        if done.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(MODEL, TRAIN, Counting(), folder, press)


def test_divergence_stops_with_the_last_checkpoint_intact(tmp_path):
    interrupt_at(tmp_path, 3)
    before = (tmp_path / checkpoint.FILE_NAME).read_bytes()

    wild = dataclasses.replace(TRAIN, muon_lr=1e30, embedding_lr=1e30, checkpoint_interval_s=1000)
    with pytest.raises(InputError, match=r"training diverged: the loss is (nan|inf) at step.*muon_lr=5e\+29"):
        train(MODEL, wild, Counting(), tmp_path / "wild")
    assert checkpoint.load(tmp_path / "wild").step == 0
    assert (tmp_path / checkpoint.FILE_NAME).read_bytes() == before


def test_broken_weights_are_not_saved(tmp_path):
    # The loss of a step is that before its update: after the last one nothing else would notice.
    wild = dataclasses.replace(
        TRAIN, n_steps=1, warmup_steps=0, embedding_lr=float("inf"), decay_fraction=0.0
    )
    with pytest.raises(InputError, match=r"training diverged: .* is no longer finite"):
        train(MODEL, wild, Counting(), tmp_path)
    assert checkpoint.load(tmp_path).step == 0


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, uninterrupted):
    interrupt_at(tmp_path, 3)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"checkpoint of step 4 could not be written.*No space left"):
            train(MODEL, TRAIN, Counting(), tmp_path)
    assert checkpoint.load(tmp_path).step == 3
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
