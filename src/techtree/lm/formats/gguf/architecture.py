"""Which of llama.cpp's architectures carries a model.

llama.cpp computes a model by the graph of its architecture, and silently ignores metadata that this graph
does not ask for. So a setting is carried only where the graph asks for it, and everything else is refused.
Each line below was read in the graphs' source (`src/models/*.cpp`, 2026) and is run by the tests:

    qwen2      biases of queries, keys and values; heads together as wide as the model
    llama      biases anywhere; any head width; Llama 3's scaling of the angles; experts, weights normalized
    qwen3      norms of each head; biases of queries, keys and values
    qwen3moe   the same with experts, weights normalized; no dense layer among them
    olmoe      norms over all heads; experts, weights as they are; as many key heads as query heads
    gpt2       learned positions, layer norms, GELU, biases everywhere

No graph here has a sliding window: a Mistral goes as llama if its window never closes. The clamp of OLMoE's
queries, keys and values is not in the olmoe graph, the bias that chooses experts in none of these.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from techtree.errors import InputError, did_you_mean
from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling
from techtree.lm.formats.gguf_file import Value
from techtree.lm.formats.misfits import heads_as_wide_as_the_model
from techtree.lm.model.rope import frequencies

MAX_LAYERS, MAX_EXPERTS = 512, 1024
"""llama.cpp ends with an assertion at more."""

_CARRIED = {
    *("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_seq_len"),
    *("rope_base", "norm_eps", "tie_embeddings"),
}
"""Any value of these goes into the metadata or shows in the tensors."""

_JUDGED = {"rope_scaling", "sliding_window", "experts"}
"""What takes more than a list of values: see `_problems_of_all` and the architectures' own functions."""


@dataclass(frozen=True)
class Architecture:
    """What a graph of llama.cpp can do. A field that is not named must have its default value."""

    allows: Mapping[str, tuple[Any, ...]]
    misfits: Callable[[ModelConfig], Iterator[str]]
    """What else a config must be, in the words "n_heads * head_dim = d_model (got ...)"."""

    def problems(self, config: ModelConfig) -> list[str]:
        """Return why this architecture cannot carry a config; nothing when it can."""
        found = []
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            allowed = self.allows.get(field.name, (field.default,))
            if field.name not in _CARRIED | _JUDGED and value not in allowed:
                found.append(f"{field.name}={' or '.join(map(repr, allowed))} (got {value!r})")
        return [*found, *_problems_of_all(config), *self.misfits(config)]


def _problems_of_all(config: ModelConfig) -> Iterator[str]:
    if config.sliding_window is not None and config.sliding_window < config.max_seq_len:
        yield (
            f"sliding_window=None, or at least max_seq_len={config.max_seq_len} "
            f"(got {config.sliding_window}), as llama.cpp would see all tokens"
        )
    if config.n_layers > MAX_LAYERS:
        yield f"n_layers of at most {MAX_LAYERS} (got {config.n_layers})"


def _no_llama3_scaling(config: ModelConfig) -> Iterator[str]:
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        yield "rope_scaling that is linear or None (got llama3)"


def _no_experts(config: ModelConfig) -> Iterator[str]:
    if config.experts is not None:
        yield "experts=None (got some)"


def _experts(config: ModelConfig, normalize_weights: bool) -> Iterator[str]:
    experts = config.experts
    if experts is None:
        yield "experts (got none)"
        return
    if experts.normalize_weights != normalize_weights:
        yield f"experts.normalize_weights={normalize_weights} (got {experts.normalize_weights})"
    if experts.dense_layers:
        yield f"experts.dense_layers=() (got {experts.dense_layers})"
    if experts.has_bias:
        yield "experts.has_bias=False (got True)"
    if experts.n_experts > MAX_EXPERTS:
        yield f"experts.n_experts of at most {MAX_EXPERTS} (got {experts.n_experts})"


def _qwen2_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _no_experts(config)
    yield from _no_llama3_scaling(config)
    yield from heads_as_wide_as_the_model(config)


def _llama_misfits(config: ModelConfig) -> Iterator[str]:
    if config.experts is not None:
        yield from _experts(config, normalize_weights=True)


def _qwen3_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _no_experts(config)
    yield from _no_llama3_scaling(config)


def _qwen3moe_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _experts(config, normalize_weights=True)
    yield from _no_llama3_scaling(config)


