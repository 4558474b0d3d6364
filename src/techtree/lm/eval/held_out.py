"""The text that every model is measured on, and the unit of the measure.

Bits per byte are what a model needs to encode a text, per byte of its UTF-8: unlike a loss per token,
they compare models with different tokenizers. Every token of a document counts, and the
`<|endoftext|>` after it; the one before it is context only (`techtree.lm.data.token_sequence`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from techtree.errors import InputError
from techtree.lm.data.corpus import Document


@dataclass(frozen=True)
class Score:
    """What a model needs for a text.

    Parameters
    ----------
    bits
        The sum of -log2 of the probabilities of all tokens.
    n_tokens
        The tokens that were predicted, each document's end included.
    n_bytes
        The size of the documents in UTF-8.
    """

    bits: float
    n_tokens: int
    n_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The measure: less is better."""
        return self.bits / self.n_bytes

    @property
    def bits_per_token(self) -> float:
        """Comparable only between models with the same tokenizer; its power of two is the perplexity."""
        return self.bits / self.n_tokens


def evaluated(documents: Sequence[Document], max_bytes: int | None) -> list[Document]:
    """Choose the documents to measure on, the same for every model.

    Parameters
    ----------
    documents
        Of the held-out half of the split.
    max_bytes
        How much text may be measured; None for all.

    Returns
    -------
    list of Document
        Whole documents in the order of a hash of their texts (an order by path would measure one
        package), as many as fit; at least one.

    Raises
    ------
    InputError
        When there is no document.
    """
    if not documents:
        raise InputError("an evaluation needs held-out documents; got none: split some off before training")
    if max_bytes is None:
        return list(documents)
    chosen = []
    for document in sorted(documents, key=lambda d: hashlib.blake2b(d.text.encode("utf-8")).digest()):
        if document.n_bytes <= max_bytes:
            chosen.append(document)
            max_bytes -= document.n_bytes
    return chosen or [min(documents, key=lambda d: (d.n_bytes, d.text))]
