"""Weights in 8 or 4 bits: blocks of 32 numbers that share a scale.

Claim: a trained weight needs neither 32 bits nor 16. What it needs is a step that fits its neighbours: 32
weights in a row share one scale, and each of them is a small whole number times it. A large weight makes
the step coarse for 31 others, and not for the whole matrix.

Idea: of each block store the scale, in half precision, and 32 whole numbers. Products of two quantized rows
are products of whole numbers, added up without error inside of a block, and multiplied by both scales.

Legend: a *kind* is ``"q8_0"`` or ``"q4_0"``; ``m`` the entry of largest magnitude in a block, the first of
them if there are several; ``d`` the scale; ``q`` the 32 whole numbers. The bytes of a block are

- q8_0, 34 bytes: d as a little-endian float16; q, from -127 to 127, as 32 signed bytes
- q4_0, 18 bytes: d likewise; 16 bytes of two numbers from 0 to 15, of which 8 stands for 0: the number of
  entry i in the low four bits of byte i, that of entry i + 16 in the high four bits

as in the files of llama.cpp. The entry is worth ``d * q``, or ``d * (q - 8)``.

Left out: kinds with a smallest value beside the scale, scales of scales, scales found by their effect on
the model's answers.

Paper: Dettmers and Zettlemoyer (2022), https://arxiv.org/abs/2212.09720
"""

from collections.abc import Mapping

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.linear import Linear

_N = 32  # numbers in a block
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}


