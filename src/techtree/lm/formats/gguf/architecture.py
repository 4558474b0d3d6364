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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.gguf_file import Value
from techtree.lm.formats.misfits import heads_as_wide_as_the_model

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
