"""A certified installation whose tree is the small one, made once."""

import os
import subprocess
import sys

import pytest

from small_tree import write_package


@pytest.fixture(scope="session")
def installation(tmp_path_factory):
    """The folder of the package; a test that changes it must copy it first."""
    folder = write_package(tmp_path_factory.mktemp("installation"))
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-m", "techtree", "unlock"], check=True, env=environment, cwd=folder)
    return folder
