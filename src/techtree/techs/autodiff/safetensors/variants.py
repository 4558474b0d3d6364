"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import contextlib
import json
import math
import os
import struct
import tempfile
from pathlib import Path

import numpy as np

from techtree.techs import battery

_ARRAYS = "arrays = {name: np.asarray(array) for name, array in tensors.items()}"
_LENGTH = 'len(text).to_bytes(8, "little")'
_PAD = 'text += b" " * (-len(text) % 8)'
_DUMP = 'json.dumps(header, ensure_ascii=False, separators=(",", ":"))'
_ORDER = "order = sorted(arrays, key=lambda name: (rank[codes[name]], name))"
_FIRST = "header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}"
_ENTRY = 'header[name] = {"dtype": codes[name], "shape": shape, "data_offsets": [begin, end]}'
_BYTES = "arrays[name].astype(_DTYPES[codes[name]]).tobytes()"
_NAME = "if not isinstance(name, str) or name == _METADATA:"
_KIND = '        if array.dtype.newbyteorder("<") not in _CODES:\n'
_TEXTS = "if not all(isinstance(text, str) for pair in metadata.items() for text in pair):"
_MAPPED = "np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)"
_ALIGNED = "    if not numbers.flags.aligned:\n        numbers = numbers.copy()\n"
_BF16 = '(numbers.astype("<u4") << 16).view("<f4")'
_LOCK = "    numbers.flags.writeable = False\n"
_SHORT = "if n_data < 0 or length > _MAX_HEADER_BYTES:"
_BRACE = (
    '        if not text.startswith(b"{"):\n            raise ValueError("its header must begin with {")\n'
)
_PARSE = 'header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)'
_WHOLE = "type(n) is int and n >= 0"
_SPAN = "if len(ends) != 2 or ends[1] - ends[0] != item * math.prod(shape):"
_HOLE = "        if begin != end:\n"
_REST = "    if end != n_bytes:\n"
_CODE = "if not isinstance(code, str) or code not in _DTYPES:"
_KEYS = 'if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():'
_SORT = "        entries = dict(sorted(entries.items(), key=lambda item: item[1][2]))\n"

