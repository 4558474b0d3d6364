"""What a model loses when its weights are rounded: by bits, by how many share a scale, by part."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.quantization import QuantizedLinear, dequantize_state, quantize_state
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.activations import relu
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear
from techtree.techs.training.schedule_clip import warmup_cosine
from techtree.techs.transformer.embedding import Embedding

N_CHARACTERS, CONTEXT, WIDTH, HIDDEN = 96, 8, 32, 128
BATCH, RATE = 128, 3e-3
BLOCKS = (8, 16, 32, 64, 128)
SIZES = (4, 8, 16, 32, 64, 128, 256)
"""Of the outlier, in standard deviations of the other weights."""

SHARED = ("tensor", "row", "block")
MATRICES = ("embedding", "first", "second", "head")


class CharacterModel(Module):
    """Eight characters of source code, then the scores of the next."""

    def __init__(self, rng: np.random.Generator):
        self.embedding = Embedding(N_CHARACTERS, WIDTH, rng, std=0.3)
        self.embedding.weight.data = self.embedding.weight.data.astype(np.float32)
        self.first = Linear(CONTEXT * WIDTH, HIDDEN, rng, gain=math.sqrt(2), dtype=np.float32)
        self.second = Linear(HIDDEN, HIDDEN, rng, gain=math.sqrt(2), dtype=np.float32)
        self.head = Linear(HIDDEN, N_CHARACTERS, rng, dtype=np.float32)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the scores of the character after each row of ids."""
        x = self.embedding(ids).reshape(len(ids), CONTEXT * WIDTH)
        return self.head(relu(self.second(relu(self.first(x)))))


