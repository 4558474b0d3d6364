"""The language model: a decoder of the `qwen3` shape, in small modules."""

from techtree.lm.model.cache import KVCache
from techtree.lm.model.language_model import LanguageModel

__all__ = ["KVCache", "LanguageModel"]
