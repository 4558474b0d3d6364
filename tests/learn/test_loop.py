"""The learner's loop as a learner goes through it, on a small tree: each step is a command."""

import json
import os
import shutil
import subprocess
import sys

import pytest

RIGHT = '"""Mine."""\n\n\ndef double(x):\n    return 2 * x\n'


class Learner:
    """Somebody with an installed program and a folder."""

    def __init__(self, package, home):
        self.package = package
        self.home = home
        self.folder = home / "mine"

    def techtree(self, *words, cwd=None):
        environment = os.environ | {
            "PYTHONPATH": str(self.package),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(self.package.parent / "cache"),
        }
        command = [sys.executable, "-m", "techtree", *words]
        cwd = cwd or (self.folder if self.folder.is_dir() else self.home)
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
        assert "Traceback" not in run.stderr, run.stderr
        return run

    def learn(self, *words):
        return self.techtree("learn", *words)

    def write(self, name, source):
        path = self.folder / "ground" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")

    def state(self, name):
        shown = self.techtree("map", name).stdout
        return shown.splitlines()[0].partition("(")[2].partition(")")[0]


@pytest.fixture
def learner(installation, tmp_path):
    """A learner with a workspace."""
    home = tmp_path / "home"
    home.mkdir()
    found = Learner(installation, home)
    assert found.learn("init", "mine").returncode == 0
    return found


def test_from_the_first_stub_to_the_last_certificate(learner):
    assert "0 of 4 written technologies unlocked" in learner.learn("next").stdout
    assert [learner.state(n) for n in ("first", "second", "later")] == ["open", "locked", "planned"]
    started = learner.learn("start", "first")
    assert "mine/ground/first.py is yours to write" in started.stdout
    stub = (learner.folder / "ground" / "first.py").read_text(encoding="utf-8")
    assert 'raise NotImplementedError("write double")' in stub
    run = learner.learn("check", "first")
    assert run.returncode == 1
    assert "not written yet: double must get bodies" in run.stdout
    learner.write("first", RIGHT)
    run = learner.learn("check", "first")
    assert run.returncode == 0, run.stdout
    assert "first  PASS  1 check " in run.stdout
    assert "you may now borrow: library.first" in run.stdout
    assert "open now: second" in run.stdout
    assert learner.state("second") == "open"
    learner.write("second", RIGHT)
    learner.write("third", RIGHT)
    assert "right, but locked until second is unlocked" in learner.learn("check", "third").stdout
    assert learner.state("third") == "locked"
    run = learner.learn("testout", "third")
    assert "3 of 3 technologies of the branch of third are unlocked" in run.stdout, run.stdout
    assert "● third" in learner.techtree("map").stdout


def test_an_edit_upstream_makes_what_stands_on_it_stale_and_a_check_renews_it(learner):
    for name in ("first", "second"):
        learner.write(name, RIGHT)
    learner.learn("testout", "second")
    learner.write("first", RIGHT + "# faster\n")
    assert [learner.state(name) for name in ("first", "second", "aside")] == ["stale", "stale", "open"]
    assert "stale, to be checked again: first, second" in learner.learn("next").stdout
    assert learner.learn("check").returncode == 0
    assert [learner.state(name) for name in ("first", "second")] == ["unlocked", "unlocked"]
    learner.write("first", RIGHT.replace("2 *", "3 *"))
    learner.learn("check", "first")
    assert [learner.state(name) for name in ("first", "second")] == ["stale", "stale"]


def test_the_folder_moves_to_another_machine(learner):
    learner.write("first", RIGHT)
    learner.learn("check", "first")
    moved = learner.home / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(learner.folder, moved)
    learner.folder = moved
    path = moved / "ground" / "first.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as version control may
    assert learner.state("first") == "unlocked"


def test_a_known_mistake_is_named_also_in_other_words(learner):
    learner.write(
        "first",
        "def double(x):\n    total = 1\n    for _ in range(1):\n        total += x\n    return total\n",
    )
    run = learner.learn("check", "first", "--seed", "7")
    assert run.returncode == 1
    assert "diagnosis: it answers like the version in which adds one" in run.stdout
    assert "techtree learn hint first (1 of 3)" in run.stdout
    assert "techtree learn check first --seed 7" in run.stdout
    assert len(run.stdout.splitlines()) <= 15


