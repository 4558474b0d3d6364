"""What shared keys and values save, counted; and what they lose, by what is looked up."""

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.gqa import GroupedQueryAttention

PART, N_TOKENS, N_HEADS = 8, 8, 4
KV_HEADS, KINDS = (4, 2, 1), (1, 2, 4)
N_SAMPLES, RATE = 64, 0.01


def lookups(rng: np.random.Generator, n: int, n_kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw texts whose last token asks four questions.

    Each token has a key and a value, 8 numbers each, of one, two or four kinds; a question is a key, and its
    answer the value of the same kind. With two kinds, two questions ask for each.
    """
    keys = rng.normal(size=(n, N_TOKENS, n_kinds, PART))
    keys *= np.sqrt(PART) / np.linalg.norm(keys, axis=-1, keepdims=True)
    values = rng.normal(size=(n, N_TOKENS, n_kinds, PART))
    sample, kind = np.arange(n)[:, None], np.arange(N_HEADS) * n_kinds // N_HEADS
    asked = np.array([rng.permutation(N_TOKENS - 1)[:N_HEADS] for _ in range(n)])
    questions = np.zeros((n, N_TOKENS, N_HEADS * PART))
    questions[:, -1] = keys[sample, asked, kind].reshape(n, -1)
    x = np.concatenate([keys.reshape(n, N_TOKENS, -1), values.reshape(n, N_TOKENS, -1), questions], axis=-1)
    return x, values[sample, asked, kind].reshape(n, -1)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train modules with 4, 2 and 1 heads of keys on one, two and four kinds of things.

    Parameters
    ----------
    rng
        Draws weights and texts.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Errors are mean squares over the last tenth of the steps; always answering 0 costs 1.
    """
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if scale == 1 else 2)]
    n_steps = max(400, round(600 * scale))
    pairs = [(n_kinds, n) for n_kinds in KINDS for n in KV_HEADS] if scale == 1 else [(1, 1), (2, 1)]
    return {
        "errors": {
            f"{n_kinds} kinds, {n} heads": [_train(seed, n_kinds, n, n_steps) for seed in seeds]
            for n_kinds, n in pairs
        },
        "n_weights": {str(n): _n_weights(n) for n in (8, 4, 2)},
        "bytes": {str(n): kept_bytes(32, n, 128) for n in (32, 8, 1)},
    }


def kept_bytes(n_layers: int, n_kv_heads: int, head_width: int) -> int:
    """Count the bytes of keys and values that a model keeps for each token, two bytes a number."""
    return 2 * n_layers * n_kv_heads * head_width * 2


def _train(seed: int, n_kinds: int, n_kv_heads: int, n_steps: int) -> float:
    """Train a module by Adam on fresh texts, and return its error at the end."""
    rng = np.random.default_rng(seed)
    width = (2 * n_kinds + N_HEADS) * PART
    layer = GroupedQueryAttention(width, N_HEADS, n_kv_heads, rng, head_width=PART)
    moments = [(np.zeros(p.shape), np.zeros(p.shape)) for p in layer.parameters()]
    losses = []
    for step in range(1, n_steps + 1):
        x, y = lookups(rng, N_SAMPLES, n_kinds)
        error = ((layer(Tensor(x))[:, -1, : N_HEADS * PART] - y) ** 2).mean()
        error.backward()
        losses.append(float(error.data))
        rate = RATE * min(1, 4 * (1 - step / (n_steps + 1)))
        for p, (mean, square) in zip(layer.parameters(), moments, strict=True):
            assert p.grad is not None
            mean += 0.1 * (p.grad - mean)
            square += 0.01 * (p.grad**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            p.grad = None
    return float(np.mean(losses[-n_steps // 10 :]))


def _n_weights(n_kv_heads: int) -> int:
    layer = GroupedQueryAttention(64, 8, n_kv_heads, np.random.default_rng(0))
    return sum(p.data.size for p in layer.parameters())


def plot(numbers: dict):
    """Draw the error by what is kept for each token, one line for one, two and four kinds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4))
    for place, n_kinds in enumerate(KINDS):
        found = [(n, numbers["errors"].get(f"{n_kinds} kinds, {n} heads")) for n in KV_HEADS]
        found = [(n, each) for n, each in found if each]
        for n, each in found:
            axes.plot([n] * len(each), each, f"C{place}.", alpha=0.5)
        label = f"{n_kinds} kinds of keys" if n_kinds > 1 else "one kind of keys"
        axes.plot([n for n, _ in found], [min(each) for _, each in found], f"C{place}", label=label)
    axes.set_xticks(KV_HEADS, [f"{n}\n({2 * n * PART} numbers)" for n in KV_HEADS])
    axes.set(xlabel="heads of keys and values (kept for each token)", ylabel="error of four query heads")
    axes.set(ylim=(-0.03, 1.0), xlim=(4.2, 0.8), title="lines: the best of three runs")
    axes.legend(loc="upper left")
    return figure


def claim(numbers: dict) -> None:
    """README.md: what is kept must hold all that is looked up; the rest of the heads can share."""
    errors = {name: np.array(each) for name, each in numbers["errors"].items()}
    assert numbers["bytes"] == {"32": 524_288, "8": 131_072, "1": 16_384}
    assert numbers["n_weights"] == {"8": 4 * 64 * 64, "4": 3 * 64 * 64, "2": 5 * 64 * 64 // 2}
    is_full = len(errors) == 9
    for name, each in errors.items():
        n_kinds, n = int(name.split()[0]), int(name.split()[2])
        missing = max(0.0, 1 - n / n_kinds)
        assert abs(each.min() - missing) < (0.03 if is_full else 0.1), name
        assert each.max() < missing + 0.3, name  # at most one question more is lost
