"""The folder of a technology is complete, its graders are graded, its page and its figure are true."""

import ast
import dataclasses
import doctest
import gc
import json
import re
from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from proofs import proof_of
from techtree.cli.figure import STYLE
from techtree.techs.spoils import SPOILS
from techtree.tree.answers import ask, same
from techtree.tree.certificate import certificates, read_certificates
from techtree.tree.description import missing_from_description
from techtree.tree.grading import grade
from techtree.tree.graph import load_tree
from techtree.tree.rules import MIN_EQUIVALENTS, MIN_MISTAKES, implementation_problems
from techtree.tree.stub import make_stub
from techtree.tree.subject import graders, load, load_variants, mutants

TREE = load_tree()
CURRENT = certificates(TREE)
ISSUED = read_certificates(TREE.root)
FILES = (
    "tech.toml",
    "README.md",
    "__init__.py",
    "variants.py",
    "experiment.py",
    "figure.svg",
    "figure.json",
    "hints.md",
)

each_technology = pytest.mark.parametrize("tech", TREE.written, ids=lambda tech: tech.id)

PROVEN = {tech.id for tech in TREE.written if ISSUED.get(tech.id) == CURRENT[tech.id]}
"""Graded as they are by `techtree unlock`, which alone writes certificates: not graded in each run again."""


@each_technology
def test_the_folder_is_complete(tech):
    names = {path.name for path in tech.folder.iterdir() if path.name != "__pycache__"}
    assert names >= {*FILES, f"{tech.id}.py", f"test_{tech.id}.py"}
    assert missing_from_description(tech) == []
    assert implementation_problems(TREE, tech) == []


@each_technology
def test_the_package_exports_the_exercise(tech):
    package = import_module(tech.module)
    assert sorted(package.__all__) == sorted(tech.exercise)


@each_technology
def test_three_hints(tech):
    text = tech.file("hints.md").read_text(encoding="utf-8")
    assert re.findall(r"^\d\. ", text, flags=re.MULTILINE) == ["1. ", "2. ", "3. "]


@pytest.mark.parametrize(
    "tech",
    [pytest.param(tech, marks=[pytest.mark.slow] * (tech.id in PROVEN), id=tech.id) for tech in TREE.written],
)
def test_the_tests_accept_what_is_right_and_refuse_what_is_wrong(tech):
    """One suite, many subjects: ours and the equivalents pass, the stub and every mistake fail."""
    report = grade(tech)
    assert report.problems() == []
    subjects = [outcome.subject for outcome in report.outcomes]
    assert subjects[:2] == ["own", "stub"]
    assert sum(name.startswith("mistake") for name in subjects) >= MIN_MISTAKES
    assert sum(name.startswith("equivalent") for name in subjects) >= MIN_EQUIVALENTS


@each_technology
def test_what_is_called_harmless_is_a_mutant(tech):
    """A mutant that a change of the source has taken away needs no reason any more."""
    assert mutants(tech, SPOILS)[0].name == "own"


@each_technology
def test_the_stub_has_the_whole_exercise_and_no_answer(tech):
    stub = make_stub(tech.implementation.read_text(encoding="utf-8"), tech.exercise)
    namespace: dict = {"__name__": "stub"}
    exec(compile(stub, "stub", "exec"), namespace)
    assert set(tech.exercise) <= namespace.keys()
    assert len(stub.splitlines()) < len(tech.implementation.read_text(encoding="utf-8").splitlines())


@each_technology
def test_the_examples_in_page_and_docstrings_are_true(tech):
    failed, tried = doctest.testfile(str(tech.file("README.md")), module_relative=False)
    assert (failed, tried > 0) == (0, True)
    failed, tried = doctest.testmod(import_module(f"{tech.module}.{tech.id}"))
    assert (failed, tried > 0) == (0, True)


@each_technology
def test_what_the_page_claims_holds_in_the_stored_numbers_and_in_a_small_run(tech):
    experiment = import_module(f"{tech.module}.experiment")
    experiment.claim(json.loads(tech.file("figure.json").read_text(encoding="utf-8")))
    numbers = json.loads(json.dumps(experiment.run(np.random.default_rng(1), 0.1)))
    experiment.claim(numbers)
    mpl.use("svg")
    with mpl.rc_context(STYLE):
        figure = experiment.plot(numbers)
        mpl.pyplot.close(figure)


class _Renaming(ast.NodeTransformer):
    """Gives the local variables of each function other names: the same program in other words."""

    def visit_FunctionDef(self, node):
        inside = list(ast.walk(node))
        names = [each for each in inside if isinstance(each, ast.Name)]
        stored = {each.id for each in names if isinstance(each.ctx, ast.Store)}
        kept = {each.arg for each in inside if isinstance(each, ast.arg)}
        kept |= {each.name for each in inside if isinstance(each, ast.FunctionDef | ast.ExceptHandler)}
        declared = [each for each in inside if isinstance(each, ast.Global | ast.Nonlocal)]
        renamed = stored - kept - {name for each in declared for name in each.names}
        for each in names:
            if each.id in renamed:
                each.id = f"my_{each.id}"
        return node


def in_other_words(subject):
    """Return a subject whose source is written differently and does the same."""
    source = ast.unparse(_Renaming().visit(ast.parse(subject.source)))
    return dataclasses.replace(subject, source=source, file=f"<{subject.name}, in other words>")


@pytest.fixture
def nothing_else_is_collected():
    """Hide what the tests' process holds from the collector, which some probes call for each version."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


NAMING = [*(Path(str(import_module(f"techtree.tree.{name}").__file__)) for name in ("answers", "subject"))]
"""What decides whether a mistake is named, besides the technology and this test."""


@pytest.mark.usefixtures("nothing_else_is_collected")
@pytest.mark.parametrize(
    "tech",
    [
        pytest.param(
            tech, marks=pytest.mark.proof(proof_of([CURRENT[tech.id]], [*NAMING, Path(__file__)])), id=tech.id
        )
        for tech in TREE.written
    ],
)
def test_the_probes_name_every_mistake(tech):
    """Each mistake answers differently from ours and from every other, and alike in other words.

    The equivalents answer as ours does.
    """
    ours, _stub, *others = graders(tech)
    fresh = {subject.name: subject for subject in graders(tech)}  # for mistakes that remember something
    variants = load_variants(tech)

    def answers(subject):
        with np.errstate(all="ignore"):
            return ask(variants.probes(np.random.default_rng(0)), load(tech, subject))

    expected = answers(ours)
    mistakes = {}
    for subject in others:
        got = answers(subject)
        if subject.should_pass:
            assert [label for label in expected if not same(expected[label], got[label])] == [], subject.name
        else:
            known = {"ours": expected, **mistakes}
            alike = [name for name, answer in known.items() if same(answer, got)]
            assert alike == [], f"{subject.name} cannot be told from {alike[0]}"
            again = answers(in_other_words(fresh[subject.name]))
            assert same(got, again), f"{subject.name} in other words is not named"
            mistakes[subject.name] = got


def test_no_edge_repeats_what_a_longer_path_says():
    assert TREE.redundant_edges() == []


def test_the_plan_holds_only_what_is_not_written():
    plan = (TREE.root / "plan.toml").read_text(encoding="utf-8")
    assert [tech.id for tech in TREE.written if f"[technologies.{tech.id}]" in plan] == []


def test_every_prerequisite_is_known():
    assert [(t.id, n.tech) for t in TREE.technologies for n in t.requires if n.tech not in TREE.by_id] == []


def test_the_certificates_are_current():
    """After a change: techtree unlock."""
    assert read_certificates(TREE.root) == certificates(TREE)
