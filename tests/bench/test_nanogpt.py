import pickle

import numpy as np
import pytest

import nanogpt
from shakespeare import split
from techtree.errors import InputError


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    for name in ("train.py", "config/train_shakespeare_char.py", ".git/HEAD", "out-old/ckpt.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "model.py").write_text("NAME = __name__\n")
    return folder


def test_a_copy_has_the_text_in_its_format(checkout, tmp_path):
    text = split("to be, or not to be\n" * 50)
    nanogpt.copy_with_text(checkout, tmp_path / "copy", text)
    data = tmp_path / "copy" / "data" / "shakespeare_char"
    assert np.fromfile(data / "train.bin", np.uint16).tolist() == text.train.tolist()
    assert np.fromfile(data / "val.bin", np.uint16).tolist() == text.held_out.tolist()
    meta = pickle.loads((data / "meta.pkl").read_bytes())
    assert (meta["vocab_size"], meta["itos"][8], meta["stoi"]["t"]) == (9, "t", 8)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "config",
        "data",
        "model.py",
        "train.py",
    ]
    assert not (checkout / "data").exists()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a checkout of nanoGPT; .* has no train.py: give --nanogpt"):
        nanogpt.check(tmp_path)


def test_its_model_gets_a_name_of_its_own(checkout):
    assert nanogpt.model_module(checkout).NAME == "nanogpt_model"
    assert nanogpt.commit(checkout) == "?"
