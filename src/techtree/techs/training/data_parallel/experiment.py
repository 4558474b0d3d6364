"""What a ring sends, whether N workers do the step of one, and what each must keep."""

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.data_parallel import (
    Network,
    ShardedOptimizer,
    all_reduce,
    average_gradients,
)
from techtree.techs.training.sgd import SGD

WORKERS = [1, 2, 4, 8, 16, 32]
PARTS = [1, 2, 5, 24]
"""Examples of each of four workers: unequal, as the numbers of tokens in sequences are."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count bytes, compare training, and count what is kept.

    Parameters
    ----------
    rng
        Draws data and weights.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Numbers, ready for JSON.
    """
    size = 3200
    return {
        "workers": WORKERS,
        "array_bytes": 4 * size,
        "ring": [_most_sent(n, size, _ring) for n in WORKERS],
        "through_one": [_most_sent(n, size, _through_one) for n in WORKERS],
        "to_everybody": [_most_sent(n, size, _to_everybody) for n in WORKERS],
        "distance": _training(rng, max(10, round(60 * scale))),
        "state_whole": [_state_bytes(n, is_sharded=False) for n in WORKERS],
        "state_sharded": [_state_bytes(n, is_sharded=True) for n in WORKERS],
        "differing_bits": _differing_bits(rng),
    }


def _most_sent(n: int, size: int, way) -> int:
    """Return the bytes that the busiest worker sends to add up float32 arrays."""
    network = Network(n)
    way([np.ones(size, np.float32) for _ in range(n)], network)
    return max(network.sent_bytes)


def _ring(arrays: list[np.ndarray], network: Network) -> None:
    all_reduce(arrays, network)


def _through_one(arrays: list[np.ndarray], network: Network) -> None:
    """Worker 0 adds up what all send, and sends everybody the sum."""
    for rank in range(1, len(arrays)):
        network.send(arrays[rank], rank, 0)
    for rank in range(1, len(arrays)):
        network.send(arrays[0], 0, rank)


def _to_everybody(arrays: list[np.ndarray], network: Network) -> None:
    """Each sends its array to all others, and adds up for itself."""
    for rank, array in enumerate(arrays):
        for other in range(len(arrays)):
            if other != rank:
                network.send(array, rank, other)


def _training(rng: np.random.Generator, n_steps: int) -> dict[str, list[float]]:
    """Train four workers in several ways; return how far their weights are from those of one, by step."""
    x, w = rng.normal(size=(sum(PARTS), 8)), rng.normal(size=(8, 1))
    y = np.tanh(x @ w) + 0.3 * rng.normal(size=(sum(PARTS), 1))
    start = rng.normal(size=(8, 1))
    alone = _walk(x, y, start, [slice(0, sum(PARTS))], n_steps, [1])
    ends = np.cumsum(PARTS)
    parts = [slice(int(end - n), int(end)) for end, n in zip(ends, PARTS, strict=True)]
    ways = {
        "weighted by examples": PARTS,
        "mean of means": [1] * len(PARTS),
        "sum of means": None,
    }
    return {
        name: _distances(_walk(x, y, start, parts, n_steps, share), alone) for name, share in ways.items()
    }


def _distances(walk: list[np.ndarray], alone: list[np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(walk, alone, strict=True)]


def _walk(x, y, start, parts, n_steps, share) -> list[np.ndarray]:
    """Return the weights of the first worker after each step; ``share`` None adds up and does not divide."""
    replicas = [[Parameter(start)] for _ in parts]
    optimizers = [SGD(parameters, lr=0.05, momentum=0.5) for parameters in replicas]
    found = []
    for _ in range(n_steps):
        for (w,), rows in zip(replicas, parts, strict=True):
            w.grad = None
            error = (Tensor(x[rows]) @ w).tanh() - y[rows]
            (error * error).mean().backward()
        average_gradients(replicas, share or [1] * len(parts), Network(len(parts)))
        for optimizer, (w,) in zip(optimizers, replicas, strict=True):
            if share is None and w.grad is not None:
                w.grad = w.grad * len(parts)
            optimizer.step()
        found.append(replicas[0][0].data.copy())
    return found


def _state_bytes(n: int, is_sharded: bool) -> int:
    """Return the bytes of AdamW's averages on the fullest of ``n`` workers, for 3,200 weights."""
    replicas = [[Parameter(np.zeros((40, 80), np.float32))] for _ in range(n)]
    if is_sharded:
        sharded = ShardedOptimizer(replicas, lambda p: AdamW(p, lr=0.1), Network(n))
        optimizers = sharded.optimizers
    else:
        optimizers = [AdamW(parameters, lr=0.1) for parameters in replicas]
    return max(sum(x.nbytes for x in optimizer.state_dict().values() if x.ndim) for optimizer in optimizers)


def _differing_bits(rng: np.random.Generator) -> float:
    """Return the share of entries in which the ring's sum is not that in the order of ranks."""
    arrays = [rng.normal(size=10_000).astype(np.float32) for _ in range(8)]
    total = arrays[0].copy()
    for each in arrays[1:]:
        total += each
    return float((all_reduce(arrays, Network(8))[0] != total).mean())


def plot(numbers: dict):
    """Draw bytes sent, distances and state."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.3))
    names = {"ring": "ring", "through_one": "through one worker", "to_everybody": "each to everybody"}
    for (key, label), style in zip(names.items(), ("o-", "s--", "^:"), strict=True):
        sent = [x / numbers["array_bytes"] for x in numbers[key]]
        left.plot(numbers["workers"], sent, style, label=label, markersize=4)
    left.set(xscale="log", xlabel="workers", ylabel="arrays sent by the busiest")
    left.set_xticks(numbers["workers"], [str(n) for n in numbers["workers"]])
    left.legend(fontsize="small")
    for name, distances in numbers["distance"].items():
        middle.plot(range(1, len(distances) + 1), np.maximum(distances, 1e-17), label=name)
    middle.set(yscale="log", xlabel="step", ylabel="distance from one worker's weights", ylim=(1e-17, 10))
    middle.legend(fontsize="small")
    right.plot(
        numbers["workers"],
        [x / 1024 for x in numbers["state_whole"]],
        "s--",
        label="a whole optimizer each",
        markersize=4,
    )
    right.plot(
        numbers["workers"], [x / 1024 for x in numbers["state_sharded"]], "o-", label="sharded", markersize=4
    )
    right.set(xscale="log", yscale="log", xlabel="workers", ylabel="KiB of optimizer state per worker")
    right.set_xticks(numbers["workers"], [str(n) for n in numbers["workers"]])
    right.legend(fontsize="small")
    return figure


def claim(numbers: dict) -> None:
    """README.md: what is sent, that weighting is right to rounding and the others are not, what is kept."""
    whole = numbers["array_bytes"]
    for n, ring, one, every in zip(
        numbers["workers"], numbers["ring"], numbers["through_one"], numbers["to_everybody"], strict=True
    ):
        assert ring == 2 * (n - 1) * whole // n
        assert one == every == (n - 1) * whole
    distance = numbers["distance"]
    assert max(distance["weighted by examples"]) < 1e-13
    assert distance["mean of means"][-1] > 0.1
    assert distance["sum of means"][0] > 0.02
    assert min(distance["mean of means"]) > 1e-3
    for n, plain, sharded in zip(
        numbers["workers"], numbers["state_whole"], numbers["state_sharded"], strict=True
    ):
        assert plain == 2 * 4 * 3200
        assert sharded * n == plain
    assert 0.2 < numbers["differing_bits"] < 0.8
