"""The lesson's optimizers, schedules and clipping take the steps of PyTorch's and of the product's."""

import math

import numpy as np
import pytest
import torch

from techtree.lm.train import adamw as product_adamw
from techtree.lm.train.schedule import lr_scale
from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.schedule_clip import (
    clip_grad_norm,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)
from techtree.techs.training.sgd import SGD

SHAPES = [(3, 5), (7,), (), (2, 3, 4)]
N_STEPS = 30


def walk_together(ours, theirs, members, leaves, rates=None):
    """Take the same steps with both; in each third step one parameter has no gradient."""
    rng = np.random.default_rng(7)
    for step in range(N_STEPS):
        for number, (a, b) in enumerate(zip(members, leaves, strict=True)):
            gradient = np.asarray(rng.normal(size=a.shape) * 10.0 ** rng.integers(-6, 3), a.dtype)
            a.grad = None if (step + number) % 3 == 2 else gradient
            b.grad = None if a.grad is None else torch.tensor(gradient)
        if rates is not None:
            for group in (*ours.groups, *theirs.param_groups):
                group["lr"] = rates[step]
        ours.step()
        theirs.step()
    for a, b in zip(members, leaves, strict=True):
        assert np.abs(a.data - b.detach().numpy()).max(initial=0) < 1e-11


def both(rng):
    arrays = [rng.normal(size=shape) for shape in SHAPES]
    return [Parameter(x) for x in arrays], [torch.nn.Parameter(torch.tensor(x)) for x in arrays]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd(momentum, weight_decay):
    members, leaves = both(np.random.default_rng(0))
    options = {"lr": 1e-3, "momentum": momentum, "weight_decay": weight_decay}
    rates = [1e-3 * warmup_cosine(step, N_STEPS, 5) for step in range(N_STEPS)]
    walk_together(SGD(members, **options), torch.optim.SGD(leaves, **options), members, leaves, rates)


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.2}])
def test_adamw_and_its_defaults(options):
    members, leaves = both(np.random.default_rng(0))
    ours, theirs = AdamW(members, lr=0.01, **options), torch.optim.AdamW(leaves, lr=0.01, **options)
    walk_together(ours, theirs, members, leaves)


def test_adamw_in_groups():
    members, leaves = both(np.random.default_rng(0))
    ours = AdamW(
        [{"parameters": members[:2], "betas": (0.5, 0.9)}, {"parameters": members[2:], "lr": 0.02}], lr=0.01
    )
    theirs = torch.optim.AdamW(
        [{"params": leaves[:2], "betas": (0.5, 0.9)}, {"params": leaves[2:], "lr": 0.02}], lr=0.01
    )
    walk_together(ours, theirs, members, leaves)


def test_the_products_adamw():
    rng = np.random.default_rng(1)
    weights, gradients = rng.normal(size=(4, 3)), rng.normal(size=(10, 4, 3))
    options = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    w, p = Parameter(weights), torch.tensor(weights)
    ours, theirs = AdamW([w], **options), product_adamw.AdamW({"w": p}, **options)
    for step, gradient in enumerate(gradients, 1):
        w.grad = gradient
        ours.step()
        theirs.update({"w": torch.from_numpy(gradient)}, step, 1.0)
    assert np.abs(w.data - p.numpy()).max() < 1e-12


@pytest.mark.parametrize(("n_warmup", "n_decay"), [(0, 10), (3, 8), (5, 0), (4, 16), (1, 1)])
def test_the_products_schedule(n_warmup, n_decay):
    for step in range(20):
        ours = warmup_stable_decay(step, 20, n_warmup, n_decay)
        assert ours == pytest.approx(lr_scale(step, 20, n_warmup, n_decay / 20), rel=1e-12)


def pytorch_factors(make, n_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_pytorchs_schedules(final):
    """Its cosine and its line reach the final factor in the first step that is not taken, as ours do."""
    n_warmup, n_fall = 5, 15
    schedulers = torch.optim.lr_scheduler
    rise = pytorch_factors(lambda o: schedulers.LinearLR(o, 1 / n_warmup, 1.0, n_warmup - 1), n_warmup)
    cosine = pytorch_factors(lambda o: schedulers.CosineAnnealingLR(o, n_fall, eta_min=final), n_fall)
    line = pytorch_factors(lambda o: schedulers.LinearLR(o, 1.0, final, n_fall), n_fall)
    for schedule, fall in ((warmup_cosine, cosine), (warmup_linear, line)):
        ours = [schedule(step, n_warmup + n_fall, n_warmup, final) for step in range(n_warmup + n_fall)]
        assert np.abs(np.array(ours) - [*rise, *fall]).max() < 1e-12


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6, math.inf])
def test_clipping(max_norm):
    """PyTorch adds 1e-6 to the norm that it divides by."""
    rng = np.random.default_rng(3)
    members, leaves = both(rng)
    for a, b in zip(members, leaves, strict=True):
        a.grad = np.asarray(rng.normal(size=a.shape))
        b.grad = torch.tensor(a.grad.copy())
    members[1].grad = leaves[1].grad = None
    ours, theirs = (
        clip_grad_norm(members, max_norm),
        float(torch.nn.utils.clip_grad_norm_(leaves, max_norm)),
    )
    assert ours == pytest.approx(theirs, rel=1e-12)
    for a, b in zip(members, leaves, strict=True):
        if a.grad is not None:
            assert np.abs(a.grad - b.grad.numpy()).max() < 1e-6
