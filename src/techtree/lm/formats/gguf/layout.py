"""Which tensor of a GGUF file is which of the model's.

    token_embd, position_embd, output_norm, output       output is left out where it is the embedding
    blk.{i}.attn_norm, attn_q, attn_k, attn_v, attn_output, attn_q_norm, attn_k_norm       attn_qkv in gpt2
    blk.{i}.ffn_norm, ffn_gate, ffn_up, ffn_down
    blk.{i}.ffn_gate_inp, ffn_gate_exps, ffn_up_exps, ffn_down_exps                        with experts
    rope_freqs                                                                             Llama 3's scaling

each with `.weight`, most also with `.bias`. Vectors are float32 whatever the matrices are, and so are a
router and learned positions, which llama.cpp's own converter keeps so too: they are small and matter.

The llama architecture rotates neighbours, dimension 2i with 2i + 1, where this program rotates i with
i + head_dim / 2: the rows of its queries and keys are put in that order. The others rotate as we do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.finite import are_finite, not_finite
from techtree.lm.formats.gguf.architecture import ROPE_FACTORS, rope_factors
from techtree.lm.formats.gguf_file import TensorSource, TensorType
from techtree.lm.formats.gguf_reading import GgufFile
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.quant.blocks import Blocks
from techtree.lm.quant.choice import stored_kind

_TOP = {
    "token_embd": "model.embed_tokens",
    "position_embd": "model.embed_positions",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_JOINED = ("attn_q", "attn_k", "attn_v")
"""They are one module, `attn_qkv`, in gpt2."""
FLOAT32 = ("position_embd.weight", "ffn_gate_inp.weight")
"""Matrices that are float32 whatever the others are."""
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


def tensor_sources(architecture: str, model: LanguageModel, dtype: TensorType) -> dict[str, TensorSource]:
    """Return the tensors of a model's file.

    Parameters
    ----------
    architecture
        llama.cpp's name of it.
    model
        The model.
    dtype
        The type of the matrices; in blocks, of those that `stored_kind` says.
    """
    parameters = dict(model.named_parameters())
    layout = {
        theirs: ours
        for theirs, ours in _possible_names(architecture, model.config.n_layers)
        if ours[0] in parameters
    }
    assert {one for ours in layout.values() for one in ours} == parameters.keys()
    if architecture == "olmoe" and _HEAD not in layout:  # its graph knows no tied head
        layout[_HEAD] = layout[_EMBEDDING]
    sources = {}
    for name, ours in layout.items():
        parts = [parameters[one] for one in ours]
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        kind = _type_of(name, ours[0], shape, dtype)
        is_rotated = architecture == "llama" and name.split(".")[-2] in ("attn_q", "attn_k")
        head_dim = model.config.head_dim if is_rotated else None
        sources[name] = TensorSource(shape, kind, partial(_stored, parts, head_dim))
    return sources | _rope_factors(model.config)


def _type_of(theirs: str, ours: str, shape: tuple[int, ...], dtype: TensorType) -> TensorType:
    if isinstance(dtype, str):
        return stored_kind(ours, shape, dtype) or torch.float32
    return torch.float32 if len(shape) == 1 or theirs.endswith(FLOAT32) else dtype


def _possible_names(architecture: str, n_layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of tensors, and for each the parameters whose rows it has, one after the other."""
    yield from _weight_and_bias(_TOP.items(), "", "")
    for i in range(n_layers):
        ours, theirs = f"model.layers.{i}.", f"blk.{i}."
        modules = dict(_LAYER)
        if architecture == "gpt2":
            joined = [modules.pop(name) for name in _JOINED]
            for kind in ("weight", "bias"):
                yield f"{theirs}attn_qkv.{kind}", tuple(f"{ours}{one}.{kind}" for one in joined)
        yield from _weight_and_bias(modules.items(), ours, theirs)
        for name, parameter in _EXPERTS.items():
            yield f"{theirs}{name}.weight", (f"{ours}{parameter}",)


def _weight_and_bias(
    modules: Iterable[tuple[str, str]], ours: str, theirs: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, module in modules:
        for kind in ("weight", "bias"):
            yield f"{theirs}{name}.{kind}", (f"{ours}{module}.{kind}",)


def _stored(parts: Sequence[Tensor], head_dim: int | None) -> Tensor:
    """Return a tensor as the file has it; given a head's width, with its rows in the llama order."""
    joined = parts[0] if len(parts) == 1 else torch.cat([part.detach() for part in parts])
    return joined if head_dim is None else _interleaved(joined, head_dim)


def _interleaved(rows: Tensor, head_dim: int) -> Tensor:
    """Return the rows of each head in the order 0, d/2, 1, d/2 + 1, ..., for a head of width d."""
    by_head = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])  # (H, 2, d/2, ...)
    return by_head.transpose(1, 2).reshape(rows.shape)


