import pytest
import torch

from techtree.errors import InputError
from techtree.lm.train import checkpoint
from techtree.lm.train.checkpoint import HEAD, State
from techtree.lm.train.checkpoint_folder import (
    before,
    checkpoint_path,
    checkpoint_paths,
    newest,
    remove_all,
    remove_old,
    step_of,
    sweep,
)
from techtree.lm.train.ranks import Ranks
from techtree.lm.train.strategy import Rows


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of the steps 0, 5, 10 and 20."""
    for step in (10, 0, 20, 5):
        tensors = {"w": Rows(torch.full((4, 2), float(step)), 0, 4)}
        checkpoint.save(checkpoint_path(tmp_path, step), State(step, 1.0, {}, [0.0] * step), tensors, Ranks())
    return tmp_path


def steps(run):
    return [step_of(path) for path in checkpoint_paths(run)]


def test_they_are_in_order_and_other_folders_are_left_alone(run):
    for name in ("step-new", "step-1", "backup", "step-00000007.old"):
        (run / "checkpoints" / name).mkdir()
    assert steps(run) == [0, 5, 10, 20]
    sweep(run)
    remove_old(run, 2)
    assert steps(run) == [10, 20]
    assert (run / "checkpoints" / "step-new").exists()
    assert checkpoint_path(run, 500).name == "step-00000500"
    assert checkpoint_path(run, 1234567890).name == "step-1234567890"


def test_the_newest_is_found(run, tmp_path_factory):
    found = newest(run)
    assert found.state.step == 20
    assert newest(tmp_path_factory.mktemp("empty")) is None
    assert newest(run / "nowhere") is None


def test_a_torn_one_is_none_and_is_swept_away(run):
    torn = checkpoint_path(run, 20)
    (torn / HEAD).unlink()
    assert newest(run).state.step == 10
    sweep(run)
    assert not torn.exists()


def test_the_last_ones_stay_and_the_one_that_is_asked_for(run):
    remove_old(run, 2, also=checkpoint_path(run, 0))
    assert steps(run) == [0, 10, 20]
    remove_old(run, 1)
    assert steps(run) == [20]


def test_a_checkpoint_that_goes_is_none_before_its_tensors_are_gone(run, monkeypatch):
    # A kill after the first file: what is left must not look whole.
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
    remove_old(run, 1)
    assert steps(run) == [20]


def test_the_one_before_a_step(run):
    assert before(run, 10) == checkpoint_path(run, 5)
    assert before(run, 11) == checkpoint_path(run, 10)
    assert before(run, 0) is None


def test_a_damaged_newest_one_names_an_intact_older_one(run):
    damage(run, 20)
    damage(run, 10)
    with pytest.raises(InputError) as caught:
        newest(run)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint_path(run, 20)} cannot be resumed: it is damaged")
    damaged = f"{checkpoint_path(run, 10)} and {checkpoint_path(run, 20)}"
    assert f"{checkpoint_path(run, 5)} is intact: move {damaged} away" in message
    assert message.endswith("goes on from step 5")
    assert steps(run) == [0, 5, 10, 20]  # nothing is thrown away


def test_when_all_are_damaged_it_says_so(run):
    for step in steps(run):
        damage(run, step)
    with pytest.raises(InputError, match=r"No older one is intact: move .*checkpoints away"):
        newest(run)


def damage(run, step):
    (path,) = checkpoint_path(run, step).glob("rank-*")
    path.write_bytes(path.read_bytes()[:-1])


def test_all_can_go(run):
    remove_all(run)
    remove_all(run)
    assert list(run.iterdir()) == []
