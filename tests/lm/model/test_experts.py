"""The mixture of experts against a loop over tokens, and its losses against numbers made by hand."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, ModelConfig
from techtree.lm.model import LanguageModel
from techtree.lm.model.experts import BIAS_RATE, Choice, MixtureOfExperts, auxiliary_loss

EXPERTS = ExpertsConfig(n_experts=5, n_active=2, d_expert=7)


def random_mixture(config, d_model=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixture = MixtureOfExperts(d_model, config)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(generator=generator)
    return mixture


def one_by_one(mixture, x):
    """The definition: for each token, its best experts' answers, weighted."""
    config, experts = mixture.config, mixture.experts
    bias = mixture.gate.selection_bias if config.has_bias else torch.zeros(config.n_experts)
    rows = []
    for token in x.flatten(0, 1):
        scores = (mixture.gate.weight @ token).softmax(0)
        chosen = sorted(range(config.n_experts), key=lambda e: -(scores + bias)[e].item())[: config.n_active]
        total = sum(scores[e] for e in chosen) if config.normalize_weights else 1
        rows.append(
            sum(
                scores[e]
                / total
                * (
                    experts.down_proj[e]
                    @ (F.silu(experts.gate_proj[e] @ token) * (experts.up_proj[e] @ token))
                )
                for e in chosen
            )
        )
    return torch.stack(rows).view_as(x)


@settings(max_examples=25, deadline=None)
@given(
    n_experts=st.integers(1, 9),
    n_active=st.integers(1, 9),
    n_tokens=st.integers(1, 12),
    normalize=st.booleans(),
    has_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_is_the_loop_over_tokens_with_its_gradients(
    n_experts, n_active, n_tokens, normalize, has_bias, seed
):
    config = ExpertsConfig(
        n_experts, min(n_active, n_experts), d_expert=7, normalize_weights=normalize, has_bias=has_bias
    )
    mixture = random_mixture(config, seed=seed)
    if has_bias:
        mixture.gate.selection_bias.uniform_(-1, 1)  # of the scores' own size, so that it changes choices
    x = torch.randn(2, n_tokens, 6, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    wanted = one_by_one(mixture, x)
    tensors = [x, *mixture.parameters()]
    direction = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * direction).sum(), tensors)
    found = torch.autograd.grad((mixture(x) * direction).sum(), tensors)
    # Sums of seven products of size one, in float32, in another order.
    torch.testing.assert_close(mixture(x), wanted, atol=1e-4, rtol=1e-4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_no_token_is_dropped_when_all_choose_the_same_expert():
    mixture = random_mixture(dataclasses.replace(EXPERTS, n_active=1))
    x = torch.rand(1, 40, 6) + 0.1
    with torch.no_grad():
        mixture.gate.weight.zero_()[3] = 1.0
    torch.testing.assert_close(mixture(x), one_by_one(mixture, x), atol=1e-4, rtol=1e-4)
    assert mixture(x).abs().amin(dim=-1).min() > 0


def test_the_balance_loss_is_one_when_all_are_equally_busy_and_e_over_k_when_two_do_all():
    config = dataclasses.replace(EXPERTS, n_experts=4, balance_coef=1.0)
    even = Choice(torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 2), torch.zeros(2, 4))
    assert auxiliary_loss(even, config).item() == pytest.approx(1.0)
    # Both tokens choose 0 and 1, whose scores are 1/2 each: 4 (1/2 * 1/2 + 1/2 * 1/2) = 2 = E / k.
    logits = torch.tensor([[50.0, 50.0, 0.0, 0.0]] * 2)
    uneven = Choice(torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2), logits)
    assert auxiliary_loss(uneven, config).item() == pytest.approx(2.0)


def test_the_z_loss_is_the_mean_square_of_the_log_sum():
    config = dataclasses.replace(EXPERTS, n_experts=2, n_active=1, balance_coef=0.0, z_coef=3.0)
    logits = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # log 2, and 1 + log 2
    choice = Choice(torch.tensor([[0], [1]]), torch.ones(2, 1), logits)
    expected = 3.0 * (math.log(2) ** 2 + (1 + math.log(2)) ** 2) / 2
    assert auxiliary_loss(choice, config).item() == pytest.approx(expected)


