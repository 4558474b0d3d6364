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
    matrices: dict[str, Tensor] = {}
    tables: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        is_table = parameter is model.head or parameter is model.model.embed_tokens.weight
        kind = gains if parameter.ndim == 1 else tables if is_table else matrices
        kind[name] = parameter
    return {
        "muon": Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay, dtype=dtype),
        "tables": AdamW(tables, lr=config.embedding_lr),
        "gains": AdamW(gains, lr=config.gain_lr),
    }
