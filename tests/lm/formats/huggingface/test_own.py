"""A model that no other program can compute, in a folder that only this one reads."""

import dataclasses
import json

import pytest
import torch
import transformers

from lm.families import FAMILIES, random_model
from techtree.cli.main import main
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, Speedrun
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained

SHAPES = {
    "n-grams": dataclasses.replace(FAMILIES["qwen3"], speedrun=Speedrun(longest_ngram=3, ngram_rows=101)),
    "bias": dataclasses.replace(FAMILIES["qwen3"], experts=ExpertsConfig(4, 2, d_expert=16, has_bias=True)),
}


@pytest.fixture(params=SHAPES)
def model(request):
    model = random_model(SHAPES[request.param])
    for name, buffer in model.named_buffers():
        if name.endswith("selection_bias"):
            buffer.uniform_(-0.1, 0.1)
    return model.eval()


@pytest.fixture
def folder(model, tiny_tokenizer, tmp_path):
    save_pretrained(tmp_path / "model", model, tiny_tokenizer, for_others=False)
    return tmp_path / "model"


def test_it_comes_back_to_the_bit(model, folder):
    found, _ = load_pretrained(folder)
    assert found.config == model.config
    ids = torch.arange(30).view(2, 15)
    assert torch.equal(found(ids), model(ids))
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(found.state_dict()[name], p) for name, p in model.state_dict().items())


def test_others_refuse_it_by_name(folder):
    with pytest.raises(ValueError, match="techtree"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_without_consent_it_is_not_written(model, tiny_tokenizer, tmp_path):
    with pytest.raises(InputError, match="no family of transformers can carry this model"):
        save_pretrained(tmp_path / "model", model, tiny_tokenizer)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("form", ["hf", "gguf"])
def test_it_is_not_exported(folder, tmp_path, form, capsys):
    assert main(["export", str(folder), "--to", form, "--out", str(tmp_path / "out")]) == 2
    assert "can carry this model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_config_is_refused(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({"model_type": values["model_type"]}))
    with pytest.raises(InputError, match="must have 'techtree'"):
        load_pretrained(folder)
    values["techtree"]["n_layers"] = 10**9
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="layers"):
        load_pretrained(folder)
