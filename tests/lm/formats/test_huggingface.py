"""A folder that transformers reads and writes as we do, and what is refused."""

import json
import shutil

import pytest
import safetensors.torch
import torch
import transformers

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.model import LanguageModel


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request, tiny_tokenizer):
    """All weights random, none zero; a vocabulary larger than the tokenizer's, as padding makes it."""
    config = ModelConfig(
        vocab_size=tiny_tokenizer.vocab_size + 13,
        d_model=40,
        n_layers=2,
        n_heads=6,
        n_kv_heads=2,
        head_dim=10,
        d_ff=56,
        max_seq_len=99,
        rope_base=5000.0,
        norm_eps=1e-5,
        tie_embeddings=request.param,
    )
    torch.manual_seed(0)
    model = LanguageModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def saved(model, tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(folder, model, tiny_tokenizer)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved model, to be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


def ids_for(model):
    shape = (2, 30)
    return torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_transformers_computes_the_same_logits(model, saved):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved)
    assert isinstance(theirs, transformers.Qwen3ForCausalLM)
    ids = ids_for(model)
    # Float32 sums in another order, at logits of size 10.
    torch.testing.assert_close(theirs(ids).logits, model(ids), atol=1e-4, rtol=1e-4)


def test_transformers_reads_ids_and_tokenizer(model, saved, tiny_tokenizer):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved)
    end = tiny_tokenizer.end_of_text_id
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == end
    assert theirs.config.rope_parameters["rope_theta"] == 5000.0
    assert theirs.config.max_position_embeddings == 99
    text = "def f(x):\n    return x + 1\n"
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert tokenizer(text)["input_ids"] == tiny_tokenizer.encode(text)


def test_it_comes_back_to_the_bit(model, saved, tiny_tokenizer):
    found, tokenizer = load_pretrained(saved)
    assert found.config == model.config
    assert not found.training
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(found.state_dict()[name], p) for name, p in model.state_dict().items())
    assert tokenizer.encode("x = 1") == tiny_tokenizer.encode("x = 1")


@torch.no_grad()
def test_what_transformers_writes_is_read(model, saved, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shutil.copy(saved / "tokenizer.json", tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists()  # in several files
    found, _ = load_pretrained(tmp_path)
    ids = ids_for(model)
    assert torch.equal(found(ids), model(ids))


def test_bfloat16_halves_the_file(model, saved, tiny_tokenizer, tmp_path):
    save_pretrained(tmp_path, model, tiny_tokenizer, dtype=torch.bfloat16)
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path, saved)]
    assert sizes[0] < 0.55 * sizes[1]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    found, _ = load_pretrained(tmp_path)
    assert found.dtype == torch.float32
    for name, parameter in found.named_parameters():
        expected = model.state_dict()[name].to(torch.bfloat16).float()
        assert torch.equal(parameter, expected)
    assert load_pretrained(tmp_path, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_loaded_model_can_be_trained_and_its_folder_written_again(saved, folder, tiny_tokenizer):
    found, _ = load_pretrained(folder)
    found.loss(ids_for(found), ids_for(found)).backward()
    with torch.no_grad():
        found.model.norm.weight += 1
    before = (saved / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == before
    save_pretrained(folder, found, tiny_tokenizer)
    assert (folder / "model.safetensors").read_bytes() != before


def test_a_published_tied_head_is_accepted_when_it_is_the_embedding(folder):
    config = json.loads((folder / "config.json").read_text())
    if not config["tie_word_embeddings"]:
        pytest.skip("an untied model has a head of its own")
    change_tensors(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    load_pretrained(folder)
    change_tensors(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] + 1})
    with pytest.raises(InputError, match=r"has the unknown tensor lm_head.weight"):
        load_pretrained(folder)


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, {"format": "pt"})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: x for n, x in t.items() if n != NORM}, r"lacks tensor model.norm.weight \(1 in all\)"),
        (lambda t: t | {"surplus": torch.ones(1)}, r"has the unknown tensor surplus \(1 in all\)"),
        (lambda t: t | {NORM: torch.ones(41)}, r"model.norm.weight .* shape \(40,\).*; got \(41,\)"),
        (
            lambda t: t | {NORM: torch.ones(40, dtype=torch.int8)},
            r"must be of floating point; got torch.int8",
        ),
    ],
)
def test_other_tensors_are_refused(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(InputError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "must have model_type 'qwen3'; got 'llama'"),
        ({"attention_bias": True}, "attention_bias must be False or absent; got True"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu' or absent; got 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window must be False"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "all layer_types must be"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
            "the rope_type must be 'default'; got 'yarn'",
        ),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "got 'linear'"),
        ({"rope_parameters": "default"}, "rope_type must be 'default'"),
        ({"num_hidden_layers": "2"}, "n_layers must be a whole number; got '2'"),
        ({"vocab_size": 5}, "has a vocabulary of 5, and its tokenizer has ids up to"),
    ],
)
def test_other_configs_are_refused(folder, change, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_pretrained(folder)


def test_a_config_without_a_width_is_refused(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["hidden_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"config.json: .* must have 'hidden_size', which is missing"):
        load_pretrained(folder)


def test_a_config_with_the_old_keys_alone_is_read(model, folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for key in ("rope_parameters", "dtype", "layer_types"):
        values.pop(key, None)
    path.write_text(json.dumps(values))
    assert load_pretrained(folder)[0].config == model.config


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "folder"])
def test_a_damaged_folder_is_refused_in_one_sentence(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(InputError, match=name) as raised:
        load_pretrained(folder)
    assert "\n" not in str(raised.value)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_pretrained(tmp_path / "nowhere")


def test_shards_outside_the_folder_are_refused(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {NORM: "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must name files of its own folder"):
        load_pretrained(folder)


def test_a_folder_that_cannot_be_written_says_so(model, tiny_tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the model could not be written"):
        save_pretrained(tmp_path / "file" / "model", model, tiny_tokenizer)
