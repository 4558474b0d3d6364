"""The weights before the first step."""

import math

import torch
from torch import nn

from techtree.lm.model.language_model import LanguageModel

EMBEDDING_STD = 0.2
HEAD_STD = 0.02
"""The first logits must be small; an embedding that is a head too is as small as a head."""

_ZERO = (".bias", "o_proj.weight", "down_proj.weight", "experts.down_proj", "embed_ngrams.weight")


def initialize(model: LanguageModel, generator: torch.Generator) -> None:
    """Draw all weights of a model anew.

    A matrix has entries of standard deviation ``1 / sqrt(d_in)``, so that it keeps the scale of what
    it multiplies. The matrices that write to the residual stream (`o_proj`, `down_proj`) start at
    zero: every layer begins as the identity, and the gradient reaches all of them undamped. The head is
    small, and so are the first logits. Vectors of n-grams start at zero too: they add to their tokens'.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif name.endswith(_ZERO):
                nn.init.zeros_(parameter)
            elif parameter is model.head:
                nn.init.normal_(parameter, std=HEAD_STD, generator=generator)
            elif name.endswith(("embed_tokens.weight", "embed_positions.weight")):
                nn.init.normal_(parameter, std=EMBEDDING_STD, generator=generator)
            else:
                nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]), generator=generator)
