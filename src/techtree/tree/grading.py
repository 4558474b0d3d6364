"""Rule 4: the unit tests pass, and they are tests: they refuse the stub and every known mistake.

The tests run in a process of their own, with limits on time and memory; `techs/conftest.py` is the other half
of this file, on that process's side. It reports each test as it happens, over a channel that the judged
source does not know, and this side decides: a subject is green only if every test that was found before the
source was loaded has been reported as passed, and the process has ended as it should.
"""

import ast
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from techtree.tree.technology import Technology

TIMEOUT_S = 300
"""For one technology with all its variants. The slowest of ours takes a tenth of it."""

MARKER = "TECHTREE_JUDGED"
"""An environment variable by which everything that the judged process started is found again."""


@dataclass
class Outcome:
    """How one subject fared: ``failures`` maps the tests that refused it to the first line of why.

    ``facts`` maps some of them to lines that draw input, expectation and answer.
    """

    subject: str
    should_pass: bool
    n_passed: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    facts: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a run of a technology's tests gave; ``error`` is set when it did not get that far.

    Attributes
    ----------
    outcomes
        One for each subject.
    error
        Why nothing can be said, in one sentence; empty otherwise.
    answers
        Of a file, what it says to the technology's probes (`techtree.tree.answers`).
    n_lines
        Of a file, how many of its lines ran while it answered.
    """

    outcomes: tuple[Outcome, ...]
    error: str = ""
    answers: dict[str, object] = field(default_factory=dict)
    n_lines: int = 0

    def problems(self) -> list[str]:
        """Return what is wrong with the implementation or with its tests, one sentence each."""
        if self.error:
            return [self.error]
        return [problem for outcome in self.outcomes for problem in _problems(outcome)]


def _problems(outcome: Outcome) -> list[str]:
    if not outcome.should_pass and not outcome.failures:
        return [f"the tests accept the {outcome.subject}"]
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
        ``"graders"``: ours, the stub, every mistake and equivalent. ``"mutants"``: ours with one thing
        changed in each. ``"own"``: ours alone. Otherwise the path of a file with another implementation.
    seed
        Of the tests' random inputs.
    is_borrowed
        Whether the file is a borrowed library's adapter, which may import what it wants.
    timeout_s
        Seconds until the process is killed.
    """
    problem = _unjudgeable(tech)
    if problem:
        return Report((), problem)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.path.realpath(name))
        messages, ending = _run(_command(tech, folder, subjects, seed, is_borrowed), folder, timeout_s)
    return _decided(tech, messages, ending)


def _unjudgeable(tech: Technology) -> str:
    """Return why the tests of a technology cannot be trusted, before anything runs."""
    strangers = [path.name for path in tech.file("").rglob("conftest.py")]
    if strangers:
        return "the folder holds a conftest.py, which could change what its tests say"
    return "" if _test_names(tech) else "no test takes impl, the module under test"


def _test_names(tech: Technology) -> set[str]:
    """Return the names of the tests that judge a subject, read from the source."""
    names = set()
    for path in tech.file("").glob("test_*.py"):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            return {"unreadable"}  # The run says what is wrong with it.
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                names |= {node.name for argument in node.args.args if argument.arg == "impl"}
    return names


def _command(tech: Technology, folder: Path, subjects: str, seed: int, is_borrowed: bool) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "--tb=native",
    ]
    # A right version may warn (log of 0): values decide, so warnings are off. The configuration is
    # empty, because the project's own would add its plugins and options.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command += [f"--config-file={folder}/pytest.ini", f"--rootdir={tech.folder}", f"--basetemp={folder}/tmp"]
    command += [f"--confcutdir={_techs(tech)}", f"--subjects={subjects}", f"--seed={seed}", "--judged"]
    command += ["--borrowed"] if is_borrowed else []
    return [*command, str(tech.folder)]


def _techs(tech: Technology) -> Path:
    """Return the folder of all technologies, where `conftest.py` lies."""
    return tech.file("").parent.parent


