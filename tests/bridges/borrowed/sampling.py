"""The warpers of transformers, in the lesson's order, behind the exercise's names."""

import math
from typing import Any

import numpy as np
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from techtree.techs.inference.sampling import Sampling, StopStrings, draw, generate

__all__ = ["Sampling", "StopStrings", "distribution", "draw", "generate", "penalize", "probabilities"]

_NO_TEXT: Any = torch.zeros((1, 0), dtype=torch.long)


def _scores(logits):
    scores = np.array(logits, np.float64)
    if scores.ndim != 1 or not scores.size or not math.isfinite(scores.max()):
        raise ValueError("logits must be (V,), below infinity, and one finite")
    return torch.tensor(scores)[None]


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Theirs keep all that equal the last one, and lose what rounding hides at top_p = 1."""
    Sampling(temperature, top_k, top_p, min_p)
    scores = _scores(logits)
    n = scores.shape[-1]
    order = torch.sort(scores[0], descending=True, stable=True).indices
    kept = scores[:, order]
    if temperature == 0 or top_k:
        ranks = -torch.arange(n, dtype=torch.float64)[None]
        is_out = TopKLogitsWarper(1 if temperature == 0 else top_k)(_NO_TEXT, ranks).isinf()
        kept = kept.masked_fill(is_out, -math.inf)
    if temperature > 0:
        if top_p < 1:  # from the least likely one on, as they sort
            kept = TopPLogitsWarper(float(top_p))(_NO_TEXT, kept.flip(-1)).flip(-1)
        if min_p > 0:
            kept = MinPLogitsWarper(float(min_p))(_NO_TEXT, kept)
        kept = TemperatureLogitsWarper(float(temperature))(_NO_TEXT, kept - kept[0, 0])
    found = np.zeros(n)
    found[order.numpy()] = torch.softmax(kept, dim=-1)[0].numpy()
    return found


def penalize(logits, ids, repetition=1.0, presence=0.0, frequency=0.0):
    """Theirs has no presence and no frequency."""
    Sampling(repetition=repetition, presence=presence, frequency=frequency)
    scores, text = _scores(logits), np.asarray(ids)
    n = scores.shape[-1]
    if not text.size:
        return scores[0].numpy()
    if text.dtype.kind not in "iu" or text.min() < 0 or text.max() >= n:
        raise ValueError("ids must be tokens")
    known: Any = torch.tensor(text.astype(np.int64))
    count = torch.bincount(known, minlength=n).double()
    lowered = RepetitionPenaltyLogitsProcessor(float(repetition))(known[None], scores)[0]
    return (lowered - presence * count.clamp(max=1) - frequency * count).numpy()


def distribution(logits, ids, settings):
    lowered = penalize(logits, ids, settings.repetition, settings.presence, settings.frequency)
    return probabilities(lowered, settings.temperature, settings.top_k, settings.top_p, settings.min_p)
