"""Measure what the definition costs: its memory against a contraction's, and multiplications by order."""

import tracemalloc
from collections.abc import Callable
from functools import reduce

import numpy as np

from techtree.techs.ground.einsum import einsum

HEADS, HEAD_DIM = 4, 64
CHAIN = "ab,bc,cd,d->a"


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure peak memory for attention's scores, and count multiplications for a chain of three matrices.

    Parameters
    ----------
    rng
        Draws the entries.
    scale
        The share of the full sizes, in (0, 1].

    Returns
    -------
    dict
        Numbers of tokens, with the peak memory in bytes of the definition, of `einsum` and of the result
        alone; sizes of the matrices, with the multiplications of the definition, of `einsum` on pairs from
        left to right, and of `einsum` on all four at once.
    """
    tokens = [round(n) for n in np.geomspace(16, max(64, 256 * scale), 7)]
    sizes = list(range(2, max(6, round(10 * scale)) + 1))
    return {
        "tokens": tokens,
        "definition_bytes": [_scores_peak(rng, n, _definition) for n in tokens],
        "einsum_bytes": [_scores_peak(rng, n, einsum) for n in tokens],
        "scores_bytes": [HEADS * n * n * 4 for n in tokens],
        "sizes": sizes,
        "definition_multiplications": [_multiplications(n, _definition) for n in sizes],
        "left_to_right_multiplications": [_multiplications(n, _left_to_right) for n in sizes],
        "einsum_multiplications": [_multiplications(n, einsum) for n in sizes],
    }


def _definition(spec: str, *operands: np.ndarray) -> np.ndarray:
    """Give every operand all axes, multiply, sum: for terms that do not repeat letters."""
    inputs, result = spec.split("->")
    letters = result + "".join(sorted({*inputs} - {*result, ","}))
    aligned = []
    for term, x in zip(inputs.split(","), operands, strict=True):
        x = x.transpose([term.index(letter) for letter in letters if letter in term])
        aligned.append(x[tuple(slice(None) if letter in term else None for letter in letters)])
    return reduce(np.multiply, aligned).sum(axis=tuple(range(len(result), len(letters))))


def _left_to_right(spec: str, *operands: np.ndarray) -> np.ndarray:
    """Contract a chain of matrices two at a time, in the order in which it is written."""
    first, second, third, vector = operands
    product = einsum("ac,cd->ad", einsum("ab,bc->ac", first, second), third)
    return einsum("ad,d->a", product, vector)


def _scores_peak(rng: np.random.Generator, n_tokens: int, contract: Callable) -> int:
    """Return the most memory that is allocated at any moment."""
    q, k = rng.normal(size=(2, 1, HEADS, n_tokens, HEAD_DIM)).astype(np.float32)
    tracemalloc.start()
    contract("bhqd,bhkd->bhqk", q, k)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


class _Counted:
    """A number that counts how often it or its products are multiplied."""

    count = 0

    def __init__(self, value: float):
        self.value = value

    def __mul__(self, other):
        _Counted.count += 1
        return _Counted(self.value * other.value)

    def __add__(self, other):
        return _Counted(self.value + other.value)


def _multiplications(n: int, contract: Callable) -> int:
    def counted(*shape):
        x = np.empty(shape, dtype=object)
        x[...] = np.vectorize(_Counted, otypes=[object])(np.ones(shape))
        return x

    _Counted.count = 0
    result = contract(CHAIN, counted(n, n), counted(n, n), counted(n, n), counted(n))
    assert all(entry.value == n**3 for entry in result)
    return _Counted.count


def plot(numbers: dict):
    """Draw memory and multiplications, both on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for key, label, style in [
        ("definition_bytes", "product over all names, then sum", "C1-"),
        ("einsum_bytes", "einsum, by a matrix product", "C0-"),
        ("scores_bytes", "the result alone", "k:"),
    ]:
        left.plot(numbers["tokens"], np.array(numbers[key]) / 1e6, style, label=label)
    left.set(xscale="log", yscale="log", xlabel="tokens", ylabel="peak memory, MB", title="bhqd,bhkd->bhqk")
    left.set_xticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
    left.minorticks_off()
    left.legend()
    for key, label, style in [
        ("definition_multiplications", "product over all names, then sum", "C1-"),
        ("left_to_right_multiplications", "pairs from left to right", "C2-"),
        ("einsum_multiplications", "einsum: the cheapest pair first", "C0-"),
    ]:
        right.plot(numbers["sizes"], numbers[key], style, label=label)
    right.set(yscale="log", xlabel="length of each axis", ylabel="multiplications", title=CHAIN)
    right.legend()
    return figure


def claim(numbers: dict) -> None:
    """README.md: the definition takes 64 times the result's memory; the order changes the power of n."""
    for definition, contracted, scores in zip(
        numbers["definition_bytes"], numbers["einsum_bytes"], numbers["scores_bytes"], strict=True
    ):
        assert definition >= HEAD_DIM * scores
        assert contracted < scores + 8192  # next to the result, only small objects
    assert numbers["definition_bytes"][-1] < 1.05 * HEAD_DIM * numbers["scores_bytes"][-1]
    for n, definition, in_order, cheapest in zip(
        numbers["sizes"],
        numbers["definition_multiplications"],
        numbers["left_to_right_multiplications"],
        numbers["einsum_multiplications"],
        strict=True,
    ):
        assert (definition, in_order, cheapest) == (2 * n**4 + n**3, 2 * n**3 + n**2, 3 * n**2)