def small_model(**experts):
    config = ModelConfig(
        vocab_size=20,
        d_model=8,
        n_layers=3,
        n_heads=2,
        n_kv_heads=1,
        head_dim=4,
        d_ff=12,
        experts=dataclasses.replace(EXPERTS, **{"dense_layers": (1,), **experts}),
    )
    torch.manual_seed(1)
    model = LanguageModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 2)
    return model


IDS = torch.arange(12).view(2, 6)


def test_the_auxiliary_loss_moves_the_routers_and_not_the_reported_loss():
    plain, balanced = small_model(balance_coef=0.0), small_model(balance_coef=1.0)
    losses = [model.loss(IDS, IDS + 1) for model in (plain, balanced)]
    assert losses[0].item() == losses[1].item()
    for loss in losses:
        loss.backward()
    name = "model.layers.2.mlp.gate.weight"
    gradients = [dict(model.named_parameters())[name].grad for model in (plain, balanced)]
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3
    last_norm = [model.model.norm.weight.grad for model in (plain, balanced)]
    assert torch.equal(last_norm[0], last_norm[1])  # it lies behind every router


def test_evaluation_has_no_auxiliary_loss():
    model = small_model(balance_coef=1.0).eval()
    model.loss(IDS, IDS + 1).backward()
    expected = small_model(balance_coef=0.0)
    expected.loss(IDS, IDS + 1).backward()
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_some_layers_stay_dense():
    names = dict(small_model().named_parameters())
    assert "model.layers.1.mlp.gate_proj.weight" in names
    assert "model.layers.1.mlp.experts.gate_proj" not in names
    assert names["model.layers.2.mlp.experts.down_proj"].shape == (5, 8, 7)


def test_the_bias_moves_against_the_load():
    model = small_model(has_bias=True)
    router = model.model.layers[0].mlp.gate
    router.counts.copy_(torch.tensor([10.0, 0, 5, 5, 5]))  # 5 on average
    summed = []
    model.update_selection_bias(summed.append)
    # One expert has too much, one too little, three are even: -1, +1, 0, 0, 0, whose mean is 0.
    expected = BIAS_RATE * torch.tensor([-1.0, 1, 0, 0, 0])
    torch.testing.assert_close(router.selection_bias, expected)
    assert len(summed) == 2  # the layers that have experts
    assert router.counts.eq(0).all()


def test_the_bias_evens_out_a_skewed_router():
    """Four experts, and a router that prefers the first: with the bias all get a fair share in the end."""
    config = ExpertsConfig(n_experts=4, n_active=1, d_expert=2, has_bias=True)
    mixture = random_mixture(config, d_model=4)
    with torch.no_grad():
        mixture.gate.weight.copy_(torch.eye(4) * 0.3)
        mixture.gate.weight[0] += 0.1
    x = torch.rand(1, 2000, 4, generator=torch.Generator().manual_seed(0))
    shares = []
    for _ in range(200):
        mixture(x)
        shares.append((mixture.gate.counts / 2000).max().item())
        mixture.gate.update_bias(lambda counts: None)
    assert shares[0] > 0.6
    assert shares[-1] < 0.3


def test_counts_are_of_training_only_and_the_bias_is_in_the_state_dict():
    model = small_model(has_bias=True)
    model.eval()(IDS)
    model.train().loss(IDS, IDS)
    router = model.model.layers[0].mlp.gate
    assert router.counts.sum() == IDS.numel() * EXPERTS.n_active
    names = [name for name in model.state_dict() if "mlp.gate." in name]
    assert names == [f"model.layers.{i}.mlp.gate.{p}" for i in (0, 2) for p in ("weight", "selection_bias")]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="n_active must be at most n_experts; got 6 of 5"):
        dataclasses.replace(EXPERTS, n_active=6)
    with pytest.raises(InputError, match=r"dense_layers must be among the layers 0 to 2; got \[3\]"):
        small_model(dense_layers=(3,))
