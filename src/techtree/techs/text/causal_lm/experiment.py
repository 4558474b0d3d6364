"""A small model of code: with answers at the wrong place, in rows of many lengths, packed and not."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.text.bpe import BPE
from techtree.techs.text.causal_lm import bits_per_byte, loss, next_token_pairs, pack
from techtree.techs.text.ngram_lm import NgramLM
from techtree.techs.text.ngram_lm import bits_per_byte as bits_of
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import BatchStream, DataLoader

TOKENIZER = BPE([], {"<end>": 0})
"""Its tokens are bytes."""

VOCAB_SIZE, END = 257, 0
CONTEXT, WIDTH = 4, 48
LENGTH, N_ROWS = 64, 32
LENGTHS = (4, 8, 16, 32, 64, 128)
PACKED_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)


class Window(Module):
    """Logits from the token of a place and the ones before it: a matrix for each distance."""

    def __init__(self, rng: np.random.Generator):
        self.embedding = Parameter((rng.normal(size=(VOCAB_SIZE + 1, WIDTH)) * 0.3).astype(np.float32))
        size = (CONTEXT, WIDTH, WIDTH)
        self.mixers = Parameter((rng.normal(size=size) / np.sqrt(CONTEXT * WIDTH)).astype(np.float32))
        self.head = Parameter((rng.normal(size=(WIDTH, VOCAB_SIZE)) * 0.05).astype(np.float32))

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return logits (..., T, 257); before the row stands a token of its own."""
        before = np.full((*ids.shape[:-1], CONTEXT - 1), VOCAB_SIZE)
        padded = np.concatenate([before, ids], axis=-1)
        n = ids.shape[-1]
        mixed = self.embedding[ids] @ self.mixers[0]
        for distance in range(1, CONTEXT):
            first = CONTEXT - 1 - distance
            mixed = mixed + self.embedding[padded[..., first : first + n]] @ self.mixers[distance]
        return ((mixed + (mixed * mixed) * 0.5) @ self.head) * 1.0


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Train with answers one place further and with none, measure in rows of many lengths, and count places.

    Parameters
    ----------
    rng
        Draws weights and orders.
    scale
        The share of the steps, in (0, 1].

    Returns
    -------
    dict
        Losses in bits per token for each step; bits per byte of unseen files; shares of places that count.
    """
    files = standard_library()
    seed = int(rng.integers(2**32))
    n_files = max(12, round(len(files) * scale))
    chosen = [files[i] for i in rng.permutation(len(files))[:n_files]]
    training = [text[:4000] for text in chosen[n_files // 6 :]]
    unseen = [text[:1000] for text in chosen[: min(n_files // 6, 12)]]
    rows = pack([TOKENIZER.encode(text) for text in training], LENGTH, END)
    n_steps = max(40, round(600 * scale))
    right, losses = _train(np.random.default_rng(seed), rows, seed, n_steps, is_shifted=True)
    wrong, wrong_losses = _train(np.random.default_rng(seed), rows, seed, n_steps, is_shifted=False)
    by_length = [bits_per_byte(right, unseen, TOKENIZER, length, END, 32) for length in LENGTHS]
    documents = [each for text in training for each in _definitions(text)]
    return {
        "losses": losses,
        "wrong_losses": wrong_losses,
        "lengths": list(LENGTHS),
        "bits": by_length,
        "wrong_bits": bits_per_byte(wrong, unseen, TOKENIZER, LENGTH, END, 32),
        "counted_bits": _counted(training, unseen),
        "packed_lengths": list(PACKED_LENGTHS),
        "packed": [_share(pack(documents, length, END)) for length in PACKED_LENGTHS],
        "padded": [_padded_share(documents, length) for length in PACKED_LENGTHS],
        "n_documents": len(documents),
        "median": float(np.median([len(each) for each in documents])),
    }


def _train(
    rng: np.random.Generator, rows: np.ndarray, seed: int, n_steps: int, is_shifted: bool
) -> tuple[Window, list[float]]:
    """Return a model trained by Adam, and its loss in bits per token at each step."""
    model = Window(rng)
    stream = BatchStream(DataLoader(len(rows), min(N_ROWS, len(rows)), seed))
    moments = [(np.zeros(p.shape, np.float32), np.zeros(p.shape, np.float32)) for p in model.parameters()]
    losses = []
    for step in range(1, n_steps + 1):
        batch = rows[stream.next_batch()]
        if is_shifted:
            total, n = loss(model, batch, END)
        else:
            inputs, _ = next_token_pairs(batch, END)
            total, n = cross_entropy(model(inputs), inputs, reduction="sum"), inputs.size
        (total * (1 / n)).backward()
        losses.append(float(total.data) / n / math.log(2))
        rate = np.float32(0.006 * min(1, 2 * (1 - step / (n_steps + 1))))
        for p, (mean, square) in zip(model.parameters(), moments, strict=True):
            assert p.grad is not None
            mean += 0.1 * (p.grad - mean)
            square += 0.02 * (p.grad**2 - square)
            p.data -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.98**step)) + 1e-8)
            p.grad = None
    return model, losses


def _counted(training: list[str], unseen: list[str]) -> float:
    """Return the bits per byte of a counting model that looks at as many tokens."""
    model = NgramLM(CONTEXT + 1, VOCAB_SIZE, END)
    for text in training:
        model.count([*TOKENIZER.encode(text), END])
    scores = [model.score([*TOKENIZER.encode(text), END])[-1] for text in unseen]
    return bits_of(np.concatenate(scores), "".join(unseen))


def _definitions(text: str) -> list[list[int]]:
    """Cut a file before each definition on its margin: documents of very different lengths."""
    parts = text.replace("\nclass ", "\ndef ").split("\ndef ")
    return [TOKENIZER.encode(part) for part in parts if part]


def _share(rows: np.ndarray) -> float:
    """Return the share of the places whose targets count."""
    return float((next_token_pairs(rows, END)[1] >= 0).mean())


def _padded_share(documents: list[list[int]], length: int) -> float:
    """Return that share where each document begins a row of its own."""
    n_places = sum(-(-(len(each) + 1) // length) * length for each in documents)
    return sum(len(each) + 1 for each in documents) / n_places


def plot(numbers: dict):
    """Draw both losses, the bits by the length of rows, and the shares of places that count."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2))
    left.plot(numbers["losses"], color="C0")
    left.plot(numbers["wrong_losses"], color="C3")
    n_steps = len(numbers["losses"])
    left.text(n_steps, numbers["losses"][-1] + 0.9, "the next token", color="C0", ha="right")
    left.text(n_steps, 0.4, "the token itself", color="C3", ha="right")
    left.set(xlabel="step", ylabel="training loss, bits per token", ylim=(-0.2, 8.3))
    lengths = numbers["lengths"]
    middle.plot(lengths, numbers["bits"], "C0o-")
    middle.set(xlabel="tokens in a row, T", ylabel="bits per byte of unseen files")
    longer = numbers["packed_lengths"]
    right.plot(longer, numbers["packed"], "C0o-")
    right.plot(longer, numbers["padded"], "C1o-")
    right.text(longer[0], 0.91, "packed", color="C0")
    right.text(longer[0], numbers["padded"][-2], "a row for\neach document", color="C1")
    right.set(xlabel="tokens in a row, T", ylabel="share of places that count", ylim=(0, 1.05))
    for axes, ticks in ((middle, lengths), (right, longer)):
        axes.set(xscale="log")
        axes.set_xticks(ticks, [f"{each}" for each in ticks])
        axes.minorticks_off()
    return figure


