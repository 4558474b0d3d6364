"""The launcher from outside, as a user meets it. The tests share one clone and leave it ready, or say so."""

import ast
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and shell scripts of POSIX")


@pytest.fixture
def launcher() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("launcher", str(ROOT / "techtree"))
    spec = importlib.util.spec_from_loader("launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ready(clone):
    """The clone, set up."""
    result = clone.run("hello")
    assert result.returncode == 0, result.stderr
    return clone


@posix_only
def test_ctrl_c_and_kill_are_repaired_and_two_runs_do_not_meet(clone):
    interrupted = clone.start()
    assert "setting up" in interrupted.stderr.readline()
    os.killpg(interrupted.pid, signal.SIGINT)
    _, err = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 130
    assert "stopped" in err
    assert "Traceback" not in err

    # Where a launcher is killed alone, the command that it ran lives on, and the next run must wait for it.
    killed = clone.start()
    wait_until(lambda: list(clone.venv.glob("lib/python*/site-packages/pip")), killed)
    killed.kill()
    killed.communicate(timeout=120)

    both = [clone.start("first"), clone.start("second")]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert [json.loads(out)["words"] for out, _ in ends] == [["first"], ["second"]]
    assert sorted("setting up .venv with Python" in err for _, err in ends) == [False, True]
    assert all("waiting for it" in err for _, err in ends)


def wait_until(is_true, process):
    deadline = time.monotonic() + 120
    while not is_true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_runs_the_words_in_the_environment_from_any_folder(ready, tmp_path: Path):
    # A file of the user's must not take the place of a module that the program imports.
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    result = ready.run("build", "--minutes", "5", "ä b", folder=tmp_path)
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert Path(answer["prefix"]).samefile(ready.venv)
    assert answer["words"] == ["build", "--minutes", "5", "ä b"]
    assert Path(answer["folder"]).samefile(tmp_path)
    assert ready.run("fail").returncode == 7


def test_runs_through_a_symbolic_link(ready, tmp_path: Path):
    linked = type(ready)(tmp_path)
    linked.launcher.symlink_to(ready.launcher)
    result = linked.run("hello")
    assert result.stderr == ""
    assert Path(json.loads(result.stdout)["prefix"]).samefile(ready.venv)


def test_test_runs_pytest_at_the_root(ready, tmp_path: Path):
    (tmp_path / "test_mine.py").touch()
    result = ready.run("test", "test_mine.py::test_it", "-k", "one", folder=tmp_path)
    answer = json.loads(result.stdout)
    assert Path(answer["folder"]).samefile(ready.root)
    assert answer["words"] == [f"{tmp_path / 'test_mine.py'}::test_it", "-k", "one"]
    assert ready.run("test", "fail").returncode == 7
    assert "-n" in json.loads(ready.run("test").stdout)["words"]


def test_installs_again_when_a_pin_or_the_project_changes(ready):
    for name in ("constraints.txt", "pyproject.toml"):
        with (ready.root / name).open("a") as file:
            file.write("# changed\n")
        changed = ready.run("hello")
        assert "updating .venv" in changed.stderr
        assert json.loads(changed.stdout)["words"] == ["hello"]
        assert ready.run("hello").stderr == ""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "has no build for Python"),
        ({"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1"}, "could not reach"),
    ],
)
def test_failed_update_is_explained_and_leaves_the_environment_as_it_was(ready, environment, reason):
    pyproject = ready.root / "pyproject.toml"
    before = pyproject.read_text()
    pyproject.write_text(before.replace("dependencies = []", 'dependencies = ["techtree-needs-this"]', 1))
    failed = ready.run("hello", **environment)
    assert failed.returncode == 2
    assert reason in failed.stderr
    assert "run" in failed.stderr.splitlines()[-1].lower()
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
    pyproject.write_text(before)
    assert ready.run("hello").stderr == ""


def test_every_python_can_read_the_launcher():
    source = (ROOT / "techtree").read_bytes()
    source.decode("ascii")
    too_new = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Nonlocal, ast.Starred, ast.YieldFrom)
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, too_new), ast.dump(node)
        if isinstance(node, ast.arguments):
            assert not node.kwonlyargs
            assert not node.posonlyargs
        if isinstance(node, ast.Raise):
            assert node.cause is None


def test_names_what_an_old_or_incomplete_python_lacks(launcher, monkeypatch, capsys):
    monkeypatch.setattr(launcher, "is_ready", lambda: False)
    monkeypatch.setattr(launcher, "other_python", lambda: None)
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert launcher.main(["hello"]) == 2
    assert "apt install python3-venv" in capsys.readouterr().err
    monkeypatch.setattr(sys, "version_info", (3, 6, 15, "final", 0))
    assert launcher.main(["hello"]) == 2
    assert "this is Python 3.6.15" in capsys.readouterr().err


@pytest.mark.parametrize("is_windows", [True, False])
def test_every_python_that_the_readme_names_is_looked_for(launcher, monkeypatch, tmp_path, is_windows):
    tried = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launcher, "IS_WINDOWS", is_windows)
    monkeypatch.setattr("subprocess.call", lambda command, **streams: tried.append(" ".join(command)) or 1)
    assert launcher.other_python() is None
    first, last = re.search(r"Python 3\.(\d+) to 3\.(\d+)", (ROOT / "README.md").read_text("utf-8")).groups()
    for minor in range(int(first), int(last) + 1):
        assert any(f"3.{minor} " in command for command in tried), minor


@posix_only
def test_goes_on_with_another_python_that_starts(launcher, monkeypatch, tmp_path, capsys):
    for name, script in [("python3.13", "exit 127"), ("python3.12", f'exec "{sys.executable}" "$@"')]:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launcher, "is_ready", lambda: False)
    monkeypatch.setattr(sys, "version_info", (3, 6, 15, "final", 0))
    monkeypatch.setattr(sys, "argv", ["techtree", "hello"])
    started = []
    monkeypatch.setattr(launcher, "become", lambda command: started.append(command) or 5)
    with pytest.raises(SystemExit, match="5"):
        launcher.main(["hello"])
    assert started == [[str(tmp_path / "python3.12"), str(ROOT / "techtree"), "hello"]]
    assert "Python 3.6.15" in capsys.readouterr().err
