"""Several small attentions beside each other."""

from techtree.techs.transformer.mha.mha import MultiHeadAttention, merge_heads, split_heads

__all__ = ["MultiHeadAttention", "merge_heads", "split_heads"]
