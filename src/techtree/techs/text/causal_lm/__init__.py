"""Documents in rows, questions and answers one place apart, and a language model's loss."""

from techtree.techs.text.causal_lm.causal_lm import (
    bits_per_byte,
    document_mask,
    document_positions,
    loss,
    next_token_pairs,
    pack,
)

__all__ = ["bits_per_byte", "document_mask", "document_positions", "loss", "next_token_pairs", "pack"]
