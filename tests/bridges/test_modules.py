"""Models built alike in `modules` and in torch have the same parameters, states and training."""

import numpy as np
import pytest
import torch

from techtree.techs.autodiff.modules import Module, Parameter


def built(rng, depth):
    """Return a random module of ours and its twin in torch, which has classes for lists and dicts."""
    ours, theirs = Module(), torch.nn.Module()
    for name in rng.permutation(["a", "b", "c", "d"])[: rng.integers(1, 5)]:
        kind = rng.integers(0, 4) if depth else 0
        if kind == 0:
            pair = leaf(rng)
        elif kind == 1:
            pair = built(rng, depth - 1)
        else:
            inside = [built(rng, depth - 1) for _ in range(rng.integers(0, 4))]
            mine, other = [a for a, _ in inside], [b for _, b in inside]
            if kind == 2:
                pair = (mine if rng.random() < 0.5 else tuple(mine)), torch.nn.ModuleList(other)
            else:
                keys = [f"k{n}" for n in range(len(inside))]
                pair = dict(zip(keys, mine, strict=True)), torch.nn.ModuleDict(zip(keys, other, strict=True))
        setattr(ours, name, pair[0])
        setattr(theirs, name, pair[1])
    return ours, theirs


def leaf(rng):
    data = rng.normal(size=rng.integers(0, 4, size=rng.integers(0, 3)))
    return Parameter(data), torch.nn.Parameter(torch.tensor(data))


@pytest.mark.parametrize("seed", range(40))
def test_the_same_parameters_under_the_same_names(seed):
    """The order is another: torch lists a module's own parameters before those of the modules in it."""
    ours, theirs = built(np.random.default_rng(seed), 3)
    expected = {name: each.detach().numpy() for name, each in theirs.named_parameters()}
    found = {name: each.data for name, each in ours.named_parameters()}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    theirs.load_state_dict({name: torch.tensor(2 * value) for name, value in state.items()})
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert all(np.array_equal(each.data, 2 * state[name]) for name, each in ours.named_parameters())


def test_a_tied_parameter_comes_once_by_its_first_name():
    ours, theirs = Module(), torch.nn.Module()
    weight, twin = leaf(np.random.default_rng(0))
    ours.first = ours.second = weight
    theirs.first = theirs.second = twin
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


def test_the_switch_reaches_the_same_modules():
    ours, theirs = built(np.random.default_rng(3), 3)
    ours.eval()
    theirs.eval()

    def modes(module):
        found = [module.is_training]
        for each in vars(module).values():
            inside = (
                each.values()
                if isinstance(each, dict)
                else each
                if isinstance(each, list | tuple)
                else [each]
            )
            found += [mode for one in inside if isinstance(one, Module) for mode in modes(one)]
        return found

    containers = torch.nn.ModuleList | torch.nn.ModuleDict
    expected = [each.training for each in theirs.modules() if not isinstance(each, containers)]
    assert modes(ours) == expected
    assert len(expected) > 4


class Network(Module):
    def __init__(self, weights):
        self.layers = [Parameter(w) for w in weights]

    def forward(self, x):
        for w in self.layers[:-1]:
            x = (x @ w).tanh()
        return x @ self.layers[-1]


def test_training_is_the_same():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) / 2 for shape in ((3, 5), (5, 5), (5, 1))]
    weights[1] = weights[0].T @ weights[0]
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    ours = Network(weights)
    theirs = torch.nn.ParameterList([torch.tensor(w) for w in weights])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        hidden = torch.tanh(torch.tanh(torch.tensor(x) @ theirs[0]) @ theirs[1])
        ((hidden @ theirs[2] - torch.tensor(y)) ** 2).mean().backward()
        optimizer.step()
        for each in ours.parameters():
            each.grad = None
        ((ours(x) - y) ** 2).mean().backward()
        for each in ours.parameters():
            each.data -= 0.1 * each.grad
    for mine, other in zip(ours.parameters(), theirs, strict=True):
        assert np.allclose(mine.data, other.detach().numpy(), rtol=1e-9, atol=1e-9)
