"""From scores to a token: what may be drawn, with which probability, and where a text ends."""

from techtree.techs.inference.sampling.sampling import (
    Sampling,
    StopStrings,
    distribution,
    draw,
    generate,
    penalize,
    probabilities,
)

__all__ = ["Sampling", "StopStrings", "distribution", "draw", "generate", "penalize", "probabilities"]
