"""The fixtures of every technology's tests: `impl`, the module under test, and `rng`.

`pytest src/techtree/techs/ground/numerics` judges our implementation;
`--subjects=graders` judges the stub and every variant too, and expects the tests to refuse
the stub and the mistakes; `--subjects=FILE` judges a file. `techtree.tree.grading` calls it so.
"""

import json
import signal
import traceback
from pathlib import Path

import numpy as np
import pytest

from techtree.tree import subject
from techtree.tree.graph import Tree, load_tree
from techtree.tree.import_rule import watch_calls, watch_imports
from techtree.tree.rules import import_rule
from techtree.tree.technology import Technology

TEST_TIMEOUT_S = 20
"""For one test: a wrong version may loop for ever."""

_outcomes: dict[tuple[str, str], dict] = {}


def pytest_addoption(parser):
    parser.addoption("--subjects", default="own", help="own, graders, or a file with an implementation")
    parser.addoption("--seed", type=int, default=0, help="of the tests' random inputs")
    parser.addoption("--borrowed", action="store_true", help="the file may import what it wants")
    parser.addoption("--outcomes", type=Path, help="write what happened to each subject, as JSON")


def pytest_configure(config):
    config.stash[TREE] = tree = load_tree(Path(__file__).parent)
    config.stash[SUBJECTS] = {}
    if config.getoption("--outcomes") and not config.getoption("--borrowed"):
        _watch(tree, config)


TREE = pytest.StashKey[Tree]()
SUBJECTS = pytest.StashKey[dict[str, list[subject.Subject]]]()


def _watch(tree: Tree, config) -> None:
    """Watch what implementations import and call: those of the folders that this run was given."""
    rules = {}
    for argument in config.args:
        tech = tree[Path(argument).name]
        rules[str(tech.implementation)] = import_rule(tree, tech)
        watch_calls(tech.replaces, lambda file: file in rules or file.startswith("<"))
    chosen = config.getoption("--subjects")
    if chosen not in ("own", "graders"):
        rules[chosen] = next(iter(rules.values()))
    watch_imports(rules.get)


def _technology(config, path: Path) -> Technology:
    return config.stash[TREE][path.parent.name]


def _subjects(config, tech: Technology) -> list[subject.Subject]:
    known = config.stash[SUBJECTS]
    if tech.id not in known:
        chosen = config.getoption("--subjects")
        if chosen == "graders":
            known[tech.id] = subject.graders(tech)
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
    return subject.load(tech, request.param)


@pytest.fixture
def rng(request) -> np.random.Generator:
    """The source of a test's random inputs; the same for every subject."""
    return np.random.default_rng(request.config.getoption("--seed"))


def _key(item) -> tuple[str, str] | None:
    params = getattr(item, "callspec", None) and item.callspec.params
    return (item.path.parent.name, params["impl"].name) if params and "impl" in params else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Stop a test that takes too long, where the system can."""
    if not hasattr(signal, "setitimer"):
        return (yield)

    def stop(signum, frame):
        raise TimeoutError(f"stopped after {TEST_TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TEST_TIMEOUT_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_runtest_setup(item):
    """Skip the rest of the tests once they have refused a wrong version: one refusal is enough."""
    key = _key(item)
    if key and not item.callspec.params["impl"].should_pass and _outcomes.get(key, {}).get("failures"):
        pytest.skip("refused already")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    key = _key(item)
    if key is not None:
        judged = item.callspec.params["impl"]
        outcome = _outcomes.setdefault(
            key, {"subject": judged.name, "should_pass": judged.should_pass, "n_passed": 0, "failures": {}}
        )
        if report.failed:
            outcome["failures"][item.originalname] = _first_line(call.excinfo)
        elif report.when == "call" and report.passed:
            outcome["n_passed"] += 1
    return report


def _first_line(excinfo) -> str:
    """Return what was raised, without pytest's explanation of each term."""
    text = "".join(traceback.format_exception_only(excinfo.type, excinfo.value)).strip()
    return text.splitlines()[0][:300] if text else excinfo.typename


def pytest_sessionfinish(session, exitstatus):
    path = session.config.getoption("--outcomes")
    if path is None:
        return
    broken = exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    error = ""
    if broken:
        reports = session.config.pluginmanager.get_plugin("terminalreporter").stats.get("error", [])
        said = [
            line for report in reports for line in report.longreprtext.splitlines() if line.startswith("E ")
        ]
        error = "the tests could not run: " + " | ".join(line[1:].strip() for line in said[:4])
        error = (
            error if said else "no test was found" if exitstatus == 5 else f"{error}pytest exit {exitstatus}"
        )
    path.write_text(json.dumps({"outcomes": list(_outcomes.values()), "error": error}), encoding="utf-8")
