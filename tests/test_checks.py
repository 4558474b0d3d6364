"""The checks of CONTRIBUTING.md as tests, so that `./techtree test` runs them too."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    # The launcher has no suffix, so ruff must be told of it; old Pythons read it, so it keeps old forms.
    "lint of the launcher": ["ruff", "check", "--ignore", "UP,RUF005", "techtree"],
    "format of the launcher": ["ruff", "format", "--check", "techtree"],
    "layers": ["lint-imports"],
    "types": ["basedpyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("command", CHECKS.values(), ids=CHECKS.keys())
def test_check_finds_nothing(command):
    program = Path(sysconfig.get_path("scripts"), command[0])
    result = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)
