"""What is in a folder, how it is found, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import safetensors.torch
import torch
import transformers

from lm.families import FAMILIES, random_model
from techtree.errors import InputError
from techtree.lm.formats.huggingface import load_model, load_pretrained, loading, save_pretrained, saving
from techtree.lm.formats.huggingface.saving import split

NORM, HEAD, EMBEDDING = "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def saved(tiny_tokenizer, tmp_path_factory):
    """A folder for each family; to be read, never to be written."""
    folders = {}
    for name, config in FAMILIES.items():
        folders[name] = tmp_path_factory.mktemp(name)
        save_pretrained(folders[name], random_model(config), tiny_tokenizer)
    return folders


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a tied Qwen3, to be damaged."""
    return shutil.copytree(saved["qwen3"], tmp_path / "model")


def ids_for(model, n_tokens=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (2, n_tokens), generator=generator)


def change_tensors(folder, change, name="model.safetensors"):
    path = folder / name
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, {"format": "pt"})


def change_config(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# What comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_it_comes_back_to_the_bit(family, saved, tiny_tokenizer):
    model = random_model(FAMILIES[family])
    found, tokenizer = load_pretrained(saved[family])
    assert found.config == model.config
    assert not found.training
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(found.state_dict()[name], p) for name, p in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert tokenizer.encode("x = 1") == tiny_tokenizer.encode("x = 1")


def test_transformers_reads_ids_and_tokenizer(saved, tiny_tokenizer):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved["qwen3"])
    end = tiny_tokenizer.end_of_text_id
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == end
    assert theirs.config.rope_parameters["rope_theta"] == 1e6
    assert theirs.config.max_position_embeddings == 64
    text = "def f(x):\n    return x + 1\n"
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved["qwen3"])
    assert tokenizer(text)["input_ids"] == tiny_tokenizer.encode(text)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "qwen3_moe"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_halves_the_file(family, dtype, saved, tiny_tokenizer, tmp_path):
    model = random_model(FAMILIES[family])
    save_pretrained(tmp_path, model, tiny_tokenizer, dtype=dtype)
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path, saved[family])]
    assert sizes[0] < 0.55 * sizes[1]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype == dtype
    found = load_model(tmp_path)
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, model.state_dict()[name].to(dtype).float())
    assert load_model(tmp_path, dtype=None).dtype == dtype
    # And a file in full precision is read in half.
    for name, parameter in load_model(saved[family], dtype=dtype).named_parameters():
        assert torch.equal(parameter, model.state_dict()[name].to(dtype))


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe"])
def test_a_system_that_cannot_replace_mapped_files_reads_them(family, saved, monkeypatch):
    monkeypatch.setattr(loading, "_MAPS_FILES", False)
    model = random_model(FAMILIES[family])
    found = load_model(saved[family], dtype=None)
    assert all(torch.equal(found.state_dict()[name], p) for name, p in model.state_dict().items())


@pytest.mark.parametrize("n_bytes", [1, 1000, 2000])
def test_matrices_are_turned_in_pieces_of_any_size(n_bytes, saved, monkeypatch):
    monkeypatch.setattr(loading, "_BYTES_TURNED", n_bytes)
    expected = random_model(FAMILIES["gpt2"]).state_dict()
    assert all(torch.equal(p, expected[name]) for name, p in load_model(saved["gpt2"]).state_dict().items())


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "qwen3_moe"])
def test_a_loaded_model_can_be_trained_and_its_folder_written_again(family, saved, tiny_tokenizer, tmp_path):
    folder = shutil.copytree(saved[family], tmp_path / "model")
    found, _ = load_pretrained(folder)
    other, _ = load_pretrained(folder)
    found.loss(ids_for(found), ids_for(found)).backward()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.view(-1).sub_(parameter.grad.view(-1))  # all are contiguous
    before = (saved[family] / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == before
    save_pretrained(folder, found, tiny_tokenizer)
    assert (folder / "model.safetensors").read_bytes() != before
    again = load_model(folder)
    expected = random_model(FAMILIES[family]).state_dict()
    for name, parameter in other.state_dict().items():  # who had loaded the old folder keeps the old model
        assert torch.equal(parameter, expected[name])
        assert torch.equal(again.state_dict()[name], found.state_dict()[name])


# Several files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_bytes", "shards"),
    [(9, [["a", "b"], ["c"], ["d"]]), (1, [["a"], ["b"], ["c"], ["d"]]), (99, [["a", "b", "c", "d"]])],
)
def test_shards_are_filled_in_order(max_bytes, shards):
    assert split({"a": 4, "b": 5, "c": 10, "d": 3}, max_bytes) == shards


@torch.no_grad()
def test_what_transformers_writes_in_several_files_is_read(saved, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved["gpt2"])
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    found, ours = load_model(tmp_path), load_model(saved["gpt2"])
    assert torch.equal(found(ids_for(found)), ours(ids_for(found)))


