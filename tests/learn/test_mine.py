"""A whole model on the learner's own code, and the search for what is wrong in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from techtree.learn import mine
from techtree.learn.workspace import create
from techtree.tree.graph import load_tree

pytest.importorskip("torch")

TREE = load_tree()
SOURCE = "def add(a, b):\n    total = a + b\n    return total\n"
WRONG = {
    "rope": ("is_interleaved: bool = False", "is_interleaved: bool = True"),
    "rmsnorm": (
        "np.sqrt((wide * wide).mean(axis=-1, keepdims=True) + self.eps)",
        "(np.sqrt((wide * wide).mean(axis=-1, keepdims=True)) + 0.1)",
    ),
    "swiglu": ("silu(self.gate(x)) * self.up(x)", "silu(self.up(x)) * self.gate(x)"),
}
"""Technology -> an edit of our code: neighbours as pairs, eps outside the root, gate and up exchanged."""


@pytest.fixture
def workspace(tmp_path):
    """A learner who has unlocked what follows, and wrote for each what we wrote."""
    made = create(tmp_path / "mine", TREE)
    for name in ("einsum", "rmsnorm", "rope", "gqa", "swiglu", "linear", "attention", "sgd"):
        path = made.file(TREE[name])
        path.parent.mkdir(exist_ok=True)
        path.write_text(TREE[name].implementation.read_text(encoding="utf-8"), encoding="utf-8")
        made.issued[name] = made.current.get(name, "of another day")
    made.save()
    (made.folder / "x.py").write_text(SOURCE, encoding="utf-8")
    return made


def spoil(workspace, name, edit):
    path = workspace.file(TREE[name])
    source = path.read_text(encoding="utf-8")
    assert source.count(edit[0]) == 1
    path.write_text(source.replace(*edit), encoding="utf-8")


def techtree(workspace, *words):
    command = [sys.executable, "-m", "techtree", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=workspace.folder, env=environment, capture_output=True, text=True)
    assert "Traceback" not in run.stderr, run.stderr
    return run


def complete(workspace, folder, *words):
    words = ("complete", "x.py:2:13", "--model", str(folder), "--max-tokens", "5", *words)
    return techtree(workspace, *words)


def bisect(workspace, folder):
    return techtree(workspace, "learn", "bisect", "x.py:2:13", "--model", str(folder))


def test_the_learners_code_runs_the_model(workspace, tiny_model_folder):
    spoil(workspace, "rmsnorm", ("import numpy as np\n", "import numpy as np\n\nprint('mine', end='|')\n"))
    run = complete(workspace, tiny_model_folder, "--engine", "numpy", "--mine")
    ours = complete(workspace, tiny_model_folder, "--engine", "numpy")
    assert run.returncode == ours.returncode == 0
    assert run.stdout == f"mine|{ours.stdout}"
    assert ours.stdout == complete(workspace, tiny_model_folder).stdout
    yours, _, rest = run.stderr.partition("; ours: ")
    assert yours == "techtree: yours: einsum, " + ", ".join(
        f"{name} (not checked since it changed)"
        for name in ("linear", "attention", "gqa", "rmsnorm", "rope", "swiglu")
    )  # what they stand on is not unlocked
    assert "sgd" not in yours  # the model does not use it
    assert "llama_block" in rest


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_technology_is_found(workspace, tiny_model_folder, name):
    spoil(workspace, name, WRONG[name])
    ours = complete(workspace, tiny_model_folder, "--engine", "numpy")
    assert complete(workspace, tiny_model_folder, "--engine", "numpy", "--mine").stdout != ours.stdout
    run = bisect(workspace, tiny_model_folder)
    assert run.returncode == 1
    found = [line.split()[0] for line in run.stdout.splitlines() if "changes the answer" in line]
    assert found == [name]
    assert f"techtree learn check {name}" in run.stdout


def test_two_wrong_technologies_are_found(workspace, tiny_model_folder):
    for name in ("rmsnorm", "swiglu"):
        spoil(workspace, name, WRONG[name])
    spoil(workspace, "gqa", ("if q.ndim < 3:", "if q.ndim < 300:"))  # this one fails
    run = bisect(workspace, tiny_model_folder)
    found = [line.split()[0] for line in run.stdout.splitlines() if "changes the answer" in line]
    assert sorted(found) == ["gqa", "rmsnorm", "swiglu"]
    assert "ValueError" in next(line for line in run.stdout.splitlines() if line.startswith("gqa"))


def test_right_code_is_found_right(workspace, tiny_model_folder):
    run = bisect(workspace, tiny_model_folder)
    assert run.returncode == 0
    assert "the same" in run.stdout


def test_code_that_fails_is_named(workspace, tiny_model_folder):
    spoil(workspace, "gqa", ("if q.ndim < 3:", "if q.ndim < 300:"))
    run = complete(workspace, tiny_model_folder, "--engine", "numpy", "--mine")
    assert run.returncode == 2
    assert run.stdout == ""
    assert "your gqa failed in line" in run.stderr
    assert "ValueError" in run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["complete", "x.py:1:1", "--mine"], "--engine numpy"),
        (["learn", "bisect"], "FILE:LINE:COL"),
        (["learn", "bisect", "x.py"], "FILE:LINE:COL"),
        (["learn", "bisect", "x.py:9:1"], "4 lines"),
        (["learn", "bisect", "x.py:1:1", "--model", "."], "config.json"),
    ],
)
def test_wrong_calls(workspace, words, says):
    run = techtree(workspace, *words)
    assert run.returncode == 2
    assert says in run.stderr


def test_without_a_workspace(tmp_path, tiny_model_folder):
    (tmp_path / "x.py").write_text(SOURCE, encoding="utf-8")
    command = [sys.executable, "-m", "techtree", "complete", "x.py:1:1", "--engine", "numpy", "--mine"]
    command += ["--model", str(tiny_model_folder)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert "workspace" in run.stderr


def test_nothing_is_unlocked_yet(tmp_path, tiny_model_folder):
    made = create(tmp_path / "new", TREE)
    (made.folder / "x.py").write_text(SOURCE, encoding="utf-8")
    run = bisect(made, tiny_model_folder)
    assert run.returncode == 2
    assert "unlocked" in run.stderr
    run = complete(made, tiny_model_folder, "--engine", "numpy", "--mine")
    assert run.returncode == 0
    assert "yours: none" in run.stderr


def test_files_that_were_never_right_are_not_taken(workspace):
    progress = json.loads((workspace.folder / "progress.json").read_text(encoding="utf-8"))
    assert "sgd" in progress["certificates"]
    del workspace.issued["sgd"]
    assert "sgd" not in mine.own_files(workspace)
    workspace.file(TREE["rope"]).unlink()
    assert "rope" not in mine.own_files(workspace)


def test_the_learners_files_must_come_first(workspace):
    import techtree.techs.ground.einsum  # noqa: F401 - ours is imported

    with pytest.raises(RuntimeError, match="first"):
        mine.take(TREE, {"einsum": Path("einsum.py")})
