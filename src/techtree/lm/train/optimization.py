"""Which optimizer moves which parameter, and how far."""

import torch
from torch import Tensor

from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.adamw import AdamW
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.muon import Muon

Optimizer = Muon | AdamW


def optimizers(model: LanguageModel, config: TrainConfig, dtype: torch.dtype) -> dict[str, Optimizer]:
    """Return Muon for the layers' matrices, and AdamW for the tables and for the norms' gains.

    A row of the embedding table is a vector that is looked up, no linear map between spaces with a
    scale: orthogonalizing it means nothing. ``dtype`` is the precision of Muon's matrix products.
    """
    embedding = model.model.embed_tokens.weight
    groups: dict[str, dict[str, Tensor]] = {"muon": {}, "embedding": {}, "head": {}, "gains": {}}
    for name, parameter in model.named_parameters():
        if parameter is embedding:
            group = "embedding"
        elif parameter is model.head:
            group = "head"
        else:
            group = "gains" if parameter.ndim == 1 else "muon"
        groups[group][name] = parameter
    made: dict[str, Optimizer] = {
        "muon": Muon(groups["muon"], lr=config.muon_lr, weight_decay=config.weight_decay, dtype=dtype),
        "embedding": AdamW(groups["embedding"], lr=config.embedding_lr),
        "gains": AdamW(groups["gains"], lr=config.gain_lr),
    }
    return made | ({"head": AdamW(groups["head"], lr=config.head_lr)} if groups["head"] else {})
