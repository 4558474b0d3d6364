"""`techtree export`: what transformers and llama.cpp load."""

import json
import shutil

import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import torch

from lm.families import FAMILIES, random_model
from techtree.cli.main import main
from techtree.lm.formats.huggingface import load_model, save_pretrained


def test_a_folder_for_transformers(tiny_model_folder, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(tiny_model_folder), "--to", "hf", "--out", str(out)]) == 0
    n_bytes = sum(path.stat().st_size for path in out.iterdir())
    assert capsys.readouterr().out == f"exported  {out}: {n_bytes / 1e6:.1f} MB\n"
    for path in tiny_model_folder.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_in_half_precision(tiny_model, tiny_model_folder, tmp_path):
    out = tmp_path / "exported"
    words = ["export", str(tiny_model_folder), "--to", "hf", "--out", str(out), "--dtype", "bfloat16"]
    assert main(words) == 0
    found = load_model(out, dtype=None)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.head, tiny_model.head.bfloat16())
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("dtype", "code"), [(None, 0), ("float16", 1), ("bfloat16", 32), ("q8_0", 7), ("q4_0", 2)]
)
def test_a_file_for_llama_cpp(dtype, code, tiny_model_folder, tmp_path, capsys):
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "tiny.gguf"
    words = [] if dtype is None else ["--dtype", dtype]
    assert main(["export", str(tiny_model_folder), "--to", "gguf", "--out", str(out), *words]) == 0
    assert capsys.readouterr().out.startswith(f"exported  {out}: ")
    fields = gguf.GGUFReader(out).fields
    assert fields["general.architecture"].contents() == "qwen3"
    assert fields["general.file_type"].contents() == code


def linear(factor):
    return {"rope_type": "linear", "factor": factor, "rope_theta": 10_000.0}


LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def refused(capsys, *words):
    assert main(["export", *map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_position_embeddings": 1 << 40}, "qwen3.context_length must be below 2^32"),
        ({"rope_parameters": linear(1e308)}, "qwen3.rope.scaling.factor must be a number that float32"),
        ({"rope_parameters": linear(1e-300)}, "qwen3.rope.scaling.factor must be a number that float32"),
        ({"rope_parameters": {"rope_theta": 1e200}}, "qwen3.rope.freq_base must be a number"),
        ({"rms_norm_eps": 1e-60}, "qwen3.attention.layer_norm_rms_epsilon must be a number"),
        ({"rope_scaling": LLAMA3 | {"factor": 1e308}, "model_type": "llama"}, "rope_freqs.weight must be"),
    ],
)
def test_numbers_that_gguf_has_no_room_for_are_refused_before_anything_is_written(
    change, message, tiny_model_folder, tiny_tokenizer, tmp_path, capsys
):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    if change.get("model_type") == "llama":
        save_pretrained(model, random_model(FAMILIES["llama"]), tiny_tokenizer)
    values = json.loads((model / "config.json").read_text()) | {"rope_scaling": None} | change
    (model / "config.json").write_text(json.dumps(values))
    before = sorted(tmp_path.iterdir())
    assert message in refused(capsys, model, "--to", "gguf", "--out", tmp_path / "out.gguf")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["hf", "gguf"])
def test_what_is_refused(kind, tiny_model_folder, tiny_tokenizer, tmp_path, capsys):
    model, to, out = tiny_model_folder, ["--to", kind, "--out"], tmp_path / "out"
    assert "has no config.json" in refused(capsys, tmp_path / "nothing", *to, out)
    if kind == "hf":
        assert "use --to gguf" in refused(capsys, model, *to, tmp_path / "new", "--dtype", "q8_0")
    out.write_text("mine")
    assert "is there already: choose another --out" in refused(capsys, model, *to, out)
    assert out.read_text() == "mine"
    assert "could not be written" in refused(capsys, model, *to, out / "below")
    save_pretrained(tmp_path / "llama", random_model(FAMILIES["llama"]), tiny_tokenizer)
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"PK\3\4 a pickle")
    assert "is a pickle" in refused(capsys, tmp_path / "llama", *to, tmp_path / "new")
    assert not (tmp_path / "new").exists()
