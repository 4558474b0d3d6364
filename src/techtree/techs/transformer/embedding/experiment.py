"""One table for both ends or two, by size of the vocabulary; and gradients that do not add up."""

import math
import re
from collections import Counter

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding

WIDTH, N_HIDDEN, N_CONTEXT, BATCH = 32, 64, 3, 64
MODELS = ("one table", "two tables", "one table, nothing between", "two tables, nothing between")
STDS = (0.005, 0.02, 0.1, 0.5, 1.0)
N_HEAD, WIDTH_OF_HEAD, N_VECTORS = 1024, 768, 512


class LastGradient(Embedding):
    """The usual error: a row that was taken several times keeps the gradient of its last place."""

    def forward(self, ids: np.ndarray) -> Tensor:
        """Look up, and forget to add."""
        weight = self.weight

        def assign(g: np.ndarray) -> np.ndarray:
            whole = np.zeros(weight.shape)
            whole[ids] = g
            return whole

        return record(weight.data[ids], (weight, assign))


class Predictor(Module):
    """Three tokens, or the last one alone, then the scores of the next."""

    def __init__(self, n_tokens: int, name: str, rng: np.random.Generator, kind: type = Embedding):
        self.table = kind(n_tokens, WIDTH, rng, std=0.1)
        self.head = self.table if name.startswith("one") else Embedding(n_tokens, WIDTH, rng, std=0.1)
        self.is_direct = name.endswith("between")
        if not self.is_direct:
            self.hidden = Linear(N_CONTEXT * WIDTH, N_HIDDEN, rng)
            self.out = Linear(N_HIDDEN, WIDTH, rng)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the scores of the token after each row of three."""
        if self.is_direct:
            return self.head.unembed(self.table(ids[:, -1]))
        x = self.table(ids).reshape(len(ids), N_CONTEXT * WIDTH)
        return self.head.unembed(self.out(self.hidden(x).tanh()))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train small predictors of source code, with one table and with two, and with the error.

    Parameters
    ----------
    rng
        Draws tables, layers and batches.
    scale
        The share of steps, seeds and vocabularies, in (0, 1].

    Returns
    -------
    dict
        Held-out losses in nats for each vocabulary and model, sizes, and what the error does to a gradient.
    """
    is_full = scale > 0.5
    n_steps, n_seeds = (600, 3) if is_full else (120, 1)
    sizes = (64, 256, 1024, 2048) if is_full else (64, 1024)
    seeds = [int(seed) for seed in rng.integers(2**32, size=n_seeds)]
    found: dict = {"sizes": list(sizes), "losses": {name: [] for name in MODELS}, "error": [], "kept": []}
    for n_tokens in sizes:
        seen, unseen = _ids(n_tokens, 100_000 if is_full else 30_000)
        for name in MODELS:
            losses = [_train(s, seen, unseen, n_tokens, name, n_steps) for s in seeds]
            found["losses"][name].append(float(np.mean(losses)))
        losses = [_train(s, seen, unseen, n_tokens, MODELS[1], n_steps, LastGradient) for s in seeds]
        found["error"].append(float(np.mean(losses)))
        found["kept"].append(_kept(np.random.default_rng(seeds[0]), seen, n_tokens))
    found["parameters"] = {
        name: [sum(p.data.size for p in Predictor(n, name, rng).parameters()) for n in sizes]
        for name in MODELS
    }
    found["stds"] = list(STDS)
    found["first_loss"] = [_first_loss(rng, std) for std in STDS]
    return found


