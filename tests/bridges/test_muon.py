"""The lesson's Muon is the product's, and its orthogonalization PyTorch's."""

import numpy as np
import pytest
import torch

from techtree.lm.train import muon as product
from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.muon import Muon, orthogonalize

SHAPES = [(3, 5), (5, 3), (16, 16), (1, 4), (2, 6, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_orthogonalization_is_the_products(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    ours = orthogonalize(matrix, product.N_ITERATIONS, product.NEWTON_SCHULZ)
    theirs = product.orthogonalized(torch.from_numpy(matrix)).numpy()
    assert np.abs(ours - theirs).max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_steps_are_the_products(shape):
    rng = np.random.default_rng(1)
    weights, gradients = rng.normal(size=shape), rng.normal(size=(10, *shape))
    w = Parameter(weights)
    ours = Muon([w], lr=0.05, momentum=0.9, weight_decay=0.1, n_iterations=product.N_ITERATIONS)
    p = torch.from_numpy(weights.copy())
    theirs = product.Muon({"w": p}, lr=0.05, momentum=0.9, weight_decay=0.1, dtype=torch.float64)
    for step, gradient in enumerate(gradients, 1):
        w.grad = gradient
        ours.step()
        theirs.update({"w": torch.from_numpy(gradient)}, step, 1.0)
    assert np.abs(w.data - p.numpy()).max() < 1e-11


@pytest.mark.parametrize("shape", [(8, 8), (12, 4)])
def test_torch_takes_the_same_step_up_to_bfloat16(shape):
    """PyTorch orthogonalizes in bfloat16, which has two to three digits."""
    rng = np.random.default_rng(2)
    weights, gradient = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    w = Parameter(weights)
    w.grad = gradient
    Muon([w], lr=0.1).step()
    p = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    p.grad = torch.from_numpy(gradient)
    torch.optim.Muon([p], lr=0.1, weight_decay=0.0, momentum=0.95, adjust_lr_fn="original").step()
    assert np.abs(w.data - p.detach().numpy()).max() < 0.1 * 0.05
