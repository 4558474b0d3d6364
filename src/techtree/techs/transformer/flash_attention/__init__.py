"""Exact attention tile by tile, without ever holding a weight for each pair of tokens."""

from techtree.techs.transformer.flash_attention.flash_attention import flash_attention, tiles

__all__ = ["flash_attention", "tiles"]
