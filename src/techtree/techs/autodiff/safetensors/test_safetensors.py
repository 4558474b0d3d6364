"""Oracles: files written by hand, byte for byte as the format says, whole ones and damaged ones."""

import itertools
import json
import os
import struct
from collections import OrderedDict, UserDict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter

ORDER = ["U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL"]
"""The types that NumPy has too, in the order of a file."""

NUMPY = {
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
    "F32": np.float32,
    "U32": np.uint32,
    "I32": np.int32,
    "F16": np.float16,
    "U16": np.uint16,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

VALUES = {
    "U64": ([0, 1, 2**63 + 5], "<3Q"),
    "I64": ([-(2**63), -2, 2**40 + 7], "<3q"),
    "F64": ([1 / 3, -0.0, 1e308], "<3d"),
    "F32": ([1.5, -0.0, float("inf")], "<3f"),
    "U32": ([0, 258, 2**32 - 1], "<3I"),
    "I32": ([-(2**31), -258, 5], "<3i"),
    "F16": ([1.5, -0.0, 65504.0], "<3e"),
    "U16": ([0, 258, 65535], "<3H"),
    "I16": ([-32768, -258, 5], "<3h"),
    "I8": ([-128, -1, 5], "<3b"),
    "U8": ([0, 7, 255], "<3B"),
    "BOOL": ([False, True, True], "<3?"),
}
"""Three values of each type, and how the standard library packs them."""


def raw(header, data=b"", length=None):
    """The bytes of a file whose header is given as a text, as bytes, or as what JSON shall say."""
    text = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else None
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(code, shape, begin, end):
    return {"dtype": code, "shape": shape, "data_offsets": [begin, end]}


def written(tmp_path, content, name="model.safetensors"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def saved(impl, tmp_path, *arguments):
    """The bytes that `save_file` makes of tensors and metadata."""
    path = tmp_path / "saved.safetensors"
    impl.save_file(arguments[0], path, *arguments[1:])
    return path.read_bytes()


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length]


def by_code_point(name):
    return [ord(letter) for letter in name]


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def expected_file(tensors, metadata=None):
    """The bytes of a file, written slowly: by code points, and one tensor after the other."""
    codes = {np.dtype(kind): code for code, kind in NUMPY.items()}
    plain = {name: np.array(x, x.dtype.newbyteorder("="), order="C") for name, x in tensors.items()}
    order = sorted(plain, key=lambda name: (ORDER.index(codes[plain[name].dtype]), by_code_point(name)))
    header, data, end = {}, [], 0
    if metadata:
        header["__metadata__"] = {key: metadata[key] for key in sorted(metadata, key=by_code_point)}
    for name in order:
        x = plain[name]
        data.append(x.astype(VALUES_FORM[x.dtype.kind].format(x.itemsize)).tobytes())
        header[name] = entry(codes[x.dtype], list(x.shape), end, end + x.nbytes)
        end += x.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return raw(text + b" " * (-len(text) % 8), b"".join(data))


VALUES_FORM = {"u": "<u{}", "i": "<i{}", "f": "<f{}", "b": "|b{}"}


# First what most wrong versions fail at, then what is written, and what is read.


def test_a_file_byte_for_byte(impl, tmp_path):
    tensors = {"b": np.array([[1.0, -2.0]], np.float32), "a": np.array(258, np.int64)}
    expected = (
        b"\x90\x00\x00\x00\x00\x00\x00\x00"
        b'{"__metadata__":{"by":"hand"},'
        b'"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}'
        b"      "
        b"\x02\x01\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    )
    assert saved(impl, tmp_path, tensors, {"by": "hand"}) == expected


def test_every_type_is_packed_as_the_standard_library_packs_it(impl, tmp_path):
    tensors = {code: np.array(values, NUMPY[code]) for code, (values, _) in VALUES.items()}
    content = saved(impl, tmp_path, tensors)
    packed = [struct.pack(form, *values) for values, form in VALUES.values()]
    assert content.endswith(b"".join(packed))
    ends = np.cumsum([0, *map(len, packed)]).tolist()
    expected = {
        code: entry(code, [3], begin, end)
        for code, begin, end in zip(VALUES, ends[:-1], ends[1:], strict=True)
    }
    assert json.loads(header_of(content)) == expected


def test_what_the_format_cannot_hold_is_refused(impl, tmp_path):
    path = written(tmp_path, b"old")
    good = np.ones(2)
    wrong = [
        ({"a": good, "b": np.ones(2, np.complex128)},),
        ({"a": good, "b": np.ones(2, np.complex64)},),
        ({"a": np.array(["x", "y"])},),
        ({"a": np.array([b"x"])},),
        ({"a": np.array([None, 1], dtype=object)},),
        ({"a": np.zeros(2, "datetime64[s]")},),
        ({"a": np.zeros(2, "timedelta64[s]")},),
        ({"a": np.zeros(2, [("x", "f4")])},),
        ({"a": good, "__metadata__": good},),
        ({1: good},),
        ({None: good},),
        ({"a": good, b"b": good},),
        ({("a",): good},),
        ({"a": good}, {"x": 1}),
        ({"a": good}, {"x": None}),
        ({"a": good}, {"x": "y", 2: "z"}),
        ({"a": good}, {"x": ["y"]}),
        ({"a": good}, {"x": {"y": "z"}}),
        ({"a": good}, {"x": b"y"}),
    ]
    if np.dtype(np.longdouble).itemsize > 8:
        wrong.append(({"a": np.ones(2, np.longdouble)},))
    for name in battery.LONE_SURROGATES.values():
        wrong += [({name: good},), ({"a": good}, {name: "y"}), ({"a": good}, {"x": name})]
    for n in aim.sizes(9, at_most=2000):  # the last of many
        many, texts = {f"w{i}": good for i in range(n)}, {f"k{i}": "v" for i in range(n)}
        wrong += [({**many, "x": np.ones(2, complex)},), ({**many, 7: good},), ({}, {**texts, "x": 1})]
        wrong += [(many, {**texts, None: "v"}), ({**many, "__metadata__": good},)]
    for tensors, *metadata in wrong:
        battery.refuses(impl.save_file, tensors, path, *metadata)
        assert path.read_bytes() == b"old"
        assert [each.name for each in tmp_path.iterdir()] == [path.name]


# What is refused. All of these are one change away from a good file.

F2 = {"w": entry("F32", [2], 0, 8)}
TWO = {"v": entry("U8", [4], 0, 4), "w": entry("U8", [4], 4, 8)}
EIGHT = b"\0" * 8


def changed(**changes):
    return {"w": {**F2["w"], **changes}}


def without(key):
    return {"w": {name: value for name, value in F2["w"].items() if name != key}}


ONE = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

DAMAGED = {
    **{f"a file of {n} bytes": (b"\x02" + b"\0" * 7 + b"{}")[:n] for n in range(10)},
    "a header longer than the file": raw(F2, EIGHT, length=200),
    **{
        f"a header of {8 + n} bytes of which 8 are there": raw(text, length=8 + n)
        for n in (1, 2, 7, 8, 9)
        for text in ("{}      ", "{}".ljust(8, "\n"))
    },
    "a header of which the last spaces are missing": raw(
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', length=56
    ),
    "a header as long as the file": raw(F2, EIGHT, length=len(raw(F2, EIGHT))),
    "a header of 2^63 bytes": raw(F2, EIGHT, length=2**63),
    "a header of 2^64 - 1 bytes": raw(F2, EIGHT, length=2**64 - 1),
    "a length in big-endian": struct.pack(">Q", 2) + b"{}",
    "a header that ends too early": raw(F2, EIGHT, length=20),
    "a header without bytes": raw(b""),
    "spaces only": raw("        "),
    "a space in front": raw(" {" + ONE + "}", EIGHT),
    "a line end in front": raw("\n{}"),
    "a byte order mark in front": raw(b"\xef\xbb\xbf{}"),
    "UTF-16": raw("{}".encode("utf-16-le")),
    "a list": raw("[]"),
    "a number": raw("3"),
    "a text": raw('"{}"'),
    "null": raw("null"),
    "half a header": raw('{"w":'),
    "two objects": raw("{}{}"),
    "letters behind the object": raw("{}  x"),
    "NUL behind the object": raw(b"{}\0\0\0\0\0\0"),
    "a trailing comma": raw("{" + ONE + ",}", EIGHT),
    "single quotes": raw(("{" + ONE + "}").replace('"', "'"), EIGHT),
    "a line end inside a name": raw('{"a\nb":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "bytes that are not UTF-8": raw(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "a cut UTF-8 sequence": raw(b'{"\xe2\x82":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "a UTF-8 surrogate": raw(b'{"\xed\xa0\x80":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "lists a hundred thousand deep": raw('{"w":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "objects a hundred thousand deep": raw('{"w":' * 100_000 + "1" + "}" * 100_000),
    "a name twice": raw("{" + ONE + "," + ONE + "}", EIGHT),
    "a name twice, in other letters": raw("{" + ONE + "," + ONE.replace("w", "\\u0077", 1) + "}", EIGHT),
    "a name twice, both halves": raw(
        '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
        EIGHT,
    ),
    "metadata twice": raw('{"__metadata__":{},"__metadata__":{},' + ONE + "}", EIGHT),
    "a key of the metadata twice": raw('{"__metadata__":{"a":"1","a":"1"},' + ONE + "}", EIGHT),
    "a dtype twice": raw("{" + ONE.replace('"dtype"', '"dtype":"F32","dtype"') + "}", EIGHT),
    "metadata as a list": raw({"__metadata__": [], **F2}, EIGHT),
    "metadata as a text": raw({"__metadata__": "x", **F2}, EIGHT),
    "metadata as a number": raw({"__metadata__": 0, **F2}, EIGHT),
    "metadata as false": raw({"__metadata__": False, **F2}, EIGHT),
    "a number in the metadata": raw({"__metadata__": {"a": "1", "b": 1}, **F2}, EIGHT),
    "null in the metadata": raw({"__metadata__": {"a": None}, **F2}, EIGHT),
    "an object in the metadata": raw({"__metadata__": {"a": {"b": "c"}}, **F2}, EIGHT),
    "metadata that is a tensor": raw({"__metadata__": entry("F32", [2], 0, 8)}, EIGHT),
    "an entry that is a list": raw({"w": ["F32", [2], [0, 8]]}, EIGHT),
    "an entry that is a list of the three words": raw({"w": ["dtype", "shape", "data_offsets"]}, EIGHT),
    **{
        f"{word} as {what}": raw("{" + ONE.replace(old, new.format(word), 1) + "}", EIGHT)
        for word in ("NaN", "Infinity", "-Infinity")
        for what, old, new in (
            ("an offset", "[0,8]", "[{},8]"),
            ("the other offset", "[0,8]", "[0,{}]"),
            ("a length", "[2]", "[2,{}]"),
        )
    },
    **{
        f"the dtype {code!r} of the right size": raw(changed(dtype=code, shape=[8 // size]), EIGHT)
        for code, size in (("f32", 4), ("u8", 1), ("i16", 2), ("Bool", 1), ("F32\\u0000", 4), ("bf16", 2))
    },
    "offsets below 0, without data": raw(changed(data_offsets=[-8, 0])),
    "offsets below 0, before others": raw(
        {**changed(data_offsets=[-8, 0]), "v": entry("U8", [8], 0, 8)}, EIGHT
    ),
    "an entry that is null": raw({"w": None}, b""),
    "an entry that is a number": raw({"w": 8}, EIGHT),
    "an entry that is a text": raw({"w": "dtype shape data_offsets"}, EIGHT),
    "an entry without dtype": raw(without("dtype"), EIGHT),
    "an entry without shape": raw(without("shape"), EIGHT),
    "an entry without data_offsets": raw(without("data_offsets"), EIGHT),
    "an empty entry": raw({"w": {}}, b""),
    **{
        f"the dtype {code!r}": raw(changed(dtype=code, shape=[8], data_offsets=[0, 8]), EIGHT)
        for code in (
            "F8_E4M3",
            "f32",
            "<f4",
            "float32",
            "F",
            "",
            "F32 ",
            "S1",
            "u1",
            None,
            5,
            ["F32"],
            {},
            True,
        )
    },
    **{
        f"the shape {shape!r}": raw(changed(shape=shape), EIGHT)
        for shape in (
            2,
            "2",
            None,
            [2.0],
            ["2"],
            [True, 2],
            [None],
            [[2]],
            {"0": 2},
            [-2],
            [-1, -2],
            [-1, -1, 2],
            [2, 1.0],
        )
    },
    **{
        f"the shape {str(shape)[:30]} of nothing": raw(changed(shape=shape, data_offsets=[0, 0]))
        for shape in ([False], [0.0], [0, -1], [-1, 0], [0, 2**63], [2**64, 0], [2**62, 0, 2**62], [0] * 65)
    },
    "a shape of 65 axes": raw(changed(shape=[2] + [1] * 64), EIGHT),
    "a shape of 2^64 + 2 entries": raw(changed(shape=[2**64 + 2]), EIGHT),
    "a shape of 2^30 + 2 entries": raw(changed(shape=[2**30 + 2]), EIGHT),
    "a shape of 2^31 squared": raw(changed(shape=[2**31, 2**31, 4]), b""),
    "a shape of ten thousand digits": raw("{" + ONE.replace("[2]", f"[{'9' * 10_000}]") + "}", EIGHT),
    **{
        f"the offsets {offsets!r}": raw(changed(data_offsets=offsets), EIGHT)
        for offsets in (
            8,
            None,
            "08",
            [],
            [8],
            [0, 8, 8],
            [0, 8.0],
            [0.0, 8],
            ["0", "8"],
            [False, 8],
            [None, 8],
            {"0": 0, "1": 8},
            [8, 0],
            [-8, 0],
            [0, -8],
            [1, 8],
            [0, 7],
            [0, 9],
            [0, 4],
            [0, 16],
            [8, 16],
            [4, 12],
            [0, 2**64 + 8],
            [2**64, 2**64 + 8],
        )
    },
    "offsets that count from the file's beginning": raw(changed(data_offsets=[64, 72]), EIGHT),
    "fewer bytes than the shape needs": raw(changed(shape=[1]), EIGHT),
    "more bytes than the shape needs": raw(changed(shape=[3]), EIGHT),
    "bytes of another dtype": raw(changed(dtype="F64"), EIGHT),
    "no entries but bytes": raw(changed(shape=[0]), EIGHT),
    "a scalar over eight bytes": raw(changed(shape=[]), EIGHT),
    "data cut off": raw(F2, b"\0" * 7),
    "no data": raw(F2),
    "a byte too many": raw(F2, b"\0" * 9),
    "data without tensors": raw("{}", b"\0"),
    "the same bytes twice": raw({"v": TWO["v"], "w": TWO["v"]}, b"\0" * 4),
    "the same bytes twice, and others": raw({"v": TWO["v"], "w": TWO["v"]}, EIGHT),
    "tensors that overlap": raw({"v": TWO["v"], "w": entry("U8", [5], 3, 8)}, EIGHT),
    "tensors that overlap, the later first": raw({"w": entry("U8", [5], 3, 8), "v": TWO["v"]}, EIGHT),
    "a tensor inside another": raw({"v": entry("U8", [8], 0, 8), "w": entry("U8", [2], 3, 5)}, EIGHT),
    "a hole in front": raw({"w": TWO["w"]}, EIGHT),
    "a hole between": raw({"v": TWO["v"], "w": entry("U8", [3], 5, 8)}, EIGHT),
    "a hole at the end": raw({"v": TWO["v"], "w": entry("U8", [3], 4, 7)}, EIGHT),
    "an overlap and a hole that make up for each other": raw(
        {"u": entry("U8", [4], 0, 4), "v": entry("U8", [4], 2, 6), "w": entry("U8", [2], 8, 10)}, b"\0" * 10
    ),
    "nothing inside another": raw({"v": entry("U8", [8], 0, 8), "w": entry("U8", [0], 3, 3)}, EIGHT),
    "nothing inside another, named before": raw(
        {"a": entry("U8", [0], 3, 3), "v": entry("U8", [8], 0, 8)}, EIGHT
    ),
    "nothing beyond the end": raw({"v": entry("U8", [8], 0, 8), "w": entry("U8", [0], 9, 9)}, EIGHT),
    "nothing before a hole": raw({"v": entry("U8", [4], 4, 8), "w": entry("U8", [0], 0, 0)}, EIGHT),
    "a pickle": b"\x80\x04\x95\x0f\0\0\0\0\0\0\0}\x94\x8c\x01w\x94K\x01s.",
    "an archive": b"PK\x03\x04" + b"\0" * 60,
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
}


def test_damaged_files_are_refused(impl, tmp_path):
    with_metadata = raw({"__metadata__": {"a": "1"}, **F2}, EIGHT)
    for good in (raw(F2, EIGHT), raw(TWO, EIGHT), raw("{}"), raw("{" + ONE + "}", EIGHT), with_metadata):
        impl.load_file(written(tmp_path, good))
    for label, content in DAMAGED.items():
        path = written(tmp_path, content)
        for read in (impl.load_file, impl.read_metadata):
            assert refusal(read, path, label)


def refusal(read, path, label):
    """Why a file is refused; the message is free, but not empty."""
    try:
        read(path)
    except ValueError as error:
        return str(error)
    except Exception as error:
        came = f"{type(error).__name__} came: {error}"
        raise battery.MismatchError(
            f"ValueError expected, {came}", [f"asked: {read.__name__} of {label}"]
        ) from error
    raise battery.MismatchError(
        "ValueError expected, nothing was raised", [f"asked: {read.__name__} of {label}"]
    )


FAULTS = {
    "without dtype": {"shape": [1], "data_offsets": [0, 1]},
    "without shape": {"dtype": "U8", "data_offsets": [0, 1]},
    "without data_offsets": {"dtype": "U8", "shape": [1]},
    "of an unknown dtype": entry("F8", [1], 0, 1),
    "of a shape below zero": entry("U8", [-1, -1], 0, 1),
    "of a shape that is a float": entry("U8", [1.0], 0, 1),
    "of a shape that is a boolean": entry("U8", [True], 0, 1),
    "of a shape that no array has": entry("U8", [0, 2**63], 0, 0),
    "whose offsets are floats": entry("U8", [1], 0, 1.0),
    "whose offsets are three": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]},
    "whose offsets span too much": entry("U8", [1], 0, 2),
    "that overlaps the one before": entry("U8", [1], -1, 0),
    "that begins too late": entry("U8", [1], 1, 2),
    "that is null": None,
}
"""Entries that are at fault, with offsets that count from where the tensors before them end."""


def test_a_file_without_tensors(impl, tmp_path):
    for metadata in ((), (None,), ({},)):
        assert saved(impl, tmp_path, {}, *metadata) == b"\x08\0\0\0\0\0\0\0{}      "
    content = saved(impl, tmp_path, {}, {"a": "b"})
    assert content == b'\x20\0\0\0\0\0\0\0{"__metadata__":{"a":"b"}}      '


def require_file(impl, tmp_path, tensors, metadata=None, label=""):
    """Save and load; compare with the file as it must be, and with what went in."""
    path = tmp_path / "required.safetensors"
    impl.save_file(tensors, path, metadata)
    got, wanted = path.read_bytes(), expected_file(tensors, metadata)
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), -1)
        facts = [
            f"input: {label}",
            f"expected there: {wanted[at : at + 60]!r}",
            f"yours: {got[at : at + 60]!r}",
        ]
        raise battery.MismatchError(f"the file differs from byte {at} of {len(wanted)} on", facts)
    loaded = impl.load_file(path)
    assert loaded.keys() == tensors.keys(), label
    for name, x in tensors.items():
        assert same(loaded[name], np.array(x, x.dtype.newbyteorder("="), order="C")), (label, name)
        assert not loaded[name].flags.writeable
    assert impl.read_metadata(path) == (metadata or {}), label


def test_tensors_lie_in_the_order_of_types_then_of_names(impl, tmp_path):
    """Names are ordered by code point: not by UTF-16, without regard to case or by the numbers in them."""
    names = ["a", "B", "", "a.10", "a.2", "é", "e\u0301", "\uffff", "\U00010000", "😀", "_", "10", "9", "ab"]
    tensors = {f"{name}{code}": np.zeros(2, NUMPY[code]) for name in names for code in ORDER}
    require_file(impl, tmp_path, tensors, label="many names of all types")
    first = saved(impl, tmp_path, tensors)
    for shuffled in (dict(reversed(tensors.items())), dict(sorted(tensors.items()))):
        for mapping in (dict, UserDict, MappingProxyType, OrderedDict):
            assert saved(impl, tmp_path, mapping(shuffled), mapping({})) == first
    metadata = {name: f"of {name}" for name in names}
    require_file(impl, tmp_path, {"w": np.ones(1)}, metadata, "much metadata")
    first = saved(impl, tmp_path, {}, metadata)
    for mapping in (dict, UserDict, MappingProxyType):
        assert saved(impl, tmp_path, {}, mapping(dict(reversed(metadata.items())))) == first


def test_any_text_may_be_a_name_or_metadata(impl, tmp_path):
    texts = list(dict.fromkeys(battery.texts().values()))
    tensors = {each: np.array([n], np.int32) for n, each in enumerate(texts)}
    require_file(impl, tmp_path, tensors, {each: each[::-1] for each in texts}, "names of every kind")


def test_what_is_saved_and_loaded_are_the_values_of_now(impl, tmp_path):
    """Not those of an earlier call with the same array, path, size of the file, or time of its change."""
    path, w, metadata = tmp_path / "model.safetensors", np.zeros(3), {"k": "0"}
    for n in range(4):
        w[...], metadata["k"] = n, str(n)
        impl.save_file({"w": w}, path, metadata)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        loaded, texts = impl.load_file(path), impl.read_metadata(path)
        assert (loaded["w"].tolist(), texts) == ([n] * 3, {"k": str(n)})
        loaded.clear()  # these are the caller's
        texts.clear()
        assert impl.load_file(path)["w"].tolist() == [n] * 3
        assert impl.read_metadata(path) == {"k": str(n)}
        path.write_bytes(path.read_bytes().replace(b'"k"', b'"j"'))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert impl.read_metadata(path) == {"j": str(n)}


def test_the_header_is_json_without_blanks(impl, tmp_path):
    name = 'a "b"\\c/d\ne\tf\x01gé\u2028😀'
    content = saved(impl, tmp_path, {name: np.zeros(0, np.uint8)}, {"ß 1": "\r\n ü: , {"})
    expected = (
        '{"__metadata__":{"ß 1":"\\r\\n ü: , {"},'
        '"a \\"b\\"\\\\c/d\\ne\\tf\\u0001gé\u2028😀":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    )
    assert header_of(content).rstrip(b" ") == expected.encode()
    path = written(tmp_path, content)
    assert list(impl.load_file(path)) == [name]
    assert impl.read_metadata(path) == {"ß 1": "\r\n ü: , {"}


def test_as_few_spaces_as_make_the_header_a_multiple_of_eight(impl, tmp_path):
    seen = set()
    for name in ["x" * n for n in range(8)] + ["é", "😀é"]:
        text = header_of(saved(impl, tmp_path, {name: np.ones(1, np.uint8)}))
        seen.add(len(text) - len(text.rstrip(b" ")))
        assert len(text) % 8 == 0
        assert text.rstrip(b" ").endswith(b"}")
    assert seen == set(range(8))


def test_metadata_is_ordered_and_left_out_when_empty(impl, tmp_path):
    tensors = {"w": np.ones(2, np.float32)}
    keys = ["b", "a", "C", "", "ä", "😀", "\uffff"]
    content = saved(impl, tmp_path, tensors, {key: f"of {key}" for key in keys})
    header = json.loads(header_of(content))
    assert list(header) == ["__metadata__", "w"]
    assert list(header["__metadata__"]) == sorted(keys, key=by_code_point)
    assert saved(impl, tmp_path, tensors, {key: f"of {key}" for key in reversed(keys)}) == content
    for empty in ((), (None,), ({},)):
        assert list(json.loads(header_of(saved(impl, tmp_path, tensors, *empty)))) == ["w"]


def test_any_layout_and_byte_order_gives_the_same_bytes(impl, tmp_path, rng):
    given, plain = {}, {}
    for code in ORDER:
        x = rng.integers(0, 2, size=(4, 3, 5)).astype(NUMPY[code])
        swapped = x.astype(x.dtype.newbyteorder(">"))
        layouts = [swapped, swapped.T.copy().T, *(change(x) for change in battery.LAYOUTS.values())]
        for number, each in enumerate(layouts):
            given[f"{code} {number}"] = each
            plain[f"{code} {number}"] = np.array(each, NUMPY[code], order="C")
    before = {name: each.copy() for name, each in given.items()}
    content = saved(impl, tmp_path, given)
    assert saved(impl, tmp_path, plain) == content
    assert content.endswith(b"".join(each.tobytes() for each in plain.values()))
    assert all(np.array_equal(given[name], before[name]) for name in given)


def test_a_new_file_takes_the_place_of_the_old_one_in_a_single_step(impl, tmp_path):
    """Who has the old one open keeps it: under another name, as an open file, as mapped arrays."""
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    impl.save_file({"w": np.arange(1000.0)}, path)
    old = path.read_bytes()
    loaded = impl.load_file(path)
    os.link(path, other)
    with path.open("rb") as file:
        impl.save_file({"w": np.zeros(1000)}, path)
        assert file.read() == old
    assert other.read_bytes() == old
    assert np.array_equal(loaded["w"], np.arange(1000.0))
    assert not impl.load_file(path)["w"].any()
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, other.name]


def test_whatever_fails_the_old_file_is_there_and_no_other(impl, tmp_path):
    """A version need not call what fails here; if it does, the error is the system's, or an interruption."""
    path = tmp_path / "model.safetensors"
    tensors = {f"w{n}": np.arange(1000.0) for n in range(3)}
    wanted = expected_file(tensors)
    calls = ("os.replace", "os.rename", "os.fsync", "os.link")
    for name, error in itertools.product(calls, (OSError, KeyboardInterrupt)):
        for old in (b"old", None):
            path.unlink(missing_ok=True)
            if old:
                path.write_bytes(old)
            try:
                with mock.patch(name, side_effect=error):
                    impl.save_file(tensors, path)
                expected = wanted
            except error:
                expected = old
            assert (path.read_bytes() if path.exists() else None) == expected, f"{name} fails, {old} before"
            assert [each.name for each in tmp_path.iterdir()] == ([path.name] if expected else []), name


def test_a_full_disk_leaves_the_old_file_and_no_other(impl, tmp_path):
    resource = pytest.importorskip("resource")
    path = written(tmp_path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for n in (1, 3):
        tensors = {f"w{i}": np.zeros(20_000) for i in range(n)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes that a file may have
        try:
            battery.refuses(impl.save_file, tensors, path, error=OSError)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == b"old"
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
    impl.save_file({"w": np.ones(1)}, path)
    assert impl.load_file(path)["w"].tolist() == [1]


def test_any_path_will_do(impl, tmp_path, monkeypatch):
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path)
    names = [
        "m",
        "m.bin",
        ".hidden",
        "a b.safetensors",
        "m.safetensors.part",
        "é😀",
        "x" * 250,
        "a folder/m",
        "%s{}",
    ]
    for name in [*names, tmp_path / "absolute", Path("relative"), str(tmp_path / "text"), "a folder/../up"]:
        for n in (1.0, 2.0):
            impl.save_file({"w": np.array([n])}, name, {"k": str(n)})
            assert impl.load_file(name)["w"].tolist() == [n]
            assert impl.read_metadata(name) == {"k": str(n)}
    assert len(list(tmp_path.rglob("*"))) == len(names) + 5
    for function in (lambda: impl.save_file({}, tmp_path / "none" / "m"), lambda: impl.load_file("none")):
        battery.refuses(function, error=OSError)
    assert len(list(tmp_path.rglob("*"))) == len(names) + 5


def test_after_an_error_the_old_file_is_there_and_no_other(impl, tmp_path):
    path = written(tmp_path, b"old")

    class Failing(Mapping):
        """Tensors that cannot be had."""

        def __getitem__(self, name):
            if name == "b":
                raise InterruptedError(name)
            return np.ones(1000)

        def __iter__(self):
            return iter("ab")

        def __len__(self):
            return 2

    with pytest.raises(InterruptedError):
        impl.save_file(Failing(), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    blocked = tmp_path / "folder"
    (blocked / "inside").mkdir(parents=True)  # no file can take its place
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        impl.save_file({"w": np.ones(3)}, blocked)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", path.name]
    assert [each.name for each in blocked.iterdir()] == ["inside"]


# What is read.


def test_every_type_is_read_from_bytes_by_hand(impl, tmp_path):
    for code, (values, form) in VALUES.items():
        data = struct.pack(form, *values)
        path = written(tmp_path, raw({"x": entry(code, [3], 0, len(data))}, data))
        got = impl.load_file(path)
        assert list(got) == ["x"]
        assert same(got["x"], np.array(values, NUMPY[code]))


def test_rows_columns_and_offsets(impl, tmp_path):
    """Row by row; where a tensor lies is what its offsets say, not its place in the header."""
    header = {
        "z": entry("I16", [2, 3], 6, 18),
        "a": entry("U8", [2, 1, 3], 0, 6),
        "none": entry("F32", [0, 4], 18, 18),
        "nor": entry("F64", [3, 0], 6, 6),
        "one": entry("U8", [], 18, 19),
    }
    path = written(tmp_path, raw(header, bytes(range(6)) + struct.pack("<6h", *range(-3, 3)) + b"\x09"))
    got = impl.load_file(path)
    assert got.keys() == header.keys()
    assert got["z"].tolist() == [[-3, -2, -1], [0, 1, 2]]
    assert got["a"].tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert (got["none"].shape, got["nor"].shape) == ((0, 4), (3, 0))
    assert (got["one"].shape, int(got["one"])) == ((), 9)


def test_tensors_of_nothing_lie_between_others(impl, tmp_path):
    """Wherever the header names them: at the beginning, where two tensors meet, and at the end."""
    empty = [("a", 0), ("k", 0), ("b", 4), ("z", 4), ("c", 8), ("y", 8)]
    header = {"v": entry("U8", [4], 0, 4), "w": entry("U8", [4], 4, 8)}
    nothing = {name: entry("F64", [0], at, at) for name, at in empty}
    for several in (
        {**header, **nothing},
        {**nothing, **header},
        dict(sorted({**header, **nothing}.items())),
    ):
        for given in (several, dict(reversed(several.items()))):
            got = impl.load_file(written(tmp_path, raw(given, bytes(range(8)))))
            assert got.keys() == given.keys()
            assert (got["v"].tolist(), got["w"].tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7])
            assert all(got[name].shape == (0,) and got[name].dtype == np.float64 for name in nothing)
            assert not any(each.flags.writeable for each in got.values())


def test_shapes_of_nothing_may_be_as_large_as_an_array_allows(impl, tmp_path):
    for code, shape in (("U8", [0, 2**63 - 1]), ("U8", [0, 2**31, 2**32 - 1]), ("F64", [0, 2**60 - 1])):
        path = written(tmp_path, raw({"w": entry(code, shape, 0, 0)}))
        assert list(impl.load_file(path)["w"].shape) == shape
        path = written(tmp_path, raw({"w": entry(code, [*shape[:-1], shape[-1] + 1], 0, 0)}))
        for read in (impl.load_file, impl.read_metadata):
            refusal(read, path, f"the shape {[*shape[:-1], shape[-1] + 1]} of {code}")


def test_json_of_any_kind_is_understood(impl, tmp_path):
    data = struct.pack("<2f", 1, 2)
    plain = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    texts = [
        "{" + plain + "}",
        "{" + plain + "}     ",
        '{ "w" : {\n"shape": [ 2 ],\t"data_offsets" :[0 , 8],"dtype":"F32"}}',
        "{" + plain + ',"__metadata__":{"k":"v"}}',
        '{"__metadata__":{},' + plain + "}",
        "{" + plain.replace('"w"', '"\\u0077"') + "}",
    ]
    for text in texts:
        path = written(tmp_path, raw(text, data))
        got = impl.load_file(path)
        assert list(got) == ["w"]
        assert got["w"].tolist() == [1, 2]
        assert impl.read_metadata(path) == ({"k": "v"} if "k" in text else {})


def test_saved_and_loaded_tensors_are_equal_to_the_bit(impl, tmp_path, rng):
    shapes = [(), (1,), (0,), (3,), (2, 3), (3, 0, 2), (1, 1, 1), (130, 7), (2, 3, 4, 5, 2), (1,) * 64]
    tensors = {}
    for code in ORDER:
        for shape in shapes:
            size = int(np.prod(shape)) * np.dtype(NUMPY[code]).itemsize
            bits = rng.integers(0, 2 if code == "BOOL" else 256, size=size, dtype=np.uint8)
            tensors[f"{code} {shape}"] = np.frombuffer(bits.tobytes(), NUMPY[code]).reshape(shape)
    tensors["__metadata"] = tensors["😀"] = np.array([np.nan, -np.inf, -0.0, 5e-324])
    for path in (tmp_path / "m.safetensors", str(tmp_path / "n"), tmp_path / "Größe 😀"):
        impl.save_file(tensors, path, {"k": "v"})
        got = impl.load_file(path)
        assert got.keys() == tensors.keys()
        assert all(same(got[name], tensors[name]) for name in tensors)
        assert impl.read_metadata(path) == {"k": "v"}


def test_metadata_is_read_without_tensors(impl, tmp_path):
    metadata = {"format": "pt", "": "", "ü": "\n", "__metadata__": "x", "w": "a tensor's name"}
    path = tmp_path / "model.safetensors"
    impl.save_file({"w": np.ones(3)}, path, metadata)
    assert impl.read_metadata(path) == metadata
    assert impl.read_metadata(str(path)) == metadata
    assert list(impl.load_file(path)) == ["w"]
    impl.save_file({"w": np.ones(3)}, path)
    assert impl.read_metadata(path) == {}


def test_what_is_loaded_is_read_only_and_aligned(impl, tmp_path):
    """The header's length decides where the data begin; other writers do not always fill it up."""
    for n_spaces in range(8):
        header = {
            "a": entry("U8", [1], 0, 1),
            "b": entry("F64", [2], 1, 17),
            "c": entry("BF16", [1], 17, 19),
            "d": entry("I32", [], 19, 23),
            "e": entry("F32", [0], 23, 23),
            "f": entry("F16", [1, 2], 23, 27),
        }
        data = b"\x07" + struct.pack("<2dHi2e", 1.5, -2.5, 0x3F80, -9, 0.5, 4.0)
        path = written(tmp_path, raw(json.dumps(header) + " " * n_spaces, data), f"{n_spaces}")
        got = impl.load_file(path)
        assert [got[name].tolist() for name in "abcdef"] == [[7], [1.5, -2.5], [1.0], -9, [], [[0.5, 4.0]]]
        for each in got.values():
            assert each.flags.aligned
            assert each.ctypes.data % each.dtype.itemsize == 0 or not each.size
            assert not each.flags.writeable
            with pytest.raises(ValueError):  # noqa: PT011 - NumPy's
                each[...] = 0


def test_bf16_is_the_upper_half_of_a_float32(impl, tmp_path):
    halves = np.arange(65536, dtype="<u2")
    path = written(tmp_path, raw({"x": entry("BF16", [256, 256], 0, 131072)}, halves.tobytes()))
    got = impl.load_file(path)["x"]
    assert (got.dtype, got.shape) == (np.float32, (256, 256))
    assert np.array_equal(np.frombuffer(got.tobytes(), "<u4"), halves.astype("<u4") * 65536)
    by_hand = {0x3F80: 1.0, 0xC000: -2.0, 0x4049: 3.140625, 0x0001: 2.0**-133, 0x7F80: np.inf, 0x8000: -0.0}
    flat = got.reshape(-1)
    assert all(float(flat[half]) == value for half, value in by_hand.items())
    path = written(tmp_path, raw({"x": entry("BF16", [], 0, 2)}, b"\x80\xbf"))
    assert (impl.load_file(path)["x"].shape, float(impl.load_file(path)["x"])) == ((), -1.0)
    sizes = aim.sizes(0, 1, 2, 7, at_most=70_000)
    for shape in [*[(n,) for n in sizes], (0, 3), (3, 0), (2, 1, 3)]:
        drawn = np.resize(halves[1::9], shape)
        for n_bytes in (0, 1):  # aligned and not
            header = {"a": entry("U8", [n_bytes], 0, n_bytes)}
            header["x"] = entry("BF16", list(shape), n_bytes, n_bytes + drawn.nbytes)
            text = json.dumps(header)
            content = raw(text + " " * (-len(text) % 8), b"\7" * n_bytes + drawn.astype("<u2").tobytes())
            got = impl.load_file(written(tmp_path, content))["x"]
            assert (got.shape, got.dtype, got.flags.writeable) == (shape, np.float32, False)
            assert np.array_equal(got.reshape(-1).view(np.uint32), drawn.reshape(-1).astype("<u4") << 16), (
                shape
            )


def test_a_file_is_mapped_not_read(impl, tmp_path):
    """What nobody looks at costs next to nothing, of any type; the file has a hole where it would be."""
    sizes = dict.fromkeys(ORDER, 4 << 20) | {"F32": 64 << 20}
    header, end = {}, 0
    for code, size in sizes.items():
        header[code] = entry(code, [size // np.dtype(NUMPY[code]).itemsize], end, end + size)
        end += size
    header["last"] = entry("U8", [1], end, end + 1)
    text = json.dumps(header)
    path = written(tmp_path, raw(text + " " * (-len(text) % 8)))  # aligned, or it would be copied
    start = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start + end)
        file.write(b"\x05")
    kept = []
    assert battery.peak_bytes(lambda: kept.append(impl.load_file(path))) < 1 << 20
    assert kept[0]["last"][0] == 5
    assert all(kept[0][code][-1] == 0 for code in ORDER)
    assert battery.peak_bytes(lambda: impl.read_metadata(path)) < 1 << 20


@pytest.mark.parametrize(("code", "step"), [("U8", 1), ("BOOL", 1), ("I8", 1), ("F16", 2), ("F32", 4)])
def test_what_is_aligned_for_its_type_is_mapped(impl, tmp_path, code, step):
    """Data need not begin at a multiple of 8: only a tensor that lies badly for its own type is copied."""
    size = 8 << 20
    text = json.dumps({"w": entry(code, [size // step], 0, size)})
    text += " " * (-(8 + len(text)) % 8 + step)  # at 8 k + step in the file
    path = written(tmp_path, raw(text))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    kept = []
    assert battery.peak_bytes(lambda: kept.append(impl.load_file(path))) < 1 << 20
    assert kept[0]["w"].nbytes == size


def test_arrays_stay_good_without_the_file(impl, tmp_path):
    path = tmp_path / "model.safetensors"
    impl.save_file({"w": np.arange(5000.0)}, path)
    got = impl.load_file(path)
    if os.name != "nt":  # which does not delete what is mapped
        path.unlink()
    assert np.array_equal(got["w"], np.arange(5000.0))


def test_a_model_goes_to_a_file_and_back(impl, tmp_path, rng):
    def network(fill):
        m = Module()
        m.layers = [Parameter(fill((3, 2)).astype(np.float32)), Parameter(fill(()))]
        m.tied = m.layers[0]
        return m

    source, target = network(lambda shape: rng.normal(size=shape) * np.ones(shape)), network(np.zeros)
    impl.save_file(source.state_dict(), tmp_path / "m")
    target.load_state_dict(impl.load_file(tmp_path / "m"))
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert same(a.data, b.data)
    target.layers[0].data += 1  # of its own, not the file's
    assert same(impl.load_file(tmp_path / "m")["layers.0"], source.layers[0].data)


def test_a_long_header_is_refused_before_it_is_read(impl, tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001) + b"{}" + b" " * 1000)
        file.truncate(8 + 100_000_001)
    for read in (impl.load_file, impl.read_metadata):
        peak = battery.peak_bytes(lambda read=read: refusal(read, path, "a header of 100,000,001 bytes"))
        assert peak < 1 << 20


def test_a_header_that_cannot_be_there_is_refused_before_it_is_read(impl, tmp_path):
    """Or a file of twenty bytes would take a hundred megabytes."""
    path = written(tmp_path, raw(b"{}", length=99_999_999))
    for read in (impl.load_file, impl.read_metadata):
        peak = battery.peak_bytes(lambda read=read: refusal(read, path, "ten bytes that announce 99,999,999"))
        assert peak < 1 << 20


def test_many_tensors_and_large_ones(impl, tmp_path, rng):
    for n in sorted({300, *(number + 1 for number in aim.whole(2, 3000))}):
        codes = [ORDER[i % 12] for i in range(n)]
        tensors = {f"w{i}": np.array([i % 2, 1]).astype(NUMPY[code]) for i, code in enumerate(codes)}
        require_file(impl, tmp_path, tensors, {f"k{i}": str(i) for i in range(n)}, f"{n} tensors")
    shapes = [(70_000,), (300, 200), *((n,) for n in aim.sizes(at_most=50_000))]
    shapes += [shape for n in aim.sizes(at_most=1000) for shape in ((n, 2), (2, n, 1))]
    shapes += [(1,) * n for n in aim.sizes(at_most=64)]
    tensors = {}
    for shape, code in itertools.product(shapes, ORDER):
        bits = rng.integers(0, 2, size=shape, dtype=np.uint8)
        tensors[f"{code} {shape}"] = bits.astype(NUMPY[code])
    require_file(impl, tmp_path, tensors, label="large tensors")


def test_one_fault_among_many_tensors_is_refused(impl, tmp_path):
    """The first, one in the middle, the last."""
    readers = itertools.cycle([impl.load_file, impl.read_metadata])

    def refused(header, n_data, label):
        path = written(tmp_path, raw(header, b"\0" * n_data))
        refusal(next(readers), path, label)
        if n == 40:
            refusal(next(readers), path, label)

    for n in sorted({40, *(number + 1 for number in aim.whole(2, 2000))}):
        good = {f"w{i}": entry("U8", [1], i, i + 1) for i in range(n)}
        assert len(impl.load_file(written(tmp_path, raw(good, b"\0" * n)))) == n
        for place in (0, n // 2, n - 1) if n == 40 else (n - 1,):
            for label, fault in FAULTS.items():
                begin = place + 1
                bad, length = fault, 1
                if fault and "data_offsets" in fault:
                    bad = {**fault, "data_offsets": [x + begin for x in fault["data_offsets"]]}
                    length = int(fault["data_offsets"][-1])
                after = {f"w{i}": entry("U8", [1], i + length, i + length + 1) for i in range(begin, n)}
                header = {**dict(list(good.items())[:begin]), "bad": bad, **after}
                refused(header, n + length, f"{n} tensors, and after {begin} of them one {label}")
        texts = {f"k{i}": "v" for i in range(n)}
        refused({"__metadata__": {**texts, "x": 1}, **good}, n, f"{n} texts and one that is none")
        twice = json.dumps({**good, "__metadata__": texts})[:-2] + ',"k0":"v"}}'
        refused(twice, n, f"{n} texts, the first key twice")
        refused(
            json.dumps(good)[:-1] + ',"w0":' + json.dumps(good["w0"]) + "}",
            n,
            f"the first of {n} names twice",
        )
        refused({**good, "x": entry("U8", [0], n + 1, n + 1)}, n, f"{n} tensors and one beyond the end")


@pytest.fixture(scope="module")
def largest(tmp_path_factory):
    """A file whose header has the most bytes that it may have, most of them blanks."""
    path = tmp_path_factory.mktemp("largest") / "model.safetensors"
    path.write_bytes(raw(b"{" + b" " * (100_000_000 - 19) + b'"__metadata__":{}}'))
    return path


def test_a_header_of_the_largest_length_is_read(impl, tmp_path, largest):
    path = written(tmp_path, raw({"__metadata__": {"k": "x" * 1_000_000}}))
    assert len(impl.read_metadata(path)["k"]) == 1_000_000
    for n in sorted({number + 1 for number in aim.whole(100, 20_000_000)}):
        path = written(tmp_path, raw(('{"__metadata__":{"k":"v"},' + ONE + "}").ljust(n), EIGHT))
        assert (n, impl.read_metadata(path), list(impl.load_file(path))) == (n, {"k": "v"}, ["w"])
    assert largest.stat().st_size == 100_000_008
    assert impl.read_metadata(largest) == {}
