"""Which orders a careless shuffle prefers, what the order does to training, and what is left out."""

import itertools
import math
from collections.abc import Iterable

import numpy as np

from techtree.techs.training.dataloader import BatchStream, DataLoader, shuffled

WAYS = ("sorted", "with replacement", "shuffled once", "shuffled each epoch")
N_EXAMPLES, BATCH_SIZE, WIDTH, LEARNING_RATE = 240, 8, 6, 0.03


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Enumerate shuffles, train in four orders, drop and keep last batches, and resume.

    Parameters
    ----------
    rng
        Draws data and orders.
    scale
        The share of the full number of repetitions, in (0, 1].

    Returns
    -------
    dict
        How likely each order of four is; the excess loss by epoch for each way to order the examples, and for
        a last batch of one example that is kept or dropped; the share of the examples that no epoch so far
        has used; the share seen twice in an epoch that was resumed, by what was saved.
    """
    orders = ["".join(map(str, order)) for order in itertools.permutations(range(4))]
    n_drawn = max(2400, round(24_000 * scale))
    drawn = dict.fromkeys(orders, 0)
    for _ in range(n_drawn):
        drawn["".join(map(str, shuffled(4, rng).tolist()))] += 1
    return {
        "orders": orders,
        "any_with_any": _shares(orders, _any_with_any, 4**4),
        "with_those_left": _shares(orders, _with_those_left, math.factorial(4)),
        "n_drawn": n_drawn,
        "ours": [drawn[order] / n_drawn for order in orders],
        "excess": _training(rng, 20, max(24, round(40 * scale))),
        "last_batch": _last_batches(rng, 20, max(20, round(40 * scale))),
        "never_seen": _never_seen(int(rng.integers(2**31)), 5),
        "seen_twice": _resumed(int(rng.integers(2**31))),
        "state_bytes": _state_bytes(),
    }


def _shares(orders: list[str], shuffle, n_outcomes: int) -> list[float]:
    """Return how likely each order is, by trying every outcome of the draws."""
    counts = dict.fromkeys(orders, 0)
    for order in shuffle():
        counts["".join(map(str, order))] += 1
    return [count / n_outcomes for count in counts.values()]


def _any_with_any():
    """Exchange each place with any place: 4^4 outcomes."""
    for draws in itertools.product(range(4), repeat=4):
        order = list(range(4))
        for place, other in enumerate(draws):
            order[place], order[other] = order[other], order[place]
        yield order


def _with_those_left():
    """Exchange each place with one that is not settled yet: 4! outcomes."""
    for draws in itertools.product(range(4), range(3), range(2), range(1)):
        order = list(range(4))
        for place, other in zip((3, 2, 1, 0), draws, strict=True):
            order[place], order[other] = order[other], order[place]
        yield order


def _training(rng: np.random.Generator, n_epochs: int, n_runs: int) -> dict[str, list[float]]:
    """Train a linear model; return by how much its loss exceeds the least possible, after each epoch."""
    excess = {way: np.zeros(n_epochs) for way in WAYS}
    for _ in range(n_runs):
        x, y = _task(rng, N_EXAMPLES)
        seed = int(rng.integers(2**31))
        for way in WAYS:
            epochs = ([*_batches(way, epoch, seed)] for epoch in range(n_epochs))
            excess[way] += np.array(_excess(x, y, epochs)) / n_runs
    return {way: values.tolist() for way, values in excess.items()}


def _task(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return examples of a linear model with noise, sorted by their targets."""
    x = rng.normal(size=(n, WIDTH))
    y = x @ rng.normal(size=WIDTH) + rng.normal(size=n)
    by_target = np.argsort(y)
    return x[by_target], y[by_target]


def _excess(x: np.ndarray, y: np.ndarray, epochs: Iterable[list[np.ndarray]]) -> list[float]:
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    least = np.mean((x @ best - y) ** 2)
    w, found = np.zeros(WIDTH), []
    for batches in epochs:
        for batch in batches:
            error = x[batch] @ w - y[batch]
            w = w - LEARNING_RATE * 2 * x[batch].T @ error / len(batch)
        found.append(float(np.mean((x @ w - y) ** 2) - least))
    return found


def _last_batches(rng: np.random.Generator, n_epochs: int, n_runs: int) -> dict[str, float]:
    """Train on one example more than fills the batches; return the mean excess from epoch 10 on."""
    found = {"dropped": 0.0, "kept": 0.0}
    for _ in range(n_runs):
        x, y = _task(rng, N_EXAMPLES + 1)
        seed = int(rng.integers(2**31))
        for name in found:
            loader = DataLoader(N_EXAMPLES + 1, BATCH_SIZE, seed, keep_last=name == "kept")
            excess = _excess(x, y, (list(loader.epoch(number)) for number in range(n_epochs)))
            found[name] += float(np.mean(excess[10:])) / n_runs
    return found


