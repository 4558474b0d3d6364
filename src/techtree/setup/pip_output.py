"""What pip's lines tell about how far an installation is."""

import glob
import os
import re
from pathlib import Path

PACKAGE_LINE = re.compile(
    r"\s*(?:Collecting|Processing|Requirement already satisfied:) (?:\S*/)?([\w.]+(?:-[a-zA-Z]\w*)*)"
)
PROGRESS_LINE = re.compile(r"Progress (\d+) of (\d+)")
SIZE_LINE = re.compile(r"\s*Downloading .*\((.*)\)")

FINDING_SHARE = 0.2
"""The share of pip's time until all packages are downloaded, on a fast network; the rest installs them."""


class PipOutput:
    """How far a `pip install` of the project has come.

    Parameters
    ----------
    venv
        The virtual environment into which it installs.
    n_packages
        How many packages it will find, as far as is known.
    """

    def __init__(self, venv: str, n_packages: int) -> None:
        self.venv = venv
        self.n_packages = n_packages
        self.names: set[str] = set()
        self.detail = ""
        self.n_before = 0
        self.is_installing = False
        """Whether pip has begun to change what is installed."""

    def take(self, line: str) -> None:
        """Learn from one line."""
        if match := PACKAGE_LINE.match(line):
            self.detail = match[1]
            self.names.add(match[1])
            self.n_packages = max(self.n_packages, len(self.names))
        elif match := SIZE_LINE.match(line):
            self.detail = f"{self.detail.split(' ')[0]} ({match[1]})"
        elif match := PROGRESS_LINE.match(line):
            done_mb, all_mb = (int(number) // 1_000_000 for number in match.groups())
            self.detail = f"{self.detail.split(' ')[0]} ({done_mb} of {all_mb} MB)"
        elif line.startswith("Installing collected packages"):
            self.is_installing = True
            self.n_packages = line.count(",") + 1
            self.n_before = len(_installed(self.venv, "*.dist-info"))

    def state(self) -> str:
        """Return what pip is doing, in a few words."""
        if self.is_installing:
            return f"{self._n_installed()} of {self.n_packages} installed"
        if self.names:
            return f"{len(self.names)} of {self.n_packages} found, now {self.detail}"
        return "asking the package index"

    def share_done(self) -> float:
        """Return the share of the time that is over, from 0 to 1, by a rough measure."""
        if self.is_installing:
            # What others need comes first, so the large ones come last; the power fits a measured set-up.
            return FINDING_SHARE + (1 - FINDING_SHARE) * (self._n_installed() / self.n_packages) ** 2.5
        return FINDING_SHARE * len(self.names) / max(1, self.n_packages)

    def fetches_cuda(self) -> bool:
        """Return whether pip has come across a library for NVIDIA cards."""
        return any(name.startswith("nvidia") for name in self.names)

    def _n_installed(self) -> int:
        return max(0, len(_installed(self.venv, "*.dist-info")) - self.n_before)


def pip_progress_style(venv: str) -> str:
    """Return the `--progress-bar` of a virtual environment's pip that can be read here."""
    versions = [Path(folder).name.split("-")[1].split(".") for folder in _installed(venv, "pip-*.dist-info")]
    return "raw" if any((int(v[0]), int(v[1])) >= (24, 1) for v in versions) else "off"


def _installed(venv: str, pattern: str) -> list[str]:
    library = "Lib" if os.name == "nt" else os.path.join("lib", "python*")
    return glob.glob(os.path.join(glob.escape(venv), library, "site-packages", pattern))
