"""Texts become rows of tokens in which every token is a question and the answer to the one before.

Claim: a language model needs no labels. Each token of a text is what comes after those before it, so a row of
T + 1 tokens holds T questions with their answers, and a model that cannot look ahead answers all at once.

Idea: put an *end* token between documents, write everything into one stream, cut it into rows of one length.
Answers are the same row, one place further. Where a document ends, the end token says so: it is the last
answer of one document and the first question of the next.

Legend: ``end`` the id of the end token; ``T`` the questions in a row, ``length``; ``ids`` (..., T) a row's
questions; the *document* of a place is everything from the last ``end`` at or before it up to it, as far as
the row holds it. Padding is ``end`` after ``end``: documents are not empty, so that this means nothing else.

Left out: rows that begin where documents do (`best fit`), which wastes tokens to save contexts; weights for
some of the answers (`sft`).

Paper: Bengio and others (2003), https://www.jmlr.org/papers/v3/bengio03a.html
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.text.bpe import BPE
from techtree.techs.training.cross_entropy import cross_entropy

IGNORED = -100
"""The target of a question that does not count, as for `cross_entropy`."""


def pack(documents: Iterable[Sequence[int]], length: int, end: int) -> np.ndarray:
    """Write documents into rows of one length, without a gap.

    Parameters
    ----------
    documents
        The ids of each, as a list, a tuple or an array of integers; walked once. Those without tokens are
        left out.
    length
        T, at least 1.
    end
        An id that occurs in no document.

    Returns
    -------
    np.ndarray
        (n_rows, T + 1), int64. The stream is ``end``, then each document in turn with ``end`` after it. Row i
        holds its tokens from ``i * T`` to ``i * T + T``, both included: the last token of a row is the first
        of the next. There are as many rows as it takes for each token but the first to be in one at a place
        other than the first; the last is filled up with ``end``. Without a token in any document, no rows.

    Raises
    ------
    ValueError
        When ``length`` is less than 1, or a document holds ``end``.

    Examples
    --------
    >>> pack([[5, 6, 7], [8]], length=4, end=0).tolist()  # 0 5 6 7 0 8 0
    [[0, 5, 6, 7, 0], [0, 8, 0, 0, 0]]
    """
    if length < 1:
        raise ValueError(f"length must be at least 1; got {length}")
    stream = [end]
    for number, document in enumerate(documents):
        tokens = [int(token) for token in document]
        if end in tokens:
            raise ValueError(f"no document may hold the end token, {end}; document {number} does")
        stream += [*tokens, end] if tokens else []
    n_rows = -(-(len(stream) - 1) // length)
    padded = np.full(n_rows * length + 1, end, np.int64)
    padded[: len(stream)] = stream
    return padded[np.arange(n_rows)[:, None] * length + np.arange(length + 1)]


def next_token_pairs(rows: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Make questions and answers of rows.

    Parameters
    ----------
    rows
        (..., T + 1), integers of any dtype, with any leading axes or none; not changed.
    end
        The end token.

    Returns
    -------
    inputs, targets : np.ndarray
        (..., T), int64, new arrays. The inputs are all tokens of a row but the last. The target of a place
        is the token behind it; -100 where this one and the input are both ``end``, which is padding.

    Raises
    ------
    ValueError
        When rows have no axis, no token in the last one, or another dtype than integers.

    Examples
    --------
    >>> inputs, targets = next_token_pairs(np.array([[0, 8, 0, 0, 0]]), end=0)
    >>> inputs.tolist(), targets.tolist()  # 8 after the end, the end after 8, and two that do not count
    ([[0, 8, 0, 0]], [[8, 0, -100, -100]])
    """
    rows = np.asarray(rows)
    if rows.dtype.kind not in "iu" or rows.ndim == 0 or rows.shape[-1] == 0:
        raise ValueError(f"rows must be integers, (..., T + 1); got {rows.dtype} of shape {rows.shape}")
    rows = rows.astype(np.int64)
    inputs, targets = rows[..., :-1].copy(), rows[..., 1:].copy()
    targets[(inputs == end) & (targets == end)] = IGNORED
    return inputs, targets


