"""Measure what the factor 1/sqrt(D) does to the weights, and how much a mask of -10 lets through."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.ground.numerics import softmax
from techtree.techs.transformer.attention import attention_weights

N_KEYS = 64
FACTORS = {"1": 0.5, "1/sqrt(D)": 0.0, "1/D": -0.5}
"""The factor on the scores, and the power of D that turns 1/sqrt(D) into it."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure weights of random queries and keys, for widths D and for sequences of growing length.

    Parameters
    ----------
    rng
        Draws queries and keys, entries of variance 1.
    scale
        The share of the full number of queries, in (0, 1].

    Returns
    -------
    dict
        For each width and each factor on the scores: the effective number of keys (the exponential of the
        entropy) and the reaction (the sum of p (1 - p) over a row), averaged over queries. For each length:
        the share of the first token's attention that goes to later tokens.
    """
    widths = [2**n for n in range(1, 11)]
    lengths = [2**n for n in range(1, 13)]
    rows = {name: [_rows(rng, width, power, scale) for width in widths] for name, power in FACTORS.items()}
    leaks = np.mean([_leaks(rng, lengths) for _ in range(max(64, round(256 * scale)))], axis=0)
    return {
        "widths": widths,
        "effective_keys": {name: [keys for keys, _ in found] for name, found in rows.items()},
        "reaction": {name: [reaction for _, reaction in found] for name, found in rows.items()},
        "lengths": lengths,
        "leak_of_minus_10": leaks[0].tolist(),
        "leak_of_minus_infinity": leaks[1].tolist(),
    }


def _rows(rng: np.random.Generator, width: int, power: float, scale: float) -> tuple[float, float]:
    n_queries = max(64, round(1024 * scale))
    q, k = rng.normal(size=(n_queries, 1, width)), rng.normal(size=(n_queries, N_KEYS, width))
    p = attention_weights(Tensor(q * width**power), Tensor(k)).data
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1)
    return float(np.exp(entropy).mean()), float((p * (1 - p)).sum(axis=-1).mean())


def _leaks(rng: np.random.Generator, lengths: list[int]) -> tuple[list[float], list[float]]:
    """Let the first of many tokens look, with the later ones hidden by -10 and by -infinity."""
    q, k = rng.normal(size=(1, 64)), rng.normal(size=(lengths[-1], 64))
    scores = q @ k.T / math.sqrt(64)
    finite, exact = [], []
    for length in lengths:
        mask = np.arange(length)[None] == 0  # the first row of the causal mask
        finite.append(float(softmax(scores[:, :length] + np.where(mask, 0, -10))[~mask].sum()))
        exact.append(float(attention_weights(Tensor(q), Tensor(k[:length]), mask).data[~mask].sum()))
    return finite, exact


def plot(numbers: dict):
    """Draw sharpness and reaction against the width, and the leak against the length."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    colours = {"1": "C1", "1/sqrt(D)": "C0", "1/D": "C2"}
    for axes, key in ((left, "effective_keys"), (middle, "reaction")):
        for name, colour in colours.items():
            axes.plot(numbers["widths"], numbers[key][name], color=colour, label=f"factor {name}")
        axes.set(xscale="log", xlabel="width D", xlim=(2, 1024))
        axes.set_xticks([2, 16, 128, 1024], ["2", "16", "128", "1024"])
        axes.minorticks_off()
    left.set(ylabel=f"effective number of keys, of {N_KEYS}", ylim=(0, 66))
    left.legend(loc="center right", bbox_to_anchor=(1, 0.42))
    middle.set(ylabel="reaction of the weights to the scores", ylim=(0, 1.05))
    right.plot(numbers["lengths"], np.array(numbers["leak_of_minus_10"]) * 100, "C1", label="hidden by -10")
    right.plot(
        numbers["lengths"], np.array(numbers["leak_of_minus_infinity"]) * 100, "C0", label="hidden by -inf"
    )
    right.set(xscale="log", xlabel="tokens", ylabel="attention to later tokens, %", xlim=(2, 4096))
    right.set_xticks([2, 16, 128, 1024], ["2", "16", "128", "1024"])
    right.minorticks_off()
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: with 1/sqrt(D) the weights do not depend on D; without, one key wins; with 1/D, all tie."""
    at = {width: n for n, width in enumerate(numbers["widths"])}
    keys, reaction = numbers["effective_keys"], numbers["reaction"]
    assert all(34 < found < 50 for found in keys["1/sqrt(D)"])
    assert all(37 < found < 43 for found in keys["1/sqrt(D)"][at[16] :])
    assert all(found > 0.92 for found in reaction["1/sqrt(D)"])
    assert 1.5 < keys["1"][at[64]] < 2.6
    assert keys["1"][at[1024]] < 1.5
    assert 0.2 < reaction["1"][at[64]] < 0.4
    assert reaction["1"][at[1024]] < 0.2
    assert all(found > 62 for found in keys["1/D"][at[64] :])
    leak = dict(zip(numbers["lengths"], numbers["leak_of_minus_10"], strict=True))
    equal = 2047 * math.exp(-10) / (1 + 2047 * math.exp(-10))
    assert round(equal, 3) == 0.085
    assert leak[2048] > equal
    assert 0.005 < leak[128] < 0.03
    assert 0.1 < leak[2048] < 0.25
    assert leak[4096] > 0.2
    assert leak[4096] > 1.3 * leak[2048] > 1.3 * 1.3 * leak[1024]
    assert all(found == 0 for found in numbers["leak_of_minus_infinity"])
