"""How a `config.json` speaks of rotary positions.

Version 4 of transformers has `rope_theta` beside `rope_scaling`, version 5 has both in `rope_parameters`.
Both are read, with the precedence of version 5, and both are written.
"""

from collections.abc import Mapping
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig, RopeScaling

_DEFAULT_BASE = 10_000.0

_SCALING_NAMES = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_max_seq_len",
    },
}
"""For each kind of scaling, their names and ours."""


def read_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rope_base` and `rope_scaling`.

    Raises
    ------
    InputError
        When the angles are scaled in another way, or only a part of each head is rotated.
    """
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise InputError(f"all layers must share one set of rope_parameters; got {rope!r}: use another model")
    rotated = rope.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if rotated not in (None, 1):
        raise InputError(
            f"partial_rotary_factor must be 1, as whole heads are rotated; got {rotated!r}: use another model"
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = rope.get("rope_theta", values.get("rope_theta", _DEFAULT_BASE))
    if kind == "default":
        return {"rope_base": base, "rope_scaling": None}
    if not isinstance(kind, str) or kind not in _SCALING_NAMES:
        raise InputError(
            f"the rope_type must be default, {' or '.join(_SCALING_NAMES)}; got {kind!r}: use another model"
        )
    # Where a model does not say how far it first read, transformers takes how far it reads now.
    known = {"original_max_position_embeddings": values.get("max_position_embeddings")} | dict(rope)
    names = _SCALING_NAMES[kind]
    for theirs in names:
        if known.get(theirs) is None:
            raise InputError(f"rope_type {kind!r} must come with {theirs!r}, which is missing")
    scaling = {ours: known[theirs] for theirs, ours in names.items()}
    return {"rope_base": base, "rope_scaling": {"kind": kind} | scaling}


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of both versions."""
    base = float(config.rope_base)
    scaling = None if config.rope_scaling is None else _described(config.rope_scaling)
    return {
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": base},
    }


def _described(scaling: RopeScaling) -> dict[str, Any]:
    names = _SCALING_NAMES[scaling.kind]
    return {"rope_type": scaling.kind} | {theirs: getattr(scaling, ours) for theirs, ours in names.items()}
