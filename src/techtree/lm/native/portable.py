"""What decoder.c computes, in PyTorch: where there is no compiler, and as the oracle of its tests."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.layouts import meta_model
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.model.linear import Linear
from techtree.lm.quant.blocks import BLOCK, Blocks


def portable(config: ModelConfig, weights: Mapping[str, Tensor | Blocks]) -> LanguageModel:
    """Return a model in float32 that rounds, as the decoder does, what a quantized matrix multiplies.

    Its logits are the decoder's but for the order of the sums.
    """
    given = {name: weights[name] for name in weights}
    quantized = {name for name, one in given.items() if isinstance(one, Blocks)}
    floats = {
        name: one.floats() if isinstance(one, Blocks) else one.detach().float() for name, one in given.items()
    }
    model = meta_model(config)
    model.load_state_dict(floats, assign=True)
    for name, module in model.named_modules():
        if isinstance(module, Linear) and f"{name}.weight" in quantized:
            module.register_forward_pre_hook(_round_input)
    head = "model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"
    if head in quantized:
        logits = model.logits
        model.logits = lambda hidden: logits(rounded(hidden))  # pyright: ignore[reportAttributeAccessIssue]
    return model.eval()


def rounded(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return activations as blocks of 32 give them back, each in 8 bits with a scale in float32."""
    zeros = x.new_zeros(*x.shape[:-1], -x.shape[-1] % BLOCK)
    blocks = torch.cat((x, zeros), dim=-1).unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    steps = (blocks * torch.where(scale == 0, 0.0, 1 / scale)).round()  # ties to even
    return (steps * scale).flatten(-2)[..., : x.shape[-1]]


def _round_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rounded(inputs[0]), *inputs[1:])
