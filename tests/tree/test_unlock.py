"""`techtree unlock` on a small tree: each broken rule turns the right technologies red, with the reason."""

import os
import shutil
import subprocess
import sys

import pytest


def unlock(package, *techs):
    """Run the command on the copy; return its exit code and what it says of each technology."""
    run = techtree(package, "unlock", *techs)
    assert "Traceback" not in run.stderr, run.stderr
    verdicts, name = {}, None
    for line in run.stdout.splitlines():
        if line.startswith(("●  ", "✗  ")):
            name = line[3:]
            verdicts[name] = [] if line.startswith("✗") else None
        elif line.startswith("     ") and name:
            verdicts[name].append(line.strip())
    return run.returncode, verdicts


def techtree(package, *words):
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "techtree", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=package)


def edit(package, name, file, old, new):
    path = package / "techtree" / "techs" / "ground" / name / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


GREEN = None
SECOND_IS_NOT = ["prerequisites: second is not unlocked"]


def test_all_hold_and_certificates_are_issued(small_package):
    assert unlock(small_package) == (0, {"aside": GREEN, "first": GREEN, "second": GREEN, "third": GREEN})
    shown = techtree(small_package, "map").stdout
    assert "4 of 5 technologies unlocked" in shown
    edit(small_package, "first", "first.py", "Doubles numbers.", "Doubles any number.")
    shown = techtree(small_package, "map").stdout
    for line in ("◐ first", "◐ second", "◐ third", "● aside"):
        assert line in shown
    assert unlock(small_package, "second") == (0, {"first": GREEN, "second": GREEN})
    shown = techtree(small_package, "map").stdout
    for line in ("● first", "● second", "◐ third", "● aside"):
        assert line in shown


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "README.md",
            "## Why it works\n",
            "",
            'description: README.md: the section "Why it works" is missing',
        ),
        ("README.md", "](figure.svg)", "](other.svg)", "must show figure.svg"),
        ("second.py", "import math", "import math\nimport torch", "second.py, line 4: imports torch"),
        ("second.py", "def double", "def triple", "does not define double"),
        (
            "second.py",
            "return x + x",
            "return x + x + 1",
            "unit tests: own fails test_double: AssertionError",
        ),
        (
            "test_second.py",
            "    assert impl.double",
            "    impl.double",
            "the tests accept the mistake: adds one",
        ),
        ("test_second.py", "def test_double", "def check_double", "unit tests: no test takes impl"),
        ("test_second.py", "def test_double(impl):", "def test_double():", "unit tests: no test takes impl"),
        ("variants.py", "range(4, 22)", "range(4, 21)", "20 of the kind 'mistake'; got 19"),
        ("variants.py", "range(3)", "range(2)", "4 of the kind 'equivalent'; got 3"),
        ("test_second.py", "impl.double(3) == 6", "nothing", "unit tests: own fails test_double: NameError"),
        ("test_second.py", "def", "def def", "the tests could not run"),
        ("variants.py", "x + 1}", "x + x}", "the tests accept the mistake: adds one"),
        ("variants.py", "2 * x", "3 * x", "equivalent: multiplies fails test_double"),
        ("variants.py", '("return x + x"', '("return y"', "occurs 0 times, not once"),
        (
            "tech.toml",
            'tech = "first"',
            'tech = "frist"',
            "there is no technology frist; did you mean first?",
        ),
    ],
)
def test_one_broken_rule_turns_it_and_its_descendants_red(small_package, file, old, new, reason):
    edit(small_package, "second", file, old, new)
    code, verdicts = unlock(small_package)
    assert code == 1
    assert verdicts["first"] is GREEN
    assert verdicts["aside"] is GREEN
    assert verdicts["third"] == SECOND_IS_NOT
    assert any(reason in problem for problem in verdicts["second"]), verdicts["second"]


