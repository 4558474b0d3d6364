"""What a model would have been reminded of at every place of texts that are known."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from techtree.lm.data.corpus import Document
from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.index import LONGEST_MATCH, Match, TokenIndex
from techtree.lm.tokenizer import Tokenizer

Reminder = tuple[Match | None, Match | None]
"""What stood in the text so far, and in the others."""


def reminders(
    documents: Sequence[Document],
    sequences: Sequence[Int32[np.ndarray, " T"]],
    project: Sequence[Document],
    tokenizer: Tokenizer,
) -> list[list[Reminder]]:
    """Return for each document, after each of its tokens, what the model is reminded of.

    Parameters
    ----------
    documents, sequences
        The texts, and their tokens.
    project
        The texts to remember. A document is never reminded of one with its own path, or its own text.
    tokenizer
        The model's.
    """
    index = TokenIndex([tokenizer.encode(document.text) for document in project])
    found = []
    for document, sequence in zip(documents, sequences, strict=True):
        hidden = [each.path == document.path or each.text == document.text for each in project]
        is_hidden = np.array(hidden, bool)
        text = GrowingText()
        of_document: list[Reminder] = []
        for token in sequence[:-1].tolist():
            text.append(token)
            of_document.append((text.match(), index.match(text.ids[-LONGEST_MATCH:], is_hidden)))
        found.append(of_document)
    return found