def quantize(x: np.ndarray, kind: str) -> np.ndarray:
    """Round numbers to blocks along the last axis.

    Parameters
    ----------
    x
        (..., n), n a multiple of 32; any real dtype and layout, turned into float32 first. Not changed.
    kind
        As in the legend.

    Returns
    -------
    np.ndarray
        (..., n / 32 * 34) or (..., n / 32 * 18), uint8, new: the blocks of each row, one after the other.

    Raises
    ------
    ValueError
        When the kind is another; when x has no axis or n is no multiple of 32; when an entry is infinite or
        NaN, or a scale too large for float16.

    Notes
    -----
    All is computed in float32, each operation rounded, so that everybody gets the same bytes:

    - ``d = abs(m) / 127`` for q8_0, ``d = m / -8`` for q4_0: a negative m has a positive scale
    - ``s = x * (1 / d)``, or 0 where 1 / d is infinite
    - ``q = s`` rounded to the nearest whole number, halves away from 0, for q8_0;
      ``q = floor(s + 8.5)``, but at most 15, for q4_0

    Only then d is rounded to float16 and stored. A scale so small that float16 makes it 0 makes the block
    worth 0, whatever its q.

    Examples
    --------
    >>> x = np.zeros(32)
    >>> x[:3] = [-8.0, 3.4, 7.9]  # the scale is 1: the numbers are -8, 3 and 8, which there is not
    >>> dequantize(quantize(x, "q4_0"), "q4_0")[:3].tolist()
    [-8.0, 3.0, 7.0]
    >>> quantize(x, "q4_0")[:4].tolist()  # 1 as float16; each low half is q, each high half 8
    [0, 60, 128, 139]
    """
    _check_kind(kind)
    x = np.asarray(x)
    if x.ndim == 0 or x.shape[-1] % _N:
        raise ValueError(f"the last axis must be a multiple of {_N} long; got the shape {x.shape}")
    with np.errstate(all="ignore"):
        blocks = x.astype(np.float32).reshape(*x.shape[:-1], x.shape[-1] // _N, _N)
        m = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
        d = np.abs(m) / 127 if kind == "q8_0" else m / -8
        inverse, stored = 1 / d, d.astype("<f2")
        s = np.where(np.isfinite(inverse), blocks * inverse, 0)
    if not (np.isfinite(m).all() and np.isfinite(stored).all()):
        raise ValueError(
            f"numbers must be finite, and their scales at most 65504; got {np.abs(m).max()} at most: "
            "a training that diverged?"
        )
    if kind == "q8_0":
        whole = np.trunc(s)
        q = (whole + np.trunc(2 * (s - whole))).astype(np.int8).view(np.uint8)
    else:
        q = np.minimum(np.floor(s + 8.5), 15).astype(np.uint8)
        q = q[..., : _N // 2] | q[..., _N // 2 :] << 4
    joined = np.concatenate([stored.view(np.uint8), q], axis=-1)
    return joined.reshape(*x.shape[:-1], x.shape[-1] // _N * _BLOCK_BYTES[kind])


def dequantize(blocks: np.ndarray, kind: str) -> np.ndarray:
    """Return the numbers that blocks are worth.

    Parameters
    ----------
    blocks
        As from `quantize`, in any layout; any bytes are allowed. Not changed.
    kind
        As in the legend.

    Returns
    -------
    np.ndarray
        (..., n), float32, new: exactly the scale times the whole number.

    Raises
    ------
    ValueError
        When the kind is another, the blocks are not uint8, or the last axis is missing or no multiple of the
        bytes of a block.
    """
    d, q = _unpacked(blocks, kind)
    return (d[..., None] * q.astype(np.float32)).reshape(*blocks.shape[:-1], d.shape[-1] * _N)


def quantized_matmul(x: np.ndarray, blocks: np.ndarray, kind: str) -> np.ndarray:
    """Multiply rows of floats with quantized rows, in whole numbers: what a processor does with such weights.

    Parameters
    ----------
    x
        (..., n), as for `quantize`. Each block of it is rounded, to q8_0, whatever the kind of the weights.
    blocks
        (n_out, bytes of a row): a matrix as from `quantize`, for rows of n numbers.
    kind
        Of the blocks.

    Returns
    -------
    np.ndarray
        (..., n_out), float32, new: for each pair of rows the sum over the blocks of
        ``d_x * d_w * sum(q_x * q_w)``, where for q4_0 q_w counts from -8 on. The inner sums are exact; what
        is rounded, in float32, are scales and sums over blocks.

    Raises
    ------
    ValueError
        As for `quantize` and `dequantize`; when blocks have other than two axes, or rows of another length.

    Examples
    --------
    >>> w, x = np.zeros((1, 32)), np.zeros(32)
    >>> w[0, :2], x[:2] = [-8.0, 3.0], [127.0, -5.0]
    >>> quantized_matmul(x, quantize(w, "q4_0"), "q4_0").tolist()  # -8 * 127 - 3 * 5
    [-1031.0]
    """
    d_w, q_w = _unpacked(blocks, kind)
    d_x, q_x = _unpacked(quantize(x, "q8_0"), "q8_0")
    if d_w.ndim != 2 or d_w.shape[1] != d_x.shape[-1]:
        raise ValueError(
            f"blocks must be a matrix with rows of {d_x.shape[-1] * _N} numbers; got the shape "
            f"{blocks.shape} and the kind {kind}"
        )
    dots = np.einsum("...bi,obi->...ob", q_x, q_w)  # int32 holds 32 * 128 * 127
    return np.einsum("...b,ob,...ob->...o", d_x, d_w, dots.astype(np.float32))


class QuantizedLinear(Module):
    """A linear layer that computes on blocks; for use, not for training.

    It has no parameters, and keeps nothing of the layer that it is made from: what happens to that one
    later does not matter.

    Parameters
    ----------
    linear
        A layer whose inputs are a multiple of 32; not changed. ``ValueError`` as for `quantize`.
    kind
        As in the legend.

    Attributes
    ----------
    kind
        As given.
    blocks
        (n_out, bytes of a row), uint8: the weight, quantized.
    bias
        (n_out,), a float32 array of its own, or None.
    """

    def __init__(self, linear: Linear, kind: str):
        self.kind = kind
        self.blocks = quantize(linear.weight.data, kind)
        self.bias = None if linear.bias is None else linear.bias.data.astype(np.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Return `quantized_matmul` of ``x`` (..., n_in) and the blocks, plus the bias.

        A constant of float32, also if x wants a gradient. Blocks, kind and bias are read anew at each call.
        ``ValueError`` as for `quantized_matmul`.
        """
        y = quantized_matmul(x.data, self.blocks, self.kind)
        return Tensor(y if self.bias is None else y + self.bias)


def choose_kinds(state: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> dict[str, str]:
    """Decide which arrays of a model are quantized, and how.

    Parameters
    ----------
    state
        Arrays by name, as from ``state_dict``. Not changed.
    kinds
        Key -> ``"q8_0"``, ``"q4_0"`` or ``"keep"``. A key speaks for the array of that name and for all
        whose names go on with a dot after it: ``"layers.1"`` for ``"layers.1.weight"``, not for
        ``"layers.10.weight"``. The key ``""`` speaks for all. Of several keys the longest decides.

    Returns
    -------
    dict[str, str]
        Name -> ``"q8_0"`` or ``"q4_0"``, in the order of the state, for the arrays that a key chooses and
        that are matrices (two axes) of floats with rows of a multiple of 32 numbers. All others are kept:
        vectors, such as biases and the gains of norms, whatever a key says.

    Raises
    ------
    ValueError
        When a value is another; when a key other than ``""`` speaks for no array: it is misspelled.

    Examples
    --------
    >>> state = {"head.weight": np.ones((5, 32)), "head.bias": np.ones(5), "w": np.ones((2, 64))}
    >>> choose_kinds(state, {"": "q4_0", "head": "q8_0"})
    {'head.weight': 'q8_0', 'w': 'q4_0'}
    """
    for kind in kinds.values():
        if kind != "keep":
            _check_kind(kind)
    speaking = {
        name: [key for key in kinds if f"{name}.".startswith(f"{key}." if key else "")] for name in state
    }
    unused = kinds.keys() - {"", *(key for keys in speaking.values() for key in keys)}
    if unused:
        raise ValueError(
            f"each key must begin a name of the state, up to a dot; none begins with {sorted(unused)}"
        )
    chosen = {name: kinds[max(keys, key=len)] for name, keys in speaking.items() if keys}
    return {name: kind for name, kind in chosen.items() if kind != "keep" and _is_matrix(state[name])}


def quantize_state(state: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Quantize the matrices of a model, ready for a weight file.

    Parameters
    ----------
    state, kinds
        As for `choose_kinds`.

    Returns
    -------
    dict[str, np.ndarray]
        In the order of the state: the blocks of each chosen array, under its name with ``".q8_0"`` or
        ``".q4_0"`` behind it; a copy of each other one under its name.

    Raises
    ------
    ValueError
        As for `choose_kinds` and `quantize`; when a name of the state ends in ``".q8_0"`` or ``".q4_0"``:
        it is quantized already.
    """
    if done := [name for name in state if _kind_in(name)]:
        raise ValueError(f"the state must not be quantized yet; {done[0]!r} is")
    chosen = choose_kinds(state, kinds)
    return {
        f"{name}.{chosen[name]}" if name in chosen else name: (
            quantize(array, chosen[name]) if name in chosen else np.array(array)
        )
        for name, array in state.items()
    }


def dequantize_state(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a state with the names that it had before `quantize_state`, in the same order.

    What was quantized is float32, as from `dequantize`; the rest is copied. ``ValueError`` as for
    `dequantize`.
    """
    return {
        name.removesuffix(f".{kind}"): dequantize(array, kind) if kind else np.array(array)
        for name, array in state.items()
        for kind in [_kind_in(name)]
    }


def _is_matrix(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] % _N == 0


def _kind_in(name: str) -> str:
    """Return the kind that a name ends in, or nothing."""
    return next((kind for kind in _BLOCK_BYTES if name.endswith(f".{kind}")), "")


def _check_kind(kind: str) -> None:
    if kind not in _BLOCK_BYTES:
        raise ValueError(f"the kind must be one of {', '.join(_BLOCK_BYTES)}; got {kind!r}")


def _unpacked(blocks: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales (..., B), float32, and the whole numbers around 0 (..., B, 32), int32."""
    _check_kind(kind)
    n_bytes = _BLOCK_BYTES[kind]
    if blocks.dtype != np.uint8 or blocks.ndim == 0 or blocks.shape[-1] % n_bytes:
        raise ValueError(
            f"blocks of {kind} must be uint8, with a last axis of a multiple of {n_bytes}; got "
            f"{blocks.dtype} {blocks.shape}"
        )
    each = np.ascontiguousarray(blocks).reshape(*blocks.shape[:-1], blocks.shape[-1] // n_bytes, n_bytes)
    d = np.ascontiguousarray(each[..., :2]).view("<f2").reshape(each.shape[:-1]).astype(np.float32)
    q = each[..., 2:]
    if kind == "q8_0":
        return d, q.view(np.int8).astype(np.int32)
    return d, np.concatenate([q & 15, q >> 4], axis=-1).astype(np.int32) - 8
