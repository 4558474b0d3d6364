"""A small training run in a process of its own, for a test that kills it."""

import sys

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.mlp import MLP
from techtree.techs.training.train_loop import train

N, K = 96, 5
X = np.random.default_rng(0).normal(size=(N, 6))
Y = np.random.default_rng(1).integers(K, size=N)
Y[::7] = -100  # these do not count


def batch_loss(model, batch):
    return cross_entropy(model(Tensor(X[batch])), Y[batch], reduction="sum"), int((Y[batch] >= 0).sum())


def new_model():
    return MLP([6, 16, K], np.random.default_rng(2))


def run_to_the_end(path, n_steps=16):
    """Save after each step, and go on from what was saved."""
    model, stream = new_model(), BatchStream(DataLoader(N, 16, seed=3))
    optimizer = AdamW(model.parameters(), 0.01)
    train(model, batch_loss, optimizer, stream, n_steps, n_accumulate=2, path=path, save_every=1)


if __name__ == "__main__":
    run_to_the_end(sys.argv[1])
