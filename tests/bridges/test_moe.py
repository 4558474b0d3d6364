"""The lesson's mixture of experts is that of transformers and of the product."""

import json

import numpy as np
import pytest
import torch

from lm.gguf_models import SHAPES, peaked_model
from techtree.lm.config import ExpertsConfig
from techtree.lm.formats.huggingface import save_pretrained
from techtree.lm.model.experts import Choice, MixtureOfExperts, auxiliary_loss
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.llama_block import Llama
from techtree.techs.transformer.moe import MoE, balance_loss, load_qwen3_moe, route

transformers = pytest.importorskip("transformers")
qwen3_moe = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")

SHAPE = {"vocab_size": 37, "hidden_size": 24, "intermediate_size": 20, "moe_intermediate_size": 12}
SHAPE |= {"num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6}
SHAPE |= {"num_experts": 8, "num_experts_per_tok": 2}
FOLDERS = {
    "renormalized": {"norm_topk_prob": True},
    "not renormalized": {"norm_topk_prob": False},
    "one of eight": {"num_experts_per_tok": 1, "num_key_value_heads": 1},
    "all of five": {"num_experts": 5, "num_experts_per_tok": 5, "norm_topk_prob": True},
    "a dense layer": {"mlp_only_layers": [1], "tie_word_embeddings": True},
    "every second layer": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_transformers(name, tmp_path):
    torch.manual_seed(len(name))
    theirs = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**(SHAPE | FOLDERS[name])))
    with torch.no_grad():
        for parameter in theirs.parameters():
            spread = 0.5 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            start = parameter if parameter.ndim == 1 else 0 * parameter
            parameter.copy_(start + spread * torch.randn_like(parameter))
    theirs.eval().save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(37, size=(2, 19))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    model = load_qwen3_moe(tmp_path)
    assert isinstance(model, Llama)
    assert np.abs(model(ids).data - expected).max() < 1e-4
    values = json.loads((tmp_path / "config.json").read_text())
    values["num_experts"] = values.pop(
        "num_local_experts", values.get("num_experts")
    )  # as version 4 writes it
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert np.abs(load_qwen3_moe(tmp_path)(ids).data - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["qwen3moe"])
def test_logits_are_the_products(name, tiny_tokenizer, tmp_path):
    model = peaked_model(SHAPES[name][1])
    save_pretrained(tmp_path, model, tiny_tokenizer)
    ids = np.random.default_rng(0).integers(SHAPES[name][1].vocab_size, size=(2, 11))
    with torch.no_grad():
        expected = model(torch.tensor(ids)).numpy()
    assert np.abs(load_qwen3_moe(tmp_path)(ids).data - expected).max() < 1e-4


@pytest.mark.parametrize("is_renormalized", [True, False])
@pytest.mark.parametrize(("n_experts", "n_chosen"), [(5, 2), (8, 1), (4, 4)])
def test_answers_and_gradients_are_the_products(n_experts, n_chosen, is_renormalized):
    torch.manual_seed(n_experts)
    config = ExpertsConfig(n_experts, n_chosen, 7, is_renormalized, balance_coef=0.5)
    theirs = MixtureOfExperts(6, config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    mine = MoE(6, 7, n_experts, n_chosen, np.random.default_rng(0), is_renormalized, dtype=np.float32)
    state = {"router.weight": theirs.gate.weight.detach().numpy()}
    for e in range(n_experts):
        for name in ("gate", "up", "down"):
            state[f"experts.{e}.{name}.weight"] = getattr(theirs.experts, f"{name}_proj")[e].detach().numpy()
    mine.load_state_dict(state)
    x = np.random.default_rng(1).normal(size=(3, 5, 6)).astype(np.float32)
    g = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    leaf, other = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    answer, expected = mine(leaf), theirs(other)
    assert np.abs(answer.data - expected.detach().numpy()).max() < 1e-5
    extra = theirs.take_auxiliary_loss()
    assert extra is not None
    assert mine.logits is not None
    assert mine.chosen is not None
    balance = balance_loss(mine.logits, mine.chosen) * 0.5
    assert abs(float(balance.data) - extra.item()) < 1e-6
    ((answer * g).sum() + balance).backward()
    ((expected * torch.tensor(g)).sum() + extra).backward()
    assert theirs.gate.weight.grad is not None
    assert other.grad is not None
    pairs = [(mine.router.weight.grad, theirs.gate.weight.grad), (leaf.grad, other.grad)]
    for name in ("gate", "up", "down"):
        stacked = getattr(theirs.experts, f"{name}_proj").grad
        for e, expert in enumerate(mine.experts):
            grad = getattr(expert, name).weight.grad
            pairs.append((np.zeros(stacked[e].shape) if grad is None else grad, stacked[e]))
    for ours, grad in pairs:
        assert ours is not None
        np.testing.assert_allclose(ours, grad.numpy(), rtol=1e-4, atol=1e-5)


def test_the_balance_is_that_of_transformers():
    """Theirs counts each of the k choices of a token in full: k times ours."""
    rng = np.random.default_rng(0)
    for n_experts, n_chosen in [(4, 1), (8, 2), (5, 5)]:
        logits = rng.normal(size=(60, n_experts))
        experts, weights = route(Tensor(logits), n_chosen, is_renormalized=False)
        ours = float(balance_loss(Tensor(logits), experts).data)
        theirs = qwen3_moe.load_balancing_loss_func((torch.tensor(logits),), n_experts, n_chosen)
        assert abs(n_chosen * ours - float(theirs)) < 1e-6
        config = ExpertsConfig(n_experts, n_chosen, 1, balance_coef=1.0)
        choice = Choice(torch.tensor(experts), torch.tensor(weights.data), torch.tensor(logits))
        assert abs(ours - float(auxiliary_loss(choice, config))) < 1e-6
