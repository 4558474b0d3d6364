"""Keys and values that are kept, so that the next token costs one token."""

from techtree.techs.inference.kv_cache.kv_cache import KVCache, extend, generate_cached

__all__ = ["KVCache", "extend", "generate_cached"]
