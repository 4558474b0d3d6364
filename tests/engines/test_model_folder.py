"""Which model is taken when nobody names one."""

import os
from pathlib import Path

import pytest

from techtree.engines.model_folder import MODEL_FILES, WEIGHT_FILES, find_model, find_model_folder, model_name
from techtree.errors import InputError

ONE_FILE, SHARDED = ((*MODEL_FILES, weights) for weights in WEIGHT_FILES)


def make_model(folder, age_s=0, files=ONE_FILE):
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("", encoding="utf-8")
        os.utime(folder / name, (1e9 - age_s, 1e9 - age_s))
    return folder


def test_the_newest_finished_run(tmp_path):
    here, clone = tmp_path / "here", tmp_path / "clone"
    make_model(here / "runs" / "old" / "model", age_s=20)
    newest = make_model(clone / "runs" / "b" / "model", age_s=10)
    make_model(clone / "runs" / "unfinished" / "model", files=MODEL_FILES)
    make_model(clone / "runs" / "c" / "checkpoint")
    assert find_model_folder(None, [here, clone]) == newest


def test_a_model_in_several_files(tmp_path):
    make_model(tmp_path / "runs" / "old" / "model", age_s=20)
    newest = make_model(tmp_path / "runs" / "large" / "model", files=SHARDED)
    assert find_model_folder(None, [tmp_path]) == newest
    assert find_model_folder(newest) == newest


def test_the_named_one(tmp_path):
    make_model(tmp_path / "runs" / "newer" / "model")
    named = make_model(tmp_path / "runs" / "older" / "model", age_s=50)
    assert find_model_folder(named, [tmp_path]) == named


def test_a_gguf_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    newest = make_model(tmp_path / "runs" / "newest" / "model", age_s=-4e9)
    file = tmp_path / "x.gguf"
    file.touch()
    assert find_model(file) == file
    assert find_model(None) == find_model(newest) == newest
    with pytest.raises(InputError, match=r"techtree import .*x\.gguf"):
        find_model_folder(file)
    with pytest.raises(InputError, match=r"there is no file .*y\.gguf"):
        find_model(tmp_path / "y.gguf")


def test_no_model(tmp_path):
    with pytest.raises(InputError, match=r"\./techtree build"):
        find_model_folder(None, [tmp_path])
    with pytest.raises(InputError, match=r"has no config\.json"):
        find_model_folder(tmp_path / "nothing", [tmp_path])
    partial = make_model(tmp_path / "runs" / "a" / "model", files=MODEL_FILES)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        find_model_folder(partial)


def test_the_current_folder_is_looked_at(tmp_path, monkeypatch):
    model = make_model(tmp_path / "runs" / "mine" / "model", age_s=-4e9)  # newer than any real one
    monkeypatch.chdir(tmp_path)
    assert find_model_folder(None) == model


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/first/model", "first"),
        ("models/small", "small"),
        ("runs/a\udcff\x1b/model", "a\\xff\\x1b"),  # not UTF-8, and a command to the terminal
    ],
)
def test_the_name_is_the_runs(path, name):
    assert model_name(Path(path)) == name
