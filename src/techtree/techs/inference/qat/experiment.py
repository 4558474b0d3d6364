"""What training through the rounding saves: by bits, by when it begins, by rate; and what oscillates."""

import copy

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.inference.qat import prepare
from techtree.techs.inference.quantization.experiment import (
    BATCH,
    CONTEXT,
    RATE,
    CharacterModel,
    bits_per_character,
    characters,
    examples,
    rounded,
)
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.training.schedule_clip import warmup_cosine

LAYERS = ("first", "second", "head")
KINDS = {"q8_0": "q8_0", "q4_0": "q4_0", "3 bits": 3, "2 bits": 2}
"""Those of files; and fewer bits, in blocks of 32 by the same rule, with floats for activations."""

STARTS = {
    "q8_0": (0.5, 1.0),
    "q4_0": (0.0, 0.5, 0.8, 0.95, 1.0),
    "3 bits": (0.5, 1.0),
    "2 bits": (0.0, 0.5, 0.8, 0.95, 1.0),
}
"""The shares of the steps before the rounding is switched on; 1: after training."""

FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""On the rate, for a fifth more steps after the training."""

WATCHED = 50


class FewBits(Linear):
    """Like a `QATLinear`, for 2 or 3 bits."""

    def __init__(self, linear: Linear, n_bits: int, slope: float = 1.0):
        self.weight, self.bias, self.n_bits, self.slope = linear.weight, linear.bias, n_bits, slope

    def forward(self, x: Tensor) -> Tensor:
        """Round the weight; the gradient passes through it, times the slope."""
        weight = self.weight
        w = record(rounded(weight.data, self.n_bits, 32), (weight, lambda g: g * self.slope))
        y = x @ w.swapaxes(0, 1)
        return y if self.bias is None else y + self.bias


class Run:
    """A model, its optimizer, and how many steps it has done."""

    def __init__(self, seed: int, seen: np.ndarray):
        self.seed, self.step, self.seen = seed, 0, seen
        self.model = CharacterModel(np.random.default_rng(seed))
        self.optimizer = AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0)

    def copied(self) -> "Run":
        """Return a run that goes on from here on its own."""
        return copy.deepcopy(self, {id(self.seen): self.seen})

    def switched(self, kind: str | int, slope: float = 1.0) -> "Run":
        """Round the linear layers from now on."""
        if isinstance(kind, str):
            prepare(self.model, dict.fromkeys(LAYERS, kind))
        else:
            for name in LAYERS:
                setattr(self.model, name, FewBits(getattr(self.model, name), kind, slope))
        return self

    def trained(self, until: int, factor, watch=None) -> "Run":
        """Train until a number of steps is done, with ``factor(step)`` on the rate."""
        for step in range(self.step, until):
            places = np.random.default_rng([self.seed, step]).integers(len(self.seen) - CONTEXT, size=BATCH)
            x, y = examples(self.seen, places)
            self.optimizer.zero_grad()
            cross_entropy(self.model(x), y).backward()
            self.optimizer.groups[0]["lr"] = RATE * factor(step)
            self.optimizer.step()
            if watch is not None:
                watch(self.model)
        self.step = until
        return self


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train with the rounding switched on at several times and rates; watch weights at thresholds.

    Parameters
    ----------
    rng
        Draws the seeds.
    scale
        The share of steps and seeds, in (0, 1].

    Returns
    -------
    dict
        Losses in bits per character beside that of the float model after as many steps.
    """
    is_full = scale == 1
    n_steps = 1200 if is_full else 160
    starts = STARTS if is_full else {"2 bits": (0.5, 1.0)}
    seeds = [int(seed) for seed in rng.integers(2**31, size=3 if is_full else 1)]
    seen, unseen = characters(400_000, 16_000 if is_full else 2_000)
    found: dict = {
        "starts": {name: list(each) for name, each in starts.items()},
        "plain": [],
        "losses": {},
        "staircase": [],
        "rates": {},
        "watched": {},
    }

    def whole(step: int) -> float:
        return warmup_cosine(step, n_steps, n_steps // 20)

    for seed in seeds:
        start, at = Run(seed, seen), {}
        for share in sorted({share for each in starts.values() for share in each}):
            at[share] = start.trained(round(share * n_steps), whole).copied()
        plain = bits_per_character(start.model, unseen)
        found["plain"].append(plain)

        def lost(state: Run, plain: float = plain) -> float:
            return bits_per_character(state.model, unseen) - plain

        for name, shares in starts.items():
            after = [at[share].copied().switched(KINDS[name]).trained(n_steps, whole) for share in shares]
            found["losses"].setdefault(name, []).append([lost(each) for each in after])
        still = Run(seed, seen).switched(2, slope=0.0)
        kept = [getattr(still.model, name).weight.data.copy() for name in LAYERS]
        still.trained(n_steps, whole)
        moved = [getattr(still.model, name).weight.data != w for name, w in zip(LAYERS, kept, strict=True)]
        found["staircase"].append([lost(still), int(sum(each.sum() for each in moved))])
        if is_full:
            for name, each in _rates(at[1.0], n_steps).items():
                found["rates"].setdefault(name, []).append([lost(state) for state in each])
        for name, each in _watched(at[0.5], n_steps, WATCHED if is_full else 10).items():
            found["watched"].setdefault(name, []).append(each)
    return found


def _rates(done: Run, n_steps: int) -> dict[str, list[Run]]:
    """Go on for a fifth of the steps at several rates, in floats and through the rounding."""

    def more(name: str, factor: float) -> Run:
        state = done.copied() if name == "float" else done.copied().switched(KINDS[name])
        last = n_steps + n_steps // 5
        return state.trained(last, lambda step: factor * warmup_cosine(step - n_steps, n_steps // 5, 0))

    return {name: [more(name, factor) for factor in FACTORS] for name in ("float", "2 bits")}


def _watched(half: Run, n_steps: int, n_watched: int) -> dict[str, list[float]]:
    """Count weights of 2 bits whose number changes from step to step, at half the rate and at little of it.

    Returns
    -------
    dict[str, list[float]]
        The share of the weights that changes in a step; the share that changes at least five times while it
        is watched; of these the share that is never more than one step from where it began; the share that
        lies within a tenth of a step of a threshold.
    """

    def watch(state: Run, factor: float) -> list[float]:
        found = [_numbers(state.model)[0]]
        state.trained(
            state.step + n_watched, lambda step: factor, lambda model: found.append(_numbers(model)[0])
        )
        numbers = np.array(found)
        changes = (np.diff(numbers, axis=0) != 0).sum(axis=0)
        often = changes >= 5
        reach = (np.abs(numbers - numbers[0]).max(axis=0) <= 1)[often]
        near = _numbers(state.model)[1] < 0.1
        shares = (changes.mean() / n_watched, often.mean(), reach.mean() if often.any() else 1, near.mean())
        return [float(each) for each in shares]

    last = half.step + n_steps // 4
    plain = half.copied().trained(last, lambda step: 0.5)
    through = half.copied().switched(2).trained(last, lambda step: 0.5)
    return {
        "float": watch(plain, 0.5),
        "fallen": watch(through.copied(), 0.005),
        "half": watch(through, 0.5),
    }


def _numbers(model) -> tuple[np.ndarray, np.ndarray]:
    """Return how many steps above 0 each weight is stored, in 2 bits, and how far it is from a threshold."""
    blocks = np.concatenate([getattr(model, name).weight.data.reshape(-1, 32) for name in LAYERS])
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    exact = blocks / (largest / -2)
    numbers = np.minimum(np.floor(exact + 0.5), 1) * -np.sign(largest)
    return numbers, np.abs(exact - np.floor(exact) - 0.5)


def plot(numbers: dict):
    """Draw what rounding costs by bits, by when it begins, and by the rate of steps after the training."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5))
    losses = {name: np.array(each) for name, each in numbers["losses"].items()}  # (seeds, starts)
    for place, (name, found) in enumerate(losses.items()):
        starts = numbers["starts"][name]
        for shift, share, color in ((-0.17, 1.0, "C3"), (0.17, 0.5, "C0")):
            values = found[:, starts.index(share)]
            left.bar(place + shift, values.mean(), 0.32, color=color, alpha=0.6)
            left.plot([place + shift] * len(values), values, ".", color="0.2", ms=4)
    left.bar(0, 0, color="C3", alpha=0.6, label="rounded after training")
    left.bar(0, 0, color="C0", alpha=0.6, label="second half through the rounding")
    left.set_xticks(range(len(losses)), [*losses])
    left.set(ylabel="bits per character above floats")
    left.legend(fontsize=8, loc="upper left")
    for place, name in enumerate(name for name in losses if len(numbers["starts"][name]) > 2):
        shares = 1 - np.array(numbers["starts"][name])
        for each in losses[name]:
            middle.plot(100 * shares, each, color=f"C{place}", alpha=0.3, lw=1)
        middle.plot(100 * shares, losses[name].mean(axis=0), color=f"C{place}", marker=".", label=name)
    middle.set(xlabel="% of the steps through the rounding", ylabel="bits per character above floats")
    names = {"float": ("C7", "floats go on"), "2 bits": ("C1", "2 bits, through the rounding")}
    for name, found in numbers["rates"].items():
        color, label = names[name]
        for each in found:
            right.plot(FACTORS, each, color=color, alpha=0.3, lw=1)
        right.plot(FACTORS, np.mean(found, axis=0), color=color, marker=".", label=label)
    if numbers["rates"]:
        middle.legend(fontsize=8)
        right.legend(fontsize=8, loc="upper right")
    right.axhline(0, color="0.7", lw=0.8)
    right.set(xscale="log", xlabel="rate of a fifth more steps")
    right.set(ylabel="bits per character above floats")
    return figure


def claim(numbers: dict) -> None:
    """README.md: training through the rounding takes back most of the loss, if weights still move."""
    is_full = bool(numbers["rates"])
    found = {
        name: {share: np.array(each)[:, place] for place, share in enumerate(numbers["starts"][name])}
        for name, each in numbers["losses"].items()
    }
    watched = {name: np.array(each) for name, each in numbers["watched"].items()}
    assert (found["2 bits"][0.5] < found["2 bits"][1.0]).all()
    assert all(loss > 1 and n_moved == 0 for loss, n_moved in numbers["staircase"])
    assert (watched["half"][:, 0] > 20 * watched["fallen"][:, 0]).all()  # at a hundredth of the rate
    assert (watched["half"][:, 2] > 0.95).all()
    if is_full:
        assert max(np.abs(each).max() for each in found["q8_0"].values()) < 0.003
        assert 0.014 < found["q4_0"][1.0].mean() < 0.023
        assert found["q4_0"][0.5].mean() < 0.3 * found["q4_0"][1.0].mean()
        assert 0.055 < found["3 bits"][1.0].mean() < 0.08
        assert found["3 bits"][0.5].mean() < 0.35 * found["3 bits"][1.0].mean()
        assert 0.22 < found["2 bits"][1.0].mean() < 0.3
        assert found["2 bits"][0.5].mean() < 0.33 * found["2 bits"][1.0].mean()
        two = [found["2 bits"][share].mean() for share in (0.5, 0.0, 0.8, 0.95, 1.0)]
        assert two == sorted(two)
        assert 0.4 < two[2] / two[4] < 0.52
        assert two[3] > 0.88 * two[4]
        few, floats = np.array(numbers["rates"]["2 bits"]), np.array(numbers["rates"]["float"])
        assert (few[:, 0] > 2 * few[:, -1]).all()
        assert few[:, 0].mean() < 0.78 * two[4]
        assert (np.diff(few.mean(axis=0))[:3] < 0).all()
        assert abs(few[:, 3].mean() - few[:, 4].mean()) < 0.01
        assert floats.min() > -0.03
        assert (floats < 0).all()
        near = {name: each[:, 3] for name, each in watched.items()}
        assert np.abs(near["float"] - 0.19).max() < 0.01
        assert (near["half"] > 0.23).all()
        assert (watched["half"][:, 0] > 1.4 * watched["float"][:, 0]).all()
        assert (watched["half"][:, 1] > 2 * watched["float"][:, 1]).all()
