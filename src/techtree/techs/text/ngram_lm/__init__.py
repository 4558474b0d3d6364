"""The counting language model that every later model must beat, perplexity, and bits per byte."""

from .ngram_lm import NgramLM, bits_per_byte, perplexity

__all__ = ["NgramLM", "bits_per_byte", "perplexity"]
