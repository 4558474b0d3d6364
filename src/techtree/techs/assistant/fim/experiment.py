"""What cut texts teach and cost, and what cursors within tokens need: counting in a small language."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from techtree.techs.assistant.fim import Sentinels, arrange, cut, example, prompt
from techtree.techs.text.bpe import BPE, train

NAMES = {"<pre>": 0, "<suf>": 1, "<mid>": 2, "<end>": 3}
MARKS = Sentinels(0, 1, 2, 3)
VOCAB_SIZE = 400
N_WORDS, N_FOLLOWERS, LENGTH = 20, 4, 10
"""Of the language: each word is followed by one of four; a text has so many words."""
N_SEEN, N_UNSEEN = 6000, 80
RATES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
SUFFIXES = (16, 64, 256, 1024)
"""Tokens of the suffix, for keystrokes."""
MOST = 60
"""Tokens after which a middle that does not end is broken off."""


class Language:
    """Words of small letters, and for each the words that may follow, some more often than others."""

    def __init__(self, rng: np.random.Generator):
        letters = list("abcdefghijkl")
        self.words = ["".join(rng.choice(letters, size=n)) for n in rng.integers(4, 8, size=N_WORDS)]
        self.followers = [rng.choice(N_WORDS, size=N_FOLLOWERS, replace=False) for _ in self.words]
        self.shares = rng.dirichlet(np.ones(N_FOLLOWERS), size=N_WORDS)

    def text(self, rng: np.random.Generator) -> str:
        """Draw a text."""
        chosen = [int(rng.integers(N_WORDS))]
        while len(chosen) < LENGTH:
            chosen.append(int(rng.choice(self.followers[chosen[-1]], p=self.shares[chosen[-1]])))
        return text_of([self.words[each] for each in chosen])


class TwoWindows:
    """A model by counting: it sees the three tokens before a place, and the first one of the suffix.

    The more it knows of a place, the fewer cases it has seen: each context's counts are mixed with what the
    next shorter one says, by Witten and Bell's weights.
    """

    def __init__(self):
        self.counts: defaultdict[tuple, Counter] = defaultdict(Counter)

    def contexts(self, ids: Sequence[int], place: int, behind: int | None) -> list[tuple]:
        """Return what is looked at before a place, the least first; ``behind`` opens the suffix, if any."""
        before = tuple(ids[max(0, place - 3) : place])
        found: list[tuple] = [(), before[-1:], before[-2:]]
        if behind is None:
            return [*found, before]
        return [*found, ("s", behind, *before[-1:]), ("s", behind, *before[-2:])]

    def count(self, ids: Sequence[int]) -> None:
        """Learn an example."""
        for place, behind in enumerate(self.seen(ids)):
            for context in self.contexts(ids, place, behind):
                self.counts[context][ids[place]] += 1

    @staticmethod
    def seen(ids: Sequence[int]) -> list[int | None]:
        """Return for each place the first token of the suffix, once the middle's sentinel has come."""
        if MARKS.middle not in ids:
            return [None] * len(ids)
        at_middle = list(ids).index(MARKS.middle)
        behind = ids[list(ids).index(MARKS.suffix) + 1]
        return [None] * (at_middle + 1) + [behind] * (len(ids) - at_middle - 1)

    def probability(self, ids: Sequence[int], place: int, behind: int | None, token: int) -> float:
        """Return that of a token at a place."""
        p = 1 / VOCAB_SIZE
        for context in self.contexts(ids, place, behind):
            if found := self.counts.get(context):
                kinds, total = len(found), found.total()
                p = (found[token] + kinds * p) / (total + kinds)
        return p

    def bits(self, ids: Sequence[int], start: int, stop: int) -> float:
        """Return the bits of the tokens from ``start`` to ``stop``, each after those before it."""
        seen = self.seen(ids)
        return -sum(math.log2(self.probability(ids, n, seen[n], ids[n])) for n in range(start, stop))

    def likeliest(self, ids: Sequence[int], behind: int | None) -> int:
        """Return the token that most probably follows."""
        contexts = self.contexts(ids, len(ids), behind)
        known = {token for each in contexts[1:] for token in self.counts.get(each, ())} or {MARKS.end}
        return max(sorted(known), key=lambda token: self.probability(ids, len(ids), behind, token))


def border_cut(text: str, rng: np.random.Generator, bpe: BPE) -> tuple[str, str, str]:
    """Cut a text where tokens of the whole text meet."""
    ids = bpe.encode(text)
    start, stop = sorted(rng.integers(0, len(ids) + 1, size=2).tolist())
    ends = np.cumsum([0, *(len(bpe.vocab[each]) for each in ids)])
    data = text.encode()
    parts = data[: ends[start]], data[ends[start] : ends[stop]], data[ends[stop] :]
    return tuple(part.decode("utf-8", "replace") for part in parts)  # pyright: ignore[reportReturnType]


