"""`techtree import`: a checked copy that the other commands find."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import torch

from lm.families import FAMILIES, random_model
from techtree.cli.import_ import name_of
from techtree.cli.main import main
from techtree.engines.model_folder import find_model_folder
from techtree.lm.formats.huggingface import copying, load_model, load_pretrained, save_pretrained


@pytest.fixture
def source(tiny_tokenizer, tmp_path, monkeypatch):
    """A Llama in several files, with what often lies beside a model."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere" / "Tiny-Llama"
    save_pretrained(folder, random_model(FAMILIES["llama"]), tiny_tokenizer, max_shard_bytes=50_000)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("import os")
    (folder / "LICENSE").write_text("MIT")
    (folder / "original").mkdir()
    return folder


def test_it_is_copied_to_where_it_is_found(source, tmp_path, capsys):
    assert main(["import", str(source)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"found     {source}: llama, 53,856 parameters, float32\n" in out
    assert "complete  techtree complete FILE:LINE:COL --model runs/Tiny-Llama/model\n" in out
    folder = tmp_path / "runs" / "Tiny-Llama" / "model"
    assert find_model_folder(None, [tmp_path]) == folder
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    copied = {path.name: path.read_bytes() for path in folder.iterdir()}
    given = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
    assert given.keys() - copied.keys() == {"pytorch_model.bin", "modeling.py"}
    assert copied == {name: given[name] for name in copied}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_is_converted(dtype, source, tmp_path, capsys):
    config = json.loads((source / "config.json").read_text())
    change = {"eos_token_id": [1, 2], "note": "kept"}
    (source / "config.json").write_text(json.dumps(config | change))
    assert main(["import", str(source), "--out", "half", "--dtype", dtype]) == 0
    assert "imported  half\n" in capsys.readouterr().out
    expected = load_model(source, dtype=getattr(torch, dtype)).state_dict()
    found = load_model(tmp_path / "half", dtype=None).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    converted = json.loads((tmp_path / "half" / "config.json").read_text())
    assert converted == config | {
        "eos_token_id": [1, 2],
        "note": "kept",
        "dtype": dtype,
        "torch_dtype": dtype,
    }
    assert (tmp_path / "half" / "LICENSE").read_text() == "MIT"
    assert load_pretrained(tmp_path / "half")[1].encode("x = 1") == load_pretrained(source)[1].encode("x = 1")


def test_the_precision_that_it_has_is_a_plain_copy(source, tmp_path):
    assert main(["import", str(source), "--out", "same", "--dtype", "float32"]) == 0
    for path in (tmp_path / "same").iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()


def refused(capsys, *words):
    assert main(["import", *map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_what_is_refused(source, tmp_path, capsys):
    assert "is not a folder" in refused(capsys, tmp_path / "nothing")
    assert "is missing" in refused(capsys, tmp_path / "x.gguf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    assert "mine is there already: choose another --out" in refused(
        capsys, source, "--out", tmp_path / "mine"
    )
    shard = next(source.glob("model-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "was cut off" in refused(capsys, source)
    (source / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(capsys, source)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_copy_leaves_nothing(stop, source, tmp_path, capsys, monkeypatch):
    copyfile = shutil.copyfile

    def interrupted(old, new):
        if str(old).endswith(".safetensors"):
            raise stop
        copyfile(old, new)

    monkeypatch.setattr(copying.shutil, "copyfile", interrupted)
    assert main(["import", str(source)]) == (2 if isinstance(stop, OSError) else 130)
    err = capsys.readouterr().err
    assert "No space left on device): make room" in err or "techtree: stopped" in err
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []
    monkeypatch.setattr(copying.shutil, "copyfile", copyfile)
    assert main(["import", str(source)]) == 0


def test_names():
    assert name_of(Path("/x/SmolLM2-135M")) == "SmolLM2-135M"
    assert name_of(Path("/x/runs/mine/model")) == "mine"
    assert name_of(Path(f"/hub/models--Qwen--Qwen3-0.6B/snapshots/{'0a' * 20}")) == "Qwen3-0.6B"
