"""What `rope` opens, behind the exercise's names: the rotary embedding of transformers' Llama."""

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from techtree.techs.autodiff.tensor_autodiff import record
from techtree.techs.transformer.rope import RopeScaling, to_half_split
from techtree.techs.transformer.rope import frequencies as ours

__all__ = ["RopeScaling", "frequencies", "rotate", "rotation", "to_half_split"]


def frequencies(width, base=10_000.0, scaling=None):
    """Their frequencies are float32: close to ours, which the tests want more exactly."""
    expected = ours(width, base, scaling)
    if base < 1e-30 or base > 1e30:
        return expected
    parameters = {"rope_type": "default", "rope_theta": float(base)}
    if scaling is not None:
        parameters |= {"rope_type": scaling.kind, "factor": float(scaling.factor)}
    if scaling is not None and scaling.kind == "llama3":
        parameters |= {
            "low_freq_factor": float(scaling.low_freq_factor),
            "high_freq_factor": float(scaling.high_freq_factor),
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }
    config = LlamaConfig(hidden_size=width, num_attention_heads=1, head_dim=width, rope_parameters=parameters)
    found = LlamaRotaryEmbedding(config).inv_freq.numpy()
    assert np.allclose(found, expected, rtol=3e-4, atol=1e-12), (found, expected)
    return expected


def rotation(positions, width, base=10_000.0, scaling=None):
    positions = torch.tensor(np.array(positions, np.float64, order="C"))
    if positions.ndim == 0:
        raise ValueError("positions must have an axis")
    angles = positions[..., None] * torch.tensor(frequencies(width, base, scaling))
    return angles.cos().numpy(), angles.sin().numpy()


def rotate(x, cos, sin, is_interleaved=False):
    """Theirs takes each angle twice, half-split."""
    if x.ndim < 2:
        raise ValueError("x must have two axes")
    order = to_half_split(x.shape[-1]) if is_interleaved else np.arange(x.shape[-1])
    to_half_split(x.shape[-1])  # refuses odd widths
    if cos.shape != sin.shape or cos.shape[-2:] != (x.shape[-2], x.shape[-1] // 2):
        raise ValueError("cos and sin must be (..., T, W / 2)")
    if np.broadcast_shapes(cos.shape[:-2], x.shape[:-2]) != x.shape[:-2]:
        raise ValueError("cos and sin must broadcast to x")
    both = [torch.tensor(np.concatenate([each, each], axis=-1).astype(x.dtype)) for each in (cos, sin)]

    leaf = torch.tensor(np.ascontiguousarray(x.data[..., order]), requires_grad=True)
    y = apply_rotary_pos_emb(leaf[None], leaf[None], *both, unsqueeze_dim=0)[0][0]
    back = np.argsort(order)

    def pull_back(g):
        given = torch.tensor(np.ascontiguousarray(g[..., order]))
        return torch.autograd.grad(y, leaf, given, retain_graph=True)[0].numpy()[..., back]

    return record(y.detach().numpy()[..., back], (x, pull_back))
