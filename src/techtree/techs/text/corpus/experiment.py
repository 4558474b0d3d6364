"""Copies planted in the standard library: who meets whom, and what leaks through a blind split."""

import numpy as np

from techtree.techs.text.corpus import minhash, near_duplicates, shingles, split
from techtree.techs.text.pretokenize.experiment import standard_library

THRESHOLD = 0.7
N_BANDS, N_ROWS = 16, 4
SIGNATURES = (4, 8, 16, 32, 64, 128, 256)
CHARACTERS = 3000
"""Of each file."""

SHARE_COPIED = 0.5
EDITS = {"copies": 0.01, "changed copies": 0.04}
"""The share of a copy's words that are changed."""

SEEDS = range(5)

LONG = 8
"""Words of a run that nobody writes twice by chance."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Compare files with edits of them, and split a library with planted copies in two ways.

    Parameters
    ----------
    rng
        Draws the edits.
    scale
        The share of the standard library's files, in (0, 1].

    Returns
    -------
    dict
        Similarities of pairs, exact and estimated, and how often they met; the share of the held-out runs of
        eight words that the training files hold, by kind of split.
    """
    files = [text[:CHARACTERS] for text in standard_library()]
    files = [files[i] for i in rng.permutation(len(files))[: max(24, round(len(files) * scale))]]
    exact, estimated, met = _pairs(rng, files)
    plain = near_duplicates(files, THRESHOLD, N_BANDS, N_ROWS)
    names = [f"{i}.py" for i in range(2 * len(files))]
    leaks = {"no copies": [_leak(files, split(names[: len(files)], plain, 0.2, seed)) for seed in SEEDS]}
    similarity, found = {}, {}
    for kind, share in EDITS.items():
        copies = [_edited(rng, text, share) for text in files[: round(SHARE_COPIED * len(files))]]
        texts = [*files, *copies]
        groups = near_duplicates(texts, THRESHOLD, N_BANDS, N_ROWS)
        pairs = list(zip(map(shingles, files), map(shingles, copies), strict=False))
        similarity[kind] = float(np.median([len(a & b) / len(a | b) for a, b in pairs]))
        place = {member: number for number, group in enumerate(groups) for member in group}
        found[kind] = float(np.mean([place[i] == place[len(files) + i] for i in range(len(copies))]))
        some = names[: len(texts)]
        if kind == "copies":
            leaks["copies, split by file"] = [_leak(texts, split(some, (), 0.2, seed)) for seed in SEEDS]
        leaks[f"{kind}, split by group"] = [_leak(texts, split(some, groups, 0.2, seed)) for seed in SEEDS]
    return {
        "n_files": len(files),
        "exact": exact,
        "met": met,
        "error": {str(n): _error(exact, estimated, n) for n in SIGNATURES},
        "similarity": similarity,
        "share_found": found,
        "natural_groups": sum(len(group) > 1 for group in plain),
        "leaks": leaks,
    }


def _edited(rng: np.random.Generator, text: str, share: float) -> str:
    """Change some words, as somebody does who copies a file and renames what is in it."""
    words = text.split(" ")
    for i in np.flatnonzero(rng.random(len(words)) < share):
        words[i] = f"other{rng.integers(1000)}"
    return " ".join(words)


