"""Two things from two places, by as many heads as you like at the same number of weights."""

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.transformer.attention import attention_weights
from techtree.techs.transformer.mha import MultiHeadAttention, split_heads

WIDTH, N_TOKENS, PART = 32, 10, 8
HEADS = (1, 2, 4, 8, 16, 32)
N_SAMPLES, RATE = 64, 0.01


def lookups(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw texts in which the last token asks for the values of two others.

    Returns
    -------
    x, y
        (n, T, 32) tokens: a key, the two keys that are asked for (in the last token only), a value, 8 numbers
        each; and (n, 16), the two values.
    """
    keys = rng.normal(size=(n, N_TOKENS, PART))
    keys *= np.sqrt(PART) / np.linalg.norm(keys, axis=-1, keepdims=True)
    values = rng.normal(size=(n, N_TOKENS, PART))
    asked = np.array([rng.permutation(N_TOKENS - 1)[:2] for _ in range(n)])
    questions = np.zeros((n, N_TOKENS, 2 * PART))
    questions[:, -1] = np.take_along_axis(keys, asked[..., None], 1).reshape(n, -1)
    x = np.concatenate([keys, questions, values], axis=-1)
    return x, np.take_along_axis(values, asked[..., None], 1).reshape(n, -1)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train modules with 1 to 32 heads on two lookups, and look at where the last token looks.

    Parameters
    ----------
    rng
        Draws weights and texts.
    scale
        The share of the full number of steps, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON. Errors are mean squares over the last tenth of the steps; the values have variance 1.
    """
    seeds = [int(seed) for seed in rng.integers(2**32, size=3 if scale == 1 else 1)]
    n_steps = max(250, round(600 * scale))
    heads = HEADS if scale == 1 else (1, 2, 4, 16)
    errors, weights = {}, {}
    for n_heads in heads:
        found = [_train(np.random.default_rng(seed), n_heads, n_steps) for seed in seeds]
        errors[str(n_heads)] = [float(np.mean(losses[-n_steps // 10 :])) for _, losses in found]
        if n_heads <= 2:
            weights[str(n_heads)] = [_where_to(layer) for layer, _ in found]
    return {
        "errors": errors,
        "weights": weights,
        "n_weights": {str(n): _n_weights(n) for n in heads},
    }


def _train(rng: np.random.Generator, n_heads: int, n_steps: int) -> tuple[MultiHeadAttention, list[float]]:
    """Return a module trained by Adam on fresh texts, and its error at each step."""
    layer = MultiHeadAttention(WIDTH, n_heads, rng)
    moments = [(np.zeros(p.shape), np.zeros(p.shape)) for p in layer.parameters()]
    losses = []
    for step in range(1, n_steps + 1):
        x, y = lookups(rng, N_SAMPLES)
        error = ((layer(Tensor(x))[:, -1, : 2 * PART] - y) ** 2).mean()
        error.backward()
        losses.append(float(error.data))
        rate = RATE * min(1, 4 * (1 - step / (n_steps + 1)))
        for p, (mean, square) in zip(layer.parameters(), moments, strict=True):
            assert p.grad is not None
            mean += 0.1 * (p.grad - mean)
            square += 0.01 * (p.grad**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
            p.grad = None
    return layer, losses


def _where_to(layer: MultiHeadAttention) -> list[list[float]]:
    """Return the weights of each head's last token on the first asked token, the second, and all others."""
    x, _ = lookups(np.random.default_rng(0), 200)
    with no_grad():
        q, k = (split_heads(each(Tensor(x)), layer.n_heads) for each in (layer.query, layer.key))
        weights = attention_weights(q, k).data[:, :, -1]  # (n, H, T)
    keys, questions = x[..., :PART], x[:, -1, PART : 3 * PART].reshape(-1, 2, PART)
    asked = np.abs(keys[:, None] - questions[:, :, None]).sum(axis=-1).argmin(axis=-1)  # (n, 2)
    found = np.take_along_axis(weights, asked[:, None, :], axis=2).mean(axis=0)  # (H, 2)
    return [[*map(float, each), float(1 - each.sum())] for each in found]


def _n_weights(n_heads: int) -> int:
    layer = MultiHeadAttention(WIDTH, n_heads, np.random.default_rng(0))
    return sum(p.data.size for p in layer.parameters())


def plot(numbers: dict):
    """Draw the error by the number of heads, and where one head and two heads look."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    errors = {int(n): found for n, found in numbers["errors"].items()}
    for n, found in errors.items():
        left.plot([n] * len(found), found, "C0.", alpha=0.6)
    left.plot(list(errors), [np.mean(found) for found in errors.values()], "C0")
    left.axhline(0.5, color="C3", ls=":")
    left.text(2, 0.53, "one of the two values only", color="C3", va="bottom")
    left.axhline(1.0, color="C7", ls=":")
    left.text(1, 1.06, "always 0", color="C7", va="bottom")
    left.set(xlabel="heads, at 4,224 weights", ylabel="mean square error", xscale="log", yscale="log")
    left.set_xticks(list(errors), [f"{n}" for n in errors])
    rows = [("one head", numbers["weights"]["1"][0][0])]
    rows += [
        (f"two heads: {name}", each) for name, each in zip("ab", numbers["weights"]["2"][0], strict=True)
    ]
    for place, (first, second, rest) in enumerate(each for _, each in rows):
        right.barh(-place, first, color="C0", label="first asked" if not place else None)
        right.barh(-place, second, left=first, color="C1", label="second asked" if not place else None)
        right.barh(-place, rest, left=first + second, color="0.8", label="others" if not place else None)
    right.set_yticks([0, -1, -2], [name for name, _ in rows])
    right.set(xlabel="weight of the last token", xlim=(0, 1), ylim=(-2.6, 1.1))
    right.legend(loc="upper center", ncols=3)
    return figure


def claim(numbers: dict) -> None:
    """README.md: one head decides for one value, two or four get both, narrow ones fail."""
    errors = {int(n): np.array(found) for n, found in numbers["errors"].items()}
    assert set(numbers["n_weights"].values()) == {4 * (WIDTH * WIDTH + WIDTH)}
    assert ((errors[1] > 0.49) & (errors[1] < 0.6)).all()
    assert max(errors[2].max(), errors[4].max()) < 0.05
    assert (errors[16] > 0.35).all()
    if 32 in errors:
        assert max(errors[2].max(), errors[4].max()) < 0.01
        assert ((errors[8] > 0.1) & (errors[8] < 0.3)).all()
        assert ((errors[32] > 0.6) & (errors[32] < 0.85)).all()
    for ((first, second, rest),) in numbers["weights"]["1"]:
        assert max(first, second) > 0.9  # it decides for one
        assert abs(first + second + rest - 1) < 1e-9
    for heads in numbers["weights"]["2"]:
        # One head has the first, the other one the second.
        assert max(min(heads[0][0], heads[1][1]), min(heads[0][1], heads[1][0])) > 0.9
