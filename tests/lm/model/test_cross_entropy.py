import math

import pytest
import torch
import torch.nn.functional as F

from techtree.lm.model import cross_entropy as module
from techtree.lm.model.cross_entropy import IGNORED, cross_entropy


def problem(n_tokens=50, d_model=12, vocab_size=37, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n_tokens, d_model, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab_size, d_model, generator=generator).requires_grad_()
    targets = torch.randint(vocab_size, (n_tokens,), generator=generator)
    targets[::7] = IGNORED
    return hidden, weight, targets


def test_value_by_hand():
    # Logits 0 and log 3: chances 1/4 and 3/4.
    loss = cross_entropy(torch.ones(2, 1), torch.tensor([[0.0], [math.log(3)]]), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


@pytest.mark.parametrize("chunks_in_group", [1, 3])
@pytest.mark.parametrize("chunk_logits", [1, 37 * 8, 2**20], ids=["a row", "8 rows", "all"])
def test_chunks_do_not_change_loss_and_gradients(chunk_logits, chunks_in_group, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_LOGITS", chunk_logits)
    monkeypatch.setattr(module, "_GROUP_LOGITS", chunk_logits * chunks_in_group)
    hidden, weight, targets = problem()
    loss = cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(loss * 3, (hidden, weight))
    plain = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED)
    expected = torch.autograd.grad(plain * 3, (hidden, weight))
    # Float32 sums of 50 terms in another order.
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            cross_entropy(hidden, weight, targets), plain.detach(), atol=1e-6, rtol=1e-5
        )


def test_bfloat16_activations():
    hidden, weight, targets = problem(dtype=torch.bfloat16)
    loss = cross_entropy(hidden, weight, targets)
    d_hidden, d_weight = torch.autograd.grad(loss, (hidden, weight))
    exact = hidden.detach().float().requires_grad_()
    plain = F.cross_entropy(exact @ weight.T, targets, ignore_index=IGNORED)
    expected = torch.autograd.grad(plain, (exact, weight))
    assert (loss.dtype, d_hidden.dtype, d_weight.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    torch.testing.assert_close(loss, plain, atol=0, rtol=0.01)  # logits of 8 bits
    torch.testing.assert_close(d_hidden.float(), expected[0], atol=2e-3, rtol=0.05)
    torch.testing.assert_close(d_weight, expected[1], atol=2e-3, rtol=0.05)


def test_an_impossible_target_costs_much_and_not_infinity():
    hidden = torch.tensor([[1.0]], requires_grad=True)
    loss = cross_entropy(hidden, torch.tensor([[1000.0], [-1000.0]]), torch.tensor([1]))
    loss.backward()
    assert 80 < loss.item() < math.inf
    torch.testing.assert_close(hidden.grad, torch.tensor([[2000.0]]))


def test_nothing_counted_is_nan_as_in_pytorch():
    hidden, weight, targets = problem()
    targets[:] = IGNORED
    assert cross_entropy(hidden, weight, targets).isnan()
    with torch.no_grad():
        assert cross_entropy(hidden, weight, targets).isnan()
