"""What a memory is worth: bits per byte by match length, text and place; drafts; what it gives away."""

from collections.abc import Sequence

import numpy as np

from techtree.techs.inference.memory import (
    GrowingIndex,
    SuffixIndex,
    agreement,
    fit_weights,
    longest_match,
    mix,
    propose,
)
from techtree.techs.inference.sampling import draw
from techtree.techs.text.bpe import BPE, train
from techtree.techs.text.ngram_lm import NgramLM, bits_per_byte
from techtree.techs.text.pretokenize.experiment import standard_library

ORDER, LONG_ORDER = 4, 9
"""Of the model; and of one that sees as far as a match of 8 tokens."""

VOCAB_SIZE = 768
LENGTHS = (1, 2, 3, 4, 8, 16)
LONGEST = 8
THRESHOLDS = (0.2, 0.4, 0.6, 0.8)
N_TOKENS = {"model": 60_000, "memory": 60_000, "fit": 5_000, "test": 5_000}
"""How many tokens of whole files: counted by the model, remembered, to fit weights on, to measure on."""

N_DRAFT = 8
FILE_TOKENS = 1200
"""Of each file, its first ones at most."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure a counting model with and without memories, on files that neither has seen.

    Parameters
    ----------
    rng
        Shuffles the files, three times at scale 1, once below.
    scale
        The share of the tokens, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON; a list has an entry for each shuffle.
    """
    files, is_full = standard_library(), scale == 1
    tokenizer = train(files[:: 20 if is_full else 60], VOCAB_SIZE)
    lengths, thresholds = (LENGTHS, THRESHOLDS) if is_full else ((1, 4, LONGEST), (0.2, 0.6))
    rounds = [
        _round(files, tokenizer, np.random.default_rng(seed), scale, lengths, thresholds)
        for seed in rng.integers(2**32, size=3 if is_full else 1)
    ]
    found: dict = {"lengths": lengths, "thresholds": thresholds}
    return found | {key: [each[key] for each in rounds] for key in rounds[0]}


class _Remembered(SuffixIndex):
    """An index that is asked the same patterns again and again."""

    def __init__(self, texts: Sequence[Sequence[int]]):
        super().__init__(texts)
        self._known: dict[tuple[int, ...], dict[int, int]] = {}

    def followers(self, pattern: Sequence[int]) -> dict[int, int]:
        pattern = tuple(pattern)
        if pattern not in self._known:
            self._known[pattern] = super().followers(pattern)
        return self._known[pattern]


def _round(
    files: list[str],
    tokenizer: BPE,
    rng: np.random.Generator,
    scale: float,
    all_lengths: tuple[int, ...],
    thresholds: tuple[float, ...],
) -> dict:
    parts = _parts([files[i] for i in rng.permutation(len(files))], tokenizer, scale)
    model = NgramLM(ORDER, VOCAB_SIZE)
    for ids in parts["model"]:
        model.count(ids)
    others = _Remembered(parts["memory"])
    base = {name: _scores(model, parts[name]) for name in ("fit", "test")}
    text = "".join(tokenizer.decode(ids) for ids in parts["test"])
    found: dict = {"model": bits_per_byte(np.log(base["test"]), text)}
    by_length: dict[str, list[float]] = {"own": [], "others": []}
    kept = {name: _matches(parts[name], others, LONGEST) for name in ("fit", "test")}
    for length in all_lengths:
        matches = (
            kept if length == LONGEST else {name: _matches(parts[name], others, length) for name in kept}
        )
        for source in by_length:
            mixed, _ = _with(base, matches, source, length)
            by_length[source].append(bits_per_byte(np.log(mixed["test"]), text))
    found["by_length"] = by_length
    mixed, file_weights = _with(base, kept, "others", LONGEST)
    both, own_weights = _with(mixed, kept, "own", LONGEST)
    found["both"] = bits_per_byte(np.log(both["test"]), text)
    found["weights"] = {"own": own_weights.tolist(), "others": file_weights.tolist()}
    found["matched"] = {
        source: (np.bincount(kept["test"][source][0], minlength=LONGEST + 1) / len(both["test"])).tolist()
        for source in by_length
    }
    found["right"] = _right(kept["test"]["others"])
    found["wrong weights"] = _wrongly_fitted(base, kept, parts, others, text)
    found["counted"] = _counted(model, parts, text)
    found["drafts"] = _drafts(parts["test"][:3], others, file_weights, own_weights, thresholds)
    found["verbatim"] = _verbatim(parts["memory"], model, others, rng, round(20 + 80 * scale))
    found["loops"] = _loops(model, own_weights, rng, round(60 + 240 * scale))
    return found