def characters(n_seen: int, n_unseen: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the characters of files to train on, and of the beginnings of others, as ids."""

    def ids(text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)
        return np.where(codes == ord("\n"), N_CHARACTERS - 1, np.clip(codes - 32, 0, N_CHARACTERS - 2))

    files = standard_library()
    seen, unseen = "".join(files[1::2]), "".join(text[:2000] for text in files[::4])
    return ids(seen[:n_seen]), ids(unseen[:n_unseen])


def examples(ids: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return contexts that begin at some places, and the character after each."""
    return ids[at[:, None] + np.arange(CONTEXT)], ids[at + CONTEXT]


def trained(seed: int, n_steps: int, seen: np.ndarray) -> CharacterModel:
    """Train a model on drawn places."""
    rng = np.random.default_rng(seed)
    model = CharacterModel(rng)
    optimizer = AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for step in range(n_steps):
        x, y = examples(seen, rng.integers(len(seen) - CONTEXT, size=BATCH))
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.groups[0]["lr"] = RATE * warmup_cosine(step, n_steps, n_steps // 20)
        optimizer.step()
    return model


def bits_per_character(model: Module, ids: np.ndarray) -> float:
    """Return the loss on all characters but the first eight."""
    x, y = examples(ids, np.arange(len(ids) - CONTEXT))
    with no_grad():
        return float(cross_entropy(model(x), y).data) / math.log(2)


def rounded(x: np.ndarray, n_bits: int, n_shared: int, rule: str = "signed") -> np.ndarray:
    """Round like q4_0, with any bits and any number of neighbours that share a scale, or by other rules.

    Parameters
    ----------
    x
        Any shape; neighbours lie in a row of its memory.
    n_bits, n_shared
        At least 2; a divisor of the size.
    rule
        "signed" as q4_0; "positive": the same without the sign in the scale; "symmetric": as many steps
        above 0 as below; "least": a smallest value beside the scale.
    """
    blocks = x.reshape(-1, n_shared).astype(np.float32)
    half = 2 ** (n_bits - 1)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    least, low, high = np.float32(0), -half, half - 1
    if rule == "least":
        least, low, high = blocks.min(axis=1, keepdims=True), 0, 2 * half - 1
        d = (blocks.max(axis=1, keepdims=True) - least) / high
    else:
        d = {"signed": largest / -half, "positive": np.abs(largest) / half}.get(
            rule, np.abs(largest) / (half - 1)
        )
    q = np.clip(np.floor((blocks - least) / np.where(d == 0, 1, d) + 0.5), low, high)
    return (least + q * d.astype(np.float16).astype(np.float32)).reshape(x.shape)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train models of characters, round them in many ways, and measure the loss; and errors of outliers.

    Parameters
    ----------
    rng
        Draws the seeds of the models, and weights with an outlier.
    scale
        The share of steps and seeds, in (0, 1].

    Returns
    -------
    dict
        Losses in bits per character beside that of the float32 model; errors of weights relative to their
        root mean square.
    """
    is_full = scale == 1
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if is_full else 1)]
    seen, unseen = characters(400_000, 16_000 if is_full else 4_000)
    found: dict = {"plain": [], "losses": {}, "parts": {}, "rules": {}, "errors": {}}
    state: dict[str, np.ndarray] = {}
    for seed in seeds:
        model = trained(seed, 2000 if is_full else 200, seen)
        state = model.state_dict()
        plain = bits_per_character(model, unseen)
        found["plain"].append(plain)
        for name, other in _schemes(state).items():
            model.load_state_dict(other)
            found["losses"].setdefault(name, []).append(bits_per_character(model, unseen) - plain)
        for name in MATRICES:
            key = f"{name}.weight"
            model.load_state_dict(state | {key: rounded(state[key], 3, 32)})
            found["parts"].setdefault(name, []).append(bits_per_character(model, unseen) - plain)
        model.load_state_dict(state)
        for name in ("first", "second", "head"):
            setattr(model, name, QuantizedLinear(getattr(model, name), "q4_0"))
        model.embedding.weight.data[...] = dequantize_state(quantize_state(state, {"": "q4_0"}))[
            "embedding.weight"
        ]
        found["losses"].setdefault("q4_0, whole numbers", []).append(
            bits_per_character(model, unseen) - plain
        )
        weights = np.concatenate([state[f"{name}.weight"].ravel() for name in MATRICES])
        for n_bits in (3, 4, 5, 8):
            for n_shared in BLOCKS:
                error = _error(weights, rounded(weights, n_bits, n_shared))
                found["errors"].setdefault(str(n_bits), {}).setdefault(str(n_shared), []).append(error)
        for rule in ("signed", "positive", "symmetric", "least"):
            error = _error(weights, rounded(weights, 4, 32, rule))
            found["rules"].setdefault(rule, []).append(error)
    found["n_weights"] = {name: int(state[f"{name}.weight"].size) for name in MATRICES}
    found["bytes"] = {
        kind: sum(each.nbytes for each in quantize_state(state, {"": kind}).values())
        for kind in ("keep", "q8_0", "q4_0")
    }
    found["outlier"] = _outlier(rng)
    return found


def _error(x: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((other - x) ** 2).mean() / (x**2).mean()))


def _schemes(state: dict) -> dict[str, dict]:
    """Return the same model, its matrices rounded in several ways."""

    def each(n_bits, n_shared):
        return {name: rounded(w, n_bits, n_shared(w)) if w.ndim == 2 else w for name, w in state.items()}

    ends = {"": "q4_0", "embedding": "q8_0", "head": "q8_0"}
    return {
        "q8_0": dequantize_state(quantize_state(state, {"": "q8_0"})),
        "8 bits, tensor": each(8, lambda w: w.size),
        "q4_0": dequantize_state(quantize_state(state, {"": "q4_0"})),
        "4 bits, row": each(4, lambda w: w.shape[1]),
        "4 bits, tensor": each(4, lambda w: w.size),
        "q4_0, ends q8_0": dequantize_state(quantize_state(state, ends)),
    }


def _outlier(rng: np.random.Generator) -> dict[str, dict[str, list[float]]]:
    """Measure the error of all weights but one, in 4 and 8 bits, while this one grows."""
    weights = rng.normal(size=(256, 256)).astype(np.float32)
    others = np.ones(weights.shape, bool)
    others[100, 100] = False
    found: dict[str, dict[str, list[float]]] = {}
    for n_bits in (4, 8):
        errors = found[str(n_bits)] = {name: [] for name in SHARED}
        for size in SIZES:
            weights[100, 100] = size
            for name, n_shared in zip(SHARED, (weights.size, 256, 32), strict=True):
                errors[name].append(_error(weights[others], rounded(weights, n_bits, n_shared)[others]))
    return found


def plot(numbers: dict):
    """Draw the loss by what shares a scale, the error by bits for each weight, and that beside an outlier."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5))
    names = {
        "q8_0": "8 bits, blocks of 32",
        "8 bits, tensor": "8 bits, one scale",
        "q4_0, ends q8_0": "4 bits, both ends 8",
        "q4_0": "4 bits, blocks of 32",
        "4 bits, row": "4 bits, a scale for each row",
        "4 bits, tensor": "4 bits, one scale",
    }
    for place, key in enumerate(names):
        values = numbers["losses"][key]
        colour = "C1" if key in ("q8_0", "q4_0") else "C0"
        left.barh(-place, np.mean(values), 0.6, color=colour, alpha=0.6)
        left.plot(values, [-place] * len(values), ".", color="0.2", ms=4)
    left.set_yticks(range(0, -len(names), -1), [*names.values()])
    left.set(xlabel="bits per character lost")
    for n_bits, colour in (("3", "C2"), ("4", "C1"), ("5", "C3")):
        errors = {int(n): np.mean(each) for n, each in numbers["errors"][n_bits].items()}
        sizes = [int(n_bits) + 16 / n for n in errors]
        middle.plot(sizes, [*errors.values()], color=colour, marker=".", label=f"{n_bits} bits")
        middle.plot(int(n_bits) + 0.5, errors[32], "o", color=colour, ms=7, mfc="none")
    middle.set(xlabel="bits for each weight, scale included", ylabel="error of the weights", yscale="log")
    middle.set_yticks([0.04, 0.08, 0.16], ["0.04", "0.08", "0.16"])
    middle.minorticks_off()
    middle.set_title("blocks of 128 (left) to 8; circles: 32")
    middle.legend()
    for name, colour in zip(SHARED, ("C3", "C0", "C1"), strict=True):
        right.plot(SIZES, numbers["outlier"]["4"][name], color=colour, label=name)
        right.plot(SIZES, numbers["outlier"]["8"][name], color=colour, ls="--")
    right.set(xscale="log", xlabel="size of the outlier, in deviations", ylim=(0, 1.05))
    right.set_xticks(SIZES, [str(each) for each in SIZES])
    right.minorticks_off()
    right.set(ylabel="error of all other weights", title="4 bits; dashed: 8 bits")
    right.legend(title="one scale for a", loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: blocks keep the loss, one scale does not; what bits, small blocks and a sign are worth."""
    is_full = len(numbers["plain"]) > 1
    losses = {name: np.array(each) for name, each in numbers["losses"].items()}
    errors = {
        int(bits): {int(n): float(np.mean(each)) for n, each in of.items()}
        for bits, of in numbers["errors"].items()
    }
    rules = {name: float(np.mean(each)) for name, each in numbers["rules"].items()}
    outlier = {bits: {k: np.array(v) for k, v in of.items()} for bits, of in numbers["outlier"].items()}
    assert (np.abs(losses["q8_0"]) < 0.003).all()
    assert (losses["4 bits, tensor"] > losses["q4_0"]).all()
    assert (np.abs(losses["q4_0, whole numbers"] - losses["q4_0"]) < 0.003).all()
    # Each bit halves the error, and each halving of the block takes an eighth off.
    for bits in (3, 4):
        for n in BLOCKS:
            assert 0.46 < errors[bits + 1][n] / errors[bits][n] < 0.52
    for n in BLOCKS[:-1]:
        assert 0.83 < errors[4][n] / errors[4][2 * n] < 0.93
    assert 1.04 < rules["positive"] / rules["signed"] < 1.12
    assert 1.09 < rules["symmetric"] / rules["signed"] < 1.18
    assert abs(rules["least"] / errors[4][16] - 1) < 0.04  # 5 bits for each weight, both
    assert (outlier["4"]["block"] < 0.1).all()
    assert (outlier["4"]["row"] < 0.14).all()
    assert outlier["4"]["tensor"][SIZES.index(16)] > 0.5
    assert outlier["4"]["tensor"][SIZES.index(32)] > 0.9
    assert outlier["8"]["tensor"][-1] > 0.5
    assert outlier["8"]["block"][-1] < 0.02
    n_bytes = numbers["bytes"]
    assert 6.85 < n_bytes["keep"] / n_bytes["q4_0"] < 6.95  # biases stay
    assert 3.69 < n_bytes["keep"] / n_bytes["q8_0"] < 3.73
    if is_full:
        assert (np.abs(losses["q8_0"]) < 0.001).all()
        assert (np.abs(losses["8 bits, tensor"]) < 0.003).all()
        assert ((losses["q4_0"] > 0.015) & (losses["q4_0"] < 0.04)).all()
        assert losses["4 bits, row"].mean() > 1.4 * losses["q4_0"].mean()
        assert (losses["4 bits, tensor"] > 5 * losses["q4_0"]).all()
        assert (losses["4 bits, tensor"] > 0.15).all()
        assert losses["q4_0, ends q8_0"].mean() < 0.6 * losses["q4_0"].mean()
        assert (np.abs(losses["q4_0, whole numbers"] - losses["q4_0"]) < 0.002).all()
        gains = [math.log2(errors[4][2 * n] / errors[4][n]) for n in BLOCKS[:-1]]
        assert all(0.15 < gain < 0.27 for gain in gains)
        assert gains[BLOCKS.index(32)] < 8 / 32  # of 64 to 32: a quarter of a bit for each weight
        assert gains[BLOCKS.index(64)] > 8 / 64
        per_weight = {
            name: np.mean(each) / numbers["n_weights"][name] for name, each in numbers["parts"].items()
        }
        assert per_weight["embedding"] > 6 * per_weight["second"]
        assert per_weight["head"] > 1.5 * per_weight["second"]
        assert per_weight["second"] > 1.5 * per_weight["first"]