def _rope_factors(config: ModelConfig) -> dict[str, TensorSource]:
    """Return by how much llama.cpp has to divide each pair's frequency, for Llama 3's scaling."""
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return {}
    factors = rope_factors(config.head_dim, config.rope_base, config.rope_scaling)
    return {ROPE_FACTORS: TensorSource(tuple(factors.shape), torch.float32, lambda: factors)}


def _half_split(rows: Tensor, head_dim: int) -> Tensor:
    """Return the rows of each head in our order, given them in llama's: the inverse of `_interleaved`."""
    by_head = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])  # (H, d/2, 2, ...)
    return by_head.transpose(1, 2).reshape(rows.shape)


def read_parameters(
    architecture: str, model: LanguageModel, file: GgufFile, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return a model's parameters by name, read from a file.

    Parameters
    ----------
    architecture
        llama.cpp's name of it.
    model
        A model of the file's shape, of whose parameters the names and shapes count.
    file
        The file.
    dtype
        The type of all parameters.

    Raises
    ------
    InputError
        When a tensor is missing, unknown, of another shape, or not finite.
    """
    parameters = {}
    for name, ours in _checked_layout(architecture, model, file).items():
        tensor = file.floats(name, dtype)
        if not are_finite(tensor):
            raise not_finite(f"{name} in {file.path}", tensor, tensor.dtype, "copy or download it again")
        parameters |= _divided(architecture, model, name, tensor, ours)
    return parameters


class Weights(Mapping[str, Tensor | Blocks]):
    """A model's parameters as a file has them, each made when it is asked for.

    Matrices of 8 and 4 bits stay blocks. Those of other quantized kinds become Q8_0, whose rounding is finer
    than theirs.

    Parameters
    ----------
    architecture, model, file
        As `read_parameters` takes them.

    Raises
    ------
    InputError
        As there; that a weight is not finite is seen when it is asked for.
    """

    def __init__(self, architecture: str, model: LanguageModel, file: GgufFile):
        self._architecture, self._model, self._file = architecture, model, file
        layout = _checked_layout(architecture, model, file)
        self._source = {one: (name, ours) for name, ours in layout.items() for one in ours}

    def __getitem__(self, name: str) -> Tensor | Blocks:
        """Return a parameter."""
        theirs, ours = self._source[name]
        blocks = self._file.blocks(theirs)
        if blocks is not None:
            parts = _divided(self._architecture, self._model, theirs, blocks.data, ours)
            return Blocks(blocks.kind, parts[name])
        tensor = self._file.floats(theirs)
        if not are_finite(tensor):
            where = f"{theirs} in {self._file.path}"
            raise not_finite(where, tensor, tensor.dtype, "copy or download it again")
        return _divided(self._architecture, self._model, theirs, tensor, ours)[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a parameter; nothing is read."""
        return name in self._source

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._source)

    def __len__(self) -> int:
        """Return how many parameters there are."""
        return len(self._source)


def _checked_layout(architecture: str, model: LanguageModel, file: GgufFile) -> dict[str, tuple[str, ...]]:
    """Return for each tensor of a file the parameters whose rows it has, in the file's order."""
    wanted = dict(model.named_parameters())
    layout = dict(_possible_names(architecture, model.config.n_layers))
    needed = {theirs for theirs, ours in layout.items() if ours[0] in wanted}
    given = file.tensors.keys() - {ROPE_FACTORS}
    for problem, names in (("lacks the", needed - given), ("has the unknown", given - needed)):
        if names:
            raise InputError(f"{file.path} {problem} tensor {min(names)!r} ({len(names)} in all)")
    for name in needed:
        parts = [wanted[one] for one in layout[name]]
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        if file.tensors[name].shape != shape:
            raise InputError(
                f"{name} in {file.path} must have the shape {shape}, as the metadata say; "
                f"got {file.tensors[name].shape}"
            )
    return {name: layout[name] for name in file.tensors if name in needed}


def _divided(
    architecture: str, model: LanguageModel, name: str, tensor: Tensor, ours: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return the parameters whose rows a tensor has, in our order of rows."""
    if architecture == "llama" and name.split(".")[-2] in ("attn_q", "attn_k"):
        tensor = _half_split(tensor, model.config.head_dim)
    wanted = dict(model.named_parameters())
    pieces = tensor.split([len(wanted[one]) for one in ours])
    return {one: piece.contiguous() for one, piece in zip(ours, pieces, strict=True)}