def test_files_named_like_modules_of_the_library_do_no_harm(learner, monkeypatch, tmp_path):
    """As installed, the program has its own folder first on the path, and so has what it starts."""
    for name in ("token", "json", "numpy", "pytest", "random"):
        (learner.folder / f"{name}.py").write_text(
            "raise SystemExit('yours was imported')\n", encoding="utf-8"
        )
    learner.write("first", "def double(x):\n    return sum([x, 1])\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment |= {"PYTHONPATH": str(learner.package), "XDG_CACHE_HOME": str(tmp_path / "fresh")}
    command = [sys.executable, "-P", "-m", "techtree", "learn", "check", "first"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=learner.folder)
    assert "it answers like the version in which adds one" in run.stdout, run.stdout + run.stderr


def test_a_mistake_that_no_one_knows_is_not_named(learner):
    learner.write("first", "def double(x):\n    return 1000 * x\n")
    run = learner.learn("check", "first")
    assert "diagnosis" not in run.stdout
    assert "asked: assert impl.double(3) == 6" in run.stdout


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def double(x:\n", "the file must be valid Python"),
        ("import torch\n" + RIGHT, "forbidden: line 1: imports torch"),
        ("def triple(x):\n    return 3 * x\n", "has no attribute 'double'"),
        ("def double(x):\n    return y\n", "in your line 2: return y"),
        (RIGHT + "import os\nos._exit(0)\n", "FAIL"),
    ],
)
def test_what_is_wrong_is_told(learner, source, told):
    learner.write("first", source)
    run = learner.learn("check", "first")
    assert run.returncode == 1
    assert told in run.stdout
    assert learner.state("first") == "open"
    assert len(run.stdout.splitlines()) <= 15


def test_ours_word_for_word_unlocks_nothing(learner):
    ours = learner.package / "techtree" / "techs" / "ground" / "aside" / "aside.py"
    copied = ours.read_text(encoding="utf-8").replace("Doubles numbers.", "Mine.").replace("x + x", "(x+x)")
    learner.write("aside", copied)
    run = learner.learn("check", "aside")
    assert run.returncode == 1
    assert "our implementation word for word" in run.stdout


def test_edited_tests_of_the_installation_judge_nothing(learner, tmp_path):
    learner.package = shutil.copytree(learner.package, tmp_path / "edited" / "copy")
    learner.write("first", "def double(x):\n    return 0\n")
    tests = learner.package / "techtree" / "techs" / "ground" / "first" / "test_first.py"
    tests.write_text("def test_double(impl):\n    assert True\n", encoding="utf-8")
    run = learner.learn("check", "first")
    assert run.returncode == 2
    assert "are not the certified ones" in run.stderr


def test_hints_come_one_by_one_and_the_answer_on_request(learner):
    texts = [learner.learn("hint", "first").stdout for _ in range(4)]
    assert [text.partition(":")[0] for text in texts] == [
        "hint 1 of 3",
        "hint 2 of 3",
        "hint 3 of 3",
        "hint 3 of 3",
    ]
    refused = learner.learn("reveal", "first")
    assert refused.returncode == 2
    assert "--anyway" in refused.stderr
    assert "return x + x" in learner.learn("reveal", "first", "--anyway").stdout
    learner.write("first", RIGHT)
    learner.learn("check", "first")
    assert "return x + x" in learner.learn("reveal", "first").stdout


def test_a_started_file_is_never_overwritten(learner):
    learner.write("first", RIGHT)
    assert "is there already, and stays as it is" in learner.learn("start", "first").stdout
    assert (learner.folder / "ground" / "first.py").read_text(encoding="utf-8") == RIGHT


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "frist"], "did you mean first?"),
        (["check", "second"], "there is no mine/ground/second.py yet"),
        (["check"], "there is nothing to check"),
        (["start", "later"], "planned, not written"),
        (["hint", "later"], "planned, not written"),
        (["testout", "later"], "planned, not written"),
        (["hint"], "which technology?"),
        (["init"], "needs the name of one new folder"),
        (["init", "."], "is a workspace already"),
        (["check", "first", "--seed", "-1"], "--seed must lie between"),
    ],
)
def test_wrong_calls_get_one_sentence(learner, words, told):
    run = learner.learn(*words)
    assert run.returncode == 2
    assert told in run.stderr
    assert run.stderr.count("\n") == 1


def test_outside_of_a_workspace(learner):
    run = learner.techtree("learn", "next", cwd=learner.home)
    assert run.returncode == 2
    assert "techtree learn init my-tree" in run.stderr


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"certificates": {"first": 3}, "hints": {}}', '{"certificates": {}}']
)
def test_damaged_progress_is_one_sentence_and_stays(learner, text):
    path = learner.folder / "progress.json"
    path.write_text(text, encoding="utf-8")
    run = learner.learn("next")
    assert run.returncode == 2
    assert path.read_text(encoding="utf-8") == text


def test_progress_is_readable(learner):
    learner.write("first", RIGHT)
    learner.learn("check", "first")
    progress = json.loads((learner.folder / "progress.json").read_text(encoding="utf-8"))
    assert list(progress["certificates"]) == ["first"]