def claim(numbers: dict) -> None:
    """README.md: a wrong shift looks perfect and knows nothing; short rows cost bits; padding wastes."""
    losses, wrong = np.array(numbers["losses"]), np.array(numbers["wrong_losses"])
    bits = dict(zip(numbers["lengths"], numbers["bits"], strict=True))
    is_full = len(losses) >= 600
    assert losses[-20:].mean() < losses[:10].mean() - 1.5
    assert wrong[-20:].mean() < losses[-20:].mean() - (2.5 if is_full else 1)
    assert numbers["wrong_bits"] > bits[64] + 2
    assert (np.diff(numbers["bits"]) < 0).all()
    assert bits[64] - bits[128] < 0.03
    packed, padded = np.array(numbers["packed"]), np.array(numbers["padded"])
    assert (packed[:-1] > 0.98).all()
    assert (np.diff(padded) < 0).all()
    assert padded[-2] < 0.85
    assert numbers["wrong_bits"] > 8
    if is_full:
        assert wrong[-20:].mean() < 0.01
        assert numbers["wrong_bits"] > 20
        assert bits[4] > bits[64] + 0.2
        assert (packed > 0.995).all()
        assert wrong[100:].mean() < 0.02
        assert 0.7 < padded[-2] < 0.77
        assert padded[-1] < 0.6
        assert numbers["counted_bits"] < bits[64] - 0.2
