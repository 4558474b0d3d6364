"""The checks of CONTRIBUTING.md as tests, so that `./techtree test` runs them too."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

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
def test_check_finds_nothing(command, project_copy):
    """In the project's own files: what somebody left in the checkout is not checked."""
    program = Path(sysconfig.get_path("scripts"), command[0])
    environment = os.environ | {"PYTHONPATH": str(project_copy / "src")}
    result = subprocess.run(
        [program, *command[1:]],
        cwd=project_copy,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)
