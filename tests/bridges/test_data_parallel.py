"""The ring against PyTorch: collectives of real processes, and one model with the joined batch."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from collectives_run import ARRAYS, N, in_a_process
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.data_parallel import (
    Network,
    ShardedOptimizer,
    all_gather,
    all_reduce,
)
from techtree.techs.training.mlp import MLP
from techtree.techs.training.train_loop import accumulate


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
def test_real_processes_of_torch_end_with_the_same_arrays(tmp_path):
    mp.spawn(in_a_process, args=(str(tmp_path),), nprocs=N)
    reduced = all_reduce(ARRAYS, Network(N))
    gathered = all_gather([each.reshape(-1) for each in ARRAYS], Network(N))
    for rank in range(N):
        theirs = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_allclose(reduced[rank], theirs["reduced"], rtol=1e-14)
        assert np.array_equal(gathered[rank], theirs["gathered"].reshape(-1))


def test_four_workers_train_as_one_model_of_torch_does():
    """Parts of 1, 2, 5 and 16 examples, a sharded AdamW, ten steps: the weights stay together."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6)), rng.integers(3, size=24)
    counts = [1, 2, 5, 16]
    ends = np.cumsum(counts)

    def losses(model, rows):
        return cross_entropy(model(Tensor(x[rows])), y[rows], reduction="sum"), len(rows)

    models = [MLP([6, 8, 3], np.random.default_rng(1)) for _ in counts]
    replicas = [list(model.parameters()) for model in models]
    weights = [torch.from_numpy(each.data.copy()).requires_grad_() for each in replicas[0]]
    optimizer = torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1)
    sharded = ShardedOptimizer(replicas, lambda each: AdamW(each, 0.01, weight_decay=0.1), Network(4))
    for _ in range(10):
        for model, end, n in zip(models, ends, counts, strict=True):
            accumulate(model, losses, [np.arange(end - n, end)])
        sharded.step(counts)
        optimizer.zero_grad()
        w1, b1, w2, b2 = weights
        logits = torch.relu(torch.from_numpy(x) @ w1.T + b1) @ w2.T + b2
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)).backward()
        optimizer.step()
    for replica in replicas:
        for ours, theirs in zip(replica, weights, strict=True):
            np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-7, atol=1e-9)
