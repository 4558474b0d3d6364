"""The lesson's model is that of transformers and of the product, on folders of every family."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lm.gguf_models import SHAPES, peaked_model
from techtree.cli.main import main
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.techs.transformer.llama_block import Llama, load_llama, set_weights

transformers = pytest.importorskip("transformers")

SHAPE = {"vocab_size": 37, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3}
SHAPE |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
FOLDERS = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, wide heads": ("Llama", {"head_dim": 10}),
    "llama, one head of keys": ("Llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-3}),
    "llama, as many heads of keys": ("Llama", {"num_key_value_heads": 6}),
    "llama, another base": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "llama, scaled": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10_000.0}},
    ),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 8}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 6}),
    "mistral, a window": ("Mistral", {"sliding_window": 4, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen2, one head of keys": ("Qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 6}),
    "qwen3, tied": ("Qwen3", {"head_dim": 4, "num_key_value_heads": 1, "tie_word_embeddings": True}),
}
"""Each: the family, and what its config says."""


def saved(folder: Path, family: str, changes: dict, **how) -> torch.nn.Module:
    """Write a folder with random weights of every kind, and return the model."""
    torch.manual_seed(len(changes))
    model = getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**(SHAPE | changes))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.5 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    model.eval().save_pretrained(folder, **how)
    return model


def compare(model: Llama, theirs: torch.nn.Module) -> None:
    ids = np.random.default_rng(0).integers(37, size=(2, 19))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    got = model(ids).data
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 1e-4
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_transformers(name, tmp_path):
    family, changes = FOLDERS[name]
    theirs = saved(tmp_path, family, changes)
    compare(load_llama(tmp_path), theirs)


def test_a_model_in_several_files(tmp_path):
    theirs = saved(tmp_path, "Qwen3", {"head_dim": 6}, max_shard_size="10KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    compare(load_llama(tmp_path), theirs)


def test_the_keys_of_older_files(tmp_path):
    """Version 4 of transformers has rope_theta beside rope_scaling."""
    theirs = saved(tmp_path, "Llama", {"rope_parameters": LLAMA3, "head_dim": 8})
    values = json.loads((tmp_path / "config.json").read_text())
    rope = values.pop("rope_parameters")
    values |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(values))
    compare(load_llama(tmp_path), theirs)


def compare_gradients(model: Llama, theirs: torch.nn.Module, share: float) -> None:
    """Compare all gradients, up to a share of the largest: theirs are set as weights under our names."""
    found = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    twin = Llama(model.config, np.random.default_rng(0))
    set_weights(twin, found)
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None
        assert np.abs(mine.grad - other.data).max() < share * np.abs(other.data).max(), name


def test_gradients_are_those_of_transformers(tmp_path):
    theirs = saved(tmp_path, "Qwen3", {"head_dim": 6}).double()
    model = load_llama(tmp_path, np.float64)
    ids = np.random.default_rng(0).integers(37, size=(2, 9))
    g = np.random.default_rng(1).normal(size=(2, 9, 37))
    model(ids).backward(g)
    theirs(torch.tensor(ids)).logits.backward(torch.tensor(g))
    compare_gradients(model, theirs, 1e-4)  # transformers computes angles and norms in float32


OURS = {
    name: SHAPES[name][1]
    for name in (
        "llama",
        "llama, scaled as Llama 3",
        "llama, scaled linearly",
        "llama, one key head, wide heads, untied",
        "mistral, a window that never closes",
        "qwen2",
        "qwen2, scaled linearly, untied",
        "qwen3",
    )
}
OURS |= {"mistral, a window": dataclasses.replace(OURS["qwen2"], attention_bias="none", sliding_window=3)}


@pytest.mark.parametrize("name", OURS)
def test_logits_and_gradients_are_the_products(name, tiny_tokenizer, tmp_path):
    model = peaked_model(OURS[name])
    save_pretrained(tmp_path, model, tiny_tokenizer)
    lesson = load_llama(tmp_path)
    ids = np.random.default_rng(0).integers(OURS[name].vocab_size, size=(2, 11))
    logits = model(torch.tensor(ids))
    g = np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)
    logits.backward(torch.tensor(g))
    got = lesson(ids)
    assert np.abs(got.data - logits.detach().numpy()).max() < 1e-4
    got.backward(g)
    compare_gradients(lesson, model, 1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}],
)
def test_what_only_transformers_can_is_refused(changes, tmp_path):
    saved(tmp_path, "Llama", changes)
    with pytest.raises(ValueError, match=next(iter(changes))):
        load_llama(tmp_path)


# Published models ----------------------------------------------------------------------------------------

REAL = Path(os.environ.get("TECHTREE_REAL_MODELS", "real-models"))
PUBLISHED = {
    "smollm2-135m-instruct-q4_1.gguf": " max",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": " fibonacci",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_run_on_numpy(name, tmp_path):
    """Logits of the lesson, of transformers and of the product on one folder, made from a GGUF file."""
    if not (REAL / name).is_file():
        pytest.skip(f"needs {name} in the folder that TECHTREE_REAL_MODELS names")
    folder = tmp_path / "model"
    assert main(["import", str(REAL / name), "--out", str(folder)]) == 0
    product, tokenizer = load_pretrained(folder)
    ids = tokenizer.encode("def fibonacci(n):\n    if n < 2:\n        return n\n    return")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [product(torch.tensor([ids])), theirs(torch.tensor([ids])).logits]
    del product, theirs
    got = load_llama(folder)(np.array([ids])).data
    for other in expected:
        assert np.abs(got - other.numpy()).max() < 2e-4
    assert tokenizer.decode([int(got[0, -1].argmax())]) == PUBLISHED[name]