def _pairs(rng: np.random.Generator, files: list[str]) -> tuple[list[float], list[list[bool]], list[bool]]:
    """Return the similarity of files and edits of them, which values agree, and whether a band does."""
    exact, agree, met = [], [], []
    n_hashes = max(SIGNATURES)
    for i, share in enumerate(np.tile(np.geomspace(0.005, 0.4, 12), -(-len(files) // 12))[: len(files)]):
        other = _edited(rng, files[i], share)
        a, b = shingles(files[i]), shingles(other)
        same = minhash(files[i], n_hashes) == minhash(other, n_hashes)
        exact.append(len(a & b) / len(a | b))
        agree.append([bool(each) for each in same])
        bands = same.reshape(-1, N_BANDS, N_ROWS)  # each signature serves as several
        met += [bool(each) for each in bands.all(axis=-1).any(axis=-1)]
    return exact, agree, met


def _error(exact: list[float], agree: list[list[bool]], n: int) -> float:
    """Return the root mean square error of the estimate from n values."""
    estimates = np.array(agree).reshape(len(exact), -1, n).mean(axis=-1)
    return float(np.sqrt(np.mean((estimates - np.array(exact)[:, None]) ** 2)))


def _leak(texts: list[str], sides: tuple[list[int], list[int]]) -> float:
    """Return the share of the held-out runs of eight words that occur in training files."""
    train, held_out = ([shingles(texts[i], LONG) for i in side] for side in sides)
    known = frozenset().union(*train)
    n = sum(len(each) for each in held_out)
    return sum(len(each & known) for each in held_out) / n if n else 0.0


def plot(numbers: dict):
    """Draw the error of the estimate, the chance to meet, and what leaks."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2))
    sizes = [int(n) for n in numbers["error"]]
    left.plot(sizes, list(numbers["error"].values()), "C0o-")
    left.set(xlabel="hash functions", ylabel="error of the estimated J", xscale="log", yscale="log")
    left.set_xticks(sizes, [f"{n}" for n in sizes])
    left.minorticks_off()
    left.set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
    similarities = np.linspace(0, 1, 200)
    middle.plot(similarities, 1 - (1 - similarities**N_ROWS) ** N_BANDS, "C7")
    edges, share = _binned(numbers)
    middle.plot(edges, share, "C0o")
    middle.axvline(THRESHOLD, color="C3", ls=":")
    middle.text(THRESHOLD + 0.02, 0.1, "threshold", color="C3")
    middle.set(xlabel="similarity J of a pair", ylabel="share of pairs that meet")
    names = list(numbers["leaks"])
    for place, name in enumerate(names):
        found = numbers["leaks"][name]
        right.barh(-place, np.mean(found), color=f"C{(0, 3, 2, 1)[place]}")
        right.plot(found, [-place] * len(found), "k.", ms=4)
    right.set_yticks(range(0, -4, -1), [name.replace(", ", ",\n") for name in names])
    right.set(xlabel="held-out runs of 8 words\nthat are in training files")
    return figure


def _binned(numbers: dict) -> tuple[list[float], list[float]]:
    """Return the share of pairs that met, in bins of similarity."""
    exact = np.repeat(numbers["exact"], len(numbers["met"]) // len(numbers["exact"]))
    met, places = np.array(numbers["met"]), np.floor(np.array(exact) * 10)
    bins = [k for k in range(10) if (places == k).sum() >= 8]
    return [float(exact[places == k].mean()) for k in bins], [float(met[places == k].mean()) for k in bins]


def claim(numbers: dict) -> None:
    """README.md: estimates err by 1 / (2 sqrt(n)) at most; near copies meet; a split by file leaks."""
    for n, error in numbers["error"].items():
        assert error < 0.7 / np.sqrt(int(n))
    assert numbers["error"]["4"] > 3 * numbers["error"]["256"]
    places, shares = _binned(numbers)
    for place, share in zip(places, shares, strict=True):
        assert abs(share - (1 - (1 - place**N_ROWS) ** N_BANDS)) < 0.25
        assert share > 0.97 or place < 0.7
        assert share < 0.2 or place > 0.3
    leaks = {name: np.mean(found) for name, found in numbers["leaks"].items()}
    assert numbers["similarity"]["copies"] > 0.75
    assert numbers["similarity"]["changed copies"] < THRESHOLD
    assert numbers["share_found"]["copies"] > 0.75
    assert numbers["share_found"]["changed copies"] < 0.6
    assert leaks["copies, split by file"] > leaks["no copies"] + 0.3
    assert leaks["copies, split by group"] < 0.4 * leaks["copies, split by file"]
    assert leaks["changed copies, split by group"] > leaks["copies, split by group"]
    if numbers["n_files"] > 100:
        assert abs(leaks["copies, split by file"] - 0.52) < 0.03
        assert max(leaks["no copies"], leaks["copies, split by group"]) < 0.05
        assert abs(leaks["changed copies, split by group"] - 0.29) < 0.04
        assert abs(numbers["error"]["4"] - 0.19) < 0.01
        assert abs(numbers["error"]["64"] - 0.05) < 0.01
        assert 0.7 < 1 - numbers["share_found"]["changed copies"] < 0.9