def _never_seen(seed: int, n_epochs: int) -> dict[str, list[float]]:
    """Drop 232 of 1,000 examples in each epoch, the same ones or others; return the share not used so far."""
    loader = DataLoader(1000, 256, seed)
    found = {}
    for way in ("shuffled once", "shuffled each epoch"):
        unused, shares = set(range(1000)), []
        for number in range(n_epochs):
            for batch in loader.epoch(number if way == "shuffled each epoch" else 0):
                unused -= set(batch.tolist())
            shares.append(len(unused) / 1000)
        found[way] = shares
    return found


def _resumed(seed: int) -> dict[str, float]:
    """Stop in the middle of an epoch and go on; return the share of its examples that come twice."""
    n = 1000
    generator = np.random.default_rng(seed)
    before = shuffled(n, generator)[: n // 2]  # the order is drawn, and the generator stands behind it
    after = shuffled(n, generator)[: n // 2]
    loader = DataLoader(n, 50, seed)
    stream, resumed = BatchStream(loader), BatchStream(loader)
    first = [stream.next_batch() for _ in range(10)]
    resumed.load_state_dict(stream.state_dict())
    second = [resumed.next_batch() for _ in range(10)]
    return {
        "generator": len(np.intersect1d(before, after)) / n,
        "epoch and position": len(np.intersect1d(np.concatenate(first), np.concatenate(second))) / n,
    }


def _batches(way: str, epoch: int, seed: int):
    if way == "sorted":
        return np.arange(N_EXAMPLES).reshape(-1, BATCH_SIZE)
    if way == "with replacement":
        rng = np.random.default_rng([seed, epoch])
        return rng.integers(N_EXAMPLES, size=(N_EXAMPLES // BATCH_SIZE, BATCH_SIZE))
    loader = DataLoader(N_EXAMPLES, BATCH_SIZE, seed)
    return loader.epoch(0 if way == "shuffled once" else epoch)


def _state_bytes() -> list[int]:
    """Return the bytes of a stream's state, for few examples and for many."""
    streams = [BatchStream(DataLoader(n, 8, seed=0)) for n in (80, 80_000)]
    return [sum(value.nbytes for value in stream.state_dict().values()) for stream in streams]


def plot(numbers: dict):
    """Draw how likely each order is, the excess loss by epoch, and the share of examples never used."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4), width_ratios=(1.5, 1.2, 0.8))
    places = np.arange(len(numbers["orders"]))
    left.bar(places, np.array(numbers["any_with_any"]) * 24, color="C1", alpha=0.6, label="with any place")
    left.plot(places, np.array(numbers["ours"]) * 24, "o", color="C0", markersize=4, label="shuffled, drawn")
    left.axhline(1, color="C0", linewidth=1)
    left.set_xticks(places, numbers["orders"], rotation=90, fontsize="x-small")
    left.set(ylabel="likelihood, 1 = fair", xlabel="order of four examples", ylim=(0, 1.8))
    left.legend(fontsize="small")
    for (way, values), style in zip(numbers["excess"].items(), (":", "--", "-.", "-"), strict=True):
        middle.plot(range(1, len(values) + 1), values, style, label=way)
    middle.set(yscale="log", xlabel="epoch", ylabel="loss above the least possible", xlim=(1, 20))
    middle.set_xticks([1, 5, 10, 15, 20])
    middle.legend(fontsize="small")
    for way, colour in (("shuffled once", "C2"), ("shuffled each epoch", "C3")):
        shares = 100 * np.array(numbers["never_seen"][way])
        right.plot(range(1, len(shares) + 1), shares, marker=".", color=colour, label=way)
    right.set(xlabel="epochs", ylabel="% of the examples never used", ylim=(0, 32))
    right.legend(fontsize="small")
    return figure


def claim(numbers: dict) -> None:
    """README.md: which orders are likelier, who trains best, what is left out, and what a state needs."""
    assert all(abs(share * 24 - 1) < 1e-12 for share in numbers["with_those_left"])
    unfair = [share * 24 for share in numbers["any_with_any"]]
    assert abs(min(unfair) - 0.75) < 1e-12
    assert abs(max(unfair) - 1.40625) < 1e-12
    # A fair share of n draws has this standard error; none of 24 is off by more than 5.
    error = math.sqrt(1 / 24 * 23 / 24 / numbers["n_drawn"])
    assert all(abs(share - 1 / 24) < 5 * error for share in numbers["ours"])
    last = {way: sum(values[10:]) / 10 for way, values in numbers["excess"].items()}
    assert last["shuffled each epoch"] < last["shuffled once"] < 0.75 * last["sorted"]
    assert last["sorted"] > 2 * last["shuffled each epoch"]
    assert last["with replacement"] > 3 * last["shuffled each epoch"]
    assert last["with replacement"] > last["sorted"]
    few, many = numbers["state_bytes"]
    assert few == many <= 64
    kept, dropped = numbers["last_batch"]["kept"], numbers["last_batch"]["dropped"]
    assert kept > 3 * dropped
    once, each = numbers["never_seen"]["shuffled once"], numbers["never_seen"]["shuffled each epoch"]
    assert set(once) == {0.232}
    assert each[0] == 0.232
    assert each[2] < 0.03
    assert 0.2 < numbers["seen_twice"]["generator"] < 0.3
    assert numbers["seen_twice"]["epoch and position"] == 0
