"""How much gradient arrives at depth, who trains there, and how wide a block should be."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.transformer_block import TransformerBlock

DEPTHS, WIDTH = (2, 4, 8, 16, 32, 64), 32
TRAINED, N_STEPS, RATE = (2, 4, 12), 200, 0.004
"""Numbers of blocks of width 16 that are trained, without warmup."""
SHAPES = ((52, 14), (48, 32), (40, 74), (32, 128), (24, 208), (16, 352))
"""Width and hidden units of blocks whose matrices have about as many weights: 12,272 to 12,320."""
N_BYTES, N_TOKENS = 128, 32


class PostNorm(TransformerBlock):
    """The block of 2017: the sums are normalized, not what the parts read."""

    def forward(self, x: Tensor, mask: np.ndarray | None = None) -> Tensor:
        """Normalize the stream itself, twice."""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.feed_forward_norm(x + self.feed_forward(x))


class NoResidual(TransformerBlock):
    """A block in which each answer replaces the token."""

    def forward(self, x: Tensor, mask: np.ndarray | None = None) -> Tensor:
        """Leave out both sums."""
        return self.feed_forward(self.feed_forward_norm(self.attention(self.attention_norm(x), mask)))


BLOCKS = {
    "pre-norm": TransformerBlock,
    "pre-norm, small gain": TransformerBlock,
    "post-norm": PostNorm,
    "no residual": NoResidual,
}


def stack(rng: np.random.Generator, kind: str, depth: int, width: int, hidden: int, dtype: type) -> list:
    """Make blocks of a kind; the small gain is ``1 / sqrt(2 * depth)``."""
    gain = 1 / math.sqrt(2 * depth) if "gain" in kind else 1.0
    return [BLOCKS[kind](width, 4, rng, hidden, gain=gain, dtype=dtype) for _ in range(depth)]


class Model(Module):
    """Bytes in, scores of the next byte out: linear layers before and after a stack of blocks."""

    def __init__(self, rng: np.random.Generator, kind: str, depth: int, width: int, hidden: int):
        dtype = np.float32
        self.table = Linear(N_BYTES, width, rng, has_bias=False, gain=math.sqrt(N_BYTES / 2), dtype=dtype)
        self.places = Linear(N_TOKENS, width, rng, has_bias=False, gain=math.sqrt(N_TOKENS / 2), dtype=dtype)
        self.blocks = stack(rng, kind, depth, width, hidden, dtype)
        self.norm = LayerNorm(width, dtype=dtype)
        self.head = Linear(width, N_BYTES, rng, has_bias=False, gain=0.1, dtype=dtype)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Look rows up by products with vectors of one 1."""
        x = self.table(Tensor(np.eye(N_BYTES, dtype=np.float32)[ids]))
        x = x + self.places(Tensor(np.eye(N_TOKENS, dtype=np.float32)))
        mask = causal_mask(N_TOKENS, N_TOKENS)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure gradients of fresh stacks, and train stacks of several kinds, depths and shapes.

    Parameters
    ----------
    rng
        Draws weights and windows of text: the same windows for all models that are compared.
    scale
        The share of the full number of steps, in (0, 1]; below 1 also fewer depths and shapes.

    Returns
    -------
    dict
        Ready for JSON. By kind and depth the size of the gradient of the last block's first feed-forward
        weight, and the size of the stream there; bits per byte by kind and depth, and by shape; the number of
        weights by shape.
    """
    source = "".join(standard_library()).encode("ascii", "replace")
    text = np.frombuffer(source, np.uint8)
    is_full = scale == 1
    depths, trained = (DEPTHS, TRAINED) if is_full else ((2, 8, 32), (2,))
    shapes = SHAPES if is_full else (SHAPES[2], SHAPES[-1])
    n_steps = max(25, round(N_STEPS * scale))
    seed = int(rng.integers(2**32))

    def loss(kind: str, depth: int, width: int, hidden: int, n: int, rate: float) -> float:
        own = np.random.default_rng([seed, 1])
        return train(Model(own, kind, depth, width, hidden), text, np.random.default_rng(seed), n, rate)

    norms = ("pre-norm", "post-norm")
    fresh = {kind: [last_block(rng, kind, depth) for depth in depths] for kind in norms}
    return {
        "depths": list(depths),
        "gradients": {kind: [gradient for gradient, _ in found] for kind, found in fresh.items()},
        "sizes": {kind: [size for _, size in found] for kind, found in fresh.items()},
        "trained": list(trained),
        "by_kind": {kind: [loss(kind, depth, 16, 64, n_steps, RATE) for depth in trained] for kind in BLOCKS},
        "shapes": [list(each) for each in shapes],
        "by_shape": [loss("pre-norm", 2, *shape, 2 * n_steps, 2 * RATE) for shape in shapes],
        "n_weights": [4 * width * width + 2 * width * hidden for width, hidden in shapes],
    }


def last_block(rng: np.random.Generator, kind: str, depth: int) -> tuple[float, float]:
    """Return, for a fresh stack, the size of one gradient in its last block, and of the stream behind it.

    The gradient that arrives behind one more norm is random, of the same size for all stacks.
    """
    blocks = stack(rng, kind, depth, WIDTH, 4 * WIDTH, np.float64)
    norm = LayerNorm(WIDTH)
    x = Tensor(rng.normal(size=(4, 16, WIDTH)))
    for block in blocks:
        x = block(x, causal_mask(16, 16))
    y = norm(x)
    y.backward(rng.normal(size=y.shape))
    gradient = blocks[-1].feed_forward.up.weight.grad
    return float(np.linalg.norm(gradient)), float(np.sqrt((x.data**2).mean()))


def train(model: Model, text: np.ndarray, rng: np.random.Generator, n_steps: int, rate: float) -> float:
    """Train on windows of a text; return the mean loss of the last tenth of the steps, in bits per byte."""
    optimizer = AdamW(model.parameters(), rate)
    losses = []
    for step in range(n_steps):
        starts = rng.integers(len(text) - N_TOKENS - 1, size=16)
        windows = text[starts[:, None] + np.arange(N_TOKENS + 1)]
        optimizer.zero_grad()
        loss = cross_entropy(model(windows[:, :-1]), windows[:, 1:])
        loss.backward()
        for group in optimizer.groups:
            group["lr"] = rate * min(1.0, 2 * (1 - step / n_steps))
        optimizer.step()
        losses.append(float(loss.data) / math.log(2))
    return float(np.mean(losses[-max(1, n_steps // 10) :]))


def plot(numbers: dict):
    """Draw the gradient of the last block by depth, the loss by kind and depth, and by shape."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.3))
    for kind, color in (("pre-norm", "C0"), ("post-norm", "C1")):
        found = numbers["gradients"][kind]
        left.plot(numbers["depths"], found, f"{color}.-")
        left.text(4, found[1] * 1.25, kind, color=color, va="bottom")
    depths = np.array(numbers["depths"])
    left.plot(depths, numbers["gradients"]["pre-norm"][0] * np.sqrt(depths[0] / depths), "C7:")
    left.set(xscale="log", yscale="log", xlabel="blocks", ylabel="gradient in the last block", ylim=(10, 300))
    left.set_xticks(depths, [f"{n}" for n in depths])
    left.set_yticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    left.minorticks_off()
    for number, (kind, found) in enumerate(numbers["by_kind"].items()):
        color = ("C0", "C2", "C1", "C3")[number]
        middle.plot(range(len(found)), found, f"{color}.-", label=kind)
    middle.set_xticks(range(len(numbers["trained"])), [f"{n}" for n in numbers["trained"]])
    middle.set(xlabel="blocks", ylabel="bits per byte")
    middle.legend(loc="center right", fontsize=8)
    ratios = [hidden / width for width, hidden in numbers["shapes"]]
    right.plot(ratios, numbers["by_shape"], "C0.-")
    right.axvline(4, color="C7", ls=":")
    right.set(xscale="log", xlabel="hidden units / width", ylabel="bits per byte", ylim=(2.9, 3.7))
    right.set_xticks([0.25, 1, 4, 16], ["1/4", "1", "4", "16"])
    right.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: gradients by depth, who trains at depth, and the flat optimum of the shape."""
    pre, post = (np.array(numbers["gradients"][kind]) for kind in ("pre-norm", "post-norm"))
    ratio = math.sqrt(numbers["depths"][-1] / numbers["depths"][0])
    assert 0.5 * ratio < pre[0] / pre[-1] < 2 * ratio
    assert post.max() / post.min() < 1.7
    sizes = {kind: np.array(found) for kind, found in numbers["sizes"].items()}
    assert (np.abs(sizes["post-norm"] - 1) < 0.01).all()
    assert sizes["pre-norm"][-1] > 0.4 * ratio * sizes["pre-norm"][0]
    assert np.ptp(numbers["n_weights"]) < 60
    by_kind = numbers["by_kind"]
    assert by_kind["pre-norm"][0] < min(by_kind["no residual"]) - 0.01
    if numbers["trained"] != list(TRAINED):
        return
    assert 3.7 < by_kind["pre-norm"][0] < 4.0
    assert 3.7 < by_kind["pre-norm"][2] < 4.2
    assert 3.7 < by_kind["pre-norm, small gain"][2] < by_kind["pre-norm"][2] + 0.02
    assert by_kind["post-norm"][2] > 4.4
    assert by_kind["no residual"][2] > 4.4
    losses = np.array(numbers["by_shape"])
    assert np.ptp(losses[:4]) < 0.15
    assert losses[-1] - losses[:4].min() > 0.15
