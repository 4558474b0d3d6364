"""Our weight files and those of the format's own library are the same bytes, and each reads the other's."""

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors import numpy as library
from safetensors import torch as library_torch

from techtree.techs.autodiff.safetensors import load_file, read_metadata, save_file
from techtree.techs.autodiff.safetensors.test_safetensors import DAMAGED, NUMPY, ORDER

LENIENT = {
    "a space in front",
    "a line end in front",
    "a name twice",
    "a name twice, in other letters",
    "a key of the metadata twice",
    "an entry that is a list",
    "the dtype 'F8_E4M3'",
}
"""What the library accepts: though the format's description does not, or since it is for torch as well."""


def drawn(rng):
    """Tensors of random types and shapes under random names."""
    tensors = {}
    for _ in range(rng.integers(0, 30)):
        letters = rng.choice(list('abcXYZ._0189 "\\/\néß\u2028😀'), size=rng.integers(0, 12))
        shape = tuple(rng.integers(0, 5, size=rng.integers(0, 5)))
        tensors["".join(letters)] = rng.integers(0, 2, size=shape).astype(NUMPY[rng.choice(ORDER)])
    return tensors


@pytest.mark.parametrize("seed", range(30))
def test_the_same_bytes(tmp_path, seed):
    """With one key of metadata: the library writes more in an order that differs from run to run."""
    rng = np.random.default_rng(seed)
    tensors, metadata = drawn(rng), {"format": "np"} if seed % 2 else None
    save_file(tensors, tmp_path / "ours", metadata)
    library.save_file(tensors, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found = load_file(tmp_path / "theirs")
    assert found.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        assert found[name].tobytes() == expected.tobytes()
    with safe_open(tmp_path / "ours", framework="np") as theirs:
        assert (theirs.metadata() or {}) == (metadata or {}) == read_metadata(tmp_path / "theirs")
        assert all(np.array_equal(theirs.get_tensor(name), tensors[name]) for name in tensors)


def test_a_file_of_torch_with_bfloat16(tmp_path):
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    tensors = {"half": x.to(torch.bfloat16), "whole": x, "f16": x.to(torch.float16), "n": torch.tensor(3)}
    library_torch.save_file(tensors, tmp_path / "model", {"format": "pt"})
    found = load_file(tmp_path / "model")
    assert found["half"].dtype == np.float32
    for name, expected in tensors.items():
        assert np.array_equal(found[name], expected.to(torch.float64).numpy())
    assert read_metadata(tmp_path / "model") == {"format": "pt"}


@pytest.mark.parametrize("label", DAMAGED)
def test_what_the_library_refuses_we_refuse(tmp_path, label):
    (tmp_path / "model").write_bytes(DAMAGED[label])
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_file(tmp_path / "model")
    if label not in LENIENT:
        with pytest.raises((SafetensorError, OSError, ValueError, OverflowError)):
            library.load_file(tmp_path / "model")