def document_mask(ids: np.ndarray, end: int) -> np.ndarray:
    """Say which token may see which: its own document's, up to itself.

    Parameters
    ----------
    ids
        (..., T), with any leading axes or none; not changed.
    end
        The end token. It belongs to the document that it begins.

    Returns
    -------
    np.ndarray
        (..., T, T), boolean, for `attention`: True at [i, j] where j is i or before it, and no ``end`` stands
        after j up to i, i included.

    Raises
    ------
    ValueError
        When ids have no axis.

    Examples
    --------
    >>> document_mask(np.array([5, 0, 8]), end=0).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    document = np.cumsum(_with_an_axis(ids) == end, axis=-1)
    is_same = document[..., :, None] == document[..., None, :]
    return is_same & np.tri(document.shape[-1], dtype=bool)


def document_positions(ids: np.ndarray, end: int) -> np.ndarray:
    """Count each document's places from 0.

    Parameters
    ----------
    ids
        (..., T), with any leading axes or none; not changed.
    end
        The end token, at which the count begins.

    Returns
    -------
    np.ndarray
        (..., T), int64: how many tokens after the last ``end`` at or before it; where there is none, how many
        after the beginning of the row.

    Raises
    ------
    ValueError
        When ids have no axis.

    Examples
    --------
    >>> document_positions(np.array([5, 6, 0, 8, 9]), end=0).tolist()
    [0, 1, 0, 1, 2]
    """
    ids = _with_an_axis(ids)
    place = np.arange(ids.shape[-1], dtype=np.int64)
    return place - np.maximum.accumulate(np.where(ids == end, place, 0), axis=-1)


def loss(model: Callable[[np.ndarray], Tensor], rows: np.ndarray, end: int) -> tuple[Tensor, int]:
    """Measure the model's surprise at the next tokens, as `train_loop` wants it.

    Parameters
    ----------
    model
        Called once with the inputs of the rows, (..., T); returns logits (..., T, vocab_size) in which those
        of a place do not depend on later inputs.
    rows, end
        As for `next_token_pairs`.

    Returns
    -------
    total : Tensor
        Of shape (): the sum of the cross-entropies of all targets that count, in nats. Gradients flow through
        the logits.
    n_counted : int
        How many count.

    Raises
    ------
    ValueError
        As `next_token_pairs` and `cross_entropy` do: also for logits of another shape, and for a token that
        is not in the vocabulary.

    Examples
    --------
    >>> total, n = loss(lambda ids: Tensor(np.zeros((*ids.shape, 9))), np.array([[0, 8, 0, 0, 0]]), end=0)
    >>> round(float(total.data) / n, 6), n  # log(9) for each of two
    (2.197225, 2)
    """
    inputs, targets = next_token_pairs(rows, end)
    total = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction="sum")
    return total, int((targets != IGNORED).sum())


def bits_per_byte(
    model: Callable[[np.ndarray], Tensor],
    texts: Sequence[str],
    tokenizer: BPE,
    length: int,
    end: int,
    batch_size: int = 16,
) -> float:
    """Return what texts cost under a model, in bits, divided by their bytes in UTF-8.

    Parameters
    ----------
    model
        As for `loss`; nothing is recorded for gradients.
    texts
        In this order they are encoded and packed. Names of special tokens in them are text like any other.
    tokenizer
        Its ``encode`` gives the ids of a text.
    length, end
        As for `pack`.
    batch_size
        How many rows the model gets at once, at least 1; fewer in the last batch. Batches have two axes.

    Returns
    -------
    float
        The sum of all targets' losses, those of the end tokens included, divided by ln 2 and the bytes of
        all texts. It is added up in float64, whatever the dtype of the logits.

    Raises
    ------
    ValueError
        When the texts have no byte, ``batch_size`` is less than 1, or as for `pack`.

    Examples
    --------
    >>> model = lambda ids: Tensor(np.zeros((*ids.shape, 512)))  # 9 bits for each token
    >>> bits_per_byte(model, ["ab", "", "é"], BPE([], {"<end>": 0}), length=4, end=0)  # 4 bytes and 2 ends
    13.5
    """
    n_bytes = sum(len(text.encode("utf-8")) for text in texts)
    if not n_bytes or batch_size < 1:
        raise ValueError(f"texts must have a byte, batches a row; got {n_bytes} bytes, {batch_size} rows")
    rows = pack([tokenizer.encode(text) for text in texts], length, end)
    total = 0.0
    with no_grad():
        for start in range(0, len(rows), batch_size):
            inputs, targets = next_token_pairs(rows[start : start + batch_size], end)
            losses = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction="none")
            total += float(losses.data.sum(dtype=np.float64))
    return total / math.log(2) / n_bytes


def _with_an_axis(ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim == 0:
        raise ValueError("ids must have an axis of tokens, (..., T); got a single number")
    return ids
