"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import struct

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.linear import Linear

_AXIS = "if x.ndim == 0 or x.shape[-1] % _N:"
_CUT = "blocks = x.astype(np.float32).reshape(*x.shape[:-1], x.shape[-1] // _N, _N)"
_LARGEST = "m = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)"
_SCALE = 'd = np.abs(m) / 127 if kind == "q8_0" else m / -8'
_INVERSE = 'inverse, stored = 1 / d, d.astype("<f2")'
_STEPS = "s = np.where(np.isfinite(inverse), blocks * inverse, 0)"
_FINITE = "if not (np.isfinite(m).all() and np.isfinite(stored).all()):"
_WHOLE = "whole = np.trunc(s)"
_Q8 = "q = (whole + np.trunc(2 * (s - whole))).astype(np.int8).view(np.uint8)"
_Q4 = "q = np.minimum(np.floor(s + 8.5), 15).astype(np.uint8)"
_PACK = "q = q[..., : _N // 2] | q[..., _N // 2 :] << 4"
_WORTH = "return (d[..., None] * q.astype(np.float32)).reshape(*blocks.shape[:-1], d.shape[-1] * _N)"
_GIVEN = "if blocks.dtype != np.uint8 or blocks.ndim == 0 or blocks.shape[-1] % n_bytes:"
_BYTE = "return d, q.view(np.int8).astype(np.int32)"
_HALVES = "return d, np.concatenate([q & 15, q >> 4], axis=-1).astype(np.int32) - 8"
_READ = 'd = np.ascontiguousarray(each[..., :2]).view("<f2").reshape(each.shape[:-1]).astype(np.float32)'
_ROUND_X = 'd_x, q_x = _unpacked(quantize(x, "q8_0"), "q8_0")'
_FIT = "if d_w.ndim != 2 or d_w.shape[1] != d_x.shape[-1]:"
_DOTS = 'dots = np.einsum("...bi,obi->...ob", q_x, q_w)'
_SUM = 'return np.einsum("...b,ob,...ob->...o", d_x, d_w, dots.astype(np.float32))'
_KIND = "self.kind = kind"
_BLOCKS = "self.blocks = quantize(linear.weight.data, kind)"
_BIAS = "self.bias = None if linear.bias is None else linear.bias.data.astype(np.float32)"
_PRODUCT = "y = quantized_matmul(x.data, self.blocks, self.kind)"
_ANSWER = "return Tensor(y if self.bias is None else y + self.bias)"
_KEEP = 'if kind != "keep":'
_SPEAK = '[key for key in kinds if f"{name}.".startswith(f"{key}." if key else "")]'
_UNUSED = 'unused = kinds.keys() - {"", *(key for keys in speaking.values() for key in keys)}'
_LONGEST = "chosen = {name: kinds[max(keys, key=len)] for name, keys in speaking.items() if keys}"
_CHOSEN = 'return {name: kind for name, kind in chosen.items() if kind != "keep" and _is_matrix(state[name])}'
_MATRIX = 'return array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] % _N == 0'
_DONE = "if done := [name for name in state if _kind_in(name)]:"
_NAME = 'f"{name}.{chosen[name]}" if name in chosen else name: ('
_COPY = "quantize(array, chosen[name]) if name in chosen else np.array(array)"
_BACK = 'name.removesuffix(f".{kind}"): dequantize(array, kind) if kind else np.array(array)'
_ENDS = 'return next((kind for kind in _BLOCK_BYTES if name.endswith(f".{kind}")), "")'
_CHECK = "if kind not in _BLOCK_BYTES:"


class _StillTrained(Module):
    """Keeps the layer, and quantizes its weight in each call."""

    def __init__(self, linear: Linear, kind: str):
        self.kind, self.linear = kind, linear
        self.blocks = _by_struct(linear.weight.data, kind)
        self.bias = None if linear.bias is None else linear.bias.data.astype(np.float32)

    def forward(self, x):
        blocks = _by_struct(self.linear.weight.data, self.kind)
        y = _by_floats(x.data, blocks, self.kind)
        return Tensor(y if self.bias is None else y + self.bias)


