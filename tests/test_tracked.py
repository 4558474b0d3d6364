"""What somebody leaves in the checkout is not judged."""

import shutil
import subprocess
from pathlib import Path

import pytest

import tracked
from tracked import ROOT, copy_tracked, is_known, is_left_out, is_tracked, tracked_files

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of three tracked files, one of which was removed, and of things that were left there."""
    root = tmp_path / "a project é"
    for name in ("pyproject.toml", "src/a.py", "removed.py", "run/report.md", "src/stray.py", "new/x.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in tracked_files(root)]


@needs_git
def test_only_what_git_tracks_and_is_there(project, tmp_path):
    git(project, "init")
    git(project, "add", "pyproject.toml", "src/a.py", "removed.py")
    (project / "removed.py").unlink()
    assert is_known(project)
    assert names(project) == ["pyproject.toml", "src/a.py"]
    assert is_tracked(project / "src", project)
    assert not is_tracked(project / "src" / "stray.py", project)
    assert not is_tracked(project / "run", project)
    (project / "src" / "a.py").write_text("changed")
    copy = copy_tracked(tmp_path / "copy", project)
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.*")) == names(project)
    assert (copy / "src" / "a.py").read_text() == "changed"


def test_without_git_everything_is_judged_but_what_is_made(project):
    (project / ".venv").mkdir()
    (project / ".venv" / "x.py").touch()
    (project / "runs").mkdir()
    (project / "runs" / "x.md").touch()
    assert not is_known(project)
    assert names(project) == [
        "new/x.py",
        "pyproject.toml",
        "removed.py",
        "run/report.md",
        "src/a.py",
        "src/stray.py",
    ]


@needs_git
def test_another_repository_around_it_says_nothing_about_it(project):
    git(project.parent, "init")
    assert not is_known(project)
    assert "src/stray.py" in names(project)


def test_this_project():
    assert ROOT / "pyproject.toml" in tracked_files()
    assert Path(tracked.__file__) in tracked_files() or is_known()
    assert not any(".venv" in path.parts for path in tracked_files())


@needs_git
def test_a_test_that_was_left_is_run_when_it_is_named_and_not_otherwise(project):
    for name in (
        "tests/test_ours.py",
        "tests/test_left.py",
        "tests/left/conftest.py",
        "tests/left/test_x.py",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    tests, left = project / "tests", project / "tests" / "left"
    assert not is_left_out(left, [tests], project)  # without git
    git(project, "init")
    git(project, "add", "pyproject.toml", "tests/test_ours.py")
    clear()
    for named in ([], [tests], [project], [tests / "test_ours.py"]):
        found = [path.name for path in sorted(tests.iterdir()) if not is_left_out(path, named, project)]
        assert found == ["test_ours.py"]
    assert not is_left_out(left, [left], project)
    assert not is_left_out(left / "test_x.py", [left], project)
    assert not is_left_out(tests / "test_left.py", [tests / "test_left.py", tests], project)
    assert is_left_out(tests / "test_left.py", [left], project)


def clear() -> None:
    for function in (is_known, tracked_files, tracked._tracked_paths):
        function.cache_clear()
