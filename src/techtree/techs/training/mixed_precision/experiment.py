"""What 16 bits lose: updates beside their weights in bfloat16, small gradients in float16."""

from collections.abc import Callable

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import relu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import DataLoader
from techtree.techs.training.mixed_precision import LossScaler, MasterWeights, cast, round_to
from techtree.techs.training.mlp import MLP
from techtree.techs.training.mlp.experiment import digits
from techtree.techs.training.schedule_clip import warmup_cosine

BFLOAT16, FLOAT16, FLOAT32 = (8, 7), (5, 10), (8, 23)
BATCH_SIZE = 64
LR = 2e-3

N_TOKENS = 2**22
"""A large language model averages over so many in one step, however few of them are computed at once."""

EDGES = np.arange(-16.0, 0.5, 1.0)
"""Of the bins for the size of an update relative to its weight, as powers of 2."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train the same network on digits with several ways of keeping its numbers.

    Parameters
    ----------
    rng
        Draws the weights and the order of the examples.
    scale
        The share of the epochs, in (0, 1].

    Returns
    -------
    dict
        Loss curves, final losses, the share of updates that is lost by their size, and the share of
        gradients that is lost by the scale of the loss.
    """
    n_epochs = max(8, round(40 * scale))
    seed = int(rng.integers(2**31))
    lost = _Lost()
    kept = {
        "float32": _train(seed, n_epochs, FLOAT32),
        "bfloat16, float32 masters": _train(seed, n_epochs, BFLOAT16),
        "bfloat16 alone": _train(seed, n_epochs, BFLOAT16, masters=False, watch=lost),
    }
    one = LossScaler(1.0, n_growth=10**9)  # never grows
    scaled = {
        "float32": _train(seed, n_epochs, FLOAT32, LossScaler(1.0, 10**9), N_TOKENS),
        "bfloat16": _train(seed, n_epochs, BFLOAT16, LossScaler(1.0, 10**9), N_TOKENS),
        "float16": _train(seed, n_epochs, FLOAT16, one, N_TOKENS),
    }
    scaler = LossScaler(2.0**16, n_growth=20)
    found = _train(seed, n_epochs, FLOAT16, scaler, N_TOKENS)
    powers = list(range(0, 49, 4))
    return {
        "curves": {name: _smooth(losses) for name, losses in kept.items()},
        "final": {name: float(np.mean(losses[-20:])) for name, losses in kept.items()},
        "edges": EDGES.tolist(),
        "lost_by_size": lost.by_size(),
        "lost": lost.share(),
        "powers": powers,
        **_vanishing(seed, n_epochs, powers),
        "final_scaled": {
            **{name: float(np.mean(losses[-20:])) for name, losses in scaled.items()},
            "float16, scaled": float(np.mean(found[-20:])),
        },
        "first_loss": scaled["float32"][0],
        "last_scale": scaler.scale,
    }


def _train(
    seed: int,
    n_epochs: int,
    form: tuple[int, int],
    scaler: LossScaler | None = None,
    n_tokens: int = BATCH_SIZE,
    masters: bool = True,
    watch: Callable | None = None,
) -> list[float]:
    """Return the loss of each step; weights, activations and gradients have the format."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    model = MLP([64, 64, 10], rng, dtype=np.float32)
    model.activation = lambda x: cast(relu(x), *form)
    weights = MasterWeights(model.parameters(), *form)
    optimizer = AdamW(weights.masters, LR, weight_decay=0.0)
    loader = DataLoader(len(images), BATCH_SIZE, seed)
    scaler, losses = scaler or LossScaler(1.0, 10**9), []
    for epoch in range(n_epochs):
        for batch in loader.epoch(epoch):
            optimizer.groups[0]["lr"] = LR * warmup_cosine(len(losses), n_epochs * loader.n_batches, 20)
            logits = cast(model(cast(Tensor(images[batch]), *form)), *form)
            loss = cross_entropy(logits, labels[batch])
            with np.errstate(over="ignore", invalid="ignore"):  # infinities are for the scaler to find
                (loss * (scaler.scale * BATCH_SIZE / n_tokens)).backward()
            weights.take_gradients()
            before = [each.data.copy() for each in weights.masters]
            scaler.step(optimizer)
            if watch is not None:
                for old, new in zip(before, weights.masters, strict=True):
                    watch(old, new.data, form)
            if not masters:
                for each in weights.masters:
                    each.data[...] = round_to(each.data, *form)
            weights.publish()
            losses.append(float(loss.data))
    return losses


class _Lost:
    """Counts the updates that rounding takes back, by their size relative to the weight."""

    def __init__(self):
        self.n, self.n_lost = np.zeros(len(EDGES) + 1), np.zeros(len(EDGES) + 1)

    def __call__(self, old, new, form) -> None:
        is_update = (old != new) & (old != 0) & (old == round_to(old, *form))
        size = np.log2(np.abs(new - old)[is_update] / np.abs(old)[is_update])
        is_lost = (round_to(new, *form) == old)[is_update]
        places = np.searchsorted(EDGES, size)
        self.n += np.bincount(places, minlength=len(self.n))
        self.n_lost += np.bincount(places, is_lost, minlength=len(self.n))

    def by_size(self) -> list[float | None]:
        """Return the share lost in each bin between two edges."""
        counted = zip(self.n_lost[1:-1], self.n[1:-1], strict=True)
        return [float(lost / n) if n >= 20 else None for lost, n in counted]

    def share(self) -> float:
        return float(self.n_lost.sum() / self.n.sum())


def _vanishing(seed: int, n_epochs: int, powers: list[int]) -> dict:
    """Return the share of a network's gradients that 16 bits turn into 0 or infinity, by the scale."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    model = MLP([64, 64, 10], rng, dtype=np.float32)
    optimizer, loader = AdamW(model.parameters(), LR), DataLoader(len(images), BATCH_SIZE, seed)
    for batch in (batch for epoch in range(n_epochs) for batch in loader.epoch(epoch)):
        optimizer.zero_grad()
        cross_entropy(model(Tensor(images[batch])), labels[batch]).backward()
        optimizer.step()

    logits = Tensor(model(Tensor(images)).data, requires_grad=True)
    (cross_entropy(logits, labels, reduction="sum") * (1 / N_TOKENS)).backward()
    # What the logits receive goes on into the hidden layer.
    assert logits.grad is not None
    hidden = logits.grad @ model.layers[1].weight.data
    gradients = np.concatenate([logits.grad.ravel(), hidden.ravel()])
    gradients = gradients[gradients != 0]
    found = {}
    for name, form in (("float16", FLOAT16), ("bfloat16", BFLOAT16)):
        with np.errstate(over="ignore"):
            rounded = [round_to(gradients * np.float32(2.0**power), *form) for power in powers]
        found[f"vanished_{name}"] = [float((each == 0).mean()) for each in rounded]
        found[f"infinite_{name}"] = [float(np.isinf(each).mean()) for each in rounded]
    return found


