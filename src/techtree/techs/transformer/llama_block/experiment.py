"""From GPT-2's block to Llama's: what each of the four changes gains, at as many weights."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.positions import LearnedPositions
from techtree.techs.transformer.transformer_block import FeedForward

WIDTH, N_LAYERS, N_HEADS, N_CHARACTERS = 32, 2, 4, 97
LENGTH, BATCH, RATE = 48, 8, 0.01
CHANGES = ("rmsnorm", "rope", "gqa", "swiglu")
N_WEIGHTS = 29_000
"""About as many as each model gets: the hidden width of its feed-forward parts makes up for the rest."""


class Between(Module):
    """A model with some of the four changes: a `Llama` whose other parts are exchanged for GPT-2's."""

    def __init__(self, changes, rng):
        n_kv_heads = 1 if "gqa" in changes else N_HEADS
        hidden = 1
        while True:  # the widest that fits
            made = self._count(changes, n_kv_heads, hidden + 1)
            if made > N_WEIGHTS:
                break
            hidden += 1
        config = LlamaConfig(N_CHARACTERS, WIDTH, hidden, N_LAYERS, N_HEADS, n_kv_heads, eps=1e-5)

        def plain(layer):
            gain = 1 / math.sqrt(2 * N_LAYERS)
            return FeedForward(WIDTH, hidden, rng, has_bias=False, gain=gain, dtype=np.float32)

        self.model = Llama(config, rng, None if "swiglu" in changes else plain, np.float32)
        if "rmsnorm" not in changes:
            for owner in (self.model, *self.model.blocks):
                for name in ("norm", "attention_norm", "feed_forward_norm"):
                    if hasattr(owner, name):
                        setattr(owner, name, LayerNorm(WIDTH, dtype=np.float32))
        self.positions = None if "rope" in changes else LearnedPositions(LENGTH, WIDTH, rng, dtype=np.float32)

    @staticmethod
    def _count(changes, n_kv_heads, hidden):
        attention = 2 * WIDTH * WIDTH + 2 * WIDTH * (WIDTH // N_HEADS) * n_kv_heads
        feed_forward = (3 if "swiglu" in changes else 2) * WIDTH * hidden
        norms = (2 * N_LAYERS + 1) * WIDTH * (1 if "rmsnorm" in changes else 2)
        tables = (N_CHARACTERS + (0 if "rope" in changes else LENGTH)) * WIDTH
        return N_LAYERS * (attention + feed_forward) + norms + tables

    def forward(self, ids):
        """Return the logits for ids (..., T)."""
        model, n = self.model, ids.shape[-1]
        x, where = model.token_embedding(ids), None
        if self.positions is not None:
            x, where = x + self.positions(n), np.zeros(n)  # turned by the angle 0, which is not at all
        for block in model.blocks:
            x = block(x, causal_mask(n, n), where)
        return model.token_embedding.unembed(model.norm(x))


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Return characters of Python's own library to train on and to measure on: 0 to 94, line, others."""
    files = standard_library()
    train = "".join(text for i, text in enumerate(files) if i % 5)
    return _characters(train), _characters("".join(files[::5]))


def _characters(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)
    return np.where(codes == 10, 95, np.where((codes >= 32) & (codes < 127), codes - 32, 96))


def train(model: Module, data: np.ndarray, rng: np.random.Generator, n_steps: int) -> None:
    """Train by Adam on random windows; the rate rises over 20 steps and falls to 0."""
    moments = [(np.zeros_like(p.data), np.zeros_like(p.data)) for p in model.parameters()]
    for step in range(1, n_steps + 1):
        starts = rng.integers(len(data) - LENGTH - 1, size=BATCH)
        rows = data[starts[:, None] + np.arange(LENGTH + 1)]
        cross_entropy(model(rows[:, :-1]), rows[:, 1:]).backward()
        rate = RATE * min(step / 20, 1) * 0.5 * (1 + math.cos(math.pi * step / (n_steps + 1)))
        for p, (mean, square) in zip(model.parameters(), moments, strict=True):
            assert p.grad is not None
            mean += 0.1 * (p.grad - mean)
            square += 0.01 * (p.grad**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            p.grad = None


def loss_of(model: Module, data: np.ndarray, n_windows: int = 200) -> float:
    """Return bits per character over windows that lie evenly in a text."""
    starts = np.linspace(0, len(data) - LENGTH - 1, n_windows).astype(int)
    rows = data[starts[:, None] + np.arange(LENGTH + 1)]
    with no_grad():
        return float(cross_entropy(model(rows[:, :-1]), rows[:, 1:]).data) / math.log(2)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train a model with GPT-2's block, with one of the changes each, and with all four.

    Parameters
    ----------
    rng
        Draws weights and windows.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Losses in bits per character of unseen files, one for each seed; of each model the
        number of weights, and that of keys and values kept for each token that was read.
    """
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if scale == 1 else 1)]
    n_steps = 500 if scale == 1 else max(15, round(150 * scale))
    train_on, unseen = texts()
    kinds = {"gpt": ()} | {name: (name,) for name in CHANGES} | {"llama": CHANGES}
    losses, sizes, kept = {}, {}, {}
    for kind, changes in kinds.items():
        losses[kind] = []
        for seed in seeds:
            model = Between(changes, np.random.default_rng(seed))
            train(model, train_on, np.random.default_rng(seed), n_steps)
            losses[kind].append(loss_of(model, unseen, 200 if scale == 1 else 30))
        model = Between(changes, np.random.default_rng(0))
        sizes[kind] = sum(p.data.size for p in model.parameters())
        kept[kind] = 2 * sum(block.attention.key.weight.shape[0] for block in model.model.blocks)
    return {"losses": losses, "n_weights": sizes, "n_kept": kept}


def plot(numbers: dict):
    """Draw what each change gains over GPT-2's block, and what is kept of each token."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1.6, 1))
    plain = np.array(numbers["losses"]["gpt"])
    names = {"rmsnorm": "RMSNorm", "rope": "rotary positions", "gqa": "one head of keys", "swiglu": "SwiGLU"}
    names |= {"llama": "all four"}
    for place, name in enumerate(names):
        gains = plain - np.array(numbers["losses"][name])
        left.barh(-place, gains.mean(), color="C0" if name != "llama" else "C2", alpha=0.5)
        left.plot(gains, [-place] * len(gains), "k.", ms=4)
    left.axvline(0, color="0.3", lw=0.8)
    left.set_yticks([-place for place in range(len(names))], list(names.values()))
    left.set(xlabel="bits per character gained over GPT-2's block")
    kept = [numbers["n_kept"][name] for name in ("gpt", "llama")]
    right.bar(["GPT-2's block", "all four"], kept, color=["C7", "C2"], width=0.5)
    for place, n in enumerate(kept):
        right.text(place, n, f"{n}", ha="center", va="bottom")
    right.set(ylabel="numbers kept for each token", ylim=(0, 1.15 * max(kept)))
    return figure


def claim(numbers: dict) -> None:
    """README.md: rotary positions gain most, the others little; one head of keys keeps a fourth."""
    sizes = np.array(list(numbers["n_weights"].values()))
    assert (abs(sizes - 28_900) < 120).all()
    assert numbers["n_kept"] == dict.fromkeys(("gpt", "rmsnorm", "rope", "swiglu"), 128) | {
        "gqa": 32,
        "llama": 32,
    }
    losses = {name: np.array(found) for name, found in numbers["losses"].items()}
    assert all(2 < each < 7 for found in losses.values() for each in found)
    if len(losses["gpt"]) == 1:
        return  # too few steps to tell the models apart
    gains = {name: losses["gpt"] - found for name, found in losses.items()}
    assert (gains["rope"] > 0.1).all()
    assert (gains["llama"] > 0.1).all()
    means = {name: each.mean() for name, each in gains.items()}
    assert 0.15 < means["rope"] < 0.4
    assert 0.15 < means["llama"] < 0.45
    assert means["rope"] > 2 * max(means["rmsnorm"], means["swiglu"], means["gqa"])
    assert all(-0.08 < means[name] < 0.12 for name in ("rmsnorm", "gqa", "swiglu"))
    assert means["gqa"] < 0.03
