"""Look three tokens back: without positions, with learned ones, with waves; and what a base can say."""

import itertools

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.mha import MultiHeadAttention
from techtree.techs.transformer.positions import LearnedPositions, sinusoidal

N_TOKENS, WIDTH, BACK = 16, 32, 3
TRAINED, ASKED = 32, 64
KINDS = ("none", "learned", "waves")
BASES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000)
LENGTHS = (64, 512, 2048)
PAIRS_WIDTH = 64


class Reader(Module):
    """Tokens, positions, one attention that sees everything, scores."""

    def __init__(self, kind: str, rng: np.random.Generator):
        self.tokens = Embedding(N_TOKENS, WIDTH, rng, std=1.0)
        self.attention = MultiHeadAttention(WIDTH, 1, rng)
        self.head = Embedding(N_TOKENS, WIDTH, rng, std=0.1)
        self.kind, self.waves = kind, sinusoidal(ASKED, WIDTH)
        self.table = LearnedPositions(ASKED, WIDTH, rng) if kind == "learned" else None

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the scores of a token for each place."""
        x, n = self.tokens(ids), ids.shape[-1]
        if self.table is not None:
            x = x + self.table(n)
        elif self.kind == "waves":
            x = x + self.waves[:n]
        return self.head.unembed(self.attention(x))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train the three readers on short texts, ask them about long ones, and fit scores with waves.

    Parameters
    ----------
    rng
        Draws weights and texts.
    scale
        The share of steps and seeds, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON: the share of right answers by place, differences between answers to permuted
        texts, and what waves leave unexplained of two kinds of scores.
    """
    n_steps, n_seeds = (600, 3) if scale > 0.5 else (200, 1)
    seeds = [int(seed) for seed in rng.integers(2**32, size=n_seeds)]
    right, losses = {}, {}
    for kind in KINDS:
        found = [_train(np.random.default_rng(seed), kind, n_steps) for seed in seeds]
        right[kind] = np.mean([each for each, _ in found], axis=0).tolist()
        losses[kind] = [loss for _, loss in found]
    lengths = LENGTHS if scale > 0.5 else LENGTHS[:2]
    return {
        "right": right,
        "losses": losses,
        "permuted": _permuted(rng),
        "rotation": _rotation(),
        "bases": list(BASES),
        "unexplained": {
            f"{name} {n}": [_unexplained(score, n, base) for base in BASES]
            for name, score in (("nearest", _nearest), ("three back", _three_back))
            for n in lengths
        },
    }


def _train(rng: np.random.Generator, kind: str, n_steps: int) -> tuple[list[float], float]:
    """Return the share of right answers by place, for texts twice as long as in training, and the loss."""
    reader, loss = Reader(kind, rng), Tensor(0.0)
    optimizer = AdamW(reader.parameters(), lr=0.01, weight_decay=0)
    for step in range(n_steps):
        ids = rng.integers(N_TOKENS, size=(16, TRAINED))
        scores = reader(ids)[:, BACK:].reshape(-1, N_TOKENS)
        loss = cross_entropy(scores, ids[:, :-BACK].reshape(-1))
        loss.backward()
        optimizer.groups[0]["lr"] = 0.01 * min(1, 3 * (1 - step / n_steps))
        optimizer.step()
        optimizer.zero_grad()
    ids = rng.integers(N_TOKENS, size=(300, ASKED))
    with no_grad():
        short, long = (reader(ids[:, :n]).data.argmax(axis=-1) for n in (TRAINED, ASKED))
    # Places of the training are asked in texts of that length, the others in long ones.
    answers = np.concatenate([short, long[:, TRAINED:]], axis=1)
    return (answers[:, BACK:] == ids[:, :-BACK]).mean(axis=0).tolist(), float(loss.data)


def _permuted(rng: np.random.Generator) -> dict[str, float]:
    """Return how much answers of random layers change when tokens before the last one change places."""
    first, second = (MultiHeadAttention(WIDTH, 4, rng) for _ in range(2))
    tokens, order = rng.normal(size=(12, WIDTH)), np.append(rng.permutation(11), 11)
    waves, causal = sinusoidal(12, WIDTH), np.tri(12, dtype=bool)

    def change(read) -> float:
        with no_grad():
            answers = [read(Tensor(x)).data[-1] for x in (tokens, tokens[order])]
        return float(np.abs(answers[0] - answers[1]).max() / np.abs(answers[0]).max())

    return {
        "one layer": change(first),
        "two layers": change(lambda x: second(x + first(x))),
        "one causal layer": change(lambda x: first(x, causal)),
        "two causal layers": change(lambda x: second(x + first(x, causal), causal)),
        "one layer with waves": change(lambda x: first(x + waves)),
    }


