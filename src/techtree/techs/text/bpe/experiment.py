"""How large should the vocabulary be? Bytes per token, and what a model then pays for each byte."""

from collections import Counter

import numpy as np

from techtree.techs.text.bpe import BPE, train
from techtree.techs.text.pretokenize import split
from techtree.techs.text.pretokenize.experiment import standard_library

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
MODELS = ((128, 4), (256, 6), (384, 6), (768, 12))
"""Width and layers of the models whose cost is counted."""

RARE = 20
"""A token that occurs less often than this in the training text is called rare."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train once, cut the list of merges at several lengths, and encode files that were not trained on.

    Parameters
    ----------
    rng
        Not used: nothing is drawn.
    scale
        The share of the standard library's files, in (0, 1].

    Returns
    -------
    dict
        For each size of the vocabulary the bytes per token, the multiplications per byte of each model in
        millions, and the share of learned tokens that are rare.
    """
    texts = standard_library()[:: round(1 / scale)]
    training, unseen = [text for i, text in enumerate(texts) if i % 5], texts[::5]
    merges = train(training, max(SIZES)).merges
    words, unseen_words = _words(training), _words(unseen)
    measured = [_measure(BPE(merges[: size - 256]), words, unseen_words) for size in SIZES]
    bytes_per_token = [unseen_rate for _, unseen_rate, _ in measured]
    return {
        "training_bytes": _n_bytes(words),
        "unseen_bytes": _n_bytes(unseen_words),
        "distinct_words": len(words),
        "replacements_for_4096": _n_replacements(BPE(merges[: 4096 - 256]), words),
        "sizes": list(SIZES),
        "longest_tokens": [repr(left + right) for left, right in sorted(merges, key=_length)[-3:]],
        "first_tokens": [repr(left + right) for left, right in merges[:12]],
        "bytes_per_token_training": [training_rate for training_rate, _, _ in measured],
        "bytes_per_token": bytes_per_token,
        "share_of_rare_tokens": [rare for _, _, rare in measured],
        "million_multiplications_per_byte": {
            f"{width} wide, {layers} layers": [
                (12 * width**2 * layers + size * width) / rate / 1e6
                for size, rate in zip(SIZES, bytes_per_token, strict=True)
            ]
            for width, layers in MODELS
        },
    }


def _n_bytes(words: Counter[str]) -> int:
    return sum(len(word.encode("utf-8")) * n for word, n in words.items())


def _length(pair: tuple[bytes, bytes]) -> int:
    return len(pair[0]) + len(pair[1])


def _words(texts: list[str]) -> Counter[str]:
    return Counter(word for text in texts for word in split(text))


def _n_replacements(bpe: BPE, words: Counter[str]) -> int:
    """Count how often training put one symbol in the place of two: each time, a word became one shorter."""
    return sum(len(word.encode("utf-8")) - len(bpe.encode(word)) for word in words)


def _measure(bpe: BPE, training: Counter[str], unseen: Counter[str]) -> tuple[float, float, float]:
    counts: Counter[int] = Counter()
    for word, n in training.items():
        for i in bpe.encode(word):
            counts[i] += n
    learned = [i for i, token in bpe.vocab.items() if len(token) > 1]
    rare = sum(counts[i] < RARE for i in learned) / max(1, len(learned))
    n_unseen = sum(len(bpe.encode(word)) * n for word, n in unseen.items())
    return _n_bytes(training) / counts.total(), _n_bytes(unseen) / n_unseen, rare


def plot(numbers: dict):
    """Draw the bytes per token, and the cost per byte of four models with the cheapest size marked."""
    import matplotlib.pyplot as plt

    sizes = numbers["sizes"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.plot(
        sizes, numbers["bytes_per_token_training"], color="C0", linestyle="--", label="files trained on"
    )
    left.plot(sizes, numbers["bytes_per_token"], color="C0", marker="o", label="unseen files")
    left.set(xlabel="tokens in the vocabulary", ylabel="bytes per token", ylim=(0, None))
    left.legend(loc="lower right")
    for name, costs in numbers["million_multiplications_per_byte"].items():
        relative = np.array(costs) / min(costs)
        (line,) = right.plot(sizes[1:], relative[1:], label=name)
        best = int(np.argmin(relative))
        right.plot(sizes[best], 1, marker="o", color=line.get_color())
    right.set(xlabel="tokens in the vocabulary", ylabel="cost per byte / lowest", ylim=(0.9, 2.2))
    right.legend(loc="upper center")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: each doubling gains less; a small model pays least with some thousand tokens."""
    rates = np.array(numbers["bytes_per_token"])
    gains = rates[1:] / rates[:-1]
    assert rates[0] == 1
    assert (gains > 1).all()
    assert (np.diff(gains) < 0).all()
    assert gains[0] > 1.8  # the first 256 merges halve a text
    assert gains[-1] < 1.1
    at = {size: i for i, size in enumerate(numbers["sizes"])}
    assert 3 < rates[at[4096]] < 4
    heart = np.array(numbers["bytes_per_token_training"]) / rates
    assert (heart[1:] > 1).all()
    assert heart[at[16384]] > heart[at[4096]]
    assert len(set(numbers["longest_tokens"][-1][2:].rstrip("\\n'"))) <= 2  # one sign, again and again
    costs = list(numbers["million_multiplications_per_byte"].values())
    cheapest = [numbers["sizes"][int(np.argmin(cost))] for cost in costs]
    assert cheapest == sorted(cheapest)
    assert cheapest[0] <= 2048
    assert 2048 <= cheapest[1] <= 4096 <= cheapest[-1]
    assert costs[1][at[4096]] < 1.05 * min(costs[1])
    assert costs[1][at[16384]] > 1.25 * min(costs[1])
    assert numbers["replacements_for_4096"] < numbers["distinct_words"] * (4096 - 256) / 100
    rare = numbers["share_of_rare_tokens"]
    assert (np.diff(rare) >= 0).all()
    assert rare[at[16384]] > 0.5
    if numbers["training_bytes"] > 3e6:  # with fewer bytes, tokens are rare sooner
        assert rare[at[4096]] < 0.15
