"""GELU against SwiGLU at as many weights, on products and on code; and how wide a layer should be inside."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.activations import gelu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.rmsnorm import RMSNorm
from techtree.techs.transformer.swiglu import SwiGLU

WIDTH, N_BLOCKS = 24, 4
N_CHARACTERS, CONTEXT, N_CODES = 128, 8, 12
RATES = (0.008, 0.016)
N_FACTORS = 12
RATIOS = (1 / 3, 2 / 3, 4 / 3, 8 / 3, 16 / 3, 32 / 3)
"""Of hidden units to the width; the width follows, so that all models have as many weights."""


class Ungated(Module):
    """Two layers with GELU between them: four times as wide inside."""

    def __init__(self, width: int, hidden: int, rng: np.random.Generator, dtype: type = np.float64):
        self.up = Linear(width, hidden, rng, has_bias=False, dtype=dtype)
        self.down = Linear(hidden, width, rng, has_bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token alone."""
        return self.down(gelu(self.up(x)))


class Bilinear(SwiGLU):
    """A gate without a curve: the plain product of two projections."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token alone."""
        return self.down(self.gate(x) * self.up(x))


MAKERS: dict[str, Callable] = {
    "GELU": lambda width, rng, dtype: Ungated(width, 4 * width, rng, dtype=dtype),
    "bilinear": lambda width, rng, dtype: Bilinear(width, 8 * width // 3, rng, dtype=dtype),
    "SwiGLU": lambda width, rng, dtype: SwiGLU(width, 8 * width // 3, rng, dtype=dtype),
}


class NextCharacter(Module):
    """The characters before, as numbers beside each other, through feed-forward blocks alone."""

    def __init__(self, rng: np.random.Generator, blocks: Sequence[Module], width: int = WIDTH):
        self.table = Parameter(rng.normal(size=(N_CHARACTERS, N_CODES)).astype(np.float32))
        self.first = Linear(CONTEXT * N_CODES, width, rng, dtype=np.float32)
        self.norms = [RMSNorm(width, dtype=np.float32) for _ in range(len(blocks) + 1)]
        self.blocks = blocks
        self.last = Linear(width, N_CHARACTERS, rng, dtype=np.float32)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Map (N, CONTEXT) characters to (N, N_CHARACTERS) logits."""
        h = self.first(self.table[ids].reshape(len(ids), CONTEXT * N_CODES))
        for norm, block in zip(self.norms, self.blocks, strict=False):
            h = h + block(norm(h))
        return self.last(self.norms[-1](h))


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train feed-forward layers of each kind on products, and models of blocks of each kind on code.

    Parameters
    ----------
    rng
        Draws targets, weights and batches.
    scale
        The share of seeds, kinds and steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. ``products``: the error of each seed, of the targets' variance. ``bits``: of each kind
        and rate, bits for a character of unseen files, by seed. ``ratios``: the same by ratio.
    """
    is_full = scale == 1
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if is_full else 1)]
    texts = standard_library()[:: 1 if is_full else 5]
    unseen, seen = (_characters(texts[start::5]) for start in (0, 1))
    kinds = list(MAKERS) if is_full else ["GELU", "SwiGLU"]

    def bits(seed: int, make: Callable, rate: float, n_steps: int, width: int = WIDTH) -> float:
        draws = np.random.default_rng(seed)
        model = NextCharacter(draws, [make(width, draws, np.float32) for _ in range(N_BLOCKS)], width)
        return _bits_per_character(draws, model, seen, unseen, n_steps, rate)

    n_weights, ratios = {}, {}
    for ratio in RATIOS if is_full else ():
        width, hidden = _shape(ratio)

        def make(width, draws, dtype, hidden=hidden):
            return SwiGLU(width, hidden, draws, dtype=dtype)

        draws = np.random.default_rng(0)
        layers = [make(width, draws, np.float32) for _ in range(N_BLOCKS)]
        n_weights[f"{ratio:.2f}"] = _n_weights(NextCharacter(draws, layers, width))
        ratios[f"{ratio:.2f}"] = [bits(seed, make, RATES[-1], 400, width) for seed in seeds]
    return {
        "n_weights": {kind: _n_weights(MAKERS[kind](WIDTH, rng, np.float64)) for kind in kinds},
        "n_weights_by_ratio": n_weights,
        "products": {
            kind: [_products(seed, kind, 800 if is_full else 200) for seed in seeds] for kind in kinds
        },
        "bits": {
            kind: {
                str(rate): [bits(seed, MAKERS[kind], rate, 1000 if is_full else 120) for seed in seeds]
                for rate in (RATES if is_full else RATES[-1:])
            }
            for kind in kinds
        },
        "ratios": ratios,
        "exact": _exact_product(rng),
    }


def _shape(ratio: float) -> tuple[int, int]:
    """Return the width and the hidden units that make a model about as large as those of the other ratios."""
    outside = CONTEXT * N_CODES + N_CHARACTERS  # weights for each number of the width
    n_weights = outside * WIDTH + N_BLOCKS * 8 * WIDTH * WIDTH
    inside = 3 * N_BLOCKS * ratio
    width = round((math.sqrt(outside**2 + 4 * inside * n_weights) - outside) / (2 * inside))
    return width, round((n_weights - outside * width) / (3 * N_BLOCKS * width))


def _characters(texts: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(texts).encode("ascii", "replace"), np.uint8).astype(np.int64)


def _n_weights(module: Module) -> int:
    return sum(each.data.size for each in module.parameters())