def _parts(files: list[str], tokenizer: BPE, scale: float) -> dict[str, list[list[int]]]:
    """Deal out whole files, of which the first tokens count, until each part has enough."""
    rest = iter(files)
    parts: dict[str, list[list[int]]] = {}
    for name, wanted in N_TOKENS.items():
        parts[name], n = [], 0
        while n < wanted * scale:
            ids = tokenizer.encode(next(rest)[: 4 * FILE_TOKENS])[:FILE_TOKENS]
            parts[name].append(ids)
            n += len(ids)
    return parts


def _scores(model: NgramLM, texts: list[list[int]]) -> np.ndarray:
    return np.exp(np.concatenate([model.score(ids)[-1] for ids in texts]))


Matches = dict[str, tuple[np.ndarray, ...]]
"""By source: of each token the match's length, its agreement, and its share of the counts."""


def _matches(texts: list[list[int]], others: _Remembered, max_length: int) -> Matches:
    found: dict[str, list[tuple[int, int, float]]] = {"own": [], "others": []}
    for ids in texts:
        own = GrowingIndex(max_length)
        for at, token in enumerate(ids):
            context = ids[max(0, at - max_length) : at]
            for source, index in (("own", own), ("others", others)):
                length, counts = longest_match(index, context, max_length)
                share = counts.get(token, 0) / sum(counts.values()) if counts else 0.0
                found[source].append((length, agreement(counts), share))
            own.append(token)
    return {source: tuple(map(np.array, zip(*rows, strict=True))) for source, rows in found.items()}


def _mixed(p: np.ndarray, matches: tuple[np.ndarray, ...], weights: np.ndarray) -> np.ndarray:
    """Return the probability that each token has in the mixture; `mix` of one token alone."""
    lengths, agreements, share = matches
    w = np.where(lengths > 0, weights[lengths, agreements], 0.0)
    return (1 - w) * p + w * share


def _with(base: dict, matches: dict[str, Matches], source: str, max_length: int) -> tuple[dict, np.ndarray]:
    """Fit weights on one part; return the mixture on both."""
    lengths, agreements, share = matches["fit"][source]
    weights = fit_weights(lengths, agreements, base["fit"], share, max_length)
    return {name: _mixed(base[name], matches[name][source], weights) for name in base}, weights


def _right(matches: tuple[np.ndarray, ...]) -> list[list[float]]:
    """Return the mean share that the token had, by length and agreement."""
    lengths, agreements, share = matches
    cells = [[share[(lengths == n) & (agreements == k)] for k in range(3)] for n in range(LONGEST + 1)]
    return [[float(each.mean()) if len(each) else 0.0 for each in row] for row in cells]


def _wrongly_fitted(base: dict, matches: dict, parts: dict, others: _Remembered, text: str) -> dict:
    """Weights fitted on remembered files; one weight for all matches; the file measured on remembered."""
    remembered = parts["memory"][: len(parts["fit"])]
    lengths, agreements, share = _matches(remembered, others, LONGEST)["others"]
    p = np.full(len(share), np.median(base["fit"]))
    on_seen = fit_weights(lengths, agreements, p, share, LONGEST)
    lengths, _, share = matches["fit"]["others"]
    has = (lengths > 0).astype(int)
    one = fit_weights(has, 0 * has, base["fit"], share, 1)[1, 0]
    ways = {"fitted on remembered files": on_seen, "one weight": np.full((LONGEST + 1, 3), one)}
    found = {}
    for name, weights in ways.items():
        mixed = _mixed(base["test"], matches["test"]["others"], weights)
        found[name] = bits_per_byte(np.log(np.maximum(mixed, 1e-12)), text)
    return found


