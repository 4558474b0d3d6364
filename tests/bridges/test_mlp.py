"""Our network and its training against PyTorch's, step by step, and against scikit-learn's on the digits."""

import numpy as np
import pytest
import torch

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import gelu, relu
from techtree.techs.training.dataloader import DataLoader
from techtree.techs.training.mlp import MLP, accuracy, fit
from techtree.techs.training.mlp.experiment import digits
from techtree.techs.training.sgd import SGD

CURVES = {"relu": (relu, torch.nn.ReLU), "gelu": (gelu, torch.nn.GELU)}


def twin(model: MLP, curve: type) -> torch.nn.Sequential:
    """Return PyTorch's network with the same weights."""
    parts = []
    for layer in model.layers:
        linear = torch.nn.Linear(*layer.weight.shape[::-1], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight.data))
            linear.bias.copy_(torch.from_numpy(layer.bias.data))
        parts += [linear, curve()]
    return torch.nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("widths", [[5, 3], [5, 7, 3], [5, 16, 8, 4, 3]])
def test_outputs_and_gradients_are_those_of_torch(name, widths):
    rng = np.random.default_rng(0)
    ours, curve = CURVES[name]
    model = MLP(widths, rng, ours)
    theirs = twin(model, curve)
    x, g = rng.normal(size=(2, 9, 5)), rng.normal(size=(2, 9, 3))
    got, expected = model(Tensor(x)), theirs(torch.from_numpy(x))
    np.testing.assert_allclose(got.data, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    got.backward(g)
    expected.backward(torch.from_numpy(g))
    for a, b in zip(model.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_training_is_that_of_torch():
    """Twelve epochs with momentum: weights and losses stay together to nine digits."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 5)), rng.integers(3, size=50)
    model = MLP([5, 16, 3], rng)
    theirs, loader = twin(model, torch.nn.ReLU), DataLoader(50, 8, seed=2, keep_last=True)
    losses = fit(model, x, y, SGD(model.parameters(), lr=0.05, momentum=0.9), loader, 12)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    for number, loss_of_epoch in enumerate(losses):
        total = 0.0
        for batch in loader.epoch(number):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(
                theirs(torch.from_numpy(x[batch])), torch.from_numpy(y[batch])
            )
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        assert loss_of_epoch == pytest.approx(total / 50, rel=1e-9)
    for a, b in zip(model.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-8, atol=1e-10)
    right = (theirs(torch.from_numpy(x)).argmax(dim=1).numpy() == y).mean()
    assert accuracy(model, x, y) == right


def test_digits_are_read_as_well_as_by_scikit_learn():
    """One fifth is held out: 360 images, where the accuracy of 98 % has a standard error of 0.7 %."""
    from sklearn.neural_network import MLPClassifier

    images, labels = digits()
    assert images.shape == (1797, 64)
    assert (images.min(), images.max(), images.dtype) == (0, 1, np.float32)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    order = np.random.default_rng(0).permutation(1797)
    unseen, seen = order[:360], order[360:]
    model = MLP([64, 128, 10], np.random.default_rng(0), dtype=np.float32)
    loader = DataLoader(len(seen), 16, seed=0)
    fit(model, images[seen], labels[seen], SGD(model.parameters(), lr=0.05, momentum=0.9), loader, 20)
    theirs = MLPClassifier(
        (128,),
        random_state=0,
        batch_size=16,
        max_iter=20,
        early_stopping=False,
        tol=0.0,
        n_iter_no_change=100,
    )
    with pytest.warns(UserWarning, match="converge"):  # it was to stop after 20 epochs
        theirs.fit(images[seen], labels[seen])
    ours = accuracy(model, images[unseen], labels[unseen])
    assert ours > 0.96
    assert abs(ours - theirs.score(images[unseen], labels[unseen])) < 0.02
