"""A guess of the next tokens, which the model checks all at once, so that one call gives several."""

from techtree.techs.inference.speculative.speculative import (
    ModelDraft,
    acceptance,
    generate_speculative,
    prompt_lookup,
    tokens_per_call,
    verify,
)

__all__ = ["ModelDraft", "acceptance", "generate_speculative", "prompt_lookup", "tokens_per_call", "verify"]
