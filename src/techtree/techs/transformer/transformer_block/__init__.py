"""Attention and a feed-forward network, each added to the stream of its tokens."""

from techtree.techs.transformer.transformer_block.transformer_block import FeedForward, TransformerBlock

__all__ = ["FeedForward", "TransformerBlock"]
