"""`causal_lm` gives the losses of `transformers` and of the product, and the positions of a collator."""

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithFlattening, GPT2Config, GPT2LMHeadModel

from techtree.lm.model.cross_entropy import cross_entropy
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.text.causal_lm import document_mask, document_positions, loss, next_token_pairs, pack

VOCAB_SIZE, END = 50, 7
TOLERANCE = 1e-5  # float32 on both sides


def rows_of(rng: np.random.Generator, length: int) -> np.ndarray:
    some = [token for token in range(VOCAB_SIZE) if token != END]
    return pack([rng.choice(some, size=n) for n in rng.integers(1, 12, size=9)], length, END)


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB_SIZE, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("length", [3, 8, 40])
def test_the_loss_is_that_of_transformers(gpt2, length):
    """Its labels are the row itself: the model shifts by one, and leaves out -100."""
    rows = rows_of(np.random.default_rng(0), length)

    def model(ids):
        with torch.no_grad():
            return Tensor(gpt2(torch.tensor(ids)).logits.numpy())

    total, n = loss(model, rows, END)
    _, targets = next_token_pairs(rows, END)
    labels = torch.tensor(np.concatenate([rows[:, :1], targets], axis=1))
    with torch.no_grad():
        theirs = gpt2(torch.tensor(rows), labels=labels).loss
    assert float(total.data) / n == pytest.approx(float(theirs), rel=TOLERANCE)


def test_the_loss_and_its_gradient_are_those_of_the_product():
    rng = np.random.default_rng(1)
    rows = rows_of(rng, 10)
    hidden = rng.normal(size=(*rows[:, :-1].shape, 16))
    head = Tensor(rng.normal(size=(VOCAB_SIZE, 16)), requires_grad=True)
    total, n = loss(lambda ids: Tensor(hidden) @ head.swapaxes(0, 1), rows, END)
    (total * (1 / n)).backward()
    weight = torch.tensor(head.data.copy(), requires_grad=True)
    _, targets = next_token_pairs(rows, END)
    theirs = cross_entropy(torch.tensor(hidden.reshape(-1, 16)), weight, torch.tensor(targets.reshape(-1)))
    theirs.backward()
    assert float(total.data) / n == pytest.approx(float(theirs.detach()), rel=TOLERANCE)
    np.testing.assert_allclose(head.grad, weight.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_positions_are_those_of_a_flattening_collator():
    rng = np.random.default_rng(2)
    documents = [[END, *rng.integers(8, VOCAB_SIZE, size=n).tolist()] for n in (3, 1, 6)]
    flat = DataCollatorWithFlattening()([{"input_ids": each} for each in documents])
    ids = flat["input_ids"].numpy()
    np.testing.assert_array_equal(document_positions(ids, END), flat["position_ids"].numpy())
    # What a token sees are as many tokens as its position says, and itself.
    seen = document_mask(ids, END).sum(axis=-1)
    np.testing.assert_array_equal(seen, flat["position_ids"].numpy() + 1)
