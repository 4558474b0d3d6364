"""Which optimizer moves which parameter, and how far."""

import torch
from torch import Tensor

from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.adamw import AdamW
from techtree.lm.train.muon import Muon
from techtree.lm.train.scaling import Rates
from techtree.lm.train.strategy import Strategy

Optimizer = Muon | AdamW

_TABLES = ("embed_tokens.weight", "embed_positions.weight")
_NGRAMS = "embed_ngrams.weight"
_ROUTER = "mlp.gate.weight"


def optimizers(strategy: Strategy, rates: Rates, dtype: torch.dtype) -> dict[str, Optimizer]:
    """Return Muon for the layers' matrices, and AdamW for tables, head, router, gains and biases.

    A row of a table is a vector that is looked up, no linear map between spaces with a scale:
    orthogonalizing it means nothing. A router is a head over experts. ``dtype`` is the precision of Muon's
    matrix products. A table of n-grams has no average of gradients: most rows would go on moving by it
    long after their n-gram came up.
    """
    groups: dict[str, dict[str, Tensor]] = {
        "muon": {},
        "embedding": {},
        "ngrams": {},
        "head": {},
        "gains": {},
    }
    for name, group in groups_of(strategy.model).items():
        groups[group][name] = strategy.parameters[name]
    made: dict[str, Optimizer] = {
        "muon": Muon(
            groups["muon"],
            lr=rates.muon_lr,
            weight_decay=rates.weight_decay,
            dtype=dtype,
            apply_whole=strategy.apply_whole,
        ),
        "embedding": AdamW(groups["embedding"], lr=rates.embedding_lr),
        "gains": AdamW(groups["gains"], lr=rates.gain_lr),
    }
    if groups["head"]:
        made["head"] = AdamW(groups["head"], lr=rates.head_lr)
    if groups["ngrams"]:
        made["ngrams"] = AdamW(groups["ngrams"], lr=rates.embedding_lr, betas=(0.0, 0.95))
    return made


def groups_of(model: LanguageModel) -> dict[str, str]:
    """Return the group of each parameter, the largest parameters first.

    In this order, which is the same on all ranks, neighbours are about equally much work.
    """
    found = {}
    for name, parameter in sorted(model.named_parameters(), key=lambda pair: -pair[1].numel()):
        if name.endswith(_TABLES):
            found[name] = "embedding"
        elif name.endswith(_NGRAMS):
            found[name] = "ngrams"
        elif parameter is model.head or name.endswith(_ROUTER):
            found[name] = "head"
        else:
            found[name] = "gains" if parameter.ndim == 1 else "muon"
    return found
