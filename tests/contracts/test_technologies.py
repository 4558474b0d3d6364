"""The folder of a technology is complete, its graders are graded, its page and its figure are true."""

import doctest
import json
import re
from importlib import import_module

import matplotlib as mpl
import numpy as np
import pytest

from techtree.cli.figure import STYLE
from techtree.tree.certificate import certificates, read_certificates
from techtree.tree.description import missing_from_description
from techtree.tree.grading import grade
from techtree.tree.graph import load_tree
from techtree.tree.rules import implementation_problems
from techtree.tree.stub import make_stub
from techtree.tree.subject import graders, load

TREE = load_tree()
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


@each_technology
def test_the_tests_accept_what_is_right_and_refuse_what_is_wrong(tech):
    """One suite, many subjects: ours and the equivalents pass, the stub and every mistake fail."""
    report = grade(tech)
    assert report.problems() == []
    subjects = [outcome.subject for outcome in report.outcomes]
    assert subjects[:2] == ["own", "stub"]
    assert sum(name.startswith("mistake") for name in subjects) >= 5
    assert sum(name.startswith("equivalent") for name in subjects) >= 2


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


@each_technology
def test_a_probe_tells_every_mistake_from_ours_and_no_equivalent(tech):
    variants = import_module(f"{tech.module}.variants")
    ours, _stub, *others = graders(tech)
    expected = answers(variants, load(tech, ours))
    for subject in others:
        got = answers(variants, load(tech, subject))
        differing = [label for label in expected if not same(expected[label], got[label])]
        if subject.should_pass:
            assert differing == [], subject.name
        else:
            assert differing, subject.name


def answers(variants, module) -> dict:
    """What a version says to each probe; an exception is an answer too."""
    found = {}
    for label, probe in variants.probes(np.random.default_rng(0)).items():
        try:
            with np.errstate(all="ignore"):
                found[label] = probe(module)
        except Exception as error:
            found[label] = f"raises {type(error).__name__}"
    return found


def same(a, b) -> bool:
    """Equal up to rounding; 1e-9 is far above float64's rounding and below any mistake's effect."""
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return type(a) is type(b) and a == b
    try:
        a, b = np.asarray(a), np.asarray(b)
    except ValueError:  # lists of unequal lengths
        return list(a) == list(b)
    if a.dtype.kind not in "fiubc" or b.dtype.kind not in "fiubc":
        return a.tolist() == b.tolist()
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))


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
