"""The shape of a language model: every width, count and choice that the code needs, checked once."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from techtree.errors import InputError, did_you_mean

_T = TypeVar("_T")


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary angles are slowed down, so that a model reads further than it was first trained to.

    Raises
    ------
    InputError
        When the numbers do not fit each other.
    """

    kind: Literal["linear", "llama3"]
    """linear: all angles are divided by the factor (Chen et al. 2023). llama3: only those of wavelengths that
    are long beside the original context, with a ramp in between."""
    factor: float
    low_freq_factor: float = 1.0
    """llama3: wavelengths above ``original_max_seq_len / low_freq_factor`` are slowed by the whole factor."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below ``original_max_seq_len / high_freq_factor`` stay."""
    original_max_seq_len: int = 8192
    """llama3: the context of the first training."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.low_freq_factor >= self.high_freq_factor:
            raise InputError(
                f"low_freq_factor must be below high_freq_factor; got {self.low_freq_factor} and "
                f"{self.high_freq_factor}"
            )


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in place of the feed-forward layer.

    Every token goes to the ``n_active`` experts that its router scores highest, and none is dropped.

    Raises
    ------
    InputError
        When the numbers do not fit each other.
    """

    n_experts: int
    n_active: int
    """How many experts each token uses."""
    d_expert: int
    """The inner width of one expert."""
    normalize_weights: bool = True
    """Whether the weights of a token's experts are made to sum to one."""
    dense_layers: tuple[int, ...] = ()
    """The layers, counted from 0, that keep one feed-forward layer of width d_ff."""
    balance_coef: float = 0.001
    """How much the loss that keeps the experts equally busy counts in training."""
    z_coef: float = 0.0
    """How much the loss that keeps the router's logits small counts in training."""
    has_bias: bool = False
    """Whether a bias for each expert, which only decides who is chosen, balances the load; balance_coef can
    then be 0."""

    def __post_init__(self) -> None:
        _check_numbers(self, may_be_zero=("balance_coef", "z_coef"))
        if self.n_active > self.n_experts:
            raise InputError(
                f"n_active must be at most n_experts; got {self.n_active} of {self.n_experts} experts"
            )


