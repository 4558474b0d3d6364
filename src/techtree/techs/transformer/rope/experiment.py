"""Trained on short texts, asked on long ones: what the base and its scalings do to what was learned."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import attention
from techtree.techs.transformer.rope import RopeScaling, frequencies, rotate, rotation

N_SYMBOLS, PART, WIDTH, BACK = 32, 8, 32, 4
SHORT, LENGTHS = 32, (32, 64, 128, 256, 512)
N_SAMPLES, RATE = 64, 0.01
LONG = 128
KINDS = ("none", "linear", "llama3")


class Reader(Module):
    """Two heads for the last token: one looks for a symbol, one for the token four places back."""

    def __init__(self, rng: np.random.Generator):
        self.query, self.key = (Linear(N_SYMBOLS, WIDTH, rng) for _ in range(2))
        self.here, self.there = Parameter(rng.normal(size=(1, WIDTH))), Linear(N_SYMBOLS, WIDTH, rng)

    def forward(self, symbols, asked, values, base, scaling=None) -> tuple[Tensor, Tensor]:
        """Return the value of the symbol that is asked for, and that of the token four places back."""
        cos, sin = rotation(np.arange(symbols.shape[1]), WIDTH, base, scaling)
        last, one_hot = (cos[-1:], sin[-1:]), np.eye(N_SYMBOLS)
        tokens, question = Tensor(one_hot[symbols]), Tensor(one_hot[asked][:, None])
        far = attention(
            rotate(self.query(question), *last), rotate(self.key(tokens), cos, sin), Tensor(values)
        )
        near = attention(rotate(self.here, *last), rotate(self.there(tokens), cos, sin), Tensor(values))
        return far[:, 0], near[:, 0]


def texts(rng: np.random.Generator, n: int, length: int):
    """Draw texts in which one symbol occurs once, anywhere, and is asked for; and both answers."""
    asked, place = rng.integers(N_SYMBOLS, size=n), rng.integers(length, size=n)
    symbols = rng.integers(N_SYMBOLS - 1, size=(n, length))
    symbols += symbols >= asked[:, None]
    symbols[np.arange(n), place] = asked
    values = rng.normal(size=(n, length, PART))
    return (symbols, asked, values), values[np.arange(n), place], values[:, -1 - BACK]


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train with several bases on 32 tokens, ask with up to 512, scale, and train on a little.

    Parameters
    ----------
    rng
        Draws weights and texts.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Errors are mean squares; the values have variance 1, so always answering 0 costs 1.
    """
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if scale == 1 else 1)]
    n_steps = max(250, round(600 * scale))
    lengths = LENGTHS if scale == 1 else LENGTHS[:3]
    errors, scaled, trained_on = {}, {}, {}
    for base in (10.0, 100.0, 1e4, 1e6) if scale == 1 else (100.0, 1e4):
        readers = [_train(Reader(np.random.default_rng(seed)), seed, base, n_steps) for seed in seeds]
        errors[f"{base:g}"] = [[_errors(each, base, length) for length in lengths] for each in readers]
        if base == 1e4:
            starts = [each.state_dict() for each in readers]
            for kind in KINDS:
                scaled[kind] = [
                    [_errors(each, base, length, scaling_of(kind, length)) for length in lengths]
                    for each in readers
                ]
            for kind in KINDS if scale == 1 else KINDS[2:]:
                trained_on[kind] = []
                for each, start, seed in zip(readers, starts, seeds, strict=True):
                    each.load_state_dict(start)
                    by = scaling_of(kind, LONG)
                    _train(each, seed + 1, base, n_steps // 6, LONG, by)
                    trained_on[kind].append(_errors(each, base, LONG, by))
    return {
        "errors": errors,
        "scaled": scaled,
        "trained_on": trained_on,
        "longer": {
            f"{base:g}": {str(context): _n_longer(128, base, context) for context in (2048, 32_768)}
            for base in (1e4, 1e6)
        },
        "longer_here": {f"{base:g}": _n_longer(WIDTH, base, SHORT) for base in (10.0, 100.0, 1e4, 1e6)},
        "apart": _score_apart(),
    }


def scaling_of(kind: str, length: int) -> RopeScaling | None:
    """Return the scaling by which a text of this length looks like one of 32 tokens."""
    if kind == "none" or length == SHORT:
        return None
    return RopeScaling(kind, length / SHORT, 1.0, 4.0, SHORT)


def _train(reader, seed, base, n_steps, length=SHORT, scaling=None) -> Reader:
    """Train a reader by Adam on fresh texts."""
    rng = np.random.default_rng(seed)
    moments = [(np.zeros(p.shape), np.zeros(p.shape)) for p in reader.parameters()]
    for step in range(1, n_steps + 1):
        given, far, near = texts(rng, N_SAMPLES, length)
        found = reader(*given, base, scaling)
        (((found[0] - far) ** 2).mean() + ((found[1] - near) ** 2).mean()).backward()
        rate = RATE * min(1, 4 * (1 - step / (n_steps + 1)))
        for p, (mean, square) in zip(reader.parameters(), moments, strict=True):
            mean += 0.1 * (p.grad - mean)
            square += 0.01 * (p.grad**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            p.grad = None
    return reader


def _errors(reader: Reader, base: float, length: int, scaling: RopeScaling | None = None) -> list[float]:
    """Return the errors of both answers: for the symbol, and for four places back."""
    given, far, near = texts(np.random.default_rng(0), 100, length)
    with no_grad():
        found = reader(*given, base, scaling)
    return [float(((a.data - b) ** 2).mean()) for a, b in zip(found, (far, near), strict=True)]


def _n_longer(width: int, base: float, context: int) -> int:
    """Count the pairs whose wavelength is longer than a context."""
    return int((2 * math.pi / frequencies(width, base) > context).sum())


def _score_apart() -> float:
    """Return how far apart the scores of the same two vectors are at one distance, wherever they stand."""
    rng = np.random.default_rng(0)
    q, k = (Tensor(rng.normal(size=(1, 64))) for _ in range(2))
    scores = [
        float(
            (
                rotate(q, *rotation(np.array([s + 5]), 64)).data
                * rotate(k, *rotation(np.array([s]), 64)).data
            ).sum()
        )
        for s in (0, 1, 100, 10_000)
    ]
    return max(scores) - min(scores)


def plot(numbers: dict):
    """Draw the error of the far question by length, by base; and what scalings do to both questions."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for place, (base, found) in enumerate(numbers["errors"].items()):
        color = f"C{place}"
        name = {"10": "10", "100": "100", "10000": "10,000", "1e+06": "1,000,000"}[base]
        for each in found:
            left.plot(LENGTHS[: len(each)], [far for far, _ in each], color=color, alpha=0.3, lw=1)
        mean = np.mean(found, axis=0)[:, 0]
        left.plot(LENGTHS[: len(mean)], mean, color=color, marker=".", label=f"base {name}")
    found = np.mean(numbers["scaled"]["llama3"], axis=0)[:, 0]
    left.plot(LENGTHS[: len(found)], found, color="0.3", ls="--", label="10,000, scaled")
    left.set(xlabel="tokens when asked, after training on 32", ylabel="error, looking for a symbol")
    left.set(xscale="log", ylim=(-0.03, 1.6))
    left.set_xticks(LENGTHS, [str(each) for each in LENGTHS])
    left.minorticks_off()
    left.legend(fontsize=8, ncols=2, loc="upper left")
    names = {"none": "unscaled", "linear": "linear", "llama3": "llama3"}
    at = LENGTHS.index(LONG)
    for place, kind in enumerate(KINDS):
        before = np.mean(numbers["scaled"][kind], axis=0)[at]
        after = np.mean(numbers["trained_on"].get(kind, [[0, 0]]), axis=0)
        for shift, values, alpha in ((-0.2, before, 1.0), (0.2, after, 0.45)):
            for side, value, color in ((-0.09, values[0], "C0"), (0.09, values[1], "C1")):
                right.bar(place + shift + side, value, 0.17, color=color, alpha=alpha)
    right.bar(0, 0, color="C0", label="looking for a symbol")
    right.bar(0, 0, color="C1", label="four places back")
    right.bar(0, 0, color="0.7", label="pale: after a few steps on 128")
    right.set_xticks(range(3), [names[kind] for kind in KINDS])
    right.set(ylabel=f"error at {LONG} tokens, base 10,000", ylim=(0, 1.6))
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: small bases lose symbols far away, large ones neighbours; scaling finds both again."""
    is_full = "10" in numbers["errors"]
    found = {base: np.array(each) for base, each in numbers["errors"].items()}  # (seeds, lengths, questions)
    scaled = {kind: np.array(each) for kind, each in numbers["scaled"].items()}
    after = {kind: np.array(each) for kind, each in numbers["trained_on"].items()}
    short, long = LENGTHS.index(SHORT), LENGTHS.index(LONG)
    assert numbers["apart"] < 1e-9
    assert numbers["longer"]["10000"] == {"2048": 23, "32768": 4}
    assert numbers["longer"]["1e+06"]["32768"] == 24
    assert numbers["longer_here"] == {"10": 4, "100": 10, "10000": 13, "1e+06": 14}
    assert (found["100"][:, long, 0] > 0.55).all()
    assert (found["10000"][:, long, 0] < 0.6 * found["100"][:, long, 0]).all()
    assert max(found[base][:, short, 0].max() for base in ("100", "10000")) < 0.05
    for kind in ("linear", "llama3"):
        assert (scaled[kind][:, long, 0] < 0.2 * scaled["none"][:, long, 0]).all()
    assert (scaled["linear"][:, long, 1] > 1).all()
    assert (scaled["llama3"][:, long, 1] < 0.6).all()
    assert (after["llama3"][:, 1] < 0.5 * scaled["llama3"][:, long, 1]).all()
    if is_full:
        assert (found["10"][:, short, 0] > 0.6).all()
        assert max(found[base][:, short, 0].max() for base in ("100", "10000", "1e+06")) < 0.01
        assert ((found["10000"][:, long, 0] > 0.15) & (found["10000"][:, long, 0] < 0.35)).all()
        assert (found["1e+06"][:, long, 0] < 0.1).all()
        assert (found["10000"][:, -1, 0] > 0.7).all()
        assert ((found["1e+06"][:, -1, 0] > 0.4) & (found["1e+06"][:, -1, 0] < 0.65)).all()
        near = [found[base][:, short, 1].mean() for base in ("10", "100", "10000", "1e+06")]
        assert near == sorted(near)
        assert near[-1] > 3 * near[0]
        assert near[-1] < 0.01
        assert (found["100"][:, -1, 1] < 0.01).all()
        assert (found["1e+06"][:, -1, 1] > 0.1).all()
        assert max(scaled[kind][:, long, 0].max() for kind in ("linear", "llama3")) < 0.01
        assert (scaled["linear"][:, long, 1] > 1.1).all()
        assert ((scaled["llama3"][:, long, 1] > 0.02) & (scaled["llama3"][:, long, 1] < 0.6)).all()
        assert (after["none"] < 0.02).all()
        assert (after["llama3"] < 0.02).all()
        assert (after["linear"][:, 0] < 0.01).all()
        assert (after["linear"][:, 1] > 1).all()
