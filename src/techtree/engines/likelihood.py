"""How likely a token was that a model has written.

    scores of the model  ->  log-softmax  ->  that of the token, and the largest few

The probabilities are the model's own, before temperature and truncation, as OpenAI's API has them.
"""

from typing import Any

import numpy as np

from techtree.engines.engine import Likelihood, WrittenToken
from techtree.lm.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""For the logarithm of 0, as OpenAI has it: JSON knows no infinity."""


def written_token(tokenizer: Tokenizer, token: int, start: int, scores: Any, n_top: int) -> WrittenToken:
    """Return a token with its likelihood.

    Parameters
    ----------
    tokenizer
        The model's.
    token
        What was written.
    start
        Where in the text it begins.
    scores
        The model's, for all tokens at this place: an array or a tensor.
    n_top
        How many of the likeliest tokens to name.
    """
    logprobs = _log_softmax(np.asarray(scores, dtype=np.float64))
    best = np.argsort(-logprobs, kind="stable")[:n_top]
    return WrittenToken(
        _bytes_of(tokenizer, token),
        float(logprobs[token]),
        start,
        tuple(Likelihood(_bytes_of(tokenizer, int(i)), float(logprobs[i])) for i in best),
    )


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max()
    return np.maximum(shifted - np.log(np.exp(shifted).sum()), MIN_LOGPROB)


def _bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    return tokenizer.decode_bytes([token]) if tokenizer.has_bytes(token) else b""
