"""Bits per byte against direct computations: one token at a time, in one window, and by closed form."""

import math

import pytest
import torch
from torch import nn

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.data.token_sequence import token_sequence
from techtree.lm.eval.bits_per_byte import bits_per_byte

DOCUMENTS = [
    Document("a.py", "def f(x):\n    return x + 1\n" * 8),
    Document("b.py", "é = '✓'\n"),
    Document("c.py", "import os\nimport sys\n" * 3),
]
N_BYTES = sum(len(document.text.encode()) for document in DOCUMENTS)


class Uniform(nn.Module):
    """Gives every token the same probability."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, ids):
        return torch.zeros(*ids.shape, self.vocab_size)


class Remembering(nn.Module):
    """A causal model whose prediction depends on all tokens before, and on how many there are."""

    def __init__(self, vocab_size: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))
        self.modes: list[bool] = []

    def forward(self, ids):
        self.modes.append(self.training)
        return self.table[ids].cumsum(dim=1).cos() * 3


@pytest.fixture
def remembering(tiny_tokenizer) -> Remembering:
    return Remembering(tiny_tokenizer.vocab_size)


def slow_bits(model, tokenizer, seq_len: int) -> float:
    """Return the bits of all tokens, each predicted alone from the part of the text that it may see."""
    bits = 0.0
    for document in DOCUMENTS:
        sequence = torch.from_numpy(token_sequence(document.text, tokenizer)).long()
        n_targets = len(sequence) - 1
        window_end = min(seq_len, n_targets)  # the last target of the current window
        for i in range(1, n_targets + 1):
            if i > window_end:
                window_end = min(window_end + seq_len // 2, n_targets)
            window_start = max(0, window_end - seq_len)
            with torch.no_grad():
                logits = model(sequence[None, window_start:i])[0, -1]
            bits -= torch.log_softmax(logits.double(), -1)[sequence[i]].item() / math.log(2)
    return bits


@pytest.mark.parametrize("seq_len", [1, 2, 7, 64, 1000])
def test_uniform_model_needs_the_logarithm_of_the_vocabulary_for_each_token(tiny_tokenizer, seq_len):
    vocab_size = tiny_tokenizer.vocab_size
    score = bits_per_byte(Uniform(vocab_size), DOCUMENTS, tiny_tokenizer, seq_len=seq_len)
    n_tokens = sum(len(tiny_tokenizer.encode(document.text)) + 1 for document in DOCUMENTS)
    assert (score.n_tokens, score.n_bytes) == (n_tokens, N_BYTES)
    assert score.bits == pytest.approx(n_tokens * math.log2(vocab_size), rel=1e-6)  # float32 logarithms
    assert score.bits_per_byte == score.bits / N_BYTES


# The model's sums are in float32: relative errors of 1e-6 in logits up to 100 deep sums.
@pytest.mark.parametrize("seq_len", [2, 5, 16, 33])
def test_equals_one_token_at_a_time(tiny_tokenizer, remembering, seq_len):
    score = bits_per_byte(remembering, DOCUMENTS, tiny_tokenizer, seq_len=seq_len)
    assert score.bits == pytest.approx(slow_bits(remembering, tiny_tokenizer, seq_len), rel=1e-5)


def test_long_window_equals_the_whole_text(tiny_tokenizer, remembering):
    score = bits_per_byte(remembering, DOCUMENTS, tiny_tokenizer, seq_len=1000)
    bits = 0.0
    for document in DOCUMENTS:
        sequence = torch.from_numpy(token_sequence(document.text, tiny_tokenizer)).long()
        logits = remembering(sequence[None, :-1])[0]
        bits += nn.functional.cross_entropy(logits, sequence[1:], reduction="sum").item() / math.log(2)
    assert score.bits == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_matter(tiny_tokenizer, remembering, batch_size):
    one = bits_per_byte(remembering, DOCUMENTS, tiny_tokenizer, seq_len=16)
    other = bits_per_byte(remembering, DOCUMENTS[::-1], tiny_tokenizer, seq_len=16, batch_size=batch_size)
    assert other.bits == pytest.approx(one.bits, rel=1e-5)


def test_real_model_equals_one_token_at_a_time(tiny_tokenizer, tiny_model):
    score = bits_per_byte(tiny_model, DOCUMENTS, tiny_tokenizer, seq_len=32)
    assert score.bits == pytest.approx(slow_bits(tiny_model, tiny_tokenizer, 32), rel=1e-5)


def test_bfloat16_is_close(tiny_tokenizer, tiny_model, monkeypatch):
    exact = bits_per_byte(tiny_model, DOCUMENTS, tiny_tokenizer, seq_len=32)
    monkeypatch.setattr(tiny_model, "compute_dtype", torch.bfloat16)
    rough = bits_per_byte(tiny_model, DOCUMENTS, tiny_tokenizer, seq_len=32)
    assert rough.bits == pytest.approx(exact.bits, rel=0.02)  # 8 bits of mantissa
    assert rough.bits != exact.bits


@pytest.mark.parametrize("was_training", [True, False])
def test_mode_of_the_model_is_put_back(tiny_tokenizer, remembering, was_training):
    remembering.train(was_training)
    bits_per_byte(remembering, DOCUMENTS, tiny_tokenizer, seq_len=16)
    assert remembering.training == was_training
    assert not any(remembering.modes)


def test_progress_is_told(tiny_tokenizer, remembering):
    told = []
    bits_per_byte(
        remembering,
        DOCUMENTS,
        tiny_tokenizer,
        seq_len=16,
        batch_size=4,
        on_batch=lambda *done: told.append(done),
    )
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    assert len(told) > 2


@pytest.mark.parametrize(("seq_len", "batch_size"), [(0, 8), (16, 0), (-1, 8)])
def test_sizes_that_are_not_positive_are_refused(tiny_tokenizer, remembering, seq_len, batch_size):
    with pytest.raises(InputError, match="must be positive"):
        bits_per_byte(remembering, DOCUMENTS, tiny_tokenizer, seq_len=seq_len, batch_size=batch_size)
