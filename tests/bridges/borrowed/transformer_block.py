"""What `transformer_block` opens, behind the exercise's names: PyTorch's encoder layer as one operation."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.training.activations import gelu_tanh
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.mha import MultiHeadAttention

__all__ = ["FeedForward", "TransformerBlock"]

_ATTENTION = ("query", "key", "value", "output")


class FeedForward(Module):
    """A part of PyTorch's layer, which has no name of its own there."""

    def __init__(self, width, hidden, rng, activation=gelu_tanh, has_bias=True, gain=1.0, dtype=np.float64):
        self.up = Linear(width, hidden, rng, has_bias, dtype=dtype)
        self.down = Linear(hidden, width, rng, has_bias, gain, dtype)
        self.activation = activation

    def forward(self, x):
        return self.down(self.activation(self.up(x)))


class TransformerBlock(Module):
    def __init__(self, width, n_heads, rng, hidden=None, has_bias=True, gain=1.0, eps=1e-5, dtype=np.float64):
        hidden = 4 * width if hidden is None else hidden
        self.attention_norm = LayerNorm(width, eps, has_bias, dtype)
        self.attention = MultiHeadAttention(width, n_heads, rng, has_bias, gain, dtype)
        self.feed_forward_norm = LayerNorm(width, eps, has_bias, dtype)
        self.feed_forward = FeedForward(width, hidden, rng, has_bias=has_bias, gain=gain, dtype=dtype)

    def forward(self, x, mask=None):
        kinds = (LayerNorm, MultiHeadAttention, LayerNorm, FeedForward)
        parts = (self.attention_norm, self.attention, self.feed_forward_norm, self.feed_forward)
        is_own = all(type(part) is kind for part, kind in zip(parts, kinds, strict=True))
        fits = is_own and x.ndim > 1 and x.shape[-1] == self.attention_norm.weight.shape[0]
        sees = mask is None or (mask.dtype == bool and mask.any(axis=-1).all())
        # PyTorch knows its own parts only, and has no number for a token that sees nothing.
        if not (fits and sees and x.data.size):
            x = x + self.attention(self.attention_norm(x), mask)
            return x + self.feed_forward(self.feed_forward_norm(x))
        layers = [getattr(self.attention, name) for name in _ATTENTION]
        holders = [
            *layers,
            *(self.feed_forward.up, self.feed_forward.down, self.attention_norm, self.feed_forward_norm),
        ]
        inputs = [x, *(each.weight for each in holders)]
        inputs += [] if layers[0].bias is None else [each.bias for each in holders]
        leaves = [torch.tensor(each.data.copy(), requires_grad=True) for each in inputs]
        try:
            y = self._answer(leaves, mask)
        except (RuntimeError, AssertionError) as error:  # PyTorch's errors for shapes that do not fit
            raise ValueError(str(error)) from error

        def pull_back(leaf):
            return lambda g: torch.autograd.grad(y, leaf, torch.tensor(g.copy()), retain_graph=True)[
                0
            ].numpy()

        return record(y.detach().numpy(), *zip(inputs, map(pull_back, leaves), strict=True))

    def _answer(self, leaves, mask):
        x, weights, biases = leaves[0], leaves[1:9], leaves[9:]
        *leading, n, width = x.shape
        n_heads = self.attention.n_heads
        seen = torch.ones(n, n, dtype=torch.bool) if mask is None else torch.tensor(mask.copy())
        leading = torch.broadcast_shapes(tuple(leading), seen.shape[:-2])
        seen = seen.expand(*leading, n, n).reshape(-1, n, n).repeat_interleave(n_heads, dim=0)
        samples = x.expand(*leading, n, width).reshape(-1, n, width)
        layer = torch.nn.TransformerEncoderLayer(
            *(width, n_heads, len(weights[4]), 0.0, lambda h: F.gelu(h, approximate="tanh")),
            *(self.attention_norm.eps, True, True, bool(biases)),
            dtype=x.dtype,
        )
        names = ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
        state = {"self_attn.in_proj_weight": torch.cat(weights[:3])}
        state |= {f"{name}.weight": each for name, each in zip(names, weights[3:], strict=True)}
        if biases:
            state["self_attn.in_proj_bias"] = torch.cat(biases[:3])
            state |= {f"{name}.bias": each for name, each in zip(names, biases[3:], strict=True)}
        y = torch.func.functional_call(layer, state, (samples, ~seen))
        return y.reshape(*leading, n, width)
