"""A document as every model of this project sees it, neural or n-gram."""

import numpy as np
from jaxtyping import Int32

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.tokenizer import Tokenizer


def token_sequence(text: str, tokenizer: Tokenizer) -> Int32[np.ndarray, " T"]:
    """Return a document's ids between two `<|endoftext|>`.

    The first one is the context of the first word and is never predicted. The last one is predicted: to
    know where a text ends is part of knowing the text.
    """
    return _between_ends(tokenizer.encode(text), tokenizer)


def measured_sequence(document: Document, tokenizer: Tokenizer) -> Int32[np.ndarray, " T"]:
    """Return the same for a document on which a figure depends: its ids are of every byte of its text.

    A tokenizer that composes characters (NFC) gives ids of another text, where that differs; here it does not
    compose. So the figure is that of a code from which the text can be read back.

    Raises
    ------
    InputError
        When the ids do not decode to the text.
    """
    ids = tokenizer.encode(document.text, is_exact=True)
    if (found := tokenizer.decode_bytes(ids)) != document.text.encode("utf-8"):
        raise InputError(
            f"a figure must count all of a text; of {document.path}, with {document.n_bytes:,} bytes, the "
            f"tokenizer keeps {len(found):,}: use another tokenizer"
        )
    return _between_ends(ids, tokenizer)


def _between_ends(ids: list[int], tokenizer: Tokenizer) -> Int32[np.ndarray, " T"]:
    end = tokenizer.end_of_text_id
    return np.array([end, *ids, end], dtype=np.int32)
