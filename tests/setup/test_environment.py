"""What is done to a `.venv`, by the state in which it is found. No test here runs pip."""

import errno
import sys
from pathlib import Path

import pytest

from techtree.errors import InputError
from techtree.setup import environment as module
from techtree.setup.environment import Environment, make_ready


@pytest.fixture
def place(tmp_path: Path) -> Environment:
    """A folder, with `.venv` not yet there."""
    venv = tmp_path / ".venv"
    return Environment(
        str(tmp_path),
        str(venv),
        str(venv / "bin" / "python"),
        str(venv / "lib" / "stamp"),
        identity=lambda: b"who\n",
        wanted=lambda: (tmp_path / "constraints.txt").read_bytes(),
    )


@pytest.fixture
def steps(place: Environment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the steps, of which only the first does something: it makes an empty interpreter."""
    titles: list[str] = []
    Path(place.root, "constraints.txt").write_text("numpy==2.4.6\n")
    Path(place.root, "pyproject.toml").write_text('[build-system]\nrequires = ["hatchling"]\n')

    def step(self, title, command):
        titles.append(title)
        if title == "virtual environment":
            Path(place.python).parent.mkdir()
            Path(place.python).touch()

    monkeypatch.setattr(module.Progress, "step", step)
    monkeypatch.setattr(module, "is_working", lambda environment: Path(place.python).exists())
    return titles


def complete_stamp(place: Environment) -> bytes:
    return place.identity() + place.wanted()


ANEW = ["virtual environment", "pip", "build tools", "packages"]
AGAIN = ["build tools", "packages"]


def test_first_use_makes_all_and_a_second_run_nothing(place, steps):
    assert make_ready(place) == 0
    assert steps == ANEW
    assert Path(place.stamp_file).read_bytes() == complete_stamp(place)
    assert make_ready(place) == 0
    assert steps == ANEW


def test_changed_pins_are_installed_into_what_is_there(place, steps):
    make_ready(place)
    relic = Path(place.venv, "relic")
    relic.touch()
    Path(place.root, "constraints.txt").write_text("numpy==2.4.7\n")
    assert make_ready(place) == 0
    assert steps == ANEW + AGAIN
    assert relic.exists()
    assert Path(place.stamp_file).read_bytes() == complete_stamp(place)


@pytest.mark.parametrize("harm", ["no stamp", "moved", "broken"])
def test_half_made_moved_or_broken_environment_is_emptied_and_made_anew(place, steps, harm, capsys):
    make_ready(place)
    outside = Path(place.root, "mine")
    outside.mkdir()
    (outside / "file").touch()
    Path(place.venv, "link").symlink_to(outside)
    Path(place.venv, "relic").mkdir()
    if harm == "no stamp":
        Path(place.stamp_file).unlink()
    elif harm == "moved":
        Path(place.stamp_file).write_bytes(b"somebody else\n" + complete_stamp(place))
    else:
        Path(place.python).unlink()
    assert make_ready(place) == 0
    assert steps == ANEW + ANEW
    assert capsys.readouterr().err.count("removing what is in .venv") == 1
    assert not Path(place.venv, "relic").exists()
    assert not Path(place.venv, "link").is_symlink()
    assert (outside / "file").exists()


def test_working_environment_of_the_user_is_completed(place, steps):
    theirs = Path(place.python)
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert make_ready(place) == 0
    assert steps == AGAIN
    assert theirs.exists()


@pytest.mark.parametrize("changed_packages", [False, True])
@pytest.mark.parametrize(
    ("error", "exit_code", "told"),
    [(InputError("pip failed"), 2, "techtree: error: pip failed"), (KeyboardInterrupt(), 130, "stopped")],
)
def test_failed_update_keeps_the_old_stamp_only_if_nothing_changed(
    place, steps, error, exit_code, told, changed_packages, monkeypatch, capsys
):
    make_ready(place)
    old = complete_stamp(place)

    def fail(self, title, command):
        self.pip.is_installing = changed_packages
        raise error

    monkeypatch.setattr(module.Progress, "step", fail)
    Path(place.root, "constraints.txt").write_text("numpy==2.4.7\n")
    assert make_ready(place) == exit_code
    assert told in capsys.readouterr().err
    assert place.recorded() == (b"" if changed_packages else old)


def test_no_stamp_after_a_failed_first_use(place, steps, monkeypatch, capsys):
    def fail(self, title, command):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.Progress, "step", fail)
    assert make_ready(place) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert place.recorded() == b""


def test_too_small_a_disk_is_told_at_once(place, steps, monkeypatch, capsys):
    monkeypatch.setattr(module, "NEEDED_BYTES", 10**18)
    assert make_ready(place) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert steps == []


def test_file_in_the_place_of_the_environment_is_told(place, steps, capsys):
    Path(place.venv).touch()
    assert make_ready(place) == 2
    assert place.venv in capsys.readouterr().err


def test_interpreter_of_another_environment_does_not_work(place, tmp_path):
    python = Path(place.python)
    assert not module.is_working(place)
    python.parent.mkdir(parents=True)
    python.write_text("no program")
    python.chmod(0o755)
    assert not module.is_working(place)
    python.unlink()
    python.symlink_to(sys.executable)
    assert not module.is_working(place)


def test_edit_during_a_set_up_is_noticed_by_the_next_run(place, steps, monkeypatch):
    constraints = Path(place.root, "constraints.txt")
    monkeypatch.setattr(module, "install", lambda *_: constraints.write_text("numpy==2.4.7\n"))
    make_ready(place)
    assert place.recorded() == place.identity() + b"numpy==2.4.6\n"


def test_missing_file_is_told(place, steps, capsys):
    Path(place.root, "constraints.txt").unlink()
    assert make_ready(place) == 2
    assert "constraints.txt" in capsys.readouterr().err


def test_project_file_that_cannot_be_read_is_told_and_changes_nothing(place, steps, capsys):
    make_ready(place)
    old = place.recorded()
    Path(place.root, "constraints.txt").write_text("numpy==2.4.7\n")
    Path(place.root, "pyproject.toml").write_text("<<<<<<< HEAD\n")
    assert make_ready(place) == 2
    assert "must be valid TOML" in capsys.readouterr().err
    assert place.recorded() == old