def _smooth(losses: list[float], n: int = 10) -> list[float]:
    """Average ten steps each."""
    whole = len(losses) // n * n
    return np.array(losses[:whole]).reshape(-1, n).mean(axis=1).tolist()


def plot(numbers: dict):
    """Draw the curves with and without masters, which updates are lost, and which gradients."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.4))
    for (name, losses), style in zip(numbers["curves"].items(), ("-", "--", "-"), strict=True):
        left.plot(10 * np.arange(1, len(losses) + 1), losses, style, label=name)
    left.set(yscale="log", xlabel="step", ylabel="training loss")
    left.legend()
    edges = np.array(numbers["edges"])
    shares = [np.nan if share is None else share for share in numbers["lost_by_size"]]
    middle.bar((edges[1:] + edges[:-1]) / 2, shares, width=0.9, color="C2")
    middle.set(
        xlabel="size of an update relative to its weight",
        ylabel="share of updates lost in bfloat16",
        xticks=[-16, -12, -8, -4, 0],
    )
    middle.set_xticklabels([f"$2^{{{n}}}$" for n in (-16, -12, -8, -4, 0)])
    powers = numbers["powers"]
    right.plot(powers, numbers["vanished_float16"], "C3o-", markersize=4, label="float16: become 0")
    right.plot(powers, numbers["infinite_float16"], "C3s:", markersize=4, label="float16: become infinite")
    right.plot(powers, numbers["vanished_bfloat16"], "C0-", label="bfloat16: become 0")
    right.set(xlabel="scale of the loss", ylabel="share of gradients", xticks=[0, 16, 32, 48])
    right.set_xticklabels([f"$2^{{{n}}}$" for n in (0, 16, 32, 48)])
    right.legend(loc="upper right")
    return figure


def claim(numbers: dict) -> None:
    """README.md: which updates and gradients vanish, what masters and a scale give back."""
    final = numbers["final"]
    assert abs(final["bfloat16, float32 masters"] / final["float32"] - 1) < 0.03
    assert final["bfloat16 alone"] > 1.1 * final["float32"]
    assert numbers["lost"] > 0.5
    n_full, n_none = 0, 0
    bins = zip(numbers["edges"], numbers["edges"][1:], numbers["lost_by_size"], strict=False)
    for low, high, share in bins:
        if share is not None and high <= -9:
            n_full += 1
            assert share > 0.999
        elif share is not None and low >= -8:
            n_none += 1
            assert share < 0.001
        elif share is not None:
            assert 0.3 < share < 0.8
    assert n_full > 3
    assert n_none > 3
    at = {power: n for n, power in enumerate(numbers["powers"])}
    assert numbers["vanished_float16"][0] > 0.9
    assert numbers["vanished_float16"][at[16]] < 0.12
    assert numbers["vanished_float16"][at[32]] < 0.01
    assert numbers["infinite_float16"][at[32]] == 0
    assert numbers["infinite_float16"][at[48]] > 0.25
    assert max(numbers["vanished_bfloat16"] + numbers["infinite_bfloat16"]) < 0.001
    scaled = numbers["final_scaled"]
    assert scaled["float16"] > 2 * scaled["float32"]
    assert abs(scaled["float16, scaled"] / scaled["float32"] - 1) < 0.05
    assert abs(scaled["bfloat16"] / scaled["float32"] - 1) < 0.03
    assert numbers["last_scale"] > 2.0**20
    if len(numbers["curves"]["float32"]) > 100:  # at full scale
        assert final["bfloat16 alone"] > 1.5 * final["float32"]
        assert numbers["lost"] > 0.7
        assert scaled["float16"] > 8 * scaled["float32"]
