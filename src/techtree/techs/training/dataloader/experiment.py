"""Which orders a careless shuffle prefers, and what the order of examples does to training."""

import itertools
import math

import numpy as np

from techtree.techs.training.dataloader import BatchStream, DataLoader, shuffled

WAYS = ("sorted", "with replacement", "shuffled once", "shuffled each epoch")
N_EXAMPLES, BATCH_SIZE, WIDTH = 240, 8, 6


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Enumerate shuffles, and train in four orders.

    Parameters
    ----------
    rng
        Draws data and orders.
    scale
        The share of the full number of repetitions, in (0, 1].

    Returns
    -------
    dict
        Numbers, ready for JSON.
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
        "excess": _training(rng, 20, max(6, round(40 * scale))),
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
        x = rng.normal(size=(N_EXAMPLES, WIDTH))
        y = x @ rng.normal(size=WIDTH) + rng.normal(size=N_EXAMPLES)
        by_target = np.argsort(y)
        x, y = x[by_target], y[by_target]
        best = np.linalg.lstsq(x, y, rcond=None)[0]
        least = np.mean((x @ best - y) ** 2)
        seed = int(rng.integers(2**31))
        for way in WAYS:
            w = np.zeros(WIDTH)
            for epoch in range(n_epochs):
                for batch in _batches(way, epoch, seed):
                    error = x[batch] @ w - y[batch]
                    w = w - 0.03 * 2 * x[batch].T @ error / len(batch)
                excess[way][epoch] += (np.mean((x @ w - y) ** 2) - least) / n_runs
    return {way: values.tolist() for way, values in excess.items()}


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
    """Draw how likely each order is, and the excess loss by epoch."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.5))
    places = np.arange(len(numbers["orders"]))
    left.bar(places, np.array(numbers["any_with_any"]) * 24, color="C1", alpha=0.6, label="with any place")
    left.plot(places, np.array(numbers["ours"]) * 24, "o", color="C0", markersize=4, label="shuffled, drawn")
    left.axhline(1, color="C0", linewidth=1)
    left.set_xticks(places, numbers["orders"], rotation=90, fontsize="x-small")
    left.set(ylabel="likelihood, 1 = fair", xlabel="order of four examples", ylim=(0, 1.7))
    left.legend(fontsize="small")
    for (way, values), style in zip(numbers["excess"].items(), (":", "--", "-.", "-"), strict=True):
        right.plot(range(1, len(values) + 1), values, style, label=way)
    right.set(yscale="log", xlabel="epoch", ylabel="loss above the least possible")
    right.legend(fontsize="small")
    return figure


def claim(numbers: dict) -> None:
    """README.md: which orders are likelier, who trains best, and that the state does not grow."""
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
