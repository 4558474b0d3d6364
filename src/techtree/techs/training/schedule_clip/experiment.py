"""Train small networks on noisy labels: with and without warm-up, decay and clipping, at several rates."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, where
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.schedule_clip import (
    clip_grad_norm,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)
from techtree.techs.training.sgd import SGD

N_INPUTS, N_HIDDEN, N_CLASSES, BATCH = 32, 64, 10, 16
N_STEPS = 400
N_WARMUP = 40

SCHEDULES = {
    "constant": lambda step: warmup_stable_decay(step, N_STEPS, N_WARMUP, 0),
    "last fifth falls": lambda step: warmup_stable_decay(step, N_STEPS, N_WARMUP, N_STEPS // 5),
    "cosine": lambda step: warmup_cosine(step, N_STEPS, N_WARMUP),
    "line": lambda step: warmup_linear(step, N_STEPS, N_WARMUP),
}
WARMUPS = {"no warm-up": 0, "a tenth": N_WARMUP}


class _Run:
    """A task (classes drawn from a random network's probabilities) and a network that learns it."""

    def __init__(self, seed: int, is_tanh: bool = False, bad_factor: float = 1.0):
        self.rng = np.random.default_rng(seed)
        self.teacher = (
            self.rng.normal(size=(N_INPUTS, N_HIDDEN)) * 2 / math.sqrt(N_INPUTS),
            self.rng.normal(size=(N_HIDDEN, N_CLASSES)) * 4 / math.sqrt(N_HIDDEN),
        )
        widths = [N_INPUTS, N_HIDDEN, N_HIDDEN, N_CLASSES]
        self.weights = [Parameter(self.rng.normal(size=(n, m)) / math.sqrt(n)) for n, m in pairwise(widths)]
        self.is_tanh = is_tanh
        self.bad_factor = bad_factor

    def batch(self, size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
        x = self.rng.normal(size=(size, N_INPUTS))
        shift = 2.0 if self.is_tanh else 0.0  # as pixels have: all weights of a unit are pushed the same way
        logits = np.tanh(x @ self.teacher[0]) @ self.teacher[1]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return x + shift, (p.cumsum(axis=1) > self.rng.random((size, 1))).argmax(axis=1)

    def loss(self, x: np.ndarray, classes: np.ndarray) -> Tensor:
        hidden = Tensor(x)
        for w in self.weights[:-1]:
            hidden = hidden @ w
            hidden = hidden.tanh() if self.is_tanh else where(hidden.data > 0, hidden, 0.0)
        logits = hidden @ self.weights[-1]
        logits = logits - logits.data.max(axis=1, keepdims=True)
        log_p = logits - logits.exp().sum(axis=1, keepdims=True).log()
        return -log_p[np.arange(len(classes)), classes].mean()

    def set_gradients(self, x: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
        for w in self.weights:
            w.grad = None
        self.loss(x, classes).backward()
        return [np.array(w.grad) for w in self.weights]

    def train(self, optimizer, peak: float, factor: Callable[[int], float], max_norm=math.inf) -> float:
        """Return the loss on 4,000 new examples; the norms of the gradients are kept in ``norms``."""
        self.norms = []
        for step in range(N_STEPS):
            x, classes = self.batch()
            if self.bad_factor != 1 and step % 50 == 25:
                x = x * self.bad_factor
            self.set_gradients(x, classes)
            self.norms.append(clip_grad_norm(self.weights, max_norm))
            optimizer.groups[0]["lr"] = peak * factor(step)
            optimizer.step()
        return min(float(self.loss(*self.batch(4000)).data), 20.0)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure Adam's first steps, final losses by peak rate, and final losses by the norm that is allowed.

    Parameters
    ----------
    rng
        Draws the seeds of tasks, networks and batches.
    scale
        The share of the full number of runs and rates, in (0, 1].

    Returns
    -------
    dict
        Sizes of the first step and of the gradient, and how often its sign is right; losses, means over
        seeds, by name and peak rate or norm; the angles by which other ways to clip turn a gradient.
    """
    seeds = [int(seed) for seed in rng.integers(2**31, size=3 if scale == 1 else 1)]
    steep_peaks = [0.002, 0.005, 0.01, 0.02, 0.03] if scale == 1 else [0.03]
    peaks = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032] if scale == 1 else [0.032]
    # In units of the usual norm of a gradient here, which is about 2.
    norms = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0] if scale == 1 else [1.0, 100.0]
    warmups = {
        name: [
            _mean(seeds, peak, lambda step, n=n: warmup_linear(step, N_STEPS, n), is_tanh=True)
            for peak in steep_peaks
        ]
        for name, n in WARMUPS.items()
    }
    return {
        "first step": _first_step(seeds[0]),
        "steep_peaks": steep_peaks,
        "warmups": warmups,
        "peaks": peaks,
        "schedules": {
            name: [_mean(seeds, peak, factor) for peak in peaks] for name, factor in SCHEDULES.items()
        },
        "norms": norms,
        "clipped": {
            name: [_mean(seeds, peak, SCHEDULES["line"], make, norm * 2, bad_factor=300.0) for norm in norms]
            for name, make, peak in (("AdamW", _adamw, 0.004), ("SGD, momentum 0.9", _momentum, 0.03))
        },
        "clean": {
            name: _mean(seeds, peak, SCHEDULES["line"], make)
            for name, make, peak in (("AdamW", _adamw, 0.004), ("SGD, momentum 0.9", _momentum, 0.03))
        },
        "usual norm": _usual_norm(seeds[0]),
        "angles": _angles(seeds[0]),
    }


def _adamw(weights):
    return AdamW(weights, lr=0.0)


def _momentum(weights):
    return SGD(weights, lr=0.0, momentum=0.9)


def _mean(seeds, peak, factor, make=_adamw, max_norm=math.inf, is_tanh=False, bad_factor=1.0) -> float:
    losses = []
    for seed in seeds:
        task = _Run(seed, is_tanh, bad_factor)
        losses.append(task.train(make(task.weights), peak, factor, max_norm))
    return float(np.mean(losses))


def _first_step(seed: int) -> dict:
    """Compare Adam's first step, at rate 0.03 and at a fortieth, with gradients and losses around it."""
    found = {}
    for name, rate in (("full", 0.03), ("warm-up", 0.03 / N_WARMUP)):
        task = _Run(seed, is_tanh=True)
        many = task.batch(4096)
        exact = _flat(task.set_gradients(*many))
        before = _flat([w.data for w in task.weights])
        gradient = _flat(task.set_gradients(*task.batch()))
        found["loss before"] = float(task.loss(*many).data)
        AdamW(task.weights, lr=rate, weight_decay=0.0).step()
        step = np.abs(_flat([w.data for w in task.weights]) - before) / rate
        found[f"loss after, {name}"] = float(task.loss(*many).data)
        if name == "full":
            found["1 % and 99 % quantile of step / rate"] = np.quantile(step, [0.01, 0.99]).tolist()
            found["1 % and 99 % quantile of the gradient"] = np.quantile(
                np.abs(gradient), [0.01, 0.99]
            ).tolist()
            found["share of right signs"] = float(np.mean(np.sign(gradient) == np.sign(exact)))
    return found


def _flat(arrays) -> np.ndarray:
    return np.concatenate([np.array(each).ravel() for each in arrays])


def _usual_norm(seed: int) -> float:
    task = _Run(seed)
    task.train(_adamw(task.weights), 0.004, SCHEDULES["line"])
    return float(np.median(task.norms))


def _angles(seed: int) -> dict[str, float]:
    """Clip a gradient to half its norm: all by one factor, each tensor by itself, each entry by itself."""
    task = _Run(seed)
    gradients = task.set_gradients(*task.batch())
    whole = _flat(gradients)
    norm = float(np.linalg.norm(whole))

    def angle(parts) -> float:
        clipped = _flat(parts)
        cosine = whole @ clipped / (norm * float(np.linalg.norm(clipped)))
        return math.degrees(math.acos(min(1.0, float(cosine))))

    def shrunk(cut: Callable[[float], list]) -> list:
        """Find by bisection the limit that halves the norm."""
        low, high = 0.0, norm
        for _ in range(50):
            middle = (low + high) / 2
            length = math.sqrt(sum(float((part**2).sum()) for part in cut(middle)))
            low, high = (middle, high) if length < norm / 2 else (low, middle)
        return cut(high)

    by_tensor = shrunk(lambda m: [g * min(1.0, m / float(np.linalg.norm(g))) for g in gradients])
    by_entry = shrunk(lambda m: [np.clip(g, -m, m) for g in gradients])
    clip_grad_norm(task.weights, norm / 2)
    return {
        "one factor": angle([np.array(w.grad) for w in task.weights]),
        "each tensor": angle(by_tensor),
        "each entry": angle(by_entry),
    }


def plot(numbers: dict):
    """Draw final losses against the peak rate, by warm-up and by schedule, and against the norm allowed."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    for (name, losses), colour in zip(numbers["warmups"].items(), ("C1", "C0"), strict=True):
        left.plot(numbers["steep_peaks"], losses, colour + "o-", label=name)
    left.set(xscale="log", xlabel="peak rate, inputs not centred", ylabel="final loss")
    left.set_xticks([0.002, 0.005, 0.01, 0.03], ["0.002", "0.005", "0.01", "0.03"])
    left.minorticks_off()
    left.legend(loc="upper left")
    for (name, losses), colour in zip(numbers["schedules"].items(), ("C1", "C2", "C4", "C0"), strict=True):
        middle.plot(numbers["peaks"], losses, colour + "o-", label=name)
    middle.set(xscale="log", xlabel="peak rate")
    middle.legend(loc="upper left")
    for (name, losses), colour in zip(numbers["clipped"].items(), ("C0", "C1"), strict=True):
        right.plot(numbers["norms"], losses, colour + "o-", label=name)
        right.axhline(numbers["clean"][name], color=colour, linestyle=":", linewidth=1)
    right.set(xscale="log", xlabel="norm allowed / usual norm")
    right.legend(loc="center", bbox_to_anchor=(0.5, 0.62))
    return figure


def claim(numbers: dict) -> None:
    """README.md: warm-up saves high rates, decay beats a constant rate, one factor turns no gradient."""
    first = numbers["first step"]
    low, high = first["1 % and 99 % quantile of step / rate"]
    assert low > 0.999 <= high < 1.001
    low, high = first["1 % and 99 % quantile of the gradient"]
    assert high > 200 * low
    assert 0.5 < first["share of right signs"] < 0.85
    assert first["loss after, full"] > first["loss before"] + 0.1
    assert first["loss after, warm-up"] < first["loss before"]
    cold, warm = numbers["warmups"].values()
    for peak, without, with_warmup in zip(numbers["steep_peaks"], cold, warm, strict=True):
        if peak <= 0.01:
            assert abs(without - with_warmup) < 0.03
        if peak >= 0.03:
            assert without > with_warmup + 0.25
    schedules = numbers["schedules"]
    constant, late, cosine, line = schedules.values()
    assert constant[-1] > late[-1] + 0.05
    assert late[-1] > max(cosine[-1], line[-1]) + 0.1
    if len(numbers["peaks"]) > 1:
        assert min(constant) > min(late) + 0.02
        assert min(late) > min(line)
        assert abs(min(cosine) - min(line)) < 0.015
        best = {name: numbers["peaks"][int(np.argmin(losses))] for name, losses in schedules.items()}
        assert best["constant"] <= best["line"] / 2
        assert constant[0] < line[0] - 0.2  # a rate that is too small had better not fall
    assert 1.9 < numbers["usual norm"] < 2.5
    for name, losses in numbers["clipped"].items():
        by_norm = dict(zip(numbers["norms"], losses, strict=True))
        assert abs(by_norm[1.0] - numbers["clean"][name]) < 0.03
        assert by_norm[100.0] > numbers["clean"][name] + 0.5
        if 0.1 in by_norm:
            assert by_norm[5.0] < numbers["clean"][name] + 0.08
            assert by_norm[20.0] > numbers["clean"][name] + 0.15
            assert (by_norm[0.1] < by_norm[1.0] + 0.03) == (name == "AdamW")
            assert (by_norm[0.1] > by_norm[1.0] + 0.3) == (name != "AdamW")
    angles = numbers["angles"]
    assert angles["one factor"] < 1e-4
    assert 5 < angles["each tensor"] < 20
    assert 25 < angles["each entry"] < 45
