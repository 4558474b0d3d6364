"""The decoder of decoder.c, with PyTorch's tensors in and out.

T tokens, V vocabulary, D head_dim.
"""

import ctypes
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.infer.limits import never
from techtree.lm.infer.threads import Threads
from techtree.lm.model.rope import rotation
from techtree.lm.native.blocks import KINDS, in_parts
from techtree.lm.native.library import library
from techtree.lm.quant.blocks import Blocks

LANES = 16
PREFILL_CHUNK = 64
"""Tokens run at once: enough for full speed, few enough to stop soon after a cancellation."""
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 5, **KINDS}


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("n_rows", ctypes.c_int32),
        ("n_cols", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    ]


_LAYER_VECTORS = {
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "query_norm": "self_attn.q_norm.weight",
    "key_norm": "self_attn.k_norm.weight",
}
_LAYER_MATRICES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _LAYER_VECTORS] + [
        (name, _Matrix) for name in _LAYER_MATRICES
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim")),
        *((name, ctypes.c_int32) for name in ("d_ff", "vocab_size", "window")),
        ("norm_eps", ctypes.c_float),
        ("n_positions", ctypes.c_int32),
        ("layers", ctypes.POINTER(_Layer)),
        ("embedding", _Matrix),
        ("head", _Matrix),
        *((name, ctypes.c_void_p) for name in ("norm", "cos", "sin")),
    ]


class _Cache(ctypes.Structure):
    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("max_len", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    ]


def unsupported(config: ModelConfig) -> str:
    """Return what of a model the decoder does not compute; nothing where it computes all."""
    wanted: dict[str, tuple[Any, ...]] = {
        "norm": ("rmsnorm",),
        "positions": ("rope",),
        "qk_norm": ("head", "none"),
        "mlp": ("swiglu",),
        "mlp_bias": (False,),
        "clip_qkv": (None,),
        "experts": (None,),
        "speedrun": (None,),
    }
    return ", ".join(name for name, known in wanted.items() if getattr(config, name) not in known)


