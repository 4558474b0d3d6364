"""The shape of a language model: every width and count that the code needs, checked once."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from techtree.errors import InputError, did_you_mean


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder of the `qwen3` family.

    Pre-RMSNorm, QK-norm per head before half-split RoPE, grouped-query attention, SwiGLU, no
    biases.

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
    """The inner width of the SwiGLU."""
    max_seq_len: int = 512
    """The longest sequence in training. The model can read further, and gets worse there."""
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    """Whether the output head is the embedding table."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not 0 < getattr(self, field.name) < math.inf and field.type is not bool:
                raise InputError(f"{field.name} must be above 0; got {getattr(self, field.name)}")
        if self.n_heads % self.n_kv_heads:
            divisors = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise InputError(
                f"n_kv_heads must divide n_heads; got n_heads={self.n_heads}, "
                f"n_kv_heads={self.n_kv_heads}: use one of {divisors}"
            )
        if self.head_dim % 2:
            raise InputError(
                f"head_dim must be even, as RoPE rotates pairs; got {self.head_dim}: use {self.head_dim + 1}"
            )

    @property
    def n_parameters(self) -> int:
        """The exact count of the model's parameters."""
        attention = (
            self.head_dim * (2 * self.n_heads + 2 * self.n_kv_heads) * self.d_model + 2 * self.head_dim
        )
        swiglu = 3 * self.d_model * self.d_ff
        norms = 2 * self.d_model
        tables = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return tables + self.n_layers * (attention + swiglu + norms) + self.d_model

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from the fields that `dataclasses.asdict` gave, read from a file.

        Raises
        ------
        InputError
            When a field is unknown, missing or of another type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise InputError(f"a model config has no field {name!r}{did_you_mean(name, fields)}")
        for name, field in fields.items():
            if name not in values and field.default is dataclasses.MISSING:
                raise InputError(f"a model config needs the field {name!r}, which is missing")
            _check_type(name, values.get(name, field.default), field.type)
        return cls(**values)


def _check_type(name: str, value: object, type_: object) -> None:
    kind, allowed = {
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        bool: ("true or false", (bool,)),
    }[type_]
    if not isinstance(value, allowed) or isinstance(value, bool) != (type_ is bool):
        raise InputError(f"{name} must be {kind}; got {value!r}")
