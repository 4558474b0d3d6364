"""The fixtures of every technology's tests: `impl`, the module under test, and `rng`.

`pytest src/techtree/techs/ground/numerics` judges our implementation;
`--subjects=graders` judges the stub and every variant too, and expects the tests to refuse
the stub and the mistakes; `--subjects=FILE` judges a file. `techtree.tree.grading` calls it so.
"""

import contextlib
import gc
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from techtree.techs import aim
from techtree.techs.spoils import SPOILS
from techtree.tree import answers, confinement, subject
from techtree.tree.graph import Tree, load_tree
from techtree.tree.import_rule import watch_calls, watch_imports
from techtree.tree.rules import import_rule
from techtree.tree.technology import Technology

TEST_TIMEOUT_S = 6
"""Of CPU, for one test: a wrong version may loop for ever."""

BORROWED_TIMEOUT_S = 60
"""A borrowed library loads many modules when it is first used."""

TREE = pytest.StashKey[Tree]()
SUBJECTS = pytest.StashKey[dict[str, list[subject.Subject]]]()
REPORTER = pytest.StashKey["Reporter"]()


class OutOfTimeError(BaseException):
    """A test took too long. (No Exception: a version that swallows those must not swallow this.)"""


def pytest_addoption(parser):
    parser.addoption(
        "--subjects", default="own", help="own, graders, mutants, or a file with an implementation"
    )
    parser.addoption("--seed", type=int, default=0, help="of the tests' random inputs")
    parser.addoption("--borrowed", action="store_true", help="the file may import what it wants")
    parser.addoption(
        "--judged", action="store_true", help="report to techtree.tree.grading on the other side"
    )


def pytest_configure(config):
    config.stash[TREE] = load_tree(Path(__file__).parent)
    config.stash[SUBJECTS] = {}
    if config.getoption("--judged"):
        reporter = Reporter(config, _private_channel())
        config.stash[REPORTER] = reporter
        config.pluginmanager.register(reporter)


def _private_channel() -> Callable[[dict], None]:
    """Return what sends a message to the judging process, and make standard output lead nowhere."""
    secret = os.read(0, 100).strip()
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)

    def send(message: dict) -> None:
        line = secret + json.dumps(message).encode("ascii") + b"\n"
        while line:
            line = line[os.write(channel, line) :]

    return send


def _technology(config, path: Path) -> Technology:
    return config.stash[TREE][path.parent.name]


def _subjects(config, tech: Technology) -> list[subject.Subject]:
    known = config.stash[SUBJECTS]
    if tech.id not in known:
        chosen = config.getoption("--subjects")
        if chosen == "graders":
            known[tech.id] = subject.graders(tech)
        elif chosen == "mutants":
            known[tech.id] = subject.mutants(tech, SPOILS)
        elif chosen == "own":
            known[tech.id] = [subject.own(tech)]
        else:
            known[tech.id] = [subject.from_file(Path(chosen))]
    return known[tech.id]


def pytest_generate_tests(metafunc):
    if "impl" in metafunc.fixturenames:
        tech = _technology(metafunc.config, Path(metafunc.module.__file__))
        subjects = _subjects(metafunc.config, tech)
        metafunc.parametrize("impl", subjects, ids=lambda s: s.name, indirect=True, scope="module")


@pytest.fixture(scope="module")
def impl(request):
    """The module under test."""
    tech = _technology(request.config, request.path)
    aim.look_at(request.param.source)
    return subject.load(tech, request.param)


@pytest.fixture
def rng(request) -> np.random.Generator:
    """The source of a test's random inputs; the same for every subject."""
    return np.random.default_rng(request.config.getoption("--seed"))


