"""What a router does without its balance loss, and what a token loses for which an expert has no room."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.transformer.moe import MoE, balance_loss
from techtree.techs.transformer.swiglu import SwiGLU

WIDTH, HIDDEN, N_EXPERTS, N_KINDS = 16, 12, 8, 8
BATCH, RATE = 256, 0.01
COEFFICIENTS = (0.0, 0.001, 0.01, 0.1, 1.0)
CAPACITIES = (0.5, 1.0, 1.5, 2.0)


class Kinds:
    """A task of several kinds: each kind of token has a function of its own, and the token shows which.

    All tokens share a large mean, as the tokens in a trained network do.
    """

    def __init__(self, rng: np.random.Generator):
        mean, *centres = rng.normal(size=(1 + N_KINDS, WIDTH))
        self.centres = np.array(
            [8 * mean / np.linalg.norm(mean) + 3 * c / np.linalg.norm(c) for c in centres]
        )
        self.maps = rng.normal(size=(N_KINDS, WIDTH, WIDTH)) / math.sqrt(WIDTH)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and answers, both (n, W)."""
        kinds = rng.integers(N_KINDS, size=n)
        noise = rng.normal(size=(n, WIDTH))
        x = self.centres[kinds] + noise
        y = np.tanh(np.einsum("nw,nwv->nv", noise, self.maps[kinds]))
        return x.astype(np.float32), y.astype(np.float32)