MISTAKES = {
    "quantize: numbers are counted in steps of the scale after its rounding to float16": [
        (_INVERSE, 'stored = d.astype("<f2")\n        inverse = 1 / stored.astype(np.float32)')
    ],
    "quantize: x is divided by d": [
        (_STEPS, "s = np.where(np.isfinite(inverse), blocks / d, 0)"),
    ],
    "quantize: all is computed in float64": [
        (_CUT, _CUT.replace("np.float32", "np.float64")),
    ],
    "quantize: q8_0 rounds halves to even": [(_Q8, "q = np.rint(s).astype(np.int8).view(np.uint8)")],
    "quantize: q8_0 rounds halves up": [
        (_Q8, "q = np.floor(s.astype(np.float64) + 0.5).astype(np.int8).view(np.uint8)")
    ],
    "quantize: q8_0 adds a half in float32, which rounds what is just below it": [
        (_Q8, "q = (np.sign(s) * np.floor(np.abs(s) + np.float32(0.5))).astype(np.int8).view(np.uint8)")
    ],
    "quantize: q8_0 cuts off what is behind the point": [(_Q8, "q = whole.astype(np.int8).view(np.uint8)")],
    "quantize: q8_0 divides by 128": [(_SCALE, _SCALE.replace("127", "128"))],
    "quantize: q8_0 keeps the sign in its scale": [(_SCALE, _SCALE.replace("np.abs(m) / 127", "m / 127"))],
    "quantize: q4_0 has a positive scale always": [(_SCALE, _SCALE.replace("m / -8", "np.abs(m) / 8"))],
    "quantize: q4_0 gives the largest the number 8, which is cut to 7": [
        (_SCALE, _SCALE.replace("m / -8", "m / 8"))
    ],
    "quantize: q4_0 has as many steps above 0 as below": [
        (_SCALE, _SCALE.replace("m / -8", "np.abs(m) / 7"))
    ],
    "quantize: q4_0 is not limited to 15": [(_Q4, "q = np.floor(s + 8.5).astype(np.uint8)")],
    "quantize: q4_0 rounds halves to even": [(_Q4, "q = np.clip(np.rint(s) + 8, 0, 15).astype(np.uint8)")],
    "quantize: q4_0 adds 8.5 in float64": [
        (_Q4, "q = np.minimum(np.floor(s.astype(np.float64) + 8.5), 15).astype(np.uint8)")
    ],
    "quantize: q4_0 adds 8, and cuts off": [(_Q4, _Q4.replace("8.5", "8"))],
    "quantize: two neighbours share a byte": [(_PACK, "q = q[..., ::2] | q[..., 1::2] << 4")],
    "quantize: the first half lies in the high bits": [
        (_PACK, "q = q[..., : _N // 2] << 4 | q[..., _N // 2 :]")
    ],
    "quantize: of several largest entries the last one counts": [
        (
            _LARGEST,
            "last = _N - 1 - np.abs(blocks[..., ::-1]).argmax(axis=-1, keepdims=True)\n"
            "        m = np.take_along_axis(blocks, last, axis=-1)",
        )
    ],
    "quantize: the largest value counts, not the largest magnitude": [
        (_LARGEST, "m = blocks.max(axis=-1, keepdims=True)")
    ],
    "quantize: a scale for the whole row": [
        (
            _LARGEST,
            f"{_LARGEST}\n        {_LARGEST.replace('blocks', 'm').replace('axis=-1', 'axis=-2')} + 0 * m",
        )
    ],
    "quantize: a block of zeros is not a number": [(_STEPS, "s = blocks * inverse")],
    "quantize: what is not a number becomes 0": [
        (_CUT, f"{_CUT}\n        blocks = np.nan_to_num(blocks, nan=0, posinf=np.inf, neginf=-np.inf)")
    ],
    "quantize: scales that are too large become 65504": [
        (
            _INVERSE,
            'inverse, stored = 1 / d, np.where(np.isfinite(d), d.clip(-65504, 65504), d).astype("<f2")',
        )
    ],
    "quantize: scales that are too large become infinite": [(_FINITE, "if not np.isfinite(m).all():")],
    "quantize: a scale below float16 makes all numbers 0": [
        (_STEPS, "s = np.where(stored != 0, blocks * inverse, 0)")
    ],
    "quantize: scales have the high byte first": [
        (_INVERSE, 'inverse, stored = 1 / d, d.astype(">f2")'),
    ],
    "quantize: a row is filled up with zeros": [
        (
            _AXIS,
            "if x.ndim and x.shape[-1] % _N:\n"
            "        x = np.concatenate([x, np.zeros((*x.shape[:-1], -x.shape[-1] % _N))], axis=-1)\n"
            f"    {_AXIS}",
        )
    ],
    "quantize: the size must be a multiple of 32, rows may end inside of a block": [
        (_AXIS, "if x.ndim == 0 or x.size % _N:"),
        (_CUT, "blocks = x.astype(np.float32).reshape(-1, _N)"),
        (
            "return joined.reshape(*x.shape[:-1], x.shape[-1] // _N * _BLOCK_BYTES[kind])",
            "return joined.reshape(*x.shape[:-1], -1) if x.size else joined.reshape(*x.shape[:-1], 0)",
        ),
    ],
    "dequantize: q8_0 has bytes without a sign": [(_BYTE, "return d, q.astype(np.int32)")],
    "dequantize: q4_0 counts from 0": [(_HALVES, _HALVES.removesuffix(" - 8"))],
    "dequantize: q4_0 reads the high bits first": [
        (_HALVES, _HALVES.replace("[q & 15, q >> 4]", "[q >> 4, q & 15]"))
    ],
    "dequantize: two neighbours share a byte": [
        (
            _HALVES,
            "return d, np.stack([q & 15, q >> 4], axis=-1).reshape(*q.shape[:-1], _N).astype(np.int32) - 8",
        )
    ],
    "dequantize: products are rounded to float16": [
        (
            _WORTH,
            _WORTH.replace("(d[..., None]", "(d[..., None].astype(np.float16)").replace(
                "np.float32", "np.float16"
            ),
        )
    ],
    "dequantize: every scale is read as positive": [(_READ, f"{_READ}\n    d = np.abs(d)")],
    "dequantize: signed bytes are taken, too": [
        (_GIVEN, "if blocks.dtype.itemsize != 1 or blocks.ndim == 0 or blocks.shape[-1] % n_bytes:"),
        ("each = np.ascontiguousarray(blocks)", "each = np.ascontiguousarray(blocks).view(np.uint8)"),
    ],
    "quantized_matmul: x is not rounded": [
        (
            _ROUND_X,
            'x = np.asarray(x, np.float32)\n    quantize(x, "q8_0")\n    d_x = np.ones((*x.shape[:-1], x.shape[-1] // _N), np.float32)\n'
            "    q_x = x.reshape(*d_x.shape, _N)",
        ),
    ],
    "quantized_matmul: x is rounded to the kind of the weights": [
        (_ROUND_X, "d_x, q_x = _unpacked(quantize(x, kind), kind)")
    ],
    "quantized_matmul: sums have 16 bits": [
        (_DOTS, _DOTS.replace("q_x, q_w", "q_x.astype(np.int16), q_w.astype(np.int16)"))
    ],
    "quantized_matmul: floats are added up, with rounding": [
        (
            _SUM,
            "return ((d_x[..., None] * q_x).astype(np.float32).reshape(*d_x.shape[:-1], d_x.shape[-1] * _N)\n"
            "            @ (d_w[..., None] * q_w).astype(np.float32).reshape(len(d_w), d_w.shape[-1] * _N).T)",
        ),
    ],
    "quantized_matmul: the scales of x are forgotten": [
        (_SUM, 'return np.einsum("ob,...ob->...o", d_w, dots.astype(np.float32))')
    ],
    "quantized_matmul: the first scale of a row of x serves for all its blocks": [
        (_SUM, _SUM.replace("d_x,", "d_x[..., :1] + 0 * d_x,"))
    ],
    "quantized_matmul: a single row of weights is taken": [
        (_FIT, f"if d_w.ndim == 1:\n        d_w, q_w = d_w[None], q_w[None]\n    {_FIT}")
    ],
    "quantized_matmul: weights of one block serve for rows of any length": [
        (_FIT, "if d_w.ndim != 2 or d_w.shape[1] not in (1, d_x.shape[-1]):")
    ],
    "QuantizedLinear: the bias is forgotten": [(_ANSWER, "return Tensor(y)")],
    "QuantizedLinear: the bias is that of the layer": [(_BIAS, _BIAS.replace(".astype(np.float32)", ""))],
    "QuantizedLinear: the bias is trained": [(_BIAS, "self.bias = linear.bias")],
    "QuantizedLinear: the weight of the layer is read in each call": {"QuantizedLinear": _StillTrained},
    "QuantizedLinear: the kind is always q8_0": [
        (_KIND, 'self.kind = "q8_0"'),
        (_BLOCKS, _BLOCKS.replace("kind", "self.kind")),
    ],
    "QuantizedLinear: blocks are read when it is made": [
        (_BLOCKS, f"{_BLOCKS}\n        self.kept = self.blocks.copy()"),
        (_PRODUCT, _PRODUCT.replace("self.blocks", "self.kept")),
    ],
    "QuantizedLinear: the answer has the dtype of x": [
        (_ANSWER, "return Tensor((y if self.bias is None else y + self.bias).astype(x.dtype))")
    ],
    "QuantizedLinear: the answer wants a gradient, and passes none on": [
        (_ANSWER, "return Tensor(y if self.bias is None else y + self.bias, requires_grad=x.requires_grad)")
    ],
    "choose_kinds: a key speaks for all names that begin with it": [
        (_SPEAK, "[key for key in kinds if name.startswith(key)]")
    ],
    "choose_kinds: the shortest key decides": [(_LONGEST, _LONGEST.replace("max", "min"))],
    "choose_kinds: the first key decides": [(_LONGEST, _LONGEST.replace("max(keys, key=len)", "keys[0]"))],
    "choose_kinds: the last key decides": [(_LONGEST, _LONGEST.replace("max(keys, key=len)", "keys[-1]"))],
    "choose_kinds: vectors are chosen, too": [
        (_MATRIX, _MATRIX.replace("array.ndim == 2", "array.ndim > 0").replace("[1]", "[-1]"))
    ],
    "choose_kinds: stacks of matrices are chosen, too": [
        (_MATRIX, _MATRIX.replace("array.ndim == 2", "array.ndim >= 2").replace("[1]", "[-1]"))
    ],
    "choose_kinds: whole numbers are chosen, too": [
        (_MATRIX, _MATRIX.replace('array.dtype.kind == "f" and ', ""))
    ],
    "choose_kinds: rows of any length are chosen": [
        (_MATRIX, _MATRIX.removesuffix(" and array.shape[1] % _N == 0"))
    ],
    "choose_kinds: it is the number of rows that must fit": [
        (_MATRIX, _MATRIX.replace("shape[1]", "shape[0]"))
    ],
    "choose_kinds: a key that speaks for nothing is ignored": [(_UNUSED, "unused: set[str] = set()")],
    "choose_kinds: the empty key must speak for something": [(_UNUSED, _UNUSED.replace('"", ', ""))],
    "choose_kinds: a kind that there is not is ignored": [(_KEEP, "if not kind:")],
    'choose_kinds: what is kept is listed as "keep"': [(_CHOSEN, _CHOSEN.replace('kind != "keep" and ', ""))],
    "quantize_state: what is kept is not copied": [(_COPY, _COPY.replace("np.array(array)", "array"))],
    "quantize_state: what is kept becomes float32": [
        (_COPY, _COPY.replace("np.array(array)", "np.array(array, np.float32)"))
    ],
    "quantize_state: the kind is not told": [(_NAME, "name: (")],
    "quantize_state: what is quantized already is taken": [(_DONE, "if done := []:")],
    "dequantize_state: what is kept is not copied": [(_BACK, _BACK.replace("np.array(array)", "array"))],
    "dequantize_state: the kind is cut off wherever it stands": [
        (_BACK, _BACK.replace('removesuffix(f".{kind}")', 'replace(f".{kind}", "")'))
    ],
    "dequantize_state: any name that ends in a kind counts, without a dot, too": [
        (_ENDS, 'return next((kind for kind in _BLOCK_BYTES if name.endswith(kind)), "")')
    ],
    "the kind is read without regard to case": [
        (_CHECK, "if not isinstance(kind, str) or kind.lower() not in _BLOCK_BYTES:"),
        ("n_bytes = _BLOCK_BYTES[kind]", "n_bytes, kind = _BLOCK_BYTES[kind.lower()], kind.lower()"),
        ("x = np.asarray(x)\n", "x, kind = np.asarray(x), kind.lower()\n"),
    ],
}


