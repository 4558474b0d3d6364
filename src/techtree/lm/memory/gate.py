"""How much a memory is believed: its distribution and the model's become one.

    p = g_0 p_model + g_1 p_text + g_2 p_repository        g = softmax(0, w_1 f_1, w_2 f_2)

``p_text`` and ``p_repository`` are what followed where the last tokens stood before: in the text at hand, and
in the files around it. The features ``f`` of a match are known before the token is: how many tokens agree, in
how many places, how much those agree on what follows, and how sure the model is. The weights ``w`` were
learned on projects that no model here was trained on (`bench/memory.py`); they are the same for every model,
as the model speaks for itself by its certainty.

Mixing with a cache: Grave et al. 2016, https://arxiv.org/abs/1612.04426; with what followed similar places:
Khandelwal et al. 2019, https://arxiv.org/abs/1911.00172.

Shapes: ``V`` vocabulary, ``F`` features.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from techtree.lm.memory.index import LONGEST_MATCH, Match

TEXT_WEIGHTS = (-4.9, -1.3, -0.26, 0.54, -0.52, 3.41, -0.93, 1.4, 0.51, -0.84)
REPOSITORY_WEIGHTS = (-5.61, 0.22, 0.06, 0.24, 0.59, 1.46, -0.65, 0.83, 0.08, 0.77)


def features(match: Match, best_token: int, best_log_p: float) -> Float[np.ndarray, " F"]:
    """Return what decides how much a match is believed.

    Parameters
    ----------
    match
        Of the last tokens.
    best_token
        What the model holds for most probable.
    best_log_p
        The logarithm of that probability.
    """
    length, share = math.log(match.n_tokens), match.counts[0] / match.counts.sum()
    agrees = float(match.followers[0] == best_token)
    return np.array(
        [
            1.0,
            length,
            length**2,
            math.log(match.n_places),
            share,
            share * length,
            best_log_p,
            agrees,
            agrees * best_log_p,
            float(match.n_tokens >= LONGEST_MATCH),
        ]
    )


def mixed(logits: Float[Tensor, " V"], text: Match | None, repository: Match | None) -> Float[Tensor, " V"]:
    """Return scores whose softmax is the mixture.

    Parameters
    ----------
    logits
        The model's.
    text, repository
        What stood in the text at hand and in the files around it, where something did.

    Returns
    -------
    Tensor
        The same where there is no match; else only those of followers differ from the model's.
    """
    memories: Sequence[tuple[Match, tuple[float, ...]]] = [
        (match, weights)
        for match, weights in ((text, TEXT_WEIGHTS), (repository, REPOSITORY_WEIGHTS))
        if match is not None
    ]
    if not memories:
        return logits
    log_p = torch.log_softmax(logits.float(), 0)
    best_token = int(log_p.argmax())
    best_log_p = log_p[best_token].item()
    gates = np.array(
        [0.0] + [features(match, best_token, best_log_p) @ weights for match, weights in memories]
    )
    gates = np.exp(gates - gates.max())
    gates /= gates.sum()
    tokens = np.unique(np.concatenate([match.followers for match, _ in memories]))
    p = gates[0] * log_p[tokens].exp().double().numpy()
    for gate, (match, _) in zip(gates[1:], memories, strict=True):
        p[np.searchsorted(tokens, match.followers)] += gate * match.counts / match.counts.sum()
    scores = logits.clone()
    # Scores count up to a constant: instead of the rest's going down, the followers' go up.
    shift = logits[best_token].item() - best_log_p - math.log(gates[0])
    scores[tokens] = torch.from_numpy(np.log(p) + shift).to(logits.dtype)
    return scores
