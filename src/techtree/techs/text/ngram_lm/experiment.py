"""How far back should a counting model look? Bits per byte of unseen code, by order, rule and corpus."""

from collections import Counter

import numpy as np

from techtree.techs.text.ngram_lm import NgramLM, bits_per_byte
from techtree.techs.text.pretokenize.experiment import standard_library

MAX_ORDER = 8
TRAINING_BYTES = 800_000
"""At full scale; the other two corpora are a tenth and a hundredth of it."""

PIECE_BYTES = 500
"""The files are cut into pieces, and these are shuffled, so that a small corpus is of many files, too."""

SAMPLE_BYTES = 3_000
"""Of each unseen file."""

START = 256
"""Stands before each file; the tokens are bytes."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count growing parts of the standard library, and measure on files that were not counted.

    Parameters
    ----------
    rng
        Shuffles what is counted.
    scale
        The share of the bytes, in (0, 1].

    Returns
    -------
    dict
        Bits per byte for each order, by corpus for Witten-Bell, and for the largest corpus by rule; the share
        of unseen bytes that never followed their history.
    """
    files = standard_library()
    unseen = [text[:SAMPLE_BYTES] for text in files[::5]][: max(8, round(34 * scale))]
    training = [text.encode("utf-8") for i, text in enumerate(files) if i % 5]
    pieces = [text[at : at + PIECE_BYTES] for text in training for at in range(0, len(text), PIECE_BYTES)]
    pieces = [pieces[i] for i in rng.permutation(len(pieces))]
    sizes = [round(TRAINING_BYTES * scale / part) for part in (100, 10, 1)]
    corpora = [pieces[: max(1, size // PIECE_BYTES)] for size in sizes]
    add_one, floored, never = _plain_rules(corpora[-1], unseen)
    return {
        "orders": list(range(1, MAX_ORDER + 1)),
        "training_bytes": [sum(map(len, corpus)) for corpus in corpora],
        "unseen_bytes": sum(len(text.encode("utf-8")) for text in unseen),
        "witten_bell": [_witten_bell(corpus, unseen) for corpus in corpora],
        "add_one": add_one,
        "floored": floored,
        "share_never_seen": never,
    }


def _witten_bell(corpus: list[bytes], unseen: list[str]) -> list[float]:
    model = NgramLM(MAX_ORDER, 257, START)
    for text in corpus:
        model.count(text)
    scores = np.concatenate([model.score(text.encode("utf-8")) for text in unseen], axis=1)
    return [bits_per_byte(row, "".join(unseen)) for row in scores]


def _plain_rules(corpus: list[bytes], unseen: list[str]) -> tuple[list[float], list[float], list[float]]:
    """Measure counts plus one; counts with 1 % left for all bytes alike; and how often a count is 0."""
    start = bytes(MAX_ORDER - 1)  # no source file holds a zero byte
    seen = [Counter[bytes]() for _ in range(MAX_ORDER + 1)]
    for text in corpus:
        padded = start + text
        for n, runs in enumerate(seen):
            ends = range(MAX_ORDER, len(padded) + 1)
            runs.update(padded[end - n : end] if n else b"" for end in ends)
    histories = [Counter[bytes]() for _ in range(MAX_ORDER + 1)]
    for n in range(1, MAX_ORDER + 1):
        for run, count in seen[n].items():
            histories[n][run[:-1]] += count
    results: tuple[list[float], list[float], list[float]] = ([], [], [])
    for n in range(1, MAX_ORDER + 1):
        padded_texts = [start + text.encode("utf-8") for text in unseen]
        runs = [t[end - n : end] for t in padded_texts for end in range(MAX_ORDER, len(t) + 1)]
        c = np.array([seen[n][run] for run in runs])
        total = np.array([histories[n][run[:-1]] for run in runs])
        share = np.where(total > 0, c / np.maximum(total, 1), 1 / 257)
        results[0].append(bits_per_byte(np.log((c + 1) / (total + 257)), "".join(unseen)))
        results[1].append(bits_per_byte(np.log(0.99 * share + 0.01 / 257), "".join(unseen)))
        results[2].append(float(np.mean(c == 0)))
    return results


def plot(numbers: dict):
    """Draw the bits per byte against the order, by rule and by size of the corpus."""
    import matplotlib.pyplot as plt

    orders = numbers["orders"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    rules = {"add one": "add_one", "1 % for all bytes alike": "floored"}
    for name, key in rules.items():
        left.plot(orders, numbers[key], label=name)
    left.plot(orders, numbers["witten_bell"][-1], color="C2", label="Witten-Bell")
    left.set(ylabel="bits per byte of unseen files", ylim=(2, 6.8))
    left.legend(loc="upper left")
    for n_bytes, curve, colour in zip(numbers["training_bytes"], numbers["witten_bell"], "347", strict=True):
        right.plot(orders, curve, color=f"C{colour}" if n_bytes != max(numbers["training_bytes"]) else "C2")
        best = int(np.argmin(curve))
        right.plot(orders[best], curve[best], marker="o", color=right.lines[-1].get_color())
        right.annotate(f"{n_bytes / 1000:.0f} kB counted", (orders[-1], curve[-1] + 0.12), ha="right")
    for axes in (left, right):
        axes.set(xlabel="order n (the last n - 1 bytes are looked at)", xticks=orders)
    return figure


def claim(numbers: dict) -> None:
    """README.md: each rule has a best order; more bytes move it up; Witten-Bell loses least beyond it."""
    curves = np.array(numbers["witten_bell"])
    add_one, floored = np.array(numbers["add_one"]), np.array(numbers["floored"])
    best = curves.argmin(axis=1) + 1
    assert (np.diff(best) >= 0).all()
    assert best[-1] > best[0]
    assert (np.diff(curves.min(axis=1)) < -0.2).all()  # 10 times the bytes
    assert (curves[:, -1] > curves.min(axis=1) + 0.1).all()
    ours = curves[-1]
    assert ours.min() < add_one.min() - 0.1
    assert ours.min() < floored.min() - 0.1
    assert add_one.argmin() <= 2
    assert add_one[-1] > add_one.min() + 2
    assert add_one[-1] > add_one[0] + 1
    assert floored.min() < add_one.min()
    assert floored[-1] > floored.min() + 1
    assert ours[-1] - ours.min() < 0.5 * (floored[-1] - floored.min())
    assert (np.diff(numbers["share_never_seen"]) > 0).all()
    assert numbers["share_never_seen"][4] > 0.05
    assert numbers["share_never_seen"][-1] > 0.3
    assert 4 < ours[0] < 5.5
