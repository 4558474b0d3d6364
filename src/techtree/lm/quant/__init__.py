"""Weights in few bits: blocks of 32 with a scale, exactly as GGUF files have them."""
