"""Softmax without overflow, errors that mean something, random numbers that repeat.

Claim: exp of a large number overflows, yet softmax and log-sum-exp are never in danger, because
subtracting the same number from every logit does not change a softmax.

Legend: ``x`` logits, any shape; ``m`` the largest logit along the axis, that axis kept with length 1.

Left out: compensated summation. In float32 the plain sum is good to about 1e-6, and no technology of
this tree needs more.

Paper: Blanchard, Higham, Higham (2021), https://doi.org/10.1093/imanum/draa038
"""

import numpy as np


def logsumexp(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Compute ``log(sum(exp(x)))`` along an axis without overflow or underflow.

    Parameters
    ----------
    x
        Logits, finite or ``-inf``; not changed. Integers and booleans count as float64, floats keep their
        dtype; in float16 the axis has at most 100 entries, and no two logits are farther apart than the
        dtype reaches. Other axes than ``axis`` may be empty.
    axis
        The axis that is summed over, and that the result no longer has.

    Returns
    -------
    np.ndarray
        A new array. For an axis of only ``-inf``: ``-inf``, the log of an empty sum.

    Notes
    -----
    ``log(sum(exp(x))) = m + log(sum(exp(x - m)))`` for every m; with m = max(x) the largest
    exponential is exp(0) = 1.

    Examples
    --------
    >>> float(logsumexp(np.array([1000.0, 1000.0])))  # 1000 + log(2)
    1000.6931471805599
    """
    x = _as_float(x)
    m = _finite_max(x, axis)
    with np.errstate(divide="ignore"):  # log(0) = -inf is the right answer for an axis of -inf
        return np.log(np.exp(x - m).sum(axis=axis)) + m.squeeze(axis)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Turn logits into probabilities: positive, summing to 1 along an axis.

    Parameters
    ----------
    x
        Logits, finite or ``-inf``, at least one finite along the axis; not changed. Dtypes as in `logsumexp`.
    axis
        The axis along which the result sums to 1.

    Returns
    -------
    np.ndarray
        A new array of the shape of ``x``: ``exp(x) / sum(exp(x))``. A logit of ``-inf`` gives exactly 0.

    Examples
    --------
    >>> softmax(np.log([1.0, 2.0, 5.0])).round(3).tolist()
    [0.125, 0.25, 0.625]
    """
    x = _as_float(x)
    exponentials = np.exp(x - _finite_max(x, axis))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Compute ``log(softmax(x))`` without taking the log of a rounded probability.

    Parameters
    ----------
    x
        Logits, finite or ``-inf``, at least one finite along the axis; not changed. Dtypes as in `logsumexp`.
    axis
        The axis along which the exponentials of the result sum to 1.

    Returns
    -------
    np.ndarray
        A new array of the shape of ``x``; finite wherever ``x`` is, also where the probability underflows.

    Examples
    --------
    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    x = _as_float(x)
    shifted = x - _finite_max(x, axis)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def relative_error(actual: np.ndarray, expected: np.ndarray, floor: float = 1e-8) -> float:
    """Return the largest difference between two arrays, relative to the size of the entries.

    Parameters
    ----------
    actual, expected
        Arrays of the same shape and of any dtypes, lists or numbers; they are compared in float64. Finite
        entries lie within 1e300.
    floor
        The smallest size that an entry is measured against. It keeps rounding noise around 0 from
        counting as an error of 100 %.

    Returns
    -------
    float
        The maximum of ``|actual - expected| / max(|actual|, |expected|, floor)``; 0 for empty arrays. Equal
        infinities differ by 0. A NaN on either side, or an infinity on one, gives ``inf``: it
        must fail every comparison.

    Raises
    ------
    ValueError
        When the shapes differ. (Broadcasting would compare each entry with many others.)

    Examples
    --------
    >>> relative_error(np.array([100.0, 2.0]), np.array([101.0, 2.0]))  # 1 / 101
    0.009900990099009901
    """
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if actual.shape != expected.shape:
        raise ValueError(f"the shapes must be equal to compare; got {actual.shape} and {expected.shape}")
    differing = actual != expected  # also true where a side is NaN
    actual, expected = actual[differing], expected[differing]
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    size = np.maximum(np.maximum(np.abs(actual), np.abs(expected)), floor)
    return float(np.max(np.abs(actual - expected) / size, initial=0.0))


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one purpose, independent of those of every other purpose.

    Parameters
    ----------
    seed
        Of the whole experiment: an integer of any size, at least 0.
    name
        Of the purpose: ``"initial weights"``, ``"shuffle, epoch 3"``.

    Returns
    -------
    np.random.Generator
        A new generator. The same numbers for the same seed and name, in every process and on every machine;
        unrelated numbers when either differs in anything.

    Examples
    --------
    >>> a, b = random_stream(0, "dropout"), random_stream(0, "dropout")
    >>> bool(a.random() == b.random())
    True
    """
    # Not hash(name): Python salts it anew in each process. SeedSequence mixes the numbers thoroughly,
    # so that neighbouring seeds give unrelated streams. It cuts large seeds into words of 32 bits: the
    # length in front says where the name ends and the seed begins.
    letters = name.encode("utf-8")
    return np.random.default_rng([len(letters), *letters, seed])


def _as_float(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)


def _finite_max(x: np.ndarray, axis: int) -> np.ndarray:
    """Return the maximum with its axis kept; 0 where all is -inf, because -inf - -inf is NaN."""
    m = x.max(axis=axis, keepdims=True)
    return np.where(np.isfinite(m), m, np.zeros_like(m))
