"""A small clone to launch: the real launcher and set-up around a package without dependencies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "techtree"
version = "0.1.0"
dependencies = []
optional-dependencies = { dev = [] }
"""

# The smallest builder of editable installs, because fetching hatchling would need a network.
BACKEND = """\
import pathlib
import tomllib
import zipfile


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    needed = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]["dependencies"]
    metadata = ["Metadata-Version: 2.1", "Name: techtree", "Version: 0.1.0", "Provides-Extra: dev"]
    info = "techtree-0.1.0.dist-info"
    files = {
        "techtree.pth": str(pathlib.Path("src").resolve()),
        f"{info}/METADATA": "\\n".join(metadata + [f"Requires-Dist: {name}" for name in needed]) + "\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nTag: py3-none-any\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(wheel_directory, "techtree-0.1.0-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "techtree-0.1.0-py3-none-any.whl"
"""

PROGRAM = """\
import json, os, sys

print(json.dumps({"prefix": sys.prefix, "words": sys.argv[1:], "folder": os.getcwd()}))
sys.exit(7 if "fail" in sys.argv else 0)
"""


class Clone:
    """A folder with a launcher."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = root / "techtree"
        self.venv = root / ".venv"

    def fill(self) -> None:
        package = self.root / "src" / "techtree"
        package.mkdir(parents=True)
        for name in (
            "techtree",
            "src/techtree/__init__.py",
            "src/techtree/atomic.py",
            "src/techtree/errors.py",
            "src/techtree/file_lock.py",
            "src/techtree/streams.py",
        ):
            shutil.copy(ROOT / name, self.root / name)
        shutil.copytree(
            ROOT / "src/techtree/setup", package / "setup", ignore=shutil.ignore_patterns("__pycache__")
        )
        (package / "__main__.py").write_text(PROGRAM)
        (self.root / "src" / "pytest.py").write_text(PROGRAM)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "constraints.txt").write_text("numpy==2.4.6\n")
        (self.root / "backend.py").write_text(BACKEND)

    def start(self, *words: str, folder: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        # No network, and none of this machine's settings for pip.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"} | environment
        return subprocess.Popen(
            [sys.executable, str(self.launcher), *words],
            cwd=folder or self.root,
            env={name: value for name, value in clean.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *words: str, folder: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, folder=folder, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One clone for all tests, as a set-up takes seconds; its path has a space and a letter beyond ASCII."""
    made = Clone(tmp_path_factory.mktemp("launcher") / "a clone é")
    made.fill()
    return made
