import json
import shutil

import pytest
import safetensors.torch
import torch

from techtree.errors import InputError
from techtree.lm.train import checkpoint
from techtree.lm.train.checkpoint import HEAD, Checkpoint, State
from techtree.lm.train.ranks import Ranks, share
from techtree.lm.train.strategy import Rows

STATE = State(
    step=3, seconds=0.1, settings={"model": {"d_model": 8}, "data": "ab"}, losses=[1 / 3, 2e-17, 5.0]
)
TENSORS = {"a": torch.arange(15.0).reshape(5, 3) / 7, "b": torch.arange(4), "c": torch.zeros(1, 2, 3)}
FILE = "rank-00000-of-00001.safetensors"


def whole(tensors):
    return {name: Rows(tensor, 0, len(tensor)) for name, tensor in tensors.items()}


class OneOfMany(Ranks):
    """A rank that waits for no other."""

    def together(self):
        return Ranks().together()


def save_as(folder, n_ranks, hold_all):
    """Write a checkpoint as so many ranks do, one after the other, the first one last."""
    for rank in reversed(range(n_ranks)):
        held = {}
        for name, tensor in TENSORS.items():
            mine = slice(0, len(tensor)) if hold_all else share(len(tensor), rank, n_ranks)
            held[name] = Rows(tensor[mine], mine.start, len(tensor))
        folder.mkdir(exist_ok=True)
        (folder / HEAD).touch()  # As if the first one had written it.
        checkpoint.save(folder, STATE, held, OneOfMany(rank, n_ranks))


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "new folder" / "step-00000003"
    checkpoint.save(folder, STATE, whole(TENSORS), Ranks())
    return folder


def test_it_comes_back_as_it_was(saved):
    found = Checkpoint(saved)
    assert found.state == STATE  # the losses to the bit
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    for name, tensor in TENSORS.items():
        read = torch.full_like(tensor, -1)
        found.read_into(name, Rows(read, 0, len(read)))
        assert torch.equal(read, tensor)
    assert sorted(path.name for path in saved.iterdir()) == [HEAD, FILE]


@pytest.mark.parametrize("hold_all", [False, True], ids=["sharded", "replicated"])
@pytest.mark.parametrize("n_saved", [1, 2, 3, 7])
@pytest.mark.parametrize("n_read", [1, 2, 4])
def test_any_number_of_ranks_reads_what_any_number_wrote(tmp_path, n_saved, n_read, hold_all):
    save_as(tmp_path / "x", n_saved, hold_all)
    found = Checkpoint(tmp_path / "x")
    for name, tensor in TENSORS.items():
        parts = []
        for rank in range(n_read):
            mine = share(len(tensor), rank, n_read)
            parts.append(torch.full_like(tensor[mine], -1))
            found.read_into(name, Rows(parts[-1], mine.start, len(tensor)))
        assert torch.equal(torch.cat(parts), tensor)


def test_a_rank_writes_its_share_only(tmp_path):
    save_as(tmp_path / "x", 2, hold_all=True)
    files = [safetensors.torch.load_file(path) for path in sorted((tmp_path / "x").glob("rank-*"))]
    assert [file["a"].shape for file in files] == [(3, 3), (2, 3)]
    assert ["losses" in file for file in files] == [True, False]


def test_a_rank_that_the_first_ones_file_does_not_reach_says_so(tmp_path):
    with pytest.raises(InputError, match="on a file system that all machines share"):
        checkpoint.save(tmp_path / "x", STATE, whole(TENSORS), OneOfMany(1, 2))


def test_saving_makes_no_second_copy(saved, monkeypatch):
    """What is written is the tensors' own memory."""
    written = {}
    monkeypatch.setattr(
        checkpoint, "write_safetensors", lambda path, tensors, metadata: written.update(tensors)
    )
    checkpoint.save(saved, STATE, whole(TENSORS), Ranks())
    assert all(written[name].data_ptr() == tensor.data_ptr() for name, tensor in TENSORS.items())


@pytest.mark.parametrize("n_bytes", [0, 5, 100, -1], ids=lambda n: f"first {n}")
def test_a_truncated_file_is_refused_and_kept(saved, n_bytes):
    path = saved / FILE
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(InputError, match=r"step-00000003 cannot be resumed: it is damaged \(.*rank-00000"):
        Checkpoint(saved)
    assert path.exists()


def test_a_missing_file_is_refused(saved):
    (saved / FILE).unlink()
    with pytest.raises(InputError, match=r"cannot be resumed: it is damaged \(.*rank-00000.* is missing"):
        Checkpoint(saved)


def test_a_file_of_another_rank_or_step_is_refused(tmp_path):
    save_as(tmp_path / "x", 2, hold_all=False)
    first, second = sorted((tmp_path / "x").glob("rank-*"))
    shutil.copy(first, second)
    with pytest.raises(
        InputError, match=r"damaged \(rank-00001-of-00002.safetensors is not of rank 1 and step 3"
    ):
        Checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"a": torch.zeros(4, 3), "b": torch.zeros(2), "c": torch.zeros(0, 2, 3)}, "no fair share of a"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(2), "c": torch.zeros(0, 2, 3)}, "no fair share of a"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(2)}, "only some of the ranks have c"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(tmp_path, tensors, why):
    save_as(tmp_path / "x", 2, hold_all=False)
    path = tmp_path / "x" / "rank-00001-of-00002.safetensors"
    metadata = {"format": "techtree training checkpoint 2", "rank": "1", "step": "3"}
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=why):
        Checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    "head", ["", "{", "[]", "{}", '{"step": 1}', '{"format": "techtree training checkpoint 2"}', "\udcff"]
)
def test_a_damaged_head_is_refused(saved, head):
    (saved / HEAD).write_bytes(head.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="cannot be resumed: it is"):
        Checkpoint(saved)


@pytest.mark.parametrize(
    ("name", "value"), [("n_ranks", "2"), ("n_ranks", 0), ("n_ranks", -1), ("n_ranks", 2)]
)
def test_a_head_that_does_not_fit_is_refused(saved, name, value):
    head = json.loads((saved / HEAD).read_text()) | {name: value}
    (saved / HEAD).write_text(json.dumps(head))
    with pytest.raises(InputError, match="cannot be resumed: it is damaged"):
        Checkpoint(saved)


def test_another_version_is_refused(saved):
    head = json.loads((saved / HEAD).read_text()) | {"format": "techtree training checkpoint 1"}
    (saved / HEAD).write_text(json.dumps(head))
    with pytest.raises(InputError, match="it is not a checkpoint of this version of techtree"):
        Checkpoint(saved)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="checkpoint of step 3 could not be written"):
        checkpoint.save(tmp_path / "file" / "x", STATE, whole(TENSORS), Ranks())
