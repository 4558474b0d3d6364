"""Whatever options and places a command gets, it ends well or with one sentence; see `random_commands`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).with_name("random_commands.py")

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs fork and limits of POSIX")


def run(folder: Path, seed: int, n_cases: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), str(folder), str(seed), str(n_cases)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    *problems, last = done.stdout.splitlines()
    assert problems == []
    assert int(last.split()[0]) >= n_cases // 10  # else the cases are no good


@posix_only
def test_twenty_random_commands(tmp_path):
    run(tmp_path, seed=0, n_cases=20)


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_random_commands(tmp_path, seed):
    run(tmp_path, seed, n_cases=300)
