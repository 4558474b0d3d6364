"""What a model learns with is what its file holds. Oracles: the exporter, and training without rounding."""

import dataclasses

import pytest
import torch

from small_run import MODEL, TRAIN, Counting
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig
from techtree.lm.formats.gguf import load_gguf, save_gguf
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.quant.blocks import quantize
from techtree.lm.quant.choice import stored_kind
from techtree.lm.quant.fake import fake_quantized, rounded
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.trainer import Step, train

KINDS = pytest.mark.parametrize("kind", ["q8_0", "q4_0"])


def random_model(config):
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
    return model


@KINDS
@pytest.mark.parametrize("is_tied", [True, False])
def test_it_computes_with_what_the_file_holds(kind, is_tied, tiny_model, tiny_tokenizer, tmp_path):
    config = dataclasses.replace(tiny_model.config, tie_embeddings=is_tied)
    model = random_model(config)
    path = tmp_path / "m.gguf"
    save_gguf(path, model, tiny_tokenizer, kind)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with fake_quantized(model, kind):
        stored = dict(load_gguf(path)[0].named_parameters())
        changed = 0
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, stored[name]), name
            changed += not torch.equal(parameter, own[name])
        assert changed == 7 * config.n_layers + (1 if is_tied else 2)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, own[name]), name


def test_after_an_exception_it_has_its_own_weights():
    model = random_model(MODEL)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(MemoryError), fake_quantized(model, "q4_0"):
        raise MemoryError
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, own[name]), name


@KINDS
def test_experts_are_rounded_one_by_one(kind):
    config = dataclasses.replace(MODEL, experts=ExpertsConfig(4, 2, 32))
    model = random_model(config)
    experts = model.model.layers[0].mlp.experts.gate_proj.detach()
    assert torch.equal(rounded(experts, kind)[2], quantize(experts[2], kind).floats())
    assert stored_kind("model.layers.0.mlp.gate.weight", (4, 32), kind) is None


def test_the_gradient_at_the_rounded_weights_moves_the_exact_ones():
    model = random_model(MODEL)
    ids = torch.arange(32).view(2, 16) % MODEL.vocab_size
    with fake_quantized(model, "q4_0"):
        model.loss(ids, ids.roll(-1)).backward()
    other = random_model(MODEL)
    with torch.no_grad():
        for name, p in other.named_parameters():
            if kind := stored_kind(name, tuple(p.shape), "q4_0"):
                p.copy_(rounded(p, kind))
    other.loss(ids, ids.roll(-1)).backward()
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def losses(folder, **changes):
    """Return the losses of a run, and its model."""
    steps: list[Step] = []
    config = dataclasses.replace(TRAIN, n_steps=20, **changes)
    model = train(MODEL, config, Counting(), folder, steps.append)
    return [step.loss for step in steps], model


def test_only_the_last_steps_round(tmp_path):
    plain, _ = losses(tmp_path / "plain")
    late, _ = losses(tmp_path / "late", quantize="q4_0", quantize_fraction=0.25)
    assert late[:15] == plain[:15]
    assert late[15] != plain[15]
    whole, _ = losses(tmp_path / "whole", quantize="q4_0", quantize_fraction=1.0)
    assert whole[0] != plain[0]
    never, _ = losses(tmp_path / "never", quantize="q4_0", quantize_fraction=0.0)
    assert never == plain


def test_what_is_refused():
    with pytest.raises(InputError, match="strategy=replicated"):
        TrainConfig(n_steps=1, quantize="q4_0", strategy="sharded")
    with pytest.raises(InputError, match="quantize_fraction must be between 0 and 1"):
        TrainConfig(n_steps=1, quantize_fraction=1.5)
