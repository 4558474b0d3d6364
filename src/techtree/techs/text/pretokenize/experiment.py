"""What a vocabulary would have to hold: the distinct pieces of source code, cut in four ways."""

import re
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from techtree.techs.text.pretokenize import split

FINE = "letters alone"
"""A cut in which no sign joins a word, as the space of " the" and the point of ".join" do in ours."""

CUTS: dict[str, Callable[[str], list[str]]] = {
    "at line ends": lambda text: text.splitlines(keepends=True),
    "at whitespace": re.compile(r"\s*\S+|\s+").findall,
    "split()": split,
    FINE: re.compile(r"[^\W\d_]+|\d|(?:[^\s\w]|_)+|\s+").findall,
}
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Of the vocabulary: so many of the most frequent pieces."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count the pieces of four fifths of the files, and look for them in the last fifth.

    Parameters
    ----------
    rng
        Not used: nothing is drawn.
    scale
        The share of the standard library's files, in (0, 1].

    Returns
    -------
    dict
        For each cut the distinct pieces after so many characters, and the share of the characters of
        unseen files that lie in the most frequent pieces.
    """
    texts = standard_library()[:: round(1 / scale)]
    train, held_out = [text for i, text in enumerate(texts) if i % 5], texts[::5]
    long_numbers = re.compile(r"(?<!\w)[0-9]{3,}(?!\w)").findall
    known = {number for text in train for number in long_numbers(text)}
    numbers = [number for text in held_out for number in long_numbers(text)]
    return {
        "files": len(texts),
        "characters": sum(map(len, train)),
        "held_out_characters": sum(map(len, held_out)),
        "sizes": list(SIZES),
        "cuts": {name: _measure(cut, train, held_out) for name, cut in CUTS.items()},
        "spellings_of_self": {name: _spellings(cut, train, "self") for name, cut in CUTS.items()},
        "share_of_unseen_long_numbers": sum(number not in known for number in numbers) / len(numbers),
    }


def standard_library() -> list[str]:
    """Return the modules on top of the standard library, without the one that differs per machine."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [file.read_text(encoding="utf-8") for file in files if not file.name.startswith("_sysconfigdata")]


def _measure(cut: Callable[[str], list[str]], train: list[str], held_out: list[str]) -> dict:
    counts: Counter[str] = Counter()
    read, distinct = [0], [0]
    for text in train:
        counts.update(cut(text))
        read.append(read[-1] + len(text))
        distinct.append(len(counts))
    pieces = Counter(piece for text in held_out for piece in cut(text))
    n_characters = sum(map(len, held_out))
    in_top = np.cumsum([len(piece) * pieces[piece] for piece, _ in counts.most_common(max(SIZES))])
    return {
        "read": read,
        "distinct": distinct,
        "pieces": counts.total(),
        "share_seen_once": sum(count == 1 for count in counts.values()) / len(counts),
        "covered": [float(in_top[min(size, len(in_top)) - 1]) / n_characters for size in SIZES],
        "covered_by_all": sum(len(p) * n for p, n in pieces.items() if p in counts) / n_characters,
        "characters_per_piece": n_characters / pieces.total(),
    }


def _spellings(cut: Callable[[str], list[str]], texts: list[str], word: str) -> int:
    """Count the distinct pieces that hold a word and otherwise no letter and no digit."""
    lone = re.compile(rf"[\W_]*{word}[\W_]*")
    return len({piece for text in texts for piece in cut(text) if lone.fullmatch(piece)})


def plot(numbers: dict):
    """Draw the distinct pieces against the text read, and the cover against the size of the vocabulary."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, cut in numbers["cuts"].items():
        left.plot(np.array(cut["read"]) / 1e6, np.array(cut["distinct"]) / 1e3)
        right.plot(numbers["sizes"], np.array(cut["covered"]) * 100, label=name)
    left.set(
        xlabel="million characters read", ylabel="thousand distinct pieces", xlim=(0, None), ylim=(0, None)
    )
    right.set(
        xlabel="most frequent pieces kept", ylabel="% of unseen files covered", xscale="log", ylim=(0, 100)
    )
    right.set_xticks(numbers["sizes"][::2], [str(size) for size in numbers["sizes"][::2]])
    right.minorticks_off()
    right.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: fewer distinct pieces, a larger part of unseen files covered; finer cuts cap the gain."""
    lines, space, ours, fine = (numbers["cuts"][name] for name in CUTS)
    at_4096 = numbers["sizes"].index(4096)
    assert ours["distinct"][-1] < 0.6 * space["distinct"][-1]
    assert fine["distinct"][-1] < ours["distinct"][-1]
    assert space["distinct"][-1] > 1.6 * np.interp(
        numbers["characters"] / 2, space["read"], space["distinct"]
    )
    assert lines["share_seen_once"] > 0.8
    assert lines["covered"][at_4096] < 0.15
    assert space["covered"][at_4096] < ours["covered"][at_4096] - 0.2
    assert ours["covered_by_all"] > space["covered_by_all"] + 0.2
    spellings = numbers["spellings_of_self"]
    assert spellings[FINE] == 1 < spellings["split()"] < spellings["at whitespace"]
    # The price: the longest possible token is a piece.
    assert 1.2 * fine["characters_per_piece"] < ours["characters_per_piece"]
    assert 1.5 * ours["characters_per_piece"] < space["characters_per_piece"]
    assert ours["pieces"] > 8 * ours["distinct"][-1]
    assert numbers["share_of_unseen_long_numbers"] > 0.2
