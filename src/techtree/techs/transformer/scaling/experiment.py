"""Train small models on growing budgets, fit their losses, and foretell that of four times the arithmetic."""

import sysconfig
from pathlib import Path

import numpy as np

from techtree.techs import battery
from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.schedule_clip import clip_grad_norm
from techtree.techs.transformer.gpt import GPT, GPTConfig
from techtree.techs.transformer.scaling import (
    best_shape,
    count_parameters,
    fit_power_law,
    flops_per_token,
    memory,
)

N_CHARACTERS = 96
"""The printable characters of ASCII; one id for all others, line ends included."""

BATCH = 512
"""Characters in a step, however long the windows are."""

SHAPE = {"tokens_per_parameter": 30, "head_width": 4, "aspect": 16}
RATE, N_WARMUP = 0.01, 20
BUDGETS = [5e9 * 1.7**step for step in range(5)]
WINDOWS = (8, 32)
WIDTHS = (8, 12, 16, 24, 40, 64)


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Return the characters of Python's own library to train on, and every eighth file to judge by."""
    kept, held_out = [], []
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for number, path in enumerate(paths):
        text = path.read_text(encoding="utf-8", errors="replace").encode("ascii", "replace")
        codes = np.frombuffer(text, np.uint8).astype(np.int64)
        ids = np.where((codes >= 32) & (codes < 127), codes - 31, 0)
        (held_out if number % 8 == 0 else kept).append(ids)
    return np.concatenate(kept), np.concatenate(held_out)


