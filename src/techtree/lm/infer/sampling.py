"""From logits to the next token: greedy, or drawn from a truncated and tempered distribution.

Shapes: ``V`` vocabulary.

The order is that of llama.cpp, whose clients set these numbers: top-k, top-p and min-p choose the tokens
that may be drawn, by the model's own probabilities; then the temperature sharpens or flattens what is
left. With temperature 0 the most probable token is taken, and nothing else matters.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from techtree.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen."""

    temperature: float = 0.0
    """0 takes the most probable token; 1 draws from the model's own distribution."""

    top_k: int = 0
    """Draw from so many most probable tokens only; 0 means all."""

    top_p: float = 1.0
    """Draw from the fewest most probable tokens that have this probability together."""

    min_p: float = 0.0
    """Draw from tokens with at least this fraction of the most probable one's probability."""

    seed: int | None = None
    """For the same draws each time; without it, they differ."""

    def __post_init__(self):
        """Refuse what is not a distribution."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be 0 or more; got {self.temperature}")
        if self.top_k < 0:
            raise InputError(f"top_k must be 0 (all tokens) or more; got {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise InputError(f"top_p must be from 0 to 1; got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be from 0 to 1; got {self.min_p}")


def distribution(logits: Float[Tensor, " V"], params: SamplingParams) -> Float[Tensor, " V"]:
    """Return the probability with which each token is drawn.

    Parameters
    ----------
    logits
        The model's scores for the next token.
    params
        With temperature 0, the most probable token gets probability 1.
    """
    if params.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), logits.numel()).to(logits.dtype)
    kept, tokens = torch.sort(logits, descending=True, stable=True)
    if 0 < params.top_k < kept.numel():
        kept, tokens = kept[: params.top_k], tokens[: params.top_k]
    p = torch.softmax(kept, dim=0)
    # A token stays if those before it have not reached top_p yet; so the first one always stays.
    is_kept = p >= params.min_p * p[0]
    if params.top_p < 1:  # else the rest would be lost whose share rounding hides
        is_kept &= p.cumsum(0) - p < params.top_p
    is_kept[0] = True
    # The largest is subtracted first: a tiny temperature must not overflow.
    sharpened = torch.softmax((kept[is_kept] - kept[0]) / params.temperature, dim=0)
    return torch.zeros_like(logits).index_copy_(0, tokens[is_kept], sharpened)


def sample(logits: Float[Tensor, " V"], params: SamplingParams, generator: torch.Generator) -> int:
    """Return the next token.

    Parameters
    ----------
    logits
        The model's scores for it.
    params
        How to choose.
    generator
        Where the randomness comes from; untouched at temperature 0.

    Raises
    ------
    InputError
        When the scores are no numbers.
    """
    best, token = logits.max(dim=0)
    if not best.isfinite():
        raise InputError(
            f"a model's scores must be numbers; the best one is {best.item():g}: its files are damaged, or "
            "its numbers grow too large for the precision in which it computes"
        )
    if params.temperature == 0:
        return int(token)
    return int(torch.multinomial(distribution(logits, params), 1, generator=generator))


def seeded_generator(params: SamplingParams) -> torch.Generator:
    """Return the source of randomness for one request."""
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator
