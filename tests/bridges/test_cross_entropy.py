"""The product's loss in pieces equals the lesson's on whole logits, as do its gradients."""

import numpy as np
import pytest
import torch

from techtree.lm.model import cross_entropy as product
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.cross_entropy import cross_entropy


@pytest.mark.parametrize(("n", "width", "n_tokens"), [(1, 3, 2), (7, 5, 11), (33, 8, 300)])
@pytest.mark.parametrize("share_ignored", [0.0, 0.4])
def test_pieces_equal_the_whole(n, width, n_tokens, share_ignored, monkeypatch):
    monkeypatch.setattr(product, "_CHUNK_LOGITS", 4 * n_tokens)  # several pieces, several groups of them
    monkeypatch.setattr(product, "_GROUP_LOGITS", 8 * n_tokens)
    rng = np.random.default_rng(n)
    hidden = rng.normal(size=(n, width)).astype(np.float32)
    table = rng.normal(size=(n_tokens, width)).astype(np.float32)
    targets = rng.integers(n_tokens, size=n)
    targets[1:][rng.random(n - 1) < share_ignored] = product.IGNORED

    h, w = Tensor(hidden, requires_grad=True), Tensor(table, requires_grad=True)
    loss = cross_entropy(h @ w.swapaxes(0, 1), targets, ignore_index=product.IGNORED)
    loss.backward()
    theirs_h, theirs_w = (torch.tensor(x, requires_grad=True) for x in (hidden, table))
    theirs = product.cross_entropy(theirs_h, theirs_w, torch.tensor(targets))
    theirs.backward()

    # Sums of n_tokens float32 numbers of size 1 in another order.
    np.testing.assert_allclose(theirs.item(), loss.data, rtol=2e-6)
    np.testing.assert_allclose(theirs_h.grad.numpy(), h.grad, atol=2e-6)
    np.testing.assert_allclose(theirs_w.grad.numpy(), w.grad, atol=2e-6)
    with torch.no_grad():
        value = product.cross_entropy(theirs_h, theirs_w, torch.tensor(targets))
    np.testing.assert_allclose(value.item(), loss.data, rtol=2e-6)
