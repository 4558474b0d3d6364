"""Two ranks on this machine, over gloo: they must do what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ranks_run
from ranks_run import EXPERTS, run
from techtree.errors import InputError
from techtree.lm.train.checkpoint_folder import newest
from techtree.lm.train.ranks import Ranks, SharedInputError, explained_loss_of_ranks, join_ranks, share

SCRIPT = Path(ranks_run.__file__)
STRATEGIES = ("replicated", "sharded")

CLOSE = 1e-5
"""The ranks add up in another order than one does, in float32; over 50 steps that grew to 6e-7 at most."""


def start_two(scenarios):
    """Start two ranks, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(SCRIPT), json.dumps(scenarios)]
    return [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def two(*scenarios):
    """Return what the first of two ranks says about each scenario."""
    processes = start_two(scenarios)
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(line) for line in outputs[0][0].splitlines()]


def assert_close(losses, expected):
    assert len(losses) == len(expected)
    assert losses == pytest.approx(expected, abs=CLOSE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The losses of one rank that nothing disturbed."""
    losses = run(None, tmp_path_factory.mktemp("alone"))
    assert losses[-1] < 0.1 < 4 < losses[0]
    return losses


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two ranks did, in one session: it takes seconds to start them."""
    root = tmp_path_factory.mktemp("pair")
    assert len(run(None, root / "from one", stop_at=20)) == 20
    names = ["replicated", "sharded", "stopped", "from one"]
    results = two(
        {"folder": str(root / "replicated")},
        {"folder": str(root / "sharded"), "strategy": "sharded"},
        {"folder": str(root / "stopped"), "strategy": "sharded", "stop_at": 20},
        {"folder": str(root / "from one")},
    )
    return root, dict(zip(names, results, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_equal_one_on_the_same_batches(alone, pair, strategy):
    assert_close(pair[1][strategy], alone)


def test_what_one_rank_saved_two_resume(alone, pair):
    assert_close(pair[1]["from one"], alone[20:])


def test_what_two_ranks_saved_one_resumes(alone, pair):
    root, results = pair
    # Only one of them got the Ctrl-C; both stopped after the step in which they heard of it.
    n_taken = len(results["stopped"])
    assert n_taken == 21
    assert_close(results["stopped"], alone[:n_taken])
    assert len(list((root / "stopped" / "checkpoints").glob("*-00000021/rank-*-of-00002.safetensors"))) == 2
    assert_close(run(None, root / "stopped"), alone[n_taken:])


def test_a_rank_has_its_share_of_the_rows_on_disk(pair):
    folder = newest(pair[0] / "sharded").folder
    sizes = [path.stat().st_size for path in sorted(folder.glob("rank-*"))]
    # Half each, but for the losses; headers take some kB.
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.slow
def test_micro_batches_and_experts_on_two_ranks(alone, tmp_path):
    experts = run(None, tmp_path / "one with experts", model={"experts": EXPERTS})
    assert max(abs(a - b) for a, b in zip(experts, alone, strict=True)) > 100 * CLOSE  # another model indeed
    results = two(
        *(
            {"folder": str(tmp_path / strategy), "strategy": strategy, "n_micro_batches": 3}
            for strategy in STRATEGIES
        ),
        *(
            {"folder": str(tmp_path / f"{strategy} experts"), "strategy": strategy, "has_experts": True}
            for strategy in STRATEGIES
        ),
    )
    for losses in results[:2]:
        assert_close(losses, alone)
    for losses in results[2:]:
        assert_close(losses, experts)
    biases = [
        biases_in(tmp_path / name) for name in ("one with experts", "replicated experts", "sharded experts")
    ]
    assert biases[0].any()
    assert torch.equal(biases[0], biases[1])
    assert torch.equal(biases[0], biases[2])


def biases_in(folder):
    from techtree.lm.train.run import load_model

    state = load_model(newest(folder)).state_dict()
    return torch.cat([tensor for name, tensor in state.items() if name.endswith("selection_bias")])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_is_killed_and_the_same_command_goes_on(alone, tmp_path, strategy):
    scenario = {"folder": str(tmp_path), "strategy": strategy, "checkpoint_interval_s": 0.0, "kill_at": 30}
    processes = start_two([scenario])
    outputs = [process.communicate(timeout=100) for process in processes]
    assert processes[1].returncode == -signal.SIGKILL
    # The other one does not hang, and says what to do.
    assert processes[0].returncode == 0
    assert "another rank must have gone away" in outputs[0][0]
    assert "the same command goes on from the newest checkpoint" in outputs[0][0]
    saved = newest(tmp_path).state.step
    assert 20 <= saved <= 30
    [losses] = two({"folder": str(tmp_path), "strategy": strategy})
    assert_close(losses, alone[saved:])


@pytest.mark.slow
def test_both_ranks_end_with_one_error(tmp_path):
    wild = {"muon_lr": 1e30, "embedding_lr": 1e30}
    (tmp_path / "file").write_text("")
    messages = two(
        {"folder": str(tmp_path / "wild"), **wild},
        {"folder": str(tmp_path / "wild sharded"), "strategy": "sharded", **wild},
        {"folder": str(tmp_path / "file" / "run")},
        {"folder": str(tmp_path / "many"), "n_micro_batches": 5},
    )
    assert all(message.startswith("training diverged: ") for message in messages[:2])
    assert "checkpoint of step 0 could not be written" in messages[2]
    assert "got 5 for 9 rows on 2 ranks" in messages[3]


def test_without_torchrun_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu"))
        assert ranks.is_first
        assert ranks.sums(1.5, 2) == [1.5, 2]
        tensor = torch.ones(2)
        ranks.add_up(tensor)
        assert tensor.tolist() == [1, 1]


def test_together_alone_is_nothing():
    with pytest.raises(InputError, match="mine") as caught, Ranks().together():
        raise InputError("mine")
    assert not isinstance(caught.value, SharedInputError)


@pytest.mark.parametrize("n_rows", [0, 1, 5, 16])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 8])
def test_shares_are_those_of_torch_chunk(n_rows, n_ranks):
    # FSDP2 divides with torch.chunk, which leaves empty chunks out.
    chunks = [len(chunk) for chunk in torch.arange(n_rows).chunk(n_ranks)] if n_rows else []
    chunks += [0] * (n_ranks - len(chunks))
    shares = [share(n_rows, rank, n_ranks) for rank in range(n_ranks)]
    assert [s.stop - s.start for s in shares] == chunks
    assert [i for s in shares for i in range(s.start, s.stop)] == list(range(n_rows))


def test_other_runtime_errors_are_left_alone(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), explained_loss_of_ranks(tmp_path):
        raise RuntimeError("shapes do not fit")


def test_a_gpu_for_every_rank(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="there are 2, and this is rank number 3"), join_ranks("cuda"):
        pytest.fail("it joined")