def _olmoe_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _experts(config, normalize_weights=False)
    yield from _no_llama3_scaling(config)
    yield from heads_as_wide_as_the_model(config)
    if config.n_kv_heads != config.n_heads:
        yield f"n_kv_heads = n_heads (got {config.n_kv_heads} and {config.n_heads})"


def _gpt2_misfits(config: ModelConfig) -> Iterator[str]:
    yield from _no_experts(config)
    yield from heads_as_wide_as_the_model(config)


ARCHITECTURES: dict[str, Architecture] = {
    "qwen2": Architecture({"qk_norm": ("none",), "attention_bias": ("qkv",)}, _qwen2_misfits),
    "llama": Architecture(
        {"qk_norm": ("none",), "attention_bias": ("none", "qkv", "all"), "mlp_bias": (False, True)},
        _llama_misfits,
    ),
    "qwen3": Architecture({"attention_bias": ("none", "qkv")}, _qwen3_misfits),
    "qwen3moe": Architecture({"attention_bias": ("none", "qkv")}, _qwen3moe_misfits),
    "olmoe": Architecture({"qk_norm": ("full",), "attention_bias": ("none", "qkv")}, _olmoe_misfits),
    "gpt2": Architecture(
        {
            "norm": ("layernorm",),
            "positions": ("learned",),
            "qk_norm": ("none",),
            "attention_bias": ("all",),
            "mlp": ("gelu",),
            "mlp_bias": (True,),
        },
        _gpt2_misfits,
    ),
}
"""By `general.architecture`; the first that fits is taken."""


def architecture_of(config: ModelConfig) -> str:
    """Return the name of the architecture that computes what a model of this shape does.

    Raises
    ------
    InputError
        When none does; the message says what those need that are nearest to it.
    """
    problems = {name: architecture.problems(config) for name, architecture in ARCHITECTURES.items()}
    fewest = min(map(len, problems.values()))
    nearest = [name for name in problems if len(problems[name]) == fewest]
    if fewest:
        needs = "; ".join(f"{name} needs {', '.join(problems[name])}" for name in nearest)
        raise InputError(
            f"no architecture of llama.cpp can carry this model; {needs}: change the model, "
            "or keep its checkpoint"
        )
    return nearest[0]


def shape_metadata(architecture: str, config: ModelConfig) -> dict[str, Value]:
    """Return what the architecture's graph asks for."""
    experts = config.experts
    d_ff = experts.d_expert if experts is not None and architecture != "qwen3moe" else config.d_ff
    epsilon = "layer_norm_rms_epsilon" if config.norm == "rmsnorm" else "layer_norm_epsilon"
    values: dict[str, Value] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_len,
        "embedding_length": config.d_model,
        "block_count": config.n_layers,
        "feed_forward_length": d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        f"attention.{epsilon}": float(config.norm_eps),
    }
    if config.positions == "rope":
        values |= {"rope.dimension_count": config.head_dim, "rope.freq_base": float(config.rope_base)}
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope_scaling.factor)}
    if experts is not None:
        values |= {
            "expert_count": experts.n_experts,
            "expert_used_count": experts.n_active,
            "expert_feed_forward_length": experts.d_expert,
        }
    return {f"{architecture}.{name}": value for name, value in values.items()}


# Reading ------------------------------------------------------------------------------------------------

ROPE_FACTORS = "rope_freqs.weight"
"""By how much each pair's frequency is divided, for Llama 3's scaling."""