@dataclass(frozen=True)
class Speedrun:
    """What makes a model learn faster, and no exchange format can carry.

    Besides its own vector a token gets one for each sequence of 2, 3, ... tokens that ends with it, as hash
    n-gram embeddings have it (Pagnoni et al., "Byte Latent Transformer", 2024): attention need not learn
    first what follows two or three characters.

    Raises
    ------
    InputError
        When the numbers do not fit each other.
    """

    longest_ngram: int = 5
    """The longest of these sequences. Each length fills an equal share of the width."""
    ngram_rows: int = 5376
    """How many vectors there are for each length. Sequences of which there are more share them."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.longest_ngram < 2:
            raise InputError(f"longest_ngram must be at least 2; got {self.longest_ngram}")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder.

    The defaults are those of the `qwen3` family: pre-RMSNorm, QK-norm per head before half-split RoPE,
    grouped-query attention, SwiGLU, no biases. The other choices make it a GPT-2, a Llama, a
    Mistral, a Qwen2, a Qwen3-MoE or an OLMoE; `lm/formats` says which choices a format can carry.

    Raises
    ------
    InputError
        When the numbers do not fit each other.
    """

    vocab_size: int
    """How many token ids there are."""
    d_model: int
    """The width of the residual stream."""
    n_layers: int
    n_heads: int
    """How many query heads."""
    n_kv_heads: int
    """How many key and value heads; each serves n_heads / n_kv_heads query heads."""
    head_dim: int
    """The width of one head; n_heads * head_dim need not be d_model."""
    d_ff: int
    """The inner width of the feed-forward layer."""
    max_seq_len: int = 512
    """The longest sequence in training. A model with RoPE can read further, and gets worse there."""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    """Whether the output head is the embedding table."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """layernorm has a bias."""
    positions: Literal["rope", "learned"] = "rope"
    """learned: a table of max_seq_len vectors, added to the embeddings."""
    rope_scaling: RopeScaling | None = None
    qk_norm: Literal["head", "full", "none"] = "head"
    """Whether queries and keys are normalized: each head by itself, all heads together (OLMoE), or not."""
    attention_bias: Literal["none", "qkv", "all"] = "none"
    """Which of the attention's products add a bias."""
    mlp: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """swiglu: gated, three matrices. gelu (its tanh form) and relu2 (ReLU squared): two."""
    mlp_bias: bool = False
    sliding_window: int | None = None
    """How many tokens a query sees, itself included; None for all that came before."""
    clip_qkv: float | None = None
    """Queries, keys and values are clamped to this size (OLMoE)."""
    experts: ExpertsConfig | None = None
    speedrun: Speedrun | None = None
    """Parts for the fastest training. Such a model cannot be exported."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.speedrun is not None:
            self._check_speedrun(self.speedrun)
        if self.n_heads % self.n_kv_heads:
            divisors = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise InputError(
                f"n_kv_heads must divide n_heads; got n_heads={self.n_heads}, "
                f"n_kv_heads={self.n_kv_heads}: use one of {divisors}"
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise InputError(
                f"head_dim must be even, as RoPE rotates pairs; got {self.head_dim}: use {self.head_dim + 1}"
            )
        if self.positions == "learned" and self.rope_scaling:
            raise InputError("rope_scaling needs positions='rope'; got positions='learned'")
        if self.experts and self.mlp != "swiglu":
            raise InputError(f"experts are SwiGLU layers; got mlp={self.mlp!r}: use mlp='swiglu'")
        if self.experts and not set(self.experts.dense_layers) <= set(range(self.n_layers)):
            raise InputError(
                f"dense_layers must be among the layers 0 to {self.n_layers - 1}; "
                f"got {list(self.experts.dense_layers)}"
            )

    def _check_speedrun(self, speedrun: Speedrun) -> None:
        n_lengths = speedrun.longest_ngram - 1
        if self.d_model % n_lengths:
            raise InputError(
                f"longest_ngram - 1 must divide d_model; got longest_ngram={speedrun.longest_ngram}, "
                f"d_model={self.d_model}"
            )
        if math.gcd(speedrun.ngram_rows, self.vocab_size) > 1:
            raise InputError(
                "ngram_rows and vocab_size must have no common divisor, or more n-grams than need be share a "
                f"row; got ngram_rows={speedrun.ngram_rows}, vocab_size={self.vocab_size}"
            )

    def has_experts(self, layer: int) -> bool:
        """Whether a layer's feed-forward part is a mixture of experts."""
        return self.experts is not None and layer not in self.experts.dense_layers

    @property
    def n_parameters(self) -> int:
        """The exact count of the model's parameters."""
        return self._count(None if self.experts is None else self.experts.n_experts)

    @property
    def n_active_parameters(self) -> int:
        """The count without the experts that a token does not use."""
        return self._count(None if self.experts is None else self.experts.n_active)

    def _count(self, n_experts: int | None) -> int:
        d_qkv = self.head_dim * (self.n_heads + 2 * self.n_kv_heads)
        attention = self.d_model * (d_qkv + self.head_dim * self.n_heads)
        attention += {"none": 0, "qkv": d_qkv, "all": d_qkv + self.d_model}[self.attention_bias]
        heads_normed = {"none": 0, "head": 2, "full": self.n_heads + self.n_kv_heads}[self.qk_norm]
        norm = self.d_model * (2 if self.norm == "layernorm" else 1)
        layer = attention + heads_normed * self.head_dim + 2 * norm
        n_up = 2 if self.mlp == "swiglu" else 1
        mlp = (n_up + 1) * self.d_model * self.d_ff
        mlp += (n_up * self.d_ff + self.d_model) * self.mlp_bias
        tables = self.vocab_size * (1 if self.tie_embeddings else 2)
        tables += self.max_seq_len if self.positions == "learned" else 0
        if self.speedrun is not None:
            tables += self.speedrun.ngram_rows
        n_sparse = sum(map(self.has_experts, range(self.n_layers)))
        total = tables * self.d_model + norm + self.n_layers * layer + (self.n_layers - n_sparse) * mlp
        if self.experts is not None and n_experts is not None:
            router = self.experts.n_experts
            total += n_sparse * self.d_model * (router + n_experts * 3 * self.experts.d_expert)
        return total

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from the fields that `dataclasses.asdict` gave, read from a file.

        Raises
        ------
        InputError
            When a field is unknown, missing or of another type.
        """
        return _from_dict(cls, "a model config", values)


def _from_dict(cls: type[_T], what: str, values: Mapping[str, Any]) -> _T:
    """Make a dataclass of this module from a dictionary, nested ones included."""
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in fields:
            raise InputError(f"{what} has no field {name!r}{did_you_mean(name, fields)}")
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise InputError(f"{what} needs the field {name!r}, which is missing")
    decoded = {name: _decoded(name, value, fields[name].type) for name, value in values.items()}
    for name, value in decoded.items():
        _check_type(name, value, fields[name].type)
    return cls(**decoded)


def _decoded(name: str, value: Any, type_: Any) -> Any:
    """Return a value as its field's type wants it: JSON has neither dataclasses nor tuples."""
    if value is not None:
        for inner in typing.get_args(type_) or (type_,):
            if dataclasses.is_dataclass(inner) and isinstance(inner, type) and isinstance(value, Mapping):
                return _from_dict(inner, name, value)
    return tuple(value) if isinstance(value, list) else value


def _check_numbers(config: Any, may_be_zero: tuple[str, ...] = ()) -> None:
    """Check that every number of a config is positive."""
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            lowest_fits = value > 0 or (value == 0 and name in may_be_zero)
            if not (lowest_fits and value < math.inf):
                raise InputError(f"{name} must be above 0; got {value}")


def _check_type(name: str, value: object, type_: Any) -> None:
    origin = typing.get_origin(type_)
    if origin is types.UnionType:  # X | None
        if value is not None:
            _check_type(name, value, typing.get_args(type_)[0])
        return
    if origin is Literal:
        choices = typing.get_args(type_)
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        return
    if origin is tuple:
        if not isinstance(value, tuple) or not all(type(item) is int for item in value):
            raise InputError(f"{name} must be whole numbers; got {value!r}")
        return
    if dataclasses.is_dataclass(type_):
        if not isinstance(value, typing.cast(type, type_)):
            raise InputError(f"{name} must be an object with its fields; got {value!r}")
        return
    kind, allowed = {
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        bool: ("true or false", (bool,)),
    }[type_]
    if not isinstance(value, allowed) or isinstance(value, bool) != (type_ is bool):
        raise InputError(f"{name} must be {kind}; got {value!r}")