def test_a_save_leaves_no_file_of_another(saved, tiny_tokenizer, tmp_path):
    """A reader takes model.safetensors where there is one, whatever the index says."""
    one, other = random_model(FAMILIES["qwen3"], seed=1), random_model(FAMILIES["qwen3"], seed=2)
    (tmp_path / "model-of-mine.safetensors").write_bytes(b"kept")
    for max_shard_bytes, model in ((10**9, one), (50_000, other), (90_000, one), (10**9, other)):
        save_pretrained(tmp_path, model, tiny_tokenizer, max_shard_bytes=max_shard_bytes)
        found = load_model(tmp_path)
        assert torch.equal(found.model.norm.weight, model.model.norm.weight)
        weights = {path.name for path in tmp_path.glob("*.safetensors*")} - {"model-of-mine.safetensors"}
        if max_shard_bytes == 10**9:
            assert weights == {"model.safetensors"}
        else:
            index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
            assert weights == {*index["weight_map"].values(), "model.safetensors.index.json"}
            sizes = [(tmp_path / name).stat().st_size for name in set(index["weight_map"].values())]
            assert max(sizes) < 110_000
            assert index["metadata"]["total_size"] == 4 * model.config.n_parameters
    assert (tmp_path / "model-of-mine.safetensors").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "name",
    [
        *("../model.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", "..", ".", ""),
        *("pytorch_model.bin", "a\0.safetensors", "C:x.safetensors", "\ud800.safetensors"),
        *(3, None, ["model.safetensors"]),
    ],
)
def test_an_index_names_files_of_its_folder_alone(name, folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NORM: name}}))
    with pytest.raises(InputError, match="must name files of its own folder"):
        load_pretrained(folder)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', "{", "[" * 100_000])
def test_a_damaged_index_is_refused(index, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=r"index\.json"):
        load_pretrained(folder)


def test_a_missing_shard_is_refused(saved, tiny_tokenizer, tmp_path):
    save_pretrained(tmp_path, load_model(saved["qwen3"]), tiny_tokenizer, max_shard_bytes=50_000)
    shards = sorted(tmp_path.glob("model-*"))
    shards[1].unlink()
    with pytest.raises(InputError, match=rf"{shards[1].name} is missing"):
        load_pretrained(tmp_path)


def test_a_tensor_in_two_files_is_refused(folder):
    shutil.copy(folder / "model.safetensors", folder / "again.safetensors")
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    index = {"weight_map": {NORM: "first.safetensors", "other": "again.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must be in one file"):
        load_pretrained(folder)


# Other people's files ------------------------------------------------------------------------------------


def test_a_gpt2_without_prefix_is_read(saved, tmp_path):
    """As OpenAI's weights are published, with the masks that old versions stored."""
    folder = shutil.copytree(saved["gpt2"], tmp_path / "model")
    old = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(2)}
    old |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    change_tensors(folder, lambda t: {n.removeprefix("transformer."): x for n, x in t.items()} | old)
    expected = random_model(FAMILIES["gpt2"]).state_dict()
    assert all(torch.equal(p, expected[name]) for name, p in load_model(folder).state_dict().items())
    both = lambda t: t | {"transformer.wte.weight": t["wte.weight"].clone()}  # noqa: E731
    change_tensors(folder, both)
    with pytest.raises(InputError, match="lacks tensor 'transformer"):
        load_model(folder)


