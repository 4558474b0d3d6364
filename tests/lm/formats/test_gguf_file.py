"""Our GGUF files against those of the format's own package, and while they are written."""

import errno
import weakref

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.formats.gguf_file import ALIGNMENT, TensorSource, write_gguf

THEIR_TYPES = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
INT32 = st.integers(-(2**31), 2**31 - 1)
VALUES = st.one_of(
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    NAMES,
    st.lists(NAMES, min_size=1, max_size=5),  # the package leaves empty lists out
    st.lists(INT32, min_size=1, max_size=5),
)


def source(tensor, dtype=None):
    return TensorSource(tuple(tensor.shape), dtype or tensor.dtype, lambda: tensor)


@st.composite
def tensor_dicts(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    found = draw(st.dictionaries(NAMES, st.tuples(st.sampled_from(list(THEIR_TYPES)), shapes), max_size=4))
    return {name: (torch.randn(shape, generator=generator), dtype) for name, (dtype, shape) in found.items()}


def write_theirs(path, metadata, tensors):
    """Write by the package, which rounds by code of its own."""
    writer = GGUFWriter(path, metadata["general.architecture"])
    for name, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                if name != "general.architecture":
                    writer.add_string(name, value)
            case list():
                writer.add_array(name, value)
    for name, (tensor, dtype) in tensors.items():
        kind = THEIR_TYPES[dtype]
        writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@given(metadata=st.dictionaries(NAMES, VALUES, max_size=6), tensors=tensor_dicts())
def test_our_files_are_the_packages_to_the_byte(metadata, tensors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    metadata = {"general.architecture": "llama"} | metadata
    write_gguf(folder / "ours", metadata, {name: source(*pair) for name, pair in tensors.items()})
    write_theirs(folder / "theirs", metadata, tensors)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 3.5e38, 1e-40, -1e-50])
def test_a_number_that_float32_does_not_hold_is_refused(value, tmp_path):
    with pytest.raises(InputError, match="eps must be a number that float32 holds"):
        write_gguf(tmp_path / "model", {"eps": value}, {})


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = {"vector": (7,), "matrix": (5, 3), "stack": (2, 3, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", THEIR_TYPES)
def test_the_package_reads_what_was_written(tensors, dtype, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, {"a": 3, "b": ["x", ""]}, {name: source(t, dtype) for name, t in tensors.items()})
    reader = GGUFReader(path)
    assert (reader.fields["a"].contents(), reader.fields["b"].contents()) == (3, ["x", ""])
    assert [one.name for one in reader.tensors] == list(tensors)
    for one in reader.tensors:
        assert one.tensor_type == THEIR_TYPES[dtype]
        assert one.shape.tolist() == list(tensors[one.name].shape[::-1])
        assert one.data_offset % ALIGNMENT == 0
        read = gguf.quants.dequantize(one.data, one.tensor_type)
        assert np.array_equal(read, tensors[one.name].to(dtype).float().numpy())


def test_the_data_begins_aligned_and_ends_the_file(tensors, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, {}, {name: source(tensor) for name, tensor in tensors.items()})
    first, *_, last = GGUFReader(path).tensors
    assert first.data_offset % ALIGNMENT == 0
    end = last.data_offset + last.n_bytes
    assert path.stat().st_size == end + -end % ALIGNMENT
    assert not any(path.read_bytes()[end:])


def test_tensors_of_any_layout_in_memory_are_written_row_by_row(tmp_path):
    tensor = torch.arange(24.0).view(2, 3, 4)
    for name, view in (
        ("t", tensor.transpose(0, 2)),
        ("s", tensor[:, ::2]),
        ("p", torch.nn.Parameter(tensor)),
    ):
        write_gguf(tmp_path / name, {}, {"x": source(view)})
        (read,) = GGUFReader(tmp_path / name).tensors
        assert np.array_equal(read.data, view.detach().numpy())


def test_long_tensors_are_converted_in_pieces(tmp_path, monkeypatch):
    tensor = torch.randn(50, 7)
    for n_numbers in (1, 7, 100, 10_000):
        monkeypatch.setattr("techtree.lm.formats.gguf_file._PIECE_NUMBERS", n_numbers)
        write_gguf(tmp_path / "model.gguf", {}, {"x": source(tensor, torch.bfloat16)})
        (read,) = GGUFReader(tmp_path / "model.gguf").tensors
        assert np.array_equal(gguf.quants.dequantize(read.data, read.tensor_type), tensor.bfloat16().float())


def test_one_tensor_is_held_at_a_time(tmp_path):
    alive = weakref.WeakSet()
    most = []

    def read():
        tensor = torch.ones(4, 4)
        alive.add(tensor)
        most.append(len(alive))
        return tensor

    write_gguf(tmp_path / "m", {}, {str(i): TensorSource((4, 4), torch.float32, read) for i in range(5)})
    assert most == [1] * 5  # each asked for once, when the last one is gone


# ---- what goes wrong


@pytest.mark.parametrize("dtype", THEIR_TYPES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, dtype, wrong):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"older")
    good, bad = torch.ones(3, 3), torch.tensor([[1.0, wrong]])
    with pytest.raises(InputError, match="bad must be numbers up to"):
        write_gguf(path, {}, {"good": source(good, dtype), "bad": source(bad, dtype)})
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_too_large_for_float16_are_refused(tmp_path):
    large = torch.tensor([[1.0, -70_000.0]])
    with pytest.raises(InputError, match=r"x must be numbers up to 65504, as torch.float16 .* got 70000"):
        write_gguf(tmp_path / "m", {}, {"x": source(large, torch.float16)})
    write_gguf(tmp_path / "m", {}, {"x": source(large, torch.bfloat16)})


def test_a_full_disk_leaves_the_older_file(tensors, tmp_path):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "model.gguf"
    path.write_bytes(b"older")
    sources = {name: source(tensor) for name, tensor in tensors.items()}
    with pytest.raises(OSError, match="No space left"):
        write_gguf(path, {}, sources | {"last": TensorSource((2,), torch.float32, full)})
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]