def _bits_per_character(
    rng: np.random.Generator,
    model: Module,
    seen: np.ndarray,
    unseen: np.ndarray,
    n_steps: int,
    rate: float,
) -> float:
    """Train on windows of one text and measure on windows of another."""
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0)
    for step in range(n_steps):
        ids, targets = _windows(rng, seen, 128)
        cross_entropy(model(ids), targets).backward()
        optimizer.groups[0]["lr"] = rate * min(1, 2 * (1 - step / n_steps))
        optimizer.step()
        optimizer.zero_grad()
    with no_grad():
        ids, targets = _windows(np.random.default_rng(0), unseen, 8000)
        return float(cross_entropy(model(ids), targets).data) / math.log(2)


def _windows(rng: np.random.Generator, text: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    places = rng.integers(len(text) - CONTEXT, size=n)
    windows = text[places[:, None] + np.arange(CONTEXT + 1)]
    return windows[:, :CONTEXT], windows[:, CONTEXT]


def _products(seed: int, kind: str, n_steps: int) -> float:
    """Return the error of one layer that learns products of pairs of directions, of the targets' variance."""
    rng = np.random.default_rng(seed)
    a, b = (np.linalg.qr(rng.normal(size=(N_FACTORS, N_FACTORS)))[0] for _ in range(2))
    layer = MAKERS[kind](N_FACTORS, rng, np.float64)
    optimizer = AdamW(layer.parameters(), lr=0.02, weight_decay=0)
    errors = []
    for step in range(n_steps):
        x = rng.normal(size=(128, N_FACTORS))
        error = ((layer(Tensor(x)) - (x @ a) * (x @ b)) ** 2).mean()
        errors.append(float(error.data))
        error.backward()
        optimizer.groups[0]["lr"] = 0.02 * (1 - step / n_steps)
        optimizer.step()
        optimizer.zero_grad()
    return float(np.mean(errors[-n_steps // 20 :]))


def _exact_product(rng: np.random.Generator) -> float:
    """Return the largest error of two hidden units that multiply: silu(a) b + silu(-a) (-b) = a b."""
    layer, x = SwiGLU(2, 2, rng), rng.normal(size=(100, 2))
    matrices = {"gate": [[1.0, 0], [-1, 0]], "up": [[0, 1.0], [0, -1]], "down": [[1.0, 1], [0, 0]]}
    layer.load_state_dict({f"{name}.weight": np.array(each) for name, each in matrices.items()})
    return float(np.abs(layer(Tensor(x)).data[:, 0] - x[:, 0] * x[:, 1]).max())


def best(bits: dict[str, list[float]]) -> list[float]:
    """Return the bits of each seed at the rate that suits the kind best."""
    return min(bits.values(), key=lambda each: float(np.mean(each)))


def plot(numbers: dict):
    """Draw the error of products, the bits of each kind, and the bits by the ratio of the widths."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.6, 3.2), width_ratios=(1, 1, 1.4))
    colours = {"GELU": "C7", "bilinear": "C1", "SwiGLU": "C0"}
    for place, (kind, errors) in enumerate(numbers["products"].items()):
        left.plot([place] * len(errors), errors, "o", color=colours[kind], ms=4)
        found = best(numbers["bits"][kind])
        middle.plot([place] * len(found), found, "o", color=colours[kind], ms=4)
        middle.plot([place - 0.25, place + 0.25], [np.mean(found)] * 2, color=colours[kind])
    for axes in (left, middle):
        axes.set_xticks(range(len(numbers["products"])), [*numbers["products"]])
        axes.set_xlim(-0.5, len(numbers["products"]) - 0.5)
    left.set(yscale="log", ylabel="error of learned products")
    middle.set(ylabel="bits for a character of unseen code")
    for ratio, found in numbers["ratios"].items():
        right.plot([float(ratio)] * len(found), found, "C0o", ms=4)
    right.plot(
        [float(each) for each in numbers["ratios"]], [np.mean(each) for each in numbers["ratios"].values()]
    )
    right.axvline(8 / 3, color="0.7", ls=":")
    right.set(
        xscale="log", xlabel="hidden units by width, at as many weights", ylabel="the same, shorter training"
    )
    right.set_xticks(RATIOS, ["1/3", "2/3", "4/3", "8/3", "16/3", "32/3"])
    right.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: at equal weights a gate learns products and code better; ratios up to 8/3 are alike."""
    assert set(numbers["n_weights"].values()) == {8 * WIDTH * WIDTH}
    assert numbers["exact"] < 1e-12
    products = {kind: np.array(errors) for kind, errors in numbers["products"].items()}
    found = {kind: np.array(best(each)) for kind, each in numbers["bits"].items()}
    assert (products["GELU"] > 1.2 * products["SwiGLU"]).all()
    assert abs(found["SwiGLU"].mean() - found["GELU"].mean()) < 0.2
    if not numbers["ratios"]:
        return
    assert ((products["GELU"] > 0.04) & (products["GELU"] < 0.055)).all()
    assert (products["SwiGLU"] < 0.0054).all()
    assert (products["SwiGLU"] > 2 * products["bilinear"]).all()
    assert 0.03 < found["GELU"].mean() - found["SwiGLU"].mean() < 0.07
    assert found["bilinear"].mean() > found["SwiGLU"].mean()
    for bits in numbers["bits"].values():  # no kind depends much on the rate
        assert abs(np.mean(bits["0.016"]) - np.mean(bits["0.008"])) < 0.06
    sizes = list(numbers["n_weights_by_ratio"].values())
    assert max(sizes) / min(sizes) < 1.03
    by_ratio = {name: float(np.mean(bits)) for name, bits in numbers["ratios"].items()}
    flat = [by_ratio[each] for each in ("0.33", "0.67", "1.33", "2.67")]
    assert max(flat) - min(flat) < 0.1
    assert by_ratio["5.33"] - min(flat) > 0.03
    assert by_ratio["10.67"] - max(flat) > 0.08
