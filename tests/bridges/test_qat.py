"""Fake quantization against PyTorch's, where both mean the same: exact scales, no halves, nothing cut."""

import numpy as np
import pytest
import torch

from techtree.lm.quant.fake import fake_quantized
from techtree.lm.quant.fake import rounded as rounded_by_the_product
from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.qat import fake_quantize, prepare
from techtree.techs.training.linear import Linear

LIMITS = {"q8_0": (-127, 127), "q4_0": (-8, 7)}


def drawn(rng, kind):
    """Blocks whose scale is a power of two; no entry lies half way between two steps."""
    low, high = LIMITS[kind]
    scales = 2.0 ** rng.integers(-8, 4, size=200)
    steps = rng.integers(low, high + 1, size=(200, 32)) + rng.uniform(-0.45, 0.45, size=(200, 32))
    steps = steps.clip(low, high)
    steps[np.arange(200), rng.integers(32, size=200)] = low
    return (steps * scales[:, None]).astype(np.float32), scales


@pytest.mark.parametrize("kind", LIMITS)
def test_values_and_gradients_are_those_of_torch(kind):
    rng = np.random.default_rng(0)
    x, scales = drawn(rng, kind)
    g = rng.normal(size=x.shape).astype(np.float32)
    theirs = torch.tensor(x, requires_grad=True)
    zeros = torch.zeros(len(x), dtype=torch.int32)
    y = torch.fake_quantize_per_channel_affine(theirs, torch.tensor(scales).float(), zeros, 0, *LIMITS[kind])
    y.backward(torch.tensor(g))
    ours = Tensor(x, requires_grad=True)
    z = fake_quantize(ours, kind)
    z.backward(g)
    assert np.array_equal(z.data, y.detach().numpy())
    assert np.array_equal(ours.grad, theirs.grad.numpy())


def test_torch_stops_the_gradient_of_what_is_cut_and_ours_does_not():
    x = np.zeros((1, 32), np.float32)
    x[0, :3] = [-8.0, 7.4, 7.9]
    theirs = torch.tensor(x, requires_grad=True)
    y = torch.fake_quantize_per_channel_affine(
        theirs, torch.ones(1), torch.zeros(1, dtype=torch.int32), 0, -8, 7
    )
    y.sum().backward()
    ours = Parameter(x)
    fake_quantize(ours, "q4_0").sum().backward()
    assert theirs.grad[0, :3].tolist() == [1.0, 1.0, 0.0]
    assert ours.grad[0, :3].tolist() == [1.0, 1.0, 1.0]
    assert y[0, 2].item() == fake_quantize(ours, "q4_0").data[0, 2] == 7.0


def test_a_chain_of_operations_has_the_gradient_of_the_detached_error():
    """As it is often written in PyTorch: x + (rounded - x).detach()."""
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(3, 64)), rng.normal(size=(2, 64))
    ours = Parameter(w)
    y = (Tensor(x) @ fake_quantize(ours, "q4_0").swapaxes(0, 1)).tanh()
    (y * y).sum().backward()
    theirs = torch.tensor(w, requires_grad=True)
    rounded = torch.tensor(fake_quantize(Tensor(w), "q4_0").data)
    z = (torch.tensor(x) @ (theirs + (rounded - theirs).detach()).T).tanh()
    (z * z).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", LIMITS)
def test_the_product_rounds_alike(kind):
    x = np.random.default_rng(2).normal(size=(30, 96)).astype(np.float32)
    expected = fake_quantize(Tensor(x), kind).data
    assert np.array_equal(rounded_by_the_product(torch.tensor(x), kind).numpy(), expected)
    in_float64 = rounded_by_the_product(torch.tensor(x, dtype=torch.float64), kind)
    assert np.array_equal(in_float64.float().numpy(), expected)


@pytest.mark.parametrize("kind", LIMITS)
def test_the_product_hands_the_gradient_straight_through(kind):
    """It rounds weights alone: the inputs here have the values of q8_0 already."""
    rng = np.random.default_rng(3)
    x = fake_quantize(Tensor(rng.normal(size=(5, 64)).astype(np.float32)), "q8_0").data
    ours = Linear(64, 3, rng, dtype=np.float32)
    weight, bias = ours.state_dict().values()
    theirs = torch.nn.Linear(64, 3)
    theirs.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    with fake_quantized(theirs, kind):
        y = theirs(torch.tensor(x))
        (y * y).sum().backward()
    prepared = prepare(ours, {"": kind})
    z = prepared(Tensor(x))
    (z * z).sum().backward()
    np.testing.assert_allclose(z.data, y.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(prepared.weight.grad, theirs.weight.grad.numpy(), rtol=1e-4, atol=1e-4)
    assert np.array_equal(theirs.weight.detach().numpy(), weight)