class Decoder:
    """A model whose weights lie in memory as the processor reads them best.

    Parameters
    ----------
    config
        The shape; `unsupported` must say nothing of it.
    weights
        By the names of `LanguageModel`'s parameters: tensors, or blocks for matrices. Each is asked for once,
        so that a mapping may make them when they are wanted.
    n_positions
        The longest text.
    n_threads
        The most threads; as many as PyTorch would take when left out.

    Raises
    ------
    NoCompilerError
        When there is no compiler, and nothing compiled.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, Tensor | Blocks],
        n_positions: int,
        n_threads: int | None = None,
    ):
        assert not unsupported(config), unsupported(config)
        self.config = config
        self.n_positions = n_positions
        self._library = library()
        self._kept: list[Tensor] = []
        self._layers = (_Layer * config.n_layers)(
            *(self._layer(weights, f"model.layers.{i}.") for i in range(config.n_layers))
        )
        embedding = self._matrix(weights, "model.embed_tokens")
        head = embedding if config.tie_embeddings else self._matrix(weights, "lm_head")
        turned = rotation(
            *(0, n_positions, config.head_dim, config.rope_base, torch.float32),
            *(torch.device("cpu"), config.rope_scaling),
        )
        half = config.head_dim // 2
        self._model = _Model(
            *(config.n_layers, config.d_model, config.n_heads, config.n_kv_heads, config.head_dim),
            *(config.d_ff, config.vocab_size, config.sliding_window or 0, config.norm_eps, n_positions),
            *(self._layers, embedding, head, self._vector(weights, "model.norm.weight")),
            *(self._keep(each[:, 0, :half]) for each in turned),
        )
        self.threads = Threads(n_threads)
        self._pool = ctypes.c_void_p(self._library.techtree_new_pool(self.threads.n_most))
        if not self._pool:
            raise MemoryError("no room for the decoder's threads")
        weakref.finalize(self, self._library.techtree_free_pool, self._pool)

    @property
    def n_bytes(self) -> int:
        """The memory that the weights take."""
        return sum(tensor.numel() * tensor.itemsize for tensor in self._kept)

    def run(
        self,
        ids: Sequence[int],
        positions: Sequence[int],
        texts: Sequence["NativeText"],
        text_of: Sequence[int],
        wanted: Sequence[int],
    ) -> Float[Tensor, "n_wanted V"]:
        """Run tokens of one or several texts, and return the logits of those that are wanted.

        Parameters
        ----------
        ids, positions
            The tokens, and where in its text each stands: after all earlier ones of that text.
        texts, text_of
            The texts, and to which of them each token belongs.
        wanted
            The indices of those tokens whose logits are returned.
        """
        logits = torch.empty(len(wanted), self.config.vocab_size)
        caches = (_Cache * len(texts))(*(text.described for text in texts))
        arrays = [(ctypes.c_int32 * len(each))(*each) for each in (ids, positions, text_of, wanted)]
        with self.threads.timed(len(ids)) as n_threads:
            failed = self._library.techtree_run(
                *(self._pool, ctypes.byref(self._model), caches, len(ids), arrays[0], arrays[1], arrays[2]),
                *(len(wanted), arrays[3], ctypes.c_void_p(logits.data_ptr()), n_threads),
            )
        if failed:
            raise MemoryError("no room for the activations")
        return logits

    def _layer(self, weights: Mapping[str, Tensor | Blocks], prefix: str) -> _Layer:
        vectors = [
            self._vector(weights, prefix + name) if prefix + name in weights else None
            for name in _LAYER_VECTORS.values()
        ]
        matrices = [self._matrix(weights, prefix + name) for name in _LAYER_MATRICES.values()]
        return _Layer(*vectors, *matrices)

    def _vector(self, weights: Mapping[str, Tensor | Blocks], name: str) -> int:
        tensor = weights[name]
        assert isinstance(tensor, Tensor)
        return self._keep(tensor)

    def _keep(self, tensor: Tensor, n_lanes: int = 1) -> int:
        """Keep a vector or a table in float32, padded, and return where it is."""
        flat = tensor.detach().reshape(-1)
        padded = torch.zeros(math.ceil(len(flat) / n_lanes) * n_lanes)
        padded[: len(flat)] = flat
        self._kept.append(padded)
        return padded.data_ptr()

    def _matrix(self, weights: Mapping[str, Tensor | Blocks], name: str) -> _Matrix:
        given = weights[f"{name}.weight"]
        bias = weights.get(f"{name}.bias")
        if isinstance(given, Tensor):
            given = given.detach()
            kind = given.dtype if given.dtype in _KINDS else torch.float32
            rows = given.to("cpu", kind).contiguous()
        else:
            kind, rows = given.kind, given.data.contiguous()
        n_rows, n_columns = given.shape
        code = _KINDS[kind]
        n_bytes = self._library.techtree_packed_bytes(code, n_rows, n_columns)
        # Pages of zeros cost nothing, and the header's padding must be zero; 64 bytes to align.
        memory = torch.zeros(n_bytes + 64, dtype=torch.uint8)
        self._kept.append(memory)
        at = memory.data_ptr() + -memory.data_ptr() % 64

        def pack(start: int, end: int) -> int:
            data = ctypes.c_void_p(rows[start:].data_ptr())
            self._library.techtree_pack(
                code, n_rows, n_columns, start, end - start, data, ctypes.c_void_p(at)
            )
            return 0

        in_parts(n_rows, pack)
        assert bias is None or isinstance(bias, Tensor)
        return _Matrix(code, n_rows, n_columns, 0, at, None if bias is None else self._keep(bias, LANES))


class NativeText:
    """One text of a decoder: its keys and values, of `length` tokens.

    Parameters
    ----------
    decoder
        The model.
    max_len
        The most tokens of the text.
    """

    is_exact = True

    def __init__(self, decoder: Decoder, max_len: int):
        if max_len > decoder.n_positions:
            raise InputError(f"the decoder was made for {decoder.n_positions} tokens; got max_len={max_len}")
        config = decoder.config
        self._decoder = decoder
        self.max_len = math.ceil(max_len / LANES) * LANES
        heads = (config.n_layers, config.n_kv_heads, self.max_len)
        self._keys = torch.zeros(*heads, config.head_dim)
        self._values = torch.zeros(*heads, math.ceil(config.head_dim / LANES) * LANES)
        self.length = 0

    @property
    def described(self) -> _Cache:
        """Where its memory is."""
        return _Cache(self._keys.data_ptr(), self._values.data_ptr(), self.max_len, 0)

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first."""
        assert 0 <= length <= self.length
        self.length = length

    def extend(
        self, ids: Sequence[int], should_stop: Callable[[], bool] = never
    ) -> Float[Tensor, " V"] | None:
        """Append tokens; return the scores for the next, or None when `should_stop` said so midway."""
        logits = self.extend_all(ids, 1, should_stop)
        return None if logits is None else logits[-1]

    def extend_all(
        self, ids: Sequence[int], n_logits: int, should_stop: Callable[[], bool] = never
    ) -> Float[Tensor, "n_logits V"] | None:
        """Append tokens; return the scores after each of the last ones, or None when told to stop midway."""
        if self.length + len(ids) > self.max_len:
            raise InputError(
                f"a text of {self.max_len} tokens that has {self.length} cannot take {len(ids)} more"
            )
        if not all(0 <= each < self._decoder.config.vocab_size for each in ids):
            raise InputError(
                f"ids must be from 0 to {self._decoder.config.vocab_size - 1}; got {min(ids)} to {max(ids)}"
            )
        found = []
        for start in range(0, len(ids), PREFILL_CHUNK):
            if should_stop():
                return None
            chunk = ids[start : start + PREFILL_CHUNK]
            n = len(chunk)
            wanted = range(max(0, len(ids) - n_logits - start), n)
            positions = range(self.length, self.length + n)
            logits = self._decoder.run(chunk, positions, [self], [0] * n, wanted)
            self.length += n
            found.append(logits)
        return torch.cat(found) if len(found) > 1 else found[0]