def train(
    model: Module, task: Kinds, rng: np.random.Generator, n_steps: int, coefficient: float = 0.0
) -> list:
    """Train by Adam on fresh tokens; return the share of choices of each expert now and then."""
    moments = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in model.parameters()]
    shares = []
    for step in range(1, n_steps + 1):
        x, y = task.draw(rng, BATCH)
        loss = ((model(Tensor(x)) - y) ** 2).mean()
        if isinstance(model, MoE):
            assert model.logits is not None
            assert model.chosen is not None
            loss = loss + balance_loss(model.logits, model.chosen) * coefficient
            if step % max(n_steps // 30, 1) == 0:
                shares.append(shares_of(model))
        loss.backward()
        rate = RATE * min(1, 2 * (1 - step / (n_steps + 1)))
        for p, (mean, square) in zip(model.parameters(), moments, strict=True):
            g = np.zeros_like(p.data) if p.grad is None else p.grad
            mean += 0.1 * (g - mean)
            square += 0.01 * (g**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            p.grad = None
    return shares


def shares_of(model: MoE) -> list[float]:
    """Return the share of the last call's choices that fell on each expert, the largest first."""
    assert model.chosen is not None
    counts = np.bincount(model.chosen.ravel(), minlength=len(model.experts))
    return sorted(map(float, counts / counts.sum()), reverse=True)


def error_of(model: Module, task: Kinds) -> float:
    """Return the mean square error on 4,096 tokens; always answering 0 costs about 0.4."""
    x, y = task.draw(np.random.default_rng(0), 4096)
    with no_grad():
        return float(((model(Tensor(x)).data - y) ** 2).mean())


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train mixtures with more and less balance, and dense layers beside them; then take room away.

    Parameters
    ----------
    rng
        Draws tasks, weights and tokens.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON; a number for each seed, or a list. Errors are mean squares on fresh tokens.
    """
    seeds = [int(seed) for seed in rng.integers(2**32, size=6 if scale == 1 else 1)]
    n_steps = max(60, round(800 * scale))
    coefficients = COEFFICIENTS if scale == 1 else (0.0, 0.1)
    found = {"n_steps": n_steps, "zero": [], "dense": [], "wide": [], "errors": {}, "shares": {}}
    found |= {"course": {}, "capacity": {}, "dropped": {}}
    for seed in seeds:
        task = Kinds(np.random.default_rng(seed))
        found["zero"].append(float((task.draw(np.random.default_rng(0), 4096)[1] ** 2).mean()))
        for name, hidden in (("dense", HIDDEN), ("wide", N_EXPERTS * HIDDEN)):
            model = SwiGLU(WIDTH, hidden, np.random.default_rng(seed), dtype=np.float32)
            train(model, task, np.random.default_rng(seed + 1), n_steps)
            found[name].append(error_of(model, task))
        for c in coefficients:
            model = MoE(WIDTH, HIDDEN, N_EXPERTS, 1, np.random.default_rng(seed), False, dtype=np.float32)
            course = train(model, task, np.random.default_rng(seed + 1), n_steps, c)
            found["errors"].setdefault(f"{c}", []).append(error_of(model, task))
            found["shares"].setdefault(f"{c}", []).append(shares_of(model))
            if seed == seeds[0] and c in (0.0, 0.1):
                found["course"][f"{c}"] = [[round(share, 3) for share in each] for each in course]
            if c in (0.0, 0.1):
                for room in CAPACITIES:
                    model.capacity = room
                    found["capacity"].setdefault(f"{c} {room}", []).append(error_of(model, task))
                    kept = [min(share, room / N_EXPERTS) for share in shares_of(model)]
                    found["dropped"].setdefault(f"{c} {room}", []).append(1 - sum(kept))
    return found


def plot(numbers: dict):
    """Draw how many tokens the experts get in training, and the error by coefficient and by room."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.1))
    names = {"0.0": "no balance loss", "0.1": "balance loss, 0.1"}
    for color, (c, name) in zip(("C3", "C0"), names.items(), strict=True):
        course = np.array(numbers["course"][c])
        steps = np.linspace(0, numbers["n_steps"], len(course) + 1)[1:]
        for place in range(N_EXPERTS):
            axes[0].plot(steps, 100 * course[:, place], color, lw=0.9, label=None if place else name)
    axes[0].set(xlabel="steps", ylabel="% of the tokens, each expert", ylim=(0, None))
    axes[0].legend(fontsize="small")
    coefficients = list(numbers["errors"])
    for place, c in enumerate(coefficients):
        axes[1].plot([place] * len(numbers["errors"][c]), numbers["errors"][c], "C0.")
    means = [np.mean(numbers["errors"][c]) for c in coefficients]
    axes[1].plot(range(len(means)), means, "C0")
    for name, label in (("dense", "one expert alone"), ("wide", "eight as one")):
        axes[1].axhline(np.mean(numbers[name]), color="C7", ls=":")
        axes[1].text(0, np.mean(numbers[name]), label, color="C7", va="bottom", fontsize="small")
    axes[1].set_xticks(range(len(means)), [c.removesuffix(".0") for c in coefficients])
    axes[1].set(xlabel="coefficient of the balance loss", ylabel="mean square error", ylim=(0.08, 0.36))
    for color, (c, name) in zip(("C3", "C0"), names.items(), strict=True):
        errors = [np.mean(numbers["capacity"][f"{c} {room}"]) for room in CAPACITIES]
        axes[2].plot(CAPACITIES, errors, f"{color}.-", label=name)
        axes[2].axhline(np.mean(numbers["errors"][c]), color=color, ls=":")
    axes[2].set(xlabel="capacity (dotted: dropless)", ylabel="mean square error", ylim=(0.08, 0.36))
    return figure


def claim(numbers: dict) -> None:
    """README.md: without the loss experts starve, errors are higher, and bounds cost more."""
    zero, dense, wide = (np.array(numbers[name]) for name in ("zero", "dense", "wide"))
    assert ((zero > 0.35) & (zero < 0.42)).all()
    shares = {c: np.array(found) for c, found in numbers["shares"].items()}  # (seeds, experts), sorted
    assert all(np.allclose(each.sum(axis=1), 1) for each in shares.values())
    assert (shares["0.0"][:, 0] > shares["0.1"][:, 0]).all()
    dropped = {name: np.array(found) for name, found in numbers["dropped"].items()}
    assert (dropped["0.0 1.0"] > dropped["0.1 1.0"]).all()
    if len(zero) == 1:
        return  # too few steps for more
    errors = {c: float(np.mean(found)) for c, found in numbers["errors"].items()}
    room = {name: float(np.mean(found)) for name, found in numbers["capacity"].items()}
    assert (shares["0.0"][:, -1] < 0.005).all()
    assert 7 <= (shares["0.0"] < 0.01).sum() <= 18
    assert (shares["0.001"] < 0.01).any()
    assert (shares["0.1"] > 0.1).all()
    assert 0.145 < errors["0.0"] < 0.195
    assert 0.12 < errors["0.1"] < 0.14
    assert errors["0.0"] > errors["0.001"] - 0.001 > errors["0.01"] > errors["0.1"]
    assert errors["0.1"] + 0.004 < errors["1.0"] < 0.16
    assert (shares["0.0"][:, 0] > 0.24).all()
    assert dropped["0.1 1.5"].max() < 0.005
    assert 0.32 < dense.mean() < 0.36
    assert 0.165 < wide.mean() < 0.185
    assert 0.18 < dropped["0.0 1.0"].mean() < 0.4
    assert dropped["0.1 1.0"].mean() < 0.025
    assert abs(dropped["0.1 0.5"].mean() - 0.5) < 0.02
    assert room["0.0 1.0"] > errors["0.0"] + 0.03
    assert room["0.1 1.0"] < errors["0.1"] + 0.008
    assert abs(room["0.1 1.5"] - errors["0.1"]) < 1e-3
    assert room["0.1 0.5"] > 0.25
