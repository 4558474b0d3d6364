"""Near-duplicate documents, found by MinHash and locality-sensitive hashing.

A copy that differs in a comment teaches nothing new, and when it lies in the held-out half of a
split it turns an honest measurement into a test of memory. Two documents count as the same when
their sets of shingles (runs of five words) have a Jaccard similarity of at least a threshold.

Comparing all pairs costs n^2. Instead each set is reduced to a signature of the smallest values of
64 hash functions: two signatures agree in a place with a probability equal to the similarity
(Broder 1997). Signatures are cut into 16 bands of 4; documents that agree in a whole band are
candidates (Indyk and Motwani 1998), found by dictionary. At similarity s a pair becomes a candidate with
probability 1 - (1 - s^4)^16: 0.99 at 0.7, 0.9998 at 0.8, 0.03 at 0.2. Candidates are then compared exactly.

Arrays: `S` shingles of a document, `H` hash functions.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

from techtree.lm.data.corpus import Document

THRESHOLD = 0.7
"""As for the StarCoder corpus."""

SHINGLE_WORDS = 5
N_BANDS = 16
ROWS_PER_BAND = 4

_WORD = re.compile(r"\w+|[^\w\s]")
_HASHES = np.random.default_rng(2718).integers(0, 2**64, (2, N_BANDS * ROWS_PER_BAND, 1), dtype=np.uint64)


def without_near_duplicates(documents: Sequence[Document], threshold: float = THRESHOLD) -> list[Document]:
    """Return the documents without those that nearly equal an earlier one that is kept.

    Parameters
    ----------
    documents
        In the order of preference: of several that are alike, the first stays.
    threshold
        The least Jaccard similarity of shingles at which two documents count as alike, in (0, 1].

    Notes
    -----
    Two documents that only differ in white space are equal here. The result depends on nothing but the
    arguments: words are hashed by CRC-32, not by Python's randomised `hash`.
    """
    kept: list[Document] = []
    kept_shingles: list[np.ndarray] = []
    kept_by_band: dict[tuple[int, bytes], list[int]] = {}
    word_hash = _WordHash()
    for document in documents:
        found = shingles(document.text, word_hash)
        bands = list(enumerate(_bands(found)))
        candidates = {i for band in bands for i in kept_by_band.get(band, ())}
        if any(jaccard(found, kept_shingles[i]) >= threshold for i in candidates):
            continue
        for band in bands:
            kept_by_band.setdefault(band, []).append(len(kept))
        kept.append(document)
        kept_shingles.append(found)
    return kept


def shingles(text: str, word_hash: "_WordHash | None" = None) -> UInt64[np.ndarray, " S"]:
    """Return the set of hashed shingles of a text, sorted; a shorter text is one shingle."""
    word_hash = _WordHash() if word_hash is None else word_hash
    words = np.array([word_hash[word] for word in _WORD.findall(text)], dtype=np.uint64)
    n_words = min(SHINGLE_WORDS, len(words))
    n_shingles = len(words) - n_words + 1
    hashed = np.zeros(n_shingles, dtype=np.uint64)
    for place in range(n_words):
        hashed = _mixed(hashed ^ words[place : place + n_shingles])
    return np.unique(hashed)


def jaccard(a: UInt64[np.ndarray, " S"], b: UInt64[np.ndarray, " T"]) -> float:
    """Return the size of the intersection of two sets over that of their union.

    >>> jaccard(np.array([1, 2, 3], np.uint64), np.array([2, 3, 4], np.uint64))
    0.5
    """
    n_common = len(np.intersect1d(a, b, assume_unique=True))
    return n_common / (len(a) + len(b) - n_common)


class _WordHash(dict[str, int]):
    """The CRC-32 of each word, computed once for each."""

    def __missing__(self, word: str) -> int:
        self[word] = value = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return value


def _mixed(x: UInt64[np.ndarray, " S"]) -> UInt64[np.ndarray, " S"]:
    """Return each number with its bits mixed, one to one: the last step of SplitMix64, after an increment."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _bands(found: UInt64[np.ndarray, " S"]) -> list[bytes]:
    """Return the MinHash signature of a set, cut into bands.

    The hash functions multiply by an odd number and add, modulo 2^64; their arguments are mixed well
    already, so that the upper bits of the products are as good as random.
    """
    factors, offsets = _HASHES
    signature = ((factors | np.uint64(1)) * found + offsets).min(axis=1)  # (H,)
    return [band.tobytes() for band in signature.reshape(N_BANDS, ROWS_PER_BAND)]
