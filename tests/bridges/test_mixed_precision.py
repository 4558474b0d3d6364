"""Rounding against PyTorch's casts, bit for bit; the loss scaler against PyTorch's, step by step."""

import numpy as np
import pytest
import torch

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.mixed_precision import LossScaler, MasterWeights, round_to
from techtree.techs.training.sgd import SGD

FORMATS = {(8, 7): torch.bfloat16, (5, 10): torch.float16, (5, 2): torch.float8_e5m2}


def same_bits(a, b):
    is_nan = np.isnan(b)
    assert np.array_equal(np.isnan(a), is_nan)
    assert np.array_equal(a.view(np.uint32)[~is_nan], b.view(np.uint32)[~is_nan])


def cast(x, dtype):
    return torch.from_numpy(x).to(dtype).to(torch.float32).numpy()


@pytest.mark.parametrize("form", FORMATS)
def test_a_million_numbers_of_any_bits(form):
    x = np.random.default_rng(0).integers(2**32, size=1_000_000, dtype=np.uint32).view(np.float32)
    same_bits(round_to(x, *form), cast(x, FORMATS[form]))


@pytest.mark.parametrize("form", [(8, 7), (5, 10)])
def test_every_number_of_16_bits_and_what_lies_around_it(form):
    """All 65,536, the points halfway to the next, and the float32 numbers beside these."""
    values = (
        torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(FORMATS[form]).to(torch.float32).numpy()
    )
    values = np.unique(values[np.isfinite(values)])
    same_bits(round_to(values, *form), values)
    halves = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    for x in (halves, np.nextafter(halves, np.float32(np.inf)), np.nextafter(halves, np.float32(-np.inf))):
        same_bits(round_to(x, *form), cast(x, FORMATS[form]))


def test_the_scaler_does_what_torch_does():
    """Same gradients, some of them not finite: equal scales, skipped steps and weights."""
    rng = np.random.default_rng(0)
    ours, theirs = Parameter(np.ones(4, np.float32)), torch.nn.Parameter(torch.ones(4))
    scaler, optimizer = LossScaler(8.0, 3), SGD([ours], lr=0.1)
    torch_scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    torch_optimizer = torch.optim.SGD([theirs], lr=0.1)
    for step in range(60):
        factor = [1.0, 1.0, 1.0, 1.0, np.inf, np.nan][rng.integers(6)] if step > 5 else 1.0
        gradient = (rng.normal(size=4) * factor).astype(np.float32)
        ours.grad = gradient * np.float32(scaler.scale)
        theirs.grad = None
        torch_scaler.scale((theirs * torch.from_numpy(gradient)).sum()).backward()
        scaler.step(optimizer)
        torch_scaler.step(torch_optimizer)
        torch_scaler.update()
        assert scaler.scale == torch_scaler.get_scale()
        np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-6)
    assert scaler.scale < 64


def test_the_defaults_are_those_of_torch():
    theirs = torch.amp.GradScaler("cpu")
    assert LossScaler().scale == theirs.get_scale()
    assert LossScaler().n_growth == theirs.get_growth_interval()
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)


def test_masters_keep_what_a_bfloat16_parameter_of_torch_loses():
    pure = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    torch_optimizer = torch.optim.SGD([pure], lr=1.0)
    weight = Parameter(np.ones(1, np.float32))
    weights = MasterWeights([weight], 8, 7)
    optimizer = SGD(weights.masters, lr=1.0)
    for _ in range(1000):
        pure.grad = torch.full((1,), -0.001, dtype=torch.bfloat16)
        torch_optimizer.step()
        weight.grad = np.full(1, -0.001, np.float32)
        weights.take_gradients()
        optimizer.step()
        weights.publish()
    assert pure.item() == 1.0
    assert weight.data[0] == pytest.approx(2.0, abs=0.02)
