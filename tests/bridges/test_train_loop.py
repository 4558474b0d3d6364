"""Portions against one batch in PyTorch, and a training process that is really killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from killed_run import N, X, Y, batch_loss, new_model, run_to_the_end
from techtree.techs.autodiff.safetensors import load_file, read_metadata
from techtree.techs.training.train_loop import accumulate, evaluate


def test_portions_have_the_loss_and_gradient_of_one_batch_in_torch():
    model = new_model()
    portions = np.split(np.arange(N), [3, 4, 40, 41, 90])
    loss = accumulate(model, batch_loss, portions)
    tensors = [torch.from_numpy(each.data).requires_grad_() for each in model.parameters()]
    w1, b1, w2, b2 = tensors
    logits = torch.relu(torch.from_numpy(X) @ w1.T + b1) @ w2.T + b2
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(Y))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert evaluate(model, batch_loss, portions) == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(model.parameters(), tensors, strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-9, atol=1e-13)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    """SIGKILL at three moments that nobody chose: nothing is executed afterwards, no `finally`, no flush."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(whole)
    command = [sys.executable, Path(__file__).parents[1] / "killed_run.py", killed]
    steps = []
    for n_more in (1, 4, 2):
        before = int(read_metadata(killed)["step"]) if killed.exists() else 0
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if killed.exists() and int(read_metadata(killed)["step"]) >= before + n_more:
                process.kill()
                break
            time.sleep(0.001)
        process.wait(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 0)
        steps.append(int(read_metadata(killed)["step"]))
    assert steps[0] < 16
    assert steps == sorted(steps)
    run_to_the_end(killed)
    assert read_metadata(killed) == read_metadata(whole)
    a, b = load_file(killed), load_file(whole)
    assert {name: x.tobytes() for name, x in a.items()} == {name: x.tobytes() for name, x in b.items()}
