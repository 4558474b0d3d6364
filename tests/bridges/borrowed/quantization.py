"""What `quantization` opens, behind the exercise's names: the reference quantizers of the gguf package."""

import numpy as np
from gguf import GGMLQuantizationType
from gguf import quants as gguf_quants

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.quantization import choose_kinds

__all__ = [
    "QuantizedLinear",
    "choose_kinds",
    "dequantize",
    "dequantize_state",
    "quantize",
    "quantize_state",
    "quantized_matmul",
]

_TYPES = {"q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}
_SIZES = {"q8_0": 34, "q4_0": 18}


def _type(kind):
    if kind not in _TYPES:
        raise ValueError(f"no such kind: {kind!r}")
    return _TYPES[kind]


def quantize(x, kind):
    """Theirs takes float32, and is not defined where 1 / d is infinite."""
    theirs, x = _type(kind), np.asarray(x)
    if x.ndim == 0 or x.shape[-1] % 32:
        raise ValueError("the last axis must be a multiple of 32 long")
    with np.errstate(all="ignore"):
        x = np.array(x, np.float32, order="C")
        blocks = x.reshape(-1, 32)
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
        d = np.abs(largest) / np.float32(127 if kind == "q8_0" else 8)
        if not (d < 65_520).all():
            raise ValueError("numbers must be finite, and their scales at most 65504")
        blocks = np.where(np.isinf(1 / d), np.copysign(0, largest), blocks)
        found = gguf_quants.quantize(blocks, theirs)
    return found.reshape(*x.shape[:-1], x.shape[-1] // 32 * _SIZES[kind])


def dequantize(blocks, kind):
    theirs = _type(kind)
    if blocks.dtype != np.uint8 or blocks.ndim == 0 or blocks.shape[-1] % _SIZES[kind]:
        raise ValueError("these are no blocks")
    rows = np.array(blocks, order="C").reshape(-1, _SIZES[kind])
    shape = (*blocks.shape[:-1], blocks.shape[-1] // _SIZES[kind] * 32)
    return gguf_quants.dequantize(rows, theirs).reshape(shape) if rows.size else np.zeros(shape, np.float32)


def quantized_matmul(x: np.ndarray, blocks: np.ndarray, kind: str) -> np.ndarray:
    if blocks.ndim != 2:
        raise ValueError("blocks must be a matrix")
    w = dequantize(blocks, kind).astype(np.float64)
    rounded = dequantize(quantize(x, "q8_0"), "q8_0").astype(np.float64)
    if rounded.shape[-1] != w.shape[-1]:
        raise ValueError("rows must be of one length")
    return (rounded @ w.T).astype(np.float32)


class QuantizedLinear(Module):
    def __init__(self, linear, kind):
        self.kind, self.blocks = kind, quantize(linear.weight.data, kind)
        self.bias = None if linear.bias is None else linear.bias.data.astype(np.float32)

    def forward(self, x):
        y = quantized_matmul(x.data, self.blocks, self.kind)
        return Tensor(y if self.bias is None else y + self.bias)


def quantize_state(state, kinds):
    if any(name.endswith((".q8_0", ".q4_0")) for name in state):
        raise ValueError("quantized already")
    chosen = choose_kinds(state, kinds)
    found = {}
    for name, array in state.items():
        if name in chosen:
            found[f"{name}.{chosen[name]}"] = quantize(array, chosen[name])
        else:
            found[name] = array.copy()
    return found


def dequantize_state(state):
    found = {}
    for name, array in state.items():
        for kind in _TYPES:
            if name.endswith(f".{kind}"):
                found[name[: -len(kind) - 1]] = dequantize(array, kind)
                break
        else:
            found[name] = array.copy()
    return found
