"""Rule 4: the unit tests pass, and they are tests: they refuse the stub and every known mistake.

The tests run in a process of their own, with a limit on time; `techs/conftest.py` is the other
half of this file, on that process's side.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from techtree.tree.technology import Technology

TIMEOUT_S = 300
"""For one technology with all its variants. The slowest of ours takes a tenth of it."""


@dataclass(frozen=True)
class Outcome:
    """How one subject fared: ``failures`` maps the tests that refused it to the first line of why."""

    subject: str
    should_pass: bool
    n_passed: int
    failures: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What a run of a technology's tests gave; ``error`` is set when it did not get that far."""

    outcomes: tuple[Outcome, ...]
    error: str = ""

    def problems(self) -> list[str]:
        """Return what is wrong with the implementation or with its tests, one sentence each."""
        if self.error:
            return [self.error]
        return [problem for outcome in self.outcomes for problem in _problems(outcome)]


def _problems(outcome: Outcome) -> list[str]:
    if not outcome.should_pass and not outcome.failures:
        return [f"the tests accept the {outcome.subject}"]
    if outcome.should_pass and not outcome.failures and not outcome.n_passed:
        return [f"no test ran for {outcome.subject}"]
    if outcome.should_pass:
        return [f"{outcome.subject} fails {test}: {why}" for test, why in outcome.failures.items()]
    return []


def grade(
    tech: Technology,
    subjects: str = "graders",
    seed: int = 0,
    is_borrowed: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Run a technology's tests in a separate process.

    Parameters
    ----------
    tech
        A technology with a folder.
    subjects
        ``"graders"``: ours, the stub, every mistake and equivalent. ``"own"``: ours alone. Otherwise the
        path of a file with another implementation.
    seed
        Of the tests' random inputs.
    is_borrowed
        Whether the file is a borrowed library's adapter, which may import what it wants.
    timeout_s
        Seconds until the process is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
        # A right version may warn (log of 0): values decide, so warnings are off. The configuration is
        # empty, because the project's own would add its plugins and options.
        Path(folder, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        command += [f"--config-file={folder}/pytest.ini", f"--rootdir={tech.folder}"]
        command += [f"--confcutdir={_techs(tech)}", f"--subjects={subjects}", f"--seed={seed}"]
        command += [f"--outcomes={report}", str(tech.folder)]
        command += ["--borrowed"] if is_borrowed else []
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=folder
            )
        except subprocess.TimeoutExpired:
            return Report((), f"the tests were stopped after {timeout_s:.0f} s")
        if not report.is_file():
            tail = (run.stdout + run.stderr).strip().splitlines()[-8:]
            return Report((), "the tests could not run: " + " | ".join(line.strip() for line in tail))
        raw = json.loads(report.read_text(encoding="utf-8"))
    return Report(tuple(Outcome(**outcome) for outcome in raw["outcomes"]), raw["error"])


def _techs(tech: Technology) -> Path:
    """Return the folder of all technologies, where `conftest.py` lies."""
    return tech.file("").parent.parent
