"""Random programs of numbers have the same derivatives in `scalar_autodiff` and in torch."""

import numpy as np
import pytest
import torch

from techtree.techs.autodiff.scalar_autodiff import Value

OPERATIONS = [
    lambda a, b: a + b,
    lambda a, b: a - b * 0.5,
    lambda a, b: 2 - a * b,
    lambda a, b: a / (b * b + 1),
    lambda a, b: 1 / (a**2 + 2),
    lambda a, b: (-(a**2)).exp(),
    lambda a, b: (b**2 + 0.5).log(),
    lambda a, b: a.tanh() ** 3,
    lambda a, b: (a - b).relu(),
]


def run(steps, inputs):
    """Compute with Values or torch scalars alike; tanh keeps the numbers near 1."""
    nodes = list(inputs)
    for kind, i, j in steps:
        nodes.append(OPERATIONS[kind](nodes[i], nodes[j]).tanh() * 2)
    return sum(nodes[1:], nodes[0])


@pytest.mark.parametrize("seed", range(60))
def test_a_random_program(seed):
    rng = np.random.default_rng(seed)
    n_inputs, n_steps = int(rng.integers(1, 6)), int(rng.integers(1, 60))
    steps = [(rng.integers(len(OPERATIONS)), *rng.integers(n_inputs + n, size=2)) for n in range(n_steps)]
    numbers = rng.normal(size=n_inputs).tolist()
    ours = [Value(number) for number in numbers]
    theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
    end, expected = run(steps, ours), run(steps, theirs)
    assert end.data == pytest.approx(expected.item(), rel=1e-12)
    end.backward()
    expected.backward()
    # Rounding grows along sixty steps of slope up to about 3.
    slopes = [each.grad.item() for each in theirs]
    assert [each.grad for each in ours] == pytest.approx(slopes, rel=1e-9, abs=1e-9)
