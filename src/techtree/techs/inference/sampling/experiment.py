"""How wrong and how varied drawn texts are, by temperature, top-k, top-p and min-p, where the truth is known.

The *source* is a table: each character of our texts depends on the two before it, as counted in the
standard library. A network learns from texts of the source. What it writes can be judged: an *error* is a
character that the source never gives after these two.
"""

import itertools
from typing import Any

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling, generate, probabilities
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.activations import relu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding

N_TOKENS, LEAST_COUNT = 48, 5
WIDTH, HIDDEN, BATCH, RATE = 16, 64, 128, 3e-3
N_TEXTS, LENGTH, N_COPIES = 200, 300, 50
BITS = 2.5
"""At so many bits for each character the ways to cut are compared; the source itself has 2.9."""

SETTINGS: dict[str, tuple[float, ...]] = {
    "temperature": (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2),
    "top_k": (3, 5, 8, 12, 20),
    "top_p": (0.7, 0.8, 0.9, 0.95),
    "min_p": (0.2, 0.1, 0.05, 0.02),
}
FEWER: dict[str, tuple[float, ...]] = {
    "temperature": (0.5, 0.7, 1.0),
    "top_k": (8,),
    "top_p": (0.9,),
    "min_p": (0.2, 0.05),
}
COLD = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
LIKELIHOODS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 1.1)
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "repetition 1.3": {"repetition": 1.3},
    "presence 1": {"presence": 1.0},
    "frequency 0.1": {"frequency": 0.1},
    "frequency 1": {"frequency": 1.0},
}


class Network(Module):
    """Two characters, then the scores of the next."""

    def __init__(self, rng: np.random.Generator):
        self.embedding = Embedding(N_TOKENS, WIDTH, rng, std=0.3)
        self.hidden = Linear(2 * WIDTH, HIDDEN, rng, gain=2**0.5)
        self.head = Linear(HIDDEN, N_TOKENS, rng)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the scores after each pair of ids (n, 2)."""
        return self.head(relu(self.hidden(self.embedding(ids).reshape(len(ids), 2 * WIDTH))))


def make_source(n_characters: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each character after each two, and the first two of the text."""
    text = " ".join("".join(standard_library())[:n_characters].split())
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    common = np.argsort(-np.bincount(codes, minlength=128), kind="stable")[: N_TOKENS - 1]
    number = np.full(128, N_TOKENS - 1)
    number[common] = np.arange(N_TOKENS - 1)
    ids = number[codes]
    places = (ids[:-2] * N_TOKENS + ids[1:-1]) * N_TOKENS + ids[2:]
    three = np.bincount(places, minlength=N_TOKENS**3).reshape((N_TOKENS,) * 3)
    three = np.where(three < LEAST_COUNT, 0, three)
    # After two that never stood together, what follows the second of them.
    counts = np.where(three.any(axis=-1, keepdims=True), three, three.sum(axis=0))
    return counts / counts.sum(axis=-1, keepdims=True), ids[:2]


def write(p: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw texts by a table of probabilities after each two characters: (texts, 2 + length)."""
    ends = np.cumsum(p, axis=-1)
    texts = np.zeros((N_TEXTS, LENGTH + 2), int)
    texts[:, :2] = start
    for place in range(2, LENGTH + 2):
        row = ends[texts[:, place - 2], texts[:, place - 1]]
        texts[:, place] = (row <= rng.random(N_TEXTS)[:, None] * row[:, -1:]).sum(axis=1)
    return texts


def learn(texts: np.ndarray, n_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Train a network on texts; return its logits after each two characters."""
    pairs = np.stack([texts[:, :-2].ravel(), texts[:, 1:-1].ravel()], axis=1)
    following = texts[:, 2:].ravel()
    model = Network(rng)
    optimizer = AdamW(model.parameters(), RATE, weight_decay=0.0)
    for step in range(n_steps):
        at = rng.integers(len(pairs), size=BATCH)
        optimizer.zero_grad()
        cross_entropy(model(pairs[at]), following[at]).backward()
        optimizer.groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / n_steps))
        optimizer.step()
    with no_grad():
        everything = np.indices((N_TOKENS, N_TOKENS)).reshape(2, -1).T
        return model(everything).data.reshape((N_TOKENS,) * 3)


def chosen(logits: np.ndarray, **numbers) -> np.ndarray:
    """Return `probabilities` of each row of a table."""
    rows = [probabilities(row, **numbers) for row in logits.reshape(-1, N_TOKENS)]
    return np.reshape(rows, logits.shape)


