"""Fake quantization: a model computes with the weights that a file would hold, and learns with its own.

The gradient at the rounded weights is applied to the exact ones, as if rounding were the identity (the
straight-through estimator: Bengio et al. 2013, https://arxiv.org/abs/1308.3432). The exact ones collect steps
that are too small to change a rounded weight, until they do. The lesson is `techs/inference/qat`.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from techtree.lm.native import blocks
from techtree.lm.native.library import NoCompilerError
from techtree.lm.quant.blocks import BLOCK, grid
from techtree.lm.quant.choice import stored_kind


@contextlib.contextmanager
def fake_quantized(model: nn.Module, kind: Literal["q8_0", "q4_0"]) -> Iterator[None]:
    """Give a model, for a block, the weights that `export --dtype` would write; then it has its own again."""
    exact: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if to := stored_kind(name, tuple(parameter.shape), kind):
                    exact.append((parameter, parameter.detach().clone()))
                    parameter.copy_(rounded(parameter, to))
        yield
    finally:
        with torch.no_grad():
            for parameter, own in exact:
                parameter.copy_(own)


def rounded(weights: Float[Tensor, "*n d"], kind: Literal["q8_0", "q4_0"]) -> Float[Tensor, "*n d"]:
    """Return weights as blocks give them back."""
    weights = weights.detach()
    if weights.device.type == "cpu" and weights.dtype == torch.float32:
        with contextlib.suppress(NoCompilerError):
            return blocks.rounded(weights, kind)
    return grid(weights.unflatten(-1, (-1, BLOCK)), kind).flatten(-2)