def _rotation() -> dict[str, float]:
    """Return how far products of rows are from a function of the distance alone, and rows from one length."""
    rows = sinusoidal(500, PAIRS_WIDTH)
    products = rows @ rows.T
    by_distance = [np.ptp(np.diagonal(products, distance)) for distance in range(500)]
    return {
        "products": float(max(by_distance)),
        "lengths": float(np.ptp((rows**2).sum(axis=1))),
        "neighbour": float(products[0, 1] / products[0, 0]),
        "a hundred away": float(products[0, 100] / products[0, 0]),
    }


def _nearest(distance: np.ndarray) -> np.ndarray:
    return -np.abs(distance).astype(float)


def _three_back(distance: np.ndarray) -> np.ndarray:
    return (distance == BACK).astype(float)


def _unexplained(score, n: int, base: float) -> float:
    """Return the share of the variance of a score, over distances in a text of n, that waves cannot give.

    The best sum of sines and cosines of the distance, by least squares with a slight pull to 0, as weights
    that are trained do not become huge.
    """
    distance = np.arange(1 - n, n)
    angles = distance[:, None] * float(base) ** (-np.arange(0, PAIRS_WIDTH, 2) / PAIRS_WIDTH)
    waves = np.concatenate([np.cos(angles), np.sin(angles), np.ones((len(distance), 1))], axis=1)
    wanted = score(distance)
    wanted = (wanted - wanted.mean()) / wanted.std()
    pull = 1e-4 * len(distance) * np.eye(waves.shape[1])
    weights = np.linalg.solve(waves.T @ waves + pull, waves.T @ wanted)
    return float(((wanted - waves @ weights) ** 2).mean())


def plot(numbers: dict):
    """Draw right answers by place, and what a base can say at three lengths."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    names = {"waves": "waves", "learned": "a learned table", "none": "no positions"}
    for (kind, label), style in zip(names.items(), ("C0", "C1", "C7"), strict=True):
        left.plot(range(BACK, ASKED), numbers["right"][kind], style, label=label)
    left.axvline(TRAINED - 0.5, color="0.5", ls=":")
    left.text(TRAINED + 0.5, 1.05, "longer than trained", color="0.4", va="bottom")
    left.set(xlabel="place", ylabel="right, three back", ylim=(0, 1.18))
    left.legend(loc="center left")
    for style, n in zip(("C2", "C3", "C4"), LENGTHS, strict=True):
        for name, dash in (("nearest", "-"), ("three back", "--")):
            found = numbers["unexplained"].get(f"{name} {n}")
            if found:
                right.plot(numbers["bases"], found, style + dash, label=f"{name}, {n} tokens")
    right.axvline(10_000, color="0.5", ls=":")
    right.set(xscale="log", xlabel="base", ylabel="share of the score that is missing", ylim=(0, 1.05))
    right.legend(fontsize=7.5, loc="center right")
    return figure


def claim(numbers: dict) -> None:
    """README.md: blind without positions, a table ends where it ends, waves a little later; and the base."""
    right = {kind: np.array(found) for kind, found in numbers["right"].items()}
    inside = {kind: found[: TRAINED - BACK] for kind, found in right.items()}
    beyond = {kind: found[TRAINED - BACK :] for kind, found in right.items()}
    assert 0.12 < inside["none"].mean() < 0.2
    assert inside["learned"].mean() > 0.99
    assert inside["waves"].mean() > 0.99
    assert beyond["learned"].mean() < 0.12
    assert beyond["learned"].mean() < beyond["none"].mean() < 0.2
    assert 0.6 < beyond["waves"][0] < 0.95
    assert 0.25 < beyond["waves"].mean() < 0.6
    assert beyond["waves"].min() < 0.2
    assert beyond["waves"][8:].max() > 0.6
    permuted = numbers["permuted"]
    assert max(permuted[name] for name in ("one layer", "two layers", "one causal layer")) < 1e-12
    assert permuted["two causal layers"] > 0.1
    assert permuted["one layer with waves"] > 0.1
    rotation = numbers["rotation"]
    assert max(rotation["products"], rotation["lengths"]) < 1e-10
    assert 0.96 < rotation["neighbour"] < 0.98
    found = {
        name: dict(zip(numbers["bases"], each, strict=True)) for name, each in numbers["unexplained"].items()
    }
    assert found["nearest 64"][10] < 0.02
    assert found["nearest 512"][10] > 0.9
    assert found["nearest 512"][50] > 0.4
    assert max(found["nearest 512"][100], found["nearest 512"][200]) < 0.01
    if "nearest 2048" in found:
        assert found["nearest 2048"][100] > 0.9
        assert found["nearest 2048"][1000] < 0.01
    assert max(found[name][10_000] for name in found if name.startswith("nearest")) < 0.01
    back = found["three back 64"]
    assert min(back, key=back.__getitem__) == 10
    assert 0.67 < back[10] < 0.69
    assert 0.82 < back[10_000] < 0.84
    assert all(back[small] < back[large] for small, large in itertools.pairwise(BASES[3:]))
