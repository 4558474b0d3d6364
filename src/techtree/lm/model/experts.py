"""A mixture of experts: every token uses the few feed-forward layers that its router chooses.

No token is dropped: the tokens are sorted by expert, and each expert multiplies as many rows as it got.

N tokens, D d_model, E experts, k active ones, F d_expert.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from techtree.lm.config import ExpertsConfig

BIAS_RATE = 1e-3
"""How far a step moves an expert's bias (DeepSeek-V3, https://arxiv.org/abs/2412.19437, and torchtitan)."""


class Choice(NamedTuple):
    """Whom a router chose for each token."""

    experts: Int[Tensor, "N k"]
    weights: Float[Tensor, "N k"]
    logits: Float[Tensor, "N E"]


class Router(nn.Module):
    """Scores the experts for every token, in float32: near ties must not depend on the precision."""

    counts: Float[Tensor, " E"]
    """How many choices fell on each expert since `update_bias`."""

    def __init__(self, d_model: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_experts, d_model))
        if config.has_bias:
            self.register_buffer("selection_bias", torch.zeros(config.n_experts))
            self.register_buffer("counts", torch.zeros(config.n_experts), persistent=False)

    def forward(self, x: Float[Tensor, "N D"]) -> Choice:
        """Choose the experts of the highest scores, and weigh them by these."""
        logits = F.linear(x.float(), self.weight.float())
        scores = logits.softmax(dim=-1)
        # The bias decides who is chosen, not how much that counts: it needs no gradient.
        ranked = scores.detach() + self.selection_bias if self.config.has_bias else scores
        experts = ranked.topk(self.config.n_active, dim=-1).indices
        weights = scores.gather(1, experts)
        if self.config.normalize_weights:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        if self.config.has_bias and self.training and torch.is_grad_enabled():
            self.counts += torch.bincount(experts.flatten(), minlength=self.config.n_experts)
        return Choice(experts, weights, logits)

    @torch.no_grad()
    def update_bias(self, reduce: Callable[[Tensor], None]) -> None:
        """Make the experts that got more than their share a little less likely, and the others more.

        Parameters
        ----------
        reduce
            Adds up a tensor over all ranks, in place.
        """
        reduce(self.counts)
        change = BIAS_RATE * (self.counts.mean() - self.counts).sign()
        self.selection_bias += change - change.mean()
        self.counts.zero_()


class Experts(nn.Module):
    """The SwiGLU layers of all experts, each matrix of them stacked."""

    def __init__(self, d_model: int, config: ExpertsConfig) -> None:
        super().__init__()
        E, F_ = config.n_experts, config.d_expert
        self.gate_proj = nn.Parameter(torch.zeros(E, F_, d_model))
        self.up_proj = nn.Parameter(torch.zeros(E, F_, d_model))
        self.down_proj = nn.Parameter(torch.zeros(E, d_model, F_))

    def forward(self, x: Float[Tensor, "M D"], n_rows: list[int]) -> Float[Tensor, "M D"]:
        """Apply the first expert to the first ``n_rows[0]`` rows, and so on."""
        outputs = []
        for expert, rows in enumerate(x.split(n_rows)):
            if len(rows):
                gate, up, down = (
                    matrices[expert].to(x.dtype)
                    for matrices in (self.gate_proj, self.up_proj, self.down_proj)
                )
                outputs.append(F.linear(F.silu(F.linear(rows, gate)) * F.linear(rows, up), down))
        return torch.cat(outputs)


class MixtureOfExperts(nn.Module):
    """Router and experts, in the place of a feed-forward layer."""

    def __init__(self, d_model: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self._auxiliary_loss: Tensor | None = None
        self.gate = Router(d_model, config)
        self.experts = Experts(d_model, config)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Send every token to its experts and add up their weighted answers."""
        tokens = x.flatten(0, 1)
        choice = self.gate(tokens)
        if self.training and torch.is_grad_enabled():
            self._auxiliary_loss = auxiliary_loss(choice, self.config)
        by_expert = choice.experts.flatten().argsort(stable=True)
        rows = by_expert // self.config.n_active
        n_rows = torch.bincount(choice.experts.flatten(), minlength=self.config.n_experts).tolist()
        answers = self.experts(tokens[rows], n_rows)
        weights = choice.weights.flatten()[by_expert].to(x.dtype)
        return torch.zeros_like(tokens).index_add(0, rows, answers * weights[:, None]).view_as(x)

    def take_auxiliary_loss(self) -> Float[Tensor, ""] | None:
        """Return what the last forward pass adds to the loss, once; None outside of training."""
        taken, self._auxiliary_loss = self._auxiliary_loss, None
        return taken


def auxiliary_loss(choice: Choice, config: ExpertsConfig) -> Float[Tensor, ""]:
    """Return the balance loss and the z-loss, times their coefficients.

    The balance loss is ``E sum_e f_e p_e`` (Fedus et al. 2021, https://arxiv.org/abs/2101.03961), with f_e
    the share of the choices that fell on expert e and p_e its mean score: 1 when all are equally busy, up
    to E / k when not. The z-loss is the mean of ``logsumexp(logits)^2`` (Zoph et al. 2022,
    https://arxiv.org/abs/2202.08906).
    """
    n_experts = config.n_experts
    shares = torch.bincount(choice.experts.flatten(), minlength=n_experts) / choice.experts.numel()
    balance = n_experts * (shares * choice.logits.softmax(dim=-1).mean(dim=0)).sum()
    z = choice.logits.logsumexp(dim=-1).square().mean()
    return config.balance_coef * balance + config.z_coef * z
