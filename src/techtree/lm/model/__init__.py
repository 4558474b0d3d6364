"""The language model: a decoder of one of many families, in small modules."""

from techtree.lm.model.cache import KVCache
from techtree.lm.model.language_model import LanguageModel

__all__ = ["KVCache", "LanguageModel"]
