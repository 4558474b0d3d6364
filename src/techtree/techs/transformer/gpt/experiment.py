"""What tying costs or gains by the size of the vocabulary, and what the first weights' sizes do."""

import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.text.bpe import BPE, train
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.gpt import GPT, GPTConfig

VOCABULARIES = (256, 1024, 4096)
STDS = (0.002, 0.02, 0.2, 1.0)
DEPTHS = (1, 2, 4, 8, 16, 32)
WIDTH, N_TOKENS, N_SAMPLES, N_STEPS, RATE = 48, 32, 16, 250, 0.004
WIDER = {256: 52, 512: 56, 1024: 60, 4096: 72}
"""Widths at which a tied model has about as many weights as an untied one of 48."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train tied and untied models on three vocabularies, and models with tables of several sizes.

    Parameters
    ----------
    rng
        Draws files, weights and windows: the same windows for all models that are compared.
    scale
        The share of the full number of steps, in (0, 1]; below 1 also smaller vocabularies and fewer models.

    Returns
    -------
    dict
        Ready for JSON. Bits per byte of held-out text and weights, by vocabulary and kind of model; first and
        last loss, in bits per byte, by the tables' standard deviation; first loss of a model of width 768;
        the size of the stream behind all blocks, by depth and gain.
    """
    is_full = scale == 1
    files = standard_library()
    everything = "".join(files[n] for n in rng.permutation(len(files)))
    n_chars = 600_000 if is_full else 40_000
    text, held_out = everything[:n_chars], everything[-n_chars // 10 :]
    seed = int(rng.integers(2**32))
    n_steps = max(20, round(N_STEPS * scale))
    vocabularies = VOCABULARIES if is_full else (512,)
    merges = train([text[: n_chars // 2]], max(vocabularies)).merges
    losses, weights = ({name: [] for name in ("tied", "tied, wider", "untied")} for _ in range(2))
    for size in vocabularies:
        coder = BPE(merges[: size - 256])
        ids, unseen = (np.array(coder.encode(each)) for each in (text, held_out))
        tokens_per_byte = len(unseen) / len(held_out.encode())
        for name in losses:
            width = WIDER[size] if "wider" in name else WIDTH
            model, _ = fit(ids, size, width, name != "untied", 0.02, seed, n_steps)
            losses[name].append(held_out_loss(model, unseen) * tokens_per_byte)
            weights[name].append(sum(p.data.size for p in model.parameters()))
    ids = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    stds = STDS if is_full else (0.02, 1.0)
    curves = [fit(ids, 256, WIDTH, True, std, seed, n_steps)[1] for std in stds]
    depths = DEPTHS if is_full else (1, 8)
    return {
        "vocabularies": list(vocabularies),
        "losses": losses,
        "weights": weights,
        "stds": list(stds),
        "first": [curve[0] for curve in curves],
        "last": [float(np.mean(curve[-max(1, n_steps // 10) :])) for curve in curves],
        "first_at_768": [fit(ids, 256, 768, True, std, seed, 1)[1][0] for std in stds] if is_full else [],
        "depths": list(depths),
        "stream": {
            name: [stream(depth, name == "1", np.random.default_rng(seed)) for depth in depths]
            for name in ("1 / sqrt(2 L)", "1")
        },
    }


def fit(
    ids: np.ndarray, n_tokens: int, width: int, is_tied: bool, std: float, seed: int, n_steps: int
) -> tuple[GPT, list[float]]:
    """Train a small model on windows of a text; return it, and its loss at each step in bits per token."""
    config = GPTConfig(n_tokens, N_TOKENS, width, n_layers=2, n_heads=4, is_tied=is_tied)
    model = GPT(config, np.random.default_rng([seed, 1]), np.float32)
    for table in (model.token_embedding, model.position_embedding):
        table.weight.data *= std / 0.02
    optimizer = AdamW(model.parameters(), RATE)
    rng, losses = np.random.default_rng(seed), []
    for step in range(n_steps):
        starts = rng.integers(len(ids) - N_TOKENS - 1, size=N_SAMPLES)
        windows = ids[starts[:, None] + np.arange(N_TOKENS + 1)]
        optimizer.zero_grad()
        loss = cross_entropy(model(windows[:, :-1]), windows[:, 1:])
        loss.backward()
        for group in optimizer.groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10, 2 * (1 - step / n_steps))
        optimizer.step()
        losses.append(float(loss.data) / math.log(2))
    return model, losses


def held_out_loss(model: GPT, ids: np.ndarray) -> float:
    """Return the mean loss of windows that lie beside each other, in bits per token."""
    windows = ids[: len(ids) - (len(ids) - 1) % N_TOKENS]
    x, y = windows[:-1].reshape(-1, N_TOKENS)[:500], windows[1:].reshape(-1, N_TOKENS)[:500]
    with no_grad():
        return float(cross_entropy(model(x), y).data) / math.log(2)


def stream(depth: int, is_plain: bool, rng: np.random.Generator) -> float:
    """Return the root mean square of the stream behind the last block of a fresh model."""
    model = GPT(GPTConfig(256, N_TOKENS, WIDTH, depth, n_heads=4), rng)
    if is_plain:
        for block in model.blocks:
            for layer in (block.attention.output, block.feed_forward.down):
                layer.weight.data *= math.sqrt(2 * depth)
    with no_grad():
        x = model.token_embedding(rng.integers(256, size=(8, N_TOKENS))) + model.position_embedding(N_TOKENS)
        for block in model.blocks:
            x = block(x, causal_mask(N_TOKENS, N_TOKENS))
    return float(np.sqrt((x.data**2).mean()))


def plot(numbers: dict):
    """Draw bits per byte by vocabulary, loss by the tables' size, and the stream by depth."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.3))
    sizes = range(len(numbers["vocabularies"]))
    for (name, found), style in zip(numbers["losses"].items(), ("C0.-", "C0.--", "C1.-"), strict=True):
        left.plot(sizes, found, style, label=name)
    left.set_xticks(sizes, [f"{n:,}" for n in numbers["vocabularies"]])
    left.set(xlabel="vocabulary", ylabel="bits per byte of unseen text")
    left.legend()
    middle.plot(
        numbers["stds"], numbers["first_at_768"] or numbers["first"], "C7.:", label="first, width 768"
    )
    middle.plot(numbers["stds"], numbers["first"], "C3.-", label="first")
    middle.plot(numbers["stds"], numbers["last"], "C2.-", label="after 250 steps")
    middle.axhline(8, color="C7", lw=0.8)
    middle.text(0.002, 8.4, "log2(256)", color="C7", va="bottom")
    middle.set(xscale="log", yscale="log", xlabel="standard deviation of the tables", ylabel="bits per byte")
    middle.set_xticks(numbers["stds"], [f"{std:g}" for std in numbers["stds"]])
    middle.set_yticks([4, 16, 64, 256], ["4", "16", "64", "256"])
    middle.minorticks_off()
    middle.legend(loc="upper left")
    for (name, found), color in zip(numbers["stream"].items(), ("C0", "C3"), strict=True):
        right.plot(numbers["depths"], found, f"{color}.-", label=f"gain {name}")
    right.set(xscale="log", xlabel="blocks", ylabel="size of the stream behind them")
    right.set_xticks(numbers["depths"], [f"{n}" for n in numbers["depths"]])
    right.minorticks_off()
    right.legend()
    return figure


def claim(numbers: dict) -> None:
    """README.md: what tying costs and saves, where the first loss lies, how the stream grows."""
    stream = {name: np.array(found) for name, found in numbers["stream"].items()}
    assert (stream["1 / sqrt(2 L)"] < 0.9).all()
    growth = stream["1"][-1] / stream["1"][0]
    assert growth > 0.8 * math.sqrt(numbers["depths"][-1] / numbers["depths"][0])
    first = dict(zip(numbers["stds"], numbers["first"], strict=True))
    assert abs(first[0.02] - 8) < 0.1
    assert first[1.0] > 30
    losses = {name: np.array(found) for name, found in numbers["losses"].items()}
    gained, gained_wider = (losses[name] - losses["untied"] for name in ("tied", "tied, wider"))
    weights = {name: np.array(found) for name, found in numbers["weights"].items()}
    assert (np.abs(weights["tied, wider"] / weights["untied"] - 1) < 0.08).all()
    if len(numbers["stds"]) < len(STDS):
        return
    assert 0.85 < losses["tied"][0] - losses["tied"][2] < 1.6
    assert stream["1"][-1] > 6
    assert 0 < gained[0] < 0.2
    assert 0.03 < gained[1] < 0.17
    assert 0 < gained[2] < 0.07
    assert 0.04 < gained_wider[1] < 0.1
    assert -0.03 < gained_wider[2] < 0.07
    more = weights["untied"] / weights["tied"]
    assert np.allclose(more, [1.17, 1.46, 1.77], atol=0.01)
    last = dict(zip(numbers["stds"], numbers["last"], strict=True))
    assert last[0.2] < last[0.02] - 0.15
    assert last[1.0] > last[0.2] + 0.15
    wide = dict(zip(numbers["stds"], numbers["first_at_768"], strict=True))
    assert abs(wide[0.02] - 8) < 0.5
    assert wide[0.2] > 40
