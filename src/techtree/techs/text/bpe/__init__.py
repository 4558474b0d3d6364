"""Byte-pair encoding: train a tokenizer, encode and decode with it."""

from .bpe import BPE, train

__all__ = ["BPE", "train"]
