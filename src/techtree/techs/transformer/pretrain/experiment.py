"""A GPT and counts learn the same part of the standard library; files that neither has seen judge them."""

import math
from itertools import pairwise

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.text.bpe import BPE
from techtree.techs.text.causal_lm import bits_per_byte, next_token_pairs, pack
from techtree.techs.text.ngram_lm import NgramLM
from techtree.techs.text.ngram_lm import bits_per_byte as bits_of
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.transformer.gpt import GPT, GPTConfig
from techtree.techs.transformer.pretrain import Prepared, Recipe, prepare, pretrain

VOCAB_SIZE, LENGTH = 2048, 64
WIDTH, N_LAYERS, N_HEADS = 128, 2, 4
TRAINING_BYTES, FILE_BYTES = 800_000, 9_000
HELD_OUT_BYTES, N_HELD_OUT = 3_000, 24
MAX_ORDER = 6
RECIPE = Recipe(n_steps=950, batch_size=12, n_warmup=50, matrix_rate=0.04, rate=0.006)


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train a GPT, count the same texts, and measure both on held-out files.

    Parameters
    ----------
    rng
        Draws the weights and the choice of files.
    scale
        1 for the whole run; less makes a small model and a small corpus.

    Returns
    -------
    dict
        Losses in bits per token, bits per byte by model, and bits per token by the place in a row.
    """
    is_full = scale == 1
    seed = int(rng.integers(2**31))
    texts = [text[:FILE_BYTES] for text in standard_library()]
    n_bytes, files = 0, {}
    for i in rng.permutation(len(texts)):
        if n_bytes < TRAINING_BYTES * scale * 1.15:
            files[f"{i}.py"] = texts[i]
            n_bytes += len(texts[i])
    made = prepare(files, VOCAB_SIZE if is_full else 300, LENGTH if is_full else 32, 0.15, seed)
    unseen = [files[name][:HELD_OUT_BYTES] for name in made.held_out[:N_HELD_OUT]]
    size = (WIDTH, N_LAYERS, N_HEADS) if is_full else (32, 1, 2)
    n_tokens = max(made.tokenizer.vocab) + 1
    length = made.rows.shape[1] - 1
    model = GPT(GPTConfig(n_tokens, length, *size), np.random.default_rng(seed), np.float32)
    recipe = RECIPE if is_full else Recipe(60, n_warmup=5, matrix_rate=0.04, rate=0.006)
    losses = pretrain(model, made.rows, recipe)
    counts = _counts(made, files, unseen)
    return {
        "n_weights": sum(each.data.size for each in model.parameters()),
        "n_files": [len(made.train), len(made.held_out)],
        "training_bytes": sum(len(files[name].encode("utf-8")) for name in made.train),
        "training_tokens": int((made.rows.shape[0]) * length),
        "seen_tokens": recipe.n_steps * recipe.batch_size * length,
        "losses": [each / math.log(2) for each in losses],
        "gpt": bits_per_byte(model, unseen, made.tokenizer, length, 0),
        "counts": {"tokens": counts[0], "bytes": counts[1]},
        "by_place": _by_place(model, made.tokenizer, unseen, length),
        "counts_by_place": counts[2],
        "uniform": _uniform(n_tokens, made.tokenizer, unseen),
    }


def _counts(
    made: Prepared, files: dict[str, str], unseen: list[str]
) -> tuple[list[float], list[float], float]:
    """Return bits per byte by order, on our tokens and on bytes; and the best bits per token on ours."""
    n_tokens = max(made.tokenizer.vocab) + 1
    training = [files[name] for name in made.train]
    found = []
    for encode, n, end in ((made.tokenizer.encode, n_tokens, 0), (_as_bytes, 257, 256)):
        model = NgramLM(MAX_ORDER, n, end)
        for text in training:
            model.count([*encode(text), end])
        scores = np.concatenate([model.score([*encode(text), end]) for text in unseen], axis=1)
        found.append([bits_of(row, "".join(unseen)) for row in scores])
    n_tokens = sum(len(made.tokenizer.encode(text)) + 1 for text in unseen)
    per_byte = n_tokens / sum(len(text.encode("utf-8")) for text in unseen)
    return found[0], found[1], min(found[0]) / per_byte


def _as_bytes(text: str) -> list[int]:
    return list(text.encode("utf-8"))


def _uniform(n_tokens: int, tokenizer: BPE, unseen: list[str]) -> float:
    n = sum(len(tokenizer.encode(text)) + 1 for text in unseen)
    return n * math.log2(n_tokens) / sum(len(text.encode("utf-8")) for text in unseen)


def _by_place(model: GPT, tokenizer: BPE, unseen: list[str], length: int) -> list[float]:
    """Return the mean bits per token at each place of a row, for rows that begin anywhere in a file."""
    total, counted = np.zeros(length), np.zeros(length)
    for text in unseen:
        rows = pack([tokenizer.encode(text)], length // 4, 0)[:, :-1].ravel()
        starts = np.arange(0, max(1, len(rows) - length), length // 4)
        places = starts[:, None] + np.arange(length + 1)
        batch = np.append(rows, np.zeros(length + 1, np.int64))[places]
        inputs, targets = next_token_pairs(batch, 0)
        with no_grad():
            each = cross_entropy(model(inputs), targets, reduction="none").data
        total += each.sum(axis=0, dtype=np.float64)
        counted += (targets >= 0).sum(axis=0)
    return (total / np.maximum(counted, 1) / math.log(2)).tolist()


def plot(numbers: dict):
    """Draw the training loss, both models' bits per byte, and the bits by the place in a row."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2))
    losses = np.array(numbers["losses"])
    width = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    left.plot(losses, color="0.85")
    left.plot(np.arange(len(smooth)) + width, smooth, "C0")
    left.set(xlabel="step", ylabel="training loss, bits per token")
    orders = range(1, MAX_ORDER + 1)
    middle.plot(orders, numbers["counts"]["bytes"], "C1o-", label="counts of bytes")
    middle.plot(orders, numbers["counts"]["tokens"], "C2o-", label="counts of tokens")
    middle.axhline(numbers["gpt"], color="C0", label="GPT")
    middle.set(xlabel="order of the counts", ylabel="bits per byte of held-out files")
    middle.legend()
    places = np.array(numbers["by_place"])
    edges = np.unique(np.round(np.geomspace(1, len(places), 12)).astype(int))
    means = [places[a - 1 : b - 1].mean() for a, b in pairwise(edges.tolist())]
    right.plot(edges[:-1], means, "C0o-")
    right.axhline(numbers["counts_by_place"], color="C2", ls="--")
    right.text(
        len(places), numbers["counts_by_place"] + 0.02, "best counts", color="C2", ha="right", va="bottom"
    )
    right.set(xlabel="tokens that are seen", ylabel="bits per token", xscale="log")
    ticks = [each for each in (1, 3, 10, 30, 100) if each <= len(places)]
    right.set_xticks(ticks, [f"{each}" for each in ticks])
    right.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: the GPT beats all counts of the same text, and by what it sees beyond a few tokens."""
    losses = np.array(numbers["losses"])
    best = min(*numbers["counts"]["tokens"], *numbers["counts"]["bytes"])
    assert losses[-10:].mean() < losses[0] - 1
    assert numbers["gpt"] < numbers["uniform"] - 0.3
    assert numbers["gpt"] < numbers["counts"]["tokens"][0]
    if len(losses) >= 500:
        places = np.array(numbers["by_place"])
        assert numbers["gpt"] < best - 0.05
        assert int(np.argmin(numbers["counts"]["tokens"])) == 2
        assert int(np.argmin(numbers["counts"]["bytes"])) == 4
        assert min(numbers["counts"]["tokens"]) < min(numbers["counts"]["bytes"]) - 0.1
        assert places[0] > numbers["counts_by_place"] + 0.2
        assert places[8:16].mean() < numbers["counts_by_place"] - 0.1
        assert places[-16:].mean() < places[8:16].mean() - 0.04
        assert 2.5 < numbers["seen_tokens"] / numbers["training_tokens"] < 3
        bytes_per_token = numbers["training_bytes"] / numbers["training_tokens"]
        assert abs(bytes_per_token - 3.05) < 0.1
        assert losses[-100:].mean() / bytes_per_token < min(1.8, numbers["gpt"] - 0.3)
        assert abs(losses[0] - 11) < 0.2
        assert abs(losses[-100:].mean() - 5.2) < 0.3