MISTAKES = {
    # Writing.
    "the header's length is written in big-endian": [(_LENGTH, 'len(text).to_bytes(8, "big")')],
    "the header's length counts the eight bytes in front of it": [
        (_LENGTH, '(len(text) + 8).to_bytes(8, "little")')
    ],
    "the header is not filled up": [(_PAD, "")],
    "the header is filled up with line ends": [(_PAD, 'text += b"\\n" * (-len(text) % 8)')],
    "the header is filled up to a multiple of 64": [(_PAD, 'text += b" " * (-len(text) % 64)')],
    "a header that is a multiple of 8 gets eight spaces more": [(_PAD, 'text += b" " * (8 - len(text) % 8)')],
    "the header has blanks behind commas and colons": [(_DUMP, "json.dumps(header, ensure_ascii=False)")],
    "letters that are not ASCII are escaped": [(_DUMP, 'json.dumps(header, separators=(",", ":"))')],
    "tensors lie in the order in which they were given": [(_ORDER, "order = list(arrays)")],
    "tensors lie in the order of their names only": [(_ORDER, "order = sorted(arrays)")],
    "tensors lie in the order of their types only": [
        (_ORDER, "order = sorted(arrays, key=lambda name: rank[codes[name]])")
    ],
    "tensors lie from the narrowest type to the widest": [
        (_ORDER, "order = sorted(arrays, key=lambda name: (-rank[codes[name]], name))")
    ],
    "tensors lie in the order of their width, and of names among types of one width": [
        (_ORDER, "order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))")
    ],
    "names are ordered without regard to case": [
        (_ORDER, "order = sorted(arrays, key=lambda name: (rank[codes[name]], name.lower(), name))")
    ],
    "metadata comes behind the tensors": [
        (_FIRST, "header: dict[str, object] = {}"),
        (
            "    text = json.dumps(",
            "    if metadata:\n"
            "        header[_METADATA] = dict(sorted(metadata.items()))\n"
            "    text = json.dumps(",
        ),
    ],
    "metadata is written in the order in which it was given": [
        (_FIRST, "header: dict[str, object] = {_METADATA: metadata} if metadata else {}")
    ],
    "empty metadata is written": [
        (_FIRST, "header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))}")
    ],
    "metadata is not written": [(_FIRST, "header: dict[str, object] = {}")],
    "the keys of an entry are sorted": [
        (_ENTRY, 'header[name] = {"data_offsets": [begin, end], "dtype": codes[name], "shape": shape}')
    ],
    "data_offsets are where a tensor begins and how long it is": [
        (_ENTRY, _ENTRY.replace("[begin, end]", "[begin, end - begin]"))
    ],
    "arrays that are not contiguous are written as they lie in memory": [
        (_BYTES, 'arrays[name].astype(_DTYPES[codes[name]]).tobytes("A")')
    ],
    "big-endian arrays are written as they are": [(_BYTES, "arrays[name].tobytes()")],
    "a number without axes gets one": [(_ARRAYS, _ARRAYS.replace("asarray", "ascontiguousarray"))],
    "booleans are written as U8": [
        (
            'codes = {name: _CODES[array.dtype.newbyteorder("<")] for name, array in arrays.items()}',
            'codes = {name: _CODES[array.dtype.newbyteorder("<")] for name, array in arrays.items()}\n'
            '    codes = {name: "U8" if code == "BOOL" else code for name, code in codes.items()}',
        )
    ],
    "float16 is written as F32": [
        (
            _ARRAYS,
            f"{_ARRAYS}\n"
            "    arrays = {n: a.astype('f4') if a.dtype == np.float16 else a for n, a in arrays.items()}",
        )
    ],
    "complex numbers lose their imaginary part": [
        (_ARRAYS, _ARRAYS.replace("np.asarray(array)", "np.real(np.asarray(array))"))
    ],
    "what the format cannot hold is a TypeError": [
        (_KIND, _KIND + '            raise TypeError(f"{array.dtype}")\n')
    ],
    "a tensor may be called __metadata__": [(_NAME, "if not isinstance(name, str):")],
    "names that are no texts become texts": [(_ARRAYS, _ARRAYS.replace("{name:", "{str(name):"))],
    "metadata that is no text becomes text": [
        (
            "    metadata = dict(metadata or {})\n",
            "    metadata = {str(key): str(value) for key, value in (metadata or {}).items()}\n",
        )
    ],
    "the old file is written over where it is": [
        (
            '    file = part.open("xb")\n',
            '    part = path\n    file = part.open("r+b" if path.exists() else "xb")\n    file.truncate(0)\n',
        ),
        ("        os.replace(part, path)\n", ""),
    ],
    "the file is emptied before anything is checked": [
        (_ARRAYS, 'Path(path).open("wb").close()\n    ' + _ARRAYS)
    ],
    "half a file is left after an error": [("        part.unlink()\n", "")],
    "the new file keeps a copy beside it": [
        (
            "        os.replace(part, path)\n",
            '        os.replace(part, path)\n        Path(f"{path}.bak").write_bytes(text)\n',
        )
    ],
    # Reading.
    "the whole file is read into memory": [(_MAPPED, "np.fromfile(file.name, np.uint8)")],
    "the arrays can be written to": [
        (_LOCK, ""),
        ("access=mmap.ACCESS_READ", "access=mmap.ACCESS_COPY"),
    ],
    "what was copied can be written to": [(_LOCK, "")],
    "BF16 is read as U16": [('    if code == "BF16":\n', "    if False:\n")],
    "BF16 is read as float16": [(_BF16, 'numbers.view("<f2").astype("<f4")')],
    "BF16 is taken for the lower half of a float32": [(_BF16, 'numbers.astype("<u4").view("<f4")')],
    "BF16 loses what is not a number": [(_BF16, f"np.nan_to_num({_BF16})")],
    "numbers are read column by column": [
        ("return numbers.reshape(shape)", 'return numbers.reshape(shape, order="F")')
    ],
    "a tensor of one number loses its axes": [
        (
            "return numbers.reshape(shape)",
            "return numbers.reshape(shape) if numbers.size != 1 else numbers.reshape(())",
        )
    ],
    "tensors that are not aligned in the file stay so": [(_ALIGNED, "")],
    "numbers are read in big-endian": [("data.view(_DTYPES[code])", "data.view(_DTYPES[code]).byteswap()")],
    "offsets count from the file's beginning": [("mapped[begin:][slice(*ends)]", "mapped[slice(*ends)]")],
    "tensors are taken in the order of the header, whatever the offsets": [
        (
            _SORT,
            "        end = 0\n"
            "        for name, (code, shape, ends) in entries.items():\n"
            "            entries[name] = code, shape, [end, end + ends[1] - ends[0]]\n"
            "            end += ends[1] - ends[0]\n",
        )
    ],
    "metadata is given as a tensor": [
        (
            "        _, entries, begin = _read_header(file)\n",
            "        metadata, entries, begin = _read_header(file)\n",
        ),
        (
            "        for name, (code, shape, ends) in entries.items()\n    }",
            "        for name, (code, shape, ends) in entries.items()\n"
            "    } | ({_METADATA: metadata} if metadata else {})",
        ),
    ],
    "without metadata None is returned": [
        ("return _read_header(file)[0]\n", "return _read_header(file)[0] or None\n")
    ],
    "metadata is read without a look at the tensors": [
        (
            "        return _read_header(file)[0]\n",
            "        try:\n"
            "            return _read_header(file)[0]\n"
            "        except ValueError:\n"
            "            file.seek(0)\n"
            '            text = file.read(min(1000, int.from_bytes(file.read(8), "little")))\n'
            "            return json.loads(text).get(_METADATA, {})\n",
        )
    ],
    # Not refusing.
    "a file shorter than eight bytes is taken for one without tensors": [
        (_SHORT, f"if size < 8:\n            return {{}}, {{}}, size\n        {_SHORT}")
    ],
    "a header of any length is read": [(_SHORT, "if n_data < 0:")],
    "a header above ten million bytes is refused": [
        ("_MAX_HEADER_BYTES = 100_000_000", "_MAX_HEADER_BYTES = 10_000_000")
    ],
    "blanks in front of the header are accepted": [(_BRACE, "")],
    "bytes that are not UTF-8 are replaced": [
        (_PARSE, _PARSE.replace('decode("utf-8")', 'decode("utf-8", "replace")'))
    ],
    "NUL behind the header is accepted": [
        (_PARSE, _PARSE.replace('text.decode("utf-8")', 'text.decode("utf-8").rstrip("\\0")'))
    ],
    "what stands behind the object is passed over": [
        (
            _PARSE,
            "decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates)\n"
            '        header, _ = decoder.raw_decode(text.decode("utf-8"))',
        )
    ],
    "a name that comes twice takes the last place": [(_PARSE, 'header = json.loads(text.decode("utf-8"))')],
    "names that come twice are refused, keys inside of entries are not": [
        (
            "    if len(set(names)) < len(names):\n",
            '    if len(set(names)) < len(names) and not {"dtype", "shape", "data_offsets"} & set(names):\n',
        )
    ],
    "a header that is nested too deep is a RecursionError": [
        ("except (ValueError, RecursionError)", "except ValueError")
    ],
    "metadata may hold what is not a text": [
        ("        if not _is_object_of_texts(metadata):", "        if not isinstance(metadata, dict):")
    ],
    "an entry without one of its keys is a KeyError": [(_KEYS, "if not isinstance(value, dict):")],
    "an unknown dtype is a KeyError": [(_CODE, "if False:")],
    "a dtype that is no text is a TypeError": [(_CODE, "if code not in _DTYPES:")],
    "a shape may be less than zero": [(_WHOLE, "type(n) is int")],
    "booleans count as integers": [(_WHOLE, "isinstance(n, int) and n >= 0")],
    "a shape may hold floats": [
        (_WHOLE, "type(n) in (int, float) and n >= 0"),
        ("return code, shape, ends", "return code, [int(n) for n in shape], [int(n) for n in ends]"),
    ],
    "a shape too large for an array is an OverflowError, or accepted": [
        ("if len(shape) > _MAX_AXES or item * math.prod(max(n, 1) for n in shape) >= 2**63:", "if False:")
    ],
    "offsets that do not span what the shape needs are accepted": [
        (_SPAN, "if len(ends) != 2 or ends[1] < ends[0]:"),
        ("return numbers.reshape(shape)", "return np.resize(numbers, shape)"),
    ],
    "offsets are not compared with the shape while the header is read": [
        (_SPAN, "if len(ends) != 2 or ends[1] < ends[0]:")
    ],
    "a third offset is passed over": [
        (_SPAN, "if ends[1:2] != [ends[0] + item * math.prod(shape)]:"),
        ("return code, shape, ends", "return code, shape, ends[:2]"),
    ],
    "tensors may overlap": [
        (_HOLE, "        if begin > end:\n"),
        ("        end = next_end\n", "        end = max(end, next_end)\n"),
    ],
    "the data may have holes": [(_HOLE, "        if begin < end:\n")],
    "overlaps and holes are noticed by the sum of the lengths only": [
        (_HOLE, "        if False:\n"),
        ("        end = next_end\n", "        end += next_end - begin\n"),
    ],
    "the file may go on behind the last tensor": [(_REST, "    if end > n_bytes:\n")],
    "the file may end before the last tensor": [(_REST, "    if end < n_bytes:\n")],
    "the header is not compared with the file's end while it is read": [(_REST, "    if False:\n")],
    "a damaged header is an OSError": [
        (
            'raise ValueError(f"{file.name} is not a safetensors file: {error}") from error',
            'raise OSError(f"{file.name} is not a safetensors file: {error}") from error',
        )
    ],
}