def config_of(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ModelConfig]:
    """Return the architecture and the shape of the model in a file.

    Parameters
    ----------
    metadata
        The file's.
    shapes
        Those of its tensors, by name.

    Raises
    ------
    InputError
        When the architecture is none of these, or the metadata are damaged or ask for what it has not.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InputError(
            f"general.architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}"
            f"{did_you_mean(str(architecture), ARCHITECTURES)}: use another model"
        )
    ask = _Asked(architecture, metadata)
    d_model, n_heads = ask.count("embedding_length"), ask.count("attention.head_count")
    has_layer_norm = architecture == "gpt2"
    epsilon = "layer_norm_epsilon" if has_layer_norm else "layer_norm_rms_epsilon"
    head_dim = ask.count("attention.key_length", d_model // n_heads)
    config = ModelConfig(
        vocab_size=_length(shapes, "token_embd.weight"),
        d_model=d_model,
        n_layers=ask.count("block_count", at_most=MAX_LAYERS),
        n_heads=n_heads,
        n_kv_heads=ask.count("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        d_ff=ask.count("feed_forward_length"),
        max_seq_len=ask.count("context_length"),
        rope_base=ask.number("rope.freq_base", 10_000.0),
        norm_eps=ask.number(f"attention.{epsilon}"),
        tie_embeddings="output.weight" not in shapes,
        norm="layernorm" if has_layer_norm else "rmsnorm",
        positions="learned" if architecture == "gpt2" else "rope",
        rope_scaling=_rope_scaling(ask, shapes),
        qk_norm=_qk_norm(shapes, head_dim),
        attention_bias=_attention_bias(architecture, shapes),
        mlp="gelu" if architecture == "gpt2" else "swiglu",
        mlp_bias="blk.0.ffn_up.bias" in shapes,
        experts=_experts_of(ask, architecture, shapes),
    )
    ask.require("attention.value_length", head_dim, "keys and values must be equally wide")
    if config.positions == "rope":
        ask.require("rope.dimension_count", head_dim, "whole heads must be rotated")
    problems = ARCHITECTURES[architecture].problems(config)
    if problems:
        raise InputError(f"the file is damaged: a model of {architecture} needs {', '.join(problems)}")
    return architecture, config


@dataclass(frozen=True)
class _Asked:
    """The metadata of an architecture, by the rest of their names."""

    architecture: str
    metadata: Mapping[str, Any]

    def count(self, name: str, default: int | None = None, at_most: int = 1 << 40) -> int:
        given = self._given(name, default)
        if type(given) is not int or not 1 <= given <= at_most:
            raise InputError(
                f"{self.architecture}.{name} must be a whole number from 1 to {at_most}; got {given!r}"
            )
        return given

    def number(self, name: str, default: float | None = None) -> float:
        given = self._given(name, default)
        if not isinstance(given, int | float) or isinstance(given, bool):
            raise InputError(f"{self.architecture}.{name} must be a number; got {given!r}")
        return _decimal(float(given))

    def require(self, name: str, wanted: object, why: str) -> None:
        given = self.metadata.get(f"{self.architecture}.{name}", wanted)
        if given != wanted:
            raise InputError(f"{self.architecture}.{name} must be {wanted}, as {why}; got {given!r}")

    def _given(self, name: str, default: object) -> object:
        given = self.metadata.get(f"{self.architecture}.{name}", default)
        if given is None:
            raise InputError(f"the file must have {self.architecture}.{name}, which is missing")
        if isinstance(given, list):
            raise InputError(
                f"{self.architecture}.{name} must be one number for all layers; got a list of {len(given)}: "
                "use another model"
            )
        return given


def _decimal(number: float) -> float:
    """Return the shortest decimal that float32 rounds to a number: 1e-6 for 9.999999974752427e-07."""
    short = float(str(np.float32(number)))
    return short if np.float32(short) == np.float32(number) else number


def _length(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if len(shapes.get(name, ())) != 2:
        raise InputError(f"the file must have the matrix {name}; it has {shapes.get(name, 'no such tensor')}")
    return shapes[name][0]


def _qk_norm(shapes: Mapping[str, tuple[int, ...]], head_dim: int) -> Literal["head", "full", "none"]:
    shape = shapes.get("blk.0.attn_q_norm.weight")
    return "none" if shape is None else "head" if shape == (head_dim,) else "full"


def _attention_bias(
    architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> Literal["none", "qkv", "all"]:
    inner = "attn_qkv" if architecture == "gpt2" else "attn_q"
    if f"blk.0.{inner}.bias" not in shapes:
        return "none"
    return "all" if "blk.0.attn_output.bias" in shapes else "qkv"


def _rope_scaling(ask: _Asked, shapes: Mapping[str, tuple[int, ...]]) -> RopeScaling | None:
    kind = ask.metadata.get(f"{ask.architecture}.rope.scaling.type", "none")
    if kind == "linear":
        factor = ask.number("rope.scaling.factor")
        return None if factor == 1 else RopeScaling("linear", factor)
    if kind != "none":
        raise InputError(f"rope.scaling.type must be none or linear; got {kind!r}: use another model")
    # What they are computed from is not in the file: `rope_scaling_of` finds it.
    return RopeScaling("llama3", 8.0) if ROPE_FACTORS in shapes else None


def rope_scaling_of(factors: Tensor, config: ModelConfig) -> RopeScaling:
    """Return the scaling of Llama 3's kind that gives the factors in a file.

    The file has a factor for each pair of dimensions, and not the four numbers that they were computed from.
    With the largest factor F, a pair of wavelength w gets 1 / ((1 - s) / F + s), where
    s = (context / w - low) / (high - low), cut to 0 and 1. So s is a line over 1 / w. Multiplying context,
    low and high by one number gives the same line; so low is 1, as in all published models.

    Raises
    ------
    InputError
        When they are no factors of this kind.
    """
    largest = float(factors.max()) if len(factors) else 1.0
    if len(factors) == config.head_dim // 2 and 1 < largest < math.inf and float(factors.min()) > 0:
        share = (1 / factors.double() - 1 / largest) / (1 - 1 / largest)
        per_turn = frequencies(config.head_dim, config.rope_base, None).double() / (2 * math.pi)
        for slope, at_zero in _lines(per_turn.tolist(), share.tolist()):
            if not slope > 0 > at_zero:
                continue
            scaling = _of_line(largest, slope, at_zero)
            if torch.allclose(rope_factors(config.head_dim, config.rope_base, scaling), factors, rtol=1e-4):
                return scaling
    raise InputError(
        f"{ROPE_FACTORS} must be the factors of Llama 3's scaling; got others, up to {largest:.6g}: use "
        "another model"
    )


_HIGH = 4.0
"""Of all published models, for low = 1."""


def _lines(x: list[float], y: list[float]) -> Iterator[tuple[float, float]]:
    """Yield slope and value at 0 of lines that go through points and, cut to 0 and 1, through those beside.

    ``x`` falls, and ``y`` falls from 1 to 0. Where one point or none lies between, many lines do: the one
    with the usual high comes first.
    """
    inside = [i for i in range(len(x)) if 1e-4 < y[i] < 1 - 1e-4]
    n_kept = sum(each >= 1 - 1e-4 for each in y)
    if len(inside) >= 2:
        i, j = inside[0], inside[-1]
        slope = (y[i] - y[j]) / (x[i] - x[j])
        yield slope, y[i] - slope * x[i]
        return
    end = 1 / (_HIGH - 1)
    at, value = (x[inside[0]], y[inside[0]]) if inside else (x[max(0, n_kept - 1)], float(n_kept > 0))
    yield (value + end) / at, -end
    points = [*(range(n_kept - 1, n_kept) if n_kept else ()), *inside, *range(n_kept + len(inside), len(x))]
    near = [(x[i], y[i]) for i in points[:3]]
    slopes = [(a[1] - b[1]) / (a[0] - b[0]) for a, b in itertools.pairwise(near)]
    if slopes:
        yield max(slopes), value - max(slopes) * at


def _of_line(factor: float, slope: float, at_zero: float) -> RopeScaling:
    """Return the scaling of a line, with low = 1, or where its context is no whole number then, with 8192."""
    high, context = 1 - 1 / at_zero, -slope / at_zero
    near = round(context)
    if near and abs(context / near - 1) < 1e-5:
        is_whole = abs(high - round(high)) < 1e-4
        return RopeScaling("llama3", factor, 1.0, float(round(high)) if is_whole else high, near)
    scale = 8192 / context
    return RopeScaling("llama3", factor, scale, high * scale, 8192)


def rope_factors(head_dim: int, base: float, scaling: RopeScaling) -> Tensor:
    """Return by how much llama.cpp has to divide each pair's frequency, (head_dim / 2,)."""
    return frequencies(head_dim, base, None) / frequencies(head_dim, base, scaling)


def _experts_of(
    ask: _Asked, architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> ExpertsConfig | None:
    if not ask.metadata.get(f"{architecture}.expert_count"):
        return None
    d_expert = ask.metadata.get(f"{architecture}.expert_feed_forward_length") or None
    if d_expert is None:
        d_expert = shapes.get("blk.0.ffn_gate_exps.weight", (0, 0, 0))[-2]
    return ExpertsConfig(
        n_experts=ask.count("expert_count", at_most=MAX_EXPERTS),
        n_active=ask.count("expert_used_count", at_most=MAX_EXPERTS),
        d_expert=d_expert,
        normalize_weights=architecture != "olmoe",
    )