def test_the_frequencies_in_old_llama_files_are_no_weights(saved, tmp_path):
    folder = shutil.copytree(saved["llama"], tmp_path / "model")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(folder, lambda t: t | {name: torch.ones(4)})
    load_model(folder)
    change_tensors(folder, lambda t: t | {name + "s": torch.ones(4)})
    with pytest.raises(InputError, match="has the unknown tensor"):
        load_model(folder)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_published_tied_head_is_accepted_when_it_is_the_embedding(family, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_NUMBERS_COMPARED", 5000)
    folder = shutil.copytree(saved[family], tmp_path / "model")
    embedding = "transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"
    change_tensors(folder, lambda t: t | {"lm_head.weight": t[embedding].clone()})
    load_pretrained(folder)
    for head in (torch.zeros(525, 47), torch.zeros(525, 48).half()):
        change_tensors(folder, lambda t, head=head: t | {"lm_head.weight": head})
        with pytest.raises(InputError, match=r"has the unknown tensor 'lm_head.weight'"):
            load_pretrained(folder)
    for row in (0, 300, 524):
        change = torch.zeros(525, 48)
        change[row, 47] = 1
        change_tensors(folder, lambda t, change=change: t | {"lm_head.weight": t[embedding] + change})
        with pytest.raises(InputError, match=r"has the unknown tensor 'lm_head.weight'"):
            load_pretrained(folder)


def test_an_untied_head_must_be_there(saved, tmp_path):
    folder = shutil.copytree(saved["mistral"], tmp_path / "model")
    change_tensors(folder, lambda t: {name: x for name, x in t.items() if name != "lm_head.weight"})
    with pytest.raises(InputError, match=r"lacks tensor 'lm_head.weight'"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: x for n, x in t.items() if n != NORM}, r"lacks tensor 'model.norm.weight' \(1 in"),
        (lambda t: t | {"surplus": torch.ones(1)}, r"has the unknown tensor 'surplus' \(1 in all\)"),
        (lambda t: t | {NORM: torch.ones(41)}, r"model.norm.weight .* shape \(48,\).*; got \(41,\)"),
        (lambda t: t | {NORM: torch.ones(48, dtype=torch.int8)}, r"must be torch.float32.*; got torch.int8"),
        (lambda t: {}, r"must hold 2 layers; it has 0 tensors in all"),
        (lambda t: t | {HEAD: torch.ones(9), EMBEDDING: torch.ones(9)}, r"unknown tensor 'lm_head.weight'"),
        (lambda t: t | {EMBEDDING: torch.ones(())}, r"embed_tokens.weight .* shape \(525, 48\).*; got \(\)"),
    ],
)
def test_other_tensors_are_refused(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(InputError, match=message):
        load_pretrained(folder)


WEIGHTS_OF = {
    "qwen3": "model.layers.1.mlp.down_proj.weight",
    "gpt2": "transformer.h.1.attn.c_attn.weight",
    "qwen3_moe": "model.layers.2.mlp.experts.3.up_proj.weight",
    "mistral": "lm_head.weight",
}


@pytest.mark.parametrize("family", WEIGHTS_OF)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_weight_that_is_no_number_is_refused_by_its_name_in_the_file(family, value, dtype, saved, tmp_path):
    name = WEIGHTS_OF[family]
    folder = shutil.copytree(saved[family], tmp_path / "model")

    def damaged(tensors):
        tensors[name][-1, 3] = value
        return tensors

    change_tensors(folder, damaged)
    with pytest.raises(
        InputError, match=rf"^{name} in .* must hold numbers .*; it holds {value}: copy"
    ) as error:
        load_pretrained(folder, dtype)
    assert "\n" not in str(error.value)


def test_a_weight_too_large_for_the_wanted_type_is_refused(folder):
    change_tensors(folder, lambda t: t | {NORM: torch.full((48,), 1e6)})
    assert load_model(folder).model.norm.weight[0] == 1e6
    with pytest.raises(InputError, match=r"model.norm.weight in .* must hold numbers that float16 holds"):
        load_model(folder, torch.float16)


def test_a_model_with_a_weight_that_is_no_number_is_not_written(tiny_tokenizer, tmp_path):
    model = random_model(FAMILIES["qwen3"])
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 4] = 7e4
    save_pretrained(tmp_path / "wide", model, tiny_tokenizer)
    with pytest.raises(InputError, match=r"model.layers.0.mlp.up_proj.weight must hold numbers that float16"):
        save_pretrained(tmp_path / "narrow", model, tiny_tokenizer, torch.float16)
    assert not (tmp_path / "narrow").exists()


def test_an_expert_too_few_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved["olmoe"], tmp_path / "model")
    change_config(folder, {"num_experts": 6})
    with pytest.raises(InputError, match=r"lacks tensor 'model.*' \(6 in all\)"):
        load_pretrained(folder)


def test_a_config_beyond_the_files_is_refused_before_a_model_is_made(folder):
    change_config(folder, {"num_hidden_layers": 9999})
    with pytest.raises(InputError, match=r"must hold 9999 layers; it has 24 tensors in all"):
        load_pretrained(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    change_config(folder, {"vocab_size": 5})
    with pytest.raises(InputError, match="has a vocabulary of 5, and its tokenizer has ids up to"):
        load_pretrained(folder)


def test_a_model_is_read_without_its_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert load_model(folder).config == FAMILIES["qwen3"]
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_pretrained(folder)


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


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        load_pretrained(folder)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_pretrained(tmp_path / "nowhere")


# Saving --------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_says_so(tiny_model, tiny_tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the model could not be written"):
        save_pretrained(tmp_path / "file" / "model", tiny_model, tiny_tokenizer)


def test_what_transformers_cannot_carry_is_refused_before_anything_is_written(tiny_tokenizer, tmp_path):
    model = random_model(dataclasses.replace(FAMILIES["qwen3"], mlp="relu2"))
    with pytest.raises(InputError, match="no family of transformers can carry this model"):
        save_pretrained(tmp_path / "model", model, tiny_tokenizer)
    assert not (tmp_path / "model").exists()


def test_a_full_disk_leaves_the_old_model(folder, tiny_tokenizer, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(saving, "write_safetensors", full)
    with pytest.raises(InputError, match=r"could not be written .*\(No space left on device\): make room"):
        save_pretrained(folder, random_model(FAMILIES["qwen3"], seed=5), tiny_tokenizer)
    assert (folder / "model.safetensors").read_bytes() == before