def judge(p: np.ndarray, source: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Write by a table, and measure: bits for each character, errors in 1,000, and those after an error."""
    texts = write(p, start, rng)
    at = texts[:, :-2], texts[:, 1:-1]
    is_error = source[(*at, texts[:, 2:])] == 0
    bits = -(p * np.log2(np.maximum(p, 1e-300))).sum(axis=-1)
    after = is_error[:, 1:][is_error[:, :-1]]
    return {
        "bits": float(bits[at].mean()),
        "errors": 1000 * float(is_error.mean()),
        "errors after an error": 1000 * float(after.mean()) if len(after) else 0.0,
        "n_choices": float((p > 0).sum(axis=-1)[at].mean()),
        "new": new(texts[:N_COPIES]),
    }


def new(texts: np.ndarray) -> float:
    """Return the share of places at which the last eight characters stand for the first time."""
    found = []
    for text in texts.tolist():
        eights = [tuple(text[n : n + 8]) for n in range(len(text) - 7)]
        found.append(len(set(eights)) / len(eights))
    return float(np.mean(found))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Let networks write in many ways, and count errors and repetitions.

    Parameters
    ----------
    rng
        Draws the seeds: of the texts to learn from, the weights, and the texts.
    scale
        Below 1: one network in place of three, less training, fewer settings.

    Returns
    -------
    dict
        Ready for JSON; lists have an entry for each network.
    """
    is_full = scale == 1
    source, start = make_source(4_000_000 if is_full else 1_000_000)
    settings = SETTINGS if is_full else FEWER
    found: dict = {"source": [], "ways": {}, "order": {}, "mass": [], "cold": {}, "penalties": {}}
    for seed in rng.integers(2**32, size=3 if is_full else 1):
        rng = np.random.default_rng(seed)
        logits = learn(write(source, start, rng), 3000 if is_full else 700, rng)

        def told(p, rng=rng):
            return judge(p, source, start, rng)

        found["source"].append(told(source))
        for name, values in settings.items():
            for value in values:
                numbers = told(chosen(logits, **{name: value}))
                found["ways"].setdefault(name, {}).setdefault(str(value), []).append(numbers)
        for cut in ({"top_p": 0.9}, {"min_p": 0.1}):
            (name,) = cut
            orders = found["order"].setdefault(name, {"plain": [], "last": [], "first": []})
            orders["plain"].append(told(chosen(logits, **cut)))
            orders["last"].append(told(chosen(logits, temperature=1.5, **cut)))
            orders["first"].append(told(chosen(logits / 1.5, **cut)))
        found["mass"].append(_mass(chosen(logits), source, start, rng))
        for temperature in COLD if is_full else (0.0, 1.0):
            both = found["cold"].setdefault(str(temperature), {"network": [], "source": []})
            with np.errstate(divide="ignore"):
                true = np.log(source)
            for name, table in (("network", logits), ("source", true)):
                both[name].append(new(write(chosen(table, temperature=temperature), start, rng)[:N_COPIES]))
        for name, numbers in PENALTIES.items():
            text = _penalized(logits, start, numbers, 300 if is_full else 100)
            errors = source[text[:-2], text[1:-1], text[2:]] == 0
            told_of = {"errors": 1000 * float(errors.mean()), "new": new(text[None])}
            found["penalties"].setdefault(name, []).append(told_of)
    return found


def _mass(p: np.ndarray, source: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> dict:
    """Return, by the network's probability of what was drawn, how often that is, and how often an error."""
    texts = write(p, start, rng)
    at = texts[:, :-2], texts[:, 1:-1], texts[:, 2:]
    group = np.digitize(p[at], LIKELIHOODS) - 1
    is_error = source[at] == 0
    groups = range(len(LIKELIHOODS) - 1)
    return {
        "drawn": [float((group == each).mean()) for each in groups],
        "wrong": [float(is_error[group == each].mean()) for each in groups],
    }


def _penalized(logits: np.ndarray, start: np.ndarray, numbers: dict[str, Any], n_new: int) -> np.ndarray:
    def model(ids: np.ndarray) -> Tensor:
        return Tensor(logits[ids[-2:-1], ids[-1:]])

    settings = Sampling(temperature=0.0, **numbers)
    return np.array([*start, *generate(model, list(start), n_new, settings, np.random.default_rng(0))])


def errors_at(numbers: dict, name: str, bits: float = BITS) -> np.ndarray:
    """Return the errors in 1,000 at so many bits, between the measured settings of one way; by network."""
    ways = numbers["ways"][name].values()
    found = []
    for one in zip(*ways, strict=True):
        points = sorted((each["bits"], np.log(each["errors"])) for each in one)
        x, y = np.transpose(points)
        found.append(float(np.exp(np.interp(bits, x, y))))
    return np.array(found)


def plot(numbers: dict):
    """Draw errors by the likelihood of what was drawn, errors by bits, and repetition by temperature."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5))
    drawn = np.mean([each["drawn"] for each in numbers["mass"]], axis=0)
    wrong = np.mean([each["wrong"] for each in numbers["mass"]], axis=0)
    places = np.arange(len(drawn))
    left.bar(places, 100 * drawn, 0.7, color="0.8", label="of all that is drawn")
    left.bar(places, 100 * drawn * wrong, 0.7, color="C3", label="of it wrong")
    for place, share in zip(places, wrong, strict=True):
        left.annotate(f"{100 * share:.0f} %", (float(place), 100 * drawn[place] + 1), ha="center", fontsize=8)
    names = ["below 0.001", "to 0.003", "to 0.01", "to 0.03", "to 0.1", "above"]
    left.set_xticks(places, names, rotation=35, ha="right")
    left.set(xlabel="probability that the network gave it", ylabel="percent")
    left.set_title("percentages: of these, wrong", fontsize=9)
    left.legend(loc="upper left", fontsize=8)
    marks = {"temperature": "o", "top_k": "^", "top_p": "s", "min_p": "D"}
    for (name, values), colour in zip(numbers["ways"].items(), ("C3", "C0", "C1", "C2"), strict=True):
        bits = [np.mean([each["bits"] for each in one]) for one in values.values()]
        errors = [np.mean([each["errors"] for each in one]) for one in values.values()]
        middle.plot(bits, errors, color=colour, marker=marks[name], ms=4, label=name.replace("_", "-"))
    true = np.mean([each["bits"] for each in numbers["source"]])
    middle.axvline(float(true), color="0.6", ls="--", lw=1)
    middle.annotate("source", (float(true), 1.7), rotation=90, ha="right", fontsize=8, color="0.4")
    middle.set(yscale="log", xlabel="variety, bits for each character", ylabel="errors in 1,000 characters")
    middle.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    middle.minorticks_off()
    middle.legend(fontsize=8)
    temperatures = [float(each) for each in numbers["cold"]]
    for name, style in (("network", "-"), ("source", "--")):
        share = [100 * np.mean(each[name]) for each in numbers["cold"].values()]
        right.plot(temperatures, share, style, color="C0", marker=".", label=f"the {name}")
    right.set(xlabel="temperature", ylabel="percent of eights that are new", ylim=(0, 105))
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: where errors are, what each way to cut costs, that cold texts loop, what penalties do."""
    is_full = len(numbers["source"]) > 1
    temperature = errors_at(numbers, "temperature")
    assert (errors_at(numbers, "min_p") < temperature).all()
    for mass in numbers["mass"]:
        assert all(one > other for one, other in itertools.pairwise(mass["wrong"][1:]))
        assert sum(mass["drawn"][:3]) < 0.1  # what the network gave less than 0.01
    for one in numbers["ways"]["temperature"]["1.0"]:
        assert one["errors after an error"] > 1.5 * one["errors"]
    for orders in numbers["order"].values():
        for plain, last, first in zip(orders["plain"], orders["last"], orders["first"], strict=True):
            assert 0.9 < last["n_choices"] / plain["n_choices"] < 1.1
            assert first["n_choices"] > 1.4 * plain["n_choices"]
            assert first["errors"] > 1.4 * last["errors"]
    for name in ("network", "source"):
        assert max(numbers["cold"]["0.0"][name]) < 0.1
        assert min(numbers["cold"]["1.0"][name]) > 0.97
    penalties = numbers["penalties"]
    assert all(each["errors"] == 0 and each["new"] < 0.1 for each in penalties["none"])
    assert all(each["errors"] > 50 and each["new"] > 0.9 for each in penalties["frequency 1"])
    if is_full:
        for name in ("top_p", "min_p"):
            assert (errors_at(numbers, name) < 0.9 * temperature).all()
        assert (errors_at(numbers, "top_k") > 0.8 * temperature).all()
        for mass in numbers["mass"]:
            errors = np.multiply(mass["drawn"], mass["wrong"])
            assert 0.25 < errors[:3].sum() / errors.sum() < 0.4
            assert mass["wrong"][0] > 0.6
            assert mass["wrong"][-1] < 0.03
            assert mass["drawn"][-1] > 0.5
        for one, source in zip(numbers["ways"]["temperature"]["1.0"], numbers["source"], strict=True):
            assert 65 < one["errors"] < 90
            assert one["errors after an error"] > 3 * one["errors"]
            assert 3.2 < one["bits"] < 3.5
            assert 2.9 < source["bits"] < 3.0
        for first, last in zip(
            numbers["order"]["top_p"]["first"], numbers["order"]["top_p"]["last"], strict=True
        ):
            assert first["errors"] > 1.9 * last["errors"]
            assert 19.5 < first["n_choices"] < 21.5
            assert 12.3 < last["n_choices"] < 13.5
        for name in ("network", "source"):
            assert max(numbers["cold"]["0.0"][name]) < 0.01
            assert max(numbers["cold"]["0.2"][name]) < 0.6
            assert min(numbers["cold"]["0.6"][name]) > 0.95
        assert all(each["new"] < 0.3 for each in penalties["repetition 1.3"])
        assert all(each["new"] > 0.6 and each["errors"] < 30 for each in penalties["frequency 0.1"])