def test_a_deleted_prerequisite(small_package):
    shutil.rmtree(small_package / "techtree" / "techs" / "ground" / "first")
    code, verdicts = unlock(small_package)
    assert code == 1
    assert verdicts["aside"] is GREEN
    assert verdicts["second"][0].startswith("prerequisites: there is no technology first")
    assert verdicts["third"] == SECOND_IS_NOT


def test_an_undeclared_prerequisite(small_package):
    edit(small_package, "second", "tech.toml", '[{ tech = "first", why = "because" }]', "[]")
    code, verdicts = unlock(small_package)
    assert code == 1
    assert "imports techtree.techs.ground.first.first" in verdicts["second"][0]


def test_an_import_that_hides_from_the_source_is_seen_while_the_tests_run(small_package):
    hidden = 'import sys\n\ndef double(x):\n    sys.modules["importlib"].import_module("tyro")'
    edit(small_package, "second", "second.py", "\ndef double(x):", hidden)
    _, verdicts = unlock(small_package, "second")
    assert any("ForbiddenImportError: imports tyro" in problem for problem in verdicts["second"])


def test_a_wrong_version_that_never_returns_is_stopped(small_package):
    # The limit is shortened in the copy, so that this test does not wait for it.
    conftest = small_package / "techtree" / "techs" / "conftest.py"
    text = conftest.read_text(encoding="utf-8")
    assert "TEST_TIMEOUT_S = 6" in text
    conftest.write_text(text.replace("TEST_TIMEOUT_S = 6", "TEST_TIMEOUT_S = 0.3"), encoding="utf-8")
    edit(
        small_package, "second", "second.py", "return x + x", "while True:\n        x = -x\n    return x + x"
    )
    _, verdicts = unlock(small_package, "second")
    assert any("OutOfTimeError: stopped after 0.3 s" in problem for problem in verdicts["second"])


def test_a_planned_technology_is_not_unlocked(small_package):
    code, verdicts = unlock(small_package, "later")
    assert code == 1
    assert verdicts["later"] == ["own implementation: later is planned, not written"]


def test_a_conftest_beside_the_tests_is_refused(small_package):
    folder = small_package / "techtree" / "techs" / "ground" / "second"
    (folder / "conftest.py").write_text("", encoding="utf-8")
    _, verdicts = unlock(small_package, "second")
    assert "own implementation: conftest.py" not in str(verdicts["second"])
    assert any("holds a conftest.py" in problem for problem in verdicts["second"])


def test_files_in_subfolders_are_judged_too(small_package):
    folder = small_package / "techtree" / "techs" / "ground" / "second" / "vendor"
    folder.mkdir()
    (folder / "__init__.py").write_text("import scipy\n", encoding="utf-8")
    _, verdicts = unlock(small_package, "second")
    assert any("__init__.py, line 1: imports scipy" in problem for problem in verdicts["second"])


def test_a_source_that_is_not_utf8_is_one_clear_problem(small_package):
    path = small_package / "techtree" / "techs" / "ground" / "second" / "second.py"
    path.write_bytes(path.read_bytes() + b"# \xff\n")
    _, verdicts = unlock(small_package, "second")
    assert any("second.py must be UTF-8" in problem for problem in verdicts["second"])


@pytest.mark.parametrize("command", ["map", "unlock"])
def test_a_broken_toml_is_one_clear_error(small_package, command):
    edit(small_package, "second", "tech.toml", "minutes = 5", "minutes = ")
    run = techtree(small_package, command)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("techtree: error: ")
    assert "second/tech.toml must be TOML" in run.stderr.replace("\\", "/")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["map", "unlock", "figure"])
def test_an_unknown_technology_gets_a_suggestion(small_package, command):
    run = techtree(small_package, command, "secnod")
    assert (run.returncode, run.stdout) == (2, "")
    assert "unknown technology 'secnod'; did you mean second?" in run.stderr


def test_damaged_certificates(small_package):
    (small_package / "techtree" / "techs" / "certificates.json").write_text("[1]", encoding="utf-8")
    run = techtree(small_package, "map")
    assert run.returncode == 2
    assert "delete it and run techtree unlock" in run.stderr
