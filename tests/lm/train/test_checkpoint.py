import pytest
import safetensors.torch
import torch

from techtree.errors import InputError
from techtree.lm.train import checkpoint
from techtree.lm.train.checkpoint import FILE_NAME, Checkpoint

STATE = Checkpoint(
    step=3,
    seconds=0.1,
    settings={"model": {"d_model": 8}, "data": "ab"},
    losses=[1 / 3, 2e-17, 5.0],
    tensors={"a": torch.arange(6.0).reshape(2, 3) / 7, "b": torch.zeros(0)},
)


def test_it_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "new folder", STATE)
    found = checkpoint.load(tmp_path / "new folder")
    assert (found.step, found.seconds, found.settings) == (STATE.step, STATE.seconds, STATE.settings)
    assert found.losses == STATE.losses  # to the bit
    assert found.tensors.keys() == STATE.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in STATE.tensors.items())


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("n_bytes", [0, 5, 100, -1], ids=lambda n: f"first {n}")
def test_a_truncated_file_is_refused_and_kept(tmp_path, n_bytes):
    checkpoint.save(tmp_path, STATE)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(InputError, match=r"cannot be resumed: it is damaged.*Move it away"):
        checkpoint.load(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "techtree training checkpoint 0"}])
def test_a_foreign_file_is_refused(tmp_path, metadata):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / FILE_NAME, metadata)
    with pytest.raises(InputError, match="it is not a checkpoint of this version of techtree"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", '{"step": 1, "surprise": 2}'])
def test_a_damaged_state_is_refused(tmp_path, state):
    metadata = {"format": "techtree training checkpoint 1", "state": state}
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / FILE_NAME, metadata)
    with pytest.raises(InputError, match="it is damaged"):
        checkpoint.load(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(InputError, match="it is damaged"):
        checkpoint.load(tmp_path)
    with pytest.raises(InputError, match="could not be written"):
        checkpoint.save(tmp_path, STATE)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