def train(config: GPTConfig, n_trained: int, seed: int, data: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the loss, in nats for each character, on text that the model was not trained on."""
    rng = np.random.default_rng(seed)
    model = GPT(config, rng, np.float32)
    optimizer = AdamW(list(model.parameters()), RATE)
    n, (kept, held_out) = config.n_positions, data
    n_steps = max(1, n_trained // BATCH)
    for step in range(n_steps):
        starts = rng.integers(len(kept) - n - 1, size=BATCH // n)
        rows = kept[starts[:, None] + np.arange(n + 1)]
        cross_entropy(model(rows[:, :-1]), rows[:, 1:]).backward()
        clip_grad_norm(model.parameters(), 1.0)
        for group in optimizer.groups:
            group["lr"] = RATE * min(1, (step + 1) / N_WARMUP) * (1 - step / n_steps)
        optimizer.step()
        optimizer.zero_grad()
    starts = np.linspace(0, len(held_out) - n - 1, 16384 // n).astype(int)
    rows = held_out[starts[:, None] + np.arange(n + 1)]
    with no_grad():
        return float(cross_entropy(model(rows[:, :-1]), rows[:, 1:]).data)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train on five budgets and on four times the largest, with two windows; try all widths on one.

    Parameters
    ----------
    rng
        Draws the seeds of the runs.
    scale
        Below 1 there are three budgets, three hundredths as large, and only short windows are tried.

    Returns
    -------
    dict
        Ready for JSON. For each window: the budgets, the last of which was not fitted, the shapes, losses and
        the fitted law. For the widths: losses and tokens for each parameter. And what is true of the counts.
    """
    data = texts()
    seed = int(rng.integers(2**32))
    budgets = BUDGETS if scale == 1 else [0.03 * each for each in BUDGETS[:3]]
    budgets = [*budgets, 4 * budgets[-1]]
    ladders = {}
    for window in WINDOWS if scale == 1 else WINDOWS[:1]:
        shapes = [best_shape(budget, N_CHARACTERS, window, **SHAPE) for budget in budgets]
        losses = [train(*each, seed, data) for each in shapes]
        law = fit_power_law(np.array(budgets[:-1]), np.array(losses[:-1]))
        ladders[str(window)] = {
            "budgets": budgets,
            "widths": [config.width for config, _ in shapes],
            "losses": losses,
            "law": [law.coefficient, law.exponent, law.floor],
            "fitted": law(np.array(budgets)).tolist(),
        }
    one_budget = budgets[1]
    widths = WIDTHS if scale == 1 else (4, 16)
    by_width = []
    for width in widths:
        config = GPTConfig(N_CHARACTERS, WINDOWS[0], width, 2, width // 4)
        n_trained = int(one_budget // flops_per_token(config))
        loss = train(config, n_trained, seed, data)
        by_width.append([width, n_trained / count_parameters(config), loss])
    return {"ladders": ladders, "one_budget": one_budget, "by_width": by_width, "counts": _counts()}


def _counts() -> dict:
    """Compare what is counted with what is there."""
    config = GPTConfig(N_CHARACTERS, 64, 64, 2, 8)
    model = GPT(config, np.random.default_rng(0), np.float32)
    ids = np.zeros((4, 64), int)
    peak = battery.peak_bytes(lambda: cross_entropy(model(ids), ids).backward())
    counted = memory(config, 4)
    return {
        "parameters": sum(p.data.size for p in model.parameters()),
        "counted_parameters": count_parameters(config),
        "peak_bytes": peak,
        "counted_bytes": counted["gradients"] + counted["activations"],
        "six_per_parameter": 6 * count_parameters(config) / flops_per_token(config),
    }


def plot(numbers: dict):
    """Draw the loss by arithmetic with what was foretold, and the loss by width for one budget."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for (window, found), color in zip(numbers["ladders"].items(), ("C0", "C1"), strict=False):
        budgets, losses = found["budgets"], found["losses"]
        left.plot(budgets, found["fitted"], color=color, ls=":")
        left.plot(
            budgets[:-1], losses[:-1], "o", color=color, ms=4, label=f"windows of {window}: fitted runs"
        )
        left.plot(budgets[-1], losses[-1], "*", color=color, ms=9, label="four times the arithmetic")
    left.set(xlabel="operations", ylabel="nats for each character", xscale="log")
    left.legend(fontsize="small")
    widths, ratios, losses = zip(*numbers["by_width"], strict=True)
    right.plot(ratios, losses, "C0.-")
    for width, ratio, loss in zip(widths, ratios, losses, strict=True):
        right.annotate(
            f"{width}", (ratio, loss), (0, 6), textcoords="offset points", ha="center", fontsize="small"
        )
    right.set(xlabel="tokens for each parameter (at each point: the width)", xscale="log")
    right.set(ylabel=f"loss for {numbers['one_budget']:.2g} operations")
    right.margins(0.1, 0.15)
    return figure


def off(numbers: dict, window: int) -> float:
    """By which share the loss foretold for four times the arithmetic is too high."""
    found = numbers["ladders"][str(window)]
    return found["fitted"][-1] / found["losses"][-1] - 1


def claim(numbers: dict) -> None:
    """README.md: the counts are exact, short windows follow the law, longer ones bend, one size is best."""
    counts = numbers["counts"]
    assert counts["parameters"] == counts["counted_parameters"]
    assert 4.5 < counts["peak_bytes"] / counts["counted_bytes"] < 6
    assert 0.9 < counts["six_per_parameter"] < 0.93
    losses = np.array([loss for *_, loss in numbers["by_width"]])
    if len(losses) < len(WIDTHS):
        assert losses[0] < losses[-1]
        assert abs(off(numbers, 8)) < 0.2
        return
    assert losses[:3].max() < 1.04 * losses[:3].min()  # widths 8, 12 and 16
    assert losses.argmin() < 3
    assert (losses[-2:] > np.array([1.1, 1.17]) * losses.min()).all()  # widths 40 and 64
    ratios = [round(ratio) for _, ratio, _ in numbers["by_width"]]
    assert ratios[:3] == [213, 56, 21]
    for window, limit in ((8, 0.02), (32, 0.02)):
        found = numbers["ladders"][str(window)]
        assert (np.diff(found["losses"]) < 0).all()
        gaps = np.array(found["fitted"][:-1]) / found["losses"][:-1] - 1
        assert np.abs(gaps).max() < limit  # the law passes within 2 % of what it was fitted to
    assert abs(off(numbers, 8)) < 0.02
    assert 0.03 < off(numbers, 32) < 0.1
    _, exponent, floor = numbers["ladders"]["8"]["law"]
    assert 0.05 < exponent < 0.15
    assert 0 <= floor < 1.1
    assert numbers["ladders"]["8"]["widths"] == [12, 12, 16, 16, 20, 32]
