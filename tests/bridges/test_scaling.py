"""What the lesson counts is what PyTorch counts, in a GPT-2 that it runs forward and backward."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from techtree.techs.transformer.gpt import GPTConfig
from techtree.techs.transformer.scaling import count_parameters, fit_power_law, flops_per_token

SHAPES = [(50, 16, 8, 2, 2, None), (7, 5, 12, 3, 4, 20), (100, 9, 6, 1, 1, None)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parameters_and_operations_of_gpt2(shape):
    n_tokens, n_positions, width, n_layers, n_heads, hidden = shape
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=n_tokens,
            n_positions=n_positions,
            n_embd=width,
            n_layer=n_layers,
            n_head=n_heads,
            n_inner=hidden,
            attn_implementation="eager",
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    config = GPTConfig(n_tokens, n_positions, width, n_layers, n_heads, hidden)
    assert count_parameters(config) == sum(p.numel() for p in theirs.parameters())
    ids = torch.zeros(3, n_positions, dtype=torch.long)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        theirs(ids)
    assert forward.get_total_flops() == 3 * n_positions * flops_per_token(config, is_training=False)
    with FlopCounterMode(display=False) as both:
        theirs(ids).logits.sum().backward()
    assert both.get_total_flops() == 3 * n_positions * flops_per_token(config)


def test_the_fit_is_that_of_a_general_optimizer():
    """LBFGS of PyTorch, from a good start, finds nothing closer."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = np.geomspace(1, 300, 8)
        y = (1.5 + 4 * x**-0.4) * np.exp(0.01 * rng.normal(size=8))
        law = fit_power_law(x, y)
        free = torch.tensor([np.log(law.coefficient), np.log(law.exponent), law.floor], requires_grad=True)
        tx, ty = torch.tensor(x), torch.tensor(y)

        def error(free=free, tx=tx, ty=ty):
            return (((free[2] + free[0].exp() * tx ** -free[1].exp()) / ty - 1) ** 2).sum()

        start = error().item()
        optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

        def step(optimizer=optimizer, error=error):
            optimizer.zero_grad()
            value = error()
            value.backward()
            return value

        optimizer.step(step)
        assert start <= error().item() * (1 + 1e-6)
