"""Many feed-forward parts of which each token uses a few: more weights for the same arithmetic.

Claim: a router, one matrix, can choose for each token which of many small feed-forward parts shall answer.
Left to itself it chooses a few for all, as what is chosen learns and what learns is chosen; a small loss on
how evenly the choices fall keeps all experts in use.

Idea: the k experts of the highest scores answer, and their answers are added with the scores as weights. The
choice itself has no gradient; the weights do, and through them the router learns.

Legend: ``x`` (N, W) tokens; ``E`` experts, each a `SwiGLU`; ``k`` the number that a token uses.

Left out: experts on several machines, experts that all tokens share, biases that balance without a loss.

Paper: Shazeer et al. (2017), https://arxiv.org/abs/1701.06538
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, record
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.llama_block import Llama, read_config, read_weights, set_weights
from techtree.techs.transformer.swiglu import SwiGLU


def route(logits: Tensor, n_chosen: int, is_renormalized: bool = True) -> tuple[np.ndarray, Tensor]:
    """Choose the experts of each token, and weigh them.

    Parameters
    ----------
    logits
        (N, E), finite, of any size; the softmax over all E is the probability of each expert.
    n_chosen
        k, from 1 to E.
    is_renormalized
        Whether the weights of a token are divided by their sum.

    Returns
    -------
    experts, weights
        (N, k) integers, the experts of the highest logits of the row, the highest first and of equal ones
        the lower number first; and (N, k) their probabilities, of the dtype of the logits. Gradients flow
        from the weights to the logits.

    Raises
    ------
    ValueError
        When logits have not two axes, or k is less than 1 or more than E.

    Examples
    --------
    >>> logits = Tensor(np.log([[1.0, 4.0, 3.0], [2.0, 2.0, 1.0]]))
    >>> experts, weights = route(logits, 2, is_renormalized=False)
    >>> experts.tolist(), weights.data.round(3).tolist()
    ([[1, 2], [0, 1]], [[0.5, 0.375], [0.4, 0.4]])
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must have the shape (N, E); got {logits.shape}")
    if not 1 <= n_chosen <= logits.shape[1]:
        raise ValueError(f"n_chosen must be from 1 to {logits.shape[1]}, the experts; got {n_chosen}")
    experts = np.argsort(-logits.data, axis=-1, kind="stable")[:, :n_chosen]
    weights = _softmax(logits)[np.arange(len(experts))[:, None], experts]
    return experts, weights / weights.sum(axis=-1, keepdims=True) if is_renormalized else weights


def balance_loss(logits: Tensor, experts: np.ndarray) -> Tensor:
    """Measure how unevenly the choices fall: 1 when they are even, up to E / k when they are not.

    Parameters
    ----------
    logits
        (N, E), N at least 1, as for `route`.
    experts
        (N, k), the experts that were chosen; a constant, and not changed.

    Returns
    -------
    Tensor
        A number: ``E * sum(share * mean)`` over the experts, with ``share`` the part of the N * k choices
        that fell on the expert, and ``mean`` its mean probability. Gradients flow to the logits through
        ``mean``.

    Raises
    ------
    ValueError
        When either has not two axes, N is 0 or not the same in both, or k is 0.

    Examples
    --------
    >>> logits = Tensor(np.log([[3.0, 1.0], [3.0, 1.0]]))
    >>> float(balance_loss(logits, np.array([[0], [0]])).data.round(3))  # 2 * (1 * 0.75 + 0 * 0.25)
    1.5
    """
    if logits.ndim != 2 or experts.ndim != 2 or not experts.size or len(experts) != logits.shape[0]:
        raise ValueError(
            f"logits must be (N, E) and experts (N, k), none empty; got {logits.shape}, {experts.shape}"
        )
    n_experts = logits.shape[1]
    shares = np.bincount(experts.ravel(), minlength=n_experts) / experts.size
    return (_softmax(logits).mean(axis=0) * shares.astype(logits.dtype)).sum() * n_experts


