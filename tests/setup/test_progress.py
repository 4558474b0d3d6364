"""Steps that are small programs."""

import os
import sys

import pytest

from techtree.errors import InputError
from techtree.setup import progress as module
from techtree.setup.progress import Progress, duration


@pytest.fixture
def progress(tmp_path):
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\n")
    (tmp_path / ".venv").mkdir()
    with (tmp_path / "lock").open("a") as lock:
        yield Progress(str(tmp_path), str(tmp_path / ".venv"), 2, lock)


def python(code):
    return [sys.executable, "-c", code]


def test_keeps_the_log_and_says_in_plain_lines_what_was_done(progress, capsys):
    progress.step("first", python("print('hello'); print('Progress 1 of 2')"))
    progress.step("second", python("import sys; sys.stdout.buffer.write(b'\\xff')"))
    assert progress.log.read_bytes() == b"hello\n\xff"
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["  [1/2] first: done in 0 s", "  [2/2] second: done in 0 s"]
    assert captured.out == ""


def test_explains_a_failure(progress, capsys):
    with pytest.raises(InputError, match="its last words"):
        progress.step("first", python("print('its last words'); raise SystemExit(3)"))
    assert "failed after" in capsys.readouterr().err


def test_shows_one_changing_line_on_a_terminal(progress, monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "40")
    progress.step(
        "packages", python("print('Collecting a-package-with-a-very-long-name-indeed', flush=True)")
    )
    lines = capsys.readouterr().err.removesuffix("\n").split("\r")
    assert len(lines) >= 2
    assert {len(line) for line in lines[1:]} == {39}
    assert lines[-1].strip() == "[1/2] packages: done in 0 s"


@pytest.mark.parametrize("columns", ["1", "0", "-5", "junk", "9" * 12])
def test_a_line_has_a_sane_width_whatever_columns_says(progress, monkeypatch, capsys, columns):
    with monkeypatch.context() as patched:  # The test runner's own lines go by COLUMNS, too.
        patched.setattr(progress, "is_terminal", True)
        patched.setenv("COLUMNS", columns)
        progress.step("first", python("pass"))
    assert len(capsys.readouterr().err) < 10_000


@pytest.mark.parametrize("stream", [None, "/dev/full"])
def test_a_set_up_goes_on_when_nobody_can_read_of_it(progress, monkeypatch, stream):
    if stream is not None and not os.path.exists(stream):
        pytest.skip("needs /dev/full")
    with open(os.devnull if stream is None else stream, "w") as file:
        monkeypatch.setattr(sys, "stderr", stream and file)
        progress.step("first", python("pass"))
        module.say("nobody reads this")
        monkeypatch.undo()
        file.close() if stream is None else os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def test_tells_now_and_then_elsewhere(progress, monkeypatch, capsys):
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    progress.step("packages", python("import time; print('Collecting numpy', flush=True); time.sleep(0.5)"))
    assert "  [1/2] packages: 1 of 1 found, now numpy; 0 s\n" in capsys.readouterr().err


def test_advises_once_about_libraries_for_cards(progress, monkeypatch, capsys):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    code = "import time; print('Collecting nvidia-cublas', flush=True); time.sleep(0.5)"
    progress.step("packages", python(code))
    assert capsys.readouterr().err.count("PIP_EXTRA_INDEX_URL") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no inherited locks")
def test_command_inherits_the_lock(progress):
    progress.step("first", python(f"import os; os.fstat({progress.lock.fileno()})"))


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (620, "10 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text
