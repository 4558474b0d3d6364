"""Many feed-forward parts of which each token uses a few."""

from techtree.techs.transformer.moe.moe import MoE, balance_loss, load_qwen3_moe, route

__all__ = ["MoE", "balance_loss", "load_qwen3_moe", "route"]