def _counted(model: NgramLM, parts: dict, text: str) -> dict[str, float]:
    """Let counting models count the remembered files, too: of the model's order, and of a longer one."""
    found = {}
    for order in (ORDER, LONG_ORDER):
        larger = NgramLM(order, VOCAB_SIZE)
        for ids in (*parts["model"], *parts["memory"]):
            larger.count(ids)
        found[str(order)] = bits_per_byte(np.log(_scores(larger, parts["test"])), text)
    return found


def _drafts(
    texts: list[list[int]],
    others: _Remembered,
    file_weights: np.ndarray,
    own_weights: np.ndarray,
    thresholds: tuple[float, ...],
) -> dict[str, list]:
    """Let files be written as they are; by threshold, the share of drafted tokens that are right."""
    found: dict[str, list] = {"own": [], "others": []}
    for at_least in thresholds:
        for source, weights in (("own", own_weights), ("others", file_weights)):
            n_drafted = n_right = n_calls = n_tokens = 0
            for ids in texts:
                own, place = GrowingIndex(LONGEST), 0
                while place < len(ids):
                    index = own if source == "own" else others
                    context = ids[max(0, place - LONGEST) : place]
                    draft = propose(index, context, N_DRAFT, weights, at_least)
                    right = 0
                    for one, other in zip(draft, ids[place:], strict=False):
                        if one != other:
                            break
                        right += 1
                    n_drafted, n_right, n_calls = n_drafted + len(draft), n_right + right, n_calls + 1
                    for token in ids[place : place + right + 1]:
                        own.append(token)
                    place += right + 1
                n_tokens += len(ids)
            found[source].append([at_least, n_right / max(n_drafted, 1), n_tokens / n_calls])
    return found


def _verbatim(texts: list[list[int]], model: NgramLM, others: _Remembered, rng, n_places: int) -> dict:
    """Give 8 tokens of a remembered file; see how often the next 16 come back to the letter."""
    sure = np.ones((LONGEST + 1, 3))
    long = [ids for ids in texts if len(ids) > 100]
    found = {"memory": 0, "model": 0}
    for _ in range(n_places):
        ids = long[rng.integers(len(long))]
        at = int(rng.integers(LONGEST, len(ids) - 16))
        wanted, prompt = ids[at : at + 16], ids[at - LONGEST : at]
        found["memory"] += propose(others, prompt, 16, sure, 0.0) == wanted
        text = list(prompt)
        while len(text) < len(prompt) + 16 and text[len(prompt) :] == wanted[: len(text) - len(prompt)]:
            text.append(int(model.log_probs(text).argmax()))
        found["model"] += text[len(prompt) :] == wanted
    return {name: n / n_places for name, n in found.items()}


def _loops(model: NgramLM, weights: np.ndarray, rng: np.random.Generator, n_new: int) -> dict[str, float]:
    """Draw texts with and without a memory of themselves; return the share of runs of 8 that are repeated."""
    found = {}
    for name, table in (("model", np.zeros_like(weights)), ("with a memory of itself", weights)):
        own, text = GrowingIndex(LONGEST), []
        for _ in range(n_new):
            length, counts = longest_match(own, text, LONGEST)
            p = mix(np.exp(model.log_probs(text)), counts, table[length, agreement(counts)])
            text.append(draw(p, rng))
            own.append(text[-1])
        runs = [tuple(text[at : at + 8]) for at in range(len(text) - 7)]
        found[name] = 1 - len(set(runs)) / len(runs)
    return found


