"""`techtree pull` as a process, and a hub on this machine."""

import functools
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")

from lm.formats.huggingface.fake_hub import FakeHub
from techtree.cli.main import main
from techtree.lm.formats.huggingface import hub as pulling

NAME = "somebody/tiny"
TIMEOUT_S = 60


@pytest.fixture
def hub(tiny_model_folder):
    served = FakeHub(NAME, {path.name: path.read_bytes() for path in tiny_model_folder.iterdir()})
    yield served
    served.close()


@pytest.fixture
def start(hub, tmp_path):
    """The command in a process of its own, in an empty folder."""

    def started(*words, **variables):
        return subprocess.Popen(
            [sys.executable, "-m", "techtree", "pull", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"HF_ENDPOINT": hub.url} | variables,
        )

    return started


def test_ctrl_c_and_the_same_command_again(hub, start, tiny_model_folder, tmp_path):
    hub.stall_at["model.safetensors"] = 50_000
    process = start(NAME)
    assert hub.is_stalled.wait(TIMEOUT_S)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (130, "\ntechtree: stopped\n")
    folder = tmp_path / "runs" / "tiny" / "model"
    assert (folder / "config.json").exists()
    assert not (folder / "model.safetensors").exists()
    hub.stall_at.clear()
    process = start(NAME)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert "pulled    runs/tiny/model: qwen3, " in out
    assert "complete  techtree complete FILE:LINE:COL --model runs/tiny/model\n" in out
    for path in tiny_model_folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["somebody/other"], "the hub has no model 'somebody/other'"),
        ([NAME, "--revision", "v9"], "has no revision 'v9'"),
        ([NAME, "--out", "full"], "full holds something else"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(words, message, hub, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pulling, "pull", functools.partial(pulling.pull, endpoint=hub.url))
    assert main(["pull", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_no_connection_is_one_line_too(start):
    process = start(NAME, HF_ENDPOINT="http://127.0.0.1:9")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert "the hub cannot be reached" in err


@pytest.mark.parametrize("name", ["", "/", "a b"])
def test_what_is_no_name(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pull", name]) == 2
    assert "a model's name must be OWNER/NAME" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