class MoE(Module):
    """A mixture of experts in the place of a feed-forward part.

    Parameters
    ----------
    width, hidden
        Of each expert.
    n_experts, n_chosen
        E, at least 1, and k, from 1 to E; ``ValueError`` otherwise.
    rng
        Draws the router, then the experts in order; the only source of randomness.
    is_renormalized
        As for `route`.
    capacity
        None if an expert answers all tokens that choose it. A number above 0 (``ValueError`` otherwise)
        if it answers at most ``ceil(capacity * N * k / E)`` of them, the first in the order of x.
    gain
        Of the experts, as for `SwiGLU`.
    dtype
        Of all parameters.

    Attributes
    ----------
    router
        `Linear` without bias from the width to E.
    experts
        List of E `SwiGLU` without biases.
    logits, chosen
        Of the last call: the `Tensor` (N, E) of the router's answers, on its tape, and the (N, k) experts
        of `route`, those included that had no room. None before the first.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        n_experts: int,
        n_chosen: int,
        rng: np.random.Generator,
        is_renormalized: bool = True,
        capacity: float | None = None,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        if not 1 <= n_chosen <= n_experts:
            raise ValueError(f"n_chosen must be from 1 to n_experts; got {n_chosen} of {n_experts}")
        if capacity is not None and not capacity > 0:
            raise ValueError(f"capacity must be above 0, or None; got {capacity}")
        self.router = Linear(width, n_experts, rng, False, dtype=dtype)
        self.experts = [SwiGLU(width, hidden, rng, False, gain, dtype) for _ in range(n_experts)]
        self.n_chosen, self.is_renormalized, self.capacity = n_chosen, is_renormalized, capacity
        self.logits: Tensor | None = None
        self.chosen: np.ndarray | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Let the chosen experts answer.

        Parameters
        ----------
        x
            (..., W), with any leading axes or none; N rows in all, also 0.

        Returns
        -------
        Tensor
            Of the shape of x, and its dtype where the parameters have it, too: for each row the sum of the
            answers of its experts, times their weights. An expert without room adds 0, and the other weights
            stay. An expert computes for its own rows alone. Gradients flow to x and the parameters; those of
            an expert without rows are 0 or None.

        Raises
        ------
        ValueError
            As `Linear` does: when the last axis is not W.
        """
        if x.ndim == 0 or x.shape[-1] != self.router.weight.shape[1]:
            raise ValueError(f"x must have a last axis of {self.router.weight.shape[1]}; got {x.shape}")
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        self.logits = logits = self.router(rows)
        self.chosen, weights = route(logits, self.n_chosen, self.is_renormalized)
        order = np.argsort(self.chosen, axis=None, kind="stable")  # choices by expert, then by row
        cut = np.searchsorted(self.chosen.ravel()[order], np.arange(len(self.experts) + 1))
        room = self.chosen.size
        if self.capacity is not None:
            room = math.ceil(self.capacity * self.chosen.size / len(self.experts))
        parts = [order[a:b][:room] for a, b in pairwise(cut)]
        answers = [
            expert(rows[part // self.n_chosen])
            for expert, part in zip(self.experts, parts, strict=True)
            if len(part)
        ]
        if not answers:
            return x * 0
        order = np.concatenate(parts)
        weighted = concatenate(answers) * weights.reshape(-1, 1)[order]
        return _added(weighted, order // self.n_chosen, rows.shape).reshape(x.shape)


def load_qwen3_moe(folder: str | Path, dtype: type = np.float32) -> Llama:
    """Load a Qwen3-MoE model.

    Parameters
    ----------
    folder
        With ``config.json`` and the weights, in Hugging Face's format.
    dtype
        Of all parameters.

    Returns
    -------
    Llama
        With a `MoE` as feed-forward part of the layers that have experts, `SwiGLU` in the others. No
        capacity.

    Raises
    ------
    ValueError
        As `read_config`, for the model_type qwen3_moe, `read_weights` and `set_weights`; also when a key
        of the notes is missing that has no default, or its value is none of those given.

    Notes
    -----
    ``num_experts``, or where that is missing ``num_local_experts``, is E, ``num_experts_per_tok`` k from 1
    to E, ``moe_intermediate_size`` the hidden width: whole numbers of at least 1, all needed.
    ``norm_topk_prob``, true or false, false when missing, says whether weights are renormalized. Layer i,
    from 0, has experts unless i is in the list ``mlp_only_layers`` (missing or null: none) or i + 1 is no
    multiple of ``decoder_sparse_step`` (a whole number of at least 1; 1 when missing).

    Names: the router's weight of layer 0 is ``model.layers.0.mlp.gate.weight``, those of its expert 3
    ``model.layers.0.mlp.experts.3.gate_proj.weight``, and up_proj, down_proj likewise.
    """
    config, values = read_config(folder, ("qwen3_moe",))
    total = "num_experts" if "num_experts" in values else "num_local_experts"
    n_experts, n_chosen = _count(values, total), _count(values, "num_experts_per_tok")
    hidden, step = _count(values, "moe_intermediate_size"), _count(values, "decoder_sparse_step", 1)
    is_renormalized, dense = values.get("norm_topk_prob", False), values.get("mlp_only_layers")
    dense = [] if dense is None else dense
    if not isinstance(is_renormalized, bool):
        raise ValueError(f"{folder}: norm_topk_prob must be true or false; got {is_renormalized!r}")
    if not isinstance(dense, list) or not all(isinstance(layer, int) for layer in dense):
        raise ValueError(f"{folder}: mlp_only_layers must be a list of numbers of layers; got {dense!r}")
    rng = np.random.default_rng(0)

    def feed_forward(layer: int) -> Module | None:
        if layer in dense or (layer + 1) % step:
            return None
        return MoE(config.width, hidden, n_experts, n_chosen, rng, is_renormalized, dtype=dtype)

    weights = read_weights(folder)
    model = Llama(config, rng, feed_forward, dtype)
    set_weights(model, weights, {"router": "gate"})
    return model


def _softmax(logits: Tensor) -> Tensor:
    e = (logits - logits.data.max(axis=-1, keepdims=True)).exp()
    return e / e.sum(axis=-1, keepdims=True)


def _added(values: Tensor, rows: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Add up values (M, W) in the rows (M,) of zeros."""
    whole = np.zeros(shape, values.dtype)
    np.add.at(whole, rows, values.data)
    return record(whole, (values, lambda g: g[rows]))


def _count(values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} must be a whole number of at least 1; got {value!r}")
    return value