_NAMES = ["U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL"]


def _struct_save(tensors, path, metadata=None):
    """Text by text, through a temporary file."""
    names = _NAMES[:6] + _NAMES[7:]
    kinds = dict(
        zip(["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "b1"], names, strict=True)
    )
    found = []
    for name, array in tensors.items():
        array = np.array(array)
        kind = kinds.get(array.dtype.str[1:])
        if kind is None or type(name) is not str or name == "__metadata__":
            raise ValueError(f"{name!r} of {array.dtype} cannot be stored")
        found.append((names.index(kind), name, array))
    for pair in (metadata or {}).items():
        if [type(each) for each in pair] != [str, str]:
            raise ValueError(f"{pair!r} is not text")
    quote = json.JSONEncoder(ensure_ascii=False).encode
    parts, blobs, end = [], [], 0
    if metadata:
        inside = ",".join(f"{quote(key)}:{quote(metadata[key])}" for key in sorted(metadata))
        parts.append(f'"__metadata__":{{{inside}}}')
    for rank, name, array in sorted(found, key=lambda each: each[:2]):
        little = array.byteswap() if array.dtype.byteorder == ">" else array
        blobs.append(little.tobytes())
        begin, end = end, end + len(blobs[-1])
        shape = ",".join(map(str, array.shape))
        offsets = f'"data_offsets":[{begin},{end}]'
        parts.append(f'{quote(name)}:{{"dtype":"{names[rank]}","shape":[{shape}],{offsets}}}')
    text = ("{" + ",".join(parts) + "}").encode()
    while len(text) % 8:
        text += b" "
    descriptor, part = tempfile.mkstemp(dir=Path(path).parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for blob in blobs:
                file.write(blob)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _checked(path):
    """The header, checked by other means: whatever is wrong leaves as a ValueError."""
    try:
        return _believed(path)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: {error!r}") from None


def _believed(path):
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        assert length <= 10**8
        assert 8 + length <= size
        text = file.read(length)
    assert text[:1] == b"{"

    def pairs(found):
        made = {}
        for key, value in found:
            assert key not in made
            made[key] = value
        return made

    header = json.loads(str(text, "utf-8", "strict"), object_pairs_hook=pairs)
    metadata = header.pop("__metadata__", {})
    assert type(metadata) is dict
    assert all(type(value) is str for value in metadata.values())
    covered, tensors = [], {}
    for name, value in header.items():
        code, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        assert type(shape) is type(value["data_offsets"]) is list
        assert all(type(n) is int and 0 <= n < 2**63 for n in [*shape, begin, end])
        assert code in _NAMES
        letter, bits = ("u", 16) if code == "BF16" else ("b", 8) if code == "BOOL" else (code[0], code[1:])
        kind = np.dtype(f"<{letter.lower()}{int(bits) // 8}")
        assert kind.itemsize * math.prod(shape) == end - begin
        np.broadcast_to(np.zeros((), kind), shape)  # which NumPy refuses if no array can have this shape
        covered.append((begin, end))
        tensors[name] = code, kind, shape, 8 + length + begin
    reached = 0
    for begin, end in sorted(covered):
        assert begin == reached
        reached = end
    assert reached == size - 8 - length
    return metadata, tensors


def _memmap_load(path):
    """One mapping for each tensor."""
    _, tensors = _checked(path)
    found = {}
    for name, (code, kind, shape, offset) in tensors.items():
        x = np.zeros(shape, kind) if 0 in shape else np.memmap(path, kind, "r", offset, tuple(shape))
        if code == "BF16":
            wide = np.zeros((*shape, 2), "<u2")
            wide[..., 1] = x
            x = wide.view("<f4").reshape(shape)
        elif offset % kind.itemsize:
            x = np.array(x)
        x.setflags(write=False)
        found[name] = x
    return found


def _checked_metadata(path):
    return _checked(path)[0]


EQUIVALENTS = {
    "written text by text into a temporary file": {"save_file": _struct_save},
    "a mapping for each tensor, behind checks of another kind": {
        "load_file": _memmap_load,
        "read_metadata": _checked_metadata,
    },
    "BF16 by zeros in front of each half": [
        (_BF16, 'np.stack([0 * numbers, numbers], axis=-1).astype("<u2").reshape(-1).view("<f4")')
    ],
    "padding by rounding up, and arrays copied before they are written": [
        (_PAD, 'text = text.ljust((len(text) + 7) // 8 * 8, b" ")'),
        (_BYTES, "bytes(np.array(arrays[name], _DTYPES[codes[name]], order='C').reshape(-1).view('u1'))"),
    ],
    "holes and overlaps by comparing all beginnings with all ends": [
        (
            "    end = 0\n    for name, (_, _, (begin, next_end)) in entries.items():\n",
            "    begins, ends = zip(*[ends for _, _, ends in entries.values()]) if entries else ((), ())\n"
            "    if [0, *ends] != [*begins, n_bytes]:\n"
            '        raise ValueError("the tensors must fill the data")\n'
            "    end = n_bytes\n    for name, begin, next_end in ():\n",
        )
    ],
}


_MAKES_NOTHING = "what is changed is the result, and there is none"
_MAKES_A_DICT = "what is changed are arrays, numbers and texts, and the result is a dict"

HARMLESS = {
    "if n_data < 0 or length > _MAX_HEADER_BYTES: => if n_data < -1 or length > _MAX_HEADER_BYTES:": (
        "tensors cannot fill -1 bytes either: refused a few lines later"
    ),
    "file.flush() => pass": "seen only after a power failure",
    "os.fsync(file.fileno()) => pass": "seen only after a power failure",
    **{
        f"save_file: {what}": _MAKES_NOTHING
        for what in (
            "wrong beyond 128 on an axis",
            "wrong for an axis of length 1",
            "refuses arrays without entries",
            "wrong for more than two axes",
            "wrong for arrays that are not contiguous",
            "wrong for float32",
            "wrong for values beyond 1e4",
            "changes an argument",
            "remembers results by the shape of the arguments",
        )
    },
    "load_file: float32 becomes float64": _MAKES_A_DICT,
    "load_file: right at the first call only": _MAKES_A_DICT,
    "read_metadata: right at the first call only": _MAKES_A_DICT,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    matrix, one = rng.normal(size=(2, 3)), np.ones(1, np.uint8)

    def raw(header, data=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def entry(code, shape, begin, end, data, **more):
        return raw({"w": {"dtype": code, "shape": shape, "data_offsets": [begin, end]}, **more}, data)

    def save(*arguments, old=None):
        """What is raised, the bytes of the file, those of a link to the old one, the number of files."""

        def answer(impl):
            with tempfile.TemporaryDirectory() as folder:
                path, link = Path(folder, "model"), Path(folder, "link")
                if old is not None:
                    path.write_bytes(old)
                    os.link(path, link)
                raised = kind_of_error(lambda: impl.save_file(arguments[0], path, *arguments[1:]))
                files = [each.read_bytes() for each in (path, link) if each.exists()]
                return raised, files, len(list(Path(folder).iterdir()))

        return answer

    def kind_of_error(call):
        try:
            call()
        except Exception as error:
            return "ValueError" if isinstance(error, ValueError) else type(error).__name__
        return "nothing"

    def cannot_be_replaced(impl):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "model", "inside").mkdir(parents=True)
            raised = kind_of_error(lambda: impl.save_file({}, Path(folder, "model")))
            return raised, len(list(Path(folder).iterdir()))

    def reading(content, look):
        def answer(impl):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model")
                path.write_bytes(content)
                return look(impl, path)

        return answer

    def load(content):
        return reading(content, lambda impl, path: {n: np.array(x) for n, x in impl.load_file(path).items()})

    def metadata(content):
        return reading(content, lambda impl, path: impl.read_metadata(path))

    def refusal(content):
        """What reading tensors and what reading metadata raise."""

        def look(impl, path):
            tensors = kind_of_error(lambda: impl.load_file(path))
            return tensors, kind_of_error(lambda: impl.read_metadata(path))

        return reading(content, look)

    def flags(content):
        def look(impl, path):
            return [
                [name, x.flags.aligned, x.flags.writeable] for name, x in sorted(impl.load_file(path).items())
            ]

        return reading(content, look)

    def takes_memory(start, size):
        """Whether more than a megabyte is held for a file with a hole behind its first bytes."""

        def look(impl, path):
            os.truncate(path, size)

            def read():
                with contextlib.suppress(ValueError):
                    impl.load_file(path)

            return battery.peak_bytes(read) > 1 << 20

        return reading(start, look)

    eight = bytes(range(1, 9))
    hole = b'{"w":{"dtype":"U8","shape":[4194304],"data_offsets":[0,4194304]}}'
    twice = b'"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}'
    names = ["b", "B", "a", "\u00e9"]
    kinds = ["u8", "i8", "f8", "f4", "i4", "f2", "i2", "u1", "?"]

    def parts(*spans, n=8):
        """Tensors of bytes at these places."""
        header = {
            f"t{number}": {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
            for number, (begin, end) in enumerate(spans)
        }
        return raw(header, bytes(range(n)))

    def aligned(n_spaces):
        """A file of a float64 whose data begin so many bytes behind a multiple of eight."""
        header = json.dumps({"w": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}})
        return raw((header + " " * (-len(header) % 8 + n_spaces)).encode(), eight)

    return {
        "a file": save({"w": matrix.astype(np.float32)}, {"k": "v"}),
        "a file of nothing": save({}),
        "a file with empty metadata": save({}, {}),
        "a header of a multiple of eight": save({"x" * 4: one}),
        "a name that is not ASCII": save({"\u00e9": one}),
        "names of one type": save(dict.fromkeys(names, one)),
        "types": save({f"{4 * n % 9} {kind}": np.ones(1, kind) for n, kind in enumerate(kinds)}),
        "types of one width": save({"a": np.ones(1, "i4"), "b": np.ones(1, "f4")}),
        "metadata": save({"w": one}, {"b": "1", "a": "2"}),
        "a transposed array": save({"w": matrix.T}),
        "a big-endian array": save({"w": matrix.astype(">f4")}),
        "a number": save({"w": np.array(2.0)}),
        "booleans": save({"w": np.array([True])}),
        "float16": save({"w": np.ones(1, np.float16)}),
        "complex numbers": save({"w": np.ones(1, np.complex64)}),
        "a tensor called __metadata__": save({"__metadata__": one}),
        "a name that is a number": save({1: one}),
        "metadata that is a number": save({}, {"a": 1}),
        "a file in the place of another": save({"w": one}, old=b"old"),
        "an error in the place of another": save({"w": np.ones(1, object)}, old=b"old"),
        "a file in the place of a folder": cannot_be_replaced,
        "reading F32": load(entry("F32", [2], 0, 8, eight)),
        "reading rows": load(entry("U8", [2, 4], 0, 8, eight)),
        "reading one number": load(entry("U8", [1, 1], 0, 1, b"\x05")),
        "reading BF16": load(entry("BF16", [4], 0, 8, struct.pack("<4H", 0x3F80, 0xC049, 0x0001, 0x7FC0))),
        "reading in the order of offsets": load(parts((4, 8), (0, 4))),
        "flags": flags(aligned(0)),
        "flags of what is not aligned": flags(aligned(1)),
        "tensors beside metadata": load(entry("U8", [1], 0, 1, b"\x05", __metadata__={"a": "b"})),
        "metadata read": metadata(entry("U8", [1], 0, 1, b"\x05", __metadata__={"a": "b"})),
        "no metadata read": metadata(entry("U8", [1], 0, 1, b"\x05")),
        "memory for data": takes_memory(raw(hole.ljust(72)), 80 + 4194304),
        "memory for a header that is too long": takes_memory(raw(b"{", length=100_000_001), 100_000_009),
        "a header of ten million bytes": metadata(raw(b"{}".ljust(10_000_001))),
        "four bytes": refusal(b"\2\0\0\0"),
        "a blank in front": refusal(raw(b" {}")),
        "not UTF-8": refusal(raw(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')),
        "NUL behind the header": refusal(raw(b"{}\0")),
        "letters behind the header": refusal(raw(b"{} x")),
        "a name twice": refusal(raw(b"{" + twice + b"," + twice + b"}", eight)),
        "a dtype twice": refusal(
            raw(b"{" + twice.replace(b'"dtype"', b'"dtype":"U8","dtype"') + b"}", eight)
        ),
        "lists in lists": refusal(raw(b'{"w":' + b"[" * 100_000)),
        "a number in the metadata": refusal(raw({"__metadata__": {"a": 1}})),
        "an entry without shape": refusal(raw({"w": {"dtype": "U8", "data_offsets": [0, 0]}})),
        "an unknown dtype": refusal(entry("F8", [8], 0, 8, eight)),
        "a dtype that is a list": refusal(entry(["U8"], [8], 0, 8, eight)),
        "a shape below zero": refusal(entry("U8", [-2, -4], 0, 8, eight)),
        "a shape of booleans": refusal(entry("U8", [True, 8], 0, 8, eight)),
        "a shape of floats": refusal(entry("U8", [8.0], 0, 8, eight)),
        "a shape that no array has": refusal(entry("U8", [0, 2**63], 0, 0, b"")),
        "a shape that needs less": refusal(entry("U8", [4], 0, 8, eight)),
        "three offsets": refusal(raw({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8, 8]}}, eight)),
        "tensors that overlap": refusal(parts((0, 5), (3, 8))),
        "a hole": refusal(parts((0, 3), (5, 8))),
        "an overlap and a hole": refusal(parts((0, 4), (2, 6), (8, 10), n=10)),
        "bytes behind the data": refusal(parts((0, 4))),
        "data cut off": refusal(parts((0, 9))),
    }
