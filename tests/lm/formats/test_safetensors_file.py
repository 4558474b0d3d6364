"""Our safetensors against the format's own library, and against damage of every kind."""

import io
import json
import os
import pickle
import random
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given

from techtree.errors import InputError
from techtree.lm.formats.safetensors_file import SafetensorsFile, write_safetensors
from techtree.lm.formats.safetensors_header import DTYPES

FOR_PYTORCH = {"format": "pt"}


def random_tensor(dtype, shape, generator):
    """Every bit pattern may come, those that are no numbers included."""
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    high = 2 if dtype == torch.bool else 256
    noise = torch.randint(high, (n_bytes,), dtype=torch.uint8, generator=generator)
    return noise.view(dtype).view(shape)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def same_bits(a, b):
    return (a.dtype, a.shape, bits(a)) == (b.dtype, b.shape, bits(b))


@st.composite
def tensor_dicts(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    names = st.text(min_size=1).filter(lambda name: name != "__metadata__" and name.isprintable())
    shapes = st.lists(st.integers(0, 5), max_size=4)
    found = draw(st.dictionaries(names, st.tuples(st.sampled_from(list(DTYPES.values())), shapes)))
    return {name: random_tensor(dtype, shape, generator) for name, (dtype, shape) in found.items()}


@given(tensors=tensor_dicts(), metadata=st.dictionaries(st.text(), st.text(), max_size=1))
def test_our_files_are_the_librarys_to_the_byte(tensors, metadata, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    metadata.pop("__metadata__", None)
    write_safetensors(folder / "ours", tensors, metadata)
    theirs = safetensors.torch.save(tensors, metadata or None)
    assert (folder / "ours").read_bytes() == theirs
    file = SafetensorsFile(folder / "ours")
    assert file.metadata == metadata
    assert set(file.names) == set(tensors)
    for name, tensor in tensors.items():
        assert (file.shape(name), file.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
        assert same_bits(file.tensor(name), tensor)
        out = torch.empty_like(tensor)
        file.read_into(name, out)
        assert same_bits(out, tensor)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "stack": torch.randn(3, 4, 5, generator=generator),
        "half": torch.randn(6, 5, generator=generator).bfloat16(),
        "count": torch.arange(7),
        "one": torch.tensor(3.5),
    }


@pytest.fixture
def path(tensors, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", tensors, FOR_PYTORCH)
    return tmp_path / "model.safetensors"


def test_views_and_other_memory_formats_are_written_as_what_they_show(tensors, tmp_path):
    shown = {
        "t": tensors["stack"].transpose(0, 2),
        "part": tensors["stack"][1:, 2],
        "step": torch.arange(9)[::2],
    }
    write_safetensors(tmp_path / "x", shown, {})
    found = safetensors.torch.load_file(tmp_path / "x")
    assert all(torch.equal(found[name], shown[name]) for name in shown)


def test_floating_point_is_written_in_another_precision(tensors, tmp_path):
    write_safetensors(tmp_path / "x", tensors, {}, torch.bfloat16)
    halved = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors.items()}
    assert (tmp_path / "x").read_bytes() == safetensors.torch.save(halved)


def test_a_mapped_tensor_can_be_changed_and_the_file_stays(tensors, path):
    before = path.read_bytes()
    mapped = SafetensorsFile(path).tensor("stack")
    mapped += 1
    assert torch.equal(mapped, tensors["stack"] + 1)
    assert path.read_bytes() == before


def test_a_mapped_tensor_outlives_its_file_object_and_a_replacement(tensors, path):
    mapped = SafetensorsFile(path).tensor("stack")
    write_safetensors(path, {"stack": torch.zeros(1)}, {})
    assert torch.equal(mapped, tensors["stack"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["stack", "half", "count", "one"])
def test_reading_converts_as_torch_does(tensors, path, name, dtype):
    out = torch.empty(tensors[name].shape, dtype=dtype)
    SafetensorsFile(path).read_into(name, out)
    assert torch.equal(out, tensors[name].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece_bytes", [1, 20, 50, 10_000])
def test_reading_in_pieces_gives_the_same(tensors, path, dtype, piece_bytes, monkeypatch):
    monkeypatch.setattr("techtree.lm.formats.safetensors_file._PIECE_BYTES", piece_bytes)
    file = SafetensorsFile(path)
    for name, expected in tensors.items():
        out = torch.empty(expected.shape, dtype=dtype)
        file.read_into(name, out)
        assert torch.equal(out, expected.to(dtype))
    strided = torch.zeros(5, 4, 3).transpose(0, 2)
    file.read_into("stack", strided)
    assert torch.equal(strided, tensors["stack"])


def test_rows_have_the_shape_of_the_rows_of_out(tensors, path):
    file, stack = SafetensorsFile(path), tensors["stack"]
    experts, rows = torch.empty(2, 4, 5), torch.empty(3, 5)
    file.read_into("stack", experts, slice(1, 3))
    assert torch.equal(experts, stack[1:])
    file.read_into("stack", rows, slice(6, 9))
    assert torch.equal(rows, stack.view(12, 5)[6:9])
    whole = torch.zeros(2, 3, 5)
    file.read_into("half", whole[0], slice(3, 6))  # a slice of a larger tensor, converted
    assert torch.equal(whole[0], tensors["half"][3:].float())
    assert whole[1].count_nonzero() == 0


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((3, 4), None),
        ((2, 4, 5), None),
        ((2, 5), slice(11, 13)),
        ((2, 5), slice(0, 4, 2)),
        ((2, 7), slice(0, 2)),
    ],
)
def test_reading_into_another_shape_is_refused(path, shape, rows):
    with pytest.raises(ValueError, match="does not fit"):
        SafetensorsFile(path).read_into("stack", torch.empty(shape), rows)


def test_data_at_odd_addresses_is_read(tmp_path):
    """The library wrote headers of any length once."""
    values = torch.arange(5, dtype=torch.float64)
    for n_spaces in range(9):
        header = json.dumps({"x": {"dtype": "F64", "shape": [5], "data_offsets": [0, 40]}}) + " " * n_spaces
        data = len(header).to_bytes(8, "little") + header.encode() + values.numpy().tobytes()
        (tmp_path / "x").write_bytes(data)
        assert torch.equal(SafetensorsFile(tmp_path / "x").tensor("x"), values)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path):
    file = SafetensorsFile(path)
    os.truncate(path, path.stat().st_size - 200)
    with pytest.raises(InputError, match="become shorter"):
        file.read_into("half", torch.empty(6, 5))


def test_writing_is_all_or_nothing(tensors, path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"c must be of a type .*; got torch\.complex128"):
        write_safetensors(path, {"c": torch.zeros(1, dtype=torch.complex128)}, {})
    with pytest.raises(OSError):  # noqa: PT011, the system's own words
        write_safetensors(path / "below a file", tensors, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# ---------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(dtype="F32", shape=(2,), offsets=(0, 8), **other):
    return {"x": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | other}


def two(first, second):
    return {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in {"a": first, "b": second}.items()
    }


def saved_by_torch(zipped):
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(2)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


EIGHT = b"\0" * 8

DAMAGED = {
    "empty": (b"", "it has 0 bytes"),
    "short": (b"\1\0\0\0", "it has 4 bytes"),
    "no header": ((5).to_bytes(8, "little"), "it has 8 bytes"),
    "header beyond the file": (
        (99).to_bytes(8, "little") + b"{}",
        "said to have 99",
    ),
    "huge header": (b"\xff" * 8 + b"{}", "said to have 18,446,744,073,709,551,615"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "must be JSON"),
    "not JSON": (file_of(b"{'x': 1}"), "must be JSON"),
    "deep": (file_of(b"[" * 100_000), "must be JSON"),
    "long number": (file_of(b'{"x": ' + b"9" * 5000 + b"}"), "must be JSON"),
    "not an object": (file_of([1]), "must be a JSON object; got list"),
    "name twice": (file_of(b'{"x": {}, "x": {}}'), "holds 'x' twice"),
    "key twice": (file_of(b'{"x": {"dtype": "F32", "dtype": "F32"}}'), "holds 'dtype' twice"),
    "metadata": (file_of({"__metadata__": {"a": 1}}), "must map texts to texts"),
    "no entry": (file_of({"x": 3}), "'x' must have dtype, shape and data_offsets"),
    "key missing": (file_of({"x": {"dtype": "F32", "shape": [2]}}, EIGHT), "must have dtype, shape and data"),
    "dtype": (file_of(one("F12"), EIGHT), "dtype of 'x' must be one of .*; got 'F12'"),
    "dtype of another type": (file_of(one({}), EIGHT), "dtype of 'x' must be"),
    "shape no list": (
        file_of({"x": one()["x"] | {"shape": 2}}, EIGHT),
        "shape of 'x' must .*; got 2",
    ),
    "negative shape": (file_of(one(shape=[-2]), EIGHT), "whole numbers"),
    "fractional shape": (file_of(one(shape=[2.0]), EIGHT), "whole numbers"),
    "true as a shape": (file_of(one(shape=[True, 2]), EIGHT), "whole numbers"),
    "shape that overflows": (file_of(one(shape=[2**33, 2**31 + 1]), EIGHT), "fewer than 2.63 elements"),
    "shape of nothing that overflows": (file_of(one(shape=[0, 2**62, 4], offsets=[0, 0])), "fewer than 2.63"),
    "many axes": (file_of(one(shape=[1] * 65, offsets=[0, 4]), b"\0" * 4), "at most 64"),
    "huge shape": (file_of(one(shape=[2**40]), EIGHT), "needs 4398046511104 bytes"),
    "small shape": (file_of(one(shape=[1]), EIGHT), "needs 4 bytes"),
    "wrong dtype": (file_of(one("F64"), EIGHT), "needs 16 bytes"),
    "one offset": (file_of(one(offsets=[8]), EIGHT), "two whole numbers"),
    "offsets backwards": (file_of(one(offsets=[8, 0]), EIGHT), "span -8"),
    "negative offsets": (file_of(one(offsets=[-8, 0]), EIGHT), "two whole numbers"),
    "beyond the data": (file_of(one(offsets=[8, 16]), EIGHT), "'x' begins at byte 8 of the data"),
    "huge offsets": (file_of(one(offsets=[10**4200, 10**4200 + 8]), EIGHT), "'x' begins at byte 1000"),
    "cut off": (file_of(one(), b"\0" * 7), "was cut off"),
    "trailing bytes": (file_of(one(), b"\0" * 9), "the tensors end at byte"),
    "only trailing bytes": (file_of({}, b"\0"), "the tensors end at byte"),
    "overlap": (file_of(two((0, 5), (4, 8)), EIGHT), "'b' begins at byte 4 .* ends at 5"),
    "same place": (file_of(two((0, 8), (0, 8)), EIGHT), "without holes or overlaps"),
    "hole": (file_of(two((0, 3), (4, 8)), EIGHT), "'b' begins at byte 4 .* ends at 3"),
    "hole at the start": (file_of(one(offsets=[4, 12]), b"\0" * 12), "'x' begins at byte 4"),
    "a half of a surrogate pair": (file_of(b'{"\\ud800": 3}'), r"'\\ud800' must have"),
    "a pickle": (pickle.dumps({"x": 1}, protocol=2), "it is a pickle"),
    "an old file of torch.save": (saved_by_torch(zipped=False), "it is a pickle"),
    "a file of torch.save": (saved_by_torch(zipped=True), "it is a pickle.*never opened"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_refused_in_one_sentence(kind, tmp_path):
    content, message = DAMAGED[kind]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        SafetensorsFile(tmp_path / "model.safetensors")
    said = str(raised.value)
    said.encode()  # it can be printed
    assert "model.safetensors" in said
    assert "\n" not in said
    assert len(said) < 600


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        SafetensorsFile(tmp_path / "x")
    with pytest.raises(InputError, match="must be a regular file; it is a folder"):
        SafetensorsFile(tmp_path)


def test_an_unknown_name_is_refused(path):
    with pytest.raises(InputError, match="has no tensor 'y'"):
        SafetensorsFile(path).tensor("y")


def test_no_header_raises_anything_else(path, tmp_path):
    """Random bytes of the header are changed, 1,500 times: it is refused, or read as what it says."""
    rng = random.Random(0)
    good = path.read_bytes()
    n_header = 8 + int.from_bytes(good[:8], "little")
    interesting = b'{}[]",:0123456789-eE.\\u \0\xff'
    n_refused = 0
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 5])):
            start = rng.choice([0, 8])
            data[rng.randrange(start, n_header)] = rng.choice([rng.randrange(256), rng.choice(interesting)])
        (tmp_path / "damaged").write_bytes(data)
        try:
            file = SafetensorsFile(tmp_path / "damaged")
            assert all(file.tensor(name).shape == file.shape(name) for name in file.names)
        except InputError:
            n_refused += 1
    assert 1000 < n_refused < 1500  # a changed name is a right file


MEMORY = """
import resource, sys
from techtree.errors import InputError
from techtree.lm.formats.safetensors_file import SafetensorsFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        SafetensorsFile(path)
    except InputError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_lie_about_sizes_costs_no_memory(tmp_path):
    paths = [tmp_path / str(i) for i in range(len(DAMAGED))]
    for path, (content, _) in zip(paths, DAMAGED.values(), strict=True):
        path.write_bytes(content)
    run = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], capture_output=True, text=True)
    # In kB. The largest of these files has 100 kB; the largest lie is of 2^64 bytes.
    assert int(run.stdout) < 5_000, run.stderr
