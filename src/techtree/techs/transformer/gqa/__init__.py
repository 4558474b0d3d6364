"""Attention in which several heads share the same keys and values."""

from techtree.techs.transformer.gqa.gqa import GroupedQueryAttention, grouped_attention, repeat_heads

__all__ = ["GroupedQueryAttention", "grouped_attention", "repeat_heads"]