def _check(kind):
    if kind not in ("q8_0", "q4_0"):
        raise ValueError(f"no such kind: {kind!r}")


def _by_struct(x, kind):
    """One block after the other."""
    _check(kind)
    x = np.asarray(x)
    if x.ndim == 0 or x.shape[-1] % 32:
        raise ValueError("rows must be blocks of 32")
    found = []
    with np.errstate(all="ignore"):
        for block in x.astype(np.float32).reshape(-1, 32):
            m = block[np.argmax(np.abs(block))]
            d = np.abs(m) / np.float32(127) if kind == "q8_0" else m / np.float32(-8)
            if not abs(d) < 65_520:
                raise ValueError("too large, or no number")
            inverse = np.float32(1) / d
            s = np.zeros(32, np.float32) if np.isinf(inverse) else block * inverse
            if kind == "q8_0":
                q = np.copysign(np.floor(abs(s).astype(float) + 0.5), s).astype(int)
                found.append(struct.pack("<e32b", float(d), *q.tolist()))
            else:
                q = (s + np.float32(8.5)).astype(int).clip(max=15)
                found.append(struct.pack("<e16B", float(d), *(q[:16] + 16 * q[16:]).tolist()))
    n = x.shape[-1] // 32 * (34 if kind == "q8_0" else 18)
    return np.array(list(b"".join(found)), np.uint8).reshape(*x.shape[:-1], n)


