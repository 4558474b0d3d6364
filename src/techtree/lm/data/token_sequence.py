"""A document as every model of this project sees it, neural or n-gram."""

import numpy as np
from jaxtyping import Int32

from techtree.lm.tokenizer import Tokenizer


def token_sequence(text: str, tokenizer: Tokenizer) -> Int32[np.ndarray, " T"]:
    """Return a document's ids between two `<|endoftext|>`.

    The first one is the context of the first word and is never predicted. The last one is predicted: to
    know where a text ends is part of knowing the text.
    """
    end = tokenizer.end_of_text_id
    return np.array([end, *tokenizer.encode(text), end], dtype=np.int32)