def _run(command: list[str], folder: Path, timeout_s: float) -> tuple[list[dict], str]:
    """Run the judged process to its end; return its messages, and why it ended if not by itself."""
    secret = secrets.token_hex(16)
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    environment |= {MARKER: folder.name, "TMPDIR": str(folder)}
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd=folder,
            start_new_session=hasattr(os, "setsid"),
        )
    lines: list[bytes] = []
    assert process.stdin is not None
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    ending = ""
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{secret}\n".encode())
            process.stdin.close()
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        ending = f"stopped after {timeout_s:.0f} s"
    finally:
        _end_everything(process, folder.name)
        reader.join(5)
        process.stdout.close()
    if not ending and process.returncode:
        tail = (folder / "stderr").read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()[-3:]
        told = [f"exit code {process.returncode}", *(line.strip() for line in tail)]
        ending = " | ".join(told) if process.returncode > 0 else f"killed by signal {-process.returncode}"
    prefix = secret.encode()
    return [json.loads(line[len(prefix) :]) for line in lines if line.startswith(prefix)], ending


def _end_everything(process: subprocess.Popen, marker: str) -> None:
    """Kill the process and all that it started, also what left its group."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    wanted = f"{MARKER}={marker}".encode()
    for _ in range(20):  # What forks while it is hunted is found in the next round.
        found = [pid for pid in _process_ids() if wanted in _environment_of(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _process_ids() -> Iterable[int]:
    with contextlib.suppress(OSError):  # Only Linux has this folder; elsewhere the group has to do.
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _environment_of(pid: int) -> list[bytes]:
    try:
        if Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0] == "Z":
            return []
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _decided(tech: Technology, messages: list[dict], ending: str) -> Report:
    """Decide from the messages what was green."""
    of_kind: dict[str, list[dict]] = {}
    for message in messages:
        of_kind.setdefault(message["kind"], []).append(message)
    errors = [message["text"] for message in of_kind.get("error", [])]
    if errors:
        return Report((), "the tests could not run: " + " | ".join(errors[:4]))
    if "collected" not in of_kind:
        return Report((), f"the tests could not run: {ending or 'the process ended at once'}")
    outcomes = {name: Outcome(name, should_pass) for name, should_pass in of_kind["collected"][0]["subjects"]}
    waiting = {(subject, test) for subject, test, _ in of_kind["collected"][0]["tests"]}
    missing = _test_names(tech) - {function for _, _, function in of_kind["collected"][0]["tests"]}
    if not waiting or missing:
        return Report((), f"no test was found{f' of the name {min(missing)}' if missing else ''}")
    for message in of_kind.get("judged", []):
        outcome, place = outcomes[message["subject"]], (message["subject"], message["test"])
        if message["verdict"] == "passed" and place in waiting:
            outcome.n_passed += 1
        elif message["verdict"] == "failed":
            outcome.failures[message["test"]] = message["why"]
            outcome.facts[message["test"]] = message["facts"]
        elif message["verdict"] == "skipped" and outcome.should_pass:
            outcome.failures[message["test"]] = f"skipped, which is not passed: {message['why']}"
        waiting.discard(place)
    _judge_the_end(outcomes, waiting, of_kind, ending)
    answers = of_kind.get("answers", [{}])[-1]
    return Report(tuple(outcomes.values()), "", answers.get("answers", {}), answers.get("n_lines", 0))


def _judge_the_end(
    outcomes: dict[str, Outcome], waiting: set[tuple[str, str]], of_kind: dict[str, list[dict]], ending: str
) -> None:
    """Turn what was not judged, and what was tried, into failures."""
    started = of_kind.get("started", [{}])[-1]
    last = (started.get("subject", ""), started.get("test", ""))
    finished = "finished" in of_kind
    if not finished and last in waiting:
        outcomes[last[0]].failures[last[1]] = (
            f"the process ended while it ran ({ending or 'it left by itself'})"
        )
        waiting.discard(last)
    for name, outcome in outcomes.items():
        left = [test for subject, test in sorted(waiting) if subject == name]
        if left and (outcome.should_pass or not finished) and not outcome.failures:
            why = ending or "the process ended before all tests were judged"
            outcome.failures[left[0]] = f"not judged: {why}"
        elif not finished and outcome.should_pass and not outcome.failures:
            outcome.failures["the end"] = (
                f"the process did not end as it should: {ending or 'it left by itself'}"
            )
    for message in of_kind.get("attempt", []):
        outcome = outcomes[message["subject"]]
        if outcome.should_pass:
            outcome.failures.setdefault("forbidden", message["text"])