_RECORDS = {
    "q8_0": np.dtype([("d", "<f2"), ("q", "i1", 32)]),
    "q4_0": np.dtype([("d", "<f2"), ("q", "u1", 16)]),
}


def _by_records(blocks, kind):
    """NumPy knows records of several types."""
    _check(kind)
    if blocks.dtype != np.uint8 or blocks.ndim < 1 or blocks.shape[-1] % _RECORDS[kind].itemsize:
        raise ValueError("these are no blocks")
    records = np.array(blocks, order="C").reshape(-1).view(_RECORDS[kind])
    q = records["q"].astype(np.float32)
    if kind == "q4_0":
        q = np.hstack([q % 16, q // 16]) - 8
    with np.errstate(all="ignore"):
        found = q * records["d"].astype(np.float32)[:, None]
    return found.reshape(*blocks.shape[:-1], blocks.shape[-1] // _RECORDS[kind].itemsize * 32)


def _by_floats(x, blocks, kind):
    """In float64 the products of 19 bits with 19 bits, and their sums, are exact too."""
    if blocks.ndim != 2:
        raise ValueError("blocks must be a matrix")
    x = _by_records(_by_struct(x, "q8_0"), "q8_0").astype(np.float64)
    w = _by_records(blocks, kind).astype(np.float64)
    if x.shape[-1] != w.shape[1]:
        raise ValueError("rows must be of one length")
    return (x @ w.T).astype(np.float32)


class _Unpacked(Module):
    """A layer that multiplies block by block."""

    def __init__(self, linear, kind):
        self.blocks, self.kind = _by_struct(linear.weight.data, kind), kind
        self.bias = None
        if linear.bias is not None:
            self.bias = np.array(linear.bias.data, np.float32)

    def forward(self, x):
        n_bytes = 34 if self.kind == "q8_0" else 18
        n_in = self.blocks.shape[1] // n_bytes * 32
        if x.ndim == 0 or x.shape[-1] != n_in:
            raise ValueError("x does not fit")
        y = np.zeros((*x.shape[:-1], len(self.blocks)), np.float32)
        for n in range(n_in // 32):
            part = self.blocks[:, n * n_bytes : (n + 1) * n_bytes]
            y = y + _by_floats(x.data[..., n * 32 : (n + 1) * 32], part, self.kind)
        return Tensor(y if self.bias is None else y + self.bias)


def _by_parts(state, kinds):
    """From the whole name to the empty one."""
    for kind in kinds.values():
        if kind != "keep":
            _check(kind)
    found, used = {}, {""}
    for name, array in state.items():
        parts = name.split(".")
        beginnings = [".".join(parts[:n]) for n in range(len(parts), 0, -1)] + [""]
        used |= set(beginnings)
        kind = next((kinds[each] for each in beginnings if each in kinds), "keep")
        fits = np.issubdtype(array.dtype, np.floating) and len(array.shape) == 2 and not array.shape[1] % 32
        if kind != "keep" and fits:
            found[name] = kind
    if wrong := [key for key in kinds if key not in used]:
        raise ValueError(f"nothing is called {wrong}")
    return found


def _back(state):
    """Names cut at their last dot."""
    found = {}
    for name, array in state.items():
        first, _, last = name.rpartition(".")
        is_quantized = "." in name and last in ("q8_0", "q4_0")
        found[first if is_quantized else name] = _by_records(array, last) if is_quantized else array.copy()
    return found


EQUIVALENTS = {
    "quantize block by block, with the struct module": {"quantize": _by_struct},
    "quantize in another order of operations that rounds alike": [
        (
            _Q8,
            "q = np.copysign(np.floor(np.abs(s).astype(np.float64) + 0.5), s).astype(np.int8).view(np.uint8)",
        ),
        (_Q4, "q = (s + np.float32(8.5)).astype(np.uint8).clip(max=15)"),
        (_SCALE, 'd = np.abs(m) / np.float32(127) if kind == "q8_0" else m * np.float32(-0.125)'),
    ],
    "dequantize with records": {"dequantize": _by_records},
    "quantized_matmul in float64": {"quantized_matmul": _by_floats},
    "quantized_matmul with products of matrices for each block": [
        ("import numpy as np", "import math\n\nimport numpy as np"),
        (
            _DOTS,
            "rows = q_x.reshape(math.prod(q_x.shape[:-2]), *q_x.shape[-2:]).swapaxes(0, 1).astype(np.float32)\n"
            "    dots = np.matmul(rows, q_w.transpose(1, 2, 0).astype(np.float32))\n"
            "    dots = dots.transpose(1, 2, 0).reshape(*q_x.shape[:-2], *d_w.shape)",
        ),
    ],
    "QuantizedLinear block by block": {"QuantizedLinear": _Unpacked},
    "choose_kinds from the whole name on": {"choose_kinds": _by_parts},
    "dequantize_state by the last dot": {"dequantize_state": _back},
}

_IN_A_DICT = "its arrays are in a dictionary, which this mutant does not look into"
_NO_TEXT = "no kind is such a text"
_NO_FLOATS = "it is given bytes"

HARMLESS = {
    "chosen = {name: kinds[max(keys, key=len)] for name, keys in speaking.items() if keys} => "
    "chosen = {name: kinds[max(keys)] for name, keys in speaking.items() if keys}": (
        "of beginnings of one name the longest is the last in order, too"
    ),
    "m = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1) => "
    "m = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True))": (
        "the last axis is the default of newer versions of NumPy"
    ),
    "quantize: float32 becomes float64": "its result is bytes",
    "dequantize: wrong for float32": _NO_FLOATS,
    "dequantize: wrong for values beyond 1e4": _NO_FLOATS,
    **{
        f"{name}: wrong for {what}": _NO_TEXT
        for name in ("quantize", "dequantize", "quantized_matmul")
        for what in (
            "text with a byte order mark",
            "text with NUL",
            "text with CRLF",
            "text beyond 255 characters",
            "empty text",
        )
    },
    **{
        f"{name}: {what}": _IN_A_DICT
        for name in ("choose_kinds", "quantize_state", "dequantize_state")
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
            "right at the first call only",
        )
    },
    "quantize_state: float32 becomes float64": _IN_A_DICT,
    "dequantize_state: float32 becomes float64": _IN_A_DICT,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    del rng

    def block(*first, at=0):
        x = np.zeros(32)
        x[at : at + len(first)] = first
        return x

    def bytes_of(x, kind):
        return lambda impl: impl.quantize(np.array(x), kind)

    def refused(action):
        def probe(impl):
            try:
                action(impl)
            except ValueError:
                return "ValueError"
            return "an answer"

        return probe

    wide = np.concatenate([block(1000.0, -20.0), block(0.7, -0.3)])
    # Where a division, or float64, gives the neighbour of what the product with the inverse gives.
    near = np.random.default_rng(5)
    d = np.exp(near.uniform(-2, 2, size=(400, 1)))
    halves = (d * (near.integers(-7, 7, size=(400, 32)) + 0.5)).astype(np.float32)
    halves[:, 0] = 8 * d[:, 0]
    eighths = halves.copy()
    eighths[:, 0] = 127 * d[:, 0]
    just_below = np.nextafter(np.float32(0.5), np.float32(0))

    every = np.zeros(18, np.uint8)
    every[:2], every[2:] = (102, 174), np.arange(0, 256, 16) + np.arange(16)[::-1]  # the scale is about -0.1
    signed = np.concatenate([[102, 174], np.arange(0, 256, 8)]).astype(np.uint8)

    weight, x = np.concatenate([wide, -3 * wide[::-1]]).reshape(2, 64), np.linspace(-3, 5, 64)

    def product(kind, w=weight, by=x):
        return lambda impl: impl.quantized_matmul(by, _by_struct(w, kind), kind)

    # Four pairs whose products add up to 0, at once and in whole numbers; a sum of floats leaves a rest.
    cancel_w, cancel_x = [], []
    for a, b, c, d in near.integers(-40, 40, size=(40, 4)):
        cancel_w.append(0.1 * block(-127, 0, a, -b, c, -d))
        cancel_x.append(0.013 * block(0, 127, b, a, d, c))

    def layer(impl, dtype=np.float32, kind="q4_0"):
        linear = Linear(64, 2, np.random.default_rng(0), dtype=dtype)
        linear.load_state_dict({"weight": weight, "bias": np.array([0.1, 7.0])})
        return linear, impl.QuantizedLinear(linear, kind)

    def held(dtype):
        def probe(impl):
            linear, made = layer(impl, dtype)
            linear.bias.data += 1
            return [str(made.bias.dtype), type(made.bias).__name__, made.bias, made.kind, made.blocks]

        return probe

    def answers(dtype, wants=False):
        def probe(impl):
            y = layer(impl)[1](Tensor(x.astype(dtype), requires_grad=wants))
            return [y.data, y.requires_grad]

        return probe

    def later(impl):
        linear, made = layer(impl)
        linear.weight.data += 10
        first = made(Tensor(x)).data
        made.blocks = made.blocks[::-1].copy()
        return [first, made(Tensor(x)).data]

    state = {
        "a.1.w": np.ones((2, 32), np.float32),
        "a.10.w": np.ones((2, 32)),
        "a.b": np.ones(32),
        "stack": np.ones((2, 2, 32)),
        "flat": np.ones((32, 3)),
        "ids": np.ones((2, 32), np.int64),
    }

    def chosen(**kinds):
        return lambda impl: [
            *impl.choose_kinds(state, {k.replace("_", "."): v for k, v in kinds.items()}).items()
        ]

    def chosen_by(kinds, of=state):
        return lambda impl: [list(each) for each in impl.choose_kinds(of, kinds).items()]

    def stored(impl):
        given = {name: each.copy() for name, each in state.items()}
        got = impl.quantize_state(given, {"a": "q4_0"})
        shared = [name for name in got if name in given and np.shares_memory(got[name], given[name])]
        return [list(got), [str(each.dtype) for each in got.values()], shared]

    def restored(impl):
        given = {"x.q8_0.w.q8_0": _by_struct(np.ones((1, 32)), "q8_0"), "b": np.ones(2)}
        got = impl.dequantize_state(given)
        return [list(got), bool(np.shares_memory(got["b"], given["b"]))]

    return {
        "q8_0": bytes_of(block(127.0, 2.5, -2.5, 0.6, -0.4, 63.2), "q8_0"),
        "q8_0, largest below 0": bytes_of(block(3.0, -12.7, 1.0), "q8_0"),
        "q8_0 just below a half": bytes_of(block(127.0, just_below), "q8_0"),
        "q8_0, halves": bytes_of(eighths, "q8_0"),
        "q4_0": bytes_of(block(-8.0, 2.5, -2.5, 0.6, 3.0), "q4_0"),
        "q4_0, largest above 0": bytes_of(block(1.0, 8.0, -3.0, at=14), "q4_0"),
        "q4_0, both signs": bytes_of(block(5.0, -5.0, 1.0, -1.0), "q4_0"),
        "q4_0, halves": bytes_of(halves, "q4_0"),
        "q4_0 just below a half": bytes_of(block(-8.0, just_below), "q4_0"),
        "two blocks": bytes_of(wide, "q4_0"),
        "zeros": bytes_of(np.zeros(32), "q4_0"),
        "small": bytes_of(block(-1e-7, 5e-8), "q4_0"),
        "NaN": refused(lambda impl: impl.quantize(block(np.nan, 1.0), "q8_0")),
        "too large": lambda impl: impl.quantize(block(1e6), "q4_0")[:2],
        "33 numbers": refused(lambda impl: impl.quantize(np.ones((2, 33)), "q8_0")),
        "two rows of 16": refused(lambda impl: impl.quantize(np.ones((2, 16)), "q8_0")),
        "Q8_0": refused(lambda impl: impl.quantize(np.ones(32), "Q8_0")),
        "worth of q4_0": lambda impl: impl.dequantize(every, "q4_0"),
        "worth of q8_0": lambda impl: impl.dequantize(signed, "q8_0"),
        "exactly": lambda impl: (impl.dequantize(signed, "q8_0") * 2**14).tolist(),
        "dtype of worth": lambda impl: str(impl.dequantize(signed, "q8_0").dtype),
        "signed blocks": refused(lambda impl: impl.dequantize(signed.view(np.int8), "q8_0")),
        "product": product("q8_0"),
        "product, q4_0": product("q4_0"),
        "large numbers": product("q8_0", np.full((1, 32), 12.7), np.full(32, 1.27)),
        "what cancels": lambda impl: bool(
            (product("q8_0", np.array(cancel_w), np.array(cancel_x))(impl).diagonal() == 0).all()
        ),
        "one row": refused(lambda impl: impl.quantized_matmul(x, _by_struct(weight[0], "q8_0"), "q8_0")),
        "one block of weights": refused(
            lambda impl: impl.quantized_matmul(x, _by_struct(weight[:, :32], "q8_0"), "q8_0")
        ),
        "what a layer holds": held(np.float32),
        "what a layer of float64 holds": held(np.float64),
        "answer": answers(np.float32),
        "answer to float64": answers(np.float64),
        "answer to what wants a gradient": answers(np.float32, wants=True),
        "later": later,
        "all": chosen_by({"": "q8_0"}),
        "some": chosen(a_1="q4_0"),
        "long and short": chosen_by({"a": "q4_0", "a.10": "q8_0"}),
        "short and long": chosen_by({"a.10": "q8_0", "a": "q4_0"}),
        "some are kept": chosen_by({"a": "keep", "a.10": "q8_0"}),
        "a misspelled key": refused(lambda impl: impl.choose_kinds(state, {"aa": "q4_0"})),
        "an unknown kind": refused(lambda impl: impl.choose_kinds(state, {"a": "q5_0"})),
        "nothing": refused(lambda impl: impl.choose_kinds({}, {"": "q4_0"})),
        "stored": stored,
        "stored twice": refused(lambda impl: impl.quantize_state({"w.q4_0": np.ones(2)}, {})),
        "restored": restored,
        "a name like a kind": lambda impl: impl.dequantize_state({"xq8_0": np.zeros(34, np.uint8)})["xq8_0"],
    }
