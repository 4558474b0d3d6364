"""The lesson's model is transformers' GPT2LMHeadModel and the product's own, in logits and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from techtree.lm.formats.huggingface.loading import load_model
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.transformer.gpt import GPT, greedy, load_gpt2

transformers = pytest.importorskip("transformers")

SHAPE = {"vocab_size": 37, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}
SHAPE |= {"bos_token_id": 0, "eos_token_id": 0}
FOLDERS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "one head": {"n_head": 1, "n_inner": 20},
    "heads of width 1": {"n_head": 12, "layer_norm_epsilon": 1e-3},
    "one layer, odd sizes": {"n_layer": 1, "n_embd": 15, "n_inner": 7, "vocab_size": 301, "n_positions": 5},
    "twelve layers": {"n_layer": 12, "n_embd": 8, "n_head": 2, "tie_word_embeddings": False},
    "the other name of its GELU": {"activation_function": "gelu_pytorch_tanh"},
}
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}


def saved(folder: Path, changes: dict) -> torch.nn.Module:
    """Write a folder with random weights of every kind, and return the model."""
    torch.manual_seed(len(changes))
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(SHAPE | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                size = 0.3 if "wte" in name or "wpe" in name else parameter.shape[0] ** -0.5
                parameter.copy_(size * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return model


@pytest.fixture(params=FOLDERS)
def pair(request, tmp_path):
    """A folder's model in PyTorch, in ours, and ids to read."""
    theirs = saved(tmp_path, FOLDERS[request.param])
    config = theirs.config
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(3, config.n_positions))
    return theirs, tmp_path, ids


def loss_of(model: GPT, ids: np.ndarray):
    return cross_entropy(model(ids[:, :-1]), ids[:, 1:])


def test_logits_are_those_of_transformers(pair):
    theirs, folder, ids = pair
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    logits = load_gpt2(folder)(ids)
    assert logits.dtype == np.float32
    assert np.abs(logits.data - expected).max() < 1e-4
    with torch.no_grad():
        expected = theirs.double()(torch.tensor(ids)).logits.numpy()
    assert np.abs(load_gpt2(folder, np.float64)(ids).data - expected).max() < 1e-12


def test_gradients_are_those_of_transformers(pair, tmp_path_factory):
    """Their gradients, written as if they were weights, are read by the same translation."""
    theirs, folder, ids = pair
    model = load_gpt2(folder, np.float64)
    loss = loss_of(model, ids)
    loss.backward()
    theirs = theirs.double()
    logits = theirs(torch.tensor(ids[:, :-1])).logits
    expected = F.cross_entropy(logits.flatten(0, 1), torch.tensor(ids[:, 1:]).flatten())
    expected.backward()
    assert float(loss.data) == pytest.approx(float(expected.detach()), abs=1e-12)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    other = tmp_path_factory.mktemp("gradients")
    theirs.save_pretrained(other)
    gradients = load_gpt2(other, np.float64).state_dict()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad - gradients[name]).max() < 1e-10, name


def test_the_base_model_is_read_too(tmp_path):
    theirs = saved(tmp_path / "head", {})
    theirs.transformer.save_pretrained(tmp_path / "base")
    ids = np.arange(10)
    assert np.array_equal(load_gpt2(tmp_path / "base")(ids).data, load_gpt2(tmp_path / "head")(ids).data)


def test_greedy_is_that_of_transformers(tmp_path):
    theirs = saved(tmp_path, {})
    model = load_gpt2(tmp_path)
    for start in ([1, 2, 3], [9], [30, 4]):
        expected = theirs.generate(
            torch.tensor([start]), max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        assert greedy(model, start, 10) == expected[0, len(start) :].tolist()


def in_product(name: str) -> str:
    """Return the product's name of one of our parameters."""
    for ours, its in {
        "token_embedding": "model.embed_tokens",
        "position_embedding": "model.embed_positions",
    }.items():
        if name.startswith(ours):
            return name.replace(ours, its)
    if name.startswith("norm"):
        return f"model.{name}"
    if name.startswith("head"):
        return name.replace("head", "lm_head")
    name = name.replace("blocks.", "model.layers.").replace("feed_forward_norm", "post_attention_layernorm")
    name = name.replace("attention_norm", "input_layernorm") if "post_" not in name else name
    for its, ours in ATTENTION.items():
        name = name.replace(f".attention.{ours}.", f".self_attn.{its}.")
    return name.replace("feed_forward.up", "mlp.up_proj").replace("feed_forward.down", "mlp.down_proj")


def test_the_products_model_is_the_same(pair):
    """In float32: the product's logits and losses are."""
    _, folder, ids = pair
    its = load_model(folder)
    with torch.no_grad():
        expected = its(torch.tensor(ids)).numpy()
    model = load_gpt2(folder)
    assert np.abs(model(ids).data - expected).max() < 1e-4
    loss = loss_of(model, ids)
    loss.backward()
    its.requires_grad_(True)
    its.loss(torch.tensor(ids[:, :-1]), torch.tensor(ids[:, 1:])).backward()
    held = dict(its.named_parameters())
    assert {in_product(name) for name, _ in model.named_parameters()} == set(held)
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad - held[in_product(name)].grad.numpy()).max() < 1e-5, name