def learned(texts: Sequence[str], make: Callable[[str], list[int]]) -> TwoWindows:
    """Return a model that has counted an example of each text."""
    model = TwoWindows()
    for text in texts:
        model.count(make(text))
    return model


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count with cuts of several kinds and rates, fill in and go on, and hit keys.

    Parameters
    ----------
    rng
        Draws languages, texts and cuts.
    scale
        The share of the texts, in (0, 1].

    Returns
    -------
    dict
        Bits per character of middles and of whole texts, the share of middles that end, tokens read.
    """
    seeds = [int(each) for each in rng.integers(2**32, size=3 if scale == 1 else 1)]
    rates = RATES if scale == 1 else RATES[:3]
    numbers = {"rates": list(rates), "middles": [], "plain": [], "ended": [], "suffixes": list(SUFFIXES)}
    for seed in seeds:
        draw = np.random.default_rng(seed)
        language = Language(draw)
        n_seen = max(600, round(N_SEEN * scale))
        seen = [language.text(draw) for _ in range(n_seen)]
        unseen = [language.text(draw) for _ in range(N_UNSEEN)]
        bpe = train(seen[:100], VOCAB_SIZE, list(NAMES))
        bpe = BPE(bpe.merges, NAMES)
        for name, found in measured(seen, unseen, bpe, draw, rates).items():
            numbers[name].append(found)
        long = "".join(language.text(draw) for _ in range(200))
        numbers["keys"] = {
            name: [keystrokes(long, bpe, n, name == "SPM") for n in SUFFIXES] for name in ("PSM", "SPM")
        }
    return numbers


def text_of(words: Sequence[str]) -> str:
    """Return words with a blank before each."""
    return "".join(f" {each}" for each in words)


def measured(
    seen: Sequence[str], unseen: Sequence[str], bpe: BPE, rng: np.random.Generator, rates: Sequence[float]
) -> dict:
    """Train all models on the same texts, and measure them on others."""

    def spm(cut_by: Callable) -> Callable[[str], list[int]]:
        def make(text: str) -> list[int]:
            if rng.random() < 0.5:
                return [*bpe.encode(text), MARKS.end]
            return arranged(cut_by(text), bpe)

        return make

    def plain(text: str) -> list[int]:
        return [*bpe.encode(text), MARKS.end]

    models = {
        "going on": learned(seen, plain),
        "borders": learned(seen, spm(lambda text: border_cut(text, rng, bpe))),
        "characters": learned(seen, spm(lambda text: cut(text, rng))),
    }
    asked = {
        "characters": [parts for text in unseen for _ in range(3) if (parts := cut(text, rng))[1]],
        "borders": [parts for text in unseen for _ in range(3) if (parts := border_cut(text, rng, bpe))[1]],
    }
    words = [text.split(" ")[1:] for text in unseen]
    asked["a word"] = [
        (text_of(some[:n]), text_of(some[n : n + 1]), text_of(some[n + 1 :]))
        for some in words
        for n in range(1, 9)
    ]
    middles = {
        name: {kind: middle_bits(model, some, bpe, name == "going on") for kind, some in asked.items()}
        for name, model in models.items()
    }
    whole = [
        learned(seen, lambda text, rate=rate: example(text, bpe, MARKS, 10**6, rng, rate)) for rate in rates
    ]
    n_characters = sum(map(len, unseen))
    encoded = [bpe.encode(text) for text in unseen]
    endless = learned(seen, lambda text: arranged(cut(text, rng), bpe)[:-1])
    return {
        "middles": middles,
        "plain": [sum(model.bits(ids, 0, len(ids)) for ids in encoded) / n_characters for model in whole],
        "ended": {
            "with": n_ended(models["characters"], asked["characters"][:60], bpe),
            "without": n_ended(endless, asked["characters"][:60], bpe),
        },
    }


def arranged(parts: tuple[str, str, str], bpe: BPE) -> list[int]:
    """Return an example in SPM of a text in three parts."""
    prefix, middle, suffix = map(bpe.encode, parts)
    return arrange(prefix, middle, suffix, MARKS, is_spm=True)


def middle_bits(
    model: TwoWindows, cuts: Sequence[tuple[str, str, str]], bpe: BPE, goes_on: bool
) -> list[float]:
    """Return the bits per character of middles, and the bits of their first tokens."""
    total, first, n_characters = 0.0, 0.0, 0
    for parts in cuts:
        prefix, middle, suffix = map(bpe.encode, parts)
        if goes_on:
            ids, start = [*prefix, *middle], len(prefix)
        else:
            ids = arrange(prefix, middle, suffix, MARKS, is_spm=True)[:-1]
            start = len(ids) - len(middle)
        total += model.bits(ids, start, len(ids))
        first += model.bits(ids, start, start + 1)
        n_characters += len(parts[1])
    return [total / n_characters, first / len(cuts)]


def n_ended(model: TwoWindows, cuts: Sequence[tuple[str, str, str]], bpe: BPE) -> float:
    """Return the share of middles, written by the likeliest tokens, that come to an end."""
    found = []
    for prefix, _, suffix in cuts:
        ids = prompt(prefix, suffix, bpe, MARKS, 10**6, is_spm=True)
        behind = ids[ids.index(MARKS.suffix) + 1]
        end = len(ids) + MOST
        while len(ids) < end and (token := model.likeliest(ids, behind)) != MARKS.end:
            ids.append(token)
        found.append(len(ids) < end)
    return float(np.mean(found))


def keystrokes(text: str, bpe: BPE, n_suffix: int, is_spm: bool) -> float:
    """Return how many tokens of a prompt are new or stand behind a new one, for a key."""
    place = len(text) // 2
    suffix = bpe.decode(bpe.encode(text[place : place + 8 * n_suffix + 99])[:n_suffix])
    typed = text[: place // 2]
    prompts = [prompt(typed[: 900 + n], suffix, bpe, MARKS, 10**6, is_spm) for n in range(60)]
    counts = []
    for one, other in itertools.pairwise(prompts):
        shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
        counts.append(len(other) - shared)
    return float(np.mean(counts))


def plot(numbers: dict):
    """Draw the bits of middles, those of whole texts by the rate, and the tokens that a key makes new."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4))
    names = {
        "going on": "goes on only",
        "borders": "cuts on borders\nof tokens",
        "characters": "cuts anywhere",
    }
    for place, kind in enumerate(("borders", "characters")):
        values = [np.mean([each[name][kind][0] for each in numbers["middles"]]) for name in names]
        where = np.arange(3) + (place - 0.5) * 0.36
        label = {"borders": "cursor between tokens", "characters": "cursor anywhere"}[kind]
        left.bar(where, values, 0.34, color=f"C{place}", label=label)
        for n, name in enumerate(names):
            for each in numbers["middles"]:
                left.plot(where[n], each[name][kind][0], "k.", ms=3)
    left.set_xticks(range(3), list(names.values()), fontsize=8)
    left.set(ylabel="bits per character of the middle", xlabel="trained so")
    left.set_ylim(0, 4.4)
    left.legend(fontsize=8, loc="upper right")
    for each in numbers["plain"]:
        middle.plot(numbers["rates"], each, "C0.-", alpha=0.35, lw=1)
    middle.plot(numbers["rates"], np.mean(numbers["plain"], axis=0), "C0o-")
    middle.set(xlabel="share of texts that are cut", ylabel="bits per character, going on")
    middle.set_ylim(0, 1.3 * np.max(numbers["plain"]))
    for place, (name, found) in enumerate(numbers["keys"].items()):
        right.plot(numbers["suffixes"], found, f"C{place}o-", label=name)
    right.set(xlabel="tokens of the suffix", ylabel="tokens to read for a key", xscale="log", yscale="log")
    right.set_xticks(numbers["suffixes"], [str(each) for each in numbers["suffixes"]])
    right.minorticks_off()
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: the suffix helps; borders alone fail within tokens; no end, no stop; SPM reads little."""
    is_full = len(numbers["rates"]) == len(RATES)
    for each in numbers["middles"]:
        on, borders, anywhere = (each[name] for name in ("going on", "borders", "characters"))
        assert borders["a word"][0] < (0.85 if is_full else 1) * on["a word"][0]
        assert anywhere["characters"][0] < (0.25 if is_full else 0.5) * borders["characters"][0]
        assert borders["characters"][0] > 0.85 * on["characters"][0]
        assert borders["characters"][1] > anywhere["characters"][1] + 8
        if is_full:
            assert 1.05 * borders["borders"][0] < anywhere["borders"][0] < 1.45 * borders["borders"][0]
            assert borders["characters"][1] > 16
            assert anywhere["characters"][1] < 4
    plain = np.array(numbers["plain"])
    assert (np.diff(plain, axis=1) > -0.01).all()
    assert (plain[:, 2] < 1.15 * plain[:, 0]).all()
    for each in numbers["ended"]:
        assert each["with"] > 0.6
        assert each["without"] < 0.1
    assert max(numbers["keys"]["SPM"]) < 1.2
    assert all(found >= n for found, n in zip(numbers["keys"]["PSM"], (16, 64, 256, 900), strict=True))
    if is_full:
        assert (plain[:, -1] > 1.12 * plain[:, 0]).all()