@contextlib.contextmanager
def _in_time(limit_s: float):
    """Stop what the block does when it takes too long, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(signum, frame):
        raise OutOfTimeError(f"stopped after {limit_s} s: does it ever end?")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit_s, 0.5)  # again and again: it may swallow the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# Around each phase and not around all of them: raised between two, it would end pytest and not the test.
@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Stop a version that takes too long to load."""
    with _in_time(_limit_s(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Stop a test that takes too long."""
    with _in_time(_limit_s(item)):
        return (yield)


def _limit_s(item) -> float:
    return BORROWED_TIMEOUT_S if item.config.getoption("--borrowed") else TEST_TIMEOUT_S


class Reporter:
    """Tells the judging process what happens, as it happens, and keeps the judged source within bounds."""

    def __init__(self, config, send: Callable[[dict], None]) -> None:
        self.config = config
        self.send = send
        self.refused: set[str] = set()
        self.costs: dict[tuple[str, str], float] = {}
        self.n_done = 0
        self.n_told = 0
        self.watch: confinement.Watch | None = None
        self.seal: confinement.Seal | None = None
        self.tech: Technology | None = None

    @property
    def file(self) -> Path | None:
        """The file that is judged, when it is one and not the technology's own."""
        chosen = self.config.getoption("--subjects")
        return None if chosen in ("own", "graders", "mutants") else Path(chosen)

    def pytest_collectreport(self, report):
        if report.failed:
            lines = [line.strip() for line in report.longreprtext.splitlines() if line.strip()]
            self.send({"kind": "error", "text": lines[-1][:600] if lines else "no reason is known"})

    def pytest_collection_finish(self, session):
        """Say what will be judged, before a judged source has run; then watch."""
        judged = [item for item in session.items if _subject_of(item)]
        subjects = {_subject_of(item).name: _subject_of(item).should_pass for item in judged}
        tests = [[_subject_of(item).name, _label(item), item.originalname] for item in judged]
        self.send({"kind": "collected", "subjects": list(subjects.items()), "tests": tests})
        if judged:
            self.tech = _technology(self.config, judged[0].path)
            if not self.config.getoption("--borrowed"):
                self._confine(self.tech, {item.module.__name__: item.module for item in judged})
        gc.collect()
        gc.freeze()  # Tests that count what is left over need not look at pytest's own objects each time.

    def _confine(self, tech: Technology, tests: dict) -> None:
        tree = self.config.stash[TREE]
        file, own = self.file, str(tech.implementation)
        rule = import_rule(tree, tech, is_ours=file is None)
        watched = {own} if file is None else {str(file)}

        def is_watched(name: str) -> bool:
            return name in watched or name.startswith(f"<{tech.id}")

        for ancestor in tree.ancestors(tech.id):  # So that reading them later is nobody's attempt.
            subject.import_package(ancestor)
        watch_calls(tech.replaces, is_watched)
        confinement.limit_process()
        # Our own file is hidden from a learner's only.
        hidden = [] if file is None else [tech.implementation, tech.file("variants.py")]
        self.watch = confinement.Watch(is_watched, rule.may_load, hidden, Path.cwd())
        watch_imports(lambda name: rule if is_watched(name) else None, self.watch.note)
        self.seal = confinement.Seal(tests.values())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        """Say what begins."""
        judged = _subject_of(item)
        if judged is not None:
            self.send({"kind": "started", "subject": judged.name, "test": _label(item)})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Leave the rest of the tests out once they have refused a wrong version: one refusal is enough.

        Wrong versions meet the tests that ours went through fastest first. The order among what is to come is
        changed in place, in the list that pytest walks along.
        """
        done = yield
        self.n_done += 1
        judged, items, rest = _subject_of(item), item.session.items, self.n_done
        if judged is None:
            return done
        if judged.name == "own" and (nextitem is None or _subject_of(nextitem) is not judged):
            groups = itertools.groupby(items[rest:], _group)
            items[rest:] = [each for _, group in groups for each in sorted(group, key=self._cost)]
        if judged.name in self.refused and not judged.should_pass:
            items[rest:] = [each for each in items[rest:] if _subject_of(each) is not judged]
            _let_go()
        return done

    def _cost(self, item) -> float:
        """Return how long a test took ours, for the order of a wrong version's tests."""
        judged = _subject_of(item)
        if judged is None or judged.should_pass:
            return 0.0
        return self.costs.get((str(item.path), _label(item)), 0.0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        judged = _subject_of(item)
        if judged is None or (report.when != "call" and report.passed):
            return report
        verdict = "skipped" if report.skipped else "failed" if report.failed else "passed"
        why = _first_line(call.excinfo) if call.excinfo else ""
        facts = _facts(item, call.excinfo, self.file) if call.excinfo and self.file else []
        if verdict != "skipped" and self.seal and (exchanged := self.seal.broken()):
            verdict, why, facts = "failed", f"exchanges {exchanged}, on which the verdict stands", []
        if verdict == "failed":
            self.refused.add(judged.name)
        if judged.name == "own":
            self.costs[str(item.path), _label(item)] = call.duration
        if self.file is not None and call.excinfo and issubclass(call.excinfo.type, OutOfTimeError):
            item.session.shouldstop = "a test did not end"  # The next one would not either.
        told = {"subject": judged.name, "test": _label(item), "verdict": verdict, "why": why, "facts": facts}
        self.send({"kind": "judged", **told})
        self._tell_attempts(judged.name)
        return report

    def _tell_attempts(self, name: str) -> None:
        attempts = self.watch.attempts if self.watch else []
        for text in attempts[self.n_told :]:
            self.send({"kind": "attempt", "subject": name, "text": text})
        self.n_told = len(attempts)
        if self.file is None:  # The next version of ours may try the same.
            attempts.clear()
            self.n_told = 0

    def pytest_sessionfinish(self, session, exitstatus):
        is_judged = self.tech is not None and not self.config.getoption("--borrowed")
        if self.file is not None and is_judged and not session.shouldstop:
            self._answer(self.tech, self.file)
        self.send({"kind": "finished", "exit": int(exitstatus)})

    def _answer(self, tech: Technology, file: Path) -> None:
        """Let the file answer the technology's probes, and count the lines of it that run."""
        probes = subject.load_variants(tech).probes(np.random.default_rng(0))
        lines: set[int] = set()
        name = str(file)

        def trace(frame, event, argument):
            if frame.f_code.co_filename != name:
                return None
            if event == "line":
                lines.add(frame.f_lineno)
            return trace

        sys.settrace(trace)
        try:
            with _in_time(TEST_TIMEOUT_S), np.errstate(all="ignore"):
                found = answers.ask(probes, subject.load(tech, subject.from_file(file)))
        except BaseException:  # Whatever it does, the verdict of the tests stands.
            found = {}
        finally:
            sys.settrace(None)
        self.send({"kind": "answers", "answers": found, "n_lines": len(lines)})
        self._tell_attempts("yours")


def _subject_of(item) -> subject.Subject | None:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return params.get("impl")


def _facts(item, excinfo, file: Path) -> list[str]:
    """Return a few lines that show a learner what was asked and what went wrong."""
    drawn = getattr(excinfo.value, "facts", None)
    if drawn:
        return list(drawn)
    facts = []
    if item.function.__doc__:
        facts.append(" ".join(item.function.__doc__.split())[:200])
    frames = [(Path(each.path), each.lineno + 1, _statement(each)) for each in excinfo.traceback]
    asked = [statement for path, _, statement in frames if path == item.path]
    if asked:
        # What a comment tells linters is nobody's concern here.
        facts.append("asked: " + " ".join(asked[-1].partition("  # noqa")[0].split())[:200])
    inside = [(number, statement) for path, number, statement in frames if path == file]
    if inside and frames[-1][0] != item.path:
        facts.append(f"in your line {inside[-1][0]}: {' '.join(inside[-1][1].split())[:160]}")
    what = _what_was_raised(excinfo).splitlines()
    return [*facts, *(line[:200] for line in what[:3] if not line.lstrip().startswith("+"))]


def _statement(entry) -> str:
    """Return the line of a traceback's entry; nothing where there is none, as in a generated ``__init__``."""
    return str(entry.statement).strip() if entry.frame.code.fullsource else ""


def _let_go() -> None:
    """End what the traceback of the last failure keeps alive: a generator within `no_grad`, say.

    The next version would run with gradients switched off, and be refused for it.
    """
    for name in ("last_exc", "last_traceback", "last_type", "last_value"):
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()


def _group(item) -> tuple[str, str]:
    """Return what stays together when tests are put in order: a file's tests of one subject."""
    judged = _subject_of(item)
    return str(item.path), judged.name if judged else ""


def _label(item) -> str:
    """Return a test's name with its other parameters: ``test_softmax[axis0]``."""
    others = [each for each in item.callspec._idlist if each != _subject_of(item).name]
    return item.originalname + (f"[{'-'.join(others)}]" if others else "")


def _first_line(excinfo) -> str:
    """Return what was raised, without pytest's explanation of each term."""
    text = _what_was_raised(excinfo)
    return text.splitlines()[0][:300] if text else excinfo.typename


def _what_was_raised(excinfo) -> str:
    text = "".join(traceback.format_exception_only(excinfo.type, excinfo.value)).strip()
    return text.removeprefix(f"{excinfo.type.__module__}.")