def plot(numbers: dict):
    """Draw bits per byte by the longest match, the weights by length, and what drafts are worth."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5))
    lengths = numbers["lengths"]
    names = {"others": "other files", "own": "own file"}
    left.axhline(np.mean(numbers["model"]), color="0.5", ls="--", label="model alone")
    for (source, name), colour in zip(names.items(), ("C1", "C0"), strict=True):
        bits = np.mean([each[source] for each in numbers["by_length"]], axis=0)
        left.plot(lengths, bits, f"{colour}o-", ms=4, label=name)
    left.axhline(np.mean(numbers["both"]), color="C2", ls=":", label="both, up to 8 tokens")
    left.set(xlabel="longest match, tokens", ylabel="bits per byte of unseen files", xscale="log")
    left.set_xticks(lengths, [str(each) for each in lengths])
    left.minorticks_off()
    left.legend(fontsize=8)
    weights = np.mean([each["own"] for each in numbers["weights"]], axis=0)
    for kind, label in ((2, "several places agree"), (1, "one place"), (0, "places differ")):
        middle.plot(range(1, LONGEST + 1), weights[1:, kind], f"C{kind + 3}o-", ms=4, label=label)
    middle.set(xlabel="tokens that match, own file", ylabel="weight of the memory", ylim=(0, 1))
    middle.legend(fontsize=8)
    for (source, name), colour in zip(names.items(), ("C1", "C0"), strict=True):
        rows = np.mean([each[source] for each in numbers["drafts"]], axis=0)
        right.plot(100 * rows[:, 1], rows[:, 2], f"{colour}o-", ms=4, label=name)
        right.annotate(f"{rows[0, 0]:g}", (100 * rows[0, 1], rows[0, 2]), (4, 4), textcoords="offset points")
    right.set(xlabel="percent of drafted tokens that are right", ylabel="tokens for each call of the model")
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: what each memory saves, how weights grow and may not be fitted, drafts, what it keeps."""
    is_full = len(numbers["model"]) > 1
    at_8 = numbers["lengths"].index(LONGEST)
    model, both = np.array(numbers["model"]), np.array(numbers["both"])
    own, others = (np.array([each[name] for each in numbers["by_length"]]) for name in ("own", "others"))
    assert (own[:, at_8] < 0.88 * model).all()
    assert (others[:, at_8] < 0.985 * model).all()
    assert (both < own[:, at_8]).all()
    ways = {
        key: np.array([each[key] for each in numbers["wrong weights"]]) for key in numbers["wrong weights"][0]
    }
    assert (ways["fitted on remembered files"] > others[:, at_8] + 0.02).all()
    verbatim = {key: np.array([each[key] for each in numbers["verbatim"]]) for key in ("memory", "model")}
    assert (verbatim["memory"] > 0.4).all()
    assert (verbatim["model"] < 0.05).all()
    weights = np.mean([each["own"] for each in numbers["weights"]], axis=0)
    assert weights[2, 2] > weights[1, 2]
    assert weights[2, 2] > weights[2, 1]
    if is_full:
        assert ((own[:, at_8] > 0.78 * model) & (own[:, at_8] < 0.84 * model)).all()
        assert ((others[:, at_8] > 0.93 * model) & (others[:, at_8] < 0.975 * model)).all()
        assert ((both > 0.74 * model) & (both < 0.81 * model)).all()
        assert (own[:, at_8] - own.min(axis=1) < 0.01).all()
        assert (own[:, 0] > own[:, at_8] + 0.05).all()
        counted = {key: np.array([each[key] for each in numbers["counted"]]) for key in ("4", "9")}
        assert (counted["4"] < others[:, at_8] - 0.02).all()
        assert (counted["9"] > others[:, at_8] + 0.02).all()
        assert (ways["fitted on remembered files"] > model + 0.05).all()
        assert (ways["one weight"] - others[:, at_8] < 0.01).all()
        assert weights[1, 2] < 0.35
        assert weights[8, 2] > 0.85
        assert (np.diff(weights[1:4, 2]) > 0).all()
        drafts = np.array([each["own"] for each in numbers["drafts"]])
        assert (drafts[:, 0, 1] < 0.3).all()
        assert ((drafts[:, 2, 1] > 0.4) & (drafts[:, 2, 1] < 0.55)).all()
        assert ((drafts[:, 0, 2] > 1.25) & (drafts[:, 0, 2] < 1.4)).all()
        assert ((drafts[:, 2, 2] > 1.1) & (drafts[:, 2, 2] < 1.2)).all()
        assert (verbatim["memory"] > 0.68).all()
        loops = [each["with a memory of itself"] for each in numbers["loops"]]
        assert min(loops) > 0.05
        assert max(loops) > 0.8
        assert max(each["model"] for each in numbers["loops"]) == 0
