"""Which of a model's parameters are quantized, and to what: one rule for the exporter and for training."""

from typing import Literal

from techtree.lm.quant.blocks import BLOCK

_TABLES = ("embed_tokens.weight", "lm_head.weight")
_EXACT = ("embed_positions.weight", "mlp.gate.weight")
"""Learned positions and routers: small, and what they decide, all that follows has to bear."""


def stored_kind(
    name: str, shape: tuple[int, ...], kind: Literal["q8_0", "q4_0"]
) -> Literal["q8_0", "q4_0"] | None:
    """Return the blocks of a parameter in a model of this kind, or None where it stays in float32.

    With 4 bits the embedding and the head have 8, since an error in either reaches every prediction. Vectors
    stay, and matrices whose rows do not fill blocks.
    """
    if len(shape) == 1 or name.endswith(_EXACT) or shape[-1] % BLOCK:
        return None
    return "q8_0" if name.endswith(_TABLES) else kind