def _ids(n_tokens: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of two halves of the standard library: characters if there are 64, else words."""
    cut = list if n_tokens == 64 else re.compile(r"\w+|[^\w\s]|\s+").findall
    files = standard_library()
    halves = [_first(files[1::2], cut, n), _first(files[::2], cut, 4000)]
    known = {piece: i for i, (piece, _) in enumerate(Counter(halves[0]).most_common(n_tokens - 1), 1)}
    seen, unseen = (np.array([known.get(piece, 0) for piece in half]) for half in halves)
    return seen, unseen


def _first(files: list[str], cut, n: int) -> list[str]:
    pieces: list[str] = []
    for text in files:
        pieces += cut(text)
        if len(pieces) >= n:
            break
    return pieces[:n]


def _train(
    seed: int, seen: np.ndarray, unseen: np.ndarray, n_tokens: int, name: str, n_steps: int, kind=Embedding
) -> float:
    rng = np.random.default_rng(seed)
    model = Predictor(n_tokens, name, rng, kind)
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0)
    for step in range(n_steps):
        chosen = rng.integers(N_CONTEXT, len(seen), size=BATCH)
        cross_entropy(model(_before(seen, chosen)), seen[chosen]).backward()
        optimizer.groups[0]["lr"] = 0.01 * (1 - step / n_steps)
        optimizer.step()
        optimizer.zero_grad()
    with no_grad():
        chosen = np.arange(N_CONTEXT, len(unseen))
        return float(cross_entropy(model(_before(unseen, chosen)), unseen[chosen]).data)


def _before(ids: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return ids[chosen[:, None] + np.arange(-N_CONTEXT, 0)]


def _kept(rng: np.random.Generator, seen: np.ndarray, n_tokens: int) -> dict:
    """Compare the gradient of a table with what the error leaves of it, in a model at its start."""
    seed, chosen = int(rng.integers(2**32)), rng.integers(N_CONTEXT, len(seen), size=16 * BATCH)
    gradients = []
    for kind in (Embedding, LastGradient):
        model = Predictor(n_tokens, MODELS[1], np.random.default_rng(seed), kind)
        cross_entropy(model(_before(seen, chosen)), seen[chosen]).backward()
        assert model.table.weight.grad is not None
        gradients.append(model.table.weight.grad.ravel())
    right, wrong = gradients
    lengths = [math.sqrt(each @ each) for each in gradients]
    return {
        "places": len(np.unique(_before(seen, chosen))) / (chosen.size * N_CONTEXT),
        "length": lengths[1] / lengths[0],
        "cosine": float(right @ wrong / (lengths[0] * lengths[1])),
    }


def _first_loss(rng: np.random.Generator, std: float) -> float:
    """Return the loss of a fresh head above that of equal chances, for vectors with entries of size 1."""
    head = Embedding(N_HEAD, WIDTH_OF_HEAD, rng, std=std)
    with no_grad():
        logits = head.unembed(Tensor(rng.normal(size=(N_VECTORS, WIDTH_OF_HEAD))))
        return float(cross_entropy(logits, rng.integers(N_HEAD, size=N_VECTORS)).data) - math.log(N_HEAD)


def plot(numbers: dict):
    """Draw losses by vocabulary, parameters, and what the error leaves of a gradient."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    sizes = numbers["sizes"]
    for name, style in zip(MODELS, ("C0o-", "C1s-", "C0o--", "C1s--"), strict=True):
        left.plot(sizes, numbers["losses"][name], style, markersize=4, label=name)
    left.set(xscale="log", xlabel="tokens in the vocabulary", ylabel="held-out loss, nats", ylim=(1.5, 7))
    left.legend(loc="upper left", fontsize=7.5)
    for name, style in zip(MODELS[:2], ("C0o-", "C1s-"), strict=True):
        middle.plot(sizes, np.array(numbers["parameters"][name]) / 1000, style, markersize=4, label=name)
    middle.set(
        xscale="log", xlabel="tokens in the vocabulary", ylabel="parameters, thousands", ylim=(0, None)
    )
    middle.legend(loc="upper left")
    for key, label, style in (
        ("cosine", "cosine with the right one", "C2o-"),
        ("length", "length, of the right one's", "C3s-"),
        ("places", "places that count", "C7^-"),
    ):
        right.plot(sizes, [each[key] for each in numbers["kept"]], style, markersize=4, label=label)
    right.set(
        xscale="log", xlabel="tokens in the vocabulary", ylabel="gradient without adding up", ylim=(0, 0.5)
    )
    right.legend(loc="upper left", fontsize=8)
    for axes in (left, middle, right):
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: between two layers one table does as well; alone it cannot; the error is silent."""
    one, two, direct_one, direct_two = (np.array(numbers["losses"][name]) for name in MODELS)
    sizes = numbers["sizes"]
    is_full = len(sizes) == 4
    gain, gap, wrong = two - one, direct_one - direct_two, np.array(numbers["error"]) - two
    assert np.abs(gain).max() < 0.2
    assert gap.min() > 0.15
    assert gap[-1] > max(0.5, 2 * gap[0])
    assert (direct_two > two).all()
    assert -0.1 < wrong.min() <= wrong.max() < 0.25
    if is_full:
        assert -0.05 < gain.min() <= gain.max() < 0.1
        assert (np.diff(gap) > 0).all()
        assert abs(gap[0] - 0.3) < 0.1
        assert abs(gap[-1] - 1.2) < 0.2
        assert 0 < wrong.min() <= wrong.max() < 0.05
    parameters = {name: np.array(found) for name, found in numbers["parameters"].items()}
    assert (parameters[MODELS[1]] - parameters[MODELS[0]] == np.array(sizes) * WIDTH).all()
    if is_full:
        assert (parameters[MODELS[0]][-1], parameters[MODELS[1]][-1]) == (73_824, 139_360)
    kept = numbers["kept"]
    assert 0.015 < kept[0]["places"] < 0.025
    assert 0.1 < kept[-1]["places"] < 0.2
    assert all(each["length"] < 0.2 and each["cosine"] < 0.3 for each in kept)
    assert kept[0]["length"] < 0.04
    first = dict(zip(numbers["stds"], numbers["first_loss"], strict=True))
    assert 0.05 < first[0.02] < 0.25
    assert 2.5 < first[0.1] < 4.5
    assert 75 < first[1.0] < 95
